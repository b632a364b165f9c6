//! A timing wheel of one turn: lists of slots by millisecond, for things that are looked at again when their time comes.
//!
//! A ring holds `SLOTS` milliseconds. What is due later is put at its far end and looked at again there; whoever pops a
//! slot examines what it finds, so that an early or a second look is harmless.

use alloc::vec;
use alloc::vec::Vec;

use crate::slab::{Link, NONE, Slab};

/// Lists of slots by millisecond.
#[derive(Debug)]
pub(crate) struct Ring {
    /// The first slot of each list plus one; 0 for an empty list, so that a new ring is zeroed memory, not yet touched.
    heads: Vec<u32>,
    /// One bit for each list that is not empty, and one for each word of those that is not zero.
    words: Vec<u64>,
    summary: Vec<u64>,
    /// Lists up to this millisecond have been emptied, but for the one being popped.
    cursor: u64,
    /// Everything that a jump of more than one turn has made due, and the last moment that the ring held before it.
    overdue: u32,
    overdue_until: u64,
}

impl Ring {
    /// A ring of `slots` milliseconds, a power of two from 4,096 up.
    pub(crate) fn new(slots: usize) -> Self {
        assert!(slots.is_power_of_two() && slots >= 4096, "a ring of a power of two of slots");
        Self {
            heads: vec![0; slots],
            words: vec![0; slots / 64],
            summary: vec![0; slots / 4096],
            cursor: 0,
            overdue: NONE,
            overdue_until: 0,
        }
    }

    /// Puts a slot at a moment, in milliseconds, and says at which moment it was put: not before the next one, and not
    /// past the far end.
    pub(crate) fn push<T: Link>(&mut self, links: &mut Slab<T>, slot: u32, at: u64) -> u64 {
        let at = self.place(at);
        let list = self.list(at);
        links.get_mut(slot).set_link(self.head(list));
        self.heads[list] = slot + 1;
        self.words[list / 64] |= 1 << (list % 64);
        self.summary[list / 4096] |= 1 << (list / 64 % 64);
        at
    }

    fn place(&self, at: u64) -> u64 {
        at.clamp(self.cursor + 1, self.cursor + self.heads.len() as u64 - 1)
    }

    /// Takes a slot out again that was put at a moment since the last pop. What was put there later is walked over.
    pub(crate) fn remove<T: Link>(&mut self, links: &mut Slab<T>, slot: u32, at: u64) {
        let list = self.list(self.place(at));
        let next = links.get(slot).link();
        if self.head(list) == slot {
            match next {
                NONE => self.mark_empty(list),
                next => self.heads[list] = next + 1,
            }
            return;
        }
        let mut before = self.head(list);
        while before != NONE && links.get(before).link() != slot {
            before = links.get(before).link();
        }
        assert!(before != NONE, "what is taken out is in the ring");
        links.get_mut(before).set_link(next);
    }

    /// Takes out one slot whose moment is not past `now`, with its moment; after a jump with the last moment before it.
    pub(crate) fn pop<T: Link>(&mut self, links: &mut Slab<T>, now: u64) -> Option<(u32, u64)> {
        if now >= self.cursor + self.heads.len() as u64 {
            self.jump(links, now);
        }
        if self.overdue != NONE {
            let slot = self.overdue;
            self.overdue = links.get(slot).link();
            return Some((slot, self.overdue_until));
        }
        let at = self.next_list().filter(|at| *at <= now);
        let Some(at) = at else {
            self.cursor = self.cursor.max(now);
            return None;
        };
        // Pushes while this list is popped go behind it.
        self.cursor = self.cursor.max(at);
        let list = self.list(at);
        let slot = self.head(list);
        match links.get(slot).link() {
            NONE => self.mark_empty(list),
            next => self.heads[list] = next + 1,
        }
        Some((slot, at))
    }

    /// The first moment at which a pop may find something.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.overdue != NONE { Some(self.cursor) } else { self.next_list() }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.heads.len() * 4 + (self.words.len() + self.summary.len()) * 8
    }

    fn list(&self, at: u64) -> usize {
        usize::try_from(at & (self.heads.len() as u64 - 1)).unwrap_or(0)
    }

    fn head(&self, list: usize) -> u32 {
        self.heads[list].checked_sub(1).unwrap_or(NONE)
    }

    fn mark_empty(&mut self, list: usize) {
        self.heads[list] = 0;
        self.words[list / 64] &= !(1 << (list % 64));
        if self.words[list / 64] == 0 {
            self.summary[list / 4096] &= !(1 << (list / 64 % 64));
        }
    }

    /// The first non-empty list at or after the cursor, going round once.
    fn next_list(&self) -> Option<u64> {
        let start = self.list(self.cursor);
        let list = self.first_from(start).or_else(|| self.first_from(0))?;
        let ahead = (list + self.heads.len() - start) & (self.heads.len() - 1);
        Some(self.cursor + ahead as u64)
    }

    fn first_from(&self, start: usize) -> Option<usize> {
        let word = start / 64;
        let rest = self.words[word] & (u64::MAX << (start % 64));
        if rest != 0 {
            return Some(word * 64 + rest.trailing_zeros() as usize);
        }
        let mut from = word + 1;
        while from < self.words.len() {
            let rest = self.summary[from / 64] & (u64::MAX << (from % 64));
            if rest != 0 {
                let word = from / 64 * 64 + rest.trailing_zeros() as usize;
                return Some(word * 64 + self.words[word].trailing_zeros() as usize);
            }
            from = (from / 64 + 1) * 64;
        }
        None
    }

    /// Time has moved by more than a turn: all lists are due.
    fn jump<T: Link>(&mut self, links: &mut Slab<T>, now: u64) {
        while let Some(at) = self.next_list() {
            let list = self.list(at);
            let head = self.head(list);
            let mut last = head;
            while links.get(last).link() != NONE {
                last = links.get(last).link();
            }
            links.get_mut(last).set_link(self.overdue);
            self.overdue = head;
            self.mark_empty(list);
        }
        self.overdue_until = self.cursor + self.heads.len() as u64 - 1;
        self.cursor = now;
    }
}

/// One entry of a ring whose things may be in it more than once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// The slot of the thing.
    pub(crate) slot: u32,
    next: u32,
}

impl Node {
    pub(crate) const fn new(slot: u32) -> Self {
        Self { slot, next: NONE }
    }
}

impl Link for Node {
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

    fn ring_with(moments: &[u64]) -> (Ring, Slab<Node>) {
        let mut ring = Ring::new(4096);
        let mut nodes = Slab::new();
        for (index, at) in moments.iter().enumerate() {
            let node = nodes.insert(Node::new(u32::try_from(index).unwrap()));
            ring.push(&mut nodes, node, *at);
        }
        (ring, nodes)
    }

    fn popped(ring: &mut Ring, nodes: &mut Slab<Node>, now: u64) -> Vec<u32> {
        let mut slots = Vec::new();
        while let Some((node, at)) = ring.pop(nodes, now) {
            assert!(at <= now);
            slots.push(nodes.get(node).slot);
            nodes.remove(node);
        }
        slots
    }

    #[test]
    fn things_come_out_in_their_order_and_not_before() {
        let (mut ring, mut nodes) = ring_with(&[70, 5, 4000, 64, 63, 5]);
        assert_eq!(ring.next(), Some(5));
        assert_eq!(popped(&mut ring, &mut nodes, 4), [0_u32; 0]);
        assert_eq!(popped(&mut ring, &mut nodes, 5), [5, 1]);
        assert_eq!(popped(&mut ring, &mut nodes, 69), [4, 3]);
        assert_eq!(popped(&mut ring, &mut nodes, 4001), [0, 2]);
        assert_eq!((ring.next(), nodes.len()), (None, 0));
    }

    #[test]
    fn what_is_far_is_put_at_the_end_and_what_is_past_at_the_next_moment() {
        let (mut ring, mut nodes) = ring_with(&[100_000]);
        assert_eq!(ring.next(), Some(4095));
        assert_eq!(popped(&mut ring, &mut nodes, 4095), [0]);
        let node = nodes.insert(Node::new(9));
        assert_eq!(ring.push(&mut nodes, node, 3), 4096);
        assert_eq!(popped(&mut ring, &mut nodes, 4096), [9]);
    }

    #[test]
    fn what_was_just_put_can_be_taken_out() {
        let (mut ring, mut nodes) = ring_with(&[7, 7, 7, 9]);
        for (slot, at) in [(1, 7), (2, 7), (3, 9)] {
            ring.remove(&mut nodes, slot, at);
            nodes.remove(slot);
        }
        assert_eq!(popped(&mut ring, &mut nodes, 100), [0]);
        assert_eq!(ring.next(), None);
    }

    #[test]
    fn a_jump_makes_everything_due_once() {
        let (mut ring, mut nodes) = ring_with(&[10, 10, 3000, 500]);
        let mut slots = popped(&mut ring, &mut nodes, 1 << 40);
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 2, 3]);
        let node = nodes.insert(Node::new(4));
        assert_eq!(ring.push(&mut nodes, node, 0), (1 << 40) + 1);
        assert_eq!(ring.next(), Some((1 << 40) + 1));
    }
}
