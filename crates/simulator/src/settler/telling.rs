//! What the engine is told and asked, until its stream says that it has been: each purpose has one request at a time, sent again under
//! its id while the engine takes it.

use std::collections::BTreeMap;

use settlement::LockId;
use surety_protocol::{Amount, Body, Code, Id, Kind, PartitionHandle, Record, TenantId, Time};

use super::facts::Facts;
use crate::random::Random;

/// Steps after which a request that nobody has heard of is sent again.
const PATIENCE_STEPS: u64 = 40;
/// Steps after which what was declined is asked for again.
const RETRY_STEPS: u64 = 150;
/// An id as old as this is sent no more: the engine takes it for 20 seconds.
const FRESH: Time = Time::from_secs(15);
/// What bears an id older than this will never be executed.
const STALE: Time = Time::from_secs(25);

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// A partition's part of a final batch.
    Book(PartitionHandle, u64),
    /// The supply with this number.
    Credit(u64),
    /// A lock that was called.
    Called(LockId),
    /// A call that was dismissed.
    Dismissed(LockId),
    /// A guarantee that was paid.
    Paid(LockId),
    /// The same, for no lock that the engine could book it on: the reference of its deficit.
    Lost(u128),
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    request: Record,
    /// The step at which it was sent last.
    at: u64,
}

/// Requests under way, and those that were declined.
#[derive(Clone, Debug, Default)]
pub(super) struct Telling {
    asked: BTreeMap<Purpose, Asked>,
    by_id: BTreeMap<Id, Purpose>,
    /// With the code, and the step from which it may be asked again.
    declined: BTreeMap<Purpose, (Code, u64)>,
}

/// A request to be made.
pub(super) struct Draft<B> {
    pub(super) kind: Kind,
    pub(super) tenant: TenantId,
    pub(super) partition: PartitionHandle,
    pub(super) amount: u128,
    pub(super) body: B,
}

impl<B: Body> Draft<B> {
    /// With a new id.
    pub(super) fn into_record(self, now: Time, random: &mut Random) -> Record {
        let entropy = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        let id = Id::from_parts(now, entropy);
        let mut record = Record::new(self.kind, id, self.partition, Amount(self.amount), &self.body);
        record.tenant = self.tenant;
        record
    }
}

impl Telling {
    /// True if nothing is under way for a purpose and nothing speaks against asking now.
    pub(super) fn may_ask(&self, purpose: &Purpose, step: u64) -> bool {
        !self.asked.contains_key(purpose)
            && self.declined.get(purpose).is_none_or(|(_, until)| *until <= step)
    }

    /// How the engine declined it the last time.
    pub(super) fn declined(&self, purpose: &Purpose) -> Option<Code> {
        self.declined.get(purpose).map(|(code, _)| *code)
    }

    /// Notes a request that is about to be sent.
    pub(super) fn note(&mut self, purpose: Purpose, request: Record, step: u64) {
        self.by_id.insert(request.id, purpose);
        self.asked.insert(purpose, Asked { request, at: step });
    }

    /// Takes the next record of the stream: what it answers is no longer under way.
    pub(super) fn read(&mut self, record: &Record, step: u64) {
        let Some(purpose) = self.by_id.get(&record.id).copied() else { return };
        let is_own = self.asked.get(&purpose).is_some_and(|asked| asked.request.kind == record.kind);
        if !is_own {
            return;
        }
        self.by_id.remove(&record.id);
        self.asked.remove(&purpose);
        match record.code().filter(|code| !code.is_success()) {
            Some(code) => self.declined.insert(purpose, (code, step + RETRY_STEPS)),
            None => self.declined.remove(&purpose),
        };
    }

    /// What is to be sent again. What is too old for that and did not turn up in the stream never was, and may be asked anew.
    pub(super) fn repeat(&mut self, facts: &Facts, now: Time, step: u64) -> Vec<Record> {
        let mut again = Vec::new();
        for asked in self.asked.values_mut() {
            let is_fresh = now <= asked.request.id.time().plus(FRESH);
            if is_fresh && step >= asked.at + PATIENCE_STEPS {
                asked.at = step;
                again.push(asked.request);
            }
        }
        let by_id = &mut self.by_id;
        self.asked.retain(|_, asked| {
            let is_possible = facts.time() <= asked.request.id.time().plus(STALE);
            if !is_possible {
                by_id.remove(&asked.request.id);
            }
            is_possible
        });
        again
    }

    /// Tries what was declined at once: in the end nothing else happens.
    pub(super) fn retry_now(&mut self) {
        self.declined.values_mut().for_each(|(_, until)| *until = 0);
    }
}
