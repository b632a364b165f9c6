//! Housekeeping of one shard, on two threads of its own: one for what the shard waits for (segments in reserve, free
//! space), and one for snapshots and retention, which take long and step back behind everything else.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use engine::BuildError;
use storage::{FileStorage, IoMode, StorageError};
use surety_protocol::{Seq, ShardId, Time};
use wal::{FileName, Storage, create_reserve, list_segments, list_snapshots, removable};

use crate::clock::boot_now;
use crate::shared::Shared;
use crate::threads::{self, AbortOnPanic};

/// Jobs that may wait; each kind is given once at a time.
const JOBS_MAX: usize = 4;

/// How far the thread of the snapshots steps back: a tenth of what a thread of the shard gets where all cores are busy.
const SNAPSHOT_NICE: i32 = 10;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Create a segment in reserve.
    Reserve {
        /// Its name.
        name: FileName,
        /// Its length.
        bytes: u64,
    },
    /// Make a snapshot of what is synced, then remove what nobody needs below `floor`.
    Snapshot {
        /// How far the log is synced.
        synced: Seq,
        /// The log from here on stays.
        floor: Seq,
    },
    /// Ask for the free space.
    Space,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The segment is there.
    Reserve(FileName),
    /// The segment could not be made; there may be room later.
    NoReserve,
    /// The newest snapshot, if one was made, and the first seq of the log that is left, if some of it went.
    Snapshot {
        /// The last record in it.
        made: Option<Seq>,
        /// The first record that is left.
        first_kept: Option<Seq>,
        /// How long it took.
        took: Time,
    },
    /// Bytes that are free.
    Space(u64),
}

/// The two threads.
#[derive(Debug)]
pub(super) struct Keeper {
    /// For jobs that the shard waits for.
    prompt: Worker,
    /// For snapshots.
    patient: Worker,
}

impl Keeper {
    pub(super) fn start(
        shared: &Arc<Shared>,
        config: engine::Config,
        path: &Path,
        io: IoMode,
    ) -> Result<Self, KeeperError> {
        Ok(Self {
            prompt: Worker::start("keep", shared, config, FileStorage::open(path, io)?, 0)?,
            patient: Worker::start("snap", shared, config, FileStorage::open(path, io)?, SNAPSHOT_NICE)?,
        })
    }

    /// Gives a job; false if too many wait.
    pub(super) fn give(&self, job: Job) -> bool {
        match job {
            Job::Reserve { .. } | Job::Space => self.prompt.give(job),
            Job::Snapshot { .. } => self.patient.give(job),
        }
    }
}

/// A thread that does one job after the other.
#[derive(Debug)]
struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(
        name: &str,
        shared: &Arc<Shared>,
        config: engine::Config,
        mut storage: FileStorage,
        nice: i32,
    ) -> Result<Self, KeeperError> {
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let shared = Arc::clone(shared);
        let work = move || {
            let _guard = AbortOnPanic;
            threads::step_back(nice);
            run(&shared, &config, &mut storage, &queue);
        };
        let thread = thread::Builder::new().name(format!("{name}-{}", config.shard)).spawn(work)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    fn give(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has aborted the process already.
            let _ = thread.join();
        }
    }
}

/// Why the threads could not start.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The system grants no thread.
    #[error("cannot start a thread for housekeeping: {0}")]
    Thread(#[from] io::Error),
}

fn run(shared: &Shared, config: &engine::Config, storage: &mut FileStorage, queue: &Receiver<Job>) {
    let inbox = &shared.shards[usize::from(config.shard.0)].inbox;
    for job in queue {
        let kept = match job {
            Job::Reserve { name, bytes } => make_reserve(config.shard, storage, name, bytes),
            Job::Snapshot { synced, floor } => make_snapshot(config, storage, synced, floor),
            Job::Space => match storage.free_bytes() {
                Ok(bytes) => Kept::Space(bytes),
                Err(error) => {
                    tracing::warn!(shard = config.shard.0, "cannot learn the free space: {error}");
                    continue;
                }
            },
        };
        inbox.kept.push(kept);
        inbox.bell.notify_one();
    }
}

fn make_reserve(shard: ShardId, storage: &mut FileStorage, name: FileName, bytes: u64) -> Kept {
    match create_reserve(storage, name, bytes) {
        Ok(()) => Kept::Reserve(name),
        Err(error) => {
            tracing::warn!(shard = shard.0, "no segment in reserve, new locks will be declined: {error}");
            // What was begun takes room and is of no use.
            let _ = storage.remove(name);
            Kept::NoReserve
        }
    }
}

fn make_snapshot(config: &engine::Config, storage: &mut FileStorage, synced: Seq, floor: Seq) -> Kept {
    let shard = config.shard.0;
    let begun = boot_now();
    let mut made = None;
    loop {
        match engine::build_snapshot(config, storage, synced) {
            Ok(Some(summary)) => {
                let seq = summary.header.seq;
                tracing::info!(
                    shard,
                    seq = seq.0,
                    entries = summary.entries,
                    bytes = summary.bytes,
                    "snapshot"
                );
                made = Some(seq);
            }
            Ok(None) => break,
            Err(error @ (BuildError::Diverged { .. } | BuildError::Hash { .. })) => {
                threads::abort(&format!("shard {shard}: what runs is not what is logged: {error}"));
            }
            Err(error) => {
                tracing::warn!(shard, "no snapshot: {error}");
                break;
            }
        }
    }
    let first_kept = remove_old(storage, floor).unwrap_or_else(|error| {
        tracing::warn!(shard, "old files could not be removed: {error}");
        None
    });
    Kept::Snapshot { made, first_kept, took: boot_now().minus(begun) }
}

/// Removes what nobody needs; tells where the log begins then.
fn remove_old(storage: &mut FileStorage, floor: Seq) -> Result<Option<Seq>, StorageError> {
    let removal = removable(&list_segments(storage)?, &list_snapshots(storage)?, floor);
    for name in removal.segments.iter().chain(&removal.snapshots) {
        storage.remove(*name)?;
    }
    if removal.segments.is_empty() && removal.snapshots.is_empty() {
        return Ok(None);
    }
    storage.sync_directory()?;
    Ok(list_segments(storage)?.first().map(|span| span.first_seq))
}
