//! A `surety serve` process, alone or inside of something that watches it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::surety::Surety;

/// A process that does nothing for so long has hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// How `serve` ends where somebody has its port, and how long it is tried again.
const PORT_TAKEN: i32 = 7;
const PORT_PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(1);

/// How a directory is served.
#[derive(Clone, Debug)]
pub(crate) struct Serve {
    pub(crate) data: PathBuf,
    /// Where it listens; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    pub(crate) durability: &'static str,
    pub(crate) io: &'static str,
    pub(crate) segment_bytes: u64,
    /// Settings in the environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// A program and its arguments that runs the engine.
    pub(crate) inside: Vec<OsString>,
    /// Where its log goes.
    pub(crate) log: PathBuf,
}

/// What became of a start.
#[derive(Debug)]
pub(crate) enum Started {
    /// It serves.
    Ready(Engine),
    /// It ended before.
    Ended(ExitStatus),
}

/// A process that serves.
#[derive(Debug)]
pub(crate) struct Engine {
    child: Child,
    /// The engine's own process, which may be a child of `child`.
    pid: Pid,
    ready: Value,
}

impl Serve {
    /// Serves a directory on a free port of the loopback, every reply on the disk first.
    pub(crate) fn new(data: &Path, log: &Path) -> Self {
        Self {
            data: data.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            durability: "fsync",
            io: "sync",
            segment_bytes: 1 << 20,
            environment: vec![("SURETY__LOG__FREE_BYTES_MIN", "0".to_owned())],
            inside: Vec::new(),
            log: log.to_owned(),
        }
    }

    /// Starts the process and leaves at once.
    pub(crate) fn spawn(&self, surety: &Surety) -> Result<Child> {
        let mut line: Vec<OsString> = self.inside.clone();
        line.push(surety.path().into());
        let listen = self.listen.to_string();
        let bytes = self.segment_bytes.to_string();
        line.extend(["serve", "--data"].map(OsString::from));
        line.push(self.data.clone().into());
        for argument in
            ["--listen", &listen, "--durability", self.durability, "--io", self.io, "--segment-bytes", &bytes]
        {
            line.push(argument.into());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: whatever it starts ends with it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.spawn().with_context(|| format!("{}", line[0].display()))
    }

    /// Starts the process and waits until it serves or ends.
    pub(crate) fn start(&self, surety: &Surety) -> Result<Started> {
        let mut child = self.spawn(surety)?;
        let stdout = child.stdout.take().context("standard output")?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = reader.read_line(&mut line);
        if read.is_err() || line.is_empty() {
            return Ok(Started::Ended(wait(&mut child, PATIENCE)?));
        }
        let ready: Value = serde_json::from_str(&line).context("the ready line")?;
        let pid = ready["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.context("the ready line's pid")?;
        Ok(Started::Ready(Engine { child, pid, ready }))
    }

    /// The same where nothing stands against it.
    pub(crate) fn start_well(&self, surety: &Surety) -> Result<Engine> {
        let begun = Instant::now();
        loop {
            match self.start(surety)? {
                Started::Ready(engine) => return Ok(engine),
                // While an engine is away, the system may give its port to a client that dials it, until that gives up.
                Started::Ended(status)
                    if status.code() == Some(PORT_TAKEN) && begun.elapsed() < PORT_PATIENCE => {}
                Started::Ended(status) => bail!("serve ended with {status}: {}", self.last_words()),
            }
        }
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" | ")
    }
}

impl Engine {
    /// Address of shard 0.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.ready["listen"].as_str().context("an address")?.parse()?)
    }

    /// SIGKILL, as the machine would.
    pub(crate) fn kill(mut self) -> Result<()> {
        kill_process(self.pid, Signal::KILL)?;
        wait(&mut self.child, PATIENCE).map(|_| ())
    }

    /// Any other signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid, signal)?)
    }

    /// Asks it to end. The exit code.
    pub(crate) fn terminate(mut self) -> Result<i32> {
        kill_process(self.pid, Signal::TERM)?;
        Ok(wait(&mut self.child, PATIENCE)?.code().unwrap_or(-1))
    }

    /// Waits until it ends by itself; none if it does not in time.
    pub(crate) fn wait_for_end(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            std::thread::sleep(POLL);
        }
        Ok(None)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}

/// Ends a child and all that it has started; does nothing to one that has ended.
pub(crate) fn end_group(child: &mut Child) {
    if child.try_wait().is_ok_and(|status| status.is_none()) {
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
        let _ = child.wait();
    }
}

/// True if a process ended by an abort of its own.
pub(crate) fn is_abort(status: ExitStatus) -> bool {
    // strace ends by the signal of what it watched; a shell would add 128.
    status.signal() == Some(Signal::ABORT.as_raw()) || status.code() == Some(128 + Signal::ABORT.as_raw())
}

/// True if a process was killed.
pub(crate) fn is_kill(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw()) || status.code() == Some(128 + Signal::KILL.as_raw())
}

/// Waits for the end of a child, which is ended if it does not come.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begun.elapsed() > patience {
            end_group(child);
            bail!("a process did not end within {} s", patience.as_secs());
        }
        std::thread::sleep(POLL);
    }
}
