//! `doctor`: what it says of the machine at hand, and of directories that are not fit for an engine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::process::{Data, surety, surety_with};

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn every_check_says_what_it_found_and_what_to_do() {
    let data = Data::init(1);
    let before = data.fingerprint();
    let ended = surety(&["doctor", "--data", data.path(), "--json"]);
    let report = ended.json();
    // Whether this machine is a good one is not ours to say.
    assert_eq!(ended.exit, i32::from(report["ok"] == false), "{}", ended.stderr);
    for check in report["checks"].as_array().unwrap() {
        assert!(!check["found"].as_str().unwrap().is_empty(), "{check}");
        assert_eq!(check["advice"].is_null(), check["grade"] == "fine", "{check}");
    }
    for name in
        ["clock", "cores", "UDP buffers", "file system", "space", "readers", "shards", "durable write"]
    {
        check(&report, name);
    }
    assert_eq!(check(&report, "readers")["grade"], "fine", "`init` lets nobody else read keys");
    assert_eq!(data.fingerprint(), before, "nothing is changed");
    let text = surety(&["doctor", "--data", data.path()]);
    assert_eq!(
        text.stdout.lines().filter(|line| line.contains("durable write ")).count(),
        1,
        "{}",
        text.stdout
    );
}

#[test]
fn keys_that_others_may_read_are_found() {
    let data = Data::init(1);
    fs::set_permissions(data.file("pki/admin.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let ended = surety(&["doctor", "--data", data.path(), "--json"]).fails(1, "found a fault");
    let report = ended.json();
    assert_eq!(
        (&report["ok"], &check(&report, "readers")["grade"]),
        (&Value::from(false), &Value::from("fault"))
    );
}

#[test]
fn what_is_gone_with_the_power_is_a_fault() {
    let memory = Path::new("/dev/shm");
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    if !mounts.lines().any(|line| line.starts_with("tmpfs /dev/shm ") || line.contains(" /dev/shm tmpfs ")) {
        eprintln!("SKIPPED: /dev/shm is no tmpfs here");
        return;
    }
    let directory = tempfile::tempdir_in(memory).unwrap();
    let path = directory.path().to_str().unwrap();
    let report = surety(&["doctor", "--data", path, "--json"]).exits(1).json();
    for name in ["file system", "durable write"] {
        assert_eq!(check(&report, name)["grade"], "fault", "{report}");
    }
}

#[test]
fn a_library_that_swallows_syncs_is_found() {
    let data = Data::empty();
    // No such library: the loader says so and goes on.
    let environment = [("LD_PRELOAD", "/nowhere/libeatmydata.so")];
    let report = surety_with(&["doctor", "--data", data.path(), "--json"], &environment).exits(1).json();
    assert_eq!(check(&report, "durable write")["grade"], "fault");
}

#[test]
fn of_a_directory_that_is_not_there_yet_the_nearest_above_is_looked_at() {
    let data = Data::init(1);
    let (later, file) = (data.file("not/yet"), data.file("engine.toml/data"));
    let ended = surety(&["doctor", "--data", later.to_str().unwrap(), "--json"]);
    assert!(ended.stderr.contains("not/yet is not there yet: this is of "), "{}", ended.stderr);
    assert!(check(&ended.json(), "durable write")["grade"].is_string());
    assert!(!data.file("not").exists(), "nothing is made");
    surety(&["doctor", "--data", file.to_str().unwrap()]).fails(1, "cannot be examined: Not a directory");
}
