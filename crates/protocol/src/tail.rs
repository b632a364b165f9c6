//! The change stream: a shard's records, in order, as far as they are synced.

use rkyv::{Archive, Deserialize, Serialize};

use crate::archive;
use crate::{Epoch, FrameError, FrameKind, Seq, ShardId};

/// Bytes of a subscription.
pub const SUBSCRIBE_BYTES: usize = 16;
/// Bytes before the records of a tail frame.
pub const TAIL_HEAD_BYTES: usize = 32;

/// Asks for the change stream of a shard, on a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Subscribe {
    /// The first seq wanted; 0 and 1 both mean the beginning.
    pub from: Seq,
    /// Which shard: the one behind the port.
    pub shard: ShardId,
    /// Zero.
    pub reserved: [u8; 2],
    /// The epoch of the record before `from` as the reader has it; 0 if it does not know, [`Cursor::ANEW`] if it has read nothing
    /// before.
    pub epoch: Epoch,
}

/// Where a reader of a shard's change stream stands. To be kept together with what was made of the records before it.
///
/// A seq alone does not name a record: an engine that goes on from a backup gives the seqs that were lost to other records. Epoch
/// and seq together do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next seq that is wanted.
    pub next: Seq,
    /// The epoch of the record before it; 0 if that is not known, [`Cursor::ANEW`] if the reader has nothing of what is before.
    pub epoch: Epoch,
}

impl Cursor {
    /// Stands for the epoch where the reader has read nothing before: then there is nothing to compare.
    pub const ANEW: Epoch = Epoch(u32::MAX);

    /// Of a reader that begins here, wherever that is.
    #[must_use]
    pub const fn anew(next: Seq) -> Self {
        Self { next, epoch: Self::ANEW }
    }
}

impl From<Seq> for Cursor {
    /// A cursor from before cursors knew epochs.
    fn from(next: Seq) -> Self {
        Self { next, epoch: Epoch(0) }
    }
}

/// How a tail frame is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TailStatus {
    /// Consecutive records from `first` on; none at all in a heartbeat.
    Records = 0,
    /// The wanted seq is gone. `first` is the oldest that is left; the stream ends.
    Lost = 1,
    /// The wanted seq lies past the synced mark by more than one: the cursor belongs to another history. The stream ends.
    Ahead = 2,
    /// The record before the wanted seq is not the one that the reader has, or nobody can tell that it is: the engine goes on from
    /// a backup, and what the reader has from `first` on, at the latest, was lost here. The stream ends.
    Parted = 3,
}

/// The first 32 bytes of a tail frame.
///
/// The records of a frame are consecutive. A reader that sees only its own tenant's records gets frames with gaps between
/// them; `through` tells how far the stream has been read for it, so that is the cursor to come back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TailHead {
    /// Seq of the first record in the frame.
    pub first: Seq,
    /// Everything up to here has been delivered or is not for this reader.
    pub through: Seq,
    /// The epoch of the record `through` and of all records of the frame; 0 if it was never noted, or there is none.
    pub epoch: Epoch,
    /// Which shard.
    pub shard: ShardId,
    /// A [`TailStatus`].
    pub status: u8,
    /// Zero.
    pub reserved: [u8; 9],
}

const _: () = assert!(size_of::<ArchivedSubscribe>() == SUBSCRIBE_BYTES);
const _: () = assert!(size_of::<ArchivedTailHead>() == TAIL_HEAD_BYTES);

impl Subscribe {
    /// Writes the body of a subscribe frame.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SUBSCRIBE_BYTES] {
        archive::write(self)
    }

    /// Reads the body of a subscribe frame.
    ///
    /// # Errors
    /// [`FrameError::Body`] if the length is wrong, [`FrameError::Padding`] if a reserved byte is not zero.
    pub fn from_body(body: &[u8]) -> Result<Self, FrameError> {
        let subscribe: Self = archive::read(body).ok_or(FrameError::Body(FrameKind::Subscribe))?;
        if subscribe.reserved == [0; 2] { Ok(subscribe) } else { Err(FrameError::Padding) }
    }
}

impl TailHead {
    /// Writes the first bytes of a tail frame's body.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TAIL_HEAD_BYTES] {
        archive::write(self)
    }

    /// Reads the first bytes of a tail frame's body, and tells how to read the rest.
    ///
    /// # Errors
    /// [`FrameError::Body`] if length or status are wrong, [`FrameError::Padding`] if a reserved byte is not zero.
    pub fn from_slice(bytes: &[u8]) -> Result<(Self, TailStatus), FrameError> {
        let wrong = FrameError::Body(FrameKind::Records);
        let head: Self = archive::read(bytes).ok_or(wrong)?;
        if head.reserved != [0; 9] {
            return Err(FrameError::Padding);
        }
        let status = match head.status {
            0 => TailStatus::Records,
            1 => TailStatus::Lost,
            2 => TailStatus::Ahead,
            3 => TailStatus::Parted,
            _ => return Err(wrong),
        };
        Ok((head, status))
    }
}
