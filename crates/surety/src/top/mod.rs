//! `surety top`: the console's overview in a terminal, or as JSON for scripts. It reads `/metrics` and nothing else, so it needs no identity and no
//! shard notices.

mod scrape;
mod view;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args as ClapArgs;
use console::Asset;
use console::overview::Overview;
use serde_json::json;

use crate::config::ConsoleSettings;
use crate::directory::Serving;
use crate::exit::{self, Exit, Failure};
use crate::{console as settings, remote};

use scrape::scrape;

/// Between two readings.
const BEAT: Duration = Duration::from_secs(1);

/// Shows what an engine does, second by second
///
/// Reads the numbers of its admin listener, which `serve --admin` opens: rates, times to answer, why requests were not done, the collateral by
/// state, and the health of each shard's log. q ends it.
///
/// --once takes two readings, a second apart, and prints what happened between them; with --json as one object.
///
/// Example: surety top --data DIR
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    /// A data directory in use on this machine, served with --admin
    #[arg(long, value_name = "DIR", required_unless_present = "admin")]
    data: Option<PathBuf>,
    /// Address of the admin listener
    #[arg(long, value_name = "IP:PORT", conflicts_with = "data")]
    admin: Option<SocketAddr>,
    /// How an asset is called and written, as often as there are some [default: 1=AMP/18]
    #[arg(long = "asset", value_name = "NUMBER=NAME/DECIMALS", value_parser = Asset::read)]
    assets: Vec<Asset>,
    /// Print one second, and end
    #[arg(long)]
    once: bool,
    /// With --once: one JSON object on its own line
    #[arg(long, requires = "once")]
    pub(crate) json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    remote::runtime()?.block_on(show(args))
}

async fn show(args: &Args) -> Result<(), Failure> {
    let address = args.address()?;
    let mut assets = args.assets.clone();
    assets.extend(settings::assets(&ConsoleSettings::default())?);
    let mut overview = Overview::default();
    overview.take(now_ms(), scrape(address).await?);
    if args.once {
        tokio::time::sleep(BEAT).await;
        overview.take(now_ms(), scrape(address).await?);
        return print(args.json, &overview, &assets);
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::new(Exit::Usage, "there is no terminal to draw on; --once prints a second"));
    }
    view::watch(address, overview, &assets).await
}

impl Args {
    fn address(&self) -> Result<SocketAddr, Failure> {
        match (&self.admin, &self.data) {
            (Some(address), _) => Ok(*address),
            (None, Some(data)) => Serving::find(data)?.admin.ok_or_else(|| {
                let message = format!(
                    "{} is served without an admin listener: start `surety serve --admin IP:PORT`",
                    data.display()
                );
                Failure::new(Exit::Unreachable, message)
            }),
            (None, None) => {
                Err(Failure::new(Exit::Usage, "which engine? give --data DIR or --admin IP:PORT"))
            }
        }
    }
}

fn print(is_json: bool, overview: &Overview, assets: &[Asset]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if is_json {
        let value = json!({
            "ok": true,
            "second": overview.newest(),
            "standing": overview.standing(),
            "reasons": overview.reasons(),
        });
        writeln!(out, "{value}")?;
    } else {
        for line in view::lines(overview, assets) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
