//! `surety ctl`: operating a running engine, over the same wire as everybody else.

mod answer;
mod directory_of;
mod money;
mod partition;
mod policy;
mod query;
mod status;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use crate::exit::{self, Failure};
use crate::remote::{Role, Session};

/// Operates a running engine: partitions, policies, prices, stake, tenants, look-ups
///
/// Finds engine and identity through --data (a data directory in use on this machine), or through --connect and
/// --identity. Changes need the role that the engine asks for; with --data the right development identity is taken.
///
/// Example: surety ctl --data DIR partition create 0:1 --asset 1
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// End with one JSON object on its own line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Where the help of each command lists what says which engine; otherwise it stands between the command's own options.
const ENGINE: &str = "Engine";

/// Which engine, and as whom.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Target {
    /// A data directory in use on this machine: its address and development identities
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "connect", help_heading = ENGINE)]
    pub(crate) data: Option<PathBuf>,
    /// Address of shard 0
    #[arg(long, value_name = "IP:PORT", global = true, requires = "identity", help_heading = ENGINE)]
    pub(crate) connect: Option<SocketAddr>,
    /// Identity to connect with: a PEM file with certificate, key and authority
    #[arg(long, value_name = "FILE", global = true, help_heading = ENGINE)]
    pub(crate) identity: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows every shard: epoch, marks, engine time
    ///
    /// Example: surety ctl --data DIR status
    #[command(after_help = exit::HELP)]
    Status,
    /// Partitions: slices of collateral, each on one shard for ever
    ///
    /// Example: surety ctl --data DIR partition show 0:1
    #[command(subcommand, after_help = exit::HELP)]
    Partition(partition::Command),
    /// Policies: the rules by which a partition locks and releases
    ///
    /// Example: surety ctl --data DIR policy set 0:1 life_default=30s lock_max=1e24
    #[command(subcommand, after_help = exit::HELP)]
    Policy(policy::Command),
    /// Prices of collateral in quote currencies
    ///
    /// Example: surety ctl --data DIR price set 4000 --asset 1 --quote 840
    #[command(subcommand, after_help = exit::HELP)]
    Price(money::PriceCommand),
    /// Adds a supplier's collateral that is final on chain
    ///
    /// Example: surety ctl --data DIR deposit 0:1 1e24 --supplier 0x00000000000000000000000000000000000000aa --nonce 1
    #[command(after_help = exit::HELP)]
    Deposit(money::Deposit),
    /// Takes a supplier's units out, at once or when unbonding ends
    ///
    /// Example: surety ctl --data DIR withdraw 0:1 1e20 --supplier 0x00000000000000000000000000000000000000aa
    #[command(after_help = exit::HELP)]
    Withdraw(money::Withdraw),
    /// Losses: what the chain lacks, and value that advices have exposed
    ///
    /// Example: surety ctl --data DIR loss cover 0:1 5e18
    #[command(subcommand, after_help = exit::HELP)]
    Loss(money::LossCommand),
    /// Locks
    ///
    /// Example: surety ctl --data DIR lock show 0:1 0190a1b2-c3d4-7000-8000-000000000001 --tenant 7
    #[command(subcommand, after_help = exit::HELP)]
    Lock(query::LockCommand),
    /// Suppliers' positions in a partition
    ///
    /// Example: surety ctl --data DIR supplier 0:1
    #[command(after_help = exit::HELP)]
    Supplier(partition::Supplier),
    /// Tenants and their quotas
    ///
    /// Example: surety ctl --data DIR tenant set 7 --locks-max 1000000
    #[command(subcommand, after_help = exit::HELP)]
    Tenant(directory_of::TenantCommand),
    /// Gives a tenant rights on a partition
    ///
    /// Example: surety ctl --data DIR grant 0:1 7 authorize,read
    #[command(after_help = exit::HELP)]
    Grant(directory_of::Grant),
    /// Sets a merchant's payee and release key
    ///
    /// Example: surety ctl --data DIR merchant 9 --tenant 7 --payee 0x00000000000000000000000000000000000000bb
    #[command(after_help = exit::HELP)]
    Merchant(directory_of::Merchant),
    /// Asks the history what has happened; without a question of these, prints records of the change stream
    ///
    /// The questions are those of `surety history`, asked of an engine that keeps one (`surety serve --history`), on behalf of whoever
    /// the identity is: a tenant sees what is its own, the operator's readers, settlers and admins everything. The change stream begins
    /// where the log does, and needs no history.
    ///
    /// Example: surety ctl --data DIR query --shard 0 --from 1 --kind capture --limit 20
    #[command(after_help = exit::HELP)]
    Query(Box<query::Query>),
    /// Prints a link that opens the console once, within a minute
    ///
    /// The link is signed with the identity's key, and whoever opens it is signed in as that identity: its tenant, its roles, its
    /// name in the log. What it says stands behind the # of the address, which browsers send to nobody. --connect needs --url.
    ///
    /// Example: surety ctl --data DIR console-link
    #[command(after_help = exit::HELP)]
    ConsoleLink(crate::console::LinkArgs),
    /// The engine's clock
    ///
    /// Example: surety ctl --data DIR clock accept
    #[command(subcommand, after_help = exit::HELP)]
    Clock(status::ClockCommand),
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let Command::Clock(command) = &args.command {
        // The engine is down when this is needed.
        return status::clock(command, &args.target, args.json);
    }
    crate::remote::run(execute(args))
}

async fn execute(args: &Args) -> Result<(), Failure> {
    let open = |role| Session::open(&args.target, role);
    let json = args.json;
    match &args.command {
        Command::Status => status::status(&open(Role::Reader).await?, json).await,
        Command::Partition(command) if command.is_reading() => {
            partition::read(&open(Role::Reader).await?, command, json).await
        }
        Command::Partition(command) => partition::change(&open(Role::Admin).await?, command, json).await,
        Command::Policy(policy::Command::Get { partition }) => {
            policy::get(&open(Role::Reader).await?, *partition, json).await
        }
        Command::Policy(policy::Command::Set(set)) => {
            policy::set(&open(Role::Reader).await?, &open(Role::Admin).await?, set, json).await
        }
        Command::Price(command) => money::price(&open(Role::Settler).await?, command, json).await,
        Command::Deposit(command) => money::deposit(&open(Role::Settler).await?, command, json).await,
        Command::Withdraw(command) => money::withdraw(&open(Role::Settler).await?, command, json).await,
        Command::Loss(command) => money::loss(&open(Role::Admin).await?, command, json).await,
        Command::Lock(command) => query::lock(&open(Role::Settler).await?, command, json).await,
        Command::Supplier(command) => partition::suppliers(&open(Role::Reader).await?, command, json).await,
        Command::Tenant(command) => directory_of::tenant(&args.target, command, json).await,
        Command::Grant(command) => directory_of::grant(&open(Role::Admin).await?, command, json).await,
        Command::Merchant(command) => directory_of::merchant(&open(Role::Admin).await?, command, json).await,
        Command::Query(command) => query::query(open(Role::Reader).await?, command, json).await,
        Command::ConsoleLink(command) => crate::console::link(&args.target, command, json).await,
        Command::Clock(_) => unreachable!("run has taken it"),
    }
}
