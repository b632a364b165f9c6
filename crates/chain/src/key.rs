//! Keys that sign digests. The trait is what a key service offers too; secrets never appear in logs or debug output.

use core::fmt;

use alloy_primitives::{Address, B256, keccak256};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};

/// Signs digests with one key, wherever that key is kept.
pub trait DigestSigner {
    /// The address that belongs to the key.
    fn address(&self) -> Address;

    /// A signature over a digest: r, s, v, with v 27 or 28 and s in the lower half of the order.
    ///
    /// # Errors
    ///
    /// [`KeyError::Refused`] if whoever keeps the key does not sign.
    fn sign(&self, digest: &B256) -> Result<[u8; 65], KeyError>;
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a secret of the curve.
    #[error("not a secret key: 32 bytes in hexadecimal, not zero, below the order of the curve")]
    Malformed,
    /// The environment does not hold it.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// The keeper of the key does not sign.
    #[error("the signature was refused")]
    Refused,
}

/// A key in this process.
pub struct LocalKey {
    secret: SigningKey,
    address: Address,
}

impl LocalKey {
    /// The key with these bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::Malformed`] for zero and for what lies beyond the order.
    pub fn from_bytes(secret: &[u8; 32]) -> Result<Self, KeyError> {
        let secret = SigningKey::from_slice(secret).map_err(|_| KeyError::Malformed)?;
        let address = address_of(secret.verifying_key());
        Ok(Self { secret, address })
    }

    /// The key in an environment variable, in hexadecimal with or without `0x`.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotSet`] and [`KeyError::Malformed`].
    pub fn from_environment(variable: &str) -> Result<Self, KeyError> {
        let text = std::env::var(variable).map_err(|_| KeyError::NotSet(variable.to_owned()))?;
        let secret: B256 = text.trim().parse().map_err(|_| KeyError::Malformed)?;
        Self::from_bytes(&secret.0)
    }
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

/// Whose signature over a digest it is; none for what is not in the one form that contracts accept.
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
        let unset = LocalKey::from_environment("SURETY_TEST_NO_SUCH_KEY").unwrap_err();
        assert_eq!(unset, KeyError::NotSet("SURETY_TEST_NO_SUCH_KEY".to_owned()));
    }
}
