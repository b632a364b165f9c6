//! Counts what happens, on a thread of its own: payments only append to a list.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use surety_protocol::{Code, Reply};

use crate::acks::{AckWriter, AcksError};
use crate::report::{Report, count, histogram, quantile_us};

/// How often the list is taken.
const TURN: Duration = Duration::from_millis(10);

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sample {
    /// A payment began, so late after its intended start.
    Begun { late: Duration },
    /// A payment could not be begun.
    Dropped,
    /// A recorded answer.
    Answered { reply: Reply, latency: Duration, service: Duration, is_sound: bool },
    /// An admission code.
    Refused(Code),
    /// A request never left.
    Unsent,
    /// A look-up made a lost outcome definite.
    Resolved(Reply),
    /// An outcome is lost.
    Unknown,
}

/// Where payments report to.
#[derive(Clone)]
pub(crate) struct Recorder {
    samples: Arc<Mutex<Vec<Sample>>>,
    has_failed: Arc<AtomicBool>,
}

/// The thread behind a recorder.
pub(crate) struct Recording {
    recorder: Recorder,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally, AcksError>>,
}

/// Everything counted so far.
struct Tally {
    report: Report,
    latency: Histogram<u64>,
    service: Histogram<u64>,
    late: Histogram<u64>,
    /// Latencies since the last line of progress.
    recent: Histogram<u64>,
}

impl Recorder {
    pub(crate) fn push(&self, sample: Sample) {
        self.samples.lock().push(sample);
    }

    /// True once replies can no longer be written: the run has to end.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

impl Recording {
    /// Starts counting; appends replies to a file before they are counted, and prints a line a second to standard error.
    pub(crate) fn start(acks: Option<&Path>, shows_progress: bool) -> Result<Self, AcksError> {
        let writer = acks.map(AckWriter::open).transpose()?;
        let recorder = Recorder { samples: Arc::default(), has_failed: Arc::default() };
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (recorder, is_over) = (recorder.clone(), is_over.clone());
            std::thread::spawn(move || {
                let result = keep_counting(&recorder, writer, &is_over, shows_progress);
                recorder.has_failed.store(result.is_err(), Ordering::Relaxed);
                result
            })
        };
        Ok(Self { recorder, is_over, thread })
    }

    pub(crate) fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Counts what is left, and sums up.
    pub(crate) fn finish(self, seconds: f64) -> Result<Report, AcksError> {
        self.is_over.store(true, Ordering::Release);
        self.thread.thread().unpark();
        match self.thread.join() {
            Ok(tally) => Ok(tally?.sum_up(seconds)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn keep_counting(
    recorder: &Recorder,
    mut writer: Option<AckWriter>,
    is_over: &AtomicBool,
    shows_progress: bool,
) -> Result<Tally, AcksError> {
    let mut tally = Tally::new();
    let mut samples = Vec::new();
    let started = Instant::now();
    let mut lines = 0;
    loop {
        let is_last = is_over.load(Ordering::Acquire);
        std::mem::swap(&mut samples, &mut *recorder.samples.lock());
        if let Some(writer) = &mut writer {
            writer.append(samples.iter().filter_map(Sample::reply))?;
        }
        samples.drain(..).for_each(|sample| tally.add(&sample));
        let seconds = started.elapsed().as_secs();
        if shows_progress && seconds > lines {
            lines = seconds;
            tally.print_progress(seconds);
        }
        if is_last {
            return Ok(tally);
        }
        std::thread::park_timeout(TURN);
    }
}

impl Sample {
    /// The reply that belongs into the file.
    fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Answered { reply, .. } | Self::Resolved(reply) => Some(reply),
            _ => None,
        }
    }
}

impl Tally {
    fn new() -> Self {
        Self {
            report: Report::default(),
            latency: histogram(),
            service: histogram(),
            late: histogram(),
            recent: histogram(),
        }
    }

    fn add(&mut self, sample: &Sample) {
        let report = &mut self.report;
        match sample {
            Sample::Begun { late } => {
                report.payments += 1;
                self.late.saturating_record(nanos(*late));
            }
            Sample::Dropped => report.dropped += 1,
            Sample::Answered { reply, latency, service, is_sound } => {
                report.replied += 1;
                report.contradictions += u64::from(!is_sound);
                match reply.code() {
                    code if code.is_success() => report.approved += 1,
                    code => count(&mut report.declined, code),
                }
                self.latency.saturating_record(nanos(*latency));
                self.recent.saturating_record(nanos(*latency));
                self.service.saturating_record(nanos(*service));
            }
            Sample::Refused(code) => count(&mut report.refused, *code),
            Sample::Unsent => report.unsent += 1,
            Sample::Resolved(_) => report.resolved += 1,
            Sample::Unknown => report.unknown += 1,
        }
    }

    fn print_progress(&mut self, seconds: u64) {
        let Report { declined, refused, unknown, dropped, .. } = &self.report;
        eprintln!(
            "{seconds:>5} s {:>9} replies/s  p50 {:>9.1} us  p99 {:>9.1} us  declined {} refused {} unknown {unknown} dropped {dropped}",
            self.recent.len(),
            quantile_us(&self.recent, 0.5),
            quantile_us(&self.recent, 0.99),
            declined.values().sum::<u64>(),
            refused.values().sum::<u64>(),
        );
        self.recent.reset();
    }

    #[allow(clippy::cast_precision_loss)] // counts of requests stay far below 2^53
    fn sum_up(self, seconds: f64) -> Report {
        let Self { mut report, latency, service, late, .. } = self;
        report.sent =
            report.replied + report.refused.values().sum::<u64>() + report.resolved + report.unknown;
        report.ok = report.replied > 0 && report.unknown == 0 && report.contradictions == 0;
        report.seconds = seconds;
        report.rate_per_s = if seconds > 0.0 { report.replied as f64 / seconds } else { 0.0 };
        report.p50_us = quantile_us(&latency, 0.5);
        report.p90_us = quantile_us(&latency, 0.9);
        report.p99_us = quantile_us(&latency, 0.99);
        report.p999_us = quantile_us(&latency, 0.999);
        report.max_us = quantile_us(&latency, 1.0);
        report.service_p50_us = quantile_us(&service, 0.5);
        report.service_p90_us = quantile_us(&service, 0.9);
        report.service_p99_us = quantile_us(&service, 0.99);
        report.service_p999_us = quantile_us(&service, 0.999);
        report.service_max_us = quantile_us(&service, 1.0);
        report.late_p99_us = quantile_us(&late, 0.99);
        report
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::Id;

    fn answered(id: u128, code: Code, micros: u64, is_sound: bool) -> Sample {
        let reply = Reply { id: Id(id), code: code as u8, ..Reply::default() };
        let latency = Duration::from_micros(micros);
        Sample::Answered { reply, latency, service: latency / 2, is_sound }
    }

    #[test]
    fn samples_are_written_then_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acks");
        let recording = Recording::start(Some(&path), false).unwrap();
        let recorder = recording.recorder();
        recorder.push(Sample::Begun { late: Duration::from_micros(7) });
        for id in 0..99 {
            recorder.push(answered(id, Code::Approved, 100, true));
        }
        recorder.push(answered(99, Code::Insufficient, 4000, true));
        recorder.push(Sample::Refused(Code::Overloaded));
        recorder.push(Sample::Refused(Code::Overloaded));
        recorder.push(Sample::Resolved(Reply { id: Id(100), code: 64, ..Reply::default() }));
        recorder.push(Sample::Dropped);
        recorder.push(Sample::Unsent);
        let report = recording.finish(2.0).unwrap();
        assert!(report.ok);
        assert_eq!((report.payments, report.sent, report.replied, report.approved), (1, 103, 100, 99));
        assert_eq!(report.declined["INSUFFICIENT"], 1);
        assert_eq!(report.refused["OVERLOADED"], 2);
        assert_eq!((report.resolved, report.unknown, report.dropped, report.unsent), (1, 0, 1, 1));
        assert!((99.9..100.2).contains(&report.p50_us), "{}", report.p50_us);
        assert!((3990.0..4010.0).contains(&report.max_us));
        assert!((49.9..50.1).contains(&report.service_p50_us));
        assert!((49.9..50.1).contains(&report.rate_per_s));
        assert_eq!(crate::read_acks(&path).unwrap().len(), 101);
    }

    #[test]
    fn a_run_is_not_ok_with_a_lost_outcome_a_contradiction_or_no_answer() {
        let check = |samples: &[Sample], expect| {
            let mut tally = Tally::new();
            samples.iter().for_each(|sample| tally.add(sample));
            assert_eq!(tally.sum_up(1.0).ok, expect, "{samples:?}");
        };
        let good = answered(1, Code::Approved, 1, true);
        check(&[good], true);
        check(&[], false);
        check(&[good, Sample::Unknown], false);
        check(&[good, answered(2, Code::Approved, 1, false)], false);
    }
}
