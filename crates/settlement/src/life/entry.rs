//! Entries of the settler's log, and their bytes. The caller frames them with length and checksum; the bytes here are versioned.

use alloc::boxed::Box;
use alloc::vec::Vec;

use surety_protocol::{PartitionHandle, Time};

use super::fees::Fees;
use crate::batch::Batch;
use crate::bytes::{Reader, Truncated, Writer};
use crate::hash::Hash;
use crate::sealer::Sealed;

const VERSION: u8 = 1;

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To commit this batch.
    Commit,
    /// To spend a nonce, so that no held batch that was signed with it can land any more.
    Cancel,
}

/// A signed transaction. Its bytes never change: after a crash the same are sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The batch; for a cancellation the held one.
    pub seq: u64,
    /// What for.
    pub purpose: Purpose,
    /// The account's nonce.
    pub nonce: u64,
    /// What it pays.
    pub fees: Fees,
    /// When it was signed, by the settler's clock.
    pub at: Time,
    /// The view's block then.
    pub block: u64,
    /// Its hash.
    pub hash: Hash,
    /// Its bytes.
    pub raw: Vec<u8>,
}

/// Which rule of the contract refuses a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// More new credit than the contract lets through in an hour.
    PayoutLimit,
    /// The contract's own balance does not cover the sums.
    Insolvent,
    /// The guardian has paused the contract.
    Paused,
    /// Any other.
    Other,
}

/// Why the settler goes no further until somebody has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Chain id, contract or code are not those that the settler was set up for.
    #[error("this is another chain or contract")]
    WrongChain,
    /// The contract has a batch that this settler has not sealed: there is another poster, or the log is an old copy.
    #[error("the contract has a batch that is not ours")]
    UnknownHead,
    /// A batch that was final is gone: the chain has broken its promise.
    #[error("a final batch is gone from the chain")]
    FinalityBroken,
    /// The contract is frozen: suppliers and merchants are served from the chain alone.
    #[error("the contract is frozen")]
    Frozen,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A batch was sealed.
    Sealed {
        /// The batch.
        sealed: Box<Sealed>,
        /// When, by the settler's clock.
        at: Time,
    },
    /// A transaction was signed; it may be sent once this is durable.
    Attempt(Attempt),
    /// A batch is in a finalized block.
    Final {
        /// Which.
        seq: u64,
        /// The number of the finalized block in which that was seen.
        block: u64,
        /// The account's next nonce there: whatever was signed with a lower one is forgotten.
        nonce: u64,
    },
    /// The ledger has booked a final batch.
    Booked {
        /// Which.
        seq: u64,
    },
    /// The contract refuses a batch by rule.
    Held {
        /// Which.
        seq: u64,
        /// The rule.
        refusal: Refusal,
    },
    /// A held batch and those after it are void; their numbers are sealed anew.
    Dropped {
        /// The first of them.
        from: u64,
    },
    /// The settler has stopped.
    Halted(Halt),
}

/// Why bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Another version than this one.
    #[error("an entry of version {0}")]
    Version(u8),
    /// They do not read as one.
    #[error("the bytes are no entry")]
    Damaged,
}

impl From<Truncated> for EntryError {
    fn from(Truncated: Truncated) -> Self {
        Self::Damaged
    }
}

impl Entry {
    /// Writes the entry.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u8(VERSION);
        match self {
            Self::Sealed { sealed, at } => write_sealed(to.u8(1).u64(at.0), sealed),
            Self::Attempt(attempt) => write_attempt(to.u8(2), attempt),
            Self::Final { seq, block, nonce } => _ = to.u8(3).u64(*seq).u64(*block).u64(*nonce),
            Self::Booked { seq } => _ = to.u8(4).u64(*seq),
            Self::Held { seq, refusal } => _ = to.u8(5).u64(*seq).u8(*refusal as u8),
            Self::Dropped { from } => _ = to.u8(6).u64(*from),
            Self::Halted(halt) => _ = to.u8(7).u8(*halt as u8),
        }
        to.0
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// The bytes are none of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut from = Reader(bytes);
        let version = from.u8()?;
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        let entry = match from.u8()? {
            1 => {
                let at = Time(from.u64()?);
                Self::Sealed { sealed: Box::new(read_sealed(&mut from)?), at }
            }
            2 => Self::Attempt(read_attempt(&mut from)?),
            3 => Self::Final { seq: from.u64()?, block: from.u64()?, nonce: from.u64()? },
            4 => Self::Booked { seq: from.u64()? },
            5 => {
                let all = [Refusal::PayoutLimit, Refusal::Insolvent, Refusal::Paused, Refusal::Other];
                Self::Held { seq: from.u64()?, refusal: pick(&mut from, &all)? }
            }
            6 => Self::Dropped { from: from.u64()? },
            7 => {
                let all = [Halt::WrongChain, Halt::UnknownHead, Halt::FinalityBroken, Halt::Frozen];
                Self::Halted(pick(&mut from, &all)?)
            }
            _ => return Err(EntryError::Damaged),
        };
        from.end()?;
        Ok(entry)
    }
}

fn pick<T: Copy>(from: &mut Reader<'_>, all: &[T]) -> Result<T, EntryError> {
    all.get(usize::from(from.u8()?)).copied().ok_or(EntryError::Damaged)
}

pub(super) fn write_sealed(to: &mut Writer, sealed: &Sealed) {
    write_batch(to, &sealed.batch);
    to.u128(sealed.credit_max);
    to.list(sealed.finals.iter(), |to, (handle, amount)| _ = to.u64(handle.0).u128(*amount));
    to.bytes(&sealed.data);
}

pub(super) fn write_batch(to: &mut Writer, batch: &Batch) {
    to.u64(batch.seq).u64(batch.lsn_to).raw(&batch.prev_head).raw(&batch.state_root);
    to.u128(batch.sum_locked).u128(batch.sum_credit).u128(batch.guaranteed_ack).u32(batch.count);
    to.raw(&batch.data_hash);
}

pub(super) fn read_sealed(from: &mut Reader<'_>) -> Result<Sealed, Truncated> {
    let batch = read_batch(from)?;
    let credit_max = from.u128()?;
    let finals = from.list(|from| Ok::<_, Truncated>((PartitionHandle(from.u64()?), from.u128()?)))?;
    Ok(Sealed { batch, credit_max, finals, data: from.bytes()? })
}

pub(super) fn read_batch(from: &mut Reader<'_>) -> Result<Batch, Truncated> {
    Ok(Batch {
        seq: from.u64()?,
        lsn_to: from.u64()?,
        prev_head: from.array()?,
        state_root: from.array()?,
        sum_locked: from.u128()?,
        sum_credit: from.u128()?,
        guaranteed_ack: from.u128()?,
        count: from.u32()?,
        data_hash: from.array()?,
    })
}

pub(super) fn write_attempt(to: &mut Writer, attempt: &Attempt) {
    to.u64(attempt.seq).u8(u8::from(attempt.purpose == Purpose::Cancel)).u64(attempt.nonce);
    to.u128(attempt.fees.cap).u128(attempt.fees.tip).u64(attempt.at.0).u64(attempt.block);
    to.raw(&attempt.hash).bytes(&attempt.raw);
}

pub(super) fn read_attempt(from: &mut Reader<'_>) -> Result<Attempt, EntryError> {
    Ok(Attempt {
        seq: from.u64()?,
        purpose: pick(from, &[Purpose::Commit, Purpose::Cancel])?,
        nonce: from.u64()?,
        fees: Fees { cap: from.u128()?, tip: from.u128()? },
        at: Time(from.u64()?),
        block: from.u64()?,
        hash: from.array()?,
        raw: from.bytes()?,
    })
}
