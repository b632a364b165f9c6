//! `gateway run`: one file of settings, the front doors in it, and the signals to their process.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use gateway::LinkConfig;
use rest::RestSettings;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::doors::Doors;
use crate::ctl::Target;
use crate::exit::{Exit, Failure};
use crate::remote::{self, Role};

/// Front doors.
#[derive(Debug, ClapArgs)]
pub(super) struct Run {
    #[command(flatten)]
    target: Target,
    /// The settings of the front doors
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// What a file says: of one front door, or of both.
pub(crate) struct Settings {
    /// Over ISO 8583.
    pub(crate) link: Option<LinkConfig>,
    /// Over REST.
    pub(crate) rest: Option<RestSettings>,
}

impl Settings {
    /// Reads a file, and what it names beside it.
    pub(crate) fn load(file: &Path) -> Result<Self, Failure> {
        let rest = RestSettings::load(file).map_err(|error| match error {
            // Its own line names the file.
            rest::SettingsError::File { .. } => Failure::new(Exit::Usage, error),
            _ => Failure::new(Exit::Usage, format!("{}: {error}", file.display())),
        })?;
        let is_rest_alone = rest.is_some() && !names_a_link(file)?;
        let link = (!is_rest_alone).then(|| link(file)).transpose()?;
        Ok(Self { link, rest })
    }
}

fn link(file: &Path) -> Result<LinkConfig, Failure> {
    LinkConfig::load(file).map_err(|error| match error {
        // Its own line names the file.
        gateway::SettingsError::File { .. } => Failure::new(Exit::Usage, error),
        _ => Failure::new(Exit::Usage, format!("{}: {error}", file.display())),
    })
}

/// True if anything in the file is of a link: then all of one has to be there.
fn names_a_link(file: &Path) -> Result<bool, Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    let table: toml::Table = text.parse().map_err(|error| wrong(&error))?;
    Ok(table.keys().any(|key| key != "rest"))
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
    let (address, identity) = args.target.resolve(Role::Authorizer)?;
    let doors = Doors::open(address, &identity, settings).await?;
    println!("{}", Value::Object(doors.ready()));
    loop {
        tokio::select! {
            _ = terminate.recv() => break tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: stopping"),
            _ = hangup.recv() => match Settings::load(&args.config) {
                Ok(settings) => doors.reload(settings),
                Err(error) => tracing::error!(%error, "SIGHUP: settings stay as they were"),
            },
        }
    }
    doors.close().await;
    Ok(())
}
