//! What becomes of snapshots and logs that hold as files and not as a state, of a disk that fails beside them, and of a log
//! that is longer than one snapshot takes.
#![allow(clippy::unwrap_used, reason = "test code")]

mod rig;

use engine::{Begin, BuildError, Config, Durability, RecoverError, build_snapshot, recover};
use ledger::{Entry, EntryError, EntryKind};
use rig::{AUTHORIZER, TENANT, World, config};
use surety_protocol::{Amount, Code, ControlBody, Flags, Id, Kind, PartitionHandle, Record, Seq, Time};
use wal::memory::{Fault, MemoryError, MemoryStorage};
use wal::{FileName, SnapshotHeader, SnapshotWriter, Storage};

/// A shard with a few locks, all synced and behind a state hash.
fn furnished() -> World {
    let mut world = World::new(Durability::Fsync);
    grow(&mut world);
    world
}

/// So many locks that a state hash follows.
fn grow(world: &mut World) {
    for _ in 0..60 {
        let lock = world.lock(1);
        world.ask(&AUTHORIZER, &[lock]);
    }
    world.settle();
}

/// Makes the next snapshot; its seq.
fn snapshot(world: &mut World) -> Seq {
    let config = *world.engine.config();
    build_snapshot(&config, &mut world.storage, world.engine.marks().synced).unwrap().unwrap().header.seq
}

/// Puts a sound container there, of the present state's hash, with any entries.
fn put_snapshot(world: &mut World, entries: &[&[u8]]) -> Seq {
    let seq = world.engine.marks().synced;
    let header = SnapshotHeader {
        version: 1,
        identity: world.engine.config().identity(),
        epoch: world.engine.epoch(),
        seq,
        time: world.now,
        chain: [0; 32],
        state_hash: world.engine.ledger().state_hash(),
    };
    let mut writer = SnapshotWriter::begin(&mut world.storage, header).unwrap();
    for bytes in entries {
        writer.push(&mut world.storage, bytes[0], bytes).unwrap();
    }
    writer.finish(&mut world.storage).unwrap();
    seq
}

/// Appends records to the log of a world that is no longer used, as if the engine had decided them.
fn append(world: &mut World, records: &[Record]) -> Seq {
    let shard = *world.engine.config();
    let recovery = wal::Recovery::begin(&mut world.storage, shard.identity(), wal::Anchor::GENESIS).unwrap();
    let recovered = recovery.finish(&world.storage).unwrap();
    let options = wal::Options { segment_bytes: shard.segment_bytes, ..wal::Options::default() };
    let mut log = recovered.open(&mut world.storage, options, world.now).unwrap();
    let first = log.next_seq();
    for record in records {
        log.append(&Record { time: world.now, code: Code::Approved as u8, ..*record }.to_bytes());
    }
    let write = log.poll_write(world.now).unwrap();
    write.perform(&mut world.storage).unwrap();
    log.on_written(write);
    first
}

fn whole_state(world: &mut World) -> u128 {
    let config = *world.engine.config();
    recover(config, &mut world.storage, Begin::Oldest, |_| {}).unwrap().ledger().state_hash()
}

#[test]
fn a_sound_container_whose_entries_make_no_ledger_is_passed_over_and_never_built_on() {
    let mut world = furnished();
    let entries: Vec<Entry> = world.engine.ledger().entries().collect();
    let tenant = entries.iter().find(|entry| entry.kind() == EntryKind::Tenant).unwrap();
    let grant = entries.iter().find(|entry| entry.kind() == EntryKind::Grant).unwrap();
    let cases: [(&[&[u8]], EntryError); 3] = [
        (&[&[99, 1, 2]], EntryError::Kind(99)),
        (&[tenant.as_bytes(), tenant.as_bytes()], EntryError::Twice(EntryKind::Tenant)),
        // Its partition did not come before it.
        (&[grant.as_bytes()], EntryError::Orphan(EntryKind::Grant)),
    ];
    for (bytes, expect) in cases {
        let seq = put_snapshot(&mut world, bytes);
        let config = *world.engine.config();
        let recovered = recover(config, &mut world.storage, Begin::Snapshot, |_| {}).unwrap();
        let report = recovered.report();
        assert_eq!((report.snapshot, &report.unsound_snapshots[..]), (None, &[seq][..]), "{expect}");
        assert_eq!(recovered.ledger().state_hash(), world.engine.ledger().state_hash());

        grow(&mut world);
        let synced = world.engine.marks().synced;
        let error = build_snapshot(&config, &mut world.storage, synced).unwrap_err();
        assert!(
            matches!(error, BuildError::Entry { seq: at, error } if at == seq && error == expect),
            "{expect}: {error}"
        );
        world.storage.remove(FileName::Snapshot { seq }).unwrap();
    }
    snapshot(&mut world);
}

#[test]
fn the_next_snapshot_is_built_on_the_newest_that_holds() {
    let mut world = furnished();
    let older = snapshot(&mut world);
    grow(&mut world);
    let newer = snapshot(&mut world);
    world.storage.flip(FileName::Snapshot { seq: newer }, 300, 1);
    grow(&mut world);
    let newest = snapshot(&mut world);
    assert!(older < newer && newer < newest);
    let config = *world.engine.config();
    let recovered = recover(config, &mut world.storage, Begin::Snapshot, |_| {}).unwrap();
    assert_eq!(recovered.report().snapshot, Some(newest));
    assert_eq!(recovered.ledger().state_hash(), whole_state(&mut world));
}

#[test]
fn a_log_that_was_decided_otherwise_is_found_beside_the_running_shard() {
    let mut world = furnished();
    let previous = snapshot(&mut world);
    let mut forged = world.lock(5_000_000);
    (forged.tenant, forged.result) = (TENANT, forged.amount);
    let hash = ControlBody { reference: 1, ..ControlBody::default() };
    let checkpoint = Record::new(Kind::Checkpoint, Id(0), PartitionHandle(0), Amount::ZERO, &hash);
    let first = append(&mut world, &[forged, checkpoint]);
    let config = *world.engine.config();
    let error = build_snapshot(&config, &mut world.storage, first.next()).unwrap_err();
    assert!(matches!(error, BuildError::Diverged { seq, .. } if seq == first), "{error}");
    assert_eq!(wal::list_snapshots(&world.storage).unwrap(), [previous]);
}

#[test]
fn a_linked_chain_without_its_end_is_refused() {
    let mut world = furnished();
    let mut begun = world.lock(1).with_flags(Flags::LINKED);
    (begun.tenant, begun.result) = (TENANT, begun.amount);
    let first = append(&mut world, &[begun]);
    let config = *world.engine.config();
    let error = recover(config, &mut world.storage, Begin::Oldest, |_| {}).unwrap_err();
    assert!(matches!(error, RecoverError::Diverged { seq, .. } if seq == first), "{error}");
}

#[test]
fn a_disk_that_fails_while_a_shard_is_read_changes_nothing() {
    let mut world = furnished();
    snapshot(&mut world);
    let expect = world.engine.ledger().state_hash();
    let config = *world.engine.config();
    let before = world.storage.clone();
    let mut failed = [0; 2];
    for call in 1.. {
        let mut disk = before.clone();
        disk.fail_nth(call, Fault::Io);
        match recover(config, &mut disk, Begin::Snapshot, |_| {}) {
            Err(RecoverError::Io(MemoryError::Io(_))) => failed[0] += 1,
            Err(RecoverError::Log(wal::RecoverError::Io(MemoryError::Io(_)))) => failed[1] += 1,
            Err(error) => panic!("{call}: {error}"),
            Ok(recovered) => {
                assert_eq!(recovered.ledger().state_hash(), expect);
                break;
            }
        }
        for name in before.list().unwrap() {
            assert_eq!(disk.bytes(name), before.bytes(name), "{call}");
        }
    }
    assert!(failed.iter().all(|count| *count > 0), "{failed:?}");
}

#[test]
fn a_disk_that_fails_while_a_snapshot_is_made_costs_that_snapshot_only() {
    let mut world = furnished();
    let previous = snapshot(&mut world);
    grow(&mut world);
    let expect = world.engine.ledger().state_hash();
    let config = *world.engine.config();
    let synced = world.engine.marks().synced;
    let mut made = None;
    for call in 1..100 {
        let mut disk = world.storage.clone();
        disk.fail_nth(call, Fault::Io);
        let built = build_snapshot(&config, &mut disk, synced);
        if let Ok(Some(summary)) = &built {
            made = Some(summary.header.seq);
        } else {
            let error = built.unwrap_err();
            assert!(matches!(error, BuildError::Snapshot(wal::SnapshotError::Io(_))), "{call}: {error}");
        }
        let recovered = recover(config, &mut disk.crash_losing_all(), Begin::Snapshot, |_| {}).unwrap();
        let from = recovered.report().snapshot;
        assert!(from == Some(previous) || from > Some(previous), "{call}: {from:?}");
        assert_eq!(recovered.ledger().state_hash(), expect, "{call}");
        if made.is_some() {
            break;
        }
    }
    assert!(made > Some(previous), "{made:?}");
}

#[test]
fn a_directory_without_a_log_is_refused_both_ways() {
    let config = config(Durability::Fsync);
    for begin in [Begin::Snapshot, Begin::Oldest] {
        let error = recover(config, &mut MemoryStorage::new(), begin, |_| {}).unwrap_err();
        let RecoverError::Log(wal::RecoverError::Missing { needed }) = error else { panic!("{error}") };
        assert_eq!(needed, Seq(1));
    }
}

#[test]
fn a_state_hash_in_the_middle_of_a_block_will_do_where_there_is_no_other() {
    let mut world = World::new(Durability::Fsync);
    for _ in 0..100 {
        let lock = world.lock(1);
        world.ask(&AUTHORIZER, &[lock]);
    }
    world.engine.handle_timeout(world.now);
    let inside = world.engine.marks().appended;
    for _ in 0..10 {
        let lock = world.lock(1);
        world.ask(&AUTHORIZER, &[lock]);
    }
    world.settle();
    assert_eq!(snapshot(&mut world), inside);
    let config = *world.engine.config();
    let recovered = recover(config, &mut world.storage, Begin::Snapshot, |_| {}).unwrap();
    assert_eq!(recovered.report().snapshot, Some(inside));
    assert_eq!(recovered.ledger().state_hash(), world.engine.ledger().state_hash());
}

/// A merge loads at most some 400,000 locks and ids, if there is a state hash to end with; what is longer takes several, each
/// from where the last one ended.
#[test]
fn a_log_longer_than_one_merge_takes_is_merged_in_parts() {
    let mut world = World::with(Config { checkpoint_records: 410_000, ..config(Durability::Fsync) });
    let mut asked = 0;
    while asked < 415_000 {
        for _ in 0..1500 {
            let lock = world.lock(1);
            world.ask(&AUTHORIZER, &[lock]);
            asked += 1;
        }
        world.settle();
        world.replies.clear();
        // Ids are young, so that none is refused or forgotten.
        world.now = world.now.plus(Time::from_millis(1));
    }
    world.engine.stop(world.now);
    world.settle();
    let synced = world.engine.marks().synced;
    let config = *world.engine.config();
    let first = build_snapshot(&config, &mut world.storage, synced).unwrap().unwrap().header.seq;
    assert!((Seq(410_000)..Seq(412_000)).contains(&first), "{first}");
    let second = build_snapshot(&config, &mut world.storage, synced).unwrap().unwrap().header.seq;
    assert_eq!(second, synced, "the rest");
    assert!(build_snapshot(&config, &mut world.storage, synced).unwrap().is_none());
    let quick = recover(config, &mut world.storage, Begin::Snapshot, |_| {}).unwrap();
    assert_eq!(quick.report().snapshot, Some(second));
    assert_eq!(quick.ledger().state_hash(), world.engine.ledger().state_hash());
}
