//! New ids: UUIDv7 on the engine's clock, from a generator that takes no lock.
//!
//! The engine's clock is what it last told, carried on by this host's monotonic clock. The wall clock, which may be stepped at
//! any moment, only stands in until the first hello.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use surety_protocol::{Code, Id, Reply, Time};

/// The step of the Weyl sequence of splitmix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// How far a reply may be ahead of this clock before it sets it. Engines accept ids that are far older than this.
const LAG_NS_MAX: u64 = 250_000_000;

/// Makes ids, and the little randomness that back-off needs.
#[derive(Debug)]
pub(crate) struct IdSource {
    started: Instant,
    clock: EngineClock,
    sequence: AtomicU64,
    seed: u64,
}

/// The engine's clock, in readings of a monotonic one.
#[derive(Debug)]
struct EngineClock {
    /// The engine's time when the monotonic clock stood at zero, in nanoseconds since the epoch.
    origin_ns: AtomicI64,
}

impl IdSource {
    /// A source whose ids collide with nobody's: 74 bits from the system's generator.
    pub(crate) fn new() -> Self {
        let started = Instant::now();
        let wall = host_now();
        let seed = getrandom::u64().unwrap_or(wall.0);
        let start = getrandom::u64().unwrap_or_else(|_| seed.rotate_left(32));
        let clock = EngineClock { origin_ns: AtomicI64::new(0) };
        clock.set(wall, Duration::ZERO);
        Self { started, clock, sequence: AtomicU64::new(start), seed }
    }

    /// Learns the engine's clock from a hello.
    pub(crate) fn learn(&self, engine: Time) {
        self.clock.set(engine, self.started.elapsed());
    }

    /// Learns the engine's clock from the replies of one frame.
    pub(crate) fn learn_from(&self, replies: &[Reply]) {
        self.clock.learn_from(replies, self.started.elapsed());
    }

    /// The engine's time, as well as this host knows it.
    pub(crate) fn now(&self) -> Time {
        self.clock.at(self.started.elapsed())
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

impl EngineClock {
    /// The engine's time is `engine` while the monotonic clock stands at `elapsed`.
    fn set(&self, engine: Time, elapsed: Duration) {
        let origin = i128::from(engine.0) - i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX / 2);
        let bounded = origin.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        self.origin_ns.store(i64::try_from(bounded).unwrap_or(0), Ordering::Relaxed);
    }

    /// A reply was decided before it arrived, a repeated one long before: so the engine's time is at least that of any
    /// reply. Only the refusal of an id for being of the future tells the engine's time exactly.
    fn learn_from(&self, replies: &[Reply], elapsed: Duration) {
        if let Some(ahead) =
            replies.iter().find(|reply| reply.code() == Code::IdFromFuture && reply.time.0 > 0)
        {
            self.set(ahead.time, elapsed);
        }
        let Some(newest) = replies.iter().map(|reply| reply.time).max() else { return };
        if newest.0 > self.at(elapsed).0.saturating_add(LAG_NS_MAX) {
            self.set(newest, elapsed);
        }
    }

    /// The engine's time while the monotonic clock stands at `elapsed`.
    fn at(&self, elapsed: Duration) -> Time {
        let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        Time(elapsed.saturating_add_signed(self.origin_ns.load(Ordering::Relaxed)))
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

    /// The readings are all there is: no step of a wall clock can come in between.
    #[test]
    fn the_engines_clock_goes_on_by_the_monotonic_one() {
        const HOUR: u64 = 3_600;
        let clock = EngineClock { origin_ns: AtomicI64::new(0) };
        let (at, time) = (Duration::from_secs, Time::from_secs);
        let reply = |time, code: Code| Reply { time, code: code as u8, ..Reply::default() };
        let check = |elapsed, expect| assert_eq!(clock.at(at(elapsed)), time(expect), "after {elapsed} s");

        clock.set(time(100 * HOUR), at(10));
        check(10, 100 * HOUR);
        check(15, 100 * HOUR + 5);
        // Old answers and small differences teach nothing.
        let repeat = reply(time(99 * HOUR), Code::Approved);
        let recent = reply(Time(time(100 * HOUR + 5).0 + LAG_NS_MAX), Code::Approved);
        clock.learn_from(&[repeat, recent], at(15));
        clock.learn_from(&[], at(15));
        check(20, 100 * HOUR + 10);
        // This host slept: the engine is ahead.
        clock.learn_from(&[repeat, reply(time(101 * HOUR), Code::StaleId)], at(20));
        check(21, 101 * HOUR + 1);
        // Its ids are of the future: the engine is behind, and says where. An older reply stands beside it.
        clock.learn_from(&[reply(time(100 * HOUR), Code::IdFromFuture), repeat], at(30));
        check(31, 100 * HOUR + 1);
        // Another hello is believed in both directions, also before the epoch of the monotonic clock.
        clock.set(time(50 * HOUR), at(40));
        check(41, 50 * HOUR + 1);
        clock.set(time(1), at(40));
        check(42, 3);
        check(38, 0);
    }
}
