//! A run, second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

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

    /// Ends it at a moment of the run and begins the next: what it came to, when it began and how long it was.
    pub(crate) fn close(&mut self, now: Duration) -> (Interval, Duration, Duration) {
        let (began, span) = (self.began, now.saturating_sub(self.began));
        let mut interval = std::mem::take(&mut self.interval);
        interval.at_s = began.as_secs_f64();
        interval.seconds = span.as_secs_f64();
        interval.p50_us = quantile_us(&self.latency, 0.5);
        interval.p90_us = quantile_us(&self.latency, 0.9);
        interval.p99_us = quantile_us(&self.latency, 0.99);
        interval.p999_us = quantile_us(&self.latency, 0.999);
        interval.max_us = quantile_us(&self.latency, 1.0);
        self.began = now;
        (interval, began, span)
    }

    /// True if nothing happened in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.interval == Interval::default()
    }
}
