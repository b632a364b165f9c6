//! The transition table, row by row.

mod world;

use surety_protocol::*;
use world::*;

fn check(name: &str, steps: &[Step]) {
    run(name, World::new(), steps);
}

fn check_with(name: &str, policy: Policy, steps: &[Step]) {
    run(name, World::with_policy(&policy), steps);
}

fn generous() -> Policy {
    Policy {
        edge_unit: Amount(10),
        tolerance_bps: 2000,
        headroom_bps: 1000,
        late_capture: 1,
        late_window: Time::from_secs(3600),
        ..Policy::default()
    }
}

#[test]
fn rows_1_to_3_lock_what_there_is() {
    use Code::*;
    check("1", &[(lock("a", 100), Approved, [900, 100, 0, 0, 0, 0])]);
    check("3", &[(lock("a", 1001), Insufficient, [1000, 0, 0, 0, 0, 0])]);
    check("1 exactly", &[(lock("a", 1000), Approved, [0, 1000, 0, 0, 0, 0])]);
    check_with("1 with headroom", generous(), &[(lock("a", 100), Approved, [890, 110, 0, 0, 0, 0])]);
    check_with("1b", generous(), &[(lock("a", 950), Approved, [0, 1000, 0, 0, 0, 0])]);
    check(
        "2",
        &[
            (lock("a", 405), Approved, [595, 405, 0, 0, 0, 0]),
            (lock("b", 600).floor(591), Insufficient, [595, 405, 0, 0, 0, 0]),
            (lock("c", 600).floor(590), Partial, [5, 995, 0, 0, 0, 0]),
            (lock("d", 6).floor(1), Insufficient, [5, 995, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn row_1_the_reply_tells_all() {
    let mut world = World::with_policy(&generous());
    let reply = world.send(&lock("a", 100).life(5000));
    assert_eq!(
        (reply.approved, reply.extra, reply.remaining, reply.free),
        (Amount(100), Amount(10), Amount(110), Amount(890))
    );
    assert_eq!((reply.deadline, reply.version, reply.end()), (START.plus(Time::from_secs(5)), 1, End::Live));
    assert_eq!((reply.seq, reply.time, reply.shard), (Seq(world.log.len() as u64), START, SHARD));
    let record = world.log.last().unwrap();
    assert_eq!((record.result, record.tenant, record.time), (Amount(110), T1, START));
    assert_eq!(record.body::<LockBody>().deadline, reply.deadline);
}

#[test]
fn row_4_declines_are_recorded() {
    use Code::*;
    let none = [1000, 0, 0, 0, 0, 0];
    let policy = |policy: Policy, ask: Ask, code, money| check_with("4", policy, &[(ask, code, money)]);
    let plain = Policy::default();
    policy(Policy { lock_max: Amount(99), ..plain }, lock("a", 100), OverLimit, none);
    policy(Policy { lock_max: Amount(109), headroom_bps: 1000, ..plain }, lock("a", 100), OverLimit, none);
    policy(Policy { merchant_open_max: Amount(99), ..plain }, lock("a", 100), OverLimit, none);
    policy(Policy { velocity_value: Amount(99), ..plain }, lock("a", 100), Velocity, none);
    policy(Policy { merchants_listed: 1, ..plain }, lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]);
    let unlisted = Ask { merchant: MerchantId(8), ..lock("a", 100) };
    policy(Policy { merchants_listed: 1, ..plain }, unlisted, Forbidden, none);
    policy(Policy { life_max: Time::from_secs(600), ..plain }, lock("a", 1).life(600_001), Forbidden, none);
    policy(plain, lock("a", 100).quote(), StalePrice, none);
    check(
        "4 frozen",
        &[
            (operate(Kind::Freeze, 0), Approved, none),
            (lock("a", 100), Frozen, none),
            (operate(Kind::Unfreeze, 0), Approved, none),
            // A retry never turns a decline into an approval.
            (lock("a", 100), Frozen, none),
            (lock("b", 100), Approved, [900, 100, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn row_4_velocity_counts_a_tumbling_window_and_forgets_it() {
    let mut world = World::with_policy(&Policy { velocity_count: 2, ..Policy::default() });
    let codes = |world: &mut World| [0; 3].map(|_| world.send(&lock("", 1)).code());
    use Code::*;
    assert_eq!(codes(&mut world), [Approved, Approved, Velocity]);
    world.wait(60_000);
    assert_eq!(codes(&mut world), [Approved, Approved, Velocity]);
    world.finish();
}

#[test]
fn row_4_a_merchants_open_value_falls_again() {
    use Code::*;
    let policy = Policy { merchant_open_max: Amount(150), ..Policy::default() };
    let world = run(
        "4 open value",
        World::with_policy(&policy),
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (lock("b", 100), OverLimit, [900, 100, 0, 0, 0, 0]),
            (capture("a", 60).finally(), Approved, [940, 0, 60, 0, 0, 0]),
            (lock("c", 91), OverLimit, [940, 0, 60, 0, 0, 0]),
            (settle("a", 0), Approved, [1000, 0, 0, 0, 0, 0]),
            (lock("d", 150), Approved, [850, 150, 0, 0, 0, 0]),
        ],
    );
    let key = MerchantKey { tenant: T1, merchant: MERCHANT };
    assert_eq!(world.ledger.merchant_open(P1, key), 150);
}

#[test]
fn row_5_a_lock_behind_its_release_is_declined() {
    use Code::*;
    let none = [1000, 0, 0, 0, 0, 0];
    check(
        "5",
        &[
            (release("a"), Approved, none),
            (lock("a", 100), AlreadyReleased, none),
            (lock("a", 100), AlreadyReleased, none),
            (release("a"), Approved, none),
            (capture("a", 1), NotOpen, none),
        ],
    );
}

#[test]
fn row_6_increases_rise_to_a_total() {
    use Code::*;
    let up = |total, version| on(Kind::Increase, "a", total).version(version);
    check(
        "6",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (up(150, 1), Approved, [850, 150, 0, 0, 0, 0]),
            (up(200, 1), VersionConflict, [850, 150, 0, 0, 0, 0]),
            (up(150, 2), OverLimit, [850, 150, 0, 0, 0, 0]),
            (up(149, 2), OverLimit, [850, 150, 0, 0, 0, 0]),
            (up(2000, 2), Insufficient, [850, 150, 0, 0, 0, 0]),
            (capture("a", 50), Approved, [850, 100, 50, 0, 0, 0]),
            (up(160, 3), Approved, [840, 110, 50, 0, 0, 0]),
            (up(160, 0), VersionConflict, [840, 110, 50, 0, 0, 0]),
            (release("a"), Approved, [950, 0, 50, 0, 0, 0]),
            (up(300, 5), NotOpen, [950, 0, 50, 0, 0, 0]),
            (Ask { lock: "z", ..up(300, 1) }, UnknownLock, [950, 0, 50, 0, 0, 0]),
        ],
    );
    let policy = Policy { lock_max: Amount(120), life_max: Time::from_secs(700), ..Policy::default() };
    check_with(
        "6 limits",
        policy,
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (up(121, 1), OverLimit, [900, 100, 0, 0, 0, 0]),
            (up(120, 1).life(700_001), Forbidden, [900, 100, 0, 0, 0, 0]),
            (up(120, 1).life(599_999), Forbidden, [900, 100, 0, 0, 0, 0]),
            (up(120, 1).life(700_000), Approved, [880, 120, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn row_7_decreases_fall_to_a_total() {
    use Code::*;
    let down = |total| on(Kind::Decrease, "a", total);
    check(
        "7",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (down(100), OverLimit, [900, 100, 0, 0, 0, 0]),
            (down(60), Approved, [940, 60, 0, 0, 0, 0]),
            (capture("a", 50), Approved, [940, 10, 50, 0, 0, 0]),
            (down(49), OverLimit, [940, 10, 50, 0, 0, 0]),
            (down(50), Approved, [950, 0, 50, 0, 0, 0]),
            (capture("a", 1), Insufficient, [950, 0, 50, 0, 0, 0]),
            (release("a"), Approved, [950, 0, 50, 0, 0, 0]),
        ],
    );
}

#[test]
fn rows_8_and_9_capture() {
    use Code::*;
    let world = run(
        "8, 9",
        World::new(),
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 30), Approved, [900, 70, 30, 0, 0, 0]),
            (capture("a", 30).finally(), Approved, [940, 0, 60, 0, 0, 0]),
            (capture("a", 1), NotOpen, [940, 0, 60, 0, 0, 0]),
            (capture("z", 1), UnknownLock, [940, 0, 60, 0, 0, 0]),
        ],
    );
    let a = world.lock_state("a").unwrap();
    assert_eq!((a.end, a.approved, a.captured, a.released, a.version), (End::Final, 100, 60, 40, 3));
    assert_eq!(a.captures[1].settle_by, START.plus(Time::from_secs(24 * 3600)));
    let mut world = World::new();
    world.send(&lock("a", 100));
    for index in 0..16 {
        assert_eq!(world.send(&capture("a", 1)).capture, index);
    }
    assert_eq!(world.send(&capture("a", 1)).code(), UnknownCapture);
    world.finish();
}

#[test]
fn a_sale_is_one_record() {
    use Code::*;
    let world = run(
        "sale",
        World::new(),
        &[
            (lock("a", 100).flag(Flags::SALE), Approved, [900, 0, 100, 0, 0, 0]),
            (capture("a", 1), NotOpen, [900, 0, 100, 0, 0, 0]),
            (lock("b", 2000).floor(10).flag(Flags::SALE), Partial, [0, 0, 1000, 0, 0, 0]),
            (settle("a", 0), Approved, [100, 0, 900, 0, 0, 0]),
            (refund("b", 0, 900), Approved, [1000, 0, 0, 0, 0, 0]),
        ],
    );
    assert_eq!(world.lock_state("a").unwrap().end, End::Final);
}

#[test]
fn row_10_captures_beyond_within_the_tolerance() {
    use Code::*;
    // Tolerance 20 %, headroom 10 %.
    check_with(
        "10",
        generous(),
        &[
            (lock("a", 100), Approved, [890, 110, 0, 0, 0, 0]),
            (capture("a", 105), Approved, [890, 5, 105, 0, 0, 0]),
            (capture("a", 16), Partial, [890, 0, 110, 0, 0, 0]),
            (capture("a", 10).flag(Flags::ALL_OR_NOTHING), Approved, [880, 0, 120, 0, 0, 0]),
            (capture("a", 1), Insufficient, [880, 0, 120, 0, 0, 0]),
        ],
    );
    check_with(
        "10 all or nothing",
        generous(),
        &[
            (lock("a", 100), Approved, [890, 110, 0, 0, 0, 0]),
            (capture("a", 121).flag(Flags::ALL_OR_NOTHING), Insufficient, [890, 110, 0, 0, 0, 0]),
            (capture("a", 120).finally(), Approved, [880, 0, 120, 0, 0, 0]),
        ],
    );
    check_with(
        "10 final gives unused headroom back",
        generous(),
        &[
            (lock("a", 100), Approved, [890, 110, 0, 0, 0, 0]),
            (capture("a", 104).finally(), Approved, [896, 0, 104, 0, 0, 0]),
        ],
    );
    check_with(
        "10 frozen captures what R holds",
        generous(),
        &[
            (lock("a", 100), Approved, [890, 110, 0, 0, 0, 0]),
            (operate(Kind::Freeze, 0), Approved, [890, 110, 0, 0, 0, 0]),
            (capture("a", 115), Partial, [890, 0, 110, 0, 0, 0]),
        ],
    );
    check(
        "10 without tolerance",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 101).finally(), Partial, [900, 0, 100, 0, 0, 0]),
        ],
    );
}

#[test]
fn rows_11_and_12_release() {
    use Code::*;
    check(
        "11",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (release("a"), Approved, [1000, 0, 0, 0, 0, 0]),
            (release("a"), Approved, [1000, 0, 0, 0, 0, 0]),
            (capture("a", 1), NotOpen, [1000, 0, 0, 0, 0, 0]),
            (lock("b", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("b", 30), Approved, [900, 70, 30, 0, 0, 0]),
            (release("b"), Approved, [970, 0, 30, 0, 0, 0]),
            (lock("c", 2000), Insufficient, [970, 0, 30, 0, 0, 0]),
            (release("c"), Approved, [970, 0, 30, 0, 0, 0]),
        ],
    );
    let mut world = World::with_policy(&generous());
    world.send(&lock("a", 100).life(1000));
    world.wait(1000);
    assert_eq!(world.end("a"), End::Expired);
    assert_eq!(world.send(&release("a")).code(), Approved);
    assert_eq!(world.end("a"), End::Released);
    assert_eq!(world.send(&capture("a", 1)).code(), NotOpen, "a released lock may not be presented");
    world.finish();
}

#[test]
fn rows_13_and_14_reverse() {
    use Code::*;
    check(
        "13 live",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 30), Approved, [900, 70, 30, 0, 0, 0]),
            (reverse("a", 0), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 100), Approved, [900, 0, 100, 0, 0, 0]),
            (reverse("a", 2), UnknownCapture, [900, 0, 100, 0, 0, 0]),
        ],
    );
    check(
        "13 ended",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 30).finally(), Approved, [970, 0, 30, 0, 0, 0]),
            (reverse("a", 0), Approved, [1000, 0, 0, 0, 0, 0]),
        ],
    );
    check(
        "14",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 30), Approved, [900, 70, 30, 0, 0, 0]),
            (refund("a", 0, 10), Approved, [910, 70, 20, 0, 0, 0]),
            (reverse("a", 0), UseRefund, [910, 70, 20, 0, 0, 0]),
        ],
    );
}

#[test]
fn row_18_expires_in_order_of_deadline_then_id() {
    let mut world = World::new();
    for (name, life) in [("c", 2000), ("a", 1000), ("b", 1000), ("d", 3000)] {
        world.send(&lock(name, 100).life(life));
    }
    world.send(&capture("b", 40));
    let logged = world.log.len();
    world.wait(2500);
    let expired: Vec<Id> = world.log[logged..].iter().map(|record| record.id).collect();
    assert_eq!(expired, ["a", "b", "c"].map(|name| world.names[name]));
    assert_eq!(world.money(), [860, 100, 40, 0, 0, 0]);
    assert_eq!((world.end("b"), world.end("d")), (End::Expired, End::Live));
    world.finish();
}

#[test]
fn row_18_what_has_expired_is_there_for_the_next_lock() {
    let mut world = World::new();
    world.send(&lock("a", 1000).life(1000));
    world.now = world.now.plus(Time::from_millis(1000));
    assert_eq!(world.send(&lock("b", 1000)).code(), Code::Approved);
    world.finish();
}

#[test]
fn row_19_late_captures_draw_from_free() {
    let mut world = World::with_policy(&generous());
    world.send(&lock("a", 100).life(1000));
    world.wait(1000);
    assert_eq!(world.money(), [1000, 0, 0, 0, 0, 0]);
    let send = |world: &mut World, ask: Ask| (world.send(&ask).code(), world.money());
    use Code::*;
    assert_eq!(send(&mut world, capture("a", 111)), (Insufficient, [1000, 0, 0, 0, 0, 0]));
    assert_eq!(send(&mut world, capture("a", 60)), (Approved, [940, 0, 60, 0, 0, 0]));
    assert!(world.log.last().unwrap().flags().has(Flags::LATE));
    assert_eq!(send(&mut world, capture("a", 51)), (Insufficient, [940, 0, 60, 0, 0, 0]));
    assert_eq!(send(&mut world, operate(Kind::Freeze, 0)).0, Approved);
    assert_eq!(send(&mut world, capture("a", 10)), (Frozen, [940, 0, 60, 0, 0, 0]));
    assert_eq!(send(&mut world, operate(Kind::Unfreeze, 0)).0, Approved);
    assert_eq!(send(&mut world, reverse("a", 0)), (Approved, [1000, 0, 0, 0, 0, 0]));
    assert_eq!(send(&mut world, capture("a", 110)), (Approved, [890, 0, 110, 0, 0, 0]));
    world.wait(3_600_001);
    assert_eq!(send(&mut world, capture("a", 1)).0, NotOpen, "its window is over");
    world.finish();
    let mut world = World::new();
    world.send(&lock("a", 100).life(1000));
    world.wait(1000);
    assert_eq!(send(&mut world, capture("a", 1)).0, NotOpen, "the policy allows none");
}

#[test]
fn row_20_advices_are_never_declined() {
    use Code::*;
    check(
        "20 live",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (advice("a", 40), Approved, [900, 60, 40, 0, 0, 0]),
            (advice("a", 100).finally(), Approved, [900, 0, 100, 0, 0, 40]),
        ],
    );
    check(
        "20 unknown",
        &[
            (advice("a", 400), Approved, [600, 0, 400, 0, 0, 0]),
            (advice("b", 700), Approved, [0, 0, 1000, 0, 0, 100]),
            (advice("b", 1), Approved, [0, 0, 1000, 0, 0, 101]),
            (consume("a", 0, 0), Forbidden, [0, 0, 1000, 0, 0, 101]),
            (settle("a", 0), Approved, [400, 0, 600, 0, 0, 101]),
            (operate(Kind::Cover, 100), Approved, [400, 0, 600, 0, 0, 1]),
            (operate(Kind::WriteOff, 2), Insufficient, [400, 0, 600, 0, 0, 1]),
            (operate(Kind::WriteOff, 1), Approved, [400, 0, 600, 0, 0, 0]),
        ],
    );
    check(
        "20 released and tombstone",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (release("a"), Approved, [1000, 0, 0, 0, 0, 0]),
            (advice("a", 10), Approved, [1000, 0, 0, 0, 0, 10]),
            (release("b"), Approved, [1000, 0, 0, 0, 0, 10]),
            (advice("b", 10), Approved, [1000, 0, 0, 0, 0, 20]),
            (lock("c", 2000), Insufficient, [1000, 0, 0, 0, 0, 20]),
            (advice("c", 10), Approved, [1000, 0, 0, 0, 0, 30]),
        ],
    );
    let mut world = World::new();
    world.send(&lock("a", 100).life(1000));
    world.wait(1000);
    let reply = world.send(&advice("a", 1100));
    assert_eq!((reply.code(), reply.approved, reply.extra), (Approved, Amount(1000), Amount(100)));
    assert_eq!(world.money(), [0, 0, 1000, 0, 0, 100]);
    assert_eq!(world.send(&advice("a", 1100)).extra, Amount(1100), "with nothing free all is exposure");
    world.finish();
}

#[test]
fn row_21_refunds_up_to_what_is_open() {
    use Code::*;
    check(
        "21",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 60).finally(), Approved, [940, 0, 60, 0, 0, 0]),
            (refund("a", 0, 20), Approved, [960, 0, 40, 0, 0, 0]),
            (refund("a", 0, 50), Approved, [1000, 0, 0, 0, 0, 0]),
            (refund("a", 0, 50), Approved, [1000, 0, 0, 0, 0, 0]),
            (refund("a", 1, 50), UnknownCapture, [1000, 0, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn row_22_settles() {
    use Code::*;
    check(
        "22 capture",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 60), Approved, [900, 40, 60, 0, 0, 0]),
            (settle("a", 0), Approved, [960, 40, 0, 0, 0, 0]),
            (settle("a", 0), AlreadySettled, [960, 40, 0, 0, 0, 0]),
            (settle("a", 1), UnknownCapture, [960, 40, 0, 0, 0, 0]),
            (consume("a", 0, 0), AlreadySettled, [960, 40, 0, 0, 0, 0]),
            (capture("a", 40), Approved, [960, 0, 40, 0, 0, 0]),
        ],
    );
    check(
        "22 lock",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 20), Approved, [900, 80, 20, 0, 0, 0]),
            (capture("a", 20), Approved, [900, 60, 40, 0, 0, 0]),
            (settle("a", ALL_CAPTURES), Approved, [1000, 0, 0, 0, 0, 0]),
            (capture("a", 1), AlreadySettled, [1000, 0, 0, 0, 0, 0]),
            (settle("a", ALL_CAPTURES), AlreadySettled, [1000, 0, 0, 0, 0, 0]),
            (settle("z", 0), UnknownLock, [1000, 0, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn row_23_consumes() {
    use Code::*;
    check(
        "23",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 60), Approved, [900, 40, 60, 0, 0, 0]),
            (consume("a", 0, 59), Insufficient, [900, 40, 60, 0, 0, 0]),
            (consume("a", 0, 60), Approved, [900, 40, 0, 0, 60, 0]),
            (consume("a", 0, 0), NotOpen, [900, 40, 0, 0, 60, 0]),
            (consume("a", ALL_CAPTURES, 41), Insufficient, [900, 40, 0, 0, 60, 0]),
            (consume("a", ALL_CAPTURES, 15), Approved, [900, 25, 0, 0, 75, 0]),
            (consume("a", ALL_CAPTURES, 0), Malformed, [900, 25, 0, 0, 75, 0]),
            (capture("a", 25), Approved, [900, 0, 25, 0, 75, 0]),
            (settle("a", 0), NotOpen, [900, 0, 25, 0, 75, 0]),
        ],
    );
    let mut world = World::new();
    world.send(&lock("a", 100).flag(Flags::SALE));
    world.send(&consume("a", 0, 0));
    assert_eq!(world.log.last().unwrap().body::<ConsumeBody>().merchant, MERCHANT);
}

#[test]
fn row_24_the_settle_by_time_passes() {
    for (action, money, kind) in
        [(0, [900, 0, 0, 0, 100, 0], Kind::AutoConsume), (1, [1000, 0, 0, 0, 0, 0], Kind::AutoSettle)]
    {
        let settle_by = Time::from_secs(50);
        let policy = Policy { settle_by, settle_by_action: action, ..Policy::default() };
        let mut world = World::with_policy(&policy);
        world.send(&lock("a", 100).flag(Flags::SALE));
        world.wait(49_999);
        assert_eq!(world.money(), [900, 0, 100, 0, 0, 0]);
        world.wait(1);
        assert_eq!((world.money(), world.log.last().unwrap().kind()), (money, Some(kind)));
        world.finish();
    }
    let policy = Policy { settle_by: Time::from_secs(50), ..Policy::default() };
    let mut world = World::with_policy(&policy);
    world.send(&advice("a", 100));
    world.wait(50_000);
    assert_eq!(world.log.last().unwrap().kind(), Some(Kind::AutoSettle), "nobody could be paid");
}

#[test]
fn row_25_a_final_batch_leaves() {
    use Code::*;
    let mut world = run(
        "25",
        World::new(),
        &[
            (lock("a", 100).flag(Flags::SALE), Approved, [900, 0, 100, 0, 0, 0]),
            (consume("a", 0, 0), Approved, [900, 0, 0, 0, 100, 0]),
            (operate(Kind::BatchFinal, 101), Insufficient, [900, 0, 0, 0, 100, 0]),
            (operate(Kind::BatchFinal, 60), Approved, [900, 0, 0, 0, 40, 0]),
        ],
    );
    let body = ControlBody { number: 1, ..ControlBody::default() };
    let id = world.fresh_id();
    let again = Record::new(Kind::BatchFinal, id, P1, Amount(1), &body);
    assert_eq!(world.execute(&operator(), vec![again]).1[0].code(), Exists, "an older batch");
    assert_eq!(world.ledger.partition(P1).unwrap().on_chain, 940);
}

#[test]
fn row_30_a_deficit_freezes_and_is_paid_first() {
    use Code::*;
    let world = run(
        "30",
        World::new(),
        &[
            (lock("a", 300), Approved, [700, 300, 0, 0, 0, 0]),
            (operate(Kind::Deficit, 800), Approved, [0, 300, 0, 0, 0, 0]),
            (lock("b", 1), Frozen, [0, 300, 0, 0, 0, 0]),
            (operate(Kind::Unfreeze, 0), Insufficient, [0, 300, 0, 0, 0, 0]),
            (release("a"), Approved, [200, 0, 0, 0, 0, 0]),
            (lock("c", 1), Frozen, [200, 0, 0, 0, 0, 0]),
            (operate(Kind::Unfreeze, 0), Approved, [200, 0, 0, 0, 0, 0]),
            (lock("d", 1), Approved, [199, 1, 0, 0, 0, 0]),
            (operate(Kind::Deficit, 201), Insufficient, [199, 1, 0, 0, 0, 0]),
        ],
    );
    let totals = world.ledger.partition(P1).unwrap();
    assert_eq!((totals.on_chain, totals.deficit), (200, 0));
}

#[test]
fn row_31_risk_caps_answer_by_themselves_when_the_settler_is_silent() {
    let mut world = World::new();
    let until = START.plus(Time::from_secs(60));
    let body = ControlBody { until, ..ControlBody::default() };
    let id = world.fresh_id();
    let cap = Record::new(Kind::RiskCap, id, P1, Amount(100), &body);
    assert_eq!(world.execute(&operator(), vec![cap]).1[0].code(), Code::Approved);
    assert_eq!(world.send(&lock("a", 101)).code(), Code::ChainStale);
    assert_eq!(world.send(&lock("a", 60)).code(), Code::Approved);
    assert_eq!(world.send(&lock("b", 41)).code(), Code::ChainStale);
    assert_eq!(world.send(&lock("b", 40)).code(), Code::Approved);
    world.wait(60_001);
    assert_eq!(world.send(&release("a")).code(), Code::Approved);
    assert_eq!(world.send(&lock("c", 1)).code(), Code::ChainStale);
    assert_eq!(world.ledger.partition(P1).unwrap().risk_cap, Some((100, until)));
    world.finish();
}

#[test]
fn row_31_a_policy_may_not_limit_what_is_not_kept() {
    let mut world = World::empty();
    world.create(P1, 0);
    let policy = Policy { merchant_open_max: Amount(1), ..Policy::default() };
    assert_eq!(world.policy_code(P1, &policy), Code::Malformed);
    assert_eq!(world.policy_code(P1, &Policy { edge_unit: Amount(0), ..Policy::default() }), Code::Malformed);
    world.finish();
}

#[test]
fn row_32_look_ups_show_and_burn() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    world.send(&capture("a", 30).named("c"));
    let shown = world.send(&lookup("a"));
    assert_eq!(
        (shown.code(), shown.end(), shown.approved, shown.remaining),
        (Code::Approved, End::Live, Amount(100), Amount(70))
    );
    assert_eq!((shown.version, shown.capture), (2, 1));
    let shown = world.send(&lookup("c"));
    assert_eq!((shown.code(), shown.seq), (Code::Approved, Seq(world.log.len() as u64)));
    world.send(&lock("d", 5000));
    let shown = world.send(&lookup("d"));
    assert_eq!((shown.code(), shown.end()), (Code::Insufficient, End::Declined));
    let logged = world.log.len();
    let unknown = world.send(&lookup("x"));
    assert_eq!((unknown.code(), unknown.seq, world.log.len()), (Code::NotFound, Seq(0), logged));
    let burned = world.send(&lookup("x").flag(Flags::BURN));
    assert_eq!(
        (burned.code(), burned.end(), burned.seq),
        (Code::NotFound, End::Declined, Seq(logged as u64 + 1))
    );
    assert_eq!(world.send(&lookup("x").flag(Flags::BURN)).code(), Code::Burned);
    assert_eq!(world.send(&lock("x", 1)).code(), Code::Burned);
    assert_eq!(world.send(&lock("x", 1)).flags, REPLAYED);
    assert_eq!(world.send(&release("x")).code(), Code::Approved, "it never held anything");
    world.finish();
}

#[test]
fn amounts_of_zero_and_other_nonsense_are_malformed() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    let all = [
        lock("b", 0),
        capture("a", 0),
        refund("a", 0, 0),
        on(Kind::Increase, "a", 0).version(1),
        on(Kind::Decrease, "a", 0),
        advice("a", 0),
        Ask { amount: 1, ..release("a") },
        lock("b", limits::AMOUNT_MAX + 1),
        operate(Kind::Deposit, 0),
    ];
    for ask in &all {
        assert_eq!(world.send(ask).code(), Code::Malformed, "{ask:?}");
    }
    let id = Id(5);
    let record = Record::new(Kind::Lock, id, P1, Amount(1), &LockBody::default());
    assert_eq!(world.execute(&caller(T1), vec![record]).1[0].code(), Code::Malformed, "no UUIDv7");
}
