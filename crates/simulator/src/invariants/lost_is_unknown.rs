//! Of what a lost life has decided nothing definite is ever said again: neither that it was done nor that it was not.

use std::collections::BTreeSet;

use surety_protocol::{Code, Id, Kind, Origin, Record, Reply};

use super::{Violation, hold};

const NAME: &str = "what is lost is unknown";

#[derive(Clone, Debug, Default)]
pub(super) struct LostIsUnknown {
    /// Requests that the life has decided which is lost: an id of theirs may be another's elsewhere, so with their kind.
    lost: BTreeSet<(Id, u8)>,
}

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
    }

    pub(super) fn on_record(&self, record: &Record) -> Result<(), Violation> {
        hold(NAME, !self.lost.contains(&(record.id, record.kind)), || format!("executed: {record:?}"))
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
    [Some(record.id), about.map(|_| record.body::<surety_protocol::ChangeBody>().lock)].into_iter().flatten()
}
