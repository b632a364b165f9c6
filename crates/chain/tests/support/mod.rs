//! A development chain with the contracts on it, and everybody who plays a part.

#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod anvil;
pub mod books;
pub mod trees;

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolInterface, SolValue};
use chain::bindings::{Amp, Manager, Receiver, Swappable};
use chain::{
    At, Backend, Call, CallError, Deployment, DevChain, DevConfig, DigestSigner, LocalKey, Receipt, Setup,
    Tag, Terms, artifacts, deploy_all, send_and_mine,
};

pub const ENGINE: u128 = 5;
pub const TOKENS: u128 = 1_000_000_000_000_000_000;

/// Why a call was refused.
pub type Refusal = Manager::ManagerErrors;

pub struct World {
    pub chain: DevChain,
    pub at: Deployment,
    pub deployer: LocalKey,
    pub owner: LocalKey,
    pub guardian: LocalKey,
    pub poster: LocalKey,
    pub signer: LocalKey,
    pub merchant: LocalKey,
    pub alice: LocalKey,
    pub bob: LocalKey,
    pub stranger: LocalKey,
}

pub fn key(seed: u8) -> LocalKey {
    LocalKey::from_bytes(&[seed; 32]).unwrap()
}

impl World {
    pub fn new() -> Self {
        Self::with(Terms::default())
    }

    pub fn with(terms: Terms) -> Self {
        let keys: Vec<LocalKey> = (1..=9).map(key).collect();
        let mut chain = DevChain::new(DevConfig::default());
        for key in &keys {
            chain.fund(key.address(), U256::from(1000) * U256::from(TOKENS));
        }
        let [deployer, owner, guardian, poster, signer, merchant, alice, bob, stranger] =
            <[LocalKey; 9]>::try_from(keys).unwrap();
        let setup = Setup {
            engine_id: ENGINE,
            owner: owner.address(),
            guardian: guardian.address(),
            poster: poster.address(),
            signer: signer.address(),
            terms,
        };
        let at = deploy_all(&mut chain, &deployer, &setup).unwrap();
        let mut world =
            Self { chain, at, deployer, owner, guardian, poster, signer, merchant, alice, bob, stranger };
        for supplier in [6, 7, 8, 9] {
            world.mint(&key(supplier), 1_000_000 * TOKENS);
        }
        world
    }

    /// The pool partition with this number, and the one of stake in place.
    pub fn pool(&self, number: u64) -> B256 {
        self.partition(0xcc, number)
    }

    pub fn in_place(&self, number: u64) -> B256 {
        self.partition(0xaa, number)
    }

    fn partition(&self, prefix: u8, number: u64) -> B256 {
        let mut id = [prefix; 32];
        id[4..12].copy_from_slice(&number.to_be_bytes());
        id[12..].copy_from_slice(self.at.manager.as_slice());
        B256::from(id)
    }

    pub fn mint(&mut self, to: &LocalKey, amount: u128) {
        let swap_token = self.at.swap_token;
        let amp = self.at.amp;
        let mint = Swappable::mintCall { to: to.address(), value: U256::from(amount) };
        send_and_mine(&mut self.chain, to, swap_token, mint.abi_encode().into()).unwrap();
        let approve = Swappable::approveCall { spender: amp, value: U256::from(amount) };
        send_and_mine(&mut self.chain, to, swap_token, approve.abi_encode().into()).unwrap();
        let swap = Amp::swapCall { from: to.address() };
        send_and_mine(&mut self.chain, to, amp, swap.abi_encode().into()).unwrap();
    }

    pub fn add_partition(&mut self, partition: B256, holder: Address, cap: u128) {
        let owner = key(2);
        let cap = cap.try_into().unwrap();
        let call = Manager::addPartitionCall { partition, holder, guaranteeCap: cap };
        self.manage(&owner, call).unwrap();
    }

    /// Moves tokens of the default partition into a partition of the manager.
    pub fn supply(
        &mut self,
        from: &LocalKey,
        partition: B256,
        to: Address,
        amount: u128,
    ) -> Result<Receipt, Bytes> {
        let call = Amp::transferByPartitionCall {
            partition: B256::ZERO,
            from: from.address(),
            to,
            value: U256::from(amount),
            data: chain::flexa::change_partition(partition),
            operatorData: Bytes::new(),
        };
        let amp = self.at.amp;
        self.send(from, amp, call.abi_encode().into())
    }

    /// Simulates, and sends what would succeed.
    pub fn send(&mut self, from: &LocalKey, to: Address, input: Bytes) -> Result<Receipt, Bytes> {
        self.simulate(from.address(), to, input.clone())?;
        let receipt = send_and_mine(&mut self.chain, from, to, input);
        Ok(receipt.expect("what a simulation allowed"))
    }

    pub fn manage<C: SolCall>(&mut self, from: &LocalKey, call: C) -> Result<Receipt, Refusal> {
        let manager = self.at.manager;
        self.send(from, manager, call.abi_encode().into()).map_err(|data| refusal(&data))
    }

    pub fn simulate(&self, from: Address, to: Address, input: Bytes) -> Result<Bytes, Bytes> {
        match self.chain.call(&Call { from, to, input }, At::Tag(Tag::Latest)) {
            Ok(output) => Ok(output),
            Err(CallError::Reverted(data)) => Err(data),
            Err(error) => panic!("{error}"),
        }
    }

    pub fn ask<C: SolCall>(&self, call: C) -> C::Return {
        let output = self.simulate(Address::ZERO, self.at.manager, call.abi_encode().into()).unwrap();
        C::abi_decode_returns(&output).unwrap()
    }

    pub fn ask_amp<C: SolCall>(&self, call: C) -> C::Return {
        let output = self.simulate(Address::ZERO, self.at.amp, call.abi_encode().into()).unwrap();
        C::abi_decode_returns(&output).unwrap()
    }

    pub fn balance(&self, partition: B256, holder: Address) -> u128 {
        self.ask_amp(Amp::balanceOfByPartitionCall { partition, holder }).to()
    }

    pub fn now(&self) -> u64 {
        self.chain.block(Tag::Latest).unwrap().unwrap().time
    }

    pub fn wait(&mut self, seconds: u64) {
        self.chain.mine_after(seconds);
    }

    /// A contract whose receive hook does what `mood` says.
    pub fn receiver(&mut self, mood: u8, target: Address, call: Bytes) -> Address {
        let deployer = key(1);
        let mut chain = self.chain.clone();
        let created = create(&mut chain, &deployer, artifacts::test_receiver().bytecode);
        self.chain = chain;
        let set = Receiver::setCall { mood_: mood, target_: target, call_: call };
        send_and_mine(&mut self.chain, &deployer, created, set.abi_encode().into()).unwrap();
        created
    }
}

pub fn create(chain: &mut DevChain, signer: &LocalKey, input: Bytes) -> Address {
    let latest = At::Tag(Tag::Latest);
    let transaction = chain::Transaction {
        chain_id: 31337,
        nonce: chain.nonce(signer.address(), latest).unwrap(),
        tip: 1_000_000_000,
        cap: 100_000_000_000,
        gas_limit: 8_000_000,
        to: alloy_primitives::TxKind::Create,
        value: U256::ZERO,
        input,
    };
    let signed = transaction.sign(signer).unwrap();
    chain.send(&signed.raw).unwrap();
    chain.mine_after(12);
    chain.receipt(signed.hash).unwrap().unwrap().created.unwrap()
}

pub fn refusal(data: &Bytes) -> Refusal {
    Refusal::abi_decode(data).unwrap_or_else(|_| panic!("another error than the manager's: {data}"))
}

pub fn encode<T: SolValue>(value: &T) -> Vec<u8> {
    value.abi_encode()
}

/// A signed transaction that moves nothing.
pub fn payment(chain: &DevChain, from: &LocalKey) -> chain::SignedTransaction {
    let transaction = chain::Transaction {
        chain_id: 31337,
        nonce: chain.nonce(from.address(), At::Tag(Tag::Latest)).unwrap(),
        tip: 1_000_000_000,
        cap: 100_000_000_000,
        gas_limit: 21_000,
        to: alloy_primitives::TxKind::Call(Address::repeat_byte(9)),
        value: U256::ZERO,
        input: Bytes::new(),
    };
    transaction.sign(from).unwrap()
}
