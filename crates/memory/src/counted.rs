//! How often memory is asked for.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicU64, Ordering};

/// Requests for memory of this process, if [`Counted`] is its allocator.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// An allocator that counts how often it is asked for memory, anew or for more of it, by any thread. For measuring: the count is a
/// cache line that all threads share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted<A>(pub A);

/// How often this process has asked for memory; 0 for ever if [`Counted`] is not its allocator.
#[must_use]
pub fn requests() -> u64 {
    REQUESTS.load(Ordering::Relaxed)
}

fn count() {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
}

#[allow(unsafe_code)]
// SAFETY: every call goes to the inner allocator as it came.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    // SAFETY: the caller's promises are those of the trait.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { self.0.alloc(layout) }
    }

    // SAFETY: the caller's promises are those of the trait.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    // SAFETY: the caller's promises are those of the trait.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }

    // SAFETY: the caller's promises are those of the trait.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { self.0.realloc(block, layout, size) }
    }
}
