//! How long a 0100 takes to be parsed and its answer to be built: `cargo run --release -p iso8583 --example speed -- [MESSAGES]` prints
//! one line of JSON.
#![allow(clippy::unwrap_used, reason = "an example may stop")]

use std::hint::black_box;
use std::time::Instant;

use iso8583::{Codec, Dialect, Draft, Message, Mti, Profile};

/// Rounds that the messages are shared out to; the fastest counts.
const ROUNDS: u32 = 100;

fn main() {
    let messages = std::env::args().nth(1).map_or(200_000, |text| text.parse().unwrap());
    println!("{}", measure(messages));
}

/// Parses and answers so many authorizations in each profile.
fn measure(messages: u32) -> String {
    let profiles = [("ascii", Profile::ASCII), ("binary", Profile::BINARY), ("ebcdic", Profile::EBCDIC)];
    let results = profiles.map(|(name, profile)| {
        let codec = Codec { dialect: Dialect::V1987, profile };
        let messages = messages.div_ceil(ROUNDS);
        let (parse, answer) = (0..ROUNDS).map(|_| round(codec, messages)).min_by_key(|(a, b)| a + b).unwrap();
        let per_s = u64::from(messages) * 1_000_000_000 / (parse + answer).max(1);
        let (parse, answer) = (parse / u64::from(messages), answer / u64::from(messages));
        format!("\"{name}_parse_ns\":{parse},\"{name}_answer_ns\":{answer},\"{name}_messages_per_s\":{per_s}")
    });
    format!("{{{}}}", results.join(","))
}

/// Nanoseconds for all parses, and for all answers.
fn round(codec: Codec, messages: u32) -> (u64, u64) {
    let mut bytes = Vec::new();
    authorization().encode(codec, &mut bytes).unwrap();
    let begin = Instant::now();
    for _ in 0..messages {
        let message = Message::parse(codec, black_box(&bytes)).unwrap();
        black_box((message.number(4), message.number(11), message.exactly::<8>(41)));
    }
    let parse = begin.elapsed();
    let message = Message::parse(codec, &bytes).unwrap();
    let mut draft = Draft::new(Dialect::V1987);
    let mut out = Vec::new();
    let begin = Instant::now();
    for _ in 0..messages {
        let message = black_box(&message);
        draft.reset(message.mti().reply().unwrap());
        for field in [2, 3, 4, 7, 11, 12, 13, 25, 32, 37, 41, 42, 49] {
            draft.copy(message, field);
        }
        draft.set(38, b"A1B2C3");
        draft.set(39, b"00");
        out.clear();
        draft.encode(codec, &mut out).unwrap();
        black_box(&out);
    }
    let answer = begin.elapsed();
    let nanos = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap();
    (nanos(parse), nanos(answer))
}

fn authorization() -> Draft {
    let mut draft = Draft::new(Dialect::V1987);
    draft.reset(Mti::from_digits(*b"0100").unwrap());
    let fields: [(u8, &str); 14] = [
        (2, "4111111111111111"),
        (3, "000000"),
        (4, "000000002500"),
        (7, "1121165500"),
        (11, "000123"),
        (12, "165500"),
        (13, "1121"),
        (18, "5411"),
        (22, "051"),
        (25, "00"),
        (32, "12345678901"),
        (37, "632516000123"),
        (41, "TERM0001"),
        (42, "MERCHANT0000501"),
    ];
    fields.iter().for_each(|(field, text)| draft.set(*field, text.as_bytes()));
    draft.set(49, b"840");
    draft
}

#[test]
fn it_runs_small() {
    assert!(measure(10).contains("\"binary_parse_ns\":"));
}
