//! A start from the files: the log, a snapshot, and the stream from there. Every batch is sealed again and must come out the same.

use std::collections::BTreeMap;

use settlement::life::{Entry, Log};
use settlement::{Sealed, Sealer, loss_reference};
use surety_protocol::{ControlBody, Record, Seq, Time};

use super::disk::{Note, Power};
use super::facts::{Facts, Waiting};
use super::telling::{Purpose, Telling};
use super::{DOMAIN, Scan, Settler, Stop};
use crate::random::Random;

/// What a log comes to.
struct Replayed {
    log: Log,
    /// Every batch that was sealed and not dropped.
    sealed: BTreeMap<u64, Sealed>,
    /// Requests that the ledger would take twice.
    asked: Vec<Record>,
}

impl Settler {
    /// The process begins again with what is on its disk; at the call `cut` the power goes again. `stream` is what the engine has
    /// synced.
    pub(crate) fn restart(
        &mut self,
        power: Power,
        cut: Option<u64>,
        stream: &[Record],
        random: &mut Random,
    ) -> Result<(), Stop> {
        self.points_left = None;
        let notes = self.files.reopen(power, cut, random)?;
        let replayed = replay(notes)?;
        self.log = replayed.log;
        self.scan = Scan::default();
        self.underpriced.clear();
        self.answers.clear();
        self.telling = Telling::default();
        self.restore(&replayed.sealed, stream)?;
        for request in replayed.asked {
            let purpose = Purpose::Lost(request.body::<ControlBody>().reference);
            if !self.facts.is_loss(request.body::<ControlBody>().reference) {
                self.telling.note(purpose, request, 0);
            }
        }
        Ok(())
    }

    /// Batches were dropped: back to the last booked one, and forward along what the log has sealed since.
    pub(super) fn rewind(&mut self, stream: &[Record]) -> Result<(), Stop> {
        let notes = self.files.read()?;
        let replayed = replay(notes)?;
        self.restore(&replayed.sealed, stream)
    }

    /// The newest snapshot rots. False if there is none.
    pub(crate) fn damage_snapshot(&mut self, random: &mut Random) -> bool {
        self.files.damage_snapshot(random)
    }

    fn restore(&mut self, sealed: &BTreeMap<u64, Sealed>, stream: &[Record]) -> Result<(), Stop> {
        let booked = self.log.booked_seq();
        self.unbooked = None;
        self.sealer = match self.files.newest_snapshot() {
            Some((batch, _)) if batch > booked => {
                return Err(Stop::broken(format!("a snapshot of batch {batch}, and {booked} is booked")));
            }
            Some((_, snapshot)) => Sealer::restore(self.netting, snapshot).map_err(Stop::broken)?,
            None => Sealer::new(self.netting, &DOMAIN),
        };
        // What a snapshot would have told of the stream's beginning.
        self.facts = Facts::default();
        let read = usize::try_from(self.position().0).unwrap_or(usize::MAX);
        let known = stream.get(..read).ok_or_else(|| Stop::broken("the stream is shorter than it was"))?;
        known.iter().for_each(|record| self.facts.read(record));
        for (seq, was) in sealed.range(self.sealer.head().0 + 1..) {
            let positions = was.positions().map_err(Stop::broken)?;
            let until = positions.0.get(usize::from(self.shard.0)).copied().unwrap_or_default();
            self.read_to(until, stream)?;
            if self.sealer.seal(was.credit_max).as_ref() != Some(was) {
                return Err(Stop::broken(format!("batch {seq} is not sealed again as it was")));
            }
            if *seq > booked {
                self.keep(*seq);
            }
        }
        self.waiting = Waiting::behind_a_batch(self.sealer.netting(), Time::ZERO);
        Ok(())
    }

    fn read_to(&mut self, until: Seq, stream: &[Record]) -> Result<(), Stop> {
        while self.position() < until {
            let next = usize::try_from(self.position().0).unwrap_or(usize::MAX);
            let record = stream.get(next).ok_or_else(|| Stop::broken("the stream is shorter than it was"))?;
            self.read(record, Time::ZERO, 0)?;
        }
        Ok(())
    }

    /// Takes the next record of the stream.
    pub(super) fn read(&mut self, record: &Record, now: Time, step: u64) -> Result<(), Stop> {
        let seq = self.position().next();
        let statement = self.sealer.read(self.shard, seq, record).map_err(Stop::broken)?;
        self.statements.extend(statement);
        self.facts.read(record);
        self.waiting.read(record, now);
        self.telling.read(record, step);
        Ok(())
    }

    /// Keeps the state as it is right after a batch was sealed, for a snapshot once it is booked; unless one waits already.
    pub(super) fn keep(&mut self, batch: u64) {
        self.unbooked.get_or_insert_with(|| (batch, self.sealer.snapshot()));
    }
}

fn replay(notes: Vec<Note>) -> Result<Replayed, Stop> {
    let (mut entries, mut sealed, mut asked) = (Vec::new(), BTreeMap::new(), Vec::new());
    for note in notes {
        match note {
            Note::Life(entry) => {
                match &entry {
                    Entry::Sealed { sealed: batch, .. } => {
                        sealed.insert(batch.batch.seq, batch.as_ref().clone());
                    }
                    Entry::Dropped { from } => drop(sealed.split_off(from)),
                    _ => {}
                }
                entries.push(entry);
            }
            Note::Asked(request) => asked.push(*request),
        }
    }
    let log = Log::recover(DOMAIN.separator(), entries).map_err(Stop::broken)?;
    Ok(Replayed { log, sealed, asked })
}

/// The reference under which what was paid for a lock is booked as a loss.
pub(super) fn reference_of(lock: &settlement::LockId) -> u128 {
    loss_reference(&settlement::Word::word(lock))
}
