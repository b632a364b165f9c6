//! What may happen to a process as a whole: stopped for a long time, started twice, put back from an old copy, under another
//! clock, killed for its memory.

mod clock;
mod copy;
mod oom;
mod pause;
mod wall;

use anyhow::Result;
use clap::Args;

use crate::bench::Bench;
use crate::report::Report;
use crate::surety::Surety;

/// How long it may take.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Seconds that the process is stopped
    #[arg(long, value_name = "S", default_value_t = 3)]
    stop_seconds: u64,
}

/// Runs all of them.
pub(crate) fn run(surety: &Surety, settings: &Settings, report: &mut Report) -> Result<()> {
    twice(surety, report)?;
    eprintln!("process: two on one directory done, {} faults", report.faults());
    pause::run(surety, settings.stop_seconds, report)?;
    eprintln!("process: stopped and continued done, {} faults", report.faults());
    copy::run(surety, report)?;
    eprintln!("process: restored copy done, {} faults", report.faults());
    clock::run(surety, report)?;
    eprintln!("process: shifted boot clock done, {} faults", report.faults());
    wall::run(surety, report)?;
    eprintln!("process: shifted wall clock done, {} faults", report.faults());
    oom::run(surety, report)?;
    eprintln!("process: out of memory done, {} faults", report.faults());
    Ok(())
}

/// A second process on the same directory ends at once and disturbs nobody.
fn twice(surety: &Surety, report: &mut Report) -> Result<()> {
    let mut bench = Bench::new(surety, 1, 1 << 20)?;
    let engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    let data = bench.data().to_string_lossy().into_owned();
    for command in ["serve", "verify", "dump"] {
        let mut args = vec![command, "--data", &data];
        if command == "serve" {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        let ended = surety.run(&args)?;
        report.expect(ended.exit == 5, || {
            format!("a second {command} ends with {}: {}", ended.exit, ended.stderr)
        });
        report.add("second_processes_refused", 1);
    }
    bench.load()?.wait_for(200, || Ok(false))?;
    bench.finish(engine, report)
}
