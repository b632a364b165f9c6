//! Releases signed by a merchant: is every leaf in the tree, and is the root signed with the key that the group names?
//!
//! Whether that key is the merchant's own, the ledger decides. `WIRE.md` has the bytes; the signature is EIP-712 (typed
//! data), so that a merchant can sign with an Ethereum wallet and a contract can check the same signature.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use sha3::{Digest, Keccak256};
use surety_protocol::{Address, EngineId, Record, ReleaseEntry, ReleaseGroup, long};

type Hash = [u8; 32];

/// Which engine, on which chain, the merchant's signature is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseDomain {
    /// The settlement's chain; 0 without one.
    pub chain_id: u64,
    /// The settlement's contract; zero without one.
    pub contract: Address,
    /// The engine.
    pub engine: EngineId,
}

impl ReleaseDomain {
    /// What is signed for a root.
    #[must_use]
    pub fn digest(&self, root: &Hash) -> Hash {
        let structure = keccak(&[&keccak(&[b"ReleaseGroup(bytes32 root)"]), root]);
        keccak(&[&[0x19, 0x01], &self.separator(), &structure])
    }

    /// True if the records are a release group whose paths lead to its root, and whose root is signed by its key.
    #[must_use]
    pub fn is_genuine(&self, records: &[Record]) -> bool {
        let group = long::join(records).ok().and_then(|payload| ReleaseGroup::from_bytes(&payload).ok());
        group.is_some_and(|group| self.verifies(&group))
    }

    fn verifies(&self, group: &ReleaseGroup) -> bool {
        group.entries.iter().all(|entry| climb(entry) == group.root)
            && signer(&self.digest(&group.root), &group.signature) == Some(group.key)
    }

    fn separator(&self) -> Hash {
        const TYPE: &[u8] =
            b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)";
        keccak(&[
            &keccak(&[TYPE]),
            &keccak(&[b"Surety"]),
            &keccak(&[b"1"]),
            &word(&self.chain_id.to_be_bytes()),
            &word(&self.contract.0),
            &word(&self.engine.0.to_be_bytes()),
        ])
    }
}

/// The leaf of a lock: hashed twice, so that no inner node can pass for one.
#[must_use]
pub fn release_leaf(entry: &ReleaseEntry) -> Hash {
    let lock = word(&entry.lock.0.to_be_bytes());
    let version = word(&entry.version.to_be_bytes());
    let still_owed = word(&entry.still_owed.0.to_be_bytes());
    keccak(&[&keccak(&[&lock, &version, &still_owed])])
}

/// The node above two others.
#[must_use]
pub fn release_node(left: &Hash, right: &Hash) -> Hash {
    keccak(&[left, right])
}

/// The address that belongs to a public key.
#[must_use]
pub fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    let hash = keccak(&[&point.as_bytes()[1..]]);
    let mut address = [0; 20];
    address.copy_from_slice(&hash[12..]);
    Address(address)
}

fn climb(entry: &ReleaseEntry) -> Hash {
    entry.path.iter().enumerate().fold(release_leaf(entry), |here, (level, sibling)| {
        if entry.index >> level & 1 == 0 {
            release_node(&here, sibling)
        } else {
            release_node(sibling, &here)
        }
    })
}

/// Whose signature it is; none for one that is not in the one form that the contract accepts.
fn signer(digest: &Hash, signature: &[u8; 65]) -> Option<Address> {
    let (bytes, v) = signature.split_at(64);
    let recovery = RecoveryId::from_byte(v[0].checked_sub(27).filter(|id| *id <= 1)?)?;
    let signature = Signature::from_slice(bytes).ok()?;
    if signature.normalize_s() != signature {
        return None;
    }
    let key = VerifyingKey::recover_from_prehash(digest, &signature, recovery).ok()?;
    Some(address_of(&key))
}

/// A number or address as a word of 32 bytes.
fn word(bytes: &[u8]) -> Hash {
    let mut word = [0; 32];
    word[32 - bytes.len()..].copy_from_slice(bytes);
    word
}

fn keccak(parts: &[&[u8]]) -> Hash {
    let mut hasher = Keccak256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::ecdsa::SigningKey;
    use surety_protocol::{Amount, Id, Kind, PartitionHandle};

    const DOMAIN: ReleaseDomain =
        ReleaseDomain { chain_id: 31337, contract: Address([9; 20]), engine: EngineId(5) };

    fn key() -> SigningKey {
        SigningKey::from_slice(&[7; 32]).unwrap()
    }

    fn sign(key: &SigningKey, digest: &Hash) -> [u8; 65] {
        let (signature, recovery) = key.sign_prehash_recoverable(digest);
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        bytes
    }

    /// A signed group over four locks.
    fn group() -> ReleaseGroup {
        let entry = |n: u32| ReleaseEntry {
            lock: Id(u128::from(n) << 64),
            still_owed: Amount(u128::from(n) * 100),
            version: n,
            index: n,
            path: Vec::new(),
        };
        let mut entries: Vec<ReleaseEntry> = (0..4).map(entry).collect();
        let leaves: Vec<Hash> = entries.iter().map(release_leaf).collect();
        let nodes = [release_node(&leaves[0], &leaves[1]), release_node(&leaves[2], &leaves[3])];
        for (index, entry) in entries.iter_mut().enumerate() {
            entry.path = vec![leaves[index ^ 1], nodes[(index / 2) ^ 1]];
        }
        let root = release_node(&nodes[0], &nodes[1]);
        let signature = sign(&key(), &DOMAIN.digest(&root));
        ReleaseGroup { key: address_of(key().verifying_key()), root, signature, entries }
    }

    fn records(group: &ReleaseGroup) -> Vec<Record> {
        long::split(Kind::ReleaseGroup, Id(1), PartitionHandle(1), 4, &group.to_bytes())
    }

    #[test]
    fn keccak_is_the_one_of_ethereum() {
        let hex: String = keccak(&[b""]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470");
        // The first account of every development chain.
        let secret = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        let bytes: Vec<u8> =
            (0..32).map(|i| u8::from_str_radix(&secret[2 * i..2 * i + 2], 16).unwrap()).collect();
        let key = SigningKey::from_slice(&bytes).unwrap();
        let address = address_of(key.verifying_key()).to_string();
        assert_eq!(address, "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
    }

    #[test]
    fn a_signed_group_and_every_part_of_it_is_genuine() {
        assert!(DOMAIN.is_genuine(&records(&group())));
        for entry in group().entries {
            let part = ReleaseGroup { entries: vec![entry], ..group() };
            assert!(DOMAIN.is_genuine(&records(&part)));
        }
    }

    #[test]
    fn nothing_of_a_group_can_be_altered() {
        let check = |what, alter: fn(&mut ReleaseGroup)| {
            let mut group = group();
            alter(&mut group);
            assert!(!DOMAIN.is_genuine(&records(&group)), "{what}");
        };
        check("key", |group| group.key.0[0] ^= 1);
        check("root", |group| group.root[0] ^= 1);
        check("r", |group| group.signature[0] ^= 1);
        check("s", |group| group.signature[40] ^= 1);
        check("v", |group| group.signature[64] ^= 7);
        check("v without its 27", |group| group.signature[64] -= 27);
        check("lock", |group| group.entries[1].lock.0 ^= 1);
        check("still owed", |group| group.entries[1].still_owed.0 -= 1);
        check("version", |group| group.entries[1].version += 1);
        check("index", |group| group.entries[1].index ^= 1);
        check("path", |group| group.entries[3].path[1][0] ^= 1);
        check("a node passed as a leaf", |group| group.entries[0].path = group.entries[0].path[1..].to_vec());
    }

    #[test]
    fn a_signature_counts_for_one_engine_and_in_one_form() {
        let signed = records(&group());
        for other in [
            ReleaseDomain { chain_id: 1, ..DOMAIN },
            ReleaseDomain { contract: Address([8; 20]), ..DOMAIN },
            ReleaseDomain { engine: EngineId(6), ..DOMAIN },
        ] {
            assert!(!other.is_genuine(&signed), "{other:?}");
        }
        // The same signature with the other root of the square, which the contract refuses too.
        let mut high = group();
        let signature = Signature::from_slice(&high.signature[..64]).unwrap();
        let (r, s) = signature.split_scalars();
        let flipped = Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
        high.signature[..64].copy_from_slice(&flipped.to_bytes());
        high.signature[64] = 27 + (28 - high.signature[64]);
        assert!(!DOMAIN.is_genuine(&records(&high)));
    }

    #[test]
    fn what_is_no_group_is_not_genuine() {
        assert!(!DOMAIN.is_genuine(&[]));
        let mut cut = records(&group());
        cut.pop();
        assert!(!DOMAIN.is_genuine(&cut));
    }
}
