//! Following a log while it is written.
#![allow(clippy::unwrap_used, reason = "test code")]

mod world;

use surety_protocol::Seq;
use wal::{Anchor, FileName, RecoverError, Recovery, TailError, TailReader};
use world::{FSYNC, IDENTITY, OS, World, record};

/// Reads all that is synced; returns the seqs of the blocks that were handed out.
fn follow(reader: &mut TailReader, world: &World) -> Vec<(u64, u64)> {
    let mut blocks = Vec::new();
    while let Some(block) = reader.next_block(&world.disk, world.log.synced_seq()).unwrap() {
        for item in block.records_from(Seq(1)) {
            assert_eq!(*item.bytes, record(item.seq.0));
        }
        blocks.push((block.header.first_seq.0, block.header.last_seq().0));
    }
    blocks
}

#[test]
fn a_reader_follows_across_segments_seals_and_starts() {
    let mut world = World::new(FSYNC);
    let mut reader = TailReader::new(IDENTITY, Seq(1));
    assert_eq!(follow(&mut reader, &world), []);
    world.block(3);
    assert_eq!(follow(&mut reader, &world), [(1, 3)]);
    world.seal();
    assert_eq!(follow(&mut reader, &world), []);
    world.block(2000);
    world.block(2000);
    assert_eq!(follow(&mut reader, &world), [(4, 2003), (2004, 4003)]);
    world = World::start(world.disk, FSYNC).unwrap();
    assert_eq!(follow(&mut reader, &world), []);
    world.block(5);
    assert_eq!(follow(&mut reader, &world), [(4004, 4008)]);
    assert_eq!(reader.next_seq(), Seq(4009));
}

#[test]
fn a_reader_begins_with_the_block_that_holds_its_seq() {
    let mut world = World::new(FSYNC);
    for _ in 0..20 {
        world.block(300);
    }
    for from in [1, 2, 300, 301, 2000, 5700, 5701, 6000] {
        let mut reader = TailReader::new(IDENTITY, Seq(from));
        let first = (from - 1) / 300 * 300 + 1;
        assert_eq!(follow(&mut reader, &world)[0], (first, first + 299), "{from}");
    }
    assert_eq!(follow(&mut TailReader::new(IDENTITY, Seq(6001)), &world), []);
}

#[test]
fn a_reader_never_passes_the_synced_mark() {
    let mut world = World::new(OS);
    let mut reader = TailReader::new(IDENTITY, Seq(1));
    world.block(10);
    world.block(10);
    assert_eq!(follow(&mut reader, &world), []);
    world.sync();
    world.block(10);
    assert_eq!(follow(&mut reader, &world), [(1, 10), (11, 20)]);
    // Nor does it look at what is half written behind it.
    let file = FileName::Segment { first_seq: Seq(1) };
    world.disk.bytes_mut(file)[16_384 + 300] ^= 1;
    assert_eq!(follow(&mut reader, &world), []);
    world.sync();
    let error = reader.next_block(&world.disk, world.log.synced_seq()).unwrap_err();
    assert!(matches!(error, TailError::Rot { seq: Seq(21), offset: 16_384, .. }), "{error}");
}

#[test]
fn a_reader_that_comes_too_late_is_told_so() {
    let mut world = World::new(FSYNC);
    for _ in 0..3 {
        world.block(2000);
    }
    world.disk.lose(FileName::Segment { first_seq: Seq(1) });
    world.log.on_segments_removed(Seq(2001));
    assert_eq!(world.log.segments().len(), 2);
    let mut reader = TailReader::new(IDENTITY, Seq(2000));
    let error = reader.next_block(&world.disk, world.log.synced_seq()).unwrap_err();
    assert!(matches!(error, TailError::Removed { wanted: Seq(2000), oldest: Seq(2001) }), "{error}");
    assert_eq!(follow(&mut TailReader::new(IDENTITY, Seq(2001)), &world).len(), 2);
}

#[test]
fn what_retention_has_left_is_read_from_its_beginning() {
    let mut world = World::new(FSYNC);
    for _ in 0..3 {
        world.block(2000);
    }
    world.sync();
    world.disk.lose(FileName::Segment { first_seq: Seq(1) });
    let from = Anchor { seq: Seq(2000), ..Anchor::GENESIS };
    assert!(matches!(Recovery::begin(&mut world.disk, IDENTITY, from), Err(RecoverError::Missing { .. })));
    let mut recovery = Recovery::begin_with_oldest(&mut world.disk, IDENTITY).unwrap();
    let mut seqs = Vec::new();
    while let Some(block) = recovery.next_block(&world.disk).unwrap() {
        seqs.extend(block.records_from(Seq(1)).map(|record| record.seq.0));
    }
    assert!(seqs.into_iter().eq(2001..=6000));
    // Damage is still found.
    world.disk.bytes_mut(FileName::Segment { first_seq: Seq(2001) })[300] ^= 1;
    let mut recovery = Recovery::begin_with_oldest(&mut world.disk, IDENTITY).unwrap();
    assert!(matches!(recovery.next_block(&world.disk), Err(RecoverError::Rot { .. })));
}

#[test]
fn a_reader_that_is_overtaken_by_removal_is_told_so() {
    let mut world = World::new(FSYNC);
    world.block(2000);
    let mut reader = TailReader::new(IDENTITY, Seq(1));
    assert_eq!(follow(&mut reader, &world), [(1, 2000)]);
    for _ in 0..3 {
        world.block(2000);
    }
    // The reader stands at the end of a segment, and the next one is gone: that is no rot.
    for first_seq in [1, 2001] {
        world.disk.lose(FileName::Segment { first_seq: Seq(first_seq) });
    }
    let error = reader.next_block(&world.disk, world.log.synced_seq()).unwrap_err();
    assert!(matches!(error, TailError::Removed { wanted: Seq(2001), oldest: Seq(4001) }), "{error}");
}
