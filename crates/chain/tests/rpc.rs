//! The JSON-RPC client against a scripted node: what it asks, and what it makes of every kind of answer.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256};
use chain::{
    At, Backend, BackendError, Call, CallError, JsonRpc, LogFilter, RpcChain, RpcError, SendError, Tag,
};
use serde_json::{Value, json};

/// What the scripted node does with one question. In texts `ID` stands for the question's.
enum Act {
    Say(String),
    Status(u16, &'static str),
    /// Sends the head of an answer, and then nothing.
    Stall,
    /// Sends more bytes than anybody reads.
    Flood,
    HangUp,
}

/// Does one thing with one question each; returns what was asked.
fn node_that(acts: Vec<Act>) -> (String, JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/secret-path", listener.local_addr().unwrap());
    let serve = move || acts.into_iter().map(|act| serve_one(&listener, &act)).collect();
    (url, std::thread::spawn(serve))
}

fn node(answers: Vec<String>) -> (RpcChain, JoinHandle<Vec<Value>>) {
    let (url, asked) = node_that(answers.into_iter().map(Act::Say).collect());
    (RpcChain::new(&url, Duration::from_secs(10)), asked)
}

fn serve_one(listener: &TcpListener, act: &Act) -> Value {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let question: Value = serde_json::from_slice(&body).unwrap();
    let head = |status: u16, length: usize| {
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
    };
    match act {
        Act::Say(answer) => {
            let text = answer.replace("ID", &question["id"].to_string());
            stream.write_all((head(200, text.len()) + &text).as_bytes()).unwrap();
        }
        Act::Status(status, text) => {
            let text = text.replace("ID", &question["id"].to_string());
            stream.write_all((head(*status, text.len()) + &text).as_bytes()).unwrap();
        }
        Act::Stall => {
            stream.write_all(head(200, 10).as_bytes()).unwrap();
            // Until the other side gives up.
            let _ = stream.read(&mut [0]);
        }
        Act::Flood => {
            let _ = stream.write_all(head(200, 1 << 30).as_bytes());
            while stream.write_all(&[b' '; 4096]).is_ok() {}
        }
        Act::HangUp => {}
    }
    question
}

fn result(value: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": "ID", "result": value }).to_string().replace("\"ID\"", "ID")
}

fn error(message: &str, data: Option<&str>) -> String {
    let error = json!({ "code": -32000, "message": message, "data": data });
    json!({ "jsonrpc": "2.0", "id": "ID", "error": error }).to_string().replace("\"ID\"", "ID")
}

#[test]
fn reads_name_their_block_and_are_of_no_cache() {
    let account = Address::repeat_byte(7);
    let block = B256::repeat_byte(0xab);
    let (chain, asked) = node(vec![
        result(json!("0x7a69")),
        result(json!("0x5")),
        result(json!("0xde0b6b3a7640000")),
        result(json!("0x6001")),
        result(json!({
            "number": "0x10", "hash": block, "parentHash": B256::repeat_byte(1), "timestamp": "0x64",
            "baseFeePerGas": "0x3b9aca00"
        })),
    ]);
    assert_eq!(chain.chain_id(), Ok(31337));
    assert_eq!(chain.nonce(account, At::Hash(block)), Ok(5));
    assert_eq!(
        chain.balance(account, At::Tag(Tag::Finalized)),
        Ok(U256::from(1_000_000_000_000_000_000_u64))
    );
    assert_eq!(chain.code(account, At::Tag(Tag::Safe)), Ok(Bytes::from_static(&[0x60, 1])));
    let latest = chain.block(Tag::Latest).unwrap().unwrap();
    assert_eq!((latest.number, latest.hash, latest.time, latest.base_fee), (16, block, 100, 1_000_000_000));
    let asked = asked.join().unwrap();
    let methods: Vec<&str> = asked.iter().map(|question| question["method"].as_str().unwrap()).collect();
    assert_eq!(
        methods,
        ["eth_chainId", "eth_getTransactionCount", "eth_getBalance", "eth_getCode", "eth_getBlockByNumber"]
    );
    assert_eq!(asked[1]["params"], json!([account, { "blockHash": block, "requireCanonical": true }]));
    assert_eq!(asked[2]["params"][1], "finalized");
}

#[test]
fn a_node_that_lies_or_fails_is_told_from_a_chain_that_says_no() {
    let account = Address::repeat_byte(7);
    let check = |answer: String| {
        let (chain, asked) = node(vec![answer]);
        let got = chain.nonce(account, At::Hash(B256::ZERO)).unwrap_err();
        asked.join().unwrap();
        got
    };
    assert_eq!(check(error("header not found", None)), BackendError::UnknownBlock);
    assert_eq!(check(error("hash 0x00 is not currently canonical", None)), BackendError::UnknownBlock);
    for nonsense in [
        result(json!("5")),
        result(json!("0x")),
        result(json!("0x10000000000000000")),
        result(json!(null)),
        result(json!({})),
        "{\"jsonrpc\":\"2.0\",\"id\":987654,\"result\":\"0x1\"}".to_owned(),
        "{\"jsonrpc\":\"2.0\",\"id\":ID}".to_owned(),
        "{\"jsonrpc\":\"2.0\",\"id\":987654,\"error\":{\"message\":\"header not found\"}}".to_owned(),
        "{\"jsonrpc\":\"2.0\",\"result\":\"0x1\"}".to_owned(),
    ] {
        assert!(matches!(check(nonsense.clone()), BackendError::Nonsense(_)), "{nonsense}");
    }
    assert!(matches!(check(error("rate limit exceeded", None)), BackendError::Unreachable(_)));
    for unreadable in ["<html>too busy</html>", "", "{\"id\":ID,\"result\":", "null"] {
        assert!(matches!(check(unreadable.to_owned()), BackendError::Unreachable(_)), "{unreadable}");
    }
}

#[test]
fn a_node_that_stalls_floods_or_fails_costs_its_time_and_no_more() {
    let check = |act: Act| {
        let is_silent = matches!(act, Act::Stall);
        let (url, asked) = node_that(vec![act]);
        // Whoever says something may take longer over it on a busy machine than silence is waited for.
        let patience = Duration::from_millis(if is_silent { 500 } else { 30_000 });
        let node = JsonRpc::new(&url, patience).with_answer_limit(1 << 20);
        let got = node.ask("eth_chainId", &json!([])).unwrap_err();
        assert!(!format!("{got} {got:?} {node:?}").contains("secret"), "{got:?}");
        drop(node);
        asked.join().unwrap();
        got
    };
    assert!(matches!(check(Act::Stall), RpcError::Unreachable(_)));
    assert!(matches!(check(Act::HangUp), RpcError::Unreachable(_)));
    assert!(matches!(check(Act::Flood), RpcError::Nonsense(_)));
    let moved = Act::Status(307, "{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":\"0x1\"}");
    assert!(matches!(check(moved), RpcError::Unreachable(_)), "not followed, and not believed");
    assert!(matches!(check(Act::Status(502, "bad gateway")), RpcError::Unreachable(_)));
    let refused =
        check(Act::Status(500, "{\"id\":ID,\"error\":{\"code\":-8,\"message\":\"no\"},\"result\":null}"));
    assert!(matches!(refused, RpcError::Refused(refusal) if refusal.code == -8 && refusal.message == "no"));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    let silent = RpcChain::new(&url, Duration::from_millis(50));
    assert!(matches!(silent.chain_id(), Err(BackendError::Unreachable(_))), "it never answers");
    for wrong in ["", "nonsense", "ftp://127.0.0.1/secret", "http://"] {
        let error = JsonRpc::new(wrong, Duration::from_millis(50)).ask("x", &json!([])).unwrap_err();
        assert!(matches!(&error, RpcError::Unreachable(why) if !why.contains("secret")), "{error}");
    }
}

#[test]
fn numbers_of_a_result_can_be_had_as_they_are_written() {
    let (url, asked) = node_that(vec![
        Act::Say("{\"id\":ID,\"result\":[0.10000000, 12345678901234567890.12]}".to_owned()),
        Act::Say("{\"id\":ID,\"result\":null,\"error\":null}".to_owned()),
    ]);
    let node = JsonRpc::new(&url, Duration::from_secs(10)).with_login("x:y");
    assert_eq!(node.ask_raw("a", &json!([])).unwrap(), "[0.10000000, 12345678901234567890.12]");
    assert_eq!(node.ask_raw("b", &json!([])).unwrap(), "null");
    asked.join().unwrap();
}

#[test]
fn there_may_be_no_final_block_yet() {
    let (chain, asked) = node(vec![result(json!(null)), error("finalized block not found", None)]);
    assert_eq!(chain.block(Tag::Finalized), Ok(None));
    assert_eq!(chain.block(Tag::Finalized), Ok(None));
    asked.join().unwrap();
}

#[test]
fn a_revert_carries_its_reason_if_there_is_one() {
    let call = Call { from: Address::ZERO, to: Address::repeat_byte(1), input: Bytes::from_static(&[1, 2]) };
    let check = |answer: String| {
        let (chain, asked) = node(vec![answer]);
        let got = chain.call(&call, At::Tag(Tag::Latest));
        asked.join().unwrap();
        got
    };
    let reason = Bytes::from_static(&[0xde, 0xad]);
    assert_eq!(check(result(json!("0x0102"))), Ok(Bytes::from_static(&[1, 2])));
    assert_eq!(check(error("execution reverted", Some("0xdead"))), Err(CallError::Reverted(reason)));
    assert_eq!(check(error("execution reverted", None)), Err(CallError::Reverted(Bytes::new())));
    let unknown = CallError::Backend(BackendError::UnknownBlock);
    assert_eq!(check(error("header not found", None)), Err(unknown));
}

#[test]
fn refusals_of_a_transaction_are_told_apart() {
    for (message, expected) in [
        ("already known", SendError::AlreadyKnown),
        ("nonce too low: next nonce 12, tx nonce 3", SendError::NonceTooLow(12)),
        ("replacement transaction underpriced", SendError::Underpriced),
        ("transaction underpriced: tip needed 1, tip permitted 0", SendError::Underpriced),
        ("max fee per gas less than block base fee", SendError::Underpriced),
        ("insufficient funds for gas * price + value", SendError::InsufficientFunds),
        ("oversized data: transaction size 140000, limit 131072", SendError::Oversized),
        ("exceeds block gas limit", SendError::GasLimit),
        ("intrinsic gas too low: gas 20999, minimum needed 21000", SendError::GasLimit),
        ("txpool is full", SendError::PoolFull),
        ("invalid chain id for signer: have 1 want 31337", SendError::OtherChain),
        ("rlp: expected input list", SendError::Malformed),
    ] {
        let (mut chain, asked) = node(vec![error(message, None)]);
        assert_eq!(chain.send(&[2, 1]), Err(expected), "{message}");
        assert_eq!(asked.join().unwrap()[0]["params"], json!(["0x0201"]));
    }
    let hash = alloy_primitives::keccak256([2]);
    let (mut chain, asked) =
        node(vec![error("a new kind of trouble", None), result(json!(B256::ZERO)), result(json!(hash))]);
    assert!(matches!(chain.send(&[2]), Err(SendError::Backend(BackendError::Nonsense(_)))));
    assert!(matches!(chain.send(&[2]), Err(SendError::Backend(BackendError::Nonsense(_)))), "another's hash");
    assert_eq!(chain.send(&[2]), Ok(hash));
    asked.join().unwrap();
}

#[test]
fn receipts_and_events_are_read_and_what_was_taken_back_is_not() {
    let (transaction, block) = (B256::repeat_byte(2), B256::repeat_byte(3));
    let address = Address::repeat_byte(4);
    let log = |removed: bool| {
        json!({
            "address": address, "topics": [B256::repeat_byte(5)], "data": "0x01", "blockHash": block,
            "blockNumber": "0x9", "transactionHash": transaction, "removed": removed
        })
    };
    let receipt_json = json!({
        "transactionHash": transaction, "blockHash": block, "blockNumber": "0x9", "status": "0x0", "gasUsed": "0x5208",
        "effectiveGasPrice": "0x3b9aca00", "contractAddress": null, "logs": [log(false)]
    });
    let (chain, asked) = node(vec![
        result(receipt_json.clone()),
        result(json!(null)),
        result(json!({ "blockHash": null })),
        result(json!({ "blockHash": block })),
        result(json!([log(true), log(false)])),
    ]);
    let receipt = chain.receipt(transaction).unwrap().unwrap();
    assert!(!receipt.succeeded && receipt.gas_used == 21_000 && receipt.created.is_none());
    assert_eq!(chain.receipt(transaction), Ok(None));
    assert_eq!(chain.is_pending(transaction), Ok(true));
    assert_eq!(chain.is_pending(transaction), Ok(false));
    let filter = LogFilter { address, topic: Some(B256::repeat_byte(5)), from: 8, to: 20 };
    let events = chain.logs(&filter).unwrap();
    assert_eq!(events, receipt.events);
    let asked = asked.join().unwrap();
    let (liar, asked_too) =
        node(vec![result(receipt_json), result(json!([log(false)])), result(json!([log(false)]))]);
    assert!(matches!(liar.receipt(B256::ZERO), Err(BackendError::Nonsense(_))), "another transaction's");
    let elsewhere = LogFilter { address: Address::ZERO, ..filter.clone() };
    assert!(matches!(liar.logs(&elsewhere), Err(BackendError::Nonsense(_))), "another contract's");
    let later = LogFilter { from: 10, ..filter };
    assert!(matches!(liar.logs(&later), Err(BackendError::Nonsense(_))), "another block's");
    asked_too.join().unwrap();
    let expected = json!({
        "address": address, "fromBlock": "0x8", "toBlock": "0x14", "topics": [B256::repeat_byte(5)]
    });
    assert_eq!(asked[4]["params"], json!([expected]));
}
