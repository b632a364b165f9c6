//! New ids: UUIDv7 on the engine's clock, from a generator that takes no lock.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use surety_protocol::{Id, Time};

/// The step of the Weyl sequence of splitmix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes ids, and the little randomness that back-off needs.
#[derive(Debug)]
pub(crate) struct IdSource {
    /// Nanoseconds to add to this host's clock to get the engine's.
    offset_ns: AtomicI64,
    sequence: AtomicU64,
    seed: u64,
}

impl IdSource {
    /// A source whose ids collide with nobody's: 74 bits from the system's generator.
    pub(crate) fn new() -> Self {
        let seed = getrandom::u64().unwrap_or_else(|_| host_now().0);
        let start = getrandom::u64().unwrap_or_else(|_| seed.rotate_left(32));
        Self { offset_ns: AtomicI64::new(0), sequence: AtomicU64::new(start), seed }
    }

    /// Learns the engine's clock from a hello. Differences below a quarter of a second are this exchange's own time.
    pub(crate) fn learn(&self, engine: Time) {
        let difference = i128::from(engine.0) - i128::from(host_now().0);
        let offset = if difference.abs() < 250_000_000 { 0 } else { difference };
        self.offset_ns.store(i64::try_from(offset).unwrap_or(0), Ordering::Relaxed);
    }

    /// The engine's time, as well as this host knows it.
    pub(crate) fn now(&self) -> Time {
        Time(host_now().0.saturating_add_signed(self.offset_ns.load(Ordering::Relaxed)))
    }

    /// A new id.
    pub(crate) fn next(&self) -> Id {
        let low = self.random();
        Id::from_parts(self.now(), u128::from(self.seed) << 64 | u128::from(low))
    }

    /// The next number of splitmix64, which repeats no value within 2^64.
    pub(crate) fn random(&self) -> u64 {
        let mut z = self.sequence.fetch_add(GOLDEN, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// This host's wall clock.
fn host_now() -> Time {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_distinct_uuids_on_the_engines_clock() {
        let source = IdSource::new();
        source.learn(Time(host_now().0 + 3_600_000_000_000));
        let ids: HashSet<Id> = (0..10_000).map(|_| source.next()).collect();
        assert_eq!(ids.len(), 10_000);
        let hour_ahead = Time(host_now().0 + 3_500_000_000_000);
        assert!(ids.iter().all(|id| id.is_uuid_v7() && id.time() > hour_ahead));
    }
}
