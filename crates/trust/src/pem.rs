//! What PEM files hold: at least one of what they should.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::terms::TlsError;

/// The certificates of a file.
///
/// # Errors
/// [`TlsError::File`] if it cannot be read, or has none in it.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all_in(file, "no certificate in it")
}

/// The private key of a file.
///
/// # Errors
/// [`TlsError::File`] if it cannot be read, or has none in it.
pub fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| failure(file, &error))
}

/// The certificates of a file, as authorities.
///
/// # Errors
/// [`TlsError`] if the file cannot be read, or one of them can be no authority.
pub fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

pub(crate) fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    all_in(file, "no revocation list (CRL) in it; one that names nothing will do")
}

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
