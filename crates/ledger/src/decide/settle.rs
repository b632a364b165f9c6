//! Rows 22 to 24: what became of the payer's asset.

use surety_protocol::{ALL_CAPTURES, Amount, ChangeBody, Code, ConsumeBody, End, Flags, MerchantId, Record};

use super::lock::{WHOLE, ended_code};
use super::{Ask, Outcome};
use crate::due::signed;
use crate::edit::Edit;
use crate::ledger::Ledger;
use crate::lock::{Capture, Lock, flag};
use crate::op::Memo;
use crate::units::mul_div_floor;
use crate::wire;

/// What a consumption has moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Consumed {
    /// To W.
    pub(crate) paid: u128,
    /// Beside it to F; with [`Flags::EXPOSED`] the shortfall, negative: it moved nothing.
    pub(crate) freed: i128,
    /// The shortfall, to X.
    pub(crate) exposure: u128,
    pub(crate) flags: Flags,
}

impl Ledger {
    /// Row 22.
    pub(super) fn settle(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ChangeBody = record.body();
        let slot = match self.lock_or_answer(ask, body.lock.0)? {
            Ok(slot) => slot,
            Err(answer) => return Ok(answer),
        };
        let lock = *self.locks.get(slot);
        if let Err(code) = self.judge_settle(&lock, &body) {
            return Ok(Outcome::new(code).of(slot));
        }
        let edit = &mut self.edit(slot);
        let (settled, freed) = if body.capture == ALL_CAPTURES {
            self.settle_all(edit)
        } else {
            self.settle_capture(edit, body.capture)
        };
        let is_live = self.edited(edit).is_live();
        self.commit(edit);
        wire::set_freed(record, signed(freed));
        record.result = Amount(settled);
        // While the lock is live its deadline may move, so the answer is kept as it was.
        let memo = if body.capture == ALL_CAPTURES || is_live { Memo::Side } else { Memo::Settled };
        let outcome = Outcome::new(Code::Approved).of(slot);
        Ok(Outcome { approved: settled, deadline: lock.deadline, capture: body.capture, memo, ..outcome })
    }

    fn judge_settle(&self, lock: &Lock, body: &ChangeBody) -> Result<(), Code> {
        if lock.has(flag::CALLED) {
            return Err(Code::GuaranteeCalled);
        }
        if body.capture == ALL_CAPTURES && lock.end == End::Settled {
            return Err(Code::AlreadySettled);
        }
        if body.capture == ALL_CAPTURES {
            return self.check_version(lock, body.version);
        }
        let capture = self.capture_slot(lock, body.capture).map(|slot| self.captures.get(slot));
        if let Some(code) = capture.and_then(closed_code) {
            return Err(code);
        }
        self.check_version(lock, body.version)?;
        if capture.is_some() { Ok(()) } else { Err(Code::UnknownCapture) }
    }

    /// Settles every capture, and gives back what a live lock holds.
    pub(crate) fn settle_all(&mut self, edit: &mut Edit) -> (u128, u128) {
        let (mut settled, mut freed) = (0, 0);
        let (indices, count) = self.capture_indices(self.edited(edit));
        for index in &indices[..count] {
            let (u, free) = self.settle_capture(edit, u16::from(*index));
            settled += u;
            freed += free;
        }
        if self.edited(edit).is_live() {
            self.lock_mut(edit).end = End::Settled;
            let (rest, free) = self.give_back_rest(edit);
            settled += rest;
            freed += free;
        }
        self.lock_mut(edit).end = End::Settled;
        (settled, freed)
    }

    /// Settles one capture. Says what was settled and what of it went to F.
    pub(crate) fn settle_capture(&mut self, edit: &mut Edit, index: u16) -> (u128, u128) {
        let Some(slot) = self.capture_slot(self.edited(edit), index) else { return (0, 0) };
        let amount = self.captures.get(slot).open;
        if amount == 0 {
            return (0, 0);
        }
        self.edit_capture(edit.slot, slot, |capture| {
            capture.open = 0;
            capture.settled += amount;
        });
        self.money(edit).captured -= amount;
        (amount, self.give_back(edit, amount))
    }

    /// Row 23.
    pub(super) fn consume(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ConsumeBody = record.body();
        let slot = match self.lock_or_answer(ask, body.lock.0)? {
            Ok(slot) => slot,
            Err(answer) => return Ok(answer),
        };
        let lock = *self.locks.get(slot);
        if let Err(code) = self.judge_consume(&lock, &body, record.amount.0) {
            // Only an amount that makes no sense is not worth a record.
            return if code == Code::Malformed { Err(code) } else { Ok(Outcome::new(code).of(slot)) };
        }
        let edit = &mut self.edit(slot);
        let consumed = if body.capture == ALL_CAPTURES {
            self.consume_held(edit, record.amount.0)
        } else {
            self.consume_capture(edit, body.capture)
        };
        self.commit(edit);
        body.freed = consumed.freed;
        body.merchant = lock.merchant;
        record.set_body(&body);
        record.result = Amount(consumed.paid);
        record.flags |= consumed.flags.0;
        let outcome = Outcome::new(Code::Approved).of(slot).moving(consumed.paid);
        Ok(Outcome { extra: consumed.exposure, deadline: lock.deadline, capture: body.capture, ..outcome })
    }

    fn judge_consume(&self, lock: &Lock, body: &ConsumeBody, amount: u128) -> Result<(), Code> {
        let is_held = body.capture == ALL_CAPTURES;
        if is_held && amount == 0 {
            return Err(Code::Malformed);
        }
        if lock.has(flag::CALLED) {
            return Err(Code::GuaranteeCalled);
        }
        let capture = self.capture_slot(lock, body.capture).map(|slot| *self.captures.get(slot));
        if is_held && !lock.is_live() {
            return Err(ended_code(lock));
        }
        if let Some(code) = capture.as_ref().and_then(closed_code) {
            return Err(code);
        }
        if !is_held && capture.is_none() {
            return Err(Code::UnknownCapture);
        }
        // The payee is the lock's own; an advice of an unknown payment names none.
        if lock.merchant == MerchantId(0) {
            return Err(Code::Forbidden);
        }
        let is_covered = match capture {
            Some(capture) => amount == 0 || amount == capture.open,
            None => self.collateral_of_capture(lock, amount) <= lock.total() - lock.captured,
        };
        if is_covered { Ok(()) } else { Err(Code::Insufficient) }
    }

    /// Pays one capture to the merchant. In a quote currency: what the captured value is worth now, at most what is
    /// captured; the rest goes to F, a shortfall to X.
    pub(crate) fn consume_capture(&mut self, edit: &mut Edit, index: u16) -> Consumed {
        let Some(slot) = self.capture_slot(self.edited(edit), index) else { return Consumed::default() };
        let Capture { open, value, .. } = *self.captures.get(slot);
        let (paid, exposure) = self.owed_now(edit, open, value);
        let rest = open - paid;
        self.edit_capture(edit.slot, slot, |capture| {
            capture.open = 0;
            capture.consumed += paid;
            // What the price has left over is given back like a refund.
            capture.refunded += rest;
        });
        let money = self.money(edit);
        money.captured -= open;
        money.owed += paid;
        let freed = self.give_back(edit, rest);
        self.consumed(edit, paid, freed, exposure)
    }

    /// Pays a part of what a live lock holds, for a payment that failed before it was captured.
    fn consume_held(&mut self, edit: &mut Edit, amount: u128) -> Consumed {
        let part = self.collateral_of_capture(self.edited(edit), amount);
        let (paid, exposure) = self.owed_now(edit, part, amount);
        let rest = part - paid;
        let is_quote = self.edited(edit).has(flag::QUOTE);
        let ext = self.ext_of(edit);
        // The whole part is used up: what the price has left over is given back at once.
        ext.paid += part;
        if is_quote {
            ext.captured_value += amount;
        }
        self.lock_mut(edit).captured += part;
        let money = self.money(edit);
        money.held -= part;
        money.owed += paid;
        let freed = self.give_back(edit, rest);
        self.consumed(edit, paid, freed, exposure)
    }

    fn consumed(&mut self, edit: &Edit, paid: u128, freed: u128, exposure: u128) -> Consumed {
        if exposure == 0 {
            return Consumed { paid, freed: signed(freed), ..Consumed::default() };
        }
        let money = self.money(edit);
        money.exposure = money.exposure.saturating_add(exposure);
        // A shortfall means that everything was paid, so nothing was freed.
        Consumed { paid, freed: -signed(exposure), exposure, flags: Flags::EXPOSED }
    }

    /// What is owed now for collateral that stands for a value: what to pay of it, and what is missing.
    fn owed_now(&self, edit: &Edit, collateral: u128, value: u128) -> (u128, u128) {
        if !self.edited(edit).has(flag::QUOTE) {
            return (collateral, 0);
        }
        let asset = self.partition_of(edit).asset;
        let quote = edit.ext.map_or_else(Default::default, |ext| ext.quote);
        let at_lock = edit.ext.map_or(0, |ext| ext.price);
        // However old: a failed payment does not wait for a price.
        let price = self.prices.get(&(asset, quote)).map_or(at_lock, |price| price.price);
        let owed = mul_div_floor(value, WHOLE, price).unwrap_or(surety_protocol::limits::AMOUNT_MAX);
        (owed.min(collateral), owed.saturating_sub(collateral))
    }
}

/// Why a capture with nothing left can neither be settled nor consumed.
fn closed_code(capture: &Capture) -> Option<Code> {
    match capture {
        Capture { open: 1.., .. } => None,
        Capture { settled: 1.., .. } => Some(Code::AlreadySettled),
        _ => Some(Code::NotOpen),
    }
}
