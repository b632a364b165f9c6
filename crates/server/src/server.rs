//! Starting and ending a server: sockets first, then every shard's recovery, then one time for all, then service.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use settlement::Domain;
use storage::{DataDirectory, IoMode, METADATA_FILE, OpenDirectoryError, StorageError};
use surety_protocol::{Caller, EngineId, Epoch, Seq, ShardId, Time, sabotage};
use telemetry::otlp::Exporter;
use telemetry::{Page, Source};

use crate::clock::readings;
use crate::config::{Config, Stop, TraceConfig};
use crate::data::{FilesError, Keys, clock_acceptance, drop_clock_acceptance, is_clock_accepted, pki_path};
use crate::embedded::EmbeddedConnector;
use crate::shard::{self, Archive, Keeping, Network, Report, Setup, ShardError};
use crate::shared::{LOOK_AROUND, Life, Order, Shared};
use crate::threads::{self, AbortOnPanic};
use crate::tls::{TlsError, client_verifier_and_revoked, endpoint_config, server_config_by};
use crate::traces::Told;
use engine::clock::{Clock, ClockGap};

/// Bytes that a socket may hold for a shard that is busy.
const SOCKET_BYTES: usize = 4 << 20;

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// A running server. Dropping it ends it without a seal, as [`Running::kill`] does.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    shards: Vec<ShardStart>,
    threads: ShardThreads,
    /// Behind a lock only so that a server can be shared; `shutdown` alone reads it.
    reports: Mutex<Receiver<(ShardId, Report)>>,
    admin: Option<telemetry::Listener>,
    /// Ends behind the shards, with what they have noted last.
    _exporter: Option<Exporter>,
    // Last: nobody else may have the directory before every shard has ended.
    _directory: DataDirectory,
}

/// How a shard started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStart {
    /// Which.
    pub shard: ShardId,
    /// Where it listens; none without a network.
    pub address: Option<SocketAddr>,
    /// The last record, that of the start included.
    pub seq: Seq,
    /// The epoch that it has opened.
    pub epoch: Epoch,
    /// Records that were replayed.
    pub records_replayed: u64,
    /// The last record of the snapshot that it began with.
    pub snapshot: Option<Seq>,
    /// What a crash left behind, and was dropped.
    pub torn: Option<wal::TornTail>,
}

/// How a shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardEnd {
    /// Which.
    pub shard: ShardId,
    /// The last record.
    pub seq: Seq,
    /// The last record that is known to be on the disk.
    pub synced: Seq,
    /// The log ends with a seal. Without one it is as after a kill: what was answered is there, and the last block has
    /// nothing behind it that would prove it.
    pub is_sealed: bool,
}

/// Why a server did not start. Nothing was changed on the disk, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] OpenDirectoryError),
    /// The data directory shows how things stood at a moment, and what came after it has happened all the same.
    #[error("{} is a forensic copy: `surety verify` and `surety dump` read it, and nobody serves it", .0.display())]
    Forensic(PathBuf),
    /// The server's own files in it.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port is taken, or an address is not ours.
    #[error("cannot listen on {address}: {source}; choose another address or stop what uses it")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// There are not as many ports above the first as there are shards.
    #[error("port {0} leaves no room for one port per shard above it; choose a lower one")]
    Ports(u16),
    /// A shard.
    #[error("shard {shard}: {source}")]
    Shard {
        /// Which.
        shard: ShardId,
        /// Why.
        source: Box<ShardError>,
    },
    /// The directory's own files cannot be looked at.
    #[error(transparent)]
    Storage(StorageError),
    /// Direct I/O was asked for, and the file system does not take it.
    #[error("{0}")]
    DirectRefused(StorageError),
    /// Another window of ids was asked for than the directory has.
    #[error(
        "the data directory takes ids up to {} s old, since its log was decided by that; {} s were asked for: leave the setting out",
        pinned.0 / 1_000_000_000, asked.0 / 1_000_000_000
    )]
    IdWindow {
        /// What the settings say.
        asked: Time,
        /// What the directory says.
        pinned: Time,
    },
    /// The wall clock.
    #[error(transparent)]
    Clock(#[from] ClockGap),
    /// There is no randomness to draw a shard's secret from.
    #[error("the system has no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The system grants no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A shard's thread ended without a word.
    #[error("a shard ended while it started; see the log")]
    Silent,
    /// [`Config::stop`] was ordered before anything was served.
    #[error("it was told to stop before it served anything")]
    Stopped,
}

/// What kind of failure a [`StartError`] is; programs choose their exit code by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// There is no such data directory.
    Missing,
    /// The directory or its files belong to something else.
    Foreign,
    /// The directory is a forensic copy.
    Forensic,
    /// Another process uses it.
    Busy,
    /// What was durable is damaged or missing.
    Corrupt,
    /// A newer program wrote it.
    Newer,
    /// An address cannot be listened on.
    PortTaken,
    /// The wall clock is too far from the log.
    ClockGap,
    /// Certificates or keys.
    Pki,
    /// A certificate or its key is not there: no other try finds it.
    NoCertificate,
    /// The settings ask for something that this data directory cannot be served with.
    Settings,
    /// It was told to.
    Stopped,
    /// The system refused something else.
    Io,
}

impl StartError {
    /// The kind of failure.
    #[must_use]
    pub fn failure(&self) -> StartFailure {
        match self {
            Self::Directory(error) if error.is_busy() => StartFailure::Busy,
            Self::Directory(OpenDirectoryError::Missing(_)) => StartFailure::Missing,
            Self::Directory(
                OpenDirectoryError::Foreign { .. }
                | OpenDirectoryError::HalfRestored(_)
                | OpenDirectoryError::Copied(_),
            ) => StartFailure::Foreign,
            Self::Forensic(_) => StartFailure::Forensic,
            Self::Directory(OpenDirectoryError::Newer { .. }) => StartFailure::Newer,
            Self::Directory(OpenDirectoryError::ShardMissing(_)) => StartFailure::Corrupt,
            Self::Directory(_) | Self::Thread(_) | Self::Silent => StartFailure::Io,
            Self::Stopped => StartFailure::Stopped,
            Self::Files(FilesError::RolledBack { .. }) => StartFailure::Corrupt,
            Self::Tls(TlsError::Missing { .. }) => StartFailure::NoCertificate,
            Self::Files(_) | Self::Tls(_) => StartFailure::Pki,
            Self::DirectRefused(_) | Self::IdWindow { .. } => StartFailure::Settings,
            Self::Storage(_) | Self::Randomness(_) => StartFailure::Io,
            Self::Listen { .. } | Self::Ports(_) => StartFailure::PortTaken,
            Self::Clock(_) => StartFailure::ClockGap,
            Self::Shard { source, .. } => shard_failure(source),
        }
    }
}

fn shard_failure(error: &ShardError) -> StartFailure {
    use engine::RecoverError;
    match error {
        ShardError::Recover(error) => match &**error {
            RecoverError::Log(
                wal::RecoverError::ForeignEngine { .. } | wal::RecoverError::WrongShard { .. },
            ) => StartFailure::Foreign,
            RecoverError::Log(wal::RecoverError::Newer { .. }) => StartFailure::Newer,
            RecoverError::Log(wal::RecoverError::Io(_)) | RecoverError::Io(_) => StartFailure::Io,
            RecoverError::Log(_)
            | RecoverError::Diverged { .. }
            | RecoverError::NoLoss
            | RecoverError::NoSnapshot { .. } => StartFailure::Corrupt,
        },
        ShardError::Files(FilesError::RolledBack { .. } | FilesError::Content(_)) | ShardError::Epochs(_) => {
            StartFailure::Corrupt
        }
        ShardError::Archive(_) => StartFailure::Settings,
        ShardError::Files(FilesError::File { .. })
        | ShardError::Storage(_)
        | ShardError::Open(_)
        | ShardError::Journal(_)
        | ShardError::Keeper(_)
        | ShardError::NotWritten
        | ShardError::ArchiveUnread(_)
        | ShardError::NotCompared
        | ShardError::GivenUp
        | ShardError::Io(_) => StartFailure::Io,
    }
}

impl Server {
    /// Starts a server and returns when every shard serves.
    ///
    /// # Errors
    /// [`StartError`]. Until every shard has been read and the clock accepted, nothing is changed on the disk.
    pub fn start(config: Config) -> Result<Running, StartError> {
        let directory = DataDirectory::open(&config.data)?;
        if directory.metadata().is_forensic && !sabotage!("forensic-copy-served") {
            return Err(StartError::Forensic(config.data));
        }
        check_id_window(&config, &directory)?;
        let keys = Keys::read(&config.data)?;
        let shards = directory.metadata().shards;
        let sockets = bind(&config, shards)?;
        let admin = config.admin.map(bind_admin).transpose()?;
        let ports = sockets.iter().map(|(_, address)| address.port()).collect();
        let engine = directory.metadata().engine;
        let domain = Domain { chain_id: config.chain_id, contract: config.contract, engine };
        let io = io_mode(&config, &directory)?;
        let shared = Arc::new(Shared::new(domain, keys.token.clone(), &config, io, ports, shards));
        let exporter = match (&config.traces, &shared.traces) {
            (Some(TraceConfig { collector, .. }), Some(traces)) => {
                let source = Told(Arc::clone(traces));
                let exporter =
                    Exporter::start(collector.clone(), "surety", source, Arc::clone(&traces.exported));
                Some(exporter.map_err(StartError::Thread)?)
            }
            _ => None,
        };
        let addresses: Vec<SocketAddr> = sockets.iter().map(|(_, address)| *address).collect();
        // Before the logs are read, which may take minutes: whoever watches has to see that the process lives.
        let admin = admin
            .map(|listener| telemetry::Listener::start(listener, shared.clone()))
            .transpose()
            .map_err(StartError::Thread)?;
        let starting = Starting::spawn(&config, &directory, &keys, &shared, sockets)?;
        let (threads, reports, shards) = starting.complete(&config, &addresses)?;
        shared.set_life(Life::Serving);
        Ok(Running {
            shared,
            shards,
            threads,
            reports: Mutex::new(reports),
            admin,
            _exporter: exporter,
            _directory: directory,
        })
    }
}

impl Running {
    /// The engine's id.
    #[must_use]
    pub fn engine(&self) -> EngineId {
        self.shared.engine
    }

    /// How the log is written.
    #[must_use]
    pub fn io(&self) -> IoMode {
        self.shared.io
    }

    /// How each shard started.
    #[must_use]
    pub fn shards(&self) -> &[ShardStart] {
        &self.shards
    }

    /// Where each shard listens; empty without a network.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shards.iter().filter_map(|start| start.address).collect()
    }

    /// Where the admin listener is.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(telemetry::Listener::address)
    }

    /// A transport for a caller within this process.
    #[must_use]
    pub fn connector(&self, caller: Caller) -> EmbeddedConnector {
        EmbeddedConnector::new(Arc::clone(&self.shared), caller)
    }

    /// A handle for front doors in this process.
    #[must_use]
    pub fn inside(&self) -> Inside {
        Inside { shared: Arc::clone(&self.shared) }
    }

    /// Lets the admin listener tell the numbers of something that runs beside the shards. Whether the engine is ready is theirs alone.
    pub fn attach(&self, source: Arc<dyn telemetry::Source>) {
        self.shared.attached.0.write().push(source);
    }

    /// Reads certificates, authority and revocations again, and closes connections whose certificate is no longer good.
    pub fn reload(&self) {
        self.order(Order::Reload);
    }

    /// True once a client has proved that this data directory is an old copy.
    #[must_use]
    pub fn is_forked(&self) -> bool {
        self.shared.life() == Life::Forked
    }

    /// Drains and ends: says goodbye, answers what was taken, writes the seal, closes the connections.
    pub fn shutdown(mut self) -> Vec<ShardEnd> {
        self.shared.set_life(Life::Draining);
        self.order(Order::Drain);
        // All shards drain before the first one stops: they may still answer each other.
        self.collect(|report| matches!(report, Report::Drained).then_some(()));
        self.order(Order::Seal);
        let mut ends = self.collect(|report| match report {
            Report::Ended(end) => Some(end),
            _ => None,
        });
        ends.sort_by_key(|(shard, _)| *shard);
        self.threads.join();
        ends.into_iter().map(|(_, end)| end).collect()
    }

    /// Ends at once: no goodbye, no answers, no seal.
    pub fn kill(self) {
        drop(self);
    }

    fn order(&self, order: Order) {
        self.shared.order(order);
    }

    /// One report of a kind from each shard.
    fn collect<T>(&self, mut pick: impl FnMut(Report) -> Option<T>) -> Vec<(ShardId, T)> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let mut picked = Vec::new();
        while picked.len() < self.shards.len() {
            // A shard that is gone has aborted the process.
            let Ok((shard, report)) = reports.recv() else { break };
            picked.extend(pick(report).map(|value| (shard, value)));
        }
        picked
    }
}

/// A running engine as a front door in its process reaches it. It keeps no engine running: after the end it has nobody behind it, and
/// connectors say so.
#[derive(Clone, Debug)]
pub struct Inside {
    shared: Arc<Shared>,
}

impl Inside {
    /// The engine's id.
    #[must_use]
    pub fn engine(&self) -> EngineId {
        self.shared.engine
    }

    /// A transport for a caller. Who that is, is the front door's word.
    #[must_use]
    pub fn connector(&self, caller: Caller) -> EmbeddedConnector {
        EmbeddedConnector::new(Arc::clone(&self.shared), caller)
    }

    /// The engine's numbers, as `/metrics` tells them: read from counters, so that no shard notices.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut page = Page::default();
        self.shared.metrics(&mut page);
        page.into_text()
    }
}

/// The threads of the shards. Dropped, it ends them at once and waits until they are gone.
#[derive(Debug)]
struct ShardThreads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl ShardThreads {
    fn join(&mut self) {
        for handle in self.handles.drain(..) {
            // A panic there has aborted the process.
            let _ = handle.join();
        }
        self.shared.end();
    }
}

impl Drop for ShardThreads {
    fn drop(&mut self) {
        if !self.handles.is_empty() {
            self.shared.order(Order::Kill);
            self.join();
        }
    }
}

/// Shards that read their logs.
struct Starting {
    // Before the threads: those that wait for the time must see that none comes.
    go: Vec<Sender<Clock>>,
    threads: ShardThreads,
    reports: Receiver<(ShardId, Report)>,
}

type Started = (ShardThreads, Receiver<(ShardId, Report)>, Vec<ShardStart>);

impl Starting {
    fn spawn(
        config: &Config,
        directory: &DataDirectory,
        keys: &Keys,
        shared: &Arc<Shared>,
        sockets: Vec<(UdpSocket, SocketAddr)>,
    ) -> Result<Self, StartError> {
        let (sender, reports) = channel();
        let io = shared.io;
        let cores = threads::allowed_cores();
        // A core must be left for everything else.
        let has_cores = config.pin_threads && cores.len() > shared.shards.len();
        let threads = ShardThreads { shared: Arc::clone(shared), handles: Vec::new() };
        let mut starting = Self { go: Vec::new(), threads, reports };
        let mut sockets = sockets.into_iter().map(|(socket, _)| socket);
        for shard in directory.shards() {
            let network = sockets.next().map(|socket| network(config, keys, socket)).transpose()?;
            let (go, wait) = channel();
            let setup = Setup {
                shared: Arc::clone(shared),
                engine: engine_config(config, directory, shard)?,
                data: directory.path().to_owned(),
                path: directory.shard_path(shard),
                io,
                network,
                keeping: Keeping {
                    snapshot_records: config.snapshot_records,
                    retain_records: config.retain_records,
                    cursor_records: config.cursor_records,
                    free_bytes_min: config.free_bytes_min,
                },
                archive: archive(config, directory)?,
                core: has_cores.then(|| cores[usize::from(shard.0)]),
                busy_poll: config.busy_poll,
                reports: sender.clone(),
                go: wait,
            };
            let run = move || {
                let _guard = AbortOnPanic;
                shard::run(setup);
            };
            let thread = thread::Builder::new().name(format!("shard-{shard}")).spawn(run);
            starting.threads.handles.push(thread.map_err(StartError::Thread)?);
            starting.go.push(go);
        }
        Ok(starting)
    }

    /// Waits until all serve. If one fails, the others have ended when this returns: the directory is about to be let go.
    fn complete(self, config: &Config, addresses: &[SocketAddr]) -> Result<Started, StartError> {
        let mut starts: Vec<ShardStart> = Vec::new();
        let mut last_time = Time::ZERO;
        for _ in &self.threads.handles {
            let (shard, report) = self.next_report_unless(&config.stop)?;
            if let Report::Recovered(report) = report {
                last_time = last_time.max(report.last_time);
                let address = addresses.get(usize::from(shard.0)).copied();
                starts.push(started(shard, address, *report));
            }
        }
        let is_accepted = config.clock_accept || is_clock_accepted(&config.data);
        let gap_max = if is_accepted { Duration::MAX } else { config.clock_gap_max };
        let clock = Clock::start(last_time, readings(), gap_max)?;
        // Before the log has anything of that time: what nobody is told of cannot be found out later.
        if let Some(accepted) = clock_acceptance(&config.data) {
            tracing::warn!(accepted, "the wall clock is taken as it is, once");
        }
        for go in &self.go {
            // A shard that is gone has said why.
            let _ = go.send(clock);
        }
        starts.sort_by_key(|start| start.shard);
        for _ in &self.threads.handles {
            let (shard, report) = self.next_report()?;
            if let Report::Ready { epoch, seq } = report {
                let start = &mut starts[usize::from(shard.0)];
                (start.epoch, start.seq) = (epoch, seq);
            }
        }
        // Not before: whoever dies above starts by the same word again, and tells it again.
        drop_clock_acceptance(&config.data);
        Ok((self.threads, self.reports, starts))
    }

    fn next_report(&self) -> Result<(ShardId, Report), StartError> {
        self.reports.recv().map_or(Err(StartError::Silent), heard)
    }

    /// The same while nothing is written: whoever leaves here leaves no trace.
    fn next_report_unless(&self, stop: &Stop) -> Result<(ShardId, Report), StartError> {
        loop {
            match self.reports.recv_timeout(LOOK_AROUND) {
                Ok(report) => return heard(report),
                Err(RecvTimeoutError::Disconnected) => return Err(StartError::Silent),
                Err(RecvTimeoutError::Timeout) if stop.is_ordered() => return Err(StartError::Stopped),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn heard((shard, report): (ShardId, Report)) -> Result<(ShardId, Report), StartError> {
    match report {
        Report::Failed(source) => Err(StartError::Shard { shard, source }),
        report => Ok((shard, report)),
    }
}

fn started(shard: ShardId, address: Option<SocketAddr>, report: engine::Report) -> ShardStart {
    if let Some(torn) = &report.torn {
        tracing::warn!(
            shard = shard.0,
            first_seq = torn.first_seq.0,
            last_seq = torn.last_seq.map(|seq| seq.0),
            bytes = torn.bytes,
            "a crash left a torn block behind, which nobody was told of; it is dropped"
        );
    }
    ShardStart {
        shard,
        address,
        seq: report.last_seq,
        epoch: report.epoch,
        records_replayed: report.replayed,
        snapshot: report.snapshot,
        torn: report.torn,
    }
}

/// The archive, if there is one, and how this engine makes itself known there.
fn archive(config: &Config, directory: &DataDirectory) -> Result<Option<Archive>, StartError> {
    let Some(depot) = &config.archive else { return Ok(None) };
    let path = directory.path().join(METADATA_FILE);
    let metadata = std::fs::read_to_string(&path).map_err(|source| FilesError::File { path, source })?;
    Ok(Some(Archive { depot: Arc::clone(depot), metadata }))
}

/// How the log is written: as the settings say, or as well as the file system can.
fn io_mode(config: &Config, directory: &DataDirectory) -> Result<IoMode, StartError> {
    let first = directory.shard_path(ShardId(0));
    let Some(asked) = config.io else {
        let mode = IoMode::for_directory(&first).map_err(StartError::Storage)?;
        if mode == IoMode::Sync {
            tracing::warn!("the file system takes no direct I/O: the log is written through the page cache");
        }
        return Ok(mode);
    };
    match directory.storage(ShardId(0), asked) {
        Ok(_) => Ok(asked),
        Err(error @ StorageError::DirectRefused { .. }) => Err(StartError::DirectRefused(error)),
        Err(error) => Err(StartError::Storage(error)),
    }
}

/// What is in the log was decided by the directory's window; by another one it would replay to something else.
fn check_id_window(config: &Config, directory: &DataDirectory) -> Result<(), StartError> {
    let pinned = directory.metadata().id_window;
    match config.id_window {
        Some(asked) if asked != pinned => Err(StartError::IdWindow { asked, pinned }),
        _ => Ok(()),
    }
}

fn engine_config(
    config: &Config,
    directory: &DataDirectory,
    shard: ShardId,
) -> Result<engine::Config, StartError> {
    let index_secret = getrandom::u64().map_err(StartError::Randomness)?;
    Ok(engine::Config {
        index_secret,
        durability: config.durability,
        guard: config.guard,
        segment_bytes: config.segment_bytes,
        id_window: directory.metadata().id_window,
        ..engine::Config::new(directory.metadata().engine, shard)
    })
}

fn network(config: &Config, keys: &Keys, socket: UdpSocket) -> Result<Network, StartError> {
    let pki: PathBuf = pki_path(&config.data);
    let (verifier, revoked) = client_verifier_and_revoked(&pki)?;
    Ok(Network {
        socket,
        endpoint: endpoint_config(*keys.reset),
        server: server_config_by(&pki, Arc::clone(&verifier), &config.limits)?,
        verifier,
        revoked,
        pki,
    })
}

/// One UDP socket for each shard.
fn bind(config: &Config, shards: u16) -> Result<Vec<(UdpSocket, SocketAddr)>, StartError> {
    let Some(listen) = config.listen else { return Ok(Vec::new()) };
    if listen.port() != 0 && listen.port().checked_add(shards - 1).is_none() {
        return Err(StartError::Ports(listen.port()));
    }
    let bind_one = |shard| {
        let port = if listen.port() == 0 { 0 } else { listen.port() + shard };
        let address = SocketAddr::new(listen.ip(), port);
        let bound = UdpSocket::bind(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.map_err(|source| StartError::Listen { address, source })?;
        // More than the system grants is not worth failing for.
        let _ = set_socket_recv_buffer_size(&socket, SOCKET_BYTES);
        let _ = set_socket_send_buffer_size(&socket, SOCKET_BYTES);
        Ok((socket, address))
    };
    (0..shards).map(bind_one).collect()
}

fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })
}
