//! Random sequences of everything that can happen to a world, for every crate that holds something against the ledger.
// Each test is a crate of its own and uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::large_enum_variant)]

use ledger::operation_len;
use proptest::prelude::*;
use surety_protocol::*;

use crate::world::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Event {
    Ask(Ask),
    Chain(Vec<Ask>),
    /// Something that was sent before, again, with another amount if the number is not 0.
    Again(usize, u128),
    Wait(u64),
    Price(u128, u32),
    Policy(Policy),
    Group(Vec<(&'static str, u128, u32)>),
    Deposit(u8, u128),
    Withdraw(u8, u128),
    Checkpoint,
    /// So many of the last operations are lost.
    Lose(usize),
    Reconcile(PartitionHandle),
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMES[..])
}

fn flags() -> impl Strategy<Value = Flags> {
    let some = [
        Flags(0),
        Flags::LASTING,
        Flags::FINAL,
        Flags::ALL_OR_NOTHING,
        Flags::CERTIFIED,
        Flags::CERTIFIED,
        Flags::SALE,
        Flags::CERTIFIED | Flags::SALE,
        Flags::BURN,
    ];
    prop::sample::select(some.to_vec())
}

fn linkable() -> impl Strategy<Value = Ask> {
    let kinds = [
        Kind::Lock,
        Kind::Lock,
        Kind::Lock,
        Kind::Increase,
        Kind::Decrease,
        Kind::Capture,
        Kind::Capture,
        Kind::Release,
        Kind::Reverse,
        Kind::Refund,
        Kind::Settle,
        Kind::Consume,
    ];
    asks(kinds.to_vec())
}

fn asks(kinds: Vec<Kind>) -> impl Strategy<Value = Ask> {
    let what = (prop::sample::select(kinds), names(), 1..400_u128, flags());
    let how = (0..5_u16, 0..5_u16, 0..3_u8, 0..4_u32, 0..12_u8);
    (what, how).prop_map(|((kind, lock, amount, flags), (capture, version, floor, life, rest))| {
        let takes_none = matches!(kind, Kind::Release | Kind::Reverse | Kind::Settle | Kind::Lookup);
        let name = if kind == Kind::Lock { lock } else { "" };
        let by_operator = kind.origin() == Origin::Chain || kind.origin() == Origin::Admin;
        Ask {
            lock: if kind == Kind::Lock { "" } else { lock },
            flags,
            capture: if capture == 4 { ALL_CAPTURES } else { capture },
            version: if kind == Kind::Increase { version + 1 } else { version.saturating_sub(3) },
            floor: if floor == 0 { 10 } else { 0 },
            life_ms: life * 20_000,
            quote: if rest % 4 == 0 { EUR } else { QuoteId(0) },
            partition: if rest == 5 { P2 } else { P1 },
            tenant: if rest == 6 { T2 } else { T1 },
            by: by_operator.then(operator),
            merchant: if rest == 7 { MerchantId(8) } else { MERCHANT },
            ..ask(kind, name, if takes_none { 0 } else { amount })
        }
    })
}

pub fn policies() -> impl Strategy<Value = Policy> {
    let limits = (0..3_u128, 0..3_u32, 0..2_u8, 0..2_u8, 0..3_u64);
    let rates = (0..3_u32, 0..3_u32, 0..2_u8, 0..3_u64, 0..3_u64);
    (limits, rates).prop_map(
        |((open, count, late, action, settle_by), (tolerance, headroom, listed, unbonding, windows))| {
            Policy {
                merchant_open_max: Amount(open * 700),
                velocity_count: count * 5,
                late_capture: late,
                settle_by_action: action,
                settle_by: Time::from_secs(settle_by * 50),
                tolerance_bps: tolerance * 1000,
                headroom_bps: headroom * 700,
                merchants_listed: listed,
                unbonding: Time::from_secs(unbonding * 30),
                late_window: Time::from_secs(windows * 100),
                refund_window: Time::from_secs(windows * 200),
                claim_margin: Time::from_secs(windows * 20),
                life_default: Time::from_secs(40),
                edge_unit: Amount(10),
                fee_bps: 30,
                ratio_bps: 15_000,
                stop_ratio_bps: 12_000,
                ..Policy::default()
            }
        },
    )
}

pub fn events() -> impl Strategy<Value = Event> {
    let of_locks = [
        Kind::Lock,
        Kind::Capture,
        Kind::Lookup,
        Kind::Advice,
        Kind::Release,
        Kind::Settle,
        Kind::Consume,
        Kind::Refund,
        Kind::Reverse,
    ];
    let of_chain = [
        Kind::GuaranteeCalled,
        Kind::GuaranteeCalled,
        Kind::GuaranteePaid,
        Kind::GuaranteeDismissed,
        Kind::Deficit,
        Kind::BatchFinal,
        Kind::Reward,
        Kind::Freeze,
        Kind::Unfreeze,
        Kind::Unfreeze,
        Kind::Cover,
        Kind::WriteOff,
    ];
    prop_oneof![
        12 => linkable().prop_map(Event::Ask),
        6 => asks(of_locks.to_vec()).prop_map(Event::Ask),
        5 => asks(of_chain.to_vec()).prop_map(Event::Ask),
        3 => prop::collection::vec(linkable(), 2..5).prop_map(Event::Chain),
        3 => (0..50_usize, 0..3_u128).prop_map(|(back, other)| Event::Again(back, other)),
        3 => (0..60_000_u64).prop_map(Event::Wait),
        1 => Just(Event::Wait(130_000)),
        1 => (1..5_u128, 0..3_u32).prop_map(|(price, ratio)| Event::Price(price * PAR / 2, ratio * 9000)),
        1 => policies().prop_map(Event::Policy),
        1 => prop::collection::vec((names(), 0..200_u128, 1..8_u32), 1..4).prop_map(Event::Group),
        2 => (0..3_u8, 1..2000_u128).prop_map(|(supplier, amount)| Event::Deposit(supplier, amount)),
        1 => (0..3_u8, 1..2000_u128).prop_map(|(supplier, units)| Event::Withdraw(supplier, units * 1_000_000)),
        1 => Just(Event::Checkpoint),
    ]
}

/// The same in a world that loses what it has decided, sometimes more than once.
pub fn losing_events() -> impl Strategy<Value = Event> {
    prop_oneof![
        420 => events(),
        1 => (0..40_usize).prop_map(Event::Lose),
        // After a loss not much happens before it.
        20 => prop::sample::select(vec![P1, P1, P2]).prop_map(Event::Reconcile),
    ]
}

/// Worlds that lose nothing, and worlds that do.
pub fn any_events() -> impl Strategy<Value = Vec<Event>> {
    prop_oneof![
        prop::collection::vec(events(), 1..120),
        prop::collection::vec(losing_events(), 1..120),
        losing_sequence(),
    ]
}

/// One that loses something for certain, about its middle.
pub fn losing_sequence() -> impl Strategy<Value = Vec<Event>> {
    let parts = (
        prop::collection::vec(events(), 20..60),
        0..40_usize,
        prop::collection::vec(losing_events(), 20..60),
    );
    parts.prop_map(|(mut before, back, after)| {
        before.push(Event::Lose(back));
        before.extend(after);
        before
    })
}

/// What was sent, and what was answered.
#[derive(Default)]
pub struct Sent {
    pub operations: Vec<(Caller, Vec<Record>)>,
    pub answers: Vec<Vec<Reply>>,
    /// True for those whose outcome was lost.
    pub lost: Vec<bool>,
}

/// Does it; `sent` are the operations that may be repeated.
pub fn happen(world: &mut World, sent: &mut Sent, event: &Event) {
    match event {
        Event::Ask(ask) => {
            let record = world.record(ask);
            send(world, sent, ask.by.unwrap_or_else(|| everything(ask.tenant)), vec![record]);
        }
        Event::Chain(asks) => {
            let mut records: Vec<Record> = asks.iter().map(|ask| world.record(ask)).collect();
            let last = records.len() - 1;
            records[..last].iter_mut().for_each(|record| record.flags |= Flags::LINKED.0);
            send(world, sent, everything(asks[0].tenant), records);
        }
        Event::Again(back, other) => {
            let Some((by, mut records)) =
                sent.operations.len().checked_sub(1 + back).map(|at| sent.operations[at].clone())
            else {
                return;
            };
            records[0].amount.0 += other;
            world.execute(&by, records);
        }
        Event::Wait(ms) => world.wait(*ms),
        Event::Price(price, ratio) => world.price(*price, *ratio),
        Event::Policy(policy) => world.policy(P1, policy),
        Event::Group(entries) => {
            world.release_group(RELEASE_KEY, entries);
        }
        Event::Deposit(supplier, amount) => {
            world.deposit_by(Address([*supplier + 1; 20]), *amount);
        }
        Event::Withdraw(supplier, units) => {
            world.withdraw_by(Address([*supplier + 1; 20]), *units);
        }
        Event::Checkpoint => world.checkpoint(),
        Event::Lose(back) => lose(world, sent, *back),
        Event::Reconcile(partition) => {
            world.send(&operate(Kind::Reconcile, 0).partition(*partition));
        }
    }
}

fn lose(world: &mut World, sent: &mut Sent, back: usize) {
    let losses = world.log.iter().filter(|record| record.kind() == Some(Kind::Loss)).count();
    // What makes the world is not lost, nor is a loss that was accepted.
    let floor = world.log.iter().rposition(|record| matches!(record.kind(), Some(Kind::Loss | Kind::Price)));
    let cuts = cuts(&world.log);
    let kept = cuts[cuts.len().saturating_sub(1 + back)].max(floor.map_or(0, |at| at + 1));
    if losses == limits::LOSSES_MAX {
        return;
    }
    world.lose(kept, world.now);
    for (answer, is_lost) in sent.answers.iter().zip(&mut sent.lost) {
        let is_behind = answer.iter().any(|reply| reply.seq.0 > kept as u64);
        *is_lost |= is_behind && answer.iter().any(|reply| reply.code().is_recorded());
    }
    // Ids up to five seconds ahead of the life that is lost are lost with it.
    world.wait(5_001);
    if back.is_multiple_of(2) {
        forget_names(world);
    }
}

/// Lets the names be used again that no lock has.
fn forget_names(world: &mut World) {
    let World { names, ledger, .. } = world;
    names.retain(|_, id| [P1, P2].iter().any(|at| ledger.lock(T1, *at, *id).is_some()));
}

fn everything(tenant: TenantId) -> Caller {
    Caller { roles: Roles::AUTHORIZER | Roles::READER, ..caller(tenant) }
}

fn send(world: &mut World, sent: &mut Sent, by: Caller, records: Vec<Record>) {
    let (_, replies) = world.execute(&by, records.clone());
    let requests = records.iter().filter(|record| record.kind() != Some(Kind::Continuation));
    assert_eq!(replies.len(), requests.count(), "every request is answered");
    sent.operations.push((by, records));
    sent.answers.push(replies);
    sent.lost.push(false);
}

/// Positions between two operations.
pub fn cuts(log: &[Record]) -> Vec<usize> {
    let mut at = 0;
    let mut cuts = vec![0];
    while at < log.len() {
        at += operation_len(&log[at..]).unwrap();
        cuts.push(at);
    }
    cuts
}
