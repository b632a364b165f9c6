//! Load over ISO 8583, at a link before a real engine: the money agrees, also with faults on the way.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod stage;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::{Gateway, Limits, LinkConfig, MacAlgorithm, MacConfig, MacSource, Macs};
use iso8583::payment::{Currency, IdKey, Mark, Rules, Scale};
use iso8583::{Codec, Dialect, Draft, EncodeError, LengthHeader, Message, Profile};
use loadtest::iso::{Host, HostError, HostOptions, Seal, Speech};
use loadtest::rest::DoorError;
use loadtest::{Front, LoadError, Options, Pace, Report, Scenario, run};
use surety_client::LockRef;
use surety_protocol::{Kind, Seq};

use stage::Stage;

/// What a host has to be able to say.
const SCENARIOS: [&str; 7] =
    ["tap", "tip", "fuel", "lock-release", "timeout-storm", "standin", "failure-wave"];

/// An engine, and a link in front of it.
struct Rig {
    stage: Stage,
    link: Gateway,
    config: LinkConfig,
}

/// A link's own keys.
struct Own(Macs);

impl Seal for Own {
    fn seal(&self, draft: &mut Draft, codec: Codec) -> Result<(), EncodeError> {
        self.0.sign(draft, codec)
    }

    fn is_right(&self, message: &Message<'_>, bytes: &[u8]) -> bool {
        self.0.is_right(message, bytes)
    }
}

impl Rig {
    async fn new(dialect: Dialect, profile: Profile, header: LengthHeader, is_signed: bool) -> Self {
        let stage = Stage::new().await;
        let keys = stage.directory.path().join("mac.key");
        std::fs::write(&keys, "ab".repeat(16)).unwrap();
        let source = MacSource::File(keys);
        let config = LinkConfig {
            name: "load".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            header,
            profile,
            rules: rules(dialect),
            needs_sign_on: true,
            mac: is_signed.then_some(MacConfig { algorithm: MacAlgorithm::Retail, source }),
            tls: None,
            book_file: None,
            limits: Limits::default(),
        };
        let link = Gateway::start(stage.authorizer().await, config.clone()).await.unwrap();
        Self { stage, link, config }
    }

    async fn plain() -> Self {
        Self::new(Dialect::V1987, Profile::BINARY, LengthHeader::Binary2, false).await
    }

    fn host(&self, injection: Option<&str>) -> HostOptions {
        let own = |config: &MacConfig| Arc::new(Own(Macs::open(config).unwrap())) as Arc<dyn Seal>;
        let LinkConfig { header, rules, mac, .. } = &self.config;
        HostOptions {
            address: self.link.address(),
            speech: Speech { header: *header, codec: self.config.codec(), rules: rules.clone() },
            seal: mac.as_ref().map(own),
            tls: None,
            injection: injection.map(|text| text.parse().unwrap()),
            seed: 3,
        }
    }

    async fn run(&self, scenario: &str, millis: u64, host: HostOptions) -> Report {
        let scenario = Scenario::load(scenario).unwrap();
        let options = Options::new(scenario, Pace::Max { in_flight: 16 }, Duration::from_millis(millis));
        let front = Front::Iso(Arc::new(Host::open(host).await.unwrap()));
        let options = Options { door: Some(front), checks_money: true, ..options };
        run(&self.stage.clients, options).await.unwrap()
    }

    async fn close(self) {
        drop(self.stage.clients);
        self.link.stop().await;
        self.stage.engine.shutdown();
    }
}

fn rules(dialect: Dialect) -> Rules {
    Rules {
        dialect,
        id_key: IdKey([5; 32]),
        currencies: vec![Currency { number: 840, scale: Scale { asset_decimals: 18, edge_decimals: 2 } }],
        held_in: BTreeMap::new(),
        routes: Vec::new(),
        merchants: BTreeMap::new(),
        partial: Mark { field: 60, at: 0, unit: b'1' },
        increase: Mark { field: 60, at: 1, unit: b'1' },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenarios_run_over_a_link_and_the_money_agrees() {
    let links = [
        (Dialect::V1987, Profile::BINARY, LengthHeader::Binary2, false),
        (Dialect::V1987, Profile::ASCII, LengthHeader::Ascii4, true),
        (Dialect::V1993, Profile::EBCDIC, LengthHeader::Bcd2, true),
    ];
    for (dialect, profile, header, is_signed) in links {
        let rig = Rig::new(dialect, profile, header, is_signed).await;
        for scenario in SCENARIOS {
            let report = rig.run(scenario, 300, rig.host(None)).await;
            let what = format!("{scenario} over {dialect:?}");
            assert!(report.ok && report.payments > 0, "{what}: {report:?}");
            // An answer that a stalled disk has kept back may be burned before it is asked for again: declined, and nothing else is.
            assert!(report.declined.keys().all(|code| code == "BURNED"), "{what}: {report:?}");
            let found = report.money_check.as_ref().unwrap();
            assert!(found.is_ok() && found.recorded > 0, "{what}: {found:?}");
            assert_eq!(report.transport, "iso8583");
            // A link that is short of time says "not now"; whatever it did not refuse is looked up.
            let refused: u64 = report.refused.values().chain(report.declined.values()).sum();
            assert!(report.payments - found.looked_up <= refused + report.unsent, "{what}: {report:?}");
        }
        rig.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_on_the_way_to_a_link_the_money_agrees() {
    for dialect in [Dialect::V1987, Dialect::V1993] {
        let rig = Rig::new(dialect, Profile::ASCII, LengthHeader::Ascii4, false).await;
        let faults = "drop=0.05,double=0.2,delay=0.1:3ms,kill=50ms";
        let mut all = [0; 4];
        // At least once each; on a slow machine until every fault has come.
        let scenarios = ["timeout-storm", "standin", "lock-release"];
        for (runs, scenario) in scenarios.into_iter().cycle().enumerate() {
            if runs >= scenarios.len() && all.iter().all(|count| *count > 0) {
                break;
            }
            let report = rig.run(scenario, 500, rig.host(Some(faults))).await;
            let found = report.money_check.as_ref().unwrap();
            assert!(
                found.is_ok() && report.contradictions == 0 && report.unknown == 0,
                "{scenario} over {dialect:?}: {report:?}"
            );
            let injected = report.injected.unwrap();
            for (sum, more) in
                all.iter_mut().zip([injected.dropped, injected.doubled, injected.delayed, injected.killed])
            {
                *sum += more;
            }
        }
        rig.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_of_a_link_that_somebody_else_has_touched_is_named() {
    let rig = Rig::plain().await;
    let client = rig.stage.clients.authorizer.clone();
    let shards = client.shards();
    // Releases whatever lock comes, behind the link's back.
    let meddler = tokio::spawn(async move {
        let partition = Scenario::load("fuel").unwrap().partition_handles(shards)[0];
        let mut tail = client.tail(partition.shard(), Seq(0));
        loop {
            let (_, record) = tail.next().await.unwrap();
            if record.kind() == Some(Kind::Lock) {
                let _ = client.send(LockRef::new(record.partition, record.id).release()).await;
            }
        }
    });
    let named = async {
        // A slow machine may have seen no lock before the first run is over.
        loop {
            let report = rig.run("fuel", 500, rig.host(None)).await;
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
async fn a_key_of_ids_that_is_not_the_links_is_seen() {
    let rig = Rig::plain().await;
    let mut wrong = rig.host(None);
    wrong.speech.rules.id_key = IdKey([6; 32]);
    let report = rig.run("lock-release", 100, wrong).await;
    let found = report.money_check.as_ref().unwrap();
    assert!(!report.ok && report.contradictions > 0, "approval codes are made of ids: {report:?}");
    assert!(found.log.contains("not in the log"), "{found:?}");
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_link_cannot_be_told_is_refused_before_the_run() {
    let rig = Rig::new(Dialect::V1987, Profile::BINARY, LengthHeader::Binary2, true).await;
    let front = Front::Iso(Arc::new(Host::open(rig.host(None)).await.unwrap()));
    let options = |scenario: &str| {
        let scenario = Scenario::load(scenario).unwrap();
        let options = Options::new(scenario, Pace::Max { in_flight: 1 }, Duration::from_millis(10));
        Options { door: Some(front.clone()), ..options }
    };
    for (scenario, step) in [("hotel", "increase"), ("split-ship", "capture"), ("refund-day", "refund")] {
        let error = run(&rig.stage.clients, options(scenario)).await.unwrap_err();
        let expect = format!("{scenario}: `{step}` cannot be said at an ISO 8583 link");
        assert!(error.to_string().contains(&expect), "{error}");
    }
    let acks = Options { acks: Some("acks".into()), ..options("tap") };
    assert!(matches!(run(&rig.stage.clients, acks).await, Err(LoadError::Acks)));
    // Whoever cannot sign is not let in.
    let unsigned = HostOptions { seal: None, ..rig.host(None) };
    assert!(matches!(Host::open(unsigned).await, Err(HostError::SignOn { .. })));
    let mut odd = rig.host(None);
    odd.speech.rules.currencies[0].scale = Scale { asset_decimals: 0, edge_decimals: 2 };
    assert!(matches!(Host::open(odd).await, Err(HostError::Scale(840))));
    let mut none = rig.host(None);
    none.speech.rules.currencies.clear();
    assert!(matches!(Host::open(none).await, Err(HostError::NoCurrency)));
    let partition = Scenario::load("tap").unwrap().partition_handles(2)[1];
    let mut other = rig.host(None);
    other.speech.rules.held_in.insert(partition, 978);
    let front = Front::Iso(Arc::new(Host::open(other).await.unwrap()));
    let error = run(&rig.stage.clients, Options { door: Some(front), ..options("tap") }).await.unwrap_err();
    assert!(error.to_string().contains("in another currency"), "{error}");
    let nobody = HostOptions { address: SocketAddr::from(([127, 0, 0, 1], 1)), ..rig.host(None) };
    assert!(matches!(Host::open(nobody).await, Err(HostError::Door(DoorError::Connect { .. }))));
    rig.close().await;
}
