//! `gateway run` with `[rest]`: applications, the process in front of the engine, and kills of either in between.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};
use surety_protocol::{Id, Time};

use crate::gateway::{LINK, SUPPLIER};
use crate::process::{Data, Engine, Front, ctl, surety};

const PAYMENTS: usize = 24;
/// However long an engine or a front door takes to come back here.
const PATIENCE: Duration = Duration::from_secs(100);

/// A tenant in the settings: a file of an identity or none, its token, and what else is said of it.
#[derive(Clone)]
pub(crate) struct Tenant {
    identity: Option<String>,
    pub(crate) token: String,
    hash: String,
    more: String,
}

impl Tenant {
    /// With a new token.
    pub(crate) fn new(identity: Option<&str>) -> Self {
        let drawn = surety(&["gateway", "token"]).exits(0).json();
        let text = |key: &str| drawn[key].as_str().unwrap().to_owned();
        let (token, hash) = (text("token"), text("hash"));
        Self { identity: identity.map(str::to_owned), token, hash, more: String::new() }
    }

    /// The same tenant, with another token.
    pub(crate) fn renewed(&self) -> Self {
        Self { identity: self.identity.clone(), ..Self::new(None) }
    }

    fn to_toml(&self) -> String {
        let identity = self.identity.as_ref().map(|file| format!("identity = \"{file}\"\n"));
        let Self { hash, more, .. } = self;
        format!(
            "[[rest.tenant]]\n{}token = [{{ name = \"shop\", hash = \"{hash}\" }}]\n{more}\n",
            identity.unwrap_or_default()
        )
    }
}

/// For tests in which no answer may be given up, however busy the disk is.
pub(crate) const PATIENT: &str = "limits = { answer_ms = 50000 }";

/// Writes the file of a front door for these tenants; `before` stands before its table, `inside` in it.
pub(crate) fn settings(directory: &Path, before: &str, inside: &str, tenants: &[Tenant]) -> PathBuf {
    let mut text = format!(
        "{before}\n[rest]\nlisten = \"127.0.0.1:0\"\nasset = [{{ name = \"AMP\", id = 1, decimals = 18, scale = 2 }}]\n{inside}\n"
    );
    text.extend(tenants.iter().map(Tenant::to_toml));
    assert!(!tenants.iter().any(|tenant| text.contains(&tenant.token)), "only hashes are kept");
    let file = directory.join("front.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// An application.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) address: String,
    pub(crate) token: String,
}

/// An answer: status, body, and whether it is that of an earlier request.
pub(crate) type Answer = (u16, Value, bool);

impl App {
    pub(crate) fn new(front: &Front, tenant: &Tenant) -> Self {
        Self { address: front.ready["rest"].as_str().unwrap().to_owned(), token: tenant.token.clone() }
    }

    /// Asks once. None if there is no whole reply.
    pub(crate) fn try_ask(&self, method: &str, path: &str, key: &str, body: &Value) -> Option<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: door\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let (head, body) = reply.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let is_replayed = head.to_lowercase().contains("idempotent-replayed: true");
        Some((status, serde_json::from_str(body).ok()?, is_replayed))
    }

    pub(crate) fn ask(&self, method: &str, path: &str, key: &str, body: &Value) -> Answer {
        self.try_ask(method, path, key, body).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let (status, body, _) = self.ask("GET", path, "", &Value::Null);
        (status, body)
    }

    /// Changes a lock, under a new key.
    #[track_caller]
    pub(crate) fn change(&self, lock: &str, what: &str, body: &Value) -> Value {
        let (status, change, _) = self.ask("POST", &format!("/v1/locks/{lock}/{what}"), &key(), body);
        assert_eq!((status, &change["status"]), (200, &json!("approved")), "{change}");
        change
    }

    /// Locks, under the same key until there is an answer.
    fn lock(&self, key: &str) -> (Value, bool) {
        let begun = Instant::now();
        loop {
            match self.try_ask("POST", "/v1/locks", key, &ten()) {
                Some((200, lock, is_replayed)) => return (lock, is_replayed),
                // Only what says that it may be sent again.
                Some((status, problem, _)) => assert_eq!(problem["retryable"], true, "{status} {problem}"),
                None => {}
            }
            assert!(begun.elapsed() < PATIENCE, "{key} was not answered");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn held(&self) -> Value {
        let begun = Instant::now();
        loop {
            match self.get("/v1/partitions/0:1") {
                (200, shown) => return shown["held"].clone(),
                (status, problem) => assert_eq!(problem["retryable"], true, "{status} {problem}"),
            }
            assert!(begun.elapsed() < PATIENCE, "the partition was not shown");
        }
    }
}

/// A lock of ten.
fn ten() -> Value {
    json!({"partition": "0:1", "amount": "10", "asset": "AMP", "merchant": 5})
}

/// A key of now, like no other.
pub(crate) fn key() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = Time(u64::try_from(now.as_nanos()).unwrap());
    let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
    Id::from_parts(at, u128::from(std::process::id()) << 40 | u128::from(drawn)).to_string()
}

pub(crate) fn engine(data: &Data) -> Engine {
    furnished(data, Engine::start(data, "fsync"))
}

/// With a partition, and a tenant that may use it.
fn furnished(data: &Data, engine: Engine) -> Engine {
    ctl(data, &["partition", "create", "0:1"]);
    ctl(data, &["policy", "set", "0:1", "life_default=1h"]);
    ctl(data, &["tenant", "set", "1"]);
    ctl(data, &["grant", "0:1", "1", "authorize,settle,consume,read"]);
    ctl(data, &["deposit", "0:1", "1e21", "--supplier", SUPPLIER, "--nonce", "1"]);
    engine
}

/// The identity of another tenant, which has no right to the partition.
pub(crate) fn stranger(data: &Data, directory: &Path) {
    ctl(data, &["tenant", "set", "2"]);
    let out = directory.join("two.pem");
    let out = out.to_str().unwrap();
    let own =
        ["cert", "client", "--data", data.path(), "--tenant", "2", "--role", "authorizer", "--out", out];
    surety(&own).exits(0);
}

#[test]
fn an_application_pays_and_another_tenant_sees_nothing() {
    let data = Data::init(1);
    let engine = engine(&data);
    let directory = tempfile::tempdir().unwrap();
    stranger(&data, directory.path());
    let tenants = [Tenant::new(None), Tenant::new(Some("two.pem"))];
    let front = Front::start(&data, &settings(directory.path(), "", PATIENT, &tenants));
    assert!(front.ready["link"].is_null() && front.ready["tenant"] == 1, "{}", front.ready);
    let [app, other] = tenants.each_ref().map(|tenant| App::new(&front, tenant));
    let key = key();
    let (mut lock, is_replayed) = app.lock(&key);
    assert_eq!((&lock["status"], &lock["amount"], is_replayed), (&json!("approved"), &json!("10.00"), false));
    let (again, is_replayed) = app.lock(&key);
    // The engine tells a repeat all but the moment.
    assert!(lock.as_object_mut().unwrap().remove("created_ms").is_some());
    assert!(is_replayed && again == lock, "{again}");
    let (status, conflict, _) = app.ask("POST", "/v1/locks", &key, &{
        let mut body = ten();
        body["amount"] = json!("11");
        body
    });
    assert_eq!((status, &conflict["code"]), (409, &json!("ID_CONFLICT")), "{conflict}");
    let change = app.change(&key, "capture", &json!({"amount": "7.50", "asset": "AMP"}));
    assert_eq!(change["remaining"], "2.50");
    // Of another tenant it is not there, whatever is asked.
    let path = format!("/v1/locks/{key}");
    let release = |query: &str| {
        let (status, problem, _) =
            other.ask("POST", &format!("{path}/release{query}"), &self::key(), &json!({}));
        (status, problem)
    };
    let foreign = [
        other.get(&path),
        other.get(&format!("{path}?partition=0:1")),
        other.get("/v1/partitions/0:1"),
        release("?partition=0:1"),
        release(""),
    ];
    let foreign = foreign.each_ref().map(|(status, problem)| (*status, problem["code"].as_str().unwrap()));
    let (lock, partition) = ((404, "UNKNOWN_LOCK"), (404, "UNKNOWN_PARTITION"));
    assert_eq!(foreign, [lock, partition, partition, partition, lock]);
    // Its lists are empty when the first tenant's are not.
    let begun = Instant::now();
    while app.get("/v1/locks").1["locks"].as_array().is_none_or(Vec::is_empty) {
        assert!(begun.elapsed() < PATIENCE, "the lock is listed");
        std::thread::sleep(Duration::from_millis(20));
    }
    for (path, list) in [("/v1/locks", "locks"), ("/v1/events", "events"), ("/v1/partitions", "partitions")] {
        let (status, page) = other.get(path);
        assert_eq!((status, &page[list]), (200, &json!([])), "{path} {page}");
    }
    let released = app.change(&key, "release", &json!({}));
    assert_eq!((&released["state"], &app.held()), (&json!("final"), &json!("0.00")));
    let logs = front.terminate();
    assert!(!tenants.iter().any(|tenant| logs.contains(&tenant.token)), "no token is written");
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
}

#[test]
fn kills_of_engine_and_front_door_lose_and_double_nothing() {
    let data = Data::init(1);
    let engine = engine(&data);
    let listen = engine.listen().to_owned();
    let directory = tempfile::tempdir().unwrap();
    let tenant = Tenant::new(None);
    let config = settings(directory.path(), "", "", std::slice::from_ref(&tenant));
    let front = Front::start(&data, &config);
    let app = App::new(&front, &tenant);
    let keys: Vec<String> = (0..PAYMENTS).map(|_| key()).collect();
    // All at once; the engine is killed when a few have their answer, and comes back.
    let workers: Vec<_> = keys
        .chunks(4)
        .map(|keys| {
            let (keys, app) = (keys.to_vec(), app.clone());
            std::thread::spawn(move || keys.iter().map(|key| app.lock(key).0).collect::<Vec<_>>())
        })
        .collect();
    app.lock(&keys[0]);
    engine.kill();
    let engine = Engine::start_at(&data, "fsync", &listen, &[]);
    for lock in workers.into_iter().flat_map(|worker| worker.join().unwrap()) {
        assert_eq!((&lock["status"], &lock["amount"]), (&json!("approved"), &json!("10.00")));
    }
    // A front door that is killed has kept nothing that a repeat would need.
    front.kill();
    let front = Front::start(&data, &config);
    let app = App::new(&front, &tenant);
    for key in &keys {
        let (lock, is_replayed) = app.lock(key);
        assert!(is_replayed && lock["status"] == "approved", "{lock}");
    }
    assert_eq!(app.held(), format!("{}.00", 10 * PAYMENTS).as_str());
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
}

#[test]
fn nothing_is_approved_while_the_engine_is_away() {
    let data = Data::init(1);
    let engine = engine(&data);
    let listen = engine.listen().to_owned();
    let directory = tempfile::tempdir().unwrap();
    let tenant = Tenant::new(None);
    let limits = "limits = { answer_ms = 700 }";
    let config = settings(directory.path(), "", limits, std::slice::from_ref(&tenant));
    let front = Front::start(&data, &config);
    let app = App::new(&front, &tenant);
    let (before, during) = (key(), key());
    app.lock(&before);
    engine.kill();
    // Also what was approved before is not said to be so now: it cannot be known.
    for key in [&before, &during] {
        let (status, problem, _) = app.ask("POST", "/v1/locks", key, &ten());
        assert!(matches!(status, 503 | 504) && problem["retryable"] == true, "{status} {problem}");
        assert!(problem["status"] != "approved", "{problem}");
    }
    let engine = Engine::start_at(&data, "fsync", &listen, &[]);
    assert!(app.lock(&before).1, "the first answer again");
    assert_eq!(app.lock(&during).0["status"], "approved");
    assert_eq!(app.held(), "20.00");
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn both_front_doors_open_from_one_file_and_read_it_again() {
    let data = Data::init(1);
    let engine = engine(&data);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    stranger(&data, directory);
    std::fs::write(directory.join("acme.key"), "5a".repeat(32)).unwrap();
    let tenants = [Tenant::new(None), Tenant::new(Some("two.pem"))];
    let front = Front::start(&data, &settings(directory, LINK, "", &tenants));
    assert!(front.ready["listen"].is_string() && front.ready["link"] == "acme", "{}", front.ready);
    let apps = tenants.each_ref().map(|tenant| App::new(&front, tenant));
    let status = |app: &App| app.get("/v1/locks").0;
    assert_eq!(apps.each_ref().map(status), [200, 200]);
    let reload = |before: &str, inside: &str, tenants: &[Tenant]| {
        settings(directory, before, inside, tenants);
        front.signal(Signal::HUP);
    };
    // A token of one tenant that would be the other's: tenants in another order, or another identity under the same name.
    let [one, two] = tenants.clone();
    reload(LINK, "", &[two.clone(), one.clone()]);
    front.says("the identities of `rest.tenant` change by a new start alone");
    let kept = std::fs::read(directory.join("two.pem")).unwrap();
    std::fs::copy(data.file("pki").join("authorizer.pem"), directory.join("two.pem")).unwrap();
    reload(LINK, "", &tenants);
    front.says("`rest.tenant` cannot change");
    std::fs::write(directory.join("two.pem"), kept).unwrap();
    reload(LINK, "", &tenants[..1]);
    front.says("the identities of `rest.tenant` change by a new start alone");
    reload(LINK, "", &[one.clone(), Tenant { hash: one.hash.clone(), ..two.clone() }]);
    front.says("is there twice");
    reload("", "", &tenants);
    front.says("a link is opened and closed by a new start alone");
    reload(LINK, "limits = { depth = 3 }", &tenants);
    front.says("`rest.limits` cannot change");
    assert_eq!(apps.each_ref().map(status), [200, 200], "all is as it was");
    // A token that was renewed.
    let renewed = two.renewed();
    reload(LINK, "", &[one, renewed.clone()]);
    front.says("settings were read again\",\"door\":\"REST\"");
    let begun = Instant::now();
    while status(&App::new(&front, &renewed)) != 200 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(apps.each_ref().map(status), [200, 401]);
    // What is wrong with one front door is of no concern to the other: a token that was withdrawn does not go on.
    let [one, _] = tenants.clone();
    reload(&LINK.replace("profile = \"ascii\"", "profile = \"none\""), "", &[renewed.clone(), one.clone()]);
    front.says("unknown variant");
    front.says("the identities of `rest.tenant` change by a new start alone");
    let last = renewed.renewed();
    reload(&LINK.replace("profile = \"ascii\"", "profile = \"none\""), "", &[one, last.clone()]);
    front.says("unknown variant");
    front.says("settings were read again\",\"door\":\"REST\"");
    assert_eq!([renewed, last].map(|tenant| status(&App::new(&front, &tenant))), [401, 200]);
    reload(LINK, "limits = { depht = 3 }", &tenants);
    front.says("settings were read again\",\"door\":\"ISO 8583\"");
    front.says("unknown field");
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

/// Makes a file into a pipe: whoever reads it waits until all that stood in it is written again, which the result does.
fn held_back(file: &Path) -> impl FnOnce(&dyn Fn()) + use<> {
    let content = std::fs::read(file).unwrap();
    std::fs::remove_file(file).unwrap();
    mknodat(CWD, file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let file = file.to_owned();
    move |meanwhile| {
        let begun = Instant::now();
        // There is no writing end before somebody reads.
        let end = loop {
            match rustix::fs::open(&file, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()) {
                Ok(end) => break end,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "nobody reads {}: {error}", file.display()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        meanwhile();
        std::fs::File::from(end).write_all(&content).unwrap();
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, content).unwrap();
    }
}

/// True if somebody takes a connection there, and answers or ends it.
fn is_served(address: &str, within: Duration) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    stream.set_read_timeout(Some(within)).unwrap();
    // No message and no request: either door ends the connection over it.
    stream.write_all(b"0000 nothing\r\n\r\n").unwrap();
    let read = stream.read(&mut [0; 512]);
    !read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

#[test]
fn neither_front_door_takes_anybody_before_the_other_can() {
    let data = Data::init(1);
    let engine = engine(&data);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    stranger(&data, directory);
    std::fs::write(directory.join("acme.key"), "5a".repeat(32)).unwrap();
    std::fs::write(directory.join("acme.mac"), "5b".repeat(16)).unwrap();
    // Addresses of this process alone: they have to be known before anybody listens there.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let address = |port: u16| format!("127.{high}.{middle}.{low}:{port}");
    let doors = [address(8583), address(8480)];
    let mac = "mac = { algorithm = \"retail\", key_file = \"acme.mac\" }";
    let tenants = [Tenant::new(None), Tenant::new(Some("two.pem"))];
    let config = settings(directory, &format!("{LINK}{mac}\n"), "", &tenants);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("127.0.0.1:0", &doors[0], 1).replacen("127.0.0.1:0", &doors[1], 1);
    std::fs::write(&config, text).unwrap();
    let soon = Duration::from_millis(300);
    // What REST reads late in its opening, then what the link does.
    for late in ["two.pem", "acme.mac"] {
        let go_on = held_back(&directory.join(late));
        let doors_meanwhile = doors.clone();
        let held = std::thread::spawn(move || {
            go_on(&|| {
                let served = doors_meanwhile.each_ref().map(|door| is_served(door, soon));
                assert_eq!(served, [false, false], "while {late} is read");
            });
        });
        let front = Front::start(&data, &config);
        held.join().unwrap();
        assert_eq!(doors.each_ref().map(|door| is_served(door, PATIENCE)), [true, true]);
        front.terminate();
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_front_door_that_is_still_opening_ends_when_it_is_told_to() {
    let data = Data::init(1);
    let engine = engine(&data);
    let directory = tempfile::tempdir().unwrap();
    // Nobody knows whether it will ever answer.
    engine.signal(Signal::STOP);
    let front = Front::begin(&data, &settings(directory.path(), "", "", &[Tenant::new(None)]));
    front.says("learning from the engine");
    front.terminate();
    engine.signal(Signal::CONT);
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

/// A shop's endpoint: it refuses the first delivery, and takes all that come then.
fn endpoint() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, events) = mpsc::channel();
    std::thread::spawn(move || {
        let mut is_first = true;
        for stream in listener.incoming() {
            let Some((mut stream, head, body)) = stream.ok().and_then(delivery) else { continue };
            assert!(head.contains("surety-signature: t="), "{head}");
            let status = if std::mem::take(&mut is_first) { "500 No" } else { "204 Yes" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let body: Value = serde_json::from_str(&body).unwrap();
            if status.starts_with('2')
                && !body["events"].as_array().unwrap().iter().all(|event| sender.send(event.clone()).is_ok())
            {
                return;
            }
        }
    });
    (format!("http://{address}/events"), events)
}

/// Reads one delivery whole; its head in small letters.
fn delivery(mut stream: TcpStream) -> Option<(TcpStream, String, String)> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&part[..count]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        if body.len() >= length.parse().ok()? {
            return Some((stream, head, body.to_owned()));
        }
    }
}

#[test]
fn events_are_carried_to_a_shop_through_a_kill() {
    let data = Data::init(1);
    let engine = engine(&data);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("shop.key"), "5a".repeat(32)).unwrap();
    let (url, events) = endpoint();
    let more = format!("webhook = [{{ name = \"shop\", url = \"{url}\", secret_files = [\"shop.key\"] }}]\n");
    let tenant = Tenant { more, ..Tenant::new(None) };
    let webhooks =
        "webhooks = { state = \"hooks\", allow_private = true, pause_min_ms = 20, pause_max_ms = 100 }";
    let config = settings(directory.path(), "", webhooks, std::slice::from_ref(&tenant));
    let front = Front::start(&data, &config);
    let app = App::new(&front, &tenant);
    let lock = key();
    app.lock(&lock);
    // The kinds of events of the lock, each once, in the order in which they came, until there is this one.
    let mut seen: Vec<(Value, Value)> = Vec::new();
    let mut until = |last: &str| {
        while !seen.iter().any(|(_, kind)| *kind == last) {
            let event = events.recv_timeout(PATIENCE).unwrap();
            let is_new = !seen.iter().any(|(id, _)| *id == event["id"]);
            if is_new && (event["lock"] == lock.as_str() || event["id"] == lock.as_str()) {
                seen.push((event["id"].clone(), event["kind"].clone()));
            }
        }
        seen.iter().map(|(_, kind)| kind.clone()).collect::<Vec<_>>()
    };
    assert_eq!(until("lock"), ["lock"]);
    front.kill();
    let front = Front::start(&data, &config);
    let app = App::new(&front, &tenant);
    app.change(&lock, "capture", &json!({"amount": "4", "asset": "AMP"}));
    app.change(&lock, "release", &json!({}));
    assert_eq!(until("release"), ["lock", "capture", "release"]);
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

/// Every command of the guide, in its order.
#[test]
fn the_guide_does_what_it_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no curl here, so the guide's commands are not run");
        return;
    }
    let data = Data::init(1);
    let engine = furnished(&data, Engine::start_at(&data, "fsync", "127.0.0.1:0", &["--history"]));
    let directory = tempfile::tempdir().unwrap();
    let tenant = Tenant::new(None);
    let front = Front::start(&data, &settings(directory.path(), "", "", std::slice::from_ref(&tenant)));
    let guide = include_str!("../../../rest/GUIDE.md");
    let mut script = "set -eu -o pipefail\n".to_owned();
    let blocks: Vec<&str> =
        guide.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 8);
    script.extend(blocks);
    let ended = Command::new("timeout")
        .args(["100", "bash", "-c", &script])
        .current_dir(directory.path())
        .env("DOOR", format!("http://{}", front.ready["rest"].as_str().unwrap()))
        .env("TOKEN", &tenant.token)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ended.status.success(), "{}\n{}", text(&ended.stdout), text(&ended.stderr));
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_front_door_that_cannot_be_opened_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let data = Data::init(1);
    let tenant = Tenant::new(None);
    let open =
        |file: &Path| surety(&["gateway", "run", "--data", data.path(), "--config", file.to_str().unwrap()]);
    let run = |from: &str, to: &str| {
        let file = settings(directory, "", "", std::slice::from_ref(&tenant));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        std::fs::write(&file, text.replace(from, to)).unwrap();
        open(&file)
    };
    run("listen =", "liste =").fails(2, "unknown field");
    run("scale = 2", "scale = 20").fails(2, "scale <= decimals");
    run("[rest]", "name = \"half a link\"\n[rest]").fails(2, "missing field");
    let engine = engine(&data);
    stranger(&data, directory);
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    run("127.0.0.1:0", &holder.local_addr().unwrap().to_string()).fails(7, "cannot listen");
    let twice = Tenant { identity: Some("two.pem".to_owned()), ..tenant.clone() };
    open(&settings(directory, "", "", &[tenant.clone(), twice])).fails(2, "is there twice");
    let file = settings(directory, LINK, "", std::slice::from_ref(&tenant));
    std::fs::write(directory.join("acme.key"), "5a".repeat(32)).unwrap();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    // A process that would leave out half of what its file says does not begin.
    let iso = format!("1={}", file.to_str().unwrap());
    let args = ["serve", "--data", data.path(), "--listen", "127.0.0.1:0", "--iso", &iso];
    surety(&args).fails(2, "surety gateway run");
}
