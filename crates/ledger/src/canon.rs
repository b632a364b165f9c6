//! Canonical bytes: the one way of writing a piece of state, for the state hash and for snapshots.

use alloc::vec::Vec;
use surety_protocol::{
    Address, AssetId, Code, End, Id, Kind, MerchantId, PartitionHandle, QuoteId, Seq, TenantId, Time,
};
use xxhash_rust::xxh3::xxh3_128;

/// Takes bytes.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Bytes on the stack, to be hashed.
pub(crate) struct Canon<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Canon<N> {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// The hash of what was written.
    #[inline]
    pub(crate) fn hash(&self) -> u128 {
        xxh3_128(&self.bytes[..self.len])
    }
}

impl<const N: usize> Sink for Canon<N> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// Gives bytes back.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(crate) fn read<T: Field>(&mut self) -> Option<T> {
        T::take(self)
    }
}

/// A value with canonical bytes.
pub(crate) trait Field: Sized {
    fn put(&self, out: &mut impl Sink);
    fn take(from: &mut Reader) -> Option<Self>;
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Field for $type {
            #[inline(always)]
            fn put(&self, out: &mut impl Sink) {
                out.put(&self.to_le_bytes());
            }
            fn take(from: &mut Reader) -> Option<Self> {
                Some(Self::from_le_bytes(from.array()?))
            }
        }
    )*};
}

macro_rules! newtypes {
    ($($type:ident),*) => {$(
        impl Field for $type {
            #[inline(always)]
            fn put(&self, out: &mut impl Sink) {
                self.0.put(out);
            }
            fn take(from: &mut Reader) -> Option<Self> {
                Some(Self(Field::take(from)?))
            }
        }
    )*};
}

macro_rules! bytes {
    ($($type:ident),*) => {$(
        impl Field for $type {
            #[inline(always)]
            fn put(&self, out: &mut impl Sink) {
                out.put(&[*self as u8]);
            }
            fn take(from: &mut Reader) -> Option<Self> {
                Self::from_byte(u8::take(from)?)
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, u128);
newtypes!(Address, AssetId, MerchantId, QuoteId, Seq, Time);
bytes!(Code, End, Kind);

impl<const N: usize> Field for [u8; N] {
    #[inline(always)]
    fn put(&self, out: &mut impl Sink) {
        out.put(self);
    }
    fn take(from: &mut Reader) -> Option<Self> {
        from.array()
    }
}

impl Field for bool {
    #[inline(always)]
    fn put(&self, out: &mut impl Sink) {
        out.put(&[u8::from(*self)]);
    }
    fn take(from: &mut Reader) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

// Keys are written with the most significant byte first, so that the order of bytes is the order of numbers.

/// Writes the parts of a key.
#[inline(always)]
pub(crate) fn put_key(out: &mut impl Sink, tenant: TenantId, partition: PartitionHandle, id: Id) {
    out.put(&tenant.0.to_be_bytes());
    out.put(&partition.0.to_be_bytes());
    out.put(&id.0.to_be_bytes());
}

/// Reads the parts of a key.
pub(crate) fn take_key(from: &mut Reader) -> Option<(TenantId, PartitionHandle, Id)> {
    let tenant = TenantId(u32::from_be_bytes(from.array()?));
    let partition = PartitionHandle(u64::from_be_bytes(from.array()?));
    Some((tenant, partition, Id(u128::from_be_bytes(from.array()?))))
}

/// Defines which fields of a struct are state, and their order in bytes.
macro_rules! canonical {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl $type {
            /// Writes every field that is state.
            #[inline(always)]
            pub(crate) fn put(&self, out: &mut impl crate::canon::Sink) {
                $(crate::canon::Field::put(&self.$field, out);)*
            }

            /// Reads them back.
            pub(crate) fn take(&mut self, from: &mut crate::canon::Reader) -> Option<()> {
                $(self.$field = crate::canon::Field::take(from)?;)*
                Some(())
            }
        }
    };
}
pub(crate) use canonical;
