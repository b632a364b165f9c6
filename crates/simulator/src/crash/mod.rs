//! The command `crash`: histories whose power is cut after every call, in every way that the disk allows, nested; each
//! must come back as what was acked, with or without the block in flight.

mod counts;
mod disk;
mod enumerate;
pub mod errors;
mod house;
mod life;
pub mod rot;
mod workload;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

pub use counts::Counts;
pub use disk::{Disk, DiskError, Fault};

/// States that one history may have, so that many kinds of histories get their turn.
const STATES_PER_HISTORY_MAX: u64 = 20_000;

/// Cuts the power after every call of many histories, and of the recoveries after them
///
/// Example: simulator crash --states 1000000 --json
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Recoveries to run at least; whole histories are run until there are as many
    #[arg(long, default_value_t = 1_000_000)]
    states: u64,
    /// The first history
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; 0 takes as many as there are cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print nothing but one JSON object
    #[arg(long)]
    json: bool,
}

/// What the command found.
#[derive(Debug, serde::Serialize)]
struct Report {
    ok: bool,
    command: &'static str,
    seed: u64,
    seconds: f64,
    states_per_second: f64,
    threads: usize,
    #[serde(flatten)]
    counts: Counts,
    failures: Vec<String>,
}

/// Runs the command; false if anything did not hold.
#[must_use]
pub fn run(args: &Args) -> bool {
    let threads = threads(args.threads);
    let begun = Instant::now();
    let (counts, failures) = explore_until(args.seed, args.states, threads);
    let seconds = begun.elapsed().as_secs_f64();
    let report = Report {
        ok: failures.is_empty() && counts.states >= args.states,
        command: "crash",
        seed: args.seed,
        seconds,
        states_per_second: counts.states as f64 / seconds,
        threads,
        counts,
        failures,
    };
    if !args.json {
        tell(&report);
    }
    crate::report::print(&report);
    report.ok
}

/// As many threads as were asked for, or as there are cores.
fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// Runs histories from a seed on, until there are enough states. What is counted is the shortest row of histories that has
/// as many: it does not depend on threads.
fn explore_until(seed: u64, states: u64, threads: usize) -> (Counts, Vec<String>) {
    let done: Mutex<BTreeMap<u64, Counts>> = Mutex::default();
    let failures: Mutex<Vec<String>> = Mutex::default();
    let next = AtomicU64::new(0);
    let is_enough = AtomicBool::new(false);
    let work = || {
        while !is_enough.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let explored = catch(|| enumerate::explore(seed + index, STATES_PER_HISTORY_MAX));
            let counts = explored.unwrap_or_else(|failure| {
                lock(&failures).push(failure);
                is_enough.store(true, Ordering::Relaxed);
                Counts::default()
            });
            let mut done = lock(&done);
            done.insert(index, counts);
            if sum(&done, states).states >= states {
                is_enough.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    (sum(&done, states), failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// The sum of the first histories that are done without a gap, up to the one with which there are enough states.
fn sum(done: &BTreeMap<u64, Counts>, states: u64) -> Counts {
    let mut total = Counts::default();
    for ((index, counts), expected) in done.iter().zip(0..) {
        if *index != expected || total.states >= states {
            break;
        }
        total.add(counts);
    }
    total
}

/// A panic is a failure like any other, where panics unwind; where they abort, it ends the command.
fn catch<T>(explore: impl FnOnce() -> Result<T, String> + std::panic::UnwindSafe) -> Result<T, String> {
    std::panic::catch_unwind(explore).unwrap_or_else(|_| Err("a panic; its place is told above".into()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn tell(report: &Report) {
    let counts = &report.counts;
    println!(
        "{} histories, {} moments ({} of them in every way there is, the others sampled)",
        counts.histories, counts.moments, counts.moments_exhaustive
    );
    println!(
        "{} states, {} distinct, by depth {:?}; {:.1} s, {:.0} per second on {} threads",
        counts.states,
        counts.states_distinct,
        counts.states_by_depth,
        report.seconds,
        report.states_per_second,
        report.threads
    );
    for failure in &report.failures {
        println!("FAILED {failure}");
    }
}
