//! The open log of a running shard: records go in, blocks come out, one in flight at a time.
//!
//! Group commit without a timer: while one block is being written, the next one fills. The log holds no file; it hands
//! out [`Write`]s and is told when they are done.

use alloc::{collections::VecDeque, vec::Vec};

use surety_protocol::limits::{
    BLOCK_HEADER_BYTES, BLOCK_RECORDS_MAX, BLOCKS_QUEUED_MAX, RECORD_BYTES, SEGMENTS_RESERVE,
};
use surety_protocol::{Epoch, Seq, Time, sabotage};

use crate::block::Place;
use crate::format::{self, Header, Kind};
use crate::write::GuardWrite;
use crate::{
    ChainHash, Durability, FileName, GuardEntry, Identity, PageBuffer, RecordBytes, Roll, SegmentSpan, Write,
};

/// A point of the log: everything up to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The last seq up to and including the block; 0 if there is none.
    pub seq: Seq,
    /// The block's number.
    pub block: u64,
}

/// The state of an open log.
#[derive(Debug)]
pub struct Log {
    pub(crate) identity: Identity,
    pub(crate) durability: Durability,
    pub(crate) is_guarded: bool,
    pub(crate) segment_bytes: u64,
    /// Where the next submitted block goes.
    pub(crate) place: Place,
    /// Bytes of the segment that `place` is in.
    pub(crate) place_bytes: u64,
    pub(crate) is_sealed: bool,
    pub(crate) next_seq: Seq,
    pub(crate) open: OpenBlock,
    pub(crate) full: VecDeque<OpenBlock>,
    pub(crate) in_flight: Option<Mark>,
    pub(crate) acked: Mark,
    pub(crate) synced: Mark,
    pub(crate) segments: Vec<Seq>,
    pub(crate) reserves: VecDeque<u64>,
    pub(crate) reserve_next: u64,
    pub(crate) spare_blocks: Vec<PageBuffer>,
    pub(crate) spare_page: Option<PageBuffer>,
}

/// A block that fills.
#[derive(Debug)]
pub(crate) struct OpenBlock {
    buffer: PageBuffer,
    records: usize,
}

impl Log {
    /// Appends a record and gives it its seq.
    ///
    /// The caller sees to it that there is [`Log::room`]; without, the queue grows past its limit.
    pub fn append(&mut self, record: &RecordBytes) -> Seq {
        self.append_group(core::slice::from_ref(record))
    }

    /// Appends records that stay together in one block; returns the seq of the first.
    ///
    /// # Panics
    /// If they are more than a block holds, or none.
    pub fn append_group(&mut self, records: &[RecordBytes]) -> Seq {
        assert!(
            (1..=BLOCK_RECORDS_MAX).contains(&records.len()),
            "a group is 1 to {BLOCK_RECORDS_MAX} records"
        );
        if self.open.room() < records.len() {
            let fresh = self.fresh_block();
            self.full.push_back(core::mem::replace(&mut self.open, fresh));
        }
        self.open.push(records);
        let first = self.next_seq;
        self.next_seq.0 += records.len() as u64;
        first
    }

    /// Records that may be appended before the queue of full blocks is at its limit, in groups of at most half a block.
    #[must_use]
    pub fn room(&self) -> usize {
        let queue = BLOCKS_QUEUED_MAX.saturating_sub(self.full.len());
        // Closing a block for a group may leave up to half of it unused.
        queue * (BLOCK_RECORDS_MAX / 2)
    }

    /// Records appended and not yet handed out.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.open.records + self.full.iter().map(|block| block.records).sum::<usize>()
    }

    /// The next block, if there are records, none is in flight, and there is a segment to hold it.
    pub fn poll_write(&mut self, now: Time) -> Option<Write> {
        let records = self.full.front().unwrap_or(&self.open).records;
        if records == 0 || self.in_flight.is_some() {
            return None;
        }
        let roll = self.make_way(format::block_bytes(records))?;
        let block = self.take_block();
        Some(self.submit(Kind::Data, block, roll, now))
    }

    /// A seal block, proof of the block before it: when idle, and at shutdown.
    ///
    /// None while there is something else to write, in flight or, in `os` mode, not yet synced: a seal says that all before it is
    /// on the disk. None too if a seal is already the last block.
    pub fn poll_seal(&mut self, now: Time) -> Option<Write> {
        if self.is_sealed || !self.is_idle() || !self.is_synced() {
            return None;
        }
        let roll = self.make_way(format::block_bytes(0))?;
        let block = self.fresh_block();
        Some(self.submit(Kind::Seal, block, roll, now))
    }

    /// Takes back a [`Write`] that was performed; in `fsync` mode what it held is then synced, too.
    ///
    /// # Panics
    /// If it is not the block in flight.
    pub fn on_written(&mut self, write: Write) {
        let mark = write.mark();
        assert_eq!(self.in_flight.take(), Some(mark), "only the block in flight can complete");
        self.acked = mark;
        if write.is_synced() || sabotage!("synced-when-only-written") {
            self.synced = mark;
        }
        self.recycle(write);
    }

    /// A sync completed (`os` mode): everything up to `mark` is on the disk.
    ///
    /// # Panics
    /// If `mark` was not written yet.
    pub fn on_synced(&mut self, mark: Mark) {
        assert!(mark <= self.acked, "what was not written cannot be synced");
        self.synced = self.synced.max(mark);
    }

    /// Replies may go up to here, by durability mode.
    #[must_use]
    pub const fn acked_seq(&self) -> Seq {
        self.acked.seq
    }

    /// A completed sync covers the log up to here.
    #[must_use]
    pub const fn synced_seq(&self) -> Seq {
        self.synced.seq
    }

    /// The block up to which replies may go.
    #[must_use]
    pub const fn acked(&self) -> Mark {
        self.acked
    }

    /// The block up to which a completed sync covers the log.
    #[must_use]
    pub const fn synced(&self) -> Mark {
        self.synced
    }

    /// Seq of the next record.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// This run's epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.place.epoch
    }

    /// Whose log it is.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// This run's durability mode.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        self.durability
    }

    /// Chain hash over all blocks handed out so far.
    #[must_use]
    pub const fn chain(&self) -> ChainHash {
        self.place.chain
    }

    /// The mark of the last block handed out.
    #[must_use]
    pub const fn submitted(&self) -> Mark {
        Mark { seq: Seq(self.place.seq.0 - 1), block: self.place.number - 1 }
    }

    /// True if nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.waiting() == 0
    }

    /// True if every record that was written is synced.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.seq == self.acked.seq
    }

    /// True if the last block handed out is a seal.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// True if everything that waits has a place, so many records behind it too, and a seal behind these: without waiting for a
    /// reserve that may never come. What is taken in beyond that could be neither written nor answered.
    #[must_use]
    pub fn has_place_for(&self, records: usize) -> bool {
        if self.reserves.len() >= SEGMENTS_RESERVE || !self.place.can_roll() {
            return true;
        }
        let mut left = self.place_bytes.saturating_sub(self.place.offset);
        let mut reserves = self.reserves.len();
        let more = records / 2;
        let waiting = self.full.iter().map(|block| block.records);
        for records in waiting.chain([self.open.records, more, records - more, 0]) {
            let bytes = format::block_bytes(records) as u64;
            if bytes > left {
                if reserves == 0 {
                    return false;
                }
                reserves -= 1;
                left = self.segment_bytes;
            }
            left = left.saturating_sub(bytes);
        }
        true
    }

    /// The reserve to create next, if there are too few; then tell [`Log::reserve_created`].
    #[must_use]
    pub fn wants_reserve(&self) -> Option<FileName> {
        (self.reserves.len() < SEGMENTS_RESERVE).then_some(FileName::Reserve { number: self.reserve_next })
    }

    /// Bytes that a reserve must have.
    #[must_use]
    pub const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// A reserve was created, and its name is durable.
    ///
    /// # Panics
    /// If it is not the one that was wanted.
    pub fn reserve_created(&mut self, name: FileName) {
        assert_eq!(self.wants_reserve(), Some(name), "only the wanted reserve is made");
        self.reserves.push_back(self.reserve_next);
        self.reserve_next += 1;
    }

    /// The segments of the log, oldest first; the last one is being written.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentSpan> {
        SegmentSpan::from_names(&self.segments)
    }

    /// Segments were removed by retention: all that end before `first_kept`.
    pub fn on_segments_removed(&mut self, first_kept: Seq) {
        let place = self.place.file;
        self.segments.retain(|first| *first >= first_kept || *first == place);
    }

    /// Makes sure that the next block has a place. None if it needs a new segment and no reserve is there.
    fn make_way(&mut self, bytes: usize) -> Option<Option<Roll>> {
        let fits = self.place.offset + bytes as u64 <= self.place_bytes;
        // A segment without a record cannot be followed, since the next would have its name: it grows.
        if fits || !self.place.can_roll() {
            return Some(None);
        }
        let number = self.reserves.pop_front()?;
        self.place = self.place.rolled();
        self.place_bytes = self.segment_bytes;
        self.segments.push(self.place.file);
        Some(Some(Roll { from: FileName::Reserve { number }, to: self.place.file_name() }))
    }

    fn submit(&mut self, kind: Kind, mut block: OpenBlock, roll: Option<Roll>, now: Time) -> Write {
        debug_assert!(self.in_flight.is_none(), "one block in flight");
        let header = self.header(kind, &mut block, now);
        header.encode(block.buffer.as_mut_bytes());
        let chain = format::chain_after(&block.buffer.as_bytes()[..header.used_bytes()]);
        let file = self.place.file_name();
        self.place = self.place.after(&header, chain);
        self.place_bytes = self.place_bytes.max(self.place.offset);
        self.is_sealed = kind == Kind::Seal;
        self.in_flight = Some(self.submitted());
        let guard = self.guard(&header, chain);
        Write { header, file, roll, block: block.buffer, guard }
    }

    fn header(&self, kind: Kind, block: &mut OpenBlock, now: Time) -> Header {
        Header {
            version: self.place.version,
            kind,
            durability: self.durability,
            identity: self.identity,
            epoch: if kind == Kind::Start && !sabotage!("epoch-not-raised") {
                Epoch(self.place.epoch.0 + 1)
            } else {
                self.place.epoch
            },
            records: block.count(),
            segment: self.place.segment,
            offset: self.place.offset,
            number: self.place.number,
            first_seq: self.place.seq,
            time: now,
            durable_upto: if sabotage!("durable-mark-too-high") { self.place.seq } else { self.synced.seq },
            durable_block: self.synced.block,
            chain: self.place.chain,
            body_crc: block.close(),
        }
    }

    fn guard(&mut self, header: &Header, chain: ChainHash) -> Option<GuardWrite> {
        if !self.is_guarded || self.durability == Durability::Os {
            return None;
        }
        let entry = GuardEntry {
            identity: self.identity,
            epoch: header.epoch,
            number: header.number,
            last_seq: header.last_seq(),
            segment: header.segment,
            offset: header.offset,
            chain,
        };
        let mut page = self.spare_page.take().unwrap_or_else(|| PageBuffer::with_pages(1));
        entry.encode(page.as_mut_bytes());
        Some(GuardWrite { offset: entry.slot_offset(), page })
    }

    /// The block that opens this run's epoch.
    pub(crate) fn start_block(&mut self, roll: Option<Roll>, now: Time) -> Write {
        let block = self.fresh_block();
        self.submit(Kind::Start, block, roll, now)
    }

    /// Makes way for the start block as for any other.
    pub(crate) fn make_way_for_start(&mut self) -> Option<Option<Roll>> {
        self.make_way(format::block_bytes(0))
    }

    fn take_block(&mut self) -> OpenBlock {
        match self.full.pop_front() {
            Some(block) => block,
            None => {
                let fresh = self.fresh_block();
                core::mem::replace(&mut self.open, fresh)
            }
        }
    }

    fn fresh_block(&mut self) -> OpenBlock {
        OpenBlock::new(self.spare_blocks.pop().unwrap_or_else(PageBuffer::for_block))
    }

    fn recycle(&mut self, write: Write) {
        // Bounded by the queue: more buffers than that are never out.
        if self.spare_blocks.len() < BLOCKS_QUEUED_MAX {
            self.spare_blocks.push(write.block);
        }
        if let Some(guard) = write.guard {
            self.spare_page = Some(guard.page);
        }
    }
}

impl OpenBlock {
    pub(crate) fn new(buffer: PageBuffer) -> Self {
        Self { buffer, records: 0 }
    }

    fn room(&self) -> usize {
        BLOCK_RECORDS_MAX - self.records
    }

    fn push(&mut self, records: &[RecordBytes]) {
        let from = BLOCK_HEADER_BYTES + self.records * RECORD_BYTES;
        let bytes = records.as_flattened();
        self.buffer.as_mut_bytes()[from..from + bytes.len()].copy_from_slice(bytes);
        self.records += records.len();
    }

    fn count(&self) -> u32 {
        u32::try_from(self.records).expect("a block holds few records")
    }

    /// Zeroes the padding (buffers are used again and again) and returns the checksum of the body.
    fn close(&mut self) -> u32 {
        let used = format::used_bytes(self.records);
        let length = format::block_bytes(self.records);
        let bytes = self.buffer.as_mut_bytes();
        bytes[used..length].fill(0);
        crc32c::crc32c(&bytes[BLOCK_HEADER_BYTES..length])
    }
}
