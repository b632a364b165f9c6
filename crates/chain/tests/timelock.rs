//! The manager's owner in a deployment with money of others.

#![allow(clippy::unwrap_used)]

mod support;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use chain::bindings::{Manager, Owned};
use chain::{DigestSigner, artifacts};
use support::{World, create, key};

const DELAY: u64 = 48 * 3600;

/// A world whose manager belongs to a timelock of the owner (2), with a guardian (3).
fn locked() -> (World, Address) {
    let mut world = World::new();
    let (owner, guardian) = (world.owner.address(), world.guardian.address());
    let mut input = artifacts::timelock().bytecode.to_vec();
    input.extend((owner, guardian, U256::from(DELAY)).abi_encode_params());
    let timelock = create(&mut world.chain, &key(1), input.into());
    world.manage(&key(2), Manager::setOwnerCall { owner_: timelock }).unwrap();
    (world, timelock)
}

fn selector(data: &Bytes) -> B256 {
    let mut word = B256::ZERO;
    word[..4].copy_from_slice(&data[..4]);
    word
}

fn error(signature: &str) -> B256 {
    selector(&Bytes::copy_from_slice(keccak256(signature).as_slice()))
}

#[test]
fn what_the_owner_wants_is_announced_first() {
    let (mut world, timelock) = locked();
    let manager = world.at.manager;
    let call: Bytes =
        Manager::setPosterCall { poster_: key(9).address(), creditPerHour_: 7 }.abi_encode().into();
    let send = |world: &mut World, by: u8, input: Vec<u8>| {
        world.send(&key(by), timelock, input.into()).map(drop).map_err(|data| selector(&data))
    };
    let schedule = Owned::scheduleCall { target: manager, call: call.clone() }.abi_encode();
    let execute = Owned::executeCall { target: manager, call: call.clone() }.abi_encode();
    let cancel = Owned::cancelCall { id: keccak256((manager, call).abi_encode_params()) }.abi_encode();
    assert!(world.manage(&key(2), Manager::setOwnerCall { owner_: key(2).address() }).is_err());
    assert_eq!(send(&mut world, 2, execute.clone()), Err(error("NotScheduled()")));
    assert_eq!(send(&mut world, 9, schedule.clone()), Err(error("NotAllowed()")));
    send(&mut world, 2, schedule.clone()).unwrap();
    assert_eq!(send(&mut world, 2, execute.clone()), Err(error("TooEarly()")));
    // The guardian takes it back.
    assert_eq!(send(&mut world, 9, cancel.clone()), Err(error("NotAllowed()")));
    send(&mut world, 3, cancel).unwrap();
    world.wait(DELAY);
    assert_eq!(send(&mut world, 2, execute.clone()), Err(error("NotScheduled()")));
    // Announced again, anyone makes it happen, once.
    send(&mut world, 2, schedule).unwrap();
    world.wait(DELAY);
    send(&mut world, 9, execute.clone()).unwrap();
    assert_eq!(world.ask(Manager::posterCall {}), key(9).address());
    assert_eq!(send(&mut world, 9, execute), Err(error("NotScheduled()")));
}

#[test]
fn what_the_manager_refuses_stays_announced() {
    let (mut world, timelock) = locked();
    let call: Bytes = Manager::setOwnerCall { owner_: Address::ZERO }.abi_encode().into();
    let manager = world.at.manager;
    let schedule = Owned::scheduleCall { target: manager, call: call.clone() }.abi_encode();
    world.send(&key(2), timelock, schedule.into()).unwrap();
    world.wait(DELAY);
    let execute = Owned::executeCall { target: manager, call }.abi_encode();
    let refused = world.send(&key(2), timelock, execute.into()).unwrap_err();
    assert_eq!(selector(&refused), error("NotAllowed()"));
}
