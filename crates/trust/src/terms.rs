//! What the files of a front door come to.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, version};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::lists::{ListError, check_lists};
use crate::pem::{certificates, key, revocations, roots};

/// The files of a front door's TLS, in PEM, and what it asks of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Its certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients' certificates; without them no client is asked for one.
    pub authorities: Option<PathBuf>,
    /// Lists of clients' certificates that are refused before they end, signed by those authorities. Whose authority has no list in it is refused
    /// too; without them nothing is looked up.
    pub revoked: Option<PathBuf>,
    /// A client without a certificate is not let in, where there are authorities.
    pub needs_certificate: bool,
    /// A certificate says who a client is: one that nothing vouches for any more is nobody's. Elsewhere it just opens the door.
    pub is_identity: bool,
    /// What may be spoken inside, the dearest first; nothing for whatever both ends know.
    pub protocols: &'static [&'static [u8]],
}

/// Why a front door cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, or holds nothing of its kind.
    #[error("{file}: {reason}", file = file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A list of certificates that are refused is not one to go by.
    #[error("{file}: {error}", file = file.display())]
    List {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        error: ListError,
    },
    /// Certificate and key do not fit together.
    #[error("the certificate cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    /// The authorities cannot vouch for anybody.
    #[error("the authorities of clients cannot be used: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

/// Who is let in, and by whom: what the files came to when they were read.
#[derive(Debug)]
pub struct Terms {
    pub(crate) config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    is_identity: bool,
}

impl Terms {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn read(files: &Files) -> Result<Self, TlsError> {
        Self::read_with_chain(files).map(|(terms, _)| terms)
    }

    /// The same with the front door's own certificates, of which there is at least one, as they were read for it.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn read_with_chain(files: &Files) -> Result<(Self, Vec<CertificateDer<'static>>), TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&[&version::TLS13])?;
        let verifier = verifier(files)?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let chain = certificates(&files.certificate)?;
        let mut config = builder.with_single_cert(chain.clone(), key(&files.key)?)?;
        config.alpn_protocols = files.protocols.iter().map(|name| name.to_vec()).collect();
        // Nobody comes back on what was looked at earlier: the certificate may have ended, or been revoked.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((Self { config: Arc::new(config), verifier, is_identity: files.is_identity }, chain))
    }

    /// True if a handshake with these certificates would succeed now: the client's own, then those that lead to its authority.
    pub(crate) fn accept(&self, chain: &[CertificateDer<'_>]) -> bool {
        match (&self.verifier, chain) {
            (None, []) => true,
            (None, _) => !self.is_identity,
            (Some(verifier), []) => !verifier.client_auth_mandatory(),
            (Some(verifier), [own, between @ ..]) => {
                verifier.verify_client_cert(own, between, UnixTime::now()).is_ok()
            }
        }
    }
}

/// Whom the authorities vouch for.
fn verifier(files: &Files) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(authorities) = &files.authorities else { return Ok(None) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots(authorities)?.into(), provider);
    if let Some(file) = &files.revoked {
        let lists = revocations(file)?;
        check_lists(&lists, &certificates(authorities)?)
            .map_err(|error| TlsError::List { file: file.clone(), error })?;
        verifier = verifier.with_crls(lists);
    }
    let verifier = if files.needs_certificate { verifier } else { verifier.allow_unauthenticated() };
    Ok(Some(verifier.build()?))
}
