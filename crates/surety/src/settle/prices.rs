//! `surety settle prices`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chain::RpcChain;
use clap::Args as ClapArgs;
use serde::Deserialize;
use serde_json::json;
use surety_protocol::{AssetId, QuoteId};
use tokio::signal::unix::{SignalKind, signal};
use watcher::price::{Aggregator, Fed, Feed, Feeder, Places, PriceFile, PriceSource, PriceUrl, Rules};

use super::nodes::{self, NODE_TIMEOUT, Node};
use crate::ctl::Target;
use crate::exit::{self, Exit, Failure, say};
use crate::remote::{self, Role, Session};
use crate::values::SpanText;

/// Asks price sources and sends what they agree on to every shard, until it is told to stop
///
/// A price is the median of the sources that are fresh and near the median of all; where too few are, or it would move too
/// far in one step, none is sent, and the engine stops making locks that need one when the last has become too old.
///
/// Configuration, for each [[price]]: asset, quote; places, so that the engine's base unit of the currency is 10^-places;
/// quorum, deviation_bps, jump_bps (0: no limit), age_max, every; sources, each { file = "PATH", price = "KEY/KEY", time =
/// "KEY/KEY" }, { name = "NAME", at = { url = ... }, price = ..., time = ... } or { aggregator =
/// "0x...", node = { url = ... } }.
///
/// Example: surety settle prices --data DIR --config prices.toml --state STATE
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// The prices and their sources: a TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the last price of each feed is kept, so that jump_bps holds across restarts; needed where one is not 0
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Takes the first price of each feed however far it is from the last one: after a jump that somebody has looked at
    #[arg(long)]
    accept_jump: bool,
    /// Ends after one price of each feed, with exit code 1 if one could not be had
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    price: Vec<Price>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    asset: u32,
    quote: u16,
    places: u8,
    quorum: usize,
    deviation_bps: u32,
    jump_bps: u32,
    age_max: SpanText,
    every: SpanText,
    sources: Vec<Origin>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Origin {
    File(FromFile),
    Aggregator(FromAggregator),
    Url(FromUrl),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromFile {
    file: PathBuf,
    price: String,
    time: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromAggregator {
    aggregator: String,
    node: Node,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromUrl {
    name: String,
    at: Node,
    price: String,
    time: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    remote::runtime()?.block_on(feed(args))
}

async fn feed(args: &Args) -> Result<(), Failure> {
    let settings: Settings = nodes::read(&args.config)?;
    let session = Session::open(&args.target, Role::Settler).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut feeds = Vec::new();
    for price in &settings.price {
        let sources = price.sources.iter().map(|from| from.open(price.places)).collect::<Result<_, _>>()?;
        let feed = Feed { asset: AssetId(price.asset), quote: QuoteId(price.quote), rules: price.rules() };
        let every = Duration::from_nanos(price.every.0.0).max(Duration::from_millis(100));
        feeds.push((remembering(args, Feeder::new(feed, sources, session.client().clone()))?, every));
    }
    if args.once {
        return once(feeds).await;
    }
    let _ = say(json!({ "ready": true, "feeds": feeds.len() }));
    for (mut feeder, every) in feeds {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let fed = feeder.turn().await;
                report(feeder.feed(), &fed);
            }
        });
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The feed with its last price, wherever that counts.
fn remembering(args: &Args, feeder: Feeder) -> Result<Feeder, Failure> {
    let Feed { asset, quote, rules } = *feeder.feed();
    let Some(state) = &args.state else {
        let message =
            format!("asset {asset} in {}: jump_bps needs --state DIR, where the last price is kept", quote.0);
        return if rules.jump_bps == 0 { Ok(feeder) } else { Err(Failure::new(Exit::Usage, message)) };
    };
    std::fs::create_dir_all(state)?;
    let file = state.join(format!("price-{asset}-{}", quote.0));
    let feeder = feeder.with_memory(file).map_err(|error| Failure::new(Exit::Corrupt, error));
    let mut feeder = feeder?;
    if args.accept_jump {
        feeder.accept_jump();
    }
    Ok(feeder)
}

async fn once(feeds: Vec<(Feeder, Duration)>) -> Result<(), Failure> {
    let mut all_told = Ok(());
    for (mut feeder, _) in feeds {
        let fed = feeder.turn().await;
        report(feeder.feed(), &fed);
        let Feed { asset, quote, .. } = feeder.feed();
        let price = fed
            .price
            .map_err(|error| Failure::new(Exit::Failure, format!("asset {asset} in {}: {error}", quote.0)))?;
        if fed.shards == 0 {
            return Err(Failure::new(Exit::Declined, "no shard took the price"));
        }
        let told = json!({
            "asset": asset.0, "quote": quote.0, "price": price.price.to_string(), "shards": fed.shards
        });
        // The other prices are fed whoever reads.
        all_told = all_told.and(say(told));
    }
    Ok(all_told?)
}

fn report(feed: &Feed, fed: &Fed) {
    let (asset, quote) = (feed.asset, feed.quote.0);
    for (source, trouble) in &fed.trouble {
        tracing::warn!(%asset, quote, source, %trouble, "a source has no price");
    }
    match fed.price {
        Ok(price) => tracing::info!(%asset, quote, price = price.price, shards = fed.shards, "fed"),
        Err(error) => tracing::error!(%asset, quote, %error, "no price"),
    }
}

impl Price {
    fn rules(&self) -> Rules {
        Rules {
            quorum: self.quorum,
            deviation_bps: self.deviation_bps,
            jump_bps: self.jump_bps,
            age_max: self.age_max.0,
        }
    }
}

impl Origin {
    fn open(&self, places: u8) -> Result<Arc<dyn PriceSource>, Failure> {
        let keys = |path: &str| path.split('/').map(str::to_owned).collect();
        let at = |price: &str, time: &Option<String>| Places {
            price: keys(price),
            time: time.as_deref().map(keys),
        };
        Ok(match self {
            Self::File(from) => {
                Arc::new(PriceFile::new(from.file.clone(), at(&from.price, &from.time), places))
            }
            Self::Url(from) => {
                let at = at(&from.price, &from.time);
                Arc::new(PriceUrl::new(&from.at.url()?, &from.name, at, places, NODE_TIMEOUT))
            }
            Self::Aggregator(from) => {
                let wrong = |_| Failure::new(Exit::Usage, format!("`{}` is no address", from.aggregator));
                let contract = from.aggregator.parse().map_err(wrong)?;
                let node = RpcChain::new(&from.node.url()?, NODE_TIMEOUT);
                Arc::new(Aggregator::new(node, contract, places))
            }
        })
    }
}
