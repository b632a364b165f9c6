//! The command `run`: many worlds, each from its own seed, on every core; at the end what was met and what was not.

mod report;
mod shrink;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use self::report::Report;
pub use self::shrink::{Shrunk, shrink};
use crate::world::coverage::Coverage;
use crate::world::{self, Outcome, Plan};

/// From this many operations on, in all worlds together, everything must have been met.
const MEETS_ALL_FROM: u64 = 2_000_000;
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(5);

/// Runs worlds of clients, faults and crashes, and holds every answer against the oracle
///
/// Example: simulator run --seeds 2000 --ops 5000 --json
#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // Switches of a command line.
pub struct Args {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, counted up from the first
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Steps in each world; each brings about one operation
    #[arg(long, default_value_t = 5_000)]
    ops: u64,
    /// Worlds at a time; 0 for as many as there are cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Only these parts of the steps happen: 2n is the request of step n, 2n + 1 what goes wrong in it
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<u64>>,
    /// Tell what happens, one line for each event
    #[arg(long)]
    story: bool,
    /// End with one JSON object on a line of its own
    #[arg(long)]
    json: bool,
}

/// A world in which something did not hold.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The world.
    pub plan: Plan,
    /// How it ended.
    pub outcome: Outcome,
}

/// Runs the command; false if anything did not hold.
#[must_use]
pub fn run(args: &Args) -> bool {
    tell_of_panics();
    let begun = Instant::now();
    let only = args.only.as_ref().map(|only| only.iter().copied().collect::<BTreeSet<u64>>());
    let plan = Plan { tells: args.story, only, ..Plan::new(args.seed, args.ops) };
    let (mut report, failed) = run_all(&plan, args.seeds, threads(args.threads));
    report.seconds = begun.elapsed().as_secs_f64();
    if let Some(failed) = &failed {
        tell_failure(failed, args.only.is_some());
    } else {
        report.missing =
            if report.operations >= MEETS_ALL_FROM { report.coverage.missing() } else { Vec::new() };
        report.ok = report.missing.is_empty();
    }
    report.print(args.json);
    report.ok
}

/// Runs worlds from consecutive seeds on several threads; ends early at the first that fails.
#[must_use]
pub fn run_all(first: &Plan, seeds: u64, threads: usize) -> (Report, Option<Failed>) {
    let (next, done, stops) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let sum: Mutex<Report> =
        Mutex::new(Report { seeds, first_seed: first.seed, ops: first.ops, ..Report::default() });
    let failed: Mutex<Option<Failed>> = Mutex::new(None);
    let told = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut coverage = Coverage::default();
                let (mut operations, mut trace) = (0, 0_u64);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= seeds || stops.load(Ordering::Relaxed) {
                        break;
                    }
                    let plan = Plan { seed: first.seed.wrapping_add(at), ..first.clone() };
                    note_world(&plan);
                    let mut outcome = world::run(&plan);
                    if plan.tells {
                        outcome.story.iter().for_each(|line| println!("{line}"));
                    }
                    coverage.add(&outcome.coverage);
                    operations += outcome.operations;
                    // The order in which worlds end is not theirs to choose: each counts by its seed.
                    trace ^= outcome.trace.rotate_left(u32::try_from(at % 64).unwrap_or(0));
                    if outcome.failure.is_some() {
                        stops.store(true, Ordering::Relaxed);
                        outcome.story.clear();
                        let mut failed = lock(&failed);
                        failed.get_or_insert(Failed { plan, outcome });
                    }
                    let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                    tell_progress(&told, count, seeds);
                }
                let mut sum = lock(&sum);
                sum.coverage.add(&coverage);
                sum.operations += operations;
                sum.trace ^= trace;
            });
        }
    });
    let mut report = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.seeds = done.into_inner();
    (report, failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        asked => asked,
    }
}

fn tell_progress(told: &Mutex<Instant>, count: u64, seeds: u64) {
    let mut told = lock(told);
    if told.elapsed() >= PROGRESS {
        *told = Instant::now();
        eprintln!("{count} of {seeds} worlds");
    }
}

/// Makes a failing world short and tells how to see it again.
fn tell_failure(failed: &Failed, is_short: bool) {
    let (plan, outcome) = (&failed.plan, &failed.outcome);
    if let Some((step, violation)) = &outcome.failure {
        eprintln!("seed {} step {step}: {violation}", plan.seed);
    }
    eprintln!("again: {}", command(plan));
    if is_short {
        return;
    }
    let shrunk = shrink(plan, Duration::from_secs(60));
    for line in &shrunk.outcome.story {
        eprintln!("{line}");
    }
    if let Some((step, violation)) = &shrunk.outcome.failure {
        eprintln!("after {} parts of steps, at step {step}: {violation}", shrunk.parts());
    }
    eprintln!("again, and short: {}", command(&shrunk.plan));
}

/// The command that runs a world again.
#[must_use]
pub fn command(plan: &Plan) -> String {
    let mut command = format!(
        "cargo run --release -p simulator -- run --seed {} --seeds 1 --ops {} --story",
        plan.seed, plan.ops
    );
    if let Some(only) = &plan.only {
        let parts: Vec<String> = only.iter().map(u64::to_string).collect();
        command.push_str(" --only ");
        command.push_str(&parts.join(","));
    }
    command
}

std::thread_local! {
    static WORLD: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

fn note_world(plan: &Plan) {
    WORLD.with_borrow_mut(|world| *world = Some(command(plan)));
}

/// An assertion of the engine ends the process: say in which world it was.
fn tell_of_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        let command = WORLD.with_borrow(Clone::clone);
        eprintln!("again: {}", command.unwrap_or_default());
    }));
}
