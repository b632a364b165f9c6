//! The golden vectors: of the token and manager that are deployed today, and of the format that settlement agrees on.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolValue;
use chain::bindings::{Batch, Lock, PartitionLeaf};
use chain::flexa::{
    Request, change_partition, climb, fallback_leaf, proof, root, supply, withdrawal_leaf, withdrawal_root,
};
use serde_json::Value;
use support::trees::{Plain, Sums, digest, domain, enc, lock_hash, partition_hash, release_leaf, twice};

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/amp.json")).unwrap()
}

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &Value) -> T {
    value.as_str().unwrap().parse().unwrap()
}

fn hashes(value: &Value) -> Vec<B256> {
    value.as_array().unwrap().iter().map(parse).collect()
}

/// Signatures of an ABI's functions or events.
fn signatures(contract: &str, kind: &str) -> Vec<String> {
    fn type_of(input: &Value) -> String {
        let Some(rest) = input["type"].as_str().unwrap().strip_prefix("tuple") else {
            return input["type"].as_str().unwrap().to_owned();
        };
        let parts: Vec<String> = input["components"].as_array().unwrap().iter().map(type_of).collect();
        format!("({}){rest}", parts.join(","))
    }
    let path = format!("{}/contracts/artifacts/{contract}.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let items = file["abi"].as_array().unwrap().iter().filter(|item| item["type"] == kind);
    let signature = |item: &Value| {
        let inputs: Vec<String> = item["inputs"].as_array().unwrap().iter().map(type_of).collect();
        format!("{}({})", item["name"].as_str().unwrap(), inputs.join(","))
    };
    items.map(signature).collect()
}

#[test]
fn the_token_has_every_function_of_the_deployed_one() {
    let vectors = vectors();
    let ours = signatures("AmpToken", "function");
    for (signature, selector) in vectors["selectors"]["amp"].as_object().unwrap() {
        assert!(ours.contains(signature), "{signature}");
        let hash = keccak256(signature);
        assert_eq!(alloy_primitives::hex::encode(&hash[..4]), selector.as_str().unwrap(), "{signature}");
    }
}

#[test]
fn the_hooks_of_the_manager_are_those_that_the_token_calls() {
    let vectors = vectors();
    let ours = signatures("CollateralManager", "function");
    for hook in ["tokensReceived", "tokensToTransfer"] {
        let theirs = vectors["selectors"]["fcm"].as_object().unwrap();
        let signature = theirs.keys().find(|signature| signature.starts_with(hook)).unwrap();
        assert!(ours.contains(signature), "{signature}");
    }
}

#[test]
fn the_token_has_every_event_of_the_deployed_one() {
    let vectors = vectors();
    let ours = signatures("AmpToken", "event");
    let manager_only = [
        "DirectTransfer",
        "Fallback",
        "PartitionAdded",
        "PartitionManager",
        "PartitionRemoved",
        "ReleaseRequest",
        "Supply",
        "Withdrawal",
    ];
    let mut checked = 0;
    for (signature, topic) in vectors["topics"].as_object().unwrap() {
        assert_eq!(keccak256(signature), parse::<B256>(topic), "{signature}");
        if !manager_only.iter().any(|prefix| signature.starts_with(prefix)) {
            assert!(ours.contains(signature), "{signature}");
            checked += 1;
        }
    }
    assert_eq!(checked, 15);
}

#[test]
fn withdrawals_have_the_leaf_root_proof_and_data_of_the_deployed_manager() {
    let vectors = vectors();
    let withdrawal = &vectors["withdrawal"];
    let supplier: Address = parse(&withdrawal["supplier"]);
    let nonce = U256::from(withdrawal["maxAuthorizedAccountNonce"].as_u64().unwrap());
    let leaf = withdrawal_leaf(supplier, parse(&withdrawal["partition"]), parse(&withdrawal["value"]), nonce);
    assert_eq!(leaf, parse::<B256>(&withdrawal["leaf"]));
    let leaves = [leaf, parse(&withdrawal["otherLeaf"])];
    let expected = hashes(&withdrawal["proof"]);
    assert_eq!(root(&leaves), Some(parse(&withdrawal["root"])));
    assert_eq!(proof(&leaves, leaf), Some(expected.clone()));
    let request = Request::Withdrawal { supplier, max_authorized_account_nonce: nonce, proof: expected };
    let data: Bytes = parse(&withdrawal["operatorData"]);
    assert_eq!(request.to_operator_data(), data);
    assert_eq!(Request::from_operator_data(&data), Some(request));
    assert_eq!(change_partition(B256::ZERO), parse::<Bytes>(&withdrawal["data"]));
}

#[test]
fn fallbacks_have_the_leaves_root_proof_and_data_of_the_deployed_manager() {
    let vectors = vectors();
    let fallback = &vectors["fallback"];
    let rows = fallback["leaves"].as_array().unwrap();
    let leaves: Vec<B256> = rows
        .iter()
        .map(|row| {
            let leaf = fallback_leaf(parse(&row[0]), parse(&row[1]), parse(&row[2]));
            assert_eq!(leaf, parse::<B256>(&row[3]));
            leaf
        })
        .collect();
    assert_eq!(root(&leaves), Some(parse(&fallback["root"])));
    let expected = hashes(&fallback["proofBob"]);
    assert_eq!(proof(&leaves, leaves[1]), Some(expected.clone()));
    let data: Bytes = parse(&fallback["operatorDataBob"]);
    let request = Request::Fallback {
        supplier: parse(&rows[1][0]),
        cumulative_supply: parse(&rows[1][2]),
        proof: expected,
    };
    assert_eq!(request.to_operator_data(), data);
    assert_eq!(Request::from_operator_data(&data), Some(request));
}

#[test]
fn trees_of_five_leaves_are_those_of_the_deployed_manager() {
    let vectors = vectors();
    let merkle = &vectors["merkle5"];
    let leaves = hashes(&merkle["leavesInInputOrder"]);
    let mut sorted = leaves.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, hashes(&merkle["sorted"]));
    let top: B256 = parse(&merkle["root"]);
    assert_eq!(root(&leaves), Some(top));
    // The proofs are listed in one of the two orders; each of them leads to the root from the leaf that it is of.
    for expected in merkle["proofs"].as_array().unwrap().iter().map(hashes) {
        let leaf = leaves.iter().find(|leaf| proof(&leaves, **leaf).as_ref() == Some(&expected));
        assert_eq!(climb(*leaf.expect("a proof of one of the leaves"), &expected), top);
    }
    assert_eq!(proof(&leaves, B256::ZERO), None);
    assert_eq!(root(&[]), None);
}

#[test]
fn refunds_and_direct_transfers_have_the_data_of_the_deployed_manager() {
    let vectors = vectors();
    let refund = Request::Refund { supply_nonce: U256::from(vectors["refund"]["nonce"].as_u64().unwrap()) };
    for (request, value) in [(refund, &vectors["refund"]), (Request::Direct, &vectors["directTransfer"])] {
        let data: Bytes = parse(&value["operatorData"]);
        assert_eq!(request.to_operator_data(), data);
        assert_eq!(Request::from_operator_data(&data), Some(request));
    }
    assert_eq!(Request::from_operator_data(&[]), None);
    assert_eq!(Request::from_operator_data(&[0; 64]), None);
    assert_eq!(Request::from_operator_data(&[0xcc; 40]), None);
}

#[test]
fn supplies_and_roots_are_read_out_of_events() {
    let topics = vectors();
    let topic = |name: &str| {
        let found = topics["topics"].as_object().unwrap().iter().find(|(key, _)| key.starts_with(name));
        parse::<B256>(found.unwrap().1)
    };
    let event = |topics: Vec<B256>, data: Vec<u8>| chain::LoggedEvent {
        address: Address::ZERO,
        topics,
        data: data.into(),
        block: B256::ZERO,
        number: 1,
        transaction: B256::ZERO,
    };
    let supplier = Address::repeat_byte(7);
    let partition = B256::repeat_byte(0xcc);
    let words = vec![topic("SupplyReceipt("), supplier.into_word(), partition, B256::with_last_byte(9)];
    let receipt = supply(&event(words.clone(), U256::from(500).abi_encode())).unwrap();
    assert_eq!((receipt.supplier, receipt.partition), (supplier, partition));
    assert_eq!((receipt.amount, receipt.nonce), (U256::from(500), U256::from(9)));
    let words_of_root = vec![topic("WithdrawalRootHashAddition("), partition, B256::with_last_byte(3)];
    let added = withdrawal_root(&event(words_of_root.clone(), Vec::new())).unwrap();
    assert_eq!((added.rootHash, added.nonce), (partition, U256::from(3)));
    assert!(supply(&event(words_of_root, Vec::new())).is_none());
    assert!(withdrawal_root(&event(words, U256::from(500).abi_encode())).is_none());
}

/// The golden vectors of settlement's format, by name.
fn format_vectors() -> BTreeMap<String, String> {
    let text = include_str!("../../settlement/FORMAT.md");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (name, value) = (cells.next()?, cells.next()?.trim_end_matches(" |"));
        Some((name.to_owned(), value.strip_prefix('`')?.strip_suffix('`')?.to_owned()))
    });
    rows.filter(|(name, _)| !name.contains('`')).collect()
}

/// The trees that the contract is tested with are those of the format.
#[test]
fn the_trees_of_these_tests_are_those_of_the_format() {
    let golden = format_vectors();
    let check =
        |name: &str, got: B256| assert_eq!(alloy_primitives::hex::encode(got), golden[name], "{name}");
    let partition = |n: u8| {
        let mut id = [0xcc; 32];
        id[4..12].copy_from_slice(&[n; 8]);
        id[12..].copy_from_slice(&[0xc0; 20]);
        B256::from(id)
    };
    let leaf = |n: u8| PartitionLeaf {
        partition: partition(n),
        locked: 1000 * u128::from(n) + 7,
        debit: 100 * u128::from(n),
        exits: 10 * u128::from(n),
        exitNonce: u64::from(n),
        units: 1_000_000_000 * u128::from(n),
        salt: B256::repeat_byte(0x50 + n),
        index: u32::from(n) - 1,
        path: Vec::new(),
    };
    let leaves = [leaf(1), leaf(2), leaf(3)];
    let sums = Sums::new(&leaves);
    check("partition_leaf_0", partition_hash(&leaves[0]));
    check("partitions_top", sums.top().0);
    check("partitions_sums", sums.top().1.into());
    check("partition_node_01", sums.path(2)[1].hash);
    let payee = |n: u8, who: u8, credit: u64| {
        let who = Address::repeat_byte(who).into_word();
        twice(&[U256::from(2), partition(n).into(), who.into(), U256::from(credit)])
    };
    let payees = vec![
        payee(1, 0x11, 60),
        payee(1, 0x12, 30),
        payee(2, 0x11, 170),
        payee(3, 0x13, 255),
        payee(3, 0x14, 15),
    ];
    check("payee_leaf_0", payees[0]);
    let payees = Plain::new(payees);
    check("payees_root", payees.root());
    let joined = |path: Vec<B256>| alloy_primitives::hex::encode(path.concat());
    assert_eq!(joined(payees.path(0)), golden["payee_path_0"]);
    assert_eq!(joined(payees.path(4)), golden["payee_path_4"]);
    let domain = domain(31337, Address::repeat_byte(9), 5);
    check("domain_separator", domain);
    let batch = Batch {
        seq: 1,
        lsnTo: 3505,
        prevHead: domain,
        stateRoot: golden["state_root"].parse().unwrap(),
        sumLocked: 6021,
        sumCredit: 530,
        guaranteedAck: 70,
        count: 42,
        dataHash: golden["data_hash"].parse().unwrap(),
    };
    check("head_1", keccak256(batch.abi_encode()));
    let lock_id = |n: u8| {
        let id = 0x018b_cfe5_687b_7fff_bfff_ffff_ffff_ff00_u128 + u128::from(n);
        let words = (U256::from(7) << 192) | (U256::from((3_u64 << 48) | 9) << 128) | U256::from(id);
        B256::from(words)
    };
    let lock = |n: u8| Lock {
        lockId: lock_id(n),
        version: n.into(),
        shard: 3,
        seq: 400 + u64::from(n),
        partition: partition(1),
        payee: Address::repeat_byte(0x11),
        amount: 1000 * u128::from(n),
        deadline: 1_700_000_000 + u64::from(n),
        releaseKey: Address::repeat_byte(0x31),
    };
    check("lock_hash_1", lock_hash(&lock(1)));
    let locks = Plain::new((1..=3).map(|n| lock_hash(&lock(n))).collect());
    check("lock_group_root", locks.root());
    check("lock_group_digest", digest(domain, "LockGroup", locks.root()));
    check("release_leaf_1", release_leaf(lock_id(1), 1, 100));
    check("keccak_empty", keccak256(enc(&[])));
}
