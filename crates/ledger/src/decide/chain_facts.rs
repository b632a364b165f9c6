//! Rows 25, 29, 30 and prices: facts of the chain.

use surety_protocol::limits::{AMOUNT_MAX, ID_FUTURE_MAX, PRICE_MAX};
use surety_protocol::{
    Amount, AssetId, ChangeBody, Code, ControlBody, End, Flags, PriceBody, QuoteId, Record, Time,
};

use super::{Ask, Outcome};
use crate::due::signed;
use crate::edit::Edit;
use crate::ledger::{Ledger, Price};
use crate::lock::{Lock, flag};

impl Ledger {
    /// Row 25.
    pub(super) fn batch_final(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ControlBody = record.body();
        let amount = record.amount.0;
        let partition = self.partition_mut(ask.partition);
        if amount > partition.money.owed || amount > partition.money.on_chain {
            return Ok(Outcome::new(Code::Insufficient));
        }
        // Batches are final in their order: an older number was booked before.
        if body.number <= partition.batch {
            return Ok(Outcome::new(Code::Exists));
        }
        partition.batch = body.number;
        partition.money.owed -= amount;
        partition.money.on_chain -= amount;
        self.touched(ask.partition);
        record.result = Amount(amount);
        Ok(Outcome::new(Code::Approved).moving(amount))
    }

    /// Row 29: the lock waits for the chain.
    pub(super) fn guarantee_called(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ChangeBody = record.body();
        let slot = match self.lock_or_answer(ask, body.lock.0)? {
            Ok(slot) => slot,
            Err(answer) => return Ok(answer),
        };
        let lock = *self.locks.get(slot);
        let declined = if lock.has(flag::CALLED) {
            Some(Code::GuaranteeCalled)
        } else if !lock.has(flag::CERTIFIED) {
            Some(Code::NotOpen)
        } else {
            None
        };
        if let Some(code) = declined {
            return Ok(Outcome::new(code).of(slot));
        }
        let edit = &mut self.edit(slot);
        self.lock_mut(edit).flags |= flag::CALLED;
        self.commit(edit);
        Ok(Outcome { deadline: lock.deadline, ..Outcome::new(Code::Approved).of(slot).moving(0) })
    }

    /// Row 29: the chain has dismissed the call, and everything goes on.
    pub(super) fn guarantee_dismissed(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ChangeBody = record.body();
        let slot = match self.lock_or_answer(ask, body.lock.0)? {
            Ok(slot) => slot,
            Err(answer) => return Ok(answer),
        };
        let lock = *self.locks.get(slot);
        if !lock.has(flag::CALLED) {
            return Ok(Outcome::new(Code::NotOpen).of(slot));
        }
        let edit = &mut self.edit(slot);
        self.lock_mut(edit).flags &= !flag::CALLED;
        self.commit(edit);
        // What has become due in the meantime is due now.
        self.arm_next(slot);
        Ok(Outcome { deadline: lock.deadline, ..Outcome::new(Code::Approved).of(slot).moving(0) })
    }

    /// Row 29: the chain has paid. It closes the lock, which pays at most once.
    pub(super) fn guarantee_paid(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        let slot = match self.lock_or_answer(ask, body.lock.0)? {
            Ok(slot) => slot,
            Err(answer) => return Ok(answer),
        };
        let lock = *self.locks.get(slot);
        let amount = record.amount.0;
        if let Err(code) = self.judge_paid(ask, &lock, amount) {
            return Ok(Outcome::new(code).of(slot));
        }
        let edit = &mut self.edit(slot);
        self.lock_mut(edit).flags &= !(flag::CALLED | flag::CERTIFIED);
        let missing = self.pay_guarantee(edit, amount);
        let money = self.money(edit);
        money.on_chain -= amount;
        let drawn = money.lose(missing);
        let freed = self.close_paid(edit);
        self.commit(edit);
        body.freed = signed(freed) - signed(drawn);
        record.set_body(&body);
        record.result = Amount(amount - (missing - drawn));
        if missing > drawn {
            record.flags |= Flags::EXPOSED.0;
        }
        self.arm_next(slot);
        let outcome = Outcome::new(Code::Approved).of(slot).moving(amount);
        Ok(Outcome { deadline: lock.deadline, extra: missing - drawn, ..outcome })
    }

    fn judge_paid(&self, ask: &Ask, lock: &Lock, amount: u128) -> Result<(), Code> {
        if !lock.has(flag::CERTIFIED) {
            return Err(Code::NotOpen);
        }
        let money = &self.partitions[ask.partition as usize].money;
        if amount > money.on_chain || money.deficit.saturating_add(amount) > AMOUNT_MAX << 8 {
            return Err(Code::Insufficient);
        }
        Ok(())
    }

    /// Takes what was paid from H, then U, then P of the lock. Says what these did not hold.
    fn pay_guarantee(&mut self, edit: &mut Edit, amount: u128) -> u128 {
        let mut left = amount;
        if self.edited(edit).is_live() {
            let held = self.rest(edit).min(left);
            left -= held;
            // Headroom is part of what was held: it is used up by being captured.
            let beyond = held.saturating_sub(self.edited(edit).total() - self.edited(edit).captured);
            let ext = self.ext_of(edit);
            ext.paid += held;
            ext.headroom -= beyond;
            ext.excess += beyond;
            self.lock_mut(edit).approved += beyond;
            self.lock_mut(edit).captured += held;
            self.money(edit).held -= held;
        }
        let (indices, count) = self.capture_indices(self.edited(edit));
        for index in &indices[..count] {
            let Some(slot) = self.capture_slot(self.edited(edit), u16::from(*index)) else { continue };
            let paid = self.captures.get(slot).open.min(left);
            if paid > 0 {
                left -= paid;
                self.edit_capture(edit.slot, slot, |capture| {
                    capture.open -= paid;
                    capture.consumed += paid;
                });
                self.money(edit).captured -= paid;
            }
        }
        let pending = edit.ext.map_or(0, |ext| ext.pending).min(left);
        if pending > 0 {
            self.ext_of(edit).pending -= pending;
            self.money(edit).pending -= pending;
        }
        left - pending
    }

    /// Whatever the lock still had is free: it can pay no more. Says how much.
    fn close_paid(&mut self, edit: &mut Edit) -> u128 {
        let (_, mut freed) = self.settle_all(edit);
        let pending = edit.ext.map_or(0, |ext| ext.pending);
        if pending > 0 {
            self.ext_of(edit).pending = 0;
            let money = self.money(edit);
            money.pending -= pending;
            money.credit(pending);
            freed += pending;
        }
        self.lock_mut(edit).end = End::Settled;
        freed
    }

    /// Row 30: K is lower than the books say. F bears it as far as it can.
    pub(super) fn deficit(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let amount = record.amount.0;
        let money = &mut self.partition_mut(ask.partition).money;
        if amount > money.on_chain || money.deficit.saturating_add(amount) > AMOUNT_MAX << 8 {
            return Ok(Outcome::new(Code::Insufficient));
        }
        money.on_chain -= amount;
        let borne = money.lose(amount);
        self.partition_mut(ask.partition).is_frozen = true;
        self.touched(ask.partition);
        record.result = Amount(borne);
        Ok(Outcome { extra: amount - borne, ..Outcome::new(Code::Approved).moving(borne) })
    }

    /// How much may be at risk, and until when. Amount 0 lets nothing be locked.
    pub(super) fn risk_cap(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ControlBody = record.body();
        if body.until == Time::ZERO {
            return Err(Code::Malformed);
        }
        let partition = self.partition_mut(ask.partition);
        partition.cap = record.amount.0;
        partition.cap_until = body.until;
        self.touched(ask.partition);
        Ok(Outcome::new(Code::Approved))
    }

    /// A price; an older one than the ledger has is declined.
    pub(super) fn price(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: PriceBody = record.body();
        let is_from_future = body.observed > self.time.plus(ID_FUTURE_MAX);
        let is_sane = body.asset != AssetId(0)
            && body.quote != QuoteId(0)
            && record.amount.0 <= PRICE_MAX
            && body.ratio_bps <= 1_000_000;
        if !is_sane || is_from_future {
            return Err(Code::Malformed);
        }
        let key = (body.asset, body.quote);
        let old = self.prices.get(&key).copied();
        if old.is_some_and(|old| body.observed < old.observed) {
            return Ok(Outcome::new(Code::Exists));
        }
        let new = Price {
            price: record.amount.0,
            ratio_bps: body.ratio_bps,
            observed: body.observed,
            seq: ask.seq,
        };
        if let Some(old) = old {
            self.hash_out(self.price_hash(key, &old));
        }
        self.hash_in(self.price_hash(key, &new));
        self.prices.insert(key, new);
        Ok(Outcome::new(Code::Approved))
    }
}
