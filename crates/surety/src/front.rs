//! `surety gateway`: front doors of a running engine, as processes of their own.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
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
    let Command::Run(args) = &args.command;
    let config = LinkConfig::load(&args.config).map_err(|error| settings_failure(args, &error))?;
    remote::runtime()?.block_on(serve(args, config))
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
    let gateway = Gateway::start(client, config).await.map_err(|error| match error {
        StartError::Listen { .. } => Failure::new(Exit::Address, error),
        StartError::Stream(_) => Failure::new(Exit::Unreachable, error),
        StartError::Book(_) | StartError::Mac(_) | StartError::Tls(_) => Failure::new(Exit::Usage, error),
    })?;
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
