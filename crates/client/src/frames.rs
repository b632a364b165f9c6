//! Frames as a client reads them: bytes in, frames out, no network.
//!
//! Public for transports of other kinds, and so that tests can show it whatever bytes they like.

use surety_protocol::limits::{FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, RECORD_BYTES, TOKEN_BYTES};
use surety_protocol::{
    Code, FrameError, FrameHeader, Record, Reply, TAIL_HEAD_BYTES, TailHead, TailStatus, Token,
};

/// Cuts a stream into frames, in a buffer that is used again.
#[derive(Clone, Debug)]
pub struct FrameBuffer {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes from `start` on that the next frame needs, as far as is known.
    needed: usize,
    next_number: u64,
}

/// Where a frame's body lies in its buffer. Holds until the next frame is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyRange(usize, usize);

impl Default for FrameBuffer {
    fn default() -> Self {
        Self { buffer: vec![0; 32 * 1024], start: 0, end: 0, needed: FRAME_HEADER_BYTES, next_number: 0 }
    }
}

impl FrameBuffer {
    /// The body of the frame that was found last.
    #[must_use]
    pub fn body(&self, range: &BodyRange) -> &[u8] {
        &self.buffer[range.0..range.1]
    }

    /// Takes the next frame out of the buffer; `None` until more has arrived.
    ///
    /// # Errors
    /// The reason to close the connection.
    pub fn next_frame(&mut self) -> Result<Option<(FrameHeader, BodyRange)>, FrameError> {
        let bytes = &self.buffer[self.start..self.end];
        let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            self.needed = FRAME_HEADER_BYTES;
            return Ok(None);
        };
        let header = FrameHeader::from_bytes(header)?;
        if header.number != self.next_number {
            return Err(FrameError::Number { expected: self.next_number, found: header.number });
        }
        let length = FRAME_HEADER_BYTES + header.body_bytes();
        if bytes.len() < length {
            self.needed = length;
            return Ok(None);
        }
        let body = BodyRange(self.start + FRAME_HEADER_BYTES, self.start + length);
        self.start += length;
        self.next_number += 1;
        Ok(Some((header, body)))
    }

    /// Room for what arrives, never empty: enough for the frame that has begun, and mostly for some more.
    pub fn room(&mut self) -> &mut [u8] {
        debug_assert!(self.needed <= FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start + self.needed > self.buffer.len() || self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < self.needed {
                self.buffer.resize(self.needed.next_power_of_two(), 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were put into the room.
    ///
    /// # Panics
    /// If there was not so much room.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.buffer.len() - self.end, "more arrived than there was room for");
        self.end += count;
    }

    /// Bytes that the buffer takes: at most twice the largest frame.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }
}

/// Reads the body of a reply frame. `None` if it is not valid; nothing of it is then used.
#[must_use]
pub fn read_replies(body: &[u8], replies: &mut Vec<Reply>) -> Option<Token> {
    let before = replies.len();
    let (token, bytes) = body.split_at_checked(TOKEN_BYTES)?;
    let token = Token::from_slice(token)?;
    for bytes in bytes.as_chunks::<RECORD_BYTES>().0 {
        match Reply::from_bytes(bytes).filter(|reply| reply.code() != Code::None) {
            Some(reply) => replies.push(reply),
            None => {
                replies.truncate(before);
                return None;
            }
        }
    }
    Some(token)
}

/// Reads the body of a frame of the change stream.
///
/// # Errors
/// The reason to close the connection; no record was added then.
pub fn read_records(body: &[u8], records: &mut Vec<Record>) -> Result<(TailHead, TailStatus), FrameError> {
    let (head, items) = body.split_at_checked(TAIL_HEAD_BYTES).unwrap_or((body, &[]));
    let read = TailHead::from_slice(head)?;
    records.extend(items.as_chunks::<RECORD_BYTES>().0.iter().map(Record::from_bytes));
    Ok(read)
}
