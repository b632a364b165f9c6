//! Load on a real engine over real UDP and in memory, killed in the middle, and every acknowledgement found in its log.
#![allow(clippy::unwrap_used)]

mod port;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadtest::{
    CheckReport, Clients, Faulty, Injected, Options, Pace, Rate, Report, Scenario, check, read_acks, run,
};
use server::{Config, Durability, Embedded, Running, Server, pki_path};
use surety_client::{Client, Identity, LockRef, QuicConnector, QuicOptions};
use surety_protocol::{ActorId, Caller, Code, Kind, Reply, Roles, Seq, ShardId, TenantId};
use tempfile::TempDir;

const SEGMENT: u64 = 1 << 20;

/// A data directory, and the address that its server keeps over restarts.
struct Rig {
    directory: TempDir,
    durability: Durability,
    ports: Option<u16>,
}

impl Rig {
    fn new(shards: u16, durability: Durability) -> Self {
        let directory = tempfile::tempdir().unwrap();
        server::init(&directory.path().join("data"), shards, SEGMENT).unwrap();
        Self { directory, durability, ports: None }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn acks(&self) -> PathBuf {
        self.directory.path().join("acks")
    }

    fn config(&self) -> Config {
        let port = self.ports.unwrap_or(0);
        Config {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            admin: None,
            durability: self.durability,
            segment_bytes: SEGMENT,
            pin_threads: false,
            free_bytes_min: 0,
            limits: server::Limits { connections_per_s_address: 0, ..server::Limits::default() },
            ..Config::new(self.data())
        }
    }

    fn serve(&mut self) -> Running {
        let running = port::start(&self.config());
        self.ports = Some(running.addresses()[0].port());
        running
    }

    fn identity(&self, name: &str) -> Identity {
        Identity::from_file(pki_path(&self.data()).join(name).with_extension("pem")).unwrap()
    }

    async fn clients(&self, running: &Running) -> Clients {
        let connect = async |name| {
            let quic = QuicOptions::new(running.addresses()[0], self.identity(name));
            Client::connect_with(quic, surety_client::Options::default()).await.unwrap()
        };
        Clients {
            authorizer: connect("authorizer").await,
            settler: Some(connect("settler").await),
            admin: Some(connect("admin").await),
        }
    }

    fn options(&self, scenario: &str, pace: Pace, millis: u64) -> Options {
        Options {
            acks: Some(self.acks()),
            ..Options::new(Scenario::load(scenario).unwrap(), pace, Duration::from_millis(millis))
        }
    }

    fn check(&self) -> CheckReport {
        check(&self.acks(), &self.data()).unwrap()
    }
}

fn assert_all_there(found: &CheckReport, report: &Report) {
    assert!(found.ok, "{found:?}");
    assert_eq!(found.verified, found.recorded);
    assert!(found.acks >= report.replied && found.recorded > 0, "{found:?}");
}

/// Everything that comes with the generator.
const BUILT_IN: [&str; 13] = [
    "tap",
    "lock-release",
    "tip",
    "fuel",
    "hotel",
    "split-ship",
    "timeout-storm",
    "standin",
    "hot-1",
    "zipf-0.99",
    "refund-day",
    "failure-wave",
    "cold-to-hot",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_built_in_scenario_does_what_it_says_without_a_decline() {
    let mut rig = Rig::new(2, Durability::Os);
    let running = rig.serve();
    let clients = rig.clients(&running).await;
    for scenario in BUILT_IN {
        let options = rig.options(scenario, Pace::Max { in_flight: 16 }, 200);
        let report = run(&clients, Options { checks_money: true, ..options }).await.unwrap();
        assert!(report.ok, "{report:?}");
        let found = report.money_check.as_ref().unwrap();
        assert!(found.left_out == 0 && found.is_ok(), "{found:?}");
        // On a machine that is busy with others an engine refuses some; every other lock is looked up.
        let refused: u64 = report.refused.values().sum();
        assert!(report.payments - found.looked_up <= refused, "{scenario}: {report:?}");
        assert!(report.payments > 0 && report.declined.is_empty(), "{scenario}: {report:?}");
        assert!(report.refused.keys().all(|code| code == "OVERLOADED"), "{scenario}: {report:?}");
    }
    let replies = read_acks(&rig.acks()).unwrap();
    // Each sort of step was made, and none of them in vain.
    for kind in [
        Kind::Lock,
        Kind::Increase,
        Kind::Capture,
        Kind::Reverse,
        Kind::Refund,
        Kind::Release,
        Kind::Advice,
        Kind::Settle,
        Kind::Consume,
    ] {
        let moved = replies.iter().any(|reply| {
            reply.kind == kind as u8
                && reply.approved.0 > 0
                && reply.code() == Code::Approved
                && !reply.is_replayed()
        });
        assert!(moved, "{kind} has moved nothing");
    }
    assert!(replies.iter().any(Reply::is_replayed));
    drop(clients);
    running.shutdown();
    let found = rig.check();
    assert_eq!((found.ok, found.verified), (true, replies.len() as u64), "{found:?}");
}

/// A client whose links are spoiled.
async fn spoiled(rig: &Rig, running: &Running, injection: &str) -> (Client, Arc<Faulty>) {
    let quic = QuicOptions::new(running.addresses()[0], rig.identity("authorizer"));
    let connector = Arc::new(QuicConnector::new(quic).unwrap());
    let faults = Arc::new(Faulty::new(connector, injection.parse().unwrap(), 3));
    let patience = surety_client::Options {
        deadline: Duration::from_millis(500),
        links_lost_max: u32::MAX,
        ..surety_client::Options::default()
    };
    (Client::over(faults.clone(), patience, &[]).await.unwrap(), faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_on_the_way_the_money_agrees() {
    let mut rig = Rig::new(2, Durability::Fsync);
    let running = rig.serve();
    let mut clients = rig.clients(&running).await;
    let (client, faults) = spoiled(&rig, &running, "drop=0.02,double=0.2,delay=0.1:3ms,kill=100ms").await;
    clients.authorizer = client;
    let all = |injected: Injected| [injected.dropped, injected.doubled, injected.delayed, injected.killed];
    // At least once each; on a slow machine until every fault has come.
    for (runs, scenario) in ["timeout-storm", "split-ship", "refund-day"].into_iter().cycle().enumerate() {
        if runs >= 3 && all(faults.injected()).iter().all(|count| *count > 0) {
            break;
        }
        let options = Options {
            checks_money: true,
            faults: Some(faults.clone()),
            ..rig.options(scenario, Pace::Max { in_flight: 8 }, 1000)
        };
        let report = run(&clients, options).await.unwrap();
        let found = report.money_check.as_ref().unwrap();
        assert!(found.is_ok() && report.contradictions == 0, "{scenario}: {report:?}");
        assert!(found.looked_up > 0 && found.recorded > 0, "{scenario}: {found:?}");
    }
    drop(clients);
    running.shutdown();
    assert!(rig.check().ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_money_check_sees_what_somebody_else_has_done_to_a_lock() {
    let mut rig = Rig::new(1, Durability::Os);
    let running = rig.serve();
    let clients = rig.clients(&running).await;
    // Locks only: each stays open until somebody else, under whose eyes it passes, gives it back.
    let text = Scenario::built_in().find(|(name, _)| *name == "lock-release").unwrap().1;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let text = text.split("[[step]]\ndo = \"release\"").next().unwrap();
    let options = Options {
        scenario: Scenario::parse("locks", text).unwrap(),
        checks_money: true,
        stop: Some(stopped),
        ..rig.options("tap", Pace::Max { in_flight: 1 }, 30_000)
    };
    let thief = clients.authorizer.clone();
    let stolen = tokio::spawn(async move {
        let mut tail = thief.tail(ShardId(0), Seq(1));
        loop {
            let (_, record) = tail.next().await.unwrap();
            if record.kind() == Some(Kind::Lock) {
                thief.send(LockRef::new(record.partition, record.id).release()).await.unwrap();
                stop.send(true).unwrap();
                return record.id;
            }
        }
    });
    let report = run(&clients, options).await.unwrap();
    let id = stolen.await.unwrap();
    let found = report.money_check.unwrap();
    assert!(!report.ok && found.lookups.contains(&id.to_string()), "{found:?}");
    assert_eq!((found.replies.as_str(), found.log.as_str()), ("ok", "ok"));
    drop(clients);
    running.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_scenario_runs_and_each_reply_is_in_the_log() {
    let mut rig = Rig::new(2, Durability::Os);
    let running = rig.serve();
    let clients = rig.clients(&running).await;
    for (scenario, pace) in [
        ("tap", Pace::Max { in_flight: 32 }),
        ("lock-release", Pace::Poisson { rate: Rate::Ramp(300.0, 700.0) }),
        ("tap", Pace::Constant { rate: Rate::Steady(500.0) }),
    ] {
        let report = run(&clients, rig.options(scenario, pace, 300)).await.unwrap();
        assert!(report.ok, "{report:?}");
        assert_eq!(report.replied, report.approved, "{report:?}");
        assert_eq!((report.scenario.as_str(), report.durability.as_str()), (scenario, "os"));
        assert_eq!((report.unsent, report.dropped), (0, 0), "{report:?}");
        // On a busy machine the next of these small segments may come late: the engine says so, and nothing is executed.
        assert!(report.refused.keys().all(|code| code == "OVERLOADED"), "{report:?}");
        assert!(report.p50_us > 0.0 && report.p99_us >= report.p50_us && report.max_us >= report.p999_us);
    }
    let acks = read_acks(&rig.acks()).unwrap().len() as u64;
    drop(clients);
    running.shutdown();
    let found = rig.check();
    assert_eq!((found.ok, found.verified), (true, acks), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_when_the_engine_is_killed() {
    for durability in [Durability::Os, Durability::Fsync] {
        let mut rig = Rig::new(2, durability);
        let running = rig.serve();
        let clients = rig.clients(&running).await;
        // Until it has been through all kills.
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let an_hour = 3_600_000;
        let options =
            Options { stop: Some(stopped), ..rig.options("tap", Pace::Max { in_flight: 64 }, an_hour) };
        let acks = rig.acks();
        let load = tokio::spawn(async move { run(&clients, options).await.unwrap() });
        let mut running = Some(running);
        let mut seen = 0;
        for _ in 0..3 {
            // Kill once replies flow, not before.
            seen = wait_for_acks(&acks, seen + 20 * 128).await;
            let server = running.take().unwrap();
            tokio::task::spawn_blocking(move || server.kill()).await.unwrap();
            running = Some(rig.serve());
        }
        wait_for_acks(&acks, seen + 20 * 128).await;
        stop.send(true).unwrap();
        let report = load.await.unwrap();
        assert!(report.ok, "{report:?}");
        running.unwrap().shutdown();
        assert_all_there(&rig.check(), &report);
    }
}

async fn wait_for_acks(path: &Path, bytes: u64) -> u64 {
    loop {
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if length >= bytes {
            return length;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_load_runs_on_an_embedded_engine() {
    let rig = Rig::new(2, Durability::Os);
    let embedded = Embedded::start(rig.config()).unwrap();
    let client = async |tenant, roles| {
        let caller = Caller { tenant: TenantId(tenant), roles, actor: ActorId(1) };
        let connector = Arc::new(embedded.connector(caller));
        Client::over(connector, surety_client::Options::default(), &[]).await.unwrap()
    };
    let clients = Clients {
        authorizer: client(1, Roles::AUTHORIZER).await,
        settler: None,
        admin: Some(client(0, Roles::ADMIN | Roles::SETTLER).await),
    };
    let report = run(&clients, rig.options("tap", Pace::Max { in_flight: 16 }, 300)).await.unwrap();
    assert!(report.ok && report.replied == report.approved, "{report:?}");
    // However soon the time is over, there is something to judge.
    let at_once = Options { acks: None, ..rig.options("tap", Pace::Max { in_flight: 4 }, 0) };
    let short = run(&clients, at_once).await.unwrap();
    assert!(short.ok && short.payments == 4, "{short:?}");
    drop(clients);
    embedded.shutdown();
    assert_all_there(&rig.check(), &report);
}

/// Replies that are newer than what retention has removed are found; older ones are said to be removed, and nothing is called
/// corrupt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_reads_what_retention_has_left() {
    let rig = Rig::new(1, Durability::Os);
    let config = Config {
        snapshot_records: 2_000,
        retain_records: Some(1_000),
        cursor_records: 1_000,
        ..rig.config()
    };
    let running = Server::start(config).unwrap();
    let clients = rig.clients(&running).await;
    let first_segment = || {
        let mut names: Vec<_> = std::fs::read_dir(rig.data().join("shard-0"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".wal"))
            .collect();
        names.sort_unstable();
        names.into_iter().next()
    };
    let (begin, begun) = (first_segment(), Instant::now());
    while first_segment() == begin {
        assert!(begun.elapsed() < Duration::from_secs(300), "nothing was removed");
        run(&clients, rig.options("lock-release", Pace::Max { in_flight: 64 }, 200)).await.unwrap();
        // Snapshots get their turn: on a busy machine a load without pauses would always be ahead of them.
        let paused = Instant::now();
        while first_segment() == begin && paused.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    std::fs::remove_file(rig.acks()).unwrap();
    let report = run(&clients, rig.options("lock-release", Pace::Max { in_flight: 4 }, 20)).await.unwrap();
    drop(clients);
    running.shutdown();
    let found = rig.check();
    assert!(found.ok && found.verified >= report.replied, "{found:?}");
}

/// The check finds what it is for: a log that lost its end, an acknowledgement of another time, one too many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_sees_what_is_altered() {
    let mut rig = Rig::new(1, Durability::Os);
    let running = rig.serve();
    let clients = rig.clients(&running).await;
    let mut acks = Vec::new();
    // The sixth is altered below; one run may be too short for it.
    while acks.len() < 6 {
        run(&clients, rig.options("tap", Pace::Max { in_flight: 4 }, 100)).await.unwrap();
        acks = read_acks(&rig.acks()).unwrap();
    }
    drop(clients);
    running.shutdown();
    assert!(rig.check().ok);
    let alter = |change: &dyn Fn(&mut Vec<Reply>), expect: (u64, u64, u64)| {
        let mut altered = acks.clone();
        change(&mut altered);
        let bytes: Vec<u8> = altered.iter().flat_map(Reply::to_bytes).collect();
        std::fs::write(rig.acks(), bytes).unwrap();
        let found = rig.check();
        assert_eq!((found.missing, found.different, found.doubled), expect, "{found:?}");
        assert!(!found.ok && !found.faults.is_empty());
    };
    alter(&|acks| acks[5].approved.0 += 1, (0, 1, 0));
    alter(&|acks| acks[5].time.0 += 1, (0, 1, 0));
    alter(&|acks| acks[5].seq.0 += 1 << 40, (1, 0, 0));
    alter(&|acks| acks.push(acks[5]), (0, 0, 1));
}
