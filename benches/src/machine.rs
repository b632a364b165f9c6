//! The machine at hand: what it is, how quiet it is, and which core a thread runs on.

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

/// Name of processor and kernel.
#[must_use]
pub fn describe() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} x {}, Linux {}", cores_available(), model.trim_start_matches([' ', '\t', ':']), kernel.trim())
}

/// Share of the cores' time that others take, from `/proc/stat` over a quarter of a second in which we sleep.
#[must_use]
pub fn busy_by_others() -> f64 {
    let before = cpu_ticks();
    std::thread::sleep(Duration::from_millis(250));
    let after = cpu_ticks();
    let total = after.0.saturating_sub(before.0).max(1);
    after.1.saturating_sub(before.1) as f64 / total as f64
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

/// Memory of this process in bytes, as the system counts it.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
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
