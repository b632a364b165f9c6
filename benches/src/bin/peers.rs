//! `cargo run --release -p benches --bin peers`: Surety beside what a team would otherwise build it with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use benches::figures::median;
use benches::peers::{Fsync, Measured, Peer, Postgres, Redis, Surety, closed_loop, open_loop};
use clap::Parser;
use serde_json::{Map, Value, json};
use server::Durability;

/// Measures Surety beside Redis and PostgreSQL on the same work
///
/// Lock an amount under a new id, release it: over the same connections, with as many requests in flight and the same
/// durability, from the same client thread on a core of its own. The peers may use both cores. All servers are started on
/// loopback with directories of their own and stopped again; a peer that is not installed is left out, loudly.
/// Debian: apt-get install redis-server postgresql
#[derive(Parser)]
struct Options {
    /// Print one JSON object on the last line
    #[arg(long)]
    json: bool,
    /// A moment only: to see that everything runs. The figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Repetitions of each figure, in turns; the median counts
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Where the files go; must be on a real disk that other users may pass through
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
    /// Draw the rates as a picture
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// Connections, and requests on their way on each.
const SHAPES: [(&str, usize, usize); 3] = [("1", 1, 1), ("64", 64, 1), ("4096", 64, 64)];
/// The open loop is driven with this part of what the slowest does with 64 in flight.
const OPEN_SHARE: f64 = 0.5;
/// How long a shard that polls looks for the next request: longer than a synced write takes.
const BUSY_POLL: Duration = Duration::from_millis(1);

/// A system under one setting, however it is driven.
struct System {
    name: &'static str,
    /// Those that promise the same are compared.
    durable: bool,
    settings: String,
    drive: Box<dyn Fn(Drive) -> anyhow::Result<Measured>>,
    figures: Map<String, Value>,
}

#[derive(Clone, Copy)]
enum Drive {
    Closed { connections: usize, depth: usize, lasting: Duration },
    Open { payments_per_s: f64, lasting: Duration },
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("cannot create {}", options.directory.display()))?;
    let (repeat, lasting) = match options.quick {
        true => (1, Duration::from_millis(300)),
        false => (options.repeat.max(1), Duration::from_secs(4)),
    };
    eprintln!("{}, {repeat} repetitions of {lasting:?}", loadtest::machine::describe());
    let busy = loadtest::machine::busy_by_others();
    let (mut systems, absent) = start(&options.directory);
    for system in &systems {
        println!("{:<19} {}", system.name, system.settings);
    }
    for (shape, connections, depth) in SHAPES {
        measure(&mut systems, shape, repeat, Drive::Closed { connections, depth, lasting })?;
    }
    let slowest =
        systems.iter().filter_map(|system| system.figure("64", "per_s")).fold(f64::INFINITY, f64::min);
    let payments_per_s = slowest * OPEN_SHARE / 2.0;
    measure(&mut systems, "open", repeat, Drive::Open { payments_per_s, lasting })?;
    print_table(&systems, payments_per_s);
    if let Some(plot) = &options.plot {
        std::fs::write(plot, picture(&systems))
            .with_context(|| format!("cannot write {}", plot.display()))?;
    }
    if options.json {
        let figures: Map<String, Value> = systems
            .iter()
            .map(|system| (system.name.to_owned(), Value::Object(system.figures.clone())))
            .collect();
        let settings: Map<String, Value> =
            systems.iter().map(|system| (system.name.to_owned(), json!(system.settings))).collect();
        let all = json!({
            "figures": figures,
            "ratios": ratios(&systems),
            "settings": settings,
            "open_payments_per_s": payments_per_s.round(),
            "absent": absent,
            "repetitions": repeat,
            "busy_by_others": busy,
            "noisy": busy > 0.05,
            "machine": loadtest::machine::describe(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        println!("{all}");
    }
    Ok(())
}

/// Starts whoever is there.
fn start(directory: &Path) -> (Vec<System>, Vec<&'static str>) {
    let surety = |durability, busy_poll| Surety::start(directory, durability, busy_poll);
    let started = [
        System::new("surety-fsync", true, surety(Durability::Fsync, Duration::ZERO)),
        System::new("surety-fsync-polled", true, surety(Durability::Fsync, BUSY_POLL)),
        System::new("redis-always", true, Redis::start(directory, Fsync::Always)),
        System::new("postgres", true, Postgres::start(directory)),
        System::new("surety-os", false, surety(Durability::Os, Duration::ZERO)),
        System::new("surety-os-polled", false, surety(Durability::Os, BUSY_POLL)),
        System::new("redis-everysec", false, Redis::start(directory, Fsync::EverySecond)),
    ];
    let (mut systems, mut absent) = (Vec::new(), Vec::new());
    for system in started {
        match system {
            Ok(system) => systems.push(system),
            Err((name, error)) => {
                eprintln!("SKIPPED: {name}: {error:#}");
                absent.push(name);
            }
        }
    }
    (systems, absent)
}

impl System {
    fn new<P: Peer + Sync + 'static>(
        name: &'static str,
        durable: bool,
        peer: anyhow::Result<P>,
    ) -> Result<Self, (&'static str, anyhow::Error)> {
        let peer = peer.map_err(|error| (name, error))?;
        let settings = peer.settings();
        let drive = move |drive| match drive {
            Drive::Closed { connections, depth, lasting } => closed_loop(&peer, connections, depth, lasting),
            Drive::Open { payments_per_s, lasting } => open_loop(&peer, 64, payments_per_s, lasting),
        };
        Ok(Self { name, durable, settings, drive: Box::new(drive), figures: Map::new() })
    }

    fn is_own(&self) -> bool {
        self.name.starts_with("surety")
    }

    fn figure(&self, shape: &str, what: &str) -> Option<f64> {
        self.figures.get(&format!("{shape}_{what}")).and_then(Value::as_f64)
    }
}

/// Every system in turn, as often as wanted: what disturbs the machine disturbs all.
fn measure(systems: &mut [System], shape: &str, repeat: usize, drive: Drive) -> anyhow::Result<()> {
    let mut runs: Vec<Vec<Measured>> = systems.iter().map(|_| Vec::new()).collect();
    for _ in 0..repeat {
        for (system, runs) in systems.iter().zip(&mut runs) {
            runs.push(
                (system.drive)(drive).with_context(|| format!("{} with {shape} in flight", system.name))?,
            );
        }
    }
    for (system, runs) in systems.iter_mut().zip(&runs) {
        let of = |figure: fn(&Measured) -> f64| median(runs.iter().map(figure).collect());
        let figures = [
            ("per_s", of(|run| run.per_s)),
            ("p50_us", of(|run| run.latency.p50_us)),
            ("p99_us", of(|run| run.latency.p99_us)),
        ];
        for (what, figure) in figures {
            system.figures.insert(format!("{shape}_{what}"), json!((figure * 10.0).round() / 10.0));
        }
    }
    Ok(())
}

/// How many times as much Surety does as each peer that promises the same; the name of a ratio ends as that of the setting does.
fn ratios(systems: &[System]) -> Map<String, Value> {
    let mut ratios = Map::new();
    let pairs = systems.iter().filter(|system| system.is_own()).flat_map(|own| {
        systems
            .iter()
            .filter(|peer| !peer.is_own() && peer.durable == own.durable)
            .map(move |peer| (own, peer))
    });
    for (own, peer) in pairs {
        let ending = if own.name.ends_with("-polled") { "_polled" } else { "" };
        for (shape, ..) in SHAPES {
            if let Some((own, peers)) = own.figure(shape, "per_s").zip(peer.figure(shape, "per_s")) {
                let ratio = (own / peers * 100.0).round() / 100.0;
                ratios.insert(format!("{}_{shape}{ending}", peer.name), json!(ratio));
            }
        }
    }
    ratios
}

fn print_table(systems: &[System], payments_per_s: f64) {
    let columns = ["1", "64", "4096", "open"];
    print!("\n{:<19}", "in flight");
    columns.iter().for_each(|column| print!(" {column:>30}"));
    println!("\n{:<19} {:>30}", "", "requests/s, p50 us, p99 us");
    for system in systems {
        print!("{:<19}", system.name);
        for shape in columns {
            let of = |what| system.figure(shape, what).unwrap_or(f64::NAN);
            print!(" {:>10.0} {:>9.0} {:>9.0}", of("per_s"), of("p50_us"), of("p99_us"));
        }
        println!();
    }
    println!("open: {payments_per_s:.0} payments/s over 64 connections, from the moment each was to begin\n");
    println!("Surety's rate against each peer of the same durability, by requests in flight:");
    for (name, ratio) in ratios(systems) {
        println!("  {name:<24} {ratio:>8} x");
    }
}

/// Bars of the rates, shape by shape, each as long as its share of the shape's fastest.
fn picture(systems: &[System]) -> String {
    use std::fmt::Write as _;
    const BAR: f64 = 420.0;
    let mut svg = String::new();
    let mut y = 24.0;
    for (shape, ..) in SHAPES {
        let rate = |system: &System| system.figure(shape, "per_s").unwrap_or(0.0);
        let most = systems.iter().map(rate).fold(1.0, f64::max);
        let _ = write!(svg, "<text x='8' y='{y}' font-weight='bold'>{shape} in flight</text>");
        for system in systems {
            y += 22.0;
            let (width, per_s) = (rate(system) / most * BAR, rate(system));
            let color = if system.is_own() { "#2a7" } else { "#999" };
            let (top, right) = (y - 12.0, width + 168.0);
            let _ = write!(
                svg,
                "<text x='8' y='{y}'>{}</text><rect x='160' y='{top}' width='{width:.1}' height='14' fill='{color}'/>\
                 <text x='{right:.1}' y='{y}'>{per_s:.0}/s</text>",
                system.name
            );
        }
        y += 34.0;
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='740' height='{y}' font-family='sans-serif' font-size='13'>\
         <rect width='100%' height='100%' fill='#fff'/>{svg}</svg>\n"
    )
}
