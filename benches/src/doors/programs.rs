//! The processes that are measured: engines and front doors, each until it is dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use surety_client::{Client, Identity};
use surety_protocol::PartitionHandle;

use crate::echo::on_client;
use crate::locks::CLIENT_CORE;
use crate::mix::{furnish, partition};

/// Partitions for locks over QUIC; the doors have one behind them.
const PARTITIONS: u64 = 1_000;
/// The doors' partition.
pub const DOOR: PartitionHandle = partition(PARTITIONS);
/// Base units of a lock over a door.
pub const AMOUNT: u128 = 100;

/// A process that has said where it listens.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// The line with which it said so.
    pub ready: Value,
    /// It may go on writing.
    stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it, and waits for its line.
    ///
    /// # Errors
    /// If it ends, or says something else.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let command = command.env("SURETY_LOG", "error").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        let stdout = child.stdout.take().context("its output is ours")?;
        let mut program = Self { child, ready: Value::Null, stdout: BufReader::new(stdout) };
        let mut line = String::new();
        program.stdout.read_line(&mut line)?;
        program.ready = serde_json::from_str(&line).with_context(|| format!("{command:?} said {line:?}"))?;
        Ok(program)
    }

    /// An address in its line.
    ///
    /// # Errors
    /// If it has none by that name.
    pub fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        address(&self.ready[name])
    }

    /// Its memory in bytes, as the system counts it.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        crate::machine::resident_bytes_of(self.child.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(value: &Value) -> anyhow::Result<SocketAddr> {
    Ok(value.as_str().context("it says no such address")?.parse()?)
}

/// The program beside this one. Where cargo runs us, it is built before: cargo builds of another package what is a library alone.
///
/// # Errors
/// If it is not there, and cannot be built.
pub fn surety() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("surety");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let is_release = own.parent().is_some_and(|directory| directory.ends_with("release"));
        let profile = if is_release { "release" } else { "dev" };
        let build =
            ["build", "--quiet", "--locked", "--package", "surety", "--bin", "surety", "--profile", profile];
        let built = Command::new(cargo).args(build).status()?;
        ensure!(built.success(), "surety cannot be built");
    }
    ensure!(program.exists(), "{} is not there: cargo build --release -p surety", program.display());
    Ok(program)
}

/// An engine with a furnished shard, its replies handed to the operating system before they leave.
#[derive(Debug)]
struct Engine {
    program: Program,
    data: PathBuf,
}

impl Engine {
    fn start(surety: &Path, data: &Path) -> anyhow::Result<Self> {
        run(Command::new(surety).args(["init", "--shards", "1", "--data"]).arg(data))?;
        Self::serve(surety, data, &[])
    }

    fn serve(surety: &Path, data: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(surety);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--durability", "os", "--data"])
            .arg(data)
            .args(more);
        Ok(Self { program: Program::start(&mut command)?, data: data.to_owned() })
    }

    fn identity(&self, name: &str) -> anyhow::Result<Identity> {
        Ok(Identity::from_file(self.data.join("pki").join(name).with_extension("pem"))?)
    }

    /// Collateral for all, and locks over the doors that outlive the run.
    fn furnish(&self, surety: &Path) -> anyhow::Result<()> {
        let (address, identity) = (self.program.address("listen")?, self.identity("admin")?);
        on_client(CLIENT_CORE, move || async move {
            let client = Client::connect(address, identity).await?;
            for operation in furnish(PARTITIONS + 1, client.now()) {
                let reply = client.submit_long(&operation).await?;
                ensure!(reply.code().is_success(), "furnishing was answered {}", reply.code());
            }
            client.shutdown().await;
            Ok(())
        })?;
        let policy = ["policy", "set", &DOOR.to_string(), "life_default=6h"];
        run(Command::new(surety).arg("ctl").arg("--data").arg(&self.data).args(policy))
    }

    /// What the doors' locks hold.
    fn held(&self) -> anyhow::Result<u128> {
        let (address, identity) = (self.program.address("listen")?, self.identity("reader")?);
        on_client(CLIENT_CORE, move || async move {
            let client = Client::connect(address, identity).await?;
            let row = client.partition(DOOR).await?.context("the doors have no partition")?;
            client.shutdown().await;
            Ok(ledger::Totals::from(&row).held)
        })
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let ended = command.stdin(Stdio::null()).output()?;
    if !ended.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }
    Ok(())
}

/// An engine, and a front door before it in a process of its own. Each door has its own engine: it follows whatever is done there.
#[derive(Debug)]
pub struct Door {
    engine: Engine,
    front: Program,
}

impl Door {
    /// A link for acquirers' hosts, in a directory that is empty.
    ///
    /// # Errors
    /// If it does not start.
    pub fn link(surety: &Path, directory: &Path) -> anyhow::Result<Self> {
        Self::start(surety, directory, &link_settings())
    }

    /// A REST front door, in a directory that is empty; and what an application has to show.
    ///
    /// # Errors
    /// If it does not start.
    pub fn rest(surety: &Path, directory: &Path) -> anyhow::Result<(Self, String)> {
        let drawn = Command::new(surety).args(["gateway", "token"]).output()?;
        let drawn: Value = serde_json::from_slice(&drawn.stdout)?;
        let text = |key: &str| drawn[key].as_str().map(str::to_owned).context("no token was drawn");
        Ok((Self::start(surety, directory, &rest_settings(&text("hash")?))?, text("token")?))
    }

    fn start(surety: &Path, directory: &Path, settings: &str) -> anyhow::Result<Self> {
        let engine = Engine::start(surety, &directory.join("data"))?;
        engine.furnish(surety)?;
        let file = write(directory, settings)?;
        let mut command = Command::new(surety);
        command.args(["gateway", "run", "--data"]).arg(&engine.data).arg("--config").arg(file);
        Ok(Self { front: Program::start(&mut command)?, engine })
    }

    /// Where hosts or applications connect.
    ///
    /// # Errors
    /// If it has not said so.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.front.address("listen").or_else(|_| self.front.address("rest"))
    }

    /// Memory of the door's process in bytes, as the system counts it.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.front.resident_bytes()
    }

    /// Where the engine itself is, and who may lock there.
    ///
    /// # Errors
    /// If it has said neither.
    pub fn quic(&self) -> anyhow::Result<(SocketAddr, Identity)> {
        Ok((self.engine.program.address("listen")?, self.engine.identity("authorizer")?))
    }

    /// What locks over the doors hold.
    ///
    /// # Errors
    /// If the engine does not say.
    pub fn held(&self) -> anyhow::Result<u128> {
        self.engine.held()
    }
}

/// An engine with a link in its own process.
#[derive(Debug)]
pub struct Embedded {
    engine: Engine,
}

impl Embedded {
    /// Starts it in a directory that is empty.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(surety: &Path, directory: &Path) -> anyhow::Result<Self> {
        let data = directory.join("data");
        let engine = Engine::start(surety, &data)?;
        engine.furnish(surety)?;
        drop(engine);
        let iso = format!("1={}", write(directory, &link_settings())?.display());
        Ok(Self { engine: Engine::serve(surety, &data, &["--iso", &iso])? })
    }

    /// Where its link listens.
    ///
    /// # Errors
    /// If it has not said so.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        address(&self.engine.program.ready["iso"][0]["listen"])
    }

    /// What locks over the link hold.
    ///
    /// # Errors
    /// If the engine does not say.
    pub fn held(&self) -> anyhow::Result<u128> {
        self.engine.held()
    }
}

/// Writes a front door's settings.
fn write(directory: &Path, settings: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("bench.key"), "5a".repeat(32))?;
    let file = directory.join("front.toml");
    std::fs::write(&file, settings)?;
    Ok(file)
}

/// A link whose bounds are in nobody's way.
fn link_settings() -> String {
    format!(
        r#"name = "bench"
listen = "127.0.0.1:0"
header = "binary2"
edition = "1987"
profile = "ascii"
id_key_file = "bench.key"
needs_sign_on = false
currency = [{{ number = 840, asset_decimals = 2, edge_decimals = 2 }}]
route = [{{ prefix = "4", partitions = ["{DOOR}"] }}]
limits = {{ connections = 12000, originals = 10000000, echo_ms = 3600000 }}
"#
    )
}

/// A REST front door whose bounds are in nobody's way.
fn rest_settings(hash: &str) -> String {
    format!(
        r#"[rest]
listen = "127.0.0.1:0"
asset = [{{ name = "AMP", id = 1, decimals = 2, scale = 2 }}]
limits = {{ connections = 12000, connections_per_address = 12000, rate_per_s = 10000000, burst = 10000000, keys = 50000000 }}
[[rest.tenant]]
token = [{{ name = "bench", hash = "{hash}" }}]
"#
    )
}
