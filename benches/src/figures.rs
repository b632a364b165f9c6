//! Numbers from repeated runs: percentiles of one run, medians over runs, and whether they can be trusted.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Percentiles of one run, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Half of the requests took at most this.
    pub p50_us: f64,
    /// 99 of 100 took at most this.
    pub p99_us: f64,
}

/// Collects durations of one run.
#[derive(Debug)]
pub struct Recorder(Histogram<u64>);

impl Default for Recorder {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds"))
    }
}

impl Recorder {
    /// Adds one duration.
    pub fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes over what another one has collected.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// The run's percentiles.
    #[must_use]
    pub fn latency(&self) -> Latency {
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Latency { p50_us: at(0.5), p99_us: at(0.99) }
    }
}

/// The middle of several runs.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    let middle = runs.len() / 2;
    if runs.len() % 2 == 1 { runs[middle] } else { f64::midpoint(runs[middle - 1], runs[middle]) }
}

/// How far the runs lie apart: the range without the extremes, over the median.
#[must_use]
pub fn spread(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = usize::from(sorted.len() > 4);
    let inner = &sorted[cut..sorted.len() - cut];
    match (inner.first(), inner.last()) {
        (Some(low), Some(high)) => (high - low) / median(inner.to_vec()),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_spread() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!((spread(&[1.0, 1.0, 1.0]) - 0.0).abs() < 1e-9);
        assert!((spread(&[100.0, 1.0, 2.0, 3.0, 0.0]) - 1.0).abs() < 1e-9);
    }
}
