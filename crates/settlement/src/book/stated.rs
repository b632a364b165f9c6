//! Which records state something of a certified lock, and which of them should and do not.

use surety_protocol::{Code, Flags, Kind, LockBody, MerchantId, QuoteId, Record, Seq, ShardId, sabotage};

use super::lost::Lost;
use super::{Book, Home, lock_of};
use crate::leaf::LockId;

/// Why a certified lock has no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unstated {
    /// The stream that was read has not made its partition.
    #[error("its partition is not known")]
    Partition,
    /// Its merchant has no payee, or none that was read: nobody could be paid.
    #[error("no payee of merchant {} is known", .0.0)]
    Payee(MerchantId),
    /// It is in a quote currency whose price was not read.
    #[error("no price in currency {} is known", .0.0)]
    Price(QuoteId),
    /// It was raised, and what it was raised from, or whether it is certified at all, stood in a part of the stream that was not
    /// read. A certificate that it had before stays as it is.
    #[error("it was raised, and part of the stream that tells of it was not read")]
    Lost,
}

impl Book {
    /// The lock that may be kept elsewhere and has to be taken up before a record of it is read.
    #[must_use]
    pub fn wanted(&self, shard: ShardId, seq: Seq, record: &Record) -> Option<LockId> {
        let lock = stated_lock(record)?;
        (record.kind() != Some(Kind::Lock) || self.has_stated(shard, seq)).then_some(lock)
    }

    /// True if what a record states may be kept elsewhere already, from before a part of the stream was lost.
    fn has_stated(&self, shard: ShardId, seq: Seq) -> bool {
        self.lost.range(whole(shard)).any(|(_, lost)| seq <= lost.stated)
    }

    /// Which certified lock a record should state something of and does not, and why. To be asked before the record is read.
    #[must_use]
    pub fn unstated(&self, shard: ShardId, seq: Seq, record: &Record) -> Option<(LockId, Unstated)> {
        let lock = stated_lock(record).filter(|_| !self.is_told(seq, record))?;
        let why = match record.kind()? {
            Kind::Lock => self.unstated_lock(shard, record),
            Kind::Increase => self.unstated_increase(shard, &lock, record),
            _ => None,
        };
        why.map(|why| (lock, why))
    }

    fn unstated_lock(&self, shard: ShardId, record: &Record) -> Option<Unstated> {
        let LockBody { merchant, quote, .. } = record.body();
        let Some(home) = self.homes.get(&record.partition) else { return Some(Unstated::Partition) };
        if self.payee((shard, record.tenant, merchant)).is_none() {
            return Some(Unstated::Payee(merchant));
        }
        self.is_unpriced(shard, home, quote).then_some(Unstated::Price(quote))
    }

    /// What a raised lock is worth follows from each of its changes, unless it is in collateral: then its total says it.
    pub(super) fn unstated_increase(
        &self,
        shard: ShardId,
        lock: &LockId,
        record: &Record,
    ) -> Option<Unstated> {
        let Some(kept) = self.certified.get(lock) else {
            let may_be_certified = |lost: &Lost| lost.may_have_made(lock.id, record.time);
            return self
                .lost
                .range(whole(shard))
                .any(|(_, lost)| may_be_certified(lost))
                .then_some(Unstated::Lost);
        };
        let Some(home) = self.homes.get(&record.partition) else { return Some(Unstated::Partition) };
        let is_old =
            self.lost.range(whole(shard)).next_back().is_some_and(|((_, end), _)| kept.newest.seq < *end);
        if kept.quote != QuoteId(0) && is_old && !sabotage!("raised-over-an-old-amount") {
            return Some(Unstated::Lost);
        }
        self.is_unpriced(shard, home, kept.quote).then_some(Unstated::Price(kept.quote))
    }

    fn is_unpriced(&self, shard: ShardId, home: &Home, quote: QuoteId) -> bool {
        quote != QuoteId(0) && !self.prices.contains_key(&(shard, home.asset, quote))
    }

    /// True for a record that is not later than the newest statement of its lock.
    pub(super) fn is_told(&self, seq: Seq, record: &Record) -> bool {
        let known = stated_lock(record).and_then(|lock| self.certified.get(&lock));
        known.is_some_and(|kept| seq <= kept.newest.seq)
    }

    /// What was lost right before a record.
    pub(super) fn lost_before(&mut self, shard: ShardId, seq: Seq) -> Option<&mut Lost> {
        self.lost.range_mut((shard, Seq(0))..=(shard, seq)).next_back().map(|(_, lost)| lost)
    }
}

/// All that was lost of a shard.
pub(super) fn whole(shard: ShardId) -> core::ops::RangeInclusive<(ShardId, Seq)> {
    (shard, Seq(0))..=(shard, Seq(u64::MAX))
}

/// The certified lock that a record states something of, or may.
fn stated_lock(record: &Record) -> Option<LockId> {
    let lock = match record.kind()? {
        Kind::Lock if record.flags().has(Flags::CERTIFIED) => {
            LockId { tenant: record.tenant, partition: record.partition, id: record.id }
        }
        Kind::Increase | Kind::Decrease => lock_of(record),
        _ => return None,
    };
    record.code().is_some_and(Code::is_success).then_some(lock)
}
