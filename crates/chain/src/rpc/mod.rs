//! A node's JSON-RPC as a [`Backend`]. Nothing is cached: every answer is the node's own, of the block that was named, and an
//! answer to something else than what was asked is refused.

mod refusal;
mod text;

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use serde_json::{Value, json};

use crate::backend::{
    At, Backend, BackendError, Block, Call, CallError, LogFilter, LoggedEvent, Receipt, SendError, Tag,
};
use crate::json_rpc::{JsonRpc, RpcError};
use refusal::{is_no_block, is_revert, read_error, revert_data, send_error};
use text::{address, bytes, hash, quantity, quantity_u64, quantity_u128};

/// A node of an Ethereum chain.
#[derive(Debug)]
pub struct RpcChain {
    node: JsonRpc,
}

impl RpcChain {
    /// A node at an `http` or `https` address; a question that is not answered within `timeout` fails.
    #[must_use]
    pub fn new(url: &str, timeout: Duration) -> Self {
        Self { node: JsonRpc::new(url, timeout) }
    }

    /// The node behind it, for questions that [`Backend`] does not have.
    #[must_use]
    pub const fn node(&self) -> &JsonRpc {
        &self.node
    }

    fn read(&self, method: &str, parameters: &Value) -> Result<Value, BackendError> {
        self.node.ask(method, parameters).map_err(read_error)
    }
}

impl Backend for RpcChain {
    fn chain_id(&self) -> Result<u64, BackendError> {
        quantity_u64(&self.read("eth_chainId", &json!([]))?)
    }

    fn block(&self, tag: Tag) -> Result<Option<Block>, BackendError> {
        let block = match self.node.ask("eth_getBlockByNumber", &json!([tag_name(tag), false])) {
            Ok(block) => block,
            // Before there is such a block, nodes refuse the tag instead of answering null.
            Err(RpcError::Refused(refusal)) if is_no_block(&refusal) => return Ok(None),
            Err(error) => return Err(read_error(error)),
        };
        if block.is_null() {
            return Ok(None);
        }
        Ok(Some(Block {
            number: quantity_u64(&block["number"])?,
            hash: hash(&block["hash"])?,
            parent: hash(&block["parentHash"])?,
            time: quantity_u64(&block["timestamp"])?,
            base_fee: quantity_u128(&block["baseFeePerGas"])?,
        }))
    }

    fn nonce(&self, account: Address, at: At) -> Result<u64, BackendError> {
        quantity_u64(&self.read("eth_getTransactionCount", &json!([account, block_name(at)]))?)
    }

    fn balance(&self, account: Address, at: At) -> Result<U256, BackendError> {
        quantity(&self.read("eth_getBalance", &json!([account, block_name(at)]))?)
    }

    fn code(&self, account: Address, at: At) -> Result<Bytes, BackendError> {
        bytes(&self.read("eth_getCode", &json!([account, block_name(at)]))?)
    }

    fn call(&self, call: &Call, at: At) -> Result<Bytes, CallError> {
        let question = json!({ "from": call.from, "to": call.to, "input": call.input });
        match self.node.ask("eth_call", &json!([question, block_name(at)])) {
            Ok(output) => Ok(bytes(&output)?),
            Err(RpcError::Refused(refusal)) => match revert_data(&refusal) {
                Some(data) => Err(CallError::Reverted(data)),
                None if is_revert(&refusal) => Err(CallError::Reverted(Bytes::new())),
                None => Err(read_error(RpcError::Refused(refusal)).into()),
            },
            Err(error) => Err(read_error(error).into()),
        }
    }

    fn send(&mut self, raw: &[u8]) -> Result<B256, SendError> {
        let answer = self.node.ask("eth_sendRawTransaction", &json!([Bytes::copy_from_slice(raw)]));
        let sent = match answer {
            Ok(answer) => hash(&answer)?,
            Err(RpcError::Refused(refusal)) => return Err(send_error(refusal)),
            Err(error) => return Err(read_error(error).into()),
        };
        if sent == keccak256(raw) { Ok(sent) } else { Err(other("transaction").into()) }
    }

    fn receipt(&self, transaction: B256) -> Result<Option<Receipt>, BackendError> {
        let receipt = self.read("eth_getTransactionReceipt", &json!([transaction]))?;
        if receipt.is_null() {
            return Ok(None);
        }
        let created = &receipt["contractAddress"];
        let receipt = Receipt {
            transaction: hash(&receipt["transactionHash"])?,
            block: hash(&receipt["blockHash"])?,
            number: quantity_u64(&receipt["blockNumber"])?,
            succeeded: quantity_u64(&receipt["status"])? == 1,
            gas_used: quantity_u64(&receipt["gasUsed"])?,
            gas_price: quantity_u128(&receipt["effectiveGasPrice"])?,
            created: if created.is_null() { None } else { Some(address(created)?) },
            events: events(&receipt["logs"])?,
        };
        if receipt.transaction == transaction { Ok(Some(receipt)) } else { Err(other("transaction")) }
    }

    fn is_pending(&self, transaction: B256) -> Result<bool, BackendError> {
        let found = self.read("eth_getTransactionByHash", &json!([transaction]))?;
        Ok(!found.is_null() && found["blockHash"].is_null())
    }

    fn logs(&self, filter: &LogFilter) -> Result<Vec<LoggedEvent>, BackendError> {
        let question = json!({
            "address": filter.address,
            "fromBlock": format!("{:#x}", filter.from),
            "toBlock": format!("{:#x}", filter.to),
            "topics": [filter.topic],
        });
        let events = events(&self.read("eth_getLogs", &json!([question]))?)?;
        let is_wanted = |event: &LoggedEvent| {
            event.address == filter.address
                && (filter.from..=filter.to).contains(&event.number)
                && filter.topic.is_none_or(|topic| event.topics.first() == Some(&topic))
        };
        if events.iter().all(is_wanted) { Ok(events) } else { Err(other("event")) }
    }
}

fn events(logs: &Value) -> Result<Vec<LoggedEvent>, BackendError> {
    let logs = logs.as_array().ok_or_else(|| BackendError::Nonsense("no list of events".to_owned()))?;
    // An event that was asked for and then taken back is none.
    logs.iter().filter(|log| log["removed"] != json!(true)).map(event).collect()
}

fn event(log: &Value) -> Result<LoggedEvent, BackendError> {
    let topics = log["topics"].as_array().ok_or_else(|| BackendError::Nonsense("no topics".to_owned()))?;
    Ok(LoggedEvent {
        address: address(&log["address"])?,
        topics: topics.iter().map(hash).collect::<Result<_, _>>()?,
        data: bytes(&log["data"])?,
        block: hash(&log["blockHash"])?,
        number: quantity_u64(&log["blockNumber"])?,
        transaction: hash(&log["transactionHash"])?,
    })
}

fn tag_name(tag: Tag) -> &'static str {
    match tag {
        Tag::Latest => "latest",
        Tag::Safe => "safe",
        Tag::Finalized => "finalized",
    }
}

/// A block by its tag, or by its hash, which then must be part of the chain (EIP-1898).
fn block_name(at: At) -> Value {
    match at {
        At::Tag(tag) => json!(tag_name(tag)),
        At::Hash(hash) => json!({ "blockHash": hash, "requireCanonical": true }),
    }
}

fn other(what: &str) -> BackendError {
    BackendError::Nonsense(format!("another {what} than the one that was asked for"))
}
