//! Releases signed by a merchant: is every leaf in the tree, and is the root signed with the key that the group names?
//!
//! Whether that key is the merchant's own, the ledger decides. `WIRE.md` has the bytes; the signature is EIP-712 (typed
//! data), so that a merchant can sign with an Ethereum wallet and a contract can check the same signature.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use settlement::{Domain, Hash, keccak, release_root};
use surety_protocol::{Address, PartitionHandle, Record, ReleaseGroup, TenantId, long};

/// True if the records are a release group whose paths lead to its root, and whose root is signed by its key for this domain.
/// The locks are those of `tenant`, who sends it, unless the group names another.
#[must_use]
pub fn is_genuine_release(domain: &Domain, tenant: TenantId, records: &[Record]) -> bool {
    let Some(head) = records.first() else { return false };
    let tenant = if head.tenant == TenantId(0) { tenant } else { head.tenant };
    let group = long::join(records).ok().and_then(|payload| ReleaseGroup::from_bytes(&payload).ok());
    group.is_some_and(|group| verifies(domain, tenant, head.partition, &group))
}

fn verifies(domain: &Domain, tenant: TenantId, partition: PartitionHandle, group: &ReleaseGroup) -> bool {
    group.entries.iter().all(|entry| release_root(tenant, partition, entry) == group.root)
        && signer(&domain.release_group_digest(&group.root), &group.signature) == Some(group.key)
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

#[cfg(test)]
mod tests {
    use super::*;
    use k256::ecdsa::SigningKey;
    use settlement::{release_leaf, release_node};
    use surety_protocol::{Amount, EngineId, Id, Kind, ReleaseEntry};

    const DOMAIN: Domain = Domain { chain_id: 31337, contract: Address([9; 20]), engine: EngineId(5) };
    const TENANT: TenantId = TenantId(7);
    const PARTITION: PartitionHandle = PartitionHandle(1);

    fn is_genuine(records: &[Record]) -> bool {
        is_genuine_release(&DOMAIN, TENANT, records)
    }

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
        let leaves: Vec<Hash> = entries.iter().map(|entry| release_leaf(TENANT, PARTITION, entry)).collect();
        let nodes = [release_node(&leaves[0], &leaves[1]), release_node(&leaves[2], &leaves[3])];
        for (index, entry) in entries.iter_mut().enumerate() {
            entry.path = vec![leaves[index ^ 1], nodes[(index / 2) ^ 1]];
        }
        let root = release_node(&nodes[0], &nodes[1]);
        let signature = sign(&key(), &DOMAIN.release_group_digest(&root));
        ReleaseGroup { key: address_of(key().verifying_key()), root, signature, entries }
    }

    fn records(group: &ReleaseGroup) -> Vec<Record> {
        long::split(Kind::ReleaseGroup, Id(1), PARTITION, 4, &group.to_bytes())
    }

    #[test]
    fn an_address_is_that_of_its_key() {
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
        assert!(is_genuine(&records(&group())));
        for entry in group().entries {
            let part = ReleaseGroup { entries: vec![entry], ..group() };
            assert!(is_genuine(&records(&part)));
        }
    }

    #[test]
    fn nothing_of_a_group_can_be_altered() {
        let check = |what, alter: fn(&mut ReleaseGroup)| {
            let mut group = group();
            alter(&mut group);
            assert!(!is_genuine(&records(&group)), "{what}");
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
            Domain { chain_id: 1, ..DOMAIN },
            Domain { contract: Address([8; 20]), ..DOMAIN },
            Domain { engine: EngineId(6), ..DOMAIN },
        ] {
            assert!(!is_genuine_release(&other, TENANT, &signed), "{other:?}");
        }
        // Or for another tenant's lock, or one in another partition, that has the same id.
        assert!(!is_genuine_release(&DOMAIN, TenantId(8), &signed));
        let mut named = signed.clone();
        named[0].tenant = TENANT;
        assert!(is_genuine_release(&DOMAIN, TenantId(0), &named));
        let mut elsewhere = signed;
        elsewhere[0].partition = PartitionHandle(2);
        assert!(!is_genuine(&elsewhere));
        // The same signature with the other root of the square, which the contract refuses too.
        let mut high = group();
        let signature = Signature::from_slice(&high.signature[..64]).unwrap();
        let (r, s) = signature.split_scalars();
        let flipped = Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
        high.signature[..64].copy_from_slice(&flipped.to_bytes());
        high.signature[64] = 27 + (28 - high.signature[64]);
        assert!(!is_genuine(&records(&high)));
    }

    #[test]
    fn what_is_no_group_is_not_genuine() {
        assert!(!is_genuine(&[]));
        let mut cut = records(&group());
        cut.pop();
        assert!(!is_genuine(&cut));
    }
}
