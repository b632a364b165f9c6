//! The log as it grows, kept elsewhere: each segment once it is complete, under its own name, never written twice.

use std::io;
use std::path::Path;

use storage::{COPIED_METADATA_FILE, StorageError};
use surety_protocol::ShardId;
use wal::FileName;

use crate::copy::{Hashed, put, used_part};
use crate::pinned::Pinned;
use crate::{CopyError, Depot, DepotError, MANIFEST_FILE};

/// Why something was not archived. What is there already is untouched.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The log's own files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The segment could not be kept.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The place.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// The place belongs to somebody else.
    #[error(
        "{0} is no archive of this engine: its {COPIED_METADATA_FILE} is another one's, or it holds other things; archive to a place of its own"
    )]
    Foreign(String),
    /// Another object has the segment's name.
    #[error(
        "{name} in {place} is not the segment of this log: it is of another life of this engine, or damaged; it is left as it is: find out why, or archive to another place"
    )]
    Differs {
        /// Where.
        place: String,
        /// Which.
        name: String,
    },
}

/// Makes sure that a place is the archive of the engine with this metadata. An empty place becomes it.
///
/// # Errors
/// [`ArchiveError::Foreign`], or the place's own.
pub fn claim_archive(depot: &dyn Depot, metadata: &str) -> Result<(), ArchiveError> {
    let foreign = || ArchiveError::Foreign(depot.place());
    // A backup holds segments of the same names, the last of which is cut: it is whole, and stays as it is.
    if !matches!(depot.get(MANIFEST_FILE), Err(DepotError::Missing { .. })) {
        return Err(foreign());
    }
    match depot.get(COPIED_METADATA_FILE) {
        Ok(mut from) => {
            let mut text = String::new();
            let read = from.read_to_string(&mut text);
            read.map_err(|source| reading(depot, COPIED_METADATA_FILE, source))?;
            if text == metadata { Ok(()) } else { Err(foreign()) }
        }
        Err(DepotError::Missing { .. }) => {
            // What another shard of this engine has begun to write is no stranger's.
            if depot.names()?.iter().any(|name| !name.starts_with(COPIED_METADATA_FILE)) {
                return Err(foreign());
            }
            Ok(depot.put(COPIED_METADATA_FILE, &mut metadata.as_bytes())?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Keeps a complete segment, unless it is kept already. It must be synced, with all that was written to it.
///
/// # Errors
/// [`ArchiveError::Differs`] if there is another object of its name; nothing is overwritten.
pub fn archive_segment(
    depot: &dyn Depot,
    shard: ShardId,
    path: &Path,
    segment: FileName,
) -> Result<(), ArchiveError> {
    let name = format!("shard-{shard}/{segment}");
    let pinned = Pinned::open(path, &[segment])?;
    // Nobody removes what is not archived: without it the error names the file.
    let pinned = match pinned {
        Some(pinned) => pinned,
        None => Pinned::empty(path),
    };
    let there = match depot.get(&name) {
        Ok(from) => Some(hash_of(from).map_err(|source| reading(depot, &name, source))?),
        Err(DepotError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let part = used_part(&pinned, segment)?;
    match there {
        None => Ok(put(depot, &name, part).map(|_| ())?),
        Some(there) => {
            let ours = hash_of(part).map_err(|source| reading(depot, &name, source))?;
            if ours == there { Ok(()) } else { Err(ArchiveError::Differs { place: depot.place(), name }) }
        }
    }
}

fn hash_of(from: impl io::Read) -> io::Result<(u64, blake3::Hash)> {
    let mut hashed = Hashed::new(from);
    io::copy(&mut hashed, &mut io::sink())?;
    Ok(hashed.finish())
}

fn reading(depot: &dyn Depot, name: &str, source: io::Error) -> DepotError {
    DepotError::Io { doing: "reading", place: depot.place(), name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectoryDepot;
    use std::fs;
    use surety_protocol::Seq;

    const SEGMENT: FileName = FileName::Segment { first_seq: Seq(1) };

    #[test]
    fn a_segment_is_archived_once_and_never_over_another() {
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(&directory.path().join("archive"));
        let shard = directory.path().join("shard");
        fs::create_dir(&shard).unwrap();
        let file = shard.join(SEGMENT.to_text());
        let mut bytes = vec![7; 8192];
        bytes.resize(1 << 20, 0);
        fs::write(&file, &bytes).unwrap();
        let archive = || archive_segment(&depot, ShardId(2), &shard, SEGMENT);
        archive().unwrap();
        archive().unwrap();
        let kept = directory.path().join("archive/shard-2").join(SEGMENT.to_text());
        assert_eq!(fs::read(&kept).unwrap(), bytes[..8192], "without the zeros behind its last block");
        bytes[100] ^= 1;
        fs::write(&file, &bytes).unwrap();
        assert!(matches!(archive(), Err(ArchiveError::Differs { .. })));
        assert_eq!(fs::read(&kept).unwrap()[100], 7, "what is kept stays");
        fs::remove_file(&file).unwrap();
        assert!(matches!(archive(), Err(ArchiveError::Copy(_) | ArchiveError::Storage(_))));
    }

    #[test]
    fn an_archive_belongs_to_one_engine() {
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(&directory.path().join("archive"));
        claim_archive(&depot, "one").unwrap();
        claim_archive(&depot, "one").unwrap();
        assert!(matches!(claim_archive(&depot, "other"), Err(ArchiveError::Foreign(_))));
        let other = DirectoryDepot::new(&directory.path().join("other"));
        other.put("holiday.jpg", &mut &b"x"[..]).unwrap();
        assert!(matches!(claim_archive(&other, "one"), Err(ArchiveError::Foreign(_))));
        // Of the same engine, and an archive all the same not.
        depot.put(MANIFEST_FILE, &mut &b"{}"[..]).unwrap();
        assert!(matches!(claim_archive(&depot, "one"), Err(ArchiveError::Foreign(_))));
    }

    #[test]
    fn a_data_directory_is_no_archive() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("engine.toml"), "one").unwrap();
        let depot = DirectoryDepot::new(directory.path());
        assert!(matches!(claim_archive(&depot, "one"), Err(ArchiveError::Foreign(_))));
    }
}
