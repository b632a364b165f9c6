//! Damage below the durable mark is always found, and never mistaken for a torn tail.
#![allow(clippy::unwrap_used, reason = "test code")]

mod world;

use surety_protocol::{EngineId, Epoch, Seq, ShardId, Time};
use wal::memory::MemoryStorage;
use wal::{
    Anchor, Block, CreateError, FileName, GuardEntry, Header, Identity, Kind, RecoverError, Recovery, Rot,
    Storage,
};
use world::{
    FSYNC, GUARDED, IDENTITY, OS, Options, Random, Refusal, Replay, World, replay, replay_from,
    rewrite_header,
};

const FIRST: FileName = FileName::Segment { first_seq: Seq(1) };

/// A log of two epochs and a good 64 KiB in one segment; nothing follows the last block.
fn log_of_many_blocks(options: Options) -> World {
    let mut world = World::new(options);
    for records in [1, 30, 31, 62, 5, 100, 1] {
        world.block(records);
    }
    world = World::start(world.disk, options).unwrap();
    for records in [120, 64, 2, 33] {
        world.block(records);
    }
    world
}

/// Where the last block of the log begins, and where the log ends.
fn last_block(disk: &mut MemoryStorage) -> (usize, usize) {
    let last = *replay(disk).unwrap().recovered.last_block();
    let begin = usize::try_from(last.offset).unwrap();
    (begin, begin + last.block_bytes())
}

/// Flips each byte in a range, and checks what recovery makes of it.
fn sweep(
    disk: &MemoryStorage,
    range: std::ops::Range<usize>,
    check: impl Fn(usize, Result<Replay, Refusal>) + Sync,
) {
    let middle = range.start.midpoint(range.end);
    let half = |range: std::ops::Range<usize>| {
        let mut disk = disk.clone();
        for offset in range {
            let mask = 1 << (offset % 8);
            disk.flip(FIRST, offset, mask);
            check(offset, replay(&mut disk));
            disk.flip(FIRST, offset, mask);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| half(range.start..middle));
        half(middle..range.end);
    });
}

fn is_refused(result: &Result<Replay, Refusal>) -> bool {
    matches!(result, Err(RecoverError::Rot { .. }))
}

#[test]
fn every_flipped_byte_below_the_last_block_is_refused_and_located() {
    let mut world = log_of_many_blocks(FSYNC);
    let (last, _) = last_block(&mut world.disk);
    assert!(last >= 64 * 1024, "{last}");
    let ends: Vec<u64> = replay(&mut world.disk).unwrap().headers.iter().map(|h| h.offset).collect();
    sweep(&world.disk, 0..last, |offset, result| {
        let Err(RecoverError::Rot { file, offset: found, .. }) = result else {
            panic!("{offset}: {result:?}")
        };
        let begin = ends.iter().rev().find(|begin| **begin <= offset as u64).unwrap();
        assert_eq!((file, found), (FIRST, *begin), "{offset}");
    });
}

#[test]
fn a_flip_in_an_unproven_last_block_loses_that_block_alone() {
    let mut world = log_of_many_blocks(FSYNC);
    let (begin, end) = last_block(&mut world.disk);
    sweep(&world.disk, begin..end, |offset, result| {
        let replay = result.unwrap_or_else(|error| panic!("{offset}: {error:?}"));
        assert_eq!(replay.last_seq, Seq(449 - 33), "{offset}");
        assert_eq!(replay.recovered.torn().unwrap().first_seq, Seq(417));
    });
}

#[test]
fn a_guard_entry_proves_the_last_block() {
    let mut world = log_of_many_blocks(GUARDED);
    let (begin, end) = last_block(&mut world.disk);
    sweep(&world.disk, begin..end, |offset, result| assert!(is_refused(&result), "{offset}: {result:?}"));
    // Even a lost one, or a whole lost log.
    for from in [begin, 4096] {
        let mut disk = world.disk.clone();
        disk.bytes_mut(FIRST)[from..].fill(0);
        let refusal = replay(&mut disk).unwrap_err();
        assert!(matches!(refusal, RecoverError::Rot { reason: Rot::Guard { .. }, .. }), "{refusal}");
    }
}

#[test]
fn a_guard_entry_is_durable_before_the_ack() {
    let mut world = World::new(GUARDED);
    world.block(1);
    world.block(20);
    let mut disk = world.disk.crash_losing_all();
    let (begin, end) = last_block(&mut disk);
    disk.bytes_mut(FIRST)[begin..end].fill(0);
    assert!(is_refused(&replay(&mut disk)));
}

#[test]
fn a_seal_proves_the_last_block() {
    let mut world = log_of_many_blocks(FSYNC);
    let (begin, end) = last_block(&mut world.disk);
    world.seal();
    sweep(&world.disk, begin..end, |offset, result| assert!(is_refused(&result), "{offset}: {result:?}"));
    // The seal itself holds nothing to lose.
    sweep(&world.disk, end..end + 4096, |_, result| assert_eq!(result.unwrap().last_seq, Seq(449)));
}

#[test]
fn bytes_behind_the_window_of_one_block_are_rot() {
    let mut world = World::new(Options { segment_bytes: 1 << 20, ..FSYNC });
    world.block(1);
    // The first segment is too short for this one; the second has 1 MiB.
    world.block(2046);
    let segment = FileName::Segment { first_seq: Seq(2) };
    let end = 256 * 1024;
    for offset in [end, end + 4096, 2 * end - 1] {
        let mut disk = world.disk.clone();
        disk.flip(segment, offset, 1);
        assert_eq!(replay(&mut disk).unwrap().recovered.torn().unwrap().first_seq, Seq(2048));
    }
    for offset in [2 * end, 3 * end, 4 * end - 1] {
        let mut disk = world.disk.clone();
        disk.flip(segment, offset, 1);
        let refusal = replay(&mut disk).unwrap_err();
        assert!(matches!(refusal, RecoverError::Rot { reason: Rot::BeyondWindow { .. }, .. }), "{refusal}");
    }
}

#[test]
fn lost_swapped_doubled_and_recycled_blocks_are_refused() {
    let mut world = log_of_many_blocks(FSYNC);
    let headers = replay(&mut world.disk).unwrap().headers;
    let blocks: Vec<std::ops::Range<usize>> = headers
        .iter()
        .map(|header| {
            let begin = usize::try_from(header.offset).unwrap();
            begin..begin + header.block_bytes()
        })
        .collect();
    let (_, proven) = blocks.split_last().unwrap();
    let check = |what: &str, change: &dyn Fn(&mut [u8])| {
        let mut disk = world.disk.clone();
        change(disk.bytes_mut(FIRST));
        let result = replay(&mut disk);
        assert!(is_refused(&result), "{what}: {result:?}");
    };
    for (index, range) in proven.iter().enumerate() {
        check(&format!("block {index} lost"), &|bytes| bytes[range.clone()].fill(0));
        for (other, source) in blocks.iter().enumerate().filter(|(other, _)| *other != index) {
            let length = range.len().min(source.len());
            check(&format!("{other} over {index}"), &|bytes| {
                bytes.copy_within(source.start..source.start + length, range.start);
            });
        }
    }
    for sector in (0..proven.last().unwrap().end).step_by(512) {
        let begins_block =
            world.disk.bytes(FIRST).unwrap()[sector..sector + 512].iter().any(|byte| *byte != 0);
        if begins_block {
            check(&format!("sector {sector} lost"), &|bytes| bytes[sector..sector + 512].fill(0));
        }
    }
}

/// A disk may write a block that was acked a second time, behind the log: that proves nothing, and is no record to lose.
#[test]
fn a_doubled_block_behind_the_log_is_a_torn_tail_without_records() {
    let mut world = World::new(FSYNC);
    world.block(3);
    world.block(3);
    let (_, end) = last_block(&mut world.disk);
    for doubled in [8192, 12_288] {
        let mut disk = world.disk.clone();
        disk.bytes_mut(FIRST).copy_within(doubled..doubled + 4096, end + 4096);
        let replay = replay(&mut disk).unwrap();
        let torn = replay.recovered.torn().unwrap();
        assert_eq!((replay.last_seq, torn.first_seq, torn.last_seq), (Seq(6), Seq(7), None), "{doubled}");
    }
}

#[test]
fn a_header_of_another_log_behind_the_end_proves_nothing() {
    let mut world = World::new(FSYNC);
    world.block(3);
    world.block(3);
    world.disk.bytes_mut(FIRST).copy_within(12_288..16_384, 20_480);
    // It says that everything up to block 1,000,000 was durable, but of another engine's log.
    rewrite_header(&mut world.disk, FIRST, 20_480, |bytes| {
        bytes[16] ^= 1;
        bytes[58] = 16;
        bytes[90] = 15;
    });
    let replay = replay(&mut world.disk).unwrap();
    assert_eq!((replay.last_seq, replay.recovered.torn().unwrap().last_seq), (Seq(6), None));
    rewrite_header(&mut world.disk, FIRST, 20_480, |bytes| bytes[16] ^= 1);
    let refusal = world::replay(&mut world.disk).unwrap_err();
    assert!(matches!(refusal, RecoverError::Rot { reason: Rot::LaterBlock { .. }, .. }), "{refusal}");
}

#[test]
fn a_header_that_claims_to_be_the_next_block_of_another_history_is_refused() {
    let mut world = World::new(FSYNC);
    world.block(3);
    world.block(3);
    let next = *replay(&mut world.disk).unwrap().recovered.last_block();
    world.disk.bytes_mut(FIRST).copy_within(12_288..16_384, 20_480);
    rewrite_header(&mut world.disk, FIRST, 20_480, |bytes| bytes[56] += 1);
    let refusal = replay(&mut world.disk).unwrap_err();
    let number = next.number + 1;
    assert!(
        matches!(refusal, RecoverError::Rot { reason: Rot::LaterBlock { number: found, .. }, .. } if found == number),
        "{refusal}"
    );
}

#[test]
fn damage_at_the_border_of_two_segments_is_proved_by_what_follows() {
    let mut world = World::new(FSYNC);
    for records in [1000, 900, 1500, 20, 20] {
        world.block(records);
    }
    let second = FileName::Segment { first_seq: Seq(1901) };
    assert!(world.disk.bytes(second).is_some());
    let check = |change: &dyn Fn(&mut MemoryStorage), seq: u64| {
        let mut disk = world.disk.clone();
        change(&mut disk);
        let refusal = replay(&mut disk).unwrap_err();
        let RecoverError::Rot { seq: found, reason: Rot::LaterBlock { file, .. }, .. } = refusal else {
            panic!("{refusal}")
        };
        assert_eq!((found, file), (Seq(seq), second));
    };
    // The first block of a segment is lost, and the next one stands behind it.
    check(&|disk| disk.bytes_mut(second)[..4096].fill(0), 1901);
    check(&|disk| disk.flip(second, 10, 1), 1901);
    // The last block of the segment before is torn, and still the log went on.
    let last = replay(&mut world.disk.clone())
        .unwrap()
        .headers
        .iter()
        .rfind(|header| header.segment == 1)
        .unwrap()
        .offset;
    let last = usize::try_from(last).unwrap();
    check(&|disk| disk.flip(FIRST, last + 300, 1), 1001);
}

/// Neighbours that a disk has swapped: the only proof of a block may then stand at the end of the block that it proves.
#[test]
fn a_header_in_its_neighbours_place_still_proves_what_it_says() {
    let mut world = log_of_many_blocks(FSYNC);
    let (_, end) = last_block(&mut world.disk);
    // A seal is nothing but a header: without it the rest of its page is zeros, as if it had never been written.
    world.seal();
    for sector in (0..end).step_by(512) {
        let mut disk = world.disk.clone();
        let bytes = disk.bytes_mut(FIRST);
        let (one, other) = bytes[sector..sector + 1024].split_at_mut(512);
        if one == other {
            continue;
        }
        one.swap_with_slice(other);
        let result = replay(&mut disk);
        assert!(is_refused(&result), "sectors {sector} and the next: {result:?}");
    }
}

#[test]
fn an_empty_start_block_is_proved_by_the_data_after_it() {
    let mut world = World::new(FSYNC);
    world.block(3);
    let mut disk = world.disk.clone();
    // Block 2, the start block of this run: no seq is lost with it, but the acked block behind it would be.
    disk.bytes_mut(FIRST)[4096..8192].fill(0);
    let refusal = replay(&mut disk).unwrap_err();
    assert!(
        matches!(refusal, RecoverError::Rot { seq: Seq(1), reason: Rot::LaterBlock { number: 3, .. }, .. }),
        "{refusal}"
    );
}

#[test]
fn in_os_mode_what_a_sync_covered_is_proved_by_later_blocks() {
    let mut world = World::new(OS);
    world.block(10);
    world.block(10);
    world.sync();
    world.block(10);
    world.block(10);
    let headers = replay(&mut world.disk).unwrap().headers;
    for header in &headers[2..] {
        let mut disk = world.disk.clone();
        disk.flip(FIRST, usize::try_from(header.offset).unwrap() + 300, 1);
        let result = replay(&mut disk);
        match header.number {
            3 | 4 => assert!(is_refused(&result), "{result:?}"),
            _ => assert_eq!(result.unwrap().last_seq, Seq(header.first_seq.0 - 1)),
        }
    }
}

#[test]
fn missing_segments_are_refused() {
    let mut world = World::new(FSYNC);
    for _ in 0..4 {
        world.block(2000);
    }
    world.block(1);
    let segment = |first: u64| FileName::Segment { first_seq: Seq(first) };
    let lose = |first: u64| {
        let mut disk = world.disk.clone();
        disk.lose(segment(first));
        replay(&mut disk).unwrap_err()
    };
    assert!(matches!(lose(1), RecoverError::Missing { needed: Seq(1) }));
    for first in [2001, 4001] {
        let RecoverError::Gap { file, expected, found } = lose(first) else { panic!("no gap") };
        assert_eq!((file, expected, found), (segment(first), Seq(first), Seq(first + 2000)));
    }
    // The last segment proves nothing once it is gone, except to the guard or an anchor.
    let mut disk = world.disk.clone();
    disk.lose(segment(6001));
    assert_eq!(replay(&mut disk).unwrap().last_seq, Seq(6000));
    let anchor = Anchor { seq: Seq(8000), chain: world.chains[&8000] };
    let refusal = replay_from(&mut disk, anchor).unwrap_err();
    assert!(matches!(refusal, RecoverError::Rot { reason: Rot::BeforeAnchor(Seq(8000)), .. }), "{refusal}");
}

#[test]
fn a_named_later_segment_proves_what_came_before_even_if_it_is_empty() {
    let mut world = World::new(FSYNC);
    world.block(100);
    world.disk.insert(FileName::Segment { first_seq: Seq(200) }, vec![0; 256 * 1024]);
    let refusal = replay(&mut world.disk).unwrap_err();
    assert!(matches!(refusal, RecoverError::Gap { expected: Seq(101), found: Seq(200), .. }), "{refusal}");
}

#[test]
fn an_empty_directory_is_damaged_not_new() {
    let refusal = replay(&mut MemoryStorage::new()).unwrap_err();
    assert!(matches!(refusal, RecoverError::Missing { needed: Seq(1) }));
    let mut world = World::new(FSYNC);
    let error = world::try_create(&mut world.disk).unwrap_err();
    assert!(matches!(error, CreateError::Exists(FIRST)));
}

#[test]
fn foreign_files_are_named_as_such() {
    let check = |identity: Identity| {
        let mut world = World::new(GUARDED);
        world.block(1);
        let mut disk = world.disk.clone();
        let before = disk.clone();
        let refusal = Recovery::begin(&mut disk, identity, Anchor::GENESIS).err().unwrap_or_else(|| {
            disk.lose(FileName::Guard);
            let mut recovery = Recovery::begin(&mut disk, identity, Anchor::GENESIS).unwrap();
            recovery.next_block(&disk).unwrap_err()
        });
        assert_eq!(disk.bytes(FIRST), before.bytes(FIRST));
        refusal
    };
    let engine = Identity { engine: EngineId(9), ..IDENTITY };
    assert!(matches!(check(engine), RecoverError::ForeignEngine { found, .. } if found == IDENTITY.engine));
    let shard = Identity { shard: ShardId(9), ..IDENTITY };
    assert!(matches!(check(shard), RecoverError::WrongShard { found: ShardId(3), .. }));
}

#[test]
fn blocks_of_another_engine_inside_our_files_are_refused() {
    let mut world = World::new(FSYNC);
    world.block(1);
    world.block(1);
    rewrite_header(&mut world.disk, FIRST, 8192, |bytes| bytes[16] ^= 1);
    assert!(matches!(replay(&mut world.disk), Err(RecoverError::ForeignEngine { offset: 8192, .. })));
}

#[test]
fn a_newer_format_is_refused_wherever_it_is_met() {
    for offset in [0, 4096, 8192, 12_288, 16_384] {
        let mut world = World::new(FSYNC);
        world.block(1);
        world.block(1);
        let page = world.disk.bytes(FIRST).unwrap()[4096..8192].to_vec();
        world.disk.bytes_mut(FIRST)[16_384..20_480].copy_from_slice(&page);
        rewrite_header(&mut world.disk, FIRST, offset, |bytes| bytes[8] = 3);
        let refusal = replay(&mut world.disk).unwrap_err();
        assert!(matches!(refusal, RecoverError::Newer { version: 3, .. }), "{offset}: {refusal}");
    }
}

#[test]
fn a_sound_block_that_does_not_continue_the_log_is_refused() {
    // Another history, epoch, number or first seq, each with sound checksums.
    for (what, at) in
        [("epoch", 32), ("segment", 40), ("offset", 49), ("number", 56), ("seq", 64), ("chain", 96)]
    {
        let mut world = World::new(FSYNC);
        world.block(1);
        rewrite_header(&mut world.disk, FIRST, 8192, |bytes| bytes[at] += 16);
        let result = replay(&mut world.disk);
        assert!(is_refused(&result), "{what}: {result:?}");
    }
}

#[test]
fn a_start_block_that_does_not_raise_the_epoch_is_refused() {
    let mut world = World::new(FSYNC);
    world.block(1);
    let mut world = World::start(world.disk, FSYNC).unwrap();
    assert_eq!(replay(&mut world.disk).unwrap().recovered.epoch(), Epoch(3));
    // The start block of epoch 3 stands behind three others.
    rewrite_header(&mut world.disk, FIRST, 3 * 4096, |bytes| bytes[32] = 2);
    let result = replay(&mut world.disk);
    assert!(is_refused(&result), "{result:?}");
}

/// What recovery lets pass, the next recovery must be able to read: a start block with a higher epoch comes behind it.
#[test]
fn an_epoch_that_no_start_could_raise_is_refused() {
    let highest = (1 << 31) - 2;
    for (epoch, is_last) in [(highest, true), (highest - 1, false)] {
        let mut world = World::new(FSYNC);
        rewrite_header(&mut world.disk, FIRST, 4096, |bytes| {
            bytes[32..36].copy_from_slice(&u32::to_le_bytes(epoch));
        });
        let result = replay(&mut world.disk);
        if is_last {
            let refusal = result.unwrap_err();
            assert!(matches!(refusal, RecoverError::Rot { reason: Rot::NoNextStart, .. }), "{refusal}");
            continue;
        }
        let mut disk = World::start(world.disk, FSYNC).unwrap().disk;
        let refusal = replay(&mut disk).unwrap_err();
        assert!(matches!(refusal, RecoverError::Rot { reason: Rot::NoNextStart, .. }), "{refusal}");
    }
}

#[test]
fn a_ring_that_tells_another_history_is_refused() {
    let mut world = World::new(GUARDED);
    world.block(1);
    world.block(1);
    let ring = world.disk.bytes(FileName::Guard).unwrap().to_vec();
    let slot = 3 * 4096;
    let entry = GuardEntry::decode(&ring[slot..]).unwrap();
    assert_eq!((entry.number, entry.last_seq, entry.epoch), (3, Seq(1), Epoch(2)));
    for other in [GuardEntry { chain: [7; 32], ..entry }, GuardEntry { epoch: Epoch(1), ..entry }] {
        let mut disk = world.disk.clone();
        other.encode(&mut disk.bytes_mut(FileName::Guard)[slot..]);
        let refusal = replay(&mut disk).unwrap_err();
        assert!(matches!(refusal, RecoverError::Rot { reason: Rot::Guard { number: 3 }, .. }), "{refusal}");
    }
    // A torn slot proves nothing.
    let mut disk = world.disk.clone();
    disk.flip(FileName::Guard, slot + 40, 1);
    assert_eq!(replay(&mut disk).unwrap().last_seq, Seq(2));
}

#[test]
fn an_anchor_is_checked_against_the_chain() {
    let mut world = World::new(FSYNC);
    for _ in 0..5 {
        world.block(900);
    }
    for (&seq, &chain) in &world.chains {
        let replay = replay_from(&mut world.disk, Anchor { seq: Seq(seq), chain }).unwrap();
        assert_eq!(replay.last_seq, Seq(4500));
        assert!(replay.headers.iter().all(|header| header.last_seq() > Seq(seq) || header.records == 0));
        let refusal = replay_from(&mut world.disk, Anchor { seq: Seq(seq), chain: [1; 32] }).unwrap_err();
        assert!(matches!(refusal, RecoverError::Rot { reason: Rot::AnchorChain, .. }), "{refusal}");
    }
    // In the middle of a block: the rest of the block is handed out.
    let middle = Anchor { seq: Seq(2000), chain: [9; 32] };
    assert_eq!(replay_from(&mut world.disk, middle).unwrap().headers[0].first_seq, Seq(1801));
    // Old segments may be gone.
    world.disk.lose(FIRST);
    let anchor = Anchor { seq: Seq(2700), chain: world.chains[&2700] };
    assert_eq!(replay_from(&mut world.disk, anchor).unwrap().last_seq, Seq(4500));
}

#[test]
fn rot_in_the_first_block_after_an_anchor_is_refused() {
    let mut world = World::new(FSYNC);
    for _ in 0..3 {
        world.block(1800);
    }
    let segment = FileName::Segment { first_seq: Seq(3601) };
    let anchor = Anchor { seq: Seq(3700), chain: [0; 32] };
    for offset in [0, 100, 5000] {
        let mut disk = world.disk.clone();
        disk.flip(segment, offset, 1);
        let refusal = replay_from(&mut disk, anchor).unwrap_err();
        assert!(matches!(refusal, RecoverError::Rot { reason: Rot::FirstBlock, .. }), "{refusal}");
    }
}

#[test]
fn a_refusal_changes_nothing() {
    let world = log_of_many_blocks(GUARDED);
    let mut random = Random(3);
    for _ in 0..200 {
        let mut disk = world.disk.clone();
        let at = random.below(64 * 1024);
        disk.flip(FIRST, at, 0x10);
        let before = disk.clone();
        assert!(replay(&mut disk).is_err());
        for name in before.list().unwrap() {
            assert_eq!(disk.bytes(name), before.bytes(name));
        }
    }
}

#[test]
fn random_damage_never_panics_and_never_shortens_history_unnoticed() {
    let mut world = log_of_many_blocks(GUARDED);
    let acked = world.log.acked_seq();
    world.seal();
    let mut random = Random(5);
    for _ in 0..2000 {
        let mut disk = world.disk.clone();
        for _ in 0..=random.below(3) {
            let bytes = disk.bytes_mut(FIRST);
            let (from, to) = (random.below(140) * 512, random.below(140) * 512);
            match random.below(3) {
                0 => bytes[from..from + 512].fill(0),
                1 => bytes.copy_within(from..from + 512, to),
                _ => bytes[from + random.below(512)] = random.below(256).to_le_bytes()[0],
            }
        }
        if let Ok(replay) = replay(&mut disk) {
            assert_eq!(replay.last_seq, acked);
        }
    }
}

#[test]
fn a_file_cut_short_is_refused_or_a_torn_tail() {
    let mut world = log_of_many_blocks(FSYNC);
    let (last, end) = last_block(&mut world.disk);
    let bytes = world.disk.bytes(FIRST).unwrap().to_vec();
    for length in (0..bytes.len()).step_by(777) {
        let mut disk = world.disk.clone();
        disk.insert(FIRST, bytes[..length].to_vec());
        match replay(&mut disk) {
            Ok(replay) if length < end => assert!(length >= last || replay.last_seq < Seq(449)),
            Ok(replay) => assert_eq!(replay.last_seq, Seq(449)),
            Err(_) => assert!(length < end),
        }
        if replay(&mut disk).is_ok() {
            World::start(disk, FSYNC).unwrap().block(3);
        }
    }
}

#[test]
fn a_block_of_an_earlier_epoch_behind_the_log_proves_nothing() {
    for (epoch, is_proof) in [(1, false), (2, true), (3, true)] {
        let mut world = World::new(FSYNC);
        world.block(1);
        let page = world.disk.bytes(FIRST).unwrap()[8192..12_288].to_vec();
        world.disk.bytes_mut(FIRST)[16_384..20_480].copy_from_slice(&page);
        // It claims first seq 33, number 35, and that both were durable before it.
        rewrite_header(&mut world.disk, FIRST, 16_384, |bytes| {
            bytes[32] = epoch;
            for at in [56, 64, 80, 88] {
                bytes[at] += 32;
            }
        });
        let result = replay(&mut world.disk);
        assert_eq!(is_refused(&result), is_proof, "{epoch}: {result:?}");
    }
}

#[test]
fn one_block_in_flight_cannot_tear_two_segments() {
    let mut world = World::new(FSYNC);
    world.block(100);
    let next = FileName::Segment { first_seq: Seq(101) };
    let mut segment = vec![0; 256 * 1024];
    segment[5000] = 1;
    world.disk.insert(next, segment);
    assert_eq!(replay(&mut world.disk).unwrap().last_seq, Seq(100));
    world.disk.flip(FIRST, 50_000, 1);
    let refusal = replay(&mut world.disk).unwrap_err();
    assert!(matches!(refusal, RecoverError::Rot { reason: Rot::BeyondWindow { .. }, .. }), "{refusal}");
}

#[test]
fn any_bytes_with_a_sound_checksum_are_a_header_or_refused() {
    let mut random = Random(17);
    let mut world = log_of_many_blocks(FSYNC);
    let last = usize::try_from(replay(&mut world.disk).unwrap().recovered.last_block().offset).unwrap();
    let sound = world.disk.bytes(FIRST).unwrap()[last..last + 256].to_vec();
    let mut read = 0;
    for _ in 0..100_000 {
        let mut bytes = sound.clone();
        for _ in 0..=random.below(3) {
            bytes[8 + random.below(120)] = random.below(256).to_le_bytes()[0];
        }
        let crc = crc32c::crc32c(&bytes[..252]);
        bytes[252..].copy_from_slice(&crc.to_le_bytes());
        if let Ok(header) = Header::decode(&bytes) {
            let mut again = vec![0; 256];
            header.encode(&mut again);
            assert_eq!(again, bytes);
            assert!(header.block_bytes() <= 256 * 1024);
            read += 1;
        }
    }
    assert!(read > 1000, "{read}");
}

#[test]
fn headers_are_read_as_they_are_written() {
    let mut world = log_of_many_blocks(FSYNC);
    let mut recovery = Recovery::begin(&mut world.disk, IDENTITY, Anchor::GENESIS).unwrap();
    while let Some(Block { header, .. }) = recovery.next_block(&world.disk).unwrap() {
        let mut bytes = [0; 256];
        header.encode(&mut bytes);
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert!(header.time > Time(0));
        assert_eq!(header.records == 0, header.kind != Kind::Data);
    }
}
