//! Counts what happens, on a thread of its own: payments only append to a list.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use surety_protocol::{Code, Reply};

use crate::acks::{AckWriter, AcksError};
use crate::door_check::Asked;
use crate::front::Front;
use crate::hlog::{Hlog, HlogError, Intervals};
use crate::inject::{Faulty, Injected};
use crate::interval::{Current, Interval};
use crate::money::{Seen, Sightings};
use crate::progress::{OnSecond, Progress};
use crate::report::{Measured, Report, count};

/// How often the list is taken.
const TURN: Duration = Duration::from_millis(10);
/// An interval of the report, and how often somebody is told of the run.
const INTERVAL: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Sample {
    /// A payment began, so late after its intended start.
    Begun { late: Duration },
    /// A payment could not be begun.
    Dropped,
    /// A recorded answer.
    Answered { reply: Reply, latency: Duration, service: Duration, is_sound: bool },
    /// The same, of somebody whose latency is not measured.
    AnsweredAside { reply: Reply, is_sound: bool },
    /// An admission code.
    Refused(Code),
    /// What a front door refuses a request with, by name.
    RefusedByDoor(Box<str>),
    /// A request to a front door goes out.
    Asked(Asked),
    /// The answer to one that was sent a second time on purpose.
    Doubled { reply: Reply, is_sound: bool },
    /// A request never left.
    Unsent,
    /// A request to a front door never left, for this reason.
    UnsentToDoor(Box<str>),
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

/// Who is told of a run while it lasts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchers {
    /// Each second.
    pub(crate) on_second: Option<OnSecond>,
    /// What spoils the links, to be told beside.
    pub(crate) faults: Option<Arc<Faulty>>,
    /// Or this, over a front door.
    pub(crate) door: Option<Front>,
}

impl Watchers {
    /// Faults on the way so far.
    pub(crate) fn injected(&self) -> Option<Injected> {
        let of_door = self.door.as_ref().and_then(|door| door.faults().injected());
        of_door.or_else(|| self.faults.as_ref().map(|faults| faults.injected()))
    }
}

/// Why what happened could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Replies could not be written.
    #[error(transparent)]
    Acks(#[from] AcksError),
    /// The interval log could not be written.
    #[error(transparent)]
    IntervalLog(#[from] HlogError),
}

/// What a money check needs to know of a run.
pub(crate) struct Kept {
    pub(crate) replies: Vec<Reply>,
    /// Requests to a front door, which no place in the log is told of.
    pub(crate) asked: Vec<Asked>,
    pub(crate) sightings: Sightings,
}

/// Everything counted so far.
struct Tally {
    report: Report,
    /// If the money is checked after the run.
    kept: Option<Kept>,
    measured: Measured,
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
    /// Starts counting a run that begins at `started`; appends replies to a file before they are counted.
    ///
    /// With a seed it keeps what a money check needs: every reply, and a choice of the locks.
    pub(crate) fn start(
        files: &Files,
        watchers: Watchers,
        keeps: Option<u64>,
        started: Instant,
    ) -> Result<Self, RecordError> {
        let acks = files.acks.as_deref().map(AckWriter::open).transpose()?;
        let hlog = files.hlog.as_deref().map(Hlog::create).transpose()?;
        let recorder = Recorder { samples: Arc::default(), has_failed: Arc::default() };
        let is_over = Arc::new(AtomicBool::new(false));
        let counting = Counting {
            recorder: recorder.clone(),
            is_over: is_over.clone(),
            acks,
            watchers,
            started,
            tally: Tally::new(keeps),
        };
        let thread = std::thread::spawn(move || {
            let recorder = counting.recorder.clone();
            let result = counting.run(hlog);
            recorder.has_failed.store(result.is_err(), Ordering::Relaxed);
            result
        });
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

/// The counting thread's own.
struct Counting {
    recorder: Recorder,
    is_over: Arc<AtomicBool>,
    acks: Option<AckWriter>,
    watchers: Watchers,
    started: Instant,
    tally: Tally,
}

impl Counting {
    fn run(mut self, hlog: Option<Hlog>) -> Result<Tally, RecordError> {
        match hlog {
            None => self.keep_counting(None)?,
            Some(hlog) => hlog.write(SystemTime::now(), |log| self.keep_counting(Some(log)))?,
        }
        Ok(self.tally)
    }

    fn keep_counting(&mut self, mut log: Option<&mut Intervals<'_, '_>>) -> Result<(), RecordError> {
        let mut samples = Vec::new();
        let mut next = INTERVAL;
        loop {
            let is_last = self.is_over.load(Ordering::Acquire);
            std::mem::swap(&mut samples, &mut *self.recorder.samples.lock());
            if let Some(acks) = &mut self.acks {
                acks.append(samples.iter().filter_map(Sample::reply))?;
            }
            samples.drain(..).for_each(|sample| self.tally.add(&sample));
            let now = self.started.elapsed();
            if now >= next || is_last && !self.tally.current.is_empty() {
                next += INTERVAL;
                let second = self.tally.current.close(now);
                log.as_mut().map_or(Ok(()), |log| log.add(&second))?;
                if !is_last {
                    self.tell(&second, now);
                }
                self.tally.report.intervals.push(second);
            }
            if is_last {
                return Ok(());
            }
            std::thread::park_timeout(TURN);
        }
    }

    fn tell(&mut self, second: &Interval, now: Duration) {
        let Some(on_second) = &self.watchers.on_second else { return };
        let intervals = std::mem::take(&mut self.tally.report.intervals);
        let mut so_far = self.tally.report.clone();
        self.tally.report.intervals = intervals;
        so_far.sum_up(&self.tally.measured, now.as_secs_f64());
        so_far.injected = self.watchers.injected();
        on_second.tell(&Progress { second: second.clone(), so_far });
    }
}

impl Sample {
    /// The reply that belongs into the file.
    fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Answered { reply, .. } | Self::AnsweredAside { reply, .. } | Self::Resolved(reply) => {
                Some(reply)
            }
            _ => None,
        }
    }
}

impl Tally {
    /// `seed` decides which locks are looked up, if the money is checked after the run.
    fn new(seed: Option<u64>) -> Self {
        Self {
            report: Report::default(),
            kept: seed.map(|seed| Kept {
                replies: Vec::new(),
                asked: Vec::new(),
                sightings: Sightings::new(seed),
            }),
            measured: Measured::new(),
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
                self.measured.late.saturating_record(nanos(*late));
            }
            Sample::Dropped => {
                report.dropped += 1;
                interval.offered += 1;
                interval.dropped += 1;
            }
            Sample::Answered { reply, latency, service, is_sound } => {
                count_answer(report, interval, reply, *is_sound);
                self.measured.latency.saturating_record(nanos(*latency));
                self.current.latency.saturating_record(nanos(*latency));
                self.measured.service.saturating_record(nanos(*service));
            }
            Sample::AnsweredAside { reply, is_sound } => count_answer(report, interval, reply, *is_sound),
            Sample::Refused(code) => {
                count(&mut report.refused, code.name());
                count(&mut interval.declined, code.name());
            }
            Sample::RefusedByDoor(name) => {
                count(&mut report.refused, name);
                count(&mut interval.declined, name);
            }
            Sample::Asked(asked) => {
                if let Some(kept) = &mut self.kept {
                    kept.asked.push(*asked);
                }
            }
            Sample::Doubled { reply, is_sound } => {
                report.contradictions += u64::from(!is_sound);
                if let Some(kept) = &mut self.kept {
                    kept.replies.push(*reply);
                }
            }
            Sample::Unsent => report.unsent += 1,
            Sample::UnsentToDoor(why) => {
                report.unsent += 1;
                report.unsent_why.get_or_insert_with(|| why.to_string());
            }
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

    fn sum_up(self, seconds: f64) -> Report {
        let Self { mut report, measured, .. } = self;
        report.sum_up(&measured, seconds);
        report.keep(&measured);
        report
    }
}

fn count_answer(report: &mut Report, interval: &mut Interval, reply: &Reply, is_sound: bool) {
    report.replied += 1;
    interval.replied += 1;
    report.contradictions += u64::from(!is_sound);
    match reply.code() {
        code if code.is_success() => report.approved += 1,
        code => {
            count(&mut report.declined, code.name());
            count(&mut interval.declined, code.name());
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use std::path::Path;
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
        let recording = Recording::start(&files, Watchers::default(), Some(1), Instant::now()).unwrap();
        let recorder = recording.recorder();
        recorder.push(Sample::Begun { late: Duration::from_micros(7) });
        for id in 0..99 {
            recorder.push(answered(id, Code::Approved, 100, true));
        }
        recorder.push(answered(99, Code::Insufficient, 4000, true));
        let aside = Reply { id: Id(101), code: 64, ..Reply::default() };
        recorder.push(Sample::AnsweredAside { reply: aside, is_sound: true });
        recorder.push(Sample::Refused(Code::Overloaded));
        recorder.push(Sample::Refused(Code::Overloaded));
        recorder.push(Sample::Resolved(Reply { id: Id(100), code: 64, ..Reply::default() }));
        recorder.push(Sample::Dropped);
        recorder.push(Sample::Unsent);
        let (report, kept) = recording.finish(2.0).unwrap();
        assert_eq!(kept.unwrap().replies.len() as u64, report.replied + report.resolved);
        assert!(report.ok);
        assert_eq!((report.payments, report.sent, report.replied, report.approved), (1, 104, 101, 100));
        assert_eq!(report.declined["INSUFFICIENT"], 1);
        assert_eq!(report.refused["OVERLOADED"], 2);
        assert_eq!((report.resolved, report.unknown, report.dropped, report.unsent), (1, 0, 1, 1));
        assert!((99.9..100.2).contains(&report.p50_us), "{}", report.p50_us);
        assert!((3990.0..4010.0).contains(&report.max_us));
        assert!((49.9..50.1).contains(&report.service_p50_us));
        assert!((50.4..50.6).contains(&report.rate_per_s));
        assert_eq!(crate::read_acks(&path).unwrap().len(), 102);
        let [interval] = &report.intervals[..] else { panic!("{:?}", report.intervals) };
        assert_eq!((interval.offered, interval.dropped, interval.replied), (2, 1, 101));
        assert_eq!(interval.declined.values().sum::<u64>(), 3);
        assert!((99.9..100.2).contains(&interval.p50_us) && (3990.0..4010.0).contains(&interval.max_us));
        assert!(report.histogram.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{:?}", report.histogram);
        // What is answered aside is counted, and not timed.
        assert_eq!(logged(files.hlog.as_deref().unwrap()), 100);
        assert_eq!(report.latency.read().unwrap().len(), 100);
        assert_eq!((interval.latency.read().unwrap().len(), report.late.read().unwrap().len()), (100, 1));
        report.write_hlog(&path).unwrap();
        assert_eq!(logged(&path), 100);
    }

    #[test]
    fn a_run_is_not_ok_with_a_lost_outcome_a_contradiction_or_no_answer() {
        let check = |samples: &[Sample], expect| {
            let mut tally = Tally::new(None);
            samples.iter().for_each(|sample| tally.add(sample));
            assert_eq!(tally.sum_up(1.0).ok, expect, "{samples:?}");
        };
        let good = answered(1, Code::Approved, 1, true);
        check(std::slice::from_ref(&good), true);
        check(&[], false);
        check(&[good.clone(), Sample::Unknown], false);
        check(&[good.clone(), answered(2, Code::Approved, 1, false)], false);
        let reply = Reply { id: Id(3), code: Code::Approved as u8, ..Reply::default() };
        check(&[good, Sample::AnsweredAside { reply, is_sound: false }], false);
    }
}
