//! The JSON-RPC backend against a node that is not ours: Anvil. Fee bumping is proven on the development chain, since Anvil
//! takes replacements that other nodes refuse.

#![allow(clippy::unwrap_used)]

mod support;

use alloy_primitives::{Address, B256, Bytes, FixedBytes, TxKind, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use chain::bindings::{Amp, Batch, Manager, ManagerSetup, Swappable};
use chain::{
    At, Backend, BackendError, Call, CallError, DevChain, DevConfig, DigestSigner, INTERFACE_REGISTRY,
    LocalKey, LogFilter, Receipt, RpcChain, SendError, SignedTransaction, Tag, Terms, Transaction, artifacts,
};
use support::anvil::{self, Anvil};
use support::{TOKENS, key};

const GWEI: u128 = 1_000_000_000;

/// The same transactions on both chains: same keys, same nonces, so the same addresses and the same bytes.
struct Twins {
    ours: DevChain,
    theirs: RpcChain,
    anvil: Anvil,
}

impl Twins {
    fn start() -> Option<Self> {
        let anvil = anvil::start()?;
        let mut ours = DevChain::new(DevConfig::default());
        for who in 1..=4 {
            let account = key(who).address();
            ours.fund(account, U256::from(1000 * TOKENS));
            anvil.fund(account, U256::from(1000 * TOKENS));
        }
        let registry = ours.initialized(artifacts::interface_registry().bytecode).unwrap();
        anvil.set_code(INTERFACE_REGISTRY, &registry);
        ours.set_code(INTERFACE_REGISTRY, registry);
        Some(Self { ours, theirs: anvil.backend(), anvil })
    }

    /// Sends to both, makes a block on both, and holds the receipts against each other.
    fn send(&mut self, from: &LocalKey, to: TxKind, input: Vec<u8>) -> Receipt {
        let nonce = self.ours.nonce(from.address(), At::Tag(Tag::Latest)).unwrap();
        let signed = Transaction { to, input: input.into(), gas_limit: 8_000_000, ..plain(nonce) };
        let signed = signed.sign(from).unwrap();
        self.ours.send(&signed.raw).unwrap();
        assert_eq!(self.theirs.send(&signed.raw), Ok(signed.hash));
        let block = self.ours.mine_after(12);
        self.anvil.mine_at(block.time);
        let ours = self.ours.receipt(signed.hash).unwrap().unwrap();
        let theirs = self.theirs.receipt(signed.hash).unwrap().unwrap();
        assert!(ours.succeeded && theirs.succeeded);
        assert_eq!((ours.gas_used, ours.gas_price), (theirs.gas_used, theirs.gas_price));
        assert_eq!((ours.created, ours.number), (theirs.created, theirs.number));
        let said = |receipt: &Receipt| -> Vec<_> {
            receipt.events.iter().map(|e| (e.address, e.topics.clone(), e.data.clone())).collect()
        };
        assert_eq!(said(&ours), said(&theirs));
        theirs
    }

    fn create(&mut self, bytecode: &Bytes, arguments: &[u8]) -> Address {
        self.send(&key(1), TxKind::Create, [bytecode, arguments].concat()).created.unwrap()
    }

    fn call<C: SolCall>(&mut self, from: &LocalKey, to: Address, call: &C) -> Receipt {
        self.send(from, TxKind::Call(to), call.abi_encode())
    }

    /// Token and manager, with roles 1 (owner, guardian, signer) and 2 (poster).
    fn deploy(&mut self) -> (Address, Address, Address) {
        let swap_token = self.create(&artifacts::swap_token().bytecode, &[]);
        let names = (swap_token, "Amp".to_owned(), "AMP".to_owned()).abi_encode_params();
        let amp = self.create(&artifacts::amp_token().bytecode, &names);
        let pool = self.create(&artifacts::pool_strategy().bytecode, &amp.abi_encode());
        let in_place = self.create(&artifacts::in_place_strategy().bytecode, &amp.abi_encode());
        for (prefix, implementation) in [([0xcc; 4], pool), ([0xaa; 4], in_place)] {
            let call = Amp::setPartitionStrategyCall { prefix: FixedBytes(prefix), implementation };
            self.call(&key(1), amp, &call);
        }
        let terms = Terms::default();
        let owner = key(1).address();
        let setup = ManagerSetup {
            amp,
            inPlaceStrategy: in_place,
            engineId: 1,
            owner,
            guardian: owner,
            poster: key(2).address(),
            signer: owner,
            creditPerHour: terms.credit_per_hour,
            pauseTime: terms.pause_time,
            claimDelay: terms.claim_delay,
            lifeMax: terms.life_max,
            disputeTime: terms.dispute_time,
            exitDelay: terms.exit_delay,
        };
        let manager = self.create(&artifacts::collateral_manager().bytecode, &setup.abi_encode());
        (swap_token, amp, manager)
    }
}

fn plain(nonce: u64) -> Transaction {
    Transaction {
        chain_id: 31337,
        nonce,
        tip: GWEI,
        cap: 100 * GWEI,
        gas_limit: 21_000,
        to: TxKind::Call(Address::repeat_byte(9)),
        value: U256::ZERO,
        input: Bytes::new(),
    }
}

fn signed(transaction: Transaction) -> SignedTransaction {
    transaction.sign(&key(1)).unwrap()
}

fn pool_of(manager: Address) -> B256 {
    let mut partition = B256::repeat_byte(0xcc);
    partition[12..].copy_from_slice(manager.as_slice());
    partition
}

#[test]
fn settlement_takes_the_same_gas_on_a_node_as_on_the_chain_in_process() {
    let Some(mut twins) = Twins::start() else { return };
    let (swap_token, amp, manager) = twins.deploy();
    let partition = pool_of(manager);
    let cap = U256::from(TOKENS).to();
    twins.call(
        &key(1),
        manager,
        &Manager::addPartitionCall { partition, holder: manager, guaranteeCap: cap },
    );
    let supplier = key(3);
    let value = U256::from(1_000 * TOKENS);
    twins.call(&supplier, swap_token, &Swappable::mintCall { to: supplier.address(), value });
    twins.call(&supplier, swap_token, &Swappable::approveCall { spender: amp, value });
    twins.call(&supplier, amp, &Amp::swapCall { from: supplier.address() });
    let supply = Amp::transferByPartitionCall {
        partition: B256::ZERO,
        from: supplier.address(),
        to: manager,
        value,
        data: chain::flexa::change_partition(partition),
        operatorData: Bytes::new(),
    };
    twins.call(&supplier, amp, &supply);

    let head = Manager::headInfoCall {};
    let ask = Call { from: Address::ZERO, to: manager, input: head.abi_encode().into() };
    let first =
        Manager::headInfoCall::abi_decode_returns(&twins.theirs.call(&ask, At::Tag(Tag::Latest)).unwrap())
            .unwrap();
    let mut batch = Batch { prevHead: first.head, ..Batch::default() };
    let mut gas = Vec::new();
    for count in [1_u32, 500, 10_000, 1, 1] {
        batch = Batch {
            seq: batch.seq + 1,
            lsnTo: batch.lsnTo + u64::from(count) + 1_000_003,
            prevHead: if batch.seq == 0 { batch.prevHead } else { keccak256(batch.abi_encode()) },
            stateRoot: keccak256(count.to_be_bytes()),
            sumLocked: 100 * TOKENS + u128::from(count),
            sumCredit: batch.sumCredit + u128::from(count),
            guaranteedAck: 0,
            count,
            dataHash: keccak256(count.to_be_bytes()),
        };
        let receipt = twins.call(&key(2), manager, &Manager::commitBatchCall { batch: batch.clone() });
        gas.push(receipt.gas_used);
        let filter = LogFilter { address: manager, topic: None, from: receipt.number, to: receipt.number };
        assert_eq!(twins.theirs.logs(&filter).unwrap(), receipt.events);
    }
    assert!(gas.iter().all(|gas| *gas <= 66_000), "{gas:?}");

    // A commit that is refused gives the same reason on both.
    let again = Call {
        from: key(2).address(),
        to: manager,
        input: Manager::commitBatchCall { batch }.abi_encode().into(),
    };
    let ours = twins.ours.call(&again, At::Tag(Tag::Latest)).unwrap_err();
    assert!(matches!(&ours, CallError::Reverted(reason) if reason.len() >= 4), "{ours}");
    assert_eq!(twins.theirs.call(&again, At::Tag(Tag::Latest)).unwrap_err(), ours);
}

#[test]
fn a_transaction_whose_block_is_taken_back_is_sent_again_byte_for_byte() {
    let Some(anvil) = anvil::start() else { return };
    let mut node = anvil.backend();
    let account = key(1).address();
    anvil.fund(account, U256::from(TOKENS));
    anvil.mine();
    let sent = signed(plain(0));
    assert_eq!(node.send(&sent.raw), Ok(sent.hash));
    assert_eq!(node.send(&sent.raw), Err(SendError::AlreadyKnown));
    assert_eq!((node.is_pending(sent.hash), node.receipt(sent.hash)), (Ok(true), Ok(None)), "nobody mines");
    anvil.mine();
    let first = node.receipt(sent.hash).unwrap().unwrap();
    assert_eq!(node.nonce(account, At::Hash(first.block)), Ok(1));
    assert!(matches!(node.send(&sent.raw), Err(SendError::NonceTooLow(_))));

    anvil.reorg(2);
    assert_eq!((node.is_pending(sent.hash), node.receipt(sent.hash)), (Ok(false), Ok(None)));
    assert_eq!(node.nonce(account, At::Hash(first.block)), Err(BackendError::UnknownBlock));
    assert_eq!(node.nonce(account, At::Tag(Tag::Latest)), Ok(0));
    assert_eq!(node.send(&sent.raw), Ok(sent.hash));
    anvil.mine();
    let second = node.receipt(sent.hash).unwrap().unwrap();
    assert_ne!(second.block, first.block);
    assert_eq!(node.nonce(account, At::Tag(Tag::Latest)), Ok(1));
}

#[test]
fn a_dropped_transaction_is_sent_again_and_an_underpriced_one_is_replaced() {
    let Some(anvil) = anvil::start() else { return };
    let mut node = anvil.backend();
    anvil.fund(key(1).address(), U256::from(TOKENS));
    let sent = signed(Transaction { cap: 20 * GWEI, ..plain(0) });
    node.send(&sent.raw).unwrap();
    anvil.lose(sent.hash);
    assert_eq!(node.is_pending(sent.hash), Ok(false));
    assert_eq!(node.send(&sent.raw), Ok(sent.hash));
    anvil.set_base_fee(50 * GWEI);
    anvil.mine();
    assert_eq!(node.block(Tag::Latest).unwrap().unwrap().base_fee, 50 * GWEI);
    // Other nodes keep it in the pool; this one forgets it. In the chain it is on neither.
    assert_eq!(node.receipt(sent.hash), Ok(None));
    let dearer = signed(Transaction { tip: 2 * GWEI, cap: 100 * GWEI, ..plain(0) });
    assert_eq!(node.send(&dearer.raw), Ok(dearer.hash));
    anvil.mine();
    assert!(node.receipt(dearer.hash).unwrap().unwrap().succeeded);
    assert_eq!(node.receipt(sent.hash), Ok(None));
}

#[test]
fn what_a_node_refuses_and_what_it_calls_final() {
    let Some(anvil) = anvil::start() else { return };
    let mut node = anvil.backend();
    assert_eq!(node.chain_id(), Ok(31337));
    assert_eq!(node.send(&signed(plain(0)).raw), Err(SendError::InsufficientFunds));
    anvil.fund(key(1).address(), U256::from(TOKENS));
    let other_chain = signed(Transaction { chain_id: 1, ..plain(0) });
    assert_eq!(node.send(&other_chain.raw), Err(SendError::OtherChain));
    assert_eq!(
        node.send(&signed(Transaction { gas_limit: 20_999, ..plain(0) }).raw),
        Err(SendError::GasLimit)
    );
    assert_eq!(node.send(&[2, 0xc0]), Err(SendError::Malformed));
    for _ in 0..10 {
        anvil.mine();
    }
    let number = |tag| node.block(tag).unwrap().unwrap().number;
    assert!(number(Tag::Finalized) < number(Tag::Safe) && number(Tag::Safe) < number(Tag::Latest));
    assert_eq!(node.balance(key(1).address(), At::Tag(Tag::Finalized)), Ok(U256::from(TOKENS)));
    assert_eq!(node.code(Address::ZERO, At::Hash(B256::ZERO)), Err(BackendError::UnknownBlock));
}
