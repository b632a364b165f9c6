//! The development token behaves as the deployed one: order of hooks and events, operators, partitions.

#![allow(clippy::unwrap_used)]

mod support;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;
use chain::DigestSigner;
use chain::bindings::{Amp, Manager};
use support::{TOKENS, World, key};

fn topics(receipt: &chain::Receipt) -> Vec<B256> {
    receipt.events.iter().map(|event| event.topics[0]).collect()
}

#[test]
fn the_events_of_hooks_stand_before_those_of_the_token() {
    let mut world = World::new();
    let manager = world.at.manager;
    let pool = world.pool(1);
    world.add_partition(pool, manager, 0);
    let receipt = world.supply(&key(7), pool, manager, 5 * TOKENS).unwrap();
    assert_eq!(
        topics(&receipt),
        [
            keccak256("Supplied(bytes32,address,uint256,uint256)"),
            keccak256("Transfer(address,address,uint256)"),
            keccak256("TransferByPartition(bytes32,address,address,address,uint256,bytes,bytes)"),
            keccak256("ChangedPartition(bytes32,bytes32,uint256)"),
        ]
    );
    assert_eq!(receipt.events[0].address, manager);
    assert_eq!(receipt.events[3].topics[1..], [B256::ZERO, pool]);
}

#[test]
fn only_data_with_the_flag_changes_the_partition() {
    let mut world = World::new();
    let (amp, bob) = (world.at.amp, world.bob.address());
    let mut send = |data: Vec<u8>| {
        let call = Amp::transferByPartitionCall {
            partition: B256::ZERO,
            from: key(7).address(),
            to: bob,
            value: U256::from(1),
            data: data.into(),
            operatorData: Bytes::new(),
        };
        topics(&world.send(&key(7), amp, call.abi_encode().into()).unwrap()).len()
    };
    let other = B256::repeat_byte(3);
    let flagged = chain::flexa::change_partition(other).to_vec();
    assert_eq!(send(Vec::new()), 2);
    assert_eq!(send(flagged[..63].to_vec()), 2, "too short");
    assert_eq!(send([vec![0xfe], flagged[1..].to_vec()].concat()), 2, "another flag");
    assert_eq!(send(flagged.clone()), 3);
    assert_eq!(send([flagged, vec![1, 2, 3]].concat()), 3, "more behind it");
    assert_eq!(world.balance(other, bob), 2);
    assert_eq!(world.ask_amp(Amp::partitionsOfCall { holder: bob }), vec![B256::ZERO, other]);
}

#[test]
fn an_operator_is_somebody_who_was_named_or_the_manager_of_the_partition() {
    let mut world = World::new();
    let (alice, bob, manager) = (world.alice.address(), world.bob.address(), world.at.manager);
    let is_operator = |world: &World, partition, operator, holder| {
        world.ask_amp(Amp::isOperatorForPartitionCall { partition, operator, holder })
    };
    let (pool, in_place) = (world.pool(1), world.in_place(1));
    assert!(!is_operator(&world, B256::ZERO, bob, alice));
    let call = Amp::authorizeOperatorByPartitionCall { partition: B256::ZERO, operator: bob };
    let amp = world.at.amp;
    world.send(&key(7), amp, call.abi_encode().into()).unwrap();
    assert!(is_operator(&world, B256::ZERO, bob, alice));
    assert!(!is_operator(&world, B256::repeat_byte(1), bob, alice));
    // Anybody may ask for collateral of a pool; the manager's hook decides. In place only the manager may.
    assert!(is_operator(&world, pool, bob, manager));
    assert!(!is_operator(&world, pool, bob, alice));
    assert!(is_operator(&world, in_place, manager, alice));
    assert!(!is_operator(&world, in_place, bob, alice));
}

#[test]
fn collateral_leaves_only_through_the_manager() {
    let mut world = World::new();
    let (manager, alice) = (world.at.manager, world.alice.address());
    let (pool, in_place) = (world.pool(1), world.in_place(2));
    world.add_partition(pool, manager, 0);
    world.add_partition(in_place, alice, 0);
    world.supply(&key(7), pool, manager, 10).unwrap();
    world.supply(&key(7), in_place, alice, 10).unwrap();
    assert_eq!(world.balance(in_place, alice), 10, "custody stays with the holder");
    for (partition, from) in [(pool, manager), (in_place, alice)] {
        for thief in [7, 9] {
            let call = Amp::transferByPartitionCall {
                partition,
                from,
                to: key(thief).address(),
                value: U256::from(1),
                data: chain::flexa::change_partition(B256::ZERO),
                operatorData: Bytes::new(),
            };
            assert!(world.send(&key(thief), world.at.amp, call.abi_encode().into()).is_err());
        }
    }
}

#[test]
fn supplies_come_in_only_where_they_belong() {
    let mut world = World::new();
    let (manager, alice, bob) = (world.at.manager, world.alice.address(), world.bob.address());
    let (pool, in_place, other) = (world.pool(1), world.in_place(2), world.pool(7));
    let refused = |world: &mut World, partition, to| {
        support::refusal(&world.supply(&key(7), partition, to, 5).unwrap_err())
    };
    let unknown = Manager::ManagerErrors::UnknownPartition(Manager::UnknownPartition {});
    assert_eq!(refused(&mut world, pool, manager), unknown, "before it was added");
    world.add_partition(pool, manager, 0);
    world.add_partition(in_place, alice, 0);
    assert_eq!(refused(&mut world, in_place, bob), unknown, "another holder");
    assert_eq!(refused(&mut world, other, manager), unknown);
    assert!(world.supply(&key(7), B256::ZERO, manager, 5).is_err(), "into no partition of the manager");
    // Somebody else's partition is none of ours.
    let foreign = B256::from_slice(&[&pool[..12], &[9; 20]].concat());
    assert!(world.supply(&key(7), foreign, manager, 5).is_err());

    // Zero-value supplies are accepted from anyone, and ignored.
    let receipt = world.supply(&key(9), pool, manager, 0).unwrap();
    assert!(receipt.events.iter().all(|event| event.address != manager));
    world.supply(&key(7), pool, manager, 5).unwrap();
    world.supply(&key(8), in_place, alice, 6).unwrap();
    let info = world.ask(Manager::headInfoCall {});
    assert_eq!((info.depositNonce, info.pool), (U256::from(2), U256::from(11)));
    // The supplier is the operator; in place it is the holder, whoever has sent the tokens.
    let supplied = |partition, supplier: Address| world.ask(Manager::suppliedCall { partition, supplier });
    assert_eq!(supplied(pool, alice), U256::from(5));
    assert_eq!((supplied(in_place, alice), supplied(in_place, bob)), (U256::from(6), U256::ZERO));
    // The hook believes the token alone.
    let hook = Manager::tokensReceivedCall {
        functionSig: [0; 4].into(),
        partition: pool,
        operator: bob,
        from: bob,
        to: manager,
        value: U256::from(100),
        data: Bytes::new(),
        operatorData: Bytes::new(),
    };
    let forged = world.manage(&key(8), hook).unwrap_err();
    assert_eq!(forged, Manager::ManagerErrors::NotAllowed(Manager::NotAllowed {}));
}
