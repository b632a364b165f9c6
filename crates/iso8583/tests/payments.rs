//! Whole conversations: messages in bytes, the work for them against the real ledger, replies in bytes.
//!
//! Among them the bugs that real switches have shipped: a reversal before its request, a reversal that is repeated and then
//! overtaken by the request's late reply, a trace number used twice, an approval after a time-out.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod link;

use iso8583::payment::{EdgeCode, Originals, Refusal, edge_code, refuse};
use iso8583::{Dialect, Draft, Message, Profile};
use link::world::{P1, P2};
use proptest::prelude::*;
use surety_protocol::{Code, Flags, Kind, Record};

use link::*;

#[test]
fn an_authorization_locks_once_and_its_repeats_are_answered_the_same() {
    for (dialect, mti, repeat) in [(Dialect::V1987, "0100", "0101"), (Dialect::V1993, "1100", "1101")] {
        for profile in [Profile::ASCII, Profile::BINARY, Profile::EBCDIC] {
            let mut link = Link::of(dialect, profile);
            let fields = edition(dialect, payment(1, 100));
            let approved = if dialect == Dialect::V1987 { "00" } else { "000" };
            let first = link.check(mti, &fields, approved);
            assert_eq!(link.money(), [900, 100, 0, 0]);
            assert_eq!(first[&38].len(), 6);
            for field in [2, 4, 7, 11, 32, 37, 41, 49] {
                assert_eq!(first[&field], fields[&field], "field {field}");
            }
            assert_eq!(link.send(repeat, &fields), first);
            link.world.wait(300_000);
            assert_eq!(link.send(repeat, &fields), first, "also when its id is long past the window");
            assert_eq!(link.count(Kind::Lock), 1);
            link.world.finish();
        }
    }
}

#[test]
fn a_decline_stays_one() {
    let mut link = Link::new();
    let fields = payment(1, 1001);
    link.check("0100", &fields, "51");
    link.world.deposit(P1, 5000);
    link.check("0101", &fields, "51");
    link.check("0100", &payment(2, 1001), "00");
    link.world.finish();
}

#[test]
fn a_part_is_locked_if_the_mark_allows_it() {
    let mut link = Link::new();
    let fields = with(payment(1, 1500), 60, "1");
    let reply = link.check("0100", &fields, "10");
    assert_eq!((reply[&4].as_str(), reply[&54].as_str()), ("000000001000", "0057840D000000001500"));
    assert_eq!(link.money(), [0, 1000, 0, 0]);
    assert_eq!(link.send("0101", &fields), reply);
    let mut link = Link::of(Dialect::V1993, Profile::BINARY);
    let fields = edition(Dialect::V1993, with(payment(1, 1500), 60, "1"));
    let reply = link.check("1200", &fields, "002");
    assert_eq!((reply[&4].as_str(), &reply[&30][..12]), ("000000001000", "000000001500"));
    assert_eq!(link.money(), [0, 0, 1000, 0]);
}

#[test]
fn a_declined_payment_is_tried_in_the_next_partition_and_found_there() {
    let mut link = Link::new();
    link.world.deposit(P2, 5000);
    let fields = with(payment(1, 2000), 2, WIDE_CARD);
    let first = link.check("0100", &fields, "00");
    assert_eq!((link.money(), link.money_of(P2)), ([1000, 0, 0, 0], [3000, 2000, 0, 0]));
    assert_eq!(link.send("0101", &fields), first);
    assert_eq!(link.count(Kind::Lock), 2);
    // By field 90 alone: the table of references is lost.
    link.originals = Originals::new(0);
    let completion = with(completion("0100", 2, 1, 1500), 2, WIDE_CARD);
    link.check("0220", &completion, "00");
    assert_eq!(link.money_of(P2), [3500, 0, 1500, 0]);
    link.check("0100", &with(payment(3, 2000), 2, WIDE_CARD), "00");
    link.check("0400", &with(reversal("0100", 4, 3, 2000), 2, WIDE_CARD), "00");
    assert_eq!((link.money(), link.money_of(P2)), ([1000, 0, 0, 0], [3500, 0, 1500, 0]));
    link.world.finish();
}

#[test]
fn a_trace_number_used_twice_is_refused() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    link.check("0100", &payment(1, 200), "94");
    assert_eq!(link.money(), [900, 100, 0, 0]);
    // Another terminal, acquirer, class or second makes it another message.
    link.check("0100", &with(payment(1, 200), 41, "TERM0002"), "00");
    link.check("0100", &with(payment(1, 200), 32, "123457"), "00");
    link.check("0200", &payment(1, 200), "00");
    link.check("0100", &with(payment(1, 200), 7, "1114221319"), "00");
    assert_eq!(link.money(), [100, 700, 200, 0]);
    link.world.finish();
}

#[test]
fn a_repeat_is_not_led_elsewhere() {
    let mut link = Link::new();
    link.world.deposit(P2, 1000);
    link.check("0100", &payment(1, 100), "00");
    // The same message with another card, or after the routes have changed: it is the same message.
    link.check("0101", &with(payment(1, 100), 2, OTHER_CARD), "00");
    link.rules.routes[0].partitions = vec![P2];
    link.check("0101", &payment(1, 100), "00");
    assert_eq!((link.money(), link.money_of(P2)), ([900, 100, 0, 0], [1000, 0, 0, 0]));
    link.check("0220", &completion("0100", 2, 1, 80), "00");
    // Another payment under the same reference: what follows the first still finds the first.
    link.check("0100", &with(payment(3, 50), 37, "REF000000001"), "00");
    link.check("0221", &completion("0100", 2, 1, 80), "00");
    link.check("0220", &with(completion("0100", 4, 3, 50), 37, "REF000000001"), "00");
    assert_eq!((link.money(), link.money_of(P2)), ([920, 0, 80, 0], [950, 0, 50, 0]));
    link.world.finish();
}

#[test]
fn what_is_no_debit_moves_nothing() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    let before = (link.money(), link.world.log.len());
    // A refund, a deposit, an inquiry, a transfer, a payment to the payer.
    for (trace, code) in (10..).zip(["200000", "210000", "300000", "400000", "550000", "990000"]) {
        link.check("0100", &with(payment(trace, 50), 3, code), "12");
        link.check("0200", &with(payment(trace, 50), 3, code), "12");
        link.check("0120", &with(stand_in(trace, 50), 3, code), "12");
        link.check("0220", &with(completion("0100", trace, 1, 50), 3, code), "12");
    }
    assert_eq!((link.money(), link.world.log.len()), before, "the engine was not asked");
    // Cash and purchases with cash are debits; of a reversal the field says what its original was.
    link.check("0100", &with(payment(30, 50), 3, "010000"), "00");
    link.check("0200", &with(payment(31, 50), 3, "090000"), "00");
    link.check("0400", &with(reversal("0100", 32, 30, 50), 3, "200000"), "00");
    link.world.finish();
}

#[test]
fn a_reversal_before_its_request_declines_it() {
    let mut link = Link::new();
    link.check("0400", &reversal("0100", 2, 1, 100), "00");
    link.check("0100", &payment(1, 100), "94");
    link.check("0420", &reversal("0200", 4, 3, 100), "00");
    link.check("0200", &payment(3, 100), "94");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn a_repeated_reversal_and_a_late_request_move_nothing_more() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    link.check("0420", &reversal("0100", 2, 1, 100), "00");
    link.check("0421", &reversal("0100", 2, 1, 100), "00");
    // The request again, whose reply was late: what it was answered, and nothing is locked.
    link.check("0101", &payment(1, 100), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.check("0421", &reversal("0100", 2, 1, 100), "00");
    assert_eq!(link.count(Kind::Lock), 1);
    link.world.finish();
}

#[test]
fn a_reversal_days_later_still_gives_a_sale_back() {
    let mut link = Link::new();
    link.check("0200", &payment(1, 300), "00");
    assert_eq!(link.money(), [700, 0, 300, 0]);
    link.world.wait(3600 * 1000);
    link.check("0420", &reversal("0200", 2, 1, 300), "00");
    link.check("0421", &reversal("0200", 2, 1, 300), "00");
    link.check("0400", &reversal("0200", 3, 1, 300), "94");
    link.check("0420", &reversal("0200", 4, 1, 300), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn a_part_is_taken_back_once() {
    let stays = format!("{:012}{:030}", 40, 0);
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    let partial = with(reversal("0100", 2, 1, 100), 95, &stays);
    link.check("0400", &partial, "00");
    assert_eq!(link.money(), [960, 40, 0, 0]);
    link.check("0401", &partial, "00");
    assert_eq!(link.money(), [960, 40, 0, 0]);
    link.check("0400", &with(reversal("0100", 3, 1, 100), 95, &format!("{:012}{:030}", 41, 0)), "64");
    link.check("0400", &with(reversal("0100", 4, 1, 100), 95, &format!("{:012}{:030}", 101, 0)), "64");
    link.check("0400", &with(reversal("0100", 5, 99, 100), 95, &stays), "25");
    link.check("0200", &payment(6, 100), "00");
    let partial = with(reversal("0200", 7, 6, 100), 95, &stays);
    link.check("0400", &partial, "00");
    link.check("0401", &partial, "00");
    assert_eq!(link.money(), [920, 40, 40, 0]);
    link.world.finish();
}

#[test]
fn a_completion_captures_once_and_the_rest_is_free() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    let completion = completion("0100", 2, 1, 80);
    link.check("0220", &completion, "00");
    assert_eq!(link.money(), [920, 0, 80, 0]);
    link.world.wait(5 * 24 * 3600 * 1000);
    link.check("0221", &completion, "00");
    let [_, held, _, exposure] = link.money();
    assert_eq!((held, exposure, link.count(Kind::Advice)), (0, 0, 1));
    link.world.finish();
}

#[test]
fn what_a_completion_wants_beyond_its_lock_is_exposure() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    link.check("0220", &completion("0100", 2, 1, 130), "00");
    assert_eq!(link.money(), [900, 0, 100, 30]);
    assert_eq!(link.outcome.unwrap().exposure.0, 30);
    // Without any authorization: a forced sale, from what is free.
    link.check("0220", &without(completion("0100", 3, 3, 200), 90), "00");
    assert_eq!(link.money(), [700, 0, 300, 30]);
    // Of one that was reversed: nothing is free for it.
    link.check("0100", &payment(4, 100), "00");
    link.check("0400", &reversal("0100", 5, 4, 100), "00");
    link.check("0220", &completion("0100", 6, 4, 50), "00");
    assert_eq!(link.money(), [700, 0, 300, 80]);
    link.world.finish();
}

#[test]
fn a_completion_is_taken_back_also_before_it_comes() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    link.check("0220", &completion("0100", 2, 1, 80), "00");
    let reversal_of = |trace, of| with(reversal("0220", trace, of, 80), 37, "REF000000001");
    link.check("0420", &reversal_of(3, 2), "00");
    link.check("0421", &reversal_of(3, 2), "00");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.check("0420", &reversal_of(4, 5), "00");
    link.check("0220", &completion("0100", 5, 1, 80), "00");
    assert!(link.outcome.unwrap().is_unmatched);
    assert_eq!(link.money(), [1000, 0, 0, 0], "burned before it came");
    link.world.finish();
}

#[test]
fn a_stand_in_is_locked_or_told_and_its_completion_counts_once() {
    let mut link = Link::new();
    link.check("0120", &stand_in(1, 400), "00");
    link.check("0121", &stand_in(1, 400), "00");
    assert_eq!(link.money(), [600, 400, 0, 0]);
    link.check("0220", &completion("0120", 2, 1, 400), "00");
    assert_eq!(link.money(), [600, 0, 400, 0]);
    // More than there is: the decline is recorded, and all of it is exposure.
    link.check("0120", &stand_in(3, 700), "00");
    link.check("0121", &stand_in(3, 700), "00");
    assert_eq!(link.money(), [600, 0, 400, 700]);
    // Hours late: told at once, covered by what is free, and completed without counting twice.
    link.world.wait(3600 * 1000);
    let [free, _, captured, _] = link.money();
    link.check("0120", &stand_in(5, 100), "00");
    assert_eq!(link.money()[..3], [free - 100, 0, captured + 100]);
    link.check("0220", &completion("0120", 6, 5, 100), "00");
    link.check("0221", &completion("0120", 6, 5, 100), "00");
    assert_eq!(link.money(), [free - 100, 0, captured + 100, 700]);
    link.check("0220", &without(completion("0120", 7, 5, 130), 90), "00");
    link.check("0221", &without(completion("0120", 7, 5, 130), 90), "00");
    assert_eq!(link.money(), [free - 100, 0, captured + 100, 730], "only what is more");
    link.check("0420", &reversal("0120", 8, 5, 100), "00");
    link.check("0421", &reversal("0120", 8, 5, 100), "00");
    assert_eq!(link.money(), [free, 0, captured, 730]);
    link.world.finish();
}

#[test]
fn an_increase_is_applied_once() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    let increase = |trace, amount| with(with(payment(trace, amount), 37, "REF000000001"), 60, "01");
    link.check("0100", &increase(2, 50), "00");
    link.check("0101", &increase(2, 50), "00");
    assert_eq!(link.money(), [850, 150, 0, 0]);
    link.check("0100", &increase(3, 50), "00");
    assert_eq!(link.money(), [800, 200, 0, 0]);
    let partial = with(reversal("0100", 4, 1, 100), 95, &format!("{:012}{:030}", 40, 0));
    link.check("0400", &partial, "00");
    link.check("0101", &increase(3, 50), "00");
    assert_eq!(link.money(), [960, 40, 0, 0], "also not after a decrease");
    link.check("0100", &increase(5, 5000), "51");
    link.check("0101", &increase(5, 5000), "51");
    link.check("0100", &with(increase(6, 50), 37, "REF000000099"), "25");
    link.check("0400", &reversal("0100", 7, 1, 100), "00");
    link.check("0100", &increase(8, 50), "12");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    link.world.finish();
}

#[test]
fn the_1993_edition_finds_originals_by_their_reference() {
    let v1993 = Dialect::V1993;
    let mut link = Link::of(v1993, Profile::BINARY);
    link.check("1100", &edition(v1993, payment(1, 100)), "000");
    link.check("1100", &edition(v1993, payment(2, 100)), "000");
    let following = |trace, of: u32, amount| {
        without(with(edition(v1993, payment(trace, amount)), 37, &format!("REF{of:09}")), 2)
    };
    link.check("1220", &with(following(3, 1, 90), 38, "ABC123"), "000");
    link.check("1420", &with(following(4, 2, 30), 30, &format!("{:012}{:012}", 100, 0)), "000");
    assert_eq!(link.money(), [880, 30, 90, 0]);
    link.check("1421", &with(following(4, 2, 30), 30, &format!("{:012}{:012}", 100, 0)), "000");
    link.check("1400", &following(5, 2, 30), "000");
    assert_eq!(link.money(), [910, 0, 90, 0]);
    link.check("1400", &following(6, 99, 30), "914");
    link.check("1420", &following(7, 99, 30), "000");
    assert!(link.outcome.unwrap().is_unmatched);
    link.world.finish();
}

#[test]
fn every_missing_or_senseless_field_is_refused() {
    let mut link = Link::new();
    for field in [3, 4, 7, 11, 12, 13, 18, 22, 25, 32, 37, 41, 42, 49, 2] {
        for mti in ["0100", "0200", "0120"] {
            link.check(mti, &without(stand_in(1, 100), field), "30");
        }
    }
    for field in [38, 39, 60] {
        link.check("0120", &without(stand_in(1, 100), field), "30");
    }
    for field in [4, 7, 11, 32, 39, 41, 49, 90] {
        link.check("0400", &without(reversal("0100", 2, 1, 100), field), "30");
    }
    for (field, text, expect) in [
        (4, "000000000000", "13"),
        (7, "1314221320", "30"),
        (7, "0230221320", "30"),
        (12, "240000", "30"),
        (13, "0230", "30"),
        (49, "978", "12"),
        (42, "NOBODY         ", "57"),
        (42, "12 34          ", "57"),
        (42, "               ", "57"),
        (2, "9999999999999995", "15"),
        (102, "1:", "30"),
        (102, "0:99", "14"),
        (7, "0914221320", "68"),
        (7, "1114221330", "30"),
    ] {
        link.check("0100", &with(payment(1, 100), field, text), expect);
    }
    for text in ["9100", "0100x"] {
        let field_90 = format!("{text:0<42}").replace('x', "9");
        link.check("0400", &with(reversal("0100", 2, 1, 100), 90, &field_90), "30");
    }
    link.check("0300", &payment(1, 100), "12");
    link.check("0100", &with(payment(1, 100), 102, "0:2"), "51");
    assert_eq!(link.money(), [1000, 0, 0, 0]);
    let network = |code: &str| with(with(with(Fields::new(), 7, SENT), 11, "000001"), 70, code);
    for code in ["001", "002", "161", "201", "301"] {
        link.check("0800", &network(code), "00");
    }
    link.check("0800", &network("999"), "12");
    link.check("0800", &without(network("301"), 70), "30");
    link.world.finish();
}

#[test]
fn a_broken_message_is_answered_with_what_could_be_read() {
    let link = Link::new();
    let mut bytes = link.bytes("0100", &payment(1, 100));
    let length = bytes.len();
    bytes.truncate(length - 1);
    let (message, result) = Message::read(link.codec, &bytes);
    assert_eq!(result.unwrap_err().field, 49);
    let mut draft = Draft::new(link.codec.dialect);
    assert!(refuse(&message, Refusal::Format(49), &mut draft));
    assert_eq!((draft.get(39), draft.get(11)), (Some(&b"30"[..]), Some(&b"000001"[..])));
    // A reply is answered by nobody.
    let reply = link.bytes("0110", &payment(1, 100));
    let reply = Message::parse(link.codec, &reply).unwrap();
    assert!(!refuse(&reply, Refusal::Unsupported, &mut draft));
}

/// One message of a conversation about a few payments.
fn message() -> impl Strategy<Value = (&'static str, &'static str, Fields)> {
    (0..17_u8, 1..7_u32, 1..400_u32, 1000..9999_u32).prop_map(|(kind, of, amount, trace)| {
        let card = [CARD, WIDE_CARD, OTHER_CARD][of as usize % 3];
        // Of each payment one sale, one completion and one increase that others can name.
        let (sale, completed, raised) = (100 + of, 200 + of, 300 + of);
        let of_payment = |fields| with(fields, 37, &format!("REF{of:09}"));
        let (mti, repeat, fields) = match kind {
            0 | 1 => ("0100", "0101", payment(of, amount)),
            2 => ("0200", "0201", payment(sale, of * 40)),
            3 => ("0120", "0121", stand_in(of, amount)),
            4 => ("0220", "0221", completion("0100", completed, of, of * 30)),
            5 => ("0400", "0401", reversal("0100", trace, of, amount)),
            6 => ("0420", "0421", reversal("0200", trace, sale, amount)),
            7 => ("0400", "0401", with(reversal("0100", trace, of, amount), 95, &stays(amount / 2))),
            8 => {
                let part = reversal("0200", trace, sale, of * 40);
                ("0420", "0421", with(part, 95, &stays(of * 40 * (amount % 4) / 4)))
            }
            9 => ("0420", "0421", of_payment(reversal("0220", trace, completed, of * 30))),
            10 => {
                let part = of_payment(reversal("0220", trace, completed, of * 30));
                ("0400", "0401", with(part, 95, &stays(of * 10)))
            }
            11 => ("0420", "0421", of_payment(reversal("0100", trace, raised, of * 20))),
            12 => ("0420", "0421", reversal("0120", trace, of, amount)),
            // One that names the increase, its reversal, and one that names the authorization by a wrong type.
            13 => ("0220", "0221", of_payment(completion("0100", 400 + of, raised, of * 30))),
            14 => ("0420", "0421", of_payment(reversal("0220", trace, 400 + of, of * 30))),
            15 => ("0420", "0421", reversal("0200", trace, of, amount)),
            _ => ("0100", "0101", with(of_payment(payment(raised, of * 20)), 60, "01")),
        };
        (mti, repeat, with(fields, 2, card))
    })
}

proptest! {
    #[test]
    fn repeats_change_neither_money_nor_answers(messages in prop::collection::vec((message(), 0..3_usize), 1..30)) {
        let run = |with_repeats: bool| {
            let mut link = Link::new();
            link.world.deposit(P2, 700);
            let mut answers = Vec::new();
            for ((mti, repeat, fields), times) in &messages {
                link.outcome = None;
                let first = link.send(mti, fields);
                let is_taken = link.outcome.is_some_and(|outcome| !outcome.is_unmatched) && first[&39] != "25";
                for _ in 0..if with_repeats { *times } else { 0 } {
                    assert_eq!(&link.send(repeat, fields), &first, "{repeat} {fields:?}");
                }
                answers.push((first, is_taken));
            }
            let money = (link.money_of(P1), link.money_of(P2));
            // All of it once more, as after a restart. What was not taken for want of its original may be taken now.
            for (((_, repeat, fields), _), (_, is_taken)) in messages.iter().zip(&answers) {
                if with_repeats && *is_taken {
                    link.send(repeat, fields);
                    assert_eq!((link.money_of(P1), link.money_of(P2)), money, "{repeat} {fields:?}");
                }
            }
            link.world.finish();
            (answers, money)
        };
        prop_assert_eq!(run(true), run(false));
    }
}

#[test]
fn handles_travel_with_locks_and_advices() {
    let mut link = Link::new();
    link.check("0100", &payment(1, 100), "00");
    link.check("0220", &completion("0100", 2, 1, 80), "00");
    let user = |record: &&Record| match record.kind() {
        Some(Kind::Lock) => record.body::<surety_protocol::LockBody>().user,
        _ => record.body::<surety_protocol::ChangeBody>().user,
    };
    let made =
        |kind| link.world.log.iter().rfind(|record| record.kind() == Some(kind)).map(|record| user(&record));
    assert_eq!(made(Kind::Lock), made(Kind::Advice));
    assert_ne!(made(Kind::Lock), Some(0));
    let advice = link.world.log.iter().rfind(|record| record.kind() == Some(Kind::Advice)).unwrap();
    assert!(advice.flags().has(Flags::FINAL));
}

#[test]
fn the_table_of_codes_is_the_document_s() {
    let row = |name: &str, code: EdgeCode| {
        let text = |digits: &[u8]| String::from_utf8(digits.to_vec()).unwrap();
        format!("| {name} | {} | {} | {} |", text(&code.iso1987), text(&code.iso1993), code.http)
    };
    let mut rows: Vec<String> = Code::ALL.iter().map(|code| row(code.name(), edge_code(*code))).collect();
    for refusal in [
        Refusal::Missing(0),
        Refusal::Amount,
        Refusal::OriginalAmount,
        Refusal::Unsupported,
        Refusal::NoRoute,
        Refusal::Currency,
        Refusal::Merchant,
        Refusal::OriginalUnknown,
        Refusal::Mac,
        Refusal::NotAvailable,
        Refusal::Fault,
    ] {
        let name = if refusal == Refusal::Missing(0) {
            "a field is missing or makes no sense".into()
        } else {
            refusal.to_string()
        };
        rows.push(row(&name, refusal.edge_code()));
    }
    let (_, table) = include_str!("../MAPPING.md").split_once("## Codes").unwrap();
    let found: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(found, rows, "{}", rows.join("\n"));
}
