//! One partition as the semantics describe it, as plainly as possible: what each request must be answered at its place.
//!
//! Written from the transition table, and shares no code with the ledger. It knows what the history drives: no headroom,
//! no tolerance, no quote currencies, no certificates, and lives so long that nothing expires.

use std::collections::{BTreeMap, BTreeSet};

use surety_protocol::limits::CAPTURES_PER_LOCK_MAX;
use surety_protocol::{
    ALL_CAPTURES, Amount, ChangeBody, Code, ConsumeBody, End, Flags, Id, Kind, LockBody, Record, Reply,
    StakeBody,
};

/// The most that one lock of the history may take, by its policy.
pub(crate) const LOCK_MAX: u128 = 5_000;
/// Partial approvals are multiples of this, by the same policy.
pub(crate) const EDGE_UNIT: u128 = 10;

/// A partition: its money, its locks, the ids that will never be locks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Model {
    on_chain: u128,
    free: u128,
    held: u128,
    captured: u128,
    owed: u128,
    locks: BTreeMap<Id, Lock>,
    spent: BTreeMap<Id, Spent>,
    nonces: BTreeSet<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lock {
    /// The answer to its request.
    code: Code,
    /// C.
    captured: u128,
    /// R.
    remaining: u128,
    version: u16,
    end: End,
    captures: Vec<Capture>,
}

/// `c = u + s + b + q`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Capture {
    open: u128,
    settled: u128,
    given_back: u128,
    consumed: u128,
}

/// Why an id is no lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Spent {
    Declined(Code),
    Burned,
    Tombstone,
    /// A tombstone whose lock has come.
    Met,
}

/// What a reply must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) code: Code,
    pub(crate) approved: u128,
    pub(crate) remaining: u128,
    pub(crate) free: u128,
    pub(crate) version: u16,
    pub(crate) end: End,
    pub(crate) capture: u16,
}

/// What a request comes to, before the state is told.
#[derive(Clone, Copy)]
struct Outcome {
    code: Code,
    approved: u128,
    capture: u16,
    /// The state, where there is no lock.
    end: End,
}

impl Outcome {
    const fn declined(code: Code) -> Self {
        Self { code, approved: 0, capture: ALL_CAPTURES, end: End::None }
    }

    const fn approved(approved: u128, capture: u16) -> Self {
        Self { code: Code::Approved, approved, capture, end: End::None }
    }
}

impl Expected {
    /// True if a reply says this.
    pub(crate) fn is(&self, reply: &Reply) -> bool {
        *self == Self::of(reply)
    }

    /// What a reply says.
    pub(crate) fn of(reply: &Reply) -> Self {
        Self {
            code: reply.code(),
            approved: reply.approved.0,
            remaining: reply.remaining.0,
            free: reply.free.0,
            version: reply.version,
            end: reply.end(),
            capture: reply.capture,
        }
    }
}

impl Model {
    /// A partition with so much collateral.
    pub(crate) fn with(collateral: u128) -> Self {
        Self { on_chain: collateral, free: collateral, ..Self::default() }
    }

    /// Executes a request at its place in the log. None for a request that this model does not know.
    pub(crate) fn execute(&mut self, request: &Record) -> Option<Expected> {
        let kind = request.kind()?;
        let (lock, outcome) = match kind {
            Kind::Lock => (request.id, self.lock(request)),
            Kind::Deposit => (Id(0), self.deposit(request)),
            Kind::Lookup => (Id(0), self.burn(request.body::<ChangeBody>().lock)),
            Kind::Consume => {
                let body: ConsumeBody = request.body();
                (body.lock, self.change(body.lock, |model, lock| model.consume(lock, &body, request.amount)))
            }
            _ => {
                let body: ChangeBody = request.body();
                (body.lock, self.change_of(kind, request, &body)?)
            }
        };
        assert_eq!(
            self.on_chain,
            self.free + self.held + self.captured + self.owed,
            "K = F + H + U + W after {request:?}"
        );
        Some(self.show(lock, outcome))
    }

    /// What a look-up must show that changes nothing.
    pub(crate) fn look(&self, id: Id) -> Expected {
        if let Some(lock) = self.locks.get(&id) {
            let is_live = lock.end == End::Live;
            let shown = if is_live { lock.captured + lock.remaining } else { lock.captured };
            let captures = u16::try_from(lock.captures.len()).unwrap_or(u16::MAX);
            return self.show(id, Outcome { code: lock.code, ..Outcome::approved(shown, captures) });
        }
        let (code, end) = match self.spent.get(&id) {
            None => (Code::NotFound, End::None),
            Some(Spent::Declined(code)) => (*code, End::Declined),
            Some(Spent::Burned) => (Code::Burned, End::Declined),
            Some(Spent::Tombstone | Spent::Met) => (Code::AlreadyReleased, End::Tombstone),
        };
        self.show(Id(0), Outcome { end, ..Outcome::declined(code) })
    }

    fn show(&self, lock: Id, outcome: Outcome) -> Expected {
        let lock = self.locks.get(&lock);
        Expected {
            code: outcome.code,
            approved: outcome.approved,
            remaining: lock.map_or(0, |lock| lock.remaining),
            free: self.free,
            version: lock.map_or(0, |lock| lock.version),
            end: lock.map_or(outcome.end, |lock| lock.end),
            capture: outcome.capture,
        }
    }

    /// Rows 1 to 5.
    fn lock(&mut self, request: &Record) -> Outcome {
        let amount = request.amount.0;
        let floor = request.body::<LockBody>().floor.0;
        let partly = self.free - self.free % EDGE_UNIT;
        let granted = match self.spent.get(&request.id) {
            Some(Spent::Tombstone) => {
                self.spent.insert(request.id, Spent::Met);
                return Outcome { end: End::Tombstone, ..Outcome::declined(Code::AlreadyReleased) };
            }
            Some(Spent::Burned) => {
                return self.decline(request.id, Code::Burned);
            }
            _ if amount > LOCK_MAX => return self.decline(request.id, Code::OverLimit),
            _ if amount <= self.free => Some((Code::Approved, amount)),
            _ if floor > 0 && partly >= floor && partly > 0 => Some((Code::Partial, partly)),
            _ => None,
        };
        let Some((code, granted)) = granted else { return self.decline(request.id, Code::Insufficient) };
        self.free -= granted;
        self.held += granted;
        let lock =
            Lock { code, captured: 0, remaining: granted, version: 1, end: End::Live, captures: Vec::new() };
        self.locks.insert(request.id, lock);
        Outcome { code, ..Outcome::approved(granted, ALL_CAPTURES) }
    }

    fn decline(&mut self, id: Id, code: Code) -> Outcome {
        self.spent.insert(id, Spent::Declined(code));
        Outcome { end: End::Declined, ..Outcome::declined(code) }
    }

    /// Row 26.
    fn deposit(&mut self, request: &Record) -> Outcome {
        if !self.nonces.insert(request.body::<StakeBody>().nonce) {
            return Outcome::declined(Code::Exists);
        }
        self.on_chain += request.amount.0;
        self.free += request.amount.0;
        Outcome::approved(request.amount.0, ALL_CAPTURES)
    }

    /// Row 32, of an id that nobody knows: only that is logged.
    fn burn(&mut self, id: Id) -> Outcome {
        self.spent.insert(id, Spent::Burned);
        Outcome { end: End::Declined, ..Outcome::declined(Code::NotFound) }
    }

    fn change_of(&mut self, kind: Kind, request: &Record, body: &ChangeBody) -> Option<Outcome> {
        let amount = request.amount.0;
        let is_final = request.flags().has(Flags::FINAL);
        if kind == Kind::Release && !self.locks.contains_key(&body.lock) {
            return Some(self.release_of_none(body.lock));
        }
        Some(match kind {
            Kind::Increase => {
                self.change(body.lock, |model, lock| model.increase(lock, amount, body.version))
            }
            Kind::Decrease => {
                self.change(body.lock, |model, lock| model.decrease(lock, amount, body.version))
            }
            Kind::Capture => self.change(body.lock, |model, lock| model.capture(lock, amount, is_final)),
            Kind::Release => self.change(body.lock, Self::release),
            Kind::Reverse => self.change(body.lock, |model, lock| model.reverse(lock, body.capture)),
            Kind::Refund => self.change(body.lock, |model, lock| model.refund(lock, body.capture, amount)),
            Kind::Settle => self.change(body.lock, |model, lock| model.settle(lock, body.capture)),
            _ => return None,
        })
    }

    /// Changes a lock; what succeeds raises its version.
    fn change(&mut self, id: Id, change: impl FnOnce(&mut Self, &mut Lock) -> Changed) -> Outcome {
        let Some(mut lock) = self.locks.remove(&id) else {
            return match self.spent.get(&id) {
                None => Outcome::declined(Code::UnknownLock),
                Some(Spent::Tombstone | Spent::Met) => {
                    Outcome { end: End::Tombstone, ..Outcome::declined(Code::NotOpen) }
                }
                Some(_) => Outcome { end: End::Declined, ..Outcome::declined(Code::NotOpen) },
            };
        };
        let outcome = match change(self, &mut lock) {
            Changed::No(outcome) => outcome,
            Changed::Yes(outcome) => {
                lock.version += 1;
                outcome
            }
        };
        self.locks.insert(id, lock);
        outcome
    }

    /// Row 6.
    fn increase(&mut self, lock: &mut Lock, total: u128, version: u16) -> Changed {
        let now = lock.captured + lock.remaining;
        let declined = if lock.end != End::Live {
            Some(Code::NotOpen)
        } else if version != lock.version {
            Some(Code::VersionConflict)
        } else if total <= now || total > LOCK_MAX {
            Some(Code::OverLimit)
        } else if total - now > self.free {
            Some(Code::Insufficient)
        } else {
            None
        };
        if let Some(code) = declined {
            return Changed::declined(code);
        }
        let delta = total - now;
        self.free -= delta;
        self.held += delta;
        lock.remaining += delta;
        Changed::Yes(Outcome::approved(delta, ALL_CAPTURES))
    }

    /// Row 7.
    fn decrease(&mut self, lock: &mut Lock, total: u128, version: u16) -> Changed {
        let now = lock.captured + lock.remaining;
        let declined = if lock.end != End::Live {
            Some(Code::NotOpen)
        } else if version != 0 && version != lock.version {
            Some(Code::VersionConflict)
        } else if total < lock.captured || total >= now {
            Some(Code::OverLimit)
        } else {
            None
        };
        if let Some(code) = declined {
            return Changed::declined(code);
        }
        self.give_back_held(lock, now - total);
        Changed::Yes(Outcome::approved(now - total, ALL_CAPTURES))
    }

    /// Rows 8 to 10.
    fn capture(&mut self, lock: &mut Lock, amount: u128, is_final: bool) -> Changed {
        if lock.end != End::Live {
            return Changed::declined(ended(lock));
        }
        if lock.captures.len() >= CAPTURES_PER_LOCK_MAX {
            return Changed::declined(Code::UnknownCapture);
        }
        let taken = amount.min(lock.remaining);
        if taken == 0 {
            return Changed::declined(Code::Insufficient);
        }
        lock.remaining -= taken;
        lock.captured += taken;
        self.held -= taken;
        self.captured += taken;
        let index = u16::try_from(lock.captures.len()).unwrap_or(u16::MAX);
        lock.captures.push(Capture { open: taken, ..Capture::default() });
        if is_final {
            lock.end = End::Final;
            self.give_back_held(lock, lock.remaining);
        }
        let code = if taken == amount { Code::Approved } else { Code::Partial };
        Changed::Yes(Outcome { code, ..Outcome::approved(taken, index) })
    }

    /// Rows 11 and 12.
    fn release(&mut self, lock: &mut Lock) -> Changed {
        if lock.end != End::Live {
            return Changed::No(Outcome::approved(0, ALL_CAPTURES));
        }
        let rest = lock.remaining;
        lock.end = if lock.captured > 0 { End::Final } else { End::Released };
        self.give_back_held(lock, rest);
        Changed::Yes(Outcome::approved(rest, ALL_CAPTURES))
    }

    /// Rows 12 and 15: of what is no lock.
    fn release_of_none(&mut self, id: Id) -> Outcome {
        let end = match self.spent.get(&id) {
            None => {
                self.spent.insert(id, Spent::Tombstone);
                End::Tombstone
            }
            Some(Spent::Tombstone | Spent::Met) => End::Tombstone,
            Some(Spent::Declined(_) | Spent::Burned) => End::Declined,
        };
        Outcome { end, ..Outcome::approved(0, ALL_CAPTURES) }
    }

    /// Rows 13 and 14.
    fn reverse(&mut self, lock: &mut Lock, index: u16) -> Changed {
        let Some(capture) = lock.captures.get_mut(usize::from(index)) else {
            return Changed::declined(Code::UnknownCapture);
        };
        let amount = capture.open;
        if amount == 0 || amount != capture.total() {
            return Changed::declined(Code::UseRefund);
        }
        capture.open = 0;
        lock.captured -= amount;
        self.captured -= amount;
        if lock.end == End::Live {
            lock.remaining += amount;
            self.held += amount;
        } else {
            self.free += amount;
        }
        Changed::Yes(Outcome::approved(amount, index))
    }

    /// Row 21.
    fn refund(&mut self, lock: &mut Lock, index: u16, amount: u128) -> Changed {
        let Some(capture) = lock.captures.get_mut(usize::from(index)) else {
            return Changed::declined(Code::UnknownCapture);
        };
        let given = amount.min(capture.open);
        capture.open -= given;
        capture.given_back += given;
        self.captured -= given;
        self.free += given;
        Changed::Yes(Outcome::approved(given, index))
    }

    /// Row 22.
    fn settle(&mut self, lock: &mut Lock, index: u16) -> Changed {
        if index != ALL_CAPTURES {
            return match lock.captures.get_mut(usize::from(index)) {
                None => Changed::declined(Code::UnknownCapture),
                Some(capture) if capture.open == 0 => Changed::declined(capture.closed()),
                Some(capture) => {
                    let amount = capture.open;
                    self.settle_one(capture);
                    Changed::Yes(Outcome::approved(amount, index))
                }
            };
        }
        if lock.end == End::Settled {
            return Changed::declined(Code::AlreadySettled);
        }
        let mut settled = lock.remaining;
        for capture in &mut lock.captures {
            settled += capture.open;
            self.settle_one(capture);
        }
        self.give_back_held(lock, lock.remaining);
        lock.end = End::Settled;
        Changed::Yes(Outcome::approved(settled, index))
    }

    fn settle_one(&mut self, capture: &mut Capture) {
        self.captured -= capture.open;
        self.free += capture.open;
        capture.settled += capture.open;
        capture.open = 0;
    }

    /// Row 23.
    fn consume(&mut self, lock: &mut Lock, body: &ConsumeBody, amount: Amount) -> Changed {
        if body.capture == ALL_CAPTURES {
            if lock.end != End::Live {
                return Changed::declined(ended(lock));
            }
            if amount.0 > lock.remaining {
                return Changed::declined(Code::Insufficient);
            }
            lock.remaining -= amount.0;
            lock.captured += amount.0;
            self.held -= amount.0;
            self.owed += amount.0;
            return Changed::Yes(Outcome::approved(amount.0, body.capture));
        }
        let Some(capture) = lock.captures.get_mut(usize::from(body.capture)) else {
            return Changed::declined(Code::UnknownCapture);
        };
        if capture.open == 0 {
            return Changed::declined(capture.closed());
        }
        let paid = std::mem::take(&mut capture.open);
        capture.consumed += paid;
        self.captured -= paid;
        self.owed += paid;
        Changed::Yes(Outcome::approved(paid, body.capture))
    }

    fn give_back_held(&mut self, lock: &mut Lock, amount: u128) {
        lock.remaining -= amount;
        self.held -= amount;
        self.free += amount;
    }
}

/// What became of a change.
enum Changed {
    Yes(Outcome),
    No(Outcome),
}

impl Changed {
    const fn declined(code: Code) -> Self {
        Self::No(Outcome::declined(code))
    }
}

impl Capture {
    const fn total(&self) -> u128 {
        self.open + self.settled + self.given_back + self.consumed
    }

    /// Why one with nothing left is neither settled nor consumed.
    const fn closed(&self) -> Code {
        if self.settled > 0 { Code::AlreadySettled } else { Code::NotOpen }
    }
}

/// Why an ended lock takes nothing.
fn ended(lock: &Lock) -> Code {
    if lock.end == End::Settled { Code::AlreadySettled } else { Code::NotOpen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_client::{Draft, LockRef, LockRequest};
    use surety_protocol::{MerchantId, PartitionHandle};

    const PARTITION: PartitionHandle = PartitionHandle(1);
    const LOCK: LockRef = LockRef::new(PARTITION, Id(1));

    fn lock(id: u128, amount: u128, floor: u128) -> Draft {
        let request = LockRequest {
            floor: Amount(floor),
            id: Some(Id(id)),
            ..LockRequest::new(PARTITION, Amount(amount), MerchantId(1))
        };
        request.into()
    }

    /// Executes and compares code, approved, remaining, free.
    #[track_caller]
    fn check(model: &mut Model, draft: Draft, expect: (Code, u128, u128, u128)) {
        let expected = model.execute(&draft.into_record(|| Id(1_000))).unwrap();
        assert_eq!((expected.code, expected.approved, expected.remaining, expected.free), expect);
    }

    #[test]
    fn a_life_of_a_lock() {
        let model = &mut Model::with(1_000);
        check(model, lock(1, 600, 0), (Code::Approved, 600, 600, 400));
        check(model, lock(2, 500, 0), (Code::Insufficient, 0, 0, 400));
        check(model, lock(3, 505, 400), (Code::Partial, 400, 400, 0));
        check(model, LOCK.increase(Amount(601), 1), (Code::Insufficient, 0, 600, 0));
        check(model, LOCK.decrease(Amount(500), 1), (Code::Approved, 100, 500, 100));
        check(model, LOCK.increase(Amount(550), 1), (Code::VersionConflict, 0, 500, 100));
        check(model, LOCK.increase(Amount(550), 2), (Code::Approved, 50, 550, 50));
        check(model, LOCK.capture(Amount(200)), (Code::Approved, 200, 350, 50));
        check(model, LOCK.refund(0, Amount(50)), (Code::Approved, 50, 350, 100));
        check(model, LOCK.reverse(0), (Code::UseRefund, 0, 350, 100));
        check(model, LOCK.capture_last(Amount(400)), (Code::Partial, 350, 0, 100));
        check(model, LOCK.consume_capture(0), (Code::Approved, 150, 0, 100));
        check(model, LOCK.consume_capture(0), (Code::NotOpen, 0, 0, 100));
        check(model, LOCK.settle(), (Code::Approved, 350, 0, 450));
        check(model, LOCK.capture(Amount(1)), (Code::AlreadySettled, 0, 0, 450));
        check(model, LOCK.release(), (Code::Approved, 0, 0, 450));
    }

    #[test]
    fn ids_are_spent_once() {
        let model = &mut Model::with(100);
        check(model, LOCK.release(), (Code::Approved, 0, 0, 100));
        check(model, lock(1, 10, 0), (Code::AlreadyReleased, 0, 0, 100));
        assert_eq!(model.look(Id(1)).end, End::Tombstone);
        let burn = ChangeBody { lock: Id(2), ..ChangeBody::default() };
        check(model, Draft::new(Kind::Lookup, PARTITION, Amount(0), &burn), (Code::NotFound, 0, 0, 100));
        check(model, lock(2, 10, 0), (Code::Burned, 0, 0, 100));
        assert_eq!(model.look(Id(3)).code, Code::NotFound);
        check(model, LockRef::new(PARTITION, Id(3)).capture(Amount(1)), (Code::UnknownLock, 0, 0, 100));
    }
}
