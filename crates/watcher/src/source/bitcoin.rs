//! Payments in bitcoin, as Bitcoin Core's JSON-RPC shows them: outputs that name an address.

use alloy_primitives::B256;
use chain::{JsonRpc, RpcError};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Source, SourceError, nonsense};
use crate::decimal;
use crate::payment::{Account, BlockRef, Payment, SeenBlock};

/// Places of a bitcoin behind the point.
const PLACES: u8 = 8;
/// Bitcoin Core's number for a height beyond the newest block.
const OUT_OF_RANGE: i64 = -8;

/// A node of Bitcoin Core. It needs no wallet and no index: blocks are read whole.
///
/// The chain's clock is the median of the last eleven blocks' times, which does not go back. What miners pay themselves does not
/// count: it cannot be spent for a hundred blocks.
#[derive(Debug)]
pub struct Bitcoin {
    node: JsonRpc,
    chain: String,
}

#[derive(Deserialize)]
struct Block {
    hash: String,
    confirmations: i64,
    height: u64,
    mediantime: u64,
    #[serde(default)]
    previousblockhash: Option<String>,
    tx: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    vin: Vec<Input>,
    vout: Vec<Output>,
}

#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    coinbase: Option<String>,
}

#[derive(Deserialize)]
struct Output {
    /// As it is written: amounts are not for floating point.
    value: Box<RawValue>,
    #[serde(rename = "scriptPubKey")]
    script: Script,
}

#[derive(Deserialize)]
struct Script {
    #[serde(default)]
    address: Option<String>,
}

impl Bitcoin {
    /// A node of a chain by Bitcoin Core's name for it: `main`, `test`, `testnet4`, `signet` or `regtest`.
    #[must_use]
    pub fn new(node: JsonRpc, chain: &str) -> Self {
        Self { node, chain: chain.to_owned() }
    }
}

impl Source for Bitcoin {
    fn check(&self) -> Result<(), SourceError> {
        let information = self.node.ask("getblockchaininfo", &json!([]))?;
        let found = information["chain"].as_str().unwrap_or_default().to_owned();
        if found == self.chain {
            return Ok(());
        }
        Err(SourceError::OtherChain { expected: self.chain.clone(), found })
    }

    fn height(&self) -> Result<u64, SourceError> {
        let answer = self.node.ask("getblockcount", &json!([]))?;
        answer.as_u64().ok_or_else(|| nonsense(format!("{answer} blocks")))
    }

    fn block(&self, number: u64) -> Result<Option<SeenBlock>, SourceError> {
        let hash = match self.node.ask("getblockhash", &json!([number])) {
            Ok(Value::String(hash)) => hash,
            Ok(other) => return Err(nonsense(format!("{other} instead of a hash"))),
            Err(RpcError::Refused(refusal)) if refusal.code == OUT_OF_RANGE => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = self.node.ask_raw("getblock", &json!([hash, 2]))?;
        let block: Block =
            serde_json::from_str(&text).map_err(|error| nonsense(format!("a block: {error}")))?;
        if block.hash != hash || block.height != number {
            return Err(nonsense("another block than the one that was asked for"));
        }
        // The node has changed its mind in between.
        if block.confirmations < 1 {
            return Ok(None);
        }
        seen(&block).map(Some)
    }

    /// The node knows which addresses its chain has, and how they are written.
    fn account(&self, account: &Account) -> Result<Option<Account>, SourceError> {
        let answer = self.node.ask("validateaddress", &json!([account.as_str()]))?;
        match (answer["isvalid"].as_bool(), answer["address"].as_str()) {
            (Some(false), _) => Ok(None),
            (Some(true), Some(address)) => Ok(Account::new(address)),
            _ => Err(nonsense(format!("{answer} about an address"))),
        }
    }
}

fn seen(block: &Block) -> Result<SeenBlock, SourceError> {
    let hash = |text: &str| text.parse().map_err(|_| nonsense(format!("{text} instead of a hash")));
    let at = BlockRef { number: block.height, hash: hash(&block.hash)? };
    let parent = block.previousblockhash.as_deref().map_or(Ok(B256::ZERO), hash)?;
    let is_earned = |transaction: &&Transaction| transaction.vin.iter().any(|input| input.coinbase.is_some());
    let outputs = block.tx.iter().filter(|transaction| !is_earned(transaction)).flat_map(|t| &t.vout);
    let mut payments = Vec::new();
    for output in outputs {
        let amount = decimal::read(output.value.get(), PLACES)
            .ok_or_else(|| nonsense(format!("an output of {}", output.value)))?;
        // Bare scripts have no address; nobody waits for them.
        if let Some(to) = output.script.address.as_deref().and_then(Account::new).filter(|_| amount > 0) {
            payments.push(Payment { to, amount });
        }
    }
    Ok(SeenBlock { at, parent, time_s: block.mediantime, payments })
}
