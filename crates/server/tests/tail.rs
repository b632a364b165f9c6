//! The change stream: what is synced, in order, from a cursor on, for those who may see it.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use rig::{Raw, Rig, TENANT, lock};
use surety_protocol::{Code, Kind, Record, Seq, TailStatus, TenantId};

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
