//! The change stream: a shard's synced records, read from its files on another thread, as far as the reader may see them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use quinn::SendStream;
use storage::{FileStorage, StorageError};
use surety_protocol::limits::{FRAME_RECORDS_MAX, RECORD_BYTES};
use surety_protocol::{
    CURSORS_HAVE_EPOCHS, Caller, Cursor, Epoch, FrameHeader, FrameKind, GrantBody, Kind, PartitionHandle,
    Record, Seq, ShardId, TAIL_HEAD_BYTES, TailHead, TailStatus, TenantId, sabotage,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use wal::{Identity, TailError, TailReader};

use crate::embedded::TailFrame;
use crate::shard::Shard;
use crate::shard::tenants::Counted;

/// A silent stream says so this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Records that are read at a time.
const READ_RECORDS: usize = 4096;

/// Where the frames of a change stream go.
pub(super) trait TailSink {
    /// Takes a frame, once there is room; false when nobody reads any more.
    async fn send(&mut self, frame: &TailFrame) -> bool;
}

/// Frames on a QUIC stream of their own; QUIC's flow control is what slows them down.
pub(super) struct StreamTail {
    pub(super) send: SendStream,
    pub(super) number: u64,
}

impl TailSink for StreamTail {
    async fn send(&mut self, frame: &TailFrame) -> bool {
        let bytes = encode(frame, self.number);
        self.number += 1;
        self.send.write_chunk(bytes.into()).await.is_ok()
    }
}

/// Frames to a reader in this process.
pub(super) struct ChannelTail {
    pub(super) frames: mpsc::Sender<TailFrame>,
}

impl TailSink for ChannelTail {
    async fn send(&mut self, frame: &TailFrame) -> bool {
        let frame = TailFrame { head: frame.head, status: frame.status, records: frame.records.clone() };
        self.frames.send(frame).await.is_ok()
    }
}

/// Counts a reader of the change stream; none if there are as many as there may be, of its tenant or of all.
pub(super) fn count_reader(shard: &Shard, tenant: TenantId) -> Option<Counted> {
    let limits = &shard.shared.limits;
    let has_room = shard.tenant_readers.total() < limits.subscriptions;
    has_room.then(|| shard.tenant_readers.take(tenant, limits.subscriptions_tenant)).flatten()
}

/// Sends a shard's records from a seq on, until the reader is gone or the stream cannot go on.
pub(super) async fn follow(
    shard: Rc<Shard>,
    caller: Caller,
    from: Cursor,
    version: u16,
    sink: impl TailSink,
    _counted: Counted,
) {
    let subscribers = |change: fn(u64) -> u64| {
        let counter = &shard.shared.shards[usize::from(shard.id.0)].metrics.subscribers;
        counter.set(change(counter.get()));
    };
    subscribers(|count| count + 1);
    send_all(&shard, caller, from, version, sink).await;
    subscribers(|count| count - 1);
}

async fn send_all(shard: &Shard, caller: Caller, cursor: Cursor, version: u16, mut sink: impl TailSink) {
    let from = Seq(cursor.next.0.max(1));
    let epochs = shard.epochs();
    let mut synced = shard.synced.subscribe();
    let before = Seq(from.0 - 1);
    // Version 1 compares the epochs of heads: it must never be told one that is before one that it was told.
    let epoch_at = |seq| if version < CURSORS_HAVE_EPOCHS { shard.epoch } else { epochs.epoch_of(seq) };
    let mut speaker = Speaker { shard: shard.id, epoch: epoch_at(before), through: before };
    let mark = *synced.borrow_and_update();
    // First: however far a reader is in a life that is lost, that is what it has to be told.
    if let Some(parted) = epochs.parted_at(cursor) {
        let frame = speaker.end(TailStatus::Parted, parted);
        sink.send(&frame).await;
        return;
    }
    if from.0 > mark.0 + 1 && !sabotage!("cursor-of-another-history-served") {
        speaker.through = mark;
        let frame = speaker.end(TailStatus::Ahead, mark.next());
        sink.send(&frame).await;
        return;
    }
    let cursor = shard.cursors.open(from);
    let mut source = Source::new(shard, from);
    let mut sight = Sight::new(caller);
    let mut spoke = Instant::now();
    loop {
        let mark = *synced.borrow_and_update();
        // Each chunk is of one epoch.
        let until = epochs.next_start(source.next).map_or(mark, |start| mark.min(Seq(start.0 - 1)));
        let chunk = match source.read(until).await {
            Ok((next_source, chunk)) => {
                source = next_source;
                chunk
            }
            Err(TailError::Removed { oldest, .. }) => {
                let frame = speaker.end(TailStatus::Lost, oldest);
                sink.send(&frame).await;
                return;
            }
            Err(error) => {
                tracing::error!(shard = shard.id.0, "the change stream cannot go on: {error}");
                return;
            }
        };
        cursor.advance(chunk.first);
        if chunk.records.is_empty() {
            if !wait(&mut synced, &mut sink, &speaker).await {
                return;
            }
            continue;
        }
        speaker.epoch = epoch_at(chunk.first);
        let runs = sight.runs(shard, &chunk);
        let mut frames = speaker.frames(&chunk, &runs);
        if frames.is_empty() && spoke.elapsed() >= HEARTBEAT {
            frames.push(speaker.heartbeat());
        }
        for frame in frames {
            if !sink.send(&frame).await {
                return;
            }
            spoke = Instant::now();
        }
    }
}

/// Waits until more is synced; speaks up each second meanwhile. False when nobody reads any more.
async fn wait(synced: &mut watch::Receiver<Seq>, sink: &mut impl TailSink, speaker: &Speaker) -> bool {
    loop {
        match timeout(HEARTBEAT, synced.changed()).await {
            Ok(Ok(())) => return true,
            Ok(Err(_)) => return false,
            Err(_) => {
                if !sink.send(&speaker.heartbeat()).await {
                    return false;
                }
            }
        }
    }
}

/// Consecutive records.
#[derive(Debug, Default)]
struct Chunk {
    first: Seq,
    records: Vec<Record>,
}

/// Reads the log on a thread where waiting for the disk disturbs nobody.
struct Source {
    reader: TailReader,
    path: PathBuf,
    storage: Option<FileStorage>,
    next: Seq,
}

impl Source {
    fn new(shard: &Shard, from: Seq) -> Self {
        let identity = Identity { engine: shard.shared.engine, shard: shard.id };
        let path = shard.path.clone();
        Self { reader: TailReader::new(identity, from), path, storage: None, next: from }
    }

    /// Reads what is synced, up to some thousand records.
    async fn read(mut self, synced: Seq) -> Result<(Self, Chunk), TailError<StorageError>> {
        if self.next > synced {
            return Ok((self, Chunk::default()));
        }
        let read = tokio::task::spawn_blocking(move || {
            let chunk = self.read_now(synced)?;
            Ok((self, chunk))
        });
        // A panic there has already aborted the process.
        read.await.unwrap_or_else(|_| std::process::abort())
    }

    fn read_now(&mut self, synced: Seq) -> Result<Chunk, TailError<StorageError>> {
        let storage = match &mut self.storage {
            Some(storage) => storage,
            none => none.insert(FileStorage::open_read_only(&self.path)?),
        };
        let mut chunk = Chunk { first: self.next, records: Vec::new() };
        while chunk.records.len() < READ_RECORDS
            && let Some(block) = self.reader.next_block(storage, synced)?
        {
            chunk
                .records
                .extend(block.records_from(self.next).map(|record| Record::from_bytes(record.bytes)));
            self.next = block.header.next_seq();
        }
        Ok(chunk)
    }
}

/// What a reader may see.
struct Sight {
    caller: Caller,
    sees_all: bool,
    partitions: HashMap<PartitionHandle, bool>,
    /// What was decided about the head that continuations belong to.
    sees_head: bool,
}

impl Sight {
    fn new(caller: Caller) -> Self {
        Self { caller, sees_all: caller.sees_all(), partitions: HashMap::new(), sees_head: false }
    }

    /// The visible stretches of a chunk, as ranges of its records, each at most a frame long.
    fn runs(&mut self, shard: &Shard, chunk: &Chunk) -> Vec<std::ops::Range<usize>> {
        // Rights may have changed since the last chunk.
        self.partitions.clear();
        let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
        for (index, record) in chunk.records.iter().enumerate() {
            if !self.sees(shard, record) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == index && run.len() < FRAME_RECORDS_MAX => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        runs
    }

    fn sees(&mut self, shard: &Shard, record: &Record) -> bool {
        if self.sees_all {
            return true;
        }
        if record.kind() != Some(Kind::Continuation) {
            self.sees_head = self.sees_request(shard, record);
        }
        self.sees_head
    }

    fn sees_request(&mut self, shard: &Shard, record: &Record) -> bool {
        match record.kind() {
            // Other tenants' quotas and rights are nobody's business.
            None | Some(Kind::TenantSet | Kind::Start | Kind::Checkpoint) => false,
            // What was lost concerns everybody.
            Some(Kind::Loss) => true,
            Some(Kind::Grant) => record.body::<GrantBody>().tenant == self.caller.tenant,
            Some(_) if record.tenant != TenantId(0) => {
                record.tenant == self.caller.tenant || sabotage!("another-tenants-records-shown")
            }
            Some(_) => {
                let tenant = self.caller.tenant;
                let look = || shard.core.borrow().engine.ledger().rights(record.partition, tenant).0 != 0;
                *self.partitions.entry(record.partition).or_insert_with(look)
            }
        }
    }
}

/// Speaks for the shard in the heads of frames.
struct Speaker {
    shard: ShardId,
    /// The epoch of `through`, and of whatever follows in the same chunk; to version 1 that of the start.
    epoch: Epoch,
    /// The reader has everything up to here.
    through: Seq,
}

impl Speaker {
    fn head(&self, first: Seq, status: TailStatus) -> TailHead {
        TailHead {
            first,
            through: self.through,
            epoch: self.epoch,
            shard: self.shard,
            status: status as u8,
            reserved: [0; 9],
        }
    }

    fn heartbeat(&self) -> TailFrame {
        let head = self.head(self.through.next(), TailStatus::Records);
        TailFrame { head, status: TailStatus::Records, records: Vec::new() }
    }

    fn end(&self, status: TailStatus, first: Seq) -> TailFrame {
        TailFrame { head: self.head(first, status), status, records: Vec::new() }
    }

    fn frames(&mut self, chunk: &Chunk, runs: &[std::ops::Range<usize>]) -> Vec<TailFrame> {
        let last = Seq(chunk.first.0 + chunk.records.len() as u64 - 1);
        let mut frames = Vec::with_capacity(runs.len());
        for (index, run) in runs.iter().enumerate() {
            let is_last = index + 1 == runs.len();
            let run_last = Seq(chunk.first.0 + run.end as u64 - 1);
            self.through = if is_last { last } else { run_last };
            let head = self.head(Seq(chunk.first.0 + run.start as u64), TailStatus::Records);
            let records = chunk.records[run.clone()].to_vec();
            frames.push(TailFrame { head, status: TailStatus::Records, records });
        }
        self.through = last;
        frames
    }
}

fn encode(frame: &TailFrame, number: u64) -> Vec<u8> {
    let count = u16::try_from(frame.records.len()).unwrap_or(u16::MAX);
    let header = FrameHeader { kind: FrameKind::Records, count, number };
    let mut bytes = Vec::with_capacity(16 + TAIL_HEAD_BYTES + frame.records.len() * RECORD_BYTES);
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(&frame.head.to_bytes());
    frame.records.iter().for_each(|record| bytes.extend_from_slice(&record.to_bytes()));
    bytes
}
