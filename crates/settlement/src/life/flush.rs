//! When to seal: as late as is safe, since netting is better the more it nets.

use surety_protocol::Time;

/// What waits for the next batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pile {
    /// Records that were netted. Without any, and without value, there is nothing to seal.
    pub records: u64,
    /// What a batch sealed now could credit, in base units: owed to payees who are known, within the contract's limit, and
    /// nothing before the stream has gone on; see [`Sealer::creditable`](crate::Sealer::creditable).
    pub value: u128,
    /// How long the oldest of it has waited; of what a batch left over, since that batch.
    pub age: Time,
    /// A supplier has asked to leave on chain, a guarantee has been called, or the batch has as many leaves as it should.
    pub is_urgent: bool,
}

/// When a pile is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    /// At this age.
    pub age_max: Time,
    /// Or with so much unpublished, in base units.
    pub value_max: u128,
    /// Or with so many records.
    pub records_max: u64,
    /// Or from this age on, while blocks are cheaper than their hourly mean.
    pub cheap_age: Time,
    /// A batch that the contract has refused is not sealed anew before this, since its last sealing; twice as long after each
    /// further refusal.
    pub retry_after: Time,
}

impl FlushPolicy {
    /// True if the pile is to be sealed now.
    #[must_use]
    pub const fn is_due(&self, pile: &Pile, base_fee: u128, base_fee_mean: u128) -> bool {
        let is_cheap = base_fee < base_fee_mean && pile.age.0 >= self.cheap_age.0;
        // What the payout limit has left over waits for no further record.
        (pile.records > 0 || pile.value > 0)
            && (pile.is_urgent
                || pile.age.0 >= self.age_max.0
                || pile.value >= self.value_max
                || pile.records >= self.records_max
                || is_cheap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pile_is_flushed_for_any_one_reason() {
        let policy = FlushPolicy {
            age_max: Time::from_secs(600),
            value_max: 1_000,
            records_max: 100,
            cheap_age: Time::from_secs(60),
            retry_after: Time::ZERO,
        };
        let young = Pile { records: 1, value: 1, age: Time::from_secs(59), is_urgent: false };
        let check =
            |pile, base_fee, expect| assert_eq!(policy.is_due(&pile, base_fee, 50), expect, "{pile:?}");
        check(young, 10, false);
        check(Pile { age: Time::from_secs(60), ..young }, 50, false);
        check(Pile { age: Time::from_secs(60), ..young }, 49, true);
        check(Pile { age: Time::from_secs(600), ..young }, 50, true);
        check(Pile { value: 1_000, ..young }, 50, true);
        check(Pile { records: 100, ..young }, 50, true);
        check(Pile { is_urgent: true, ..young }, 50, true);
        check(Pile { records: 0, value: 0, is_urgent: true, ..young }, 50, false);
    }

    #[test]
    fn what_a_batch_has_left_over_is_sealed_without_a_further_record() {
        let policy = FlushPolicy {
            age_max: Time::from_secs(600),
            value_max: 1_000,
            records_max: 100,
            cheap_age: Time::from_secs(60),
            retry_after: Time::ZERO,
        };
        let left = Pile { records: 0, value: 1, age: Time::from_secs(599), is_urgent: false };
        assert!(!policy.is_due(&left, 50, 50));
        assert!(policy.is_due(&Pile { age: Time::from_secs(600), ..left }, 50, 50));
        assert!(policy.is_due(&Pile { value: 1_000, ..left }, 50, 50));
        // Beyond the limit nothing can be credited now, however long it has waited.
        assert!(!policy.is_due(&Pile { value: 0, age: Time::from_secs(900), ..left }, 50, 50));
    }
}
