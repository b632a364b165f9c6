//! A network that loses, doubles and reorders: a UDP proxy between the clients and the engine, one port for each shard.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use crate::random::Random;

/// Where the proxy listens: the same ports as the engine's, on another address of the loopback.
pub(crate) const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_536;
/// Of so many datagrams one is lost, doubled, or delayed.
const LOST_IN: u64 = 50;
const DOUBLED_IN: u64 = 100;
const DELAYED_IN: u64 = 50;
/// A delayed datagram is overtaken by what comes in this time.
const DELAY_MAX_US: u64 = 4_000;

/// What the proxy has done.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    pub(crate) lost: AtomicU64,
    pub(crate) doubled: AtomicU64,
    pub(crate) delayed: AtomicU64,
}

/// Two free ports in a row, on the engine's address and on the proxy's.
pub(crate) fn free_ports(shards: u16) -> Result<u16> {
    for _ in 0..200 {
        let first = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let is_free = |port: u16| {
            [Ipv4Addr::LOCALHOST, PROXY].iter().all(|at| std::net::UdpSocket::bind((*at, port)).is_ok())
        };
        if first.checked_add(shards).is_some() && (first..first + shards).all(is_free) {
            return Ok(first);
        }
    }
    anyhow::bail!("no free ports in a row")
}

/// Serves one port until the runtime ends.
pub(crate) async fn serve(port: u16, seed: u64, weather: Arc<Weather>) -> Result<()> {
    let outside = Arc::new(UdpSocket::bind((PROXY, port)).await.context("the proxy's port")?);
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    tokio::spawn(async move {
        let mut links: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut random = Random::new(seed);
        let mut bytes = vec![0; DATAGRAM_BYTES];
        loop {
            // An engine that is down answers with ICMP; that is no end.
            let Ok((length, client)) = outside.recv_from(&mut bytes).await else { continue };
            let link = match links.get(&client) {
                Some(link) => link.clone(),
                None => {
                    let Ok(link) = open(inside, client, &outside, random.next(), &weather).await else {
                        continue;
                    };
                    links.insert(client, link.clone());
                    link
                }
            };
            let to = Way::Connected(link);
            pass(&mut random, &weather, &to, &bytes[..length]).await;
        }
    });
    Ok(())
}

/// Opens the way of one client, and carries back what comes on it.
async fn open(
    inside: SocketAddr,
    client: SocketAddr,
    outside: &Arc<UdpSocket>,
    seed: u64,
    weather: &Arc<Weather>,
) -> Result<Arc<UdpSocket>> {
    let link = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
    link.connect(inside).await?;
    let (back, weather) = (link.clone(), weather.clone());
    let to = Way::To(outside.clone(), client);
    tokio::spawn(async move {
        let mut random = Random::new(seed);
        let mut bytes = vec![0; DATAGRAM_BYTES];
        loop {
            if let Ok(length) = back.recv(&mut bytes).await {
                pass(&mut random, &weather, &to, &bytes[..length]).await;
            }
        }
    });
    Ok(link)
}

/// Where a datagram goes.
#[derive(Clone)]
enum Way {
    Connected(Arc<UdpSocket>),
    To(Arc<UdpSocket>, SocketAddr),
}

impl Way {
    async fn send(&self, bytes: &[u8]) {
        // What cannot be sent is lost, as on any network.
        let _ = match self {
            Self::Connected(socket) => socket.send(bytes).await,
            Self::To(socket, address) => socket.send_to(bytes, address).await,
        };
    }
}

async fn pass(random: &mut Random, weather: &Weather, to: &Way, bytes: &[u8]) {
    if random.once_in(LOST_IN) {
        weather.lost.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if random.once_in(DELAYED_IN) {
        weather.delayed.fetch_add(1, Ordering::Relaxed);
        let (to, bytes) = (to.clone(), bytes.to_vec());
        let delay = Duration::from_micros(random.below(DELAY_MAX_US));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            to.send(&bytes).await;
        });
        return;
    }
    to.send(bytes).await;
    if random.once_in(DOUBLED_IN) {
        weather.doubled.fetch_add(1, Ordering::Relaxed);
        to.send(bytes).await;
    }
}
