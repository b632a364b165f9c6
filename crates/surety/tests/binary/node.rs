//! A whole chain in this process, as a node that other processes ask over JSON-RPC.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_primitives::{Address, B256, Bytes, U256};
use chain::{
    At, Backend, BackendError, Call, CallError, DevChain, DevConfig, LocalKey, LogFilter, LoggedEvent,
    SendError, Tag, send_and_mine,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The chain behind its address. It ends with the process.
pub(crate) struct DevNode {
    pub(crate) url: String,
    chain: Arc<Mutex<DevChain>>,
}

impl DevNode {
    /// A chain whose clock is behind the wall's, so that blocks can be made faster than they are.
    pub(crate) fn start() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let config = DevConfig { time: now - 3000, ..DevConfig::default() };
        let chain = Arc::new(Mutex::new(DevChain::new(config)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = chain.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Whoever is killed in the middle of a question gets no answer.
                let _ = serve(stream, &served);
            }
        });
        Self { url, chain }
    }

    pub(crate) fn chain(&self) -> MutexGuard<'_, DevChain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn send(&self, key: &LocalKey, to: Address, input: Vec<u8>) {
        let receipt = send_and_mine(&mut self.chain(), key, to, input.into()).unwrap();
        assert!(receipt.succeeded);
    }
}

fn serve(mut stream: TcpStream, chain: &Mutex<DevChain>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let question: Value = serde_json::from_slice(&body)?;
    let mut chain = chain.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = match answer(&mut chain, question["method"].as_str().unwrap(), &question["params"]) {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }),
        Err(error) => json!({ "jsonrpc": "2.0", "id": question["id"], "error": error }),
    };
    let text = answer.to_string();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
    stream.write_all((head + &text).as_bytes())
}

fn answer(chain: &mut DevChain, method: &str, asked: &Value) -> Result<Value, Value> {
    let quantity = |number: u128| json!(format!("{number:#x}"));
    let lost = |error: BackendError| json!({ "code": -32000, "message": error.to_string() });
    Ok(match method {
        "eth_chainId" => quantity(chain.chain_id().map_err(lost)?.into()),
        "eth_getBlockByNumber" => match chain.block(tag(&asked[0])).map_err(lost)? {
            None => Value::Null,
            Some(block) => json!({
                "number": quantity(block.number.into()), "hash": block.hash, "parentHash": block.parent,
                "timestamp": quantity(block.time.into()), "baseFeePerGas": quantity(block.base_fee),
            }),
        },
        "eth_getTransactionCount" => {
            quantity(chain.nonce(read(&asked[0]), at(&asked[1])).map_err(lost)?.into())
        }
        "eth_getBalance" => {
            let balance: U256 = chain.balance(read(&asked[0]), at(&asked[1])).map_err(lost)?;
            json!(format!("{balance:#x}"))
        }
        "eth_getCode" => json!(chain.code(read(&asked[0]), at(&asked[1])).map_err(lost)?),
        "eth_call" => {
            let (from, to, input) =
                (read(&asked[0]["from"]), read(&asked[0]["to"]), read(&asked[0]["input"]));
            match chain.call(&Call { from, to, input }, at(&asked[1])) {
                Ok(output) => json!(output),
                Err(CallError::Reverted(data)) => {
                    return Err(json!({ "code": 3, "message": "execution reverted", "data": data }));
                }
                Err(CallError::Backend(error)) => return Err(lost(error)),
            }
        }
        "eth_sendRawTransaction" => match chain.send(&read::<Bytes>(&asked[0])) {
            Ok(hash) => json!(hash),
            Err(SendError::Backend(error)) => return Err(lost(error)),
            Err(error) => return Err(json!({ "code": -32000, "message": error.to_string() })),
        },
        "eth_getTransactionReceipt" => match chain.receipt(read(&asked[0])).map_err(lost)? {
            None => Value::Null,
            Some(receipt) => json!({
                "transactionHash": receipt.transaction, "blockHash": receipt.block,
                "blockNumber": quantity(receipt.number.into()),
                "status": quantity(u128::from(receipt.succeeded)), "gasUsed": quantity(receipt.gas_used.into()),
                "effectiveGasPrice": quantity(receipt.gas_price), "contractAddress": receipt.created,
                "logs": receipt.events.iter().map(event).collect::<Vec<_>>(),
            }),
        },
        "eth_getTransactionByHash" => match chain.is_pending(read(&asked[0])).map_err(lost)? {
            true => json!({ "blockHash": null }),
            false => Value::Null,
        },
        "eth_getLogs" => {
            let number = |value: &Value| read::<U256>(value).to::<u64>();
            let topic = Some(&asked[0]["topics"][0]).filter(|topic| !topic.is_null()).map(read::<B256>);
            let (from, to) = (number(&asked[0]["fromBlock"]), number(&asked[0]["toBlock"]));
            let filter = LogFilter { address: read(&asked[0]["address"]), topic, from, to };
            json!(chain.logs(&filter).map_err(lost)?.iter().map(event).collect::<Vec<_>>())
        }
        other => return Err(json!({ "code": -32601, "message": format!("no method {other}") })),
    })
}

fn event(event: &LoggedEvent) -> Value {
    json!({
        "address": event.address, "topics": event.topics, "data": event.data, "blockHash": event.block,
        "blockNumber": format!("{:#x}", event.number), "transactionHash": event.transaction,
    })
}

fn tag(name: &Value) -> Tag {
    match name.as_str().unwrap() {
        "safe" => Tag::Safe,
        "finalized" => Tag::Finalized,
        _ => Tag::Latest,
    }
}

fn at(block: &Value) -> At {
    if block.is_string() { At::Tag(tag(block)) } else { At::Hash(read(&block["blockHash"])) }
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}
