//! The change stream across broken links: in order, each record once, with a cursor that is never ahead of what was given.
#![allow(dead_code, clippy::unwrap_used)]

mod scripted;

use scripted::{Stage, TailPeer, reply};
use surety_client::protocol::{
    Amount, ChangeBody, Code, Cursor, EngineId, Epoch, Id, Kind, PartitionHandle, Record, Seq, ShardId,
    TailHead, TailStatus, Token,
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
    assert_eq!(peer.from.next, Seq(1));
    send(&peer, 1, 3, 3);
    // A heartbeat, then records that are not ours, then ours, then a break.
    send(&peer, 4, 3, 9);
    send(&peer, 12, 13, 20);
    let _ = peer.events.send(Err(Closed::Reset));
    stage.script.failures.lock().push_back(OpenError::TimedOut);
    let peer = stage.tail_peer().await;
    assert_eq!(peer.from.next, Seq(21));
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
    assert_eq!(peer.from.next, Seq(5));
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
    check(
        |peer| end(peer, 5, 9, TailStatus::Parted),
        TailError::Parted { shard, wanted, epoch: Epoch(0), from: Seq(5) },
    )
    .await;
    check(|peer| send(peer, 9, 11, 11), TailError::OutOfOrder { shard, expected: wanted, found: Seq(9) })
        .await;
    check(|peer| drop(peer.events.send(Err(Closed::Tls(48)))), TailError::Refused { shard, error: refused })
        .await;
}

/// Records of an epoch.
fn say(peer: &TailPeer, epoch: u32, first: u64, last: u64, through: u64) {
    let head = TailHead { epoch: Epoch(epoch), ..head(first, through, TailStatus::Records) };
    let records = (first..=last).map(record).collect();
    let _ = peer.events.send(Ok((head, TailStatus::Records, records)));
}

#[tokio::test(start_paused = true)]
async fn a_position_names_the_record_before_it_and_is_what_the_engine_is_shown() {
    let (mut stage, _first) = Stage::new(Options::default()).await;
    let from = Cursor { next: Seq(5), epoch: Epoch(1) };
    let mut tail = stage.client.tail(ShardId(0), from);
    assert_eq!(tail.position(), from);
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..4 {
            tail.next().await.unwrap();
            let Cursor { next, epoch } = tail.position();
            seen.push((next.0, epoch.0));
        }
        // A batch that was begun goes on where it is; its frame is of one epoch.
        let batch = tail.next_batch().await.unwrap();
        assert_eq!(batch.cursor(), Cursor { next: Seq(20), epoch: Epoch(3) });
        (seen, tail.next().await)
    });
    let peer = stage.tail_peer().await;
    assert_eq!(peer.from, from);
    say(&peer, 1, 5, 6, 6);
    say(&peer, 3, 7, 8, 8);
    let _ = peer.events.send(Err(Closed::Reset));
    let peer = stage.tail_peer().await;
    assert_eq!(peer.from, Cursor { next: Seq(9), epoch: Epoch(3) });
    say(&peer, 3, 12, 13, 19);
    let _ = peer.events.send(Err(Closed::Reset));
    let peer = stage.tail_peer().await;
    assert_eq!(peer.from, Cursor { next: Seq(20), epoch: Epoch(3) });
    end(&peer, 7, 6, TailStatus::Parted);
    let (seen, error) = reader.await.unwrap();
    assert_eq!(seen, [(6, 1), (7, 1), (8, 3), (9, 3)]);
    let parted = TailError::Parted { shard: ShardId(0), wanted: Seq(20), epoch: Epoch(3), from: Seq(7) };
    assert_eq!(error, Err(parted));
}

/// What version 1 says of epochs is who speaks, not whose the records are.
#[tokio::test(start_paused = true)]
async fn no_epoch_is_learned_from_the_first_version_and_its_past_is_still_noticed() {
    let (mut stage, _first) = Stage::new(Options::default()).await;
    *stage.script.version.lock() = 1;
    let mut tail = stage.client.tail(ShardId(0), Cursor::anew(Seq(5)));
    let reader = tokio::spawn(async move {
        let mut cursors = Vec::new();
        loop {
            match tail.next_batch().await {
                Ok(batch) => cursors.push((batch.through.0, batch.epoch)),
                Err(error) => return (cursors, error),
            }
        }
    });
    let peer = stage.tail_peer().await;
    // Nothing was read: there is still nothing to compare.
    say(&peer, 5, 5, 4, 4);
    // Records of long ago, by an engine that is in its fifth epoch.
    say(&peer, 5, 5, 6, 6);
    let _ = peer.events.send(Err(Closed::Reset));
    // It is upgraded, and tells of which epoch they are.
    *stage.script.version.lock() = 2;
    let peer = stage.tail_peer().await;
    assert_eq!(peer.from, Cursor { next: Seq(7), epoch: Epoch(0) });
    say(&peer, 2, 7, 8, 8);
    let _ = peer.events.send(Err(Closed::Reset));
    // And the program before it comes back.
    *stage.script.version.lock() = 1;
    let peer = stage.tail_peer().await;
    assert_eq!(peer.from, Cursor { next: Seq(9), epoch: Epoch(2) });
    say(&peer, 7, 9, 8, 8);
    say(&peer, 7, 9, 9, 9);
    say(&peer, 6, 10, 10, 10);
    let (cursors, error) = reader.await.unwrap();
    let anew = Cursor::ANEW;
    let expect = [(4, anew), (6, Epoch(0)), (8, Epoch(2)), (8, Epoch(2)), (9, Epoch(0))];
    assert_eq!(cursors, expect);
    assert_eq!(error, TailError::OtherHistory { shard: ShardId(0), seen: Epoch(7), found: Epoch(6) });
}

/// An engine whose notes of its past are lost says 0 of what is older.
#[tokio::test(start_paused = true)]
async fn an_epoch_that_was_never_noted_is_compared_with_nothing() {
    let (mut stage, _first) = Stage::new(Options::default()).await;
    let mut tail = stage.client.tail(ShardId(0), Cursor { next: Seq(5), epoch: Epoch(3) });
    let reader = tokio::spawn(async move {
        let mut cursors = Vec::new();
        for _ in 0..4 {
            cursors.push(tail.next_batch().await.unwrap().cursor());
        }
        cursors
    });
    let peer = stage.tail_peer().await;
    say(&peer, 0, 5, 4, 4);
    say(&peer, 0, 5, 6, 6);
    say(&peer, 4, 7, 7, 7);
    say(&peer, 0, 8, 7, 9);
    let at = |next, epoch| Cursor { next: Seq(next), epoch: Epoch(epoch) };
    assert_eq!(reader.await.unwrap(), [at(5, 3), at(7, 0), at(8, 4), at(10, 0)]);
}
