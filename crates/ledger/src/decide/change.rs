//! Rows 7 to 15, 19 to 21: what the lock's own side does to it.

use surety_protocol::limits::ID_FUTURE_MAX;
use surety_protocol::{Amount, ChangeBody, Code, End, Flags, Id, Kind, Record, Time, sabotage};

use super::lock::{BPS, ended_code};
use super::{Ask, Outcome};
use crate::due::signed;
use crate::edit::Edit;
use crate::index::Found;
use crate::ledger::{Ledger, stale_at};
use crate::lock::{Capture, Lock, flag};
use crate::op::{Memo, Op, Quota};
use crate::slab::NONE;
use crate::units::{mul_div_ceil, mul_div_floor};
use crate::wire;

/// How much of a capture is taken from where.
#[derive(Clone, Copy, Debug, Default)]
struct Draw {
    /// From what is approved.
    approved: u128,
    /// From headroom.
    headroom: u128,
    /// From F.
    free: u128,
}

impl Draw {
    const fn total(&self) -> u128 {
        self.approved + self.headroom + self.free
    }

    /// What raises A.
    const fn excess(&self) -> u128 {
        self.headroom + self.free
    }
}

impl Ledger {
    /// The answer to a change of what is no lock: the id of a lock that never was, or nothing. An error if it may be lost.
    pub(crate) fn not_a_lock(&self, ask: &Ask, lock: u128, found: Option<Found>) -> Result<Outcome, Code> {
        let end = match found {
            Some(Found::Op(slot)) => self.end_of_op(self.ops.get(slot)),
            _ => {
                self.check_lock_not_lost(ask, lock)?;
                End::None
            }
        };
        let code = if end == End::None { Code::UnknownLock } else { Code::NotOpen };
        Ok(Outcome { end, ..Outcome::new(code) })
    }

    /// Finds the lock of a change, or the answer that there is none.
    pub(crate) fn lock_or_answer(&self, ask: &Ask, id: u128) -> Result<Result<u32, Outcome>, Code> {
        match self.find(ask.account, id) {
            Some(Found::Lock(slot)) if self.is_overdue(self.locks.get(slot)) => Err(Code::Overloaded),
            Some(Found::Lock(slot)) => Ok(Ok(slot)),
            other => Ok(Err(self.not_a_lock(ask, id, other)?)),
        }
    }

    /// The part of V that came from reversals after the end.
    pub(crate) fn reversed(&self, lock: &Lock) -> u128 {
        if lock.ext == NONE { 0 } else { self.exts.get(lock.ext).reversed }
    }

    /// Row 7.
    pub(super) fn decrease(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ChangeBody = record.body();
        let slot = match self.lock_or_answer(ask, body.lock.0)? {
            Ok(slot) => slot,
            Err(answer) => return Ok(answer),
        };
        let lock = *self.locks.get(slot);
        if let Err(code) = self.judge_decrease(&lock, &body, record.amount.0) {
            return Ok(Outcome::new(code).of(slot));
        }
        let edit = &mut self.edit(slot);
        let total = if lock.has(flag::QUOTE) {
            let ext = self.ext_of(edit);
            let value = core::mem::replace(&mut ext.value, record.amount.0);
            // Rounded up, and never below what is captured: the rest keeps its collateral.
            mul_div_ceil(lock.total(), record.amount.0, value).unwrap_or(lock.total()).max(lock.captured)
        } else {
            self.ext_of(edit);
            record.amount.0
        };
        let returned = lock.total().saturating_sub(total);
        self.lock_mut(edit).released += returned;
        self.money(edit).held -= returned;
        // From here on V is more than what a release gives back.
        self.ext_of(edit).reversed += returned;
        let freed = self.give_back(edit, returned);
        let deadline = self.edited(edit).deadline;
        self.commit(edit);
        wire::set_freed(record, signed(freed));
        record.result = Amount(returned);
        Ok(Outcome { deadline, ..Outcome::new(Code::Approved).of(slot).moving(returned) })
    }

    fn judge_decrease(&self, lock: &Lock, body: &ChangeBody, total: u128) -> Result<(), Code> {
        if !lock.is_live() {
            return Err(Code::NotOpen);
        }
        self.check_version(lock, body.version)?;
        if self.version(lock) == u16::MAX {
            return Err(Code::VersionConflict);
        }
        let captured =
            if lock.has(flag::QUOTE) { self.exts.get(lock.ext).captured_value } else { lock.captured };
        if total < captured || total >= self.total_asked(lock) { Err(Code::OverLimit) } else { Ok(()) }
    }

    /// Rows 8 to 10 and 19.
    pub(super) fn capture(
        &mut self,
        ask: &Ask,
        record: &mut Record,
        outcome: &mut Outcome,
    ) -> Result<(), Code> {
        let named = wire::lock_of(record).0;
        let slot = match self.find(ask.account, named) {
            Some(Found::Lock(slot)) => slot,
            other => {
                *outcome = self.not_a_lock(ask, named, other)?;
                return Ok(());
            }
        };
        let lock = *self.locks.get(slot);
        if self.is_overdue(&lock) {
            return Err(Code::Overloaded);
        }
        if ask.is_live && self.is_time_behind() && self.draws_on_free(&lock, record.amount.0) {
            return Err(Code::Overloaded);
        }
        let settle_by = self.settle_by_of_lock(ask.partition, &lock);
        let judged = if lock.end == End::Expired {
            self.judge_late(ask, &lock, record, settle_by)
        } else {
            self.judge_capture(ask, &lock, record, settle_by)
        };
        let (code, draw) = match judged {
            Ok(judged) => judged,
            Err(code) => {
                (outcome.code, outcome.lock) = (code, Some(slot));
                return Ok(());
            }
        };
        let edit = &mut self.edit(slot);
        let asked = record.amount.0;
        let value = if lock.has(flag::QUOTE) { self.captured_value(edit, asked, draw, code) } else { 0 };
        let index = self.take(edit, draw, value, settle_by);
        let mut freed = -signed(draw.free);
        if lock.is_live() && record.flags().has(Flags::FINAL) {
            self.lock_mut(edit).end = End::Final;
            freed += signed(self.give_back_rest(edit).1);
        }
        if lock.end == End::Expired {
            record.flags |= Flags::LATE.0;
        } else if draw.excess() > 0 {
            record.flags |= Flags::EXCESS.0;
        }
        self.commit(edit);
        wire::set_capture(record, freed, settle_by, u16::from(index));
        record.result = Amount(draw.total());
        (outcome.code, outcome.lock) = (code, Some(slot));
        outcome.approved = draw.total();
        outcome.capture = u16::from(index);
        outcome.deadline = settle_by;
        outcome.memo = Memo::Amount;
        Ok(())
    }

    /// Whether a capture's outcome depends on what is free.
    fn draws_on_free(&self, lock: &Lock, amount: u128) -> bool {
        let headroom = if lock.ext == NONE { 0 } else { self.exts.get(lock.ext).headroom };
        let held = lock.total().saturating_sub(lock.captured).saturating_add(headroom);
        lock.end == End::Expired || lock.is_live() && self.collateral_of_capture(lock, amount) > held
    }

    /// What a capture of a live lock takes from where.
    fn judge_capture(
        &self,
        ask: &Ask,
        lock: &Lock,
        record: &Record,
        settle_by: Time,
    ) -> Result<(Code, Draw), Code> {
        if !lock.is_live() {
            return Err(ended_code(lock));
        }
        self.check_version(lock, wire::version_of(record))?;
        self.check_room(lock)?;
        let wanted = self.collateral_of_capture(lock, record.amount.0);
        let capturable = lock.total() - lock.captured;
        if wanted <= capturable {
            return Ok((Code::Approved, Draw { approved: wanted, ..Draw::default() }));
        }
        let partition = &self.partitions[ask.partition as usize];
        let (headroom_left, excess_so_far) = match lock.ext {
            NONE => (0, 0),
            ext => (self.exts.get(ext).headroom, self.exts.get(ext).excess),
        };
        let (tolerance_bps, _) = partition.policy.category(lock.category);
        let tolerated = mul_div_floor(lock.approved - excess_so_far, u128::from(tolerance_bps), BPS)
            .unwrap_or(u128::MAX)
            .saturating_sub(excess_so_far);
        let excess = wanted - capturable;
        let headroom = excess.min(headroom_left);
        let free = excess - headroom;
        let available = if partition.stops_locks() { 0 } else { partition.available(until(settle_by)) };
        if excess <= tolerated && free <= available {
            return Ok((Code::Approved, Draw { approved: capturable, headroom, free }));
        }
        if record.flags().has(Flags::ALL_OR_NOTHING) {
            return Err(Code::Insufficient);
        }
        // What R holds, as far as the tolerance lets its headroom be captured.
        let partly = Draw { approved: capturable, headroom: headroom.min(tolerated), free: 0 };
        if partly.total() == 0 { Err(Code::Insufficient) } else { Ok((Code::Partial, partly)) }
    }

    /// What a capture of an expired lock takes: all of it from F.
    fn judge_late(
        &self,
        ask: &Ask,
        lock: &Lock,
        record: &Record,
        settle_by: Time,
    ) -> Result<(Code, Draw), Code> {
        let partition = &self.partitions[ask.partition as usize];
        let is_open = partition.policy.late_capture == 1
            && self.time <= lock.deadline.plus(partition.policy.late_window);
        if !is_open {
            return Err(Code::NotOpen);
        }
        self.check_version(lock, wire::version_of(record))?;
        self.check_room(lock)?;
        if partition.stops_locks() {
            return Err(Code::Frozen);
        }
        let wanted = self.collateral_of_capture(lock, record.amount.0);
        let (late, headroom) = match lock.ext {
            NONE => (0, 0),
            ext => (self.exts.get(ext).late, self.exts.get(ext).headroom),
        };
        let late = if sabotage!("late-capture-drawn-again") { 0 } else { late };
        let expired = lock.expired(headroom);
        let is_covered = late.checked_add(wanted).is_some_and(|late| late <= expired)
            && wanted <= partition.available(until(settle_by));
        if is_covered {
            Ok((Code::Approved, Draw { free: wanted, ..Draw::default() }))
        } else {
            Err(Code::Insufficient)
        }
    }

    /// What an amount in the lock's own currency is of its collateral, after what was captured before:
    /// `floor(cumulative captured value x A / approved value)` less that.
    pub(crate) fn collateral_of_capture(&self, lock: &Lock, amount: u128) -> u128 {
        if !lock.has(flag::QUOTE) {
            return amount;
        }
        let ext = self.exts.get(lock.ext);
        let cumulative = ext.captured_value.saturating_add(amount);
        let captured = mul_div_floor(cumulative, ext.base, ext.value).unwrap_or(u128::MAX);
        captured.saturating_sub(lock.captured)
    }

    /// The value that a capture of a quote lock stands for: what was asked, or the share of it that was captured.
    fn captured_value(&self, edit: &Edit, asked: u128, draw: Draw, code: Code) -> u128 {
        if code == Code::Approved {
            return asked;
        }
        let wanted = self.collateral_of_capture(self.edited(edit), asked).max(1);
        mul_div_floor(asked, draw.total(), wanted).unwrap_or(asked)
    }

    /// Moves what a capture takes to U, and makes the capture.
    fn take(&mut self, edit: &mut Edit, draw: Draw, value: u128, settle_by: Time) -> u8 {
        let total = draw.total();
        let is_late = self.edited(edit).end == End::Expired;
        if draw.excess() > 0 {
            let ext = self.ext_of(edit);
            ext.headroom -= draw.headroom;
            if is_late {
                ext.late += draw.free;
            } else {
                ext.excess += draw.excess();
            }
            self.lock_mut(edit).approved += draw.excess();
        }
        if self.edited(edit).has(flag::QUOTE) {
            let ext = self.ext_of(edit);
            ext.captured_value += value;
            if !is_late {
                ext.value = ext.value.max(ext.captured_value);
            }
        }
        self.lock_mut(edit).captured += total;
        let money = self.money(edit);
        money.free -= draw.free;
        money.held -= draw.approved + draw.headroom;
        money.captured += total;
        let capture = Capture { open: total, value, settle_by, is_late, ..Capture::default() };
        let index = self.insert_capture(edit.slot, capture);
        if settle_by > Time::ZERO && total > 0 && !self.edited(edit).has(flag::CALLED) {
            self.arm(edit.slot, settle_by);
        }
        self.earn_fee(edit.partition, total);
        index
    }

    /// Rows 11, 12 and 15.
    pub(super) fn release(
        &mut self,
        ask: &Ask,
        record: &mut Record,
        outcome: &mut Outcome,
    ) -> Result<(), Code> {
        let lock = wire::lock_of(record).0;
        match self.find(ask.account, lock) {
            Some(Found::Lock(slot)) => return self.release_lock(slot, record, outcome),
            Some(Found::Op(slot)) => {
                outcome.end = self.end_of_op(self.ops.get(slot));
                // It never held anything.
                outcome.code = if outcome.end == End::None { Code::UnknownLock } else { Code::Approved };
            }
            None => *outcome = self.release_unknown(ask, lock)?,
        }
        Ok(())
    }

    fn release_lock(&mut self, slot: u32, record: &mut Record, outcome: &mut Outcome) -> Result<(), Code> {
        let lock = *self.locks.get(slot);
        if self.is_overdue(&lock) {
            return Err(Code::Overloaded);
        }
        outcome.lock = Some(slot);
        outcome.code = match lock.end {
            End::Live if lock.has(flag::CALLED) => Code::GuaranteeCalled,
            End::Live | End::Expired => {
                self.check_version(&lock, wire::version_of(record)).err().unwrap_or(Code::Approved)
            }
            _ => Code::Approved,
        };
        if outcome.code != Code::Approved {
            return Ok(());
        }
        outcome.deadline = lock.deadline;
        outcome.memo = Memo::Side;
        if lock.end == End::Live {
            let edit = &mut self.edit(slot);
            self.lock_mut(edit).end = if lock.captured > 0 { End::Final } else { End::Released };
            let (rest, freed) = self.give_back_rest(edit);
            self.commit(edit);
            wire::set_freed(record, signed(freed));
            record.result = Amount(rest);
            outcome.approved = rest;
            outcome.memo = Memo::Released;
        } else if lock.end == End::Expired {
            // It can no longer be presented; nothing moves.
            let edit = &mut self.edit(slot);
            self.lock_mut(edit).end = End::Released;
            self.commit(edit);
        }
        Ok(())
    }

    /// A release that overtakes its lock leaves a tombstone, unless the lock can no longer come.
    fn release_unknown(&mut self, ask: &Ask, lock: u128) -> Result<Outcome, Code> {
        self.check_lock_not_lost(ask, lock)?;
        let answer = Outcome { end: End::Tombstone, ..Outcome::new(Code::Approved) };
        if self.time >= stale_at(lock, Kind::Lock, false, self.config.id_window) {
            return Ok(Outcome { end: End::None, ..answer });
        }
        if ask.is_live {
            self.check_not_of_the_future(lock)?;
            if let Some(tenant) = self.quotas_of(ask) {
                tenant.check_ids(Quota::Tombstones)?;
            }
            // For the lock's id beside the request's own.
            self.check_room_for_ids(2)?;
        }
        let mut tombstone = Op::new(lock, ask.account, Kind::Release, Code::AlreadyReleased, ask.seq);
        tombstone.memo = Memo::Tombstone;
        self.insert_op(tombstone, None);
        Ok(answer)
    }

    /// An id that is not known may be spent for another, but not one of a far future.
    pub(super) fn check_not_of_the_future(&self, id: u128) -> Result<(), Code> {
        let is_of_the_future = Id(id).time() > self.time.plus(ID_FUTURE_MAX);
        if is_of_the_future { Err(Code::IdFromFuture) } else { Ok(()) }
    }

    /// Rows 13 and 14.
    pub(super) fn reverse(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ChangeBody = record.body();
        let slot = match self.lock_or_answer(ask, body.lock.0)? {
            Ok(slot) => slot,
            Err(answer) => return Ok(Outcome { memo: Memo::Side, ..answer }),
        };
        let lock = *self.locks.get(slot);
        let answer =
            Outcome { deadline: lock.deadline, capture: body.capture, ..Outcome::new(Code::Approved) };
        let declined = |code| Ok(Outcome::new(code).of(slot));
        if let Err(code) = self.check_version(&lock, body.version) {
            return declined(code);
        }
        let Some(capture_slot) = self.capture_slot(&lock, body.capture) else {
            return declined(Code::UnknownCapture);
        };
        let capture = *self.captures.get(capture_slot);
        // One that was taken back before has nothing left to take back.
        if (capture.open != capture.total() || capture.open == 0) && !sabotage!("refunded-capture-reversed") {
            return declined(Code::UseRefund);
        }
        let amount = capture.open;
        let edit = &mut self.edit(slot);
        self.edit_capture(slot, capture_slot, |capture| (capture.open, capture.value) = (0, 0));
        self.lock_mut(edit).captured -= amount;
        self.money(edit).captured -= amount;
        if lock.has(flag::QUOTE) {
            self.ext_of(edit).captured_value -= capture.value;
        }
        let freed = if lock.is_live() {
            self.money(edit).held += amount;
            0
        } else {
            let ext = self.ext_of(edit);
            ext.reversed += amount;
            if capture.is_late {
                ext.late -= amount;
            }
            self.lock_mut(edit).released += amount;
            self.give_back(edit, amount)
        };
        self.commit(edit);
        wire::set_freed(record, signed(freed));
        record.result = Amount(amount);
        Ok(answer.of(slot).moving(amount))
    }

    /// Row 21.
    pub(super) fn refund(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ChangeBody = record.body();
        let slot = match self.lock_or_answer(ask, body.lock.0)? {
            Ok(slot) => slot,
            Err(answer) => return Ok(answer),
        };
        let lock = *self.locks.get(slot);
        let answer =
            Outcome { deadline: lock.deadline, capture: body.capture, ..Outcome::new(Code::Approved) };
        if let Err(code) = self.check_version(&lock, body.version) {
            return Ok(Outcome::new(code).of(slot));
        }
        let Some(capture_slot) = self.capture_slot(&lock, body.capture) else {
            return Ok(Outcome::new(Code::UnknownCapture).of(slot));
        };
        let capture = *self.captures.get(capture_slot);
        let (amount, value) = refundable(&lock, &capture, record.amount.0);
        let edit = &mut self.edit(slot);
        self.edit_capture(slot, capture_slot, |capture| {
            capture.open -= amount;
            capture.refunded += amount;
            capture.value -= value;
        });
        self.money(edit).captured -= amount;
        let freed = self.give_back(edit, amount);
        self.commit(edit);
        wire::set_freed(record, signed(freed));
        record.result = Amount(amount);
        Ok(answer.of(slot).moving(amount))
    }

    /// Row 20. The amount is in collateral, whatever the lock's currency: nobody knows the price of a payment that was
    /// made without asking.
    pub(super) fn advice(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ChangeBody = record.body();
        match self.find(ask.account, body.lock.0) {
            Some(Found::Lock(slot)) if self.is_overdue(self.locks.get(slot)) => Err(Code::Overloaded),
            Some(Found::Lock(slot)) => self.advise_lock(ask, slot, record),
            // A lock of its own would say of a lost one that it never was: what is told now is only exposure.
            None if !self.may_be_lost(body.lock.0) => self.advise_unknown(ask, body, record),
            other => {
                let end = match other {
                    Some(Found::Op(slot)) => self.end_of_op(self.ops.get(slot)),
                    _ => End::None,
                };
                self.expose(ask.partition, record.amount.0)?;
                self.touched(ask.partition);
                record.flags |= Flags::EXPOSED.0;
                let extra = record.amount.0;
                Ok(Outcome { end, extra, memo: Memo::Side, ..Outcome::new(Code::Approved) })
            }
        }
    }

    fn advise_lock(&mut self, ask: &Ask, slot: u32, record: &mut Record) -> Result<Outcome, Code> {
        let lock = *self.locks.get(slot);
        let amount = record.amount.0;
        let mut draw = Draw::default();
        if self.check_room(&lock).is_ok() {
            if lock.is_live() {
                draw.approved = amount.min(lock.total() - lock.captured);
                let headroom = if lock.ext == NONE { 0 } else { self.exts.get(lock.ext).headroom };
                draw.headroom = headroom.min(amount - draw.approved);
            } else if lock.end == End::Expired {
                let available = self.partitions[ask.partition as usize].available(self.time);
                draw.free = amount.min(available);
            }
        }
        let exposure = amount - draw.total();
        self.expose(ask.partition, exposure)?;
        let settle_by = self.settle_by_of_lock(ask.partition, &lock);
        let mut outcome = Outcome::new(Code::Approved).of(slot).moving(draw.total());
        outcome.extra = exposure;
        let mut freed = -signed(draw.free);
        let edit = &mut self.edit(slot);
        if draw.total() > 0 {
            let value = self.value_of_collateral(&lock, draw.total());
            let index = self.take(edit, draw, value, settle_by);
            (outcome.capture, outcome.deadline) = (u16::from(index), settle_by);
        }
        if lock.is_live() && record.flags().has(Flags::FINAL) {
            self.lock_mut(edit).end = End::Final;
            freed += signed(self.give_back_rest(edit).1);
        }
        if lock.end == End::Expired && draw.free > 0 {
            record.flags |= Flags::LATE.0;
        } else if draw.excess() > 0 {
            record.flags |= Flags::EXCESS.0;
        }
        if exposure > 0 {
            record.flags |= Flags::EXPOSED.0;
        }
        self.commit(edit);
        wire::set_capture(
            record,
            freed,
            outcome.deadline,
            if draw.total() > 0 { outcome.capture } else { 0 },
        );
        record.result = Amount(draw.total());
        Ok(outcome)
    }

    /// An advice of a payment that was never asked for makes its lock: it has no merchant that could be paid on chain.
    fn advise_unknown(&mut self, ask: &Ask, body: ChangeBody, record: &mut Record) -> Result<Outcome, Code> {
        let amount = record.amount.0;
        if ask.is_live && body.lock.time() > self.time.plus(surety_protocol::limits::ID_FUTURE_MAX) {
            return Err(Code::IdFromFuture);
        }
        let partition = &self.partitions[ask.partition as usize];
        let covered = amount.min(partition.available(self.time));
        let exposure = amount - covered;
        self.expose(ask.partition, exposure)?;
        let settle_by = self.settle_by_from_now(ask.partition);
        let slot = self.insert_lock(body.lock.0, ask.account);
        // What leaps at a loss goes by it: this lock has lived through none.
        self.locks.get_mut(slot).seq = ask.seq;
        let capture = Capture { open: covered, settle_by, ..Capture::default() };
        let index = self.insert_capture(slot, capture);
        let since = self.kept_after_end(self.locks.get(slot), ask.partition);
        let now = self.time;
        let lock = self.locks.get_mut(slot);
        (lock.approved, lock.captured) = (covered, covered);
        (lock.end, lock.deadline, lock.since) = (End::Exposed, now, since);
        let money = &mut self.partition_mut(ask.partition).money;
        let open_before = money.held + money.captured;
        money.free -= covered;
        money.captured += covered;
        self.earn_fee(ask.partition, covered);
        self.arm_new(slot);
        self.hash_in_lock(slot);
        self.settle_open(ask.partition, slot, open_before);
        self.touched(ask.partition);
        wire::set_capture(record, -signed(covered), settle_by, u16::from(index));
        record.result = Amount(covered);
        if exposure > 0 {
            record.flags |= Flags::EXPOSED.0;
        }
        let outcome = Outcome::new(Code::Approved).of(slot).moving(covered);
        Ok(Outcome { extra: exposure, capture: u16::from(index), deadline: settle_by, ..outcome })
    }

    /// 0 means that the sender does not mind.
    pub(crate) fn check_version(&self, lock: &Lock, version: u16) -> Result<(), Code> {
        if version == 0 || version == self.version(lock) { Ok(()) } else { Err(Code::VersionConflict) }
    }

    fn check_room(&self, lock: &Lock) -> Result<(), Code> {
        if self.next_capture(lock).is_some() { Ok(()) } else { Err(Code::UnknownCapture) }
    }

    /// Adds to X. What no counter can hold is refused: it would take ten million of the largest amounts.
    pub(crate) fn expose(&mut self, partition: u32, amount: u128) -> Result<(), Code> {
        let money = &mut self.partition_mut(partition).money;
        money.exposure = money.exposure.checked_add(amount).ok_or(Code::Overloaded)?;
        Ok(())
    }

    /// The value that collateral of a quote lock stands for, rounded down.
    pub(crate) fn value_of_collateral(&self, lock: &Lock, collateral: u128) -> u128 {
        if !lock.has(flag::QUOTE) {
            return 0;
        }
        let ext = self.exts.get(lock.ext);
        mul_div_floor(collateral, ext.value, ext.base.max(1)).unwrap_or(0)
    }
}

/// What a refund takes of a capture's collateral, and of its value: of a quote lock the same share of both.
fn refundable(lock: &Lock, capture: &Capture, asked: u128) -> (u128, u128) {
    if !lock.has(flag::QUOTE) {
        return (asked.min(capture.open), 0);
    }
    if asked >= capture.value {
        return (capture.open, capture.value);
    }
    // Rounded down: what stays guaranteed keeps its collateral.
    (mul_div_floor(capture.open, asked, capture.value).unwrap_or(0), asked)
}

/// The moment until which a capture needs its collateral.
fn until(settle_by: Time) -> Time {
    if settle_by == Time::ZERO { Time(u64::MAX) } else { settle_by }
}
