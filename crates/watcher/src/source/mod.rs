//! Where blocks come from. A further chain is another [`Source`]: four questions.

pub mod bitcoin;
pub mod ethereum;

use chain::RpcError;

use crate::payment::{Account, SeenBlock};

/// A chain as the watcher of one asset reads it, through a node. Called from a thread that may wait.
pub trait Source: Send + Sync + 'static {
    /// Whether the node is of the chain that it should be of.
    ///
    /// # Errors
    ///
    /// [`SourceError::OtherChain`], or that it cannot be asked.
    fn check(&self) -> Result<(), SourceError>;

    /// The number of the newest block.
    ///
    /// # Errors
    ///
    /// If the node cannot be asked, or makes no sense.
    fn height(&self) -> Result<u64, SourceError>;

    /// The block with this number on the node's present branch, with every payment of the asset in it; none if there is none.
    /// Block and payments must be of one hash, even while the node changes its mind.
    ///
    /// # Errors
    ///
    /// If the node cannot be asked, or makes no sense.
    fn block(&self, number: u64) -> Result<Option<SeenBlock>, SourceError>;

    /// The address as this chain's blocks are told to name it; none if it is no address of this chain. Whoever waits for a payment
    /// to another spelling waits for ever.
    ///
    /// # Errors
    ///
    /// If the node has to be asked and cannot be.
    fn account(&self, account: &Account) -> Result<Option<Account>, SourceError>;
}

/// A chain that cannot be read now. Nothing is decided from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The node does not answer, or does not want to.
    #[error("{0}")]
    Unreachable(String),
    /// The node's answer is none to the question.
    #[error("the node's answer makes no sense: {0}")]
    Nonsense(String),
    /// The node is of another chain than it should be.
    #[error("the node is of chain {found}, not of {expected}")]
    OtherChain {
        /// Which it should be.
        expected: String,
        /// Which it is.
        found: String,
    },
    /// Two nodes say different things.
    #[error("the two nodes disagree about block {0}")]
    Disagreement(u64),
    /// Two nodes do not agree on what an address is: one of them is not the chain's, or is mad.
    #[error("the two nodes disagree about the address {0}")]
    AccountDisagreement(String),
}

impl From<RpcError> for SourceError {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Nonsense(what) => Self::Nonsense(what),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// Two nodes of one chain that must show the same block before it counts. The one that is behind sets the pace.
#[derive(Debug)]
pub struct SecondOpinion<First, Second> {
    first: First,
    second: Second,
}

impl<First: Source, Second: Source> SecondOpinion<First, Second> {
    /// Both.
    pub const fn new(first: First, second: Second) -> Self {
        Self { first, second }
    }
}

impl<First: Source, Second: Source> Source for SecondOpinion<First, Second> {
    fn check(&self) -> Result<(), SourceError> {
        self.first.check()?;
        self.second.check()
    }

    fn height(&self) -> Result<u64, SourceError> {
        Ok(self.first.height()?.min(self.second.height()?))
    }

    fn block(&self, number: u64) -> Result<Option<SeenBlock>, SourceError> {
        match (self.first.block(number)?, self.second.block(number)?) {
            (Some(first), Some(second)) if first == second => Ok(Some(first)),
            (Some(_), Some(_)) => Err(SourceError::Disagreement(number)),
            _ => Ok(None),
        }
    }

    fn account(&self, account: &Account) -> Result<Option<Account>, SourceError> {
        let (first, second) = (self.first.account(account)?, self.second.account(account)?);
        if first == second { Ok(first) } else { Err(SourceError::AccountDisagreement(account.to_string())) }
    }
}

fn nonsense(what: impl Into<String>) -> SourceError {
    SourceError::Nonsense(what.into())
}
