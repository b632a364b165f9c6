//! `surety verify`: replays every shard of a closed directory and checks every invariant. It changes nothing.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use engine::{Begin, Config, RecoverError, Recovered};
use ledger::Ledger;
use serde_json::{Value, json};
use storage::{DataDirectory, FileStorage, Metadata, StorageError};
use surety_protocol::{Seq, ShardId};

use crate::exit::{self, Exit, Failure};
use crate::{directory, totals};

/// How often progress is shown on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Replays a data directory and checks every invariant; changes nothing
///
/// Reads every block of every shard, replays each record and compares its outcome and every logged state hash, then adds
/// the money up from scratch. A tail torn by a crash is reported and is no error. Works while nobody serves the directory.
///
/// Example: surety verify --data DIR --json
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let value = check(&args.data, args.json)?;
    if args.json {
        writeln!(std::io::stdout(), "{value}")?;
    }
    Ok(())
}

fn check(data: &Path, json: bool) -> Result<Value, Failure> {
    let directory = directory::open(data)?;
    let mut shards = Vec::new();
    // Whoever reads no further still wants every shard checked.
    let mut told = Ok(());
    for shard in directory.shards() {
        let recovered = replay(&directory, shard, Begin::Oldest, std::io::stderr().is_terminal())?;
        recovered.ledger().verify().map_err(|violation| {
            let place = directory.shard_path(shard);
            Failure::new(Exit::Corrupt, format!("{}: {violation}: do not serve from it", place.display()))
        })?;
        if !json {
            told = told.and_then(|()| tell(shard, &recovered));
        }
        shards.push(shard_json(shard, &recovered));
    }
    told?;
    let engine = directory.metadata().engine.to_string();
    let is_forensic = directory.metadata().is_forensic;
    if !json {
        let what = if is_forensic { "sound, a forensic copy" } else { "sound" };
        writeln!(std::io::stdout(), "{what}: engine {engine}, {} shard(s)", shards.len())?;
    }
    Ok(json!({ "ok": true, "engine": engine, "forensic": is_forensic, "shards": shards }))
}

/// Reads a shard to the end of its log, without changing anything.
pub(crate) fn replay(
    directory: &DataDirectory,
    shard: ShardId,
    begin: Begin,
    shows_progress: bool,
) -> Result<Recovered, Failure> {
    replay_at(&directory.shard_path(shard), directory.metadata(), shard, begin, shows_progress)
}

/// The same of a shard's files wherever they are.
pub(crate) fn replay_at(
    path: &Path,
    metadata: Metadata,
    shard: ShardId,
    begin: Begin,
    shows_progress: bool,
) -> Result<Recovered, Failure> {
    let mut storage =
        FileStorage::open_read_only(path).map_err(|error| directory::storage_failure(&error))?;
    let mut progress = Progress::new(shard, shows_progress);
    let config = Config { id_window: metadata.id_window, ..Config::new(metadata.engine, shard) };
    let recovered = engine::recover(config, &mut storage, begin, |seq| progress.at(seq));
    progress.clear();
    recovered.map_err(|error| recover_failure(path, &error))
}

/// Why a shard cannot be brought back, with its exit code. `path` is the shard's directory.
pub(crate) fn recover_failure(path: &Path, error: &RecoverError<StorageError>) -> Failure {
    match error {
        RecoverError::Log(error) => directory::log_failure(path, error),
        RecoverError::Io(error) => directory::storage_failure(error),
        RecoverError::Diverged { .. } | RecoverError::NoLoss | RecoverError::NoSnapshot { .. } => {
            Failure::caused(Exit::Corrupt, path.display(), error)
        }
    }
}

fn tell(shard: ShardId, recovered: &Recovered) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let report = recovered.report();
    let ledger = recovered.ledger();
    writeln!(
        out,
        "shard {shard}: seq {}, epoch {}, state hash {:032x}, {} locks, {} records replayed",
        report.last_seq,
        report.epoch,
        ledger.state_hash(),
        ledger.locks_len(),
        report.replayed
    )?;
    for seq in &report.unsound_snapshots {
        writeln!(out, "  snapshot {seq} is unsound; an older one was taken")?;
    }
    if let Some(torn) = &report.torn {
        let last = torn.last_seq.map_or_else(|| "?".to_owned(), |seq| seq.to_string());
        writeln!(
            out,
            "  torn tail: {} at offset {}, seq {} to {last} were never acknowledged; the next start drops them",
            torn.file, torn.offset, torn.first_seq
        )?;
    }
    for partition in ledger.partitions() {
        writeln!(out, "  {}", totals::to_line(&partition))?;
    }
    Ok(())
}

fn shard_json(shard: ShardId, recovered: &Recovered) -> Value {
    let report = recovered.report();
    let ledger: &Ledger = recovered.ledger();
    let torn = report.torn.as_ref().map(|torn| {
        json!({
            "file": torn.file.to_string(),
            "offset": torn.offset,
            "first_seq": torn.first_seq.0,
            "last_seq": torn.last_seq.map(|seq| seq.0),
            "bytes": torn.bytes,
        })
    });
    json!({
        "shard": shard.0,
        "seq": report.last_seq.0,
        "epoch": report.epoch.0,
        "state_hash": format!("{:032x}", ledger.state_hash()),
        "locks": ledger.locks_len(),
        "replayed": report.replayed,
        "snapshot": report.snapshot.map(|seq| seq.0),
        "torn": torn,
        "partitions": ledger.partitions().iter().map(totals::to_json).collect::<Vec<_>>(),
    })
}

/// A line on a terminal that says how far a long replay has come.
struct Progress {
    shard: ShardId,
    is_shown: bool,
    begun: Instant,
    told: Instant,
    first: Option<Seq>,
    was_told: bool,
}

impl Progress {
    fn new(shard: ShardId, is_shown: bool) -> Self {
        let now = Instant::now();
        Self { shard, is_shown, begun: now, told: now, first: None, was_told: false }
    }

    fn at(&mut self, seq: Seq) {
        let first = *self.first.get_or_insert(seq);
        if !self.is_shown || self.told.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.told = Instant::now();
        self.was_told = true;
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = (seq.0 - first.0) * 1000 / millis;
        exit::tell_over(format_args!("shard {}: seq {seq}, {rate} records/s ", self.shard));
    }

    fn clear(&self) {
        if self.was_told {
            exit::clear_line();
        }
    }
}
