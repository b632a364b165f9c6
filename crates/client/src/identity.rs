//! Who a client is: a certificate, its key, and the authority that it trusts, read from PEM.

use std::fmt;
use std::path::Path;

use rustls::SignatureScheme;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use surety_protocol::TenantId;

/// A client's certificate chain and private key, and the certificates of the authorities that may have signed the
/// engine's.
///
/// One PEM file may hold all three, in this order: the client's certificate (and intermediates), its private key, the
/// authorities. That is the form of the files that `surety init` writes.
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    tenant: TenantId,
}

/// How an identity signs, the dearest first: the schemes of TLS 1.3.
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
];

/// A message's signature by an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySignature {
    /// By which scheme, as TLS 1.3 numbers them (RFC 8446, section 4.2.3).
    pub scheme: u16,
    /// The signature.
    pub bytes: Vec<u8>,
}

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read.
    #[error("cannot read the identity {path}: {error}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The content is not an identity.
    #[error("{source_name} is no identity: {fault}")]
    Content {
        /// Which file, or "the given PEM".
        source_name: String,
        /// What is wrong.
        fault: IdentityFault,
    },
}

/// What is wrong with an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityFault {
    /// Not PEM.
    #[error("it is not valid PEM")]
    NotPem,
    /// No certificate.
    #[error("it holds no certificate")]
    NoCertificate,
    /// No private key.
    #[error("it holds no private key")]
    NoKey,
    /// No authority behind the key.
    #[error("it names no authority: append the CA certificate behind the private key")]
    NoAuthority,
    /// The certificate names no tenant.
    #[error("its certificate carries no URI `surety://tenant/<id>/<roles>`")]
    NoTenant,
    /// TLS does not take the certificate, the key or the authorities.
    #[error("TLS does not accept its certificate, key or authorities")]
    NotForTls,
}

impl Identity {
    /// Reads one PEM file that holds certificate, key and authorities, in this order.
    ///
    /// # Errors
    /// If the file cannot be read or is not an identity.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let name = path.as_ref().display().to_string();
        let pem = std::fs::read(path).map_err(|error| IdentityError::Read { path: name.clone(), error })?;
        Self::parse(&pem).map_err(|fault| IdentityError::Content { source_name: name, fault })
    }

    /// Reads the same from memory.
    ///
    /// # Errors
    /// If the text is not an identity.
    pub fn from_pem(pem: &[u8]) -> Result<Self, IdentityError> {
        Self::parse(pem)
            .map_err(|fault| IdentityError::Content { source_name: "the given PEM".into(), fault })
    }

    /// Takes the three parts as PEM texts of their own.
    ///
    /// # Errors
    /// If they make no identity.
    pub fn from_parts(certificate: &[u8], key: &[u8], authorities: &[u8]) -> Result<Self, IdentityError> {
        Self::from_pem(&[certificate, b"\n", key, b"\n", authorities].concat())
    }

    /// The tenant that the certificate names.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The certificate and the intermediates behind it, in DER, the own one first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().map(|certificate| certificate.as_ref())
    }

    /// Signs a message with the identity's key, so that whoever knows its authority can tell who has said it. The message must begin with
    /// words of its own purpose: the same key signs TLS handshakes.
    ///
    /// # Errors
    /// [`IdentityFault::NotForTls`] if the key is of no kind that TLS signs with.
    pub fn sign(&self, message: &[u8]) -> Result<IdentitySignature, IdentityFault> {
        let key = rustls::crypto::ring::sign::any_supported_type(&self.key);
        let key = key.map_err(|_| IdentityFault::NotForTls)?;
        let signer = key.choose_scheme(SCHEMES).ok_or(IdentityFault::NotForTls)?;
        let bytes = signer.sign(message).map_err(|_| IdentityFault::NotForTls)?;
        Ok(IdentitySignature { scheme: signer.scheme().into(), bytes })
    }

    fn parse(pem: &[u8]) -> Result<Self, IdentityFault> {
        let mut chain = Vec::new();
        let mut key = None;
        let mut authorities = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| IdentityFault::NotPem)?;
            match kind {
                SectionKind::Certificate if key.is_none() => chain.push(CertificateDer::from(der)),
                SectionKind::Certificate => authorities.push(CertificateDer::from(der)),
                other => {
                    if let Some(found) = <PrivateKeyDer<'static> as PemObject>::from_pem(other, der) {
                        key = Some(found);
                    }
                }
            }
        }
        let leaf = chain.first().ok_or(IdentityFault::NoCertificate)?;
        let tenant = tenant_of(leaf)?;
        let key = key.ok_or(IdentityFault::NoKey)?;
        if authorities.is_empty() {
            return Err(IdentityFault::NoAuthority);
        }
        Ok(Self { chain, key, authorities, tenant })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            authorities: self.authorities.clone(),
            tenant: self.tenant,
        }
    }
}

impl fmt::Debug for Identity {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// Reads the tenant out of the URI name `surety://tenant/<id>/<roles>`.
fn tenant_of(leaf: &CertificateDer<'_>) -> Result<TenantId, IdentityFault> {
    let certificate = webpki::EndEntityCert::try_from(leaf).map_err(|_| IdentityFault::NotForTls)?;
    certificate
        .valid_uri_names()
        .filter_map(|uri| uri.strip_prefix("surety://tenant/"))
        .find_map(|rest| rest.split('/').next()?.parse().ok())
        .map(TenantId)
        .ok_or(IdentityFault::NoTenant)
}
