//! How a settler stands, for whoever watches it.

use alloy_primitives::B256;
use chain::SendError;
use settlement::life::View;
use surety_protocol::{Seq, Time};

use crate::batches::BatchLife;
use crate::look::Sight;
use crate::settler::Settler;

/// What became of a transaction of the settler's, as far as its node says at once; and how many of them blocks have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sending {
    /// The node has taken it, or has it already.
    Taken,
    /// It pays too little.
    Underpriced,
    /// The poster's account is empty.
    NoFunds,
    /// Another transaction has taken its nonce.
    NonceTaken,
    /// The node does not take it.
    Refused,
    /// The node does not answer.
    Unreachable,
    /// A block has it.
    Mined,
}

impl Sending {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Taken,
        Self::Underpriced,
        Self::NoFunds,
        Self::NonceTaken,
        Self::Refused,
        Self::Unreachable,
        Self::Mined,
    ];

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Underpriced => "underpriced",
            Self::NoFunds => "no_funds",
            Self::NonceTaken => "nonce_taken",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Mined => "mined",
        }
    }
}

impl From<&Result<B256, SendError>> for Sending {
    fn from(sent: &Result<B256, SendError>) -> Self {
        match sent {
            Ok(_) | Err(SendError::AlreadyKnown) => Self::Taken,
            Err(SendError::Underpriced) => Self::Underpriced,
            Err(SendError::InsufficientFunds) => Self::NoFunds,
            Err(SendError::NonceTooLow(_)) => Self::NonceTaken,
            Err(SendError::Backend(_)) => Self::Unreachable,
            Err(_) => Self::Refused,
        }
    }
}

/// What the last look at the chain has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Number of the newest block.
    pub block: u64,
    /// Number of the newest block that is final.
    pub finalized_block: u64,
    /// Of the poster's account, in wei.
    pub balance: u128,
    /// Wei that were spent in the last day.
    pub spent_today: u128,
    /// Of the next block, wei per gas.
    pub base_fee: u128,
    /// When the newest block was made, by its own word: seconds since the Unix epoch; none where the chain is another's.
    pub block_time: Option<u64>,
}

impl From<&Sight> for Seen {
    fn from(sight: &Sight) -> Self {
        let View { block, balance, spent_today, base_fee, .. } = sight.view;
        // A chain without a contract of ours has no block that counts as final.
        let finalized_block = sight.view.finalized_block.min(block);
        let block_time = sight.newest.as_ref().map(|(newest, _)| newest.time);
        Self { block, finalized_block, balance, spent_today, base_fee, block_time }
    }
}

/// How a settler stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The last sealed, final and booked batch.
    pub progress: (u64, u64, u64),
    /// Records that wait for a batch.
    pub waiting_records: u64,
    /// How long the oldest of them has waited; zero if none does.
    pub waiting_age: Time,
    /// How long ago the oldest batch was sealed that is not final; zero if all are.
    pub unsettled_age: Time,
    /// Signed transactions that a block may still take.
    pub pending: usize,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Partitions for which something is tried again later, since the engine has declined it.
    pub put_off: usize,
    /// How far each shard's stream was read.
    pub read: Vec<Seq>,
    /// How far it was read for the last batch that became final since the start; none before.
    pub settled: Option<Vec<Seq>>,
    /// None before the first look.
    pub seen: Option<Seen>,
    /// Batches that are not booked, and the last of those that were booked since the start: the newest last.
    pub batches: Vec<BatchLife>,
    /// Since the start, in the order of [`Sending::ALL`].
    pub sendings: [u64; Sending::ALL.len()],
}

impl Settler {
    /// How it stands now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let now = self.client.now();
        let age = |since: Option<Time>| since.map_or(Time::ZERO, |since| now.minus(since));
        Figures {
            progress: self.progress(),
            waiting_records: self.waiting.records,
            waiting_age: age(self.waiting.since),
            unsettled_age: age(self.log.oldest_unsettled()),
            pending: self.log.attempts().len(),
            log_bytes: self.journal.len(),
            put_off: self.put_off.len(),
            read: self.sealer.netting().positions().0.clone(),
            settled: self.settled.clone(),
            seen: self.seen,
            batches: self.batches.all().cloned().collect(),
            sendings: self.sendings,
        }
    }

    pub(crate) fn count(&mut self, sending: Sending, times: usize) {
        self.sendings[sending as usize] += times as u64;
    }
}
