//! Inputs to begin with: sound ones, made by the encoders of the project, and changes of any input.

use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::{
    Address, Amount, Code, EngineId, Epoch, FrameHeader, FrameKind, HELLO_REPLY_BYTES, Hello, HelloReply, Id,
    Kind, PartitionHandle, Policy, QueryRefusal, Record, ReleaseEntry, ReleaseGroup, Reply, SUBSCRIBE_BYTES,
    Seq, ShardId, Subscribe, TAIL_HEAD_BYTES, TailHead, TenantId, Token, long, shard_map, write_answer,
    write_query,
};

use crate::{cards, history, made, money, settling, texts};

/// A small, seeded source of numbers.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^= value >> 31;
        usize::try_from(value % bound.max(1) as u64).unwrap_or(0)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }
}

/// An input that differs from `input` in one to four places.
#[must_use]
pub fn mutate(input: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(random.byte()),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.byte(),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => bytes.truncate(at),
            4 => {
                let end = (at + RECORD_BYTES).min(bytes.len());
                bytes.extend_from_within(at..end);
            }
            _ => {
                let from = random.below(bytes.len());
                let length = random.below(16).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + length, at);
            }
        }
    }
    bytes
}

/// The inputs that a probe's corpus begins with.
///
/// # Panics
/// If there is no such probe.
#[must_use]
pub fn seeds(probe: &str) -> Vec<Vec<u8>> {
    match probe {
        "frames_server" => pieces(&client_stream()),
        "frames_client" => pieces(&server_stream()),
        "records" => (0..4).map(|caller| [vec![caller], requests()].concat()).collect(),
        "hello" => vec![hello().to_body(&[token(1), token(2)]), hello().to_body(&[]), hello_reply().to_vec()],
        "tail" => vec![subscribe().to_vec(), tail_head(3).to_vec(), records_body()],
        "query" => vec![write_query(QUESTION), write_answer(None, 300, &[7; 200], true), busy()],
        "release_group" => (1..4).map(release_group).collect(),
        "acks" => vec![replies(), replies()[..300].to_vec()],
        "operations" => (1..9).map(history::requests).collect(),
        "replay" => (1..5).map(|seed| money::log_of(&history::requests(seed))).collect(),
        "entries" => (1..5).map(|seed| money::entries_of(&history::requests(seed))).collect(),
        "block" => made::blocks(),
        "segment" => made::segments(),
        "guard" => made::rings(),
        "snapshot" => made::snapshots(),
        "iso_message" => cards::messages(),
        "iso_stream" => cards::streams(),
        "iso_work" => cards::works(),
        "settler_log" => settling::logs(),
        "book" => settling::books(),
        "shelf" => settling::shelves(),
        "settings" => texts::SETTINGS.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "policy" => policies(),
        _ => panic!("no probe {probe}"),
    }
}

pub(crate) fn flagged(flags: u8, rest: Vec<u8>) -> Vec<u8> {
    [vec![flags], rest].concat()
}

fn pieces(stream: &[u8]) -> Vec<Vec<u8>> {
    [0, 65, 255].iter().map(|piece| flagged(*piece, stream.to_vec())).collect()
}

fn frame(stream: &mut Vec<u8>, kind: FrameKind, count: usize, body: &[u8]) {
    let count = u16::try_from(count).unwrap_or(0);
    let header = FrameHeader { kind, count, number: frames_in(stream) };
    stream.extend_from_slice(&header.to_bytes());
    stream.extend_from_slice(body);
}

/// Frames in a sound stream.
fn frames_in(stream: &[u8]) -> u64 {
    let mut rest = stream;
    let mut count = 0;
    while let Some((header, behind)) = rest.split_first_chunk() {
        let header = FrameHeader::from_bytes(header).expect("a stream of our own making");
        rest = &behind[header.body_bytes()..];
        count += 1;
    }
    count
}

const QUESTION: &[u8] = br#"{"ask":{"locks":{"state":["live"]}}}"#;

fn busy() -> Vec<u8> {
    write_answer(Some(QueryRefusal::Busy), 5, b"later", false)
}

fn client_stream() -> Vec<u8> {
    let mut stream = Vec::new();
    frame(&mut stream, FrameKind::Hello, 2, &hello().to_body(&[token(1), token(2)]));
    let requests = requests();
    frame(&mut stream, FrameKind::Requests, requests.len() / RECORD_BYTES, &requests);
    frame(&mut stream, FrameKind::Subscribe, 1, &subscribe());
    frame(&mut stream, FrameKind::Query, 1, &write_query(QUESTION));
    stream
}

fn server_stream() -> Vec<u8> {
    let mut stream = Vec::new();
    frame(&mut stream, FrameKind::HelloReply, 1, &hello_reply());
    let replies = replies();
    let body = [&token(7).to_bytes()[..], &replies].concat();
    frame(&mut stream, FrameKind::Replies, replies.len() / RECORD_BYTES, &body);
    let body = records_body();
    frame(&mut stream, FrameKind::Records, (body.len() - 32) / RECORD_BYTES, &body);
    frame(&mut stream, FrameKind::Records, 0, &tail_head(0));
    frame(&mut stream, FrameKind::Answer, 1, &busy());
    frame(&mut stream, FrameKind::Goodbye, 0, &[]);
    stream
}

fn hello() -> Hello {
    Hello::new(TenantId(7), "router-1")
}

fn token(synced: u64) -> Token {
    Token::sign(&[7; 32], EngineId(1), ShardId(0), Epoch(2), Seq(synced))
}

fn hello_reply() -> [u8; HELLO_REPLY_BYTES] {
    let reply = HelloReply {
        engine: EngineId(1),
        now: money::START,
        acked: Seq(9),
        synced: Seq(8),
        epoch: Epoch(2),
        tenant: TenantId(7),
        version: 1,
        shard: ShardId(1),
        shards: 2,
        frame_records_max: 1024,
        in_flight_max: 16_384,
        roles: 1,
        durability: 0,
        reserved: [0; 2],
        ports: shard_map(&[4433, 4434]),
    };
    reply.to_bytes()
}

fn subscribe() -> [u8; SUBSCRIBE_BYTES] {
    Subscribe { from: Seq(5), shard: ShardId(1), reserved: [0; 2], epoch: Epoch(0) }.to_bytes()
}

fn tail_head(records: u64) -> [u8; TAIL_HEAD_BYTES] {
    let (first, through) = (Seq(5), Seq(4 + records));
    TailHead { first, through, epoch: Epoch(2), shard: ShardId(1), status: 0, reserved: [0; 9] }.to_bytes()
}

/// Requests of every kind that arrives, a chain and two long ones.
fn requests() -> Vec<u8> {
    let mut bytes = history::one_of_each();
    let policy = long::split(Kind::Policy, Id(9), PartitionHandle(1), 0, &Policy::default().to_bytes());
    let group = long::split(Kind::ReleaseGroup, Id(9), PartitionHandle(1), 7, &release_group(2));
    bytes.extend(policy.iter().chain(&group).flat_map(Record::to_bytes));
    bytes
}

fn records_body() -> Vec<u8> {
    let records = history::one_of_each();
    [&tail_head((records.len() / RECORD_BYTES) as u64)[..], &records].concat()
}

fn replies() -> Vec<u8> {
    let codes = [Code::Approved, Code::Insufficient, Code::Overloaded, Code::AlreadyReleased];
    let reply = |(at, code): (usize, &Code)| Reply {
        id: Id(at as u128),
        seq: Seq(at as u64),
        code: *code as u8,
        approved: Amount(7),
        ..Reply::default()
    };
    codes.iter().enumerate().map(reply).flat_map(|reply| reply.to_bytes()).collect()
}

fn release_group(entries: u8) -> Vec<u8> {
    let entry = |n: u8| ReleaseEntry {
        lock: money::id_of(n),
        still_owed: Amount(u128::from(n)),
        version: 1,
        index: u32::from(n),
        path: vec![[n; 32]; 3],
    };
    let group = ReleaseGroup {
        key: Address([8; 20]),
        root: [2; 32],
        signature: [3; 65],
        entries: (0..entries).map(entry).collect(),
    };
    group.to_bytes()
}

fn policies() -> Vec<Vec<u8>> {
    let rich = Policy { late_capture: 1, release_rule: 2, lock_max: Amount(12_345), ..Policy::default() };
    let mut texts = vec![
        surety::texts::policy_text(&Policy::default()).into_bytes(),
        surety::texts::policy_text(&rich).into_bytes(),
    ];
    texts.extend(texts::POLICIES.iter().map(|text| text.as_bytes().to_vec()));
    texts
}
