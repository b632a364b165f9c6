//! Closed logs as they are on the disk: their last block, their records.

use std::path::Path;

use anyhow::Result;
use storage::{DataDirectory, FileStorage};
use surety_protocol::{Record, Seq, ShardId};
use wal::Recovery;

/// The first seq of the last block of a shard's log: what a failed write or sync was about.
pub(crate) fn last_block(data: &Path, shard: ShardId) -> Result<Seq> {
    let mut last = Seq(1);
    each_block(data, shard, |block| last = block.header.first_seq)?;
    Ok(last)
}

/// Every record of a shard's log.
pub(crate) fn records(data: &Path, shard: ShardId) -> Result<Vec<(Seq, Record)>> {
    let mut records = Vec::new();
    each_block(data, shard, |block| {
        let of_block = block.records_from(block.header.first_seq);
        records.extend(of_block.map(|record| (record.seq, Record::from_bytes(record.bytes))));
    })?;
    Ok(records)
}

fn each_block(data: &Path, shard: ShardId, mut take: impl FnMut(&wal::Block<'_>)) -> Result<()> {
    let directory = DataDirectory::open(data)?;
    let mut storage = FileStorage::open_read_only(&directory.shard_path(shard))?;
    let mut log = Recovery::begin_with_oldest(&mut storage, directory.identity(shard))?;
    while let Some(block) = log.next_block(&storage)? {
        take(&block);
    }
    Ok(())
}

/// The highest seq of a shard that a file of acknowledgements speaks of as new.
pub(crate) fn last_acknowledged(acks: &Path, shard: ShardId) -> Result<Seq> {
    let replies = loadtest::read_acks(acks)?;
    let of_shard = replies.iter().filter(|reply| reply.shard == shard);
    Ok(of_shard.map(|reply| reply.seq).max().unwrap_or_default())
}
