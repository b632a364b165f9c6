//! A development engine with collateral, and chains that say what a test wants.

#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod engine;
pub mod node;

use std::sync::{Arc, Mutex};

use alloy_primitives::{B256, keccak256};
use surety_protocol::{AssetId, Id, PartitionHandle, ShardId, TenantId};
use watcher::source::{Source, SourceError};
use watcher::{Account, BlockRef, Payment, SeenBlock, Watch, WatchKey};

pub const ASSET: AssetId = AssetId(840);
/// The time of block 0; every block is ten seconds after the one before.
pub const START_S: u64 = 1_700_000_000;

pub fn account(name: &str) -> Account {
    Account::new(name).unwrap()
}

pub fn time_of(number: u64) -> u64 {
    START_S + 10 * number
}

/// A watch for 100 with 3 confirmations, in time up to and in block 20.
pub fn watch(lock: u128, to: &str) -> Watch {
    let key =
        WatchKey { tenant: TenantId(1), partition: PartitionHandle::new(ShardId(0), 1), lock: Id(lock) };
    let deadline_s = time_of(20);
    Watch { key, asset: ASSET, to: account(to), amount: 100, confirmations: 3, deadline_s, owes_held: false }
}

/// A block of a branch; the branch is part of its hash, that of its parent is the caller's to say.
pub fn block(number: u64, branch: &str, parent: B256, payments: &[(&str, u128)]) -> SeenBlock {
    let paid = |(to, amount): &(&str, u128)| Payment { to: account(to), amount: *amount };
    SeenBlock {
        at: BlockRef { number, hash: keccak256(format!("{branch} {number}")) },
        parent,
        time_s: time_of(number),
        payments: payments.iter().map(paid).collect(),
    }
}

/// A chain in memory: what a node would show.
#[derive(Clone, Default)]
pub struct Scripted {
    blocks: Arc<Mutex<Vec<SeenBlock>>>,
    /// Answers this instead, while it is set.
    pub trouble: Arc<Mutex<Option<SourceError>>>,
}

impl Scripted {
    pub fn new() -> Self {
        let chain = Self::default();
        chain.mine(&[]);
        chain
    }

    pub fn mine(&self, payments: &[(&str, u128)]) {
        self.mine_on("main", payments);
    }

    pub fn mine_on(&self, branch: &str, payments: &[(&str, u128)]) {
        let mut blocks = self.blocks.lock().unwrap();
        let parent = blocks.last().map_or(B256::ZERO, |block| block.at.hash);
        let number = blocks.len() as u64;
        blocks.push(block(number, branch, parent, payments));
    }

    pub fn mine_empty(&self, count: usize) {
        (0..count).for_each(|_| self.mine(&[]));
    }

    pub fn take_back(&self, count: usize) {
        let mut blocks = self.blocks.lock().unwrap();
        let left = blocks.len() - count;
        blocks.truncate(left);
    }

    pub fn height_now(&self) -> u64 {
        self.blocks.lock().unwrap().len() as u64 - 1
    }

    pub fn fail(&self, trouble: Option<SourceError>) {
        *self.trouble.lock().unwrap() = trouble;
    }

    fn answer<T>(&self, answer: impl FnOnce(&[SeenBlock]) -> T) -> Result<T, SourceError> {
        match &*self.trouble.lock().unwrap() {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(answer(&self.blocks.lock().unwrap())),
        }
    }
}

impl Source for Scripted {
    fn check(&self) -> Result<(), SourceError> {
        self.answer(|_| ())
    }

    fn height(&self) -> Result<u64, SourceError> {
        self.answer(|blocks| blocks.len() as u64 - 1)
    }

    fn block(&self, number: u64) -> Result<Option<SeenBlock>, SourceError> {
        self.answer(|blocks| blocks.get(usize::try_from(number).unwrap()).cloned())
    }

    /// Names without digits.
    fn account(&self, account: &Account) -> Result<Option<Account>, SourceError> {
        let is_name = !account.as_str().bytes().any(|byte| byte.is_ascii_digit());
        self.answer(|_| is_name.then(|| account.clone()))
    }
}

/// A node of another chain, which has blocks all the same.
pub struct Elsewhere(pub Scripted);

impl Source for Elsewhere {
    fn check(&self) -> Result<(), SourceError> {
        Err(SourceError::OtherChain { expected: "1".to_owned(), found: "2".to_owned() })
    }

    fn height(&self) -> Result<u64, SourceError> {
        self.0.height()
    }

    fn block(&self, number: u64) -> Result<Option<SeenBlock>, SourceError> {
        self.0.block(number)
    }

    fn account(&self, account: &Account) -> Result<Option<Account>, SourceError> {
        self.0.account(account)
    }
}

/// A node that takes no name for an address of its chain.
pub struct Forgetful(pub Scripted);

impl Source for Forgetful {
    fn check(&self) -> Result<(), SourceError> {
        self.0.check()
    }

    fn height(&self) -> Result<u64, SourceError> {
        self.0.height()
    }

    fn block(&self, number: u64) -> Result<Option<SeenBlock>, SourceError> {
        self.0.block(number)
    }

    fn account(&self, _: &Account) -> Result<Option<Account>, SourceError> {
        Ok(None)
    }
}
