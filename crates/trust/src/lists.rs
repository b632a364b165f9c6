//! Revocation lists, held against the authorities that have to have signed them.

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::oid_registry::{
    OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
};
use x509_parser::time::ASN1Time;
use x509_parser::{parse_x509_certificate, parse_x509_crl};

/// Why revocation lists are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// One is no such list.
    #[error("holds a revocation list that cannot be read")]
    Unreadable,
    /// Two are of one authority, so that the older one might count.
    #[error("holds two revocation lists of one authority: keep the newest alone")]
    Twice,
    /// One is signed in a way that TLS does not believe.
    #[error("holds a revocation list that is signed with SHA-1")]
    Sha1,
    /// One counts for some certificates of its authority alone: TLS would refuse all others.
    #[error("holds a revocation list with an issuing distribution point: give the authority's whole list")]
    Part,
    /// One is of an authority that clients' certificates cannot be of.
    #[error("holds a revocation list of none of the clients' authorities")]
    Stranger,
    /// One bears an authority's name, and not its signature.
    #[error("holds a revocation list that the authority of its issuer's name has not signed")]
    Forged,
    /// One should have been replaced by now.
    #[error("holds a revocation list whose time has passed: get the newest of its authority")]
    Ended,
}

/// Sees to it that every list is one of these authorities, signed by it, and of the present.
///
/// TLS itself would take the first list whose issuer has an authority's name, and refuse everybody of that authority if it has not signed it. So
/// what does not fit is found here, where the lists before it can stay.
///
/// # Errors
/// The first [`ListError`].
pub fn check_lists(
    lists: &[CertificateRevocationListDer<'_>],
    authorities: &[CertificateDer<'_>],
) -> Result<(), ListError> {
    let mut issuers: Vec<Vec<u8>> = Vec::new();
    for list in lists {
        let (_, list) = parse_x509_crl(list).map_err(|_| ListError::Unreadable)?;
        let issuer = list.issuer().as_raw();
        if issuers.iter().any(|other| other == issuer) {
            return Err(ListError::Twice);
        }
        if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&list.signature_algorithm.algorithm) {
            return Err(ListError::Sha1);
        }
        let mut extensions = list.extensions().iter();
        if extensions.any(|extension| extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT) {
            return Err(ListError::Part);
        }
        let read = authorities.iter().filter_map(|authority| parse_x509_certificate(authority).ok());
        let mut named = read.filter(|(_, authority)| authority.subject().as_raw() == issuer).peekable();
        if named.peek().is_none() {
            return Err(ListError::Stranger);
        }
        if named.any(|(_, authority)| list.verify_signature(authority.public_key()).is_err()) {
            return Err(ListError::Forged);
        }
        if list.next_update().is_some_and(|until| until < ASN1Time::now()) {
            return Err(ListError::Ended);
        }
        issuers.push(issuer.to_vec());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
        CrlDistributionPoint, CrlIssuingDistributionPoint, DnType, IsCa, KeyIdMethod, KeyPair, SerialNumber,
    };

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn list(
        of: &CertifiedIssuer<'static, KeyPair>,
        until: SystemTime,
    ) -> CertificateRevocationListDer<'static> {
        list_of_part(of, until, None)
    }

    fn list_of_part(
        of: &CertifiedIssuer<'static, KeyPair>,
        until: SystemTime,
        part: Option<&str>,
    ) -> CertificateRevocationListDer<'static> {
        let params = CertificateRevocationListParams {
            this_update: (until - 24 * HOUR).into(),
            next_update: until.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: part.map(|uri| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: vec![uri.into()] },
                scope: None,
            }),
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(of).unwrap().der().clone()
    }

    #[test]
    fn only_a_list_of_the_authority_itself_is_taken_while_it_counts() {
        let (ours, other, forger) = (authority("ours"), authority("other"), authority("ours"));
        let later = SystemTime::now() + HOUR;
        let known = [ours.der().clone(), other.der().clone()];
        let check = |lists: &[CertificateRevocationListDer<'_>]| check_lists(lists, &known);
        let good = list(&ours, later);
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[good.clone(), list(&other, later)]), Ok(()));
        assert_eq!(check(&[good.clone(), list(&forger, later)]), Err(ListError::Twice));
        assert_eq!(check(&[list(&forger, later)]), Err(ListError::Forged));
        assert_eq!(check(&[good.clone(), list(&authority("nobody"), later)]), Err(ListError::Stranger));
        assert_eq!(check(&[list(&ours, later - 2 * HOUR)]), Err(ListError::Ended));
        let part = list_of_part(&ours, later, Some("http://ours.example/part.crl"));
        assert_eq!(check(&[part]), Err(ListError::Part));
        let torn = CertificateRevocationListDer::from(good[..good.len() - 1].to_vec());
        assert_eq!(check(&[torn]), Err(ListError::Unreadable));
        let mut changed = good.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(check(&[changed.into()]), Err(ListError::Forged));
    }
}
