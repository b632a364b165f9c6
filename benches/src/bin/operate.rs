//! What operating an engine costs: numbers and traces, memory, and how soon a revoked key is cut off.
//!
//! `cargo run --release -p benches --bin operate -- --json`

#![allow(clippy::cast_precision_loss, reason = "figures")]

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use benches::doors::surety;
use benches::figures::{Report, median};
use benches::operating::{Engine, Scraper, Sink};
use clap::Parser;
use serde_json::json;

/// Measures what it costs to watch an engine.
///
/// Two engines, processes of their own: of one nobody asks anything, the other is scraped each second and sends spans of one request in a
/// thousand to a collector. They are loaded in turns, with the same locks; what counts is the time that the kernel has given to the shard's
/// thread. Run it on an otherwise idle machine; it says so when it was not.
#[derive(Parser)]
struct Options {
    /// Print one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Once, and little: to see that everything runs. The figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Runs of each of the two engines.
    #[arg(long, default_value_t = 20)]
    repeat: usize,
    /// Where the files go; must be on a real disk.
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
}

/// What the figures should be.
const TARGETS: [(&str, &str); 3] =
    [("watched_ratio", "<= 1.03"), ("idle_mib", "<= 128"), ("revocation_s", "<= 1")];
/// The share of requests that is traced.
const SAMPLE: &str = "0.001";
const MIB: f64 = 1_048_576.0;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let (repeat, locks) = if options.quick { (1, 20_480) } else { (options.repeat.max(1), 256_000) };
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("cannot create {}", options.directory.display()))?;
    let surety = surety()?;
    eprintln!("{}, {repeat} repetitions", loadtest::machine::describe());
    let mut report = Report::default();
    let busy_before = loadtest::machine::busy_by_others();
    let directory = tempfile::tempdir_in(&options.directory)?;
    let sink = Sink::start()?;
    memory(&mut report, &surety, directory.path(), &sink)?;
    watched(&mut report, &surety, directory.path(), &sink, (repeat, locks))?;
    let busy = busy_before.max(loadtest::machine::busy_by_others());
    report.put("repetitions", json!(repeat));
    report.close(busy, &TARGETS);
    if options.json {
        println!("{}", report.into_json());
    }
    Ok(())
}

/// Flags of an engine that is watched.
fn flags(sink: &Sink) -> [&str; 6] {
    ["--admin", "127.0.0.1:0", "--otlp", &sink.url, "--trace-sample", SAMPLE]
}

/// Memory of processes that have little to do, with all that tells of them on; then how soon a revoked key is cut off.
fn memory(report: &mut Report, surety: &Path, directory: &Path, sink: &Sink) -> anyhow::Result<()> {
    let home = directory.join("idle");
    std::fs::create_dir(&home)?;
    let engine = Engine::start(surety, &home.join("data"), &flags(sink))?;
    let front = engine.front(surety, &sink.url)?;
    drop(Scraper::start(engine.admin()?));
    report.put_figure("idle_mib", engine.resident_bytes() as f64 / MIB);
    report.put_figure("idle_front_mib", front.resident_bytes() as f64 / MIB);
    report.put_figure("revocation_s", engine.revocation_s()?);
    Ok(())
}

/// The shard's time for each lock, watched and not. In turns: what disturbs the machine disturbs both.
fn watched(
    report: &mut Report,
    surety: &Path,
    directory: &Path,
    sink: &Sink,
    (repeat, locks): (usize, usize),
) -> anyhow::Result<()> {
    let plain = Engine::start(surety, &directory.join("plain"), &[])?;
    let watched = Engine::start(surety, &directory.join("watched"), &flags(sink))?;
    let _scraper = Scraper::start(watched.admin()?);
    let mut ratios = Vec::new();
    for run in 0..repeat {
        // Who is first has the colder machine: that is each of them in turn.
        let (bare, told) = if run % 2 == 0 {
            let bare = plain.shard_ns_per_lock(locks)?;
            (bare, watched.shard_ns_per_lock(locks)?)
        } else {
            let told = watched.shard_ns_per_lock(locks)?;
            (plain.shard_ns_per_lock(locks)?, told)
        };
        report.add("shard_ns_per_lock", bare);
        report.add("shard_watched_ns_per_lock", told);
        ratios.push(told / bare);
    }
    let _ = report.put_medians();
    report.put_figure("watched_ratio", median(ratios));
    ensure!(sink.requests() > 0, "no spans have come: nothing was measured");
    Ok(())
}
