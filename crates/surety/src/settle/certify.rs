//! `surety settle certify`.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use chain::DigestSigner;
use clap::Args as ClapArgs;
use serde_json::json;
use settlement::{LockId, Word};
use settler::{Certifier, CertifierConfig, Counter, Gap, Missed, SettlerError, Shelf};
use surety_client::{Client, Options, QuicConnector, QuicOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::told::CertifierNumbers;
use super::{SIGNER_KEY, failure, key, node, place};
use crate::ctl::Target;
use crate::exit::{Exit, Failure};
use crate::remote::{self, Role};
use crate::values;
use crate::watched::{Life, MetricsArgs, Watched};

/// Between two looks for a signal while nothing is stated.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The service's own directory, made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where the contracts are: the file that `surety settle deploy` has written
    #[arg(long, value_name = "FILE")]
    contract: PathBuf,
    #[command(flatten)]
    target: Target,
    /// Where certificates are handed out over HTTP; they are no secret, but keep it off the internet
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8470")]
    listen: SocketAddr,
    /// Also write each certificate into this directory, as LOCK.json
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long after a lock's deadline its certificate is kept
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = values::span)]
    keep: surety_protocol::Time,
    /// A node of the chain: checks at the start that contract and key fit, and that the contract takes what is signed
    #[arg(long, value_name = "URL")]
    rpc: Option<String>,
    /// Go on where the engine has dropped records that were not read: locks of that time get no certificate
    #[arg(long)]
    accept_gap: bool,
    /// Locks that are kept in memory, about 400 bytes each; all others are on the disk
    #[arg(long, value_name = "N", default_value_t = 1 << 18, value_parser = clap::value_parser!(u64).range(1024..=1 << 24))]
    locks_in_memory: u64,
    #[command(flatten)]
    metrics: MetricsArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    remote::runtime()?.block_on(certify(args))
}

async fn certify(args: &Args) -> Result<(), Failure> {
    let signer = key(SIGNER_KEY)?;
    let address = signer.address();
    let config = CertifierConfig {
        directory: args.dir.clone(),
        place: place::read(&args.contract)?,
        claim_span: args.keep,
        checkpoint_every: Duration::from_secs(10),
        locks_in_memory: usize::try_from(args.locks_in_memory).unwrap_or(usize::MAX),
    };
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out)?;
        // What is in it outlives a power cut only if it does itself.
        if let Some(parent) = out.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    let watched = Watched::start(args.metrics, "certifier")?;
    let client = connect(args).await?;
    let opened = Certifier::open(config, client.clone(), Box::new(signer));
    let mut certifier = opened.map_err(|error| failure(&error))?;
    if let Some(rpc) = &args.rpc {
        certifier.check(&node(rpc)).map_err(|error| failure(&error))?;
    }
    let shelf = certifier.shelf();
    let taken = |error: std::io::Error| Failure::caused(Exit::Address, args.listen, &error);
    let counter = Counter::open(args.listen, &shelf).map_err(taken)?;
    let numbers = CertifierNumbers::new(&certifier);
    watched.tell(numbers.clone());
    watched.set_life(Life::Serving);
    let mut begun = json!({ "certifying": true, "listen": counter.address(), "signer": address.to_string() });
    if let Some(address) = watched.address() {
        begun["metrics"] = json!(address.to_string());
    }
    tell(&begun);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let turn = match certifier.turn() {
            Err(SettlerError::Gap(gap)) if args.accept_gap => {
                let Gap { shard, from, oldest } = gap;
                numbers.skipped();
                tell(&json!({ "gap": { "shard": shard.0, "from": from.0, "oldest": oldest.0 } }));
                certifier.accept(gap).await
            }
            turn => turn,
        };
        let turn = turn.map_err(|error| failure(&error))?;
        numbers.turned(&certifier, &turn);
        for Missed { lock, why } in &turn.missed {
            tell(&json!({ "missed": B256::from(lock.word()).to_string(), "why": why.to_string() }));
        }
        if let Some(out) = &args.out {
            leave(out, &shelf, &turn.made)?;
        }
        if certifier.is_save_due() {
            certifier.save().map_err(|error| failure(&error))?;
        }
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // Nothing is saved: a directory that stands before the loss can go on.
            () = client.life_lost() => return Err(remote::life_lost()),
            () = certifier.wait(PAUSE) => {}
        }
    }
    watched.set_life(Life::Stopping);
    certifier.save().map_err(|error| failure(&error))?;
    tell(&json!({ "certifying": false, "certificates": shelf.len() }));
    Ok(())
}

async fn connect(args: &Args) -> Result<Client, Failure> {
    let (address, identity) = args.target.resolve(Role::Reader)?;
    let quic = QuicOptions {
        name: "surety certify".to_owned(),
        ..QuicOptions::new(address, remote::identity(&identity)?)
    };
    let failed = |error| remote::connect_failure(address, &error);
    let connector = QuicConnector::new(quic).map_err(failed)?;
    let tokens = Certifier::tokens(&args.dir).map_err(|error| failure(&error))?;
    let client = Client::over(Arc::new(connector), Options::default(), &tokens);
    client.await.map_err(failed)
}

/// Each file is there whole, or not at all, and outlives a power cut before the checkpoint that passes it by.
fn leave(out: &Path, shelf: &Shelf, made: &[LockId]) -> Result<(), Failure> {
    for lock in made {
        let found = shelf.certificate(lock).map_err(|error| failure(&error.into()))?;
        let Some(certificate) = found else { continue };
        let temporary = out.join(format!("{}.tmp", certificate.lock_id()));
        let mut file = File::create(&temporary)?;
        writeln!(file, "{:#}", certificate.to_json())?;
        file.sync_all()?;
        std::fs::rename(temporary, out.join(format!("{}.json", certificate.lock_id())))?;
    }
    if !made.is_empty() {
        File::open(out)?.sync_all()?;
    }
    Ok(())
}

/// Tells a line. The service goes on whether anybody reads it or not.
fn tell(line: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
