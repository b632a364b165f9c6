//! A copy of a log that ends at a moment: for looking at how things stood, never for serving.

use std::fs::File;
use std::path::Path;

use storage::{FileStorage, IoMode, StorageError};
use surety_protocol::{Record, Seq, Time};
use wal::{Block, FileName, Identity, Storage, TailError, TailReader};

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
    /// The last record; before the one that was asked for where that stands within an operation of several records.
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
    #[error("the copy ends at seq {0}, before the moment that was asked for")]
    TooLate(Seq),
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
/// `end` is the last record of the copy.
///
/// # Errors
/// [`CutError`]; only then nothing was changed, unless it is the disk that failed.
pub fn cut(path: &Path, identity: Identity, moment: Moment, end: Seq) -> Result<Cut, CutError> {
    let mut storage = FileStorage::open(path, IoMode::Sync)?;
    let base = first_state(&storage)?;
    if let Moment::Seq(seq) = moment {
        if seq > end {
            return Err(CutError::TooLate(end));
        }
        if seq < base {
            return Err(CutError::TooEarly(base));
        }
    }
    let Some(edge) = find(&storage, identity, base, moment, end)? else {
        // Every record was decided by then.
        return Ok(Cut { last_seq: end });
    };
    if edge.last_seq < base {
        return Err(CutError::TooEarly(base));
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

/// The first block with a record that goes; none if all stay.
fn find(
    storage: &FileStorage,
    identity: Identity,
    base: Seq,
    moment: Moment,
    end: Seq,
) -> Result<Option<Edge>, CutError> {
    let mut reader = TailReader::new(identity, base);
    while let Some(block) = reader.next_block(storage, end)? {
        let records: Vec<Record> = block.records().iter().map(Record::from_bytes).collect();
        let kept = kept(&block, &records, moment);
        if kept < records.len() {
            let last_seq = Seq(block.header.first_seq.0 + kept as u64 - 1);
            let bytes = if kept == 0 { Vec::new() } else { block.ending_with(last_seq) };
            return Ok(Some(Edge { file: block.file, offset: block.header.offset, last_seq, block: bytes }));
        }
    }
    Ok(None)
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
        match ledger::operation_len(&records[kept..]) {
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
            FileName::Snapshot { seq } => seq > edge.last_seq,
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
