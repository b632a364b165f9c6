//! What acquirers send: messages of ISO 8583, and streams of them.

use iso8583::payment::{
    Currency, IdKey, Intent, Mark, Outcome, Refusal, Route, Rules, Scale, Step, Work, answer, refuse,
};
use iso8583::{Codec, Cut, Dialect, Draft, FrameError, LengthHeader, Message, Mti, Profile};
use surety_protocol::{Amount, Code, End, PartitionHandle, Reply, Seq};

use crate::money;

/// The longest message that a stream may hold here.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Dialect and profile, by a byte of the input.
fn codec(byte: u8) -> Codec {
    let dialect = if byte & 4 == 0 { Dialect::V1987 } else { Dialect::V1993 };
    let profile = [Profile::ASCII, Profile::ASCII_RAW, Profile::BINARY, Profile::EBCDIC];
    Codec { dialect, profile: profile[usize::from(byte & 3)] }
}

fn header(byte: u8) -> LengthHeader {
    [LengthHeader::Binary2, LengthHeader::Ascii4, LengthHeader::Bcd2][usize::from(byte % 3)]
}

/// A message behind one byte that says how it is encoded.
pub(crate) fn message(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    read(codec(*first), bytes);
}

/// What is read is written to a message that reads the same, in this and in every other profile; whatever it is, it prints.
fn read(codec: Codec, bytes: &[u8]) {
    let (message, result) = Message::read(codec, bytes);
    let mut draft = Draft::new(codec.dialect);
    draft.reset(message.mti());
    message.fields().fields().for_each(|field| draft.copy(&message, field));
    assert_eq!(draft.fields(), message.fields());
    let _ = format!("{message:?} {draft:?}");
    if result.is_err() {
        return;
    }
    for profile in 0..4 {
        let other = Codec { profile: self::codec(profile).profile, ..codec };
        let mut written = Vec::new();
        let written = draft.encode(other, &mut written).map(|()| written);
        let Ok(written) = written else {
            assert_ne!(other, codec, "what was read can be written as it was");
            continue;
        };
        let again = Message::parse(other, &written).expect("what was written can be read");
        assert_eq!((again.mti(), again.fields()), (message.mti(), message.fields()));
        for field in message.fields().fields() {
            same_units(&message, &again, field);
        }
    }
}

/// Packed tracks know one separator where characters know two.
fn same_units(one: &Message<'_>, other: &Message<'_>, field: u8) {
    let units = |message: &Message<'_>| -> Vec<u8> {
        let is_track = matches!(field, 35 | 36);
        let plain = |unit| if is_track && unit == b'D' { b'=' } else { unit };
        message.units(field).expect("a field that is there").map(plain).collect()
    };
    assert_eq!(units(one), units(other), "field {field}");
    assert_eq!(one.number(field), other.number(field));
}

/// A stream behind one byte for header and pieces: how it arrives makes no difference, and no more is kept than a message.
pub(crate) fn stream(input: &[u8]) {
    let Some((first, stream)) = input.split_first() else { return };
    let header = header(*first);
    let whole = cut(header, stream, stream.len().max(1));
    let piece = 1 + usize::from(*first >> 4);
    assert_eq!(whole, cut(header, stream, piece), "pieces of {piece}");
    whole.0.iter().for_each(|bytes| read(codec(*first >> 2), bytes));
}

/// The messages of a stream, and how it ended.
fn cut(header: LengthHeader, stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match header.cut(&buffer, MESSAGE_BYTES_MAX) {
                Ok(Cut::Message { bytes, used }) => {
                    messages.push(bytes.to_vec());
                    buffer.drain(..used);
                }
                Ok(Cut::Wants(more)) => {
                    assert!(more > 0 && buffer.len() + more <= header.bytes() + MESSAGE_BYTES_MAX);
                    break;
                }
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// Bytes of the input that make one reply.
const REPLY_BYTES: usize = 5;
/// Requests that one message takes at most: look-ups and attempts of an increase, or a part for each partition.
const STEPS_MAX: usize = 16;

/// A message behind a byte that says how it is encoded, a count, and so many replies: the work for it ends whatever is
/// replied, asks for nothing that an engine would not read, and has an answer.
pub(crate) fn work(input: &[u8]) {
    let [first, count, rest @ ..] = input else { return };
    let Some((replies, bytes)) = rest.split_at_checked(usize::from(*count) * REPLY_BYTES) else { return };
    let codec = codec(*first);
    let Ok(message) = Message::parse(codec, bytes) else { return };
    let mut draft = Draft::new(codec.dialect);
    let is_answered = match Intent::read(&message, &rules(codec.dialect), money::START) {
        Ok(intent) => {
            let outcome = drive(&intent, codec.dialect, replies.as_chunks().0);
            answer(&message, &intent, &outcome, &mut draft)
        }
        Err(refusal) => refuse(&message, refusal, &mut draft),
    };
    assert_eq!(is_answered, message.mti().reply().is_some());
    if is_answered {
        let mut written = Vec::new();
        draft.encode(codec, &mut written).expect("what is answered can be written");
        assert_eq!(Message::parse(codec, &written).expect("and read").mti(), draft.mti());
    }
}

fn drive(intent: &Intent, dialect: Dialect, replies: &[[u8; REPLY_BYTES]]) -> Outcome {
    let rules = rules(dialect);
    let (mut work, mut step) = Work::begin(intent, &rules, None);
    for given in (0..STEPS_MAX).map(|at| replies.get(at % replies.len().max(1))) {
        let record = match step {
            Step::Done(outcome) => return outcome,
            Step::Send(record) => record,
        };
        assert!(record.check().is_ok_and(|kind| record.is_well_formed(kind)), "{record:?}");
        let reply = reply(given.copied().unwrap_or_default());
        step = work.on_reply(&Reply { id: record.id, ..reply });
    }
    match step {
        Step::Done(outcome) => outcome,
        Step::Send(record) => panic!("no end: {record:?}"),
    }
}

/// Any code but `NONE`, which no engine replies.
fn reply([code, end, capture, version, amount]: [u8; REPLY_BYTES]) -> Reply {
    let code = Code::ALL[1 + usize::from(code) % (Code::ALL.len() - 1)];
    Reply {
        code: code as u8,
        end: End::from_byte(end % 9).unwrap_or_default() as u8,
        capture: if capture > 15 { u16::MAX } else { u16::from(capture) },
        version: u16::from(version),
        approved: Amount(1 << (amount % 128)),
        extra: Amount(u128::from(amount)),
        seq: Seq(u64::from(version)),
        ..Reply::default()
    }
}

fn rules(dialect: Dialect) -> Rules {
    let route = |prefix: &[u8], partitions: &[u64]| Route {
        prefix: prefix.to_vec(),
        partitions: partitions.iter().map(|handle| PartitionHandle(*handle)).collect(),
        former: vec![PartitionHandle(7)],
    };
    Rules {
        dialect,
        id_key: IdKey([7; 32]),
        currencies: vec![
            Currency { number: 840, scale: Scale { asset_decimals: 18, edge_decimals: 2 } },
            Currency { number: 999, scale: Scale { asset_decimals: 0, edge_decimals: 8 } },
        ],
        held_in: [(PartitionHandle(6), 999)].into(),
        routes: vec![route(b"4", &[1, 2, 3, 4, 5]), route(b"5", &[6]), route(b"6", &[])],
        merchants: [(*b"MERCHANT0000501", surety_protocol::MerchantId(501))].into(),
        partial: Mark { field: 60, at: 0, unit: b'1' },
        increase: Mark { field: 60, at: 1, unit: b'1' },
    }
}

/// Whole payments to begin with, each with a few ways to be replied to.
pub(crate) fn works() -> Vec<Vec<u8>> {
    let replies: [&[[u8; REPLY_BYTES]]; 3] = [
        &[[31, 1, 0, 1, 70]],
        &[[28, 6, 0, 0, 0], [31, 2, 0, 3, 9]],
        &[[11, 0, 16, 0, 0], [30, 8, 0, 5, 40], [9, 0, 0, 0, 0]],
    ];
    let mut works = Vec::new();
    for ((kind, fields), first) in PAYMENTS.into_iter().zip([0, 2, 3, 1, 2, 0].into_iter().cycle()) {
        for replies in replies {
            let count = u8::try_from(replies.len()).expect("a few");
            let given = write(codec(first), (kind, fields));
            let message = Message::parse(codec(first), &given).expect("a sound message");
            let meant = Intent::read(&message, &rules(Dialect::V1987), money::START);
            assert!(!matches!(meant, Err(Refusal::Missing(_) | Refusal::Format(_))), "{meant:?}");
            works.push([&[first, count], replies.as_flattened(), &given].concat());
        }
    }
    works
}

/// Messages to begin with: an authorization, its reply, a reversal, totals and an echo, in every dialect and profile.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    (0..8)
        .flat_map(|first| sound(first).into_iter().map(move |bytes| [vec![first], bytes].concat()))
        .collect()
}

/// Streams to begin with: in every header, in small pieces and in larger ones.
pub(crate) fn streams() -> Vec<Vec<u8>> {
    let stream = |first: u8| {
        let mut stream = vec![first];
        for message in sound(first >> 2) {
            let write = |out: &mut Vec<u8>| {
                out.extend_from_slice(&message);
                Ok::<(), FrameError>(())
            };
            header(first).write(&mut stream, write).expect("a short message");
        }
        stream
    };
    [0, 4, 9, 13, 17, 20, 65, 200].into_iter().map(stream).collect()
}

fn sound(first: u8) -> Vec<Vec<u8>> {
    let codec = codec(first);
    MESSAGES.into_iter().map(|given| write(codec, given)).collect()
}

fn write(codec: Codec, (kind, fields): Given) -> Vec<u8> {
    let version = b'0' + codec.dialect.version() as u8;
    let mti = Mti::from_digits([version, kind[0], kind[1], kind[2]]).expect("a type");
    let mut draft = Draft::new(codec.dialect);
    draft.reset(mti);
    fields.iter().for_each(|(field, units)| draft.set(*field, units.as_bytes()));
    let mut bytes = Vec::new();
    draft.encode(codec, &mut bytes).expect("a sound message");
    bytes
}

/// A type without its version, and fields.
type Given = (&'static [u8; 3], &'static [(u8, &'static str)]);

/// Fields that both dialects have.
const MESSAGES: [Given; 5] = [
    (
        b"100",
        &[
            (2, "4111111111111111"),
            (3, "000000"),
            (4, "2500"),
            (7, "1121165500"),
            (11, "000123"),
            (22, "051"),
            (32, "12345678901"),
            (35, "4111111111111111=29121010000"),
            (37, "632516000123"),
            (41, "TERM0001"),
            (42, "MERCHANT0000501"),
            (49, "840"),
            (52, "PINBLOCK"),
            (55, "chip data"),
            (60, "1"),
        ],
    ),
    (b"110", &[(4, "1500"), (11, "000123"), (38, "A1B2C3"), (39, "10"), (54, "0057840D000000002500")]),
    (
        b"420",
        &[
            (4, "2500"),
            (7, "1121165900"),
            (11, "000124"),
            (39, "68"),
            (102, "0001000000000042"),
            (128, "MACMACMA"),
        ],
    ),
    (b"520", &[(74, "1"), (81, "2"), (86, "2500"), (97, "D0000000000002500")]),
    (b"800", &[(7, "1121170000"), (11, "000125"), (70, "301")]),
];

/// One of each that asks for something, of the 1987 edition.
const PAYMENTS: [Given; 8] = [
    (
        b"100",
        &[
            (2, "4111111111111111"),
            (3, "000000"),
            (4, "2500"),
            (7, "1114221320"),
            (11, "000123"),
            (12, "231320"),
            (13, "1114"),
            (18, "5411"),
            (22, "051"),
            (25, "00"),
            (32, "123456"),
            (37, "632516000123"),
            (41, "TERM0001"),
            (42, "MERCHANT0000501"),
            (49, "840"),
            (60, "1"),
        ],
    ),
    (
        b"100",
        &[
            (2, "4111111111111111"),
            (3, "000000"),
            (4, "2500"),
            (7, "1114221320"),
            (11, "000123"),
            (12, "231320"),
            (13, "1114"),
            (18, "5411"),
            (22, "051"),
            (25, "00"),
            (32, "123456"),
            (37, "632516000123"),
            (41, "TERM0001"),
            (42, "MERCHANT0000501"),
            (49, "840"),
            (60, "01"),
        ],
    ),
    (
        b"120",
        &[
            (2, "4111111111111111"),
            (3, "000000"),
            (4, "2500"),
            (7, "1114221320"),
            (11, "000123"),
            (12, "231320"),
            (13, "1114"),
            (18, "5411"),
            (22, "051"),
            (25, "00"),
            (32, "123456"),
            (37, "632516000123"),
            (41, "TERM0001"),
            (42, "MERCHANT0000501"),
            (49, "840"),
            (38, "ABC123"),
            (39, "00"),
            (60, "0"),
        ],
    ),
    (
        b"200",
        &[
            (2, "4111111111111111"),
            (3, "000000"),
            (4, "2500"),
            (7, "1114221320"),
            (11, "000123"),
            (12, "231320"),
            (13, "1114"),
            (18, "5411"),
            (22, "051"),
            (25, "00"),
            (32, "123456"),
            (37, "632516000123"),
            (41, "TERM0001"),
            (42, "MERCHANT0000501"),
            (49, "840"),
        ],
    ),
    (
        b"220",
        &[
            (2, "4111111111111111"),
            (3, "000000"),
            (4, "2500"),
            (7, "1114221320"),
            (11, "000123"),
            (12, "231320"),
            (13, "1114"),
            (18, "5411"),
            (22, "051"),
            (25, "00"),
            (32, "123456"),
            (37, "632516000123"),
            (41, "TERM0001"),
            (42, "MERCHANT0000501"),
            (49, "840"),
            (38, "ABC123"),
            (90, "010000012211142213000000012345600000000000"),
        ],
    ),
    (
        b"400",
        &[
            (2, "4111111111111111"),
            (3, "000000"),
            (4, "2500"),
            (7, "1114221320"),
            (11, "000123"),
            (12, "231320"),
            (13, "1114"),
            (18, "5411"),
            (22, "051"),
            (25, "00"),
            (32, "123456"),
            (37, "632516000123"),
            (41, "TERM0001"),
            (42, "MERCHANT0000501"),
            (49, "840"),
            (39, "68"),
            (90, "020000012211142213000000012345600000000000"),
        ],
    ),
    (
        b"420",
        &[
            (2, "4111111111111111"),
            (3, "000000"),
            (4, "2500"),
            (7, "1114221320"),
            (11, "000123"),
            (12, "231320"),
            (13, "1114"),
            (18, "5411"),
            (22, "051"),
            (25, "00"),
            (32, "123456"),
            (37, "632516000123"),
            (41, "TERM0001"),
            (42, "MERCHANT0000501"),
            (49, "840"),
            (39, "68"),
            (90, "022000012211142213000000012345600000000000"),
        ],
    ),
    (
        b"401",
        &[
            (2, "4111111111111111"),
            (3, "000000"),
            (4, "2500"),
            (7, "1114221320"),
            (11, "000123"),
            (12, "231320"),
            (13, "1114"),
            (18, "5411"),
            (22, "051"),
            (25, "00"),
            (32, "123456"),
            (37, "632516000123"),
            (41, "TERM0001"),
            (42, "MERCHANT0000501"),
            (49, "840"),
            (39, "68"),
            (90, "010000012211142213000000012345600000000000"),
            (95, "000000001000000000000000000000000000000000"),
        ],
    ),
];
