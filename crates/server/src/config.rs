//! What a server is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backup::Depot;
use engine::Durability;
use storage::IoMode;
use surety_protocol::limits::SEGMENT_BYTES;
use surety_protocol::trace::Sampling;
use surety_protocol::{Address, Time};
use telemetry::otlp::Collector;

use crate::history::Historian;

/// Everything that a server needs to know. [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory, as `init` made it.
    pub data: PathBuf,
    /// Shard *i* listens on this port plus *i*; port 0 picks free ones. `None`: no network, for an embedded engine.
    pub listen: Option<SocketAddr>,
    /// Where the admin listener answers HTTP; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// What stands behind a reply.
    pub durability: Durability,
    /// How the log is written; `None`: past the page cache where the file system takes that, else through it.
    pub io: Option<IoMode>,
    /// How old an id may be. The data directory has it from `init` and for ever; asking for another one is an error, `None`
    /// takes it as it is.
    pub id_window: Option<Time>,
    /// Keep the guard ring, so that rot of the very last block is seen too.
    pub guard: bool,
    /// Bytes of a new segment of the log.
    pub segment_bytes: u64,
    /// Records between two snapshots, at least; a snapshot also waits for nine times as long as the last one took.
    pub snapshot_records: u64,
    /// Records of the log that are kept behind the snapshots, at least; `None` keeps all.
    pub retain_records: Option<u64>,
    /// Records of the log that are kept for readers of the change stream who are behind, beyond what is kept anyway; a
    /// reader that is further behind finds its place `LOST`.
    pub cursor_records: u64,
    /// Where each segment of the log is kept once it is complete; until then retention leaves it where it is. `None`: nowhere.
    pub archive: Option<Arc<dyn Depot>>,
    /// Below this much free space new locks are declined.
    pub free_bytes_min: u64,
    /// Pin each shard's thread to a core of its own, if there are enough.
    pub pin_threads: bool,
    /// How long a shard's thread looks for the next request after each turn, before it goes to sleep: nobody has to wake it
    /// meanwhile, which on many machines takes longer than all that it does for a request. Worth it only where each shard has a core to
    /// itself, which it then keeps busy for as long as requests come. Zero: it sleeps at once.
    pub busy_poll: Duration,
    /// How far the wall clock may lie from the last logged time at start.
    pub clock_gap_max: Duration,
    /// Start even if it lies further.
    pub clock_accept: bool,
    /// The settlement's chain, which merchants' signatures name; 0 without one.
    pub chain_id: u64,
    /// The settlement's contract, which merchants' signatures name; zero without one.
    pub contract: Address,
    /// Which requests are traced, and who is told; `None`: none.
    pub traces: Option<TraceConfig>,
    /// Who keeps the history and answers questions to it; `None`: nobody.
    pub history: Option<Arc<dyn Historian>>,
    /// Ends a start that is under way.
    pub stop: Stop,
    /// What peers may use.
    pub limits: Limits,
}

/// An order to give up, for whoever starts a server and may be told meanwhile that none is wanted any more: an archive that is read first
/// may take hours. A log that is being read is read to its end before. It counts until every shard is ready to write; whatever comes later
/// finds a server that can be shut down.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Gives it.
    pub fn order(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True once it was given.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Traces of sampled requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// Where spans go.
    pub collector: Collector,
    /// Which requests are traced.
    pub sampling: Sampling,
}

impl Config {
    /// The defaults: port 7400 on the loopback, no admin listener, every reply on disk first.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 7400))),
            admin: None,
            durability: Durability::Fsync,
            io: None,
            id_window: None,
            guard: false,
            segment_bytes: SEGMENT_BYTES,
            snapshot_records: 4 << 20,
            retain_records: None,
            cursor_records: 16 << 20,
            archive: None,
            free_bytes_min: 256 << 20,
            pin_threads: true,
            busy_poll: Duration::ZERO,
            clock_gap_max: Duration::from_secs(24 * 3600),
            clock_accept: false,
            chain_id: 0,
            contract: Address([0; 20]),
            traces: None,
            history: None,
            stop: Stop::default(),
            limits: Limits::default(),
        }
    }
}

/// What peers may use before they are slowed down or closed. Counts hold per shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time of one tenant.
    pub connections_tenant: usize,
    /// Readers of the change stream at a time.
    pub subscriptions: usize,
    /// Readers of the change stream at a time of one tenant.
    pub subscriptions_tenant: usize,
    /// Handshakes at a time; past it new ones are refused.
    pub handshakes: usize,
    /// Handshakes at a time of one address (or one IPv6 /64): half of them by whoever says to be there, the rest only by
    /// those who have proved it by a Retry. Past it packets are dropped, and a client that means it tries again.
    pub handshakes_address: usize,
    /// Handshakes at a time above which an address must prove itself by a Retry.
    pub retry_above: usize,
    /// New connections per second and address, with a burst of four seconds' worth.
    pub connections_per_s_address: u32,
    /// New connections per second and certificate, with a burst of four seconds' worth.
    pub connections_per_s_certificate: u32,
    /// Streams of one connection.
    pub streams: u32,
    /// Time for a handshake.
    pub handshake: Duration,
    /// Time from an open connection to its first stream, from an open stream to its hello, and from the first to the last
    /// byte of a frame.
    pub frame: Duration,
    /// Time for a drain: until every reply has arrived.
    pub drain: Duration,
    /// Bytes of replies that one connection may leave unread.
    pub backlog_bytes: usize,
    /// Requests that wait for another shard.
    pub forwarded: usize,
    /// Releases signed by merchants whose signatures are being checked.
    pub releases: usize,
    /// Questions to the history at a time, of all shards together: those that wait for an answer, and answers on their way.
    pub queries: usize,
    /// Questions to the history at a time of one tenant, of all shards together.
    pub queries_tenant: usize,
    /// Questions to the history per second and tenant, with a burst of four seconds' worth; 0 is no limit.
    pub queries_per_s_tenant: u32,
    /// Locks for which each shard takes memory at its start, with two remembered ids for each: about 0.4 KiB a lock. Deciding
    /// then waits for no memory until there are more of them. No more than a shard keeps.
    pub reserve_locks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_tenant: 768,
            subscriptions: 256,
            subscriptions_tenant: 64,
            handshakes: 256,
            handshakes_address: 16,
            retry_above: 64,
            connections_per_s_address: 256,
            connections_per_s_certificate: 256,
            streams: 16,
            handshake: Duration::from_secs(2),
            frame: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            backlog_bytes: 4 << 20,
            forwarded: 8192,
            releases: 64,
            queries: 16,
            queries_tenant: 4,
            queries_per_s_tenant: 100,
            reserve_locks: 0,
        }
    }
}
