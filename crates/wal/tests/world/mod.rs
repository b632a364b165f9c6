//! A shard's disk and log, driven by hand: what the tests of this crate share.
#![allow(dead_code, clippy::unwrap_used, reason = "test code, of which each file uses a part")]

use std::collections::BTreeMap;

use surety_protocol::{EngineId, Epoch, Seq, ShardId, Time};
pub(crate) use wal::Options;
use wal::memory::{MemoryError, MemoryStorage};
use wal::{
    Anchor, ChainHash, CreateError, Durability, FileName, Header, Identity, Kind, Log, OpenError,
    RecordBytes, RecoverError, Recovered, Recovery, Write, create,
};

pub(crate) const IDENTITY: Identity =
    Identity { engine: EngineId(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f), shard: ShardId(3) };
/// Small enough to be crossed often, large enough for the largest block.
pub(crate) const SEGMENT_BYTES: u64 = 256 * 1024;
pub(crate) const FSYNC: Options =
    Options { durability: Durability::Fsync, is_guarded: false, segment_bytes: SEGMENT_BYTES };
pub(crate) const GUARDED: Options = Options { is_guarded: true, ..FSYNC };
pub(crate) const OS: Options = Options { durability: Durability::Os, ..FSYNC };

pub(crate) type Refusal = RecoverError<MemoryError>;

/// A record that tells its seq.
pub(crate) fn record(seq: u64) -> RecordBytes {
    let mut record = [0; 128];
    let words = record.as_chunks_mut::<8>().0;
    for (word, salt) in words.iter_mut().zip(0u64..) {
        *word = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt << 17).to_le_bytes();
    }
    words[0] = seq.to_le_bytes();
    record
}

/// What reading a log back gave.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) recovered: Recovered,
    pub(crate) headers: Vec<Header>,
    pub(crate) last_seq: Seq,
}

impl Replay {
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.headers.iter().map(|header| header.kind).collect()
    }
}

/// Reads a log from an anchor on and checks that each record is the one that was written under its seq.
pub(crate) fn replay_from(disk: &mut MemoryStorage, anchor: Anchor) -> Result<Replay, Refusal> {
    let mut recovery = Recovery::begin(disk, IDENTITY, anchor)?;
    let mut headers = Vec::new();
    let mut last_seq = anchor.seq;
    while let Some(block) = recovery.next_block(disk)? {
        for item in block.records_from(Seq(last_seq.0 + 1)) {
            assert_eq!(item.seq, last_seq.next(), "seqs follow each other");
            assert_eq!(*item.bytes, record(item.seq.0), "seq {}", item.seq);
            last_seq = item.seq;
        }
        headers.push(block.header);
    }
    let recovered = recovery.finish(disk)?;
    assert_eq!(recovered.next_seq(), last_seq.next());
    Ok(Replay { recovered, headers, last_seq })
}

pub(crate) fn replay(disk: &mut MemoryStorage) -> Result<Replay, Refusal> {
    replay_from(disk, Anchor::GENESIS)
}

/// A running shard.
pub(crate) struct World {
    pub(crate) disk: MemoryStorage,
    pub(crate) log: Log,
    pub(crate) clock: u64,
    /// Chain hash after each block, by last seq.
    pub(crate) chains: BTreeMap<u64, ChainHash>,
}

pub(crate) fn try_create(disk: &mut MemoryStorage) -> Result<(), CreateError<MemoryError>> {
    create(disk, IDENTITY, FSYNC, Time(1))
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let mut disk = MemoryStorage::new();
        try_create(&mut disk).unwrap();
        Self::start(disk, options).unwrap()
    }

    pub(crate) fn start(disk: MemoryStorage, options: Options) -> Result<Self, Refusal> {
        let mut disk = disk;
        let recovered = replay(&mut disk)?.recovered;
        let clock = recovered.time().0 + 1;
        let log = match recovered.open(&mut disk, options, Time(clock)) {
            Ok(log) => log,
            Err(OpenError::Io(error)) => return Err(RecoverError::Io(error)),
            Err(error @ OpenError::Epoch { .. }) => panic!("{error}"),
        };
        Ok(Self { disk, log, clock, chains: BTreeMap::new() })
    }

    /// Goes on after a loss.
    pub(crate) fn start_after_loss(mut disk: MemoryStorage, options: Options, epoch: Epoch) -> Self {
        let recovered = replay(&mut disk).unwrap().recovered;
        let clock = recovered.time().0 + 1;
        let log = recovered.open_after_loss(&mut disk, options, Time(clock), epoch).unwrap();
        Self { disk, log, clock, chains: BTreeMap::new() }
    }

    /// Appends so many records, each alone.
    pub(crate) fn append(&mut self, records: u64) {
        for _ in 0..records {
            let seq = self.log.next_seq();
            assert_eq!(self.log.append(&record(seq.0)), seq);
        }
    }

    /// Appends one group.
    pub(crate) fn append_group(&mut self, records: u64) -> Seq {
        let first = self.log.next_seq().0;
        let group: Vec<RecordBytes> = (first..first + records).map(record).collect();
        self.log.append_group(&group)
    }

    pub(crate) fn poll(&mut self) -> Option<Write> {
        self.clock += 1;
        self.reserve().unwrap();
        let write = self.log.poll_write(Time(self.clock))?;
        self.chains.insert(write.last_seq().0, self.log.chain());
        Some(write)
    }

    /// Makes the reserves that are wanted, as the background does.
    pub(crate) fn reserve(&mut self) -> Result<(), MemoryError> {
        use wal::Storage;
        while let Some(name) = self.log.wants_reserve() {
            self.disk.create(name, self.log.segment_bytes())?;
            self.disk.sync_directory()?;
            self.log.reserve_created(name);
        }
        Ok(())
    }

    /// Writes all that waits.
    pub(crate) fn flush(&mut self) {
        while let Some(write) = self.poll() {
            self.complete(write).unwrap();
        }
    }

    pub(crate) fn complete(&mut self, write: Write) -> Result<(), MemoryError> {
        write.perform(&mut self.disk)?;
        self.log.on_written(write);
        Ok(())
    }

    /// One block of so many records, written.
    pub(crate) fn block(&mut self, records: u64) {
        self.append(records);
        let write = self.poll().unwrap();
        self.complete(write).unwrap();
    }

    pub(crate) fn seal(&mut self) {
        self.clock += 1;
        self.reserve().unwrap();
        let seal = self.log.poll_seal(Time(self.clock)).unwrap();
        self.complete(seal).unwrap();
    }

    /// Syncs all segments and tells the log, as the background does in `os` mode.
    pub(crate) fn sync(&mut self) {
        use wal::Storage;
        let mark = self.log.acked();
        for span in self.log.segments() {
            self.disk.sync(span.file()).unwrap();
        }
        self.log.on_synced(mark);
    }
}

/// Changes a header and makes its checksum hold again.
pub(crate) fn rewrite_header(
    disk: &mut MemoryStorage,
    file: FileName,
    offset: usize,
    change: impl Fn(&mut [u8]),
) {
    let header = &mut disk.bytes_mut(file)[offset..offset + 256];
    change(header);
    let crc = crc32c::crc32c(&header[..252]);
    header[252..].copy_from_slice(&crc.to_le_bytes());
}

/// A small, seeded source of numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^= value >> 31;
        usize::try_from(value % bound as u64).unwrap()
    }
}
