//! A client of any front door: says requests over TCP, and counts whole replies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::echo::on_client;
use crate::figures::{Latency, Recorder};
use crate::locks::CLIENT_CORE;

/// What one connection says, and how its replies are told apart.
pub trait Speech: 'static {
    /// Appends the next request, which is like no other.
    fn say(&mut self, out: &mut Vec<u8>);

    /// How long the first reply is, once all of it was read.
    ///
    /// # Errors
    /// If it is none that was hoped for.
    fn heard(&self, read: &[u8]) -> anyhow::Result<Option<usize>>;
}

/// A connection, and what it has read beyond the replies that were counted.
struct Line<S> {
    stream: TcpStream,
    speech: S,
    written: Vec<u8>,
    read: Vec<u8>,
}

impl<S: Speech> Line<S> {
    async fn open(address: SocketAddr, speech: S) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, speech, written: Vec::new(), read: Vec::with_capacity(64 * 1024) })
    }

    async fn say(&mut self, count: usize) -> anyhow::Result<()> {
        self.written.clear();
        for _ in 0..count {
            self.speech.say(&mut self.written);
        }
        Ok(self.stream.write_all(&self.written).await?)
    }

    /// Waits for replies, and says how many came.
    async fn hear(&mut self) -> anyhow::Result<usize> {
        loop {
            let (mut count, mut at) = (0, 0);
            while let Some(length) = self.speech.heard(&self.read[at..])? {
                (count, at) = (count + 1, at + length);
            }
            self.read.drain(..at);
            if count > 0 {
                return Ok(count);
            }
            ensure!(self.stream.read_buf(&mut self.read).await? > 0, "the connection was closed");
        }
    }
}

/// Round trips of one request in flight; and how many were answered, those that warm up included.
///
/// # Errors
/// If a request is not answered as was hoped for.
pub fn one_in_flight<S: Speech + Send>(
    address: SocketAddr,
    speech: S,
    rounds: u32,
) -> anyhow::Result<(Latency, u64)> {
    on_client(CLIENT_CORE, move || async move {
        let mut line = Line::open(address, speech).await?;
        let mut recorder = Recorder::default();
        let all = rounds + rounds / 10;
        for round in 0..all {
            let start = Instant::now();
            line.say(1).await?;
            line.hear().await?;
            if round >= rounds / 10 {
                recorder.add(start.elapsed());
            }
        }
        Ok((recorder.latency(), u64::from(all)))
    })
}

/// Requests per second over many connections with `depth` in flight on each; and how many were answered.
///
/// # Errors
/// If a request is not answered as was hoped for.
pub fn many_in_flight<S: Speech>(
    address: SocketAddr,
    connections: usize,
    depth: usize,
    lasting: Duration,
    speech: impl Fn() -> S + Send,
) -> anyhow::Result<(f64, u64)> {
    on_client(CLIENT_CORE, move || async move {
        let mut lines = Vec::new();
        for _ in 0..connections {
            lines.push(Line::open(address, speech()).await?);
        }
        let start = Instant::now();
        let talk = move |mut line: Line<S>| async move {
            line.say(depth).await?;
            let (mut waiting, mut answered) = (depth, 0_u64);
            while waiting > 0 {
                let count = line.hear().await?;
                waiting -= count;
                answered += count as u64;
                if start.elapsed() < lasting {
                    line.say(count).await?;
                    waiting += count;
                }
            }
            anyhow::Ok(answered)
        };
        let tasks: Vec<_> = lines.into_iter().map(|line| tokio::task::spawn_local(talk(line))).collect();
        let mut answered = 0;
        for task in tasks {
            answered += task.await.context("a connection's task")??;
        }
        Ok((answered as f64 / start.elapsed().as_secs_f64(), answered))
    })
}

/// Opens so many connections, has one request answered on each, and calls `then` while all of them are silent.
///
/// # Errors
/// If one cannot be opened, is not answered, or `then` fails.
pub fn open_idle<S: Speech, T: Send>(
    address: SocketAddr,
    connections: usize,
    speech: impl Fn() -> S + Send,
    then: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    on_client(CLIENT_CORE, move || async move {
        let mut lines = Vec::new();
        for _ in 0..connections {
            let mut line = Line::open(address, speech()).await?;
            line.say(1).await?;
            line.hear().await?;
            lines.push(line.stream);
        }
        then()
    })
}
