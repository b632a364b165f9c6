//! One effect per key: repeats, conflicts, windows, forgetting, quotas, tenants.

mod world;

use ledger::{Config, Decision, Ledger};
use surety_protocol::*;
use world::*;

#[test]
fn row_16_a_repeat_gets_the_first_answer_and_the_present_state() {
    let mut world = World::with_policy(&Policy { headroom_bps: 1000, ..Policy::default() });
    let first = world.send(&lock("a", 100).life(60_000));
    world.send(&on(Kind::Increase, "a", 150).version(1).life(90_000));
    world.send(&capture("a", 30));
    let logged = world.log.len();
    let again = world.send(&lock("a", 100).life(60_000));
    assert_eq!(world.log.len(), logged);
    assert!(again.is_replayed() && !first.is_replayed());
    let told = |reply: &Reply| (reply.code, reply.approved, reply.extra, reply.seq, reply.deadline);
    assert_eq!(told(&again), told(&first));
    assert_eq!((again.remaining, again.version, again.free), (Amount(130), 3, Amount(840)));
    world.finish();
}

#[test]
fn row_16_every_kind_of_change_is_repeated_with_its_first_result() {
    let mut world = World::with_policy(&Policy { tolerance_bps: 5000, ..Policy::default() });
    world.send(&lock("a", 100));
    let asks = [
        on(Kind::Increase, "a", 150).version(1).life(700_000).named("1"),
        capture("a", 40).named("2"),
        capture("a", 140).named("3"),
        on(Kind::Decrease, "a", 170).named("4"),
        refund("a", 0, 10).named("5"),
        refund("a", 0, 100).named("6"),
        reverse("a", 1).named("7"),
        capture("a", 500).named("8"),
        release("a").named("9"),
        release("a").named("10"),
        settle("a", 2).named("11"),
        consume("a", 2, 0).named("12"),
        reverse("a", 2).named("13"),
        capture("a", 1).named("14"),
        advice("z", 50).named("15"),
        release("z").named("16"),
        release("y").named("17"),
        settle("z", ALL_CAPTURES).named("18"),
    ];
    let first: Vec<Reply> = asks.iter().map(|ask| world.send(ask)).collect();
    let logged = world.log.len();
    for (ask, first) in asks.iter().zip(&first) {
        assert_ne!(first.seq, Seq(0), "{ask:?}");
        let again = world.send(ask);
        let told = |reply: &Reply| {
            (reply.code(), reply.approved, reply.extra, reply.seq, reply.deadline, reply.capture)
        };
        assert_eq!(told(&again), told(first), "{ask:?}");
        assert!(again.is_replayed());
        assert_eq!(
            world.send(&Ask { flags: ask.flags | Flags::BURN, ..ask.clone() }).code(),
            Code::IdConflict
        );
    }
    assert_eq!(world.log.len(), logged, "nothing of it is logged again");
    world.finish();
}

#[test]
fn row_16_a_declined_id_stays_declined_when_there_is_room_again() {
    let mut world = World::new();
    world.send(&lock("a", 800));
    let first = world.send(&lock("b", 800));
    assert_eq!(first.code(), Code::Insufficient);
    world.send(&release("a"));
    let again = world.send(&lock("b", 800));
    assert_eq!((again.code(), again.seq, again.is_replayed()), (Code::Insufficient, first.seq, true));
    assert_eq!(world.money(), [1000, 0, 0, 0, 0, 0]);
    world.finish();
}

#[test]
fn row_17_an_id_with_another_body_conflicts() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    world.send(&lock("d", 5000));
    world.send(&capture("a", 10).named("c"));
    let check = |world: &mut World, ask: Ask| {
        let reply = world.send(&ask);
        assert_eq!((reply.code(), reply.seq), (Code::IdConflict, Seq(0)), "{ask:?}");
    };
    check(&mut world, lock("a", 101));
    check(&mut world, lock("a", 100).life(1));
    check(&mut world, Ask { merchant: MerchantId(9), ..lock("a", 100) });
    check(&mut world, lock("d", 50));
    check(&mut world, capture("a", 11).named("c"));
    check(&mut world, release("a").named("c"));
    check(&mut world, capture("d", 1).named("a"));
    check(&mut world, lock("c", 1));
    assert_eq!(world.money(), [900, 90, 10, 0, 0, 0]);
    world.finish();
}

#[test]
fn ids_are_accepted_in_their_window_and_remembered_as_long() {
    let mut world = World::new();
    let mut code_at = |age_ms: i64, kind: Kind| {
        let at = Time(world.now.0.checked_add_signed(-age_ms * 1_000_000).unwrap());
        world.next += 1;
        let id = Id::from_parts(at, world.next);
        let record = match kind {
            Kind::Lock => Record::new(kind, id, P1, Amount(1), &LockBody::default()),
            _ => {
                let body = ChangeBody {
                    lock: Id::from_parts(world.now, 1 << 70 | world.next),
                    ..ChangeBody::default()
                };
                let amount = if kind == Kind::Advice { Amount(1) } else { Amount::ZERO };
                Record::new(kind, id, P1, amount, &body)
            }
        };
        let reply = world.execute(&caller(T1), vec![record]).1.remove(0);
        assert_eq!(reply.time, world.now, "the reply tells the time");
        reply.code()
    };
    use Code::*;
    let week = 7 * 24 * 3_600_000;
    assert_eq!(code_at(0, Kind::Lock), Approved);
    assert_eq!(code_at(120_000, Kind::Lock), Approved);
    assert_eq!(code_at(120_001, Kind::Lock), StaleId);
    assert_eq!(code_at(-5000, Kind::Lock), Approved);
    assert_eq!(code_at(-5001, Kind::Lock), IdFromFuture);
    assert_eq!(code_at(120_001, Kind::Release), StaleId);
    assert_eq!(code_at(week, Kind::Advice), Approved);
    assert_eq!(code_at(week + 1, Kind::Advice), StaleId);
    assert_eq!(code_at(week, Kind::Reverse), UnknownLock);
    assert_eq!(code_at(week + 1, Kind::Reverse), StaleId);
    world.finish();
}

#[test]
fn what_can_no_longer_be_accepted_is_forgotten() {
    let mut world = World::new();
    world.send(&lock("a", 5000));
    world.send(&lock("b", 100));
    world.send(&release("b"));
    world.send(&reverse("b", 0));
    world.send(&release("x"));
    let ids = |world: &World| (world.ledger.ids_len(), world.ledger.locks_len());
    let before = ids(&world);
    world.wait(120_000);
    assert_eq!(world.send(&lock("a", 5000)).code(), Code::Insufficient, "still remembered");
    assert_eq!(ids(&world), before);
    world.wait(1);
    assert_eq!(world.send(&lock("a", 5000)).code(), Code::StaleId);
    assert_eq!(ids(&world).0, 1, "but for the reversal");
    assert_eq!(world.end("b"), End::Released, "as long as its release may be repeated");
    world.wait(5001);
    assert_eq!(ids(&world), (1, 0));
    world.wait(7 * 24 * 3_600_000);
    assert_eq!(ids(&world), (0, 0));
    let tenant = world.ledger.tenants()[1];
    assert_eq!((tenant.locks, tenant.ids, tenant.tombstones, tenant.advices), (0, 0, 0, 0));
    world.finish();
}

#[test]
fn a_finished_lock_stays_for_its_windows_and_while_something_is_open() {
    let policy = Policy { refund_window: Time::from_secs(1000), settle_by: Time::ZERO, ..Policy::default() };
    let mut world = World::with_policy(&policy);
    world.send(&lock("a", 100));
    world.send(&release("a"));
    world.send(&lock("b", 100).flag(Flags::SALE));
    world.wait(999_999);
    assert_eq!(world.ledger.locks_len(), 2);
    assert_eq!(world.send(&lock("a", 100)).end(), End::Released, "a lock that is kept answers at any age");
    world.wait(1);
    assert_eq!(world.ledger.locks_len(), 1, "something is open on the sale");
    world.wait(100_000_000);
    world.send(&settle("b", 0));
    world.wait(125_001);
    assert_eq!(world.ledger.locks_len(), 0);
    world.finish();
}

#[test]
fn a_release_of_an_unknown_stale_id_leaves_nothing() {
    let mut world = World::new();
    world.id("a");
    world.wait(120_001);
    let reply = world.send(&release("a"));
    assert_eq!((reply.code(), reply.end()), (Code::Approved, End::None));
    assert_eq!(world.ledger.tenants()[1].tombstones, 0);
    assert_eq!(world.send(&lock("a", 1)).code(), Code::StaleId);
    world.finish();
}

#[test]
fn quotas_refuse_and_never_evict() {
    let mut world = World::new();
    // One of its ids is that of its merchant.
    world.set_tenant(T1, 3);
    use Code::*;
    let check = |world: &mut World, ask: Ask, code| assert_eq!(world.send(&ask).code(), code, "{ask:?}");
    check(&mut world, lock("", 1), Approved);
    check(&mut world, lock("a", 1), Approved);
    check(&mut world, lock("b", 1), Approved);
    check(&mut world, lock("c", 1), QuotaLocks);
    check(&mut world, lock("a", 1), Approved);
    check(&mut world, release("a").named("r"), Approved);
    check(&mut world, lock("c", 1), QuotaLocks);
    check(&mut world, release("x"), Approved);
    check(&mut world, release("a"), QuotaIds);
    check(&mut world, release("a").named("r"), Approved);
    check(&mut world, reverse("a", 0), UnknownCapture);
    check(&mut world, reverse("a", 1), UnknownCapture);
    check(&mut world, reverse("a", 2), UnknownCapture);
    check(&mut world, reverse("a", 3), QuotaAdvices);
    check(&mut world, advice("b", 1), QuotaLocks);
    check(&mut world, lookup("z").flag(Flags::BURN), QuotaIds);
    // The operator's own settlements are not held up by a tenant's quota.
    check(&mut world, settle("b", ALL_CAPTURES).by(Caller { roles: Roles::KNOWN, ..operator() }), Approved);
    assert_eq!(world.ledger.tenants()[1].tombstones, 1);
    world.wait(125_001);
    check(&mut world, lock("d", 1), Approved);
    world.finish();
}

#[test]
fn tombstones_have_a_quota_of_their_own() {
    let mut world = World::new();
    let body = TenantBody {
        tenant: T1,
        locks_max: 9,
        ids_max: 9,
        tombstones_max: 1,
        advices_max: 9,
        enabled: 1,
        ..TenantBody::default()
    };
    world.operate_with(Kind::TenantSet, PartitionHandle(0), &body);
    assert_eq!(world.send(&release("x")).code(), Code::Approved);
    assert_eq!(world.send(&release("y")).code(), Code::QuotaTombstones);
    assert_eq!(world.send(&lock("x", 1)).code(), Code::AlreadyReleased);
    assert_eq!(world.send(&release("y")).code(), Code::QuotaTombstones, "it counts until it is forgotten");
    world.finish();
}

#[test]
fn full_tables_answer_overloaded() {
    let mut ledger = Ledger::new(Config { ids_max: 12, locks_max: 2, ..config() });
    ledger.advance(START, Seq(1), &mut Vec::new());
    let mut world = World { ledger, ..World::empty() };
    world.set_tenant(T1, 100);
    world.create(P1, 0);
    world.grant(P1, T1, Rights::KNOWN);
    world.deposit(P1, 1000);
    let codes: Vec<Code> = (0..3).map(|_| world.send(&lock("", 1)).code()).collect();
    assert_eq!(codes, [Code::Approved, Code::Approved, Code::Overloaded]);
    let codes: Vec<Code> = (0..9).map(|_| world.send(&capture("nothing", 1)).code()).collect();
    assert_eq!(codes[7..], [Code::UnknownLock, Code::Overloaded]);
    world.wait(125_001);
    assert_eq!(world.send(&capture("nothing", 1)).code(), Code::UnknownLock);
}

#[test]
fn another_tenants_partition_or_lock_does_not_exist() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    world.grant(P2, T2, Rights(0));
    use Code::*;
    let check = |world: &mut World, ask: Ask, code| {
        let before = world.ledger.state_hash();
        let reply = world.send(&ask);
        assert_eq!(reply.code(), code, "{ask:?}");
        let is_silent = reply.free == Amount(0) && reply.end() == End::None;
        assert!(code != UnknownPartition || is_silent && world.ledger.state_hash() == before);
    };
    check(&mut world, lock("b", 1).tenant(T2).partition(P2), UnknownPartition);
    check(&mut world, lookup("a").tenant(T2).partition(P2), UnknownPartition);
    check(&mut world, lock("b", 1).partition(PartitionHandle(99)), UnknownPartition);
    check(&mut world, lock("b", 1).partition(PartitionHandle::new(ShardId(3), 1)), UnknownPartition);
    check(&mut world, lock("b", 1).partition(PartitionHandle(0)), UnknownPartition);
    check(&mut world, capture("a", 1).tenant(T2), UnknownLock);
    check(&mut world, lookup("a").tenant(T2), NotFound);
    check(&mut world, settle("a", ALL_CAPTURES).tenant(T2), UnknownLock);
    check(&mut world, consume("a", ALL_CAPTURES, 1).tenant(T2), UnknownLock);
    // The same id under another tenant is another lock.
    check(&mut world, lock("a", 50).tenant(T2), Approved);
    assert_eq!(world.money(), [850, 150, 0, 0, 0, 0]);
    // A settler of a tenant may not name another tenant, the operator's may.
    let settler = Caller { roles: Roles::SETTLER, ..caller(T2) };
    let mut record = world.record(&settle("a", ALL_CAPTURES));
    record.tenant = T1;
    assert_eq!(world.execute(&settler, vec![record]).1[0].code(), NoRight);
    check(&mut world, settle("a", ALL_CAPTURES).by(Caller { roles: Roles::KNOWN, ..operator() }), Approved);
    assert_eq!(world.money(), [950, 50, 0, 0, 0, 0]);
    world.finish();
}

#[test]
fn rights_and_roles_are_looked_at() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    use Code::*;
    let mut check = |rights: Rights, ask: &Ask, code| {
        world.grant(P1, T1, rights);
        assert_eq!(world.send(ask).code(), code, "{rights:?} {ask:?}");
    };
    check(Rights::READ, &lock("", 1), NoRight);
    check(Rights::READ, &capture("a", 1), NoRight);
    check(Rights::READ, &lookup("a"), Approved);
    check(Rights::READ, &lookup("x").flag(Flags::BURN), NoRight);
    check(Rights::AUTHORIZE, &lookup("x").flag(Flags::BURN), NotFound);
    check(Rights::AUTHORIZE, &capture("a", 1), Approved);
    check(Rights::AUTHORIZE, &settle("a", 0), NoRight);
    check(Rights::AUTHORIZE, &consume("a", 0, 0), NoRight);
    check(Rights::AUTHORIZE, &advice("a", 1), NoRight);
    check(Rights::CONSUME, &settle("a", 0), NoRight);
    check(Rights::CONSUME, &consume("a", 0, 0), Approved);
    check(Rights::ADVISE, &advice("a", 1), Approved);
    check(Rights::SETTLE, &settle("a", 1), Approved);
    check(Rights::SETTLE, &operate(Kind::Freeze, 0).by(caller(T1)), NoRight);
    check(
        Rights::KNOWN,
        &operate(Kind::Deposit, 1).by(Caller { roles: Roles::KNOWN, ..caller(T1) }),
        NoRight,
    );
    check(
        Rights::KNOWN,
        &operate(Kind::Freeze, 0).by(Caller { roles: Roles::SETTLER, ..operator() }),
        NoRight,
    );
    let shut_out = TenantBody { tenant: T1, ..TenantBody::default() };
    world.operate_with(Kind::TenantSet, PartitionHandle(0), &shut_out);
    assert_eq!(world.send(&lock("", 1)).code(), NoRight, "a tenant that is shut out");
    world.finish();
}

#[test]
fn while_time_is_behind_locks_wait() {
    let mut world = World::new();
    world.is_strict = false;
    world.deposit(P1, 10_000);
    for _ in 0..3000 {
        world.send(&lock("", 1).life(1000));
    }
    world.send(&lock("a", 100).life(1000));
    world.now = world.now.plus(Time::from_secs(2));
    let mut out = Vec::new();
    assert!(world.ledger.advance(world.now, world.next_seq(), &mut out));
    assert_eq!(out.len(), limits::DUE_RECORDS_PER_TURN_MAX);
    assert_eq!(world.ledger.next_due(), Some(world.now));
    let decide = |world: &mut World, ask: &Ask| {
        let mut records = [world.record(ask)];
        let (mut replies, mut follow) = (Vec::new(), Vec::new());
        let seq = Seq(1 << 40);
        let decision =
            world.ledger.decide(world.now, &caller(T1), seq, &mut records, &mut replies, &mut follow);
        (decision, replies[0].code())
    };
    let waits = (Decision::NotLogged, Code::Overloaded);
    assert_eq!(decide(&mut world, &lock("b", 20_000)), waits, "never INSUFFICIENT");
    assert_eq!(decide(&mut world, &capture("a", 1)), waits, "its expiry is due");
    assert!(world.ledger.advance(world.now, Seq(1), &mut out));
    assert!(!world.ledger.advance(world.now, Seq(1), &mut out));
    assert_eq!(out.len(), 3001);
    assert!(out.windows(2).all(|pair| pair[0].id < pair[1].id), "one deadline: in order of ids");
    assert_eq!(decide(&mut world, &lock("b", 20_000)), (Decision::Logged, Code::Insufficient));
    assert_eq!(world.ledger.verify(), Ok(()));
}

#[test]
fn a_jump_in_time_loses_nothing() {
    for days in [0, 1, 12, 13, 24, 25, 49, 50, 100, 399] {
        let mut world = World::new();
        world.send(&lock("a", 100));
        world.send(&lock("b", 100).flag(Flags::SALE));
        world.wait(days * 24 * 3_600_000 + 700_000);
        assert_eq!(world.money()[1], 0, "expired, {days} days later");
        assert_eq!(world.money()[4], if days == 0 { 0 } else { 100 }, "consumed, {days} days later");
        world.wait(200_000);
        assert_eq!(world.ledger.locks_len(), usize::from(days == 0));
        world.finish();
    }
}

#[test]
fn a_refused_chain_leaves_not_even_memory() {
    let mut world = World::new();
    world.is_strict = false;
    world.send(&lock("live", 10));
    let refuse = |world: &mut World| {
        let mut members: Vec<Ask> = (0..20).map(|_| on(Kind::Release, "", 0)).collect();
        members.push(consume("live", ALL_CAPTURES, 0));
        let (decision, replies) = world.chain(&members);
        assert_eq!((decision, replies[20].code()), (Decision::NotLogged, Code::Malformed));
    };
    refuse(&mut world);
    let before = world.ledger.memory_bytes();
    (0..1000).for_each(|_| refuse(&mut world));
    // The tables of the index are made as keys fall into them; 40,000 ids and tombstones would take two megabytes.
    assert!(world.ledger.memory_bytes() < before + 300_000);
    world.check();
    world.finish();
}

#[test]
fn a_burn_that_comes_too_late_does_not_claim_to_know() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    world.send(&release("a"));
    world.wait(200_000);
    assert_eq!(world.send(&lookup("a")).code(), Code::NotFound);
    let burned = world.send(&lookup("a").flag(Flags::BURN));
    assert_eq!(
        (burned.code(), burned.seq, burned.end()),
        (Code::NotFound, Seq(0), End::None),
        "not recorded"
    );
    world.finish();
}

#[test]
fn a_lasting_id_is_good_for_seven_days_and_names_its_lock() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    world.send(&lock("b", 100));
    let lasting = |ask: Ask| ask.flag(Flags::LASTING);
    let lower = lasting(on(Kind::Decrease, "a", 60)).named("lower");
    let short = on(Kind::Decrease, "b", 60).named("short");
    // A burn is lasting too, and may come late.
    let late = lookup("never came").flag(Flags::BURN);
    world.send(&advice("b", 130).finally().flag(Flags::LASTING).named("told"));
    let ids = [world.record(&lower).id, world.id("short"), world.id("never came")];
    world.wait(500_000);
    assert_eq!(world.send(&short).code(), Code::StaleId);
    assert_eq!(world.send(&late).seq, Seq(0), "an ordinary burn is too late");
    let logged = world.log.len();
    assert_eq!(world.send(&lasting(late.clone())).seq, Seq(logged as u64 + 1));
    let first = world.send(&lower);
    assert_eq!((first.code(), first.approved), (Code::Approved, Amount(40)));
    assert_eq!(ids, [world.id("lower"), world.id("short"), world.id("never came")]);
    world.wait(6 * 24 * 3600 * 1000);
    let again = world.send(&lower);
    assert_eq!((again.code(), again.approved, again.flags), (Code::Approved, Amount(40), REPLAYED));
    let shown = world.send(&lookup("lower"));
    assert_eq!((shown.code(), shown.remaining), (Code::Approved, Amount(world.id("a").0)));
    let shown = world.send(&lookup("told"));
    assert_eq!((shown.approved, shown.extra), (Amount(100), Amount(30)));
    assert_eq!((shown.remaining, shown.capture), (Amount(world.id("b").0), 0));
    assert_eq!(world.send(&late).code(), Code::Burned);
    world.wait(24 * 3600 * 1000);
    assert_eq!(world.send(&lower).code(), Code::StaleId);
    assert_eq!(world.send(&late).code(), Code::NotFound);
    world.finish();
}

/// What was forgotten must not come back under a longer window: an ordinary id never lasts, and one that lasts is never ordinary.
#[test]
fn what_was_forgotten_is_not_executed_again_by_a_mark() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    let take = capture("a", 30).named("taken");
    let mut record = world.record(&take);
    assert_eq!(world.send(&take).code(), Code::Approved);
    world.wait(200_000);
    assert_eq!(world.send(&take).code(), Code::StaleId);
    let by = caller(T1);
    record.flags |= Flags::LASTING.0;
    assert_eq!(world.execute(&by, vec![record]).1[0].code(), Code::Malformed, "an ordinary id with the mark");
    record.id = record.id.lasting();
    record.flags &= !Flags::LASTING.0;
    assert_eq!(world.execute(&by, vec![record]).1[0].code(), Code::Malformed, "a lasting id without it");
    world.finish();
}

#[test]
fn a_look_up_of_what_has_ended_shows_what_is_open_of_a_capture() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    world.send(&capture("a", 30));
    assert_eq!(world.send(&lookup("a")).extra, Amount(0), "its headroom while it lives");
    world.send(&capture("a", 50).finally());
    let open = |world: &mut World, capture| world.send(&Ask { capture, ..lookup("a") }).extra.0;
    assert_eq!([0, 1, 2].map(|capture| open(&mut world, capture)), [30, 50, 0]);
    world.send(&refund("a", 1, 20));
    world.send(&reverse("a", 0));
    assert_eq!([0, 1, ALL_CAPTURES].map(|capture| open(&mut world, capture)), [0, 30, 0]);
    world.finish();
}
