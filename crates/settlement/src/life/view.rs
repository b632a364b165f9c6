//! What the settler sees of the chain, all read at one block.

use alloc::vec::Vec;

use surety_protocol::Time;

use super::entry::Refusal;
use super::flush::Pile;
use crate::hash::Hash;

/// The contract's newest batch, as of some block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContractHead {
    /// Its number; 0 before the first.
    pub seq: u64,
    /// Its head; the domain separator before the first.
    pub head: Hash,
}

/// What the node says of one of our transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxState {
    /// It waits in the node's pool.
    Pending,
    /// It is in a block of the view's chain.
    Mined,
    /// It was refused: another one with its nonce pays too much to be replaced by it.
    Underpriced,
}

/// A view. Facts of different blocks are never mixed: nonce and contract are those of one block hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The settler's clock.
    pub now: Time,
    /// Chain id, contract and its code are those that the settler was set up for.
    pub is_right_chain: bool,
    /// The block's number.
    pub block: u64,
    /// The contract at the block.
    pub latest: ContractHead,
    /// The finalized block's number.
    pub finalized_block: u64,
    /// The contract at the finalized block.
    pub finalized: ContractHead,
    /// Next nonce of the poster's account at the block. Never the node's pending nonce.
    pub nonce: u64,
    /// Next nonce at the finalized block.
    pub finalized_nonce: u64,
    /// The contract refuses all batches for ever.
    pub is_frozen: bool,
    /// Of the next block, wei per gas.
    pub base_fee: u128,
    /// Its mean over the last hour.
    pub base_fee_mean: u128,
    /// The poster's balance, wei.
    pub balance: u128,
    /// Wei that were spent in the last day.
    pub spent_today: u128,
    /// What is known of logged attempts, by hash; what is missing the node does not know.
    pub transactions: Vec<(Hash, TxState)>,
    /// What a simulation of the batch after `latest` came to, if a rule of the contract refuses it.
    pub refusal: Option<(u64, Refusal)>,
    /// What waits to be sealed.
    pub pile: Pile,
    /// The most of new credit that the contract's payout limit leaves, in base units.
    pub credit_max: u128,
}

impl View {
    /// What the node says of a transaction.
    #[must_use]
    pub fn state_of(&self, hash: &Hash) -> Option<TxState> {
        self.transactions.iter().find(|(known, _)| known == hash).map(|(_, state)| *state)
    }
}
