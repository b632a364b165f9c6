//! Snapshots, made beside the running shard: the previous snapshot merged with the log behind it.
//!
//! No second ledger is needed. Of the previous snapshot only the small tables and those locks and ids that the log touches
//! are loaded; the log is replayed on them; everything else is copied, as long as time has not forgotten it. The state hash
//! is a sum over entries, so it can be taken of the merged stream, and it must be the one that the running shard logged.

use alloc::collections::BTreeSet;

use ledger::{Entry, EntryKey, Ledger};
use surety_protocol::{ControlBody, Epoch, Kind, Record, Seq, Time, sabotage};
use wal::{
    Anchor, ChainHash, FileName, SnapshotError, SnapshotHeader, SnapshotReader, SnapshotSummary,
    SnapshotWriter, Storage, TailError, TailReader,
};

use crate::Config;
use crate::recover;

/// Locks and ids that one merge loads: this bounds its memory to some 200 MiB.
const TOUCHED_MAX: usize = 400_000;

/// Why no snapshot was made. The log is untouched.
#[derive(Debug, thiserror::Error)]
pub enum BuildError<E> {
    /// The container.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError<E>),
    /// The log.
    #[error(transparent)]
    Log(#[from] TailError<E>),
    /// An entry of the previous snapshot.
    #[error("the snapshot of seq {seq} holds a bad entry: {error}; remove it and start again")]
    Entry {
        /// Which snapshot.
        seq: Seq,
        /// What is wrong.
        error: ledger::EntryError,
    },
    /// Replay found another outcome than the running shard: stop and find out why.
    #[error("replaying the log beside the running shard differs at seq {seq}: {divergence}")]
    Diverged {
        /// Which record.
        seq: Seq,
        /// What differs.
        divergence: ledger::Divergence,
    },
    /// The merged state is not the one that was logged: stop and find out why.
    #[error("the state at seq {seq} has hash {found:032x}, the running shard logged {logged:032x}")]
    Hash {
        /// Where.
        seq: Seq,
        /// As logged.
        logged: u128,
        /// As merged.
        found: u128,
    },
}

/// A state hash in the log.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    seq: Seq,
    time: Time,
    epoch: Epoch,
    version: u16,
    hash: u128,
    chain: ChainHash,
    ends_its_block: bool,
}

/// What lies behind the previous snapshot.
struct Survey {
    /// The state hash to go up to.
    end: Option<Checkpoint>,
    /// The locks and ids that the log touches until there, and maybe some more.
    touched: BTreeSet<EntryKey>,
}

/// Makes the next snapshot, up to a state hash that is logged and synced.
///
/// `None` if there is none behind the previous snapshot. Where the log is long, one call goes only as far as its memory
/// allows; call it again until it returns `None`.
///
/// # Errors
/// A [`BuildError`]. [`BuildError::Diverged`] and [`BuildError::Hash`] mean that the shard must not go on.
pub fn build<S: Storage>(
    config: &Config,
    storage: &mut S,
    synced: Seq,
) -> Result<Option<SnapshotSummary>, BuildError<S::Error>> {
    let previous = newest_sound(config, storage)?;
    let Survey { end: Some(end), touched } = survey(config, storage, previous, synced)? else {
        return Ok(None);
    };
    let mut part = load_part(config, storage, previous, &touched)?;
    replay_to(config, storage, &mut part, previous, end.seq)?;
    merge(config, storage, &part, previous, &touched, &end).map(Some)
}

/// Loads a snapshot whole.
///
/// # Errors
/// [`SnapshotError`]; a snapshot whose entries do not add up to its state hash counts as damaged.
pub fn load<S: Storage>(
    config: &Config,
    storage: &mut S,
    seq: Seq,
) -> Result<(Ledger, Anchor, Time), SnapshotError<S::Error>> {
    let file = FileName::Snapshot { seq };
    let mut reader = SnapshotReader::open(storage, file, config.identity())?;
    let header = *reader.header();
    let mut failure = None;
    let entries = core::iter::from_fn(|| match reader.next_entry(storage) {
        Ok(entry) => entry.and_then(|entry| Entry::from_bytes(entry.bytes.to_vec()).ok()),
        Err(error) => {
            failure = Some(error);
            None
        }
    });
    let ledger = Ledger::from_entries(config.ledger(), header.time, entries);
    if let Some(error) = failure {
        return Err(error);
    }
    let part = wal::SnapshotPart::Hash;
    let damaged = || SnapshotError::Damaged { file, offset: 0, part };
    let ledger = ledger.map_err(|_| damaged())?;
    if reader.summary().is_none() || ledger.state_hash() != header.state_hash {
        return Err(damaged());
    }
    Ok((ledger, Anchor { seq, chain: header.chain }, header.time))
}

/// Seq of the newest snapshot that holds; 0 if there is none.
fn newest_sound<S: Storage>(config: &Config, storage: &mut S) -> Result<Seq, BuildError<S::Error>> {
    for seq in wal::list_snapshots(storage).map_err(SnapshotError::Io)? {
        match wal::verify_snapshot(storage, FileName::Snapshot { seq }, config.identity()) {
            Ok(_) => return Ok(seq),
            Err(SnapshotError::Io(error)) => return Err(SnapshotError::Io(error).into()),
            Err(_) => {}
        }
    }
    Ok(Seq(0))
}

/// Finds the state hash to go up to, and what the log touches until there.
fn survey<S: Storage>(
    config: &Config,
    storage: &S,
    previous: Seq,
    synced: Seq,
) -> Result<Survey, BuildError<S::Error>> {
    let mut tail = TailReader::new(config.identity(), previous.next());
    let mut touched = BTreeSet::new();
    let mut end: Option<Checkpoint> = None;
    let mut records = alloc::vec::Vec::new();
    while let Some(block) = tail.next_block(storage, synced)? {
        records.clear();
        records.extend(block.records_from(previous.next()).map(|record| Record::from_bytes(record.bytes)));
        let last = block.header.last_seq();
        let first = last.0 + 1 - records.len() as u64;
        for (seq, record) in (first..).map(Seq).zip(&records) {
            if record.kind() != Some(Kind::Checkpoint) {
                continue;
            }
            let found = Checkpoint {
                seq,
                time: record.time,
                epoch: block.header.epoch,
                version: block.header.version,
                hash: record.body::<ControlBody>().reference,
                chain: block.chain_after,
                ends_its_block: seq == last,
            };
            // One that ends its block is tied to the log by the chain hash; any other only where there is none such.
            if found.ends_its_block || end.is_none_or(|end| !end.ends_its_block) {
                end = Some(found);
            }
        }
        touched.extend(Entry::touched(&records));
        if touched.len() > TOUCHED_MAX && end.is_some() {
            break;
        }
    }
    Ok(Survey { end, touched })
}

fn load_part<S: Storage>(
    config: &Config,
    storage: &mut S,
    previous: Seq,
    touched: &BTreeSet<EntryKey>,
) -> Result<Ledger, BuildError<S::Error>> {
    if previous == Seq(0) {
        return Ok(Ledger::new(config.ledger()));
    }
    let mut reader = SnapshotReader::open(storage, FileName::Snapshot { seq: previous }, config.identity())?;
    let time = reader.header().time;
    let mut failure = None;
    let entries = core::iter::from_fn(|| {
        loop {
            match next_entry(&mut reader, storage, previous) {
                Ok(Some(entry)) if entry.key().is_some_and(|key| !touched.contains(&key)) => {}
                Ok(entry) => return entry,
                Err(error) => {
                    failure = Some(error);
                    return None;
                }
            }
        }
    });
    let ledger = Ledger::from_entries(config.ledger(), time, entries);
    match failure {
        Some(error) => Err(error),
        None => ledger.map_err(|error| BuildError::Entry { seq: previous, error }),
    }
}

fn next_entry<S: Storage>(
    reader: &mut SnapshotReader,
    storage: &S,
    seq: Seq,
) -> Result<Option<Entry>, BuildError<S::Error>> {
    let Some(entry) = reader.next_entry(storage)? else { return Ok(None) };
    let entry = Entry::from_bytes(entry.bytes.to_vec());
    entry.map(Some).map_err(|error| BuildError::Entry { seq, error })
}

fn replay_to<S: Storage>(
    config: &Config,
    storage: &S,
    part: &mut Ledger,
    previous: Seq,
    end: Seq,
) -> Result<(), BuildError<S::Error>> {
    let mut tail = TailReader::new(config.identity(), previous.next());
    let mut records = alloc::vec::Vec::new();
    let mut next = previous.next();
    while next <= end {
        let Some(block) = tail.next_block(storage, Seq(u64::MAX))? else { break };
        let wanted = block.records_from(next).take_while(|record| record.seq <= end);
        records.clear();
        records.extend(wanted.map(|record| Record::from_bytes(record.bytes)));
        // The state hash that ends the range speaks of the whole ledger: it is compared after the merge.
        let is_own = |record: &Record| record.kind() == Some(Kind::Checkpoint);
        for (seq, operation) in recover::operations(next, &records) {
            if !is_own(&operation[0]) {
                part.replay(seq, operation).map_err(|divergence| BuildError::Diverged { seq, divergence })?;
            }
        }
        next.0 += records.len() as u64;
    }
    Ok(())
}

fn merge<S: Storage>(
    config: &Config,
    storage: &mut S,
    part: &Ledger,
    previous: Seq,
    touched: &BTreeSet<EntryKey>,
    end: &Checkpoint,
) -> Result<SnapshotSummary, BuildError<S::Error>> {
    let header = SnapshotHeader {
        version: end.version,
        identity: config.identity(),
        epoch: end.epoch,
        seq: if sabotage!("snapshot-of-the-wrong-seq") { end.seq.next() } else { end.seq },
        time: end.time,
        chain: end.chain,
        state_hash: end.hash,
    };
    let mut kept = match previous {
        Seq(0) => None,
        seq => Some(SnapshotReader::open(storage, FileName::Snapshot { seq }, config.identity())?),
    };
    let mut next_kept = |storage: &S| -> Result<Option<Entry>, BuildError<S::Error>> {
        let Some(reader) = &mut kept else { return Ok(None) };
        while let Some(entry) = next_entry(reader, storage, previous)? {
            let is_copied = entry.key().is_some_and(|key| !touched.contains(&key));
            if is_copied && !entry.is_forgotten(&config.ledger(), end.time) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    };
    let mut writer = SnapshotWriter::begin(storage, header)?;
    let mut found = 0_u128;
    let ledger_config = config.ledger();
    let mut fresh = part.entries().filter(|entry| !entry.is_forgotten(&ledger_config, end.time));
    let (mut left, mut right) = (next_kept(storage)?, fresh.next());
    loop {
        let is_left = match (&left, &right) {
            (Some(left), Some(right)) => left < right,
            (left, _) => left.is_some(),
        };
        let Some(entry) = (if is_left { left.take() } else { right.take() }) else { break };
        found = found.wrapping_add(entry.hash());
        writer.push(storage, entry.kind() as u8, entry.as_bytes())?;
        if is_left {
            left = next_kept(storage)?;
        } else {
            right = fresh.next();
        }
    }
    if found != end.hash && !sabotage!("snapshot-hash-not-compared") {
        writer.abandon(storage)?;
        return Err(BuildError::Hash { seq: end.seq, logged: end.hash, found });
    }
    Ok(writer.finish(storage)?)
}
