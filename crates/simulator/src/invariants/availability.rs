//! Nothing expires early, and nothing is locked while an expiry of its partition is due: as if expiry were instantaneous.

use std::collections::{BTreeMap, BTreeSet};

use surety_protocol::{
    ALL_CAPTURES, ChangeBody, Code, Flags, Id, Kind, LockBody, PartitionHandle, Record, TenantId, Time,
};

use super::{Violation, hold};

const NAME: &str = "expiry is neither early nor late";

type Key = (TenantId, PartitionHandle, Id);

#[derive(Clone, Debug, Default)]
pub(super) struct Availability {
    deadlines: BTreeMap<Key, Time>,
    due: BTreeSet<(PartitionHandle, Time, Key)>,
}

impl Availability {
    pub(super) fn on_record(&mut self, record: &Record) -> Result<(), Violation> {
        let Some(kind) = record.kind().filter(|_| record.code().is_some_and(Code::is_success)) else {
            return Ok(());
        };
        if matches!(kind, Kind::Lock | Kind::Increase) {
            let from = (record.partition, Time::ZERO, (TenantId(0), PartitionHandle(0), Id(0)));
            let first =
                self.due.range(from..).next().filter(|(partition, ..)| *partition == record.partition);
            hold(NAME, first.is_none_or(|(_, due, _)| *due > record.time), || {
                format!("{first:?} was due before {record:?}")
            })?;
        }
        let own = (record.tenant, record.partition, record.id);
        let other = (record.tenant, record.partition, record.body::<ChangeBody>().lock);
        let is_final = record.flags().has(Flags::FINAL);
        match kind {
            Kind::Lock if !record.flags().has(Flags::SALE) => {
                self.set(own, record.body::<LockBody>().deadline)
            }
            // Not of one that waits for the chain: its time stands still.
            Kind::Increase if self.deadlines.contains_key(&other) => {
                self.set(other, record.body::<ChangeBody>().deadline);
            }
            Kind::Expire => {
                let deadline = self.deadlines.get(&other).copied();
                let is_due = deadline.is_none_or(|deadline| deadline <= record.time);
                hold(NAME, is_due, || format!("{deadline:?} is not over: {record:?}"))?;
                self.end(other);
            }
            Kind::Release | Kind::GuaranteePaid | Kind::GuaranteeCalled => self.end(other),
            Kind::Capture | Kind::Advice if is_final => self.end(other),
            Kind::Settle if record.body::<ChangeBody>().capture == ALL_CAPTURES => self.end(other),
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, key: Key, deadline: Time) {
        self.end(key);
        self.deadlines.insert(key, deadline);
        self.due.insert((key.1, deadline, key));
    }

    fn end(&mut self, key: Key) {
        if let Some(deadline) = self.deadlines.remove(&key) {
            self.due.remove(&(key.1, deadline, key));
        }
    }
}
