//! What operating an engine costs: numbers and traces, people and programs that look, memory, backups and restores, and how soon a revoked key is cut off.
//!
//! `cargo run --release -p benches --bin operate -- --json`

#![allow(clippy::cast_precision_loss, reason = "figures")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use benches::copies::{self, Backup, Paid};
use benches::doors::surety;
use benches::figures::{Report, median};
use benches::locks::{CLIENT_CORE, Packed, Until};
use benches::machine::{proportional_bytes_of, resident_bytes_of};
use benches::operating::{Engine, Scraper, Sink, write_settings};
use benches::viewers::{Questioner, Viewer};
use clap::Parser;
use serde_json::json;

/// Measures what it costs to operate an engine.
///
/// Engines are processes of their own, watched, looked at and copied as they are in operation. What is compared runs in turns, with the same load; what
/// counts of a shard is the time that the kernel has given to its thread.
///
/// `memory`: an engine with numbers, traces, console, history, archive and a link, and a front door, all idle; then how soon a revoked key is cut off.
/// `watched`: two engines; of one nobody asks anything, the other is scraped each second and sends spans of one request in a thousand to a collector.
/// `console`: with and without two people at it, signed in, each with the live stream and every page that keeps itself up to date.
/// `queries`: with and without ten questions a second to the history, over the wire.
/// `backup`: payments at half of the knee, `fsync`, with and without backups, one after the other.
/// `restore`: a log of --records is backed up, and the backup restored, all of it replayed; beside it the same files are copied and synced.
///
/// Run it on an otherwise idle machine; it says so when it was not.
#[derive(Parser)]
struct Options {
    /// Print one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Once, and little: to see that everything runs. The figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Runs of each of two that are compared; of backups half as many, of restores three at most.
    #[arg(long, default_value_t = 20)]
    repeat: usize,
    /// Records of the log that is restored.
    #[arg(long, default_value_t = RESTORED)]
    records: usize,
    /// Payments a second at the knee; looked for without it.
    #[arg(long)]
    knee: Option<f64>,
    /// Measure only this step (`memory`, `watched`, `console`, `queries`, `backup`, `restore`).
    #[arg(long)]
    only: Option<String>,
    /// Where the files go; must be on a real disk, with 6 GB free for 10 million records.
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
}

/// What the figures should be.
const TARGETS: [(&str, &str); 7] = [
    ("watched_ratio", "<= 1.03"),
    ("console_cpu", "<= 0.02"),
    ("queries_cpu", "<= 0.02"),
    ("idle_mib", "<= 128"),
    ("revocation_s", "<= 1"),
    ("backup_p99_ratio", "<= 1.5"),
    ("restore_10m_s", "<= 30"),
];
/// The share of requests that is traced.
const SAMPLE: &str = "0.001";
const MIB: f64 = 1_048_576.0;
/// Records of the log whose restore has a target.
const RESTORED: usize = 10_000_000;
/// Requests a second while somebody looks: far fewer than a shard takes, so that what looking costs falls on few.
const LOOKED_AT_PER_S: f64 = 20_000.0;
/// People at the console.
const VIEWERS: usize = 2;
/// Questions to the history a second.
const QUESTIONS_PER_S: f64 = 10.0;
/// Records of a log that no snapshot shortens.
const NO_SNAPSHOT: &str = "[log]\nsnapshot_records = 1000000000000\n";

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    repeat: usize,
    /// Locks of a run beside one that is watched.
    locks: usize,
    /// A run while somebody looks: as long as pages take to ask for everything once.
    looked_at: Duration,
    /// A rate of payments that is tried, and a run at half of the knee.
    tried: Duration,
    paid: Duration,
    knee: Option<f64>,
    records: usize,
}

impl Scale {
    fn of(options: &Options) -> Self {
        if options.quick {
            return Self {
                repeat: 1,
                locks: 20_480,
                looked_at: Duration::from_secs(1),
                tried: Duration::from_millis(300),
                paid: Duration::from_secs(1),
                // A search takes as long as it takes.
                knee: Some(1_000.0),
                records: 50_000,
            };
        }
        Self {
            repeat: options.repeat.max(1),
            locks: 256_000,
            looked_at: Duration::from_secs(5),
            tried: Duration::from_secs(2),
            paid: Duration::from_secs(10),
            knee: options.knee,
            records: options.records,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let scale = Scale::of(&options);
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("cannot create {}", options.directory.display()))?;
    let surety = surety()?;
    eprintln!("{}, {} repetitions", loadtest::machine::describe(), scale.repeat);
    let busy_before = loadtest::machine::busy_by_others();
    let directory = tempfile::tempdir_in(&options.directory)?;
    let (report, failed) = (Report::default(), Vec::new());
    let place = directory.path().canonicalize()?;
    let mut run = Run { surety, place, sink: Sink::start()?, scale, report, failed };
    run.measure(options.only.as_deref());
    let Run { mut report, failed, .. } = run;
    let busy = busy_before.max(loadtest::machine::busy_by_others());
    report.put("repetitions", json!(scale.repeat));
    report.close(busy, &TARGETS);
    if options.json {
        println!("{}", report.into_json());
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join("; "));
    Ok(())
}

/// Measures something, with files in a directory of its own.
type Step = fn(&mut Run, &Path) -> anyhow::Result<()>;

struct Run {
    surety: PathBuf,
    place: PathBuf,
    sink: Sink,
    scale: Scale,
    report: Report,
    /// Steps that could not be measured, and why.
    failed: Vec<String>,
}

impl Run {
    fn measure(&mut self, only: Option<&str>) {
        let steps: [(&str, Step); 6] = [
            ("memory", Self::memory),
            ("watched", Self::watched),
            ("console", Self::console),
            ("queries", Self::queries),
            ("backup", Self::backup),
            ("restore", Self::restore),
        ];
        if !steps.iter().any(|(name, _)| only.is_none_or(|only| only == *name)) {
            self.failed.push(format!("{}: there is no such step", only.unwrap_or_default()));
        }
        for (name, step) in steps {
            if only.is_some_and(|only| only != name) {
                continue;
            }
            eprintln!("{name}");
            let home = self.place.join(name);
            let measured = std::fs::create_dir(&home).map_err(Into::into).and_then(|()| step(self, &home));
            // What the other steps take minutes for is not thrown away with it.
            if let Err(error) = measured {
                self.report.forget();
                eprintln!("{name} could not be measured: {error:#}");
                self.failed.push(format!("{name}: {error:#}"));
            }
            // Room for the next one; what cannot be removed now goes with the directory at the end.
            let _ = std::fs::remove_dir_all(&home);
        }
    }

    /// Memory of processes that have little to do, with everything on that an engine can have, and all of it used once; then how soon a revoked key is cut off.
    fn memory(&mut self, home: &Path) -> anyhow::Result<()> {
        let (settings, link) = write_settings(home)?;
        let (settings, link) = (settings.to_string_lossy(), format!("1={}", link.display()));
        let more = ["--console", "127.0.0.1:0", "--history", "--iso", &link, "--config", &settings];
        let engine =
            Engine::start(&self.surety, &home.join("data"), &[&self.watched_flags()[..], &more].concat())?;
        let front = engine.front(&self.surety, &self.sink.url)?;
        drop(Scraper::start(engine.admin()?));
        Viewer::sign_in(&self.surety, engine.data())?.sign_out()?;
        let processes = [("idle_history_mib", engine.history()?), ("idle_engine_mib", engine.process()?)];
        let (mut all, mut shared_out) = (0, 0);
        for (key, process) in processes {
            let bytes = resident_bytes_of(process);
            self.report.put_figure(key, bytes as f64 / MIB);
            all += bytes;
            shared_out += proportional_bytes_of(process);
        }
        self.report.put_figure("idle_mib", all as f64 / MIB);
        // Both are one program, whose pages the sum counts twice.
        self.report.put_figure("idle_proportional_mib", shared_out as f64 / MIB);
        self.report.put_figure("idle_front_mib", front.resident_bytes() as f64 / MIB);
        self.report.put_figure("revocation_s", engine.revocation_s()?);
        Ok(())
    }

    /// Flags of an engine that is watched.
    fn watched_flags(&self) -> [&str; 6] {
        ["--admin", "127.0.0.1:0", "--otlp", &self.sink.url, "--trace-sample", SAMPLE]
    }

    /// The shard's time for each lock, watched and not.
    fn watched(&mut self, home: &Path) -> anyhow::Result<()> {
        let plain = Engine::start(&self.surety, &home.join("plain"), &[])?;
        let watched = Engine::start(&self.surety, &home.join("watched"), &self.watched_flags())?;
        let _scraper = Scraper::start(watched.admin()?);
        let locks = self.scale.locks;
        let ratios = in_turns(
            &mut self.report,
            self.scale.repeat,
            ["shard_ns_per_lock", "shard_watched_ns_per_lock"],
            || plain.shard_ns_per_lock(locks),
            || watched.shard_ns_per_lock(locks),
        )?;
        self.report.put_pairs("watched_ratio", ratios);
        ensure!(self.sink.requests() > 0, "no spans have come: nothing was measured");
        Ok(())
    }

    /// The shard's time for each request, with and without people at the console.
    fn console(&mut self, home: &Path) -> anyhow::Result<()> {
        let engine = Engine::start(&self.surety, &home.join("data"), &["--console", "127.0.0.1:0"])?;
        let (surety, load) = (self.surety.clone(), self.looked_at());
        let (mut frames, mut answers) = (0, 0);
        let ratios = in_turns(
            &mut self.report,
            self.scale.repeat,
            ["shard_unseen_ns_per_request", "shard_console_ns_per_request"],
            || engine.shard_ns_per_request(load),
            || {
                let viewers = (0..VIEWERS).map(|_| Viewer::sign_in(&surety, engine.data()));
                let viewers: Vec<_> = viewers.collect::<anyhow::Result<_>>()?;
                let ns = engine.shard_ns_per_request(load)?;
                for viewer in viewers {
                    let seen = viewer.sign_out()?;
                    (frames, answers) = (frames + seen.0, answers + seen.1);
                }
                Ok(ns)
            },
        )?;
        self.report.put("console_frames", json!(frames));
        self.report.put("console_answers", json!(answers));
        self.report.put_pairs("console_cpu", ratios.into_iter().map(|ratio| ratio - 1.0).collect());
        Ok(())
    }

    /// The shard's time for each request of an engine with a history, with and without questions to it over the wire.
    fn queries(&mut self, home: &Path) -> anyhow::Result<()> {
        let engine = Engine::start(&self.surety, &home.join("data"), &["--history"])?;
        let load = self.looked_at();
        let (mut answered, mut refused, mut bytes) = (0, 0, 0);
        // So that there is something to ask for.
        engine.packed(load)?;
        let ratios = in_turns(
            &mut self.report,
            self.scale.repeat,
            ["shard_unasked_ns_per_request", "shard_queries_ns_per_request"],
            || engine.shard_ns_per_request(load),
            || {
                let (address, identity) = engine.reader()?;
                let questioner = Questioner::start(address, identity, QUESTIONS_PER_S)?;
                let ns = engine.shard_ns_per_request(load)?;
                let answers = questioner.end()?;
                answered += answers.answered;
                refused += answers.refused;
                bytes += answers.bytes;
                Ok(ns)
            },
        )?;
        ensure!(answered > 0, "no question was answered: nothing was measured");
        self.report.put("queries_answered", json!(answered));
        self.report.put("queries_refused", json!(refused));
        self.report.put_figure("queries_answer_kib", bytes as f64 / answered as f64 / 1024.0);
        self.report.put_pairs("queries_cpu", ratios.into_iter().map(|ratio| ratio - 1.0).collect());
        Ok(())
    }

    /// Locks, each released by the next request: the log grows, and the state does not.
    fn looked_at(&self) -> Packed {
        let until = Until::Elapsed(self.scale.looked_at);
        Packed { releases: true, per_s: Some(LOOKED_AT_PER_S), ..Packed::new(CLIENT_CORE, 16, 64, until) }
    }

    /// p99 of payments at half of the knee, with and without backups.
    fn backup(&mut self, home: &Path) -> anyhow::Result<()> {
        let Scale { repeat, tried, paid, knee, .. } = self.scale;
        let engine = Engine::bare(&self.surety, &home.join("data"), &["--durability", "fsync"])?;
        let (surety, data, to) = (self.surety.clone(), engine.data().to_owned(), home.join("backups"));
        let per_s = if let Some(per_s) = knee {
            per_s
        } else {
            let found = copies::find_knee(&surety, &data, tried)?;
            self.report.put("knee_p99_max", json!(found.p99_max));
            found.per_s
        };
        self.report.put_figure("knee_per_s", per_s);
        let (mut refused, mut backups) = (0, Vec::new());
        let pay = |to: Option<&Path>| copies::pay(&surety, &data, per_s / 2.0, paid, to);
        let mut alone_refused = 0;
        let ratios = in_turns(
            &mut self.report,
            repeat.div_ceil(2),
            ["backup_without_p99_us", "backup_with_p99_us"],
            || {
                let Paid { p99_us, refused, .. } = pay(None)?;
                alone_refused += refused;
                Ok(p99_us)
            },
            || {
                let run = pay(Some(&to))?;
                refused += run.refused;
                backups.extend(run.backups);
                Ok(run.p99_us)
            },
        )?;
        self.report.put_pairs("backup_p99_ratio", ratios);
        self.report.put("backup_without_refused", json!(alone_refused));
        self.report.put("backup_with_refused", json!(refused));
        self.report.put("backups", json!(backups.len()));
        let of = |figure: fn(&Backup) -> f64| median(backups.iter().map(figure).collect());
        self.report.put_figure("backup_s", of(|backup| backup.took.as_secs_f64()));
        self.report.put_figure("backup_mib", of(|backup| backup.bytes as f64 / MIB));
        Ok(())
    }

    /// A restore of a long log, beside a copy of the same files.
    fn restore(&mut self, home: &Path) -> anyhow::Result<()> {
        let backup = self.long_log(home)?;
        for _ in 0..self.scale.repeat.min(3) {
            self.report.add("restore_floor_s", backup.copy(&home.join("copy"))?.as_secs_f64());
            self.report.add("restore_s", backup.restore(&self.surety, &home.join("restored"))?.as_secs_f64());
        }
        self.report.floors(&["restore_floor_s"]);
        let at = self.report.put_medians();
        self.report.put("restore_records", json!(backup.last_seq));
        self.report.put_figure("restore_mib", backup.bytes as f64 / MIB);
        self.report.put_figure("restore_backup_s", backup.took.as_secs_f64());
        self.report.ratio("restore_ratio", at("restore_s"), at("restore_floor_s"));
        if backup.last_seq >= RESTORED as u64 {
            self.report.put_figure("restore_10m_s", at("restore_s"));
        }
        Ok(())
    }

    /// A backup of an engine that was paid with as fast as it takes it, with a log that begins at its first record.
    fn long_log(&self, home: &Path) -> anyhow::Result<Backup> {
        let settings = home.join("engine.toml");
        std::fs::write(&settings, NO_SNAPSHOT)?;
        let flags = ["--config", &settings.to_string_lossy()];
        let engine = Engine::start(&self.surety, &home.join("data"), &flags)?;
        let mut left = self.scale.records;
        while left > 0 {
            let pairs = Packed { releases: true, ..Packed::new(CLIENT_CORE, 16, 64, Until::Sent(left)) };
            // What was refused, as it is while the disk is behind, is in no log.
            let logged = engine.packed(pairs)?.requests;
            ensure!(logged > 0, "the engine takes nothing: is there room on the disk?");
            left = left.saturating_sub(logged);
        }
        copies::back_up(&self.surety, engine.data(), &home.join("backup"))
    }
}

/// Runs two ways in turns: what disturbs the machine disturbs both, and who is first has the colder machine, so that is each of them in turn.
/// Puts the medians of both; how many times as much the second took as the first, in each pair.
fn in_turns(
    report: &mut Report,
    repeat: usize,
    [alone, beside]: [&'static str; 2],
    mut run_alone: impl FnMut() -> anyhow::Result<f64>,
    mut run_beside: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<f64>> {
    let mut ratios = Vec::new();
    for run in 0..repeat {
        let (without, with) = if run % 2 == 0 {
            let without = run_alone()?;
            (without, run_beside()?)
        } else {
            let with = run_beside()?;
            (run_alone()?, with)
        };
        report.add(alone, without);
        report.add(beside, with);
        ratios.push(with / without);
    }
    report.floors(&[alone]);
    let _ = report.put_medians();
    Ok(ratios)
}
