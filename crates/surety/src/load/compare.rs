//! `surety load compare`: is the second run worse than the first?

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use loadtest::{Report, Row};

use crate::exit::{Exit, Failure};

/// What to compare.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The first run
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// The second run
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// By how much a figure may be worse, in per cent
    #[arg(long, value_name = "P", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    tolerance: u8,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(super) json: bool,
}

/// Compares.
pub(super) fn compare(args: &Args) -> Result<(), Failure> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let comparison = loadtest::compare(&a, &b, f64::from(args.tolerance) / 100.0);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_value(&comparison).unwrap_or_default())?;
    } else {
        writeln!(out, "{:<16} {:>14} {:>14} {:>9}", "", args.a.display(), args.b.display(), "change")?;
        comparison.rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))?;
        comparison.doubts.iter().try_for_each(|doubt| writeln!(out, "  {doubt}"))?;
    }
    if comparison.ok {
        return Ok(());
    }
    let worse: Vec<_> = comparison.rows.iter().filter(|row| row.is_worse).map(|row| row.figure).collect();
    let what = if worse.is_empty() {
        "a run was not sound".to_owned()
    } else {
        format!("worse: {}", worse.join(", "))
    };
    Err(Failure::new(Exit::Failure, what).told())
}

fn line(row: &Row) -> String {
    let change = row.change.map_or_else(|| "-".to_owned(), |change| format!("{:+.1} %", change * 100.0));
    let mark = if row.is_worse { "  worse" } else { "" };
    format!("{:<16} {:>14.3} {:>14.3} {change:>9}{mark}", row.figure, row.a, row.b)
}

/// The last line of a file, where `--json` puts its object.
pub(super) fn read(path: &Path) -> Result<Report, Failure> {
    let usage = |what: String| Failure::new(Exit::Usage, format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    serde_json::from_str(last)
        .map_err(|error| usage(format!("not what `surety load --json` prints: {error}")))
}
