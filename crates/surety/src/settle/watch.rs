//! `surety settle watch`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;
use surety_client::Client;
use surety_protocol::{Amount, AssetId, Id, PartitionHandle, TenantId, Time};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use watcher::source::bitcoin::Bitcoin;
use watcher::source::ethereum::{Coin, Token};
use watcher::source::{SecondOpinion, Source};
use watcher::{Account, Config, Turn, Watch, WatchKey, Watcher, WatcherError, spool};

use super::nodes::{self, Node};
use crate::ctl::Target;
use crate::exit::{self, Exit, Failure, say};
use crate::remote::{self, Role, Session};
use crate::values;

/// The pause between two looks at a chain that has nothing new.
const POLL: Duration = Duration::from_secs(2);
/// A chain without a new block for so long is reported.
const SILENCE_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Add(Add),
}

/// Follows the chains of payers' assets until it is told to stop
///
/// One watcher for each [[asset]] of the configuration; each keeps its journal in --state, goes on where it was killed, and
/// settles or consumes each watched lock once. A node that is silent, or that a second one contradicts, decides nothing: the
/// engine then decides at the settle-by time.
///
/// Configuration, for each asset: id; kind = "token" (with token = "0x..."), "coin" or "bitcoin"; chain = "1", the chain's
/// number, or Bitcoin Core's name for it; node = { url = "http://..." } or { url_env = "VARIABLE" }, for Bitcoin with
/// login_env = "VARIABLE" (name:password); and, for money that matters, second = { ... }, another node.
///
/// Example: surety settle watch run --data DIR --config watch.toml --state STATE
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct Run {
    #[command(flatten)]
    target: Target,
    /// The assets and their nodes: a TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the journals are kept
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Reads an asset's chain from this block on, whatever the journal says: after a reorganization that stopped the watcher
    #[arg(long, value_name = "ASSET:BLOCK", value_parser = asset_and_block)]
    from_block: Vec<(AssetId, u64)>,
    /// Ends once everything that is there has been read and told, instead of waiting for more
    #[arg(long)]
    once: bool,
}

/// Adds a payment to wait for
///
/// Asset and confirmations are those of the partition's release rule, which must be `confirmations`. The watch is on the disk
/// when this returns; a watcher that runs takes it up by itself.
///
/// Example: surety settle watch add --data DIR --state STATE 0:1 0190a1b2-c3d4-7000-8000-000000000001 --tenant 7 --to 0xABC... --amount 5e6 --within 1h
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct Add {
    #[command(flatten)]
    target: Target,
    /// Where the watcher keeps its journals
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where the lock is: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// The lock
    #[arg(value_parser = values::id)]
    lock: Id,
    /// Whose lock
    #[arg(long, value_name = "N")]
    tenant: u32,
    /// The address that is to be paid, used for this payment alone
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// How much, in the asset's base units
    #[arg(long, value_parser = values::amount)]
    amount: Amount,
    /// By when, from now on the chain's clock
    #[arg(long, value_name = "SPAN", value_parser = values::span)]
    within: Time,
    /// If the payment fails, what the lock still holds is owed as well, not only what was captured
    #[arg(long)]
    owes_held: bool,
    /// End with one JSON object on its own line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    asset: Vec<Asset>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asset {
    id: u32,
    kind: Kind,
    chain: String,
    token: Option<String>,
    node: Node,
    second: Option<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Token,
    Coin,
    Bitcoin,
}

impl Command {
    /// True if a JSON object was asked for.
    pub(super) const fn wants_json(&self) -> bool {
        matches!(self, Self::Add(Add { json: true, .. }))
    }
}

/// Runs the command.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    let runtime = remote::runtime()?;
    match command {
        Command::Run(run) => runtime.block_on(follow(run)),
        Command::Add(add) => runtime.block_on(leave(add)),
    }
}

async fn follow(run: &Run) -> Result<(), Failure> {
    let settings: Settings = nodes::read(&run.config)?;
    let ids: BTreeSet<u32> = settings.asset.iter().map(|asset| asset.id).collect();
    if ids.len() != settings.asset.len() || ids.is_empty() {
        return Err(Failure::new(Exit::Usage, "the configuration names no asset, or one of them twice"));
    }
    let session = Session::open(&run.target, Role::Settler).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut watchers = JoinSet::new();
    for asset in &settings.asset {
        let id = AssetId(asset.id);
        let from_block = run.from_block.iter().find(|(of, _)| *of == id).map(|(_, block)| *block);
        let config = Config { directory: directory(&run.state, id), asset: id, from_block };
        start(asset, config, session.client().clone(), run.once, &mut watchers)?;
    }
    let _ = say(json!({ "ready": true, "assets": ids }));
    // One chain that cannot be followed is no reason to leave what is paid on the others undecided.
    let mut first_failure = Ok(());
    loop {
        let ended = tokio::select! {
            ended = watchers.join_next() => ended,
            // Whatever it is doing may be cut off: the journal is made for that.
            _ = terminate.recv() => return first_failure,
            _ = interrupt.recv() => return first_failure,
            () = session.client().life_lost() => return Err(remote::life_lost()),
        };
        let failure = match ended {
            None => return first_failure,
            Some(Ok(Ok(()))) => continue,
            Some(Ok(Err(failure))) => failure,
            Some(Err(error)) => Failure::new(Exit::Failure, format!("a watcher failed: {error}")),
        };
        if !watchers.is_empty() {
            tracing::error!(%failure, "an asset is no longer watched; the others are");
        }
        first_failure = first_failure.and(Err(failure));
    }
}

/// Opens an asset's sources and lets its watcher run.
fn start(
    asset: &Asset,
    config: Config,
    client: Client,
    once: bool,
    watchers: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    let wrong = |what: &str| Failure::new(Exit::Usage, format!("asset {}: {what}", asset.id));
    let number = || asset.chain.parse::<u64>().map_err(|_| wrong("`chain` is no number"));
    let nodes = || -> Result<_, Failure> {
        Ok((asset.node.open()?, asset.second.as_ref().map(Node::open).transpose()?))
    };
    if asset.token.is_some() != (asset.kind == Kind::Token) {
        return Err(wrong("`token` is for the kind \"token\", which needs it"));
    }
    match asset.kind {
        Kind::Token => {
            let token = asset.token.as_deref().unwrap_or_default();
            let (chain, token) = (number()?, token.parse().map_err(|_| wrong("`token` is no address"))?);
            spawn(nodes()?, |node| Token::new(node, chain, token), config, client, once, watchers)
        }
        Kind::Coin => {
            let chain = number()?;
            spawn(nodes()?, |node| Coin::new(node, chain), config, client, once, watchers)
        }
        Kind::Bitcoin => {
            spawn(nodes()?, |node| Bitcoin::new(node, &asset.chain), config, client, once, watchers)
        }
    }
}

fn spawn<S: Source>(
    (first, second): (chain::JsonRpc, Option<chain::JsonRpc>),
    source: impl Fn(chain::JsonRpc) -> S,
    config: Config,
    client: Client,
    once: bool,
    watchers: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    let asset = config.asset;
    match second {
        Some(second) => {
            let pair = SecondOpinion::new(source(first), source(second));
            let watcher = Watcher::open(config, pair, client).map_err(|error| stopped(asset, &error))?;
            watchers.spawn(keep_turning(asset, watcher, once));
        }
        None => {
            let watcher =
                Watcher::open(config, source(first), client).map_err(|error| stopped(asset, &error))?;
            watchers.spawn(keep_turning(asset, watcher, once));
        }
    }
    Ok(())
}

async fn keep_turning<S: Source>(asset: AssetId, mut watcher: Watcher<S>, once: bool) -> Result<(), Failure> {
    let mut was_silent = false;
    loop {
        let turn = watcher.turn().await.map_err(|error| stopped(asset, &error))?;
        report(asset, &turn, &mut was_silent);
        if once && turn.blocks == 0 {
            return match turn.trouble {
                Some(trouble) => Err(Failure::new(Exit::Failure, format!("asset {asset}: {trouble}"))),
                None if turn.waiting > 0 => {
                    let what = format!("asset {asset}: {} decisions wait for the engine", turn.waiting);
                    Err(Failure::new(Exit::Declined, what))
                }
                None => Ok(()),
            };
        }
        if turn.blocks == 0 {
            tokio::time::sleep(POLL).await;
        }
    }
}

fn report(asset: AssetId, turn: &Turn, was_silent: &mut bool) {
    if let Some(trouble) = &turn.trouble {
        tracing::warn!(%asset, %trouble, "the chain cannot be read");
    }
    let is_silent = turn.silence > SILENCE_MAX;
    if is_silent && !*was_silent {
        tracing::error!(%asset, seconds = turn.silence.as_secs(), "no new block");
    }
    *was_silent = is_silent;
}

async fn leave(add: &Add) -> Result<(), Failure> {
    let session = Session::open(&add.target, Role::Reader).await?;
    let partition = session.partition(add.partition).await?;
    let unknown = || Failure::new(Exit::Declined, format!("no partition {}", add.partition));
    let rule = partition.ok_or_else(unknown)?.policy.release_rule();
    let to = Account::new(&add.to).ok_or_else(|| Failure::new(Exit::Usage, "--to is no address"))?;
    let key = WatchKey { tenant: TenantId(add.tenant), partition: add.partition, lock: add.lock };
    let deadline = remote::now().plus(add.within);
    let asked = Watch {
        key,
        asset: match rule {
            surety_protocol::ReleaseRule::Confirmations { asset, .. } => asset,
            _ => AssetId(0),
        },
        to,
        amount: add.amount.0,
        confirmations: 0,
        deadline_s: deadline.0 / 1_000_000_000,
        owes_held: add.owes_held,
    };
    let watch = asked.by_rule(rule).map_err(|error| Failure::new(Exit::Declined, error))?;
    let directory = directory(&add.state, watch.asset);
    spool::leave(&directory, &watch)
        .map_err(|error| Failure::new(Exit::Failure, format!("{}: {error}", directory.display())))?;
    let confirmations = watch.confirmations;
    if add.json {
        let asset = watch.asset.0;
        say(json!({ "ok": true, "asset": asset, "confirmations": confirmations }))?;
    } else {
        say(format_args!("{key} is watched: asset {}, {confirmations} confirmations", watch.asset))?;
    }
    Ok(())
}

fn directory(state: &Path, asset: AssetId) -> PathBuf {
    state.join(format!("asset-{asset}"))
}

fn stopped(asset: AssetId, error: &WatcherError) -> Failure {
    let exit = match error {
        WatcherError::Journal(watcher::journal::JournalError::InUse(_)) => Exit::InUse,
        WatcherError::Journal(watcher::journal::JournalError::Damaged { .. }) => Exit::Corrupt,
        _ => Exit::Failure,
    };
    Failure::caused(exit, format!("asset {asset}"), error)
}

fn asset_and_block(text: &str) -> Result<(AssetId, u64), String> {
    let parts =
        text.split_once(':').and_then(|(asset, block)| Some((asset.parse().ok()?, block.parse().ok()?)));
    parts.map(|(asset, block)| (AssetId(asset), block)).ok_or_else(|| format!("`{text}` is not ASSET:BLOCK"))
}
