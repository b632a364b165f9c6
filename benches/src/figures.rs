//! Numbers from repeated runs: percentiles of one run, medians over runs, and whether they can be trusted.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Percentiles of one run, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Half of the requests took at most this.
    pub p50_us: f64,
    /// 99 of 100 took at most this.
    pub p99_us: f64,
    /// 999 of 1,000 took at most this.
    pub p999_us: f64,
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
        Latency { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999) }
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

/// Where the middle half of several runs begins and where it ends: what a machine makes of one and the same thing.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn quartiles(mut runs: Vec<f64>) -> [f64; 2] {
    runs.sort_by(f64::total_cmp);
    let last = runs.len() - 1;
    [runs[last / 4], runs[last - last / 4]]
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

/// The figures of a comparison: medians of repetitions, ratios of them, and whether the machine was quiet.
#[derive(Debug, Default)]
pub struct Report {
    figures: Map<String, Value>,
    /// The repetitions that are not put yet.
    series: BTreeMap<&'static str, Vec<f64>>,
    /// How far the repetitions of each floor lie apart.
    spreads: Vec<f64>,
}

impl Report {
    /// Notes a repetition.
    pub fn add(&mut self, key: &'static str, figure: f64) {
        self.series.entry(key).or_default().push(figure);
    }

    /// Names those of the repetitions that are floors: if these move by themselves, ratios say little.
    pub fn floors(&mut self, keys: &[&str]) {
        let spread_of = |key: &&str| self.series.get(*key).map_or(0.0, |runs| spread(runs));
        self.spreads.extend(keys.iter().map(spread_of));
    }

    /// Puts the medians of the repetitions, and returns how to look one up.
    ///
    /// # Panics
    /// What it returns, if a key was not measured.
    pub fn put_medians(&mut self) -> impl Fn(&str) -> f64 + use<> {
        let medians: BTreeMap<_, _> =
            std::mem::take(&mut self.series).into_iter().map(|(key, runs)| (key, median(runs))).collect();
        for (key, figure) in &medians {
            self.put_figure(key, *figure);
        }
        move |key| medians[key]
    }

    /// Drops the repetitions that are not put yet.
    pub fn forget(&mut self) {
        self.series.clear();
    }

    /// Puts how many times as much a figure is.
    pub fn ratio(&mut self, key: &str, figure: f64, floor: f64) {
        self.put_figure(key, figure / floor);
    }

    /// Puts the median of what pairs of runs have come to, and between what their middle half lies: a difference that is smaller than that is none.
    ///
    /// # Panics
    /// If there was none.
    pub fn put_pairs(&mut self, key: &str, pairs: Vec<f64>) {
        let middle = quartiles(pairs.clone()).map(round);
        self.put_figure(key, median(pairs));
        self.put(&format!("{key}_quartiles"), json!(middle));
    }

    /// Puts a figure.
    pub fn put_figure(&mut self, key: &str, figure: f64) {
        self.put(key, json!(round(figure)));
    }

    /// Puts anything else.
    pub fn put(&mut self, key: &str, value: Value) {
        self.figures.insert(key.to_owned(), value);
    }

    /// A figure that was put before.
    #[must_use]
    pub fn figure(&self, key: &str) -> Option<f64> {
        self.figures.get(key).and_then(Value::as_f64)
    }

    /// Puts whether others were on the cores, or floors moved by themselves, and what the machine is; then prints it all beside what it
    /// should be.
    pub fn close(&mut self, busy_by_others: f64, targets: &[(&str, &str)]) {
        let spread = self.spreads.iter().fold(0.0_f64, |max, spread| max.max(*spread));
        let is_noisy = busy_by_others > 0.05 || spread > 0.25;
        self.put("noisy", json!(is_noisy));
        self.put_figure("busy_by_others", busy_by_others);
        self.put_figure("floor_spread", spread);
        self.put("machine", json!(loadtest::machine::describe()));
        self.put("version", json!(env!("CARGO_PKG_VERSION")));
        println!("{:<32} {:>16}  target", "figure", "measured");
        for (key, figure) in &self.figures {
            let target = targets.iter().find(|(name, _)| name == key).map_or("", |(_, target)| target);
            println!("{key:<32} {:>16}  {target}", figure.to_string());
        }
        if is_noisy {
            let (busy, spread) = (busy_by_others * 100.0, spread * 100.0);
            println!("NOISY: others took {busy:.0} % of the cores, a floor moved by {spread:.0} %");
        }
    }

    /// All of it as one JSON object.
    #[must_use]
    pub fn into_json(self) -> Value {
        Value::Object(self.figures)
    }
}

/// Four significant digits and no more.
fn round(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return figure;
    }
    let scale = 10_f64.powi(3 - figure.abs().log10().floor() as i32);
    (figure * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_spread() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        let halves = [(vec![2.0], [2.0, 2.0]), (vec![5.0, 1.0, 4.0, 2.0, 3.0], [2.0, 4.0])];
        for (runs, expected) in halves {
            assert!(quartiles(runs).iter().zip(expected).all(|(at, expected)| (at - expected).abs() < 1e-9));
        }
        assert!((spread(&[1.0, 1.0, 1.0]) - 0.0).abs() < 1e-9);
        assert!((spread(&[100.0, 1.0, 2.0, 3.0, 0.0]) - 1.0).abs() < 1e-9);
    }
}
