//! Transactions that wait, under the rules of geth's pool.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256};

use crate::backend::SendError;
use crate::transaction::SignedTransaction;

/// The most bytes of a transaction.
const BYTES_MAX: usize = 128 * 1024;
/// The most gas that a transaction may ask for (EIP-7825).
const GAS_MAX: u64 = 1 << 24;
/// The least that any transaction uses.
const GAS_MIN: u64 = 21_000;
/// The most transactions of an account that wait.
const PER_ACCOUNT: usize = 64;
/// A replacement pays this many percent of what it replaces, in tip and in cap.
const REPLACEMENT_PERCENT: u128 = 110;
/// The least tip, in wei per gas.
const TIP_MIN: u128 = 1;

#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    waiting: BTreeMap<Address, BTreeMap<u64, SignedTransaction>>,
}

impl Pool {
    /// Takes a transaction in, also one whose turn has not come; `nonce` and `balance` are its sender's.
    pub(super) fn add(
        &mut self,
        transaction: SignedTransaction,
        nonce: u64,
        balance: U256,
    ) -> Result<(), SendError> {
        let asked = &transaction.transaction;
        if transaction.raw.len() > BYTES_MAX {
            return Err(SendError::Oversized);
        }
        if asked.gas_limit > GAS_MAX || asked.gas_limit < GAS_MIN {
            return Err(SendError::GasLimit);
        }
        if asked.tip > asked.cap {
            return Err(SendError::Malformed);
        }
        if asked.tip < TIP_MIN {
            return Err(SendError::Underpriced);
        }
        if self.holds(transaction.hash) {
            return Err(SendError::AlreadyKnown);
        }
        if asked.nonce < nonce {
            return Err(SendError::NonceTooLow(nonce));
        }
        let cost = U256::from(asked.gas_limit) * U256::from(asked.cap) + asked.value;
        if cost > balance {
            return Err(SendError::InsufficientFunds);
        }
        let own = self.waiting.entry(transaction.sender).or_default();
        if let Some(other) = own.get(&asked.nonce) {
            let enough =
                |new: u128, old: u128| new.saturating_mul(100) >= old.saturating_mul(REPLACEMENT_PERCENT);
            let replaced = &other.transaction;
            if !enough(asked.tip, replaced.tip) || !enough(asked.cap, replaced.cap) {
                return Err(SendError::Underpriced);
            }
        } else if own.len() >= PER_ACCOUNT {
            return Err(SendError::PoolFull);
        }
        own.insert(asked.nonce, transaction);
        Ok(())
    }

    /// The transaction that a block takes next: of those whose turn it is, that pay the base fee and that fit, the one with
    /// the best tip.
    pub(super) fn best(
        &self,
        base_fee: u128,
        gas_left: u64,
        nonce: impl Fn(Address) -> u64,
    ) -> Option<SignedTransaction> {
        let due = self.waiting.iter().filter_map(|(account, own)| own.get(&nonce(*account)));
        due.filter(|waiting| waiting.transaction.cap >= base_fee && waiting.transaction.gas_limit <= gas_left)
            .max_by_key(|waiting| waiting.transaction.tip.min(waiting.transaction.cap - base_fee))
            .cloned()
    }

    /// Forgets one that was executed, or that cannot be.
    pub(super) fn forget(&mut self, transaction: &SignedTransaction) {
        self.remove(transaction.hash);
    }

    /// Removes one; true if it was there.
    pub(super) fn remove(&mut self, hash: B256) -> bool {
        let before = self.len();
        for own in self.waiting.values_mut() {
            own.retain(|_, waiting| waiting.hash != hash);
        }
        before != self.len()
    }

    /// Drops those whose nonce was used by another.
    pub(super) fn drop_spent(&mut self, nonce: impl Fn(Address) -> u64) {
        for (account, own) in &mut self.waiting {
            let next = nonce(*account);
            own.retain(|used, _| *used >= next);
        }
    }

    pub(super) fn holds(&self, hash: B256) -> bool {
        self.waiting.values().flat_map(BTreeMap::values).any(|waiting| waiting.hash == hash)
    }

    fn len(&self) -> usize {
        self.waiting.values().map(BTreeMap::len).sum()
    }
}
