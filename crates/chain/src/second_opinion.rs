//! Two nodes that must say the same: nothing is believed that only one of them tells.

use alloy_primitives::{Address, B256, Bytes, U256};

use crate::backend::{
    At, Backend, BackendError, Block, Call, CallError, LogFilter, LoggedEvent, Receipt, SendError, Tag,
};

/// A chain as two nodes see it, which are best run by different people.
///
/// A block counts once both have it, so the newest is the newest that they share. Every other read is made of one block, named
/// by its hash, on both; two answers are [`BackendError::Disagreement`], after which a settler stops. Two nodes on two
/// branches of the newest blocks also disagree for a while; on what is final they never may. A node that does not answer makes
/// the pair unreachable. Transactions go to both.
#[derive(Clone, Debug)]
pub struct SecondOpinion<First, Second> {
    first: First,
    second: Second,
}

impl<First: Backend, Second: Backend> SecondOpinion<First, Second> {
    /// Both nodes. They must be of one chain, which [`Backend::chain_id`] finds out.
    pub const fn new(first: First, second: Second) -> Self {
        Self { first, second }
    }

    /// The block that both mean, by its hash.
    fn shared(&self, at: At) -> Result<At, BackendError> {
        match at {
            At::Hash(_) => Ok(at),
            At::Tag(tag) => {
                self.block(tag)?.map(|block| At::Hash(block.hash)).ok_or(BackendError::UnknownBlock)
            }
        }
    }
}

/// True if a block is part of the chain of a node.
fn knows(node: &impl Backend, block: &Block) -> Result<bool, BackendError> {
    match node.nonce(Address::ZERO, At::Hash(block.hash)) {
        Ok(_) => Ok(true),
        Err(BackendError::UnknownBlock) => Ok(false),
        Err(error) => Err(error),
    }
}

fn agreed<T: PartialEq>(what: &'static str, first: T, second: T) -> Result<T, BackendError> {
    if first == second { Ok(first) } else { Err(BackendError::Disagreement(what)) }
}

impl<First: Backend, Second: Backend> Backend for SecondOpinion<First, Second> {
    fn chain_id(&self) -> Result<u64, BackendError> {
        agreed("the chain's number", self.first.chain_id()?, self.second.chain_id()?)
    }

    fn block(&self, tag: Tag) -> Result<Option<Block>, BackendError> {
        let (Some(first), Some(second)) = (self.first.block(tag)?, self.second.block(tag)?) else {
            return Ok(None);
        };
        if first == second {
            return Ok(Some(first));
        }
        // One is behind: then the other has that one's block in its past.
        let (older, is_shared) = if first.number <= second.number {
            (first, knows(&self.second, &first)?)
        } else {
            (second, knows(&self.first, &second)?)
        };
        if is_shared && first.number != second.number {
            Ok(Some(older))
        } else {
            Err(BackendError::Disagreement(tag_name(tag)))
        }
    }

    fn nonce(&self, account: Address, at: At) -> Result<u64, BackendError> {
        let at = self.shared(at)?;
        agreed("an account's nonce", self.first.nonce(account, at)?, self.second.nonce(account, at)?)
    }

    fn balance(&self, account: Address, at: At) -> Result<U256, BackendError> {
        let at = self.shared(at)?;
        agreed("an account's balance", self.first.balance(account, at)?, self.second.balance(account, at)?)
    }

    fn code(&self, account: Address, at: At) -> Result<Bytes, BackendError> {
        let at = self.shared(at)?;
        agreed("a contract's code", self.first.code(account, at)?, self.second.code(account, at)?)
    }

    fn call(&self, call: &Call, at: At) -> Result<Bytes, CallError> {
        let at = self.shared(at)?;
        match (self.first.call(call, at), self.second.call(call, at)) {
            (Err(CallError::Backend(error)), _) | (_, Err(CallError::Backend(error))) => Err(error.into()),
            (first, second) => agreed("what a contract answers", first, second)?,
        }
    }

    fn send(&mut self, raw: &[u8]) -> Result<B256, SendError> {
        let (first, second) = (self.first.send(raw), self.second.send(raw));
        // One pool that has it is enough.
        match (first, second) {
            (Ok(hash), _) | (_, Ok(hash)) => Ok(hash),
            (Err(SendError::AlreadyKnown), _) | (_, Err(SendError::AlreadyKnown)) => {
                Err(SendError::AlreadyKnown)
            }
            // A node that was not reached may have it nevertheless.
            (Err(error @ SendError::Backend(_)), _) | (_, Err(error @ SendError::Backend(_))) => Err(error),
            (Err(error), Err(_)) => Err(error),
        }
    }

    fn receipt(&self, transaction: B256) -> Result<Option<Receipt>, BackendError> {
        match (self.first.receipt(transaction)?, self.second.receipt(transaction)?) {
            (Some(first), Some(second)) => agreed("a receipt", first, second).map(Some),
            _ => Ok(None),
        }
    }

    fn is_pending(&self, transaction: B256) -> Result<bool, BackendError> {
        Ok(self.first.is_pending(transaction)? | self.second.is_pending(transaction)?)
    }

    fn logs(&self, filter: &LogFilter) -> Result<Vec<LoggedEvent>, BackendError> {
        agreed("events", self.first.logs(filter)?, self.second.logs(filter)?)
    }
}

fn tag_name(tag: Tag) -> &'static str {
    match tag {
        Tag::Latest => "the newest block",
        Tag::Safe => "the newest safe block",
        Tag::Finalized => "the newest final block",
    }
}
