//! The last block of a closed log: what a failed write or sync was about.

use std::path::Path;

use anyhow::Result;
use storage::{DataDirectory, FileStorage};
use surety_protocol::{Seq, ShardId};
use wal::{Anchor, Recovery};

/// The first seq of the last block of a shard's log.
pub(crate) fn last_block(data: &Path, shard: ShardId) -> Result<Seq> {
    let directory = DataDirectory::open(data)?;
    let mut storage = FileStorage::open_read_only(&directory.shard_path(shard))?;
    let oldest = wal::list_segments(&storage)?.first().map_or(Seq(1), |span| span.first_seq);
    let anchor = Anchor { seq: Seq(oldest.0.saturating_sub(1)), ..Anchor::GENESIS };
    let mut log = Recovery::begin(&mut storage, directory.identity(shard), anchor)?;
    let mut last = oldest;
    while let Some(block) = log.next_block(&storage)? {
        last = block.header.first_seq;
    }
    Ok(last)
}

/// The highest seq of a shard that a file of acknowledgements speaks of as new.
pub(crate) fn last_acknowledged(acks: &Path, shard: ShardId) -> Result<Seq> {
    let replies = loadtest::read_acks(acks)?;
    let of_shard = replies.iter().filter(|reply| reply.shard == shard);
    Ok(of_shard.map(|reply| reply.seq).max().unwrap_or_default())
}
