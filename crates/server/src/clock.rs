//! The one place that asks the system for the time; what the engine makes of it is [`engine::clock`].

use engine::clock::Readings;
use rustix::time::{ClockId, clock_gettime};
use surety_protocol::Time;

/// Reads both clocks.
#[must_use]
pub fn readings() -> Readings {
    Readings { wall: read(ClockId::Realtime), boot: boot_now() }
}

/// Time since the machine started.
#[must_use]
pub(crate) fn boot_now() -> Time {
    read(ClockId::Boottime)
}

fn read(clock: ClockId) -> Time {
    let at = clock_gettime(clock);
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(at.tv_nsec).unwrap_or(0);
    Time::from_secs(seconds).plus(Time(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_has_both_clocks() {
        let first = readings();
        assert!(first.wall > Time::from_secs(1_700_000_000) && first.boot > Time::ZERO);
        assert!(boot_now() >= first.boot);
    }
}
