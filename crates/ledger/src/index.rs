//! The one index of locks and remembered ids.
//!
//! Many small tables instead of a large one, so that growing moves a few thousand items at most and no request waits for
//! it. The tables take unequal shares of the keys, from one part to two, so that they do not all grow at once: at any
//! size some have just doubled and others are about to, and the memory per key stays at its mean.

use alloc::vec::Vec;
use hashbrown::HashTable;

use crate::mix::fold;

/// Tables.
const PARTS: usize = 1024;
/// Resolution of the shares.
const SHARES: usize = 1 << 14;
/// Which table a key's lower bits lead to.
static PART_OF: [u16; SHARES] = shares();

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The slot of a lock.
    Lock(u32),
    /// The slot of a remembered id.
    Op(u32),
}

const OP_BIT: u32 = 1 << 31;

impl Found {
    const fn pack(self) -> u32 {
        match self {
            Self::Lock(slot) => slot,
            Self::Op(slot) => slot | OP_BIT,
        }
    }

    const fn unpack(packed: u32) -> Self {
        if packed & OP_BIT == 0 { Self::Lock(packed) } else { Self::Op(packed & !OP_BIT) }
    }
}

/// Locks and remembered ids by account and id.
#[derive(Debug)]
pub(crate) struct Index {
    parts: Vec<HashTable<u64>>,
}

/// Mixes a key. The ids of one tenant only ever meet each other, so a tenant that builds collisions slows itself down.
#[inline]
pub(crate) fn hash(account: u32, id: u128) -> u64 {
    const A: u64 = 0x2d35_8dcc_aa6c_78a5;
    const B: u64 = 0x8bb8_4b93_962e_acc9;
    const C: u64 = 0x4b33_a62e_d433_d4a3;
    let low = u64::try_from(id & u128::from(u64::MAX)).unwrap_or(0);
    let high = u64::try_from(id >> 64).unwrap_or(0);
    let first = fold(low ^ A, high ^ B);
    fold(first ^ C, u64::from(account).wrapping_mul(A) ^ B)
}

/// An item keeps the upper half of its hash, from which its table places it again when it grows.
const fn item(hash: u64, found: Found) -> u64 {
    hash & 0xffff_ffff_0000_0000 | found.pack() as u64
}

/// Spreads the kept half over the bits that a table looks at.
const fn place(item: u64) -> u64 {
    (item >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect() }
    }

    #[inline]
    fn part(&self, hash: u64) -> usize {
        // The lower half chooses the table, the upper half the place in it.
        usize::from(PART_OF[usize::try_from(hash & (SHARES as u64 - 1)).unwrap_or(0)])
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(Found) -> bool) -> Option<Found> {
        let wanted = hash >> 32;
        self.parts[self.part(hash)]
            .find(place(hash), |item| *item >> 32 == wanted && is_it(unpacked(*item)))
            .map(|item| unpacked(*item))
    }

    /// Adds a key that is not there.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, found: Found) {
        let part = self.part(hash);
        self.parts[part].insert_unique(place(hash), item(hash, found), |item| place(*item));
    }

    /// Takes out a key that is there.
    pub(crate) fn remove(&mut self, hash: u64, found: Found) {
        let part = self.part(hash);
        let wanted = item(hash, found);
        let entry = self.parts[part].find_entry(place(hash), |item| *item == wanted);
        assert!(entry.is_ok(), "what is removed is in the index");
        if let Ok(entry) = entry {
            entry.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.parts.iter().map(HashTable::allocation_size).sum()
    }
}

fn unpacked(item: u64) -> Found {
    Found::unpack(u32::try_from(item & 0xffff_ffff).unwrap_or(0))
}

/// Divides the lower bits of a hash among the tables in shares that grow geometrically from 1 to 2.
const fn shares() -> [u16; SHARES] {
    // 2^(1/PARTS) in 2.62 fixed point.
    const STEP: u128 = 4_614_808_732_577_250_304;
    let mut sums = [0; PARTS];
    let (mut share, mut sum, mut part) = (1_u128 << 62, 0, 0);
    while part < PARTS {
        sum += share;
        sums[part] = sum;
        share = (share * STEP) >> 62;
        part += 1;
    }
    let mut shares = [0; SHARES];
    let (mut bucket, mut part) = (0, 0_u16);
    while bucket < SHARES {
        while part as usize + 1 < PARTS && bucket as u128 * sum >= sums[part as usize] * SHARES as u128 {
            part += 1;
        }
        shares[bucket] = part;
        bucket += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_until_they_are_removed() {
        let mut index = Index::new();
        let keys: Vec<(u64, u32)> = (0..100_000_u32).map(|n| (hash(n % 7, u128::from(n) << 40), n)).collect();
        for (hash, n) in &keys {
            index.insert(*hash, if n % 2 == 0 { Found::Lock(*n) } else { Found::Op(*n) });
        }
        let find = |index: &Index, hash: u64, n: u32| {
            index.find(hash, |found| matches!(found, Found::Lock(slot) | Found::Op(slot) if slot == n))
        };
        assert!(keys.iter().all(|(hash, n)| find(&index, *hash, *n).is_some()));
        for (hash, n) in keys.iter().filter(|(_, n)| n % 2 == 0) {
            index.remove(*hash, Found::Lock(*n));
        }
        assert!(keys.iter().all(|(hash, n)| find(&index, *hash, *n).is_some() == (n % 2 == 1)));
        assert_eq!(index.len(), 50_000);
    }

    #[test]
    fn shares_grow_from_one_to_two_and_every_table_has_one() {
        let mut counts = alloc::vec![0_usize; PARTS];
        PART_OF.iter().for_each(|part| counts[usize::from(*part)] += 1);
        assert!(counts.iter().all(|count| *count >= 10), "every table takes part");
        let first: usize = counts[..16].iter().sum();
        let last: usize = counts[PARTS - 16..].iter().sum();
        assert!(last * 100 >= first * 185 && last * 100 <= first * 215, "{first} {last}");
    }
}
