//! `load` and `load check`.

use std::path::Path;

use rustix::process::Signal;

use crate::gateway::{self, LINK};
use crate::process::{Data, Ended, Engine, Front, send, spawn, surety};
use crate::rest::{self, Tenant};

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
    assert_eq!(closed["stopped_early"], false);
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
    for (number, signal) in [Signal::INT, Signal::TERM].into_iter().enumerate() {
        ends_with_its_report(&data, &data.file(&format!("acks.{number}")), signal);
    }
    let directory = data.path();
    surety(&["load", "--data", data.path(), "--duration", "1s", "--acks", directory])
        .fails(2, "cannot write");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

fn ends_with_its_report(data: &Data, acks: &Path, signal: Signal) {
    let args =
        ["load", "--data", data.path(), "--duration", "10m", "--acks", acks.to_str().unwrap(), "--json"];
    let mut child = spawn(&args);
    while std::fs::metadata(acks).map_or(0, |file| file.len()) < 100 * 128 {
        if child.try_wait().unwrap().is_some() {
            panic!("it has ended by itself: {:?}", Ended::from(child.wait_with_output().unwrap()));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    send(&child, signal);
    let report = Ended::from(child.wait_with_output().unwrap()).exits(0).json();
    assert!(report["replied"].as_u64().unwrap() >= 100);
    assert_eq!(report["stopped_early"], true);
}

#[test]
fn several_processes_make_one_run() {
    let data = Data::init(2);
    let engine = Engine::start(&data, "os");
    let (acks, page, hlog) = (data.file("acks.bin"), data.file("run.html"), data.file("run.hlog"));
    let path = |file: &std::path::PathBuf| file.to_str().unwrap().to_owned();
    let run = |more: &[&str]| {
        let (acks, page, hlog) = (path(&acks), path(&page), path(&hlog));
        let own =
            ["load", "--data", data.path(), "--duration", "1s", "--processes", "3", "--check", "--json"];
        let files = ["--acks", &acks, "--report", &page, "--hlog", &hlog];
        let value = surety(&[&own[..], &files[..], more].concat()).exits(0).json();
        assert_eq!((value["ok"].as_bool(), value["processes"].as_u64()), (Some(true), Some(3)), "{value}");
        let check = &value["money_check"];
        assert_eq!((check["log"].as_str(), check["lookups"].as_str()), (Some("ok"), Some("ok")), "{value}");
        assert!(check["recorded"].as_u64() >= value["replied"].as_u64(), "{value}");
        assert!(
            value["generator_cpu_s"].as_f64().unwrap() > 0.0 && value["engine_cpu_s"].is_number(),
            "{value}"
        );
        value
    };
    let closed = run(&["--in-flight", "7"]);
    let open = run(&["--rate", "150", "--scenario", "lock-release"]);
    // A constant rate of all together: not a payment more or less than one process would begin.
    assert_eq!((open["payments"].as_u64(), open["offered_per_s"].as_f64()), (Some(150), Some(150.0)));
    let of_seconds = |value: &serde_json::Value| {
        let seconds = value["intervals"].as_array().unwrap().clone();
        seconds.iter().map(|second| second["replied"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(Some(of_seconds(&open)), open["replied"].as_u64());
    assert!(std::fs::read_to_string(&page).unwrap().contains("lock-release"));
    assert!(std::fs::read_to_string(&hlog).unwrap().contains("HISTFAAA"));
    surety(&["load", "--data", data.path(), "--in-flight", "2", "--processes", "3"])
        .fails(2, "--in-flight 2");
    assert_eq!(engine.terminate(Signal::TERM), 0);
    let checked = surety(&["load", "check", "--acks", &path(&acks), "--data", data.path(), "--json"]);
    let replied = closed["replied"].as_u64().unwrap() + open["replied"].as_u64().unwrap();
    assert_eq!(checked.exits(0).json()["verified"].as_u64(), Some(replied));
}

#[test]
fn a_generator_that_dies_is_named_and_an_interrupt_stops_all() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    // `children` lists those of the thread that starts them, which is any of the runtime's.
    let generators = |process: u32| -> Vec<i32> {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let of_task = |task: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
            text.split_whitespace().map(|child| child.parse().unwrap()).collect::<Vec<i32>>()
        };
        tasks.flat_map(of_task).collect()
    };
    let begin = |acks: &std::path::Path, more: &[&str]| {
        let acks_path = acks.to_str().unwrap().to_owned();
        let own =
            ["load", "--data", data.path(), "--duration", "10m", "--processes", "2", "--json", "--acks"];
        let mut child = spawn(&[&own[..], &[acks_path.as_str()], more].concat());
        // Until both of them are, and have begun.
        while std::fs::metadata(acks).map_or(0, |file| file.len()) < 200 * 128
            || generators(child.id()).len() < 2
        {
            if child.try_wait().unwrap().is_some() {
                panic!("it has ended by itself: {:?}", Ended::from(child.wait_with_output().unwrap()));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child
    };
    let pid = |process: i32| rustix::process::Pid::from_raw(process).unwrap();
    for (number, signal) in [Signal::INT, Signal::TERM].into_iter().enumerate() {
        let interrupted = begin(&data.file(&format!("all.{number}")), &[]);
        // Whoever ends a service tells all of its processes.
        for generator in generators(interrupted.id()) {
            rustix::process::kill_process(pid(generator), signal).unwrap();
        }
        send(&interrupted, signal);
        let value = Ended::from(interrupted.wait_with_output().unwrap()).exits(0).json();
        assert_eq!((value["ok"].as_bool(), value["processes"].as_u64()), (Some(true), Some(2)), "{value}");
        assert_eq!(value["stopped_early"], true, "{value}");
    }

    let held_up = begin(&data.file("held.bin"), &["--patience", "20s"]);
    let both = generators(held_up.id());
    rustix::process::kill_process(pid(both[1]), Signal::STOP).unwrap();
    send(&held_up, Signal::INT);
    let value = Ended::from(held_up.wait_with_output().unwrap()).exits(1).json();
    let troubles = value["troubles"].as_array().unwrap();
    let is_silent = |trouble: &serde_json::Value| trouble.as_str().unwrap().contains("silent for 20s");
    assert!(troubles.iter().any(is_silent), "{troubles:?}");

    let bereft = begin(&data.file("some.bin"), &[]);
    let both = generators(bereft.id());
    assert_eq!(both.len(), 2, "{both:?}");
    rustix::process::kill_process(pid(both[0]), Signal::KILL).unwrap();
    send(&bereft, Signal::INT);
    let ended = Ended::from(bereft.wait_with_output().unwrap()).exits(1);
    let trouble = ended.json()["troubles"][0].as_str().unwrap().to_owned();
    assert!(trouble.contains(" of 2: ") && trouble.contains("signal: 9"), "{trouble}");
    assert!(ended.json()["replied"].as_u64().unwrap() > 0 && ended.stderr.contains("signal: 9"));

    // Whoever is left alone ends by itself.
    let mut orphaning = begin(&data.file("none.bin"), &[]);
    let both = generators(orphaning.id());
    orphaning.kill().unwrap();
    orphaning.wait().unwrap();
    let begun = std::time::Instant::now();
    while both.iter().any(|process| is_running(*process)) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "a generator goes on alone");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    surety(&["load", "generator"]).fails(2, "started by");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

/// False also for one that has ended and was not asked for its end yet, as in a container without an init.
fn is_running(process: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

#[test]
fn a_load_in_the_background_of_a_terminal_is_not_stopped() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let json = data.file("run.json");
    // `timeout` gives what it runs a group of its own, which is not the terminal's.
    let line = format!(
        "timeout -k 5 300 {} load --data {} --duration 300ms --json > {}",
        env!("CARGO_BIN_EXE_surety"),
        data.path(),
        json.display()
    );
    let run = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status();
    match run {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => eprintln!("SKIPPED: no terminal to be in the background of: script: {error}"),
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_front_door_is_loaded_and_the_money_agrees() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let (directory, tenant) = (tempfile::tempdir().unwrap(), Tenant::new(None));
    let limits = "limits = { rate_per_s = 1000000, burst = 1000000 }";
    let settings = rest::settings(directory.path(), "", limits, std::slice::from_ref(&tenant));
    let front = Front::start(&data, &settings);
    let address = front.ready["rest"].as_str().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, &tenant.token).unwrap();
    let token = token.to_str().unwrap();
    let own =
        ["load", "--data", data.path(), "--transport", "rest", "--duration", "500ms", "--check", "--json"];
    let run = |more: &[&str]| surety(&[&own[..], &["--door", address, "--token", token], more].concat());
    for more in [&[][..], &["--inject", "double=0.3,drop=0.05,kill=100ms"], &["--processes", "2"]] {
        let value = run(more).exits(0).json();
        assert_eq!(
            (value["ok"].as_bool(), value["transport"].as_str()),
            (Some(true), Some("rest")),
            "{value}"
        );
        assert_eq!(value["money_check"]["log"], "ok", "{value}");
        assert!(value["approved"].as_u64().unwrap() > 0, "{value}");
    }
    run(&["--scenario", "standin"]).fails(2, "`advise` cannot be said");
    surety(&[&own[..], &["--door", "192.0.2.1:80", "--token", token]].concat()).fails(2, "--door-ca");
    run(&["--asset", "AMP"]).fails(2, "AMP:18:2");
    surety(&own).fails(2, "--door");
    surety(&["load", "--data", data.path(), "--door", address, "--token", token])
        .fails(2, "--transport rest");
    std::fs::write(token, "srty_of_somebody_else").unwrap();
    run(&[]).fails(9, "401");
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
}

#[test]
fn a_link_is_loaded_and_the_money_agrees() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("acme.mac"), "ab".repeat(16)).unwrap();
    let text = format!("{LINK}mac = {{ algorithm = \"retail\", key_file = \"acme.mac\" }}\n");
    let settings = gateway::settings(directory.path(), &text);
    let front = Front::start(&data, &settings);
    let address = front.ready["listen"].as_str().unwrap();
    let link = settings.to_str().unwrap();
    let own =
        ["load", "--data", data.path(), "--transport", "iso8583", "--duration", "500ms", "--check", "--json"];
    let run = |more: &[&str]| surety(&[&own[..], &["--door", address, "--link", link], more].concat());
    let faults = ["--scenario", "timeout-storm", "--inject", "double=0.3,drop=0.05,kill=100ms"];
    for more in [&[][..], &["--scenario", "standin"], &faults, &["--processes", "2"]] {
        let value = run(more).exits(0).json();
        assert_eq!(
            (value["ok"].as_bool(), value["transport"].as_str()),
            (Some(true), Some("iso8583")),
            "{value}"
        );
        assert_eq!(value["money_check"]["log"], "ok", "{value}");
        assert!(value["approved"].as_u64().unwrap() > 0, "{value}");
    }
    run(&["--scenario", "hotel"]).fails(2, "`increase` cannot be said");
    surety(&[&own[..], &["--door", address]].concat()).fails(2, "--link");
    surety(&own).fails(2, "--door");
    // A key that the link does not know.
    std::fs::write(directory.path().join("acme.mac"), "cd".repeat(16)).unwrap();
    run(&[]).fails(9, "63");
    std::fs::write(&settings, "name = 7").unwrap();
    run(&[]).fails(2, "name");
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
}

#[test]
fn doors_are_loaded_over_tls() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let (directory, tenant) = (tempfile::tempdir().unwrap(), Tenant::new(None));
    let pki = |name: &str| data.file("pki").join(name).to_str().unwrap().to_owned();
    let tls = format!("tls = {{ certificate = {:?}, key = {:?} }}\n", pki("server.pem"), pki("server.key"));
    let limits = format!("limits = {{ rate_per_s = 1000000, burst = 1000000 }}\n{tls}");
    let link = gateway::settings(directory.path(), &format!("{LINK}{tls}"));
    let settings =
        rest::settings(directory.path(), &format!("{LINK}{tls}"), &limits, std::slice::from_ref(&tenant));
    let front = Front::start(&data, &settings);
    let token = directory.path().join("token");
    std::fs::write(&token, &tenant.token).unwrap();
    let authority = pki("ca.pem");
    for (transport, ready, own) in [
        ("rest", "rest", ["--token", token.to_str().unwrap()]),
        ("iso8583", "listen", ["--link", link.to_str().unwrap()]),
    ] {
        let address = front.ready[ready].as_str().unwrap();
        let load =
            ["load", "--data", data.path(), "--transport", transport, "--duration", "300ms", "--check"];
        let run = |more: &[&str]| surety(&[&load[..], &own, &["--json", "--door", address], more].concat());
        let value = run(&["--door-ca", &authority, "--door-name", "localhost"]).exits(0).json();
        assert_eq!(
            (value["ok"].as_bool(), value["transport"].as_str()),
            (Some(true), Some(transport)),
            "{value}"
        );
        assert!(value["approved"].as_u64().unwrap() > 0, "{value}");
        run(&["--door-ca", &authority, "--door-name", "elsewhere.example"]).fails(9, "certificate");
        run(&["--door-ca", &authority]).fails(2, "required arguments");
        run(&[]).fails(9, address);
    }
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn runs_of_several_machines_are_merged() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let run = |name: &str, scenario: &str| {
        let own = ["load", "--data", data.path(), "--duration", "200ms", "--json", "--scenario", scenario];
        let value = surety(&own).exits(0).json();
        (data.file(name).to_str().unwrap().to_owned(), value)
    };
    let write = |path: &str, value: &serde_json::Value| std::fs::write(path, value.to_string()).unwrap();
    let (one, first) = run("one.json", "tap");
    let (two, mut second) = run("two.json", "tap");
    let (other, tip) = run("other.json", "tip");
    for (path, value) in [(&one, &first), (&two, &second), (&other, &tip)] {
        write(path, value);
    }
    surety(&["load", "merge", &one, &two]).fails(2, "run 2 was made at another time than run 1");
    surety(&["load", "merge", &one, &one]).fails(2, "run 2 is the same as run 1");
    // As if another machine had made it meanwhile.
    second["started_ms"] = first["started_ms"].clone();
    write(&two, &second);
    assert_eq!(engine.terminate(Signal::TERM), 0);
    let value = surety(&["load", "merge", &one, &two, "--json"]).exits(0).json();
    let replied = |value: &serde_json::Value| value["replied"].as_u64().unwrap();
    assert_eq!(replied(&value), replied(&first) + replied(&second));
    let max = |value: &serde_json::Value| value["max_us"].as_f64().unwrap();
    assert!((max(&value) - max(&first).max(max(&second))).abs() < f64::EPSILON, "{value}");
    // What cannot be written does not keep the figures.
    let told = surety(&["load", "merge", &one, &two, "--json", "--hlog", "/dev/full"]).fails(1, "/dev/full");
    assert_eq!(replied(&told.json()), replied(&value));
    surety(&["load", "merge", &one, &other]).fails(2, "run 2 has scenario tip, run 1 has tap");
    surety(&["load", "merge", &one, "/nowhere.json"]).fails(2, "/nowhere.json");
    let mut old = first;
    old.as_object_mut().unwrap().remove("latency");
    std::fs::write(data.file("old.json"), old.to_string()).unwrap();
    let old = data.file("old.json");
    surety(&["load", "merge", &one, old.to_str().unwrap()]).fails(2, "older version");
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
