//! Packets of nobody: no certificate, no intention to go on.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use quinn::Endpoint;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::Target;
use crate::random::Random;

/// A first packet of QUIC has at least this length.
const INITIAL_BYTES: usize = 1200;
/// Packets between two looks at who else wants to run.
const BURST: u32 = 256;
/// Handshakes that are begun at a time.
const AT_ONCE: u32 = 500;
/// How long a half-open handshake is left so; the engine's deadline is two seconds.
const LEFT_OPEN: Duration = Duration::from_millis(700);

/// Random bytes of random lengths.
pub(super) async fn garbage(target: &Target, packets: u32) -> Result<u64> {
    let mut random = Random::new(target.seed);
    send(target, packets, |bytes| {
        let length = usize::try_from(1 + random.below(1_400)).unwrap_or(1);
        bytes.resize(length, 0);
        fill(&mut random, bytes);
    })
    .await
}

/// Long headers of version 1 with the form, lengths and size of an Initial, and a payload that no key opens.
pub(super) async fn initials(target: &Target, packets: u32) -> Result<u64> {
    let mut random = Random::new(target.seed ^ 1);
    send(target, packets, |bytes| {
        bytes.resize(INITIAL_BYTES, 0);
        fill(&mut random, bytes);
        // Form and fixed bit, Initial, version 1, two connection ids of 8 bytes, no token, the rest as length.
        bytes[0] = 0xc0 | (bytes[0] & 0x0f);
        bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
        (bytes[5], bytes[14], bytes[23]) = (8, 8, 0);
        let rest = u16::try_from(INITIAL_BYTES - 26).unwrap_or(0) | 0x4000;
        bytes[24..26].copy_from_slice(&rest.to_be_bytes());
    })
    .await
}

async fn send(target: &Target, packets: u32, mut make: impl FnMut(&mut Vec<u8>)) -> Result<u64> {
    let mut bytes = Vec::new();
    let mut sent = 0;
    let mut socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    for packet in 0..packets {
        if packet % BURST == 0 {
            // Another port each time: limits per address must hold, not those per socket.
            socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            tokio::task::yield_now().await;
        }
        make(&mut bytes);
        sent += u64::from(socket.send_to(&bytes, target.address).await.is_ok());
    }
    Ok(sent)
}

fn fill(random: &mut Random, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        let word = random.next().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// Genuine first packets of handshakes that nobody goes on with, each from another address of the loopback.
pub(super) async fn half_open(target: &Target, handshakes: u32) -> Result<u64> {
    let config = surety_client::client_config(&target.identity)?;
    let mut begun = 0;
    while begun < u64::from(handshakes) {
        let mut open = JoinSet::new();
        for _ in 0..AT_ONCE.min(handshakes) {
            let (target, config) = (target.clone(), config.clone());
            let number = u32::try_from(begun)?;
            begun += 1;
            open.spawn(async move { one_half(&target, config, number).await });
        }
        while let Some(ended) = open.join_next().await {
            ended??;
        }
    }
    Ok(begun)
}

/// Sends the first packet, and takes no answer: what comes back goes to a socket that nobody reads.
async fn one_half(target: &Target, config: quinn::ClientConfig, number: u32) -> Result<()> {
    let local = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let from = Ipv4Addr::from(0x7f01_0000_u32 + number % 0x00fe_0000);
    let outside = UdpSocket::bind((from, 0)).await?;
    let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let connecting = endpoint.connect_with(config, local.local_addr()?, "localhost")?;
    let forwarded = tokio::time::timeout(LEFT_OPEN, forward(&local, &outside, target.address)).await;
    drop(connecting);
    match forwarded {
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

async fn forward(from: &UdpSocket, through: &UdpSocket, to: SocketAddr) -> std::io::Result<()> {
    let mut bytes = vec![0; 2048];
    loop {
        let length = from.recv(&mut bytes).await?;
        through.send_to(&bytes[..length], to).await?;
    }
}
