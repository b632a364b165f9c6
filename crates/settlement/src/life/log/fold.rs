//! A log in one piece: what its entries have come to, in the place of all of them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use surety_protocol::Time;

use super::{Log, Open, Refused};
use crate::batch::{Batch, Positions};
use crate::bytes::{Reader, Truncated, Writer};
use crate::data::BatchData;
use crate::life::entry::{self, EntryError, Refusal};
use crate::sealer::Sealed;
use crate::trees::Trees;

const VERSION: u8 = 1;
/// Every [`Refusal`], in the order of its number.
const REFUSALS: [Refusal; 4] = [Refusal::PayoutLimit, Refusal::Insolvent, Refusal::Paused, Refusal::Other];

/// The longest trees that are put into one entry: a settler's log has none longer than that.
const TREES_BYTES_MAX: usize = 1 << 30;

/// Why a log stays in all its entries: the trees alone have so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trees of {0} bytes")]
pub struct TooLong(pub usize);

/// A booked batch and all that it commits to: what stands for the data of all batches up to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// What was committed.
    pub batch: Batch,
    /// How far the stream was read for it.
    pub positions: Positions,
    /// See [`Trees::to_bytes`].
    pub trees: Vec<u8>,
}

/// What takes the place of a log's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    log: Log,
    base: Base,
    /// All behind the base that were not dropped.
    sealed: BTreeMap<u64, Sealed>,
}

impl Base {
    /// The trees, if they are those of the batch.
    #[must_use]
    pub fn trees(&self) -> Option<Trees> {
        let trees = Trees::from_bytes(&self.trees).ok()?;
        (trees.roots(&self.positions).state() == self.batch.state_root).then_some(trees)
    }
}

impl Fold {
    /// Folds all entries of a log. `batch` is the last one of which no data are kept: nothing may have to be sealed up to it again.
    /// `sealed` are all batches behind `base` that were not dropped.
    ///
    /// `None` if the log has halted, if `batch` is not booked or not behind `base`, or if the data do not lead to its root.
    ///
    /// # Errors
    /// The trees are longer than any entry of a log.
    pub fn new(
        log: Log,
        base: Option<&Base>,
        sealed: BTreeMap<u64, Sealed>,
        batch: u64,
    ) -> Result<Option<Self>, TooLong> {
        Self::within(TREES_BYTES_MAX, log, base, sealed, batch)
    }

    fn within(
        trees_bytes_max: usize,
        log: Log,
        base: Option<&Base>,
        mut sealed: BTreeMap<u64, Sealed>,
        batch: u64,
    ) -> Result<Option<Self>, TooLong> {
        let behind = sealed.split_off(&batch.saturating_add(1));
        let Some((trees, last, positions)) = carried(base, &sealed) else { return Ok(None) };
        let bytes = trees.bytes_len();
        if bytes > trees_bytes_max {
            return Err(TooLong(bytes));
        }
        let base = Base { batch: last, positions, trees: trees.to_bytes() };
        let is_sound = last.seq == batch && base.trees().is_some();
        Ok(if is_sound { Self::joined(log, base, behind) } else { None })
    }

    /// What the entries came to.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// The last batch of which only the trees are left.
    #[must_use]
    pub const fn base(&self) -> &Base {
        &self.base
    }

    /// All batches behind that which were not dropped.
    #[must_use]
    pub const fn sealed(&self) -> &BTreeMap<u64, Sealed> {
        &self.sealed
    }

    /// Only what fits together: batches in a chain from the base to the last sealed one, those that are not booked as the log has them.
    fn joined(log: Log, base: Base, sealed: BTreeMap<u64, Sealed>) -> Option<Self> {
        // Something was settled, and something can follow.
        if matches!(base.batch.seq, 0 | u64::MAX) {
            return None;
        }
        let mut head = (base.batch.seq, base.batch.head());
        let mut booked = head;
        for (seq, sealed) in &sealed {
            let follows =
                is_next(*seq, head.0) && sealed.batch.seq == *seq && sealed.batch.prev_head == head.1;
            let is_open = log.open.get(seq).is_some_and(|open| open.sealed == *sealed);
            if !follows || is_open != (*seq > log.booked.0) {
                return None;
            }
            head = (*seq, sealed.batch.head());
            booked = if is_open { booked } else { head };
        }
        let fits = booked == log.booked && head == log.sealed_head() && log.halt.is_none();
        fits.then_some(Self { log, base, sealed })
    }

    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Log { booked, open, attempts, final_block, dropped, halt: _ } = &self.log;
        let mut to = Writer::default();
        to.u8(VERSION);
        entry::write_batch(&mut to, &self.base.batch);
        self.base.positions.write(&mut to);
        to.bytes(&self.base.trees);
        to.list(self.sealed.values(), entry::write_sealed);
        to.u64(booked.0);
        to.list(open.values(), |to, open| {
            let held = open.held.map_or(0, |refusal| refusal as u8 + 1);
            to.u64(open.at.0).u8(u8::from(open.is_final)).u8(held);
        });
        to.list(attempts.iter(), entry::write_attempt);
        let dropped = dropped.unwrap_or(Refused { seq: 0, times: 0, at: Time::ZERO });
        to.u64(*final_block).u64(dropped.seq).u32(dropped.times).u64(dropped.at.0);
        to.0
    }

    /// Reads it.
    ///
    /// # Errors
    /// The bytes are none of this version, or what they say does not fit together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut from = Reader(bytes);
        let version = from.u8()?;
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        let batch = entry::read_batch(&mut from)?;
        let base = Base { batch, positions: Positions::read(&mut from)?, trees: from.bytes()? };
        let sealed: Vec<Sealed> = from.list(entry::read_sealed)?;
        if !sealed.is_sorted_by(|a, b| a.batch.seq < b.batch.seq) {
            return Err(EntryError::Damaged);
        }
        let sealed: BTreeMap<u64, Sealed> = sealed.into_iter().map(|it| (it.batch.seq, it)).collect();
        let booked = from.u64()?;
        let head = if booked == batch.seq { Some(batch.head()) } else { None };
        let head = head.or_else(|| sealed.get(&booked).map(|it| it.batch.head())).ok_or(Truncated)?;
        let mut unbooked = sealed.range(booked.saturating_add(1)..);
        let open = from.list(|from| {
            let (seq, sealed) = unbooked.next().ok_or(EntryError::Damaged)?;
            read_open(from, sealed.clone()).map(|open| (*seq, open))
        })?;
        // None is final behind one that is not.
        if !open.is_sorted_by_key(|(_, open)| !open.is_final) {
            return Err(EntryError::Damaged);
        }
        let attempts = from.list(entry::read_attempt)?;
        let final_block = from.u64()?;
        let dropped = Refused { seq: from.u64()?, times: from.u32()?, at: Time(from.u64()?) };
        from.end()?;
        let none = Refused { seq: 0, times: 0, at: Time::ZERO };
        if dropped.times == 0 && dropped != none {
            return Err(EntryError::Damaged);
        }
        let dropped = (dropped != none).then_some(dropped);
        let open = open.into_iter().collect();
        let log = Log { booked: (booked, head), open, attempts, final_block, dropped, halt: None };
        Self::joined(log, base, sealed).ok_or(EntryError::Damaged)
    }
}

/// The trees as the last of these batches leaves them, and that batch.
fn carried(base: Option<&Base>, sealed: &BTreeMap<u64, Sealed>) -> Option<(Trees, Batch, Positions)> {
    let mut trees = base.map_or_else(|| Some(Trees::default()), Base::trees)?;
    let mut before = base.map_or(0, |base| base.batch.seq);
    let mut last = None;
    for (seq, sealed) in sealed {
        let data = BatchData::from_bytes(&sealed.data).ok().filter(|_| is_next(*seq, before))?;
        trees.update(&data);
        last = Some((sealed.batch, data.positions));
        before = *seq;
    }
    last.map(|(batch, positions)| (trees, batch, positions))
}

fn is_next(seq: u64, before: u64) -> bool {
    before.checked_add(1) == Some(seq)
}

fn read_open(from: &mut Reader<'_>, sealed: Sealed) -> Result<Open, EntryError> {
    let (at, is_final, held) = (Time(from.u64()?), from.u8()?, from.u8()?);
    let held = match held.checked_sub(1) {
        None => None,
        Some(number) => Some(*REFUSALS.get(usize::from(number)).ok_or(EntryError::Damaged)?),
    };
    if is_final > 1 {
        return Err(EntryError::Damaged);
    }
    Ok(Open { sealed, at, is_final: is_final == 1, held })
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use surety_protocol::Address;

    use super::*;
    use crate::leaf::{PartitionLeaf, PayeeLeaf};

    /// That has changed nothing.
    fn batch(seq: u64, prev_head: [u8; 32]) -> Batch {
        let state_root = Trees::default().roots(&Positions::default()).state();
        let (sum_locked, sum_credit, guaranteed_ack) = (0, 0, 0);
        let (lsn_to, count, data_hash) = (0, 0, [0; 32]);
        Batch { seq, lsn_to, prev_head, state_root, sum_locked, sum_credit, guaranteed_ack, count, data_hash }
    }

    fn sealed(batch: Batch) -> Sealed {
        Sealed { batch, credit_max: 0, finals: Vec::new(), data: Vec::new() }
    }

    /// A fold up to a batch, with some behind it of which none is booked.
    fn fold(base: u64, is_final: &[bool]) -> Fold {
        let trees = Trees::default().to_bytes();
        let base = Base { batch: batch(base, [7; 32]), positions: Positions::default(), trees };
        assert!(base.trees().is_some());
        let (mut log, mut behind) = (Log::new([0; 32]), BTreeMap::new());
        log.booked = (base.batch.seq, base.batch.head());
        let mut head = log.booked;
        for is_final in is_final.iter().copied() {
            let sealed = sealed(batch(head.0 + 1, head.1));
            head = (sealed.batch.seq, sealed.batch.head());
            log.open.insert(head.0, Open { sealed: sealed.clone(), at: Time(1), is_final, held: None });
            behind.insert(head.0, sealed);
        }
        Fold { log, base, sealed: behind }
    }

    fn read(fold: &Fold) -> Result<Fold, EntryError> {
        Fold::from_bytes(&fold.to_bytes())
    }

    #[test]
    fn what_fits_together_is_read_back() {
        for base in [1, 2, u64::MAX - 3] {
            for is_final in [&[][..], &[false], &[true, false, false], &[true, true, true]] {
                let fold = fold(base, is_final);
                assert_eq!(read(&fold), Ok(fold));
            }
        }
    }

    #[test]
    fn nothing_was_settled_or_nothing_can_follow() {
        for base in [0, u64::MAX] {
            assert_eq!(read(&fold(base, &[])), Err(EntryError::Damaged), "{base}");
        }
    }

    #[test]
    fn the_last_number_of_all_has_no_next() {
        let mut fold = fold(u64::MAX - 1, &[true]);
        let last = fold.sealed[&u64::MAX].clone();
        assert_eq!(read(&fold).as_ref(), Ok(&fold));
        let after = sealed(batch(0, last.batch.head()));
        // Behind the base, and behind that.
        for seq in [u64::MAX - 1, u64::MAX] {
            let entry = entry::Entry::Sealed { sealed: after.clone().into(), at: Time(2) };
            assert!(fold.log.append(entry).is_err());
            let again = Fold::new(fold.log.clone(), Some(&fold.base), fold.sealed.clone(), seq);
            assert_eq!(again, Ok(None));
        }
        assert_eq!(fold.log.append(entry::Entry::Booked { seq: u64::MAX }), Ok(()));
        assert!(fold.log.append(entry::Entry::Booked { seq: 0 }).is_err());
        assert!(fold.log.append(entry::Entry::Final { seq: 0, block: 1, nonce: 1 }).is_err());
    }

    #[test]
    fn no_batch_is_there_twice_or_out_of_order() {
        let whole = fold(1, &[true, false]);
        let (second, third) = (whole.sealed[&2].clone(), whole.sealed[&3].clone());
        for sealed in
            [[second.clone(), second.clone(), third.clone()], [second.clone(), third.clone(), third.clone()]]
        {
            let fold = Fold { sealed: (2..).zip(sealed).collect(), ..whole.clone() };
            assert_eq!(read(&fold), Err(EntryError::Damaged));
        }
        let fold = Fold { sealed: (2..).zip([third, second]).collect(), ..whole };
        assert_eq!(read(&fold), Err(EntryError::Damaged));
    }

    #[test]
    fn none_is_final_behind_one_that_is_not() {
        for is_final in [&[false, true][..], &[true, false, true]] {
            assert_eq!(read(&fold(4, is_final)), Err(EntryError::Damaged), "{is_final:?}");
        }
    }
    #[test]
    fn trees_that_are_too_long_are_not_written() {
        let partition = PartitionLeaf { partition: [1; 32], ..PartitionLeaf::default() };
        let payee = PayeeLeaf { partition: [1; 32], payee: Address([2; 20]), credit: 3 };
        let data = BatchData { partitions: vec![partition], payees: vec![payee], ..BatchData::default() };
        let mut trees = Trees::default();
        assert_eq!(trees.bytes_len(), trees.to_bytes().len());
        trees.update(&data);
        assert_eq!(trees.bytes_len(), trees.to_bytes().len());
        let batch = Batch { state_root: trees.roots(&data.positions).state(), ..batch(1, [0; 32]) };
        let mut log = Log::new([0; 32]);
        log.booked = (1, batch.head());
        let sealed = BTreeMap::from([(1, Sealed { data: data.to_bytes(), ..sealed(batch) })]);
        let within = |max| Fold::within(max, log.clone(), None, sealed.clone(), 1);
        let len = trees.bytes_len();
        assert!(within(len).is_ok_and(|fold| fold.is_some()));
        assert_eq!(within(len - 1), Err(TooLong(len)));
    }
}
