//! What the engine knows of the chain, as its own stream tells it, and what of the stream is worth a batch.

use std::collections::{BTreeMap, BTreeSet};

use settlement::{LockId, Netting};
use surety_protocol::{ChangeBody, Code, ControlBody, Kind, PartitionHandle, Record, StakeBody, Time};

/// Who asks here before sending sends nothing twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The last batch that was booked, for each partition.
    booked: BTreeMap<PartitionHandle, u64>,
    deposits: BTreeSet<(PartitionHandle, u64)>,
    called: BTreeSet<LockId>,
    paid: BTreeSet<LockId>,
    losses: BTreeSet<u128>,
    time: Time,
}

impl Facts {
    pub(super) fn read(&mut self, record: &Record) {
        let Some(kind) = record.kind().filter(|kind| *kind != Kind::Continuation) else { return };
        self.time = self.time.max(record.time);
        if !record.code().is_some_and(Code::is_success) {
            return;
        }
        match kind {
            Kind::BatchFinal => {
                let booked = self.booked.entry(record.partition).or_default();
                *booked = record.body::<ControlBody>().number.max(*booked);
            }
            Kind::Deposit => {
                self.deposits.insert((record.partition, record.body::<StakeBody>().nonce));
            }
            Kind::GuaranteeCalled => _ = self.called.insert(lock_of(record)),
            Kind::GuaranteeDismissed => _ = self.called.remove(&lock_of(record)),
            Kind::GuaranteePaid => {
                self.called.remove(&lock_of(record));
                self.paid.insert(lock_of(record));
            }
            Kind::Deficit => _ = self.losses.insert(record.body::<ControlBody>().reference),
            _ => {}
        }
    }

    pub(super) fn is_booked(&self, partition: PartitionHandle, batch: u64) -> bool {
        self.booked.get(&partition).is_some_and(|booked| *booked >= batch)
    }

    pub(super) fn is_credited(&self, partition: PartitionHandle, nonce: u64) -> bool {
        self.deposits.contains(&(partition, nonce))
    }

    pub(super) fn is_called(&self, lock: &LockId) -> bool {
        self.called.contains(lock)
    }

    pub(super) fn is_paid(&self, lock: &LockId) -> bool {
        self.paid.contains(lock)
    }

    pub(super) fn is_loss(&self, reference: u128) -> bool {
        self.losses.contains(&reference)
    }

    /// The engine's time, by the last record that was read.
    pub(super) const fn time(&self) -> Time {
        self.time
    }
}

pub(super) fn lock_of(record: &Record) -> LockId {
    LockId { tenant: record.tenant, partition: record.partition, id: record.body::<ChangeBody>().lock }
}

/// What was read since the last batch. What only repeats the chain is worth no batch, or batches about batches would never end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    pub(super) records: u64,
    pub(super) since: Option<Time>,
    pub(super) is_urgent: bool,
}

impl Waiting {
    /// Behind a batch: what it could not credit waits from then on.
    pub(super) fn behind_a_batch(netting: &Netting, now: Time) -> Self {
        let since = (netting.publishable() > 0).then_some(now);
        Self { since, ..Self::default() }
    }

    pub(super) fn read(&mut self, record: &Record, now: Time) {
        let changes_leaves = !matches!(
            record.kind(),
            None | Some(
                Kind::Lookup
                    | Kind::BatchFinal
                    | Kind::RiskCap
                    | Kind::Price
                    | Kind::Freeze
                    | Kind::Unfreeze
                    | Kind::Reconcile
                    | Kind::Policy
                    | Kind::Grant
                    | Kind::TenantSet
                    | Kind::Start
                    | Kind::Loss
                    | Kind::Checkpoint
                    | Kind::Continuation
            )
        );
        if !changes_leaves || !record.code().is_some_and(Code::is_success) {
            return;
        }
        self.records += 1;
        self.since.get_or_insert(now);
        self.is_urgent |=
            matches!(record.kind(), Some(Kind::GuaranteeCalled | Kind::GuaranteePaid | Kind::Deficit));
    }
}
