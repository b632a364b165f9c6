//! `init`, `cert`, `dump`, `verify`, and what every command does with nonsense.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use server::identity::role_names;
use surety_protocol::Roles;

use crate::process::{Data, Engine, ctl, surety};

#[test]
fn init_makes_a_directory_once() {
    let data = Data::init(2);
    for name in ["engine.toml", "shard-0", "shard-1", "pki/ca.pem", "pki/admin.pem", "pki/authorizer.pem"] {
        assert!(data.file(name).exists(), "{name}");
    }
    let before = data.fingerprint();
    surety(&["init", "--data", data.path()]).fails(1, "exists and is not empty");
    assert_eq!(data.fingerprint(), before);
    let mode = std::fs::metadata(data.file("pki/admin.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    for args in [
        &["serve", "--no-such-flag"][..],
        &["no-such-command"],
        &["init", "--data", "x", "--shards", "0"],
        &["init", "--data", "x", "--segment-bytes", "5000"],
        &["load", "--data", "x", "--rate", "-1"],
        &["load", "--connect", "127.0.0.1:1"],
        &["ctl", "--data", "x", "deposit", "0:1", "many", "--supplier", "0x00", "--nonce", "1"],
        &["ctl", "status"],
        &[],
    ] {
        let ended = surety(args).exits(2);
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["serve", "--help"], &["ctl", "policy", "set", "--help"], &["--version"]] {
        assert!(!surety(args).exits(0).stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn shells_complete_every_command_and_man_has_a_page_of_it() {
    let mut told = Vec::new();
    helps(&[], &mut told);
    let usage = |help: &String| {
        let line = help.lines().find_map(|line| line.strip_prefix("Usage: "))?;
        let words = line
            .split_whitespace()
            .take_while(|word| word.starts_with(|first: char| first.is_ascii_lowercase()));
        Some(words.collect::<Vec<_>>().join("-"))
    };
    let commands: BTreeSet<String> = told.iter().filter_map(usage).collect();
    assert!(commands.contains("surety-ctl-partition-create") && commands.len() == told.len(), "{commands:?}");
    let directory = tempfile::tempdir().unwrap();
    surety(&["man", directory.path().to_str().unwrap()]).exits(0);
    for command in &commands {
        let page = fs::read_to_string(directory.path().join(command).with_extension("1"));
        assert!(page.is_ok_and(|page| page.contains(".SH SYNOPSIS")), "no page of {command}");
    }
    surety(&["man", "/dev/null/pages"]).fails(1, "/dev/null/pages");
    for (shell, begin) in [("bash", "_surety()"), ("zsh", "#compdef surety"), ("fish", "complete -c surety")]
    {
        let script = surety(&["completions", shell]).exits(0).stdout;
        assert!(script.contains(begin), "{shell}");
        for command in &commands {
            let last = command.rsplit('-').next().unwrap();
            assert!(script.contains(last), "{shell} does not know {command}");
        }
        // Where the shell is here, it takes the script.
        let file = directory.path().join(shell);
        fs::write(&file, script).unwrap();
        match Command::new(shell).arg("-n").arg(&file).output() {
            Err(_) => eprintln!("SKIPPED: no {shell} here, so it does not read its completions"),
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
        }
    }
    surety(&["completions", "cmd.com"]).exits(2);
}

#[test]
fn certificates_are_made_and_never_replaced() {
    let data = Data::init(1);
    let out = data.file("router.pem");
    let out = out.to_str().unwrap();
    let client =
        ["cert", "client", "--data", data.path(), "--tenant", "7", "--role", "authorizer", "--out", out];
    surety(&client).exits(0);
    let pem = std::fs::read_to_string(out).unwrap();
    for part in ["BEGIN CERTIFICATE", "BEGIN PRIVATE KEY"] {
        assert!(pem.contains(part), "{part}");
    }
    surety(&client).fails(1, "exists already");
    assert_eq!(std::fs::read_to_string(out).unwrap(), pem);
    let own = data.file("own");
    surety(&["cert", "ca", "--out", own.to_str().unwrap()]).exits(0);
    let server = data.file("own/host");
    let (own, server) = (own.to_str().unwrap(), server.to_str().unwrap());
    surety(&["cert", "server", "--pki", own, "--host", "pay.example.org", "--out", server]).exits(0);
    assert!(data.file("own/host.key").exists());
    surety(&["cert", "client", "--pki", "/nowhere", "--tenant", "1", "--role", "admin", "--out", out])
        .fails(4, "no authority");
}

/// Every command of the program, with what its help says.
fn helps(command: &[&str], told: &mut Vec<String>) {
    let help = surety(&[command, &["--help"]].concat()).exits(0).stdout;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        helps(&[command, &[name]].concat(), told);
    }
    told.push(help);
}

/// The names of all files below a directory, but for those of logs.
fn file_names(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            file_names(&entry.path(), names);
        } else if !name.ends_with(".wal") {
            names.insert(name);
        }
    }
}

#[test]
fn what_each_key_can_do_is_told_of_every_one() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../SECURITY.md")).unwrap();
    let told = page.split("## What each key can do").nth(1).unwrap().split("\n## ").next().unwrap();
    let keys: Vec<&str> =
        told.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let check = |name: &str| {
        let name = format!("`{name}`");
        let is_named =
            keys.iter().any(|key| key.contains(&name) || key.contains(&name.replacen('`', "/", 1)));
        assert!(is_named, "SECURITY.md does not say what {name} can do");
    };
    role_names(Roles::KNOWN).into_iter().for_each(check);
    // What is made for a data directory and by `cert`.
    let data = Data::init(1);
    let mut files = BTreeSet::new();
    file_names(data.file("").as_path(), &mut files);
    let own = data.file("own");
    surety(&["cert", "ca", "--out", own.to_str().unwrap()]).exits(0);
    file_names(&own, &mut files);
    assert!(files.contains("token.key") && files.contains("ca.key"), "{files:?}");
    files.iter().for_each(|name| check(name));
    // What commands are told of secrets: by variables, options and settings.
    let mut told = Vec::new();
    helps(&[], &mut told);
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let words = told.iter().flat_map(|help| help.split(|letter| !is_part(letter)));
    let is_secret = |word: &str| {
        word.starts_with("SURETY_") && word.ends_with("_KEY") && !word.contains("__")
            || word.starts_with("--") && word.ends_with("-key")
            || word.ends_with("key_file")
    };
    let secrets: BTreeSet<&str> = words.filter(|word| is_secret(word)).collect();
    for sure in ["SURETY_POSTER_KEY", "SURETY_DEPLOYER_KEY", "--console-key", "id_key_file"] {
        assert!(secrets.contains(sure), "{secrets:?}");
    }
    secrets.into_iter().for_each(check);
}

#[test]
fn a_new_directory_verifies_and_dumps_nothing() {
    let data = Data::init(2);
    let before = data.fingerprint();
    let value = surety(&["verify", "--data", data.path(), "--json"]).exits(0).json();
    assert_eq!(value["ok"], true);
    assert_eq!(value["shards"].as_array().unwrap().len(), 2);
    assert_eq!(surety(&["dump", "--data", data.path()]).exits(0).stdout, "");
    assert_eq!(data.fingerprint(), before);
}

#[test]
fn directories_that_are_not_ours_are_refused() {
    for command in ["verify", "dump"] {
        surety(&[command, "--data", "/nowhere"]).fails(4, "surety init");
        let foreign = Data::empty();
        std::fs::write(foreign.file("notes.txt"), "mine").unwrap();
        surety(&[command, "--data", foreign.path()]).fails(4, "not a data directory");
    }
    let value = surety(&["verify", "--data", "/nowhere", "--json"]).exits(4).json();
    assert_eq!((value["ok"].as_bool(), value["exit"].as_u64()), (Some(false), Some(4)));
    let data = Data::init(1);
    surety(&["dump", "--data", data.path(), "--shard", "7"]).fails(2, "no shard 7");
}

#[test]
fn a_dump_names_everything_and_verify_adds_it_up() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "fsync");
    ctl(&data, &["partition", "create", "0:1"]);
    ctl(&data, &["policy", "set", "0:1", "life_default=30s", "lock_max=1e24"]);
    let supplier = format!("0x{}", "aa".repeat(20));
    ctl(&data, &["deposit", "0:1", "5e20", "--supplier", &supplier, "--nonce", "1"]);
    surety(&["verify", "--data", data.path()]).fails(5, "in use");
    surety(&["dump", "--data", data.path()]).fails(5, "in use");
    assert_eq!(engine.terminate(Signal::TERM), 0);

    let value = surety(&["verify", "--data", data.path(), "--json"]).exits(0).json();
    let shard = &value["shards"][0];
    assert_eq!(shard["torn"], serde_json::Value::Null);
    assert_eq!(shard["partitions"][0]["collateral"], "500000000000000000000");
    assert_eq!(shard["partitions"][0]["free"], "500000000000000000000");
    assert_eq!(shard["state_hash"].as_str().unwrap().len(), 32);

    let dump = surety(&["dump", "--data", data.path(), "--json"]).exits(0).stdout;
    let records: Vec<serde_json::Value> =
        dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["seq"].as_u64(), Some(index as u64 + 1));
    }
    assert_eq!(records.last().unwrap()["seq"], shard["seq"]);
    let find = |kind: &str| records.iter().find(|record| record["kind"] == kind).unwrap();
    assert_eq!(find("deposit")["amount"], "500000000000000000000");
    assert_eq!(find("deposit")["supplier"], supplier.as_str());
    assert_eq!(find("policy")["policy"]["life_default"], "30s");
    assert_eq!(find("partition_create")["code"], "APPROVED");
    assert!(find("start")["epoch"].as_u64().is_some());

    let from = records.len().to_string();
    let last = surety(&["dump", "--data", data.path(), "--from", &from]).exits(0).stdout;
    assert_eq!(last.lines().count(), 1, "{last}");
    let text = surety(&["dump", "--data", data.path(), "--shard", "0"]).exits(0).stdout;
    assert!(text.contains("kind=deposit code=APPROVED"), "{text}");
}
