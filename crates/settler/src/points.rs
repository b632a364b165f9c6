//! The moments between which a settler may be killed. Tests stop it at each of them; nothing else looks.

/// Something has just become durable, or has just left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// A batch is sealed, in memory alone.
    Sealing,
    /// The sealed batch is in the log.
    Sealed,
    /// A transaction is signed, in memory alone.
    Signing,
    /// The attempt is in the log.
    Signed,
    /// A transaction was handed to a node.
    Sent,
    /// That a batch is final is in the log.
    Final,
    /// The engine was told of a partition's part of a final batch.
    Told,
    /// That a batch is booked is in the log.
    Booked,
    /// A snapshot is on the disk.
    Snapshot,
    /// One entry stands for all of the log, in memory alone.
    Folding,
    /// The log has that one entry.
    Folded,
    /// A deposit was credited.
    Credited,
    /// That a withdrawal or a deficit will be asked for is in the log.
    Noted,
    /// It was asked for.
    Asked,
    /// Its answer is in the log.
    Answered,
}

impl Point {
    /// Every one.
    pub const ALL: [Self; 15] = [
        Self::Sealing,
        Self::Sealed,
        Self::Signing,
        Self::Signed,
        Self::Sent,
        Self::Final,
        Self::Told,
        Self::Booked,
        Self::Snapshot,
        Self::Folding,
        Self::Folded,
        Self::Credited,
        Self::Noted,
        Self::Asked,
        Self::Answered,
    ];
}

/// Says at each point whether to go on.
pub type Witness = Box<dyn FnMut(Point) -> bool + Send>;
