//! Completions: a capture for the last time, which cannot be declined. What the lock does not hold becomes exposure.

use super::*;

impl Work {
    /// Looks for the lock. A completion that names none (a forced sale) makes its own.
    pub(super) fn begin_completion(&mut self) -> Step {
        if self.count == 0 {
            return self.refused(Refusal::OriginalUnknown);
        }
        let lock = self.place().lock;
        self.look_up(Stage::Find, lock, Flags(0))
    }

    pub(super) fn on_find(&mut self, reply: &Reply) -> Step {
        let code = reply.code();
        if code.class() == CodeClass::Admission && code != Code::NotFound {
            return self.done(code);
        }
        if !matches!(
            reply.end(),
            End::Live | End::Final | End::Released | End::Expired | End::Settled | End::Exposed
        ) {
            // Not here: it was declined, or never asked for.
            if self.go_on() {
                return self.begin_completion();
            }
            self.at = 0;
            return self.advise(self.intent.amount, Flags::FINAL);
        }
        if reply.end() != End::Exposed {
            return self.advise(self.intent.amount, Flags::FINAL);
        }
        // Told before, by the advice that made the lock under its message's id: only what is more is news.
        let message = self.place().lock;
        let advice = part(&self.key, message, Part::Advice, 0, message.time());
        if advice == self.part(Part::Advice, 0) {
            // It was this very message.
            return self.advise(self.intent.amount, Flags::FINAL);
        }
        self.look_up(Stage::FindAdvice { captured: reply.approved }, advice, Flags(0))
    }

    pub(super) fn on_find_advice(&mut self, captured: Amount, reply: &Reply) -> Step {
        let exposed = if reply.code().is_success() { reply.extra.0 } else { 0 };
        let told = captured.0.saturating_add(exposed);
        match self.intent.amount.0.saturating_sub(told) {
            0 => Step::Done(Outcome::of(Code::Approved).at(self.place()).of_amount(self.intent.amount)),
            more => self.advise(Amount(more), Flags::FINAL),
        }
    }
}
