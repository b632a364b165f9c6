//! What a request costs as an engine grows, and how many machines a payment rate takes.
//!
//! `cargo run --release -p benches --bin scale -- --report scale.html`

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use benches::capacity::{Costs, Demand, Machine, Plan};
use benches::scale::{self, Effort, Point, Sweep};
use benches::{cost, ledger_rate};
use clap::Parser;
use loadtest::plot::{PAGE_END, Plot, Scale, Series, begin_page, escape};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: memory::Counted<memory::LargePages<mimalloc::MiMalloc>> =
    memory::Counted(memory::LargePages(mimalloc::MiMalloc));

/// Measures what a request costs as an engine grows, and tells how many machines a payment rate takes
///
/// The cost is the time of the shard's thread for each request, client not included, so that it holds for a machine whose clients are
/// elsewhere. The capacity model is fitted to three points (1 and 64 requests a frame on a full link, 64 connections with one request each) and held
/// against all others. Run it on an otherwise
/// idle machine; with everything it takes a quarter of an hour and 8 GiB.
#[derive(Parser)]
struct Options {
    /// Print one JSON object on the last line
    #[arg(long)]
    json: bool,
    /// A moment only: to see that everything runs. The figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Repetitions of each point
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Where the files go; must be on a real disk
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
    /// Write a page with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Payments a second that the machines are for, at the peak
    #[arg(long, default_value_t = 50_000.0)]
    payments: f64,
    /// Requests that a payment is made of
    #[arg(long, default_value_t = 3.0)]
    requests: f64,
    /// Requests that share a frame, on average
    #[arg(long, default_value_t = 8.0)]
    frame: f64,
    /// Frames that share a packet, on average: 1 if many connections send
    #[arg(long, default_value_t = 1.0)]
    packet: f64,
    /// Seconds that a lock is open, on average
    #[arg(long, default_value_t = 600.0)]
    open: f64,
    /// Seconds that an id is remembered: the id window and what follows it
    #[arg(long, default_value_t = 900.0)]
    remembered: f64,
    /// How much of a shard's time may be used at the peak
    #[arg(long, default_value_t = 0.7)]
    use_max: f64,
    /// Cores of a machine
    #[arg(long, default_value_t = 16.0)]
    cores: f64,
    /// Memory of a machine, in GiB
    #[arg(long, default_value_t = 64.0)]
    memory: f64,
    /// What the disk of a machine writes, in MB a second
    #[arg(long, default_value_t = 500.0)]
    disk: f64,
    /// Be the engine whose costs are counted; used by the command itself
    #[arg(long, hide = true, value_name = "DIR")]
    serve: Option<PathBuf>,
}

/// A measured point beside what the model says of it.
struct Held {
    axis: &'static str,
    at: f64,
    measured_ns: f64,
    model_ns: f64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(directory) = &options.serve {
        return cost::serve(directory);
    }
    options.check()?;
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("cannot create {}", options.directory.display()))?;
    let machine = loadtest::machine::describe();
    eprintln!("{machine}");
    let busy = loadtest::machine::busy_by_others();
    let effort = options.effort();
    let at = options.directory.as_path();
    let sweeps = [
        scale::frames(at, effort)?,
        scale::connections(at, effort)?,
        scale::partitions(at, effort)?,
        scale::open_locks(at, effort)?,
        scale::log(at, effort)?,
        scale::shards(at, effort)?,
    ];
    let cost = cost::measure(at, "--serve", effort.lasting)?;
    let (lock_bytes, log_bytes) = scale::bytes(at, effort)?;
    let id_bytes = ledger_rate::bytes_per_id(if options.quick { 50_000 } else { 2_000_000 })?;
    let costs = fit(&sweeps[0], &sweeps[1], Costs { lock_bytes, id_bytes, log_bytes, ..NOTHING })?;
    let held = held_against(&costs, &sweeps);
    let plan = costs.plan(&options.demand(), &options.machine());
    let busy = busy.max(loadtest::machine::busy_by_others());
    print(&sweeps, &held, &costs, &plan, &options);
    println!(
        "a packed request: {:.4} requests for memory (0), {} calls of the kernel (<= 0.1), {:.4} sleeps",
        cost.allocations,
        cost.syscalls.map_or_else(|| "?".to_owned(), |calls| format!("{calls:.4}")),
        cost.sleeps
    );
    if busy > 0.05 {
        println!("NOISY: others took {:.0} % of the cores", busy * 100.0);
    }
    if let Some(report) = &options.report {
        std::fs::write(report, page(&sweeps, &machine))
            .with_context(|| format!("cannot write {}", report.display()))?;
    }
    if options.json {
        let checks: Vec<_> = held
            .iter()
            .map(|held| json!({ "axis": held.axis, "at": held.at, "measured_ns": held.measured_ns, "model_ns": held.model_ns }))
            .collect();
        let all = json!({
            "sweeps": sweeps,
            "costs": costs,
            "checks": checks,
            "packed": cost,
            "demand": options.demand(),
            "plan": plan,
            "noisy": busy > 0.05,
            "machine": machine,
            "version": env!("CARGO_PKG_VERSION"),
        });
        println!("{all}");
    }
    Ok(())
}

/// Before anything is measured.
const NOTHING: Costs = Costs {
    request_ns: 0.0,
    frame_ns: 0.0,
    packet_ns: 0.0,
    beside: 0.0,
    lock_bytes: 0.0,
    id_bytes: 0.0,
    log_bytes: 0.0,
};

impl Options {
    fn check(&self) -> anyhow::Result<()> {
        for (name, value) in [
            ("--payments", self.payments),
            ("--requests", self.requests),
            ("--frame", self.frame),
            ("--packet", self.packet),
            ("--open", self.open),
            ("--remembered", self.remembered),
            ("--use-max", self.use_max),
            ("--cores", self.cores),
            ("--memory", self.memory),
            ("--disk", self.disk),
        ] {
            ensure!(value.is_finite() && value > 0.0, "{name} must be a number above 0, not {value}");
        }
        ensure!(self.use_max <= 1.0, "--use-max is a share: at most 1, not {}", self.use_max);
        ensure!(self.frame >= 1.0, "--frame must be at least 1, not {}", self.frame);
        ensure!(self.packet >= 1.0, "--packet must be at least 1, not {}", self.packet);
        Ok(())
    }

    fn effort(&self) -> Effort {
        match self.quick {
            true => Effort { repeat: 1, lasting: Duration::from_millis(200), is_quick: true },
            false => Effort { repeat: self.repeat.max(1), lasting: Duration::from_secs(2), is_quick: false },
        }
    }

    const fn demand(&self) -> Demand {
        Demand {
            payments_per_s: self.payments,
            requests_per_payment: self.requests,
            requests_per_frame: self.frame,
            frames_per_packet: self.packet,
            open_s: self.open,
            remembered_s: self.remembered,
            use_max: self.use_max,
        }
    }

    fn machine(&self) -> Machine {
        Machine {
            cores: self.cores,
            memory_bytes: self.memory * f64::from(1 << 30),
            disk_bytes_per_s: self.disk * 1e6,
        }
    }
}

/// The model, from frames of 1 and of 64 requests on a full link, and from 64 connections.
fn fit(frames: &Sweep, connections: &Sweep, rest: Costs) -> anyhow::Result<Costs> {
    let at = |sweep: &Sweep, place: f64| {
        let found = sweep.points.iter().find(|point| is_at(point, place)).copied();
        found.with_context(|| format!("{place} {} were not measured", sweep.axis))
    };
    let (one, many, alone) = (at(frames, 1.0)?, at(frames, 64.0)?, at(connections, 64.0)?);
    let beside = many.beside_ns / many.shard_ns;
    Ok(Costs::fitted(
        (one.at, one.shard_ns),
        (many.at, many.shard_ns),
        alone.shard_ns,
        Costs { beside, ..rest },
    ))
}

fn is_at(point: &Point, place: f64) -> bool {
    (point.at - place).abs() < 0.5
}

/// What the model says of every point that it was not fitted to.
fn held_against(costs: &Costs, sweeps: &[Sweep]) -> Vec<Held> {
    let [frames, connections, others @ ..] = sweeps else { return Vec::new() };
    let of = |sweep: &Sweep, fitted: &[f64], model: &dyn Fn(&Point) -> f64| {
        let points = sweep.points.iter().filter(|point| !fitted.iter().any(|place| is_at(point, *place)));
        let held = points.map(|point| Held {
            axis: sweep.axis,
            at: point.at,
            measured_ns: point.shard_ns,
            model_ns: model(point),
        });
        held.collect::<Vec<_>>()
    };
    let mut held = of(frames, &[1.0, 64.0], &|point| costs.shard_ns(point.at, f64::INFINITY));
    held.extend(of(connections, &[64.0], &|_| costs.shard_ns(1.0, 1.0)));
    // The others send frames of 64 on a full link.
    for sweep in others {
        held.extend(of(sweep, &[], &|_| costs.shard_ns(64.0, f64::INFINITY)));
    }
    held
}

fn print(sweeps: &[Sweep], held: &[Held], costs: &Costs, plan: &Plan, options: &Options) {
    for sweep in sweeps {
        println!("\n{}", sweep.axis);
        println!("{:>12} {:>14} {:>16} {:>12}", "", "requests/s", "shard ns each", "beside ns");
        for point in &sweep.points {
            println!(
                "{:>12} {:>14.0} {:>16.0} {:>12.0}",
                point.at, point.per_s, point.shard_ns, point.beside_ns
            );
        }
    }
    println!(
        "\nthe model: {:.0} ns for a request, {:.0} ns for a frame, {:.0} ns for one that comes alone; beside them {:.2} of that; {:.0} bytes for an open lock, {:.0} for an id, {:.0} of log for a request",
        costs.request_ns,
        costs.frame_ns,
        costs.packet_ns,
        costs.beside,
        costs.lock_bytes,
        costs.id_bytes,
        costs.log_bytes
    );
    println!("{:<44} {:>12} {:>12} {:>12} {:>8}", "held against", "at", "measured ns", "model ns", "off");
    for Held { axis, at, measured_ns, model_ns } in held {
        let off = (model_ns / measured_ns - 1.0) * 100.0;
        println!("{axis:<44} {at:>12} {measured_ns:>12.0} {model_ns:>12.0} {off:>+7.0}%");
    }
    println!(
        "\n{:.0} payments/s of {} requests, {} in each frame, open for {} s, remembered for {} s:",
        options.payments, options.requests, options.frame, options.open, options.remembered
    );
    println!(
        "{:.0} machines ({}), {:.0} shards on {:.0} cores, {:.1} GiB of locks and ids, {:.1} MB/s of log",
        plan.machines,
        plan.bound_by,
        plan.shards,
        plan.cores,
        plan.memory_bytes / f64::from(1 << 30),
        plan.log_bytes_per_s / 1e6
    );
    println!("standby machines and room for failures come on top\n");
}

fn page(sweeps: &[Sweep], machine: &str) -> String {
    let mut out = begin_page("What a request costs as an engine grows");
    let _ = write!(out, "<h1>What a request costs as an engine grows</h1><p>{}</p>", escape(machine));
    for sweep in sweeps {
        let line =
            |of: fn(&Point) -> f64| sweep.points.iter().map(|point| (point.at.max(1.0), of(point))).collect();
        let plot = Plot {
            says: sweep.axis,
            x_label: sweep.axis,
            y_label: "ns for each request",
            x_scale: Scale::Log,
            y_scale: Scale::Log,
            series: vec![
                Series { name: "the shard's thread", points: line(|point| point.shard_ns) },
                Series { name: "threads beside it", points: line(|point| point.beside_ns) },
            ],
        };
        let _ = write!(out, "<h2>By {}</h2>{}", escape(sweep.axis), plot.draw());
    }
    out.push_str(PAGE_END);
    out
}
