//! TLS of the front door, and which tenant a client's certificate names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use surety_client::protocol::TenantId;

use crate::config::TlsFiles;

/// Why connections cannot be protected.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file holds no certificate, no key, or cannot be read.
    #[error("{file}: {error}", file = file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: rustls_pki_types::pem::Error,
    },
    /// TLS takes neither.
    #[error("the certificates are not accepted: {0}")]
    Refused(String),
}

/// Reads the files.
pub(crate) fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let refused = |error: &dyn std::error::Error| TlsError::Refused(error.to_string());
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::File { file: files.key.clone(), error })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| refused(&error))?;
    let builder = match &files.client_authority {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(file)? {
                roots.add(authority).map_err(|error| refused(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if files.needs_client_certificate { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| refused(&error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| refused(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let none = Err(rustls_pki_types::pem::Error::NoItemsFound);
    read.and_then(|all: Vec<_>| if all.is_empty() { none } else { Ok(all) })
        .map_err(|error| TlsError::File { file: file.to_owned(), error })
}

/// The tenant in the URI name `surety://tenant/<id>/<roles>`, as an engine reads it.
pub(crate) fn tenant_of(certificate: &CertificateDer<'_>) -> Option<TenantId> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    certificate
        .valid_uri_names()
        .filter_map(|uri| uri.strip_prefix("surety://tenant/"))
        .find_map(|rest| rest.split('/').next()?.parse().ok())
        .map(TenantId)
}
