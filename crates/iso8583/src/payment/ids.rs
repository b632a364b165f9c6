//! Ids out of what a message carries, without any memory.

use surety_protocol::{Id, Time};

use crate::Mti;

use super::calendar;

/// What names a message among all that an acquirer sends: fields 32, 41, 11 and 7, and the class of its type.
///
/// A repeat has the same; so has a reversal's field 90 that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keys {
    /// Field 32: the acquiring institution.
    pub acquirer: u64,
    /// Field 41: the terminal.
    pub terminal: [u8; 8],
    /// Field 11: the trace audit number.
    pub trace: [u8; 6],
    /// Field 7: when it was first sent.
    pub sent: [u8; 10],
    /// The version, class and function of its type: an advice is another message than the request before it.
    pub kind: [u8; 2],
}

/// Names a payment as its acquirer does: by fields 32, 41 and 37. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

impl Keys {
    /// The class of a message and whether it asks or tells: the same for a repeat.
    pub(crate) const fn kind_of(mti: Mti) -> [u8; 2] {
        [mti.class as u8, mti.function as u8]
    }

    /// The id of the message: its own time, and 74 bits of a keyed hash. None if field 7 is no date.
    #[must_use]
    pub fn id(&self, key: &[u8; 32], now: Time) -> Option<Id> {
        let at = calendar::moment(self.sent, now)?;
        let acquirer = self.acquirer.to_be_bytes();
        Some(Id::from_parts(
            at,
            hash(key, b"message", &[&acquirer, &self.terminal, &self.trace, &self.sent, &self.kind]),
        ))
    }
}

impl Handle {
    /// The handle of these fields.
    #[must_use]
    pub fn new(key: &[u8; 32], acquirer: u64, terminal: [u8; 8], reference: [u8; 12]) -> Self {
        let hash = hash(key, b"handle ", &[&acquirer.to_be_bytes(), &terminal, &reference]);
        // The upper half; 0 means none where locks carry it.
        let [a, b, c, d, e, f, g, h, ..] = hash.to_be_bytes();
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
    }
}

/// A request that serves a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    /// The lock in the so-manieth partition of a route.
    Lock = 1,
    /// The capture that cannot be declined.
    Advice = 2,
    /// The so-manieth attempt at an increase.
    Increase = 3,
    /// A lower total of a lock.
    Decrease = 4,
    /// A capture of a lock taken back.
    Reverse = 5,
    /// The so-manieth attempt at a part of a capture given back.
    Refund = 6,
    /// A look-up; its id is for matching alone.
    Lookup = 7,
    /// A lock given back.
    Release = 8,
    /// The so-manieth attempt at taking an increase back.
    Lower = 9,
    /// Spent to remember that a reversal did not find its original.
    Mistaken = 10,
}

/// The id of a part of the work for the message with this id, of the message's own time. The number tells parts of a kind apart: it
/// is that of a place or an attempt, or the id of the lock that it is about. The first lock has the message's own id. Whatever changes
/// a lock may come late, and lasts.
pub(crate) fn part(key: &[u8; 32], message: Id, part: Part, number: u128) -> Id {
    if part == Part::Lock && number == 0 {
        return message;
    }
    let pieces: [&[u8]; 3] = [&message.0.to_be_bytes(), &[part as u8], &number.to_be_bytes()];
    let id = Id::from_parts(message.time(), hash(key, b"part   ", &pieces));
    if matches!(part, Part::Lock | Part::Lookup) { id } else { id.lasting() }
}

/// Pieces of fixed lengths, so that no two inputs look the same.
fn hash(key: &[u8; 32], purpose: &[u8; 7], pieces: &[&[u8]]) -> u128 {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(purpose);
    for piece in pieces {
        hasher.update(piece);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NOW: Time = Time::from_secs(1_700_000_000);

    fn keys() -> Keys {
        Keys { acquirer: 123, terminal: *b"TERM0001", trace: *b"000001", sent: *b"1114221320", kind: [1, 0] }
    }

    #[test]
    fn an_id_depends_on_every_key_and_on_nothing_else() {
        let id = keys().id(&KEY, NOW).unwrap();
        assert!(id.is_uuid_v7());
        assert_eq!(id.time(), NOW);
        assert_eq!(keys().id(&KEY, NOW.plus(Time::from_secs(86_400))), Some(id), "also a day later");
        let others = [
            Keys { acquirer: 124, ..keys() },
            Keys { terminal: *b"TERM0002", ..keys() },
            Keys { trace: *b"000002", ..keys() },
            Keys { sent: *b"1114221321", ..keys() },
            Keys { kind: [1, 2], ..keys() },
            Keys { kind: [2, 0], ..keys() },
        ];
        for other in others {
            assert_ne!(other.id(&KEY, NOW), Some(id), "{other:?}");
        }
        assert_ne!(keys().id(&[8; 32], NOW), Some(id));
        assert_eq!(Keys { sent: *b"1399000000", ..keys() }.id(&KEY, NOW), None);
    }

    #[test]
    fn parts_have_ids_of_their_own() {
        let message = keys().id(&KEY, NOW).unwrap();
        let id = |part, number| super::part(&KEY, message, part, number);
        assert_eq!(id(Part::Lock, 0), message);
        let ids = [id(Part::Lock, 1), id(Part::Lock, 2), id(Part::Advice, 0), id(Part::Reverse, 0), message];
        for (at, one) in ids.iter().enumerate() {
            assert_eq!((one.is_lasting(), one.time()), (at == 2 || at == 3, NOW));
            assert!(one.is_lasting() != one.is_uuid_v7());
            assert!(!ids[..at].contains(one));
        }
        let handle = Handle::new(&KEY, 123, *b"TERM0001", *b"REF000000001");
        assert_ne!(handle, Handle::new(&KEY, 123, *b"TERM0001", *b"REF000000002"));
        assert_ne!(handle, Handle::new(&KEY, 124, *b"TERM0001", *b"REF000000001"));
    }
}
