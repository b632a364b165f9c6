//! Records of every released version, kept for ever: they replay to the state hash that was known then, and this program still
//! decides the same bytes.
//!
//! `GOLDEN=write cargo test -p ledger --test golden` writes what this program decides; if that changes a file of a
//! release, old logs no longer replay, and the log needs a new version.
#![allow(clippy::unwrap_used, reason = "test code")]

mod world;

use std::path::{Path, PathBuf};

use ledger::Ledger;
use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::*;
use world::*;

/// A life whose records are kept.
struct Life {
    /// The name of their file.
    file: &'static str,
    /// Lives it again.
    live: fn() -> World,
    /// The state hash after the last record.
    state_hash: u128,
}

const LIVES: [Life; 3] = [
    Life { file: "records-1.bin", live: golden_world, state_hash: 0x19ad_9c84_bfd9_28da_e149_9443_5255_1aec },
    Life {
        file: "lasting-1.bin",
        live: lasting_world,
        state_hash: 0x7d32_4d69_2483_3f05_d135_efd9_fd53_6c44,
    },
    Life { file: "loss-2.bin", live: loss_world, state_hash: 0x30df_8bcb_4623_fce5_e781_508e_7a62_8ca0 },
];

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// A life that goes on after two losses.
fn loss_world() -> World {
    let mut world = World::with_policy(&Policy {
        settle_by: Time::from_secs(60),
        claim_margin: Time::from_secs(30),
        unbonding: Time::from_secs(100),
        ..Policy::default()
    });
    world.deposit_by(SUPPLIER, 1_000);
    world.send(&lock("a", 100).life(50_000));
    world.send(&lock("b", 100).life(3_600_000).flag(Flags::CERTIFIED));
    world.send(&capture("b", 40));
    world.withdraw_by(SUPPLIER, 10_000_000);
    let kept = world.log.len();
    world.send(&settle("b", 0));
    world.lose(kept, world.now);
    world.wait(200_000);
    let admin = Caller { roles: Roles::KNOWN, ..operator() };
    world.send(&settle("b", 0).by(admin));
    world.send(&operate(Kind::Reconcile, 0));
    world.wait(1);
    world.send(&capture("b", 10));
    world.send(&lock("c", 10));
    world.wait(1_000);
    world.lose(world.log.len(), world.now.plus(Time::from_secs(1)));
    world.wait(60_000);
    world.send(&operate(Kind::Reconcile, 0).partition(P2));
    world.send(&operate(Kind::Reconcile, 0));
    world.send(&capture("b", 1));
    world.send(&advice("lost", 5));
    world.wait(100_000);
    world.checkpoint();
    world
}

/// A life with every kind of record in it, but those of a loss.
fn golden_world() -> World {
    let mut world = World::with_policy(&Policy {
        edge_unit: Amount(10),
        headroom_bps: 1000,
        tolerance_bps: 2000,
        late_capture: 1,
        late_window: Time::from_secs(3600),
        settle_by: Time::from_secs(600),
        claim_margin: Time::from_secs(30),
        unbonding: Time::from_secs(60),
        fee_bps: 10,
        velocity_window: Time::from_secs(60),
        velocity_count: 1000,
        ..Policy::default()
    });
    world.price(2_000_000_000_000_000_000, 15_000);
    world.deposit_by(SUPPLIER, 100_000);
    payments(&mut world);
    mistakes(&mut world);
    time(&mut world);
    stake(&mut world);
    world.checkpoint();
    world
}

/// Rows 1 to 16, 20 to 23 and 32.
fn payments(world: &mut World) {
    for ask in [
        lock("a", 1000),
        lock("a", 1000),
        on(Kind::Increase, "a", 1500).version(1),
        on(Kind::Decrease, "a", 1200),
        capture("a", 300),
        capture("a", 1000),
        refund("a", 0, 50),
        reverse("a", 1),
        settle("a", 0),
        lock("b", 500),
        capture("b", 100).finally(),
        lock("quoted", 1000).quote(),
        capture("quoted", 999),
        consume("quoted", 0, 0),
        lock("c", 700),
        consume("c", ALL_CAPTURES, 200),
        release("c"),
        release("early"),
        lock("early", 10),
        advice("c", 60),
        advice("nobody", 70),
        lookup("a"),
        lookup("burned").flag(Flags::BURN),
        lock("partly", 1 << 40).floor(10),
        release("partly"),
    ] {
        world.send(&ask);
    }
    world.chain(&[lock("x", 10).linked(), capture("x", 5)]);
    world.chain(&[lock("y", 10).linked(), capture("y", 50).flag(Flags::ALL_OR_NOTHING)]);
}

/// Rows 3 to 5, 14 and what is declined.
fn mistakes(world: &mut World) {
    for ask in [
        lock("too much", 1 << 60),
        capture("a", 1).version(9),
        capture("b", 1),
        reverse("a", 0),
        on(Kind::Increase, "b", 900),
        release("nothing"),
        settle("a", 7),
    ] {
        world.send(&ask);
    }
}

/// Rows 18, 19, 24 and 29: certified locks, guarantees, expiry, late captures, maturity.
fn time(world: &mut World) {
    world.send(&lock("late", 400).life(10_000));
    world.send(&lock("certified", 300).flag(Flags::CERTIFIED));
    world.send(&lock("called", 200).flag(Flags::CERTIFIED));
    world.send(&lock("matures", 100).flag(Flags::CERTIFIED).life(10_000));
    world.send(&release("certified"));
    world.release_group(RELEASE_KEY, &[("certified", 0, 2)]);
    world.send(&guarantee(Kind::GuaranteeCalled, "called", 0));
    world.send(&guarantee(Kind::GuaranteePaid, "called", 150));
    world.send(&guarantee(Kind::GuaranteeDismissed, "called", 0));
    world.wait(10_001);
    world.send(&capture("late", 150));
    world.wait(120_000);
    world.wait(700_000);
    // The other partition settles by itself.
    world.policy(P2, &Policy { settle_by: Time::from_secs(60), settle_by_action: 1, ..Policy::default() });
    world.deposit(P2, 1_000);
    world.send(&lock("settles", 100).partition(P2));
    world.send(&capture("settles", 100).partition(P2));
    world.wait(60_001);
}

/// Rows 25 to 28, 30 and 31.
fn stake(world: &mut World) {
    world.send(&operate(Kind::Reward, 500));
    world.withdraw_by(SUPPLIER, 1_000_000);
    world.wait(61_000);
    world.send(&operate(Kind::BatchFinal, 100));
    world.send(&operate(Kind::WriteOff, 10));
    world.send(&operate(Kind::Cover, 10));
    let until = world.now.plus(Time::from_secs(3600));
    world.operate_with(Kind::RiskCap, P2, &ControlBody { until, ..ControlBody::default() });
    world.send(&operate(Kind::Freeze, 0));
    world.send(&lock("frozen", 10));
    world.send(&operate(Kind::Unfreeze, 0));
    world.send(&operate(Kind::Deficit, 40));
}

/// Ids that last, which the first golden records know nothing of.
fn lasting_world() -> World {
    let mut world = World::new();
    let lasting = |ask: Ask| ask.flag(Flags::LASTING);
    for ask in [
        lock("a", 100),
        lasting(on(Kind::Increase, "a", 150).version(1).named("raised")),
        lasting(on(Kind::Decrease, "a", 120).named("lowered")),
        lasting(on(Kind::Decrease, "a", 400).named("declined")),
        lasting(advice("a", 130).finally().named("told")),
        lasting(refund("a", 0, 20).named("refunded")),
        lasting(reverse("a", 0).named("reversed")),
        lock("b", 200),
        lasting(release("b").named("released")),
        lasting(release("early").named("released early")),
        lock("early", 10),
        lasting(lookup("burned").flag(Flags::BURN)),
        lasting(lookup("burned and asked for").flag(Flags::BURN)),
        lock("burned and asked for", 10),
        lasting(on(Kind::Decrease, "nothing", 10).named("of nothing")),
    ] {
        world.send(&ask);
    }
    // By now whatever does not last is forgotten.
    world.wait(300_000);
    world.send(&lock("c", 30));
    world.checkpoint();
    world
}

fn read(file: &str) -> Vec<Record> {
    let bytes = std::fs::read(path(file)).unwrap();
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    assert!(rest.is_empty(), "whole records");
    records.iter().map(Record::from_bytes).collect()
}

#[test]
fn golden_records_replay_to_their_known_state() {
    for life in LIVES {
        let replayed = replay(Ledger::new(config()), Seq(1), &read(life.file)).unwrap();
        assert_eq!(replayed.state_hash(), life.state_hash, "{}: {:#034x}", life.file, replayed.state_hash());
        assert_eq!(replayed.verify(), Ok(()));
    }
}

#[test]
fn the_current_version_decides_the_golden_records() {
    for life in LIVES {
        let mut world = (life.live)();
        let bytes: Vec<u8> = world.log.iter().flat_map(Record::to_bytes).collect();
        if std::env::var_os("GOLDEN").is_some() {
            std::fs::create_dir_all(path(life.file).parent().unwrap()).unwrap();
            std::fs::write(path(life.file), bytes).unwrap();
        }
        let golden = read(life.file);
        for (index, (golden, decided)) in golden.iter().zip(&world.log).enumerate() {
            assert_eq!(golden, decided, "{}, record {}", life.file, index + 1);
        }
        assert_eq!(golden.len(), world.log.len());
        world.finish();
    }
}

#[test]
fn the_golden_records_are_of_every_kind() {
    let golden: Vec<Record> = LIVES.iter().flat_map(|life| read(life.file)).collect();
    let missing: Vec<Kind> = Kind::ALL
        .iter()
        .copied()
        .filter(|kind| !golden.iter().any(|record| record.kind() == Some(*kind)))
        .collect();
    assert_eq!(missing, NOT_IN_A_LEDGERS_LOG, "kinds of which no golden record is kept");
}

/// Every kind is in one of them.
const NOT_IN_A_LEDGERS_LOG: &[Kind] = &[];
