//! Putting files back: each as the manifest says, or none counts.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use surety_protocol::{Seq, ShardId, sabotage};
use wal::FileName;

use crate::copy::Hashed;
use crate::{Depot, DepotError, FilePart, MANIFEST_FILE, Manifest, ManifestError};

/// A manifest of a million files is not ours.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// What is read into memory has no more than this.
const CONTENTS_BYTES_MAX: u64 = 1 << 20;

/// Why a backup was not read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no manifest: no backup, or one that was cut short.
    #[error(
        "{0} has no {MANIFEST_FILE}: it is no backup, or one that was cut short before it was whole; take another"
    )]
    NoBackup(String),
    /// The manifest.
    #[error("{place}: {source}")]
    Manifest {
        /// Where.
        place: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The place that it comes from.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// A file has other bytes than when it was written.
    #[error(
        "{name} in {place} is damaged: its length or hash is not what {MANIFEST_FILE} says; take another backup"
    )]
    Damaged {
        /// Where.
        place: String,
        /// Which file.
        name: String,
    },
    /// An archive's segment does not go on where the backup's ends.
    #[error(
        "{name} in {place} is not what the backup has of it: one of the two is damaged, or of another life of the engine; restore without the archive, or give the right one"
    )]
    Diverges {
        /// The archive.
        place: String,
        /// Which file.
        name: String,
    },
    /// The file system that it goes to.
    #[error("writing {} failed: {source}; see to the disk, remove the directory and try again", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Reads the manifest of a backup.
///
/// # Errors
/// [`FetchError::NoBackup`], [`FetchError::Manifest`] or the place's own.
pub fn read_manifest(depot: &dyn Depot) -> Result<Manifest, FetchError> {
    let from = match depot.get(MANIFEST_FILE) {
        Err(DepotError::Missing { place, .. }) => return Err(FetchError::NoBackup(place)),
        from => from?,
    };
    let mut bytes = Vec::new();
    let read = from.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|source| reading(depot, MANIFEST_FILE, source))?;
    Manifest::parse(&bytes).map_err(|source| FetchError::Manifest { place: depot.place(), source })
}

/// Puts one file of a backup below a directory, synced, and compares it with the manifest on the way.
///
/// # Errors
/// [`FetchError`]; what is there then is not to be used.
pub fn fetch(depot: &dyn Depot, part: &FilePart, to: &Path) -> Result<(), FetchError> {
    let path = to.join(&part.name);
    let failed = |source| FetchError::Io { path: path.clone(), source };
    let directory = path.parent().unwrap_or(to);
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let mut from = Hashed::new(depot.get(&part.name)?);
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut piece).map_err(|source| reading(depot, &part.name, source))?;
        if read == 0 {
            break;
        }
        file.write_all(&piece[..read]).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    compare(depot, part, from)
}

/// Brings the copy of a shard's log below a directory up to where an archive goes: its last segment, which may have been cut, and those
/// that follow. The last one must begin with what is there of it; what they hold beyond is for whoever reads the log to check.
///
/// # Errors
/// [`FetchError`], [`FetchError::Diverges`] among them; what is there then is not to be used.
pub fn extend(archive: &dyn Depot, shard: ShardId, to: &Path) -> Result<(), FetchError> {
    let failed = |source| FetchError::Io { path: to.to_owned(), source };
    let segment = |name: &str| match FileName::parse(name) {
        Some(FileName::Segment { first_seq }) => Some(first_seq),
        _ => None,
    };
    let directory = to.join(format!("shard-{shard}"));
    let mut last = Seq(0);
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        last = last.max(name.to_str().and_then(segment).unwrap_or_default());
    }
    let prefix = format!("shard-{shard}/");
    for name in archive.names_in(&format!("shard-{shard}"))? {
        if name.strip_prefix(&prefix).and_then(segment).is_some_and(|first| first >= last) {
            go_on_with(archive, &name, to)?;
        }
    }
    File::open(&directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Writes a segment of an archive, behind what is there of it, which must be its beginning.
fn go_on_with(archive: &dyn Depot, name: &str, to: &Path) -> Result<(), FetchError> {
    let path = to.join(name);
    let failed = |source| FetchError::Io { path: path.clone(), source };
    let read = |source| reading(archive, name, source);
    let options = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
    let mut file = options.open(&path).map_err(failed)?;
    let mut from = archive.get(name)?;
    let (mut ours, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let length = file.read(&mut ours).map_err(failed)?;
        if length == 0 {
            break;
        }
        let is_same = match from.read_exact(&mut theirs[..length]) {
            Ok(()) => ours[..length] == theirs[..length],
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(read(error)),
        };
        if !is_same && !sabotage!("archive-not-compared") {
            return Err(FetchError::Diverges { place: archive.place(), name: name.to_owned() });
        }
    }
    loop {
        let length = from.read(&mut theirs).map_err(read)?;
        if length == 0 {
            break;
        }
        file.write_all(&theirs[..length]).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}

/// The contents of a small file of a backup, which are what the manifest says.
///
/// # Errors
/// [`FetchError::Damaged`], or the place's own.
pub fn contents(depot: &dyn Depot, part: &FilePart) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let mut from = Hashed::new(depot.get(&part.name)?.take(CONTENTS_BYTES_MAX));
    from.read_to_end(&mut bytes).map_err(|source| reading(depot, &part.name, source))?;
    compare(depot, part, from)?;
    Ok(bytes)
}

/// Reads one file of a backup and compares it with the manifest.
///
/// # Errors
/// [`FetchError::Damaged`], or the place's own.
pub fn check(depot: &dyn Depot, part: &FilePart) -> Result<(), FetchError> {
    let mut from = Hashed::new(depot.get(&part.name)?);
    io::copy(&mut from, &mut io::sink()).map_err(|source| reading(depot, &part.name, source))?;
    compare(depot, part, from)
}

fn compare<R: Read>(depot: &dyn Depot, part: &FilePart, read: Hashed<R>) -> Result<(), FetchError> {
    let (bytes, hash) = read.finish();
    if bytes == part.bytes && hash.to_hex().as_str() == part.blake3 || sabotage!("damaged-copy-taken") {
        return Ok(());
    }
    Err(FetchError::Damaged { place: depot.place(), name: part.name.clone() })
}

fn reading(depot: &dyn Depot, name: &str, source: io::Error) -> FetchError {
    DepotError::Io { doing: "reading", place: depot.place(), name: name.to_owned(), source }.into()
}
