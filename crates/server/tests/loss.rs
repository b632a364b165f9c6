//! A server whose engine goes on from an older copy after a loss: who it refuses, what it tells readers, and how it lives on.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use engine::{AcceptedLoss, Begin};
use rig::{PATIENCE, Raw, Rig, TENANT, id, identity, lock, partition};
use server::{Durability, RestoredEpochs};
use storage::{DataDirectory, FileStorage, IoMode};
use surety_protocol::{
    Amount, ChangeBody, CloseCode, Code, ControlBody, Epoch, FrameKind, Hello, Kind, PartitionHandle, Record,
    Roles, Seq, ShardId, TailStatus, TenantId, Token,
};

/// What the life that is lost has told, and the server that goes on.
struct Lost {
    rig: Rig,
    /// A lock that only the lost life knew.
    lock: Record,
    /// A token from before the copy, and the last one of the lost life.
    kept_token: Token,
    lost_token: Token,
    /// The last record that is kept.
    kept: Seq,
    /// The epoch of the lost life, and its last record.
    lost_epoch: Epoch,
    lost_seq: Seq,
}

fn shard_path(data: &Path, shard: u16) -> PathBuf {
    data.join(format!("shard-{shard}"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn start() -> Rig {
    Rig::start_with(1, |config| config.durability = Durability::Fsync)
}

fn restart(rig: &mut Rig) {
    rig.restart_with(|config| config.durability = Durability::Fsync);
}

/// Puts copies of the shards back and lets them go on.
fn go_on(rig: &Rig, copied: &[&Path]) -> Vec<Seq> {
    let shards = 0..u16::try_from(copied.len()).unwrap();
    let opened: Vec<(Epoch, Seq)> =
        shards.zip(copied).map(|(shard, copied)| go_on_with(rig, ShardId(shard), copied)).collect();
    // A backup does not have it.
    std::fs::remove_file(rig.path().join("keys/reset.key")).unwrap();
    let restored: Vec<RestoredEpochs> = opened
        .iter()
        .map(|(epoch, kept)| RestoredEpochs { archived: Vec::new(), opened: (*epoch, kept.next()) })
        .collect();
    server::furnish_restored(rig.path(), &restored).unwrap();
    opened.into_iter().map(|(_, kept)| kept).collect()
}

/// One shard of them: its epoch, and the last record that is kept.
fn go_on_with(rig: &Rig, shard: ShardId, copied: &Path) -> (Epoch, Seq) {
    let path = shard_path(rig.path(), shard.0);
    std::fs::remove_dir_all(&path).unwrap();
    copy(copied, &path);
    let directory = DataDirectory::open(rig.path()).unwrap();
    let metadata = directory.metadata();
    drop(directory);
    let config = engine::Config {
        id_window: metadata.id_window,
        segment_bytes: rig::SEGMENT,
        ..engine::Config::new(metadata.engine, shard)
    };
    let mut storage = FileStorage::open(&path, IoMode::Sync).unwrap();
    let recovered = engine::recover(config, &mut storage, Begin::Oldest, |_| {}).unwrap();
    let kept = recovered.report().last_seq;
    let now = server::readings().wall;
    let noted = server::last_noted_epoch(rig.path(), shard).unwrap();
    let accepted = AcceptedLoss { life: 9, until: now };
    let mut engine = recovered.open_after_loss(&mut storage, now, accepted, noted).unwrap();
    engine.stop(now);
    while !engine.is_stopped() {
        if let Some(write) = engine.poll_write(now) {
            write.perform(&mut storage).unwrap();
            engine.on_written(write);
        } else if let Some((name, bytes)) = engine.wants_reserve() {
            wal::create_reserve(&mut storage, name, bytes).unwrap();
            engine.reserve_created(name);
        }
    }
    (engine.epoch(), kept)
}

async fn lost() -> Lost {
    let mut rig = start();
    let (_, kept_token) = rig.authorizer(0).await.ask(lock(0)).await.unwrap();
    rig.shutdown();
    let copied = tempfile::tempdir().unwrap();
    copy(&shard_path(rig.path(), 0), copied.path());
    restart(&mut rig);
    let request = lock(0);
    let mut raw = rig.authorizer(0).await;
    for _ in 0..20 {
        raw.ask(lock(0)).await.unwrap();
    }
    let (reply, lost_token) = raw.ask(request).await.unwrap();
    assert_eq!(reply.code(), Code::Approved);
    drop(raw);
    rig.shutdown();
    let kept = go_on(&rig, &[copied.path()])[0];
    restart(&mut rig);
    let (lost_epoch, lost_seq) = (reply.epoch, reply.seq);
    Lost { rig, lock: request, kept_token, lost_token, kept, lost_epoch, lost_seq }
}

#[tokio::test]
async fn tokens_of_the_lost_life_are_refused_and_are_no_fork() {
    let lost = lost().await;
    let greet = async |tokens: &[Token]| {
        let mut raw = Raw::connect(lost.rig.address(0), &lost.rig.identity("authorizer")).await.unwrap();
        let greeted = raw.greet(TENANT, tokens).await.is_ok();
        (raw, greeted)
    };
    assert!(greet(&[lost.kept_token]).await.1);
    let (raw, greeted) = greet(&[lost.lost_token]).await;
    assert!(!greeted);
    raw.expect_close(CloseCode::LostLife).await;
    assert!(!lost.rig.running().is_forked(), "what is known to be lost proves nothing");
    let (raw, greeted) = greet(&[lost.kept_token, lost.lost_token]).await;
    assert!(!greeted);
    raw.expect_close(CloseCode::LostLife).await;
    assert!(greet(&[]).await.1);
}

#[tokio::test]
async fn who_speaks_the_first_version_alone_is_refused_after_a_loss_and_not_before() {
    let hello = Hello { version_min: 1, version_max: 1, ..Hello::new(TENANT, "old") }.to_body(&[]);
    let rig = start();
    let mut raw = Raw::connect(rig.address(0), &rig.identity("authorizer")).await.unwrap();
    raw.frame(FrameKind::Hello, 0, &hello).await.unwrap();
    assert_eq!(raw.receive().await.unwrap().0.kind, FrameKind::HelloReply);
    let lost = lost().await;
    let mut raw = Raw::connect(lost.rig.address(0), &lost.rig.identity("authorizer")).await.unwrap();
    raw.frame(FrameKind::Hello, 0, &hello).await.unwrap();
    raw.expect_close(CloseCode::UnknownVersion).await;
}

#[tokio::test]
async fn readers_are_told_of_the_loss_whatever_they_know() {
    let lost = lost().await;
    let ask = async |from: u64, epoch: u32| {
        let mut raw = Raw::connect(lost.rig.address(0), &lost.rig.identity("reader")).await.unwrap();
        raw.greet(TenantId(0), &[]).await.unwrap();
        raw.resume(0, from, epoch).await.unwrap();
        let frame = raw.tail().await.unwrap();
        (frame.status, frame.head.first)
    };
    let first = lost.kept.next();
    // The lost life read on: with its epoch, and from before there were any. The new life is shorter than the lost one, too.
    assert_eq!(ask(first.0 + 1, lost.lost_epoch.0).await, (TailStatus::Parted, first));
    assert_eq!(ask(first.0 + 1, 0).await, (TailStatus::Parted, first));
    let beyond = ask(lost.lost_seq.0 + 1, lost.lost_epoch.0).await.0;
    assert_eq!(beyond, TailStatus::Parted, "however far it is in the lost life");
    // What all lives agree on may be read on from, and then the record says it; to tenants, too.
    assert_eq!(ask(first.0, 0).await.0, TailStatus::Records);
    let tenant = identity(&lost.rig, TENANT.0, Roles::READER);
    for (name, tenant_id) in [(lost.rig.identity("reader"), TenantId(0)), (tenant, TENANT)] {
        let mut raw = Raw::connect(lost.rig.address(0), &name).await.unwrap();
        raw.greet(tenant_id, &[]).await.unwrap();
        raw.subscribe(0, 1).await.unwrap();
        let records = raw.tail_through(first.next()).await;
        let told = records.iter().find(|(_, record)| record.kind() == Some(Kind::Loss));
        assert_eq!(told.map(|(seq, _)| *seq), Some(first.next()), "{tenant_id:?}");
    }
}

/// Waits until the gauge of the only partition says so.
async fn told_unreconciled(rig: &Rig, count: u64) {
    let line = format!("surety_partitions_unreconciled{{shard=\"0\",asset=\"1\"}} {count}");
    let admin = rig.running().admin().unwrap();
    let begun = Instant::now();
    loop {
        let (_, page) = rig::http(admin, "/metrics").await;
        if page.lines().any(|told| told == line) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "no line {line} in {page}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn nothing_is_served_before_it_is_reconciled_and_what_is_lost_never() {
    let mut lost = lost().await;
    let request = lost.lock;
    for is_restarted in [false, true] {
        if is_restarted {
            lost.rig.kill();
            restart(&mut lost.rig);
        }
        let mut raw = lost.rig.authorizer(0).await;
        assert_eq!(raw.ask(request).await.unwrap().0.code(), Code::UnknownAfterRestore);
        assert_eq!(raw.ask(lock(0)).await.unwrap().0.code(), Code::UnknownAfterRestore);
    }
    told_unreconciled(&lost.rig, 1).await;
    let body = ControlBody { user: 7, ..ControlBody::default() };
    let handle: PartitionHandle = partition(0);
    let begun = Instant::now();
    // Its own id is of the lost window for the first seconds.
    loop {
        let mut admin = lost.rig.operator("admin", 0).await;
        let record = Record::new(Kind::Reconcile, id(), handle, Amount::ZERO, &body);
        match admin.ask(record).await.unwrap().0.code() {
            Code::Approved => break,
            code => assert!(code == Code::UnknownAfterRestore && begun.elapsed() < PATIENCE, "{code}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    told_unreconciled(&lost.rig, 0).await;
    let mut raw = lost.rig.authorizer(0).await;
    assert_eq!(raw.ask(lock(0)).await.unwrap().0.code(), Code::Approved);
    assert_eq!(raw.ask(request).await.unwrap().0.code(), Code::UnknownAfterRestore);
    let body = ChangeBody { lock: request.id, ..ChangeBody::default() };
    let look = Record::new(Kind::Lookup, id(), handle, Amount::ZERO, &body);
    assert_eq!(raw.ask(look).await.unwrap().0.code(), Code::UnknownAfterRestore);
}

/// What the files of a directory hold.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), std::fs::read(&file).unwrap())).collect()
}

/// A closed directory of two shards that goes on after a loss, and has not been served since.
fn two_lost() -> Rig {
    let mut rig = Rig::start_with(2, |config| config.durability = Durability::Fsync);
    rig.shutdown();
    let copied = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    copy(&shard_path(rig.path(), 0), copied[0].path());
    copy(&shard_path(rig.path(), 1), copied[1].path());
    go_on(&rig, &[copied[0].path(), copied[1].path()]);
    rig
}

/// Everything that a start changes.
fn everything(rig: &Rig) -> Vec<BTreeMap<PathBuf, Vec<u8>>> {
    [shard_path(rig.path(), 0), shard_path(rig.path(), 1), rig.path().join("epochs")]
        .iter()
        .map(|path| contents(path))
        .collect()
}

#[test]
fn no_shard_begins_before_the_archives_of_all_are_compared() {
    let mut rig = two_lost();
    // What the lost life has archived of the second shard.
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("shard-1")).unwrap();
    std::fs::write(place.path().join("shard-1").join(format!("{:020}.wal", 900_000)), "lost").unwrap();
    let before = everything(&rig);
    let mut config = rig.config();
    config.archive = Some(Arc::new(backup::DirectoryDepot::new(place.path())));
    let refused = server::Server::start(config).expect_err("refused").to_string();
    assert!(
        refused.contains("a life of this engine that is lost") || refused.contains("another life"),
        "{refused}"
    );
    assert!(before == everything(&rig), "the first shard was not begun");
    // Elsewhere both go on.
    let fresh = tempfile::tempdir().unwrap();
    rig.restart_with(|config| config.archive = Some(Arc::new(backup::DirectoryDepot::new(fresh.path()))));
}

/// An archive that notes what is listed of it, and answers no such question while it is silent.
#[derive(Debug)]
struct Listed {
    inner: backup::DirectoryDepot,
    asked: Mutex<Vec<String>>,
    is_silent: Mutex<bool>,
    speaks: Condvar,
}

impl Listed {
    fn at(place: &Path) -> Arc<Self> {
        Arc::new(Self {
            inner: backup::DirectoryDepot::new(place),
            asked: Mutex::default(),
            is_silent: Mutex::default(),
            speaks: Condvar::new(),
        })
    }

    fn be_silent(&self, is_silent: bool) {
        *self.is_silent.lock().unwrap() = is_silent;
        self.speaks.notify_all();
    }

    fn list(&self, what: &str) {
        self.asked.lock().unwrap().push(what.to_owned());
        let mut is_silent = self.is_silent.lock().unwrap();
        while *is_silent {
            is_silent = self.speaks.wait(is_silent).unwrap();
        }
    }

    /// What was listed since the last such question, in order.
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked
    }
}

impl backup::Depot for Listed {
    fn put(&self, name: &str, from: &mut dyn std::io::Read) -> Result<(), backup::DepotError> {
        self.inner.put(name, from)
    }

    fn get(&self, name: &str) -> Result<Box<dyn std::io::Read>, backup::DepotError> {
        self.inner.get(name)
    }

    fn names(&self) -> Result<Vec<String>, backup::DepotError> {
        self.list("everything");
        self.inner.names()
    }

    fn names_in(&self, directory: &str) -> Result<Vec<String>, backup::DepotError> {
        self.list(directory);
        self.inner.names_in(directory)
    }

    fn has_any(&self, is_meant: &dyn Fn(&str) -> bool) -> Result<bool, backup::DepotError> {
        self.inner.has_any(is_meant)
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

#[test]
fn each_shard_lists_no_more_of_an_archive_than_its_own() {
    let mut rig = two_lost();
    let place = tempfile::tempdir().unwrap();
    let archive = Listed::at(place.path());
    for _ in 0..2 {
        let depot = Arc::clone(&archive);
        rig.restart_with(|config| config.archive = Some(depot));
        assert_eq!(archive.asked(), ["shard-0", "shard-1"]);
        rig.shutdown();
    }
}

#[test]
fn a_start_that_waits_for_an_archive_ends_when_it_is_told_to_and_changes_nothing() {
    let mut rig = two_lost();
    let place = tempfile::tempdir().unwrap();
    let archive = Listed::at(place.path());
    archive.be_silent(true);
    let before = everything(&rig);
    let mut config = rig.config();
    config.archive = Some(Arc::<Listed>::clone(&archive));
    let stop = config.stop.clone();
    let starting = std::thread::spawn(move || server::Server::start(config).expect_err("stopped"));
    let begun = Instant::now();
    while archive.asked.lock().unwrap().len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "nobody compares");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    stop.order();
    let error = starting.join().unwrap();
    assert_eq!(error.failure(), server::StartFailure::Stopped, "{error}");
    assert!(before == everything(&rig), "nothing was begun");
    assert!(!rig.path().join("archived").exists(), "and nothing noted");
    archive.be_silent(false);
    rig.restart_with(|config| config.archive = Some(archive));
}

#[tokio::test]
async fn an_archive_that_was_compared_and_falls_silent_holds_up_no_start() {
    let mut rig = two_lost();
    let place = tempfile::tempdir().unwrap();
    let archive = Listed::at(place.path());
    let depot = Arc::clone(&archive);
    rig.restart_with(|config| config.archive = Some(depot));
    rig.shutdown();
    archive.be_silent(true);
    archive.asked();
    let depot = Arc::clone(&archive);
    rig.restart_with(|config| config.archive = Some(depot));
    assert_eq!(archive.asked(), ["shard-0", "shard-1"], "it was asked, and has not answered");
    for shard in [0, 1] {
        let answer = rig.authorizer(shard).await.ask(lock(shard)).await.unwrap().0;
        assert_eq!(answer.code(), Code::UnknownAfterRestore, "requests are answered all the same");
    }
    archive.be_silent(false);
}
