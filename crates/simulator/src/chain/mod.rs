//! A chain as far as an engine and its settler can tell: blocks, a pool with a node's rule of replacement, finality, and a contract
//! that holds collateral. Written for plainness: it knows the bytes of a batch and none of the rules by which one is made.

mod contract;
mod transaction;

use std::collections::{BTreeMap, VecDeque};

use settlement::Hash;
use settlement::life::Fees;
use surety_protocol::Time;

pub use self::contract::{Applied, Call, CallState, Credit, Event, Holding, State};
pub use self::transaction::{Commit, Request, Signed};

/// Blocks between the newest one and the newest that is final.
pub const FINALITY: u64 = 6;
/// How far a node may lag behind.
pub const LAG_MAX: u64 = 2;

/// A block, and the state behind it.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub time: Time,
    /// What the contract and the poster's account are behind it.
    pub state: State,
    /// Events of the chain up to here.
    events: usize,
    signed: Vec<Signed>,
    requests: Vec<Request>,
}

/// The chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// From some blocks before the final one to the newest.
    blocks: VecDeque<Block>,
    /// What happened, in order, along the newest blocks.
    events: Vec<Event>,
    /// In which block a transaction of the poster is.
    mined: BTreeMap<Hash, u64>,
    pool: Vec<Signed>,
    /// What suppliers and merchants want.
    requests: Vec<Request>,
    base_fee: u128,
}

impl Chain {
    /// Before the first batch. `genesis` is the head that the contract was made with, `credit_max` the most of new credit that it
    /// lets through in a batch; what is supplied here is final at once.
    #[must_use]
    pub fn new(genesis: Hash, credit_max: u128, time: Time, supplies: &[Request]) -> Self {
        let mut chain = Self {
            blocks: VecDeque::new(),
            events: Vec::new(),
            mined: BTreeMap::new(),
            pool: Vec::new(),
            requests: Vec::new(),
            base_fee: 20,
        };
        let mut state = State::new(genesis, credit_max);
        for supply in supplies {
            chain.events.extend(state.request(supply, time));
        }
        let events = chain.events.len();
        let block = Block { number: 0, time, state, events, signed: Vec::new(), requests: Vec::new() };
        chain.blocks.push_back(block);
        chain
    }

    /// The newest block.
    ///
    /// # Panics
    /// Never: a chain has a block.
    #[must_use]
    pub fn newest(&self) -> &Block {
        self.blocks.back().expect("a chain has a block")
    }

    /// The block that a node shows which lags behind by so many.
    #[must_use]
    pub fn behind(&self, lag: u64) -> &Block {
        self.at(self.newest().number.saturating_sub(lag))
    }

    /// The newest block that such a node takes for final.
    #[must_use]
    pub fn finalized(&self, lag: u64) -> &Block {
        self.at(self.newest().number.saturating_sub(lag + FINALITY))
    }

    fn at(&self, number: u64) -> &Block {
        let kept = self.blocks.iter().find(|block| block.number >= number);
        kept.unwrap_or_else(|| self.newest())
    }

    /// What happened up to a block.
    #[must_use]
    pub fn events(&self, until: &Block) -> &[Event] {
        &self.events[..until.events]
    }

    /// What the next block costs, wei per gas.
    #[must_use]
    pub const fn base_fee(&self) -> u128 {
        self.base_fee
    }

    /// The block that has a transaction of the poster.
    #[must_use]
    pub fn mined(&self, hash: &Hash) -> Option<u64> {
        self.mined.get(hash).copied()
    }

    /// True for a transaction of the poster that waits.
    #[must_use]
    pub fn is_pooled(&self, hash: &Hash) -> bool {
        self.pool.iter().any(|known| known.hash == *hash)
    }

    /// Transactions of the poster that wait.
    pub fn waiting(&self) -> std::slice::Iter<'_, Signed> {
        self.pool.iter()
    }

    /// A transaction of the poster arrives at the node. False if another one with its nonce pays too much to be replaced.
    pub fn send(&mut self, raw: &[u8], hash: Hash) -> bool {
        let Some(signed) = Signed::read(raw, hash) else { return true };
        if signed.nonce < self.newest().state.nonce || self.is_pooled(&hash) {
            return true;
        }
        let tops = |new: u128, old: u128| new > old + old / 10;
        let Some(known) = self.pool.iter_mut().find(|known| known.nonce == signed.nonce) else {
            self.pool.push(signed);
            return true;
        };
        let replaces = tops(signed.fees.cap, known.fees.cap) && tops(signed.fees.tip, known.fees.tip);
        if replaces {
            *known = signed;
        }
        replaces
    }

    /// Somebody else asks the contract for something.
    pub fn ask(&mut self, request: Request) {
        self.requests.push(request);
    }

    /// A block: the poster's transactions in the order of their nonces, those that pay enough and that `takes` does not pass over, and
    /// what else was asked for.
    pub fn mine(&mut self, time: Time, takes: &mut dyn FnMut() -> bool) {
        let mut block = self.next_block(time);
        while let Some(at) = self.pool.iter().position(|signed| signed.nonce == block.state.nonce) {
            if self.pool[at].fees.cap < self.base_fee || !takes() {
                break;
            }
            let signed = self.pool.remove(at);
            self.execute(&mut block, signed);
        }
        let (taken, left) = std::mem::take(&mut self.requests).into_iter().partition(|_| takes());
        self.requests = left;
        block.requests = taken;
        for request in &block.requests {
            self.events.extend(block.state.request(request, time));
        }
        self.push(block);
    }

    /// Somebody uses the poster's account for something else.
    pub fn foreign(&mut self, time: Time) {
        let mut block = self.next_block(time);
        let fees = Fees { cap: 1 << 100, tip: 1 << 100 };
        let mut hash = [0xf0; 32];
        hash[..8].copy_from_slice(&block.number.to_be_bytes());
        let signed = Signed { hash, nonce: block.state.nonce, fees, commit: None };
        self.execute(&mut block, signed);
        self.push(block);
    }

    /// The newest blocks are replaced by empty ones, as far as none of them is final; what was in them goes back to the pool, or is
    /// lost. Says how many batches are no longer applied.
    pub fn reorg(&mut self, depth: u64, keeps: bool) -> u64 {
        let before = self.newest().state.head.seq;
        let last_final = self.newest().number.saturating_sub(FINALITY);
        let mut times = Vec::new();
        while (times.len() as u64) < depth && self.newest().number > last_final {
            let Some(block) = self.blocks.pop_back() else { break };
            times.push(block.time);
            for signed in block.signed {
                self.mined.remove(&signed.hash);
                if keeps {
                    self.pool.retain(|known| known.nonce != signed.nonce);
                    self.pool.push(signed);
                }
            }
            if keeps {
                self.requests.splice(..0, block.requests);
            }
        }
        self.events.truncate(self.newest().events);
        let lost = before - self.newest().state.head.seq;
        for time in times.into_iter().rev() {
            let block = self.next_block(time);
            self.push(block);
        }
        lost
    }

    /// The pool forgets one of the poster's transactions. False if it has none.
    pub fn drop_one(&mut self, index: usize) -> bool {
        let is_there = index < self.pool.len();
        if is_there {
            self.pool.remove(index);
        }
        is_there
    }

    /// Blocks get dearer or cheaper.
    pub const fn set_base_fee(&mut self, base_fee: u128) {
        self.base_fee = base_fee;
    }

    /// The guardian pauses the contract, or lets it go on, in a block of its own.
    pub fn pause(&mut self, time: Time, is_paused: bool) {
        let mut block = self.next_block(time);
        block.state.is_paused = is_paused;
        self.push(block);
    }

    /// The owner lets another amount of new credit through in a batch, in a block of its own.
    pub fn limit_credit(&mut self, time: Time, credit_max: u128) {
        let mut block = self.next_block(time);
        block.state.credit_max = credit_max;
        self.push(block);
    }

    fn next_block(&self, time: Time) -> Block {
        let top = self.newest();
        Block {
            number: top.number + 1,
            time: top.time.max(time),
            state: top.state.clone(),
            events: top.events,
            signed: Vec::new(),
            requests: Vec::new(),
        }
    }

    fn execute(&mut self, block: &mut Block, signed: Signed) {
        block.state.nonce = signed.nonce + 1;
        if let Some(commit) = &signed.commit {
            // One that the contract refuses costs its nonce, and does nothing.
            self.events.extend(block.state.commit(commit));
        }
        self.mined.insert(signed.hash, block.number);
        block.signed.push(signed);
    }

    fn push(&mut self, mut block: Block) {
        block.events = self.events.len();
        self.pool.retain(|signed| signed.nonce >= block.state.nonce);
        self.blocks.push_back(block);
        while self.blocks.len() as u64 > FINALITY + LAG_MAX + 1 {
            self.blocks.pop_front();
        }
    }
}
