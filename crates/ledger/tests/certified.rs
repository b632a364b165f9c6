//! Certified locks: what a certificate can still claim stays in P (row 29 and the paragraph on certified locks).

mod world;

use surety_protocol::*;
use world::*;

fn certified(name: &'static str, amount: u128) -> Ask {
    lock(name, amount).flag(Flags::CERTIFIED)
}

fn called(lock: &'static str) -> Ask {
    guarantee(Kind::GuaranteeCalled, lock, 0)
}

fn paid(lock: &'static str, amount: u128) -> Ask {
    guarantee(Kind::GuaranteePaid, lock, amount)
}

fn dismissed(lock: &'static str) -> Ask {
    guarantee(Kind::GuaranteeDismissed, lock, 0)
}

fn check(name: &str, steps: &[Step]) -> World {
    run(name, World::new(), steps)
}

#[test]
fn what_leaves_h_or_u_waits_in_p() {
    use Code::*;
    check(
        "release",
        &[
            (certified("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 30), Approved, [900, 70, 30, 0, 0, 0]),
            (refund("a", 0, 10), Approved, [900, 70, 20, 10, 0, 0]),
            (on(Kind::Decrease, "a", 80), Approved, [900, 50, 20, 30, 0, 0]),
            (settle("a", 0), Approved, [900, 50, 0, 50, 0, 0]),
            (release("a"), Approved, [900, 0, 0, 100, 0, 0]),
        ],
    );
    check(
        "reverse and consume",
        &[
            (certified("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 30), Approved, [900, 70, 30, 0, 0, 0]),
            (reverse("a", 0), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 30).finally(), Approved, [900, 0, 30, 70, 0, 0]),
            (consume("a", 1, 0), Approved, [900, 0, 0, 70, 30, 0]),
        ],
    );
}

#[test]
fn p_is_free_when_no_certificate_can_be_claimed() {
    let policy =
        Policy { settle_by: Time::from_secs(100), claim_margin: Time::from_secs(10), ..Policy::default() };
    let mut world = World::with_policy(&policy);
    world.send(&certified("a", 100).life(20_000));
    world.wait(20_000);
    assert_eq!(world.money(), [900, 0, 0, 100, 0, 0]);
    // It outlives the settle-by time of a capture in the last moment of the lock.
    world.wait(109_999);
    assert_eq!(world.money(), [900, 0, 0, 100, 0, 0]);
    world.wait(1);
    assert_eq!(world.money(), [1000, 0, 0, 0, 0, 0]);
    assert_eq!(world.log.last().unwrap().kind(), Some(Kind::Mature));
    world.finish();
}

#[test]
fn what_leaves_after_that_is_free_at_once() {
    let policy = Policy { settle_by: Time::ZERO, claim_margin: Time::from_secs(10), ..Policy::default() };
    let mut world = World::with_policy(&policy);
    world.send(&certified("a", 100).life(20_000).flag(Flags::SALE));
    world.wait(30_000);
    assert_eq!(world.send(&settle("a", 0)).code(), Code::Approved);
    assert_eq!(world.money(), [1000, 0, 0, 0, 0, 0]);
    world.finish();
}

#[test]
fn a_merchants_signed_release_frees_p() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.send(&certified(name, 100));
    }
    world.send(&lock("plain", 100));
    world.send(&release("a"));
    world.send(&release("b"));
    assert_eq!(world.money(), [600, 200, 0, 200, 0, 0]);
    let wrong_key = world.release_group(Address([1; 20]), &[("a", 0, 2)]);
    assert_eq!(wrong_key.code(), Code::Forbidden);
    let too_old = world.release_group(RELEASE_KEY, &[("a", 0, 1)]);
    assert_eq!(too_old.code(), Code::UnknownLock);
    let not_certified = world.release_group(RELEASE_KEY, &[("plain", 0, 9), ("nothing", 0, 9)]);
    assert_eq!(not_certified.code(), Code::UnknownLock);
    assert_eq!(world.money(), [600, 200, 0, 200, 0, 0]);
    let both = world.release_group(RELEASE_KEY, &[("a", 0, 2), ("b", 30, 7)]);
    assert_eq!((both.code(), both.approved), (Code::Approved, Amount(170)));
    assert_eq!(world.money(), [770, 200, 0, 30, 0, 0]);
    // What H and U still guarantee counts towards what is owed.
    world.send(&capture("c", 40));
    world.send(&refund("c", 0, 10));
    assert_eq!(world.money(), [770, 160, 30, 40, 0, 0]);
    let partly = world.release_group(RELEASE_KEY, &[("c", 95, 3), ("plain", 0, 9)]);
    assert_eq!((partly.code(), partly.approved), (Code::Partial, Amount(5)));
    assert_eq!(world.money(), [775, 160, 30, 35, 0, 0]);
    world.finish();
}

#[test]
fn row_29_a_called_lock_waits() {
    use Code::*;
    let mut world = check(
        "called",
        &[
            (lock("plain", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (called("plain"), NotOpen, [900, 100, 0, 0, 0, 0]),
            (release("plain"), Approved, [1000, 0, 0, 0, 0, 0]),
            (certified("a", 100).life(5000), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 30), Approved, [900, 70, 30, 0, 0, 0]),
            (called("a"), Approved, [900, 70, 30, 0, 0, 0]),
            (called("a"), GuaranteeCalled, [900, 70, 30, 0, 0, 0]),
            (release("a"), GuaranteeCalled, [900, 70, 30, 0, 0, 0]),
            (settle("a", 0), GuaranteeCalled, [900, 70, 30, 0, 0, 0]),
            (settle("a", ALL_CAPTURES), GuaranteeCalled, [900, 70, 30, 0, 0, 0]),
            (consume("a", 0, 0), GuaranteeCalled, [900, 70, 30, 0, 0, 0]),
            (consume("a", ALL_CAPTURES, 1), GuaranteeCalled, [900, 70, 30, 0, 0, 0]),
            (called("z"), UnknownLock, [900, 70, 30, 0, 0, 0]),
        ],
    );
    world.wait(30 * 24 * 3_600_000);
    assert_eq!(world.money(), [900, 70, 30, 0, 0, 0], "neither expiry nor settle-by nor maturity");
    assert_eq!(world.send(&dismissed("a")).code(), Approved);
    world.wait(0);
    let kinds: Vec<_> = world.log.iter().rev().take(2).map(|record| record.kind().unwrap()).collect();
    assert_eq!(kinds, [Kind::AutoConsume, Kind::Expire], "all that was due, in its order");
    assert_eq!(world.money(), [970, 0, 0, 0, 30, 0], "long past the claim's end nothing waits in P");
    assert_eq!(world.send(&dismissed("a")).code(), NotOpen);
    world.finish();
}

#[test]
fn row_29_a_paid_guarantee_takes_h_then_u_then_p_and_closes_the_lock() {
    use Code::*;
    let prepare = |name: &str, amount, after: [u128; 6]| {
        check(
            name,
            &[
                (certified("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
                (capture("a", 60), Approved, [900, 40, 60, 0, 0, 0]),
                (refund("a", 0, 20), Approved, [900, 40, 40, 20, 0, 0]),
                (called("a"), Approved, [900, 40, 40, 20, 0, 0]),
                (paid("a", amount), Approved, after),
                (paid("a", 1), NotOpen, after),
                (capture("a", 1), AlreadySettled, after),
                (consume("a", 0, 0), if amount >= 80 { NotOpen } else { AlreadySettled }, after),
            ],
        )
    };
    let world = prepare("from H", 10, [990, 0, 0, 0, 0, 0]);
    assert_eq!(world.ledger.partition(P1).unwrap().on_chain, 990);
    prepare("from H and U", 50, [950, 0, 0, 0, 0, 0]);
    prepare("from H, U and P", 100, [900, 0, 0, 0, 0, 0]);
    prepare("and from F", 150, [850, 0, 0, 0, 0, 0]);
    let world = prepare("all there is", 1000, [0, 0, 0, 0, 0, 0]);
    assert_eq!(world.ledger.partition(P1).unwrap().deficit, 0);
    let world = check(
        "a deficit",
        &[
            (lock("other", 850), Approved, [150, 850, 0, 0, 0, 0]),
            (certified("a", 100), Approved, [50, 950, 0, 0, 0, 0]),
            (paid("a", 170), Approved, [0, 850, 0, 0, 0, 0]),
            (release("other"), Approved, [830, 0, 0, 0, 0, 0]),
        ],
    );
    assert_eq!(world.ledger.partition(P1).unwrap().deficit, 0);
}

#[test]
fn headroom_is_paid_like_the_rest_of_what_is_held() {
    use Code::*;
    let policy = Policy { headroom_bps: 1000, ..Policy::default() };
    run(
        "headroom",
        World::with_policy(&policy),
        &[
            (certified("a", 100), Approved, [890, 110, 0, 0, 0, 0]),
            (called("a"), Approved, [890, 110, 0, 0, 0, 0]),
            (paid("a", 105), Approved, [895, 0, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn a_certified_lock_is_kept_as_long_as_it_can_be_called_and_while_it_is() {
    let policy = Policy { settle_by: Time::ZERO, claim_margin: Time::from_secs(7200), ..Policy::default() };
    let prepare: [fn(&mut World); 2] = [
        |world| {
            world.send(&capture("a", 100).finally());
            world.send(&consume("a", 0, 0));
        },
        |world| {
            world.send(&release("a"));
            world.release_group(RELEASE_KEY, &[("a", 0, 9)]);
        },
    ];
    for prepare in prepare {
        let mut world = World::with_policy(&policy);
        world.send(&certified("a", 100));
        prepare(&mut world);
        world.wait(7_700_000);
        assert_eq!(world.send(&called("a")).code(), Code::Approved);
        world.wait(1_000_000_000);
        assert_eq!(world.send(&paid("a", 100)).code(), Code::Approved);
        world.wait(200_000);
        assert_eq!(world.ledger.locks_len(), 0);
        world.finish();
    }
}

#[test]
fn a_release_is_signed_by_the_key_that_the_certificate_states() {
    let mut world = World::new();
    world.send(&certified("a", 100));
    world.send(&release("a"));
    let other = Address([66; 20]);
    let body = MerchantBody { merchant: MERCHANT, release_key: other, enabled: 1, ..MerchantBody::default() };
    let id = world.fresh_id();
    let record = Record::new(Kind::MerchantSet, id, PartitionHandle(0), Amount::ZERO, &body);
    let admin = Caller { roles: Roles::ADMIN, ..caller(T1) };
    assert_eq!(world.execute(&admin, vec![record]).1[0].code(), Code::Approved);
    assert_eq!(world.release_group(other, &[("a", 0, 9)]).code(), Code::UnknownLock);
    assert_eq!(world.release_group(Address([1; 20]), &[("a", 0, 9)]).code(), Code::Forbidden);
    assert_eq!(world.release_group(RELEASE_KEY, &[("a", 0, 9)]).code(), Code::Approved);
    world.finish();
}

#[test]
fn a_called_lock_may_still_be_captured() {
    let policy = Policy { late_capture: 1, late_window: Time::from_secs(60), ..Policy::default() };
    let mut world = World::with_policy(&policy);
    world.send(&certified("a", 100).life(1000));
    world.wait(1000);
    world.send(&called("a"));
    assert_eq!(world.send(&capture("a", 10)).code(), Code::Approved);
    assert_eq!(world.money(), [890, 0, 10, 100, 0, 0]);
    assert_eq!(world.send(&paid("a", 100)).code(), Code::Approved);
    assert_eq!(world.money(), [900, 0, 0, 0, 0, 0]);
    world.finish();
}

#[test]
fn a_late_capture_of_a_certified_lock_is_not_consumed_at_once() {
    let policy = Policy {
        late_capture: 1,
        late_window: Time::from_secs(600),
        settle_by: Time::ZERO,
        claim_margin: Time::ZERO,
        ..Policy::default()
    };
    let mut world = World::with_policy(&policy);
    world.send(&certified("a", 100).life(1000));
    world.wait(130_000);
    assert_eq!(world.send(&advice("a", 1)).code(), Code::Approved);
    assert_eq!(world.send(&capture("a", 1)).code(), Code::Approved);
    world.wait(600_000);
    assert_eq!(world.money(), [998, 0, 2, 0, 0, 0]);
    world.finish();
}
