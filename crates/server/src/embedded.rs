//! An engine inside the caller's process: the same shard threads, reached through memory instead of QUIC.
//!
//! [`Embedded::connector`] gives `surety_client::Client` its transport; everything above it is the same as over the network.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use surety_client::transport::{
    Batch, BoxFuture, Closed, Connector, Event, Link, LinkReceiver, LinkSender, OpenError, QueryError,
    StateSource, TailSource,
};
use surety_protocol::limits::CONNECTION_IN_FLIGHT_MAX;
use surety_protocol::{
    Caller, CloseCode, Cursor, HelloReply, QueryRefusal, Record, Reply, ShardId, StateKind, StateQuery,
    TailHead, TailStatus, Token,
};
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::history::Unanswered;
use crate::server::{Running, Server, ShardEnd, StartError};
use crate::shared::{Life, Shared, Verdict};

/// Frames of a change stream that wait for their reader.
const TAIL_FRAMES: usize = 4;

/// An engine without a network.
#[derive(Debug)]
pub struct Embedded {
    running: Running,
}

impl Embedded {
    /// Starts the engine; `config.listen` is ignored.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start(config: Config) -> Result<Self, StartError> {
        Ok(Self { running: Server::start(Config { listen: None, ..config })? })
    }

    /// A transport for one caller. Who that is, is the embedder's word.
    #[must_use]
    pub fn connector(&self, caller: Caller) -> EmbeddedConnector {
        self.running.connector(caller)
    }

    /// The running engine.
    #[must_use]
    pub const fn running(&self) -> &Running {
        &self.running
    }

    /// Drains, seals and ends.
    pub fn shutdown(self) -> Vec<ShardEnd> {
        self.running.shutdown()
    }
}

/// Opens links to the shards of an engine in this process.
#[derive(Clone)]
pub struct EmbeddedConnector {
    shared: Arc<Shared>,
    caller: Caller,
}

impl fmt::Debug for EmbeddedConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedConnector").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl EmbeddedConnector {
    pub(crate) const fn new(shared: Arc<Shared>, caller: Caller) -> Self {
        Self { shared, caller }
    }

    fn check(&self, shard: ShardId, tokens: &[Token]) -> Result<(), OpenError> {
        if self.shared.shard(shard).is_none() {
            return Err(OpenError::NoSuchShard(shard));
        }
        let closed = |code| Err(OpenError::Closed(Closed::ByServer(code)));
        match self.shared.judge(tokens) {
            Verdict::Sound => Ok(()),
            Verdict::BadToken => closed(CloseCode::BadToken),
            Verdict::LostLife => closed(CloseCode::LostLife),
            Verdict::Fork(token) => {
                self.shared.declare_fork(&token);
                closed(CloseCode::Fork)
            }
        }
    }

    async fn open_link(&self, shard: ShardId, tokens: &[Token]) -> Result<Link, OpenError> {
        self.check(shard, tokens)?;
        let handle = Arc::new(LinkHandle {
            shared: Arc::clone(&self.shared),
            shard,
            end: Arc::new(LinkEnd::default()),
        });
        let (answer, hello) = oneshot::channel();
        handle.tell(LinkMessage::Open { end: Arc::clone(&handle.end), caller: self.caller, answer });
        let hello = hello.await.map_err(|_| Closed::ByServer(CloseCode::Draining))?;
        let hello = hello.map_err(Closed::ByServer)?;
        Ok(Link {
            hello,
            sender: Box::new(EmbeddedSender { handle: Arc::clone(&handle) }),
            receiver: Box::new(EmbeddedReceiver { handle }),
        })
    }

    async fn open_tail(
        &self,
        shard: ShardId,
        from: Cursor,
        tokens: &[Token],
    ) -> Result<Box<dyn TailSource>, OpenError> {
        self.check(shard, tokens)?;
        let (frames, source) = mpsc::channel(TAIL_FRAMES);
        self.shared.tell(shard, LinkMessage::Subscribe { from, caller: self.caller, frames });
        Ok(Box::new(EmbeddedTail { source }))
    }
}

impl Connector for EmbeddedConnector {
    fn open<'a>(&'a self, shard: ShardId, tokens: &'a [Token]) -> BoxFuture<'a, Result<Link, OpenError>> {
        Box::pin(self.open_link(shard, tokens))
    }

    fn subscribe<'a>(
        &'a self,
        shard: ShardId,
        from: Cursor,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn TailSource>, OpenError>> {
        Box::pin(self.open_tail(shard, from, tokens))
    }

    fn state<'a>(
        &'a self,
        shard: ShardId,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn StateSource>, OpenError>> {
        Box::pin(async move {
            self.check(shard, tokens)?;
            let (shared, caller) = (Arc::clone(&self.shared), self.caller);
            Ok(Box::new(EmbeddedState { shared, shard, caller }) as Box<dyn StateSource>)
        })
    }

    fn query<'a>(
        &'a self,
        question: &'a [u8],
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Vec<u8>, QueryError>> {
        Box::pin(async move {
            self.check(ShardId(0), tokens).map_err(QueryError::Open)?;
            if self.shared.life() != Life::Serving {
                return Err(Closed::ByServer(CloseCode::Draining).into());
            }
            let refused = |Unanswered { why, message }| QueryError::Refused { why, message };
            let answer = self.shared.inquiries.ask(self.caller, question).map_err(refused)?;
            let answered = answer.await.map_err(|_| {
                refused(Unanswered::new(QueryRefusal::Away, "the history has gone: ask again in a moment"))
            })?;
            answered.answer.map_err(refused)
        })
    }
}

/// What the holder of a link tells the shard.
#[derive(Debug)]
pub(crate) enum LinkMessage {
    /// A new link.
    Open { end: Arc<LinkEnd>, caller: Caller, answer: oneshot::Sender<Result<HelloReply, CloseCode>> },
    /// Requests.
    Batch { end: Arc<LinkEnd>, batch: Batch },
    /// Both halves are dropped.
    Close { end: Arc<LinkEnd> },
    /// A reader of the change stream.
    Subscribe { from: Cursor, caller: Caller, frames: mpsc::Sender<TailFrame> },
    /// A question about the state.
    State {
        query: StateQuery,
        kind: StateKind,
        caller: Caller,
        page: oneshot::Sender<Result<Vec<u8>, CloseCode>>,
    },
}

/// A frame of the change stream, decoded.
#[derive(Debug)]
pub(crate) struct TailFrame {
    pub(crate) head: TailHead,
    pub(crate) status: TailStatus,
    pub(crate) records: Vec<Record>,
}

/// A link, as the shard and its holder share it.
#[derive(Debug, Default)]
pub(crate) struct LinkEnd {
    state: Mutex<LinkState>,
    /// Requests that were sent and whose replies were not taken.
    owed: AtomicUsize,
    /// The outlet at the shard; set when the link is opened, before any batch.
    pub(crate) outlet: AtomicU32,
}

#[derive(Debug, Default)]
struct LinkState {
    replies: Vec<Reply>,
    is_goodbye: bool,
    closed: Option<Closed>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl LinkEnd {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        // The state is whole at every point where a panic could happen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shard's side of a link.
#[derive(Debug)]
pub(crate) struct LinkSink {
    end: Arc<LinkEnd>,
    staged: Vec<Reply>,
}

impl LinkSink {
    pub(crate) const fn new(end: Arc<LinkEnd>) -> Self {
        Self { end, staged: Vec::new() }
    }

    pub(crate) fn is_of(&self, end: &Arc<LinkEnd>) -> bool {
        Arc::ptr_eq(&self.end, end)
    }

    pub(crate) fn push(&mut self, reply: &Reply) {
        self.staged.push(*reply);
    }

    /// Hands over what was pushed, under one lock.
    pub(crate) fn flush(&mut self) {
        let mut state = self.end.lock();
        state.replies.append(&mut self.staged);
        wake(state);
    }

    pub(crate) fn say_goodbye(&mut self) {
        let mut state = self.end.lock();
        state.is_goodbye = true;
        wake(state);
    }

    pub(crate) fn close(&mut self, code: CloseCode) {
        self.flush();
        let mut state = self.end.lock();
        state.closed.get_or_insert(Closed::ByServer(code));
        wake(state);
    }
}

impl Drop for LinkSink {
    fn drop(&mut self) {
        self.close(CloseCode::Draining);
    }
}

fn wake(mut state: MutexGuard<'_, LinkState>) {
    let wakers = [state.reader.take(), state.writer.take()];
    drop(state);
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// The holder's side of a link; the shard hears when both halves are gone.
struct LinkHandle {
    shared: Arc<Shared>,
    shard: ShardId,
    end: Arc<LinkEnd>,
}

impl LinkHandle {
    fn tell(&self, message: LinkMessage) {
        self.shared.tell(self.shard, message);
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.tell(LinkMessage::Close { end: Arc::clone(&self.end) });
    }
}

struct EmbeddedSender {
    handle: Arc<LinkHandle>,
}

impl LinkSender for EmbeddedSender {
    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<Result<(), Closed>> {
        let end = &self.handle.end;
        let mut state = end.lock();
        if let Some(closed) = state.closed {
            return Poll::Ready(Err(closed));
        }
        let owed = end.owed.load(Ordering::Relaxed);
        if owed > 0 && owed + batch.len() > CONNECTION_IN_FLIGHT_MAX {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        end.owed.fetch_add(requests_in(batch), Ordering::Relaxed);
        drop(state);
        self.handle.tell(LinkMessage::Batch { end: Arc::clone(end), batch: batch.take() });
        Poll::Ready(Ok(()))
    }
}

/// Records that will be answered.
fn requests_in(batch: &Batch) -> usize {
    let is_part = |bytes: &&[u8; 128]| bytes[126] == surety_protocol::Kind::Continuation as u8;
    batch.len() - batch.records().iter().filter(is_part).count()
}

struct EmbeddedReceiver {
    handle: Arc<LinkHandle>,
}

impl LinkReceiver for EmbeddedReceiver {
    fn poll_receive(&mut self, cx: &mut Context<'_>, replies: &mut Vec<Reply>) -> Poll<Event> {
        let end = &self.handle.end;
        let mut state = end.lock();
        if !state.replies.is_empty() {
            end.owed.fetch_sub(state.replies.len(), Ordering::Relaxed);
            replies.append(&mut state.replies);
            if let Some(writer) = state.writer.take() {
                drop(state);
                writer.wake();
            }
            return Poll::Ready(Event::Replies(None));
        }
        if std::mem::take(&mut state.is_goodbye) {
            return Poll::Ready(Event::Goodbye);
        }
        if let Some(closed) = state.closed {
            return Poll::Ready(Event::Closed(closed));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

struct EmbeddedState {
    shared: Arc<Shared>,
    shard: ShardId,
    caller: Caller,
}

impl StateSource for EmbeddedState {
    fn ask<'a>(&'a mut self, query: &'a StateQuery) -> BoxFuture<'a, Result<Vec<u8>, Closed>> {
        Box::pin(async move {
            let (query, kind) = StateQuery::from_body(&query.to_bytes()).map_err(Closed::BadFrame)?;
            let (page, answer) = oneshot::channel();
            self.shared.tell(self.shard, LinkMessage::State { query, kind, caller: self.caller, page });
            answer.await.unwrap_or(Err(CloseCode::Draining)).map_err(Closed::ByServer)
        })
    }
}

struct EmbeddedTail {
    source: mpsc::Receiver<TailFrame>,
}

impl TailSource for EmbeddedTail {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        records: &mut Vec<Record>,
    ) -> Poll<Result<(TailHead, TailStatus), Closed>> {
        self.source.poll_recv(cx).map(|frame| {
            let mut frame = frame.ok_or(Closed::ByServer(CloseCode::Draining))?;
            records.append(&mut frame.records);
            Ok((frame.head, frame.status))
        })
    }
}
