//! What is read from the disk at a start: blocks, whole segments, the guard ring, snapshots.

use surety_protocol::limits::{BLOCK_ALIGN, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BLOCK_RECORDS_MAX};
use surety_protocol::{Seq, Time};
use wal::memory::MemoryStorage;
use wal::{
    Anchor, Durability, FileName, GuardEntry, Header, Options, RecordBytes, Recovered, Recovery,
    SnapshotReader, SnapshotWriter, TailReader, verify_snapshot,
};

use crate::disk::{self, IDENTITY};
use crate::made;

/// How the logs of the probes are run.
pub(crate) const OPTIONS: Options =
    Options { durability: Durability::Fsync, is_guarded: false, segment_bytes: BLOCK_BYTES_MAX as u64 };

/// The largest file that a probe makes.
const GIVEN_MAX: usize = 64 * disk::GIVEN_BYTES;

/// A page as a block's header and as an entry of the ring.
pub(crate) fn block(input: &[u8]) {
    let Some((flags, given)) = input.split_first() else { return };
    let mut page = vec![0; BLOCK_ALIGN];
    let length = given.len().min(BLOCK_ALIGN);
    page[..length].copy_from_slice(&given[..length]);
    if flags & 1 != 0 {
        disk::repair_blocks(&mut page, disk::FIRST_CHAIN);
    }
    if let Ok(header) = Header::decode(&page) {
        let mut encoded = [0; BLOCK_HEADER_BYTES];
        header.encode(&mut encoded);
        assert_eq!(encoded[..], page[..BLOCK_HEADER_BYTES]);
        assert!(header.records as usize <= BLOCK_RECORDS_MAX && header.block_bytes() <= BLOCK_BYTES_MAX);
        assert_eq!(header.next_seq().0, header.last_seq().0 + 1);
        let _ = header.block_bytes() == BLOCK_ALIGN && header.body_holds(&page);
    }
    if flags & 2 != 0 {
        disk::repair_ring(&mut page);
    }
    if let Ok(entry) = GuardEntry::decode(&page) {
        let mut encoded = vec![0; BLOCK_ALIGN];
        entry.encode(&mut encoded);
        // The reserved bytes are not read: an entry is believed by its checksum alone.
        assert_eq!(GuardEntry::decode(&encoded), Ok(entry));
        assert!(entry.slot_offset() < 8 * BLOCK_ALIGN as u64);
    }
}

/// Whole segments and a guard ring, recovered, opened and recovered again.
///
/// Input: flags (1 checksums are put right, 2 the log is opened), first seq of a second segment, pages of the first one,
/// pages of the ring, then what is given of all pages.
pub(crate) fn segment(input: &[u8]) {
    let Some((&[flags, second, split, ring], given)) = input.split_first_chunk() else { return };
    let mut bytes = disk::pages(&given[..given.len().min(GIVEN_MAX)]);
    let ring_at = bytes.len() - (usize::from(ring) * BLOCK_ALIGN).min(bytes.len());
    let mut ring = bytes.split_off(ring_at);
    let split = if split == 0 { bytes.len() } else { (usize::from(split) * BLOCK_ALIGN).min(bytes.len()) };
    let mut later = bytes.split_off(split);
    if flags & 1 != 0 {
        let chain = disk::repair_blocks(&mut bytes, disk::FIRST_CHAIN);
        disk::repair_blocks(&mut later, chain);
        disk::repair_ring(&mut ring);
    }
    let mut storage = MemoryStorage::new();
    storage.insert(FileName::Segment { first_seq: Seq(1) }, bytes);
    if !later.is_empty() {
        storage.insert(FileName::Segment { first_seq: Seq(second.into()) }, later);
    }
    if !ring.is_empty() {
        storage.insert(FileName::Guard, ring);
    }
    recover_and_open(storage, flags & 2 != 0);
}

/// The records of a log, and its end.
fn read(storage: &mut MemoryStorage) -> Option<(Vec<RecordBytes>, Recovered)> {
    let mut recovery = Recovery::begin(storage, IDENTITY, Anchor::GENESIS).ok()?;
    let mut records: Vec<RecordBytes> = Vec::new();
    while let Some(block) = recovery.next_block(storage).ok()? {
        assert_eq!(block.header.first_seq.0, records.len() as u64 + 1, "no seq is left out or doubled");
        records.extend(block.records());
    }
    let recovered = recovery.finish(storage).ok()?;
    assert_eq!(recovered.next_seq().0, records.len() as u64 + 1);
    Some((records, recovered))
}

fn recover_and_open(mut storage: MemoryStorage, is_opened: bool) {
    let Some((records, recovered)) = read(&mut storage) else { return };
    let (again, _) = read(&mut storage).expect("recovery changes nothing");
    assert_eq!(records, again, "the same log reads back the same");
    if !is_opened {
        return;
    }
    let epoch = recovered.epoch();
    let log = recovered.open(&mut storage, OPTIONS, Time(u64::MAX / 4));
    let log = log.expect("a disk without faults takes the start block");
    assert_eq!(log.next_seq().0, records.len() as u64 + 1);
    let (opened, recovered) = read(&mut storage).expect("what was opened is sound");
    assert!(opened == records && recovered.epoch() > epoch && recovered.torn().is_none());
    follow(&storage, &records);
}

/// A reader of the change stream sees the same.
fn follow(storage: &MemoryStorage, records: &[RecordBytes]) {
    let mut tail = TailReader::new(IDENTITY, Seq(1));
    let mut followed: Vec<RecordBytes> = Vec::new();
    while let Some(block) = tail.next_block(storage, Seq(records.len() as u64)).expect("a sound log") {
        followed.extend(block.records());
    }
    assert!(followed == records);
}

/// A sound log beside whatever ring: it is refused or read whole, and nothing else.
///
/// Input: flags (1 checksums are put right), then what is given of the ring's pages.
pub(crate) fn guard(input: &[u8]) {
    let Some((flags, given)) = input.split_first() else { return };
    let mut ring = disk::pages(&given[..given.len().min(GIVEN_MAX)]);
    if flags & 1 != 0 {
        disk::repair_ring(&mut ring);
    }
    let (mut storage, records) = made::sound_log();
    storage.insert(FileName::Guard, ring);
    if let Some((found, _)) = read(&mut storage) {
        assert!(found == records, "a ring takes nothing from a log and adds nothing");
    }
}

/// A snapshot: if it holds, its entries make the same snapshot again.
///
/// Input: flags (1 checksums are put right), then the file.
pub(crate) fn snapshot(input: &[u8]) {
    let Some((flags, file)) = input.split_first() else { return };
    let mut file = file.to_vec();
    if flags & 1 != 0 {
        disk::repair_snapshot(&mut file);
    }
    let name = FileName::Snapshot { seq: seq_named(&file) };
    let mut storage = MemoryStorage::new();
    storage.insert(name, file);
    let Ok(summary) = verify_snapshot(&mut storage, name, IDENTITY) else { return };
    let mut reader = SnapshotReader::open(&mut storage, name, IDENTITY).expect("it was verified");
    let mut copy = MemoryStorage::new();
    let mut writer = SnapshotWriter::begin(&mut copy, summary.header).expect("an empty disk");
    while let Some(entry) = reader.next_entry(&storage).expect("it was verified") {
        writer.push(&mut copy, entry.kind, entry.bytes).expect("an empty disk");
    }
    let copied = writer.finish(&mut copy).expect("what was written reads back");
    assert_eq!((copied.header, copied.entries), (summary.header, summary.entries));
}

/// The seq in a snapshot's header, which must be that of its name.
fn seq_named(file: &[u8]) -> Seq {
    let bytes = file.get(40..48).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    Seq(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logs_of_the_seeds_are_sound_and_damage_is_found() {
        let (mut storage, records) = made::sound_log();
        assert_eq!(read(&mut storage).map(|(found, _)| found), Some(records));
        storage.flip(FileName::Segment { first_seq: Seq(1) }, BLOCK_ALIGN + 300, 1);
        assert!(read(&mut storage).is_none());
    }

    #[test]
    fn what_was_changed_and_put_right_is_believed() {
        let (storage, _) = made::sound_log();
        let file = FileName::Segment { first_seq: Seq(1) };
        let mut bytes = storage.bytes(file).unwrap_or_default().to_vec();
        bytes[2 * BLOCK_ALIGN + 300] ^= 1;
        disk::repair_blocks(&mut bytes, disk::FIRST_CHAIN);
        let mut storage = MemoryStorage::new();
        storage.insert(file, bytes);
        assert_eq!(read(&mut storage).map(|(records, _)| records.len()), Some(6));
    }
}
