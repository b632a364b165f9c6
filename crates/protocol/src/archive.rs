//! The one way from values to bytes and back: rkyv archives of fixed size, little-endian and unaligned.

use core::mem::MaybeUninit;

use rkyv::Serialize;
use rkyv::api::low::{LowDeserializer, LowSerializer, LowValidator, to_bytes_in_with_alloc};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::ser::{allocator::SubAllocator, writer::Buffer};
use rkyv::{Archive, Deserialize, Portable};

/// Anything that has a fixed place in bytes, without pointers.
pub(crate) type FixedSerializer<'a> = LowSerializer<Buffer<'a>, SubAllocator<'a>, Failure>;

/// Writes `value` into exactly `N` bytes.
pub(crate) fn write<const N: usize, T>(value: &T) -> [u8; N]
where
    T: for<'a> Serialize<FixedSerializer<'a>>,
{
    const { assert!(size_of::<<T as Archive>::Archived>() == N) };
    let mut bytes = [0; N];
    let mut scratch: [MaybeUninit<u8>; 0] = [];
    let written = to_bytes_in_with_alloc::<_, _, Failure>(
        value,
        Buffer::from(&mut bytes),
        SubAllocator::new(&mut scratch),
    );
    assert!(written.is_ok(), "a fixed-size archive fits into its own size");
    bytes
}

/// Views `bytes` as an archive, without a copy.
pub(crate) fn view<A>(bytes: &[u8]) -> Option<&A>
where
    A: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>,
{
    if bytes.len() != size_of::<A>() {
        return None;
    }
    rkyv::api::low::access::<A, Failure>(bytes).ok()
}

/// Copies a value out of exactly its bytes.
pub(crate) fn read<T>(bytes: &[u8]) -> Option<T>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<LowValidator<'a, Failure>> + Deserialize<T, LowDeserializer<Failure>>,
{
    let archived = view::<T::Archived>(bytes)?;
    rkyv::api::low::deserialize::<T, Failure>(archived).ok()
}
