//! `surety settle run`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use chain::{Backend, SecondOpinion};
use clap::Args as ClapArgs;
use serde_json::json;
use settlement::life::{Action, DataPolicy};
use settler::{Config, Report, Settler, SettlerError};
use surety_client::{Client, Options, QuicConnector, QuicOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::told::SettlerNumbers;
use super::{ANSWERER_KEY, POSTER_KEY, failure, key, node, place};
use crate::ctl::Target;
use crate::exit::Failure;
use crate::remote::{self, Role};
use crate::values;
use crate::watched::{Life, MetricsArgs, Watched};

/// The pause after something that may pass: an engine or a node that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The settler's own directory, made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where the contracts are: the file that `surety settle deploy` has written
    #[arg(long, value_name = "FILE")]
    contract: PathBuf,
    /// A node of the chain
    #[arg(long, value_name = "URL")]
    rpc: String,
    /// A second node, of another make and operator, that must say the same
    #[arg(long, value_name = "URL")]
    second_rpc: Option<String>,
    #[command(flatten)]
    target: Target,
    /// How much each partition may have at risk beyond what the chain has been told, in base units; without it no caps are
    /// sent, and the engine does not notice a silent settler
    #[arg(long, value_name = "AMOUNT", value_parser = values::amount)]
    allowance: Option<surety_protocol::Amount>,
    /// Whose supplies are rewards for all suppliers of a partition
    #[arg(long, value_name = "ADDRESS")]
    treasury: Option<Address>,
    /// Seal at this age at the latest
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = values::span)]
    seal_after: surety_protocol::Time,
    /// Between two looks at the chain
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = values::span)]
    interval: surety_protocol::Time,
    /// Publish the data of every batch on chain
    #[arg(long)]
    publish_data: bool,
    #[command(flatten)]
    metrics: MetricsArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut chain: Box<dyn Backend> = match &args.second_rpc {
        Some(second) => Box::new(SecondOpinion::new(node(&args.rpc), node(second))),
        None => Box::new(node(&args.rpc)),
    };
    remote::runtime()?.block_on(settle(args, chain.as_mut()))
}

async fn settle(args: &Args, chain: &mut dyn Backend) -> Result<(), Failure> {
    let watched = Watched::start(args.metrics, "settler")?;
    let (mut settler, client) = open(args).await?;
    settler.check(chain).map_err(|error| failure(&error))?;
    let (sealed, last_final, booked) = settler.progress();
    let numbers = SettlerNumbers::new(settler.figures(), args.interval);
    watched.tell(numbers.clone());
    watched.set_life(Life::Serving);
    let mut begun = json!({ "settling": true, "sealed": sealed, "final": last_final, "booked": booked });
    if let Some(address) = watched.address() {
        begun["metrics"] = json!(address.to_string());
    }
    tell(&begun);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        if let Some(halt) = settler.halt() {
            return Err(failure(&SettlerError::Halted(halt)));
        }
        let pause = match settler.turn(chain).await {
            Ok(report) => {
                numbers.turned(settler.figures(), report.notices.len());
                show(&settler, &report);
                let is_busy = report.action != Action::Wait;
                if is_busy { Duration::ZERO } else { Duration::from_nanos(args.interval.0) }
            }
            Err(error) if error.may_pass() => {
                numbers.failed();
                tell(&json!({ "trouble": error.to_string() }));
                PAUSE
            }
            Err(error) => return Err(failure(&error)),
        };
        // Between two turns nothing is under way: a good moment to end.
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = client.life_lost() => return Err(remote::life_lost()),
            () = tokio::time::sleep(pause) => {}
        }
    }
    tell(&json!({ "settling": false }));
    Ok(())
}

/// The settler, and the client that it asks the engine with.
async fn open(args: &Args) -> Result<(Settler, Client), Failure> {
    let mut config = Config::new(&args.dir, place::read(&args.contract)?);
    config.policy.flush.age_max = args.seal_after;
    config.allowance = args.allowance.map(|amount| amount.0);
    config.treasury = args.treasury;
    if args.publish_data {
        config.policy.data = DataPolicy::ON_CHAIN;
    }
    let poster = key(POSTER_KEY)?;
    let (address, identity) = args.target.resolve(Role::Settler)?;
    let quic = QuicOptions {
        name: "surety settle".to_owned(),
        ..QuicOptions::new(address, remote::identity(&identity)?)
    };
    let failed = |error| remote::connect_failure(address, &error);
    let connector = QuicConnector::new(quic).map_err(failed)?;
    // What an earlier settler has seen of the engine: one that came back with older data is found out.
    let tokens = Settler::tokens(&args.dir).map_err(|error| failure(&error))?;
    let client = Client::over(Arc::new(connector), Options::default(), &tokens);
    let client = client.await.map_err(failed)?;
    let opened = Settler::open(config, client.clone(), Box::new(poster)).await;
    let mut settler = opened.map_err(|error| failure(&error))?;
    if std::env::var_os(ANSWERER_KEY).is_some() {
        settler.answer_with(Box::new(key(ANSWERER_KEY)?)).map_err(|error| failure(&error))?;
    }
    Ok((settler, client))
}

fn show(settler: &Settler, report: &Report) {
    if report.action != Action::Wait {
        let (sealed, last_final, booked) = settler.progress();
        let did = format!("{:?}", report.action);
        let did = did.split([' ', '(', '{']).next().unwrap_or_default().to_lowercase();
        tell(&json!({ "did": did, "sealed": sealed, "final": last_final, "booked": booked }));
    }
    for notice in &report.notices {
        tell(&json!({ "notice": notice.to_string() }));
    }
}

/// Tells a line. The service goes on whether anybody reads it or not.
fn tell(line: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
