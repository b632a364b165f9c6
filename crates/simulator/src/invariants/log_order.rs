//! The log counts from 1 without a gap, its times never fall, its epochs rise.

use surety_protocol::{Epoch, Kind, Record, Seq, Time};

use super::{Violation, hold};

const NAME: &str = "the order of the log";

#[derive(Clone, Debug, Default)]
pub(super) struct LogOrder {
    last: u64,
    time: Time,
    epoch: Epoch,
}

impl LogOrder {
    pub(super) fn on_record(&mut self, seq: Seq, record: &Record) -> Result<(), Violation> {
        hold(NAME, seq.0 == self.last + 1, || format!("{seq} follows {}", self.last))?;
        self.last = seq.0;
        if record.kind() == Some(Kind::Continuation) {
            return Ok(());
        }
        hold(NAME, record.time >= self.time, || format!("{seq} goes back in time: {record:?}"))?;
        self.time = record.time;
        Ok(())
    }

    pub(super) fn keep_epoch(&mut self, before: &Self) {
        self.epoch = before.epoch;
    }

    pub(super) fn on_epoch(&mut self, epoch: Epoch) -> Result<(), Violation> {
        hold(NAME, epoch > self.epoch, || format!("epoch {epoch} after {}", self.epoch))?;
        self.epoch = epoch;
        Ok(())
    }
}
