//! Durability rules of one shard: the format of its log, group commit, the recovery scan, snapshots and retention.
//!
//! Pure: it reads no clock and opens no file. Files are reached through [`Storage`], which `storage` implements on a
//! directory and [`memory::MemoryStorage`] on a disk that tests can crash, tear and rot. `FORMAT.md` is the binding
//! description of every byte.
//!
//! ```text
//! create -> Recovery::begin -> next_block ... finish -> Recovered::open -> Log
//! Log: append -> poll_write -> (Write::perform) -> on_written -> acked, synced
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod block;
pub mod format;
mod guard;
mod log;
pub mod memory;
mod open;
mod page;
mod recovery;
mod retention;
mod snapshot;
mod storage;
mod tail;
mod verdict;
mod write;

pub use block::{Block, BlockRecord};
pub use format::{Durability, Header, HeaderFault, Kind};
pub use guard::GuardEntry;
pub use log::{Log, Mark};
pub use open::{CreateError, OpenError, Options, create, create_reserve};
pub use page::{Page, PageBuffer};
pub use recovery::{Anchor, RecoverError, Recovered, Recovery, Rot};
pub use retention::{Removal, SegmentSpan, list_segments, list_snapshots, removable, sound_snapshots};
pub use snapshot::{
    Entry, SnapshotError, SnapshotHeader, SnapshotPart, SnapshotReader, SnapshotSummary, SnapshotWriter,
    verify_snapshot,
};
pub use storage::{FileName, Storage};
pub use tail::{TailError, TailReader};
pub use verdict::TornTail;
pub use write::{Roll, Write};

use surety_protocol::{EngineId, ShardId};

/// A record: opaque to the log.
pub type RecordBytes = [u8; surety_protocol::limits::RECORD_BYTES];

/// A chain hash: BLAKE3 over all used bytes of the log up to a point.
pub type ChainHash = [u8; 32];

/// Whose log it is. A file of another engine or shard is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The data directory's engine id.
    pub engine: EngineId,
    /// The shard within it.
    pub shard: ShardId,
}
