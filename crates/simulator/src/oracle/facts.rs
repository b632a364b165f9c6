//! Rows 25, 29, 30, prices, caps and signed releases: what the chain and the merchants say.

use surety_protocol::limits::{AMOUNT_MAX, ID_FUTURE_MAX, PRICE_MAX};
use surety_protocol::{
    Address, Amount, AssetId, ChangeBody, Code, ControlBody, End, Flags, MerchantId, PriceBody, QuoteId,
    Record, ReleaseEntry, ReleaseGroup, Time, long,
};

use super::money::signed;
use super::{Ask, Oracle, Outcome, Price};

/// Deficits are far below what a number holds.
const DEFICIT_MAX: u128 = AMOUNT_MAX << 8;

impl Oracle {
    /// Row 25.
    pub(super) fn batch_final(&mut self, ask: &Ask, record: &mut Record) -> Outcome {
        let number = record.body::<ControlBody>().number;
        let amount = record.amount.0;
        let partition = self.partition_mut(ask.partition);
        if amount > partition.w || amount > partition.k {
            return Outcome::new(Code::Insufficient);
        }
        if number <= partition.batch {
            return Outcome::new(Code::Exists);
        }
        partition.batch = number;
        partition.w -= amount;
        partition.k -= amount;
        record.result = Amount(amount);
        Outcome { approved: amount, ..Outcome::new(Code::Approved) }
    }

    /// Row 29: from now on the lock waits for the chain.
    pub(super) fn guarantee_called(&mut self, ask: &Ask, record: &Record) -> Result<Outcome, Code> {
        let id = record.body::<ChangeBody>().lock;
        if let Some(answer) = self.lock_or_answer(ask, id)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, id)];
        let deadline = lock.deadline;
        if lock.is_called {
            return Ok(Outcome::of(Code::GuaranteeCalled, id));
        }
        if !lock.is_certified {
            return Ok(Outcome::of(Code::NotOpen, id));
        }
        let mut edit = self.begin(ask.home, id);
        edit.lock.is_called = true;
        edit.done();
        Ok(Outcome { deadline, ..Outcome::of(Code::Approved, id) })
    }

    pub(super) fn guarantee_dismissed(&mut self, ask: &Ask, record: &Record) -> Result<Outcome, Code> {
        let id = record.body::<ChangeBody>().lock;
        if let Some(answer) = self.lock_or_answer(ask, id)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, id)];
        let deadline = lock.deadline;
        if !lock.is_called {
            return Ok(Outcome::of(Code::NotOpen, id));
        }
        let mut edit = self.begin(ask.home, id);
        edit.lock.is_called = false;
        edit.done();
        Ok(Outcome { deadline, ..Outcome::of(Code::Approved, id) })
    }

    /// Row 29: H, then U, then P, then F, then a deficit. The lock pays once: it is closed.
    pub(super) fn guarantee_paid(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        if let Some(answer) = self.lock_or_answer(ask, body.lock)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, body.lock)];
        let partition = &self.partitions[&ask.partition];
        let amount = record.amount.0;
        if !lock.is_certified {
            return Ok(Outcome::of(Code::NotOpen, body.lock));
        }
        if amount > partition.k || partition.d.saturating_add(amount) > DEFICIT_MAX {
            return Ok(Outcome::of(Code::Insufficient, body.lock));
        }
        let deadline = lock.deadline;
        let mut edit = self.begin(ask.home, body.lock);
        edit.lock.is_called = false;
        edit.lock.is_certified = false;
        let mut left = amount;
        if edit.lock.is_live() {
            let held = edit.lock.remaining().min(left);
            // Headroom that pays counts as approved.
            let beyond = held.saturating_sub(edit.lock.total() - edit.lock.c);
            edit.lock.g -= beyond;
            edit.lock.a += beyond;
            edit.lock.excess += beyond;
            edit.lock.c += held;
            edit.lock.direct += held;
            edit.partition.h -= held;
            left -= held;
        }
        for capture in &mut edit.lock.captures {
            let paid = capture.u.min(left);
            capture.u -= paid;
            capture.q += paid;
            edit.partition.u -= paid;
            left -= paid;
        }
        let pending = edit.lock.p.min(left);
        edit.lock.p -= pending;
        edit.partition.p -= pending;
        let missing = left - pending;
        edit.partition.k -= amount;
        let borne = edit.partition.lose(missing);
        let (_, mut freed) = edit.settle_all();
        let rest = std::mem::take(&mut edit.lock.p);
        edit.partition.p -= rest;
        edit.partition.credit(rest);
        freed += rest;
        edit.done();
        body.freed = signed(freed) - signed(borne);
        record.set_body(&body);
        record.result = Amount(amount - (missing - borne));
        if missing > borne {
            record.flags |= Flags::EXPOSED.0;
        }
        let outcome = Outcome::of(Code::Approved, body.lock);
        Ok(Outcome { approved: amount, extra: missing - borne, deadline, ..outcome })
    }

    /// Row 30.
    pub(super) fn deficit(&mut self, ask: &Ask, record: &mut Record) -> Outcome {
        let amount = record.amount.0;
        let partition = self.partition_mut(ask.partition);
        if amount > partition.k || partition.d.saturating_add(amount) > DEFICIT_MAX {
            return Outcome::new(Code::Insufficient);
        }
        partition.k -= amount;
        let borne = partition.lose(amount);
        partition.is_frozen = true;
        record.result = Amount(borne);
        Outcome { approved: borne, extra: amount - borne, ..Outcome::new(Code::Approved) }
    }

    pub(super) fn risk_cap(&mut self, ask: &Ask, record: &Record) -> Result<Outcome, Code> {
        let until = record.body::<ControlBody>().until;
        if until == Time::ZERO {
            return Err(Code::Malformed);
        }
        self.partition_mut(ask.partition).cap = Some((record.amount.0, until));
        Ok(Outcome::new(Code::Approved))
    }

    pub(super) fn price(&mut self, ask: &Ask, record: &Record) -> Result<Outcome, Code> {
        let body: PriceBody = record.body();
        let is_sane = body.asset != AssetId(0)
            && body.quote != QuoteId(0)
            && record.amount.0 <= PRICE_MAX
            && body.ratio_bps <= 1_000_000
            && body.observed <= self.time.plus(ID_FUTURE_MAX);
        if !is_sane {
            return Err(Code::Malformed);
        }
        let key = (body.asset, body.quote);
        if self.prices.get(&key).is_some_and(|old| body.observed < old.observed) {
            return Ok(Outcome::new(Code::Exists));
        }
        let price = Price {
            price: record.amount.0,
            ratio_bps: body.ratio_bps,
            observed: body.observed,
            seq: ask.seq,
        };
        self.prices.insert(key, price);
        Ok(Outcome::new(Code::Approved))
    }

    /// Frees what only certificates kept, lock by lock.
    pub(super) fn release_group(
        &mut self,
        ask: &Ask,
        head: &mut Record,
        parts: &[Record],
    ) -> Result<Outcome, Code> {
        let merchant = MerchantId(head.body::<ControlBody>().user);
        let records: Vec<Record> = std::iter::once(*head).chain(parts.iter().copied()).collect();
        let payload = long::join(&records).map_err(|_| Code::Malformed)?;
        let group = ReleaseGroup::from_bytes(&payload).map_err(|_| Code::Malformed)?;
        let covered: Vec<&ReleaseEntry> =
            group.entries.iter().filter(|entry| self.covers(ask, merchant, group.key, entry)).collect();
        if covered.iter().any(|entry| self.is_overdue(ask.home, entry.lock)) {
            return Err(Code::Overloaded);
        }
        if covered.is_empty() {
            for entry in &group.entries {
                self.check_lock_not_lost(ask, entry.lock)?;
            }
            let known = self.merchants.get(&(ask.tenant, merchant.0));
            let is_key = known.is_some_and(|merchant| merchant.release_key == group.key);
            return Ok(Outcome::new(if is_key { Code::UnknownLock } else { Code::Forbidden }));
        }
        let mut freed = 0;
        for entry in &covered {
            let lock = &self.locks[&(ask.home, entry.lock)];
            let kept = entry.still_owed.0.saturating_sub(lock.remaining() + lock.open()).min(lock.p);
            let more = lock.p - kept;
            if more == 0 {
                continue;
            }
            let mut edit = self.begin(ask.home, entry.lock);
            edit.lock.p = kept;
            edit.partition.p -= more;
            edit.partition.credit(more);
            edit.done();
            freed += more;
        }
        head.result = Amount(freed);
        let is_whole = covered.len() == group.entries.len();
        let code = if is_whole { Code::Approved } else { Code::Partial };
        Ok(Outcome { approved: freed, ..Outcome::new(code) })
    }

    /// The merchant's own certified lock, under the certificate's key, not called, not changed since.
    fn covers(&self, ask: &Ask, merchant: MerchantId, key: Address, entry: &ReleaseEntry) -> bool {
        self.locks.get(&(ask.home, entry.lock)).is_some_and(|lock| {
            lock.merchant == merchant
                && lock.is_certified
                && !lock.is_called
                && lock.end != End::None
                && key != Address::default()
                && lock.release_key == key
                && entry.version >= u32::from(lock.version)
        })
    }
}
