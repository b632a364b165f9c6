//! What an operator watches: the metrics of a real engine under load, as Prometheus' own tools and a real Prometheus see them, and the
//! files in `deploy/` that read them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::answerer::{Process, World};
use crate::gateway::{CANARY, LINK, connect, sent};
use crate::process::{Data, Engine, Front, ctl, spawn, surety};
use crate::rest::{self, App, PATIENT, Tenant};

/// How long a scrape or a line may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).unwrap()
}

/// Whether Prometheus is here. Says loudly if it is not.
fn has_prometheus() -> bool {
    let is_here = Command::new("promtool").arg("--version").output().is_ok();
    if !is_here {
        eprintln!("SKIPPED: no Prometheus here (Debian's package `prometheus`), so its tools check nothing");
    }
    is_here
}

/// The body of an answer.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A running engine with an admin listener and a load on it.
struct Watched {
    engine: Engine,
    load: Child,
    _data: Data,
}

impl Watched {
    fn start() -> Self {
        let data = Data::init(1);
        let engine = Engine::start_at(
            &data,
            "fsync",
            "127.0.0.1:0",
            &["--admin", "127.0.0.1:0", "--history", "--otlp", "http://127.0.0.1:9"],
        );
        let load = ["load", "--data", data.path(), "--scenario", "tap", "--rate", "200", "--duration", "60s"];
        let load = spawn(&load);
        let watched = Self { engine, load, _data: data };
        let begun = Instant::now();
        while !watched.metrics().contains("op=\"lock\",code=\"APPROVED\"") {
            assert!(begun.elapsed() < PATIENCE, "no lock was approved: {}", watched.metrics());
            std::thread::sleep(Duration::from_millis(100));
        }
        watched
    }

    fn admin(&self) -> &str {
        self.engine.ready["admin"].as_str().unwrap()
    }

    fn metrics(&self) -> String {
        get(self.admin(), "/metrics")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.load.kill();
        let _ = self.load.wait();
    }
}

/// Words of a text that are names of metrics.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = words.filter(|word| word.starts_with("surety_") || word.starts_with("process_"));
    let base = |word: &str| {
        let suffixes = ["_bucket", "_sum", "_count"];
        suffixes.iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word).to_owned()
    };
    ours.map(base).collect()
}

/// Lines of the rules that begin with a key, without it.
fn values_of<'a>(rules: &'a str, key: &str) -> Vec<&'a str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix(key)).collect()
}

/// What stands beside an engine, each with something to tell: a settler and a certificate service over a chain, and a front door with a link
/// and applications.
struct Beside {
    settler: String,
    certifier: String,
    gateway: String,
    world: World,
    _processes: [Process; 2],
    front: Front,
    _directory: tempfile::TempDir,
}

impl Beside {
    fn start() -> Self {
        let world = World::start();
        let (settler, certifier) = (world.settler(), world.certifier());
        let directory = tempfile::tempdir().unwrap();
        let tenant = Tenant::new(None);
        std::fs::write(directory.path().join("acme.key"), "5a".repeat(32)).unwrap();
        let file = rest::settings(directory.path(), LINK, PATIENT, std::slice::from_ref(&tenant));
        let front = Front::start(&world.data, &file);
        let address = |ready: &Value| ready["metrics"].as_str().unwrap().to_owned();
        let beside = Self {
            settler: address(&settler.ready),
            certifier: address(&certifier.ready),
            gateway: address(&front.ready),
            world,
            _processes: [settler, certifier],
            front,
            _directory: directory,
        };
        beside.work(&tenant);
        beside
    }

    /// One of each: a certified lock that is credited on chain, a payment by a card, a message that does not read, requests over HTTP.
    fn work(&self, tenant: &Tenant) {
        self.world.consume(self.world.certified_lock());
        self.world.mine_until(|| self.world.credit() > 0);
        let mut host = connect(&self.front);
        host.sign_on();
        host.pay_to(b"0100", CANARY, &sent(), "7", "501");
        host.expect("0110", "00");
        host.pay_to(b"0100", CANARY, "1399250000", "8", "501");
        host.expect("0110", "30");
        let app = App::new(&self.front, tenant);
        assert_eq!(app.get("/v1/partitions/0:1").0, 200);
        assert_eq!(app.get("/v1/locks/none").0, 400);
        assert_eq!(app.get("/v1/made-up/4929").0, 404);
        // Numbers are told as of the last turn.
        let is_told = || {
            get(&self.settler, "/metrics").contains("\nsurety_settler_batch_seq{state=\"sealed\"} ")
                && value(&self.settler, "surety_settler_transactions_total{outcome=\"mined\"}") > 0.0
                && value(&self.settler, "surety_settler_batch_seq{state=\"final\"}") > 0.0
                && value(&self.certifier, "surety_certifier_signed_total") > 0.0
        };
        self.world.mine_until(is_told);
    }

    /// Everything that all of them tell.
    fn metrics(&self) -> String {
        [&self.settler, &self.certifier, &self.gateway].map(|address| get(address, "/metrics")).concat()
    }
}

/// A number as it is told now; 0 if it is not.
pub(crate) fn value(address: &str, name: &str) -> f64 {
    let text = get(address, "/metrics");
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    let labels = labels.trim_end_matches('}');
    let is_meant = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
    };
    let number = text.lines().find(is_meant).and_then(|line| line.rsplit(' ').next());
    number.map_or(0.0, |number| number.parse().unwrap())
}

/// All that an engine and the processes beside it tell.
fn all_told() -> String {
    let engine = Watched::start().metrics();
    engine + &Beside::start().metrics()
}

#[test]
fn what_stands_beside_an_engine_tells_how_it_is() {
    let beside = Beside::start();
    for (address, service) in
        [(&beside.settler, "settler"), (&beside.certifier, "certifier"), (&beside.gateway, "gateway")]
    {
        assert_eq!(get(address, "/livez"), "alive\n");
        assert_eq!(get(address, "/readyz"), "ready\n");
        let version: Value = serde_json::from_str(&get(address, "/version")).unwrap();
        assert_eq!(version["service"], service);
        assert!(value(address, "process_open_fds") > 0.0);
    }
    for (address, name) in [
        (&beside.settler, "surety_settler_poster_balance_wei"),
        (&beside.settler, "surety_settler_read_seq{shard=\"0\"}"),
        (&beside.settler, "surety_settler_final_seq{shard=\"0\"}"),
        (&beside.settler, "surety_settler_log_bytes"),
        (&beside.settler, "surety_settler_transactions_total{outcome=\"taken\"}"),
        (&beside.certifier, "surety_certifier_read_seq{shard=\"0\"}"),
        (&beside.certifier, "surety_certifier_shelf_certificates"),
        (&beside.gateway, "surety_iso_messages_total{class=\"authorization\",code=\"00\"}"),
        (&beside.gateway, "surety_iso_messages_total{class=\"authorization\",code=\"30\"}"),
        (&beside.gateway, "surety_iso_messages_total{class=\"network\",code=\"00\"}"),
        (&beside.gateway, "surety_iso_message_duration_seconds_count"),
        (&beside.gateway, "surety_iso_sockets_total"),
        (
            &beside.gateway,
            "surety_rest_requests_total{route=\"/v1/partitions/{id}\",method=\"GET\",status=\"2xx\"}",
        ),
        (
            &beside.gateway,
            "surety_rest_requests_total{route=\"/v1/locks/{id}\",method=\"GET\",status=\"4xx\"}",
        ),
        (&beside.gateway, "surety_rest_requests_total{route=\"other\",method=\"GET\",status=\"4xx\"}"),
        (&beside.gateway, "surety_rest_request_duration_seconds_count"),
    ] {
        assert!(value(address, name) > 0.0, "{name}: {}", get(address, "/metrics"));
    }
    assert_eq!(value(&beside.gateway, "surety_iso_in_flight"), 0.0);
    assert!(!beside.metrics().contains(&CANARY[4..]), "no card is told");
}

#[test]
fn an_address_that_is_taken_is_told_before_anything_is_done() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let file = rest::settings(directory.path(), "", "", &[Tenant::new(None)]);
    // Neither the engine nor the identity is there: that would be told next.
    let run = ["gateway", "run", "--connect", "127.0.0.1:9", "--identity", "none.pem", "--config"];
    surety(&[&run[..], &[file.to_str().unwrap(), "--metrics", &address]].concat()).fails(7, &address);
}

#[test]
fn rules_and_dashboard_name_only_what_is_told() {
    let told: BTreeSet<String> = all_told()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned))
        .collect();
    for file in ["prometheus/surety.rules.yml", "grafana/surety.json"] {
        let named = metrics_in(&read(file));
        assert!(named.len() > 10, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&told).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, and {told:?} is told");
    }
}

#[test]
fn syncs_behind_the_writes_are_timed() {
    let data = Data::init(1);
    let engine = Engine::start_at(&data, "os", "127.0.0.1:0", &["--admin", "127.0.0.1:0"]);
    ctl(&data, &["partition", "create", "0:1"]);
    let begun = Instant::now();
    let counted = || {
        let page = get(engine.ready["admin"].as_str().unwrap(), "/metrics");
        let count = page
            .lines()
            .find_map(|line| line.strip_prefix("surety_sync_duration_seconds_count{shard=\"0\"} "));
        count.unwrap().parse::<f64>().unwrap()
    };
    while counted() < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(100), "nothing is synced");
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn no_label_names_what_there_may_be_many_of() {
    // Links are those of a command line.
    let allowed = [
        "shard", "op", "code", "asset", "state", "le", "version", "protocol", "outcome", "class", "reason",
        "route", "method", "status", "link", "listen",
    ];
    for line in all_told().lines().filter(|line| !line.starts_with('#')) {
        let Some((_, rest)) = line.split_once('{') else { continue };
        let (labels, _) = rest.rsplit_once('}').unwrap();
        for label in labels.split("\",").map(|label| label.split('=').next().unwrap()) {
            assert!(allowed.contains(&label), "{line}");
        }
    }
}

#[test]
fn each_alert_has_a_paragraph_and_a_case_in_which_it_fires() {
    let (rules, runbook, cases) =
        (read("prometheus/surety.rules.yml"), read("RUNBOOK.md"), read("prometheus/surety.rules.test.yml"));
    let alerts = values_of(&rules, "- alert: ");
    assert!(alerts.len() > 10);
    let links = values_of(&rules, "runbook: ");
    assert_eq!(alerts.len(), links.len());
    for (alert, link) in alerts.iter().zip(links) {
        assert_eq!(link, format!("deploy/RUNBOOK.md#{}", alert.to_lowercase()));
        assert!(runbook.contains(&format!("\n### {alert}\n\n*")), "no paragraph on {alert}");
        for case in ["fires", "is silent"] {
            assert!(
                cases.contains(&format!("  - name: {alert} {case}\n")),
                "no case in which {alert} {case}"
            );
        }
    }
    assert_eq!(runbook.matches("\n### ").count(), alerts.len(), "no paragraph without an alert");
}

#[test]
fn the_dashboard_is_what_grafana_reads() {
    let dashboard: Value = serde_json::from_str(&read("grafana/surety.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are told apart");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
    }
}

#[test]
fn prometheus_tools_find_nothing_wrong() {
    if !has_prometheus() {
        return;
    }
    let watched = Watched::start();
    let promtool = |args: &[&str], input: &str| {
        let mut command = Command::new("promtool");
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said));
    };
    let path = |name: &str| deploy(name).to_str().unwrap().to_owned();
    promtool(&["check", "metrics"], &watched.metrics());
    let beside = Beside::start();
    for address in [&beside.settler, &beside.certifier, &beside.gateway] {
        promtool(&["check", "metrics"], &get(address, "/metrics"));
    }
    promtool(&["check", "config", "--syntax-only", &path("prometheus/prometheus.yml")], "");
    promtool(&["check", "rules", &path("prometheus/surety.rules.yml")], "");
    promtool(&["test", "rules", &path("prometheus/surety.rules.test.yml")], "");
    // Every expression of the dashboard, as a rule, with something in the place of its variables.
    let dashboard: Value = serde_json::from_str(&read("grafana/surety.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    let filled = expressions.map(|text| text.replace("$instance", ".*").replace("$asset", ".*"));
    let rules: Vec<_> = filled
        .enumerate()
        .map(|(number, expr)| serde_json::json!({ "record": format!("panel:{number}"), "expr": expr }))
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dashboard.yml");
    // JSON is YAML.
    fs::write(&file, serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] }).to_string())
        .unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

/// A Prometheus with the configuration of `deploy/`.
struct Prometheus {
    child: Child,
    address: String,
    /// Its configuration and data, for as long as it runs.
    directory: Option<tempfile::TempDir>,
}

impl Prometheus {
    /// Watches these instead of what the configuration names: of the engine, the settler, the certificate service, the front doors.
    fn start(targets: [&str; 4]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = read("prometheus/prometheus.yml")
            .replace("interval: 15s", "interval: 1s")
            .replace("- surety.rules.yml", &format!("- {}", deploy("prometheus/surety.rules.yml").display()));
        for (port, target) in (9400..).zip(targets) {
            let shipped = format!("127.0.0.1:{port}]");
            assert!(config.contains(&shipped), "{config}");
            config = config.replace(&shipped, &format!("{target}]"));
        }
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        // Prometheus takes no port 0: one that is free now, and another if somebody was quicker.
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let mut command = Command::new("prometheus");
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"));
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut prometheus = Self { child, address, directory: None };
            if prometheus.is_ready() {
                prometheus.directory = Some(directory);
                return prometheus;
            }
        }
        panic!("no Prometheus on any of five ports");
    }

    /// Waits until it listens; false if it has ended instead.
    fn is_ready(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(&self.address).is_ok() {
                // It may be somebody else who listens there: then this one is about to end.
                std::thread::sleep(Duration::from_secs(2));
                return self.child.try_wait().unwrap().is_none();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    }

    /// The value of an expression, once there is one that will do.
    fn wait_for(&self, expression: &str, will_do: impl Fn(f64) -> bool) {
        let begun = Instant::now();
        let mut answer = String::new();
        while begun.elapsed() < PATIENCE {
            if TcpStream::connect(&self.address).is_ok() {
                answer = get(&self.address, &format!("/api/v1/query?query={expression}"));
                let value: Option<Value> = serde_json::from_str(&answer).ok();
                let value =
                    value.and_then(|value| value["data"]["result"][0]["value"][1].as_str()?.parse().ok());
                if value.is_some_and(&will_do) {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("{expression}: {answer}");
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_prometheus_scrapes_an_engine_under_load() {
    if !has_prometheus() {
        return;
    }
    let watched = Watched::start();
    let beside = Beside::start();
    let prometheus =
        Prometheus::start([watched.admin(), &beside.settler, &beside.certifier, &beside.gateway]);
    prometheus.wait_for("sum(up)", |up| up == 4.0);
    for name in
        ["surety_settler_batch_seq", "surety_certifier_shelf_certificates", "surety_iso_messages_total"]
    {
        prometheus.wait_for(&format!("max({name})"), |number| number > 0.0);
    }
    prometheus.wait_for("sum(surety_rest_requests_total)", |requests| requests >= 3.0);
    prometheus.wait_for("surety_ready", |ready| ready == 1.0);
    prometheus.wait_for("sum(surety_requests_total)", |requests| requests > 0.0);
    // A live lock is gone within milliseconds; one that has ended is kept for minutes.
    prometheus.wait_for("sum(surety_kept_locks)", |locks| locks > 0.0);
    prometheus.wait_for("sum(surety_collateral_base_units%7Bstate=%22free%22%7D)", |free| free > 0.0);
    // A start that moves from scrape to scrape would wake somebody for each.
    prometheus.wait_for("min(count_over_time(process_start_time_seconds%5B1m%5D))", |scrapes| scrapes >= 5.0);
    prometheus.wait_for("sum(changes(process_start_time_seconds%5B1m%5D))", |changes| changes == 0.0);
    let rules: Value = serde_json::from_str(&get(&prometheus.address, "/api/v1/rules")).unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    let alerts = read("prometheus/surety.rules.yml").matches("- alert: ").count();
    assert_eq!(rules.len(), alerts);
    assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
}
