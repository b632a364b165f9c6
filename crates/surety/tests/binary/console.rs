//! The console and `top` of a real engine: started, found, signed in to, refused, and told that a certificate is revoked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use server::pki::DevelopmentPki;

use crate::process::{Data, Engine, spawn, surety, surety_with};

const PATIENCE: Duration = Duration::from_secs(60);

/// Status and body of an answer, and the cookie that it sets.
pub(crate) fn ask(
    base: &str,
    method: &str,
    path: &str,
    (cookie, token): (&str, &str),
    body: &str,
) -> (u16, String, Option<String>) {
    let host = base.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "{method} /console/api/{path} HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\nconnection: close\r\n\
         cookie: {cookie}\r\nx-surety-token: {token}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = cookie.map(|line| line.split(';').next().unwrap().to_owned());
    (status, body.to_owned(), cookie)
}

#[test]
fn a_link_of_ctl_opens_the_console_until_its_certificate_is_revoked() {
    let data = Data::init(1);
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &["--console", "127.0.0.1:0"]);
    let base = engine.ready["console"].as_str().unwrap().to_owned();
    let link =
        surety(&["ctl", "--data", data.path(), "--json", "console-link", "--as", "reader"]).exits(0).json();
    let (address, fragment) = link["url"].as_str().unwrap().split_once('#').unwrap();
    assert_eq!(address, base);
    let (status, body, cookie) =
        ask(&base, "POST", "session", ("", ""), &json!({ "link": fragment }).to_string());
    assert_eq!(status, 200, "{body}");
    let cookie = cookie.unwrap();
    let me: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&me["tenant"], &me["roles"]), (&json!(0), &json!(["reader"])));
    let token = me["token"].as_str().unwrap();
    assert_eq!(ask(&base, "GET", "overview", (&cookie, token), "").0, 200);
    assert_eq!(ask(&base, "GET", "overview", (&cookie, ""), "").0, 401, "a cookie alone opens nothing");

    let pki = DevelopmentPki::open(&data.file("pki")).unwrap();
    let identity = std::fs::read_to_string(data.file("pki").join("reader.pem")).unwrap();
    std::fs::write(data.file("pki").join("revoked.pem"), pki.revocations(&[identity]).unwrap()).unwrap();
    engine.signal(Signal::HUP);
    let begun = Instant::now();
    while ask(&base, "GET", "overview", (&cookie, token), "").0 != 401 {
        assert!(begun.elapsed() < PATIENCE, "a revoked certificate is still signed in");
    }
    surety(&["ctl", "--data", data.path(), "console-link", "--as", "reader"]).fails(9, "reach");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

/// A way to read pages of the console of a running engine as its operator's reader.
pub(crate) fn signed_in(data: &Data, engine: &Engine) -> impl Fn(&str) -> Value {
    let base = engine.ready["console"].as_str().unwrap().to_owned();
    let link =
        surety(&["ctl", "--data", data.path(), "--json", "console-link", "--as", "reader"]).exits(0).json();
    let (_, fragment) = link["url"].as_str().unwrap().split_once('#').unwrap();
    let (status, body, cookie) =
        ask(&base, "POST", "session", ("", ""), &json!({ "link": fragment }).to_string());
    assert_eq!(status, 200, "{body}");
    let me: Value = serde_json::from_str(&body).unwrap();
    let (cookie, token) = (cookie.unwrap(), me["token"].as_str().unwrap().to_owned());
    move |path| {
        let (status, body, _) = ask(&base, "GET", path, (&cookie, &token), "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn the_console_of_an_engine_with_a_history_asks_it() {
    let data = Data::init(1);
    let served = ["--console", "127.0.0.1:0", "--history"];
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &served);
    let base = engine.ready["console"].as_str().unwrap().to_owned();
    let link =
        surety(&["ctl", "--data", data.path(), "--json", "console-link", "--as", "reader"]).exits(0).json();
    let (_, fragment) = link["url"].as_str().unwrap().split_once('#').unwrap();
    let (_, body, cookie) = ask(&base, "POST", "session", ("", ""), &json!({ "link": fragment }).to_string());
    let me: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(me["history"], json!(true), "{body}");
    let who = (cookie.as_deref().unwrap(), me["token"].as_str().unwrap());
    let question = json!({ "ask": { "records": { "kind": ["start"] } } }).to_string();
    let begun = Instant::now();
    loop {
        let (status, body, _) = ask(&base, "POST", "history", who, &question);
        let answer: Value = serde_json::from_str(&body).unwrap();
        match status {
            200 if answer["rows"].as_array().is_some_and(|rows| !rows.is_empty()) => break,
            // It is started beside the engine, and what it is behind comes.
            200 => {}
            503 => assert_eq!(answer["error"], "HISTORY_AWAY", "{body}"),
            _ => panic!("{status}: {body}"),
        }
        assert!(begun.elapsed() < PATIENCE, "the history does not come: {body}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_console_is_refused_before_anything_is_touched() {
    let data = Data::init(1);
    let before = data.fingerprint();
    let serve = ["serve", "--data", data.path(), "--listen", "127.0.0.1:0"];
    for open in ["0.0.0.0:0", "[::]:0"] {
        surety(&[&serve[..], &["--console", open]].concat()).fails(2, "loopback");
        surety(&[&serve[..], &["--console", open, "--console-key", "k.pem"]].concat())
            .fails(2, "go together");
        let missing = ["--console", open, "--console-key", "k.pem", "--console-certificate", "no.pem"];
        surety(&[&serve[..], &missing].concat()).fails(1, "no.pem");
        let nowhere = [&["serve", "--data", "nowhere"][..], &missing].concat();
        surety(&nowhere).fails(4, "nowhere");
    }
    let unheard = ["--console-key", "k.pem", "--console-certificate", "no.pem"];
    surety(&[&serve[..], &unheard].concat()).fails(2, "no address to listen on");
    surety(&[&serve[..], &["--console-settler", "127.0.0.1:9"]].concat()).fails(2, "no address to listen on");
    let assets = ("SURETY__CONSOLE__ASSETS", "[\"AMP\"]");
    surety_with(&serve, &[assets]).fails(2, "console.assets");
    assert_eq!(data.fingerprint(), before);
    let assets = ("SURETY__CONSOLE__ASSETS", "[\"2=USDC/6\"]");
    let printed =
        surety_with(&[&serve[..], &["--console", "127.0.0.1:7", "--print-config"]].concat(), &[assets]);
    let printed = printed.exits(0).stdout;
    assert!(printed.contains("listen = \"127.0.0.1:7\"") && printed.contains("2=USDC/6"), "{printed}");

    let engine = Engine::start(&data, "fsync");
    surety(&["ctl", "--data", data.path(), "console-link"]).fails(9, "--console");
    surety(&["top", "--data", data.path(), "--once"]).fails(9, "--admin");
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["top", "--data", data.path(), "--once"]).fails(9, "nobody serves");
}

#[test]
fn top_tells_a_second_to_scripts_and_wants_a_terminal_for_more() {
    let data = Data::init(2);
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &["--admin", "127.0.0.1:0"]);
    let told = surety(&["top", "--data", data.path(), "--once", "--json"]).exits(0).json();
    assert_eq!((&told["ok"], &told["standing"]["ready"]), (&json!(true), &json!(true)));
    assert_eq!(told["standing"]["shards"].as_array().unwrap().len(), 2);
    let admin = engine.ready["admin"].as_str().unwrap();
    let lines = surety(&["top", "--admin", admin, "--once"]).exits(0).stdout;
    assert!(lines.starts_with("serving\n") && lines.contains("healthy"), "{lines}");
    surety(&["top", "--admin", admin]).fails(2, "--once");
    surety(&["top"]).fails(2, "required");
    surety(&["top", "--data", data.path(), "--identity", "x.pem", "--once"]).fails(2, "--connect");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn top_of_an_engine_elsewhere_shows_what_its_wire_tells_and_nothing_else() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let reader = data.file("pki/reader.pem").to_str().unwrap().to_owned();
    let top = ["top", "--connect", engine.listen(), "--identity", &reader, "--once"];
    let quiet = surety(&[&top[..], &["--json"]].concat()).exits(0).json();
    assert_eq!((&quiet["ok"], &quiet["second"]["done"]), (&json!(true), &json!(0)));
    assert_eq!(quiet["standing"]["money"], json!([]), "there is no partition yet");

    let load = ["load", "--data", data.path(), "--scenario", "tap", "--duration", "10s", "--in-flight", "16"];
    let mut load = spawn(&load);
    let begun = Instant::now();
    let busy = loop {
        let told = surety(&[&top[..], &["--json"]].concat()).exits(0).json();
        // What is set up first is recorded as well.
        if told["second"]["done"].as_u64() > Some(0) && told["standing"]["money"] != json!([]) {
            break told;
        }
        assert!(begun.elapsed() < PATIENCE && load.try_wait().unwrap().is_none(), "nothing is seen: {told}");
    };
    for untold in ["refused", "p50_us", "p99_us", "write_p99_us"] {
        assert_eq!(busy["second"][untold], json!(null), "{untold}");
    }
    let standing = &busy["standing"];
    assert_eq!((&standing["open_locks"], &standing["in_flight"]), (&json!(null), &json!(null)));
    let shard = &standing["shards"][0];
    assert!(shard["rate"].as_u64() > Some(0) && shard["synced"].as_u64() > Some(0), "{busy}");
    assert_eq!((&shard["storage_low"], &shard["violations"]), (&json!(null), &json!(null)));
    assert!(standing["money"][0]["open"].as_u64() > Some(0), "{busy}");
    let lines = surety(&top).exits(0).stdout;
    assert!(lines.contains("not told over the wire") && !lines.contains("healthy"), "{lines}");
    load.kill().unwrap();
    load.wait().unwrap();

    surety(&["top", "--connect", engine.listen(), "--once"]).fails(2, "required");
    let tenant = data.file("pki/authorizer.pem").to_str().unwrap().to_owned();
    surety(&["top", "--connect", engine.listen(), "--identity", &tenant, "--once"]).fails(2, "operator");
    let listen = engine.listen().to_owned();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    let gone =
        surety(&["top", "--connect", &listen, "--identity", &reader, "--once", "--json"]).exits(9).json();
    assert_eq!(gone["ok"], json!(false));
}
