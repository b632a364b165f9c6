//! Copies of a log: what a backup does to those who pay meanwhile, and how long a restore takes.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::{Advice, fadvise};
use serde_json::Value;

/// Between two looks whether a load has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Latencies that a knee is looked for by, the first that any rate keeps to: on a machine that is not quiet none may keep to the first.
const PROMISES: [&str; 3] = ["10ms", "100ms", "1s"];
/// The search begins with so many payments a second, and ends that near, in per cent.
const SEARCHED_FROM: &str = "2000";
const SEARCHED_TO: &str = "10";
/// Bytes that the plain copy holds in memory.
const COPIED_AT_ONCE: usize = 1 << 20;

/// The highest rate of payments whose latency kept to a promise.
#[derive(Clone, Debug)]
pub struct Knee {
    /// Payments a second.
    pub per_s: f64,
    /// The promise for the 99th percentile.
    pub p99_max: &'static str,
}

/// What `surety load find-knee` finds.
///
/// # Errors
/// If no rate keeps to any promise.
pub fn find_knee(surety: &Path, data: &Path, lasting: Duration) -> anyhow::Result<Knee> {
    for p99_max in PROMISES {
        let mut search = load(surety);
        search.args(["find-knee", "--scenario", "tap", "--json", "--p99", p99_max]);
        search.args(["--from", SEARCHED_FROM, "--precision", SEARCHED_TO, "--duration", &text(lasting)]);
        let output = search.arg("--data").arg(data).output()?;
        // One that has found nothing has said so before it failed.
        let found = last_line(&output.stdout)
            .with_context(|| format!("find-knee: {}", String::from_utf8_lossy(&output.stderr)))?;
        if let Some(per_s) = found["knee_per_s"].as_f64().filter(|per_s| *per_s > 0.0) {
            return Ok(Knee { per_s, p99_max });
        }
    }
    anyhow::bail!("no rate of payments has a 99th percentile below {}", PROMISES[PROMISES.len() - 1])
}

/// A run at a rate.
#[derive(Clone, Debug)]
pub struct Paid {
    /// 99th percentile of the latency, from the moment at which each request was to be sent.
    pub p99_us: f64,
    /// Requests that the engine did not admit, and payments that could not be begun.
    pub refused: u64,
    /// What was copied meanwhile.
    pub backups: Vec<Backup>,
}

/// Pays at a rate of `tap`; with a place to copy to, backups are made there one after the other for as long as it lasts.
///
/// # Errors
/// If a payment's outcome is lost, or a backup fails.
pub fn pay(
    surety: &Path,
    data: &Path,
    per_s: f64,
    lasting: Duration,
    to: Option<&Path>,
) -> anyhow::Result<Paid> {
    // What earlier runs have left for the disk is not this one's.
    rustix::fs::sync();
    // It prints more than a pipe holds, and nobody reads while it runs.
    let said = tempfile::NamedTempFile::new()?;
    let mut load = load(surety);
    load.args(["--scenario", "tap", "--json", "--rate", &per_s.to_string(), "--duration", &text(lasting)]);
    let load = load.arg("--data").arg(data).stdout(said.reopen()?).stderr(Stdio::null());
    let mut load = Running(load.spawn()?);
    if let Some(to) = to {
        std::fs::create_dir(to)?;
    }
    let mut backups = Vec::new();
    let status = loop {
        if let Some(status) = load.0.try_wait()? {
            break status;
        }
        match to {
            // Into a place of its own each: what they leave is removed when nobody pays any more.
            Some(to) => backups.push(back_up(surety, data, &to.join(backups.len().to_string()))?),
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    if let Some(to) = to {
        std::fs::remove_dir_all(to)?;
    }
    let report = last_line(&std::fs::read(said.path())?).context("the load has told nothing")?;
    ensure!(status.success(), "a load was not sound: {}", report["error"]);
    let refused = report["refused"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64());
    let refused = refused.sum::<u64>() + report["dropped"].as_u64().unwrap_or(0);
    let p99_us = report["p99_us"].as_f64().context("a load without a percentile")?;
    Ok(Paid { p99_us, refused, backups })
}

/// A process that does not outlive whoever gives up over something else: nobody would wait for it, and everything measured later would be
/// measured beside it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is waited for already, and then nothing is sent.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load(surety: &Path) -> Command {
    let mut command = Command::new(surety);
    command.arg("load").stdin(Stdio::null());
    command
}

fn text(span: Duration) -> String {
    format!("{}ms", span.as_millis())
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Where.
    pub place: PathBuf,
    /// How long the command took, the replay of the copy included.
    pub took: Duration,
    /// Bytes of its files.
    pub bytes: u64,
    /// The last record.
    pub last_seq: u64,
    /// What it replays to.
    pub state_hash: String,
}

/// `surety backup` of a directory of one shard.
///
/// # Errors
/// If it fails.
pub fn back_up(surety: &Path, data: &Path, to: &Path) -> anyhow::Result<Backup> {
    let mut command = Command::new(surety);
    command.args(["backup", "--json", "--data"]).arg(data).arg("--to").arg(to);
    let begun = Instant::now();
    let said = said_by(&mut command)?;
    let took = begun.elapsed();
    let shard = &said["shards"][0];
    Ok(Backup {
        place: to.to_owned(),
        took,
        bytes: said["bytes"].as_u64().context("a backup without bytes")?,
        last_seq: shard["last_seq"].as_u64().context("a backup without a shard")?,
        state_hash: shard["state_hash"].as_str().context("a backup without a state hash")?.to_owned(),
    })
}

impl Backup {
    /// How long `surety restore` takes to make a directory of it in which `verify` and `dump` can look, up to its last record: the files are copied and compared
    /// with the manifest, the log is cut and replayed from its beginning, and the state compared with what the backup says. The files are read from the disk.
    ///
    /// # Errors
    /// If it fails, or comes to another state.
    pub fn restore(&self, surety: &Path, to: &Path) -> anyhow::Result<Duration> {
        forget(&self.place)?;
        let mut command = Command::new(surety);
        command.args(["restore", "--json", "--from"]).arg(&self.place).arg("--to").arg(to);
        command.args(["--until", &self.last_seq.to_string()]);
        let begun = Instant::now();
        let said = said_by(&mut command)?;
        let took = begun.elapsed();
        let shard = &said["shards"][0];
        ensure!(
            shard["seq"] == self.last_seq && shard["state_hash"] == self.state_hash.as_str(),
            "{shard} was restored from a backup of seq {} with state hash {}",
            self.last_seq,
            self.state_hash
        );
        std::fs::remove_dir_all(to)?;
        Ok(took)
    }

    /// How long it takes to copy its files and sync them, and nothing else. They are read from the disk.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn copy(&self, to: &Path) -> anyhow::Result<Duration> {
        forget(&self.place)?;
        let begun = Instant::now();
        for file in files(&self.place)? {
            let copy = to.join(file.strip_prefix(&self.place)?);
            std::fs::create_dir_all(copy.parent().context("a file stands in a directory")?)?;
            copy_file(&file, &copy)?;
        }
        File::open(to)?.sync_all()?;
        let took = begun.elapsed();
        std::fs::remove_dir_all(to)?;
        Ok(took)
    }
}

/// By reading and writing: the kernel's own way may copy nothing at all.
fn copy_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create_new(to)?);
    let mut bytes = vec![0; COPIED_AT_ONCE];
    loop {
        let read = from.read(&mut bytes)?;
        if read == 0 {
            return Ok(to.sync_all()?);
        }
        to.write_all(&bytes[..read])?;
    }
}

/// Has the system let go of what it holds of these files in memory.
fn forget(place: &Path) -> anyhow::Result<()> {
    for file in files(place)? {
        let file = File::open(file)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn files(place: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(place)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// The last line of a command that has succeeded.
fn said_by(command: &mut Command) -> anyhow::Result<Value> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    last_line(&output.stdout).with_context(|| format!("{command:?} has said nothing"))
}

fn last_line(said: &[u8]) -> Option<Value> {
    serde_json::from_slice(said.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_and_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("from/shard-0")).unwrap();
        std::fs::write(at("from/shard-0/log"), vec![7; COPIED_AT_ONCE + 1]).unwrap();
        std::fs::write(at("from/manifest.json"), "{}").unwrap();
        let mut found = files(&at("from")).unwrap();
        found.sort();
        assert_eq!(found, [at("from/manifest.json"), at("from/shard-0/log")]);
        copy_file(&at("from/shard-0/log"), &at("log")).unwrap();
        assert_eq!(std::fs::read(at("log")).unwrap(), vec![7; COPIED_AT_ONCE + 1]);
        assert!(copy_file(&at("from/shard-0/log"), &at("log")).is_err(), "nothing is written over");
        let backup = Backup {
            place: at("from"),
            took: Duration::ZERO,
            bytes: 0,
            last_seq: 0,
            state_hash: String::new(),
        };
        backup.copy(&at("to")).unwrap();
        assert!(!at("to").exists() && at("from/shard-0/log").exists());
    }

    #[test]
    fn a_load_does_not_outlive_a_backup_that_failed() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // It stands for a program whose load goes on and whose backup fails once that is there.
        let program = at("surety");
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nif [ \"$1\" = load ]; then echo $$ >new; mv new load; exec sleep 600; fi\n\
                      until [ -e load ]; do sleep 0.01; done; exit 1\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        pay(&program, &at("data"), 1.0, Duration::from_secs(600), Some(&at("to"))).unwrap_err();
        let process = std::fs::read_to_string(at("load")).unwrap();
        // It was waited for, so it is not even a process that has ended.
        assert!(!Path::new("/proc").join(process.trim()).exists(), "the load goes on");
    }

    #[test]
    fn the_last_line_is_what_a_command_ends_with() {
        assert_eq!(last_line(b"x\n{\"a\":1}\n"), Some(serde_json::json!({ "a": 1 })));
        assert_eq!(last_line(b"{\"a\":1}\nx\n"), None);
        assert_eq!(last_line(b""), None);
    }
}
