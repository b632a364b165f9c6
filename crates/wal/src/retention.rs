//! Which segments and snapshots there are, and which of them may go.

use alloc::vec::Vec;

use surety_protocol::limits::SNAPSHOTS_KEPT;
use surety_protocol::{Seq, sabotage};

use crate::{FileName, Identity, SnapshotError, Storage, verify_snapshot};

/// The seqs of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSpan {
    /// Its first seq, and its name.
    pub first_seq: Seq,
    /// Its last seq; none while it is the last segment.
    pub last_seq: Option<Seq>,
}

impl SegmentSpan {
    /// Spans of segments from their names, which are sorted.
    pub(crate) fn from_names(names: &[Seq]) -> Vec<Self> {
        let next = names.iter().skip(1).map(|next| Some(Seq(next.0 - 1))).chain([None]);
        names.iter().zip(next).map(|(&first_seq, last_seq)| Self { first_seq, last_seq }).collect()
    }

    /// The segment's file.
    #[must_use]
    pub const fn file(&self) -> FileName {
        FileName::Segment { first_seq: self.first_seq }
    }
}

/// What may be removed; segments oldest first, so that what is left is never broken by a crash in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Segments.
    pub segments: Vec<FileName>,
    /// Snapshots.
    pub snapshots: Vec<FileName>,
}

/// Decides what may be removed. The snapshots are those of [`sound_snapshots`]: one that recovery would skip must not be
/// one of the two that stand for the log.
///
/// Of the snapshots the newest two stay. Of the log everything from the older of these on stays, and everything from
/// `floor` on: the lowest seq that anyone else still needs (last FINAL batch, dedupe window, cursors). The segment that
/// holds the older snapshot's last record stays too, so that recovery can check the snapshot against the chain.
/// With fewer than two snapshots no segment may go.
#[must_use]
pub fn removable(segments: &[SegmentSpan], snapshots: &[Seq], floor: Seq) -> Removal {
    let mut kept = snapshots.to_vec();
    kept.sort_unstable_by(|a, b| b.cmp(a));
    let dropped = kept.split_off(kept.len().min(SNAPSHOTS_KEPT));
    let keep_from = match kept.get(SNAPSHOTS_KEPT - 1) {
        Some(_) if sabotage!("retention-up-to-the-newer-snapshot") => kept[0].min(floor),
        Some(&older) if sabotage!("retention-forgets-the-readers") => older,
        Some(&older) => older.min(floor),
        None => Seq(0),
    };
    let ends_before = |span: &&SegmentSpan| span.last_seq.is_some_and(|last| last < keep_from);
    Removal {
        segments: segments.iter().take_while(ends_before).map(SegmentSpan::file).collect(),
        snapshots: dropped.into_iter().map(|seq| FileName::Snapshot { seq }).collect(),
    }
}

/// The segments on a disk, oldest first.
///
/// # Errors
/// The storage's own.
pub fn list_segments<S: Storage>(storage: &S) -> Result<Vec<SegmentSpan>, S::Error> {
    Ok(SegmentSpan::from_names(&segment_names(&storage.list()?)))
}

/// The finished snapshots on a disk, newest first.
///
/// # Errors
/// The storage's own.
pub fn list_snapshots<S: Storage>(storage: &S) -> Result<Vec<Seq>, S::Error> {
    let snapshot = |name| if let FileName::Snapshot { seq } = name { Some(seq) } else { None };
    let mut seqs: Vec<Seq> = storage.list()?.into_iter().filter_map(snapshot).collect();
    seqs.sort_unstable_by(|a, b| b.cmp(a));
    Ok(seqs)
}

/// The snapshots that count for retention, newest first: the newest two that hold, then all that are older, unread. One
/// that does not hold stays on the disk until two sound ones are newer.
///
/// # Errors
/// The storage's own.
pub fn sound_snapshots<S: Storage>(storage: &mut S, identity: Identity) -> Result<Vec<Seq>, S::Error> {
    let mut sound = Vec::new();
    for seq in list_snapshots(storage)? {
        if sound.len() >= SNAPSHOTS_KEPT {
            sound.push(seq);
            continue;
        }
        match verify_snapshot(storage, FileName::Snapshot { seq }, identity) {
            Ok(_) => sound.push(seq),
            Err(SnapshotError::Io(error)) => return Err(error),
            Err(
                SnapshotError::Damaged { .. } | SnapshotError::Foreign { .. } | SnapshotError::Newer { .. },
            ) => {}
        }
    }
    Ok(sound)
}

/// First seqs of the segments in a listing, ascending.
pub(crate) fn segment_names(names: &[FileName]) -> Vec<Seq> {
    let segment =
        |name: &FileName| if let FileName::Segment { first_seq } = *name { Some(first_seq) } else { None };
    let mut seqs: Vec<Seq> = names.iter().filter_map(segment).collect();
    seqs.sort_unstable();
    seqs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[u64], snapshots: &[u64], floor: u64, segments: &[u64], dropped: &[u64]) {
        let names: Vec<Seq> = names.iter().copied().map(Seq).collect();
        let snapshots: Vec<Seq> = snapshots.iter().copied().map(Seq).collect();
        let removal = removable(&SegmentSpan::from_names(&names), &snapshots, Seq(floor));
        let segments: Vec<FileName> =
            segments.iter().map(|&seq| FileName::Segment { first_seq: Seq(seq) }).collect();
        let dropped: Vec<FileName> =
            dropped.iter().map(|&seq| FileName::Snapshot { seq: Seq(seq) }).collect();
        assert_eq!(removal, Removal { segments, snapshots: dropped });
    }

    #[test]
    fn only_what_nobody_needs_goes() {
        let all = u64::MAX;
        check(&[1, 100, 200, 300], &[], all, &[], &[]);
        check(&[1, 100, 200, 300], &[250], all, &[], &[]);
        check(&[1, 100, 200, 300], &[250, 350], all, &[1, 100], &[]);
        // The segment that holds the snapshot's own record stays.
        check(&[1, 100, 200, 300], &[199, 350], all, &[1], &[]);
        check(&[1, 100, 200, 300], &[200, 350], all, &[1, 100], &[]);
        check(&[1, 100, 200, 300], &[50, 250, 350], all, &[1, 100], &[50]);
        check(&[1, 100, 200, 300], &[350, 50, 250, 20], all, &[1, 100], &[50, 20]);
        // A cursor holds the log, never a snapshot.
        check(&[1, 100, 200, 300], &[50, 250, 350], 150, &[1], &[50]);
        check(&[1, 100, 200, 300], &[50, 250, 350], 0, &[], &[50]);
        // The last segment always stays.
        check(&[1], &[500, 600], all, &[], &[]);
        check(&[], &[], 0, &[], &[]);
    }
}
