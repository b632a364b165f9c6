//! The commands of the binary `surety`. It reads the command line, runs one command and turns its outcome into an exit code.
//!
//! A library of its own so that what reads files of people ([`texts`]) can be shown arbitrary bytes by tests. Nobody else
//! builds on it.
#![forbid(unsafe_code)]
// They panic where nobody reads any more: see `exit::say` and `exit::tell`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod backup;
mod cert;
mod cert_verify;
mod cli;
mod config;
mod console;
mod ctl;
mod demo;
mod depots;
mod directory;
mod doctor;
mod dump;
mod exit;
mod front;
mod history;
mod init;
mod links;
mod load;
mod logs;
mod priority;
mod remote;
mod renewable;
mod restore;
mod serve;
mod settle;
pub mod texts;
mod top;
mod totals;
mod traced;
mod values;
mod verify;
mod watched;

use std::process::ExitCode;

use ::texts::{policy_text, record_text};

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::exit::Failure;

/// All of the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::start(&cli.command);
    let json = cli.command.wants_json();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Ctl(args) => ctl::run(&args),
        Command::Cert(args) => cert::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Gateway(args) => front::run(&args),
        Command::Settle(args) => settle::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Top(args) => top::run(&args),
        Command::History(args) => history::run(&args),
        Command::Man { directory } => cli::man(&directory),
        Command::Completions { shell } => {
            cli::completions(shell);
            Ok(())
        }
    }
}
