//! What waits to be mined the settler's log holds, through every crash: else it would not know what can still land.

use settlement::life::Log;

use super::{Violation, hold};
use crate::chain::Chain;

/// Batches are looked at: somebody else's transaction that a reorganization has brought back is none of the settler's.
///
/// # Errors
/// If a batch waits in the pool that the log has no attempt for.
pub fn check_sent(chain: &Chain, log: &Log) -> Result<(), Violation> {
    let is_logged = |hash| log.attempt_of(hash).is_some();
    let unknown = chain.waiting().find(|signed| signed.commit.is_some() && !is_logged(&signed.hash));
    hold("what is sent is logged", unknown.is_none(), || {
        format!("nonce {:?} is under way", unknown.map(|signed| signed.nonce))
    })
}
