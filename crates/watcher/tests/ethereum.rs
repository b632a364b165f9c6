//! Tokens and the native coin: from a node that is not ours (Anvil), and from scripted ones that lie.

#![allow(clippy::unwrap_used)]

#[path = "../../chain/tests/support/anvil.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod anvil;
mod support;

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_sol_types::{SolCall, sol};
use anvil::Anvil;
use chain::{At, Backend, DigestSigner, JsonRpc, LocalKey, Receipt, RpcChain, Tag, Transaction, artifacts};
use serde_json::{Value, json};
use support::node::{Answer, Node};
use support::{account, watch};
use watcher::source::ethereum::{Coin, Token};
use watcher::source::{Source, SourceError};
use watcher::track::{Event, Track, Verdict};
use watcher::{Payment, Watch};

const CHAIN: u64 = 31337;
const ALICE: Address = Address::repeat_byte(0xa1);

sol! {
    function transfer(address to, uint256 value) external returns (bool);
    function mint(address to, uint256 value) external;
}

fn rpc(url: &str) -> JsonRpc {
    JsonRpc::new(url, Duration::from_secs(10))
}

/// A payer with an account on Anvil.
struct Payer {
    key: LocalKey,
    node: RpcChain,
}

impl Payer {
    fn on(anvil: &Anvil) -> Self {
        let key = LocalKey::from_bytes(&[7; 32]).unwrap();
        anvil.fund(key.address(), U256::from(10).pow(U256::from(20)));
        Self { key, node: anvil.backend() }
    }

    fn send(&mut self, to: TxKind, value: u64, input: Vec<u8>) -> B256 {
        let nonce = self.node.nonce(self.key.address(), At::Tag(Tag::Latest)).unwrap();
        let transaction = Transaction {
            chain_id: CHAIN,
            nonce,
            tip: 1_000_000_000,
            cap: 100_000_000_000,
            gas_limit: 2_000_000,
            to,
            value: U256::from(value),
            input: Bytes::from(input),
        };
        self.node.send(&transaction.sign(&self.key).unwrap().raw).unwrap()
    }

    fn send_and_mine(&mut self, anvil: &Anvil, to: TxKind, value: u64, input: Vec<u8>) -> Receipt {
        let hash = self.send(to, value, input);
        anvil.mine();
        self.node.receipt(hash).unwrap().unwrap()
    }
}

fn paid(to: Address, amount: u128) -> Payment {
    Payment { to: account(&format!("{to:#x}")), amount }
}

#[test]
fn transfers_of_the_token_are_payments_and_those_of_others_are_not() {
    let Some(anvil) = anvil::start() else { return };
    let mut payer = Payer::on(&anvil);
    let mut create = |anvil: &Anvil| {
        let receipt =
            payer.send_and_mine(anvil, TxKind::Create, 0, artifacts::swap_token().bytecode.to_vec());
        receipt.created.unwrap()
    };
    let (token, other) = (create(&anvil), create(&anvil));
    let own = payer.key.address();
    for contract in [token, other] {
        let mint = mintCall { to: own, value: U256::from(1_000) };
        payer.send_and_mine(&anvil, TxKind::Call(contract), 0, mint.abi_encode());
    }
    let source = Token::new(rpc(&anvil.url), CHAIN, token);
    source.check().unwrap();
    let pay = |value: u64| transferCall { to: ALICE, value: U256::from(value) }.abi_encode();
    let right = payer.send_and_mine(&anvil, TxKind::Call(token), 0, pay(60));
    let wrong = payer.send_and_mine(&anvil, TxKind::Call(other), 0, pay(60));
    let failed = payer.send_and_mine(&anvil, TxKind::Call(token), 0, pay(5_000));
    assert!(right.succeeded && wrong.succeeded && !failed.succeeded);
    let seen = source.block(right.number).unwrap().unwrap();
    assert_eq!((seen.at.hash, seen.payments), (right.block, vec![paid(ALICE, 60)]));
    assert_eq!(source.block(wrong.number).unwrap().unwrap().payments, [], "another token's");
    assert_eq!(source.block(failed.number).unwrap().unwrap().payments, []);
    assert_eq!(source.height(), Ok(failed.number));
    assert_eq!(source.block(failed.number + 1), Ok(None));
    let nobody = Token::new(rpc(&anvil.url), CHAIN, ALICE);
    assert!(matches!(nobody.check(), Err(SourceError::Nonsense(_))), "no contract there");
    let elsewhere = Token::new(rpc(&anvil.url), 1, token);
    let other = SourceError::OtherChain { expected: "1".to_owned(), found: CHAIN.to_string() };
    assert_eq!(elsewhere.check(), Err(other));
}

#[test]
fn the_coin_is_paid_by_transactions_that_succeed_on_the_branch_that_stays() {
    let Some(anvil) = anvil::start() else { return };
    let mut payer = Payer::on(&anvil);
    let source = Coin::new(rpc(&anvil.url), CHAIN);
    let amp = artifacts::swap_token().bytecode.to_vec();
    let contract = payer.send_and_mine(&anvil, TxKind::Create, 0, amp).created.unwrap();
    let plain = payer.send_and_mine(&anvil, TxKind::Call(ALICE), 77, Vec::new());
    // A contract that takes no coin: the value stays with the payer.
    let failed = payer.send_and_mine(&anvil, TxKind::Call(contract), 77, Vec::new());
    assert!(plain.succeeded && !failed.succeeded);
    assert_eq!(source.block(plain.number).unwrap().unwrap().payments, [paid(ALICE, 77)]);
    assert_eq!(source.block(failed.number).unwrap().unwrap().payments, []);

    let mut track = Track::new();
    let deadline_s = u64::MAX;
    let to = account(&format!("{ALICE:#x}"));
    track.add(Watch { amount: 50, deadline_s, to, ..watch(1, "x") }).unwrap();
    track.begin(failed.number + 1);
    let follow = |track: &mut Track| {
        let mut events = Vec::new();
        while let Some(block) = source.block(track.wanted().unwrap()).unwrap() {
            events.extend(track.offer(block).unwrap());
        }
        events
    };
    anvil.mine();
    payer.send_and_mine(&anvil, TxKind::Call(ALICE), 50, Vec::new());
    assert_eq!(follow(&mut track), []);
    anvil.reorg(1);
    anvil.mine();
    let events = follow(&mut track);
    assert!(matches!(events[..], [Event::TookBack { .. }]), "{events:?}");
    payer.send_and_mine(&anvil, TxKind::Call(ALICE), 51, Vec::new());
    anvil.mine();
    anvil.mine();
    let settled = Event::Decided { key: watch(1, "x").key, verdict: Verdict::Settle, paid: 51 };
    assert_eq!(follow(&mut track), [settled]);
}

/// A block of a scripted node, and what else it answers.
fn scripted(answer: fn(&str, &Value) -> Option<Value>) -> Node {
    Node::start(move |method, parameters| match answer(method, parameters) {
        Some(result) => Answer::Result(result.to_string()),
        None => Answer::Silence,
    })
}

const TOKEN: Address = Address::repeat_byte(0x70);
const BLOCK: B256 = B256::repeat_byte(0xb1);

fn header(transactions: Value) -> Option<Value> {
    Some(json!({
        "number": "0x5", "hash": BLOCK, "parentHash": B256::ZERO, "timestamp": "0x64", "transactions": transactions
    }))
}

fn transfer(alter: impl Fn(&mut Value)) -> Option<Value> {
    let mut log = json!({
        "address": TOKEN, "blockHash": BLOCK, "data": B256::with_last_byte(9), "removed": false,
        "topics": ["0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef", B256::ZERO, ALICE.into_word()]
    });
    alter(&mut log);
    Some(json!([log]))
}

#[test]
fn a_node_that_answers_something_else_is_not_believed() {
    let check = |answer: fn(&str, &Value) -> Option<Value>| {
        let node = scripted(answer);
        Token::new(rpc(&node.url), CHAIN, TOKEN).block(5)
    };
    let sound = check(|method, _| match method {
        "eth_getBlockByNumber" => header(json!([])),
        _ => transfer(|_| {}),
    });
    assert_eq!(sound.unwrap().unwrap().payments, [paid(ALICE, 9)]);
    let lies: [fn(&str, &Value) -> Option<Value>; 8] = [
        |method, _| {
            if method == "eth_getLogs" {
                transfer(|log| log["address"] = json!(ALICE))
            } else {
                header(json!([]))
            }
        },
        |method, _| {
            if method == "eth_getLogs" {
                transfer(|log| log["blockHash"] = json!(B256::ZERO))
            } else {
                header(json!([]))
            }
        },
        |method, _| {
            if method == "eth_getLogs" {
                transfer(|log| log["removed"] = json!(true))
            } else {
                header(json!([]))
            }
        },
        |method, _| {
            if method == "eth_getLogs" {
                transfer(|log| log["data"] = json!("0x"))
            } else {
                header(json!([]))
            }
        },
        |method, _| {
            if method == "eth_getLogs" {
                transfer(|log| log["topics"] = json!([B256::ZERO]))
            } else {
                header(json!([]))
            }
        },
        |method, _| if method == "eth_getLogs" { Some(json!({})) } else { header(json!([])) },
        |method, _| if method == "eth_getLogs" { transfer(|_| {}) } else { header(json!(null)) },
        |_, _| {
            Some(
                json!({ "number": "0x6", "hash": BLOCK, "parentHash": BLOCK, "timestamp": "0x1", "transactions": [] }),
            )
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        assert!(matches!(check(lie), Err(SourceError::Nonsense(_))), "lie {number}");
    }
    assert!(matches!(check(|_, _| None), Err(SourceError::Unreachable(_))));
    assert_eq!(check(|_, _| Some(Value::Null)), Ok(None));
}

#[test]
fn a_coin_without_its_receipt_is_not_believed() {
    let check = |answer: fn(&str, &Value) -> Option<Value>| {
        let node = scripted(answer);
        Coin::new(rpc(&node.url), CHAIN).block(5)
    };
    fn paying() -> Option<Value> {
        header(json!([{ "hash": B256::with_last_byte(1), "to": ALICE, "value": "0x9" }]))
    }
    let one: fn(&str, &Value) -> Option<Value> = |method, _| match method {
        "eth_getBlockByNumber" => paying(),
        _ => {
            Some(json!([{ "transactionHash": B256::with_last_byte(1), "blockHash": BLOCK, "status": "0x1" }]))
        }
    };
    assert_eq!(check(one).unwrap().unwrap().payments, [paid(ALICE, 9)]);
    let lies: [fn(&str, &Value) -> Option<Value>; 3] = [
        |method, _| if method == "eth_getBlockByNumber" { paying() } else { Some(json!([])) },
        |method, _| if method == "eth_getBlockByNumber" { paying() } else { Some(Value::Null) },
        |method, _| match method {
            "eth_getBlockByNumber" => paying(),
            _ => Some(
                json!([{ "transactionHash": B256::with_last_byte(1), "blockHash": B256::ZERO, "status": "0x1" }]),
            ),
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        assert!(matches!(check(lie), Err(SourceError::Nonsense(_))), "lie {number}");
    }
}
