//! Housekeeping of one shard, on two threads of its own: one for what the shard waits for (segments in reserve, free
//! space), and one for snapshots and retention, which take long and step back behind everything else. A third one, if there is an
//! archive, waits for that.

use std::io;
use std::mem::{Discriminant, discriminant};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use backup::{ArchiveError, CopyError, Depot, DepotError};
use engine::BuildError;
use storage::{FileStorage, IoMode, StorageError};
use surety_protocol::{Seq, ShardId, Time};
use wal::{
    FileName, Identity, Removal, SnapshotError, Storage, TailError, create_reserve, list_segments,
    list_snapshots, removable, sound_snapshots,
};

use crate::clock::boot_now;
use crate::shard::causes;
use crate::shared::Shared;
use crate::threads::{self, AbortOnPanic};

/// Jobs that may wait; each kind is given once at a time.
const JOBS_MAX: usize = 4;

/// How far the thread of the snapshots steps back: a tenth of what a thread of the shard gets where all cores are busy.
const SNAPSHOT_NICE: i32 = 10;

/// How long the end of an engine waits for its archive. What was not archived is, after the next start.
const ARCHIVE_END: Duration = Duration::from_secs(5);

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
    /// Keep a complete segment in the archive.
    Archive {
        /// Which.
        segment: FileName,
        /// Its last record.
        last_seq: Seq,
    },
}

/// Where complete segments are kept.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    pub(crate) depot: Arc<dyn Depot>,
    /// What this engine is, as the data directory says.
    pub(crate) metadata: String,
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
    /// The archive has everything up to here; none if it is to be tried again.
    Archived(Option<Seq>),
}

/// The threads.
#[derive(Debug)]
pub(super) struct Keeper {
    /// For jobs that the shard waits for.
    prompt: Worker,
    /// For snapshots.
    patient: Worker,
    /// For the archive, if there is one.
    archivist: Option<Worker>,
}

impl Keeper {
    pub(super) fn start(
        shared: &Arc<Shared>,
        config: engine::Config,
        path: &Path,
        io: IoMode,
        archive: Option<Archive>,
    ) -> Result<Self, KeeperError> {
        let open = || FileStorage::open(path, io);
        // In `os` mode blocks go through the page cache: a segment that is in it already is written to faster.
        let io_new = if config.durability == engine::Durability::Os { IoMode::Sync } else { io };
        let archivist =
            |archive| Worker::start("arch", shared, config, open()?, SNAPSHOT_NICE, Some(archive));
        Ok(Self {
            prompt: Worker::start("keep", shared, config, FileStorage::open(path, io_new)?, 0, None)?,
            patient: Worker::start("snap", shared, config, open()?, SNAPSHOT_NICE, None)?,
            archivist: archive.map(archivist).transpose()?,
        })
    }

    /// Gives a job; false if too many wait.
    pub(super) fn give(&self, job: Job) -> bool {
        match job {
            Job::Reserve { .. } | Job::Space => self.prompt.give(job),
            Job::Snapshot { .. } => self.patient.give(job),
            Job::Archive { .. } => self.archivist.as_ref().is_some_and(|archivist| archivist.give(job)),
        }
    }
}

/// A thread that does one job after the other.
#[derive(Debug)]
struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    /// How long its end is waited for; without a bound for what works on the engine's own files.
    end_within: Option<Duration>,
}

impl Worker {
    fn start(
        name: &str,
        shared: &Arc<Shared>,
        config: engine::Config,
        mut storage: FileStorage,
        nice: i32,
        archive: Option<Archive>,
    ) -> Result<Self, KeeperError> {
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let (ends, ended): (Sender<()>, _) = channel();
        let end_within = archive.is_some().then_some(ARCHIVE_END);
        let shared = Arc::clone(shared);
        let work = move || {
            let _ends = ends;
            let _guard = AbortOnPanic;
            threads::step_back(nice);
            run(&shared, &config, &mut storage, archive.as_ref(), &queue);
        };
        let thread = thread::Builder::new().name(format!("{name}-{}", config.shard)).spawn(work)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), ended, end_within })
    }

    fn give(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        if let Some(within) = self.end_within
            && self.ended.recv_timeout(within) == Err(RecvTimeoutError::Timeout)
        {
            // It only reads what is complete, and writes elsewhere: whoever uses the log next is not in its way.
            tracing::warn!("the archive does not answer and is left behind; the next start goes on with it");
            return;
        }
        // A panic there has aborted the process already.
        let _ = thread.join();
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

fn run(
    shared: &Shared,
    config: &engine::Config,
    storage: &mut FileStorage,
    archive: Option<&Archive>,
    queue: &Receiver<Job>,
) {
    let inbox = &shared.shards[usize::from(config.shard.0)].inbox;
    let mut patience = Patience::default();
    for job in queue {
        let kept = match job {
            Job::Reserve { name, bytes } => make_reserve(config.shard, storage, &mut patience, name, bytes),
            Job::Snapshot { synced, floor } => make_snapshot(config, storage, synced, floor),
            Job::Archive { segment, last_seq } => {
                let archived = archive.is_some_and(|archive| {
                    let identity = config.identity();
                    archive_one(shared, identity, storage.path(), archive, &mut patience, (segment, last_seq))
                });
                Kept::Archived(archived.then_some(last_seq))
            }
            Job::Space => match storage.free_bytes() {
                Ok(bytes) => Kept::Space(bytes),
                Err(error) => {
                    tracing::warn!(shard = config.shard.0, "cannot learn the free space: {error}");
                    continue;
                }
            },
        };
        inbox.kept.push(kept);
        inbox.bell.ring();
    }
}

/// How long the next try waits after tries that failed: twice as long each time.
#[derive(Debug, Default)]
struct Patience {
    /// Zero if the last try did not fail.
    wait: Time,
    next_at: Time,
    /// What the last failure was that was told, and when.
    told: Option<(Fault, Time)>,
}

/// What sort of failure: that of an archive, of its place, and of the way there.
type Fault = (Discriminant<ArchiveError>, Option<(Discriminant<DepotError>, Option<io::ErrorKind>)>);

fn fault_of(error: &ArchiveError) -> Fault {
    let place = match error {
        ArchiveError::Depot(place) | ArchiveError::Copy(CopyError::Depot(place)) => Some(place),
        _ => None,
    };
    let way = |place: &DepotError| match place {
        DepotError::Io { source, .. } => Some(source.kind()),
        _ => None,
    };
    (discriminant(error), place.map(|place| (discriminant(place), way(place))))
}

impl Patience {
    const FIRST: Time = Time::from_secs(1);
    const LAST: Time = Time::from_secs(30);
    /// What goes on for so long is told again: not every reason can be told from the last.
    const AGAIN: Time = Time::from_secs(3600);

    fn is_due(&self, now: Time) -> bool {
        now >= self.next_at
    }

    /// Notes a failure; true if it is the first one in a row.
    fn fail(&mut self, now: Time) -> bool {
        let is_first = self.wait == Time::ZERO;
        self.wait = if is_first { Self::FIRST } else { Time(self.wait.0 * 2).min(Self::LAST) };
        self.next_at = now.plus(self.wait);
        is_first
    }

    /// Notes a failure; true if it is to be told: it is the first one, another one than the last, or was told long ago. What is told once
    /// and hides behind a store that is down is told never.
    fn fail_by(&mut self, now: Time, fault: Fault) -> bool {
        let is_first = self.fail(now);
        let is_known = |(told, at): (Fault, Time)| told == fault && now < at.plus(Self::AGAIN);
        let is_told = is_first || !self.told.is_some_and(is_known);
        if is_told {
            self.told = Some((fault, now));
        }
        is_told
    }

    /// Notes a success; true if it ends a row of failures.
    fn succeed(&mut self) -> bool {
        std::mem::take(self).wait != Time::ZERO
    }
}

fn make_reserve(
    shard: ShardId,
    storage: &mut FileStorage,
    patience: &mut Patience,
    name: FileName,
    bytes: u64,
) -> Kept {
    if !patience.is_due(boot_now()) {
        return Kept::NoReserve;
    }
    match create_reserve(storage, name, bytes) {
        Ok(()) => {
            if patience.succeed() {
                tracing::info!(shard = shard.0, "there is a segment in reserve again");
            }
            Kept::Reserve(name)
        }
        Err(error) => {
            abort_unless_survivable(shard, &error);
            if patience.fail(boot_now()) {
                tracing::warn!(shard = shard.0, "no segment in reserve, new locks will be declined: {error}");
            }
            // What was begun takes room and is of no use. Storage may have removed it already.
            let _ = storage.remove(name);
            Kept::NoReserve
        }
    }
}

/// True once the archive has the segment. Where it has not, authorizing goes on, and so does the log's growth: nothing is removed that is
/// not archived.
fn archive_one(
    shared: &Shared,
    identity: Identity,
    path: &Path,
    archive: &Archive,
    patience: &mut Patience,
    (segment, last_seq): (FileName, Seq),
) -> bool {
    let shard = identity.shard;
    if !patience.is_due(boot_now()) {
        return false;
    }
    let depot = &*archive.depot;
    let archived = backup::claim_archive(depot, &archive.metadata)
        .and_then(|()| backup::archive_segment(depot, identity, path, segment, last_seq));
    match archived {
        Ok(()) => {
            if patience.succeed() {
                tracing::info!(shard = shard.0, "the archive takes segments again");
            }
            true
        }
        Err(error) => {
            shared.shards[usize::from(shard.0)].metrics.archive_failures.add(1);
            if patience.fail_by(boot_now(), fault_of(&error)) {
                let what =
                    "a segment could not be archived, and is tried again; the log is not shortened meanwhile";
                tracing::error!(shard = shard.0, %segment, "{what}: {error}{}", causes(&error));
            }
            false
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
            Err(error) => {
                give_up(config.shard, storage, &error);
                break;
            }
        }
    }
    let first_kept = remove_old(config, storage, floor).unwrap_or_else(|error| {
        abort_unless_survivable(config.shard, &error);
        tracing::warn!(shard, "old files could not be removed: {error}");
        None
    });
    Kept::Snapshot { made, first_kept, took: boot_now().minus(begun) }
}

/// Goes on without a new snapshot, or ends the process.
fn give_up(shard: ShardId, storage: &mut FileStorage, error: &BuildError<StorageError>) {
    match error {
        BuildError::Diverged { .. } | BuildError::Hash { .. } => {
            threads::abort(&format!("shard {shard}: what runs is not what is logged: {error}"));
        }
        BuildError::Snapshot(SnapshotError::Io(error)) | BuildError::Log(TailError::Io(error)) => {
            abort_unless_survivable(shard, error);
        }
        BuildError::Snapshot(_) | BuildError::Log(_) | BuildError::Entry { .. } => {}
    }
    tracing::warn!(shard = shard.0, "no snapshot: {error}{}", causes(error));
    if let Err(error) = remove_drafts(storage) {
        abort_unless_survivable(shard, &error);
        tracing::warn!(shard = shard.0, "an unfinished snapshot could not be removed: {error}");
    }
}

/// Removes snapshots that were begun: they take the room that is wanted.
fn remove_drafts(storage: &mut FileStorage) -> Result<(), StorageError> {
    for name in storage.list()? {
        if matches!(name, FileName::SnapshotTemp { .. }) {
            storage.remove(name)?;
        }
    }
    Ok(())
}

/// Removes what nobody needs; tells where the log begins then.
fn remove_old(
    config: &engine::Config,
    storage: &mut FileStorage,
    floor: Seq,
) -> Result<Option<Seq>, StorageError> {
    let segments = list_segments(storage)?;
    // By their names first: reading snapshots takes long, and mostly nothing is to be removed.
    if removable(&segments, &list_snapshots(storage)?, floor) == Removal::default() {
        return Ok(None);
    }
    let removal = removable(&segments, &sound_snapshots(storage, config.identity())?, floor);
    if removal == Removal::default() {
        return Ok(None);
    }
    for name in removal.segments.iter().chain(&removal.snapshots) {
        storage.remove(*name)?;
    }
    storage.sync_directory()?;
    Ok(list_segments(storage)?.first().map(|span| span.first_seq))
}

/// After a failed write or sync nothing may be assumed and nothing repeated: the kernel may have dropped the pages, and
/// reports success the next time.
fn abort_unless_survivable(shard: ShardId, error: &StorageError) {
    if !error.is_survivable() {
        threads::abort(&format!("shard {shard}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_that_fail_become_rare_and_are_told_once() {
        let mut patience = Patience::default();
        let mut now = Time::from_secs(100);
        assert!(patience.is_due(now) && !patience.succeed());
        for (wait, is_first) in
            [(1, true), (2, false), (4, false), (8, false), (16, false), (30, false), (30, false)]
        {
            assert_eq!(patience.fail(now), is_first);
            let next = now.plus(Time::from_secs(wait));
            assert!(!patience.is_due(Time(next.0 - 1)) && patience.is_due(next), "{wait}");
            now = next;
        }
        assert!(patience.succeed() && patience.is_due(Time::ZERO));
        assert!(patience.fail(now), "told anew");
    }

    fn failed(kind: io::ErrorKind) -> DepotError {
        DepotError::Io { doing: "reading", place: String::new(), name: String::new(), source: kind.into() }
    }

    #[test]
    fn another_failure_of_an_archive_is_told_in_the_middle_of_a_row() {
        let late = || failed(io::ErrorKind::TimedOut);
        let full = || DepotError::Full { place: String::new(), name: String::new() };
        let rot =
            || ArchiveError::Rot { file: FileName::Segment { first_seq: Seq(1) }, offset: 0, seq: Seq(1) };
        let mut patience = Patience::default();
        for (error, is_told) in [
            (late().into(), true),
            (late().into(), false),
            // It is up again, with a certificate that has expired.
            (failed(io::ErrorKind::InvalidData).into(), true),
            (failed(io::ErrorKind::InvalidData).into(), false),
            (late().into(), true),
            (full().into(), true),
            (ArchiveError::Copy(full().into()), true),
            (rot(), true),
            (rot(), false),
            (late().into(), true),
        ] {
            assert_eq!(patience.fail_by(Time::ZERO, fault_of(&error)), is_told, "{error}");
        }
        assert!(patience.succeed());
        assert!(patience.fail_by(Time::ZERO, fault_of(&late().into())), "told anew");
    }

    #[test]
    fn a_failure_that_goes_on_is_told_each_hour() {
        let fault = fault_of(&failed(io::ErrorKind::Other).into());
        let mut patience = Patience::default();
        let told = (0..3 * 120).map(|half_minute| Time::from_secs(half_minute * 30));
        let told = told.filter(|now| patience.fail_by(*now, fault)).map(|now| now.0 / Time::from_secs(60).0);
        assert_eq!(told.collect::<Vec<_>>(), [0, 60, 120]);
    }
}
