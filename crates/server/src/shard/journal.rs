//! Who performs the writes of a shard's log: the shard's own thread (`os`), or one beside it (`fsync`).

use std::path::Path;
use std::sync::Arc;

use engine::Durability;
use storage::{FileStorage, IoMode, LogWriter, SYNC_INTERVAL, StorageError, Syncer};
use surety_protocol::ShardId;
use wal::Write;

use crate::shared::{ShardShared, Shared};
use crate::threads::{self, AbortOnPanic};

/// Performs the writes of one log.
#[derive(Debug)]
pub(super) enum Journal {
    /// Writes to the page cache at once; a thread syncs behind.
    Inline {
        /// The shard's files.
        storage: FileStorage,
        /// The thread that syncs.
        syncer: Syncer,
        /// The thread for a block that begins a segment: the name of the segment must be on the disk first, and the shard's
        /// thread waits for no disk.
        roller: LogWriter,
    },
    /// A thread writes and syncs.
    Threaded(LogWriter),
}

impl Journal {
    /// Starts the thread that belongs to the mode.
    pub(super) fn start(
        shared: &Arc<Shared>,
        shard: ShardId,
        storage: FileStorage,
        path: &Path,
        io: IoMode,
    ) -> Result<Self, StartJournalError> {
        let shared = Arc::clone(shared);
        let rolled = Arc::clone(&shared);
        // Goes with the closure, and so with the thread that runs it.
        let guard = AbortOnPanic;
        match shared.durability {
            Durability::Os => {
                let behind = FileStorage::open(path, io)?;
                let syncer = Syncer::spawn(&format!("sync-{shard}"), behind, SYNC_INTERVAL, move |synced| {
                    let _held = &guard;
                    let ShardShared { inbox, metrics, .. } = &shared.shards[usize::from(shard.0)];
                    let synced = or_abort(shard, synced);
                    metrics.sync.observe(synced.took);
                    // Only the newest mark counts.
                    inbox.synced.force_push(synced.mark);
                    inbox.bell.ring();
                })?;
                let roller = writer(&rolled, shard, "roll", FileStorage::open(path, io)?)?;
                Ok(Self::Inline { storage, syncer, roller })
            }
            Durability::Fsync => Ok(Self::Threaded(writer(&shared, shard, "log", storage)?)),
        }
    }

    /// A write that was handed over has been performed.
    pub(super) fn note_written(&self, write: &Write) {
        if let Self::Inline { syncer, .. } = self {
            syncer.written(write.file(), write.mark());
        }
    }

    /// Performs a write, or hands it over. What comes back is written.
    pub(super) fn submit(&mut self, shard: ShardId, write: Write) -> Option<Write> {
        match self {
            Self::Inline { roller, .. } if write.roll().is_some() => {
                or_abort(shard, roller.submit(write));
                None
            }
            Self::Inline { storage, syncer, .. } => {
                or_abort(shard, write.perform(storage));
                syncer.written(write.file(), write.mark());
                Some(write)
            }
            Self::Threaded(writer) => {
                or_abort(shard, writer.submit(write));
                None
            }
        }
    }
}

/// The thread that performs writes which the shard's own thread must not wait for.
fn writer(
    shared: &Arc<Shared>,
    shard: ShardId,
    name: &str,
    storage: FileStorage,
) -> std::io::Result<LogWriter> {
    let shared = Arc::clone(shared);
    // Goes with the closure, and so with the thread that runs it.
    let guard = AbortOnPanic;
    LogWriter::spawn(&format!("{name}-{shard}"), storage, move |written| {
        let _held = &guard;
        let inbox = &shared.shards[usize::from(shard.0)].inbox;
        let pushed = inbox.written.push(or_abort(shard, written));
        assert!(pushed.is_ok(), "one block is in flight");
        inbox.bell.ring();
    })
}

/// Why no thread could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartJournalError {
    /// The files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The system grants no thread.
    #[error("cannot start a thread for the log: {0}")]
    Thread(#[from] std::io::Error),
}

/// After a failed write or sync nothing may be assumed, nothing repeated, and no reply may leave.
fn or_abort<T, E: std::fmt::Display>(shard: ShardId, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        // Nothing is answered that is not logged.
        Err(error) => threads::abort(&format!("shard {shard}: {error}")),
    }
}
