//! The change stream: what is synced, in order, from a cursor on, for those who may see it.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use rig::{Raw, Rig, SEGMENT, TENANT, lock};
use surety_protocol::{
    CloseCode, Code, FrameKind, Hello, HelloReply, Kind, Record, Seq, TailStatus, TenantId,
};

async fn reader(rig: &Rig, shard: u16, from: u64) -> Raw {
    let mut raw = Raw::connect(rig.address(shard), &rig.identity("reader")).await.unwrap();
    raw.greet(TenantId(0), &[]).await.unwrap();
    raw.subscribe(shard, from).await.unwrap();
    raw
}

fn check_consecutive(records: &[(Seq, Record)], first: u64, last: Seq) {
    let seqs: Vec<u64> = records.iter().map(|(seq, _)| seq.0).collect();
    assert_eq!(seqs, (first..=last.0).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_stream_goes_on_across_restarts_from_its_cursor() {
    let mut rig = Rig::start_with(1, |config| config.durability = server::Durability::Fsync);
    let mut all: Vec<(Seq, Record)> = Vec::new();
    let mut ids = Vec::new();
    for round in 0..3 {
        let mut raw = rig.authorizer(0).await;
        let mut tail = reader(&rig, 0, all.len() as u64 + 1).await;
        let mut last = Seq(0);
        for _ in 0..30 {
            let (reply, _) = raw.ask(lock(0)).await.unwrap();
            assert_eq!(reply.code(), Code::Approved);
            ids.push((reply.seq, reply.id));
            last = reply.seq;
        }
        all.extend(tail.tail_through(last).await);
        if round == 1 {
            rig.kill();
        } else {
            rig.shutdown();
        }
        rig.restart_with(|config| config.durability = server::Durability::Fsync);
    }
    check_consecutive(&all, 1, all.last().unwrap().0);
    assert!(all.iter().any(|(_, record)| record.kind() == Some(Kind::Start)));
    for (seq, id) in ids {
        let (found, record) = &all[usize::try_from(seq.0).unwrap() - 1];
        assert_eq!((*found, record.id), (seq, id), "a reply names the place of its record");
    }
}

#[tokio::test]
async fn a_cursor_past_the_end_belongs_to_another_history() {
    let rig = Rig::start(1);
    let end = rig.running().shards()[0].seq;
    let mut tail = reader(&rig, 0, end.0 + 100).await;
    let frame = tail.tail().await.unwrap();
    assert_eq!(frame.status, TailStatus::Ahead);
    assert!(tail.recv.read_to_end(1).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_cursor_of_a_record_that_was_given_up_is_told_from_where() {
    let mut rig = Rig::start_with(1, |config| config.durability = server::Durability::Fsync);
    // Each frame is of one epoch, whichever restart it comes across.
    let mut epochs: Vec<(u32, u64)> = Vec::new();
    for _ in 0..3 {
        let mut raw = rig.authorizer(0).await;
        let (reply, _) = raw.ask(lock(0)).await.unwrap();
        let mut tail = reader(&rig, 0, 1).await;
        epochs.clear();
        while epochs.last().is_none_or(|(_, through)| *through < reply.seq.0) {
            let frame = tail.tail().await.unwrap();
            assert_eq!(frame.status, TailStatus::Records);
            let starts = frame.records.iter().skip(1).filter(|record| record.kind() == Some(Kind::Start));
            assert_eq!(starts.count(), 0, "a start is the first record of its epoch");
            epochs.push((frame.head.epoch.0, frame.head.through.0));
        }
        rig.kill();
        rig.restart_with(|config| config.durability = server::Durability::Fsync);
    }
    assert!(epochs.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{epochs:?}");
    let (last_epoch, last) = *epochs.last().unwrap();
    let (first_epoch, first_end) = *epochs.iter().rfind(|(epoch, _)| *epoch < last_epoch).unwrap();
    let check = async |next: u64, epoch: u32, expect: Option<u64>| {
        let mut raw = Raw::connect(rig.address(0), &rig.identity("reader")).await.unwrap();
        raw.greet(TenantId(0), &[]).await.unwrap();
        raw.resume(0, next, epoch).await.unwrap();
        let frame = raw.tail().await.unwrap();
        let parted = (frame.status == TailStatus::Parted).then_some(frame.head.first.0);
        assert_eq!(parted, expect, "{next} after epoch {epoch}");
    };
    check(first_end + 1, first_epoch, None).await;
    check(last + 1, last_epoch, None).await;
    check(last + 1, 0, None).await;
    // A reader that went on in the epoch before, as in a life that was given up, and one of a life that nobody here knows.
    check(last + 1, first_epoch, Some(first_end + 1)).await;
    check(first_end + 1, last_epoch, Some(first_end)).await;
    check(first_end + 1, u32::MAX - 1, Some(first_end)).await;
    // Who has read nothing begins wherever it likes.
    check(first_end + 1, u32::MAX, None).await;
}

/// It compares what heads say with what they said before, and has no epoch in its subscriptions.
#[tokio::test]
async fn who_speaks_the_first_version_is_told_the_epoch_that_speaks() {
    let mut rig = Rig::start_with(1, |config| config.durability = server::Durability::Fsync);
    rig.kill();
    rig.restart_with(|config| config.durability = server::Durability::Fsync);
    let hello = Hello { version_min: 1, version_max: 1, ..Hello::new(TenantId(0), "old") }.to_body(&[]);
    let connect = async || {
        let mut raw = Raw::connect(rig.address(0), &rig.identity("reader")).await.unwrap();
        raw.frame(FrameKind::Hello, 0, &hello).await.unwrap();
        let (_, body) = raw.receive().await.unwrap();
        (raw, HelloReply::from_body(&body).unwrap())
    };
    let (mut raw, hello) = connect().await;
    assert_eq!(hello.version, 1);
    raw.subscribe(0, 1).await.unwrap();
    loop {
        let frame = raw.tail().await.unwrap();
        assert_eq!(frame.head.epoch, hello.epoch, "{:?}", frame.head);
        if frame.head.through >= hello.acked {
            break;
        }
    }
    let (mut raw, _) = connect().await;
    raw.resume(0, 1, 1).await.unwrap();
    raw.expect_close(CloseCode::Padding).await;
}

#[tokio::test]
async fn a_silent_stream_says_so() {
    let rig = Rig::start(1);
    let end = rig.running().shards()[0].seq;
    let mut tail = reader(&rig, 0, 1).await;
    tail.tail_through(end).await;
    let heartbeat = loop {
        let frame = tail.tail().await.unwrap();
        if frame.records.is_empty() {
            break frame;
        }
    };
    assert!(heartbeat.head.through >= end);
    assert_eq!(heartbeat.head.first, heartbeat.head.through.next());
}

#[tokio::test]
async fn a_tenant_sees_its_own_records_only() {
    let rig = Rig::start_with(1, |config| config.durability = server::Durability::Fsync);
    let mut raw = rig.authorizer(0).await;
    let (reply, _) = raw.ask(lock(0)).await.unwrap();
    let mut own = Raw::connect(rig.address(0), &rig.identity("authorizer")).await.unwrap();
    own.greet(TENANT, &[]).await.unwrap();
    own.subscribe(0, 1).await.unwrap();
    let end = reply.seq;
    let records = own.tail_through(end).await;
    let of_tenant = |record: &Record| record.tenant == TENANT;
    let of_partition = |record: &Record| record.partition == rig::partition(0);
    for (seq, record) in &records {
        let is_part = record.kind() == Some(Kind::Continuation);
        assert!(is_part || of_tenant(record) || of_partition(record), "{seq} {record:?}");
    }
    assert_eq!(records.last().map(|(seq, _)| *seq), Some(reply.seq));
    assert!(records.iter().any(|(_, record)| record.kind() == Some(Kind::Deposit)));
    assert!(records.iter().all(|(_, record)| record.kind() != Some(Kind::TenantSet)));

    let stranger = rig::identity(&rig, 99, surety_protocol::Roles::READER);
    let mut stranger = Raw::connect(rig.address(0), &stranger).await.unwrap();
    stranger.greet(TenantId(99), &[]).await.unwrap();
    stranger.subscribe(0, 1).await.unwrap();
    assert!(stranger.tail_through(end).await.is_empty());
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up() {
    let rig = Rig::start(1);
    let _idle = reader(&rig, 0, 1).await;
    let mut raw = rig.authorizer(0).await;
    let frame: Vec<Record> = (0..1024).map(|_| lock(0)).collect();
    for _ in 0..20 {
        raw.requests(&frame).await.unwrap();
        raw.replies(frame.len()).await.unwrap();
    }
}

/// A server that keeps as little of its log as it may.
fn forgetful(cursor_records: u64) -> Rig {
    Rig::start_with(1, |config| {
        config.snapshot_records = 4096;
        config.retain_records = Some(0);
        config.cursor_records = cursor_records;
    })
}

/// Records that the snapshots may be behind: enough for the next one, which needs a checkpoint of the state hash.
const BEHIND_MAX: u64 = 3 << 16;

/// Fills segments until something holds that housekeeping brings about; the last seq that was answered. It waits for the
/// snapshots: the more there is, the longer one takes, and a busy machine would never catch up.
async fn fill_until(rig: &Rig, mut holds: impl AsyncFnMut() -> bool) -> Seq {
    let mut raw = rig.authorizer(0).await;
    let mut last = Seq(0);
    while !holds().await {
        if last.0 > rig.metric("surety_snapshot_seq", 0).await + BEHIND_MAX {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let frame: Vec<Record> = (0..256).map(|_| lock(0)).collect();
        raw.requests(&frame).await.unwrap();
        let (replies, _) = raw.replies(frame.len()).await.unwrap();
        last = replies.iter().map(|reply| reply.seq).max().unwrap().max(last);
    }
    last
}

/// Where the log begins.
fn oldest(rig: &Rig) -> Seq {
    let names = std::fs::read_dir(rig.path().join("shard-0")).unwrap();
    let segments = names.filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".wal").and_then(|first| first.parse().ok()).map(Seq)
    });
    segments.min().unwrap()
}

#[tokio::test]
async fn a_cursor_before_the_log_is_lost_and_told_where_it_begins() {
    let rig = forgetful(0);
    fill_until(&rig, async || oldest(&rig) > Seq(1)).await;
    let mut tail = reader(&rig, 0, 1).await;
    let frame = tail.tail().await.unwrap();
    assert_eq!(frame.status, TailStatus::Lost);
    let first = frame.head.first;
    assert!(first > Seq(1) && first <= oldest(&rig), "{first}");
    assert!(tail.recv.read_to_end(1).await.unwrap().is_empty(), "and the stream ends");
    // Where it begins now it can be read, once retention has come to rest.
    loop {
        let first = oldest(&rig);
        let frame = reader(&rig, 0, first.0).await.tail().await.unwrap();
        match frame.status {
            TailStatus::Records => break assert_eq!(frame.head.first, first),
            status => assert!(status == TailStatus::Lost && frame.head.first > first),
        }
    }
}

/// A reader that takes what it is sent only when it is asked to: its window holds less than a segment.
async fn slow_reader(rig: &Rig) -> Raw {
    let mut config = rig::client_config(&rig.identity("reader"));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(16_384_u32.into()).keep_alive_interval(Some(Duration::from_secs(1)));
    config.transport_config(Arc::new(transport));
    let mut raw = Raw::connect_with(rig.address(0), config).await.unwrap();
    raw.greet(TenantId(0), &[]).await.unwrap();
    raw.subscribe(0, 1).await.unwrap();
    raw
}

#[tokio::test]
async fn the_log_waits_for_a_slow_reader_up_to_its_quota() {
    let rig = forgetful(1 << 40);
    let mut slow = slow_reader(&rig).await;
    // Far more than a segment and than two snapshots need.
    let enough = 3 * SEGMENT / 128;
    let last = fill_until(&rig, async || rig.metric("surety_snapshot_seq", 0).await > enough).await;
    assert_eq!(oldest(&rig), Seq(1));
    let read = slow.tail_through(last).await;
    // A checkpoint may follow what was answered last.
    check_consecutive(&read, 1, read.last().unwrap().0);
    drop(slow);
    // Nobody needs it any more.
    fill_until(&rig, async || oldest(&rig) > Seq(1)).await;
}

#[tokio::test]
async fn a_slow_reader_past_its_quota_is_lost_and_fills_no_disk() {
    let rig = forgetful(1000);
    let mut slow = slow_reader(&rig).await;
    let enough = Seq(2 * SEGMENT / 128);
    fill_until(&rig, async || oldest(&rig) > enough).await;
    let mut next = Seq(1);
    let lost = loop {
        let frame = slow.tail().await.unwrap();
        if frame.status == TailStatus::Lost {
            break frame.head.first;
        }
        assert_eq!((frame.status, frame.head.first), (TailStatus::Records, next), "no gap before it is told");
        next = frame.head.through.next();
    };
    assert!(lost > next && next < enough);
}

fn snapshots(rig: &Rig) -> usize {
    let names = std::fs::read_dir(rig.path().join("shard-0")).unwrap();
    names
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "snapshot"))
        .count()
}

#[tokio::test]
async fn nothing_is_removed_that_is_not_archived() {
    let beside = tempfile::tempdir().unwrap();
    let place = beside.path().join("archive");
    // The archive is down: something stands in its way.
    std::fs::write(&place, "").unwrap();
    let rig = Rig::start_with(1, |config| {
        config.snapshot_records = 4096;
        config.retain_records = Some(0);
        config.cursor_records = 0;
        config.archive = Some(std::sync::Arc::new(backup::DirectoryDepot::new(&place)));
    });
    // Payments go on, and snapshots are made that would let the log go.
    fill_until(&rig, async || snapshots(&rig) >= 2).await;
    let second = rig.metric("surety_snapshot_seq", 0).await;
    fill_until(&rig, async || rig.metric("surety_snapshot_seq", 0).await > second).await;
    assert_eq!(oldest(&rig), Seq(1));
    assert!(rig.metric("surety_archive_failures_total", 0).await > 0);
    assert_eq!(rig.metric("surety_archived_seq", 0).await, 0);
    std::fs::remove_file(&place).unwrap();
    fill_until(&rig, async || oldest(&rig) > Seq(1)).await;
    // Whatever went is there, without a hole.
    let mut archived: Vec<u64> = std::fs::read_dir(place.join("shard-0"))
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().unwrap().strip_suffix(".wal")?.parse().ok()
        })
        .collect();
    archived.sort_unstable();
    assert_eq!(archived[0], 1);
    assert!(rig.metric("surety_archived_seq", 0).await >= oldest(&rig).0 - 1);
}

/// A place that takes everything and answers nothing, until it is let go.
#[derive(Debug, Default)]
struct Silent {
    is_asked: std::sync::atomic::AtomicBool,
    is_over: (std::sync::Mutex<bool>, std::sync::Condvar),
}

impl backup::Depot for Silent {
    fn put(&self, _: &str, _: &mut dyn std::io::Read) -> Result<(), backup::DepotError> {
        unreachable!("the place is asked first what it has")
    }

    fn get(&self, name: &str) -> Result<Box<dyn std::io::Read>, backup::DepotError> {
        self.is_asked.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut is_over = self.is_over.0.lock().unwrap();
        while !*is_over {
            is_over = self.is_over.1.wait(is_over).unwrap();
        }
        let source = std::io::ErrorKind::TimedOut.into();
        Err(backup::DepotError::Io { doing: "reading", place: self.place(), name: name.to_owned(), source })
    }

    fn names(&self) -> Result<Vec<String>, backup::DepotError> {
        Ok(Vec::new())
    }

    fn place(&self) -> String {
        "nowhere".to_owned()
    }
}

/// An archive that takes a segment when it is let.
#[derive(Debug)]
struct Slow {
    inner: backup::DirectoryDepot,
    asked: std::sync::atomic::AtomicUsize,
    /// How many may pass.
    may_pass: (std::sync::Mutex<usize>, std::sync::Condvar),
}

impl Slow {
    fn let_pass(&self, segments: usize) {
        *self.may_pass.0.lock().unwrap() = segments;
        self.may_pass.1.notify_all();
    }
}

impl backup::Depot for Slow {
    fn put(&self, name: &str, from: &mut dyn std::io::Read) -> Result<(), backup::DepotError> {
        if name.ends_with(".wal") {
            let number = self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut may_pass = self.may_pass.0.lock().unwrap();
            while *may_pass <= number {
                may_pass = self.may_pass.1.wait(may_pass).unwrap();
            }
        }
        self.inner.put(name, from)
    }

    fn get(&self, name: &str) -> Result<Box<dyn std::io::Read>, backup::DepotError> {
        self.inner.get(name)
    }

    fn names(&self) -> Result<Vec<String>, backup::DepotError> {
        self.inner.names()
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

#[tokio::test]
async fn an_archive_that_is_slower_than_the_log_grows_is_told() {
    let beside = tempfile::tempdir().unwrap();
    let slow = std::sync::Arc::new(Slow {
        inner: backup::DirectoryDepot::new(&beside.path().join("archive")),
        asked: std::sync::atomic::AtomicUsize::default(),
        may_pass: Default::default(),
    });
    let depot = std::sync::Arc::clone(&slow);
    let mut rig = Rig::start_with(1, |config| config.archive = Some(depot));
    let asked = || slow.asked.load(std::sync::atomic::Ordering::Relaxed);
    let segments = |rig: &Rig| {
        let names = std::fs::read_dir(rig.path().join("shard-0")).unwrap();
        names.filter(|name| name.as_ref().unwrap().path().extension().is_some_and(|end| end == "wal")).count()
    };
    // Two are complete, and both have waited.
    fill_until(&rig, async || asked() == 1 && segments(&rig) > 3).await;
    let waited = rig.metric("surety_archive_waiting_seconds", 0).await;
    fill_until(&rig, async || rig.metric("surety_archive_waiting_seconds", 0).await > waited + 2).await;
    // One is taken; the next has not begun to wait by that.
    slow.let_pass(1);
    fill_until(&rig, async || asked() == 2).await;
    assert!(rig.metric("surety_archived_seq", 0).await > 0);
    assert!(rig.metric("surety_archive_waiting_seconds", 0).await > 0);
    slow.let_pass(usize::MAX);
    rig.shutdown();
}

#[tokio::test]
async fn an_archive_that_hangs_is_told_and_does_not_hold_up_the_end() {
    let silent = std::sync::Arc::new(Silent::default());
    let depot = std::sync::Arc::clone(&silent);
    let mut rig = Rig::start_with(1, |config| config.archive = Some(depot));
    fill_until(&rig, async || silent.is_asked.load(std::sync::atomic::Ordering::Relaxed)).await;
    fill_until(&rig, async || rig.metric("surety_archive_waiting_seconds", 0).await > 0).await;
    // It ends while the archive still hangs: nobody has let it go.
    rig.shutdown();
    assert!(!*silent.is_over.0.lock().unwrap());
    *silent.is_over.0.lock().unwrap() = true;
    silent.is_over.1.notify_all();
}
