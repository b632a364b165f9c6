//! Message authentication codes: the last field of a message, 64 or 128, proves who wrote all that stands before it.

use std::path::PathBuf;
use std::sync::Arc;

use aes::{Aes128, Aes256};
use cmac::Cmac;
use des::Des;
use hmac::{Hmac, KeyInit, Mac};
use iso8583::{Codec, Draft, EncodeError, Message};
use parking_lot::RwLock;
use retail_mac::RetailMac;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a code: what is longer is cut.
pub(crate) const MAC_BYTES: usize = 8;
/// The longest key that HMAC takes as it is.
const KEY_BYTES_MAX: usize = 64;

/// How a link's messages are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacConfig {
    /// By what.
    pub algorithm: MacAlgorithm,
    /// With which keys.
    pub source: MacSource,
}

/// How a code is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacAlgorithm {
    /// The retail MAC: ISO/IEC 9797-1, algorithm 3 with DES and padding method 1 (ANSI X9.19). Keys of 16 bytes.
    Retail,
    /// HMAC with SHA-256 (RFC 2104), the first eight bytes. Keys of 16 to 64 bytes.
    HmacSha256,
    /// CMAC with AES (NIST SP 800-38B), the first eight bytes. Keys of 16 or 32 bytes.
    AesCmac,
}

/// Where keys are: in hexadecimal, one a line. The first signs; what any of them has signed is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MacSource {
    /// A file, which a key change (0800, 161) reads again.
    File(PathBuf),
    /// A variable of the environment, for keys that stay.
    Env(String),
}

/// Why there are no keys. Names neither them nor their digits.
#[derive(Debug, thiserror::Error)]
pub enum MacError {
    /// Where they should be cannot be read.
    #[error("the keys of MACs in {place} cannot be read: {reason}")]
    Unreadable {
        /// The file or variable.
        place: String,
        /// Why.
        reason: String,
    },
    /// A line that is no key of the algorithm, or none at all.
    #[error("{place}, line {line}: no key of this algorithm in hexadecimal")]
    Key {
        /// The file or variable.
        place: String,
        /// Which line, from 1.
        line: usize,
    },
}

/// A link's keys. Never printed.
pub struct Macs {
    config: MacConfig,
    keys: RwLock<Arc<[Arc<MacKey>]>>,
}

/// A key that makes and checks codes.
pub(crate) struct MacKey {
    algorithm: MacAlgorithm,
    bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Macs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Macs").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Macs {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`MacError`].
    pub fn open(config: &MacConfig) -> Result<Self, MacError> {
        Ok(Self { keys: RwLock::new(config.keys()?), config: config.clone() })
    }

    /// Gives a draft its code, made with the first of the keys.
    ///
    /// # Errors
    /// If the draft cannot be written.
    pub fn sign(&self, draft: &mut Draft, codec: Codec) -> Result<(), EncodeError> {
        let Some(key) = self.first() else { return Ok(()) };
        let mut bytes = Vec::with_capacity(256);
        MacKey::make_room(draft);
        draft.encode(codec, &mut bytes)?;
        key.sign(draft, &bytes, codec.profile.binary_bytes(MAC_BYTES));
        Ok(())
    }

    /// True if one of the keys has signed a message, which is `bytes`.
    #[must_use]
    pub fn is_right(&self, message: &Message<'_>, bytes: &[u8]) -> bool {
        self.verify(message, bytes).is_some()
    }

    /// True if keys may change while the link is served.
    pub(crate) const fn may_change(&self) -> bool {
        matches!(self.config.source, MacSource::File(_))
    }

    /// Reads the keys again. If that fails, all stays as it was.
    pub(crate) fn reload(&self) -> Result<(), MacError> {
        let keys = self.config.keys()?;
        *self.keys.write() = keys;
        Ok(())
    }

    /// The key that signs what this end begins.
    pub(crate) fn first(&self) -> Option<Arc<MacKey>> {
        self.keys.read().first().cloned()
    }

    /// The key that has signed a message, which is `bytes`. None if none has.
    pub(crate) fn verify(&self, message: &Message<'_>, bytes: &[u8]) -> Option<Arc<MacKey>> {
        let field = last_field(message.fields().needs_second());
        let code: [u8; MAC_BYTES] = message.exactly(field)?;
        let covered = bytes.len().checked_sub(message.wire(field)?.len())?;
        let covered = bytes.get(..covered)?;
        let keys = self.keys.read().clone();
        keys.iter().find(|key| key.is_right(covered, &code)).cloned()
    }
}

impl MacKey {
    /// Gives a draft room for a code. It then is the last of its fields.
    pub(crate) fn make_room(draft: &mut Draft) {
        draft.remove(64);
        draft.remove(128);
        draft.set(last_field(draft.fields().needs_second()), &[0; MAC_BYTES]);
    }

    /// Sets the code of a draft that has room for it and that was written as `bytes`, of which the code takes the last `code_bytes`.
    pub(crate) fn sign(&self, draft: &mut Draft, bytes: &[u8], code_bytes: usize) {
        let covered = bytes.get(..bytes.len().saturating_sub(code_bytes)).unwrap_or_default();
        let field = last_field(draft.fields().needs_second());
        draft.set(field, &self.code(covered));
    }

    /// The code of these bytes.
    fn code(&self, covered: &[u8]) -> [u8; MAC_BYTES] {
        fn cut<M: Mac + KeyInit>(key: &[u8], covered: &[u8]) -> Option<[u8; MAC_BYTES]> {
            let made = <M as KeyInit>::new_from_slice(key).ok()?.chain_update(covered).finalize();
            made.as_bytes().first_chunk().copied()
        }
        let key = self.bytes.as_slice();
        let code = match (self.algorithm, key.len()) {
            (MacAlgorithm::Retail, _) => cut::<RetailMac<Des>>(key, covered),
            (MacAlgorithm::HmacSha256, _) => cut::<Hmac<Sha256>>(key, covered),
            (MacAlgorithm::AesCmac, 32) => cut::<Cmac<Aes256>>(key, covered),
            (MacAlgorithm::AesCmac, _) => cut::<Cmac<Aes128>>(key, covered),
        };
        // Of another length a key is not read.
        code.unwrap_or_default()
    }

    /// True if this is the code of these bytes. Takes as long whatever of it is wrong.
    fn is_right(&self, covered: &[u8], code: &[u8; MAC_BYTES]) -> bool {
        fn check<M: Mac + KeyInit>(key: &[u8], covered: &[u8], code: &[u8]) -> bool {
            let made = <M as KeyInit>::new_from_slice(key).map(|mac| mac.chain_update(covered));
            made.is_ok_and(|made| made.verify_truncated_left(code).is_ok())
        }
        let key = self.bytes.as_slice();
        match (self.algorithm, key.len()) {
            (MacAlgorithm::Retail, _) => check::<RetailMac<Des>>(key, covered, code),
            (MacAlgorithm::HmacSha256, _) => check::<Hmac<Sha256>>(key, covered, code),
            (MacAlgorithm::AesCmac, 32) => check::<Cmac<Aes256>>(key, covered, code),
            (MacAlgorithm::AesCmac, _) => check::<Cmac<Aes128>>(key, covered, code),
        }
    }
}

/// The field of the code: the last that a message can have.
const fn last_field(needs_second: bool) -> u8 {
    if needs_second { 128 } else { 64 }
}

impl MacConfig {
    fn keys(&self) -> Result<Arc<[Arc<MacKey>]>, MacError> {
        let unreadable = |place: &str, reason: String| MacError::Unreadable { place: place.into(), reason };
        let (place, mut text) = match &self.source {
            MacSource::File(file) => {
                let place = file.display().to_string();
                let text = std::fs::read_to_string(file);
                let text = text.map_err(|error| unreadable(&place, error.to_string()))?;
                (place, text)
            }
            MacSource::Env(name) => {
                let text = std::env::var(name).map_err(|error| unreadable(name, error.to_string()))?;
                (name.clone(), text)
            }
        };
        let key = |(at, line): (usize, &str)| {
            let bytes = self.algorithm.key(line.trim());
            let wrong = MacError::Key { place: place.clone(), line: at + 1 };
            bytes.map(|bytes| Arc::new(MacKey { algorithm: self.algorithm, bytes })).ok_or(wrong)
        };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let keys: Result<Vec<_>, _> = lines.map(key).collect();
        text.zeroize();
        let keys = keys?;
        if keys.is_empty() { Err(MacError::Key { place, line: 1 }) } else { Ok(keys.into()) }
    }
}

impl MacAlgorithm {
    fn key(self, hex: &str) -> Option<Zeroizing<Vec<u8>>> {
        if hex.len() > 2 * KEY_BYTES_MAX || !hex.len().is_multiple_of(2) {
            return None;
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES_MAX));
        for pair in hex.as_bytes().as_chunks::<2>().0 {
            let digit = |unit: u8| char::from(unit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
        }
        let fits = match self {
            Self::Retail => bytes.len() == 16,
            Self::HmacSha256 => (16..=KEY_BYTES_MAX).contains(&bytes.len()),
            Self::AesCmac => matches!(bytes.len(), 16 | 32),
        };
        fits.then_some(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    fn key(algorithm: MacAlgorithm, hex: &str) -> MacKey {
        MacKey { algorithm, bytes: algorithm.key(hex).unwrap() }
    }

    #[test]
    fn codes_are_those_of_the_standards() {
        let check = |algorithm, hex: &str, text: &[u8], expect: &str| {
            let key = key(algorithm, hex);
            let code = key.code(text);
            let found: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expect, "{algorithm:?}");
            assert!(key.is_right(text, &code));
            for bit in 0..64 {
                let mut wrong = code;
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!key.is_right(text, &wrong), "{algorithm:?}");
            }
        };
        use MacAlgorithm::{AesCmac, HmacSha256, Retail};
        // ISO/IEC 9797-1:2011, B.4.
        let double = "0123456789ABCDEFFEDCBA9876543210";
        check(Retail, double, b"Now is the time for all ", "a1c72e74ea3fa9b6");
        check(Retail, double, b"Now is the time for it", "2e2b1428cc78254f");
        // RFC 4231, cases 1 and 6's kind of text under a key of 20 bytes.
        check(HmacSha256, &"0b".repeat(20), b"Hi There", "b0344c61d8db3853");
        // RFC 4493, example 1; NIST SP 800-38B, D.3, example 9.
        check(AesCmac, "2b7e151628aed2a6abf7158809cf4f3c", b"", "bb1d6929e9593728");
        let long = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
        check(AesCmac, long, b"", "028962f61b7bf89e");
    }

    #[test]
    fn keys_are_of_the_algorithm_and_never_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys");
        let check = |algorithm, text: &str, expect: Option<&str>| {
            std::fs::write(&file, text).unwrap();
            let keys = MacConfig { algorithm, source: MacSource::File(file.clone()) }.keys();
            let error = keys.err().map(|error| error.to_string());
            assert_eq!(error.is_some(), expect.is_some(), "{error:?}");
            if let Some((error, expect)) = error.zip(expect) {
                assert!(error.contains(expect) && !error.contains("abab"), "{error}");
            }
        };
        let bytes = |count: usize| "ab".repeat(count);
        check(MacAlgorithm::Retail, &format!("{}\n\n {}\n", bytes(16), bytes(16)), None);
        check(MacAlgorithm::Retail, &format!("{}\n{}", bytes(16), bytes(8)), Some("line 2"));
        check(MacAlgorithm::HmacSha256, &bytes(15), Some("line 1"));
        check(MacAlgorithm::HmacSha256, &bytes(64), None);
        check(MacAlgorithm::HmacSha256, &bytes(65), Some("line 1"));
        check(MacAlgorithm::AesCmac, &bytes(24), Some("line 1"));
        check(MacAlgorithm::AesCmac, &"ag".repeat(16), Some("line 1"));
        check(MacAlgorithm::AesCmac, "\n", Some("line 1"));
        let nowhere = MacConfig { algorithm: MacAlgorithm::Retail, source: MacSource::Env("NO_SUCH".into()) };
        assert!(nowhere.keys().err().unwrap().to_string().contains("NO_SUCH"));
    }
}
