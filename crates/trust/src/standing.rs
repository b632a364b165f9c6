//! Handshakes under the terms of now, and peers that other terms would not have let in.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
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
        let ends = ends(&self.chain);
        loop {
            tokio::select! {
                changed = self.terms.changed() => if changed.is_err() {
                    // The front door is gone, and with it whoever could change its terms.
                    std::future::pending().await
                },
                // A peer may have sent certificates that it was not let in by: that one of them has ended is not the end of its own.
                () = passed(ends.as_deref()) => {}
            }
            let terms = self.terms.borrow_and_update().clone();
            if !terms.accept(&self.chain) {
                return;
            }
        }
    }
}

/// The last second, since 1970, of each certificate; none if one cannot be read.
fn ends(chain: &[CertificateDer<'_>]) -> Option<Vec<u64>> {
    let end = |certificate: &CertificateDer<'_>| {
        let (_, read) = parse_x509_certificate(certificate).ok()?;
        Some(u64::try_from(read.validity().not_after.timestamp()).unwrap_or(0))
    };
    chain.iter().map(end).collect()
}

/// Waits until the wall clock has passed one more of the ends that are ahead of it. What ends at a second that is not known may end at any.
async fn passed(ends: Option<&[u64]>) {
    let Some(ends) = ends else { return sleep(CLOCK_PERIOD).await };
    let Some(next) = next_of(ends, now()) else { return std::future::pending().await };
    while let Some(left) = left_of(next, now()) {
        sleep(left.min(CLOCK_PERIOD)).await;
    }
}

/// Since 1970, by the wall clock.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The first second that is not over.
fn next_of(ends: &[u64], now: Duration) -> Option<u64> {
    ends.iter().copied().filter(|end| left_of(*end, now).is_some()).min()
}

/// How long a second and what comes before it last from `now` on.
fn left_of(second: u64, now: Duration) -> Option<Duration> {
    Duration::from_secs(second.saturating_add(1)).checked_sub(now).filter(|left| !left.is_zero())
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
        let check = |now, left: Option<u64>| {
            let left = left.map(Duration::from_millis);
            assert_eq!(left_of(10, Duration::from_millis(now)), left, "{now}");
        };
        check(8_000, Some(3_000));
        check(10_000, Some(1_000));
        check(10_999, Some(1));
        check(11_000, None);
        check(u64::MAX, None);
        assert!(left_of(u64::MAX, Duration::ZERO).is_some());
    }

    #[test]
    fn what_has_ended_does_not_hide_what_ends_next() {
        let at = Duration::from_secs;
        assert_eq!(next_of(&[7, 20, 9], at(0)), Some(7));
        assert_eq!(next_of(&[7, 20, 9], at(9)), Some(9));
        assert_eq!(next_of(&[7, 20, 9], at(10)), Some(20));
        assert_eq!(next_of(&[7, 20, 9], at(21)), None);
        assert_eq!(next_of(&[], at(0)), None);
    }

    #[test]
    fn each_certificate_of_a_chain_has_its_end() {
        let ending = |second: u64| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.not_after = rcgen::date_time_ymd(2030, 1, 1) + Duration::from_secs(second);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let first = ends(&[ending(0)]).unwrap()[0];
        assert_eq!(ends(&[ending(7), ending(0)]), Some(vec![first + 7, first]));
        assert_eq!(ends(&[]), Some(Vec::new()));
        assert_eq!(ends(&[ending(0), CertificateDer::from(vec![1, 2, 3])]), None, "one that cannot be read");
    }
}
