//! Numbers that some threads change and the listener reads. Nobody waits for anybody, but for a [`Tally`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Powers of two of nanoseconds that a histogram tells apart: from 1 us to 17 s.
const BUCKETS: usize = 24;
/// Upper bound of the first bucket, in nanoseconds.
const FIRST_BUCKET_NS: u64 = 1 << 10;

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may. What many threads change is a [`Gauge`].
    pub fn add(&self, amount: u64) {
        // One writer: a load and a store cost less than a locked addition.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Sets; only the owning thread may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it has come to.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that any thread may change: also one that only rises.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn raise(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less: of what was raised before.
    pub fn lower(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more, until what comes back is dropped.
    #[must_use]
    pub fn hold(&self) -> Held<'_> {
        self.raise();
        Held(self)
    }

    /// What it has come to.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of a [`Gauge`], for as long as it is held.
#[derive(Debug)]
pub struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lower();
    }
}

/// Durations by powers of two.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Takes a duration in nanoseconds; only the owning thread may.
    pub fn record(&self, nanos: u64) {
        let add = |number: &AtomicU64, amount: u64| {
            number.store(number.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        };
        add(&self.buckets[bucket_of(nanos)], 1);
        add(&self.sum_ns, nanos);
    }

    /// The same from any thread.
    pub fn observe(&self, duration: std::time::Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Upper bounds in seconds with the cumulative counts, the last without bound; then the sum in seconds.
    #[must_use]
    pub fn read(&self) -> (Vec<(f64, u64)>, f64) {
        let mut total = 0;
        let cumulative = self.buckets.iter().enumerate().map(|(index, bucket)| {
            total += bucket.load(Ordering::Relaxed);
            let bound = if index + 1 == BUCKETS { f64::INFINITY } else { seconds(FIRST_BUCKET_NS << index) };
            (bound, total)
        });
        (cumulative.collect(), seconds(self.sum_ns.load(Ordering::Relaxed)))
    }
}

fn bucket_of(nanos: u64) -> usize {
    let above = nanos.max(1).div_ceil(FIRST_BUCKET_NS);
    (above.next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

#[expect(clippy::cast_precision_loss, reason = "what is printed needs no more than 52 bits")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// How often each of a few things has come: the kinds that there may be are bounded by whoever counts.
#[derive(Debug)]
pub struct Tally<K>(Mutex<BTreeMap<K, u64>>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Copy> Tally<K> {
    /// Once more.
    pub fn count(&self, kind: K) {
        *self.0.lock().entry(kind).or_default() += 1;
    }

    /// Everything that has come at least once, in order.
    #[must_use]
    pub fn read(&self) -> Vec<(K, u64)> {
        self.0.lock().iter().map(|(kind, count)| (*kind, *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_fall_below_their_bound_whoever_takes_them() {
        for nanos in [0, 1, 1023, 1024, 1025, 1_000_000, u64::MAX / 2] {
            let (own, any) = (Histogram::default(), Histogram::default());
            own.record(nanos);
            any.observe(Duration::from_nanos(nanos));
            assert_eq!(own.read(), any.read());
            let (buckets, _) = own.read();
            let (bound, _) = buckets.iter().find(|(_, count)| *count == 1).unwrap();
            assert!(seconds(nanos) <= *bound, "{nanos}");
        }
    }

    #[test]
    fn what_is_held_is_given_back() {
        let gauge = Gauge::default();
        let (one, two) = (gauge.hold(), gauge.hold());
        assert_eq!(gauge.get(), 2);
        drop((one, two));
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn many_threads_lose_nothing() {
        let (gauge, tally, histogram) = (Gauge::default(), Tally::default(), Histogram::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..1000_u64 {
                        gauge.raise();
                        tally.count(turn % 3);
                        histogram.observe(Duration::from_nanos(turn));
                    }
                });
            }
        });
        assert_eq!(gauge.get(), 4000);
        assert_eq!(tally.read().iter().map(|(_, count)| count).sum::<u64>(), 4000);
        assert_eq!(histogram.read().0.last().unwrap().1, 4000);
    }
}
