//! Log lines that may come for every request: so many of them a second, and how many there would have been.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keeps a kind of log line from filling a disk while an engine is away.
#[derive(Debug)]
pub struct Sparing {
    per_s: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the second that is counted has begun.
    since: Option<Instant>,
    said: u32,
    withheld: u64,
}

impl Sparing {
    /// So many lines a second, at least one.
    #[must_use]
    pub const fn new(per_s: u32) -> Self {
        let state = Mutex::new(State { since: None, said: 0, withheld: 0 });
        Self { per_s: if per_s == 0 { 1 } else { per_s }, state }
    }

    /// Asks for one more line, now. None if it is not to be written; otherwise how many were not since the last one.
    pub fn turn(&self) -> Option<u64> {
        self.turn_at(Instant::now())
    }

    fn turn_at(&self, now: Instant) -> Option<u64> {
        // A panic meanwhile leaves numbers that are as good as any.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new =
            state.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1));
        if is_new {
            (state.since, state.said) = (Some(now), 0);
        }
        if state.said >= self.per_s {
            state.withheld += 1;
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_are_written_and_the_others_counted() {
        let sparing = Sparing::new(2);
        let begun = Instant::now();
        let at = |millis| sparing.turn_at(begun + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(2), at(999)], [Some(0), Some(0), None, None]);
        assert_eq!([at(1_000), at(1_001), at(1_002)], [Some(2), Some(0), None]);
        // A clock never goes back, and threads ask in any order.
        assert_eq!([at(500), at(60_000), at(60_001), at(60_001)], [None, Some(2), Some(0), None]);
    }
}
