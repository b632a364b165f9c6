//! The snapshot container: whole or not at all.
#![allow(clippy::unwrap_used, reason = "test code")]

mod world;

use surety_protocol::{EngineId, Epoch, Seq, ShardId, Time};
use wal::memory::{Fault, MemoryError, MemoryStorage};
use wal::{
    FileName, Identity, SnapshotError, SnapshotHeader, SnapshotPart, SnapshotReader, SnapshotSummary,
    SnapshotWriter, Storage, list_snapshots, sound_snapshots, verify_snapshot,
};
use world::{FSYNC, IDENTITY, Random, World};

const HEADER: SnapshotHeader = SnapshotHeader {
    version: 1,
    identity: IDENTITY,
    epoch: Epoch(4),
    seq: Seq(700),
    time: Time(99),
    chain: [5; 32],
    state_hash: 0xfeed_beef,
};
const NAME: FileName = FileName::Snapshot { seq: Seq(700) };

fn entry(index: usize, length: usize) -> (u8, Vec<u8>) {
    let byte = |at: usize| (index * 31 + at * 7).to_le_bytes()[0];
    (index.to_le_bytes()[0], (0..length).map(byte).collect())
}

fn write(disk: &mut MemoryStorage, lengths: &[usize]) -> Result<SnapshotSummary, SnapshotError<MemoryError>> {
    let mut writer = SnapshotWriter::begin(disk, HEADER)?;
    for (index, &length) in lengths.iter().enumerate() {
        let (kind, bytes) = entry(index, length);
        writer.push(disk, kind, &bytes)?;
    }
    writer.finish(disk)
}

fn check_contents(disk: &mut MemoryStorage, lengths: &[usize]) -> SnapshotSummary {
    let mut reader = SnapshotReader::open(disk, NAME, IDENTITY).unwrap();
    assert_eq!(*reader.header(), HEADER);
    for (index, &length) in lengths.iter().enumerate() {
        let found = reader.next_entry(disk).unwrap().unwrap();
        let (kind, bytes) = entry(index, length);
        assert_eq!((found.kind, found.bytes), (kind, &bytes[..]));
    }
    assert!(reader.next_entry(disk).unwrap().is_none());
    assert!(reader.next_entry(disk).unwrap().is_none());
    *reader.summary().unwrap()
}

#[test]
fn entries_are_read_as_they_were_written() {
    let mut random = Random(1);
    let many: Vec<usize> = (0..5000).map(|_| random.below(300)).collect();
    for lengths in [&[][..], &[0], &[65_535; 9], &[1, 65_535, 0, 65_535, 65_535, 65_535, 7], &many] {
        let mut disk = MemoryStorage::new();
        let summary = write(&mut disk, lengths).unwrap();
        assert_eq!((summary.entries, summary.bytes), (lengths.len() as u64, disk.len(NAME).unwrap()));
        assert_eq!(check_contents(&mut disk, lengths), summary);
        assert_eq!(disk.list().unwrap(), [NAME]);
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let mut disk = MemoryStorage::new();
    write(&mut disk, &[100, 0, 7, 3000, 90]).unwrap();
    let length = disk.bytes(NAME).unwrap().len();
    for offset in 0..length {
        for mask in [1, 0x80] {
            disk.flip(NAME, offset, mask);
            assert!(verify_snapshot(&mut disk, NAME, IDENTITY).is_err(), "{offset}");
            disk.flip(NAME, offset, mask);
        }
    }
    let bytes = disk.bytes(NAME).unwrap().to_vec();
    for length in 0..length {
        disk.insert(NAME, bytes[..length].to_vec());
        let error = verify_snapshot(&mut disk, NAME, IDENTITY).unwrap_err();
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{length}: {error}");
    }
}

/// What is wrong although every checksum holds: a program wrote it so, or somebody did.
#[test]
fn what_makes_no_sense_under_sound_checksums_is_refused() {
    let mut disk = MemoryStorage::new();
    write(&mut disk, &[100, 0, 7]).unwrap();
    let seal = |bytes: &mut [u8]| {
        let at = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..at]);
        bytes[at..].copy_from_slice(&crc.to_le_bytes());
    };
    let check = |change: &dyn Fn(&mut [u8]), expect: SnapshotPart| {
        let mut disk = disk.clone();
        change(disk.bytes_mut(NAME));
        let error = verify_snapshot(&mut disk, NAME, IDENTITY).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Damaged { part, .. } if part == expect),
            "{expect:?}: {error}"
        );
    };
    let block = |bytes: &mut [u8], at: usize, value: u8| {
        bytes[256 + at] = value;
        seal(&mut bytes[256..280]);
    };
    check(&|bytes| block(bytes, 4, 2), SnapshotPart::Block(1));
    for entries in [0, 2, 4] {
        check(&|bytes| block(bytes, 8, entries), SnapshotPart::Block(1));
    }
    // Longer than what is left of the file, and than any block.
    check(&|bytes| block(bytes, 13, 1), SnapshotPart::Block(1));
    check(&|bytes| block(bytes, 15, 1), SnapshotPart::Block(1));
    let header = |bytes: &mut [u8]| {
        bytes[60] = 1;
        seal(&mut bytes[..256]);
    };
    check(&header, SnapshotPart::Header);
    let entry = |bytes: &mut [u8]| {
        bytes[290] ^= 1;
        let length = usize::from(bytes[268]);
        let crc = crc32c::crc32c(&bytes[280..280 + length]);
        bytes[272..276].copy_from_slice(&crc.to_le_bytes());
        seal(&mut bytes[256..280]);
    };
    check(&entry, SnapshotPart::Hash);
}

#[test]
fn a_snapshot_of_another_engine_or_program_is_refused() {
    let mut disk = MemoryStorage::new();
    write(&mut disk, &[1]).unwrap();
    for identity in [Identity { engine: EngineId(1), ..IDENTITY }, Identity { shard: ShardId(1), ..IDENTITY }]
    {
        let error = verify_snapshot(&mut disk, NAME, identity).unwrap_err();
        assert!(matches!(error, SnapshotError::Foreign { found: IDENTITY, .. }), "{error}");
    }
    let bytes = disk.bytes_mut(NAME);
    bytes[8] = 3;
    let crc = crc32c::crc32c(&bytes[..252]);
    bytes[252..256].copy_from_slice(&crc.to_le_bytes());
    let error = verify_snapshot(&mut disk, NAME, IDENTITY).unwrap_err();
    assert!(matches!(error, SnapshotError::Newer { version: 3, .. }), "{error}");
    // Under another name it would stand for another seq.
    write(&mut disk, &[1]).unwrap();
    let bytes = disk.bytes(NAME).unwrap().to_vec();
    let other = FileName::Snapshot { seq: Seq(800) };
    disk.insert(other, bytes);
    let error = verify_snapshot(&mut disk, other, IDENTITY).unwrap_err();
    assert!(matches!(error, SnapshotError::Damaged { part: SnapshotPart::Header, .. }), "{error}");
}

#[test]
fn a_cut_at_any_call_leaves_a_whole_snapshot_or_none() {
    let lengths = [60_000; 12];
    for call in 1.. {
        let mut world = World::new(FSYNC);
        world.block(3);
        world.disk.fail_nth(call, Fault::PowerOff);
        let written = write(&mut world.disk, &lengths);
        for seed in 0..6 {
            let mut random = Random(seed);
            let mut disk = world.disk.crash(&mut |n| match seed {
                0 => 0,
                1 => n - 1,
                _ => random.below(n),
            });
            match list_snapshots(&disk).unwrap()[..] {
                [] => assert!(written.is_err()),
                [seq] => assert_eq!(check_contents(&mut disk, &lengths).header.seq, seq),
                _ => panic!("one snapshot was written"),
            }
            // Opening the log removes what is left of it.
            let disk = World::start(disk, FSYNC).unwrap().disk;
            assert!(!disk.list().unwrap().contains(&FileName::SnapshotTemp { seq: Seq(700) }));
        }
        if written.is_ok() {
            break;
        }
    }
}

#[test]
fn what_does_not_read_back_gets_no_name() {
    for call in 1.. {
        let mut disk = MemoryStorage::new();
        disk.fail_nth(call, Fault::Io);
        if write(&mut disk, &[60_000; 12]).is_ok() {
            assert!(call > 5);
            break;
        }
        let mut disk = disk.crash_keeping_all();
        if list_snapshots(&disk).unwrap().is_empty() {
            continue;
        }
        check_contents(&mut disk, &[60_000; 12]);
    }
}

#[test]
fn a_full_disk_costs_the_snapshot_only() {
    let mut world = World::new(FSYNC);
    world.reserve().unwrap();
    let used: u64 = world.disk.list().unwrap().iter().map(|name| world.disk.len(*name).unwrap()).sum();
    world.disk.set_capacity(Some(used + 100_000));
    let mut writer = SnapshotWriter::begin(&mut world.disk, HEADER).unwrap();
    let failed = (0..10).find_map(|_| writer.push(&mut world.disk, 1, &[1; 60_000]).err());
    assert!(matches!(failed, Some(SnapshotError::Io(MemoryError::NoSpace))));
    writer.abandon(&mut world.disk).unwrap();
    world.block(3);
    assert!(list_snapshots(&world.disk).unwrap().is_empty());
}

#[test]
fn only_snapshots_that_hold_count_for_retention() {
    let check = |rotten: &[u64], expect: &[u64]| {
        let mut disk = MemoryStorage::new();
        for seq in [100, 200, 300, 400] {
            let header = SnapshotHeader { seq: Seq(seq), ..HEADER };
            SnapshotWriter::begin(&mut disk, header).unwrap().finish(&mut disk).unwrap();
        }
        for &seq in rotten {
            disk.flip(FileName::Snapshot { seq: Seq(seq) }, 20, 1);
        }
        let expect: Vec<Seq> = expect.iter().copied().map(Seq).collect();
        assert_eq!(sound_snapshots(&mut disk, IDENTITY).unwrap(), expect, "{rotten:?}");
    };
    check(&[], &[400, 300, 200, 100]);
    check(&[400], &[300, 200, 100]);
    check(&[300], &[400, 200, 100]);
    check(&[400, 300], &[200, 100]);
    check(&[400, 300, 200], &[100]);
    check(&[400, 300, 200, 100], &[]);
    // Two newer ones hold: whatever is older may go.
    check(&[200, 100], &[400, 300, 200, 100]);
}
