//! Small worlds on every test run; and the checker itself: that it is repeatable, that it notices, that it makes short.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use simulator::run::{run_all, shrink};
use simulator::world::coverage::{Branch, Coverage, Fault};
use simulator::world::{Plan, Sabotage, run};

#[test]
fn worlds_of_faults_hold() {
    let (report, failed) = run_all(&Plan::new(1_000, 2_000), 24, 2);
    let failure = failed.map(|failed| (failed.plan.seed, failed.outcome.failure));
    assert_eq!(failure, None);
    assert!(report.operations > 24 * 1_500, "{}", report.operations);
    for fault in [Fault::TornWrite, Fault::PowerCut, Fault::Kill, Fault::DiskError, Fault::RequestDoubled] {
        assert!(report.coverage.faults_of(fault) > 0, "{fault:?}");
    }
    for branch in [Branch::TornTail, Branch::FromSnapshot, Branch::RefusedLaterBlock] {
        assert!(report.coverage.branches_of(branch) > 0, "{branch:?}");
    }
}

#[test]
fn worlds_that_lose_an_engine_hold() {
    let mut coverage = Coverage::default();
    for seed in (2..80).step_by(5) {
        let outcome = run(&Plan::new(seed, 3_000));
        assert_eq!(outcome.failure, None, "seed {seed}");
        coverage.add(&outcome.coverage);
    }
    assert!(coverage.faults_of(Fault::AcceptedLoss) > 10, "{:?}", coverage.faults());
    assert!(coverage.faults_of(Fault::CutInRestore) > 0);
    for branch in [
        Branch::LostAgain,
        Branch::LostLifeTold,
        Branch::ZombieProven,
        Branch::Reconciled,
        Branch::OldLockLost,
    ] {
        assert!(coverage.branches_of(branch) > 0, "{branch:?}");
    }
    assert!(coverage.codes()["UNKNOWN_AFTER_RESTORE"] > 1_000);
    assert!(coverage.codes()["QUOTA_OPEN_LOCKS"] > 0);
}

#[test]
fn the_same_seed_is_the_same_history() {
    let hash = |seed| {
        let outcome = run(&Plan { tells: true, ..Plan::new(seed, 800) });
        assert_eq!(outcome.failure, None);
        (outcome.trace, outcome.operations, outcome.story)
    };
    assert_eq!(hash(5), hash(5));
    assert_ne!(hash(5).0, hash(6).0);
}

/// The first world of a few that notices a deliberate error.
fn notices(sabotage: Sabotage) -> Plan {
    let mut plans = (1..40).map(|seed| Plan { sabotage: Some(sabotage), ..Plan::new(seed, 1_500) });
    plans.find(|plan| run(plan).failure.is_some()).unwrap_or_else(|| panic!("{sabotage:?} passes"))
}

#[test]
fn an_oracle_that_forgets_headroom_is_noticed() {
    notices(Sabotage::OracleForgetsHeadroom);
}

#[test]
fn a_disk_that_lies_is_noticed() {
    notices(Sabotage::DiskLies);
}

#[test]
fn a_reply_before_the_disk_is_noticed() {
    notices(Sabotage::EarlyAck);
}

#[test]
fn a_clock_that_jumps_with_the_wall_is_noticed() {
    notices(Sabotage::ClockJumps);
}

#[test]
fn a_failing_history_is_made_short_and_still_fails() {
    let plan = notices(Sabotage::OracleForgetsHeadroom);
    let long = run(&plan).failure.unwrap();
    let shrunk = shrink(&plan, Duration::from_secs(60));
    let short = shrunk.outcome.failure.as_ref().unwrap();
    assert_eq!(short.1.invariant, long.1.invariant);
    assert!(shrunk.parts() <= 10, "{} parts are left", shrunk.parts());
    // The command that is printed runs the very same history.
    let again = run(&shrunk.plan);
    assert_eq!(again.trace, shrunk.outcome.trace);
    assert_eq!(again.failure, shrunk.outcome.failure);
}
