//! A server's life: start, kill, recover, drain, seal, refuse.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::fs;
use std::time::{Duration, SystemTime};

use rig::{Ended, Raw, Rig, TENANT, http, id, lock};
use server::{Durability, IoMode, StartFailure};
use surety_protocol::limits::CONNECTION_IN_FLIGHT_MAX;
use surety_protocol::{CloseCode, Code, Epoch, FrameKind, Id, Record, Seq, Time, Token};

/// A shard that is told to look for requests so long does not go to sleep between any two of a test.
const NEVER_ASLEEP: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_was_answered_is_there_after_every_kind_of_end() {
    for (durability, io, busy_poll) in [
        (Durability::Os, IoMode::Sync, Duration::ZERO),
        (Durability::Fsync, IoMode::Sync, Duration::ZERO),
        (Durability::Fsync, IoMode::Direct, Duration::ZERO),
        (Durability::Os, IoMode::Direct, NEVER_ASLEEP),
        (Durability::Fsync, IoMode::Direct, NEVER_ASLEEP),
    ] {
        let mut rig = Rig::stopped(1);
        let change = |config: &mut server::Config| {
            (config.durability, config.io, config.busy_poll) = (durability, Some(io), busy_poll);
        };
        let mut answered = Seq(0);
        for (round, seals) in [(1, true), (2, false), (3, false), (4, true)] {
            rig.restart_with(change);
            let start = rig.running().shards()[0].clone();
            assert_eq!(start.epoch, Epoch(round + 1), "the first epoch is that of `init`");
            assert!(start.seq > answered, "{durability:?} {io:?} round {round}: {start:?} after {answered}");
            let mut raw = rig.authorizer(0).await;
            for _ in 0..20 {
                let (reply, _) = raw.ask(lock(0)).await.unwrap();
                assert_eq!(reply.code(), Code::Approved);
                answered = answered.max(reply.seq);
            }
            if seals {
                let end = rig.shutdown()[0];
                assert_eq!(end.seq, end.synced);
                assert!(end.seq >= answered);
            } else {
                rig.kill();
            }
        }
    }
}

#[tokio::test]
async fn a_drain_answers_what_was_taken_says_goodbye_and_closes() {
    drains(Duration::ZERO).await;
}

/// Timers, other shards, orders and the disk are all heard by a thread that does not go to sleep.
#[tokio::test]
async fn shards_that_poll_drain_and_end_too() {
    drains(NEVER_ASLEEP).await;
}

async fn drains(busy_poll: Duration) {
    let mut rig = Rig::start_with(2, |config| {
        (config.durability, config.busy_poll) = (Durability::Fsync, busy_poll);
    });
    let mut raw = rig.authorizer(0).await;
    let records: Vec<Record> = (0..200).map(|i| lock(i % 2)).collect();
    for chunk in records.chunks(10) {
        raw.requests(chunk).await.unwrap();
    }
    // The first answer shows that the server is at work.
    let (first, _) = raw.replies(1).await.unwrap();
    let running = rig.running.take().unwrap();
    let stop = tokio::task::spawn_blocking(move || running.shutdown());
    let mut answers = first.len();
    let mut said_goodbye = false;
    let code = loop {
        match raw.receive().await {
            Ok((header, _)) if header.kind == FrameKind::Goodbye => said_goodbye = true,
            Ok((header, _)) => answers += usize::from(header.count),
            Err(Ended::Code(code)) => break code,
            Err(Ended::Other(other)) => panic!("{other}"),
        }
    };
    let ends = stop.await.unwrap();
    assert!(said_goodbye);
    assert_eq!(code, CloseCode::Draining);
    assert!(answers <= records.len());
    for end in ends {
        assert_eq!(end.seq, end.synced, "sealed and synced");
    }
    rig.restart();
    assert!(rig.running().shards().iter().all(|start| start.torn.is_none()));
}

#[test]
fn directories_that_cannot_be_served_are_refused_with_a_reason() {
    let check = |rig: &Rig, expect| {
        let error = rig.try_start().unwrap_err();
        assert_eq!(error.failure(), expect, "{error}");
        assert_eq!(error.to_string().lines().count(), 1, "one line: {error}");
    };
    let rig = Rig::start(1);
    check(&rig, StartFailure::Busy);

    let rig = Rig::stopped(1);
    let metadata = rig.path().join("engine.toml");
    let text = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, text.replace("format = 2", "format = 3")).unwrap();
    check(&rig, StartFailure::Newer);
    fs::write(&metadata, "hello").unwrap();
    check(&rig, StartFailure::Foreign);
    fs::remove_file(&metadata).unwrap();
    check(&rig, StartFailure::Foreign);
    fs::remove_dir_all(rig.path()).unwrap();
    check(&rig, StartFailure::Missing);

    // A copy for looking at, and one that was never whole.
    let rig = Rig::stopped(1);
    let metadata = rig.path().join("engine.toml");
    let text = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, text + "forensic = true\n").unwrap();
    check(&rig, StartFailure::Forensic);
    fs::write(rig.path().join("RESTORING"), "").unwrap();
    check(&rig, StartFailure::Foreign);

    // The log of another engine.
    let (rig, other) = (Rig::stopped(1), Rig::stopped(1));
    fs::remove_dir_all(rig.path().join("shard-0")).unwrap();
    fs::rename(other.path().join("shard-0"), rig.path().join("shard-0")).unwrap();
    check(&rig, StartFailure::Foreign);

    let rig = Rig::stopped(2);
    fs::remove_dir_all(rig.path().join("shard-1")).unwrap();
    check(&rig, StartFailure::Corrupt);

    let rig = Rig::stopped(1);
    fs::remove_file(server::pki_path(rig.path()).join("ca.pem")).unwrap();
    check(&rig, StartFailure::NoCertificate);
    let rig = Rig::stopped(1);
    fs::write(server::pki_path(rig.path()).join("ca.pem"), "no PEM").unwrap();
    check(&rig, StartFailure::Pki);
    let rig = Rig::stopped(1);
    fs::write(rig.path().join("keys/token.key"), "short").unwrap();
    check(&rig, StartFailure::Pki);
}

#[test]
fn the_log_goes_past_the_page_cache_unless_the_settings_say_otherwise() {
    let parent = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = parent.path().join("data");
    server::init(&data, 1, rig::SEGMENT).unwrap();
    let start = |io| {
        let config = server::Config { io, listen: None, free_bytes_min: 0, ..server::Config::new(&data) };
        let running = server::Server::start(config).unwrap();
        let io = running.io();
        running.shutdown();
        io
    };
    assert_eq!(start(None), IoMode::for_directory(&data.join("shard-0")).unwrap());
    assert_eq!(start(Some(IoMode::Sync)), IoMode::Sync);
}

#[tokio::test]
async fn a_directory_keeps_its_window_of_ids() {
    let hour = Time::from_secs(3600);
    let directory = tempfile::tempdir().unwrap();
    let options =
        server::InitOptions { segment_bytes: rig::SEGMENT, id_window: hour, ..server::InitOptions::new(1) };
    server::init_with(directory.path(), &options).unwrap();
    let mut rig = Rig::of(directory, 1);
    for other in [Time::from_secs(120), Time::from_secs(7200)] {
        let before = listing(&rig);
        let config = server::Config { id_window: Some(other), ..rig.config() };
        let error = server::Server::start(config).unwrap_err();
        assert_eq!(error.failure(), StartFailure::Settings, "{error}");
        assert_eq!(listing(&rig), before);
    }
    rig.restart_with(|config| config.id_window = Some(hour));
    // Half an hour old: stale by the default, not here; and again after a replay by the directory's own word.
    let half = Time::from_secs(1800);
    let old = |record: Record| Record {
        id: Id::from_parts(record.id.time().minus(half), record.id.0 & 0xffff),
        ..record
    };
    let mut raw = rig.authorizer(0).await;
    assert_eq!(raw.ask(old(lock(0))).await.unwrap().0.code(), Code::Approved);
    rig.shutdown();
    rig.restart();
    let mut raw = rig.authorizer(0).await;
    assert_eq!(raw.ask(old(lock(0))).await.unwrap().0.code(), Code::Approved);
    let older = Record { id: Id::from_parts(id().time().minus(hour).minus(half), 5), ..lock(0) };
    assert_eq!(raw.ask(older).await.unwrap().0.code(), Code::StaleId);
}

#[test]
fn a_taken_port_is_named_and_nothing_is_changed() {
    let mut rig = Rig::stopped(2);
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let before = listing(&rig);
    let mut config = rig.config();
    config.listen = Some(address);
    let error = server::Server::start(config).unwrap_err();
    assert_eq!(error.failure(), StartFailure::PortTaken);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(listing(&rig), before);
    rig.restart();
}

/// Every file below the directory, with its length.
fn listing(rig: &Rig) -> Vec<(std::path::PathBuf, u64, SystemTime)> {
    let mut found = Vec::new();
    let mut open = vec![rig.path().to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                open.push(entry.path());
            } else if entry.file_name() != "LOCK" {
                found.push((entry.path(), metadata.len(), metadata.modified().unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_clock_far_from_the_log_must_be_accepted() {
    let mut rig = Rig::start(1);
    rig.shutdown();
    let before = listing(&rig);
    let mut config = rig.config();
    config.clock_gap_max = Duration::ZERO;
    let error = server::Server::start(config.clone()).unwrap_err();
    assert_eq!(error.failure(), StartFailure::ClockGap, "{error}");
    assert_eq!(listing(&rig), before, "nothing is changed");
    server::accept_clock(rig.path(), "a test").unwrap();
    server::Server::start(config.clone()).unwrap().shutdown();
    // Accepted once, not for ever.
    assert_eq!(server::Server::start(config).unwrap_err().failure(), StartFailure::ClockGap);
}

#[tokio::test]
async fn a_token_from_the_future_stops_everything() {
    let mut rig = Rig::start(2);
    let copy = tempfile::tempdir().unwrap();
    rig.shutdown();
    copy_directory(rig.path(), copy.path());
    rig.restart();
    let mut raw = rig.authorizer(0).await;
    let mut token: Option<Token> = None;
    // Until the background sync has passed the answers.
    while token.is_none_or(|token| token.synced.0 < rig.running().shards()[0].seq.0 + 3) {
        let (reply, newer) = raw.ask(lock(0)).await.unwrap();
        assert_eq!(reply.code(), Code::Approved);
        token = Some(newer);
    }
    rig.shutdown();
    // The old copy is put back.
    fs::remove_dir_all(rig.path()).unwrap();
    copy_directory(copy.path(), rig.path());
    rig.restart();
    let mut innocent = rig.authorizer(1).await;
    let identity = rig.identity("authorizer");
    let mut witness = Raw::connect(rig.address(1), &identity).await.unwrap();
    // The copy has opened the same epoch, but never said so much.
    assert!(witness.greet(TENANT, &[token.unwrap()]).await.is_err());
    witness.expect_close(CloseCode::Fork).await;
    innocent.expect_close(CloseCode::Fork).await;
    let mut late = Raw::connect(rig.address(0), &identity).await.unwrap();
    let _ = late.greet(TENANT, &[]).await;
    late.expect_close(CloseCode::Fork).await;
    assert!(rig.running().is_forked());
    let (status, body) = http(rig.running().admin().unwrap(), "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("forked"));
    let _ = innocent.ask(lock(0)).await;
}

#[test]
fn a_log_that_is_older_than_its_notes_is_refused() {
    let mut rig = Rig::start(1);
    rig.shutdown();
    let copy = tempfile::tempdir().unwrap();
    copy_directory(&rig.path().join("shard-0"), copy.path());
    rig.restart();
    rig.shutdown();
    fs::remove_dir_all(rig.path().join("shard-0")).unwrap();
    copy_directory(copy.path(), &rig.path().join("shard-0"));
    let error = rig.try_start().unwrap_err();
    assert_eq!(error.failure(), StartFailure::Corrupt, "{error}");
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.metadata().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_rotten_log_is_refused_and_left_as_it_is() {
    let mut rig = Rig::start_with(1, |config| config.durability = Durability::Fsync);
    let mut raw = rig.authorizer(0).await;
    for _ in 0..5 {
        raw.ask(lock(0)).await.unwrap();
    }
    rig.shutdown();
    let segment = rig.path().join("shard-0/00000000000000000001.wal");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4096 * 3 + 300] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let before = listing(&rig);
    let error = rig.try_start().unwrap_err();
    assert_eq!(error.failure(), StartFailure::Corrupt, "{error}");
    assert_eq!(listing(&rig), before);
}

#[tokio::test]
async fn more_than_a_connection_may_have_unanswered_is_answered_at_once() {
    let rig = Rig::start_with(1, |config| config.durability = Durability::Fsync);
    let mut raw = rig.authorizer(0).await;
    let frames = CONNECTION_IN_FLIGHT_MAX / 1024 + 8;
    let frame: Vec<Record> = (0..1024).map(|_| lock(0)).collect();
    for _ in 0..frames {
        raw.requests(&frame).await.unwrap();
    }
    let (replies, _) = raw.replies(frames * 1024).await.unwrap();
    assert_eq!(replies.len(), frames * 1024, "each request is answered, once");
    let approved = replies.iter().filter(|reply| reply.code() == Code::Approved).count();
    let overloaded = replies.iter().filter(|reply| reply.code() == Code::Overloaded).count();
    assert_eq!(approved + overloaded, replies.len());
    assert!(approved > 0);
}

#[tokio::test]
async fn peers_of_a_killed_server_are_reset_by_the_next_one() {
    let mut rig = Rig::start(1);
    let address = rig.address(0);
    let mut raw = rig.authorizer(0).await;
    rig.kill();
    rig.restart_with(|config| config.listen = Some(address));
    // Something must arrive for the server to answer; the stream itself may still take it.
    let _ = raw.requests(&[lock(0)]).await;
    let ended = tokio::time::timeout(rig::PATIENCE, raw.connection.closed()).await.unwrap();
    assert!(matches!(ended, quinn::ConnectionError::Reset), "{ended}");
}
