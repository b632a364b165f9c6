//! A link of several currencies: an amount is only ever taken out of what is held in its currency.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod link;

use iso8583::payment::{Currency, Originals, Scale};
use link::world::{P1, P2};
use surety_protocol::Kind;

use link::*;

/// Dollars in the first partition, euros in the second; wide cards lead to both, dollars first.
fn two_currencies() -> Link {
    let mut link = Link::new();
    link.world.deposit(P2, 1000);
    let scale = Scale { asset_decimals: 2, edge_decimals: 2 };
    link.rules.currencies.push(Currency { number: 978, scale });
    link.rules.held_in.insert(P2, 978);
    link
}

fn wide(fields: Fields) -> Fields {
    with(fields, 2, WIDE_CARD)
}

fn euro(fields: Fields) -> Fields {
    with(fields, 49, "978")
}

#[test]
fn no_currency_is_taken_out_of_another() {
    let mut link = two_currencies();
    for (mti, make) in [("0100", payment as fn(u32, u32) -> Fields), ("0200", payment), ("0120", stand_in)] {
        link.check(mti, &euro(make(1, 100)), "12");
        link.check(mti, &with(make(2, 100), 2, OTHER_CARD), "12");
        link.check(mti, &euro(with(make(3, 100), 102, "0:1")), "12");
        link.check(mti, &with(make(4, 100), 102, "0:2"), "12");
    }
    let forced = |trace| without(completion("0100", trace, 99, 100), 90);
    link.check("0220", &euro(forced(5)), "12");
    link.check("0220", &with(forced(6), 2, OTHER_CARD), "12");
    link.check("0220", &euro(with(forced(7), 102, "0:1")), "12");
    assert_eq!((link.money(), link.money_of(P2)), ([1000, 0, 0, 0], [1000, 0, 0, 0]));
    link.world.finish();
}

#[test]
fn a_route_is_tried_where_the_currency_is_held() {
    for forgets in [false, true] {
        let mut link = two_currencies();
        let forget = |link: &mut Link| {
            if forgets {
                link.originals = Originals::new(0);
            }
        };
        link.check("0100", &wide(euro(payment(1, 100))), "00");
        link.check("0101", &wide(euro(payment(1, 100))), "00");
        link.check("0100", &wide(euro(payment(2, 50))), "00");
        link.check("0200", &wide(euro(payment(3, 30))), "00");
        link.check("0100", &wide(payment(4, 10)), "00");
        assert_eq!((link.money(), link.money_of(P2)), ([990, 10, 0, 0], [820, 150, 30, 0]));
        link.check("0100", &wide(payment(5, 991)), "51");
        forget(&mut link);
        link.check("0220", &wide(euro(completion("0100", 11, 2, 40))), "00");
        link.check("0221", &wide(euro(completion("0100", 11, 2, 40))), "00");
        forget(&mut link);
        link.check("0400", &wide(euro(reversal("0100", 12, 1, 100))), "00");
        link.check("0420", &wide(euro(reversal("0200", 13, 3, 30))), "00");
        link.check("0400", &wide(reversal("0100", 14, 4, 10)), "00");
        assert_eq!((link.money(), link.money_of(P2)), ([1000, 0, 0, 0], [960, 0, 40, 0]));
        // What has not come is spent where it would go.
        link.check("0400", &wide(euro(reversal("0100", 15, 16, 70))), "00");
        link.check("0401", &wide(euro(reversal("0100", 15, 16, 70))), "00");
        link.check("0100", &wide(euro(payment(16, 70))), "94");
        assert_eq!(link.money_of(P2), [960, 0, 40, 0]);
        link.world.finish();
    }
}

#[test]
fn what_was_locked_before_is_taken_back_in_whole_and_no_amount_of_another_currency_is() {
    let mut link = two_currencies();
    // Under rules that took the one for the other.
    let held_in = std::mem::take(&mut link.rules.held_in);
    link.check("0100", &payment(1, 100), "00");
    link.check("0200", &with(payment(3, 30), 2, OTHER_CARD), "00");
    link.rules.held_in = held_in;
    let logged = link.world.log.len();
    link.check("0100", &euro(with(with(payment(4, 50), 37, "REF000000001"), 60, "01")), "12");
    link.check("0220", &euro(completion("0100", 5, 1, 100)), "12");
    link.check("0400", &euro(with(reversal("0100", 6, 1, 100), 95, &stays(10))), "12");
    link.check("0420", &with(with(reversal("0200", 7, 3, 30), 2, OTHER_CARD), 95, &stays(10)), "12");
    assert_eq!(link.world.log.len(), logged);
    link.check("0400", &euro(reversal("0100", 8, 1, 100)), "00");
    link.check("0420", &with(reversal("0200", 9, 3, 30), 2, OTHER_CARD), "00");
    assert_eq!((link.money(), link.money_of(P2)), ([1000, 0, 0, 0], [1000, 0, 0, 0]));
    assert_eq!(link.count(Kind::Release), 2);
    assert_eq!(link.rules.held_in(P1), Some(840));
    link.world.finish();
}
