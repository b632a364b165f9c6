//! One shard: a thread, its engine, its endpoint.
//!
//! The tasks of the thread share [`Shard`]; no lock is taken between them. A turn goes: streams that are ready hand their
//! frames to the engine, then [`Shard::turn`] runs once, writes one block and sends the replies that may leave.

mod archiving;
mod connection;
mod core;
mod credentials;
mod cursors;
mod ending;
mod inquiry;
mod journal;
mod keeper;
mod links;
mod money;
mod outlet;
mod replies;
mod signal;
mod slots;
mod state;
mod stream;
mod tail;
mod tenants;
mod tracer;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::task::Poll;
use std::time::{Duration, Instant};

use quinn::{Endpoint, EndpointConfig, ServerConfig};
use rustls::server::danger::ClientCertVerifier;
use storage::{FileStorage, IoMode, StorageError};
use surety_client::UdpRuntime;
use surety_protocol::{ActorId, CloseCode, Epoch, Record, Seq, ShardId, Time, sabotage};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::{boot_now, readings};
use crate::data::{ComparedArchive, FilesError, read_compared, read_epochs, write_compared, write_epochs};
use crate::limiter::Limiter;
use crate::release::is_genuine_release;
use crate::server::ShardEnd;
use crate::shared::{Forwarded, Inbox, LOOK_AROUND, Life, Order, Shared};
use crate::threads;
use engine::Epochs;
use engine::clock::Clock;

use self::archiving::Archiving;
use self::core::{Core, FrameFault, OutletNumber, Turn};
use self::cursors::Cursors;
use self::journal::Journal;
use self::keeper::{Job, Keeper};
pub(crate) use self::money::MoneyGauges;
use self::outlet::Peer;
use self::signal::Signal;
use self::slots::{SlotNumber, Slots};
use self::tenants::TenantCounts;

pub use self::journal::StartJournalError;
pub use self::keeper::KeeperError;
pub(crate) use self::keeper::{Archive, Kept};

/// How often time alone is looked at: expiries and seals are at most this late.
const TICK: Duration = Duration::from_millis(20);
/// Housekeeping is looked at every so many ticks.
const KEEPING_TICKS: u32 = 5;
/// The certificates of open connections are looked at every so many ticks: what has expired is closed within a second.
const CREDENTIAL_TICKS: u32 = 25;
/// The free space is looked at every so many ticks.
const SPACE_TICKS: u32 = 250;
/// Threads that read files and check signatures for one shard.
const BLOCKING_THREADS: usize = 8;
/// After a snapshot the next one waits for so many times as long as it took: snapshots never take more than a tenth of
/// the time, however fast the log grows.
const SNAPSHOT_REST: u64 = 9;

/// How long an archive that was compared since the loss may hold up a start.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the record of the start may take to be written.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// What a shard's thread is started with.
pub(crate) struct Setup {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: engine::Config,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// The shard's own directory.
    pub(crate) path: PathBuf,
    pub(crate) io: IoMode,
    pub(crate) network: Option<Network>,
    pub(crate) keeping: Keeping,
    pub(crate) archive: Option<Archive>,
    /// The core to stay on.
    pub(crate) core: Option<usize>,
    /// How long to look for the next request before going to sleep.
    pub(crate) busy_poll: Duration,
    pub(crate) reports: Sender<(ShardId, Report)>,
    pub(crate) go: Receiver<Clock>,
}

impl Setup {
    /// Before a shard serves there is one order alone that the server gives.
    fn is_given_up(&self) -> bool {
        !self.shared.shards[usize::from(self.engine.shard.0)].inbox.orders.is_empty()
    }
}

/// A shard's way to the network.
pub(crate) struct Network {
    pub(crate) socket: UdpSocket,
    pub(crate) endpoint: EndpointConfig,
    pub(crate) server: ServerConfig,
    /// Judges the certificates of open connections, as `server` judges those of new ones.
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// How many certificates it holds for revoked.
    pub(crate) revoked: usize,
    /// Where certificates are read again.
    pub(crate) pki: PathBuf,
}

/// When housekeeping is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    pub(crate) snapshot_records: u64,
    pub(crate) retain_records: Option<u64>,
    pub(crate) cursor_records: u64,
    pub(crate) free_bytes_min: u64,
}

/// What a shard tells the server.
pub(crate) enum Report {
    /// The log was read; the shard waits for the time.
    Recovered(Box<engine::Report>),
    /// The shard serves.
    Ready { epoch: Epoch, seq: Seq },
    /// Everything that was taken is answered.
    Drained,
    /// The log is sealed, the connections are closed.
    Ended(ShardEnd),
    /// The shard could not start.
    Failed(Box<ShardError>),
}

/// Why a shard could not start.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// Its files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its log.
    #[error("{}{}", .0, causes(.0))]
    Recover(Box<engine::RecoverError<StorageError>>),
    /// Its log could not be opened.
    #[error("{}{}", .0, causes(.0))]
    Open(#[from] wal::OpenError<StorageError>),
    /// The archive is of a life of this engine that is lost.
    #[error("{0}; after a loss the log is archived to a new place: set log.archive to one")]
    Archive(Box<backup::ArchiveError>),
    /// The archive was not compared since the loss, and cannot be now.
    #[error(
        "the archive cannot be compared, and before that nothing is served after a loss: {0}; make it readable and start again, or set log.archive to a new place"
    )]
    ArchiveUnread(Box<backup::ArchiveError>),
    /// The thread that compares the archive has ended without a word.
    #[error("the comparison of the archive broke off; see the log")]
    NotCompared,
    /// Nobody waits for it any more: the start was given up, or another shard has failed.
    #[error("the start was given up")]
    GivenUp,
    /// The server's own files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The log's thread.
    #[error(transparent)]
    Journal(#[from] StartJournalError),
    /// The housekeeping thread.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The record of its start is not on the disk in time.
    #[error(
        "the record of the start is not written after {} s: the disk is full or does not answer; make room and start again",
        START_PATIENCE.as_secs()
    )]
    NotWritten,
    /// Its notes of epochs are not those of its log.
    #[error("{0}; its notes are lost or of another copy: restore again, or put the notes back")]
    Epochs(#[from] engine::NotNoted),
    /// Its socket or runtime.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// The sources of an error, each after a colon.
fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source()).map(|cause| format!(": {cause}")).collect()
}

/// Runs a shard until it is told to end.
pub(crate) fn run(setup: Setup) {
    let id = setup.engine.shard;
    let reports = setup.reports.clone();
    if let Err(error) = recover_and_serve(setup) {
        // The server may have given up already.
        let _ = reports.send((id, Report::Failed(Box::new(error))));
    }
}

fn recover_and_serve(setup: Setup) -> Result<(), ShardError> {
    let id = setup.engine.shard;
    let mut storage = FileStorage::open(&setup.path, setup.io)?;
    let recovered = engine::recover(setup.engine, &mut storage, engine::Begin::Snapshot, |_| {})
        .map_err(|error| ShardError::Recover(Box::new(error)))?;
    let report = recovered.report().clone();
    let opening = (Epoch(report.epoch.0 + 1), report.last_seq.next());
    let mut epochs = read_epochs(&setup.data, id, opening)?;
    epochs.note_losses(recovered.ledger().losses_accepted())?;
    // Before this shard counts as recovered: no other one serves before all of them are known to have an archive of their own.
    if let Some(loss) = recovered.ledger().losses_accepted().last() {
        check_archive(&setup, &storage, loss)?;
    }
    let _ = setup.reports.send((id, Report::Recovered(Box::new(report))));
    // No time, no start: another shard failed, and nothing is changed on the disk.
    let Ok(mut clock) = setup.go.recv() else { return Ok(()) };
    let (now, _) = clock.now(readings().boot);
    let mut engine = recovered.open(&mut storage, now)?;
    engine.reserve(setup.shared.limits.reserve_locks);
    epochs.starts.push((engine.epoch(), opening.1));
    write_epochs(&setup.data, id, &epochs)?;
    // Where the next snapshot counts from, also across restarts.
    let newest = wal::list_snapshots(&storage)?.first().copied().unwrap_or_default();
    serve(setup, storage, engine, clock, epochs, newest)
}

/// After a loss the archive of the life that is lost is no place for the one that goes on. All of it is compared once, and nothing is
/// served before that; afterwards no more than tells the two lives apart.
fn check_archive(setup: &Setup, storage: &FileStorage, (after, life): (Seq, u128)) -> Result<(), ShardError> {
    let Some(archive) = &setup.archive else { return Ok(()) };
    let (data, id) = (&setup.data, setup.engine.shard);
    let known = ComparedArchive { place: archive.depot.place(), life };
    let is_known = read_compared(data, id)? == Some(known.clone());
    let read = if is_known { backup::Compared::With(after.next()) } else { backup::Compared::Every };
    let segments: Vec<wal::FileName> = wal::list_segments(storage)?
        .iter()
        .map(|span| wal::FileName::Segment { first_seq: span.first_seq })
        .collect();
    let (depot, path) = (Arc::clone(&archive.depot), setup.path.clone());
    let comparing = begin(id, move || backup::compare_archive(&*depot, id, &path, &segments, read))?;
    // Once it was compared as a whole, a place that does not answer holds up no start any more.
    let patience = is_known.then_some(ARCHIVE_PATIENCE);
    let Some(compared) = outcome(&comparing, patience, || setup.is_given_up())? else {
        tracing::warn!(
            shard = id.0,
            "the archive does not answer within {} s: it is compared beside serving",
            ARCHIVE_PATIENCE.as_secs()
        );
        return Ok(());
    };
    match compared {
        Err(error @ backup::ArchiveError::Differs { .. }) => Err(ShardError::Archive(Box::new(error))),
        Err(error) if !is_known => Err(ShardError::ArchiveUnread(Box::new(error))),
        Err(error) => {
            // Authorizing does not wait for it, now as ever.
            tracing::warn!(shard = id.0, "the archive cannot be compared: {error}");
            Ok(())
        }
        Ok(()) if is_known => Ok(()),
        Ok(()) => Ok(write_compared(data, id, &known)?),
    }
}

/// What a comparison comes to.
type Compared = Result<(), backup::ArchiveError>;

/// Runs a comparison on a thread of its own. If nobody waits for it any more, it says itself what it comes to.
fn begin(
    id: ShardId,
    compare: impl FnOnce() -> Compared + Send + 'static,
) -> Result<Receiver<Compared>, ShardError> {
    let (done, compared) = channel();
    let run = move || {
        // What the log has dropped meanwhile may be told as missing here: nothing but the log's own housekeeping follows from it.
        if let Err(SendError(Err(error))) = done.send(compare()) {
            tracing::error!(shard = id.0, "the archive, compared late: {error}");
        }
    };
    std::thread::Builder::new().name(format!("archive-{id}")).spawn(run)?;
    Ok(compared)
}

/// Waits for a comparison; `None` if it takes longer than there is patience. A thread that is left waits for a place, and writes nothing.
fn outcome(
    comparing: &Receiver<Compared>,
    patience: Option<Duration>,
    is_given_up: impl Fn() -> bool,
) -> Result<Option<Compared>, ShardError> {
    let begun = Instant::now();
    loop {
        match comparing.recv_timeout(LOOK_AROUND) {
            Ok(compared) => return Ok(Some(compared)),
            Err(RecvTimeoutError::Disconnected) => return Err(ShardError::NotCompared),
            Err(RecvTimeoutError::Timeout) if is_given_up() => return Err(ShardError::GivenUp),
            Err(RecvTimeoutError::Timeout)
                if patience.is_some_and(|patience| begun.elapsed() >= patience) =>
            {
                return Ok(None);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn serve(
    setup: Setup,
    storage: FileStorage,
    engine: engine::Engine,
    clock: Clock,
    epochs: Epochs,
    newest_snapshot: Seq,
) -> Result<(), ShardError> {
    let id = setup.engine.shard;
    let shared = Arc::clone(&setup.shared);
    let me = &shared.shards[usize::from(id.0)];
    me.set_synced(engine.marks().synced);
    me.metrics.snapshot_seq.set(newest_snapshot.0);
    // Set once: each shard starts once.
    let _ = me.epochs.set(epochs);
    let journal = Journal::start(&shared, id, storage, &setup.path, setup.io)?;
    let has_archive = setup.archive.is_some();
    let keeper = Keeper::start(&shared, setup.engine, &setup.path, setup.io, setup.archive)?;
    let home = threads::allowed_cores();
    if let Some(core) = setup.core {
        threads::pin(&[core]);
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        // Threads for reading files are at home everywhere.
        .on_thread_start(move || threads::pin(&home))
        .max_blocking_threads(BLOCKING_THREADS)
        .build_local(LocalOptions::default())?;
    let core = Core::new(id, Arc::clone(&shared), engine, journal, clock);
    let Setup { path, keeping, busy_poll, .. } = setup;
    let shard = Rc::new(Shard::new(core, path, busy_poll, keeper, keeping, has_archive, newest_snapshot));
    shard.verifier.replace(setup.network.as_ref().map(|network| Arc::clone(&network.verifier)));
    shard.revoked.set(setup.network.as_ref().map_or(0, |network| network.revoked));
    let reports = setup.reports;
    runtime.block_on(async {
        let endpoint = setup.network.map(Endpoints::open).transpose()?;
        shard.run(endpoint, &reports).await
    })
}

/// What the tasks of a shard share.
struct Shard {
    id: ShardId,
    epoch: Epoch,
    path: PathBuf,
    shared: Arc<Shared>,
    core: RefCell<Core>,
    /// Set when a turn is due.
    flush: Signal,
    /// How long that is looked for before the thread goes to sleep.
    busy_poll: Duration,
    /// Set when the server has given an order.
    ordered: Signal,
    /// What is synced, for the change stream.
    synced: watch::Sender<Seq>,
    handshakes: Cell<usize>,
    /// Those of them of each address that has any.
    handshaking: RefCell<HashMap<IpAddr, usize>>,
    connections: Cell<usize>,
    addresses: RefCell<Limiter<IpAddr>>,
    certificates: RefCell<Limiter<ActorId>>,
    peers: RefCell<Slots<Rc<Peer>>>,
    /// Who may connect, as the files said when they were last read; none without a network.
    verifier: RefCell<Option<Arc<dyn ClientCertVerifier>>>,
    /// How often they were read again.
    reloads: Cell<u64>,
    /// How many certificates were revoked by what was read last.
    revoked: Cell<usize>,
    /// Connections, and readers of the change stream, of each tenant.
    tenant_connections: Rc<TenantCounts>,
    tenant_readers: Rc<TenantCounts>,
    /// Streams that have ended, and whose peer has not acknowledged all of them.
    delivering: Cell<usize>,
    /// Whose turn it is to be told the state.
    state_turn: Arc<Semaphore>,
    /// Whose turn it is to be sent a part of an answer of the history.
    answer_turn: Arc<Semaphore>,
    /// Who asks for the state, of each tenant.
    tenant_askers: Rc<TenantCounts>,
    /// Where the readers of the change stream are.
    cursors: Rc<Cursors>,
    keeper: Keeper,
    keeping: Keeping,
    /// Jobs of each kind that were given and are not done.
    is_reserving: Cell<bool>,
    is_snapshotting: Cell<bool>,
    is_archiving: Cell<bool>,
    archiving: RefCell<Archiving>,
    has_archive: bool,
    /// Seq at which the last snapshot was asked for.
    snapshot_at: Cell<Seq>,
    /// No snapshot before this moment of the boot clock.
    snapshot_rest: Cell<Time>,
    is_reserve_missing: Cell<bool>,
    is_space_low: Cell<bool>,
}

/// A shard's endpoint, and where its certificates are.
struct Endpoints {
    endpoint: Endpoint,
    pki: PathBuf,
}

impl Endpoints {
    fn open(network: Network) -> Result<Self, ShardError> {
        let Network { socket, endpoint, server, verifier: _, revoked: _, pki } = network;
        let endpoint = Endpoint::new(endpoint, Some(server), socket, Arc::new(UdpRuntime))?;
        Ok(Self { endpoint, pki })
    }
}

impl Shard {
    /// Which epochs the log has had.
    fn epochs(&self) -> &Epochs {
        self.shared.shards[usize::from(self.id.0)].epochs.get_or_init(Epochs::default)
    }

    fn new(
        core: Core,
        path: PathBuf,
        busy_poll: Duration,
        keeper: Keeper,
        keeping: Keeping,
        has_archive: bool,
        newest_snapshot: Seq,
    ) -> Self {
        let marks = core.marks();
        let limits = core.shared.limits;
        Self {
            id: core.id,
            epoch: core.engine.epoch(),
            path,
            shared: Arc::clone(&core.shared),
            core: RefCell::new(core),
            flush: Signal::default(),
            busy_poll,
            ordered: Signal::default(),
            synced: watch::Sender::new(marks.synced),
            handshakes: Cell::new(0),
            handshaking: RefCell::default(),
            connections: Cell::new(0),
            addresses: RefCell::new(Limiter::new(limits.connections_per_s_address)),
            certificates: RefCell::new(Limiter::new(limits.connections_per_s_certificate)),
            peers: RefCell::default(),
            verifier: RefCell::default(),
            reloads: Cell::new(0),
            revoked: Cell::new(0),
            tenant_connections: Rc::default(),
            tenant_readers: Rc::default(),
            delivering: Cell::new(0),
            state_turn: Arc::new(Semaphore::new(1)),
            answer_turn: Arc::new(Semaphore::new(1)),
            tenant_askers: Rc::default(),
            cursors: Rc::default(),
            keeper,
            keeping,
            is_reserving: Cell::new(false),
            is_snapshotting: Cell::new(false),
            is_archiving: Cell::new(false),
            archiving: RefCell::default(),
            has_archive,
            snapshot_at: Cell::new(newest_snapshot),
            snapshot_rest: Cell::new(Time::ZERO),
            is_reserve_missing: Cell::new(false),
            is_space_low: Cell::new(false),
        }
    }

    /// Serves until the order to end has been carried out.
    async fn run(
        self: &Rc<Self>,
        endpoints: Option<Endpoints>,
        reports: &Sender<(ShardId, Report)>,
    ) -> Result<(), ShardError> {
        threads::spawn_task(Rc::clone(self).take_turns());
        threads::spawn_task(Rc::clone(self).take_mail());
        threads::spawn_task(Rc::clone(self).tick());
        if let Some(endpoints) = &endpoints {
            threads::spawn_task(connection::accept_all(Rc::clone(self), endpoints.endpoint.clone()));
        }
        // The record of the start goes to the log before anybody is told that the shard serves.
        self.flush.set();
        let written = self.until(|core| core.marks().acked == core.marks().appended);
        tokio::time::timeout(START_PATIENCE, written).await.map_err(|_| ShardError::NotWritten)?;
        let tell = |report| {
            // A server that has given up asks nothing any more.
            let _ = reports.send((self.id, report));
        };
        tell(Report::Ready { epoch: self.epoch, seq: self.core.borrow().marks().acked });
        let end = loop {
            match self.next_order().await {
                Order::Reload => self.reload(endpoints.as_ref()),
                Order::Drain => {
                    self.drain().await;
                    tell(Report::Drained);
                }
                end @ (Order::Seal | Order::Kill) => break end,
            }
        };
        let is_sealed = end == Order::Seal && self.seal().await;
        self.close(endpoints, end).await;
        tell(Report::Ended(self.end(is_sealed)));
        Ok(())
    }

    /// Hands a frame's requests to the engine; the turn follows when all ready streams have been read.
    fn execute(&self, outlet: OutletNumber, peer: &Peer, body: &[u8]) -> Result<(), FrameFault> {
        let executed = self.core.borrow_mut().execute(outlet, peer, body);
        self.flush.set();
        executed
    }

    async fn take_turns(self: Rc<Self>) {
        loop {
            self.turn_is_due().await;
            let turn = self.core.borrow_mut().turn();
            // Where one is missing, the disk is full: it is asked again now and then, not at every turn.
            if !self.is_reserve_missing.get() {
                self.order_reserve();
            }
            self.finish(turn);
            if self.core.borrow().engine.is_behind() {
                // More has become due than one turn may log: others first, then the rest, without waiting for a tick.
                tokio::task::yield_now().await;
                self.flush.set();
            }
        }
    }

    /// Waits until a turn is due. A task that yields keeps the thread from going to sleep: the runtime runs whoever is ready, asks the
    /// kernel what there is without waiting for it, and comes back.
    async fn turn_is_due(&self) {
        if !self.busy_poll.is_zero() {
            let begun = Instant::now();
            while begun.elapsed() < self.busy_poll {
                tokio::select! {
                    biased;
                    () = self.flush.wait() => return,
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        self.flush.wait().await;
    }

    fn finish(self: &Rc<Self>, turn: Turn) {
        for outlet in turn.waiters {
            threads::spawn_task(Rc::clone(self).wait_for_room(outlet));
        }
        for release in turn.releases {
            threads::spawn_task(Rc::clone(self).check(release));
        }
        if turn.is_synced_further {
            self.synced.send_replace(self.core.borrow().marks().synced);
        }
    }

    /// Checks a merchant's signature on another thread, then hands the release to the engine or refuses it.
    async fn check(self: Rc<Self>, release: Forwarded) {
        let domain = self.shared.domain;
        let checked = spawn_blocking(move || {
            let records: Vec<Record> = release.operation.iter().map(Record::from_bytes).collect();
            let is_genuine = is_genuine_release(&domain, release.caller.tenant, &records);
            (release, is_genuine)
        });
        // A panic there must not end in an answer.
        let Ok((release, is_genuine)) = checked.await else { threads::abort("a signature check panicked") };
        self.core.borrow_mut().take_checked(&release, is_genuine);
        self.flush.set();
    }

    /// Sends an outlet's backlog as its peer makes room.
    async fn wait_for_room(self: Rc<Self>, outlet: OutletNumber) {
        poll_fn(|cx| match self.core.borrow_mut().outlets.get_mut(outlet) {
            Some(outlet) => outlet.poll_backlog(cx),
            None => Poll::Ready(()),
        })
        .await;
        self.core.borrow_mut().end_wait(outlet);
    }

    /// Takes what other threads have left, whenever the bell rings.
    async fn take_mail(self: Rc<Self>) {
        let inbox = self.inbox();
        loop {
            inbox.bell.rung().await;
            self.core.borrow_mut().take_mail();
            if !inbox.orders.is_empty() {
                self.ordered.set();
            }
            while let Some(message) = inbox.links.take() {
                links::take(&self, message);
            }
            while let Some(kept) = inbox.kept.pop() {
                self.note_kept(kept);
            }
            if self.shared.life() == Life::Forked {
                self.close_all(CloseCode::Fork);
            }
            self.flush.set();
        }
    }

    async fn tick(self: Rc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut count: u32 = 0;
        loop {
            ticks.tick().await;
            if self.core.borrow_mut().is_timeout_due() {
                self.flush.set();
            }
            if count.is_multiple_of(KEEPING_TICKS) {
                self.keep();
            }
            if count.is_multiple_of(CREDENTIAL_TICKS) {
                self.close_expired();
            }
            if count.is_multiple_of(SPACE_TICKS) {
                self.keeper.give(Job::Space);
            }
            count = count.wrapping_add(1);
        }
    }

    /// Has a segment made in reserve if one is wanted.
    fn order_reserve(&self) {
        if self.is_reserving.get() {
            return;
        }
        if let Some((name, bytes)) = self.core.borrow().engine.wants_reserve() {
            self.is_reserving.set(self.keeper.give(Job::Reserve { name, bytes }));
        }
    }

    /// Gives the housekeeping what is due.
    fn keep(&self) {
        self.order_reserve();
        let mut core = self.core.borrow_mut();
        core.publish_gauges();
        core.metrics().connections_open.set(self.connections.get() as u64);
        let synced = core.marks().synced;
        if self.has_archive {
            let mut archiving = self.archiving.borrow_mut();
            archiving.note_complete(core.engine.segments(), synced, boot_now());
            core.metrics().archive_waiting_s.set(archiving.wait(boot_now()).0 / 1_000_000_000);
            self.order_archive(&archiving);
        }
        let is_due = synced.0.saturating_sub(self.snapshot_at.get().0) >= self.keeping.snapshot_records;
        if is_due && !self.is_snapshotting.get() && boot_now() >= self.snapshot_rest.get() {
            let floor = self.floor(synced);
            let is_given = self.keeper.give(Job::Snapshot { synced, floor });
            self.is_snapshotting.set(is_given);
            if is_given {
                self.snapshot_at.set(synced);
            }
        }
    }

    /// Has the next complete segment archived.
    fn order_archive(&self, archiving: &Archiving) {
        if let Some((segment, last_seq)) = archiving.next()
            && !self.is_archiving.get()
        {
            self.is_archiving.set(self.keeper.give(Job::Archive { segment, last_seq }));
        }
    }

    /// The log from here on stays: for everybody, and a little longer for readers who are behind.
    fn floor(&self, synced: Seq) -> Seq {
        let Some(records) = self.keeping.retain_records else { return Seq(0) };
        let floor = self.floor_of_readers(records, synced);
        let is_archived_first = self.has_archive && !sabotage!("retention-forgets-the-archive");
        if is_archived_first { floor.min(self.archiving.borrow().archived().next()) } else { floor }
    }

    fn floor_of_readers(&self, records: u64, synced: Seq) -> Seq {
        let floor = Seq(synced.0.saturating_sub(records));
        let quota = Seq(floor.0.saturating_sub(self.keeping.cursor_records));
        self.cursors.slowest().map_or(floor, |cursor| cursor.clamp(quota, floor))
    }

    fn note_kept(&self, kept: Kept) {
        let mut core = self.core.borrow_mut();
        match kept {
            Kept::Reserve(name) => {
                core.engine.reserve_created(name);
                self.is_reserving.set(false);
                self.is_reserve_missing.set(false);
            }
            Kept::NoReserve => {
                self.is_reserving.set(false);
                self.is_reserve_missing.set(true);
            }
            Kept::Snapshot { made, first_kept, took } => {
                self.is_snapshotting.set(false);
                self.snapshot_rest.set(boot_now().plus(Time(took.0.saturating_mul(SNAPSHOT_REST))));
                if let Some(seq) = made {
                    core.metrics().snapshot_seq.set(seq.0);
                }
                if let Some(first_kept) = first_kept {
                    core.engine.on_segments_removed(first_kept);
                }
            }
            Kept::Archived(archived) => {
                self.is_archiving.set(false);
                if let Some(seq) = archived {
                    self.archiving.borrow_mut().note_archived(seq, boot_now());
                    core.metrics().archived_seq.set(seq.0);
                }
            }
            Kept::Space(bytes) => self.is_space_low.set(bytes < self.keeping.free_bytes_min),
        }
        let is_low = self.is_reserve_missing.get() || self.is_space_low.get();
        core.metrics().storage_low.set(u64::from(is_low));
        core.engine.set_storage_low(is_low);
    }

    fn note_peer(&self, peer: &Rc<Peer>) -> SlotNumber {
        self.peers.borrow_mut().insert(Rc::clone(peer))
    }

    fn forget_peer(&self, number: SlotNumber) {
        self.peers.borrow_mut().remove(number);
    }

    fn close_all(&self, code: CloseCode) {
        let mut peers = self.peers.borrow_mut();
        for number in peers.numbers() {
            if let Some(peer) = peers.get_mut(number) {
                peer.close(code);
            }
        }
        self.core.borrow_mut().close_all(code);
    }

    async fn next_order(&self) -> Order {
        loop {
            if let Some(order) = self.inbox().orders.pop() {
                return order;
            }
            self.ordered.wait().await;
        }
    }

    fn inbox(&self) -> &Inbox {
        &self.shared.shards[usize::from(self.id.0)].inbox
    }

    fn reload(self: &Rc<Self>, endpoints: Option<&Endpoints>) {
        let Some(Endpoints { endpoint, pki }) = endpoints else { return };
        let read = crate::tls::client_verifier_and_revoked(pki).and_then(|(verifier, revoked)| {
            let config = crate::tls::server_config_by(pki, Arc::clone(&verifier), &self.shared.limits)?;
            Ok((config, (verifier, revoked)))
        });
        match read {
            Ok((config, (verifier, revoked))) => {
                endpoint.set_server_config(Some(config));
                self.reloads.update(|count| count + 1);
                self.verifier.replace(Some(Arc::clone(&verifier)));
                self.core.borrow().metrics().reloads.add(1);
                tracing::info!(
                    shard = self.id.0,
                    directory = %pki.display(),
                    revoked,
                    revoked_before = self.revoked.replace(revoked),
                    "certificates were read again"
                );
                threads::spawn_task(Rc::clone(self).close_refused(verifier));
            }
            Err(error) => {
                self.core.borrow().metrics().reload_failures.add(1);
                tracing::error!(shard = self.id.0, "certificates stay as they were: {error}");
            }
        }
    }
}
