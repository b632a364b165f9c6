//! The seam between the client and what carries its frames: QUIC here, memory in `server::Embedded`.
//!
//! A [`Connector`] opens links to the shards of one engine. A link takes batches of encoded operations through its
//! [`LinkSender`] and yields what comes back through its [`LinkReceiver`]. Retries, ids, routing and back-pressure are not
//! its business: [`crate::Client`] does them once, above every transport.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use surety_protocol::limits::{FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, RECORD_BYTES};
use surety_protocol::{
    CloseCode, Cursor, FrameError, FrameHeader, FrameKind, HelloReply, PROTOCOL_VERSION, Record, Reply,
    ShardId, StateQuery, TailHead, TailStatus, Token,
};

pub use crate::query::QueryError;

/// A future behind a pointer, as the traits of this file return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens links to the shards of one engine.
pub trait Connector: Send + Sync + 'static {
    /// Opens a link to a shard and exchanges hellos. `tokens` are the rollback tokens to present: the newest that was
    /// received from each shard. The hello of the answer says how many shards there are; shard 0 always exists.
    fn open<'a>(&'a self, shard: ShardId, tokens: &'a [Token]) -> BoxFuture<'a, Result<Link, OpenError>>;

    /// Opens the change stream of a shard. `tokens` as for [`Connector::open`].
    fn subscribe<'a>(
        &'a self,
        shard: ShardId,
        from: Cursor,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn TailSource>, OpenError>>;

    /// Opens a way to ask about the state of a shard. `tokens` as for [`Connector::open`].
    fn state<'a>(
        &'a self,
        shard: ShardId,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn StateSource>, OpenError>>;

    /// Asks the engine's history, and yields its answer. `tokens` as for [`Connector::open`]; any shard may be asked.
    fn query<'a>(
        &'a self,
        question: &'a [u8],
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Vec<u8>, QueryError>>;

    /// Closes what is open and tells the engine so, as far as that can be done at once. A process that merely ends leaves an
    /// engine waiting for it.
    fn farewell(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// An open link to one shard. Dropping both halves closes it.
pub struct Link {
    /// What the engine said first.
    pub hello: HelloReply,
    /// Takes requests.
    pub sender: Box<dyn LinkSender>,
    /// Yields replies.
    pub receiver: Box<dyn LinkReceiver>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("shard", &self.hello.shard).finish_non_exhaustive()
    }
}

/// The half of a link that takes requests.
pub trait LinkSender: Send {
    /// Hands one batch (1 to [`FRAME_RECORDS_MAX`] records, operations never split) to the transport as one frame.
    ///
    /// Ready means: taken whole. The caller clears the batch; an implementation may also have swapped its buffer out with
    /// [`Batch::take`]. Pending means: no room yet; the same batch must be offered again, and nothing else. The waker of
    /// the last call counts.
    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<Result<(), Closed>>;
}

/// The half of a link that yields replies.
pub trait LinkReceiver: Send {
    /// Appends the replies of the next frame to `replies`, or tells what else happened. After [`Event::Closed`] it is not
    /// called again. The waker of the last call counts.
    fn poll_receive(&mut self, cx: &mut Context<'_>, replies: &mut Vec<Reply>) -> Poll<Event>;
}

/// What a link yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Replies were appended. The token is to be kept and presented when the shard is opened again; a transport within
    /// one process may have none.
    Replies(Option<Token>),
    /// The engine is about to close: nothing that is sent from now on is executed. Replies to what it took before may still
    /// come.
    Goodbye,
    /// The link is gone, and with it all that was not answered.
    Closed(Closed),
}

/// Answers questions about the state of one shard.
pub trait StateSource: Send {
    /// Asks for a page; yields the body of the frame that answers. After an error it is not called again.
    fn ask<'a>(&'a mut self, query: &'a StateQuery) -> BoxFuture<'a, Result<Vec<u8>, Closed>>;
}

/// The change stream of one shard, as it arrives.
pub trait TailSource: Send {
    /// The version of the wire that the engine speaks here. Before 2 the epoch in its heads is the one that speaks, which tells
    /// nothing of the records, and it takes no cursor's epoch.
    fn version(&self) -> u16 {
        PROTOCOL_VERSION
    }

    /// Appends the records of the next frame and yields its head. After an error, `Lost` or `Ahead` it is not called again.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        records: &mut Vec<Record>,
    ) -> Poll<Result<(TailHead, TailStatus), Closed>>;
}

/// Encoded requests that will travel in one frame, with room for its header, in a buffer that is used again.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    written: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: vec![0; FRAME_HEADER_BYTES], written: 0 }
    }

    /// Records in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.bytes.len() - FRAME_HEADER_BYTES) / RECORD_BYTES
    }

    /// True without any record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == FRAME_HEADER_BYTES
    }

    /// Records that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        FRAME_RECORDS_MAX - self.len()
    }

    /// Appends one whole operation.
    ///
    /// # Panics
    /// If it does not fit; see [`Batch::room`].
    pub fn push(&mut self, operation: &[[u8; RECORD_BYTES]]) {
        assert!(operation.len() <= self.room(), "an operation that fits into the frame");
        self.bytes.extend_from_slice(operation.as_flattened());
    }

    /// The records, one after the other.
    #[must_use]
    pub fn records(&self) -> &[[u8; RECORD_BYTES]] {
        self.bytes[FRAME_HEADER_BYTES..].as_chunks().0
    }

    /// The bytes of the records: the body of a request frame.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[FRAME_HEADER_BYTES..]
    }

    /// Empties the batch; its buffer stays.
    pub fn clear(&mut self) {
        self.bytes.truncate(FRAME_HEADER_BYTES);
        self.written = 0;
    }

    /// Swaps the content against an empty batch's buffer: for transports that keep the bytes.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// The rest of the frame that is still to be written, its header numbered `number`.
    pub(crate) fn unwritten(&mut self, number: u64) -> &[u8] {
        if self.written == 0 {
            let count = u16::try_from(self.len()).unwrap_or(u16::MAX);
            let header = FrameHeader { kind: FrameKind::Requests, count, number };
            self.bytes[..FRAME_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        }
        &self.bytes[self.written..]
    }

    /// Notes that the transport took `count` bytes. True when that was all.
    pub(crate) fn advance(&mut self, count: usize) -> bool {
        self.written += count;
        self.written == self.bytes.len()
    }
}

/// Why a link is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The engine closed it and said why.
    #[error("closed by the engine: {} ({})", .0.name(), .0.meaning())]
    ByServer(CloseCode),
    /// The engine closed it with a code that this version does not know.
    #[error("closed by the engine with the unknown code {0:#x}")]
    ByServerUnknown(u64),
    /// The engine ended the stream.
    #[error("the engine ended the stream")]
    Ended,
    /// Nothing was heard for too long.
    #[error("the connection timed out")]
    TimedOut,
    /// The other side has forgotten the connection, as after a restart.
    #[error("the connection was reset")]
    Reset,
    /// TLS refused, with this alert (RFC 8446, section 6).
    #[error("refused by TLS: {meaning} (alert {0})", meaning = alert(*.0))]
    Tls(u8),
    /// QUIC failed with this transport error code (RFC 9000, section 20.1).
    #[error("QUIC transport error {0:#x}")]
    Transport(u64),
    /// The engine sent something that is no frame.
    #[error("the engine sent a bad frame: {0}")]
    BadFrame(FrameError),
    /// The engine sent a frame that does not belong there.
    #[error("the engine sent a {0:?} frame where none belongs")]
    UnexpectedFrame(FrameKind),
    /// This side closed it.
    #[error("closed on this side")]
    Local,
}

/// What an alert says of the identity that was shown.
const fn alert(alert: u8) -> &'static str {
    match alert {
        42 | 43 | 46 => "the certificate is not accepted",
        44 => "the certificate was revoked",
        45 => "the certificate has expired, or a clock is wrong",
        48 | 51 => "the certificate is not of the authority that the other side knows",
        116 => "a client certificate is required",
        120 => "the other side is no such engine",
        _ => "the handshake failed",
    }
}

impl Closed {
    /// True if the same client will be refused again: its certificate, tenant or version is not accepted.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::Tls(_)
                | Self::ByServer(
                    CloseCode::BadHello
                        | CloseCode::UnknownVersion
                        | CloseCode::TenantMismatch
                        | CloseCode::BadToken
                        | CloseCode::Fork
                        | CloseCode::LostLife
                        | CloseCode::BadCertificate
                )
        )
    }
}

/// Why a link could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The link closed before the hellos had been exchanged.
    #[error("{0}")]
    Closed(#[from] Closed),
    /// No answer in time.
    #[error("no answer within the connect timeout; is the engine running at this address?")]
    TimedOut,
    /// The engine has fewer shards.
    #[error("shard {0} does not exist")]
    NoSuchShard(ShardId),
    /// Another engine answers behind the same address than the one that this client knows.
    #[error("another engine or version answers at this address")]
    OtherEngine,
    /// The socket could not be used.
    #[error("cannot use a UDP socket: {0}")]
    Socket(std::io::ErrorKind),
    /// The server name or address cannot be dialled.
    #[error("the address or server name cannot be dialled")]
    BadAddress,
}

impl OpenError {
    /// True if trying again will not help until somebody changes something.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        match self {
            Self::Closed(closed) => closed.is_refusal(),
            Self::NoSuchShard(_) | Self::BadAddress | Self::OtherEngine => true,
            Self::TimedOut | Self::Socket(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_frame_once_it_is_numbered() {
        let mut batch = Batch::new();
        assert!(batch.is_empty() && batch.room() == FRAME_RECORDS_MAX);
        batch.push(&[[1; RECORD_BYTES], [2; RECORD_BYTES]]);
        assert_eq!((batch.len(), batch.room()), (2, FRAME_RECORDS_MAX - 2));
        assert_eq!(batch.records()[1], [2; RECORD_BYTES]);
        let frame = batch.unwritten(7).to_vec();
        let header = FrameHeader::from_bytes(frame[..FRAME_HEADER_BYTES].try_into().unwrap()).unwrap();
        assert_eq!(header, FrameHeader { kind: FrameKind::Requests, count: 2, number: 7 });
        assert!(!batch.advance(100));
        assert_eq!(batch.unwritten(7), &frame[100..]);
        assert!(batch.advance(frame.len() - 100));
        batch.clear();
        assert!(batch.is_empty());
    }
}
