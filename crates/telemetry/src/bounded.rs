//! A listener for HTTP whose connections are few and short: it has no limits of its own, and anybody who reaches the port may
//! hold one open, or send a request byte by byte.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections at a time; the next ones wait in the kernel's queue until one has ended.
const CONNECTIONS_MAX: usize = 32;
/// After a failed `accept` (no descriptors left) the next one waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener.
#[derive(Debug)]
pub(crate) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    life: Duration,
}

/// A connection with a place, and an end.
#[derive(Debug)]
pub(crate) struct Short {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Bounded {
    /// Connections last at most `life`.
    pub(crate) fn new(listener: TcpListener, life: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), life }
    }
}

impl Listener for Bounded {
    type Io = Short;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Short, SocketAddr) {
        loop {
            // Never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { continue };
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    return (Short { stream, end: Box::pin(sleep(self.life)), _place: place }, address);
                }
                Err(error) => {
                    tracing::debug!("the admin listener cannot accept: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Short {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Short {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        pin!(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Short {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        pin!(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        pin!(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn served(life: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bounded = Bounded::new(listener, life);
        let address = bounded.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(async move { axum::serve(bounded, router).await });
        address
    }

    /// Asks until there is an answer: on a busy machine a connection's short life may be over before it.
    async fn ask(address: SocketAddr) {
        let answered = async { while !is_answered(address).await.unwrap_or(false) {} };
        tokio::time::timeout(Duration::from_secs(30), answered).await.unwrap();
    }

    async fn is_answered(address: SocketAddr) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text.ends_with("here"))
    }

    #[tokio::test]
    async fn one_that_says_nothing_or_half_a_request_is_closed() {
        let address = served(Duration::from_millis(200)).await;
        for begun in [&b""[..], b"GET / HTTP/1.1\r\nHost:"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun).await.unwrap();
            let mut rest = Vec::new();
            // An end or a reset, and no answer of success.
            let _ =
                tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.unwrap();
            assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
        }
        ask(address).await;
    }

    #[tokio::test]
    async fn idle_connections_shut_nobody_out_for_long() {
        let address = served(Duration::from_millis(500)).await;
        let mut idle = Vec::new();
        for _ in 0..2 * CONNECTIONS_MAX {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        ask(address).await;
    }
}
