//! TLS of the front door, and which tenant a client's certificate names.

use rustls::pki_types::CertificateDer;
use surety_client::protocol::{Roles, TenantId};
use trust::Files;

use crate::config::TlsFiles;

impl TlsFiles {
    pub(crate) fn files(&self) -> Files {
        Files {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            authorities: self.client_authority.clone(),
            revoked: self.client_revoked.clone(),
            needs_certificate: self.needs_client_certificate,
            is_identity: true,
            protocols: &[b"h2", b"http/1.1"],
        }
    }
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
