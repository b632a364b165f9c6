//! `surety doctor`: looks at a machine before an engine lives on it, and says what to do about what it finds.
//!
//! What is read and what is thought of it are apart: `machine` and `disk` read, and judge by functions of what was read, so that tests
//! can show them machines that are not at hand.

mod disk;
mod finding;
mod machine;

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use self::finding::{Finding, Grade};
use crate::exit::{self, Exit, Failure};

/// Checks whether this machine is one that an engine should live on
///
/// Looks at the clock, the cores, the limits of the process, UDP buffers, memory, and at the file system and disk below DIR: free space, who may read it,
/// how long a durable write takes, and whether it can have been one. Writes a few MiB below DIR and removes them; changes nothing else.
/// A running engine may stay, but the figures are then those of a busy disk.
///
/// `fine` needs nothing; `advice` costs speed or comfort; `fault` can cost money; `unknown` is what the machine does not tell: look yourself. The exit code is 1 if there is a fault.
///
/// Example: surety doctor --data /var/lib/surety/data
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    /// A data directory, or where one will be: if it is not there yet, the nearest directory above is looked at
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,
    /// Print nothing but one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut findings = machine::examine();
    findings.extend(disk::examine(&args.data)?);
    let faults = findings.iter().filter(|finding| finding.grade == Grade::Fault).count();
    let mut out = std::io::stdout().lock();
    let written = if args.json { print_json(&findings, &mut out) } else { print_text(&findings, &mut out) };
    written.map_err(|error| Failure::caused(Exit::Failure, "the findings could not be printed", &error))?;
    if faults == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Failure, format!("{faults} of {} checks found a fault", findings.len())).told())
}

fn print_json(findings: &[Finding], out: &mut impl Write) -> std::io::Result<()> {
    let is_sound = findings.iter().all(|finding| finding.grade != Grade::Fault);
    writeln!(out, "{}", serde_json::json!({ "ok": is_sound, "checks": findings }))
}

fn print_text(findings: &[Finding], out: &mut impl Write) -> std::io::Result<()> {
    for finding in findings {
        writeln!(out, "{:<8}{:<14}{}", finding.grade.word(), finding.check, finding.found)?;
        if let Some(advice) = &finding.advice {
            writeln!(out, "{:<22}-> {advice}", "")?;
        }
    }
    Ok(())
}
