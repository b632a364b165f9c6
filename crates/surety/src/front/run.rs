//! `gateway run`: one file of settings, the front doors in it, and the signals to their process.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use gateway::LinkConfig;
use rest::RestSettings;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::doors::Doors;
use crate::ctl::Target;
use crate::exit::{Exit, Failure, say};
use crate::remote::{self, Role};
use crate::traced::{ClientTraces, TraceArgs};
use crate::watched::{Life, MetricsArgs, Watched};

/// Front doors.
#[derive(Debug, ClapArgs)]
pub(super) struct Run {
    #[command(flatten)]
    target: Target,
    /// The settings of the front doors
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

/// What a file says: of one front door, or of both.
pub(crate) struct Settings {
    /// Over ISO 8583.
    pub(crate) link: Option<LinkConfig>,
    /// Over REST.
    pub(crate) rest: Option<RestSettings>,
}

impl Settings {
    /// Reads a file, and what it names beside it: all of it, or nothing.
    pub(crate) fn load(file: &Path) -> Result<Self, Failure> {
        let Halves { link, rest } = Halves::read(file)?;
        Ok(Self { rest: rest?, link: link? })
    }
}

/// The same, of which one can be wrong without the other.
pub(super) struct Halves {
    pub(super) link: Result<Option<LinkConfig>, Failure>,
    pub(super) rest: Result<Option<RestSettings>, Failure>,
}

impl Halves {
    /// Reads the file once, so that both are of one moment.
    fn read(file: &Path) -> Result<Self, Failure> {
        let wrong = |error: &dyn Display| Failure::new(Exit::Usage, format!("{}: {error}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
        let table: toml::Table = text.parse().map_err(|error| wrong(&error))?;
        // If anything in the file is of a link, all of one has to be there.
        let names_a_link = !table.contains_key("rest") || table.keys().any(|key| key != "rest");
        let link = names_a_link.then(|| LinkConfig::read(&text, file)).transpose();
        Ok(Self {
            link: link.map_err(|error| match error {
                // Its own line names the file.
                gateway::SettingsError::File { .. } => Failure::new(Exit::Usage, error),
                _ => wrong(&error),
            }),
            rest: RestSettings::read(&text, file).map_err(|error| match error {
                rest::SettingsError::File { .. } => Failure::new(Exit::Usage, error),
                _ => wrong(&error),
            }),
        })
    }
}

/// Runs the command.
pub(super) fn run(args: &Run) -> Result<(), Failure> {
    let settings = Settings::load(&args.config)?;
    remote::run(serve(args, settings))
}

async fn serve(args: &Run, settings: Settings) -> Result<(), Failure> {
    // Listen for signals before anybody can be told that we are ready.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let watched = Watched::start(args.metrics, "gateway")?;
    let traces = ClientTraces::start(&args.trace, "surety-gateway")?;
    let (address, identity) = args.target.resolve(Role::Authorizer)?;
    // Whatever an engine does meanwhile, or does not.
    let opened = tokio::select! {
        opened = Doors::open(address, &identity, settings) => Some(opened?),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    let Some(doors) = opened else {
        tracing::info!("stopping, and nobody was served yet");
        return Ok(());
    };
    doors.clients().for_each(|client| traces.watch(client));
    watched.tell(doors.numbers(args.trace.otlp.is_some().then(|| traces.watcher())));
    watched.set_life(Life::Serving);
    let mut ready = doors.ready();
    if let Some(address) = watched.address() {
        ready.insert("metrics".to_owned(), json!(address.to_string()));
    }
    let _ = say(Value::Object(ready));
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break stopping("SIGTERM"),
            _ = interrupt.recv() => break stopping("SIGINT"),
            failure = doors.parted() => break Err(failure),
            _ = hangup.recv() => match Halves::read(&args.config) {
                // The engine may take its time, which is no reason to go on when this is to end.
                Ok(halves) => tokio::select! {
                    () = doors.reload(halves) => {}
                    _ = terminate.recv() => break stopping("SIGTERM"),
                    _ = interrupt.recv() => break stopping("SIGINT"),
                },
                Err(error) => tracing::error!(%error, "SIGHUP: settings stay as they were"),
            },
        }
    };
    watched.set_life(Life::Stopping);
    doors.close().await;
    ended
}

#[allow(clippy::unnecessary_wraps, reason = "what ends it otherwise is a failure")]
fn stopping(signal: &str) -> Result<(), Failure> {
    tracing::info!("{signal}: stopping");
    Ok(())
}
