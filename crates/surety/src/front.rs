//! `surety gateway`: front doors of a running engine, as processes of their own.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use gateway::simulate::{Scenario, ScenarioError, SimulateError, simulate};
use gateway::{Gateway, LinkConfig, SettingsError, StartError};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::ctl::Target;
use crate::exit::{self, Exit, Failure};
use crate::remote::{self, Role};

/// Serves acquirers in front of a running engine
///
/// Not for real money yet: what is known to be wrong stands in VERIFICATION.md under "Not covered".
///
/// Example: surety gateway run --data DIR --config link.toml
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves one acquirer's hosts over ISO 8583
    ///
    /// Prints one JSON line {"ready":true,...} with its address once hosts are taken. SIGTERM and SIGINT answer what is
    /// being served, close every socket, and exit with 0. The engine may go away meanwhile: requests are repeated under
    /// their ids until it is back, and what has no certain outcome in time is not answered.
    ///
    /// SIGHUP reads the file again: routes, merchants, currencies and marks change for the messages that come then; where
    /// anything else differs, a line on stderr says so and all stays as it was.
    ///
    /// --config FILE (TOML) has name, listen, header (binary2, ascii4, bcd2), edition (1987, 1993), profile (ascii, ascii_raw,
    /// binary, ebcdic), id_key_file (64 hexadecimal digits, beside FILE: keep it for as long as repeats may come),
    /// [[currency]] number, asset_decimals, edge_decimals, [[route]] prefix, partitions, and, if you like, needs_sign_on,
    /// book_file (totals by business day, beside FILE: without it days are those of the calendar), [mac] algorithm (retail, hmac_sha256, aes_cmac),
    /// key_file or key_env, [tls] certificate, key, client_ca, [merchants], [partial_mark], [increase_mark], [limits].
    ///
    /// Example: surety gateway run --connect 127.0.0.1:7400 --identity acquirer.pem --config link.toml
    #[command(after_help = exit::HELP)]
    Run(Run),
    /// Plays an acquirer towards a host, and reports what it answers as it should
    ///
    /// Says the messages of a scenario, one after another, and compares each reply with what the scenario expects. Prints a report of
    /// passed and failed cases; exits with 1 if one has failed. Two scenarios come along, `1987` and `1993`, which have every row of the
    /// message table; --print shows one, to be changed and given as a file. A file may have [mac] as a link's settings have it, and [tls] ca, name and, where the
    /// link asks for them, certificate and key, beside it.
    ///
    /// They capture and hold small amounts: point them at a link for tests.
    ///
    /// Example: surety gateway simulate --host 127.0.0.1:8583 --scenario 1987 --set 2=4111111111111111 --set 42=501
    #[command(after_help = exit::HELP)]
    Simulate(Simulate),
}

/// A simulated acquirer.
#[derive(Debug, ClapArgs)]
struct Simulate {
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
    json: bool,
}

/// A field and its text.
fn field(text: &str) -> Result<(u8, String), String> {
    let (field, text) = text.split_once('=').ok_or("write FIELD=TEXT")?;
    let number = field.parse().ok().filter(|number| (2..=128).contains(number));
    Ok((number.ok_or_else(|| format!("`{field}` is no field"))?, text.to_owned()))
}

impl Args {
    /// True if the last line on standard output is to be a JSON object.
    pub(crate) const fn wants_json(&self) -> bool {
        matches!(&self.command, Command::Simulate(args) if args.json)
    }
}

/// A link.
#[derive(Debug, ClapArgs)]
struct Run {
    #[command(flatten)]
    target: Target,
    /// The link's settings
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let args = match &args.command {
        Command::Run(args) => args,
        Command::Simulate(args) => return simulate_with(args),
    };
    let config = LinkConfig::load(&args.config).map_err(|error| settings_failure(args, &error))?;
    remote::runtime()?.block_on(serve(args, config))
}

fn simulate_with(args: &Simulate) -> Result<(), Failure> {
    if args.print {
        let text = Scenario::built_in(&args.scenario);
        let text =
            text.ok_or_else(|| Failure::new(Exit::Usage, format!("no built-in scenario {}", args.scenario)))?;
        println!("{}", text.trim_end());
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
    if args.json {
        let mut value = serde_json::to_value(&report).map_err(|error| Failure::new(Exit::Failure, error))?;
        value["ok"] = json!(report.is_certified());
        println!("{value}");
    } else {
        println!("{report}");
    }
    if report.is_certified() {
        return Ok(());
    }
    let failed = format!("{} of {} cases failed", report.failed, report.cases.len());
    Err(Failure::new(Exit::Failure, failed).told())
}

fn settings_failure(args: &Run, error: &SettingsError) -> Failure {
    let file = args.config.display();
    match error {
        // Its own line names the file.
        SettingsError::File { .. } => Failure::new(Exit::Usage, error),
        _ => Failure::new(Exit::Usage, format!("{file}: {error}")),
    }
}

async fn serve(args: &Run, config: LinkConfig) -> Result<(), Failure> {
    // Listen for signals before anybody can be told that we are ready.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (address, identity) = args.target.resolve(Role::Authorizer)?;
    let client = remote::connect(address, &identity).await?;
    let tenant = client.tenant().0;
    let name = config.name.clone();
    let gateway = Gateway::start(client, config).await.map_err(start_failure)?;
    println!(
        "{}",
        json!({"ready": true, "link": name, "listen": gateway.address().to_string(), "tenant": tenant})
    );
    loop {
        tokio::select! {
            _ = terminate.recv() => break tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: stopping"),
            _ = hangup.recv() => reload(args, &gateway),
        }
    }
    gateway.stop().await;
    Ok(())
}

/// Why a link cannot be served, with its exit code.
pub(crate) fn start_failure(error: StartError) -> Failure {
    match error {
        StartError::Listen { .. } => Failure::new(Exit::Address, error),
        StartError::Stream(_) => Failure::new(Exit::Unreachable, error),
        StartError::Book(_) | StartError::Mac(_) | StartError::Tls(_) => Failure::new(Exit::Usage, error),
    }
}

/// What cannot be taken is told, and the link goes on as it was.
fn reload(args: &Run, gateway: &Gateway) {
    let taken = LinkConfig::load(&args.config)
        .map_err(|error| error.to_string())
        .and_then(|config| gateway.reload(config).map_err(|error| error.to_string()));
    match taken {
        Ok(()) => tracing::info!("SIGHUP: settings were read again"),
        Err(error) => tracing::error!(%error, "SIGHUP: settings stay as they were"),
    }
}
