//! Handshakes under the terms of now, and peers that other terms would not have let in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::parse_x509_certificate;

use crate::terms::{Files, Terms, TlsError};

/// So often the clock is looked at on the way to the end of a certificate: the wall clock may be set, or the machine sleep, while timers go on.
const CLOCK_PERIOD: Duration = Duration::from_secs(10);

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

    /// Waits until the peer would not be let in: its certificate has ended, or there are terms by which it was revoked or its authority is none any
    /// more.
    async fn lost(mut self) {
        let mut last_second = last_second(&self.chain);
        loop {
            tokio::select! {
                changed = self.terms.changed() => if changed.is_err() {
                    // The front door is gone, and with it whoever could change its terms.
                    std::future::pending().await
                },
                // Once is enough: whom the terms let in nevertheless they let in later, too.
                () = passed(last_second) => last_second = None,
            }
            let terms = self.terms.borrow_and_update().clone();
            if !terms.accept(&self.chain) {
                return;
            }
        }
    }
}

/// The last second, since 1970, in which every certificate is valid; none of no certificates.
fn last_second(chain: &[CertificateDer<'_>]) -> Option<u64> {
    // What cannot be read was not let in.
    let read = chain.iter().filter_map(|certificate| parse_x509_certificate(certificate).ok());
    read.map(|(_, read)| u64::try_from(read.validity().not_after.timestamp()).unwrap_or(0)).min()
}

/// Waits until a second of the wall clock is over.
async fn passed(second: Option<u64>) {
    let Some(second) = second else { return std::future::pending().await };
    while let Some(left) = left_of(second, UnixTime::now().as_secs()) {
        sleep(left.min(CLOCK_PERIOD)).await;
    }
}

/// How long a second and what comes before it last from `now` on, in whole seconds as handshakes count.
fn left_of(second: u64, now: u64) -> Option<Duration> {
    second.checked_sub(now).map(|left| Duration::from_secs(left.saturating_add(1)))
}

/// Waits until a peer has lost its standing. Who needs none cannot lose it.
pub async fn lost(standing: Option<Standing>) {
    match standing {
        Some(standing) => standing.lost().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_good_in_its_last_second() {
        let check =
            |now, expect: Option<u64>| assert_eq!(left_of(10, now), expect.map(Duration::from_secs), "{now}");
        check(8, Some(3));
        check(10, Some(1));
        check(11, None);
        check(u64::MAX, None);
        assert!(left_of(u64::MAX, 0).is_some());
    }

    #[test]
    fn a_chain_ends_with_what_ends_first_of_it() {
        let ending = |second: u64| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.not_after = rcgen::date_time_ymd(2030, 1, 1) + Duration::from_secs(second);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let first = last_second(&[ending(0)]).unwrap();
        assert_eq!(last_second(&[ending(7), ending(0), ending(9)]), Some(first));
        assert_eq!(last_second(&[ending(7)]), Some(first + 7));
        assert_eq!(last_second(&[]), None);
    }
}
