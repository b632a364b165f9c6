//! After a loss that was accepted: time does nothing, nobody but the operator is served, nothing that may be lost is told as fresh,
//! and once a partition is reconciled it lives as ever.
#![allow(clippy::unwrap_used, reason = "test code")]

mod world;

use ledger::{AcceptedLoss, Divergence, Intake, Ledger, LossError};
use surety_protocol::*;
use world::*;

/// The operator's admin with every role that its work needs.
fn admin() -> Caller {
    Caller { roles: Roles::ADMIN | Roles::AUTHORIZER | Roles::SETTLER, ..operator() }
}

fn settler() -> Caller {
    Caller { roles: Roles::SETTLER, ..operator() }
}

fn policy() -> Policy {
    Policy {
        settle_by: Time::from_secs(60),
        claim_margin: Time::from_secs(30),
        unbonding: Time::from_secs(100),
        settlement_window: Time::from_secs(30 * 24 * 3600),
        ..Policy::default()
    }
}

/// A life with something of everything that time ends, and how many records of it are kept; behind them it goes on.
fn life() -> (World, usize) {
    let mut world = World::with_policy(&policy());
    world.deposit_by(SUPPLIER, 1_000);
    world.send(&lock("expires", 100).life(50_000));
    world.send(&lock("captured", 100).life(3_600_000));
    world.send(&capture("captured", 40));
    world.send(&lock("certified", 100).life(20_000).flag(Flags::CERTIFIED));
    world.send(&release("certified"));
    assert_eq!(world.withdraw_by(SUPPLIER, 10_000_000).code(), Code::Queued);
    let kept = world.log.len();
    world.wait(1_000);
    (world, kept)
}

/// The same, lost and accepted.
fn lost() -> World {
    let (mut world, kept) = life();
    world.send(&lock("lost", 70));
    world.send(&capture("lost", 30));
    assert_eq!(world.send(&settle("captured", 0)).code(), Code::Approved);
    world.lose(kept, world.now);
    world.wait(5_001);
    world
}

fn kinds_behind(world: &World, from: usize) -> Vec<Kind> {
    world.log[from..].iter().map(|record| record.kind().unwrap()).collect()
}

#[test]
fn time_does_nothing_before_a_partition_is_reconciled_and_all_of_it_then() {
    let mut world = lost();
    let (records, money) = (world.log.len(), world.money());
    for _ in 0..5 {
        world.wait(1_000_000);
        assert_eq!(world.log.len(), records, "{:?}", world.log.last());
        let next = world.ledger.next_due();
        assert!(next.is_none_or(|next| next > world.now), "nothing is due that could be done: {next:?}");
    }
    assert_eq!(world.money(), money);
    // Nor before a record of the operator, nor before the one that ends it.
    world.send(&on(Kind::Settle, "captured", 0).by(admin()).named("settled"));
    world.send(&operate(Kind::Freeze, 0));
    world.send(&operate(Kind::Unfreeze, 0));
    assert_eq!(kinds_behind(&world, records), [Kind::Settle, Kind::Freeze, Kind::Unfreeze]);
    world.finish();
    let reconciled = world.log.len();
    world.reconcile(P1);
    world.wait(1);
    let mut done = kinds_behind(&world, reconciled);
    done.sort_unstable();
    assert_eq!(done, [Kind::Reconcile, Kind::Expire, Kind::Expire, Kind::WithdrawPaid, Kind::Mature]);
    assert_eq!(world.end("expires"), End::Expired);
    world.finish();
}

#[test]
fn what_the_lost_life_has_settled_is_not_consumed_again() {
    let mut world = lost();
    world.wait(3_600_000);
    assert_eq!(world.send(&settle("captured", 0).by(admin())).code(), Code::Approved);
    world.reconcile(P1);
    world.wait(1);
    assert!(world.log.iter().all(|record| record.kind() != Some(Kind::AutoConsume)));
    assert_eq!(world.money()[4], 10, "nothing is owed but the withdrawal");
    // And what nobody has brought to the books is done by time as ever.
    let mut world = lost();
    world.wait(3_600_000);
    world.reconcile(P1);
    world.wait(1);
    assert!(world.log.iter().any(|record| record.kind() == Some(Kind::AutoConsume)));
    world.finish();
}

#[test]
fn a_log_in_which_time_went_on_does_not_replay() {
    let world = lost();
    let (mut other, kept) = life();
    other.wait(200_000);
    let fired: Vec<Record> = other.log[kept..].to_vec();
    for kind in [Kind::Expire, Kind::AutoConsume, Kind::Mature, Kind::WithdrawPaid] {
        let mut log = world.log.clone();
        let record = *fired.iter().find(|record| record.kind() == Some(kind)).unwrap();
        log.push(Record { time: other.now, ..record });
        let divergence = replay(Ledger::new(config()), Seq(1), &log).err();
        assert!(matches!(divergence, Some(Divergence::NotDue { .. })), "{kind} {divergence:?}");
    }
}

#[test]
fn only_the_operators_admin_works_where_nothing_is_reconciled() {
    let of_lock = |kind, amount| on(kind, "captured", amount);
    let stake = |kind| operate(kind, 1_000);
    let asks = [
        lock("new", 10),
        Ask { version: 2, ..of_lock(Kind::Increase, 110) },
        of_lock(Kind::Decrease, 90),
        of_lock(Kind::Capture, 5),
        of_lock(Kind::Refund, 5),
        of_lock(Kind::Reverse, 0),
        of_lock(Kind::Advice, 5),
        of_lock(Kind::Settle, 0),
        of_lock(Kind::Consume, 0),
        of_lock(Kind::Release, 0),
        guarantee(Kind::GuaranteeCalled, "certified", 0),
        guarantee(Kind::GuaranteeDismissed, "certified", 0),
        guarantee(Kind::GuaranteePaid, "certified", 5),
        stake(Kind::Deposit),
        stake(Kind::Reward),
        stake(Kind::Withdraw),
        operate(Kind::BatchFinal, 1),
        operate(Kind::Deficit, 1),
        operate(Kind::Freeze, 0),
        operate(Kind::Unfreeze, 0),
        operate(Kind::Cover, 1),
        operate(Kind::WriteOff, 1),
    ];
    for ask in &asks {
        let is_new = matches!(ask.kind, Kind::Lock | Kind::Increase);
        let is_control = matches!(ask.kind.origin(), Origin::Chain | Origin::Admin);
        let others: &[Caller] = if is_control { &[settler()] } else { &[caller(T1)] };
        for by in others.iter().filter(|by| by.may_send(ask.kind, ask.tenant)) {
            let mut world = lost();
            let reply = world.send(&ask.clone().by(*by));
            assert_eq!(reply.code(), Code::UnknownAfterRestore, "{:?} by {by:?}", ask.kind);
            assert_eq!((reply.seq, reply.flags), (Seq(0), 0));
            // It burns nothing: the same request is decided once the partition is reconciled.
            let request = world.record(&ask.clone().named("later"));
            assert_eq!(world.execute(by, vec![request]).1[0].code(), Code::UnknownAfterRestore);
            world.reconcile(P1);
            world.wait(1);
            assert!(world.execute(by, vec![request]).1[0].code().is_recorded(), "{:?}", ask.kind);
        }
        let mut world = lost();
        let reply = world.send(&ask.clone().by(admin()));
        if is_new {
            assert_eq!(reply.code(), Code::UnknownAfterRestore, "what is free in the books may not be");
            continue;
        }
        assert!(reply.code().is_recorded(), "{:?}: {}", ask.kind, reply.code());
        assert!(reply.is_unreconciled());
        let record = world.log[usize::try_from(reply.seq.0).unwrap() - 1];
        let mut unnamed = record;
        unnamed.set_actor(ask.kind, ActorId(0));
        assert_ne!(record, unnamed, "{:?} says who did it", ask.kind);
        world.finish();
    }
    let mut world = lost();
    let reply = world.send(&operate(Kind::Reconcile, 0).by(settler()));
    assert_eq!(reply.code(), Code::NoRight);
    let reply = world.send(&operate(Kind::Reconcile, 0).by(Caller { roles: Roles::KNOWN, ..caller(T1) }));
    assert_eq!(reply.code(), Code::NoRight);
    // Each partition for itself.
    world.reconcile(P2);
    assert!(!world.ledger.partition(P2).unwrap().is_unreconciled);
    assert_eq!(world.send(&lock("new", 10)).code(), Code::UnknownAfterRestore);
    assert!(world.send(&lock("new", 10).partition(P2)).code().is_recorded());
    world.reconcile(P1);
    world.reconcile(P1);
    assert_eq!(world.send(&lock("new", 10)).code(), Code::Approved);
    world.finish();
}

#[test]
fn what_is_kept_is_told_and_marked() {
    let mut world = lost();
    let reply = world.send(&lookup("captured"));
    assert_eq!((reply.code(), reply.approved, reply.end()), (Code::Approved, Amount(100), End::Live));
    assert!(reply.is_unreconciled() && !reply.is_replayed());
    let repeat = world.send(&lock("expires", 100).life(50_000));
    assert_eq!(repeat.code(), Code::Approved);
    assert!(repeat.is_unreconciled() && repeat.is_replayed());
    assert_eq!(world.send(&lock("expires", 101).life(50_000)).code(), Code::IdConflict);
    // A burn would be a record of somebody who may make none.
    assert_eq!(world.send(&lookup("fresh")).code(), Code::NotFound);
    assert_eq!(world.send(&lookup("fresh").flag(Flags::BURN)).code(), Code::UnknownAfterRestore);
    world.reconcile(P1);
    assert_eq!(world.send(&lookup("captured")).flags, 0);
    assert_eq!(world.send(&lookup("fresh").flag(Flags::BURN)).end(), End::Declined);
}

/// What a reason is called, and how a world comes to it.
type Reason = (&'static str, fn(&mut World));

/// Reasons to say "definitely not executed", each of which is untrue of what a lost life may have done.
#[test]
fn of_a_lost_id_nothing_definite_is_said() {
    let reasons: [Reason; 9] = [
        ("no other", |_| ()),
        ("reconciled", |world| world.reconcile(P1)),
        ("the window", |world| world.wait(30 * 24 * 3600 * 1000)),
        ("years", |world| world.wait(20 * 365 * 24 * 3600 * 1000)),
        ("a quota", |world| world.set_tenant(T1, 0)),
        ("no rights", |world| world.grant(P1, T1, Rights(0))),
        ("a full engine", |world| world.ledger.set_intake(Intake::Nothing)),
        ("a full disk", |world| world.ledger.set_intake(Intake::NoLocks)),
        ("the cap", |world| {
            let body = ControlBody { until: Time(1), ..ControlBody::default() };
            world.operate_with(Kind::RiskCap, P1, &body);
        }),
    ];
    for (name, prepare) in reasons {
        let mut world = lost();
        prepare(&mut world);
        let mut check = |ask: &Ask| {
            let reply = world.send(ask);
            assert_eq!(reply.code(), Code::UnknownAfterRestore, "{name}: {ask:?}");
            assert_eq!((reply.seq, reply.end()), (Seq(0), End::None), "{name}: {ask:?}");
        };
        check(&lock("lost", 70));
        check(&lock("lost", 71));
        check(&lookup("lost"));
        check(&lookup("lost").flag(Flags::BURN));
        check(&lookup("lost").by(settler()));
        check(&lookup("lost").flag(Flags::BURN | Flags::LASTING));
        check(&lock("lost", 70).partition(PartitionHandle(99)));
        check(&lock("lost", 70).tenant(TenantId(99)));
        for ask in [capture("lost", 1), release("lost"), settle("lost", 0), refund("lost", 0, 1)] {
            if !matches!(name, "a quota" | "no rights") {
                check(&ask);
            }
        }
        world.ledger.set_intake(Intake::All);
        world.finish();
    }
    // A role that a certificate does not have it never had; a request that makes no sense never made any.
    let mut world = lost();
    let reader = Caller { roles: Roles::READER, ..caller(T1) };
    assert_eq!(world.send(&lock("lost", 70).by(reader)).code(), Code::NoRight);
    assert_eq!(world.send(&lock("lost", 0)).code(), Code::Malformed);
}

#[test]
fn the_lost_window_has_edges() {
    let (mut world, kept) = life();
    let (from, until) = (world.log[kept - 1].time, world.now.plus(Time::from_secs(10)));
    world.lose(kept, until);
    let end = until.plus(limits::ID_FUTURE_MAX);
    world.now = end.plus(Time::from_secs(1));
    world.reconcile(P1);
    let check = |world: &mut World, at: Time, expect: Code| {
        let id = Id::from_parts(at, 12345);
        let body = ChangeBody { lock: id, ..ChangeBody::default() };
        let record = Record::new(Kind::Lookup, world.fresh_id(), P1, Amount::ZERO, &body);
        let reply = world.execute(&caller(T1), vec![record]).1.remove(0);
        assert_eq!(reply.code(), expect, "{at:?}");
    };
    // What is asked about may be of any age, a request's own id may not.
    let check_own = |world: &mut World, at: Time, expect: Code| {
        let body = ChangeBody { lock: world.fresh_id(), ..ChangeBody::default() };
        let record = Record::new(Kind::Advice, Id::from_parts(at, 54321), P1, Amount(1), &body);
        let reply = world.execute(&caller(T1), vec![record]).1.remove(0);
        assert_eq!(reply.code(), expect, "{at:?}");
    };
    let ms = Time::from_millis(1);
    let first = from.minus(limits::ADVICE_WINDOW);
    check(&mut world, Time::from_millis(1), Code::UnknownAfterRestore);
    check(&mut world, first.minus(ms), Code::UnknownAfterRestore);
    check_own(&mut world, first.minus(ms), Code::StaleId);
    check_own(&mut world, first, Code::UnknownAfterRestore);
    check_own(&mut world, end, Code::UnknownAfterRestore);
    check(&mut world, from, Code::UnknownAfterRestore);
    check(&mut world, end, Code::UnknownAfterRestore);
    check(&mut world, end.plus(ms), Code::NotFound);
    // Never before the moment at which it was accepted.
    let (mut world, kept) = life();
    world.lose(kept, world.log[kept - 1].time);
    let now = world.now;
    world.now = now.plus(Time::from_secs(10));
    check(&mut world, now.plus(limits::ID_FUTURE_MAX), Code::UnknownAfterRestore);
}

#[test]
fn a_chain_that_may_be_lost_is_unknown_as_a_whole() {
    let mut world = lost();
    world.reconcile(P1);
    let (_, replies) = world.chain(&[lock("fresh", 10), lock("lost", 70)]);
    assert!(replies.iter().all(|reply| reply.code() == Code::UnknownAfterRestore), "{replies:?}");
    world.set_tenant(T1, 0);
    let (_, replies) = world.chain(&[lock("fresh", 10), lock("lost", 70)]);
    assert!(replies.iter().all(|reply| reply.code() == Code::UnknownAfterRestore), "{replies:?}");
    world.set_tenant(T1, 1000);
    let (_, replies) = world.chain(&[lock("fresh", 10), lock("fresher", 10)]);
    assert!(replies.iter().all(|reply| reply.code() == Code::Approved), "{replies:?}");
    let (_, replies) = world.chain(&[lock("freshest", 10), capture("lost", 10)]);
    assert!(replies.iter().all(|reply| reply.code() == Code::UnknownAfterRestore), "{replies:?}");
    world.finish();
}

#[test]
fn an_advice_of_a_lost_lock_is_exposure_and_makes_no_lock() {
    let mut world = lost();
    world.reconcile(P1);
    world.wait(1);
    let before = world.money();
    let reply = world.send(&advice("lost", 25).named("advised"));
    assert_eq!((reply.code(), reply.approved, reply.extra), (Code::Approved, Amount(0), Amount(25)));
    let [free, held, captured, pending, owed, exposure] = before;
    assert_eq!(world.money(), [free, held, captured, pending, owed, exposure + 25]);
    assert_eq!(world.send(&lookup("lost")).code(), Code::UnknownAfterRestore);
    assert!(world.send(&advice("lost", 25).named("advised")).is_replayed());
    world.finish();
}

/// The name of a lock that is older than any request may be.
fn name_an_old_lock(world: &mut World) {
    let age = limits::ADVICE_WINDOW.plus(Time::from_secs(24 * 3600));
    world.names.insert("old", Id::from_parts(world.log[0].time.minus(age), 4711));
}

#[test]
fn a_lock_that_the_lost_life_made_under_an_old_id_is_unknown_and_takes_nothing_again() {
    let (mut world, kept) = life();
    name_an_old_lock(&mut world);
    let reply = world.send(&advice("old", 25).named("told"));
    assert_eq!((reply.code(), reply.approved), (Code::Approved, Amount(25)), "its id is as old as it likes");
    assert_eq!(world.end("old"), End::Exposed);
    world.lose(kept, world.now);
    world.wait(5_001);
    world.reconcile(P1);
    world.wait(1);
    let before = world.money();
    for ask in [
        reverse("old", 0),
        refund("old", 0, 1),
        release("old"),
        capture("old", 1),
        settle("old", 0),
        lookup("old"),
        lookup("old").flag(Flags::BURN),
        lookup("old").flag(Flags::BURN | Flags::LASTING),
    ] {
        let reply = world.send(&ask);
        assert_eq!((reply.code(), reply.seq), (Code::UnknownAfterRestore, Seq(0)), "{ask:?}");
    }
    assert_eq!(world.release_group(RELEASE_KEY, &[("old", 0, 1)]).code(), Code::UnknownAfterRestore);
    assert_eq!(world.money(), before);
    let reply = world.send(&advice("old", 25).named("advised"));
    assert_eq!((reply.code(), reply.approved, reply.extra), (Code::Approved, Amount(0), Amount(25)));
    let [free, held, captured, pending, owed, exposure] = before;
    assert_eq!(world.money(), [free, held, captured, pending, owed, exposure + 25], "nothing is drawn twice");
    // A request under an id of that age was refused by the lost life as well: that is definite.
    assert_eq!(world.send(&lock("old", 10)).code(), Code::StaleId);
    world.finish();
}

#[test]
fn an_advice_that_makes_a_lock_after_a_loss_makes_it_as_ever() {
    let mut world = lost();
    world.reconcile(P1);
    world.wait(1);
    let reply = world.send(&advice("fresh", 25).named("advised"));
    assert_eq!((reply.code(), reply.approved, reply.capture), (Code::Approved, Amount(25), 0));
    assert_eq!(world.lock_state("fresh").unwrap().version, 1);
    world.finish();
}

#[test]
fn facts_of_the_chain_are_true_of_what_is_lost() {
    let mut world = lost();
    world.reconcile(P1);
    for kind in [Kind::GuaranteeCalled, Kind::GuaranteeDismissed] {
        assert_eq!(world.send(&guarantee(kind, "lost", 0)).code(), Code::UnknownLock);
    }
    assert_eq!(world.send(&guarantee(Kind::GuaranteePaid, "lost", 5)).code(), Code::UnknownLock);
}

#[test]
fn versions_and_captures_of_the_lost_life_never_fit_again() {
    let (mut world, kept) = life();
    let version = world.send(&capture("captured", 7)).version;
    let index = world.send(&capture("captured", 8)).capture;
    assert_eq!(index, 2);
    world.lose(kept, world.now);
    world.wait(5_001);
    world.reconcile(P1);
    let leapt = world.lock_state("captured").unwrap().version;
    assert_eq!(leapt, version - 1 + limits::VERSION_LEAP);
    for stale in 1..version + 3 {
        assert_eq!(world.send(&capture("captured", 1).version(stale)).code(), Code::VersionConflict);
        let ask = Ask { version: stale, ..on(Kind::Increase, "captured", 110) };
        assert_eq!(world.send(&ask).code(), Code::VersionConflict);
    }
    // Index 1 and 2 were told in the lost life.
    let reply = world.send(&capture("captured", 5).version(leapt));
    assert_eq!((reply.code(), reply.capture, reply.version), (Code::Approved, 16, leapt + 1));
    assert_eq!(world.send(&settle("captured", 1)).code(), Code::UnknownCapture);
    assert_eq!(world.send(&lookup("captured")).capture, 2, "there are two of them");
    let mut last = 0;
    for _ in 0..14 {
        last = world.send(&capture("captured", 1)).capture;
    }
    assert_eq!(last, 30);
    assert_eq!(world.send(&capture("captured", 1)).code(), Code::UnknownCapture, "sixteen are all");
    // What is made from now on begins as ever.
    let reply = world.send(&lock("later", 10));
    assert_eq!(reply.version, 1);
    assert_eq!(world.send(&capture("later", 1)).capture, 0);
    world.finish();
    assert_eq!(world.send(&Ask { capture: ALL_CAPTURES, ..settle("captured", 0) }).code(), Code::Approved);
    assert_eq!(world.lock_state("captured").unwrap().captures.iter().map(|c| c.open).sum::<u128>(), 0);
    world.finish();
}

#[test]
fn a_release_that_was_signed_in_the_lost_life_frees_nothing() {
    let mut world = World::with_policy(&policy());
    world.send(&lock("certified", 100).life(3_600_000).flag(Flags::CERTIFIED));
    let kept = world.log.len();
    // What the merchant of the lost life has signed: the lock as it was then.
    let signed = world.send(&on(Kind::Decrease, "certified", 20)).version;
    world.lose(kept, world.now);
    world.wait(5_001);
    world.reconcile(P1);
    world.send(&release("certified"));
    let pending = world.money()[3];
    assert_eq!(pending, 100);
    assert_eq!(
        world.release_group(RELEASE_KEY, &[("certified", 0, u32::from(signed))]).code(),
        Code::UnknownLock
    );
    assert_eq!(world.money()[3], pending);
    let version = world.lock_state("certified").unwrap().version;
    assert_eq!(
        world.release_group(RELEASE_KEY, &[("certified", 0, u32::from(version))]).code(),
        Code::Approved
    );
    assert_eq!(world.money()[3], 0);
    world.finish();
}

#[test]
fn a_release_of_lost_locks_alone_is_unknown() {
    let mut world = lost();
    world.reconcile(P1);
    world.wait(1);
    assert_eq!(world.release_group(RELEASE_KEY, &[("lost", 0, 9)]).code(), Code::UnknownAfterRestore);
    world.finish();
}

#[test]
fn a_snapshot_keeps_what_time_has_not_done() {
    let mut world = lost();
    world.wait(1_000_000);
    let entries: Vec<_> = world.ledger.entries().collect();
    let mut loaded = Ledger::from_entries(config(), world.now, entries).unwrap();
    let mut out = Vec::new();
    assert!(!loaded.advance(world.now, Seq(1), &mut out));
    assert!(out.is_empty(), "{out:?}");
    world.ledger = loaded;
    world.reconcile(P1);
    world.wait(1);
    assert_eq!(world.end("expires"), End::Expired);
    world.finish();
}

/// Locks of every sort that time ends, all of them due after the loss, and nothing reconciled.
fn due_and_suspended() -> World {
    let mut world = World::with_policy(&policy());
    world.deposit_by(SUPPLIER, 10_000);
    world.send(&lock("live", 100).life(50_000));
    world.send(&lock("open", 100).life(50_000));
    world.send(&capture("open", 40));
    world.send(&lock("ended", 100).life(50_000));
    world.send(&capture("ended", 40));
    world.send(&capture("ended", 30));
    world.send(&release("ended"));
    world.send(&lock("long", 100).life(40 * 24 * 3_600_000));
    world.send(&capture("long", 40));
    world.send(&lock("certified", 100).life(20_000).flag(Flags::CERTIFIED));
    world.send(&lock("given", 100).life(20_000).flag(Flags::CERTIFIED));
    world.send(&release("given"));
    world.send(&lock("called", 100).life(20_000).flag(Flags::CERTIFIED));
    world.send(&guarantee(Kind::GuaranteeCalled, "called", 0));
    world.lose(world.log.len(), world.now);
    world.wait(100_000);
    world
}

/// The records of one step, and the state hash behind them.
type Passed = (Vec<Record>, u128);

/// What time does to a ledger from now on, step by step.
fn future(ledger: &mut Ledger, now: Time, seq: Seq) -> Vec<Passed> {
    let (mut now, mut seq, mut steps) = (now, seq, Vec::new());
    for ms in [0, 1, 1_000, 60_000, 200_000, 3_600_000, 8 * 24 * 3_600_000, 90 * 24 * 3_600_000] {
        now = now.plus(Time::from_millis(ms));
        let mut out = Vec::new();
        while ledger.advance(now, seq, &mut out) {}
        seq.0 += out.len() as u64;
        // What is due at one moment may come in any order that the deadlines allow.
        out.sort_unstable_by_key(|record| (record.kind, record.body::<ChangeBody>().lock, record.amount));
        out.iter_mut().for_each(|record| record.body[16..32].fill(0));
        steps.push((out, ledger.checkpoint(now).body::<ControlBody>().reference));
    }
    steps
}

/// The log, and a snapshot of every moment with the log behind it, lead to the same state, in which the same is due.
fn same_from_everywhere(mut world: World, name: &str) {
    world.checkpoint();
    let (end, next) = (world.now, world.next_seq());
    let loss = world.log.iter().position(|record| record.kind() == Some(Kind::Loss)).unwrap();
    let hash = world.ledger.state_hash();
    let live = future(&mut world.ledger, end, next);
    let check = |ledger: Result<Ledger, Divergence>, from: &str| {
        let mut ledger = ledger.unwrap_or_else(|divergence| panic!("{name}, {from}: {divergence}"));
        assert_eq!(ledger.state_hash(), hash, "{name}, {from}");
        assert_eq!(future(&mut ledger, end, next), live, "{name}, {from}");
    };
    check(replay(Ledger::new(config()), Seq(1), &world.log), "the log");
    for cut in loss + 1..=world.log.len() {
        let before = replay(Ledger::new(config()), Seq(1), &world.log[..cut]).unwrap();
        let entries: Vec<_> = before.entries().collect();
        let loaded = Ledger::from_entries(config(), before.time(), entries).unwrap();
        check(replay(loaded, Seq(cut as u64 + 1), &world.log[cut..]), &format!("a snapshot at {cut}"));
    }
}

#[test]
fn whatever_the_operator_does_to_what_is_suspended_log_and_snapshot_agree() {
    let kinds = [
        (Kind::Settle, 0, 0),
        (Kind::Settle, 0, 1),
        (Kind::Settle, 0, ALL_CAPTURES),
        (Kind::Consume, 0, 0),
        (Kind::Consume, 10, ALL_CAPTURES),
        (Kind::Decrease, 50, 0),
        (Kind::Capture, 10, 0),
        (Kind::Release, 0, 0),
        (Kind::Refund, 40, 0),
        (Kind::Reverse, 0, 0),
        (Kind::Advice, 5, 0),
        (Kind::GuaranteeCalled, 0, 0),
        (Kind::GuaranteeDismissed, 0, 0),
        (Kind::GuaranteePaid, 5, 0),
    ];
    let mut done = 0;
    for name in ["live", "open", "ended", "long", "certified", "given", "called"] {
        for (kind, amount, capture) in kinds {
            // Before and after what an ended lock is kept for; the second operation meets a lock that the first has changed.
            for (between, after) in [(0, 0), (0, 10 * 24 * 3_600_000), (300_000, 31 * 24 * 3_600_000)] {
                let mut world = due_and_suspended();
                let request = Ask { capture, ..on(kind, name, amount).by(admin()) };
                done += u32::from(world.send(&request).code().is_success());
                world.wait(between);
                world.send(&on(Kind::Release, name, 0).by(admin()));
                world.send(&Ask { capture: ALL_CAPTURES, ..settle(name, 0).by(admin()) });
                world.wait(after);
                world.reconcile(P1);
                assert_eq!(world.send(&lock("at once", 10)).code(), Code::Approved, "{kind} {name}");
                same_from_everywhere(world, &format!("{kind} of {name}, {after}"));
                let mut world = due_and_suspended();
                world.send(&request);
                world.wait(after);
                world.reconcile(P1);
                assert_eq!(world.send(&lock("at once", 10)).code(), Code::Approved, "{kind} {name}");
                same_from_everywhere(world, &format!("{kind} alone of {name}, {after}"));
            }
        }
    }
    assert!(done > 60, "most of them do something: {done}");
}

#[test]
fn what_is_put_aside_comes_a_turn_at_a_time() {
    let mut world = World::with_policy(&policy());
    let count = limits::DUE_RECORDS_PER_TURN_MAX + 5;
    world.deposit_by(SUPPLIER, 10 * count as u128);
    world.set_tenant(T1, 10_000);
    for _ in 0..count {
        world.names.remove("one");
        assert_eq!(world.send(&lock("one", 1).life(20_000)).code(), Code::Approved);
    }
    world.lose(world.log.len(), world.now);
    world.now = world.now.plus(Time::from_secs(100));
    let (mut out, mut turns) = (Vec::new(), 1);
    while world.ledger.advance(world.now, world.next_seq(), &mut out) {
        turns += 1;
    }
    assert!(out.is_empty() && turns <= 2, "{turns}");
    world.reconcile(P1);
    let records = world.log.len();
    world.wait(1);
    assert_eq!(world.log.len(), records + count);
    world.finish();
}

#[test]
fn a_partition_that_is_made_after_a_loss_is_unreconciled() {
    let mut world = lost();
    let third = PartitionHandle(3);
    world.create(third, 0);
    assert!(world.ledger.partition(third).unwrap().is_unreconciled);
    assert_eq!(world.deposit_by_settler(third).code(), Code::UnknownAfterRestore);
    world.reconcile(third);
    assert_eq!(world.deposit_by_settler(third).code(), Code::Approved);
    world.finish();
    // Without a loss there is nothing to reconcile.
    let mut world = World::new();
    assert_eq!(world.send(&operate(Kind::Reconcile, 0)).code(), Code::Malformed);
}

impl World {
    fn deposit_by_settler(&mut self, partition: PartitionHandle) -> Reply {
        self.send(&operate(Kind::Deposit, 10).partition(partition).by(settler()))
    }
}

#[test]
fn a_loss_on_a_loss_leaps_again_until_there_is_no_more_room() {
    let (mut world, _) = life();
    let version = world.lock_state("captured").unwrap().version;
    for number in 1..=limits::LOSSES_MAX {
        world.lose(world.log.len(), world.now);
        world.wait(5_001);
        world.reconcile(P1);
        let number = u16::try_from(number).unwrap();
        // Each loss has its own leap: no version of one life is one of another.
        let leapt =
            version.checked_add(limits::VERSION_LEAP.checked_mul(number).unwrap()).unwrap() + number - 1;
        assert_eq!(world_version(&world), leapt);
        assert_eq!(world.send(&capture("captured", 1)).capture, 16 * number);
    }
    assert_eq!(world.try_to_lose(world.log.len(), world.now), Err(LossError::TooMany));
    world.finish();
}

fn world_version(world: &World) -> u16 {
    world.lock_state("captured").unwrap().version
}

#[test]
fn a_loss_that_cannot_be_is_refused() {
    let (world, kept) = life();
    let time = world.log[kept - 1].time;
    let fresh = || replay(Ledger::new(config()), Seq(1), &world.log[..kept]).unwrap();
    let before = fresh().state_hash();
    let earlier = time.minus(Time(1));
    let check = |now, until, expect| {
        let mut ledger = fresh();
        let found = ledger.accept_loss(now, Seq(kept as u64), AcceptedLoss { life: 1, until });
        assert_eq!(found, Err(expect));
        assert_eq!(ledger.state_hash(), before);
    };
    check(earlier, time, LossError::ClockBehind { now: earlier, kept: time });
    check(time, earlier, LossError::Until { until: earlier, kept: time });
}

#[test]
fn a_loss_that_was_altered_does_not_replay() {
    let mut world = lost();
    world.checkpoint();
    let at = world.log.iter().position(|record| record.kind() == Some(Kind::Loss)).unwrap();
    // The moment is believed, as that of any record.
    for byte in (0..112).chain(120..limits::RECORD_BYTES) {
        let mut log = world.log.clone();
        let mut bytes = log[at].to_bytes();
        bytes[byte] ^= 1;
        log[at] = Record::from_bytes(&bytes);
        assert!(replay(Ledger::new(config()), Seq(1), &log).is_err(), "byte {byte}");
    }
    // Nor is one believed that stands elsewhere, or twice.
    let mut log = world.log.clone();
    log.push(log[at]);
    assert!(replay(Ledger::new(config()), Seq(1), &log).is_err());
}
