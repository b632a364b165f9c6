//! Where several codes apply, the one that stands first is answered: every pair, for locks.

mod world;

use ledger::Intake;
use surety_protocol::*;
use world::*;

/// Something that makes a lock be refused, by its code.
struct Reason {
    code: Code,
    /// Changes the world.
    prepare: fn(&mut World),
    /// Changes the request.
    change: fn(Ask) -> Ask,
}

const fn nothing(ask: Ask) -> Ask {
    ask
}

fn policy() -> Policy {
    Policy {
        lock_max: Amount(500),
        velocity_value: Amount(10_000),
        life_max: Time::from_secs(3600),
        ratio_bps: 20_000,
        stop_ratio_bps: 15_000,
        ..Policy::default()
    }
}

fn reasons() -> Vec<Reason> {
    let reason = |code, prepare, change| Reason { code, prepare, change };
    vec![
        reason(Code::Malformed, |_| (), |ask| Ask { amount: 0, ..ask }),
        reason(Code::NoRight, |world| world.grant(P1, T1, Rights::READ), nothing),
        reason(
            Code::IdConflict,
            |world| {
                world.send(&lock("it", 1));
            },
            nothing,
        ),
        reason(
            Code::StaleId,
            |world| {
                world.id("it");
                world.wait(120_001);
            },
            nothing,
        ),
        reason(Code::QuotaRate, |world| world.ledger.set_intake(Intake::TooFast), nothing),
        reason(Code::QuotaLocks, |world| world.set_tenant(T1, 0), nothing),
        reason(
            Code::ChainStale,
            |world| {
                let body = ControlBody { until: Time(1), ..ControlBody::default() };
                world.operate_with(Kind::RiskCap, P1, &body);
            },
            nothing,
        ),
        reason(
            Code::AlreadyReleased,
            |world| {
                world.send(&release("it"));
            },
            nothing,
        ),
        reason(
            Code::Frozen,
            |world| {
                world.send(&operate(Kind::Freeze, 0));
            },
            nothing,
        ),
        reason(Code::StalePrice, |_| (), |ask| Ask { quote: QuoteId(1), ..ask }),
        reason(
            Code::Ratio,
            |world| {
                world.wait(1);
                world.price(PAR, 1);
            },
            |ask| Ask { quote: EUR, ..ask },
        ),
        reason(Code::OverLimit, |_| (), |ask| Ask { amount: 501, ..ask }),
        reason(
            Code::Velocity,
            |world| world.policy(P1, &Policy { velocity_value: Amount(1), ..policy() }),
            nothing,
        ),
        reason(Code::Forbidden, |_| (), |ask| ask.life(3_600_001)),
        reason(
            Code::Insufficient,
            |world| {
                world.send(&operate(Kind::Deficit, 1000));
                world.send(&operate(Kind::Unfreeze, 0));
            },
            nothing,
        ),
    ]
}

#[test]
fn of_two_reasons_the_first_code_is_answered() {
    let reasons = reasons();
    assert!(reasons.windows(2).all(|pair| pair[0].code < pair[1].code));
    let answer = |chosen: &[&Reason]| {
        let mut world = World::with_policy(&policy());
        world.price(PAR, 0);
        let mut ask = lock("it", 100);
        // What spends the id or lets it grow old comes last, what takes rights away after that.
        let order = [Code::Insufficient, Code::Ratio, Code::IdConflict, Code::AlreadyReleased, Code::StaleId];
        let rank = |code: Code| match code {
            Code::QuotaLocks | Code::NoRight => 9,
            Code::QuotaRate => 10,
            code => order.iter().position(|other| *other == code).unwrap_or(5),
        };
        let mut prepared: Vec<&&Reason> = chosen.iter().collect();
        prepared.sort_by_key(|reason| rank(reason.code));
        for reason in prepared {
            (reason.prepare)(&mut world);
        }
        for reason in chosen.iter().rev() {
            ask = (reason.change)(ask);
        }
        let reply = world.send(&ask);
        world.finish();
        reply.code()
    };
    for (index, first) in reasons.iter().enumerate() {
        assert_eq!(answer(&[first]), first.code, "alone");
        for second in &reasons[index + 1..] {
            let both = (first.code, second.code);
            // A lock that is known is not forgotten with its window; a currency cannot be priced and not priced; an id
            // cannot be used and released before it came; a frozen partition's thaw; a price of its own stays fresh.
            let exclude = [
                (Code::IdConflict, Code::AlreadyReleased),
                (Code::StaleId, Code::AlreadyReleased),
                (Code::StalePrice, Code::Ratio),
                (Code::Frozen, Code::Insufficient),
            ];
            if !exclude.contains(&both) {
                assert_eq!(answer(&[first, second]), first.code, "{} and {}", both.0, both.1);
            }
        }
    }
}

#[test]
fn changes_of_a_lock_answer_in_the_order_of_the_codes() {
    use Code::*;
    // A called, live lock; then the same with a wrong version and a capture that is not there.
    run(
        "changes",
        World::new(),
        &[
            (lock("a", 100).flag(Flags::CERTIFIED), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 90), Approved, [900, 10, 90, 0, 0, 0]),
            (reverse("a", 7).version(9), VersionConflict, [900, 10, 90, 0, 0, 0]),
            (refund("a", 7, 1).version(9), VersionConflict, [900, 10, 90, 0, 0, 0]),
            (settle("a", 7).version(9), VersionConflict, [900, 10, 90, 0, 0, 0]),
            (capture("a", 900).version(9), VersionConflict, [900, 10, 90, 0, 0, 0]),
            (on(Kind::Decrease, "a", 1).version(9), VersionConflict, [900, 10, 90, 0, 0, 0]),
            (release("a").version(9), VersionConflict, [900, 10, 90, 0, 0, 0]),
            (operate(Kind::Freeze, 0), Approved, [900, 10, 90, 0, 0, 0]),
            (on(Kind::Increase, "a", 50).version(2), Frozen, [900, 10, 90, 0, 0, 0]),
            (on(Kind::Increase, "a", 50).version(1), VersionConflict, [900, 10, 90, 0, 0, 0]),
            (guarantee(Kind::GuaranteeCalled, "a", 0), Approved, [900, 10, 90, 0, 0, 0]),
            (release("a").version(9), GuaranteeCalled, [900, 10, 90, 0, 0, 0]),
            (settle("a", 7).version(9), GuaranteeCalled, [900, 10, 90, 0, 0, 0]),
            (guarantee(Kind::GuaranteePaid, "a", 5), Approved, [995, 0, 0, 0, 0, 0]),
            (capture("a", 900).version(9), AlreadySettled, [995, 0, 0, 0, 0, 0]),
        ],
    );
}
