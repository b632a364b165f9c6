//! The one index of locks and remembered ids.
//!
//! A key is looked for in one cache line: seven items, a tag of each, and a count of the keys that found the line full and
//! went on to the next. Many small tables instead of a large one, so that growing moves a few thousand items at most and no
//! request waits for it. Each table grows by its own factor, so that they do not all grow at once and the memory per key
//! stays at its mean.

use alloc::vec;
use alloc::vec::Vec;

use crate::mix::fold;

/// Tables.
const PARTS: usize = 1024;
/// Items of a line.
const ITEMS: usize = 7;

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

/// Marks the bytes of a word of tags that are the items'; the last byte is the count.
const TAGS: u64 = 0x0080_8080_8080_8080;
/// A one in every byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// One key that went on to the next line.
const ONE_PASSED: u64 = 1 << 56;
/// Keys that went on, at most: a count that has come so far stays there.
const PASSED_MAX: u64 = 0xff << 56;

/// Seven items in a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line {
    /// The tag of each item from the lowest byte up, 0 for a free place; in the highest byte, how many keys passed by.
    tags: u64,
    items: [u64; ITEMS],
}

const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    const EMPTY: Self = Self { tags: 0, items: [0; ITEMS] };

    /// One bit for each place with a tag; a place above a matching one may be marked without matching.
    #[inline(always)]
    const fn places_with(&self, tag: u64) -> u64 {
        let other = self.tags ^ tag.wrapping_mul(ONES);
        other.wrapping_sub(ONES) & !other & TAGS
    }

    #[inline(always)]
    const fn has_passed(&self) -> bool {
        self.tags >= ONE_PASSED
    }
}

/// The first place that is marked.
#[inline(always)]
const fn first(places: u64) -> usize {
    (places.trailing_zeros() / 8) as usize
}

/// Never 0, which marks a free place.
#[inline(always)]
const fn tag(hash: u64) -> u64 {
    hash >> 16 & 0xff | 0x80
}

/// An item keeps the upper half of its hash, from which its table places it again when it grows, and its tag.
#[inline(always)]
const fn item(hash: u64, found: Found) -> u64 {
    hash & 0xffff_ffff_0000_0000 | found.pack() as u64
}

#[inline(always)]
fn unpacked(item: u64) -> Found {
    Found::unpack(u32::try_from(item & 0xffff_ffff).unwrap_or(0))
}

/// How many keys a table of so many lines takes. Fuller, and its lines pass keys on too often.
const fn room(lines: usize) -> usize {
    lines * ITEMS * 13 / 16
}

/// One of the tables.
#[derive(Debug)]
struct Part {
    lines: Vec<Line>,
    len: usize,
    /// Grows when it has more.
    len_max: usize,
}

impl Part {
    const EMPTY: Self = Self { lines: Vec::new(), len: 0, len_max: 0 };

    /// Where a key's items begin: the upper half of the hash, scaled to the lines.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        usize::try_from(((hash >> 32) * self.lines.len() as u64) >> 32).unwrap_or(0)
    }

    #[inline(always)]
    const fn next(&self, line: usize) -> usize {
        if line + 1 == self.lines.len() { 0 } else { line + 1 }
    }

    fn put(&mut self, tag: u64, item: u64) {
        let mut at = self.home(item);
        loop {
            let line = &mut self.lines[at];
            let free = line.places_with(0);
            if free != 0 {
                let place = first(free);
                line.tags |= tag << (place * 8);
                line.items[place] = item;
                return;
            }
            if line.tags < PASSED_MAX {
                line.tags += ONE_PASSED;
            }
            at = self.next(at);
        }
    }

    /// Places the items anew in a third to two thirds more lines: every part by a factor of its own.
    #[cold]
    fn grow(&mut self, part: usize) {
        let lines = self.lines.len();
        self.place_anew(lines + lines * (PARTS + part) / (3 * PARTS) + 1);
    }

    fn place_anew(&mut self, more: usize) {
        let old = core::mem::replace(&mut self.lines, vec![Line::EMPTY; more]);
        self.len_max = room(more);
        for line in old {
            for (place, item) in line.items.into_iter().enumerate() {
                let tag = line.tags >> (place * 8) & 0xff;
                if tag != 0 {
                    self.put(tag, item);
                }
            }
        }
    }
}

/// Locks and remembered ids by account and id.
#[derive(Debug)]
pub(crate) struct Index {
    parts: Vec<Part>,
    /// What the hash of every key begins with.
    seeds: [u64; 2],
}

impl Index {
    /// Callers choose their ids, so only a secret keeps them from choosing ids that all meet in one line.
    pub(crate) fn new(secret: u64) -> Self {
        const A: u64 = 0x2d35_8dcc_aa6c_78a5;
        const B: u64 = 0x8bb8_4b93_962e_acc9;
        let seeds = [fold(secret ^ A, B) ^ A, fold(secret ^ B, A) ^ B];
        Self { parts: (0..PARTS).map(|_| Part::EMPTY).collect(), seeds }
    }

    /// Mixes a key.
    #[inline]
    pub(crate) fn hash(&self, account: u32, id: u128) -> u64 {
        const C: u64 = 0x4b33_a62e_d433_d4a3;
        let [first, second] = self.seeds;
        let low = u64::try_from(id & u128::from(u64::MAX)).unwrap_or(0);
        let high = u64::try_from(id >> 64).unwrap_or(0);
        fold(fold(low ^ first, high ^ second) ^ C, u64::from(account).wrapping_mul(C) ^ second)
    }

    /// Takes the memory of so many keys now.
    pub(crate) fn reserve(&mut self, keys: usize) {
        // Keys do not fall evenly: a sixteenth more.
        let each = keys.div_ceil(PARTS) * 17 / 16;
        for part in self.parts.iter_mut().filter(|part| part.len_max < each) {
            part.place_anew(each.div_ceil(room(16)) * 16);
        }
    }

    /// The lower bits of the hash choose the table, the upper half the line in it.
    #[inline(always)]
    fn part(hash: u64) -> usize {
        usize::try_from(hash & (PARTS as u64 - 1)).unwrap_or(0)
    }

    /// Brings the line of a key into the cache.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let part = &self.parts[Self::part(hash)];
        if let Some(line) = part.lines.get(part.home(hash)) {
            memory::prefetch(line);
        }
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(Found) -> bool) -> Option<Found> {
        let part = &self.parts[Self::part(hash)];
        let tag = tag(hash);
        let mut at = part.home(hash);
        // Once around at most: every line may have been passed by.
        for _ in 0..part.lines.len() {
            let line = &part.lines[at];
            let mut places = line.places_with(tag);
            while places != 0 {
                let item = line.items[first(places)];
                if item >> 32 == hash >> 32 && is_it(unpacked(item)) {
                    return Some(unpacked(item));
                }
                places &= places - 1;
            }
            if !line.has_passed() {
                return None;
            }
            at = part.next(at);
        }
        None
    }

    /// Adds a key that is not there.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, found: Found) {
        let number = Self::part(hash);
        let part = &mut self.parts[number];
        if part.len >= part.len_max {
            part.grow(number);
        }
        part.len += 1;
        part.put(tag(hash), item(hash, found));
    }

    /// Takes out a key that is there.
    pub(crate) fn remove(&mut self, hash: u64, found: Found) {
        let part = &mut self.parts[Self::part(hash)];
        let wanted = item(hash, found);
        let tag = tag(hash);
        let mut at = part.home(hash);
        for _ in 0..part.lines.len() {
            let next = part.next(at);
            let line = &mut part.lines[at];
            let mut places = line.places_with(tag);
            while places != 0 {
                let place = first(places);
                if line.items[place] == wanted {
                    line.tags &= !(0xff << (place * 8));
                    part.len -= 1;
                    return;
                }
                places &= places - 1;
            }
            // It went by here, and does no longer.
            if line.tags < PASSED_MAX {
                line.tags = line.tags.saturating_sub(ONE_PASSED);
            }
            at = next;
        }
        unreachable!("what is removed is in the index");
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len).sum()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let lines: usize = self.parts.iter().map(|part| part.lines.capacity()).sum();
        lines * size_of::<Line>() + PARTS * size_of::<Part>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: u64 = 7;

    fn found(n: u32) -> Found {
        if n.is_multiple_of(2) { Found::Lock(n) } else { Found::Op(n) }
    }

    fn insert(index: &mut Index, account: u32, id: u128, found: Found) {
        index.insert(index.hash(account, id), found);
    }

    fn is_in(index: &Index, hash: u64, n: u32) -> bool {
        index.find(hash, |other| other == found(n)).is_some()
    }

    #[test]
    fn keys_are_found_until_they_are_removed() {
        let mut index = Index::new(SECRET);
        let key = |n: u32| (index.hash(n % 7, u128::from(n) << 40), n);
        let keys: Vec<(u64, u32)> = (0..100_000).map(key).collect();
        for round in 0..3 {
            for (hash, n) in keys.iter().filter(|(_, n)| round == 0 || n % 2 == 0) {
                index.insert(*hash, found(*n));
            }
            assert!(keys.iter().all(|(hash, n)| is_in(&index, *hash, *n)));
            for (hash, n) in keys.iter().filter(|(_, n)| n % 2 == 0) {
                index.remove(*hash, found(*n));
            }
            assert!(keys.iter().all(|(hash, n)| is_in(&index, *hash, *n) == (n % 2 == 1)));
            assert_eq!(index.len(), 50_000);
        }
        let bytes = index.memory_bytes() - PARTS * size_of::<Part>();
        assert!(bytes < 100_000 * 18, "{bytes} bytes for what were 100,000 keys");
    }

    #[test]
    fn keys_that_all_meet_are_found_too() {
        let mut index = Index::new(SECRET);
        // One part, one line, one tag; only the slots differ. So many that counts of passing keys stay at their end.
        let hash = 0x1234_5678_009a_0001;
        (0..2000).for_each(|n| index.insert(hash, found(n)));
        assert!((0..2000).all(|n| is_in(&index, hash, n)));
        (0..2000).step_by(2).for_each(|n| index.remove(hash, found(n)));
        assert!((0..2000).all(|n| is_in(&index, hash, n) == (n % 2 == 1)));
        (0..2000).step_by(2).for_each(|n| index.insert(hash, found(n)));
        assert!((0..2000).all(|n| is_in(&index, hash, n)));
        assert_eq!(
            (index.len(), is_in(&index, hash, 2000), is_in(&index, hash ^ 1 << 16, 0)),
            (2000, false, false)
        );
    }

    #[test]
    fn a_key_that_is_not_there_is_not_looked_for_for_ever() {
        let mut index = Index::new(SECRET);
        let (first_line, second_line) = (0, 1 << 63);
        (0..8).for_each(|n| index.insert(first_line, found(n)));
        assert_eq!(index.parts[0].lines.len(), 2);
        (0..5).for_each(|n| index.remove(first_line, found(n)));
        (8..15).for_each(|n| index.insert(second_line, found(n)));
        assert!(index.parts[0].lines.iter().all(Line::has_passed), "a key has passed by each line");
        assert!(!is_in(&index, first_line, 15) && !is_in(&index, second_line, 15));
        assert!(
            (5..8).all(|n| is_in(&index, first_line, n)) && (8..15).all(|n| is_in(&index, second_line, n))
        );
    }

    #[test]
    fn what_comes_and_goes_is_there_as_long_as_it_is() {
        let mut index = Index::new(SECRET);
        let mut there = alloc::collections::BTreeSet::new();
        let mut random = 1_u64;
        for round in 0..200_000_u64 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(round | 1);
            // Few hashes, of one part, so that lines fill up and keys pass by; up to a hundred of them, and back to none.
            let n = u32::try_from(random >> 40).unwrap() % (1 + u32::try_from(round % 2_000).unwrap() / 20);
            let hash = u64::from(n % 23) << 59 | u64::from(n % 5) << 16;
            assert_eq!(is_in(&index, hash, n), there.contains(&n), "round {round}");
            let most = 100 - usize::try_from(round % 20_000).unwrap() / 200;
            if there.remove(&n) {
                index.remove(hash, found(n));
            } else if there.len() < most {
                there.insert(n);
                index.insert(hash, found(n));
            }
            assert_eq!(index.len(), there.len());
        }
    }

    #[test]
    fn the_secret_decides_where_a_key_is() {
        let (one, other) = (Index::new(1), Index::new(2));
        let same =
            (0..1_000_u128).filter(|id| one.hash(1, *id) & 0x3ff == other.hash(1, *id) & 0x3ff).count();
        assert!(same < 10, "{same} of 1,000 ids in the same of 1,024 parts");
    }

    #[test]
    fn reserved_memory_is_enough() {
        let mut index = Index::new(SECRET);
        insert(&mut index, 1, 1 << 64, found(1));
        index.reserve(100_000);
        let bytes = index.memory_bytes();
        (0..100_000_u32).for_each(|n| insert(&mut index, 1, u128::from(n), found(n)));
        assert!(index.memory_bytes() < bytes * 21 / 20, "hardly a part has grown");
        assert!(is_in(&index, index.hash(1, 1 << 64), 1));
    }

    #[test]
    #[should_panic(expected = "what is removed is in the index")]
    fn what_is_not_there_cannot_be_removed() {
        let mut index = Index::new(SECRET);
        insert(&mut index, 1, 1, found(1));
        index.remove(index.hash(1, 1), found(3));
    }

    #[test]
    fn tables_grow_apart() {
        let mut index = Index::new(SECRET);
        (0..400_000_u32).for_each(|n| insert(&mut index, 1, u128::from(n), found(n)));
        let sizes = || index.parts.iter().map(|part| part.lines.len());
        let (least, most) = (sizes().min().unwrap(), sizes().max().unwrap());
        assert!(most * 100 > least * 115, "from {least} to {most} lines");
    }
}
