//! Pages of the state, in the rows of the wire: what partitions, suppliers, withdrawals and tenants are like now.

use alloc::vec::Vec;

use surety_protocol::{
    Address, Amount, PartitionHandle, PartitionRow, StateKind, StateQuery, SupplierRow, TenantId, TenantRow,
    Time, WithdrawalRow,
};

use crate::ledger::Ledger;
use crate::read::totals;
use crate::state::Totals;

/// The rows of a page, and whether there are more behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<R> {
    /// In the order of their keys.
    pub rows: Vec<R>,
    /// True if there are more.
    pub has_more: bool,
}

impl<R> Page<R> {
    fn take(limit: usize, mut rows: impl Iterator<Item = R>) -> Self {
        let page = rows.by_ref().take(limit).collect();
        Self { rows: page, has_more: rows.next().is_some() }
    }

    const fn empty() -> Self {
        Self { rows: Vec::new(), has_more: false }
    }
}

impl Ledger {
    /// Partitions by handle: all, or those that a tenant may read. A page costs no more than its rows.
    #[must_use]
    pub fn partition_rows(&self, query: &StateQuery, reader: Option<TenantId>) -> Page<PartitionRow> {
        let limit = limit(query, StateKind::Partitions);
        let row = |slot: u32| PartitionRow::from(&totals(&self.partitions[slot as usize]));
        match reader {
            None => {
                let asked = self.partition_order.range(query.partition..);
                Page::take(limit, asked.map(|(_, slot)| row(*slot)))
            }
            Some(tenant) => {
                let asked = self.readable.range((tenant, query.partition)..);
                let own = asked.take_while(|(of, _)| *of == tenant);
                Page::take(limit, own.filter_map(|(_, handle)| self.partition_slot(*handle)).map(row))
            }
        }
    }

    /// True if a tenant may read a partition.
    #[must_use]
    pub fn may_read(&self, tenant: TenantId, partition: PartitionHandle) -> bool {
        self.readable.contains(&(tenant, partition))
    }

    /// Suppliers of a partition, by address; none of one that is not there.
    #[must_use]
    pub fn supplier_rows(&self, query: &StateQuery) -> Page<SupplierRow> {
        let Some(partition) = self.known(query.partition) else { return Page::empty() };
        let row = |(supplier, position): (&Address, &crate::partition::Position)| SupplierRow {
            units: Amount(position.units),
            queued: Amount(position.queued),
            value: Amount(partition.value_of(position.units)),
            supplier: *supplier,
            reserved: [0; _],
        };
        let asked = partition.positions.range(query.supplier..);
        Page::take(limit(query, StateKind::Suppliers), asked.map(row))
    }

    /// Queued withdrawals of a partition, oldest first; none of one that is not there.
    #[must_use]
    pub fn withdrawal_rows(&self, query: &StateQuery) -> Page<WithdrawalRow> {
        let Some(partition) = self.known(query.partition) else { return Page::empty() };
        let passed = query.position.saturating_sub(partition.queue_front);
        let first = usize::try_from(passed).unwrap_or(usize::MAX).min(partition.queue.len());
        let row = |(position, queued): (u64, &crate::partition::Queued)| WithdrawalRow {
            id: queued.id,
            units: Amount(queued.units),
            due: queued.due,
            position,
            supplier: queued.supplier,
            reserved: [0; _],
        };
        let asked = (partition.queue_front + first as u64..).zip(partition.queue.range(first..));
        Page::take(limit(query, StateKind::Withdrawals), asked.map(row))
    }

    /// Tenants that were set or have something, by number: all, or one alone.
    #[must_use]
    pub fn tenant_rows(&self, query: &StateQuery, reader: Option<TenantId>) -> Page<TenantRow> {
        let states = match reader {
            None => self.tenants(),
            Some(tenant) => self.tenant(tenant).into_iter().collect(),
        };
        let rows = states.into_iter().map(|state| TenantRow {
            quotas: state.quotas,
            locks: state.locks,
            ids: state.ids,
            tombstones: state.tombstones,
            advices: state.advices,
            open_locks: state.open_locks,
            reserved: [0; _],
        });
        let asked = rows.filter(|row| row.quotas.tenant >= query.tenant);
        Page::take(limit(query, StateKind::Tenants), asked)
    }
}

fn limit(query: &StateQuery, kind: StateKind) -> usize {
    match query.limit {
        0 => kind.rows_max(),
        limit => usize::try_from(limit).unwrap_or(usize::MAX).min(kind.rows_max()),
    }
}

impl From<&Totals> for PartitionRow {
    fn from(totals: &Totals) -> Self {
        let (cap, cap_until) = totals.risk_cap.unwrap_or_default();
        Self {
            partition: totals.handle,
            onchain: totals.onchain,
            collateral: Amount(totals.on_chain),
            deficit: Amount(totals.deficit),
            free: Amount(totals.free),
            held: Amount(totals.held),
            captured: Amount(totals.captured),
            pending: Amount(totals.pending),
            owed: Amount(totals.owed),
            exposure: Amount(totals.exposure),
            units: Amount(totals.units),
            units_queued: Amount(totals.units_queued),
            fees: Amount(totals.fees),
            cap: Amount(cap),
            cap_until,
            batch: totals.batch,
            policy_seq: totals.policy_seq,
            asset: totals.asset,
            generation: totals.generation,
            frozen: u8::from(totals.is_frozen),
            track_merchants: u8::from(totals.tracks_merchants),
            unreconciled: u8::from(totals.is_unreconciled),
            reserved: [0; _],
            policy: totals.policy,
        }
    }
}

impl From<&PartitionRow> for Totals {
    fn from(row: &PartitionRow) -> Self {
        Self {
            handle: row.partition,
            onchain: row.onchain,
            asset: row.asset,
            on_chain: row.collateral.0,
            deficit: row.deficit.0,
            free: row.free.0,
            held: row.held.0,
            captured: row.captured.0,
            pending: row.pending.0,
            owed: row.owed.0,
            exposure: row.exposure.0,
            units: row.units.0,
            units_queued: row.units_queued.0,
            generation: row.generation,
            fees: row.fees.0,
            is_frozen: row.frozen == 1,
            is_unreconciled: row.unreconciled == 1,
            tracks_merchants: row.track_merchants == 1,
            risk_cap: (row.cap_until != Time::ZERO).then_some((row.cap.0, row.cap_until)),
            batch: row.batch,
            policy: row.policy,
            policy_seq: row.policy_seq,
        }
    }
}
