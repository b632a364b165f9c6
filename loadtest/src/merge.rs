//! Several runs made together, by processes of one machine or by several machines, as one: counts are added, and percentiles
//! are those of all values, not means of percentiles.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::distribution::{Distribution, DistributionError};
use crate::inject::Injected;
use crate::interval::Interval;
use crate::money::MoneyCheck;
use crate::progress::Progress;
use crate::report::{Measured, Report, histogram};

/// Why runs cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There is none.
    #[error("no run to merge")]
    Empty,
    /// They did not do the same.
    #[error("run {run} has {what} {found}, run 1 has {expected}: only runs of the same can be merged")]
    Differs {
        /// Which, from 1.
        run: usize,
        /// In what.
        what: &'static str,
        /// What it has.
        found: String,
        /// What the first has.
        expected: String,
    },
    /// They are one and the same.
    #[error("run {run} is the same as run {other}: a run counts once")]
    Same {
        /// Which, from 1.
        run: usize,
        /// As which.
        other: usize,
    },
    /// They were not made together.
    #[error("run {run} was made at another time than run {other}: their rates do not add up")]
    Apart {
        /// Which, from 1.
        run: usize,
        /// Than which.
        other: usize,
    },
    /// A run does not hold all its values, as those of older versions do not.
    #[error("run {run} has answers but no histogram of them: it was made by an older version, or edited")]
    NoHistogram {
        /// Which, from 1.
        run: usize,
    },
    /// What it holds is no histogram.
    #[error("run {run}: {error}")]
    Damaged {
        /// Which, from 1.
        run: usize,
        /// What is wrong.
        error: DistributionError,
    },
}

/// Makes one run of several that were made together. Seconds count from each one's own start.
///
/// # Errors
/// If they did not do the same, or their values are not there.
pub fn merge(runs: &[Report]) -> Result<Report, MergeError> {
    let first = runs.first().ok_or(MergeError::Empty)?;
    let mut whole = Report {
        scenario: first.scenario.clone(),
        transport: first.transport.clone(),
        pace: first.pace.clone(),
        durability: first.durability.clone(),
        started_ms: first.started_ms,
        ..Report::default()
    };
    let mut measured = Measured::new();
    let mut seconds: BTreeMap<u64, Vec<(usize, &Interval)>> = BTreeMap::new();
    for (run, report) in (1..).zip(runs) {
        is_same(first, report, run)?;
        if report.replied > 0 && report.latency.is_empty() {
            return Err(MergeError::NoHistogram { run });
        }
        whole.add(report);
        for (values, sum) in [
            (&report.latency, &mut measured.latency),
            (&report.service, &mut measured.service),
            (&report.late, &mut measured.late),
        ] {
            values.add_to(sum).map_err(|error| MergeError::Damaged { run, error })?;
        }
        for interval in &report.intervals {
            seconds.entry(second_of(interval)).or_default().push((run, interval));
        }
    }
    for parts in seconds.into_values() {
        whole.intervals.push(merge_second(&parts)?.0);
    }
    let is_ok = runs.iter().all(|report| report.ok);
    whole.money_check = merge_checks(runs);
    whole.sum_up(&measured, runs.iter().map(|report| report.seconds).fold(0.0, f64::max));
    whole.keep(&measured);
    whole.ok &= is_ok;
    whole.noisy = runs.iter().any(|report| report.noisy);
    Ok(whole)
}

/// Whether these are runs that were made beside each other, and not one of them twice. When runs of older versions were made is
/// not known.
///
/// # Errors
/// The first two that are the same, or whose times do not overlap.
pub fn were_made_together(runs: &[Report]) -> Result<(), MergeError> {
    for (run, report) in (1..).zip(runs) {
        for (other, before) in (1..run).zip(runs) {
            if before == report {
                return Err(MergeError::Same { run, other });
            }
            let is_known = before.started_ms > 0 && report.started_ms > 0;
            if is_known && (report.started_ms > ended_ms(before) || before.started_ms > ended_ms(report)) {
                return Err(MergeError::Apart { run, other });
            }
        }
    }
    Ok(())
}

fn ended_ms(report: &Report) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    let took_ms = (report.seconds * 1000.0).ceil() as u64;
    report.started_ms.saturating_add(took_ms)
}

fn is_same(first: &Report, report: &Report, run: usize) -> Result<(), MergeError> {
    for (what, expected, found) in [
        ("scenario", &first.scenario, &report.scenario),
        ("transport", &first.transport, &report.transport),
        ("pace", &first.pace, &report.pace),
        ("durability", &first.durability, &report.durability),
    ] {
        if expected != found {
            let (found, expected) = (found.clone(), expected.clone());
            return Err(MergeError::Differs { run, what, found, expected });
        }
    }
    Ok(())
}

/// The number of the second that an interval is.
fn second_of(interval: &Interval) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    let second = interval.at_s.round() as u64;
    second
}

fn merge_second(parts: &[(usize, &Interval)]) -> Result<(Interval, Histogram<u64>), MergeError> {
    let mut latency = histogram();
    let mut whole = Interval { at_s: f64::INFINITY, ..Interval::default() };
    for (run, part) in parts {
        whole.at_s = whole.at_s.min(part.at_s);
        whole.seconds = whole.seconds.max(part.seconds);
        whole.offered += part.offered;
        whole.dropped += part.dropped;
        whole.replied += part.replied;
        add_counts(&mut whole.declined, &part.declined);
        if part.replied > 0 && part.latency.is_empty() {
            return Err(MergeError::NoHistogram { run: *run });
        }
        part.latency.add_to(&mut latency).map_err(|error| MergeError::Damaged { run: *run, error })?;
    }
    whole.measure(&latency);
    Ok((whole, latency))
}

fn add_counts(sum: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (code, count) in more {
        *sum.entry(code.clone()).or_default() += count;
    }
}

fn merge_checks(runs: &[Report]) -> Option<MoneyCheck> {
    let checks: Vec<&MoneyCheck> = runs.iter().filter_map(|report| report.money_check.as_ref()).collect();
    if checks.len() < runs.len() {
        return None;
    }
    let say = |party: fn(&MoneyCheck) -> &String| {
        let bad: Vec<String> = (1..)
            .zip(&checks)
            .filter(|(_, check)| party(check) != "ok")
            .map(|(run, check)| format!("generator {run}: {}", party(check)))
            .collect();
        if bad.is_empty() { "ok".to_owned() } else { bad.join("; ") }
    };
    Some(MoneyCheck {
        replies: say(|check| &check.replies),
        lookups: say(|check| &check.lookups),
        log: say(|check| &check.log),
        looked_up: checks.iter().map(|check| check.looked_up).sum(),
        left_out: checks.iter().map(|check| check.left_out).sum(),
        recorded: checks.iter().map(|check| check.recorded).sum(),
    })
}

impl Report {
    /// Adds everything that adds up.
    fn add(&mut self, other: &Self) {
        self.payments += other.payments;
        self.replied += other.replied;
        self.approved += other.approved;
        add_counts(&mut self.declined, &other.declined);
        add_counts(&mut self.refused, &other.refused);
        self.unsent += other.unsent;
        self.unsent_why = self.unsent_why.take().or_else(|| other.unsent_why.clone());
        self.resolved += other.resolved;
        self.unknown += other.unknown;
        self.dropped += other.dropped;
        self.contradictions += other.contradictions;
        self.troubles.extend(other.troubles.iter().cloned());
        self.stopped_early |= other.stopped_early;
        self.processes += other.processes.max(1);
        self.offered_per_s += other.offered_per_s;
        if let Some(more) = other.injected {
            let sum = self.injected.get_or_insert_default();
            *sum = Injected {
                dropped: sum.dropped + more.dropped,
                doubled: sum.doubled + more.doubled,
                delayed: sum.delayed + more.delayed,
                killed: sum.killed + more.killed,
            };
        }
        self.generator_cpu_s = match (self.generator_cpu_s, other.generator_cpu_s) {
            (Some(one), Some(more)) => Some(one + more),
            (one, more) => one.or(more),
        };
        // One engine, whoever has watched it.
        self.engine_cpu_s = match (self.engine_cpu_s, other.engine_cpu_s) {
            (Some(one), Some(more)) => Some(one.max(more)),
            (one, more) => one.or(more),
        };
        self.busy_by_others = self.busy_by_others.max(other.busy_by_others);
        self.jitter_p99_us = self.jitter_p99_us.max(other.jitter_p99_us);
        if self.machine.is_empty() {
            self.machine.clone_from(&other.machine);
        } else if !self.machine.split("; ").any(|known| known == other.machine) {
            self.machine = format!("{}; {}", self.machine, other.machine);
        }
    }
}

/// The seconds of several generators while they run, put together as soon as all have told of them.
#[derive(Debug)]
pub struct Merging {
    /// What each has told of the run so far; none of one that is gone.
    latest: Vec<Option<Report>>,
    waiting: BTreeMap<u64, Vec<(usize, Interval)>>,
    latency: Histogram<u64>,
}

impl Merging {
    /// For so many generators.
    #[must_use]
    pub fn new(generators: usize) -> Self {
        Self {
            latest: vec![Some(Report::default()); generators],
            waiting: BTreeMap::new(),
            latency: histogram(),
        }
    }

    /// Takes a generator's second, counted from 0. The second of all, if this one was the last that was missing. What cannot be read is
    /// left out: the run itself is judged by the reports.
    pub fn add(&mut self, generator: usize, progress: Progress) -> Option<Progress> {
        *self.latest.get_mut(generator)? = Some(progress.so_far);
        let second = second_of(&progress.second);
        self.waiting.entry(second).or_default().push((generator, progress.second));
        self.whole(second)
    }

    /// No more is waited for from a generator that has died.
    pub fn lose(&mut self, generator: usize) {
        if let Some(latest) = self.latest.get_mut(generator) {
            *latest = None;
        }
    }

    fn whole(&mut self, second: u64) -> Option<Progress> {
        let living = self.latest.iter().flatten().count();
        if self.waiting.get(&second)?.len() < living {
            return None;
        }
        let parts = self.waiting.remove(&second)?;
        // What is older was waited for in vain.
        self.waiting.retain(|other, _| *other > second);
        let parts: Vec<(usize, &Interval)> = parts.iter().map(|(run, part)| (*run, part)).collect();
        let (second, latency) = merge_second(&parts).ok()?;
        let _ = self.latency.add(&latency);
        let mut so_far = Report::default();
        self.latest.iter().flatten().for_each(|report| so_far.add(report));
        let seconds = second.at_s + second.seconds;
        so_far.sum_up(&Measured { latency: self.latency.clone(), ..Measured::new() }, seconds);
        so_far.late_p99_us =
            self.latest.iter().flatten().map(|report| report.late_p99_us).fold(0.0, f64::max);
        so_far.latency = Distribution::default();
        Some(Progress { second, so_far })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(latencies_us: std::ops::Range<u64>, at_s: f64) -> Report {
        let mut measured = Measured::new();
        latencies_us.clone().for_each(|us| measured.latency.record(us * 1000).unwrap());
        let count = latencies_us.count() as u64;
        let mut second =
            Interval { at_s, seconds: 1.0, offered: count, replied: count, ..Interval::default() };
        second.measure(&measured.latency);
        let mut report = Report {
            scenario: "tap".into(),
            payments: count,
            replied: count,
            approved: count - 1,
            declined: [("INSUFFICIENT".to_owned(), 1)].into(),
            offered_per_s: 10.0,
            generator_cpu_s: Some(0.5),
            processes: 1,
            machine: "one".into(),
            intervals: vec![second],
            ..Report::default()
        };
        report.sum_up(&measured, 2.0);
        report.keep(&measured);
        report
    }

    #[test]
    fn percentiles_are_those_of_all_values() {
        let (low, high) = (run(1..1001, 0.0), run(1001..2001, 0.004));
        let whole = merge(&[low.clone(), high.clone()]).unwrap();
        let expected = run(1..2001, 0.0);
        assert!(whole.ok && whole.p50_us > 990.0 && whole.p50_us < 1010.0, "{whole:?}");
        assert_eq!(
            (whole.p50_us, whole.p99_us, whole.max_us),
            (expected.p50_us, expected.p99_us, expected.max_us)
        );
        assert_eq!(whole.histogram, expected.histogram);
        assert_eq!((whole.replied, whole.sent, whole.rate_per_s), (2000, 2000, 1000.0));
        assert_eq!((whole.declined["INSUFFICIENT"], whole.offered_per_s), (2, 20.0));
        assert_eq!((whole.generator_cpu_s, whole.processes, whole.machine.as_str()), (Some(1.0), 2, "one"));
        let [second] = &whole.intervals[..] else { panic!("{:?}", whole.intervals) };
        assert_eq!((second.offered, second.p50_us), (2000, expected.intervals[0].p50_us));
        let elsewhere = Report { machine: "two".into(), ..run(1..11, 1.0) };
        let whole = merge(&[whole, elsewhere]).unwrap();
        assert_eq!((whole.machine.as_str(), whole.intervals.len(), whole.replied), ("one; two", 2, 2010));
    }

    #[test]
    fn one_bad_run_spoils_the_whole() {
        let check = |spoil: fn(&mut Report)| {
            let mut bad = run(1..11, 0.0);
            spoil(&mut bad);
            assert!(!merge(&[run(1..11, 0.0), bad]).unwrap().ok);
        };
        check(|bad| bad.ok = false);
        check(|bad| bad.unknown = 1);
        check(|bad| bad.troubles.push("died".into()));
        let checked = |log: &str| Report {
            money_check: Some(MoneyCheck {
                replies: "ok".into(),
                lookups: "ok".into(),
                log: log.into(),
                looked_up: 3,
                ..MoneyCheck::default()
            }),
            ..run(1..11, 0.0)
        };
        let whole = merge(&[checked("ok"), checked("1 missing")]).unwrap();
        let found = whole.money_check.unwrap();
        assert_eq!((whole.ok, found.log.as_str(), found.looked_up), (false, "generator 2: 1 missing", 6));
        assert!(merge(&[checked("ok"), checked("ok")]).unwrap().ok);
        assert_eq!(merge(&[checked("ok"), run(1..11, 0.0)]).unwrap().money_check, None);
    }

    #[test]
    fn what_is_no_part_of_the_same_is_named() {
        let check = |second: Report, expect: &str| {
            let message = merge(&[run(1..11, 0.0), second]).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        };
        check(Report { scenario: "tip".into(), ..run(1..11, 0.0) }, "run 2 has scenario tip, run 1 has tap");
        check(Report { pace: "max".into(), ..run(1..11, 0.0) }, "pace max");
        check(Report { durability: "os".into(), ..run(1..11, 0.0) }, "durability os");
        check(Report { latency: Distribution::default(), ..run(1..11, 0.0) }, "older version");
        let damaged = serde_json::from_str("\"AAAA\"").unwrap();
        check(Report { latency: damaged, ..run(1..11, 0.0) }, "run 2: not a histogram");
        assert_eq!(merge(&[]).unwrap_err(), MergeError::Empty);
    }

    #[test]
    fn a_run_counts_once_and_beside_others_of_its_time() {
        let at = |started_ms, seconds| Report { started_ms, seconds, ..run(1..11, 0.0) };
        let check = |runs: &[Report], expect: Result<(), MergeError>| {
            assert_eq!(were_made_together(runs), expect);
        };
        check(&[at(5000, 2.0), at(6999, 2.0), at(5500, 3.0)], Ok(()));
        check(&[at(5000, 2.0), at(6000, 2.0), at(5000, 2.0)], Err(MergeError::Same { run: 3, other: 1 }));
        check(&[at(5000, 2.0), at(7001, 2.0)], Err(MergeError::Apart { run: 2, other: 1 }));
        check(&[at(7001, 2.0), at(5000, 2.0)], Err(MergeError::Apart { run: 2, other: 1 }));
        check(&[at(0, 2.0), at(7001, 2.0)], Ok(()));
    }

    #[test]
    fn seconds_are_whole_once_all_living_generators_have_told_of_them() {
        let mut merging = Merging::new(3);
        let tell = |merging: &mut Merging, generator, at_s| {
            let so_far = run(1..11, at_s);
            let second = so_far.intervals[0].clone();
            merging.add(generator, Progress { second, so_far })
        };
        assert_eq!(tell(&mut merging, 0, 0.0), None);
        assert_eq!(tell(&mut merging, 1, 0.01), None);
        let whole = tell(&mut merging, 2, 0.0).unwrap();
        assert_eq!((whole.second.replied, whole.so_far.replied), (30, 30));
        assert_eq!(tell(&mut merging, 0, 1.0), None);
        merging.lose(2);
        let whole = tell(&mut merging, 1, 1.0).unwrap();
        assert_eq!((whole.second.replied, whole.so_far.replied), (20, 20));
        assert!(whole.so_far.p50_us > 0.0);
        assert_eq!(tell(&mut merging, 7, 1.0), None);
    }
}
