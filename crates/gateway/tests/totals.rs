//! Reconciliation: what an acquirer is told of a day is what the ledger has moved in it.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod front;

use gateway::{Gateway, Limits, LinkConfig};
use iso8583::payment::Day;
use surety_client::protocol::Time;

use front::*;

/// A statement: counts and amounts of debits and of what went back, authorizations.
fn statement(
    front: &Front,
    trace: u32,
    [debits, back, authorizations]: [u32; 3],
    amounts: [u128; 2],
) -> Fields {
    let mut fields = front.network(trace, "001").1;
    fields.remove(&70);
    for field in [74, 75, 82, 83, 84, 86, 87] {
        fields.insert(field, "0".into());
    }
    for (field, count) in [(76, debits), (77, back), (81, authorizations)] {
        fields.insert(field, count.to_string());
    }
    for (field, amount) in [(88, amounts[0]), (89, amounts[1])] {
        fields.insert(field, amount.to_string());
    }
    fields.insert(97, format!("D{:016}", amounts[0] - amounts[1]));
    fields
}

fn figures(reply: &Fields) -> [u128; 5] {
    [76, 77, 81, 88, 89].map(|field| reply[&field].parse().unwrap())
}

fn completion(front: &Front, trace: u32, of: u32, original: &Fields, amount: u32) -> Fields {
    let mut fields = front.payment(trace, amount);
    fields.extend([(37, original[&37].clone()), (38, "ABC123".into())]);
    fields.insert(90, format!("0100{of:06}{}{:011}{:011}", original[&7], 123_456, 0));
    fields
}

/// A day of everything: two authorizations of which one is completed, a sale that is taken back in part, one that is declined, repeats
/// of all of them.
async fn day(front: &Front, host: &mut Host, from: u32) {
    let (lock, sale) = (front.payment(from, 100), front.payment(from + 3, 30));
    let (_, mut back) = front.reversal(from + 5, from + 3, &sale);
    back.insert(4, format!("{:012}", 30));
    back.insert(90, format!("0200{:06}{}{:011}{:011}", from + 3, sale[&7], 123_456, 0));
    back.insert(95, format!("{:012}{:030}", 10, 0));
    // All of them made once: made again in the next second, they would be other messages.
    let messages = [
        ("0100", "0101", lock.clone(), "00"),
        ("0100", "0101", front.payment(from + 1, 50), "00"),
        ("0100", "0101", front.payment(from + 2, 99_000_000), "51"),
        ("0200", "0201", sale, "00"),
        ("0220", "0221", completion(front, from + 4, from, &lock, 70), "00"),
        ("0420", "0421", back, "00"),
    ];
    for (first, _, fields, code) in &messages {
        assert_eq!(host.ask(&(*first, fields.clone())).await[&39], *code, "{first}");
    }
    for (_, repeat, fields, code) in &messages {
        assert_eq!(host.ask(&(*repeat, fields.clone())).await[&39], *code, "{repeat}");
    }
}

#[tokio::test]
async fn an_acquirers_totals_are_those_of_the_ledger() {
    let front = Front::new(Limits::default()).await;
    let mut host = front.signed_on().await;
    let sent = front.sent();
    let dated = |mut fields: Fields, of: &str| {
        fields.extend([(7, sent.clone()), (15, of.to_owned())]);
        fields
    };
    day(&front, &mut host, 100).await;
    let right = statement(&front, 2, [2, 1, 2], [100, 20]);
    let reply = host.ask(&("0500", right.clone())).await;
    assert_eq!((reply[&0].as_str(), reply[&39].as_str(), reply[&66].as_str()), ("0510", "00", "1"));
    assert_eq!((figures(&reply), reply[&50].as_str()), ([2, 1, 2, 100, 20], "840"));
    assert_eq!(reply[&97], "D0000000000000080");
    let captured = front.free().await + 50 + 80;
    assert_eq!(captured, STAKE, "one lock of 50 is open, 80 are captured");
    let today = reply[&15].clone();
    // The other way: told too much.
    let reply = host.ask(&("0520", statement(&front, 3, [3, 1, 2], [130, 20]))).await;
    assert_eq!((reply[&0].as_str(), reply[&39].as_str(), reply[&66].as_str()), ("0530", "00", "2"));
    assert_eq!(figures(&reply), [2, 1, 2, 100, 20]);
    // The next day, by the acquirer's word; once.
    let cutover = dated(front.network(4, "201").1, &next(&today, 3));
    for mti in ["0800", "0801"] {
        let reply = host.ask(&(mti, cutover.clone())).await;
        assert_eq!((reply[&39].as_str(), &reply[&15]), ("00", &next(&today, 3)));
    }
    let early = dated(front.network(5, "201").1, &today);
    assert_eq!(host.ask(&("0800", early)).await[&39], "30", "a day that has been");
    // By a slip: nothing could take it back.
    let far = dated(front.network(8, "201").1, &next(&today, 40));
    assert_eq!(host.ask(&("0800", far)).await[&39], "30", "a day that is far ahead");
    day(&front, &mut host, 200).await;
    let yesterday = host.ask(&("0500", right)).await;
    assert_eq!((yesterday[&66].as_str(), &yesterday[&15]), ("1", &today), "the day that was closed");
    let tomorrow = dated(statement(&front, 6, [2, 1, 2], [100, 20]), &next(&today, 3));
    let reply = host.ask(&("0500", tomorrow.clone())).await;
    assert_eq!((reply[&66].as_str(), figures(&reply)), ("1", [2, 1, 2, 100, 20]));
    for (field, text, code) in [(15, "0230", "30"), (15, next(&today, 9).as_str(), "25"), (50, "978", "12")] {
        let mut wrong = tomorrow.clone();
        wrong.insert(field, text.to_owned());
        assert_eq!(host.ask(&("0500", wrong)).await[&39], code, "{field} {text}");
    }
    for missing in [74, 75, 76, 77, 81, 82, 83, 84, 86, 87, 88, 89, 97] {
        let mut fields = tomorrow.clone();
        fields.remove(&missing);
        assert_eq!(host.ask(&("0500", fields)).await[&39], "30", "{missing}");
    }
    let mut credit = tomorrow.clone();
    credit.insert(97, format!("C{:016}", 80));
    assert_eq!(host.ask(&("0500", credit)).await[&66], "2");
    front.stop().await;
}

/// Some days later.
fn next(day: &str, days: u32) -> String {
    let day = Day::from_month(day.as_bytes().try_into().unwrap(), now()).unwrap();
    let later = Day(day.0 + days).digits();
    String::from_utf8(later[2..].to_vec()).unwrap()
}

#[tokio::test]
async fn totals_are_those_of_before_after_a_new_start() {
    let mut front = Front::new(Limits::default()).await;
    let mut host = front.signed_on().await;
    day(&front, &mut host, 100).await;
    let cutover = front.network(4, "201");
    assert_eq!(host.ask(&cutover).await[&39], "00");
    day(&front, &mut host, 200).await;
    drop(host);
    // As the process would be killed: what is in the file is older than what was counted, and no stop writes it.
    let file = front.config.book_file.clone().unwrap();
    let cut_alone = std::fs::read(&file).unwrap();
    front.restart(|| std::fs::write(&file, &cut_alone).unwrap()).await;
    for round in 0..2 {
        let mut host = front.signed_on().await;
        assert_eq!(host.ask(&("0801", cutover.1.clone())).await[&39], "00", "cut before, and not again");
        let today = host.ask(&("0500", statement(&front, 6, [2, 1, 2], [100, 20]))).await;
        assert_eq!(today[&66], "1", "the day that was closed, round {round}");
        let mut present = statement(&front, 7, [2, 1, 2], [100, 20]);
        present.insert(15, next(&today[&15], 1));
        assert_eq!(host.ask(&("0500", present)).await[&66], "1", "the present one, round {round}");
        drop(host);
        front.restart(|| std::fs::write(&file, &cut_alone).unwrap()).await;
    }
    let file = file.with_file_name("other.book");
    let config = LinkConfig { book_file: Some(file.clone()), ..front.config.clone() };
    std::fs::write(&file, b"engine = \"").unwrap();
    let damaged = Gateway::start(front.client.clone(), config.clone()).await.unwrap_err();
    assert!(damaged.to_string().contains("no book of totals"), "{damaged}");
    let own = String::from_utf8(cut_alone).unwrap();
    for (from, to) in [
        ("engine = \"", "engine = \"f"),
        ("tenant = ", "tenant = 9"),
        ("link = \"test\"", "link = \"other\""),
    ] {
        assert!(own.contains(from), "{own}");
        std::fs::write(&file, own.replacen(from, to, 1)).unwrap();
        let foreign = Gateway::start(front.client.clone(), config.clone()).await.unwrap_err();
        assert!(foreign.to_string().contains("another engine"), "{foreign}");
    }
    front.stop().await;
}

#[tokio::test]
async fn the_first_day_begins_with_the_first_start() {
    let front = Front::new(Limits::default()).await;
    let mut host = front.signed_on().await;
    day(&front, &mut host, 100).await;
    // A book that is begun in front of an engine with a past.
    let book_file = front.config.book_file.as_ref().map(|file| file.with_file_name("late.book"));
    let config = LinkConfig { book_file, ..front.config.clone() };
    let late = Gateway::start(front.client.clone(), config.clone()).await.unwrap();
    let mut other = Host::connect(late.address()).await;
    assert_eq!(other.ask(&front.network(1, "001")).await[&39], "00");
    let reply = other.ask(&("0500", statement(&front, 6, [0, 0, 0], [0, 0]))).await;
    assert_eq!((reply[&66].as_str(), figures(&reply)), ("1", [0; 5]), "all of that was before");
    day(&front, &mut other, 200).await;
    let reply = other.ask(&("0500", statement(&front, 7, [2, 1, 2], [100, 20]))).await;
    assert_eq!(reply[&66], "1", "{:?}", figures(&reply));
    late.stop().await;
    let late = Gateway::start(front.client.clone(), config).await.unwrap();
    let mut other = Host::connect(late.address()).await;
    assert_eq!(other.ask(&front.network(1, "001")).await[&39], "00");
    let reply = other.ask(&("0500", statement(&front, 8, [2, 1, 2], [100, 20]))).await;
    assert_eq!(reply[&66], "1", "and still is after another: {:?}", figures(&reply));
    late.stop().await;
    front.stop().await;
}

#[tokio::test]
async fn without_a_file_days_are_those_of_the_calendar() {
    // Once more if midnight came in between.
    while !is_told_by_calendar().await {}
}

/// False if the day turned over meanwhile.
async fn is_told_by_calendar() -> bool {
    let front = Front::new(Limits::default()).await;
    let mut config = front.config.clone();
    config.book_file = None;
    let other = Gateway::start(front.client.clone(), config).await.unwrap();
    let mut host = front.signed_on().await;
    let began = today();
    day(&front, &mut host, 100).await;
    // What came in by another link is of the tenant's totals too.
    let mut calendar = Host::connect(other.address()).await;
    assert_eq!(calendar.ask(&front.network(1, "001")).await[&39], "00");
    assert_eq!(calendar.ask(&front.network(4, "201")).await[&39], "12", "no cutover");
    let reply = calendar.ask(&("0500", statement(&front, 6, [2, 1, 2], [100, 20]))).await;
    let mut before = statement(&front, 7, [0, 0, 0], [0, 0]);
    before.insert(15, next(&reply[&15], 0));
    let other_reply = calendar.ask(&("0500", before)).await;
    other.stop().await;
    front.stop().await;
    if today() != began {
        return false;
    }
    assert_eq!(reply[&66], "1");
    assert_eq!(other_reply[&66], "2");
    true
}

fn now() -> Time {
    Time(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().try_into().unwrap())
}

fn today() -> Day {
    Day::of(now())
}
