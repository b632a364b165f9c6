//! What may go wrong, each with what to do about it.

use std::io;
use std::path::PathBuf;

use ledger::{Divergence, EntryError};
use storage::StorageError;
use surety_client::TailError;
use surety_protocol::{EngineId, Epoch, Id, PartitionHandle, Seq, ShardId, Time};
use texts::values::moment_text;

use crate::query::Order;
use crate::store::NoRoom;

/// What to do when the index has no future.
const REBUILD: &str = "stop the engine, then `surety history rebuild --data DIR`, with --archive if retention has taken the log's beginning";

/// Why an index is not opened, fed or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The store below it.
    #[error("the history in {}: {source}; if the disk is sound, remove it and {REBUILD}", path.display())]
    Store {
        /// Its directory.
        path: PathBuf,
        /// What the store says.
        source: fjall::Error,
    },
    /// Whoever asks is not whose data it is.
    #[error("{} belongs to user {owner}, and this is user {own}: ask as that user, or while the history is kept", path.display())]
    Owner {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        own: u32,
    },
    /// Another process has it open.
    #[error("the history in {} is in use by another process: ask the engine that serves it, or stop that", .0.display())]
    InUse(PathBuf),
    /// A newer program wrote it.
    #[error("the history in {} has format {found}, this program knows {known}: use the newer program, or {REBUILD}", path.display())]
    Newer {
        /// Its directory.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The highest that is known.
        known: u16,
    },
    /// An older program wrote it.
    #[error("the history in {} has format {found}, this program knows {known} alone: {REBUILD}", path.display())]
    Older {
        /// Its directory.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The one that is known.
        known: u16,
    },
    /// It belongs to another engine.
    #[error("the history in {} is that of engine {found}, not of {wanted}: it was put into the wrong place; remove it and {REBUILD}", path.display())]
    Foreign {
        /// Its directory.
        path: PathBuf,
        /// Whose it is.
        found: EngineId,
        /// Whose it should be.
        wanted: EngineId,
    },
    /// There is none.
    #[error("there is no history in {}: serve with --history, or {REBUILD}", .0.display())]
    Missing(PathBuf),
    /// Something in it is not as it was written.
    #[error("the history is damaged: {what} of shard {shard} at {at}; remove it and {REBUILD}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// In which shard.
        shard: ShardId,
        /// At which number of its kind.
        at: u64,
    },
    /// What the index needs next is not in the log any more.
    #[error("shard {shard}: the history stands at seq {wanted}, but the log begins at {oldest}; {REBUILD}")]
    Gone {
        /// Which shard.
        shard: ShardId,
        /// The next seq that it needs.
        wanted: Seq,
        /// The first that is there; 0 if none is.
        oldest: Seq,
    },
    /// An archived segment is not as it was put there.
    #[error(
        "{name} in {place} is damaged at offset {offset}, seq {seq}: put a sound copy of it there; without it the history is not made from the beginning"
    )]
    Archived {
        /// The archive.
        place: String,
        /// The segment.
        name: String,
        /// Where it is not, or not any more, what it was.
        offset: u64,
        /// The record that should be there.
        seq: Seq,
    },
    /// The index knows of records that the engine does not have.
    #[error(
        "shard {shard}: the history stands at seq {indexed}, but the log ends at {end}: the data is an older copy; {REBUILD}"
    )]
    Ahead {
        /// Which shard.
        shard: ShardId,
        /// What is indexed.
        indexed: Seq,
        /// What the log has.
        end: Seq,
    },
    /// The log below the index's position is not the one that was indexed.
    #[error(
        "shard {shard}: at seq {seq} the log leads to state {found:032x}, the history was made from {indexed:032x}: it is that of another log; {REBUILD}"
    )]
    OtherLog {
        /// Which shard.
        shard: ShardId,
        /// Where.
        seq: Seq,
        /// State hash that the index noted.
        indexed: u128,
        /// State hash of the log.
        found: u128,
    },
    /// The engine goes on from a backup, and part of what was indexed is not in its log.
    #[error(
        "shard {shard}: the engine goes on after a loss, and what the history has from seq {from} on was lost there: {REBUILD}"
    )]
    Parted {
        /// Which shard.
        shard: ShardId,
        /// From here on, at the latest, the engine has other records.
        from: Seq,
    },
    /// The engine is in an epoch before one that the index has seen.
    #[error(
        "shard {shard}: the engine is in epoch {found}, the history has seen epoch {seen}: the data is an older copy; {REBUILD}"
    )]
    Epoch {
        /// Which shard.
        shard: ShardId,
        /// What the index has seen.
        seen: Epoch,
        /// What speaks now.
        found: Epoch,
    },
    /// A record does not do to the replica what it did to the engine.
    #[error(
        "shard {shard}: {source}; the log was written by other rules, or memory failed: run `surety verify`"
    )]
    Diverged {
        /// Which shard.
        shard: ShardId,
        /// What differs.
        source: Divergence,
    },
    /// A snapshot's entries.
    #[error("shard {shard}: the snapshot of seq {seq} cannot be used: {source}")]
    Snapshot {
        /// Which shard.
        shard: ShardId,
        /// Which snapshot.
        seq: Seq,
        /// What is wrong.
        source: EntryError,
    },
    /// Records came out of turn.
    #[error("shard {shard}: seq {found} came where {wanted} was to come")]
    OutOfTurn {
        /// Which shard.
        shard: ShardId,
        /// What was due.
        wanted: Seq,
        /// What came.
        found: Seq,
    },
    /// There is no room for more of it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// Files of the engine.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log.
    #[error("shard {shard}: {message}")]
    Log {
        /// Which shard.
        shard: ShardId,
        /// What is wrong with it, and where.
        message: String,
    },
    /// The change stream.
    #[error(transparent)]
    Stream(#[from] TailError),
    /// The archive.
    #[error(transparent)]
    Depot(#[from] backup::DepotError),
    /// A directory, a thread or a runtime.
    #[error("{doing} failed: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// More predicates than a question may have.
    #[error("{found} predicates; a question may have {max}")]
    TooManyPredicates {
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// An alternative within an alternative.
    #[error("an alternative may not hold another one: write the predicates out")]
    Nested,
    /// An alternative of nothing.
    #[error("an alternative without predicates matches nothing: leave it out")]
    EmptyAlternative,
    /// A range whose end lies before its beginning.
    #[error("the {0} range ends before it begins")]
    EmptyRange(&'static str),
    /// A page of no rows, or of more than there may be.
    #[error("a page of {found} rows; 1 to {max} may be asked for")]
    Limit {
        /// What was asked.
        found: usize,
        /// The most.
        max: usize,
    },
    /// A predicate that locks do not have.
    #[error("locks have no {0}: ask for their records instead")]
    NotOfLocks(&'static str),
    /// A cursor that no answer has given.
    #[error(
        "{0:?} is not a cursor of an answer to such a question: give it as it was given, or begin without one"
    )]
    Cursor(String),
    /// A cursor of a walk in the other order.
    #[error(
        "the cursor is that of a walk in {cursor} order, asked is {asked} order: keep the order, or begin without a cursor"
    )]
    CursorOrder {
        /// The cursor's.
        cursor: Order,
        /// The question's.
        asked: Order,
    },
    /// A cursor of an index with more shards.
    #[error(
        "the cursor knows {found} shards, the index has {shards}: it is that of another engine; begin without one"
    )]
    CursorShards {
        /// Of the cursor.
        found: usize,
        /// Of the index.
        shards: usize,
    },
    /// A cursor that has come further than the index.
    #[error(
        "the cursor has come further in shard {shard} than the index: a crash has taken the index's end, which comes back; ask again later, or begin without one"
    )]
    CursorAhead {
        /// In which shard.
        shard: ShardId,
    },
    /// More locks of one id than a call looks at.
    #[error("too many locks have the id {0}: ask for that of a partition")]
    TooManyLocks(Id),
    /// The index fails while a tenant asks; why is the operator's to know, and in the log.
    #[error("the history cannot answer now: the engine's operator finds the reason in its log")]
    Unavailable,
    /// A tenant asks for what is the operator's.
    #[error(
        "{0} are for the operator; a tenant may ask for its records, its locks and the statements of its merchants"
    )]
    OperatorOnly(&'static str),
    /// A period whose end is not indexed yet.
    #[error("the period ends at {}, but the account is logged and indexed up to {} only: ask for an earlier end, or once its shards have logged more", moment_text(*until), moment_text(*complete_before))]
    NotComplete {
        /// The end of the period, not included.
        until: Time,
        /// The latest end that there is.
        complete_before: Time,
    },
    /// A moment that is not indexed in full yet.
    #[error("asked is what there was at {}, but the partition is known before {} only: ask for an earlier moment, for none to have the latest, or again once that has come", moment_text(*at), moment_text(*complete_before))]
    NotYet {
        /// The moment.
        at: Time,
        /// Everything before this one is indexed.
        complete_before: Time,
    },
    /// A statement of a partition, or of a supplier in one, that no record knows.
    #[error("there is no partition {0} in the history: it was never made, or the index has not come so far")]
    UnknownPartition(PartitionHandle),
    /// The lines of a statement do not lead from its opening to its closing.
    #[error(
        "the statement of {account} does not add up at seq {seq} of shard {shard}: {what}; do not use it, and {REBUILD}"
    )]
    Uneven {
        /// Whose statement.
        account: String,
        /// Where.
        shard: ShardId,
        /// At which record.
        seq: Seq,
        /// What differs.
        what: String,
    },
    /// A statement's lines do not lead to its closing, or that is not what there is.
    #[error(
        "the statement of {account} does not add up to its closing: {what}; do not use it, and {REBUILD}"
    )]
    UnevenClosing {
        /// Whose statement.
        account: String,
        /// What differs.
        what: String,
    },
    /// The index.
    #[error(transparent)]
    History(#[from] HistoryError),
}
