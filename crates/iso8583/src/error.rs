//! What can be wrong with a message: where it is, and what.

/// Why bytes are no message. Names the field and the place, never the content: it may be a card's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field} at byte {at}: {reason}")]
pub struct ParseError {
    /// The field; 0 is the message type, 1 a bitmap.
    pub field: u8,
    /// The byte of the message at which the field's bytes begin.
    pub at: usize,
    /// What is wrong.
    pub reason: ParseReason,
}

/// What is wrong with a field that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseReason {
    /// The message ends before the field does.
    #[error("{needed} bytes needed, {left} left")]
    Truncated {
        /// What the field takes.
        needed: usize,
        /// What there is.
        left: usize,
    },
    /// The dialect has no such field.
    #[error("unknown in this dialect")]
    Unknown,
    /// A third bitmap is announced.
    #[error("a bitmap beyond field 128")]
    ThirdBitmap,
    /// The length indicator is no number.
    #[error("the length is no number")]
    LengthDigits,
    /// The length indicator says more than the field may hold, or half a byte of a binary field.
    #[error("length {found} where at most {max} is allowed")]
    Length {
        /// What it says.
        found: usize,
        /// What is allowed.
        max: usize,
    },
    /// A character that the field's content does not allow.
    #[error("a character that does not belong here")]
    Content,
    /// The message type is not one of the dialect.
    #[error("no message type of this dialect")]
    Mti,
    /// Bytes behind the last field.
    #[error("{0} bytes behind the last field")]
    Trailing(usize),
    /// More bytes than a message may have.
    #[error("more than 65535 bytes")]
    TooLong,
}

/// Why a draft cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {reason}")]
pub struct EncodeError {
    /// The field; 0 is the message type.
    pub field: u8,
    /// What is wrong.
    pub reason: EncodeReason,
}

/// What is wrong with a field that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeReason {
    /// The dialect has no such field.
    #[error("unknown in this dialect")]
    Unknown,
    /// More than the field may hold, or less than a binary field must.
    #[error("length {found} where {max} is allowed")]
    Length {
        /// What was set.
        found: usize,
        /// What is allowed.
        max: usize,
    },
    /// A character that the field's content does not allow.
    #[error("a character that does not belong here")]
    Content,
    /// The message type is not one of the dialect.
    #[error("no message type of this dialect")]
    Mti,
    /// More bytes than a message may have.
    #[error("more than 65535 bytes")]
    TooLong,
}
