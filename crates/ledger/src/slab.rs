//! Storage for many small things of one kind: chunks that never move, so growing costs one chunk and no copy.

use alloc::vec::Vec;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

const FIRST_BITS: u32 = 6;
/// Slots of the first chunk; each further one holds twice as many as the one before. What is not used of the last is address
/// space that was never touched.
const FIRST_LEN: u32 = 1 << FIRST_BITS;

/// Something with room for the number of another slot. Free slots are chained by it, so a freed thing must not need it.
pub(crate) trait Link: Copy {
    fn link(&self) -> u32;
    fn set_link(&mut self, slot: u32);
}

/// Chunks of slots, numbered from 0.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    free: u32,
    len: usize,
    /// Slots ever used.
    used: u32,
}

/// The chunk of a slot, and its place there.
#[inline(always)]
const fn place(slot: u32) -> (usize, usize) {
    let from_first = slot + FIRST_LEN;
    let top = from_first.ilog2();
    ((top - FIRST_BITS) as usize, (from_first ^ 1 << top) as usize)
}

impl<T: Link> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), free: NONE, len: 0, used: 0 }
    }

    /// Slots in use.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Slots ever used: every slot in use is below.
    pub(crate) const fn slots(&self) -> u32 {
        self.used
    }

    /// Puts a value into a slot. Inlined, so that its fields are written where they stay.
    #[inline(always)]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free != NONE {
            let slot = self.free;
            self.free = self.get(slot).link();
            *self.get_mut(slot) = value;
            return slot;
        }
        let slot = self.used;
        self.used += 1;
        let (chunk, _) = place(slot);
        if chunk == self.chunks.len() {
            self.add_chunk();
        }
        self.chunks[chunk].push(value);
        slot
    }

    #[cold]
    fn add_chunk(&mut self) {
        assert!(self.used < NONE >> 1, "fewer than 2^31 slots");
        let mut chunk = Vec::new();
        // Exactly: the lengths of chunks tell where a slot is.
        chunk.reserve_exact((FIRST_LEN as usize) << self.chunks.len());
        self.chunks.push(chunk);
    }

    /// Takes the memory of so many slots now, and touches it, so that using them later waits for no page.
    pub(crate) fn reserve(&mut self, slots: usize, blank: T) {
        let mut have: usize = self.chunks.iter().map(Vec::capacity).sum();
        while have < slots {
            self.add_chunk();
            let Some(chunk) = self.chunks.last_mut() else { return };
            let touched = chunk.capacity().min(slots - have);
            chunk.resize(touched, blank);
            chunk.clear();
            have += chunk.capacity();
        }
    }

    /// Frees a slot. What it held stays readable until the slot is used again, but for its link.
    pub(crate) fn remove(&mut self, slot: u32) {
        let free = self.free;
        self.get_mut(slot).set_link(free);
        self.free = slot;
        self.len -= 1;
    }

    #[inline(always)]
    pub(crate) fn get(&self, slot: u32) -> &T {
        let (chunk, at) = place(slot);
        &self.chunks[chunk][at]
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut T {
        let (chunk, at) = place(slot);
        &mut self.chunks[chunk][at]
    }

    /// Bytes of the slots that were ever used.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.used as usize * size_of::<T>() + self.chunks.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Thing(u32, u32);

    impl Link for Thing {
        fn link(&self) -> u32 {
            self.1
        }
        fn set_link(&mut self, slot: u32) {
            self.1 = slot;
        }
    }

    #[test]
    fn every_slot_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for slot in 0..100_000 {
            assert_eq!(place(slot), expected, "slot {slot}");
            expected.1 += 1;
            if expected.1 == (FIRST_LEN as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    #[test]
    fn what_is_reserved_is_used_in_order() {
        let mut slab = Slab::new();
        slab.insert(Thing(0, 7));
        slab.reserve(1000, Thing(9, 9));
        assert_eq!((slab.len(), slab.slots()), (1, 1));
        assert!((1..3000).all(|n| slab.insert(Thing(n, 7)) == n));
        assert!((0..3000).all(|n| *slab.get(n) == Thing(n, 7)));
    }

    #[test]
    fn slots_are_used_again_and_nothing_moves() {
        let mut slab = Slab::new();
        let slots: Vec<u32> = (0..10_000).map(|n| slab.insert(Thing(n, 7))).collect();
        assert_eq!(slots, (0..10_000).collect::<Vec<_>>());
        for slot in (0..10_000).step_by(3) {
            slab.remove(slot);
        }
        assert_eq!(slab.len(), 10_000 - 3334);
        let again: Vec<u32> = (0..3334).map(|n| slab.insert(Thing(100_000 + n, 7))).collect();
        assert!(again.iter().all(|slot| slot % 3 == 0));
        assert_eq!((slab.len(), slab.slots()), (10_000, 10_000));
        assert!((0..10_000).filter(|slot| slot % 3 != 0).all(|slot| *slab.get(slot) == Thing(slot, 7)));
    }
}
