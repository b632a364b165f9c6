//! The admin listener: probes, and numbers that are those of the shard.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::time::Duration;

use rig::{Rig, http, id, lock, lock_in, partition};
use surety_protocol::{
    Amount, AssetId, ChangeBody, Code, ControlBody, Kind, LockBody, PartitionBody, PartitionHandle, Record,
};

/// Partitions that one step of the sums does not reach.
const MANY_PARTITIONS: u64 = 300;

/// Asks again and again until a line is there: gauges are renewed a few times a second.
async fn wait_for(rig: &Rig, line: &str) {
    let admin = rig.running().admin().unwrap();
    let mut text = String::new();
    for _ in 0..600 {
        (_, text) = http(admin, "/metrics").await;
        if text.lines().any(|found| found == line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no line {line:?} in {text}");
}

fn collateral(asset: u32, state: &str, amount: u128) -> String {
    format!("surety_collateral_base_units{{shard=\"0\",asset=\"{asset}\",state=\"{state}\"}} {amount}")
}

#[tokio::test]
async fn the_admin_listener_answers_probes_and_tells_numbers() {
    let rig = Rig::start(2);
    let admin = rig.running().admin().unwrap();
    let mut raw = rig.authorizer(0).await;
    let (reply, _) = raw.ask(lock(0)).await.unwrap();
    assert_eq!(http(admin, "/livez").await, (200, "alive\n".to_owned()));
    assert_eq!(http(admin, "/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(http(admin, "/nothing").await.0, 404);
    let (status, version) = http(admin, "/version").await;
    assert_eq!(status, 200);
    assert!(version.contains(&rig.running().engine().to_string()), "{version}");
    let (_, metrics) = http(admin, "/metrics").await;
    let line = format!("surety_requests_total{{shard=\"0\",op=\"lock\",code=\"{}\"}} 1", reply.code());
    assert!(metrics.contains(&line), "{metrics}");
    assert!(metrics.contains("surety_request_duration_seconds_count{shard=\"0\"} 6"), "{metrics}");
    assert!(metrics.contains("surety_ready 1"), "{metrics}");
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn money_is_told_by_asset_and_state() {
    let rig = Rig::start(1);
    wait_for(&rig, &collateral(1, "free", 1_000_000_000_000)).await;
    let mut authorizer = rig.authorizer(0).await;
    let first = lock_in(partition(0), 700);
    assert_eq!(authorizer.ask(first).await.unwrap().0.code(), Code::Approved);
    assert_eq!(authorizer.ask(lock_in(partition(0), 50)).await.unwrap().0.code(), Code::Approved);
    let change = ChangeBody { lock: first.id, ..ChangeBody::default() };
    let capture = Record::new(Kind::Capture, id(), partition(0), Amount(300), &change);
    assert_eq!(authorizer.ask(capture).await.unwrap().0.code(), Code::Approved);
    wait_for(&rig, &collateral(1, "captured", 300)).await;
    wait_for(&rig, &collateral(1, "held", 450)).await;
    wait_for(&rig, &collateral(1, "free", 1_000_000_000_000 - 750)).await;
    wait_for(&rig, "surety_open_locks{shard=\"0\"} 2").await;
    wait_for(&rig, "surety_partitions{shard=\"0\",asset=\"1\",state=\"frozen\"} 0").await;
    assert_eq!(rig.metric("surety_invariant_violations_total", 0).await, 0);
    assert_eq!(rig.metric("surety_expired_locks_total", 0).await, 0);
}

#[tokio::test]
async fn sums_reach_every_partition_and_tell_assets_apart() {
    let rig = Rig::start(1);
    let mut admin = rig.operator("admin", 0).await;
    for number in 2..2 + MANY_PARTITIONS {
        let handle = PartitionHandle(partition(0).0 - 1 + number);
        let mut onchain = [9; 32];
        onchain[..8].copy_from_slice(&number.to_be_bytes());
        let create = PartitionBody { onchain, asset: AssetId(2), ..PartitionBody::default() };
        admin.order(&[Record::new(Kind::PartitionCreate, id(), handle, Amount::ZERO, &create)]).await;
    }
    wait_for(&rig, &format!("surety_partitions{{shard=\"0\",asset=\"2\",state=\"open\"}} {MANY_PARTITIONS}"))
        .await;
    wait_for(&rig, "surety_partitions{shard=\"0\",asset=\"1\",state=\"open\"} 1").await;
    let freeze = Record::new(
        Kind::Freeze,
        id(),
        PartitionHandle(partition(0).0 + 7),
        Amount::ZERO,
        &ControlBody::default(),
    );
    admin.order(&[freeze]).await;
    wait_for(&rig, "surety_partitions{shard=\"0\",asset=\"2\",state=\"frozen\"} 1").await;
}

#[tokio::test]
async fn a_lock_that_ends_by_its_deadline_is_counted_once_and_not_again_after_a_restart() {
    let mut rig = Rig::start(1);
    let mut authorizer = rig.authorizer(0).await;
    let body = LockBody { life_ms: 500, ..LockBody::default() };
    let short = Record::new(Kind::Lock, id(), partition(0), Amount(9), &body);
    assert_eq!(authorizer.ask(short).await.unwrap().0.code(), Code::Approved);
    wait_for(&rig, "surety_expired_locks_total{shard=\"0\"} 1").await;
    wait_for(&rig, "surety_open_locks{shard=\"0\"} 0").await;
    // Its record has to be in the log, or it expires once more.
    while rig.metric("surety_acked_seq", 0).await < rig.metric("surety_appended_seq", 0).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.kill();
    rig.restart();
    wait_for(&rig, &collateral(1, "held", 0)).await;
    assert_eq!(rig.metric("surety_expired_locks_total", 0).await, 0, "only what has ended since the start");
    wait_for(&rig, "surety_kept_locks{shard=\"0\"} 1").await;
}
