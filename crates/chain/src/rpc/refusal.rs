//! What a node's refusal means. Nodes agree on the words, more or less, and not on the numbers.

use alloy_primitives::Bytes;

use super::text::number_after;
use crate::backend::{BackendError, SendError};
use crate::json_rpc::{Refusal, RpcError};

/// The error of a read.
pub(super) fn read_error(error: RpcError) -> BackendError {
    match error {
        RpcError::Unreachable(why) => BackendError::Unreachable(why),
        RpcError::Nonsense(what) => BackendError::Nonsense(what),
        RpcError::Refused(refusal) if is_no_block(&refusal) => BackendError::UnknownBlock,
        // Asked too much, too often, or the node is not ready: that passes, or another node helps.
        RpcError::Refused(refusal) => BackendError::Unreachable(refusal.to_string()),
    }
}

/// True for a block that is not, or not any more, in the chain.
pub(super) fn is_no_block(refusal: &Refusal) -> bool {
    const WORDS: [&str; 8] = [
        "header not found",
        "block not found",
        "unknown block",
        "not canonical",
        "not currently canonical",
        "could not find block",
        "blockoutofrange",
        "resource not found",
    ];
    let message = refusal.message.to_lowercase();
    WORDS.iter().any(|words| message.contains(words))
}

/// What a reverted call gave back; some nodes nest it once more.
pub(super) fn revert_data(refusal: &Refusal) -> Option<Bytes> {
    let data = refusal.data.as_str().or_else(|| refusal.data["data"].as_str())?;
    data.strip_prefix("Reverted ").unwrap_or(data).parse().ok()
}

/// True for a call that the contract refused.
pub(super) fn is_revert(refusal: &Refusal) -> bool {
    refusal.message.to_lowercase().contains("revert")
}

/// Why a transaction was not taken.
pub(super) fn send_error(refusal: Refusal) -> SendError {
    let words = refusal.message.to_lowercase();
    let says = |what: &[&str]| what.iter().any(|what| words.contains(what));
    if says(&["already known", "already imported", "known transaction"]) {
        SendError::AlreadyKnown
    } else if says(&["nonce too low"]) {
        SendError::NonceTooLow(number_after(&words, "next nonce").unwrap_or_default())
    } else if says(&["underpriced", "fee too low", "less than block base fee"]) {
        SendError::Underpriced
    } else if says(&["insufficient funds"]) {
        SendError::InsufficientFunds
    } else if says(&["oversized", "max initcode size"]) {
        SendError::Oversized
    } else if says(&["gas limit", "intrinsic gas", "out of gas"]) {
        SendError::GasLimit
    } else if says(&["txpool is full", "pool is full", "limit exceeded"]) {
        SendError::PoolFull
    } else if says(&["chain id", "chain-id", "chainid"]) {
        SendError::OtherChain
    } else if says(&["rlp", "decode", "invalid sender", "typed transaction"]) {
        SendError::Malformed
    } else {
        SendError::Backend(BackendError::Nonsense(refusal.message))
    }
}
