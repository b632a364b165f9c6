//! Payments that are not where they are looked for first: in a later partition of the route, or where the card led before.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod link;

use iso8583::payment::{Originals, Step, Verdict, Work};
use link::world::{P1, P2};
use surety_protocol::Code;

use link::*;

fn wide(fields: Fields) -> Fields {
    with(fields, 2, WIDE_CARD)
}

#[test]
fn a_reversal_spends_the_places_that_a_declined_lock_may_still_come_to() {
    for (mti, named) in [("0100", "0100"), ("0200", "0200")] {
        let mut link = Link::new();
        link.world.deposit(P2, 5000);
        // Declined in the first partition; the request to the second one is on its way.
        let intent = link.intent(mti, &wide(payment(1, 2000)));
        let (mut work, step) = Work::begin(&intent, &link.rules, None);
        let Step::Send(first) = step else { panic!("{step:?}") };
        let reply = link.execute(first);
        assert_eq!(reply.code(), Code::Insufficient);
        let Step::Send(second) = work.on_reply(&reply) else { panic!("not tried elsewhere") };
        let back = wide(reversal(named, 2, 1, 2000));
        link.check("0400", &wide(with(reversal(named, 3, 1, 2000), 95, &stays(10))), "25");
        link.check("0420", &back, "00");
        link.check("0421", &back, "00");
        let Step::Done(outcome) = work.on_reply(&link.execute(second)) else { panic!("not the last place") };
        assert!(!outcome.is_success(), "{:?}", outcome.verdict);
        link.check("0421", &back, "00");
        assert_eq!((link.money(), link.money_of(P2)), ([1000, 0, 0, 0], [5000, 0, 0, 0]));
        link.world.finish();
    }
}

#[test]
fn a_payment_that_all_have_declined_leaves_nothing_to_spend() {
    let mut link = Link::new();
    link.check("0100", &wide(payment(1, 2000)), "51");
    let logged = link.world.log.len();
    link.check("0400", &wide(reversal("0100", 2, 1, 2000)), "00");
    assert_eq!(link.world.log.len(), logged);
    link.world.finish();
}

#[test]
fn a_wrong_type_is_noticed_wherever_the_lock_is() {
    for is_known in [true, false] {
        let mut link = Link::new();
        link.world.deposit(P2, 5000);
        link.check("0100", &wide(payment(1, 2000)), "00");
        assert_eq!(link.money_of(P2), [3000, 2000, 0, 0]);
        if !is_known {
            link.originals = Originals::new(0);
        }
        for (trace, named) in [(2, "0200"), (3, "0120"), (4, "0220")] {
            let wrong = wide(with(reversal(named, trace, 1, 2000), 37, "REF000000001"));
            link.check("0400", &wrong, "25");
            link.check("0401", &wrong, "25");
        }
        assert_eq!(link.money_of(P2), [3000, 2000, 0, 0]);
        link.check("0400", &wide(reversal("0100", 5, 1, 2000)), "00");
        assert_eq!(link.money_of(P2), [5000, 0, 0, 0]);
        link.world.finish();
    }
}

#[test]
fn an_increase_is_not_taken_for_a_sale_that_has_not_come() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    let under_1 = |fields| with(fields, 37, "REF000000001");
    link.check("0100", &with(under_1(payment(2, 50)), 60, "01"), "00");
    link.check("0400", &under_1(reversal("0200", 3, 2, 50)), "25");
    assert_eq!(link.money(), [850, 150, 0, 0]);
    link.check("0400", &under_1(reversal("0100", 4, 2, 50)), "00");
    assert_eq!(link.money(), [900, 100, 0, 0]);
    link.world.finish();
}

#[test]
fn what_was_paid_before_a_card_was_led_elsewhere_is_still_found() {
    let forgotten = |link: &mut Link| link.originals = Originals::new(0);
    let mut link = Link::new();
    link.world.deposit(P2, 1000);
    link.check("0100", &payment(1, 100), "00");
    link.check("0100", &payment(2, 50), "00");
    link.check("0200", &payment(3, 30), "00");
    // A lock in the second partition of a route.
    link.check("0100", &wide(payment(5, 940)), "00");
    assert_eq!((link.money(), link.money_of(P2)), ([820, 150, 30, 0], [60, 940, 0, 0]));
    let mut rules = link.rules.clone();
    rules.routes[0].partitions = vec![P2];
    rules.routes[1].partitions = vec![P1];
    link.rules = rules.following(&link.rules).unwrap();
    forgotten(&mut link);
    link.check("0400", &without(reversal("0100", 11, 1, 100), 37), "00");
    assert_eq!(link.money(), [920, 50, 30, 0]);
    link.check("0420", &without(reversal("0200", 12, 3, 30), 37), "00");
    assert_eq!(link.money(), [950, 50, 0, 0]);
    link.check("0220", &completion("0100", 13, 2, 40), "00");
    link.check("0221", &completion("0100", 13, 2, 40), "00");
    assert_eq!(link.money(), [960, 0, 40, 0]);
    let back = with(reversal("0220", 14, 13, 40), 37, "REF000000002");
    link.check("0400", &back, "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.check("0400", &wide(without(reversal("0100", 15, 5, 940), 37)), "00");
    assert_eq!(link.money_of(P2), [1000, 0, 0, 0]);
    // New payments, and what has not come yet, follow the new route.
    link.check("0400", &without(reversal("0100", 17, 16, 70), 37), "00");
    link.check("0100", &payment(16, 70), "94");
    link.check("0100", &payment(18, 70), "00");
    assert_eq!((link.money(), link.money_of(P2)), ([1000, 0, 0, 0], [930, 70, 0, 0]));
    link.world.finish();
}

#[test]
fn a_card_that_leads_nowhere_any_more_pays_nothing_and_is_still_taken_back() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    let mut rules = link.rules.clone();
    rules.routes.remove(0);
    link.rules = rules.following(&link.rules).unwrap();
    link.originals = Originals::new(0);
    link.check("0100", &payment(2, 100), "15");
    link.check("0220", &completion("0100", 3, 2, 100), "15");
    assert_eq!(link.money(), [900, 100, 0, 0]);
    link.check("0400", &without(reversal("0100", 4, 1, 100), 37), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn an_increase_whose_attempts_cannot_be_looked_up_is_not_answered() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    let increase = with(with(payment(2, 50), 37, "REF000000001"), 60, "01");
    link.check("0100", &increase, "00");
    // Its repeat, at a moment when the engine takes nothing: that it is not available would be untrue.
    let intent = link.intent("0101", &increase);
    let known = intent.handle.and_then(|handle| link.originals.find(handle));
    let (mut work, step) = Work::begin(&intent, &link.rules, known);
    let Step::Send(look_up) = step else { panic!("{step:?}") };
    let refused = surety_protocol::Reply { id: look_up.id, kind: look_up.kind, ..Default::default() };
    let refused = surety_protocol::Reply { code: Code::Overloaded as u8, ..refused };
    let Step::Done(outcome) = work.on_reply(&refused) else { panic!("it goes on") };
    assert_eq!(outcome.verdict, Verdict::Unknown);
    assert!(!outcome.is_success());
}
