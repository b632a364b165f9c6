//! Looking at a ledger: for tools, status pages and tests.

use alloc::vec::Vec;
use core::ops::Bound;

use surety_protocol::{
    Address, End, Id, MerchantBody, MerchantId, MerchantKey, PartitionHandle, Record, Rights, TenantId,
};

use crate::decide::lock_named;
use crate::index::Found;
use crate::ledger::Ledger;
use crate::lock::flag;
use crate::partition::Partition;
use crate::slab::NONE;
use crate::state::{CaptureState, LockState, QueuedState, SupplierState, TenantState, Totals};

impl Ledger {
    /// Every partition's money, by handle.
    #[must_use]
    pub fn partitions(&self) -> Vec<Totals> {
        let mut all: Vec<Totals> = self.partitions.iter().skip(1).map(totals).collect();
        all.sort_unstable_by_key(|totals| totals.handle);
        all
    }

    /// The money of the partitions behind a handle, by handle: for whoever adds up many, a few at a time.
    pub fn partitions_after(&self, handle: PartitionHandle) -> impl Iterator<Item = Totals> {
        let later = (Bound::Excluded(handle), Bound::Unbounded);
        self.partition_order.range(later).map(|(_, slot)| totals(&self.partitions[*slot as usize]))
    }

    /// Locks that are neither finished nor expired.
    #[must_use]
    pub const fn live_locks(&self) -> usize {
        self.live
    }

    /// Locks that have ended by their deadline since this ledger was made, those of a log that it has replayed included.
    #[must_use]
    pub const fn expired_locks(&self) -> u64 {
        self.expired
    }

    /// One partition's money.
    #[must_use]
    pub fn partition(&self, handle: PartitionHandle) -> Option<Totals> {
        self.known(handle).map(totals)
    }

    /// One lock.
    #[must_use]
    pub fn lock(&self, tenant: TenantId, partition: PartitionHandle, id: Id) -> Option<LockState> {
        let account = self.account_slot(tenant, partition)?;
        match self.find(account, id.0)? {
            Found::Lock(slot) => Some(self.lock_state(slot)),
            Found::Op(_) => None,
        }
    }

    /// How an id has ended, as far as it is remembered.
    #[must_use]
    pub fn end(&self, tenant: TenantId, partition: PartitionHandle, id: Id) -> End {
        let found = self.account_slot(tenant, partition).and_then(|account| self.find(account, id.0));
        match found {
            Some(Found::Lock(slot)) => self.locks.get(slot).end,
            Some(Found::Op(slot)) => self.end_of_op(self.ops.get(slot)),
            None => End::None,
        }
    }

    /// A partition's suppliers, by address.
    #[must_use]
    pub fn suppliers(&self, partition: PartitionHandle) -> Vec<SupplierState> {
        let Some(partition) = self.known(partition) else { return Vec::new() };
        let state = |(supplier, position): (&_, &crate::partition::Position)| SupplierState {
            supplier: *supplier,
            units: position.units,
            queued: position.queued,
            value: partition.value_of(position.units),
        };
        partition.positions.iter().map(state).collect()
    }

    /// One of them.
    #[must_use]
    pub fn supplier(&self, partition: PartitionHandle, supplier: &Address) -> Option<SupplierState> {
        let partition = self.known(partition)?;
        let position = partition.positions.get(supplier)?;
        let value = partition.value_of(position.units);
        Some(SupplierState { supplier: *supplier, units: position.units, queued: position.queued, value })
    }

    /// A partition's queued withdrawals, oldest first.
    #[must_use]
    pub fn queued(&self, partition: PartitionHandle) -> Vec<QueuedState> {
        let Some(partition) = self.known(partition) else { return Vec::new() };
        let state = |queued: &crate::partition::Queued| QueuedState {
            id: queued.id,
            supplier: queued.supplier,
            units: queued.units,
            due: queued.due,
        };
        partition.queue.iter().map(state).collect()
    }

    /// The tenants that were set or have something, by number.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantState> {
        let mut all: Vec<TenantState> = self.tenants.iter().map(tenant_state).collect();
        all.sort_unstable_by_key(|tenant| tenant.quotas.tenant);
        all
    }

    /// One of them.
    #[must_use]
    pub fn tenant(&self, tenant: TenantId) -> Option<TenantState> {
        let slot = self.tenant_slots.get(&tenant.0)?;
        Some(tenant_state(&self.tenants[*slot as usize]))
    }

    /// A tenant's rights on a partition.
    #[must_use]
    pub fn rights(&self, partition: PartitionHandle, tenant: TenantId) -> Rights {
        self.account_slot(tenant, partition).map_or(Rights::default(), |slot| self.account(slot).rights)
    }

    /// A merchant as set.
    #[must_use]
    pub fn merchant(&self, key: MerchantKey) -> Option<MerchantBody> {
        self.merchants.get(&(key.tenant.0, key.merchant.0)).copied()
    }

    /// What a merchant has open in a partition that tracks it, in base units.
    #[must_use]
    pub fn merchant_open(&self, partition: PartitionHandle, key: MerchantKey) -> u128 {
        self.account_slot(key.tenant, partition)
            .and_then(|account| self.open.get(&(account, key.merchant.0)).copied())
            .unwrap_or(0)
    }

    /// Locks kept.
    #[must_use]
    pub const fn locks_len(&self) -> usize {
        self.locks.len()
    }

    /// Ids remembered.
    #[must_use]
    pub const fn ids_len(&self) -> usize {
        self.ops.len()
    }

    /// Bytes that the ledger's tables take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self.locks.memory_bytes()
            + self.exts.memory_bytes()
            + self.captures.memory_bytes()
            + self.ops.memory_bytes()
            + self.sides.memory_bytes()
            + self.nodes.memory_bytes()
            + self.lock_ring.memory_bytes()
            + self.op_ring.memory_bytes()
            + self.partitions.capacity() * size_of::<Partition>()
            + self.open.allocation_size()
            + self.merchants.allocation_size()
    }

    /// Where a request will look into the index. Its partition is on its way by then.
    pub(crate) fn index_keys(&self, record: &Record) -> [Option<u64>; 2] {
        let Some(kind) = record.kind() else { return [None; 2] };
        let Some(account) = self.account_slot(record.tenant, record.partition) else { return [None; 2] };
        memory::prefetch(&self.partitions[self.account(account).partition as usize]);
        let hash = |id: u128| self.index.hash(account, id);
        [Some(hash(record.id.0)), lock_named(kind, record).map(|lock| hash(lock.0))]
    }

    /// Brings the entry into the cache to which the index leads, as far as it tells without reading it.
    pub(crate) fn prefetch_entry(&self, hash: u64) {
        match self.index.find(hash, |_| true) {
            Some(Found::Lock(slot)) => memory::prefetch(self.locks.get(slot)),
            Some(Found::Op(slot)) => memory::prefetch(self.ops.get(slot)),
            None => {}
        }
    }

    /// Slots of all locks.
    pub(crate) fn lock_slots(&self) -> impl Iterator<Item = u32> {
        (0..self.locks.slots()).filter(|slot| self.locks.get(*slot).end != End::None)
    }

    /// Slots of all remembered ids. The index tells them from free slots.
    pub(crate) fn op_slots(&self) -> impl Iterator<Item = u32> {
        (0..self.ops.slots()).filter(|slot| {
            let op = self.ops.get(*slot);
            self.find(op.account, op.id()) == Some(Found::Op(*slot))
        })
    }

    pub(crate) fn known(&self, handle: PartitionHandle) -> Option<&Partition> {
        let slot = self.partition_slot(handle).filter(|_| handle.number() != 0)?;
        Some(&self.partitions[slot as usize])
    }

    fn lock_state(&self, slot: u32) -> LockState {
        let lock = self.locks.get(slot);
        let ext = if lock.ext == NONE { crate::lock::Ext::default() } else { *self.exts.get(lock.ext) };
        let mut captures: Vec<CaptureState> = self
            .capture_slots(lock)
            .map(|slot| {
                let capture = self.captures.get(slot);
                CaptureState {
                    index: u16::from(capture.index),
                    open: capture.open,
                    settled: capture.settled,
                    refunded: capture.refunded,
                    consumed: capture.consumed,
                    settle_by: capture.settle_by,
                }
            })
            .collect();
        captures.reverse();
        let key = self.entry_key(lock.account, lock.id);
        LockState {
            id: key.id,
            tenant: key.tenant,
            partition: key.partition,
            merchant: MerchantId(lock.merchant.0),
            end: lock.end,
            code: lock.code,
            version: self.version(lock),
            deadline: lock.deadline,
            seq: lock.seq,
            approved: lock.approved,
            headroom: ext.headroom,
            captured: lock.captured,
            released: lock.released,
            expired: lock.expired(ext.headroom),
            remaining: lock.remaining(ext.headroom),
            pending: ext.pending,
            is_certified: lock.has(flag::CERTIFIED),
            is_called: lock.has(flag::CALLED),
            captures,
        }
    }
}

const fn tenant_state(tenant: &crate::ledger::Tenant) -> TenantState {
    TenantState {
        quotas: tenant.quotas,
        locks: tenant.locks,
        ids: tenant.ids,
        tombstones: tenant.tombstones,
        advices: tenant.advices,
        open_locks: tenant.open_locks,
    }
}

pub(crate) fn totals(partition: &Partition) -> Totals {
    let money = partition.money;
    Totals {
        handle: partition.handle,
        onchain: partition.onchain,
        asset: partition.asset,
        on_chain: money.on_chain,
        deficit: money.deficit,
        free: money.free,
        held: money.held,
        captured: money.captured,
        pending: money.pending,
        owed: money.owed,
        exposure: money.exposure,
        units: partition.units,
        units_queued: partition.units_queued(),
        generation: partition.generation,
        fees: partition.fees,
        is_frozen: partition.stops_locks(),
        is_unreconciled: partition.is_unreconciled,
        tracks_merchants: partition.tracks_merchants,
        risk_cap: (partition.cap_until.0 != 0).then_some((partition.cap, partition.cap_until)),
        batch: partition.batch,
        policy: partition.policy,
        policy_seq: partition.policy_seq,
    }
}
