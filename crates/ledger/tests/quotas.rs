//! What a tenant may leave behind: each quota has a code of its own, and gives room again.

mod world;

use ledger::{Config, Intake, Ledger};
use surety_protocol::*;
use world::*;

/// Room for everything but what a test makes scarce.
fn quotas() -> TenantBody {
    TenantBody {
        tenant: T1,
        locks_max: 90,
        ids_max: 90,
        tombstones_max: 90,
        advices_max: 90,
        enabled: 1,
        ..TenantBody::default()
    }
}

fn set(world: &mut World, quotas: &TenantBody) {
    world.operate_with(Kind::TenantSet, PartitionHandle(0), quotas);
}

fn code(world: &mut World, ask: &Ask) -> Code {
    world.send(ask).code()
}

#[test]
fn open_locks_have_a_quota_of_their_own() {
    let mut world = World::new();
    set(&mut world, &TenantBody { open_locks_max: 2, ..quotas() });
    assert_eq!(code(&mut world, &lock("a", 10)), Code::Approved);
    assert_eq!(code(&mut world, &lock("b", 10).life(60_000)), Code::Approved);
    assert_eq!(code(&mut world, &lock("c", 10)), Code::QuotaOpenLocks);
    assert_eq!(world.ledger.tenant(T1).map(|tenant| (tenant.locks, tenant.open_locks)), Some((2, 2)));
    // What makes no open lock is not held to it.
    assert_eq!(code(&mut world, &advice("d", 10)), Code::Approved);
    assert_eq!(code(&mut world, &lock("sold", 10).flag(Flags::SALE)), Code::Approved);
    assert_eq!(code(&mut world, &capture("a", 4)), Code::Approved);
    assert_eq!(code(&mut world, &on(Kind::Increase, "a", 20).version(2)), Code::Approved);
    assert_eq!(code(&mut world, &lock("c", 10)), Code::QuotaOpenLocks);
    // Each way in which a lock ends gives room for one, and its id was not burned.
    assert_eq!(code(&mut world, &capture("a", 10).finally()), Code::Approved);
    assert_eq!(code(&mut world, &lock("c", 10)), Code::Approved);
    assert_eq!(code(&mut world, &lock("e", 10)), Code::QuotaOpenLocks);
    world.wait(60_001);
    assert_eq!(world.end("b"), End::Expired);
    assert_eq!(code(&mut world, &lock("e", 10)), Code::Approved);
    assert_eq!(code(&mut world, &release("e")), Code::Approved);
    assert_eq!(code(&mut world, &settle("c", ALL_CAPTURES)), Code::Approved);
    assert_eq!(world.ledger.tenant(T1).map(|tenant| tenant.open_locks), Some(0));
    world.finish();
}

#[test]
fn open_locks_past_a_quota_that_was_lowered_stay_and_no_other_comes() {
    let mut world = World::new();
    set(&mut world, &quotas());
    for name in ["a", "b", "c"] {
        assert_eq!(code(&mut world, &lock(name, 10)), Code::Approved, "0 is no limit");
    }
    set(&mut world, &TenantBody { open_locks_max: 2, ..quotas() });
    assert_eq!(code(&mut world, &release("a")), Code::Approved);
    assert_eq!(code(&mut world, &lock("d", 10)), Code::QuotaOpenLocks);
    assert_eq!(code(&mut world, &capture("b", 5)), Code::Approved);
    assert_eq!(code(&mut world, &release("b")), Code::Approved);
    assert_eq!(code(&mut world, &lock("d", 10)), Code::Approved);
    // Another tenant has its own, and the operator none.
    set(&mut world, &TenantBody { tenant: T2, open_locks_max: 1, ..quotas() });
    world.grant(P1, T2, Rights::KNOWN);
    assert_eq!(code(&mut world, &lock("e", 10).tenant(T2)), Code::Approved);
    assert_eq!(code(&mut world, &lock("f", 10).tenant(T2)), Code::QuotaOpenLocks);
    let by = Caller { roles: Roles::KNOWN, ..operator() };
    assert_eq!(code(&mut world, &lock("g", 10).tenant(T2).by(by)), Code::Approved);
    world.finish();
}

#[test]
fn a_chain_has_no_more_open_locks_than_the_quota_and_one_that_fails_counts_none() {
    let mut world = World::new();
    set(&mut world, &TenantBody { open_locks_max: 2, ..quotas() });
    let (_, replies) = world.chain(&[lock("a", 1), lock("b", 1), lock("c", 1)]);
    assert_eq!(codes(&replies), [Code::LinkedFailed, Code::LinkedFailed, Code::QuotaOpenLocks]);
    assert_eq!(world.ledger.tenant(T1).map(|tenant| tenant.open_locks), Some(0));
    // One that is declined has ended two of its own.
    let (_, replies) = world.chain(&[lock("d", 1), release("d"), lock("e", 1), capture("nothing", 1)]);
    assert_eq!(replies.last().map(Reply::code), Some(Code::UnknownLock));
    assert_eq!(world.ledger.tenant(T1).map(|tenant| tenant.open_locks), Some(0));
    let (_, replies) = world.chain(&[lock("f", 1), release("f"), lock("g", 1), lock("h", 1)]);
    assert_eq!(codes(&replies), [Code::Approved; 4]);
    assert_eq!(code(&mut world, &lock("i", 1)), Code::QuotaOpenLocks);
    // Room that a chain makes itself is its own, in the order of its members.
    let (_, replies) = world.chain(&[lock("i", 1), release("g")]);
    assert_eq!(codes(&replies), [Code::QuotaOpenLocks, Code::LinkedFailed]);
    let (_, replies) = world.chain(&[release("g").named("again"), lock("j", 1)]);
    assert_eq!(codes(&replies), [Code::Approved; 2]);
    assert_eq!(world.ledger.tenant(T1).map(|tenant| tenant.open_locks), Some(2));
    world.finish();
}

#[test]
fn each_quota_has_a_code_of_its_own_and_an_order() {
    /// A quota that has room for nothing.
    type Empty = fn(&mut TenantBody);
    let locks: Empty = |quotas| quotas.locks_max = 0;
    let ids: Empty = |quotas| quotas.ids_max = 0;
    let tombstones: Empty = |quotas| quotas.tombstones_max = 0;
    let advices: Empty = |quotas| quotas.advices_max = 0;
    let burn = |name| lookup(name).flag(Flags::BURN);
    for (empty, ask, expect) in [
        (&[locks][..], lock("x", 1), Code::QuotaLocks),
        (&[locks], advice("x", 1), Code::QuotaLocks),
        (&[ids], lock("x", 1), Code::QuotaIds),
        (&[ids], capture("x", 1), Code::QuotaIds),
        (&[ids], burn("x"), Code::QuotaIds),
        (&[tombstones], release("x"), Code::QuotaTombstones),
        (&[advices], advice("x", 1), Code::QuotaAdvices),
        (&[advices], reverse("x", 1), Code::QuotaAdvices),
        (&[locks, ids, advices, tombstones], lock("x", 1), Code::QuotaLocks),
        (&[locks, ids, advices, tombstones], advice("x", 1), Code::QuotaLocks),
        (&[ids, tombstones], release("x"), Code::QuotaIds),
    ] {
        let mut world = World::new();
        let mut scarce = quotas();
        empty.iter().for_each(|empty| empty(&mut scarce));
        set(&mut world, &scarce);
        let before = (world.log.len(), world.ledger.state_hash());
        assert_eq!(code(&mut world, &ask), expect, "{ask:?}");
        assert_eq!((world.log.len(), world.ledger.state_hash()), before, "not executed, not recorded");
        set(&mut world, &quotas());
        let told = world.send(&ask);
        assert!(told.code().is_recorded() || told.seq != Seq(0), "{ask:?}: {}", told.code());
        world.finish();
    }
}

#[test]
fn where_quotas_and_tables_are_full_the_quota_is_told() {
    /// A world in which `spent` more ids fit, and the tenant has set quotas; its own setting up spends some.
    fn world_with_room(spare: usize, quotas: &TenantBody) -> World {
        let build = |ids_max| {
            let mut ledger = Ledger::new(Config { ids_max, ..config() });
            ledger.advance(START, Seq(1), &mut Vec::new());
            let mut world = World { ledger, ..World::empty() };
            set(&mut world, quotas);
            world.create(P1, 0);
            world.grant(P1, T1, Rights::KNOWN);
            world
        };
        let used = build(1000).ledger.ids_len();
        build(used + spare)
    }
    let burn = || lookup("x").flag(Flags::BURN);
    let full = |change: fn(&mut TenantBody)| {
        let mut quotas = quotas();
        change(&mut quotas);
        quotas
    };
    let (ids, tombstones) = (full(|body| body.ids_max = 0), full(|body| body.tombstones_max = 0));
    for (spare, quotas, ask, expect) in [
        // A look-up's own id is not kept; a release's is, beside that of the lock.
        (1, quotas(), burn(), Code::NotFound),
        (0, quotas(), burn(), Code::Overloaded),
        (2, quotas(), release("x"), Code::Approved),
        (1, quotas(), release("x"), Code::Overloaded),
        (0, ids, burn(), Code::QuotaIds),
        (0, ids, release("x"), Code::QuotaIds),
        (1, tombstones, release("x"), Code::QuotaTombstones),
    ] {
        let mut world = world_with_room(spare, &quotas);
        let reply = world.send(&ask);
        assert_eq!(reply.code(), expect, "{spare} {ask:?}");
        let is_definite = reply.seq != Seq(0);
        assert_eq!(is_definite, matches!(expect, Code::NotFound | Code::Approved), "{ask:?}");
    }
    // An id that lies ahead of time is told before all of them.
    for intake in [Intake::Nothing, Intake::TooFast, Intake::TooManyInFlight] {
        let mut world = world_with_room(0, &ids);
        world.now = world.now.plus(Time::from_secs(60));
        world.id("x");
        world.now = Time(world.now.0 - Time::from_secs(60).0);
        world.ledger.set_intake(intake);
        assert_eq!(world.send(&burn()).code(), Code::IdFromFuture, "{intake:?}");
    }
}
