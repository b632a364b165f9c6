//! Handshakes under the terms of now, and peers that other terms would not have let in.

use std::io;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::terms::{Files, Terms, TlsError};

/// A front door's TLS.
#[derive(Debug)]
pub struct Tls {
    terms: watch::Sender<Arc<Terms>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(files: &Files) -> Result<Self, TlsError> {
        Terms::read(files).map(Self::new)
    }

    /// By what files came to.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { terms: watch::Sender::new(Arc::new(terms)) }
    }

    /// Takes other terms: for whoever comes from now on, and for those who are there.
    pub fn replace(&self, terms: Terms) {
        self.terms.send_replace(Arc::new(terms));
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// If the peer is not let in, or its socket fails.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Standing)> {
        let mut terms = self.terms.subscribe();
        // What is replaced during the handshake is found once it is over.
        let config = terms.borrow_and_update().config.clone();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Ok((stream, Standing { terms, chain }))
    }
}

/// By what a peer was let in.
#[derive(Debug)]
pub struct Standing {
    terms: watch::Receiver<Arc<Terms>>,
    /// Its own certificate, then those that lead to its authority; none from a peer that has shown none.
    chain: Vec<CertificateDer<'static>>,
}

impl Standing {
    /// The peer's own certificate, if it has shown one.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }

    /// What the peer has shown: its own certificate, then those that lead to its authority; nothing from a peer that has shown none.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Waits until there are terms under which the peer would not be let in: its certificate was revoked, its authority is none any more.
    async fn lost(mut self) {
        while self.terms.changed().await.is_ok() {
            let terms = self.terms.borrow_and_update().clone();
            if !terms.accept(&self.chain) {
                return;
            }
        }
        // The front door is gone, and with it whoever could change its terms.
        std::future::pending().await
    }
}

/// Waits until a peer has lost its standing. Who needs none cannot lose it.
pub async fn lost(standing: Option<Standing>) {
    match standing {
        Some(standing) => standing.lost().await,
        None => std::future::pending().await,
    }
}
