//! The requests that serve a message, one after another, each chosen by the reply to the one before.
//!
//! Every request that moves money has an id made of the message's own, so that the work for a repeat, begun anew, gets the same
//! answers again. Whoever drives it keeps two repeats of a message from being worked on at once, and does not let it see
//! anything but definite replies: it sends a request under its id until there is one.

mod complete;
mod guarded;
mod lock;
mod outcome;
mod places;
mod reverse;
mod search;

use alloc::vec::Vec;

use surety_protocol::{
    ALL_CAPTURES, Amount, Body, ChangeBody, Code, CodeClass, End, Flags, Id, Kind, PartitionHandle, Record,
    Reply, sabotage,
};

use self::guarded::Guarded;
pub use self::outcome::{Outcome, Place, Step, Verdict};
use self::places::Target;
use self::search::Suspect;
use super::codes::Refusal;
use super::ids::{Part, part};
use super::intent::{Ask, Intent, Named};
use super::rules::{IdKey, ROUTE_MAX, Rules};
use crate::Function;

/// A message being served.
#[derive(Clone, Debug)]
pub struct Work {
    intent: Intent,
    key: IdKey,
    /// Where the payment's lock is, by its reference.
    known: Option<Place>,
    /// Where the payment may be and its currency is not held.
    foreign: Vec<PartitionHandle>,
    target: Target,
    /// Which of the target's places is being asked.
    at: usize,
    /// Where the present request goes: one of the places, or what was found.
    place: Place,
    stage: Stage,
    /// What the primary place has declined with.
    declined: Option<Code>,
    /// The first place that has neither made nor declined the lock to be taken back.
    undecided: Option<usize>,
    /// The change that waits for the lock's version.
    guarded: Guarded,
    /// What a reversal takes back is found.
    is_found: bool,
    /// Nothing is what field 90 calls it, but something else has the same numbers, or nobody can tell any more.
    is_mistaken: bool,
    /// The lock to be taken back may have been made and forgotten.
    is_lost: bool,
    /// Nothing is known of what is to be taken back.
    is_spending: bool,
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
    FindAdvice { captured: Amount, is_exposed: bool },
    /// Of the look-up of this message's own advice, of a lock of which so much is captured.
    FindOwn { captured: Amount },
    /// Of the look-up of an increase that a completion may name.
    FindRaised { nth: usize },
    /// Of the look-up of the notice before a completion that is to be taken back.
    FindBefore,
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
            key: rules.id_key,
            known,
            foreign: Vec::new(),
            target: Target::Nowhere,
            at: 0,
            place: Place::default(),
            stage: Stage::Lock,
            declined: None,
            undecided: None,
            guarded: Guarded::Increase,
            is_found: false,
            is_mistaken: false,
            is_lost: false,
            is_spending: false,
            suspects: Vec::new(),
            lookups: 0,
        };
        work.find_places();
        let is_foreign = |of: &PartitionHandle| rules.held_in(*of) != Some(intent.currency);
        work.foreign = work.everywhere().filter(is_foreign).collect();
        let step = match intent.ask {
            Ask::Authorize { .. } | Ask::Sale { .. } | Ask::StandIn => work.lock(),
            Ask::Increase => work.begin_increase(),
            Ask::Complete => work.begin_completion(),
            Ask::Reverse { .. } => work.begin_reversal(),
            Ask::Totals | Ask::Network(_) => Step::Done(Outcome::of(Code::Approved)),
        };
        let step = work.in_its_currency(step);
        (work, step)
    }

    /// Goes on with the reply to the request that was sent last.
    pub fn on_reply(&mut self, reply: &Reply) -> Step {
        let step = self.next(reply);
        self.in_its_currency(step)
    }

    fn next(&mut self, reply: &Reply) -> Step {
        match self.stage {
            Stage::Lock => self.on_lock(reply),
            Stage::Advice => self.on_advice(reply),
            Stage::FindTold => self.on_find_told(reply),
            Stage::Find => self.on_find(reply),
            Stage::FindAdvice { captured, is_exposed } => self.on_find_advice(captured, is_exposed, reply),
            Stage::FindOwn { captured } => self.on_find_own(captured, reply),
            Stage::FindRaised { nth } => self.on_find_raised(nth, reply),
            Stage::FindBefore => self.on_find_before(reply),
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

    /// True once nothing is known of what is to be taken back: the requests from here on leave marks of it, so that it will never be
    /// executed. Not of a repeat, whose marks are there.
    #[must_use]
    pub const fn is_spending(&self) -> bool {
        self.is_spending
    }

    /// The step, unless it would bring an amount of the message to where another currency is held. What is taken back whole goes by
    /// the amounts that are there.
    fn in_its_currency(&self, step: Step) -> Step {
        let Step::Send(record) = &step else { return step };
        let tells_amount = match record.kind() {
            Some(Kind::Lock | Kind::Increase | Kind::Advice) => true,
            Some(Kind::Decrease | Kind::Refund) => self.stays() > Amount::ZERO,
            _ => false,
        };
        if tells_amount && self.foreign.contains(&record.partition) {
            return self.refused(Refusal::Currency);
        }
        step
    }

    /// The id of a part of the work.
    fn part(&self, what: Part, number: u128) -> Id {
        part(&self.key.0, self.intent.id, what, number)
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

/// True if a look-up has shown a lock: one that was made, whatever became of it.
fn is_made(reply: &Reply) -> bool {
    let end = reply.end();
    matches!(end, End::Live | End::Final | End::Released | End::Expired | End::Settled | End::Exposed)
}

/// True for what has ended by being captured.
const fn is_captured(end: End) -> bool {
    matches!(end, End::Final | End::Settled | End::Exposed)
}
