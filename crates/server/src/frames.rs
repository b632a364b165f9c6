//! From the chunks of a stream to its frames, without a copy where a chunk holds a whole frame.

use bytes::{Buf, Bytes, BytesMut};
use surety_protocol::limits::FRAME_HEADER_BYTES;
use surety_protocol::{FrameError, FrameHeader};

/// A frame, its header checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub header: FrameHeader,
    /// As many bytes as the header announces.
    pub body: Bytes,
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    /// The beginning of a frame whose rest has not arrived; empty between frames.
    partial: BytesMut,
    /// What has arrived and was not looked at.
    chunk: Bytes,
    /// The next frame's number.
    number: u64,
}

impl FrameBuffer {
    /// Takes what has arrived. Call [`FrameBuffer::next_frame`] until it has no more before the next chunk.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.partial.extend_from_slice(&self.chunk);
            self.chunk = chunk;
        }
    }

    /// The next whole frame; `None` until more arrives.
    ///
    /// # Errors
    /// The reason to close the connection.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if !self.partial.is_empty() {
            return self.complete_partial();
        }
        let Some(bytes) = self.chunk.first_chunk::<FRAME_HEADER_BYTES>() else {
            self.keep(FRAME_HEADER_BYTES);
            return Ok(None);
        };
        let header = FrameHeader::from_bytes(bytes)?;
        let total = FRAME_HEADER_BYTES + header.body_bytes();
        if self.chunk.len() < total {
            self.check_number(&header)?;
            self.keep(total);
            return Ok(None);
        }
        let frame = self.chunk.split_to(total);
        self.accept(header, frame).map(Some)
    }

    /// True between the first and the last byte of a frame.
    #[must_use]
    pub fn is_inside_frame(&self) -> bool {
        !self.partial.is_empty() || !self.chunk.is_empty()
    }

    /// Moves bytes of the chunk to the partial frame until that has `total` bytes.
    fn keep(&mut self, total: usize) {
        let take = total.saturating_sub(self.partial.len()).min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk[..take]);
        self.chunk.advance(take);
    }

    fn complete_partial(&mut self) -> Result<Option<Frame>, FrameError> {
        self.keep(FRAME_HEADER_BYTES);
        let Some(bytes) = self.partial.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let header = FrameHeader::from_bytes(bytes)?;
        self.check_number(&header)?;
        let total = FRAME_HEADER_BYTES + header.body_bytes();
        self.keep(total);
        if self.partial.len() < total {
            return Ok(None);
        }
        // `push` may have put more than this frame into the partial bytes only if they were never looked at.
        let frame = self.partial.split_to(total).freeze();
        self.accept(header, frame).map(Some)
    }

    fn accept(&mut self, header: FrameHeader, mut frame: Bytes) -> Result<Frame, FrameError> {
        self.check_number(&header)?;
        self.number += 1;
        frame.advance(FRAME_HEADER_BYTES);
        Ok(Frame { header, body: frame })
    }

    fn check_number(&self, header: &FrameHeader) -> Result<(), FrameError> {
        if header.number == self.number {
            Ok(())
        } else {
            Err(FrameError::Number { expected: self.number, found: header.number })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::FrameKind;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, count) in [(0, 1_u16), (1, 3), (2, 1), (3, 64)] {
            let header = FrameHeader { kind: FrameKind::Requests, count, number };
            bytes.extend_from_slice(&header.to_bytes());
            bytes.extend(std::iter::repeat_n(u8::try_from(number).unwrap(), header.body_bytes()));
        }
        bytes
    }

    /// Feeds a stream in pieces; returns the counts of its frames.
    fn feed(bytes: &[u8], piece: usize) -> Result<Vec<u16>, FrameError> {
        let mut buffer = FrameBuffer::default();
        let mut counts = Vec::new();
        for chunk in bytes.chunks(piece) {
            buffer.push(Bytes::copy_from_slice(chunk));
            while let Some(frame) = buffer.next_frame()? {
                assert_eq!(frame.body.len(), frame.header.body_bytes());
                assert!(frame.body.iter().all(|byte| u64::from(*byte) == frame.header.number));
                counts.push(frame.header.count);
            }
        }
        assert!(!buffer.is_inside_frame(), "piece {piece}");
        Ok(counts)
    }

    #[test]
    fn frames_do_not_depend_on_how_they_arrive() {
        let bytes = stream();
        for piece in (1..200).chain([1000, bytes.len()]) {
            assert_eq!(feed(&bytes, piece), Ok(vec![1, 3, 1, 64]), "piece {piece}");
        }
    }

    #[test]
    fn a_frame_that_is_not_next_is_refused_before_its_body_arrives() {
        let header = FrameHeader { kind: FrameKind::Requests, count: 1024, number: 1 }.to_bytes();
        for piece in [1, 16] {
            let expected = FrameError::Number { expected: 0, found: 1 };
            assert_eq!(feed(&header, piece), Err(expected));
        }
    }

    #[test]
    fn an_unfinished_frame_is_known_as_such() {
        let bytes = stream();
        for cut in 1..FRAME_HEADER_BYTES + 128 {
            let mut buffer = FrameBuffer::default();
            buffer.push(Bytes::copy_from_slice(&bytes[..cut]));
            assert_eq!(buffer.next_frame(), Ok(None));
            assert!(buffer.is_inside_frame(), "cut {cut}");
        }
    }
}
