//! Bearer tokens: drawn once, kept as hashes, compared in constant time.

use std::fmt;

/// What is kept of a token: its BLAKE3 hash. A token has 32 random bytes, so that a plain hash cannot be tried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(blake3::Hash);

/// How a token begins, so that a leaked one is found by those who look for such.
const PREFIX: &str = "srty_";
/// Bytes of a whole token.
const TOKEN_BYTES: usize = PREFIX.len() + 64;

impl TokenHash {
    /// The hash of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(blake3::hash(token.as_bytes()))
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(Self)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_hex().as_str())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// A new token out of 32 random bytes.
#[must_use]
pub fn new_token(random: [u8; 32]) -> String {
    let mut token = PREFIX.to_owned();
    token.push_str(blake3::Hash::from_bytes(random).to_hex().as_str());
    token
}

/// The token of an `Authorization` header, if it can be one.
pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let is_token = token.len() == TOKEN_BYTES && token.starts_with(PREFIX);
    (scheme.eq_ignore_ascii_case("bearer") && is_token).then_some(token)
}

/// The one whose hash this is. Every hash is looked at, whichever fits, and each in constant time.
pub(crate) fn find<'a, T>(
    known: impl IntoIterator<Item = (&'a TokenHash, T)>,
    shown: &TokenHash,
) -> Option<T> {
    let mut found = None;
    for (hash, whose) in known {
        // `blake3::Hash` compares in constant time.
        if hash.0 == shown.0 {
            found = Some(whose);
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_hash_alone() {
        let tokens = [[1; 32], [2; 32], [3; 32]].map(new_token);
        let hashes = [&tokens[0], &tokens[1]].map(|token| TokenHash::of(token));
        let find = |token: &str| find(hashes.iter().zip(0..), &TokenHash::of(token));
        assert_eq!(tokens.each_ref().map(|token| find(token)), [Some(0), Some(1), None]);
        assert_eq!(TokenHash::from_hex(&hashes[0].to_string()), Some(hashes[0]));
        assert_eq!(TokenHash::from_hex("0f"), None);
        assert_eq!(format!("{:?}", hashes[0]), "TokenHash");
    }

    #[test]
    fn only_what_can_be_a_token_is_hashed() {
        let token = new_token([7; 32]);
        assert_eq!(bearer(&format!("Bearer {token}")), Some(token.as_str()));
        assert_eq!(bearer(&format!("bearer {token}")), Some(token.as_str()));
        for other in ["", "Bearer", "Bearer x", &format!("Basic {token}"), &format!("Bearer {token}0")] {
            assert_eq!(bearer(other), None, "{other}");
        }
    }
}
