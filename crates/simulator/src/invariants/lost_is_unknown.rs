//! Of what a lost life has decided nothing definite is ever said again: neither that it was done nor that it was not.

use std::collections::BTreeSet;

use surety_protocol::{ChangeBody, Code, Id, Kind, Origin, PartitionHandle, Record, Reply, TenantId};

use super::{Violation, hold};

const NAME: &str = "what is lost is unknown";

#[derive(Clone, Debug, Default)]
pub(super) struct LostIsUnknown {
    /// Requests that the life has decided which is lost: an id of theirs may be another's elsewhere, so with their kind.
    lost: BTreeSet<(Id, u8)>,
    /// Locks that it has made of advices, under whatever id.
    locks: BTreeSet<Name>,
}

type Name = (TenantId, PartitionHandle, Id);

impl LostIsUnknown {
    /// These records are lost; `kept` ids were spent before by something that is kept, which is definite.
    pub(super) fn on_loss(&mut self, lost: &[Record], kept: &[Record]) {
        let is_request = |record: &&Record| {
            record.kind().is_some_and(|kind| {
                !matches!(kind.origin(), Origin::Engine | Origin::Part) && kind != Kind::Lookup
            })
        };
        let spent: BTreeSet<Id> = kept.iter().flat_map(named).collect();
        let ids = lost.iter().filter(is_request).map(|record| (record.id, record.kind));
        self.lost.extend(ids.filter(|(id, _)| !spent.contains(id)));
        let is_advice = |record: &&Record| record.kind() == Some(Kind::Advice);
        let locks = lost.iter().filter(is_advice).map(name_of);
        self.locks.extend(locks.filter(|(_, _, lock)| !spent.contains(lock)));
    }

    pub(super) fn on_record(&self, record: &Record) -> Result<(), Violation> {
        hold(NAME, !self.lost.contains(&(record.id, record.kind)), || format!("executed: {record:?}"))?;
        // Nothing but that somebody has told of it: exposure.
        let is_told = record.kind() == Some(Kind::Advice) && record.result.0 == 0;
        hold(NAME, is_told || !self.is_of_a_lost_lock(record), || format!("decided: {record:?}"))
    }

    /// What the chain says of a lock is true whether or not it is lost.
    fn is_of_a_lost_lock(&self, record: &Record) -> bool {
        let is_change =
            record.kind().is_some_and(|kind| kind.changes_a_lock() && kind.origin() != Origin::Chain);
        is_change && self.locks.contains(&name_of(record))
    }

    pub(super) fn on_reply(&self, reply: &Reply) -> Result<(), Violation> {
        let is_lost = self.lost.contains(&(reply.id, reply.kind));
        // What makes no sense, and what a certificate never allowed, was not executed before either.
        let says_nothing = matches!(
            reply.code(),
            Code::UnknownAfterRestore | Code::Malformed | Code::TooLarge | Code::NoRight
        );
        hold(NAME, !is_lost || says_nothing, || format!("{reply:?}"))
    }
}

/// The id of a record, and that of what it is about.
fn named(record: &Record) -> impl Iterator<Item = Id> + use<> {
    let kind = record.kind();
    let about = kind.filter(|kind| kind.changes_a_lock() || matches!(kind, Kind::Consume | Kind::Lookup));
    [Some(record.id), about.map(|_| record.body::<ChangeBody>().lock)].into_iter().flatten()
}

/// The lock that a change is about.
fn name_of(record: &Record) -> Name {
    (record.tenant, record.partition, record.body::<ChangeBody>().lock)
}
