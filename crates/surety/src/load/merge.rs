//! `surety load merge`: one run of several, such as those of several machines against one engine.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use loadtest::Report;

use super::{compare, finish, unwritable};
use crate::exit::{Exit, Failure};

/// What to merge.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The runs
    #[arg(value_name = "RUN.json", required = true)]
    runs: Vec<PathBuf>,
    /// Write the whole as a page with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the latencies of each second, in nanoseconds, as an interval log
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(super) json: bool,
}

/// Merges.
pub(super) fn merge(args: &Args) -> Result<(), Failure> {
    let runs: Vec<Report> = args.runs.iter().map(|path| compare::read(path)).collect::<Result<_, _>>()?;
    let whole = loadtest::merge(&runs).map_err(|error| Failure::new(Exit::Usage, error))?;
    loadtest::were_made_together(&runs).map_err(|error| Failure::new(Exit::Usage, error))?;
    for file in args.report.iter().chain(&args.hlog) {
        std::fs::write(file, "").map_err(|error| unwritable(Exit::Usage, file, &error))?;
    }
    finish(&whole, args.report.as_deref(), args.hlog.as_deref(), args.json)
}
