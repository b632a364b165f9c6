//! What a team would otherwise build this with: Redis with a script, PostgreSQL with a function. The same work, on the same
//! machine, over the same number of connections, with as many requests in flight and the same durability.
//!
//! The work is the guarantee of a payment in two phases: lock an amount of one of a thousand partitions under an id that is new,
//! unless the id is known or too little is free; then release it. No peer is asked for more: no expiry, no policy, no velocity, no
//! captures, no state hash, no change stream. Surety does all of that meanwhile.

mod drive;
mod postgres;
mod redis;
mod surety;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::Context;

pub use drive::{Measured, closed_loop, open_loop};
pub use postgres::Postgres;
pub use redis::{Fsync, Redis};
pub use surety::Surety;

/// Partitions that the payments are spread over.
pub const PARTITIONS: u64 = 1_000;
/// What each partition has to give: more than any run takes. Redis' scripts count in doubles, so it stays below 2^53.
pub const COLLATERAL: i64 = 1 << 52;
/// How long a peer may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A payment, as all peers know it.
#[derive(Clone, Copy, Debug)]
pub struct Payment {
    /// 128 random bits with the time in front.
    pub id: u128,
    /// Below [`PARTITIONS`].
    pub partition: u64,
    /// In base units.
    pub amount: u64,
}

/// Whatever locks and releases.
pub trait Peer {
    /// One of its connections.
    type Link: Link + 'static;

    /// Opens one.
    fn connect(&self) -> impl Future<Output = anyhow::Result<Self::Link>>;

    /// The settings that matter, as they are printed.
    fn settings(&self) -> String;
}

/// A connection to a peer. All payments of a call are on their way at the same time.
pub trait Link {
    /// Locks each payment; every lock must be approved.
    fn lock(&mut self, payments: &[Payment]) -> impl Future<Output = anyhow::Result<()>>;

    /// Releases each payment.
    fn release(&mut self, payments: &[Payment]) -> impl Future<Output = anyhow::Result<()>>;
}

/// A server process of a peer; killed with the value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Waits until somebody answers on a port.
fn wait_for(port: u16, process: &mut Child, log: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        if std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(());
        }
        let ended = process.try_wait()?;
        if ended.is_some() || started.elapsed() > PATIENCE {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let last: Vec<_> = said.lines().rev().take(3).collect();
            anyhow::bail!("not ready ({ended:?}): {}", last.join(" / "));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program's path: on the search path, or where the distribution puts it.
fn program(name: &str, elsewhere: &[&str]) -> anyhow::Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(elsewhere.iter().map(std::path::PathBuf::from));
    places
        .map(|place| place.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("no {name} here; Debian: apt-get install redis-server postgresql"))
}
