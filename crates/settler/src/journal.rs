//! The settler's log on disk: appended to and synced, and now and then put into one entry. `FORMAT.md` has the bytes.

mod older;
mod scan;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use surety_protocol::sabotage;

use crate::durable;
use crate::fold::Folded;
use crate::note::{Note, NoteError};
use scan::{BODY_BYTES_MAX, HEAD_BYTES, VERSION, VERSION_WITHOUT_FOLDS, framed};

pub use scan::{Head, Scan};

/// Its name in the settler's directory.
pub const LOG_FILE: &str = "settlement.log";
/// Where a new one is written, until it takes that name.
const TEMPORARY: &str = "settlement.tmp";

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
    /// A log that was folded, of another settler than the one that lies beside it.
    #[error("{} is of another engine, contract, chain or settler than settlement.log", .0.display())]
    Other(PathBuf),
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
    /// Another log could not be put in the place of this one, which is as it was and goes on.
    #[error("another log could not be written: {0}")]
    NotFolded(std::io::Error),
    /// More than an entry may hold.
    #[error("an entry of {0} bytes")]
    TooLong(usize),
}

/// The open log.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    head: Head,
    /// The last batch that its first entry stands for; 0 if that stands for no others.
    base: u64,
    /// Where its first entry ends, if that stands for others.
    begun: u64,
    /// Of the last entry.
    number: u64,
    /// Where the next one goes.
    end: u64,
    /// Where it ended when it was not folded although it was due; 0 if it never was.
    refused_at: u64,
    is_poisoned: bool,
}

impl Journal {
    /// Makes a new log in a directory that has none.
    ///
    /// # Errors
    /// [`JournalError::Io`], also if there is one already.
    pub fn create(directory: &Path, head: &Head) -> Result<Self, JournalError> {
        let path = directory.join(LOG_FILE);
        let io = |source| JournalError::Io { path: path.clone(), source };
        if path.try_exists().map_err(io)? {
            return Err(io(std::io::ErrorKind::AlreadyExists.into()));
        }
        // Written elsewhere first: a log is there with its whole head, or not at all.
        let bytes = head.to_bytes(VERSION_WITHOUT_FOLDS);
        durable::replace(&path, &directory.join(TEMPORARY), &bytes).map_err(io)?;
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        let end = HEAD_BYTES as u64;
        Ok(Self {
            file,
            path,
            head: *head,
            base: 0,
            begun: end,
            number: 0,
            end,
            refused_at: 0,
            is_poisoned: false,
        })
    }

    /// Opens a log to go on with it, and cuts a torn tail off. When this returns all that was read is on the disk. `None` if there is
    /// none.
    ///
    /// # Errors
    /// [`JournalError`]; nothing is changed by any but [`JournalError::Io`].
    pub fn open(directory: &Path) -> Result<Option<(Self, Scan)>, JournalError> {
        let Some(scan) = Self::read(directory)? else { return Ok(None) };
        let path = directory.join(LOG_FILE);
        let io = |source| JournalError::Io { path: path.clone(), source };
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        if scan.torn_bytes > 0 {
            file.set_len(scan.end).and_then(|()| durable::sync_file(&file, &path)).map_err(io)?;
        }
        if !sabotage!("settler-log-trusted-as-it-reads") {
            // A folded log has its name because it was synced, and its first entry may never be torn.
            if !scan.is_folded_alone() {
                write_again(&file, &path, scan.last..scan.end).map_err(io)?;
            }
            durable::sync_directory(directory).map_err(io)?;
        }
        let (number, head, begun, end) = (scan.notes.len() as u64, scan.head, scan.begun, scan.end);
        let (path, base) = (path.clone(), scan.base());
        let journal = Self { file, path, head, base, begun, number, end, refused_at: 0, is_poisoned: false };
        Ok(Some((journal, scan)))
    }

    /// For whom the log in a directory is, read and not touched; `None` if there is none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn whose(directory: &Path) -> Result<Option<Head>, JournalError> {
        let path = directory.join(LOG_FILE);
        let io = |source| JournalError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io)?,
        };
        let mut bytes = Vec::new();
        file.take(HEAD_BYTES as u64).read_to_end(&mut bytes).map_err(io)?;
        Head::of(&path, &bytes).map(|(_, head)| Some(head))
    }

    /// Reads a log that may be another process's; `None` if there is none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn read(directory: &Path) -> Result<Option<Scan>, JournalError> {
        read_file(&directory.join(LOG_FILE))
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
        self.write(&bytes).map_err(|source| self.poison(source))?;
        self.number += 1;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Puts a log with one entry in the place of this one, at once or not at all. This one stays beside it.
    ///
    /// # Errors
    /// [`JournalError::TooLong`] and [`JournalError::NotFolded`]: this one goes on as it is. Else as of [`Journal::append`]: after a
    /// restart the log is the old one or the new one, and either says the same.
    pub fn fold(&mut self, folded: Folded) -> Result<(), JournalError> {
        if self.is_poisoned {
            return Err(JournalError::Poisoned);
        }
        let batch = folded.life.base().batch.seq;
        let note = Note::Folded(Box::new(folded));
        let body = note.to_bytes();
        if body.len() > BODY_BYTES_MAX {
            return Err(JournalError::TooLong(body.len()));
        }
        // Before it takes the place of what it stands for.
        if Note::from_bytes(&body).ok().as_ref() != Some(&note) {
            return Err(JournalError::NotFolded(std::io::Error::other("it would be read as something else")));
        }
        drop(note);
        let mut bytes = self.head.to_bytes(VERSION);
        bytes.extend(framed(1, &body));
        let temporary = self.directory().join(TEMPORARY);
        let file = self.prepare(&temporary, &bytes, batch).map_err(|source| {
            // It may be what has filled the disk.
            let _ = std::fs::remove_file(&temporary);
            JournalError::NotFolded(source)
        })?;
        self.replace(&temporary).map_err(|source| self.poison(source))?;
        (self.file, self.base, self.refused_at) = (file, batch, 0);
        (self.number, self.begun, self.end) = (1, bytes.len() as u64, bytes.len() as u64);
        Ok(())
    }

    /// True if the entries since the first have come to so many bytes, and to as many as that one; after a refusal not before the log is
    /// twice as long.
    #[must_use]
    pub const fn is_fold_due(&self, bytes: u64) -> bool {
        let grown = self.end - self.begun;
        grown >= bytes && grown >= self.begun && self.end >= self.refused_at.saturating_mul(2)
    }

    /// To be said when a fold that was due was refused: all of the log is read for one.
    pub const fn put_fold_off(&mut self) {
        self.refused_at = self.end;
    }

    /// The last batch that its first entry stands for; 0 if that stands for no others.
    #[must_use]
    pub const fn folded_until(&self) -> u64 {
        self.base
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end
    }

    /// Never: it has a head.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// For whom it is.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Another log, on the disk under another name, and a second name for this one. The log itself is not touched.
    fn prepare(&self, temporary: &Path, bytes: &[u8], batch: u64) -> std::io::Result<File> {
        let older = older::path(self.directory(), batch);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(temporary)?;
        file.write_all_at(bytes, 0)?;
        if !sabotage!("folded-log-not-synced") {
            durable::sync_file(&file, temporary)?;
        }
        match std::fs::hard_link(&self.path, &older) {
            // By one that was cut short before it came to the end.
            Err(_) if is_same_file(&self.path, &older) => {}
            linked => linked?,
        }
        if !sabotage!("kept-log-not-named") {
            durable::sync_directory(self.directory())?;
        }
        Ok(file)
    }

    fn replace(&self, temporary: &Path) -> std::io::Result<()> {
        std::fs::rename(temporary, &self.path)?;
        if sabotage!("folded-name-not-synced") { Ok(()) } else { durable::sync_directory(self.directory()) }
    }

    fn poison(&mut self, source: std::io::Error) -> JournalError {
        self.is_poisoned = true;
        JournalError::Io { path: self.path.clone(), source }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if sabotage!("settler-log-not-written") {
            return Ok(());
        }
        self.file.write_all_at(bytes, self.end)?;
        durable::sync_data(&self.file, &self.path)
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((file(one), file(other)), (Ok(one), Ok(other)) if one == other)
}

fn read_file(path: &Path) -> Result<Option<Scan>, JournalError> {
    match std::fs::read(path) {
        Ok(bytes) => Scan::of(path, &bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(JournalError::Io { path: path.to_owned(), source }),
    }
}

/// Writes what a file holds once more, in its place, and syncs it. If a sync has failed the newest bytes may be in the page cache and
/// nowhere else, and no later sync would say so. All before the last entry was synced before that was written.
fn write_again(file: &File, path: &Path, range: Range<u64>) -> std::io::Result<()> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(std::io::Error::other)?];
    file.read_exact_at(&mut bytes, range.start)?;
    file.write_all_at(&bytes, range.start)?;
    durable::sync_file(file, path)
}
