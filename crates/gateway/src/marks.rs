//! A bound on what reversals of unknown payments leave behind.
//!
//! Each spends ids that the engine keeps for seven days, against the tenant's quota of advices: without a bound one link could use all
//! of it up with reversals of what never was, and shut the tenant's other links out.

use surety_protocol::Time;

const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;
/// Seven whole days and the one that has begun.
const DAYS: usize = 8;

/// How many such reversals there were, by days.
#[derive(Debug)]
pub(crate) struct Marks {
    max: u64,
    today: u64,
    /// By day, the number of which taken modulo this length.
    counts: [u64; DAYS],
}

impl Marks {
    pub(crate) const fn new(max: u64) -> Self {
        Self { max, today: 0, counts: [0; DAYS] }
    }

    /// Counts one, unless there are too many.
    pub(crate) fn take(&mut self, now: Time) -> bool {
        let day = now.0 / DAY_NS;
        // A clock that goes back stays on its day.
        for begun in (self.today + 1..=day).rev().take(DAYS) {
            self.counts[slot(begun)] = 0;
        }
        self.today = day.max(self.today);
        let has_room = self.counts.iter().sum::<u64>() < self.max;
        self.counts[slot(self.today)] += u64::from(has_room);
        has_room
    }
}

fn slot(day: u64) -> usize {
    usize::try_from(day % DAYS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_week_counts_no_more() {
        let mut marks = Marks::new(3);
        let mut check =
            |day: u64, expect: bool| assert_eq!(marks.take(Time(day * DAY_NS)), expect, "day {day}");
        for (day, expect) in [(100, true), (102, true), (102, true), (102, false), (107, false), (108, true)]
        {
            check(day, expect);
        }
        for (day, expect) in
            [(107, false), (109, false), (110, true), (110, true), (110, false), (5000, true)]
        {
            check(day, expect);
        }
        assert!(!Marks::new(0).take(Time(0)));
    }
}
