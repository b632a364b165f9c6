//! From files to a running shard: the newest sound snapshot, then every record behind it.

use alloc::vec::Vec;
use core::fmt;

use ledger::{Divergence, Ledger};
use surety_protocol::{Epoch, Record, Seq, Time};
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
    /// The log begins behind its first record, and there is no sound snapshot to begin with.
    #[error("the log begins at seq {oldest} and no sound snapshot reaches it; restore a backup")]
    NoSnapshot {
        /// The first seq that is there.
        oldest: Seq,
    },
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
