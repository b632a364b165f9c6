//! The one way of writing a piece of state: as bytes for snapshots, as words for the state hash.

use alloc::vec::Vec;
use surety_protocol::{
    Address, AssetId, Code, End, Id, Kind, MerchantId, PartitionHandle, QuoteId, Seq, TenantId, Time,
};

use crate::mix::fold;

/// Takes numbers and bytes, in their order.
pub(crate) trait Sink {
    /// The lower `bytes` bytes of a number; the others are zero.
    fn number(&mut self, value: u64, bytes: usize);
    /// Bytes of a fixed length.
    fn bytes(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn number(&mut self, value: u64, bytes: usize) {
        self.extend_from_slice(&value.to_le_bytes()[..bytes]);
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Hashes a piece of state to 128 bits, a word for each large number and for as many small ones in a row as fit.
///
/// The core is NH, as in UMAC and in XXH3's long form: the sum of products of pairs of words, each offset by a key of its place,
/// of 128 bits each. What comes out is mixed, so that sums over many entries tell nothing about their parts. One
/// multiplication for 16 bytes, no branch and no memory: where four entries are hashed for each request, this counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WordHash {
    sum: u128,
    /// The first word of a pair.
    half: u64,
    words: usize,
    /// Small numbers that share a word.
    small: u64,
    small_bytes: usize,
}

/// Words of the longest piece.
const WORDS_MAX: usize = 128;

/// Keys of the places, drawn by splitmix64.
static KEYS: [u64; WORDS_MAX] = keys();

const fn keys() -> [u64; WORDS_MAX] {
    let mut keys = [0; WORDS_MAX];
    let (mut place, mut state) = (0, 0x5375_7265_7479_2031_u64);
    while place < WORDS_MAX {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut key = state;
        key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        keys[place] = key ^ (key >> 31);
        place += 1;
    }
    keys
}

impl WordHash {
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self { sum: 0, half: 0, words: 0, small: 0, small_bytes: 0 }
    }

    /// Takes the small numbers that wait for more.
    #[inline(always)]
    fn flush(&mut self) {
        if self.small_bytes > 0 {
            let small = core::mem::take(&mut self.small);
            self.small_bytes = 0;
            self.word(small);
        }
    }

    #[inline(always)]
    fn word(&mut self, word: u64) {
        let keyed = word.wrapping_add(KEYS[self.words]);
        if self.words.is_multiple_of(2) {
            self.half = keyed;
        } else {
            self.sum = self.sum.wrapping_add(u128::from(self.half) * u128::from(keyed));
        }
        self.words += 1;
    }

    /// The hash of what was written.
    #[inline(always)]
    pub(crate) fn finish(mut self) -> u128 {
        self.flush();
        if self.words % 2 == 1 {
            self.word(0);
        }
        let bytes = self.sum.to_le_bytes();
        let half = |at: usize| {
            let mut half = [0; 8];
            half.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(half)
        };
        let (low, high, length) = (half(0), half(8), self.words as u64);
        let first = fold(low ^ 0xa076_1d64_78bd_642f, high ^ 0xe703_7ed1_a0b4_28db ^ length);
        let second = fold(high ^ 0x8ebc_6af0_9c88_c6e3, low ^ 0x5899_65cc_7537_4cc3 ^ length);
        u128::from(first) << 64 | u128::from(second ^ first.rotate_left(32))
    }
}

impl Sink for WordHash {
    #[inline(always)]
    fn number(&mut self, value: u64, bytes: usize) {
        if self.small_bytes + bytes > 8 {
            self.flush();
        }
        self.small |= value << (self.small_bytes * 8);
        self.small_bytes += bytes;
        if self.small_bytes == 8 {
            self.flush();
        }
    }
    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) {
        self.flush();
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
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
                out.number(u64::from(*self), size_of::<$type>());
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
                out.number(*self as u64, 1);
            }
            fn take(from: &mut Reader) -> Option<Self> {
                Self::from_byte(u8::take(from)?)
            }
        }
    )*};
}

integers!(u8, u16, u32, u64);
newtypes!(Address, AssetId, MerchantId, QuoteId, Seq, Time);
bytes!(Code, End, Kind);

impl Field for u128 {
    #[inline(always)]
    fn put(&self, out: &mut impl Sink) {
        let (low, high) = halves(*self);
        out.number(low, 8);
        out.number(high, 8);
    }
    fn take(from: &mut Reader) -> Option<Self> {
        Some(Self::from_le_bytes(from.array()?))
    }
}

/// The lower and the upper word of a number.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // The two halves are the point.
const fn halves(value: u128) -> (u64, u64) {
    (value as u64, (value >> 64) as u64)
}

impl<const N: usize> Field for [u8; N] {
    #[inline(always)]
    fn put(&self, out: &mut impl Sink) {
        out.bytes(self);
    }
    fn take(from: &mut Reader) -> Option<Self> {
        from.array()
    }
}

impl Field for bool {
    #[inline(always)]
    fn put(&self, out: &mut impl Sink) {
        out.number(u64::from(*self), 1);
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
    let (low, high) = halves(id.0);
    out.number(u64::from(tenant.0.swap_bytes()), 4);
    out.number(partition.0.swap_bytes(), 8);
    out.number(high.swap_bytes(), 8);
    out.number(low.swap_bytes(), 8);
}

/// Writes a number as part of a key.
pub(crate) trait KeyPart {
    fn put_in_key(self, out: &mut impl Sink);
}

macro_rules! key_parts {
    ($($type:ty),*) => {$(
        impl KeyPart for $type {
            #[inline(always)]
            fn put_in_key(self, out: &mut impl Sink) {
                out.number(u64::from(self.swap_bytes()), size_of::<$type>());
            }
        }
    )*};
}

key_parts!(u16, u32, u64);

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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    fn hash(words: &[u64]) -> u128 {
        let mut hash = WordHash::new();
        words.iter().for_each(|word| hash.number(*word, 8));
        hash.finish()
    }

    #[test]
    fn every_word_and_its_place_counts() {
        let words = [0, 1, 2, 3, 4, 5, 6, 7, 8];
        let mut seen = BTreeSet::new();
        for length in 0..=words.len() {
            assert!(seen.insert(hash(&words[..length])), "length {length}");
        }
        for place in 0..words.len() {
            for bit in 0..64 {
                let mut other = words;
                other[place] ^= 1 << bit;
                assert!(seen.insert(hash(&other)), "word {place}, bit {bit}");
            }
            for other_place in 0..place {
                let mut other = words;
                other.swap(place, other_place);
                assert!(seen.insert(hash(&other)), "words {place} and {other_place}");
            }
        }
    }

    #[test]
    fn sums_do_not_forget_who_has_what() {
        // What one entry gains and another loses must not cancel out.
        let pair = |a: u64, b: u64| hash(&[1, a, 5, 9]).wrapping_add(hash(&[2, b, 5, 9]));
        let mut seen = BTreeSet::new();
        for a in 0..100 {
            assert!(seen.insert(pair(a, 100 - a)), "{a}");
        }
    }

    #[test]
    fn half_of_the_bits_change_with_each_bit() {
        let words = [3, 1, 4, 1, 5, 9];
        let changed: u32 = (0..6 * 64)
            .map(|bit| {
                let mut other = words;
                other[bit / 64] ^= 1 << (bit % 64);
                (hash(&words) ^ hash(&other)).count_ones()
            })
            .sum();
        let mean = changed / (6 * 64);
        assert!((60..=68).contains(&mean), "{mean} of 128 bits");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        7_u8.put(&mut bytes);
        8_u16.put(&mut bytes);
        9_u32.put(&mut bytes);
        10_u64.put(&mut bytes);
        (1_u128 << 100 | 5).put(&mut bytes);
        true.put(&mut bytes);
        [1_u8, 2, 3].put(&mut bytes);
        put_key(&mut bytes, TenantId(1), PartitionHandle(2), Id(3 << 64 | 4));
        let mut from = Reader(&bytes);
        assert_eq!(
            (from.read(), from.read(), from.read(), from.read()),
            (Some(7_u8), Some(8_u16), Some(9_u32), Some(10_u64))
        );
        assert_eq!((from.read(), from.read()), (Some(1_u128 << 100 | 5), Some(true)));
        assert_eq!(from.array(), Some([1, 2, 3]));
        assert_eq!(take_key(&mut from), Some((TenantId(1), PartitionHandle(2), Id(3 << 64 | 4))));
        assert!(from.0.is_empty());
    }
}
