//! TLS of the front door, and which tenant a client's certificate names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use surety_client::protocol::{Roles, TenantId};

use crate::config::TlsFiles;

/// Why connections cannot be protected.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file holds no certificate, key or list, or cannot be read.
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
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if let Some(file) = &files.client_revoked {
                verifier = verifier.with_crls(revocations(file)?);
            }
            let verifier =
                if files.needs_client_certificate { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| refused(&error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| refused(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Nobody comes back on a certificate that was looked at earlier: it may have ended, or been revoked.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all_in(file)
}

fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    all_in(file)
}

/// All of a kind that a file holds: at least one.
fn all_in<T: PemObject>(file: &Path) -> Result<Vec<T>, TlsError> {
    let read = T::pem_file_iter(file).and_then(Iterator::collect);
    let none = Err(rustls_pki_types::pem::Error::NoItemsFound);
    read.and_then(|all: Vec<_>| if all.is_empty() { none } else { Ok(all) })
        .map_err(|error| TlsError::File { file: file.to_owned(), error })
}

/// Whom a client's certificate speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    pub(crate) tenant: TenantId,
    pub(crate) roles: Roles,
}

const URI_PREFIX: &str = "surety://tenant/";

/// The roles by their names in a certificate, as an engine has them.
const ROLE_NAMES: [(&str, Roles); 4] = [
    ("authorizer", Roles::AUTHORIZER),
    ("settler", Roles::SETTLER),
    ("admin", Roles::ADMIN),
    ("reader", Roles::READER),
];

/// Reads the URI name `surety://tenant/<id>/<role>,<role>` as an engine does: there is exactly one, and all of it makes sense.
pub(crate) fn certified_by(certificate: &CertificateDer<'_>) -> Option<Certified> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut uris = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(URI_PREFIX));
    match (uris.next(), uris.next()) {
        (Some(uri), None) => read(uri),
        _ => None,
    }
}

fn read(uri: &str) -> Option<Certified> {
    let (tenant, names) = uri.split_once('/')?;
    // Only digits: `parse` alone would take a sign.
    let is_number = tenant.bytes().all(|byte| byte.is_ascii_digit());
    let tenant = tenant.parse().ok().filter(|_| is_number).map(TenantId)?;
    let roles = names.split(',').try_fold(Roles::default(), |roles, name| {
        ROLE_NAMES.iter().find(|(known, _)| *known == name).map(|(_, role)| roles | *role)
    })?;
    Some(Certified { tenant, roles })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};
    use server::identity::caller_of;

    /// Reads a certificate with these names here and at an engine: both find the same.
    fn check(uris: &[&str], expect: Option<(u32, Roles)>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let found = certified_by(&certificate).map(|found| (found.tenant.0, found.roles));
        assert_eq!(found, expect, "{uris:?}");
        let caller = caller_of(&certificate).ok().map(|caller| (caller.tenant.0, caller.roles));
        assert_eq!(caller, expect, "an engine, {uris:?}");
    }

    #[test]
    fn certificates_are_read_as_an_engine_reads_them() {
        check(&["surety://tenant/7/reader"], Some((7, Roles::READER)));
        check(&["surety://tenant/0/settler,admin"], Some((0, Roles::SETTLER | Roles::ADMIN)));
        check(&["https://shop.example/", "surety://tenant/7/authorizer"], Some((7, Roles::AUTHORIZER)));
        check(&["surety://tenant/7/reader", "surety://tenant/7/authorizer"], None);
        check(&["surety://tenant/7/reader", "surety://tenant/x/authorizer"], None);
        for bad in
            ["7", "7/", "7/root", "7/reader,", "7/reader/", "+7/reader", "/reader", "4294967296/reader"]
        {
            check(&[&format!("surety://tenant/{bad}")], None);
        }
        check(&[], None);
    }
}
