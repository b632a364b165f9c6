//! The machine at hand: what it is, and how quiet it is.

use std::time::{Duration, Instant};

/// How long the machine is watched before a run.
const WATCHED: Duration = Duration::from_millis(250);
/// How many waits the generator's own lateness is taken from.
const WAITS: u32 = 200;
/// How long each of them is.
const WAIT: Duration = Duration::from_millis(1);

/// Processor time that a process has taken, in seconds, over all its threads; none if the system does not say.
#[must_use]
pub fn cpu_s_of(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Its name, which may hold anything, ends with the last bracket.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    #[allow(clippy::cast_precision_loss)] // ticks of a hundredth of a second
    let seconds = (ticks(11)? + ticks(12)?) as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some(seconds)
}

/// That of this process.
#[must_use]
pub fn own_cpu_s() -> Option<f64> {
    cpu_s_of(std::process::id())
}

/// Name of processor and kernel.
#[must_use]
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} x {}, Linux {}", model.trim_start_matches([' ', '\t', ':']), kernel.trim())
}

/// Share of the cores' time that others take, from `/proc/stat` over a quarter of a second in which we sleep.
#[must_use]
pub fn busy_by_others() -> f64 {
    let before = cpu_ticks();
    std::thread::sleep(WATCHED);
    let after = cpu_ticks();
    let total = after.0.saturating_sub(before.0).max(1);
    #[allow(clippy::cast_precision_loss)] // ticks of a quarter of a second
    let share = after.1.saturating_sub(before.1) as f64 / total as f64;
    share
}

/// How late a generator is that has nothing to do: the 99th percentile of its waits, in microseconds. What an engine
/// adds cannot be told apart below it.
#[must_use]
pub fn jitter_p99_us() -> f64 {
    let mut late: Vec<Duration> = (0..WAITS)
        .map(|_| {
            let due = Instant::now() + WAIT;
            while Instant::now() < due {
                std::thread::yield_now();
            }
            due.elapsed()
        })
        .collect();
    late.sort_unstable();
    late[late.len() * 99 / 100].as_secs_f64() * 1e6
}

/// (all, busy) ticks since boot.
fn cpu_ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let idle = fields.get(3).copied().unwrap_or(0) + fields.get(4).copied().unwrap_or(0);
    let all = fields.iter().take(8).sum::<u64>();
    (all, all - idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_grows_with_work() {
        let before = own_cpu_s().unwrap();
        let begun = Instant::now();
        while own_cpu_s().unwrap() < before + 0.02 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no time is counted");
        }
        assert_eq!(cpu_s_of(u32::MAX), None);
    }
}
