//! Signatures of deliveries: who knows a secret can tell that a body comes from here, and when it was sent.

use std::fmt;
use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A secret that an endpoint shares. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut secret = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in secret.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(secret))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The value of `Surety-Signature`: when it was sent, and for each secret the HMAC-SHA-256 of that moment, a dot and the body.
pub(crate) fn signature(secrets: &[Secret], sent_s: u64, body: &[u8]) -> String {
    let mut value = format!("t={sent_s}");
    for Secret(secret) in secrets {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(format!("{sent_s}.").as_bytes());
        mac.update(body);
        value.push_str(",v1=");
        for byte in mac.finalize().into_bytes() {
            let _ = write!(value, "{byte:02x}");
        }
    }
    value
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_makes_of_the_same() {
        // printf '1700000000.{}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0101...
        let secrets = ["01".repeat(32), "02".repeat(32)].map(|hex| Secret::from_hex(&hex).unwrap());
        let signed = signature(&secrets[..1], 1_700_000_000, b"{}");
        assert_eq!(
            signed,
            "t=1700000000,v1=a690115105a3eee9b47d6123cad394cb56f2fc0d77094ae48169ee63dfb120e2"
        );
        let both = signature(&secrets, 1_700_000_000, b"{}");
        assert!(both.starts_with(&signed) && both.len() == signed.len() + 4 + 64);
        assert_ne!(signature(&secrets[..1], 1_700_000_001, b"{}"), signed);
        assert_eq!(Secret::from_hex("01"), None);
        assert_eq!(Secret::from_hex(&"0x".repeat(32)), None);
    }
}
