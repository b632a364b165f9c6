//! From files to a running shard: the newest sound snapshot, then every record behind it.

use alloc::vec::Vec;
use core::fmt;

use ledger::{AcceptedLoss, Divergence, Ledger, LossError};
use surety_protocol::limits::EPOCH_LEAP;
use surety_protocol::{Epoch, Record, Seq, Time, sabotage};
use wal::{Anchor, OpenError, Options, Recovery, SnapshotError, Storage, TornTail};

use crate::{Config, Engine, snapshot};

/// Why a shard cannot be brought back. Nothing was changed on the disk.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError<E> {
    /// The log itself.
    #[error(transparent)]
    Log(#[from] wal::RecoverError<E>),
    /// The disk failed.
    #[error("reading the shard's directory failed; check the disk, then start again")]
    Io(E),
    /// A record does not have the outcome that was logged.
    #[error(
        "seq {seq}: {divergence}; the log was written by other rules, or memory failed: do not serve from it"
    )]
    Diverged {
        /// Which record.
        seq: Seq,
        /// What differs.
        divergence: Divergence,
    },
    /// The log is of a version that only a loss makes, and none is in it.
    #[error(
        "the log goes on after a loss and does not say which: its restore did not come to its end; restore again"
    )]
    NoLoss,
    /// The log begins behind its first record, and there is no sound snapshot to begin with.
    #[error("the log begins at seq {oldest} and no sound snapshot reaches it; restore a backup")]
    NoSnapshot {
        /// The first seq that is there.
        oldest: Seq,
    },
}

/// Why a shard cannot live on after a loss.
#[derive(Debug, thiserror::Error)]
pub enum AfterLossError<E> {
    /// The loss cannot be what it is said to be. Nothing was changed on the disk.
    #[error(transparent)]
    Loss(#[from] LossError),
    /// Opening the log.
    #[error(transparent)]
    Open(#[from] OpenError<E>),
}

/// Where to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the newest sound snapshot: the quick way.
    Snapshot,
    /// With the oldest record that is there: the thorough way.
    Oldest,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The last record.
    pub last_seq: Seq,
    /// The latest moment that was logged.
    pub last_time: Time,
    /// The epoch of the last block.
    pub epoch: Epoch,
    /// What a crash left behind the last sound block.
    pub torn: Option<TornTail>,
    /// The snapshot that was begun with.
    pub snapshot: Option<Seq>,
    /// Snapshots that did not hold, newest first. An older one was taken instead.
    pub unsound_snapshots: Vec<Seq>,
    /// Records replayed.
    pub replayed: u64,
}

/// A shard that was read to the end of its log.
pub struct Recovered {
    config: Config,
    ledger: Ledger,
    log: wal::Recovered,
    report: Report,
}

/// Makes the log of a new shard.
///
/// # Errors
/// If there is one already, or the disk fails.
pub fn create<S: Storage>(
    config: Config,
    storage: &mut S,
    now: Time,
) -> Result<(), wal::CreateError<S::Error>> {
    wal::create(storage, config.identity(), options(&config), now)
}

/// Reads a shard: a snapshot, and the log behind it. `progress` is told the seq after each block.
///
/// # Errors
/// A [`RecoverError`]; nothing is changed on the disk in any case.
pub fn recover<S: Storage>(
    config: Config,
    storage: &mut S,
    begin: Begin,
    mut progress: impl FnMut(Seq),
) -> Result<Recovered, RecoverError<S::Error>> {
    let mut report = Report::default();
    let (mut ledger, anchor) = base(&config, storage, begin, &mut report)?;
    let mut recovery = Recovery::begin(storage, config.identity(), anchor)?;
    let mut records = Vec::new();
    while let Some(block) = recovery.next_block(storage)? {
        report.last_time = report.last_time.max(block.header.time);
        records.clear();
        records.extend(block.records_from(anchor.seq.next()).map(|record| Record::from_bytes(record.bytes)));
        let last = Seq(block.header.next_seq().0 - 1);
        let first = Seq(last.0 + 1 - records.len() as u64);
        replay(&mut ledger, first, &records)?;
        report.replayed += records.len() as u64;
        report.last_time = records.last().map_or(report.last_time, |last| last.time.max(report.last_time));
        progress(last);
    }
    let log = recovery.finish(storage)?;
    report.last_seq = Seq(log.next_seq().0 - 1);
    report.epoch = log.epoch();
    report.torn = log.torn().cloned();
    // The start that raises the version and the record of what was lost are made before anything is served.
    if log.version() > wal::format::VERSION_FIRST && ledger.losses() == 0 {
        return Err(RecoverError::NoLoss);
    }
    Ok(Recovered { config, ledger, log, report })
}

/// Records whose entries are fetched at once.
const WARM: usize = 64;

fn replay<E>(ledger: &mut Ledger, first: Seq, records: &[Record]) -> Result<(), RecoverError<E>> {
    let mut warm = first;
    for (seq, operation) in operations(first, records) {
        if seq >= warm {
            let next = &records[usize::try_from(seq.0 - first.0).unwrap_or(0)..];
            let next = &next[..next.len().min(WARM)];
            ledger.warm(next);
            warm = Seq(seq.0 + next.len() as u64);
        }
        ledger.replay(seq, operation).map_err(|divergence| RecoverError::Diverged { seq, divergence })?;
    }
    Ok(())
}

/// Consecutive records of a log, operation by operation. An operation that is cut is yielded as it is; the ledger refuses it.
pub(crate) fn operations(first: Seq, records: &[Record]) -> impl Iterator<Item = (Seq, &[Record])> {
    let mut rest = records;
    let mut next = first;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = ledger::operation_len(rest).unwrap_or(rest.len());
        let (operation, tail) = rest.split_at(length);
        let seq = next;
        rest = tail;
        next.0 += length as u64;
        Some((seq, operation))
    })
}

impl fmt::Debug for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovered").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Recovered {
    /// What was found.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The money at the end of the log, to read.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Drops the torn tail, opens a new epoch and returns a shard that may serve. `now` is T0: at least
    /// [`Report::last_time`].
    ///
    /// # Errors
    /// The disk's own; recovery can then be repeated.
    pub fn open<S: Storage>(self, storage: &mut S, now: Time) -> Result<Engine, OpenError<S::Error>> {
        let now = now.max(self.report.last_time);
        let log = self.log.open(storage, options(&self.config), now)?;
        Ok(Engine::new(self.config, self.ledger, log, now))
    }

    /// The same where this is an older copy of the shard, and what came after it is lost. The first thing that the shard says is that;
    /// the epoch leaps over all that the lost life can have had, and over those in `noted`. Not one record is decided before: no
    /// time passes for it.
    ///
    /// # Errors
    /// [`AfterLossError::Loss`] before anything was changed. [`AfterLossError::Open`] as for [`Recovered::open`]; then begin again with
    /// another copy of the backup.
    pub fn open_after_loss<S: Storage>(
        mut self,
        storage: &mut S,
        now: Time,
        accepted: AcceptedLoss,
        noted: Epoch,
    ) -> Result<Engine, AfterLossError<S::Error>> {
        let kept = self.report.last_time;
        if now < kept {
            return Err(LossError::ClockBehind { now, kept }.into());
        }
        let loss = self.ledger.accept_loss(now, self.report.last_seq, accepted)?;
        let is_first = self.ledger.losses() == 1;
        let epoch = epoch_after_loss(self.report.epoch.max(noted), now, is_first);
        let log = self.log.open_after_loss(storage, options(&self.config), now, epoch)?;
        Ok(Engine::after_loss(self.config, self.ledger, log, now, &loss))
    }
}

/// Epochs count on in halves of seconds from here after a loss: faster than any engine starts.
const EPOCH_LEAP_ORIGIN: Time = Time::from_secs(1_767_225_600);

/// Above all epochs that the lost life can have had, and above those of every life that was begun earlier out of this log or an
/// older copy of it. Lives that are begun in one half of a second share it, and are told apart by their names.
fn epoch_after_loss(last: Epoch, now: Time, is_first: bool) -> Epoch {
    if sabotage!("epoch-repeats") {
        return Epoch(last.0.saturating_add(1));
    }
    let halves = now.minus(EPOCH_LEAP_ORIGIN).0 / Time::from_millis(500).0;
    let by_time = u32::try_from(halves).unwrap_or(u32::MAX);
    let leapt = last.0.saturating_add(EPOCH_LEAP);
    // Where epochs count by time already, a leap would take one of a moment to come.
    let is_told_by_time = if is_first { by_time > leapt } else { by_time > last.0 };
    Epoch(if is_told_by_time { by_time } else { leapt })
}

const fn options(config: &Config) -> Options {
    Options { durability: config.durability, is_guarded: config.guard, segment_bytes: config.segment_bytes }
}

/// The ledger to begin with, and the place in the log that it stands for.
fn base<S: Storage>(
    config: &Config,
    storage: &mut S,
    begin: Begin,
    report: &mut Report,
) -> Result<(Ledger, Anchor), RecoverError<S::Error>> {
    let oldest = wal::list_segments(storage).map_err(RecoverError::Io)?.first().map(|span| span.first_seq);
    let from_genesis = (Ledger::new(config.ledger()), Anchor::GENESIS);
    if begin == Begin::Oldest && oldest.is_none_or(|seq| seq <= Seq(1)) {
        return Ok(from_genesis);
    }
    let mut snapshots = wal::list_snapshots(storage).map_err(RecoverError::Io)?;
    if begin == Begin::Oldest {
        // Retention may have been cut short after it had removed the log behind a snapshot and before the snapshot itself.
        snapshots.retain(|seq| oldest.is_none_or(|oldest| oldest <= *seq));
        snapshots.reverse();
    }
    for seq in snapshots {
        match snapshot::load(config, storage, seq) {
            Ok((ledger, anchor, time)) => {
                report.snapshot = Some(seq);
                report.last_time = time;
                return Ok((ledger, anchor));
            }
            Err(SnapshotError::Io(error)) => return Err(RecoverError::Io(error)),
            Err(_) => report.unsound_snapshots.push(seq),
        }
    }
    match oldest {
        Some(oldest) if oldest > Seq(1) => Err(RecoverError::NoSnapshot { oldest }),
        _ => Ok(from_genesis),
    }
}
