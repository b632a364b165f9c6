//! A transport whose other end is the test: it sees every link that is opened and every frame, and answers as it likes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use surety_client::protocol::{
    Code, Cursor, EngineId, Epoch, HelloReply, Id, PROTOCOL_VERSION, Record, Reply, Seq, ShardId, TailHead,
    TailStatus, TenantId, Time, Token, shard_map,
};
use surety_client::transport::{
    Batch, BoxFuture, Closed, Connector, Event, Link, LinkReceiver, LinkSender, OpenError, QueryError,
    StateSource, TailSource,
};
use surety_client::{Client, Options};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The transport.
pub(crate) struct Script {
    peers: UnboundedSender<Peer>,
    tails: UnboundedSender<TailPeer>,
    /// What the next attempts to open end with; then they succeed.
    pub(crate) failures: Mutex<VecDeque<OpenError>>,
    pub(crate) shards: Mutex<u16>,
    /// What the engine speaks on the subscriptions that follow.
    pub(crate) version: Mutex<u16>,
}

/// The engine's end of one link.
pub(crate) struct Peer {
    pub(crate) shard: ShardId,
    pub(crate) tokens: Vec<Token>,
    frames: UnboundedReceiver<Vec<Record>>,
    events: UnboundedSender<(Vec<Reply>, Event)>,
}

type TailEvent = Result<(TailHead, TailStatus, Vec<Record>), Closed>;

/// The engine's end of one subscription.
pub(crate) struct TailPeer {
    pub(crate) from: Cursor,
    pub(crate) tokens: Vec<Token>,
    pub(crate) events: UnboundedSender<TailEvent>,
}

/// A client over a script, and the links that it opens.
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) script: Arc<Script>,
    peers: UnboundedReceiver<Peer>,
    tails: UnboundedReceiver<TailPeer>,
}

impl Stage {
    pub(crate) async fn new(options: Options) -> (Self, Peer) {
        Self::with_shards(options, 1).await
    }

    pub(crate) async fn with_shards(options: Options, shards: u16) -> (Self, Peer) {
        let (peers_in, peers) = unbounded_channel();
        let (tails_in, tails) = unbounded_channel();
        let script = Arc::new(Script {
            peers: peers_in,
            tails: tails_in,
            failures: Mutex::default(),
            shards: Mutex::new(shards),
            version: Mutex::new(PROTOCOL_VERSION),
        });
        let client = Client::over(script.clone(), options, &[]).await.unwrap();
        let mut stage = Self { client, script, peers, tails };
        let first = stage.peer().await;
        (stage, first)
    }

    /// The next link that the client opens.
    pub(crate) async fn peer(&mut self) -> Peer {
        self.peers.recv().await.unwrap()
    }

    /// True if the client has opened no further link so far.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.peers.try_recv().is_err()
    }

    pub(crate) async fn tail_peer(&mut self) -> TailPeer {
        self.tails.recv().await.unwrap()
    }
}

impl Peer {
    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Vec<Record> {
        self.frames.recv().await.unwrap()
    }

    /// A frame that has already arrived.
    pub(crate) fn try_frame(&mut self) -> Option<Vec<Record>> {
        self.frames.try_recv().ok()
    }

    /// The next frame, or none if the client has dropped the link.
    pub(crate) async fn frame_or_end(&mut self) -> Option<Vec<Record>> {
        self.frames.recv().await
    }

    pub(crate) fn answer(&self, replies: &[Reply]) {
        self.answer_with(replies, None);
    }

    pub(crate) fn answer_with(&self, replies: &[Reply], token: Option<Token>) {
        let _ = self.events.send((replies.to_vec(), Event::Replies(token)));
    }

    pub(crate) fn goodbye(&self) {
        let _ = self.events.send((Vec::new(), Event::Goodbye));
    }

    /// The link breaks.
    pub(crate) fn cut(self, closed: Closed) {
        let _ = self.events.send((Vec::new(), Event::Closed(closed)));
    }
}

/// A reply with a code and nothing else.
pub(crate) fn reply(request: &Record, code: Code) -> Reply {
    Reply {
        id: request.id,
        code: code as u8,
        kind: request.kind,
        shard: request.partition.shard(),
        seq: if code.is_recorded() { Seq(1) } else { Seq(0) },
        time: Time(1),
        ..Reply::default()
    }
}

pub(crate) fn hello(shard: ShardId, shards: u16) -> HelloReply {
    let ports: Vec<u16> = (1..=shards).collect();
    HelloReply {
        engine: EngineId(1),
        now: now(),
        acked: Seq(0),
        synced: Seq(0),
        epoch: Epoch(1),
        tenant: TenantId(7),
        version: 1,
        shard,
        shards,
        frame_records_max: 1024,
        in_flight_max: 16 * 1024,
        roles: 0xf,
        durability: 1,
        reserved: [0; 2],
        ports: shard_map(&ports),
    }
}

pub(crate) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Time(u64::try_from(since.as_nanos()).unwrap())
}

/// An id whose time is now.
#[allow(dead_code)]
pub(crate) fn id(number: u128) -> Id {
    Id::from_parts(now(), number)
}

struct ScriptSender(UnboundedSender<Vec<Record>>);

impl LinkSender for ScriptSender {
    fn poll_send(&mut self, _: &mut Context<'_>, batch: &mut Batch) -> Poll<Result<(), Closed>> {
        let records = batch.records().iter().map(Record::from_bytes).collect();
        // Like a real link, this one takes bytes that nobody will read.
        let _ = self.0.send(records);
        Poll::Ready(Ok(()))
    }
}

struct ScriptReceiver(UnboundedReceiver<(Vec<Reply>, Event)>);

impl LinkReceiver for ScriptReceiver {
    fn poll_receive(&mut self, cx: &mut Context<'_>, replies: &mut Vec<Reply>) -> Poll<Event> {
        match self.0.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Event::Closed(Closed::Ended)),
            Poll::Ready(Some((new, event))) => {
                replies.extend(new);
                Poll::Ready(event)
            }
        }
    }
}

struct ScriptTail {
    version: u16,
    events: UnboundedReceiver<TailEvent>,
}

impl TailSource for ScriptTail {
    fn version(&self) -> u16 {
        self.version
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        records: &mut Vec<Record>,
    ) -> Poll<Result<(TailHead, TailStatus), Closed>> {
        match self.events.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Err(Closed::Ended)),
            Poll::Ready(Some(Err(closed))) => Poll::Ready(Err(closed)),
            Poll::Ready(Some(Ok((head, status, new)))) => {
                records.extend(new);
                Poll::Ready(Ok((head, status)))
            }
        }
    }
}

impl Connector for Script {
    fn open<'a>(&'a self, shard: ShardId, tokens: &'a [Token]) -> BoxFuture<'a, Result<Link, OpenError>> {
        Box::pin(async move {
            if let Some(error) = self.failures.lock().pop_front() {
                return Err(error);
            }
            let (frames_in, frames) = unbounded_channel();
            let (events_in, events) = unbounded_channel();
            let peer = Peer { shard, tokens: tokens.to_vec(), frames, events: events_in };
            let _ = self.peers.send(peer);
            Ok(Link {
                hello: hello(shard, *self.shards.lock()),
                sender: Box::new(ScriptSender(frames_in)),
                receiver: Box::new(ScriptReceiver(events)),
            })
        })
    }

    fn subscribe<'a>(
        &'a self,
        _: ShardId,
        from: Cursor,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn TailSource>, OpenError>> {
        Box::pin(async move {
            if let Some(error) = self.failures.lock().pop_front() {
                return Err(error);
            }
            let (events_in, events) = unbounded_channel();
            let _ = self.tails.send(TailPeer { from, tokens: tokens.to_vec(), events: events_in });
            let version = *self.version.lock();
            Ok(Box::new(ScriptTail { version, events }) as Box<dyn TailSource>)
        })
    }

    fn state<'a>(
        &'a self,
        shard: ShardId,
        _: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn StateSource>, OpenError>> {
        Box::pin(async move { Err(OpenError::NoSuchShard(shard)) })
    }

    fn query<'a>(&'a self, _: &'a [u8], _: &'a [Token]) -> BoxFuture<'a, Result<Vec<u8>, QueryError>> {
        Box::pin(async move { Err(QueryError::OldEngine(1)) })
    }
}
