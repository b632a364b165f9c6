//! Who a client certificate speaks for: its tenant, its roles, and a name for itself.

use rustls_pki_types::CertificateDer;
use surety_protocol::{ActorId, Caller, Roles, TenantId, Time};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

const URI_PREFIX: &str = "surety://tenant/";

/// The roles by their names in a certificate.
const ROLE_NAMES: [(&str, Roles); 4] = [
    ("authorizer", Roles::AUTHORIZER),
    ("settler", Roles::SETTLER),
    ("admin", Roles::ADMIN),
    ("reader", Roles::READER),
];

/// Why a certificate that the authority signed is none for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// No URI of ours in it, or more than one.
    #[error("the client certificate needs exactly one URI {URI_PREFIX}<id>/<role>[,<role>]")]
    Uri,
    /// The URI names no tenant.
    #[error("the tenant of the client certificate is not a number")]
    Tenant,
    /// The URI names no role, or one that does not exist.
    #[error("the client certificate names an unknown role")]
    Role,
}

/// What tells two people apart whose certificates the same authority has signed: renewing one changes neither, and having several, for a
/// laptop and a desk, makes nobody two people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Common names of the subject, in small letters, without spaces around them.
    names: Vec<String>,
    /// Hash of the public key.
    key: [u8; 32],
}

impl Person {
    /// Whom a certificate names.
    ///
    /// # Errors
    /// [`IdentityError::Unreadable`].
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| IdentityError::Unreadable)?;
        let names = parsed.subject().iter_common_name();
        let names = names.map(|name| name.as_str().map(|name| name.trim().to_lowercase()));
        let names = names.collect::<Result<_, _>>().map_err(|_| IdentityError::Unreadable)?;
        // The key itself: what stands around it may be written in more than one way.
        let key = *blake3::hash(&parsed.public_key().subject_public_key.data).as_bytes();
        Ok(Self { names, key })
    }

    /// True unless name and key both tell them apart. Who has no name is nobody's second.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let is_nameless = self.names.is_empty() || other.names.is_empty();
        is_nameless || self.key == other.key || self.names.iter().any(|name| other.names.contains(name))
    }

    /// The first name; empty if there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// Reads tenant and roles out of a client certificate.
///
/// # Errors
/// [`IdentityError`] if it does not say.
pub fn caller_of(certificate: &CertificateDer<'_>) -> Result<Caller, IdentityError> {
    let (rest, parsed) = parse_x509_certificate(certificate).map_err(|_| IdentityError::Unreadable)?;
    let names = parsed.subject_alternative_name().map_err(|_| IdentityError::Unreadable)?;
    let (true, Some(names)) = (rest.is_empty(), names) else { return Err(IdentityError::Uri) };
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(URI_PREFIX),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(IdentityError::Uri) };
    let (tenant, roles) = parse_tenant(uri)?;
    Ok(Caller { tenant, roles, actor: actor_of(certificate) })
}

/// The last moment of the wall clock at which every certificate of a chain is valid.
pub(crate) fn valid_until(chain: &[CertificateDer<'_>]) -> Result<Time, IdentityError> {
    chain.iter().try_fold(Time(u64::MAX), |until, certificate| {
        let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| IdentityError::Unreadable)?;
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(until.min(Time(seconds.saturating_mul(1_000_000_000))))
    })
}

/// The URI for a certificate.
#[must_use]
pub fn tenant_uri(tenant: TenantId, roles: Roles) -> String {
    format!("{URI_PREFIX}{tenant}/{}", role_names(roles).join(","))
}

/// The names of the roles that are there.
#[must_use]
pub fn role_names(roles: Roles) -> Vec<&'static str> {
    ROLE_NAMES.iter().filter(|(_, role)| roles.has(*role)).map(|(name, _)| *name).collect()
}

/// Reads a list of role names, separated by commas.
///
/// # Errors
/// [`IdentityError::Role`] if there is none, or one is unknown.
pub fn parse_roles(names: &str) -> Result<Roles, IdentityError> {
    names.split(',').try_fold(Roles::default(), |roles, name| {
        let role = ROLE_NAMES.iter().find(|(known, _)| *known == name).ok_or(IdentityError::Role)?;
        Ok(roles | role.1)
    })
}

/// The principal behind a certificate.
#[must_use]
pub fn actor_of(certificate: &CertificateDer<'_>) -> ActorId {
    let hash = blake3::hash(certificate);
    let [a, b, c, d, ..] = *hash.as_bytes();
    ActorId(u32::from_le_bytes([a, b, c, d]))
}

fn parse_tenant(uri: &str) -> Result<(TenantId, Roles), IdentityError> {
    let (tenant, roles) = uri.split_once('/').ok_or(IdentityError::Role)?;
    // Only digits: `parse` alone would take a sign.
    let is_number = tenant.bytes().all(|byte| byte.is_ascii_digit());
    let tenant = tenant.parse().ok().filter(|_| is_number).ok_or(IdentityError::Tenant)?;
    Ok((TenantId(tenant), parse_roles(roles)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::DevelopmentPki;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn what_the_authority_writes_is_what_the_server_reads() {
        let pki = DevelopmentPki::generate().unwrap();
        for (tenant, roles) in [(0, Roles::ADMIN), (7, Roles::AUTHORIZER | Roles::READER), (1, Roles::KNOWN)]
        {
            let pem = pki.client(TenantId(tenant), roles, "x").unwrap();
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let caller = caller_of(&certificate).unwrap();
            assert_eq!((caller.tenant, caller.roles), (TenantId(tenant), roles));
            assert_ne!(caller.actor, ActorId(0));
        }
        let server = pki.server(&[]).unwrap().0;
        let server = CertificateDer::from_pem_slice(server.as_bytes()).unwrap();
        assert_eq!(caller_of(&server), Err(IdentityError::Uri));
        assert_eq!(caller_of(&CertificateDer::from(vec![1, 2, 3])), Err(IdentityError::Unreadable));
    }

    #[test]
    fn people_differ_in_name_and_key_or_are_one() {
        let person = |names: &[&str], key: &rcgen::KeyPair| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for name in names {
                params.distinguished_name.push(rcgen::DnType::CommonName, *name);
            }
            Person::of(params.self_signed(key).unwrap().der()).unwrap()
        };
        let (one, two) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let alice = person(&["Alice"], &one);
        let check = |other: &Person, expect, why: &str| {
            assert_eq!((alice.may_be(other), other.may_be(&alice)), (expect, expect), "{why}");
        };
        check(&person(&["Alice"], &one), true, "renewed");
        check(&person(&["Alice"], &two), true, "a second certificate with a key of its own");
        check(&person(&[" alice "], &two), true, "written otherwise");
        check(&person(&["Bob"], &one), true, "the same key under another name");
        check(&person(&[], &two), true, "nobody in particular");
        check(&person(&["Bob"], &two), false, "somebody else");
        assert_eq!(alice.name(), "alice");
        assert_eq!(Person::of(&CertificateDer::from(vec![1, 2, 3])), Err(IdentityError::Unreadable));
    }

    #[test]
    fn uris_are_read_strictly() {
        let check = |uri, expect| assert_eq!(parse_tenant(uri), expect, "{uri}");
        check("7/authorizer", Ok((TenantId(7), Roles::AUTHORIZER)));
        check("0/settler,admin", Ok((TenantId(0), Roles::SETTLER | Roles::ADMIN)));
        check("7", Err(IdentityError::Role));
        check("7/", Err(IdentityError::Role));
        check("7/root", Err(IdentityError::Role));
        check("7/admin,", Err(IdentityError::Role));
        check("+7/admin", Err(IdentityError::Tenant));
        check("/admin", Err(IdentityError::Tenant));
        check("4294967296/admin", Err(IdentityError::Tenant));
    }
}
