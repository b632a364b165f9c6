//! `surety settle`: what stands between the engine and the chains: the settler, the watchers, the price feeder.

mod certify;
mod deploy;
mod nodes;
pub(crate) mod place;
mod prices;
mod run;
mod statement;
mod told;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use chain::{LocalKey, RpcChain};
use clap::{Args as ClapArgs, Subcommand};
use settler::{Journal, JournalError, LOG_FILE, Note, Published, SettlerError, ShelfError, StreamError};
use surety_client::TailError;

use crate::exit::{self, Exit, Failure, say};
use crate::remote;

/// Where the poster's key is read from.
const POSTER_KEY: &str = "SURETY_POSTER_KEY";
/// Where the key that answers calls is read from, if there is one.
const ANSWERER_KEY: &str = "SURETY_ANSWERER_KEY";
/// Where the key that signs certificates is read from.
const SIGNER_KEY: &str = "SURETY_SIGNER_KEY";
/// Where the deployer's key is read from.
const DEPLOYER_KEY: &str = "SURETY_DEPLOYER_KEY";
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Carries net changes to the chain, and the chain's facts to the engine; watches payers' payments and feeds prices
///
/// The settler is the only process that holds the poster's key, which it reads from the environment variable
/// SURETY_POSTER_KEY. It can be killed at any moment and goes on from its own directory, the engine's stream and the
/// chain. One directory, one process, one key.
///
/// Not for real money yet: what is known to be wrong stands in VERIFICATION.md under "Not covered".
///
/// Example: surety settle run --dir settler --contract settlement.json --rpc http://127.0.0.1:8545 --data DIR
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Settles until it is told to stop
    ///
    /// Prints one JSON line when it begins, and one for whatever happens. A halt ends it with exit code 1, now and at every
    /// start until `surety settle resume`. Where the engine goes on after a loss it ends with 10, and does not go on.
    ///
    /// With a second key in SURETY_ANSWERER_KEY, which needs ether for gas, it answers certificates that are called although the
    /// merchant was credited or has let go. Without one it only tells of them, and they are paid a second time.
    ///
    /// With --metrics it tells at /batches as well how far the last batches have come: `serve --console --console-settler IP:PORT`
    /// shows that.
    ///
    /// Example: surety settle run --dir settler --contract settlement.json --rpc http://127.0.0.1:8545 --data DIR
    #[command(after_help = exit::HELP)]
    Run(run::Args),
    /// Puts the contracts on a chain, and writes down where they are
    ///
    /// Reads the key that pays from SURETY_DEPLOYER_KEY. With --amp the manager alone is deployed, beside a token that is
    /// there already.
    ///
    /// Example: surety settle deploy --rpc http://127.0.0.1:8545 --engine ID --poster 0x.. --signer 0x.. --out settlement.json
    #[command(after_help = exit::HELP)]
    Deploy(deploy::Args),
    /// Writes every leaf of a batch with its proof, as JSON
    ///
    /// Needs nothing but the settler's directory, which may be in use.
    ///
    /// Example: surety settle proofs --dir settler --out proofs
    #[command(after_help = exit::HELP)]
    Proofs {
        /// The settler's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The batch; without it the last sealed one
        #[arg(long, value_name = "N")]
        batch: Option<u64>,
        /// Where `batch-N.json` goes
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Signs the certificates of locks, and hands them out
    ///
    /// Reads the engine's change stream and nothing else of it, and the signer's key from SURETY_SIGNER_KEY. A merchant asks
    /// with `GET /certificate/LOCK`, the lock's name on chain: tenant, partition and id in 64 hexadecimal digits behind 0x.
    ///
    /// Prints one JSON line when it begins, and one for each certified lock that gets no certificate, with the reason. Where the
    /// engine has dropped records that it has not read, it ends with exit code 1, unless told to --accept-gap: then merchants have
    /// to be set again (`surety ctl merchant`) before their locks are certified. With --rpc it begins only if the contract takes
    /// what it signs: otherwise exit code 4. Where the engine was restored without what this service has read, it ends with 10.
    ///
    /// Example: surety settle certify --dir certifier --contract settlement.json --data DIR
    #[command(after_help = exit::HELP)]
    Certify(certify::Args),
    /// Lets a settler go on that has halted, once its cause is gone
    ///
    /// Example: surety settle resume --dir settler
    #[command(after_help = exit::HELP)]
    Resume {
        /// The settler's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Payers' payments: what the release rule `confirmations` waits for
    ///
    /// Example: surety settle watch run --data DIR --config watch.toml --state STATE
    #[command(subcommand, after_help = exit::HELP)]
    Watch(watch::Command),
    Prices(prices::Args),
    Statement(statement::Args),
}

impl Args {
    /// True if a JSON object was asked for.
    pub(crate) const fn wants_json(&self) -> bool {
        match &self.command {
            Command::Statement(args) => args.json,
            Command::Watch(command) => command.wants_json(),
            _ => false,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Run(args) => run::run(args),
        Command::Deploy(args) => deploy::run(args),
        Command::Certify(args) => certify::run(args),
        Command::Proofs { dir, batch, out } => proofs(dir, *batch, out),
        Command::Resume { dir } => resume(dir),
        Command::Watch(command) => watch::run(command),
        Command::Prices(args) => prices::run(args),
        Command::Statement(args) => statement::run(args),
    }
}

/// A directory that a settler has written to, before anything is locked or made in it.
fn check_is_settlers(dir: &std::path::Path) -> Result<(), Failure> {
    if dir.join(LOG_FILE).exists() {
        return Ok(());
    }
    Err(Failure::new(Exit::Foreign, format!("no settler's log in {}: is this its --dir?", dir.display())))
}

fn proofs(dir: &std::path::Path, batch: Option<u64>, out: &std::path::Path) -> Result<(), Failure> {
    check_is_settlers(dir)?;
    let published = Published::read(dir, batch).map_err(|error| failure(&error))?;
    let published = published
        .ok_or_else(|| Failure::new(Exit::Failure, format!("{} has sealed no such batch", dir.display())))?;
    if !published.is_sound() {
        let message = format!(
            "the log of {} does not lead to the root of batch {}",
            dir.display(),
            published.batch.seq
        );
        return Err(Failure::new(Exit::Corrupt, message));
    }
    std::fs::create_dir_all(out)?;
    let file = out.join(format!("batch-{}.json", published.batch.seq));
    std::fs::write(&file, format!("{:#}\n", published.to_json()))?;
    say(file.display())?;
    Ok(())
}

fn resume(dir: &std::path::Path) -> Result<(), Failure> {
    check_is_settlers(dir)?;
    let _lock = storage::DirectoryLock::acquire(dir).map_err(|error| failure(&error.into()))?;
    let opened = Journal::open(dir).map_err(|error| failure(&error.into()))?;
    let (mut journal, scan) = opened
        .ok_or_else(|| Failure::new(Exit::Foreign, format!("{} is empty", dir.join(LOG_FILE).display())))?;
    let Some(Note::Life(settlement::life::Entry::Halted(halt))) = scan.notes.last() else {
        return Err(Failure::new(Exit::Failure, "it has not halted"));
    };
    journal.append(&Note::Resumed).map_err(|error| failure(&error.into()))?;
    say(format_args!("goes on after: {halt}"))?;
    Ok(())
}

fn node(url: &str) -> RpcChain {
    RpcChain::new(url, PATIENCE)
}

fn key(variable: &str) -> Result<LocalKey, Failure> {
    LocalKey::from_environment(variable).map_err(|error| Failure::new(Exit::Usage, error))
}

/// True where the engine goes on without what was read of it: starting again does not help.
const fn is_of_a_loss(error: &StreamError) -> bool {
    match error {
        StreamError::AfterLoss { .. } | StreamError::Tail(TailError::Parted { .. }) => true,
        StreamError::Tail(error) => remote::is_of_a_lost_life(error),
        StreamError::Silent(_) => false,
    }
}

/// What ends the settler, with its exit code.
fn failure(error: &SettlerError) -> Failure {
    let exit = match error {
        SettlerError::Journal(JournalError::Newer { .. }) => Exit::Newer,
        SettlerError::Journal(_)
        | SettlerError::Log(_)
        | SettlerError::OldLog { .. }
        | SettlerError::NoSnapshot { .. }
        | SettlerError::Snapshot(_)
        | SettlerError::Data(_)
        | SettlerError::Diverged(_)
        | SettlerError::Netting(_)
        | SettlerError::Shelf(ShelfError::Damaged { .. }) => Exit::Corrupt,
        SettlerError::Foreign
        | SettlerError::WrongChain
        | SettlerError::NoContract
        | SettlerError::NotPoster
        | SettlerError::NotSigner { .. } => Exit::Foreign,
        SettlerError::Lock(storage::LockError::Busy { .. }) => Exit::InUse,
        SettlerError::PosterAnswers => Exit::Usage,
        SettlerError::Engine(_) | SettlerError::Chain(_) => Exit::Unreachable,
        SettlerError::Stream(error) if is_of_a_loss(error) => Exit::Declined,
        _ => Exit::Failure,
    };
    Failure::new(exit, error)
}
