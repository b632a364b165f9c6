//! Releases that merchants have signed: what is not signed never reaches the ledger.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use k256::ecdsa::SigningKey;
use rig::{Raw, Rig, TENANT, id, identity, partition};
use server::address_of;
use settlement::{Domain, release_leaf};
use surety_protocol::{Address, Amount, Code, Id, Kind, Record, ReleaseEntry, ReleaseGroup, Roles, long};

/// A group of one lock, signed for the rig's engine.
fn signed(rig: &Rig, shard: u16) -> ReleaseGroup {
    let key = SigningKey::from_slice(&[5; 32]).unwrap();
    let entry = ReleaseEntry { lock: Id(1), still_owed: Amount(0), version: 1, index: 0, path: Vec::new() };
    let root = release_leaf(TENANT, partition(shard), &entry);
    let domain = Domain { chain_id: 0, contract: Address([0; 20]), engine: rig.running().engine() };
    let (signature, recovery) = key.sign_prehash_recoverable(&domain.release_group_digest(&root));
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes[64] = 27 + recovery.to_byte();
    ReleaseGroup { key: address_of(key.verifying_key()), root, signature: bytes, entries: vec![entry] }
}

async fn answer(raw: &mut Raw, shard: u16, group: &ReleaseGroup) -> Code {
    let records: Vec<Record> = long::split(Kind::ReleaseGroup, id(), partition(shard), 4, &group.to_bytes());
    raw.requests(&records).await.unwrap();
    raw.replies(1).await.unwrap().0[0].code()
}

#[tokio::test]
async fn a_group_is_refused_unless_it_is_signed_and_forwarded_ones_too() {
    let rig = Rig::start(2);
    let mut raw = rig.authorizer(0).await;
    for shard in [0, 1] {
        let good = signed(&rig, shard);
        // Signed well, by somebody who is no merchant here: the ledger's word, so it got that far.
        assert_eq!(answer(&mut raw, shard, &good).await, Code::Forbidden);
        let mut forged = good.clone();
        forged.signature[3] ^= 1;
        assert_eq!(answer(&mut raw, shard, &forged).await, Code::NoRight);
        let mut other_lock = good.clone();
        other_lock.entries[0].lock = Id(2);
        assert_eq!(answer(&mut raw, shard, &other_lock).await, Code::NoRight);
    }
    let reader = identity(&rig, TENANT.0, Roles::READER);
    let mut reader = Raw::connect(rig.address(0), &reader).await.unwrap();
    reader.greet(TENANT, &[]).await.unwrap();
    assert_eq!(answer(&mut reader, 0, &signed(&rig, 0)).await, Code::NoRight);
}

#[tokio::test]
async fn more_checks_than_are_allowed_at_a_time_are_overloaded() {
    let rig = Rig::start_with(1, |config| config.limits.releases = 2);
    let mut raw = rig.authorizer(0).await;
    let group = signed(&rig, 0);
    let records: Vec<Record> = (0..20)
        .flat_map(|_| long::split(Kind::ReleaseGroup, id(), partition(0), 4, &group.to_bytes()))
        .collect();
    raw.requests(&records).await.unwrap();
    let (replies, _) = raw.replies(20).await.unwrap();
    let count = |code| replies.iter().filter(|reply| reply.code() == code).count();
    assert_eq!((count(Code::Forbidden), count(Code::Overloaded)), (2, 18));
}
