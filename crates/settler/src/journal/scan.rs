//! The bytes of a log: head, entries, and what is torn or rotten.

use std::path::Path;

use settlement::Hash;
use surety_protocol::Time;

use super::JournalError;
use crate::codec::{Damaged, Put, Take};
use crate::note::Note;

const MAGIC: &[u8; 8] = b"SURETYSL";
/// Of a log whose first entry stands for others.
pub(super) const VERSION: u32 = 2;
/// Of one that has all of its entries.
pub(super) const VERSION_WITHOUT_FOLDS: u32 = 1;
pub(super) const HEAD_BYTES: usize = 128;
const ENTRY_MAGIC: &[u8; 4] = b"SLE1";
const ENTRY_HEAD_BYTES: usize = 24;
/// Entries that may be damaged in a row and still be recognised by the numbers of those behind.
const SKIPPED_MAX: u64 = 1 << 20;
/// The longest entry: a batch with hundreds of thousands of changes, and every consumed lock that can still be called.
pub(super) const BODY_BYTES_MAX: usize = 1 << 30;

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
    pub(super) last: u64,
    /// Where the first entry ends, if that stands for others; else the head.
    pub(super) begun: u64,
    pub(super) end: u64,
}

impl Scan {
    /// Of a log that has just been made.
    pub(crate) const fn empty(head: Head) -> Self {
        let end = HEAD_BYTES as u64;
        Self { head, notes: Vec::new(), torn_bytes: 0, last: 0, begun: end, end }
    }

    /// The last batch that the first entry stands for; 0 if that stands for no others.
    pub(super) fn base(&self) -> u64 {
        match self.notes.first() {
            Some(Note::Folded(folded)) => folded.life.base().batch.seq,
            _ => 0,
        }
    }

    /// True if there is one entry, which stands for others.
    pub(super) fn is_folded_alone(&self) -> bool {
        matches!(self.notes.as_slice(), [Note::Folded(_)])
    }

    /// Of a file's bytes.
    pub(super) fn of(path: &Path, bytes: &[u8]) -> Result<Self, JournalError> {
        let (version, head) = Head::of(path, bytes)?;
        let is_folded = version > VERSION_WITHOUT_FOLDS;
        let mut scan = Self::empty(head);
        let (mut at, mut number) = (HEAD_BYTES, 1);
        while let Some(body) = entry_at(bytes, at, number) {
            let unreadable =
                |error| JournalError::Unreadable { path: path.to_owned(), number, offset: at as u64, error };
            let note = Note::from_bytes(body).map_err(unreadable)?;
            if matches!(note, Note::Folded(_)) != (is_folded && number == 1) {
                return Err(unreadable(Damaged.into()));
            }
            scan.notes.push(note);
            scan.last = at as u64;
            at += ENTRY_HEAD_BYTES + body.len();
            if is_folded && number == 1 {
                scan.begun = at as u64;
            }
            number += 1;
        }
        // What stands for others was whole before the log had its name: it was never torn.
        let is_lost = is_folded && scan.notes.is_empty();
        if is_lost || is_followed(bytes, at, number) {
            return Err(JournalError::Rot { path: path.to_owned(), number, offset: at as u64 });
        }
        (scan.torn_bytes, scan.end) = ((bytes.len() - at) as u64, at as u64);
        Ok(scan)
    }
}

impl Head {
    pub(super) fn to_bytes(self, version: u32) -> Vec<u8> {
        let mut to = Put::default();
        to.raw(MAGIC).u32(version).raw(&self.shards.to_be_bytes()).u64(self.claim_span.0);
        to.raw(&self.separator).raw(&self.salt_key);
        to.0.resize(HEAD_BYTES - 4, 0);
        let checksum = crc32c::crc32c(&to.0);
        to.u32(checksum);
        to.0
    }

    /// The version that a file's bytes are of, and its head.
    pub(super) fn of(path: &Path, bytes: &[u8]) -> Result<(u32, Self), JournalError> {
        let damaged = || JournalError::NoLog(path.to_owned());
        let bytes = bytes.get(..HEAD_BYTES).ok_or_else(damaged)?;
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
            Ok::<_, Damaged>(Self {
                shards: u16::from_be_bytes(from.array()?),
                claim_span: Time(from.u64()?),
                separator: from.array()?,
                salt_key: from.array()?,
            })
        };
        read(&mut from).map(|head| (version, head)).map_err(|_| damaged())
    }
}

pub(super) fn framed(number: u64, body: &[u8]) -> Vec<u8> {
    let mut to = Put::default();
    to.raw(ENTRY_MAGIC).u32(u32::try_from(body.len()).unwrap_or(u32::MAX)).u64(number);
    to.u32(crc32c::crc32c(body));
    let checksum = crc32c::crc32c(&to.0);
    to.u32(checksum).raw(body);
    to.0
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
