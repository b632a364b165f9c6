//! The locks of a tenant as its change stream tells of them: what can be listed, and found by id alone.

use std::collections::BTreeMap;
use std::ops::Bound;

use surety_client::protocol::{
    ALL_CAPTURES, Amount, ChangeBody, Code, ConsumeBody, End, Flags, Id, Kind, LockBody, MerchantId,
    PartitionHandle, Record, ShardId, Time,
};

/// A lock, or a request for one that was declined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) partition: PartitionHandle,
    pub(crate) merchant: MerchantId,
    pub(crate) created: Time,
    pub(crate) deadline: Time,
    pub(crate) end: End,
    /// Its total while it is live, and what was captured once it has ended: as a look-up tells it.
    pub(crate) total: Amount,
    pub(crate) captured: Amount,
}

/// The last locks, by id: those of version 7 are in the order of their time.
#[derive(Debug)]
pub(crate) struct Book {
    locks: BTreeMap<Id, Listed>,
    max: usize,
    has_forgotten: bool,
}

impl Book {
    pub(crate) const fn new(max: usize) -> Self {
        Self { locks: BTreeMap::new(), max, has_forgotten: false }
    }

    /// A shard's stream is read anew from its beginning.
    pub(crate) fn drop_shard(&mut self, shard: ShardId) {
        self.locks.retain(|_, lock| lock.partition.shard() != shard);
    }

    /// Some of what the change stream has told is lost.
    pub(crate) const fn forget(&mut self) {
        self.has_forgotten = true;
    }

    /// True if a lock that is not found may be there all the same.
    pub(crate) const fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    pub(crate) fn find(&self, id: Id) -> Option<&Listed> {
        self.locks.get(&id)
    }

    /// Those behind an id, in order.
    pub(crate) fn after(&self, id: Option<Id>) -> impl Iterator<Item = (Id, &Listed)> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.locks.range((from, Bound::Unbounded)).map(|(id, lock)| (*id, lock))
    }

    /// Notes what a record tells. The record of a lock may come twice: with its reply, and out of the stream.
    pub(crate) fn observe(&mut self, record: &Record) {
        let (Some(kind), Some(code)) = (record.kind(), record.code()) else { return };
        match kind {
            Kind::Lock => self.make(record, code),
            _ if !code.is_success() => {}
            Kind::Consume | Kind::AutoConsume => self.consume(record),
            Kind::Advice => self.advise(record),
            _ if kind.changes_a_lock() => self.change(kind, record),
            _ => {}
        }
    }

    fn make(&mut self, record: &Record, code: Code) {
        let body: LockBody = record.body();
        let is_sale = record.flags().has(Flags::SALE);
        let approved = if code.is_success() { record.result.min(record.amount) } else { Amount::ZERO };
        self.insert(
            record.id,
            Listed {
                partition: record.partition,
                merchant: body.merchant,
                created: record.time,
                deadline: body.deadline,
                end: match code {
                    Code::AlreadyReleased => End::Tombstone,
                    _ if !code.is_success() => End::Declined,
                    _ if is_sale => End::Final,
                    _ => End::Live,
                },
                total: approved,
                captured: if is_sale { approved } else { Amount::ZERO },
            },
        );
    }

    fn insert(&mut self, id: Id, lock: Listed) {
        if self.max == 0 {
            return self.forget();
        }
        // What is known under an id stays: it may have changed since.
        self.locks.entry(id).or_insert(lock);
        while self.locks.len() > self.max {
            self.locks.pop_first();
            self.forget();
        }
    }

    /// The lock of a record, if it is not the lock of another partition under the same id.
    fn lock(&mut self, id: Id, partition: PartitionHandle) -> Option<&mut Listed> {
        self.locks.get_mut(&id).filter(|lock| lock.partition == partition)
    }

    fn consume(&mut self, record: &Record) {
        let body: ConsumeBody = record.body();
        if let Some(lock) = self.lock(body.lock, record.partition)
            && body.capture == ALL_CAPTURES
        {
            // Out of what is held: it counts as captured.
            lock.captured.0 += record.result.0;
        }
    }

    fn advise(&mut self, record: &Record) {
        let body: ChangeBody = record.body();
        if self.lock(body.lock, record.partition).is_some() {
            return self.change(Kind::Advice, record);
        }
        // The stream has told of every lock there is, unless some were forgotten.
        if !self.has_forgotten {
            let exposed = Listed {
                partition: record.partition,
                merchant: MerchantId(0),
                created: record.time,
                deadline: record.time,
                end: End::Exposed,
                total: record.result,
                captured: record.result,
            };
            self.insert(body.lock, exposed);
        }
    }

    fn change(&mut self, kind: Kind, record: &Record) {
        let body: ChangeBody = record.body();
        let Some(lock) = self.lock(body.lock, record.partition) else { return };
        match kind {
            Kind::Increase => {
                lock.total = record.amount;
                lock.deadline = if body.deadline.0 > 0 { body.deadline } else { lock.deadline };
            }
            Kind::Decrease => lock.total = record.amount,
            Kind::Capture | Kind::Advice => {
                lock.captured.0 += record.result.0;
                lock.total = lock.total.max(lock.captured);
                if record.flags().has(Flags::FINAL) && lock.end == End::Live {
                    lock.finish(End::Final);
                }
            }
            Kind::Reverse => lock.captured.0 = lock.captured.0.saturating_sub(record.result.0),
            Kind::Release if lock.end == End::Live => {
                let end = if lock.captured == Amount::ZERO { End::Released } else { End::Final };
                lock.finish(end);
            }
            Kind::Release if lock.end == End::Expired => lock.end = End::Released,
            Kind::Settle if body.capture == ALL_CAPTURES => lock.finish(End::Settled),
            Kind::GuaranteePaid => lock.finish(End::Settled),
            Kind::Expire => lock.finish(End::Expired),
            _ => {}
        }
        if lock.end != End::Live {
            lock.total = lock.captured;
        }
    }
}

impl Listed {
    const fn finish(&mut self, end: End) {
        self.end = end;
        self.total = self.captured;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(id: u128, amount: u128) -> Record {
        let body = LockBody { merchant: MerchantId(5), ..LockBody::default() };
        let mut record = Record::new(Kind::Lock, Id(id), PartitionHandle(1), Amount(amount), &body);
        record.code = Code::Approved as u8;
        record.result = Amount(amount);
        record
    }

    #[test]
    fn the_oldest_are_forgotten_and_the_first_under_an_id_stays() {
        let mut book = Book::new(2);
        book.observe(&lock(1, 10));
        book.observe(&lock(2, 10));
        let elsewhere = Record { partition: PartitionHandle(2), ..lock(2, 99) };
        book.observe(&elsewhere);
        assert!(book.find(Id(2)).is_some_and(|lock| lock.partition == PartitionHandle(1)));
        assert!(!book.has_forgotten());
        book.observe(&lock(3, 10));
        assert!(book.has_forgotten() && book.find(Id(1)).is_none());
        assert_eq!(book.after(Some(Id(2))).map(|(id, _)| id).collect::<Vec<_>>(), [Id(3)]);
        assert_eq!(book.after(None).count(), 2);
    }
}
