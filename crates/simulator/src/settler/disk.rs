//! The settler's files on a disk that forgets, tears and fails: a log that is only appended to, and snapshots of the sealer.

use settlement::keccak;
use settlement::life::Entry;
use surety_protocol::{Record, Seq};
use wal::memory::{Fault, MemoryError, MemoryStorage};
use wal::{FileName, Storage};

use super::Stop;
use crate::random::Random;

/// The log. Its name among those that the disk knows means nothing here.
const LOG: FileName = FileName::Segment { first_seq: Seq(1) };
/// Number, length, checksum.
const HEAD_BYTES: usize = 24;
/// A call of the disk that never comes.
const NEVER: u64 = 1 << 40;
/// Snapshots that are kept.
const KEPT: usize = 2;

/// What stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// Something in the life of a batch.
    Life(Entry),
    /// This request is about to be sent, and the ledger would take it twice.
    Asked(Box<Record>),
}

/// How the process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// What was written is there.
    Stays,
    /// Any of what was not synced is gone.
    Goes,
}

/// The files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    disk: MemoryStorage,
    /// Entries in the log, and where the next one goes.
    number: u64,
    end: u64,
}

impl From<MemoryError> for Stop {
    /// A failed call is never tried again: the process ends.
    fn from(_: MemoryError) -> Self {
        Self::Died
    }
}

impl Files {
    pub(super) fn create() -> Result<Self, Stop> {
        let mut disk = MemoryStorage::new();
        disk.create(LOG, 0)?;
        disk.sync_directory()?;
        Ok(Self { disk, number: 0, end: 0 })
    }

    pub(super) fn fail_nth(&mut self, nth: u64, fault: Fault) {
        self.disk.fail_nth(nth, fault);
    }

    /// Appends one note. When this returns it is on the disk.
    pub(super) fn append(&mut self, note: &Note) -> Result<(), Stop> {
        let body = note.to_bytes();
        let mut framed = Vec::with_capacity(HEAD_BYTES + body.len());
        framed.extend_from_slice(&(self.number + 1).to_be_bytes());
        framed.extend_from_slice(&(body.len() as u64).to_be_bytes());
        framed.extend_from_slice(&checksum(&framed, &body));
        framed.extend_from_slice(&body);
        self.disk.write_at(LOG, self.end, &framed)?;
        self.disk.sync(LOG)?;
        self.number += 1;
        self.end += framed.len() as u64;
        Ok(())
    }

    /// The files as the next process finds them, and what their log says. A torn last entry is cut off. At the call `cut` the power
    /// goes.
    pub(super) fn reopen(
        &mut self,
        power: Power,
        cut: Option<u64>,
        random: &mut Random,
    ) -> Result<Vec<Note>, Stop> {
        self.disk = match power {
            Power::Stays => self.disk.crash_keeping_all(),
            Power::Goes => self.disk.crash(&mut |n| random.index(n)),
        };
        if let Some(nth) = cut {
            self.disk.fail_nth(nth, Fault::PowerOff);
        }
        // Whatever is read from here on is on the disk.
        self.disk.sync(LOG)?;
        let notes = self.read();
        let len = self.disk.len(LOG)?;
        if len > self.end {
            let torn = usize::try_from(len - self.end).unwrap_or(0);
            self.disk.write_at(LOG, self.end, &vec![0; torn])?;
            self.disk.sync(LOG)?;
        }
        self.disk.fail_nth(NEVER, Fault::PowerOff);
        notes
    }

    /// Everything that the log says; notes where it ends.
    pub(super) fn read(&mut self) -> Result<Vec<Note>, Stop> {
        let bytes = self.disk.bytes(LOG).unwrap_or_default();
        let (mut notes, mut at) = (Vec::new(), 0);
        while let Some(body) = sound_entry(&bytes[at..], notes.len() as u64 + 1) {
            notes.push(Note::from_bytes(body).ok_or_else(|| Stop::broken("an entry that says nothing"))?);
            at += HEAD_BYTES + body.len();
        }
        (self.number, self.end) = (notes.len() as u64, at as u64);
        Ok(notes)
    }

    /// Puts a snapshot on the disk, and takes the oldest away.
    pub(super) fn keep(&mut self, batch: u64, snapshot: &[u8]) -> Result<(), Stop> {
        let (temporary, name) =
            (FileName::SnapshotTemp { seq: Seq(batch) }, FileName::Snapshot { seq: Seq(batch) });
        let mut bytes = keccak(&[snapshot]).to_vec();
        bytes.extend_from_slice(snapshot);
        self.disk.create(temporary, 0)?;
        self.disk.write_at(temporary, 0, &bytes)?;
        self.disk.sync(temporary)?;
        self.disk.rename(temporary, name)?;
        self.disk.sync_directory()?;
        for batch in self.snapshots().into_iter().rev().skip(KEPT) {
            self.disk.remove(FileName::Snapshot { seq: Seq(batch) })?;
        }
        Ok(())
    }

    /// The newest sound snapshot, with its batch.
    pub(super) fn newest_snapshot(&self) -> Option<(u64, &[u8])> {
        self.snapshots().into_iter().rev().find_map(|batch| {
            let (hash, snapshot) =
                self.disk.bytes(FileName::Snapshot { seq: Seq(batch) })?.split_first_chunk::<32>()?;
            (keccak(&[snapshot]) == *hash).then_some((batch, snapshot))
        })
    }

    /// The newest snapshot rots. False if there is none.
    pub(super) fn damage_snapshot(&mut self, random: &mut Random) -> bool {
        let Some(batch) = self.snapshots().last().copied() else { return false };
        let name = FileName::Snapshot { seq: Seq(batch) };
        let len = self.disk.bytes(name).map_or(0, <[u8]>::len);
        self.disk.flip(name, random.index(len), 1 << random.below(8));
        true
    }

    /// The batches of all of them, rising.
    fn snapshots(&self) -> Vec<u64> {
        let names = self.disk.list().unwrap_or_default();
        let batch = |name| if let FileName::Snapshot { seq } = name { Some(seq.0) } else { None };
        let mut batches: Vec<u64> = names.into_iter().filter_map(batch).collect();
        batches.sort_unstable();
        batches
    }
}

impl Note {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Life(entry) => [vec![1], entry.to_bytes()].concat(),
            Self::Asked(request) => [vec![2], request.to_bytes().to_vec()].concat(),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (1, rest) => Entry::from_bytes(rest).ok().map(Self::Life),
            (2, rest) => Some(Self::Asked(Box::new(Record::from_bytes(rest.try_into().ok()?)))),
            _ => None,
        }
    }
}

fn checksum(head: &[u8], body: &[u8]) -> [u8; 8] {
    let hash = keccak(&[head, body]);
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    first
}

/// The body of a sound entry with this number.
fn sound_entry(bytes: &[u8], number: u64) -> Option<&[u8]> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (found, len) = (head[..8].try_into().ok()?, head[8..16].try_into().ok()?);
    let body = rest.get(..usize::try_from(u64::from_be_bytes(len)).ok()?)?;
    (u64::from_be_bytes(found) == number && checksum(&head[..16], body) == head[16..]).then_some(body)
}
