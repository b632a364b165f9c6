//! A ledger out of snapshot entries.

use surety_protocol::limits::LOSSES_MAX;
use surety_protocol::{PartitionHandle, Rights, Time};

use crate::entry::Parsed;
use crate::index::Found;
use crate::ledger::{Config, Ledger, SHARD_SLOT, partition_hash};
use crate::lock::{Armed, Capture, Ext, Lock};
use crate::op::{Op, Side};
use crate::partition::Partition;
use crate::slab::NONE;
use crate::state::{Entry, EntryError, EntryKey, EntryKind};

impl Ledger {
    /// A ledger as of `time` from its entries in their order, or from a part of them: all that have no [`Entry::key`], and
    /// those locks and ids that the records to be replayed touch.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_entries(
        config: Config,
        time: Time,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Self, EntryError> {
        let mut ledger = Self::new(config);
        ledger.tick(time);
        for entry in entries {
            ledger.load(&entry)?;
        }
        for slot in 1..u32::try_from(ledger.partitions.len()).unwrap_or(NONE) {
            ledger.watch_queue(slot);
            if ledger.is_payable(slot) {
                ledger.make_ready(slot);
            }
        }
        Ok(ledger)
    }

    fn load(&mut self, entry: &Entry) -> Result<(), EntryError> {
        let kind = entry.kind();
        match entry.parse()? {
            Parsed::Lock { key, lock, ext, captures } => {
                self.load_lock(key, *lock, ext.map(|ext| *ext), &captures)
            }
            Parsed::Op { key, op, side } => self.load_op(key, op, side),
            Parsed::Partition(partition) => self.load_partition(*partition),
            small => {
                let is_new = self.load_small(small, kind)?;
                self.hash_in(entry.hash());
                if is_new { Ok(()) } else { Err(EntryError::Twice(kind)) }
            }
        }
    }

    fn load_partition(&mut self, mut partition: Partition) -> Result<(), EntryError> {
        let is_known = self.partition_slot(partition.handle).is_some()
            || self.partition_names.contains_key(&partition.onchain);
        if is_known {
            return Err(EntryError::Twice(EntryKind::Partition));
        }
        if partition.handle.shard() != self.config.shard {
            return Err(EntryError::Orphan(EntryKind::Partition));
        }
        partition.hash = partition_hash(&partition);
        self.hash_in(partition.hash);
        self.add_partition(partition);
        Ok(())
    }

    /// Loads what needs no more than a place in a table. False if it is there already.
    fn load_small(&mut self, parsed: Parsed, kind: EntryKind) -> Result<bool, EntryError> {
        let orphan = EntryError::Orphan(kind);
        Ok(match parsed {
            Parsed::Tenant(body) => {
                let slot = self.make_tenant(body.tenant);
                let tenant = &mut self.tenants[slot as usize];
                tenant.quotas = body;
                !core::mem::replace(&mut tenant.is_set, true)
            }
            Parsed::Grant { partition, tenant, rights } => {
                let account = self.make_account(tenant, partition).ok_or(orphan)?;
                self.set_rights(account, Rights(rights)) == Rights::default()
            }
            Parsed::Merchant { tenant, body } => {
                self.merchants.insert((tenant.0, body.merchant.0), body).is_none()
            }
            Parsed::Price { asset, quote, price } => self.prices.insert((asset, quote), price).is_none(),
            Parsed::Position { partition, supplier, position } => {
                let partition = self.loaded(partition, orphan)?;
                partition.positions.insert(supplier, position).is_none()
            }
            Parsed::Queued { partition, at, queued } => {
                self.queued += 1;
                let partition = self.loaded(partition, orphan)?;
                let place = partition.queue_front.checked_add(partition.queue.len() as u64);
                partition.queue.push_back(queued);
                place == Some(at)
            }
            Parsed::Nonce { partition, nonce } => self.loaded(partition, orphan)?.nonces.insert(nonce),
            Parsed::Open { partition, tenant, merchant, value } => {
                let account = self.make_account(tenant, partition).ok_or(orphan)?;
                self.open.insert((account, merchant.0), value).is_none()
            }
            Parsed::Loss(loss) => {
                let is_next = self.losses.last().is_none_or(|last| last.after < loss.after);
                self.losses.push(loss);
                is_next && self.losses.len() <= LOSSES_MAX
            }
            Parsed::Unreconciled { partition } => {
                !core::mem::replace(&mut self.loaded(partition, orphan)?.is_unreconciled, true)
            }
            Parsed::Partition(_) | Parsed::Lock { .. } | Parsed::Op { .. } => false,
        })
    }

    fn loaded(&mut self, handle: PartitionHandle, orphan: EntryError) -> Result<&mut Partition, EntryError> {
        // The shard itself has no collateral, so nobody stakes there.
        let slot = self.partition_slot(handle).filter(|slot| *slot != SHARD_SLOT).ok_or(orphan)?;
        Ok(self.partition_mut(slot))
    }

    fn load_lock(
        &mut self,
        key: EntryKey,
        mut lock: Lock,
        ext: Option<Ext>,
        captures: &[Capture],
    ) -> Result<(), EntryError> {
        let account = self.home_account(&key, EntryKind::Lock)?;
        let slot = self.insert_lock(key.id.0, account);
        lock.account = account;
        (lock.ext, lock.captures, lock.armed, lock.count) = (NONE, NONE, Armed::NO, 0);
        lock.ext = ext.map_or(NONE, |ext| self.exts.insert(ext));
        *self.locks.get_mut(slot) = lock;
        for capture in captures {
            self.attach_capture(slot, *capture);
        }
        self.hash_in_lock(slot);
        self.arm_next(slot);
        if self.is_forgettable(self.locks.get(slot)) {
            self.remove_lock(slot);
        }
        Ok(())
    }

    fn load_op(&mut self, key: EntryKey, mut op: Op, side: Option<Side>) -> Result<(), EntryError> {
        op.account = self.home_account(&key, EntryKind::Op)?;
        debug_assert!(side.is_some() == op.memo.has_side(), "a side where the memo says so");
        self.insert_op(op, side);
        Ok(())
    }

    /// The account of a lock or id that is not loaded yet.
    fn home_account(&mut self, key: &EntryKey, kind: EntryKind) -> Result<u32, EntryError> {
        let account = self.make_account(key.tenant, key.partition).ok_or(EntryError::Orphan(kind))?;
        match self.find(account, key.id.0) {
            None => Ok(account),
            Some(Found::Lock(_) | Found::Op(_)) => Err(EntryError::Twice(kind)),
        }
    }
}
