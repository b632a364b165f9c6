//! The business days of a link, and what its tenant's payments come to in each: added up from the change stream, each record once.

use std::collections::BTreeMap;

use iso8583::payment::{Day, Refusal, Totals};
use surety_client::protocol::{
    Cursor, EngineId, Epoch, Id, PartitionHandle, Record, Seq, ShardId, TenantId, Time,
};

/// Days that are remembered.
const DAYS_MAX: u32 = 62;
/// How far the next business day may be ahead of both the present one and the clock: over any holidays, and not into another year by a
/// slip, which nothing could take back.
const DAYS_AHEAD_MAX: u32 = 14;

/// Whose book it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) engine: EngineId,
    pub(crate) tenant: TenantId,
    /// Its name in the settings.
    pub(crate) link: String,
}

/// Totals by day and partition. Days are those of the calendar in UTC, or go from one cutover to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) owner: Owner,
    /// Oldest first; empty if days are those of the calendar.
    pub(crate) cuts: Vec<Cut>,
    pub(crate) totals: BTreeMap<(Day, PartitionHandle), Totals>,
    /// Of each shard the seq that is to be counted next.
    pub(crate) next: Vec<Seq>,
    /// And the epoch of the record before it: see [`Cursor::epoch`].
    pub(crate) epochs: Vec<Epoch>,
    /// Of this day and those before it records may be missing.
    pub(crate) incomplete: Option<Day>,
    /// Records of the shard are gone, and nothing tells yet of when they were.
    lost: Vec<bool>,
}

/// Where a business day begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) day: Day,
    /// The message that began it; 0 for the first day of the book.
    pub(crate) id: Id,
    /// Of each shard the last seq before it.
    pub(crate) after: Vec<Seq>,
}

impl Book {
    /// An empty book with the days of the calendar.
    pub(crate) fn of_calendar(owner: Owner, shards: u16) -> Self {
        let shards = usize::from(shards);
        Self {
            owner,
            cuts: Vec::new(),
            totals: BTreeMap::new(),
            next: vec![Seq(1); shards],
            epochs: vec![Epoch(0); shards],
            incomplete: None,
            lost: vec![false; shards],
        }
    }

    /// An empty book whose first day ends with the first cutover.
    pub(crate) fn of_cutovers(owner: Owner, shards: u16, first: Day) -> Self {
        let cut = Cut { day: first, id: Id(0), after: vec![Seq(0); usize::from(shards)] };
        Self { cuts: vec![cut], ..Self::of_calendar(owner, shards) }
    }

    /// The same for so many shards, which never become fewer.
    pub(crate) fn for_shards(mut self, shards: u16) -> Self {
        let shards = self.next.len().max(usize::from(shards));
        self.next.resize(shards, Seq(1));
        self.epochs.resize(shards, Epoch(0));
        self.lost.resize(shards, false);
        self
    }

    /// Leaves out what a shard has seen before the first day.
    pub(crate) fn begin_after(&mut self, shard: ShardId, acked: Seq) {
        let shard = usize::from(shard.0);
        let after = self.cuts.first_mut().and_then(|cut| cut.after.get_mut(shard));
        if let Some((next, after)) = self.next.get_mut(shard).zip(after) {
            (*next, *after) = (Seq(acked.0 + 1), acked);
            self.epochs[shard] = Cursor::ANEW;
        }
    }

    /// Counts records of a shard that follow each other; all up to `through` are these, or are not for this reader.
    pub(crate) fn observe(&mut self, shard: ShardId, first: Seq, records: &[Record], through: Seq) {
        let Some(next) = self.next.get(usize::from(shard.0)).copied() else { return };
        for (seq, record) in (first.0..).map(Seq).zip(records) {
            if seq >= next {
                let day = self.day_of(shard, seq, record.time);
                self.find(shard, day);
                self.totals.entry((day, record.partition)).or_default().add(record);
            }
        }
        self.next[usize::from(shard.0)] = next.max(Seq(through.0 + 1));
        self.prune();
    }

    /// Where its count of a shard stands; none of a shard that it does not know.
    pub(crate) fn cursor(&self, shard: ShardId) -> Option<Cursor> {
        let shard = usize::from(shard.0);
        let (next, epoch) = self.next.get(shard).zip(self.epochs.get(shard))?;
        Some(Cursor { next: *next, epoch: *epoch })
    }

    /// The record before this cursor was counted last, if any of its shard was.
    pub(crate) fn note_epoch(&mut self, shard: ShardId, cursor: Cursor) {
        let shard = usize::from(shard.0);
        if let Some((next, epoch)) = self.next.get(shard).zip(self.epochs.get_mut(shard))
            && *next == cursor.next
        {
            *epoch = cursor.epoch;
        }
    }

    /// Everything of a shard before this is gone. What was counted before is not lost with it.
    pub(crate) fn forget(&mut self, shard: ShardId, oldest: Seq) {
        let Some(next) = self.next.get_mut(usize::from(shard.0)) else { return };
        if *next >= oldest {
            return;
        }
        *next = oldest;
        self.epochs[usize::from(shard.0)] = Cursor::ANEW;
        if self.cuts.is_empty() {
            self.lost[usize::from(shard.0)] = true;
        } else {
            let day = self.day_of(shard, Seq(oldest.0 - 1), Time(0));
            self.incomplete = self.incomplete.max(Some(day));
        }
    }

    /// A record tells when those before it were lost at the latest.
    fn find(&mut self, shard: ShardId, day: Day) {
        if std::mem::take(&mut self.lost[usize::from(shard.0)]) {
            self.incomplete = self.incomplete.max(Some(day));
        }
    }

    fn day_of(&self, shard: ShardId, seq: Seq, time: Time) -> Day {
        let is_after = |cut: &&Cut| seq > cut.after.get(usize::from(shard.0)).copied().unwrap_or(Seq(0));
        let cut = self.cuts.iter().rev().find(is_after).or(self.cuts.first());
        cut.map_or(Day::of(time), |cut| cut.day)
    }

    fn prune(&mut self) {
        let (Some((first, _)), Some((last, _))) = (self.totals.keys().next(), self.totals.keys().last())
        else {
            return;
        };
        if self.cuts.is_empty() && last.0 - first.0 >= DAYS_MAX {
            self.drop_until(Day(last.0 - DAYS_MAX));
        }
    }

    fn drop_until(&mut self, day: Day) {
        self.totals.retain(|(kept, _), _| *kept > day);
        self.incomplete = self.incomplete.max(Some(day));
    }

    /// Begins the next business day: everything that was answered before belongs to the day that ends, everything that is sent from now
    /// on to the new one. `acked` is what replies may have spoken of. True unless the message has been here before.
    ///
    /// # Errors
    /// If days are those of the calendar, or the day is not later than the present one, or too far ahead.
    pub(crate) fn cut(
        &mut self,
        id: Id,
        day: Option<Day>,
        acked: &[Seq],
        now: Time,
    ) -> Result<bool, Refusal> {
        if self.cuts.iter().any(|cut| cut.id == id) {
            return Ok(false);
        }
        let present = self.cuts.last().ok_or(Refusal::Unsupported)?.day;
        let day = day.unwrap_or(Day(present.0 + 1));
        let last = Day(present.max(Day::of(now)).0.saturating_add(DAYS_AHEAD_MAX));
        if day <= present || day > last {
            return Err(Refusal::Format(15));
        }
        // What was counted already was counted for the day that ends.
        let after = |(shard, next): (usize, &Seq)| {
            acked.get(shard).copied().unwrap_or(Seq(0)).max(Seq(next.0.saturating_sub(1)))
        };
        let after = self.next.iter().enumerate().map(after).collect();
        self.cuts.push(Cut { day, id, after });
        if self.cuts.len() > DAYS_MAX as usize {
            let dropped = self.cuts.remove(0).day;
            self.drop_until(dropped);
        }
        Ok(true)
    }

    /// The day that a statement is about which names none: the one that was closed last. Where none was, the present one.
    pub(crate) fn closed(&self, now: Time) -> Day {
        match self.cuts.as_slice() {
            [] => Day::of(now),
            [.., closed, _] => closed.day,
            [present] => present.day,
        }
    }

    /// The present business day.
    pub(crate) fn present(&self, now: Time) -> Day {
        self.cuts.last().map_or(Day::of(now), |cut| cut.day)
    }

    /// What a day has come to in these partitions.
    ///
    /// # Errors
    /// If there is no such day, or its records are gone.
    pub(crate) fn totals(
        &self,
        day: Day,
        now: Time,
        is_meant: impl Fn(PartitionHandle) -> bool,
    ) -> Result<Totals, Refusal> {
        let is_cut = self.cuts.iter().any(|cut| cut.day == day);
        let is_known = is_cut || self.cuts.is_empty() && day <= Day::of(now);
        let is_incomplete = self.incomplete >= Some(day) || self.lost.contains(&true);
        if !is_known || is_incomplete {
            return Err(Refusal::OriginalUnknown);
        }
        let of_day = self.totals.range((day, PartitionHandle(0))..=(day, PartitionHandle(u64::MAX)));
        let meant = of_day.filter(|((_, partition), _)| is_meant(*partition));
        Ok(meant.fold(Totals::default(), |sum, (_, totals)| sum.and(*totals)))
    }
}
