//! Each batch is applied once, in its turn, and none that is final is ever another.

use settlement::life::ContractHead;

use super::{Violation, hold};
use crate::chain::{Applied, State};

const NAME: &str = "a batch is applied once";

#[derive(Clone, Debug, Default)]
pub(super) struct SettledOnce {
    last: u64,
}

impl SettledOnce {
    /// A batch is in a final block.
    pub(super) fn on_final(&mut self, applied: &Applied) -> Result<(), Violation> {
        let ContractHead { seq, .. } = applied.head;
        hold(NAME, seq == self.last + 1, || format!("{:?} after {}", applied.head, self.last))?;
        self.last = seq;
        Ok(())
    }

    /// The newest block has applied as many batches as its head counts.
    pub(super) fn check(&self, state: &State) -> Result<(), Violation> {
        hold(NAME, state.applied == state.head.seq, || {
            format!("{} were applied, the newest is {:?}", state.applied, state.head)
        })
    }
}
