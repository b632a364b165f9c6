//! Frames: the unit of a stream. A header of 16 bytes, then a body.

use crate::limits::{
    FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, HELLO_TOKENS_MAX, RECORD_BYTES, TOKEN_BYTES,
};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Client, once, first on each stream: [`crate::Hello`] and its tokens.
    Hello = 1,
    /// Server, once: [`crate::HelloReply`].
    HelloReply = 2,
    /// Client: requests.
    Requests = 3,
    /// Server: a token, then replies.
    Replies = 4,
    /// Client: [`crate::Subscribe`].
    Subscribe = 5,
    /// Server: [`crate::TailHead`], then records of the change stream.
    Records = 6,
    /// Server: it is about to close; no request that arrives from now on is executed.
    Goodbye = 7,
    /// Client: [`crate::StateQuery`].
    StateQuery = 8,
    /// Server: [`crate::StateHead`], then rows.
    State = 9,
    /// Client: [`crate::QueryHead`], then a question to the history.
    Query = 10,
    /// Server: [`crate::AnswerHead`], then a part of an answer.
    Answer = 11,
}

impl FrameKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::HelloReply,
            3 => Self::Requests,
            4 => Self::Replies,
            5 => Self::Subscribe,
            6 => Self::Records,
            7 => Self::Goodbye,
            8 => Self::StateQuery,
            9 => Self::State,
            10 => Self::Query,
            11 => Self::Answer,
            _ => return None,
        })
    }

    /// Bytes of a body with `count` items; `None` where the kind has no such body.
    #[must_use]
    pub const fn body_bytes(self, count: usize) -> Option<usize> {
        if count > FRAME_RECORDS_MAX {
            return None;
        }
        match self {
            Self::Hello if count <= HELLO_TOKENS_MAX => Some(crate::hello::HELLO_BYTES + count * TOKEN_BYTES),
            Self::HelloReply if count == 1 => Some(crate::hello::HELLO_REPLY_BYTES),
            Self::Requests if count > 0 => Some(count * RECORD_BYTES),
            Self::Replies if count > 0 => Some(TOKEN_BYTES + count * RECORD_BYTES),
            Self::Subscribe if count == 1 => Some(crate::tail::SUBSCRIBE_BYTES),
            Self::Records => Some(crate::tail::TAIL_HEAD_BYTES + count * RECORD_BYTES),
            Self::Goodbye if count == 0 => Some(0),
            Self::StateQuery if count == 1 => Some(crate::state::STATE_QUERY_BYTES),
            Self::State => Some(crate::state::STATE_HEAD_BYTES + count * RECORD_BYTES),
            Self::Query if count > 0 => Some(crate::query::QUERY_HEAD_BYTES + count * RECORD_BYTES),
            Self::Answer => Some(crate::query::ANSWER_HEAD_BYTES + count * RECORD_BYTES),
            _ => None,
        }
    }
}

/// The first 16 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What follows.
    pub kind: FrameKind,
    /// Items in the body: requests, replies, records, tokens; of a page of state or a document, its length in records.
    pub count: u16,
    /// Counts the frames of a stream and direction, from 0.
    pub number: u64,
}

/// Why bytes are not a frame. The connection that sent them is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such frame.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// A reserved byte is not zero.
    #[error("non-zero padding in a frame's header or fixed part")]
    Padding,
    /// More than a frame may hold.
    #[error("a frame of {0} bytes, at most {FRAME_BODY_BYTES_MAX} allowed")]
    TooLarge(u32),
    /// The length is not that of the items.
    #[error("a frame of kind {kind:?} with {count} items cannot be {length} bytes long")]
    Length {
        /// The frame's kind.
        kind: FrameKind,
        /// Items announced.
        count: u16,
        /// Bytes announced.
        length: u32,
    },
    /// Frames of a stream are counted, and one is missing or doubled.
    #[error("frame {found} where frame {expected} belongs")]
    Number {
        /// The next number of the stream.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The body is not an archive of its kind.
    #[error("the body of a {0:?} frame is not valid")]
    Body(FrameKind),
}

impl FrameHeader {
    /// Bytes of the body that follows.
    ///
    /// # Panics
    /// If the header could not have been read or built: its kind has no body of that many items.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        match self.kind.body_bytes(self.count as usize) {
            Some(bytes) => bytes,
            None => panic!("a header that was built by hand"),
        }
    }

    /// Writes the header.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FRAME_HEADER_BYTES] {
        let length = u32::try_from(self.body_bytes()).unwrap_or(u32::MAX);
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&length.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// Reads a header and checks that its length is that of its items, so that it can be trusted.
    ///
    /// # Errors
    /// The reason to close the connection.
    pub fn from_bytes(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, kind, reserved, c0, c1, number @ ..] = *bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let count = u16::from_le_bytes([c0, c1]);
        let kind = FrameKind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?;
        if reserved != 0 {
            return Err(FrameError::Padding);
        }
        if length as usize > FRAME_BODY_BYTES_MAX || usize::from(count) > FRAME_RECORDS_MAX {
            return Err(FrameError::TooLarge(length));
        }
        if kind.body_bytes(usize::from(count)) != Some(length as usize) {
            return Err(FrameError::Length { kind, count, length });
        }
        Ok(Self { kind, count, number: u64::from_le_bytes(number) })
    }
}

macro_rules! close_codes {
    ($(#[$doc:meta] $name:ident = $value:literal, $text:literal, $meaning:literal;)*) => {
        /// Why a connection was closed: the application error code of QUIC's `CONNECTION_CLOSE`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum CloseCode {
            $(#[$doc] $name = $value,)*
        }

        impl CloseCode {
            /// Every code.
            pub const ALL: &'static [CloseCode] = &[$(CloseCode::$name),*];

            /// The name in capitals.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(CloseCode::$name => $text,)* }
            }

            /// What it means, for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(CloseCode::$name => $meaning,)* }
            }
        }
    };
}

close_codes! {
    /// Nothing is wrong.
    Done = 0, "DONE", "nothing is wrong";
    /// The engine stops; come back.
    Draining = 0x100, "DRAINING", "the engine stops; come back";
    /// The first frame was not a hello, or its magic is wrong.
    BadHello = 0x101, "BAD_HELLO", "the first frame is no sound hello";
    /// No common protocol version.
    UnknownVersion = 0x102, "UNKNOWN_VERSION", "no common protocol version";
    /// The hello names a tenant that the certificate does not.
    TenantMismatch = 0x103, "TENANT_MISMATCH", "the hello names a tenant that the certificate does not";
    /// A rollback token does not carry this engine's tag.
    BadToken = 0x104, "BAD_TOKEN", "a rollback token is not of this engine";
    /// A rollback token proves that this engine's state is older than what it has acknowledged.
    Fork = 0x105, "FORK", "the engine runs on an old copy of its data";
    /// The certificate has no role or tenant, or has been revoked.
    BadCertificate = 0x106, "BAD_CERTIFICATE", "the certificate has no tenant or role, is expired or revoked, or its tenant is shut out";
    /// A rollback token is of what was lost when the engine went on from a backup.
    LostLife = 0x107, "LOST_LIFE", "the engine was restored from a backup, and what this client was told after that is lost: compare what was made of it, then start the client anew";
    /// A frame is larger than allowed.
    TooLarge = 0x110, "FRAME_TOO_LARGE", "a frame is larger than allowed";
    /// A stream ended inside a frame.
    Truncated = 0x111, "FRAME_TRUNCATED", "a stream ended inside a frame";
    /// An unknown frame kind, or a length that is not that of its items.
    BadFrame = 0x112, "BAD_FRAME", "a frame that does not belong there";
    /// A reserved byte is not zero.
    Padding = 0x113, "NON_ZERO_PADDING", "a reserved byte is not zero";
    /// A body is not a valid archive.
    BadArchive = 0x114, "BAD_ARCHIVE", "a body is not of its kind";
    /// An operation that does not exist, or that only the engine writes.
    UnknownKind = 0x115, "UNKNOWN_OPERATION", "an operation that does not exist";
    /// A frame took too long to arrive.
    FrameDeadline = 0x120, "FRAME_DEADLINE", "a frame took too long to arrive";
    /// Replies were not read.
    SlowReader = 0x121, "SLOW_READER", "replies or records were not read";
    /// Too many requests unanswered, or too many connections.
    TooMany = 0x122, "TOO_MANY", "too many streams, connections, readers or unanswered requests";
    /// The engine failed; nothing that was not answered is known to have happened.
    Internal = 0x1ff, "INTERNAL", "the engine failed";
}

impl CloseCode {
    /// Reads a code.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| u64::from(*known as u32) == code)
    }
}

impl From<FrameError> for CloseCode {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::UnknownKind(_) | FrameError::Length { .. } | FrameError::Number { .. } => {
                Self::BadFrame
            }
            FrameError::Padding => Self::Padding,
            FrameError::TooLarge(_) => Self::TooLarge,
            FrameError::Body(FrameKind::Hello) => Self::BadHello,
            FrameError::Body(_) => Self::BadArchive,
        }
    }
}

impl From<crate::RecordError> for CloseCode {
    fn from(error: crate::RecordError) -> Self {
        match error {
            crate::RecordError::UnknownKind(_) => Self::UnknownKind,
            crate::RecordError::UnknownFlags(_) | crate::RecordError::Padding(_) => Self::Padding,
            crate::RecordError::Cut { .. } => Self::BadFrame,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive() {
        for (kind, count) in [
            (FrameKind::Hello, 0),
            (FrameKind::Hello, 3),
            (FrameKind::HelloReply, 1),
            (FrameKind::Requests, 1),
            (FrameKind::Requests, 1024),
            (FrameKind::Replies, 1024),
            (FrameKind::Subscribe, 1),
            (FrameKind::Records, 0),
            (FrameKind::Goodbye, 0),
            (FrameKind::StateQuery, 1),
            (FrameKind::State, 0),
            (FrameKind::State, 5),
            (FrameKind::Query, 1),
            (FrameKind::Query, 512),
            (FrameKind::Answer, 0),
            (FrameKind::Answer, 1024),
        ] {
            let header = FrameHeader { kind, count, number: 7 };
            assert_eq!(FrameHeader::from_bytes(&header.to_bytes()), Ok(header));
        }
    }

    #[test]
    fn every_flipped_bit_of_length_kind_or_count_is_refused() {
        let bytes = FrameHeader { kind: FrameKind::Requests, count: 5, number: 0 }.to_bytes();
        for bit in 0..64 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::from_bytes(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn close_codes_read_back() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(u64::from(*code as u32)), Some(*code));
        }
    }
}
