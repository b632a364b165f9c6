//! What the work for a message asks for, and what it comes to.

use surety_protocol::{Amount, Code, Id, PartitionHandle, Record};

use crate::payment::codes::Refusal;

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
    /// Nobody can tell now. It is not answered, and is served when it comes again.
    Unknown,
}

impl Outcome {
    /// What may or may not have been executed.
    pub(super) const UNKNOWN: Self = Self { verdict: Verdict::Unknown, ..Self::of(Code::None) };

    pub(crate) const fn of(code: Code) -> Self {
        Self {
            verdict: Verdict::Code(code),
            approved: Amount::ZERO,
            exposure: Amount::ZERO,
            place: None,
            is_unmatched: false,
        }
    }

    /// Done, without anything that was moved.
    #[must_use]
    pub const fn approved() -> Self {
        Self::of(Code::Approved)
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

    pub(super) const fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    pub(super) const fn of_amount(self, approved: Amount) -> Self {
        Self { approved, ..self }
    }
}
