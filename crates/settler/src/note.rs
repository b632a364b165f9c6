//! What stands in the settler's log: the life of batches, and the requests that must not be sent twice.

use settlement::Hash;
use settlement::life::{Entry, EntryError};
use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::{PartitionHandle, Record, Time};

use crate::codec::{Damaged, Put, Take};
use crate::fold::Folded;
use crate::scan::PaidOnChain;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Something in the life of a batch.
    Life(Entry),
    /// This withdrawal or deficit is about to be asked for. After a crash its id tells what became of it.
    Asked(Box<Record>),
    /// The engine has answered the withdrawal of an exit that was requested on chain.
    ExitAnswered {
        /// Where.
        partition: PartitionHandle,
        /// The exit's number on chain.
        nonce: u64,
    },
    /// The halt before was looked at: go on.
    Resumed,
    /// The engine has booked a guarantee that was paid for no lock of its own.
    LossBooked {
        /// See `settlement::loss_reference`.
        reference: u128,
    },
    /// The contract has paid this for no lock of the engine's, and the deficit is about to be asked for.
    Loss(PaidOnChain),
    /// Somebody was told of that.
    LossTold {
        /// The lock's name on chain.
        lock: Hash,
    },
    /// A mined transaction has cost this.
    Spent {
        /// When that was seen.
        at: Time,
        /// Its hash.
        transaction: Hash,
        /// All of it.
        wei: u128,
    },
    /// What all entries before came to: only ever the first.
    Folded(Box<Folded>),
}

/// Why bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// They do not read as one.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// What they say of a batch does not.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl Note {
    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut to = Put::default();
        match self {
            Self::Life(entry) => _ = to.u8(1).raw(&entry.to_bytes()),
            Self::Asked(request) => _ = to.u8(2).raw(&request.to_bytes()),
            Self::ExitAnswered { partition, nonce } => _ = to.u8(3).u64(partition.0).u64(*nonce),
            Self::Resumed => _ = to.u8(4),
            Self::LossBooked { reference } => _ = to.u8(5).u128(*reference),
            Self::Loss(paid) => paid.write(to.u8(7)),
            Self::LossTold { lock } => _ = to.u8(8).raw(lock),
            Self::Folded(folded) => folded.write(to.u8(9)),
            Self::Spent { at, transaction, wei } => _ = to.u8(6).u64(at.0).raw(transaction).u128(*wei),
        }
        to.0
    }

    /// Reads one.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoteError> {
        let mut from = Take(bytes);
        let note = match from.u8()? {
            1 => return Ok(Self::Life(Entry::from_bytes(from.0)?)),
            2 => Self::Asked(Box::new(Record::from_bytes(&from.array::<RECORD_BYTES>()?))),
            3 => Self::ExitAnswered { partition: PartitionHandle(from.u64()?), nonce: from.u64()? },
            4 => Self::Resumed,
            5 => Self::LossBooked { reference: from.u128()? },
            6 => Self::Spent { at: Time(from.u64()?), transaction: from.array()?, wei: from.u128()? },
            7 => Self::Loss(PaidOnChain::take(&mut from)?),
            8 => Self::LossTold { lock: from.array()? },
            9 => Self::Folded(Box::new(Folded::take(&mut from)?)),
            _ => return Err(Damaged.into()),
        };
        from.end()?;
        Ok(note)
    }
}

impl From<Entry> for Note {
    fn from(entry: Entry) -> Self {
        Self::Life(entry)
    }
}
