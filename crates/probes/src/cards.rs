//! What acquirers send: messages of ISO 8583, and streams of them.

use iso8583::{Codec, Cut, Dialect, Draft, FrameError, LengthHeader, Message, Mti, Profile};

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
    let version = b'0' + codec.dialect.version() as u8;
    let write = |(kind, fields): Given| {
        let mti = Mti::from_digits([version, kind[0], kind[1], kind[2]]).expect("a type");
        let mut draft = Draft::new(codec.dialect);
        draft.reset(mti);
        fields.iter().for_each(|(field, units)| draft.set(*field, units.as_bytes()));
        let mut bytes = Vec::new();
        draft.encode(codec, &mut bytes).expect("a sound message");
        bytes
    };
    MESSAGES.into_iter().map(write).collect()
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
