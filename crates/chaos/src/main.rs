//! `chaos`: drives real `surety` processes through what may happen to them, and checks that nothing acknowledged is lost.
//!
//! Each command prints its progress on standard error, ends with one JSON line under `--json`, and exits with 1 if
//! anything did not hold. What cannot be done on this machine is skipped, loudly, and told in the report.
#![forbid(unsafe_code)]

mod bench;
mod disk;
mod engine;
mod flood;
mod history;
mod kill;
mod load;
mod log_end;
mod mounts;
mod power;
mod process;
mod random;
mod report;
mod strace;
mod surety;
mod syscalls;
mod witness;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::report::Report;
use crate::surety::Surety;

/// Drives real processes through faults and checks what they have acknowledged
#[derive(Debug, Parser)]
#[command(name = "chaos", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// End with one JSON object on its own line
    #[arg(long, global = true)]
    json: bool,
    /// What the moments of faults are drawn from; printed, to repeat a run as far as processes can be repeated
    #[arg(long, global = true, value_name = "S")]
    seed: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// kill -9 under full load, during recovery and during snapshots
    Kill(Rounds<40>),
    /// Errors and kills injected into exact system calls with strace
    Syscalls(Rounds<20>),
    /// Power cuts: ext4 on a loop device is shut down under load (needs root)
    Power(Rounds<3>),
    /// Disk full, and an error of a real write-back (need root)
    Disk,
    /// Garbage, half-open handshakes, slow readers, streams with gaps, endless frames
    Flood(flood::Settings),
    /// Many concurrent clients through kills and a bad network: is what they were told strictly serializable?
    History(history::Settings),
    /// A stopped process, two on one directory, a restored copy, a shifted clock, the OOM killer
    Process(process::Settings),
}

/// How often.
#[derive(Debug, Args)]
struct Rounds<const DEFAULT: u64> {
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = DEFAULT)]
    rounds: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(random::seed_of_now);
    eprintln!("chaos: seed {seed}");
    match run(&cli, seed) {
        Ok(report) => report.tell(cli.json),
        Err(error) => {
            eprintln!("error: {error:#}");
            Report::broken(seed, &error).tell(cli.json)
        }
    }
}

fn run(cli: &Cli, seed: u64) -> Result<Report> {
    let surety = Surety::find()?;
    let mut report = Report::new(seed);
    match &cli.command {
        Command::Kill(rounds) => kill::run(&surety, rounds.rounds, &mut report)?,
        Command::Syscalls(rounds) => syscalls::run(&surety, rounds.rounds, &mut report)?,
        Command::Power(rounds) => power::run(&surety, rounds.rounds, &mut report)?,
        Command::Disk => disk::run(&surety, &mut report)?,
        Command::Flood(settings) => flood::run(&surety, settings, &mut report)?,
        Command::History(settings) => history::run(&surety, settings, &mut report)?,
        Command::Process(settings) => process::run(&surety, settings, &mut report)?,
    }
    Ok(report)
}
