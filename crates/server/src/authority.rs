//! Whom the engine's authority vouches for, asked outside a handshake: front doors in the same process judge certificates by the very rules of
//! QUIC, revocations included.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use surety_protocol::{Caller, Time};

use crate::clock::readings;
use crate::data::pki_path;
use crate::identity::{IdentityError, caller_of, valid_until};
use crate::tls::{TlsError, client_verifier};

/// The authority of a data directory, as its files were when they were read last.
#[derive(Debug)]
pub struct Authority {
    pki: PathBuf,
    now: RwLock<Judge>,
}

#[derive(Clone, Debug)]
struct Judge {
    verifier: Arc<dyn ClientCertVerifier>,
    generation: u64,
}

/// Somebody whom the authority vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Tenant, roles and principal.
    pub caller: Caller,
    /// The last moment of the wall clock at which every certificate of the chain is valid.
    pub valid_until: Time,
    /// Which reading of the files said so.
    pub generation: u64,
}

/// Why nobody vouches for a certificate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotVouched {
    /// No certificate was shown.
    #[error("no certificate was shown")]
    Nothing,
    /// Not of this authority, expired, not valid yet, or revoked.
    #[error("the certificate is not accepted: {0}")]
    Refused(rustls::Error),
    /// It does not say who it speaks for.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Authority {
    /// Reads authority and revocations of a data directory.
    ///
    /// # Errors
    /// [`TlsError`] if a file is missing or cannot be used.
    pub fn open(data: &Path) -> Result<Self, TlsError> {
        let pki = pki_path(data);
        let verifier = client_verifier(&pki)?;
        Ok(Self { pki, now: RwLock::new(Judge { verifier, generation: 0 }) })
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Authority::open`]; then everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let verifier = client_verifier(&self.pki)?;
        let mut now = self.now.write();
        *now = Judge { verifier, generation: now.generation + 1 };
        Ok(())
    }

    /// Judges a chain, the client's own certificate first, as a handshake would now.
    ///
    /// # Errors
    /// [`NotVouched`].
    pub fn vouch(&self, chain: &[CertificateDer<'_>]) -> Result<Vouched, NotVouched> {
        let (own, between) = chain.split_first().ok_or(NotVouched::Nothing)?;
        let Judge { verifier, generation } = self.now.read().clone();
        let now = UnixTime::since_unix_epoch(Duration::from_nanos(readings().wall.0));
        verifier.verify_client_cert(own, between, now).map_err(NotVouched::Refused)?;
        Ok(Vouched { caller: caller_of(own)?, valid_until: valid_until(chain)?, generation })
    }

    /// True if somebody who was vouched for once would be so now: cheap as long as no file was read again.
    #[must_use]
    pub fn still_vouches(&self, vouched: &mut Vouched, chain: &[CertificateDer<'_>]) -> bool {
        // In whole seconds, as handshakes count.
        if readings().wall.0 / 1_000_000_000 > vouched.valid_until.0 / 1_000_000_000 {
            return false;
        }
        if self.now.read().generation == vouched.generation {
            return true;
        }
        match self.vouch(chain) {
            Ok(again) => {
                *vouched = again;
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use rustls_pki_types::pem::PemObject;
    use surety_protocol::{Roles, TenantId};

    use super::*;
    use crate::pki::{DevelopmentPki, Validity};

    fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()]
    }

    #[test]
    fn it_vouches_for_whom_a_handshake_would_let_in_until_they_are_revoked() {
        let data = tempfile::tempdir().unwrap();
        let pki_directory = pki_path(data.path());
        fs::create_dir(&pki_directory).unwrap();
        let pki = DevelopmentPki::create(&pki_directory).unwrap();
        let authority = Authority::open(data.path()).unwrap();

        let identity = pki.client(TenantId(7), Roles::READER, "x").unwrap();
        let own = chain(&identity);
        let mut vouched = authority.vouch(&own).unwrap();
        assert_eq!((vouched.caller.tenant, vouched.caller.roles), (TenantId(7), Roles::READER));
        assert!(authority.still_vouches(&mut vouched, &own));

        assert_eq!(authority.vouch(&[]), Err(NotVouched::Nothing));
        let stranger = DevelopmentPki::generate().unwrap().client(TenantId(7), Roles::READER, "x").unwrap();
        assert!(matches!(authority.vouch(&chain(&stranger)), Err(NotVouched::Refused(_))));
        let day = Duration::from_secs(24 * 3600);
        let past = Validity { from: SystemTime::now() - 2 * day, until: SystemTime::now() - day };
        let expired = pki.client_valid(TenantId(7), Roles::READER, "x", past).unwrap();
        assert!(matches!(authority.vouch(&chain(&expired)), Err(NotVouched::Refused(_))));
        let server = chain(&fs::read_to_string(pki_directory.join("server.pem")).unwrap());
        assert!(authority.vouch(&server).is_err(), "a server is no client");

        let list = pki_directory.join("revoked.pem");
        fs::write(&list, "no list").unwrap();
        assert!(authority.reload().is_err());
        assert!(authority.still_vouches(&mut vouched, &own), "what cannot be read changes nothing");
        fs::write(&list, pki.revocations(&[identity]).unwrap()).unwrap();
        assert!(authority.still_vouches(&mut vouched, &own), "nobody has read it yet");
        authority.reload().unwrap();
        assert!(!authority.still_vouches(&mut vouched, &own));
        assert!(authority.vouch(&own).is_err());
    }

    #[test]
    fn nobody_is_vouched_for_past_the_end_of_the_certificate() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(pki_path(data.path())).unwrap();
        let pki = DevelopmentPki::create(&pki_path(data.path())).unwrap();
        let authority = Authority::open(data.path()).unwrap();
        let own = chain(&pki.client(TenantId(7), Roles::READER, "x").unwrap());
        let mut vouched = authority.vouch(&own).unwrap();
        vouched.valid_until = Time(readings().wall.0 - 2_000_000_000);
        assert!(!authority.still_vouches(&mut vouched, &own));
    }
}
