//! Payments on an Ethereum chain: transfers of a token, and of the native coin.

use alloy_primitives::{Address, B256, U256, b256};
use chain::JsonRpc;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Source, SourceError, nonsense};
use crate::payment::{Account, BlockRef, Payment, SeenBlock};

/// `Transfer(address,address,uint256)`.
const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// An ERC-20 token: its `Transfer` events, asked for by the hash of their block.
///
/// The token's own word is believed, so it has to be one that moves what it says: a fee that it takes on a transfer is not seen.
#[derive(Debug)]
pub struct Token {
    node: JsonRpc,
    chain_id: u64,
    token: Address,
}

/// The native coin: the value of transactions that succeeded. What contracts pass on inside a transaction is in no event and in
/// no transaction of its own, so it is not seen; a payer has to pay from an account.
#[derive(Debug)]
pub struct Coin {
    node: JsonRpc,
    chain_id: u64,
}

impl Token {
    /// A token of a chain.
    #[must_use]
    pub const fn new(node: JsonRpc, chain_id: u64, token: Address) -> Self {
        Self { node, chain_id, token }
    }

    fn payments(&self, block: B256) -> Result<Vec<Payment>, SourceError> {
        let filter = json!({ "blockHash": block, "address": self.token, "topics": [TRANSFER] });
        let answer = self.node.ask("eth_getLogs", &json!([filter]))?;
        let logs = answer.as_array().ok_or_else(|| nonsense("no list of events"))?;
        let transfer = |log: &Value| {
            let is_asked_for = field::<Address>(log, "address")? == self.token
                && field::<B256>(log, "blockHash")? == block
                && log["removed"] != json!(true);
            if is_asked_for { transfer(log) } else { Err(nonsense("an event of another token or block")) }
        };
        logs.iter().map(transfer).collect()
    }
}

impl Source for Token {
    fn check(&self) -> Result<(), SourceError> {
        check_chain(&self.node, self.chain_id)?;
        let code = self.node.ask("eth_getCode", &json!([self.token, "latest"]))?;
        if code == json!("0x") { Err(nonsense(format!("no contract at {}", self.token))) } else { Ok(()) }
    }

    fn height(&self) -> Result<u64, SourceError> {
        height(&self.node)
    }

    fn block(&self, number: u64) -> Result<Option<SeenBlock>, SourceError> {
        let Some((mut block, _)) = block(&self.node, number, false)? else { return Ok(None) };
        block.payments = self.payments(block.at.hash)?;
        Ok(Some(block))
    }

    fn account(&self, account: &Account) -> Result<Option<Account>, SourceError> {
        Ok(own_account(account))
    }
}

impl Coin {
    /// The coin of a chain.
    #[must_use]
    pub const fn new(node: JsonRpc, chain_id: u64) -> Self {
        Self { node, chain_id }
    }

    /// Which transactions of a block succeeded, by hash.
    fn succeeded(&self, block: B256) -> Result<Vec<(B256, bool)>, SourceError> {
        let answer = self.node.ask("eth_getBlockReceipts", &json!([block]))?;
        let receipts = answer.as_array().ok_or_else(|| nonsense("no list of receipts"))?;
        let outcome = |receipt: &Value| {
            if field::<B256>(receipt, "blockHash")? != block {
                return Err(nonsense("a receipt of another block"));
            }
            Ok((field(receipt, "transactionHash")?, field::<U256>(receipt, "status")? == U256::ONE))
        };
        receipts.iter().map(outcome).collect()
    }
}

impl Source for Coin {
    fn check(&self) -> Result<(), SourceError> {
        check_chain(&self.node, self.chain_id)
    }

    fn height(&self) -> Result<u64, SourceError> {
        height(&self.node)
    }

    fn block(&self, number: u64) -> Result<Option<SeenBlock>, SourceError> {
        let Some((mut block, transactions)) = block(&self.node, number, true)? else { return Ok(None) };
        let mut paying = Vec::new();
        for transaction in &transactions {
            let value: U256 = field(transaction, "value")?;
            // Without a callee it makes a contract.
            if !value.is_zero() && !transaction["to"].is_null() {
                let payment = payment(field(transaction, "to")?, value)?;
                paying.push((field::<B256>(transaction, "hash")?, payment));
            }
        }
        if paying.is_empty() {
            return Ok(Some(block));
        }
        let outcomes = self.succeeded(block.at.hash)?;
        for (hash, payment) in paying {
            let outcome = outcomes.iter().find(|(of, _)| *of == hash);
            let (_, succeeded) = outcome.ok_or_else(|| nonsense("a transaction without a receipt"))?;
            if *succeeded {
                block.payments.push(payment);
            }
        }
        Ok(Some(block))
    }

    fn account(&self, account: &Account) -> Result<Option<Account>, SourceError> {
        Ok(own_account(account))
    }
}

fn check_chain(node: &JsonRpc, expected: u64) -> Result<(), SourceError> {
    let found: U256 = parsed(&node.ask("eth_chainId", &json!([]))?)?;
    if found == U256::from(expected) {
        return Ok(());
    }
    Err(SourceError::OtherChain { expected: expected.to_string(), found: found.to_string() })
}

fn height(node: &JsonRpc) -> Result<u64, SourceError> {
    number(&node.ask("eth_blockNumber", &json!([]))?)
}

/// A block without its payments, and its transactions.
fn block(node: &JsonRpc, wanted: u64, is_full: bool) -> Result<Option<(SeenBlock, Vec<Value>)>, SourceError> {
    let mut answer = node.ask("eth_getBlockByNumber", &json!([format!("{wanted:#x}"), is_full]))?;
    if answer.is_null() {
        return Ok(None);
    }
    let at = BlockRef { number: number(&answer["number"])?, hash: field(&answer, "hash")? };
    if at.number != wanted {
        return Err(nonsense("another block than the one that was asked for"));
    }
    let seen = SeenBlock {
        at,
        parent: field(&answer, "parentHash")?,
        time_s: number(&answer["timestamp"])?,
        payments: Vec::new(),
    };
    match answer["transactions"].take() {
        Value::Array(transactions) => Ok(Some((seen, transactions))),
        _ => Err(nonsense("a block without a list of transactions")),
    }
}

fn transfer(log: &Value) -> Result<Payment, SourceError> {
    let topics: Vec<B256> = field(log, "topics")?;
    let [TRANSFER, _, to] = topics[..] else { return Err(nonsense("a transfer without its parties")) };
    let data: alloy_primitives::Bytes = field(log, "data")?;
    let amount = U256::try_from_be_slice(&data).filter(|_| data.len() == 32);
    payment(Address::from_word(to), amount.ok_or_else(|| nonsense("a transfer without its amount"))?)
}

fn payment(to: Address, amount: U256) -> Result<Payment, SourceError> {
    let to = Account::new(&format!("{to:#x}")).ok_or_else(|| nonsense("an address"))?;
    // Nobody has so much of anything: as much as can be said counts.
    Ok(Payment { to, amount: u128::try_from(amount).unwrap_or(u128::MAX) })
}

fn number(value: &Value) -> Result<u64, SourceError> {
    let number: U256 = parsed(value)?;
    u64::try_from(number).map_err(|_| nonsense(format!("{number} is too large")))
}

fn field<T: DeserializeOwned>(of: &Value, name: &str) -> Result<T, SourceError> {
    parsed(&of[name])
}

fn parsed<T: DeserializeOwned>(value: &Value) -> Result<T, SourceError> {
    serde_json::from_value(value.clone()).map_err(|_| nonsense(format!("{value}")))
}

/// An address of Ethereum is written in one way here, whatever it was written like.
fn own_account(account: &Account) -> Option<Account> {
    account.ethereum().map(|_| account.clone())
}
