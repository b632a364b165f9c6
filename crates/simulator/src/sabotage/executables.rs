//! The test executables with the bugs compiled in: built by cargo, found by what it prints, run one test at a time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::Bug;

/// What every bug's name stands behind in an executable; see `sabotage!` in `surety-protocol`.
const MARKER: &str = "deliberate-bug:";

/// No test that catches a bug runs for longer, on the slowest machine; one that does hangs.
const TEST_TIME_MAX: Duration = Duration::from_secs(120);

/// Why there are no executables.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// There is nothing to build.
    #[error("no bug has such a name; see `simulator sabotage --list`")]
    NoBug,
    /// Cargo could not be run.
    #[error("running cargo failed: {0}")]
    Cargo(#[from] std::io::Error),
    /// It did not compile.
    #[error("the tests do not compile with `--cfg sabotage`; cargo says why above")]
    Failed,
    /// A named test target does not exist.
    #[error("there is no test target `{target}` of {package}")]
    Missing {
        /// The package.
        package: &'static str,
        /// The target.
        target: &'static str,
    },
}

/// What a test came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    /// No such test, or more than one.
    NotRun,
    /// It neither passed nor failed in time.
    Hangs,
    /// It could not be started.
    Error(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("it passes"),
            Self::Failed => f.write_str("it fails"),
            Self::NotRun => f.write_str("there is no such test"),
            Self::Hangs => write!(f, "it is not done in {} s", TEST_TIME_MAX.as_secs()),
            Self::Error(error) => write!(f, "it cannot be run: {error}"),
        }
    }
}

/// A line that cargo prints for each thing that it has built.
#[derive(Deserialize)]
struct Built {
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// One test executable.
#[derive(Debug)]
struct Executable {
    path: PathBuf,
    /// Where its package lives: its tests run there.
    directory: PathBuf,
    bytes: Vec<u8>,
}

/// The test executables of some packages.
#[derive(Debug)]
pub(super) struct Executables(BTreeMap<(&'static str, &'static str), Executable>);

impl Executables {
    /// Builds what the bugs need.
    pub(super) fn build(bugs: &[&'static Bug]) -> Result<Self, BuildError> {
        let built = cargo_build(bugs)?;
        let mut executables = BTreeMap::new();
        for bug in bugs {
            if let Entry::Vacant(place) = executables.entry((bug.package, bug.target)) {
                place.insert(find(&built, bug)?);
            }
        }
        Ok(Self(executables))
    }

    /// True if the bug is compiled into the executable that has to catch it.
    pub(super) fn hold(&self, bug: &Bug) -> bool {
        let marker = format!("{MARKER}{}", bug.name);
        self.of(bug).is_some_and(|executable| {
            executable.bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
        })
    }

    /// Runs the test that catches a bug, with a bug in force or without.
    pub(super) fn run(&self, catching: &Bug, in_force: Option<&str>) -> Verdict {
        let Some(executable) = self.of(catching) else { return Verdict::NotRun };
        let mut command = Command::new(&executable.path);
        command.args(["--exact", catching.test, "--test-threads=1"]).current_dir(&executable.directory);
        match in_force {
            Some(bug) => command.env("BUG", bug),
            None => command.env_remove("BUG"),
        };
        run(command).unwrap_or_else(|error| Verdict::Error(error.to_string()))
    }

    fn of(&self, bug: &Bug) -> Option<&Executable> {
        self.0.get(&(bug.package, bug.target))
    }
}

/// Where this very program was built: what the tests need of other packages is there already, or serves the next build.
fn build_directory() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own.parent().unwrap_or(Path::new("."));
    Ok(profile.parent().unwrap_or(profile).to_owned())
}

/// Our own packages are compiled with the bugs, those of others are not: they are the ones that every other test uses. Programs with
/// bugs in them go into a directory of their own, so that nobody takes them for the real ones.
fn cargo_build(bugs: &[&Bug]) -> Result<Vec<Built>, BuildError> {
    let mut targets: Vec<&str> = bugs.iter().map(|bug| bug.target).collect();
    targets.sort_unstable();
    targets.dedup();
    if targets.is_empty() {
        return Err(BuildError::NoBug);
    }
    let directory = build_directory()?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        // The whole workspace, whatever is needed of it: with fewer packages, those of others had other features.
        .args(["test", "--workspace", "--no-run", "--locked", "--message-format=json-render-diagnostics"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .env("RUSTC_WORKSPACE_WRAPPER", concat!(env!("CARGO_MANIFEST_DIR"), "/src/sabotage/rustc-with-bugs"))
        .env("CARGO_TARGET_DIR", directory.join("sabotage"))
        .env("CARGO_BUILD_BUILD_DIR", directory)
        .stderr(Stdio::inherit());
    for target in targets {
        match target {
            "lib" => command.arg("--lib"),
            name => command.args(["--test", name]),
        };
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(BuildError::Failed);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn find(built: &[Built], bug: &Bug) -> Result<Executable, BuildError> {
    let manifest = Path::new(&bug.directory()).join("Cargo.toml");
    let is_meant = |built: &&Built| {
        let target = built.target.as_ref().is_some_and(|target| match bug.target {
            "lib" => target.kind.iter().any(|kind| kind == "lib"),
            name => target.name == name && target.kind.iter().any(|kind| kind == "test"),
        });
        target && built.manifest_path.as_ref().is_some_and(|path| path.ends_with(&manifest))
    };
    let missing = BuildError::Missing { package: bug.package, target: bug.target };
    let found = built.iter().filter(is_meant).find_map(|built| {
        let directory = built.manifest_path.as_ref()?.parent()?.to_owned();
        Some((built.executable.clone()?, directory))
    });
    let (path, directory) = found.ok_or(missing)?;
    let bytes = std::fs::read(&path)?;
    Ok(Executable { path, directory, bytes })
}

fn run(mut command: Command) -> std::io::Result<Verdict> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let (sender, printed) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.read_to_end(&mut text);
        // Nobody listens any more if it took too long.
        let _ = sender.send(read.map(|_| text));
    });
    let text = match printed.recv_timeout(TEST_TIME_MAX) {
        Ok(text) => text?,
        Err(_) => {
            child.kill()?;
            child.wait()?;
            return Ok(Verdict::Hangs);
        }
    };
    let is_success = child.wait()?.success();
    // It has sent, so it is at its end.
    let _ = reader.join();
    Ok(judge(&String::from_utf8_lossy(&text), is_success))
}

/// What the test harness says. A test that aborts the process has failed, too.
fn judge(printed: &str, is_success: bool) -> Verdict {
    let is_one = printed.lines().any(|line| line == "running 1 test");
    match (is_one, is_success) {
        (false, _) => Verdict::NotRun,
        (true, true) if printed.contains("test result: ok. 1 passed") => Verdict::Passed,
        (true, true) => Verdict::NotRun,
        (true, false) => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_harness_prints_is_understood() {
        let check =
            |printed, is_success, verdict| assert_eq!(judge(printed, is_success), verdict, "{printed}");
        check(
            "\nrunning 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed\n",
            true,
            Verdict::Passed,
        );
        check(
            "\nrunning 1 test\ntest a ... FAILED\n\ntest result: FAILED. 0 passed\n",
            false,
            Verdict::Failed,
        );
        check("\nrunning 1 test\n", false, Verdict::Failed);
        check("\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed\n", true, Verdict::NotRun);
        check("\nrunning 1 test\n\ntest result: ok. 0 passed; 1 ignored\n", true, Verdict::NotRun);
        check("", false, Verdict::NotRun);
    }
}
