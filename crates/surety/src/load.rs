//! `surety load`: the load generator, and the check that nothing it was told is lost. The work is done in `loadtest`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use loadtest::{CheckError, CheckReport, Clients, LoadError, Options, Pace, Report, Scenario};
use serde_json::{Value, json};
use surety_protocol::Time;
use tokio::sync::watch;

use crate::ctl::Target;
use crate::directory;
use crate::exit::{self, Exit, Failure};
use crate::remote::{self, Role};
use crate::values;

/// Sends payments to a running engine and measures
///
/// With --rate payments begin by a schedule that is fixed beforehand, and latency counts from the intended start, so a
/// slow engine cannot hide (open loop). Without it --in-flight payments are always under way (closed loop).
///
/// With --data the scenario's tenant, partitions, policies and deposits are made first, as often as you like; with
/// --connect they must be there. --acks FILE appends every reply received, which `surety load check` then finds in the log.
///
/// Example: surety load --data DIR --scenario tap --rate 5000 --duration 10s --acks acks.bin --json
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    load: Load,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Finds the record of every reply in a closed data directory and compares every field, each exactly once
    ///
    /// Exit code 0: nothing is lost. 1: something is missing, different or doubled.
    ///
    /// Example: surety load check --acks acks.bin --data DIR --json
    #[command(after_help = exit::HELP)]
    Check(Check),
}

/// A run.
#[derive(Debug, ClapArgs)]
struct Load {
    /// A data directory in use on this machine: its address and development identities
    #[arg(long, value_name = "DIR", conflicts_with = "connect")]
    data: Option<PathBuf>,
    /// Address of shard 0
    #[arg(long, value_name = "IP:PORT", requires = "identity")]
    connect: Option<std::net::SocketAddr>,
    /// Identity of the authorizer: a PEM file
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// A built-in scenario (tap, lock-release) or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "tap")]
    scenario: String,
    /// Payments a second (open loop); without it a closed loop
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Arrivals at random (Poisson) rather than evenly spaced
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// Payments under way: exactly so many in a closed loop, at most so many in an open one [default: 64; open: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: Option<u32>,
    /// How long
    #[arg(long, value_name = "D", default_value = "10s", value_parser = values::span)]
    duration: Time,
    /// Append every reply received, 128 bytes each
    #[arg(long, value_name = "FILE")]
    acks: Option<PathBuf>,
    /// End with one JSON object on its own line
    #[arg(long)]
    json: bool,
}

/// What to check.
#[derive(Debug, ClapArgs)]
struct Check {
    /// Replies, as `surety load --acks` has written them
    #[arg(long, value_name = "FILE")]
    acks: PathBuf,
    /// The data directory, which nobody may serve
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// End with one JSON object on its own line
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.replace('_', "").parse().map_err(|_| format!("`{text}` is not a rate"))?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err(format!("`{text}` is not above 0")) }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Some(Command::Check(check)) => self::check(check),
        None => {
            let report = remote::runtime()?.block_on(load(&args.load))?;
            tell(&args.load, &report)
        }
    }
}

async fn load(load: &Load) -> Result<Report, Failure> {
    let scenario = Scenario::load(&load.scenario).map_err(|error| Failure::new(Exit::Usage, error))?;
    let pace = match (load.rate, load.poisson) {
        (None, _) => Pace::Max { in_flight: load.in_flight.unwrap_or(64) as usize },
        (Some(per_s), false) => Pace::Constant { per_s },
        (Some(per_s), true) => Pace::Poisson { per_s },
    };
    let clients = clients(load).await?;
    let mut options = Options::new(scenario, pace, std::time::Duration::from_nanos(load.duration.0));
    options.in_flight_max = load.in_flight.map_or(options.in_flight_max, |in_flight| in_flight as usize);
    options.acks.clone_from(&load.acks);
    options.shows_progress = std::io::stderr().is_terminal();
    let (stop, stopped) = watch::channel(false);
    options.stop = Some(stopped);
    tokio::spawn(async move {
        // The first interrupt ends the run with its report; a second one ends the process as usual.
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = stop.send(true);
        }
    });
    loadtest::run(&clients, options).await.map_err(|error| load_failure(&error))
}

async fn clients(load: &Load) -> Result<Clients, Failure> {
    let target = Target { data: load.data.clone(), connect: load.connect, identity: load.identity.clone() };
    let (address, identity) = target.resolve(Role::Authorizer)?;
    let authorizer = remote::connect(address, &identity).await?;
    let Some(data) = &load.data else { return Ok(Clients { authorizer, settler: None, admin: None }) };
    let own = |name: &str| directory::identity(data, name);
    let settler = remote::connect(address, &own("settler")).await?;
    let admin = remote::connect(address, &own("admin")).await?;
    Ok(Clients { authorizer, settler: Some(settler), admin: Some(admin) })
}

fn load_failure(error: &LoadError) -> Failure {
    let exit = match error {
        LoadError::Setup(_) => Exit::Declined,
        LoadError::Acks(_) => Exit::Failure,
        LoadError::Rate | LoadError::InFlight => Exit::Usage,
    };
    Failure::new(exit, error)
}

fn tell(load: &Load, report: &Report) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if load.json {
        writeln!(out, "{}", with_version(serde_json::to_value(report).unwrap_or_default()))?;
    } else {
        let Report { scenario, pace, durability, .. } = report;
        writeln!(out, "scenario {scenario}, pace {pace}, durability {durability}, {:.1} s", report.seconds)?;
        writeln!(
            out,
            "  {} payments, {} requests, {} approved, {} replies/s",
            report.payments,
            report.sent,
            report.approved,
            report.rate_per_s.round()
        )?;
        writeln!(
            out,
            "  latency us   p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0}",
            report.p50_us, report.p90_us, report.p99_us, report.p999_us, report.max_us
        )?;
        for (what, count) in [
            ("dropped (too many under way)", report.dropped),
            ("not sent", report.unsent),
            ("resolved by look-up", report.resolved),
            ("outcome unknown", report.unknown),
            ("replies that contradict their request", report.contradictions),
        ] {
            if count > 0 {
                writeln!(out, "  {count} {what}")?;
            }
        }
        for (code, count) in report.declined.iter().chain(&report.refused) {
            writeln!(out, "  {count} {code}")?;
        }
    }
    if report.ok {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failure,
        format!(
            "{} replies, {} unknown outcomes, {} contradictions",
            report.replied, report.unknown, report.contradictions
        ),
    ))
}

fn with_version(mut value: Value) -> Value {
    value["version"] = json!(env!("CARGO_PKG_VERSION"));
    value
}

fn check(check: &Check) -> Result<(), Failure> {
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
    Err(Failure::new(Exit::Failure, format!("{}: {found}", check.acks.display())))
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
