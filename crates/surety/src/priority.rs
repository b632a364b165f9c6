//! Work that can wait stands behind an engine on the same machine, which cannot, and leaves it the memory.

use rustix::process::setpriority_process;
use rustix::thread::disable_transparent_huge_pages;

/// Steps of `nice` behind an engine. The kernel takes the class of reads and writes from it.
const BEHIND: i32 = 5;
/// Behind everything: what may take as long as it takes.
const LAST: i32 = 19;
/// What the kernel is told of whom to end first when memory is short, from -1000 to 1000: this rather than an engine.
const OOM_SCORE: &str = "500";

/// Lets this process stand behind every engine, for good: its threads begin with what the first one has.
pub(crate) fn step_back() {
    behind(BEHIND);
}

/// Lets it stand behind everything.
pub(crate) fn come_last() {
    behind(LAST);
}

/// Takes memory in small pages from now on. In large ones a process that has little to do takes 20 MiB and more that it never uses.
pub(crate) fn take_little_memory() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::warn!("memory comes in large pages: {error}");
    }
}

fn behind(nice: i32) {
    if let Err(error) = setpriority_process(None, nice) {
        tracing::warn!("could not step back behind engines on this machine: {error}");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        tracing::warn!("could not be offered to the kernel when memory is short: {error}");
    }
}
