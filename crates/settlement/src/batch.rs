//! A batch: what the contract is told, and the hash by which batches are chained.

use alloc::vec::Vec;

use surety_protocol::Seq;

use crate::hash::{Hash, keccak, keccak_enc};
use crate::tree::SumNode;

/// What was read of the synced stream: the last seq of each shard, in their order. No component ever falls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(pub Vec<Seq>);

impl Positions {
    /// `positionsHash`.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let words: Vec<Hash> = self.0.iter().map(|seq| crate::hash::Word::word(&seq.0)).collect();
        crate::hash::keccak_words(&words)
    }

    /// The sum, which the contract sees rise. No log reaches 64 bits.
    #[must_use]
    pub fn lsn(&self) -> u64 {
        self.0.iter().fold(0, |sum, seq| sum.saturating_add(seq.0))
    }
}

/// The roots that a state is joined from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Top of the tree of partitions, with its sums.
    pub partitions: SumNode,
    /// Of the payees.
    pub payees: Hash,
    /// Of the suppliers.
    pub suppliers: Hash,
    /// Of the consumed certified locks.
    pub consumed: Hash,
    /// See [`Positions::hash`].
    pub positions: Hash,
}

impl Roots {
    /// Everything but the payees: what a claim carries beside its path.
    #[must_use]
    pub fn rest(&self) -> Hash {
        let Self { partitions, suppliers, consumed, positions, .. } = self;
        keccak_enc!(partitions.hash, partitions.sums, *suppliers, *consumed, *positions)
    }

    /// What the batch commits to.
    #[must_use]
    pub fn state(&self) -> Hash {
        keccak(&[&self.payees, &self.rest()])
    }
}

/// What is committed on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// 1, 2, 3, ...
    pub seq: u64,
    /// See [`Positions::lsn`].
    pub lsn_to: u64,
    /// The head before it.
    pub prev_head: Hash,
    /// See [`Roots::state`].
    pub state_root: Hash,
    /// Collateral that guarantees something, in base units.
    pub sum_locked: u128,
    /// All credits of all payees, ever, in base units.
    pub sum_credit: u128,
    /// All guarantees that the ledger has booked, ever, in base units.
    pub guaranteed_ack: u128,
    /// Records that were netted.
    pub count: u32,
    /// Hash over the batch's data.
    pub data_hash: Hash,
}

impl Batch {
    /// The head of the chain of batches behind it.
    #[must_use]
    pub fn head(&self) -> Hash {
        keccak_enc!(
            self.seq,
            self.lsn_to,
            self.prev_head,
            self.state_root,
            self.sum_locked,
            self.sum_credit,
            self.guaranteed_ack,
            self.count,
            self.data_hash,
        )
    }
}
