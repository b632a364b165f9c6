//! Partitions and locks, as plain as the table has them: one field for each letter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use surety_protocol::{
    Address, AssetId, Code, End, Id, MerchantId, PartitionHandle, Policy, QuoteId, Record, Seq, TenantId,
    Time,
};

/// A withdrawal that waits.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    /// The request.
    pub id: Id,
    /// In whose name.
    pub tenant: TenantId,
    /// Whose units.
    pub supplier: Address,
    /// How many.
    pub units: u128,
    /// When it may be paid.
    pub due: Time,
}

/// One partition: `K + D = F + H + U + P + W`, and X beside it.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    /// On chain.
    pub k: u128,
    /// Deficit.
    pub d: u128,
    /// Free.
    pub f: u128,
    /// Held by live locks.
    pub h: u128,
    /// Captured, not final.
    pub u: u128,
    /// Ended, still claimable.
    pub p: u128,
    /// Owed to the chain.
    pub w: u128,
    /// Exposure.
    pub x: u128,
    /// Its collateral.
    pub asset: AssetId,
    /// Its name on chain.
    pub onchain: [u8; 32],
    /// Stopped by the operator or by a deficit.
    pub is_frozen: bool,
    /// Keeps each merchant's open value.
    pub tracks: bool,
    /// Ceiling of what is at risk, and until when.
    pub cap: Option<(u128, Time)>,
    /// The velocity window at hand: which, locks, value.
    pub window: (u64, u32, u128),
    /// Units of all suppliers.
    pub units: u128,
    /// Generation of units.
    pub generation: u32,
    /// Fees earned.
    pub fees: u128,
    /// The last batch.
    pub batch: u64,
    /// Withdrawals that wait, oldest first.
    pub queue: VecDeque<Queued>,
    /// Units of each supplier.
    pub positions: BTreeMap<Address, u128>,
    /// Numbers of deposits and rewards.
    pub nonces: BTreeSet<u64>,
    /// The rules.
    pub policy: Policy,
    /// The record that set them.
    pub policy_seq: Seq,
    /// How many partitions there were when it was made.
    pub order: usize,
}

impl Partition {
    /// A new one.
    #[must_use]
    pub fn new(_handle: PartitionHandle) -> Self {
        Self::default()
    }

    /// Units of a supplier that do not wait to be paid.
    #[must_use]
    pub fn units_free(&self, supplier: &Address) -> u128 {
        let queued: u128 =
            self.queue.iter().filter(|queued| queued.supplier == *supplier).map(|queued| queued.units).sum();
        self.positions.get(supplier).copied().unwrap_or(0) - queued
    }
}

/// One capture: `c = u + s + b + q`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capture {
    /// The index under which it was told.
    pub index: u16,
    /// Still in U.
    pub u: u128,
    /// Settled.
    pub s: u128,
    /// Given back.
    pub b: u128,
    /// Consumed.
    pub q: u128,
    /// Its value in the lock's currency, refunds deducted.
    pub value: u128,
    /// When the payer's asset must be final; 0 for never.
    pub settle_by: Time,
    /// Of an expired lock.
    pub is_late: bool,
}

impl Capture {
    /// c.
    #[must_use]
    pub const fn c(&self) -> u128 {
        self.u + self.s + self.b + self.q
    }
}

/// Terms of a lock in another currency.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    /// Which currency.
    pub quote: QuoteId,
    /// Approved value.
    pub value: u128,
    /// Captured value.
    pub captured: u128,
    /// The collateral that the approved value stands for.
    pub base: u128,
    /// The price at the lock.
    pub price: u128,
}

/// One lock: `R = A + G - C - V - E`.
#[derive(Clone, Debug)]
pub struct Lock {
    /// The request that made it, as it was sent; none if an advice did.
    pub request: Option<Record>,
    /// Who is guaranteed.
    pub merchant: MerchantId,
    /// Merchant category.
    pub category: u16,
    /// Live, or how it ended.
    pub end: End,
    /// Rises with each change.
    pub version: u16,
    /// When it was made.
    pub created: Time,
    /// When it ends by itself.
    pub deadline: Time,
    /// Of an ended lock: until when it is remembered.
    pub kept_until: Time,
    /// A.
    pub a: u128,
    /// G, what is left of it.
    pub g: u128,
    /// C.
    pub c: u128,
    /// V.
    pub v: u128,
    /// E.
    pub e: u128,
    /// Its share of P.
    pub p: u128,
    /// The part of A that captures drew beyond what was approved.
    pub excess: u128,
    /// Captured late, reversals deducted.
    pub late: u128,
    /// The part of C without a capture: consumed or paid out of R.
    pub direct: u128,
    /// The captures.
    pub captures: Vec<Capture>,
    /// In another currency.
    pub quote: Option<Quote>,
    /// A certificate can be claimed.
    pub is_certified: bool,
    /// Until when.
    pub claim_until: Time,
    /// The guarantee was called on chain.
    pub is_called: bool,
    /// Whose signature releases the certificate.
    pub release_key: Address,
    /// Captured by the request that made it.
    pub is_sale: bool,
    /// The least index of its next capture: indices leap at each loss that it lives through.
    pub first_index: usize,
    /// First answer: code, collateral, headroom, deadline, seq.
    pub first: (Code, u128, u128, Time, Seq),
}

impl Lock {
    /// R.
    #[must_use]
    pub const fn remaining(&self) -> u128 {
        self.a + self.g - self.c - self.v - self.e
    }

    /// T of a live lock: what it is for, without headroom.
    #[must_use]
    pub const fn total(&self) -> u128 {
        self.a.saturating_sub(self.v).saturating_sub(self.e)
    }

    /// Sum of u.
    #[must_use]
    pub fn open(&self) -> u128 {
        self.captures.iter().map(|capture| capture.u).sum()
    }

    /// u of one capture; 0 of one that there is not.
    #[must_use]
    pub fn open_of(&self, capture: u16) -> u128 {
        self.captures.iter().find(|found| found.index == capture).map_or(0, |found| found.u)
    }

    /// True while it holds collateral.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.end == End::Live
    }

    /// T in the lock's own currency.
    #[must_use]
    pub fn total_asked(&self) -> u128 {
        self.quote.map_or(self.total(), |quote| quote.value)
    }

    /// The collateral of a further amount in the lock's own currency.
    #[must_use]
    pub fn collateral_of(&self, amount: u128) -> u128 {
        let Some(quote) = self.quote else { return amount };
        let cumulative = quote.captured.saturating_add(amount);
        super::money::floor(cumulative, quote.base, quote.value).unwrap_or(u128::MAX).saturating_sub(self.c)
    }
}
