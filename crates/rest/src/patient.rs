//! A connection with an end to patience: it has to begin to speak, and to read what it is told.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Bytes by which the version of HTTP is known at the latest; from then on that has time-outs of its own.
const VERSION_BYTES: usize = 24;

/// The connection.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    stream: S,
    /// Until enough has come to tell what is spoken.
    beginning: Option<Pin<Box<Sleep>>>,
    begun_bytes: usize,
    write_within: Duration,
    /// Since when nothing could be written.
    writing: Pin<Box<Sleep>>,
    is_writing: bool,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S, begin_within: Duration, write_within: Duration) -> Self {
        Self {
            stream,
            beginning: Some(Box::pin(sleep(begin_within))),
            begun_bytes: 0,
            write_within,
            writing: Box::pin(sleep(write_within)),
            is_writing: false,
        }
    }

    /// What a write has come to; one that has waited for too long is an error.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.is_writing = false;
            return outcome;
        }
        if !self.is_writing {
            self.is_writing = true;
            self.writing.as_mut().reset(Instant::now() + self.write_within);
        }
        self.writing.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(beginning) = &mut self.beginning
            && beginning.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.beginning.is_some() {
            self.begun_bytes += buffer.filled().len() - before;
            if self.begun_bytes >= VERSION_BYTES {
                self.beginning = None;
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.wrote(cx, outcome)
    }
}
