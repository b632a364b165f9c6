//! A link over real sockets, with an engine in this process behind it.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod front;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gateway::{BookError, Gateway, Limits, LinkConfig, ReloadError, StartError};
use iso8583::payment::{Currency, IdKey, Rules};
use iso8583::{Cut, Message};
use surety_client::protocol::PartitionHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use front::*;

#[tokio::test]
async fn a_host_signs_on_pays_and_signs_off() {
    let front = Front::new(Limits::default()).await;
    let mut host = front.host().await;
    let fields = front.payment(2, 100);
    assert_eq!(host.ask(&("0100", fields.clone())).await[&39], "91", "before sign-on");
    assert_eq!(host.ask(&front.network(1, "301")).await[&39], "00", "an echo needs none");
    assert_eq!(host.ask(&front.network(3, "001")).await[&39], "00");
    let reply = host.ask(&("0100", fields.clone())).await;
    assert_eq!((reply[&0].as_str(), reply[&39].as_str(), &reply[&37]), ("0110", "00", &fields[&37]));
    assert_eq!(host.ask(&("0101", fields.clone())).await, reply);
    assert_eq!(front.free().await, STAKE - 100);
    let mut completion = front.payment(4, 60);
    completion.extend([(37, fields[&37].clone()), (38, reply[&38].clone())]);
    completion.insert(90, format!("0100{:06}{}{:011}{:011}", 2, fields[&7], 123_456, 0));
    assert_eq!(host.ask(&("0220", completion.clone())).await[&39], "00");
    assert_eq!(front.free().await, STAKE - 60);
    let mut reversal = front.payment(5, 60);
    reversal.extend([(37, fields[&37].clone()), (39, "68".into())]);
    reversal.insert(90, format!("0220{:06}{}{:011}{:011}", 4, completion[&7], 123_456, 0));
    assert_eq!(host.ask(&("0420", reversal)).await[&39], "00");
    assert_eq!(front.free().await, STAKE);
    assert_eq!(host.ask(&front.network(6, "161")).await[&39], "12", "there are no keys to change");
    assert_eq!(host.ask(&("0500", front.network(7, "001").1)).await[&39], "30", "totals without figures");
    assert_eq!(host.ask(&front.network(8, "002")).await[&39], "00");
    assert_eq!(host.ask(&("0100", front.payment(9, 100))).await[&39], "91");
    front.stop().await;
}

#[tokio::test]
async fn many_messages_of_a_socket_are_served_at_once() {
    let front = Front::new(Limits { in_flight_max: 64, ..Limits::default() }).await;
    let mut host = front.signed_on().await;
    // All in one write, each three times: the repeats wait for the first, and nothing is locked twice.
    let mut stream = Vec::new();
    for trace in 1..=200 {
        let fields = front.payment(trace, 10);
        stream.extend_from_slice(&bytes("0100", &fields));
        stream.extend_from_slice(&bytes("0101", &fields));
        stream.extend_from_slice(&bytes("0101", &fields));
    }
    let (mut reader, mut writer) = host.stream.into_split();
    let writing = tokio::spawn(async move {
        writer.write_all(&stream).await.unwrap();
        writer
    });
    let mut read = Vec::new();
    let mut replies: BTreeMap<String, Vec<Fields>> = BTreeMap::new();
    for _ in 0..600 {
        let message = loop {
            if let Cut::Message { bytes, used } = HEADER.cut(&read, 9999).unwrap() {
                let message = Message::parse(CODEC, bytes).unwrap();
                let text = |field| String::from_utf8(message.units(field).unwrap().collect()).unwrap();
                let fields: Fields = message.fields().fields().map(|field| (field, text(field))).collect();
                read.drain(..used);
                break fields;
            }
            assert!(timeout(PATIENCE, reader.read_buf(&mut read)).await.unwrap().unwrap() > 0);
        };
        replies.entry(message[&11].clone()).or_default().push(message);
    }
    assert_eq!(replies.len(), 200);
    for same in replies.values() {
        assert_eq!(same.len(), 3);
        assert!(same.iter().all(|reply| reply == &same[0] && reply[&39] == "00"));
    }
    assert_eq!(front.free().await, STAKE - 2000);
    host = Host { stream: reader.reunite(writing.await.unwrap()).unwrap(), read, last: Vec::new() };
    assert_eq!(host.ask(&front.network(9, "301")).await[&39], "00");
    front.stop().await;
}

#[tokio::test]
async fn segments_may_be_cut_at_every_byte() {
    let front = Front::new(Limits::default()).await;
    let mut host = front.host().await;
    host.stream.set_nodelay(true).unwrap();
    let (sign_on, payment) = (front.network(1, "001"), front.payment(2, 100));
    let stream = [bytes("0800", &sign_on.1), bytes("0100", &payment), bytes("0101", &payment)].concat();
    // Each byte by itself, then every cut in two, with the end of one message glued to the next.
    for byte in &stream {
        host.write(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    let expect = ["0810", "0110", "0110"];
    for expect in expect {
        let reply = host.next().await.unwrap();
        assert_eq!((reply[&0].as_str(), reply[&39].as_str()), (expect, "00"));
    }
    for cut in 1..stream.len() {
        host.write(&stream[..cut]).await;
        tokio::task::yield_now().await;
        host.write(&stream[cut..]).await;
        for expect in expect {
            let reply = host.next().await.unwrap();
            assert_eq!((reply[&0].as_str(), reply[&39].as_str()), (expect, "00"), "cut at {cut}");
        }
    }
    assert_eq!(front.free().await, STAKE - 100);
    front.stop().await;
}

#[tokio::test]
async fn a_host_that_never_reads_is_closed() {
    let limits = Limits { write_within: Duration::from_millis(200), ..Limits::default() };
    let front = Front::new(limits).await;
    let host = front.host().await;
    let (_, fields) = front.network(1, "301");
    let echoes = bytes("0800", &fields).repeat(1000);
    // Until the replies fill whatever lies between, and then until the socket is closed.
    let (_reader, mut writer) = host.stream.into_split();
    let flood = async { while writer.write_all(&echoes).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("the socket is closed");
    // Another host is served meanwhile.
    let mut other = front.signed_on().await;
    assert_eq!(other.ask(&("0100", front.payment(2, 100))).await[&39], "00");
    front.stop().await;
}

#[track_caller]
fn refused(reload: Result<(), ReloadError>, key: &str) {
    assert!(matches!(reload, Err(ReloadError::Fixed(fixed)) if fixed == key), "{key}");
}

#[tokio::test]
async fn new_routes_are_taken_while_the_link_is_served() {
    let front = Front::new(Limits::default()).await;
    let mut host = front.signed_on().await;
    let card = |trace| {
        let mut fields = front.payment(trace, 100);
        fields.insert(2, "5105105105105100".into());
        ("0100", fields)
    };
    assert_eq!(host.ask(&card(2)).await[&39], "15");
    let before = front.payment(6, 100);
    assert_eq!(host.ask(&("0100", before.clone())).await[&39], "00");
    let mut config = front.config.clone();
    config.rules.routes[0].prefix = b"5".to_vec();
    let with_key =
        LinkConfig { rules: Rules { id_key: IdKey([6; 32]), ..config.rules.clone() }, ..config.clone() };
    refused(front.gateway.reload(with_key), "id_key_file");
    let mut with_scale = config.clone();
    with_scale.rules.currencies[0].scale.edge_decimals = 3;
    refused(front.gateway.reload(with_scale), "currency");
    let mut without_currency = config.clone();
    without_currency.rules.currencies[0].number = 978;
    refused(front.gateway.reload(without_currency), "currency");
    // What was told of closed days would be told otherwise.
    let mut held_elsewhere = config.clone();
    let euro = Currency { number: 978, ..config.rules.currencies[0] };
    held_elsewhere.rules.currencies.push(euro);
    let with_euro = held_elsewhere.clone();
    held_elsewhere.rules.held_in.insert(front.partition, 978);
    refused(front.gateway.reload(held_elsewhere), "currency.partitions");
    let mut turned = with_euro.clone();
    turned.rules.currencies.reverse();
    refused(front.gateway.reload(turned), "currency.partitions");
    let mut of_a_new_one = with_euro;
    of_a_new_one.rules.routes[0].prefix = b"4".to_vec();
    of_a_new_one.rules.held_in.insert(PartitionHandle(99), 978);
    front.gateway.reload(of_a_new_one.clone()).unwrap();
    let (currencies, held_in) = (of_a_new_one.rules.currencies, of_a_new_one.rules.held_in);
    config.rules = Rules { currencies, held_in, ..config.rules };
    let mut in_euro = front.payment(8, 100);
    in_euro.insert(49, "978".into());
    assert_eq!(host.ask(&("0100", in_euro)).await[&39], "12", "nothing of it is held where the card leads");
    let mut with_mark = config.clone();
    with_mark.rules.increase.at = 2;
    refused(front.gateway.reload(with_mark), "increase_mark");
    assert_eq!(host.ask(&card(3)).await[&39], "15", "nothing of what was refused");
    front.gateway.reload(config).unwrap();
    assert_eq!(host.ask(&card(4)).await[&39], "00");
    assert_eq!(host.ask(&("0100", front.payment(5, 100))).await[&39], "15");
    assert_eq!(front.free().await, STAKE - 200);
    // What was paid while the card led there, by field 90 alone.
    let mut reversal = front.payment(7, 100);
    reversal.remove(&37);
    reversal.insert(39, "68".into());
    reversal.insert(90, format!("0100{:06}{}{:011}{:011}", 6, before[&7], 123_456, 0));
    assert_eq!(host.ask(&("0400", reversal)).await[&39], "00");
    assert_eq!(front.free().await, STAKE - 100);
    front.stop().await;
}

#[tokio::test]
async fn broken_messages_are_answered_or_end_the_socket() {
    let front = Front::new(Limits { broken_max: 2, message_bytes_max: 500, ..Limits::default() }).await;
    let mut host = front.signed_on().await;
    // The last byte of field 49 is no digit.
    let mut broken = bytes("0100", &front.payment(2, 100));
    *broken.last_mut().unwrap() = 0xff;
    for _ in 0..2 {
        host.write(&broken).await;
        let reply = host.next().await.unwrap();
        assert_eq!((reply[&39].as_str(), reply[&11].as_str()), ("30", "000002"));
    }
    host.write(&broken).await;
    assert_eq!(host.next().await, None, "too many");
    for stream in [&[0, 0][..], &[0xff, 0xff], &[0, 4, 0x99, 0x99, 0, 0], &[0, 1, 1]] {
        let mut host = front.signed_on().await;
        host.write(stream).await;
        assert_eq!(host.next().await, None, "{stream:?}");
    }
    // Nobody answers an answer, and nothing of it all was executed.
    let mut host = front.signed_on().await;
    host.write(&bytes("0110", &front.payment(3, 100))).await;
    assert_eq!(host.ask(&front.network(4, "301")).await[&0], "0810");
    assert_eq!(front.free().await, STAKE);
    front.stop().await;
}

#[tokio::test]
async fn a_silent_socket_is_asked_for_an_echo_and_closed_without_one() {
    // A busy machine may need longer for the echo than the shortest of these spans.
    for millis in [200, 2_000, 10_000] {
        let echo_after = Duration::from_millis(millis);
        let front = Front::new(Limits { echo_after, ..Limits::default() }).await;
        let mut host = front.host().await;
        let echo = host.next().await.unwrap();
        assert_eq!((echo[&0].as_str(), echo[&70].as_str()), ("0800", "301"));
        let mut reply = echo.clone();
        reply.remove(&0);
        reply.insert(39, "00".into());
        let _ = host.stream.write_all(&bytes("0810", &reply)).await;
        let again = host.next().await;
        if let Some(again) = &again {
            assert_ne!(again[&11], echo[&11]);
            assert_eq!(host.next().await, None);
        }
        front.stop().await;
        if again.is_some() {
            return;
        }
    }
    panic!("no other one, although the first was answered");
}

#[tokio::test]
async fn more_sockets_than_allowed_are_closed() {
    let front = Front::new(Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = front.signed_on().await;
    assert_eq!(front.host().await.next().await, None);
    assert_eq!(first.ask(&front.network(2, "301")).await[&39], "00");
    front.stop().await;
}

#[tokio::test]
async fn after_a_restart_references_and_repeats_are_still_known() {
    let mut front = Front::new(Limits::default()).await;
    let mut host = front.signed_on().await;
    let fields = front.payment(2, 100);
    let reply = host.ask(&("0100", fields.clone())).await;
    assert_eq!(reply[&39], "00");
    front.restart(|| {}).await;
    assert_eq!(host.next().await, None, "a stopped link closes its sockets");
    let mut host = front.signed_on().await;
    assert_eq!(host.ask(&("0101", fields.clone())).await, reply);
    // Neither card nor field 90: the reference alone, learned from the change stream.
    let mut completion = front.payment(3, 70);
    completion.remove(&2);
    completion.extend([(37, fields[&37].clone()), (38, "ABC123".into())]);
    assert_eq!(host.ask(&("0220", completion)).await[&39], "00");
    assert_eq!(front.free().await, STAKE - 70);
    front.stop().await;
}

#[tokio::test]
async fn without_an_engine_nothing_is_said_that_may_be_untrue() {
    let limits = Limits { answer_within: Duration::from_millis(300), ..Limits::default() };
    let front = Front::new(limits).await;
    let mut host = front.signed_on().await;
    front.client.close();
    // Whether anybody has sent it before, this end does not know: no answer is the only true one.
    host.write(&bytes("0100", &front.payment(2, 100))).await;
    host.write(&bytes("0101", &front.payment(2, 100))).await;
    // A notice is told to come again.
    let mut reversal = front.payment(3, 100);
    reversal.insert(39, "68".into());
    reversal.insert(90, format!("0100{:06}{}{:011}{:011}", 4, reversal[&7], 123_456, 0));
    host.write(&bytes("0420", &reversal)).await;
    let reply = host.next().await.unwrap();
    assert_eq!((reply[&0].as_str(), reply[&39].as_str()), ("0430", "91"));
    assert_eq!(host.ask(&front.network(5, "301")).await[&0], "0810");
    // By then all that was taken has come to its end.
    timeout(PATIENCE, front.stop()).await.unwrap();
    assert_eq!(host.next().await, None, "and nothing else was said");
}

#[tokio::test]
async fn an_echo_is_answered_while_a_payment_takes_all_the_room() {
    let limits = Limits { in_flight_max: 1, answer_within: Duration::from_secs(1), ..Limits::default() };
    let front = Front::new(limits).await;
    let mut host = front.signed_on().await;
    front.client.close();
    host.write(&bytes("0100", &front.payment(2, 100))).await;
    let asked = Instant::now();
    assert_eq!(host.ask(&front.network(3, "301")).await[&0], "0810");
    // The next payment waits for the first to end, and whatever comes behind it waits too.
    host.write(&bytes("0100", &front.payment(4, 100))).await;
    assert_eq!(host.ask(&front.network(5, "301")).await[&0], "0810");
    assert!(asked.elapsed() > front.config.limits.answer_within / 2, "the second payment has waited");
    timeout(PATIENCE, front.stop()).await.unwrap();
}

#[tokio::test]
async fn what_another_front_door_has_locked_is_known_here() {
    let front = Front::new(Limits { answer_within: PATIENCE, ..Limits::default() }).await;
    let second = Gateway::start(front.client.clone(), front.config.clone()).await.unwrap_err();
    assert!(
        matches!(second, StartError::Book(BookError::Taken { .. })),
        "two would write one book: {second}"
    );
    let config = LinkConfig { book_file: None, ..front.config.clone() };
    let other = Gateway::start(front.client.clone(), config).await.unwrap();
    let mut there = Host::connect(other.address()).await;
    assert_eq!(there.ask(&front.network(1, "001")).await[&39], "00");
    let mut here = front.signed_on().await;
    let fields = front.payment(2, 100);
    assert_eq!(there.ask(&("0100", fields.clone())).await[&39], "00");
    // By its reference alone: a forced sale beside the lock would hold both.
    let mut completion = front.payment(3, 70);
    completion.extend([(37, fields[&37].clone()), (38, "ABC123".into())]);
    assert_eq!(here.ask(&("0220", completion)).await[&39], "00");
    assert_eq!(front.free().await, STAKE - 70);
    other.stop().await;
    front.stop().await;
}

#[tokio::test]
async fn messages_about_a_payment_are_served_in_the_order_in_which_they_came() {
    let front = Front::new(Limits { in_flight_max: 64, ..Limits::default() }).await;
    let mut host = front.signed_on().await;
    let mut stream = Vec::new();
    for trace in 1..=50 {
        let lock = front.payment(trace, 100);
        let mut completion = front.payment(100 + trace, 60);
        completion.extend([(37, lock[&37].clone()), (38, "ABC123".into())]);
        let mut reversal = front.payment(200 + trace, 60);
        reversal.extend([(37, lock[&37].clone()), (39, "68".into())]);
        reversal.insert(90, format!("0220{:06}{}{:011}{:011}", 100 + trace, completion[&7], 123_456, 0));
        stream.extend_from_slice(&bytes("0100", &lock));
        stream.extend_from_slice(&bytes("0220", &completion));
        if trace % 2 == 0 {
            stream.extend_from_slice(&bytes("0420", &reversal));
        }
    }
    // Nothing but the reference ties a completion to its lock: served too early it would be a sale of its own.
    host.write(&stream).await;
    for _ in 0..125 {
        let reply = host.next().await.unwrap();
        assert_eq!(reply[&39], "00", "{reply:?}");
    }
    assert_eq!(front.free().await, STAKE - 25 * 60);
    front.stop().await;
}

#[tokio::test]
async fn slow_messages_and_late_sign_ons_end_the_socket() {
    let slow = Limits { frame_within: Duration::from_millis(200), ..Limits::default() };
    let front = Front::new(slow).await;
    let mut host = front.signed_on().await;
    host.write(&bytes("0100", &front.payment(2, 100))[..20]).await;
    assert_eq!(host.next().await, None);
    assert_eq!(front.free().await, STAKE);
    front.stop().await;
    let late = Limits { sign_on_within: Duration::from_millis(200), ..Limits::default() };
    let front = Front::new(late).await;
    assert_eq!(front.host().await.next().await, None);
    front.stop().await;
}

#[tokio::test]
async fn a_reference_that_may_be_forgotten_is_not_taken_for_an_unknown_one() {
    let limits = Limits { originals_max: 1, answer_within: PATIENCE, ..Limits::default() };
    let front = Front::new(limits).await;
    let mut host = front.signed_on().await;
    let completion = |trace, of: &Fields| {
        let mut completion = front.payment(trace, 70);
        completion.extend([(37, of[&37].clone()), (38, "ABC123".into())]);
        completion
    };
    // Nothing is forgotten yet: a forced sale of a payment that there is not.
    let forced = front.payment(1, 30);
    assert_eq!(host.ask(&("0220", completion(2, &forced))).await[&39], "00");
    let (first, second) = (front.payment(3, 100), front.payment(4, 100));
    assert_eq!(host.ask(&("0100", first.clone())).await[&39], "00");
    assert_eq!(host.ask(&("0100", second.clone())).await[&39], "00");
    assert_eq!(front.free().await, STAKE - 70 - 200);
    // A sale of its own would hold the first one twice.
    let mut of_first = completion(5, &first);
    assert_eq!(host.ask(&("0220", of_first.clone())).await[&39], "25");
    assert_eq!(front.free().await, STAKE - 70 - 200);
    of_first.insert(90, format!("0100{:06}{}{:011}{:011}", 3, first[&7], 123_456, 0));
    assert_eq!(host.ask(&("0221", of_first)).await[&39], "00");
    assert_eq!(front.free().await, STAKE - 70 - 70 - 100);
    front.stop().await;
}

#[tokio::test]
async fn reversals_of_what_never_was_are_bounded() {
    let front = Front::new(Limits { unknown_max: 1, answer_within: PATIENCE, ..Limits::default() }).await;
    let mut host = front.signed_on().await;
    let (first, second, third) = (front.payment(2, 100), front.payment(3, 100), front.payment(4, 100));
    // Made once: made again in the next second, it would be another message.
    let reversal = front.reversal(12, 2, &first);
    assert_eq!(host.ask(&reversal).await[&39], "00");
    assert_eq!(host.ask(&reversal).await[&39], "00", "a repeat leaves nothing new");
    assert_eq!(host.ask(&("0100", first)).await[&39], "94");
    let early = front.reversal(13, 3, &second);
    assert_eq!(host.ask(&early).await[&39], "91");
    // Nothing was spent, so what comes is executed, and is taken back when the reversal comes again.
    assert_eq!(host.ask(&("0100", second)).await[&39], "00");
    assert_eq!(front.free().await, STAKE - 100);
    assert_eq!(host.ask(&early).await[&39], "00");
    assert_eq!(host.ask(&("0100", third.clone())).await[&39], "00");
    assert_eq!(host.ask(&front.reversal(14, 4, &third)).await[&39], "00", "what is known is not counted");
    assert_eq!(front.free().await, STAKE);
    front.stop().await;
}

#[tokio::test]
async fn a_host_that_has_signed_off_may_take_its_time_again() {
    // A busy machine may need longer for the echo than the shortest of these spans.
    for millis in [300, 3_000, 15_000] {
        let sign_on_within = Duration::from_millis(millis);
        let front = Front::new(Limits { sign_on_within, ..Limits::default() }).await;
        let mut host = front.signed_on().await;
        tokio::time::sleep(sign_on_within).await;
        assert_eq!(host.ask(&front.network(2, "002")).await[&39], "00");
        let _ = host.stream.write_all(&bytes("0800", &front.network(3, "301").1)).await;
        let echo = host.next().await;
        if echo.is_some() {
            assert_eq!(host.next().await, None, "but not for ever");
        }
        front.stop().await;
        if echo.is_some() {
            return;
        }
    }
    panic!("closed as soon as it signed off");
}
