//! `surety serve`: serves a data directory until it is told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use engine::Durability;
use history::Asker;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use serde_json::{Value, json};
use server::{Config, IoMode, Running, Server, StartError, StartFailure, Stop, TraceConfig};
use storage::DataDirectory;
use surety_protocol::Time;
use surety_protocol::trace::Sampling;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{
    ChainSettings, ClockSettings, ConsoleSettings, DurabilityName, HistorySettings, IoName, LimitSettings,
    LogSettings, ServerSettings, Settings, TraceSettings,
};
use crate::console::{self, Served};
use crate::directory::Serving;
use crate::exit::{self, Exit, Failure, say};
use crate::history::{Answerer, Child, Kept};
use crate::links::{Links, Wanted};
use crate::traced::{SAMPLE_DEFAULT, TraceArgs};
use crate::values::{self, AddressText, CollectorText, SpanText};
use crate::{depots, init, remote};

/// Serves a data directory over QUIC
///
/// Prints one JSON line {"ready":true,...} with addresses and the position of each shard once requests are taken. SIGTERM
/// and SIGINT drain: no new request, all answers out, the log sealed, exit code 0; 11 if a full disk left no room for the
/// seal. Before that line they end the start, with 0 as well. SIGHUP reads certificates, authority and revocations again, and closes open connections whose certificate is no
/// longer good; it reads the settings of links again, too. Logs are on standard error;
/// SURETY_LOG=debug tells more.
///
/// Settings come from --config FILE (TOML), then from SURETY__SECTION__KEY in the environment, then from flags; the last
/// one wins, and an unknown key is an error. --print-config shows the outcome and exits. What has no flag: [server]
/// id_window, pin; [console] assets; [log] archive, snapshot_records, retain_records, cursor_records, free_bytes_min; [clock] max_gap; [chain]
/// chain_id and contract, which merchants sign releases for; [limits], what peers may use. --history is `enabled` of [history], which has
/// identity and bytes_max as `surety history run` has them. --otlp is `otlp` of [trace], --trace-sample
/// its `sample`.
///
/// Example: surety serve --data DIR --listen 127.0.0.1:0 --durability fsync
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    /// The data directory, made by `surety init`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// UDP address of shard 0; shard I listens I ports above; port 0 takes free ones [default: 127.0.0.1:7400]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// TCP address of the admin listener: /livez /readyz /metrics /version [default: none]
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
    /// TCP address of the console, for people with a browser: one of the loopback where it has no certificate [default: none]
    #[arg(long, value_name = "IP:PORT")]
    console: Option<SocketAddr>,
    /// Certificate of the console, in PEM: with it the console speaks TLS, on any address, and people may sign in by a certificate of
    /// the engine's authority
    #[arg(long, value_name = "FILE")]
    console_certificate: Option<PathBuf>,
    /// Key of that certificate, in PEM
    #[arg(long, value_name = "FILE")]
    console_key: Option<PathBuf>,
    /// Where this engine's settler tells how batches stand, for the console: what `surety settle run` has as --metrics
    #[arg(long, value_name = "IP:PORT")]
    console_settler: Option<SocketAddr>,
    /// What stands behind a reply [default: fsync]
    #[arg(long)]
    durability: Option<DurabilityName>,
    /// How the log is written [default: direct where the file system takes it, else sync]
    #[arg(long)]
    io: Option<IoName>,
    /// Prove the last block by a second file before its replies leave: a second sync for each block
    #[arg(long)]
    guard: bool,
    /// How long a shard looks for the next request before it goes to sleep, such as 100us: sooner answers, for a core to each shard
    /// that is busy as long as requests come [default: 0s]
    #[arg(long, value_name = "SPAN", value_parser = values::span)]
    busy_poll: Option<Time>,
    /// Bytes of a new segment of the log [default: 64 MiB]
    #[arg(long, value_name = "BYTES", value_parser = init::segment_bytes)]
    segment_bytes: Option<u64>,
    #[command(flatten)]
    trace: TraceArgs,
    /// A TOML file of settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve an acquirer's link in this process for a tenant; as often as there are links. FILE is that of `surety gateway run`
    #[arg(long, value_name = "TENANT=FILE", value_parser = Wanted::read)]
    iso: Vec<Wanted>,
    /// Have a process of its own keep an index of everything that happened, in the data directory: see `surety history`
    #[arg(long)]
    history: bool,
    /// Print the settings that would be used, and exit
    #[arg(long)]
    print_config: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let settings = Settings::load(args.config.as_deref(), std::env::vars(), &args.settings())?;
    let data = settings.server.data.clone();
    let config = server_config(data.clone().unwrap_or_default(), &settings)?;
    if args.print_config {
        let effective = Settings { console: settings.console.clone(), ..effective(&config, data, &settings) };
        say(effective.to_toml().trim_end())?;
        return Ok(());
    }
    if data.is_none() {
        return Err(Failure::new(Exit::Usage, "which data directory? give --data DIR, or set server.data"));
    }
    forbid_core_dumps();
    let history = kept_history(&settings, &config);
    if history.is_some() {
        warn_of_memory(&config);
    }
    remote::runtime()?.block_on(serve(config, &args.iso, history, &settings.console))
}

/// A core dump would hold the keys that sign tokens and resets, and the server's private key; and an abort is how the
/// server meets a failing disk.
pub(crate) fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // A handler that the kernel pipes dumps to does not heed the limit, only the mark.
    let forbidden =
        setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = forbidden {
        tracing::warn!("core dumps stay allowed: {error}");
    }
}

async fn serve(
    mut config: Config,
    iso: &[Wanted],
    history: Option<Kept>,
    console: &ConsoleSettings,
) -> Result<(), Failure> {
    // Listen for signals before anybody can be told that we are ready.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let data = config.data.clone();
    let durability = config.durability;
    // What is wrong with the directory comes first, and is told by whoever opens it.
    if DataDirectory::inspect(&data).is_ok_and(|metadata| !metadata.is_forensic) {
        console::check_files(console, &data)?;
    }
    // Whoever keeps the index: our own process, or a service beside us.
    let asker = if history.is_some() { Asker::expecting(&data) } else { Asker::new(&data) };
    config.history = Some(Arc::new(Answerer::new(asker.clone(), Handle::current())));
    let Some(running) = start(config, &mut terminate, &mut interrupt).await? else { return Ok(()) };
    let links = match Links::start(&running, iso).await {
        Ok(links) => links,
        Err(failure) => {
            shut_down(running).await?;
            return Err(failure);
        }
    };
    let console = match Served::start(&running, &data, console, &asker) {
        Ok(console) => console,
        Err(failure) => {
            links.stop().await;
            shut_down(running).await?;
            return Err(failure);
        }
    };
    let serving = Serving {
        listen: address(&running)?,
        admin: running.admin(),
        console: console.as_ref().map(Served::address),
        console_tls: console.as_ref().is_some_and(Served::is_tls),
        pid: std::process::id(),
    };
    serving.announce(&data)?;
    let _ = say(ready(&running, &serving, durability, &links, history.is_some()));
    // From here on there is an engine to be found.
    let child = history.map(|kept| Child::start(&running, kept));
    loop {
        tokio::select! {
            _ = terminate.recv() => break tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: draining"),
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: reading the certificates again");
                running.reload();
                links.reload();
                if let Some(console) = &console {
                    console.reload();
                }
            }
        }
    }
    // From here on it is not to come again; it may have been told to end as we were.
    if let Some(child) = &child {
        child.is_to_go();
    }
    links.stop().await;
    drop(console);
    let (stopped, ()) = tokio::join!(shut_down(running), send_away(child));
    Serving::retract(&data);
    stopped
}

/// Starts the server, unless it is told to stop before there is one: an archive that is read first may take hours.
async fn start(
    mut config: Config,
    terminate: &mut Signal,
    interrupt: &mut Signal,
) -> Result<Option<Running>, Failure> {
    let stop = Stop::default();
    config.stop = stop.clone();
    let mut starting = tokio::task::spawn_blocking(move || Server::start(config));
    let started = loop {
        tokio::select! {
            started = &mut starting => break started,
            _ = terminate.recv() => stop.order(),
            _ = interrupt.recv() => stop.order(),
        }
    };
    let started = started.map_err(|error| Failure::new(Exit::Failure, format!("starting: {error}")))?;
    match started {
        Ok(running) if stop.is_ordered() => shut_down(running).await.map(|()| None),
        Ok(running) => Ok(Some(running)),
        Err(StartError::Stopped) => {
            tracing::info!("told to stop before anything was served");
            Ok(None)
        }
        Err(error) => Err(start_failure(&error)),
    }
}

/// Ends the history's process while the engine drains.
async fn send_away(child: Option<Child>) {
    if let Some(child) = child {
        child.stop().await;
    }
}

/// How the history is to be kept, if it is.
fn kept_history(settings: &Settings, config: &Config) -> Option<Kept> {
    let HistorySettings { enabled, identity, bytes_max } = settings.history.clone();
    enabled.unwrap_or_default().then(|| Kept {
        data: config.data.clone(),
        identity,
        bytes_max,
        free_bytes_min: config.free_bytes_min,
    })
}

/// The line that scripts wait for.
fn ready(
    running: &Running,
    serving: &Serving,
    durability: Durability,
    links: &Links,
    keeps_history: bool,
) -> Value {
    let shards: Vec<Value> = running
        .shards()
        .iter()
        .map(|shard| {
            json!({
                "shard": shard.shard.0,
                "port": shard.address.map(|address| address.port()),
                "seq": shard.seq.0,
                "epoch": shard.epoch.0,
            })
        })
        .collect();
    json!({
        "ready": true,
        "engine": running.engine().to_string(),
        "listen": serving.listen.to_string(),
        "admin": serving.admin.map(|address| address.to_string()),
        "console": serving.console.map(|address| console::url(address, serving.console_tls)),
        "shards": shards,
        "iso": links.to_json(),
        "history": keeps_history,
        "durability": durability_name(durability).name(),
        "io": io_name(running.io()),
        "pid": serving.pid,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

impl Args {
    /// The flags as settings.
    fn settings(&self) -> Settings {
        Settings {
            server: ServerSettings {
                data: self.data.clone(),
                listen: self.listen,
                admin: self.admin,
                durability: self.durability,
                io: self.io,
                id_window: None,
                guard: self.guard.then_some(true),
                pin: None,
                busy_poll: self.busy_poll.map(SpanText),
            },
            console: ConsoleSettings {
                listen: self.console,
                certificate: self.console_certificate.clone(),
                key: self.console_key.clone(),
                settler: self.console_settler,
                assets: None,
            },
            history: HistorySettings { enabled: self.history.then_some(true), ..HistorySettings::default() },
            trace: TraceSettings { otlp: self.trace.otlp.clone(), sample: self.trace.trace_sample },
            log: LogSettings { segment_bytes: self.segment_bytes, ..LogSettings::default() },
            ..Settings::default()
        }
    }
}

/// The longest that a shard may be told to look for requests.
const BUSY_POLL_MAX: Duration = Duration::from_secs(1);

/// Settings on top of the server's own defaults.
fn server_config(data: PathBuf, settings: &Settings) -> Result<Config, Failure> {
    let mut config = Config::new(data);
    let Settings { server, console, log, clock, chain, trace, history: _, limits } = settings;
    // What is wrong with it is found before anything is started, and by --print-config.
    console::check(console)?;
    if let Some(listen) = server.listen {
        config.listen = Some(listen);
    }
    config.admin = server.admin;
    if let Some(durability) = server.durability {
        config.durability = match durability {
            DurabilityName::Fsync => Durability::Fsync,
            DurabilityName::Os => Durability::Os,
        };
    }
    if let Some(io) = server.io {
        config.io = Some(match io {
            IoName::Direct => IoMode::Direct,
            IoName::Sync => IoMode::Sync,
        });
    }
    config.id_window = server.id_window.map(|span| span.0);
    if let Some(chain_id) = chain.chain_id {
        config.chain_id = chain_id;
    }
    if let Some(contract) = chain.contract {
        config.contract = contract.0;
    }
    config.traces = trace.otlp.clone().map(|CollectorText(collector)| {
        let sampling = Sampling::per_million(trace.sample.unwrap_or(SAMPLE_DEFAULT).0);
        TraceConfig { collector, sampling }
    });
    config.guard = server.guard.unwrap_or(config.guard);
    config.pin_threads = server.pin.unwrap_or(config.pin_threads);
    if let Some(span) = server.busy_poll {
        config.busy_poll = duration(span.0);
        // Longer than the pauses of an idle shard's own work, it would never sleep.
        if config.busy_poll > BUSY_POLL_MAX {
            let message = format!("server.busy_poll: {} is longer than 1s", values::span_text(span.0));
            return Err(Failure::new(Exit::Usage, message));
        }
    }
    if let Some(bytes) = log.segment_bytes {
        config.segment_bytes = init::segment_bytes(&bytes.to_string())
            .map_err(|error| Failure::new(Exit::Usage, format!("log.segment_bytes: {error}")))?;
    }
    config.snapshot_records = log.snapshot_records.unwrap_or(config.snapshot_records);
    config.retain_records = log.retain_records.or(config.retain_records);
    config.cursor_records = log.cursor_records.unwrap_or(config.cursor_records);
    config.archive = log.archive.as_deref().map(depots::open_archive).transpose()?.map(Arc::from);
    config.free_bytes_min = log.free_bytes_min.unwrap_or(config.free_bytes_min);
    if let Some(gap) = clock.max_gap {
        config.clock_gap_max = duration(gap.0);
    }
    macro_rules! take {
        ($($name:ident),*) => { $(if let Some(value) = limits.$name { config.limits.$name = value; })* };
    }
    take!(
        connections,
        connections_tenant,
        subscriptions,
        subscriptions_tenant,
        handshakes,
        retry_above,
        connections_per_s_address,
        connections_per_s_certificate,
        streams,
        backlog_bytes,
        forwarded,
        releases,
        queries,
        queries_tenant,
        queries_per_s_tenant,
        reserve_locks,
        handshakes_address
    );
    if let Some(span) = limits.handshake {
        config.limits.handshake = duration(span.0);
    }
    if let Some(span) = limits.drain {
        config.limits.drain = duration(span.0);
    }
    if let Some(span) = limits.frame {
        config.limits.frame = duration(span.0);
    }
    check_reserve(&config)?;
    Ok(config)
}

/// A lock, its place in the index and what else grows with it.
const BYTES_PER_LOCK: u64 = 256;

/// Refuses to take more memory at the start than there is: the system would end whoever has most of it, at any later time.
fn check_reserve(config: &Config) -> Result<(), Failure> {
    let wanted = (config.limits.reserve_locks as u64).saturating_mul(BYTES_PER_LOCK);
    match memory_available() {
        Some(available) if wanted > available => Err(Failure::new(
            Exit::Usage,
            format!(
                "limits.reserve_locks takes {wanted} bytes for each shard, and {available} are available"
            ),
        )),
        _ => Ok(()),
    }
}

/// Says so if a history may come to want more memory than there is: a ledger as large as the engine's, which is not why an engine does not start.
/// The kernel ends the history first.
fn warn_of_memory(config: &Config) {
    let locks = (config.limits.reserve_locks as u64).saturating_mul(BYTES_PER_LOCK);
    let wanted = locks.saturating_mul(2).saturating_add(history::MEMORY_BYTES);
    if let Some(available) = memory_available().filter(|available| wanted > *available) {
        tracing::warn!(
            wanted,
            available,
            "the history, with the locks of limits.reserve_locks here and there, may take more memory than there is"
        );
    }
}

/// Bytes that a program may still take, as the kernel estimates them.
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Everything that is in force, defaults included.
fn effective(config: &Config, data: Option<PathBuf>, settings: &Settings) -> Settings {
    let limits = &config.limits;
    Settings {
        server: ServerSettings {
            data,
            listen: config.listen,
            admin: config.admin,
            durability: Some(durability_name(config.durability)),
            io: config.io.map(|io| if io == IoMode::Direct { IoName::Direct } else { IoName::Sync }),
            id_window: config.id_window.map(SpanText),
            guard: Some(config.guard),
            pin: Some(config.pin_threads),
            busy_poll: Some(span(config.busy_poll)),
        },
        console: ConsoleSettings::default(),
        log: LogSettings {
            segment_bytes: Some(config.segment_bytes),
            snapshot_records: Some(config.snapshot_records),
            retain_records: config.retain_records,
            cursor_records: Some(config.cursor_records),
            archive: config.archive.as_ref().map(|archive| archive.place()),
            free_bytes_min: Some(config.free_bytes_min),
        },
        clock: ClockSettings { max_gap: Some(span(config.clock_gap_max)) },
        chain: ChainSettings {
            chain_id: Some(config.chain_id),
            contract: Some(AddressText(config.contract)),
        },
        trace: settings.trace.clone(),
        history: HistorySettings {
            enabled: Some(settings.history.enabled.unwrap_or_default()),
            ..settings.history.clone()
        },
        limits: LimitSettings {
            connections: Some(limits.connections),
            connections_tenant: Some(limits.connections_tenant),
            subscriptions: Some(limits.subscriptions),
            subscriptions_tenant: Some(limits.subscriptions_tenant),
            handshakes: Some(limits.handshakes),
            retry_above: Some(limits.retry_above),
            connections_per_s_address: Some(limits.connections_per_s_address),
            connections_per_s_certificate: Some(limits.connections_per_s_certificate),
            streams: Some(limits.streams),
            handshake: Some(span(limits.handshake)),
            frame: Some(span(limits.frame)),
            drain: Some(span(limits.drain)),
            backlog_bytes: Some(limits.backlog_bytes),
            forwarded: Some(limits.forwarded),
            releases: Some(limits.releases),
            queries: Some(limits.queries),
            queries_tenant: Some(limits.queries_tenant),
            queries_per_s_tenant: Some(limits.queries_per_s_tenant),
            reserve_locks: Some(limits.reserve_locks),
            handshakes_address: Some(limits.handshakes_address),
        },
    }
}

const fn duration(span: Time) -> Duration {
    Duration::from_nanos(span.0)
}

fn span(duration: Duration) -> SpanText {
    SpanText(Time(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
}

const fn durability_name(durability: Durability) -> DurabilityName {
    match durability {
        Durability::Fsync => DurabilityName::Fsync,
        Durability::Os => DurabilityName::Os,
    }
}

const fn io_name(io: IoMode) -> &'static str {
    match io {
        IoMode::Direct => "direct",
        IoMode::Sync => "sync",
    }
}

/// Why the server did not start, with its exit code.
pub(crate) fn start_failure(error: &StartError) -> Failure {
    let exit = match error.failure() {
        StartFailure::Missing | StartFailure::Foreign => Exit::Foreign,
        StartFailure::Forensic => Exit::Forensic,
        StartFailure::Busy => Exit::InUse,
        StartFailure::Corrupt => Exit::Corrupt,
        StartFailure::Newer => Exit::Newer,
        StartFailure::Settings | StartFailure::NoCertificate => Exit::Usage,
        StartFailure::PortTaken => Exit::Address,
        StartFailure::ClockGap => Exit::Clock,
        StartFailure::Pki | StartFailure::Io | StartFailure::Stopped => Exit::Failure,
    };
    Failure::caused(exit, "cannot serve", error)
}

/// What the demo serves with: free ports on the loopback, every reply on the disk first.
pub(crate) fn demo_config(data: &Path) -> Config {
    Config { listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), pin_threads: false, ..Config::new(data) }
}

/// Address of shard 0.
pub(crate) fn address(running: &Running) -> Result<SocketAddr, Failure> {
    let first = running.shards().first().and_then(|shard| shard.address);
    first.ok_or_else(|| Failure::new(Exit::Failure, "the engine has no network"))
}

/// Drains and seals.
pub(crate) async fn shut_down(running: Running) -> Result<(), Failure> {
    let ended = tokio::task::spawn_blocking(move || running.shutdown()).await;
    let ends = ended.map_err(|error| Failure::new(Exit::Failure, format!("draining: {error}")))?;
    let unsealed: Vec<String> =
        ends.iter().filter(|end| !end.is_sealed).map(|end| end.shard.to_string()).collect();
    if unsealed.is_empty() {
        return Ok(());
    }
    let shards = unsealed.join(", ");
    Err(Failure::new(
        Exit::Unsealed,
        format!(
            "the log of shard {shards} ends without a seal: is the disk full? nothing that was answered is lost"
        ),
    ))
}
