//! A mailbox that ends: what is left in it is taken, or dropped when nobody takes any more.

use std::fmt;

use crate::sync::Queue;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Left by many, taken by one. After [`Mailbox::end`] nothing stays in it, so whoever waits for an answer hears of it by
/// the drop of what was left.
pub struct Mailbox<T> {
    items: Queue<T>,
    is_ended: AtomicBool,
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Mailbox<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { items: Queue::new(), is_ended: AtomicBool::new(false) }
    }

    /// Leaves something.
    pub fn leave(&self, item: T) {
        self.items.push(item);
        // Left before the look, and `end` clears after it has set: one of the two drops it.
        if self.is_ended.load(Ordering::SeqCst) {
            self.clear();
        }
    }

    /// Takes the oldest.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.items.pop()
    }

    /// Nobody takes any more.
    pub fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
        self.clear();
    }

    fn clear(&self) {
        while self.items.pop().is_some() {}
    }
}
