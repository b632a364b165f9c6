//! Looking at the chain: everything of one view is read at one block.

use alloy_primitives::{Address, B256};
use chain::{At, BackendError, Block, Tag};
use settlement::Sealer;
use settlement::life::{ContractHead, Log, Pile, TxState, View};
use surety_protocol::Time;

use crate::contract::{Code, Contract, HeadInfo};
use crate::facts::Waiting;
use crate::spending::Spending;

/// Changed leaves beyond which nothing more is read for a batch: what one entry of the log can hold, twice over.
pub(crate) const CHANGES_HELD_MAX: usize = 1 << 22;

/// What is looked with.
pub(crate) struct Eyes<'a> {
    pub(crate) contract: Contract<'a>,
    pub(crate) log: &'a Log,
    pub(crate) spending: &'a mut Spending,
    pub(crate) waiting: &'a Waiting,
    /// What is to be published.
    pub(crate) sealer: &'a Sealer,
    pub(crate) poster: Address,
    pub(crate) genesis: [u8; 32],
    /// Changed leaves at which a batch is due.
    pub(crate) changes_max: usize,
    pub(crate) now: Time,
}

/// An attempt by its hash, and what became of it.
type Became = (settlement::Hash, TxState);
/// An attempt by its hash, and the number of the block that has taken it.
pub(crate) type MinedIn = (settlement::Hash, u64);

/// What is seen.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) view: View,
    /// The newest block that is final; none while the chain is young or the contract not final.
    pub(crate) finalized: Option<(Block, HeadInfo)>,
    /// The newest block.
    pub(crate) newest: Option<(Block, HeadInfo)>,
    /// Of each attempt that a block has taken, the number of that block.
    pub(crate) mined: Vec<MinedIn>,
}

impl Eyes<'_> {
    /// `None` if the contract is not there yet.
    pub(crate) fn look(mut self) -> Result<Option<Sight>, BackendError> {
        let chain = self.contract.chain;
        let Some(latest) = chain.block(Tag::Latest)? else { return Ok(None) };
        let at = At::Hash(latest.hash);
        let is_chain = chain.chain_id()? == self.contract.place.chain_id;
        match self.contract.code(at)? {
            Code::Ours if is_chain && self.contract.separator(at)? == self.genesis => {}
            Code::NotYet if is_chain && self.log.final_seq() == 0 => return Ok(None),
            _ => {
                return Ok(Some(Sight {
                    view: self.elsewhere(&latest),
                    finalized: None,
                    newest: None,
                    mined: Vec::new(),
                }));
            }
        }
        let finalized = self.finalized()?;
        let head = self.contract.head_info(at)?;
        let (final_head, finalized_block, finalized_nonce) = match &finalized {
            Some((block, head)) => (of(head), block.number, chain.nonce(self.poster, At::Hash(block.hash))?),
            None => (ContractHead { seq: 0, head: self.genesis }, 0, 0),
        };
        let next = self.log.sealed(head.seq + 1).map(|sealed| sealed.batch);
        let refusal = match next {
            Some(batch) if !head.is_frozen => self.contract.refusal(&batch, self.poster, at)?,
            _ => None,
        };
        let credit_max = self.credit_max(&head, at)?;
        let (transactions, mined) = self.transactions(&latest)?;
        let view = View {
            now: self.now,
            is_right_chain: true,
            block: latest.number,
            latest: of(&head),
            finalized_block,
            finalized: final_head,
            nonce: chain.nonce(self.poster, at)?,
            finalized_nonce,
            is_frozen: head.is_frozen,
            base_fee: latest.base_fee,
            base_fee_mean: self.spending.mean_with(self.now, latest.base_fee),
            balance: u128::try_from(chain.balance(self.poster, at)?).unwrap_or(u128::MAX),
            transactions,
            spent_today: self.spending.today(self.now),
            refusal: refusal.map(|refusal| (head.seq + 1, refusal)),
            pile: self.pile(credit_max),
            credit_max,
        };
        Ok(Some(Sight { view, finalized, newest: Some((latest, head)), mined }))
    }

    fn finalized(&self) -> Result<Option<(Block, HeadInfo)>, BackendError> {
        let Some(block) = self.contract.chain.block(Tag::Finalized)? else { return Ok(None) };
        let at = At::Hash(block.hash);
        match self.contract.code(at)? {
            Code::NotYet => Ok(None),
            _ => Ok(Some((block, self.contract.head_info(at)?))),
        }
    }

    /// What became of every attempt, and in which block: nothing that happened behind the view's block.
    fn transactions(&mut self, latest: &Block) -> Result<(Vec<Became>, Vec<MinedIn>), BackendError> {
        let refused = std::mem::take(&mut self.spending.underpriced);
        let (mut states, mut mined) = (Vec::new(), Vec::new());
        for attempt in self.log.attempts() {
            let hash = B256::from(attempt.hash);
            let receipt = self.contract.chain.receipt(hash)?;
            let state = match receipt {
                Some(receipt) if receipt.number <= latest.number => {
                    let wei = u128::from(receipt.gas_used).saturating_mul(receipt.gas_price);
                    self.spending.pay(self.now, hash, wei);
                    mined.push((attempt.hash, receipt.number));
                    TxState::Mined
                }
                Some(_) => TxState::Pending,
                None if self.contract.chain.is_pending(hash)? => TxState::Pending,
                None if refused.contains(&hash) => TxState::Underpriced,
                None => continue,
            };
            states.push((attempt.hash, state));
        }
        Ok((states, mined))
    }

    /// What cannot be published, since nobody knows its payee, the limit is reached or the stream has not gone on, is no reason for a
    /// batch.
    fn pile(&self, credit_max: u128) -> Pile {
        Pile {
            records: self.waiting.records,
            value: self.sealer.creditable(credit_max),
            age: self.waiting.since.map_or(Time::ZERO, |since| self.now.minus(since)),
            is_urgent: self.waiting.is_urgent || self.sealer.netting().changes() >= self.changes_max,
        }
    }

    /// The contract's room, less what batches take of it that it has not seen. It counts in whole units.
    fn credit_max(&self, head: &HeadInfo, at: At) -> Result<u128, BackendError> {
        const UNIT: u128 = 1_000_000_000;
        let room = self.contract.credit_room(head, self.poster, at)?;
        let mut before = head.sum_credit;
        let mut taken = 0_u128;
        for seq in head.seq + 1..=self.log.sealed_head().0 {
            let Some(sealed) = self.log.sealed(seq) else { break };
            let credit = sealed.batch.sum_credit.saturating_sub(before);
            taken = taken.saturating_add(credit.div_ceil(UNIT).saturating_mul(UNIT));
            before = sealed.batch.sum_credit;
        }
        Ok(room.saturating_sub(taken))
    }

    /// A view of something that is not the settler's contract: nothing of it counts but that.
    fn elsewhere(&self, latest: &Block) -> View {
        let nothing = ContractHead { seq: 0, head: [0; 32] };
        View {
            now: self.now,
            is_right_chain: false,
            block: latest.number,
            latest: nothing,
            finalized_block: u64::MAX,
            finalized: nothing,
            nonce: 0,
            finalized_nonce: 0,
            is_frozen: false,
            base_fee: 0,
            base_fee_mean: 0,
            balance: 0,
            spent_today: 0,
            transactions: Vec::new(),
            refusal: None,
            pile: Pile::default(),
            credit_max: 0,
        }
    }
}

const fn of(head: &HeadInfo) -> ContractHead {
    ContractHead { seq: head.seq, head: head.head }
}
