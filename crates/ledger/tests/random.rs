//! Random sequences of everything: the invariants hold after every step, the stream adds up, the log replays to the same
//! state, and snapshots merge to it.

#![allow(clippy::unwrap_used, clippy::large_enum_variant, reason = "a test stops at what it did not expect")]

#[path = "world/events.rs"]
mod events;
mod world;

use ledger::{Entry, EntryKey, Ledger, operation_len};
use proptest::prelude::*;
use std::collections::BTreeSet;
use surety_protocol::*;

use events::{Sent, any_events, cuts, events, happen, losing_sequence, policies};
use world::*;

/// Every logged request gets its first answer again, as long as it is remembered.
fn repeat_everything(world: &mut World, sent: &Sent) {
    for (((by, records), first), is_lost) in sent.operations.iter().zip(&sent.answers).zip(&sent.lost) {
        if first.iter().all(|reply| reply.seq == Seq(0)) || records[0].kind() == Some(Kind::Lookup) {
            continue;
        }
        let (_, again) = world.execute(by, records.clone());
        if *is_lost {
            let is_unknown = |reply: &Reply| reply.code() == Code::UnknownAfterRestore;
            // An id that was spent before, by a release or a burn that is kept, could never be granted.
            let is_spent = |reply: &Reply| matches!(reply.code(), Code::AlreadyReleased | Code::Burned);
            assert!(
                again.iter().all(is_unknown) || first.len() == 1 && first.iter().chain(&again).all(is_spent),
                "nobody can tell of what is lost: {records:?} {again:?}"
            );
            continue;
        }
        // What was forgotten of a time that a loss reaches back to cannot be told from what it has lost.
        let is_aged = |reply: &Reply| reply.id.time().plus(limits::ID_WINDOW_DEFAULT) < world.now;
        if first.iter().any(is_aged) && again.iter().all(|reply| reply.code() == Code::UnknownAfterRestore) {
            continue;
        }
        for (first, again) in first.iter().zip(&again) {
            // An id that is too old is forgotten; only an advice can still make something of it.
            let is_old = first.id.time().plus(limits::ID_WINDOW_DEFAULT) < world.now;
            if is_old && !again.code().is_recorded()
                || again.code() == Code::LinkedFailed && again.seq == Seq(0)
            {
                continue;
            }
            let told = |reply: &Reply| {
                (reply.code, reply.approved, reply.extra, reply.seq, reply.deadline, reply.capture)
            };
            assert_eq!(told(again), told(first), "the same answer again: {records:?}");
            assert!(again.is_replayed() || first.is_replayed());
        }
    }
}

/// Builds the snapshot at the end out of the one at a cut, as it is done beside a running shard.
fn merged(world: &World, cut: usize) -> Vec<Entry> {
    let end = world.log.last().unwrap().time;
    let before = replay(Ledger::new(config()), Seq(1), &world.log[..cut]).unwrap();
    let snapshot: Vec<Entry> = before.entries().collect();
    let touched: BTreeSet<EntryKey> = Entry::touched(&world.log[cut..]).into_iter().collect();
    let is_needed = |entry: &&Entry| entry.key().is_none_or(|key| touched.contains(&key));
    let needed = snapshot.iter().filter(is_needed).cloned();
    let part = Ledger::from_entries(config(), before.time(), needed).unwrap();
    let part = replay_part(part, cut, &world.log[cut..]);
    let untouched =
        snapshot.iter().filter(|entry| entry.key().is_some_and(|key| !touched.contains(&key))).cloned();
    let is_kept = |entry: &Entry| !entry.is_forgotten(&config(), end);
    let mut all: Vec<Entry> = part.entries().chain(untouched).filter(is_kept).collect();
    all.sort_unstable();
    all
}

/// A part does not have the whole state, so its hash is not that of the checkpoints.
fn replay_part(part: Ledger, cut: usize, records: &[Record]) -> Ledger {
    let is_state = |record: &&Record| record.kind() != Some(Kind::Checkpoint);
    let (mut part, mut at, mut rest) = (part, cut, records);
    while let Some(length) = operation_len(rest).filter(|length| *length > 0) {
        if rest[..1].iter().all(|record| is_state(&record)) {
            part.replay(Seq(at as u64 + 1), &rest[..length]).unwrap();
        }
        at += length;
        rest = &rest[length..];
        if rest.is_empty() {
            break;
        }
    }
    part
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold(
        policy in policies(),
        events in any_events(),
        cut in 0..1000_usize,
    ) {
        let mut world = World::with_policy(&policy);
        world.price(PAR, 0);
        let mut sent = Sent::default();
        for event in &events {
            happen(&mut world, &mut sent, event);
        }
        repeat_everything(&mut world, &sent);
        world.checkpoint();
        world.finish();
        let cuts = cuts(&world.log);
        let cut = cuts[cut % cuts.len()];
        let whole: Vec<Entry> = world.ledger.entries().collect();
        let merged = merged(&world, cut);
        let differs = merged.iter().zip(&whole).find(|(merged, whole)| merged != whole);
        prop_assert!(
            merged.len() == whole.len() && differs.is_none(),
            "a merged snapshot is the snapshot: {} and {} entries, first difference {:?}",
            merged.len(), whole.len(), differs.map(|(merged, whole)| (merged.kind(), merged.key(), whole.key())),
        );
    }
}

#[test]
fn a_log_that_was_altered_anywhere_does_not_replay() {
    let mut world = World::new();
    world.send(&lock("a", 100).life(1000));
    world.send(&capture("a", 30));
    world.chain(&[lock("b", 10), lock("c", 5000)]);
    world.send(&lock("d", 10).flag(Flags::SALE));
    world.send(&consume("d", 0, 0));
    world.wait(1000);
    world.checkpoint();
    let from = world.log.iter().position(|record| record.kind() == Some(Kind::Lock)).unwrap();
    for at in from..world.log.len() {
        for byte in 0..limits::RECORD_BYTES {
            let mut log = world.log.clone();
            let mut bytes = log[at].to_bytes();
            bytes[byte] ^= 1;
            log[at] = Record::from_bytes(&bytes);
            // The sender's own words are believed; what the engine says must follow from them, or the hash differs.
            let is_caught = std::panic::catch_unwind(|| replay(Ledger::new(config()), Seq(1), &log).is_err());
            let carried = is_carried(&world.log[at], byte);
            assert!(is_caught.unwrap() || carried, "record {at} {:?}, byte {byte}", world.log[at].kind());
        }
    }
}

/// Bytes of a record that no decision and no state depends on: the principal, and what is in a checkpoint beside the hash.
fn is_carried(record: &Record, byte: usize) -> bool {
    match record.kind().unwrap() {
        Kind::Checkpoint => !(48..64).contains(&byte),
        Kind::Lock => false,
        _ => (96..100).contains(&byte),
    }
}

/// The random sequences are worth something only if they get everywhere: to a success of every kind and to every decline.
#[test]
fn random_sequences_get_everywhere() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeSet<(u8, u8)> = BTreeSet::new();
    let sequence = (policies(), prop::collection::vec(events(), 60..120));
    let losing = (policies(), losing_sequence());
    for number in 0..1200 {
        let (policy, events) = match number {
            // Whatever there is without a loss is reached without one.
            0..1000 => sequence.new_tree(&mut runner).unwrap().current(),
            _ => losing.new_tree(&mut runner).unwrap().current(),
        };
        let mut world = World::with_policy(&policy);
        world.is_strict = false;
        world.price(PAR, 0);
        let mut sent = Sent::default();
        for event in &events {
            happen(&mut world, &mut sent, event);
        }
        reached.extend(
            world.log.iter().filter(|record| record.code != 0).map(|record| (record.kind, record.code)),
        );
    }
    // Tested elsewhere, or never with a success: a look-up that burns answers NOT_FOUND.
    let elsewhere = [Kind::Start, Kind::Continuation, Kind::RiskCap, Kind::Lookup];
    let succeeded = |kind: &&Kind| {
        let of_kind =
            |(k, code): &&(u8, u8)| *k == **kind as u8 && Code::from_byte(*code).unwrap().is_success();
        elsewhere.contains(kind) || reached.iter().any(|reached| of_kind(&reached))
    };
    let never: Vec<&Kind> = Kind::ALL.iter().filter(|kind| !succeeded(kind)).collect();
    assert!(never.is_empty(), "no success of {never:?}");
    let is_reached = |code: &&Code| reached.iter().any(|(_, reached)| *reached == **code as u8);
    // Numbers of deposits and batches never repeat here.
    let declines =
        Code::ALL.iter().filter(|code| code.class() == CodeClass::Decline && **code != Code::Exists);
    let never: Vec<&Code> = declines.filter(|code| !is_reached(code)).collect();
    assert!(never.is_empty(), "never {never:?}");
}
