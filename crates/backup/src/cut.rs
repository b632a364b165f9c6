//! A copy of a log that ends at a moment: for looking at how things stood, never for serving.

use std::fs::File;
use std::path::Path;

use storage::{FileStorage, IoMode, StorageError};
use surety_protocol::{Kind, Record, Seq, Time};
use wal::{Block, FileName, Identity, Storage, TailError, TailReader, format};

use crate::ShardPart;

/// The last that a cut copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The record with this seq.
    Seq(Seq),
    /// Whatever was decided by then.
    Time(Time),
}

/// What a cut has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The last record; before the one that was asked for where that stands within an operation of several records, or between a start
    /// and what it says was lost.
    pub last_seq: Seq,
}

/// Why a copy was not cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log.
    #[error(transparent)]
    Tail(#[from] TailError<StorageError>),
    /// The moment lies before what the copy can show.
    #[error(
        "the moment lies before seq {0}, the first state that this backup holds; take an older one, or one with --whole"
    )]
    TooEarly(Seq),
    /// The moment lies behind the end.
    #[error("the copy ends at seq {0}, before the moment that was asked for; take a newer one")]
    TooLate(Seq),
    /// What was decided by the moment need not all be in the copy.
    #[error(
        "the copy ends at seq {end}, and what was decided later than {} ns after the Unix epoch may be missing from it; ask for seq {end} if its end is wanted, or take a newer one", .complete_until.0
    )]
    Incomplete {
        /// The last record.
        end: Seq,
        /// Whatever was decided by then is in the copy.
        complete_until: Time,
    },
}

/// How far a copy of a log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The oldest state that it can show.
    pub base: Seq,
    /// Its last record.
    pub end: Seq,
    /// Whatever was decided by then is in it.
    pub complete_until: Time,
}

impl Reach {
    /// What a backup's manifest says of a shard.
    #[must_use]
    pub fn of(part: &ShardPart) -> Self {
        let base = if part.first_seq <= 1 { 0 } else { part.snapshot.unwrap_or_default() };
        Self { base: Seq(base), end: Seq(part.last_seq), complete_until: Time(part.complete_until) }
    }

    /// Refuses a moment of which the copy cannot tell how things stood. A time may still turn out to lie before its first state.
    ///
    /// # Errors
    /// [`CutError::TooEarly`], [`CutError::TooLate`], [`CutError::Incomplete`].
    pub fn check(self, moment: Moment) -> Result<(), CutError> {
        let Self { base, end, complete_until } = self;
        match moment {
            Moment::Seq(seq) if seq > end => Err(CutError::TooLate(end)),
            Moment::Seq(seq) if seq < base => Err(CutError::TooEarly(base)),
            Moment::Time(time) if time > complete_until => Err(CutError::Incomplete { end, complete_until }),
            Moment::Seq(_) | Moment::Time(_) => Ok(()),
        }
    }
}

/// Where a cut goes.
struct Edge {
    file: FileName,
    offset: u64,
    last_seq: Seq,
    /// The block there, without the records that go.
    block: Vec<u8>,
}

/// Ends the copy of a shard's log with a moment: drops the records behind it and the snapshots that include any of them.
/// `end` is the last record of the copy, and whatever was decided by `complete_until` is in it.
///
/// # Errors
/// [`CutError`]; only then nothing was changed, unless it is the disk that failed.
pub fn cut(
    path: &Path,
    identity: Identity,
    moment: Moment,
    end: Seq,
    complete_until: Time,
) -> Result<Cut, CutError> {
    let mut storage = FileStorage::open(path, IoMode::Sync)?;
    let base = first_state(&storage)?;
    if matches!(moment, Moment::Seq(_)) {
        Reach { base, end, complete_until }.check(moment)?;
    }
    let edge = match find(&storage, identity, base, moment, end)? {
        Found::Edge(edge) => edge,
        Found::AllStay { last } => {
            // The next record may be of the last one's moment.
            let complete_until = complete_until.max(Time(last.0.saturating_sub(1)));
            Reach { base, end, complete_until }.check(moment)?;
            return Ok(Cut { last_seq: end });
        }
    };
    if edge.last_seq < base {
        return Err(CutError::TooEarly(base));
    }
    if edge.last_seq == base && base > Seq(0) && !edge.block.is_empty() {
        // The snapshot is of the whole block: it does not go with one that ends within.
        return Err(CutError::TooEarly(Seq(base.0 + 1)));
    }
    drop_behind(&mut storage, &edge)?;
    Ok(Cut { last_seq: edge.last_seq })
}

/// The oldest state that can be rebuilt: that of the oldest snapshot, or of the empty ledger.
fn first_state(storage: &FileStorage) -> Result<Seq, StorageError> {
    let oldest = wal::list_segments(storage)?.first().map_or(Seq(1), |span| span.first_seq);
    let snapshots = wal::list_snapshots(storage)?;
    let is_from_the_beginning = oldest <= Seq(1);
    Ok(if is_from_the_beginning { Seq(0) } else { snapshots.last().copied().unwrap_or_default() })
}

/// What a log has behind a moment.
enum Found {
    /// The first block with a record that goes.
    Edge(Edge),
    /// Nothing: the time of the last record.
    AllStay { last: Time },
}

/// The first block with a record that goes.
fn find(
    storage: &FileStorage,
    identity: Identity,
    base: Seq,
    moment: Moment,
    end: Seq,
) -> Result<Found, CutError> {
    let mut reader = TailReader::new(identity, base);
    let mut last = Time::ZERO;
    // Where the last records end; a log that has none yet begins with an empty block.
    let mut behind = (FileName::Segment { first_seq: Seq(1) }, format::block_bytes(0) as u64);
    while let Some(block) = reader.next_block(storage, end)? {
        let records: Vec<Record> = block.records().iter().map(Record::from_bytes).collect();
        let kept = kept(&block, &records, moment);
        if kept < records.len() {
            let mut edge = edge(&block, kept);
            if kept == 0 && says_a_loss(&records) {
                // The empty block before it has begun the life that goes: without the word of what was lost nobody reads a log behind it.
                (edge.file, edge.offset) = behind;
            }
            return Ok(Found::Edge(edge));
        }
        last = records.last().map_or(last, |record| record.time);
        behind = (block.file, block.header.offset + block.header.block_bytes() as u64);
    }
    Ok(Found::AllStay { last })
}

/// True of records that begin with a start and what was lost before it: these are one word.
fn says_a_loss(records: &[Record]) -> bool {
    matches!(records, [start, loss, ..] if start.kind() == Some(Kind::Start) && loss.kind() == Some(Kind::Loss))
}

/// A cut through a block behind so many of its records.
fn edge(block: &Block<'_>, kept: usize) -> Edge {
    let last_seq = Seq(block.header.first_seq.0 + kept as u64 - 1);
    let bytes = if kept == 0 { Vec::new() } else { block.ending_with(last_seq) };
    Edge { file: block.file, offset: block.header.offset, last_seq, block: bytes }
}

/// Records of a block, from its first, that belong to the moment: whole operations.
fn kept(block: &Block<'_>, records: &[Record], moment: Moment) -> usize {
    let first = block.header.first_seq.0;
    let belongs = |(index, record): (usize, &Record)| match moment {
        Moment::Seq(seq) => first + index as u64 <= seq.0,
        Moment::Time(time) => record.time <= time,
    };
    let wanted = records.iter().enumerate().take_while(|item| belongs(*item)).count();
    let mut kept = 0;
    while kept < wanted {
        let rest = &records[kept..];
        let length = if says_a_loss(rest) { Some(2) } else { ledger::operation_len(rest) };
        match length {
            Some(length) if kept + length <= wanted => kept += length,
            _ => break,
        }
    }
    kept
}

fn drop_behind(storage: &mut FileStorage, edge: &Edge) -> Result<(), StorageError> {
    let is_emptied = edge.offset == 0 && edge.block.is_empty();
    for name in storage.list()? {
        let goes = match name {
            FileName::Segment { .. } => name > edge.file || is_emptied && name == edge.file,
            // One of the last record is of its whole block, of which a part is left.
            FileName::Snapshot { seq } => {
                seq > edge.last_seq || seq == edge.last_seq && !edge.block.is_empty()
            }
            FileName::Reserve { .. } | FileName::Guard | FileName::SnapshotTemp { .. } => true,
        };
        if goes {
            storage.remove(name)?;
        }
    }
    if !is_emptied {
        shorten(storage, edge)?;
        storage.write_synced(edge.file, edge.offset, &edge.block)?;
    }
    storage.sync_directory()
}

fn shorten(storage: &FileStorage, edge: &Edge) -> Result<(), StorageError> {
    let path = storage.path().join(edge.file.to_text());
    let shortened = File::options().write(true).open(&path).and_then(|file| file.set_len(edge.offset));
    shortened.map_err(|source| StorageError::Io {
        operation: storage::Operation::Write,
        path,
        offset: edge.offset,
        source,
    })
}
