//! Completions: a capture for the last time, which cannot be declined. What the lock does not hold becomes exposure.

use super::*;

impl Work {
    /// Looks for the lock. A completion that names none (a forced sale) makes its own.
    pub(super) fn begin_completion(&mut self) -> Step {
        if self.count == 0 {
            return self.refused(Refusal::OriginalUnknown);
        }
        let lock = self.place.lock;
        self.look_up(Stage::Find, lock, Flags(0))
    }

    pub(super) fn on_find(&mut self, reply: &Reply) -> Step {
        let code = reply.code();
        if code.class() == CodeClass::Admission && code != Code::NotFound {
            return self.done(code);
        }
        if !is_made(reply) {
            // Not here: it was declined, or never asked for.
            if self.go_on() {
                return self.begin_completion();
            }
            self.go_to(0);
            return self.advise(self.intent.amount, Flags::FINAL);
        }
        if reply.end() != End::Exposed {
            return self.advise(self.intent.amount, Flags::FINAL);
        }
        // Told before, by the advice that made the lock under its message's id: only what is more is news.
        let advice = part(&self.key, self.place.lock, Part::Advice, 0);
        if advice == self.part(Part::Advice, 0) {
            // It was this very message.
            return self.advise(self.intent.amount, Flags::FINAL);
        }
        self.look_up(Stage::FindAdvice { captured: reply.approved }, advice, Flags(0))
    }

    pub(super) fn on_find_advice(&mut self, captured: Amount, reply: &Reply) -> Step {
        let code = reply.code();
        if code.class() == CodeClass::Admission && code != Code::NotFound {
            return self.done(code);
        }
        if code == Code::NotFound {
            let own = self.part(Part::Advice, 0);
            return self.look_up(Stage::FindOwn { captured }, own, Flags(0));
        }
        self.advise_more(captured.0.saturating_add(reply.extra.0))
    }

    /// A completion that nothing came before has made the lock: this one, or another.
    pub(super) fn on_find_own(&mut self, captured: Amount, reply: &Reply) -> Step {
        let code = reply.code();
        if code.class() == CodeClass::Admission && code != Code::NotFound {
            return self.done(code);
        }
        if !code.is_success() {
            return self.advise_more(captured.0);
        }
        let told = Outcome::of(Code::Approved).at(self.place).of_amount(self.intent.amount);
        Step::Done(Outcome { exposure: reply.extra, ..told })
    }

    fn advise_more(&mut self, told: u128) -> Step {
        match self.intent.amount.0.saturating_sub(told) {
            0 => Step::Done(Outcome::of(Code::Approved).at(self.place).of_amount(self.intent.amount)),
            more => self.advise(Amount(more), Flags::FINAL),
        }
    }
}
