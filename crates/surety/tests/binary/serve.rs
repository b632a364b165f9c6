//! `serve`: the ready line, draining, and everything that keeps it from starting, which changes nothing on the disk.

use std::net::{TcpListener, UdpSocket};

use rustix::process::Signal;

use crate::process::{Data, Engine, ctl, surety, surety_with, unheard, unread};

fn serve<'a>(data: &'a Data, more: &[&'a str]) -> Vec<&'a str> {
    let own = ["serve", "--data", data.path(), "--listen", "127.0.0.1:0"];
    own.iter().chain(more).copied().collect()
}

/// Expects that `serve` does not start, and leaves everything as it was.
#[track_caller]
fn refuses(data: &Data, args: &[&str], environment: &[(&str, &str)], exit: i32, what: &str) {
    let before = data.fingerprint();
    surety_with(args, environment).fails(exit, what);
    assert_eq!(data.fingerprint(), before, "nothing is changed");
}

#[test]
fn whoever_does_not_read_what_is_told_hears_no_complaint() {
    let data = Data::init(1);
    let engine = Engine::start_at(&data, "os", "127.0.0.1:0", &["--console", "127.0.0.1:0"]);
    for args in [
        &["gateway", "token"][..],
        &["serve", "--data", data.path(), "--print-config"],
        &["ctl", "--data", data.path(), "status"],
        &["ctl", "--data", data.path(), "console-link"],
    ] {
        let ended = unread(args).exits(141);
        assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("error:"), "{}", ended.stderr);
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn whoever_does_not_hear_what_is_told_beside_it_stops_nothing() {
    /// A panic, where one unwinds.
    const PANICKED: i32 = 101;
    let data = Data::init(1);
    let engine = Engine::unheard(&data, &["--console", "127.0.0.1:0"]);
    // It logs that, to nobody.
    engine.signal(Signal::HUP);
    let link = unheard(&["ctl", "--data", data.path(), "console-link"]).exits(0);
    assert!(link.stdout.contains("/console/#"), "{}", link.stdout);
    unheard(&["ctl", "--data", data.path(), "partition", "create", "9:1"]).exits(2);
    let knee =
        ["load", "find-knee", "--data", data.path(), "--scenario", "tap", "--p99", "1us", "--from", "50"];
    let knee = unheard(&[&knee[..], &["--duration", "300ms", "--precision", "50"]].concat());
    assert_ne!(knee.exit, PANICKED, "{}", knee.stdout);
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn the_ready_line_says_where_everything_is() {
    let data = Data::init(2);
    let engine = Engine::start_at(&data, "os", "127.0.0.1:0", &["--admin", "127.0.0.1:0"]);
    let ready = engine.ready.clone();
    assert_eq!((ready["ready"].as_bool(), ready["durability"].as_str()), (Some(true), Some("os")));
    let shards = ready["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 2);
    for (index, shard) in shards.iter().enumerate() {
        assert_eq!(shard["shard"].as_u64(), Some(index as u64));
        assert!(shard["port"].as_u64().unwrap() > 0 && shard["seq"].as_u64().unwrap() > 0);
        assert_eq!(shard["epoch"].as_u64(), Some(2));
    }
    for key in ["engine", "listen", "admin", "io", "pid", "version"] {
        assert!(!ready[key].is_null(), "{key}");
    }
    assert_eq!(ctl(&data, &["status"])["shards"].as_array().unwrap().len(), 2);
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn sigterm_and_sigint_drain_and_seal() {
    let data = Data::init(1);
    for (signal, epoch) in [(Signal::TERM, 2), (Signal::INT, 3)] {
        let engine = Engine::start(&data, "fsync");
        assert_eq!(engine.ready["shards"][0]["epoch"], epoch);
        assert!(data.file("ready.json").exists());
        assert_eq!(engine.terminate(signal), 0);
        assert!(!data.file("ready.json").exists());
        let value = surety(&["verify", "--data", data.path(), "--json"]).exits(0).json();
        assert_eq!(value["shards"][0]["torn"], serde_json::Value::Null);
    }
    surety(&["ctl", "--data", data.path(), "status"]).fails(9, "nobody serves");
}

#[test]
fn a_directory_is_served_once() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "fsync");
    surety(&serve(&data, &[])).fails(5, "in use");
    surety(&["verify", "--data", data.path()]).fails(5, "in use");
    assert_eq!(ctl(&data, &["status"])["ok"], true, "the first one goes on");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_taken_port_is_told() {
    let data = Data::init(1);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = udp.local_addr().unwrap().to_string();
    refuses(&data, &["serve", "--data", data.path(), "--listen", &taken], &[], 7, &taken);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = tcp.local_addr().unwrap().to_string();
    refuses(&data, &serve(&data, &["--admin", &taken]), &[], 7, &taken);
}

#[test]
fn unknown_settings_are_errors() {
    let data = Data::init(1);
    let config = data.file("surety.toml");
    std::fs::write(&config, "[server]\nlitsen = \"127.0.0.1:0\"\n").unwrap();
    let config = config.to_str().unwrap();
    refuses(&data, &serve(&data, &["--config", config]), &[], 2, "litsen");
    refuses(&data, &serve(&data, &["--config", "/nowhere.toml"]), &[], 2, "/nowhere.toml");
    refuses(&data, &serve(&data, &[]), &[("SURETY__SERVER__LITSEN", "x")], 2, "SURETY__SERVER__LITSEN");
    refuses(&data, &["serve"], &[], 2, "--data");
    let printed = surety_with(
        &serve(&data, &["--print-config", "--durability", "os", "--busy-poll", "100us"]),
        &[("SURETY__SERVER__DURABILITY", "fsync"), ("SURETY__CLOCK__MAX_GAP", "2h")],
    );
    let printed = printed.exits(0).stdout;
    surety(&serve(&data, &["--busy-poll", "2s"])).fails(2, "server.busy_poll: 2s is longer than 1s");
    for line in [
        "durability = \"os\"",
        "busy_poll = \"100us\"",
        "max_gap = \"2h\"",
        "listen = \"127.0.0.1:0\"",
        "streams = ",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
}

#[test]
fn missing_foreign_and_newer_directories_are_refused() {
    surety(&["serve", "--data", "/nowhere"]).fails(4, "surety init");
    let foreign = Data::empty();
    std::fs::write(foreign.file("notes.txt"), "mine").unwrap();
    refuses(&foreign, &serve(&foreign, &[]), &[], 4, "not a data directory");

    let data = Data::init(1);
    let metadata = std::fs::read_to_string(data.file("engine.toml")).unwrap();
    std::fs::write(data.file("engine.toml"), metadata.replace("format = 2", "format = 99")).unwrap();
    refuses(&data, &serve(&data, &[]), &[], 6, "newer");
    // The log of another engine under this directory's name.
    let other: String = metadata
        .lines()
        .map(|line| match line.strip_prefix("engine = ") {
            Some(_) => format!("engine = \"{}\"\n", "5".repeat(32)),
            None => format!("{line}\n"),
        })
        .collect();
    std::fs::write(data.file("engine.toml"), other).unwrap();
    refuses(&data, &serve(&data, &[]), &[], 4, "another engine");
    surety(&["verify", "--data", data.path()]).fails(4, "another engine");
}

#[test]
fn a_clock_that_went_too_far_must_be_accepted() {
    let data = Data::init(1);
    assert_eq!(Engine::start(&data, "fsync").terminate(Signal::TERM), 0);
    // Any time down is too long now.
    let strict = [("SURETY__CLOCK__MAX_GAP", "1ns")];
    refuses(&data, &serve(&data, &[]), &strict, 8, "clock");
    ctl(&data, &["clock", "accept"]);
    let config = data.file("strict.toml");
    std::fs::write(&config, "[clock]\nmax_gap = \"1ns\"\n").unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &config);
    assert_eq!(engine.terminate(Signal::TERM), 0);
    refuses(&data, &serve(&data, &config), &[], 8, "clock");
}

#[test]
fn a_hangup_ends_nothing_and_no_core_is_dumped() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "fsync");
    engine.signal(Signal::HUP);
    ctl(&data, &["status"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", engine.ready["pid"])).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}
