//! A whole chain in process: blocks, tags, a pool with the rules of a real node, and, for tests, whatever can go wrong on one.
//!
//! It has no clock and no thread: whoever holds it says when a block is made, and of what time.

mod execute;
mod pool;
mod state;

use alloy_primitives::{Address, B256, Bytes, U256, address};

use crate::backend::{
    At, Backend, BackendError, Block, Call, CallError, LogFilter, LoggedEvent, Receipt, SendError, Tag,
};
use crate::transaction::SignedTransaction;
use pool::Pool;
use state::Link;

/// Where the token looks for the ERC-1820 registry, on every chain.
pub const INTERFACE_REGISTRY: Address = address!("1820a4B7618BdE71Dce8cdc73aAB6C95905faD24");

/// The rules of a development chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevConfig {
    /// The chain's number.
    pub chain_id: u64,
    /// Seconds since the Unix epoch of the first block.
    pub time: u64,
    /// The first block's base fee, in wei.
    pub base_fee: u64,
    /// The most gas of a block; half of it is what the base fee aims at.
    pub block_gas_limit: u64,
    /// How many blocks stand above one that is safe, and above one that is final.
    pub safe_depth: u64,
    /// How many blocks stand above one that is final.
    pub final_depth: u64,
}

impl Default for DevConfig {
    fn default() -> Self {
        Self {
            chain_id: 31337,
            time: 1_700_000_000,
            base_fee: 1_000_000_000,
            block_gas_limit: 36_000_000,
            safe_depth: 2,
            final_depth: 4,
        }
    }
}

/// A reorganization that would go below what is final, or below the first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no chain takes back what is final")]
pub struct TooDeep;

/// The chain.
#[derive(Clone, Debug)]
pub struct DevChain {
    config: DevConfig,
    /// Every block with the state behind it, while it may be asked for; the first stands for all before it.
    links: Vec<Link>,
    pool: Pool,
    /// Sets the next block's base fee apart from what the rules say.
    base_fee_next: Option<u64>,
    /// Part of every block's hash, so that a block that is made again is another one.
    branch: u64,
}

impl DevChain {
    /// A chain with its first block, which has no contract.
    #[must_use]
    pub fn new(config: DevConfig) -> Self {
        Self {
            config,
            links: vec![Link::first(&config)],
            pool: Pool::default(),
            base_fee_next: None,
            branch: 0,
        }
    }

    /// Gives an account wei, as of the newest block.
    pub fn fund(&mut self, account: Address, wei: U256) {
        self.tip_mut().fund(account, wei);
    }

    /// Puts code at an address, as of the newest block; for what stands at fixed addresses on every chain.
    pub fn set_code(&mut self, account: Address, code: Bytes) {
        self.tip_mut().set_code(account, code);
    }

    /// The code that an initialization leaves, without putting it anywhere; for what stands at a fixed address on every chain.
    #[must_use]
    pub fn initialized(&self, bytecode: Bytes) -> Option<Bytes> {
        self.tip().initialized(bytecode, &self.config)
    }

    /// Makes a block out of what waits in the pool, best tips first, and returns it. `time` may not go backwards.
    pub fn mine(&mut self, time: u64) -> Block {
        let base_fee = self.base_fee_next.take().unwrap_or_else(|| self.tip().base_fee_next(&self.config));
        let time = time.max(self.tip().block.time + 1);
        let mut link = self.tip().next(time, base_fee, &self.config);
        let mut gas_left = self.config.block_gas_limit;
        while let Some(transaction) =
            self.pool.best(u128::from(base_fee), gas_left, |account| link.nonce(account))
        {
            let outcome = link.execute(&transaction, &self.config);
            self.pool.forget(&transaction);
            if let Some(gas_used) = outcome {
                gas_left = gas_left.saturating_sub(gas_used);
            }
        }
        link.seal(self.branch);
        let block = link.block;
        self.links.push(link);
        self.pool.drop_spent(|account| self.links.last().map_or(0, |link| link.nonce(account)));
        block
    }

    /// The same, some seconds after the block before.
    pub fn mine_after(&mut self, seconds: u64) -> Block {
        let time = self.tip().block.time + seconds;
        self.mine(time)
    }

    /// Takes the newest blocks back. Their transactions return to the pool, as in a node that follows another branch.
    ///
    /// # Errors
    ///
    /// [`TooDeep`] for blocks that are final.
    pub fn reorg(&mut self, depth: u64) -> Result<(), TooDeep> {
        let removed = self.take_back(depth)?;
        for transaction in removed {
            let nonce = self.tip().nonce(transaction.sender);
            // What the other branch has replaced meanwhile stays away.
            let _ = self.pool.add(transaction, nonce, U256::MAX);
        }
        Ok(())
    }

    /// Takes the newest blocks back, and their transactions are lost.
    ///
    /// # Errors
    ///
    /// [`TooDeep`] for blocks that are final.
    pub fn reorg_and_lose(&mut self, depth: u64) -> Result<(), TooDeep> {
        self.take_back(depth).map(drop)
    }

    /// Loses a waiting transaction, as nodes do under load. True if it was there.
    pub fn lose(&mut self, transaction: B256) -> bool {
        self.pool.remove(transaction)
    }

    /// Sets the base fee of the next block.
    pub fn set_base_fee(&mut self, wei: u64) {
        self.base_fee_next = Some(wei);
    }

    fn take_back(&mut self, depth: u64) -> Result<Vec<SignedTransaction>, TooDeep> {
        let depth = usize::try_from(depth).map_err(|_| TooDeep)?;
        let deepest =
            usize::try_from(self.config.final_depth).unwrap_or(usize::MAX).min(self.links.len() - 1);
        if depth > deepest {
            return Err(TooDeep);
        }
        self.branch += 1;
        let removed = self.links.split_off(self.links.len() - depth);
        Ok(removed.into_iter().flat_map(|link| link.transactions).collect())
    }

    fn tip(&self) -> &Link {
        self.links.last().expect("a chain has its first block")
    }

    fn tip_mut(&mut self) -> &mut Link {
        self.links.last_mut().expect("a chain has its first block")
    }

    fn link(&self, at: At) -> Result<&Link, BackendError> {
        match at {
            At::Tag(tag) => self.tagged(tag).ok_or(BackendError::UnknownBlock),
            At::Hash(hash) => {
                let mut newest_first = self.links.iter().rev();
                newest_first.find(|link| link.block.hash == hash).ok_or(BackendError::UnknownBlock)
            }
        }
    }

    fn tagged(&self, tag: Tag) -> Option<&Link> {
        let depth = match tag {
            Tag::Latest => 0,
            Tag::Safe => self.config.safe_depth,
            Tag::Finalized => self.config.final_depth,
        };
        let depth = usize::try_from(depth).ok()?;
        self.links.iter().rev().nth(depth)
    }
}

impl Backend for DevChain {
    fn chain_id(&self) -> Result<u64, BackendError> {
        Ok(self.config.chain_id)
    }

    fn block(&self, tag: Tag) -> Result<Option<Block>, BackendError> {
        Ok(self.tagged(tag).map(|link| link.block))
    }

    fn nonce(&self, account: Address, at: At) -> Result<u64, BackendError> {
        Ok(self.link(at)?.nonce(account))
    }

    fn balance(&self, account: Address, at: At) -> Result<U256, BackendError> {
        Ok(self.link(at)?.balance(account))
    }

    fn code(&self, account: Address, at: At) -> Result<Bytes, BackendError> {
        Ok(self.link(at)?.code(account))
    }

    fn call(&self, call: &Call, at: At) -> Result<Bytes, CallError> {
        self.link(at)?.simulate(call, &self.config)
    }

    fn send(&mut self, raw: &[u8]) -> Result<B256, SendError> {
        let transaction = SignedTransaction::from_bytes(raw).map_err(|_| SendError::Malformed)?;
        if transaction.transaction.chain_id != self.config.chain_id {
            return Err(SendError::OtherChain);
        }
        let (nonce, balance) = (self.tip().nonce(transaction.sender), self.tip().balance(transaction.sender));
        let hash = transaction.hash;
        self.pool.add(transaction, nonce, balance)?;
        Ok(hash)
    }

    fn receipt(&self, transaction: B256) -> Result<Option<Receipt>, BackendError> {
        let mut receipts = self.links.iter().rev().flat_map(|link| &link.receipts);
        Ok(receipts.find(|receipt| receipt.transaction == transaction).cloned())
    }

    fn is_pending(&self, transaction: B256) -> Result<bool, BackendError> {
        Ok(self.pool.holds(transaction))
    }

    fn logs(&self, filter: &LogFilter) -> Result<Vec<LoggedEvent>, BackendError> {
        let links = self.links.iter().filter(|link| (filter.from..=filter.to).contains(&link.block.number));
        let events = links.flat_map(|link| &link.receipts).flat_map(|receipt| &receipt.events);
        let is_wanted = |event: &&LoggedEvent| {
            event.address == filter.address
                && filter.topic.is_none_or(|topic| event.topics.first() == Some(&topic))
        };
        Ok(events.filter(is_wanted).cloned().collect())
    }
}
