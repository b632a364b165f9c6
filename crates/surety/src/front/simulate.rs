//! `gateway simulate`: an acquirer that says the messages of a scenario.

use std::net::SocketAddr;

use clap::Args as ClapArgs;
use gateway::simulate::{Scenario, ScenarioError, SimulateError, simulate};
use serde_json::json;

use crate::exit::{Exit, Failure, say};
use crate::remote;

/// A simulated acquirer.
#[derive(Debug, ClapArgs)]
pub(super) struct Simulate {
    /// The host to talk to
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "print")]
    host: Option<SocketAddr>,
    /// 1987, 1993, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "1987")]
    scenario: String,
    /// A field that every payment carries, instead of the scenario's
    #[arg(long, value_name = "FIELD=TEXT", value_parser = field)]
    set: Vec<(u8, String)>,
    /// Show the built-in scenario instead of running it
    #[arg(long)]
    print: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// A field and its text.
fn field(text: &str) -> Result<(u8, String), String> {
    let (field, text) = text.split_once('=').ok_or("write FIELD=TEXT")?;
    let number = field.parse().ok().filter(|number| (2..=128).contains(number));
    Ok((number.ok_or_else(|| format!("`{field}` is no field"))?, text.to_owned()))
}

/// Runs the scenario, or shows it.
pub(super) fn run(args: &Simulate) -> Result<(), Failure> {
    if args.print {
        let text = Scenario::built_in(&args.scenario);
        let text =
            text.ok_or_else(|| Failure::new(Exit::Usage, format!("no built-in scenario {}", args.scenario)))?;
        say(text.trim_end())?;
        return Ok(());
    }
    let usage = |error: ScenarioError| Failure::new(Exit::Usage, error);
    let mut scenario = Scenario::load(&args.scenario).map_err(usage)?;
    scenario.fields.extend(args.set.iter().cloned());
    let host = args.host.ok_or_else(|| Failure::new(Exit::Usage, "which host? --host ADDRESS:PORT"))?;
    let report = remote::runtime()?.block_on(simulate(&scenario, host));
    let report = report.map_err(|error| match error {
        SimulateError::Connect { .. } => Failure::new(Exit::Unreachable, error),
        SimulateError::Mac(_) | SimulateError::Tls(_) => Failure::new(Exit::Usage, error),
    })?;
    let told = if args.json {
        let mut value = serde_json::to_value(&report).map_err(|error| Failure::new(Exit::Failure, error))?;
        value["ok"] = json!(report.is_certified());
        say(value)
    } else {
        say(&report)
    };
    // Whether anybody reads it or not, the exit code is the verdict.
    if report.is_certified() {
        return Ok(told?);
    }
    let failed = format!("{} of {} cases failed", report.failed, report.cases.len());
    Err(Failure::new(Exit::Failure, failed).told())
}
