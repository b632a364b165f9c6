//! Reversals: what a message has moved is moved back, or will never be moved if the message is still on its way.

use super::*;

impl Work {
    pub(super) fn begin_reversal(&mut self) -> Step {
        match self.named() {
            Some(Named::Completion) => self.search(),
            _ if self.target == Target::Nowhere || self.place_at(0).is_none() => {
                self.reversed(Verdict::Refused(Refusal::OriginalUnknown))
            }
            _ => self.find_lock(),
        }
    }

    /// What the original was; none in the 1993 edition, where only the payment is named.
    pub(super) fn named(&self) -> Option<Named> {
        self.intent.original.map(|original| original.named)
    }

    /// What is to stay.
    pub(super) fn stays(&self) -> Amount {
        match self.intent.ask {
            Ask::Reverse { stays } => stays,
            _ => Amount::ZERO,
        }
    }

    /// True if field 4 says what was told before, in the currency's minor units.
    pub(super) fn is_told(&self, told: u128) -> bool {
        let scale = self.intent.scale;
        // Where a base unit is more than a minor unit, the one was rounded up and the other down.
        let off = u128::from(scale.edge_decimals > scale.asset_decimals);
        self.intent.amount.0.abs_diff(told) <= off
    }

    /// Is there a lock, and where?
    fn find_lock(&mut self) -> Step {
        let lock = self.place.lock;
        self.look_up(Stage::FindLock, lock, Flags(0))
    }

    pub(super) fn on_find_lock(&mut self, reply: &Reply) -> Step {
        let (code, end) = (reply.code(), reply.end());
        if code.class() == CodeClass::Admission && code != Code::NotFound {
            return self.reversed(Verdict::Code(code));
        }
        if is_made(reply) {
            self.is_found = true;
            return self.take_back_lock(reply);
        }
        if end == End::Declined {
            self.declined = Some(code);
        } else if self.at < self.route_len() {
            self.undecided.get_or_insert(self.at);
        }
        if self.go_on() {
            return self.find_lock();
        }
        let undecided = self.undecided.filter(|_| !sabotage!("later-places-left-open"));
        match (self.declined, self.named(), undecided) {
            // A stand-in's payment is told where it is declined.
            (None, _, _) | (_, Some(Named::StandIn), _) => self.search(),
            (_, _, None) if self.stays() > Amount::ZERO => self.reversed(Verdict::Code(Code::NotOpen)),
            (_, _, None) => self.reversed(Verdict::Code(Code::Approved)),
            // Declined in one place, it may be on its way to the next. Of a part nothing can be spent.
            _ if self.stays() > Amount::ZERO => self.reversed(Verdict::Refused(Refusal::OriginalUnknown)),
            (_, _, Some(at)) => {
                self.go_to(at);
                self.release()
            }
        }
    }

    fn take_back_lock(&mut self, state: &Reply) -> Step {
        match (state.end(), self.named()) {
            _ if self.stays() == Amount::ZERO => self.release(),
            (end, Some(Named::Sale)) if is_captured(end) => self.take_back(0, Some(state.approved.0)),
            // What of it became exposure is not in the capture.
            (End::Exposed, Some(Named::StandIn)) => self.take_back(0, None),
            // Also of one that has ended since: a repeat of what was done before is answered the same.
            _ => {
                let (id, stays) = (self.part(Part::Decrease, self.place.lock.0), self.stays());
                Step::Send(self.change(Stage::Decrease, Kind::Decrease, id, stays, ALL_CAPTURES))
            }
        }
    }

    /// Whatever is held goes back, and a lock that has not come yet is never made.
    pub(super) fn release(&mut self) -> Step {
        let id = self.released(self.place);
        Step::Send(self.change(Stage::Release, Kind::Release, id, Amount::ZERO, ALL_CAPTURES))
    }

    /// The id of the release of a lock.
    pub(super) fn released(&self, place: Place) -> Id {
        self.part(Part::Release, place.lock.0)
    }

    pub(super) fn on_release(&mut self, reply: &Reply) -> Step {
        let (code, end) = (reply.code(), reply.end());
        if code.class() == CodeClass::Admission || code == Code::GuaranteeCalled {
            return self.reversed(Verdict::Code(code));
        }
        match (end, self.named()) {
            // Another place can get the lock only where this one has declined it, or can take it no more.
            (End::Declined | End::None, _) => {
                self.is_lost |= end == End::None;
                if self.at + 1 < self.route_len() && self.go_on() { self.release() } else { self.lose() }
            }
            (End::Tombstone, _) => self.spend(0),
            (_, Some(Named::Sale)) if is_captured(end) => self.reverse(0),
            (End::Exposed, Some(Named::StandIn)) => self.reverse(0),
            // Of a payment without any other name: all that it has come to.
            (_, None) if is_captured(end) || reply.approved == Amount::ZERO => {
                let lock = self.place.lock;
                self.look_up(Stage::Count, lock, Flags(0))
            }
            // An authorization that was completed: it is the completion that has to be taken back.
            _ if is_captured(end) && reply.approved == Amount::ZERO => {
                self.reversed(Verdict::Code(Code::NotOpen))
            }
            _ => self.reversed(Verdict::Code(Code::Approved)),
        }
    }

    /// No place holds the lock. Where it is too late to be made, it may have been, and be forgotten since: that is remembered as not
    /// found, so that a repeat, which finds the releases, is answered the same.
    fn lose(&mut self) -> Step {
        if !self.is_lost || self.is_mistaken {
            return self.spend(0);
        }
        self.is_mistaken = true;
        self.mark()
    }

    /// How often was the payment captured? Which of several captures is meant, nothing tells.
    pub(super) fn on_count(&mut self, reply: &Reply) -> Step {
        match (reply.code(), reply.capture) {
            (code, _) if code.may_pass() => self.reversed(Verdict::Code(code)),
            _ if !is_made(reply) => self.reversed(Verdict::Refused(Refusal::OriginalUnknown)),
            (_, 0) => self.reversed(Verdict::Code(Code::Approved)),
            (_, 1) => self.take_back(0, Some(reply.approved.0)),
            _ => self.reversed(Verdict::Refused(Refusal::OriginalUnknown)),
        }
    }

    /// Takes back a capture, all of it or a part. `told` is what was told when it was made.
    pub(super) fn take_back(&mut self, capture: u16, told: Option<u128>) -> Step {
        if self.stays() == Amount::ZERO {
            self.reverse(capture)
        } else {
            self.begin_guarded(Guarded::Refund { capture, told })
        }
    }

    fn reverse(&mut self, capture: u16) -> Step {
        let id = self.part(Part::Reverse, self.place.lock.0);
        Step::Send(self.change(Stage::Reverse { capture }, Kind::Reverse, id, Amount::ZERO, capture))
    }

    pub(super) fn on_reverse(&mut self, capture: u16, reply: &Reply) -> Step {
        match reply.code() {
            // A part was given back before: now the rest.
            Code::UseRefund => self.begin_guarded(Guarded::Refund { capture, told: None }),
            code => self.reversed(Verdict::Code(code)),
        }
    }

    pub(super) fn on_decrease(&mut self, reply: &Reply) -> Step {
        match reply.code() {
            Code::OverLimit => self.reversed(Verdict::Refused(Refusal::OriginalAmount)),
            Code::NotOpen if self.named().is_none() && is_captured(reply.end()) => {
                let lock = self.place.lock;
                self.look_up(Stage::Count, lock, Flags(0))
            }
            code => self.reversed(Verdict::Code(code)),
        }
    }

    /// A notice of a reversal is taken whatever became of it, unless it was not understood by the engine at all or has to
    /// come again.
    pub(super) fn reversed(&self, verdict: Verdict) -> Step {
        let is_final = match verdict {
            Verdict::Refused(_) => true,
            Verdict::Unknown => false,
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
        Step::Done(if self.is_found { outcome.at(self.place) } else { outcome })
    }
}
