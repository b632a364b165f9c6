//! The development chain: pool rules of a real node, fees, tags, reorganizations.

#![allow(clippy::unwrap_used)]

mod support;

use alloy_primitives::{Address, B256, TxKind, U256};
use chain::{
    At, Backend, BackendError, DevChain, DevConfig, DigestSigner, SendError, SignedTransaction, Tag, TooDeep,
    Transaction,
};
use support::key;

const GWEI: u128 = 1_000_000_000;

fn chain() -> DevChain {
    let mut chain = DevChain::new(DevConfig::default());
    chain.fund(key(1).address(), U256::from(support::TOKENS));
    chain
}

fn transaction(nonce: u64, tip: u128, cap: u128) -> Transaction {
    Transaction {
        chain_id: 31337,
        nonce,
        tip,
        cap,
        gas_limit: 21_000,
        to: TxKind::Call(Address::repeat_byte(9)),
        value: U256::from(1),
        input: Vec::new().into(),
    }
}

fn sign(transaction: Transaction) -> SignedTransaction {
    transaction.sign(&key(1)).unwrap()
}

fn send(chain: &mut DevChain, transaction: Transaction) -> Result<B256, SendError> {
    chain.send(&sign(transaction).raw)
}

#[test]
fn a_replacement_pays_a_tenth_more_in_tip_and_in_cap() {
    let mut chain = chain();
    send(&mut chain, transaction(0, 10 * GWEI, 100 * GWEI)).unwrap();
    let mut check = |tip, cap| send(&mut chain, transaction(0, tip, cap));
    assert_eq!(check(10 * GWEI, 100 * GWEI), Err(SendError::AlreadyKnown));
    assert_eq!(check(11 * GWEI, 100 * GWEI), Err(SendError::Underpriced), "the tip alone");
    assert_eq!(check(10 * GWEI, 110 * GWEI), Err(SendError::Underpriced), "the cap alone");
    assert_eq!(check(11 * GWEI - 1, 110 * GWEI), Err(SendError::Underpriced));
    check(11 * GWEI, 110 * GWEI).unwrap();
    chain.mine_after(12);
    assert_eq!(chain.nonce(key(1).address(), At::Tag(Tag::Latest)), Ok(1));
}

#[test]
fn what_no_node_takes_is_refused() {
    let mut chain = chain();
    let mut check = |alter: fn(&mut Transaction)| {
        let mut altered = transaction(0, GWEI, 2 * GWEI);
        alter(&mut altered);
        send(&mut chain, altered)
    };
    assert_eq!(check(|t| t.input = vec![1; 128 * 1024].into()), Err(SendError::Oversized));
    assert_eq!(check(|t| t.gas_limit = (1 << 24) + 1), Err(SendError::GasLimit));
    assert_eq!(check(|t| t.gas_limit = 20_999), Err(SendError::GasLimit));
    assert_eq!(check(|t| t.chain_id = 1), Err(SendError::OtherChain));
    assert_eq!(check(|t| t.tip = 3 * GWEI), Err(SendError::Malformed));
    assert_eq!(check(|t| t.tip = 0), Err(SendError::Underpriced));
    assert_eq!(check(|t| t.value = U256::from(support::TOKENS)), Err(SendError::InsufficientFunds));
    assert_eq!(chain.send(&[2, 0xc0]), Err(SendError::Malformed));
    send(&mut chain, transaction(0, GWEI, 2 * GWEI)).unwrap();
    chain.mine_after(12);
    assert_eq!(send(&mut chain, transaction(0, GWEI, 3 * GWEI)), Err(SendError::NonceTooLow(1)));
}

#[test]
fn a_gap_in_the_nonces_waits_until_it_is_filled() {
    let mut chain = chain();
    let later = send(&mut chain, transaction(1, GWEI, 2 * GWEI)).unwrap();
    chain.mine_after(12);
    assert!(chain.receipt(later).unwrap().is_none() && chain.is_pending(later).unwrap());
    send(&mut chain, transaction(0, GWEI, 2 * GWEI)).unwrap();
    chain.mine_after(12);
    assert!(chain.receipt(later).unwrap().unwrap().succeeded);
    assert_eq!(chain.balance(Address::repeat_byte(9), At::Tag(Tag::Latest)), Ok(U256::from(2)));
}

#[test]
fn a_cap_below_the_base_fee_waits() {
    let mut chain = chain();
    chain.set_base_fee(50_000_000_000);
    let waiting = send(&mut chain, transaction(0, GWEI, 10 * GWEI)).unwrap();
    chain.mine_after(12);
    assert!(chain.receipt(waiting).unwrap().is_none());
    // Empty blocks lower it by an eighth each.
    let before = chain.block(Tag::Latest).unwrap().unwrap().base_fee;
    let after = chain.mine_after(12).base_fee;
    assert_eq!(after, before - before / 8);
    for _ in 0..20 {
        chain.mine_after(12);
    }
    let receipt = chain.receipt(waiting).unwrap().unwrap();
    assert!(receipt.gas_price <= 10 * GWEI && receipt.gas_used == 21_000);
}

#[test]
fn a_reorganization_returns_transactions_or_loses_them_and_stops_at_finality() {
    let mut chain = chain();
    for _ in 0..6 {
        chain.mine_after(12);
    }
    let sent = send(&mut chain, transaction(0, GWEI, 4 * GWEI)).unwrap();
    let block = chain.mine_after(12);
    assert_eq!(chain.receipt(sent).unwrap().unwrap().block, block.hash);
    chain.reorg(1).unwrap();
    assert!(chain.receipt(sent).unwrap().is_none() && chain.is_pending(sent).unwrap());
    assert_eq!(chain.nonce(key(1).address(), At::Hash(block.hash)), Err(BackendError::UnknownBlock));
    let again = chain.mine(block.time);
    assert_eq!(again.number, block.number);
    assert_ne!(again.hash, block.hash);
    assert_eq!(chain.receipt(sent).unwrap().unwrap().block, again.hash);
    chain.reorg_and_lose(1).unwrap();
    assert!(!chain.is_pending(sent).unwrap());
    assert_eq!(chain.reorg(5), Err(TooDeep));
    let finalized = chain.block(Tag::Finalized).unwrap().unwrap();
    chain.reorg(4).unwrap();
    assert_eq!(chain.block(Tag::Latest).unwrap().unwrap(), finalized);
}

#[test]
fn reads_are_of_the_block_that_they_name() {
    let mut chain = chain();
    let payee = Address::repeat_byte(9);
    let first = chain.mine_after(12);
    let sent = send(&mut chain, transaction(0, GWEI, 4 * GWEI)).unwrap();
    assert!(chain.lose(sent) && !chain.lose(sent));
    send(&mut chain, transaction(0, GWEI, 4 * GWEI)).unwrap();
    let second = chain.mine_after(12);
    assert_eq!(chain.balance(payee, At::Hash(first.hash)), Ok(U256::ZERO));
    assert_eq!(chain.balance(payee, At::Hash(second.hash)), Ok(U256::from(1)));
    assert_eq!(chain.balance(payee, At::Tag(Tag::Latest)), Ok(U256::from(1)));
    assert_eq!(chain.block(Tag::Finalized).unwrap(), None, "too young a chain");
    assert_eq!(second.parent, first.hash);
}
