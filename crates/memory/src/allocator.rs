//! Large allocations in large pages.

use core::alloc::{GlobalAlloc, Layout};

/// A page that the processor finds with one entry of its address cache where 512 small ones would take 512.
const LARGE_PAGE: usize = 2 << 20;

/// An allocator that puts allocations of a large page and more on large pages, where the system has them.
///
/// Tables of millions of entries are read at random: with small pages each read first misses the address cache, which
/// costs more than the read, most of all in a virtual machine. Smaller allocations go through unchanged.
#[derive(Clone, Copy, Debug, Default)]
pub struct LargePages<A>(pub A);

/// The same memory, aligned so that it can consist of large pages.
fn widened(layout: Layout) -> Layout {
    if layout.size() < LARGE_PAGE {
        return layout;
    }
    layout.align_to(LARGE_PAGE).unwrap_or(layout)
}

#[allow(unsafe_code)]
// SAFETY: every call goes to the inner allocator with one and the same layout for the life of a block: `widened` is a function of the
// layout alone, keeps the size and only raises the alignment. A block is moved when its layout and its widened layout
// change apart.
unsafe impl<A: GlobalAlloc> GlobalAlloc for LargePages<A> {
    // SAFETY: the caller's promises are those of the trait.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about `layout` hold for the widened one.
        let block = unsafe { self.0.alloc(widened(layout)) };
        advise(block, layout.size());
        block
    }

    // SAFETY: the caller's promises are those of the trait.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { self.0.alloc_zeroed(widened(layout)) };
        advise(block, layout.size());
        block
    }

    // SAFETY: the caller's promises are those of the trait.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from here, so from the inner allocator with the widened layout.
        unsafe { self.0.dealloc(block, widened(layout)) }
    }

    // SAFETY: the caller's promises are those of the trait.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size() < LARGE_PAGE && size < LARGE_PAGE {
            // SAFETY: neither layout is widened.
            return unsafe { self.0.realloc(block, layout, size) };
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, does not overflow.
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the new layout is of the caller's size and alignment; both blocks are live, apart, and as long as what is
        // copied; the old one is given back once, with its own layout.
        unsafe {
            let new = self.alloc(new_layout);
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// Asks for large pages. Whether there are any is the system's business.
#[allow(unsafe_code)]
fn advise(block: *mut u8, size: usize) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if size >= LARGE_PAGE && !block.is_null() {
        const MADV_HUGEPAGE: i32 = 14;
        // SAFETY: this is the declaration of the C library on Linux.
        unsafe extern "C" {
            fn madvise(address: *mut u8, length: usize, advice: i32) -> i32;
        }
        // SAFETY: the range is whole large pages of the block that was just allocated, at its start, which is aligned; the
        // advice changes no contents. If the system refuses, small pages do.
        unsafe { madvise(block, size / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (block, size);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::alloc::System;
    use std::vec::Vec;

    #[global_allocator]
    static ALLOCATOR: LargePages<System> = LargePages(System);

    #[test]
    fn blocks_keep_their_contents_while_they_grow_and_shrink() {
        let mut bytes: Vec<u8> = Vec::new();
        for step in 1..=40_usize {
            let old = bytes.len();
            bytes.resize(step * 200_000, u8::try_from(step).unwrap());
            assert!(bytes[old..].iter().all(|byte| usize::from(*byte) == step));
        }
        assert_eq!(bytes.as_ptr().addr() % LARGE_PAGE, 0, "a large block begins with a large page");
        for step in (1..=40_usize).rev() {
            bytes.truncate(step * 200_000);
            bytes.shrink_to_fit();
            assert_eq!(
                bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>(),
                step * (step + 1) / 2 * 200_000
            );
        }
        assert!(std::vec![0_u8; 3 << 20].iter().all(|byte| *byte == 0));
    }
}
