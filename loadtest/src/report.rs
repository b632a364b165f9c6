//! The result of a run: one object, as it is printed in JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::distribution::Distribution;
use crate::inject::Injected;
use crate::interval::Interval;
use crate::money::MoneyCheck;

/// What a run came to. Latencies are in microseconds; an open loop counts them from the intended start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// How requests travelled: `quic`, `rest` or `iso8583`.
    #[serde(default = "quic")]
    pub transport: String,
    /// How payments arrived: `max`, `constant` or `poisson`; with a rate that changes, how: `ramp 1000..20000`, `poisson, steps 100,500`.
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
    /// Why the first of these did not, if somebody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsent_why: Option<String>,
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
    /// What went wrong with the generator itself, such as one of its processes that died: none of it may be trusted then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
    /// True if somebody ended it before its time.
    #[serde(default)]
    pub stopped_early: bool,
    /// Processes that made the run.
    #[serde(default)]
    pub processes: u32,
    /// When it began, in milliseconds since 1970.
    #[serde(default)]
    pub started_ms: u64,
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
    /// Processor time that the generator took, in seconds, over all its threads and processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator_cpu_s: Option<f64>,
    /// Processor time that the engine took meanwhile, if it runs on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_cpu_s: Option<f64>,
    /// Payments a second that an open loop was to begin; 0 for a closed one.
    pub offered_per_s: f64,
    /// What machine it was.
    pub machine: String,
    /// Second by second.
    pub intervals: Vec<Interval>,
    /// Latency by quantile: (quantile, microseconds), closer together towards 1.
    pub histogram: Vec<(f64, f64)>,
    /// Every latency, so that runs can be merged.
    #[serde(default, skip_serializing_if = "Distribution::is_empty")]
    pub latency: Distribution,
    /// Every service time.
    #[serde(default, skip_serializing_if = "Distribution::is_empty")]
    pub service: Distribution,
    /// How late each payment began.
    #[serde(default, skip_serializing_if = "Distribution::is_empty")]
    pub late: Distribution,
}

/// How requests of older reports travelled.
fn quic() -> String {
    "quic".to_owned()
}

/// Everything that was measured of a run: its percentiles come from here.
#[derive(Clone)]
pub(crate) struct Measured {
    pub(crate) latency: Histogram<u64>,
    pub(crate) service: Histogram<u64>,
    pub(crate) late: Histogram<u64>,
}

impl Measured {
    pub(crate) fn new() -> Self {
        Self { latency: histogram(), service: histogram(), late: histogram() }
    }
}

impl Report {
    /// Processor time of the generator for each request, in microseconds.
    #[must_use]
    pub fn generator_us_per_request(&self) -> Option<f64> {
        self.us_per_request(self.generator_cpu_s)
    }

    /// That of the engine.
    #[must_use]
    pub fn engine_us_per_request(&self) -> Option<f64> {
        self.us_per_request(self.engine_cpu_s)
    }

    fn us_per_request(&self, cpu_s: Option<f64>) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)] // counts of requests stay far below 2^53
        cpu_s.filter(|_| self.sent > 0).map(|cpu_s| cpu_s * 1e6 / self.sent as f64)
    }

    /// Sets all that follows from the counts and from what was measured.
    pub(crate) fn sum_up(&mut self, measured: &Measured, seconds: f64) {
        let Measured { latency, service, late } = measured;
        self.sent = self.replied + self.refused.values().sum::<u64>() + self.resolved + self.unknown;
        self.ok = self.replied > 0
            && self.unknown == 0
            && self.contradictions == 0
            && self.troubles.is_empty()
            && self.money_check.as_ref().is_none_or(MoneyCheck::is_ok);
        self.seconds = seconds;
        #[allow(clippy::cast_precision_loss)] // counts of requests stay far below 2^53
        let replied = self.replied as f64;
        self.rate_per_s = if seconds > 0.0 { replied / seconds } else { 0.0 };
        self.p50_us = quantile_us(latency, 0.5);
        self.p90_us = quantile_us(latency, 0.9);
        self.p99_us = quantile_us(latency, 0.99);
        self.p999_us = quantile_us(latency, 0.999);
        self.max_us = quantile_us(latency, 1.0);
        self.service_p50_us = quantile_us(service, 0.5);
        self.service_p90_us = quantile_us(service, 0.9);
        self.service_p99_us = quantile_us(service, 0.99);
        self.service_p999_us = quantile_us(service, 0.999);
        self.service_max_us = quantile_us(service, 1.0);
        self.late_p99_us = quantile_us(late, 0.99);
    }

    /// Keeps what was measured whole, beside its percentiles.
    pub(crate) fn keep(&mut self, measured: &Measured) {
        let Measured { latency, service, late } = measured;
        self.histogram = steps(latency);
        self.latency = Distribution::of(latency);
        self.service = Distribution::of(service);
        self.late = Distribution::of(late);
    }
}

/// Quantiles that a report keeps in each half of the distance to its end.
const TICKS_PER_HALF: u32 = 5;

/// Quantiles of a histogram, closer together towards its end.
fn steps(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    let of_value = |value: hdrhistogram::iterators::IterationValue<u64>| {
        #[allow(clippy::cast_precision_loss)] // a minute in nanoseconds fits
        let us = value.value_iterated_to() as f64 / 1000.0;
        (value.quantile_iterated_to(), us)
    };
    latency.iter_quantiles(TICKS_PER_HALF).map(of_value).collect()
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
pub(crate) fn count(counts: &mut BTreeMap<String, u64>, code: &str) {
    match counts.get_mut(code) {
        Some(count) => *count += 1,
        None => {
            counts.insert(code.to_owned(), 1);
        }
    }
}
