//! What somebody would try who wants more than is due to him: twice the same release or guarantee, a way past a queued
//! withdrawal, a chain that fails after it has moved everything, a clock that jumps.

mod world;

use ledger::{Decision, Divergence, Entry, Intake, Ledger};
use surety_protocol::*;
use world::*;

const DAY_MS: u64 = 24 * 3600 * 1000;

fn lasting(policy: Policy) -> World {
    World::with_policy(&Policy { claim_margin: Time::from_secs(2 * 3600), ..policy })
}

#[test]
fn a_clock_jump_expires_every_lock_once() {
    for days in [2, 5, 12, 25, 26] {
        let mut world = World::new();
        world.send(&lock("a", 100));
        world.send(&lock("b", 100).flag(Flags::CERTIFIED));
        world.wait(days * DAY_MS);
        assert_eq!((world.end("a"), world.end("b")), (End::Expired, End::Expired), "{days} days");
        assert_eq!(world.money(), [1000, 0, 0, 0, 0, 0], "{days} days");
        world.finish();
    }
}

#[test]
fn while_expiries_are_behind_nobody_locks_and_nobody_is_declined() {
    let mut world = World::new();
    world.is_strict = false;
    world.deposit(P1, 500);
    world.send(&lock("long", 10).life(3_600_000));
    for _ in 0..1490 {
        world.send(&lock("", 1).life(60_000));
    }
    world.now = world.now.plus(Time::from_millis(60_001));
    let mut out = Vec::new();
    let seq = world.next_seq();
    assert!(world.ledger.advance(world.now, seq, &mut out), "more are due than one turn takes");
    for ask in [lock("new", 1), lock("more", 1400), on(Kind::Increase, "long", 20).version(1)] {
        let mut records = [world.record(&ask)];
        let (mut replies, mut follow) = (Vec::new(), Vec::new());
        let decision =
            world.ledger.decide(world.now, &caller(T1), Seq(9999), &mut records, &mut replies, &mut follow);
        assert_eq!((decision, replies[0].code()), (Decision::NotLogged, Code::Overloaded), "{ask:?}");
    }
}

#[test]
fn a_capture_of_what_is_captured_whole_is_answered_while_expiries_are_behind() {
    let mut world = World::with_policy(&Policy { headroom_bps: 1000, ..Policy::default() });
    world.is_strict = false;
    world.deposit(P1, 5_000);
    // A is 100 and G 10; what the release gives back counts the headroom, so A less V is less than C.
    world.send(&lock("a", 100).life(3_600_000));
    assert_eq!(world.send(&capture("a", 100).finally()).code(), Code::Approved);
    for _ in 0..1490 {
        world.send(&lock("", 1).life(60_000));
    }
    world.now = world.now.plus(Time::from_millis(60_001));
    let seq = world.next_seq();
    assert!(world.ledger.advance(world.now, seq, &mut Vec::new()), "more are due than one turn takes");
    let mut records = [world.record(&capture("a", 1))];
    let (mut replies, mut follow) = (Vec::new(), Vec::new());
    let decision =
        world.ledger.decide(world.now, &caller(T1), Seq(9999), &mut records, &mut replies, &mut follow);
    assert_eq!((decision, replies[0].code()), (Decision::Logged, Code::NotOpen));
}

#[test]
fn a_look_up_that_burns_tells_what_is_known_also_when_nothing_new_is_taken() {
    for (intake, refusal) in [
        (Intake::Nothing, Code::Overloaded),
        (Intake::TooFast, Code::QuotaRate),
        (Intake::TooManyInFlight, Code::QuotaInFlight),
    ] {
        let mut world = World::new();
        world.send(&lock("a", 100));
        world.ledger.set_intake(intake);
        assert_eq!(world.send(&lookup("a").flag(Flags::BURN)).code(), Code::Approved, "{intake:?}");
        assert_eq!(world.send(&lookup("b").flag(Flags::BURN)).code(), refusal, "{intake:?}");
        assert_eq!(world.send(&lookup("b")).code(), Code::NotFound, "{intake:?}");
    }
}

#[test]
fn a_log_of_another_window_of_ids_is_not_replayed() {
    let start = |until| {
        let body = ControlBody { until, ..ControlBody::default() };
        let mut record = Record::new(Kind::Start, Id(0), PartitionHandle::new(SHARD, 0), Amount::ZERO, &body);
        (record.time, record.code) = (START, Code::Approved as u8);
        record
    };
    let ours = config().id_window;
    let replay = |until| Ledger::new(config()).replay(Seq(1), &[start(until)]);
    assert_eq!((replay(ours), replay(Time::ZERO)), (Ok(()), Ok(())));
    let other = ours.plus(Time(1));
    assert_eq!(replay(other), Err(Divergence::Window { seq: Seq(1), logged: other, ours }));
}

#[test]
fn a_signed_release_frees_once_however_often_it_is_shown() {
    let mut world = lasting(Policy::default());
    world.send(&lock("a", 100).flag(Flags::CERTIFIED));
    world.send(&lock("b", 50).flag(Flags::CERTIFIED));
    world.send(&release("a"));
    world.send(&release("b"));
    assert_eq!(world.money(), [850, 0, 0, 150, 0, 0]);
    let check = |world: &mut World, key, entries: &[(&'static str, u128, u32)], code, money| {
        assert_eq!(world.release_group(key, entries).code(), code, "{entries:?}");
        assert_eq!(world.money(), money, "{entries:?}");
    };
    check(&mut world, Address([1; 20]), &[("a", 0, 9)], Code::Forbidden, [850, 0, 0, 150, 0, 0]);
    check(&mut world, RELEASE_KEY, &[("a", 0, 1)], Code::UnknownLock, [850, 0, 0, 150, 0, 0]);
    check(&mut world, RELEASE_KEY, &[("a", 40, 2), ("a", 40, 2)], Code::Approved, [910, 0, 0, 90, 0, 0]);
    check(&mut world, RELEASE_KEY, &[("a", 0, 2), ("b", 50, 2)], Code::Partial, [910, 0, 0, 90, 0, 0]);
    check(&mut world, RELEASE_KEY, &[("b", 0, 2), ("b", 0, 2)], Code::Approved, [960, 0, 0, 40, 0, 0]);
    world.finish();
}

#[test]
fn a_lock_that_the_chain_has_paid_pays_no_more() {
    let called = || guarantee(Kind::GuaranteeCalled, "a", 0);
    let paid = |amount| guarantee(Kind::GuaranteePaid, "a", amount);
    let mut world =
        lasting(Policy { late_capture: 1, late_window: Time::from_secs(9999), ..Policy::default() });
    for (ask, code, money) in [
        (lock("a", 100).flag(Flags::CERTIFIED).life(600_000), Code::Approved, [900, 100, 0, 0, 0, 0]),
        (capture("a", 60), Code::Approved, [900, 40, 60, 0, 0, 0]),
        (called(), Code::Approved, [900, 40, 60, 0, 0, 0]),
        (called(), Code::GuaranteeCalled, [900, 40, 60, 0, 0, 0]),
        (release("a"), Code::GuaranteeCalled, [900, 40, 60, 0, 0, 0]),
        (settle("a", 0), Code::GuaranteeCalled, [900, 40, 60, 0, 0, 0]),
        (consume("a", 0, 0), Code::GuaranteeCalled, [900, 40, 60, 0, 0, 0]),
        (consume("a", ALL_CAPTURES, 10), Code::GuaranteeCalled, [900, 40, 60, 0, 0, 0]),
        (paid(70), Code::Approved, [930, 0, 0, 0, 0, 0]),
        (paid(70), Code::NotOpen, [930, 0, 0, 0, 0, 0]),
        (called(), Code::NotOpen, [930, 0, 0, 0, 0, 0]),
        (consume("a", 0, 0), Code::AlreadySettled, [930, 0, 0, 0, 0, 0]),
        (capture("a", 10), Code::AlreadySettled, [930, 0, 0, 0, 0, 0]),
        (reverse("a", 0), Code::UseRefund, [930, 0, 0, 0, 0, 0]),
        (refund("a", 0, 50), Code::Approved, [930, 0, 0, 0, 0, 0]),
        (advice("a", 10), Code::Approved, [930, 0, 0, 0, 0, 10]),
    ] {
        assert_eq!(world.send(&ask).code(), code, "{ask:?}");
        assert_eq!(world.money(), money, "{ask:?}");
    }
    assert_eq!(world.ledger.partition(P1).map(|totals| totals.on_chain), Some(930));
    world.finish();
}

#[test]
fn a_called_lock_ends_only_when_the_call_is_dismissed() {
    let mut world = lasting(Policy { settle_by: Time::from_secs(100), ..Policy::default() });
    world.send(&lock("a", 100).flag(Flags::CERTIFIED).life(60_000));
    world.send(&capture("a", 30));
    world.send(&guarantee(Kind::GuaranteeCalled, "a", 0));
    world.wait(DAY_MS);
    assert_eq!((world.end("a"), world.money()), (End::Live, [900, 70, 30, 0, 0, 0]));
    world.send(&guarantee(Kind::GuaranteeDismissed, "a", 0));
    world.wait(1);
    assert_eq!((world.end("a"), world.money()), (End::Expired, [970, 0, 0, 0, 30, 0]));
    world.finish();
}

#[test]
fn no_change_of_a_lock_gets_past_a_queued_withdrawal() {
    let mut world = World::with_policy(&Policy { unbonding: Time::from_secs(300), ..Policy::default() });
    world.send(&lock("short", 100).life(60_000));
    let units = world.ledger.partition(P1).map_or(0, |totals| totals.units);
    assert_eq!(world.withdraw_by(SUPPLIER, units).code(), Code::Queued);
    let increase = |total, life| on(Kind::Increase, "short", total).version(1).life(life);
    for (ask, code) in [
        (lock("", 1).life(301_000), Code::Insufficient),
        (increase(101, 301_000), Code::Insufficient),
        (lock("beside", 800).life(299_000), Code::Approved),
        (increase(101, 299_000), Code::Approved),
    ] {
        assert_eq!(world.send(&ask).code(), code, "{ask:?}");
    }
    world.wait(300_000);
    assert_eq!(world.money(), [0, 0, 0, 0, 1000, 0]);
    world.finish();
}

#[test]
fn a_chain_that_fails_at_its_end_takes_everything_back() {
    let rules =
        Policy { merchant_open_max: Amount(600), velocity_count: 9, fee_bps: 100, ..Policy::default() };
    let culprits = [
        (capture("nobody", 1), Decision::Logged, Code::UnknownLock),
        (lock("c", 5000), Decision::Logged, Code::OverLimit),
        (Ask { merchant: MerchantId(8), ..lock("c", 900) }, Decision::Logged, Code::OverLimit),
        (consume("a", ALL_CAPTURES, 0), Decision::NotLogged, Code::Malformed),
    ];
    for (culprit, decision, code) in culprits {
        let mut world = World::with_policy(&rules);
        world.send(&lock("a", 300));
        world.send(&capture("a", 50));
        let (money, lock_before) = (world.money(), world.lock_state("a"));
        let (decided, replies) = world.chain(&[
            lock("b", 200).flag(Flags::CERTIFIED),
            capture("b", 20),
            on(Kind::Decrease, "a", 100),
            reverse("a", 0),
            capture("a", 40).finally(),
            settle("a", 1),
            release("overtaken"),
            culprit.clone(),
        ]);
        assert_eq!((decided, replies[7].code()), (decision, code), "{culprit:?}");
        assert!(replies[..7].iter().all(|reply| reply.code() == Code::LinkedFailed), "{culprit:?}");
        assert_eq!((world.money(), world.lock_state("a")), (money, lock_before), "{culprit:?}");
        assert_eq!((world.end("overtaken"), world.ledger.locks_len()), (End::None, 1), "{culprit:?}");
        // What was taken back is not in the way, and nothing fires that is not there any more.
        assert_eq!(world.send(&capture("a", 250)).code(), Code::Approved);
        world.wait(2 * DAY_MS);
        world.finish();
    }
}

#[test]
fn a_snapshot_of_any_moment_replays_the_rest() {
    let mut world =
        lasting(Policy { late_capture: 1, late_window: Time::from_secs(99), ..Policy::default() });
    let mut snapshots = Vec::new();
    for ask in [
        lock("a", 100).flag(Flags::CERTIFIED).life(60_000),
        capture("a", 30),
        release("tombstone"),
        lookup("burned").flag(Flags::BURN),
        lock("s", 20).flag(Flags::SALE),
        lock("tombstone", 5),
        lock("burned", 5),
        advice("unknown", 40),
        guarantee(Kind::GuaranteeCalled, "a", 0),
        guarantee(Kind::GuaranteeDismissed, "a", 0),
        capture("a", 10),
        reverse("a", 1),
    ] {
        let entries: Vec<Entry> = world.ledger.entries().collect();
        snapshots.push((world.next_seq(), world.now, entries));
        world.send(&ask);
        world.wait(20_000);
    }
    world.wait(3 * DAY_MS);
    for (seq, time, entries) in snapshots {
        let loaded = Ledger::from_entries(config(), time, entries).unwrap();
        let rest = &world.log[usize::try_from(seq.0 - 1).unwrap()..];
        let mut replayed = replay(loaded, seq, rest).unwrap_or_else(|divergence| panic!("{divergence}"));
        replayed.advance(world.now, world.next_seq(), &mut Vec::new());
        assert_eq!(replayed.state_hash(), world.ledger.state_hash(), "from {seq}");
    }
}

#[test]
fn a_tenants_admin_keeps_its_own_merchants_and_nothing_else() {
    let mut world = World::new();
    let admin = Caller { roles: Roles::ADMIN | Roles::SETTLER, ..caller(T1) };
    let shard = PartitionHandle::new(SHARD, 0);
    let ask = |world: &mut World, by: &Caller, kind, place, tenant, body: &dyn Fn(Record) -> Record| {
        let record = Record::new(kind, world.fresh_id(), place, Amount(5), &ControlBody::default());
        world.execute(by, vec![Record { tenant, ..body(record) }]).1[0].code()
    };
    let plain = |record: Record| record;
    let merchant = |mut record: Record| {
        record.amount = Amount(0);
        record.set_body(&MerchantBody { merchant: MerchantId(50), enabled: 1, ..MerchantBody::default() });
        record
    };
    let own = TenantId(0);
    assert_eq!(ask(&mut world, &admin, Kind::MerchantSet, shard, own, &merchant), Code::Approved);
    // Not in another's name, not on another shard, not without the role, not as whoever merely locks.
    assert_eq!(ask(&mut world, &admin, Kind::MerchantSet, shard, T2, &merchant), Code::NoRight);
    let elsewhere = PartitionHandle::new(ShardId(SHARD.0 + 1), 0);
    assert_eq!(ask(&mut world, &admin, Kind::MerchantSet, elsewhere, own, &merchant), Code::UnknownPartition);
    let settler = Caller { roles: Roles::SETTLER, ..admin };
    for by in [settler, caller(T1)] {
        assert_eq!(ask(&mut world, &by, Kind::MerchantSet, shard, own, &merchant), Code::NoRight);
    }
    // What is the operator's stays the operator's, on partitions that are there and on others.
    let operators = Kind::ALL.iter().filter(|kind| {
        matches!(kind.origin(), Origin::Admin | Origin::Chain)
            && **kind != Kind::MerchantSet
            && !kind.is_long()
    });
    for kind in operators {
        for place in [shard, P1, PartitionHandle::new(SHARD, 999)] {
            assert_eq!(ask(&mut world, &admin, *kind, place, own, &plain), Code::NoRight, "{kind:?}");
        }
    }
    // The operator itself needs a partition that is there, or the shard, as the kind has it.
    assert_eq!(ask(&mut world, &operator(), Kind::Deficit, shard, own, &plain), Code::UnknownPartition);
    let unknown = PartitionHandle::new(SHARD, 999);
    assert_eq!(ask(&mut world, &operator(), Kind::Deficit, unknown, own, &plain), Code::UnknownPartition);
    // A tenant that is shut out keeps nothing.
    let body = TenantBody { tenant: T1, enabled: 0, ..TenantBody::default() };
    world.operate_with(Kind::TenantSet, shard, &body);
    assert_eq!(ask(&mut world, &admin, Kind::MerchantSet, shard, own, &merchant), Code::NoRight);
}

#[test]
fn who_only_reads_looks_up_and_burns_nothing() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    let reader = Caller { roles: Roles::READER, ..caller(T1) };
    let body = ChangeBody { lock: world.id("a"), ..ChangeBody::default() };
    let mut look = |flags| {
        let record = Record::new(Kind::Lookup, world.fresh_id(), P1, Amount(0), &body).with_flags(flags);
        world.execute(&reader, vec![record]).1[0].code()
    };
    assert_eq!((look(Flags(0)), look(Flags::BURN)), (Code::Approved, Code::NoRight));
}
