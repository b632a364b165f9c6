//! Merchant-signed releases of many certified locks at once.
//!
//! The merchant signs the root of a Merkle tree whose leaves say, lock by lock, which version is released and how much
//! of it is still owed. Any subset of the leaves can then be sent, each with its path.

use alloc::vec::Vec;

use crate::limits::{RELEASE_GROUP_ENTRIES_MAX, RELEASE_GROUP_PATH_MAX};
use crate::{Address, Amount, Id};

/// Bytes of the fixed part of the payload.
const HEAD_BYTES: usize = 20 + 32 + 65 + 3;
/// Bytes of an entry without its path.
const ENTRY_BYTES: usize = 16 + 16 + 4 + 4;

/// One lock of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseEntry {
    /// Which lock.
    pub lock: Id,
    /// What is still owed to the merchant; the rest is released.
    pub still_owed: Amount,
    /// The version that the merchant has seen; later versions are released too, earlier ones are not.
    pub version: u32,
    /// The position of the leaf, counted from the left.
    pub index: u32,
    /// Siblings from the leaf up, at most 8.
    pub path: Vec<[u8; 32]>,
}

/// The payload of [`crate::Kind::ReleaseGroup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseGroup {
    /// The merchant's release key, as an Ethereum address.
    pub key: Address,
    /// Root over the leaves.
    pub root: [u8; 32],
    /// secp256k1 signature over the root: r, s, v.
    pub signature: [u8; 65],
    /// The locks.
    pub entries: Vec<ReleaseEntry>,
}

/// Why a payload is not a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseGroupError {
    /// The payload ends early, or goes on after its end.
    #[error("a release group of {found} bytes, {expected} expected")]
    Length {
        /// Bytes that the content needs.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// No entry, or too many.
    #[error("a release group of {0} entries, 1 to {RELEASE_GROUP_ENTRIES_MAX} allowed")]
    Entries(usize),
    /// A path is too long, or the index does not fit it.
    #[error("entry {0} of a release group has a path of the wrong length")]
    Path(usize),
    /// A reserved byte is not zero.
    #[error("non-zero padding in a release group")]
    Padding,
}

impl ReleaseGroup {
    /// Writes the payload.
    ///
    /// # Panics
    /// If the group holds more than a payload can say: too many entries, a path that is too long, or an index outside it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        assert!((1..=RELEASE_GROUP_ENTRIES_MAX).contains(&self.entries.len()), "entries of a group");
        let fits = |entry: &ReleaseEntry| {
            entry.path.len() <= RELEASE_GROUP_PATH_MAX && entry.index < 1 << entry.path.len()
        };
        assert!(self.entries.iter().all(fits), "an index within its path");
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&self.signature);
        bytes.push(u8::try_from(self.entries.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(&[0; 2]);
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.lock.0.to_le_bytes());
            bytes.extend_from_slice(&entry.still_owed.0.to_le_bytes());
            bytes.extend_from_slice(&entry.version.to_le_bytes());
            bytes.push(u8::try_from(entry.path.len()).unwrap_or(u8::MAX));
            bytes.push(u8::try_from(entry.index).unwrap_or(u8::MAX));
            bytes.extend_from_slice(&[0; 2]);
            entry.path.iter().for_each(|hash| bytes.extend_from_slice(hash));
        }
        bytes
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReleaseGroupError> {
        let found = bytes.len();
        let mut rest = bytes;
        let mut expected = HEAD_BYTES;
        let mut take = |count: usize, expected: usize| {
            let (part, tail) =
                rest.split_at_checked(count).ok_or(ReleaseGroupError::Length { expected, found })?;
            rest = tail;
            Ok(part)
        };
        let key = Address(array(take(20, expected)?));
        let root = array(take(32, expected)?);
        let signature = array(take(65, expected)?);
        let [count, 0, 0] = array(take(3, expected)?) else { return Err(ReleaseGroupError::Padding) };
        let count = usize::from(count);
        if count == 0 || count > RELEASE_GROUP_ENTRIES_MAX {
            return Err(ReleaseGroupError::Entries(count));
        }
        let mut entries = Vec::with_capacity(count);
        for position in 0..count {
            expected += ENTRY_BYTES;
            let lock = Id(u128::from_le_bytes(array(take(16, expected)?)));
            let still_owed = Amount(u128::from_le_bytes(array(take(16, expected)?)));
            let version = u32::from_le_bytes(array(take(4, expected)?));
            let [depth, index, 0, 0] = array(take(4, expected)?) else {
                return Err(ReleaseGroupError::Padding);
            };
            let depth = usize::from(depth);
            if depth > RELEASE_GROUP_PATH_MAX || usize::from(index) >= 1 << depth {
                return Err(ReleaseGroupError::Path(position));
            }
            expected += depth * 32;
            let path = take(depth * 32, expected)?.chunks_exact(32).map(array).collect();
            entries.push(ReleaseEntry { lock, still_owed, version, index: u32::from(index), path });
        }
        if rest.is_empty() {
            Ok(Self { key, root, signature, entries })
        } else {
            Err(ReleaseGroupError::Length { expected, found })
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> ReleaseGroup {
        let entry = |n: u8| ReleaseEntry {
            lock: Id(u128::from(n)),
            still_owed: Amount(u128::from(n) * 10),
            version: u32::from(n),
            index: u32::from(n),
            path: alloc::vec![[n; 32]; 3],
        };
        ReleaseGroup {
            key: Address([1; 20]),
            root: [2; 32],
            signature: [3; 65],
            entries: (0..5).map(entry).collect(),
        }
    }

    #[test]
    fn a_group_survives_and_every_cut_is_refused() {
        let bytes = group().to_bytes();
        assert_eq!(ReleaseGroup::from_bytes(&bytes), Ok(group()));
        for cut in 0..bytes.len() {
            assert!(ReleaseGroup::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(ReleaseGroup::from_bytes(&longer), Err(ReleaseGroupError::Length { .. })));
    }

    #[test]
    fn an_index_outside_its_tree_is_refused() {
        let mut wrong = group().to_bytes();
        let last_index = HEAD_BYTES + 4 * (ENTRY_BYTES + 3 * 32) + 37;
        wrong[last_index] = 8;
        assert_eq!(ReleaseGroup::from_bytes(&wrong), Err(ReleaseGroupError::Path(4)));
    }
}
