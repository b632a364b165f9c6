//! Locks in a quote currency: prices, ratios, rounding.

mod world;

use surety_protocol::*;
use world::*;

/// Twice the collateral for the value, and a stop at 150 %.
fn policy() -> Policy {
    Policy { ratio_bps: 20_000, stop_ratio_bps: 15_000, edge_unit: Amount(10), ..Policy::default() }
}

fn world(price: u128) -> World {
    let mut world = World::with_policy(&policy());
    world.price(price, 0);
    world
}

fn check(name: &str, price: u128, steps: &[Step]) -> World {
    run(name, world(price), steps)
}

#[test]
fn collateral_is_value_times_ratio_by_price_rounded_up() {
    use Code::*;
    check("par", PAR, &[(lock("a", 100).quote(), Approved, [800, 200, 0, 0, 0, 0])]);
    check("three for one", 3 * PAR, &[(lock("a", 100).quote(), Approved, [933, 67, 0, 0, 0, 0])]);
    let world = check("reply", PAR, &[(lock("a", 100).quote(), Approved, [800, 200, 0, 0, 0, 0])]);
    let record = world.log.last().unwrap();
    let price = world.log.iter().position(|record| record.kind() == Some(Kind::Price)).unwrap();
    assert_eq!(record.body::<LockBody>().price_seq, price as u64 + 1);
}

#[test]
fn captures_take_the_floor_of_the_cumulative_value() {
    use Code::*;
    // 67 base units for a value of 100.
    let world = check(
        "captures",
        3 * PAR,
        &[
            (lock("a", 100).quote(), Approved, [933, 67, 0, 0, 0, 0]),
            (capture("a", 33), Approved, [933, 45, 22, 0, 0, 0]),
            (capture("a", 33), Approved, [933, 23, 44, 0, 0, 0]),
            (capture("a", 34).finally(), Approved, [933, 0, 67, 0, 0, 0]),
        ],
    );
    assert_eq!(world.lock_state("a").unwrap().captured, 67);
    check(
        "the final capture releases the rest",
        3 * PAR,
        &[
            (lock("a", 100).quote(), Approved, [933, 67, 0, 0, 0, 0]),
            (capture("a", 99).finally(), Approved, [934, 0, 66, 0, 0, 0]),
            (refund("a", 0, 50), Approved, [967, 0, 33, 0, 0, 0]),
            (refund("a", 0, 49), Approved, [1000, 0, 0, 0, 0, 0]),
        ],
    );
    check(
        "beyond",
        PAR,
        &[
            (lock("a", 100).quote(), Approved, [800, 200, 0, 0, 0, 0]),
            (capture("a", 101).flag(Flags::ALL_OR_NOTHING), Insufficient, [800, 200, 0, 0, 0, 0]),
            (capture("a", 101), Partial, [800, 0, 200, 0, 0, 0]),
            (reverse("a", 0), Approved, [800, 200, 0, 0, 0, 0]),
            (capture("a", 100), Approved, [800, 0, 200, 0, 0, 0]),
        ],
    );
}

#[test]
fn totals_are_in_the_locks_own_currency() {
    use Code::*;
    check(
        "totals",
        PAR,
        &[
            (lock("a", 100).quote(), Approved, [800, 200, 0, 0, 0, 0]),
            (on(Kind::Increase, "a", 150).version(1), Approved, [700, 300, 0, 0, 0, 0]),
            (capture("a", 50), Approved, [700, 200, 100, 0, 0, 0]),
            (on(Kind::Decrease, "a", 49), OverLimit, [700, 200, 100, 0, 0, 0]),
            (on(Kind::Decrease, "a", 100), Approved, [800, 100, 100, 0, 0, 0]),
            (capture("a", 50).finally(), Approved, [800, 0, 200, 0, 0, 0]),
        ],
    );
}

#[test]
fn partial_locks_are_worth_what_there_is() {
    use Code::*;
    let world = check(
        "partial",
        PAR,
        &[
            (lock("a", 255).quote(), Approved, [490, 510, 0, 0, 0, 0]),
            (lock("b", 300).quote().floor(246), Insufficient, [490, 510, 0, 0, 0, 0]),
            (lock("c", 300).quote().floor(245), Partial, [0, 1000, 0, 0, 0, 0]),
            (capture("c", 245).finally(), Approved, [0, 510, 490, 0, 0, 0]),
        ],
    );
    assert_eq!(world.lock_state("c").unwrap().captured, 490);
}

#[test]
fn consuming_pays_the_value_of_now() {
    use Code::*;
    let steps = [
        (lock("a", 100).quote(), Approved, [800, 200, 0, 0, 0, 0]),
        (capture("a", 100).finally(), Approved, [800, 0, 200, 0, 0, 0]),
    ];
    let consumed = |price, money: [u128; 6], extra| {
        let mut world = check("consume", PAR, &steps);
        world.price(price, 0);
        // However old the price is.
        world.wait(600_000);
        let reply = world.send(&consume("a", 0, 0));
        assert_eq!((reply.code(), reply.extra, world.money()), (Approved, Amount(extra), money));
        world.finish();
    };
    consumed(PAR, [900, 0, 0, 0, 100, 0], 0);
    consumed(2 * PAR, [950, 0, 0, 0, 50, 0], 0);
    consumed(PAR / 2, [800, 0, 0, 0, 200, 0], 0);
    consumed(PAR / 3, [800, 0, 0, 0, 200, 100], 100);
    let mut world = check("held", PAR, &steps[..1]);
    assert_eq!(world.send(&consume("a", ALL_CAPTURES, 40)).code(), Approved);
    assert_eq!(world.money(), [840, 120, 0, 0, 40, 0]);
    assert_eq!(world.send(&consume("a", ALL_CAPTURES, 61)).code(), Insufficient);
    world.finish();
}

#[test]
fn prices_go_stale_and_ratios_stop() {
    let mut world = world(PAR);
    world.wait(60_000);
    assert_eq!(world.send(&lock("a", 10).quote()).code(), Code::Approved);
    world.wait(1);
    assert_eq!(world.send(&lock("b", 10).quote()).code(), Code::StalePrice);
    assert_eq!(world.send(&on(Kind::Increase, "a", 20).version(1)).code(), Code::StalePrice);
    assert_eq!(world.send(&capture("a", 10)).code(), Code::Approved);
    world.price(PAR, 14_999);
    assert_eq!(world.send(&lock("c", 10).quote()).code(), Code::Ratio);
    world.price(PAR, 15_000);
    assert_eq!(world.send(&lock("d", 10).quote()).code(), Code::Approved);
    assert_eq!(world.lock_state("d").unwrap().approved, 15);
    world.finish();
}

#[test]
fn an_older_price_is_not_taken() {
    let mut world = world(PAR);
    let body = PriceBody {
        asset: AMP,
        quote: EUR,
        observed: START.minus(Time::from_millis(1)),
        ..PriceBody::default()
    };
    let mut send = |body: PriceBody| {
        let id = world.fresh_id();
        let record = Record::new(Kind::Price, id, PartitionHandle(0), Amount(1), &body);
        world.execute(&operator(), vec![record]).1[0].code()
    };
    assert_eq!(send(body), Code::Exists);
    assert_eq!(send(PriceBody { observed: START.plus(Time::from_secs(6)), ..body }), Code::Malformed);
    assert_eq!(send(PriceBody { quote: QuoteId(0), ..body }), Code::Malformed);
}

#[test]
fn late_captures_of_a_quote_lock_take_what_expired() {
    let policy = Policy { late_capture: 1, late_window: Time::from_secs(600), ..policy() };
    let mut world = World::with_policy(&policy);
    world.price(3 * PAR, 0);
    world.send(&lock("a", 100).quote().life(1000));
    world.send(&capture("a", 40));
    world.wait(1000);
    assert_eq!(world.money(), [974, 0, 26, 0, 0, 0]);
    assert_eq!(world.send(&capture("a", 30)).approved, Amount(20));
    assert_eq!(world.send(&capture("a", 31)).code(), Code::Approved, "a fraction more has no collateral");
    assert_eq!(world.money(), [933, 0, 67, 0, 0, 0]);
    assert_eq!(world.send(&capture("a", 2)).code(), Code::Insufficient);
    assert_eq!(world.send(&reverse("a", 1)).code(), Code::Approved);
    assert_eq!(world.send(&capture("a", 29)).code(), Code::Approved);
    world.finish();
}
