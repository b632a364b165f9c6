//! Cores, memory and time of this process. What the machine is, and how quiet, is `loadtest::machine`'s to say.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::figures::{Latency, Recorder};

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
    kib_of(&format!("/proc/{process}/status"), "VmRSS:") * 1024
}

/// Its part of that memory: what it shares with others, the program's own pages first of all, counts for each of them by their number.
#[must_use]
pub fn proportional_bytes_of(process: u32) -> u64 {
    kib_of(&format!("/proc/{process}/smaps_rollup"), "Pss:") * 1024
}

fn kib_of(file: &str, name: &str) -> u64 {
    let said = std::fs::read_to_string(file).unwrap_or_default();
    let kib = said.lines().find_map(|line| line.strip_prefix(name));
    kib.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Processes that a process has started, and that have not ended.
#[must_use]
pub fn children_of(process: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| parent_of(*number) == Some(process)).collect()
}

fn parent_of(process: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Time that threads of this process whose names begin so have had on the cores, from the scheduler's own count.
#[must_use]
pub fn cpu_of_threads(prefix: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ns: u64 = tasks
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with(prefix))
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(ns)
}

/// Bytes that this process has had written to the disk.
#[must_use]
pub fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
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

/// How late two threads are that do nothing but wait for the next tenth of a millisecond, one on each core that a run takes: what the machine
/// alone does to whoever measures. The moments are fixed beforehand, as those of an open loop are, so that one long pause counts for all
/// that it delays; and both cores are busy, since some machines take time away only then.
#[must_use]
pub fn jitter(lasting: Duration) -> Latency {
    let on = |core| on_core(core, || lateness(lasting));
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| on(crate::locks::SHARD_CORE));
        let mut recorder = on(crate::locks::CLIENT_CORE);
        recorder.merge(&beside.join().expect("a measuring thread does not panic"));
        recorder.latency()
    })
}

fn lateness(lasting: Duration) -> Recorder {
    let mut recorder = Recorder::default();
    let start = Instant::now();
    let mut due = start;
    while due < start + lasting {
        due += Duration::from_micros(100);
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        recorder.add(due.elapsed());
    }
    recorder
}

/// How long a call takes.
pub fn time<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_children_of_a_process_are_found() {
        let own = std::process::id();
        assert!(resident_bytes() > 0 && proportional_bytes_of(own) > 0);
        assert!(proportional_bytes_of(own) <= 2 * resident_bytes_of(own));
        assert_eq!((resident_bytes_of(u32::MAX), proportional_bytes_of(u32::MAX)), (0, 0));
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(children_of(own).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children_of(own).contains(&child.id()));
    }
}
