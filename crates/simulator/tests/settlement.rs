//! Small worlds with a chain and a settler; and for each way in which settlement may go wrong, worlds that would notice.
#![allow(clippy::unwrap_used)]

use simulator::world::coverage::{Branch, Coverage, Fault};
use simulator::world::{Plan, run};

/// Runs worlds that settle, which are those of every third seed.
fn hold(worlds: std::ops::Range<u64>, ops: u64) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in worlds.map(|world| 3 * world) {
        let outcome = run(&Plan::new(seed, ops));
        assert_eq!(outcome.failure, None, "seed {seed} with {ops} steps");
        coverage.add(&outcome.coverage);
    }
    coverage
}

#[test]
fn worlds_that_settle_hold() {
    let coverage = hold(1_000..1_012, 3_000);
    for fault in [Fault::Reorg, Fault::BatchReorgedOut, Fault::FeeChange, Fault::SettlerKilled] {
        assert!(coverage.faults_of(fault) > 0, "{fault:?}");
    }
    let branches =
        [Branch::BatchBooked, Branch::SupplyCredited, Branch::GuaranteeBooked, Branch::SettlerWentOn];
    for branch in branches {
        assert!(coverage.branches_of(branch) > 0, "{branch:?}");
    }
}

#[test]
fn a_settling_world_is_the_same_history_again() {
    let history = || {
        let outcome = run(&Plan { tells: true, ..Plan::new(3_000, 1_500) });
        (outcome.failure, outcome.trace, outcome.story)
    };
    assert_eq!(history(), history());
}

#[test]
fn a_batch_keeps_its_nonce_through_crashes() {
    hold(2_000..2_004, 1_500);
}

#[test]
fn what_was_signed_is_remembered_through_crashes() {
    hold(2_100..2_130, 2_500);
}

#[test]
fn a_batch_is_applied_once_whatever_is_sent_again() {
    hold(2_200..2_230, 2_500);
}

#[test]
fn no_supply_is_credited_before_it_is_final() {
    hold(2_300..2_304, 1_500);
}

#[test]
fn no_change_is_lost_between_two_batches() {
    hold(2_400..2_408, 1_500);
}

#[test]
fn nothing_is_counted_again_after_a_restart() {
    hold(2_500..2_508, 2_000);
}
