//! Waiting for the moment of the next payment, to some microseconds, without keeping a core busy meanwhile.

use std::io;
use std::time::{Duration, Instant};

/// Wakes a task at a moment. The runtime's own timers have a grain of a millisecond, within which a generator would have to spin, and take
/// from the engine beside it the core that it measures.
#[derive(Debug)]
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: tokio::net::unix::pipe::Receiver,
}

/// Below this, being woken takes longer than what is left: it is waited out. Never early: a payment that began before its moment would be
/// told as faster than it was.
const NEAR: Duration = Duration::from_micros(5);

fn wait_out(moment: Instant) {
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// # Errors
    /// The system gives no timer.
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // It is no pipe, but read like one; what the runtime has for any descriptor at all wants `unsafe`.
        Ok(Self { timer: tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(timer)? })
    }

    /// Comes back at the moment, or a little later.
    ///
    /// # Errors
    /// The timer cannot be used any more.
    pub(crate) async fn wait_until(&self, moment: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left <= NEAR {
                wait_out(moment);
                return Ok(());
            }
            let value = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.timer.readable().await?;
            // What it tells is how often it has gone off; reading it is what makes it silent.
            match self.timer.try_read(&mut [0; 8]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// # Errors
    /// None here.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Comes back at the moment, or a little later: the last two milliseconds by giving way, since the runtime's timers are no finer.
    ///
    /// # Errors
    /// None here.
    pub(crate) async fn wait_until(&self, moment: Instant) -> io::Result<()> {
        const GRAIN: Duration = Duration::from_millis(2);
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left <= NEAR {
                wait_out(moment);
                return Ok(());
            }
            match left.checked_sub(GRAIN) {
                Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
                _ => tokio::task::yield_now().await,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_goes_off_at_its_moments_and_never_before() {
        let alarm = Alarm::new().unwrap();
        for us in [0, 3, 150, 400, 2_500, 1] {
            let moment = Instant::now() + Duration::from_micros(us);
            alarm.wait_until(moment).await.unwrap();
            assert!(Instant::now() >= moment, "{us} us");
        }
        alarm.wait_until(Instant::now() - Duration::from_millis(1)).await.unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_it_usable() {
        let alarm = Alarm::new().unwrap();
        let far = Instant::now() + Duration::from_secs(3600);
        assert!(tokio::time::timeout(Duration::from_millis(1), alarm.wait_until(far)).await.is_err());
        let near = Instant::now() + Duration::from_millis(1);
        alarm.wait_until(near).await.unwrap();
        assert!(Instant::now() >= near);
    }
}
