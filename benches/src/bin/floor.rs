//! The floor comparison: every figure of speed and memory, as a ratio against what the machine itself takes, in one run.
//!
//! `cargo run --release -p benches --bin floor -- --json`

#![allow(clippy::cast_possible_truncation, reason = "figures")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use benches::echo::{self, EchoServer};
use benches::figures::Report;
use benches::locks::{Bench, CLIENT_CORE, Packed, SHARD_CORE, Setting, Steady, Until};
use benches::{breakdown, floor, ledger_rate, machine};
use clap::{Parser, ValueEnum};
use serde_json::json;
use server::Durability;
use surety_client::transport::Closed;
use surety_protocol::{CloseCode, Roles, TenantId};

#[global_allocator]
static ALLOCATOR: memory::LargePages<mimalloc::MiMalloc> = memory::LargePages(mimalloc::MiMalloc);

/// Measures Surety against the floor of this machine.
///
/// Every figure is the median of several repetitions, taken in turns, on loopback, client included. The table names the
/// target of each ratio. Run it on an otherwise idle machine; it says so when it was not.
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
    /// Measure only this step (`latency`, `rate`, `connections`, `independent`, `hot`, `ledger`, `breakdown`, `replay`, `snapshots`, `steady`,
    /// `memory`, `many-locks`), and those before it that it is compared with. `many-locks` is measured only if it is named.
    #[arg(long)]
    only: Option<String>,
    /// Locks of the step `many-locks`; 100 million want 14 GiB of memory, 13 GB of disk.
    #[arg(long, default_value_t = 100_000_000)]
    locks: usize,
    /// Measure one part in this process and print its figure; used by the command itself.
    #[arg(long, hide = true)]
    part: Option<Part>,
}

/// How long a shard that polls looks for the next request: longer than a synced write.
const BUSY_POLL: Duration = Duration::from_millis(1);

/// What is measured in a process of its own, so that its memory can be told.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    BytesPerLock,
    BytesPerId,
    Idle,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    is_quick: bool,
    repeat: usize,
    rounds: u32,
    lasting: Duration,
    open_locks: [usize; 2],
    requests: usize,
    log_records: usize,
    entries: usize,
    steady: Duration,
    many_locks: usize,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let scale = Scale::of(&options);
    if let Some(part) = options.part {
        println!("{}", measure_part(part, &scale, &options.directory)?);
        return Ok(());
    }
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("cannot create {}", options.directory.display()))?;
    let directory = options.directory.clone();
    let mut run = Run { scale, directory, report: Report::default(), failed: Vec::new() };
    eprintln!("{}, {} repetitions", loadtest::machine::describe(), scale.repeat);
    let busy_before = loadtest::machine::busy_by_others();
    run.measure(&options);
    let busy = busy_before.max(loadtest::machine::busy_by_others());
    run.report.put("repetitions", json!(scale.repeat));
    run.report.close(busy, &TARGETS);
    if options.json {
        println!("{}", run.report.into_json());
    }
    ensure!(run.failed.is_empty(), "not measured: {}", run.failed.join("; "));
    Ok(())
}

impl Scale {
    fn of(options: &Options) -> Self {
        if options.quick {
            return Self {
                is_quick: true,
                repeat: 1,
                rounds: 300,
                lasting: Duration::from_millis(200),
                open_locks: [20_000, 40_000],
                requests: 50_000,
                log_records: 50_000,
                entries: 50_000,
                steady: Duration::from_secs(1),
                many_locks: options.locks.min(2_000_000),
            };
        }
        Self {
            is_quick: false,
            repeat: options.repeat.max(1),
            rounds: 10_000,
            lasting: Duration::from_secs(2),
            open_locks: [1_000_000, 10_000_000],
            requests: 2_000_000,
            log_records: 2_000_000,
            entries: 4_000_000,
            steady: Duration::from_secs(60),
            many_locks: options.locks,
        }
    }
}

struct Run {
    scale: Scale,
    directory: PathBuf,
    report: Report,
    /// Steps that could not be measured, and why.
    failed: Vec<String>,
}

impl Run {
    fn measure(&mut self, options: &Options) {
        self.step(options, &["latency", "connections", "independent"], Self::latencies);
        self.step(
            options,
            &["rate", "independent", "ledger", "breakdown", "snapshots", "steady", "many-locks"],
            Self::rates,
        );
        self.step(options, &["connections"], Self::connections);
        self.step(options, &["independent"], Self::independent);
        self.step(options, &["hot"], Self::hot_partition);
        self.step(options, &["ledger"], Self::ledger);
        self.step(options, &["breakdown"], Self::breakdown);
        self.step(options, &["replay"], Self::replay);
        self.step(options, &["snapshots"], Self::snapshots);
        self.step(options, &["steady"], Self::steady);
        self.step(options, &["memory"], Self::memory);
        if options.only.as_deref() == Some("many-locks") {
            self.step(options, &["many-locks"], Self::many_locks);
        }
    }

    fn memory(&mut self) -> anyhow::Result<()> {
        for (part, key) in [
            (Part::BytesPerLock, "bytes_per_open_lock"),
            (Part::BytesPerId, "bytes_per_id"),
            (Part::Idle, "idle_mib"),
        ] {
            let figure = in_own_process(part, &self.directory, self.scale.is_quick)?;
            self.report.put_figure(key, figure);
        }
        Ok(())
    }

    /// Runs a step, if it is wanted; its first name is its own, the others are those of steps that build on it.
    fn step(&mut self, options: &Options, names: &[&str], step: fn(&mut Self) -> anyhow::Result<()>) {
        if options.only.as_ref().is_some_and(|only| !names.contains(&only.as_str())) {
            return;
        }
        eprintln!("{}", names[0]);
        // What the other steps take minutes for is not thrown away with it.
        if let Err(error) = step(self) {
            self.report.forget();
            eprintln!("{} could not be measured: {error:#}", names[0]);
            self.failed.push(format!("{}: {error:#}", names[0]));
        }
    }

    fn bench(&self, setting: Setting) -> anyhow::Result<Bench> {
        Bench::start(&self.directory, setting)
    }

    /// A lock against a bare echo, a datagram, a synced write and a wake-up.
    fn latencies(&mut self) -> anyhow::Result<()> {
        // Memory for what these rounds lock: four engines stand beside each other.
        let setting = |durability| Setting { reserve_locks: 1 << 20, ..Setting::new(durability) };
        let os = self.bench(setting(Durability::Os))?;
        let fsync = self.bench(setting(Durability::Fsync))?;
        let polled = |durability| Setting { busy_poll: BUSY_POLL, ..setting(durability) };
        let os_polled = self.bench(polled(Durability::Os))?;
        let fsync_polled = self.bench(polled(Durability::Fsync))?;
        let (server, client) = echo_configs(&os)?;
        let echo = EchoServer::start(server, SHARD_CORE, 1)?;
        let rounds = self.scale.rounds;
        for _ in 0..self.scale.repeat {
            let udp = floor::udp_ping_pong(rounds, echo::request_bytes(1), [0, 1])?;
            let udp_1core = floor::udp_ping_pong(rounds, echo::request_bytes(1), [0, 0])?;
            self.report.add("udp_p50_us", udp.p50_us);
            self.report.add("udp_p50_us_1core", udp_1core.p50_us);
            let bare = echo::one_in_flight(echo.address, client.clone(), CLIENT_CORE, rounds)?;
            self.report.add("echo_p50_us", bare.p50_us);
            self.report.add("echo_p99_us", bare.p99_us);
            let lock = os.one_in_flight(CLIENT_CORE, rounds)?;
            self.report.add("lock_os_p50_us", lock.p50_us);
            self.report.add("lock_os_p99_us", lock.p99_us);
            let lock = os_polled.one_in_flight(CLIENT_CORE, rounds)?;
            self.report.add("lock_os_polled_p50_us", lock.p50_us);
            self.report.add("lock_os_polled_p99_us", lock.p99_us);
            let bare = echo::one_in_flight(echo.address, client.clone(), SHARD_CORE, rounds)?;
            self.report.add("echo_p50_us_1core", bare.p50_us);
            self.report.add("echo_p99_us_1core", bare.p99_us);
            let lock = os.one_in_flight(SHARD_CORE, rounds)?;
            self.report.add("lock_os_p50_us_1core", lock.p50_us);
            self.report.add("lock_os_p99_us_1core", lock.p99_us);
            let write = floor::sync_writes(&self.directory, rounds / 4)?;
            self.report.add("sync_write_p50_us", write.p50_us);
            let lock = fsync.one_in_flight(CLIENT_CORE, rounds / 4)?;
            self.report.add("lock_fsync_p50_us", lock.p50_us);
            let lock = fsync_polled.one_in_flight(CLIENT_CORE, rounds / 4)?;
            self.report.add("lock_fsync_polled_p50_us", lock.p50_us);
            let lock = fsync.one_in_flight(SHARD_CORE, rounds / 4)?;
            self.report.add("lock_fsync_p50_us_1core", lock.p50_us);
            self.report.add("wakeup_us", floor::wakeup(rounds).p50_us);
        }
        self.report.floors(&["echo_p50_us", "sync_write_p50_us"]);
        let at = self.report.put_medians();
        self.report.ratio("lock_os_p50_ratio", at("lock_os_p50_us"), at("echo_p50_us"));
        self.report.ratio("lock_os_p99_ratio", at("lock_os_p99_us"), at("echo_p99_us"));
        self.report.ratio("lock_os_polled_p50_ratio", at("lock_os_polled_p50_us"), at("echo_p50_us"));
        self.report.ratio("lock_os_polled_p99_ratio", at("lock_os_polled_p99_us"), at("echo_p99_us"));
        self.report.ratio("lock_os_p50_ratio_1core", at("lock_os_p50_us_1core"), at("echo_p50_us_1core"));
        self.report.ratio("lock_os_p99_ratio_1core", at("lock_os_p99_us_1core"), at("echo_p99_us_1core"));
        for (key, lock, echo) in [
            ("lock_fsync_p50_ratio", "lock_fsync_p50_us", "echo_p50_us"),
            ("lock_fsync_polled_p50_ratio", "lock_fsync_polled_p50_us", "echo_p50_us"),
            ("lock_fsync_p50_ratio_1core", "lock_fsync_p50_us_1core", "echo_p50_us_1core"),
        ] {
            let budget = at(echo) + at("sync_write_p50_us") + 2.0 * at("wakeup_us");
            self.report.ratio(key, at(lock), budget);
        }
        Ok(())
    }

    /// 64 requests a frame, 16 frames in flight, one shard.
    fn rates(&mut self) -> anyhow::Result<()> {
        const FRAMES: usize = 16;
        const REQUESTS: usize = 64;
        let os = self.bench(Setting::new(Durability::Os))?;
        let fsync = self.bench(Setting::new(Durability::Fsync))?;
        let (server, client) = echo_configs(&os)?;
        let echo = EchoServer::start(server, SHARD_CORE, REQUESTS)?;
        let lasting = self.scale.lasting;
        for _ in 0..self.scale.repeat {
            let rate = echo::packed(echo.address, client.clone(), CLIENT_CORE, FRAMES, REQUESTS, lasting)?;
            self.report.add("echo_batched_per_s", rate);
            let packed = Packed::new(CLIENT_CORE, FRAMES, REQUESTS, Until::Elapsed(lasting));
            let through = os.packed(packed)?;
            self.report.add("lock_os_batched_per_s", through.per_s);
            let ns = through.spent.shards.as_nanos() as f64 / through.requests as f64;
            self.report.add("lock_os_batched_shard_ns", ns);
            self.report.add("lock_fsync_batched_per_s", fsync.packed(packed)?.per_s);
        }
        self.report.floors(&["echo_batched_per_s"]);
        let at = self.report.put_medians();
        self.report.ratio("fsync_to_os_ratio", at("lock_fsync_batched_per_s"), at("lock_os_batched_per_s"));
        Ok(())
    }

    /// Group commit across connections, one request in flight on each.
    fn connections(&mut self) -> anyhow::Result<()> {
        const SHAPES: [(usize, &str, &str, &str); 3] = [
            (16, "echo_16conn_per_s", "lock_fsync_16conn_per_s", "lock_fsync_16conn_ratio"),
            (64, "echo_64conn_per_s", "lock_fsync_64conn_per_s", "lock_fsync_64conn_ratio"),
            (256, "echo_256conn_per_s", "lock_fsync_256conn_per_s", "lock_fsync_256conn_ratio"),
        ];
        let fsync = self.bench(Setting::new(Durability::Fsync))?;
        let (server, client) = echo_configs(&fsync)?;
        let echo = EchoServer::start(server, SHARD_CORE, 1)?;
        let lasting = self.scale.lasting;
        for _ in 0..self.scale.repeat {
            for (connections, bare, locks, _) in SHAPES {
                let rate =
                    echo::many_connections(echo.address, client.clone(), CLIENT_CORE, connections, lasting)?;
                self.report.add(bare, rate);
                self.report.add(locks, fsync.many_connections(CLIENT_CORE, connections, lasting)?.per_s);
            }
        }
        let at = self.report.put_medians();
        let sync_write_s = self.figure("sync_write_p50_us")? / 1e6;
        for (connections, bare, locks, ratio) in SHAPES {
            let ceiling = connections as f64 / (sync_write_s + connections as f64 / at(bare));
            self.report.ratio(ratio, at(locks), ceiling);
        }
        Ok(())
    }

    /// Many calls that know nothing of each other.
    fn independent(&mut self) -> anyhow::Result<()> {
        const IN_FLIGHT: usize = 4096;
        let fsync = self.bench(Setting::new(Durability::Fsync))?;
        for _ in 0..self.scale.repeat {
            let latency = fsync.independent(CLIENT_CORE, IN_FLIGHT, self.scale.lasting)?;
            self.report.add("independent_p50_us", latency.p50_us);
            self.report.add("independent_p99_us", latency.p99_us);
        }
        let at = self.report.put_medians();
        let floor = IN_FLIGHT as f64 * 1e6 / self.figure("lock_os_batched_per_s")?
            + 2.0 * self.figure("sync_write_p50_us")?;
        self.report.ratio("independent_p50_ratio", at("independent_p50_us"), floor);
        self.report.ratio("independent_p99_to_p50", at("independent_p99_us"), at("independent_p50_us"));
        Ok(())
    }

    /// One partition that takes everything, against a thousand.
    fn hot_partition(&mut self) -> anyhow::Result<()> {
        let os = self.bench(Setting::new(Durability::Os))?;
        let lasting = self.scale.lasting;
        for _ in 0..self.scale.repeat {
            let spread = Packed::new(CLIENT_CORE, 16, 64, Until::Elapsed(lasting));
            self.report.add("spread_partitions_per_s", os.packed(spread)?.per_s);
            self.report.add("hot_partition_per_s", os.packed(Packed { partitions: 1, ..spread })?.per_s);
        }
        let at = self.report.put_medians();
        self.report.ratio("hot_partition_ratio", at("hot_partition_per_s"), at("spread_partitions_per_s"));
        Ok(())
    }

    fn ledger(&mut self) -> anyhow::Result<()> {
        let Scale { repeat, open_locks: [few, many], requests, .. } = self.scale;
        for _ in 0..repeat {
            self.report.add("ledger_apply_per_s", ledger_rate::apply_rate(few, requests)?);
        }
        for _ in 0..repeat.min(3) {
            self.report.add("ledger_apply_10m_per_s", ledger_rate::apply_rate(many, requests)?);
        }
        let at = self.report.put_medians();
        let echo = self.figure("echo_batched_per_s")?;
        let locks = self.figure("lock_os_batched_per_s")?;
        let ceiling = 1.0 / (1.0 / echo + 1.0 / at("ledger_apply_per_s"));
        self.report.ratio("lock_os_batched_ratio", locks, ceiling);
        Ok(())
    }

    /// What each step of a packed lock takes of the shard's thread.
    fn breakdown(&mut self) -> anyhow::Result<()> {
        const FRAME: usize = 64;
        let blocks = if self.scale.is_quick { 20 } else { 1_000 };
        for _ in 0..self.scale.repeat {
            let directory = tempfile::tempdir_in(&self.directory)?;
            let steps =
                machine::on_core(SHARD_CORE, || breakdown::steps(directory.path(), FRAME, 8, blocks))?;
            self.report.add("step_check_ns", steps.check_ns);
            self.report.add("step_warm_ns", steps.warm_ns);
            self.report.add("step_decide_ns", steps.decide_ns);
            self.report.add("step_close_ns", steps.close_ns);
            self.report.add("step_reply_ns", steps.reply_ns);
            self.report.add("step_write_beside_ns", steps.write_ns);
        }
        let _ = self.report.put_medians();
        self.report.put_figure("step_echo_ns", 1e9 / self.figure("echo_batched_per_s")?);
        self.report.put_figure("step_all_ns", 1e9 / self.figure("lock_os_batched_per_s")?);
        Ok(())
    }

    fn replay(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.scale.repeat.min(3) {
            let directory = tempfile::tempdir_in(&self.directory)?;
            let replay = ledger_rate::replay(directory.path(), self.scale.log_records)?;
            self.report.add("replay_per_s", replay.per_s);
            self.report.add("recovery_s", replay.recovery_s);
            self.report.put("recovery_records", json!(replay.records));
        }
        let _ = self.report.put_medians();
        Ok(())
    }

    /// p99 at half of the knee, with and without a snapshot always in the making.
    fn snapshots(&mut self) -> anyhow::Result<()> {
        let lasting = self.scale.lasting;
        let without = self.bench(Setting::new(Durability::Os))?;
        let with = self.bench(Setting { snapshot_records: 1, ..Setting::new(Durability::Os) })?;
        let knee = knee(&without, self.figure("lock_os_batched_per_s")?, lasting)?;
        self.report.put_figure("steady_knee_per_s", knee);
        let mut refused = 0;
        for _ in 0..self.scale.repeat {
            // At one rate, or their ratio says nothing.
            let (rate, during) = below(0.5 * knee, |rate| with.at_rate(CLIENT_CORE, rate, lasting))?;
            let alone = without.at_rate(CLIENT_CORE, rate, lasting)?;
            self.report.add("steady_p99_us", alone.latency.p99_us);
            self.report.add("steady_snapshots_p99_us", during.latency.p99_us);
            refused += during.refused + alone.refused;
        }
        self.report.put("steady_refused", json!(refused));
        let at = self.report.put_medians();
        self.report.ratio("snapshot_p99_ratio", at("steady_snapshots_p99_us"), at("steady_p99_us"));
        Ok(())
    }

    /// A long open loop at 70 % of the knee, beside what the machine does to threads that do nothing.
    fn steady(&mut self) -> anyhow::Result<()> {
        let brief = self.bench(Setting::new(Durability::Os))?;
        let knee = knee(&brief, self.figure("lock_os_batched_per_s")?, self.scale.lasting)?;
        drop(brief);
        // Every lock of the run stays open: memory for all of them is there before it begins.
        let locks = (knee * self.scale.steady.as_secs_f64()) as usize;
        let setting = Setting { reserve_locks: locks, ..Setting::new(Durability::Os) };
        let idle = machine::jitter(self.scale.steady.min(Duration::from_secs(20)));
        let (rate, Steady { latency, refused }) =
            below(0.7 * knee, |rate| self.bench(setting)?.at_rate(CLIENT_CORE, rate, self.scale.steady))?;
        self.report.put_figure("seventy_per_s", rate);
        self.report.put("seventy_refused", json!(refused));
        self.report.put_figure("seventy_p50_us", latency.p50_us);
        self.report.put_figure("seventy_p99_us", latency.p99_us);
        self.report.put_figure("seventy_p999_us", latency.p999_us);
        self.report.put_figure("jitter_p999_us", idle.p999_us);
        Ok(())
    }

    /// So many open locks that hardly anything of them is in a cache, against a million.
    fn many_locks(&mut self) -> anyhow::Result<()> {
        let locks = self.scale.many_locks;
        let before = machine::resident_bytes();
        // Without memory taken beforehand: what is resident is what the locks take.
        let os = self.bench(Setting { reserve_locks: 0, ..Setting::new(Durability::Os) })?;
        let lasting = Until::Elapsed(self.scale.lasting);
        let pairs = Packed { releases: true, ..Packed::new(CLIENT_CORE, 16, 64, lasting) };
        let fill = |locks| Packed::new(CLIENT_CORE, 16, 64, Until::Sent(locks));
        os.packed(fill(locks / 100))?;
        for _ in 0..self.scale.repeat {
            self.report.add("few_open_per_s", os.packed(pairs)?.per_s);
        }
        os.packed(fill(locks - locks / 100))?;
        for _ in 0..self.scale.repeat {
            self.report.add("many_open_per_s", os.packed(pairs)?.per_s);
        }
        let at = self.report.put_medians();
        self.report.put("many_open_locks", json!(locks));
        self.report.ratio("many_open_ratio", at("many_open_per_s"), at("few_open_per_s"));
        let gib = (machine::resident_bytes() - before) as f64 / f64::from(1 << 30);
        self.report.put_figure("many_open_gib", gib);
        Ok(())
    }

    fn figure(&self, key: &str) -> anyhow::Result<f64> {
        self.report.figure(key).with_context(|| format!("{key} was not measured"))
    }
}

/// The knee of a steady load: the highest tenth of `most` requests a second up to which the median stays below three times
/// that of the lowest one. The median, since the tail is the machine's as much as ours.
fn knee(bench: &Bench, most: f64, lasting: Duration) -> anyhow::Result<f64> {
    let tenth = most / 10.0;
    let idle = bench.at_rate(CLIENT_CORE, tenth, lasting)?.latency.p50_us;
    for tenths in 2..=10_u8 {
        let rate = tenth * f64::from(tenths);
        let is_past = match bench.at_rate(CLIENT_CORE, rate, lasting) {
            Ok(run) => run.refused > 0 || run.latency.p50_us > 3.0 * idle,
            // A client that cannot read as fast as it sends is past the knee, and the engine ends it.
            Err(error) if is_slow_reader(&error) => true,
            Err(error) => return Err(error),
        };
        if is_past {
            return Ok(rate - tenth);
        }
    }
    Ok(most)
}

/// A run at a rate, or below: a knee is found in moments, and a machine may do less a moment later. Where the engine ends a client that
/// cannot keep up, it is tried with a tenth less, until it stands.
fn below(most: f64, mut run: impl FnMut(f64) -> anyhow::Result<Steady>) -> anyhow::Result<(f64, Steady)> {
    for tenths in (3..=10_u8).rev() {
        let rate = most * f64::from(tenths) / 10.0;
        match run(rate) {
            Err(error) if is_slow_reader(&error) => {
                eprintln!(
                    "  {rate:.0} a second is past the knee: the engine has ended a client that could not keep up"
                );
            }
            run => return Ok((rate, run?)),
        }
    }
    bail!("the engine has ended a client that could not keep up with three tenths of {most:.0} a second")
}

fn is_slow_reader(error: &anyhow::Error) -> bool {
    error.downcast_ref() == Some(&Closed::ByServer(CloseCode::SlowReader))
}

fn echo_configs(bench: &Bench) -> anyhow::Result<(quinn::ServerConfig, quinn::ClientConfig)> {
    let identity = bench.identity(TenantId(1), Roles::AUTHORIZER)?;
    Ok((bench.echo_config()?, surety_client::client_config(&identity)?))
}

fn measure_part(part: Part, scale: &Scale, directory: &Path) -> anyhow::Result<f64> {
    match part {
        Part::BytesPerLock => ledger_rate::bytes_per_lock(scale.entries),
        Part::BytesPerId => ledger_rate::bytes_per_id(scale.entries),
        Part::Idle => {
            let _server = Bench::start(
                directory,
                Setting { partitions: 1, reserve_locks: 0, ..Setting::new(Durability::Fsync) },
            )?;
            std::thread::sleep(Duration::from_secs(1));
            Ok(machine::resident_bytes() as f64 / f64::from(1 << 20))
        }
    }
}

fn in_own_process(part: Part, directory: &Path, is_quick: bool) -> anyhow::Result<f64> {
    let name = part.to_possible_value().context("a part has a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--part").arg(name.get_name()).arg("--directory").arg(directory);
    if is_quick {
        command.arg("--quick");
    }
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// What the ratios should be.
const TARGETS: [(&str, &str); 23] = [
    ("lock_os_p50_ratio", "<= 1.15"),
    ("lock_os_p99_ratio", "<= 1.3"),
    ("lock_fsync_p50_ratio", "<= 1.1"),
    ("lock_os_batched_ratio", ">= 0.85"),
    ("fsync_to_os_ratio", ">= 0.95"),
    ("lock_fsync_16conn_ratio", ">= 0.75"),
    ("lock_fsync_64conn_ratio", ">= 0.75"),
    ("lock_fsync_256conn_ratio", ">= 0.75"),
    ("independent_p50_ratio", "<= 1.5"),
    ("independent_p99_to_p50", "<= 3"),
    ("hot_partition_ratio", ">= 0.9"),
    ("ledger_apply_per_s", ">= 8000000"),
    ("ledger_apply_10m_per_s", ">= 2500000"),
    ("replay_per_s", ">= 5000000"),
    ("bytes_per_open_lock", "<= 200"),
    ("bytes_per_id", "<= 64"),
    ("idle_mib", "<= 64"),
    ("snapshot_p99_ratio", "<= 1.5"),
    ("steady_refused", "0"),
    ("seventy_p999_us", "<= 1000, where jitter_p999_us allows it"),
    ("seventy_refused", "0"),
    ("many_open_gib", "<= 16 for 100 million"),
    ("many_open_ratio", ">= 0.6"),
];
