//! What a server keeps in a data directory beside the logs: its keys, its certificates, the history of its epochs.
//!
//! ```text
//! <data>/keys/token.key    signs rollback tokens
//! <data>/keys/reset.key    signs stateless resets
//! <data>/pki/              certificates, see `pki`
//! <data>/epochs/<shard>    first seq of each epoch
//! <data>/archived/<shard>  after a loss: which archive was compared, for which life
//! <data>/clock.accept      the next start takes the wall clock, however far it is from the log
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use storage::{CreateDirectoryError, DataDirectory, Metadata};
use surety_protocol::limits::{ID_WINDOW_DEFAULT, SEGMENT_BYTES};
use surety_protocol::{EngineId, Epoch, Seq, ShardId, Time, sabotage};

use engine::Epochs;

use crate::clock;
use crate::pki::{DevelopmentPki, PkiError, write_secret};

const KEYS: &str = "keys";
const TOKEN_KEY: &str = "token.key";
const RESET_KEY: &str = "reset.key";
const PKI: &str = "pki";
const EPOCHS: &str = "epochs";
const ARCHIVED: &str = "archived";
const CLOCK_ACCEPT: &str = "clock.accept";
/// What is told of it is no longer than this.
const ACCEPTANCE_BYTES_MAX: u64 = 400;

/// Why a data directory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The logs.
    #[error(transparent)]
    Directory(#[from] CreateDirectoryError),
    /// Keys or certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// There is no randomness to draw an engine id from.
    #[error("the system has no randomness: {0}")]
    Randomness(getrandom::Error),
    /// A directory could not be made.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What `init` may be told; the rest is drawn at random.
#[derive(Clone, Copy, Debug)]
pub struct InitOptions {
    /// Threads, logs and ports; for ever.
    pub shards: u16,
    /// Bytes of the first segment of each log.
    pub segment_bytes: u64,
    /// How old an id may be; for ever.
    pub id_window: Time,
}

impl InitOptions {
    /// The defaults, with so many shards.
    #[must_use]
    pub const fn new(shards: u16) -> Self {
        Self { shards, segment_bytes: SEGMENT_BYTES, id_window: ID_WINDOW_DEFAULT }
    }
}

/// Makes a data directory: an engine id drawn at random, empty logs, keys, development certificates.
///
/// # Errors
/// [`InitError`]; a path that exists and is not empty is refused and left as it is.
pub fn init(path: &Path, shards: u16, segment_bytes: u64) -> Result<Metadata, InitError> {
    init_with(path, &InitOptions { segment_bytes, ..InitOptions::new(shards) })
}

/// The same with everything that can be chosen.
///
/// # Errors
/// As [`init`].
pub fn init_with(path: &Path, options: &InitOptions) -> Result<Metadata, InitError> {
    let engine = EngineId(u128::from_le_bytes(random()?));
    let InitOptions { shards, segment_bytes, id_window } = *options;
    let metadata =
        Metadata { engine, shards, created: clock::readings().wall, id_window, is_forensic: false };
    let options = wal::Options { segment_bytes, ..wal::Options::default() };
    DataDirectory::create_with(path, metadata, options, furnish)?;
    Ok(metadata)
}

/// Everything that a server needs beside the logs, durably: once the metadata is there, all of it is.
fn furnish(data: &Path) -> Result<(), InitError> {
    let in_directory = |name: &str, fill: &dyn Fn(&Path) -> Result<(), InitError>| {
        let path = data.join(name);
        let error = |source| InitError::File { path: path.clone(), source };
        fs::create_dir(&path).map_err(error)?;
        fill(&path)?;
        File::open(&path).and_then(|directory| directory.sync_all()).map_err(error)
    };
    in_directory(KEYS, &|keys| {
        write_secret(&keys.join(TOKEN_KEY), &to_hex(&random::<32>()?))?;
        Ok(write_secret(&keys.join(RESET_KEY), &to_hex(&random::<32>()?))?)
    })?;
    in_directory(EPOCHS, &|_| Ok(()))?;
    in_directory(PKI, &|pki| Ok(DevelopmentPki::create(pki).map(|_| ())?))
}

/// The files beside the logs that a backup holds, as far as they are there: what signs rollback tokens, so that tokens of before
/// still speak after a restore, and the notes of epochs. Not the key of stateless resets, which a restore draws anew, and
/// neither certificates nor their private keys.
#[must_use]
pub fn backup_files(shards: u16) -> Vec<String> {
    let notes = (0..shards).map(|shard| epochs_file(ShardId(shard)));
    [format!("{KEYS}/{TOKEN_KEY}")].into_iter().chain(notes).collect()
}

/// Where a shard's notes of its epochs are, below the data directory.
#[must_use]
pub fn epochs_file(shard: ShardId) -> String {
    format!("{EPOCHS}/{shard}")
}

/// What a restore knows of a shard's epochs beyond the notes that the backup has.
#[derive(Clone, Debug)]
pub struct RestoredEpochs {
    /// Those that began behind the end of the backup, each with its first seq, in order.
    pub archived: Vec<(Epoch, Seq)>,
    /// The one that the restore has opened, and its first seq: what the lost life had from there on was given up.
    pub opened: (Epoch, Seq),
}

/// Makes a restored data directory one that can be served: another key for resets, and the notes of each shard's epochs up to
/// and with the one that the restore has opened.
///
/// # Errors
/// If a note of the backup makes no sense, a file cannot be written, or there is no randomness.
pub fn furnish_restored(data: &Path, shards: &[RestoredEpochs]) -> Result<(), RestoredError> {
    write_secret(&data.join(KEYS).join(RESET_KEY), &to_hex(&random::<32>()?)).map_err(InitError::from)?;
    for (number, restored) in (0..).zip(shards) {
        let shard = ShardId(number);
        let mut epochs = read_notes(data, shard)?;
        note_restored(&mut epochs, restored);
        write_epochs(data, shard, &epochs)?;
    }
    let synced = File::open(data.join(KEYS)).and_then(|keys| keys.sync_all());
    synced.map_err(|source| FilesError::File { path: data.join(KEYS), source })?;
    Ok(())
}

fn note_restored(epochs: &mut Epochs, restored: &RestoredEpochs) {
    let (epoch, first) = restored.opened;
    let last = epochs.starts.last().map_or(Epoch(0), |(last, _)| *last);
    epochs.starts.extend(restored.archived.iter().filter(|(archived, _)| *archived > last));
    // What was noted later than the log that is kept goes belongs to the life that is lost.
    epochs.starts.retain(|(_, start)| *start < first);
    epochs.starts.push((epoch, first));
}

/// The highest epoch that is noted of a shard; 0 if none is.
///
/// # Errors
/// As for [`furnish_restored`].
pub fn last_noted_epoch(data: &Path, shard: ShardId) -> Result<Epoch, FilesError> {
    Ok(read_notes(data, shard)?.starts.last().map_or(Epoch(0), |(epoch, _)| *epoch))
}

/// Why a restored directory cannot be made one to serve from.
#[derive(Debug, thiserror::Error)]
pub enum RestoredError {
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] InitError),
    /// The notes of epochs.
    #[error(transparent)]
    Notes(#[from] FilesError),
}

/// Where the certificates of a data directory are.
#[must_use]
pub fn pki_path(data: &Path) -> PathBuf {
    data.join(PKI)
}

/// Lets the next start take the wall clock, however far it is from the last logged time. That start logs in one line by whom it was accepted.
///
/// # Errors
/// If the file cannot be written.
pub fn accept_clock(data: &Path, by: &str) -> io::Result<()> {
    let mut file = File::create(data.join(CLOCK_ACCEPT))?;
    writeln!(file, "{by}")?;
    file.sync_all()
}

/// Why the server's own files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file is missing or not readable.
    #[error("{}: {source}; was the directory made by `surety init`?", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} does not hold what `surety` wrote there; restore it from a backup", .0.display())]
    Content(PathBuf),
    /// The log is older than what was noted beside it.
    #[error(
        "shard {shard} would open epoch {opening} at seq {first}, but has opened epoch {noted} at seq {noted_first} before: its log was replaced by an older copy; restore the newest copy"
    )]
    RolledBack {
        /// Which shard.
        shard: ShardId,
        /// The epoch that comes next by the log.
        opening: u32,
        /// Its first seq.
        first: Seq,
        /// The last epoch that was noted.
        noted: u32,
        /// Its first seq.
        noted_first: Seq,
    },
}

/// The two keys.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) token: Secret,
    pub(crate) reset: Secret,
}

/// A key, which no log and no panic message may show.
#[derive(Clone)]
pub(crate) struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Deref for Secret {
    type Target = [u8; 32];

    fn deref(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Keys {
    pub(crate) fn read(data: &Path) -> Result<Self, FilesError> {
        let read = |name| {
            let path = data.join(KEYS).join(name);
            let text = read_text(&path)?;
            from_hex(text.trim()).map(Secret).ok_or(FilesError::Content(path))
        };
        Ok(Self { token: read(TOKEN_KEY)?, reset: read(RESET_KEY)? })
    }
}

/// What stands in the mark of [`accept_clock`], if it is there.
pub(crate) fn clock_acceptance(data: &Path) -> Option<String> {
    is_clock_accepted(data).then(|| acceptance(&data.join(CLOCK_ACCEPT)))
}

/// Takes the mark away.
pub(crate) fn drop_clock_acceptance(data: &Path) {
    let path = data.join(CLOCK_ACCEPT);
    let dropped = match fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        removed => removed.and_then(|()| File::open(data)?.sync_all()),
    };
    if let Err(error) = dropped {
        let path = path.display();
        tracing::error!(
            "{path} may count for the next start as well, however far its clock is: {error}; remove it"
        );
    }
}

/// By whom, for people alone: the mark counts whatever is in it. What somebody has put there instead, such as a link to a key, is not told.
fn acceptance(path: &Path) -> String {
    let is_ours = |found: fs::Metadata| found.is_file() && found.len() <= ACCEPTANCE_BYTES_MAX;
    if !fs::symlink_metadata(path).is_ok_and(is_ours) {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().filter(|line| line.starts_with("by ")).unwrap_or_default().to_owned()
}

/// True if the mark of [`accept_clock`] is there.
pub(crate) fn is_clock_accepted(data: &Path) -> bool {
    data.join(CLOCK_ACCEPT).exists()
}

/// The epochs that a shard has opened so far, none of which may be the one that it is about to open.
pub(crate) fn read_epochs(
    data: &Path,
    shard: ShardId,
    opening: (surety_protocol::Epoch, Seq),
) -> Result<Epochs, FilesError> {
    let epochs = read_notes(data, shard)?;
    let (opening_epoch, first) = opening;
    match epochs.starts.last() {
        Some((noted, noted_first))
            if (*noted >= opening_epoch || *noted_first > first)
                && !sabotage!("older-log-than-its-notes") =>
        {
            Err(FilesError::RolledBack {
                shard,
                opening: opening_epoch.0,
                first,
                noted: noted.0,
                noted_first: *noted_first,
            })
        }
        _ => Ok(epochs),
    }
}

/// The epochs that are noted; none for a shard that was never served.
fn read_notes(data: &Path, shard: ShardId) -> Result<Epochs, FilesError> {
    let path = epochs_path(data, shard);
    match read_text(&path) {
        Ok(text) => Epochs::parse(&text).ok_or(FilesError::Content(path)),
        Err(FilesError::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Epochs::default()),
        Err(error) => Err(error),
    }
}

/// Notes the epochs durably, before the shard serves.
pub(crate) fn write_epochs(data: &Path, shard: ShardId, epochs: &Epochs) -> Result<(), FilesError> {
    write_note(data, EPOCHS, shard, &epochs.to_text())
}

/// An archive that was compared with the whole log after a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ComparedArchive {
    /// Where it is.
    pub(crate) place: String,
    /// The life that the log is of.
    pub(crate) life: u128,
}

/// Which archive was compared last; none if none was.
pub(crate) fn read_compared(data: &Path, shard: ShardId) -> Result<Option<ComparedArchive>, FilesError> {
    let path = data.join(ARCHIVED).join(shard.to_string());
    let text = match read_text(&path) {
        Err(FilesError::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let parse = || {
        let (life, place) = text.split_once('\n')?;
        let life = u128::from_str_radix(life, 16).ok()?;
        Some(ComparedArchive { place: place.strip_suffix('\n')?.to_owned(), life })
    };
    parse().ok_or(FilesError::Content(path)).map(Some)
}

/// Notes durably that an archive was compared.
pub(crate) fn write_compared(
    data: &Path,
    shard: ShardId,
    compared: &ComparedArchive,
) -> Result<(), FilesError> {
    write_note(data, ARCHIVED, shard, &format!("{:032x}\n{}\n", compared.life, compared.place))
}

/// Puts a shard's note in the place of the one before, durably.
fn write_note(data: &Path, kind: &str, shard: ShardId, text: &str) -> Result<(), FilesError> {
    let directory = data.join(kind);
    let path = directory.join(shard.to_string());
    let temp = path.with_extension("tmp");
    let write = || {
        let is_new = !directory.exists();
        fs::create_dir_all(&directory)?;
        if is_new {
            File::open(data)?.sync_all()?;
        }
        let mut file = File::create(&temp)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temp, &path)?;
        File::open(&directory)?.sync_all()
    };
    write().map_err(|source| FilesError::File { path: path.clone(), source })
}

fn epochs_path(data: &Path, shard: ShardId) -> PathBuf {
    data.join(EPOCHS).join(shard.to_string())
}

fn read_text(path: &Path) -> Result<String, FilesError> {
    fs::read_to_string(path).map_err(|source| FilesError::File { path: path.to_owned(), source })
}

fn random<const N: usize>() -> Result<[u8; N], InitError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(InitError::Randomness)?;
    Ok(bytes)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_a_restored_log_have_every_epoch_that_is_kept_and_none_that_is_lost() {
        let start = |(epoch, first): (u32, u64)| (Epoch(epoch), Seq(first));
        let check = |noted: &[(u32, u64)], archived: &[(u32, u64)], expect: &[(u32, u64)]| {
            let starts = noted.iter().copied().map(start).collect();
            let mut epochs = Epochs { starts, restored: Vec::new() };
            let archived = archived.iter().copied().map(start).collect();
            note_restored(&mut epochs, &RestoredEpochs { archived, opened: start((70_000, 50)) });
            assert_eq!(epochs.starts, expect.iter().copied().map(start).collect::<Vec<_>>());
        };
        check(&[(1, 1), (2, 10)], &[], &[(1, 1), (2, 10), (70_000, 50)]);
        // Noted, but begun where the copy ends or behind it.
        check(&[(1, 1), (2, 50), (3, 60)], &[], &[(1, 1), (70_000, 50)]);
        check(&[(1, 1)], &[(2, 20), (4, 30)], &[(1, 1), (2, 20), (4, 30), (70_000, 50)]);
        // One that the notes have already.
        check(&[(1, 1), (2, 20)], &[(2, 20), (4, 30)], &[(1, 1), (2, 20), (4, 30), (70_000, 50)]);
        check(&[], &[], &[(70_000, 50)]);
    }

    #[test]
    fn keys_are_hexadecimal() {
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 7).unwrap());
        assert_eq!(from_hex(to_hex(&key).trim()), Some(key));
        for bad in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", Secret([0xab; 32])), "Secret(..)");
    }

    #[test]
    fn an_archive_that_was_compared_is_noted_for_its_place_and_life() {
        let directory = tempfile::tempdir().unwrap();
        let (data, shard) = (directory.path(), ShardId(3));
        assert_eq!(read_compared(data, shard).unwrap(), None);
        for (place, life) in [("/var/archive", 7), ("s3://bucket/pre fix", u128::MAX)] {
            let compared = ComparedArchive { place: place.to_owned(), life };
            write_compared(data, shard, &compared).unwrap();
            assert_eq!(read_compared(data, shard).unwrap(), Some(compared));
        }
        fs::write(data.join(ARCHIVED).join("3"), "nonsense").unwrap();
        assert!(matches!(read_compared(data, shard), Err(FilesError::Content(_))));
    }

    #[test]
    fn an_epoch_is_opened_once() {
        let directory = tempfile::tempdir().unwrap();
        let read = |epoch, seq| read_epochs(directory.path(), ShardId(3), (Epoch(epoch), Seq(seq)));
        assert_eq!(read(1, 1).unwrap(), Epochs::default());
        let starts = vec![(Epoch(1), Seq(1)), (Epoch(2), Seq(9))];
        let epochs = Epochs { starts, restored: Vec::new() };
        write_epochs(directory.path(), ShardId(3), &epochs).unwrap();
        assert_eq!(read(3, 9).unwrap(), epochs);
        assert_eq!(read(4, 100).unwrap(), epochs);
        for (epoch, seq) in [(2, 9), (1, 1), (3, 8)] {
            assert!(matches!(read(epoch, seq), Err(FilesError::RolledBack { .. })), "{epoch} {seq}");
        }
    }
}
