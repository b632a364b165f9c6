//! Cores and panics: where a thread runs, and what its end means.

use std::io::Write as _;

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

/// Starts a task of the calling shard's thread. A panic in it ends the process: the runtime would keep it to itself, and
/// the shard would go on without the task.
pub(crate) fn spawn_task(task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(async {
        let _guard = AbortOnPanic;
        task.await;
    });
}

/// Aborts the process when the thread that holds it panics: a shard that has lost its way must not answer, and the others
/// must not go on as if it were there.
#[derive(Debug)]
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
        let _ = writeln!(std::io::stderr(), "surety: {why}; aborting");
    }
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Set in the process that is to end.
    const CHILD: &str = "SURETY_TEST_PANIC_IN_A_TASK";
    /// `SIGABRT`.
    const ABORTED: i32 = 6;

    #[test]
    fn a_panic_in_a_task_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            return panic_in_a_task();
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "threads::tests::a_panic_in_a_task_ends_the_process", "--nocapture"]);
        let output = child.env(CHILD, "1").output().unwrap();
        assert_eq!(output.status.signal(), Some(ABORTED), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("a thread panicked; aborting"), "{said}");
    }

    fn panic_in_a_task() {
        let options = tokio::runtime::LocalOptions::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(options).unwrap();
        runtime.block_on(async {
            spawn_task(async { panic!("as the test wants it") });
            tokio::task::yield_now().await;
        });
    }
}
