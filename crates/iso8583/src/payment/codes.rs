//! One table of codes: an engine's, those of each edition of the standard, and that of HTTP.

use surety_protocol::Code;

use crate::Dialect;

/// How an outcome is told at each front door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeCode {
    /// Field 39 of the 1987 edition.
    pub iso1987: [u8; 2],
    /// Field 39 of the 1993 edition.
    pub iso1993: [u8; 3],
    /// Status of an HTTP reply: 200 also for a payment that was declined, which is an answer and no error.
    pub http: u16,
}

impl EdgeCode {
    const fn new(iso1987: &[u8; 2], iso1993: &[u8; 3], http: u16) -> Self {
        Self { iso1987: *iso1987, iso1993: *iso1993, http }
    }

    /// Field 39.
    #[must_use]
    pub const fn field_39(&self, dialect: Dialect) -> &[u8] {
        match dialect {
            Dialect::V1987 => &self.iso1987,
            Dialect::V1993 => &self.iso1993,
        }
    }
}

/// The row of an engine's code.
#[must_use]
pub const fn edge_code(code: Code) -> EdgeCode {
    match code {
        Code::Approved => EdgeCode::new(b"00", b"000", 200),
        Code::Partial => EdgeCode::new(b"10", b"002", 200),
        Code::Queued => EdgeCode::new(b"00", b"000", 202),
        Code::Insufficient | Code::Ratio => EdgeCode::new(b"51", b"116", 200),
        Code::Frozen | Code::Forbidden => EdgeCode::new(b"57", b"119", 200),
        Code::OverLimit => EdgeCode::new(b"61", b"121", 200),
        Code::Velocity => EdgeCode::new(b"65", b"123", 200),
        Code::StalePrice => EdgeCode::new(b"91", b"907", 200),
        Code::AlreadyReleased => EdgeCode::new(b"94", b"913", 200),
        Code::Burned => EdgeCode::new(b"68", b"911", 200),
        Code::LinkedFailed => EdgeCode::new(b"12", b"902", 200),
        Code::UnknownLock => EdgeCode::new(b"25", b"914", 404),
        Code::NotFound => EdgeCode::new(b"25", b"914", 404),
        Code::UnknownCapture => EdgeCode::new(b"25", b"914", 422),
        Code::GuaranteeCalled
        | Code::AlreadySettled
        | Code::NotOpen
        | Code::VersionConflict
        | Code::UseRefund => EdgeCode::new(b"12", b"902", 422),
        Code::Exists => EdgeCode::new(b"94", b"913", 422),
        Code::IdConflict => EdgeCode::new(b"94", b"913", 409),
        Code::Malformed => EdgeCode::new(b"30", b"904", 400),
        Code::TooLarge => EdgeCode::new(b"30", b"904", 413),
        Code::NoRight => EdgeCode::new(b"57", b"119", 403),
        Code::UnknownPartition => EdgeCode::new(b"14", b"111", 404),
        Code::StaleId => EdgeCode::new(b"68", b"911", 422),
        Code::UnknownAfterRestore => EdgeCode::new(b"68", b"911", 409),
        Code::IdFromFuture => EdgeCode::new(b"30", b"904", 422),
        Code::Quota
        | Code::QuotaRate
        | Code::QuotaInFlight
        | Code::QuotaOpenLocks
        | Code::QuotaLocks
        | Code::QuotaIds
        | Code::QuotaTombstones
        | Code::QuotaAdvices
        | Code::Overloaded => EdgeCode::new(b"91", b"907", 429),
        Code::StorageLow | Code::ChainStale => EdgeCode::new(b"91", b"907", 503),
        Code::None => EdgeCode::new(b"96", b"909", 500),
    }
}

/// Why a message is refused before any engine is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field that it must carry is missing.
    #[error("field {0} is missing")]
    Missing(u8),
    /// A field says what it cannot say.
    #[error("field {0} makes no sense")]
    Format(u8),
    /// An amount of nothing, or of more than there can be.
    #[error("no amount that can be asked for")]
    Amount,
    /// More is to stay than there was.
    #[error("the replacement is more than the original amount")]
    OriginalAmount,
    /// A type or network code that is not served.
    #[error("not served")]
    Unsupported,
    /// No prefix fits the card.
    #[error("the card leads nowhere")]
    NoRoute,
    /// A currency that the link does not take.
    #[error("the currency is not taken")]
    Currency,
    /// Field 42 names no merchant.
    #[error("no such merchant")]
    Merchant,
    /// Nothing that the message refers to can be found.
    #[error("the original is not found")]
    OriginalUnknown,
    /// Field 64 or 128 is missing, or not the code of the message.
    #[error("the MAC is missing or wrong")]
    Mac,
    /// The session does not serve now.
    #[error("not available")]
    NotAvailable,
    /// The outcome is unknown to this end, or something failed in it.
    #[error("failed")]
    Fault,
}

impl Refusal {
    /// Its row of the table.
    #[must_use]
    pub const fn edge_code(self) -> EdgeCode {
        match self {
            Self::Missing(_) | Self::Format(_) => EdgeCode::new(b"30", b"904", 400),
            Self::Amount => EdgeCode::new(b"13", b"110", 422),
            Self::OriginalAmount => EdgeCode::new(b"64", b"902", 422),
            Self::Unsupported | Self::Currency => EdgeCode::new(b"12", b"902", 422),
            Self::NoRoute => EdgeCode::new(b"15", b"908", 422),
            Self::Merchant => EdgeCode::new(b"57", b"109", 422),
            Self::OriginalUnknown => EdgeCode::new(b"25", b"914", 404),
            Self::Mac => EdgeCode::new(b"63", b"916", 403),
            Self::NotAvailable => EdgeCode::new(b"91", b"907", 503),
            Self::Fault => EdgeCode::new(b"96", b"909", 500),
        }
    }
}
