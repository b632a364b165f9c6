//! What the chain holds of a partition, and what is under way between chain and ledger, is what the ledger says. No batch credits
//! more than the ledger owes.

use std::collections::BTreeSet;

use ledger::Totals;
use settlement::{Hash, LockId, Word, loss_reference};
use surety_protocol::{ChangeBody, ControlBody, Kind, PartitionHandle, Record};

use super::credited_once::CreditedOnce;
use super::{Violation, hold};
use crate::chain::{Event, State};

const NAME: &str = "chain and ledger hold the same";

#[derive(Clone, Debug, Default)]
pub(super) struct Conservation {
    /// Parts of batches that the engine has booked.
    booked: BTreeSet<(PartitionHandle, u64)>,
    /// Guarantees that it has booked, on a lock or as a loss.
    paid: BTreeSet<LockId>,
    lost: BTreeSet<u128>,
}

impl Conservation {
    /// A record of the synced log, which succeeded.
    pub(super) fn on_record(&mut self, kind: Kind, record: &Record) -> Result<(), Violation> {
        let control: ControlBody = record.body();
        let is_first = match kind {
            Kind::BatchFinal => self.booked.insert((record.partition, control.number)),
            Kind::GuaranteePaid => self.paid.insert(LockId {
                tenant: record.tenant,
                partition: record.partition,
                id: record.body::<ChangeBody>().lock,
            }),
            Kind::Deficit => self.lost.insert(control.reference),
            _ => true,
        };
        hold(NAME, is_first, || format!("booked again: {record:?}"))
    }

    /// Holds one partition's totals against the newest block.
    pub(super) fn check(
        &self,
        (onchain, totals): (Hash, &Totals),
        state: &State,
        events: &[Event],
        credited: &CreditedOnce,
    ) -> Result<(), Violation> {
        let (mut comes, mut goes, mut guaranteed) = (0_u128, 0_u128, 0_u128);
        for event in events {
            match event {
                Event::Supplied { partition, amount, nonce, .. }
                    if *partition == onchain && !credited.is_credited(*nonce) =>
                {
                    comes += amount;
                }
                Event::Committed(applied) if !self.booked.contains(&(totals.handle, applied.head.seq)) => {
                    goes += applied.credits.get(&onchain).copied().unwrap_or(0);
                }
                Event::Paid { lock, partition, amount } if *partition == onchain && !self.is_booked(lock) => {
                    guaranteed += amount;
                }
                _ => {}
            }
        }
        let holding = state.partitions.get(&onchain).copied().unwrap_or_default();
        let held = holding.balance + holding.claimed + goes + guaranteed;
        let said = totals.on_chain + holding.credited + comes;
        hold(NAME, held == said, || {
            format!(
                "{holding:?} with {goes} and {guaranteed} not booked and {comes} not credited, against {totals:?}"
            )
        })?;
        hold(NAME, goes <= totals.owed, || format!("batches credit {goes}, not booked, against {totals:?}"))
    }

    fn is_booked(&self, lock: &LockId) -> bool {
        self.paid.contains(lock) || self.lost.contains(&loss_reference(&lock.word()))
    }
}
