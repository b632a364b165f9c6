//! Changing a lock, and rows 22 and 23: what became of the payer's asset.

use std::collections::{BTreeMap, BTreeSet};

use surety_protocol::limits::AMOUNT_MAX;
use surety_protocol::{
    ALL_CAPTURES, Amount, ChangeBody, Code, ConsumeBody, End, Flags, Id, MerchantId, Record, Time,
};

use super::lock::ended_code;
use super::money::{WHOLE, floor, signed};
use super::state::{Capture, Lock, Partition};
use super::{Account, Ask, Oracle, Outcome};

/// A lock taken out of its map to be changed, with its partition.
pub(super) struct Edit<'a> {
    pub(super) lock: Lock,
    pub(super) partition: &'a mut Partition,
    locks: &'a mut BTreeMap<(Account, Id), Lock>,
    pub(super) account: Account,
    pub(super) id: Id,
    pub(super) now: Time,
    was_live: bool,
    kept_after_end: Time,
    kept_after_change: Time,
    timers: &'a mut BTreeSet<(Time, Id, Account)>,
    forgettable: &'a mut BTreeSet<(u64, Account, Id)>,
}

impl Edit<'_> {
    /// "To F" as the table means it: to P while a certificate can be claimed. Says what went to F.
    pub(super) fn give_back(&mut self, amount: u128) -> u128 {
        let lock = &mut self.lock;
        if lock.is_certified && (self.now < lock.claim_until || lock.is_called) {
            lock.p += amount;
            self.partition.p += amount;
            return 0;
        }
        self.partition.credit(amount);
        amount
    }

    /// The rest of a live lock goes back. Says what it was, and what of it went to F.
    pub(super) fn give_back_rest(&mut self) -> (u128, u128) {
        let rest = self.lock.remaining();
        self.lock.v += rest;
        self.partition.h -= rest;
        (rest, self.give_back(rest))
    }

    /// Settles one capture. Says what was settled, and what of it went to F.
    pub(super) fn settle_capture(&mut self, index: usize) -> (u128, u128) {
        let Some(capture) = self.lock.captures.get_mut(index) else { return (0, 0) };
        let amount = std::mem::take(&mut capture.u);
        capture.s += amount;
        self.partition.u -= amount;
        (amount, self.give_back(amount))
    }

    /// Settles all captures and gives back what is held.
    pub(super) fn settle_all(&mut self) -> (u128, u128) {
        let (mut settled, mut freed) = (0, 0);
        for index in 0..self.lock.captures.len() {
            let (s, f) = self.settle_capture(index);
            settled += s;
            freed += f;
        }
        if self.lock.is_live() {
            let (rest, f) = self.give_back_rest();
            settled += rest;
            freed += f;
        }
        self.lock.end = End::Settled;
        (settled, freed)
    }

    /// Pays the merchant of one capture. Says what is paid, what went to F, and what is missing.
    pub(super) fn consume_capture(&mut self, index: usize, price: Option<u128>) -> (u128, u128, u128) {
        let Capture { u, value, .. } = self.lock.captures[index];
        let (paid, missing) = owed(&self.lock, u, value, price);
        let capture = &mut self.lock.captures[index];
        capture.u = 0;
        capture.q += paid;
        capture.b += u - paid;
        self.partition.u -= u;
        self.partition.w += paid;
        self.partition.x += missing;
        (paid, self.give_back(u - paid), missing)
    }

    /// Puts the lock back, a version later. Says which.
    pub(super) fn done(mut self) -> u16 {
        self.lock.version = self.lock.version.saturating_add(1);
        if self.lock.is_live() {
            let total = self.lock.total();
            if let Some(quote) = &mut self.lock.quote {
                quote.base = total;
            }
        } else {
            let kept = if self.was_live { self.kept_after_end } else { self.lock.kept_until };
            let for_chain = if self.lock.is_certified { self.lock.claim_until } else { Time::ZERO };
            self.lock.kept_until = kept.max(self.kept_after_change).max(for_chain);
            let at = self.lock.kept_until.0.div_ceil(1_000_000);
            self.forgettable.insert((at, self.account, self.id));
        }
        if let Some(when) = self.lock.next_moment() {
            self.timers.insert((when, self.id, self.account));
        }
        let version = self.lock.version;
        self.locks.insert((self.account, self.id), self.lock);
        version
    }
}

/// What is owed for collateral that stands for a value, at a price now; and what the collateral does not cover.
fn owed(lock: &Lock, collateral: u128, value: u128, price: Option<u128>) -> (u128, u128) {
    let Some(quote) = lock.quote else { return (collateral, 0) };
    let owed = floor(value, WHOLE, price.unwrap_or(quote.price)).unwrap_or(AMOUNT_MAX);
    (owed.min(collateral), owed.saturating_sub(collateral))
}

impl Oracle {
    /// Takes a lock out to change it.
    pub(super) fn begin(&mut self, account: Account, id: Id) -> Edit<'_> {
        self.disarm(account, id);
        let kept_after_end = self.kept_after_end(account.1, id);
        let kept_after_change = self.kept_after_change();
        let lock = self.locks.remove(&(account, id)).expect("only known locks are changed");
        let partition = self.partitions.get_mut(&account.1).expect("a lock's partition exists");
        Edit {
            was_live: lock.is_live(),
            lock,
            partition,
            locks: &mut self.locks,
            account,
            id,
            now: self.time,
            kept_after_end,
            kept_after_change,
            timers: &mut self.timers,
            forgettable: &mut self.forgettable,
        }
    }

    /// The price now, however old, of a lock in another currency.
    pub(super) fn price_now(&self, account: Account, id: Id) -> Option<u128> {
        let quote = self.locks[&(account, id)].quote?;
        let asset = self.partitions[&account.1].asset;
        self.prices.get(&(asset, quote.quote)).map(|price| price.price)
    }

    /// The lock that a change is about: it must not wait for time; or the answer that there is none.
    pub(super) fn lock_or_answer(&self, ask: &Ask, id: Id) -> Result<Option<Outcome>, Code> {
        if self.is_overdue(ask.home, id) {
            return Err(Code::Overloaded);
        }
        if self.locks.contains_key(&(ask.home, id)) {
            return Ok(None);
        }
        self.check_lock_not_lost(ask, id)?;
        let end = self.end_of_spent(ask.home, id).unwrap_or(End::None);
        let code = if end == End::None { Code::UnknownLock } else { Code::NotOpen };
        Ok(Some(Outcome { end, ..Outcome::new(code) }))
    }

    /// Row 22.
    pub(super) fn settle(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        if let Some(answer) = self.lock_or_answer(ask, body.lock)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, body.lock)];
        let is_whole = body.capture == ALL_CAPTURES;
        let place = lock.place_of(body.capture);
        let capture = place.map(|place| &lock.captures[place]);
        let code = if lock.is_called {
            Some(Code::GuaranteeCalled)
        } else if is_whole && lock.end == End::Settled {
            Some(Code::AlreadySettled)
        } else if let Some(code) = capture.and_then(closed) {
            Some(code)
        } else if body.version != 0 && body.version != lock.version {
            Some(Code::VersionConflict)
        } else if !is_whole && capture.is_none() {
            Some(Code::UnknownCapture)
        } else {
            None
        };
        if let Some(code) = code {
            return Ok(Outcome::of(code, body.lock));
        }
        let deadline = lock.deadline;
        let mut edit = self.begin(ask.home, body.lock);
        let (settled, freed) =
            if is_whole { edit.settle_all() } else { edit.settle_capture(place.unwrap_or(usize::MAX)) };
        edit.done();
        body.freed = signed(freed);
        record.set_body(&body);
        record.result = Amount(settled);
        let outcome = Outcome::of(Code::Approved, body.lock);
        Ok(Outcome { approved: settled, deadline, capture: body.capture, ..outcome })
    }

    /// Row 23. What is held is consumed up to what was approved: headroom was never promised to the merchant.
    pub(super) fn consume(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ConsumeBody = record.body();
        let is_held = body.capture == ALL_CAPTURES;
        if let Some(answer) = self.lock_or_answer(ask, body.lock)? {
            return Ok(answer);
        }
        let amount = record.amount.0;
        if is_held && amount == 0 {
            return Err(Code::Malformed);
        }
        let lock = &self.locks[&(ask.home, body.lock)];
        let place = lock.place_of(body.capture);
        let capture = place.map(|place| &lock.captures[place]);
        let is_covered = match capture {
            Some(capture) => amount == 0 || amount == capture.u,
            None => lock.collateral_of(amount) <= lock.total().saturating_sub(lock.c),
        };
        let code = if lock.is_called {
            Some(Code::GuaranteeCalled)
        } else if is_held && !lock.is_live() {
            Some(ended_code(lock))
        } else if let Some(code) = capture.and_then(closed) {
            Some(code)
        } else if !is_held && capture.is_none() {
            Some(Code::UnknownCapture)
        } else if lock.merchant == MerchantId(0) {
            Some(Code::Forbidden)
        } else if !is_covered {
            Some(Code::Insufficient)
        } else {
            None
        };
        if let Some(code) = code {
            return Ok(Outcome::of(code, body.lock));
        }
        let (merchant, deadline) = (lock.merchant, lock.deadline);
        let price = self.price_now(ask.home, body.lock);
        let mut edit = self.begin(ask.home, body.lock);
        let (paid, freed, missing) = match place {
            None => edit.consume_held(amount, price),
            Some(place) => edit.consume_capture(place, price),
        };
        edit.done();
        body.merchant = merchant;
        body.freed = if missing > 0 { -signed(missing) } else { signed(freed) };
        record.set_body(&body);
        record.result = Amount(paid);
        if missing > 0 {
            record.flags |= Flags::EXPOSED.0;
        }
        let outcome = Outcome::of(Code::Approved, body.lock);
        Ok(Outcome { approved: paid, extra: missing, deadline, capture: body.capture, ..outcome })
    }
}

impl Edit<'_> {
    /// A part of what is held, for a payment that failed before it was captured.
    fn consume_held(&mut self, amount: u128, price: Option<u128>) -> (u128, u128, u128) {
        let part = self.lock.collateral_of(amount);
        let (paid, missing) = owed(&self.lock, part, amount, price);
        self.lock.c += part;
        self.lock.direct += part;
        if let Some(quote) = &mut self.lock.quote {
            quote.captured += amount;
        }
        self.partition.h -= part;
        self.partition.w += paid;
        self.partition.x += missing;
        (paid, self.give_back(part - paid), missing)
    }
}

/// Why a capture with nothing left can neither be settled nor consumed.
fn closed(capture: &Capture) -> Option<Code> {
    match (capture.u, capture.s) {
        (1.., _) => None,
        (0, 1..) => Some(Code::AlreadySettled),
        (0, 0) => Some(Code::NotOpen),
    }
}
