//! `kill -9` at any moment: in the middle of a full-rate load, while the log is read back, while a snapshot is written.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::Bench;
use crate::engine::{Engine, POLL, Started, end_group};
use crate::report::Report;
use crate::surety::Surety;
use crate::witness;

/// Kills of one directory; then another one, with other settings, has its turn.
const KILLS_PER_DIRECTORY: u64 = 10;
/// Small, so that the log rolls often.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Records between two snapshots: there is always one under way or soon.
const SNAPSHOT_RECORDS: &str = "1500";
/// How long a snapshot is waited for; past it the kill hits the load alone.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(3);

/// Shards, durability and I/O of each directory in turn.
const DIRECTORIES: &[(u16, &str, &str)] =
    &[(1, "fsync", "sync"), (2, "os", "sync"), (1, "fsync", "direct"), (2, "fsync", "sync")];

/// Runs so many kills.
pub(crate) fn run(surety: &Surety, rounds: u64, report: &mut Report) -> Result<()> {
    let mut done = 0;
    for directory in DIRECTORIES.iter().cycle() {
        if done >= rounds || !report.is_ok() {
            break;
        }
        let kills = KILLS_PER_DIRECTORY.min(rounds - done);
        one_directory(surety, *directory, kills, report)?;
        done += kills;
        eprintln!("kill: {done} of {rounds}, {} faults", report.faults());
    }
    Ok(())
}

fn one_directory(
    surety: &Surety,
    (shards, durability, io): (u16, &'static str, &'static str),
    kills: u64,
    report: &mut Report,
) -> Result<()> {
    let mut bench = Bench::new(surety, shards, SEGMENT_BYTES)?;
    bench.serve.durability = durability;
    bench.serve.io = io;
    bench.serve.environment.push(("SURETY__LOG__SNAPSHOT_RECORDS", SNAPSHOT_RECORDS.to_owned()));
    let mut engine = bench.start()?;
    let mut left = kills;
    let mut turn = 0;
    while left > 0 {
        let more = 200 + report.random.below(1_500);
        bench.load()?.wait_for(more, || Ok(false))?;
        let testimony = witness::testify(engine.address()?, bench.data())?;
        let with_snapshot = turn % 3 == 1 && wait_for_snapshot(&bench)?;
        engine.kill()?;
        left -= 1;
        report.add("kills", 1);
        report.add(if with_snapshot { "kills_in_snapshot" } else { "kills_under_load" }, 1);
        if turn % 3 == 2 && left > 0 {
            left -= kill_recoveries(&mut bench, left.min(2), report)?;
        }
        bench.check("after a kill", report)?;
        engine = bench.start()?;
        witness::repeat(&testimony, engine.address()?, bench.data(), report)?;
        turn += 1;
    }
    finish(bench, engine, report)
}

fn finish(mut bench: Bench, engine: Engine, report: &mut Report) -> Result<()> {
    bench.load()?.wait_for(200, || Ok(false))?;
    bench.finish(engine, report)
}

/// Starts the engine and kills it before it serves, one time after the other. How many times.
fn kill_recoveries(bench: &mut Bench, most: u64, report: &mut Report) -> Result<u64> {
    let begun = Instant::now();
    let whole = match bench.serve.start(&bench.surety)? {
        Started::Ready(engine) => {
            let took = begun.elapsed();
            engine.kill()?;
            took
        }
        Started::Ended(status) => {
            report.fault(format!("recovery ended with {status}: {}", bench.serve.last_words()));
            return Ok(most);
        }
    };
    for _ in 0..most {
        let mut child = bench.serve.spawn(&bench.surety)?;
        let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
        std::thread::sleep(Duration::from_micros(report.random.below(micros.max(1))));
        end_group(&mut child);
        report.add("kills", 1);
        report.add("kills_in_recovery", 1);
    }
    Ok(most)
}

/// Waits until a snapshot is being written. False if none comes.
fn wait_for_snapshot(bench: &Bench) -> Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < SNAPSHOT_PATIENCE {
        for shard in std::fs::read_dir(bench.data())? {
            let path = shard?.path();
            if path.is_dir() && has_draft(&path)? {
                return Ok(true);
            }
        }
        std::thread::sleep(POLL / 5);
    }
    Ok(false)
}

fn has_draft(shard: &std::path::Path) -> Result<bool> {
    for entry in std::fs::read_dir(shard)? {
        if entry?.path().to_string_lossy().ends_with(".snapshot.tmp") {
            return Ok(true);
        }
    }
    Ok(false)
}
