//! The last records of a shard's change stream that are told as events.

use std::collections::VecDeque;

use surety_client::protocol::{Kind, Record, Seq};

/// A stretch of the stream without gaps, but for what is not told.
#[derive(Debug)]
pub(crate) struct Recent {
    records: VecDeque<(Seq, Record)>,
    max: usize,
    /// Everything behind this, up to `through`, is here.
    behind: Seq,
    through: Seq,
}

impl Recent {
    pub(crate) const fn new(max: usize) -> Self {
        Self { records: VecDeque::new(), max, behind: Seq(0), through: Seq(0) }
    }

    /// Takes the next records of the stream.
    pub(crate) fn push(&mut self, first: Seq, records: &[Record], through: Seq) {
        for (seq, record) in (first.0..).zip(records).filter(|(_, record)| is_told(record)) {
            self.records.push_back((Seq(seq), *record));
            if self.records.len() > self.max
                && let Some((oldest, _)) = self.records.pop_front()
            {
                self.behind = oldest;
            }
        }
        self.through = through.max(self.through);
    }

    /// The stream goes on elsewhere: everything up to here is not known.
    pub(crate) fn restart(&mut self, behind: Seq) {
        self.records.clear();
        (self.behind, self.through) = (behind, behind);
    }

    /// How far the stream was read.
    pub(crate) const fn through(&self) -> Seq {
        self.through
    }

    /// At most so many of those behind a position. None if they are not at hand any more.
    pub(crate) fn after(&self, seq: Seq, limit: usize) -> Option<Vec<(Seq, Record)>> {
        if seq < self.behind {
            return None;
        }
        let from = self.records.partition_point(|(at, _)| *at <= seq);
        Some(self.records.range(from..).take(limit).copied().collect())
    }
}

/// True for what an application is told: payments, and what becomes of partitions.
pub(crate) fn is_told(record: &Record) -> bool {
    record.kind().is_some_and(|kind| match kind {
        Kind::Lookup => false,
        Kind::Lock
        | Kind::Consume
        | Kind::AutoConsume
        | Kind::Deposit
        | Kind::Reward
        | Kind::Withdraw
        | Kind::WithdrawPaid
        | Kind::BatchFinal
        | Kind::Deficit
        | Kind::Freeze
        | Kind::Unfreeze
        | Kind::Cover
        | Kind::WriteOff => true,
        _ => kind.changes_a_lock(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_client::protocol::{Amount, ControlBody, Id, LockBody, PartitionHandle};

    #[test]
    fn what_is_not_at_hand_is_not_told_to_be_nothing() {
        let record = |kind| Record::new(kind, Id(1), PartitionHandle(1), Amount(1), &LockBody::default());
        let start = Record::new(Kind::Start, Id(1), PartitionHandle(1), Amount(1), &ControlBody::default());
        let mut recent = Recent::new(2);
        recent.push(Seq(1), &[start, record(Kind::Lock), record(Kind::Lock)], Seq(4));
        let seqs = |recent: &Recent, after, limit| {
            recent
                .after(Seq(after), limit)
                .map(|told| told.into_iter().map(|(seq, _)| seq.0).collect::<Vec<_>>())
        };
        assert_eq!(seqs(&recent, 0, 9), Some(vec![2, 3]));
        assert_eq!(seqs(&recent, 2, 9), Some(vec![3]));
        assert_eq!((seqs(&recent, 4, 9), recent.through()), (Some(vec![]), Seq(4)));
        recent.push(Seq(5), &[record(Kind::Release)], Seq(5));
        assert_eq!(seqs(&recent, 0, 9), None);
        assert_eq!(seqs(&recent, 2, 1), Some(vec![3]));
        recent.restart(Seq(9));
        assert_eq!((seqs(&recent, 8, 9), seqs(&recent, 9, 9)), (None, Some(vec![])));
    }
}
