//! Backups and an archive in an object store: the same states as in a directory, refused where they must be, without a secret anywhere.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::loss::{copy_directory, soon};
use crate::process::{Data, Ended, Engine, ctl, send, spawn, spawn_with, surety_with};
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

/// A number of shard 0, as the admin listener tells it; 0 before it does.
fn metric(engine: &Engine, name: &str) -> u64 {
    let page = crate::watch::get(engine.ready["admin"].as_str().unwrap(), "/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name}{{shard=\"0\"}} ")));
    line.and_then(|value| value.parse().ok()).unwrap_or_default()
}

#[test]
fn an_engine_that_is_lost_goes_on_from_an_archive_in_an_object_store() {
    let Some(place) = Place::start() else { return };
    let (data, restored) = (Data::init(1), Data::at(place.directory.path().join("restored")));
    let (backup, archive) = ("s3://bucket/surety/monday", "s3://bucket/surety/archive");
    let config = place.path("surety.toml");
    std::fs::write(&config, format!("[log]\narchive = \"{archive}\"\n")).unwrap();
    let more = ["--config", &config, "--admin", "127.0.0.1:0"];
    let start = |data: &Data| Engine::start_with(data, "fsync", "127.0.0.1:0", &more, &place.environment());
    let engine = start(&data);
    ctl(&data, &["partition", "create", "0:900"]);
    let taken = place.surety(&["backup", "--data", data.path(), "--to", backup, "--json"]).exits(0).json();
    let taken = taken["shards"][0]["last_seq"].as_u64().unwrap();
    let mut load = spawn(&["load", "--data", data.path(), "--duration", "1h", "--rate", "3000"]);
    let begun = Instant::now();
    while metric(&engine, "surety_archived_seq") <= taken {
        assert!(begun.elapsed() < PATIENCE, "nothing is archived behind the backup");
        std::thread::sleep(Duration::from_millis(20));
    }
    send(&load, Signal::INT);
    load.wait().unwrap();
    engine.kill();

    // What only the archive has is kept, and what is in no complete segment is lost.
    let args = ["restore", "--from", backup, "--archive", archive, "--to", restored.path()];
    let refused = place.surety(&args).fails(2, "--accept-loss-after 0:").stderr;
    let end = refused.split("kept to seq ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    assert!(end.parse::<u64>().unwrap() > taken, "{end} behind {taken}");
    let until = soon();
    let accept = ["--accept-loss-after", &end, "--lost-until", &until];
    place.surety(&[&args[..], &accept].concat()).exits(0);
    copy_directory(&data.file("pki"), &restored.file("pki"));

    // Before the place was read nothing is served; once it was, it is that life's own.
    let serve = ["serve", "--data", restored.path(), "--listen", "127.0.0.1:0"];
    let serve = [&serve[..], &more].concat();
    place.store.fails(What::Any, Fault::Answers { times: usize::MAX, status: 403, code: "AccessDenied" });
    place.surety(&serve).fails(1, "the archive cannot be compared");
    // Who waits for it can be told to stop.
    place.store.fails(What::Any, Fault::Silent);
    let mut waits = spawn_with(&serve, &place.environment());
    let begun = Instant::now();
    while place.store.faults() == 0 {
        assert!(begun.elapsed() < PATIENCE, "the place is not asked");
        std::thread::sleep(Duration::from_millis(20));
    }
    send(&waits, Signal::TERM);
    assert_eq!(waits.wait().unwrap().code(), Some(0));
    assert!(!restored.file("archived").exists());
    place.store.holds();
    let engine = start(&restored);
    let listed = ctl(&restored, &["partition", "list"]);
    let listed = listed["partitions"].as_array().unwrap();
    assert!(!listed.is_empty() && listed.iter().all(|one| one["unreconciled"] == true), "{listed:?}");
    assert!(restored.file("archived/0").exists());
    assert_eq!(engine.terminate(Signal::TERM), 0);

    // A place that falls silent later holds up nobody for good.
    place.store.fails(What::Any, Fault::Silent);
    let engine = start(&restored);
    ctl(&restored, &["partition", "list"]);
    let said = engine.kill();
    assert!(said.contains("it is compared beside serving") && !said.contains("CANARY"), "{said}");
    place.store.holds();
    surety_with(&["verify", "--data", restored.path()], &[]).exits(0);
}
