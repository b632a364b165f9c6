//! `surety dump`: the records of a closed directory as text or JSON lines.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args as ClapArgs;
use storage::{DataDirectory, FileStorage, StorageError};
use surety_protocol::{Record, Seq, ShardId};
use wal::{Anchor, FileName, Identity, Recovery, TailError, TailReader};

use crate::directory;
use crate::exit::{self, Exit, Failure};
use crate::record_text;

/// Prints the records of a data directory
///
/// One line each, in order, as text or as JSON. What lies below damage is printed first; then the damage is told and the
/// exit code is 3. For a running engine there is `surety ctl query`.
///
/// Example: surety dump --data DIR --shard 0 --from 1000 --json
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// One shard only
    #[arg(long, value_name = "I")]
    shard: Option<u16>,
    /// The first seq wanted
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let directory = directory::open(&args.data)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for shard in directory::chosen(&directory, args.shard)? {
        let dumped = dump(&directory, shard, args, &mut out);
        out.flush()?;
        dumped?;
    }
    Ok(())
}

fn dump(directory: &DataDirectory, shard: ShardId, args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    records(directory, shard, Seq(args.from), |seq, record, parts| {
        print(args.json, shard, seq, record, parts, out)
    })
}

/// Reads the records of a shard from `from`, or from the oldest that is left, each with its continuations. What lies below damage
/// is read before the damage is told.
pub(crate) fn records(
    directory: &DataDirectory,
    shard: ShardId,
    from: Seq,
    mut take: impl FnMut(Seq, &Record, &[Record]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = directory.shard_path(shard);
    let mut storage =
        FileStorage::open_read_only(&path).map_err(|error| directory::storage_failure(&error))?;
    let (end, damage) = end_of_log(directory, shard, &mut storage)?;
    let oldest = wal::list_segments(&storage)
        .map_err(|error| directory::storage_failure(&error))?
        .first()
        .map_or(Seq(1), |segment| segment.first_seq);
    let from = from.max(oldest);
    let mut reader = TailReader::new(directory.identity(shard), from);
    loop {
        let block = match reader.next_block(&storage, end) {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(TailError::Io(error)) => return Err(directory::storage_failure(&error)),
            // Below the end that was found sound: it has been told already, or is told now.
            Err(error) => {
                return Err(damage.unwrap_or_else(|| Failure::caused(Exit::Corrupt, path.display(), &error)));
            }
        };
        let records: Vec<Record> = block.records().iter().map(Record::from_bytes).collect();
        for (index, record) in records.iter().enumerate() {
            let seq = Seq(block.header.first_seq.0 + index as u64);
            if seq < from {
                continue;
            }
            let parts = &records[index + 1..];
            let parts = &parts[..record.continuations().min(parts.len())];
            take(seq, record, parts)?;
        }
    }
    damage.map_or(Ok(()), Err)
}

/// Prints one record.
pub(crate) fn print(
    json: bool,
    shard: ShardId,
    seq: Seq,
    record: &Record,
    parts: &[Record],
    out: &mut impl Write,
) -> Result<(), Failure> {
    let fields = record_text::describe(shard, seq, record, parts);
    if json {
        serde_json::to_writer(&mut *out, &fields).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", fields.to_line())?;
    }
    Ok(())
}

/// The last seq of a closed shard's log.
pub(crate) fn end(directory: &DataDirectory, shard: ShardId) -> Result<Seq, Failure> {
    let path = directory.shard_path(shard);
    let mut storage =
        FileStorage::open_read_only(&path).map_err(|error| directory::storage_failure(&error))?;
    match end_of_log(directory, shard, &mut storage)? {
        (end, None) => Ok(end),
        (_, Some(damage)) => Err(damage),
    }
}

/// The last sound seq, and what is wrong behind it.
fn end_of_log(
    directory: &DataDirectory,
    shard: ShardId,
    storage: &mut FileStorage,
) -> Result<(Seq, Option<Failure>), Failure> {
    let path = directory.shard_path(shard);
    let identity = directory.identity(shard);
    let anchor = anchor(storage, identity).map_err(|error| directory::storage_failure(&error))?;
    let read = Recovery::begin(storage, identity, anchor).and_then(|recovery| recovery.finish(storage));
    match read {
        Ok(recovered) => Ok((Seq(recovered.next_seq().0 - 1), None)),
        Err(error) => {
            let failure = directory::log_failure(&path, &error);
            match error {
                wal::RecoverError::Rot { seq, .. } => Ok((Seq(seq.0.saturating_sub(1)), Some(failure))),
                wal::RecoverError::Gap { expected, .. } => {
                    Ok((Seq(expected.0.saturating_sub(1)), Some(failure)))
                }
                _ => Err(failure),
            }
        }
    }
}

/// Where reading begins: the beginning of the log, or a sound snapshot if that has been removed.
fn anchor(storage: &mut FileStorage, identity: Identity) -> Result<Anchor, StorageError> {
    let oldest = wal::list_segments(storage)?.first().map(|segment| segment.first_seq);
    if oldest.is_none_or(|seq| seq <= Seq(1)) {
        return Ok(Anchor::GENESIS);
    }
    let snapshots = wal::list_snapshots(storage)?.into_iter();
    let mut sound = snapshots
        .filter_map(|seq| wal::verify_snapshot(storage, FileName::Snapshot { seq }, identity).ok())
        .map(|summary| Anchor { seq: summary.header.seq, chain: summary.header.chain });
    Ok(sound.next().unwrap_or(Anchor::GENESIS))
}
