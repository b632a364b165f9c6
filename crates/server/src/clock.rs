//! The one place that asks the system for the time; what the engine makes of it is [`engine::clock`].

use std::time::SystemTime;

use engine::clock::Readings;
use rustix::time::{ClockId, clock_gettime};
use surety_protocol::Time;

/// Reads both clocks.
#[must_use]
pub fn readings() -> Readings {
    Readings { wall: wall_now(), boot: boot_now() }
}

/// Time since the Unix epoch, by the C library: so a test can shift it for one process.
fn wall_now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time::from_secs(since.as_secs()).plus(Time(since.subsec_nanos().into()))
}

/// Time since the machine started.
#[must_use]
pub(crate) fn boot_now() -> Time {
    let at = clock_gettime(ClockId::Boottime);
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
