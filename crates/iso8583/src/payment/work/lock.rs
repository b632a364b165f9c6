//! New locks: authorizations, sales, and those that a stand-in has given.

use surety_protocol::LockBody;

use super::*;
use crate::payment::Rounding;

impl Work {
    /// Asks for the lock at the present place. The same is asked wherever the route leads, so that a repeat asks for it too when
    /// the route has changed.
    pub(super) fn lock(&mut self) -> Step {
        let intent = &self.intent;
        let takes_part = matches!(intent.ask, Ask::Authorize { partial: true } | Ask::Sale { partial: true });
        let floor = if takes_part { intent.scale.to_base(1, Rounding::Up) } else { None };
        let body = LockBody {
            floor: floor.unwrap_or(Amount::ZERO),
            merchant: intent.merchant,
            user: intent.handle.map_or(0, |handle| handle.0),
            category: intent.category,
            ..LockBody::default()
        };
        let flags = if matches!(intent.ask, Ask::Sale { .. }) { Flags::SALE } else { Flags(0) };
        let (lock, amount) = (self.place.lock, intent.amount);
        Step::Send(self.send(Stage::Lock, Kind::Lock, lock, amount, &body).with_flags(flags))
    }

    pub(super) fn on_lock(&mut self, reply: &Reply) -> Step {
        let code = reply.code();
        if code.is_success() {
            return Step::Done(Outcome::of(code).at(self.place).of_amount(reply.approved));
        }
        if self.intent.ask == Ask::StandIn && code == Code::IdConflict {
            return self.find_told();
        }
        let first = *self.declined.get_or_insert(code);
        // A decline that is forgotten is stale; then the lock may stand where the route led next.
        if (may_lead_elsewhere(code) || code == Code::StaleId) && self.go_on() {
            return self.lock();
        }
        if self.intent.ask == Ask::StandIn && becomes_advice(code) {
            // Where the lock was to be first: whatever comes later looks there.
            self.go_to(0);
            return self.advise(self.intent.amount, Flags(0));
        }
        // A decline is final. Where one place could not say, there is none yet.
        self.done(if code.may_pass() { code } else { first })
    }

    /// The lock is there, and not by this request: this message was told before, or its completion came first.
    fn find_told(&mut self) -> Step {
        self.go_to(0);
        let advice = self.part(Part::Advice, 0);
        self.look_up(Stage::FindTold, advice, Flags(0))
    }

    pub(super) fn on_find_told(&mut self, reply: &Reply) -> Step {
        let code = reply.code();
        if code.may_pass() {
            return self.done(code);
        }
        let exposure = if code.is_success() { reply.extra } else { Amount::ZERO };
        let told = Outcome::of(Code::Approved).at(self.place).of_amount(self.intent.amount);
        Step::Done(Outcome { exposure, is_unmatched: !code.is_success(), ..told })
    }

    /// Tells what cannot be declined.
    pub(super) fn advise(&mut self, amount: Amount, flags: Flags) -> Step {
        let id = self.part(Part::Advice, 0);
        Step::Send(self.change(Stage::Advice, Kind::Advice, id, amount, 0).with_flags(flags))
    }

    pub(super) fn on_advice(&mut self, reply: &Reply) -> Step {
        let outcome = match reply.code() {
            // A repeat that would tell another amount, or one that was taken back before it came: what was first stands.
            Code::IdConflict => Outcome { is_unmatched: true, ..Outcome::of(Code::Approved) },
            code if code.is_success() => Outcome { exposure: reply.extra, ..Outcome::of(code) },
            code => Outcome::of(code),
        };
        Step::Done(outcome.at(self.place).of_amount(self.intent.amount))
    }
}

/// True for a recorded decline for want of collateral or by a rule of the partition: another may give what this did not.
const fn may_lead_elsewhere(code: Code) -> bool {
    matches!(
        code,
        Code::Frozen
            | Code::StalePrice
            | Code::Ratio
            | Code::OverLimit
            | Code::Velocity
            | Code::Forbidden
            | Code::Insufficient
    )
}

/// True if a stand-in's payment is told as an advice instead: it was declined, it comes too late to be locked, or locks are
/// stopped.
const fn becomes_advice(code: Code) -> bool {
    may_lead_elsewhere(code)
        || matches!(
            code,
            Code::AlreadyReleased | Code::Burned | Code::StaleId | Code::StorageLow | Code::ChainStale
        )
}
