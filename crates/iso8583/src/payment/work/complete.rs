//! Completions: a capture for the last time, which cannot be declined. What the lock does not hold becomes exposure.

use super::*;

impl Work {
    /// Looks for the lock. A completion that names none (a forced sale) makes its own.
    pub(super) fn begin_completion(&mut self) -> Step {
        if self.place_at(0).is_none() {
            return self.refused(Refusal::OriginalUnknown);
        }
        let lock = self.place.lock;
        self.look_up(Stage::Find, lock, Flags(0))
    }

    pub(super) fn on_find(&mut self, reply: &Reply) -> Step {
        let (code, end) = (reply.code(), reply.end());
        if code.class() == CodeClass::Admission && code != Code::NotFound {
            return self.done(code);
        }
        if !is_made(reply) {
            // Not here: it was declined, or never asked for.
            if self.go_on() {
                return self.begin_completion();
            }
            return self.find_raised(0);
        }
        if !matches!(end, End::Exposed | End::Settled) {
            return self.advise(self.intent.amount, Flags::FINAL);
        }
        // Told before, by the advice that made the lock under its message's id: only what is more is news.
        let advice = part(&self.key.0, self.place.lock, Part::Advice, 0);
        if advice == self.part(Part::Advice, 0) {
            // It was this very message.
            return self.advise(self.intent.amount, Flags::FINAL);
        }
        let is_exposed = end == End::Exposed;
        self.look_up(Stage::FindAdvice { captured: reply.approved, is_exposed }, advice, Flags(0))
    }

    /// Field 90 may name what has raised a lock: then that lock is meant, and another one beside it would hold the payment twice. The
    /// increase is burned where it is not found, so that it cannot come and raise the lock afterwards.
    fn find_raised(&mut self, nth: usize) -> Step {
        let partition = self.everywhere().nth(nth).filter(|_| !sabotage!("completed-increase-locks-again"));
        let (Target::Route(message), Some(Named::Authorization), Some(partition)) =
            (self.target, self.named(), partition)
        else {
            return self.make_its_own();
        };
        let increase = part(&self.key.0, message, Part::Increase, 0);
        self.place = Place { partition, lock: increase };
        self.look_up(Stage::FindRaised { nth }, increase, Flags::BURN | Flags::LASTING)
    }

    pub(super) fn on_find_raised(&mut self, nth: usize, reply: &Reply) -> Step {
        let code = reply.code();
        if code.class() == CodeClass::Admission && code != Code::NotFound {
            return self.done(code);
        }
        // Whatever has become of an increase, its id tells its lock.
        match Id(reply.remaining.0) {
            Id(0) => self.find_raised(nth + 1),
            lock => {
                self.settle_on(Place { lock, ..self.place });
                self.begin_completion()
            }
        }
    }

    /// A payment that was never asked for makes its lock where the route leads first.
    fn make_its_own(&mut self) -> Step {
        if matches!(self.target, Target::Route(_)) && self.intent.partitions.as_slice().is_empty() {
            let is_led = !self.intent.others.as_slice().is_empty();
            return self.refused(if is_led { Refusal::Currency } else { Refusal::NoRoute });
        }
        self.go_to(0);
        self.advise(self.intent.amount, Flags::FINAL)
    }

    pub(super) fn on_find_advice(&mut self, captured: Amount, is_exposed: bool, reply: &Reply) -> Step {
        let code = reply.code();
        if code.class() == CodeClass::Admission && code != Code::NotFound {
            return self.done(code);
        }
        if code == Code::NotFound && !is_exposed {
            return self.advise(self.intent.amount, Flags::FINAL);
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
            0 => self.tell_no_more(),
            more => self.advise(Amount(more), Flags::FINAL),
        }
    }

    /// All of it was told before. A release, which moves nothing of what has ended, leaves the completion's id behind, so that a repeat
    /// adds nothing either, whatever has gone back by then, and a reversal finds it.
    fn tell_no_more(&mut self) -> Step {
        let id = self.part(Part::Advice, 0);
        Step::Send(self.change(Stage::Advice, Kind::Release, id, Amount::ZERO, ALL_CAPTURES))
    }
}
