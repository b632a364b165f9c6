//! What is paid for a place in a block (EIP-1559). All in wei, per gas where it is not said otherwise.

use surety_protocol::Time;

/// The two fees of a transaction, wei per gas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fees {
    /// The most that is paid, base fee and tip.
    pub cap: u128,
    /// The most that goes to who makes the block.
    pub tip: u128,
}

/// How fees are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeePolicy {
    /// The first tip.
    pub tip: u128,
    /// The most that is ever tipped: replacing again and again must not run away where no block is made.
    pub tip_max: u128,
    /// The most that is ever offered, base fee and tip, also past the deadline.
    pub cap_max: u128,
    /// Gas of a commit without data, for budgets.
    pub gas: u128,
    /// A transaction that was not mined for so long is replaced.
    pub replace_after: Time,
    /// Or after so many blocks.
    pub replace_after_blocks: u64,
    /// Wei that a whole (10^18 base units) of protected value is worth spending, at the target age.
    pub wei_per_whole: u128,
    /// The age at which a batch is worth its full price: the price rises with the square of the age.
    pub target_age: Time,
    /// At this age the price no longer matters.
    pub deadline_age: Time,
    /// Wei per day.
    pub daily_budget: u128,
}

/// How much a batch wants to be in a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgency {
    /// What it protects, in base units of the collateral.
    pub value: u128,
    /// Since it was sealed.
    pub age: Time,
    /// Wei spent in the last day.
    pub spent_today: u128,
    /// Gas that it takes.
    pub gas: u128,
}

/// Whether batches carry their data on chain, so that nobody depends on the operator for proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPolicy {
    /// The most that goes with a commit; longer data stays with the operator. 0 publishes none.
    pub bytes_max: usize,
    /// Gas for a byte.
    pub gas_per_byte: u64,
}

impl DataPolicy {
    /// Commits without data.
    pub const NONE: Self = Self { bytes_max: 0, gas_per_byte: 0 };
    /// With data as far as nodes take it (128 KiB a transaction), at what a byte costs at the dearest (EIP-7623).
    pub const ON_CHAIN: Self = Self { bytes_max: 120_000, gas_per_byte: 40 };

    /// Gas for so much data; `None` if it is not published.
    #[must_use]
    pub const fn gas(&self, bytes: usize) -> Option<u64> {
        if bytes > self.bytes_max { None } else { Some(self.gas_per_byte.saturating_mul(bytes as u64)) }
    }
}

/// A choice of fees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quote {
    /// Worth it.
    Pay(Fees),
    /// Beyond the ceiling, but the deadline has come: paid, with an alarm, as far as the policy ever goes.
    PayAnyway(Fees),
    /// Too dear for now.
    TooDear,
}

impl FeePolicy {
    /// Fees for a nonce: enough for the present base fee, and enough to replace what `floor` says was signed for it before.
    pub(crate) fn quote(&self, base_fee: u128, floor: Option<Fees>, urgency: &Urgency) -> Quote {
        let fresh = Fees { cap: base_fee.saturating_mul(2).saturating_add(self.tip), tip: self.tip };
        let wanted = floor.map_or(fresh, |floor| fresh.above(floor.bumped()));
        let least = floor.map_or(0, |floor| floor.bumped().cap).max(base_fee.saturating_add(wanted.tip));
        if wanted.tip > self.tip_max || least > self.cap_max {
            return Quote::TooDear;
        }
        let wanted = Fees { cap: wanted.cap.min(self.cap_max), ..wanted };
        let ceiling = self.ceiling(urgency);
        if wanted.cap <= ceiling {
            Quote::Pay(wanted)
        } else if urgency.age >= self.deadline_age {
            Quote::PayAnyway(wanted)
        } else if least <= ceiling {
            Quote::Pay(Fees { cap: ceiling, tip: wanted.tip })
        } else {
            Quote::TooDear
        }
    }

    /// Value x rate x (age / target)^2, within what is left of the day's budget; per gas.
    fn ceiling(&self, urgency: &Urgency) -> u128 {
        const WHOLE: u128 = 1_000_000_000_000_000_000;
        const PARTS: u128 = 1_000;
        let age = u128::from(urgency.age.0).saturating_mul(PARTS) / u128::from(self.target_age.0.max(1));
        let square = age.saturating_mul(age);
        let worth = (urgency.value / WHOLE).saturating_add(1).saturating_mul(self.wei_per_whole);
        let price = (worth / PARTS / PARTS).saturating_mul(square);
        price.min(self.daily_budget.saturating_sub(urgency.spent_today)) / urgency.gas.max(1)
    }
}

impl Fees {
    /// Enough to replace a transaction with these: an eighth more of both. Nodes refuse a tenth exactly.
    #[must_use]
    pub const fn bumped(self) -> Self {
        Self { cap: an_eighth_more(self.cap), tip: an_eighth_more(self.tip) }
    }

    /// The larger of each.
    #[must_use]
    pub(crate) fn above(self, floor: Self) -> Self {
        let tip = self.tip.max(floor.tip);
        Self { cap: self.cap.max(floor.cap).max(tip), tip }
    }
}

const fn an_eighth_more(fee: u128) -> u128 {
    fee.saturating_add(fee.div_ceil(8)).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: FeePolicy = FeePolicy {
        tip: 10,
        tip_max: 50,
        cap_max: 5_000,
        gas: 100,
        replace_after: Time::from_secs(48),
        replace_after_blocks: 3,
        wei_per_whole: 1_000_000,
        target_age: Time::from_secs(60),
        deadline_age: Time::from_secs(600),
        daily_budget: 100_000,
    };

    #[test]
    fn fees_follow_base_fee_floor_ceiling_and_deadline() {
        let check = |base_fee, floor: Option<(u128, u128)>, age, spent_today, expect| {
            let floor = floor.map(|(cap, tip)| Fees { cap, tip });
            let urgency = Urgency { value: 0, age: Time::from_secs(age), spent_today, gas: POLICY.gas };
            assert_eq!(POLICY.quote(base_fee, floor, &urgency), expect, "{base_fee} {floor:?} {age}");
        };
        let pay = |cap, tip| Quote::Pay(Fees { cap, tip });
        // Twice the base fee and the tip.
        check(100, None, 60, 0, pay(210, 10));
        // An eighth more than what was signed before, of both.
        check(100, Some((210, 10)), 60, 0, pay(238, 13));
        check(300, Some((210, 10)), 60, 0, pay(610, 13));
        // The budget is 1,000 per gas: a lower cap that still covers the base fee will do.
        check(600, None, 60, 0, pay(1_000, 10));
        check(995, None, 60, 0, Quote::TooDear);
        check(100, None, 60, 99_900, Quote::TooDear);
        // A young batch is worth a quarter at half the age.
        check(100, None, 1, 0, Quote::TooDear);
        // At the deadline it no longer matters.
        check(995, None, 600, 0, Quote::PayAnyway(Fees { cap: 2_000, tip: 10 }));
        // Further than the policy goes it is never paid: neither for the block nor for the tip.
        check(2_600, None, 600, 0, Quote::PayAnyway(Fees { cap: 5_000, tip: 10 }));
        check(4_995, None, 600, 0, Quote::TooDear);
        check(100, Some((4_900, 10)), 600, 0, Quote::TooDear);
        check(100, Some((1_000, 43)), 600, 0, Quote::PayAnyway(Fees { cap: 1_126, tip: 50 }));
        check(100, Some((1_000, 44)), 600, 0, Quote::TooDear);
        // A replacement that the ceiling does not allow is not sent: it would be refused.
        check(100, Some((990, 10)), 60, 0, Quote::TooDear);
    }
}
