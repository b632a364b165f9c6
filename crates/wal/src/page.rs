//! Buffers aligned to 4096 bytes, as direct I/O wants them.

use alloc::vec::Vec;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use surety_protocol::limits::{BLOCK_ALIGN, BLOCK_BYTES_MAX};

/// One aligned page.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
pub struct Page([u8; BLOCK_ALIGN]);

/// A run of aligned pages of a length chosen once.
#[derive(Clone)]
pub struct PageBuffer {
    pages: Vec<Page>,
}

impl PageBuffer {
    /// A zeroed buffer with room for the largest block.
    #[must_use]
    pub fn for_block() -> Self {
        Self::with_pages(BLOCK_BYTES_MAX / BLOCK_ALIGN)
    }

    /// A zeroed buffer of so many pages.
    #[must_use]
    pub fn with_pages(pages: usize) -> Self {
        let mut buffer = Vec::with_capacity(pages);
        buffer.resize_with(pages, Page::new_zeroed);
        Self { pages: buffer }
    }

    /// All bytes of the buffer.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.pages.as_bytes()
    }

    /// All bytes of the buffer, to be written.
    #[must_use]
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.pages.as_mut_bytes()
    }
}

impl core::fmt::Debug for PageBuffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PageBuffer({} pages)", self.pages.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_on_a_page() {
        for pages in [1, 2, 64] {
            let buffer = PageBuffer::with_pages(pages);
            assert_eq!(buffer.as_bytes().as_ptr().addr() % BLOCK_ALIGN, 0);
            assert_eq!(buffer.as_bytes().len(), pages * BLOCK_ALIGN);
        }
    }
}
