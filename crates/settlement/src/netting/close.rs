//! Closing a batch: what has changed, and who is credited how much.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use surety_protocol::PartitionHandle;

use super::{Netting, PayeeKey, Supplier};
use crate::data::BatchData;
use crate::hash::keccak;
use crate::leaf::{ConsumedLeaf, PartitionLeaf, PayeeLeaf, SupplierLeaf};

/// What a batch changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    pub(crate) data: BatchData,
    pub(crate) count: u32,
    /// What the batch credits, for each partition: the ledger books it when the batch is final.
    pub(crate) finals: Vec<(PartitionHandle, u128)>,
    pub(crate) guaranteed: u128,
}

impl Netting {
    /// Takes what has changed since the last batch, with at most `credit_max` of new credit; the rest is carried over, and
    /// what was carried over before comes first.
    pub(crate) fn close(&mut self, credit_max: u128) -> Net {
        let payees = self.publish(credit_max);
        let mut finals: BTreeMap<PartitionHandle, u128> = BTreeMap::new();
        for ((handle, _), amount) in &payees {
            *finals.entry(*handle).or_default() += amount;
            self.changed_partitions.insert(*handle);
        }
        self.forget_ended();
        let mut data = BatchData {
            positions: self.positions.clone(),
            partitions: core::mem::take(&mut self.changed_partitions)
                .iter()
                .map(|handle| self.partition_leaf(*handle))
                .collect(),
            payees: payees.keys().map(|key| self.payee_leaf(*key)).collect(),
            suppliers: core::mem::take(&mut self.changed_suppliers)
                .iter()
                .map(|key| self.supplier_leaf(*key))
                .collect(),
            consumed: self.consumed(),
        };
        data.partitions.sort_by_key(|leaf| leaf.partition);
        data.payees.sort_by_key(|leaf| (leaf.partition, leaf.payee));
        data.suppliers.sort_by_key(|leaf| (leaf.partition, leaf.supplier));
        data.consumed.sort_by_key(|leaf| leaf.lock);
        Net {
            data,
            count: core::mem::take(&mut self.count),
            finals: finals.into_iter().collect(),
            guaranteed: self.partitions.values().map(|partition| partition.guaranteed).sum(),
        }
    }

    /// Credits what is owed, as far as the limit reaches. Returns who got what.
    fn publish(&mut self, credit_max: u128) -> BTreeMap<PayeeKey, u128> {
        let mut left = credit_max;
        let mut credited = BTreeMap::new();
        if self.pay_carried(&mut left, &mut credited) {
            self.carried = core::mem::take(&mut self.fresh);
            self.pay_carried(&mut left, &mut credited);
        }
        credited
    }

    /// Credits those who were carried over, in order. True if all of them got everything.
    fn pay_carried(&mut self, left: &mut u128, credited: &mut BTreeMap<PayeeKey, u128>) -> bool {
        while let Some(key) = self.carried.first().copied() {
            let payee = self.payees.entry(key).or_default();
            let amount = payee.owed.min(*left);
            if amount > 0 {
                *left -= amount;
                payee.owed -= amount;
                payee.credit += amount;
                *credited.entry(key).or_default() += amount;
                let is_paid = payee.owed == 0;
                let partition = self.partition(key.0);
                partition.unpublished -= amount;
                partition.credited += amount;
                if !is_paid {
                    return false;
                }
            } else if payee.owed > 0 {
                return false;
            }
            self.carried.pop_first();
        }
        true
    }

    fn partition_leaf(&self, handle: PartitionHandle) -> PartitionLeaf {
        let id = self.onchain(handle);
        let partition = self.partitions.get(&handle).copied().unwrap_or_default();
        PartitionLeaf {
            partition: id,
            locked: partition.money.locked + partition.unpublished,
            debit: partition.credited + partition.guaranteed,
            exits: partition.exits,
            exit_nonce: partition.exit_nonce,
            units: partition.units,
            salt: keccak(&[&self.config.salt_key, &id]),
        }
    }

    fn payee_leaf(&self, key: PayeeKey) -> PayeeLeaf {
        let credit = self.payees.get(&key).map_or(0, |payee| payee.credit);
        PayeeLeaf { partition: self.onchain(key.0), payee: key.1, credit }
    }

    fn supplier_leaf(&self, key: PayeeKey) -> SupplierLeaf {
        let Supplier { units, paid_out, .. } = self.suppliers.get(&key).copied().unwrap_or_default();
        SupplierLeaf { partition: self.onchain(key.0), supplier: key.1, units, paid_out }
    }

    /// What was consumed of a lock counts as paid once nothing is owed to its payee beyond what is published.
    fn consumed(&mut self) -> Vec<ConsumedLeaf> {
        let mut leaves = Vec::new();
        for (lock, kept) in self.book.certified.iter_mut().filter(|(_, kept)| kept.consumed > 0) {
            let payee = kept.newest.payee;
            if self.payees.get(&(lock.partition, payee)).is_none_or(|payee| payee.owed == 0) {
                kept.credited = kept.consumed;
            }
            if kept.credited > 0 {
                let (partition, amount) = (kept.newest.partition, kept.credited);
                leaves.push(ConsumedLeaf { lock: *lock, partition, payee, amount });
            }
        }
        leaves
    }
}
