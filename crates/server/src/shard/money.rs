//! A shard's money by asset, for the metrics: added up a few partitions at a time, so that no request waits for it.

use std::collections::BTreeMap;

use ledger::{Ledger, Totals};
use parking_lot::Mutex;
use surety_protocol::{AssetId, PartitionHandle};

/// Partitions that are looked at in one step: some tens of microseconds.
const PARTITIONS_PER_STEP: usize = 256;

/// What the partitions of one asset hold together, in its base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) free: u128,
    pub(crate) held: u128,
    pub(crate) captured: u128,
    pub(crate) pending: u128,
    pub(crate) owed: u128,
    pub(crate) deficit: u128,
    pub(crate) exposure: u128,
    pub(crate) partitions: u64,
    pub(crate) frozen: u64,
    pub(crate) unreconciled: u64,
}

impl Holdings {
    /// Each state that collateral can be in, by its name.
    pub(crate) const fn states(&self) -> [(&'static str, u128); 7] {
        [
            ("free", self.free),
            ("held", self.held),
            ("captured", self.captured),
            ("pending", self.pending),
            ("owed", self.owed),
            ("deficit", self.deficit),
            ("exposure", self.exposure),
        ]
    }

    fn add(&mut self, totals: &Totals) {
        let parts = [
            (&mut self.free, totals.free),
            (&mut self.held, totals.held),
            (&mut self.captured, totals.captured),
            (&mut self.pending, totals.pending),
            (&mut self.owed, totals.owed),
            (&mut self.deficit, totals.deficit),
            (&mut self.exposure, totals.exposure),
        ];
        for (sum, part) in parts {
            *sum = sum.saturating_add(part);
        }
        self.partitions += 1;
        self.frozen += u64::from(totals.is_frozen);
        self.unreconciled += u64::from(totals.is_unreconciled);
    }
}

/// The sums of the last whole pass, as other threads read them.
#[derive(Debug, Default)]
pub(crate) struct MoneyGauges(Mutex<BTreeMap<AssetId, Holdings>>);

impl MoneyGauges {
    pub(crate) fn read(&self) -> BTreeMap<AssetId, Holdings> {
        self.0.lock().clone()
    }
}

/// A pass over the partitions that is under way. Those that change meanwhile are counted as they are when it comes to them: the sums
/// are for watching, not for accounts.
#[derive(Debug)]
pub(super) struct MoneyScan {
    after: PartitionHandle,
    sums: BTreeMap<AssetId, Holdings>,
}

impl MoneyScan {
    pub(super) const fn new() -> Self {
        Self { after: PartitionHandle(0), sums: BTreeMap::new() }
    }

    /// Looks at the next partitions, and shows the sums after the last. Says how many of them break `K + D = F + H + U + P + W`.
    pub(super) fn step(&mut self, ledger: &Ledger, gauges: &MoneyGauges) -> u64 {
        let (mut seen, mut violations) = (0, 0);
        for totals in ledger.partitions_after(self.after).take(PARTITIONS_PER_STEP) {
            self.sums.entry(totals.asset).or_default().add(&totals);
            violations += u64::from(!totals.is_balanced());
            self.after = totals.handle;
            seen += 1;
        }
        if seen < PARTITIONS_PER_STEP {
            *gauges.0.lock() = std::mem::take(&mut self.sums);
            self.after = PartitionHandle(0);
        }
        violations
    }
}
