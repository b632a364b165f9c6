//! Power cuts at every call, with any subset of the unsynced sectors on the disk, nested: what was acked is there, and
//! nothing but the block in flight comes on top.
#![allow(clippy::unwrap_used, reason = "test code")]

mod world;

use proptest::prelude::*;
use surety_protocol::{Epoch, Seq, Time};
use wal::memory::{Fault, MemoryStorage};
use wal::{Durability, FileName, Kind, Storage, Write};
use world::{FSYNC, GUARDED, IDENTITY, OS, Options, Random, World, replay};

/// What may be found after a crash.
#[derive(Clone, Copy, Debug)]
struct Promise {
    /// Everything up to here must be there.
    least: Seq,
    /// Nothing beyond it can be.
    most: Seq,
}

/// Ways in which unsynced sectors survive: some at random, none, all.
fn crashes(disk: &MemoryStorage, seed: u64) -> Vec<MemoryStorage> {
    let mut random = Random(seed);
    let mut torn: Vec<MemoryStorage> = (0..3).map(|_| disk.crash(&mut |n| random.below(n))).collect();
    torn.push(disk.crash_losing_all());
    torn.push(disk.crash_keeping_all());
    torn
}

/// One of the same, for cuts within cuts.
fn one_crash(disk: &MemoryStorage, seed: u64) -> MemoryStorage {
    let mut random = Random(seed);
    match seed % 4 {
        0 => disk.crash_losing_all(),
        1 => disk.crash_keeping_all(),
        _ => disk.crash(&mut |n| random.below(n)),
    }
}

/// Recovers, checks the promise, and cuts the power again at every call of opening, down to `depth` more times.
///
/// Returns how many states of the disk it looked at.
fn check(disk: &MemoryStorage, promise: Promise, options: Options, depth: u32) -> u64 {
    let mut states = 1;
    let mut whole = disk.clone();
    let found = replay(&mut whole).unwrap_or_else(|error| panic!("{promise:?}: {error:?}"));
    assert!(
        found.last_seq >= promise.least && found.last_seq <= promise.most,
        "{promise:?}: {}",
        found.last_seq
    );
    // A cut during recovery must come to the same result as one clean recovery.
    let same = Promise { least: found.last_seq, most: found.last_seq };
    for call in (1..).take_while(|_| depth > 0) {
        let mut failing = disk.clone();
        failing.fail_nth(call, Fault::PowerOff);
        let opened = replay(&mut failing).is_ok_and(|found| {
            let at = Time(found.recovered.time().0 + 1);
            found.recovered.open(&mut failing, options, at).is_ok()
        });
        if opened {
            break;
        }
        states += check(&one_crash(&failing, call + found.last_seq.0), same, options, depth - 1);
    }
    assert_opens(whole, found.last_seq, found.recovered.epoch(), options);
    states
}

/// The log opens in a higher epoch, takes another block, and has nothing stale behind it.
fn assert_opens(disk: MemoryStorage, last_seq: Seq, epoch: Epoch, options: Options) {
    let mut world = World::start(disk, options).unwrap();
    assert!(world.log.epoch() > epoch);
    world.disk = world.disk.crash_losing_all();
    world.block(3);
    let after = replay(&mut world.disk).unwrap();
    assert_eq!((after.last_seq, after.recovered.torn()), (Seq(last_seq.0 + 3), None));
    assert_only_zeros_follow(&world.disk, &after.recovered.segments(), after.recovered.last_block());
}

fn assert_only_zeros_follow(disk: &MemoryStorage, segments: &[wal::SegmentSpan], last: &wal::Header) {
    let bytes = disk.bytes(segments.last().unwrap().file()).unwrap();
    let end = usize::try_from(last.offset).unwrap() + last.block_bytes();
    assert!(bytes[end..].iter().all(|byte| *byte == 0));
}

/// A run that is cut at its `call`-th call, if it makes as many; the disk then, and what was promised.
fn run_until(call: u64, options: Options, blocks: &[u64]) -> Option<(MemoryStorage, Promise)> {
    let mut world = World::new(options);
    world.block(5);
    world.disk.fail_nth(call, Fault::PowerOff);
    for &records in blocks {
        if world.reserve().is_err() {
            return Some(cut(world, 0));
        }
        // A seal comes only behind a sync.
        if records == 0 && !world.log.is_synced() && sync(&mut world).is_err() {
            return Some(cut(world, 0));
        }
        let write = if records == 0 {
            world.log.poll_seal(Time(9))
        } else {
            world.append(records);
            world.log.poll_write(Time(9))
        };
        let write = write.unwrap();
        if world.complete(write).is_err() {
            return Some(cut(world, records));
        }
        let is_os = options.durability == Durability::Os;
        if is_os && records % 2 == 0 && sync(&mut world).is_err() {
            return Some(cut(world, 0));
        }
    }
    None
}

fn sync(world: &mut World) -> Result<(), Fault> {
    let mark = world.log.acked();
    for span in world.log.segments() {
        world.disk.sync(span.file()).map_err(|_| Fault::PowerOff)?;
    }
    world.log.on_synced(mark);
    Ok(())
}

fn cut(world: World, in_flight: u64) -> (MemoryStorage, Promise) {
    let promise = Promise { least: world.log.synced_seq(), most: Seq(world.log.acked_seq().0 + in_flight) };
    (world.disk, promise)
}

/// Cuts the power at every call of a run, and again in every recovery after it.
fn explore(options: Options, blocks: &[u64], depth: u32) -> u64 {
    let mut states = 0;
    for call in 1.. {
        let Some((disk, promise)) = run_until(call, options, blocks) else { break };
        for crashed in crashes(&disk, call) {
            states += check(&crashed, promise, options, depth);
        }
    }
    states
}

/// Small blocks, a seal, and large ones that roll twice.
const BLOCKS: [u64; 7] = [20, 1, 0, 900, 1200, 30, 2000];

#[test]
fn a_cut_at_any_call_loses_nothing_that_was_acked() {
    for options in [FSYNC, GUARDED] {
        let states = explore(options, &BLOCKS, 1);
        assert!(states > 500, "{states}");
    }
}

#[test]
fn in_os_mode_a_cut_loses_nothing_that_was_synced() {
    let states = explore(OS, &BLOCKS, 1);
    assert!(states > 500, "{states}");
}

#[test]
fn cuts_during_recovery_of_a_cut_recovery_change_nothing() {
    let states = explore(GUARDED, &[20, 0, 1900], 3);
    assert!(states > 500, "{states}");
}

/// The disk with a block of so many records written and not synced.
fn in_flight(records: u64) -> (World, Write) {
    let mut world = World::new(FSYNC);
    world.block(7);
    world.append(records);
    let write = world.poll().unwrap();
    assert!(write.roll().is_none());
    world.disk.write_at(write.file(), write.offset(), write.bytes()).unwrap();
    (world, write)
}

#[test]
fn any_subset_of_the_last_blocks_sectors_loses_at_most_that_block() {
    // 8 sectors: all 256 subsets.
    let (world, write) = in_flight(20);
    let mut whole = 0;
    for subset in 0..256_u32 {
        let mut sector = 0;
        let mut first = true;
        let mut disk = world.disk.crash(&mut |n| {
            if std::mem::take(&mut first) {
                return n - 1;
            }
            sector += 1;
            (subset >> (sector - 1) & 1) as usize
        });
        assert_eq!(sector, 8);
        let found = replay(&mut disk).unwrap();
        // 256 + 20 x 128 = 2816 bytes are used: what is missing behind them is zero anyway.
        let is_whole = subset & 0b11_1111 == 0b11_1111;
        assert_eq!(found.last_seq, if is_whole { write.last_seq() } else { Seq(7) }, "{subset:08b}");
        whole += u32::from(is_whole);
        assert_eq!(found.recovered.torn().is_some(), !is_whole && subset & 0b11_1111 != 0);
    }
    assert_eq!(whole, 4);
}

#[test]
fn the_report_of_a_torn_tail_names_what_may_be_lost() {
    let (world, write) = in_flight(20);
    let mut count = 0;
    // The header's sector stays, the others do not.
    let mut disk = world.disk.crash(&mut |n| {
        count += 1;
        if count <= 2 { n - 1 } else { 0 }
    });
    let found = replay(&mut disk).unwrap();
    let torn = *found.recovered.torn().unwrap();
    assert_eq!((torn.first_seq, torn.last_seq), (Seq(8), Some(Seq(27))));
    assert_eq!((torn.file, torn.offset, torn.bytes), (write.file(), write.offset(), 4096));
}

#[test]
fn a_torn_block_of_an_earlier_epoch_never_comes_back() {
    // The tail of a large torn block would be found behind the shorter blocks of the next epoch.
    for keep in 0..2 {
        let (world, _) = in_flight(400);
        let mut sector = 0;
        let disk = world.disk.crash(&mut |n| {
            sector += 1;
            if sector % 2 == keep { n - 1 } else { 0 }
        });
        let mut world = World::start(disk, FSYNC).unwrap();
        assert_eq!((world.log.next_seq(), world.log.epoch()), (Seq(8), Epoch(3)));
        for _ in 0..12 {
            world.block(1);
            let found = replay(&mut world.disk).unwrap();
            assert_eq!(found.last_seq, world.log.acked_seq());
            assert!(found.recovered.torn().is_none());
        }
    }
}

#[test]
fn a_torn_first_block_of_a_new_segment_is_dropped_with_its_segment() {
    let mut world = World::new(FSYNC);
    world.block(1800);
    world.append(1800);
    let write = world.poll().unwrap();
    let roll = write.roll().unwrap();
    world.disk.rename(roll.from, roll.to).unwrap();
    world.disk.sync_directory().unwrap();
    world.disk.write_at(write.file(), 0, write.bytes()).unwrap();
    for seed in 0..20 {
        let mut random = Random(seed);
        let disk = world.disk.crash(&mut |n| random.below(n));
        let mut world = World::start(disk, FSYNC).unwrap();
        assert_eq!(world.log.next_seq(), Seq(1801));
        assert_eq!(world.log.segments().len(), 1);
        world.block(1800);
        assert_eq!(world.log.segments().len(), 2);
        let found = replay(&mut world.disk).unwrap();
        assert_eq!(found.last_seq, Seq(3600));
        assert_eq!(found.headers.iter().filter(|header| header.kind == Kind::Start).count(), 3);
    }
}

/// Writes a block of so many records; those in flight if it fails.
fn fails(world: &mut World, records: u64) -> Option<u64> {
    if world.reserve().is_err() {
        return Some(0);
    }
    if records > 0 {
        world.append(records);
    }
    let write = world.log.poll_write(Time(9)).or_else(|| world.log.poll_seal(Time(9))).unwrap();
    world.complete(write).err().map(|_| records)
}

#[test]
fn after_any_failed_call_nothing_acked_is_lost() {
    for options in [FSYNC, GUARDED] {
        for fault in [Fault::Io, Fault::NoSpace] {
            let mut failures = 0;
            for call in 1.. {
                let mut world = World::new(options);
                world.block(5);
                world.disk.fail_nth(call, fault);
                let failed = BLOCKS.iter().find_map(|&records| fails(&mut world, records));
                let Some(in_flight) = failed else { break };
                // The process aborts here; the power may or may not fail after it.
                let promise =
                    Promise { least: world.log.acked_seq(), most: Seq(world.log.acked_seq().0 + in_flight) };
                for crashed in crashes(&world.disk, call) {
                    check(&crashed, promise, options, 0);
                }
                failures = call;
            }
            assert!(failures >= 18, "{failures}");
        }
    }
}

#[test]
fn a_failed_sync_does_not_ack() {
    let mut world = World::new(FSYNC);
    world.append(1);
    let write = world.poll().unwrap();
    world.disk.fail_nth(2, Fault::Io);
    assert!(world.complete(write).is_err());
    assert_eq!((world.log.acked_seq(), world.log.synced_seq()), (Seq(0), Seq(0)));
}

#[test]
fn creating_a_log_is_all_or_nothing() {
    for call in 1.. {
        let mut disk = MemoryStorage::new();
        disk.fail_nth(call, Fault::PowerOff);
        let created = world::try_create(&mut disk);
        for mut crashed in crashes(&disk, call) {
            let has_segment = crashed.list().unwrap().contains(&FileName::Segment { first_seq: Seq(1) });
            assert!(has_segment || created.is_err());
            if !has_segment {
                world::try_create(&mut crashed).unwrap();
            }
            World::start(crashed, FSYNC).unwrap().block(1);
        }
        if created.is_ok() {
            break;
        }
    }
}

#[test]
fn a_full_disk_is_met_before_it_happens() {
    let mut world = World::new(FSYNC);
    let used: u64 = world.disk.list().unwrap().iter().map(|name| world.disk.len(*name).unwrap()).sum();
    world.reserve().unwrap();
    world.disk.set_capacity(Some(used + 2 * world::SEGMENT_BYTES));
    let mut written = 0;
    loop {
        world.append(500);
        let Some(write) = world.log.poll_write(Time(5)) else { break };
        written = write.last_seq().0;
        world.complete(write).unwrap();
        // It fails, and harms nothing.
        assert!(world.reserve().is_err() || world.log.wants_reserve().is_none());
    }
    assert_eq!(world.log.wants_reserve(), Some(FileName::Reserve { number: 3 }));
    assert!(written > 3 * 1500 && world.log.acked_seq() == Seq(written));
    world.disk.set_capacity(None);
    world.flush();
    assert_eq!(replay(&mut world.disk).unwrap().last_seq, Seq(written + 500));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Runs of several epochs in changing modes, cut anywhere.
    #[test]
    fn any_history_keeps_its_promises(
        runs in proptest::collection::vec(
            (0..3_usize, proptest::collection::vec(0..2047_u64, 0..6), 1..40_u64, any::<u64>()),
            1..5,
        )
    ) {
        let mut world = World::new(FSYNC);
        for (mode, blocks, call, seed) in runs {
            let options = [FSYNC, GUARDED, OS][mode];
            let base = world.log.next_seq();
            let disk = world.disk.crash_keeping_all();
            world = World::start(disk, options).unwrap();
            prop_assert_eq!(world.log.next_seq(), base);
            world.disk.fail_nth(call, Fault::PowerOff);
            let mut in_flight = 0;
            for records in blocks {
                if world.reserve().is_err() { break; }
                let write = if records == 0 {
                    world.log.poll_seal(Time(9))
                } else {
                    world.append(records);
                    world.log.poll_write(Time(9))
                };
                let Some(write) = write else { continue };
                if world.complete(write).is_err() {
                    in_flight = records;
                    break;
                }
            }
            let promise = Promise {
                least: world.log.synced_seq(),
                most: Seq(world.log.acked_seq().0 + in_flight),
            };
            let mut random = Random(seed);
            let disk = world.disk.crash(&mut |n| random.below(n));
            check(&disk, promise, options, 0);
            world = World::start(disk, options).unwrap();
        }
        prop_assert_eq!(world.log.identity(), IDENTITY);
    }
}
