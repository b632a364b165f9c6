//! The integrator's guide: its traces are what the real link reads and says, but for the time of day and the approval codes.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod front;

use std::fmt::Write as _;

use gateway::Limits;
use iso8583::Message;

use front::*;

const GUIDE: &str = include_str!("../GUIDE.md");
/// What stands for the time of sending, and for an approval code.
const SENT: &str = "1122120000";
const APPROVAL: &str = "A1B2C3";

/// A message as the guide shows it: each piece of its bytes in a line, with what it is.
fn shown(direction: char, mti: &str, fields: &Fields) -> String {
    let mut fields = fields.clone();
    fields.remove(&0);
    fields.insert(7, SENT.into());
    if fields.contains_key(&38) {
        fields.insert(38, APPROVAL.into());
    }
    if let Some(original) = fields.get_mut(&90) {
        original.replace_range(10..20, SENT);
    }
    let framed = bytes(mti, &fields);
    let bytes = &framed[2..];
    let message = Message::parse(CODEC, bytes).unwrap();
    let bitmaps = if message.fields().needs_second() { 16 } else { 8 };
    let mut text = String::new();
    let mut line = |piece: &[u8], what: &str| {
        let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{direction} {hex:<46}  {what}").unwrap();
    };
    line(&framed[..2], &format!("{} bytes follow", bytes.len()));
    line(&bytes[..2], mti);
    line(&bytes[2..2 + bitmaps], "bitmap");
    let mut at = 2 + bitmaps;
    for field in message.fields().fields() {
        let content = message.wire(field).unwrap();
        let behind = content.as_ptr().addr() - bytes.as_ptr().addr() + content.len();
        let name = CODEC.dialect.field(field).unwrap().name;
        let value: Vec<u8> = message.units(field).unwrap().collect();
        let value = String::from_utf8(value).unwrap();
        line(&bytes[at..behind], format!("{field} {name}: {value}").trim_end());
        at = behind;
    }
    assert_eq!(at, bytes.len());
    text
}

/// Has a message answered, and holds both against the guide.
async fn trace(host: &mut Host, name: &str, (mti, fields): (&str, Fields), wrong: &mut String) -> Fields {
    let reply = host.ask(&(mti, fields.clone())).await;
    // The reply's fields are all there is to it.
    let mut again = reply.clone();
    let reply_type = again.remove(&0).unwrap();
    assert_eq!(bytes(&reply_type, &again)[2..], host.last);
    let expect = format!("{}\n{}", shown('>', mti, &fields), shown('<', &reply_type, &reply));
    let found = GUIDE.split_once(&format!("<!-- trace: {name} -->\n```text\n"));
    let found = found.and_then(|(_, rest)| rest.split_once("```")).map(|(block, _)| block);
    if found != Some(expect.as_str()) {
        writeln!(wrong, "@@ {name}\n{expect}@@").unwrap();
    }
    reply
}

#[tokio::test]
async fn the_guides_traces_are_what_the_link_says() {
    let front = Front::new(Limits::default()).await;
    let mut host = front.host().await;
    let mut wrong = String::new();
    let sent = front.sent();
    let original = |mti: &str, of: u32| format!("{mti}{of:06}{sent}{:011}{:011}", 123_456, 0);
    trace(&mut host, "sign-on", front.network(1, "001"), &mut wrong).await;
    let lock = payment(&sent, 2, 2500);
    let reply = trace(&mut host, "authorization", ("0100", lock.clone()), &mut wrong).await;
    assert_eq!(trace(&mut host, "repeat", ("0101", lock.clone()), &mut wrong).await, reply);
    let keep = |trace, amount, fields: &[u8], more: &[(u8, String)]| {
        let mut all = payment(&sent, trace, amount);
        all.retain(|field, _| fields.contains(field));
        all.extend(more.iter().cloned());
        all
    };
    let short = [2, 3, 4, 7, 11, 32, 37, 41, 42, 49];
    let named = [(37, lock[&37].clone()), (38, reply[&38].clone()), (90, original("0100", 2))];
    let completion = keep(3, 2000, &short, &named);
    trace(&mut host, "completion", ("0220", completion), &mut wrong).await;
    let mut sale = payment(&sent, 4, 1000);
    sale.insert(60, "00".into());
    trace(&mut host, "sale", ("0200", sale.clone()), &mut wrong).await;
    let part = [
        (37, sale[&37].clone()),
        (39, "17".into()),
        (90, original("0200", 4)),
        (95, format!("{:012}{:030}", 400, 0)),
    ];
    let back = keep(5, 1000, &short, &part);
    trace(&mut host, "reversal in part", ("0400", back), &mut wrong).await;
    let lost = [(39, "68".into()), (90, original("0100", 6))];
    let late = keep(7, 700, &[2, 4, 7, 11, 32, 41, 49], &lost);
    trace(&mut host, "reversal of what has not come", ("0420", late), &mut wrong).await;
    let overtaken = payment(&sent, 6, 700);
    trace(&mut host, "the request behind it", ("0100", overtaken), &mut wrong).await;
    let mut declined = payment(&sent, 8, 99_000_000);
    declined.remove(&60);
    trace(&mut host, "decline", ("0100", declined), &mut wrong).await;
    assert!(wrong.is_empty(), "GUIDE.md has other traces than these:\n{wrong}");
    front.stop().await;
}
