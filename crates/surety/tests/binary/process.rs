//! Processes of the binary under test, and directories for them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How `serve` ends where somebody has its port, and how long it is tried again.
const PORT_TAKEN: i32 = 7;
const PATIENCE: Duration = Duration::from_secs(100);

/// What a command that has ended leaves behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary to its end.
pub(crate) fn surety(args: &[&str]) -> Ended {
    surety_with(args, &[])
}

/// The same with settings in the environment.
pub(crate) fn surety_with(args: &[&str], environment: &[(&str, &str)]) -> Ended {
    let output = command(args, environment).stdin(Stdio::null()).output().unwrap();
    Ended::from(output)
}

/// The same with nobody who reads its standard output.
pub(crate) fn unread(args: &[&str]) -> Ended {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child =
        command(args, &[]).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    Ended::from(child.wait_with_output().unwrap())
}

/// The same with nobody who reads its standard error.
pub(crate) fn unheard(args: &[&str]) -> Ended {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child =
        command(args, &[]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    Ended::from(child.wait_with_output().unwrap())
}

/// The same, left to run.
pub(crate) fn spawn(args: &[&str]) -> Child {
    spawn_with(args, &[])
}

pub(crate) fn spawn_with(args: &[&str], environment: &[(&str, &str)]) -> Child {
    command(args, environment).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn command(args: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_surety"));
    command.args(args).envs(environment.iter().copied());
    command
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Expects an exit code.
    #[track_caller]
    pub(crate) fn exits(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Expects a failure told in one line on standard error that says `what`.
    #[track_caller]
    pub(crate) fn fails(self, exit: i32, what: &str) -> Self {
        let ended = self.exits(exit);
        let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one line: {}", ended.stderr);
        assert!(errors[0].contains(what), "`{what}` in: {}", errors[0]);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        ended
    }

    /// The JSON object on the last line of standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}\nstderr: {}", self.stderr))
    }
}

/// A data directory that goes when the test ends.
pub(crate) struct Data {
    place: Place,
}

/// Where it is.
enum Place {
    Own(tempfile::TempDir),
    /// Somebody else sees to it.
    Given(PathBuf),
}

impl Data {
    /// Makes one with small segments, so that tests see logs of many.
    pub(crate) fn init(shards: u16) -> Self {
        let data = Self::empty();
        let shards = shards.to_string();
        surety(&["init", "--data", data.path(), "--shards", &shards, "--segment-bytes", "1048576"]).exits(0);
        data
    }

    /// A place where there is none yet.
    pub(crate) fn empty() -> Self {
        Self { place: Place::Own(tempfile::tempdir().unwrap()) }
    }

    /// One that is, or will be, at a place.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { place: Place::Given(path) }
    }

    /// The data directory.
    pub(crate) fn path(&self) -> &str {
        // `init` takes an empty directory as well as a missing one; a name inside leaves room beside it.
        self.directory().to_str().unwrap()
    }

    fn directory(&self) -> &Path {
        match &self.place {
            Place::Own(directory) => directory.path(),
            Place::Given(path) => path,
        }
    }

    /// A file of the data directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The segments of a shard in order.
    pub(crate) fn segments(&self, shard: u16) -> Vec<PathBuf> {
        let directory = self.file(&format!("shard-{shard}"));
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let is_segment = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with(".wal") && !name.starts_with("reserve")
        };
        let mut segments: Vec<_> = entries.filter(is_segment).collect();
        segments.sort();
        segments
    }

    /// A hash of every file that holds something, to see that nothing was changed.
    ///
    /// The lock file is left out: it names the process that last held the lock.
    pub(crate) fn fingerprint(&self) -> BTreeMap<PathBuf, blake3::Hash> {
        let mut files = BTreeMap::new();
        collect(self.directory(), &mut files);
        files
    }
}

fn collect(directory: &Path, files: &mut BTreeMap<PathBuf, blake3::Hash>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.file_name().is_some_and(|name| name != "LOCK") {
            files.insert(path.clone(), blake3::hash(&std::fs::read(&path).unwrap()));
        }
    }
}

/// A running `surety serve`.
pub(crate) struct Engine {
    child: Child,
    /// Reads its log to the end.
    log: Option<JoinHandle<String>>,
    pub(crate) ready: Value,
}

impl Engine {
    /// Starts it on free ports and waits until it is ready.
    pub(crate) fn start(data: &Data, durability: &str) -> Self {
        Self::start_at(data, durability, "127.0.0.1:0", &[])
    }

    /// The same with an address and more flags.
    pub(crate) fn start_at(data: &Data, durability: &str, listen: &str, more: &[&str]) -> Self {
        Self::start_with(data, durability, listen, more, &[])
    }

    /// The same with settings in the environment.
    pub(crate) fn start_with(
        data: &Data,
        durability: &str,
        listen: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let own = [
            "serve",
            "--data",
            data.path(),
            "--listen",
            listen,
            "--durability",
            durability,
            "--segment-bytes",
            "1048576",
        ];
        let args: Vec<&str> = own.iter().chain(more).copied().collect();
        let begun = Instant::now();
        let (mut child, line) = loop {
            let mut child = spawn_with(&args, environment);
            let mut line = String::new();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            stdout.read_line(&mut line).unwrap();
            if !line.is_empty() {
                break (child, line);
            }
            let ended = Ended::from(child.wait_with_output().unwrap());
            // While an engine is away, the system may give its port to a client that dials it, until that gives up.
            let may_pass = ended.exit == PORT_TAKEN && begun.elapsed() < PATIENCE;
            assert!(may_pass, "serve ended with {}: {}", ended.exit, ended.stderr);
        };
        // Logs must go somewhere, or the process stops when the pipe is full.
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, log: Some(log), ready: serde_json::from_str(&line).unwrap() }
    }

    /// One whose logs reach nobody: the pipe is closed at its other end.
    pub(crate) fn unheard(data: &Data, more: &[&str]) -> Self {
        let own = ["serve", "--data", data.path(), "--listen", "127.0.0.1:0", "--segment-bytes", "1048576"];
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(&[&own[..], more].concat(), &[]);
        let mut child = command.stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, log: None, ready: serde_json::from_str(&line).unwrap() }
    }

    /// Address of shard 0.
    pub(crate) fn listen(&self) -> &str {
        self.ready["listen"].as_str().unwrap()
    }

    /// Ends it as the machine would: SIGKILL. Returns what it has logged.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.take().unwrap().join().unwrap()
    }

    /// Sends a signal that does not end it.
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Asks it to end, and returns its exit code.
    pub(crate) fn terminate(self, signal: Signal) -> i32 {
        self.signal(signal);
        self.wait()
    }

    /// Asks it to end as it should, and returns what it has logged, by lines.
    pub(crate) fn logs(mut self) -> Vec<Value> {
        self.signal(Signal::TERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let log = self.log.take().unwrap().join().unwrap();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it has ended, and returns its exit code.
    pub(crate) fn wait(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Does nothing to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `surety gateway run`, and all that it writes.
pub(crate) struct Front {
    child: Child,
    pub(crate) ready: Value,
    logs: Arc<Mutex<String>>,
    logger: Option<JoinHandle<()>>,
    /// How far the logs were looked through.
    looked_through: Cell<usize>,
}

impl Front {
    /// Starts it with all that it can log, and waits until it is ready.
    pub(crate) fn start(data: &Data, config: &Path) -> Self {
        Self::start_with(data, config, &[])
    }

    /// The same with more flags.
    pub(crate) fn start_with(data: &Data, config: &Path, more: &[&str]) -> Self {
        let mut front = Self::begin_with(data, config, more);
        let mut line = String::new();
        BufReader::new(front.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        front.ready = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error}: {line:?}, {}", front.logs.lock().unwrap()));
        front
    }

    /// Starts it, and does not wait.
    pub(crate) fn begin(data: &Data, config: &Path) -> Self {
        Self::begin_with(data, config, &[])
    }

    fn begin_with(data: &Data, config: &Path, more: &[&str]) -> Self {
        let own = ["gateway", "run", "--data", data.path(), "--config", config.to_str().unwrap()];
        let args = [&own[..], &["--metrics", "127.0.0.1:0"], more].concat();
        let mut child = command(&args, &[("SURETY_LOG", "trace")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let logs = Arc::new(Mutex::new(String::new()));
        let book = logs.clone();
        let logger = std::thread::spawn(move || {
            let mut part = [0; 1 << 16];
            while let Ok(count @ 1..) = stderr.read(&mut part) {
                book.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..count]));
            }
        });
        let (logger, looked_through) = (Some(logger), Cell::new(0));
        Self { child, ready: Value::Null, logs, logger, looked_through }
    }

    /// Sends a signal that does not end it.
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits until it logs this, behind what was waited for before.
    #[track_caller]
    pub(crate) fn says(&self, what: &str) {
        let begun = Instant::now();
        loop {
            let logs = self.logs.lock().unwrap();
            if let Some(at) = logs[self.looked_through.get()..].find(what) {
                return self.looked_through.set(self.looked_through.get() + at + what.len());
            }
            assert!(begun.elapsed() < PATIENCE, "it does not say `{what}`: {logs}");
            drop(logs);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it at once, with all that it is doing.
    pub(crate) fn kill(mut self) {
        self.end(Signal::KILL);
    }

    /// Asks it to end, and gives what it has written.
    pub(crate) fn terminate(mut self) -> String {
        assert_eq!(self.end(Signal::TERM), Some(0));
        std::mem::take(&mut self.logs.lock().unwrap())
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        send(&self.child, signal);
        let code = self.child.wait().unwrap().code();
        if let Some(logger) = self.logger.take() {
            logger.join().unwrap();
        }
        code
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Does nothing to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a child.
pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Runs `ctl` against a data directory and reads its JSON.
#[track_caller]
pub(crate) fn ctl(data: &Data, args: &[&str]) -> Value {
    let own = ["ctl", "--data", data.path(), "--json"];
    let args: Vec<&str> = own.iter().chain(args).copied().collect();
    let value = surety(&args).exits(0).json();
    assert_eq!(value["ok"], true, "{value}");
    value
}
