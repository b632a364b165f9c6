//! What was done, counted.

use super::enumerate::DEPTH_MAX;

/// What was done with one history, or many.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Histories.
    pub histories: u64,
    /// Moments at which the power was cut.
    pub moments: u64,
    /// Those of them of which every way to lose power was tried.
    pub moments_exhaustive: u64,
    /// Recoveries run, each on a disk with a promise that no other recovery of the history had.
    pub states: u64,
    /// Disks that differ in any byte or name, within a history.
    pub states_distinct: u64,
    /// Cuts that led to a disk and promise already seen, and were not run again.
    pub repeats_skipped: u64,
    /// The states by the number of cuts before: one, one during recovery, and so on.
    pub states_by_depth: [u64; DEPTH_MAX + 1],
    /// Recoveries that found a torn tail.
    pub torn: u64,
    /// Recoveries that began with a snapshot.
    pub from_snapshot: u64,
    /// Recoveries that passed over a snapshot.
    pub snapshots_passed_over: u64,
    /// Recoveries that found more than was acked: the block in flight.
    pub with_block_in_flight: u64,
    /// Acked replies that were asked for again and came back the same.
    pub replies_asked_again: u64,
    /// Recoveries that were compared with a reading from the oldest record.
    pub read_both_ways: u64,
    /// The log rolled so often.
    pub rolls: u64,
    /// Snapshots made.
    pub snapshots: u64,
    /// Segments that retention removed.
    pub segments_removed: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.histories, other.histories),
            (&mut self.moments, other.moments),
            (&mut self.moments_exhaustive, other.moments_exhaustive),
            (&mut self.states, other.states),
            (&mut self.states_distinct, other.states_distinct),
            (&mut self.repeats_skipped, other.repeats_skipped),
            (&mut self.torn, other.torn),
            (&mut self.from_snapshot, other.from_snapshot),
            (&mut self.snapshots_passed_over, other.snapshots_passed_over),
            (&mut self.with_block_in_flight, other.with_block_in_flight),
            (&mut self.replies_asked_again, other.replies_asked_again),
            (&mut self.read_both_ways, other.read_both_ways),
            (&mut self.rolls, other.rolls),
            (&mut self.snapshots, other.snapshots),
            (&mut self.segments_removed, other.segments_removed),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum += more);
        for (sum, more) in self.states_by_depth.iter_mut().zip(other.states_by_depth) {
            *sum += more;
        }
    }
}
