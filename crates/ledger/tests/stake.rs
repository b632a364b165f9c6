//! Rows 26 to 28 and the paragraph on stake: units, queues, generations.

mod world;

use surety_protocol::*;
use world::*;

const OTHER: Address = Address([4; 20]);

fn empty_partition(policy: &Policy) -> World {
    let mut world = World::empty();
    world.set_tenant(T1, 1 << 16);
    world.create(P1, 0);
    world.grant(P1, T1, Rights::KNOWN);
    world.policy(P1, policy);
    world
}

fn unbonding(seconds: u64) -> Policy {
    Policy { unbonding: Time::from_secs(seconds), ..Policy::default() }
}

fn units(world: &World, supplier: Address) -> u128 {
    let suppliers = world.ledger.suppliers(P1);
    suppliers.iter().find(|state| state.supplier == supplier).map_or(0, |state| state.units)
}

#[test]
fn row_26_deposits_mint_units_once_per_nonce() {
    let mut world = empty_partition(&unbonding(0));
    let first = world.deposit_by(SUPPLIER, 1000);
    assert_eq!((first.code(), first.extra), (Code::Approved, Amount(1_000_000_000)));
    world.nonce -= 1;
    assert_eq!(world.deposit_by(SUPPLIER, 1000).code(), Code::Exists);
    assert_eq!(world.deposit_by(OTHER, 500).extra, Amount(500_000_000));
    assert_eq!(world.deposit_by(OTHER, limits::AMOUNT_MAX).code(), Code::OverLimit);
    assert_eq!(world.deposit_by(Address::default(), 1).code(), Code::Forbidden);
    assert_eq!(world.ledger.partition(P1).unwrap().on_chain, 1500);
    world.finish();
}

#[test]
fn row_27_rewards_raise_what_every_unit_is_worth() {
    let mut world = empty_partition(&unbonding(0));
    world.deposit_by(SUPPLIER, 1_000_000);
    world.deposit_by(OTHER, 1_000_000);
    world.send(&operate(Kind::Reward, 500_000));
    let held = units(&world, SUPPLIER);
    let reply = world.withdraw_by(SUPPLIER, held);
    assert_eq!(
        (reply.code(), reply.approved),
        (Code::Approved, Amount(1_249_999)),
        "the virtual units have their share"
    );
    assert_eq!((units(&world, SUPPLIER), world.money()[4]), (0, 1_249_999));
    world.finish();
}

#[test]
fn the_first_depositor_cannot_take_the_seconds_deposit() {
    // The classic: one base unit, then a gift that makes the unit dear, then the victim's units round to nothing.
    let mut world = empty_partition(&unbonding(0));
    world.deposit_by(SUPPLIER, 1);
    world.send(&operate(Kind::Reward, 1_000_000));
    world.deposit_by(OTHER, 1_000_000);
    let held = units(&world, OTHER);
    let back = world.withdraw_by(OTHER, held).approved.0;
    assert!(back >= 999_000, "{back}");
    let held = units(&world, SUPPLIER);
    let taken = world.withdraw_by(SUPPLIER, held).approved.0;
    assert!(taken <= 1_000_001, "{taken}");
    world.finish();
}

#[test]
fn row_28_withdrawals_wait_and_bear_losses() {
    let mut world = empty_partition(&unbonding(60));
    world.deposit_by(SUPPLIER, 1_000_000);
    world.deposit_by(OTHER, 1_000_000);
    let held = units(&world, SUPPLIER);
    let queued = world.withdraw_by(SUPPLIER, held);
    assert_eq!((queued.code(), queued.deadline), (Code::Queued, START.plus(Time::from_secs(60))));
    assert_eq!(world.withdraw_by(SUPPLIER, 1).code(), Code::Insufficient, "all of it waits already");
    world.send(&lock("a", 500_000).flag(Flags::SALE).life(1000));
    world.send(&consume("a", 0, 0));
    world.wait(59_999);
    assert_eq!(world.money()[4], 500_000);
    world.wait(1);
    let paid = world.log.last().unwrap();
    assert_eq!((paid.kind(), paid.result, paid.id), (Some(Kind::WithdrawPaid), Amount(750_000), queued.id));
    assert_eq!(world.ledger.suppliers(P1).len(), 1);
    world.finish();
}

#[test]
fn a_lock_may_not_use_what_is_due_to_leave_before_it_ends() {
    let mut world = empty_partition(&unbonding(60));
    world.deposit_by(SUPPLIER, 1_000_000);
    let half = units(&world, SUPPLIER) / 2;
    world.withdraw_by(SUPPLIER, half);
    assert_eq!(world.send(&lock("long", 600_000).life(60_001)).code(), Code::Insufficient);
    assert_eq!(world.send(&lock("short", 600_000).life(60_000)).code(), Code::Approved);
    world.wait(60_000);
    assert_eq!(world.money(), [500_000, 0, 0, 0, 500_000, 0], "expired and paid, in this order");
    world.finish();
}

#[test]
fn credits_pay_the_queue_first_oldest_first_and_whole() {
    let mut world = empty_partition(&unbonding(1));
    world.deposit_by(SUPPLIER, 600_000);
    world.deposit_by(OTHER, 400_000);
    world.send(&lock("a", 700_000));
    world.send(&lock("b", 300_000));
    let (first, second) = (units(&world, SUPPLIER), units(&world, OTHER));
    let first = world.withdraw_by(SUPPLIER, first).id;
    let second = world.withdraw_by(OTHER, second).id;
    world.wait(2000);
    assert_eq!(world.ledger.queued(P1).len(), 2, "nothing is free");
    world.send(&release("b"));
    assert_eq!(world.money()[0], 300_000, "too little for the oldest; the younger one waits its turn");
    assert_eq!(world.send(&lock("c", 100)).code(), Code::Insufficient);
    world.send(&release("a"));
    let paid: Vec<Id> = world.log.iter().rev().take(2).map(|record| record.id).collect();
    assert_eq!(paid, [second, first]);
    assert_eq!(world.ledger.queued(P1).len(), 0);
    world.finish();
}

#[test]
fn frozen_partitions_pay_nobody_until_they_thaw() {
    let mut world = empty_partition(&unbonding(1));
    world.deposit_by(SUPPLIER, 1000);
    let held = units(&world, SUPPLIER);
    world.withdraw_by(SUPPLIER, held);
    world.send(&operate(Kind::Freeze, 0));
    world.wait(5000);
    assert_eq!(world.withdraw_by(SUPPLIER, 1).code(), Code::Frozen);
    assert_eq!(world.money()[4], 0);
    world.send(&operate(Kind::Unfreeze, 0));
    assert_eq!((world.money()[0], world.money()[4]), (0, 1000));
    world.finish();
}

#[test]
fn equity_of_nothing_opens_a_new_generation() {
    let mut world = empty_partition(&unbonding(60));
    world.deposit_by(SUPPLIER, 1000);
    let held = units(&world, SUPPLIER);
    world.withdraw_by(SUPPLIER, held / 2);
    world.send(&operate(Kind::Deficit, 1000));
    world.send(&operate(Kind::Unfreeze, 0));
    assert_eq!(world.deposit_by(OTHER, 500).extra, Amount(500_000_000));
    let totals = world.ledger.partition(P1).unwrap();
    assert_eq!((totals.generation, totals.units, totals.units_queued), (1, 500_000_000, 0));
    assert_eq!((units(&world, SUPPLIER), units(&world, OTHER)), (0, 500_000_000));
    world.wait(60_000);
    assert_eq!(world.money()[4], 0, "what was queued is worth nothing");
    world.finish();
}

#[test]
fn a_deposit_in_a_deficit_buys_at_what_the_units_have_left() {
    let mut world = empty_partition(&unbonding(60));
    world.deposit_by(SUPPLIER, 1000);
    world.send(&lock("a", 500));
    world.send(&operate(Kind::Deficit, 700));
    // 500 are held and 200 of them are missing: the first thousand is worth 300.
    let bought = world.deposit_by(OTHER, 300).extra.0;
    assert_eq!(bought, 300 * (1_000_000_000 + 1_000_000) / (300 + 1));
    assert_eq!(units(&world, OTHER), bought);
    assert_eq!(world.money(), [100, 500, 0, 0, 0, 0], "the deficit was paid first");
    world.finish();
}

#[test]
fn a_stake_in_place_has_one_supplier() {
    let mut world = World::empty();
    let mut onchain = [0xaa; 32];
    onchain[31] = 1;
    world.create_as(P1, onchain, 0);
    assert_eq!(world.deposit_by(SUPPLIER, 1000).code(), Code::Approved);
    assert_eq!(world.deposit_by(OTHER, 1000).code(), Code::Forbidden);
    assert_eq!(world.deposit_by(SUPPLIER, 1000).code(), Code::Approved);
    world.finish();
}

#[test]
fn a_long_queue_is_paid_in_turns() {
    let mut world = empty_partition(&unbonding(1));
    world.is_strict = false;
    world.deposit_by(SUPPLIER, 3_000_000);
    world.send(&lock("a", 3_000_000));
    for _ in 0..2500 {
        world.withdraw_by(SUPPLIER, 1_000_000);
    }
    world.wait(2000);
    world.send(&release("a"));
    world.is_strict = true;
    assert_eq!(world.ledger.queued(P1).len(), 2500 - ledger::FOLLOW_MAX);
    world.advance();
    world.check();
    assert_eq!(world.ledger.queued(P1).len(), 0);
    world.finish();
}

#[test]
fn what_the_last_record_of_a_turn_makes_payable_is_paid() {
    let mut world = World::with_policy(&unbonding(1));
    world.is_strict = false;
    world.deposit(P1, 24);
    for _ in 0..limits::DUE_RECORDS_PER_TURN_MAX {
        world.send(&lock("", 1).life(60_000));
    }
    let units = world.ledger.partition(P1).unwrap().units;
    world.withdraw_by(SUPPLIER, units);
    world.wait(10_000);
    world.wait(60_000);
    assert_eq!(world.ledger.queued(P1).len(), 0);
    world.finish();
}
