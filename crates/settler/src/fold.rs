//! The log in one entry, so that a start reads what was settled since and not all that ever was.

use std::collections::BTreeMap;

use settlement::life::{Base, Fold, TooLong};
use settlement::{Hash, Sealed};
use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::{PartitionHandle, Record, Time};

use crate::codec::{Damaged, Put, Take};
use crate::error::{Notice, SettlerError};
use crate::journal::{Journal, JournalError};
use crate::note::{Note, NoteError};
use crate::points::Point;
use crate::recovery::{Replayed, replay};
use crate::scan::PaidOnChain;
use crate::settler::Settler;
use crate::snapshot::Snapshot;

/// What all entries of a log come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    pub(crate) life: Fold,
    /// A withdrawal or deficit whose answer is not noted.
    pub(crate) open_request: Option<Record>,
    /// The last exit that was answered, for each partition.
    pub(crate) answered: BTreeMap<PartitionHandle, u64>,
    /// What was paid for no lock, and of which nobody has been told for certain, by the lock's name.
    pub(crate) untold: BTreeMap<Hash, PaidOnChain>,
    /// What transactions of the last day have cost: when that was seen, hash, wei.
    pub(crate) spent: Vec<(Time, Hash, u128)>,
}

impl Folded {
    /// Folds the entries of a log. `batch` is the last one of which only the trees stay; `None` if it is not booked, or was folded
    /// before.
    ///
    /// # Errors
    /// The entries do not follow from each other, or they come to more than one entry may hold.
    pub fn of(genesis: Hash, notes: Vec<Note>, batch: u64) -> Result<Option<Self>, SettlerError> {
        let Replayed { log, base, sealed, open_request, answered, untold, spending } =
            replay(genesis, notes)?;
        let spent = spending.remembered().collect();
        let life = Fold::new(log, base.as_ref(), sealed, batch);
        let life = life.map_err(|TooLong(bytes)| JournalError::TooLong(bytes))?;
        Ok(life.map(|life| Self { life, open_request, answered, untold, spent }))
    }

    pub(crate) fn write(&self, to: &mut Put) {
        let life = self.life.to_bytes();
        to.u64(life.len() as u64).raw(&life);
        to.list(self.open_request.iter(), |to, request| _ = to.raw(&request.to_bytes()));
        to.list(self.answered.iter(), |to, (partition, nonce)| _ = to.u64(partition.0).u64(*nonce));
        to.list(self.untold.values(), |to, paid| paid.write(to));
        to.list(self.spent.iter(), |to, (at, hash, wei)| _ = to.u64(at.0).raw(hash).u128(*wei));
    }

    pub(crate) fn take(from: &mut Take<'_>) -> Result<Self, NoteError> {
        let len = usize::try_from(from.u64()?).map_err(|_| Damaged)?;
        let life = Fold::from_bytes(from.slice(len)?)?;
        let record = |from: &mut Take<'_>| Ok(Record::from_bytes(&from.array::<RECORD_BYTES>()?));
        let mut requests: Vec<Record> = from.list(record)?;
        let open_request = requests.pop();
        if !requests.is_empty() {
            return Err(Damaged.into());
        }
        let answered = rising(from, |from| Ok((PartitionHandle(from.u64()?), from.u64()?)))?;
        let untold = rising(from, |from| PaidOnChain::take(from).map(|paid| (paid.lock, paid)))?;
        let spent = from.list(|from| Ok((Time(from.u64()?), from.array()?, from.u128()?)))?;
        Ok(Self { life, open_request, answered, untold, spent })
    }
}

/// A map, as it was written.
fn rising<K: Ord, V>(
    from: &mut Take<'_>,
    take: impl FnMut(&mut Take<'_>) -> Result<(K, V), Damaged>,
) -> Result<BTreeMap<K, V>, Damaged> {
    let items: Vec<(K, V)> = from.list(take)?;
    if items.is_sorted_by(|a, b| a.0 < b.0) { Ok(items.into_iter().collect()) } else { Err(Damaged) }
}

impl Settler {
    /// Puts one entry in the place of all others, once these are many. The log that had them stays beside the new one. Where that
    /// cannot be done the settler goes on with the log that it has.
    pub(crate) fn fold_log(&mut self) -> Result<(), SettlerError> {
        if !self.journal.is_fold_due(self.config.log_bytes_max) {
            return Ok(());
        }
        // A start begins with either snapshot, and seals again what is behind it.
        let Some(batch) = Snapshot::oldest(&self.config.directory)? else { return Ok(()) };
        if batch <= self.journal.folded_until() {
            return Ok(());
        }
        match self.fold_up_to(batch) {
            Err(SettlerError::Journal(error @ (JournalError::NotFolded(_) | JournalError::TooLong(_)))) => {
                self.journal.put_fold_off();
                self.notices.push(Notice::NotFolded(error.to_string()));
                Ok(())
            }
            folded => folded,
        }
    }

    fn fold_up_to(&mut self, batch: u64) -> Result<(), SettlerError> {
        let scan = Journal::read(&self.config.directory)?.ok_or(SettlerError::Foreign)?;
        let Some(folded) = Folded::of(self.domain.separator(), scan.notes, batch)? else {
            self.journal.put_fold_off();
            return Ok(());
        };
        assert_eq!(*folded.life.log(), self.log, "the log on the disk is the one that is gone by");
        self.pass(Point::Folding)?;
        self.journal.fold(folded)?;
        self.pass(Point::Folded)
    }
}

/// Every batch behind the sealer's last one: without a sound snapshot also those that were folded, as the logs tell that had them.
pub(crate) fn sealed_since(
    settler: &Settler,
    mut sealed: BTreeMap<u64, Sealed>,
    base: Option<&Base>,
) -> Result<BTreeMap<u64, Sealed>, SettlerError> {
    let directory = &settler.config.directory;
    let (snapshot, batch) = (settler.sealer.head().0, base.map_or(0, |base| base.batch.seq));
    let mut next = snapshot + 1;
    while next <= batch {
        let missing = SettlerError::NoSnapshot { batch, missing: next };
        let Some((until, scan)) = Journal::read_older(directory, next, settler.journal.head())? else {
            return Err(missing);
        };
        let mut older = replay(settler.domain.separator(), scan.notes)?.sealed;
        while next <= until.min(batch) {
            let missing = SettlerError::NoSnapshot { batch, missing: next };
            sealed.insert(next, older.remove(&next).ok_or(missing)?);
            next += 1;
        }
    }
    Ok(sealed.split_off(&(snapshot + 1)))
}
