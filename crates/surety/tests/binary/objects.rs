//! Backups and an archive in an object store: the same states as in a directory, refused where they must be, without a secret anywhere.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{Data, Ended, Engine, ctl, send, spawn, surety_with};
use crate::store::{Fault, Store, What};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// What must be found nowhere.
const SECRET: &str = "CANARY/secret";

struct Place {
    store: Store,
    endpoint: String,
    /// What this world writes here.
    directory: tempfile::TempDir,
}

impl Place {
    fn start() -> Option<Self> {
        let store = Store::start()?;
        let endpoint = format!("http://{}", store.address());
        Some(Self { store, endpoint, directory: tempfile::tempdir().unwrap() })
    }

    fn environment(&self) -> [(&str, &str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", "somebody"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ENDPOINT_URL", &self.endpoint),
        ]
    }

    /// Runs a command to its end; whatever becomes of it, it does not say the secret.
    fn surety(&self, args: &[&str]) -> Ended {
        let ended = surety_with(args, &self.environment());
        assert!(!format!("{}{}", ended.stdout, ended.stderr).contains("CANARY"), "{}", ended.stderr);
        ended
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn a_backup_in_an_object_store_comes_back_with_the_same_state() {
    let Some(place) = Place::start() else { return };
    let data = Data::init(2);
    let engine = Engine::start(&data, "fsync");
    for number in 1..=6 {
        ctl(&data, &["partition", "create", &format!("{}:{number}", number % 2)]);
    }
    let to = "s3://bucket/surety/monday";
    // Beside an engine, and of a closed directory.
    let backup = |to: &str| place.surety(&["backup", "--data", data.path(), "--to", to, "--json"]);
    let taken = backup(to).exits(0).json();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    let closed = backup("s3://bucket/surety/tuesday").exits(0).json();
    let hashes = |value: &serde_json::Value| -> Vec<String> {
        value["shards"].as_array().unwrap().iter().map(|part| part["state_hash"].to_string()).collect()
    };
    assert_eq!(hashes(&taken), hashes(&closed));
    backup(to).fails(1, "holds a backup already");
    let ends: Vec<String> = taken["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| format!("{}:{}", part["shard"], part["last_seq"]))
        .collect();
    let restore = |from: &str, to: &str| {
        place.surety(&[
            "restore",
            "--from",
            from,
            "--to",
            &place.path(to),
            "--until",
            &ends.join(","),
            "--json",
        ])
    };
    let restored = restore(to, "copy").exits(0).json();
    assert_eq!(hashes(&restored), hashes(&taken));
    let verified = place.surety(&["verify", "--data", &place.path("copy"), "--json"]).exits(0).json();
    assert_eq!(hashes(&verified), hashes(&taken));

    // What is not there, not ours, not allowed, not told, damaged.
    restore("s3://bucket/surety/wednesday", "none").fails(4, "manifest.json");
    restore("s3://elsewhere/surety", "none").fails(2, "no such bucket");
    place.surety(&["backup", "--data", data.path(), "--to", "s3://bucket"]).fails(2, "s3://BUCKET/PREFIX");
    let plain = [("AWS_ENDPOINT_URL", "http://store.example:9000")];
    surety_with(&["backup", "--data", data.path(), "--to", to], &plain).fails(2, "without TLS");
    place.store.fails(What::Any, Fault::Answers { times: usize::MAX, status: 403, code: "AccessDenied" });
    restore(to, "none").fails(2, "AccessDenied");
    place.surety(&["backup", "--data", data.path(), "--to", "s3://bucket/x/y"]).fails(2, "AccessDenied");
    place.store.holds();
    place.store.replace("/bucket/surety/monday/shard-0/00000000000000000001.wal", &[7; 4096]);
    restore(to, "damaged").fails(3, "00000000000000000001.wal");
    // A backup that is cut short is none.
    place
        .store
        .fails(What::Completions, Fault::Answers { times: usize::MAX, status: 500, code: "InternalError" });
    backup("s3://bucket/surety/cut").fails(1, "InternalError");
    place.store.holds();
    restore("s3://bucket/surety/cut", "none").fails(4, "manifest.json");
}

#[test]
fn an_archive_in_an_object_store_leads_a_restore_beyond_its_backup() {
    let Some(place) = Place::start() else { return };
    let data = Data::init(1);
    let config = place.path("surety.toml");
    std::fs::write(&config, "[log]\narchive = \"s3://bucket/surety/archive\"\n").unwrap();
    let more = ["--config", &config, "--admin", "127.0.0.1:0"];
    let shown = place.surety(&["serve", "--data", data.path(), "--config", &config, "--print-config"]);
    assert!(shown.exits(0).stdout.contains("s3://bucket/surety/archive"));
    // The store is down at first: payments go on.
    place.store.fails(What::Any, Fault::Answers { times: usize::MAX, status: 503, code: "SlowDown" });
    let engine = Engine::start_with(&data, "os", "127.0.0.1:0", &more, &place.environment());
    let mut load = spawn(&["load", "--data", data.path(), "--duration", "1h", "--rate", "3000"]);
    let metric = |name: &str| -> u64 {
        let page = crate::watch::get(engine.ready["admin"].as_str().unwrap(), "/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name}{{shard=\"0\"}} ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_default()
    };
    let wait_for = |name: &str, at_least: u64| {
        let begun = Instant::now();
        while metric(name) < at_least {
            assert!(begun.elapsed() < PATIENCE, "{name} stays at {}", metric(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for("surety_archive_failures_total", 1);
    place.store.holds();
    let taken =
        place.surety(&["backup", "--data", data.path(), "--to", "s3://bucket/surety/monday", "--json"]);
    let last = taken.exits(0).json();
    let last = last["shards"][0]["last_seq"].as_u64().unwrap();
    wait_for("surety_archived_seq", last + 1);
    send(&load, Signal::INT);
    load.wait().unwrap();
    let archived = metric("surety_archived_seq");
    let said = engine.kill();
    assert!(said.contains("SlowDown") && !said.contains("no archive of this engine"), "{said}");
    assert!(!said.contains("CANARY"));
    let restored = place.surety(&[
        "restore",
        "--from",
        "s3://bucket/surety/monday",
        "--archive",
        "s3://bucket/surety/archive",
        "--to",
        &place.path("copy"),
        "--until",
        &archived.to_string(),
        "--json",
    ]);
    // A whole number of operations: never more than was asked for.
    let found = restored.exits(0).json()["shards"][0]["seq"].as_u64().unwrap();
    assert!(found > last && found <= archived, "{found} behind {last}, up to {archived}");
    place.surety(&["verify", "--data", &place.path("copy"), "--json"]).exits(0);
}
