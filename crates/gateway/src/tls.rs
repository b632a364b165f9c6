//! TLS on a link's sockets: version 1.3, with the hosts' certificates if the link asks for them. And the other end, for simulated hosts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The files of a link's TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Our certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of the hosts' certificates; without them no host is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Lists of hosts' certificates that are refused before they end. Whose authority has no list in it is refused too; without them
    /// nothing is looked up.
    pub client_revoked: Option<PathBuf>,
}

/// The files of a simulated host's TLS, in PEM, and whom it expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTlsConfig {
    /// The authorities of the link's certificate.
    pub ca: PathBuf,
    /// The name that has to stand in it: a DNS name or an address.
    pub name: String,
    /// The host's own certificate, and those between it and its authority, with its key; none for links that ask for none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why a link cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or holds nothing of its kind.
    #[error("{file}: {reason}", file = file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What the link's certificate should name is no name.
    #[error("`{0}` is neither a DNS name nor an address")]
    Name(String),
    /// Certificate and key do not fit together.
    #[error("the certificate cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    /// The authorities cannot vouch for anybody.
    #[error("the authorities of hosts cannot be used: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

/// A link's TLS, as sockets that come now are met with.
pub(crate) struct Tls {
    acceptor: RwLock<TlsAcceptor>,
}

impl Tls {
    pub(crate) fn open(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self { acceptor: RwLock::new(config.acceptor()?) })
    }

    /// Takes other files, for the sockets that come from now on.
    pub(crate) fn replace(&self, acceptor: TlsAcceptor) {
        *self.acceptor.write() = acceptor;
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = self.acceptor.read().clone();
        acceptor.accept(stream).await
    }
}

impl TlsConfig {
    /// Reads the files.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&[&version::TLS13])?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots(file)?.into(), provider);
                if let Some(file) = &self.client_revoked {
                    verifier = verifier.with_crls(revocations(file)?);
                }
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| failure(&self.key, &error))?;
        let mut config = builder.with_single_cert(certificates(&self.certificate)?, key)?;
        // Nobody comes back on what an earlier configuration has let in.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config).into())
    }
}

impl HostTlsConfig {
    /// Reads the files.
    pub(crate) fn connector(&self) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
        let name = ServerName::try_from(self.name.clone()).map_err(|_| TlsError::Name(self.name.clone()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder =
            builder.with_protocol_versions(&[&version::TLS13])?.with_root_certificates(roots(&self.ca)?);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| failure(key, &error))?;
                builder.with_client_auth_cert(certificates(certificate)?, key)?
            }
        };
        Ok((Arc::new(config).into(), name))
    }
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all_in(file, "no certificate in it")
}

fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    all_in(file, "no revocation list (CRL) in it; one that names nothing will do")
}

/// All of a kind that a file holds: at least one.
fn all_in<T: PemObject>(file: &Path, none: &str) -> Result<Vec<T>, TlsError> {
    let all: Result<Vec<T>, _> = T::pem_file_iter(file).map_err(|error| failure(file, &error))?.collect();
    let all = all.map_err(|error| failure(file, &error))?;
    if all.is_empty() {
        return Err(TlsError::File { file: file.to_owned(), reason: none.into() });
    }
    Ok(all)
}

fn failure(file: &Path, error: &rustls_pki_types::pem::Error) -> TlsError {
    TlsError::File { file: file.to_owned(), reason: error.to_string() }
}
