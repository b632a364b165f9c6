//! Connections: who may open one, its handshake, and its streams.

use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use quinn::{Connection, Endpoint, Incoming, VarInt};
use surety_protocol::CloseCode;
use tokio::time::timeout;

use crate::clock::boot_now;
use crate::identity::{IdentityError, caller_of, role_names};
use crate::shard::credentials::Credentials;
use crate::shard::outlet::Peer;
use crate::shard::tenants::Counted;
use crate::shard::{Shard, stream};
use crate::shared::Life;
use crate::threads;

/// Accepts connections until the endpoint closes.
pub(super) async fn accept_all(shard: Rc<Shard>, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        match judge(&shard, &incoming) {
            Judgement::Open => {
                // Counted at once: the next in line is judged before the task begins.
                let handshake = Handshake::begin(&shard, network_of(incoming.remote_address()));
                threads::spawn_task(serve(Rc::clone(&shard), incoming, handshake));
            }
            Judgement::Drop => incoming.ignore(),
            // An address that does not answer a Retry never was there.
            Judgement::Retry => drop(incoming.retry()),
            Judgement::Refuse => {
                shard.core.borrow().metrics().connections_refused.add(1);
                incoming.refuse();
            }
        }
    }
}

/// What becomes of somebody who knocks.
enum Judgement {
    Open,
    Retry,
    Refuse,
    /// Whoever means it sends its packet again.
    Drop,
}

fn judge(shard: &Shard, incoming: &Incoming) -> Judgement {
    let limits = &shard.shared.limits;
    let handshakes = shard.handshakes.get();
    let is_proven = incoming.remote_address_validated();
    let is_open = matches!(shard.shared.life(), Life::Serving | Life::Forked);
    if !is_open || handshakes >= limits.handshakes || shard.connections.get() >= limits.connections {
        return Judgement::Refuse;
    }
    if handshakes >= limits.retry_above && !is_proven && incoming.may_retry() {
        return Judgement::Retry;
    }
    let address = network_of(incoming.remote_address());
    let of_address = shard.handshaking.borrow().get(&address).copied().unwrap_or(0);
    if of_address >= limits.handshakes_address {
        return Judgement::Drop;
    }
    // Somebody who pretends to be that address must not shut out who is there.
    if of_address >= limits.handshakes_address / 2 && !is_proven && incoming.may_retry() {
        return Judgement::Retry;
    }
    if shard.addresses.borrow_mut().admit(address, boot_now()) {
        Judgement::Open
    } else if !is_proven && incoming.may_retry() {
        // Somebody may pretend to be that address.
        Judgement::Retry
    } else {
        Judgement::Refuse
    }
}

/// What a limit per address counts: the address, or the network that one customer of a provider gets.
fn network_of(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

async fn serve(shard: Rc<Shard>, incoming: Incoming, handshake: Handshake) {
    let address = incoming.remote_address();
    let reloads = shard.reloads.get();
    let connection = match incoming.accept() {
        Ok(connecting) => timeout(shard.shared.limits.handshake, connecting).await,
        Err(error) => Ok(Err(error)),
    };
    drop(handshake);
    let connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%address, "handshake failed: {error}"),
        Err(_) => return tracing::debug!(%address, "handshake took too long"),
    };
    match admit(&shard, &connection, reloads) {
        Ok((peer, counted)) => serve_streams(&shard, connection, peer, counted).await,
        Err(refusal) => {
            tracing::warn!(%address, "closing a connection with {}: {refusal}", refusal.code().name());
            shard.core.borrow().metrics().connections_refused.add(1);
            close(&connection, refusal.code());
        }
    }
}

/// Why a connection with a good certificate is closed at once.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the certificate opens too many connections")]
    TooMany,
    #[error("the tenant has as many connections as it may")]
    TooManyOfTenant,
    #[error("the certificate was revoked, or its authority replaced, during the handshake")]
    Revoked,
}

impl Refusal {
    const fn code(&self) -> CloseCode {
        match self {
            Self::Identity(_) | Self::Revoked => CloseCode::BadCertificate,
            Self::TooMany | Self::TooManyOfTenant => CloseCode::TooMany,
        }
    }
}

/// `reloads` is how often the certificates had been read again when the handshake began.
fn admit(shard: &Shard, connection: &Connection, reloads: u64) -> Result<(Rc<Peer>, Counted), Refusal> {
    let credentials = Credentials::of(connection)?;
    let caller = caller_of(credentials.leaf())?;
    if shard.reloads.get() != reloads && !shard.accepts(&credentials) {
        return Err(Refusal::Revoked);
    }
    if !shard.certificates.borrow_mut().admit(caller.actor, boot_now()) {
        return Err(Refusal::TooMany);
    }
    let most = shard.shared.limits.connections_tenant;
    let counted = shard.tenant_connections.take(caller.tenant, most).ok_or(Refusal::TooManyOfTenant)?;
    Ok((Peer::new(connection.clone(), caller, credentials), counted))
}

async fn serve_streams(shard: &Rc<Shard>, connection: Connection, peer: Rc<Peer>, _of_tenant: Counted) {
    let _open = Count::new(shard, |shard| &shard.connections);
    let caller = peer.caller;
    shard.core.borrow().metrics().connections.add(1);
    // Records name the principal alone: this line says whose certificate that is.
    let subject = peer.credentials.as_ref().map_or_else(String::new, Credentials::subject);
    tracing::info!(
        shard = shard.id.0,
        address = %connection.remote_address(),
        tenant = caller.tenant.0,
        roles = role_names(caller.roles).join(","),
        actor = %caller.actor,
        subject,
        "connection opened"
    );
    let number = shard.note_peer(&peer);
    // Who connects has something to say; one that has not must not keep its place by staying awake.
    let mut first = Some(shard.shared.limits.frame);
    let why = loop {
        let accepted = match first.take() {
            Some(patience) => timeout(patience, connection.accept_bi()).await,
            None => Ok(connection.accept_bi().await),
        };
        match accepted {
            Ok(Ok((send, recv))) => {
                threads::spawn_task(stream::serve(Rc::clone(shard), Rc::clone(&peer), send, recv));
            }
            Ok(Err(error)) => break error,
            Err(_) => peer.close(CloseCode::FrameDeadline),
        }
    };
    shard.forget_peer(number);
    tracing::info!(shard = shard.id.0, actor = %caller.actor, "connection closed: {why}");
}

fn close(connection: &Connection, code: CloseCode) {
    connection.close(VarInt::from_u32(code as u32), code.name().as_bytes());
}

/// A handshake that has begun and not ended, counted for all and for its address.
struct Handshake {
    shard: Rc<Shard>,
    address: IpAddr,
    _of_all: Count,
}

impl Handshake {
    fn begin(shard: &Rc<Shard>, address: IpAddr) -> Self {
        *shard.handshaking.borrow_mut().entry(address).or_default() += 1;
        let of_all = Count::new(shard, |shard| &shard.handshakes);
        Self { shard: Rc::clone(shard), address, _of_all: of_all }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.shard.handshaking.borrow_mut().entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Counts something for as long as it lives.
pub(super) struct Count {
    shard: Rc<Shard>,
    counter: fn(&Shard) -> &std::cell::Cell<usize>,
}

impl Count {
    pub(super) fn new(shard: &Rc<Shard>, counter: fn(&Shard) -> &std::cell::Cell<usize>) -> Self {
        counter(shard).update(|count| count + 1);
        Self { shard: Rc::clone(shard), counter }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        (self.counter)(&self.shard).update(|count| count - 1);
    }
}
