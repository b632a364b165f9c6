//! The time of an engine: never backwards, never faster than the machine's own clock of elapsed time, slowly drawn
//! towards the wall clock.
//!
//! Pure: readings come in as arguments, so that every jump can be a test.

use core::time::Duration;

use surety_protocol::{Time, sabotage};

/// How far time may be drawn towards the wall, in parts per million of the time that has passed.
pub const SLEW_PPM: u64 = 500;

/// Time is drawn towards the wall at most this often.
const SLEW_INTERVAL: Time = Time::from_millis(10);

/// What the system's clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readings {
    /// Time since the Unix epoch; anybody may set it.
    pub wall: Time,
    /// Time since the machine started, sleep included; nobody can set it.
    pub boot: Time,
}

/// The wall clock and the log are too far apart to start without being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the wall clock reads {} s {} the last logged time, {} s are allowed; if the clock is right, accept it with `surety ctl clock accept`",
    gap.as_secs(), if *is_ahead { "after" } else { "before" }, allowed.as_secs()
)]
pub struct ClockGap {
    /// How far apart.
    pub gap: Duration,
    /// True if the wall clock is later.
    pub is_ahead: bool,
    /// How far apart they may be.
    pub allowed: Duration,
}

/// The time of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Readings at the last correction.
    anchor: Time,
    anchor_boot: Time,
    last: Time,
}

impl Clock {
    /// Starts at the later of the last logged time and the wall clock.
    ///
    /// # Errors
    /// [`ClockGap`] if they are further apart than `gap_max`; a log without any time accepts every clock.
    pub fn start(last_logged: Time, readings: Readings, gap_max: Duration) -> Result<Self, ClockGap> {
        let gap = Duration::from_nanos(last_logged.0.abs_diff(readings.wall.0));
        if last_logged > Time::ZERO && gap > gap_max && !sabotage!("starts-by-any-clock") {
            return Err(ClockGap { gap, is_ahead: readings.wall > last_logged, allowed: gap_max });
        }
        let now = last_logged.max(readings.wall);
        Ok(Self { anchor: now, anchor_boot: readings.boot, last: now })
    }

    /// The time at a reading of the boot clock. True beside it if [`Clock::correct`] is due.
    pub fn now(&mut self, boot: Time) -> (Time, bool) {
        let elapsed = boot.minus(self.anchor_boot);
        self.last = self.last.max(self.anchor.plus(elapsed));
        (self.last, elapsed >= SLEW_INTERVAL)
    }

    /// Draws the time towards the wall, by at most [`SLEW_PPM`] of what has passed since the last correction.
    pub fn correct(&mut self, readings: Readings) {
        let elapsed = readings.boot.minus(self.anchor_boot);
        let free = self.anchor.plus(elapsed);
        let most = elapsed.0 / (1_000_000 / SLEW_PPM);
        let most = if sabotage!("clock-jumps-with-the-wall") { u64::MAX } else { most };
        let step = Time(free.0.abs_diff(readings.wall.0).min(most));
        self.anchor = if readings.wall > free { free.plus(step) } else { free.minus(step) };
        self.anchor_boot = self.anchor_boot.max(readings.boot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const T: u64 = 1_700_000_000;
    const GAP: Duration = Duration::from_secs(24 * 3600);

    fn readings(wall_s: u64, boot_s: u64) -> Readings {
        Readings { wall: Time::from_secs(wall_s), boot: Time::from_secs(boot_s) }
    }

    #[test]
    fn a_start_takes_the_later_clock_within_the_gap() {
        let check = |last: u64, wall: u64, expect: Option<u64>| {
            let clock = Clock::start(Time::from_secs(last), readings(wall, 5), GAP);
            assert_eq!(clock.map(|clock| clock.last.0 / 1_000_000_000).ok(), expect, "{last} {wall}");
        };
        check(0, T, Some(T));
        check(T, T, Some(T));
        check(T, T + 3600, Some(T + 3600));
        check(T, T - 3600, Some(T));
        check(T, T + 24 * 3600, Some(T + 24 * 3600));
        check(T, T + 24 * 3600 + 1, None);
        check(T, T - 24 * 3600 - 1, None);
        // Days of downtime, accepted.
        let late = Clock::start(Time::from_secs(T), readings(T + 999_999, 5), Duration::MAX);
        assert_eq!(late.map(|clock| clock.last), Ok(Time::from_secs(T + 999_999)));
    }

    /// Runs a clock through steps of (boot seconds, wall offset in seconds) and returns the offsets of its time from boot.
    fn run(steps: &[(u64, i64)]) -> Vec<i64> {
        let mut clock = Clock::start(Time::ZERO, readings(T, 0), GAP).unwrap();
        let mut before = Time::ZERO;
        let mut offsets = Vec::new();
        for (boot, wall_offset) in steps {
            let boot_time = Time::from_secs(*boot);
            let (now, _) = clock.now(boot_time);
            assert!(now >= before, "time never goes back");
            before = now;
            offsets.push(now.0.cast_signed() - Time::from_secs(T + boot).0.cast_signed());
            let wall = Time::from_secs((T + boot).checked_add_signed(*wall_offset).unwrap());
            clock.correct(Readings { wall, boot: boot_time });
        }
        offsets
    }

    #[test]
    fn jumps_of_the_wall_move_time_by_500_ppm_at_most() {
        const MS: i64 = 1_000_000;
        assert_eq!(run(&[(1, 0), (2, 0), (3, 0)]), [0, 0, 0]);
        // A jump of a day forward: half a millisecond per second.
        assert_eq!(run(&[(1, 86_400), (2, 86_400), (4, 86_400)]), [0, MS / 2, MS]);
        // A jump back, far beyond the start: time goes on, a little slower.
        assert_eq!(run(&[(1, -1_000_000), (2, -1_000_000), (4, 0)]), [0, -MS / 2, -MS]);
        // A boot clock that stood still, or that a migration set back.
        assert_eq!(run(&[(10, 0), (10, 5), (10, 5)]), [0, 0, 0]);
    }

    #[test]
    fn a_refused_clock_is_told_which_side_of_the_log_it_is_on() {
        let gap = |wall| Clock::start(Time::from_secs(T), readings(wall, 5), Duration::ZERO).map(|_| ());
        for (wall, is_ahead) in [(T + 7, true), (T - 7, false)] {
            let expect = ClockGap { gap: Duration::from_secs(7), is_ahead, allowed: Duration::ZERO };
            assert_eq!(gap(wall), Err(expect));
        }
        assert_eq!(gap(T), Ok(()));
    }

    #[test]
    fn a_correction_is_due_every_ten_milliseconds() {
        let mut clock = Clock::start(Time::ZERO, readings(T, 0), GAP).unwrap();
        for (ms, is_due) in [(0, false), (9, false), (10, true), (11, true)] {
            assert_eq!(clock.now(Time::from_millis(ms)).1, is_due, "{ms}");
        }
        let boot = Time::from_millis(11);
        clock.correct(Readings { wall: Time::from_secs(T).plus(boot), boot });
        assert!(!clock.now(Time::from_millis(20)).1);
        assert!(clock.now(Time::from_millis(21)).1);
    }

    #[test]
    fn small_steps_are_corrected_as_large_ones_are() {
        let mut clock = Clock::start(Time::ZERO, readings(T, 0), GAP).unwrap();
        for micros in (0..2_000_000_u64).step_by(700) {
            let boot = Time(micros * 1000);
            let (_, is_due) = clock.now(boot);
            if is_due {
                clock.correct(Readings { wall: Time::from_secs(T + 60).plus(boot), boot });
            }
        }
        let ahead = clock.now(Time::from_secs(2)).0.0 - Time::from_secs(T + 2).0;
        assert!((900_000..=1_000_000).contains(&ahead), "about a millisecond in two seconds: {ahead}");
    }
}
