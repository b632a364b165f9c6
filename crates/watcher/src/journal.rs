//! What a watcher must not forget, in a file of lines: what is watched, how far the chain is read, what was decided, what was
//! sent. A line is what was written at once: its checksum, and a JSON list of entries. The last line that a crash has cut off was
//! never acted on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use surety_protocol::Id;

use crate::json;
use crate::payment::{Watch, WatchKey};
use crate::track::{Progress, Verdict};

/// Letters of a line's checksum.
const CHECKSUM_LETTERS: usize = 16;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A payment is waited for.
    Watch(Watch),
    /// The chain is read up to here.
    Progress(Progress),
    /// A watch is decided.
    Decided(Decided),
    /// A request is about to be sent for the first time.
    Attempt(Attempt),
    /// The engine has what it needs; the watch is forgotten.
    Delivered(WatchKey),
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Of which watch.
    pub key: WatchKey,
    /// Which way.
    pub verdict: Verdict,
    /// What was paid in time.
    #[serde(with = "json::amount")]
    pub paid: u128,
}

/// The id under which a step of a delivery is sent, so that it is the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// For which watch.
    pub key: WatchKey,
    /// Which step: a capture's index, or the lock as a whole.
    pub step: u16,
    /// The request's id.
    #[serde(with = "json::id")]
    pub id: Id,
    /// What it asks for, in base units of the collateral; zero where the request names none.
    #[serde(with = "json::amount")]
    pub amount: u128,
}

/// The file, open for writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

/// A journal that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system says no.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process writes it.
    #[error("{0} is in use by another watcher")]
    InUse(PathBuf),
    /// A line that is not the last does not have the checksum that it says: the file is damaged.
    #[error("{path}: line {line} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

impl Journal {
    /// Opens the journal of a directory, and reads it. One process at a time.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    pub fn open(directory: &Path) -> Result<(Self, Vec<Entry>), JournalError> {
        let path = directory.join("journal");
        let io = |source| JournalError::Io { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let options = || OpenOptions::new().read(true).append(true).create(true).to_owned();
        let mut file = options().open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::InUse(path)),
            Err(std::fs::TryLockError::Error(source)) => return Err(JournalError::Io { path, source }),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io)?;
        let (entries, sound_bytes) =
            read_lines(&text).map_err(|line| JournalError::Damaged { path: path.clone(), line })?;
        file.set_len(sound_bytes).map_err(io)?;
        file.sync_all().map_err(io)?;
        sync_directory(directory).map_err(io)?;
        Ok((Self { path, file }, entries))
    }

    /// Writes entries; they are on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], after which nothing that depends on them may be done.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        if entries.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(line_of(entries).as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }

    /// Reads everything again.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    pub fn read(&self) -> Result<Vec<Entry>, JournalError> {
        let text = std::fs::read(&self.path)
            .map_err(|source| JournalError::Io { path: self.path.clone(), source })?;
        let read = read_lines(&text);
        read.map(|(entries, _)| entries)
            .map_err(|line| JournalError::Damaged { path: self.path.clone(), line })
    }

    /// Replaces everything by these entries, at once or not at all.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub fn rewrite(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let fresh = self.path.with_extension("new");
        let replace = || {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&fresh)?;
            file.lock()?;
            let lines: String = entries.iter().map(|entry| line_of(core::slice::from_ref(entry))).collect();
            file.write_all(lines.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, &self.path)?;
            self.path.parent().map_or(Ok(()), sync_directory)?;
            Ok(file)
        };
        self.file = replace().map_err(|source| JournalError::Io { path: self.path.clone(), source })?;
        Ok(())
    }
}

pub(crate) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

fn line_of(entries: &[Entry]) -> String {
    let text = serde_json::to_string(entries).expect("plain data has a JSON form");
    format!("{} {text}\n", checksum(&text))
}

fn checksum(text: &str) -> String {
    let mut letters = blake3::hash(text.as_bytes()).to_hex().to_string();
    letters.truncate(CHECKSUM_LETTERS);
    letters
}

/// The entries, and the bytes that they take; an error is the number of a damaged line.
fn read_lines(text: &[u8]) -> Result<(Vec<Entry>, u64), usize> {
    let (mut entries, mut sound_bytes) = (Vec::new(), 0);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for (at, line) in lines.iter().enumerate() {
        match entries_of(line) {
            Some(read) => entries.extend(read),
            // What a crash has left of the last write, which was one line. Anything more is damage.
            None if at + 1 == lines.len() => break,
            None => return Err(at + 1),
        }
        sound_bytes += line.len() as u64;
    }
    Ok((entries, sound_bytes))
}

fn entries_of(line: &[u8]) -> Option<Vec<Entry>> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, text) = line.split_once(' ')?;
    if sum != checksum(text) {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::{Account, BlockRef};
    use crate::track::Paid;
    use crate::{Base, WatchKey};
    use alloy_primitives::B256;
    use surety_protocol::{AssetId, PartitionHandle, ShardId, TenantId};

    fn entries() -> Vec<Entry> {
        let key = WatchKey {
            tenant: TenantId(7),
            partition: PartitionHandle::new(ShardId(3), 9),
            lock: Id(u128::MAX),
        };
        let watch = Watch {
            key,
            asset: AssetId(2),
            to: Account::new("bcrt1qexample").unwrap(),
            amount: u128::MAX,
            confirmations: 6,
            deadline_s: 1_700_000_000,
            owes_held: true,
        };
        let at = BlockRef { number: 5, hash: B256::repeat_byte(5) };
        let paid = vec![Paid { key, amount: 1 << 100 }];
        vec![
            Entry::Watch(watch),
            Entry::Progress(Progress { base: Base { at, clock_s: 77 }, read: 9, paid }),
            Entry::Decided(Decided { key, verdict: Verdict::Consume, paid: 3 }),
            Entry::Attempt(Attempt { key, step: u16::MAX, id: Id(1), amount: 4 }),
            Entry::Delivered(key),
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, read) = Journal::open(directory.path()).unwrap();
        assert!(read.is_empty());
        assert!(matches!(Journal::open(directory.path()), Err(JournalError::InUse(_))));
        journal.append(&entries()).unwrap();
        drop(journal);
        let (mut journal, read) = Journal::open(directory.path()).unwrap();
        assert_eq!(read, entries());
        journal.rewrite(&entries()[1..3]).unwrap();
        assert!(matches!(Journal::open(directory.path()), Err(JournalError::InUse(_))));
        journal.append(&entries()[4..]).unwrap();
        drop(journal);
        let (_, read) = Journal::open(directory.path()).unwrap();
        assert_eq!(read, [&entries()[1..3], &entries()[4..]].concat());
    }

    #[test]
    fn a_write_that_was_cut_anywhere_leaves_what_was_whole_before_it() {
        let lines: Vec<String> =
            entries().iter().map(|entry| line_of(core::slice::from_ref(entry))).collect();
        let text = lines.concat();
        for cut in (0..text.len()).step_by(5) {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("journal"), &text.as_bytes()[..cut]).unwrap();
            let (mut journal, read) = Journal::open(directory.path()).unwrap();
            let whole = (0..=lines.len()).rev().find(|n| lines[..*n].concat().len() <= cut).unwrap();
            assert_eq!(read, entries()[..whole], "{cut}");
            journal.append(&entries()[..1]).unwrap();
            drop(journal);
            assert_eq!(Journal::open(directory.path()).unwrap().1.len(), whole + 1);
        }
    }

    #[test]
    fn what_was_written_at_once_is_there_at_once_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path()).unwrap();
        journal.append(&entries()[..1]).unwrap();
        let before = std::fs::read(directory.path().join("journal")).unwrap().len();
        journal.append(&entries()).unwrap();
        drop(journal);
        let text = std::fs::read(directory.path().join("journal")).unwrap();
        for cut in before..text.len() {
            std::fs::write(directory.path().join("journal"), &text[..cut]).unwrap();
            assert_eq!(Journal::open(directory.path()).unwrap().1, entries()[..1], "{cut}");
        }
    }

    #[test]
    fn more_than_one_damaged_line_is_no_torn_end() {
        let lines: Vec<String> =
            entries().iter().map(|entry| line_of(core::slice::from_ref(entry))).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        for first in 0..lines.len() - 1 {
            let mut damaged = lines.clone();
            damaged[first..].iter_mut().for_each(|line| line.replace_range(..1, "x"));
            std::fs::write(&path, damaged.concat()).unwrap();
            let found = Journal::open(directory.path());
            assert!(matches!(found, Err(JournalError::Damaged { line, .. }) if line == first + 1), "{first}");
        }
    }

    #[test]
    fn damage_before_the_end_is_found_out() {
        let text: String = entries().iter().map(|entry| line_of(core::slice::from_ref(entry))).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        for at in (0..text.rfind("[{\"delivered").unwrap() - CHECKSUM_LETTERS - 2).step_by(7) {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert!(
                matches!(Journal::open(directory.path()), Err(JournalError::Damaged { .. })),
                "byte {at}"
            );
        }
    }
}
