//! `settle statement`: of a running engine, of its files, and of files that are not whole.

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Data, Ended, Engine, ctl, surety};

const SUPPLIER: &str = "0x00000000000000000000000000000000000000aa";
const OTHER: &str = "0x00000000000000000000000000000000000000bb";

fn statement(source: &[&str]) -> Ended {
    surety(&[&["settle", "statement", "--supplier", SUPPLIER, "--json"], source].concat())
}

#[test]
fn a_statement_is_the_same_from_the_engine_and_from_its_files() {
    let data = Data::init(2);
    let engine = Engine::start(&data, "fsync");
    for (partition, supplier, amount) in
        [("0:1", SUPPLIER, "1000"), ("1:1", SUPPLIER, "70"), ("0:1", OTHER, "500")]
    {
        if supplier == SUPPLIER {
            let onchain = format!("0x{:064x}", 0xcc00 + u16::from(partition == "1:1"));
            ctl(&data, &["partition", "create", partition, "--asset", "1", "--onchain", &onchain]);
            ctl(&data, &["policy", "set", partition, "unbonding=1h"]);
        }
        let nonce = amount;
        ctl(&data, &["deposit", partition, amount, "--supplier", supplier, "--nonce", nonce]);
    }
    ctl(&data, &["loss", "deficit", "0:1", "90"]);
    ctl(&data, &["partition", "unfreeze", "0:1"]);
    ctl(&data, &["withdraw", "0:1", "400000000", "--supplier", SUPPLIER]);
    let known = ctl(&data, &["supplier", "0:1"])["suppliers"].as_array().unwrap().clone();
    let known =
        known.iter().find(|row| row["supplier"].as_str().unwrap().to_lowercase() == SUPPLIER).unwrap();

    let live = statement(&["--data", data.path()]).exits(0);
    let lines: Vec<Value> = live.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["supplied", "lost", "unbonding", "supplied"]);
    let last = live.json();
    let sum = &last["partitions"][0];
    assert_eq!(
        (&sum["units"], &sum["queued"], &sum["value"]),
        (&known["units"], &known["queued"], &known["value"])
    );
    let number = |name: &str| sum[name].as_str().unwrap().parse::<u128>().unwrap();
    assert_eq!(number("supplied") + number("gained"), number("withdrawn") + number("lost") + number("value"));
    let one = statement(&["--data", data.path(), "--partition", "1:1"]).exits(0).json();
    assert_eq!(one["partitions"].as_array().unwrap().len(), 1);
    assert_eq!(one["partitions"][0]["supplied"], "70");

    assert_eq!(engine.terminate(Signal::TERM), 0);
    let closed = statement(&["--log", data.path()]).exits(0);
    assert_eq!(closed.stdout, live.stdout);
    let text = surety(&["settle", "statement", "--supplier", SUPPLIER, "--log", data.path()]).exits(0).stdout;
    assert!(text.ends_with("the lines add up\n"), "{text}");
    let onchain = format!("0x{:064x}", 0xcc01);
    let one = statement(&["--log", data.path(), "--partition", &onchain]).exits(0).json();
    assert_eq!(one["partitions"][0]["partition"], "1:1");
}

#[test]
fn a_statement_of_nothing_or_of_damaged_files_is_refused() {
    let data = Data::empty();
    let empty = data.file("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    statement(&[]).fails(2, "--batches");
    statement(&["--log", empty]).fails(4, "empty");
    assert_eq!(statement(&["--batches", empty]).fails(4, "batch-N.json").json()["exit"], 4);
    let file = data.file("empty").join("batch-3.json");
    std::fs::write(&file, "{}").unwrap();
    statement(&["--batches", empty]).fails(3, "batch-3.json: `seq` is missing");
}
