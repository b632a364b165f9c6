//! The worked example of `WIRE.md`, byte for byte, written and read by the code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod tables;

use std::fmt::Write;

use surety_protocol as p;
use surety_protocol::{FrameHeader, FrameKind, Kind};

const KEY: [u8; 32] = [0x11; 32];
const ENGINE: p::EngineId = p::EngineId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
const LOCK_MS: u64 = 1_767_225_600_123;

fn decided() -> p::Time {
    p::Time::from_millis(LOCK_MS + 7)
}

fn partition() -> p::PartitionHandle {
    p::PartitionHandle::new(p::ShardId(1), 42)
}

fn lock_id() -> p::Id {
    p::Id::parse("019b76da-a87b-7abc-8def-0123456789ab").unwrap()
}

fn token(synced: u64) -> p::Token {
    p::Token::sign(&KEY, ENGINE, p::ShardId(1), p::Epoch(3), p::Seq(synced))
}

fn hello() -> p::Hello {
    p::Hello::new(p::TenantId(7), "router-1")
}

fn hello_reply() -> p::HelloReply {
    p::HelloReply {
        engine: ENGINE,
        now: p::Time::from_millis(LOCK_MS),
        acked: p::Seq(1000),
        synced: p::Seq(1000),
        epoch: p::Epoch(3),
        tenant: p::TenantId(7),
        version: 2,
        shard: p::ShardId(1),
        shards: 2,
        frame_records_max: 1024,
        in_flight_max: 16384,
        roles: p::Roles::AUTHORIZER.0,
        durability: 0,
        reserved: [0; 2],
        ports: p::shard_map(&[7400, 7401]),
    }
}

fn lock() -> p::Record {
    let body = p::LockBody {
        floor: p::Amount(0),
        merchant: p::MerchantId(501),
        user: 0xabcd,
        life_ms: 600_000,
        category: 5411,
        ..p::LockBody::default()
    };
    p::Record::new(Kind::Lock, lock_id(), partition(), p::Amount(25_000_000_000_000_000_000), &body)
}

fn deadline() -> p::Time {
    decided().plus(p::Time::from_millis(600_000))
}

fn lock_reply() -> p::Reply {
    p::Reply {
        id: lock_id(),
        approved: lock().amount,
        remaining: lock().amount,
        free: p::Amount(975_000_000_000_000_000_000),
        seq: p::Seq(1001),
        deadline: deadline(),
        time: decided(),
        epoch: p::Epoch(3),
        shard: p::ShardId(1),
        version: 1,
        capture: p::ALL_CAPTURES,
        code: p::Code::Approved as u8,
        end: p::End::Live as u8,
        kind: Kind::Lock as u8,
        ..p::Reply::default()
    }
}

fn lock_logged() -> p::Record {
    let mut record = lock();
    record.result = lock().amount;
    record.time = decided();
    record.tenant = p::TenantId(7);
    record.code = p::Code::Approved as u8;
    let body: p::LockBody = record.body();
    record.set_body(&p::LockBody { deadline: deadline(), ..body });
    record
}

fn tail_head() -> p::TailHead {
    p::TailHead {
        first: p::Seq(1001),
        through: p::Seq(1001),
        epoch: p::Epoch(3),
        shard: p::ShardId(1),
        status: p::TailStatus::Records as u8,
        reserved: [0; 9],
    }
}

fn frame(kind: FrameKind, count: u16, number: u64, body: &[&[u8]]) -> Vec<u8> {
    let header = FrameHeader { kind, count, number };
    let bytes = [&header.to_bytes()[..], &body.concat()[..]].concat();
    assert_eq!(bytes.len(), 16 + header.body_bytes());
    bytes
}

/// The way `WIRE.md` prints bytes.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let lines: Vec<&[u8]> = bytes.chunks(16).collect();
    for (at, line) in lines.iter().enumerate() {
        let same = |other: usize| lines.get(other) == Some(line);
        if at > 0 && same(at - 1) && at + 1 < lines.len() {
            if !same(at.wrapping_sub(2)) {
                text.push_str("*\n");
            }
            continue;
        }
        let words: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{:04x}  {}", at * 16, words.join(" ")).unwrap();
    }
    text
}

fn check(name: &str, bytes: &[u8]) {
    let shown = tables::hex(name);
    assert!(shown == bytes, "{name} in WIRE.md is not what the code writes:\n{}", dump(bytes));
}

#[test]
fn a_client_says_hello() {
    let body = hello().to_body(&[token(990)]);
    check("hello", &frame(FrameKind::Hello, 1, 0, &[&body]));
    let read = tables::hex("hello");
    assert_eq!(p::Hello::from_body(&read[16..]), Ok((hello(), vec![token(990)])));
    assert!(token(990).is_genuine(&KEY));
}

#[test]
fn the_engine_answers() {
    check("hello reply", &frame(FrameKind::HelloReply, 1, 0, &[&hello_reply().to_bytes()]));
    assert_eq!(p::HelloReply::from_body(&tables::hex("hello reply")[16..]), Ok(hello_reply()));
}

#[test]
fn a_lock_is_asked_for() {
    check("lock", &frame(FrameKind::Requests, 1, 1, &[&lock().to_bytes()]));
    assert_eq!((lock().check(), lock().is_well_formed(Kind::Lock)), (Ok(Kind::Lock), true));
    assert_eq!(lock_id().time(), p::Time::from_millis(LOCK_MS), "the id carries its time");
}

#[test]
fn it_is_guaranteed() {
    let reply = lock_reply().to_bytes();
    check("reply", &frame(FrameKind::Replies, 1, 1, &[&token(1001).to_bytes(), &reply]));
    assert_eq!(p::Reply::from_bytes(&reply), Some(lock_reply()));
}

#[test]
fn the_state_holds_it() {
    use p::StateRow;
    let place = p::PartitionHandle::new(p::ShardId(1), 42);
    let partitions = p::StateQuery::new(p::ShardId(1), p::StateKind::Partitions);
    let query = p::StateQuery { partition: place, limit: 1, ..partitions };
    check("state query", &frame(FrameKind::StateQuery, 1, 1, &[&query.to_bytes()]));
    let mut page = p::StateHead {
        seq: p::Seq(1001),
        now: lock_reply().time,
        epoch: p::Epoch(3),
        shard: p::ShardId(1),
        kind: p::StateKind::Partitions as u8,
        has_more: 1,
        ..p::StateHead::default()
    }
    .to_bytes()
    .to_vec();
    let amp = |whole: u128| p::Amount(whole * 10_u128.pow(18));
    let mut zeros = [0; 640];
    zeros[280..].copy_from_slice(&p::Policy::default().to_bytes());
    let row = p::PartitionRow {
        partition: place,
        collateral: amp(1000),
        free: amp(975),
        held: amp(25),
        units: amp(1000),
        asset: p::AssetId(1),
        ..p::PartitionRow::read(&zeros).unwrap()
    };
    row.write(&mut page);
    check("state", &frame(FrameKind::State, 5, 1, &[&page]));
    assert_eq!(p::read_state_page::<p::PartitionRow>(&page).unwrap().1, [row]);
    assert_eq!(row.after(query).unwrap().partition, p::PartitionHandle::new(p::ShardId(1), 43));
}

#[test]
fn the_change_stream_tells_it() {
    let subscribe =
        p::Subscribe { from: p::Seq(1001), shard: p::ShardId(1), reserved: [0; 2], epoch: p::Epoch(3) };
    check("subscribe", &frame(FrameKind::Subscribe, 1, 1, &[&subscribe.to_bytes()]));
    let logged = lock_logged().to_bytes();
    check("records", &frame(FrameKind::Records, 1, 1, &[&tail_head().to_bytes(), &logged]));
    assert_eq!(lock_logged().as_sent(), p::Record { tenant: p::TenantId(7), ..lock() });
}

#[test]
fn the_history_is_asked() {
    let question = br#"{"ask":{"open_locks":{"by":"deadline","limit":1}}}"#;
    check("query", &frame(FrameKind::Query, 1, 1, &[&p::write_query(question)]));
    assert_eq!(p::read_query(&tables::hex("query")[16..]), Ok(&question[..]));
    let answer = br#"{"ok":{"rows":[],"cursor":null,"has_more":false,"complete_before":"-"}}"#;
    let body = p::write_answer(None, answer.len(), answer, false);
    check("answer", &frame(FrameKind::Answer, 1, 1, &[&body]));
    let read = tables::hex("answer");
    let (head, refusal, document) = p::read_answer(&read[16..]).unwrap();
    assert_eq!((head.has_more, refusal, document), (0, None, &answer[..]));
}
