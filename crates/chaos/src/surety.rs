//! The binary under test, and commands of it that run to their end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The `surety` that stands beside this program.
#[derive(Clone, Debug)]
pub(crate) struct Surety {
    path: PathBuf,
}

/// What a command that has ended leaves behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Surety {
    /// Finds it. Under cargo it is brought up to date first, so that no old binary is tested.
    pub(crate) fn find() -> Result<Self> {
        let own = std::env::current_exe().context("where this program is")?;
        let folder = own.parent().context("this program lies in no folder")?;
        let path = folder.join("surety");
        if let Some(cargo) = std::env::var_os("CARGO") {
            build(&cargo, folder)?;
        }
        ensure!(path.exists(), "{} is missing: cargo build --release -p surety", path.display());
        Ok(Self { path })
    }

    /// The program.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Ended> {
        let output = Command::new(&self.path).args(args).stdin(Stdio::null()).output()?;
        Ok(Ended {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Makes a data directory.
    pub(crate) fn init(&self, data: &Path, shards: u16, segment_bytes: u64) -> Result<()> {
        let (shards, bytes) = (shards.to_string(), segment_bytes.to_string());
        let data = data.to_str().context("a path in UTF-8")?;
        let args = ["init", "--data", data, "--shards", &shards, "--segment-bytes", &bytes];
        let ended = self.run(&args)?;
        if ended.exit != 0 {
            bail!("init: {}", ended.stderr);
        }
        Ok(())
    }
}

impl Ended {
    /// The JSON object on the last line of standard output.
    pub(crate) fn json(&self) -> Result<Value> {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("no JSON: {last}\n{}", self.stderr))
    }
}

/// Builds the binary in the profile and target directory of this program.
fn build(cargo: &OsStr, folder: &Path) -> Result<()> {
    let target = folder.parent().context("the target directory")?;
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "surety", "--bin", "surety", "--target-dir"]).arg(target);
    if folder.file_name() == Some(OsStr::new("release")) {
        command.arg("--release");
    }
    // What cargo told this program of its own package would make build scripts run again, and all that hangs on them.
    let told = |name: &OsStr| {
        name.to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| told(name)) {
        command.env_remove(name);
    }
    let status = command.stdin(Stdio::null()).status().context("cargo")?;
    ensure!(status.success(), "surety cannot be built");
    Ok(())
}
