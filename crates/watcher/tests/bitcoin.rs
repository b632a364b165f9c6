//! Bitcoin Core's JSON-RPC, from a scripted node with blocks in the shape that a regtest node gives them.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_primitives::keccak256;
use chain::JsonRpc;
use serde_json::json;
use support::node::{Answer, Node};
use support::{account, watch};
use watcher::source::bitcoin::Bitcoin;
use watcher::source::{Source, SourceError};
use watcher::track::{Event, Track, Verdict};
use watcher::{Payment, Watch};

const ALICE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const BOB: &str = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry";

/// A node's blocks: their branch, and the outputs of the transactions behind the first.
type Blocks = Arc<Mutex<Vec<(&'static str, Vec<(&'static str, &'static str)>)>>>;

fn hash(blocks: &[(&str, Vec<(&str, &str)>)], number: usize) -> String {
    let branches: Vec<&str> = blocks[..=number].iter().map(|(branch, _)| *branch).collect();
    keccak256(format!("{branches:?}")).to_string().trim_start_matches("0x").to_owned()
}

fn output(number: usize, value: &str, address: &str) -> String {
    format!(
        r#"{{"value": {value}, "n": {number}, "scriptPubKey": {{"asm": "0 751e", "desc": "addr({address})#x",
            "hex": "0014751e", "address": "{address}", "type": "witness_v0_keyhash"}}}}"#
    )
}

/// A block as `getblock HASH 2` prints it.
fn block(blocks: &[(&str, Vec<(&str, &str)>)], number: usize) -> String {
    let outputs: Vec<String> =
        blocks[number].1.iter().enumerate().map(|(n, (to, value))| output(n, value, to)).collect();
    let parent = match number.checked_sub(1) {
        Some(before) => format!(r#""previousblockhash": "{}","#, hash(blocks, before)),
        None => String::new(),
    };
    format!(
        r#"{{"hash": "{}", "confirmations": {}, "height": {number}, "version": 536870912, "versionHex": "20000000",
            "merkleroot": "4a5e1e", "time": {}, "mediantime": {}, "nonce": 2, "bits": "207fffff",
            "difficulty": 4.656542373906925e-10, "chainwork": "02", "nTx": 2, {parent} "strippedsize": 214,
            "size": 250, "weight": 892, "tx": [
            {{"txid": "c0", "hash": "c0", "version": 2, "size": 84, "locktime": 0, "vin": [{{"coinbase": "0101",
              "txinwitness": ["00"], "sequence": 4294967295}}], "vout": [{}, {{"value": 0.00000000, "n": 1,
              "scriptPubKey": {{"asm": "OP_RETURN", "hex": "6a24", "type": "nulldata"}}}}], "hex": "02"}},
            {{"txid": "a1", "hash": "a2", "version": 2, "size": 222, "locktime": 0, "vin": [{{"txid": "b0", "vout": 0,
              "scriptSig": {{"asm": "", "hex": ""}}, "sequence": 4294967293}}], "vout": [{}], "fee": 0.00000141,
              "hex": "02"}}]}}"#,
        hash(blocks, number),
        blocks.len() - number,
        support::time_of(number as u64) + 7_000,
        support::time_of(number as u64),
        output(0, "50.00000000", ALICE),
        outputs.join(", "),
    )
}

/// A block with as little as is read of it.
fn bare(hash: &str, height: u64, confirmations: i64, value: &str) -> String {
    format!(
        r#"{{"hash": "{hash}", "height": {height}, "confirmations": {confirmations}, "mediantime": 1,
            "tx": [{{"vin": [{{"txid": "00"}}], "vout": [{{"value": {value}, "scriptPubKey": {{}}}}]}}]}}"#
    )
}

fn node(blocks: &Blocks) -> Node {
    let blocks = blocks.clone();
    Node::start(move |method, parameters| {
        let blocks = blocks.lock().unwrap();
        match method {
            "getblockchaininfo" => {
                Answer::Result(json!({ "chain": "regtest", "blocks": blocks.len() - 1 }).to_string())
            }
            "getblockcount" => Answer::Result((blocks.len() - 1).to_string()),
            "getblockhash" => match usize::try_from(parameters[0].as_u64().unwrap()).unwrap() {
                number if number < blocks.len() => Answer::Result(format!("\"{}\"", hash(&blocks, number))),
                _ => Answer::Error(-8, "Block height out of range"),
            },
            "getblock" if parameters[1] == 2 => {
                let mut numbers = 0..blocks.len();
                match numbers.find(|number| parameters[0] == hash(&blocks, *number)) {
                    Some(number) => Answer::Result(block(&blocks, number)),
                    None => Answer::Error(-5, "Block not found"),
                }
            }
            other => panic!("{other}"),
        }
    })
}

fn source(node: &Node, chain: &str) -> Bitcoin {
    Bitcoin::new(JsonRpc::new(&node.url, Duration::from_secs(10)), chain)
}

#[test]
fn outputs_to_addresses_are_payments_and_what_miners_pay_themselves_is_not() {
    let blocks = Blocks::default();
    blocks.lock().unwrap().extend([
        ("main", vec![]),
        (
            "main",
            vec![
                (ALICE, "0.00100000"),
                (BOB, "20999999.99999999"),
                (ALICE, "0.00000001"),
                (BOB, "0.00000000"),
            ],
        ),
    ]);
    let node = node(&blocks);
    let source = source(&node, "regtest");
    source.check().unwrap();
    assert_eq!(source.height(), Ok(1));
    assert_eq!(source.block(2), Ok(None));
    let seen = source.block(1).unwrap().unwrap();
    assert_eq!((seen.at.number, seen.time_s), (1, support::time_of(1)), "the median's time");
    assert_eq!(seen.parent, source.block(0).unwrap().unwrap().at.hash);
    let paid = |to, amount| Payment { to: account(to), amount };
    assert_eq!(seen.payments, [paid(ALICE, 100_000), paid(BOB, 2_099_999_999_999_999), paid(ALICE, 1)]);
}

#[test]
fn a_reorganization_is_followed_by_hash() {
    let blocks = Blocks::default();
    blocks.lock().unwrap().extend([
        ("main", vec![]),
        ("main", vec![]),
        ("main", vec![(ALICE, "0.00000100")]),
    ]);
    let node = node(&blocks);
    let source = source(&node, "regtest");
    let mut track = Track::new();
    track.add(watch(1, ALICE)).unwrap();
    track.add(Watch { amount: 40, ..watch(2, BOB) }).unwrap();
    track.begin(0);
    let follow = |track: &mut Track| {
        let mut events = Vec::new();
        while let Some(block) = source.block(track.wanted().unwrap()).unwrap() {
            events.extend(track.offer(block).unwrap());
        }
        events
    };
    blocks.lock().unwrap().push(("main", vec![]));
    assert_eq!(follow(&mut track), [], "Alice's payment has two confirmations");
    {
        let mut blocks = blocks.lock().unwrap();
        blocks.truncate(2);
        blocks.extend([
            ("other", vec![]),
            ("other", vec![(BOB, "0.00000040")]),
            ("other", vec![]),
            ("other", vec![]),
        ]);
    }
    let events = follow(&mut track);
    assert!(events[..2].iter().all(|event| matches!(event, Event::TookBack { .. })), "{events:?}");
    let settled = Event::Decided { key: watch(2, BOB).key, verdict: Verdict::Settle, paid: 40 };
    assert_eq!(events[2..], [settled]);
}

#[test]
fn a_node_that_is_wrong_stalls_or_lies_is_not_believed() {
    let blocks = Blocks::default();
    blocks.lock().unwrap().push(("main", vec![]));
    let node = node(&blocks);
    let other = SourceError::OtherChain { expected: "main".to_owned(), found: "regtest".to_owned() };
    assert_eq!(source(&node, "main").check(), Err(other));
    let check = |text: fn(&str) -> String| {
        let lies = Node::start(move |method, _| match method {
            "getblockhash" => Answer::Result(format!("\"{}\"", "ab".repeat(32))),
            _ => Answer::Result(text(&"ab".repeat(32))),
        });
        source(&lies, "regtest").block(7)
    };
    assert!(check(|hash| bare(hash, 7, 1, "0.1")).unwrap().unwrap().payments.is_empty(), "no address");
    assert_eq!(check(|hash| bare(hash, 7, -1, "0.1")), Ok(None), "no longer in the chain");
    let lies: [fn(&str) -> String; 5] = [
        |_| bare(&"cd".repeat(32), 7, 1, "0.1"),
        |hash| bare(hash, 8, 1, "0.1"),
        |hash| bare(hash, 7, 1, "-0.1"),
        |hash| bare(hash, 7, 1, "\"lots\""),
        |_| "[]".to_owned(),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        assert!(matches!(check(lie), Err(SourceError::Nonsense(_))), "lie {number}");
    }
    let silent = Node::start(|_, _| Answer::Silence);
    assert!(matches!(source(&silent, "regtest").block(0), Err(SourceError::Unreachable(_))));
    let busy = Node::start(|_, _| Answer::Error(-28, "Loading block index..."));
    assert!(matches!(source(&busy, "regtest").height(), Err(SourceError::Unreachable(_))));
}

#[test]
fn the_node_says_how_an_address_is_written() {
    let node = Node::start(|method, params| {
        assert_eq!(method, "validateaddress");
        match params[0].as_str().unwrap() {
            "upperCase1" => Answer::Result(format!(r#"{{"isvalid": true, "address": "{ALICE}"}}"#)),
            "broken" => Answer::Result("{}".to_owned()),
            _ => Answer::Result(r#"{"isvalid": false, "error": "Invalid checksum"}"#.to_owned()),
        }
    });
    let source = Bitcoin::new(JsonRpc::new(&node.url, Duration::from_secs(5)), "regtest");
    assert_eq!(source.account(&account("upperCase1")).unwrap(), Some(account(ALICE)));
    assert_eq!(source.account(&account("bcrt1qmistyped")).unwrap(), None);
    assert!(matches!(source.account(&account("broken")), Err(SourceError::Nonsense(_))));
}
