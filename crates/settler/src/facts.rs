//! What the engine knows of the chain, as its own stream tells it. Who asks before sending sends nothing twice.

use std::collections::{BTreeMap, BTreeSet};

use settlement::{LockId, Netting};
use surety_protocol::{
    Address, ChangeBody, Code, ControlBody, Kind, PartitionHandle, Record, StakeBody, Time,
};

use crate::codec::{Damaged, Put, Take};

/// What the stream says up to some positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The last batch that was booked, for each partition.
    booked: BTreeMap<PartitionHandle, u64>,
    /// All that has ever left by final batches and guarantees.
    left: BTreeMap<PartitionHandle, u128>,
    /// Deposits and rewards by the chain's number; older ones are forgotten.
    deposits: BTreeMap<(PartitionHandle, u64), (Address, u128)>,
    /// Locks that wait for the chain's verdict.
    called: BTreeSet<LockId>,
    /// Locks that the chain has paid.
    paid: BTreeSet<LockId>,
    /// What it has paid for no lock of ours, by reference.
    losses: BTreeSet<u128>,
}

impl Facts {
    /// Takes the next record.
    pub(crate) fn read(&mut self, record: &Record) {
        let (Some(kind), true) = (record.kind(), record.code().is_some_and(Code::is_success)) else { return };
        let partition = record.partition;
        match kind {
            Kind::BatchFinal => {
                let ControlBody { number, .. } = record.body();
                let booked = self.booked.entry(partition).or_default();
                *booked = number.max(*booked);
                *self.left.entry(partition).or_default() += record.result.0;
            }
            Kind::Deposit | Kind::Reward => {
                let StakeBody { supplier, nonce, .. } = record.body();
                self.deposits.insert((partition, nonce), (supplier, record.amount.0));
            }
            Kind::GuaranteeCalled => _ = self.called.insert(lock_of(record)),
            Kind::GuaranteeDismissed => _ = self.called.remove(&lock_of(record)),
            Kind::GuaranteePaid => {
                let lock = lock_of(record);
                self.called.remove(&lock);
                self.paid.insert(lock);
                *self.left.entry(partition).or_default() += record.amount.0;
            }
            Kind::Deficit => {
                let ControlBody { reference, .. } = record.body();
                if reference != 0 {
                    self.losses.insert(reference);
                    *self.left.entry(partition).or_default() += record.amount.0;
                }
            }
            _ => {}
        }
    }

    /// True if the partition's part of a batch is booked.
    pub(crate) fn is_booked(&self, partition: PartitionHandle, batch: u64) -> bool {
        self.booked.get(&partition).is_some_and(|booked| *booked >= batch)
    }

    /// All that has ever left a partition.
    pub(crate) fn left(&self, partition: PartitionHandle) -> u128 {
        self.left.get(&partition).copied().unwrap_or(0)
    }

    /// Whom a deposit was credited to, and how much; the zero address for a reward.
    pub(crate) fn deposit(&self, partition: PartitionHandle, nonce: u64) -> Option<(Address, u128)> {
        self.deposits.get(&(partition, nonce)).copied()
    }

    /// True if the lock waits for the chain's verdict.
    pub(crate) fn is_called(&self, lock: &LockId) -> bool {
        self.called.contains(lock)
    }

    /// True if the ledger has booked that the chain has paid the lock.
    pub(crate) fn is_paid(&self, lock: &LockId) -> bool {
        self.paid.contains(lock)
    }

    /// True if the ledger has booked a loss with this reference.
    pub(crate) fn is_loss(&self, reference: u128) -> bool {
        self.losses.contains(&reference)
    }

    /// Forgets deposits that nobody will ask for again.
    pub(crate) fn forget_deposits(&mut self, is_wanted: impl Fn(u64) -> bool) {
        self.deposits.retain(|(_, nonce), _| is_wanted(*nonce));
    }

    pub(crate) fn write(&self, to: &mut Put) {
        to.list(self.booked.iter(), |to, (partition, batch)| _ = to.u64(partition.0).u64(*batch));
        to.list(self.left.iter(), |to, (partition, left)| _ = to.u64(partition.0).u128(*left));
        to.list(self.deposits.iter(), |to, ((partition, nonce), (supplier, amount))| {
            to.u64(partition.0).u64(*nonce).raw(&supplier.0).u128(*amount);
        });
        for locks in [&self.called, &self.paid] {
            to.list(locks.iter(), |to, lock| _ = to.raw(&settlement::Word::word(lock)));
        }
        to.list(self.losses.iter(), |to, reference| _ = to.u128(*reference));
    }

    pub(crate) fn take(from: &mut Take<'_>) -> Result<Self, Damaged> {
        let lock = |from: &mut Take<'_>| LockId::from_word(&from.array()?).ok_or(Damaged);
        Ok(Self {
            booked: from.list(|from| Ok((PartitionHandle(from.u64()?), from.u64()?)))?,
            left: from.list(|from| Ok((PartitionHandle(from.u64()?), from.u128()?)))?,
            deposits: from.list(|from| {
                let key = (PartitionHandle(from.u64()?), from.u64()?);
                Ok((key, (Address(from.array()?), from.u128()?)))
            })?,
            called: from.list(lock)?,
            paid: from.list(lock)?,
            losses: from.list(Take::u128)?,
        })
    }
}

fn lock_of(record: &Record) -> LockId {
    let ChangeBody { lock, .. } = record.body();
    LockId { tenant: record.tenant, partition: record.partition, id: lock }
}

/// What has been read since the last batch and is worth one. Records that only repeat what the chain said are not: a batch
/// about the booking of a batch would never end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) records: u64,
    /// When the first of them was read, or when a batch left something over.
    pub(crate) since: Option<Time>,
    pub(crate) is_urgent: bool,
}

impl Waiting {
    /// Behind a batch: what it could not credit waits from then on.
    pub(crate) fn behind_a_batch(netting: &Netting, now: Time) -> Self {
        let since = (netting.publishable() > 0).then_some(now);
        Self { since, ..Self::default() }
    }

    /// Takes the next record; `now` is the settler's clock.
    pub(crate) fn read(&mut self, record: &Record, now: Time) {
        let Some(kind) = record.kind() else { return };
        let answers_exit = kind == Kind::Withdraw && record.body::<StakeBody>().nonce > 0;
        if !answers_exit && !record.code().is_some_and(Code::is_success) || !changes_a_leaf(kind) {
            return;
        }
        self.records += 1;
        self.since.get_or_insert(now);
        self.is_urgent |=
            answers_exit || matches!(kind, Kind::GuaranteeCalled | Kind::GuaranteePaid | Kind::Deficit);
    }
}

const fn changes_a_leaf(kind: Kind) -> bool {
    !matches!(
        kind,
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
}
