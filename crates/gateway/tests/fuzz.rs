//! Changed messages through a real link's sockets: nothing of it panics, and nothing is approved that was not locked.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod front;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::{Limits, LinkConfig};
use iso8583::payment::approval_code;
use iso8583::{Cut, Message};
use surety_client::protocol::{Code, Kind, Seq, ShardId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use front::*;

/// Messages that are sent; more with `SURETY_SOCKET_MESSAGES`.
const MESSAGES: usize = 30_000;
/// Messages that are sent before their replies are read.
const BATCH: usize = 50;
/// Hosts that send them. A broken length costs its socket, and that its time.
const HOSTS: usize = 16;

/// A source of changes that is the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// A sound message of some type.
fn sound(front: &Front, dice: &mut Dice, trace: u32) -> Vec<u8> {
    let mut fields = front.payment(trace, 1 + u32::try_from(dice.below(9)).unwrap());
    let of = trace.saturating_sub(u32::try_from(dice.below(40)).unwrap());
    let original = format!("0100{of:06}{}{:011}{:011}", fields[&7], 123_456, 0);
    let mti = match dice.below(7) {
        0 | 1 => "0100",
        2 => "0200",
        3 => {
            fields.extend([(38, "ABCDEF".into()), (39, "00".into()), (60, "00".into())]);
            "0120"
        }
        4 => {
            fields.extend([(37, format!("REF{of:09}")), (38, "ABCDEF".into()), (90, original)]);
            "0220"
        }
        5 => {
            fields.extend([(37, format!("REF{of:09}")), (39, "68".into()), (90, original)]);
            "0420"
        }
        _ => {
            fields = front.network(trace, ["001", "301", "201", "161"][dice.below(4)]).1;
            "0800"
        }
    };
    bytes(mti, &fields)
}

/// Changes a few bytes, cuts some off, or puts some in; the length in front mostly says how many there are.
fn changed(mut message: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    for _ in 0..dice.below(4) {
        let at = 2 + dice.below(message.len() - 2);
        match dice.below(6) {
            0..=2 => message[at] = u8::try_from(dice.below(256)).unwrap(),
            3 => message[at] ^= 1 << dice.below(8),
            4 => message.truncate(at.max(3)),
            _ => message.insert(at, u8::try_from(dice.below(256)).unwrap()),
        }
    }
    let length = u16::try_from(message.len() - 2).unwrap();
    if dice.below(500) > 0 {
        message[..2].copy_from_slice(&length.to_be_bytes());
    }
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_messages_neither_panic_nor_are_approved_for_nothing() {
    let panics = Arc::new(AtomicUsize::new(0));
    let (counted, told) = (panics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::Relaxed);
        told(panic);
    }));
    let messages = std::env::var("SURETY_SOCKET_MESSAGES").ok().and_then(|count| count.parse().ok());
    let messages: usize = messages.unwrap_or(MESSAGES);
    let limits = Limits {
        broken_max: 10_000,
        frame_within: Duration::from_millis(300),
        // Past a quota requests are tried again for so long.
        answer_within: Duration::from_secs(1),
        in_flight_max: 4096,
        ..Limits::default()
    };
    let front = Front::with(|config| LinkConfig { limits, needs_sign_on: false, ..config }).await;
    let front = Arc::new(front);
    let mut hosts = JoinSet::new();
    let each = u32::try_from(messages / HOSTS).unwrap();
    for host in 0..HOSTS {
        let first = u32::try_from(host).unwrap() * each;
        hosts.spawn(say_changed(front.clone(), Dice(7 + u64::from(first)), first..first + each));
    }
    let mut told = Told::default();
    while let Some(more) = hosts.join_next().await {
        let more = more.unwrap();
        told.answers += more.answers;
        told.sockets += more.sockets;
        told.approvals.extend(more.approvals);
    }
    let Told { answers, sockets, approvals } = told;
    println!("{messages} messages, {answers} answers, {} approvals, {sockets} sockets", approvals.len());
    assert!(
        answers > messages / BATCH / 2 && sockets > HOSTS,
        "{answers} answers to {messages} messages, {sockets} sockets"
    );
    // It still serves; and what it has approved was locked.
    let mut host = front.host().await;
    assert_eq!(host.ask(&front.network(1, "301")).await[&39], "00");
    let locks = locks(&front).await;
    // Field 38 is that of a lock in the stream: one that was approved and not locked would have none.
    let baseless: Vec<_> = approvals.difference(&locks).collect();
    assert!(!approvals.is_empty() && baseless.is_empty(), "{} approvals, {baseless:?}", approvals.len());
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    Arc::into_inner(front).unwrap().stop().await;
}

/// What a host was told.
#[derive(Default)]
struct Told {
    answers: usize,
    sockets: usize,
    /// Field 38 of locks.
    approvals: BTreeSet<[u8; 6]>,
}

/// Sends a changed message under each of these trace numbers, over as many sockets as it takes.
async fn say_changed(front: Arc<Front>, mut dice: Dice, mut traces: Range<u32>) -> Told {
    let mut told = Told::default();
    while !traces.is_empty() {
        let mut host = front.host().await;
        told.sockets += 1;
        'socket: while !traces.is_empty() {
            let mut batch = Vec::new();
            for trace in traces.by_ref().take(BATCH) {
                let message = sound(&front, &mut dice, trace % 1_000_000);
                batch.extend(changed(message, &mut dice));
            }
            // What answers this comes after all that was served at once, though not after what is served beside it.
            batch.extend(bytes("0800", &front.network(999_999, "301").1));
            if host.stream.write_all(&batch).await.is_err() {
                break;
            }
            loop {
                while let Cut::Message { bytes, used } = HEADER.cut(&host.read, 9999).unwrap() {
                    let message = Message::parse(CODEC, bytes).unwrap();
                    told.answers += 1;
                    let is_lock = message.mti().to_string() == "0110" && message.number(39) == Some(0);
                    told.approvals.extend(message.exactly::<6>(38).filter(|_| is_lock));
                    let is_last = message.mti().to_string() == "0810" && message.number(11) == Some(999_999);
                    host.read.drain(..used);
                    if is_last {
                        continue 'socket;
                    }
                }
                let reading = host.stream.read_buf(&mut host.read);
                if !matches!(timeout(PATIENCE, reading).await.expect("a reply or the end"), Ok(1..)) {
                    break 'socket;
                }
            }
        }
    }
    told
}

/// The approval codes of the locks that stand in the change stream.
async fn locks(front: &Front) -> BTreeSet<[u8; 6]> {
    let mut locks = BTreeSet::new();
    for shard in (0..front.client.shards()).map(ShardId) {
        let until = front.client.packed(shard).await.unwrap().hello().acked;
        let mut tail = front.client.tail(shard, Seq(1));
        loop {
            let batch = tail.next_batch().await.unwrap();
            let is_lock = |kind| matches!(kind, Some(Kind::Lock));
            let made = batch.records.iter().filter(|record| is_lock(record.kind()));
            let made = made.filter(|record| record.code().is_some_and(Code::is_success));
            locks.extend(made.map(|record| approval_code(record.id)));
            if batch.through >= until {
                break;
            }
        }
    }
    locks
}
