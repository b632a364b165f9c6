//! Identifiers, amounts and time: a newtype for each, so that none is mistaken for another.

use core::fmt;
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits::AMOUNT_MAX;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

macro_rules! display_plainly {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

newtype!(
    /// Names a request, and with it the lock that a lock request makes: a UUIDv7.
    Id(u128)
);
newtype!(
    /// Addresses a partition: the shard in the top 16 bits, a number within the shard below. It never changes.
    PartitionHandle(u64)
);
newtype!(
    /// A customer of the engine: an acquirer, a wallet, a router. 0 is the operator.
    TenantId(u32)
);
newtype!(
    /// A merchant, numbered by its tenant.
    MerchantId(u64)
);
newtype!(
    /// One writer of the engine: a thread, a ledger, a log, a UDP port.
    ShardId(u16)
);
newtype!(
    /// The position of a record in its shard's log, counted from 1. 0 means "none".
    Seq(u64)
);
newtype!(
    /// Counts the starts of a shard. Every start opens a higher epoch.
    Epoch(u32)
);
newtype!(
    /// Names an engine (a data directory); drawn at random by `init`.
    EngineId(u128)
);
newtype!(
    /// Names a collateral asset, by the operator's own numbering. 1 is AMP.
    AssetId(u32)
);
newtype!(
    /// Names a quote currency (ISO 4217 number, or the operator's own above 1000). 0 means the collateral itself.
    QuoteId(u16)
);
newtype!(
    /// The principal behind a request: the first four bytes of the BLAKE3 of its client certificate. 0 is the engine.
    ActorId(u32)
);
newtype!(
    /// A quantity in base units of an asset or quote currency. Requests carry at most [`AMOUNT_MAX`].
    Amount(u128)
);
newtype!(
    /// A moment or a span in nanoseconds; moments count from the Unix epoch.
    Time(u64)
);
newtype!(
    /// A 20-byte Ethereum address.
    Address([u8; 20])
);

display_plainly!(TenantId, MerchantId, ShardId, Seq, Epoch, AssetId, QuoteId, Amount);

impl Id {
    /// Builds a UUIDv7 from a moment and 74 bits of entropy (the rest of `entropy` is ignored).
    #[must_use]
    pub const fn from_parts(at: Time, entropy: u128) -> Self {
        let millis = (at.0 / 1_000_000) as u128 & 0xffff_ffff_ffff;
        let rand_a = (entropy >> 62) & 0xfff;
        let rand_b = entropy & ((1 << 62) - 1);
        Self(millis << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)
    }

    /// True if version and variant are those of a UUIDv7 (RFC 9562, section 5.7).
    #[must_use]
    pub const fn is_uuid_v7(self) -> bool {
        (self.0 >> 76) & 0xf == 7 && (self.0 >> 62) & 0b11 == 0b10
    }

    /// The same id as one that lasts: of version 8 (RFC 9562, section 5.8) and otherwise alike. Ids that are remembered for longer than
    /// others must be told from them, or what was forgotten under the one could be executed again under the other.
    #[must_use]
    pub const fn lasting(self) -> Self {
        Self(self.0 & !(0xf << 76) | 0x8 << 76)
    }

    /// True if version and variant are those of an id that lasts.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        (self.0 >> 76) & 0xf == 8 && (self.0 >> 62) & 0b11 == 0b10
    }

    /// The moment inside an id, to the millisecond.
    #[must_use]
    pub const fn time(self) -> Time {
        Time(((self.0 >> 80) as u64).saturating_mul(1_000_000))
    }

    /// Reads the 32 hexadecimal digits of a UUID, with or without its hyphens.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut value: u128 = 0;
        let mut digits = 0;
        for (position, c) in text.char_indices() {
            if c == '-' {
                if text.len() != 36 || !matches!(position, 8 | 13 | 18 | 23) {
                    return None;
                }
                continue;
            }
            value = value.checked_mul(16)? | u128::from(c.to_digit(16)?);
            digits += 1;
        }
        (digits == 32).then_some(Self(value))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            (v >> 80) & 0xffff,
            (v >> 64) & 0xffff,
            (v >> 48) & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl PartitionHandle {
    /// Joins a shard and a number within it (48 bits).
    #[must_use]
    pub const fn new(shard: ShardId, number: u64) -> Self {
        Self((shard.0 as u64) << 48 | number & 0xffff_ffff_ffff)
    }

    /// The shard that owns the partition.
    #[must_use]
    pub const fn shard(self) -> ShardId {
        ShardId((self.0 >> 48) as u16)
    }

    /// The partition's number within its shard; 0 addresses the shard itself.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }
}

impl fmt::Display for PartitionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shard(), self.number())
    }
}

impl Seq {
    /// The next position.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Amount {
    /// No collateral.
    pub const ZERO: Self = Self(0);

    /// True for amounts that a request may carry.
    #[must_use]
    pub const fn is_in_range(self) -> bool {
        self.0 <= AMOUNT_MAX
    }
}

impl Time {
    /// The Unix epoch, or no time at all.
    pub const ZERO: Self = Self(0);

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// A span of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Adds a span, staying at the end of time.
    #[must_use]
    pub const fn plus(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Subtracts a span, staying at zero.
    #[must_use]
    pub const fn minus(self, span: Self) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_id_keeps_its_time_and_prints_as_a_uuid() {
        let at = Time::from_millis(1_700_000_000_123);
        let id = Id::from_parts(at, u128::MAX);
        assert!(id.is_uuid_v7());
        assert_eq!(id.time(), at);
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        assert_eq!(Id::parse("018bcfe5687b7fffbfffffffffffffff"), Some(id));
        for bad in ["", "018b", "018bcfe5-687b7fff-bfff-ffff-fffffffffff", "g18bcfe5687b7fffbfffffffffffffff"]
        {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
        assert!(!Id(0).is_uuid_v7() && !Id(0).is_lasting());
        let lasting = id.lasting();
        assert!(lasting.is_lasting() && !lasting.is_uuid_v7() && !id.is_lasting());
        assert_eq!((lasting.time(), lasting.lasting()), (at, lasting));
        assert_eq!(lasting.0 ^ id.0, 0xf << 76, "nothing else has changed");
    }

    #[test]
    fn a_handle_names_its_shard() {
        let handle = PartitionHandle::new(ShardId(3), 77);
        assert_eq!((handle.shard(), handle.number()), (ShardId(3), 77));
        assert_eq!(handle.to_string(), "3:77");
    }
}
