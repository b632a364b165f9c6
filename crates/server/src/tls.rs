//! QUIC and TLS: one transport configuration, TLS 1.3 with client certificates, and nothing that outlives a connection.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
// quinn passes on the trait of connection ids alone, not this generator of them.
use quinn_proto::HashedConnectionIdGenerator;
use quinn_proto::crypto::{CryptoError, HmacKey};
use rustls::RootCertStore;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use surety_protocol::{ALPN, sabotage};
use x509_parser::oid_registry::OID_PKCS1_SHA1WITHRSA;
use x509_parser::{parse_x509_certificate, parse_x509_crl};

use crate::config::Limits;
use crate::pki::{CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY};

/// Bytes that one stream may send ahead; a full frame fits.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes that all streams of a connection may send ahead.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes that a connection may have unacknowledged towards its peer; past it the backlog grows, and is limited itself.
pub(crate) const SEND_WINDOW_BYTES: u64 = 2 * 1024 * 1024;
/// First packets that may wait to be looked at; past it they are dropped without a word.
const INCOMING_MAX: usize = 1024;
/// A connection that is silent for so long is gone.
pub(crate) const IDLE: Duration = Duration::from_secs(10);
/// Certificates that are no longer accepted, as one or more lists signed by the authority; may be absent.
pub(crate) const REVOKED: &str = "revoked.pem";
/// What the key of connection ids is derived for.
const CONNECTION_IDS_CONTEXT: &str = "surety 2026 QUIC connection ids";

/// The transport limits of every connection, also those of the benchmarks.
#[must_use]
pub fn transport_config() -> TransportConfig {
    transport_with_streams(Limits::default().streams)
}

fn transport_with_streams(streams: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok());
    transport
}

/// Why the server's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or is not PEM.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is not there.
    #[error(
        "{}: there is no such file: put the certificates back; if none is left there, `surety cert ca --out {}` makes new ones, and \
         every client needs a new identity then", path.display(), path.parent().unwrap_or(path).display()
    )]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// The files do not make a TLS configuration.
    #[error("the certificates in {} do not fit together: {source}", directory.display())]
    Tls {
        /// Where they are.
        directory: PathBuf,
        /// What the TLS library says.
        source: rustls::Error,
    },
    /// The authority cannot verify anybody.
    #[error("the authority in {} cannot be used: {source}", directory.display())]
    Verifier {
        /// Where it is.
        directory: PathBuf,
        /// What the TLS library says.
        source: rustls::server::VerifierBuilderError,
    },
    /// The configuration would accept what must not be accepted.
    #[error("early data must be off and sessions must not be resumed")]
    EarlyData,
    /// The TLS library has no cipher for QUIC's first packets.
    #[error("no cipher suite for QUIC's initial packets")]
    InitialCipher,
}

/// Builds the server's side from a directory of certificates.
///
/// # Errors
/// [`TlsError`] if a file is missing or does not fit.
pub fn server_config(directory: &Path, limits: &Limits) -> Result<ServerConfig, TlsError> {
    server_config_by(directory, client_verifier(directory)?, limits)
}

/// The same, by a verifier that was made already: long lists of revocations are read once.
pub(crate) fn server_config_by(
    directory: &Path,
    verifier: Arc<dyn ClientCertVerifier>,
    limits: &Limits,
) -> Result<ServerConfig, TlsError> {
    let tls = rustls_config(directory, verifier)?;
    if (tls.max_early_data_size != 0 || tls.send_tls13_tickets != 0) && !sabotage!("early-data-on") {
        return Err(TlsError::EarlyData);
    }
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| TlsError::InitialCipher)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport_with_streams(limits.streams)));
    config.migration(false);
    config.max_incoming(INCOMING_MAX);
    config.incoming_buffer_size(16 * 1024);
    config.incoming_buffer_size_total(4 * 1024 * 1024);
    Ok(config)
}

/// The endpoint's side: stateless resets that peers of an earlier run believe.
#[must_use]
pub(crate) fn endpoint_config(reset_key: [u8; 32]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset_key)));
    config.cid_generator(move || Box::new(connection_ids(&reset_key)));
    config
}

/// Connection ids that a later run knows as ours. An id of a stranger is dropped without a word: with a key drawn at each
/// start no peer of an earlier run would ever get its reset, and all of them would wait until they are idle for too long.
fn connection_ids(reset_key: &[u8; 32]) -> HashedConnectionIdGenerator {
    let mut hash = blake3::Hasher::new_derive_key(CONNECTION_IDS_CONTEXT);
    hash.update(reset_key);
    let mut key = [0; 8];
    hash.finalize_xof().fill(&mut key);
    HashedConnectionIdGenerator::from_key(u64::from_le_bytes(key))
}

/// Who may connect, by the authority and the revocations of a directory.
pub(crate) fn client_verifier(directory: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    client_verifier_and_revoked(directory).map(|(verifier, _)| verifier)
}

/// The same with how many certificates are revoked.
pub(crate) fn client_verifier_and_revoked(
    directory: &Path,
) -> Result<(Arc<dyn ClientCertVerifier>, usize), TlsError> {
    let tls_error = |source| TlsError::Tls { directory: directory.to_owned(), source };
    let authorities = certificates(&directory.join(CA_CERTIFICATE))?;
    let revocations = revocations(&directory.join(REVOKED), &authorities)?;
    let revoked = revocations.iter().map(serials).sum();
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate).map_err(tls_error)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if sabotage!("certificate-not-required") {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder
        .with_crls(revocations)
        .allow_unknown_revocation_status()
        .build()
        .map_err(|source| TlsError::Verifier { directory: directory.to_owned(), source })?;
    Ok((verifier, revoked))
}

/// How many certificates a list names.
fn serials(list: &CertificateRevocationListDer<'_>) -> usize {
    parse_x509_crl(list).map_or(0, |(_, list)| list.iter_revoked_certificates().count())
}

fn rustls_config(
    directory: &Path,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<rustls::ServerConfig, TlsError> {
    let tls_error = |source| TlsError::Tls { directory: directory.to_owned(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&directory.join(SERVER_CERTIFICATE))?;
    let key_path = directory.join(SERVER_KEY);
    let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?)
        .map_err(|error| TlsError::File { path: key_path, reason: error.to_string() })?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(tls_error)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    if sabotage!("early-data-on") {
        tls.max_early_data_size = u32::MAX;
        return Ok(tls);
    }
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(tls)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => TlsError::Missing { path: path.to_owned() },
        _ => TlsError::File { path: path.to_owned(), reason: error.to_string() },
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let file_error = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let certificates = certificates.map_err(|error| file_error(error.to_string()))?;
    if certificates.is_empty() {
        return Err(file_error("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

fn revocations(
    path: &Path,
    authorities: &[CertificateDer<'static>],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = match fs::read(path) {
        // Absent, and not merely unreadable: that would let everybody in who was revoked.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TlsError::File { path: path.to_owned(), reason: error.to_string() }),
        Ok(_) if sabotage!("revocations-not-read") => return Ok(Vec::new()),
        Ok(bytes) => bytes,
    };
    let file_error = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| file_error(error.to_string()))?;
    // Whoever put the certificate itself there, or anything else, believes it to be revoked.
    if lists.is_empty() {
        return Err(file_error(
            "holds no revocation list (CRL) in PEM; remove it if nothing is revoked".to_owned(),
        ));
    }
    judge_lists(&lists, authorities).map_err(|reason| file_error(reason.to_owned()))?;
    Ok(lists)
}

/// TLS takes the first list whose issuer has the name of an authority, and fails every handshake if that authority has not signed
/// it. So a list that does not fit is found here, where the lists before it can stay.
fn judge_lists(
    lists: &[CertificateRevocationListDer<'_>],
    authorities: &[CertificateDer<'_>],
) -> Result<(), &'static str> {
    let mut issuers: Vec<Vec<u8>> = Vec::new();
    for list in lists {
        let (_, list) = parse_x509_crl(list).map_err(|_| "holds a revocation list that cannot be read")?;
        let issuer = list.issuer().as_raw().to_vec();
        if issuers.contains(&issuer) {
            return Err("holds two revocation lists of one authority: keep the newest alone");
        }
        // TLS does not know it.
        if list.signature_algorithm.algorithm == OID_PKCS1_SHA1WITHRSA {
            return Err("holds a revocation list that is signed with SHA-1");
        }
        let named = authorities.iter().filter_map(|authority| parse_x509_certificate(authority).ok());
        let mut named = named.filter(|(_, authority)| authority.subject().as_raw() == issuer).peekable();
        if named.peek().is_none() {
            return Err("holds a revocation list of none of the authorities in ca.pem");
        }
        if named.any(|(_, authority)| list.verify_signature(authority.public_key()).is_err()) {
            return Err("holds a revocation list that an authority of its issuer's name has not signed");
        }
        issuers.push(issuer);
    }
    Ok(())
}

/// Signs stateless resets with a key that survives restarts.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        // `blake3::Hash` compares in constant time.
        match <[u8; blake3::OUT_LEN]>::try_from(signature) {
            Ok(bytes) if expected == blake3::Hash::from_bytes(bytes) => Ok(()),
            _ => Err(CryptoError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::DevelopmentPki;
    use quinn::ConnectionIdGenerator;

    #[test]
    fn development_certificates_make_a_configuration_without_early_data() {
        let directory = tempfile::tempdir().unwrap();
        DevelopmentPki::create(directory.path()).unwrap();
        let tls = rustls_config(directory.path(), client_verifier(directory.path()).unwrap()).unwrap();
        assert_eq!((tls.max_early_data_size, tls.send_tls13_tickets), (0, 0));
        assert_eq!(tls.alpn_protocols, [ALPN]);
        server_config(directory.path(), &Limits::default()).unwrap();
    }

    #[test]
    fn a_missing_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        DevelopmentPki::create(directory.path()).unwrap();
        for name in [CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY] {
            let path = directory.path().join(name);
            let content = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let error = server_config(directory.path(), &Limits::default()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            fs::write(&path, content).unwrap();
        }
    }

    #[test]
    fn connection_ids_of_an_earlier_run_are_known() {
        let mut earlier = connection_ids(&[7; 32]);
        for _ in 0..100 {
            let id = earlier.generate_cid();
            assert!(connection_ids(&[7; 32]).validate(&id).is_ok());
            assert!(connection_ids(&[8; 32]).validate(&id).is_err());
        }
    }

    #[test]
    fn a_reset_key_knows_its_own_signature() {
        let key = ResetKey([7; 32]);
        let mut signature = vec![0; key.signature_len()];
        key.sign(b"packet", &mut signature);
        assert!(key.verify(b"packet", &signature).is_ok());
        assert!(key.verify(b"other", &signature).is_err());
        assert!(ResetKey([8; 32]).verify(b"packet", &signature).is_err());
        assert!(key.verify(b"packet", &signature[1..]).is_err());
    }
}
