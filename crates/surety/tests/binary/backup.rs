//! Backups of closed directories and beside a loaded engine, and forensic copies out of them: equal states, and every way in
//! which one of the two is cut short or damaged.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::loss::soon;
use crate::process::{Data, Ended, Engine, ctl, send, spawn, surety};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// A place beside a data directory, for backups and what is made of them.
pub(crate) struct Beside {
    directory: tempfile::TempDir,
}

impl Beside {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

pub(crate) fn backup(data: &Data, to: &str) -> Value {
    surety(&["backup", "--data", data.path(), "--to", to, "--json"]).exits(0).json()
}

pub(crate) fn restore(from: &str, to: &str, until: &str) -> Ended {
    surety(&["restore", "--from", from, "--to", to, "--until", until, "--json"])
}

/// `SHARD:SEQ` for the end of every shard of a backup.
pub(crate) fn ends(backup: &Value) -> String {
    let shards = backup["shards"].as_array().unwrap().iter();
    let ends: Vec<String> = shards.map(|part| format!("{}:{}", part["shard"], part["last_seq"])).collect();
    ends.join(",")
}

pub(crate) fn hashes(value: &Value) -> Vec<&str> {
    value["shards"].as_array().unwrap().iter().map(|part| part["state_hash"].as_str().unwrap()).collect()
}

pub(crate) fn verified(data: &str) -> Value {
    surety(&["verify", "--data", data, "--json"]).exits(0).json()
}

/// The last seq of each of two shards that a reply on file speaks of.
fn last_seqs(acks: &Path) -> [u64; 2] {
    let mut last = [0; 2];
    for reply in loadtest::read_acks(acks).unwrap() {
        let last = &mut last[usize::from(reply.shard.0)];
        *last = (*last).max(reply.seq.0);
    }
    last
}

/// A directory with some history, closed.
pub(crate) fn history(shards: u16) -> Data {
    let data = Data::init(shards);
    let engine = Engine::start(&data, "fsync");
    for number in 1..=6 {
        ctl(&data, &["partition", "create", &format!("{}:{number}", number % shards)]);
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
    data
}

/// For what begins with the second checkpoint of a log, which takes many records. Whoever copies their log under it takes the copies away.
const AS_FAST_AS_IT_CAN: [&str; 2] = ["--in-flight", "64"];

/// A load that goes on until it is dropped.
pub(crate) struct Load(Child);

impl Load {
    /// At a pace that a slow machine keeps up with, and its disk.
    pub(crate) fn start(data: &Data, acks: &Path) -> Self {
        Self::start_at(data, acks, &["--rate", "1000"])
    }

    fn start_at(data: &Data, acks: &Path, pace: &[&str]) -> Self {
        let acks = acks.to_str().unwrap();
        let own = ["load", "--data", data.path(), "--duration", "10m", "--acks", acks];
        let mut load = Self(spawn(&[&own[..], pace].concat()));
        load.wait_for(Path::new(acks), 2_000);
        load
    }

    /// Waits until so many replies are on file.
    pub(crate) fn wait_for(&mut self, acks: &Path, replies: u64) {
        let begun = Instant::now();
        while std::fs::metadata(acks).map_or(0, |file| file.len() / 128) < replies {
            assert!(begun.elapsed() < PATIENCE, "no replies come");
            assert!(self.0.try_wait().unwrap().is_none(), "the load has ended");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        send(&self.0, Signal::INT);
        self.0.wait().unwrap();
    }
}

#[test]
fn a_backup_beside_a_loaded_engine_comes_back_with_the_same_state() {
    let (data, beside) = (Data::init(2), Beside::new());
    for durability in ["fsync", "os"] {
        let engine = Engine::start(&data, durability);
        let load = Load::start(&data, &beside.file(&format!("acks-{durability}")));
        let (to, copy) =
            (beside.path(&format!("to-{durability}")), beside.path(&format!("copy-{durability}")));
        let answered = last_seqs(&beside.file(&format!("acks-{durability}")));
        let taken = backup(&data, &to);
        drop(load);
        if durability == "fsync" {
            // What was answered before the backup was begun is in it.
            let ends =
                taken["shards"].as_array().unwrap().iter().map(|part| part["last_seq"].as_u64().unwrap());
            let is_short = ends.zip(&answered).any(|(end, answered)| end < *answered);
            assert!(!is_short && answered.iter().all(|seq| *seq > 0), "{answered:?}: {taken}");
        }
        assert_eq!(engine.terminate(Signal::TERM), 0);
        let restored = restore(&to, &copy, &ends(&taken)).exits(0).json();
        assert_eq!(hashes(&restored), hashes(&taken));
        let value = verified(&copy);
        assert_eq!((hashes(&value), &value["forensic"]), (hashes(&taken), &Value::Bool(true)));
        // What was copied is a prefix of what there is now.
        let (whole, part) = (surety(&["dump", "--data", data.path()]), surety(&["dump", "--data", &copy]));
        let whole: std::collections::BTreeSet<&str> = whole.stdout.lines().collect();
        assert!(part.exits(0).stdout.lines().all(|line| whole.contains(line)));
    }
}

#[test]
fn a_closed_directory_is_copied_to_its_end_and_nobody_serves_it_meanwhile() {
    let (data, beside) = (history(2), Beside::new());
    let before = data.fingerprint();
    let taken = backup(&data, &beside.path("to"));
    assert_eq!(data.fingerprint(), before, "a backup changes nothing");
    assert_eq!(hashes(&taken), hashes(&verified(data.path())));
    let text = surety(&["backup", "--data", data.path(), "--to", &beside.path("again"), "--no-verify"]);
    assert!(text.exits(0).stdout.contains("not replayed"));
    surety(&["backup", "--data", data.path(), "--to", &beside.path("to")]).fails(1, "holds a backup already");
    surety(&["backup", "--data", &beside.path("none"), "--to", &beside.path("x")]).fails(4, "no directory");
    surety(&["backup", "--data", data.path(), "--to", "ftp://x/y"]).fails(2, "ftp");
}

#[test]
fn private_keys_stay_at_home_and_a_copy_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (data, beside) = (history(1), Beside::new());
    backup(&data, &beside.path("to"));
    assert!(beside.file("to/keys/token.key").exists());
    assert!(!beside.file("to/keys/reset.key").exists() && !beside.file("to/pki").exists());
    for name in ["to/keys/token.key", "to/shard-0/00000000000000000001.wal", "to/manifest.json"] {
        let mode = std::fs::metadata(beside.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_forensic_copy_shows_every_moment_and_is_never_served() {
    let (data, beside) = (history(1), Beside::new());
    let taken = backup(&data, &beside.path("to"));
    let last = taken["shards"][0]["last_seq"].as_u64().unwrap();
    let whole: Vec<String> =
        surety(&["dump", "--data", data.path()]).exits(0).stdout.lines().map(str::to_owned).collect();
    for seq in 1..=last {
        let copy = beside.path(&format!("copy-{seq}"));
        let restored = restore(&beside.path("to"), &copy, &seq.to_string()).exits(0).json();
        // A whole number of operations: never more than was asked for.
        let found = restored["shards"][0]["seq"].as_u64().unwrap();
        assert!(found <= seq && found + 64 > seq, "{found} for {seq}");
        let dumped = surety(&["dump", "--data", &copy]).exits(0).stdout;
        let dumped: Vec<&str> = dumped.lines().collect();
        assert_eq!(dumped, whole[..dumped.len()]);
        assert_eq!(verified(&copy)["shards"][0]["seq"], found);
    }
    let copy = beside.path("copy-3");
    surety(&["serve", "--data", &copy, "--listen", "127.0.0.1:0"]).fails(12, "forensic");
    surety(&["backup", "--data", &copy, "--to", &beside.path("x")]).fails(12, "forensic");
    assert!(beside.file("copy-3/FORENSIC.txt").exists());
    let end = beside.path("end");
    let late = restore(&beside.path("to"), &end, "2100-01-01T00:00:00Z").fails(2, "may be missing").stderr;
    let until = late.split("decided after ").nth(1).unwrap().split(' ').next().unwrap();
    let (second, nanos) = until.trim_end_matches('Z').split_once('.').unwrap();
    let later = format!("{second}.{:09}Z", nanos.parse::<u64>().unwrap() + 1);
    restore(&beside.path("to"), &end, until).exits(0);
    assert_eq!(hashes(&verified(&end)), hashes(&taken));
    let refused = |until: &str, what: &str| {
        restore(&beside.path("to"), &beside.path("refused"), until).fails(2, what);
        assert!(!beside.file("refused").exists(), "refused before anything is made");
    };
    refused(&(last + 1).to_string(), &format!("ends at seq {last}"));
    refused("1:1", "no shard 1");
    for late in [&later, "2100-01-01T00:00:00Z"] {
        refused(late, "may be missing");
    }
    restore(&beside.path("to"), &copy, "1").fails(1, "not empty");
}

/// The records of an index that nobody keeps, the oldest first.
fn indexed(data: &str, more: &[&str]) -> Vec<Value> {
    let own = ["history", "records", "--data", data, "--oldest-first", "--limit", "1000", "--json"];
    let found = surety(&[&own[..], more].concat()).exits(0).stdout;
    let rows = found.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["seq"].is_u64()).collect()
}

#[test]
fn a_forensic_copy_is_indexed_and_asked_and_stays_as_it_is() {
    let (data, beside) = (history(1), Beside::new());
    backup(&data, &beside.path("to"));
    let copy = beside.path("copy");
    restore(&beside.path("to"), &copy, "4").exits(0);
    let logged = surety(&["dump", "--data", &copy]).exits(0).stdout;
    surety(&["history", "records", "--data", &copy]).fails(4, "there is no history");
    let rebuilt = surety(&["history", "rebuild", "--data", &copy, "--json"]).exits(0).json();
    let last = verified(&copy)["shards"][0]["seq"].clone();
    assert_eq!(rebuilt["shards"][0]["seq"], last);
    // To ask needs nothing but to read.
    let index = beside.file("copy/history");
    let before = listing(index.to_str().unwrap());
    let made = indexed(&copy, &["--kind", "partition_create"]);
    let expected = logged.lines().filter(|line| line.contains("kind=partition_create")).count();
    assert_eq!(made.len(), expected, "{logged}");
    assert!(!made.is_empty() && made.iter().all(|row| row["seq"].as_u64() <= last.as_u64()), "{made:?}");
    let made = made[0]["partition"].as_str().unwrap();
    surety(&["history", "balances", "--data", &copy, made, "--json"]).exits(0);
    assert_eq!(listing(index.to_str().unwrap()), before);
    // It is still a forensic copy, and the same one.
    surety(&["serve", "--data", &copy, "--listen", "127.0.0.1:0", "--history"]).fails(12, "forensic");
    assert_eq!(surety(&["dump", "--data", &copy]).exits(0).stdout, logged);
}

#[test]
fn a_forensic_copy_without_its_beginning_is_indexed_out_of_the_archive() {
    let (data, beside) = (Data::init(1), Beside::new());
    let (archive, to, copy) = (beside.path("archive"), beside.path("to"), beside.path("copy"));
    let config = beside.file("surety.toml");
    let settings = "[log]\nsnapshot_records = 2000\nretain_records = 1\ncursor_records = 0\n";
    std::fs::write(&config, format!("{settings}archive = {archive:?}\n")).unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let engine = Engine::start_at(&data, "os", "127.0.0.1:0", &more);
    let acks = beside.file("acks");
    let mut load = Load::start_at(&data, &acks, &AS_FAST_AS_IT_CAN);
    let mut taken = Value::Null;
    for round in 1.. {
        load.wait_for(&acks, 6_000 * round);
        taken = backup(&data, &to);
        if taken["shards"][0]["first_seq"].as_u64() > Some(1) {
            break;
        }
        std::fs::remove_dir_all(&to).unwrap();
    }
    drop(load);
    assert_eq!(engine.terminate(Signal::TERM), 0);
    restore(&to, &copy, &ends(&taken)).exits(0);
    let rebuild = ["history", "rebuild", "--data", &copy, "--json"];
    surety(&rebuild).fails(1, "--archive");
    let rebuilt = surety(&[&rebuild[..], &["--archive", &archive]].concat()).exits(0).json();
    assert_eq!(
        rebuilt["shards"][0]["seq"], taken["shards"][0]["last_seq"],
        "to the moment, though the archive goes on"
    );
    let rows = indexed(&copy, &[]);
    assert_eq!((&rows[0]["seq"], rows.len()), (&1.into(), 1000), "from the very beginning");
    surety(&["history", "digest", "--data", &copy]).exits(0);
}

#[test]
fn what_is_damaged_missing_or_newer_is_refused_by_name() {
    let (data, beside) = (history(1), Beside::new());
    backup(&data, &beside.path("to"));
    let refused = |exit: i32, what: &str| {
        restore(&beside.path("to"), &beside.path("copy"), "1").fails(exit, what);
        let is_made = beside.file("copy").exists();
        if is_made {
            surety(&["verify", "--data", &beside.path("copy")]).fails(4, "restore");
            surety(&["serve", "--data", &beside.path("copy")]).fails(4, "restore");
            std::fs::remove_dir_all(beside.file("copy")).unwrap();
        }
    };
    for name in ["shard-0/00000000000000000001.wal", "directory.toml"] {
        let file = beside.file(&format!("to/{name}"));
        let sound = std::fs::read(&file).unwrap();
        let mut flipped = sound.clone();
        flipped[9] ^= 1;
        std::fs::write(&file, flipped).unwrap();
        refused(3, name);
        std::fs::write(&file, &sound[..sound.len() - 1]).unwrap();
        refused(3, name);
        std::fs::remove_file(&file).unwrap();
        refused(1, name);
        std::fs::write(&file, &sound).unwrap();
    }
    let manifest = beside.file("to/manifest.json");
    let sound = std::fs::read_to_string(&manifest).unwrap();
    for (from, to, exit, what) in [
        ("\"format\": 1", "\"format\": 2", 6, "format 2"),
        ("\"log_format\": 1", "\"log_format\": 9", 6, "format 9"),
        ("\"files\"", "\"fires\"", 3, "fires"),
    ] {
        assert!(sound.contains(from));
        std::fs::write(&manifest, sound.replacen(from, to, 1)).unwrap();
        refused(exit, what);
    }
    std::fs::remove_file(&manifest).unwrap();
    refused(4, "no manifest.json");
    surety(&["backup", "--data", data.path(), "--to", &beside.path("to")]).fails(1, "cut short");
}

/// No command takes a backup for a data directory.
fn refused_as_data(place: &str, beside: &Beside) {
    let before: Vec<String> = listing(place);
    surety(&["verify", "--data", place]).fails(4, "is a backup");
    surety(&["dump", "--data", place]).fails(4, "is a backup");
    surety(&["serve", "--data", place, "--listen", "127.0.0.1:0"]).fails(4, "is a backup");
    surety(&["backup", "--data", place, "--to", &beside.path("second")]).fails(4, "is a backup");
    assert!(!beside.file("second").exists());
    assert_eq!(listing(place), before, "nothing is written into it");
}

fn listing(place: &str) -> Vec<String> {
    let names = std::fs::read_dir(place).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_whole_or_not_is_never_a_data_directory() {
    let (data, beside) = (history(1), Beside::new());
    let to = beside.path("to");
    backup(&data, &to);
    refused_as_data(&to, &beside);
    std::fs::remove_file(beside.file("to/manifest.json")).unwrap();
    refused_as_data(&to, &beside);
    // Whatever else a kill has not let it write: the first file refuses.
    for directory in ["to/shard-0", "to/keys", "to/epochs"] {
        std::fs::remove_dir_all(beside.file(directory)).unwrap();
        refused_as_data(&to, &beside);
    }
}

#[test]
fn what_a_directory_cannot_do_without_is_missed_and_notes_are_not() {
    let (data, beside) = (Data::init(1), Beside::new());
    assert!(!data.file("epochs/0").exists(), "never served");
    backup(&data, &beside.path("fresh"));
    std::fs::remove_file(data.file("keys/token.key")).unwrap();
    surety(&["backup", "--data", data.path(), "--to", &beside.path("to")]).fails(3, "token.key is missing");
    restore(&beside.path("to"), &beside.path("copy"), "1").fails(4, "no manifest.json");
}

#[test]
fn a_directory_that_is_no_engines_but_in_use_is_in_use() {
    let (data, beside) = (history(1), Beside::new());
    let lock = std::fs::File::open(data.file("LOCK")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let to = beside.path("to");
    surety(&["backup", "--data", data.path(), "--to", &to]).fails(5, "in use");
    drop(lock);
    backup(&data, &to);
}

/// Kills the command after a while that is another each time; true if it was still running.
fn killed_after(mut child: Child, while_running: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < while_running {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

#[test]
fn a_killed_backup_is_none_and_a_killed_restore_is_refused() {
    let (data, beside) = (history(2), Beside::new());
    let taken = backup(&data, &beside.path("whole"));
    let until = ends(&taken);
    let mut unfinished = [0; 2];
    for round in 0..30 {
        let (to, copy) = (beside.path(&format!("to-{round}")), beside.path(&format!("copy-{round}")));
        let moment = Duration::from_millis(round * 3);
        killed_after(spawn(&["backup", "--data", data.path(), "--to", &to, "--json"]), moment);
        if Path::new(&to).join("manifest.json").exists() {
            let back = beside.path(&format!("back-{round}"));
            assert_eq!(hashes(&restore(&to, &back, &until).exits(0).json()), hashes(&taken));
        } else {
            restore(&to, &beside.path("nothing"), &until).fails(4, "no manifest.json");
            if Path::new(&to).exists() {
                for args in [["verify", "--data", &to], ["serve", "--data", &to], ["dump", "--data", &to]] {
                    surety(&args).exits(4);
                }
                surety(&["backup", "--data", &to, "--to", &beside.path("second")]).exits(4);
            }
            assert!(!beside.file("nothing").exists());
            unfinished[0] += 1;
        }
        let from = beside.path("whole");
        let args = ["restore", "--from", &from, "--to", &copy, "--until", &until, "--json"];
        killed_after(spawn(&args), moment);
        if Path::new(&copy).join("engine.toml").exists() && !Path::new(&copy).join("RESTORING").exists() {
            assert_eq!(hashes(&verified(&copy)), hashes(&taken));
        } else {
            for args in [["verify", "--data", &copy], ["serve", "--data", &copy], ["dump", "--data", &copy]] {
                surety(&args).exits(4);
            }
            unfinished[1] += 1;
        }
    }
    assert!(unfinished[0] > 0 && unfinished[1] > 0, "some were cut short: {unfinished:?}");
}

#[test]
fn retention_takes_nothing_from_under_a_backup() {
    let (data, beside) = (Data::init(1), Beside::new());
    let config = beside.file("surety.toml");
    std::fs::write(&config, "[log]\nsnapshot_records = 2000\nretain_records = 1\ncursor_records = 0\n")
        .unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let engine = Engine::start_at(&data, "os", "127.0.0.1:0", &more);
    let acks = beside.file("acks");
    let mut load = Load::start_at(&data, &acks, &AS_FAST_AS_IT_CAN);
    let (to, copy) = (beside.path("to"), beside.path("copy"));
    // Retention is at work under two of them.
    let mut shortened = 0;
    for round in 1.. {
        load.wait_for(&acks, 6_000 * round);
        let taken = backup(&data, &to);
        let restored = restore(&to, &copy, &ends(&taken)).exits(0).json();
        assert_eq!(hashes(&restored), hashes(&taken));
        shortened += u64::from(taken["shards"][0]["first_seq"].as_u64() > Some(1));
        if shortened == 2 {
            break;
        }
        std::fs::remove_dir_all(&to).unwrap();
        std::fs::remove_dir_all(&copy).unwrap();
    }
    drop(load);
    assert_eq!(engine.terminate(Signal::TERM), 0);
    // What lies before the first state of a backup is told with what would help.
    restore(&to, &beside.path("early"), "1").fails(2, "--whole");
}

#[test]
fn an_archive_leads_a_restore_beyond_its_backup() {
    let (data, beside) = (Data::init(1), Beside::new());
    let (archive, to, copy) = (beside.path("archive"), beside.path("to"), beside.path("copy"));
    let config = beside.file("surety.toml");
    std::fs::write(&config, format!("[log]\narchive = {archive:?}\n")).unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let engine = Engine::start_at(&data, "os", "127.0.0.1:0", &more);
    let acks = beside.file("acks");
    let mut load = Load::start(&data, &acks);
    let taken = backup(&data, &to);
    let backed_up = taken["shards"][0]["last_seq"].as_u64().unwrap();
    // Whole segments; a kill may leave a part of one beside them.
    let archived = || -> Vec<u64> {
        let Ok(names) = std::fs::read_dir(beside.file("archive/shard-0")) else { return Vec::new() };
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut firsts: Vec<u64> = names.filter_map(|name| name.strip_suffix(".wal")?.parse().ok()).collect();
        firsts.sort_unstable();
        firsts
    };
    let mut replies = 4_000;
    while archived().last() <= Some(&backed_up) {
        load.wait_for(&acks, replies);
        replies += 2_000;
    }
    drop(load);
    // At any moment: what is archived is whole.
    engine.kill();
    let args = ["restore", "--from", &to, "--to", &copy, "--archive", &archive, "--json", "--until"];
    let restore = |until: &str, to: &str| {
        let mut args = args.to_vec();
        args[4] = to;
        surety(&[&args[..], &[until]].concat())
    };
    // The time is not known to be complete, and the error says which seq is the end.
    let late = restore("2100-01-01T00:00:00Z", &copy).fails(2, "may be missing").stderr;
    std::fs::remove_dir_all(beside.file("copy")).unwrap();
    let end = late.split("ends at seq ").nth(1).unwrap().split(',').next().unwrap();
    let restored = restore(end, &copy).exits(0).json();
    let end = restored["shards"][0]["seq"].as_u64().unwrap();
    assert!(end > backed_up, "{end} beyond {backed_up}");
    surety(&["verify", "--data", &archive]).fails(4, "an archive");
    let (whole, part) = (surety(&["dump", "--data", data.path()]), surety(&["dump", "--data", &copy]));
    assert!(whole.exits(0).stdout.starts_with(&part.exits(0).stdout));
    restore(&(backed_up + 1).to_string(), &beside.path("beyond")).exits(0);
    verified(&beside.path("beyond"));

    // To serve from: to the end of the archive, and nowhere else.
    let serve = |kept: &str| {
        let (from, to) = (to.as_str(), beside.path("served"));
        let args = ["restore", "--from", from, "--to", &to, "--archive", &archive, "--lost-until", &soon()];
        surety(&[&args[..], &["--accept-loss-after", kept]].concat())
    };
    serve("1").fails(2, &format!("--accept-loss-after 0:{end}"));
    assert!(!beside.file("served").exists());
    serve(&end.to_string()).exits(0);
    verified(&beside.path("served"));

    // Damaged, of another engine, or none at all.
    let last = beside.file(&format!("archive/shard-0/{:020}.wal", archived().last().unwrap()));
    let sound = std::fs::read(&last).unwrap();
    let mut flipped = sound.clone();
    flipped[5_000] ^= 1;
    std::fs::write(&last, flipped).unwrap();
    restore("1", &beside.path("damaged")).exits(3);
    std::fs::write(&last, sound).unwrap();
    let identity = beside.file("archive/directory.toml");
    std::fs::write(&identity, std::fs::read(Data::init(1).file("engine.toml")).unwrap()).unwrap();
    restore("1", &beside.path("foreign")).fails(4, "archive of engine");
    std::fs::remove_file(&identity).unwrap();
    restore("1", &beside.path("foreign")).fails(4, "no archive");
}

#[test]
fn of_two_backups_to_one_place_at_once_one_is_refused() {
    let (data, beside) = (history(1), Beside::new());
    let copy = data_copy(&data, &beside);
    for round in 0..4 {
        let to = beside.path(&format!("to-{round}"));
        let ended: Vec<Ended> = std::thread::scope(|scope| {
            let backups = [data.path(), &copy].map(|data| {
                let to = &to;
                scope.spawn(move || surety(&["backup", "--data", data, "--to", to, "--json"]))
            });
            backups.into_iter().map(|backup| backup.join().unwrap()).collect()
        });
        let exits: Vec<i32> = ended.iter().map(|ended| ended.exit).collect();
        // Whoever comes later finds a place that is being filled, or that is full.
        assert!(matches!(exits[..], [0, 1 | 5] | [1 | 5, 0]), "{exits:?}");
        restore(&to, &beside.path(&format!("copy-{round}")), "0:6").exits(0);
    }
}

/// The same directory once more, so that its lock keeps nobody from a second backup.
fn data_copy(data: &Data, beside: &Beside) -> String {
    let copy = beside.path("data");
    let copied = std::process::Command::new("cp").args(["-r", data.path(), &copy]).status();
    assert!(copied.unwrap().success());
    copy
}

#[test]
fn notes_of_a_start_that_came_to_nothing_are_not_copied() {
    let (data, beside) = (history(1), Beside::new());
    let notes = std::fs::read_to_string(data.file("epochs/0")).unwrap();
    std::fs::write(data.file("epochs/0"), format!("{notes}99 1000\n")).unwrap();
    backup(&data, &beside.path("to"));
    assert_eq!(std::fs::read_to_string(beside.file("to/epochs/0")).unwrap(), notes);
}
