//! Load over a REST front door, before a real engine: the money agrees, also with faults on the way.
#![allow(clippy::unwrap_used)]

mod stage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loadtest::rest::{Door, DoorError, DoorOptions};
use loadtest::{Front, LoadError, Options, Pace, Rate, Report, Scenario, Share, merge, run};
use rest::{Asset, Rest, RestConfig, RestLimits, Tenant, TenantConfig, TokenHash, new_token};
use surety_client::LockRef;
use surety_protocol::{AssetId, Seq};

use stage::Stage;

/// An engine, and a door in front of it that limits nobody.
struct Rig {
    stage: Stage,
    door: Rest,
}

impl Rig {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let config = RestConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            assets: vec![Asset { name: "AMP".to_owned(), id: AssetId(1), decimals: 18, scale: 2 }],
            certificates: None,
            webhooks: None,
            limits: RestLimits { rate_per_s: 10_000_000, burst: 10_000_000, ..RestLimits::default() },
        };
        let tokens = vec![("test".to_owned(), TokenHash::of(&token()))];
        let tenant = Tenant {
            client: stage.authorizer().await,
            config: TenantConfig { tokens, webhooks: Vec::new() },
        };
        let door = Rest::start(config, vec![tenant]).await.unwrap();
        Self { stage, door }
    }

    fn door(&self, injection: Option<&str>) -> DoorOptions {
        DoorOptions {
            address: self.door.address(),
            token: token(),
            asset: "AMP:18:2".parse().unwrap(),
            tls: None,
            injection: injection.map(|text| text.parse().unwrap()),
            seed: 3,
        }
    }

    async fn run(&self, scenario: &str, millis: u64, door: DoorOptions) -> Report {
        let scenario = Scenario::load(scenario).unwrap();
        let options = Options::new(scenario, Pace::Max { in_flight: 8 }, Duration::from_millis(millis));
        let door = Arc::new(Door::open(door).await.unwrap());
        run(&self.stage.clients, Options { door: Some(Front::Rest(door)), checks_money: true, ..options })
            .await
            .unwrap()
    }

    async fn close(self) {
        drop(self.stage.clients);
        self.door.stop().await;
        self.stage.engine.shutdown();
    }
}

fn token() -> String {
    new_token([1; 32])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenarios_run_over_a_front_door_and_the_money_agrees() {
    let rig = Rig::new().await;
    for scenario in [
        "tap",
        "tip",
        "fuel",
        "hotel",
        "split-ship",
        "lock-release",
        "timeout-storm",
        "refund-day",
        "failure-wave",
    ] {
        let report = rig.run(scenario, 300, rig.door(None)).await;
        assert!(report.ok && report.payments > 0 && report.declined.is_empty(), "{scenario}: {report:?}");
        let found = report.money_check.as_ref().unwrap();
        assert!(found.is_ok() && found.recorded > 0, "{scenario}: {found:?}");
        assert_eq!(report.transport, "rest");
        // A door that is short of time refuses; whatever it did not refuse is looked up.
        let refused: u64 = report.refused.values().sum();
        let left = report.payments - found.looked_up;
        assert!(
            left <= refused + report.unsent,
            "{scenario}: {left} of {} not looked up: {report:?}",
            report.payments
        );
    }
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_on_the_way_to_a_front_door_the_money_agrees() {
    let rig = Rig::new().await;
    let faults = "drop=0.05,double=0.2,delay=0.1:3ms,kill=50ms";
    let mut all = [0; 4];
    // At least once each; on a slow machine until every fault has come.
    for (runs, scenario) in ["timeout-storm", "split-ship", "tap"].into_iter().cycle().enumerate() {
        if runs >= 3 && all.iter().all(|count| *count > 0) {
            break;
        }
        let report = rig.run(scenario, 500, rig.door(Some(faults))).await;
        let found = report.money_check.as_ref().unwrap();
        assert!(found.is_ok() && report.contradictions == 0 && report.unknown == 0, "{scenario}: {report:?}");
        let injected = report.injected.unwrap();
        for (sum, more) in
            all.iter_mut().zip([injected.dropped, injected.doubled, injected.delayed, injected.killed])
        {
            *sum += more;
        }
    }
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_somebody_else_has_touched_is_named() {
    let rig = Rig::new().await;
    let client = rig.stage.clients.authorizer.clone();
    let shards = client.shards();
    // Releases whatever lock comes, behind the door's back.
    let meddler = tokio::spawn(async move {
        let partition = Scenario::load("hotel").unwrap().partition_handles(shards)[0];
        let mut tail = client.tail(partition.shard(), Seq(0));
        loop {
            let (_, record) = tail.next().await.unwrap();
            if record.kind() == Some(surety_protocol::Kind::Lock) {
                let _ = client.send(LockRef::new(record.partition, record.id).release()).await;
            }
        }
    });
    let named = async {
        // A slow machine may have seen no lock before the first run is over.
        loop {
            let report = rig.run("hotel", 500, rig.door(None)).await;
            let found = report.money_check.as_ref().unwrap();
            if found.log.contains("nobody here has asked for") {
                return report;
            }
        }
    };
    let report = tokio::time::timeout(Duration::from_secs(120), named).await.unwrap();
    assert!(!report.ok, "{report:?}");
    meddler.abort();
    let _ = meddler.await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generator_without_payments_does_not_spoil_the_run_of_all() {
    let rig = Rig::new().await;
    for over_door in [false, true] {
        let mut reports = Vec::new();
        for share in Share::all(2) {
            let pace = Pace::Constant { rate: Rate::Steady(2.0) };
            let options = Options::new(Scenario::load("tap").unwrap(), pace, Duration::from_millis(300));
            let door = match over_door {
                true => Some(Front::Rest(Arc::new(Door::open(rig.door(None)).await.unwrap()))),
                false => None,
            };
            let options = Options { share, door, checks_money: true, ..options };
            reports.push(run(&rig.stage.clients, options).await.unwrap());
        }
        let [first, second] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!((first.payments, second.payments), (1, 0));
        assert!(first.ok && second.ok, "{reports:?}");
        let whole = merge(&reports).unwrap();
        assert!(whole.ok && whole.money_check.unwrap().is_ok(), "{reports:?}");
        assert!(!merge(&[second.clone(), second.clone()]).unwrap().ok, "nobody was answered");
    }
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_front_door_cannot_be_told_is_refused_before_the_run() {
    let rig = Rig::new().await;
    let door = Arc::new(Door::open(rig.door(None)).await.unwrap());
    let options = |scenario: &str| {
        let options = Options::new(
            Scenario::load(scenario).unwrap(),
            Pace::Max { in_flight: 1 },
            Duration::from_millis(10),
        );
        Options { door: Some(Front::Rest(door.clone())), ..options }
    };
    let error = run(&rig.stage.clients, options("standin")).await.unwrap_err();
    assert!(error.to_string().contains("standin: `advise` cannot be said"), "{error}");
    let acks = Options { acks: Some("acks".into()), ..options("tap") };
    assert!(matches!(run(&rig.stage.clients, acks).await, Err(LoadError::Acks)));
    let wrong = DoorOptions { token: new_token([9; 32]), ..rig.door(None) };
    assert!(matches!(Door::open(wrong).await, Err(DoorError::Closed { status: 401, .. })));
    let odd = DoorOptions { token: "a\nb".to_owned(), ..rig.door(None) };
    assert!(matches!(Door::open(odd).await, Err(DoorError::Token)));
    let nobody = DoorOptions { address: SocketAddr::from(([127, 0, 0, 1], 1)), ..rig.door(None) };
    assert!(matches!(Door::open(nobody).await, Err(DoorError::Connect { .. })));
    rig.close().await;
}
