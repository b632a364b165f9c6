//! What is taken back, in whole, in part, too late or too early; and what a refused look-up is not.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod link;

use iso8583::payment::{Intent, Originals, Outcome, Step, Verdict, Work};
use iso8583::{Dialect, Message, Profile};
use link::world::P2;
use surety_protocol::{Amount, Code, End, Kind, Reply};

use link::*;

const MINUTE_MS: u64 = 60_000;

#[test]
fn the_1993_edition_takes_back_what_a_payment_has_come_to() {
    let v1993 = Dialect::V1993;
    let mut link = Link::of(v1993, Profile::ASCII);
    let about = |trace, of: u32, amount| {
        without(with(edition(v1993, payment(trace, amount)), 37, &format!("REF{of:09}")), 2)
    };
    // A sale, a completed authorization, a stand-in's payment that came too late to be locked.
    link.check("1200", &edition(v1993, payment(1, 100)), "000");
    link.check("1100", &edition(v1993, payment(2, 100)), "000");
    link.check("1220", &with(about(3, 2, 90), 38, "ABC123"), "000");
    link.world.wait(10 * MINUTE_MS);
    let told = with(with(edition(v1993, payment(4, 50)), 38, "ABC123"), 39, "000");
    link.check("1120", &told, "000");
    assert_eq!(link.money(), [760, 0, 240, 0]);
    for (trace, of, amount, left) in [(5, 1, 100, 140), (6, 2, 90, 50), (7, 4, 50, 0)] {
        link.check("1420", &about(trace, of, amount), "000");
        assert!(!link.outcome.unwrap().is_unmatched);
        link.check("1421", &about(trace, of, amount), "000");
        assert_eq!(link.money(), [1000 - left, 0, left, 0], "{of}");
    }
    link.check("1400", &about(8, 1, 100), "913");
    // A part of a sale.
    let mut link = Link::of(v1993, Profile::ASCII);
    link.check("1200", &edition(v1993, payment(9, 100)), "000");
    let part = with(about(10, 9, 30), 30, &format!("{:012}{:012}", 100, 0));
    link.check("1400", &part, "000");
    link.check("1401", &part, "000");
    assert_eq!(link.money(), [970, 0, 30, 0]);
    link.check("1400", &with(about(11, 9, 20), 30, &format!("{:012}{:012}", 99, 0)), "902");
    // With a card, but without a payment: its own id is nobody's lock.
    let logged = link.world.log.len();
    link.check("1400", &edition(v1993, payment(12, 100)), "914");
    link.check("1420", &edition(v1993, payment(12, 100)), "000");
    assert!(link.outcome.unwrap().is_unmatched);
    assert_eq!(link.world.log.len(), logged);
    link.world.finish();
}

#[test]
fn parts_of_a_sale_go_back_down_to_what_stays() {
    let mut link = Link::new();
    link.check("0200", &payment(1, 100), "00");
    let part = |trace, rest| with(reversal("0200", trace, 1, 100), 95, &stays(rest));
    link.check("0420", &part(2, 60), "00");
    link.check("0420", &part(3, 60), "00");
    assert_eq!(link.money(), [940, 0, 60, 0], "two messages that say the same");
    link.check("0420", &part(4, 30), "00");
    assert_eq!(link.money(), [970, 0, 30, 0]);
    // Late repeats of what stood before.
    link.world.wait(10 * MINUTE_MS);
    link.check("0421", &part(2, 60), "00");
    link.check("0421", &part(4, 30), "00");
    assert_eq!(link.money(), [970, 0, 30, 0]);
    // Another original amount is another payment.
    link.check("0400", &with(reversal("0200", 5, 1, 90), 95, &stays(10)), "64");
    link.check("0420", &with(reversal("0200", 6, 1, 90), 95, &stays(10)), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    assert_eq!(link.money(), [970, 0, 30, 0]);
    // All of it after a part of it.
    link.check("0400", &reversal("0200", 7, 1, 100), "00");
    link.check("0401", &reversal("0200", 7, 1, 100), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.check("0421", &part(4, 30), "00");
    // New ones find nothing open, and nothing tells why.
    link.check("0400", &part(4, 30), "12");
    link.check("0400", &reversal("0200", 8, 1, 100), "12");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn a_part_of_what_was_settled_or_consumed_is_not_said_to_be_back() {
    for kind in [Kind::Settle, Kind::Consume] {
        let mut link = Link::new();
        link.check("0200", &payment(1, 100), "00");
        link.end_capture(kind);
        let money = link.money();
        let part = |trace| with(reversal("0200", trace, 1, 100), 95, &stays(60));
        link.check("0400", &part(2), "12");
        link.check("0401", &part(2), "12");
        link.check("0420", &part(3), "00");
        assert!(link.outcome.unwrap().is_unmatched);
        link.check("0400", &reversal("0200", 4, 1, 100), "12");
        // A part that went back in time stands.
        link.check("0200", &payment(5, 100), "00");
        let [free, ..] = link.money();
        let part = with(reversal("0200", 6, 5, 100), 95, &stays(60));
        link.check("0400", &part, "00");
        link.end_capture(kind);
        link.check("0401", &part, "00");
        link.check("0400", &with(reversal("0200", 7, 5, 100), 95, &stays(30)), "12");
        let back = if kind == Kind::Settle { 100 } else { 40 };
        assert_eq!((link.money()[0], link.money()[2]), (free + back, 0), "{money:?}");
        link.world.finish();
    }
}

#[test]
fn what_may_have_been_made_and_forgotten_is_not_said_to_be_back() {
    let mut link = Link::new();
    link.check("0200", &payment(1, 100), "00");
    link.end_capture(Kind::Settle);
    // One that overtook its request, while that could still come.
    link.check("0400", &reversal("0100", 3, 2, 100), "00");
    let days = 500;
    link.world.wait(10 * MINUTE_MS);
    link.check("0401", &reversal("0100", 3, 2, 100), "00");
    // Too late to tell: never sent, or made and forgotten.
    for (trace, of, named) in [(5, 4, "0100"), (6, 4, "0200"), (7, 4, "0120")] {
        let back = reversal(named, trace, of, 100);
        link.check("0400", &back, "25");
        link.check("0401", &back, "25");
        link.check("0420", &with(back.clone(), 11, &format!("{:06}", trace + 100)), "00");
        assert!(link.outcome.unwrap().is_unmatched);
    }
    link.world.wait(days * 24 * 60 * MINUTE_MS);
    let now = String::from_utf8(iso8583::payment::sent_at(link.world.now).to_vec()).unwrap();
    let back = with(reversal("0200", 8, 1, 100), 7, &now);
    link.check("0400", &back, "25");
    link.check("0400", &with(with(back, 11, "000009"), 95, &stays(60)), "25");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn parts_of_a_completion_go_back_down_to_what_stays() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    link.check("0220", &completion("0100", 2, 1, 80), "00");
    let reversal = |trace, amount| with(reversal("0220", trace, 2, amount), 37, "REF000000001");
    let part = with(reversal(3, 80), 95, &stays(50));
    link.check("0420", &part, "00");
    link.check("0421", &part, "00");
    assert_eq!(link.money(), [950, 0, 50, 0]);
    link.check("0400", &with(reversal(4, 70), 95, &stays(20)), "64");
    link.check("0400", &reversal(5, 80), "00");
    link.check("0401", &reversal(5, 80), "00");
    link.check("0421", &part, "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    // A part of what has not come: the rest of it is to be executed.
    link.check("0100", &payment(6, 100), "00");
    let early = with(with(crate::reversal("0220", 8, 7, 80), 37, "REF000000006"), 95, &stays(50));
    link.check("0400", &early, "25");
    link.check("0220", &completion("0100", 7, 6, 80), "00");
    link.check("0401", &early, "00");
    assert_eq!(link.money(), [950, 0, 50, 0]);
    link.world.finish();
}

#[test]
fn a_reversed_completion_is_found_where_it_captured() {
    let mut link = Link::new();
    link.world.deposit(P2, 1000);
    // Two payments under one reference; the second one in another partition.
    link.check("0100", &payment(1, 100), "00");
    link.check("0100", &with(with(payment(3, 50), 37, "REF000000001"), 2, OTHER_CARD), "00");
    let second = with(with(completion("0100", 4, 3, 50), 37, "REF000000001"), 2, OTHER_CARD);
    link.check("0220", &completion("0100", 2, 1, 100), "00");
    link.check("0220", &second, "00");
    assert_eq!((link.money(), link.money_of(P2)), ([900, 0, 100, 0], [950, 0, 50, 0]));
    let back = |trace, of, card| with(with(reversal("0220", trace, of, 50), 37, "REF000000001"), 2, card);
    link.check("0420", &back(5, 4, OTHER_CARD), "00");
    assert_eq!((link.money(), link.money_of(P2)), ([900, 0, 100, 0], [1000, 0, 0, 0]));
    link.check("0421", &back(5, 4, OTHER_CARD), "00");
    link.check("0420", &back(6, 2, CARD), "00");
    assert_eq!((link.money(), link.money_of(P2)), ([1000, 0, 0, 0], [1000, 0, 0, 0]));
    // In the second partition of a route, by a gateway that has forgotten the reference.
    let wide = |fields| with(fields, 2, WIDE_CARD);
    link.check("0100", &wide(payment(10, 900)), "00");
    link.check("0100", &wide(payment(11, 900)), "00");
    link.check("0220", &wide(completion("0100", 12, 11, 800)), "00");
    assert_eq!((link.money(), link.money_of(P2)), ([100, 900, 0, 0], [200, 0, 800, 0]));
    link.originals = Originals::new(0);
    let back = wide(with(reversal("0220", 13, 12, 800), 37, "REF000000011"));
    link.check("0400", &without(back.clone(), 37), "30");
    link.check("0420", &back, "00");
    link.check("0421", &back, "00");
    assert!(!link.outcome.unwrap().is_unmatched);
    assert_eq!((link.money(), link.money_of(P2)), ([100, 900, 0, 0], [1000, 0, 0, 0]));
    link.world.finish();
}

#[test]
fn what_was_taken_back_first_is_never_executed_however_late_it_comes() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    link.world.wait(10 * MINUTE_MS);
    // The completion of a lock, and a stand-in's payment, both still in somebody's store.
    let back = with(reversal("0220", 3, 2, 80), 37, "REF000000001");
    link.check("0420", &back, "00");
    link.check("0420", &reversal("0120", 5, 4, 200), "00");
    let money = link.money();
    link.world.wait(24 * 60 * MINUTE_MS);
    let [free, held, captured, exposure] = link.money();
    assert_eq!((free + held, captured, exposure), (money[0] + money[1], 0, 0));
    link.check("0220", &completion("0100", 2, 1, 80), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    link.check("0120", &stand_in(4, 200), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    assert_eq!(link.money(), [free, held, captured, exposure]);
    link.check("0421", &back, "00");
    // One that comes while its lock could still be made.
    let mut link = Link::new();
    link.check("0420", &reversal("0120", 7, 6, 200), "00");
    link.check("0120", &stand_in(6, 200), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn an_authorization_is_spent_also_where_its_completion_was_first() {
    let mut link = Link::new();
    link.check("0420", &with(reversal("0220", 3, 2, 100), 37, "REF000000001"), "00");
    // It has burned the increase that it might have named, and tells nothing.
    link.check("0220", &completion("0100", 2, 1, 100), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    link.check("0400", &reversal("0100", 4, 1, 100), "00");
    link.check("0100", &payment(1, 100), "94");
    link.check("0401", &reversal("0100", 4, 1, 100), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn an_increase_is_taken_back_or_never_made() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    let under_1 = |fields| with(fields, 37, "REF000000001");
    let increase = |trace, amount| with(under_1(payment(trace, amount)), 60, "01");
    let back = |trace, of, amount| under_1(reversal("0100", trace, of, amount));
    link.check("0100", &increase(2, 50), "00");
    link.check("0100", &increase(3, 30), "00");
    link.check("0400", &back(4, 2, 50), "00");
    link.check("0401", &back(4, 2, 50), "00");
    assert_eq!(link.money(), [870, 130, 0, 0]);
    let part = with(back(5, 3, 30), 95, &stays(10));
    link.check("0420", &part, "00");
    link.check("0421", &part, "00");
    assert_eq!(link.money(), [890, 110, 0, 0]);
    link.check("0400", &with(back(6, 3, 20), 95, &stays(5)), "64");
    // Before it comes.
    link.check("0420", &back(8, 7, 40), "00");
    link.check("0100", &increase(7, 40), "68");
    link.check("0421", &back(8, 7, 40), "00");
    assert_eq!(link.money(), [890, 110, 0, 0]);
    // After all of the payment went back.
    link.check("0100", &increase(9, 40), "00");
    link.check("0400", &reversal("0100", 10, 1, 100), "00");
    link.check("0400", &back(11, 9, 40), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn an_original_of_another_type_is_not_taken_back_and_not_said_to_be() {
    let mut link = Link::new();
    link.check("0200", &payment(1, 100), "00");
    link.check("0400", &reversal("0100", 2, 1, 100), "25");
    link.check("0401", &reversal("0100", 2, 1, 100), "25");
    link.check("0420", &reversal("0220", 3, 1, 100), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    assert_eq!(link.money(), [900, 0, 100, 0]);
    // What it named will not come all the same.
    link.check("0100", &payment(1, 100), "94");
    link.check("0400", &reversal("0200", 4, 1, 100), "00");
    // The authorization behind a completion is no longer there to be taken back.
    link.check("0100", &payment(5, 100), "00");
    link.check("0220", &completion("0100", 6, 5, 100), "00");
    link.check("0400", &reversal("0100", 7, 5, 100), "12");
    link.check("0420", &reversal("0100", 8, 5, 100), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    assert_eq!(link.money(), [900, 0, 100, 0]);
    for mti in ["0400", "0800", "0500", "0110"] {
        link.check("0400", &reversal(mti, 9, 5, 100), "30");
    }
    link.world.finish();
}

#[test]
fn a_completion_before_its_stand_in_counts_once() {
    let mut link = Link::new();
    link.check("0220", &completion("0120", 2, 1, 400), "00");
    assert_eq!(link.money(), [600, 0, 400, 0]);
    link.check("0120", &stand_in(1, 400), "00");
    link.check("0121", &stand_in(1, 400), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    assert_eq!(link.money(), [600, 0, 400, 0]);
    link.world.finish();
}

#[test]
fn a_late_notice_of_a_part_is_applied_once() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    link.world.wait(3 * MINUTE_MS);
    let part = with(reversal("0100", 2, 1, 100), 95, &stays(40));
    link.check("0420", &part, "00");
    assert!(!link.outcome.unwrap().is_unmatched);
    assert_eq!(link.money(), [960, 40, 0, 0]);
    link.check("0421", &part, "00");
    assert!(!link.outcome.unwrap().is_unmatched);
    assert_eq!(link.money(), [960, 40, 0, 0]);
    link.world.finish();
}

#[test]
fn a_lock_in_a_later_partition_is_found_when_the_decline_before_it_is_forgotten() {
    let mut link = Link::new();
    link.world.deposit(P2, 5000);
    let fields = with(payment(1, 2000), 2, WIDE_CARD);
    let first = link.check("0100", &fields, "00");
    link.world.wait(3 * MINUTE_MS);
    assert_eq!(link.send("0101", &fields), first);
    link.originals = Originals::new(0);
    assert_eq!(link.send("0101", &fields), first);
    link.check("0420", &with(reversal("0100", 2, 1, 2000), 2, WIDE_CARD), "00");
    assert_eq!(link.money_of(P2), [5000, 0, 0, 0]);
    link.world.finish();
}

/// A message whose work is answered by hand.
struct ByHand {
    work: Work,
    step: Step,
}

impl ByHand {
    fn new(mti: &str, fields: &Fields) -> Self {
        let link = Link::new();
        let bytes = link.bytes(mti, fields);
        let message = Message::parse(link.codec, &bytes).unwrap();
        let intent = Intent::read(&message, &link.rules, link.world.now).unwrap();
        let (work, step) = Work::begin(&intent, &link.rules, None);
        Self { work, step }
    }

    fn answer(&mut self, kind: Kind, code: Code, end: End) {
        let Step::Send(record) = self.step else { panic!("{:?} sends nothing", self.step) };
        assert_eq!(record.kind(), Some(kind));
        let approved = Amount(if code.is_success() { 100 } else { 0 });
        let reply = Reply {
            id: record.id,
            kind: record.kind,
            code: code as u8,
            end: end as u8,
            approved,
            ..Reply::default()
        };
        self.step = self.work.on_reply(&reply);
    }

    fn verdict(&self) -> Code {
        match self.step {
            Step::Done(Outcome { verdict: Verdict::Code(code), .. }) => code,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_place_that_cannot_say_leaves_a_decline_open() {
    for (code, expect) in [
        (Code::Overloaded, Code::Overloaded),
        (Code::StorageLow, Code::StorageLow),
        (Code::Velocity, Code::Insufficient),
        (Code::Approved, Code::Approved),
    ] {
        let mut by_hand = ByHand::new("0100", &with(payment(1, 100), 2, WIDE_CARD));
        by_hand.answer(Kind::Lock, Code::Insufficient, End::Declined);
        by_hand.answer(Kind::Lock, code, End::None);
        assert_eq!(by_hand.verdict(), expect, "{code:?}");
    }
}

#[test]
fn a_look_up_that_is_refused_is_no_answer() {
    let completion = completion("0120", 2, 1, 300);
    let mut by_hand = ByHand::new("0220", &completion);
    by_hand.answer(Kind::Lookup, Code::Approved, End::Exposed);
    by_hand.answer(Kind::Lookup, Code::Overloaded, End::None);
    assert_eq!(by_hand.verdict(), Code::Overloaded);
    let mut by_hand = ByHand::new("0220", &completion);
    by_hand.answer(Kind::Lookup, Code::Overloaded, End::None);
    assert_eq!(by_hand.verdict(), Code::Overloaded);
    for refused_at in 0..3 {
        let mut by_hand = ByHand::new("0420", &reversal("0100", 2, 1, 100));
        (0..refused_at).for_each(|_| by_hand.answer(Kind::Lookup, Code::NotFound, End::None));
        by_hand.answer(Kind::Lookup, Code::Overloaded, End::None);
        assert_eq!(by_hand.verdict(), Code::Overloaded, "a notice that was not taken comes again");
    }
}

#[test]
fn rules_and_work_are_printed_without_their_secret() {
    let by_hand = ByHand::new("0100", &payment(1, 100));
    for text in [format!("{:?}", rules(Dialect::V1987)), format!("{:?}", by_hand.work)] {
        assert!(text.contains("IdKey") && !text.contains("9, 9"), "{text}");
    }
}
