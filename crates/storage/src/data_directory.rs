//! A data directory: who it belongs to, how many shards it has, and the lock on it.
//!
//! ```text
//! <data>/engine.toml     engine id, shards, format, creation; written last
//! <data>/LOCK            held by the process that uses it
//! <data>/RESTORING       there while a backup is being put back
//! <data>/shard-<i>/      the files of shard i
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use surety_protocol::limits::{ID_WINDOW_MAX, SHARDS_MAX};
use surety_protocol::{EngineId, ShardId, Time};
use wal::Identity;

use crate::lock::LOCK_FILE;
use crate::{DirectoryLock, FileStorage, IoMode, LockError, StorageError};

/// The file that makes a directory a data directory.
pub const METADATA_FILE: &str = "engine.toml";
/// What [`METADATA_FILE`] says, as backups and archives keep it. Their places are no data directories, whole or not, so it has another
/// name there, and is the first file of theirs.
pub const COPIED_METADATA_FILE: &str = "directory.toml";
/// The file that says that a backup is being put back.
pub const RESTORING_FILE: &str = "RESTORING";
/// The layout that this program writes, and the highest that it reads.
pub const FORMAT_VERSION: u32 = 2;

/// The mode of a directory that only its owner may enter.
const PRIVATE: u32 = 0o700;

/// The bounds of a window of ids.
const ID_WINDOW_MIN: Time = Time::from_secs(10);
const NANOS: u64 = 1_000_000_000;

/// What a data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The engine's id, drawn when it was created.
    pub engine: EngineId,
    /// Number of shards.
    pub shards: u16,
    /// When it was created.
    pub created: Time,
    /// How old an id may be. What was decided by one window replays by no other.
    pub id_window: Time,
    /// True for a copy that was put back as it stood at a moment: to be looked at, never to be served from.
    pub is_forensic: bool,
}

/// Why a data directory was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateDirectoryError {
    /// There is something already.
    #[error("{} exists and is not empty; choose another directory", .0.display())]
    Exists(PathBuf),
    /// Its creation was begun and cut short.
    #[error(
        "{} was left half made: it has a {LOCK_FILE} but no {METADATA_FILE}; remove it and try again",
        .0.display()
    )]
    HalfMade(PathBuf),
    /// What is put back is everybody's payments: the directory must be its owner's alone.
    #[error(
        "{} belongs to user {owner}, and this is user {user}: whoever owns it could change what is put back; give a directory that is not there, or one of your own",
        path.display()
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// No engine has that many shards, or none.
    #[error("an engine has 1 to {SHARDS_MAX} shards, not {0}")]
    Shards(u16),
    /// No engine takes ids for so long, or so shortly.
    #[error("ids are taken for 10 s to 24 h, in whole seconds")]
    IdWindow(Time),
    /// Somebody else is creating it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The operating system refused.
    #[error("creating {} failed: {source}; choose another directory, or see to its parent and permissions", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The log of a shard could not be made.
    #[error("creating the log of shard {shard} failed; remove the directory and try again")]
    Log {
        /// The shard.
        shard: ShardId,
        /// Why.
        source: wal::CreateError<StorageError>,
    },
    /// A shard's directory could not be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirectoryError {
    /// There is no such directory.
    #[error("there is no directory {}; create it with `surety init`", .0.display())]
    Missing(PathBuf),
    /// It is some other directory.
    #[error("{} is not a data directory ({METADATA_FILE}: {reason})", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What is wrong with its metadata.
        reason: MetadataFault,
    },
    /// A backup was being put back, and that was cut short.
    #[error("{} was left half restored; remove it and restore again", .0.display())]
    HalfRestored(PathBuf),
    /// A backup, whole or not, or an archive.
    #[error(
        "{} is a backup or an archive (it has {COPIED_METADATA_FILE}), not a data directory; make one of it with `surety restore`",
        .0.display()
    )]
    Copied(PathBuf),
    /// A newer program created it.
    #[error("{} has layout version {version}, this program reads up to {FORMAT_VERSION}; run the newer program", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A shard's directory is gone.
    #[error("{} is missing; restore it from a backup", .0.display())]
    ShardMissing(PathBuf),
    /// Another process uses it, or the lock failed.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The operating system refused.
    #[error("opening {} failed: {source}; check its permissions", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl OpenDirectoryError {
    /// True if another process uses the directory (exit code 5).
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Lock(LockError::Busy { .. }))
    }
}

/// What is wrong with a metadata file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataFault {
    /// There is none.
    #[error("missing")]
    Absent,
    /// A line is not `key = value`, or its key is unknown or comes twice.
    #[error("line {0} makes no sense")]
    Line(usize),
    /// A layout from before the first release. Its state hashes are not those of any release.
    #[error("layout version {0} was never released; make a new directory")]
    Unreleased(u32),
    /// A key is missing or its value is out of range.
    #[error("`{0}` is missing or out of range")]
    Key(&'static str),
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    metadata: Metadata,
    _lock: DirectoryLock,
}

impl DataDirectory {
    /// Creates a data directory with the empty log of each shard, and locks it.
    ///
    /// The metadata file comes last: a creation that was cut short leaves no data directory.
    ///
    /// # Errors
    /// [`CreateDirectoryError::Exists`] or [`CreateDirectoryError::HalfMade`] if there is anything at `path` but an empty
    /// directory; nothing is changed then.
    pub fn create(
        path: &Path,
        metadata: Metadata,
        options: wal::Options,
    ) -> Result<Self, CreateDirectoryError> {
        Self::create_with(path, metadata, options, |_| Ok(()))
    }

    /// The same, with more in it: `furnish` puts its files below the directory and syncs them, before the metadata file
    /// makes all of it count.
    ///
    /// # Errors
    /// As [`DataDirectory::create`], and those of `furnish`.
    pub fn create_with<E: From<CreateDirectoryError>>(
        path: &Path,
        metadata: Metadata,
        options: wal::Options,
        furnish: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Self, E> {
        let lock = begin(path, metadata, options)?;
        furnish(path)?;
        write_metadata(path, &metadata)
            .map_err(|source| CreateDirectoryError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), metadata, _lock: lock })
    }

    /// Opens a data directory and locks it.
    ///
    /// # Errors
    /// [`OpenDirectoryError`]: missing, foreign, newer, or in use.
    pub fn open(path: &Path) -> Result<Self, OpenDirectoryError> {
        let metadata = Self::inspect(path)?;
        let lock = DirectoryLock::acquire(path)?;
        let directory = Self { path: path.to_owned(), metadata, _lock: lock };
        for shard in directory.shards() {
            let shard_path = directory.shard_path(shard);
            if !shard_path.is_dir() {
                return Err(OpenDirectoryError::ShardMissing(shard_path));
            }
        }
        Ok(directory)
    }

    /// Reads what a data directory is, without locking it: it may be in use.
    ///
    /// # Errors
    /// As [`DataDirectory::open`], save that it cannot be busy.
    pub fn inspect(path: &Path) -> Result<Metadata, OpenDirectoryError> {
        if !path.is_dir() {
            return Err(OpenDirectoryError::Missing(path.to_owned()));
        }
        if path.join(RESTORING_FILE).exists() {
            return Err(OpenDirectoryError::HalfRestored(path.to_owned()));
        }
        if path.join(COPIED_METADATA_FILE).exists() {
            return Err(OpenDirectoryError::Copied(path.to_owned()));
        }
        let foreign = |reason| OpenDirectoryError::Foreign { path: path.to_owned(), reason };
        let file = path.join(METADATA_FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(foreign(MetadataFault::Absent));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(foreign(MetadataFault::Line(1)));
            }
            Err(source) => return Err(OpenDirectoryError::Io { path: file, source }),
        };
        Metadata::parse(path, &text)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    #[must_use]
    pub const fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// Its shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.metadata.shards).map(ShardId)
    }

    /// Whose log a shard's files must be.
    #[must_use]
    pub const fn identity(&self, shard: ShardId) -> Identity {
        Identity { engine: self.metadata.engine, shard }
    }

    /// The directory of a shard.
    #[must_use]
    pub fn shard_path(&self, shard: ShardId) -> PathBuf {
        shard_path(&self.path, shard)
    }

    /// The files of a shard.
    ///
    /// # Errors
    /// As [`FileStorage::open`].
    pub fn storage(&self, shard: ShardId, mode: IoMode) -> Result<FileStorage, StorageError> {
        FileStorage::open(&self.shard_path(shard), mode)
    }
}

/// A directory that a backup is being put into. Dropped unfinished, it stays refused by everybody.
#[derive(Debug)]
pub struct RestoringDirectory {
    path: PathBuf,
    lock: DirectoryLock,
}

impl RestoringDirectory {
    /// Claims a directory that is empty or not there, for its owner alone, and marks it.
    ///
    /// # Errors
    /// As [`DataDirectory::create`]; [`CreateDirectoryError::Owner`] for one that belongs to another user.
    pub fn begin(path: &Path) -> Result<Self, CreateDirectoryError> {
        let io = |source| CreateDirectoryError::Io { path: path.to_owned(), source };
        make_private(path).map_err(io)?;
        check_owner(path, rustix::process::geteuid().as_raw())?;
        let lock = claim(path)?;
        // One that was there may have been open to others; what comes into it is not.
        fs::set_permissions(path, Permissions::from_mode(PRIVATE)).map_err(io)?;
        check_only_lock(path)?;
        let write = || {
            let mut file = File::create(path.join(RESTORING_FILE))?;
            writeln!(
                file,
                "A backup is being put back here. If nothing does so, remove this directory and restore again."
            )?;
            file.sync_all()?;
            sync_directory(path)
        };
        write().map_err(io)?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a shard.
    #[must_use]
    pub fn shard_path(&self, shard: ShardId) -> PathBuf {
        shard_path(&self.path, shard)
    }

    /// Everything is in place and synced: from now on it is a data directory.
    ///
    /// # Errors
    /// [`CreateDirectoryError::Io`]; then it is refused as before.
    pub fn finish(self, metadata: Metadata) -> Result<DataDirectory, CreateDirectoryError> {
        let finish = || {
            write_metadata(&self.path, &metadata)?;
            fs::remove_file(self.path.join(RESTORING_FILE))?;
            sync_directory(&self.path)
        };
        finish().map_err(|source| CreateDirectoryError::Io { path: self.path.clone(), source })?;
        Ok(DataDirectory { path: self.path, metadata, _lock: self.lock })
    }
}

impl Metadata {
    /// Reads what a data directory's [`METADATA_FILE`] says, wherever that file was kept.
    ///
    /// # Errors
    /// [`OpenDirectoryError::Newer`] or [`OpenDirectoryError::Foreign`], which name `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, OpenDirectoryError> {
        let foreign = |reason| OpenDirectoryError::Foreign { path: path.to_owned(), reason };
        match parse_version(text).map_err(foreign)? {
            version if version > FORMAT_VERSION => {
                Err(OpenDirectoryError::Newer { path: path.to_owned(), version })
            }
            version if version < FORMAT_VERSION => Err(foreign(MetadataFault::Unreleased(version))),
            _ => parse_metadata(text).map_err(foreign),
        }
    }
}

fn shard_path(path: &Path, shard: ShardId) -> PathBuf {
    path.join(format!("shard-{shard}"))
}

/// Everything but the metadata.
fn begin(
    path: &Path,
    metadata: Metadata,
    options: wal::Options,
) -> Result<DirectoryLock, CreateDirectoryError> {
    if metadata.shards == 0 || usize::from(metadata.shards) > SHARDS_MAX {
        return Err(CreateDirectoryError::Shards(metadata.shards));
    }
    if !is_id_window(metadata.id_window) {
        return Err(CreateDirectoryError::IdWindow(metadata.id_window));
    }
    let lock = claim(path)?;
    for shard in 0..metadata.shards {
        create_shard(path, metadata, ShardId(shard), options)?;
    }
    Ok(lock)
}

/// Makes a directory that only its owner may enter; those above it as the system does.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(PRIVATE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn check_owner(path: &Path, user: u32) -> Result<(), CreateDirectoryError> {
    let metadata = fs::metadata(path);
    let owner = metadata.map_err(|source| CreateDirectoryError::Io { path: path.to_owned(), source })?.uid();
    if owner == user {
        Ok(())
    } else {
        Err(CreateDirectoryError::Owner { path: path.to_owned(), owner, user })
    }
}

/// Refuses what others have put into a directory before it was closed to them.
fn check_only_lock(path: &Path) -> Result<(), CreateDirectoryError> {
    let io = |source| CreateDirectoryError::Io { path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(io)? {
        if entry.map_err(io)?.file_name() != LOCK_FILE {
            return Err(CreateDirectoryError::Exists(path.to_owned()));
        }
    }
    Ok(())
}

/// Makes an empty directory ours, or refuses one that is not empty.
fn claim(path: &Path) -> Result<DirectoryLock, CreateDirectoryError> {
    let io = |source| CreateDirectoryError::Io { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(io)?;
    if fs::read_dir(path).map_err(io)?.next().is_some() {
        // The lock file is the first that is made.
        let is_half_made = path.join(LOCK_FILE).exists() && !path.join(METADATA_FILE).exists();
        let refusal =
            if is_half_made { CreateDirectoryError::HalfMade } else { CreateDirectoryError::Exists };
        return Err(refusal(path.to_owned()));
    }
    Ok(DirectoryLock::acquire(path)?)
}

fn create_shard(
    path: &Path,
    metadata: Metadata,
    shard: ShardId,
    options: wal::Options,
) -> Result<(), CreateDirectoryError> {
    let directory = shard_path(path, shard);
    fs::create_dir(&directory)
        .map_err(|source| CreateDirectoryError::Io { path: directory.clone(), source })?;
    let mut storage = FileStorage::open(&directory, IoMode::Sync)?;
    let identity = Identity { engine: metadata.engine, shard };
    wal::create(&mut storage, identity, options, metadata.created)
        .map_err(|source| CreateDirectoryError::Log { shard, source })
}

fn write_metadata(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let temp = path.join(format!("{METADATA_FILE}.tmp"));
    let mut file = File::create(&temp)?;
    file.write_all(format_metadata(metadata).as_bytes())?;
    file.sync_all()?;
    // The shards' directories first, then the name that makes them count.
    sync_directory(path)?;
    fs::rename(&temp, path.join(METADATA_FILE))?;
    sync_directory(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn format_metadata(metadata: &Metadata) -> String {
    format!(
        "# A Surety data directory. Written once; do not edit.\n\
         format = {FORMAT_VERSION}\n\
         engine = \"{}\"\n\
         shards = {}\n\
         created = {}\n\
         id_window_s = {}\n\
         {}",
        metadata.engine,
        metadata.shards,
        metadata.created.0,
        metadata.id_window.0 / NANOS,
        if metadata.is_forensic { "forensic = true\n" } else { "" }
    )
}

/// The version alone, which any layout states; what the rest means depends on it.
fn parse_version(text: &str) -> Result<u32, MetadataFault> {
    let version = text.lines().find_map(|line| line.strip_prefix("format = "));
    version.and_then(|value| value.trim().parse().ok()).ok_or(MetadataFault::Key("format"))
}

fn parse_metadata(text: &str) -> Result<Metadata, MetadataFault> {
    let (mut format, mut engine, mut shards, mut created, mut id_window) = (None, None, None, None, None);
    let mut forensic = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = MetadataFault::Line(index + 1);
        let (key, value) = line.split_once(" = ").ok_or(fault)?;
        let slot = match key {
            "format" => &mut format,
            "engine" => &mut engine,
            "shards" => &mut shards,
            "created" => &mut created,
            "id_window_s" => &mut id_window,
            "forensic" => &mut forensic,
            _ => return Err(fault),
        };
        if slot.replace(value).is_some() {
            return Err(fault);
        }
    }
    Ok(Metadata {
        engine: engine.and_then(parse_engine).ok_or(MetadataFault::Key("engine"))?,
        shards: shards.and_then(parse_shards).ok_or(MetadataFault::Key("shards"))?,
        created: created
            .and_then(|value| value.parse().ok().map(Time))
            .ok_or(MetadataFault::Key("created"))?,
        id_window: id_window.and_then(parse_id_window).ok_or(MetadataFault::Key("id_window_s"))?,
        is_forensic: match forensic {
            None => false,
            Some("true") => true,
            Some(_) => return Err(MetadataFault::Key("forensic")),
        },
    })
}

fn parse_engine(value: &str) -> Option<EngineId> {
    let digits = value.strip_prefix('"')?.strip_suffix('"')?;
    let is_hex = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(digits, 16).ok().map(EngineId))?
}

fn parse_id_window(value: &str) -> Option<Time> {
    value
        .parse()
        .ok()
        .and_then(|seconds: u64| seconds.checked_mul(NANOS))
        .map(Time)
        .filter(|at| is_id_window(*at))
}

fn is_id_window(window: Time) -> bool {
    (ID_WINDOW_MIN..=ID_WINDOW_MAX).contains(&window) && window.0.is_multiple_of(NANOS)
}

fn parse_shards(value: &str) -> Option<u16> {
    value.parse().ok().filter(|shards| (1..=SHARDS_MAX).contains(&usize::from(*shards)))
}
