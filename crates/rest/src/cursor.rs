//! How far an application has read: one position for each shard, as a text.

use std::fmt;

use surety_client::protocol::Seq;

/// Positions of the last records that were told, by shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor(pub(crate) Vec<Seq>);

impl Cursor {
    /// The beginning.
    pub(crate) fn start(shards: usize) -> Self {
        Self(vec![Seq(0); shards])
    }

    /// Reads a text; shards that it does not name are at their beginning. None if it is no cursor of an engine with so many shards.
    pub(crate) fn parse(text: &str, shards: usize) -> Option<Self> {
        let mut cursor = Self::start(shards);
        for (at, part) in text.split('.').enumerate() {
            let is_number =
                (1..=19).contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_digit());
            let seq = part.parse().ok().filter(|_| is_number)?;
            *cursor.0.get_mut(at)? = Seq(seq);
        }
        Some(cursor)
    }

    /// True if every position is at or behind the other's.
    pub(crate) fn has_reached(&self, other: &[Seq]) -> bool {
        self.0.iter().zip(other).all(|(own, other)| own >= other)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, seq) in self.0.iter().enumerate() {
            write!(f, "{}{seq}", if at > 0 { "." } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back() {
        let cursor = Cursor(vec![Seq(12), Seq(0), Seq(u64::MAX >> 1)]);
        assert_eq!(Cursor::parse(&cursor.to_string(), 3), Some(cursor));
        assert_eq!(Cursor::parse("7", 2), Some(Cursor(vec![Seq(7), Seq(0)])));
        for bad in ["", ".", "1.", "1.2.3", "x", "-1", "+1", "99999999999999999999"] {
            assert_eq!(Cursor::parse(bad, 2), None, "{bad}");
        }
        assert!(Cursor(vec![Seq(2), Seq(2)]).has_reached(&[Seq(2), Seq(1)]));
        assert!(!Cursor(vec![Seq(2), Seq(2)]).has_reached(&[Seq(1), Seq(3)]));
    }
}
