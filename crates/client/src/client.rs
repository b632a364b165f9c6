//! The client: one API over every transport.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use surety_protocol::{
    Amount, ChangeBody, Cursor, Flags, HelloReply, Id, Kind, PartitionHandle, Record, Reply, ShardId,
    TenantId, Time, Token,
};
use tokio::sync::watch;

use crate::clock::IdSource;
use crate::error::{ConnectError, NotExecuted, SubmitError};
use crate::identity::Identity;
use crate::lane::{Lane, Shared, TICK};
use crate::observer::{Observed, Observer};
use crate::options::Options;
use crate::packed::PackedLink;
use crate::quic::{QuicConnector, QuicOptions};
use crate::request::Draft;
use crate::tail::Tail;
use crate::transport::{Connector, Link, OpenError};

/// A client of one engine. Cheap to clone; all clones share their links.
///
/// Every call may be made from any task. Requests for one shard leave in the order of the calls and may be answered in any
/// order. Must be made, and is to be used, inside a tokio runtime.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    hello: HelloReply,
    lanes: Arc<RwLock<Vec<Arc<Lane>>>>,
    /// Dropped with the last clone, which closes every lane.
    closing: watch::Sender<bool>,
    observer: OnceLock<Arc<dyn Observer>>,
}

impl Client {
    /// Connects over QUIC to an engine whose certificate names `localhost`, with default options.
    ///
    /// # Errors
    /// If the identity cannot be used or the engine does not answer.
    pub async fn connect(address: SocketAddr, identity: Identity) -> Result<Self, ConnectError> {
        Self::connect_with(QuicOptions::new(address, identity), Options::default()).await
    }

    /// Connects over QUIC.
    ///
    /// # Errors
    /// If the identity cannot be used or the engine does not answer.
    pub async fn connect_with(quic: QuicOptions, options: Options) -> Result<Self, ConnectError> {
        Self::over(Arc::new(QuicConnector::new(quic)?), options, &[]).await
    }

    /// Connects over any transport, and presents the rollback tokens that an earlier client of the same engine has left
    /// behind (see [`Client::tokens`]).
    ///
    /// # Errors
    /// If shard 0 cannot be opened.
    pub async fn over(
        connector: Arc<dyn Connector>,
        options: Options,
        tokens: &[Token],
    ) -> Result<Self, ConnectError> {
        let shard = ShardId(0);
        let own = |shard: ShardId| tokens.iter().copied().find(|token| token.shard == shard);
        let first = connector
            .open(shard, own(shard).as_slice())
            .await
            .map_err(|error| ConnectError::Open { shard, error })?;
        let hello = first.hello;
        let ids = IdSource::new();
        ids.learn(hello.now);
        let (shards, shards_seen) = watch::channel(hello.shards);
        let shared = Arc::new(Shared {
            connector,
            options,
            ids,
            tick: AtomicU32::new(0),
            shards,
            life_lost: watch::Sender::new(false),
        });
        let (closing, closing_seen) = watch::channel(false);
        let lanes = Arc::new(RwLock::new(Vec::new()));
        let tokens = tokens.to_vec();
        let crew =
            Crew { shared: shared.clone(), lanes: lanes.clone(), tokens, hello, closing: closing_seen };
        crew.grow(hello.shards, Some(first));
        tokio::spawn(crew.keep(shards_seen));
        Ok(Self { inner: Arc::new(Inner { shared, hello, lanes, closing, observer: OnceLock::new() }) })
    }

    /// The first hello of the engine: its name, shards, durability, and what the certificate allows.
    #[must_use]
    pub fn hello(&self) -> &HelloReply {
        &self.inner.hello
    }

    /// The tenant whose requests these are.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.inner.hello.tenant
    }

    /// Shards of the engine, as far as it has told.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.inner.lanes.read().len()).unwrap_or(u16::MAX)
    }

    /// Tells somebody of single requests from now on, for this client and all its clones. Whoever was named first stays; chains and long
    /// requests are not told.
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        let _ = self.inner.observer.set(observer);
    }

    /// Begins to wait for the outcome of a request, if somebody wants to know.
    fn observe(&self, request: Record) -> Option<Observed<'_>> {
        let observer = self.inner.observer.get()?;
        Some(Observed::begin(self, observer.as_ref(), request))
    }

    /// Completes once the engine has refused this client since what it was told is lost (`LOST_LIFE`): the engine goes on from a backup.
    /// It is refused until it is made anew, without its tokens; whatever was concluded from what it was told is to be looked
    /// at first. Otherwise it never completes.
    pub async fn life_lost(&self) {
        let mut lost = self.inner.shared.life_lost.subscribe();
        // The sender lives as long as this does.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// A new id, on the engine's clock.
    #[must_use]
    pub fn new_id(&self) -> Id {
        self.inner.shared.ids.next()
    }

    /// The engine's time, as well as this host knows it.
    #[must_use]
    pub fn now(&self) -> Time {
        self.inner.shared.ids.now()
    }

    /// The newest rollback token of each shard. Keep them, and give them to [`Client::over`] after a restart, so that an
    /// engine that came back with older data is found out.
    #[must_use]
    pub fn tokens(&self) -> Vec<Token> {
        self.inner.lanes.read().iter().filter_map(|lane| lane.token()).collect()
    }

    /// Sends one request and waits for its reply. Waits for room while too many are unanswered.
    ///
    /// A decline is a reply. Dropping the future does not take the request back.
    ///
    /// The id must be new to this call, or the caller must not act on `NotExecuted`: where the same id may have been sent
    /// before (by a process that has ended since, by another instance of a front door) the request may have been executed
    /// then. That is what [`Client::submit_definite`] and [`Client::resolve`] are for.
    ///
    /// # Errors
    /// [`SubmitError::NotExecuted`] or [`SubmitError::Unknown`], of this call; the difference is the point of the type.
    pub async fn submit(&self, request: Record) -> Result<Reply, SubmitError> {
        let lane = self.lane(&request)?;
        let observed = self.observe(request);
        let outcome = lane.submit_one(request.id, request.to_bytes()).await;
        if let Some(observed) = observed {
            observed.end(&outcome);
        }
        outcome
    }

    /// As [`Client::submit`], but answers [`NotExecuted::Busy`] where that would wait for room.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn try_submit(&self, request: Record) -> Result<Reply, SubmitError> {
        let lane = self.lane(&request)?;
        let observed = self.observe(request);
        let outcome = lane.try_submit_one(request.id, request.to_bytes()).await;
        if let Some(observed) = observed {
            observed.end(&outcome);
        }
        outcome
    }

    /// Gives a draft its id, unless it has one, and submits it.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn send(&self, draft: impl Into<Draft>) -> Result<Reply, SubmitError> {
        let request = draft.into().into_record(|| self.new_id());
        self.submit(request).await
    }

    /// Sends independent requests at once and waits for all replies, which come in the order of the requests.
    pub async fn submit_all(&self, requests: Vec<Record>) -> Vec<Result<Reply, SubmitError>> {
        let mut calls: Vec<_> = requests.into_iter().map(|request| Box::pin(self.submit(request))).collect();
        let mut answers: Vec<Option<Result<Reply, SubmitError>>> = vec![None; calls.len()];
        std::future::poll_fn(|cx| {
            let mut is_ready = true;
            for (call, answer) in calls.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
                match call.as_mut().poll(cx) {
                    std::task::Poll::Ready(result) => *answer = Some(result),
                    std::task::Poll::Pending => is_ready = false,
                }
            }
            if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        answers.into_iter().flatten().collect()
    }

    /// Sends requests of one shard as a chain: all of them are executed, or none. The marks that link them are set here.
    /// Answers come in the order of the requests.
    pub async fn submit_chain(&self, mut requests: Vec<Record>) -> Vec<Result<Reply, SubmitError>> {
        let Some((last, others)) = requests.split_last_mut() else { return Vec::new() };
        others.iter_mut().for_each(|request| request.flags |= Flags::LINKED.0);
        last.flags &= !Flags::LINKED.0;
        let ids: Vec<Id> = requests.iter().map(|request| request.id).collect();
        match self.lane(&requests[0]) {
            Ok(lane) => lane.submit_operation(&ids, requests.iter().map(Record::to_bytes).collect()).await,
            Err(SubmitError::NotExecuted { why, .. }) => {
                ids.iter().map(|id| Err(SubmitError::NotExecuted { id: *id, why })).collect()
            }
            Err(error @ SubmitError::Unknown { .. }) => ids.iter().map(|_| Err(error)).collect(),
        }
    }

    /// Sends a long request, such as a policy: a head and its continuations (see [`surety_protocol::long::split`]).
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_long(&self, records: &[Record]) -> Result<Reply, SubmitError> {
        let Some(head) = records.first() else {
            return Err(SubmitError::NotExecuted { id: Id(0), why: NotExecuted::NotOneOperation });
        };
        let lane = self.lane(head)?;
        let bytes = records.iter().map(Record::to_bytes).collect();
        let mut answers = lane.submit_operation(&[head.id], bytes).await;
        answers
            .pop()
            .unwrap_or(Err(SubmitError::NotExecuted { id: head.id, why: NotExecuted::NotOneOperation }))
    }

    /// Looks an id up in a partition. With `burn`, an id that is not found is spent, for as long as its version lasts: whatever
    /// still comes under it is declined. A reply `NOT_FOUND` is definite only then.
    ///
    /// # Errors
    /// As [`Client::submit`]; they speak of the look-up.
    pub async fn lookup(&self, partition: PartitionHandle, id: Id, burn: bool) -> Result<Reply, SubmitError> {
        let flags = match (burn, id.is_lasting()) {
            (false, _) => Flags(0),
            (true, false) => Flags::BURN,
            (true, true) => Flags::BURN.with(Flags::LASTING),
        };
        self.lookup_with(partition, id, flags).await
    }

    pub(crate) async fn lookup_with(
        &self,
        partition: PartitionHandle,
        id: Id,
        flags: Flags,
    ) -> Result<Reply, SubmitError> {
        let body = ChangeBody { lock: id, ..ChangeBody::default() };
        let request = Record::new(Kind::Lookup, self.new_id(), partition, Amount::ZERO, &body);
        self.submit(request.with_flags(flags)).await
    }

    /// Opens a link of its own to a shard, without ids, retries and waiting of its own: for packed load.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn packed(&self, shard: ShardId) -> Result<PackedLink, OpenError> {
        let tokens: Vec<Token> = self.tokens().into_iter().filter(|token| token.shard == shard).collect();
        Ok(PackedLink::new(self.inner.shared.connector.open(shard, &tokens).await?))
    }

    /// Follows the change stream of a shard from `from` on: a seq, 0 and 1 both mean the beginning, or a [`Cursor`], which is known
    /// by the engine as its own or refused with [`crate::TailError::Parted`].
    #[must_use]
    pub fn tail(&self, shard: ShardId, from: impl Into<Cursor>) -> Tail {
        let lanes = self.inner.lanes.clone();
        let token = move || lanes.read().get(usize::from(shard.0)).and_then(|lane| lane.token());
        let shared = &self.inner.shared;
        Tail::new(shared.connector.clone(), shared.options.clone(), shard, from.into(), Box::new(token))
    }

    pub(crate) fn connector(&self) -> &dyn Connector {
        &*self.inner.shared.connector
    }

    /// How this client behaves.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.shared.options
    }

    /// Closes all links. What is unanswered fails as unknown, what has not left as not executed; so does every later call,
    /// on every clone.
    pub fn close(&self) {
        let _ = self.inner.closing.send(true);
    }

    /// [`Client::close`], and the engine is told of it before this returns: for a process that is about to end.
    pub async fn shutdown(&self) {
        self.close();
        self.connector().farewell().await;
    }

    fn lane(&self, request: &Record) -> Result<Arc<Lane>, SubmitError> {
        let shard = request.partition.shard();
        let lanes = self.inner.lanes.read();
        lanes
            .get(usize::from(shard.0))
            .cloned()
            .ok_or(SubmitError::NotExecuted { id: request.id, why: NotExecuted::NoSuchShard(shard) })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("engine", &self.inner.hello.engine)
            .field("tenant", &self.tenant())
            .field("shards", &self.shards())
            .finish()
    }
}

/// Keeps a driven lane for every shard.
struct Crew {
    shared: Arc<Shared>,
    lanes: Arc<RwLock<Vec<Arc<Lane>>>>,
    tokens: Vec<Token>,
    hello: HelloReply,
    closing: watch::Receiver<bool>,
}

impl Crew {
    /// Adds lanes up to `shards`. `first` is an open link to the first of them.
    fn grow(&self, shards: u16, mut first: Option<Link>) {
        let mut lanes = self.lanes.write();
        for shard in u16::try_from(lanes.len()).unwrap_or(u16::MAX)..shards {
            let shard = ShardId(shard);
            let token = self.tokens.iter().copied().find(|token| token.shard == shard);
            let lane = Arc::new(Lane::new(shard, self.shared.clone(), self.hello.in_flight_max, token));
            tokio::spawn(lane.clone().drive(first.take(), self.closing.clone()));
            lanes.push(lane);
        }
    }

    /// Counts ticks, gives up what is late, and adds lanes when an engine tells of more shards.
    async fn keep(self, mut shards: watch::Receiver<u16>) {
        let mut closing = self.closing.clone();
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = interval.tick() => {
                    self.shared.tick.fetch_add(1, Ordering::Relaxed);
                    self.lanes.read().iter().for_each(|lane| lane.sweep());
                }
                changed = shards.changed() => {
                    let count = *shards.borrow_and_update();
                    if changed.is_ok() {
                        self.grow(count, None);
                    }
                }
                _ = closing.wait_for(|is_closing| *is_closing) => break,
            }
        }
    }
}
