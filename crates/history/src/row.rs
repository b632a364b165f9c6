//! What the index keeps of a record: the record itself, byte by byte, and what the ledger told after it.

use ledger::{CaptureState, LockState, Totals};
use surety_protocol::{
    Address, Code, ControlBody, End, Id, Kind, LockBody, MerchantId, PartitionHandle, Record, Seq, ShardId,
    StakeBody, TenantId, Time,
};

/// A record of a shard, and what the ledger told when its operation was done. What a record of a chain or a long request tells
/// is how things stood after the whole chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which shard.
    pub shard: ShardId,
    /// Its place in the shard's log.
    pub seq: Seq,
    /// The record, as it stands in the log.
    pub record: Record,
    /// The moment of the decision: the record's own, or that of its head if it is a continuation.
    pub time: Time,
    /// The lock that the record makes or names, after it; none if the ledger kept none.
    pub lock: Option<LockAfter>,
    /// The partition's money after it; none if the record concerns none that exists.
    pub balances: Option<Balances>,
    /// What there is of all locks of the merchant in this shard, after it; none if it concerns no merchant's lock.
    pub merchant: Option<MerchantTotals>,
    /// The locks that a group release names, in its order.
    pub named: Vec<Named>,
}

/// What there is of all locks of a tenant's merchant in a shard, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MerchantTotals {
    /// R: held.
    pub held: u128,
    /// u: captured, the payer's asset not yet final.
    pub captured: u128,
    /// P: ended, but still claimable.
    pub pending: u128,
    /// s: settled.
    pub settled: u128,
    /// b: given back by refunds.
    pub refunded: u128,
    /// q: consumed, and so owed to the merchant with the next batch, or paid by one.
    pub consumed: u128,
    /// V: released.
    pub released: u128,
    /// E: expired.
    pub expired: u128,
    /// Paid by the chain for certificates that the merchant presented.
    pub guarantees: u128,
}

impl MerchantTotals {
    /// How many amounts there are.
    pub const LEN: usize = 9;

    /// What they are called, in order.
    pub const NAMES: [&'static str; Self::LEN] = [
        "held",
        "captured",
        "pending",
        "settled",
        "refunded",
        "consumed",
        "released",
        "expired",
        "guarantees",
    ];

    /// The amounts, in order.
    #[must_use]
    pub const fn to_array(self) -> [u128; Self::LEN] {
        let Self { held, captured, pending, settled, refunded, consumed, released, expired, guarantees } =
            self;
        [held, captured, pending, settled, refunded, consumed, released, expired, guarantees]
    }

    pub(crate) const fn from_array(amounts: [u128; Self::LEN]) -> Self {
        let [held, captured, pending, settled, refunded, consumed, released, expired, guarantees] = amounts;
        Self { held, captured, pending, settled, refunded, consumed, released, expired, guarantees }
    }

    /// Takes out a lock as it was and puts it in as it is. Sums are modulo 2^128; what a ledger holds stays far below.
    pub(crate) const fn replace(&mut self, old: Option<&LockAfter>, new: &LockAfter) {
        if let Some(old) = old {
            self.add(old, true);
        }
        self.add(new, false);
    }

    const fn add(&mut self, lock: &LockAfter, is_out: bool) {
        let parts = [
            lock.remaining,
            lock.open,
            lock.pending,
            lock.settled,
            lock.refunded,
            0,
            lock.released,
            lock.expired,
            0,
        ];
        let mut sums = self.to_array();
        let mut at = 0;
        while at < Self::LEN {
            sums[at] =
                if is_out { sums[at].wrapping_sub(parts[at]) } else { sums[at].wrapping_add(parts[at]) };
            at += 1;
        }
        *self = Self::from_array(sums);
    }
}

/// A lock that a group release names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its id, in the record's partition.
    pub id: Id,
    /// How the release left it; none if there is no such lock.
    pub after: Option<LockAfter>,
}

/// A lock, as short as a row has room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockAfter {
    /// How it ended, or that it lives.
    pub end: End,
    /// Rises with each change.
    pub version: u16,
    /// Who is guaranteed; 0 if nobody was named.
    pub merchant: MerchantId,
    /// Who is paid on chain; zero if the directory of merchants does not say.
    pub payee: Address,
    /// A: approved, increases included, in base units.
    pub approved: u128,
    /// C: captured, in base units.
    pub captured: u128,
    /// R: still held, in base units.
    pub remaining: u128,
    /// V: released, in base units.
    pub released: u128,
    /// E: expired, in base units.
    pub expired: u128,
    /// P: ended, but still claimable, in base units.
    pub pending: u128,
    /// u of all captures: the payer's asset is not final, in base units.
    pub open: u128,
    /// s of all captures: settled, in base units.
    pub settled: u128,
    /// b of all captures: given back, in base units.
    pub refunded: u128,
    /// True if this record made the lock, or the refusal that stands for one.
    pub is_new: bool,
}

impl LockAfter {
    /// What was captured and is neither open, settled nor given back, in base units: consumed, or used up by a guarantee. Of a lock in a
    /// quote currency a part of it may have gone back.
    #[must_use]
    pub const fn consumed(&self) -> u128 {
        self.captured.wrapping_sub(self.open).wrapping_sub(self.settled).wrapping_sub(self.refunded)
    }
}

/// A partition's money at a moment, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balances {
    /// K: collateral final on chain.
    pub on_chain: u128,
    /// D: deficit.
    pub deficit: u128,
    /// F: free.
    pub free: u128,
    /// H: held by live locks.
    pub held: u128,
    /// U: captured, the payer's asset not yet final.
    pub captured: u128,
    /// P: ended, but still claimable.
    pub pending: u128,
    /// W: owed to the chain.
    pub owed: u128,
    /// X: exposure.
    pub exposure: u128,
    /// Units of the suppliers together.
    pub units: u128,
}

impl Balances {
    /// How many amounts there are.
    pub const LEN: usize = 9;

    /// What they are called, in order.
    pub const NAMES: [&'static str; Self::LEN] =
        ["on_chain", "deficit", "free", "held", "captured", "pending", "owed", "exposure", "units"];

    /// The amounts, in order.
    #[must_use]
    pub const fn to_array(self) -> [u128; Self::LEN] {
        let Self { on_chain, deficit, free, held, captured, pending, owed, exposure, units } = self;
        [on_chain, deficit, free, held, captured, pending, owed, exposure, units]
    }

    pub(crate) const fn from_array(amounts: [u128; Self::LEN]) -> Self {
        let [on_chain, deficit, free, held, captured, pending, owed, exposure, units] = amounts;
        Self { on_chain, deficit, free, held, captured, pending, owed, exposure, units }
    }
}

impl From<&Totals> for Balances {
    fn from(totals: &Totals) -> Self {
        Self {
            on_chain: totals.on_chain,
            deficit: totals.deficit,
            free: totals.free,
            held: totals.held,
            captured: totals.captured,
            pending: totals.pending,
            owed: totals.owed,
            exposure: totals.exposure,
            units: totals.units,
        }
    }
}

impl Balances {
    /// What the units own: F + H + U + P - D.
    #[must_use]
    pub const fn equity(&self) -> u128 {
        let all =
            self.free.saturating_add(self.held).saturating_add(self.captured).saturating_add(self.pending);
        all.saturating_sub(self.deficit)
    }
}

/// What a supplier has in a partition at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stake {
    /// Units held, queued ones included.
    pub units: u128,
    /// Units that wait to be paid.
    pub queued: u128,
    /// What the units are worth, in base units.
    pub value: u128,
}

/// Names a lock: ids are a tenant's own, within a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockKey {
    /// Its id.
    pub id: Id,
    /// Where it is.
    pub partition: PartitionHandle,
    /// Whose it is.
    pub tenant: TenantId,
}

/// A lock, or what stands for one: a declined request, or a release that came before its lock. As the last record about it left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Which.
    pub key: LockKey,
    /// Who is guaranteed; 0 if nobody was named.
    pub merchant: MerchantId,
    /// Who is paid on chain; zero if the directory of merchants does not say.
    pub payee: Address,
    /// When it was made, or declined.
    pub created: Time,
    /// The record that made it.
    pub seq: Seq,
    /// When it was changed last.
    pub changed: Time,
    /// The record that did.
    pub changed_seq: Seq,
    /// What was asked by the record that made it: in base units of the collateral, or of the quote currency.
    pub asked: u128,
    /// The currency of what was asked; 0 for the collateral itself.
    pub quote: u16,
    /// Merchant category code.
    pub category: u16,
    /// The sender's own number.
    pub user: u64,
    /// When it ends by itself.
    pub deadline: Time,
    /// How it ended, or that it lives.
    pub end: End,
    /// The first answer.
    pub code: Code,
    /// Rises with each change.
    pub version: u16,
    /// A: approved, increases included, in base units.
    pub approved: u128,
    /// G: headroom left.
    pub headroom: u128,
    /// C: captured.
    pub captured: u128,
    /// V: released.
    pub released: u128,
    /// E: expired.
    pub expired: u128,
    /// R: still held.
    pub remaining: u128,
    /// P: ended, but still claimable.
    pub pending: u128,
    /// True if a certificate was asked for.
    pub is_certified: bool,
    /// True while a guarantee is called on chain.
    pub is_called: bool,
    /// Its captures, by index.
    pub captures: Vec<CaptureState>,
}

impl Lock {
    /// The refusal that a declined request leaves, or the tombstone of a lock that is never to be.
    pub(crate) fn refused(key: LockKey, end: End, seq: Seq, record: &Record, payee: Address) -> Self {
        let body = if record.kind() == Some(Kind::Lock) { record.body() } else { LockBody::default() };
        Self {
            key,
            merchant: body.merchant,
            payee,
            created: record.time,
            seq,
            changed: record.time,
            changed_seq: seq,
            // An advice asks too, in its way.
            asked: record.amount.0,
            quote: body.quote.0,
            category: body.category,
            user: body.user,
            deadline: body.deadline,
            end,
            code: record.code().unwrap_or(Code::Malformed),
            version: 0,
            approved: 0,
            headroom: 0,
            captured: 0,
            released: 0,
            expired: 0,
            remaining: 0,
            pending: 0,
            is_certified: false,
            is_called: false,
            captures: Vec::new(),
        }
    }

    /// Takes over what the ledger says of it.
    pub(crate) fn update(&mut self, state: LockState) {
        self.merchant = state.merchant;
        self.deadline = state.deadline;
        self.end = state.end;
        self.code = state.code;
        self.version = state.version;
        self.approved = state.approved;
        self.headroom = state.headroom;
        self.captured = state.captured;
        self.released = state.released;
        self.expired = state.expired;
        self.remaining = state.remaining;
        self.pending = state.pending;
        self.is_certified = state.is_certified;
        self.is_called = state.is_called;
        self.captures = state.captures;
    }

    pub(crate) fn after(&self, is_new: bool) -> LockAfter {
        let sum = |part: fn(&CaptureState) -> u128| self.captures.iter().map(part).sum();
        LockAfter {
            end: self.end,
            version: self.version,
            merchant: self.merchant,
            payee: self.payee,
            approved: self.approved,
            captured: self.captured,
            remaining: self.remaining,
            released: self.released,
            expired: self.expired,
            pending: self.pending,
            open: sum(|capture| capture.open),
            settled: sum(|capture| capture.settled),
            refunded: sum(|capture| capture.refunded),
            is_new,
        }
    }
}

impl Row {
    /// True if the row is part of the long request before it.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.record.kind() == Some(Kind::Continuation)
    }

    /// The supplier that the record names.
    #[must_use]
    pub fn supplier(&self) -> Option<Address> {
        supplier_of(&self.record)
    }

    /// The merchant that the record concerns: that of its lock, or the one that signed the group release.
    #[must_use]
    pub fn merchant_of(&self) -> Option<MerchantId> {
        let own = self.lock.map(|lock| lock.merchant);
        let signed = || {
            let is_group = self.record.kind() == Some(Kind::ReleaseGroup);
            is_group.then(|| MerchantId(self.record.body::<ControlBody>().user))
        };
        own.or_else(signed).filter(|merchant| *merchant != MerchantId(0))
    }

    /// The locks that the record makes or names.
    pub fn locks(&self) -> impl Iterator<Item = Id> + '_ {
        let own = if self.is_part() { Id(0) } else { self.record.lock() };
        Some(own).filter(|id| *id != Id(0)).into_iter().chain(self.named.iter().map(|named| named.id))
    }

    /// What became of these, as far as they are there.
    pub fn afters(&self) -> impl Iterator<Item = &LockAfter> + '_ {
        self.lock.iter().chain(self.named.iter().filter_map(|named| named.after.as_ref()))
    }
}

/// The supplier that a record names.
pub(crate) fn supplier_of(record: &Record) -> Option<Address> {
    let names_one = matches!(record.kind(), Some(Kind::Deposit | Kind::Withdraw | Kind::WithdrawPaid));
    names_one.then(|| record.body::<StakeBody>().supplier)
}
