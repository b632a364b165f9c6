//! Where the replies of one stream go, and what waits there if its reader is slow.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use quinn::{Connection, SendStream, VarInt, WriteError};
use surety_protocol::{Caller, CloseCode, Reply, sabotage};

use crate::embedded::LinkSink;
use crate::shard::credentials::Credentials;
use crate::shard::replies::{ReplyFrames, TokenBytes};
use crate::shard::signal::Signal;

/// One connection, as its streams share it.
#[derive(Debug)]
pub(super) struct Peer {
    /// None for a link within the process.
    pub(super) connection: Option<Connection>,
    pub(super) caller: Caller,
    /// By which it was let in; none for a link within the process.
    pub(super) credentials: Option<Credentials>,
    /// Requests taken and not answered.
    pub(super) in_flight: Cell<usize>,
    /// Bytes that wait in the backlogs of its streams.
    pub(super) backlog_bytes: Cell<usize>,
    /// Questions to the history that are not answered.
    pub(super) queries: Cell<usize>,
}

impl Peer {
    pub(super) fn new(connection: Connection, caller: Caller, credentials: Credentials) -> Rc<Self> {
        Rc::new(Self { connection: Some(connection), credentials: Some(credentials), ..Self::within(caller) })
    }

    /// The holder of a link.
    pub(super) const fn within(caller: Caller) -> Self {
        Self {
            connection: None,
            caller,
            credentials: None,
            in_flight: Cell::new(0),
            backlog_bytes: Cell::new(0),
            queries: Cell::new(0),
        }
    }

    pub(super) fn close(&self, code: CloseCode) {
        if let Some(connection) = &self.connection {
            connection.close(VarInt::from_u32(code as u32), code.name().as_bytes());
        }
    }
}

/// The place where one stream's replies gather.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) peer: Rc<Peer>,
    pub(super) sink: Sink,
    /// Requests of this stream that are not answered. The outlet stays in its place until there are none, its reader has
    /// ended and nobody waits for room, so that its number means nobody else.
    pub(super) outstanding: usize,
    /// Replies were added since the last frame.
    pub(super) is_dirty: bool,
    /// Nobody reads requests for it any more: end the stream after the last reply.
    pub(super) is_detached: bool,
    /// A task waits for room in the stream.
    pub(super) is_waited_for: bool,
    /// Set when the replies go nowhere any more; whoever reads requests must end then.
    pub(super) lost: Rc<Signal>,
}

/// What carries the replies.
#[derive(Debug)]
pub(super) enum Sink {
    /// A QUIC stream.
    Stream(Box<StreamSink>),
    /// Memory.
    Link(LinkSink),
    /// The peer is gone; what still comes for it is dropped.
    Gone,
}

/// A QUIC stream, and what it has not yet taken.
#[derive(Debug)]
pub(super) struct StreamSink {
    send: SendStream,
    frames: ReplyFrames,
    backlog: VecDeque<Bytes>,
    backlog_bytes: usize,
    /// The part of it that the connection knows of.
    accounted_bytes: usize,
    /// The task that waits for room; it must be woken when the stream goes.
    waiter: Option<Waker>,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it is with QUIC.
    All,
    /// Something waits, and nobody waits for room yet.
    NeedsWaiter,
    /// Something waits, and somebody does.
    Waits,
    /// The peer does not read.
    SlowReader,
    /// The stream is gone.
    Gone,
}

impl Outlet {
    pub(super) fn stream(peer: Rc<Peer>, send: SendStream, next_frame: u64, version: u16) -> Self {
        let sink = StreamSink {
            send,
            frames: ReplyFrames::new(next_frame, version),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            accounted_bytes: 0,
            waiter: None,
        };
        Self::new(peer, Sink::Stream(Box::new(sink)))
    }

    pub(super) fn link(peer: Rc<Peer>, sink: LinkSink) -> Self {
        Self::new(peer, Sink::Link(sink))
    }

    fn new(peer: Rc<Peer>, sink: Sink) -> Self {
        Self {
            peer,
            sink,
            outstanding: 0,
            is_dirty: false,
            is_detached: false,
            is_waited_for: false,
            lost: Rc::default(),
        }
    }

    /// Adds a reply to the frame that leaves next.
    pub(super) fn push(&mut self, reply: &Reply, token: &TokenBytes) {
        match &mut self.sink {
            Sink::Stream(sink) => {
                if sink.frames.push(reply) {
                    let frame = sink.frames.close(token);
                    sink.add(frame);
                }
            }
            Sink::Link(sink) => sink.push(reply),
            Sink::Gone => {}
        }
    }

    /// Sends what was added.
    pub(super) fn flush(&mut self, token: &TokenBytes, backlog_max: usize) -> Sent {
        self.is_dirty = false;
        match &mut self.sink {
            Sink::Stream(sink) => {
                let frame = sink.frames.close(token);
                sink.add(frame);
                sink.flush(&self.peer, backlog_max, &mut self.is_waited_for)
            }
            Sink::Link(sink) => {
                sink.flush();
                Sent::All
            }
            Sink::Gone => Sent::Gone,
        }
    }

    /// Ends the stream if all that is owed to it is with QUIC; what is returned is ready when the peer has acknowledged it.
    pub(super) fn finish(&mut self) -> Option<impl Future<Output = ()> + use<>> {
        let is_quiet = self.is_quiet();
        match &mut self.sink {
            Sink::Stream(sink) if is_quiet => {
                // One that is gone already is as good as delivered.
                let _ = sink.send.finish();
                let delivered = sink.send.stopped();
                Some(async move { drop(delivered.await) })
            }
            Sink::Stream(_) | Sink::Link(_) | Sink::Gone => None,
        }
    }

    /// Tells the peer that nothing more is executed.
    pub(super) fn say_goodbye(&mut self, token: &TokenBytes) {
        match &mut self.sink {
            Sink::Stream(sink) => {
                let frame = sink.frames.close(token);
                sink.add(frame);
                let goodbye = sink.frames.goodbye();
                sink.add(Some(goodbye));
            }
            Sink::Link(sink) => sink.say_goodbye(),
            Sink::Gone => {}
        }
    }

    /// Tries again to send the backlog; ready when there is none, or nobody to send it to.
    pub(super) fn poll_backlog(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sink {
            Sink::Stream(sink) => {
                sink.waiter = Some(cx.waker().clone());
                let sent = ready!(sink.poll_backlog(cx));
                sink.waiter = None;
                sink.account(&self.peer);
                if sent.is_err() {
                    self.lose();
                }
                Poll::Ready(())
            }
            Sink::Link(_) | Sink::Gone => Poll::Ready(()),
        }
    }

    /// The peer is gone, or must go.
    pub(super) fn lose(&mut self) {
        match &mut self.sink {
            Sink::Stream(sink) => {
                sink.forget_backlog(&self.peer);
                if let Some(waiter) = sink.waiter.take() {
                    waiter.wake();
                }
            }
            // The holder of a link is known by its sink, not by a number.
            Sink::Link(_) => self.is_detached = true,
            Sink::Gone => {}
        }
        self.sink = Sink::Gone;
        self.lost.set();
    }

    /// True if nothing is owed any more and nobody holds the outlet's number. That the peer is gone is not enough.
    pub(super) fn is_done(&self) -> bool {
        let is_sent = match &self.sink {
            Sink::Stream(sink) => sink.backlog.is_empty(),
            Sink::Link(_) | Sink::Gone => true,
        };
        self.is_detached && !self.is_waited_for && !self.is_dirty && is_sent && self.outstanding == 0
    }

    /// True if every reply has left, as far as this side can do something about it.
    pub(super) fn is_quiet(&self) -> bool {
        let is_sent = match &self.sink {
            Sink::Stream(sink) => sink.backlog.is_empty() && !self.is_dirty,
            Sink::Link(_) | Sink::Gone => true,
        };
        is_sent && self.outstanding == 0
    }
}

impl StreamSink {
    fn add(&mut self, frame: Option<Bytes>) {
        let Some(frame) = frame else { return };
        self.backlog_bytes += frame.len();
        self.backlog.push_back(frame);
    }

    fn flush(&mut self, peer: &Peer, backlog_max: usize, is_waited_for: &mut bool) -> Sent {
        if !*is_waited_for {
            // What quinn does not take at once is waited for by a task of its own, with its own waker.
            match self.poll_backlog(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(())) => return Sent::All,
                Poll::Ready(Err(_)) => return Sent::Gone,
                Poll::Pending => {}
            }
        }
        self.account(peer);
        if peer.backlog_bytes.get() > backlog_max && !sabotage!("slow-reader-kept") {
            Sent::SlowReader
        } else if std::mem::replace(is_waited_for, true) {
            Sent::Waits
        } else {
            Sent::NeedsWaiter
        }
    }

    fn poll_backlog(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        while !self.backlog.is_empty() {
            let written = {
                let write = pin!(self.send.write_chunks(self.backlog.make_contiguous()));
                ready!(write.poll(cx))?
            };
            self.backlog_bytes -= written.bytes;
            self.backlog.drain(..written.chunks);
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the connection how much waits here.
    fn account(&mut self, peer: &Peer) {
        let others = peer.backlog_bytes.get() - self.accounted_bytes;
        peer.backlog_bytes.set(others + self.backlog_bytes);
        self.accounted_bytes = self.backlog_bytes;
    }

    fn forget_backlog(&mut self, peer: &Peer) {
        self.backlog.clear();
        self.backlog_bytes = 0;
        self.account(peer);
    }
}
