//! What a client makes of broken links, late, doubled and refused answers: always either a definite outcome or "unknown".
#![allow(dead_code, clippy::unwrap_used)]

mod scripted;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use scripted::{Stage, id, reply};
use surety_client::protocol::{
    Amount, Code, EngineId, Epoch, Flags, Id, LockBody, MerchantId, PartitionHandle, Record, Reply, Seq,
    ShardId, Time, Token,
};
use surety_client::transport::{Closed, OpenError};
use surety_client::{Draft, LockRequest, NotExecuted, Observer, Options, SubmitError, Unknown};
use tokio::time::timeout;

type Answer = Result<Reply, SubmitError>;

fn lock(number: u128) -> Record {
    let partition = PartitionHandle::new(ShardId(0), 1);
    Draft::from(LockRequest::new(partition, Amount(10), MerchantId(1))).into_record(|| id(number))
}

/// Starts a request in its own task.
fn spawn(stage: &Stage, request: Record) -> tokio::task::JoinHandle<Answer> {
    let client = stage.client.clone();
    tokio::spawn(async move { client.submit(request).await })
}

fn refused(answer: Answer) -> Option<Code> {
    answer.unwrap_err().refusal()
}

fn unknown(answer: Answer) -> Unknown {
    match answer {
        Err(SubmitError::Unknown { cause, .. }) => cause,
        other => panic!("an unknown outcome, not {other:?}"),
    }
}

fn not_executed(answer: Answer) -> NotExecuted {
    match answer {
        Err(SubmitError::NotExecuted { why, .. }) => why,
        other => panic!("a request that was not executed, not {other:?}"),
    }
}

#[tokio::test]
async fn a_decline_is_a_reply_and_an_admission_code_is_not_executed() {
    let (stage, mut peer) = Stage::new(Options::default()).await;
    for (code, is_reply) in [
        (Code::Approved, true),
        (Code::Partial, true),
        (Code::Insufficient, true),
        (Code::Burned, true),
        (Code::NotFound, true),
        (Code::Overloaded, false),
        (Code::StaleId, false),
        (Code::NoRight, false),
    ] {
        let call = spawn(&stage, lock(1));
        let request = peer.frame().await[0];
        peer.answer(&[reply(&request, code)]);
        let answer = call.await.unwrap();
        match answer {
            Ok(reply) => assert!(is_reply && reply.code() == code, "{code}"),
            Err(error) => assert!(!is_reply && error.refusal() == Some(code), "{code}"),
        }
    }
}

/// What came of each request, as an observer was told.
#[derive(Default)]
struct Told(Mutex<Vec<(Id, Answer)>>);

impl Observer for Told {
    fn on_outcome(&self, request: &Record, begun: Time, ended: Time, outcome: &Answer) {
        assert!(begun <= ended);
        self.0.lock().unwrap().push((request.id, *outcome));
    }
}

#[tokio::test(start_paused = true)]
async fn who_watches_is_told_of_each_request_once_and_of_those_that_are_given_up_on() {
    let (stage, mut peer) = Stage::new(Options::default()).await;
    let told = Arc::new(Told::default());
    stage.client.set_observer(Arc::clone(&told) as Arc<dyn Observer>);
    let answered = spawn(&stage, lock(1));
    let request = peer.frame().await[0];
    peer.answer(&[reply(&request, Code::Insufficient)]);
    let answer = answered.await.unwrap();
    let given_up = timeout(Duration::from_secs(1), stage.client.submit(lock(2))).await;
    assert!(given_up.is_err(), "nobody has answered");
    // It has left, and goes on.
    assert_eq!(peer.frame().await[0].id, id(2));
    let unknown = Err(SubmitError::Unknown { id: id(2), cause: Unknown::GivenUp });
    assert_eq!(*told.0.lock().unwrap(), [(id(1), answer), (id(2), unknown)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_reply_is_repeated_byte_by_byte_on_the_next_link() {
    let (mut stage, mut peer) = Stage::new(Options::default()).await;
    let call = spawn(&stage, lock(1));
    let first = peer.frame().await;
    peer.cut(Closed::TimedOut);
    let mut peer = stage.peer().await;
    let second = peer.frame().await;
    assert_eq!(first, second);
    peer.answer(&[reply(&second[0], Code::Approved)]);
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_repeat_says_nothing_about_the_first_sending() {
    let cases = [
        (Code::Overloaded, false),
        (Code::StaleId, false),
        (Code::NoRight, false),
        (Code::UnknownPartition, false),
        // The id belongs to another body: this one can never have been executed.
        (Code::IdConflict, true),
    ];
    for (code, is_definite) in cases {
        let (mut stage, mut peer) = Stage::new(Options::default()).await;
        let call = spawn(&stage, lock(1));
        peer.frame().await;
        peer.cut(Closed::Reset);
        let mut peer = stage.peer().await;
        let repeat = peer.frame().await;
        peer.answer(&[reply(&repeat[0], code)]);
        let answer = call.await.unwrap();
        if is_definite {
            assert_eq!(refused(answer), Some(code));
        } else {
            assert_eq!(unknown(answer), Unknown::RepeatRefused(code));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_definite_if_the_lost_link_never_carried_the_request() {
    let (mut stage, peer) = Stage::new(Options::default()).await;
    peer.goodbye();
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    // Queued behind the goodbye: it does not leave on this link.
    let call = spawn(&stage, lock(1));
    tokio::task::yield_now().await;
    let mut old = peer;
    assert_eq!(old.try_frame(), None);
    old.cut(Closed::Ended);
    let mut peer = stage.peer().await;
    let request = peer.frame().await;
    peer.answer(&[reply(&request[0], Code::Overloaded)]);
    assert_eq!(refused(call.await.unwrap()), Some(Code::Overloaded));
}

#[tokio::test(start_paused = true)]
async fn replies_still_come_after_a_goodbye() {
    let (mut stage, mut peer) = Stage::new(Options::default()).await;
    let before = spawn(&stage, lock(1));
    let request = peer.frame().await;
    peer.goodbye();
    tokio::task::yield_now().await;
    let after = spawn(&stage, lock(2));
    tokio::task::yield_now().await;
    peer.answer(&[reply(&request[0], Code::Approved)]);
    assert!(before.await.unwrap().is_ok());
    assert_eq!(peer.try_frame(), None);
    peer.cut(Closed::Ended);
    let mut peer = stage.peer().await;
    let request = peer.frame().await;
    assert_eq!(request[0].id.0 & 0xf, 2);
    peer.answer(&[reply(&request[0], Code::Approved)]);
    assert!(after.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_never_closes_after_its_goodbye_is_left() {
    let (mut stage, peer) = Stage::new(Options::default()).await;
    peer.goodbye();
    let call = spawn(&stage, lock(1));
    let mut next = stage.peer().await;
    let request = next.frame().await;
    next.answer(&[reply(&request[0], Code::Approved)]);
    assert!(call.await.unwrap().is_ok());
    drop(peer);
}

#[tokio::test]
async fn a_doubled_reply_changes_nothing() {
    let (stage, mut peer) = Stage::new(Options::default()).await;
    let call = spawn(&stage, lock(1));
    let request = peer.frame().await[0];
    let good = reply(&request, Code::Approved);
    peer.answer(&[good, reply(&request, Code::Insufficient)]);
    assert_eq!(call.await.unwrap(), Ok(good));
    peer.answer(&[good]);
    let call = spawn(&stage, lock(2));
    let request = peer.frame().await[0];
    peer.answer(&[good, reply(&request, Code::Approved)]);
    assert_eq!(call.await.unwrap().unwrap().id, request.id);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_definite_only_for_what_never_left() {
    let (mut stage, mut peer) = Stage::new(Options::default()).await;
    let sent = spawn(&stage, lock(1));
    peer.frame().await;
    assert_eq!(unknown(sent.await.unwrap()), Unknown::Deadline);

    // No link, for longer than the deadline.
    stage.script.failures.lock().extend([OpenError::TimedOut; 60]);
    peer.cut(Closed::TimedOut);
    tokio::task::yield_now().await;
    let unsent = spawn(&stage, lock(2));
    assert_eq!(not_executed(unsent.await.unwrap()), NotExecuted::Deadline);

    // Called not executed, it must not leave when a link comes back.
    stage.script.failures.lock().clear();
    let mut peer = stage.peer().await;
    let later = spawn(&stage, lock(3));
    let frame = peer.frame().await;
    assert_eq!(frame.iter().map(|record| record.id.0 & 0xf).collect::<Vec<_>>(), [3]);
    peer.answer(&[reply(&frame[0], Code::Approved)]);
    assert!(later.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_breaks_link_after_link_is_given_up() {
    let (mut stage, mut peer) = Stage::new(Options { links_lost_max: 3, ..Options::default() }).await;
    let call = spawn(&stage, lock(1));
    for _ in 0..4 {
        peer.frame().await;
        peer.cut(Closed::Reset);
        peer = stage.peer().await;
    }
    assert_eq!(unknown(call.await.unwrap()), Unknown::LinksLost(4));
    assert_eq!(peer.try_frame(), None);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_refused_says_so_at_once() {
    let refusal = OpenError::Closed(Closed::Tls(45));
    let (mut stage, mut peer) = Stage::new(Options::default()).await;
    let sent = spawn(&stage, lock(1));
    peer.frame().await;
    stage.script.failures.lock().extend([OpenError::TimedOut, refusal]);
    peer.cut(Closed::Reset);
    tokio::task::yield_now().await;
    let unsent = spawn(&stage, lock(2));
    assert_eq!(unknown(sent.await.unwrap()), Unknown::NoLink(refusal));
    assert_eq!(not_executed(unsent.await.unwrap()), NotExecuted::NoLink(refusal));
    // And tries again all the same.
    let mut peer = stage.peer().await;
    let call = spawn(&stage, lock(3));
    let request = peer.frame().await;
    peer.answer(&[reply(&request[0], Code::Approved)]);
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn one_id_is_sent_once_and_never_with_two_bodies() {
    let (stage, mut peer) = Stage::new(Options::default()).await;
    let request = lock(1);
    let (one, two) = (spawn(&stage, request), spawn(&stage, request));
    let other = spawn(&stage, Record { amount: Amount(11), ..request });
    let frame = peer.frame().await;
    assert_eq!(not_executed(other.await.unwrap()), NotExecuted::IdInUse);
    assert_eq!(frame.len(), 1);
    assert_eq!(peer.try_frame(), None);
    peer.answer(&[reply(&frame[0], Code::Approved)]);
    assert!(one.await.unwrap().is_ok() && two.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_waits_leaves_together_and_in_order() {
    let (stage, mut peer) = Stage::new(Options::default()).await;
    let first = spawn(&stage, lock(0));
    let request = peer.frame().await;
    let client = stage.client.clone();
    let all = tokio::spawn(async move { client.submit_all((1..=2000).map(lock).collect()).await });
    let mut received = Vec::new();
    let mut frames = 0;
    while received.len() < 2000 {
        let frame = peer.frame().await;
        frames += 1;
        assert!(frame.len() <= 1024);
        received.extend(frame);
    }
    assert!(frames <= 3, "{frames} frames");
    assert!(received.iter().zip(1_u128..).all(|(record, number)| record.id.0 & 0xffff == number));
    peer.answer(&[reply(&request[0], Code::Approved)]);
    let replies: Vec<Reply> = received.iter().rev().map(|record| reply(record, Code::Approved)).collect();
    peer.answer(&replies);
    assert!(first.await.unwrap().is_ok());
    let answers = all.await.unwrap();
    assert!(answers.iter().zip(&received).all(|(answer, record)| answer.unwrap().id == record.id));
}

#[tokio::test(start_paused = true)]
async fn a_chain_stays_whole_also_when_it_is_repeated() {
    let (mut stage, mut peer) = Stage::new(Options::default()).await;
    let client = stage.client.clone();
    let chain: Vec<Record> = (1..=3).map(lock).collect();
    let call = tokio::spawn(async move { client.submit_chain(chain).await });
    let frame = peer.frame().await;
    let linked: Vec<bool> = frame.iter().map(|record| record.flags().has(Flags::LINKED)).collect();
    assert_eq!(linked, [true, true, false]);
    // The link breaks after one of the three replies.
    peer.answer(&[reply(&frame[1], Code::Approved)]);
    peer.cut(Closed::Reset);
    let mut peer = stage.peer().await;
    assert_eq!(peer.frame().await, frame);
    let replies: Vec<Reply> = frame.iter().map(|record| reply(record, Code::Approved)).collect();
    peer.answer(&replies);
    let answers = call.await.unwrap();
    assert!(answers.iter().zip(&frame).all(|(answer, record)| answer.unwrap().id == record.id));
}

/// A chain that is not admitted leaves no record of any member; one that is declined is recorded whole.
#[tokio::test(start_paused = true)]
async fn a_chain_that_was_not_admitted_is_not_declined() {
    for (is_recorded, is_repeat) in [(true, false), (true, true), (false, false), (false, true)] {
        let (mut stage, mut peer) = Stage::new(Options::default()).await;
        let client = stage.client.clone();
        let call = tokio::spawn(async move { client.submit_chain((1..=2).map(lock).collect()).await });
        let mut frame = peer.frame().await;
        if is_repeat {
            peer.cut(Closed::Reset);
            peer = stage.peer().await;
            frame = peer.frame().await;
        }
        let culprit = if is_recorded { Code::Insufficient } else { Code::QuotaLocks };
        let seq = Seq(u64::from(is_recorded));
        let other = Reply { seq, ..reply(&frame[1], Code::LinkedFailed) };
        peer.answer(&[reply(&frame[0], culprit), other]);
        for (answer, code) in call.await.unwrap().into_iter().zip([culprit, Code::LinkedFailed]) {
            match (is_recorded, is_repeat) {
                (true, _) => assert_eq!(answer.unwrap().code(), code),
                (false, false) => assert_eq!(refused(answer), Some(code)),
                (false, true) => assert_eq!(unknown(answer), Unknown::RepeatRefused(code)),
            }
        }
    }
}

#[tokio::test]
async fn unanswered_requests_are_bounded() {
    let (stage, mut peer) = Stage::new(Options { in_flight_max: 2, ..Options::default() }).await;
    let (one, two) = (spawn(&stage, lock(1)), spawn(&stage, lock(2)));
    let mut frames = peer.frame().await;
    while frames.len() < 2 {
        frames.extend(peer.frame().await);
    }
    assert_eq!(not_executed(stage.client.try_submit(lock(3)).await), NotExecuted::Busy);
    let waiting = spawn(&stage, lock(4));
    tokio::task::yield_now().await;
    assert_eq!(peer.try_frame(), None);
    peer.answer(&[reply(&frames[0], Code::Approved)]);
    let frame = peer.frame().await;
    assert_eq!(frame[0].id.0 & 0xf, 4);
    peer.answer(&[reply(&frames[1], Code::Approved), reply(&frame[0], Code::Approved)]);
    for call in [one, two, waiting] {
        assert!(call.await.unwrap().is_ok());
    }
    let chain = stage.client.submit_chain((5..=7).map(lock).collect()).await;
    assert!(chain.into_iter().all(|answer| not_executed(answer) == NotExecuted::Busy));
}

#[tokio::test(start_paused = true)]
async fn closing_ends_everything_with_its_right_name() {
    let (mut stage, mut peer) = Stage::new(Options::default()).await;
    let sent = spawn(&stage, lock(1));
    peer.frame().await;
    stage.script.failures.lock().extend([OpenError::TimedOut; 3]);
    peer.cut(Closed::Reset);
    tokio::task::yield_now().await;
    let unsent = spawn(&stage, lock(2));
    tokio::task::yield_now().await;
    stage.client.close();
    assert_eq!(unknown(sent.await.unwrap()), Unknown::ClientClosed);
    assert_eq!(not_executed(unsent.await.unwrap()), NotExecuted::ClientClosed);
    assert_eq!(not_executed(stage.client.submit(lock(3)).await), NotExecuted::ClientClosed);
    assert!(stage.is_quiet());
}

#[tokio::test]
async fn dropping_the_last_clone_drops_its_links() {
    let (stage, mut peer) = Stage::new(Options::default()).await;
    drop(stage.client);
    assert_eq!(peer.frame_or_end().await, None);
}

#[tokio::test]
async fn a_request_that_would_poison_the_link_never_leaves() {
    let (stage, mut peer) = Stage::new(Options::default()).await;
    let poisons = [
        Record { kind: 200, ..lock(1) },
        Record { kind: 96, ..lock(2) },
        Record { flags: 0x8000, ..lock(3) },
    ];
    for poison in poisons {
        assert!(matches!(not_executed(stage.client.submit(poison).await), NotExecuted::Invalid(_)));
    }
    let linked = lock(4).with_flags(Flags::LINKED);
    assert!(matches!(not_executed(stage.client.submit(linked).await), NotExecuted::Invalid(_)));
    let elsewhere = Record { partition: PartitionHandle::new(ShardId(5), 1), ..lock(5) };
    assert_eq!(not_executed(stage.client.submit(elsewhere).await), NotExecuted::NoSuchShard(ShardId(5)));
    assert!(stage.client.submit_chain(Vec::new()).await.is_empty());
    assert_eq!(not_executed(stage.client.submit_long(&[]).await), NotExecuted::NotOneOperation);
    assert_eq!(peer.try_frame(), None);
}

#[tokio::test(start_paused = true)]
async fn the_newest_token_is_presented_on_the_next_link() {
    let (mut stage, mut peer) = Stage::new(Options::default()).await;
    assert_eq!(peer.tokens, []);
    let token = |seq| Token::sign(&[1; 32], EngineId(1), ShardId(0), Epoch(1), Seq(seq));
    for seq in [5, 6] {
        let call = spawn(&stage, lock(1));
        let request = peer.frame().await;
        peer.answer_with(&[reply(&request[0], Code::Approved)], Some(token(seq)));
        call.await.unwrap().unwrap();
    }
    assert_eq!(stage.client.tokens(), [token(6)]);
    peer.cut(Closed::Reset);
    assert_eq!(stage.peer().await.tokens, [token(6)]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_appears_gets_its_link() {
    let (mut stage, peer) = Stage::new(Options::default()).await;
    *stage.script.shards.lock() = 3;
    peer.cut(Closed::Ended);
    let mut shards = Vec::new();
    for _ in 0..3 {
        shards.push(stage.peer().await.shard);
    }
    shards.sort_unstable();
    assert_eq!(shards, [ShardId(0), ShardId(1), ShardId(2)]);
    assert_eq!(stage.client.shards(), 3);
}

#[tokio::test]
async fn requests_go_to_the_shard_of_their_partition() {
    let (mut stage, zero) = Stage::with_shards(Options::default(), 2).await;
    let mut one = stage.peer().await;
    assert_eq!((zero.shard, one.shard), (ShardId(0), ShardId(1)));
    let partition = PartitionHandle::new(ShardId(1), 1);
    let body = LockBody::default();
    let request = Record::new(surety_client::protocol::Kind::Lock, Id(1), partition, Amount(1), &body);
    let call = spawn(&stage, request);
    let frame = one.frame().await;
    one.answer(&[reply(&frame[0], Code::Approved)]);
    assert_eq!(call.await.unwrap().unwrap().shard, ShardId(1));
}

#[tokio::test]
async fn a_dropped_call_frees_its_room_when_the_reply_comes() {
    let (stage, mut peer) = Stage::new(Options { in_flight_max: 1, ..Options::default() }).await;
    let call = spawn(&stage, lock(1));
    let request = peer.frame().await;
    call.abort();
    assert!(call.await.is_err());
    assert_eq!(not_executed(stage.client.try_submit(lock(2)).await), NotExecuted::Busy);
    peer.answer(&[reply(&request[0], Code::Approved)]);
    let call = tokio::time::timeout(Duration::from_secs(60), async {
        let call = spawn(&stage, lock(3));
        let request = peer.frame().await;
        peer.answer(&[reply(&request[0], Code::Approved)]);
        call.await.unwrap()
    });
    assert!(call.await.unwrap().is_ok());
}
