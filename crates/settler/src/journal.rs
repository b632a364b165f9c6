//! The settler's log on disk: appended to, synced, never rewritten. `FORMAT.md` has the bytes.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use settlement::Hash;
use surety_protocol::{Time, sabotage};

use crate::codec::{Put, Take};
use crate::durable;
use crate::note::{Note, NoteError};

/// Its name in the settler's directory.
pub const LOG_FILE: &str = "settlement.log";

const MAGIC: &[u8; 8] = b"SURETYSL";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 128;
const ENTRY_MAGIC: &[u8; 4] = b"SLE1";
const ENTRY_HEAD_BYTES: usize = 24;
/// Entries that may be damaged in a row and still be recognised by the numbers of those behind.
const SKIPPED_MAX: u64 = 1 << 20;
/// The longest entry: a batch with hundreds of thousands of changes, and every consumed lock that can still be called.
const BODY_BYTES_MAX: usize = 1 << 30;

/// For whom a log is, and what must be the same for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Shards of the engine.
    pub shards: u16,
    /// See `NettingConfig::claim_span`.
    pub claim_span: Time,
    /// Engine, contract and chain.
    pub separator: Hash,
    /// See `NettingConfig::salt_key`.
    pub salt_key: Hash,
}

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// No head of a settler's log.
    #[error("{} is no log of a settler, or its head is damaged", .0.display())]
    NoLog(PathBuf),
    /// Written by a newer version.
    #[error("{} is of version {version}, which is newer than this program", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// A damaged entry that is not the last.
    #[error("{}: entry {number} at offset {offset} is damaged, and there are others behind it", path.display())]
    Rot {
        /// The file.
        path: PathBuf,
        /// Which entry.
        number: u64,
        /// Where.
        offset: u64,
    },
    /// A sound entry that says nothing that this program knows.
    #[error("{}: entry {number} at offset {offset}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Which entry.
        number: u64,
        /// Where.
        offset: u64,
        /// What is wrong with it.
        error: NoteError,
    },
    /// An earlier append failed: what is on the disk is not known.
    #[error("an earlier write to the settler's log failed")]
    Poisoned,
    /// More than an entry may hold.
    #[error("an entry of {0} bytes")]
    TooLong(usize),
}

/// The open log.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Of the last entry.
    number: u64,
    /// Where the next one goes.
    end: u64,
    is_poisoned: bool,
}

/// What a log held when it was opened.
#[derive(Debug)]
pub struct Scan {
    /// Its head.
    pub head: Head,
    /// Every entry, in order.
    pub notes: Vec<Note>,
    /// Bytes of a torn last entry.
    pub torn_bytes: u64,
    /// Where the last sound entry begins; the head, if there is none.
    last: u64,
    end: u64,
}

impl Scan {
    /// Of a log that has just been made.
    pub(crate) const fn empty(head: Head) -> Self {
        Self { head, notes: Vec::new(), torn_bytes: 0, last: 0, end: HEAD_BYTES as u64 }
    }
}

impl Journal {
    /// Makes a new log in a directory that has none.
    ///
    /// # Errors
    /// [`JournalError::Io`], also if there is one already.
    pub fn create(directory: &Path, head: &Head) -> Result<Self, JournalError> {
        let path = directory.join(LOG_FILE);
        let io = |source| JournalError::Io { path: path.clone(), source };
        // Written elsewhere first: a log is there with its whole head, or not at all.
        let temporary = directory.join("settlement.tmp");
        durable::replace(&path, &temporary, &head.to_bytes()).map_err(io)?;
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        Ok(Self { file, path, number: 0, end: HEAD_BYTES as u64, is_poisoned: false })
    }

    /// Opens a log to go on with it, and cuts a torn tail off. When this returns all that was read is on the disk. `None` if there is
    /// none.
    ///
    /// # Errors
    /// [`JournalError`]; nothing is changed then.
    pub fn open(directory: &Path) -> Result<Option<(Self, Scan)>, JournalError> {
        let Some(scan) = Self::read(directory)? else { return Ok(None) };
        let path = directory.join(LOG_FILE);
        let io = |source| JournalError::Io { path: path.clone(), source };
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        if scan.torn_bytes > 0 {
            file.set_len(scan.end).and_then(|()| durable::sync_file(&file, &path)).map_err(io)?;
        }
        if !sabotage!("settler-log-trusted-as-it-reads") {
            write_again(&file, &path, scan.last..scan.end).map_err(io)?;
            durable::sync_directory(directory).map_err(io)?;
        }
        let number = scan.notes.len() as u64;
        let journal = Self { file, path: path.clone(), number, end: scan.end, is_poisoned: false };
        Ok(Some((journal, scan)))
    }

    /// Reads a log that may be another process's; `None` if there is none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn read(directory: &Path) -> Result<Option<Scan>, JournalError> {
        let path = directory.join(LOG_FILE);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => scan(&path, &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(JournalError::Io { path, source }),
        }
    }

    /// Appends one entry. When this returns it is on the disk.
    ///
    /// # Errors
    /// [`JournalError::Io`], and from then on [`JournalError::Poisoned`]: a failed sync is never tried again.
    pub fn append(&mut self, note: &Note) -> Result<(), JournalError> {
        if self.is_poisoned {
            return Err(JournalError::Poisoned);
        }
        let body = note.to_bytes();
        if body.len() > BODY_BYTES_MAX {
            return Err(JournalError::TooLong(body.len()));
        }
        let bytes = framed(self.number + 1, &body);
        self.write(&bytes).map_err(|source| {
            self.is_poisoned = true;
            JournalError::Io { path: self.path.clone(), source }
        })?;
        self.number += 1;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if sabotage!("settler-log-not-written") {
            return Ok(());
        }
        self.file.write_all_at(bytes, self.end)?;
        durable::sync_data(&self.file, &self.path)
    }
}

impl Head {
    fn to_bytes(self) -> Vec<u8> {
        let mut to = Put::default();
        to.raw(MAGIC).u32(VERSION).raw(&self.shards.to_be_bytes()).u64(self.claim_span.0);
        to.raw(&self.separator).raw(&self.salt_key);
        to.0.resize(HEAD_BYTES - 4, 0);
        let checksum = crc32c::crc32c(&to.0);
        to.u32(checksum);
        to.0
    }

    fn read(path: &Path, bytes: &[u8]) -> Result<Self, JournalError> {
        let damaged = || JournalError::NoLog(path.to_owned());
        let (body, checksum) = bytes.split_at(HEAD_BYTES - 4);
        let is_sound = body.starts_with(MAGIC) && crc32c::crc32c(body).to_be_bytes() == *checksum;
        if !is_sound {
            return Err(damaged());
        }
        let mut from = Take(&body[MAGIC.len()..]);
        let version = from.u32().map_err(|_| damaged())?;
        if version > VERSION {
            return Err(JournalError::Newer { path: path.to_owned(), version });
        }
        let read = |from: &mut Take<'_>| {
            Ok::<_, crate::codec::Damaged>(Self {
                shards: u16::from_be_bytes(from.array()?),
                claim_span: Time(from.u64()?),
                separator: from.array()?,
                salt_key: from.array()?,
            })
        };
        read(&mut from).map_err(|_| damaged())
    }
}

fn framed(number: u64, body: &[u8]) -> Vec<u8> {
    let mut to = Put::default();
    to.raw(ENTRY_MAGIC).u32(u32::try_from(body.len()).unwrap_or(u32::MAX)).u64(number);
    to.u32(crc32c::crc32c(body));
    let checksum = crc32c::crc32c(&to.0);
    to.u32(checksum).raw(body);
    to.0
}

/// Writes what a file holds once more, in its place, and syncs it. If a sync has failed the newest bytes may be in the page cache and
/// nowhere else, and no later sync would say so. All before the last entry was synced before that was written.
fn write_again(file: &File, path: &Path, range: Range<u64>) -> std::io::Result<()> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(std::io::Error::other)?];
    file.read_exact_at(&mut bytes, range.start)?;
    file.write_all_at(&bytes, range.start)?;
    durable::sync_file(file, path)
}

fn scan(path: &Path, bytes: &[u8]) -> Result<Scan, JournalError> {
    let head = bytes.get(..HEAD_BYTES).ok_or_else(|| JournalError::NoLog(path.to_owned()))?;
    let head = Head::read(path, head)?;
    let (mut last, mut at, mut number, mut notes) = (0, HEAD_BYTES, 1, Vec::new());
    while let Some(body) = entry_at(bytes, at, number) {
        let unreadable =
            |error| JournalError::Unreadable { path: path.to_owned(), number, offset: at as u64, error };
        notes.push(Note::from_bytes(body).map_err(unreadable)?);
        last = at;
        at += ENTRY_HEAD_BYTES + body.len();
        number += 1;
    }
    if is_followed(bytes, at, number) {
        return Err(JournalError::Rot { path: path.to_owned(), number, offset: at as u64 });
    }
    let torn_bytes = (bytes.len() - at) as u64;
    Ok(Scan { head, notes, torn_bytes, last: last as u64, end: at as u64 })
}

/// The body of a sound entry with exactly this number.
fn entry_at(bytes: &[u8], at: usize, number: u64) -> Option<&[u8]> {
    sound_entry(bytes, at).filter(|(found, _)| *found == number).map(|(_, body)| body)
}

/// True if something stands behind the damaged entry here: then it is not the one that a crash has cut off.
fn is_followed(bytes: &[u8], at: usize, number: u64) -> bool {
    let goes_on = entry_head(bytes, at).is_some_and(|head| at + ENTRY_HEAD_BYTES + head.len < bytes.len());
    // What can be recognised as the head of a later entry, though it or its body may be damaged as well.
    let is_later = |later: usize| {
        let found = bytes.get(later..).filter(|rest| rest.starts_with(ENTRY_MAGIC));
        let found = found.and_then(|rest| rest.get(8..16)).and_then(|bytes| Take(bytes).u64().ok());
        found.is_some_and(|found| found > number && found - number <= SKIPPED_MAX)
    };
    let is_again = |later: usize| sound_entry(bytes, later).is_some_and(|(found, _)| found >= number);
    goes_on || (at..bytes.len()).any(|later| is_later(later) || is_again(later))
}

/// The head of an entry.
struct EntryHead {
    len: usize,
    number: u64,
    body_checksum: u32,
}

/// A sound head; its body may be damaged or cut off.
fn entry_head(bytes: &[u8], at: usize) -> Option<EntryHead> {
    let head = bytes.get(at..)?.first_chunk::<ENTRY_HEAD_BYTES>()?;
    let mut from = Take(head.strip_prefix(ENTRY_MAGIC)?);
    let len = usize::try_from(from.u32().ok()?).ok()?;
    let (number, body_checksum, head_checksum) = (from.u64().ok()?, from.u32().ok()?, from.u32().ok()?);
    let is_sound = crc32c::crc32c(&head[..ENTRY_HEAD_BYTES - 4]) == head_checksum;
    is_sound.then_some(EntryHead { len, number, body_checksum })
}

fn sound_entry(bytes: &[u8], at: usize) -> Option<(u64, &[u8])> {
    let head = entry_head(bytes, at)?;
    let body = bytes.get(at + ENTRY_HEAD_BYTES..)?.get(..head.len)?;
    (crc32c::crc32c(body) == head.body_checksum).then_some((head.number, body))
}
