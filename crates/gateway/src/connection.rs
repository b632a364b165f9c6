//! One socket of an acquirer's host: reads messages, has them served, writes replies as they are done.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iso8583::{FrameError, ParseError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use trust::{Standing, lost};

use crate::config::LinkConfig;
use crate::desk::Desk;
use crate::gateway::stopped;
use crate::session::Session;

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 16 * 1024;

/// Why a socket was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The host has closed it.
    Peer,
    /// The link is stopped.
    Stopped,
    /// It lay idle and gave no echo.
    Silent,
    /// A message took too long to arrive.
    Slow,
    /// TLS was not agreed on, or not in time.
    Handshake,
    /// Its host's certificate is accepted no more.
    Refused,
    /// Nobody signed on.
    NotSignedOn,
    /// Where the next message begins is lost.
    Frame(FrameError),
    /// A message without a type that could be answered.
    Unreadable(ParseError),
    /// Too many broken messages.
    Broken,
    /// Its replies are not read.
    Unread,
    /// The socket failed.
    Failed,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer => f.write_str("closed by its host"),
            Self::Stopped => f.write_str("the link is stopped"),
            Self::Silent => f.write_str("no echo"),
            Self::Slow => f.write_str("a message took too long to arrive"),
            Self::Handshake => f.write_str("TLS was not agreed on"),
            Self::Refused => f.write_str("its host's certificate is accepted no more"),
            Self::NotSignedOn => f.write_str("nobody signed on"),
            Self::Frame(error) => write!(f, "{error}"),
            Self::Unreadable(error) => write!(f, "{error}"),
            Self::Broken => f.write_str("too many broken messages"),
            Self::Unread => f.write_str("its replies are not read"),
            Self::Failed => f.write_str("the socket failed"),
        }
    }
}

/// Whose a socket is.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) peer: SocketAddr,
    /// By what its host was let in; none where anybody is.
    pub(crate) standing: Option<Standing>,
}

/// Serves a socket to its end. What was taken is served to its own end, also where the socket is gone before.
pub(crate) async fn serve(
    mut reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin + Send + 'static,
    Socket { peer, standing }: Socket,
    desk: Arc<Desk>,
    config: Arc<LinkConfig>,
    stopping: watch::Receiver<bool>,
) -> End {
    let (outbox, replies) = mpsc::channel(config.limits.in_flight_max.max(1));
    let within = config.limits.write_within;
    let mut writing = tokio::spawn(write(writer, replies, within));
    let room = Arc::new(Semaphore::new(config.limits.in_flight_max.max(1)));
    let mut session = Session::new(peer, desk, config.clone(), outbox, room.clone());
    let end = tokio::select! {
        end = take(&mut reader, &mut session, &mut writing, stopping) => end,
        // Also while a message waits for its turn: it was not begun.
        () = lost(standing) => End::Refused,
    };
    match end {
        End::Unread => return end,
        // Nothing more reaches it, whatever is still being served.
        End::Refused => writing.abort(),
        _ => {}
    }
    drop(reader);
    // Those that are being served hold what is missing.
    let all = u32::try_from(config.limits.in_flight_max.max(1)).unwrap_or(u32::MAX);
    let patience = config.limits.answer_within;
    drop(session);
    let _ = timeout(patience, room.acquire_many(all)).await;
    let _ = timeout(within, writing).await;
    end
}

/// Takes messages until there is a reason to take no more.
async fn take(
    reader: &mut (impl AsyncRead + Unpin),
    session: &mut Session,
    writing: &mut JoinHandle<()>,
    mut stopping: watch::Receiver<bool>,
) -> End {
    let mut buffer = Vec::new();
    loop {
        if let Err(end) = session.take_all(&mut buffer).await {
            return end;
        }
        buffer.reserve(READ_BYTES);
        let (until, why) = session.patience();
        tokio::select! {
            read = timeout_at(until, reader.read_buf(&mut buffer)) => match read {
                Ok(Ok(0)) => return End::Peer,
                Ok(Ok(_)) => session.has_heard(),
                Ok(Err(_)) => return End::Failed,
                Err(_) if why == End::Silent && session.may_be_idle() => session.ask_for_echo().await,
                Err(_) => return why,
            },
            _ = &mut *writing => return End::Unread,
            () = stopped(&mut stopping) => return End::Stopped,
        }
    }
}

/// Writes replies until nobody has any more. Ends early where the host does not read them.
async fn write(mut writer: impl AsyncWrite + Unpin, mut replies: mpsc::Receiver<Vec<u8>>, within: Duration) {
    let mut bytes = Vec::new();
    while let Some(reply) = replies.recv().await {
        bytes.clear();
        bytes.extend_from_slice(&reply);
        // Whatever else is done goes in the same packet.
        while let Ok(reply) = replies.try_recv() {
            bytes.extend_from_slice(&reply);
        }
        if !matches!(timeout(within, writer.write_all(&bytes)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = writer.shutdown().await;
}
