//! Token buckets: how often one address, or one certificate, may open a connection.

use std::collections::HashMap;
use std::hash::Hash;

use surety_protocol::Time;

/// A bucket holds this many seconds' worth of its rate.
const BURST_S: u64 = 4;
/// Buckets remembered; past it the fullest, which are as good as new, are forgotten.
const BUCKETS_MAX: usize = 65_536;

/// One bucket for each key, filled at a common rate.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    /// Nanoseconds that one admission costs.
    cost: u64,
    /// The moment at which each bucket was, or will be, full.
    full_at: HashMap<K, Time>,
    /// Full buckets were last forgotten then.
    swept_at: Time,
}

impl<K: Eq + Hash> Limiter<K> {
    /// Admits `rate_per_s` a second for each key, with a burst of four seconds' worth; 0 admits everything.
    #[must_use]
    pub(crate) fn new(rate_per_s: u32) -> Self {
        let cost = 1_000_000_000_u64.checked_div(u64::from(rate_per_s)).unwrap_or(0);
        Self { cost, full_at: HashMap::new(), swept_at: Time::ZERO }
    }

    /// True if the key may pass now. `now` is any clock that does not go backwards.
    pub(crate) fn admit(&mut self, key: K, now: Time) -> bool {
        if self.cost == 0 {
            return true;
        }
        if self.full_at.len() >= BUCKETS_MAX {
            self.sweep(now);
            // Everybody is drawing: a flood of addresses. Refuse new ones rather than grow.
            if self.full_at.len() >= BUCKETS_MAX && !self.full_at.contains_key(&key) {
                return false;
            }
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        let after = (*full_at).max(now).plus(Time(self.cost));
        if after.minus(now) > Time::from_secs(BURST_S) {
            return false;
        }
        *full_at = after;
        true
    }

    /// Forgets full buckets, at most once a second, so that a flood does not pay for itself.
    fn sweep(&mut self, now: Time) {
        if now.minus(self.swept_at) >= Time::from_secs(1) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.swept_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds_for_each_key_alone() {
        let mut limiter = Limiter::new(10);
        let at = |millis: u64| Time::from_millis(1_000_000 + millis);
        let admitted = (0..100).filter(|_| limiter.admit("a", at(0))).count();
        assert_eq!(admitted, 40, "four seconds' worth");
        assert!(limiter.admit("b", at(0)), "another key has its own bucket");
        assert!(!limiter.admit("a", at(99)));
        assert!(limiter.admit("a", at(100)));
        assert!(!limiter.admit("a", at(100)));
        let later = (0..100).filter(|_| limiter.admit("a", at(60_000))).count();
        assert_eq!(later, 40, "a bucket is never more than full");
    }

    #[test]
    fn a_flood_of_keys_does_not_grow_without_bound() {
        let mut limiter = Limiter::new(1);
        let now = Time::from_secs(5);
        let admitted = (0..2 * BUCKETS_MAX).filter(|key| limiter.admit(*key, now)).count();
        assert_eq!(admitted, BUCKETS_MAX);
        assert!(limiter.full_at.len() <= BUCKETS_MAX);
        assert!(limiter.admit(usize::MAX, Time::from_secs(60)), "full buckets are forgotten");
    }

    #[test]
    fn no_rate_is_no_limit() {
        let mut limiter = Limiter::new(0);
        assert!((0..1000).all(|_| limiter.admit((), Time::ZERO)));
    }
}
