//! One stream of a connection: its hello, then requests and replies, the change stream, questions about the state, or to the history.

use std::rc::Rc;

use bytes::Bytes;
use engine::Durability;
use quinn::{RecvStream, SendStream, VarInt};
use surety_protocol::limits::{CONNECTION_IN_FLIGHT_MAX, FRAME_RECORDS_MAX, RECORD_BYTES};
use surety_protocol::{
    CURSORS_HAVE_EPOCHS, Caller, CloseCode, Cursor, Epoch, FrameError, FrameHeader, FrameKind, Hello,
    HelloReply, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, QUERY_VERSION, RecordError, STATE_HEAD_BYTES,
    StateQuery, Subscribe, sabotage,
};
use tokio::time::{Instant, timeout_at};

use crate::frames::{Frame, FrameBuffer};
use crate::shard::Shard;
use crate::shard::connection::Count;
use crate::shard::core::{FrameFault, OutletNumber};
use crate::shard::outlet::{Outlet, Peer};
use crate::shard::tail::{self, StreamTail};
use crate::shard::tenants::Counted;
use crate::shard::{inquiry, state};
use crate::shared::{Life, Verdict};

/// Chunks of a stream taken at a time.
const CHUNKS: usize = 32;

/// Why reading stopped before its time.
pub(super) enum Stop {
    /// The peer's doing: the connection is closed with a code.
    Fault(FrameFault),
    /// The connection or the stream is gone.
    Lost,
}

impl From<FrameFault> for Stop {
    fn from(fault: FrameFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<FrameError> for Stop {
    fn from(error: FrameError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<RecordError> for Stop {
    fn from(error: RecordError) -> Self {
        Self::Fault(error.into())
    }
}

/// Serves one stream until it ends.
pub(super) async fn serve(shard: Rc<Shard>, peer: Rc<Peer>, send: SendStream, recv: RecvStream) {
    if let Err(Stop::Fault(fault)) = run(&shard, &peer, send, recv).await {
        let code = CloseCode::from(fault);
        tracing::warn!(
            shard = shard.id.0,
            tenant = peer.caller.tenant.0,
            actor = %peer.caller.actor,
            "closing a connection with {}: {fault}", code.name()
        );
        shard.core.borrow().metrics().closed_by_fault.add(1);
        peer.close(code);
    }
}

async fn run(shard: &Rc<Shard>, peer: &Rc<Peer>, mut send: SendStream, recv: RecvStream) -> Result<(), Stop> {
    let mut reader = Reader::new(recv, shard.shared.limits.frame);
    // The hello must come soon, even if not a byte of it has come yet.
    reader.set_deadline();
    let Some(frame) = reader.next_frame().await? else { return Ok(()) };
    let reply = hello(shard, peer.caller, &frame)?;
    let header = FrameHeader { kind: FrameKind::HelloReply, count: 1, number: 0 }.to_bytes();
    send.write_all(&[&header[..], &reply.to_bytes()].concat()).await.map_err(|_| Stop::Lost)?;
    let Some(frame) = reader.next_frame().await? else { return Ok(()) };
    match frame.header.kind {
        FrameKind::Requests => requests(shard, peer, reply.version, send, reader, frame).await,
        FrameKind::Subscribe => subscribe(shard, peer, reply.version, send, &frame).await,
        FrameKind::StateQuery => questions(shard, peer, reply.version, send, reader, frame).await,
        FrameKind::Query if reply.version >= QUERY_VERSION => {
            inquiry::serve(shard, peer, send, reader, frame).await
        }
        kind => Err(FrameFault::Misplaced(kind).into()),
    }
}

/// Judges a hello and answers it.
fn hello(shard: &Shard, caller: Caller, frame: &Frame) -> Result<HelloReply, FrameFault> {
    if frame.header.kind != FrameKind::Hello {
        return Err(FrameFault::NoHello);
    }
    let (hello, tokens) = Hello::from_body(&frame.body).map_err(|_| FrameFault::NoHello)?;
    let oldest = oldest_version(shard);
    let version =
        hello.common_version(oldest).ok_or(FrameFault::Version(hello.version_min, hello.version_max))?;
    if hello.tenant != caller.tenant && !sabotage!("tenant-by-its-hello") {
        return Err(FrameFault::Tenant { named: hello.tenant, certified: caller.tenant });
    }
    match shard.shared.judge(&tokens) {
        Verdict::Sound => {}
        Verdict::BadToken => return Err(FrameFault::BadToken),
        Verdict::Fork(token) => shard.shared.declare_fork(&token),
        Verdict::LostLife => return Err(FrameFault::LostLife),
    }
    let greeting = greet(shard, caller)?;
    Ok(HelloReply { version, ..greeting })
}

/// What an engine says after a loss has no words in version 1.
fn oldest_version(shard: &Shard) -> u16 {
    let has_losses = shard.core.borrow().engine.ledger().losses() > 0;
    if has_losses { PROTOCOL_VERSION } else { PROTOCOL_VERSION_MIN }
}

/// What a new stream or link is told, if the shard still talks to its tenant.
pub(super) fn greet(shard: &Shard, caller: Caller) -> Result<HelloReply, FrameFault> {
    let mut core = shard.core.borrow_mut();
    if shard.shared.life() == Life::Forked {
        return Err(FrameFault::Forked);
    }
    if core.is_shut_out(caller.tenant) {
        return Err(FrameFault::ShutOut);
    }
    let marks = core.marks();
    Ok(HelloReply {
        engine: shard.shared.engine,
        now: core.now(),
        acked: marks.acked,
        synced: marks.synced,
        epoch: shard.epoch,
        tenant: caller.tenant,
        version: PROTOCOL_VERSION,
        shard: shard.id,
        shards: u16::try_from(shard.shared.shards.len()).unwrap_or(u16::MAX),
        frame_records_max: u16::try_from(FRAME_RECORDS_MAX).unwrap_or(u16::MAX),
        in_flight_max: u32::try_from(CONNECTION_IN_FLIGHT_MAX).unwrap_or(u32::MAX),
        roles: caller.roles.0,
        durability: u8::from(shard.shared.durability == Durability::Os),
        reserved: [0; 2],
        ports: shard.shared.shard_map(),
    })
}

async fn requests(
    shard: &Rc<Shard>,
    peer: &Rc<Peer>,
    version: u16,
    send: SendStream,
    mut reader: Reader,
    first: Frame,
) -> Result<(), Stop> {
    let delivered = send.stopped();
    let outlet = Outlet::stream(Rc::clone(peer), send, 1, version);
    let lost = Rc::clone(&outlet.lost);
    let outlet = shard.core.borrow_mut().attach(outlet);
    // A peer that takes no replies is not read any further; what it has sent and was not read is not executed.
    let outcome = tokio::select! {
        biased;
        () = lost.wait() => Err(Stop::Lost),
        outcome = read_requests(shard, peer, &mut reader, first, outlet) => outcome,
    };
    shard.core.borrow_mut().detach(outlet, outcome.is_err());
    if outcome.is_ok() {
        // The last replies are on their way: a drain waits for them, too.
        let _delivering = Count::new(shard, |shard| &shard.delivering);
        // Whatever comes of it, nothing more is owed.
        let _ = delivered.await;
    }
    outcome
}

async fn read_requests(
    shard: &Rc<Shard>,
    peer: &Peer,
    reader: &mut Reader,
    first: Frame,
    outlet: OutletNumber,
) -> Result<(), Stop> {
    let mut next = Some(first);
    while let Some(frame) = next {
        if frame.header.kind != FrameKind::Requests {
            return Err(FrameFault::Misplaced(frame.header.kind).into());
        }
        shard.execute(outlet, peer, &frame.body)?;
        next = reader.next_frame().await?;
    }
    Ok(())
}

/// Answers questions about the state, one after the other.
async fn questions(
    shard: &Rc<Shard>,
    peer: &Peer,
    version: u16,
    mut send: SendStream,
    mut reader: Reader,
    first: Frame,
) -> Result<(), Stop> {
    let Some(_counted) = let_in(shard, peer, &mut send, state::count_asker(shard, peer.caller)) else {
        return Ok(());
    };
    let gone = send.stopped();
    tokio::select! {
        biased;
        // Who has gone is not waited for, nor answered.
        _ = gone => Ok(()),
        outcome = answer_all(shard, peer, version, &mut send, &mut reader, first) => outcome,
    }
}

async fn answer_all(
    shard: &Rc<Shard>,
    peer: &Peer,
    version: u16,
    send: &mut SendStream,
    reader: &mut Reader,
    first: Frame,
) -> Result<(), Stop> {
    let mut next = Some(first);
    let mut number = 1;
    while let Some(frame) = next {
        if frame.header.kind != FrameKind::StateQuery {
            return Err(FrameFault::Misplaced(frame.header.kind).into());
        }
        let (query, kind) = StateQuery::from_body(&frame.body)?;
        if query.shard != shard.id {
            return Err(FrameFault::WrongShard(query.shard).into());
        }
        // Nobody is owed an answer: reading changes nothing.
        if shard.shared.life() != Life::Serving {
            return Ok(());
        }
        let page = state::answer(shard, peer.caller, &query, kind, version).await;
        let records = page.len().saturating_sub(STATE_HEAD_BYTES) / RECORD_BYTES;
        let count = u16::try_from(records).unwrap_or(u16::MAX);
        let header = FrameHeader { kind: FrameKind::State, count, number }.to_bytes();
        send.write_all(&[&header[..], &page].concat()).await.map_err(|_| Stop::Lost)?;
        number += 1;
        next = reader.next_frame().await?;
    }
    Ok(())
}

/// Resets the stream of a reader who is one too many.
fn let_in(shard: &Shard, peer: &Peer, send: &mut SendStream, counted: Option<Counted>) -> Option<Counted> {
    if counted.is_none() {
        tracing::warn!(shard = shard.id.0, tenant = peer.caller.tenant.0, "too many readers");
        shard.core.borrow().metrics().connections_refused.add(1);
        // The stream alone: requests on others go on.
        let _ = send.reset(VarInt::from_u32(CloseCode::TooMany as u32));
    }
    counted
}

async fn subscribe(
    shard: &Rc<Shard>,
    peer: &Peer,
    version: u16,
    mut send: SendStream,
    frame: &Frame,
) -> Result<(), Stop> {
    let subscribe = Subscribe::from_body(&frame.body)?;
    if version < CURSORS_HAVE_EPOCHS && subscribe.epoch != Epoch(0) {
        return Err(FrameError::Padding.into());
    }
    if subscribe.shard != shard.id {
        return Err(FrameFault::WrongShard(subscribe.shard).into());
    }
    let counted = tail::count_reader(shard, peer.caller.tenant);
    let Some(reader) = let_in(shard, peer, &mut send, counted) else { return Ok(()) };
    let sink = StreamTail { send, number: 1 };
    let from = Cursor { next: subscribe.from, epoch: subscribe.epoch };
    tail::follow(Rc::clone(shard), peer.caller, from, version, sink, reader).await;
    Ok(())
}

/// Reads the frames of a stream.
pub(super) struct Reader {
    recv: RecvStream,
    frames: FrameBuffer,
    chunks: [Bytes; CHUNKS],
    /// The chunks that have arrived and were not looked at.
    arrived: std::ops::Range<usize>,
    /// How long a frame may take.
    patience: std::time::Duration,
    /// When the frame that has begun must be whole.
    deadline: Option<Instant>,
}

impl Reader {
    fn new(recv: RecvStream, patience: std::time::Duration) -> Self {
        let chunks = [const { Bytes::new() }; CHUNKS];
        Self { recv, frames: FrameBuffer::default(), chunks, arrived: 0..0, patience, deadline: None }
    }

    fn set_deadline(&mut self) {
        self.deadline = Some(Instant::now() + self.patience);
    }

    /// The next frame; none when the peer has ended the stream between two.
    pub(super) async fn next_frame(&mut self) -> Result<Option<Frame>, Stop> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                self.deadline = None;
                return Ok(Some(frame));
            }
            if let Some(index) = self.arrived.next() {
                self.frames.push(std::mem::take(&mut self.chunks[index]));
                continue;
            }
            if self.frames.is_inside_frame() && self.deadline.is_none() {
                self.set_deadline();
            }
            let read = self.recv.read_chunks(&mut self.chunks);
            let read = match self.deadline {
                None => read.await,
                Some(deadline) => timeout_at(deadline, read).await.map_err(|_| FrameFault::TooSlow)?,
            };
            match read {
                Ok(Some(count)) => self.arrived = 0..count,
                Ok(None) if self.frames.is_inside_frame() => return Err(FrameFault::Truncated.into()),
                Ok(None) => return Ok(None),
                Err(_) => return Err(Stop::Lost),
            }
        }
    }
}
