//! A run, second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::distribution::Distribution;
use crate::report::{histogram, quantile_us};

/// What came back in one second of a run. Latencies are in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// When it began, in seconds since the run's start.
    pub at_s: f64,
    /// How long it was.
    pub seconds: f64,
    /// Payments that were meant to begin in it: those that began, and those that could not.
    pub offered: u64,
    /// Of these, those that could not.
    pub dropped: u64,
    /// Recorded answers.
    pub replied: u64,
    /// Answers without effect, and requests that were not admitted, by code.
    pub declined: BTreeMap<String, u64>,
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
    /// Every latency, so that those of several generators can be merged.
    #[serde(default, skip_serializing_if = "Distribution::is_empty")]
    pub latency: Distribution,
}

impl Interval {
    /// Sets its percentiles, and keeps all that was measured.
    pub(crate) fn measure(&mut self, latency: &Histogram<u64>) {
        self.p50_us = quantile_us(latency, 0.5);
        self.p90_us = quantile_us(latency, 0.9);
        self.p99_us = quantile_us(latency, 0.99);
        self.p999_us = quantile_us(latency, 0.999);
        self.max_us = quantile_us(latency, 1.0);
        self.latency = Distribution::of(latency);
    }
}

/// The second under way.
pub(crate) struct Current {
    pub(crate) interval: Interval,
    pub(crate) latency: Histogram<u64>,
    began: Duration,
}

impl Current {
    pub(crate) fn new() -> Self {
        Self { interval: Interval::default(), latency: histogram(), began: Duration::ZERO }
    }

    /// Ends it at a moment of the run and begins the next; says what it came to.
    pub(crate) fn close(&mut self, now: Duration) -> Interval {
        let (began, span) = (self.began, now.saturating_sub(self.began));
        let mut interval = std::mem::take(&mut self.interval);
        interval.at_s = began.as_secs_f64();
        interval.seconds = span.as_secs_f64();
        interval.measure(&self.latency);
        self.latency.reset();
        self.began = now;
        interval
    }

    /// True if nothing happened in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.interval == Interval::default()
    }
}
