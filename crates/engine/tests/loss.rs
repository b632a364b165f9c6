//! An older copy of a shard goes on after a loss: nothing passes before it is said, the epoch leaps, and every later start keeps to it.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use engine::{AcceptedLoss, AfterLossError, Begin, Engine, Epochs, LossError};
use rig::{AUTHORIZER, OPERATOR, PARTITION, World, config};
use surety_protocol::limits::EPOCH_LEAP;
use surety_protocol::{Amount, Code, ControlBody, Epoch, Kind, LossBody, Record, Seq, ShardId, Time, Token};
use wal::memory::MemoryStorage;
use wal::{Anchor, Durability, OpenError, Recovery, Storage};

const KEY: [u8; 32] = [3; 32];
const HOUR: Time = Time::from_secs(3600);

/// A shard that was copied and went on, and the copy.
struct Life {
    copy: MemoryStorage,
    /// A lock that only the life knows which is lost, as it was sent.
    lost: Record,
    /// What that life last gave away.
    token: Token,
    epoch: Epoch,
    /// When it ended.
    now: Time,
}

fn life() -> Life {
    let mut world = World::new(Durability::Fsync);
    let kept = world.lock(100);
    assert_eq!(world.answer(&AUTHORIZER, &[kept]).code(), Code::Approved);
    let (copy, epoch) = (world.storage.clone(), world.engine.epoch());
    world.now = world.now.plus(Time::from_secs(10));
    let lost = world.lock(100);
    assert_eq!(world.answer(&AUTHORIZER, &[lost]).code(), Code::Approved);
    let engine = config(Durability::Fsync).engine;
    let token = Token::sign(&KEY, engine, ShardId(0), epoch, world.engine.marks().synced);
    Life { copy, lost, token, epoch, now: world.now }
}

fn go_on(
    storage: &mut MemoryStorage,
    now: Time,
    accepted: AcceptedLoss,
    noted: Epoch,
) -> Result<(Engine, Seq), AfterLossError<<MemoryStorage as Storage>::Error>> {
    let recovered = engine::recover(config(Durability::Fsync), storage, Begin::Oldest, |_| {}).unwrap();
    let kept = recovered.report().last_seq;
    Ok((recovered.open_after_loss(storage, now, accepted, noted)?, kept))
}

/// The shard that goes on from the copy, long after everything in it has become due.
fn restored(life: &Life) -> (World, Seq) {
    let mut storage = life.copy.clone();
    let now = life.now.plus(HOUR).plus(HOUR);
    let accepted = AcceptedLoss { life: 7, until: life.now };
    let (engine, kept) = go_on(&mut storage, now, accepted, Epoch(0)).unwrap();
    let mut world = World { storage, engine, now, entropy: 1 << 90, replies: Vec::new() };
    world.settle();
    (world, kept)
}

fn records(world: &mut World) -> Vec<Record> {
    let identity = config(Durability::Fsync).identity();
    let mut recovery = Recovery::begin(&mut world.storage, identity, Anchor::GENESIS).unwrap();
    let mut records = Vec::new();
    while let Some(block) = recovery.next_block(&world.storage).unwrap() {
        records.extend(block.records().iter().map(Record::from_bytes));
    }
    records
}

fn kinds(records: &[Record]) -> Vec<Kind> {
    records.iter().map(|record| record.kind().unwrap()).collect()
}

fn reconcile(world: &mut World) {
    let body = ControlBody { user: 42, ..ControlBody::default() };
    let record = Record::new(Kind::Reconcile, world.id(), PARTITION, Amount::ZERO, &body);
    assert_eq!(world.answer(&OPERATOR, &[record]).code(), Code::Approved);
}

#[test]
fn the_first_word_of_the_life_that_begins_is_what_was_lost() {
    let life = life();
    let (mut world, kept) = restored(&life);
    let records = records(&mut world);
    let behind = &records[usize::try_from(kept.0).unwrap()..];
    assert_eq!(kinds(behind)[..2], [Kind::Start, Kind::Loss]);
    let loss: LossBody = behind[1].body();
    assert_eq!((loss.life, loss.after), (7, kept));
    assert_eq!(loss.from, records[usize::try_from(kept.0).unwrap() - 1].time);
    assert!(loss.until > world.now, "never before the moment at which it was accepted");
}

#[test]
fn no_time_passes_neither_at_the_start_nor_at_a_stop_nor_later() {
    let life = life();
    let (mut world, kept) = restored(&life);
    world.engine.stop(world.now);
    world.settle();
    let behind = kinds(&records(&mut world)[usize::try_from(kept.0).unwrap()..]);
    assert!(
        behind.iter().all(|kind| matches!(kind, Kind::Start | Kind::Loss | Kind::Checkpoint)),
        "{behind:?}"
    );
    // The locks that are kept have long been due.
    let World { storage, now, .. } = world;
    let mut world = rig::open(config(Durability::Fsync), storage, now.plus(HOUR));
    world.engine.handle_timeout(world.now);
    world.settle();
    assert!(kinds(&records(&mut world)).iter().all(|kind| *kind != Kind::Expire));
    assert!(world.engine.poll_timeout().is_none_or(|at| at > world.now), "and nothing turns in vain");
    reconcile(&mut world);
    world.now = world.now.plus(Time::from_millis(1));
    world.engine.handle_timeout(world.now);
    world.settle();
    assert!(kinds(&records(&mut world)).contains(&Kind::Expire));
}

#[test]
fn what_is_lost_stays_unknown_over_every_later_start_and_snapshot() {
    let life = life();
    let (mut world, _) = restored(&life);
    for start in 0..4 {
        let answer = world.answer(&AUTHORIZER, &[life.lost]);
        assert_eq!((answer.code(), answer.seq), (Code::UnknownAfterRestore, Seq(0)), "start {start}");
        let look_up = world.change(Kind::Lookup, life.lost.id, 0);
        assert_eq!(world.answer(&AUTHORIZER, &[look_up]).code(), Code::UnknownAfterRestore);
        world.now = world.now.plus(Time::from_secs(6));
        let fresh = world.lock(1);
        let expect = if start < 2 { Code::UnknownAfterRestore } else { Code::Approved };
        assert_eq!(world.answer(&AUTHORIZER, &[fresh]).code(), expect, "start {start}");
        if start == 1 {
            reconcile(&mut world);
        }
        if start == 2 {
            for _ in 0..60 {
                let fresh = world.lock(1);
                world.answer(&AUTHORIZER, &[fresh]);
            }
            let synced = world.engine.marks().synced;
            let made =
                engine::build_snapshot(&config(Durability::Fsync), &mut world.storage, synced).unwrap();
            assert_eq!(made.unwrap().header.version, 2);
        }
        let hash = world.engine.ledger().state_hash();
        let World { mut storage, now, .. } = world;
        let recovered =
            engine::recover(config(Durability::Fsync), &mut storage, Begin::Oldest, |_| {}).unwrap();
        assert_eq!(recovered.ledger().state_hash(), hash);
        recovered.ledger().verify().unwrap();
        world = rig::open(config(Durability::Fsync), storage, now);
        world.entropy = (start + 2) << 90;
        world.settle();
    }
}

#[test]
fn the_epoch_leaps_over_every_epoch_that_is_lost() {
    let life = life();
    let (world, kept) = restored(&life);
    let epoch = world.engine.epoch();
    assert!(epoch.0 >= life.epoch.0 + EPOCH_LEAP);
    let starts = vec![(life.epoch, Seq(1)), (epoch, kept.next())];
    let synced = world.engine.marks().synced;
    let mut epochs = Epochs { starts: starts.clone(), restored: Vec::new() };
    epochs.note_losses(world.engine.ledger().losses_accepted()).unwrap();
    assert!(epochs.is_of_a_loss(&life.token) && !epochs.prove_fork(&life.token, synced));
    // Without the operator's word it is the fork that it looks like.
    assert!(Epochs { starts, restored: Vec::new() }.prove_fork(&life.token, synced));
    // What the life says that goes on is a fork to the one that is lost, if that should still run.
    let ours = Token::sign(&KEY, life.token.engine, ShardId(0), epoch, synced).of_life(&KEY, epochs.life());
    let theirs = Epochs { starts: vec![(life.epoch, Seq(1))], restored: Vec::new() };
    assert!(theirs.prove_fork(&ours, life.token.synced));
}

#[test]
fn each_life_out_of_one_copy_has_an_epoch_of_its_own() {
    let life = life();
    // Epochs count in halves of seconds from the beginning of 2026 on.
    let at = |seconds: u64| Time::from_secs(1_767_225_600 + seconds);
    let epoch = |now: Time, drawn: u128, noted: u32| {
        let accepted = AcceptedLoss { life: drawn, until: now };
        go_on(&mut life.copy.clone(), now, accepted, Epoch(noted)).map(|(engine, _)| engine.epoch().0)
    };
    assert_eq!(epoch(at(1), 0, 0).unwrap(), life.epoch.0 + EPOCH_LEAP);
    assert_eq!(epoch(at(1), 0, 500_000).unwrap(), 500_000 + EPOCH_LEAP, "above what is noted");
    // A second life out of the same backup is above the first, and has room for its starts.
    let first = epoch(at(1_000_000), u128::MAX, 0).unwrap();
    let second = epoch(at(1_000_600), 0, 0).unwrap();
    assert_eq!((first, second), (2_000_000, 2_001_200));
    // Out of a backup of a life that has begun after a loss as well, however soon, and never by a leap into what is to come: the
    // later restore is the later epoch.
    let mut storage = life.copy.clone();
    let accepted = |now| AcceptedLoss { life: 1, until: now };
    let (engine, _) = go_on(&mut storage, at(1_000_000), accepted(at(1_000_000)), Epoch(0)).unwrap();
    let mut world = World { storage, engine, now: at(1_000_000), entropy: 1 << 90, replies: Vec::new() };
    world.settle();
    let storage = world.storage;
    let again = |seconds: u64| {
        let now = at(seconds);
        go_on(&mut storage.clone(), now, accepted(now), Epoch(0)).map(|(engine, _)| engine.epoch().0).unwrap()
    };
    assert_eq!([again(1_000_010), again(1_000_011), again(1_040_000)], [2_000_020, 2_000_022, 2_080_000]);
    // No log comes so far, and none is broken by it.
    let far = epoch(at(40 * 365 * 24 * 3600), 0, 0);
    assert!(matches!(far, Err(AfterLossError::Open(OpenError::Epoch { .. }))), "{far:?}");
}

#[test]
fn a_loss_that_cannot_be_changes_nothing() {
    let life = life();
    let check = |now: Time, until: Time| {
        let mut storage = life.copy.clone();
        let accepted = AcceptedLoss { life: 1, until };
        let error = go_on(&mut storage, now, accepted, Epoch(0)).unwrap_err();
        let recovered =
            engine::recover(config(Durability::Fsync), &mut storage, Begin::Oldest, |_| {}).unwrap();
        assert_eq!(recovered.report().epoch, life.epoch, "no epoch was opened");
        error
    };
    let behind = check(Time::from_secs(1), life.now);
    assert!(matches!(behind, AfterLossError::Loss(LossError::ClockBehind { .. })), "{behind}");
    let ended = check(life.now, Time::from_secs(1));
    assert!(matches!(ended, AfterLossError::Loss(LossError::Until { .. })), "{ended}");
}
