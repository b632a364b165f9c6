//! Reply frames of one stream: replies gather, then leave as one frame with the token in front.

use bytes::{Bytes, BytesMut};
use surety_protocol::limits::{FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, RECORD_BYTES, TOKEN_BYTES};
use surety_protocol::{FrameHeader, FrameKind, Reply};

const HEAD_BYTES: usize = FRAME_HEADER_BYTES + TOKEN_BYTES;

/// A rollback token as it travels.
pub(super) type TokenBytes = [u8; TOKEN_BYTES];

/// Gathers the replies of one stream.
#[derive(Debug)]
pub(super) struct ReplyFrames {
    /// Room for header and token, then replies; empty between frames.
    open: BytesMut,
    count: u16,
    number: u64,
    /// The version of the wire that the stream speaks.
    version: u16,
}

impl ReplyFrames {
    /// `number` is that of the next frame.
    pub(super) fn new(number: u64, version: u16) -> Self {
        Self { open: BytesMut::new(), count: 0, number, version }
    }

    /// Adds a reply. True if the frame is full and must be closed before the next.
    pub(super) fn push(&mut self, reply: &Reply) -> bool {
        if self.count == 0 {
            self.open.reserve(HEAD_BYTES + RECORD_BYTES);
            self.open.extend_from_slice(&[0; HEAD_BYTES]);
        }
        let mut told = *reply;
        told.code = told.code().in_version(self.version) as u8;
        self.open.extend_from_slice(&told.to_bytes());
        self.count += 1;
        usize::from(self.count) == FRAME_RECORDS_MAX
    }

    /// The finished frame; `None` if nothing was added since the last.
    pub(super) fn close(&mut self, token: &TokenBytes) -> Option<Bytes> {
        if self.count == 0 {
            return None;
        }
        let header = self.header(FrameKind::Replies, self.count);
        self.open[..FRAME_HEADER_BYTES].copy_from_slice(&header);
        self.open[FRAME_HEADER_BYTES..HEAD_BYTES].copy_from_slice(token);
        self.count = 0;
        Some(self.open.split().freeze())
    }

    /// The last frame of a stream: nothing that arrives from now on is executed.
    pub(super) fn goodbye(&mut self) -> Bytes {
        Bytes::copy_from_slice(&self.header(FrameKind::Goodbye, 0))
    }

    fn header(&mut self, kind: FrameKind, count: u16) -> [u8; FRAME_HEADER_BYTES] {
        let header = FrameHeader { kind, count, number: self.number };
        self.number += 1;
        header.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FrameBuffer;
    use surety_protocol::{Code, Id, PROTOCOL_VERSION};

    #[test]
    fn frames_are_numbered_and_carry_token_and_replies() {
        let mut frames = ReplyFrames::new(0, PROTOCOL_VERSION);
        let token = [7; TOKEN_BYTES];
        assert_eq!(frames.close(&token), None);
        let mut reader = FrameBuffer::default();
        for count in [1, 3, FRAME_RECORDS_MAX] {
            for id in 0..count {
                let is_full = frames.push(&Reply { id: Id(id as u128), ..Reply::default() });
                assert_eq!(is_full, id + 1 == FRAME_RECORDS_MAX);
            }
            reader.push(frames.close(&token).unwrap());
            let frame = reader.next_frame().unwrap().unwrap();
            assert_eq!((frame.header.kind, usize::from(frame.header.count)), (FrameKind::Replies, count));
            assert_eq!(frame.body[..TOKEN_BYTES], token);
            let replies = frame.body[TOKEN_BYTES..].as_chunks::<RECORD_BYTES>().0;
            let ids: Vec<u128> = replies.iter().map(|bytes| Reply::from_bytes(bytes).unwrap().id.0).collect();
            assert_eq!(ids, (0..count as u128).collect::<Vec<_>>());
        }
        reader.push(frames.goodbye());
        assert_eq!(reader.next_frame().unwrap().unwrap().header.kind, FrameKind::Goodbye);
    }

    #[test]
    fn a_stream_of_version_1_is_told_what_version_1_knows() {
        for (version, told) in [(1, Code::Quota), (2, Code::QuotaRate)] {
            let mut frames = ReplyFrames::new(0, version);
            frames.push(&Reply { code: Code::QuotaRate as u8, ..Reply::default() });
            let mut reader = FrameBuffer::default();
            reader.push(frames.close(&[0; TOKEN_BYTES]).unwrap());
            let body = reader.next_frame().unwrap().unwrap().body;
            let reply = Reply::from_bytes(body[TOKEN_BYTES..].try_into().unwrap()).unwrap();
            assert_eq!(reply.code(), told);
        }
    }
}
