//! One socket of an acquirer's host: reads messages, has them served, writes replies as they are done.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iso8583::{FrameError, ParseError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{timeout, timeout_at};

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
            Self::NotSignedOn => f.write_str("nobody signed on"),
            Self::Frame(error) => write!(f, "{error}"),
            Self::Unreadable(error) => write!(f, "{error}"),
            Self::Broken => f.write_str("too many broken messages"),
            Self::Unread => f.write_str("its replies are not read"),
            Self::Failed => f.write_str("the socket failed"),
        }
    }
}

/// Serves a socket to its end. What was taken is served to its own end, also where the socket is gone before.
pub(crate) async fn serve(
    mut reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    desk: Arc<Desk>,
    config: Arc<LinkConfig>,
    mut stopping: watch::Receiver<bool>,
) -> End {
    let (outbox, replies) = mpsc::channel(config.limits.in_flight_max.max(1));
    let within = config.limits.write_within;
    let mut writing = tokio::spawn(write(writer, replies, within));
    let room = Arc::new(Semaphore::new(config.limits.in_flight_max.max(1)));
    let mut session = Session::new(peer, desk, config.clone(), outbox, room.clone());
    let mut buffer = Vec::new();
    let end = loop {
        if let Err(end) = session.take_all(&mut buffer).await {
            break end;
        }
        buffer.reserve(READ_BYTES);
        let (until, why) = session.patience();
        tokio::select! {
            read = timeout_at(until, reader.read_buf(&mut buffer)) => match read {
                Ok(Ok(0)) => break End::Peer,
                Ok(Ok(_)) => session.has_heard(),
                Ok(Err(_)) => break End::Failed,
                Err(_) if why == End::Silent && session.may_be_idle() => session.ask_for_echo().await,
                Err(_) => break why,
            },
            _ = &mut writing => return End::Unread,
            () = stopped(&mut stopping) => break End::Stopped,
        }
    };
    // Those that are being served hold what is missing.
    let all = u32::try_from(config.limits.in_flight_max.max(1)).unwrap_or(u32::MAX);
    let patience = config.limits.answer_within;
    drop(session);
    let _ = timeout(patience, room.acquire_many(all)).await;
    let _ = timeout(within, writing).await;
    end
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
