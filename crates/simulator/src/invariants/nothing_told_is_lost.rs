//! Whatever a reply spoke of is in the log after every crash.

use surety_protocol::{Reply, Seq};

use super::{Violation, hold};

const NAME: &str = "nothing told is lost";

#[derive(Clone, Debug, Default)]
pub(super) struct NothingToldIsLost {
    told: Seq,
}

impl NothingToldIsLost {
    pub(super) fn on_reply(&mut self, reply: &Reply) {
        self.told = self.told.max(reply.seq);
    }

    pub(super) fn on_recovered(&mut self, last: Seq, may_lose_told: bool) -> Result<(), Violation> {
        if may_lose_told {
            self.told = self.told.min(last);
        }
        let told = self.told;
        hold(NAME, last >= told, || format!("a reply spoke of {told}, the log ends at {last}"))
    }
}
