//! Where reading begins: the first block behind an anchor, the ring beside the log, the oldest segment.
#![allow(clippy::unwrap_used, reason = "test code")]

mod world;

use surety_protocol::{EngineId, Seq, ShardId};
use wal::memory::MemoryStorage;
use wal::{Anchor, FileName, GuardEntry, Identity, RecoverError, Recovery, Rot, TailError, TailReader};
use world::{FSYNC, GUARDED, IDENTITY, Options, Refusal, World, replay, replay_from, rewrite_header};

const SECOND: FileName = FileName::Segment { first_seq: Seq(2001) };

/// A log of three segments with 2,000 records each.
fn three_segments() -> World {
    let mut world = World::new(FSYNC);
    for _ in 0..3 {
        world.block(2000);
    }
    world
}

/// What reading from the second segment on comes to, after a change there.
fn refusal_of(change: impl Fn(&mut MemoryStorage)) -> Refusal {
    let mut world = three_segments();
    let anchor = Anchor { seq: Seq(2000), chain: world.chains[&2000] };
    assert_eq!(replay_from(&mut world.disk, anchor).unwrap().last_seq, Seq(6000));
    change(&mut world.disk);
    replay_from(&mut world.disk, Anchor { seq: Seq(2500), ..anchor }).unwrap_err()
}

#[test]
fn the_first_block_behind_an_anchor_must_be_ours_and_known() {
    let newer = refusal_of(|disk| rewrite_header(disk, SECOND, 0, |bytes| bytes[8] = 3));
    assert!(matches!(newer, RecoverError::Newer { file: SECOND, offset: 0, version: 3 }), "{newer}");
    let engine = refusal_of(|disk| rewrite_header(disk, SECOND, 0, |bytes| bytes[16] ^= 1));
    let expect = EngineId(IDENTITY.engine.0 ^ 1);
    assert!(
        matches!(engine, RecoverError::ForeignEngine { file: SECOND, found, .. } if found == expect),
        "{engine}"
    );
    let shard = refusal_of(|disk| rewrite_header(disk, SECOND, 0, |bytes| bytes[12] ^= 1));
    assert!(matches!(shard, RecoverError::WrongShard { file: SECOND, found: ShardId(2), .. }), "{shard}");
}

#[test]
fn a_segment_behind_an_anchor_without_a_whole_page_is_refused() {
    for length in [0, 1, 4095] {
        let short = refusal_of(|disk| {
            let bytes = disk.bytes(SECOND).unwrap()[..length].to_vec();
            disk.insert(SECOND, bytes);
        });
        assert!(matches!(short, RecoverError::Rot { file: SECOND, reason: Rot::FirstBlock, .. }), "{short}");
    }
}

#[test]
fn the_end_of_a_log_stays_its_end() {
    let mut world = World::new(FSYNC);
    world.block(5);
    let mut recovery = Recovery::begin(&mut world.disk, IDENTITY, Anchor::GENESIS).unwrap();
    while recovery.next_block(&world.disk).unwrap().is_some() {}
    assert!(recovery.next_block(&world.disk).unwrap().is_none());
    assert_eq!(recovery.finish(&world.disk).unwrap().next_seq(), Seq(6));
}

#[test]
fn a_reserve_whose_making_was_cut_short_is_removed() {
    let mut world = World::new(FSYNC);
    let (whole, short) = (FileName::Reserve { number: 8 }, FileName::Reserve { number: 9 });
    world.disk.insert(whole, vec![0; 256 * 1024]);
    world.disk.insert(short, vec![0; 255 * 1024]);
    let world = World::start(world.disk, FSYNC).unwrap();
    assert!(world.disk.bytes(whole).is_some() && world.disk.bytes(short).is_none());
    // Numbers are not used twice, so that a name which comes back is no other file.
    assert_eq!(world.log.wants_reserve(), Some(FileName::Reserve { number: 10 }));
}

#[test]
#[should_panic(expected = "a segment holds the largest block")]
fn a_segment_shorter_than_a_block_is_a_mistake_of_the_caller() {
    World::new(Options { segment_bytes: 128 * 1024, ..FSYNC });
}

#[test]
#[should_panic(expected = "a segment holds the largest block")]
fn a_segment_that_ends_within_a_page_is_a_mistake_of_the_caller() {
    World::new(Options { segment_bytes: 256 * 1024 + 512, ..FSYNC });
}

#[test]
fn a_log_without_segments_has_no_oldest_record() {
    let mut disk = MemoryStorage::new();
    let refusal = Recovery::begin_with_oldest(&mut disk, IDENTITY).unwrap_err();
    assert!(matches!(refusal, RecoverError::Missing { needed: Seq(1) }), "{refusal}");
    let error = TailReader::new(IDENTITY, Seq(1)).next_block(&disk, Seq(1)).unwrap_err();
    assert!(matches!(error, TailError::Removed { wanted: Seq(1), oldest: Seq(0) }), "{error}");
}

#[test]
fn a_ring_of_a_newer_program_or_of_another_log_is_refused() {
    let mut world = World::new(GUARDED);
    world.block(1);
    let slot = 3 * 4096;
    let sound = world.disk.bytes(FileName::Guard).unwrap()[slot..slot + 4096].to_vec();
    let entry = GuardEntry::decode(&sound).unwrap();
    let refusal_with = |page: &[u8]| {
        let mut disk = world.disk.clone();
        disk.bytes_mut(FileName::Guard)[slot..slot + 4096].copy_from_slice(page);
        replay(&mut disk)
    };
    let mut page = sound.clone();
    page[8] = 2;
    let crc = crc32c::crc32c(&page[..4092]);
    page[4092..].copy_from_slice(&crc.to_le_bytes());
    let newer = refusal_with(&page).unwrap_err();
    assert!(matches!(newer, RecoverError::Newer { file: FileName::Guard, version: 2, .. }), "{newer}");
    // No program ever wrote this version: it is taken for a torn slot, which proves nothing.
    page[8] = 0;
    let crc = crc32c::crc32c(&page[..4092]);
    page[4092..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(refusal_with(&page).unwrap().last_seq, Seq(1));

    let identity = Identity { shard: ShardId(9), ..IDENTITY };
    GuardEntry { identity, ..entry }.encode(&mut page);
    let foreign = refusal_with(&page).unwrap_err();
    assert!(
        matches!(foreign, RecoverError::WrongShard { file: FileName::Guard, offset: 12_288, .. }),
        "{foreign}"
    );
}

#[test]
fn a_reader_that_begins_with_a_damaged_or_foreign_segment_is_told_of_rot() {
    for at in [0, 12, 16, 100] {
        let mut world = three_segments();
        // Damage at 0 and 100; a sound header of another shard and of another engine at 12 and 16.
        match at {
            12 | 16 => rewrite_header(&mut world.disk, SECOND, 0, |bytes| bytes[at] ^= 1),
            _ => world.disk.flip(SECOND, at, 1),
        }
        let mut reader = TailReader::new(IDENTITY, Seq(2500));
        let error = reader.next_block(&world.disk, world.log.synced_seq()).unwrap_err();
        assert!(matches!(error, TailError::Rot { file: SECOND, offset: 0, seq: Seq(2001) }), "{at}: {error}");
    }
}

#[test]
fn a_reader_waits_for_the_whole_block_and_is_told_if_the_first_does_not_hold() {
    let mut world = World::new(FSYNC);
    world.block(10);
    let mut reader = TailReader::new(IDENTITY, Seq(1));
    assert!(reader.next_block(&world.disk, Seq(9)).unwrap().is_none());
    assert_eq!(reader.next_block(&world.disk, Seq(10)).unwrap().unwrap().header.last_seq(), Seq(10));
    world.disk.flip(FileName::Segment { first_seq: Seq(1) }, 40, 1);
    let error = TailReader::new(IDENTITY, Seq(1)).next_block(&world.disk, Seq(10)).unwrap_err();
    assert!(matches!(error, TailError::Rot { offset: 0, seq: Seq(1), .. }), "{error}");
}

#[test]
fn a_reader_that_comes_upon_a_foreign_or_missing_block_is_told_of_rot() {
    let mut world = three_segments();
    let mut reader = TailReader::new(IDENTITY, Seq(1));
    assert_eq!(reader.next_block(&world.disk, Seq(2000)).unwrap().unwrap().header.last_seq(), Seq(2000));
    // The next block stands in the next segment, and that one is of another engine.
    rewrite_header(&mut world.disk, SECOND, 0, |bytes| bytes[16] ^= 1);
    let error = reader.next_block(&world.disk, world.log.synced_seq()).unwrap_err();
    assert!(matches!(error, TailError::Rot { seq: Seq(2001), .. }), "{error}");
    // Gone with all that came after it: the synced mark says that it was there.
    for first_seq in [2001, 4001] {
        world.disk.lose(FileName::Segment { first_seq: Seq(first_seq) });
    }
    let error = reader.next_block(&world.disk, world.log.synced_seq()).unwrap_err();
    assert!(matches!(error, TailError::Rot { seq: Seq(2001), .. }), "{error}");
}
