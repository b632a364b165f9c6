//! Rows 1 to 6: locking collateral, and locking more of it.

use surety_protocol::limits::AMOUNT_MAX;
use surety_protocol::{
    Amount, ChangeBody, Code, End, Flags, Id, LockBody, MerchantId, PartitionHandle, QuoteId, Record, Seq,
    Time,
};

use super::money::{BPS, WHOLE, ceil, floor, on_grid, signed};
use super::state::{Capture, Lock, Partition, Quote};
use super::{Account, Ask, Oracle, Outcome};

/// An amount in collateral.
#[derive(Clone, Copy, Default)]
struct Terms {
    collateral: u128,
    price: u128,
    ratio: u128,
    seq: Seq,
}

/// Why an ended lock takes no capture.
pub(super) fn ended_code(lock: &Lock) -> Code {
    if lock.end == End::Settled { Code::AlreadySettled } else { Code::NotOpen }
}

impl Oracle {
    /// Rows 1 to 5.
    pub(super) fn lock_request(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: LockBody = record.body();
        let policy = &self.partitions[&ask.partition].policy;
        let life =
            if body.life_ms == 0 { policy.life_default } else { Time::from_millis(body.life_ms.into()) };
        let is_sale = record.flags().has(Flags::SALE);
        let headroom_bps =
            if is_sale || self.forgets_headroom { 0 } else { policy.category(body.category).1 };
        let deadline = on_grid(self.time.plus(life));
        let terms = self.terms(ask.partition, body.quote, record.amount.0);
        let headroom = terms.map_or(0, |it| floor(it.collateral, u128::from(headroom_bps), BPS).unwrap_or(0));
        self.check_risk(ask.partition, terms.map_or(0, |it| it.collateral.saturating_add(headroom)))?;
        let judged = self.judge_lock(ask, record.amount.0, &body, life, deadline, terms, headroom);
        let (code, terms, value, collateral, headroom) = match judged {
            Ok(judged) => judged,
            Err(code) => {
                let end = self.end_of_spent(ask.home, ask.id).unwrap_or(End::Declined);
                return Ok(Outcome { end, ..Outcome::new(code) });
            }
        };
        let request = record.as_sent();
        body.deadline = deadline;
        body.price_seq = terms.seq.0;
        record.set_body(&body);
        record.result = Amount(collateral + headroom);
        let is_certified = record.flags().has(Flags::CERTIFIED);
        let lock = Lock {
            request: Some(request),
            merchant: body.merchant,
            category: body.category,
            end: End::Live,
            version: 1,
            created: self.time,
            deadline,
            kept_until: Time::ZERO,
            a: collateral,
            g: headroom,
            c: 0,
            v: 0,
            e: 0,
            p: 0,
            excess: 0,
            late: 0,
            direct: 0,
            captures: Vec::new(),
            quote: (body.quote != QuoteId(0)).then_some(Quote {
                quote: body.quote,
                value,
                captured: 0,
                base: collateral,
                price: terms.price,
            }),
            is_certified,
            claim_until: self.claim_until(ask.partition, deadline),
            is_called: false,
            release_key: self
                .merchants
                .get(&(ask.tenant, body.merchant.0))
                .map(|merchant| merchant.release_key)
                .unwrap_or_default(),
            is_sale,
            first_index: 0,
            first: (code, collateral, headroom, deadline, ask.seq),
        };
        let now = self.time;
        let partition = self.partition_mut(ask.partition);
        partition.f -= collateral + headroom;
        partition.h += collateral + headroom;
        partition.count_velocity(now, 1, collateral);
        self.locks.insert((ask.home, ask.id), lock);
        if is_sale {
            self.sell(ask, value);
        }
        self.arm(ask.home, ask.id);
        let mut outcome = Outcome::of(code, ask.id);
        (outcome.approved, outcome.extra, outcome.deadline) = (collateral, headroom, deadline);
        outcome.made_lock = true;
        if is_sale {
            outcome.capture = 0;
        }
        Ok(outcome)
    }

    /// A sale: captured whole, at once, for the last time.
    fn sell(&mut self, ask: &Ask, value: u128) {
        let settle_by = self.settle_by_from_now(ask.partition);
        let kept_after_end = self.kept_after_end(ask.partition, ask.id);
        let lock = self.locks.get_mut(&(ask.home, ask.id)).expect("just made");
        let amount = lock.a;
        lock.c = amount;
        lock.end = End::Final;
        let for_chain = if lock.is_certified { lock.claim_until } else { Time::ZERO };
        lock.kept_until = kept_after_end.max(for_chain);
        let value = lock.quote.map_or(0, |_| value);
        if let Some(quote) = &mut lock.quote {
            quote.captured = value;
        }
        lock.captures.push(Capture { u: amount, value, settle_by, ..Capture::default() });
        let partition = self.partition_mut(ask.partition);
        partition.h -= amount;
        partition.u += amount;
        partition.earn_fee(amount);
    }

    /// Every reason to decline, in the order of the codes; else code, terms, value, collateral, headroom.
    #[allow(clippy::too_many_arguments)]
    fn judge_lock(
        &self,
        ask: &Ask,
        amount: u128,
        body: &LockBody,
        life: Time,
        deadline: Time,
        terms: Result<Terms, Code>,
        headroom: u128,
    ) -> Result<(Code, Terms, u128, u128, u128), Code> {
        let partition = &self.partitions[&ask.partition];
        if let Some(spent) = self.spent.get(&(ask.home, ask.id)) {
            return Err(if spent.is_tombstone { Code::AlreadyReleased } else { Code::Burned });
        }
        if partition.is_stopped() {
            return Err(Code::Frozen);
        }
        let terms = terms?;
        let wanted = terms.collateral + headroom;
        self.check_limits(ask.home, partition, body.merchant, wanted, wanted)?;
        check_velocity(partition, self.time, 1, terms.collateral)?;
        if !self.is_listed(ask, partition, body.merchant) || life > partition.policy.life_max {
            return Err(Code::Forbidden);
        }
        let available = partition.available(deadline);
        if terms.collateral <= available {
            let headroom = headroom.min(available - terms.collateral);
            return Ok((Code::Approved, terms, amount, terms.collateral, headroom));
        }
        if body.floor == Amount::ZERO {
            return Err(Code::Insufficient);
        }
        // As much as there is, in whole edge units, if it is worth it to the sender.
        let room = available / partition.policy.edge_unit.0 * partition.policy.edge_unit.0;
        let (value, collateral) = if body.quote == QuoteId(0) {
            (room, room)
        } else {
            let scale = terms.ratio * WHOLE;
            let value = floor(room, terms.price * BPS, scale).ok_or(Code::Insufficient)?;
            (value, ceil(value, scale, terms.price * BPS).ok_or(Code::Insufficient)?)
        };
        if value == 0 || value < body.floor.0 || collateral > available {
            return Err(Code::Insufficient);
        }
        Ok((Code::Partial, terms, value, collateral, 0))
    }

    /// `ceil(value x ratio / price)`; an amount of the collateral itself is itself.
    fn terms(&self, handle: PartitionHandle, quote: QuoteId, value: u128) -> Result<Terms, Code> {
        if quote == QuoteId(0) {
            return Ok(Terms { collateral: value, ..Terms::default() });
        }
        let partition = &self.partitions[&handle];
        let price = self.prices.get(&(partition.asset, quote)).ok_or(Code::StalePrice)?;
        if self.time.minus(price.observed) > partition.policy.price_age_max {
            return Err(Code::StalePrice);
        }
        let ratio = if price.ratio_bps == 0 { partition.policy.ratio_bps } else { price.ratio_bps };
        if ratio == 0 || ratio < partition.policy.stop_ratio_bps {
            return Err(Code::Ratio);
        }
        let ratio = u128::from(ratio);
        let collateral = ceil(value, ratio * WHOLE, price.price * BPS).filter(|it| *it <= AMOUNT_MAX);
        let collateral = collateral.ok_or(Code::OverLimit)?;
        Ok(Terms { collateral, price: price.price, ratio, seq: price.seq })
    }

    /// The chain's ceiling: H + U + P + W at most, and not longer than it holds.
    fn check_risk(&self, handle: PartitionHandle, added: u128) -> Result<(), Code> {
        let partition = &self.partitions[&handle];
        let Some((cap, until)) = partition.cap else { return Ok(()) };
        let at_risk = partition.h + partition.u + partition.p + partition.w;
        let is_over = at_risk.saturating_add(added) > cap;
        if self.time > until || is_over { Err(Code::ChainStale) } else { Ok(()) }
    }

    fn check_limits(
        &self,
        home: Account,
        partition: &Partition,
        merchant: MerchantId,
        total: u128,
        added: u128,
    ) -> Result<(), Code> {
        if total > partition.policy.lock_max.0 {
            return Err(Code::OverLimit);
        }
        let most = partition.policy.merchant_open_max.0;
        if most > 0 && self.open_of(home, merchant).saturating_add(added) > most {
            return Err(Code::OverLimit);
        }
        Ok(())
    }

    /// What a merchant has open: R and u of its locks.
    #[must_use]
    pub fn open_of(&self, home: Account, merchant: MerchantId) -> u128 {
        let all = (home, Id(0))..=(home, Id(u128::MAX));
        let its = self.locks.range(all).filter(|(_, lock)| lock.merchant == merchant);
        its.map(|(_, lock)| lock.remaining() + lock.open()).sum()
    }

    fn is_listed(&self, ask: &Ask, partition: &Partition, merchant: MerchantId) -> bool {
        partition.policy.merchants_listed == 0
            || self.merchants.get(&(ask.tenant, merchant.0)).is_some_and(|merchant| merchant.enabled == 1)
    }

    /// A certificate outlives the settle-by time of its captures, and then the claim margin.
    fn claim_until(&self, handle: PartitionHandle, deadline: Time) -> Time {
        let policy = &self.partitions[&handle].policy;
        on_grid(deadline.plus(policy.settle_by).plus(policy.claim_margin))
    }

    pub(super) fn settle_by_from_now(&self, handle: PartitionHandle) -> Time {
        match self.partitions[&handle].policy.settle_by {
            Time::ZERO => Time::ZERO,
            span => on_grid(self.time.plus(span)),
        }
    }

    /// Row 6.
    pub(super) fn increase(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        if let Some(answer) = self.lock_or_answer(ask, body.lock)? {
            return Ok(answer);
        }
        let lock = &self.locks[&(ask.home, body.lock)];
        let total = record.amount.0;
        let rise = total.checked_sub(lock.total_asked()).filter(|rise| *rise > 0);
        let quote = lock.quote.map_or(QuoteId(0), |quote| quote.quote);
        let wanted = rise.ok_or(Code::OverLimit).and_then(|rise| self.terms(ask.partition, quote, rise));
        // A lock that has ended puts nothing more at risk.
        let added = if lock.is_live() { wanted.map_or(0, |terms| terms.collateral) } else { 0 };
        self.check_risk(ask.partition, added)?;
        let life = Time::from_millis(body.life_ms_or_actor.into());
        let deadline = if life == Time::ZERO { lock.deadline } else { on_grid(self.time.plus(life)) };
        let delta = match self.judge_increase(ask, lock, &body, total, deadline, wanted) {
            Ok(delta) => delta,
            Err(code) => return Ok(Outcome::of(code, body.lock)),
        };
        let claim_until = self.claim_until(ask.partition, deadline);
        let now = self.time;
        let mut edit = self.begin(ask.home, body.lock);
        edit.lock.a += delta;
        edit.lock.deadline = deadline;
        edit.lock.claim_until = edit.lock.claim_until.max(claim_until);
        if let Some(quote) = &mut edit.lock.quote {
            quote.value = total;
        }
        edit.partition.f -= delta;
        edit.partition.h += delta;
        edit.partition.count_velocity(now, 0, delta);
        edit.done();
        body.freed = -signed(delta);
        body.deadline = deadline;
        record.set_body(&body);
        record.result = Amount(delta);
        Ok(Outcome { approved: delta, deadline, ..Outcome::of(Code::Approved, body.lock) })
    }

    fn judge_increase(
        &self,
        ask: &Ask,
        lock: &Lock,
        body: &ChangeBody,
        total: u128,
        deadline: Time,
        wanted: Result<Terms, Code>,
    ) -> Result<u128, Code> {
        let partition = &self.partitions[&ask.partition];
        if !lock.is_live() {
            return Err(Code::NotOpen);
        }
        if body.version != lock.version || lock.version == u16::MAX {
            return Err(Code::VersionConflict);
        }
        if partition.is_stopped() {
            return Err(Code::Frozen);
        }
        if total <= lock.total_asked() {
            return Err(Code::OverLimit);
        }
        let delta = wanted?.collateral;
        let raised = lock.total().saturating_add(lock.g).saturating_add(delta);
        self.check_limits(ask.home, partition, lock.merchant, raised, delta)?;
        check_velocity(partition, self.time, 0, delta)?;
        let latest = on_grid(lock.created.plus(partition.policy.life_max));
        let is_later = deadline == lock.deadline || deadline > lock.deadline && deadline <= latest;
        if !self.is_listed(ask, partition, lock.merchant) || !is_later {
            return Err(Code::Forbidden);
        }
        if delta > partition.available(deadline) { Err(Code::Insufficient) } else { Ok(delta) }
    }
}

fn check_velocity(partition: &Partition, now: Time, locks: u32, value: u128) -> Result<(), Code> {
    let (count, sum) = partition.velocity(now);
    let (count_max, value_max) = (partition.policy.velocity_count, partition.policy.velocity_value.0);
    let is_over = count_max > 0 && count.saturating_add(locks) > count_max
        || value_max > 0 && sum.saturating_add(value) > value_max;
    if is_over { Err(Code::Velocity) } else { Ok(()) }
}
