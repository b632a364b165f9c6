//! Peers that are slow, silent or many; requests that land on the wrong shard.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::time::Duration;

use rig::{Ended, Raw, Rig, TENANT, identity, lock};
use surety_protocol::{
    CloseCode, Code, FrameHeader, FrameKind, Id, PartitionHandle, Record, Roles, ShardId, TenantId,
};

#[tokio::test]
async fn requests_for_other_shards_are_forwarded_and_answered_where_they_came_from() {
    for shards in [2, 4] {
        let rig = Rig::start(shards);
        let mut raw = rig.authorizer(0).await;
        let records: Vec<Record> = (0..400).map(|i| lock(i % shards)).collect();
        for chunk in records.chunks(50) {
            raw.requests(chunk).await.unwrap();
        }
        let (replies, _) = raw.replies(records.len()).await.unwrap();
        assert_eq!(replies.len(), records.len());
        for shard in 0..shards {
            let of_shard = |wanted: &Record| wanted.partition.shard() == ShardId(shard);
            let asked: Vec<Id> =
                records.iter().filter(|record| of_shard(record)).map(|record| record.id).collect();
            let answered: Vec<Id> =
                replies.iter().filter(|reply| reply.shard == ShardId(shard)).map(|reply| reply.id).collect();
            assert_eq!(answered, asked, "in order, by the shard that owns the partition");
        }
    }
}

#[tokio::test]
async fn a_forwarded_request_speaks_for_its_own_tenant_and_roles() {
    let rig = Rig::start(2);
    // One may only read; the other belongs to a tenant that nobody has let in.
    for (tenant, roles) in [(TENANT, Roles::READER), (TenantId(7), Roles::AUTHORIZER)] {
        let pem = identity(&rig, tenant.0, roles);
        for asked in [0, 1] {
            let mut raw = Raw::connect(rig.address(asked), &pem).await.unwrap();
            raw.greet(tenant, &[]).await.unwrap();
            for owner in [0, 1] {
                let (reply, _) = raw.ask(lock(owner)).await.unwrap();
                assert_eq!(
                    reply.code(),
                    Code::NoRight,
                    "{roles:?} asks shard {asked} for a lock in shard {owner}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_shard_that_does_not_exist_has_no_partitions() {
    let rig = Rig::start(1);
    let mut raw = rig.authorizer(0).await;
    let (reply, _) = raw.ask(lock(9)).await.unwrap();
    assert_eq!(reply.code(), Code::UnknownPartition);
    let elsewhere = Record { partition: PartitionHandle(u64::MAX), ..lock(0) };
    assert_eq!(raw.ask(elsewhere).await.unwrap().0.code(), Code::UnknownPartition);
}

#[tokio::test]
async fn too_many_requests_for_another_shard_are_overloaded_and_none_is_lost() {
    let rig = Rig::start_with(2, |config| config.limits.forwarded = 8);
    let mut raw = rig.authorizer(0).await;
    let records: Vec<Record> = (0..1000).map(|_| lock(1)).collect();
    raw.requests(&records).await.unwrap();
    let (replies, _) = raw.replies(records.len()).await.unwrap();
    let overloaded = replies.iter().filter(|reply| reply.code() == Code::Overloaded).count();
    assert_eq!(replies.len(), records.len());
    assert!(overloaded > 0 && overloaded < records.len(), "{overloaded}");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed_and_the_others_go_on() {
    let rig = Rig::start_with(1, |config| config.limits.backlog_bytes = 64 * 1024);
    let mut slow = rig.authorizer(0).await;
    let mut good = rig.authorizer(0).await;
    let frame: Vec<Record> = (0..1024).map(|_| lock(0)).collect();
    // Far more replies than all windows hold; the writes end when the server closes.
    for _ in 0..400 {
        if slow.requests(&frame).await.is_err() {
            break;
        }
    }
    match slow.ended().await {
        Ended::Code(code) => assert_eq!(code, CloseCode::SlowReader),
        // The one datagram that says why may be lost among all that it does not read; nobody is there to say it again.
        Ended::Other(other) => assert_eq!(other, quinn::ConnectionError::Reset.to_string()),
    }
    assert_eq!(rig.metric("surety_closed_slow_readers_total", 0).await, 1);
    good.ask(lock(0)).await.unwrap();
}

#[tokio::test]
async fn hellos_and_frames_have_a_deadline() {
    let mut rig = Rig::start(1);
    rig.restart_with(|config| config.limits.frame = Duration::from_millis(200));
    let identity = rig.identity("authorizer");
    let mut patient = greeted(&rig).await;
    // A stream that says nothing after its first byte, and one that stops inside a frame.
    let header = FrameHeader { kind: FrameKind::Requests, count: 4, number: 1 }.to_bytes();
    for (greets, bytes) in [(false, &header[..1]), (true, &header[..]), (true, &header[..3])] {
        let mut raw = match greets {
            true => greeted(&rig).await,
            false => Raw::connect(rig.address(0), &identity).await.unwrap(),
        };
        // The deadline may have passed already; then there is nobody to write to.
        let _ = raw.bytes(bytes).await;
        raw.expect_close(CloseCode::FrameDeadline).await;
    }
    // A stream that is silent between frames may be.
    patient.ask(lock(0)).await.unwrap();
}

/// A peer whose hello was in time, which on a busy machine not every hello is.
async fn greeted(rig: &Rig) -> Raw {
    let identity = rig.identity("authorizer");
    let greeted = async {
        loop {
            let mut raw = Raw::connect(rig.address(0), &identity).await.unwrap();
            match raw.greet(TENANT, &[]).await {
                Ok(_) => return raw,
                Err(Ended::Code(code)) => assert_eq!(code, CloseCode::FrameDeadline),
                Err(Ended::Other(other)) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(rig::PATIENCE, greeted).await.expect("a hello in time")
}

#[tokio::test]
async fn a_frame_may_come_in_pieces() {
    let rig = Rig::start(1);
    let mut raw = rig.authorizer(0).await;
    let record = lock(0);
    let header = FrameHeader { kind: FrameKind::Requests, count: 1, number: 1 }.to_bytes();
    let bytes = [&header[..], &record.to_bytes()].concat();
    for piece in bytes.chunks(37) {
        raw.bytes(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let (replies, _) = raw.replies(1).await.unwrap();
    assert_eq!(replies[0].id, record.id);
}

#[tokio::test]
async fn replies_come_even_after_the_last_request_was_sent() {
    let rig = Rig::start_with(2, |config| config.durability = server::Durability::Fsync);
    let mut raw = rig.authorizer(0).await;
    raw.requests(&[lock(0), lock(1), lock(0)]).await.unwrap();
    raw.send.finish().unwrap();
    assert_eq!(raw.replies(3).await.unwrap().0.len(), 3);
    assert!(raw.recv.read_to_end(1).await.unwrap().is_empty(), "and then the stream ends");
    let mut other = raw.another_stream().await;
    other.greet(TENANT, &[]).await.unwrap();
    other.ask(lock(0)).await.unwrap();
}

#[tokio::test]
async fn garbage_on_the_port_disturbs_nobody() {
    let rig = Rig::start(1);
    let mut raw = rig.authorizer(0).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in (1..1400).step_by(7) {
        let bytes: Vec<u8> = (0..length).map(|i: usize| (i * length).to_le_bytes()[0]).collect();
        socket.send_to(&bytes, rig.address(0)).unwrap();
    }
    raw.ask(lock(0)).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_first_packets_is_limited_and_others_go_on() {
    let rig = Rig::start_with(1, |config| {
        config.limits.handshakes = 4;
        config.limits.retry_above = 1;
    });
    let mut raw = rig.authorizer(0).await;
    let identity = rig.identity("authorizer");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (address, config) = (rig.address(0), rig::client_config(&identity));
        tasks.spawn(async move { Raw::connect_with(address, config).await.is_ok() });
    }
    let passed = tasks.join_all().await.into_iter().filter(|passed| *passed).count();
    assert!(passed > 0 && passed < 40, "some answer the Retry and get in, the others are refused: {passed}");
    raw.ask(lock(0)).await.unwrap();
}

/// Says hello to TLS and nothing more: the server waits for the rest until its patience ends.
fn half_open(address: std::net::SocketAddr, config: &quinn::ClientConfig, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = quinn::Endpoint::client(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let connecting: Vec<_> = (0..count)
            .map(|_| endpoint.connect_with(config.clone(), address, "localhost").unwrap())
            .collect();
        // The first packets leave; nothing that comes back is ever read.
        for _ in 0..count {
            tokio::task::yield_now().await;
        }
        std::mem::forget(connecting);
        std::mem::forget(endpoint);
    });
    // Without a word to the server.
    std::mem::forget(runtime);
}

#[tokio::test]
async fn one_address_cannot_hold_all_handshakes() {
    let rig = Rig::start_with(1, |config| {
        config.limits.handshakes = 32;
        config.limits.handshakes_address = 8;
        config.limits.handshake = Duration::from_secs(5);
        config.limits.retry_above = usize::MAX;
    });
    let mut raw = rig.authorizer(0).await;
    let (address, config) = (rig.address(0), rig::client_config(&rig.identity("authorizer")));
    // On a thread of its own, since it is a runtime of its own.
    std::thread::scope(|scope| scope.spawn(|| half_open(address, &config, 64)).join().unwrap());
    // Another address is not shut out by the first; all of 127.0.0.0/8 is this machine.
    let endpoint = quinn::Endpoint::client(std::net::SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    let connecting = endpoint.connect_with(config, address, "localhost").unwrap();
    let connected = tokio::time::timeout(rig::PATIENCE, connecting).await;
    assert!(matches!(connected, Ok(Ok(_))), "{connected:?}");
    raw.ask(lock(0)).await.unwrap();
    let (_, metrics) = rig::http(rig.running().admin().unwrap(), "/metrics").await;
    assert!(metrics.contains("surety_connections_refused_total{shard=\"0\"} 0"), "{metrics}");
}
