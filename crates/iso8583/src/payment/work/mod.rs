//! The requests that serve a message, one after another, each chosen by the reply to the one before.
//!
//! Every request that moves money has an id made of the message's own, so that the work for a repeat, begun anew, gets the same
//! answers again. Whoever drives it keeps two repeats of a message from being worked on at once, and does not let it see
//! anything but definite replies: it sends a request under its id until there is one.

mod complete;
mod increase;
mod lock;
mod reverse;

use surety_protocol::{
    ALL_CAPTURES, Amount, Body, ChangeBody, Code, CodeClass, End, Flags, Id, Kind, PartitionHandle, Record,
    Reply, Time,
};

use super::codes::Refusal;
use super::ids::{Part, part};
use super::intent::{Ask, Intent};
use super::rules::{ROUTE_MAX, Rules};
use crate::{Class, Function};

/// Where a lock is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its partition.
    pub partition: PartitionHandle,
    /// Its id.
    pub lock: Id,
}

/// [`ROUTE_MAX`], as the numbers of places count.
const ROUTE_PLACES: u8 = 4;
const _: () = assert!(ROUTE_PLACES as usize == ROUTE_MAX);

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
    places: [Place; ROUTE_MAX],
    count: usize,
    /// The place that is being asked.
    at: usize,
    stage: Stage,
    /// What the primary place has declined with.
    declined: Option<Code>,
    lookups: u8,
}

/// Which reply is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Of the lock at the present place.
    Lock,
    /// Of an advice.
    Advice,
    /// Of the look-up of a lock that is to be completed.
    Find,
    /// Of the look-up of the advice that made a lock, of which so much is captured.
    FindAdvice { captured: Amount },
    /// Of the look-up of an attempt at an increase.
    FindIncrease { attempt: u8 },
    /// Of the look-up of the lock that is to be increased.
    FindTotal { attempt: u8 },
    /// Of an increase.
    Increase { attempt: u8 },
    /// Of the look-up, with burn, of the advice that is to be taken back.
    FindCapture,
    /// Of a release.
    Release,
    /// Of a capture taken back.
    Reverse,
    /// Of a lower total.
    Decrease,
    /// Of a part given back.
    Refund,
}

impl Work {
    /// Begins to serve a message. `known` is where the lock of its payment is, if [`super::Originals`] tells.
    pub fn begin(intent: &Intent, rules: &Rules, known: Option<Place>, now: Time) -> (Self, Step) {
        let mut work = Self {
            intent: intent.clone(),
            key: rules.id_key,
            places: [Place::default(); ROUTE_MAX],
            count: 0,
            at: 0,
            stage: Stage::Lock,
            declined: None,
            lookups: 0,
        };
        work.find_places(known);
        let step = match intent.ask {
            Ask::Authorize { .. } | Ask::Sale { .. } | Ask::StandIn => work.lock(),
            Ask::Increase => work.begin_increase(known),
            Ask::Complete => work.begin_completion(),
            Ask::Reverse { .. } => work.begin_reversal(now),
            Ask::Totals | Ask::Network(_) => Step::Done(Outcome::of(Code::Approved)),
        };
        (work, step)
    }

    /// Goes on with the reply to the request that was sent last.
    pub fn on_reply(&mut self, reply: &Reply, now: Time) -> Step {
        match self.stage {
            Stage::Lock => self.on_lock(reply),
            Stage::Advice => self.on_advice(reply),
            Stage::Find => self.on_find(reply),
            Stage::FindAdvice { captured } => self.on_find_advice(captured, reply),
            Stage::FindIncrease { attempt } => self.on_find_increase(attempt, reply),
            Stage::FindTotal { attempt } => self.on_find_total(attempt, reply),
            Stage::Increase { attempt } => self.on_increase(attempt, reply),
            Stage::FindCapture => self.on_find_capture(reply),
            Stage::Release => self.on_release(reply, now),
            Stage::Reverse => self.on_reverse(reply),
            Stage::Decrease => self.on_decrease(reply),
            Stage::Refund => self.on_refund(reply),
        }
    }

    /// The places that a message may be about: where its original must have been sent by the route of the card, or where
    /// the payment is known to be. What is known counts only if it cannot be another payment under a reference that was
    /// used twice: a repeat must never be led to another partition than the message before it.
    fn find_places(&mut self, known: Option<Place>) {
        let is_new = matches!(self.intent.ask, Ask::Authorize { .. } | Ask::Sale { .. } | Ask::StandIn);
        // The lock of a completion's reversal is that of the payment, which field 90 does not name.
        let by_id = match self.intent.original {
            _ if is_new => Some(self.intent.id),
            Some(original) if !self.is_reversed_completion() => Some(original.id),
            _ => None,
        };
        let message = by_id.unwrap_or(self.intent.original.map_or(self.intent.id, |original| original.id));
        let lock = |number| part(&self.key, message, Part::Lock, number, message.time());
        let is_meant = |known: &Place| by_id.is_none() || (0..ROUTE_PLACES).any(|n| lock(n) == known.lock);
        if let Some(known) = known.filter(is_meant) {
            (self.places[0], self.count) = (known, 1);
            return;
        }
        let partitions = self.intent.partitions.as_slice();
        for ((place, number), partition) in self.places.iter_mut().zip(0..ROUTE_PLACES).zip(partitions) {
            *place = Place { partition: *partition, lock: lock(number) };
        }
        self.count = partitions.len();
    }

    /// True if what is taken back is a completion (0220), whose capture is one of its lock's.
    fn is_reversed_completion(&self) -> bool {
        let is_one = |original: super::Original| original.keys.is(Class::Financial) && original.keys.tells();
        matches!(self.intent.ask, Ask::Reverse { .. }) && self.intent.original.is_some_and(is_one)
    }

    fn place(&self) -> Place {
        self.places[self.at]
    }

    /// Goes to the next place, if there is one.
    fn go_on(&mut self) -> bool {
        let is_more = self.at + 1 < self.count;
        self.at += usize::from(is_more);
        is_more
    }

    /// The id of a part of the work, of the message's own time.
    fn part(&self, what: Part, number: u8) -> Id {
        part(&self.key, self.intent.id, what, number, self.intent.id.time())
    }

    fn place_number(&self) -> u8 {
        u8::try_from(self.at).unwrap_or(u8::MAX)
    }

    fn send<B: Body>(&mut self, stage: Stage, kind: Kind, id: Id, amount: Amount, body: &B) -> Step {
        self.stage = stage;
        Step::Send(Record::new(kind, id, self.place().partition, amount, body))
    }

    fn change(&mut self, stage: Stage, kind: Kind, id: Id, amount: Amount, capture: u16) -> Step {
        // What makes or ends a lock carries the payment's handle.
        let user = match (kind, self.intent.handle) {
            (Kind::Advice, Some(handle)) => handle.0,
            _ => 0,
        };
        let body = ChangeBody { lock: self.place().lock, capture, user, ..ChangeBody::default() };
        self.send(stage, kind, id, amount, &body)
    }

    fn look_up(&mut self, stage: Stage, lock: Id, flags: Flags) -> Step {
        self.lookups = self.lookups.wrapping_add(1);
        let id = self.part(Part::Lookup, self.lookups);
        let body = ChangeBody { lock, ..ChangeBody::default() };
        match self.send(stage, Kind::Lookup, id, Amount::ZERO, &body) {
            Step::Send(record) => Step::Send(record.with_flags(flags)),
            done @ Step::Done(_) => done,
        }
    }

    fn done(&self, code: Code) -> Step {
        Step::Done(Outcome::of(code).at(self.place()))
    }

    fn refused(&self, refusal: Refusal) -> Step {
        Step::Done(Outcome::refused(refusal))
    }

    fn is_notice(&self) -> bool {
        self.intent.mti.function == Function::Advice
    }
}
