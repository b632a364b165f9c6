//! The change stream across broken links: in order, each record once, with a cursor that is never ahead of what was given.
#![allow(dead_code, clippy::unwrap_used)]

mod scripted;

use scripted::{Stage, TailPeer, reply};
use surety_client::protocol::{
    Amount, ChangeBody, Code, EngineId, Epoch, Id, Kind, PartitionHandle, Record, Seq, ShardId, TailHead,
    TailStatus, Token,
};
use surety_client::transport::{Closed, OpenError};
use surety_client::{Options, TailError};

fn record(number: u64) -> Record {
    Record::new(
        Kind::Release,
        Id(u128::from(number)),
        PartitionHandle(1),
        Amount::ZERO,
        &ChangeBody::default(),
    )
}

fn head(first: u64, through: u64, status: TailStatus) -> TailHead {
    TailHead {
        first: Seq(first),
        through: Seq(through),
        epoch: Epoch(2),
        shard: ShardId(0),
        status: status as u8,
        reserved: [0; 9],
    }
}

/// Sends the records `first..=last`, read `through`.
fn send(peer: &TailPeer, first: u64, last: u64, through: u64) {
    let records = (first..=last).map(record).collect();
    let _ = peer.events.send(Ok((head(first, through, TailStatus::Records), TailStatus::Records, records)));
}

fn end(peer: &TailPeer, first: u64, through: u64, status: TailStatus) {
    let _ = peer.events.send(Ok((head(first, through, status), status, Vec::new())));
}

#[tokio::test(start_paused = true)]
async fn records_come_in_order_across_links_and_gaps() {
    let (mut stage, _first) = Stage::new(Options::default()).await;
    let mut tail = stage.client.tail(ShardId(0), Seq(0));
    assert_eq!(tail.cursor(), Seq(1));
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..7 {
            let (seq, record) = tail.next().await.unwrap();
            assert_eq!(u128::from(seq.0), record.id.0);
            seen.push((seq.0, tail.cursor().0));
        }
        (seen, tail)
    });
    let peer = stage.tail_peer().await;
    assert_eq!(peer.from, Seq(1));
    send(&peer, 1, 3, 3);
    // A heartbeat, then records that are not ours, then ours, then a break.
    send(&peer, 4, 3, 9);
    send(&peer, 12, 13, 20);
    let _ = peer.events.send(Err(Closed::Reset));
    stage.script.failures.lock().push_back(OpenError::TimedOut);
    let peer = stage.tail_peer().await;
    assert_eq!(peer.from, Seq(21));
    send(&peer, 21, 22, 22);
    let (seen, tail) = reader.await.unwrap();
    // The cursor passes a gap once the frame before it is used up.
    let expect = [(1, 2), (2, 3), (3, 4), (12, 13), (13, 21), (21, 22), (22, 23)];
    assert_eq!(seen, expect);
    assert_eq!(tail.epoch(), Epoch(2));
}

#[tokio::test(start_paused = true)]
async fn batches_tell_how_far_the_stream_was_read() {
    let (mut stage, _first) = Stage::new(Options::default()).await;
    let mut tail = stage.client.tail(ShardId(0), Seq(5));
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let batch = tail.next_batch().await.unwrap();
            seen.push((batch.first.0, batch.records.len(), batch.through.0));
        }
        seen
    });
    let peer = stage.tail_peer().await;
    assert_eq!(peer.from, Seq(5));
    send(&peer, 5, 6, 6);
    send(&peer, 7, 6, 30);
    send(&peer, 40, 40, 40);
    assert_eq!(reader.await.unwrap(), [(5, 2, 6), (7, 0, 30), (40, 1, 40)]);
}

#[tokio::test(start_paused = true)]
async fn each_subscription_presents_the_newest_token() {
    let (mut stage, mut first) = Stage::new(Options::default()).await;
    let token = |seq| Token::sign(&[1; 32], EngineId(1), ShardId(0), Epoch(2), Seq(seq));
    let mut tail = stage.client.tail(ShardId(0), Seq(0));
    let reader = tokio::spawn(async move { tail.next().await });
    let mut peer = stage.tail_peer().await;
    assert_eq!(peer.tokens, []);
    for seq in [5, 6] {
        let client = stage.client.clone();
        let call = tokio::spawn(async move { client.submit(record(seq)).await });
        let request = first.frame().await;
        first.answer_with(&[reply(&request[0], Code::Approved)], Some(token(seq)));
        call.await.unwrap().unwrap();
        let _ = peer.events.send(Err(Closed::Reset));
        peer = stage.tail_peer().await;
        assert_eq!(peer.tokens, [token(seq)]);
    }
    send(&peer, 1, 1, 1);
    assert_eq!(reader.await.unwrap(), Ok((Seq(1), record(1))));
}

/// An engine that came back with older data may have filled the seqs that follow with other records.
#[tokio::test(start_paused = true)]
async fn an_epoch_that_was_left_behind_is_another_history() {
    let say = |peer: &TailPeer, epoch, first, last| {
        let head = TailHead { epoch: Epoch(epoch), ..head(first, last, TailStatus::Records) };
        let records = (first..=last).map(record).collect();
        let _ = peer.events.send(Ok((head, TailStatus::Records, records)));
    };
    // Records, or a heartbeat.
    for last in [4, 2] {
        let (mut stage, _first) = Stage::new(Options::default()).await;
        let mut tail = stage.client.tail(ShardId(0), Seq(0));
        let reader = tokio::spawn(async move {
            let given = [tail.next().await.is_ok(), tail.next().await.is_ok()];
            (given, tail.next().await, tail.cursor())
        });
        let peer = stage.tail_peer().await;
        say(&peer, 2, 1, 1);
        let _ = peer.events.send(Err(Closed::Reset));
        let peer = stage.tail_peer().await;
        // A restart begins a later one.
        say(&peer, 3, 2, 2);
        let _ = peer.events.send(Err(Closed::Reset));
        let peer = stage.tail_peer().await;
        say(&peer, 2, 3, last);
        let error = TailError::OtherHistory { shard: ShardId(0), seen: Epoch(3), found: Epoch(2) };
        assert_eq!(reader.await.unwrap(), ([true, true], Err(error), Seq(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_future_is_an_error_by_its_name() {
    let shard = ShardId(0);
    let refused = OpenError::Closed(Closed::Tls(48));
    let check = async |act: fn(&TailPeer), expect: TailError| {
        let (mut stage, _first) = Stage::new(Options::default()).await;
        let mut tail = stage.client.tail(shard, Seq(10));
        let reader = tokio::spawn(async move { (tail.next().await, tail.cursor()) });
        act(&stage.tail_peer().await);
        let (result, cursor) = reader.await.unwrap();
        assert_eq!(result, Err(expect));
        assert_eq!(cursor, Seq(10));
    };
    let wanted = Seq(10);
    check(|peer| end(peer, 50, 60, TailStatus::Lost), TailError::Lost { shard, wanted, oldest: Seq(50) })
        .await;
    check(|peer| end(peer, 0, 7, TailStatus::Ahead), TailError::Ahead { shard, wanted, synced: Seq(7) })
        .await;
    check(|peer| send(peer, 9, 11, 11), TailError::OutOfOrder { shard, expected: wanted, found: Seq(9) })
        .await;
    check(|peer| drop(peer.events.send(Err(Closed::Tls(48)))), TailError::Refused { shard, error: refused })
        .await;
}
