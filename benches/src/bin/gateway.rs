//! The front doors, as a ratio against what bare echoes of the same bytes and a lock over QUIC take, in one run.
//!
//! `cargo run --release -p benches --bin gateway -- --json`

#![allow(clippy::cast_possible_truncation, reason = "figures")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use benches::doors::{
    AMOUNT, Application, Door, Embedded, Host, Program, Speech, axum_echo, many_in_flight, one_in_flight,
    open_idle, parse_and_build_ns, surety, tcp_echo,
};
use benches::figures::Report;
use benches::locks::{CLIENT_CORE, lock_round_trips};
use clap::{Parser, ValueEnum};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: memory::LargePages<mimalloc::MiMalloc> = memory::LargePages(mimalloc::MiMalloc);

/// Measures the front doors against the floor of this machine.
///
/// Engine, front doors and echoes are processes of their own, on loopback. Every figure is the median of several repetitions, taken in
/// turns. After each run over a door the engine is asked what it holds: every answer that was counted is a lock. Run it on an otherwise
/// idle machine; it says so when it was not.
#[derive(Parser)]
struct Options {
    /// Print one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// A few seconds only: to see that everything runs. The figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Repetitions of each figure.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Where the files go; must be on a real disk.
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
    /// Be an echo until killed; used by the command itself.
    #[arg(long, hide = true)]
    part: Option<Part>,
    /// What the echo over HTTP answers.
    #[arg(long, hide = true, default_value = "")]
    reply: String,
}

/// What runs in a process of its own, as the front doors do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    TcpEcho,
    AxumEcho,
}

/// Connections under load.
const CONNECTIONS: usize = 64;
/// Messages in flight on each socket of a host.
const DEPTH: usize = 16;
/// Connections that are silent.
const IDLE: usize = 10_000;

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    repeat: usize,
    rounds: u32,
    lasting: Duration,
    messages: u32,
    idle: usize,
}

/// What the ratios and figures should be.
const TARGETS: [(&str, &str); 7] = [
    ("iso_p50_ratio", "<= 1.5"),
    ("iso_embedded_p50_ratio", "<= 1.5"),
    ("iso_rate_ratio", ">= 0.5"),
    ("rest_p50_ratio", "<= 1.5"),
    ("rest_rate_ratio", ">= 0.4"),
    ("iso_parse_ns", "<= 1000"),
    ("idle_10k_mib", "<= 200"),
];

/// What an application asks for.
const LOCK: &str = r#"{"partition":"0:1001","amount":"1.00","asset":"AMP","merchant":501}"#;
/// What it is told, for the echo: as long as what a front door says.
const TOLD: &str = r#"{"id":"01a2020b-8585-7000-8051-b80000000001","partition":"0:1001","status":"approved","state":"live","asset":"AMP","amount":"1.00","remaining":"1.00","merchant":501,"created_ms":1795334239240,"deadline_ms":1795355839240,"version":1}"#;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    match options.part {
        Some(Part::TcpEcho) => return tcp_echo(),
        Some(Part::AxumEcho) => return axum_echo(options.reply),
        None => {}
    }
    let scale = Scale::of(&options);
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("cannot create {}", options.directory.display()))?;
    let surety = surety()?;
    eprintln!("{}, {} repetitions", loadtest::machine::describe(), scale.repeat);
    let mut report = Report::default();
    let busy_before = loadtest::machine::busy_by_others();
    measure(&mut report, &scale, &surety, &options.directory)?;
    let busy = busy_before.max(loadtest::machine::busy_by_others());
    report.put("repetitions", json!(scale.repeat));
    report.close(busy, &TARGETS);
    if options.json {
        println!("{}", report.into_json());
    }
    Ok(())
}

impl Scale {
    fn of(options: &Options) -> Self {
        if options.quick {
            let lasting = Duration::from_millis(200);
            return Self { repeat: 1, rounds: 200, lasting, messages: 20_000, idle: 500 };
        }
        let lasting = Duration::from_secs(2);
        Self { repeat: options.repeat.max(1), rounds: 10_000, lasting, messages: 1_000_000, idle: IDLE }
    }
}

/// Peers and subjects in turn: what disturbs the machine disturbs all.
fn measure(report: &mut Report, scale: &Scale, surety: &Path, directory: &Path) -> anyhow::Result<()> {
    let directory = tempfile::tempdir_in(directory)?;
    let link = Door::link(surety, &directory.path().join("link"))?;
    let (rest, token) = Door::rest(surety, &directory.path().join("rest"))?;
    let embedded = Embedded::start(surety, &directory.path().join("embedded"))?;
    let own = std::env::current_exe()?;
    let tcp = Program::start(Command::new(&own).args(["--part", "tcp-echo"]))?;
    let axum = Program::start(Command::new(&own).args(["--part", "axum-echo", "--reply", TOLD]))?;
    let (tcp, axum) = (tcp_address(&tcp)?, tcp_address(&axum)?);
    let (quic, identity) = link.quic()?;
    let application = || Application::new(&token, LOCK, 1);
    let (held_by_link, held_by_rest) = (|| link.held(), || rest.held());
    let (iso, rest) = (link.address()?, rest.address()?);
    let Scale { rounds, lasting, .. } = *scale;
    for _ in 0..scale.repeat {
        report.add("tcp_echo_p50_us", one_in_flight(tcp, Host::new()?, rounds)?.0.p50_us);
        report.add("quic_lock_p50_us", lock_round_trips(quic, identity.clone(), CLIENT_CORE, rounds)?.p50_us);
        report.add("iso_p50_us", latency(&held_by_link, iso, Host::new()?, rounds)?);
        let held_there = || embedded.held();
        report.add("iso_embedded_p50_us", latency(&held_there, embedded.address()?, Host::new()?, rounds)?);
        report.add("axum_echo_p50_us", one_in_flight(axum, application(), rounds)?.0.p50_us);
        report.add("rest_p50_us", latency(&held_by_rest, rest, application(), rounds)?);
        let echo = || many_in_flight(tcp, CONNECTIONS, DEPTH, lasting, host);
        report.add("tcp_echo_per_s", echo()?.0);
        let run = || many_in_flight(iso, CONNECTIONS, DEPTH, lasting, host);
        report.add("iso_per_s", rate(&held_by_link, run)?);
        let several = seeded(&token);
        report.add("axum_echo_per_s", many_in_flight(axum, CONNECTIONS, 1, lasting, &several)?.0);
        let run = || many_in_flight(rest, CONNECTIONS, 1, lasting, &several);
        report.add("rest_per_s", rate(&held_by_rest, run)?);
        report.add("iso_parse_ns", parse_and_build_ns(scale.messages)?);
    }
    report.floors(&["tcp_echo_p50_us", "axum_echo_p50_us", "tcp_echo_per_s", "axum_echo_per_s"]);
    let at = report.put_medians();
    report.ratio("iso_p50_ratio", at("iso_p50_us"), at("tcp_echo_p50_us") + at("quic_lock_p50_us"));
    report.ratio("iso_embedded_p50_ratio", at("iso_embedded_p50_us"), at("tcp_echo_p50_us"));
    report.ratio("iso_rate_ratio", at("iso_per_s"), at("tcp_echo_per_s"));
    report.ratio("rest_p50_ratio", at("rest_p50_us"), at("axum_echo_p50_us") + at("quic_lock_p50_us"));
    report.ratio("rest_rate_ratio", at("rest_per_s"), at("axum_echo_per_s"));
    let idle = idle_mib(surety, &directory.path().join("idle"), scale.idle)?;
    report.put_figure("idle_10k_mib", idle);
    Ok(())
}

fn tcp_address(echo: &Program) -> anyhow::Result<SocketAddr> {
    echo.address("listen")
}

/// One host more.
fn host() -> Host {
    Host::new().expect("it was made before")
}

/// Applications that draw different keys.
fn seeded(token: &str) -> impl Fn() -> Application + Sync {
    let (token, seed) = (token.to_owned(), std::sync::atomic::AtomicU64::new(2));
    move || Application::new(&token, LOCK, seed.fetch_add(1, std::sync::atomic::Ordering::Relaxed) << 32)
}

/// The median round trip, if every answer was a lock.
fn latency<S: Speech + Send>(
    held: &dyn Fn() -> anyhow::Result<u128>,
    address: SocketAddr,
    speech: S,
    rounds: u32,
) -> anyhow::Result<f64> {
    approved(held, || one_in_flight(address, speech, rounds)).map(|latency| latency.p50_us)
}

/// Answers per second, if every one of them was a lock.
fn rate(
    held: &dyn Fn() -> anyhow::Result<u128>,
    run: impl FnOnce() -> anyhow::Result<(f64, u64)>,
) -> anyhow::Result<f64> {
    approved(held, run)
}

fn approved<T>(
    held: &dyn Fn() -> anyhow::Result<u128>,
    run: impl FnOnce() -> anyhow::Result<(T, u64)>,
) -> anyhow::Result<T> {
    let before = held()?;
    let (figure, answered) = run()?;
    let locked = held()? - before;
    ensure!(
        locked == u128::from(answered) * AMOUNT,
        "{answered} were answered, and {locked} is held for them"
    );
    Ok(figure)
}

/// Memory of a link's process with 10,000 silent sockets, each of which has been served; with fewer, what they take is scaled up.
fn idle_mib(surety: &Path, directory: &Path, sockets: usize) -> anyhow::Result<f64> {
    let link = Door::link(surety, directory)?;
    let before = link.resident_bytes() as f64;
    let after = open_idle(link.address()?, sockets, host, || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(link.resident_bytes() as f64)
    })?;
    Ok((before + (after - before) * IDLE as f64 / sockets as f64) / f64::from(1 << 20))
}
