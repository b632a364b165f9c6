//! Which request each key was used for: a key means one request, whichever partition and whichever path it names.
//!
//! The engine holds ids apart by partition, so that one id in two partitions is two locks. An application that uses one key twice has
//! made a mistake, and is told before anything is sent. What is not here any more is left to the engine's own windows.

use std::collections::{HashMap, VecDeque};

use surety_client::protocol::{Id, Origin, Record, TenantId};

/// What a request asks for, whoever sends it and whenever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of a request, or of its record.
    pub(crate) fn of(record: &Record) -> Self {
        let sent = Record { tenant: TenantId(0), ..record.as_sent() };
        let mut print = [0; 16];
        print.copy_from_slice(&blake3::hash(&sent.to_bytes()).as_bytes()[..16]);
        Self(print)
    }
}

/// The last keys.
#[derive(Debug)]
pub(crate) struct Keys {
    prints: HashMap<Id, Fingerprint>,
    order: VecDeque<Id>,
    max: usize,
}

/// What a key was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Not seen before: it is this request's now.
    New,
    /// This request's already.
    Again,
    /// Another request's.
    Other,
}

impl Keys {
    pub(crate) fn new(max: usize) -> Self {
        Self { prints: HashMap::new(), order: VecDeque::new(), max: max.max(1) }
    }

    /// Takes a key for a request, unless it is another one's.
    pub(crate) fn claim(&mut self, request: &Record) -> Claim {
        let (key, print) = (key_of(request.id), Fingerprint::of(request));
        match self.prints.get(&key) {
            Some(known) if *known == print => return Claim::Again,
            Some(_) => return Claim::Other,
            None => {}
        }
        self.prints.insert(key, print);
        self.order.push_back(key);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.prints.remove(&oldest);
        }
        Claim::New
    }

    /// Gives a new key back: nothing was done under it.
    pub(crate) fn give_back(&mut self, request: &Record) {
        let key = key_of(request.id);
        if self.order.back() == Some(&key) {
            self.order.pop_back();
        } else if let Some(at) = self.order.iter().rposition(|other| *other == key) {
            self.order.remove(at);
        }
        self.prints.remove(&key);
    }

    /// Notes what the change stream tells, through whichever front door it came.
    pub(crate) fn observe(&mut self, record: &Record) {
        let is_of_a_sender =
            record.kind().is_some_and(|kind| !matches!(kind.origin(), Origin::Engine | Origin::Part));
        if is_of_a_sender {
            self.claim(record);
        }
    }
}

/// The key behind an id, which may be that of a lasting request.
const fn key_of(id: Id) -> Id {
    Id(id.0 & !(0xf << 76) | 0x7 << 76)
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_client::protocol::{Amount, ChangeBody, Code, Flags, Kind, LockBody, PartitionHandle, Time};

    fn lock(id: Id, partition: u64, amount: u128) -> Record {
        Record::new(Kind::Lock, id, PartitionHandle(partition), Amount(amount), &LockBody::default())
    }

    #[test]
    fn a_key_means_one_request() {
        let id = |n| Id::from_parts(Time::from_secs(1), n);
        let mut keys = Keys::new(2);
        assert_eq!(keys.claim(&lock(id(1), 1, 10)), Claim::New);
        assert_eq!(keys.claim(&lock(id(1), 1, 10)), Claim::Again);
        assert_eq!(keys.claim(&lock(id(1), 2, 10)), Claim::Other, "another partition");
        assert_eq!(keys.claim(&lock(id(1), 1, 11)), Claim::Other, "another amount");
        let body = ChangeBody { lock: id(1), ..ChangeBody::default() };
        let release = Record::new(Kind::Release, id(1).lasting(), PartitionHandle(1), Amount::ZERO, &body)
            .with_flags(Flags::LASTING);
        assert_eq!(keys.claim(&release), Claim::Other, "another path");
        // What the engine has recorded of a request is that request.
        let mut record = lock(id(2), 1, 10);
        (record.tenant, record.code, record.result) = (TenantId(7), Code::Approved as u8, Amount(10));
        keys.observe(&record);
        assert_eq!(keys.claim(&lock(id(2), 1, 10)), Claim::Again);
        assert_eq!(keys.claim(&lock(id(3), 1, 10)), Claim::New);
        assert_eq!(keys.claim(&lock(id(1), 2, 10)), Claim::New, "forgotten");
        keys.give_back(&lock(id(3), 1, 10));
        assert_eq!(keys.claim(&lock(id(3), 2, 10)), Claim::New, "given back");
    }
}
