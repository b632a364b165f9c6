//! The command `errors`: the n-th call of the disk fails, for every n of a whole life. The shard halts or declines, nothing
//! is acked after it, nothing is tried again, and what was acked is there when it comes back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use engine::Durability;
use surety_protocol::Seq;

use super::disk::{Disk, Fault};
use super::enumerate::Explorer;
use super::life::{Halt, Life, Moment, Shape};

/// Fails every call of the disk in a whole life, one at a time
///
/// Example: simulator errors --json
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Every how many calls one fails; 1 is every call
    #[arg(long, default_value_t = 1)]
    stride: u64,
    /// Threads; 0 takes as many as there are cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print nothing but one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of the failures.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Lives that were lived, one for each call and kind of failure.
    pub lives: u64,
    /// The process ended.
    pub halted: u64,
    /// The shard refused to start, and started when it was asked again.
    pub start_refused: u64,
    /// Housekeeping was put off, and the life went on.
    pub survived: u64,
    /// The failures by the call that failed.
    pub by_call: BTreeMap<String, u64>,
    /// The failures by kind.
    pub by_fault: BTreeMap<String, u64>,
    /// Recoveries after a failure.
    pub recoveries: u64,
    /// Replies that had left and were asked for again.
    pub replies_asked_again: u64,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    ok: bool,
    command: &'static str,
    stride: u64,
    #[serde(flatten)]
    counts: Counts,
    failures: Vec<String>,
}

/// Runs the command; false if anything did not hold.
#[must_use]
pub fn run(args: &Args) -> bool {
    let (counts, failures) = fail_everything(args.stride.max(1), super::threads(args.threads));
    let report = Report {
        ok: failures.is_empty() && counts.lives > 0,
        command: "errors",
        stride: args.stride.max(1),
        counts,
        failures,
    };
    if !args.json {
        let counts = &report.counts;
        println!(
            "{} lives with one failure each: {} halted, {} refused to start, {} went on; {} recoveries, {} replies asked again",
            counts.lives,
            counts.halted,
            counts.start_refused,
            counts.survived,
            counts.recoveries,
            counts.replies_asked_again
        );
        report.failures.iter().for_each(|failure| println!("FAILED {failure}"));
    }
    crate::report::print(&report);
    report.ok
}

/// Lives that see everything: a roll, snapshots, retention, stops and starts.
fn shapes() -> Vec<Shape> {
    let shape = Shape {
        durability: Durability::Fsync,
        guard: false,
        blocks: 9,
        requests_max: 6,
        snapshot_every: 3,
        restart_every: 5,
        cut_from: 0,
    };
    let rolling = Shape { blocks: 130, requests_max: 1, snapshot_every: 41, restart_every: 60, ..shape };
    vec![
        shape,
        Shape { guard: true, ..shape },
        Shape { durability: Durability::Os, ..shape },
        rolling,
        Shape { durability: Durability::Os, ..rolling },
    ]
}

fn fail_everything(stride: u64, threads: usize) -> (Counts, Vec<String>) {
    let faults = [Fault::Io, Fault::NoSpace, Fault::Short, Fault::Late];
    let jobs: Vec<(u64, Shape, Fault)> =
        (0..).zip(shapes()).flat_map(|(index, shape)| faults.map(|fault| (index, shape, fault))).collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new((Counts::default(), Vec::new()));
    let work = || {
        while let Some((index, shape, fault)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut counts = Counts::default();
            let failure = fail_each(shape, *index, *fault, stride, &mut counts).err();
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.0.add(counts);
            found.1.extend(failure);
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn fail_each(
    shape: &Shape,
    index: u64,
    fault: Fault,
    stride: u64,
    counts: &mut Counts,
) -> Result<(), String> {
    let mut call = 1;
    while fail_one(shape, index, call, fault, counts)
        .map_err(|failure| format!("shape {index}, {fault:?} at call {call}: {failure}"))?
    {
        call += stride;
    }
    Ok(())
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.halted += other.halted;
        self.start_refused += other.start_refused;
        self.survived += other.survived;
        self.recoveries += other.recoveries;
        self.replies_asked_again += other.replies_asked_again;
        let pairs = [(&mut self.by_call, other.by_call), (&mut self.by_fault, other.by_fault)];
        for (sum, more) in pairs {
            more.into_iter().for_each(|(name, count)| *sum.entry(name).or_default() += count);
        }
    }
}

/// One life with one failure; false if it ended before the call was reached.
fn fail_one(shape: &Shape, seed: u64, call: u64, fault: Fault, counts: &mut Counts) -> Result<bool, String> {
    let mut disk = Disk::new();
    disk.fail_nth(call, fault);
    let mut life = Life::new(shape, seed, disk);
    let ended = life.run(shape);
    let Some(failed) = life.disk.failed() else {
        return ended.map(|()| false).map_err(|halt| format!("without any failure: {halt}"));
    };
    counts.lives += 1;
    *counts.by_fault.entry(format!("{fault:?}")).or_default() += 1;
    *counts.by_call.entry(failed.to_owned()).or_default() += 1;
    let is_look = life.disk.failed_to_look();
    match &ended {
        Err(Halt::Wrong(wrong)) => return Err(format!("{failed}: {wrong}")),
        Err(Halt::Disk(_)) => counts.halted += 1,
        Err(Halt::Start(_)) => counts.start_refused += 1,
        Ok(()) if is_look || fault == Fault::NoSpace => counts.survived += 1,
        Ok(()) => return Err(format!("{failed}: went on")),
    }
    if ended.is_err() && life.disk.calls_after_failure() > 0 && !is_look {
        return Err(format!("{failed}: {} calls after it", life.disk.calls_after_failure()));
    }
    come_back(&life, seed, counts).map_err(|failure| format!("{failed}: {failure}"))?;
    Ok(true)
}

/// After the failure the process is gone: the next one finds what was acked.
fn come_back(life: &Life, seed: u64, counts: &mut Counts) -> Result<(), String> {
    let moment = Moment { disk: life.disk.clone(), promise: life.promise(), replies: life.truth.acked.len() };
    if !life.was_started() {
        return make_again(life);
    }
    let mut explorer = Explorer::new(life.config, &life.truth, seed);
    explorer.look_after(&moment)?;
    counts.recoveries += explorer.counts.states;
    counts.replies_asked_again += explorer.counts.replies_asked_again;
    Ok(())
}

/// A shard that failed while it was made, or at its very first start, is there whole or can be made again.
fn make_again(life: &Life) -> Result<(), String> {
    let mut disk = life.disk.crash_keeping_all();
    if wal::list_segments(&disk).map_err(|error| error.to_string())?.is_empty() {
        let now = surety_protocol::Time::from_secs(1_700_000_000);
        engine::create(life.config, &mut disk, now).map_err(|error| error.to_string())?;
    }
    let recovered = engine::recover(life.config, &mut disk, engine::Begin::Snapshot, |_| {})
        .map_err(|error| error.to_string())?;
    if recovered.report().last_seq != Seq(0) {
        return Err("a shard that never served holds records".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_failed_call_halts_or_declines_and_loses_nothing() {
        // A prime, so that over the shapes every kind of call has its turn; the command fails every call.
        let (counts, failures) = fail_everything(23, 2);
        assert_eq!(failures, Vec::<String>::new());
        assert!(counts.halted > 50 && counts.start_refused > 5 && counts.survived > 10, "{counts:?}");
    }
}
