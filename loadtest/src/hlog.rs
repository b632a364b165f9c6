//! Interval logs: the latencies of each second, in the format that the tools of `HdrHistogram` read.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder};

use crate::distribution::DistributionError;
use crate::interval::Interval;
use crate::report::Report;

/// The log's maxima are in milliseconds; its histograms in nanoseconds, as they are recorded.
const DIVISOR: f64 = 1e6;

/// Why an interval log could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct HlogError {
    path: PathBuf,
    error: io::Error,
}

/// A file that is an interval log, or becomes one.
#[derive(Debug)]
pub(crate) struct Hlog {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Hlog {
    pub(crate) fn create(path: &Path) -> Result<Self, HlogError> {
        match File::create(path) {
            Ok(file) => Ok(Self { path: path.to_owned(), file: BufWriter::new(file) }),
            Err(error) => Err(HlogError { path: path.to_owned(), error }),
        }
    }

    /// Writes the log while `work` gives it intervals, and what is left in memory after it.
    pub(crate) fn write<T, E: From<HlogError>>(
        mut self,
        started: SystemTime,
        work: impl FnOnce(&mut Intervals<'_, '_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut serializer = V2DeflateSerializer::new();
        let fault = |error| HlogError { path: self.path.clone(), error };
        let log = IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("latency in nanoseconds; Interval_Max in milliseconds")
            .with_start_time(started)
            .with_max_value_divisor(DIVISOR)
            .begin_log_with(&mut self.file, &mut serializer)
            .map_err(fault)?;
        let done = work(&mut Intervals { log, path: &self.path })?;
        self.file.flush().map_err(fault)?;
        Ok(done)
    }
}

/// What takes the intervals of a log, one behind the other.
pub(crate) struct Intervals<'a, 'b> {
    log: IntervalLogWriter<'a, 'b, BufWriter<File>, V2DeflateSerializer>,
    path: &'a Path,
}

impl Intervals<'_, '_> {
    pub(crate) fn add(&mut self, interval: &Interval) -> Result<(), HlogError> {
        let fault = |error| HlogError { path: self.path.to_owned(), error };
        let unread = |error: DistributionError| fault(io::Error::other(error));
        let latency = interval.latency.read().map_err(unread)?;
        let (began, span) = (seconds(interval.at_s), seconds(interval.seconds));
        self.log.write_histogram(&latency, began, span, None).map_err(io::Error::other).map_err(fault)
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl Report {
    /// Writes the latencies of each second as an interval log.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_hlog(&self, path: &Path) -> Result<(), HlogError> {
        let started = SystemTime::UNIX_EPOCH + Duration::from_millis(self.started_ms);
        Hlog::create(path)?.write(started, |log| self.intervals.iter().try_for_each(|second| log.add(second)))
    }
}
