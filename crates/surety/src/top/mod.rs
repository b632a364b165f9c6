//! `surety top`: the console's overview in a terminal, or as JSON for scripts. Of an admin listener it reads `/metrics` and nothing else, so it needs no
//! identity and no shard notices; of an engine elsewhere it shows what the wire tells.

mod scrape;
mod source;
mod view;
mod wire;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args as ClapArgs;
use console::Asset;
use console::overview::Overview;
use serde_json::json;

use crate::config::ConsoleSettings;
use crate::ctl::Target;
use crate::exit::{self, Exit, Failure};
use crate::{console as settings, remote};

use source::Source;

/// Between two readings.
const BEAT: Duration = Duration::from_secs(1);

/// Shows what an engine does, second by second
///
/// Reads the numbers of its admin listener, which `serve --admin` opens: rates, times to answer, why requests were not done, the collateral by
/// state, and the health of each shard's log. q ends it.
///
/// --once takes two readings, a second apart, and prints what happened between them; with --json as one object.
///
/// --connect shows as much of an engine elsewhere as its wire tells an operator's reader: what was recorded, by its answers, and the collateral. It
/// follows the whole change stream, 128 bytes a record. What was not admitted, times, disks and open locks are not told there: with --json they
/// are null.
///
/// Example: surety top --data DIR
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Address of the admin listener
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["data", "connect", "identity"])]
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
    remote::run(show(args))
}

async fn show(args: &Args) -> Result<(), Failure> {
    let mut source = Source::of(&args.target, args.admin)?;
    let mut assets = args.assets.clone();
    assets.extend(settings::assets(&ConsoleSettings::default())?);
    let mut overview = Overview::default();
    overview.take(now_ms(), source.read().await?);
    if args.once {
        tokio::time::sleep(BEAT).await;
        overview.take(now_ms(), source.read().await?);
        return print(args.json, source.tells_all(), &overview, &assets);
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::new(Exit::Usage, "there is no terminal to draw on; --once prints a second"));
    }
    view::watch(source, overview, &assets).await
}

fn print(is_json: bool, tells_all: bool, overview: &Overview, assets: &[Asset]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if is_json {
        let (mut second, mut standing) = (json!(overview.newest()), json!(overview.standing()));
        if !tells_all {
            wire::untell(&mut second, &mut standing);
        }
        let reasons = overview.reasons();
        let value = json!({ "ok": true, "second": second, "standing": standing, "reasons": reasons });
        writeln!(out, "{value}")?;
    } else {
        for line in view::lines(tells_all, overview, assets) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
