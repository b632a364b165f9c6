//! From a decision to requests that the engine has answered, each with one effect, however often it is sent.
//!
//! Pure: a delivery says what to send next and is told the answer. What makes it safe to go on after anything:
//!
//! - The id of a request is written down before it is sent first, and is derived from lock and step, so a repeat is a repeat.
//! - An id that has become too old is given up for a new one. That is safe because of what is asked: to settle what is settled,
//!   and to consume a capture of which nothing is left, moves nothing.

use surety_protocol::{ALL_CAPTURES, Amount, ChangeBody, Code, ConsumeBody, Id, Kind, Record, Reply, Time};

use crate::journal::{Attempt, Decided};
use crate::payment::WatchKey;
use crate::track::Verdict;

/// A decision on its way.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) decided: Decided,
    owes_held: bool,
    /// Captures of the lock, and what it holds; none before it was looked up.
    lock: Option<Found>,
    /// The next step: a capture's index, or [`ALL_CAPTURES`].
    step: Option<u16>,
    attempt: Option<Attempt>,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    captures: u16,
    held: u128,
}

/// What a delivery wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Ask what the lock is like; the id of the look-up does not matter.
    Look(Record),
    /// Write this down, and then go on.
    Note(Attempt),
    /// Send it.
    Send(Record),
    /// All is done.
    Done,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Go on at once.
    GoOn,
    /// Try again later: this passes by itself.
    Later(Code),
    /// Try again later, but somebody has to do something.
    Stuck(Code),
}

impl Delivery {
    pub(crate) const fn new(decided: Decided, owes_held: bool) -> Self {
        Self { decided, owes_held, lock: None, step: None, attempt: None }
    }

    /// Takes over what an earlier process had written down.
    pub(crate) fn resume(&mut self, attempt: Attempt) {
        self.attempt = Some(attempt);
    }

    pub(crate) fn next(&self, now: Time) -> Act {
        let key = self.decided.key;
        let Some(lock) = self.lock else {
            let body = ChangeBody { lock: key.lock, ..ChangeBody::default() };
            return Act::Look(request(key, Kind::Lookup, derived_id(key, 0, Kind::Lookup, now), 0, &body));
        };
        let Some(step) = self.step_of(lock) else { return Act::Done };
        match self.attempt.filter(|attempt| attempt.step == step) {
            None => {
                let amount = if self.consumes_held(step) { lock.held } else { 0 };
                let id = derived_id(key, step, self.kind(), now);
                Act::Note(Attempt { key, step, id, amount })
            }
            Some(attempt) => Act::Send(self.request(attempt)),
        }
    }

    /// The attempt is on the disk.
    pub(crate) fn noted(&mut self, attempt: Attempt) {
        self.attempt = Some(attempt);
    }

    /// The answer to a look-up.
    pub(crate) fn found(&mut self, reply: &Reply) -> Heard {
        match reply.code() {
            Code::NotFound => {
                // The lock ended long ago and is no longer kept, or never was: nothing of it can be settled or consumed.
                self.lock = Some(Found { captures: 0, held: 0 });
                self.step = Some(ALL_CAPTURES);
                self.owes_held = false;
                Heard::Stuck(Code::NotFound)
            }
            code if code.is_recorded() => {
                // Headroom is held too, and is no part of what was promised to the merchant.
                let held = reply.remaining.0.saturating_sub(reply.extra.0);
                self.lock = Some(Found { captures: reply.capture, held });
                Heard::GoOn
            }
            code => passing(code),
        }
    }

    /// The answer to a request.
    pub(crate) fn answered(&mut self, code: Code) -> Heard {
        let Some(step) = self.lock.and_then(|lock| self.step_of(lock)) else { return Heard::GoOn };
        match code {
            Code::Approved | Code::Partial => self.finish(step),
            // It has happened before, by whomever.
            Code::AlreadySettled | Code::NotOpen | Code::UnknownCapture => self.finish(step),
            // Never locked, or no longer kept.
            Code::UnknownLock => {
                self.finish(step);
                Heard::Stuck(code)
            }
            // Given up for a new one, after another look at what is left.
            Code::StaleId | Code::IdFromFuture => {
                (self.attempt, self.lock) = (None, None);
                Heard::Later(code)
            }
            // Less is held than was seen: something happened to the lock meanwhile, or it is in a quote currency, in which
            // what is held cannot be told from here.
            Code::Insufficient => {
                (self.attempt, self.lock) = (None, None);
                Heard::Stuck(code)
            }
            // The chain decides first. The decline of this id is remembered, so another one asks next.
            Code::GuaranteeCalled => {
                self.attempt = None;
                Heard::Later(code)
            }
            code if code.is_recorded() => {
                self.attempt = None;
                Heard::Stuck(code)
            }
            code => passing(code),
        }
    }

    fn finish(&mut self, step: u16) -> Heard {
        self.attempt = None;
        self.step = Some(step.checked_add(1).unwrap_or(ALL_CAPTURES));
        if step == ALL_CAPTURES {
            self.lock = Some(Found { captures: 0, held: 0 });
        }
        Heard::GoOn
    }

    /// The step that is due: settling is one, consuming is one for each capture and one for what is held.
    fn step_of(&self, lock: Found) -> Option<u16> {
        let step =
            self.step.unwrap_or(if self.decided.verdict == Verdict::Settle { ALL_CAPTURES } else { 0 });
        match self.decided.verdict {
            Verdict::Settle => (self.step.is_none()).then_some(ALL_CAPTURES),
            Verdict::Consume if step < lock.captures => Some(step),
            Verdict::Consume => (self.owes_held && lock.held > 0).then_some(ALL_CAPTURES),
        }
    }

    fn consumes_held(&self, step: u16) -> bool {
        self.decided.verdict == Verdict::Consume && step == ALL_CAPTURES
    }

    fn kind(&self) -> Kind {
        match self.decided.verdict {
            Verdict::Settle => Kind::Settle,
            Verdict::Consume => Kind::Consume,
        }
    }

    fn request(&self, attempt: Attempt) -> Record {
        let (key, lock, capture) = (attempt.key, attempt.key.lock, attempt.step);
        match self.decided.verdict {
            Verdict::Settle => {
                let body = ChangeBody { lock, capture, ..ChangeBody::default() };
                request(key, Kind::Settle, attempt.id, 0, &body)
            }
            Verdict::Consume => {
                let body = ConsumeBody { lock, capture, ..ConsumeBody::default() };
                request(key, Kind::Consume, attempt.id, attempt.amount, &body)
            }
        }
    }
}

fn passing(code: Code) -> Heard {
    if code.may_pass() { Heard::Later(code) } else { Heard::Stuck(code) }
}

fn request<B: surety_protocol::Body>(key: WatchKey, kind: Kind, id: Id, amount: u128, body: &B) -> Record {
    Record { tenant: key.tenant, ..Record::new(kind, id, key.partition, Amount(amount), body) }
}

/// The id of a request: the moment, which engines insist on, and for the rest what lock and step say.
fn derived_id(key: WatchKey, step: u16, kind: Kind, now: Time) -> Id {
    let mut hasher = blake3::Hasher::new_derive_key("surety watcher: the id of a request");
    hasher.update(&key.tenant.0.to_le_bytes());
    hasher.update(&key.partition.0.to_le_bytes());
    hasher.update(&key.lock.0.to_le_bytes());
    hasher.update(&step.to_le_bytes());
    hasher.update(&[kind as u8]);
    let mut entropy = [0; 16];
    hasher.finalize_xof().fill(&mut entropy);
    Id::from_parts(now, u128::from_le_bytes(entropy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{PartitionHandle, ShardId, TenantId};

    #[test]
    fn what_is_consumed_of_a_held_lock_leaves_out_its_headroom() {
        let key =
            WatchKey { tenant: TenantId(1), partition: PartitionHandle::new(ShardId(0), 1), lock: Id(7) };
        let mut delivery = Delivery::new(Decided { key, verdict: Verdict::Consume, paid: 0 }, true);
        assert!(matches!(delivery.next(Time(1)), Act::Look(_)));
        let lock = Reply {
            code: Code::Approved as u8,
            remaining: Amount(115),
            extra: Amount(15),
            ..Reply::default()
        };
        assert_eq!(delivery.found(&lock), Heard::GoOn);
        let Act::Note(attempt) = delivery.next(Time(1)) else { panic!("{:?}", delivery.next(Time(1))) };
        assert_eq!((attempt.step, attempt.amount), (ALL_CAPTURES, 100));
    }
}
