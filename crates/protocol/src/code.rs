//! What an engine answers: one code per reply, in one order of precedence.

use core::cmp::Ordering;
use core::fmt;

use crate::hello::QUOTAS_HAVE_CODES;

macro_rules! codes {
    ($(#[$doc:meta] $name:ident = $value:literal, $text:literal, $class:ident;)*) => {
        /// The outcome of a request.
        ///
        /// The order of the variants is the order of precedence: where several declines apply to one request, the one
        /// that stands first is answered. It is not everywhere that of the numbers: what came later has a later number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code {
            $(#[$doc] $name = $value,)*
        }

        impl Code {
            /// Every code, in order of precedence.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The name in capitals, as semantics and documents spell it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// Reads a code byte.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Code::$name),)* _ => None }
            }

            /// Which of the five classes the code belongs to.
            #[must_use]
            pub const fn class(self) -> CodeClass {
                match self { $(Code::$name => CodeClass::$class,)* }
            }
        }
    };
}

/// What a code means for the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeClass {
    /// Nothing has been decided: the code of a request on the wire.
    Undecided,
    /// Not executed and not recorded; the same id may be sent again.
    Admission,
    /// Not recorded, and nobody can tell whether it was executed before: neither "done" nor "not done". Not to be sent again as
    /// something new.
    Unknown,
    /// Recorded as declined; the id is spent and a repeat gets the same answer.
    Decline,
    /// Done, and recorded.
    Success,
}

codes! {
    /// A request that no engine has decided.
    None = 0, "NONE", Undecided;
    /// A field is out of its range, or a byte that the engine fills is not zero.
    Malformed = 1, "MALFORMED", Admission;
    /// A long operation or a chain has too many parts.
    TooLarge = 2, "TOO_LARGE", Admission;
    /// The caller's role, or its right on the partition, does not allow the request.
    NoRight = 3, "NO_RIGHT", Admission;
    /// No such partition, or none that the caller may see.
    UnknownPartition = 4, "UNKNOWN_PARTITION", Admission;
    /// The id was used before with another body.
    IdConflict = 5, "ID_CONFLICT", Admission;
    /// The id's time lies before the window.
    StaleId = 6, "STALE_ID", Admission;
    /// The id's time lies too far in the future.
    IdFromFuture = 7, "ID_FROM_FUTURE", Admission;
    /// The tenant is at one of its quotas: what version 1 of the wire says for each of the seven that follow.
    Quota = 8, "QUOTA", Admission;
    /// The tenant has used up its requests per second.
    QuotaRate = 14, "QUOTA_RATE", Admission;
    /// The tenant has as many unanswered requests as it may have.
    QuotaInFlight = 15, "QUOTA_IN_FLIGHT", Admission;
    /// The tenant has as many open locks as it may have.
    QuotaOpenLocks = 16, "QUOTA_OPEN_LOCKS", Admission;
    /// As many locks of the tenant are kept, open and ended, as may be.
    QuotaLocks = 17, "QUOTA_LOCKS", Admission;
    /// As many ids of the tenant are remembered as may be.
    QuotaIds = 18, "QUOTA_IDS", Admission;
    /// As many of the tenant's releases of unknown locks are remembered as may be.
    QuotaTombstones = 19, "QUOTA_TOMBSTONES", Admission;
    /// As many advices, reversals and other lasting requests of the tenant are remembered as may be.
    QuotaAdvices = 20, "QUOTA_ADVICES", Admission;
    /// A queue or table of the engine is full, or expiries are behind; try again.
    Overloaded = 9, "OVERLOADED", Admission;
    /// The disk is near its reserve: no new locks until there is room.
    StorageLow = 10, "STORAGE_LOW", Admission;
    /// The settler is silent or the value at risk is at its cap: no new locks.
    ChainStale = 11, "CHAIN_STALE", Admission;
    /// A look-up found nothing. Definite only if it asked to burn the id.
    NotFound = 12, "NOT_FOUND", Admission;
    /// What was decided here is lost, or not yet reconciled, since the engine went on from a backup: neither done nor declined.
    UnknownAfterRestore = 13, "UNKNOWN_AFTER_RESTORE", Unknown;
    /// Another member of the linked chain failed.
    LinkedFailed = 32, "LINKED_FAILED", Decline;
    /// The id was burned by a look-up before the request arrived.
    Burned = 33, "BURNED", Decline;
    /// The lock was released before it arrived.
    AlreadyReleased = 34, "ALREADY_RELEASED", Decline;
    /// No lock with this id under this tenant and partition.
    UnknownLock = 35, "UNKNOWN_LOCK", Decline;
    /// The lock has been called on chain; it waits for the chain's verdict.
    GuaranteeCalled = 36, "GUARANTEE_CALLED", Decline;
    /// The payer's asset was final before: nothing more can be captured.
    AlreadySettled = 37, "ALREADY_SETTLED", Decline;
    /// The lock has ended.
    NotOpen = 38, "NOT_OPEN", Decline;
    /// The lock changed since the version that the request names.
    VersionConflict = 39, "VERSION_CONFLICT", Decline;
    /// The lock has no such capture, or no room for another.
    UnknownCapture = 40, "UNKNOWN_CAPTURE", Decline;
    /// The capture has moved since; give money back by a refund.
    UseRefund = 41, "USE_REFUND", Decline;
    /// The partition is frozen.
    Frozen = 42, "FROZEN", Decline;
    /// No price for the quote currency, or one older than its maximum age.
    StalePrice = 43, "STALE_PRICE", Decline;
    /// The collateral ratio is below the stop ratio.
    Ratio = 44, "RATIO", Decline;
    /// Over a limit of the policy, or a total that does not move the way the request says.
    OverLimit = 45, "OVER_LIMIT", Decline;
    /// Too many locks, or too much value, in the window.
    Velocity = 46, "VELOCITY", Decline;
    /// The merchant is not allowed, or the deadline is out of range.
    Forbidden = 47, "FORBIDDEN", Decline;
    /// Not enough collateral, units or exposure.
    Insufficient = 48, "INSUFFICIENT", Decline;
    /// The object exists already, or the nonce was used.
    Exists = 49, "EXISTS", Decline;
    /// Done as asked.
    Approved = 64, "APPROVED", Success;
    /// Done for a part of the amount.
    Partial = 65, "PARTIAL", Success;
    /// Accepted; paid when it is due.
    Queued = 66, "QUEUED", Success;
}

impl Code {
    /// True for each code of a tenant's quotas.
    #[must_use]
    pub const fn is_quota(self) -> bool {
        matches!(
            self,
            Self::Quota
                | Self::QuotaRate
                | Self::QuotaInFlight
                | Self::QuotaOpenLocks
                | Self::QuotaLocks
                | Self::QuotaIds
                | Self::QuotaTombstones
                | Self::QuotaAdvices
        )
    }

    /// True if it speaks of the moment and not of the request: a later sending of the same bytes may be answered otherwise.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        self.is_quota() || matches!(self, Self::Overloaded | Self::StorageLow | Self::ChainStale)
    }

    /// What a version of the wire says for it.
    #[must_use]
    pub const fn in_version(self, version: u16) -> Self {
        if self.is_quota() && version < QUOTAS_HAVE_CODES { Self::Quota } else { self }
    }

    /// True if the request had its effect.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self.class(), CodeClass::Success)
    }

    /// True if the answer is part of the log, so that a repeat gets it again.
    #[must_use]
    pub const fn is_recorded(self) -> bool {
        matches!(self.class(), CodeClass::Success | CodeClass::Decline)
    }
}

impl Ord for Code {
    fn cmp(&self, other: &Self) -> Ordering {
        // Where the codes of quotas stand.
        let rank = |code: Self| if code.is_quota() { Self::Quota as u8 } else { code as u8 };
        (rank(*self), *self as u8).cmp(&(rank(*other), *other as u8))
    }
}

impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a lock, or the id of one, has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum End {
    /// Not known.
    #[default]
    None = 0,
    /// Still holds collateral.
    Live = 1,
    /// Captured for the last time.
    Final = 2,
    /// Given back by its tenant.
    Released = 3,
    /// Its deadline has passed; it may still be presented.
    Expired = 4,
    /// The payer's asset was final.
    Settled = 5,
    /// Never locked: the request was declined.
    Declined = 6,
    /// Released before it was known.
    Tombstone = 7,
    /// Never locked: made by an advice.
    Exposed = 8,
}

impl End {
    /// Reads an end byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::None,
            1 => Self::Live,
            2 => Self::Final,
            3 => Self::Released,
            4 => Self::Expired,
            5 => Self::Settled,
            6 => Self::Declined,
            7 => Self::Tombstone,
            8 => Self::Exposed,
            _ => return None,
        })
    }

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Live => "live",
            Self::Final => "final",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Settled => "settled",
            Self::Declined => "declined",
            Self::Tombstone => "tombstone",
            Self::Exposed => "exposed",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ordered_by_precedence_and_read_back() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for code in Code::ALL {
            assert_eq!(Code::from_byte(*code as u8), Some(*code));
        }
        assert_eq!(Code::from_byte(255), None);
        assert!(Code::Quota < Code::QuotaRate && Code::QuotaAdvices < Code::Overloaded);
        // The order of row 4 of the transition table.
        let row_4 =
            [Code::Frozen, Code::StalePrice, Code::Ratio, Code::OverLimit, Code::Velocity, Code::Forbidden];
        assert!(row_4.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(Code::AlreadyReleased < Code::Frozen && Code::Forbidden < Code::Insufficient);
    }

    #[test]
    fn version_1_has_one_code_for_all_quotas() {
        for code in Code::ALL.iter().copied() {
            let is_new = code.is_quota() && code != Code::Quota;
            assert_eq!(is_new, code.name().starts_with("QUOTA_"), "{code}");
            assert_eq!(code.in_version(1), if is_new { Code::Quota } else { code });
            assert_eq!(code.in_version(2), code);
            assert!(!code.may_pass() || code.class() == CodeClass::Admission, "{code}");
        }
    }

    #[test]
    fn ends_read_back() {
        for byte in 0..=8 {
            assert_eq!(End::from_byte(byte).map(|end| end as u8), Some(byte));
        }
        assert_eq!(End::from_byte(9), None);
    }
}
