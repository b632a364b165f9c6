//! strace: what is injected, and what its trace tells.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// The calls that change what is on the disk.
pub(crate) const TRACED: &str = "pwrite64,fdatasync,fsync,fallocate,rename,unlink";

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails with this error and is not performed.
    Error(&'static str),
    /// The process is killed as it makes it.
    Kill,
}

/// One call of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The thread.
    pub(crate) thread: u32,
    pub(crate) name: String,
    /// The file that it names, if it is one descriptor's.
    pub(crate) path: Option<PathBuf>,
    pub(crate) is_injected: bool,
    pub(crate) has_failed: bool,
}

/// The command line that runs a program under strace, which fails the `when`th such call of each thread.
pub(crate) fn inside(trace: &Path, call: &str, fault: Fault, when: u64) -> Vec<OsString> {
    let what = match fault {
        Fault::Error(error) => format!("error={error}"),
        Fault::Kill => "signal=KILL".to_owned(),
    };
    let inject = format!("inject={call}:{what}:when={when}");
    let mut line: Vec<OsString> = ["strace", "-f", "-y", "-s", "0", "-o"].map(OsString::from).to_vec();
    line.push(trace.into());
    // Faster, but signals do not arrive with it.
    if fault != Fault::Kill {
        line.push("--seccomp-bpf".into());
    }
    line.extend(["-e", &format!("trace={TRACED}"), "-e", &inject].map(OsString::from));
    line
}

/// Reads a trace.
pub(crate) fn read(trace: &Path) -> Result<Trace> {
    Ok(Trace::parse(&String::from_utf8_lossy(&std::fs::read(trace)?)))
}

/// The calls of a process in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) calls: Vec<Call>,
    /// The process was killed.
    pub(crate) is_killed: bool,
}

impl Trace {
    /// Reads the text. A call that another one interrupts takes two lines, and counts where it ends.
    fn parse(text: &str) -> Self {
        let mut trace = Self::default();
        let mut begun: Vec<(u32, Call)> = Vec::new();
        for line in text.lines() {
            let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
            let (Ok(thread), rest) = (thread.parse::<u32>(), rest.trim_start()) else { continue };
            if rest.starts_with("+++ killed by SIGKILL") {
                trace.is_killed = true;
            } else if let Some(resumed) = rest.strip_prefix("<... ") {
                let Some(at) = begun.iter().position(|(other, _)| *other == thread) else { continue };
                let (_, call) = begun.swap_remove(at);
                trace.calls.push(call.ended(resumed));
            } else if let Some(call) = Call::parse(thread, rest) {
                if rest.contains("<unfinished ...>") {
                    begun.push((thread, call));
                } else {
                    trace.calls.push(call.ended(rest));
                }
            }
        }
        // Those that a kill has cut.
        trace.calls.extend(begun.into_iter().map(|(_, call)| call));
        trace
    }

    /// The first call that was made to fail.
    pub(crate) fn injected(&self) -> Option<(usize, &Call)> {
        self.calls.iter().enumerate().find(|(_, call)| call.is_injected)
    }

    /// True if a call syncs what the same thread has just written to the same file.
    pub(crate) fn is_sync_of_a_write(&self, at: usize) -> bool {
        let sync = &self.calls[at];
        let before = self.calls[..at].iter().rev().find(|call| call.thread == sync.thread);
        sync.name == "fdatasync"
            && before
                .is_some_and(|call| call.name == "pwrite64" && call.path == sync.path && !call.has_failed)
    }

    /// Writes and syncs of the same file that the same thread performs after a call, and that do not fail.
    pub(crate) fn goes_on_after(&self, at: usize) -> usize {
        let failed = &self.calls[at];
        let is_again = |call: &&Call| {
            let writes = matches!(call.name.as_str(), "pwrite64" | "fdatasync" | "fsync");
            writes && (call.thread, &call.path) == (failed.thread, &failed.path) && !call.has_failed
        };
        self.calls[at + 1..].iter().filter(is_again).count()
    }
}

impl Call {
    fn parse(thread: u32, line: &str) -> Option<Self> {
        let (name, arguments) = line.split_once('(')?;
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        // "13</path/of/it>, ..."
        let first = arguments.split_once([',', ')']).map_or(arguments, |(first, _)| first);
        let path = first.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        Some(Self {
            thread,
            name: name.to_owned(),
            path: path.map(|(path, _)| PathBuf::from(path)),
            is_injected: false,
            has_failed: false,
        })
    }

    fn ended(mut self, line: &str) -> Self {
        self.is_injected = line.contains("(INJECTED)");
        self.has_failed = line.rsplit_once(" = ").is_some_and(|(_, result)| result.starts_with('-'));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
19365 pwrite64(13</d/shard-0/1.wal>, \"\"..., 4096, 20480) = 4096
19366 fsync(14</d/shard-0> <unfinished ...>
19365 fdatasync(13</d/shard-0/1.wal>) = -1 EIO (Input/output error) (INJECTED)
19366 <... fsync resumed>)              = 0
19365 --- SIGABRT {si_signo=SIGABRT, si_code=SI_TKILL} ---
19361 rename(\"a\", \"b\") = -1 ENOENT (No such file or directory)
19367 +++ killed by SIGABRT +++
";

    #[test]
    fn a_trace_is_read() {
        let trace = Trace::parse(TRACE);
        let names: Vec<&str> = trace.calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["pwrite64", "fdatasync", "fsync", "rename"]);
        let (at, injected) = trace.injected().unwrap();
        assert_eq!((at, injected.thread), (1, 19365));
        assert_eq!(injected.path.as_deref(), Some(Path::new("/d/shard-0/1.wal")));
        assert!(injected.has_failed && !trace.calls[0].has_failed && !trace.calls[2].has_failed);
        assert!(trace.calls[3].has_failed && !trace.calls[3].is_injected);
        assert_eq!(trace.goes_on_after(at), 0);
        assert!(!trace.is_killed);
        assert!(trace.is_sync_of_a_write(at) && !trace.is_sync_of_a_write(2));
    }

    #[test]
    fn a_retry_after_a_failure_is_seen() {
        let again = "19365 fdatasync(13</d/shard-0/1.wal>) = 0\n";
        let trace = Trace::parse(&[TRACE, again].concat());
        assert_eq!(trace.goes_on_after(1), 1);
    }

    #[test]
    fn a_killed_process_leaves_its_last_call() {
        let text = "7 fdatasync(13</d/1.wal> <unfinished ...>\n8 +++ killed by SIGKILL +++\n";
        let trace = Trace::parse(text);
        assert!(trace.is_killed && trace.calls.len() == 1 && !trace.calls[0].has_failed);
    }
}
