//! A lock: its core, which every lock has, and its extension, which few need.

use surety_protocol::{Address, Code, End, MerchantId, QuoteId, Seq, Time};

use crate::canon::canonical;
use crate::slab::{Link, NONE};

/// What every lock has, in two cache lines. Fourteen words are state; the last four numbers are this ledger's own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Lock {
    pub(crate) id: u128,
    /// A.
    pub(crate) approved: u128,
    /// C.
    pub(crate) captured: u128,
    /// V.
    pub(crate) released: u128,
    pub(crate) merchant: MerchantId,
    pub(crate) deadline: Time,
    /// Live: when it was created. Ended: until when it stays at least.
    pub(crate) since: Time,
    /// Of the request that made it; 0 if no lock request did.
    pub(crate) fingerprint: u64,
    pub(crate) seq: Seq,
    pub(crate) version: u16,
    pub(crate) category: u16,
    pub(crate) flags: u8,
    /// [`End::None`] marks a free slot.
    pub(crate) end: End,
    pub(crate) code: Code,
    /// Captures.
    pub(crate) count: u8,
    pub(crate) account: u32,
    pub(crate) ext: u32,
    /// The latest capture; each leads to the one before it. Of a free slot: the next free slot.
    pub(crate) captures: u32,
    pub(crate) armed: Armed,
}

const _: () = assert!(size_of::<Lock>() == 128);

canonical!(Lock {
    approved,
    captured,
    released,
    merchant,
    deadline,
    since,
    fingerprint,
    seq,
    version,
    category,
    flags,
    end,
    code,
    count,
});

/// Bits of [`Lock::flags`].
pub(crate) mod flag {
    /// A certificate was asked for and can still be claimed.
    pub(crate) const CERTIFIED: u8 = 1;
    /// The guarantee has been called on chain.
    pub(crate) const CALLED: u8 = 2;
    /// Amounts are in a quote currency.
    pub(crate) const QUOTE: u8 = 4;
    /// Captured whole by the request that made it.
    pub(crate) const SALE: u8 = 8;
    /// Its deadline passed while it was live: what it then held is E.
    pub(crate) const EXPIRED: u8 = 16;
}

impl Lock {
    /// A lock of nothing and nobody.
    pub(crate) const EMPTY: Self = Self::new(0, 0);

    pub(crate) const fn new(id: u128, account: u32) -> Self {
        Self {
            id,
            approved: 0,
            captured: 0,
            released: 0,
            merchant: MerchantId(0),
            deadline: Time::ZERO,
            since: Time::ZERO,
            fingerprint: 0,
            seq: Seq(0),
            account,
            ext: NONE,
            captures: NONE,
            armed: Armed::NO,
            version: 1,
            category: 0,
            flags: 0,
            end: End::Live,
            code: Code::Approved,
            count: 0,
        }
    }

    pub(crate) const fn has(&self, bit: u8) -> bool {
        self.flags & bit != 0
    }

    pub(crate) fn is_live(&self) -> bool {
        self.end == End::Live
    }

    /// What has neither been captured nor released. `headroom` is G.
    #[inline]
    const fn left(&self, headroom: u128) -> u128 {
        self.approved + headroom - self.captured - self.released
    }

    /// R: what is still held. `headroom` is G.
    #[inline]
    pub(crate) const fn remaining(&self, headroom: u128) -> u128 {
        if self.has(flag::EXPIRED) { 0 } else { self.left(headroom) }
    }

    /// E: what it held when its deadline passed. It is not kept: all that a lock has left after that has expired, since
    /// what is captured late raises A, and what is reversed goes from C to V.
    #[inline]
    pub(crate) const fn expired(&self, headroom: u128) -> u128 {
        if self.has(flag::EXPIRED) { self.left(headroom) } else { 0 }
    }

    /// T: the current total of a live lock. Of an ended one it means nothing: what it gave back includes headroom.
    pub(crate) const fn total(&self) -> u128 {
        self.approved.saturating_sub(self.released)
    }

    /// Notes a change. A lock that has changed 65,535 times keeps its last version; what depends on versions is then declined.
    pub(crate) const fn touch(&mut self) {
        self.version = self.version.saturating_add(1);
    }
}

impl Link for Lock {
    fn link(&self) -> u32 {
        self.captures
    }
    fn set_link(&mut self, slot: u32) {
        self.captures = slot;
    }
}

/// When a lock is next looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Armed(u32);

impl Armed {
    /// By nothing.
    pub(crate) const NO: Self = Self(0);
    /// It waits among what is due.
    pub(crate) const DUE: Self = Self(1);
    /// It is due, and waits until its partition is reconciled.
    pub(crate) const SUSPENDED: Self = Self(2);

    /// At a millisecond of the ring.
    pub(crate) fn at(ms: u64) -> Self {
        Self(u32::try_from(ms & 0x7fff_ffff).unwrap_or(0) | 0x8000_0000)
    }

    /// True if an entry of the ring at `ms` is not the one that counts: another one stands for a later moment, or none does.
    pub(crate) fn is_past(self, ms: u64) -> bool {
        if matches!(self, Self::NO | Self::DUE | Self::SUSPENDED) {
            return true;
        }
        // A ring spans a minute: moments are compared modulo three weeks.
        let ahead = self.0.wrapping_sub(Self::at(ms).0) & 0x7fff_ffff;
        ahead != 0 && ahead < 0x4000_0000
    }

    /// True if an entry at `ms` would come first.
    pub(crate) fn is_after(self, ms: u64) -> bool {
        match self {
            Self::NO => true,
            Self::DUE | Self::SUSPENDED => false,
            armed => {
                let ahead = armed.0.wrapping_sub(Self::at(ms).0) & 0x7fff_ffff;
                ahead != 0 && ahead < 0x4000_0000
            }
        }
    }
}

/// What a lock has that was granted headroom, is in a quote currency or certified, or was changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ext {
    /// G: headroom that is not used.
    pub(crate) headroom: u128,
    /// The part of A that captures drew beyond what was approved.
    pub(crate) excess: u128,
    /// Captured after the deadline, reversals deducted.
    pub(crate) late: u128,
    /// P.
    pub(crate) pending: u128,
    /// The part of C that was paid without a capture.
    pub(crate) paid: u128,
    /// The part of V that no release gave back: decreases, and reversals after the end.
    pub(crate) reversed: u128,
    /// A and G as first answered.
    pub(crate) first_approved: u128,
    pub(crate) first_headroom: u128,
    pub(crate) first_deadline: Time,
    /// Approved and captured value, and the price at the lock.
    pub(crate) value: u128,
    pub(crate) captured_value: u128,
    pub(crate) price: u128,
    /// The collateral behind the approved value.
    pub(crate) base: u128,
    pub(crate) quote: QuoteId,
    /// Until when a certificate can be claimed.
    pub(crate) claim_until: Time,
    /// Whose signature releases the certificate: the merchant's key when the lock was made, which is the one that the
    /// certificate states.
    pub(crate) release_key: Address,
    pub(crate) link: u32,
}

canonical!(Ext {
    headroom,
    excess,
    late,
    pending,
    paid,
    reversed,
    first_approved,
    first_headroom,
    first_deadline,
    value,
    captured_value,
    price,
    base,
    quote,
    claim_until,
    release_key,
});

impl Link for Ext {
    fn link(&self) -> u32 {
        self.link
    }
    fn set_link(&mut self, slot: u32) {
        self.link = slot;
    }
}

/// One capture. `c = open + settled + refunded + consumed`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capture {
    /// u.
    pub(crate) open: u128,
    /// s.
    pub(crate) settled: u128,
    /// b.
    pub(crate) refunded: u128,
    /// q.
    pub(crate) consumed: u128,
    /// What was captured in the lock's quote currency, refunds deducted.
    pub(crate) value: u128,
    /// When the settle-by action is due; 0 for never.
    pub(crate) settle_by: Time,
    pub(crate) next: u32,
    pub(crate) index: u8,
    /// Of an expired lock.
    pub(crate) is_late: bool,
}

canonical!(Capture { index, open, settled, refunded, consumed, value, settle_by, is_late });

impl Capture {
    /// c.
    pub(crate) const fn total(&self) -> u128 {
        self.open + self.settled + self.refunded + self.consumed
    }

    /// What c is made of.
    pub(crate) const fn parts(&self) -> [u128; 4] {
        [self.open, self.settled, self.refunded, self.consumed]
    }
}

impl Link for Capture {
    fn link(&self) -> u32 {
        self.next
    }
    fn set_link(&mut self, slot: u32) {
        self.next = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_compared_round_the_corner() {
        let check = |armed: u64, ms: u64, past: bool, after: bool| {
            let armed = Armed::at(armed);
            assert_eq!((armed.is_past(ms), armed.is_after(ms)), (past, after), "{armed:?} {ms}");
        };
        check(100, 100, false, false);
        check(101, 100, true, true);
        check(99, 100, false, false);
        check(1 << 31, (1 << 31) - 1, true, true);
        check((1 << 31) - 1, 1 << 31, false, false);
        assert!(Armed::NO.is_past(5) && Armed::NO.is_after(5));
        assert!(Armed::DUE.is_past(5) && !Armed::DUE.is_after(5));
        assert!(Armed::SUSPENDED.is_past(5) && !Armed::SUSPENDED.is_after(5));
    }

    #[test]
    fn what_remains_is_what_was_approved_and_not_yet_moved() {
        let mut lock = Lock::new(1, 0);
        (lock.approved, lock.captured, lock.released) = (100, 30, 20);
        assert_eq!((lock.remaining(10), lock.expired(10), lock.total()), (60, 0, 80));
        lock.flags |= flag::EXPIRED;
        assert_eq!((lock.remaining(10), lock.expired(10)), (0, 60));
    }
}
