//! `surety load check`: that nothing the load was told is lost.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use loadtest::{CheckError, CheckReport};

use crate::directory;
use crate::exit::{Exit, Failure};

/// What to check.
#[derive(Debug, ClapArgs)]
pub(super) struct Check {
    /// Replies, as `surety load --acks` has written them
    #[arg(long, value_name = "FILE")]
    acks: PathBuf,
    /// The data directory, which nobody may serve
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn check(check: &Check) -> Result<(), Failure> {
    let report =
        loadtest::check(&check.acks, &check.data).map_err(|error| check_failure(&check.data, &error))?;
    let CheckReport { acks, recorded, verified, missing, different, doubled, removed, .. } = &report;
    let mut out = std::io::stdout().lock();
    if check.json {
        writeln!(out, "{}", serde_json::to_value(&report).unwrap_or_default())?;
    } else {
        writeln!(out, "{acks} replies, {recorded} of them recorded: {verified} found as they were")?;
        for fault in &report.faults {
            writeln!(out, "  {} at {}:{}: {}", fault.id, fault.shard, fault.seq, fault.what)?;
        }
        if report.cut_bytes > 0 {
            writeln!(
                out,
                "  the last {} bytes are the write that a kill cut; they count as nothing",
                report.cut_bytes
            )?;
        }
        if *removed > 0 {
            writeln!(out, "  {removed} are older than the log that is left")?;
        }
    }
    if report.ok {
        return Ok(());
    }
    let found = format!(
        "{missing} missing, {different} different, {doubled} doubled, {removed} no longer in the log"
    );
    Err(Failure::new(Exit::Failure, format!("{}: {found}", check.acks.display())).told())
}

fn check_failure(data: &Path, error: &CheckError) -> Failure {
    match error {
        CheckError::Acks(error) => Failure::new(Exit::Usage, error),
        CheckError::Directory(error) => directory::open_failure(error),
        CheckError::Storage { error, .. } => directory::storage_failure(error),
        CheckError::Log { shard, error } => {
            directory::log_failure(&data.join(format!("shard-{shard}")), error)
        }
    }
}
