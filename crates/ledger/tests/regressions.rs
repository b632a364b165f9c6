//! The named regression tests of the semantics: each a bug that a real ledger or switch shipped.

mod world;

use surety_protocol::*;
use world::*;

fn check(name: &str, steps: &[Step]) -> World {
    run(name, World::new(), steps)
}

#[test]
fn held_amounts_missing_from_the_balance_check() {
    use Code::*;
    check(
        "held",
        &[
            (lock("a", 600), Approved, [400, 600, 0, 0, 0, 0]),
            (lock("b", 600), Insufficient, [400, 600, 0, 0, 0, 0]),
            (capture("a", 600), Approved, [400, 0, 600, 0, 0, 0]),
            (lock("c", 600), Insufficient, [400, 0, 600, 0, 0, 0]),
            (consume("a", 0, 0), Approved, [400, 0, 0, 0, 600, 0]),
            (lock("d", 600), Insufficient, [400, 0, 0, 0, 600, 0]),
        ],
    );
}

#[test]
fn two_captures_of_one_lock_at_once() {
    use Code::*;
    check(
        "two captures",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 100).named("1"), Approved, [900, 0, 100, 0, 0, 0]),
            (capture("a", 100).named("2"), Insufficient, [900, 0, 100, 0, 0, 0]),
        ],
    );
}

#[test]
fn capture_of_a_declined_lock() {
    use Code::*;
    check(
        "declined",
        &[
            (lock("a", 1001), Insufficient, [1000, 0, 0, 0, 0, 0]),
            (capture("a", 1), NotOpen, [1000, 0, 0, 0, 0, 0]),
            (on(Kind::Increase, "a", 2).version(1), NotOpen, [1000, 0, 0, 0, 0, 0]),
            (settle("a", ALL_CAPTURES), NotOpen, [1000, 0, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn a_retried_capture_or_refund_applied_twice() {
    use Code::*;
    check(
        "retried",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 40).named("c"), Approved, [900, 60, 40, 0, 0, 0]),
            (capture("a", 40).named("c"), Approved, [900, 60, 40, 0, 0, 0]),
            (refund("a", 0, 10).named("r"), Approved, [910, 60, 30, 0, 0, 0]),
            (refund("a", 0, 10).named("r"), Approved, [910, 60, 30, 0, 0, 0]),
        ],
    );
}

#[test]
fn an_increase_applied_twice_or_with_an_equal_amount_or_after_a_decrease() {
    use Code::*;
    let up = |total, version| on(Kind::Increase, "a", total).version(version);
    check(
        "increases",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (up(150, 1).named("i"), Approved, [850, 150, 0, 0, 0, 0]),
            (up(150, 1).named("i"), Approved, [850, 150, 0, 0, 0, 0]),
            (up(150, 1).named("j"), VersionConflict, [850, 150, 0, 0, 0, 0]),
            (up(150, 2), OverLimit, [850, 150, 0, 0, 0, 0]),
            (on(Kind::Decrease, "a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (up(150, 2), VersionConflict, [900, 100, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn consume_then_release() {
    use Code::*;
    check(
        "consume then release",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (consume("a", ALL_CAPTURES, 70), Approved, [900, 30, 0, 0, 70, 0]),
            (release("a"), Approved, [930, 0, 0, 0, 70, 0]),
            (release("a"), Approved, [930, 0, 0, 0, 70, 0]),
        ],
    );
}

#[test]
fn settle_then_reverse() {
    use Code::*;
    check(
        "settle then reverse",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 60).finally(), Approved, [940, 0, 60, 0, 0, 0]),
            (settle("a", 0), Approved, [1000, 0, 0, 0, 0, 0]),
            (reverse("a", 0), UseRefund, [1000, 0, 0, 0, 0, 0]),
            (refund("a", 0, 60), Approved, [1000, 0, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn a_late_capture_drawn_again_and_again() {
    let policy = Policy { late_capture: 1, late_window: Time::from_secs(60), ..Policy::default() };
    let mut world = World::with_policy(&policy);
    world.send(&lock("a", 100).life(1000));
    world.wait(1000);
    let codes: Vec<Code> = (0..4).map(|_| world.send(&capture("a", 40)).code()).collect();
    assert_eq!(codes, [Code::Approved, Code::Approved, Code::Insufficient, Code::Insufficient]);
    assert_eq!(world.money(), [920, 0, 80, 0, 0, 0]);
    // An advice counts towards what has expired as well.
    world.send(&advice("a", 20));
    assert_eq!(world.send(&capture("a", 1)).code(), Code::Insufficient);
    world.finish();
}

#[test]
fn a_stale_cache_over_the_truth() {
    let mut world = World::new();
    world.send(&lock("a", 100));
    let first = world.send(&capture("a", 10).named("c"));
    world.send(&capture("a", 20));
    world.send(&release("a"));
    let again = world.send(&capture("a", 10).named("c"));
    assert_eq!((again.seq, again.approved), (first.seq, first.approved));
    let now = (again.end(), again.remaining, again.version, again.free);
    assert_eq!(now, (End::Final, Amount(0), 4, Amount(970)), "the state is the present one");
    world.finish();
}

#[test]
fn a_release_that_overtakes_its_lock() {
    use Code::*;
    check(
        "overtaken",
        &[
            (release("a").named("r"), Approved, [1000, 0, 0, 0, 0, 0]),
            (lock("a", 100), AlreadyReleased, [1000, 0, 0, 0, 0, 0]),
            (release("a").named("r"), Approved, [1000, 0, 0, 0, 0, 0]),
            (lock("a", 100), AlreadyReleased, [1000, 0, 0, 0, 0, 0]),
            (lock("a", 101), IdConflict, [1000, 0, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn a_clock_jump_that_expires_locks() {
    // The ledger knows no clock but what it is told; time that is told backwards changes nothing.
    let mut world = World::new();
    world.send(&lock("a", 100).life(10_000));
    world.now = START.minus(Time::from_secs(3600));
    world.wait(0);
    assert_eq!(world.ledger.time(), START);
    assert_eq!(world.end("a"), End::Live);
    world.now = START.plus(Time::from_millis(9_999));
    world.wait(0);
    assert_eq!(world.end("a"), End::Live);
    world.finish();
}

#[test]
fn an_id_rekeyed_on_retry() {
    // A retry under a new id is a new payment: the version and the tombstone are what protects from it.
    use Code::*;
    check(
        "rekeyed",
        &[
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (lock("b", 100), Approved, [800, 200, 0, 0, 0, 0]),
            (release("a"), Approved, [900, 100, 0, 0, 0, 0]),
            (lock("a", 100), Approved, [900, 100, 0, 0, 0, 0]),
            (capture("a", 1), NotOpen, [900, 100, 0, 0, 0, 0]),
        ],
    );
}

#[test]
fn the_same_id_sent_to_two_partitions() {
    let mut world = World::new();
    world.deposit(P2, 1000);
    world.send(&lock("a", 100));
    assert_eq!(world.send(&lock("a", 100).partition(P2)).code(), Code::Approved);
    assert_eq!((world.money()[1], world.money_of(P2)[1]), (100, 100), "two locks, one in each");
    assert_eq!(world.send(&release("a").partition(P2)).code(), Code::Approved);
    assert_eq!((world.money()[1], world.money_of(P2)[1]), (100, 0));
    world.finish();
}

#[test]
fn a_poison_record_that_breaks_every_restart() {
    // Whatever was sent, what was logged replays: extremes of every field of every kind.
    let mut world = World::new();
    let extremes = [0_u8, 1, 0x7f, 0xff];
    let kinds = Kind::ALL.iter().filter(|kind| kind.origin() != Origin::Engine && !kind.is_long());
    for kind in kinds.filter(|kind| **kind != Kind::Continuation) {
        for byte in extremes {
            for amount in [0, 1, 1000, limits::AMOUNT_MAX, u128::MAX] {
                let id = world.fresh_id();
                let mut record = Record::new(*kind, id, P1, Amount(amount), &LockBody::default());
                record.body = [byte; limits::BODY_BYTES];
                let mut record = record.as_sent();
                for by in [caller(T1), Caller { roles: Roles::KNOWN, ..operator() }] {
                    for partition in [P1, PartitionHandle(0), PartitionHandle(u64::MAX)] {
                        record.partition = partition;
                        // Roles and padding aside: the ledger stands on its own.
                        send_raw(&mut world, &by, record);
                    }
                }
            }
        }
    }
    world.finish();
}

fn send_raw(world: &mut World, by: &Caller, record: Record) {
    world.advance();
    let (mut replies, mut follow) = (Vec::new(), Vec::new());
    let mut records = [record];
    let seq = world.next_seq();
    let decided = world.ledger.decide(world.now, by, seq, &mut records, &mut replies, &mut follow);
    assert_eq!(replies.len(), 1);
    if decided == ledger::Decision::Logged {
        world.log.extend_from_slice(&records);
        world.log.extend_from_slice(&follow);
    }
}

#[test]
fn a_supplier_who_leaves_before_a_known_loss() {
    let policy = Policy { unbonding: Time::from_secs(60), ..Policy::default() };
    let mut world = World::with_policy(&policy);
    let other = Address([4; 20]);
    world.deposit_by(other, 1000);
    world.send(&lock("a", 1000).flag(Flags::SALE));
    let units = world.ledger.suppliers(P1)[0].units;
    assert_eq!(world.withdraw_by(other, units).code(), Code::Queued);
    // The failure comes to light while the supplier waits.
    world.send(&consume("a", 0, 0));
    world.wait(60_000);
    let paid = world.log.last().unwrap();
    assert_eq!((paid.kind(), paid.result), (Some(Kind::WithdrawPaid), Amount(500)), "half, like everybody");
    world.finish();
}

/// Entries of a snapshot that no ledger writes: taken in, they would be lost at the next snapshot or end the process.
#[test]
fn entries_that_no_ledger_writes_are_refused() {
    use ledger::{Entry, EntryError, EntryKind, Ledger};
    let load = |bytes: &[&[u8]]| {
        let entry = Entry::from_bytes(bytes.concat())?;
        let written = World::new().ledger.entries().collect::<Vec<_>>();
        Ledger::from_entries(config(), START, written.into_iter().chain([entry])).map(|_| ())
    };
    let (shard, handle) = (0_u64.to_be_bytes(), P1.0.to_be_bytes());
    let nonce = 5_u64.to_be_bytes();
    assert_eq!(load(&[&[EntryKind::Nonce as u8], &handle, &nonce]), Ok(()));
    let orphan = Err(EntryError::Orphan(EntryKind::Nonce));
    assert_eq!(
        load(&[&[EntryKind::Nonce as u8], &shard, &nonce]),
        orphan,
        "nobody stakes in the shard itself"
    );
    let no_right = Err(EntryError::Damaged(EntryKind::Grant));
    assert_eq!(load(&[&[EntryKind::Grant as u8], &handle, &[0, 0, 0, 9], &[0; 4]]), no_right);
    let queued = [0; 16 + 4 + 20 + 16 + 8 + 16];
    let last = Err(EntryError::Twice(EntryKind::Queued));
    assert_eq!(
        load(&[&[EntryKind::Queued as u8], &handle, &[0xff; 8], &queued]),
        last,
        "the last place of all"
    );
}
