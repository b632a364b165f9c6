//! Replies on their way to a host.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::time::Instant;

/// Bytes behind which what was written is given back.
const WRITTEN_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are written at a time. A host has to take so many in time.
const WRITE_BYTES: usize = 16 * 1024;

/// What the host has still to read. Whatever is done at one time goes in one packet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    /// Bytes that were written, and may still lie below, as with TLS: nobody has taken these.
    flushing: usize,
    /// Since when a host has not read this many bytes.
    unread: Option<(Instant, usize)>,
}

impl Outbox {
    /// Appends what is written here.
    pub(crate) fn push<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        write(&mut self.bytes)
    }

    /// Bytes that are not written.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Since when the host has not read what was waiting for it then; nothing if it keeps up.
    pub(crate) fn unread_since(&self) -> Option<Instant> {
        self.unread.map(|(since, _)| since)
    }

    /// Writes as much as the host takes. Ready once nothing is left.
    ///
    /// # Errors
    /// If the socket fails.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let written = self.poll_all(cx, stream);
        if written.is_pending() {
            let left = self.len() + self.flushing;
            self.unread.get_or_insert_with(|| (Instant::now(), left));
        }
        written
    }

    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            if self.flushing > 0 {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                self.has_flushed();
            }
            if self.len() == 0 {
                break;
            }
            let next = &self.bytes[self.written..];
            let next = &next[..next.len().min(WRITE_BYTES)];
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, next))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.flushing = count;
        }
        // What is empty takes no memory: most sockets are silent.
        *self = Self::default();
        Poll::Ready(Ok(()))
    }

    fn has_flushed(&mut self) {
        let count = std::mem::take(&mut self.flushing);
        self.unread = match self.unread {
            Some((since, left)) if left > count => Some((since, left - count)),
            _ => None,
        };
        if self.written >= WRITTEN_BYTES_MAX {
            drop(self.bytes.drain(..std::mem::take(&mut self.written)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn push(outbox: &mut Outbox, reply: &[u8]) {
        let result: Result<(), ()> = outbox.push(|out| {
            out.extend_from_slice(reply);
            Ok(())
        });
        result.unwrap();
    }

    async fn poll_once(outbox: &mut Outbox, stream: &mut (impl AsyncWrite + Unpin)) -> bool {
        poll_fn(|cx| Poll::Ready(outbox.poll_write(cx, stream).map(Result::unwrap).is_ready())).await
    }

    #[tokio::test]
    async fn whoever_reads_slowly_keeps_up_and_whoever_does_not_read_is_seen() {
        let (mut near, mut far) = tokio::io::duplex(10);
        let mut outbox = Outbox::default();
        push(&mut outbox, &[1; 25]);
        assert!(!poll_once(&mut outbox, &mut near).await);
        let first = outbox.unread_since().unwrap();
        assert_eq!(outbox.len(), 15);
        let mut read = [0; 10];
        for (at, count) in [(1, 10), (2, 5)] {
            tokio::time::sleep(Duration::from_millis(2)).await;
            // More comes all the time: that is no fault of the host.
            push(&mut outbox, &[2; 10]);
            far.read_exact(&mut read[..count]).await.unwrap();
            assert!(!poll_once(&mut outbox, &mut near).await);
            let is_first = outbox.unread_since() == Some(first);
            // What had waited then is read, and what waits now does so since now.
            assert_eq!(is_first, at == 1, "{at}");
        }
        while !poll_once(&mut outbox, &mut near).await {
            let _ = far.read(&mut read).await.unwrap();
        }
        assert_eq!((outbox.len(), outbox.unread_since()), (0, None));
    }

    #[tokio::test]
    async fn what_lies_below_is_unread_whatever_is_said_meanwhile() {
        let (near, mut far) = tokio::io::duplex(10);
        let mut near = tokio::io::BufWriter::with_capacity(1000, near);
        let mut outbox = Outbox::default();
        push(&mut outbox, &[1; 100]);
        assert!(!poll_once(&mut outbox, &mut near).await);
        let first = outbox.unread_since();
        assert!(first.is_some());
        tokio::time::sleep(Duration::from_millis(2)).await;
        push(&mut outbox, &[2]);
        assert!(!poll_once(&mut outbox, &mut near).await);
        assert_eq!(outbox.unread_since(), first);
        let mut read = [0; 101];
        let reading = async { far.read_exact(&mut read).await.unwrap() };
        let writing = poll_fn(|cx| outbox.poll_write(cx, &mut near));
        assert!(tokio::join!(reading, writing).1.is_ok());
        assert_eq!((read[99], read[100], outbox.unread_since()), (1, 2, None));
    }

    #[tokio::test]
    async fn nothing_is_lost_or_doubled_on_the_way() {
        let (mut near, mut far) = tokio::io::duplex(1000);
        let mut outbox = Outbox::default();
        let mut told = Vec::new();
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.unwrap();
            read
        });
        for at in 0..2000_u32 {
            let reply = vec![at.to_le_bytes()[0]; (at % 199) as usize];
            told.extend_from_slice(&reply);
            push(&mut outbox, &reply);
            let _ = poll_once(&mut outbox, &mut near).await;
        }
        poll_fn(|cx| outbox.poll_write(cx, &mut near)).await.unwrap();
        drop(near);
        assert!(reading.await.unwrap() == told);
    }
}
