//! Peers with a good certificate and bad manners.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use surety_client::transport::Connector;
use surety_client::{Client, Draft, LockRequest, Options, QuicConnector};
use surety_protocol::{Amount, CloseCode, FrameHeader, FrameKind, Hello, MerchantId};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::Target;
use crate::witness;

/// Requests of one frame.
const FRAME: u16 = 1024;
/// How long the engine may take to close somebody: longer than any of its deadlines.
const CLOSE_PATIENCE: Duration = Duration::from_secs(40);
/// Datagrams that pass before one is held back for ever, and those that pass behind it.
const BEFORE_GAP: u64 = 12;
const BEHIND_GAP: u64 = 160;

/// A connection whose hello was exchanged by hand.
struct Peer {
    _endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    /// Never read: its window fills and stays full. Dropping it would tell the engine to stop sending.
    _recv: RecvStream,
    number: u64,
    tenant: surety_protocol::TenantId,
}

impl Peer {
    async fn connect(target: &Target, address: SocketAddr) -> Result<Self> {
        let mut config = surety_client::client_config(&target.identity)?;
        let mut transport = surety_client::transport_config();
        // As fast as it can, whatever the network says.
        let mut congestion = quinn::congestion::CubicConfig::default();
        congestion.initial_window(4 << 20);
        transport.congestion_controller_factory(Arc::new(congestion));
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let connection = endpoint.connect_with(config, address, "localhost")?.await?;
        let (send, recv) = connection.open_bi().await?;
        Ok(Self {
            _endpoint: endpoint,
            connection,
            send,
            _recv: recv,
            number: 0,
            tenant: target.identity.tenant(),
        })
    }

    async fn greet(&mut self) -> Result<()> {
        let body = Hello::new(self.tenant, "flood").to_body(&[]);
        self.frame(FrameKind::Hello, 0, &body).await
    }

    async fn frame(&mut self, kind: FrameKind, count: u16, body: &[u8]) -> Result<()> {
        let header = FrameHeader { kind, count, number: self.number };
        self.number += 1;
        self.send.write_all(&[&header.to_bytes()[..], body].concat()).await?;
        Ok(())
    }

    /// Waits until the connection ends.
    async fn ended(&self) -> Result<ConnectionError> {
        tokio::time::timeout(CLOSE_PATIENCE, self.connection.closed()).await.context("not closed in time")
    }
}

/// The engine ended it, with this code.
fn expect_code(ended: &ConnectionError, code: CloseCode) -> Result<()> {
    match ended {
        ConnectionError::ApplicationClosed(close)
            if close.error_code.into_inner() == u64::from(code as u32) =>
        {
            Ok(())
        }
        other => bail!("{other} instead of {}", code.name()),
    }
}

/// So many requests as fit, and not one reply read, until the engine ends it.
pub(super) async fn slow_readers(target: &Target, peers: u32) -> Result<u64> {
    let told = Arc::new(AtomicU64::new(0));
    let done = all(peers, |_| {
        let (target, told) = (target.clone(), told.clone());
        async move {
            let ids = source(&target).await?;
            let mut peer = Peer::connect(&target, target.address).await?;
            peer.greet().await?;
            // Far more replies than all windows and the backlog hold; writing ends when the engine closes.
            for _ in 0..400 {
                let body = requests(&ids)?;
                if peer.frame(FrameKind::Requests, FRAME, &body).await.is_err() {
                    break;
                }
            }
            // The datagram that says why may be lost among all that is not read; then the next one is answered with a reset.
            match peer.ended().await? {
                ConnectionError::Reset => {}
                ended => {
                    expect_code(&ended, CloseCode::SlowReader)?;
                    told.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        }
    })
    .await?;
    if told.load(Ordering::Relaxed) == 0 {
        bail!("no slow reader was told why it was closed");
    }
    Ok(done)
}

/// Frames that begin and never end, and hellos that never come.
pub(super) async fn slow_frames(target: &Target, peers: u32) -> Result<u64> {
    all(peers, |number| {
        let target = target.clone();
        async move {
            let mut peer = Peer::connect(&target, target.address).await?;
            if number % 2 == 0 {
                peer.greet().await?;
            }
            let kind = if number % 2 == 0 { FrameKind::Requests } else { FrameKind::Hello };
            let count = if number % 2 == 0 { FRAME } else { 0 };
            let header = FrameHeader { kind, count, number: peer.number }.to_bytes();
            // A byte now and then keeps the connection busy, and the frame unfinished.
            for byte in header.iter().chain(&[0; 64]) {
                if peer.send.write_all(std::slice::from_ref(byte)).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            expect_code(&peer.ended().await?, CloseCode::FrameDeadline)
        }
    })
    .await
}

/// Streams whose middle never arrives: the engine keeps what lies behind the gap, up to the stream's window, until the
/// peer is silent for too long.
pub(super) async fn gaps(target: &Target, peers: u32) -> Result<u64> {
    all(peers, |_| {
        let target = target.clone();
        async move {
            let ids = source(&target).await?;
            let (address, proxy) = gap_proxy(target.address).await?;
            let mut peer = Peer::connect(&target, address).await?;
            peer.greet().await?;
            proxy.is_armed.store(1, Ordering::Relaxed);
            let body = requests(&ids)?;
            for _ in 0..8 {
                let write = peer.frame(FrameKind::Requests, FRAME, &body);
                if tokio::time::timeout(Duration::from_secs(1), write).await.is_err() {
                    break;
                }
            }
            // The proxy is mute by now; both sides find out by silence.
            peer.ended().await.context("a connection with a gap lives on")?;
            if proxy.behind_gap.load(Ordering::Relaxed) == 0 {
                bail!("nothing was sent behind the gap");
            }
            Ok(())
        }
    })
    .await
}

#[derive(Default)]
struct GapProxy {
    is_armed: AtomicU64,
    behind_gap: AtomicU64,
}

/// Forwards both ways. Once armed, it lets a few datagrams of the client pass, holds one back, lets those behind it pass,
/// and is mute from then on.
async fn gap_proxy(engine: SocketAddr) -> Result<(SocketAddr, Arc<GapProxy>)> {
    let outside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let inside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    inside.connect(engine).await?;
    let address = outside.local_addr()?;
    let proxy = Arc::new(GapProxy::default());
    let state = proxy.clone();
    tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let mut client = None;
        let mut passed = 0;
        loop {
            tokio::select! {
                Ok((length, from)) = outside.recv_from(&mut up) => {
                    client = Some(from);
                    if state.is_armed.load(Ordering::Relaxed) == 1 {
                        passed += 1;
                    }
                    let is_held_back = passed == BEFORE_GAP;
                    if !is_held_back && passed <= BEFORE_GAP + BEHIND_GAP {
                        let _ = inside.send(&up[..length]).await;
                        state.behind_gap.fetch_add(u64::from(passed > BEFORE_GAP), Ordering::Relaxed);
                    }
                    if passed > BEFORE_GAP + BEHIND_GAP {
                        break;
                    }
                }
                Ok(length) = inside.recv(&mut down) => {
                    // After the gap no acknowledgement comes back, so that nothing is sent again.
                    if let (Some(client), true) = (client, passed < BEFORE_GAP) {
                        let _ = outside.send_to(&down[..length], client).await;
                    }
                }
                () = tokio::time::sleep(CLOSE_PATIENCE) => break,
            }
        }
        // Bound, and mute: an unreachable port would end the connection at once.
        tokio::time::sleep(CLOSE_PATIENCE).await;
    });
    Ok((address, proxy))
}

/// Runs one task for each peer; all must do as expected.
async fn all<F>(peers: u32, one: impl Fn(u32) -> F) -> Result<u64>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    (0..peers).for_each(|number| drop(tasks.spawn(one(number))));
    let mut done = 0;
    while let Some(ended) = tasks.join_next().await {
        ended??;
        done += 1;
    }
    Ok(done)
}

/// A client that gives out ids on the engine's clock.
async fn source(target: &Target) -> Result<Client> {
    let connector: Arc<dyn Connector> = Arc::new(QuicConnector::new(target.dial())?);
    Ok(Client::over(connector, Options::default(), &[]).await?)
}

/// A full frame of locks.
fn requests(ids: &Client) -> Result<Vec<u8>> {
    let partition = witness::partition(0)?;
    let mut body = Vec::with_capacity(usize::from(FRAME) * 128);
    for _ in 0..FRAME {
        let lock = LockRequest {
            life: Duration::from_secs(60),
            ..LockRequest::new(partition, Amount(1), MerchantId(5))
        };
        let record = Draft::from(lock).into_record(|| ids.new_id());
        body.extend_from_slice(&record.to_bytes());
    }
    Ok(body)
}
