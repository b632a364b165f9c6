//! Keys that sign digests: in the environment, in a keystore file, or with a service that keeps them. No secret is in any
//! log, error or debug output, and those in this process are wiped when they are dropped.

mod keystore;

use core::fmt;
use std::path::{Path, PathBuf};

use alloy_primitives::{Address, B256, hex, keccak256};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

/// Signs digests with one key, wherever that key is kept.
///
/// Made so that a key service can stand behind it: a digest goes out, a signature comes back, which may take seconds and may
/// fail. So it is called where waiting costs nothing, never on the way of a lock; it may be asked by several threads, and the
/// same digest may be asked for again. A service that answers r and s alone uses [`complete_signature`].
pub trait DigestSigner: Send + Sync {
    /// The address that belongs to the key. Known from the start: a service is asked once, when the signer is made.
    fn address(&self) -> Address;

    /// A signature over a digest: r, s, v, with v 27 or 28 and s in the lower half of the order.
    ///
    /// # Errors
    ///
    /// [`KeyError::Unavailable`] if it may be asked again, [`KeyError::Refused`] if whoever keeps the key does not sign.
    fn sign(&self, digest: &B256) -> Result<[u8; 65], KeyError>;
}

/// A key that cannot be used. No variant carries anything secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a secret of the curve.
    #[error("not a secret key: 32 bytes in hexadecimal, not zero, below the order of the curve")]
    Malformed,
    /// The environment does not hold it.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// A file cannot be read.
    #[error("{path} cannot be read: {kind}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// The file is no keystore of version 3, or one whose cipher or cost is not supported.
    #[error("not a keystore that can be read: {0}")]
    Keystore(&'static str),
    /// The password does not open the keystore.
    #[error("the password does not open the keystore")]
    Password,
    /// The keeper of the key does not answer now.
    #[error("whoever keeps the key does not answer: {0}")]
    Unavailable(String),
    /// The keeper of the key does not sign.
    #[error("the signature was refused")]
    Refused,
    /// The signature that came back is not one of this key over this digest.
    #[error("the signature is not one of the key of {0}")]
    WrongSignature(Address),
}

/// A key in this process.
pub struct LocalKey {
    secret: SigningKey,
    address: Address,
}

impl LocalKey {
    /// The key with these bytes. Whoever has them wipes them.
    ///
    /// # Errors
    ///
    /// [`KeyError::Malformed`] for zero and for what lies beyond the order.
    pub fn from_bytes(secret: &[u8; 32]) -> Result<Self, KeyError> {
        let secret = SigningKey::from_slice(secret).map_err(|_| KeyError::Malformed)?;
        let address = address_of(secret.verifying_key());
        Ok(Self { secret, address })
    }

    /// The key in an environment variable, in hexadecimal with or without `0x`. It stays in the environment, which whoever may
    /// read this process's memory can read: a keystore is better.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotSet`] and [`KeyError::Malformed`].
    pub fn from_environment(variable: &str) -> Result<Self, KeyError> {
        let text = std::env::var(variable).map_err(|_| KeyError::NotSet(variable.to_owned()))?;
        Self::from_text(&Zeroizing::new(text))
    }

    /// The key in an Ethereum keystore (Web3 Secret Storage, version 3), as wallets and nodes write it.
    ///
    /// # Errors
    ///
    /// [`KeyError::File`], [`KeyError::Keystore`] and [`KeyError::Password`].
    pub fn from_keystore(path: &Path, password: &[u8]) -> Result<Self, KeyError> {
        let file = |error: std::io::Error| KeyError::File { path: path.to_owned(), kind: error.kind() };
        keystore::open(&std::fs::read(path).map_err(file)?, password)
    }

    fn from_text(text: &Zeroizing<String>) -> Result<Self, KeyError> {
        let digits = text.trim();
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, secret.as_mut_slice()).map_err(|_| KeyError::Malformed)?;
        Self::from_bytes(&secret)
    }
}

/// The password in a file's first line, wiped when it is dropped.
///
/// # Errors
///
/// [`KeyError::File`].
pub fn password_from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let file = |error: std::io::Error| KeyError::File { path: path.to_owned(), kind: error.kind() };
    let mut bytes = Zeroizing::new(std::fs::read(path).map_err(file)?);
    let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok(bytes)
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LocalKey").field("address", &self.address).finish_non_exhaustive()
    }
}

impl DigestSigner for LocalKey {
    fn address(&self) -> Address {
        self.address
    }

    fn sign(&self, digest: &B256) -> Result<[u8; 65], KeyError> {
        let (signature, recovery) = self.secret.sign_prehash_recoverable(&digest.0);
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        Ok(bytes)
    }
}

/// Makes the signature that contracts accept out of r and s alone, as key services give them: s brought to the lower half of the
/// order, and v found by whose signature it then is.
///
/// # Errors
///
/// [`KeyError::WrongSignature`] if it is not one of the address's key over this digest.
pub fn complete_signature(digest: &B256, r_and_s: &[u8; 64], address: Address) -> Result<[u8; 65], KeyError> {
    let wrong = || KeyError::WrongSignature(address);
    let signature = Signature::from_slice(r_and_s).map_err(|_| wrong())?.normalize_s();
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    for v in [27, 28] {
        bytes[64] = v;
        if recover(digest, &bytes[..64], v == 28) == Some(address) {
            return Ok(bytes);
        }
    }
    Err(wrong())
}

/// Whose signature over a digest it is; `None` for what is not in the one form that contracts accept.
#[must_use]
pub fn signer_of(digest: &B256, signature: &[u8; 65]) -> Option<Address> {
    match signature {
        [r_and_s @ .., v @ (27 | 28)] => recover(digest, r_and_s, *v == 28),
        _ => None,
    }
}

/// The same of r and s and the parity.
pub(crate) fn recover(digest: &B256, r_and_s: &[u8], is_odd: bool) -> Option<Address> {
    let signature = Signature::from_slice(r_and_s).ok()?;
    if signature.normalize_s() != signature {
        return None;
    }
    let recovery = RecoveryId::new(is_odd, false);
    let key = VerifyingKey::recover_from_prehash(&digest.0, &signature, recovery).ok()?;
    Some(address_of(&key))
}

fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{address, b256};

    #[test]
    fn a_key_has_the_address_that_every_wallet_gives_it() {
        let secret = b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
        let key = LocalKey::from_bytes(&secret.0).unwrap();
        assert_eq!(key.address(), address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"));
        let digest = keccak256(b"anything");
        let signature = key.sign(&digest).unwrap();
        assert_eq!(recover(&digest, &signature[..64], signature[64] == 28), Some(key.address()));
        assert_ne!(recover(&keccak256(b"else"), &signature[..64], signature[64] == 28), Some(key.address()));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let key = LocalKey::from_bytes(&[0x5a; 32]).unwrap();
        assert!(!format!("{key:?}").to_lowercase().contains("5a5a5a"));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        assert_eq!(LocalKey::from_bytes(&[0; 32]).unwrap_err(), KeyError::Malformed);
        assert_eq!(LocalKey::from_bytes(&[0xff; 32]).unwrap_err(), KeyError::Malformed);
        let short = Zeroizing::new("0x5a5a".to_owned());
        assert_eq!(LocalKey::from_text(&short).unwrap_err(), KeyError::Malformed);
        let unset = LocalKey::from_environment("SURETY_TEST_NO_SUCH_KEY").unwrap_err();
        assert_eq!(unset, KeyError::NotSet("SURETY_TEST_NO_SUCH_KEY".to_owned()));
    }

    #[test]
    fn a_key_is_read_as_it_is_commonly_written() {
        let plain = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        for text in [plain.to_owned(), format!("0x{plain}"), format!(" 0x{plain}\n"), plain.to_uppercase()] {
            let key = LocalKey::from_text(&Zeroizing::new(text)).unwrap();
            assert_eq!(key.address(), address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"));
        }
    }

    #[test]
    fn a_service_that_answers_r_and_s_alone_is_enough() {
        let key = LocalKey::from_bytes(&[0x5a; 32]).unwrap();
        for text in [b"one".as_slice(), b"two", b"three", b"four", b"five"] {
            let digest = keccak256(text);
            let full = key.sign(&digest).unwrap();
            let low: [u8; 64] = full[..64].try_into().unwrap();
            assert_eq!(complete_signature(&digest, &low, key.address()), Ok(full));
            let signature = Signature::from_slice(&low).unwrap();
            let high = Signature::from_scalars(*signature.r(), -*signature.s()).unwrap();
            let high: [u8; 64] = high.to_bytes().into();
            assert_eq!(complete_signature(&digest, &high, key.address()), Ok(full), "s in the upper half");
            let other = Address::repeat_byte(1);
            assert_eq!(complete_signature(&digest, &low, other), Err(KeyError::WrongSignature(other)));
            assert!(complete_signature(&keccak256(b"else"), &low, key.address()).is_err());
            assert!(complete_signature(&digest, &[0; 64], key.address()).is_err());
        }
    }
}
