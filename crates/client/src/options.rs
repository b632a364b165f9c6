//! What a client may be told about how to behave.

use std::time::Duration;

use surety_protocol::limits::CONNECTION_IN_FLIGHT_MAX;

/// The longest pause before a link that had served is opened again.
const FIRST_JITTER_MAX: Duration = Duration::from_millis(10);

/// How a client behaves, over any transport. [`Options::default`] suits a payment router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a request may take, repeats included, before its outcome is reported as unknown (or as not executed, if it
    /// never left). Kept to a tenth of a second.
    pub deadline: Duration,
    /// How many links may break under a request before its outcome is reported as unknown.
    pub links_lost_max: u32,
    /// Requests that may be unanswered on each shard; past it `submit` waits and `try_submit` refuses. The engine's own
    /// limit, told in its hello, holds as well.
    pub in_flight_max: usize,
    /// The first pause before a link that failed is opened again. It doubles, with jitter, up to `backoff_max`. Before that, a
    /// link that had served is opened again after a random part of it, so that a fleet does not return all at once.
    pub backoff_min: Duration,
    /// The longest pause between two attempts to open a link.
    pub backoff_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            links_lost_max: 8,
            in_flight_max: CONNECTION_IN_FLIGHT_MAX / 2,
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
        }
    }
}

impl Options {
    /// The pause after so many failures in a row: doubled each time, then a random half to whole of it. After none, a random
    /// part of the first pause, of at most [`FIRST_JITTER_MAX`].
    pub(crate) fn backoff(&self, failures: u32, random: u64) -> Duration {
        let share = f64::from(u32::try_from(random >> 48).unwrap_or(0)) / 65_536.0;
        let Some(doublings) = failures.checked_sub(1) else {
            return self.backoff_min.min(self.backoff_max).min(FIRST_JITTER_MAX).mul_f64(share);
        };
        let ceiling = self.backoff_min.saturating_mul(1 << doublings.min(16)).min(self.backoff_max);
        ceiling / 2 + (ceiling / 2).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_their_bounds() {
        let options = Options::default();
        let check = |failures, random, expect_us: u128| {
            assert_eq!(options.backoff(failures, random).as_micros(), expect_us, "{failures} {random}");
        };
        check(0, 0, 0);
        check(0, 1 << 63, 5_000);
        check(1, 0, 5_000);
        check(2, 0, 10_000);
        check(2, 1 << 63, 15_000);
        check(8, 0, 500_000);
        check(u32::MAX, 0, 500_000);
        assert!(options.backoff(u32::MAX, u64::MAX) <= options.backoff_max);
        let patient = Options { backoff_min: Duration::from_secs(1), ..Options::default() };
        assert!(patient.backoff(0, u64::MAX) <= FIRST_JITTER_MAX);
    }
}
