//! Changes whose amount depends on what the lock is now: each is made from the version that was seen, so that none is
//! applied to anything else, and under an id that is looked up first, so that none is applied twice.

use super::*;

/// Attempts, each of which another change of the lock may have overtaken.
const ATTEMPTS_MAX: u8 = 16;

/// Such a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guarded {
    /// The total is raised by the message's amount.
    Increase,
    /// The total is lowered by what of an increase is taken back.
    Lower {
        /// By how much.
        by: u128,
    },
    /// A capture is given back, but for what stays.
    Refund {
        /// Which one.
        capture: u16,
        /// What was told when it was captured, if that is known.
        told: Option<u128>,
    },
}

impl Guarded {
    const fn part(self) -> Part {
        match self {
            Self::Increase => Part::Increase,
            Self::Lower { .. } => Part::Lower,
            Self::Refund { .. } => Part::Refund,
        }
    }
}

impl Work {
    /// An increase names its lock by field 37 alone.
    pub(super) fn begin_increase(&mut self) -> Step {
        match self.known {
            Some(_) => self.begin_guarded(Guarded::Increase),
            None => self.refused(Refusal::OriginalUnknown),
        }
    }

    pub(super) fn begin_guarded(&mut self, guarded: Guarded) -> Step {
        self.guarded = guarded;
        self.find_attempt(0)
    }

    /// Has it been made before?
    fn find_attempt(&mut self, attempt: u8) -> Step {
        if attempt == ATTEMPTS_MAX {
            return self.changed(Code::VersionConflict);
        }
        let id = self.part(self.guarded.part(), u128::from(attempt));
        self.look_up(Stage::FindAttempt { attempt }, id, Flags(0))
    }

    pub(super) fn on_find_attempt(&mut self, attempt: u8, reply: &Reply) -> Step {
        match reply.code() {
            Code::NotFound => {
                let capture = if let Guarded::Refund { capture, .. } = self.guarded { capture } else { 0 };
                let lock = self.place.lock;
                self.look_up_capture(Stage::FindState { attempt }, lock, capture, Flags(0))
            }
            Code::VersionConflict => self.find_attempt(attempt + 1),
            // An earlier sending may have made it: that is for another sending to find out.
            code if self.guarded == Guarded::Increase && code.may_pass() => Step::Done(Outcome::UNKNOWN),
            code => self.changed(code),
        }
    }

    pub(super) fn on_find_state(&mut self, attempt: u8, reply: &Reply) -> Step {
        let code = reply.code();
        if self.guarded == Guarded::Increase && code.may_pass() {
            return Step::Done(Outcome::UNKNOWN);
        }
        if code.class() == CodeClass::Admission {
            return self.changed(if code == Code::NotFound { Code::UnknownLock } else { code });
        }
        match self.guarded {
            Guarded::Increase => self.increase(attempt, reply),
            Guarded::Lower { by } => self.lower(attempt, by, reply),
            Guarded::Refund { capture, told } => self.refund(attempt, capture, told, reply),
        }
    }

    fn increase(&mut self, attempt: u8, state: &Reply) -> Step {
        if state.end() != End::Live {
            return self.changed(Code::NotOpen);
        }
        let total = state.approved.0.checked_add(self.intent.amount.0).map(Amount);
        match total.filter(|total| total.is_in_range()) {
            Some(total) => self.attempt(attempt, Kind::Increase, total, ALL_CAPTURES, state.version),
            None => self.refused(Refusal::Amount),
        }
    }

    fn lower(&mut self, attempt: u8, by: u128, state: &Reply) -> Step {
        match state.end() {
            End::Live => match state.approved.0.saturating_sub(by) {
                // What was raised is not in the total any more.
                0 => self.changed(Code::NotOpen),
                total => self.attempt(attempt, Kind::Decrease, Amount(total), ALL_CAPTURES, state.version),
            },
            end if is_captured(end) => self.changed(Code::NotOpen),
            // It went with all the rest.
            _ => self.changed(Code::Approved),
        }
    }

    fn refund(&mut self, attempt: u8, capture: u16, told: Option<u128>, state: &Reply) -> Step {
        let (open, stays) = (state.extra.0, self.stays().0);
        if state.end() == End::Live {
            return self.changed(Code::NotOpen);
        }
        if open <= stays {
            // Settling and consuming take all that is open; a part that is still there has only been given back before.
            return match (open, state.approved) {
                (0, Amount::ZERO) => self.changed(Code::AlreadyReleased),
                (0, _) => self.changed(Code::UseRefund),
                _ => self.changed(Code::Approved),
            };
        }
        if stays > 0 && told.is_some_and(|told| !self.is_told(told)) {
            return self.reversed(Verdict::Refused(Refusal::OriginalAmount));
        }
        self.attempt(attempt, Kind::Refund, Amount(open - stays), capture, state.version)
    }

    fn attempt(&mut self, attempt: u8, kind: Kind, amount: Amount, capture: u16, version: u16) -> Step {
        let capture = if kind == Kind::Refund { capture } else { 0 };
        let body = ChangeBody { lock: self.place.lock, capture, version, ..ChangeBody::default() };
        let id = self.part(self.guarded.part(), u128::from(attempt));
        let record = self.send(Stage::Attempt { attempt }, kind, id, amount, &body);
        Step::Send(record.with_flags(Flags::LASTING))
    }

    pub(super) fn on_attempt(&mut self, attempt: u8, reply: &Reply) -> Step {
        match reply.code() {
            Code::VersionConflict => self.find_attempt(attempt + 1),
            code => self.changed(code),
        }
    }

    fn changed(&self, code: Code) -> Step {
        if self.guarded != Guarded::Increase {
            // Too many overtook it: a notice that gave up here would be lost.
            let code = if code == Code::VersionConflict { Code::Overloaded } else { code };
            return self.reversed(Verdict::Code(code));
        }
        let approved = if code.is_success() { self.intent.amount } else { Amount::ZERO };
        Step::Done(Outcome::of(code).at(self.place).of_amount(approved))
    }
}
