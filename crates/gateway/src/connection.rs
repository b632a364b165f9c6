//! One socket of an acquirer's host: reads messages, has them served, writes replies as they are done.

use std::fmt;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream};
use iso8583::{FrameError, ParseError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use trust::{Standing, lost};

use crate::config::{Limits, LinkConfig};
use crate::desk::Desk;
use crate::gateway::stopped;
use crate::reply::{Job, Served};
use crate::session::Session;

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 16 * 1024;
/// How much later than its time a message may be done, before nobody waits for it.
const SERVED_LATE: Duration = Duration::from_secs(1);

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

impl End {
    /// A word for those who count.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Stopped => "stopped",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Handshake => "handshake",
            Self::Refused => "refused",
            Self::NotSignedOn => "not_signed_on",
            Self::Frame(_) => "frame",
            Self::Unreadable(_) => "unreadable",
            Self::Broken => "broken",
            Self::Unread => "unread",
            Self::Failed => "failed",
        }
    }
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

/// A message that is being served. In a box: a silent socket has none, and pays for none.
type Serving = Pin<Box<dyn Future<Output = Served> + Send>>;

/// Serves a socket to its end. What was taken is served to its own end, also where the socket is gone before.
///
/// All of it is one task: what was done meanwhile is written at once, and nobody else has to be woken.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    Socket { peer, standing }: Socket,
    desk: Arc<Desk>,
    config: Arc<LinkConfig>,
    mut stopping: watch::Receiver<bool>,
) -> End {
    let mut session = Session::new(peer, desk.clone(), config.clone());
    let mut serving = FuturesUnordered::new();
    let mut lost = pin!(lost(standing));
    let begin = |job: Job| -> Serving { Box::pin(job.serve(desk.clone(), config.limits.answer_within)) };
    let end = {
        let mut alarm = pin!(sleep(Duration::ZERO));
        let mut stopped = pin!(stopped(&mut stopping));
        poll_fn(|cx| {
            if lost.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Refused);
            }
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Stopped);
            }
            loop {
                if let Poll::Ready(end) = poll_socket(cx, &mut stream, &mut session, &mut serving, begin) {
                    return Poll::Ready(end);
                }
                let Some((until, why)) = session.patience() else { return Poll::Pending };
                // It is set when it has to ring earlier. What was put off shows when it rings.
                if until < alarm.deadline() || alarm.is_elapsed() {
                    alarm.as_mut().reset(until);
                }
                ready!(alarm.as_mut().poll(cx));
                if Instant::now() < until {
                    continue;
                }
                if why != End::Silent || !session.may_be_idle() {
                    return Poll::Ready(why);
                }
                session.ask_for_echo();
            }
        })
        .await
    };
    // A socket that fails may be one whose host has only stopped to send.
    let is_gone = matches!(end, End::Unread | End::Refused);
    finish((!is_gone).then_some(stream), &mut session, serving, lost, &config.limits).await;
    end
}

/// Does whatever can be done: takes what was read, serves it, writes replies, reads.
fn poll_socket(
    cx: &mut Context<'_>,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    session: &mut Session,
    serving: &mut FuturesUnordered<Serving>,
    begin: impl Fn(Job) -> Serving,
) -> Poll<End> {
    loop {
        let taken = session.take_all();
        serving.extend(session.jobs().into_iter().map(&begin));
        if let Err(end) = taken {
            return Poll::Ready(end);
        }
        let served = poll_serving(cx, session, serving);
        let was_full = session.is_full();
        if let Poll::Ready(Err(_)) = session.outbox().poll_write(cx, stream) {
            return Poll::Ready(End::Unread);
        }
        if session.is_held_up() {
            if served > 0 || was_full && !session.is_full() {
                continue;
            }
            return Poll::Pending;
        }
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut room);
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)) {
            Ok(()) if read.filled().is_empty() => return Poll::Ready(End::Peer),
            Ok(()) => session.has_heard(read.filled()),
            Err(_) => return Poll::Ready(End::Failed),
        }
    }
}

/// Tells what came of those that are done, and how many they were.
fn poll_serving(
    cx: &mut Context<'_>,
    session: &mut Session,
    serving: &mut FuturesUnordered<Serving>,
) -> usize {
    let mut count = 0;
    while let Poll::Ready(Some(served)) = Pin::new(&mut *serving).poll_next(cx) {
        session.has_served(&served);
        count += 1;
    }
    count
}

/// Serves what was taken, and writes its replies where somebody may read them.
async fn finish(
    mut stream: Option<impl AsyncWrite + Unpin>,
    session: &mut Session,
    mut serving: FuturesUnordered<Serving>,
    mut lost: Pin<&mut impl Future<Output = ()>>,
    limits: &Limits,
) {
    let all_served = poll_fn(|cx| {
        let _ = poll_serving(cx, session, &mut serving);
        if stream.is_some() && lost.as_mut().poll(cx).is_ready() {
            stream = None;
        }
        let written = stream.as_mut().map(|stream| session.outbox().poll_write(cx, stream));
        if matches!(written, Some(Poll::Ready(Err(_)))) {
            stream = None;
        }
        if serving.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    // Each has the same time, and those that were taken last have begun here.
    let _ = timeout(limits.answer_within + SERVED_LATE, all_served).await;
    if !serving.is_empty() {
        tracing::warn!(count = serving.len(), "not answered: their outcome is unknown");
        // Nobody has to wait for their turn any more.
        serving.clear();
    }
    let Some(mut stream) = stream else { return };
    let all_written = async {
        if poll_fn(|cx| session.outbox().poll_write(cx, &mut stream)).await.is_ok() {
            let _ = stream.shutdown().await;
        }
    };
    tokio::select! {
        _ = timeout(limits.write_within, all_written) => {}
        () = lost => {}
    }
}
