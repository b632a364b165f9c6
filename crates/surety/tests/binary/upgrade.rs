//! Data directories that earlier versions have written, one of each format: they verify, are served, and verify again.
//!
//! `tests/golden/data-N.tar.gz` is one as a killed engine with two shards has left it, without certificates, which end, and
//! `data-N.json` what its version said of it; the second one's has lived on after a loss. `backup-N.tar.gz` is a backup. A version
//! that changes what it writes leaves these as they are and adds its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Data, Engine, ctl, surety};

const SUPPLIER: &str = "0x00000000000000000000000000000000000000aa";

/// Every golden directory: its archive, and what is expected of it.
fn golden() -> Vec<(PathBuf, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let expected = files.filter(|file| file.extension().is_some_and(|ending| ending == "json"));
    let mut golden: Vec<_> = expected
        .map(|file| {
            let value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
            (file.with_extension("tar.gz"), value)
        })
        .collect();
    golden.sort_by(|(one, _), (other, _)| one.cmp(other));
    golden
}

fn unpack(archive: &Path, to: &str) {
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).args(["-C", to]).output().unwrap();
    assert!(unpacked.status.success(), "{unpacked:?}");
}

/// The directory as it was left, with certificates of today.
fn unpacked(archive: &Path) -> Data {
    let data = Data::empty();
    unpack(archive, data.path());
    surety(&["cert", "ca", "--out", data.file("pki").to_str().unwrap()]).exits(0);
    data
}

fn verified(data: &Data) -> Value {
    surety(&["verify", "--data", data.path(), "--json"]).exits(0).json()
}

/// What `verify` and the expectation both say.
fn states(value: &Value) -> Vec<(&Value, &Value)> {
    value["shards"].as_array().unwrap().iter().map(|shard| (&shard["seq"], &shard["state_hash"])).collect()
}

fn dumped(data: &Data, shard: &str) -> String {
    surety(&["dump", "--data", data.path(), "--shard", shard, "--json"]).exits(0).stdout
}

fn free(data: &Data) -> u128 {
    ctl(data, &["partition", "show", "0:1"])["free"].as_str().unwrap().parse().unwrap()
}

#[test]
fn directories_of_earlier_versions_verify_are_served_and_verify_again() {
    let golden = golden();
    // One of each version of the log that VERSIONING.md tells of.
    assert_eq!(golden.len(), 2);
    for (archive, expected) in golden {
        let data = unpacked(&archive);
        let before = verified(&data);
        assert_eq!(before["engine"], expected["engine"], "{}", archive.display());
        assert_eq!(states(&before), states(&expected), "{}", archive.display());
        let logged = ["0", "1"].map(|shard| dumped(&data, shard));

        // It was stopped long ago.
        ctl(&data, &["clock", "accept"]);
        let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &["--guard"]);
        let had = free(&data);
        assert!(had > 0);
        ctl(&data, &["deposit", "0:1", "7", "--supplier", SUPPLIER, "--nonce", "3"]);
        assert_eq!(free(&data), had + 7);
        // What was deposited once is known.
        let known =
            ["ctl", "--data", data.path(), "deposit", "0:1", "7", "--supplier", SUPPLIER, "--nonce", "1"];
        surety(&known).fails(10, "");
        assert_eq!(ctl(&data, &["partition", "show", "1:1"])["frozen"], true);
        ctl(&data, &["partition", "create", "1:2"]);
        assert_eq!(engine.terminate(Signal::TERM), 0);

        let after = verified(&data);
        for ((seq, _), (seq_before, _)) in states(&after).into_iter().zip(states(&before)) {
            assert!(seq.as_u64() > seq_before.as_u64(), "{after}");
        }
        for (shard, logged) in ["0", "1"].into_iter().zip(logged) {
            assert!(dumped(&data, shard).starts_with(&logged), "what was logged stays");
        }
        // All of it can be indexed, the old records with the new.
        let rebuilt = surety(&["history", "rebuild", "--data", data.path(), "--json"]).exits(0).json();
        assert_eq!(rebuilt["shards"][0]["seq"], after["shards"][0]["seq"]);
        // And once more by whoever comes next.
        let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &["--guard"]);
        assert_eq!(free(&data), had + 7);
        assert_eq!(engine.terminate(Signal::TERM), 0);
    }
}

#[test]
fn a_backup_of_each_format_is_restored() {
    for format in 1..=backup::MANIFEST_VERSION {
        let (from, beside) = (Data::empty(), tempfile::tempdir().unwrap());
        let archive = format!("tests/golden/backup-{format}.tar.gz");
        unpack(&Path::new(env!("CARGO_MANIFEST_DIR")).join(archive), from.path());
        let manifest: Value =
            serde_json::from_str(&fs::read_to_string(from.file("manifest.json")).unwrap()).unwrap();
        let parts = manifest["shards"].as_array().unwrap();
        let states: Vec<_> = parts.iter().map(|part| (&part["last_seq"], &part["state_hash"])).collect();
        let ends: Vec<String> =
            parts.iter().map(|part| format!("{}:{}", part["shard"], part["last_seq"])).collect();
        let ends = ends.join(",");
        let restored = Data::at(beside.path().join("restored"));
        let args = ["restore", "--from", from.path(), "--to", restored.path(), "--until", &ends];
        surety(&args).exits(0);
        assert_eq!(self::states(&verified(&restored)), states);
    }
}
