//! What operating an engine costs: an engine as a process of its own, what its shard spends on requests, and those who scrape its numbers and take
//! its spans.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use history::{Ask, Asker, Nothing, Question, State, Status};
use rustix::process::{Pid, Signal, kill_process};
use server::pki::DevelopmentPki;
use surety_client::transport::Closed;
use surety_client::{Client, Identity, PackedReceiver, PackedSender};
use surety_protocol::{CloseCode, Code, Reply, Roles, ShardId};

use crate::doors::Program;
use crate::echo::on_client;
use crate::locks::{CLIENT_CORE, Packed, Throughput, packed_load};
use crate::machine::children_of;
use crate::mix::{Mix, Numbers, TENANT, furnish};

/// Partitions with collateral.
const PARTITIONS: u64 = 1_000;
/// Requests of a frame, and frames in flight.
const FRAME: usize = 64;
const FRAMES: usize = 16;
/// Between two scrapes: fifteen times as often as Prometheus asks by itself.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// How long a connection may outlive its certificate before the run is given up.
const REVOKED_WITHIN: Duration = Duration::from_secs(30);
/// How long a history may take to come to the end.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(60);
/// How often a payment of a link is tried where the engine has too much to do, and the pause before it is tried again.
const ASKED_MAX: u32 = 200;
const ASKED_PAUSE: Duration = Duration::from_millis(50);

/// A process that serves a fresh data directory.
#[derive(Debug)]
pub struct Engine {
    program: Program,
    data: PathBuf,
}

impl Engine {
    /// Makes a data directory, serves it with these flags, its records handed to the operating system before replies leave, and furnishes it.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(surety: &Path, data: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let engine = Self::bare(surety, data, &[&["--durability", "os"], more].concat())?;
        engine.furnish()?;
        Ok(engine)
    }

    /// Makes a data directory and serves it with these flags.
    ///
    /// # Errors
    /// If it does not start.
    pub fn bare(surety: &Path, data: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let init = Command::new(surety).args(["init", "--shards", "1", "--data"]).arg(data).output()?;
        ensure!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let mut serve = Command::new(surety);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(more);
        Ok(Self { program: Program::start(&mut serve)?, data: data.to_owned() })
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where it listens, and an identity that may read everything.
    ///
    /// # Errors
    /// If it has said neither.
    pub fn reader(&self) -> anyhow::Result<(SocketAddr, Identity)> {
        Ok((self.program.address("listen")?, self.identity("reader")?))
    }

    fn identity(&self, name: &str) -> anyhow::Result<Identity> {
        Ok(Identity::from_file(self.data.join("pki").join(name).with_extension("pem"))?)
    }

    fn furnish(&self) -> anyhow::Result<()> {
        let (address, identity) = (self.program.address("listen")?, self.identity("admin")?);
        on_client(CLIENT_CORE, move || async move {
            let client = Client::connect(address, identity).await?;
            for operation in furnish(PARTITIONS, client.now()) {
                let reply = client.submit_long(&operation).await?;
                ensure!(reply.code().is_success(), "furnishing was answered {}", reply.code());
            }
            client.shutdown().await;
            Ok(())
        })
    }

    /// Where its admin listener is.
    ///
    /// # Errors
    /// If it has none.
    pub fn admin(&self) -> anyhow::Result<SocketAddr> {
        self.program.address("admin")
    }

    /// The process that keeps its history, once that has everything that was logged.
    ///
    /// # Errors
    /// If nobody keeps one, or it does not come to the end.
    pub fn history(&self) -> anyhow::Result<u32> {
        let question = Question { of: None, ask: Ask::Status(Nothing {}) };
        let asker = Asker::new(&self.data);
        on_client(CLIENT_CORE, move || async move {
            let begun = Instant::now();
            loop {
                let status = asker.ask(&question).await.ok().map(serde_json::from_value::<Status>);
                let is_there =
                    |status: Status| status.state == State::Following && status.lag_records == Some(0);
                if status.transpose()?.is_some_and(is_there) {
                    return Ok(());
                }
                ensure!(begun.elapsed() < FOLLOWED_WITHIN, "the history does not come to the end");
                tokio::time::sleep(ASKED_PAUSE).await;
            }
        })?;
        let children = children_of(self.process()?);
        ensure!(children.len() == 1, "an engine with a history has one process, not {}", children.len());
        Ok(children[0])
    }

    /// Its process.
    ///
    /// # Errors
    /// If it has not said so.
    pub fn process(&self) -> anyhow::Result<u32> {
        let pid = self.program.ready["pid"].as_u64().context("it says no pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// A front door of both kinds before it, of which numbers and traces are told.
    ///
    /// # Errors
    /// If it does not start.
    pub fn front(&self, surety: &Path, collector: &str) -> anyhow::Result<Program> {
        let directory = self.data.parent().context("the data directory stands in another")?;
        std::fs::write(directory.join("acme.key"), "5a".repeat(32))?;
        std::fs::write(directory.join("front.toml"), [LINK, APPLICATIONS].concat())?;
        let mut command = Command::new(surety);
        command.args(["gateway", "run", "--data"]).arg(&self.data).arg("--config");
        command.arg(directory.join("front.toml")).args(["--metrics", "127.0.0.1:0", "--otlp", collector]);
        Program::start(&mut command)
    }

    /// Nanoseconds that the shard's thread takes for each of so many locks.
    ///
    /// # Errors
    /// If a lock is not approved, or the kernel does not count.
    pub fn shard_ns_per_lock(&self, locks: usize) -> anyhow::Result<f64> {
        let before = self.shard_ns()?;
        self.load(locks)?;
        Ok((self.shard_ns()? - before) as f64 / locks as f64)
    }

    /// Nanoseconds that the shard's thread takes for each request of a load, without those that it was too far behind to take.
    ///
    /// # Errors
    /// If a request is not approved, or the kernel does not count.
    pub fn shard_ns_per_request(&self, load: Packed) -> anyhow::Result<f64> {
        let before = self.shard_ns()?;
        let through = self.packed(load)?;
        Ok((self.shard_ns()? - before) as f64 / through.requests as f64)
    }

    /// What comes through one link.
    ///
    /// # Errors
    /// If a request is not approved.
    pub fn packed(&self, load: Packed) -> anyhow::Result<Throughput> {
        packed_load(self.program.address("listen")?, self.identity("authorizer")?, load)
    }

    /// What the shard's thread has been given of its core so far.
    fn shard_ns(&self) -> anyhow::Result<u64> {
        let pid = self.process()?;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.trim() == "shard-0" {
                let counted = std::fs::read_to_string(task.join("schedstat"))?;
                return Ok(counted.split(' ').next().context("an empty schedstat")?.parse()?);
            }
        }
        anyhow::bail!("the engine has no shard's thread")
    }

    fn load(&self, locks: usize) -> anyhow::Result<()> {
        let (address, identity) = (self.program.address("listen")?, self.identity("authorizer")?);
        on_client(CLIENT_CORE, move || async move {
            let client = Client::connect(address, identity).await?;
            let (mut sender, mut receiver) = client.packed(ShardId(0)).await?.split();
            let (mut mix, mut replies) = (Mix::new(12, PARTITIONS), Vec::<Reply>::new());
            let mut numbers =
                Numbers::new(locks as u64 ^ u64::from(std::process::id()) << 32 ^ client.now().0);
            let (mut sent, mut answered) = (0, 0);
            while answered < locks {
                while sent < locks && sent + FRAME <= answered + FRAMES * FRAME {
                    let now = client.now();
                    for _ in 0..FRAME {
                        let mut lock = mix.lock(now);
                        lock.id = numbers.id(now);
                        sender.push_record(&lock);
                    }
                    sender.flush().await?;
                    sent += FRAME;
                }
                replies.clear();
                receiver.receive(&mut replies).await?;
                answered += replies.len();
                let declined = replies.iter().find(|reply| !reply.code().is_success());
                ensure!(declined.is_none(), "a lock was answered {declined:?}");
            }
            client.shutdown().await;
            Ok(())
        })
    }

    /// Seconds from the signal behind a new revocation list until an open connection of a certificate that it names is gone: one that was served
    /// until then, cut off by the engine for its certificate, while that of another goes on.
    ///
    /// # Errors
    /// If it was not served, is not gone in time or for another reason, or if the other one is gone too.
    pub fn revocation_s(&self) -> anyhow::Result<f64> {
        let directory = self.data.join("pki");
        let pki = DevelopmentPki::open(&directory)?;
        let pem = pki.client(TENANT, Roles::AUTHORIZER, "revoked")?;
        let (address, identity) = (self.program.address("listen")?, Identity::from_pem(pem.as_bytes())?);
        let other = self.identity("authorizer")?;
        let pid = Pid::from_raw(i32::try_from(self.process()?)?).context("no process has the number 0")?;
        on_client(CLIENT_CORE, move || async move {
            let mut revoked = Live::open(address, identity, 1).await?;
            let mut other = Live::open(address, other, 2).await?;
            revoked.ask().await?;
            other.ask().await?;
            std::fs::write(directory.join("revoked.pem"), pki.revocations(&[pem])?)?;
            let begun = Instant::now();
            kill_process(pid, Signal::HUP)?;
            let gone = tokio::time::timeout(REVOKED_WITHIN, revoked.receiver.receive(&mut Vec::new())).await;
            let took = begun.elapsed().as_secs_f64();
            let gone = gone.context("a revoked certificate is not cut off")?;
            ensure!(
                gone == Err(Closed::ByServer(CloseCode::BadCertificate)),
                "it ended otherwise than by its certificate: {gone:?}"
            );
            other.ask().await.context("another certificate was cut off too")?;
            Ok(took)
        })
    }
}

/// A link that is served.
struct Live {
    client: Client,
    sender: PackedSender,
    receiver: PackedReceiver,
    mix: Mix,
    numbers: Numbers,
}

impl Live {
    async fn open(address: SocketAddr, identity: Identity, seed: u64) -> anyhow::Result<Self> {
        let client = Client::connect(address, identity).await?;
        let (sender, receiver) = client.packed(ShardId(0)).await?.split();
        let numbers = Numbers::new(seed ^ u64::from(std::process::id()) << 32 ^ client.now().0);
        Ok(Self { client, sender, receiver, mix: Mix::new(seed, PARTITIONS), numbers })
    }

    /// Makes a payment, and waits until it is answered.
    async fn ask(&mut self) -> anyhow::Result<()> {
        let mut replies = Vec::new();
        for _ in 0..ASKED_MAX {
            let now = self.client.now();
            let mut lock = self.mix.lock(now);
            lock.id = self.numbers.id(now);
            self.sender.push_record(&lock);
            self.sender.flush().await?;
            replies.clear();
            self.receiver.receive(&mut replies).await?;
            if replies.iter().any(|reply| reply.code().is_success()) {
                return Ok(());
            }
            ensure!(
                replies.iter().all(|reply| reply.code() == Code::Overloaded),
                "it is not served: {replies:?}"
            );
            tokio::time::sleep(ASKED_PAUSE).await;
        }
        anyhow::bail!("it is not served: {replies:?}")
    }
}

/// Writes into a directory the settings of an engine with an archive, and those of a link in its own process; their files.
///
/// # Errors
/// If the disk fails.
pub fn write_settings(directory: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (engine, link) = (directory.join("engine.toml"), directory.join("link.toml"));
    let archive = directory.join("archive");
    std::fs::write(&engine, format!("[log]\narchive = {archive:?}\n"))?;
    std::fs::write(directory.join("acme.key"), "5a".repeat(32))?;
    std::fs::write(&link, LINK)?;
    Ok((engine, link))
}

/// Settings of a link for acquirers' hosts.
const LINK: &str = r#"
name = "acme"
listen = "127.0.0.1:0"
header = "ascii4"
edition = "1987"
profile = "ascii"
id_key_file = "acme.key"
currency = [{ number = 840, asset_decimals = 18, edge_decimals = 2 }]
route = [{ prefix = "4", partitions = ["0:1"] }]
"#;
/// And of a door for applications, which may stand in the same file.
const APPLICATIONS: &str = r#"
[rest]
listen = "127.0.0.1:0"
asset = [{ name = "AMP", id = 1, decimals = 18, scale = 2 }]

[[rest.tenant]]
token = [{ name = "shop", hash = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a" }]
"#;

/// Somebody who takes all spans, and throws them away.
#[derive(Debug)]
pub struct Sink {
    /// Where.
    pub url: String,
    requests: Arc<AtomicU64>,
}

impl Sink {
    /// Listens until the process ends.
    ///
    /// # Errors
    /// If there is no port.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let requests = Arc::new(AtomicU64::new(0));
        let count = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = count.clone();
                std::thread::spawn(move || {
                    while swallow(&stream).is_some() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Ok(Self { url, requests })
    }

    /// How often somebody has come with spans.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Reads one request to its end, and answers it. None once there is no other.
fn swallow(mut stream: &TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    let length: u64 = head.split_once("content-length: ")?.1.split("\r\n").next()?.parse().ok()?;
    std::io::copy(&mut stream.take(length), &mut std::io::sink()).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

/// Scrapes an engine until it is dropped.
#[derive(Debug)]
pub struct Scraper {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    /// Begins.
    #[must_use]
    pub fn start(admin: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // One that fails is seen by whoever counts: the engine has ended.
                let _ = scrape(admin);
                std::thread::park_timeout(SCRAPE_EVERY);
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn scrape(admin: SocketAddr) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    std::io::copy(&mut stream, &mut std::io::sink())
}
