//! The OOM killer: the engine in a control group whose memory is lowered under its feet.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::engine::{PATIENCE, is_kill};
use crate::report::Report;
use crate::surety::Surety;

/// What the group may take at first: more than an engine needs to start.
const START_BYTES: u64 = 512 << 20;

/// Where the memory of groups is controlled, and the file that limits it.
const HIERARCHIES: &[(&str, &str)] =
    &[("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];

/// A control group that goes with its value.
struct Group {
    path: PathBuf,
    limit: PathBuf,
}

impl Group {
    /// Makes one where that is allowed.
    fn make() -> Result<Self> {
        let mut last = None;
        for (root, limit) in HIERARCHIES {
            let path = Path::new(root).join(format!("surety-chaos-{}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let group = Self { limit: path.join(limit), path };
                    match group.limit(START_BYTES) {
                        Ok(()) => return Ok(group),
                        Err(error) => last = Some(error),
                    }
                }
                Err(error) => last = Some(error.into()),
            }
        }
        Err(last.context("no control groups")?)
    }

    fn limit(&self, bytes: u64) -> Result<()> {
        Ok(std::fs::write(&self.limit, bytes.to_string())?)
    }

    /// A command line that runs what follows it in the group.
    fn inside(&self) -> Vec<OsString> {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.path.display());
        ["sh", "-c", &enter].map(OsString::from).to_vec()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It can go only when its last process has.
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Lowers the memory of an engine under load until the kernel kills it.
pub(super) fn run(surety: &Surety, report: &mut Report) -> Result<()> {
    let group = match Group::make() {
        Ok(group) => group,
        Err(error) => {
            report.skip("the OOM killer", format!("no control group for memory: {error:#}"));
            return Ok(());
        }
    };
    let mut bench = Bench::new(surety, 1, 1 << 20)?;
    bench.serve.inside = group.inside();
    let mut engine = bench.start()?;
    bench.load()?.wait_for(2_000, || Ok(false))?;
    let mut limit = engine.resident_bytes()?;
    let mut status = engine.wait_for_end(std::time::Duration::ZERO)?;
    let begun = std::time::Instant::now();
    while status.is_none() && begun.elapsed() < PATIENCE {
        // The kernel refuses a limit that it cannot reach at once; what comes next meets the old one, or kills.
        limit = limit / 10 * 9;
        let _ = group.limit(limit);
        status = engine.wait_for_end(std::time::Duration::from_millis(300))?;
    }
    match status {
        Some(status) => {
            report.expect(is_kill(status), || format!("out of memory, it ended with {status}"));
            report.add("oom_kills", 1);
        }
        None => {
            report.skip("the OOM killer", "the kernel did not kill within the limit");
            engine.kill()?;
        }
    }
    bench.serve.inside.clear();
    bench.check("after the OOM killer", report)?;
    let engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    bench.finish(engine, report)
}
