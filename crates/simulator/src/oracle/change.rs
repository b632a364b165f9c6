//! Rows 7 to 15 and 19 to 21: what the lock's own side does to it.

use surety_protocol::limits::{CAPTURES_PER_LOCK_MAX, ID_FUTURE_MAX};
use surety_protocol::{
    Address, Amount, ChangeBody, Code, End, Flags, Id, Kind, MerchantId, PartitionHandle, Record, Time,
};

use super::lock::ended_code;
use super::money::{BPS, ceil, floor, on_grid, signed};
use super::settle::Edit;
use super::state::{Capture, Lock};
use super::{Ask, Oracle, Outcome};

/// Where a capture comes from.
#[derive(Clone, Copy, Default)]
struct Draw {
    approved: u128,
    headroom: u128,
    free: u128,
}

impl Draw {
    const fn total(self) -> u128 {
        self.approved + self.headroom + self.free
    }
}

/// 0 means that the sender does not mind.
fn is_other_version(lock: &Lock, version: u16) -> bool {
    version != 0 && version != lock.version
}

fn is_full(lock: &Lock) -> bool {
    lock.captures.len() >= CAPTURES_PER_LOCK_MAX
}

/// A capture without a settle-by time needs its collateral for ever.
fn until(settle_by: Time) -> Time {
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
    fn settle_by_of(&self, handle: PartitionHandle, lock: &Lock) -> Time {
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
        if self.is_stale(id, Kind::Lock) {
            return Ok(Outcome::new(Code::Approved));
        }
        self.check_spendable(id)?;
        if let Some(quotas) = self.tenants.get(&ask.tenant)
            && !ask.is_operator
            && self.tombstones_of(ask.tenant, quotas.tombstones_max) >= quotas.tombstones_max
        {
            return Err(Code::Quota);
        }
        self.spend(ask.home, id, Kind::Release, Code::AlreadyReleased, ask.seq);
        Ok(Outcome { end: End::Tombstone, ..Outcome::new(Code::Approved) })
    }

    /// Rows 13 and 14.
    pub(super) fn reverse(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        if let Some(answer) = self.lock_or_answer(ask, body.lock)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, body.lock)];
        let index = usize::from(body.capture);
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
        let index = usize::from(body.capture);
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

    /// Row 20.
    pub(super) fn advice(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ChangeBody = record.body();
        if self.is_overdue(ask.home, body.lock) {
            return Err(Code::Overloaded);
        }
        if self.locks.contains_key(&(ask.home, body.lock)) {
            return self.advise_lock(ask, body, record);
        }
        let amount = record.amount.0;
        if let Some(end) = self.end_of_spent(ask.home, body.lock) {
            // Never from F where the id was released or declined.
            self.expose(ask.partition, amount)?;
            record.flags |= Flags::EXPOSED.0;
            return Ok(Outcome { end, extra: amount, ..Outcome::new(Code::Approved) });
        }
        self.advise_unknown(ask, body, record)
    }

    fn advise_lock(&mut self, ask: &Ask, mut body: ChangeBody, record: &mut Record) -> Result<Outcome, Code> {
        let lock = &self.locks[&(ask.home, body.lock)];
        let amount = record.amount.0;
        let mut draw = Draw::default();
        if !is_full(lock) && lock.is_live() {
            draw.approved = amount.min(lock.total() - lock.c);
            draw.headroom = lock.g.min(amount - draw.approved);
        } else if !is_full(lock) && lock.end == End::Expired {
            draw.free = amount.min(self.partitions[&ask.partition].available(self.time));
        }
        let settle_by = self.settle_by_of(ask.partition, lock);
        let value =
            lock.quote.map_or(0, |quote| floor(draw.total(), quote.value, quote.base.max(1)).unwrap_or(0));
        let exposure = amount - draw.total();
        self.expose(ask.partition, exposure)?;
        let mut edit = self.begin(ask.home, body.lock);
        let (was_live, is_late) = (edit.lock.is_live(), edit.lock.end == End::Expired);
        let mut outcome = Outcome::of(Code::Approved, body.lock);
        (outcome.approved, outcome.extra) = (draw.total(), exposure);
        let mut freed = -signed(draw.free);
        body.capture = 0;
        if draw.total() > 0 {
            body.capture = take(&mut edit, draw, value, settle_by);
            (outcome.capture, outcome.deadline) = (body.capture, settle_by);
        }
        if was_live && record.flags().has(Flags::FINAL) {
            edit.lock.end = End::Final;
            freed += signed(edit.give_back_rest().1);
        }
        edit.done();
        if is_late && draw.free > 0 {
            record.flags |= Flags::LATE.0;
        } else if draw.headroom + draw.free > 0 {
            record.flags |= Flags::EXCESS.0;
        }
        if exposure > 0 {
            record.flags |= Flags::EXPOSED.0;
        }
        (body.freed, body.deadline) = (freed, outcome.deadline);
        record.set_body(&body);
        record.result = Amount(draw.total());
        Ok(outcome)
    }

    /// An advice of a payment that nobody asked for makes its lock.
    fn advise_unknown(
        &mut self,
        ask: &Ask,
        mut body: ChangeBody,
        record: &mut Record,
    ) -> Result<Outcome, Code> {
        if body.lock.time() > self.time.plus(ID_FUTURE_MAX) {
            return Err(Code::IdFromFuture);
        }
        let amount = record.amount.0;
        let covered = amount.min(self.partitions[&ask.partition].available(self.time));
        let exposure = amount - covered;
        self.expose(ask.partition, exposure)?;
        let settle_by = self.settle_by_from_now(ask.partition);
        let lock = Lock {
            request: None,
            merchant: MerchantId(0),
            category: 0,
            end: End::Exposed,
            version: 1,
            created: self.time,
            deadline: self.time,
            kept_until: self.kept_after_end(ask.partition, body.lock),
            a: covered,
            g: 0,
            c: covered,
            v: 0,
            e: 0,
            p: 0,
            excess: 0,
            late: 0,
            direct: 0,
            captures: vec![Capture { u: covered, settle_by, ..Capture::default() }],
            quote: None,
            is_certified: false,
            claim_until: Time::ZERO,
            is_called: false,
            release_key: Address::default(),
            is_sale: false,
            first: (Code::Approved, covered, 0, self.time, ask.seq),
        };
        self.locks.insert((ask.home, body.lock), lock);
        self.arm(ask.home, body.lock);
        let partition = self.partition_mut(ask.partition);
        partition.f -= covered;
        partition.u += covered;
        partition.earn_fee(covered);
        (body.freed, body.deadline, body.capture) = (-signed(covered), settle_by, 0);
        record.set_body(&body);
        record.result = Amount(covered);
        if exposure > 0 {
            record.flags |= Flags::EXPOSED.0;
        }
        let outcome = Outcome::of(Code::Approved, body.lock);
        Ok(Outcome { approved: covered, extra: exposure, capture: 0, deadline: settle_by, ..outcome })
    }

    fn expose(&mut self, handle: PartitionHandle, amount: u128) -> Result<(), Code> {
        let partition = self.partition_mut(handle);
        partition.x = partition.x.checked_add(amount).ok_or(Code::Quota)?;
        Ok(())
    }
}

/// Moves what a capture takes to U. Says which capture it is.
fn take(edit: &mut Edit, draw: Draw, value: u128, settle_by: Time) -> u16 {
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
    lock.captures.push(Capture { u: draw.total(), value, settle_by, is_late, ..Capture::default() });
    let index = lock.captures.len() - 1;
    edit.partition.f -= draw.free;
    edit.partition.h -= draw.approved + draw.headroom;
    edit.partition.u += draw.total();
    edit.partition.earn_fee(draw.total());
    u16::try_from(index).unwrap_or(u16::MAX)
}
