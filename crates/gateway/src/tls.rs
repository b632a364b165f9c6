//! TLS on a link's sockets: version 1.3, with the hosts' certificates if the link asks for them. And the other end, for simulated hosts.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, version};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use trust::{Files, certificates, key, roots};

/// The files of a link's TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Our certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of the hosts' certificates; without them no host is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Lists of hosts' certificates that are refused before they end, signed by those authorities. Whose authority has no list in it is
    /// refused too; without them nothing is looked up.
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
    /// Its files cannot be used.
    #[error(transparent)]
    Files(#[from] trust::TlsError),
    /// What the link's certificate should name is no name.
    #[error("`{0}` is neither a DNS name nor an address")]
    Name(String),
}

impl TlsConfig {
    pub(crate) fn files(&self) -> Files {
        Files {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            authorities: self.client_ca.clone(),
            revoked: self.client_revoked.clone(),
            needs_certificate: true,
            // Whose a message is, its link says.
            is_identity: false,
            protocols: &[],
        }
    }
}

impl HostTlsConfig {
    /// Reads the files.
    pub(crate) fn connector(&self) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
        let name = ServerName::try_from(self.name.clone()).map_err(|_| TlsError::Name(self.name.clone()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&version::TLS13]).map_err(trust::TlsError::from)?;
        let builder = builder.with_root_certificates(roots(&self.ca)?);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, own_key)) => builder
                .with_client_auth_cert(certificates(certificate)?, key(own_key)?)
                .map_err(trust::TlsError::from)?,
        };
        Ok((Arc::new(config).into(), name))
    }
}
