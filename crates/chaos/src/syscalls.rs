//! Errors and kills at exact system calls, injected with strace while a load runs.
//!
//! The rules: a failed write or sync of the log ends the process, it is never repeated, and nothing of the block that it
//! was about is acknowledged. What has no room may be done without, unless it is the log itself.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use surety_protocol::ShardId;

use crate::bench::Bench;
use crate::engine::{Started, is_abort, is_kill};
use crate::log_end;
use crate::mounts;
use crate::report::Report;
use crate::strace::{self, Call, Fault, Trace};
use crate::surety::Surety;

/// Faults of one directory; then another one has its turn.
const FAULTS_PER_DIRECTORY: u64 = 10;
/// The smallest: the log rolls every few seconds, which is when files are made and renamed.
const SEGMENT_BYTES: u64 = 512 << 10;
/// Payments under way: few, since every block is traced and all of them are read after each fault.
const IN_FLIGHT: u32 = 16;
/// How long a call is waited for that may never be made.
const PATIENCE: Duration = Duration::from_secs(6);

/// One way to fail: which call of each thread, at most, in which mode.
struct Scenario {
    call: &'static str,
    fault: Fault,
    durability: &'static str,
    io: &'static str,
    when_max: u64,
}

const fn scenario(
    call: &'static str,
    fault: Fault,
    durability: &'static str,
    io: &'static str,
    when_max: u64,
) -> Scenario {
    Scenario { call, fault, durability, io, when_max }
}

const EIO: Fault = Fault::Error("EIO");
const ENOSPC: Fault = Fault::Error("ENOSPC");

const SCENARIOS: &[Scenario] = &[
    scenario("fdatasync", EIO, "fsync", "sync", 200),
    scenario("pwrite64", EIO, "fsync", "direct", 200),
    scenario("fdatasync", Fault::Kill, "fsync", "sync", 200),
    scenario("pwrite64", Fault::Kill, "fsync", "direct", 200),
    scenario("fdatasync", EIO, "os", "sync", 20),
    scenario("pwrite64", ENOSPC, "fsync", "direct", 200),
    scenario("rename", Fault::Kill, "fsync", "sync", 3),
    scenario("fsync", EIO, "fsync", "sync", 6),
    scenario("fallocate", ENOSPC, "fsync", "sync", 3),
    scenario("pwrite64", EIO, "fsync", "sync", 200),
    scenario("fsync", Fault::Kill, "fsync", "direct", 6),
    scenario("rename", EIO, "fsync", "sync", 3),
    scenario("fallocate", Fault::Kill, "fsync", "sync", 3),
    scenario("pwrite64", EIO, "os", "sync", 200),
    scenario("fdatasync", ENOSPC, "fsync", "sync", 200),
    scenario("pwrite64", ENOSPC, "fsync", "sync", 200),
    scenario("fallocate", EIO, "fsync", "direct", 3),
    scenario("pwrite64", Fault::Kill, "os", "sync", 200),
    scenario("fdatasync", EIO, "fsync", "sync", 3),
    scenario("pwrite64", Fault::Kill, "fsync", "sync", 200),
];

/// Injects so many faults.
pub(crate) fn run(surety: &Surety, rounds: u64, report: &mut Report) -> Result<()> {
    if !mounts::has("strace") {
        report.skip("faults of system calls", "strace is not installed");
        return Ok(());
    }
    let mut scenarios = SCENARIOS.iter().cycle();
    let mut done = 0;
    while done < rounds && report.is_ok() {
        let mut bench = Bench::new(surety, 1, SEGMENT_BYTES)?;
        bench.in_flight = IN_FLIGHT;
        bench.serve.environment.push(("SURETY__LOG__SNAPSHOT_RECORDS", "2000".to_owned()));
        let engine = bench.start()?;
        bench.load()?.wait_for(200, || Ok(false))?;
        engine.terminate()?;
        let (goal, mut missed) = ((done + FAULTS_PER_DIRECTORY).min(rounds), 0);
        while done < goal && report.is_ok() && missed < FAULTS_PER_DIRECTORY {
            let Some(scenario) = scenarios.next() else { break };
            let was_hit = one_fault(&mut bench, scenario, report)?;
            done += u64::from(was_hit);
            missed += u64::from(!was_hit);
            report.add(if was_hit { "faults_injected" } else { "calls_never_made" }, 1);
            eprintln!("syscalls: {done} of {rounds}, {} faults", report.faults());
        }
        report.expect(missed < FAULTS_PER_DIRECTORY, || "the calls to fail are never made".to_owned());
        bench.serve.inside.clear();
        (bench.serve.durability, bench.serve.io) = ("fsync", "sync");
        let engine = bench.start()?;
        bench.load()?.wait_for(200, || Ok(false))?;
        bench.finish(engine, report)?;
    }
    Ok(())
}

/// One start under strace. True if the call was made and failed, or the process was killed by it.
fn one_fault(bench: &mut Bench, scenario: &Scenario, report: &mut Report) -> Result<bool> {
    let Scenario { call, fault, durability, io, when_max } = scenario;
    (bench.serve.durability, bench.serve.io) = (durability, io);
    let when = 1 + report.random.below(*when_max);
    let what = format!("{call} {fault:?}, the {when}th, --durability {durability} --io {io}");
    let trace = bench.file("trace");
    bench.serve.inside = strace::inside(&trace, call, *fault, when);
    let status = match bench.serve.start(&bench.surety)? {
        Started::Ended(status) => Some(status),
        Started::Ready(mut engine) => match engine.wait_for_end(PATIENCE)? {
            Some(status) => Some(status),
            None => {
                let exit = engine.terminate()?;
                report.expect(exit == 0, || format!("{what}: SIGTERM ends with {exit}"));
                None
            }
        },
    };
    bench.serve.inside.clear();
    let trace = strace::read(&trace)?;
    let was_hit = judge(bench, &what, *fault, &trace, status, report)?;
    bench.check(&what, report)?;
    if was_hit {
        report.add(&format!("{call}_{}", if *fault == Fault::Kill { "kill" } else { "error" }), 1);
    }
    Ok(was_hit)
}

fn judge(
    bench: &Bench,
    what: &str,
    fault: Fault,
    trace: &Trace,
    status: Option<ExitStatus>,
    report: &mut Report,
) -> Result<bool> {
    if fault == Fault::Kill {
        let was_killed = trace.is_killed && status.is_some_and(is_kill);
        let is_plain = !trace.is_killed && status.is_none();
        report.expect(was_killed || is_plain, || format!("{what}: ended with {status:?}"));
        return Ok(was_killed);
    }
    let Some((at, call)) = trace.injected() else {
        report.expect(status.is_none(), || {
            format!(
                "{what}: nothing was injected, but it ended with {status:?}: {}",
                bench.serve.last_words()
            )
        });
        return Ok(false);
    };
    match status {
        None => report.expect(can_do_without(call, fault), || {
            format!("{what}: it goes on after {} of {:?} failed", call.name, call.path)
        }),
        Some(status) => {
            let is_refusal = status.code().is_some_and(|code| code > 0);
            report.expect(is_abort(status) || is_refusal, || format!("{what}: ended with {status}"));
            report.add(if is_abort(status) { "aborts" } else { "refused_starts" }, 1);
            report.expect(trace.goes_on_after(at) == 0, || {
                format!("{what}: {:?} is written or synced after it failed", call.path)
            });
            if bench.serve.durability == "fsync" && trace.is_sync_of_a_write(at) && is_log(call) {
                nothing_of_the_block_is_acknowledged(bench, what, report)?;
            }
        }
    }
    Ok(true)
}

/// True for what is made in advance: without room for it, the engine declines new locks and goes on.
fn can_do_without(call: &Call, fault: Fault) -> bool {
    let name = file_name(call);
    let is_draft = name.starts_with("reserve-") || name.ends_with(".snapshot.tmp");
    fault == ENOSPC && is_draft && matches!(call.name.as_str(), "fallocate" | "pwrite64")
}

fn is_log(call: &Call) -> bool {
    let name = file_name(call);
    name.ends_with(".wal") && !name.starts_with("reserve-")
}

fn file_name(call: &Call) -> String {
    let name = call.path.as_deref().and_then(Path::file_name).unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// One block is in flight: it was written, its sync failed, so it is the last one of the log, and the page cache still
/// has it. The check of all acknowledgements would find it there; but nothing of it may have been acknowledged. (Of a write
/// that failed there is nothing in the log, and the check finds what was acknowledged of it missing.)
fn nothing_of_the_block_is_acknowledged(bench: &Bench, what: &str, report: &mut Report) -> Result<()> {
    let failed = log_end::last_block(bench.data(), ShardId(0))?;
    let acknowledged = log_end::last_acknowledged(&bench.file("acks.bin"), ShardId(0))?;
    report.add("blocks_held_back", 1);
    report.expect(acknowledged < failed, || {
        format!("{what}: seq {acknowledged} is acknowledged, the block from {failed} on was never synced")
    });
    Ok(())
}
