//! Clients that share nothing with this repository, against the real processes: acquirers' hosts made of other libraries' messages,
//! and a client in Python that was written from WIRE.md alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::gateway::{CANARY, LINK, SUPPLIER, engine, sent, settings};
use crate::process::{Data, Engine, Front, ctl, surety};
use crate::rest;

/// Runs the script that installs what a client needs. None, with a loud line, if that cannot be had here.
fn installed(script: &str, name: &str) -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(script);
    let is_installed = Command::new(script).arg(&directory).status().is_ok_and(|status| status.success());
    if !is_installed {
        eprintln!("SKIPPED: {name} cannot be installed here, so no client of it was tried");
    }
    is_installed.then_some(directory)
}

/// Runs a client to its end, which says that all was as it should be.
fn run(command: &mut Command, last: &str) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim_end().ends_with(last), "{out}\n{errors}");
}

#[test]
fn hosts_of_other_libraries_are_served() {
    let hosts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/hosts");
    let python = installed("iso8583/tests/pyiso8583/install.sh", "pyiso8583").map(|directory| {
        let mut command = Command::new(directory.join("bin/python"));
        command.arg(hosts.join("pyiso8583_host.py"));
        (command, LINK.to_owned())
    });
    let node = installed("gateway/tests/hosts/install.sh", "iso_8583").map(|directory| {
        let mut command = Command::new("node");
        command.arg(hosts.join("iso_8583_host.js")).env("NODE_PATH", directory.join("node_modules"));
        let link = LINK.replace("\"ascii4\"", "\"binary2\"").replace("\"ascii\"", "\"ascii_raw\"");
        (command, link)
    });
    let clients: Vec<_> = [python, node].into_iter().flatten().collect();
    let data = Data::init(1);
    let engine = engine(&data);
    let count = u128::try_from(clients.len()).unwrap();
    for (mut command, link) in clients {
        let directory = tempfile::tempdir().unwrap();
        let front = Front::start(&data, &settings(directory.path(), &link));
        let listen = front.ready["listen"].as_str().unwrap().to_owned();
        let (host, port) = listen.rsplit_once(':').unwrap();
        run(command.args([host, port, &sent()]), "served");
        let logs = front.terminate();
        assert!(logs.contains("disconnected") && !logs.contains(&CANARY[4..]), "no card is written: {logs}");
    }
    // Each has captured 20.00 and 4.00, and holds 3.00.
    let shown = ctl(&data, &["partition", "show", "0:1"]);
    let money = |field: &str| shown[field].as_str().unwrap().parse::<u128>().unwrap();
    let unit = 10_u128.pow(16);
    assert_eq!((money("captured"), money("held")), (count * 2400 * unit, count * 300 * unit), "{shown}");
    assert_eq!(money("exposure"), 0);
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
}

/// `schemathesis` makes requests out of what a front door says of itself, and holds every answer against it.
#[test]
fn a_front_door_does_what_its_description_says() {
    let Some(directory) = installed("rest/tests/install-schemathesis.sh", "schemathesis") else { return };
    let data = Data::init(1);
    let engine = rest::engine(&data);
    let place = tempfile::tempdir().unwrap();
    let tenant = rest::Tenant::new(None);
    let front =
        Front::start(&data, &rest::settings(place.path(), "", rest::PATIENT, std::slice::from_ref(&tenant)));
    let app = rest::App::new(&front, &tenant);
    // `positive_data_acceptance` is left out: nothing but a client makes keys of now, or names locks that are there.
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                  response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,\
                  allow_header_conformance,ignored_auth";
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after", "10", "900"])
        .arg(directory.join("bin/schemathesis"))
        .current_dir(place.path())
        .args(["run", &format!("http://{}/openapi.json", app.address), "--checks", checks])
        .args(["--max-examples", "30", "--seed", "1", "--workers", "1", "--request-timeout", "60"])
        .args(["-H", &format!("Authorization: Bearer {}", app.token)])
        // It says 503 by design, where nobody hands certificates out.
        .args(["--exclude-path", "/v1/locks/{id}/certificate"])
        .args(["--phases", "examples,coverage,fuzzing", "--no-color", "--suppress-health-check", "all"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("POST /v1/locks"), "{out}\n{errors}");
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
}

#[test]
fn interval_logs_are_read_by_another_library() {
    let Some(directory) = installed("../loadtest/tests/hlog/install.sh", "hdrhistogram") else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../loadtest/tests/hlog/read.py");
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let hlog = data.file("run.hlog");
    for processes in ["1", "2"] {
        let run = ["load", "--data", data.path(), "--duration", "2200ms", "--processes", processes];
        let files = ["--hlog", hlog.to_str().unwrap(), "--json"];
        let report = surety(&[&run[..], &files[..]].concat()).exits(0).json();
        let output = Command::new(directory.join("bin/python")).arg(&script).arg(&hlog).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(read["count"], report["replied"], "{read}");
        for quantile in ["p50_us", "p99_us", "max_us"] {
            let [low, high] = [0, 1].map(|end| read[quantile][end].as_f64().unwrap());
            let ours = report[quantile].as_f64().unwrap();
            // Both have three digits.
            assert!(ours > low * 0.998 && ours < high * 1.002, "{quantile}: {low} to {high}, and {ours}");
        }
        let seconds = report["intervals"].as_array().unwrap().len();
        assert_eq!(read["seconds"].as_array().unwrap().len(), seconds, "{read}");
        assert!(seconds >= 2, "{read}");
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn the_client_in_python_speaks_as_wire_md_says() {
    const FREE: &str = "100000";
    let Some(directory) = installed("client/python/install.sh", "aioquic") else { return };
    let data = Data::init(2);
    let engine = Engine::start(&data, "os");
    ctl(&data, &["partition", "create", "1:1"]);
    ctl(&data, &["tenant", "set", "1"]);
    ctl(&data, &["grant", "1:1", "1", "authorize,advise,read"]);
    ctl(&data, &["deposit", "1:1", FREE, "--supplier", SUPPLIER, "--nonce", "1"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/python/check.py");
    let identity = data.file("pki").join("authorizer.pem");
    let (host, port) = engine.listen().rsplit_once(':').unwrap();
    let partition = (1_u64 << 48 | 1).to_string();
    let mut command = Command::new(directory.join("bin/python"));
    // No caches beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script).args([host, port]).arg(identity);
    run(command.args([&partition, FREE]), "checked");
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
}
