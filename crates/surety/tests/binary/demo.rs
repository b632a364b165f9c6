//! `demo`: its JSON, and that its money check notices whatever is altered.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::console;
use crate::process::{Data, send, spawn, spawn_with, surety};

const PATIENCE: Duration = Duration::from_secs(100);

#[test]
fn the_demo_agrees_with_itself_and_leaves_a_sound_directory() {
    let place = Data::empty();
    let data = place.file("kept");
    let data = data.to_str().unwrap();
    let value = surety(&["demo", "--seconds", "1", "--data", data, "--json"]).exits(0).json();
    assert_eq!((value["ok"].as_bool(), value["durability"].as_str()), (Some(true), Some("fsync")));
    for key in ["locks", "requests", "rate_per_s", "p50_us", "p99_us"] {
        assert!(value[key].as_u64().unwrap() > 0, "{key}: {value}");
    }
    for party in ["replies", "lookups", "log", "chain"] {
        assert_eq!(value["money_check"][party], "ok");
    }
    assert!(value["declined"]["OVER_LIMIT"].as_u64().unwrap() > 0, "{value}");
    for what in ["repeats", "expired", "overdue", "late_captures"] {
        assert!(value[what].as_u64().unwrap() > 0, "{what}: {value}");
    }
    for kind in [
        "lock", "increase", "capture", "release", "reverse", "refund", "settle", "consume", "deposit",
        "price",
    ] {
        assert!(value["done"][kind].as_u64().unwrap_or(0) > 0, "{kind}: {value}");
    }
    // Only what is meant to be declined is.
    assert_eq!(value["declined"].as_object().unwrap().len(), 1, "{value}");
    // With the certificate that was enforced, which no longer can be by itself.
    assert!(place.file("kept/settlement/certificate.json").exists());
    a_certificate_is_checked(&place);
    let verified = surety(&["verify", "--data", data, "--json"]).exits(0).json();
    assert_eq!(verified["shards"][0]["locks"], value["locks"]);
    surety(&["demo", "--data", data]).fails(1, "exists");
}

/// By itself, without a node: what it says, whose signature it bears, and every way of being none.
fn a_certificate_is_checked(place: &Data) {
    let file = place.file("kept/settlement/certificate.json");
    let path = file.to_str().unwrap();
    let told = surety(&["cert", "verify", path, "--json"]).exits(0).json();
    assert_eq!((told["ok"].as_bool(), told["amount"].as_str()), (Some(true), Some("250000000000000000000")));
    assert_eq!(told["trusted"], false, "nobody has said whose signature it should be");
    let text = surety(&["cert", "verify", path]).exits(0).stdout;
    assert!(text.contains("NOT CHECKED"), "{text}");
    let signer = told["signer"].as_str().unwrap().to_owned();
    let text = surety(&["cert", "verify", path, "--signer", &signer]).exits(0).stdout;
    assert!(!text.contains("NOT CHECKED"), "{text}");
    let elsewhere = place.file("elsewhere.json");
    let contract = format!("0x{}", "17".repeat(20));
    let hash = format!("0x{}", "00".repeat(32));
    let place_of = format!(
        "{{\"chain_id\":{},\"manager\":\"{contract}\",\"code_hash\":\"{hash}\",\"since_block\":0}}",
        told["chain_id"]
    );
    std::fs::write(&elsewhere, place_of).unwrap();
    surety(&["cert", "verify", path, "--contract", elsewhere.to_str().unwrap()])
        .fails(4, "not for the contract");
    let payee = told["payee"].as_str().unwrap();
    surety(&["cert", "verify", path, "--signer", payee]).fails(1, "signed by");
    surety(&["cert", "verify", path, "--rpc", "http://127.0.0.1:9", "--json"]).fails(9, "127.0.0.1:9");
    let text = std::fs::read_to_string(&file).unwrap();
    let altered = place.file("altered.json");
    let altered_path = altered.to_str().unwrap();
    std::fs::write(&altered, text.replace("\"250000000000000000000\"", "\"250000000000000000001\"")).unwrap();
    let other =
        surety(&["cert", "verify", altered_path, "--signer", &signer, "--json"]).fails(1, "signed by");
    assert_eq!(other.json()["ok"], false);
    std::fs::write(&altered, text.replace("signature", "sign")).unwrap();
    surety(&["cert", "verify", altered_path]).fails(3, "signature");
    std::fs::write(&altered, "{}").unwrap();
    let none = surety(&["cert", "verify", altered_path, "--json"]).fails(3, "no certificate");
    assert_eq!(none.json()["ok"], false);
    surety(&["cert", "verify", "nowhere.json"]).fails(2, "nowhere.json");
}

#[test]
fn a_demo_that_is_watched_opens_its_console_and_has_a_history_behind_it() {
    let place = Data::empty();
    let data = place.file("watched");
    let mut demo = spawn(&["demo", "--console", "--seconds", "600", "--data", data.to_str().unwrap()]);
    let mut told = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let link = told.find_map(|line| line.strip_prefix("console   ").map(str::to_owned)).expect("a link");
    let rest = std::thread::spawn(move || told.last());
    let (base, fragment) = link.split_once('#').unwrap();
    let opened = json!({ "link": fragment }).to_string();
    let (status, body, cookie) = console::ask(base, "POST", "session", ("", ""), &opened);
    assert_eq!(status, 200, "{body}");
    let me: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(me["history"], json!(true));
    let (cookie, token) = (cookie.unwrap(), me["token"].as_str().unwrap().to_owned());
    let found = |question: Value, is_enough: &dyn Fn(&Value) -> bool| {
        let begun = Instant::now();
        loop {
            let asked = json!({ "ask": question }).to_string();
            let (status, body, _) = console::ask(base, "POST", "history", (&cookie, &token), &asked);
            let answer: Value = serde_json::from_str(&body).unwrap();
            // It begins beside the engine, and what it is behind comes.
            assert!(status == 200 || status == 503, "{status}: {body}");
            if status == 200 && is_enough(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{question}: {body}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let has_rows = |answer: &Value| answer["rows"].as_array().is_some_and(|rows| !rows.is_empty());
    let captured = found(json!({ "records": { "kind": ["capture"], "code": ["APPROVED"] } }), &has_rows);
    let lock = captured["rows"][0]["lock"].clone();
    let timeline = found(json!({ "lock": { "id": lock } }), &has_rows);
    assert!(timeline["rows"].as_array().unwrap().len() >= 2, "a lock and its capture: {timeline}");
    let of_all = json!({ "statement": { "partition": captured["rows"][0]["partition"] } });
    found(of_all, &|answer| answer["lines"].as_array().is_some_and(|lines| !lines.is_empty()));
    // The same one is behind the wire.
    let captures =
        ["ctl", "--data", data.to_str().unwrap(), "query", "records", "--kind", "capture", "--json"];
    assert!(surety(&captures).exits(0).json()["rows"].as_u64().unwrap() > 0);

    send(&demo, Signal::INT);
    let ended = demo.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(rest.join().unwrap().is_some(), "it tells how it ended");
    surety(&["verify", "--data", data.to_str().unwrap()]).exits(0);
}

#[test]
fn one_that_is_told_to_end_checks_the_money_and_takes_its_directory_away() {
    let place = Data::empty();
    let directory = place.file("");
    let environment = [("TMPDIR", directory.to_str().unwrap())];
    let mut demo = spawn_with(&["demo", "--console", "--seconds", "600"], &environment);
    let mut told = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.any(|line| line.starts_with("console   ")));
    let there = || std::fs::read_dir(&directory).unwrap().count();
    assert_eq!(there(), 1);
    let rest = std::thread::spawn(move || told.collect::<Vec<_>>());
    send(&demo, Signal::TERM);
    let ended = demo.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let rest = rest.join().unwrap();
    assert!(rest.iter().any(|line| line.starts_with("enforced  ")), "{rest:?}");
    assert_eq!(there(), 0);
}

#[test]
fn whatever_is_altered_is_noticed_and_named() {
    for party in ["replies", "lookups", "log", "chain"] {
        let ended = surety(&["demo", "--seconds", "1", "--tamper", party, "--json"]).fails(1, "differ");
        let value = ended.json();
        assert_eq!(value["ok"], false);
        for other in ["replies", "lookups", "log", "chain"] {
            let is_ok = value["money_check"][other] == "ok";
            assert_eq!(is_ok, other != party, "{party} was altered: {}", value["money_check"]);
        }
    }
}

#[test]
fn the_demo_tells_people_what_happened() {
    let text = surety(&["demo", "--seconds", "1"]).exits(0).stdout;
    for line in ["locks approved", "partition", "retail", "Money check", "All agree", "Try next"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
