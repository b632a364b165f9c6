//! Traces of sampled requests, from an application's request to the log, as another library reads what a collector is sent.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use surety_protocol::Id;
use surety_protocol::trace::{SpanRole, TraceId};

use crate::process::{Data, Engine, Front, ctl, surety};
use crate::rest::{self, App, PATIENT, Tenant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Reads a request of OTLP in hexadecimal digits from each line, and writes its spans, one in a line.
const READER: &str = r#"
import json, sys
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
for line in sys.stdin:
    request = ExportTraceServiceRequest.FromString(bytes.fromhex(line))
    for of_resource in request.resource_spans:
        service = {a.key: a.value.string_value for a in of_resource.resource.attributes}["service.name"]
        for scope in of_resource.scope_spans:
            for span in scope.spans:
                said = {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
                print(json.dumps({
                    "service": service, "trace": span.trace_id.hex(), "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(), "name": span.name, "kind": span.kind,
                    "begun": span.start_time_unix_nano, "ended": span.end_time_unix_nano, "said": said,
                    "status": span.status.code}))
"#;

/// A collector that keeps what it is sent.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let book = bodies.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let book = book.clone();
                // It may stay open for the next.
                std::thread::spawn(move || while keep(&stream, &book).is_some() {});
            }
        });
        Self { url, bodies }
    }

    /// All spans so far.
    fn spans(&self, python: &std::path::Path) -> Vec<Value> {
        let lines: String = self
            .bodies
            .lock()
            .unwrap()
            .iter()
            .map(|body| body.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
            .collect();
        let mut child = Command::new(python)
            .args(["-c", READER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success(), "what was sent does not read");
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Keeps the body of one request. None once there is no other.
fn keep(mut stream: &TcpStream, book: &Mutex<Vec<Vec<u8>>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    let length = head.split_once("content-length: ")?.1.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    book.lock().unwrap().push(body);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

/// A Python that reads OTLP by a library of its own. Says loudly if there is none.
fn python(directory: &std::path::Path) -> Option<std::path::PathBuf> {
    let venv = directory.join("venv");
    let install = format!(
        "python3 -m venv {0} && {0}/bin/pip install -q --disable-pip-version-check opentelemetry-proto==1.45.2",
        venv.display()
    );
    let is_there = Command::new("sh").args(["-c", &install]).status().is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("SKIPPED: no opentelemetry-proto from PyPI here, so nobody reads the traces");
    }
    is_there.then(|| venv.join("bin/python"))
}

#[test]
fn a_request_is_traced_from_the_front_door_to_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let Some(python) = python(directory.path()) else { return };
    let (collector, data) = (Collector::start(), Data::init(1));
    let all = ["--otlp", &collector.url, "--trace-sample", "1"];
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &all);
    furnish(&data);
    let tenant = Tenant::new(None);
    let file = rest::settings(directory.path(), "", PATIENT, std::slice::from_ref(&tenant));
    let front = Front::start_with(&data, &file, &all);
    let app = App::new(&front, &tenant);
    let (paid, declined) = (rest::key(), rest::key());
    let lock = |key: &str, amount: &str| {
        let body = json!({"partition": "0:1", "amount": amount, "asset": "AMP", "merchant": 5});
        app.ask("POST", "/v1/locks", key, &body)
    };
    assert_eq!(lock(&paid, "10").0, 200);
    let change = app.change(&paid, "capture", &json!({"amount": "10", "asset": "AMP"}));
    assert_eq!(change["status"], "approved");
    lock(&declined, "999999999");
    let spans_of = |key: &str| -> BTreeMap<String, Value> {
        let trace = format!("{:032x}", trace_of(key).0);
        let begun = Instant::now();
        loop {
            let spans = collector.spans(&python).into_iter().filter(|span| span["trace"] == trace.as_str());
            let spans: BTreeMap<_, _> = spans.map(|span| (name_of(&span), span)).collect();
            if spans.len() == 6 {
                return spans;
            }
            assert!(begun.elapsed() < PATIENCE, "{spans:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    for (key, code) in [(&paid, "APPROVED"), (&declined, "INSUFFICIENT")] {
        check_tree(key, &spans_of(key), code);
    }
    // A change names its lock.
    let all_spans = collector.spans(&python);
    let of_lock = |span: &&Value| span["said"]["surety.lock"] == paid.as_str() && span["name"] == "capture";
    assert_eq!(all_spans.iter().filter(of_lock).count(), 2, "of the front door, and of the engine");
    let text = serde_json::to_string(&all_spans).unwrap();
    assert!(!text.contains(&tenant.token) && !text.contains("srty_"), "no token is told");
    let logs = front.terminate();
    let line = logs.lines().find(|line| line.contains("answered by the engine") && line.contains(&paid));
    let line: Value = serde_json::from_str(line.expect(&logs)).unwrap();
    let named = ["request", "lock", "tenant", "shard", "op", "code"].map(|key| &line[key]);
    let expected = [json!(paid), json!(paid), json!(1), json!(0), json!("lock"), json!("APPROVED")];
    assert!(named.into_iter().eq(&expected), "{line}");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn an_engine_logs_what_it_traces_with_all_its_ids() {
    let directory = tempfile::tempdir().unwrap();
    let (collector, data) = (Collector::start(), Data::init(1));
    let engine = Engine::start(&data, "fsync");
    furnish(&data);
    assert_eq!(engine.terminate(Signal::TERM), 0);
    let log = directory.path().join("serve.log");
    let args = ["serve", "--data", data.path(), "--listen", "127.0.0.1:0", "--otlp", &collector.url];
    let mut child = Command::new(env!("CARGO_BIN_EXE_surety"))
        .args(args)
        .args(["--trace-sample", "1"])
        .env("SURETY_LOG", "info,server::traces=debug")
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut ready)
        .unwrap();
    let load = ["load", "--data", data.path(), "--scenario", "tap", "--rate", "20", "--duration", "1s"];
    surety(&load).exits(0);
    crate::process::send(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let logs = std::fs::read_to_string(log).unwrap();
    let lines = logs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let answered: Vec<Value> = lines.filter(|line| line["message"] == "answered").collect();
    let of_op =
        |op: &str| answered.iter().find(|line| line["op"] == op).unwrap_or_else(|| panic!("no {op}: {logs}"));
    let (lock, capture) = (of_op("lock"), of_op("capture"));
    assert_eq!(lock["request"], lock["lock"]);
    assert!(capture["request"] != capture["lock"], "{capture}");
    for line in [lock, capture] {
        assert_eq!((line["code"].as_str(), line["shard"].as_u64()), (Some("APPROVED"), Some(0)), "{line}");
        assert!(line["tenant"].as_u64().is_some() && line["seq"].as_u64() > Some(0), "{line}");
    }
}

/// Sender and receiver name it alike: told apart by their service.
fn name_of(span: &Value) -> String {
    format!("{}/{}", span["service"].as_str().unwrap(), span["name"].as_str().unwrap())
}

fn trace_of(key: &str) -> TraceId {
    let digits: String = key.chars().filter(|letter| *letter != '-').collect();
    TraceId::of(Id(u128::from_str_radix(&digits, 16).unwrap()))
}

fn check_tree(key: &str, spans: &BTreeMap<String, Value>, code: &str) {
    let span_id = |role| format!("{:016x}", trace_of(key).span(role).0);
    let (client, engine) = (span_id(SpanRole::Client), span_id(SpanRole::Engine));
    let nanos = |span: &Value, end: &str| span[end].as_u64().unwrap();
    for (name, role, parent, kind) in [
        ("surety-gateway/lock", SpanRole::Client, "", 3),
        ("surety/lock", SpanRole::Engine, client.as_str(), 2),
        ("surety/decide", SpanRole::Decide, engine.as_str(), 1),
        ("surety/write", SpanRole::Write, engine.as_str(), 1),
        ("surety/sync", SpanRole::Sync, engine.as_str(), 1),
        ("surety/reply", SpanRole::Reply, engine.as_str(), 1),
    ] {
        let span = spans.get(name).unwrap_or_else(|| panic!("no {name}: {spans:?}"));
        assert_eq!(span["span"], span_id(role), "{name}");
        assert_eq!(span["parent"], parent, "{name}");
        assert_eq!((span["kind"].as_u64(), span["status"].as_u64()), (Some(kind), Some(0)), "{name}");
        assert!(nanos(span, "begun") <= nanos(span, "ended"), "{name}");
        let around = &spans["surety/lock"];
        if parent == engine {
            assert!(nanos(span, "begun") >= nanos(around, "begun"), "{name}");
            assert!(
                nanos(span, "ended") <= nanos(around, "ended"),
                "{name}: with fsync a reply waits for all"
            );
        }
    }
    for name in ["surety-gateway/lock", "surety/lock"] {
        let said = &spans[name]["said"];
        assert_eq!((&said["surety.request"], &said["surety.lock"]), (&json!(key), &json!(key)), "{name}");
        assert_eq!(said["surety.code"], code, "{name}");
    }
    let said = &spans["surety/lock"]["said"];
    assert_eq!(said["surety.tenant"], 1);
    assert!(said["surety.seq"].as_u64().unwrap() > 1);
}

fn furnish(data: &Data) {
    ctl(data, &["partition", "create", "0:1"]);
    ctl(data, &["policy", "set", "0:1", "life_default=1h"]);
    ctl(data, &["tenant", "set", "1"]);
    ctl(data, &["grant", "0:1", "1", "authorize,settle,consume,read"]);
    ctl(data, &["deposit", "0:1", "1e21", "--supplier", crate::gateway::SUPPLIER, "--nonce", "1"]);
}

#[test]
fn who_takes_no_traces_holds_up_nothing() {
    // Nobody listens there.
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let data = Data::init(1);
    let more = ["--otlp", &url, "--trace-sample", "1", "--admin", "127.0.0.1:0"];
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &more);
    let load =
        ["load", "--data", data.path(), "--scenario", "tap", "--rate", "50", "--duration", "2s", "--check"];
    surety(&load).exits(0);
    let admin = engine.ready["admin"].as_str().unwrap();
    let begun = Instant::now();
    while crate::watch::value(admin, "surety_spans_lost_total") == 0.0 {
        assert!(begun.elapsed() < PATIENCE, "what is lost is told");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(crate::watch::value(admin, "surety_spans_sent_total"), 0.0);
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_share_or_a_collector_that_is_none_is_told() {
    surety(&["serve", "--data", "x", "--otlp", "collector:4317"]).fails(2, "http://HOST:PORT");
    surety(&["serve", "--data", "x", "--trace-sample", "2"]).fails(2, "0.001");
    let printed =
        surety(&["serve", "--otlp", "http://127.0.0.1:4318", "--trace-sample", "0.25", "--print-config"]);
    let printed = printed.exits(0).stdout;
    assert!(
        printed.contains("[trace]") && printed.contains("/v1/traces") && printed.contains("0.25"),
        "{printed}"
    );
}
