//! The one-time link: somebody with an identity signs, on a machine of their own, that they want to sign in at one engine, now.
//!
//! What is signed names the engine, so that a link is of no use anywhere else, and a number drawn at random, which the engine takes once. It stands
//! in the fragment of an address, which a browser keeps to itself: no log on the way sees it. The page posts it.
//!
//! As text: `v1.<base64url of the JSON object>`, with the certificates in DER.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use surety_client::{Identity, IdentityFault};
use surety_protocol::{EngineId, Time};

/// How old a link may be.
pub const LINK_LIFE: Time = Time::from_secs(60);
/// How far ahead of this clock the signer's may be.
pub const CLOCK_AHEAD_MAX: Time = Time::from_secs(5);
/// The longest text that is read at all.
pub const LINK_BYTES_MAX: usize = 12 * 1024;
/// Certificates of a chain: its own and three authorities between it and the root.
const CHAIN_MAX: usize = 4;
/// What every signed message begins with: no handshake begins so.
const PURPOSE: &[u8] = b"surety console sign-in v1\n";
const VERSION: &str = "v1.";

/// Somebody's wish to sign in.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// The own certificate first.
    chain: Vec<CertificateDer<'static>>,
    engine: EngineId,
    time: Time,
    nonce: u128,
    scheme: u16,
    signature: Vec<u8>,
}

/// Why a link opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not the text of a link.
    #[error(
        "this is no sign-in link, or a part of it is missing; copy all of what `surety ctl console-link` prints"
    )]
    Unreadable,
    /// Made for another engine.
    #[error("the link was made for another engine")]
    OtherEngine,
    /// Too old.
    #[error("the link is older than a minute; make another with `surety ctl console-link`")]
    Old,
    /// From the future.
    #[error("the link's time lies ahead: the clock of the machine that made it is fast")]
    Ahead,
    /// Older than the console, or than what it remembers.
    #[error(
        "the link is older than the console's memory of used links; make another with `surety ctl console-link`"
    )]
    Past,
    /// Signed by another key, or changed since.
    #[error("the link was not signed by its certificate's key")]
    Signature,
}

/// The form of the text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    chain: Vec<String>,
    engine: String,
    time: u64,
    nonce: String,
    scheme: u16,
    signature: String,
}

impl fmt::Debug for Link {
    /// Never the signature: whoever has it may sign in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("engine", &self.engine).field("time", &self.time).finish_non_exhaustive()
    }
}

impl Link {
    /// Signs one.
    ///
    /// # Errors
    /// If the identity's key cannot sign.
    pub fn sign(
        identity: &Identity,
        engine: EngineId,
        time: Time,
        nonce: u128,
    ) -> Result<Self, IdentityFault> {
        let chain: Vec<_> = identity.chain().map(|der| CertificateDer::from(der.to_vec())).collect();
        let signed = identity.sign(&message(&chain, engine, time, nonce))?;
        Ok(Self { chain, engine, time, nonce, scheme: signed.scheme, signature: signed.bytes })
    }

    /// The text for the fragment of an address.
    #[must_use]
    pub fn to_text(&self) -> String {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let wire = Wire {
            chain: self.chain.iter().map(|certificate| text(certificate)).collect(),
            engine: format!("{:032x}", self.engine.0),
            time: self.time.0,
            nonce: format!("{:032x}", self.nonce),
            scheme: self.scheme,
            signature: text(&self.signature),
        };
        // Strings and numbers always have a text.
        let json = serde_json::to_vec(&wire).unwrap_or_default();
        format!("{VERSION}{}", text(&json))
    }

    /// Reads the text of a link for an engine, and sees to it that it is of now: all that costs nothing. Whether its own key has signed it says
    /// [`Link::check_signature`]; whether anybody vouches for its certificate, and whether it was used before, is for others to say.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn read(text: &str, engine: EngineId, now: Time) -> Result<Self, LinkError> {
        let link = Self::parse(text).ok_or(LinkError::Unreadable)?;
        if link.engine != engine {
            return Err(LinkError::OtherEngine);
        }
        if link.time > now.plus(CLOCK_AHEAD_MAX) {
            return Err(LinkError::Ahead);
        }
        if now > link.time.plus(LINK_LIFE) {
            return Err(LinkError::Old);
        }
        Ok(link)
    }

    /// Sees to it that the key of the own certificate has signed what the link says.
    ///
    /// # Errors
    /// [`LinkError::Signature`].
    pub fn check_signature(&self) -> Result<(), LinkError> {
        if self.is_signed() { Ok(()) } else { Err(LinkError::Signature) }
    }

    /// When it was made, by the clock of who made it.
    #[must_use]
    pub const fn time(&self) -> Time {
        self.time
    }

    /// The certificates, the own one first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The number that makes it one of its kind.
    #[must_use]
    pub const fn nonce(&self) -> u128 {
        self.nonce
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > LINK_BYTES_MAX {
            return None;
        }
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let wire: Wire = serde_json::from_slice(&bytes(text.strip_prefix(VERSION)?)?).ok()?;
        let chain: Vec<_> =
            wire.chain.iter().map(|der| bytes(der).map(CertificateDer::from)).collect::<Option<_>>()?;
        let number = |text: &str| {
            let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u128::from_str_radix(text, 16).ok().filter(|_| is_hex)
        };
        let link = Self {
            chain,
            engine: EngineId(number(&wire.engine)?),
            time: Time(wire.time),
            nonce: number(&wire.nonce)?,
            scheme: wire.scheme,
            signature: bytes(&wire.signature)?,
        };
        (1..=CHAIN_MAX).contains(&link.chain.len()).then_some(link)
    }

    /// True if the key of the own certificate has signed what the link says.
    fn is_signed(&self) -> bool {
        let Some(own) = self.chain.first() else { return false };
        let Ok(own) = webpki::EndEntityCert::try_from(own) else { return false };
        let message = message(&self.chain, self.engine, self.time, self.nonce);
        let provider = rustls::crypto::ring::default_provider();
        let wanted = SignatureScheme::from(self.scheme);
        let mut known = provider.signature_verification_algorithms.mapping.iter();
        known.find(|(scheme, _)| *scheme == wanted && wanted != SignatureScheme::RSA_PKCS1_SHA1).is_some_and(
            |(_, algorithms)| {
                algorithms
                    .iter()
                    .any(|algorithm| own.verify_signature(*algorithm, &message, &self.signature).is_ok())
            },
        )
    }
}

/// What is signed.
fn message(chain: &[CertificateDer<'_>], engine: EngineId, time: Time, nonce: u128) -> Vec<u8> {
    let own = chain.first().map_or([0; 32], |own| *blake3::hash(own).as_bytes());
    let parts: [&[u8]; 5] =
        [PURPOSE, &engine.0.to_le_bytes(), &time.0.to_le_bytes(), &nonce.to_le_bytes(), &own];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use server::pki::DevelopmentPki;
    use surety_protocol::{Roles, TenantId};

    use super::*;

    const ENGINE: EngineId = EngineId(0x1234);
    const NOW: Time = Time::from_secs(1_000_000);

    fn identity(pki: &DevelopmentPki) -> Identity {
        Identity::from_pem(pki.client(TenantId(7), Roles::READER, "x").unwrap().as_bytes()).unwrap()
    }

    #[test]
    fn a_link_is_good_for_its_engine_for_a_minute() {
        let identity = identity(&DevelopmentPki::generate().unwrap());
        let link = Link::sign(&identity, ENGINE, NOW, 42).unwrap();
        let text = link.to_text();
        assert!(text.len() < 4096, "{} bytes are too long for an address", text.len());
        let check = |engine, now: Time, expect: Result<u128, LinkError>| {
            assert_eq!(Link::read(&text, engine, now).map(|link| link.nonce()), expect);
        };
        check(ENGINE, NOW, Ok(42));
        check(ENGINE, NOW.plus(LINK_LIFE), Ok(42));
        check(ENGINE, NOW.plus(LINK_LIFE).plus(Time(1)), Err(LinkError::Old));
        check(ENGINE, NOW.minus(CLOCK_AHEAD_MAX), Ok(42));
        check(ENGINE, NOW.minus(CLOCK_AHEAD_MAX).minus(Time(1)), Err(LinkError::Ahead));
        check(EngineId(1), NOW, Err(LinkError::OtherEngine));
    }

    #[test]
    fn nothing_of_a_link_can_be_changed() {
        let pki = DevelopmentPki::generate().unwrap();
        let (one, other) = (identity(&pki), identity(&pki));
        let link = Link::sign(&one, ENGINE, NOW, 42).unwrap();
        let read = |link: &Link| {
            let link = Link::read(&link.to_text(), ENGINE, NOW)?;
            link.check_signature().map(|()| link.nonce())
        };
        assert_eq!(read(&link), Ok(42));
        let refused = |changed: &Link| assert_eq!(read(changed), Err(LinkError::Signature));
        refused(&Link { nonce: 43, ..link.clone() });
        refused(&Link { time: NOW.plus(Time(1)), ..link.clone() });
        refused(&Link { scheme: 0x0201, ..link.clone() });
        refused(&Link { scheme: 0, ..link.clone() });
        refused(&Link { signature: Vec::new(), ..link.clone() });
        let chain = Link::sign(&other, ENGINE, NOW, 42).unwrap().chain;
        refused(&Link { chain, ..link.clone() });
        let elsewhere = Link::sign(&one, EngineId(9), NOW, 42).unwrap();
        refused(&Link { engine: ENGINE, ..elsewhere });
    }

    #[test]
    fn whatever_else_is_given_is_no_link() {
        let link = Link::sign(&identity(&DevelopmentPki::generate().unwrap()), ENGINE, NOW, 42).unwrap();
        let text = link.to_text();
        let long = "v1.".to_owned() + &"A".repeat(LINK_BYTES_MAX);
        let none = Link { chain: Vec::new(), ..link.clone() }.to_text();
        let many = Link { chain: vec![link.chain[0].clone(); CHAIN_MAX + 1], ..link }.to_text();
        for wrong in ["", "v1.", "v2.AAAA", &text[3..], &text[..text.len() - 8], &long, &none, &many] {
            assert_eq!(Link::read(wrong, ENGINE, NOW), Err(LinkError::Unreadable), "{wrong}");
        }
    }
}
