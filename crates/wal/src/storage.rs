//! What the log needs of a disk: a flat directory of named files.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use surety_protocol::Seq;

/// Bytes that a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// A file of a shard's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// A segment of the log.
    Segment {
        /// The first seq in it.
        first_seq: Seq,
    },
    /// A segment in reserve: preallocated, all zeros, without a place in the log yet.
    Reserve {
        /// A running number.
        number: u64,
    },
    /// The guard ring.
    Guard,
    /// A finished snapshot.
    Snapshot {
        /// The last record included.
        seq: Seq,
    },
    /// A snapshot in the making.
    SnapshotTemp {
        /// The last record included.
        seq: Seq,
    },
}

impl FileName {
    /// Reads a name as [`fmt::Display`] writes it; none for files that are not ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let parsed = match name {
            "guard.ring" => Self::Guard,
            _ => Self::parse_numbered(name)?,
        };
        (format!("{parsed}") == name).then_some(parsed)
    }

    fn parse_numbered(name: &str) -> Option<Self> {
        let number = |digits: &str| digits.parse::<u64>().ok();
        if let Some(digits) = name.strip_suffix(".snapshot.tmp") {
            return Some(Self::SnapshotTemp { seq: Seq(number(digits)?) });
        }
        if let Some(digits) = name.strip_suffix(".snapshot") {
            return Some(Self::Snapshot { seq: Seq(number(digits)?) });
        }
        let stem = name.strip_suffix(".wal")?;
        match stem.strip_prefix("reserve-") {
            Some(digits) => Some(Self::Reserve { number: number(digits)? }),
            None => Some(Self::Segment { first_seq: Seq(number(stem)?) }),
        }
    }

    /// The name as a string.
    #[must_use]
    pub fn to_text(self) -> String {
        format!("{self}")
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment { first_seq } => write!(f, "{:020}.wal", first_seq.0),
            Self::Reserve { number } => write!(f, "reserve-{number:020}.wal"),
            Self::Guard => f.write_str("guard.ring"),
            Self::Snapshot { seq } => write!(f, "{:020}.snapshot", seq.0),
            Self::SnapshotTemp { seq } => write!(f, "{:020}.snapshot.tmp", seq.0),
        }
    }
}

/// The files of one shard.
///
/// What was written counts as durable only after [`Storage::sync`] of its file, what was created, renamed or removed
/// only after [`Storage::sync_directory`]. An error of a write or a sync leaves the file in an unknown state: the caller
/// stops, it never repeats the call.
pub trait Storage {
    /// What may go wrong: an input/output error that names its file and operation.
    type Error: core::error::Error + Send + Sync + 'static;

    /// The names of all files that are ours, in any order.
    fn list(&self) -> Result<Vec<FileName>, Self::Error>;

    /// Creates a file of `bytes` zeros, preallocated, or empties the one that is there. Synced, though its name is not.
    fn create(&mut self, name: FileName, bytes: u64) -> Result<(), Self::Error>;

    /// Length of a file in bytes.
    fn len(&self, name: FileName) -> Result<u64, Self::Error>;

    /// Fills `buffer` from `offset`; an error if the file ends before.
    fn read_at(&self, name: FileName, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes all of `bytes` at `offset`; the file grows if it must.
    fn write_at(&mut self, name: FileName, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Makes what was written to a file durable, and lets the next read come from the disk.
    fn sync(&mut self, name: FileName) -> Result<(), Self::Error>;

    /// Makes all names durable.
    fn sync_directory(&mut self) -> Result<(), Self::Error>;

    /// Renames a file, over the target if there is one.
    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), Self::Error>;

    /// Removes a file.
    fn remove(&mut self, name: FileName) -> Result<(), Self::Error>;

    /// Writes and makes durable in one step, where the disk can do so.
    fn write_synced(&mut self, name: FileName, offset: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        self.write_at(name, offset, bytes)?;
        self.sync(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (name, text) in [
            (FileName::Segment { first_seq: Seq(1) }, "00000000000000000001.wal"),
            (FileName::Segment { first_seq: Seq(u64::MAX) }, "18446744073709551615.wal"),
            (FileName::Reserve { number: 7 }, "reserve-00000000000000000007.wal"),
            (FileName::Guard, "guard.ring"),
            (FileName::Snapshot { seq: Seq(12) }, "00000000000000000012.snapshot"),
            (FileName::SnapshotTemp { seq: Seq(12) }, "00000000000000000012.snapshot.tmp"),
        ] {
            assert_eq!(name.to_text(), text);
            assert_eq!(FileName::parse(text), Some(name));
        }
        for other in ["", "1.wal", "+0000000000000000001.wal", "LOCK", "reserve-1.wal", "x.snapshot", ".tmp"]
        {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }
}
