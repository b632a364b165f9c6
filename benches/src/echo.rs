//! The floor of a lock: a bare quinn echo over the same transport configuration, TLS, runtime, pinning and message sizes.
//!
//! The server reads a message of the length of a request frame and answers one of the length of a reply frame, and does
//! nothing else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use surety_protocol::limits::{FRAME_HEADER_BYTES, RECORD_BYTES, TOKEN_BYTES};
use tokio::task::LocalSet;

use crate::figures::{Latency, Recorder};
use crate::machine::pin;

/// Bytes of a frame with that many requests.
#[must_use]
pub const fn request_bytes(requests: usize) -> usize {
    FRAME_HEADER_BYTES + requests * RECORD_BYTES
}

/// Bytes of a frame with that many replies.
#[must_use]
pub const fn reply_bytes(requests: usize) -> usize {
    FRAME_HEADER_BYTES + TOKEN_BYTES + requests * RECORD_BYTES
}

/// An echo server on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct EchoServer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl EchoServer {
    /// Starts it on `core`; every message is a frame of `requests` requests.
    ///
    /// # Errors
    /// If there is no port.
    pub fn start(config: ServerConfig, core: usize, requests: usize) -> anyhow::Result<Self> {
        let (ready, address) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            pin(core);
            let runtime = runtime();
            LocalSet::new().block_on(&runtime, async move {
                let bound = Endpoint::server(config, ([127, 0, 0, 1], 0).into());
                let Ok(endpoint) = bound else { return };
                let _ = ready.send(endpoint.local_addr());
                tokio::task::spawn_local(accept(endpoint.clone(), requests));
                let _ = stopped.await;
                endpoint.close(0_u32.into(), b"");
            });
        });
        let address = address.recv().context("no port for the echo server")??;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(endpoint: Endpoint, requests: usize) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::task::spawn_local(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::task::spawn_local(echo(send, recv, requests));
            }
        });
    }
}

async fn echo(mut send: SendStream, mut recv: RecvStream, requests: usize) {
    let mut request = vec![0; request_bytes(requests)];
    let reply = vec![0; reply_bytes(requests)];
    while recv.read_exact(&mut request).await.is_ok() {
        if send.write_all(&reply).await.is_err() {
            break;
        }
    }
}

/// Round trips of one message in flight.
///
/// # Errors
/// If the connection fails.
pub fn one_in_flight(
    address: SocketAddr,
    config: ClientConfig,
    core: usize,
    rounds: u32,
) -> anyhow::Result<Latency> {
    on_client(core, move || async move {
        let (_endpoint, connection) = connect(address, config).await?;
        let (mut send, mut recv) = connection.open_bi().await?;
        let request = vec![0; request_bytes(1)];
        let mut reply = vec![0; reply_bytes(1)];
        let mut recorder = Recorder::default();
        for round in 0..rounds + rounds / 10 {
            let start = Instant::now();
            send.write_all(&request).await?;
            recv.read_exact(&mut reply).await?;
            if round >= rounds / 10 {
                recorder.add(start.elapsed());
            }
        }
        Ok(recorder.latency())
    })
}

/// Requests per second with `frames` messages of `requests` requests in flight on one stream.
///
/// # Errors
/// If the connection fails.
pub fn packed(
    address: SocketAddr,
    config: ClientConfig,
    core: usize,
    frames: usize,
    requests: usize,
    lasting: Duration,
) -> anyhow::Result<f64> {
    on_client(core, move || async move {
        let (_endpoint, connection) = connect(address, config).await?;
        let (mut send, mut recv) = connection.open_bi().await?;
        let request = vec![0; request_bytes(requests)];
        let mut reply = vec![0; reply_bytes(requests)];
        for _ in 0..frames {
            send.write_all(&request).await?;
        }
        let start = Instant::now();
        let mut answered = 0_u64;
        while start.elapsed() < lasting {
            recv.read_exact(&mut reply).await?;
            answered += requests as u64;
            send.write_all(&request).await?;
        }
        Ok(answered as f64 / start.elapsed().as_secs_f64())
    })
}

/// Requests per second over `connections` connections with one message in flight on each.
///
/// # Errors
/// If a connection fails.
pub fn many_connections(
    address: SocketAddr,
    config: ClientConfig,
    core: usize,
    connections: usize,
    lasting: Duration,
) -> anyhow::Result<f64> {
    on_client(core, move || async move {
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let (endpoint, connection) = connect(address, config.clone()).await?;
            tasks.push(tokio::task::spawn_local(async move {
                let _endpoint = endpoint;
                let (mut send, mut recv) = connection.open_bi().await?;
                let request = vec![0; request_bytes(1)];
                let mut reply = vec![0; reply_bytes(1)];
                let start = Instant::now();
                let mut answered = 0_u64;
                while start.elapsed() < lasting {
                    send.write_all(&request).await?;
                    recv.read_exact(&mut reply).await?;
                    answered += 1;
                }
                anyhow::Ok(answered as f64 / start.elapsed().as_secs_f64())
            }));
        }
        let mut rate = 0.0;
        for task in tasks {
            rate += task.await??;
        }
        Ok(rate)
    })
}

/// Runs a client on `core`, with a runtime like the server's.
///
/// # Errors
/// What `work` returns.
pub fn on_client<T, F>(core: usize, work: impl FnOnce() -> F + Send) -> anyhow::Result<T>
where
    T: Send,
    F: Future<Output = anyhow::Result<T>>,
{
    crate::machine::on_core(core, || LocalSet::new().block_on(&runtime(), work()))
}

async fn connect(address: SocketAddr, config: ClientConfig) -> anyhow::Result<(Endpoint, Connection)> {
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(address, "localhost")?.await?;
    Ok((endpoint, connection))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs no more than memory")
}
