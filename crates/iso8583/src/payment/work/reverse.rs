//! Reversals: what a message has moved is moved back, or will never be moved if the message is still on its way.

use super::*;

impl Work {
    pub(super) fn begin_reversal(&mut self, now: Time) -> Step {
        if self.count == 0 {
            return self.reversed(Verdict::Refused(Refusal::OriginalUnknown));
        }
        if self.is_reversed_completion() {
            return self.find_capture();
        }
        match (self.stays(), self.is_sale()) {
            (Amount::ZERO, _) => self.release(now),
            (_, true) => self.refund(0),
            (stays, false) => self.decrease(stays),
        }
    }

    fn stays(&self) -> Amount {
        match self.intent.ask {
            Ask::Reverse { stays } => stays,
            _ => Amount::ZERO,
        }
    }

    fn is_sale(&self) -> bool {
        self.intent.original.is_some_and(|original| original.keys.is(Class::Financial))
    }

    /// True if the original may have captured without a completion: a sale, or a stand-in's payment.
    fn may_have_captured(&self) -> bool {
        self.is_sale() || self.intent.original.is_some_and(|original| original.keys.tells())
    }

    /// Whatever is held goes back, and a lock that has not come yet is never made. Its effect is the same however often
    /// it is asked for, so that its id is of today: a notice may come days later.
    fn release(&mut self, now: Time) -> Step {
        let id = part(&self.key, self.intent.id, Part::Release, self.place_number(), now);
        self.change(Stage::Release, Kind::Release, id, Amount::ZERO, ALL_CAPTURES)
    }

    pub(super) fn on_release(&mut self, reply: &Reply, now: Time) -> Step {
        let code = reply.code();
        if code.class() == CodeClass::Admission || code == Code::GuaranteeCalled {
            return self.reversed(Verdict::Code(code));
        }
        let has_captured = matches!(reply.end(), End::Final | End::Settled | End::Exposed);
        if has_captured && self.may_have_captured() {
            return self.reverse(0);
        }
        // Another place can hold the lock only where this one has declined it, or has forgotten that it did.
        let is_elsewhere = matches!(reply.end(), End::Declined | End::None);
        if is_elsewhere && self.go_on() {
            self.release(now)
        } else {
            self.reversed(Verdict::Code(Code::Approved))
        }
    }

    fn reverse(&mut self, capture: u16) -> Step {
        let id = self.part(Part::Reverse, self.place_number());
        self.change(Stage::Reverse, Kind::Reverse, id, Amount::ZERO, capture)
    }

    pub(super) fn on_reverse(&self, reply: &Reply) -> Step {
        self.reversed(Verdict::Code(reply.code()))
    }

    /// Which capture the completion has made; one that has not come yet will capture nothing.
    fn find_capture(&mut self) -> Step {
        let Some(original) = self.intent.original else {
            return self.reversed(Verdict::Refused(Refusal::OriginalUnknown));
        };
        let advice = part(&self.key, original.id, Part::Advice, 0, original.id.time());
        self.look_up(Stage::FindCapture, advice, Flags::BURN)
    }

    pub(super) fn on_find_capture(&mut self, reply: &Reply) -> Step {
        match reply.code() {
            // Burned now or before: it never will be executed.
            Code::NotFound if reply.seq.0 > 0 => self.reversed(Verdict::Code(Code::Approved)),
            Code::Burned => self.reversed(Verdict::Code(Code::Approved)),
            Code::NotFound => self.reversed(Verdict::Refused(Refusal::OriginalUnknown)),
            code if !code.is_success() => self.reversed(Verdict::Code(code)),
            // All of it became exposure: there is nothing to give back.
            _ if reply.capture == ALL_CAPTURES => self.reversed(Verdict::Code(Code::UnknownCapture)),
            _ if self.stays() == Amount::ZERO => self.reverse(reply.capture),
            _ => self.refund(reply.capture),
        }
    }

    fn refund(&mut self, capture: u16) -> Step {
        let back = Amount(self.intent.amount.0.saturating_sub(self.stays().0));
        if back == Amount::ZERO {
            return self.reversed(Verdict::Code(Code::Approved));
        }
        let id = self.part(Part::Refund, self.place_number());
        self.change(Stage::Refund, Kind::Refund, id, back, capture)
    }

    pub(super) fn on_refund(&mut self, reply: &Reply) -> Step {
        match reply.code() {
            Code::UnknownLock if self.go_on() => self.refund(0),
            code => self.reversed(Verdict::Code(code)),
        }
    }

    fn decrease(&mut self, stays: Amount) -> Step {
        let id = self.part(Part::Decrease, self.place_number());
        self.change(Stage::Decrease, Kind::Decrease, id, stays, ALL_CAPTURES)
    }

    pub(super) fn on_decrease(&mut self, reply: &Reply) -> Step {
        match reply.code() {
            Code::UnknownLock | Code::NotOpen if self.go_on() => self.decrease(self.stays()),
            Code::OverLimit => self.reversed(Verdict::Refused(Refusal::OriginalAmount)),
            code => self.reversed(Verdict::Code(code)),
        }
    }

    /// A notice of a reversal is taken whatever became of it, unless it was not understood by the engine at all or has to
    /// come again.
    fn reversed(&self, verdict: Verdict) -> Step {
        let is_final = match verdict {
            Verdict::Refused(_) => true,
            Verdict::Code(code) => code.class() == CodeClass::Decline || code == Code::StaleId,
        };
        let outcome = match verdict {
            Verdict::Code(code) if code.is_success() => {
                Outcome::of(Code::Approved).of_amount(self.intent.amount)
            }
            _ if is_final && self.is_notice() => {
                Outcome { is_unmatched: true, ..Outcome::of(Code::Approved) }
            }
            _ => Outcome { verdict, ..Outcome::of(Code::None) },
        };
        Step::Done(if self.count > 0 { outcome.at(self.place()) } else { outcome })
    }
}
