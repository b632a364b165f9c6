//! A ledger as the engine's was after a record: out of the engine's own snapshots and log.

use engine::Config;
use ledger::Ledger;
use surety_protocol::{Record, Seq, ShardId};
use wal::{SnapshotError, Storage, TailError, TailReader};

use crate::error::HistoryError;

/// How often the snapshots are listed again because one went away meanwhile.
const LISTINGS_MAX: usize = 8;

/// The ledger after record `seq` of a log that ends with `end`. Nothing is changed on the disk.
pub(crate) fn after<S: Storage<Error = storage::StorageError>>(
    config: &Config,
    storage: &mut S,
    seq: Seq,
    end: Seq,
) -> Result<Ledger, HistoryError> {
    let shard = config.shard;
    if seq > end {
        return Err(HistoryError::Ahead { shard, indexed: seq, end });
    }
    let (mut ledger, begin) = newest(config, storage, seq)?;
    let mut tail = TailReader::new(config.identity(), begin.next());
    let mut next = begin.next();
    let mut records = Vec::new();
    while next <= seq {
        let read = tail.next_block(storage, end).map_err(|error| log_error(shard, next, error))?;
        let Some(block) = read else { return Err(HistoryError::Ahead { shard, indexed: seq, end }) };
        let wanted = block.records_from(next).take_while(|record| record.seq <= seq);
        records.clear();
        records.extend(wanted.map(|record| Record::from_bytes(record.bytes)));
        replay(&mut ledger, shard, next, &records)?;
        next.0 += records.len() as u64;
    }
    Ok(ledger)
}

/// The newest snapshot that holds and is not newer than a record; the empty ledger if there is none.
fn newest<S: Storage<Error = storage::StorageError>>(
    config: &Config,
    storage: &mut S,
    seq: Seq,
) -> Result<(Ledger, Seq), HistoryError> {
    for _ in 0..LISTINGS_MAX {
        match newest_of(config, storage, wal::list_snapshots(storage)?, seq) {
            // The engine has taken it away since: there are newer ones, and they are listed again.
            Err(Unusable::Gone) => {}
            Err(Unusable::Error(error)) => return Err(error),
            Ok(Some(found)) => return Ok(found),
            Ok(None) => return Ok((Ledger::new(config.ledger()), Seq(0))),
        }
    }
    let doing = format!("reading a snapshot of shard {} that stays", config.shard);
    Err(HistoryError::Io { doing, source: std::io::ErrorKind::NotFound.into() })
}

/// Why a listed snapshot does not give a ledger.
enum Unusable {
    /// It is not there any more.
    Gone,
    Error(HistoryError),
}

fn newest_of<S: Storage<Error = storage::StorageError>>(
    config: &Config,
    storage: &mut S,
    listed: Vec<Seq>,
    seq: Seq,
) -> Result<Option<(Ledger, Seq)>, Unusable> {
    for snapshot in listed.into_iter().filter(|snapshot| *snapshot <= seq) {
        match engine::load_snapshot(config, storage, snapshot) {
            Ok((ledger, anchor, _)) => return Ok(Some((ledger, anchor.seq))),
            Err(SnapshotError::Io(error)) => {
                let listed = wal::list_snapshots(storage).map_err(|error| Unusable::Error(error.into()))?;
                let is_there = listed.contains(&snapshot);
                return Err(if is_there { Unusable::Error(error.into()) } else { Unusable::Gone });
            }
            // An older one may hold.
            Err(_) => {}
        }
    }
    Ok(None)
}

fn replay(ledger: &mut Ledger, shard: ShardId, first: Seq, records: &[Record]) -> Result<(), HistoryError> {
    let (mut rest, mut seq) = (records, first);
    while !rest.is_empty() {
        let len = ledger::operation_len(rest).unwrap_or(rest.len());
        let (operation, tail) = rest.split_at(len);
        ledger.replay(seq, operation).map_err(|source| HistoryError::Diverged { shard, source })?;
        seq.0 += len as u64;
        rest = tail;
    }
    Ok(())
}

/// Why the log cannot be read on.
pub(crate) fn log_error(
    shard: ShardId,
    wanted: Seq,
    error: TailError<storage::StorageError>,
) -> HistoryError {
    match error {
        TailError::Io(error) => error.into(),
        TailError::Removed { oldest, .. } => HistoryError::Gone { shard, wanted, oldest },
        rot @ TailError::Rot { .. } => HistoryError::Log { shard, message: rot.to_string() },
    }
}
