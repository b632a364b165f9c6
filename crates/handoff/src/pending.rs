//! Work that adds up while its thread is busy: the files written since the last sync, and how far.

use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard, lock};

/// What was noted and not taken. One thread takes.
#[derive(Debug)]
pub struct Pending<F, M> {
    noted: Mutex<Noted<F, M>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Noted<F, M> {
    files: Vec<F>,
    mark: Option<M>,
    is_closing: bool,
}

impl<F: PartialEq, M> Default for Pending<F, M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: PartialEq, M> Pending<F, M> {
    /// Nothing noted.
    #[must_use]
    pub fn new() -> Self {
        let noted = Noted { files: Vec::new(), mark: None, is_closing: false };
        Self { noted: Mutex::new(noted), changed: Condvar::new() }
    }

    /// `file` was written, and with it all is written up to `mark`.
    pub fn note(&self, file: F, mark: M) {
        let mut noted = lock(&self.noted);
        if !noted.files.contains(&file) {
            noted.files.push(file);
        }
        // With a mark already there the thread will come for it; waking it for each write costs more than the write.
        let is_first = noted.mark.replace(mark).is_none();
        drop(noted);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Waits for something, and takes all of it. `None` when closing and nothing is left.
    pub fn take(&self) -> Option<(Vec<F>, M)> {
        let mut noted = lock(&self.noted);
        while noted.mark.is_none() && !noted.is_closing {
            noted = self.wait(noted);
        }
        let mark = noted.mark.take()?;
        Some((std::mem::take(&mut noted.files), mark))
    }

    /// What was noted is still to be taken; nothing will be noted any more.
    pub fn close(&self) {
        lock(&self.noted).is_closing = true;
        self.changed.notify_one();
    }

    /// Waits so long, or until it is closed.
    #[cfg(not(any(loom, shuttle)))]
    pub fn pause(&self, span: Duration) {
        let is_open = |noted: &mut Noted<F, M>| !noted.is_closing;
        drop(self.changed.wait_timeout_while(lock(&self.noted), span, is_open));
    }

    /// Time is nothing that loom and shuttle know: a pause may be over at once.
    #[cfg(any(loom, shuttle))]
    pub fn pause(&self, _span: Duration) {
        crate::sync::yield_now();
    }

    fn wait<'a>(&'a self, noted: MutexGuard<'a, Noted<F, M>>) -> MutexGuard<'a, Noted<F, M>> {
        self.changed.wait(noted).unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
