//! Cores and panics: where a thread runs, and what its end means.

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that the calling thread may run on.
pub(crate) fn allowed_cores() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => Vec::new(),
    }
}

/// Keeps the calling thread on some cores. Where that is not allowed, it runs as before.
pub(crate) fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    if let (false, Err(error)) = (cores.is_empty(), sched_setaffinity(None, &set)) {
        tracing::warn!("a thread could not be pinned: {error}");
    }
}

/// Lets the calling thread step back behind others, by so many steps of `nice`.
pub(crate) fn step_back(nice: i32) {
    // On Linux a process of number 0 means the calling thread alone.
    if let (true, Err(error)) = (nice > 0, setpriority_process(None, nice)) {
        tracing::warn!("a thread could not step back: {error}");
    }
}

/// Aborts the process when the thread that holds it panics: a shard that has lost its way must not answer, and the others
/// must not go on as if it were there.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            abort("a thread panicked");
        }
    }
}

/// Says why, and ends the process at once: no reply leaves, nothing is cleaned up.
pub(crate) fn abort(why: &str) -> ! {
    tracing::error!("{why}; aborting");
    if !tracing::dispatcher::has_been_set() {
        // An embedder may have no log; it must still learn why its process is gone.
        eprintln!("surety: {why}; aborting");
    }
    std::process::abort()
}
