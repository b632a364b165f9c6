//! How far an application has read: one position for each shard, as a text.
//!
//! Where an engine goes on after a loss, a seq alone does not say which record it is: the life that is lost has used it as well. Such
//! positions carry the epoch of their record.

use std::fmt;

use surety_client::protocol::limits::EPOCH_LEAP;
use surety_client::protocol::{Epoch, Seq};

/// The last record of a shard that was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) seq: Seq,
    /// See [`life_of`].
    pub(crate) life: Epoch,
}

/// What tells a record of an epoch from another one of the same seq: 0 in the epochs before any loss, which leaps far above them.
pub(crate) const fn life_of(epoch: Epoch) -> Epoch {
    if epoch.0 >= EPOCH_LEAP { epoch } else { Epoch(0) }
}

/// Positions of the last records that were told, by shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor(pub(crate) Vec<Position>);

impl Cursor {
    /// The beginning.
    pub(crate) fn start(shards: usize) -> Self {
        Self(vec![Position::default(); shards])
    }

    /// Reads a text; shards that it does not name are at their beginning. None if it is no cursor of an engine with so many shards.
    pub(crate) fn parse(text: &str, shards: usize) -> Option<Self> {
        let mut cursor = Self::start(shards);
        for (at, part) in text.split('.').enumerate() {
            *cursor.0.get_mut(at)? = Position::parse(part)?;
        }
        Some(cursor)
    }

    /// True if every position is at or behind the other's.
    pub(crate) fn has_reached(&self, other: impl IntoIterator<Item = Seq>) -> bool {
        self.seqs().zip(other).all(|(own, other)| own >= other)
    }

    pub(crate) fn seqs(&self) -> impl Iterator<Item = Seq> {
        self.0.iter().map(|position| position.seq)
    }
}

impl Position {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let is_number =
                (1..=19).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| is_number)
        };
        let Some((seq, life)) = text.split_once('-') else {
            return Some(Self { seq: Seq(number(text)?), life: Epoch(0) });
        };
        let life = Epoch(u32::try_from(number(life)?).ok()?);
        (life_of(life) == life && life != Epoch(0)).then_some(Self { seq: Seq(number(seq)?), life })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.life {
            Epoch(0) => write!(f, "{}", self.seq),
            life => write!(f, "{}-{life}", self.seq),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, position) in self.0.iter().enumerate() {
            write!(f, "{}{position}", if at > 0 { "." } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64, life: u32) -> Position {
        Position { seq: Seq(seq), life: Epoch(life) }
    }

    #[test]
    fn cursors_read_back() {
        let cursor = Cursor(vec![at(12, 0), at(0, 0), at(u64::MAX >> 1, 70_000)]);
        assert_eq!(cursor.to_string(), "12.0.9223372036854775807-70000");
        assert_eq!(Cursor::parse(&cursor.to_string(), 3), Some(cursor));
        assert_eq!(Cursor::parse("7", 2), Some(Cursor(vec![at(7, 0), at(0, 0)])));
        let bad = ["", ".", "1.", "1.2.3", "x", "-1", "+1", "99999999999999999999"];
        for bad in bad.iter().chain(&["1-", "1-x", "1-0", "1-5", "1-70000-70000", "1-99999999999"]) {
            assert_eq!(Cursor::parse(bad, 2), None, "{bad}");
        }
        let cursor = Cursor(vec![at(2, 0), at(2, 70_000)]);
        assert!(cursor.has_reached([Seq(2), Seq(1)]));
        assert!(!cursor.has_reached([Seq(1), Seq(3)]));
    }
}
