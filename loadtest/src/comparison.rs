//! Two runs side by side: is the second worse?

use serde::Serialize;

use crate::report::Report;

/// One figure of two runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name in a report.
    pub figure: &'static str,
    /// In the first run.
    pub a: f64,
    /// In the second.
    pub b: f64,
    /// How much greater the second is, as a share of the first; none if the first is 0.
    pub change: Option<f64>,
    /// True if that is for the worse, by more than was allowed.
    pub is_worse: bool,
}

/// Two runs.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// True if no figure is worse and both runs were sound.
    pub ok: bool,
    /// What makes the two hard to compare: another scenario, another pace, a machine that was not quiet.
    pub doubts: Vec<String>,
    /// The figures.
    pub rows: Vec<Row>,
}

/// Compares two runs; figures may be worse by a share of `tolerance`.
#[must_use]
pub fn compare(a: &Report, b: &Report, tolerance: f64) -> Comparison {
    let rows: Vec<Row> = [
        ("rate_per_s", a.rate_per_s, b.rate_per_s, Better::Higher),
        ("p50_us", a.p50_us, b.p50_us, Better::Lower),
        ("p90_us", a.p90_us, b.p90_us, Better::Lower),
        ("p99_us", a.p99_us, b.p99_us, Better::Lower),
        ("p999_us", a.p999_us, b.p999_us, Better::Lower),
        ("dropped_share", dropped(a), dropped(b), Better::Lower),
        ("declined_share", declined(a), declined(b), Better::Lower),
    ]
    .map(|(figure, a, b, better)| row(figure, a, b, better, tolerance))
    .into();
    let is_sound = [a, b].iter().all(|report| report.ok);
    Comparison { ok: is_sound && rows.iter().all(|row| !row.is_worse), doubts: doubts(a, b), rows }
}

#[derive(Clone, Copy)]
enum Better {
    Higher,
    Lower,
}

fn row(figure: &'static str, a: f64, b: f64, better: Better, tolerance: f64) -> Row {
    let is_worse = match better {
        Better::Higher => b < a * (1.0 - tolerance),
        Better::Lower => b > a * (1.0 + tolerance),
    };
    Row { figure, a, b, change: (a > 0.0).then(|| b / a - 1.0), is_worse }
}

#[allow(clippy::cast_precision_loss)] // counts of requests stay far below 2^53
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

fn dropped(report: &Report) -> f64 {
    share(report.dropped, report.payments + report.dropped)
}

fn declined(report: &Report) -> f64 {
    share(report.declined.values().chain(report.refused.values()).sum(), report.sent)
}

fn doubts(a: &Report, b: &Report) -> Vec<String> {
    let mut doubts = Vec::new();
    for (what, a, b) in [
        ("scenario", &a.scenario, &b.scenario),
        ("transport", &a.transport, &b.transport),
        ("pace", &a.pace, &b.pace),
        ("durability", &a.durability, &b.durability),
        ("machine", &a.machine, &b.machine),
    ] {
        if a != b {
            doubts.push(format!("another {what}: {a} and {b}"));
        }
    }
    if (a.offered_per_s - b.offered_per_s).abs() > f64::EPSILON {
        doubts.push(format!("another rate: {} and {}", a.offered_per_s, b.offered_per_s));
    }
    for (which, report) in [("first", a), ("second", b)] {
        if report.noisy {
            doubts.push(format!("the machine was not quiet in the {which} run"));
        }
        if report.stopped_early {
            doubts.push(format!("the {which} run was ended before its time"));
        }
        if !report.ok {
            doubts.push(format!("the {which} run was not sound"));
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            ok: true,
            sent: 100,
            payments: 50,
            rate_per_s: 1000.0,
            p50_us: 100.0,
            p90_us: 150.0,
            p99_us: 200.0,
            p999_us: 300.0,
            ..Report::default()
        }
    }

    #[test]
    fn what_is_worse_is_found_and_what_is_better_is_not() {
        let a = report();
        let worse = |b: &Report| {
            let comparison = compare(&a, b, 0.1);
            assert_eq!(comparison.ok, b.ok && comparison.rows.iter().all(|row| !row.is_worse));
            comparison.rows.iter().filter(|row| row.is_worse).map(|row| row.figure).collect::<Vec<_>>()
        };
        assert_eq!(worse(&a), [""; 0]);
        assert_eq!(worse(&Report { rate_per_s: 905.0, p99_us: 219.0, ..report() }), [""; 0]);
        assert_eq!(worse(&Report { rate_per_s: 5000.0, p50_us: 1.0, ..report() }), [""; 0]);
        assert_eq!(worse(&Report { rate_per_s: 890.0, ..report() }), ["rate_per_s"]);
        assert_eq!(worse(&Report { p99_us: 221.0, p999_us: 400.0, ..report() }), ["p99_us", "p999_us"]);
        assert_eq!(worse(&Report { dropped: 1, ..report() }), ["dropped_share"]);
        assert_eq!(
            worse(&Report { refused: [("QUOTA".to_owned(), 1)].into(), ..report() }),
            ["declined_share"]
        );
        assert!(!compare(&a, &Report { ok: false, ..report() }, 0.1).ok);
    }

    #[test]
    fn doubts_are_told() {
        let b = Report { scenario: "tap".into(), offered_per_s: 5.0, noisy: true, ..report() };
        let doubts = compare(&report(), &b, 0.1).doubts;
        assert_eq!(doubts.len(), 3, "{doubts:?}");
        assert!(compare(&report(), &report(), 0.1).doubts.is_empty());
    }
}
