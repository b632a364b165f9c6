//! `simulator`: the command line of the seeded worlds. Each command's options stand with the command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use simulator::{crash, run, sabotage};

/// Many small buffers from several threads: the system's allocator is slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the real engine in worlds that are made to break it. Same seed, same history.
#[derive(Debug, Parser)]
#[command(name = "simulator", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One command each.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Crash(crash::Args),
    Rot(crash::rot::Args),
    Errors(crash::errors::Args),
    Sabotage(sabotage::Args),
}

fn main() -> ExitCode {
    let is_ok = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Crash(args) => crash::run(&args),
        Command::Rot(args) => crash::rot::run(&args),
        Command::Errors(args) => crash::errors::run(&args),
        Command::Sabotage(args) => sabotage::run(&args),
    };
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
