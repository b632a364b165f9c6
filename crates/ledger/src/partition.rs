//! A partition: its money, its stake, its limits in use.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use surety_protocol::limits::UNITS_MAX;
use surety_protocol::{Address, AssetId, Id, PartitionHandle, Policy, Seq, TenantId, Time, sabotage};

use crate::canon::{Field, Reader, Sink, canonical};
use crate::units::{mul_div_ceil, mul_div_floor};

/// The quantities of one partition, in base units: `K + D = F + H + U + P + W`, and X outside of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Money {
    /// K.
    pub(crate) on_chain: u128,
    /// D.
    pub(crate) deficit: u128,
    /// F.
    pub(crate) free: u128,
    /// H.
    pub(crate) held: u128,
    /// U.
    pub(crate) captured: u128,
    /// P.
    pub(crate) pending: u128,
    /// W.
    pub(crate) owed: u128,
    /// X.
    pub(crate) exposure: u128,
}

canonical!(Money { on_chain, deficit, free, held, captured, pending, owed, exposure });

impl Money {
    /// True if sums of all parts fit.
    fn is_bounded(&self) -> bool {
        let Self { on_chain, deficit, free, held, captured, pending, owed, exposure: _ } = *self;
        [on_chain, deficit, free, held, captured, pending, owed].iter().all(|part| *part <= UNITS_MAX)
    }

    /// H + U + P.
    pub(crate) const fn locked(&self) -> u128 {
        self.held + self.captured + self.pending
    }

    /// What is at risk until the next batch: H + U + P + W.
    pub(crate) const fn at_risk(&self) -> u128 {
        self.locked() + self.owed
    }

    /// What the units own: F + H + U + P - D.
    pub(crate) const fn equity(&self) -> u128 {
        (self.free + self.locked()).saturating_sub(self.deficit)
    }

    /// Adds to F what has just left another place; a deficit is made good first.
    pub(crate) fn credit(&mut self, amount: u128) {
        let repaid = if sabotage!("deficit-not-paid-first") { 0 } else { amount.min(self.deficit) };
        self.deficit -= repaid;
        self.free += amount - repaid;
    }

    /// Takes a loss of what was locked for nobody: from F, and what F cannot bear becomes a deficit. Says what F bore.
    pub(crate) fn lose(&mut self, amount: u128) -> u128 {
        let borne = amount.min(self.free);
        self.free -= borne;
        self.deficit += amount - borne;
        borne
    }

    /// Stops everything if the identity does not hold.
    #[inline]
    pub(crate) fn assert_identity(&self) {
        assert!(
            self.on_chain + self.deficit == self.free + self.at_risk(),
            "K + D = F + H + U + P + W does not hold"
        );
        assert!(self.deficit == 0 || self.free == 0, "a deficit with free collateral");
    }
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) money: Money,
    pub(crate) handle: PartitionHandle,
    pub(crate) asset: AssetId,
    pub(crate) is_frozen: bool,
    pub(crate) tracks_merchants: bool,
    /// A change since the state hash last saw it.
    pub(crate) is_dirty: bool,
    /// It waits to pay withdrawals.
    pub(crate) is_ready: bool,
    /// Not reconciled since a loss. An entry of its own in snapshots, so that those without a loss stay as they were.
    pub(crate) is_unreconciled: bool,
    /// Locks to which time would have done something: their slots and ids, perhaps several times.
    pub(crate) suspended: Vec<(u32, u128)>,
    /// The tumbling window that the counts belong to.
    pub(crate) window: u64,
    pub(crate) window_count: u32,
    pub(crate) window_value: u128,
    /// Ceiling of what is at risk; in force if `cap_until` is not 0.
    pub(crate) cap: u128,
    pub(crate) cap_until: Time,
    pub(crate) units: u128,
    pub(crate) generation: u32,
    pub(crate) fees: u128,
    pub(crate) batch: u64,
    /// Queued units that have left the queue, and those that ever entered, both modulo 2^128.
    pub(crate) queue_paid: u128,
    pub(crate) queue_entered: u128,
    /// Position of the queue's front.
    pub(crate) queue_front: u64,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) policy: Policy,
    pub(crate) policy_seq: Seq,
    pub(crate) onchain: [u8; 32],
    pub(crate) positions: BTreeMap<Address, Position>,
    pub(crate) nonces: BTreeSet<u64>,
    /// What the state hash holds for it.
    pub(crate) hash: u128,
}

impl Partition {
    pub(crate) fn new(handle: PartitionHandle) -> Self {
        Self {
            money: Money::default(),
            handle,
            asset: AssetId(0),
            is_frozen: false,
            tracks_merchants: false,
            is_dirty: false,
            is_ready: false,
            is_unreconciled: false,
            suspended: Vec::new(),
            window: 0,
            window_count: 0,
            window_value: 0,
            cap: 0,
            cap_until: Time::ZERO,
            units: 0,
            generation: 0,
            fees: 0,
            batch: 0,
            queue_paid: 0,
            queue_entered: 0,
            queue_front: 0,
            queue: VecDeque::new(),
            policy: Policy::default(),
            policy_seq: Seq(0),
            onchain: [0; 32],
            positions: BTreeMap::new(),
            nonces: BTreeSet::new(),
            hash: 0,
        }
    }

    /// True if new collateral may not be locked.
    pub(crate) const fn stops_locks(&self) -> bool {
        self.is_frozen || self.money.deficit > 0
    }

    /// What a lock may use that ends at `deadline`: F without the withdrawals that are due before.
    #[inline]
    pub(crate) fn available(&self, deadline: Time) -> u128 {
        if self.queue.is_empty() || sabotage!("queued-withdrawals-lent-out") {
            return self.money.free;
        }
        let before = self.queue.partition_point(|queued| queued.due < deadline);
        let Some(last) = before.checked_sub(1) else { return self.money.free };
        let units = self.queue[last].entered.wrapping_sub(self.queue_paid);
        // Rounded up: the queue is not shortened by a remainder.
        let reserved = mul_div_ceil(units, self.money.equity() + 1, self.units + VIRTUAL_UNITS);
        self.money.free.saturating_sub(reserved.unwrap_or(u128::MAX))
    }

    /// Locks and their value in the tumbling window of `now`.
    pub(crate) fn velocity(&self, now: Time) -> (u32, u128) {
        if now.0 / self.policy.velocity_window.0.max(1) == self.window {
            (self.window_count, self.window_value)
        } else {
            (0, 0)
        }
    }

    /// Counts into the window of `now`.
    pub(crate) fn count_velocity(&mut self, now: Time, locks: u32, value: u128) {
        let (count, sum) = self.velocity(now);
        self.window = now.0 / self.policy.velocity_window.0.max(1);
        self.window_count = count.saturating_add(locks);
        self.window_value = sum.saturating_add(value);
    }

    /// Units that `amount` buys at today's value, rounded down.
    pub(crate) fn units_for(&self, amount: u128) -> Option<u128> {
        let ignored = if sabotage!("unit-value-ignores-the-deficit") { self.money.deficit } else { 0 };
        mul_div_floor(amount, self.units + VIRTUAL_UNITS, self.money.equity() + ignored + 1)
    }

    /// What units are worth today, rounded down.
    pub(crate) fn value_of(&self, units: u128) -> u128 {
        unit_value(units, self.money.equity(), self.units)
    }

    /// What a supplier has.
    pub(crate) fn position(&self, supplier: &Address) -> Position {
        self.positions.get(supplier).copied().unwrap_or_default()
    }

    /// Units in the queue.
    pub(crate) const fn units_queued(&self) -> u128 {
        self.queue_entered.wrapping_sub(self.queue_paid)
    }

    /// True if only one supplier may stake: the collateral never leaves its holder.
    pub(crate) fn is_stake_in_place(&self) -> bool {
        self.onchain[..4] == [0xaa; 4]
    }

    /// Writes every field that is state, but for the tables inside.
    pub(crate) fn put(&self, out: &mut impl Sink) {
        self.money.put(out);
        Small {
            asset: self.asset,
            is_frozen: self.is_frozen,
            tracks_merchants: self.tracks_merchants,
            window: self.window,
            window_count: self.window_count,
            window_value: self.window_value,
            cap: self.cap,
            cap_until: self.cap_until,
            units: self.units,
            generation: self.generation,
            fees: self.fees,
            batch: self.batch,
            queue_paid: self.queue_paid,
            queue_entered: self.queue_entered,
            queue_front: self.queue_front,
            policy_seq: self.policy_seq,
            onchain: self.onchain,
        }
        .put(out);
        out.bytes(&self.policy.to_bytes());
    }

    /// Reads them back.
    pub(crate) fn take(handle: PartitionHandle, from: &mut Reader) -> Option<Self> {
        let mut this = Self::new(handle);
        this.money.take(from)?;
        let mut small = Small::default();
        small.take(from)?;
        // What no ledger writes must not overflow the sums that would find it out.
        if !this.money.is_bounded() || small.units > UNITS_MAX {
            return None;
        }
        this.asset = small.asset;
        this.is_frozen = small.is_frozen;
        this.tracks_merchants = small.tracks_merchants;
        this.window = small.window;
        this.window_count = small.window_count;
        this.window_value = small.window_value;
        this.cap = small.cap;
        this.cap_until = small.cap_until;
        this.units = small.units;
        this.generation = small.generation;
        this.fees = small.fees;
        this.batch = small.batch;
        this.queue_paid = small.queue_paid;
        this.queue_entered = small.queue_entered;
        this.queue_front = small.queue_front;
        this.policy_seq = small.policy_seq;
        this.onchain = small.onchain;
        let policy: [u8; surety_protocol::POLICY_BYTES] = Field::take(from)?;
        this.policy = Policy::from_bytes(&policy).filter(Policy::is_valid)?;
        Some(this)
    }
}

/// The small fields of a partition that are state.
#[derive(Default)]
struct Small {
    asset: AssetId,
    is_frozen: bool,
    tracks_merchants: bool,
    window: u64,
    window_count: u32,
    window_value: u128,
    cap: u128,
    cap_until: Time,
    units: u128,
    generation: u32,
    fees: u128,
    batch: u64,
    queue_paid: u128,
    queue_entered: u128,
    queue_front: u64,
    policy_seq: Seq,
    onchain: [u8; 32],
}

canonical!(Small {
    asset,
    is_frozen,
    tracks_merchants,
    window,
    window_count,
    window_value,
    cap,
    cap_until,
    units,
    generation,
    fees,
    batch,
    queue_paid,
    queue_entered,
    queue_front,
    policy_seq,
    onchain,
});

/// Units that nobody owns, and the base unit that nobody put in: the first deposit cannot be made worth nothing.
pub(crate) const VIRTUAL_UNITS: u128 = 1_000_000;

/// What units are worth, in base units and rounded down, where all `units_total` of them own `equity` (F + H + U + P - D).
#[must_use]
pub fn unit_value(units: u128, equity: u128, units_total: u128) -> u128 {
    // The quotient is at most the equity: units are at most the sum that divides them.
    mul_div_floor(units, equity.saturating_add(1), units_total.saturating_add(VIRTUAL_UNITS))
        .unwrap_or(0)
        .min(equity)
}

/// What one supplier has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) units: u128,
    /// The part of them that waits in the queue.
    pub(crate) queued: u128,
}

canonical!(Position { units, queued });

/// One queued withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) id: Id,
    pub(crate) tenant: TenantId,
    pub(crate) supplier: Address,
    pub(crate) units: u128,
    pub(crate) due: Time,
    /// Units that ever entered the queue, this one included, modulo 2^128.
    pub(crate) entered: u128,
}

impl Queued {
    pub(crate) fn put(&self, out: &mut impl Sink) {
        self.id.0.put(out);
        self.tenant.0.put(out);
        self.supplier.put(out);
        self.units.put(out);
        self.due.put(out);
        self.entered.put(out);
    }

    pub(crate) fn take(from: &mut Reader) -> Option<Self> {
        Some(Self {
            id: Id(from.read()?),
            tenant: TenantId(from.read()?),
            supplier: from.read()?,
            units: from.read()?,
            due: from.read()?,
            entered: from.read()?,
        })
    }
}
