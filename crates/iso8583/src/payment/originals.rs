//! Which lock an acquirer's own reference (field 37) names.

use alloc::collections::VecDeque;

use hashbrown::HashTable;
use surety_protocol::{ChangeBody, Code, Kind, LockBody, Record};

use super::ids::Handle;
use super::work::Place;

/// The locks of the last payments, by their handles. Every lock and every advice carries its handle, so that the table can be made again from
/// the change stream. Past its bound the oldest are forgotten; then the message's field 90 has to name the original. That something was
/// forgotten is remembered: a reference that is not found may then be one of a lock that there is.
#[derive(Clone, Debug)]
pub struct Originals {
    /// A million of them are looked at for every message: what is far down a tree is not in a cache.
    places: HashTable<(Handle, Place)>,
    order: VecDeque<Handle>,
    max: usize,
    has_forgotten: bool,
}

impl Originals {
    /// An empty table of at most so many.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        // It grows with the payments: room for many at once would be touched all over by a few.
        Self { places: HashTable::new(), order: VecDeque::new(), max, has_forgotten: false }
    }

    /// Notes where a payment's lock is. The first under a handle stays: a repeat has to find what the message before it found,
    /// also where a reference is used twice.
    pub fn note(&mut self, handle: Handle, place: Place) {
        if self.max == 0 {
            return self.forget();
        }
        if self.find(handle).is_some() {
            return;
        }
        self.places.insert_unique(hash(handle), (handle, place), |(handle, _)| hash(*handle));
        self.order.push_back(handle);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            if let Ok(entry) = self.places.find_entry(hash(oldest), |(handle, _)| *handle == oldest) {
                entry.remove();
            }
            self.forget();
        }
    }

    /// Some payments were not noted, or are not any more.
    pub const fn forget(&mut self) {
        self.has_forgotten = true;
    }

    /// True if a reference that is not found may be one of a payment all the same.
    #[must_use]
    pub const fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    /// Notes what a record of the change stream tells: a lock that a message or an advice has made or used.
    pub fn observe(&mut self, record: &Record) {
        let (handle, lock) = match record.kind() {
            Some(Kind::Lock) => (record.body::<LockBody>().user, record.id),
            Some(Kind::Advice) => {
                let body = record.body::<ChangeBody>();
                (body.user, body.lock)
            }
            _ => return,
        };
        let is_done = Code::from_byte(record.code).is_some_and(Code::is_success);
        if is_done && handle != 0 {
            self.note(Handle(handle), Place { partition: record.partition, lock });
        }
    }

    /// Where the payment's lock is.
    #[must_use]
    pub fn find(&self, handle: Handle) -> Option<Place> {
        self.places.find(hash(handle), |(known, _)| *known == handle).map(|(_, place)| *place)
    }
}

/// Handles are drawn by a keyed hash; those that applications number by themselves are spread too.
const fn hash(handle: Handle) -> u64 {
    handle.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{Amount, Id, PartitionHandle};

    fn place(n: u64) -> Place {
        Place { partition: PartitionHandle(1), lock: Id(u128::from(n)) }
    }

    #[test]
    fn the_first_counts_and_the_oldest_are_forgotten() {
        let mut originals = Originals::new(2);
        originals.note(Handle(1), place(1));
        originals.note(Handle(2), place(2));
        assert!(!originals.has_forgotten());
        (1..=3).for_each(|n| originals.note(Handle(n), place(n)));
        assert_eq!([1, 2, 3].map(|n| originals.find(Handle(n)).is_some()), [false, true, true]);
        assert!(originals.has_forgotten());
        originals.note(Handle(2), place(9));
        assert_eq!(originals.find(Handle(2)), Some(place(2)));
        originals.note(Handle(1), place(1));
        assert_eq!([1, 2, 3].map(|n| originals.find(Handle(n)).is_some()), [true, false, true]);
        let mut none = Originals::new(0);
        none.note(Handle(1), place(1));
        assert_eq!((none.find(Handle(1)), none.has_forgotten()), (None, true));
    }

    #[test]
    fn the_stream_of_changes_fills_it() {
        let mut originals = Originals::new(9);
        let body = LockBody { user: 5, ..LockBody::default() };
        let mut record = Record::new(Kind::Lock, Id(7), PartitionHandle(1), Amount(1), &body);
        record.code = Code::Insufficient as u8;
        originals.observe(&record);
        assert_eq!(originals.find(Handle(5)), None);
        record.code = Code::Partial as u8;
        originals.observe(&record);
        assert_eq!(originals.find(Handle(5)), Some(place(7)));
    }
}
