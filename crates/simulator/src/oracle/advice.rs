//! Row 20: advices, which no rule of money declines.

use surety_protocol::limits::ID_FUTURE_MAX;
use surety_protocol::{
    Address, Amount, ChangeBody, Code, End, Flags, MerchantId, PartitionHandle, Record, Time,
};

use super::change::{Draw, is_full, take};
use super::money::{floor, signed};
use super::state::{Capture, Lock};
use super::{Ask, Oracle, Outcome};

impl Oracle {
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
        let spent = self.end_of_spent(ask.home, body.lock);
        if let Some(end) = spent.or(self.may_be_lost(body.lock).then_some(End::None)) {
            // Never from F where the id was released or declined, or where nobody can tell what a lost life has drawn.
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
            first_index: 0,
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
        partition.x = partition.x.checked_add(amount).ok_or(Code::Overloaded)?;
        Ok(())
    }
}
