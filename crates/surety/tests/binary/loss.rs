//! Engines that go on without what was lost: what is told of it, by whom it is seen, and how often it can be. Services beside one that
//! were told what is lost end, and their exit code says that starting them again does not help.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use rustix::process::Signal;
use serde_json::Value;
use settlement::Word;
use surety_client::{Client, Draft, Identity, LockRequest, QuicOptions, SubmitError, Unknown};
use surety_protocol::{Amount, Code, MerchantId, PartitionHandle, Record, Reply};

use crate::answerer::World;
use crate::backup::{Beside, Load, backup, ends, hashes, history, restore, verified};
use crate::certify::certificate;
use crate::process::{Data, Engine, ctl, spawn, surety};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(100);
const DECLINED: i32 = 10;

#[test]
fn a_settler_and_a_certifier_of_a_lost_life_end() {
    let mut world = World::start();
    let beside = tempfile::tempdir().unwrap();
    let place = |name: &str| -> PathBuf { beside.path().join(name) };
    let (mut settler, mut certifier) = (world.settler(), world.certifier());
    let to = place("to").to_str().unwrap().to_owned();
    let taken = backup(&world.data, &to);
    // What they read from now on is lost, and they have read it.
    let lost = world.certified_lock();
    let service = certifier.ready["listen"].as_str().unwrap().parse().unwrap();
    certificate(service, &B256::from(lost.word()).to_string());
    let listen = world.engine.listen().to_owned();
    assert_eq!(world.engine.terminate(Signal::TERM), 0);

    let restored = Data::at(place("restored"));
    restore_to_serve(&world.data, &to, restored.path(), &ends(&taken));
    world.engine = Engine::start_at(&restored, "fsync", &listen, &[]);
    assert_eq!(certifier.ends(), Some(DECLINED));
    assert_eq!(settler.ends(), Some(DECLINED));
}

/// A moment that no engine of this test has decided after: this one, and what is left of its second.
pub(crate) fn soon() -> String {
    let date =
        std::process::Command::new("date").args(["-u", "-d", "+2 seconds", "+%Y-%m-%dT%H:%M:%SZ"]).output();
    String::from_utf8(date.unwrap().stdout).unwrap().trim().to_owned()
}

/// Puts a backup back to serve from it, with the certificates of the directory that it was taken of.
pub(crate) fn restore_to_serve(data: &Data, from: &str, to: &str, kept: &str) -> Value {
    let until = soon();
    let args = ["restore", "--from", from, "--to", to, "--no-archive", "--lost-until", &until];
    let restored = surety(&[&args[..], &["--accept-loss-after", kept, "--json"]].concat());
    let restored = restored.exits(0).json();
    copy_directory(&data.file("pki"), &Path::new(to).join("pki"));
    restored
}

pub(crate) fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// An id of now, as any client makes it.
fn id_of_now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let millis = format!("{:012x}", now.as_millis());
    format!("{}-{}-7000-8000-000000000001", &millis[..8], &millis[8..])
}

#[test]
fn an_engine_goes_on_from_a_backup_and_never_calls_what_is_lost_unknown() {
    let (data, beside) = (Data::init(2), Beside::new());
    let engine = Engine::start(&data, "fsync");
    ctl(&data, &["partition", "create", "0:1"]);
    let (to, restored) = (beside.path("to"), Data::at(beside.file("restored")));
    let taken = backup(&data, &to);
    // The life that is lost goes on, and opens another epoch.
    ctl(&data, &["partition", "create", "0:2"]);
    assert_eq!(engine.terminate(Signal::TERM), 0);
    let engine = Engine::start(&data, "fsync");
    ctl(&data, &["partition", "create", "0:3"]);
    let lost_id = id_of_now();
    assert_eq!(engine.terminate(Signal::TERM), 0);

    let kept = ends(&taken);
    let until = soon();
    let refuse = |more: &[&str], stated: &str, exit: i32, what: &str| {
        let args = ["restore", "--from", &to, "--to", restored.path(), "--accept-loss-after", stated];
        surety(&[&args[..], more].concat()).fails(exit, what);
        assert!(!restored.file("").exists(), "nothing is made");
    };
    let whole = ["--no-archive", "--lost-until", &until];
    refuse(&whole[..1], &kept, 2, "--lost-until");
    refuse(&whole[1..], &kept, 2, "--no-archive");
    refuse(&["--no-archive", "--lost-until", "2020-01-01T00:00:00Z"], &kept, 2, "before the last record");
    refuse(&["--no-archive", "--lost-until", "2100-01-01T00:00:00Z"], &kept, 2, "a day after");
    let refuse = |stated: &str, exit: i32, what: &str| refuse(&whole, stated, exit, what);
    refuse("0:1,1:1", 2, &format!("--accept-loss-after {kept}"));
    refuse("5", 2, "of one shard");
    refuse("0:1", 2, "shard 1");
    let value = restore_to_serve(&data, &to, restored.path(), &kept);
    assert_eq!(hashes(&value), hashes(&taken));
    surety(&["verify", "--data", restored.path()]).exits(0);

    let open = ["--admin", "127.0.0.1:0", "--console", "127.0.0.1:0"];
    let engine = Engine::start_at(&restored, "fsync", "127.0.0.1:0", &open);
    let epoch = engine.ready["shards"][0]["epoch"].as_u64().unwrap();
    let before = taken["shards"][0]["epoch"].as_u64().unwrap();
    assert!(epoch > before + 65_536, "{epoch} after {before}");
    let listed = ctl(&restored, &["partition", "list"]);
    assert_eq!(listed["partitions"].as_array().unwrap().len(), 1);
    let look_up = ["ctl", "--data", restored.path(), "lock", "show", "0:1", &lost_id, "--tenant", "1"];
    surety(&look_up).fails(13, "UNKNOWN_AFTER_RESTORE");
    // Once what the lost life may have accepted is past, payments go on.
    let begun = Instant::now();
    loop {
        let created = surety(&["ctl", "--data", restored.path(), "partition", "create", "0:2"]);
        if created.exit == 0 {
            break;
        }
        let created = created.exits(13);
        assert!(created.stderr.contains("UNKNOWN_AFTER_RESTORE"), "{}", created.stderr);
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    }
    let listed = ctl(&restored, &["partition", "list"]);
    let unreconciled = |value: &Value| -> Vec<bool> {
        value["partitions"].as_array().unwrap().iter().map(|one| one["unreconciled"] == true).collect()
    };
    assert_eq!(unreconciled(&listed), [true, true], "also what was made since");
    seen_unreconciled(&restored, &engine, &[true, true]);
    // Without the last word it only shows what is to be compared.
    let reconcile = ["ctl", "--data", restored.path(), "partition", "reconcile", "0:1", "--note", "7"];
    surety(&reconcile).fails(2, "--yes");
    let shown = surety(&[&reconcile[..], &["--json"]].concat()).exits(2).json();
    assert_eq!((&shown["ok"], &shown["reconciled"]), (&Value::Bool(false), &Value::Bool(false)));
    assert!(shown["tenants"].is_array() && shown["policy"].is_object(), "{shown}");
    assert_eq!(unreconciled(&ctl(&restored, &["partition", "list"])), [true, true]);
    ctl(&restored, &["partition", "reconcile", "0:1", "--note", "7", "--yes"]);
    assert_eq!(unreconciled(&ctl(&restored, &["partition", "list"])), [false, true]);
    let again = surety(&[&reconcile[..], &["--yes", "--json"]].concat()).exits(0).json();
    assert_eq!(again["changed"], false, "it lives on already: {again}");
    seen_unreconciled(&restored, &engine, &[false, true]);
    surety(&look_up).fails(13, "UNKNOWN_AFTER_RESTORE");
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", restored.path()]).exits(0);
    // No index of the lost life comes along, and one of the life that goes on can be made.
    assert!(!restored.file("history").exists());
    surety(&["history", "rebuild", "--data", restored.path()]).exits(0);
    // It can be backed up again, and the loss comes along.
    let again = backup(&restored, &beside.path("again"));
    assert_eq!(hashes(&again), hashes(&verified(restored.path())));
    // A look at its beginning: a start without what was lost before it is no moment, and what lies before is as it was.
    let kept: Vec<u64> =
        taken["shards"].as_array().unwrap().iter().map(|part| part["last_seq"].as_u64().unwrap()).collect();
    for (behind, shown) in [(0, 0), (1, 0), (2, 2)] {
        let until = format!("0:{},1:{}", kept[0] + behind, kept[1] + behind);
        let looked = restore(&beside.path("again"), &beside.path(&format!("look-{behind}")), &until).exits(0);
        let looked = looked.json();
        assert_eq!(ends_at(&looked), [kept[0] + shown, kept[1] + shown], "{until}");
        assert_eq!(hashes(&looked) == hashes(&taken), shown == 0, "{until}");
    }
}

fn ends_at(restored: &Value) -> Vec<u64> {
    restored["shards"].as_array().unwrap().iter().map(|part| part["seq"].as_u64().unwrap()).collect()
}

#[test]
fn a_shard_lives_on_after_three_losses_and_a_fourth_leaves_nothing() {
    let (mut data, beside) = (history(1), Beside::new());
    for loss in 1..=3 {
        let (to, next) = (beside.path(&format!("to-{loss}")), Data::at(beside.file(&format!("life-{loss}"))));
        let taken = backup(&data, &to);
        restore_to_serve(&data, &to, next.path(), &ends(&taken));
        data = next;
    }
    let (to, next) = (beside.path("to"), beside.file("life"));
    let kept = ends(&backup(&data, &to));
    let args = ["restore", "--from", &to, "--to", next.to_str().unwrap(), "--no-archive"];
    let until = soon();
    let stated = ["--accept-loss-after", &kept, "--lost-until", &until];
    surety(&[&args[..], &stated].concat()).fails(1, "3 losses");
    assert!(!next.exists(), "what was fetched is taken away again");
    surety(&["verify", "--data", data.path()]).exits(0);
}

/// Who watches sees it as well: `top` and console count those that are left, and the console's list marks them.
fn seen_unreconciled(data: &Data, engine: &Engine, partitions: &[bool]) {
    let left = partitions.iter().filter(|is_left| **is_left).count();
    let ask = crate::console::signed_in(data, engine);
    let listed = ask("partitions");
    let marked: Vec<bool> =
        listed["partitions"].as_array().unwrap().iter().map(|row| row["unreconciled"] == true).collect();
    assert_eq!(marked, partitions, "{listed}");
    let listen = engine.ready["listen"].as_str().unwrap().to_owned();
    let reader = data.file("pki/reader.pem").display().to_string();
    let begun = Instant::now();
    loop {
        let shown = ask("overview");
        let top = surety(&["top", "--data", data.path(), "--once"]).exits(0).stdout;
        let elsewhere = ["top", "--connect", &listen, "--identity", &reader, "--once"];
        let elsewhere = surety(&elsewhere).exits(0).stdout;
        let words = format!("{left} of {} partitions are NOT RECONCILED", partitions.len());
        let is_told = top.contains(&words) && elsewhere.contains(&words);
        if is_told && shown["standing"]["money"][0]["unreconciled"] == left {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{shown}\n{top}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a partition of the test holds in all.
const COLLATERAL: u128 = 1_000;
const OURS: PartitionHandle = PartitionHandle(900);

/// An application that keeps its link while engines come and go.
async fn shop(data: &Data, engine: &Engine) -> Client {
    let identity = Identity::from_file(data.file("pki").join("authorizer.pem")).unwrap();
    let address = engine.listen().parse().unwrap();
    let options = surety_client::Options { deadline: PATIENCE, ..surety_client::Options::default() };
    Client::connect_with(QuicOptions::new(address, identity), options).await.unwrap()
}

fn lock_of(client: &Client, amount: u128) -> Record {
    let lock = LockRequest::new(OURS, Amount(amount), MerchantId(4));
    let lock = LockRequest { life: Duration::from_secs(3_600), ..lock };
    Draft::from(lock).into_record(|| client.new_id())
}

fn is_unknown(answer: &Result<Reply, SubmitError>) -> bool {
    matches!(answer, Err(SubmitError::Unknown { cause: Unknown::AfterRestore, .. }))
}

#[test]
fn a_loaded_engine_that_is_lost_goes_on_from_its_archive_and_never_oversells() {
    let (data, beside) = (Data::init(1), Beside::new());
    let restored = Data::at(beside.file("restored"));
    let (archive, to) = (beside.path("archive"), beside.path("to"));
    let config = beside.file("surety.toml");
    std::fs::write(&config, format!("[log]\narchive = {archive:?}\n")).unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &more);
    let listen = engine.listen().to_owned();
    ctl(&data, &["partition", "create", "0:900", "--asset", "1"]);
    ctl(&data, &["tenant", "set", "1", "--locks-max", "100000"]);
    ctl(&data, &["grant", "0:900", "1", "authorize,read"]);
    let supplier = "0x00000000000000000000000000000000000000aa";
    ctl(&data, &["deposit", "0:900", &COLLATERAL.to_string(), "--supplier", supplier, "--nonce", "1"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let old = runtime.block_on(shop(&data, &engine));
    let (kept, lost) = (lock_of(&old, 300), lock_of(&old, 400));
    let first = runtime.block_on(old.submit(kept)).unwrap();
    assert_eq!(first.code(), Code::Approved);
    backup(&data, &to);
    // More than one segment behind the backup is archived, and what comes last is in none that is complete.
    let acks = beside.file("acks");
    let mut load = Load::start(&data, &acks);
    let archived = || std::fs::read_dir(beside.file("archive/shard-0")).map_or(0, Iterator::count);
    let mut replies = 4_000;
    while archived() < 2 {
        load.wait_for(&acks, replies);
        replies += 2_000;
    }
    drop(load);
    let told = runtime.block_on(old.submit(lost)).unwrap();
    assert_eq!(told.code(), Code::Approved, "and it is lost");
    engine.kill();

    let until = soon();
    let args = ["restore", "--from", &to, "--to", restored.path(), "--archive", &archive];
    // A backup in the archive's place would give up everything that the archive has behind it.
    let mistaken = ["restore", "--from", &to, "--to", restored.path(), "--archive", &to];
    surety(&mistaken).fails(2, "holds a backup (manifest.json) and is no archive");
    let refused = surety(&args).fails(2, "--accept-loss-after 0:").stderr;
    let end = refused.split("kept to seq ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    assert!(first.seq.0 < end.parse().unwrap() && told.seq.0 > end.parse().unwrap(), "{end}");
    let accept = ["--accept-loss-after", &end, "--lost-until", &until];
    surety(&[&args[..], &accept].concat()).exits(0);
    copy_directory(&data.file("pki"), &restored.file("pki"));
    // The archive that it was restored out of is its own; that of a life which went on is not.
    let engine = Engine::start_at(&restored, "fsync", &listen, &more);
    let address = runtime.block_on(async { shop(&restored, &engine).await });
    let ours = || ctl(&restored, &["partition", "show", "0:900"]);
    let amount = |name: &str| ours()[name].as_str().unwrap().parse::<u128>().unwrap();
    runtime.block_on(async {
        let new = &address;
        // Who knows what is lost is told so, for good.
        tokio::time::timeout(PATIENCE, old.life_lost()).await.expect("told of the lost life");
        let again = new.submit(kept).await.unwrap();
        assert_eq!((again.code(), again.approved, again.seq), (first.code(), first.approved, first.seq));
        assert!(again.is_replayed() && again.is_unreconciled(), "{again:?}");
        assert!(is_unknown(&new.submit(lost).await));
        assert!(is_unknown(&new.lookup(OURS, lost.id, true).await));
        assert!(is_unknown(&new.submit(lock_of(new, 1)).await), "nothing is reconciled");
    });
    assert_eq!((amount("free"), amount("held")), (COLLATERAL - 300, 300));
    // Ids of the operator's own may still be of the lost time for a moment.
    let begun = Instant::now();
    let show = ["ctl", "--data", restored.path(), "partition", "reconcile", "0:900", "--note", "1"];
    assert!(surety(&show).exits(2).stdout.contains("release keys of merchants"));
    let reconcile = [&show[..], &["--yes"]].concat();
    loop {
        let answer = surety(&reconcile);
        if answer.exit == 0 {
            break;
        }
        let told = answer.exits(13).stderr;
        assert!(told.contains("--lost-until are taken for lost: once it is over"), "{told}");
        assert!(begun.elapsed() < PATIENCE, "{told}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let granted = runtime.block_on(async {
        let new = &address;
        assert!(is_unknown(&new.submit(lost).await), "for ever");
        let mut granted = 0;
        loop {
            match new.submit(lock_of(new, 90)).await.unwrap().code() {
                Code::Approved => granted += 90,
                code => break assert_eq!(code, Code::Insufficient),
            }
        }
        assert!(new.submit(kept).await.unwrap().is_replayed());
        granted
    });
    assert_eq!(granted, (COLLATERAL - 300) / 90 * 90, "all that was free, and not more");
    assert_eq!((amount("free"), amount("held")), (COLLATERAL - 300 - granted, 300 + granted));
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", restored.path()]).exits(0);

    // Without its archive it keeps less, and then the archive is another life's.
    let short = Data::at(beside.file("short"));
    let args = ["restore", "--from", &to, "--to", short.path(), "--no-archive"];
    let refused = surety(&args).fails(2, "--accept-loss-after 0:").stderr;
    let end = refused.split("kept to seq ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    surety(&[&args[..], &["--accept-loss-after", &end, "--lost-until", &soon()]].concat()).exits(0);
    let serve = ["serve", "--data", short.path(), "--listen", "127.0.0.1:0"];
    // A start that no other start mends is not one that the unit tries again.
    surety(&[&serve[..], &more].concat()).fails(2, "put the certificates back");
    copy_directory(&data.file("pki"), &short.file("pki"));
    surety(&[&serve[..], &more].concat()).fails(2, "another life");
}

#[test]
fn a_restore_that_is_cut_off_anywhere_leaves_nothing_that_is_served() {
    let (data, beside) = (history(2), Beside::new());
    let to = beside.path("to");
    let taken = backup(&data, &to);
    let kept = ends(&taken);
    // What is there when it is killed: as soon as there is anything, and as each part of it comes.
    let parts = ["", "keys/token.key", "epochs/1", "shard-1", "keys/reset.key", "engine.toml"];
    let mut cut = 0;
    for (round, part) in parts.iter().enumerate() {
        let copy = beside.path(&format!("copy-{round}"));
        let until = soon();
        let args = [&["restore", "--from", &to, "--to", &copy][..], &["--accept-loss-after", &kept]].concat();
        let args = [&args[..], &["--no-archive", "--lost-until", &until]].concat();
        let mut child = spawn(&args);
        let begun = Instant::now();
        while !Path::new(&copy).join(part).exists() && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        child.kill().unwrap();
        cut += u32::from(child.wait().unwrap().code().is_none());
        let verified = surety(&["verify", "--data", &copy]);
        // Where it came to its end it is whole.
        if verified.exit != 0 {
            verified.exits(4);
            surety(&["serve", "--data", &copy]).exits(4);
            // An empty directory may be restored into; what has anything in it may not.
            if surety(&args).exit == 0 {
                surety(&["verify", "--data", &copy]).exits(0);
            }
        }
        std::fs::remove_dir_all(&copy).unwrap();
        let whole = surety(&[&args[..], &["--json"]].concat()).exits(0).json();
        assert_eq!(hashes(&whole), hashes(&taken));
    }
    assert!(cut > 0, "each was at its end before it was killed");
}

#[test]
fn a_restore_without_a_purpose_says_what_would_be_lost_and_makes_nothing() {
    let (data, beside) = (history(1), Beside::new());
    let to = beside.path("to");
    let (taken, copy) = (backup(&data, &to), beside.path("copy"));
    let args = ["restore", "--from", &to, "--to", &copy, "--no-archive"];
    let last = taken["shards"][0]["last_seq"].as_u64().unwrap();
    let refused = surety(&args).fails(2, &format!("--accept-loss-after 0:{last}"));
    assert!(refused.stderr.contains(&format!("shard 0: kept to seq {last}, 20")), "{}", refused.stderr);
    // A directory that was there stays, and stays empty.
    std::fs::create_dir(&copy).unwrap();
    surety(&args).fails(2, "--accept-loss-after");
    assert_eq!(std::fs::read_dir(&copy).unwrap().count(), 0);
    std::fs::remove_dir(&copy).unwrap();
    surety(&[&args[..], &["--until", "1", "--accept-loss-after", "1"]].concat()).exits(2);
    surety(&[&args[..], &["--until", "1", "--accept-clock"]].concat()).exits(2);
    assert!(!Path::new(&copy).exists());
}
