//! Messages are cut off a stream wherever it was cut on its way.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use iso8583::{Cut, FrameError, LengthHeader, MESSAGE_BYTES_MAX};

const HEADERS: [LengthHeader; 3] = [LengthHeader::Binary2, LengthHeader::Ascii4, LengthHeader::Bcd2];

fn write(header: LengthHeader, out: &mut Vec<u8>, message: &[u8]) -> Result<(), FrameError> {
    header.write(out, |out| {
        out.extend_from_slice(message);
        Ok(())
    })
}

/// Reads a stream that arrives in pieces, as a socket's reader does.
fn read(header: LengthHeader, stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        buffer.extend_from_slice(piece);
        while let Cut::Message { bytes, used } = header.cut(&buffer, MESSAGE_BYTES_MAX).unwrap() {
            messages.push(bytes.to_vec());
            buffer.drain(..used);
        }
    }
    assert!(buffer.is_empty());
    messages
}

#[test]
fn glued_and_cut_streams_are_read_the_same() {
    let messages: Vec<Vec<u8>> =
        [1, 2, 99, 100, 255, 256, 1000].iter().map(|length| vec![b'0'; *length]).collect();
    for header in HEADERS {
        let mut stream = Vec::new();
        messages.iter().for_each(|message| write(header, &mut stream, message).unwrap());
        for piece in 1..stream.len() {
            assert_eq!(read(header, &stream, piece), messages, "{header:?} in pieces of {piece}");
        }
    }
}

#[test]
fn what_is_missing_is_told() {
    for header in HEADERS {
        let mut stream = Vec::new();
        write(header, &mut stream, &[7; 300]).unwrap();
        for have in 0..stream.len() {
            let expect = if have < header.bytes() { header.bytes() - have } else { stream.len() - have };
            assert_eq!(header.cut(&stream[..have], 300), Ok(Cut::Wants(expect)), "{header:?} {have}");
        }
    }
}

#[test]
fn lengths_that_lose_the_stream_are_errors() {
    let check = |header: LengthHeader, bytes: &[u8], expect| assert_eq!(header.cut(bytes, 100), Err(expect));
    check(LengthHeader::Binary2, &[0, 0], FrameError::Empty);
    check(LengthHeader::Ascii4, b"0000", FrameError::Empty);
    check(LengthHeader::Bcd2, &[0, 0], FrameError::Empty);
    check(LengthHeader::Binary2, &[0, 101], FrameError::TooLong { found: 101, max: 100 });
    check(LengthHeader::Ascii4, b"9999", FrameError::TooLong { found: 9999, max: 100 });
    check(LengthHeader::Bcd2, &[0x01, 0x01], FrameError::TooLong { found: 101, max: 100 });
    check(LengthHeader::Ascii4, b"01x0", FrameError::Digits);
    check(LengthHeader::Bcd2, &[0x0a, 0x00], FrameError::Digits);
}

#[test]
fn what_no_header_can_say_is_not_written() {
    for (header, max) in
        [(LengthHeader::Binary2, 65_535), (LengthHeader::Ascii4, 9_999), (LengthHeader::Bcd2, 9_999)]
    {
        let mut out = vec![1];
        write(header, &mut out, &vec![0; max]).unwrap();
        assert_eq!(out.len(), 1 + header.bytes() + max);
        let mut out = vec![1];
        assert_eq!(write(header, &mut out, &vec![0; max + 1]), Err(FrameError::Unspeakable(max + 1)));
        assert_eq!(out, [1]);
    }
}
