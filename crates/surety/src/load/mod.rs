//! `surety load`: the load generator, and the check that nothing it was told is lost. The work is done in `loadtest`.

mod check;
mod compare;
mod knee;
mod scenarios;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use loadtest::{Clients, Injection, LoadError, Options, Pace, Rate, Report, Scenario};
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
/// --check compares the money afterwards: every lock is looked up, and every reply's record is found in the durable change
/// stream. --inject spoils the way between client and engine: it loses and delays replies, sends requests twice and kills
/// connections; the money must agree all the same.
///
/// --report FILE.html writes a page with plots, --hlog FILE an interval log that the tools of `HdrHistogram` read.
///
/// Example: surety load --data DIR --scenario tap --rate 5000 --duration 10s --report tap.html --json
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
    /// Finds the record of every reply in a closed data directory, exactly once, and compares what the record holds
    ///
    /// What a reply says of the moment alone (what is free, what remains of the lock, its version) is in no record. Exit code 0:
    /// nothing is lost. 1: something is missing, different, doubled, or older than the log that is left.
    ///
    /// Example: surety load check --acks acks.bin --data DIR --json
    #[command(after_help = exit::HELP)]
    Check(check::Check),
    /// Finds the highest rate at which the 99th percentile of the latency still keeps to a limit
    ///
    /// Doubles the rate until the limit is passed, then halves the distance. Arrivals are at random.
    ///
    /// Example: surety load find-knee --data DIR --scenario tap --p99 10ms --duration 5s --json
    #[command(after_help = exit::HELP)]
    FindKnee(Box<knee::Args>),
    /// Compares two runs, each the JSON that `surety load --json` has printed
    ///
    /// Exit code 0: the second is not worse. 1: a figure is worse by more than --tolerance, or a run was not sound.
    ///
    /// Example: surety load compare before.json after.json --tolerance 10
    #[command(after_help = exit::HELP)]
    Compare(compare::Args),
    /// Lists the scenarios that come with the generator, or prints one to begin a file of your own with
    ///
    /// Example: surety load scenarios hotel > stay.toml; surety load --data DIR --scenario stay.toml
    #[command(after_help = exit::HELP)]
    Scenarios(scenarios::Args),
}

/// Which engine, and which payments.
#[derive(Debug, ClapArgs)]
struct Engine {
    /// A data directory in use on this machine: its address and development identities
    #[arg(long, value_name = "DIR", conflicts_with = "connect")]
    data: Option<PathBuf>,
    /// Address of shard 0
    #[arg(long, value_name = "IP:PORT", requires = "identity")]
    connect: Option<std::net::SocketAddr>,
    /// Identity of the authorizer: a PEM file
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// A built-in scenario (`surety load scenarios` lists them) or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "tap")]
    scenario: String,
}

/// A run.
#[derive(Debug, ClapArgs)]
struct Load {
    #[command(flatten)]
    engine: Engine,
    /// Payments a second (open loop): 5000, a ramp 1000..20000, or equal steps 1000,5000,2000; without it a closed loop
    #[arg(long, value_name = "R")]
    rate: Option<Rate>,
    /// Arrivals at random (Poisson) rather than evenly spaced
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// Payments under way: exactly so many in a closed loop, at most so many in an open one [default: 64; open: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: Option<u32>,
    /// How long
    #[arg(long, value_name = "D", default_value = "10s", value_parser = values::some_span)]
    duration: Time,
    /// Append every reply received, 128 bytes each
    #[arg(long, value_name = "FILE")]
    acks: Option<PathBuf>,
    /// Check the money after the run; holds every reply in memory until then, 128 bytes each
    #[arg(long)]
    check: bool,
    /// Faults on the way: drop=0.01,double=0.01,delay=0.01:5ms,kill=2s or some of these; a lost reply costs a second
    #[arg(long, value_name = "FAULTS")]
    inject: Option<Injection>,
    /// Write the run as a page with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the latencies of each second, in nanoseconds, as an interval log
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// End with one JSON object on its own line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Some(Command::Check(check)) => check::check(check),
        Some(Command::FindKnee(search)) => knee::find(search),
        Some(Command::Compare(compare)) => compare::compare(compare),
        Some(Command::Scenarios(list)) => scenarios::tell(list),
        None => {
            let report = remote::run(load(&args.load))?;
            let page = args.load.report.as_ref();
            let written = page.map_or(Ok(()), |page| {
                std::fs::write(page, report.to_html())
                    .map_err(|error| unwritable(Exit::Failure, page, &error))
            });
            // The figures are told, whatever becomes of the page; then the page's failure, unless the run's is worse.
            tell(&args.load, &report, written.as_ref().err())?;
            written.map_err(Failure::told)
        }
    }
}

impl Args {
    pub(crate) fn wants_json(&self) -> bool {
        match &self.command {
            None => self.load.json,
            Some(Command::Check(check)) => check.json,
            Some(Command::FindKnee(knee)) => knee.json,
            Some(Command::Compare(compare)) => compare.json,
            Some(Command::Scenarios(scenarios)) => scenarios.json,
        }
    }
}

async fn load(load: &Load) -> Result<Report, Failure> {
    let pace = match (load.rate.clone(), load.poisson) {
        (None, _) => Pace::Max { in_flight: load.in_flight.unwrap_or(64) as usize },
        (Some(rate), false) => Pace::Constant { rate },
        (Some(rate), true) => Pace::Poisson { rate },
    };
    // A page that cannot be written is told before the run, not after it.
    if let Some(page) = &load.report {
        std::fs::write(page, "").map_err(|error| unwritable(Exit::Usage, page, &error))?;
    }
    let (mut clients, mut options) = prepare(&load.engine, pace, load.duration).await?;
    if let Some(injection) = load.inject {
        let (address, identity) = load.engine.target().resolve(Role::Authorizer)?;
        let seed = options.scenario.seed;
        let (spoiled, faults) = remote::connect_spoiled(address, &identity, injection, seed).await?;
        (clients.authorizer, options.faults) = (spoiled, Some(faults));
    }
    options.checks_money = load.check;
    options.in_flight_max = load.in_flight.map_or(options.in_flight_max, |in_flight| in_flight as usize);
    options.acks.clone_from(&load.acks);
    options.hlog.clone_from(&load.hlog);
    loadtest::run(&clients, options).await.map_err(|error| load_failure(&error))
}

fn unwritable(exit: Exit, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(exit, format!("cannot write {}: {error}", path.display()))
}

/// Connections, and the options of a run that ends early at the first interrupt.
async fn prepare(engine: &Engine, pace: Pace, duration: Time) -> Result<(Clients, Options), Failure> {
    let scenario = Scenario::load(&engine.scenario).map_err(|error| Failure::new(Exit::Usage, error))?;
    let clients = clients(engine).await?;
    let mut options = Options::new(scenario, pace, std::time::Duration::from_nanos(duration.0));
    options.shows_progress = std::io::stderr().is_terminal();
    let (stop, stopped) = watch::channel(false);
    options.stop = Some(stopped);
    tokio::spawn(async move {
        // The first interrupt ends the run with its report; a second one ends the process as usual.
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = stop.send(true);
        }
    });
    Ok((clients, options))
}

impl Engine {
    fn target(&self) -> Target {
        Target { data: self.data.clone(), connect: self.connect, identity: self.identity.clone() }
    }
}

async fn clients(engine: &Engine) -> Result<Clients, Failure> {
    let (address, identity) = engine.target().resolve(Role::Authorizer)?;
    let authorizer = remote::connect(address, &identity).await?;
    let Some(data) = &engine.data else { return Ok(Clients { authorizer, settler: None, admin: None }) };
    let own = |name: &str| directory::identity(data, name);
    let settler = remote::connect(address, &own("settler")).await?;
    let admin = remote::connect(address, &own("admin")).await?;
    Ok(Clients { authorizer, settler: Some(settler), admin: Some(admin) })
}

fn load_failure(error: &LoadError) -> Failure {
    let exit = match error {
        LoadError::Setup(_) => Exit::Declined,
        LoadError::Record(_) => Exit::Failure,
        LoadError::Rate | LoadError::InFlight => Exit::Usage,
    };
    Failure::new(exit, error)
}

fn tell(load: &Load, report: &Report, trouble: Option<&Failure>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if load.json {
        let mut value = with_version(serde_json::to_value(report).unwrap_or_default());
        if let Some(trouble) = trouble {
            value["ok"] = json!(false);
            value["error"] = json!(trouble.to_string());
        }
        writeln!(out, "{value}")?;
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
        if report.noisy {
            writeln!(
                out,
                "  NOISY: others took {:.0} % of the cores, the generator was {:.0} us late (idle: {:.0} us)",
                report.busy_by_others * 100.0,
                report.late_p99_us,
                report.jitter_p99_us
            )?;
        }
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
        if let Some(injected) = &report.injected {
            writeln!(
                out,
                "  injected: {} reply frames lost, {} late, {} request frames doubled, {} connections killed",
                injected.dropped, injected.delayed, injected.doubled, injected.killed
            )?;
        }
        if let Some(found) = &report.money_check {
            writeln!(
                out,
                "  money check: replies {}, {} look-ups {}, {} records in the log {}",
                found.replies, found.looked_up, found.lookups, found.recorded, found.log
            )?;
        }
    }
    if report.ok {
        return Ok(());
    }
    let money = match &report.money_check {
        Some(found) if !found.is_ok() => ", and the money does not agree",
        _ => "",
    };
    let Report { replied, unknown, contradictions, .. } = report;
    let what =
        format!("{replied} replies, {unknown} unknown outcomes, {contradictions} contradictions{money}");
    Err(Failure::new(Exit::Failure, what).told())
}

fn with_version(mut value: Value) -> Value {
    value["version"] = json!(env!("CARGO_PKG_VERSION"));
    value
}
