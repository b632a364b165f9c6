//! Linked chains: all or none.

mod world;

use ledger::Decision;
use surety_protocol::*;
use world::*;

/// Runs a chain behind a lock `a` of 100 with a capture of 30, and checks codes, decision, and money.
fn check(name: &str, chain: &[Ask], decision: Decision, expected: &[Code], money: [u128; 6]) {
    let policy = Policy {
        velocity_value: Amount(50_000),
        headroom_bps: 1000,
        tolerance_bps: 1000,
        ..Policy::default()
    };
    let mut world = World::with_policy(&policy);
    world.deposit(P2, 50);
    world.send(&lock("a", 100));
    world.send(&capture("a", 30));
    let before = world.ledger.lock(T1, P1, world.names["a"]);
    let (decided, replies) = world.chain(chain);
    assert_eq!((decided, codes(&replies)), (decision, expected.to_vec()), "{name}");
    assert_eq!(world.money(), money, "{name}");
    let is_done = replies.iter().all(|reply| reply.code().is_success());
    if !is_done {
        assert_eq!(world.ledger.lock(T1, P1, world.names["a"]), before, "{name}: nothing has changed");
    }
    let logged = world.log.len();
    let (again, repeated) = world.chain(chain);
    assert_eq!((again, codes(&repeated)), (Decision::NotLogged, expected.to_vec()), "{name}: again");
    assert_eq!(repeated[0].is_replayed(), decision == Decision::Logged);
    assert_eq!((world.log.len(), world.money()), (logged, money));
    world.finish();
}

fn named(asks: impl IntoIterator<Item = Ask>) -> Vec<Ask> {
    let names = ["m0", "m1", "m2", "m3", "m4", "m5"];
    let name = |(ask, name): (Ask, &'static str)| if ask.name.is_empty() { ask.named(name) } else { ask };
    asks.into_iter().zip(names).map(name).collect()
}

#[test]
fn all_or_none() {
    use Code::*;
    let untouched = [890, 80, 30, 0, 0, 0];
    check(
        "all",
        &named([lock("b", 100), capture("b", 40), release("a"), settle("a", 0)]),
        Decision::Logged,
        &[Approved; 4],
        [890, 70, 40, 0, 0, 0],
    );
    check(
        "the last fails",
        &named([
            lock("b", 100),
            capture("a", 75),
            capture("b", 105).finally(),
            on(Kind::Increase, "a", 300).version(3),
            lock("c", 5000),
        ]),
        Decision::Logged,
        &[LinkedFailed, LinkedFailed, LinkedFailed, LinkedFailed, Insufficient],
        untouched,
    );
    check(
        "the first fails",
        &named([capture("z", 1), release("a")]),
        Decision::Logged,
        &[UnknownLock, LinkedFailed],
        untouched,
    );
    check(
        "every kind",
        &named([
            on(Kind::Decrease, "a", 90),
            reverse("a", 0),
            capture("a", 50),
            refund("a", 1, 10),
            consume("a", 1, 0),
            release("q"),
        ]),
        Decision::Logged,
        &[Approved; 6],
        [910, 50, 0, 0, 40, 0],
    );
    check(
        "every kind, and then a failure",
        &named([
            on(Kind::Decrease, "a", 90),
            reverse("a", 0),
            capture("a", 50),
            refund("a", 1, 10),
            release("q"),
            settle("a", 7),
        ]),
        Decision::Logged,
        &[LinkedFailed, LinkedFailed, LinkedFailed, LinkedFailed, LinkedFailed, UnknownCapture],
        untouched,
    );
    check(
        "partial is a success",
        &named([lock("b", 2000).floor(1), capture("b", 890).finally()]),
        Decision::Logged,
        &[Partial, Approved],
        [0, 80, 920, 0, 0, 0],
    );
    check(
        "two partitions",
        &named([lock("b", 10), lock("c", 51).partition(P2)]),
        Decision::Logged,
        &[LinkedFailed, Insufficient],
        untouched,
    );
}

#[test]
fn an_admission_failure_of_one_refuses_all() {
    use Code::*;
    let untouched = [890, 80, 30, 0, 0, 0];
    let refused = |name, chain: Vec<Ask>, codes: &[Code]| {
        check(name, &chain, Decision::NotLogged, codes, untouched);
    };
    refused(
        "unknown partition",
        named([lock("b", 10), lock("c", 10).partition(PartitionHandle(77))]),
        &[LinkedFailed, UnknownPartition],
    );
    refused("a used id", named([lock("b", 10), lock("a", 101)]), &[LinkedFailed, IdConflict]);
    refused("part of it known", named([lock("b", 10), lock("a", 100)]), &[LinkedFailed, IdConflict]);
    refused("an id twice", named([lock("b", 10), lock("b", 10)]), &[LinkedFailed, Malformed]);
    refused("no chain for look-ups", named([lock("b", 10), lookup("a")]), &[Malformed, Malformed]);
}

#[test]
fn a_quota_that_runs_out_within_a_chain_refuses_it() {
    let mut world = World::new();
    world.set_tenant(T1, 2);
    let (decision, replies) = world.chain(&[lock("a", 1), lock("b", 1), lock("c", 1)]);
    assert_eq!(decision, Decision::NotLogged);
    assert_eq!(codes(&replies), [Code::LinkedFailed, Code::LinkedFailed, Code::QuotaLocks]);
    assert_eq!(world.chain(&[lock("a", 1), capture("a", 1)]).0, Decision::Logged);
    world.finish();
}

#[test]
fn a_lock_released_within_its_own_chain_is_declined_with_it() {
    let mut world = World::new();
    let (_, replies) = world.chain(&[release("x"), lock("x", 1)]);
    assert_eq!(codes(&replies), [Code::LinkedFailed, Code::AlreadyReleased]);
    assert_eq!(world.end("x"), End::Declined, "the tombstone is taken back, the decline stays");
    world.finish();
}

#[test]
fn members_can_be_looked_up_by_themselves() {
    let mut world = World::new();
    world.chain(&[lock("a", 10), lock("b", 5000)]);
    assert_eq!(world.send(&lookup("a")).code(), Code::LinkedFailed);
    assert_eq!(world.send(&lookup("b")).code(), Code::Insufficient);
    assert_eq!(world.send(&lock("a", 10)).code(), Code::IdConflict, "alone it is another request");
    assert_eq!(world.send(&capture("a", 1)).code(), Code::NotOpen);
    world.finish();
}

/// Found by the simulator: the first answer said `declined`, every repeat `tombstone`.
#[test]
fn a_lock_that_fails_with_its_chain_shows_the_end_that_its_id_has() {
    let mut world = World::new();
    world.send(&release("late"));
    let chain = named([lock("late", 10).named("late"), capture("late", 5)]);
    let (_, first) = world.chain(&chain);
    let (_, again) = world.chain(&chain);
    assert_eq!(codes(&first), [Code::AlreadyReleased, Code::LinkedFailed]);
    assert_eq!((first[0].end(), again[0].end()), (End::Tombstone, End::Tombstone));
    world.finish();
}
