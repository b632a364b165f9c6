//! How a server ends when the network loses packets, and when the disk is full.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rig::{Ended, Raw, Rig, TENANT, id, lock, partition};
use server::Durability;
use surety_protocol::{Amount, ChangeBody, CloseCode, Code, FrameKind, Kind, Record, Seq};
use tokio::net::UdpSocket;
use tokio::sync::watch;

/// The way from the server to one client.
#[derive(Default)]
struct Path {
    /// Nothing arrives.
    is_cut: AtomicBool,
    /// A packet takes its time, and one in ten is lost.
    is_slow: AtomicBool,
}

/// What a packet takes on a slow path.
const PACKET: Duration = Duration::from_millis(1);

/// Carries packets between whoever writes to the returned address and the server.
async fn proxy(server: SocketAddr, path: Arc<Path>) -> SocketAddr {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    far.connect(server).await.unwrap();
    let address = near.local_addr().unwrap();
    let (client, clients) = watch::channel(None);
    let (up_near, up_far) = (Arc::clone(&near), Arc::clone(&far));
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        loop {
            let Ok((length, from)) = up_near.recv_from(&mut packet).await else { continue };
            client.send_replace(Some(from));
            let _ = up_far.send(&packet[..length]).await;
        }
    });
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        for number in 0_u64.. {
            let Ok(length) = far.recv(&mut packet).await else { continue };
            let Some(client) = *clients.borrow() else { continue };
            let mut is_lost = path.is_cut.load(Ordering::Relaxed);
            if path.is_slow.load(Ordering::Relaxed) {
                tokio::time::sleep(PACKET).await;
                is_lost |= number.is_multiple_of(10);
            }
            if !is_lost {
                let _ = near.send_to(&packet[..length], client).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn every_answer_arrives_before_the_end_however_the_network_is() {
    let mut rig = Rig::start_with(1, |config| {
        config.durability = Durability::Fsync;
        config.limits.drain = 2 * rig::PATIENCE;
    });
    let path = Arc::new(Path::default());
    let near = proxy(rig.address(0), Arc::clone(&path)).await;
    let mut raw = Raw::connect(near, &rig.identity("authorizer")).await.unwrap();
    raw.greet(TENANT, &[]).await.unwrap();
    let base = rig.metric("surety_frames_total", 0).await;
    // A stream that this side has already ended is owed its answers as well.
    let mut ended = raw.another_stream().await;
    ended.greet(TENANT, &[]).await.unwrap();
    path.is_slow.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let frame: Vec<Record> = (0..1000).map(|_| lock(0)).collect();
        raw.requests(&frame).await.unwrap();
    }
    let frame: Vec<Record> = (0..1000).map(|_| lock(0)).collect();
    ended.requests(&frame).await.unwrap();
    ended.send.finish().unwrap();
    // All of it has arrived and is logged; hardly any of the answers has.
    while rig.metric("surety_frames_total", 0).await < base + 4 {
        tokio::task::yield_now().await;
    }
    let running = rig.running.take().unwrap();
    let stop = tokio::task::spawn_blocking(move || running.shutdown());
    assert_eq!(until_closed(&mut raw).await, (3000, true));
    // Its goodbye may be its end.
    assert_eq!(until_closed(&mut ended).await.0, 1000);
    assert!(stop.await.unwrap()[0].is_sealed);
}

/// The answers of a stream, and whether it said goodbye. The word that closes the connection may itself be lost.
async fn until_closed(raw: &mut Raw) -> (usize, bool) {
    let (mut answers, mut said_goodbye) = (0, false);
    loop {
        match raw.receive().await {
            Ok((header, _)) if header.kind == FrameKind::Goodbye => said_goodbye = true,
            Ok((header, _)) => answers += usize::from(header.count),
            Err(Ended::Code(CloseCode::Draining) | Ended::Other(_)) => return (answers, said_goodbye),
            Err(Ended::Code(code)) => panic!("{}", code.name()),
        }
    }
}

#[tokio::test]
async fn a_client_that_is_gone_does_not_hold_up_the_end() {
    let mut rig = Rig::start_with(1, |config| config.limits.drain = Duration::from_millis(300));
    let path = Arc::new(Path::default());
    let near = proxy(rig.address(0), Arc::clone(&path)).await;
    let mut raw = Raw::connect(near, &rig.identity("authorizer")).await.unwrap();
    raw.greet(TENANT, &[]).await.unwrap();
    path.is_cut.store(true, Ordering::Relaxed);
    raw.requests(&[lock(0)]).await.unwrap();
    let running = rig.running.take().unwrap();
    let stop = tokio::task::spawn_blocking(move || running.shutdown());
    let ends = tokio::time::timeout(rig::PATIENCE, stop).await.expect("an end").unwrap();
    assert!(ends[0].is_sealed && ends[0].seq == ends[0].synced);
}

/// A capture of a lock that does not exist: declined, recorded, and in need of no collateral.
fn decline() -> Record {
    let body = ChangeBody { lock: id(), ..ChangeBody::default() };
    Record::new(Kind::Capture, id(), partition(0), Amount(1), &body)
}

/// Asks until an answer is a refusal; the last seq that was answered. Every request has an answer, also on a full disk.
async fn fill(rig: &Rig) -> Seq {
    let mut raw = rig.authorizer(0).await;
    let mut answered = Seq(0);
    loop {
        let requests: Vec<Record> = (0..1000).map(|_| decline()).collect();
        raw.requests(&requests).await.unwrap();
        let mut missing = requests.len();
        while missing > 0 {
            let (replies, _) = raw.replies(1).await.unwrap();
            missing -= replies.len();
            if replies.iter().any(|reply| reply.code() != Code::UnknownLock) {
                return answered;
            }
            answered = replies.iter().map(|reply| reply.seq).fold(answered, Seq::max);
        }
    }
}

#[tokio::test]
async fn a_full_disk_ends_in_bounded_time_with_its_seal_and_loses_nothing() {
    for durability in [Durability::Os, Durability::Fsync] {
        let mut rig = Rig::start_with(1, |config| config.durability = durability);
        rig.shutdown();
        rig.restart_with(|config| {
            config.durability = durability;
            // No file system has room for such a segment; those in reserve are used up first.
            config.segment_bytes = 1 << 46;
        });
        let answered = fill(&rig).await;
        let running = rig.running.take().unwrap();
        let stop = tokio::task::spawn_blocking(move || running.shutdown());
        let end = tokio::time::timeout(rig::PATIENCE, stop).await.expect("an end").unwrap()[0];
        assert!(end.is_sealed && end.seq >= answered, "{end:?} {answered}");
        // With room again it goes on from there.
        rig.restart_with(|config| config.durability = durability);
        assert!(rig.running().shards()[0].seq > answered);
        assert_eq!(once_there_is_a_reserve(&rig).await, Code::Approved);
    }
}

/// A lock's answer. While a slow disk is still making the reserve that was used up, it is refused, which executes nothing.
async fn once_there_is_a_reserve(rig: &Rig) -> Code {
    let mut raw = rig.authorizer(0).await;
    let request = lock(0);
    let answer = async {
        loop {
            match raw.ask(request).await.unwrap().0.code() {
                Code::Overloaded => tokio::task::yield_now().await,
                code => return code,
            }
        }
    };
    tokio::time::timeout(rig::PATIENCE, answer).await.expect("a reserve")
}

#[tokio::test]
async fn near_a_full_disk_locks_are_declined_and_everything_else_goes_on() {
    let mut rig = Rig::start(1);
    let mut raw = rig.authorizer(0).await;
    let (held, _) = raw.ask(lock(0)).await.unwrap();
    assert_eq!(held.code(), Code::Approved);
    rig.shutdown();
    rig.restart_with(|config| config.free_bytes_min = u64::MAX);
    let mut raw = rig.authorizer(0).await;
    // The free space is looked at soon after the start.
    while raw.ask(lock(0)).await.unwrap().0.code() != Code::StorageLow {
        tokio::task::yield_now().await;
    }
    let change = |kind, amount| {
        let body = ChangeBody { lock: held.id, ..ChangeBody::default() };
        Record::new(kind, id(), partition(0), Amount(amount), &body)
    };
    assert_eq!(raw.ask(change(Kind::Increase, 5)).await.unwrap().0.code(), Code::StorageLow);
    assert_eq!(raw.ask(change(Kind::Capture, 1)).await.unwrap().0.code(), Code::Approved);
    assert_eq!(raw.ask(change(Kind::Release, 0)).await.unwrap().0.code(), Code::Approved);
    assert_eq!(rig.metric("surety_storage_low", 0).await, 1);
    let declined = lock(0);
    assert_eq!(raw.ask(declined).await.unwrap().0.code(), Code::StorageLow);
    rig.shutdown();
    rig.restart();
    let mut raw = rig.authorizer(0).await;
    assert_eq!(raw.ask(declined).await.unwrap().0.code(), Code::Approved, "the id was not burned");
}
