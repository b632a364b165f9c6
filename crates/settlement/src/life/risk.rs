//! Value at risk: what the engine has promised beyond what the chain has been told.

use alloc::collections::BTreeMap;

use crate::data::BatchData;
use crate::hash::Hash;

/// What the last included root covers, for each partition by its on-chain id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<Hash, (u128, u128)>);

impl Coverage {
    /// Takes the data of the next included batch. After a reorg begin again from what is final.
    pub fn include(&mut self, data: &BatchData) {
        for leaf in &data.partitions {
            self.0.insert(leaf.partition, (leaf.locked, leaf.debit));
        }
    }

    /// The cap for the ledger's `H + U + P + W` of a partition: what is covered, and `allowance` beyond it. `left` is all that has ever
    /// left the ledger's W and K by final batches and guarantees. It reaches the ledger as a record with an expiry, so that a
    /// silent settler stops new locks by itself.
    #[must_use]
    pub fn cap(&self, partition: &Hash, left: u128, allowance: u128) -> u128 {
        let (locked, debit) = self.0.get(partition).copied().unwrap_or_default();
        locked.saturating_add(debit.saturating_sub(left)).saturating_add(allowance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::PartitionLeaf;

    #[test]
    fn a_cap_is_what_is_covered_and_an_allowance() {
        let leaf = PartitionLeaf { partition: [1; 32], locked: 100, debit: 30, ..PartitionLeaf::default() };
        let mut coverage = Coverage::default();
        assert_eq!(coverage.cap(&[1; 32], 0, 50), 50);
        coverage.include(&BatchData { partitions: alloc::vec![leaf], ..BatchData::default() });
        // 30 are owed and on chain, of which the ledger has booked 20.
        assert_eq!(coverage.cap(&[1; 32], 20, 50), 160);
        assert_eq!(coverage.cap(&[2; 32], 0, 50), 50);
    }
}
