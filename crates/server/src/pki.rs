//! Development certificates: a certificate authority of one's own, and what it signs.
//!
//! A client's identity is one PEM file: its certificate, its private key, and last the authority's certificate, which is
//! what it trusts servers by. Tenant and roles stand in the certificate as the URI `surety://tenant/<id>/<role>,<role>`.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use surety_protocol::{Roles, TenantId};

use crate::identity::tenant_uri;

/// The authority's certificate.
pub const CA_CERTIFICATE: &str = "ca.pem";
/// The authority's private key.
pub const CA_KEY: &str = "ca.key";
/// The server's certificate.
pub const SERVER_CERTIFICATE: &str = "server.pem";
/// The server's private key.
pub const SERVER_KEY: &str = "server.key";

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
const LEAF_LIFE: Duration = Duration::from_secs(825 * 24 * 3600);

/// Identities that `init` makes: file, tenant, roles.
const FIRST_IDENTITIES: [(&str, TenantId, Roles); 4] = [
    ("admin", TenantId(0), Roles::ADMIN),
    ("settler", TenantId(0), Roles::SETTLER),
    ("reader", TenantId(0), Roles::READER),
    ("authorizer", TenantId(1), Roles::AUTHORIZER),
];

/// A certificate authority for development, with its key at hand.
pub struct DevelopmentPki {
    ca_pem: String,
    ca_key: String,
}

impl fmt::Debug for DevelopmentPki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevelopmentPki").field("ca_pem", &self.ca_pem).finish_non_exhaustive()
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// From then on.
    pub from: SystemTime,
    /// Until then.
    pub until: SystemTime,
}

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate could not be made, or one that was read makes no sense.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// What is to be revoked is none.
    #[error("what is to be revoked is no file of an identity: its certificate in PEM comes first")]
    Revoked,
}

impl DevelopmentPki {
    /// Makes an authority and its first certificates in `directory`: the server's, and the identities `admin`, `settler`
    /// and `reader` of the operator and `authorizer` of tenant 1.
    ///
    /// # Errors
    /// [`PkiError`] if a file cannot be written, or one of them exists: then none is written.
    pub fn create(directory: &Path) -> Result<Self, PkiError> {
        let pki = Self::generate()?;
        let (certificate, key) = pki.server(&[])?;
        let place = |name: &str| directory.join(name);
        let mut files = vec![
            (place(CA_CERTIFICATE), pki.ca_pem.clone(), 0o644),
            (place(CA_KEY), pki.ca_key.clone(), 0o600),
            (place(SERVER_CERTIFICATE), certificate, 0o644),
            (place(SERVER_KEY), key, 0o600),
        ];
        for (name, tenant, roles) in FIRST_IDENTITIES {
            files.push((place(name).with_extension("pem"), pki.client(tenant, roles, name)?, 0o600));
        }
        // A new certificate beside an old key, or the other way round, would shut everybody out.
        if let Some((path, ..)) = files.iter().find(|(path, ..)| path.symlink_metadata().is_ok()) {
            let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(PkiError::File { path: path.clone(), source });
        }
        for (path, text, mode) in &files {
            write_file(path, text, *mode)?;
        }
        Ok(pki)
    }

    /// Makes an authority without writing it anywhere.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if there is no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = named_params("Surety development CA", Validity::lasting(CA_LIFE))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self { ca_pem: certificate.pem(), ca_key: key.serialize_pem() })
    }

    /// Reads the authority of a directory.
    ///
    /// # Errors
    /// [`PkiError::File`] if certificate or key are not there.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|source| PkiError::File { path, source })
        };
        Ok(Self { ca_pem: read(CA_CERTIFICATE)?, ca_key: read(CA_KEY)? })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Signs a client's identity and returns its file: certificate, key, authority.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if the authority's own files make no sense.
    pub fn client(&self, tenant: TenantId, roles: Roles, name: &str) -> Result<String, PkiError> {
        self.client_valid(tenant, roles, name, Validity::lasting(LEAF_LIFE))
    }

    /// The same, valid when the caller says.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if the authority's own files make no sense.
    pub fn client_valid(
        &self,
        tenant: TenantId,
        roles: Roles,
        name: &str,
        validity: Validity,
    ) -> Result<String, PkiError> {
        let mut params = named_params(name, validity)?;
        let uri = Ia5String::try_from(tenant_uri(tenant, roles))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.sign(params)?;
        Ok(format!("{certificate}{key}{}", self.ca_pem))
    }

    /// Signs a server's certificate for the loopback and for `names` (host names or addresses); returns it and its key.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if a name is not one.
    pub fn server(&self, names: &[String]) -> Result<(String, String), PkiError> {
        let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        all.extend(names.iter().cloned());
        let mut params = named_params("surety", Validity::lasting(LEAF_LIFE))?;
        params.subject_alt_names = CertificateParams::new(all)?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// Signs a list of certificates that are no longer accepted: the content of a server's `revoked.pem`. A list takes the
    /// place of the one before, so it names all of them.
    ///
    /// # Errors
    /// [`PkiError::Revoked`] if one of the files holds no certificate.
    pub fn revocations(&self, identities: &[String]) -> Result<String, PkiError> {
        let now = SystemTime::now();
        let revoke = |identity: &String| {
            let serial_number = serial_of(identity).ok_or(PkiError::Revoked)?;
            let revocation_time = now.into();
            let reason_code = Some(RevocationReason::CessationOfOperation);
            Ok(RevokedCertParams { serial_number, revocation_time, reason_code, invalidity_date: None })
        };
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let params = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: (now + LEAF_LIFE).into(),
            crl_number: SerialNumber::from(seconds),
            issuing_distribution_point: None,
            revoked_certs: identities.iter().map(revoke).collect::<Result<_, PkiError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer()?)?.pem()?)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        Ok(Issuer::from_ca_cert_pem(&self.ca_pem, KeyPair::from_pem(&self.ca_key)?)?)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<(String, String), PkiError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let issuer = self.issuer()?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

impl Validity {
    /// From yesterday, so that clocks need not agree, for so long.
    #[must_use]
    pub fn lasting(life: Duration) -> Self {
        let now = SystemTime::now();
        Self { from: now - DAY, until: now + life }
    }
}

/// The serial number of an identity's own certificate, which is the first in its file.
fn serial_of(identity: &str) -> Option<SerialNumber> {
    let certificate = CertificateDer::from_pem_slice(identity.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    Some(SerialNumber::from_slice(parsed.raw_serial()))
}

/// Writes a file that only its owner may read, and refuses one that exists.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_secret(path: &Path, text: &str) -> Result<(), PkiError> {
    write_file(path, text, 0o600)
}

fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| PkiError::File { path: path.to_owned(), source })
}

fn named_params(name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = validity.from.into();
    params.not_after = validity.until.into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_not_shown() {
        let pki = DevelopmentPki::generate().unwrap();
        let shown = format!("{pki:?}");
        assert!(shown.contains("BEGIN CERTIFICATE") && !shown.contains("PRIVATE KEY"), "{shown}");
        let secret = pki.ca_key.lines().nth(1).unwrap();
        assert!(!shown.contains(secret));
    }

    #[test]
    fn an_authority_writes_its_files_once_and_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let made = DevelopmentPki::create(directory.path()).unwrap();
        let read = DevelopmentPki::open(directory.path()).unwrap();
        assert_eq!(made.ca_pem(), read.ca_pem());
        assert!(read.client(TenantId(7), Roles::AUTHORIZER, "router").is_ok());
        assert!(DevelopmentPki::create(directory.path()).is_err(), "files that exist are never replaced");
        let lost = directory.path().join(CA_CERTIFICATE);
        fs::remove_file(&lost).unwrap();
        let error = DevelopmentPki::create(directory.path()).unwrap_err();
        assert!(matches!(&error, PkiError::File { path, .. } if path.ends_with(CA_KEY)), "{error}");
        assert!(!lost.exists(), "nor is a new authority made beside an old key");
        fs::write(&lost, made.ca_pem()).unwrap();
        for name in [CA_KEY, SERVER_KEY, "admin.pem", "authorizer.pem"] {
            let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
