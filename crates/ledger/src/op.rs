//! A remembered id: what was asked under it, and what was answered.

use surety_protocol::limits::ADVICE_WINDOW;
use surety_protocol::{Code, Kind, Seq, Time};

use crate::canon::{Field, Reader, Sink, canonical};
use crate::slab::{Link, NONE};

/// One remembered id, in 48 bytes. The id is in two halves so that nothing needs more than 8 bytes of alignment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    id_high: u64,
    id_low: u64,
    pub(crate) fingerprint: u64,
    pub(crate) seq: Seq,
    pub(crate) account: u32,
    /// A [`Side`], if the answer cannot be told otherwise.
    pub(crate) side: u32,
    next: u32,
    pub(crate) kind: Kind,
    pub(crate) code: Code,
    /// Index of the capture that was made or changed; [`NO_CAPTURE`] for none.
    pub(crate) capture: u8,
    pub(crate) memo: Memo,
}

const _: () = assert!(size_of::<Op>() == 48);

/// No capture, or all of them.
pub(crate) const NO_CAPTURE: u8 = u8::MAX;

canonical!(Op { fingerprint, seq, kind, code, capture, memo });

/// How the first answer is told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Memo {
    /// Nothing was moved.
    Zero = 0,
    /// The amount asked.
    Amount = 1,
    /// What the lock gave back when it ended by a release.
    Released = 2,
    /// What the capture has settled.
    Settled = 3,
    /// In a [`Side`].
    Side = 4,
    /// Nothing was moved: the id of a lock that was released before it came. Stays so when the lock comes.
    Tombstone = 5,
    /// In a [`Side`], with the lock that it was about; for as long as an advice. Stays so when the lock of a burned id comes.
    Lasting = 6,
}

impl Memo {
    const ALL: [Self; 7] =
        [Self::Zero, Self::Amount, Self::Released, Self::Settled, Self::Side, Self::Tombstone, Self::Lasting];

    /// True if a [`Side`] belongs to it.
    pub(crate) const fn has_side(self) -> bool {
        matches!(self, Self::Side | Self::Lasting)
    }
}

impl crate::canon::Field for Memo {
    #[inline(always)]
    fn put(&self, out: &mut impl crate::canon::Sink) {
        out.number(*self as u64, 1);
    }
    fn take(from: &mut crate::canon::Reader) -> Option<Self> {
        Self::ALL.get(usize::from(u8::take(from)?)).copied()
    }
}

/// Whose quota an id counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    Ids,
    Tombstones,
    Advices,
}

impl Op {
    pub(crate) const fn new(id: u128, account: u32, kind: Kind, code: Code, seq: Seq) -> Self {
        #[allow(clippy::cast_possible_truncation)] // The two halves are the point.
        let (id_high, id_low) = ((id >> 64) as u64, id as u64);
        Self {
            id_high,
            id_low,
            fingerprint: 0,
            seq,
            account,
            side: NONE,
            next: NONE,
            kind,
            code,
            capture: NO_CAPTURE,
            memo: Memo::Zero,
        }
    }

    pub(crate) const fn id(&self) -> u128 {
        (self.id_high as u128) << 64 | self.id_low as u128
    }

    /// True if the id waits for a lock that it will decline.
    pub(crate) const fn awaits_a_lock(&self) -> bool {
        matches!((self.kind, self.memo), (Kind::Release, Memo::Tombstone) | (Kind::Lookup, _))
    }

    pub(crate) const fn quota(&self) -> Quota {
        match (self.memo, self.kind) {
            (Memo::Tombstone, _) => Quota::Tombstones,
            (Memo::Lasting, _) | (_, Kind::Advice | Kind::Reverse) => Quota::Advices,
            _ => Quota::Ids,
        }
    }

    /// The first millisecond at which the id is forgotten: when it can no longer be accepted.
    pub(crate) fn forgotten_at_ms(&self, id_window: Time) -> u64 {
        forgotten_at_ms(self.id(), self.kind, self.memo == Memo::Lasting, id_window)
    }
}

/// How long after its time an id of a kind is accepted.
pub(crate) const fn window(kind: Kind, is_lasting: bool, id_window: Time) -> Time {
    match kind {
        Kind::Advice | Kind::Reverse => ADVICE_WINDOW,
        _ if is_lasting => ADVICE_WINDOW,
        _ => id_window,
    }
}

/// The first millisecond at which an id can no longer be accepted.
pub(crate) fn forgotten_at_ms(id: u128, kind: Kind, is_lasting: bool, id_window: Time) -> u64 {
    let id_ms = surety_protocol::Id(id).time().0 / 1_000_000;
    id_ms.saturating_add(window(kind, is_lasting, id_window).0.div_ceil(1_000_000)).saturating_add(1)
}

impl Link for Op {
    fn link(&self) -> u32 {
        self.next
    }
    fn set_link(&mut self, slot: u32) {
        self.next = slot;
    }
}

/// An answer that has to be kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Side {
    pub(crate) approved: u128,
    pub(crate) extra: u128,
    pub(crate) deadline: Time,
    /// What a lasting id was about; 0 for others.
    pub(crate) lock: u128,
    pub(crate) link: u32,
}

canonical!(Side { approved, extra, deadline });

impl Side {
    /// Writes what belongs to a memo.
    pub(crate) fn put_for(&self, memo: Memo, out: &mut impl Sink) {
        self.put(out);
        if memo == Memo::Lasting {
            self.lock.put(out);
        }
    }

    /// Reads what belongs to a memo, if something does.
    #[allow(clippy::option_option, reason = "nothing to read is not the same as nothing that can be read")]
    pub(crate) fn take_for(memo: Memo, from: &mut Reader) -> Option<Option<Self>> {
        if !memo.has_side() {
            return Some(None);
        }
        let mut side = Self::default();
        side.take(from)?;
        if memo == Memo::Lasting {
            side.lock = from.read()?;
        }
        Some(Some(side))
    }
}

impl Link for Side {
    fn link(&self) -> u32 {
        self.link
    }
    fn set_link(&mut self, slot: u32) {
        self.link = slot;
    }
}
