//! `surety load`: the load generator, and the check that nothing it was told is lost. The work is done in `loadtest`.

mod check;
mod compare;
mod generator;
mod job;
mod knee;
mod merge;
mod processes;
mod scenarios;
mod tell;
mod view;

use std::future::poll_fn;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use loadtest::{HlogError, Injection, LoadError, OnSecond, Rate, Report};
use serde_json::{Value, json};
use surety_protocol::Time;
use tokio::sync::watch;

use crate::exit::{self, Exit, Failure};
use crate::remote;
use crate::values;
use job::Job;
use tell::tell;
use view::{Title, View};

/// Sends payments to a running engine and measures
///
/// With --rate payments begin by a schedule that is fixed beforehand, and latency counts from the intended start, so a
/// slow engine cannot hide (open loop). Without it --in-flight payments are always under way (closed loop).
///
/// With --data the scenario's tenant, partitions, policies and deposits are made first, as often as you like; with
/// --connect they must be there. --acks FILE appends every reply received, which `surety load check` then finds in the log.
///
/// --check compares the money afterwards: every lock is looked up (of more than 200,000 so many by chance), and every reply's record is found
/// in the durable change stream. --inject spoils the way between client and engine: it loses and delays replies, sends requests twice and kills
/// connections; the money must agree all the same.
///
/// --transport rest makes the payments at a REST front door (`surety gateway run` with `[rest]`), whose token must be of the
/// authorizer's tenant; the engine itself is asked for partitions before, and for the money check after. A door's own limits on rates
/// hold for the generator too.
///
/// --transport iso8583 makes them as an acquirer's host does, at a link whose settings --link names: lock 0100, sale 0200, advise 0120 and
/// its 0220, the last capture 0220, release and reverse 0400, each said again as a repeat until it is answered, for a minute. Settle and consume
/// are the chain's and go to the engine itself: they are counted, and not in the latencies. tap, tip, fuel, lock-release, timeout-storm, standin and failure-wave can be said so; what increases,
/// refunds or captures in parts is refused before the run. A scenario's amounts are the currency's minor units.
///
/// --processes N makes the run with N processes of this program that begin at the same moment: they share the rate and the
/// payments under way, and the report is one, with the percentiles of all answers.
///
/// On a terminal the run is shown while it lasts. q, an interrupt or SIGTERM end it early, with its report; a second one at once. --no-view tells a line a second instead.
///
/// --report FILE.html writes a page with plots, --hlog FILE an interval log that the tools of `HdrHistogram` read.
///
/// Example: surety load --data DIR --scenario tap --rate 5000 --duration 10s --report tap.html --json
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    load: Box<Load>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Finds the record of every reply in a closed data directory, exactly once, and compares what the record holds
    ///
    /// What a reply says of the moment alone (what is free, what remains of the lock, its version) is in no record. Exit code 0:
    /// nothing is lost. 1: something is missing, different, doubled, or older than the log that is left.
    ///
    /// Example: surety load check --acks acks.bin --data DIR --json
    #[command(after_help = exit::HELP)]
    Check(check::Check),
    /// Finds the highest rate at which the 99th percentile of the latency still keeps to a limit
    ///
    /// Doubles the rate until the limit is passed, then halves the distance. Arrivals are at random. It searches at an engine, over QUIC:
    /// what a front door takes is found by runs of `surety load --transport` at rates of your own.
    ///
    /// Example: surety load find-knee --data DIR --scenario tap --p99 10ms --duration 5s --json
    #[command(after_help = exit::HELP)]
    FindKnee(Box<knee::Args>),
    /// Compares two runs, each the JSON that `surety load --json` has printed
    ///
    /// Exit code 0: the second is not worse. 1: a figure is worse by more than --tolerance, or a run was not sound.
    ///
    /// Example: surety load compare before.json after.json --tolerance 10
    #[command(after_help = exit::HELP)]
    Compare(compare::Args),
    /// Makes one run of several that were made together, each the JSON that `surety load --json` has printed
    ///
    /// Counts and rates are added, percentiles are those of all answers of all runs, and seconds count from each one's own start.
    /// Runs of another scenario, pace or durability are refused. Exit code 1: one of them was not sound.
    ///
    /// Example: surety load merge here.json there.json --report both.html --json
    #[command(after_help = exit::HELP)]
    Merge(merge::Args),
    /// One process of a run: what to do comes from the process that has started it, on standard input
    ///
    /// Example: surety load --data DIR --processes 2
    #[command(hide = true, after_help = exit::HELP)]
    Generator,
    /// Lists the scenarios that come with the generator, or prints one to begin a file of your own with
    ///
    /// Example: surety load scenarios hotel > stay.toml; surety load --data DIR --scenario stay.toml
    #[command(after_help = exit::HELP)]
    Scenarios(scenarios::Args),
}

/// Which engine, and which payments.
#[derive(Debug, ClapArgs)]
struct Engine {
    /// A data directory in use on this machine: its address and development identities
    #[arg(long, value_name = "DIR", conflicts_with = "connect")]
    data: Option<PathBuf>,
    /// Address of shard 0
    #[arg(long, value_name = "IP:PORT", requires = "identity")]
    connect: Option<std::net::SocketAddr>,
    /// Identity of the authorizer: a PEM file
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// A built-in scenario (`surety load scenarios` lists them) or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "tap")]
    scenario: String,
}

/// How payments travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// Frames over QUIC, to the engine itself.
    Quic,
    /// HTTP, at a REST front door.
    Rest,
    /// ISO 8583, at a link for acquirers' hosts.
    Iso8583,
}

/// The front door of `--transport rest` or `--transport iso8583`.
#[derive(Debug, ClapArgs)]
struct DoorArgs {
    /// Address of the front door
    #[arg(long, value_name = "IP:PORT")]
    door: Option<std::net::SocketAddr>,
    /// The bearer token of a REST front door: a file, since a command line can be read by everybody
    #[arg(long, value_name = "FILE", requires = "door")]
    token: Option<PathBuf>,
    /// The settings of an ISO 8583 link, as it is run with them: header, edition, encoding, currency, keys of ids and MACs are read
    #[arg(long, value_name = "FILE", requires = "door")]
    link: Option<PathBuf>,
    /// Of a REST front door: the asset of the scenario's partitions as the door's settings have it; amounts of a scenario are its smallest there
    #[arg(long, value_name = "NAME:DECIMALS:SCALE", default_value = "AMP:18:2")]
    asset: String,
    /// Authority of the door's certificate, a PEM file: with it the door is spoken to over TLS. Wanted where a token would travel to another machine
    #[arg(long, value_name = "FILE", requires_all = ["door", "door_name"])]
    door_ca: Option<PathBuf>,
    /// The name that has to stand in that certificate
    #[arg(long, value_name = "NAME", requires = "door_ca")]
    door_name: Option<String>,
}

/// A run.
#[derive(Debug, ClapArgs)]
struct Load {
    #[command(flatten)]
    engine: Engine,
    /// How payments travel: as frames of the engine's own protocol, over HTTP at a REST front door, or over ISO 8583 at a link
    #[arg(long, value_enum, default_value_t = Transport::Quic)]
    transport: Transport,
    #[command(flatten)]
    door: DoorArgs,
    /// Payments a second (open loop): 5000, a ramp 1000..20000, or equal steps 1000,5000,2000; without it a closed loop
    #[arg(long, value_name = "R")]
    rate: Option<Rate>,
    /// Arrivals at random (Poisson) rather than evenly spaced
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// Payments under way: exactly so many in a closed loop, at most so many in an open one [default: 64; open: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: Option<u32>,
    /// How long
    #[arg(long, value_name = "D", default_value = "10s", value_parser = values::some_span)]
    duration: Time,
    /// Processes that make the run together: one generator keeps to one or two cores
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    processes: u32,
    /// How long one of them may be silent once the run is over or stopped, the money check included; then it is killed, and named
    #[arg(long, value_name = "D", default_value = "3m", value_parser = values::some_span)]
    patience: Time,
    /// Append every reply received, 128 bytes each
    #[arg(long, value_name = "FILE", conflicts_with = "door")]
    acks: Option<PathBuf>,
    /// Check the money after the run; holds every reply in memory until then, 128 bytes each
    #[arg(long)]
    check: bool,
    /// Faults on the way: drop=0.01,double=0.01,delay=0.01:5ms,kill=2s or some of these; a lost reply costs a second over quic
    #[arg(long, value_name = "FAULTS")]
    inject: Option<Injection>,
    /// Write the run as a page with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the latencies of each second, in nanoseconds, as an interval log
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// A line a second on a terminal, rather than the whole of it
    #[arg(long)]
    no_view: bool,
    /// End with one JSON object on its own line
    #[arg(long)]
    json: bool,
}

/// How a process ends that was interrupted twice: as shells say it.
const INTERRUPTED: i32 = 130;

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Some(Command::Check(check)) => check::check(check),
        Some(Command::FindKnee(search)) => knee::find(search),
        Some(Command::Compare(compare)) => compare::compare(compare),
        Some(Command::Merge(merge)) => merge::merge(merge),
        Some(Command::Generator) => remote::run(generator::run()),
        Some(Command::Scenarios(list)) => scenarios::tell(list),
        None => {
            let load = &args.load;
            let report = remote::run(make(load))?;
            // A run of one process has written its interval log as it went.
            let hlog = load.hlog.as_deref().filter(|_| load.processes > 1);
            finish(&report, load.report.as_deref(), hlog, load.json)
        }
    }
}

/// Writes the files and tells the figures, whatever becomes of the files; then their failure, unless the run's is worse.
fn finish(report: &Report, page: Option<&Path>, hlog: Option<&Path>, json: bool) -> Result<(), Failure> {
    let page = page.map_or(Ok(()), |page| {
        std::fs::write(page, report.to_html()).map_err(|error| unwritable(Exit::Failure, page, &error))
    });
    let hlog = hlog.map_or(Ok(()), |hlog| {
        report.write_hlog(hlog).map_err(|error: HlogError| Failure::new(Exit::Failure, error))
    });
    let written = page.and(hlog);
    tell(report, json, written.as_ref().err())?;
    written.map_err(Failure::told)
}

impl Args {
    pub(crate) fn wants_json(&self) -> bool {
        match &self.command {
            None => self.load.json,
            Some(Command::Check(check)) => check.json,
            Some(Command::FindKnee(knee)) => knee.json,
            Some(Command::Compare(compare)) => compare.json,
            Some(Command::Merge(merge)) => merge.json,
            Some(Command::Generator) => false,
            Some(Command::Scenarios(scenarios)) => scenarios.json,
        }
    }
}

async fn make(load: &Load) -> Result<Report, Failure> {
    // A file that cannot be written is told before the run, not after it.
    for file in load.report.iter().chain(&load.hlog) {
        std::fs::write(file, "").map_err(|error| unwritable(Exit::Usage, file, &error))?;
    }
    // To this one is added what is in it already.
    if let Some(file) = &load.acks {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
        opened.map_err(|error| unwritable(Exit::Usage, file, &error))?;
    }
    let job = Job::of(load)?;
    let (stopping, stop) = interrupts();
    let view = open_view(load, stopping);
    let on_second = match &view {
        Some(view) => Some(view.on_second()),
        None => std::io::stderr().is_terminal().then(|| OnSecond::new(|progress| exit::tell(progress))),
    };
    let report = match load.processes {
        1 => {
            let (clients, mut options) = job.prepare(stop).await?;
            options.on_second = on_second;
            options.hlog.clone_from(&load.hlog);
            loadtest::run(&clients, options).await.map_err(|error| load_failure(&error))?
        }
        processes => {
            let patience = std::time::Duration::from_nanos(load.patience.0);
            processes::run(&job, processes, patience, on_second, stop).await?
        }
    };
    // The terminal is given back before the figures are told.
    drop(view);
    Ok(report)
}

fn unwritable(exit: Exit, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(exit, format!("cannot write {}: {error}", path.display()))
}

/// True from the first interrupt or SIGTERM on, which ends a run with its report; a second one ends the process. `q` counts as the first.
fn interrupts() -> (watch::Sender<bool>, watch::Receiver<bool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (stop, stopped) = watch::channel(false);
    let stopping = stop.clone();
    // One listener for the first and the second: one that is made for the second may miss it.
    if let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    {
        tokio::spawn(async move {
            let either = |context: &mut Context<'_>| match interrupt.poll_recv(context) {
                Poll::Pending => terminate.poll_recv(context),
                came => came,
            };
            if heard_twice(either, &stop).await {
                view::give_back();
                std::process::exit(INTERRUPTED);
            }
        });
    }
    (stopping, stopped)
}

/// Waits for an interrupt after the stop, which is told by an interrupt too, if nobody else has told it before. False: none can
/// come any more.
async fn heard_twice(
    mut poll_interrupt: impl FnMut(&mut Context<'_>) -> Poll<Option<()>>,
    stop: &watch::Sender<bool>,
) -> bool {
    let mut stopped = stop.subscribe();
    let may_come = tokio::select! {
        // What comes after the stop is the second, also if nobody has looked at either yet.
        biased;
        _ = stopped.wait_for(|stop| *stop) => true,
        came = poll_fn(&mut poll_interrupt) => {
            stop.send_replace(true);
            came.is_some()
        }
    };
    may_come && poll_fn(&mut poll_interrupt).await.is_some()
}

/// The run on the whole terminal, where there is one and nobody wants it otherwise.
fn open_view(load: &Load, stop: watch::Sender<bool>) -> Option<View> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if load.no_view || is_dumb || !std::io::stderr().is_terminal() || !is_in_foreground() {
        return None;
    }
    let pace = match (&load.rate, load.poisson) {
        (None, _) => "closed loop".to_owned(),
        (Some(rate), true) => format!("{rate}/s at random"),
        (Some(rate), false) => format!("{rate}/s"),
    };
    let transport = match load.transport {
        Transport::Quic => "quic",
        Transport::Rest => "rest",
        Transport::Iso8583 => "iso8583",
    };
    let what = format!("{} over {transport}, {pace}", load.engine.scenario);
    let duration = std::time::Duration::from_nanos(load.duration.0);
    // Without it the run is told line by line.
    View::open(Title { what, duration }, stop).ok()
}

/// True if this process may set its terminal; in the background it would be stopped for trying.
fn is_in_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

fn load_failure(error: &LoadError) -> Failure {
    let exit = match error {
        LoadError::Setup(_) => Exit::Declined,
        LoadError::Record(_) | LoadError::Timer(_) => Exit::Failure,
        LoadError::Stream(_) => Exit::Unreachable,
        LoadError::Rate | LoadError::InFlight | LoadError::Unsaid(_) | LoadError::Acks => Exit::Usage,
    };
    Failure::new(exit, error)
}

fn with_version(mut value: Value) -> Value {
    value["version"] = json!(env!("CARGO_PKG_VERSION"));
    value
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn the_second_interrupt_is_heard_whoever_has_told_the_stop() {
        for is_told in [false, true] {
            let (interrupts, mut came) = mpsc::unbounded_channel();
            let (stop, stopped) = watch::channel(is_told);
            for _ in 0..if is_told { 1 } else { 2 } {
                interrupts.send(()).unwrap();
            }
            // Nobody asks for more than was sent: it would wait without end.
            assert!(heard_twice(|context| came.poll_recv(context), &stop).await);
            assert!(*stopped.borrow());
        }
        let (stop, _stopped) = watch::channel(false);
        assert!(!heard_twice(|_| Poll::Ready(None), &stop).await);
    }
}
