//! The result of a run: one object, as it is printed in JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use surety_protocol::Code;

use crate::inject::Injected;
use crate::interval::Interval;
use crate::money::MoneyCheck;

/// What a run came to. Latencies are in microseconds; an open loop counts them from the intended start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// How payments arrived: `max`, `constant` or `poisson`.
    pub pace: String,
    /// The engine's durability: `fsync` or `os`.
    pub durability: String,
    /// True if something was answered, every outcome is definite, no reply contradicts its request, and the money check, if
    /// there was one, agrees.
    pub ok: bool,
    /// Payments begun.
    pub payments: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests that got a recorded answer.
    pub replied: u64,
    /// Of these, those that had their effect.
    pub approved: u64,
    /// Of these, the others, by code.
    pub declined: BTreeMap<String, u64>,
    /// Requests that were not admitted, by code: definitely not executed.
    pub refused: BTreeMap<String, u64>,
    /// Requests that never left, such as for want of a link.
    pub unsent: u64,
    /// Requests whose outcome was lost and then found by a look-up.
    pub resolved: u64,
    /// Requests whose outcome is still unknown.
    pub unknown: u64,
    /// Payments of an open loop that could not be begun because too many were under way.
    pub dropped: u64,
    /// Replies that contradict their request, or what was answered before.
    pub contradictions: u64,
    /// What the money check came to, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money_check: Option<MoneyCheck>,
    /// Faults that were injected on the way, if any were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected: Option<Injected>,
    /// How long it took, the last replies included.
    pub seconds: f64,
    /// Recorded answers a second.
    pub rate_per_s: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Median service time: from the sending itself.
    pub service_p50_us: f64,
    /// 90th percentile of the service time.
    pub service_p90_us: f64,
    /// 99th percentile of the service time.
    pub service_p99_us: f64,
    /// 99.9th percentile of the service time.
    pub service_p999_us: f64,
    /// The longest service time.
    pub service_max_us: f64,
    /// How late the generator itself began payments of an open loop: 99th percentile.
    pub late_p99_us: f64,
    /// How late it is when it has nothing to do: 99th percentile, before the run.
    pub jitter_p99_us: f64,
    /// Share of the cores' time that others took before the run.
    pub busy_by_others: f64,
    /// True if the machine was not quiet enough for the latencies to be trusted.
    pub noisy: bool,
    /// Payments a second that an open loop was to begin; 0 for a closed one.
    pub offered_per_s: f64,
    /// What machine it was.
    pub machine: String,
    /// Second by second.
    pub intervals: Vec<Interval>,
    /// Latency by quantile: (quantile, microseconds), closer together towards 1.
    pub histogram: Vec<(f64, f64)>,
}

/// A histogram from a microsecond's thousandth to a minute, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, 60_000_000_000, 3) {
        Ok(histogram) => histogram,
        Err(_) => unreachable!("bounds and digits are constants that fit together"),
    }
}

/// The value at a quantile, in microseconds; 0 for an empty histogram.
pub(crate) fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // a minute in nanoseconds fits
    let ns = if histogram.is_empty() { 0.0 } else { histogram.value_at_quantile(quantile) as f64 };
    ns / 1000.0
}

/// Counts one more of a code.
pub(crate) fn count(counts: &mut BTreeMap<String, u64>, code: Code) {
    match counts.get_mut(code.name()) {
        Some(count) => *count += 1,
        None => {
            counts.insert(code.name().to_owned(), 1);
        }
    }
}
