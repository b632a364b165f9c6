//! The golden vectors of `FIELDS.md`, which another library has made.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod made;

use iso8583::{Codec, Dialect, Draft, Message, Mti};
use made::PROFILES;

const AUTHORIZATION: &[(u8, &[u8])] = &[
    (2, b"4111111111111111"),
    (3, b"000000"),
    (4, b"000000002500"),
    (7, b"1121165500"),
    (11, b"000123"),
    (12, b"165500"),
    (13, b"1121"),
    (18, b"5411"),
    (22, b"051"),
    (25, b"00"),
    (32, b"12345678901"),
    (35, b"4111111111111111=29121010000"),
    (37, b"632516000123"),
    (41, b"TERM0001"),
    (42, b"MERCHANT0000501"),
    (49, b"840"),
    (52, &[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]),
    (55, &[0x9f, 0x26, 0x08, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x07, 0x18]),
];

const PARTIAL: &[(u8, &[u8])] = &[
    (3, b"000000"),
    (4, b"000000001500"),
    (7, b"1121165500"),
    (11, b"000123"),
    (32, b"12345678901"),
    (37, b"632516000123"),
    (38, b"A1B2C3"),
    (39, b"10"),
    (41, b"TERM0001"),
    (49, b"840"),
    (54, b"0057840D000000002500"),
];

const REVERSAL: &[(u8, &[u8])] = &[
    (3, b"000000"),
    (4, b"000000002500"),
    (7, b"1121165900"),
    (11, b"000124"),
    (32, b"12345678901"),
    (37, b"632516000123"),
    (39, b"68"),
    (41, b"TERM0001"),
    (49, b"840"),
    (90, b"010000012311211655001234567890100000000000"),
    (95, b"000000001000000000000000000000000000000000"),
];

const ECHO: &[(u8, &[u8])] = &[(7, b"1121170000"), (11, b"000125"), (70, b"301")];

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

#[test]
fn another_library_writes_the_same_bytes() {
    let (_, table) = include_str!("../FIELDS.md").split_once("## Golden vectors").unwrap();
    let mut rows = 0;
    for row in table.lines().filter(|row| row.contains('`')).skip(1) {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (mti, fields) = match cells[1] {
            "authorization" => (b"0100", AUTHORIZATION),
            "partial" => (b"0110", PARTIAL),
            "reversal" => (b"0420", REVERSAL),
            "echo" => (b"0800", ECHO),
            other => panic!("no message {other}"),
        };
        let profile = PROFILES.iter().find(|(name, _)| *name == cells[2]).unwrap().1;
        let codec = Codec { dialect: Dialect::V1987, profile };
        let expect = unhex(cells[3]);
        let mut draft = Draft::new(Dialect::V1987);
        draft.reset(Mti::from_digits(*mti).unwrap());
        fields.iter().for_each(|(field, units)| draft.set(*field, units));
        let mut bytes = Vec::new();
        draft.encode(codec, &mut bytes).unwrap();
        assert_eq!(bytes, expect, "{} {}", cells[1], cells[2]);
        let message = Message::parse(codec, &expect).unwrap();
        assert_eq!(message.fields(), draft.fields());
        for (field, units) in fields {
            assert!(message.units(*field).unwrap().eq(units.iter().copied()), "{} field {field}", cells[1]);
        }
        rows += 1;
    }
    assert_eq!(rows, 4 * PROFILES.len());
}
