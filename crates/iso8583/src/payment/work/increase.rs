//! Increases: a total is raised from the version that was seen, so that none is applied twice.

use super::*;

/// Attempts, each of which another change of the lock may have overtaken.
const ATTEMPTS_MAX: u8 = 4;

impl Work {
    /// An increase names its lock by field 37 alone. Has it been done before?
    pub(super) fn begin_increase(&mut self, known: Option<Place>) -> Step {
        match known {
            Some(_) => self.find_increase(0),
            None => self.refused(Refusal::OriginalUnknown),
        }
    }

    fn find_increase(&mut self, attempt: u8) -> Step {
        if attempt == ATTEMPTS_MAX {
            return self.done(Code::VersionConflict);
        }
        let id = self.part(Part::Increase, attempt);
        self.look_up(Stage::FindIncrease { attempt }, id, Flags(0))
    }

    pub(super) fn on_find_increase(&mut self, attempt: u8, reply: &Reply) -> Step {
        match reply.code() {
            Code::NotFound => {
                let lock = self.place().lock;
                self.look_up(Stage::FindTotal { attempt }, lock, Flags(0))
            }
            Code::VersionConflict => self.find_increase(attempt + 1),
            code => self.increased(code),
        }
    }

    pub(super) fn on_find_total(&mut self, attempt: u8, reply: &Reply) -> Step {
        let code = reply.code();
        if code.class() == CodeClass::Admission {
            return self.done(if code == Code::NotFound { Code::UnknownLock } else { code });
        }
        if reply.end() != End::Live {
            return self.done(Code::NotOpen);
        }
        let total = reply.approved.0.checked_add(self.intent.amount.0).map(Amount);
        let Some(total) = total.filter(|total| total.is_in_range()) else {
            return self.refused(Refusal::Amount);
        };
        let body = ChangeBody { lock: self.place().lock, version: reply.version, ..ChangeBody::default() };
        let id = self.part(Part::Increase, attempt);
        self.send(Stage::Increase { attempt }, Kind::Increase, id, total, &body)
    }

    pub(super) fn on_increase(&mut self, attempt: u8, reply: &Reply) -> Step {
        match reply.code() {
            Code::VersionConflict => self.find_increase(attempt + 1),
            code => self.increased(code),
        }
    }

    fn increased(&self, code: Code) -> Step {
        let approved = if code.is_success() { self.intent.amount } else { Amount::ZERO };
        Step::Done(Outcome::of(code).at(self.place()).of_amount(approved))
    }
}
