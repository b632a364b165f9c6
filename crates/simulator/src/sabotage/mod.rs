//! The command `sabotage`: deliberate bugs, each of which a test that is named for it has to notice.
//!
//! A campaign that finds nothing says little unless it would have found something. Our packages are compiled once more, with
//! `--cfg sabotage`; then each catching test runs as it is, and must pass, and runs with its bug in force, and must fail.

mod bugs;
mod executables;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub use bugs::{BUGS, Bug};
use executables::{Executables, Verdict};

/// Brings in one deliberate bug after the other, and expects the test that is named for it to fail
///
/// Example: simulator sabotage --only ack-before-sync
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only the bugs whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// List the bugs and what catches them, and run nothing
    #[arg(long)]
    list: bool,
    /// Print nothing but one JSON object
    #[arg(long)]
    json: bool,
}

/// What became of one bug.
#[derive(Debug, serde::Serialize)]
struct Row {
    bug: &'static str,
    breaks: &'static str,
    /// Package, target and test, as `cargo test` names them.
    caught_by: String,
    is_caught: bool,
    /// Why not, if it was not.
    problem: Option<String>,
}

/// What the command found.
#[derive(Debug, serde::Serialize)]
struct Report {
    ok: bool,
    command: &'static str,
    seconds: f64,
    bugs: usize,
    caught: usize,
    rows: Vec<Row>,
}

/// Runs the command; false if a bug survived.
#[must_use]
pub fn run(args: &Args) -> bool {
    let wanted = |bug: &&Bug| args.only.as_ref().is_none_or(|only| bug.name.contains(only.as_str()));
    let bugs: Vec<&Bug> = BUGS.iter().filter(wanted).collect();
    if args.list {
        bugs.iter().for_each(|bug| println!("{:<40} {:<44} {}", bug.name, bug.breaks, bug.caught_by()));
        return !bugs.is_empty();
    }
    let begun = Instant::now();
    let rows = match Executables::build(&bugs) {
        Ok(executables) => try_all(&executables, &bugs, args.json),
        Err(error) => {
            eprintln!("{error}");
            return false;
        }
    };
    let caught = rows.iter().filter(|row| row.is_caught).count();
    let report = Report {
        ok: caught == rows.len() && caught > 0,
        command: "sabotage",
        seconds: begun.elapsed().as_secs_f64(),
        bugs: rows.len(),
        caught,
        rows,
    };
    if args.json {
        crate::report::print(&report);
    } else {
        println!("caught {} of {} in {:.0} s", report.caught, report.bugs, report.seconds);
    }
    report.ok
}

/// Each catching test once as it is, then each bug, as many at once as there are cores. The rows stand in the order of the bugs.
fn try_all(executables: &Executables, bugs: &[&'static Bug], is_quiet: bool) -> Vec<Row> {
    let catching: BTreeMap<String, &Bug> = bugs.iter().map(|bug| (bug.caught_by(), *bug)).collect();
    let catching: Vec<(String, &Bug)> = catching.into_iter().collect();
    let clean = at_once(&catching, |(caught_by, bug)| (caught_by.clone(), executables.run(bug, None)));
    let clean: BTreeMap<String, Verdict> = clean.into_iter().collect();
    at_once(bugs, |bug| {
        let caught_by = bug.caught_by();
        let problem = problem(executables, bug, &clean[&caught_by]);
        if !is_quiet {
            let result = if problem.is_none() { "caught" } else { "SURVIVED" };
            println!("{result:<8} {:<40} {caught_by}", bug.name);
        }
        if let Some(problem) = &problem {
            eprintln!("{}: {problem}", bug.name);
        }
        Row { bug: bug.name, breaks: bug.breaks, caught_by, is_caught: problem.is_none(), problem }
    })
}

/// What is made of each, in their order, on as many threads as there are cores.
fn at_once<T: Sync, R: Send>(all: &[T], make: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(all.iter().enumerate());
    let made = Mutex::new(BTreeMap::new());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((at, one)) = next() {
            let of_one = make(one);
            made.lock().unwrap_or_else(PoisonError::into_inner).insert(at, of_one);
        }
    };
    // A thread that panics ends the command.
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    made.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// Why a bug does not count as caught; none if it does.
fn problem(executables: &Executables, bug: &Bug, without: &Verdict) -> Option<String> {
    match without {
        Verdict::Passed => {}
        other => return Some(format!("without the bug the test does not pass: {other}")),
    }
    // Where the bug is not compiled in, the test would fail for another reason, or never.
    if !executables.hold(bug) {
        return Some("its marker is not in the test's executable".to_owned());
    }
    match executables.run(bug, Some(bug.name)) {
        Verdict::Failed => None,
        other => Some(format!("with the bug the test does not fail: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn bugs_have_names_of_their_own_and_there_are_enough_of_them() {
        let names: BTreeSet<_> = BUGS.iter().map(|bug| bug.name).collect();
        assert!(names.len() >= 25);
        // A bug may have to be noticed by two tests, each of which is named for what it breaks.
        let rows: BTreeSet<_> = BUGS.iter().map(|bug| (bug.name, bug.caught_by())).collect();
        assert_eq!(rows.len(), BUGS.len());
    }
}
