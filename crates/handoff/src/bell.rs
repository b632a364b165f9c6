//! A bell: any thread rings it, one task waits for it.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, lock};

/// Rung any number of times, heard once. What was left before it was rung is seen by who hears it.
#[derive(Debug)]
pub struct Bell {
    is_rung: AtomicBool,
    waiter: Mutex<Option<Waker>>,
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

impl Bell {
    /// A bell that was not rung.
    #[must_use]
    pub fn new() -> Self {
        Self { is_rung: AtomicBool::new(false), waiter: Mutex::new(None) }
    }

    /// Rings. Cheap if it was rung and nobody has heard it yet.
    pub fn ring(&self) {
        if self.is_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        // Not under the lock: whoever is woken may want to wait again at once.
        let waiter = lock(&self.waiter).take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Waits for the bell. One task at a time may wait.
    pub async fn rung(&self) {
        poll_fn(|cx| self.poll_rung(cx)).await;
    }

    /// Ready once if the bell was rung; else the task is woken when it is.
    pub fn poll_rung(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_rung.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        *lock(&self.waiter) = Some(cx.waker().clone());
        // Whoever rang before the waker was there has not seen it.
        if self.is_rung.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
