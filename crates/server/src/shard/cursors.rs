//! Where the readers of the change stream are: retention waits for them, up to a quota.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use surety_protocol::Seq;

use crate::shard::slots::{SlotNumber, Slots};

/// The places of all readers.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    places: RefCell<Slots<Rc<Cell<Seq>>>>,
}

/// The place of one reader, until it is gone.
#[derive(Debug)]
pub(super) struct Cursor {
    cursors: Rc<Cursors>,
    number: SlotNumber,
    next: Rc<Cell<Seq>>,
}

impl Cursors {
    /// A reader comes that wants `next` first.
    pub(super) fn open(self: &Rc<Self>, next: Seq) -> Cursor {
        let next = Rc::new(Cell::new(next));
        let number = self.places.borrow_mut().insert(Rc::clone(&next));
        Cursor { cursors: Rc::clone(self), number, next }
    }

    /// The first record that some reader still wants.
    pub(super) fn slowest(&self) -> Option<Seq> {
        let mut places = self.places.borrow_mut();
        let numbers = places.numbers();
        numbers.filter_map(|number| places.get_mut(number).map(|next| next.get())).min()
    }
}

impl Cursor {
    /// Everything before `next` was handed over.
    pub(super) fn advance(&self, next: Seq) {
        self.next.set(next);
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cursors.places.borrow_mut().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_reader_counts_until_it_is_gone() {
        let cursors = Rc::new(Cursors::default());
        assert_eq!(cursors.slowest(), None);
        let (slow, fast) = (cursors.open(Seq(5)), cursors.open(Seq(7)));
        fast.advance(Seq(100));
        assert_eq!(cursors.slowest(), Some(Seq(5)));
        slow.advance(Seq(50));
        assert_eq!(cursors.slowest(), Some(Seq(50)));
        drop(slow);
        assert_eq!(cursors.slowest(), Some(Seq(100)));
        drop(fast);
        assert_eq!(cursors.slowest(), None);
    }
}
