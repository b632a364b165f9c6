//! One block on its way to the disk, and the order in which its parts must get there.

use surety_protocol::limits::BLOCK_ALIGN;
use surety_protocol::{Seq, limits, sabotage};

use crate::log::Mark;
use crate::{Durability, FileName, Header, PageBuffer, Storage};

/// A reserve that becomes the segment of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// The reserve.
    pub from: FileName,
    /// The name that it gets; the directory is synced after it.
    pub to: FileName,
}

/// A block handed out by [`crate::Log::poll_write`], to be performed and then given back to [`crate::Log::on_written`].
#[derive(Debug)]
pub struct Write {
    pub(crate) header: Header,
    pub(crate) file: FileName,
    pub(crate) roll: Option<Roll>,
    pub(crate) block: PageBuffer,
    pub(crate) guard: Option<GuardWrite>,
}

/// The guard entry of a block.
#[derive(Debug)]
pub(crate) struct GuardWrite {
    pub(crate) offset: u64,
    pub(crate) page: PageBuffer,
}

impl Write {
    /// The rename that must come first, and be durable, before the block is written.
    #[must_use]
    pub const fn roll(&self) -> Option<Roll> {
        self.roll
    }

    /// The segment to write to.
    #[must_use]
    pub const fn file(&self) -> FileName {
        self.file
    }

    /// Where in the segment, a multiple of 4096.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.header.offset
    }

    /// What to write: aligned to 4096 in memory and in length.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.block.as_bytes()[..self.header.block_bytes()]
    }

    /// The guard entry: file, offset and bytes; written and synced after the block was.
    #[must_use]
    pub fn guard(&self) -> Option<(FileName, u64, &[u8])> {
        let guard = self.guard.as_ref()?;
        Some((FileName::Guard, guard.offset, &guard.page.as_bytes()[..BLOCK_ALIGN]))
    }

    /// True if the block must be durable before it counts as written.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.header.durability == Durability::Fsync
    }

    /// Seq of its first record, or of the next record if it is empty.
    #[must_use]
    pub const fn first_seq(&self) -> Seq {
        self.header.first_seq
    }

    /// Seq of the last record up to and including it.
    #[must_use]
    pub const fn last_seq(&self) -> Seq {
        self.header.last_seq()
    }

    /// The mark that is reached once this is written (or, in `os` mode, synced).
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark { seq: self.header.last_seq(), block: self.header.number }
    }

    /// The block's header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Does it all, in order. After an error nothing may be assumed and nothing repeated: the process stops.
    ///
    /// # Errors
    /// The storage's own, from the first call that fails.
    pub fn perform<S: Storage>(&self, storage: &mut S) -> Result<(), S::Error> {
        debug_assert!(self.bytes().len() <= limits::BLOCK_BYTES_MAX);
        if let Some(roll) = self.roll {
            storage.rename(roll.from, roll.to)?;
            if !sabotage!("segment-name-not-synced") {
                storage.sync_directory()?;
            }
        }
        if !self.is_synced() || sabotage!("ack-before-sync") {
            return storage.write_at(self.file, self.offset(), self.bytes());
        }
        storage.write_synced(self.file, self.offset(), self.bytes())?;
        match self.guard() {
            Some((file, offset, bytes)) if sabotage!("guard-not-synced") => {
                storage.write_at(file, offset, bytes)
            }
            Some((file, offset, bytes)) => storage.write_synced(file, offset, bytes),
            None => Ok(()),
        }
    }
}
