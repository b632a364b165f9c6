//! Sound files of a shard, written by the log itself.

use std::sync::OnceLock;

use surety_protocol::limits::{BLOCK_ALIGN, RECORD_BYTES};
use surety_protocol::{Epoch, Seq, Time};
use wal::memory::MemoryStorage;
use wal::{Anchor, FileName, Log, Options, RecordBytes, Recovery, SnapshotHeader, SnapshotWriter, create};

use crate::disk::{self, IDENTITY};
use crate::log::OPTIONS;
use crate::seeds::flagged;

const FIRST: FileName = FileName::Segment { first_seq: Seq(1) };

/// A log that is being written.
struct MadeLog {
    storage: MemoryStorage,
    log: Log,
    records: Vec<RecordBytes>,
    clock: u64,
}

impl MadeLog {
    fn new(options: Options) -> Self {
        let mut storage = MemoryStorage::new();
        create(&mut storage, IDENTITY, options, Time(1)).expect("an empty disk");
        let recovery = Recovery::begin(&mut storage, IDENTITY, Anchor::GENESIS).expect("a fresh log");
        let recovered = recovery.finish(&storage).expect("a fresh log");
        let log = recovered.open(&mut storage, options, Time(2)).expect("a fresh log");
        Self { storage, log, records: Vec::new(), clock: 2 }
    }

    fn of(options: Options, blocks: &[u8]) -> Self {
        let mut made = Self::new(options);
        blocks.iter().for_each(|records| made.block(*records));
        made
    }

    /// Writes one block.
    fn block(&mut self, records: u8) {
        for _ in 0..records {
            let mut record = [0; RECORD_BYTES];
            record[..8].copy_from_slice(&(self.records.len() as u64 + 1).to_le_bytes());
            self.log.append(&record);
            self.records.push(record);
        }
        self.clock += 1;
        let write = self.log.poll_write(Time(self.clock)).expect("records wait");
        write.perform(&mut self.storage).expect("a disk without faults");
        self.log.on_written(write);
    }

    /// What is to be given for the pages of a file.
    fn given(&self, file: FileName) -> Vec<u8> {
        self.storage.bytes(file).and_then(disk::given).expect("blocks small enough to be given")
    }

    /// The same for the ring. The checksum at a page's end is not given: it is put right.
    fn given_ring(&self) -> Vec<u8> {
        let ring = self.storage.bytes(FileName::Guard).unwrap_or_default();
        ring.chunks(BLOCK_ALIGN).flat_map(|page| page[..disk::GIVEN_BYTES].to_vec()).collect()
    }
}

/// A disk with a log of a few small blocks, and its records.
pub(crate) fn sound_log() -> (MemoryStorage, Vec<RecordBytes>) {
    static LOG: OnceLock<(MemoryStorage, Vec<RecordBytes>)> = OnceLock::new();
    let made = || {
        let made = MadeLog::of(OPTIONS, &[1, 2, 3]);
        // Without the part that was never written the segment is quick to search.
        let mut storage = MemoryStorage::new();
        storage.insert(FIRST, disk::pages(&made.given(FIRST)));
        (storage, made.records)
    };
    LOG.get_or_init(made).clone()
}

/// Whole logs: as they are, cut, in two segments, and with a guard ring.
pub(crate) fn segments() -> Vec<Vec<u8>> {
    let plain = MadeLog::of(OPTIONS, &[1, 4, 6]).given(FIRST);
    let guarded = MadeLog::of(Options { is_guarded: true, ..OPTIONS }, &[2, 2]);
    let ring = guarded.given_ring();
    let ring_pages = u8::try_from(ring.len() / disk::GIVEN_BYTES).expect("a ring of eight pages");
    let cut = plain[..plain.len() - 900].to_vec();
    vec![
        [vec![0, 0, 0, 0], plain.clone()].concat(),
        [vec![2, 0, 0, 0], plain.clone()].concat(),
        [vec![3, 0, 0, 0], cut].concat(),
        [vec![3, 6, 4, 0], plain].concat(),
        [vec![3, 0, 0, ring_pages], guarded.given(FIRST), ring].concat(),
    ]
}

/// Single pages: blocks of each kind, and an entry of the ring.
pub(crate) fn blocks() -> Vec<Vec<u8>> {
    let mut made = MadeLog::of(Options { is_guarded: true, ..OPTIONS }, &[1, 4]);
    let seal = made.log.poll_seal(Time(9)).expect("the last block is not sealed");
    let pages = [made.given(FIRST), seal.bytes().to_vec()].concat();
    let both = |page: &[u8]| [flagged(0, page.to_vec()), flagged(1, page.to_vec())];
    let mut seeds: Vec<Vec<u8>> = pages.chunks(disk::GIVEN_BYTES).flat_map(both).collect();
    let ring = made.storage.bytes(FileName::Guard).unwrap_or_default();
    let entries = ring.chunks(BLOCK_ALIGN).filter(|page| page.iter().any(|byte| *byte != 0));
    seeds.extend(entries.flat_map(|page| [flagged(0, page.to_vec()), flagged(2, page.to_vec())]));
    seeds
}

/// Guard rings of the log that the probe lays beside them.
pub(crate) fn rings() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for blocks in [&[1, 2, 3][..], &[1, 2], &[1, 2, 3, 4], &[6]] {
        seeds.push(flagged(1, MadeLog::of(Options { is_guarded: true, ..OPTIONS }, blocks).given_ring()));
    }
    seeds
}

/// Snapshots of a few entries.
pub(crate) fn snapshots() -> Vec<Vec<u8>> {
    [(0, 3), (1, 3), (1, 40)].map(|(flags, entries)| flagged(flags, snapshot(entries))).to_vec()
}

fn snapshot(entries: u8) -> Vec<u8> {
    let mut storage = MemoryStorage::new();
    let header = SnapshotHeader {
        version: 1,
        identity: IDENTITY,
        epoch: Epoch(2),
        seq: Seq(77),
        time: Time(9),
        chain: [5; 32],
        state_hash: 12_345,
    };
    let mut writer = SnapshotWriter::begin(&mut storage, header).expect("an empty disk");
    for entry in 0..entries {
        let bytes = vec![entry; usize::from(entry) * 3];
        writer.push(&mut storage, entry % 8, &bytes).expect("an empty disk");
    }
    writer.finish(&mut storage).expect("an empty disk");
    storage.bytes(FileName::Snapshot { seq: Seq(77) }).unwrap_or_default().to_vec()
}
