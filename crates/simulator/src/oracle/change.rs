//! Rows 7 to 15 and 19 to 21: what the lock's own side does to it.

use surety_protocol::limits::CAPTURES_PER_LOCK_MAX;
use surety_protocol::{Amount, ChangeBody, Code, End, Flags, Id, Kind, PartitionHandle, Record, Time};

use super::lock::ended_code;
use super::money::{BPS, ceil, floor, on_grid, signed};
use super::settle::Edit;
use super::state::{Capture, Lock};
use super::{Ask, Oracle, Outcome};

/// Where a capture comes from.
#[derive(Clone, Copy, Default)]
pub(super) struct Draw {
    pub(super) approved: u128,
    pub(super) headroom: u128,
    pub(super) free: u128,
}

impl Draw {
    pub(super) const fn total(self) -> u128 {
        self.approved + self.headroom + self.free
    }
}

/// 0 means that the sender does not mind.
pub(super) fn is_other_version(lock: &Lock, version: u16) -> bool {
    version != 0 && version != lock.version
}

pub(super) fn is_full(lock: &Lock) -> bool {
    lock.captures.len() >= CAPTURES_PER_LOCK_MAX
}

/// A capture without a settle-by time needs its collateral for ever.
pub(super) fn until(settle_by: Time) -> Time {
    if settle_by == Time::ZERO { Time(u64::MAX) } else { settle_by }
}

impl Oracle {
    /// Row 7.
    pub(super) fn decrease(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        if let Some(answer) = self.lock_or_answer(ask, body.lock)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, body.lock)];
        let asked = record.amount.0;
        let captured = lock.quote.map_or(lock.c, |quote| quote.captured);
        let code = if !lock.is_live() {
            Some(Code::NotOpen)
        } else if is_other_version(lock, body.version) || lock.version == u16::MAX {
            Some(Code::VersionConflict)
        } else if asked < captured || asked >= lock.total_asked() {
            Some(Code::OverLimit)
        } else {
            None
        };
        if let Some(code) = code {
            return Ok(Outcome::of(code, body.lock));
        }
        let deadline = lock.deadline;
        let total = match lock.quote {
            None => asked,
            // Rounded up, and never below what is captured.
            Some(quote) => ceil(lock.total(), asked, quote.value).unwrap_or(lock.total()).max(lock.c),
        };
        let returned = lock.total().saturating_sub(total);
        let mut edit = self.begin(ask.home, body.lock);
        edit.lock.v += returned;
        edit.partition.h -= returned;
        if let Some(quote) = &mut edit.lock.quote {
            quote.value = asked;
        }
        let freed = edit.give_back(returned);
        edit.done();
        body.freed = signed(freed);
        record.set_body(&body);
        record.result = Amount(returned);
        Ok(Outcome { approved: returned, deadline, ..Outcome::of(Code::Approved, body.lock) })
    }

    /// Rows 8 to 10, and 19.
    pub(super) fn capture(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        if let Some(answer) = self.lock_or_answer(ask, body.lock)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, body.lock)];
        let asked = record.amount.0;
        let wanted = lock.collateral_of(asked);
        let held = lock.total().saturating_sub(lock.c).saturating_add(lock.g);
        let needs_free = lock.end == End::Expired || lock.is_live() && wanted > held;
        if needs_free && self.is_time_behind() {
            return Err(Code::Overloaded);
        }
        let settle_by = self.settle_by_of(ask.partition, lock);
        let judged = if lock.end == End::Expired {
            self.judge_late(ask, lock, body.version, wanted, settle_by)
        } else {
            self.judge_capture(ask, lock, body.version, wanted, settle_by, record.flags())
        };
        let (code, draw) = match judged {
            Ok(judged) => judged,
            Err(code) => return Ok(Outcome::of(code, body.lock)),
        };
        let value = match (lock.quote, code) {
            (None, _) => 0,
            (_, Code::Approved) => asked,
            _ => floor(asked, draw.total(), wanted.max(1)).unwrap_or(asked),
        };
        let mut edit = self.begin(ask.home, body.lock);
        let (was_live, is_late) = (edit.lock.is_live(), edit.lock.end == End::Expired);
        let index = take(&mut edit, draw, value, settle_by);
        let mut freed = -signed(draw.free);
        if was_live && record.flags().has(Flags::FINAL) {
            edit.lock.end = End::Final;
            freed += signed(edit.give_back_rest().1);
        }
        edit.done();
        if is_late {
            record.flags |= Flags::LATE.0;
        } else if draw.headroom + draw.free > 0 {
            record.flags |= Flags::EXCESS.0;
        }
        (body.freed, body.deadline, body.capture) = (freed, settle_by, index);
        record.set_body(&body);
        record.result = Amount(draw.total());
        let outcome = Outcome::of(code, body.lock);
        Ok(Outcome { approved: draw.total(), capture: index, deadline: settle_by, ..outcome })
    }

    fn judge_capture(
        &self,
        ask: &Ask,
        lock: &Lock,
        version: u16,
        wanted: u128,
        settle_by: Time,
        flags: Flags,
    ) -> Result<(Code, Draw), Code> {
        if !lock.is_live() {
            return Err(ended_code(lock));
        }
        if is_other_version(lock, version) {
            return Err(Code::VersionConflict);
        }
        if is_full(lock) {
            return Err(Code::UnknownCapture);
        }
        let approved = lock.total() - lock.c;
        if wanted <= approved {
            return Ok((Code::Approved, Draw { approved: wanted, ..Draw::default() }));
        }
        let partition = &self.partitions[&ask.partition];
        let excess = wanted - approved;
        // The excess over the whole life, of A without excess.
        let tolerance_bps = u128::from(partition.policy.category(lock.category).0);
        let tolerated = floor(lock.a - lock.excess, tolerance_bps, BPS).unwrap_or(u128::MAX);
        let tolerated = tolerated.saturating_sub(lock.excess);
        let headroom = excess.min(lock.g);
        let free = excess - headroom;
        let available = if partition.is_stopped() { 0 } else { partition.available(until(settle_by)) };
        if excess <= tolerated && free <= available {
            return Ok((Code::Approved, Draw { approved, headroom, free }));
        }
        let held = Draw { approved, headroom: headroom.min(tolerated), free: 0 };
        if flags.has(Flags::ALL_OR_NOTHING) || held.total() == 0 {
            return Err(Code::Insufficient);
        }
        Ok((Code::Partial, held))
    }

    /// Row 19.
    fn judge_late(
        &self,
        ask: &Ask,
        lock: &Lock,
        version: u16,
        wanted: u128,
        settle_by: Time,
    ) -> Result<(Code, Draw), Code> {
        let partition = &self.partitions[&ask.partition];
        let policy = &partition.policy;
        if policy.late_capture == 0 || self.time > lock.deadline.plus(policy.late_window) {
            return Err(Code::NotOpen);
        }
        if is_other_version(lock, version) {
            return Err(Code::VersionConflict);
        }
        if is_full(lock) {
            return Err(Code::UnknownCapture);
        }
        if partition.is_stopped() {
            return Err(Code::Frozen);
        }
        let is_within = lock.late.checked_add(wanted).is_some_and(|late| late <= lock.e);
        if !is_within || wanted > partition.available(until(settle_by)) {
            return Err(Code::Insufficient);
        }
        Ok((Code::Approved, Draw { free: wanted, ..Draw::default() }))
    }

    /// When a capture of a lock must be final: the certificate of a live lock outlives it, and it is not before the lock's end.
    pub(super) fn settle_by_of(&self, handle: PartitionHandle, lock: &Lock) -> Time {
        let settle_by = self.settle_by_from_now(handle);
        if !lock.is_certified || !lock.is_live() {
            return settle_by;
        }
        let margin = self.partitions[&handle].policy.claim_margin;
        let latest =
            on_grid(lock.claim_until.minus(margin)).max(lock.deadline).max(on_grid(self.time.plus(Time(1))));
        if settle_by == Time::ZERO { latest } else { settle_by.min(latest) }
    }

    /// Rows 11, 12 and 15.
    pub(super) fn release(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        if self.is_overdue(ask.home, body.lock) {
            return Err(Code::Overloaded);
        }
        if let Some(end) = self.end_of_spent(ask.home, body.lock) {
            // It never held anything.
            let code = if end == End::None { Code::UnknownLock } else { Code::Approved };
            return Ok(Outcome { end, ..Outcome::new(code) });
        }
        let Some(lock) = self.locks.get(&(ask.home, body.lock)) else {
            return self.release_unknown(ask, body.lock);
        };
        let is_open = lock.is_live() || lock.end == End::Expired;
        if lock.is_live() && lock.is_called {
            return Ok(Outcome::of(Code::GuaranteeCalled, body.lock));
        }
        if is_open && is_other_version(lock, body.version) {
            return Ok(Outcome::of(Code::VersionConflict, body.lock));
        }
        let mut outcome = Outcome { deadline: lock.deadline, ..Outcome::of(Code::Approved, body.lock) };
        if !is_open {
            return Ok(outcome);
        }
        let mut edit = self.begin(ask.home, body.lock);
        if edit.lock.is_live() {
            edit.lock.end = if edit.lock.c > 0 { End::Final } else { End::Released };
            let (rest, freed) = edit.give_back_rest();
            outcome.approved = rest;
            body.freed = signed(freed);
            record.set_body(&body);
            record.result = Amount(rest);
        } else {
            edit.lock.end = End::Released;
        }
        edit.done();
        Ok(outcome)
    }

    /// Row 15. An id that is too old can have no lock any more, and needs no tombstone.
    fn release_unknown(&mut self, ask: &Ask, id: Id) -> Result<Outcome, Code> {
        self.check_lock_not_lost(ask, id)?;
        if self.is_stale(id, Kind::Lock, false) {
            return Ok(Outcome::new(Code::Approved));
        }
        self.check_not_ahead(id)?;
        if let Some(quotas) = self.tenants.get(&ask.tenant)
            && !ask.is_operator
            && self.tombstones_of(ask.tenant, quotas.tombstones_max) >= quotas.tombstones_max
        {
            return Err(Code::QuotaTombstones);
        }
        // Beside the release's own.
        self.check_room_for(2)?;
        self.spend(ask.home, id, Kind::Release, None, Code::AlreadyReleased, ask.seq);
        Ok(Outcome { end: End::Tombstone, ..Outcome::new(Code::Approved) })
    }

    /// Rows 13 and 14.
    pub(super) fn reverse(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        if let Some(answer) = self.lock_or_answer(ask, body.lock)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, body.lock)];
        let index = lock.place_of(body.capture).unwrap_or(usize::MAX);
        let code = match lock.captures.get(index) {
            _ if is_other_version(lock, body.version) => Some(Code::VersionConflict),
            None => Some(Code::UnknownCapture),
            Some(capture) if capture.u == 0 || capture.u != capture.c() => Some(Code::UseRefund),
            Some(_) => None,
        };
        if let Some(code) = code {
            return Ok(Outcome::of(code, body.lock));
        }
        let deadline = lock.deadline;
        let mut edit = self.begin(ask.home, body.lock);
        let Capture { u: amount, value, is_late, .. } = edit.lock.captures[index];
        edit.lock.captures[index].u = 0;
        edit.lock.captures[index].value = 0;
        edit.lock.c -= amount;
        edit.partition.u -= amount;
        if let Some(quote) = &mut edit.lock.quote {
            quote.captured -= value;
        }
        let mut freed = 0;
        if edit.lock.is_live() {
            edit.partition.h += amount;
        } else {
            edit.lock.v += amount;
            if is_late {
                edit.lock.late -= amount;
            }
            freed = edit.give_back(amount);
        }
        edit.done();
        body.freed = signed(freed);
        record.set_body(&body);
        record.result = Amount(amount);
        let outcome = Outcome::of(Code::Approved, body.lock);
        Ok(Outcome { approved: amount, deadline, capture: body.capture, ..outcome })
    }

    /// Row 21.
    pub(super) fn refund(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        if let Some(answer) = self.lock_or_answer(ask, body.lock)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, body.lock)];
        let index = lock.place_of(body.capture).unwrap_or(usize::MAX);
        let code = match lock.captures.get(index) {
            _ if is_other_version(lock, body.version) => Some(Code::VersionConflict),
            None => Some(Code::UnknownCapture),
            Some(_) => None,
        };
        if let Some(code) = code {
            return Ok(Outcome::of(code, body.lock));
        }
        let Capture { u, value, .. } = lock.captures[index];
        let asked = record.amount.0;
        // Of a lock in another currency the same share of value and collateral, rounded for the collateral.
        let (amount, of_value) = match lock.quote {
            None => (asked.min(u), 0),
            Some(_) if asked >= value => (u, value),
            Some(_) => (floor(u, asked, value).unwrap_or(0), asked),
        };
        let deadline = lock.deadline;
        let mut edit = self.begin(ask.home, body.lock);
        let capture = &mut edit.lock.captures[index];
        capture.u -= amount;
        capture.b += amount;
        capture.value -= of_value;
        edit.partition.u -= amount;
        let freed = edit.give_back(amount);
        edit.done();
        body.freed = signed(freed);
        record.set_body(&body);
        record.result = Amount(amount);
        let outcome = Outcome::of(Code::Approved, body.lock);
        Ok(Outcome { approved: amount, deadline, capture: body.capture, ..outcome })
    }
}

/// Moves what a capture takes to U. Says which capture it is.
pub(super) fn take(edit: &mut Edit, draw: Draw, value: u128, settle_by: Time) -> u16 {
    let lock = &mut edit.lock;
    let is_late = lock.end == End::Expired;
    lock.a += draw.headroom + draw.free;
    lock.g -= draw.headroom;
    if is_late {
        lock.late += draw.free;
    } else {
        lock.excess += draw.headroom + draw.free;
    }
    lock.c += draw.total();
    if let Some(quote) = &mut lock.quote {
        quote.captured += value;
        if !is_late {
            quote.value = quote.value.max(quote.captured);
        }
    }
    let index = lock.next_index();
    lock.captures.push(Capture { index, u: draw.total(), value, settle_by, is_late, ..Capture::default() });
    edit.partition.f -= draw.free;
    edit.partition.h -= draw.approved + draw.headroom;
    edit.partition.u += draw.total();
    edit.partition.earn_fee(draw.total());
    index
}
