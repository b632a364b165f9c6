//! Cores, memory and time of this process. What the machine is, and how quiet, is `loadtest::machine`'s to say.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

/// Binds the calling thread to one core.
pub fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core % cores_available());
    // A machine that forbids it measures without: the figures are then merely noisier.
    let _ = sched_setaffinity(None, &cores);
}

/// Cores that this process may use.
#[must_use]
pub fn cores_available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Memory of this process in bytes, as the system counts it.
#[must_use]
pub fn resident_bytes() -> u64 {
    resident_bytes_of(std::process::id())
}

/// Memory of a process in bytes, as the system counts it.
#[must_use]
pub fn resident_bytes_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Runs `work` on a thread of its own, bound to a core.
///
/// # Panics
/// If `work` panics.
pub fn on_core<T: Send>(core: usize, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(move || {
                pin(core);
                work()
            })
            .join()
            .expect("a measuring thread does not panic")
    })
}

/// How long a call takes.
pub fn time<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
