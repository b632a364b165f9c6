//! The console's address, as browsers know it: what is ours, and what its cookie is called.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::Uri;
use parking_lot::RwLock;
use rustls_pki_types::{CertificateDer, ServerName};
use trust::{Files, Terms, Tls, TlsError};

/// The files of a console that speaks TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate, and those between it and its authority. It is reached by the names in it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The engine's authority: browsers are asked for a certificate of it, and need not show one.
    pub authorities: PathBuf,
}

/// Where the console is.
#[derive(Debug)]
pub(crate) struct Site {
    port: u16,
    secured: Option<Secured>,
}

#[derive(Debug)]
struct Secured {
    files: Files,
    tls: Arc<Tls>,
    certificate: RwLock<CertificateDer<'static>>,
}

impl TlsFiles {
    /// That they can be used, as far as reading them shows.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn check(&self) -> Result<(), TlsError> {
        read(&self.files()).map(drop)
    }

    fn files(&self) -> Files {
        Files {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            authorities: Some(self.authorities.clone()),
            // Who was revoked is found where somebody signs in, and at every request after it, by the engine's own rules.
            revoked: None,
            needs_certificate: false,
            is_identity: true,
            protocols: &[b"http/1.1"],
        }
    }
}

impl Site {
    /// Plain HTTP, on the loopback.
    pub(crate) const fn plain(port: u16) -> Self {
        Self { port, secured: None }
    }

    /// # Errors
    /// [`TlsError`].
    pub(crate) fn secured(port: u16, files: &TlsFiles) -> Result<Self, TlsError> {
        let files = files.files();
        let (terms, certificate) = read(&files)?;
        let (tls, certificate) = (Arc::new(Tls::new(terms)), RwLock::new(certificate));
        Ok(Self { port, secured: Some(Secured { files, tls, certificate }) })
    }

    /// What shakes hands; none where plain HTTP is spoken.
    pub(crate) fn tls(&self) -> Option<Arc<Tls>> {
        self.secured.as_ref().map(|secured| Arc::clone(&secured.tls))
    }

    /// Reads the files again. If they cannot be used, everything stays as it was.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let Some(secured) = &self.secured else { return Ok(()) };
        let (terms, certificate) = read(&secured.files)?;
        secured.tls.replace(terms);
        *secured.certificate.write() = certificate;
        Ok(())
    }

    pub(crate) const fn scheme(&self) -> &'static str {
        if self.secured.is_some() { "https" } else { "http" }
    }

    /// True for a `Host` that is ours: with TLS whatever the certificate is for, else the loopback by number or as `localhost`, at our port.
    pub(crate) fn is_own_host(&self, host: &str) -> bool {
        let Some(authority) = host.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned()) else {
            return false;
        };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        match &self.secured {
            Some(secured) => is_for(&secured.certificate.read(), name),
            None => is_loopback(name) && authority.port_u16().unwrap_or(80) == self.port,
        }
    }

    /// Browsers keep one set of cookies for all ports of a host. With TLS they take the name's word that it is for this host alone, and encrypted.
    pub(crate) fn cookie_name(&self) -> String {
        let kept_apart = if self.secured.is_some() { "__Host-" } else { "" };
        format!("{kept_apart}surety-console-{}", self.port)
    }

    /// What stands behind a cookie's value.
    pub(crate) const fn cookie_terms(&self) -> &'static str {
        match self.secured {
            Some(_) => "Path=/; Secure; HttpOnly; SameSite=Strict",
            None => "Path=/console/; HttpOnly; SameSite=Strict",
        }
    }
}

/// What the files come to, and the own certificate among them.
fn read(files: &Files) -> Result<(Terms, CertificateDer<'static>), TlsError> {
    let (terms, mut chain) = Terms::read_with_chain(files)?;
    // A chain has at least one.
    Ok((terms, chain.swap_remove(0)))
}

/// True for a name that stands in the certificate. A name that only fits one with a wildcard may be anybody's in the same domain.
fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
    let Ok(valid) = ServerName::try_from(name) else { return false };
    let is_named = match &valid {
        ServerName::DnsName(_) => certificate.valid_dns_names().any(|named| named.eq_ignore_ascii_case(name)),
        _ => true,
    };
    is_named && certificate.verify_is_valid_for_subject_name(&valid).is_ok()
}

fn is_loopback(name: &str) -> bool {
    name.parse::<IpAddr>().map_or(name == "localhost", |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_only_the_loopback_at_the_own_port_is_ours() {
        let site = Site::plain(8080);
        for own in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "127.9.9.9:8080"] {
            assert!(site.is_own_host(own), "{own}");
        }
        for other in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "127.0.0.1.evil.example:8080",
            "10.0.0.1:8080",
            "",
            "a b",
            "localhost:8080/x",
        ] {
            assert!(!site.is_own_host(other), "{other}");
        }
        assert!(Site::plain(80).is_own_host("localhost"));
    }

    #[test]
    fn with_tls_whatever_the_certificate_is_for_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let own = rcgen::generate_simple_self_signed([
            "console.example".to_owned(),
            "*.wild.example".to_owned(),
            "10.0.0.1".to_owned(),
        ])
        .unwrap();
        std::fs::write(at("own.pem"), own.cert.pem()).unwrap();
        std::fs::write(at("own.key"), own.signing_key.serialize_pem()).unwrap();
        std::fs::write(at("ca.pem"), own.cert.pem()).unwrap();
        let files = TlsFiles { certificate: at("own.pem"), key: at("own.key"), authorities: at("ca.pem") };
        let site = Site::secured(8443, &files).unwrap();
        for own in ["console.example:8443", "console.example", "10.0.0.1:8443", "CONSOLE.example:1"] {
            assert!(site.is_own_host(own), "{own}");
        }
        for other in [
            "localhost:8443",
            "evil.example",
            "x.console.example",
            "any.wild.example",
            "10.0.0.2:8443",
            "",
            "a b",
            "console.example/x",
        ] {
            assert!(!site.is_own_host(other), "{other}");
        }
        assert_eq!(site.cookie_name(), "__Host-surety-console-8443");

        std::fs::write(at("own.pem"), "nothing").unwrap();
        assert!(site.reload().is_err() && files.check().is_err());
        assert!(site.is_own_host("console.example"), "as it was");
        let other = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
        std::fs::write(at("own.pem"), other.cert.pem()).unwrap();
        assert!(site.reload().is_err(), "a key of another certificate");
        assert!(site.is_own_host("console.example"), "as it was");
        std::fs::write(at("own.key"), other.signing_key.serialize_pem()).unwrap();
        site.reload().unwrap();
        assert!(site.is_own_host("other.example") && !site.is_own_host("console.example"));
    }
}
