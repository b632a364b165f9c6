//! A bounded search over the transition table: every sequence of requests over small locks, to a depth of seven, with
//! states that were seen before left out. In none of them does an identity break.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod world;

use std::collections::HashSet;

use ledger::{Decision, Entry, EntryKind, Ledger};
use surety_protocol::*;
use world::*;

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Move {
    Lock(u128, Flags),
    Change(Kind, u128, u16, Flags),
    Operate(Kind, u128),
    Wait(u64),
}

/// Lock sizes 1 to 3, and changes by as much: the life of a payment.
fn payment_moves() -> Vec<Move> {
    let mut moves = Vec::new();
    for amount in 1..=3 {
        moves.push(Move::Lock(amount, Flags(0)));
        moves.push(Move::Change(Kind::Capture, amount, 0, Flags(0)));
    }
    moves.extend([
        Move::Change(Kind::Capture, 1, 0, Flags::FINAL),
        Move::Change(Kind::Increase, 3, 0, Flags(0)),
        Move::Change(Kind::Decrease, 1, 0, Flags(0)),
        Move::Change(Kind::Release, 0, 0, Flags(0)),
        Move::Change(Kind::Reverse, 0, 0, Flags(0)),
        Move::Change(Kind::Refund, 1, 0, Flags(0)),
        Move::Change(Kind::Settle, 0, 0, Flags(0)),
        Move::Change(Kind::Settle, 0, ALL_CAPTURES, Flags(0)),
        Move::Change(Kind::Consume, 0, 0, Flags(0)),
        Move::Change(Kind::Consume, 1, ALL_CAPTURES, Flags(0)),
        Move::Wait(20_000),
    ]);
    moves
}

/// Everything else that can befall it, too.
fn all_moves() -> Vec<Move> {
    let mut moves = payment_moves();
    moves.extend([
        Move::Lock(2, Flags::CERTIFIED),
        Move::Lock(2, Flags::SALE),
        Move::Change(Kind::Increase, 2, 0, Flags(0)),
        Move::Change(Kind::Capture, 3, 0, Flags::ALL_OR_NOTHING),
        Move::Change(Kind::Advice, 2, 0, Flags(0)),
        Move::Change(Kind::Lookup, 0, 0, Flags::BURN),
        Move::Change(Kind::GuaranteeCalled, 0, 0, Flags(0)),
        Move::Change(Kind::GuaranteePaid, 2, 0, Flags(0)),
        Move::Change(Kind::GuaranteeDismissed, 0, 0, Flags(0)),
        Move::Operate(Kind::Deficit, 2),
        Move::Operate(Kind::Freeze, 0),
        Move::Operate(Kind::Unfreeze, 0),
        Move::Operate(Kind::Deposit, 1),
        Move::Operate(Kind::Withdraw, 1_000_000),
        Move::Wait(60_000),
    ]);
    moves
}

/// A state of the search: a ledger as its entries.
#[derive(Clone)]
struct Node {
    entries: Vec<Entry>,
    now: Time,
    /// Tells sums of the stream from the beginning.
    sums: Sums,
    next: u128,
    seq: u64,
}

/// What makes two states the same to everything that can follow: all but ids, seqs and fingerprints of spent requests.
fn shape(ledger: &Ledger, now: Time) -> String {
    let totals = ledger.partition(P1).unwrap();
    let lock = ledger.lock(T1, P1, the_lock()).map(|lock| {
        (
            (lock.end, lock.code, lock.deadline.minus(now), lock.is_certified, lock.is_called),
            (lock.approved, lock.headroom, lock.captured, lock.released, lock.expired, lock.pending),
            lock.captures
                .iter()
                .map(|c| (c.open, c.settled, c.refunded, c.consumed, c.settle_by.minus(now)))
                .collect::<Vec<_>>(),
        )
    });
    let queued: Vec<_> =
        ledger.queued(P1).iter().map(|queued| (queued.units, queued.due.minus(now))).collect();
    let money = (
        totals.on_chain,
        totals.deficit,
        totals.free,
        totals.owed,
        totals.exposure,
        totals.units,
        totals.is_frozen,
    );
    format!("{:?} {:?} {:?} {:?}", ledger.end(T1, P1, the_lock()), lock, money, queued)
}

/// The one lock of the search.
fn the_lock() -> Id {
    Id::from_parts(START.plus(Time::from_secs(5)), 0x5151)
}

fn record(node: &mut Node, ledger: &Ledger, step: Move) -> Option<(Caller, Record)> {
    node.next += 1;
    let id = Id::from_parts(node.now, 0xabcd << 64 | node.next);
    Some(match step {
        Move::Lock(amount, flags) => {
            let body = LockBody { merchant: MERCHANT, life_ms: 20_000, ..LockBody::default() };
            (caller(T1), Record::new(Kind::Lock, the_lock(), P1, Amount(amount), &body).with_flags(flags))
        }
        Move::Change(kind, amount, capture, flags) => {
            let by = if kind.origin() == Origin::Chain { operator() } else { caller(T1) };
            let version = match ledger.lock(T1, P1, the_lock()) {
                Some(lock) if kind == Kind::Increase => lock.version,
                _ => 0,
            };
            let mut record = if kind == Kind::Consume {
                let body = ConsumeBody { lock: the_lock(), capture, ..ConsumeBody::default() };
                Record::new(kind, id, P1, Amount(amount), &body)
            } else {
                let body = ChangeBody { lock: the_lock(), capture, version, ..ChangeBody::default() };
                Record::new(kind, id, P1, Amount(amount), &body)
            };
            record.tenant = T1;
            (by, record.with_flags(flags))
        }
        Move::Operate(kind @ (Kind::Deposit | Kind::Withdraw), amount) => {
            let nonce = u64::try_from(node.next).unwrap() + 1000;
            let body = StakeBody { supplier: SUPPLIER, nonce, ..StakeBody::default() };
            (operator(), Record::new(kind, id, P1, Amount(amount), &body))
        }
        Move::Operate(kind, amount) => {
            (operator(), Record::new(kind, id, P1, Amount(amount), &ControlBody::default()))
        }
        Move::Wait(_) => return None,
    })
}

/// Takes a step from a state; `None` if nothing was logged.
fn step(from: &Node, step: Move) -> Option<(Node, Ledger)> {
    let mut node = from.clone();
    let mut ledger = Ledger::from_entries(config(), node.now, node.entries.iter().cloned()).unwrap();
    let (mut out, mut replies) = (Vec::new(), Vec::new());
    if let Move::Wait(ms) = step {
        node.now = node.now.plus(Time::from_millis(ms));
    }
    assert!(!ledger.advance(node.now, Seq(node.seq), &mut out));
    if let Some((by, record)) = record(&mut node, &ledger, step) {
        let mut records = [record];
        let before = ledger.state_hash();
        let due = out.len();
        let seq = Seq(node.seq);
        match ledger.decide(node.now, &by, seq, &mut records, &mut replies, &mut out) {
            Decision::Logged => out.insert(due, records[0]),
            Decision::NotLogged => {
                assert_eq!(ledger.state_hash(), before, "{step:?} leaves no trace");
                return None;
            }
        }
    }
    for record in &out {
        node.sums.apply(record);
    }
    node.seq += out.len() as u64;
    if let Err(violation) = ledger.verify() {
        panic!("{violation} after {step:?}: {out:#?}");
    }
    let totals = ledger.partition(P1).unwrap();
    assert_eq!(node.sums, Sums::from(&totals), "the stream adds up after {step:?}");
    Some((node, ledger))
}

fn root(policy: &Policy) -> Node {
    let mut world = World::empty();
    world.set_tenant(T1, 1 << 16);
    world.create(P1, 1);
    world.grant(P1, T1, Rights::KNOWN);
    world.policy(P1, policy);
    world.deposit(P1, 4);
    Node {
        entries: world.ledger.entries().collect(),
        now: world.now,
        sums: world.sums[&P1],
        next: 0,
        seq: world.next_seq().0,
    }
}

/// Ids of requests that are done with change nothing that can follow.
fn is_needed(entry: &Entry) -> bool {
    entry.kind() != EntryKind::Op || entry.key().is_some_and(|key| key.id == the_lock())
}

/// Goes through every state within `depth` moves; says how many there are.
fn search(policy: &Policy, moves: &[Move], depth: usize) -> usize {
    let mut seen = HashSet::new();
    let mut front = vec![root(policy)];
    for _ in 0..depth {
        let mut next = Vec::new();
        for node in &front {
            for taken in moves {
                let Some((mut node, ledger)) = step(node, *taken) else { continue };
                if seen.insert(shape(&ledger, node.now)) {
                    node.entries = ledger.entries().filter(is_needed).collect();
                    next.push(node);
                }
            }
        }
        front = next;
    }
    seen.len()
}

/// The depth of the search over everything; 7 takes minutes and gigabytes, and is for a campaign: `SEARCH_DEPTH=7`.
fn depth_of_everything() -> usize {
    std::env::var("SEARCH_DEPTH").ok().and_then(|depth| depth.parse().ok()).unwrap_or(4)
}

#[test]
fn no_identity_breaks_in_the_life_of_a_payment() {
    let policy = Policy { tolerance_bps: 10_000, settle_by: Time::from_secs(30), ..Policy::default() };
    let states = search(&policy, &payment_moves(), 7);
    println!("{states} states to depth 7");
    assert!(states > 1000, "{states} states: the moves lead nowhere");
}

#[test]
fn no_identity_breaks_whatever_befalls_it() {
    let policy = Policy {
        late_capture: 1,
        late_window: Time::from_secs(100),
        tolerance_bps: 5000,
        headroom_bps: 5000,
        settle_by: Time::from_secs(30),
        claim_margin: Time::from_secs(10),
        unbonding: Time::from_secs(15),
        ..Policy::default()
    };
    let states = search(&policy, &all_moves(), depth_of_everything());
    println!("{states} states to depth {}", depth_of_everything());
    assert!(states > 1000, "{states} states: the moves lead nowhere");
}
