//! Rows 1 to 6: locking collateral, and locking more of it.

use surety_protocol::limits::AMOUNT_MAX;
use surety_protocol::{
    Address, Amount, ChangeBody, Code, End, Flags, LockBody, MerchantId, MerchantKey, QuoteId, Record, Seq,
    Time, sabotage,
};

use super::{Ask, Outcome};
use crate::edit::on_grid;
use crate::index::Found;
use crate::ledger::Ledger;
use crate::lock::{Capture, Ext, Lock, flag};
use crate::op::Memo;
use crate::slab::NONE;
use crate::units::{mul_div_ceil, mul_div_floor};
use crate::wire;

/// One whole of the collateral in base units: prices are for this much.
pub(crate) const WHOLE: u128 = 1_000_000_000_000_000_000;
/// One in basis points.
pub(crate) const BPS: u128 = 10_000;

/// What an amount is in collateral.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    collateral: u128,
    price: u128,
    ratio_bps: u128,
    price_seq: Seq,
}

/// What a lock takes.
#[derive(Clone, Copy, Debug)]
struct Grant {
    code: Code,
    /// In the lock's currency.
    value: u128,
    collateral: u128,
    headroom: u128,
}

impl Ledger {
    pub(super) fn lock_request(
        &mut self,
        ask: &Ask,
        record: &mut Record,
        outcome: &mut Outcome,
    ) -> Result<(), Code> {
        let body = wire::lock_body(record);
        let policy = &self.partitions[ask.partition as usize].policy;
        let life =
            if body.life_ms == 0 { policy.life_default } else { Time::from_millis(body.life_ms.into()) };
        let deadline = on_grid(self.time.plus(life));
        let terms = self.terms(ask, body.quote, record.amount.0);
        let headroom = terms.map_or(0, |terms| self.headroom(ask, record, &body, terms.collateral));
        if ask.is_live {
            self.check_risk(ask, terms.map_or(0, |terms| terms.collateral.saturating_add(headroom)))?;
        }
        match self.judge(ask, record, &body, life, deadline, terms, headroom) {
            Err(code) => {
                outcome.code = code;
                outcome.end = if code == Code::AlreadyReleased { End::Tombstone } else { End::Declined };
            }
            Ok((terms, grant)) => {
                wire::set_lock(record, deadline, terms.price_seq.0);
                record.result = Amount(grant.collateral + grant.headroom);
                let slot = self.make_lock(ask, record, &LockBody { deadline, ..body }, terms, grant);
                outcome.needs_op = false;
                self.show_first(slot, outcome);
            }
        }
        Ok(())
    }

    /// Every reason to decline a lock, in the order of the codes.
    #[allow(clippy::too_many_arguments)]
    fn judge(
        &self,
        ask: &Ask,
        record: &Record,
        body: &LockBody,
        life: Time,
        deadline: Time,
        terms: Result<Terms, Code>,
        headroom: u128,
    ) -> Result<(Terms, Grant), Code> {
        let partition = &self.partitions[ask.partition as usize];
        if let Some(spent) = ask.spent {
            let is_tombstone = self.ops.get(spent).memo == Memo::Tombstone;
            return Err(if is_tombstone { Code::AlreadyReleased } else { Code::Burned });
        }
        if partition.stops_locks() {
            return Err(Code::Frozen);
        }
        let terms = terms?;
        let wanted = terms.collateral + headroom;
        self.check_limits(ask, body.merchant, wanted, wanted)?;
        self.check_velocity(ask, 1, terms.collateral)?;
        let listed =
            partition.policy.merchants_listed == 0 || self.is_listed(merchant_key(ask, body.merchant));
        if !listed || life > partition.policy.life_max {
            return Err(Code::Forbidden);
        }
        let held = if sabotage!("held-amounts-lent-again") { partition.money.held } else { 0 };
        let available = partition.available(deadline) + held;
        let full =
            Grant { code: Code::Approved, value: record.amount.0, collateral: terms.collateral, headroom };
        if terms.collateral <= available {
            return Ok((terms, Grant { headroom: headroom.min(available - terms.collateral), ..full }));
        }
        let partial =
            partial(&terms, body, available, partition.policy.edge_unit.0).ok_or(Code::Insufficient)?;
        Ok((terms, partial))
    }

    fn headroom(&self, ask: &Ask, record: &Record, body: &LockBody, collateral: u128) -> u128 {
        if record.flags().has(Flags::SALE) {
            return 0;
        }
        let (_, headroom_bps) = self.partitions[ask.partition as usize].policy.category(body.category);
        if headroom_bps == 0 {
            return 0;
        }
        mul_div_floor(collateral, u128::from(headroom_bps), BPS).unwrap_or(0)
    }

    /// What an amount is in collateral: itself, or `ceil(value x ratio / price)`.
    fn terms(&self, ask: &Ask, quote: QuoteId, value: u128) -> Result<Terms, Code> {
        if quote == QuoteId(0) {
            return Ok(Terms { collateral: value, ..Terms::default() });
        }
        let partition = &self.partitions[ask.partition as usize];
        let price = self.prices.get(&(partition.asset, quote)).ok_or(Code::StalePrice)?;
        if self.time.minus(price.observed) > partition.policy.price_age_max {
            return Err(Code::StalePrice);
        }
        let ratio = if price.ratio_bps == 0 { partition.policy.ratio_bps } else { price.ratio_bps };
        if ratio < partition.policy.stop_ratio_bps || ratio == 0 {
            return Err(Code::Ratio);
        }
        let ratio_bps = u128::from(ratio);
        let rounded = if sabotage!("collateral-rounded-down") { mul_div_floor } else { mul_div_ceil };
        let collateral =
            rounded(value, ratio_bps * WHOLE, price.price * BPS).filter(|amount| *amount <= AMOUNT_MAX);
        let collateral = collateral.ok_or(Code::OverLimit)?;
        Ok(Terms { collateral, price: price.price, ratio_bps, price_seq: price.seq })
    }

    /// The chain's ceiling on what is at risk. An admission code: nothing is wrong with the request.
    fn check_risk(&self, ask: &Ask, added: u128) -> Result<(), Code> {
        let partition = &self.partitions[ask.partition as usize];
        if partition.cap_until == Time::ZERO {
            return Ok(());
        }
        let is_silent = self.time > partition.cap_until;
        let is_over = partition.money.at_risk().saturating_add(added) > partition.cap;
        if is_silent || is_over { Err(Code::ChainStale) } else { Ok(()) }
    }

    /// The policy's largest lock and a merchant's largest open value.
    fn check_limits(&self, ask: &Ask, merchant: MerchantId, total: u128, added: u128) -> Result<(), Code> {
        let policy = &self.partitions[ask.partition as usize].policy;
        if total > policy.lock_max.0 {
            return Err(Code::OverLimit);
        }
        let open_max = policy.merchant_open_max.0;
        if open_max > 0 {
            let open = self.open.get(&(ask.account, merchant.0)).copied().unwrap_or(0);
            if open.saturating_add(added) > open_max {
                return Err(Code::OverLimit);
            }
        }
        Ok(())
    }

    fn check_velocity(&self, ask: &Ask, locks: u32, value: u128) -> Result<(), Code> {
        let partition = &self.partitions[ask.partition as usize];
        let (count_max, value_max) = (partition.policy.velocity_count, partition.policy.velocity_value.0);
        let (count, sum) = partition.velocity(self.time);
        let is_over = count_max > 0 && count.saturating_add(locks) > count_max
            || value_max > 0 && sum.saturating_add(value) > value_max;
        if is_over { Err(Code::Velocity) } else { Ok(()) }
    }

    fn make_lock(&mut self, ask: &Ask, record: &Record, body: &LockBody, terms: Terms, grant: Grant) -> u32 {
        let taken = grant.collateral + grant.headroom;
        let now = self.time;
        let slot = self.insert_lock(ask.id, ask.account);
        let (ext, mut flags) = self.first_ext(ask, record, body, terms, grant);
        let is_sale = record.flags().has(Flags::SALE);
        if is_sale {
            flags |= flag::SALE;
        }
        let lock = self.locks.get_mut(slot);
        lock.approved = grant.collateral;
        lock.merchant = body.merchant;
        lock.deadline = body.deadline;
        lock.since = now;
        lock.fingerprint = ask.fingerprint;
        lock.seq = ask.seq;
        lock.category = body.category;
        lock.code = grant.code;
        lock.flags = flags;
        lock.ext = ext;
        let partition = self.partition_mut(ask.partition);
        let open_before = partition.money.held + partition.money.captured;
        partition.money.free -= taken;
        partition.count_velocity(now, 1, grant.collateral);
        if is_sale {
            partition.money.captured += taken;
            self.sell(ask, grant.value, slot);
        } else {
            partition.money.held += taken;
        }
        self.arm_new(slot);
        self.hash_in_lock(slot);
        self.settle_open(ask.partition, slot, open_before);
        self.touched(ask.partition);
        slot
    }

    /// Sees to it that a new lock is looked at when something first happens to it.
    pub(crate) fn arm_new(&mut self, slot: u32) {
        let lock = self.locks.get(slot);
        let (first, captures) = (if lock.is_live() { lock.deadline } else { lock.since }, lock.captures);
        self.arm(slot, first);
        if captures != NONE {
            let settle_by = self.captures.get(captures).settle_by;
            if settle_by > Time::ZERO {
                self.arm(slot, settle_by);
            }
        }
    }

    /// A sale: captured whole, at once and for the last time.
    fn sell(&mut self, ask: &Ask, value: u128, slot: u32) {
        let settle_by = self.settle_by_from_now(ask.partition);
        let lock = *self.locks.get(slot);
        let value = if lock.has(flag::QUOTE) { value } else { 0 };
        let capture = Capture { open: lock.approved, value, settle_by, ..Capture::default() };
        self.insert_capture(slot, capture);
        let mut since = self.kept_after_end(&lock, ask.partition);
        if lock.has(flag::CERTIFIED) {
            since = since.max(self.claim_until(ask.partition, lock.deadline));
        }
        let sold = self.locks.get_mut(slot);
        sold.captured = lock.approved;
        sold.end = End::Final;
        sold.since = since;
        self.earn_fee(ask.partition, lock.approved);
    }

    /// The extension of a new lock, if it needs one, and the flags that go with it.
    fn first_ext(
        &mut self,
        ask: &Ask,
        record: &Record,
        body: &LockBody,
        terms: Terms,
        grant: Grant,
    ) -> (u32, u8) {
        let is_certified = record.flags().has(Flags::CERTIFIED);
        let is_quote = body.quote != QuoteId(0);
        if !is_certified && !is_quote && grant.headroom == 0 {
            return (NONE, 0);
        }
        let mut flags = 0;
        let mut ext = Ext {
            headroom: grant.headroom,
            first_approved: grant.collateral,
            first_headroom: grant.headroom,
            first_deadline: body.deadline,
            link: NONE,
            ..Ext::default()
        };
        if is_certified {
            flags |= flag::CERTIFIED;
            ext.claim_until = self.claim_until(ask.partition, body.deadline);
            let key = (ask.tenant.0, body.merchant.0);
            ext.release_key =
                self.merchants.get(&key).map_or(Address::default(), |merchant| merchant.release_key);
        }
        if is_quote {
            flags |= flag::QUOTE;
            ext.quote = body.quote;
            ext.value = grant.value;
            ext.price = terms.price;
            ext.base = grant.collateral;
            ext.captured_value = if record.flags().has(Flags::SALE) { grant.value } else { 0 };
        }
        (self.exts.insert(ext), flags)
    }

    /// Until when a certificate with this deadline can be claimed: it outlives the settle-by time of the lock's captures.
    pub(crate) fn claim_until(&self, partition: u32, deadline: Time) -> Time {
        let policy = &self.partitions[partition as usize].policy;
        on_grid(deadline.plus(policy.settle_by).plus(policy.claim_margin))
    }

    /// When the payer's asset of a capture made now has to be final; 0 for never.
    pub(crate) fn settle_by_from_now(&self, partition: u32) -> Time {
        match self.partitions[partition as usize].policy.settle_by {
            Time::ZERO => Time::ZERO,
            span => on_grid(self.time.plus(span)),
        }
    }

    /// The same for a capture of a lock: the certificate of a live one outlives it, whatever the policy has become since. It
    /// is never before the lock's own deadline: what is captured is not consumed at once.
    pub(crate) fn settle_by_of_lock(&self, partition: u32, lock: &Lock) -> Time {
        let settle_by = self.settle_by_from_now(partition);
        if !lock.has(flag::CERTIFIED) || lock.ext == NONE || !lock.is_live() {
            return settle_by;
        }
        let margin = self.partitions[partition as usize].policy.claim_margin;
        let latest = on_grid(self.exts.get(lock.ext).claim_until.minus(margin)).max(lock.deadline);
        // A called lock may be past its deadline; what is due is logged before what comes next.
        let latest = latest.max(on_grid(self.time.plus(Time(1))));
        if settle_by == Time::ZERO { latest } else { settle_by.min(latest) }
    }

    /// Counts what a capture earns for the suppliers. The fee is paid from outside; here it is only kept count of.
    pub(crate) fn earn_fee(&mut self, partition: u32, captured: u128) {
        let partition = self.partition_mut(partition);
        if partition.policy.fee_bps == 0 {
            return;
        }
        let fee = mul_div_floor(captured, u128::from(partition.policy.fee_bps), BPS).unwrap_or(0);
        partition.fees = partition.fees.saturating_add(fee);
    }

    /// The first answer to a lock that is kept.
    pub(crate) fn show_first(&self, slot: u32, outcome: &mut Outcome) {
        let lock = self.locks.get(slot);
        outcome.code = lock.code;
        outcome.lock = Some(slot);
        if lock.ext == NONE {
            outcome.approved = lock.approved;
            outcome.deadline = lock.deadline;
        } else {
            let ext = self.exts.get(lock.ext);
            outcome.approved = ext.first_approved;
            outcome.extra = ext.first_headroom;
            outcome.deadline = ext.first_deadline;
        }
        if lock.has(flag::SALE) {
            outcome.capture = 0;
        }
    }

    /// Row 6.
    pub(super) fn increase(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: ChangeBody = record.body();
        let slot = match self.find(ask.account, body.lock.0) {
            Some(Found::Lock(slot)) => slot,
            other => return self.not_a_lock(ask, body.lock.0, other),
        };
        let lock = *self.locks.get(slot);
        if self.is_overdue(&lock) {
            return Err(Code::Overloaded);
        }
        let wanted = self.increase_wanted(ask, &lock, record.amount.0);
        if ask.is_live {
            // One that has ended puts nothing more at risk: its total means nothing.
            let added = wanted.map_or(0, |terms| terms.collateral);
            self.check_risk(ask, if lock.is_live() { added } else { 0 })?;
        }
        let life = Time::from_millis(body.life_ms_or_actor.into());
        let deadline = if life == Time::ZERO { lock.deadline } else { on_grid(self.time.plus(life)) };
        let terms = match self.judge_increase(ask, &lock, &body, record.amount.0, deadline, wanted) {
            Ok(terms) => terms,
            Err(code) => return Ok(Outcome::new(code).of(slot)),
        };
        let delta = terms.collateral;
        let now = self.time;
        let claim_until = self.claim_until(ask.partition, deadline);
        let edit = &mut self.edit(slot);
        let is_quote = self.edited(edit).has(flag::QUOTE);
        let ext = self.ext_of(edit);
        if is_quote {
            ext.value = record.amount.0;
        }
        ext.claim_until = ext.claim_until.max(claim_until);
        self.lock_mut(edit).approved += delta;
        self.lock_mut(edit).deadline = deadline;
        let money = self.money(edit);
        money.free -= delta;
        money.held += delta;
        self.partition_mut(ask.partition).count_velocity(now, 0, delta);
        self.commit(edit);
        body.freed = -crate::due::signed(delta);
        body.deadline = deadline;
        record.set_body(&body);
        record.result = Amount(delta);
        Ok(Outcome { deadline, ..Outcome::new(Code::Approved).of(slot).moving(delta) })
    }

    /// The collateral that the rise to a total takes. An error is a decline that is only spoken where its turn comes.
    fn increase_wanted(&self, ask: &Ask, lock: &Lock, total: u128) -> Result<Terms, Code> {
        let held = self.total_asked(lock);
        let rise = total.checked_sub(held).filter(|rise| *rise > 0).ok_or(Code::OverLimit)?;
        let quote = if lock.ext == NONE { QuoteId(0) } else { self.exts.get(lock.ext).quote };
        self.terms(ask, quote, rise)
    }

    /// T in the lock's own currency.
    pub(crate) fn total_asked(&self, lock: &Lock) -> u128 {
        if lock.has(flag::QUOTE) { self.exts.get(lock.ext).value } else { lock.total() }
    }

    fn judge_increase(
        &self,
        ask: &Ask,
        lock: &Lock,
        body: &ChangeBody,
        total: u128,
        deadline: Time,
        wanted: Result<Terms, Code>,
    ) -> Result<Terms, Code> {
        let partition = &self.partitions[ask.partition as usize];
        if !lock.is_live() {
            return Err(Code::NotOpen);
        }
        // The version says which total the sender means to raise. At its last value it no longer tells changes apart.
        let version = self.version(lock);
        if body.version != version || version == u16::MAX {
            return Err(Code::VersionConflict);
        }
        if partition.stops_locks() {
            return Err(Code::Frozen);
        }
        if total <= self.total_asked(lock) {
            return Err(Code::OverLimit);
        }
        let terms = wanted?;
        let headroom = if lock.ext == NONE { 0 } else { self.exts.get(lock.ext).headroom };
        let raised = lock.total().saturating_add(headroom).saturating_add(terms.collateral);
        self.check_limits(ask, lock.merchant, raised, terms.collateral)?;
        self.check_velocity(ask, 0, terms.collateral)?;
        let listed =
            partition.policy.merchants_listed == 0 || self.is_listed(merchant_key(ask, lock.merchant));
        let latest = on_grid(lock.since.plus(partition.policy.life_max));
        let moves_later = deadline == lock.deadline || deadline > lock.deadline && deadline <= latest;
        if !listed || !moves_later {
            return Err(Code::Forbidden);
        }
        if terms.collateral > partition.available(deadline) {
            return Err(Code::Insufficient);
        }
        Ok(terms)
    }
}

/// Row 2: as much as there is, if it is worth locking.
fn partial(terms: &Terms, body: &LockBody, available: u128, edge_unit: u128) -> Option<Grant> {
    if body.floor == Amount::ZERO {
        return None;
    }
    let room = available - available % edge_unit.max(1);
    let (value, collateral) = if body.quote == QuoteId(0) {
        (room, room)
    } else {
        let scale = terms.ratio_bps * WHOLE;
        let value = mul_div_floor(room, terms.price * BPS, scale)?;
        (value, mul_div_ceil(value, scale, terms.price * BPS)?)
    };
    let is_worth_it = value >= body.floor.0 && value > 0 && collateral <= available;
    is_worth_it.then_some(Grant { code: Code::Partial, value, collateral, headroom: 0 })
}

fn merchant_key(ask: &Ask, merchant: MerchantId) -> MerchantKey {
    MerchantKey { tenant: ask.tenant, merchant }
}

/// Why an ended lock takes no capture.
pub(crate) fn ended_code(lock: &Lock) -> Code {
    if lock.end == End::Settled { Code::AlreadySettled } else { Code::NotOpen }
}
