//! Which complete segments wait for the archive, and for how long.

use std::collections::VecDeque;

use surety_protocol::{Seq, Time};
use wal::{FileName, SegmentSpan};

/// The segments between the end of the archive and the end of the log. Times are of the boot clock.
#[derive(Debug, Default)]
pub(super) struct Archiving {
    /// The next one first, each with its last seq and since when it waits.
    waiting: VecDeque<(FileName, Seq, Time)>,
    archived: Seq,
    /// The end of what was complete at the start: most of it is in the archive, and is only held against that. None before the first look.
    at_start: Option<Seq>,
}

impl Archiving {
    /// Notes which segments have become complete. One is complete on the disk only when something behind it is.
    pub(super) fn note_complete(&mut self, segments: Vec<SegmentSpan>, synced: Seq, now: Time) {
        let known = self.waiting.back().map_or(self.archived, |(_, last_seq, _)| *last_seq);
        let complete = segments.into_iter().filter_map(|span| Some((span.file(), span.last_seq?)));
        let new = complete.filter(|(_, last_seq)| *last_seq > known && *last_seq < synced);
        self.waiting.extend(new.map(|(segment, last_seq)| (segment, last_seq, now)));
        let end = self.waiting.back().map_or(self.archived, |(_, last_seq, _)| *last_seq);
        self.at_start.get_or_insert(end);
    }

    /// Notes that the archive has everything up to `seq`. As long as that was complete at the start, the wait of all others begins anew:
    /// to look through a long log takes its time, though nothing of it waits for room or for a store.
    pub(super) fn note_archived(&mut self, seq: Seq, now: Time) {
        self.waiting.retain(|(_, last_seq, _)| *last_seq > seq);
        if self.at_start.is_some_and(|end| self.archived < end) {
            self.waiting.iter_mut().for_each(|(_, _, since)| *since = now);
        }
        self.archived = seq;
    }

    /// The archive has everything up to here.
    pub(super) fn archived(&self) -> Seq {
        self.archived
    }

    /// The segment that is archived next, and its last seq.
    pub(super) fn next(&self) -> Option<(FileName, Seq)> {
        self.waiting.front().map(|&(segment, last_seq, _)| (segment, last_seq))
    }

    /// How long that one has waited: an archive that is slower than the log grows shows in it, too.
    pub(super) fn wait(&self, now: Time) -> Time {
        self.waiting.front().map_or(Time::ZERO, |(_, _, since)| now.minus(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;

    /// Segments of ten records, the last of which is written to.
    fn log(segments: u64) -> Vec<SegmentSpan> {
        let span = |n| SegmentSpan {
            first_seq: Seq(n * 10 + 1),
            last_seq: (n + 1 < segments).then_some(Seq(n * 10 + 10)),
        };
        (0..segments).map(span).collect()
    }

    fn at(minutes: u64) -> Time {
        Time::from_secs(minutes * MINUTE)
    }

    #[test]
    fn what_is_complete_waits_in_its_order_and_no_longer_than_it_is_there() {
        let mut archiving = Archiving::default();
        archiving.note_complete(log(1), Seq(5), at(0));
        assert_eq!((archiving.next(), archiving.wait(at(9))), (None, Time::ZERO));
        // Nothing behind it is on the disk.
        archiving.note_complete(log(2), Seq(10), at(1));
        assert_eq!(archiving.next(), None);
        archiving.note_complete(log(2), Seq(11), at(2));
        archiving.note_complete(log(3), Seq(21), at(5));
        archiving.note_complete(log(3), Seq(25), at(6));
        assert_eq!(archiving.next().map(|(_, last)| last), Some(Seq(10)));
        assert_eq!(archiving.wait(at(8)), at(6));
        archiving.note_archived(Seq(10), at(8));
        assert_eq!((archiving.archived(), archiving.next().map(|(_, last)| last)), (Seq(10), Some(Seq(20))));
        assert_eq!(archiving.wait(at(8)), at(3), "it has waited behind the first");
        archiving.note_archived(Seq(20), at(9));
        assert_eq!((archiving.next(), archiving.wait(at(9))), (None, Time::ZERO));
    }

    #[test]
    fn to_look_through_what_was_there_at_the_start_is_no_wait() {
        let mut archiving = Archiving::default();
        archiving.note_complete(log(5), Seq(45), at(0));
        // Each takes six minutes, and one more is completed meanwhile.
        archiving.note_complete(log(6), Seq(55), at(1));
        for done in 1..=4 {
            assert_eq!(archiving.wait(at(6 * done)), at(6), "{done}");
            archiving.note_archived(Seq(10 * done), at(6 * done));
            assert_eq!(archiving.wait(at(6 * done)), Time::ZERO, "{done}");
        }
        // From here on an archive that is slower than the log shows.
        archiving.note_complete(log(7), Seq(65), at(24));
        archiving.note_archived(Seq(50), at(34));
        assert_eq!(archiving.wait(at(34)), at(10));
    }

    #[test]
    fn an_archive_that_is_down_at_the_start_shows() {
        let mut archiving = Archiving::default();
        archiving.note_complete(log(3), Seq(25), at(0));
        assert_eq!(archiving.wait(at(11)), at(11));
    }
}
