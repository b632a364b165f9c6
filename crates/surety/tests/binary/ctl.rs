//! `ctl`: every command against a running engine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use server::identity::actor_of;
use server::pki::DevelopmentPki;
use surety_protocol::{Kind, Origin};

use crate::process::{Data, Engine, ctl, surety};

const SUPPLIER: &str = "0x00000000000000000000000000000000000000aa";
const PAYEE: &str = "0x00000000000000000000000000000000000000bb";

#[test]
fn an_operator_can_run_an_engine() {
    let data = Data::init(2);
    let engine = Engine::start(&data, "fsync");

    for partition in ["0:1", "1:1"] {
        ctl(&data, &["partition", "create", partition, "--asset", "1"]);
    }
    let list = ctl(&data, &["partition", "list"]);
    assert_eq!(list["partitions"].as_array().unwrap().len(), 2);
    let text = surety(&["ctl", "--data", data.path(), "partition", "list"]).exits(0).stdout;
    assert!(text.contains("partition 1:1"), "{text}");

    let rules = data.file("rules.toml");
    std::fs::write(&rules, "life_default = \"20s\"\nlate_capture = true\nlate_window = \"1h\"\n").unwrap();
    ctl(&data, &["policy", "set", "0:1", "--file", rules.to_str().unwrap()]);
    ctl(&data, &["policy", "set", "0:1", "lock_max=1e21", "unbonding=0"]);
    let policy = &ctl(&data, &["policy", "get", "0:1"])["policy"];
    for (key, value) in
        [("life_default", "20s"), ("lock_max", "1000000000000000000000"), ("late_window", "1h")]
    {
        assert_eq!(policy[key], value, "{key}");
    }
    let printed = surety(&["ctl", "--data", data.path(), "policy", "get", "0:1"]).exits(0).stdout;
    std::fs::write(&rules, printed).unwrap();
    ctl(&data, &["policy", "set", "0:1", "--file", rules.to_str().unwrap()]);
    assert_eq!(&ctl(&data, &["policy", "get", "0:1"])["policy"], policy);

    ctl(&data, &["deposit", "0:1", "1e21", "--supplier", SUPPLIER, "--nonce", "1"]);
    let shown = ctl(&data, &["partition", "show", "0:1"]);
    assert_eq!(
        (&shown["collateral"], &shown["free"]),
        (&"1000000000000000000000".into(), &shown["collateral"])
    );
    // What the chain lacks is borne by what is free, and comes with the next deposit.
    ctl(&data, &["loss", "deficit", "0:1", "1e20"]);
    let shown = ctl(&data, &["partition", "show", "0:1"]);
    assert_eq!((&shown["free"], &shown["collateral"]), (&"900000000000000000000".into(), &shown["free"]));
    assert_eq!(shown["frozen"], true, "until somebody has looked");
    ctl(&data, &["partition", "unfreeze", "0:1"]);
    ctl(&data, &["deposit", "0:1", "1e20", "--supplier", SUPPLIER, "--nonce", "2"]);
    // No advice has exposed anything that could be made good or given up.
    for command in ["cover", "write-off"] {
        let none = surety(&["ctl", "--data", data.path(), "loss", command, "0:1", "5"]);
        none.fails(10, "INSUFFICIENT");
    }
    let supplier = ctl(&data, &["supplier", "0:1"]);
    assert_eq!(supplier["suppliers"][0]["supplier"], SUPPLIER);
    let units = supplier["suppliers"][0]["units"].as_str().unwrap();
    ctl(&data, &["withdraw", "0:1", units, "--supplier", SUPPLIER]);
    assert_eq!(
        ctl(&data, &["partition", "show", "0:1"])["free"].as_str().unwrap().len(),
        1,
        "all is paid out"
    );

    ctl(&data, &["tenant", "set", "7", "--locks-max", "1000"]);
    let tenants = ctl(&data, &["tenant", "list"]);
    assert_eq!(tenants["tenants"][0]["locks_max"], 1000);
    // What is not named stays, above all that somebody is shut out.
    ctl(&data, &["tenant", "set", "8", "--locks-max", "5", "--rate-per-s", "10", "--disabled"]);
    ctl(&data, &["tenant", "set", "8", "--in-flight-max", "20", "--open-locks-max", "30"]);
    let of = |tenants: &serde_json::Value, number: u64| {
        let all = tenants["tenants"].as_array().unwrap().clone();
        all.into_iter().find(|row| row["tenant"] == number).unwrap()
    };
    let shut = of(&ctl(&data, &["tenant", "list"]), 8);
    assert_eq!(
        (&shut["locks_max"], &shut["rate_per_s"], &shut["in_flight_max"], &shut["enabled"]),
        (&5.into(), &10.into(), &20.into(), &false.into())
    );
    assert_eq!((&shut["open_locks"], &shut["open_locks_max"]), (&0.into(), &30.into()));
    let shown = surety(&["ctl", "--data", data.path(), "tenant", "list"]).exits(0).stdout;
    assert!(shown.contains("open 0  locks 0/5") && shown.contains("open locks 30"), "{shown}");
    ctl(&data, &["tenant", "set", "8", "--enabled"]);
    let let_in = of(&ctl(&data, &["tenant", "list"]), 8);
    assert_eq!((&let_in["locks_max"], &let_in["enabled"]), (&5.into(), &true.into()));
    ctl(&data, &["grant", "0:1", "7", "authorize,read"]);
    ctl(&data, &["merchant", "9", "--tenant", "7", "--payee", PAYEE]);
    let price = ctl(&data, &["price", "set", "4000", "--asset", "1", "--quote", "840"]);
    assert_eq!(price["replies"].as_array().unwrap().len(), 2, "one for each shard");

    ctl(&data, &["partition", "freeze", "0:1", "--reason", "3"]);
    assert_eq!(ctl(&data, &["partition", "show", "0:1"])["frozen"], true);
    ctl(&data, &["partition", "unfreeze", "0:1"]);
    assert_eq!(ctl(&data, &["partition", "show", "0:1"])["frozen"], false);

    let merchants =
        surety(&["ctl", "--data", data.path(), "query", "--kind", "merchant_set", "--json"]).exits(0);
    assert!(merchants.stdout.contains(PAYEE) && merchants.json()["records"] == 1, "{}", merchants.stdout);
    let limited = surety(&["ctl", "--data", data.path(), "query", "--limit", "3", "--json"]).exits(0);
    assert_eq!(limited.stdout.lines().count(), 4, "three records and the count");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn declines_and_wrong_targets_have_their_exit_codes() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "fsync");
    let run = |args: &[&str]| {
        let own = ["ctl", "--data", data.path()];
        surety(&own.iter().chain(args).copied().collect::<Vec<_>>())
    };
    ctl(&data, &["partition", "create", "0:1"]);
    run(&["partition", "create", "0:1"]).fails(10, "EXISTS");
    run(&["partition", "show", "0:9"]).fails(10, "UNKNOWN_PARTITION");
    run(&["deposit", "0:9", "5", "--supplier", SUPPLIER, "--nonce", "1"]).fails(10, "UNKNOWN_PARTITION");
    run(&["withdraw", "0:1", "5", "--supplier", SUPPLIER]).fails(10, "INSUFFICIENT");
    run(&["lock", "show", "0:1", "0190a1b2-c3d4-7000-8000-000000000001", "--tenant", "1"])
        .fails(10, "NOT_FOUND: over and forgotten");
    // Without a loss there is nothing to reconcile, and nothing is logged.
    let seqs = || ctl(&data, &["status"])["shards"][0]["acked"].clone();
    let before = seqs();
    for more in [&[][..], &["--yes"]] {
        let told = run(&[&["partition", "reconcile", "0:1", "--note", "1"][..], more].concat()).exits(0);
        assert!(told.stdout.contains("nothing to reconcile"), "{}", told.stdout);
    }
    assert_eq!(seqs(), before);
    run(&["partition", "freeze", "0:1"]).exits(0);
    run(&["withdraw", "0:1", "5", "--supplier", SUPPLIER])
        .fails(10, "FROZEN: the partition is frozen: `surety ctl");
    run(&["partition", "unfreeze", "0:1"]).exits(0);
    let granted = run(&["grant", "0:1", "77", "authorize"]).exits(0);
    assert!(granted.stderr.contains("`surety ctl tenant set 77 --enabled`"), "{}", granted.stderr);
    run(&["tenant", "set", "77"]).exits(0);
    assert_eq!(run(&["grant", "0:1", "77", "authorize"]).exits(0).stderr, "");
    run(&["policy", "set", "0:1", "life_defualt=1s"]).fails(2, "life_defualt");
    run(&["policy", "set", "0:1", "life_default=60d"]).fails(2, "contradict");
    run(&["partition", "create", "5:1"]).fails(2, "no shard 5");
    run(&["partition", "show", "5:1"]).fails(2, "no shard 5");
    let value = run(&["partition", "create", "0:1", "--json"]).exits(10).json();
    assert_eq!((value["ok"].as_bool(), value["code"].as_str()), (Some(false), Some("EXISTS")));
    // A reader may not change anything.
    let reader = data.file("pki/reader.pem");
    let reader = reader.to_str().unwrap();
    let connect = ["ctl", "--connect", engine.listen(), "--identity", reader];
    let create = ["partition", "create", "0:2"];
    surety(&connect.iter().chain(&create).copied().collect::<Vec<_>>()).fails(10, "NO_RIGHT");
    surety(&connect.iter().chain(&["status"]).copied().collect::<Vec<_>>()).exits(0);
    surety(&["ctl", "--connect", engine.listen(), "--identity", "/nowhere.pem", "status"])
        .fails(2, "/nowhere.pem");
    // An identity of another authority.
    let other = Data::init(1);
    let stranger = other.file("pki/admin.pem");
    let stranger = ["ctl", "--connect", engine.listen(), "--identity", stranger.to_str().unwrap(), "status"];
    surety(&stranger).fails(9, engine.listen());
    // A script gets its object also where nobody was reached.
    let value = surety(&[&stranger[..], &["--json"]].concat()).exits(9).json();
    assert_eq!((value["ok"].as_bool(), value["exit"].as_u64()), (Some(false), Some(9)));
    assert!(value["error"].as_str().is_some_and(|error| error.contains(engine.listen())), "{value}");
    ctl(&data, &["status"]);
    run(&["clock", "accept"]).fails(5, "in use");
    run(&["merchant", "9", "--tenant", "7", "--payee", &format!("0x{}", "00".repeat(20))])
        .fails(2, "nobody has the address zero");
    // The clients above have gone, and said so: nobody is waited for.
    let begun = std::time::Instant::now();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(4),
        "the drain waited for clients that have ended"
    );
}

/// The lines of a log that say this.
fn saying<'a>(logs: &'a [Value], what: &str) -> Vec<&'a Value> {
    logs.iter().filter(|line| line["message"] == what).collect()
}

#[test]
fn whatever_an_operator_does_names_its_author() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "fsync");
    let actor = |name: &str| {
        let file = data.file("pki").join(name).with_extension("pem");
        actor_of(&CertificateDer::from_pem_file(file).unwrap()).to_string()
    };
    // Every command that changes something, and the kind of its record.
    let changes: [(&str, &[&str]); 11] = [
        ("partition_create", &["partition", "create", "0:1", "--asset", "1"]),
        ("policy", &["policy", "set", "0:1", "lock_max=1e21", "unbonding=0"]),
        ("deposit", &["deposit", "0:1", "1e21", "--supplier", SUPPLIER, "--nonce", "1"]),
        ("deficit", &["loss", "deficit", "0:1", "1e20"]),
        ("unfreeze", &["partition", "unfreeze", "0:1"]),
        ("withdraw", &["withdraw", "0:1", "7", "--supplier", SUPPLIER]),
        ("tenant_set", &["tenant", "set", "7", "--locks-max", "1000"]),
        ("grant", &["grant", "0:1", "7", "authorize,read"]),
        ("merchant_set", &["merchant", "9", "--tenant", "7", "--payee", PAYEE]),
        ("price", &["price", "set", "4000", "--asset", "1", "--quote", "840"]),
        ("freeze", &["partition", "freeze", "0:1", "--reason", "3"]),
    ];
    for (_, command) in changes {
        ctl(&data, command);
    }
    for command in ["cover", "write-off"] {
        surety(&["ctl", "--data", data.path(), "loss", command, "0:1", "5"]).fails(10, "INSUFFICIENT");
    }
    let records = surety(&["ctl", "--data", data.path(), "query", "--json"]).exits(0).stdout;
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (admin, settler) = (actor("admin"), actor("settler"));
    let is_peoples = |record: &&Value| {
        let kind = Kind::ALL.iter().find(|kind| record["kind"] == kind.name());
        kind.is_some_and(|kind| !matches!(kind.origin(), Origin::Engine | Origin::Part))
    };
    let mut kinds = BTreeSet::new();
    for record in records.iter().filter(is_peoples) {
        let author = record["actor"].as_str().unwrap_or_else(|| panic!("nobody has done this: {record}"));
        assert!([admin.as_str(), settler.as_str()].contains(&author), "{record}");
        kinds.insert(record["kind"].as_str().unwrap());
    }
    let expected = changes.iter().map(|(kind, _)| *kind).chain(["cover", "write_off"]);
    assert_eq!(kinds, expected.collect::<BTreeSet<_>>());

    // What is no record is in the log of the process.
    let reader = data.file("pki/reader.pem");
    let identity = std::fs::read_to_string(&reader).unwrap();
    let list = DevelopmentPki::open(&data.file("pki")).unwrap().revocations(&[identity]).unwrap();
    let ask = ["ctl", "--connect", engine.listen(), "--identity", reader.to_str().unwrap(), "status"];
    surety(&ask).exits(0);
    std::fs::write(data.file("pki/revoked.pem"), list).unwrap();
    engine.signal(Signal::HUP);
    let begun = Instant::now();
    while surety(&ask).exit == 0 {
        assert!(begun.elapsed() < Duration::from_secs(100), "it is still let in");
    }
    let logs = engine.logs();
    for (name, actor) in [("admin", &admin), ("settler", &settler), ("reader", &actor("reader"))] {
        let opened = saying(&logs, "connection opened");
        let own = opened
            .iter()
            .find(|line| line["actor"] == *actor)
            .unwrap_or_else(|| panic!("{name}: {opened:?}"));
        assert_eq!((&own["subject"], &own["roles"], &own["tenant"]), (&name.into(), &name.into(), &0.into()));
    }
    let read = saying(&logs, "certificates were read again");
    assert_eq!((&read[0]["revoked"], &read[0]["revoked_before"]), (&1.into(), &0.into()), "{read:?}");
    assert_eq!(
        saying(&logs, "connections that would not be let in any more are closed").len(),
        1,
        "{logs:?}"
    );

    ctl(&data, &["clock", "accept"]);
    let logs = Engine::start(&data, "fsync").logs();
    let taken = saying(&logs, "the wall clock is taken as it is, once");
    let by = format!("by user {}", rustix::process::getuid().as_raw());
    assert!(taken[0]["accepted"].as_str().is_some_and(|accepted| accepted.starts_with(&by)), "{taken:?}");
    let logs = Engine::start(&data, "fsync").logs();
    assert!(saying(&logs, "the wall clock is taken as it is, once").is_empty());
}
