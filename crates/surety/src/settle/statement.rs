//! `surety settle statement`: what became of a supplier's stake, made again by whoever asks.

mod batches;
mod stream;
mod text;

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::{Value, json};
use surety_protocol::{Address, PartitionHandle};

use crate::ctl::Target;
use crate::exit::{self, Exit, Failure};
use crate::{remote, values};

/// Tells what became of a supplier's stake: supplies, rewards, losses, unbonding and withdrawals, with running units and value
///
/// It is made of the engine's records, all from the first on: of a running engine (--data or --connect), or of a closed data
/// directory or a copy of one (--log). With --batches what the batches say of the supplier is held against the records.
/// With --batches alone the statement is made of the published batches: what they had, batch by batch. Nothing in a file is
/// believed: its trees are made again, and its head is printed to be compared with the contract's.
///
/// Example: surety settle statement --supplier 0x00000000000000000000000000000000000000aa --log DIR --batches proofs
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    /// Whose
    #[arg(long, value_name = "ADDRESS", value_parser = values::somebody)]
    supplier: Address,
    /// One partition only: shard:number, or its on-chain id
    #[arg(long, value_name = "PARTITION", value_parser = only)]
    partition: Option<Only>,
    #[command(flatten)]
    target: Target,
    /// A data directory that nobody serves from, or a copy of one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data", "connect"])]
    log: Option<PathBuf>,
    /// The files of `surety settle proofs`: `batch-N.json` of each batch
    #[arg(long, value_name = "DIR")]
    batches: Option<PathBuf>,
    /// One JSON object a line, and one at the end
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    Handle(PartitionHandle),
    Onchain([u8; 32]),
}

fn only(text: &str) -> Result<Only, String> {
    if text.starts_with("0x") {
        return values::onchain(text).map(Only::Onchain);
    }
    values::partition(text).map(Only::Handle)
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let is_of_engine = args.target.data.is_some() || args.target.connect.is_some();
    if !is_of_engine && args.log.is_none() && args.batches.is_none() {
        return Err(Failure::new(Exit::Usage, "of what? give --data, --connect, --log or --batches"));
    }
    let batches = args.batches.as_deref().map(batches::read).transpose()?.unwrap_or_default();
    if let Some(log) = &args.log {
        return stream::of_files(args, log, &batches);
    }
    if is_of_engine {
        return remote::run(stream::of_engine(args, &batches));
    }
    if let Some(Only::Handle(_)) = args.partition {
        let message = "batches know a partition by its on-chain id alone: give that to --partition";
        return Err(Failure::new(Exit::Usage, message));
    }
    batches::tell(args, &batches)
}

/// The last line, which says that everything was checked.
fn end(args: &Args, mut value: Value, line: &str) -> Result<(), Failure> {
    value["ok"] = json!(true);
    say(args.json, &value, line)
}

/// A line, for a program or for people.
fn say(json: bool, value: &Value, line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    Ok(if json { writeln!(out, "{value}") } else { writeln!(out, "{line}") }?)
}
