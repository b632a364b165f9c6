//! Making a new log, and opening one that was recovered. Here, and only here, recovery writes.

use alloc::{collections::VecDeque, vec::Vec};

use surety_protocol::limits::{BLOCK_BYTES_MAX, SEGMENT_BYTES};
use surety_protocol::{Epoch, Seq, Time, sabotage};

use crate::block::Place;
use crate::format::{PAGE_BYTES, VERSION};
use crate::guard::RING_BYTES;
use crate::log::OpenBlock;
use crate::{Durability, FileName, Identity, Log, Mark, PageBuffer, Recovered, Storage};

/// How a log is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What stands behind an ack.
    pub durability: Durability,
    /// True to write a guard entry for each block, in `fsync` mode.
    pub is_guarded: bool,
    /// Bytes of a new segment, a multiple of 4096; at least one largest block.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { durability: Durability::Fsync, is_guarded: false, segment_bytes: SEGMENT_BYTES }
    }
}

/// Why a log could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError<E> {
    /// The disk failed.
    #[error("creating the log failed; remove the directory and create it again")]
    Io(#[from] E),
    /// There is a log already.
    #[error("there is a log already, its first segment is {0}; choose an empty directory")]
    Exists(FileName),
}

/// Creates the reserve that [`Log::wants_reserve`] asks for, name and all; any thread may do it. Then tell
/// [`Log::reserve_created`].
///
/// # Errors
/// The storage's own; want of space is no harm, only new locks are declined until it succeeds.
pub fn create_reserve<S: Storage>(storage: &mut S, name: FileName, bytes: u64) -> Result<(), S::Error> {
    storage.create(name, bytes)?;
    // Rolling would do it as well, but there it would delay a block.
    storage.sync_directory()
}

/// Why a recovered log could not be opened. It can be recovered again, with the same result.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    /// The disk failed.
    #[error("preparing the log failed; check the disk and its free space, then start again")]
    Io(#[from] E),
    /// The log cannot go on with this epoch. Nothing was changed.
    #[error("a log whose last epoch is {last} cannot go on with epoch {epoch}")]
    Epoch {
        /// The last epoch of the log.
        last: Epoch,
        /// The one that was asked for.
        epoch: Epoch,
    },
}

/// Makes the log of a new shard: a first segment with a start block of epoch 1.
///
/// The segment gets its name last, so that there is either a whole log or none.
///
/// # Errors
/// [`CreateError::Exists`] if there is one; nothing is changed then.
pub fn create<S: Storage>(
    storage: &mut S,
    identity: Identity,
    options: Options,
    now: Time,
) -> Result<(), CreateError<S::Error>> {
    let is_log = |name: &FileName| matches!(name, FileName::Segment { .. } | FileName::Guard);
    if let Some(name) = storage.list()?.into_iter().find(is_log) {
        return Err(CreateError::Exists(name));
    }
    let temp = FileName::Reserve { number: 0 };
    storage.create(temp, options.segment_bytes)?;
    let mut log = new_log(identity, options, Place::GENESIS, options.segment_bytes, Vec::new());
    let write = log.start_block(None, now);
    storage.write_at(temp, 0, write.bytes())?;
    storage.sync(temp)?;
    storage.rename(temp, write.file())?;
    if !sabotage!("new-log-not-synced") {
        storage.sync_directory()?;
    }
    Ok(())
}

impl Recovered {
    /// Drops the torn tail, and opens a new epoch with a start block that is synced.
    ///
    /// If this fails or the process dies meanwhile, recovery comes to the same result again.
    ///
    /// # Errors
    /// The storage's own.
    pub fn open<S: Storage>(
        self,
        storage: &mut S,
        options: Options,
        now: Time,
    ) -> Result<Log, OpenError<S::Error>> {
        self.drop_later_segments(storage)?;
        self.zero_tail(storage)?;
        self.remove_temps(storage)?;
        let reserves = self.keep_reserves(storage, options.segment_bytes)?;
        if options.is_guarded && !self.names.contains(&FileName::Guard) {
            storage.create(FileName::Guard, RING_BYTES)?;
        }
        // Before anything new is written: a name that came back would hold stale blocks.
        storage.sync_directory()?;

        let segments = self.segments().iter().map(|span| span.first_seq).collect();
        let mut log = new_log(self.identity, options, self.place, self.place_bytes, segments);
        log.reserve_next = self.reserve_next();
        log.reserves = reserves;
        write_start_block(&mut log, storage, now)?;
        Ok(log)
    }

    /// The same where the log goes on from an older copy of itself: with an epoch of the caller's, since the later ones are taken,
    /// and in the format that tells of it.
    ///
    /// # Errors
    /// The storage's own, and [`OpenError::Epoch`].
    pub fn open_after_loss<S: Storage>(
        mut self,
        storage: &mut S,
        options: Options,
        now: Time,
        epoch: Epoch,
    ) -> Result<Log, OpenError<S::Error>> {
        let last = self.place.epoch;
        // The start block raises it by one.
        self.place.epoch = Epoch(epoch.0.saturating_sub(1));
        self.place.version = VERSION;
        if epoch <= last || !self.place.takes_a_start() {
            return Err(OpenError::Epoch { last, epoch });
        }
        self.open(storage, options, now)
    }

    fn drop_later_segments<S: Storage>(&self, storage: &mut S) -> Result<(), S::Error> {
        let mut newest_first = self.tail.later.iter().rev();
        newest_first.try_for_each(|&first_seq| storage.remove(FileName::Segment { first_seq }))
    }

    fn zero_tail<S: Storage>(&self, storage: &mut S) -> Result<(), S::Error> {
        if self.tail.dirty_end == self.place.offset || sabotage!("torn-tail-left-in-place") {
            return Ok(());
        }
        let file = self.place.file_name();
        let zeros = PageBuffer::for_block();
        let end = self.tail.dirty_end.next_multiple_of(PAGE_BYTES);
        let mut offset = self.place.offset;
        while offset < end {
            let length =
                usize::try_from(end - offset).map_or(BLOCK_BYTES_MAX, |left| left.min(BLOCK_BYTES_MAX));
            storage.write_at(file, offset, &zeros.as_bytes()[..length])?;
            offset += length as u64;
        }
        storage.sync(file)
    }

    fn remove_temps<S: Storage>(&self, storage: &mut S) -> Result<(), S::Error> {
        let is_temp = |name: &&FileName| matches!(name, FileName::SnapshotTemp { .. });
        self.names.iter().filter(is_temp).try_for_each(|name| storage.remove(*name))
    }

    /// Keeps reserves of the right length; one whose making was cut short goes.
    fn keep_reserves<S: Storage>(&self, storage: &mut S, bytes: u64) -> Result<VecDeque<u64>, S::Error> {
        let mut kept = Vec::new();
        for number in self.reserve_numbers() {
            let name = FileName::Reserve { number };
            if storage.len(name)? == bytes {
                kept.push(number);
            } else {
                storage.remove(name)?;
            }
        }
        kept.sort_unstable();
        Ok(kept.into())
    }

    fn reserve_numbers(&self) -> impl Iterator<Item = u64> {
        self.names.iter().filter_map(|name| match name {
            FileName::Reserve { number } => Some(*number),
            _ => None,
        })
    }

    fn reserve_next(&self) -> u64 {
        self.reserve_numbers().max().map_or(1, |highest| highest + 1)
    }
}

fn write_start_block<S: Storage>(log: &mut Log, storage: &mut S, now: Time) -> Result<(), S::Error> {
    if sabotage!("start-block-skipped") {
        return Ok(());
    }
    let roll = match log.make_way_for_start() {
        Some(roll) => roll,
        None => {
            make_reserve(log, storage)?;
            log.make_way_for_start().expect("a reserve was just made")
        }
    };
    let write = log.start_block(roll, now);
    write.perform(storage)?;
    let mark = write.mark();
    if !write.is_synced() {
        storage.sync(write.file())?;
    }
    log.on_written(write);
    log.on_synced(mark);
    Ok(())
}

fn make_reserve<S: Storage>(log: &mut Log, storage: &mut S) -> Result<(), S::Error> {
    let name = log.wants_reserve().expect("there is none");
    create_reserve(storage, name, log.segment_bytes())?;
    log.reserve_created(name);
    Ok(())
}

fn new_log(identity: Identity, options: Options, place: Place, place_bytes: u64, segments: Vec<Seq>) -> Log {
    assert!(
        options.segment_bytes >= BLOCK_BYTES_MAX as u64 && options.segment_bytes.is_multiple_of(PAGE_BYTES),
        "a segment holds the largest block, in whole pages"
    );
    let reached = Mark { seq: Seq(place.seq.0 - 1), block: place.number - 1 };
    Log {
        identity,
        durability: options.durability,
        is_guarded: options.is_guarded,
        segment_bytes: options.segment_bytes,
        next_seq: place.seq,
        place,
        // Whole pages only: a segment may have been cut short.
        place_bytes: place_bytes / PAGE_BYTES * PAGE_BYTES,
        is_sealed: false,
        open: OpenBlock::new(PageBuffer::for_block()),
        full: VecDeque::new(),
        in_flight: None,
        acked: reached,
        synced: reached,
        segments,
        reserves: VecDeque::new(),
        reserve_next: 1,
        spare_blocks: Vec::new(),
        spare_page: None,
    }
}
