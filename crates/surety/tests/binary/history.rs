//! The index of everything that happened, on real input: kept by a process beside an engine under load, either of which is killed, and made anew
//! from the log; asked over its socket by all sorts of askers.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use surety_protocol::Time;
use texts::values::{moment, moment_text};

use crate::process::{Data, Engine, spawn, surety};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(100);

const SERVED: [&str; 3] = ["--history", "--admin", "127.0.0.1:0"];

pub(crate) fn start(data: &Data) -> Engine {
    let engine = Engine::start_at(data, "os", "127.0.0.1:0", &SERVED);
    assert_eq!(engine.ready["history"], true);
    engine
}

pub(crate) fn load(data: &Data) {
    let load = ["load", "--data", data.path(), "--scenario", "tap", "--duration", "1s", "--rate", "1000"];
    surety(&load).exits(0);
}

/// Polls until something is there.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn get(engine: &Engine, path: &str) -> String {
    let admin = engine.ready["admin"].as_str().unwrap();
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// What a gauge of the engine's says.
pub(crate) fn gauge(engine: &Engine, name: &str) -> Option<String> {
    let text = get(engine, "/metrics");
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
}

/// One question over the socket, and its answer. None if nobody is there.
fn ask(data: &Data, question: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(data.file("history.sock")).ok()?;
    send(&mut stream, question.to_string().as_bytes());
    receive(&mut stream)
}

fn send(stream: &mut UnixStream, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    // Whoever turns an asker away does not read.
    let _ = stream.write_all(&[&length[..], body].concat());
}

fn receive(stream: &mut UnixStream) -> Option<Value> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).unwrap())
}

fn status(data: &Data) -> Option<Value> {
    let answer = ask(data, &json!({ "of": null, "ask": { "status": {} } }))?;
    answer.get("ok").cloned()
}

/// Waits until everything that was decided by now is in the index.
#[track_caller]
pub(crate) fn catch_up(data: &Data) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = moment_text(Time(u64::try_from(since.as_nanos()).unwrap()));
    until("the index does not come to the end", || {
        let status = status(data)?;
        assert!(status["state"] != "gone" && status["state"] != "failed", "{status}");
        // Moments are written so that their texts are in their order.
        (status["complete_before"].as_str()? > now.as_str()).then_some(())
    });
}

/// The process that a process has started and that still runs.
fn child_of(parent: u64) -> Option<Pid> {
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let (state, ppid) = state_of(pid)?;
        (ppid == parent && state != 'Z').then(|| Pid::from_raw(pid))?
    })
}

/// State and parent of a process.
fn state_of(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have anything in it, but what follows has no parenthesis.
    let mut words = text.rsplit_once(") ")?.1.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

pub(crate) fn is_gone(pid: Pid) -> bool {
    state_of(pid.as_raw_nonzero().get()).is_none_or(|(state, _)| state == 'Z')
}

pub(crate) fn child(engine: &Engine) -> Pid {
    let parent = engine.ready["pid"].as_u64().unwrap();
    until("the engine has no child", || child_of(parent))
}

/// Ends an engine as the machine would. Its history ends with it.
fn kill(engine: Engine) {
    let child = child(&engine);
    engine.kill();
    until("the history outlives its engine", || is_gone(child).then_some(()));
}

fn digest(data: &Data) -> Value {
    surety(&["history", "digest", "--data", data.path(), "--json"]).exits(0).json()
}

/// What was kept is what is made anew.
#[track_caller]
fn is_made_anew(data: &Data) {
    let live = digest(data);
    let verified = surety(&["verify", "--data", data.path(), "--json"]).exits(0).json();
    let seqs = |value: &Value| -> Vec<u64> {
        value["shards"].as_array().unwrap().iter().map(|shard| shard["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(seqs(&live), seqs(&verified), "everything is indexed");
    let rebuilt = surety(&["history", "rebuild", "--data", data.path(), "--json"]).exits(0).json();
    assert_eq!(rebuilt["digest"], live["digest"], "kept beside what was killed, or made anew: the same");
    assert_eq!(digest(data)["digest"], live["digest"]);
}

#[test]
fn an_index_beside_a_killed_engine_is_the_one_made_anew() {
    let data = Data::init(2);
    for round in 0..3 {
        let engine = start(&data);
        load(&data);
        if round == 2 {
            // A drain would write a checkpoint, which nobody indexes any more.
            catch_up(&data);
        }
        kill(engine);
    }
    is_made_anew(&data);
    let verified = surety(&["verify", "--data", data.path(), "--json"]).exits(0).json();
    agrees(&data, &verified);
}

/// The first record that the log of an engine of one shard still has.
fn oldest(data: &Data) -> u64 {
    let first = data.segments(0).swap_remove(0);
    first.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// Some thousand records and one engine after the other, each of which leaves a checkpoint to make a snapshot of, until the log has none before
/// `seq` and that one. The last of them goes on.
#[track_caller]
fn load_past(data: &Data, seq: u64, start: impl Fn() -> Engine, after_each: impl Fn()) -> Engine {
    until("retention takes nothing away", || {
        let engine = start();
        load(data);
        after_each();
        if oldest(data) > seq {
            return Some(engine);
        }
        assert_eq!(engine.terminate(Signal::TERM), 0);
        None
    })
}

#[test]
fn an_index_of_more_than_the_log_has_is_made_anew_with_the_archive() {
    let (data, beside) = (Data::init(1), tempfile::tempdir().unwrap());
    let (archive, config) = (beside.path().join("archive"), beside.path().join("surety.toml"));
    let kept = "snapshot_records = 1000\nretain_records = 2000\ncursor_records = 0";
    fs::write(&config, format!("[log]\narchive = {archive:?}\n{kept}\n")).unwrap();
    let archive = archive.to_str().unwrap();
    let settings = ["--config", config.to_str().unwrap()];
    let start = |more: &[&str]| Engine::start_at(&data, "os", "127.0.0.1:0", &[&settings[..], more].concat());
    let rebuild = |more: &[&str]| {
        surety(&[&["history", "rebuild", "--data", data.path(), "--json"][..], more].concat())
    };

    kill(load_past(&data, 1, || start(&SERVED), || catch_up(&data)));
    let live = digest(&data);
    rebuild(&[]).fails(1, "--archive");
    assert_eq!(digest(&data)["digest"], live["digest"], "what is refused changes nothing");
    assert_eq!(rebuild(&["--archive", archive]).exits(0).json()["digest"], live["digest"]);
    let first = ["history", "records", "--data", data.path(), "--oldest-first", "--limit", "1", "--json"];
    let first = surety(&first).exits(0).stdout;
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(first["seq"].to_string().trim_matches('"'), "1", "{first}");

    // What happens without it is archived and gone from the log before it comes back: it says so, and stays as it was.
    let indexed = live["shards"][0]["seq"].as_u64().unwrap();
    let engine = load_past(&data, indexed + 1, || start(&[]), || {});
    assert_eq!(engine.terminate(Signal::TERM), 0);
    let engine = start(&SERVED);
    until("it is not said what is gone", || (status(&data)?["state"] == "gone").then_some(()));
    until("nobody is told", || (gauge(&engine, "surety_history_up")? == "0").then_some(()));
    kill(engine);
    assert_eq!(digest(&data)["digest"], live["digest"]);
    let rebuilt = rebuild(&["--archive", archive]).exits(0).json();
    assert!(rebuilt["shards"][0]["seq"].as_u64() > Some(indexed), "{rebuilt}");
    let engine = start(&SERVED);
    catch_up(&data);
    kill(engine);

    let live = digest(&data);
    let mut segments: Vec<_> = fs::read_dir(beside.path().join("archive/shard-0")).unwrap().collect();
    segments.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    // One that has lost its end is damaged, wherever it was cut; one that is not there is missed. The index stays.
    let paths: Vec<_> = segments.into_iter().map(|entry| entry.unwrap().path()).collect();
    let oldest = begins(&data.file("shard-0"));
    let last = paths.iter().rposition(|path| *path.file_name().unwrap() < *oldest).unwrap();
    for path in [&paths[1], &paths[last]] {
        let whole = fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        for bytes in [0, last_block(&whole), whole.len() - 100] {
            fs::write(path, &whole[..bytes]).unwrap();
            rebuild(&["--archive", archive]).fails(3, &format!("{name} in"));
        }
        fs::write(path, &whole).unwrap();
    }
    fs::remove_file(&paths[1]).unwrap();
    rebuild(&["--archive", archive]).fails(1, "the log begins at");
    assert_eq!(digest(&data)["digest"], live["digest"]);
}

/// The name of a shard's oldest segment.
fn begins(shard: &Path) -> std::ffi::OsString {
    let names = fs::read_dir(shard).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| {
            name.to_str().unwrap().ends_with(".wal") && !name.to_str().unwrap().starts_with("reserve")
        })
        .min()
        .unwrap()
}

/// Where the last block of a segment begins.
fn last_block(segment: &[u8]) -> usize {
    let (mut at, mut next) = (0, 0);
    while next < segment.len() {
        at = next;
        let records = u32::from_le_bytes(segment[at + 36..at + 40].try_into().unwrap()) as usize;
        next = at + (256 + 128 * records).next_multiple_of(4096);
    }
    at
}

/// What is asked of the index is what the log and the ledger say.
fn agrees(data: &Data, verified: &Value) {
    for shard in verified["shards"].as_array().unwrap() {
        // Each question is a process that reads the log to its end.
        for totals in shard["partitions"].as_array().unwrap().iter().take(5) {
            let partition = totals["partition"].as_str().unwrap();
            let args = ["history", "balances", "--data", data.path(), partition, "--json"];
            let balances = surety(&args).exits(0).json();
            for name in ["free", "held", "captured", "owed", "exposure"] {
                assert_eq!(balances[name], totals[name], "{name} of {partition}");
            }
            closes_as_it_was(data, partition);
        }
    }
    let dump = surety(&["dump", "--data", data.path(), "--json"]).exits(0).stdout;
    let dumped: Vec<Value> = dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let captures = dumped.iter().filter(|record| record["kind"] == "capture").count();
    assert!(captures > 0);
    assert_eq!(counted(data, &["--kind", "capture"]), captures, "every capture, once");
}

/// A statement that is not told when to end ends at the last moment that is logged, and closes with what there was before it.
fn closes_as_it_was(data: &Data, partition: &str) {
    let statement = surety(&["history", "statement", "--data", data.path(), partition, "--json"]).exits(0);
    let opened: Value = serde_json::from_str(statement.stdout.lines().next().unwrap()).unwrap();
    let until = moment(opened["until"].as_str().unwrap()).unwrap();
    let before = moment_text(Time(until.0 - 1));
    let args = ["history", "balances", "--data", data.path(), partition, "--at", &before, "--json"];
    let balances = surety(&args).exits(0).json();
    let closing = &statement.json()["closing"];
    for name in ["free", "held", "captured"] {
        assert_eq!(closing[name], balances[name], "{name} of {partition} before {before}");
    }
}

/// How many records there are, over all pages.
fn counted(data: &Data, conditions: &[&str]) -> usize {
    let mut found = 0;
    let mut cursor = String::new();
    loop {
        let own = ["history", "records", "--data", data.path(), "--limit", "1000", "--json"];
        let mut args = [&own[..], conditions].concat();
        if !cursor.is_empty() {
            args.extend(["--cursor", &cursor]);
        }
        let ended = surety(&args).exits(0);
        let end = ended.json();
        found += ended.stdout.lines().count() - 1;
        if end["has_more"] == false {
            return found;
        }
        cursor = end["cursor"].as_str().unwrap().to_owned();
    }
}

#[test]
fn a_history_that_is_killed_at_any_moment_goes_on_and_is_the_one_made_anew() {
    let data = Data::init(2);
    let engine = start(&data);
    catch_up(&data);
    let load = ["load", "--data", data.path(), "--scenario", "tap", "--rate", "2000", "--duration", "12s"];
    let mut load = Loading(spawn(&load));
    let mut known = None;
    for kill in 0..5 {
        let parent = engine.ready["pid"].as_u64().unwrap();
        let victim = until("it is not started again", || child_of(parent).filter(|pid| Some(*pid) != known));
        // Every other one as soon as it is there: it reads back, or opens its store. The others while they take what comes.
        if kill % 2 == 1 {
            until("it does not answer", || status(&data));
            let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
            std::thread::sleep(Duration::from_millis(u64::from(nanos % 400)));
        }
        kill_process(victim, Signal::KILL).unwrap();
        known = Some(victim);
    }
    let ended = load.0.wait().unwrap();
    assert_eq!(ended.code(), Some(0), "payments went on");
    catch_up(&data);
    let restarts: u64 = gauge(&engine, "surety_history_restarts_total").unwrap().parse().unwrap();
    assert_eq!(restarts, 5);
    assert!(get(&engine, "/readyz").starts_with("HTTP/1.1 200"), "payments never wait for it");
    kill(engine);
    is_made_anew(&data);
}

/// A load that ends with the test.
pub(crate) struct Loading(pub(crate) Child);

impl Drop for Loading {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An engine with a history that cannot be: it serves, says so, and drains.
#[track_caller]
fn serves_without(data: &Data, more: &[&str]) {
    let engine = Engine::start_at(data, "os", "127.0.0.1:0", &[&SERVED[..], more].concat());
    assert!(get(&engine, "/readyz").starts_with("HTTP/1.1 200"));
    load(data);
    until("nothing is tried again", || {
        (gauge(&engine, "surety_history_restarts_total")? != "0").then_some(())
    });
    assert_eq!(gauge(&engine, "surety_history_up").as_deref(), Some("0"));
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn an_engine_serves_and_drains_whatever_is_wrong_with_its_history() {
    let (data, other) = (Data::init(1), Data::init(1));
    // Garbage in the place of the store.
    fs::write(data.file("history"), b"garbage").unwrap();
    serves_without(&data, &[]);
    surety(&["history", "status", "--data", data.path()]).fails(4, "there is no history");
    fs::remove_file(data.file("history")).unwrap();
    // Another engine's.
    surety(&["history", "rebuild", "--data", other.path()]).exits(0);
    fs::rename(other.file("history"), data.file("history")).unwrap();
    serves_without(&data, &[]);
    surety(&["history", "digest", "--data", data.path()]).fails(4, "is that of engine");
    fs::remove_dir_all(data.file("history")).unwrap();
    // A store whose files are not what they were.
    surety(&["history", "rebuild", "--data", data.path()]).exits(0);
    spoil(&data.file("history"));
    serves_without(&data, &[]);
    fs::remove_dir_all(data.file("history")).unwrap();
    // Nobody to read the engine as.
    let identity = data.file("nobody.pem");
    let config = data.file("serve.toml");
    fs::write(&config, format!("[history]\nidentity = {identity:?}\n")).unwrap();
    let engine = Engine::start_at(
        &data,
        "os",
        "127.0.0.1:0",
        &[&SERVED[..], &["--config", config.to_str().unwrap()]].concat(),
    );
    until("it does not say why it waits", || {
        let status = status(&data)?;
        status["shards"][0]["message"].as_str()?.contains("nobody.pem").then_some(())
    });
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

/// Overwrites the beginning of every file.
fn spoil(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            spoil(&path);
        } else {
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().take(4096).for_each(|byte| *byte = 0xa5);
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn a_history_without_room_waits_and_payments_do_not() {
    let data = Data::init(1);
    let config = data.file("serve.toml");
    fs::write(&config, "[history]\nbytes_max = 1\n").unwrap();
    let more = [&SERVED[..], &["--config", config.to_str().unwrap()]].concat();
    let engine = Engine::start_at(&data, "os", "127.0.0.1:0", &more);
    load(&data);
    until("it takes more than it may", || (status(&data)?["state"] == "no_room").then_some(()));
    assert!(get(&engine, "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_history_that_does_not_move_holds_no_shutdown_up() {
    let data = Data::init(1);
    let engine = start(&data);
    catch_up(&data);
    let child = child(&engine);
    kill_process(child, Signal::STOP).unwrap();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    assert!(is_gone(child), "it was sent away");
}

#[test]
fn a_socket_answers_whoever_asks_as_they_ask() {
    let data = Data::init(1);
    let engine = start(&data);
    load(&data);
    catch_up(&data);
    let ask = |question: Value| ask(&data, &question).unwrap();
    let records = |of: Value, ask_for: Value| ask(json!({ "of": of, "ask": { "records": ask_for } }));
    // The load's own tenant sees its own, another one nothing, whatever they ask for.
    let mine = records(json!(1), json!({ "kind": ["capture"], "limit": 5 }));
    assert_eq!(mine["ok"]["rows"].as_array().unwrap().len(), 5, "{mine}");
    // A partition's money is that of all its tenants: no tenant is told it, at any door.
    let money = |answer: &Value| -> Vec<bool> {
        let rows = answer["ok"]["rows"].as_array().unwrap();
        rows.iter().map(|row| row.get("partition_after").is_some()).collect()
    };
    let of_lock = json!({ "lock": { "id": mine["ok"]["rows"][0]["lock"] } });
    let all = [json!({ "records": { "kind": ["lock", "capture"], "limit": 50 } }), of_lock];
    for question in all {
        let [tenants, operators] =
            [json!(1), json!(null)].map(|of| money(&ask(json!({ "of": of, "ask": question }))));
        assert!(!tenants.is_empty() && tenants.iter().all(|is_told| !is_told), "{question}");
        assert!(!operators.is_empty() && operators.iter().all(|is_told| *is_told), "{question}");
    }
    assert!(!mine.to_string().contains("partition_after"), "{mine}");
    let lock = mine["ok"]["rows"][0]["lock"].clone();
    for (tenant, count) in [(1, 1), (2, 0)] {
        let found =
            records(json!(tenant), json!({ "kind": ["lock"], "tenant": [1, 2], "lock": [lock.clone()] }));
        assert_eq!(found["ok"]["rows"].as_array().unwrap().len(), count, "{found}");
        let found = ask(json!({ "of": tenant, "ask": { "lock": { "id": lock.clone() } } }));
        assert_eq!(found["ok"]["locks"].as_array().unwrap().len(), count, "{found}");
        assert_eq!(found["ok"]["rows"].as_array().unwrap().is_empty(), count == 0, "{found}");
    }
    for question in [json!({ "balances": { "partition": "0:1" } }), json!({ "status": {} })] {
        let refused = ask(json!({ "of": 2, "ask": question }));
        assert_eq!(refused["error"]["code"], "forbidden", "{refused}");
    }
    // What is wrong is said, and the connection stays.
    let mut stream = UnixStream::connect(data.file("history.sock")).unwrap();
    for wrong in [
        &b"garbage"[..],
        b"{}",
        b"\xff\xfe",
        br#"{"of":null,"ask":{"records":{"colour":["red"]}}}"#,
        br#"{"of":null,"ask":{"records":{"lock":["x"]}}}"#,
        br#"{"of":null,"ask":{"records":{"cursor":"x"}}}"#,
    ] {
        send(&mut stream, wrong);
        let refused = receive(&mut stream).unwrap();
        assert_eq!(refused["error"]["code"], "malformed", "{refused}");
    }
    // One whose length is a lie, or too long, is told and left.
    stream.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert_eq!(receive(&mut stream).unwrap()["error"]["code"], "too_long");
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    // Whoever says nothing takes a room, and only one; who comes when all are taken is told so, and has its turn when there is room.
    let silent: Vec<UnixStream> =
        (0..40).map(|_| UnixStream::connect(data.file("history.sock")).unwrap()).collect();
    until("the rooms are not all taken", || {
        let mut late = UnixStream::connect(data.file("history.sock")).ok()?;
        send(&mut late, br#"{"of":null,"ask":{"records":{}}}"#);
        (receive(&mut late)?["error"]["code"] == "busy").then_some(())
    });
    until("how it does is not told to whoever watches", || status(&data));
    drop(silent);
    let asked = || {
        let mut stream = UnixStream::connect(data.file("history.sock")).ok()?;
        send(&mut stream, br#"{"of":null,"ask":{"records":{}}}"#);
        receive(&mut stream)?.get("ok").cloned()
    };
    until("there is no room again", asked);
    assert_eq!(engine.terminate(Signal::TERM), 0);
    assert!(!data.file("history.sock").exists());
}

/// A history as a service of its own.
pub(crate) fn keeper(data: &Data) -> Loading {
    let mut kept = spawn(&["history", "run", "--data", data.path()]);
    let mut stderr = kept.stderr.take().unwrap();
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    Loading(kept)
}

#[test]
fn a_history_of_its_own_finds_its_engine_wherever_it_is() {
    let data = Data::init(1);
    let mut kept = keeper(&data);
    until("it does not answer without an engine", || (status(&data)?["state"] == "waiting").then_some(()));
    for _ in 0..2 {
        let engine = Engine::start(&data, "os");
        load(&data);
        catch_up(&data);
        surety(&["history", "digest", "--data", data.path()]).fails(5, "in use");
        surety(&["history", "run", "--data", data.path()]).fails(5, "in use");
        assert_eq!(engine.terminate(Signal::TERM), 0);
    }
    surety(&["history", "rebuild", "--data", data.path()]).fails(5, "in use");
    let found = surety(&["history", "records", "--data", data.path(), "--limit", "2", "--json"]).exits(0);
    assert_eq!(found.json()["rows"], 2);
    kill_process(Pid::from_child(&kept.0), Signal::TERM).unwrap();
    assert_eq!(kept.0.wait().unwrap().code(), Some(0));
    // What is asked of the disk now is what was answered over the socket.
    let from_disk = surety(&["history", "records", "--data", data.path(), "--limit", "2", "--json"]).exits(0);
    assert!(from_disk.stdout.lines().count() == 3);
    let status = surety(&["history", "status", "--data", data.path(), "--json"]).exits(0).json();
    for of in [&status, &status["shards"][0]] {
        assert_eq!((&of["lag_records"], &of["lag_ms"]), (&Value::Null, &Value::Null), "{of}");
    }
    let digest = surety(&["history", "digest", "--data", data.path()]).exits(0).stdout;
    assert!(digest.contains(&format!("shard 0: up to seq {}", status["shards"][0]["indexed"])), "{digest}");
}

#[test]
fn an_index_missing_or_asked_wrongly_is_refused_by_name() {
    let data = Data::init(2);
    surety(&["history", "digest", "--data", data.path()]).fails(4, "there is no history");
    surety(&["history", "rebuild", "--data", data.path()]).exits(0);
    surety(&["history", "records", "--data", data.path(), "--limit", "0"]).fails(2, "a page of 0 rows");
    surety(&["history", "records", "--data", data.path(), "--cursor", "x"]).fails(2, "cursor");
    surety(&["history", "open", "--data", data.path(), "--kind", "lock"]).fails(2, "locks have no kind");
    let statement = |more: &[&str]| {
        surety(&[&["history", "statement", "--data", data.path(), "--merchant", "1"], more].concat())
    };
    statement(&[]).fails(2, "--tenant");
    // Nobody keeps it, so nobody knows how far the log has come.
    let status = surety(&["history", "status", "--data", data.path(), "--json"]).exits(0).json();
    assert_eq!((&status["lag_records"], &status["lag_ms"]), (&Value::Null, &Value::Null), "{status}");
    let status = surety(&["history", "status", "--data", data.path()]).exits(0).stdout;
    assert!(status.contains("how far it is behind the log is not told"), "{status}");
}
