//! A certified lock as a reader of the stream keeps it: its newest statement, and what the next one is made of.

use alloc::vec::Vec;

use surety_protocol::{Address, QuoteId, Seq, ShardId, Time};

use crate::book::Released;
use crate::bytes::{Reader, Truncated, Writer};
use crate::certificate::CertifiedLock;
use crate::leaf::LockId;

/// A certified lock that can still be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptLock {
    /// The newest statement about it.
    pub(crate) newest: CertifiedLock,
    /// When it ends by itself.
    pub(crate) deadline: Time,
    /// Of a lock in a quote currency: its total there; else 0.
    pub(crate) value: u128,
    pub(crate) quote: QuoteId,
    /// A merchant has called it: it is kept until the chain has decided.
    pub(crate) is_called: bool,
    /// All that was ever consumed of it.
    pub(crate) consumed: u128,
    /// The part of it that a batch has credited.
    pub(crate) credited: u128,
    /// What its merchant has let go of by signature, if anything.
    pub(crate) released: Option<Released>,
}

impl KeptLock {
    /// Bytes of one.
    pub const BYTES: usize = 227;

    /// The newest statement about it.
    #[must_use]
    pub const fn statement(&self) -> &CertifiedLock {
        &self.newest
    }

    /// The same lock under an earlier or later statement of it.
    #[must_use]
    pub const fn under(&self, statement: CertifiedLock) -> Self {
        Self { newest: statement, ..*self }
    }

    /// When it ends by itself.
    #[must_use]
    pub const fn deadline(&self) -> Time {
        self.deadline
    }

    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut to = Writer::default();
        self.write(&mut to);
        debug_assert_eq!(to.0.len(), Self::BYTES);
        to.0
    }

    /// Reads it; `None` if the bytes are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        Self::read(&mut Reader(bytes)).ok()
    }

    pub(crate) fn write(&self, to: &mut Writer) {
        let lock = &self.newest;
        to.raw(&crate::hash::Word::word(&lock.lock)).u16(lock.version).u16(lock.shard.0).u64(lock.seq.0);
        to.raw(&lock.partition).raw(&lock.payee.0).u128(lock.amount).u64(lock.deadline_secs);
        to.raw(&lock.release_key.0).u64(self.deadline.0).u128(self.value).u16(self.quote.0);
        to.u8(u8::from(self.is_called)).u128(self.consumed).u128(self.credited);
        let released = self.released.unwrap_or(Released { seq: Seq(0), version: 0, still_owed: 0 });
        to.u64(released.seq.0).u32(released.version).u128(released.still_owed);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Truncated> {
        let newest = CertifiedLock {
            lock: LockId::from_word(&from.array()?).ok_or(Truncated)?,
            version: from.u16()?,
            shard: ShardId(from.u16()?),
            seq: Seq(from.u64()?),
            partition: from.array()?,
            payee: Address(from.array()?),
            amount: from.u128()?,
            deadline_secs: from.u64()?,
            release_key: Address(from.array()?),
        };
        Ok(Self {
            newest,
            deadline: Time(from.u64()?),
            value: from.u128()?,
            quote: QuoteId(from.u16()?),
            is_called: match from.u8()? {
                0 => false,
                1 => true,
                _ => return Err(Truncated),
            },
            consumed: from.u128()?,
            credited: from.u128()?,
            released: {
                let released =
                    Released { seq: Seq(from.u64()?), version: from.u32()?, still_owed: from.u128()? };
                let none = Released { seq: Seq(0), version: 0, still_owed: 0 };
                if released.seq == Seq(0) && released != none {
                    return Err(Truncated);
                }
                (released != none).then_some(released)
            },
        })
    }
}
