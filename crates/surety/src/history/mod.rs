//! `surety history`: the index of everything that happened: kept, asked, made anew, and compared.

mod answers;
pub(crate) mod asked;
mod child;
mod made;
mod numbers;
mod run;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use history::{AskError, AskerError, HistoryError, QueryError, StoreOptions};

use self::asked::{In, Moment, Nothing, OneLock, OpenPage, Page, Period};
use crate::exit::{self, Exit, Failure};
use crate::remote;

pub(crate) use self::answers::Answerer;
pub(crate) use self::child::{Child, Kept};

/// What an engine keeps free on its disk that nothing was configured of.
const ENGINE_FREE_BYTES_MIN: u64 = 256 << 20;

/// Keeps, asks, makes and compares the index of everything that happened
///
/// `surety serve --history` has it kept by a process of its own, which `run` is. It never is the truth: it can be made again from the log at
/// any time, and is then the same, to the byte. Questions go to that process; where nobody keeps the index they are answered from the disk.
///
/// Example: surety history records --data DIR --merchant 7 --kind capture --limit 20
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keeps the index of the engine that serves a directory, and answers questions on a socket in it
    ///
    /// Prints one JSON line {"ready":true,...} once questions are taken. It follows the engine as one of its clients and looks for it whenever
    /// it is not there. SIGTERM and SIGINT end it with 0. `surety serve --history` starts it by itself; deploy/ has a unit for it alone.
    ///
    /// Example: surety history run --data DIR --metrics 127.0.0.1:9405
    #[command(after_help = exit::HELP)]
    Run(run::Run),
    /// Makes the index anew, from the log and, where retention has taken the log's beginning, from an archive
    ///
    /// The index that is there stays until the new one is whole. Every record is replayed and compared on the way. Nobody may serve the
    /// directory meanwhile.
    ///
    /// Example: surety history rebuild --data DIR --archive /mnt/archive
    #[command(after_help = exit::HELP)]
    Rebuild {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Where `serve` keeps complete segments of the log (`archive` of [log])
        #[arg(long, value_name = "PLACE")]
        archive: Option<String>,
        /// What the engine keeps free on the disk, its `log.free_bytes_min`: below twice as many bytes and 784 MiB nothing is made
        #[arg(long, value_name = "BYTES", default_value_t = ENGINE_FREE_BYTES_MIN)]
        free_bytes_min: u64,
        /// End with one JSON object on its own line
        #[arg(long)]
        json: bool,
    },
    /// Tells a number over everything in the index: the same for the same records, however they came in
    ///
    /// Of an index that nobody keeps: it reads all of it. One that was kept may end before the log's last record: two can be compared
    /// where they end at the same seqs, which are told.
    ///
    /// Example: surety history digest --data DIR
    #[command(after_help = exit::HELP)]
    Digest {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// End with one JSON object on its own line
        #[arg(long)]
        json: bool,
    },
    /// Prints the records that every condition holds of
    ///
    /// The same condition given more than once means any of them. The last line tells the cursor to go on with.
    ///
    /// Example: surety history records --data DIR --lock 0190a1b2-c3d4-7000-8000-000000000001 --oldest-first
    #[command(after_help = exit::HELP)]
    Records(In<Page>),
    /// Prints the locks that every condition holds of, as they stand now, in the order in which they were made
    ///
    /// Example: surety history locks --data DIR --state live --tenant 1 --json
    #[command(after_help = exit::HELP)]
    Locks(In<Page>),
    /// Prints locks that are live, the oldest first, or the one that ends soonest
    ///
    /// Example: surety history open --data DIR --by-deadline --limit 20
    #[command(after_help = exit::HELP)]
    Open(In<OpenPage>),
    /// Prints a lock as it stands now, and every record that made or changed it
    ///
    /// Example: surety history lock --data DIR 0190a1b2-c3d4-7000-8000-000000000001
    #[command(after_help = exit::HELP)]
    Lock(In<OneLock>),
    /// Prints what changed the money of a partition, a supplier or a merchant in a period, between what there was and what there is
    ///
    /// It is checked that the lines add up before the last one is printed. CSV by default: one line each for the opening, every record that moved
    /// something, and the closing. Without --until it ends at the time of the last record that the log has of the account's shards, which is not in it
    /// any more: others may come of the same moment.
    ///
    /// Example: surety history statement --data DIR 0:1 --from 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z
    #[command(after_help = exit::HELP)]
    Statement(In<Period>),
    /// Prints the money of a partition or a supplier as of a moment
    ///
    /// Example: surety history balances --data DIR 0:1 --at 2026-11-01T00:00:00Z
    #[command(after_help = exit::HELP)]
    Balances(In<Moment>),
    /// Shows how far the index has come, and how it is doing
    ///
    /// Example: surety history status --data DIR --json
    #[command(after_help = exit::HELP)]
    Status(In<Nothing>),
}

impl Args {
    /// True of the process that keeps an index.
    pub(crate) const fn is_service(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }

    /// True if the last line is to be a JSON object.
    pub(crate) const fn wants_json(&self) -> bool {
        match &self.command {
            Command::Run(_) => false,
            Command::Rebuild { json, .. } | Command::Digest { json, .. } => *json,
            Command::Status(status) => status.json,
            Command::Records(page) | Command::Locks(page) => page.json,
            Command::Open(page) => page.json,
            Command::Lock(one) => one.json,
            Command::Statement(period) => period.json,
            Command::Balances(moment) => moment.json,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Run(args) => run::run(args),
        Command::Rebuild { data, archive, free_bytes_min, json } => {
            made::rebuild(data, archive.as_deref(), &StoreOptions::beside(*free_bytes_min), *json)
        }
        Command::Digest { data, json } => made::digest(data, *json),
        asking => remote::run(ask(asking)),
    }
}

async fn ask(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Records(it) => asked::records(&mut it.source()?, &it.words, it.json).await,
        Command::Locks(it) => asked::locks(&mut it.source()?, &it.words, it.json).await,
        Command::Open(it) => asked::open(&mut it.source()?, &it.words, it.json).await,
        Command::Lock(it) => asked::lock(&mut it.source()?, &it.words, it.json).await,
        Command::Statement(it) => asked::statement(&mut it.source()?, &it.words, it.json).await,
        Command::Balances(it) => asked::balances(&mut it.source()?, &it.words, it.json).await,
        Command::Status(it) => asked::status(&mut it.source()?, it.json).await,
        Command::Run(_) | Command::Rebuild { .. } | Command::Digest { .. } => {
            unreachable!("run has taken it")
        }
    }
}

/// Why the index cannot be used, with its exit code.
pub(crate) fn failure(error: &HistoryError) -> Failure {
    let exit = match error {
        HistoryError::InUse(_) => Exit::InUse,
        HistoryError::Newer { .. } => Exit::Newer,
        HistoryError::Foreign { .. } | HistoryError::Older { .. } | HistoryError::Missing(_) => Exit::Foreign,
        HistoryError::Damaged { .. }
        | HistoryError::Archived { .. }
        | HistoryError::OtherLog { .. }
        | HistoryError::Diverged { .. }
        | HistoryError::Ahead { .. }
        | HistoryError::Epoch { .. }
        | HistoryError::Log { .. } => Exit::Corrupt,
        _ => Exit::Failure,
    };
    Failure::caused(exit, "history", error)
}

/// Why a question is not answered, with its exit code.
fn question_failure(error: &AskError) -> Failure {
    match error {
        AskError::Query(QueryError::History(error)) => failure(error),
        error => Failure::new(exit_of(history::Fault::of(error).name()), error),
    }
}

/// Why there is no answer, with its exit code.
pub(crate) fn asker_failure(error: &AskerError) -> Failure {
    match error {
        // As where it is busy: what is asked for is on its way.
        AskerError::Refused { code, message, is_retryable: true }
            if *code == history::Fault::NotComplete.name() =>
        {
            Failure::new(Exit::Unreachable, message)
        }
        AskerError::Refused { code, message, .. } => Failure::new(exit_of(code), message),
        error => Failure::new(Exit::Unreachable, error),
    }
}

/// The exit code for a refusal of ASK.md.
fn exit_of(code: &str) -> Exit {
    use history::Fault;
    let fault = Fault::ALL.into_iter().find(|fault| fault.name() == code);
    match fault {
        Some(Fault::Malformed | Fault::TooLong | Fault::NotComplete) => Exit::Usage,
        Some(Fault::Forbidden) => Exit::Declined,
        Some(Fault::Damaged) => Exit::Corrupt,
        Some(Fault::Busy) => Exit::Unreachable,
        Some(Fault::Failed | Fault::UnknownPartition) | None => Exit::Failure,
    }
}
