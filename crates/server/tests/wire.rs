//! What arrives on the wire: bad frames close their own connection with the right code, and nobody else's.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use rig::{Raw, Rig, TENANT, lock};
use surety_protocol::{
    CloseCode, EngineId, Epoch, FrameHeader, FrameKind, HELLO_BYTES, Hello, Id, Record, Seq, ShardId,
    Subscribe, TenantId, Token,
};

/// What a peer sends after connecting, and the code that it gets.
struct Case {
    name: &'static str,
    greets: bool,
    bytes: Vec<u8>,
    finishes: bool,
    code: CloseCode,
}

fn case(name: &'static str, greets: bool, bytes: Vec<u8>, code: CloseCode) -> Case {
    Case { name, greets, bytes, finishes: false, code }
}

fn frame(kind: FrameKind, count: u16, number: u64, body: &[u8]) -> Vec<u8> {
    [&FrameHeader { kind, count, number }.to_bytes()[..], body].concat()
}

/// A frame of one lock with some bytes changed.
fn altered(at: usize, value: u8) -> Vec<u8> {
    let mut bytes = frame(FrameKind::Requests, 1, 1, &lock(0).to_bytes());
    bytes[at] = value;
    bytes
}

fn hello(change: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let mut hello = Hello::new(TENANT, "x");
    change(&mut hello);
    frame(FrameKind::Hello, 0, 0, &hello.to_body(&[]))
}

fn cases() -> Vec<Case> {
    let locks = |count: usize| vec![lock(0).to_bytes(); count].concat();
    let truncated = frame(FrameKind::Requests, 1, 1, &locks(1))[..100].to_vec();
    let token = Token::sign(&[1; 32], EngineId(5), ShardId(0), Epoch(1), Seq(1));
    let with_token = frame(FrameKind::Hello, 1, 0, &Hello::new(TENANT, "x").to_body(&[token]));
    vec![
        case("no hello first", false, frame(FrameKind::Requests, 1, 0, &locks(1)), CloseCode::BadHello),
        case("wrong magic", false, hello(|hello| hello.magic ^= 1), CloseCode::BadHello),
        case(
            "version",
            false,
            hello(|hello| (hello.version_min, hello.version_max) = (7, 9)),
            CloseCode::UnknownVersion,
        ),
        case("tenant", false, hello(|hello| hello.tenant = TenantId(2)), CloseCode::TenantMismatch),
        case("a token of somebody else", false, with_token, CloseCode::BadToken),
        case("garbage instead of a hello", false, vec![0xff; 64], CloseCode::BadFrame),
        case("second hello", true, frame(FrameKind::Hello, 0, 1, &[0; HELLO_BYTES]), CloseCode::BadFrame),
        case("unknown frame kind", true, altered(4, 99), CloseCode::BadFrame),
        case("header padding", true, altered(5, 1), CloseCode::Padding),
        case("length that is not the count's", true, altered(0, 1), CloseCode::BadFrame),
        case("oversize", true, altered(3, 1), CloseCode::TooLarge),
        case("frame number", true, altered(8, 2), CloseCode::BadFrame),
        case("a server's frame", true, frame(FrameKind::Goodbye, 0, 1, &[]), CloseCode::BadFrame),
        case("unknown operation", true, altered(16 + 126, 250), CloseCode::UnknownKind),
        case("the engine's own operation", true, altered(16 + 126, 96), CloseCode::UnknownKind),
        case("unknown flags", true, altered(16 + 124, 0x80), CloseCode::Padding),
        case("a chain without its end", true, altered(16 + 124, 1), CloseCode::BadFrame),
        case(
            "subscription to another shard",
            true,
            frame(FrameKind::Subscribe, 1, 1, &subscription(1)),
            CloseCode::BadFrame,
        ),
        Case { finishes: true, ..case("truncated", true, truncated, CloseCode::Truncated) },
        Case { finishes: true, ..case("truncated header", true, vec![16, 0, 0], CloseCode::Truncated) },
    ]
}

fn subscription(shard: u16) -> [u8; 16] {
    Subscribe { from: Seq(1), shard: ShardId(shard), reserved: [0; 2], epoch: Epoch(0) }.to_bytes()
}

#[tokio::test]
async fn every_bad_frame_closes_its_connection_with_its_code_and_no_other() {
    let rig = Rig::start(1);
    let mut good = rig.authorizer(0).await;
    let identity = rig.identity("authorizer");
    for Case { name, greets, bytes, finishes, code } in cases() {
        println!("{name}");
        let mut raw = Raw::connect(rig.address(0), &identity).await.unwrap();
        if greets {
            raw.greet(TENANT, &[]).await.unwrap();
        }
        // The server may close while the rest is still being written.
        let _ = raw.bytes(&bytes).await;
        if finishes {
            raw.send.finish().unwrap();
        }
        raw.expect_close(code).await;
        let record = lock(0);
        let (reply, _) = good.ask(record).await.unwrap();
        assert_eq!(reply.id, record.id, "{name}: the other connection goes on");
    }
}

#[tokio::test]
async fn nothing_of_a_bad_frame_is_executed() {
    let rig = Rig::start(1);
    let identity = rig.identity("authorizer");
    let acked = async || {
        let mut raw = Raw::connect(rig.address(0), &identity).await.unwrap();
        raw.greet(TENANT, &[]).await.unwrap().acked
    };
    let before = acked().await;
    let mut raw = rig.authorizer(0).await;
    let mut unknown = lock(0);
    unknown.kind = 250;
    raw.requests(&[lock(0), unknown]).await.unwrap();
    raw.expect_close(CloseCode::UnknownKind).await;
    assert_eq!(acked().await, before);
}

#[tokio::test]
async fn many_requests_in_one_frame_come_back_in_order() {
    let rig = Rig::start(1);
    let mut raw = rig.authorizer(0).await;
    for count in [1, 2, 64, 1024] {
        let records: Vec<Record> = (0..count).map(|_| lock(0)).collect();
        raw.requests(&records).await.unwrap();
        let (replies, _) = raw.replies(count).await.unwrap();
        let answered: Vec<Id> = replies.iter().map(|reply| reply.id).collect();
        assert_eq!(answered, records.iter().map(|record| record.id).collect::<Vec<_>>());
    }
}
