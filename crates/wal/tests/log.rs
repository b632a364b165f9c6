//! Behaviour of the open log: blocks, groups, marks, rolling, seals.
#![allow(clippy::unwrap_used, reason = "test code")]

mod world;

use surety_protocol::limits::{BLOCK_RECORDS_MAX, BLOCKS_QUEUED_MAX, SEGMENTS_RESERVE};
use surety_protocol::{Epoch, Seq, Time};
use wal::{Durability, FileName, Kind, Storage};
use world::{FSYNC, GUARDED, OS, Random, World, replay};

#[test]
fn what_was_written_is_read_back() {
    let mut world = World::new(FSYNC);
    assert_eq!(world.log.next_seq(), Seq(1));
    world.block(1);
    world.block(30);
    world.block(31);
    world.block(2046);
    let replay = replay(&mut world.disk).unwrap();
    assert_eq!(replay.last_seq, Seq(1 + 30 + 31 + 2046));
    assert_eq!(replay.recovered.chain(), world.log.chain());
    assert!(replay.recovered.torn().is_none());
    let lengths: Vec<usize> = replay.headers.iter().map(wal::Header::block_bytes).collect();
    assert_eq!(lengths, [4096, 4096, 4096, 4096, 8192, 262_144]);
    assert_eq!(replay.headers[1].epoch, Epoch(2));
}

#[test]
fn one_block_is_in_flight_while_the_next_fills() {
    let mut world = World::new(FSYNC);
    world.append(3);
    let write = world.poll().unwrap();
    world.append(4);
    assert!(world.poll().is_none());
    assert!(world.log.poll_seal(Time(9)).is_none());
    assert_eq!((write.first_seq(), write.last_seq()), (Seq(1), Seq(3)));
    assert_eq!(world.log.acked_seq(), Seq(0));
    assert_eq!(write.bytes().as_ptr().addr() % 4096, 0);
    world.complete(write).unwrap();
    assert_eq!((world.log.acked_seq(), world.log.synced_seq()), (Seq(3), Seq(3)));
    let write = world.poll().unwrap();
    assert_eq!((write.first_seq(), write.last_seq()), (Seq(4), Seq(7)));
    assert_eq!((write.header().durable_upto, write.header().durable_block), (Seq(3), 3));
    world.complete(write).unwrap();
    assert!(world.poll().is_none() && world.log.is_idle());
}

#[test]
fn in_fsync_mode_everything_before_a_block_is_durable() {
    let mut world = World::new(FSYNC);
    let mut random = Random(7);
    for _ in 0..50 {
        world.block(1 + random.below(300) as u64);
    }
    for header in &replay(&mut world.disk).unwrap().headers {
        assert_eq!(header.durable_upto, Seq(header.first_seq.0 - 1));
        assert_eq!(header.durable_block, header.number - 1);
        assert_eq!(header.durability, Durability::Fsync);
    }
}

#[test]
fn in_os_mode_acks_run_ahead_of_syncs() {
    let mut world = World::new(OS);
    world.block(3);
    world.block(4);
    assert_eq!((world.log.acked_seq(), world.log.synced_seq()), (Seq(7), Seq(0)));
    assert!(world.log.poll_seal(Time(9)).is_none(), "a seal says that all before it is synced");
    world.sync();
    assert_eq!((world.log.acked_seq(), world.log.synced_seq()), (Seq(7), Seq(7)));
    world.block(5);
    world.block(6);
    let headers = replay(&mut world.disk).unwrap().headers;
    let upto: Vec<u64> = headers.iter().map(|header| header.durable_upto.0).collect();
    assert_eq!(upto, [0, 0, 0, 0, 7, 7]);
    assert!(headers[1..].iter().all(|header| header.durability == Durability::Os));
}

#[test]
fn a_group_never_spans_two_blocks() {
    let mut random = Random(11);
    for _ in 0..40 {
        let mut world = World::new(FSYNC);
        let mut groups = Vec::new();
        for _ in 0..8 {
            let size = 1 + random.below(BLOCK_RECORDS_MAX) as u64;
            groups.push((world.append_group(size).0, size));
        }
        world.flush();
        let blocks: Vec<_> = replay(&mut world.disk)
            .unwrap()
            .headers
            .iter()
            .map(|h| (h.first_seq.0, h.last_seq().0))
            .collect();
        for (first, size) in groups {
            let holds = |(from, to): &(u64, u64)| *from <= first && first + size - 1 <= *to;
            assert!(blocks.iter().any(holds), "group {first}+{size} in {blocks:?}");
        }
    }
}

#[test]
fn room_says_when_to_stop() {
    let mut world = World::new(FSYNC);
    world.append(1);
    let write = world.poll().unwrap();
    // The worst groups: just over half a block each.
    while world.log.room() >= BLOCK_RECORDS_MAX / 2 {
        world.append_group(BLOCK_RECORDS_MAX as u64 / 2 + 1);
    }
    assert_eq!(world.log.room(), 0);
    assert_eq!(world.log.waiting(), (BLOCKS_QUEUED_MAX + 1) * (BLOCK_RECORDS_MAX / 2 + 1));
    world.complete(write).unwrap();
    world.flush();
    assert!(world.log.room() > 0);
    replay(&mut world.disk).unwrap();
}

#[test]
fn rolling_takes_a_reserve_and_asks_for_another() {
    let mut world = World::new(FSYNC);
    world.reserve().unwrap();
    assert_eq!(world.log.wants_reserve(), None);
    world.block(2000);
    world.append(2000);
    let write = world.poll().unwrap();
    let roll = write.roll().unwrap();
    assert_eq!(roll.from, FileName::Reserve { number: 1 });
    assert_eq!(roll.to, FileName::Segment { first_seq: Seq(2001) });
    assert_eq!((write.file(), write.offset()), (roll.to, 0));
    assert_eq!(world.log.wants_reserve(), Some(FileName::Reserve { number: SEGMENTS_RESERVE as u64 + 1 }));
    world.complete(write).unwrap();
    let spans: Vec<_> =
        world.log.segments().iter().map(|s| (s.first_seq.0, s.last_seq.map(|l| l.0))).collect();
    assert_eq!(spans, [(1, Some(2000)), (2001, None)]);
    let replay = replay(&mut world.disk).unwrap();
    assert_eq!(replay.last_seq, Seq(4000));
    assert_eq!(replay.recovered.segments(), world.log.segments());
    let segments: Vec<u64> = replay.headers.iter().map(|header| header.segment).collect();
    assert_eq!(segments, [1, 1, 1, 2], "segments are numbered as FORMAT.md has it");
}

#[test]
fn without_a_reserve_the_log_waits_instead_of_filling_the_disk() {
    let mut world = World::new(FSYNC);
    for _ in 0..10 {
        world.append(2000);
        while let Some(write) = world.log.poll_write(Time(5)) {
            world.complete(write).unwrap();
        }
    }
    assert!(world.log.waiting() > 0 && world.log.wants_reserve().is_some());
    world.reserve().unwrap();
    world.flush();
    assert_eq!(world.log.synced_seq().0, 20_000);
    replay(&mut world.disk).unwrap();
}

#[test]
fn a_seal_is_written_once() {
    let mut world = World::new(FSYNC);
    world.block(3);
    world.seal();
    assert!(world.log.poll_seal(Time(99)).is_none());
    assert!(world.log.is_sealed());
    world.block(3);
    world.seal();
    let kinds = replay(&mut world.disk).unwrap().kinds();
    assert_eq!(kinds, [Kind::Start, Kind::Start, Kind::Data, Kind::Seal, Kind::Data, Kind::Seal]);
}

#[test]
fn every_start_opens_a_higher_epoch() {
    let mut world = World::new(FSYNC);
    for run in 2..6 {
        assert_eq!(world.log.epoch(), Epoch(run));
        world.block(u64::from(run));
        let options = [GUARDED, OS, FSYNC][run as usize % 3];
        world = World::start(world.disk, options).unwrap();
    }
    let headers = replay(&mut world.disk).unwrap().headers;
    assert_eq!(headers.iter().filter(|header| header.kind == Kind::Start).count(), 6);
}

#[test]
fn a_segment_without_records_grows() {
    let mut world = World::new(FSYNC);
    for _ in 0..80 {
        world = World::start(world.disk, FSYNC).unwrap();
    }
    let name = FileName::Segment { first_seq: Seq(1) };
    assert!(world.disk.len(name).unwrap() > world::SEGMENT_BYTES);
    world.block(1);
    assert_eq!(replay(&mut world.disk).unwrap().last_seq, Seq(1));
    world = World::start(world.disk, FSYNC).unwrap();
    world.block(2000);
    assert_eq!(world.log.segments().len(), 2);
    assert_eq!(replay(&mut world.disk).unwrap().last_seq, Seq(2001));
}

#[test]
fn in_steady_state_buffers_are_used_again() {
    let mut world = World::new(GUARDED);
    world.append(1);
    let write = world.poll().unwrap();
    world.append(1);
    let first = write.bytes().as_ptr();
    world.complete(write).unwrap();
    let mut seen = std::collections::BTreeSet::from([first]);
    for _ in 0..100 {
        let write = world.poll().unwrap();
        seen.insert(write.bytes().as_ptr());
        world.append(1);
        world.complete(write).unwrap();
    }
    assert!(seen.len() <= 3, "{} buffers", seen.len());
}

#[test]
fn old_bytes_of_a_buffer_never_reach_the_disk() {
    let mut world = World::new(FSYNC);
    world.block(100);
    world.block(1);
    let segment = world.disk.bytes(FileName::Segment { first_seq: Seq(1) }).unwrap();
    let end = 4096 * 2 + wal::format::block_bytes(100);
    assert!(segment[end + 256 + 128..].iter().all(|byte| *byte == 0));
}
