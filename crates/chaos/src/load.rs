//! A running `surety load`, which goes on through every restart and repeats what was left unanswered.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::engine::{PATIENCE, POLL, wait};
use crate::surety::Surety;

/// A load and its file of acknowledgements.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    acks: PathBuf,
    report: PathBuf,
    log: PathBuf,
}

impl Load {
    /// Starts a closed loop against a directory in use.
    pub(crate) fn start(surety: &Surety, data: &Path, beside: &Path, in_flight: u32) -> Result<Self> {
        let name = format!("load-{}", std::time::UNIX_EPOCH.elapsed()?.as_nanos());
        let (acks, report) = (beside.join("acks.bin"), beside.join(format!("{name}.json")));
        let log = beside.join(format!("{name}.log"));
        let child = Command::new(surety.path())
            .args(["load", "--data"])
            .arg(data)
            .args(["--duration", "10h", "--in-flight", &in_flight.to_string(), "--json", "--acks"])
            .arg(&acks)
            .stdin(Stdio::null())
            .stdout(File::create(&report)?)
            .stderr(File::create(&log)?)
            .spawn()
            .context("surety load")?;
        Ok(Self { child, acks, report, log })
    }

    /// Replies on file.
    fn replies(&self) -> u64 {
        std::fs::metadata(&self.acks).map_or(0, |file| file.len() / 128)
    }

    /// Waits until so many more replies are on file, or `until` says that none will come. True if they came.
    pub(crate) fn wait_for(&mut self, more: u64, mut until: impl FnMut() -> Result<bool>) -> Result<bool> {
        let (goal, begun) = (self.replies() + more, Instant::now());
        while self.replies() < goal {
            if until()? {
                return Ok(false);
            }
            if let Some(status) = self.child.try_wait()? {
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the load ended with {status}: {text}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("no more replies come: {} of {goal}", self.replies());
            }
            std::thread::sleep(POLL);
        }
        Ok(true)
    }

    /// Ends it and reads its report.
    pub(crate) fn stop(mut self) -> Result<Value> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        wait(&mut self.child, Duration::from_secs(60))?;
        let text = std::fs::read_to_string(&self.report)?;
        serde_json::from_str(text.lines().last().unwrap_or_default())
            .with_context(|| format!("the report of the load: {text}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Does nothing to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
