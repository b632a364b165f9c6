//! How many requests a token may send.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills at a steady rate.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate_per_s: u32,
    burst: u32,
    /// When it would be full, if nothing more were taken.
    full_at: Instant,
}

/// What a request finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// It may be served.
    pub(crate) is_there: bool,
    /// The most that may come at once.
    pub(crate) limit: u32,
    /// How many more may come at once now.
    pub(crate) remaining: u32,
    /// Seconds until as many as possible may come at once; where none may, until the next may.
    pub(crate) reset_s: u64,
}

impl Bucket {
    pub(crate) fn new(rate_per_s: u32, burst: u32, now: Instant) -> Self {
        Self { rate_per_s: rate_per_s.max(1), burst: burst.max(1), full_at: now }
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Room {
        let each = Duration::from_secs(1) / self.rate_per_s;
        let whole = each * self.burst;
        let full_at = self.full_at.max(now) + each;
        let missing = full_at - now;
        if missing > whole {
            let reset_s = ceil_s(missing - whole);
            return Room { is_there: false, limit: self.burst, remaining: 0, reset_s };
        }
        self.full_at = full_at;
        let left = (whole - missing).as_nanos() / each.as_nanos().max(1);
        let remaining = u32::try_from(left).unwrap_or(u32::MAX);
        Room { is_there: true, limit: self.burst, remaining, reset_s: ceil_s(missing) }
    }
}

fn ceil_s(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 3, start);
        let mut check = |after_ms: u64, is_there: bool, remaining: u32| {
            let room = bucket.take(start + Duration::from_millis(after_ms));
            assert_eq!((room.is_there, room.remaining), (is_there, remaining), "{after_ms}");
            assert_eq!((room.limit, room.reset_s), (3, 1));
        };
        for (remaining, is_there) in [(2, true), (1, true), (0, true), (0, false), (0, false)] {
            check(0, is_there, remaining);
        }
        check(99, false, 0);
        check(100, true, 0);
        check(150, false, 0);
        check(1000, true, 2);
        check(900_000, true, 2);
    }
}
