//! The settler's own log: what it has promised itself. Each entry is durable before what follows from it is done.

mod fold;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use surety_protocol::{Time, sabotage};

use super::entry::{Attempt, Entry, Halt, Refusal};
use super::fees::Fees;
use crate::hash::Hash;
use crate::sealer::Sealed;

pub use fold::{Base, Fold, TooLong};

/// Why an entry cannot follow what is there. The log is not one that a settler has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A batch that does not follow the last one.
    #[error("batch {0} does not follow the last one")]
    NotNext(u64),
    /// An entry about a batch that is not open.
    #[error("batch {0} is not open")]
    NotOpen(u64),
    /// A transaction whose nonce or fees do not allow it to replace what was signed before.
    #[error("an attempt with nonce {0} that replaces nothing")]
    Attempt(u64),
    /// Nothing follows a halt.
    #[error("an entry behind a halt")]
    Halted,
}

/// A batch that is not booked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) sealed: Sealed,
    pub(crate) at: Time,
    pub(crate) is_final: bool,
    pub(crate) held: Option<Refusal>,
}

/// A batch that is not booked yet, as it is told to whoever watches.
#[derive(Clone, Copy, Debug)]
pub struct Unbooked<'a> {
    /// The batch.
    pub sealed: &'a Sealed,
    /// When it was sealed, by the settler's clock.
    pub at: Time,
    /// A finalized block has it.
    pub is_final: bool,
    /// Why the contract refuses it, if it does.
    pub held: Option<Refusal>,
}

/// A number under which batches were refused and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused {
    seq: u64,
    times: u32,
    /// When the last of them was sealed.
    at: Time,
}

/// The wait is doubled so often: 64 times the first.
const DOUBLINGS_MAX: u32 = 6;

/// What the entries come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The last booked batch and its head.
    booked: (u64, Hash),
    open: BTreeMap<u64, Open>,
    /// Those whose nonce was not spent at the last final batch, of dropped batches too, in the order of signing.
    attempts: Vec<Attempt>,
    /// The highest finalized block that was seen with a final batch.
    final_block: u64,
    /// The batch that was dropped last, until its number is final.
    dropped: Option<Refused>,
    halt: Option<Halt>,
}

impl Log {
    /// Before the first entry; `genesis` is the domain separator.
    #[must_use]
    pub const fn new(genesis: Hash) -> Self {
        Self {
            booked: (0, genesis),
            open: BTreeMap::new(),
            attempts: Vec::new(),
            final_block: 0,
            dropped: None,
            halt: None,
        }
    }

    /// What a log came to, after a restart.
    ///
    /// # Errors
    /// An entry does not follow from those before.
    pub fn recover(genesis: Hash, entries: impl IntoIterator<Item = Entry>) -> Result<Self, LogError> {
        Self::new(genesis).followed_by(entries)
    }

    /// The same from where a log was folded.
    ///
    /// # Errors
    /// An entry does not follow from those before.
    pub fn followed_by(mut self, entries: impl IntoIterator<Item = Entry>) -> Result<Self, LogError> {
        for entry in entries {
            if sabotage!("attempts-not-logged") && matches!(entry, Entry::Attempt(_)) {
                continue;
            }
            self.append(entry)?;
        }
        Ok(self)
    }

    /// Takes the next entry, which is durable.
    ///
    /// # Errors
    /// It does not follow from those before; nothing has changed.
    pub fn append(&mut self, entry: Entry) -> Result<(), LogError> {
        if self.halt.is_some() {
            return Err(LogError::Halted);
        }
        match entry {
            Entry::Sealed { sealed, at } => self.seal(*sealed, at),
            Entry::Attempt(attempt) => self.attempt(attempt),
            Entry::Final { seq, block, nonce } => self.finalise(seq, block, nonce),
            Entry::Booked { seq } => self.book(seq),
            Entry::Held { seq, refusal } => {
                self.unfinal(seq)?.held = Some(refusal);
                Ok(())
            }
            Entry::Dropped { from } => {
                let at = self.unfinal(from)?.at;
                let before = self.dropped.filter(|dropped| dropped.seq == from);
                let times = before.map_or(0, |dropped| dropped.times).saturating_add(1);
                self.dropped = Some(Refused { seq: from, times, at });
                self.open.split_off(&from);
                Ok(())
            }
            Entry::Halted(halt) => {
                self.halt = Some(halt);
                Ok(())
            }
        }
    }

    /// The last batch that was sealed and not dropped, and its head.
    #[must_use]
    pub fn sealed_head(&self) -> (u64, Hash) {
        self.open.last_key_value().map_or(self.booked, |(seq, open)| (*seq, open.sealed.batch.head()))
    }

    /// The last booked batch: whoever snapshots a sealer at this batch can drop the log before it.
    #[must_use]
    pub const fn booked_seq(&self) -> u64 {
        self.booked.0
    }

    /// The last final batch.
    #[must_use]
    pub fn final_seq(&self) -> u64 {
        self.open.values().filter(|open| open.is_final).count() as u64 + self.booked.0
    }

    /// When the oldest batch was sealed that is not final yet.
    #[must_use]
    pub fn oldest_unsettled(&self) -> Option<Time> {
        self.open.values().filter(|open| !open.is_final).map(|open| open.at).min()
    }

    /// A batch that is not booked yet.
    #[must_use]
    pub fn sealed(&self, seq: u64) -> Option<&Sealed> {
        self.open.get(&seq).map(|open| &open.sealed)
    }

    /// All batches that are not booked yet, by number.
    pub fn unbooked(&self) -> impl Iterator<Item = Unbooked<'_>> {
        self.open.values().map(|open| Unbooked {
            sealed: &open.sealed,
            at: open.at,
            is_final: open.is_final,
            held: open.held,
        })
    }

    /// A signed transaction that may still be sent, by its hash.
    #[must_use]
    pub fn attempt_of(&self, hash: &Hash) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.hash == *hash)
    }

    /// All signed transactions that may still be sent.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Why the settler has stopped.
    #[must_use]
    pub const fn halt(&self) -> Option<Halt> {
        self.halt
    }

    /// Our head of a batch; `None` if it was never sealed, or is older than what is remembered.
    pub(crate) fn head_of(&self, seq: u64) -> Option<Hash> {
        if seq == self.booked.0 {
            return Some(self.booked.1);
        }
        self.open.get(&seq).map(|open| open.sealed.batch.head())
    }

    /// Before this nothing is sealed, since the contract has refused what was sealed last.
    pub(crate) fn retry_at(&self, after: Time) -> Time {
        self.dropped.map_or(Time::ZERO, |dropped| {
            let factor = 1_u64 << (dropped.times - 1).min(DOUBLINGS_MAX);
            dropped.at.plus(Time(after.0.saturating_mul(factor)))
        })
    }

    pub(crate) const fn final_block(&self) -> u64 {
        self.final_block
    }

    pub(crate) fn open(&self, seq: u64) -> Option<&Open> {
        self.open.get(&seq)
    }

    /// The highest fees that were ever signed for a nonce: what a replacement has to top.
    pub(crate) fn floor(&self, nonce: u64) -> Option<Fees> {
        let same = self.attempts.iter().filter(|attempt| attempt.nonce == nonce);
        same.map(|attempt| attempt.fees).reduce(Fees::above)
    }

    fn seal(&mut self, sealed: Sealed, at: Time) -> Result<(), LogError> {
        let (seq, head) = self.sealed_head();
        let batch = &sealed.batch;
        if Some(batch.seq) != seq.checked_add(1) || batch.prev_head != head {
            return Err(LogError::NotNext(batch.seq));
        }
        self.open.insert(batch.seq, Open { sealed, at, is_final: false, held: None });
        Ok(())
    }

    fn attempt(&mut self, attempt: Attempt) -> Result<(), LogError> {
        self.unfinal(attempt.seq)?;
        let floor = self.floor(attempt.nonce).map(Fees::bumped);
        if floor.is_some_and(|floor| attempt.fees.cap < floor.cap || attempt.fees.tip < floor.tip) {
            return Err(LogError::Attempt(attempt.nonce));
        }
        self.attempts.push(attempt);
        Ok(())
    }

    fn finalise(&mut self, seq: u64, block: u64, nonce: u64) -> Result<(), LogError> {
        if Some(seq) != self.final_seq().checked_add(1) {
            return Err(LogError::NotNext(seq));
        }
        self.unfinal(seq)?.is_final = true;
        self.final_block = self.final_block.max(block);
        self.dropped = self.dropped.filter(|dropped| dropped.seq > seq);
        self.attempts.retain(|attempt| attempt.nonce >= nonce);
        Ok(())
    }

    fn book(&mut self, seq: u64) -> Result<(), LogError> {
        if Some(seq) != self.booked.0.checked_add(1) {
            return Err(LogError::NotNext(seq));
        }
        match self.open.remove(&seq) {
            Some(open) if open.is_final || sabotage!("booked-before-final") => {
                self.booked = (seq, open.sealed.batch.head());
                Ok(())
            }
            Some(open) => {
                self.open.insert(seq, open);
                Err(LogError::NotOpen(seq))
            }
            None => Err(LogError::NotOpen(seq)),
        }
    }

    fn unfinal(&mut self, seq: u64) -> Result<&mut Open, LogError> {
        self.open.get_mut(&seq).filter(|open| !open.is_final).ok_or(LogError::NotOpen(seq))
    }
}
