//! A chain as far as a settler sees it: blocks, one account's nonces, a pool with geth's rule of replacement, finality, and a
//! contract that keeps the chain of heads.
#![allow(unreachable_pub)]

use settlement::Hash;
use settlement::life::{Attempt, ContractHead, Fees, Log, Pile, Purpose, TxState, View};
use surety_protocol::{Time, sabotage};

/// The poster's balance, wei.
pub const POSTER_FUNDS: u128 = u128::MAX;

/// Blocks between the newest and the finalized one.
const FINALITY: usize = 6;

/// What the contract checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// That a batch is the next one, and follows the head.
    Checked,
    /// Nothing.
    Unchecked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tx {
    hash: Hash,
    nonce: u64,
    fees: Fees,
    /// Number, head before and head; none: it does nothing.
    batch: Option<(u64, Hash, Hash)>,
}

/// The state behind a block.
#[derive(Clone, Debug)]
struct Block {
    txs: Vec<Tx>,
    nonce: u64,
    head: ContractHead,
    /// Every batch that was applied, in order.
    applied: Vec<ContractHead>,
}

pub struct Chain {
    rules: Rules,
    blocks: Vec<Block>,
    /// The highest block that was ever final: a reorg does not reach it.
    finalized: usize,
    pool: Vec<Tx>,
    base_fee: u128,
    is_refusing: bool,
    foreign: u64,
    underpriced: Vec<Hash>,
}

/// A transaction's bytes: what it does, with which nonce, for which fees.
pub fn sign(log: &Log, seq: u64, purpose: Purpose, nonce: u64, fees: Fees) -> Vec<u8> {
    let mut raw = Vec::new();
    raw.extend_from_slice(&nonce.to_be_bytes());
    raw.extend_from_slice(&fees.cap.to_be_bytes());
    raw.extend_from_slice(&fees.tip.to_be_bytes());
    if purpose == Purpose::Commit {
        let batch = log.sealed(seq).unwrap().batch;
        raw.extend_from_slice(&seq.to_be_bytes());
        raw.extend_from_slice(&batch.prev_head);
        raw.extend_from_slice(&batch.head());
    }
    raw
}

impl Chain {
    pub fn new(rules: Rules, genesis: Hash) -> Self {
        let head = ContractHead { seq: 0, head: genesis };
        Self {
            rules,
            blocks: vec![Block { txs: Vec::new(), nonce: 0, head, applied: Vec::new() }],
            finalized: 0,
            pool: Vec::new(),
            base_fee: 20,
            is_refusing: false,
            foreign: 0,
            underpriced: Vec::new(),
        }
    }

    /// The bytes of an attempt arrive.
    pub fn send(&mut self, attempt: &Attempt) {
        let (head, rest) = attempt.raw.split_at(40);
        let batch = (!rest.is_empty()).then(|| {
            let seq = u64::from_be_bytes(rest[..8].try_into().unwrap());
            (seq, rest[8..40].try_into().unwrap(), rest[40..].try_into().unwrap())
        });
        let nonce = u64::from_be_bytes(head[..8].try_into().unwrap());
        let tx = Tx { hash: attempt.hash, nonce, fees: attempt.fees, batch };
        if tx.nonce < self.top().nonce || self.pool.iter().any(|known| known.hash == tx.hash) {
            return;
        }
        let tops = |new: u128, old: u128| new > old + old / 10;
        match self.pool.iter_mut().find(|known| known.nonce == tx.nonce) {
            Some(known) if tops(tx.fees.cap, known.fees.cap) && tops(tx.fees.tip, known.fees.tip) => {
                *known = tx
            }
            Some(_) => self.underpriced.push(tx.hash),
            None => self.pool.push(tx),
        }
    }

    /// A block: pooled transactions in the order of nonces, those that pay enough and that its maker does not pass over.
    pub fn mine(&mut self, takes: &mut dyn FnMut(&Hash) -> bool) {
        let mut block = Block { txs: Vec::new(), ..self.top().clone() };
        while let Some(at) = self.pool.iter().position(|tx| tx.nonce == block.nonce) {
            let pays = self.pool[at].fees.cap >= self.base_fee;
            if !pays || !takes(&self.pool[at].hash) {
                break;
            }
            let tx = self.pool.remove(at);
            self.execute(&mut block, tx);
        }
        self.push(block);
    }

    fn execute(&self, block: &mut Block, tx: Tx) {
        block.nonce = tx.nonce + 1;
        if let Some((seq, prev, head)) = tx.batch {
            let is_next = seq == block.head.seq + 1 && prev == block.head.head && !self.is_refusing;
            let is_unchecked = self.rules == Rules::Unchecked || sabotage!("contract-takes-any-batch");
            if is_next || is_unchecked {
                block.head = ContractHead { seq, head };
                block.applied.push(block.head);
            }
        }
        block.txs.push(tx);
    }

    fn push(&mut self, block: Block) {
        self.pool.retain(|tx| tx.nonce >= block.nonce);
        self.blocks.push(block);
        self.finalized = self.finalized.max(self.blocks.len().saturating_sub(1 + FINALITY));
    }

    /// The newest blocks are replaced by empty ones; their transactions go back to the pool, or are lost. Says how many batches
    /// are no longer applied.
    pub fn reorg(&mut self, depth: u64, keep: bool) -> u64 {
        let before = self.top().applied.len();
        let depth = usize::try_from(depth).unwrap().min(self.blocks.len() - 1 - self.finalized);
        let height = self.blocks.len();
        let gone = self.blocks.split_off(height - depth);
        for tx in gone.into_iter().flat_map(|block| block.txs).filter(|_| keep) {
            self.pool.retain(|known| known.nonce != tx.nonce);
            self.pool.push(tx);
        }
        for _ in 0..depth {
            let empty = Block { txs: Vec::new(), ..self.top().clone() };
            self.push(empty);
        }
        (before - self.top().applied.len()) as u64
    }

    /// The pool forgets a transaction.
    pub fn drop_one(&mut self, which: u64) {
        if !self.pool.is_empty() {
            let at = usize::try_from(which % self.pool.len() as u64).unwrap();
            self.pool.remove(at);
        }
    }

    pub fn set_base_fee(&mut self, base_fee: u128) {
        self.base_fee = base_fee;
    }

    /// Somebody uses the poster's account for something else, in a block of its own.
    pub fn foreign(&mut self) {
        self.foreign += 1;
        let mut block = Block { txs: Vec::new(), ..self.top().clone() };
        let mut hash = [0xf0; 32];
        hash[24..].copy_from_slice(&self.foreign.to_be_bytes());
        let fees = Fees { cap: 1_000, tip: 1_000 };
        let tx = Tx { hash, nonce: block.nonce, fees, batch: None };
        self.execute(&mut block, tx);
        self.push(block);
    }

    /// Somebody else's batch, next in turn.
    pub fn commit_foreign_batch(&mut self) {
        let mut block = self.top().clone();
        block.head = ContractHead { seq: block.head.seq + 1, head: [0xee; 32] };
        self.push(block);
    }

    /// The contract begins or ends to refuse whatever comes.
    pub fn refuse(&mut self, is_refusing: bool) {
        self.is_refusing = is_refusing;
    }

    /// What a simulation of a batch with this predecessor says.
    pub fn refuses(&self, prev: Hash) -> bool {
        self.is_refusing && self.top().head.head == prev
    }

    /// No more faults.
    pub fn calm(&mut self) {
        self.base_fee = 20;
        self.is_refusing = false;
    }

    /// The chain as a node shows it that may lag behind, and may not know what is in the pool.
    pub fn view(&mut self, lag: u64, now: Time, attempts: &[Attempt], is_blind: bool) -> Option<View> {
        let height = (self.blocks.len() - 1).checked_sub(usize::try_from(lag).ok()?)?;
        let final_height =
            height.saturating_sub(FINALITY).max(self.finalized.saturating_sub(usize::try_from(lag).ok()?));
        let (latest, finalized) = (&self.blocks[height], &self.blocks[final_height]);
        let mined = self.blocks[..=height].iter().flat_map(|block| &block.txs);
        let mined: Vec<Hash> = mined.map(|tx| tx.hash).collect();
        let mut transactions = Vec::new();
        for attempt in attempts {
            let is_pooled = self.pool.iter().any(|tx| tx.hash == attempt.hash);
            let state = if mined.contains(&attempt.hash) {
                TxState::Mined
            } else if is_pooled && !is_blind {
                TxState::Pending
            } else if self.underpriced.contains(&attempt.hash) {
                TxState::Underpriced
            } else {
                continue;
            };
            transactions.push((attempt.hash, state));
        }
        self.underpriced.clear();
        Some(View {
            now,
            is_right_chain: true,
            block: height as u64,
            latest: latest.head,
            finalized_block: final_height as u64,
            finalized: finalized.head,
            nonce: latest.nonce,
            finalized_nonce: finalized.nonce,
            is_frozen: false,
            base_fee: self.base_fee,
            base_fee_mean: self.base_fee,
            balance: POSTER_FUNDS,
            spent_today: 0,
            transactions,
            refusal: None,
            pile: Pile::default(),
            credit_max: u128::MAX,
        })
    }

    /// True if the finalized chain has this batch with this head.
    pub fn is_final(&self, seq: u64, head: Hash) -> bool {
        self.blocks[self.finalized].applied.contains(&ContractHead { seq, head })
    }

    /// Batches that were applied again.
    pub fn doubles(&self) -> usize {
        let applied = &self.top().applied;
        let is_again = |at: usize, seq| applied[..at].iter().any(|before| before.seq == seq);
        applied.iter().enumerate().filter(|(at, head)| is_again(*at, head.seq)).count()
    }

    fn top(&self) -> &Block {
        self.blocks.last().unwrap()
    }
}
