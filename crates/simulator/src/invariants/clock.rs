//! The engine's time never goes back, and while it runs it keeps within 500 parts in a million of the time that truly
//! passes: so nothing expires early, and nothing lives for ever.

use surety_protocol::Time;

use super::{Violation, hold};

const NAME: &str = "the clock rule";
/// Parts in a million.
const PPM: u64 = 500;
/// What rounding and the interval of corrections may add.
const SLACK: Time = Time::from_millis(1);

#[derive(Clone, Debug, Default)]
pub(super) struct ClockRule {
    /// At the start of this run: the engine's time, and the time that has truly passed.
    start: (Time, Time),
    last: Time,
}

impl ClockRule {
    pub(super) fn on_clock(&mut self, now: Time, boot: Time, is_start: bool) -> Result<(), Violation> {
        if is_start {
            self.start = (now, boot);
            self.last = now;
            return Ok(());
        }
        hold(NAME, now >= self.last, || format!("back from {:?} to {now:?}", self.last))?;
        self.last = now;
        let passed = boot.minus(self.start.1);
        let shown = now.minus(self.start.0);
        let most = Time(passed.0 / 1_000_000 * PPM).plus(SLACK);
        hold(NAME, shown.0.abs_diff(passed.0) <= most.0, || {
            format!("{passed:?} have passed, the engine says {shown:?}")
        })
    }
}
