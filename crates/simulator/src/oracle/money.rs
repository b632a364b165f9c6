//! Exact products, and the few moves that money makes inside a partition.

use ruint::aliases::U256;
use surety_protocol::Time;

use super::state::Partition;

/// One whole of the collateral.
pub(crate) const WHOLE: u128 = 1_000_000_000_000_000_000;
/// One in basis points.
pub(crate) const BPS: u128 = 10_000;
/// Units that nobody owns.
pub(crate) const VIRTUAL_UNITS: u128 = 1_000_000;

/// `floor(a x b / c)`, if there is such a number.
pub(crate) fn floor(a: u128, b: u128, c: u128) -> Option<u128> {
    if c == 0 {
        return None;
    }
    u128::try_from(U256::from(a) * U256::from(b) / U256::from(c)).ok()
}

/// `ceil(a x b / c)`, if there is such a number.
pub(crate) fn ceil(a: u128, b: u128, c: u128) -> Option<u128> {
    if c == 0 {
        return None;
    }
    u128::try_from((U256::from(a) * U256::from(b)).div_ceil(U256::from(c))).ok()
}

/// Moments that the engine waits for are whole milliseconds.
pub(crate) fn on_grid(time: Time) -> Time {
    Time(time.0.div_ceil(1_000_000).saturating_mul(1_000_000))
}

/// As a signed number.
pub(crate) fn signed(amount: u128) -> i128 {
    i128::try_from(amount).unwrap_or(i128::MAX)
}

impl Partition {
    /// "To F": a deficit is paid first.
    pub(crate) fn credit(&mut self, amount: u128) {
        let repaid = amount.min(self.d);
        self.d -= repaid;
        self.f += amount - repaid;
    }

    /// A loss: F bears it as far as it can, the rest is a deficit. Says what F bore.
    pub(crate) fn lose(&mut self, amount: u128) -> u128 {
        let borne = amount.min(self.f);
        self.f -= borne;
        self.d += amount - borne;
        borne
    }

    /// New collateral may not be locked.
    pub(crate) const fn is_stopped(&self) -> bool {
        self.is_frozen || self.d > 0
    }

    /// What the units own.
    pub(crate) const fn equity(&self) -> u128 {
        (self.f + self.h + self.u + self.p).saturating_sub(self.d)
    }

    /// What units are worth, rounded down.
    pub(crate) fn value_of(&self, units: u128) -> u128 {
        floor(units, self.equity() + 1, self.units + VIRTUAL_UNITS).unwrap_or(0).min(self.equity())
    }

    /// F less the queued withdrawals that are due before a moment.
    pub(crate) fn available(&self, until: Time) -> u128 {
        let units: u128 =
            self.queue.iter().filter(|queued| queued.due < until).map(|queued| queued.units).sum();
        if units == 0 {
            return self.f;
        }
        let reserved = ceil(units, self.equity() + 1, self.units + VIRTUAL_UNITS).unwrap_or(u128::MAX);
        self.f.saturating_sub(reserved)
    }

    /// Locks and value so far in the tumbling window of a moment.
    pub(crate) fn velocity(&self, now: Time) -> (u32, u128) {
        let window = now.0 / self.policy.velocity_window.0.max(1);
        if self.window.0 == window { (self.window.1, self.window.2) } else { (0, 0) }
    }

    pub(crate) fn count_velocity(&mut self, now: Time, locks: u32, value: u128) {
        let (count, sum) = self.velocity(now);
        self.window = (
            now.0 / self.policy.velocity_window.0.max(1),
            count.saturating_add(locks),
            sum.saturating_add(value),
        );
    }

    /// Counts what a capture earns for the suppliers.
    pub(crate) fn earn_fee(&mut self, captured: u128) {
        let fee = floor(captured, u128::from(self.policy.fee_bps), BPS).unwrap_or(0);
        self.fees = self.fees.saturating_add(fee);
    }
}
