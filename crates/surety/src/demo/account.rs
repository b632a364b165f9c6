//! What one source says about the money: every lock, and every partition's sums.

use std::collections::{BTreeMap, HashMap};

use surety_protocol::{End, Id, PartitionHandle};

/// A lock as one source sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LockView {
    /// How it has ended.
    pub(crate) end: End,
    /// What is guaranteed: captured, and what may still be.
    pub(crate) total: u128,
    /// What it still holds.
    pub(crate) remaining: u128,
}

/// A partition's sums as one source sees them. What a source cannot know is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Free.
    pub(crate) free: Option<u128>,
    /// Held by live locks.
    pub(crate) held: Option<u128>,
    /// Ever captured, and not reversed.
    pub(crate) captured: Option<u128>,
    /// Captured, the payer's asset not final.
    pub(crate) unsettled: Option<u128>,
    /// Ever consumed: owed to merchants, or paid to them.
    pub(crate) consumed: Option<u128>,
    /// Ever supplied: what is left and what was consumed, so it is told and not compared.
    pub(crate) supplied: Option<u128>,
    /// Supplied and not consumed.
    pub(crate) left: Option<u128>,
    /// Held under the certificate that is enforced once the engine is gone.
    pub(crate) enforced: Option<u128>,
}

/// Everything that one source says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// By id.
    pub(crate) locks: HashMap<Id, LockView>,
    /// By handle.
    pub(crate) partitions: BTreeMap<PartitionHandle, Sums>,
}

impl Sums {
    /// The sums by their names.
    pub(crate) const fn named(&self) -> [(&'static str, Option<u128>); 7] {
        [
            ("free", self.free),
            ("held", self.held),
            ("captured", self.captured),
            ("unsettled", self.unsettled),
            ("consumed", self.consumed),
            ("left", self.left),
            ("enforced", self.enforced),
        ]
    }
}
