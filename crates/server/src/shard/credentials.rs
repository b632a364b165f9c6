//! The certificates of open connections: what was good at the handshake may expire, or be revoked, while the connection
//! lives. Whoever could not connect any more is closed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use surety_protocol::{CloseCode, Time, sabotage};

use crate::clock::readings;
use crate::identity::{IdentityError, Person, valid_until};
use crate::shard::Shard;
use crate::shard::outlet::Peer;

/// Signatures that are checked at a time before others get their turn.
const CHECKS: usize = 8;

/// What a peer was let in by.
#[derive(Debug)]
pub(super) struct Credentials {
    /// Its own certificate, then those that lead to the authority.
    chain: Vec<CertificateDer<'static>>,
    /// By the wall clock.
    valid_until: Time,
}

impl Credentials {
    /// Those of a connection whose handshake is done.
    pub(super) fn of(connection: &Connection) -> Result<Self, IdentityError> {
        let identity = connection.peer_identity();
        let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let chain = *chain.filter(|chain| !chain.is_empty()).ok_or(IdentityError::Unreadable)?;
        let valid_until = valid_until(&chain)?;
        Ok(Self { chain, valid_until })
    }

    /// The peer's own certificate.
    pub(super) fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// Whom the peer's certificate names; empty if nobody.
    pub(super) fn subject(&self) -> String {
        Person::of(self.leaf()).map_or_else(|_| String::new(), |person| person.name().to_owned())
    }

    fn is_expired(&self, wall: Time) -> bool {
        // In whole seconds, as handshakes count: the last one counts to its end.
        wall.0 / 1_000_000_000 > self.valid_until.0 / 1_000_000_000
            && !sabotage!("connection-outlives-its-certificate")
    }

    /// True if a handshake with them would succeed now.
    fn are_accepted(&self, verifier: &dyn ClientCertVerifier, wall: Time) -> bool {
        let now = UnixTime::since_unix_epoch(Duration::from_nanos(wall.0));
        verifier.verify_client_cert(&self.chain[0], &self.chain[1..], now).is_ok()
    }
}

impl Shard {
    /// True if a handshake that was judged by older lists would still succeed.
    pub(super) fn accepts(&self, credentials: &Credentials) -> bool {
        let verifier = self.verifier.borrow().clone();
        verifier.is_none_or(|verifier| credentials.are_accepted(&*verifier, readings().wall))
    }

    /// Closes connections whose certificate has expired, or whose tenant was shut out.
    pub(super) fn close_expired(&self) {
        let wall = readings().wall;
        let shut_out = self.core.borrow().shut_out();
        self.close_those(|peer| {
            peer.credentials.as_ref().is_some_and(|credentials| credentials.is_expired(wall))
                || shut_out.contains(&peer.caller.tenant)
        });
    }

    /// Closes connections that the authority and the revocations of now would not let in.
    pub(super) async fn close_refused(self: Rc<Self>, verifier: Arc<dyn ClientCertVerifier>) {
        let numbers: Vec<_> = self.peers.borrow_mut().numbers().collect();
        let mut closed = 0_u64;
        for few in numbers.chunks(CHECKS) {
            let wall = readings().wall;
            for number in few {
                let peer = self.peers.borrow_mut().get_mut(*number).map(|peer| Rc::clone(peer));
                let Some(peer) = peer else { continue };
                if peer.credentials.as_ref().is_some_and(|held| !held.are_accepted(&*verifier, wall)) {
                    closed += u64::from(self.shut(&peer));
                }
            }
            tokio::task::yield_now().await;
        }
        tracing::info!(shard = self.id.0, closed, "connections that would not be let in any more are closed");
    }

    fn close_those(&self, is_to_go: impl Fn(&Peer) -> bool) {
        let mut peers = self.peers.borrow_mut();
        for number in peers.numbers() {
            if let Some(peer) = peers.get_mut(number)
                && is_to_go(peer)
            {
                self.shut(peer);
            }
        }
    }

    /// True if it was open.
    fn shut(&self, peer: &Peer) -> bool {
        let Some(connection) = &peer.connection else { return false };
        if connection.close_reason().is_some() {
            return false;
        }
        tracing::warn!(
            shard = self.id.0,
            tenant = peer.caller.tenant.0,
            actor = %peer.caller.actor,
            "closing a connection: its certificate has expired or was revoked, or its tenant is shut out"
        );
        peer.close(CloseCode::BadCertificate);
        true
    }
}
