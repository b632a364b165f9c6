//! `surety load scenarios`: what the generator brings along.

use std::io::Write;

use clap::Args as ClapArgs;
use loadtest::Scenario;
use serde_json::json;

use crate::exit::{Exit, Failure};

/// Which.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Print this one's file instead of the list
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(super) json: bool,
}

/// Lists the scenarios with the comment that each begins with, or prints one.
pub(super) fn tell(args: &Args) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if let Some(name) = &args.name {
        let found = Scenario::built_in().find(|(known, _)| known == name);
        let (_, text) = found.ok_or_else(|| {
            Failure::new(Exit::Usage, format!("no scenario {name}; `surety load scenarios` lists them"))
        })?;
        match args.json {
            true => writeln!(out, "{}", json!({ "name": name, "toml": text }))?,
            false => write!(out, "{text}")?,
        }
        return Ok(());
    }
    if args.json {
        let all: serde_json::Map<_, _> =
            Scenario::built_in().map(|(name, text)| (name.to_owned(), json!(about(text)))).collect();
        writeln!(out, "{}", json!({ "scenarios": all }))?;
        return Ok(());
    }
    for (name, text) in Scenario::built_in() {
        writeln!(out, "{name:<14} {}", about(text))?;
    }
    Ok(())
}

/// The comment at the top of a scenario's file.
fn about(text: &str) -> String {
    let lines: Vec<_> = text.lines().map_while(|line| line.strip_prefix("# ")).collect();
    lines.join(" ")
}
