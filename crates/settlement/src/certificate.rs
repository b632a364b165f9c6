//! Certificates: the engine's signed statement of a lock, in groups, so that a signature serves up to 256 of them.

use alloc::vec::Vec;

use surety_protocol::{Address, Seq, ShardId};

use crate::hash::{Hash, keccak_enc};
use crate::leaf::LockId;
use crate::tree::{PlainTree, plain_root};
use crate::typed_data::Domain;

/// Locks of one group.
pub const LOCK_GROUP_MAX: usize = 256;
/// Hashes of one path.
pub const LOCK_PATH_MAX: usize = 8;

const _: () = assert!(LOCK_GROUP_MAX == 1 << LOCK_PATH_MAX);

/// What a certificate states of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertifiedLock {
    /// Which lock.
    pub lock: LockId,
    /// The lock's version when it was certified.
    pub version: u16,
    /// In whose log the record is that made this version.
    pub shard: ShardId,
    /// Its position there.
    pub seq: Seq,
    /// The on-chain id of the partition that pays.
    pub partition: Hash,
    /// Who is paid.
    pub payee: Address,
    /// What was approved, headroom excluded, in base units of the collateral.
    pub amount: u128,
    /// When the lock ends by itself, in whole seconds since the Unix epoch.
    pub deadline_secs: u64,
    /// Whose signature releases it.
    pub release_key: Address,
}

/// The statement as EIP-712 describes it.
#[cfg(test)]
const TYPE: &[u8] = b"Lock(bytes32 lockId,uint16 version,uint16 shard,uint64 seq,bytes32 partition,address payee,uint128 amount,uint64 deadline,address releaseKey)";
/// The hash of that, which every statement begins with.
const TYPE_HASH: Hash = [
    0x59, 0x16, 0xc0, 0x70, 0xfb, 0x2b, 0xcf, 0xb5, 0x01, 0x6f, 0x33, 0xe5, 0xf6, 0xda, 0xb6, 0xfe, 0x55,
    0x80, 0xdc, 0x81, 0x63, 0xe4, 0x84, 0x5d, 0x74, 0xb3, 0x61, 0x21, 0x4b, 0x6e, 0xc2, 0x02,
];

impl CertifiedLock {
    /// The EIP-712 hash of the statement, which is its leaf in the group.
    #[must_use]
    pub fn hash(&self) -> Hash {
        keccak_enc!(
            TYPE_HASH,
            self.lock,
            self.version,
            self.shard.0,
            self.seq.0,
            self.partition,
            self.payee,
            self.amount,
            self.deadline_secs,
            self.release_key,
        )
    }
}

/// Up to 256 statements under one signature.
#[derive(Clone, Debug)]
pub struct LockGroup {
    locks: Vec<CertifiedLock>,
    tree: PlainTree,
}

/// A group holds 1 to 256 locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group of {0} locks, 1 to {LOCK_GROUP_MAX} allowed")]
pub struct GroupSize(pub usize);

impl LockGroup {
    /// Groups statements, in the order of shard and seq.
    ///
    /// # Errors
    /// None or too many.
    pub fn new(mut locks: Vec<CertifiedLock>) -> Result<Self, GroupSize> {
        if locks.is_empty() || locks.len() > LOCK_GROUP_MAX {
            return Err(GroupSize(locks.len()));
        }
        locks.sort_by_key(|lock| (lock.shard, lock.seq));
        let tree = PlainTree::new(locks.iter().map(CertifiedLock::hash));
        Ok(Self { locks, tree })
    }

    /// What has to be signed.
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> Hash {
        domain.lock_group_digest(&self.tree.root())
    }

    /// The statements, in order.
    #[must_use]
    pub fn locks(&self) -> &[CertifiedLock] {
        &self.locks
    }

    /// One of the statements with its path, under the group's signature.
    #[must_use]
    pub fn certificate(&self, index: usize, signature: [u8; 65]) -> Option<Certificate> {
        let lock = *self.locks.get(index)?;
        Some(Certificate { lock, path: self.tree.path(index), signature })
    }

    /// The statements, each with its path, under the group's signature.
    pub fn sign(&self, signature: [u8; 65]) -> impl Iterator<Item = Certificate> + '_ {
        (0..self.locks.len()).filter_map(move |index| self.certificate(index, signature))
    }
}

/// What a merchant holds: with this alone it is paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The statement.
    pub lock: CertifiedLock,
    /// Siblings in the group, the leaf's own first.
    pub path: Vec<Hash>,
    /// secp256k1 over [`Certificate::digest`]: r, s, v.
    pub signature: [u8; 65],
}

impl Certificate {
    /// What the signature has to be for, recovered to the engine's lock signer. `None` if the path is longer than any group's.
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> Option<Hash> {
        let is_short = self.path.len() <= LOCK_PATH_MAX;
        is_short.then(|| domain.lock_group_digest(&plain_root(&self.lock.hash(), &self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_hash_is_that_of_its_text() {
        assert_eq!(TYPE_HASH, crate::hash::keccak(&[TYPE]));
    }
}
