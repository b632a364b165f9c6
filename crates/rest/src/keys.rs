//! Which request each key was used for: a key means one request, whichever partition and whichever path it names.
//!
//! The engine holds ids apart by partition, so that one id in two partitions is two locks. An application that uses one key twice has
//! made a mistake, and is told before anything is sent. A key is kept for as long as the engine takes its id at all, and after that
//! until there is need of its room; what finds no room is refused, and nothing is forgotten for it.
//!
//! It is the guard of one front door. Of what another one has sent this one knows once the change stream has told it, so that one key
//! at two front doors in the same moment may still be two locks in two partitions; of what the engine's retention has dropped before
//! this one was opened it knows nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use surety_client::protocol::{Id, Kind, Origin, Record, TenantId, Time, limits};

/// What the clocks of those who make keys, of this front door and of the engine may differ by, together.
const CLOCKS_APART_MAX: Time = Time::from_secs(60);

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

/// The keys that were used.
#[derive(Debug)]
pub(crate) struct Keys {
    uses: HashMap<Id, Use>,
    /// Those that no call holds, by when they may be forgotten.
    order: BTreeSet<(Time, Id)>,
    max: usize,
    /// How long the engine takes an id that is not a lasting one.
    window: Time,
}

/// What a key was used for.
#[derive(Clone, Copy, Debug)]
struct Use {
    print: Fingerprint,
    /// The engine takes no request under it after this.
    until: Time,
    /// Calls that have it now.
    holders: usize,
    /// Something was done under it, or may have been.
    is_spent: bool,
}

/// What a key was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// This request's: it is held until it is put down.
    Held,
    /// Another request's.
    Other,
    /// There is no room for a new one: all that are here may still be used again.
    Full,
}

impl Keys {
    pub(crate) fn new(max: usize, window: Time) -> Self {
        Self { uses: HashMap::new(), order: BTreeSet::new(), max: max.max(1), window }
    }

    /// Takes a key for a request, unless it is another one's.
    pub(crate) fn claim(&mut self, request: &Record, now: Time) -> Claim {
        let (key, print) = (key_of(request.id), Fingerprint::of(request));
        if !self.uses.contains_key(&key) && !self.make_room(now) {
            return Claim::Full;
        }
        let until = self.until(request);
        let used = self.uses.entry(key).or_insert(Use { print, until, holders: 0, is_spent: false });
        if used.print != print {
            return Claim::Other;
        }
        used.holders += 1;
        self.order.remove(&(used.until, key));
        Claim::Held
    }

    /// Puts a held key down. One under which nothing was done, by any of the calls that had it, is free again.
    pub(crate) fn put_down(&mut self, request: &Record, is_spent: bool) {
        let key = key_of(request.id);
        let Entry::Occupied(mut entry) = self.uses.entry(key) else { return };
        let used = entry.get_mut();
        used.holders = used.holders.saturating_sub(1);
        used.is_spent |= is_spent;
        if used.holders > 0 {
            return;
        }
        if used.is_spent {
            self.order.insert((used.until, key));
        } else {
            entry.remove();
        }
    }

    /// Notes what the change stream tells, through whichever front door it came.
    ///
    /// There is room for all of it: what the engine has recorded within its windows has bounds there.
    pub(crate) fn observe(&mut self, record: &Record, now: Time) {
        let is_of_a_sender =
            record.kind().is_some_and(|kind| !matches!(kind.origin(), Origin::Engine | Origin::Part));
        let until = self.until(record);
        if !is_of_a_sender || until < now {
            return;
        }
        let key = key_of(record.id);
        self.make_room(now);
        let print = Fingerprint::of(record);
        let used = self.uses.entry(key).or_insert(Use { print, until, holders: 0, is_spent: true });
        if used.print != print {
            return;
        }
        used.is_spent = true;
        if used.holders == 0 {
            self.order.insert((used.until, key));
        }
    }

    /// Forgets what nobody can use any more, if there is need. False if all have to stay.
    fn make_room(&mut self, now: Time) -> bool {
        while self.uses.len() >= self.max {
            let Some((until, key)) = self.order.first().copied() else { return false };
            if until >= now {
                return false;
            }
            self.order.remove(&(until, key));
            self.uses.remove(&key);
        }
        true
    }

    /// Until when the engine may take this request's id.
    fn until(&self, request: &Record) -> Time {
        let is_lasting =
            request.id.is_lasting() || matches!(request.kind(), Some(Kind::Advice | Kind::Reverse));
        let window = if is_lasting { limits::ADVICE_WINDOW } else { self.window };
        request.id.time().plus(window).plus(CLOCKS_APART_MAX)
    }
}

/// The key behind an id, which may be that of a lasting request.
const fn key_of(id: Id) -> Id {
    Id(id.0 & !(0xf << 76) | 0x7 << 76)
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_client::protocol::{Amount, ChangeBody, Code, Flags, LockBody, PartitionHandle};

    const NOW: Time = Time::from_secs(1_000_000);
    const WINDOW: Time = Time::from_secs(120);

    fn lock(id: Id, partition: u64, amount: u128) -> Record {
        Record::new(Kind::Lock, id, PartitionHandle(partition), Amount(amount), &LockBody::default())
    }

    fn release(id: Id) -> Record {
        let body = ChangeBody { lock: id, ..ChangeBody::default() };
        Record::new(Kind::Release, id.lasting(), PartitionHandle(1), Amount::ZERO, &body)
            .with_flags(Flags::LASTING)
    }

    fn id(n: u128) -> Id {
        Id::from_parts(NOW, n)
    }

    #[test]
    fn a_key_means_one_request() {
        let mut keys = Keys::new(10, WINDOW);
        assert_eq!(keys.claim(&lock(id(1), 1, 10), NOW), Claim::Held);
        assert_eq!(keys.claim(&lock(id(1), 1, 10), NOW), Claim::Held);
        assert_eq!(keys.claim(&lock(id(1), 2, 10), NOW), Claim::Other, "another partition");
        assert_eq!(keys.claim(&lock(id(1), 1, 11), NOW), Claim::Other, "another amount");
        assert_eq!(keys.claim(&release(id(1)), NOW), Claim::Other, "another path");
        // What the engine has recorded of a request is that request.
        let mut record = lock(id(2), 1, 10);
        (record.tenant, record.code, record.result) = (TenantId(7), Code::Approved as u8, Amount(10));
        keys.observe(&record, NOW);
        assert_eq!(keys.claim(&lock(id(2), 1, 10), NOW), Claim::Held);
        assert_eq!(keys.claim(&lock(id(2), 2, 10), NOW), Claim::Other);
    }

    #[test]
    fn a_key_is_free_again_when_the_last_that_had_it_was_refused() {
        let mut keys = Keys::new(10, WINDOW);
        let (meant, other) = (lock(id(1), 1, 10), lock(id(1), 2, 10));
        for _ in 0..2 {
            assert_eq!(keys.claim(&meant, NOW), Claim::Held);
        }
        keys.put_down(&meant, false);
        assert_eq!(keys.claim(&other, NOW), Claim::Other, "a call beside it is on its way");
        keys.put_down(&meant, false);
        assert_eq!(keys.claim(&other, NOW), Claim::Held);
        keys.put_down(&other, true);
        // A later refusal of a repeat does not free what was done.
        assert_eq!(keys.claim(&other, NOW), Claim::Held);
        keys.put_down(&other, false);
        assert_eq!(keys.claim(&meant, NOW), Claim::Other);
        // Nor does one while the stream tells of it.
        assert_eq!(keys.claim(&lock(id(2), 1, 1), NOW), Claim::Held);
        keys.observe(&lock(id(2), 1, 1), NOW);
        keys.put_down(&lock(id(2), 1, 1), false);
        assert_eq!(keys.claim(&lock(id(2), 2, 1), NOW), Claim::Other);
    }

    #[test]
    fn no_key_is_forgotten_while_it_could_be_used_again() {
        let mut keys = Keys::new(2, WINDOW);
        assert_eq!(keys.claim(&lock(id(1), 1, 10), NOW), Claim::Held);
        keys.put_down(&lock(id(1), 1, 10), true);
        assert_eq!(keys.claim(&release(id(2)), NOW), Claim::Held);
        keys.put_down(&release(id(2)), true);
        assert_eq!(keys.claim(&lock(id(3), 1, 10), NOW), Claim::Full);
        assert_eq!(keys.claim(&lock(id(1), 1, 10), NOW), Claim::Held, "a repeat needs no room");
        keys.put_down(&lock(id(1), 1, 10), true);
        // The stream's own are taken all the same.
        keys.observe(&lock(id(4), 1, 10), NOW);
        assert_eq!(keys.claim(&lock(id(4), 2, 10), NOW), Claim::Other);
        // The window of the locks is over, that of the release is not.
        let later = NOW.plus(WINDOW).plus(CLOCKS_APART_MAX).plus(Time::from_millis(1));
        assert_eq!(keys.claim(&lock(id(1), 2, 10), later), Claim::Other, "there was no need of its room");
        assert_eq!(keys.claim(&lock(id(3), 1, 10), later), Claim::Held);
        assert_eq!(keys.claim(&lock(id(2), 1, 10), later), Claim::Other);
        assert_eq!(keys.claim(&lock(id(5), 1, 10), later), Claim::Full);
        let at_last = later.plus(limits::ADVICE_WINDOW);
        assert_eq!(keys.claim(&lock(id(5), 1, 10), at_last), Claim::Held);
        // One that a call has stays, whatever its age; what is told of the distant past is not noted.
        assert_eq!(keys.claim(&lock(id(6), 1, 10), at_last.plus(limits::ADVICE_WINDOW)), Claim::Full);
        keys.put_down(&lock(id(3), 1, 10), false);
        keys.observe(&lock(id(7), 1, 10), at_last);
        assert_eq!(keys.claim(&lock(id(7), 2, 10), at_last), Claim::Held);
    }
}
