//! The log read again comes to the same state, by its hash, as the engine that wrote it.

use std::collections::BTreeMap;

use ledger::Ledger;
use surety_protocol::{Seq, Time};

use super::{Violation, hold};

const NAME: &str = "replay is live";
/// States remembered: a crash goes back by few blocks.
const KEPT_MAX: usize = 16;

#[derive(Clone, Debug, Default)]
pub(super) struct Replay {
    states: BTreeMap<Seq, (Time, u128)>,
}

impl Replay {
    /// `time` is that of the record at `seq`: later, the live engine may have forgotten what the log has not.
    pub(super) fn note(&mut self, seq: Seq, time: Time, ledger: &Ledger) {
        if ledger.time() == time {
            self.states.insert(seq, (time, ledger.state_hash()));
        }
        while self.states.len() > KEPT_MAX {
            self.states.pop_first();
        }
    }

    pub(super) fn on_recovered(&mut self, last: Seq, ledger: &Ledger) -> Result<(), Violation> {
        let live = self.states.get(&last).copied();
        self.states.retain(|seq, _| *seq <= last);
        let replayed = (ledger.time(), ledger.state_hash());
        hold(NAME, live.is_none_or(|live| live == replayed), || {
            format!("at {last}: live {live:?}, replayed {replayed:?}")
        })
    }
}
