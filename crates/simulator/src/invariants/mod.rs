//! What must hold whatever happens, one file each. They look at the log, the replies and the engine's own totals, and know
//! nothing of the oracle, so that an error of the oracle cannot hide one of theirs.

mod at_most_once;
mod availability;
mod certified_paid;
mod clock;
mod conservation;
mod credited_once;
mod identity;
mod log_adds_up;
mod log_order;
mod lost_is_unknown;
mod nothing_told_is_lost;
mod one_effect;
mod replay;
mod replies_after_disk;
mod sent_is_logged;
mod settled_fully;
mod settled_once;
mod settlement;
mod tenancy;

use ledger::{Ledger, Totals};
use surety_protocol::{Caller, Epoch, PartitionHandle, Record, Reply, Seq, Time};

pub use self::replies_after_disk::Reached;
pub use self::sent_is_logged::check_sent;
pub use self::settlement::Settlement;

/// Something that must hold and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// One that was seen.
    #[must_use]
    pub fn new(invariant: &'static str, what: String) -> Self {
        Self { invariant, what }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Fails with an invariant's name unless a condition holds.
pub(crate) fn hold(
    invariant: &'static str,
    holds: bool,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::new(invariant, what())) }
}

/// All of them, with what they remember.
#[derive(Clone, Debug, Default)]
pub struct Invariants {
    order: log_order::LogOrder,
    sums: log_adds_up::LogAddsUp,
    effects: one_effect::OneEffect,
    once: at_most_once::AtMostOnce,
    availability: availability::Availability,
    told: nothing_told_is_lost::NothingToldIsLost,
    lost: lost_is_unknown::LostIsUnknown,
    replay: replay::Replay,
    clock: clock::ClockRule,
}

impl Invariants {
    /// A record was appended.
    ///
    /// # Errors
    /// The first invariant that it breaks.
    pub fn on_record(&mut self, seq: Seq, record: &Record) -> Result<(), Violation> {
        self.order.on_record(seq, record)?;
        self.sums.on_record(record)?;
        self.effects.on_record(seq, record)?;
        self.once.on_record(record)?;
        self.lost.on_record(record)?;
        self.availability.on_record(record)
    }

    /// A partition may have changed.
    ///
    /// # Errors
    /// If its money does not add up, by itself or by the log.
    pub fn on_totals(&self, totals: &Totals) -> Result<(), Violation> {
        identity::check(totals)?;
        self.sums.check(totals)
    }

    /// A reply has left the engine.
    ///
    /// # Errors
    /// If it left too early, or tells what it must not.
    pub fn on_reply(&mut self, reply: &Reply, caller: &Caller, reached: Reached) -> Result<(), Violation> {
        replies_after_disk::check(reply, reached)?;
        tenancy::check(reply, caller)?;
        self.told.on_reply(reply);
        self.lost.on_reply(reply)
    }

    /// Records that were not on the disk when the engine died never were.
    pub fn on_lost(&mut self, survivors: &[(Seq, Record)]) {
        let mut fresh = Self {
            told: self.told.clone(),
            lost: self.lost.clone(),
            replay: self.replay.clone(),
            clock: self.clock.clone(),
            ..Self::default()
        };
        fresh.order.keep_epoch(&self.order);
        for (seq, record) in survivors {
            // What survives was checked when it was appended.
            let _ = fresh.on_record(*seq, record);
        }
        *self = fresh;
    }

    /// An operator has accepted that the records behind the first `kept` are lost, whatever was told of them.
    pub fn on_accepted_loss(&mut self, log: &[Record], kept: usize) {
        self.lost.on_loss(&log[kept..], &log[..kept]);
        self.told = nothing_told_is_lost::NothingToldIsLost::default();
        self.replay = replay::Replay::default();
    }

    /// The state behind a seq, for a replay to come to.
    pub fn note_state(&mut self, seq: Seq, time: Time, ledger: &Ledger) {
        self.replay.note(seq, time, ledger);
    }

    /// The engine has read its log again. `may_lose_told` where the mode allows replies before the sync, and the power went.
    ///
    /// # Errors
    /// If something that was told is gone, or the state is another.
    pub fn on_recovered(&mut self, last: Seq, ledger: &Ledger, may_lose_told: bool) -> Result<(), Violation> {
        self.told.on_recovered(last, may_lose_told)?;
        self.replay.on_recovered(last, ledger)?;
        identity::check_whole(ledger)
    }

    /// A new epoch was opened.
    ///
    /// # Errors
    /// If it is not above all before.
    pub fn on_epoch(&mut self, epoch: Epoch) -> Result<(), Violation> {
        self.order.on_epoch(epoch)
    }

    /// The clock was asked; `boot` is the time that has truly passed.
    ///
    /// # Errors
    /// If it went back, or ran faster or slower than it may.
    pub fn on_clock(&mut self, now: Time, boot: Time, is_start: bool) -> Result<(), Violation> {
        self.clock.on_clock(now, boot, is_start)
    }

    /// Partitions that the log has spoken of.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionHandle> {
        self.sums.partitions()
    }
}
