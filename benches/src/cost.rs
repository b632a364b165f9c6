//! What a packed request costs besides time: memory asked for, calls of the kernel, changes of threads. The engine runs in a process of its own, so
//! that nothing of the client's is counted.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use server::Durability;
use surety_protocol::Roles;

use crate::locks::{Bench, CLIENT_CORE, Packed, Setting, Until, identity, packed_load};
use crate::mix::TENANT;

/// What each request of a full link costs the engine's process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// How often memory is asked for.
    pub allocations: f64,
    /// Calls of the kernel; `None` without `perf`.
    pub syscalls: Option<f64>,
    /// How often a thread goes to sleep.
    pub sleeps: f64,
}

/// How long `perf` may take until it counts.
const PERF_BEGINS: Duration = Duration::from_secs(2);

/// An engine in a process of its own.
struct Engine {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
    pki: PathBuf,
}

/// Is the engine's process: serves until its input ends, and answers each line of it with the count of requests for memory so far.
///
/// # Errors
/// If the engine does not start.
pub fn serve(directory: &Path) -> anyhow::Result<()> {
    let bench = Bench::start(directory, Setting { reserve_locks: 1 << 22, ..Setting::new(Durability::Os) })?;
    println!("{} {}", bench.address(), bench.pki().display());
    for line in std::io::stdin().lines() {
        let _order = line?;
        println!("{}", memory::requests());
    }
    Ok(())
}

/// Measures. `serve` is an argument of this executable that has it call [`serve`] with the directory that follows.
///
/// # Errors
/// If the engine does not start, or a request is not approved.
pub fn measure(directory: &Path, serve: &str, lasting: Duration) -> anyhow::Result<Cost> {
    let mut engine = Engine::start(directory, serve)?;
    let packed = |lasting| Packed::new(CLIENT_CORE, 16, 64, Until::Elapsed(lasting));
    // Whatever is there once and for all is there.
    engine.load(packed(lasting / 2))?;
    let (memory, sleeps) = (engine.memory_requests()?, engine.sleeps());
    let requests = engine.load(packed(lasting))?.requests as f64;
    let allocations = (engine.memory_requests()? - memory) as f64 / requests;
    let sleeps = engine.sleeps().saturating_sub(sleeps) as f64 / requests;
    // `perf` takes a while to begin; the load is there before and after it counts.
    let syscalls = engine.syscalls(packed(2 * lasting + PERF_BEGINS), lasting)?;
    Ok(Cost { allocations, syscalls, sleeps })
}

impl Engine {
    fn start(directory: &Path, serve: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([serve.as_ref(), directory.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().context("the engine has an output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let (address, pki) = line.trim_end().split_once(' ').context("the engine did not start")?;
        let (address, pki) = (address.parse()?, PathBuf::from(pki));
        Ok(Self { child, orders, answers, address, pki })
    }

    fn load(&self, packed: Packed) -> anyhow::Result<crate::locks::Throughput> {
        packed_load(self.address, identity(&self.pki, TENANT, Roles::AUTHORIZER)?, packed)
    }

    fn memory_requests(&mut self) -> anyhow::Result<u64> {
        let orders = self.orders.as_mut().context("the engine listens")?;
        orders.write_all(b"\n")?;
        orders.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().parse()?)
    }

    /// How often its threads have gone to sleep.
    fn sleeps(&self) -> u64 {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).ok();
        let sleeps = |status: String| {
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        };
        tasks.filter_map(status).filter_map(sleeps).sum()
    }

    /// Calls of the kernel for each request, as `perf` counts them in the middle of a load.
    fn syscalls(&self, packed: Packed, lasting: Duration) -> anyhow::Result<Option<f64>> {
        std::thread::scope(|scope| {
            let load = scope.spawn(|| self.load(packed));
            std::thread::sleep(lasting / 4);
            let counted = Command::new("perf")
                .args(["trace", "-s", "-p", &self.child.id().to_string(), "--", "sleep"])
                .arg(lasting.as_secs_f64().to_string())
                .output();
            let load = load.join().expect("a client does not panic")?;
            let calls = match counted {
                Ok(output) => calls_of(&String::from_utf8_lossy(&output.stderr)),
                Err(_) => 0,
            };
            if calls == 0 {
                eprintln!(
                    "SKIPPED: calls of the kernel: `perf trace` is not here, or may not (Debian: linux-perf)"
                );
                return Ok(None);
            }
            let requests = load.per_s * lasting.as_secs_f64();
            ensure!(requests > 0.0, "nothing was answered");
            Ok(Some(calls as f64 / requests))
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

/// The calls of a summary of `perf trace -s`: name, calls, errors, then five numbers of time.
fn calls_of(summary: &str) -> u64 {
    let row = |line: &str| {
        let mut columns = line.split_whitespace();
        let (_name, calls) = (columns.next()?, columns.next()?.parse::<u64>().ok()?);
        columns.next()?.parse::<u64>().ok()?;
        columns.next()?.parse::<f64>().ok()?;
        Some(calls)
    };
    summary.lines().filter_map(row).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_a_summary() {
        let summary = " Summary of events:\n\n shard-0 (77), 24 events, 80.0%\n\n\
            \x20  syscall            calls  errors  total       min       avg       max       stddev\n\
            \x20                                     (msec)    (msec)    (msec)    (msec)        (%)\n\
            \x20  --------------- --------  ------ -------- --------- --------- ---------     ------\n\
            \x20  epoll_wait             9      1   1.000     0.001     0.002     0.003      4.00%\n\
            \x20  sendmsg                3      0   1.000     0.001     0.002     0.003      4.00%\n";
        assert_eq!(calls_of(summary), 12);
        assert_eq!(calls_of(""), 0);
    }
}
