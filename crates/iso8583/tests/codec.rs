//! What is written reads back, whatever it is; what is broken is refused with its place, or read as far as it is sound.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod made;

use iso8583::{Codec, Dialect, Draft, EncodeReason, Message, Mti, ParseError, ParseReason, Profile};
use made::PROFILES;
use proptest::prelude::*;

const ASCII: Codec = Codec { dialect: Dialect::V1987, profile: Profile::ASCII };
const BINARY: Codec = Codec { dialect: Dialect::V1987, profile: Profile::BINARY };

fn draft(mti: &[u8; 4], fields: &[(u8, &str)]) -> Draft {
    let mti = Mti::from_digits(*mti).unwrap();
    let mut draft = Draft::new(Dialect::V1987);
    draft.reset(mti);
    fields.iter().for_each(|(field, units)| draft.set(*field, units.as_bytes()));
    draft
}

fn encode(draft: &Draft, codec: Codec) -> Vec<u8> {
    let mut bytes = Vec::new();
    draft.encode(codec, &mut bytes).unwrap();
    bytes
}

fn units(message: &Message, field: u8) -> Vec<u8> {
    message.units(field).map(Iterator::collect).unwrap_or_default()
}

fn case() -> impl Strategy<Value = (Codec, Draft)> {
    made::codec().prop_flat_map(|codec| (Just(codec), made::draft(codec.dialect)))
}

proptest! {
    #[test]
    fn what_is_written_reads_back((codec, draft) in case()) {
        let bytes = encode(&draft, codec);
        let message = Message::parse(codec, &bytes).unwrap();
        prop_assert_eq!(message.mti(), draft.mti());
        prop_assert_eq!(message.fields(), draft.fields());
        let mut copy = Draft::new(codec.dialect);
        copy.reset(message.mti());
        for field in message.fields().fields() {
            prop_assert_eq!(&units(&message, field)[..], draft.get(field).unwrap(), "field {}", field);
            copy.copy(&message, field);
        }
        prop_assert_eq!(encode(&copy, codec), bytes);
    }

    #[test]
    fn a_message_cut_anywhere_is_refused((codec, draft) in case()) {
        let bytes = encode(&draft, codec);
        for length in 0..bytes.len() {
            let (message, result) = Message::read(codec, &bytes[..length]);
            let error = result.unwrap_err();
            let is_cut = matches!(error.reason, ParseReason::Truncated { .. });
            prop_assert!(is_cut && error.at <= length, "{error:?}");
            // What comes before the bad field is there, and the same.
            for field in message.fields().fields() {
                prop_assert!(field < error.field);
                prop_assert_eq!(&units(&message, field)[..], draft.get(field).unwrap());
            }
        }
    }

    #[test]
    fn whatever_bytes_are_read_without_a_panic(codec in made::codec(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = Message::parse(codec, &bytes) {
            let _ = format!("{message:?}");
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_reads_back((codec, draft) in case(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&draft, codec);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let (message, result) = Message::read(codec, &bytes);
        let fields = message.fields();
        let mut copy = Draft::new(codec.dialect);
        copy.reset(message.mti());
        fields.fields().for_each(|field| copy.copy(&message, field));
        if result.is_ok() {
            let again = encode(&copy, codec);
            let again = Message::parse(codec, &again).unwrap();
            for field in fields.fields() {
                prop_assert_eq!(units(&again, field), units(&message, field));
            }
        }
    }
}

#[test]
fn errors_name_the_field_and_the_place() {
    let bytes =
        encode(&draft(b"0100", &[(2, "4111111111111111"), (4, "000000001000"), (11, "000001")]), ASCII);
    let check = |at: usize, with: &str, expect: (u8, usize, ParseReason)| {
        let mut bytes = bytes.clone();
        bytes[at..at + with.len()].copy_from_slice(with.as_bytes());
        let (field, at, reason) = expect;
        assert_eq!(Message::parse(ASCII, &bytes).unwrap_err(), ParseError { field, at, reason });
    };
    check(0, "9", (0, 0, ParseReason::Mti));
    check(0, "1", (0, 0, ParseReason::Mti));
    check(1, "9", (0, 0, ParseReason::Mti));
    check(4, "x", (1, 4, ParseReason::Content));
    check(20, "2x", (2, 20, ParseReason::LengthDigits));
    check(20, "20", (2, 20, ParseReason::Length { found: 20, max: 19 }));
    check(30, "a", (2, 20, ParseReason::Content));
    check(38, " ", (4, 38, ParseReason::Content));
    let longer = [&bytes[..], b"00"].concat();
    let error = Message::parse(ASCII, &longer).unwrap_err();
    assert_eq!(error, ParseError { field: 0, at: bytes.len(), reason: ParseReason::Trailing(2) });
    let third = b"08008000000000000000C000000000000000";
    let error = Message::parse(ASCII, third).unwrap_err();
    assert_eq!((error.field, error.reason), (65, ParseReason::ThirdBitmap));
    let long = vec![b'0'; 65_536];
    assert_eq!(Message::parse(ASCII, &long).unwrap_err().reason, ParseReason::TooLong);
}

#[test]
fn padding_of_odd_digits_is_checked() {
    let mut bytes = encode(&draft(b"0100", &[(2, "411111111111111"), (35, "4111=99")]), BINARY);
    assert_eq!(bytes[10..], *b"\x15\x04\x11\x11\x11\x11\x11\x11\x11\x07\x41\x11\xd9\x9f");
    let message = Message::parse(BINARY, &bytes).unwrap();
    assert_eq!(units(&message, 2), b"411111111111111");
    assert_eq!(units(&message, 35), b"4111=99");
    bytes[11] = 0x14;
    assert_eq!(Message::parse(BINARY, &bytes).unwrap_err().reason, ParseReason::Content);
    bytes[11] = 0x04;
    bytes[23] = 0x90;
    let error = Message::parse(BINARY, &bytes).unwrap_err();
    assert_eq!((error.field, error.at), (35, 19));
}

#[test]
fn hexadecimal_fields_are_whole_bytes() {
    let bytes = encode(&draft(b"0100", &[(55, "\u{1}\u{2}")]), ASCII);
    assert_eq!(bytes[20..], *b"0040102");
    let odd = [&bytes[..20], b"0030102"].concat();
    let reason = Message::parse(ASCII, &odd).unwrap_err().reason;
    assert_eq!(reason, ParseReason::Length { found: 3, max: 510 });
}

#[test]
fn values_are_read_where_they_lie() {
    for (name, profile) in PROFILES {
        let codec = Codec { profile, ..ASCII };
        let bytes = encode(&draft(b"0100", &[(3, "12"), (4, "1000"), (41, "T1"), (90, "")]), codec);
        let message = Message::parse(codec, &bytes).unwrap();
        assert_eq!(message.number(4), Some(1000), "{name}");
        assert_eq!(message.exactly(3), Some(*b"000012"), "{name}: digits get zeros in front");
        assert_eq!(message.exactly(41), Some(*b"T1      "), "{name}: text gets blanks behind");
        assert_eq!(message.exactly::<5>(3), None);
        assert_eq!((message.number(41), message.number(90), message.number(11)), (None, None, None));
        assert_eq!((message.wire(11), message.has(11)), (None, false));
    }
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let check = |fields: &[(u8, &str)], field: u8, reason: EncodeReason| {
        let mut out = b"before".to_vec();
        let error = draft(b"0100", fields).encode(ASCII, &mut out).unwrap_err();
        assert_eq!((error.field, error.reason), (field, reason));
        assert_eq!(out, b"before");
    };
    check(&[(4, "1000"), (11, "1234567")], 11, EncodeReason::Length { found: 7, max: 6 });
    check(&[(11, "12a")], 11, EncodeReason::Content);
    check(&[(37, "\u{7f}")], 37, EncodeReason::Content);
    check(&[(52, "123")], 52, EncodeReason::Length { found: 3, max: 8 });
    for field in [0, 1, 65, 129] {
        check(&[(field, "1")], field, EncodeReason::Unknown);
    }
    let mut long = draft(b"0100", &[]);
    let text = vec![b'x'; 999];
    (105..=127).chain(56..=63).chain(46..=48).for_each(|field| long.set(field, &text));
    assert!(long.encode(ASCII, &mut Vec::new()).is_ok());
    let foreign = Draft::new(Dialect::V1993).encode(ASCII, &mut Vec::new()).unwrap_err();
    assert_eq!(foreign.reason, EncodeReason::Mti);
}

#[test]
fn nothing_prints_a_card() {
    let canary = "4929123456789012";
    let track = "4929123456789012=31071010000";
    let fields: Vec<(u8, &str)> = vec![
        (2, canary),
        (4, "000000001000"),
        (14, "3107"),
        (34, canary),
        (35, track),
        (36, track),
        (45, "B4929123456789012^DOE/J^3107"),
        (48, "pan=4929123456789012"),
        (52, "PINBLOCK"),
        (55, canary),
        (63, canary),
        (102, canary),
        (103, canary),
        (120, canary),
    ];
    let draft = draft(b"0100", &fields);
    let mut prints = vec![format!("{draft:?}"), format!("{draft:#?}")];
    for (_, profile) in PROFILES {
        let bytes = encode(&draft, Codec { profile, ..ASCII });
        let message = Message::parse(Codec { profile, ..ASCII }, &bytes).unwrap();
        prints.push(format!("{message:?}"));
        // Errors carry places, never content.
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0x55;
            let (message, result) = Message::read(Codec { profile, ..ASCII }, &broken);
            prints.push(format!("{message:?} {result:?}"));
        }
    }
    for print in prints {
        for secret in ["123456789", "3132333435", "PINBLOCK", "3107"] {
            assert!(!print.contains(secret), "{secret} in {print}");
        }
    }
    let print = format!("{draft:?}");
    assert!(print.contains("2: 492912******9012") && print.contains("4: 000000001000"), "{print}");
    assert!(print.contains("52: [8]") && print.contains("35: [28]"), "{print}");
    let short = format!("{:?}", self::draft(b"0100", &[(2, "49291234567890")]));
    assert!(short.contains("2: **************"), "of a short number nearly all would be shown: {short}");
}
