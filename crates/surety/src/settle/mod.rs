//! `surety settle`: what stands between the engine and the chains.

mod nodes;
mod prices;
mod watch;

use clap::{Args as ClapArgs, Subcommand};

use crate::exit::{self, Failure};

/// Watches payers' payments and feeds prices
///
/// Example: surety settle watch run --data DIR --config watch.toml --state STATE
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Payers' payments: what the release rule `confirmations` waits for
    ///
    /// Example: surety settle watch run --data DIR --config watch.toml --state STATE
    #[command(subcommand, after_help = exit::HELP)]
    Watch(watch::Command),
    Prices(prices::Args),
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Watch(command) => watch::run(command),
        Command::Prices(args) => prices::run(args),
    }
}
