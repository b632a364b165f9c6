//! Two nodes: what both tell is believed, what one of them tells is not.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use alloy_primitives::{Address, Bytes, U256};
use chain::{
    At, Backend, BackendError, Call, CallError, DevChain, DigestSigner, LogFilter, RpcChain, SecondOpinion,
    SendError, Tag,
};
use support::{World, key};

const LATEST: At = At::Tag(Tag::Latest);

fn disagreement<T: std::fmt::Debug>(result: Result<T, BackendError>) -> &'static str {
    match result.unwrap_err() {
        BackendError::Disagreement(what) => what,
        other => panic!("{other}"),
    }
}

/// A pair over copies of a chain with contracts on it.
fn pair(first: &DevChain, second: &DevChain) -> SecondOpinion<DevChain, DevChain> {
    SecondOpinion::new(first.clone(), second.clone())
}

#[test]
fn nodes_that_agree_are_one() {
    let world = World::new();
    let both = pair(&world.chain, &world.chain);
    assert_eq!(both.chain_id(), world.chain.chain_id());
    for tag in [Tag::Latest, Tag::Safe, Tag::Finalized] {
        assert_eq!(both.block(tag), world.chain.block(tag));
    }
    let account = key(1).address();
    assert_eq!(both.nonce(account, LATEST), world.chain.nonce(account, LATEST));
    assert_eq!(both.balance(account, LATEST), world.chain.balance(account, LATEST));
    assert_eq!(both.code(world.at.manager, LATEST), world.chain.code(world.at.manager, LATEST));
    let number = world.chain.block(Tag::Latest).unwrap().unwrap().number;
    let filter = LogFilter { address: world.at.amp, topic: None, from: 0, to: number };
    assert!(!both.logs(&filter).unwrap().is_empty());
    assert_eq!(both.logs(&filter), world.chain.logs(&filter));
}

#[test]
fn a_node_that_is_behind_sets_the_pace() {
    let world = World::new();
    let mut ahead = world.chain.clone();
    ahead.mine_after(12);
    ahead.mine_after(12);
    let account = key(1).address();
    for both in [pair(&world.chain, &ahead), pair(&ahead, &world.chain)] {
        for tag in [Tag::Latest, Tag::Safe, Tag::Finalized] {
            assert_eq!(both.block(tag), world.chain.block(tag), "{tag:?}");
        }
        assert_eq!(both.nonce(account, LATEST), world.chain.nonce(account, LATEST));
    }
}

#[test]
fn two_branches_are_a_disagreement() {
    let world = World::new();
    let mut other = world.chain.clone();
    other.reorg(2).unwrap();
    // As long as the first, and then longer.
    other.mine_after(12);
    for _ in 0..2 {
        other.mine_after(12);
        for both in [pair(&world.chain, &other), pair(&other, &world.chain)] {
            assert_eq!(disagreement(both.block(Tag::Latest)), "the newest block");
            assert_eq!(disagreement(both.balance(Address::ZERO, LATEST)), "the newest block");
        }
    }
    // Of a block that only one of them has, nothing is known.
    let latest = At::Hash(world.chain.block(Tag::Latest).unwrap().unwrap().hash);
    assert_eq!(pair(&world.chain, &other).nonce(Address::ZERO, latest), Err(BackendError::UnknownBlock));
}

#[test]
fn a_node_that_lies_about_a_block_that_both_have_is_found_out() {
    let world = World::new();
    let (account, contract) = (key(1).address(), world.at.manager);
    let mut liar = world.chain.clone();
    // The block's hash stays.
    liar.fund(account, U256::from(5));
    liar.set_code(contract, Bytes::from_static(&[0x60, 1, 0x60, 0, 0x52, 0x60, 32, 0x60, 0, 0xf3]));
    for both in [pair(&world.chain, &liar), pair(&liar, &world.chain)] {
        assert_eq!(both.block(Tag::Latest), world.chain.block(Tag::Latest));
        assert_eq!(disagreement(both.balance(account, LATEST)), "an account's balance");
        assert_eq!(disagreement(both.code(contract, LATEST)), "a contract's code");
        let call = Call { from: account, to: contract, input: Bytes::new() };
        let error = CallError::Backend(BackendError::Disagreement("what a contract answers"));
        assert_eq!(both.call(&call, LATEST), Err(error));
    }
}

#[test]
fn a_node_that_keeps_events_back_is_found_out() {
    let mut world = World::new();
    let before = world.chain.clone();
    let bob = key(8);
    world.mint(&bob, 7);
    let number = world.chain.block(Tag::Latest).unwrap().unwrap().number;
    let filter = LogFilter { address: world.at.amp, topic: None, from: 0, to: number };
    assert_eq!(disagreement(pair(&world.chain, &before).logs(&filter)), "events");
}

#[test]
fn a_transaction_goes_to_both_and_counts_once_both_have_mined_it() {
    let world = World::new();
    let mut both = pair(&world.chain, &world.chain);
    let raw = support::payment(&world.chain, &key(1));
    both.send(&raw.raw).unwrap();
    assert_eq!(both.send(&raw.raw), Err(SendError::AlreadyKnown));
    assert_eq!(both.is_pending(raw.hash), Ok(true));
    let mut mined = world.chain.clone();
    mined.send(&raw.raw).unwrap();
    let behind = mined.clone();
    mined.mine_after(12);
    let both = pair(&mined, &behind);
    assert_eq!((both.receipt(raw.hash), both.is_pending(raw.hash)), (Ok(None), Ok(true)));
    assert!(pair(&mined, &mined).receipt(raw.hash).unwrap().unwrap().succeeded);
    // The same block on both, with another base fee: two receipts.
    let mut dearer = behind.clone();
    dearer.set_base_fee(2_000_000_000);
    dearer.mine_after(12);
    assert_eq!(disagreement(pair(&mined, &dearer).receipt(raw.hash)), "a receipt");
}

#[test]
fn a_node_that_is_silent_makes_the_pair_unreachable() {
    let world = World::new();
    // Nobody listens there.
    let silent = || RpcChain::new("http://127.0.0.1:1", Duration::from_millis(200));
    let both = SecondOpinion::new(world.chain.clone(), silent());
    assert!(matches!(both.chain_id(), Err(BackendError::Unreachable(_))));
    assert!(matches!(both.block(Tag::Finalized), Err(BackendError::Unreachable(_))));
    let mut both = SecondOpinion::new(silent(), world.chain.clone());
    let raw = support::payment(&world.chain, &key(1));
    assert_eq!(both.send(&raw.raw), Ok(raw.hash), "one pool is enough");
}
