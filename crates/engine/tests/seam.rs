//! What the calls of the engine promise to whoever drives it: when to come again, what is in flight, what is stopped.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod rig;

use engine::{Config, Durability};
use rig::{AUTHORIZER, OPERATOR, START, TENANT, World, config, open};
use surety_protocol::limits::{BLOCK_RECORDS_MAX, DUE_RECORDS_PER_TURN_MAX};
use surety_protocol::{
    Amount, AssetId, Caller, Code, ControlBody, Flags, Kind, LockBody, MerchantId, PartitionBody,
    PartitionHandle, Record, Reply, Roles, Seq, ShardId, Time,
};
use wal::Storage;
use wal::memory::MemoryStorage;

/// The time that a lock of the rig lives.
const LIFE: Time = Time::from_secs(60);

/// Every record of the log.
fn logged(world: &World) -> Vec<Record> {
    let mut tail = wal::TailReader::new(world.engine.config().identity(), Seq(1));
    let mut records = Vec::new();
    while let Some(block) = tail.next_block(&world.storage, world.engine.marks().synced).unwrap() {
        records.extend(block.records().iter().map(Record::from_bytes));
    }
    records
}

/// Asks for so many locks, one after the other.
fn lock_many(world: &mut World, count: usize) {
    for _ in 0..count {
        let lock = world.lock(1);
        world.ask(&AUTHORIZER, &[lock]);
    }
}

/// Seals what was written, so that nothing is left to do but what time brings.
fn seal(world: &mut World) {
    world.now = world.now.plus(world.engine.config().seal_idle);
    world.settle();
}

/// True if time brings something before the locks end: that can be a seal alone.
fn is_seal_due(world: &World) -> bool {
    world.engine.poll_timeout().is_some_and(|at| at < START.plus(LIFE))
}

/// Asks until the log takes no more; nothing is written meanwhile.
fn fill(world: &mut World) {
    while world.engine.has_room() {
        let lock = world.lock(1);
        world.ask(&AUTHORIZER, &[lock]);
    }
}

#[test]
fn a_start_tells_readers_who_speaks_and_for_how_long_ids_are_remembered() {
    let mut storage = MemoryStorage::new();
    let config = Config { id_window: Time::from_secs(77), ..config(Durability::Fsync) };
    engine::create(config, &mut storage, START).unwrap();
    let mut world = open(config, storage, START);
    world.settle();
    let start = logged(&world)[0];
    let body = start.body::<ControlBody>();
    assert_eq!((start.kind(), start.time, start.code), (Some(Kind::Start), START, Code::Approved as u8));
    assert_eq!((body.reference, body.number), (config.engine.0, u64::from(world.engine.epoch().0)));
    assert_eq!(body.until, config.id_window);
}

#[test]
fn what_falls_due_is_logged_at_its_time_though_nobody_asks() {
    let mut world = World::new(Durability::Fsync);
    let lock = world.lock(100);
    let deadline = world.answer(&AUTHORIZER, &[lock]).deadline;
    seal(&mut world);
    assert_eq!(deadline, START.plus(LIFE));
    // Ids are forgotten on the way; the lock ends at its deadline and not before.
    while let Some(at) = world.engine.poll_timeout().filter(|at| *at < deadline) {
        world.now = at.max(world.now);
        world.engine.handle_timeout(world.now);
        world.settle();
    }
    assert_eq!(world.engine.poll_timeout(), Some(deadline));
    let before = world.engine.marks().appended;
    world.engine.handle_timeout(deadline.minus(Time(1)));
    assert_eq!(world.engine.marks().appended, before, "not yet");
    world.now = deadline;
    world.engine.handle_timeout(deadline);
    assert_eq!(world.engine.marks().appended, before.next());
    world.settle();
    let expiry = *logged(&world).last().unwrap();
    assert_eq!((expiry.kind(), expiry.time), (Some(Kind::Expire), deadline));
}

#[test]
fn a_seal_is_due_so_long_after_the_last_record() {
    let mut world = World::new(Durability::Os);
    let idle = world.engine.config().seal_idle;
    world.now = world.now.plus(Time::from_secs(5));
    let lock = world.lock(1);
    world.ask(&AUTHORIZER, &[lock]);
    assert!(!is_seal_due(&world), "a block waits");
    let asked = world.now;
    world.now = world.now.plus(Time::from_millis(1));
    let write = world.take_write().unwrap();
    assert!(!is_seal_due(&world), "a block is in flight");
    write.perform(&mut world.storage).unwrap();
    let (file, mark) = (write.file(), write.mark());
    world.engine.on_written(write);
    assert!(!is_seal_due(&world), "it is not synced");
    world.storage.sync(file).unwrap();
    world.engine.on_synced(mark);
    assert_eq!(world.engine.poll_timeout(), Some(asked.plus(idle)));
    world.now = asked.plus(idle).minus(Time(1));
    assert!(world.take_write().is_none(), "not yet");
    world.now = asked.plus(idle);
    let seal = world.take_write().expect("the seal");
    assert_eq!(seal.header().kind, wal::Kind::Seal);
    world.perform(seal);
    assert!(!is_seal_due(&world), "one seal is enough");
}

#[test]
fn a_quiet_log_tells_that_time_has_passed() {
    let mut world = World::new(Durability::Fsync);
    world.settle();
    let (seal, quiet) = (world.engine.config().seal_idle, world.engine.config().checkpoint_idle);
    let asked = world.now;
    world.now = asked.plus(seal);
    world.settle();
    let before = world.engine.marks().appended;
    for minute in 1..=3 {
        let due = Time(asked.0 + minute * quiet.0);
        assert!(world.engine.poll_timeout().is_some_and(|wake| wake <= due), "ids may be forgotten before");
        world.now = due.minus(Time(1));
        world.engine.handle_timeout(world.now);
        assert!(world.take_write().is_none(), "not yet");
        world.now = due;
        world.engine.handle_timeout(world.now);
        let write = world.take_write().expect("one record");
        world.perform(write);
        let told = *logged(&world).last().unwrap();
        assert_eq!((told.kind(), told.time), (Some(Kind::Checkpoint), due));
        assert_eq!(world.engine.marks().appended.0, before.0 + minute);
        world.now = due.plus(seal);
        world.settle();
    }
    // What has no room says nothing, and what has ended says no more.
    let later = Time(asked.0 + 9 * quiet.0);
    let before = world.engine.marks().appended;
    world.engine.set_storage_low(true);
    world.engine.handle_timeout(later);
    assert_eq!(world.engine.marks().appended, before);
    world.engine.set_storage_low(false);
    world.now = later;
    world.engine.stop(later);
    world.settle();
    let end = world.engine.marks().appended;
    world.engine.handle_timeout(Time(asked.0 + 99 * quiet.0));
    assert_eq!(world.engine.marks().appended, end);
}

#[test]
fn more_expiries_than_a_turn_takes_go_on_in_the_next() {
    let rare = Config { checkpoint_records: 1 << 20, ..config(Durability::Fsync) };
    let mut world = World::with(rare);
    lock_many(&mut world, 2 * DUE_RECORDS_PER_TURN_MAX + 5);
    world.settle();
    world.now = START.plus(LIFE);
    let mut logged = Vec::new();
    for is_last in [false, false, true] {
        let before = world.engine.marks().appended.0;
        world.engine.handle_timeout(world.now);
        logged.push((world.engine.marks().appended.0 - before) as usize);
        assert_eq!(world.engine.is_behind(), !is_last);
        assert_eq!(world.engine.poll_timeout() == Some(world.now), !is_last, "come again at once");
    }
    assert_eq!(logged, [DUE_RECORDS_PER_TURN_MAX, DUE_RECORDS_PER_TURN_MAX, 5]);
    let before = world.engine.marks().appended;
    world.engine.handle_timeout(world.now);
    assert_eq!(world.engine.marks().appended, before, "each expires once");
}

#[test]
fn nothing_falls_due_while_the_log_has_no_room_for_it() {
    let mut world = World::new(Durability::Fsync);
    lock_many(&mut world, 2 * DUE_RECORDS_PER_TURN_MAX);
    fill(&mut world);
    let full = world.engine.records_waiting();
    world.now = START.plus(LIFE);
    world.engine.handle_timeout(world.now);
    assert_eq!(world.engine.records_waiting(), full, "what is due waits for room");
    assert_eq!(world.engine.poll_timeout(), None, "the block in flight turns the loop");
    assert!(!world.engine.is_behind(), "to come again soon would help nobody");
    world.settle();
    world.engine.handle_timeout(world.now);
    assert!(world.engine.records_waiting() >= DUE_RECORDS_PER_TURN_MAX, "now they are logged");
}

#[test]
fn what_is_taken_in_is_answered_and_what_is_not_leaves_nothing() {
    let mut world = World::new(Durability::Fsync);
    fill(&mut world);
    let refused = world.lock(1);
    let waiting = (world.engine.records_waiting(), world.engine.replies_waiting());
    world.ask(&AUTHORIZER, &[refused]);
    let (_, reply) = world.engine.poll_reply().expect("a refusal does not wait");
    assert_eq!(reply.code(), Code::Overloaded);
    assert_eq!((world.engine.records_waiting(), world.engine.replies_waiting()), waiting);
    let asked = world.engine.replies_waiting();
    world.settle();
    assert_eq!(world.replies.len(), asked, "what was taken in is answered");
    assert_eq!((world.engine.records_waiting(), world.engine.replies_waiting()), (0, 0));
}

#[test]
fn marks_and_counts_are_what_was_asked() {
    let mut world = World::new(Durability::Fsync);
    let marks = world.engine.marks();
    assert_eq!((marks.appended, marks.acked), (marks.synced, marks.synced), "all is written");
    assert_eq!(logged(&world).len() as u64, marks.appended.0);
    lock_many(&mut world, 3);
    assert_eq!((world.engine.records_waiting(), world.engine.replies_waiting()), (3, 3));
    assert_eq!(world.engine.marks().appended.0, marks.appended.0 + 3);
    assert_eq!(world.engine.marks().acked, marks.acked);
    let write = world.take_write().unwrap();
    assert_eq!((world.engine.records_waiting(), world.engine.replies_waiting()), (0, 3));
    world.perform(write);
    assert_eq!(world.engine.marks().acked, world.engine.marks().appended);
    world.take_replies();
    assert_eq!(world.engine.replies_waiting(), 0);
    let text = format!("{:?}", world.engine);
    assert!(text.contains("marks") && text.contains("shard"), "{text}");
}

#[test]
fn it_is_stopped_once_all_is_written_sealed_and_told() {
    let mut world = World::new(Durability::Fsync);
    seal(&mut world);
    assert!(!world.engine.is_stopped(), "nobody has stopped it");
    let lock = world.lock(1);
    world.ask(&AUTHORIZER, &[lock]);
    world.engine.stop(world.now);
    assert!(!world.engine.is_stopped(), "a block waits");
    let write = world.take_write().unwrap();
    assert!(!world.engine.is_stopped(), "a block is in flight");
    world.perform(write);
    assert!(!world.engine.is_stopped(), "there is no seal yet");
    let seal = world.take_write().unwrap();
    assert_eq!(seal.header().kind, wal::Kind::Seal);
    assert!(!world.engine.is_stopped(), "the seal is in flight");
    world.perform(seal);
    assert!(!world.engine.is_stopped(), "a reply waits");
    world.take_replies();
    assert_eq!(world.replies.len(), 1);
    assert!(world.engine.is_stopped());
    let end = world.engine.marks().appended;
    world.engine.stop(world.now);
    assert_eq!(world.engine.marks().appended, end, "one state hash ends the log");
}

#[test]
fn no_state_hash_goes_into_the_log_while_a_block_is_in_flight() {
    let mut world = World::new(Durability::Fsync);
    lock_many(&mut world, 10);
    let write = world.take_write().unwrap();
    let many = 2 * world.engine.config().checkpoint_records;
    lock_many(&mut world, many as usize);
    let before = world.engine.marks().appended;
    assert!(world.take_write().is_none(), "one block at a time");
    assert_eq!(world.engine.marks().appended, before, "it would stand in the middle of the next block");
    world.perform(write);
    let write = world.take_write().unwrap();
    assert_eq!(world.engine.marks().appended, before.next(), "the last record of its block");
    world.perform(write);
    assert_eq!(logged(&world).last().unwrap().kind(), Some(Kind::Checkpoint));
}

#[test]
fn a_state_hash_waits_for_the_last_block_that_waits() {
    let mut world = World::new(Durability::Fsync);
    lock_many(&mut world, 10);
    let write = world.take_write().unwrap();
    lock_many(&mut world, BLOCK_RECORDS_MAX + 10);
    let before = world.engine.marks().appended;
    world.perform(write);
    let write = world.take_write().unwrap();
    assert_eq!(world.engine.marks().appended, before, "another block waits behind this one");
    world.perform(write);
    let write = world.take_write().unwrap();
    assert_eq!(world.engine.marks().appended, before.next());
    world.perform(write);
    assert_eq!(logged(&world).last().unwrap().kind(), Some(Kind::Checkpoint));
}

#[test]
fn a_log_that_is_never_drained_gets_its_state_hash_inside_a_block() {
    let mut world = World::new(Durability::Fsync);
    lock_many(&mut world, 1);
    let write = world.take_write().unwrap();
    let checkpoint_records = world.engine.config().checkpoint_records;
    let mut hashes = Vec::new();
    let mut since = 0;
    for _ in 0..5 * checkpoint_records {
        world.engine.handle_timeout(world.now);
        let before = world.engine.marks().appended;
        lock_many(&mut world, 1);
        assert_eq!(world.engine.marks().appended, before.next());
        since += 1;
        world.engine.handle_timeout(world.now);
        if world.engine.marks().appended != before.next() {
            hashes.push(since);
            since = 0;
        }
    }
    world.perform(write);
    world.settle();
    let in_log = logged(&world).iter().filter(|record| record.kind() == Some(Kind::Checkpoint)).count();
    assert!(in_log >= hashes.len());
    assert_eq!(hashes[1..], [2 * checkpoint_records], "after twice the usual number of records");
}

#[test]
fn hints_change_nothing() {
    let mut plain = World::new(Durability::Fsync);
    let mut hinted = World::new(Durability::Fsync);
    hinted.engine.reserve(0);
    hinted.engine.reserve(1000);
    for count in [3, 40] {
        let mut requests: Vec<Record> = (0..count).map(|_| plain.lock(1)).collect();
        requests[0].tenant = TENANT;
        let bytes: Vec<_> = requests.iter().map(Record::to_bytes).collect();
        hinted.engine.warm(&AUTHORIZER, &bytes);
        for world in [&mut plain, &mut hinted] {
            requests.iter().for_each(|request| world.ask(&AUTHORIZER, &[*request]));
            world.settle();
        }
    }
    assert_eq!(hinted.replies, plain.replies);
    assert_eq!(hinted.engine.ledger().state_hash(), plain.engine.ledger().state_hash());
}

#[test]
fn a_partition_of_another_shard_is_not_made_here() {
    let mut world = World::new(Durability::Fsync);
    let elsewhere = PartitionHandle::new(ShardId(3), 9);
    let body = PartitionBody { onchain: [0xdd; 32], asset: AssetId(1), ..PartitionBody::default() };
    let before = world.engine.ledger().state_hash();
    let create = Record::new(Kind::PartitionCreate, world.id(), elsewhere, Amount(0), &body);
    assert_eq!(world.answer(&OPERATOR, &[create]).code(), Code::UnknownPartition);
    assert_eq!(world.engine.ledger().state_hash(), before);
}

#[test]
fn a_refusal_says_who_speaks_when_and_of_what() {
    let mut world = World::new(Durability::Fsync);
    world.now = world.now.plus(Time::from_secs(3));
    let mut lock = world.lock(1);
    lock.flags |= Flags::LINKED.0;
    let last = world.lock(2);
    let reader = Caller { roles: Roles::READER, ..AUTHORIZER };
    world.engine.handle_timeout(world.now);
    world.ask(&reader, &[lock, last]);
    for request in [lock, last] {
        let (route, reply) = world.engine.poll_reply().expect("a refusal does not wait");
        let expect = Reply {
            id: request.id,
            time: world.now,
            epoch: world.engine.epoch(),
            shard: ShardId(0),
            code: Code::NoRight as u8,
            kind: Kind::Lock as u8,
            capture: reply.capture,
            ..Reply::default()
        };
        assert_eq!((route, reply), (42, expect));
    }
    assert_eq!(world.engine.poll_reply(), None, "one for each request");
}

#[test]
fn a_shard_speaks_by_its_own_number() {
    let config = Config { shard: ShardId(2), ..config(Durability::Fsync) };
    let mut storage = MemoryStorage::new();
    engine::create(config, &mut storage, START).unwrap();
    let mut world = open(config, storage, START);
    let body = LockBody { merchant: MerchantId(5), ..LockBody::default() };
    let lock = Record::new(Kind::Lock, world.id(), PartitionHandle::new(ShardId(1), 1), Amount(1), &body);
    let reply = world.answer(&AUTHORIZER, &[lock]);
    assert_eq!((reply.code(), reply.shard), (Code::UnknownPartition, ShardId(2)));
}

#[test]
fn removed_segments_are_forgotten() {
    let mut world = World::new(Durability::Fsync);
    for _ in 0..100 {
        lock_many(&mut world, 60);
        world.settle();
    }
    let segments = world.engine.segments();
    assert!(segments.len() > 2, "{segments:?}");
    let kept = segments[1].first_seq;
    world.engine.on_segments_removed(kept);
    assert_eq!(world.engine.segments(), segments[1..]);
    world.engine.on_segments_removed(Seq(u64::MAX));
    assert_eq!(world.engine.segments(), segments[segments.len() - 1..], "never the one that is written");
}

#[test]
fn an_expiry_stands_in_the_log_before_what_is_asked_at_its_moment() {
    let mut world = World::new(Durability::Fsync);
    let lock = world.lock(1_000_000);
    world.answer(&AUTHORIZER, &[lock]);
    world.now = START.plus(LIFE);
    let release = world.change(Kind::Release, lock.id, 0);
    assert_eq!(world.answer(&AUTHORIZER, &[release]).code(), Code::Approved);
    let kinds: Vec<_> = logged(&world).iter().filter_map(Record::kind).collect();
    let place = |wanted| kinds.iter().position(|kind| *kind == wanted).unwrap();
    assert!(place(Kind::Expire) < place(Kind::Release));
}
