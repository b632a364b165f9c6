//! `surety demo`: a whole engine in one process, and a check that nobody has to take on trust.

mod account;
mod check;
mod flow;
mod on_chain;
mod random;
mod report;
mod sources;
mod tally;
mod world;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Args as ClapArgs, ValueEnum};
use history::Asker;
use server::{Running, Server};
use surety_client::{Client, Draft, LockRequest};
use surety_protocol::limits::SEGMENT_BYTES;
use surety_protocol::{Id, PartitionHandle, Time};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::account::Account;
use self::check::MoneyCheck;
use self::flow::{Outcome, Shared, Worker};
use self::on_chain::{ENFORCED, OnChain};
use self::tally::Elapsed;
use crate::config::ConsoleSettings;
use crate::console::{self, Served};
use crate::directory::Serving;
use crate::exit::{self, Exit, Failure};
use crate::history::{Answerer, Child, Kept};
use crate::{directory, init, remote, serve};

/// How long a demo goes on that is watched.
const WATCHED_SECONDS: u64 = 3600;
/// Payments that it begins a second, about: every lock is kept for the check at the end.
const WATCHED_PER_S: u32 = 250;
/// How often progress is shown on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Shows payments locked, captured, released, expired and consumed, and proves that the money is right
///
/// Starts an engine in this process on a new data directory, with every reply on the disk first (durability fsync), and
/// talks to it over QUIC as any client would. Its collateral is supplied on a chain, also in this process. For some seconds it
/// plays payments of every sort. Then what was consumed is paid out on chain, the engine is drained, and a merchant enforces a
/// certificate without it. Four accounts of the money are compared, each from a source of its own: a tally of the replies as they
/// were received, a look-up of every lock, the log of the closed directory, replayed and verified, and the chain. Exit code 0 only
/// if they agree.
///
/// --console serves the console meanwhile, with a history beside it and payments at a pace that can be watched, until an interrupt, SIGTERM or for --seconds, and prints a
/// link that opens it once, within a minute; `surety ctl console-link` with the data directory makes another.
///
/// Example: surety demo --seconds 5 --json
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    /// How long to play payments [default: 5; with --console 3600]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
    /// Serve the console at this address of the loopback; without one at a free port
    #[arg(long, value_name = "IP:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:0")]
    console: Option<SocketAddr>,
    /// Payments under way at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_flight: u16,
    /// Keep the data directory here, for `verify`, `dump` and `serve`; without it a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The same number gives the same payments, though not the same order
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Alter one thing in one party's source, to see that the check notices: exits with 1
    #[arg(long, value_name = "PARTY")]
    tamper: Option<Party>,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who takes part in the money check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Party {
    /// A reply, as it is received
    Replies,
    /// The answer to a look-up
    Lookups,
    /// A bit of the log, in a copy
    Log,
    /// A token, as the chain is read
    Chain,
}

impl Args {
    fn lasting(&self) -> Duration {
        let otherwise = if self.console.is_some() { WATCHED_SECONDS } else { 5 };
        Duration::from_secs(self.seconds.unwrap_or(otherwise))
    }

    /// Between two payments of one worker: none, unless somebody watches.
    fn pause(&self) -> Duration {
        match self.console {
            Some(_) => Duration::from_secs(1) * u32::from(self.in_flight) / WATCHED_PER_S,
            None => Duration::ZERO,
        }
    }
}

/// What the demo has seen while its engine ran.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) outcome: Outcome,
    pub(crate) elapsed: Elapsed,
    pub(crate) lasted: Duration,
    pub(crate) answered: u64,
    pub(crate) locks: u64,
}

/// What there is to compare once the engine is closed.
struct Played {
    seen: Seen,
    locks: Vec<(Id, PartitionHandle)>,
    replies: Source,
    lookups: Source,
    on_chain: OnChain,
}

/// A party's account, or why it has none.
type Source = Result<Account, String>;

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let place = Place::choose(args.data.as_deref())?;
    server::init(&place.data, 1, SEGMENT_BYTES).map_err(|error| init::failure(&error))?;
    let mut out = Told::new(args.json);
    out.line(&format!("engine    a new data directory in {}", place.data.display()))?;
    let mut played = remote::runtime()?.block_on(play(args, &place.data, &mut out))?;

    out.line("closed    drained, sealed; now the log is replayed and verified")?;
    let log = read_log(args, &place, &played.locks)?;
    played.on_chain.enforce()?;
    out.line("enforced  with nothing but its certificate the merchant was paid by the contract")?;
    let chain = played.on_chain.account(args.tamper == Some(Party::Chain));
    let check =
        MoneyCheck::compare(heard(&played.replies), heard(&played.lookups), heard(&log), heard(&chain));
    if args.json {
        writeln!(std::io::stdout(), "{}", report::json(&played.seen, &check))?;
    } else {
        let (log, chain) = (log.as_ref().ok(), chain.as_ref().ok());
        report::print(&played.seen, &check, log, chain, &place.data, place.is_temporary)?;
    }
    if check.is_ok() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failure, "the accounts of the money differ").told())
    }
}

/// The log's account: of the closed directory, or of a copy that was altered on purpose.
fn read_log(args: &Args, place: &Place, locks: &[(Id, PartitionHandle)]) -> Result<Source, Failure> {
    let read = |data: &Path| sources::read_log(data, locks).map_err(|failure| failure.to_string());
    if args.tamper != Some(Party::Log) {
        return Ok(read(&place.data));
    }
    let copy = place.copy();
    sources::tampered_copy(&place.data, &copy)?;
    let source = read(&copy);
    std::fs::remove_dir_all(&copy)?;
    Ok(source)
}

fn heard(source: &Source) -> Result<&Account, &str> {
    source.as_ref().map_err(String::as_str)
}

/// Everything that happens while the engine runs.
async fn play(args: &Args, data: &Path, out: &mut Told) -> Result<Played, Failure> {
    let mut to_end = ToEnd::listen()?;
    // One that is watched has a history.
    let asker = if args.console.is_some() { Asker::expecting(data) } else { Asker::new(data) };
    let mut config = serve::demo_config(data);
    config.history = Some(Arc::new(Answerer::new(asker.clone(), Handle::current())));
    let server = Server::start(config).map_err(|error| serve::start_failure(&error))?;
    let played = converse(args, data, &server, &asker, out, &mut to_end).await;
    // Drain and seal in any case: the log is the third party.
    serve::shut_down(server).await?;
    played
}

async fn converse(
    args: &Args,
    data: &Path,
    server: &Running,
    asker: &Asker,
    out: &mut Told,
    to_end: &mut ToEnd,
) -> Result<Played, Failure> {
    let address = serve::address(server)?;
    out.line(&format!("serving   QUIC on {address}, TLS 1.3, client certificates, durability fsync"))?;
    let connect = async |name| remote::connect(address, &directory::identity(data, name)).await;
    let (admin, settler) = (connect("admin").await?, connect("settler").await?);
    let authorizer = connect("authorizer").await?;
    let mut outcome = Outcome::default();
    let lasting = args.lasting();
    let mut on_chain = OnChain::deploy(admin.hello().engine, on_chain::directory(data))?;
    world::build(&admin, &settler, lasting, &on_chain, &mut outcome.tally).await?;
    on_chain.supply()?;
    let mut carrier = on_chain.settler(connect("settler").await?).await?;
    on_chain.credit(&mut carrier, &admin).await?;
    world::PARTITIONS.iter().for_each(|(handle, _)| outcome.tally.supply(*handle, world::STAKE.0));
    out.line(
        "set up    1 tenant, 8 merchants, 3 partitions with policies, 1 price; 3 supplies, final on chain",
    )?;

    let shown = Shown::start(args, data, server, asker, out)?;
    let shared = Arc::new(Shared { pause: args.pause(), ..Shared::default() });
    shared.to_tamper.store(args.tamper == Some(Party::Replies), Ordering::Relaxed);
    let begun = Instant::now();
    let worker = |number| {
        let seed = args.seed.wrapping_mul(0x1_0000).wrapping_add(number);
        tokio::spawn(Worker::new(authorizer.clone(), settler.clone(), shared.clone(), seed).run())
    };
    let workers: Vec<_> = (0..u64::from(args.in_flight)).map(worker).collect();
    out.progress(&shared, begun, lasting, to_end).await;
    shared.is_over.store(true, Ordering::Relaxed);
    for worker in workers {
        outcome.absorb(worker.await.map_err(|error| Failure::new(Exit::Failure, error))?);
    }
    let lasted = begun.elapsed();
    if let Some(shown) = shown {
        shown.end().await;
    }
    if let Some(unknown) = &outcome.unknown {
        return Err(Failure::new(Exit::Failure, format!("the demo lost track of a request: {unknown}")));
    }

    certified_lock(&authorizer, &shared, &mut outcome).await?;
    wait_until(&authorizer, outcome.tally.last_deadline(world::STREET)).await;
    let locks: Vec<_> = outcome.tally.locks().collect();
    out.line(&format!("checking  {} locks, each looked up over QUIC", locks.len()))?;
    let lookups = sources::look_up(&authorizer, &locks, args.tamper == Some(Party::Lookups)).await;
    let at = lookups.as_ref().map_or_else(|_| authorizer.now(), |(_, at)| *at);
    let elapsed = outcome.tally.elapse(at);
    let replies = outcome.tally.account();
    let answered = shared.answered.load(Ordering::Relaxed);
    let approved = shared.locks.load(Ordering::Relaxed);
    on_chain.settle(&mut carrier, &admin).await?;
    let batches = carrier.progress().0;
    drop(carrier);
    on_chain.pay_out()?;
    out.line(&format!("settled   {batches} batches on chain, and every merchant paid"))?;
    let seen = Seen { outcome, elapsed, lasted, answered, locks: approved };
    let lookups = lookups.map(|(account, _)| account);
    Ok(Played { seen, locks, replies, lookups, on_chain })
}

/// The console of a demo that is watched, with a history behind it, and where `ctl` finds it.
struct Shown {
    console: Served,
    history: Child,
    announced: Announced,
}

/// What `ctl` finds in the data directory, for as long as it is so.
struct Announced(PathBuf);

impl Drop for Announced {
    fn drop(&mut self) {
        Serving::retract(&self.0);
    }
}

impl Shown {
    fn start(
        args: &Args,
        data: &Path,
        server: &Running,
        asker: &Asker,
        out: &mut Told,
    ) -> Result<Option<Self>, Failure> {
        let settings = ConsoleSettings { listen: args.console, ..ConsoleSettings::default() };
        let Some(console) = Served::start(server, data, &settings, asker)? else {
            return Ok(None);
        };
        let (listen, address) = (serve::address(server)?, console.address());
        let serving = Serving {
            listen,
            admin: None,
            console: Some(address),
            console_tls: false,
            pid: std::process::id(),
        };
        serving.announce(data)?;
        let announced = Announced(data.to_owned());
        let link = console::own_link(data, "admin", server, address)?;
        out.line(&format!("console   {link}"))?;
        out.line("          opens once, within a minute; end with an interrupt. Another link:")?;
        out.line(&format!("          surety ctl --data {} console-link", data.display()))?;
        let free_bytes_min = serve::demo_config(data).free_bytes_min;
        let kept = Kept { data: data.to_owned(), identity: None, bytes_max: None, free_bytes_min };
        let history = Child::start(server, kept);
        Ok(Some(Self { console, history, announced }))
    }

    /// Nobody looks any more: what is checked from here on is the engine alone.
    async fn end(self) {
        drop(self.console);
        drop(self.announced);
        self.history.stop().await;
    }
}

/// A lock whose merchant wants more than a promise.
async fn certified_lock(client: &Client, shared: &Shared, outcome: &mut Outcome) -> Result<(), Failure> {
    let merchant = surety_protocol::MerchantId(1);
    let lock = LockRequest { is_certified: true, ..LockRequest::new(world::RETAIL, ENFORCED, merchant) };
    let request = Draft::from(lock).into_record(|| client.new_id());
    let reply = client.submit(request).await;
    let reply = reply.map_err(|error| Failure::new(Exit::Failure, format!("a certified lock: {error}")))?;
    outcome.tally.note(&request, &reply);
    shared.locks.fetch_add(u64::from(reply.code().is_success()), Ordering::Relaxed);
    Ok(())
}

/// Waits until the engine's time is past a moment, so that everything that was due has happened.
async fn wait_until(client: &Client, moment: Time) {
    let margin = Time::from_millis(50);
    let left = moment.plus(margin).minus(client.now());
    tokio::time::sleep(Duration::from_nanos(left.0)).await;
}

/// Where the demo's data directory is.
#[derive(Debug)]
struct Place {
    data: PathBuf,
    is_temporary: bool,
}

impl Place {
    fn choose(wanted: Option<&Path>) -> Result<Self, Failure> {
        if let Some(data) = wanted {
            return Ok(Self { data: data.to_owned(), is_temporary: false });
        }
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(|error| Failure::new(Exit::Failure, error))?;
        let name = format!("surety-demo-{:016x}", u64::from_le_bytes(number));
        // The disk of a temporary directory in memory is not the one that `fsync` is about.
        let temporary = std::env::temp_dir();
        let parent = if is_in_memory(&temporary) { std::env::current_dir()? } else { temporary };
        Ok(Self { data: parent.join(name), is_temporary: true })
    }

    fn copy(&self) -> PathBuf {
        let mut name = self.data.file_name().unwrap_or_default().to_owned();
        name.push("-tampered");
        self.data.with_file_name(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_temporary {
            let _ = std::fs::remove_dir_all(&self.data);
        }
    }
}

fn is_in_memory(path: &Path) -> bool {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(TMPFS))
}

/// What is told while the demo runs: lines for people, nothing for programs.
struct Told {
    is_quiet: bool,
    is_terminal: bool,
}

impl Told {
    fn new(json: bool) -> Self {
        Self { is_quiet: json, is_terminal: !json && std::io::stdout().is_terminal() }
    }

    fn line(&mut self, line: &str) -> Result<(), Failure> {
        if !self.is_quiet {
            writeln!(std::io::stdout(), "{line}")?;
        }
        Ok(())
    }

    /// Waits for the end, which an interrupt or SIGTERM brings early, and shows how it goes on a terminal.
    async fn progress(&self, shared: &Shared, begun: Instant, lasting: Duration, told: &mut ToEnd) {
        while begun.elapsed() < lasting {
            let left = lasting.saturating_sub(begun.elapsed());
            tokio::select! {
                () = tokio::time::sleep(left.min(PROGRESS_INTERVAL)) => {}
                () = told.heard() => break,
            }
            if self.is_terminal {
                let answered = shared.answered.load(Ordering::Relaxed);
                let locks = shared.locks.load(Ordering::Relaxed);
                let rate = report::per_second(answered, begun.elapsed());
                let seconds = begun.elapsed().as_secs_f32();
                let _ = write!(
                    std::io::stdout(),
                    "\rplaying   {seconds:4.1} s  {locks} locks  {answered} replies  {rate}/s "
                );
                let _ = std::io::stdout().flush();
            }
        }
        if self.is_terminal {
            let _ = write!(std::io::stdout(), "\r\x1b[K");
        }
    }
}

/// What brings the end early. Made before there is anything to take away.
struct ToEnd {
    interrupt: Signal,
    terminate: Signal,
}

impl ToEnd {
    fn listen() -> Result<Self, Failure> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for either; also for one that has come before.
    async fn heard(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
