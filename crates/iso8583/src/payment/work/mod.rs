//! The requests that serve a message, one after another, each chosen by the reply to the one before.
//!
//! Every request that moves money has an id made of the message's own, so that the work for a repeat, begun anew, gets the same
//! answers again. Whoever drives it keeps two repeats of a message from being worked on at once, and does not let it see
//! anything but definite replies: it sends a request under its id until there is one.

mod complete;
mod guarded;
mod lock;
mod reverse;
mod search;

use alloc::vec::Vec;

use surety_protocol::{
    ALL_CAPTURES, Amount, Body, ChangeBody, Code, CodeClass, End, Flags, Id, Kind, PartitionHandle, Record,
    Reply,
};

use self::guarded::Guarded;
use self::search::Suspect;
use super::codes::Refusal;
use super::ids::{Part, part};
use super::intent::{Ask, Intent, Named};
use super::rules::{ROUTE_MAX, Rules};
use crate::Function;

/// Where a lock is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its partition.
    pub partition: PartitionHandle,
    /// Its id.
    pub lock: Id,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Send this, and come back with its reply.
    Send(Record),
    /// Answer.
    Done(Outcome),
}

/// How a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is answered.
    pub verdict: Verdict,
    /// What was approved, in base units.
    pub approved: Amount,
    /// What was told and could not be covered.
    pub exposure: Amount,
    /// The lock that it is about.
    pub place: Option<Place>,
    /// A notice was taken that moved nothing, since what it refers to was not found or had moved on. Worth a line in a log.
    pub is_unmatched: bool,
}

/// An engine's answer, or this end's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The engine's.
    Code(Code),
    /// Refused without asking.
    Refused(Refusal),
}

impl Outcome {
    pub(crate) const fn of(code: Code) -> Self {
        Self {
            verdict: Verdict::Code(code),
            approved: Amount::ZERO,
            exposure: Amount::ZERO,
            place: None,
            is_unmatched: false,
        }
    }

    /// A refusal.
    #[must_use]
    pub const fn refused(refusal: Refusal) -> Self {
        Self { verdict: Verdict::Refused(refusal), ..Self::of(Code::None) }
    }

    /// True if the message is answered as done.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.verdict, Verdict::Code(code) if code.is_success())
    }

    const fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    const fn of_amount(self, approved: Amount) -> Self {
        Self { approved, ..self }
    }
}

/// A message being served.
#[derive(Clone, Debug)]
pub struct Work {
    intent: Intent,
    key: [u8; 32],
    /// Where the payment's lock is, by its reference.
    known: Option<Place>,
    places: [Place; ROUTE_MAX],
    count: usize,
    /// Which of the places is being asked.
    at: usize,
    /// Where the present request goes: one of the places, or what was found.
    place: Place,
    stage: Stage,
    /// What the primary place has declined with.
    declined: Option<Code>,
    /// The change that waits for the lock's version.
    guarded: Guarded,
    /// What a reversal takes back is found.
    is_found: bool,
    /// Nothing is what field 90 calls it, but something else has the same numbers.
    is_mistaken: bool,
    /// What the original may have been, where it is no lock.
    suspects: Vec<Suspect>,
    lookups: u128,
}

/// Which reply is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Of the lock at the present place.
    Lock,
    /// Of an advice.
    Advice,
    /// Of the look-up of what a stand-in has told under this message's id.
    FindTold,
    /// Of the look-up of a lock that is to be completed.
    Find,
    /// Of the look-up of the advice that made a lock, of which so much is captured.
    FindAdvice { captured: Amount },
    /// Of the look-up of this message's own advice, of a lock of which so much is captured.
    FindOwn { captured: Amount },
    /// Of the look-up of an attempt at a guarded change.
    FindAttempt { attempt: u8 },
    /// Of the look-up of the lock that a guarded change is about.
    FindState { attempt: u8 },
    /// Of a guarded change.
    Attempt { attempt: u8 },
    /// Of a release.
    Release,
    /// Of the look-up of a lock that is to be taken back in part.
    FindLock,
    /// Of a lower total.
    Decrease,
    /// Of the look-up that tells how often a payment was captured.
    Count,
    /// Of a capture taken back.
    Reverse { capture: u16 },
    /// Of the look-up of one of the suspects.
    Search { nth: usize, burn: bool },
}

impl Work {
    /// Begins to serve a message. `known` is where the lock of its payment is, if [`super::Originals`] tells.
    pub fn begin(intent: &Intent, rules: &Rules, known: Option<Place>) -> (Self, Step) {
        let mut work = Self {
            intent: intent.clone(),
            key: rules.id_key.0,
            known,
            places: [Place::default(); ROUTE_MAX],
            count: 0,
            at: 0,
            place: Place::default(),
            stage: Stage::Lock,
            declined: None,
            guarded: Guarded::Increase,
            is_found: false,
            is_mistaken: false,
            suspects: Vec::new(),
            lookups: 0,
        };
        work.find_places();
        let step = match intent.ask {
            Ask::Authorize { .. } | Ask::Sale { .. } | Ask::StandIn => work.lock(),
            Ask::Increase => work.begin_increase(),
            Ask::Complete => work.begin_completion(),
            Ask::Reverse { .. } => work.begin_reversal(),
            Ask::Totals | Ask::Network(_) => Step::Done(Outcome::of(Code::Approved)),
        };
        (work, step)
    }

    /// Goes on with the reply to the request that was sent last.
    pub fn on_reply(&mut self, reply: &Reply) -> Step {
        match self.stage {
            Stage::Lock => self.on_lock(reply),
            Stage::Advice => self.on_advice(reply),
            Stage::FindTold => self.on_find_told(reply),
            Stage::Find => self.on_find(reply),
            Stage::FindAdvice { captured } => self.on_find_advice(captured, reply),
            Stage::FindOwn { captured } => self.on_find_own(captured, reply),
            Stage::FindAttempt { attempt } => self.on_find_attempt(attempt, reply),
            Stage::FindState { attempt } => self.on_find_state(attempt, reply),
            Stage::Attempt { attempt } => self.on_attempt(attempt, reply),
            Stage::Release => self.on_release(reply),
            Stage::FindLock => self.on_find_lock(reply),
            Stage::Decrease => self.on_decrease(reply),
            Stage::Count => self.on_count(reply),
            Stage::Reverse { capture } => self.on_reverse(capture, reply),
            Stage::Search { nth, burn } => self.on_search(nth, burn, reply),
        }
    }

    /// The places that a message may be about: where its original must have been sent by the route of the card, or where
    /// the payment is known to be. What is known counts only if it cannot be another payment under a reference that was
    /// used twice: a repeat must never be led to another partition than the message before it.
    fn find_places(&mut self) {
        let message = match (self.intent.ask, self.intent.original) {
            (Ask::Authorize { .. } | Ask::Sale { .. } | Ask::StandIn, _) => Some(self.intent.id),
            (_, original) => original.map(|original| original.id()),
        };
        let is_meant = |known: &Place| message.is_none_or(|message| self.is_lock_of(message, known.lock));
        if let Some(known) = self.known.filter(is_meant) {
            self.settle_on(known);
        } else if message.is_some() || self.intent.ask == Ask::Complete {
            self.follow_route(message.unwrap_or(self.intent.id));
        }
    }

    fn follow_route(&mut self, message: Id) {
        let route = self.intent.partitions;
        self.count = route.as_slice().len();
        for (number, partition) in route.as_slice().iter().enumerate() {
            self.places[number] = Place { partition: *partition, lock: self.lock_of(message, number) };
        }
        self.go_to(0);
    }

    /// There is one place, and this is it.
    fn settle_on(&mut self, place: Place) {
        (self.places[0], self.count) = (place, 1);
        self.go_to(0);
    }

    fn go_to(&mut self, at: usize) {
        (self.at, self.place) = (at, self.places[at]);
    }

    /// Goes to the next place, if there is one.
    fn go_on(&mut self) -> bool {
        let is_more = self.at + 1 < self.count;
        if is_more {
            self.go_to(self.at + 1);
        }
        is_more
    }

    /// The lock that a message makes in the so-manieth partition of its route.
    fn lock_of(&self, message: Id, number: usize) -> Id {
        part(&self.key, message, Part::Lock, number as u128)
    }

    fn is_lock_of(&self, message: Id, lock: Id) -> bool {
        (0..ROUTE_MAX).any(|number| self.lock_of(message, number) == lock)
    }

    /// The id of a part of the work.
    fn part(&self, what: Part, number: u128) -> Id {
        part(&self.key, self.intent.id, what, number)
    }

    fn send<B: Body>(&mut self, stage: Stage, kind: Kind, id: Id, amount: Amount, body: &B) -> Record {
        self.stage = stage;
        Record::new(kind, id, self.place.partition, amount, body)
    }

    /// Asks for a change of the lock at the present place, under an id that lasts as long as a notice may take to come.
    fn change(&mut self, stage: Stage, kind: Kind, id: Id, amount: Amount, capture: u16) -> Record {
        // What makes or ends a lock carries the payment's handle.
        let user = match (kind, self.intent.handle) {
            (Kind::Advice, Some(handle)) => handle.0,
            _ => 0,
        };
        let body = ChangeBody { lock: self.place.lock, capture, user, ..ChangeBody::default() };
        self.send(stage, kind, id, amount, &body).with_flags(Flags::LASTING)
    }

    fn look_up(&mut self, stage: Stage, id: Id, flags: Flags) -> Step {
        self.look_up_capture(stage, id, 0, flags)
    }

    /// Looks an id up, and if it is that of a lock, one of its captures.
    fn look_up_capture(&mut self, stage: Stage, id: Id, capture: u16, flags: Flags) -> Step {
        self.lookups += 1;
        let body = ChangeBody { lock: id, capture, ..ChangeBody::default() };
        let own = self.part(Part::Lookup, self.lookups);
        Step::Send(self.send(stage, Kind::Lookup, own, Amount::ZERO, &body).with_flags(flags))
    }

    fn done(&self, code: Code) -> Step {
        Step::Done(Outcome::of(code).at(self.place))
    }

    fn refused(&self, refusal: Refusal) -> Step {
        Step::Done(Outcome::refused(refusal))
    }

    fn is_notice(&self) -> bool {
        self.intent.mti.function == Function::Advice
    }
}

/// True for what a later sending may be answered otherwise.
const fn is_not_now(code: Code) -> bool {
    matches!(code, Code::Overloaded | Code::Quota | Code::StorageLow | Code::ChainStale)
}

/// True if a look-up has shown a lock: one that was made, whatever became of it.
fn is_made(reply: &Reply) -> bool {
    let end = reply.end();
    matches!(end, End::Live | End::Final | End::Released | End::Expired | End::Settled | End::Exposed)
}

/// True for what has ended by being captured.
const fn is_captured(end: End) -> bool {
    matches!(end, End::Final | End::Settled | End::Exposed)
}
