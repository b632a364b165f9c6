//! A shard on a disk in memory: what may leave, what survives, what is refused.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod rig;

use engine::{Begin, BuildError, Config, Durability, RecoverError};
use rig::{AUTHORIZER, OPERATOR, START, STRANGER, TENANT, World, config, open};
use surety_protocol::{
    ALL_CAPTURES, Amount, Caller, Code, ControlBody, Flags, Id, Kind, PartitionHandle, Record, Reply, Roles,
    Seq, ShardId, Time,
};
use wal::{FileName, Storage};

#[test]
fn a_reply_leaves_only_when_its_record_is_durable() {
    for durability in [Durability::Fsync, Durability::Os] {
        let mut world = World::new(durability);
        let lock = world.lock(100);
        world.ask(&AUTHORIZER, &[lock]);
        assert_eq!(world.engine.poll_reply(), None, "nothing is written yet");
        let write = world.take_write().unwrap();
        assert_eq!(world.engine.poll_reply(), None, "the write is in flight");
        write.perform(&mut world.storage).unwrap();
        world.engine.on_written(write);
        let (route, reply) = world.engine.poll_reply().unwrap();
        assert_eq!((route, reply.code(), reply.id), (42, Code::Approved, lock.id));
        assert_eq!(reply.seq, world.engine.marks().acked);
        assert_eq!(world.engine.poll_reply(), None);
    }
}

#[test]
fn repeats_and_look_ups_wait_for_what_they_tell() {
    let mut world = World::new(Durability::Fsync);
    let lock = world.lock(100);
    let look_up = world.change(Kind::Lookup, lock.id, 0);
    world.ask(&AUTHORIZER, &[lock]);
    world.ask(&AUTHORIZER, &[lock]);
    world.ask(&AUTHORIZER, &[look_up]);
    assert_eq!(world.engine.poll_reply(), None);
    world.settle();
    let codes: Vec<_> = world.replies.iter().map(|(_, reply)| (reply.code(), reply.is_replayed())).collect();
    assert_eq!(codes, [(Code::Approved, false), (Code::Approved, true), (Code::Approved, false)]);
    assert_eq!(world.replies[0].1.seq, world.replies[1].1.seq, "a repeat tells the first seq");
}

#[test]
fn refusals_answer_at_once_and_leave_no_trace() {
    let mut world = World::new(Durability::Fsync);
    let before = (world.engine.marks().appended, world.engine.ledger().state_hash());
    let lock = world.lock(100);
    let elsewhere = Record { partition: PartitionHandle(99), ..lock };
    let other_shard = Record { partition: PartitionHandle::new(ShardId(3), 1), ..lock };
    let stale = Record { id: Id::from_parts(START.minus(Time::from_secs(1000)), 5), ..lock };
    let reader = Caller { roles: Roles::READER, ..AUTHORIZER };
    for (caller, request, code) in [
        (&AUTHORIZER, elsewhere, Code::UnknownPartition),
        (&AUTHORIZER, other_shard, Code::UnknownPartition),
        (&AUTHORIZER, stale, Code::StaleId),
        (&reader, lock, Code::NoRight),
        (&STRANGER, lock, Code::UnknownPartition),
    ] {
        world.ask(caller, &[request]);
        let (_, reply) = world.engine.poll_reply().expect("a refusal does not wait");
        assert_eq!((reply.code(), reply.id), (code, request.id));
        assert_eq!(reply.capture, ALL_CAPTURES, "a refusal speaks of no capture, whoever refuses");
    }
    world.engine.set_storage_low(true);
    world.ask(&AUTHORIZER, &[lock]);
    assert_eq!(world.engine.poll_reply().unwrap().1.code(), Code::StorageLow);
    world.engine.set_storage_low(false);
    assert_eq!((world.engine.marks().appended, world.engine.ledger().state_hash()), before);
    assert_eq!(world.answer(&AUTHORIZER, &[lock]).code(), Code::Approved, "none of them burned the id");
}

#[test]
fn a_repeat_is_answered_whatever_the_disk_is_like() {
    let mut world = World::new(Durability::Fsync);
    let lock = world.lock(100);
    let capture = world.change(Kind::Capture, lock.id, 100);
    assert_eq!(world.answer(&AUTHORIZER, &[lock]).code(), Code::Approved);
    assert_eq!(world.answer(&AUTHORIZER, &[capture]).code(), Code::Approved);
    world.engine.set_storage_low(true);
    for request in [lock, capture] {
        let again = world.answer(&AUTHORIZER, &[request]);
        assert_eq!((again.code(), again.is_replayed()), (Code::Approved, true), "low on space");
    }
    world.engine.stop(world.now);
    for request in [lock, capture] {
        let again = world.answer(&AUTHORIZER, &[request]);
        assert_eq!((again.code(), again.is_replayed()), (Code::Approved, true), "stopping");
    }
}

#[test]
fn a_tenant_that_asks_for_more_than_its_quotas_is_told_so_and_nothing_is_logged() {
    for (rate_per_s, in_flight_max, refusal) in [(5, 0, Code::QuotaRate), (0, 5, Code::QuotaInFlight)] {
        let mut world = World::new(Durability::Fsync);
        world.limit(rate_per_s, in_flight_max);
        let locks: Vec<Record> = (0..5).map(|_| world.lock(1)).collect();
        for lock in &locks {
            world.ask(&AUTHORIZER, &[*lock]);
            assert_eq!(world.engine.poll_reply(), None, "it waits for the disk");
        }
        let before = (world.engine.marks().appended, world.engine.ledger().state_hash());
        let sixth = world.lock(1);
        let burn = world.change(Kind::Lookup, sixth.id, 0).with_flags(Flags::BURN);
        world.ask(&AUTHORIZER, &[sixth]);
        let (_, reply) = world.engine.poll_reply().expect("a refusal does not wait");
        assert_eq!((reply.code(), reply.id), (refusal, sixth.id));
        world.ask(&AUTHORIZER, &[burn]);
        assert_eq!((world.engine.marks().appended, world.engine.ledger().state_hash()), before);
        world.settle();
        let (_, reply) = world.replies.pop().unwrap();
        assert_eq!((reply.code(), reply.id), (refusal, burn.id));
        // What was executed is never answered as if it were not.
        let again = world.answer(&AUTHORIZER, &[locks[0]]);
        assert_eq!((again.code(), again.is_replayed()), (Code::Approved, true));
        // Others, and the operator, are not held to it.
        let release = world.change(Kind::Release, locks[0].id, 0);
        let release = Record { tenant: TENANT, ..release };
        assert_eq!(world.answer(&OPERATOR, &[release]).code(), Code::Approved);
        if rate_per_s > 0 {
            world.now = world.now.plus(Time::from_millis(199));
            assert_eq!(world.answer(&AUTHORIZER, &[sixth]).code(), Code::QuotaRate);
            world.now = world.now.plus(Time::from_millis(1));
        }
        assert_eq!(world.answer(&AUTHORIZER, &[sixth]).code(), Code::Approved, "the id was not burned");
        let live = world.engine.ledger().state_hash();
        let config = config(Durability::Fsync);
        let replayed = engine::recover(config, &mut world.storage, Begin::Oldest, |_| {}).unwrap();
        assert_eq!(replayed.ledger().state_hash(), live, "replay asks nothing");
        // The quotas are those of now, and those of the log after a restart.
        world.limit(1, 1);
        let first = world.lock(1);
        world.now = world.now.plus(Time::from_secs(2));
        let World { storage, now, .. } = world;
        let mut world = open(config, storage, now);
        assert_eq!(world.answer(&AUTHORIZER, &[first]).code(), Code::Approved);
        let second = world.lock(1);
        assert_eq!(world.answer(&AUTHORIZER, &[second]).code(), Code::QuotaRate);
        world.limit(0, 0);
        assert_eq!(world.answer(&AUTHORIZER, &[second]).code(), Code::Approved);
    }
}

#[test]
fn a_disk_that_does_not_answer_is_met_with_overloaded_and_flat_memory() {
    let mut world = World::new(Durability::Fsync);
    let mut approved = 0_u64;
    loop {
        let lock = world.lock(1);
        world.ask(&AUTHORIZER, &[lock]);
        match world.engine.poll_reply() {
            None => approved += 1,
            Some((_, reply)) => {
                assert_eq!(reply.code(), Code::Overloaded);
                break;
            }
        }
        assert!(approved < 1 << 20, "the queue has a limit");
    }
    let waiting = world.engine.records_waiting();
    let lock = world.lock(1);
    world.ask(&AUTHORIZER, &[lock]);
    assert_eq!(world.engine.records_waiting(), waiting);
    world.settle();
    let answered = world.replies.iter().filter(|(_, reply)| reply.code() == Code::Approved).count();
    assert_eq!(answered as u64, approved, "everything taken in is answered");
    assert_eq!(world.answer(&AUTHORIZER, &[lock]).code(), Code::Approved);
}

#[test]
fn a_full_disk_declines_locks_then_everything_and_keeps_nobody_waiting() {
    for durability in [Durability::Fsync, Durability::Os] {
        let config = Config { segment_bytes: 1024 * 1024, ..config(durability) };
        let mut world = World::with(config);
        world.keep_reserves();
        // From here on the disk gives no reserve, and the engine is told so when it wants one.
        let mut open = Vec::new();
        let refused = loop {
            let lock = world.lock(1);
            match world.answer_without_reserve(&[lock]).code() {
                Code::Approved => open.push(lock.id),
                code => break code,
            }
        };
        assert_eq!(refused, Code::StorageLow);
        for id in &open {
            let release = world.change(Kind::Release, *id, 0);
            assert_eq!(world.answer_without_reserve(&[release]).code(), Code::Approved);
        }
        // What is left in the reserve can be used up, too; then everything is refused, at once.
        loop {
            let unknown = world.lock(1).id;
            let burn = world.change(Kind::Lookup, unknown, 0).with_flags(Flags::BURN);
            match world.answer_without_reserve(&[burn]).code() {
                Code::Overloaded => break,
                code => assert_eq!(code, Code::NotFound),
            }
            assert!(world.engine.marks().appended.0 < 50_000, "the disk is full");
        }
        // There is room for the end.
        world.engine.stop(world.now);
        world.settle_without_reserve();
        assert!(world.engine.is_stopped());
        // The disk has room again: nothing was lost, and everything goes on.
        let World { storage, now, .. } = world;
        let mut world = rig::open(config, storage, now);
        world.keep_reserves();
        let lock = world.lock(1);
        assert_eq!(world.answer(&AUTHORIZER, &[lock]).code(), Code::Approved);
    }
}

#[test]
fn whatever_was_acked_survives_a_crash_at_any_moment() {
    for seed in 0..60_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = move |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % n.max(1) as u64) as usize
        };
        let mut world = World::new(Durability::Fsync);
        let mut acked: Vec<(Record, Reply)> = Vec::new();
        for round in 0..6 {
            let mut asked: Vec<Record> = Vec::new();
            for _ in 0..draw(40) {
                let known = acked.get(draw(acked.len())).map(|(record, _)| record.id);
                let request = match (draw(4), known) {
                    (0, Some(lock)) => world.change(Kind::Capture, lock, 3).with_flags(Flags::FINAL),
                    (1, Some(lock)) => world.change(Kind::Release, lock, 0),
                    _ => world.lock(10),
                };
                asked.push(request);
                world.ask(&AUTHORIZER, &[request]);
                world.now = world.now.plus(Time::from_millis(draw(500) as u64));
                world.engine.handle_timeout(world.now);
            }
            let finishes = draw(4) > 0;
            if finishes {
                world.settle();
            } else if let Some(write) = world.take_write() {
                // The block is on its way when the power goes.
                write.perform(&mut world.storage).unwrap();
            }
            let requests = |reply: &Reply| asked.iter().find(|request| request.id == reply.id).copied();
            for (_, reply) in world.replies.drain(..) {
                if reply.code().is_recorded() {
                    acked.push((requests(&reply).unwrap(), reply));
                }
            }
            let survivor = world.storage.crash(&mut draw);
            world = open(config(Durability::Fsync), survivor, world.now);
            for (request, first) in &acked {
                let again = world.answer(&AUTHORIZER, &[*request]);
                assert!(again.is_replayed(), "seed {seed} round {round}: {first:?} then {again:?}");
                assert_eq!(
                    (again.code, again.approved, again.seq, again.deadline),
                    (first.code, first.approved, first.seq, first.deadline),
                    "seed {seed} round {round}"
                );
            }
        }
    }
}

#[test]
fn a_stopped_shard_is_sealed_and_comes_back_whole() {
    let mut world = World::new(Durability::Os);
    let lock = world.lock(100);
    assert_eq!(world.answer(&AUTHORIZER, &[lock]).code(), Code::Approved);
    world.engine.stop(world.now);
    let late = world.lock(1);
    world.ask(&AUTHORIZER, &[late]);
    world.settle();
    assert!(world.engine.is_stopped());
    assert_eq!(world.replies.pop().unwrap().1.code(), Code::Overloaded);
    let hash = world.engine.ledger().state_hash();
    let report = world.report();
    assert!(report.torn.is_none());
    let world = open(config(Durability::Os), world.storage, world.now);
    assert_eq!(world.engine.ledger().state_hash(), hash);
    assert_eq!(world.engine.epoch().0, 3, "created, started, started again");
}

#[test]
fn an_idle_shard_seals_its_last_block_once() {
    let mut world = World::new(Durability::Fsync);
    let lock = world.lock(100);
    world.answer(&AUTHORIZER, &[lock]);
    assert!(world.take_write().is_none(), "not idle yet");
    world.now = world.engine.poll_timeout().unwrap();
    world.engine.handle_timeout(world.now);
    let seal = world.take_write().expect("the seal");
    assert_eq!(seal.header().kind, wal::Kind::Seal);
    seal.perform(&mut world.storage).unwrap();
    world.engine.on_written(seal);
    world.now = world.now.plus(Time::from_secs(1));
    assert!(world.take_write().is_none());
}

#[test]
fn expiry_is_logged_in_time_order_and_frees_collateral() {
    let mut world = World::new(Durability::Fsync);
    let whole = world.lock(1_000_000);
    assert_eq!(world.answer(&AUTHORIZER, &[whole]).code(), Code::Approved);
    world.now = world.now.plus(Time::from_secs(61));
    let next = world.lock(1_000_000);
    let reply = world.answer(&AUTHORIZER, &[next]);
    assert_eq!(reply.code(), Code::Approved, "what expired is free before the next lock is decided");
}

#[test]
fn a_record_that_was_decided_otherwise_is_found() {
    let mut world = World::new(Durability::Fsync);
    let lock = world.lock(100);
    world.answer(&AUTHORIZER, &[lock]);
    // A sound log whose last record claims more than the rules would have given.
    let recovery =
        wal::Recovery::begin(&mut world.storage, config(Durability::Fsync).identity(), wal::Anchor::GENESIS)
            .unwrap();
    let recovered = recovery.finish(&world.storage).unwrap();
    let options = wal::Options { segment_bytes: 256 * 1024, ..wal::Options::default() };
    let mut log = recovered.open(&mut world.storage, options, world.now).unwrap();
    let mut forged = world.lock(5_000_000);
    forged.tenant = TENANT;
    forged.time = world.now;
    forged.code = Code::Approved as u8;
    forged.result = forged.amount;
    let seq = log.append(&forged.to_bytes());
    let write = log.poll_write(world.now).unwrap();
    write.perform(&mut world.storage).unwrap();
    let error =
        engine::recover(config(Durability::Fsync), &mut world.storage, Begin::Oldest, |_| {}).unwrap_err();
    assert!(matches!(error, RecoverError::Diverged { seq: found, .. } if found == seq), "{error}");
}

#[test]
fn checkpoints_stand_in_the_log_and_segments_roll() {
    let mut world = World::new(Durability::Fsync);
    for _ in 0..60 {
        for _ in 0..60 {
            let lock = world.lock(1);
            world.ask(&AUTHORIZER, &[lock]);
        }
        world.settle();
    }
    let mut tail = wal::TailReader::new(world.engine.config().identity(), Seq(1));
    let mut checkpoints = 0;
    while let Some(block) = tail.next_block(&world.storage, world.engine.marks().synced).unwrap() {
        let last = Record::from_bytes(block.records().last().unwrap());
        checkpoints += usize::from(last.kind() == Some(Kind::Checkpoint));
    }
    assert!(checkpoints >= 30, "{checkpoints}");
    assert!(world.engine.segments().len() > 1);
    assert!(world.storage.list().unwrap().iter().any(|name| matches!(name, FileName::Reserve { .. })));
    assert_eq!(world.report().last_seq, world.engine.marks().synced);
}

#[test]
fn a_snapshot_beside_the_shard_is_the_state_that_a_whole_replay_gives() {
    let mut world = World::new(Durability::Fsync);
    let mut locks: Vec<Id> = Vec::new();
    let mut made = 0;
    for round in 0..40_u64 {
        for step in 0..30 {
            let request = match (step % 5, locks.pop()) {
                (3, Some(lock)) => world.change(Kind::Capture, lock, 1).with_flags(Flags::FINAL),
                (4, Some(lock)) => world.change(Kind::Release, lock, 0),
                (_, other) => {
                    locks.extend(other);
                    let lock = world.lock(2);
                    locks.push(lock.id);
                    lock
                }
            };
            world.ask(&AUTHORIZER, &[request]);
        }
        // Some locks expire, ids and finished locks are forgotten.
        world.now = world.now.plus(Time::from_secs(round % 9));
        world.engine.handle_timeout(world.now);
        world.settle();
        let config = *world.engine.config();
        while let Some(made_now) =
            engine::build_snapshot(&config, &mut world.storage, world.engine.marks().synced).unwrap()
        {
            assert!(made_now.header.seq <= world.engine.marks().synced);
            made += 1;
        }
    }
    assert!(made >= 10, "{made}");
    let config = *world.engine.config();
    let quick = engine::recover(config, &mut world.storage, Begin::Snapshot, |_| {}).unwrap();
    let whole = engine::recover(config, &mut world.storage, Begin::Oldest, |_| {}).unwrap();
    assert!(quick.report().snapshot.is_some() && whole.report().snapshot.is_none());
    assert!(quick.report().replayed < whole.report().replayed / 5);
    quick.ledger().verify().unwrap();
    assert_eq!(quick.ledger().state_hash(), whole.ledger().state_hash());
    assert_eq!(quick.ledger().locks_len(), whole.ledger().locks_len());
    assert_eq!(quick.ledger().ids_len(), whole.ledger().ids_len());
    // One that was never set and has nothing left is not part of the state.
    let tenants = |ledger: &ledger::Ledger| {
        let mut tenants = ledger.tenants();
        tenants.retain(|tenant| tenant.quotas.enabled == 1 || tenant.locks + tenant.ids > 0);
        tenants
    };
    assert_eq!(tenants(quick.ledger()), tenants(whole.ledger()));
}

#[test]
fn a_snapshot_that_does_not_add_up_to_the_logged_state_is_not_made() {
    let mut world = World::new(Durability::Fsync);
    let lock = world.lock(100);
    world.answer(&AUTHORIZER, &[lock]);
    let shard = config(Durability::Fsync);
    let recovery = wal::Recovery::begin(&mut world.storage, shard.identity(), wal::Anchor::GENESIS).unwrap();
    let recovered = recovery.finish(&world.storage).unwrap();
    let options = wal::Options { segment_bytes: 256 * 1024, ..wal::Options::default() };
    let mut log = recovered.open(&mut world.storage, options, world.now).unwrap();
    // A state hash that the log does not give: as if memory had failed in the running shard.
    let logged = world.engine.ledger().state_hash() ^ 1;
    let body = ControlBody { reference: logged, ..ControlBody::default() };
    let mut forged = Record::new(Kind::Checkpoint, Id(0), PartitionHandle(0), Amount::ZERO, &body);
    forged.time = world.now;
    forged.code = Code::Approved as u8;
    let seq = log.append(&forged.to_bytes());
    let write = log.poll_write(world.now).unwrap();
    write.perform(&mut world.storage).unwrap();
    log.on_written(write);
    let error = engine::build_snapshot(&shard, &mut world.storage, log.synced_seq()).unwrap_err();
    assert!(matches!(error, BuildError::Hash { seq: at, .. } if at == seq), "{error}");
    assert_eq!(wal::list_snapshots(&world.storage).unwrap(), []);
    let drafts = world.storage.list().unwrap();
    assert!(!drafts.iter().any(|name| matches!(name, FileName::SnapshotTemp { .. })), "{drafts:?}");
}

#[test]
fn a_rotten_snapshot_is_passed_over_for_an_older_one() {
    let mut world = World::new(Durability::Fsync);
    for _ in 0..3 {
        for _ in 0..60 {
            let lock = world.lock(1);
            world.ask(&AUTHORIZER, &[lock]);
        }
        world.settle();
        let config = *world.engine.config();
        engine::build_snapshot(&config, &mut world.storage, world.engine.marks().synced).unwrap();
    }
    let snapshots = wal::list_snapshots(&world.storage).unwrap();
    assert!(snapshots.len() >= 2, "{snapshots:?}");
    let newest = FileName::Snapshot { seq: snapshots[0] };
    let middle = world.storage.bytes(newest).unwrap().len() / 2;
    world.storage.flip(newest, middle, 1);
    let config = *world.engine.config();
    let recovered = engine::recover(config, &mut world.storage, Begin::Snapshot, |_| {}).unwrap();
    assert_eq!(recovered.report().snapshot, Some(snapshots[1]));
    assert_eq!(recovered.report().unsound_snapshots, [snapshots[0]]);
    assert_eq!(recovered.ledger().state_hash(), world.engine.ledger().state_hash());
}

#[test]
fn retention_that_was_cut_short_leaves_a_shard_that_reads_both_ways() {
    let mut world = World::new(Durability::Fsync);
    for _ in 0..60 {
        for _ in 0..60 {
            let lock = world.lock(1);
            world.ask(&AUTHORIZER, &[lock]);
        }
        world.settle();
        let config = *world.engine.config();
        engine::build_snapshot(&config, &mut world.storage, world.engine.marks().synced).unwrap();
    }
    let snapshots = wal::list_snapshots(&world.storage).unwrap();
    let segments = wal::list_segments(&world.storage).unwrap();
    let removal = wal::removable(&segments, &snapshots, Seq(u64::MAX));
    assert!(!removal.segments.is_empty() && !removal.snapshots.is_empty());
    // The segments go first; the power goes before the snapshots follow.
    for name in &removal.segments {
        world.storage.remove(*name).unwrap();
    }
    let config = *world.engine.config();
    for begin in [Begin::Snapshot, Begin::Oldest] {
        let recovered = engine::recover(config, &mut world.storage, begin, |_| {}).unwrap();
        assert_eq!(recovered.ledger().state_hash(), world.engine.ledger().state_hash());
    }
    // Without a snapshot that holds, such a log is not the whole story.
    for seq in wal::list_snapshots(&world.storage).unwrap() {
        let name = FileName::Snapshot { seq };
        let middle = world.storage.bytes(name).unwrap().len() / 2;
        world.storage.flip(name, middle, 1);
    }
    let oldest = wal::list_segments(&world.storage).unwrap()[0].first_seq;
    for begin in [Begin::Snapshot, Begin::Oldest] {
        let error = engine::recover(config, &mut world.storage, begin, |_| {}).unwrap_err();
        assert!(matches!(error, RecoverError::NoSnapshot { oldest: found } if found == oldest), "{error}");
    }
}

#[test]
fn a_snapshot_stands_on_the_newest_state_hash_that_ends_its_block() {
    let mut world = World::new(Durability::Fsync);
    let ask = |world: &mut World, count| {
        for _ in 0..count {
            let lock = world.lock(1);
            world.ask(&AUTHORIZER, &[lock]);
        }
    };
    for _ in 0..2 {
        ask(&mut world, 60);
        world.settle();
    }
    let tied = world.engine.marks().synced;
    // A later one in the middle of a block.
    ask(&mut world, 100);
    world.engine.handle_timeout(world.now);
    ask(&mut world, 10);
    world.settle();
    assert!(world.engine.marks().synced > tied);
    let config = *world.engine.config();
    let made = engine::build_snapshot(&config, &mut world.storage, world.engine.marks().synced).unwrap();
    assert_eq!(made.unwrap().header.seq, tied);
}

#[test]
fn a_whole_snapshot_whose_entries_are_not_its_state_is_passed_over() {
    let mut world = World::new(Durability::Fsync);
    let config = *world.engine.config();
    let seq = world.engine.marks().synced;
    let header = wal::SnapshotHeader {
        version: 1,
        identity: config.identity(),
        epoch: world.engine.epoch(),
        seq,
        time: world.now,
        chain: [0; 32],
        state_hash: 1,
    };
    wal::SnapshotWriter::begin(&mut world.storage, header).unwrap().finish(&mut world.storage).unwrap();
    let recovered = engine::recover(config, &mut world.storage, Begin::Snapshot, |_| {}).unwrap();
    assert_eq!((recovered.report().snapshot, &recovered.report().unsound_snapshots[..]), (None, &[seq][..]));
    assert_eq!(recovered.ledger().state_hash(), world.engine.ledger().state_hash());
}
