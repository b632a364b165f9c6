//! Completions of what was told before, and of what was raised: nothing is captured twice, and what is taken back is found.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod link;

use iso8583::payment::Originals;
use surety_protocol::{Code, Kind};

use link::*;

const MINUTE_MS: u64 = 60_000;

/// A payment that a stand-in has told of so late that it is captured at once, and its completion, which tells nothing new.
fn told_twice(link: &mut Link, trace: u32, amount: u32) {
    let money = link.money();
    link.check("0120", &stand_in(trace, amount), "00");
    let [free, _, captured, exposure] = link.money();
    assert_eq!(free + u128::from(amount), money[0]);
    link.check("0220", &completion("0120", trace + 1, trace, amount), "00");
    assert_eq!(link.money(), [free, 0, captured, exposure], "told before");
}

fn late() -> Link {
    let mut link = Link::new();
    link.world.wait(10 * MINUTE_MS);
    link
}

#[test]
fn a_completion_that_tells_nothing_new_adds_nothing_after_a_reversal_either() {
    let mut link = late();
    told_twice(&mut link, 1, 100);
    link.check("0420", &reversal("0120", 3, 1, 100), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.check("0221", &completion("0120", 2, 1, 100), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0], "a repeat of what had nothing to add");
    link.world.finish();
}

#[test]
fn a_completion_that_tells_nothing_new_is_taken_back() {
    let mut link = late();
    told_twice(&mut link, 1, 100);
    let back = |trace, of: u32| with(reversal("0220", trace, of + 1, 100), 37, &format!("REF{of:09}"));
    link.check("0400", &back(3, 1), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0], "what it stood for");
    link.check("0401", &back(3, 1), "00");
    link.check("0400", &back(4, 1), "94");
    link.check("0400", &reversal("0120", 5, 1, 100), "94");
    // In part.
    told_twice(&mut link, 11, 100);
    link.check("0400", &with(back(13, 11), 95, &stays(30)), "00");
    link.check("0401", &with(back(13, 11), 95, &stays(30)), "00");
    assert_eq!(link.money(), [970, 0, 30, 0]);
    // Not one that was settled meanwhile.
    told_twice(&mut link, 21, 100);
    link.end_capture(Kind::Settle);
    link.check("0400", &back(23, 21), "12");
    link.check("0420", &back(24, 21), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    // What another completion has captured is that one's to give back.
    let mut link = late();
    link.check("0220", &completion("0100", 2, 1, 100), "00");
    link.check("0220", &completion("0100", 3, 1, 60), "00");
    let back = |trace, of| with(reversal("0220", trace, of, 100), 37, "REF000000001");
    link.check("0400", &back(4, 3), "25");
    assert_eq!(link.money(), [900, 0, 100, 0]);
    link.check("0400", &back(5, 2), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn what_was_settled_is_not_told_again_by_its_completion() {
    let mut link = late();
    link.check("0120", &stand_in(1, 100), "00");
    link.end_capture(Kind::Settle);
    link.check("0220", &completion("0120", 2, 1, 100), "00");
    link.check("0221", &completion("0120", 2, 1, 100), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn a_completion_that_names_an_increase_completes_the_lock_that_it_raised() {
    let under_1 = |fields| with(fields, 37, "REF000000001");
    let increase = |trace, amount| with(under_1(payment(trace, amount)), 60, "01");
    for (is_known, is_granted) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut link = Link::new();
        link.check("0100", &payment(1, 100), "00");
        let (amount, code) = if is_granted { (50, "00") } else { (5000, "51") };
        link.check("0100", &increase(2, amount), code);
        if !is_known {
            link.originals = Originals::new(0);
        }
        let completion = under_1(completion("0100", 3, 2, 80));
        link.check("0220", &completion, "00");
        link.check("0221", &completion, "00");
        assert_eq!(link.money(), [920, 0, 80, 0], "{is_known} {is_granted}");
        link.world.finish();
    }
}

#[test]
fn an_increase_does_not_come_after_its_own_completion() {
    let under_1 = |fields| with(fields, 37, "REF000000001");
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    // Nobody knows it yet: it is taken for a payment of its own, and never raises a lock.
    link.check("0220", &under_1(completion("0100", 3, 2, 50)), "00");
    assert_eq!(link.money(), [850, 100, 50, 0]);
    link.check("0100", &with(under_1(payment(2, 50)), 60, "01"), "68");
    assert_eq!(link.money(), [850, 100, 50, 0]);
    let made = link.world.log.iter().filter(|record| record.kind() == Some(Kind::Increase));
    assert_eq!(made.filter(|record| record.code().is_some_and(Code::is_success)).count(), 0);
    link.world.finish();
}
