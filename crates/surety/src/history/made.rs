//! `surety history rebuild` and `digest`: all of an index at once.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use history::{Position, QueryError, Reader, StoreOptions};
use serde_json::{Value, json};
use storage::DataDirectory;
use surety_protocol::{Seq, ShardId};

use super::{failure, question_failure};
use crate::exit::{self, Failure};
use crate::{depots, directory, dump};

/// How often progress is shown on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn rebuild(
    data: &Path,
    archive: Option<&str>,
    options: &StoreOptions,
    json: bool,
) -> Result<(), Failure> {
    let directory = directory::open(data)?;
    let archive = archive.map(depots::open).transpose()?;
    archive.as_deref().map_or(Ok(()), depots::refuse_backup)?;
    let ends = ends(&directory)?;
    let shows = std::io::stderr().is_terminal();
    let mut told = Instant::now();
    let progress = |shard: ShardId, seq: Seq| {
        if shows && told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            exit::tell_over(format_args!("shard {shard}: seq {seq} "));
        }
    };
    let rebuilt = history::rebuild(&directory, options, &ends, archive.as_deref(), progress);
    if shows {
        exit::clear_line();
    }
    let rebuilt = rebuilt.map_err(|error| failure(&error))?;
    let mut out = std::io::stdout();
    if json {
        let shards: Vec<Value> =
            rebuilt.shards.iter().map(|(shard, seq)| json!({ "shard": shard.0, "seq": seq.0 })).collect();
        let value = json!({ "ok": true, "digest": rebuilt.digest, "bytes": rebuilt.bytes, "shards": shards });
        writeln!(out, "{value}")?;
    } else {
        for (shard, seq) in &rebuilt.shards {
            writeln!(out, "shard {shard}: indexed up to seq {seq}")?;
        }
        writeln!(out, "digest {}, {} bytes", rebuilt.digest, rebuilt.bytes)?;
    }
    Ok(())
}

/// The last sound record of each shard of a closed directory.
pub(super) fn ends(directory: &DataDirectory) -> Result<Vec<(ShardId, Seq)>, Failure> {
    directory.shards().map(|shard| Ok((shard, dump::end(directory, shard)?))).collect()
}

pub(super) fn digest(data: &Path, json: bool) -> Result<(), Failure> {
    let metadata = DataDirectory::inspect(data).map_err(|error| directory::open_failure(&error))?;
    let reader = Reader::open(&history::place(data), metadata.engine).map_err(|error| failure(&error))?;
    let told = |error: QueryError| question_failure(&error.into());
    let (digest, positions) = (reader.digest().map_err(told)?, reader.positions().map_err(told)?);
    let mut out = std::io::stdout();
    if json {
        let shard =
            |(shard, position): &(ShardId, Position)| json!({ "shard": shard.0, "seq": position.next.0 - 1 });
        let shards: Vec<Value> = positions.iter().map(shard).collect();
        writeln!(out, "{}", json!({ "ok": true, "digest": digest, "shards": shards }))?;
    } else {
        writeln!(out, "{digest}")?;
        for (shard, position) in &positions {
            writeln!(out, "shard {shard}: up to seq {}", position.next.0 - 1)?;
        }
    }
    Ok(())
}
