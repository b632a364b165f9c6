//! Exit codes, all in one place, and the failure that carries one out of a command.

use core::fmt;
use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

/// What the process tells whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done; for a check: sound.
    Done = 0,
    /// Something failed that has no code of its own; a check that ran and did not hold.
    Failure = 1,
    /// The command line, the environment or a file of settings is wrong.
    Usage = 2,
    /// The data directory is damaged, or its log does not replay.
    Corrupt = 3,
    /// No data directory there, or another engine's.
    Foreign = 4,
    /// Another process uses the data directory.
    InUse = 5,
    /// The data directory was written by a newer version.
    Newer = 6,
    /// An address to listen on is taken or not ours.
    Address = 7,
    /// The clock went too far since the last record; somebody has to accept the gap.
    Clock = 8,
    /// The engine cannot be reached, or closed the connection.
    Unreachable = 9,
    /// The engine answered, and the answer was no.
    Declined = 10,
    /// The engine has ended, and its log could not be sealed.
    Unsealed = 11,
    /// The data directory is a forensic copy: for looking at.
    Forensic = 12,
    /// The engine goes on after a loss and cannot tell: neither yes nor no.
    Unknown = 13,
    /// Nobody reads any more: what was not told is not known, and nothing may be taken for sound. As a shell tells of SIGPIPE.
    Unread = 141,
}

/// The table of exit codes at the end of every `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0   done; for a check: sound
  1   failed, or a check does not hold
  2   wrong usage or settings (unknown option, unknown configuration key, a setting that the data
      directory or its file system does not take; for `serve` also: no certificates)
  3   corrupt: the data directory is damaged or does not replay
  4   no data directory, or a foreign one
  5   the data directory is in use by another process
  6   the data directory is of a newer format
  7   an address to listen on is taken
  8   the clock moved too far; see `surety ctl clock accept`
  9   the engine cannot be reached
  10  the engine declined the request; of a service: it goes on without what this process was told (LOST_LIFE)
  11  the engine has ended without sealing its log: the disk is full or does not answer
  12  the data directory is a forensic copy, which nobody serves or backs up
  13  the engine goes on after a loss and cannot tell (UNKNOWN_AFTER_RESTORE): take it neither for done nor for declined
  141 nobody read on (as `| head` does): what was not told is not known, not even whether a check holds";

/// Why a command ends early: one line, and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    /// The command's JSON object is out and says it.
    is_told: bool,
}

impl Failure {
    /// A failure with its line: what was wrong, where, and what to do.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: one_line(&message.to_string()), is_told: false }
    }

    /// A failure whose line is this error with everything that caused it.
    pub(crate) fn caused(exit: Exit, context: impl fmt::Display, error: &dyn core::error::Error) -> Self {
        let mut message = context.to_string();
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their cause in their own text.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        Self::new(exit, message)
    }

    /// The code alone.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// The same, with more to say.
    pub(crate) fn with(mut self, more: &str) -> Self {
        self.message.push_str(more);
        self
    }

    /// The same, where the command has printed its JSON object, if one was wanted.
    pub(crate) fn told(self) -> Self {
        Self { is_told: true, ..self }
    }

    /// The line on standard error, and the code; with `json` also an object on standard output, if none is there yet.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if json && !self.is_told && self.exit != Exit::Unread {
            let value = json!({ "ok": false, "exit": self.exit as u8, "error": self.message });
            // Nobody is told if nobody reads.
            let _ = writeln!(std::io::stdout(), "{value}");
        }
        if !self.message.is_empty() {
            tell(format_args!("error: {}", self.message));
        }
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // Nobody reads any more (`surety dump | head`): that is no failure of ours, and no place to complain to.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Unread, message: String::new(), is_told: true };
        }
        Self::new(Exit::Failure, error)
    }
}

/// Prints a line. `println!` would panic where nobody reads any more.
///
/// # Errors
/// The system's own; as a [`Failure`] a closed pipe ends the program without a word. What goes on by itself, such as a server, goes on.
pub(crate) fn say(line: impl fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Prints a line on standard error, beside what is asked for. `eprintln!` would panic where nobody reads any more; what is done goes on.
pub(crate) fn tell(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The same of how far something is, over what stood in that line of a terminal.
pub(crate) fn tell_over(words: impl fmt::Display) {
    let _ = write!(std::io::stderr(), "\r{words}");
}

/// Leaves the line of a terminal empty on which [`tell_over`] has written.
pub(crate) fn clear_line() {
    tell_over("\x1b[K");
}

/// What telling of a deed came to: it is done whether anybody reads of it or not.
///
/// # Errors
/// Every other failure.
pub(crate) fn done(told: Result<(), Failure>) -> Result<(), Failure> {
    match told {
        Err(failure) if failure.exit == Exit::Unread => Ok(()),
        told => told,
    }
}

fn one_line(message: &str) -> String {
    message.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let inner = std::io::Error::other("disk\n  gone");
        let failure = Failure::caused(Exit::Corrupt, "cannot open", &Outer(inner));
        assert_eq!(failure.to_string(), "cannot open: outer: disk gone");
        assert_eq!(failure.exit, Exit::Corrupt);
    }

    #[test]
    fn every_code_is_in_the_help() {
        for exit in [
            Exit::Done,
            Exit::Failure,
            Exit::Usage,
            Exit::Corrupt,
            Exit::Foreign,
            Exit::InUse,
            Exit::Newer,
            Exit::Address,
            Exit::Clock,
            Exit::Unreachable,
            Exit::Declined,
            Exit::Unsealed,
            Exit::Forensic,
            Exit::Unknown,
            Exit::Unread,
        ] {
            assert!(HELP.lines().any(|line| line.starts_with(&format!("  {:<3} ", exit as u8))), "{exit:?}");
        }
    }
}
