//! The reply: 128 bytes for each request, matched to it by its id.

use rkyv::{Archive, Deserialize, Serialize};

use crate::archive;
use crate::limits::RECORD_BYTES;
use crate::{Amount, Code, End, Epoch, Id, MerchantId, Seq, ShardId, Time};

/// What the engine answers to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[repr(C)]
pub struct Reply {
    /// The request's id.
    pub id: Id,
    /// What the request moved or got: the collateral of a lock without headroom, the captured part, what went back;
    /// for a look-up the lock's current total.
    pub approved: Amount,
    /// What the lock still holds (R), headroom included.
    pub remaining: Amount,
    /// Free collateral of the partition after the request.
    pub free: Amount,
    /// A lock: the headroom granted. An advice or consume: what became exposure. A withdrawal: units burned.
    pub extra: Amount,
    /// Position of the record in the shard's log; 0 where nothing was recorded.
    pub seq: Seq,
    /// When the lock ends by itself; for a capture its settle-by time; for a withdrawal when it is due.
    pub deadline: Time,
    /// The engine's time of the decision. Refused ids: the engine's time now.
    pub time: Time,
    /// The epoch that answers.
    pub epoch: Epoch,
    /// The shard that decided.
    pub shard: ShardId,
    /// The lock's version after the request.
    pub version: u16,
    /// Index of the capture that the request made or changed; [`crate::ALL_CAPTURES`] for none.
    pub capture: u16,
    /// A [`Code`].
    pub code: u8,
    /// An [`End`]: the state of the lock.
    pub end: u8,
    /// Bit 0: `replayed`: code, approved, seq and deadline are those of the first time. Bit 1: `unreconciled`: what is shown is as
    /// a backup has it.
    pub flags: u8,
    /// The request's kind.
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 10],
}

const _: () = assert!(size_of::<ArchivedReply>() == RECORD_BYTES);

/// In [`Reply::flags`]: the answer of an earlier time.
pub const REPLAYED: u8 = 1;
/// In [`Reply::flags`]: the partition was not reconciled since a loss. What is shown is what was kept of it, and may have changed
/// in what was lost.
pub const UNRECONCILED: u8 = 2;

impl Reply {
    /// Writes 128 bytes.
    #[must_use]
    #[inline]
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        archive::write(self)
    }

    /// Reads 128 bytes; `None` unless code and end have a meaning and the padding is zero.
    #[must_use]
    #[inline]
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let reply: Self = archive::read(bytes)?;
        let is_valid = Code::from_byte(reply.code).is_some()
            && End::from_byte(reply.end).is_some()
            && reply.flags & !(REPLAYED | UNRECONCILED) == 0
            && reply.reserved == [0; 10];
        is_valid.then_some(reply)
    }

    /// The outcome.
    #[must_use]
    pub fn code(&self) -> Code {
        Code::from_byte(self.code).unwrap_or(Code::None)
    }

    /// The state of the lock.
    #[must_use]
    pub fn end(&self) -> End {
        End::from_byte(self.end).unwrap_or(End::None)
    }

    /// True if this is the answer of an earlier time.
    #[must_use]
    pub const fn is_replayed(&self) -> bool {
        self.flags & REPLAYED != 0
    }

    /// True if the answer is only what a backup holds; see [`UNRECONCILED`].
    #[must_use]
    pub const fn is_unreconciled(&self) -> bool {
        self.flags & UNRECONCILED != 0
    }
}

/// Everything that names a merchant in a ledger: its tenant and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MerchantKey {
    /// Whose merchant.
    pub tenant: crate::TenantId,
    /// Which one.
    pub merchant: MerchantId,
}
