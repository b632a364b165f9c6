//! Peers that take no replies: what they leave behind must not touch anybody else.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use rig::{PATIENCE, Raw, Rig, TENANT, id, lock, partition};
use surety_protocol::{Amount, ChangeBody, FrameHeader, FrameKind, Kind, Record};

/// More round trips than it takes for a stopped stream to be noticed.
const ROUNDS: usize = 20;

/// Sends requests, and does not mind if nobody reads them.
async fn try_requests(raw: &mut Raw, records: &[Record]) {
    let count = u16::try_from(records.len()).unwrap();
    let header = FrameHeader { kind: FrameKind::Requests, count, number: raw.number };
    raw.number += 1;
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(records.iter().flat_map(Record::to_bytes));
    let _ = raw.send.write_all(&bytes).await;
}

/// A peer whose replies go nowhere, and the server knows it.
async fn deaf(rig: &Rig, bystander: &mut Raw) -> Raw {
    let mut deaf = rig.authorizer(0).await;
    deaf.recv.stop(0u32.into()).unwrap();
    for _ in 0..ROUNDS {
        try_requests(&mut deaf, &[lock(0)]).await;
        bystander.ask(lock(0)).await.unwrap();
    }
    deaf
}

/// A request of an operator that tenants cannot make of this partition.
fn look() -> Record {
    let body = ChangeBody { lock: id(), ..ChangeBody::default() };
    Record::new(Kind::Lookup, id(), partition(0), Amount::ZERO, &body)
}

async fn expect_own_answer(raw: &mut Raw, record: Record) {
    let (reply, _) = raw.ask(record).await.unwrap();
    assert_eq!(reply.id, record.id, "the answer to something that somebody else has asked");
}

#[tokio::test]
async fn a_reply_never_goes_to_another_stream() {
    let rig = Rig::start(1);
    let mut bystander = rig.authorizer(0).await;
    let mut deaf = deaf(&rig, &mut bystander).await;
    // Streams that begin now must not be taken for the one that is lost.
    let mut second = rig.operator("admin", 0).await;
    for _ in 0..ROUNDS {
        expect_own_answer(&mut second, look()).await;
        try_requests(&mut deaf, &[lock(0), lock(0)]).await;
        expect_own_answer(&mut bystander, lock(0)).await;
    }
}

#[tokio::test]
async fn the_end_of_a_lost_stream_ends_no_other() {
    let rig = Rig::start(1);
    let mut bystander = rig.authorizer(0).await;
    let deaf = deaf(&rig, &mut bystander).await;
    let mut second = rig.operator("admin", 0).await;
    expect_own_answer(&mut second, look()).await;
    deaf.connection.close(0u32.into(), b"");
    deaf.endpoint.wait_idle().await;
    for _ in 0..ROUNDS {
        expect_own_answer(&mut bystander, lock(0)).await;
        expect_own_answer(&mut second, look()).await;
    }
}

#[tokio::test]
async fn a_lost_stream_is_not_read_any_further_and_its_connection_goes_on() {
    let rig = Rig::start(1);
    let mut bystander = rig.authorizer(0).await;
    let deaf = deaf(&rig, &mut bystander).await;
    let stopped = tokio::time::timeout(PATIENCE, deaf.send.stopped()).await;
    assert!(matches!(stopped, Ok(Ok(Some(_)))), "{stopped:?}");
    let mut again = deaf.another_stream().await;
    again.greet(TENANT, &[]).await.unwrap();
    // As many as may be unanswered: whatever was counted for the lost stream is not counted any more.
    for _ in 0..ROUNDS {
        expect_own_answer(&mut again, lock(0)).await;
    }
}

#[tokio::test]
async fn a_peer_that_leaves_with_a_backlog_leaves_nothing_in_its_place() {
    let rig = Rig::start(1);
    let mut bystander = rig.authorizer(0).await;
    let frame: Vec<Record> = (0..1024).map(|_| lock(0)).collect();
    // More replies than the peer's window takes: a task of the server waits for room when the peer goes.
    let mut greedy = rig.authorizer(0).await;
    for _ in 0..16 {
        try_requests(&mut greedy, &frame).await;
    }
    expect_own_answer(&mut bystander, lock(0)).await;
    greedy.recv.stop(0u32.into()).unwrap();
    let mut second = rig.authorizer(0).await;
    for _ in 0..ROUNDS {
        try_requests(&mut greedy, &[lock(0)]).await;
        expect_own_answer(&mut second, lock(0)).await;
        expect_own_answer(&mut bystander, lock(0)).await;
    }
}
