//! The machine: clock, cores, memory, limits of the process, UDP buffers.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_send_buffer_size, socket_recv_buffer_size,
    socket_send_buffer_size,
};
use rustix::process::{Resource, getrlimit};

use super::finding::{Finding, Grade};

/// What the server asks for each of its sockets.
const SOCKET_BYTES: usize = 4 << 20;
/// Connections, segments, snapshots and cursors of a busy engine.
const FILES_MIN: u64 = 65_536;
/// Clocks that are read without a system call.
const QUICK_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];
/// How long the jitter is watched, and the longest pause that is nobody's concern.
const WATCH: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// Every check of the machine.
pub(super) fn examine() -> Vec<Finding> {
    vec![
        judge_clock(clock_sync()),
        judge_clock_source(&read("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        judge_cores(std::thread::available_parallelism().map_or(1, usize::from)),
        judge_governor(&read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        judge_crc(has_crc()),
        judge_jitter(longest_pause()),
        judge_files(getrlimit(Resource::Nofile).current),
        judge_swap(&read("/proc/swaps")),
        judge_udp(granted_socket_bytes()),
    ]
}

/// A file of the kernel's, or nothing where it has none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Whether something keeps the clock right, as far as the machine says.
fn clock_sync() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if let Some(tracking) = said("chronyc", &["-n", "tracking"]) {
        return Some(tracking.contains("Leap status     : Normal"));
    }
    match said("timedatectl", &["show", "--property=NTPSynchronized", "--value"])?.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn judge_clock(is_synchronized: Option<bool>) -> Finding {
    let advice = "run chrony or systemd-timesyncd: deadlines and ids go by the wall clock, and an engine whose clock \
                  has moved by more than `clock.max_gap` does not start";
    match is_synchronized {
        Some(true) => Finding::fine("clock", "synchronized"),
        Some(false) => Finding::of("clock", Grade::Fault, "not synchronized", advice),
        None => Finding::of("clock", Grade::Unknown, "nothing here says whether it is synchronized", advice),
    }
}

fn judge_clock_source(source: &str) -> Finding {
    match source {
        "" => {
            Finding::of("clock source", Grade::Unknown, "not told", "see that it is not `hpet` or `acpi_pm`")
        }
        quick if QUICK_CLOCKS.contains(&quick) => Finding::fine("clock source", quick),
        slow => Finding::of(
            "clock source",
            Grade::Advice,
            slow,
            "each look at the clock is a system call; boot with `clocksource=tsc` if the hardware keeps it steady",
        ),
    }
}

fn judge_cores(cores: usize) -> Finding {
    let found = format!("{cores} may be used");
    if cores >= 2 {
        return Finding::fine("cores", found);
    }
    Finding::of("cores", Grade::Advice, found, "give each shard a core of its own, and the kernel one")
}

fn judge_governor(governor: &str) -> Finding {
    match governor {
        "" => Finding::fine("frequency", "not for this machine to choose"),
        "performance" => Finding::fine("frequency", governor),
        _ => Finding::of(
            "frequency",
            Grade::Advice,
            format!("governor `{governor}`"),
            "`cpupower frequency-set -g performance`: a core that has to wake up first answers late",
        ),
    }
}

/// The instruction that checks blocks of the log.
fn has_crc() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("sse4.2");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("crc");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

fn judge_crc(is_there: bool) -> Finding {
    if is_there {
        return Finding::fine("CRC32C", "in hardware");
    }
    Finding::of(
        "CRC32C",
        Grade::Advice,
        "in software",
        "checksums of the log take several times as long here",
    )
}

/// The longest time for which this thread, which does nothing but look at the clock, was kept from it.
fn longest_pause() -> Duration {
    let begin = Instant::now();
    let (mut last, mut longest) = (begin, Duration::ZERO);
    while last.duration_since(begin) < WATCH {
        let now = Instant::now();
        longest = longest.max(now.duration_since(last));
        last = now;
    }
    longest
}

fn judge_jitter(pause: Duration) -> Finding {
    let found = format!("a busy thread was kept waiting for {:.1} ms at most", pause.as_secs_f64() * 1e3);
    if pause <= PAUSE_MAX {
        return Finding::fine("jitter", found);
    }
    let advice = "no answer can be quicker than that at the tail: see what else runs, and whether the machine shares its cores";
    Finding::of("jitter", Grade::Advice, found, advice)
}

fn judge_files(limit: Option<u64>) -> Finding {
    match limit {
        Some(limit) if limit < FILES_MIN => Finding::of(
            "open files",
            Grade::Advice,
            format!("at most {limit}"),
            format!("`LimitNOFILE={FILES_MIN}` in the unit, or `ulimit -n {FILES_MIN}`"),
        ),
        Some(limit) => Finding::fine("open files", format!("at most {limit}")),
        None => Finding::fine("open files", "no limit"),
    }
}

fn judge_swap(swaps: &str) -> Finding {
    // The first line is a heading.
    match swaps.lines().skip(1).count() {
        0 => Finding::fine("swap", "none"),
        areas => Finding::of(
            "swap",
            Grade::Advice,
            format!("{areas} in use"),
            "`swapoff -a`, or `MemorySwapMax=0` in the unit: a ledger that waits for swap answers late, and keys do not \
             belong on a disk",
        ),
    }
}

/// What the system grants of the buffers that the server asks for; as the kernel counts, which doubles them.
fn granted_socket_bytes() -> Option<(usize, usize)> {
    let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
    set_socket_recv_buffer_size(&socket, SOCKET_BYTES).ok()?;
    set_socket_send_buffer_size(&socket, SOCKET_BYTES).ok()?;
    Some((socket_recv_buffer_size(&socket).ok()? / 2, socket_send_buffer_size(&socket).ok()? / 2))
}

fn judge_udp(granted: Option<(usize, usize)>) -> Finding {
    let Some((receive, send)) = granted else {
        return Finding::of(
            "UDP buffers",
            Grade::Unknown,
            "a socket could not be asked",
            "see what refuses it",
        );
    };
    let found = format!("{} KiB to receive, {} KiB to send", receive >> 10, send >> 10);
    if receive.min(send) >= SOCKET_BYTES {
        return Finding::fine("UDP buffers", found);
    }
    let advice = format!(
        "`sysctl -w net.core.rmem_max={SOCKET_BYTES} net.core.wmem_max={SOCKET_BYTES}`, and the same in /etc/sysctl.d: bursts that \
         do not fit are dropped and sent again"
    );
    Finding::of("UDP buffers", Grade::Advice, found, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_needs_nothing_and_what_is_not_says_what_to_do() {
        let fine = [
            judge_clock(Some(true)),
            judge_clock_source("tsc"),
            judge_cores(2),
            judge_governor("performance"),
            judge_governor(""),
            judge_crc(true),
            judge_jitter(PAUSE_MAX),
            judge_files(None),
            judge_files(Some(FILES_MIN)),
            judge_swap("Filename Type Size Used Priority"),
            judge_udp(Some((SOCKET_BYTES, SOCKET_BYTES))),
        ];
        assert!(
            fine.iter().all(|finding| finding.grade == Grade::Fine && finding.advice.is_none()),
            "{fine:?}"
        );
        let rest = [
            (judge_clock(Some(false)), Grade::Fault),
            (judge_clock(None), Grade::Unknown),
            (judge_clock_source("hpet"), Grade::Advice),
            (judge_clock_source(""), Grade::Unknown),
            (judge_cores(1), Grade::Advice),
            (judge_governor("powersave"), Grade::Advice),
            (judge_crc(false), Grade::Advice),
            (judge_jitter(PAUSE_MAX * 2), Grade::Advice),
            (judge_files(Some(1024)), Grade::Advice),
            (judge_swap("Filename Type\n/swap file 1 0 -2\n"), Grade::Advice),
            (judge_udp(Some((SOCKET_BYTES, SOCKET_BYTES / 2))), Grade::Advice),
            (judge_udp(None), Grade::Unknown),
        ];
        for (finding, grade) in rest {
            assert_eq!(finding.grade, grade, "{finding:?}");
            assert!(finding.advice.is_some(), "{finding:?}");
        }
    }

    #[test]
    fn a_pause_is_measured() {
        let pause = longest_pause();
        assert!(pause > Duration::ZERO && pause < WATCH * 100, "{pause:?}");
    }
}
