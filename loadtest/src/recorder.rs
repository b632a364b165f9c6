//! Counts what happens, on a thread of its own: payments only append to a list.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder};
use parking_lot::Mutex;
use surety_protocol::{Code, Reply};

use crate::acks::{AckWriter, AcksError};
use crate::interval::Current;
use crate::money::{Seen, Sightings};
use crate::report::{Report, count, histogram, quantile_us};

/// How often the list is taken.
const TURN: Duration = Duration::from_millis(10);
/// A line of progress, and an interval of the report.
const INTERVAL: Duration = Duration::from_secs(1);
/// Quantiles that the report keeps in each half of the distance to its end.
const TICKS_PER_HALF: u32 = 5;
/// The interval log's maxima are in milliseconds; its histograms in nanoseconds, as they are recorded.
const HLOG_DIVISOR: f64 = 1e6;

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
    /// A repeat was answered otherwise than the first time.
    Contradicted,
    /// The last reply about a lock that nothing unknown has happened to.
    Seen(Seen),
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
    thread: JoinHandle<Result<Tally, RecordError>>,
}

/// What a run leaves beside its report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// Replies are appended to it.
    pub(crate) acks: Option<PathBuf>,
    /// Latencies of each second, in the interval log format of `HdrHistogram`.
    pub(crate) hlog: Option<PathBuf>,
}

/// Why what happened could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Replies could not be written.
    #[error(transparent)]
    Acks(#[from] AcksError),
    /// The interval log could not be written.
    #[error("{}: {error}", path.display())]
    IntervalLog {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

/// What a money check needs to know of a run.
pub(crate) struct Kept {
    pub(crate) replies: Vec<Reply>,
    pub(crate) sightings: Sightings,
}

/// Everything counted so far.
struct Tally {
    report: Report,
    /// If the money is checked after the run.
    kept: Option<Kept>,
    latency: Histogram<u64>,
    service: Histogram<u64>,
    late: Histogram<u64>,
    current: Current,
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
    ///
    /// With a seed it keeps what a money check needs: every reply, and a choice of the locks.
    pub(crate) fn start(
        files: &Files,
        shows_progress: bool,
        keeps: Option<u64>,
    ) -> Result<Self, RecordError> {
        let acks = files.acks.as_deref().map(AckWriter::open).transpose()?;
        let hlog = files.hlog.as_deref().map(create_hlog).transpose()?;
        let recorder = Recorder { samples: Arc::default(), has_failed: Arc::default() };
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (recorder, is_over) = (recorder.clone(), is_over.clone());
            std::thread::spawn(move || {
                let result = keep_counting(&recorder, acks, hlog, &is_over, shows_progress, keeps);
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
    pub(crate) fn finish(self, seconds: f64) -> Result<(Report, Option<Kept>), RecordError> {
        self.is_over.store(true, Ordering::Release);
        self.thread.thread().unpark();
        match self.thread.join() {
            Ok(tally) => {
                let mut tally = tally?;
                let kept = tally.kept.take();
                Ok((tally.sum_up(seconds), kept))
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// An interval log that was just begun.
type Hlog = (PathBuf, BufWriter<File>);

fn create_hlog(path: &Path) -> Result<Hlog, RecordError> {
    match File::create(path) {
        Ok(file) => Ok((path.to_owned(), BufWriter::new(file))),
        Err(error) => Err(RecordError::IntervalLog { path: path.to_owned(), error }),
    }
}

fn keep_counting(
    recorder: &Recorder,
    mut acks: Option<AckWriter>,
    hlog: Option<Hlog>,
    is_over: &AtomicBool,
    shows_progress: bool,
    keeps: Option<u64>,
) -> Result<Tally, RecordError> {
    let (path, mut file) = hlog.unzip();
    let fault = |error| RecordError::IntervalLog { path: path.clone().unwrap_or_default(), error };
    let mut serializer = V2DeflateSerializer::new();
    let mut log = file.as_mut().map(|file| begin_hlog(file, &mut serializer)).transpose().map_err(fault)?;
    let mut tally = Tally::new(keeps);
    let mut samples = Vec::new();
    let started = Instant::now();
    let mut next = INTERVAL;
    loop {
        let is_last = is_over.load(Ordering::Acquire);
        std::mem::swap(&mut samples, &mut *recorder.samples.lock());
        if let Some(acks) = &mut acks {
            acks.append(samples.iter().filter_map(Sample::reply))?;
        }
        samples.drain(..).for_each(|sample| tally.add(&sample));
        let now = started.elapsed();
        if now >= next || is_last && !tally.current.is_empty() {
            next += INTERVAL;
            if shows_progress && !is_last {
                tally.print_progress(now);
            }
            tally.close_interval(now, log.as_mut()).map_err(fault)?;
        }
        if is_last {
            drop(log);
            file.map_or(Ok(()), |mut file| file.flush()).map_err(fault)?;
            return Ok(tally);
        }
        std::thread::park_timeout(TURN);
    }
}

fn begin_hlog<'a>(
    file: &'a mut BufWriter<File>,
    serializer: &'a mut V2DeflateSerializer,
) -> io::Result<HlogWriter<'a>> {
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("latency in nanoseconds; Interval_Max in milliseconds")
        .with_start_time(SystemTime::now())
        .with_max_value_divisor(HLOG_DIVISOR)
        .begin_log_with(file, serializer)
}

/// Writes an interval log.
type HlogWriter<'a> = IntervalLogWriter<'a, 'a, BufWriter<File>, V2DeflateSerializer>;

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
    /// `seed` decides which locks are looked up, if the money is checked after the run.
    fn new(seed: Option<u64>) -> Self {
        Self {
            report: Report::default(),
            kept: seed.map(|seed| Kept { replies: Vec::new(), sightings: Sightings::new(seed) }),
            latency: histogram(),
            service: histogram(),
            late: histogram(),
            current: Current::new(),
        }
    }

    fn add(&mut self, sample: &Sample) {
        if let (Some(kept), Some(reply)) = (&mut self.kept, sample.reply()) {
            kept.replies.push(*reply);
        }
        let (report, interval) = (&mut self.report, &mut self.current.interval);
        match sample {
            Sample::Begun { late } => {
                report.payments += 1;
                interval.offered += 1;
                self.late.saturating_record(nanos(*late));
            }
            Sample::Dropped => {
                report.dropped += 1;
                interval.offered += 1;
                interval.dropped += 1;
            }
            Sample::Answered { reply, latency, service, is_sound } => {
                report.replied += 1;
                interval.replied += 1;
                report.contradictions += u64::from(!is_sound);
                match reply.code() {
                    code if code.is_success() => report.approved += 1,
                    code => {
                        count(&mut report.declined, code);
                        count(&mut interval.declined, code);
                    }
                }
                self.latency.saturating_record(nanos(*latency));
                self.current.latency.saturating_record(nanos(*latency));
                self.service.saturating_record(nanos(*service));
            }
            Sample::Refused(code) => {
                count(&mut report.refused, *code);
                count(&mut interval.declined, *code);
            }
            Sample::Unsent => report.unsent += 1,
            Sample::Resolved(_) => report.resolved += 1,
            Sample::Unknown => report.unknown += 1,
            Sample::Contradicted => report.contradictions += 1,
            Sample::Seen(seen) => {
                if let Some(kept) = &mut self.kept {
                    kept.sightings.add(*seen);
                }
            }
        }
    }

    fn print_progress(&self, now: Duration) {
        let Report { declined, refused, unknown, dropped, .. } = &self.report;
        let latency = &self.current.latency;
        eprintln!(
            "{:>5} s {:>9} replies/s  p50 {:>9.1} us  p99 {:>9.1} us  declined {} refused {} unknown {unknown} dropped {dropped}",
            now.as_secs(),
            latency.len(),
            quantile_us(latency, 0.5),
            quantile_us(latency, 0.99),
            declined.values().sum::<u64>(),
            refused.values().sum::<u64>(),
        );
    }

    fn close_interval(&mut self, now: Duration, log: Option<&mut HlogWriter<'_>>) -> io::Result<()> {
        let (interval, began, span) = self.current.close(now);
        self.report.intervals.push(interval);
        if let Some(log) = log {
            log.write_histogram(&self.current.latency, began, span, None).map_err(io::Error::other)?;
        }
        self.current.latency.reset();
        Ok(())
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
        report.histogram = steps(&latency);
        report
    }
}

/// Quantiles of a histogram, closer together towards its end.
fn steps(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    let of_value = |value: hdrhistogram::iterators::IterationValue<u64>| {
        #[allow(clippy::cast_precision_loss)] // a minute in nanoseconds fits
        let us = value.value_iterated_to() as f64 / 1000.0;
        (value.quantile_iterated_to(), us)
    };
    latency.iter_quantiles(TICKS_PER_HALF).map(of_value).collect()
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use surety_protocol::Id;

    fn answered(id: u128, code: Code, micros: u64, is_sound: bool) -> Sample {
        let reply = Reply { id: Id(id), code: code as u8, ..Reply::default() };
        let latency = Duration::from_micros(micros);
        Sample::Answered { reply, latency, service: latency / 2, is_sound }
    }

    /// How many latencies an interval log holds.
    fn logged(path: &Path) -> u64 {
        let text = std::fs::read(path).unwrap();
        let mut deserializer = Deserializer::new();
        let mut count = 0;
        for entry in IntervalLogIterator::new(&text) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let bytes = BASE64_STANDARD.decode(interval.encoded_histogram()).unwrap();
                let histogram: Histogram<u64> = deserializer.deserialize(&mut &bytes[..]).unwrap();
                count += histogram.len();
            }
        }
        count
    }

    #[test]
    fn samples_are_written_then_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acks");
        let files = Files { acks: Some(path.clone()), hlog: Some(directory.path().join("run.hlog")) };
        let recording = Recording::start(&files, false, Some(1)).unwrap();
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
        let (report, kept) = recording.finish(2.0).unwrap();
        assert_eq!(kept.unwrap().replies.len() as u64, report.replied + report.resolved);
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
        let [interval] = &report.intervals[..] else { panic!("{:?}", report.intervals) };
        assert_eq!((interval.offered, interval.dropped, interval.replied), (2, 1, 100));
        assert_eq!(interval.declined.values().sum::<u64>(), 3);
        assert!((99.9..100.2).contains(&interval.p50_us) && (3990.0..4010.0).contains(&interval.max_us));
        assert!(report.histogram.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{:?}", report.histogram);
        assert_eq!(logged(files.hlog.as_deref().unwrap()), 100);
    }

    #[test]
    fn a_run_is_not_ok_with_a_lost_outcome_a_contradiction_or_no_answer() {
        let check = |samples: &[Sample], expect| {
            let mut tally = Tally::new(None);
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
