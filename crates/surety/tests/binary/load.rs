//! `load` and `load check`.

use rustix::process::Signal;

use crate::process::{Data, Ended, Engine, send, spawn, surety};

#[test]
fn a_load_reports_and_its_replies_are_in_the_log() {
    let data = Data::init(2);
    let engine = Engine::start(&data, "os");
    let acks = data.file("acks.bin");
    let acks = acks.to_str().unwrap();
    let run = |more: &[&str]| {
        let own = ["load", "--data", data.path(), "--duration", "300ms", "--acks", acks, "--json"];
        let args: Vec<&str> = own.iter().chain(more).copied().collect();
        let value = surety(&args).exits(0).json();
        for key in ["p50_us", "p90_us", "p99_us", "p999_us", "max_us", "rate_per_s", "seconds"] {
            assert!(value[key].as_f64().unwrap() > 0.0, "{key}: {value}");
        }
        for key in ["sent", "replied", "approved"] {
            assert!(value[key].as_u64().unwrap() > 0, "{key}: {value}");
        }
        for key in ["unknown", "contradictions"] {
            assert_eq!(value[key].as_u64(), Some(0), "{key}: {value}");
        }
        assert_eq!((value["ok"].as_bool(), value["durability"].as_str()), (Some(true), Some("os")));
        value
    };
    let closed = run(&["--in-flight", "16"]);
    assert_eq!((closed["scenario"].as_str(), closed["pace"].as_str()), (Some("tap"), Some("max")));
    let open = run(&["--scenario", "lock-release", "--rate", "200"]);
    assert_eq!(open["pace"], "constant");
    surety(&["load", "check", "--acks", acks, "--data", data.path()]).fails(5, "in use");
    assert_eq!(engine.terminate(Signal::TERM), 0);

    let check = || surety(&["load", "check", "--acks", acks, "--data", data.path(), "--json"]);
    let value = check().exits(0).json();
    let replied = closed["replied"].as_u64().unwrap() + open["replied"].as_u64().unwrap();
    assert_eq!((value["ok"].as_bool(), value["verified"].as_u64()), (Some(true), Some(replied)));

    // A reply that was never in the log.
    let mut bytes = std::fs::read(acks).unwrap();
    bytes[0] ^= 1;
    std::fs::write(acks, &bytes).unwrap();
    let value = check().fails(1, "different").json();
    assert_eq!((value["ok"].as_bool(), value["different"].as_u64()), (Some(false), Some(1)));
}

#[test]
fn scenarios_are_listed_and_one_is_a_file_to_begin_with() {
    let listed = surety(&["load", "scenarios", "--json"]).exits(0).json();
    let names: Vec<_> = listed["scenarios"].as_object().unwrap().keys().cloned().collect();
    assert!(names.len() >= 13 && names.contains(&"hotel".to_owned()), "{names:?}");
    assert!(surety(&["load", "scenarios"]).exits(0).stdout.contains("A hotel: the guest stays longer"));
    surety(&["load", "scenarios", "no-such"]).fails(2, "no scenario no-such");

    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let file = data.file("stay.toml");
    let text = surety(&["load", "scenarios", "hotel"])
        .exits(0)
        .stdout
        .replace("name = \"hotel\"", "name = \"stay\"");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let run = ["load", "--data", data.path(), "--scenario", file, "--duration", "300ms", "--check", "--json"];
    let value = surety(&run).exits(0).json();
    assert_eq!((value["scenario"].as_str(), value["ok"].as_bool()), (Some("stay"), Some(true)));
    assert_eq!(value["money_check"]["lookups"], "ok");
    let spoiled = [&run[..], &["--inject", "double=0.5,delay=0.2:2ms,kill=200ms"]].concat();
    let value = surety(&spoiled).exits(0).json();
    assert_eq!(value["money_check"]["log"], "ok", "{value}");
    assert!(value["injected"]["doubled"].as_u64().unwrap() > 0, "{value}");
    let wrong = [&run[..], &["--inject", "burn=1"]].concat();
    surety(&wrong).fails(2, "no such fault");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn an_interrupted_load_ends_with_its_report() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "fsync");
    let acks = data.file("acks.bin");
    let args =
        ["load", "--data", data.path(), "--duration", "10m", "--acks", acks.to_str().unwrap(), "--json"];
    let mut child = spawn(&args);
    while std::fs::metadata(&acks).map_or(0, |file| file.len()) < 100 * 128 {
        if child.try_wait().unwrap().is_some() {
            panic!("it has ended by itself: {:?}", Ended::from(child.wait_with_output().unwrap()));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    send(&child, Signal::INT);
    let ended = Ended::from(child.wait_with_output().unwrap()).exits(0);
    assert!(ended.json()["replied"].as_u64().unwrap() >= 100);
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_load_against_nothing_is_told() {
    let data = Data::init(1);
    surety(&["load", "--data", data.path()]).fails(9, "nobody serves");
    let engine = Engine::start(&data, "fsync");
    surety(&["load", "--data", data.path(), "--scenario", "no-such"]).fails(2, "no-such");
    let identity = data.file("pki/authorizer.pem");
    let identity = identity.to_str().unwrap();
    // Without the admin's identity the scenario's partitions are not made: nothing is approved, and that is said.
    let connect =
        ["load", "--connect", engine.listen(), "--identity", identity, "--duration", "100ms", "--json"];
    let value = surety(&connect).exits(1).json();
    assert_eq!((value["ok"].as_bool(), value["approved"].as_u64()), (Some(false), Some(0)));
    assert_eq!(engine.terminate(Signal::TERM), 0);
}
