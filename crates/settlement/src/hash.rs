//! Keccak-256 over words of 32 bytes, as the contract hashes.

use sha3::{Digest, Keccak256};
use surety_protocol::Address;

/// 32 bytes that Keccak-256 gave.
pub type Hash = [u8; 32];

/// No hash: the root of a tree without leaves, the right side of a level of odd length.
pub const NO_HASH: Hash = [0; 32];

/// Keccak-256 over the parts, joined.
#[must_use]
pub fn keccak(parts: &[&[u8]]) -> Hash {
    let mut hasher = Keccak256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// Keccak-256 over words, which is what a contract gets from `keccak256(abi.encode(...))`.
#[must_use]
pub(crate) fn keccak_words(words: &[Hash]) -> Hash {
    let mut hasher = Keccak256::new();
    words.iter().for_each(|word| hasher.update(word));
    hasher.finalize().into()
}

/// A value as `abi.encode` writes it: big-endian, padded with zeros on the left.
pub trait Word {
    /// The 32 bytes.
    fn word(&self) -> Hash;
}

impl Word for Hash {
    fn word(&self) -> Hash {
        *self
    }
}

impl Word for Address {
    fn word(&self) -> Hash {
        padded(&self.0)
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Word for $number {
            fn word(&self) -> Hash {
                padded(&self.to_be_bytes())
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, u128);

/// `enc(a, b, ...)` of `FORMAT.md`, hashed.
macro_rules! keccak_enc {
    ($($value:expr),+ $(,)?) => {
        $crate::hash::keccak_words(&[$($crate::hash::Word::word(&$value)),+])
    };
}
pub(crate) use keccak_enc;

fn padded(bytes: &[u8]) -> Hash {
    let mut word = [0; 32];
    word[32 - bytes.len()..].copy_from_slice(bytes);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keccak_is_the_one_of_ethereum() {
        let empty = keccak(&[]);
        assert_eq!(empty[..4], [0xc5, 0xd2, 0x46, 0x01]);
        assert_eq!(keccak(&[b"a", b"bc"]), keccak(&[b"abc"]));
    }

    #[test]
    fn words_are_padded_on_the_left() {
        assert_eq!(0x0102_u16.word()[30..], [1, 2]);
        assert_eq!(0x0102_u16.word()[..30], [0; 30]);
        assert_eq!(Address([7; 20]).word()[11..13], [0, 7]);
    }
}
