//! One block, and the state behind it.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use revm::bytecode::Bytecode;
use revm::database::{CacheDB, EmptyDB};
use revm::state::AccountInfo;

use super::DevConfig;
use crate::backend::{Block, Receipt};
use crate::transaction::SignedTransaction;

/// A block of the chain.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) block: Block,
    pub(super) transactions: Vec<SignedTransaction>,
    pub(super) receipts: Vec<Receipt>,
    pub(super) state: CacheDB<EmptyDB>,
    gas_used: u64,
}

impl Link {
    /// The first block.
    pub(super) fn first(config: &DevConfig) -> Self {
        let block = Block {
            number: 0,
            hash: B256::ZERO,
            parent: B256::ZERO,
            time: config.time,
            base_fee: u128::from(config.base_fee),
        };
        let mut first = Self {
            block,
            transactions: Vec::new(),
            receipts: Vec::new(),
            state: CacheDB::new(EmptyDB::new()),
            gas_used: config.block_gas_limit / 2,
        };
        first.seal(config.chain_id);
        first
    }

    /// A block upon this one, still without transactions.
    pub(super) fn next(&self, time: u64, base_fee: u64, _config: &DevConfig) -> Self {
        let mut state = self.state.clone();
        state.cache.block_hashes.insert(U256::from(self.block.number), self.block.hash);
        let block = Block {
            number: self.block.number + 1,
            hash: B256::ZERO,
            parent: self.block.hash,
            time,
            base_fee: u128::from(base_fee),
        };
        Self { block, transactions: Vec::new(), receipts: Vec::new(), state, gas_used: 0 }
    }

    /// What the rules say (EIP-1559): an eighth up or down, as far as this block was above or below half full.
    pub(super) fn base_fee_next(&self, config: &DevConfig) -> u64 {
        let target = u128::from(config.block_gas_limit / 2).max(1);
        let (fee, used) = (self.block.base_fee, u128::from(self.gas_used));
        let next = if used > target {
            fee + (fee * (used - target) / target / 8).max(1)
        } else {
            fee - fee * (target - used) / target / 8
        };
        u64::try_from(next).unwrap_or(u64::MAX)
    }

    /// Adds an executed transaction.
    pub(super) fn append(&mut self, transaction: &SignedTransaction, receipt: Receipt) {
        self.gas_used += receipt.gas_used;
        self.transactions.push(transaction.clone());
        self.receipts.push(receipt);
    }

    /// Gives the block its hash, and the receipts theirs.
    pub(super) fn seal(&mut self, branch: u64) {
        let mut bytes = self.block.parent.to_vec();
        bytes.extend_from_slice(&self.block.number.to_be_bytes());
        bytes.extend_from_slice(&self.block.time.to_be_bytes());
        bytes.extend_from_slice(&self.block.base_fee.to_be_bytes());
        bytes.extend_from_slice(&branch.to_be_bytes());
        for transaction in &self.transactions {
            bytes.extend_from_slice(transaction.hash.as_slice());
        }
        self.block.hash = keccak256(bytes);
        for receipt in &mut self.receipts {
            receipt.block = self.block.hash;
            receipt.events.iter_mut().for_each(|event| event.block = self.block.hash);
        }
    }

    pub(super) fn nonce(&self, account: Address) -> u64 {
        self.info(account).map_or(0, |info| info.nonce)
    }

    pub(super) fn balance(&self, account: Address) -> U256 {
        self.info(account).map_or(U256::ZERO, |info| info.balance)
    }

    pub(super) fn code(&self, account: Address) -> Bytes {
        let code = self.info(account).and_then(|info| self.state.cache.contracts.get(&info.code_hash));
        code.map(Bytecode::original_bytes).unwrap_or_default()
    }

    pub(super) fn fund(&mut self, account: Address, wei: U256) {
        let mut info = self.info(account).cloned().unwrap_or_default();
        info.balance = info.balance.saturating_add(wei);
        self.state.insert_account_info(account, info);
    }

    pub(super) fn set_code(&mut self, account: Address, code: Bytes) {
        let known = self.info(account).cloned().unwrap_or_default();
        let mut info = AccountInfo::from_bytecode(Bytecode::new_raw(code));
        info.balance = known.balance;
        info.nonce = known.nonce.max(1);
        self.state.insert_account_info(account, info);
    }

    fn info(&self, account: Address) -> Option<&AccountInfo> {
        self.state.cache.accounts.get(&account).map(|account| &account.info)
    }
}
