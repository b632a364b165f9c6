//! The knee: the highest rate at which an engine still keeps its promise of latency.

use std::time::Duration;

use serde::Serialize;

use crate::report::Report;
use crate::run::{Clients, LoadError, Options, run};
use crate::schedule::{Pace, RATE_MAX, Rate};

/// An engine that falls behind still answers this share of the run's time after its end.
const BEHIND_MAX: f64 = 0.02;

/// What is looked for, and how.
#[derive(Clone, Debug)]
pub struct Search {
    /// The 99th percentile of the latency that must not be passed.
    pub p99_max: Duration,
    /// The first rate that is tried, in payments a second.
    pub from: f64,
    /// How near to the knee the search ends: the highest rate that held and the lowest that did not differ by at most
    /// this share.
    pub precision: f64,
}

/// One rate that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Payments a second that were offered.
    pub offered_per_s: f64,
    /// Payments a second that began.
    pub begun_per_s: f64,
    /// 99th percentile of the latency, in microseconds.
    pub p99_us: f64,
    /// True if the promise was kept.
    pub holds: bool,
    /// True if the machine was not quiet.
    pub noisy: bool,
}

/// What a search came to.
#[derive(Clone, Debug, Serialize)]
pub struct Knee {
    /// The highest rate that held, in payments a second; 0 if none did.
    pub knee_per_s: f64,
    /// The promise, in microseconds.
    pub p99_max_us: f64,
    /// True if a rate held, what was answered was answered soundly all the way, and nobody ended the search.
    pub ok: bool,
    /// True if somebody ended the search before it had found the knee.
    pub stopped_early: bool,
    /// Every rate that was tried, in order; the one that was cut short is left out.
    pub steps: Vec<Step>,
}

/// Doubles the rate until the promise is broken, then halves the distance. Each rate is tried for the options' duration,
/// with arrivals at random; the options' own pace counts for nothing.
///
/// # Errors
/// [`LoadError`]; a rate that does not hold is part of the result.
pub async fn find_knee(
    clients: &Clients,
    options: &Options,
    search: &Search,
    mut tell: impl FnMut(&Step),
) -> Result<Knee, LoadError> {
    let p99_max_us = search.p99_max.as_secs_f64() * 1e6;
    let mut knee = Knee { knee_per_s: 0.0, p99_max_us, ok: true, stopped_early: false, steps: Vec::new() };
    let mut broken: Option<f64> = None;
    let mut rate = search.from;
    loop {
        let pace = Pace::Poisson { rate: Rate::Steady(rate) };
        let report = run(clients, Options { pace, ..options.clone() }).await?;
        if report.stopped_early {
            (knee.stopped_early, knee.ok) = (true, false);
            return Ok(knee);
        }
        let step = judge(&report, rate, search.p99_max, options.duration);
        tell(&step);
        knee.ok &= report.unknown == 0 && report.contradictions == 0;
        if step.holds {
            knee.knee_per_s = rate;
        } else {
            broken = Some(rate);
        }
        knee.steps.push(step);
        match next_rate(knee.knee_per_s, broken, search) {
            Some(next) => rate = next,
            None => {
                knee.ok &= knee.knee_per_s > 0.0;
                return Ok(knee);
            }
        }
    }
}

fn judge(report: &Report, rate: f64, p99_max: Duration, duration: Duration) -> Step {
    #[allow(clippy::cast_precision_loss)] // counts of requests stay far below 2^53
    let begun_per_s = report.payments as f64 / duration.as_secs_f64();
    let p99_max_us = p99_max.as_secs_f64() * 1e6;
    // What is under way at the end may take as long as any other.
    let grace_s = duration.as_secs_f64() * BEHIND_MAX + report.max_us.max(p99_max_us) / 1e6;
    let keeps_up = report.seconds <= duration.as_secs_f64() + grace_s;
    let is_whole =
        report.replied > 0 && report.dropped == 0 && report.unsent == 0 && report.refused.is_empty();
    Step {
        offered_per_s: rate,
        begun_per_s,
        p99_us: report.p99_us,
        holds: is_whole && keeps_up && report.p99_us <= p99_max_us,
        noisy: report.noisy,
    }
}

/// The rate to try next, between what held (0: nothing yet) and what did not; none when they are near enough.
fn next_rate(held: f64, broken: Option<f64>, search: &Search) -> Option<f64> {
    match broken {
        None => Some(held * 2.0).filter(|rate| *rate <= RATE_MAX),
        // Not even the first rate holds: halve, but not for ever.
        Some(broken) if held <= 0.0 => {
            Some(broken / 2.0).filter(|rate| *rate >= (search.from / 1024.0).max(1.0))
        }
        Some(broken) if broken - held <= held * search.precision => None,
        Some(broken) => Some(f64::midpoint(held, broken)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The knee that a search ends with on an engine that holds up to a rate, and how many rates it tried.
    fn found(limit: f64, from: f64) -> (f64, usize) {
        let search = Search { p99_max: Duration::from_millis(1), from, precision: 0.05 };
        let (mut held, mut broken, mut rate, mut tried) = (0.0, None, from, 0);
        loop {
            tried += 1;
            if rate <= limit {
                held = rate
            } else {
                broken = Some(rate)
            }
            match next_rate(held, broken, &search) {
                Some(next) => rate = next,
                None => return (held, tried),
            }
        }
    }

    #[test]
    fn a_search_ends_just_below_the_limit() {
        for (limit, from) in [(100_000.0, 1000.0), (1000.0, 1000.0), (123_456.0, 500_000.0), (7.0, 5000.0)] {
            let (knee, tried) = found(limit, from);
            assert!(knee <= limit && knee >= limit / 1.06, "{limit}: {knee}");
            assert!(tried < 25, "{tried}");
        }
        let (knee, tried) = found(0.0, 1000.0);
        assert!(knee <= 0.0 && tried < 15, "nothing holds: {knee} after {tried}");
    }

    #[test]
    fn a_rate_holds_only_if_everything_was_begun_and_answered_in_time() {
        let good = Report {
            payments: 1000,
            replied: 1000,
            seconds: 1.0,
            p99_us: 900.0,
            max_us: 1500.0,
            ..Report::default()
        };
        let span = Duration::from_secs(1);
        let holds = |report: &Report| judge(report, 1000.0, Duration::from_millis(1), span).holds;
        assert!(holds(&good));
        assert!(holds(&Report { payments: 950, ..good.clone() }), "arrivals at random are not exact");
        assert!(!holds(&Report { p99_us: 1100.0, ..good.clone() }));
        assert!(!holds(&Report { seconds: 1.2, ..good.clone() }), "fell behind");
        assert!(!holds(&Report { dropped: 1, ..good.clone() }));
        assert!(!holds(&Report { refused: [("OVERLOADED".to_owned(), 1)].into(), ..good.clone() }));
        assert!(!holds(&Report { replied: 0, ..good }));
    }
}
