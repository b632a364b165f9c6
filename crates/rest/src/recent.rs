//! The last records of a shard's change stream that are told as events.

use std::collections::VecDeque;

use surety_client::protocol::{self, Epoch, Kind, Record, Seq, sabotage};

use crate::cursor::{Position, life_of};

/// A stretch of the stream without gaps, but for what is not told.
#[derive(Debug)]
pub(crate) struct Recent {
    records: VecDeque<(Seq, Record)>,
    max: usize,
    /// Everything behind this, up to `through`, is here.
    behind: Seq,
    through: Seq,
    /// Where each life begins that was read, in order.
    lives: Lives,
    /// That of the last record that was read, also of one that is not known any more.
    life: Epoch,
}

/// Stretches of the stream that are of one life each: the first seq of it, and what [`life_of`] makes of its epochs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lives(Vec<(Seq, Epoch)>);

impl Lives {
    /// What follows from `first` on is of this epoch.
    pub(crate) fn note(&mut self, first: Seq, epoch: Epoch) {
        let life = life_of(epoch);
        if self.0.last().is_none_or(|(_, last)| *last != life) {
            self.0.push((first, life));
        }
    }

    /// The life of a record; none if it was not read.
    pub(crate) fn of(&self, seq: Seq) -> Option<Epoch> {
        let after = self.0.partition_point(|(first, _)| *first <= seq);
        after.checked_sub(1).map(|at| self.0[at].1)
    }
}

impl Recent {
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            records: VecDeque::new(),
            max,
            behind: Seq(0),
            through: Seq(0),
            lives: Lives(Vec::new()),
            life: Epoch(0),
        }
    }

    /// Takes the next records of the stream.
    pub(crate) fn push(&mut self, first: Seq, records: &[Record], through: Seq, epoch: Epoch) {
        if through > self.through {
            self.lives.note(self.through.next(), epoch);
        }
        // Also where nothing new comes: what is told then is of the record before.
        if through >= self.through && through > Seq(0) && epoch != protocol::Cursor::ANEW {
            self.life = life_of(epoch);
        }
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
        self.lives = Lives::default();
        (self.behind, self.through) = (behind, behind);
    }

    /// How far the stream was read.
    pub(crate) fn through(&self) -> Position {
        Position { seq: self.through, life: self.lives.of(self.through).unwrap_or(self.life) }
    }

    pub(crate) const fn lives(&self) -> &Lives {
        &self.lives
    }

    /// At most so many of those behind a position. None if they are not at hand any more, or the position is not known as one of ours:
    /// the engine tells whether it is.
    pub(crate) fn after(&self, position: Position, limit: usize) -> Option<Vec<(Seq, Record)>> {
        let is_ours = position.seq == Seq(0) || self.lives.of(position.seq) == Some(position.life);
        if position.seq < self.behind || !is_ours && !sabotage!("lost-cursor-followed") {
            return None;
        }
        let from = self.records.partition_point(|(at, _)| *at <= position.seq);
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
        | Kind::Reconcile
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
        recent.push(Seq(1), &[start, record(Kind::Lock), record(Kind::Lock)], Seq(4), Epoch(1));
        let seqs = |recent: &Recent, after, limit| {
            recent
                .after(Position { seq: Seq(after), life: Epoch(0) }, limit)
                .map(|told| told.into_iter().map(|(seq, _)| seq.0).collect::<Vec<_>>())
        };
        assert_eq!(seqs(&recent, 0, 9), Some(vec![2, 3]));
        assert_eq!(seqs(&recent, 2, 9), Some(vec![3]));
        assert_eq!(
            (seqs(&recent, 4, 9), recent.through()),
            (Some(vec![]), Position { seq: Seq(4), life: Epoch(0) })
        );
        recent.push(Seq(5), &[record(Kind::Release)], Seq(5), Epoch(2));
        assert_eq!(seqs(&recent, 0, 9), None);
        assert_eq!(seqs(&recent, 2, 1), Some(vec![3]));
        recent.restart(Seq(9));
        // Whether what comes there is of the same life is not known before something was read.
        assert_eq!((seqs(&recent, 8, 9), seqs(&recent, 9, 9)), (None, None));
        let through = |recent: &Recent| (recent.through().seq.0, recent.through().life.0);
        recent.push(Seq(10), &[], Seq(9), protocol::Cursor::ANEW);
        assert_eq!(through(&recent), (9, 0));
        recent.push(Seq(10), &[], Seq(9), Epoch(90_000));
        assert_eq!(through(&recent), (9, 90_000), "told, although nothing was read");
        recent.restart(Seq(9));
        recent.push(Seq(10), &[record(Kind::Lock)], Seq(10), Epoch(2));
        assert_eq!(seqs(&recent, 10, 9), Some(vec![]));
    }

    #[test]
    fn positions_of_a_life_that_is_lost_are_not_known() {
        let record = Record::new(Kind::Release, Id(1), PartitionHandle(1), Amount(1), &LockBody::default());
        let mut recent = Recent::new(9);
        recent.push(Seq(1), &[record; 5], Seq(5), Epoch(3));
        recent.push(Seq(6), &[record; 2], Seq(7), Epoch(90_000));
        recent.push(Seq(8), &[record; 2], Seq(9), Epoch(90_001));
        let check = |seq, life, is_known| {
            let position = Position { seq: Seq(seq), life: Epoch(life) };
            assert_eq!(recent.after(position, 9).is_some(), is_known, "{seq} {life}");
        };
        for (seq, life) in [(0, 0), (1, 0), (5, 0), (6, 90_000), (7, 90_000), (8, 90_001), (9, 90_001)] {
            check(seq, life, true);
        }
        for (seq, life) in [(6, 0), (9, 0), (5, 90_000), (6, 80_000), (9, 90_000), (7, 90_001)] {
            check(seq, life, false);
        }
        assert_eq!(recent.through(), Position { seq: Seq(9), life: Epoch(90_001) });
    }
}
