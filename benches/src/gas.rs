//! What settlement costs on chain: every transaction is really run, on the development chain, by the rules of Osaka.

use std::error::Error;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use chain::bindings::{Amp, Batch, Credit, Lock, Manager, Swappable};
use chain::{
    Backend, Deployment, DevChain, DevConfig, DigestSigner, LocalKey, Receipt, Setup, Tag, Terms, deploy_all,
    send_and_mine,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One token, in base units.
const TOKEN: u128 = 1_000_000_000_000_000_000;
/// Batches of each size: enough for the ring to go round, and for roots to mature.
const COMMITS: u64 = 10;
/// Claims in one transaction.
pub const CLAIMS: usize = 50;
/// Certificates under one signature.
const GROUP: usize = 256;

/// Gas of each transaction.
#[derive(Clone, Copy, Debug)]
pub struct Gas {
    /// The dearest commit of a batch with one change.
    pub commit_1: u64,
    /// The same with 500.
    pub commit_500: u64,
    /// The same with 10,000.
    pub commit_10000: u64,
    /// A claim out of 10,000 payees, by one who holds no tokens yet.
    pub claim: u64,
    /// [`CLAIMS`] of them in one transaction.
    pub claim_many: u64,
    /// A guarantee called by a certificate out of a group of 256.
    pub guarantee: u64,
    /// A supply by a supplier who has supplied before.
    pub supply: u64,
}

/// Runs all of it.
///
/// # Errors
///
/// If a transaction is refused, which would be a fault of this program.
pub fn measure() -> Result<Gas> {
    let mut stage = Stage::new()?;
    stage.supply()?;
    let supply = stage.supply()?.gas_used;
    let commit_1 = stage.commits(1)?;
    let commit_500 = stage.commits(500)?;
    let commit_10000 = stage.commits(10_000)?;
    let claim = stage.claim(0)?;
    let claim_many = stage.claim_many(1)?;
    let guarantee = stage.call_guarantee()?;
    Ok(Gas { commit_1, commit_500, commit_10000, claim, claim_many, guarantee, supply })
}

struct Stage {
    chain: DevChain,
    at: Deployment,
    poster: LocalKey,
    signer: LocalKey,
    supplier: LocalKey,
    partition: B256,
    last: Batch,
    /// Of the last batch.
    payees: Tree,
    rest: B256,
}

impl Stage {
    fn new() -> Result<Self> {
        let [owner, poster, signer, supplier] = [1, 2, 3, 4].map(|seed| LocalKey::from_bytes(&[seed; 32]));
        let (owner, poster, signer, supplier) = (owner?, poster?, signer?, supplier?);
        let mut chain = DevChain::new(DevConfig::default());
        for key in [&owner, &poster, &signer, &supplier] {
            chain.fund(key.address(), U256::from(1000 * TOKEN));
        }
        let setup = Setup {
            engine_id: 1,
            owner: owner.address(),
            guardian: owner.address(),
            poster: poster.address(),
            signer: signer.address(),
            terms: Terms::default(),
        };
        let at = deploy_all(&mut chain, &owner, &setup)?;
        let mut partition = B256::repeat_byte(0xcc);
        partition[12..].copy_from_slice(at.manager.as_slice());
        let add =
            Manager::addPartitionCall { partition, holder: at.manager, guaranteeCap: U256::from(TOKEN).to() };
        send_and_mine(&mut chain, &owner, at.manager, add.abi_encode().into())?;
        let value = U256::from(1_000_000 * TOKEN);
        for (to, input) in [
            (at.swap_token, Swappable::mintCall { to: supplier.address(), value }.abi_encode()),
            (at.swap_token, Swappable::approveCall { spender: at.amp, value }.abi_encode()),
            (at.amp, Amp::swapCall { from: supplier.address() }.abi_encode()),
        ] {
            send_and_mine(&mut chain, &supplier, to, input.into())?;
        }
        let domain = domain(at.manager);
        let last = Batch { prevHead: domain, ..Batch::default() };
        let payees = Tree::new(Vec::new());
        Ok(Self { chain, at, poster, signer, supplier, partition, last, payees, rest: B256::repeat_byte(7) })
    }

    fn supply(&mut self) -> Result<Receipt> {
        let call = Amp::transferByPartitionCall {
            partition: B256::ZERO,
            from: self.supplier.address(),
            to: self.at.manager,
            value: U256::from(100_000 * TOKEN),
            data: chain::flexa::change_partition(self.partition),
            operatorData: Bytes::new(),
        };
        Ok(send_and_mine(&mut self.chain, &self.supplier, self.at.amp, call.abi_encode().into())?)
    }

    /// Commits some batches with so many changed credits each, half a claim delay apart, and returns what the dearest took.
    fn commits(&mut self, changes: u32) -> Result<u64> {
        let mut dearest = 0;
        for _ in 0..COMMITS {
            self.payees = Tree::new((0..changes).map(|who| leaf(self.partition, payee(who))).collect());
            let head =
                if self.last.seq == 0 { self.last.prevHead } else { keccak256(self.last.abi_encode()) };
            self.last = Batch {
                seq: self.last.seq + 1,
                lsnTo: self.last.lsnTo + u64::from(changes) + 1_000_003,
                prevHead: head,
                stateRoot: keccak256((self.payees.root(), self.rest).abi_encode()),
                sumLocked: 123_456 * TOKEN + u128::from(changes),
                sumCredit: self.last.sumCredit + u128::from(changes),
                guaranteedAck: 0,
                count: changes,
                dataHash: keccak256(changes.to_be_bytes()),
            };
            let call = Manager::commitBatchCall { batch: self.last.clone() };
            dearest = dearest.max(self.send(&call.abi_encode())?);
            self.chain.mine_after(u64::from(Terms::default().claim_delay) / 2);
        }
        Ok(dearest)
    }

    fn claim(&mut self, who: u32) -> Result<u64> {
        let mature = Manager::matureHeadCall { batch: self.last.clone() };
        self.chain.mine_after(u64::from(Terms::default().claim_delay));
        self.send(&mature.abi_encode())?;
        let call = Manager::claimCall { leaf: self.credit(who)?, rest: self.rest };
        self.send(&call.abi_encode())
    }

    fn claim_many(&mut self, from: u32) -> Result<u64> {
        let leaves = (from..).take(CLAIMS).map(|who| self.credit(who)).collect::<Result<_>>()?;
        self.send(&Manager::claimManyCall { leaves, rest: self.rest }.abi_encode())
    }

    fn call_guarantee(&mut self) -> Result<u64> {
        let time = self.chain.block(Tag::Latest)?.map_or(0, |block| block.time);
        let lock = |n: usize| Lock {
            lockId: keccak256(n.to_be_bytes()),
            version: 1,
            shard: 1,
            seq: 1_000_000,
            partition: self.partition,
            payee: payee(1),
            amount: 50 * TOKEN,
            deadline: time + 3600,
            releaseKey: payee(2),
        };
        const TYPE: &str = "Lock(bytes32 lockId,uint16 version,uint16 shard,uint64 seq,bytes32 partition,address payee,\
                            uint128 amount,uint64 deadline,address releaseKey)";
        let hash = |lock: Lock| keccak256([keccak256(TYPE).to_vec(), lock.abi_encode()].concat());
        let group = Tree::new((0..GROUP).map(|n| hash(lock(n))).collect());
        let structure = keccak256((keccak256("LockGroup(bytes32 root)"), group.root()).abi_encode());
        let signed = [&[0x19, 0x01], domain(self.at.manager).as_slice(), structure.as_slice()].concat();
        let signature = self.signer.sign(&keccak256(signed))?.to_vec().into();
        let call = Manager::callGuaranteeCall { lock: lock(77), path: group.path(77), signature };
        self.send(&call.abi_encode())
    }

    fn credit(&self, who: u32) -> Result<Credit> {
        let path = self.payees.path(usize::try_from(who)?);
        Ok(Credit { partition: self.partition, payee: payee(who), credit: TOKEN, path })
    }

    fn send(&mut self, input: &[u8]) -> Result<u64> {
        let input = Bytes::copy_from_slice(input);
        Ok(send_and_mine(&mut self.chain, &self.poster, self.at.manager, input)?.gas_used)
    }
}

/// A plain tree of the format: sorted pairs, an odd node goes up as it is.
struct Tree(Vec<Vec<B256>>);

impl Tree {
    fn new(leaves: Vec<B256>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let node = |pair: &[B256]| match pair {
                [a, b] => keccak256((a.min(b), a.max(b)).abi_encode()),
                _ => pair[0],
            };
            let above = level.chunks(2).map(node).collect();
            levels.push(above);
        }
        Self(levels)
    }

    fn root(&self) -> B256 {
        self.0.last().and_then(|level| level.first().copied()).unwrap_or_default()
    }

    fn path(&self, mut place: usize) -> Vec<B256> {
        let mut path = Vec::new();
        for level in &self.0 {
            path.extend(level.get(place ^ 1).copied());
            place /= 2;
        }
        path
    }
}

fn payee(who: u32) -> Address {
    Address::from_word(keccak256(who.to_be_bytes()))
}

fn leaf(partition: B256, payee: Address) -> B256 {
    let inner = keccak256((U256::from(2), partition, payee, U256::from(TOKEN)).abi_encode());
    keccak256(inner)
}

fn domain(manager: Address) -> B256 {
    const TYPE: &str =
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)";
    let names = (keccak256(TYPE), keccak256("Surety"), keccak256("1"));
    keccak256((names.0, names.1, names.2, U256::from(31337), manager, U256::from(1)).abi_encode())
}
