//! Seals what a cursor holds: nobody makes one, and nobody reads out of one how far the records of others have come.
//!
//! Encrypted with a stream of keyed BLAKE3 over a random nonce, then a keyed BLAKE3 of all of it as the tag. Both keys come from one that
//! is in the store, and as old as it.

use crate::error::HistoryError;
use crate::reader::Scope;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 32;
/// What a seal adds to the bytes in it.
pub(crate) const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// What is sealed: one is not taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Of {
    Records = 1,
    Open = 2,
    Statement = 3,
}

/// The key of a store's cursors.
#[derive(Clone)]
pub(crate) struct Key {
    stream: [u8; KEY_BYTES],
    tag: [u8; KEY_BYTES],
}

/// Random bytes of the system's.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], HistoryError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| HistoryError::Io {
        doing: "drawing random bytes".to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

impl Key {
    pub(crate) fn of(bytes: [u8; KEY_BYTES]) -> Self {
        Self {
            stream: blake3::derive_key("surety history 2026 cursors: stream", &bytes),
            tag: blake3::derive_key("surety history 2026 cursors: tag", &bytes),
        }
    }

    /// Seals bytes for whoever asked. The same ones never look the same: that nothing has happened is not to be seen either.
    pub(crate) fn seal(&self, of: Of, scope: Scope, plain: &[u8]) -> Result<Vec<u8>, HistoryError> {
        let nonce = random::<NONCE_BYTES>()?;
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        self.mix(&nonce, &mut sealed[NONCE_BYTES..]);
        let tag = self.tag_of(of, scope, &sealed);
        sealed.extend_from_slice(tag.as_bytes());
        Ok(sealed)
    }

    /// The bytes that were sealed; none if it was something else, for somebody else, with another key, or is damaged.
    pub(crate) fn open(&self, of: Of, scope: Scope, sealed: &[u8]) -> Option<Vec<u8>> {
        let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>()?;
        let (nonce, hidden) = body.split_first_chunk::<NONCE_BYTES>()?;
        // Hashes are compared in a time that tells nothing.
        if self.tag_of(of, scope, body) != blake3::Hash::from_bytes(*tag) {
            return None;
        }
        let mut plain = hidden.to_vec();
        self.mix(nonce, &mut plain);
        Some(plain)
    }

    fn mix(&self, nonce: &[u8; NONCE_BYTES], bytes: &mut [u8]) {
        let mut stream = vec![0; bytes.len()];
        blake3::Hasher::new_keyed(&self.stream).update(nonce).finalize_xof().fill(&mut stream);
        bytes.iter_mut().zip(stream).for_each(|(byte, with)| *byte ^= with);
    }

    fn tag_of(&self, of: Of, scope: Scope, body: &[u8]) -> blake3::Hash {
        let (who, tenant) = match scope {
            Scope::Operator => (0_u8, 0_u32),
            Scope::Tenant(tenant) => (1, tenant.0),
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.tag);
        hasher.update(&[of as u8, who]).update(&tenant.to_le_bytes()).update(body);
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use surety_protocol::TenantId;

    use super::*;

    #[test]
    fn a_seal_is_opened_by_its_own_key_for_its_own_asker_alone() {
        let (key, other) = (Key::of([1; 32]), Key::of([2; 32]));
        let one = Scope::Tenant(TenantId(1));
        for plain in [&b""[..], b"how far", &[0; 3000]] {
            let sealed = key.seal(Of::Records, one, plain).unwrap();
            assert_eq!(sealed.len(), plain.len() + SEAL_BYTES);
            assert_eq!(key.open(Of::Records, one, &sealed).as_deref(), Some(plain));
            assert_eq!(other.open(Of::Records, one, &sealed), None, "another store's");
            assert_eq!(key.open(Of::Statement, one, &sealed), None, "of something else");
            for scope in [Scope::Operator, Scope::Tenant(TenantId(0)), Scope::Tenant(TenantId(2))] {
                assert_eq!(key.open(Of::Records, scope, &sealed), None, "another asker's");
            }
            for at in (0..sealed.len()).step_by(sealed.len() / 40 + 1) {
                let mut damaged = sealed.clone();
                damaged[at] ^= 1;
                assert_eq!(key.open(Of::Records, one, &damaged), None, "byte {at}");
                assert_eq!(key.open(Of::Records, one, &sealed[..at]), None, "cut at {at}");
            }
        }
    }

    #[test]
    fn nothing_is_to_be_seen_through_a_seal() {
        let key = Key::of([1; 32]);
        let seal = |plain: &[u8]| key.seal(Of::Records, Scope::Operator, plain).unwrap();
        let (one, again) = (seal(&[7; 40]), seal(&[7; 40]));
        assert!(one != again, "that nothing happened is not to be seen");
        assert!(!one.windows(3).any(|bytes| bytes == [7; 3]), "{one:?}");
    }
}
