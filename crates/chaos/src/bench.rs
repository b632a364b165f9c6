//! One data directory under test: its engine, a load that outlives it, and the check after each fault.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::engine::{Engine, Serve};
use crate::load::Load;
use crate::report::Report;
use crate::surety::Surety;

/// Payments under way, unless a test wants fewer.
const IN_FLIGHT: u32 = 256;

/// A directory and what is done to it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) surety: Surety,
    pub(crate) serve: Serve,
    /// Payments that the load keeps under way.
    pub(crate) in_flight: u32,
    /// Acknowledgements and logs; never on the disk that fails.
    beside: TempDir,
    /// The directory of the data, if it is ours.
    _home: Option<TempDir>,
    load: Option<Load>,
    /// Acknowledgements that were found in the log so far.
    verified: u64,
}

impl Bench {
    /// Makes a directory of its own, with small segments so that the log has many.
    pub(crate) fn new(surety: &Surety, shards: u16, segment_bytes: u64) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let data = home.path().join("data");
        surety.init(&data, shards, segment_bytes)?;
        let mut bench = Self::on(surety, &data, segment_bytes)?;
        bench._home = Some(home);
        Ok(bench)
    }

    /// Uses a directory that is there.
    pub(crate) fn on(surety: &Surety, data: &Path, segment_bytes: u64) -> Result<Self> {
        let beside = tempfile::tempdir()?;
        let serve = Serve { segment_bytes, ..Serve::new(data, &beside.path().join("engine.log")) };
        Ok(Self {
            surety: surety.clone(),
            serve,
            in_flight: IN_FLIGHT,
            beside,
            _home: None,
            load: None,
            verified: 0,
        })
    }

    /// A file that lies beside the data.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.beside.path().join(name)
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.serve.data
    }

    /// Starts the engine at the address that it had before, and the load with the first one.
    pub(crate) fn start(&mut self) -> Result<Engine> {
        let engine = self.serve.start_well(&self.surety)?;
        self.serve.listen = engine.address()?;
        if self.load.is_none() {
            self.load =
                Some(Load::start(&self.surety, &self.serve.data, self.beside.path(), self.in_flight)?);
        }
        Ok(engine)
    }

    /// The load.
    pub(crate) fn load(&mut self) -> Result<&mut Load> {
        self.load.as_mut().context("a load")
    }

    /// Replays the closed directory, and finds every acknowledgement in it. The number found.
    pub(crate) fn check(&mut self, what: &str, report: &mut Report) -> Result<u64> {
        let data = self.serve.data.to_str().context("a path in UTF-8")?;
        let verify = self.surety.run(&["verify", "--data", data, "--json"])?;
        report.expect(verify.exit == 0, || {
            format!("{what}: verify ends with {}: {}", verify.exit, verify.stdout)
        });
        let acks = self.file("acks.bin");
        if !acks.exists() {
            return Ok(0);
        }
        let acks = acks.to_str().context("a path in UTF-8")?;
        let check = self.surety.run(&["load", "check", "--acks", acks, "--data", data, "--json"])?;
        let value = check.json().unwrap_or(Value::Null);
        report.expect(check.exit == 0 && value["ok"] == true, || {
            format!("{what}: load check ends with {}: {value} {}", check.exit, check.stderr)
        });
        let verified = value["verified"].as_u64().unwrap_or(0);
        report.expect(verified >= self.verified, || {
            format!("{what}: {verified} acknowledgements hold, {} held before", self.verified)
        });
        self.verified = verified;
        Ok(verified)
    }

    /// Ends the load while the engine serves, then the engine, and checks all of it once more.
    pub(crate) fn finish(mut self, engine: Engine, report: &mut Report) -> Result<()> {
        let load = self.load.take().context("a load")?;
        let value = load.stop()?;
        report.expect(value["contradictions"] == 0, || format!("replies contradict their requests: {value}"));
        let exit = engine.terminate()?;
        report.expect(exit == 0, || format!("SIGTERM: exit {exit}: {}", self.serve.last_words()));
        self.check("at the end", report)?;
        report.add("acks_verified", self.verified);
        for (name, key) in [("resolved_by_lookup", "resolved"), ("left_unknown", "unknown")] {
            report.add(name, value[key].as_u64().unwrap_or(0));
        }
        Ok(())
    }
}
