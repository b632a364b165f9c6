//! What a book notes of a part of a shard's stream that nobody will read to it.

use surety_protocol::limits::{ADVICE_WINDOW, ID_FUTURE_MAX, ID_WINDOW_MAX};
use surety_protocol::{Id, Seq, Time};

use crate::bytes::{Reader, Truncated, Writer};

/// Records that were never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The last lock before them was made then.
    pub(crate) since: Time,
    /// Time of the first record behind them, once that was read.
    pub(crate) until: Option<Time>,
    /// What records up to here state may have been stated before: whoever keeps locks elsewhere may have newer ones.
    pub(crate) stated: Seq,
}

impl Lost {
    /// True if a lock with this id may have been made in one of them.
    pub(crate) fn may_have_made(&self, id: Id, now: Time) -> bool {
        // The engine does not tell its readers how long it takes an ordinary id: as long as any may.
        let window = if id.is_lasting() { ADVICE_WINDOW } else { ID_WINDOW_MAX };
        let first = Time(self.since.0.saturating_sub(window.0));
        let last = self.until.unwrap_or(now).plus(ID_FUTURE_MAX);
        (first..=last).contains(&id.time())
    }

    pub(crate) fn write(&self, to: &mut Writer) {
        to.u64(self.since.0).u64(self.until.unwrap_or_default().0).u64(self.stated.0);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Truncated> {
        let (since, until, stated) = (Time(from.u64()?), Time(from.u64()?), Seq(from.u64()?));
        Ok(Self { since, until: (until != Time::ZERO).then_some(until), stated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_any_window_that_an_engine_may_have_may_have_been_made_in_it() {
        let (since, until) = (Time::from_secs(1_700_000_000), Time::from_secs(1_700_000_100));
        let lost = Lost { since, until: Some(until), stated: Seq(0) };
        let second = Time::from_secs(1);
        let may = |time| lost.may_have_made(Id::from_parts(time, 1), Time::ZERO);
        let (first, last) = (since.minus(ID_WINDOW_MAX), until.plus(ID_FUTURE_MAX));
        assert!(may(first) && !may(first.minus(second)));
        assert!(may(last) && !may(last.plus(second)));
    }
}
