//! What a settler needs of a chain, and no more. Every read names the block that it is of.

use alloy_primitives::{Address, B256, Bytes, U256};

/// A chain: the one in process, or a node's JSON-RPC.
pub trait Backend {
    /// The chain's number.
    ///
    /// # Errors
    ///
    /// If the node cannot be asked, as with every method here.
    fn chain_id(&self) -> Result<u64, BackendError>;

    /// The block that a tag stands for now; none before there is one.
    ///
    /// # Errors
    ///
    /// See [`Backend::chain_id`].
    fn block(&self, tag: Tag) -> Result<Option<Block>, BackendError>;

    /// How many transactions an account had sent by a block.
    ///
    /// # Errors
    ///
    /// See [`Backend::chain_id`]; [`BackendError::UnknownBlock`] if the block is no longer part of the chain.
    fn nonce(&self, account: Address, at: At) -> Result<u64, BackendError>;

    /// The wei of an account.
    ///
    /// # Errors
    ///
    /// See [`Backend::nonce`].
    fn balance(&self, account: Address, at: At) -> Result<U256, BackendError>;

    /// The code of a contract.
    ///
    /// # Errors
    ///
    /// See [`Backend::nonce`].
    fn code(&self, account: Address, at: At) -> Result<Bytes, BackendError>;

    /// Runs a call without a transaction.
    ///
    /// # Errors
    ///
    /// [`CallError::Reverted`] with what the contract gave back.
    fn call(&self, call: &Call, at: At) -> Result<Bytes, CallError>;

    /// Hands a signed transaction in.
    ///
    /// # Errors
    ///
    /// Why the node does not take it.
    fn send(&mut self, raw: &[u8]) -> Result<B256, SendError>;

    /// What became of a transaction, if it is in the chain.
    ///
    /// # Errors
    ///
    /// See [`Backend::chain_id`].
    fn receipt(&self, transaction: B256) -> Result<Option<Receipt>, BackendError>;

    /// True if a transaction waits in the pool.
    ///
    /// # Errors
    ///
    /// See [`Backend::chain_id`].
    fn is_pending(&self, transaction: B256) -> Result<bool, BackendError>;

    /// Events, oldest first.
    ///
    /// # Errors
    ///
    /// See [`Backend::chain_id`].
    fn logs(&self, filter: &LogFilter) -> Result<Vec<LoggedEvent>, BackendError>;
}

/// Which end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The newest block.
    Latest,
    /// The newest that an honest majority has attested.
    Safe,
    /// The newest that cannot be taken back.
    Finalized,
}

/// As of which block a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Of a tag's block, whichever it is then.
    Tag(Tag),
    /// Of this very block.
    Hash(B256),
}

/// A block, as far as a settler looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// The hash of the one before.
    pub parent: B256,
    /// Seconds since the Unix epoch.
    pub time: u64,
    /// What gas costs in it, in wei.
    pub base_fee: u128,
}

/// A call to be simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// In whose name.
    pub from: Address,
    /// The callee.
    pub to: Address,
    /// Its bytes.
    pub input: Bytes,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which transaction.
    pub transaction: B256,
    /// The block that holds it.
    pub block: B256,
    /// That block's number.
    pub number: u64,
    /// False if it was reverted.
    pub succeeded: bool,
    /// Gas that it used.
    pub gas_used: u64,
    /// Wei that each gas cost.
    pub gas_price: u128,
    /// The contract that it made.
    pub created: Option<Address>,
    /// Its events, in order.
    pub events: Vec<LoggedEvent>,
}

/// An event in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// The contract.
    pub address: Address,
    /// Its topics.
    pub topics: Vec<B256>,
    /// The rest of it.
    pub data: Bytes,
    /// The block that holds it.
    pub block: B256,
    /// That block's number.
    pub number: u64,
    /// The transaction.
    pub transaction: B256,
}

/// Which events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter {
    /// Of which contract.
    pub address: Address,
    /// With which first topic; none for all.
    pub topic: Option<B256>,
    /// From this block's number.
    pub from: u64,
    /// To this block's number, it included.
    pub to: u64,
}

/// A chain that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The block is not, or no longer, in the chain.
    #[error("the block is not in the chain")]
    UnknownBlock,
    /// The node was not reached, or not in time.
    #[error("the node does not answer: {0}")]
    Unreachable(String),
    /// The node's answer is not what the question asked for.
    #[error("the node's answer makes no sense: {0}")]
    Nonsense(String),
    /// Two nodes that are asked for the same say different things.
    #[error("the two nodes disagree about {0}")]
    Disagreement(&'static str),
}

/// A simulated call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The contract refused. What it gave back may be empty.
    #[error("reverted with {0}")]
    Reverted(Bytes),
    /// It could not be run.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Why a node does not take a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It has it already, which is as good as taking it.
    #[error("already known")]
    AlreadyKnown,
    /// The account's nonce is past it.
    #[error("nonce too low: the account is at {0}")]
    NonceTooLow(u64),
    /// Another one with this nonce waits, and this one does not pay a tenth more, or it pays less than the pool asks.
    #[error("underpriced")]
    Underpriced,
    /// The account cannot pay for it.
    #[error("insufficient funds")]
    InsufficientFunds,
    /// More than 128 KiB.
    #[error("oversized")]
    Oversized,
    /// More gas than a transaction may ask for, or less than it needs at least.
    #[error("a gas limit that no transaction can have")]
    GasLimit,
    /// The pool holds no more of this account.
    #[error("the pool is full")]
    PoolFull,
    /// It is for another chain.
    #[error("another chain's transaction")]
    OtherChain,
    /// It is no transaction, or nobody's.
    #[error("malformed")]
    Malformed,
    /// The node was not reached. It may have taken the transaction nevertheless.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
