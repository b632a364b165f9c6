//! What a history costs and how fast it answers: beside an engine under load, over its socket, and on the disk.
//!
//! `cargo run --release -p benches --bin history -- --json`

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use benches::doors::{Program, surety};
use benches::figures::{Recorder, Report};
use clap::Parser;
use history::{
    Ask, Asker, Conditions, Nothing, OfLock, Order, OrderName, Query, Question, Reader, State, Status,
};
use serde_json::{Value, json};
use storage::DataDirectory;
use surety_protocol::Time;

/// Measures a history beside an engine.
///
/// Processes of their own: an engine with its history, and the load of the scenario `tap` at a rate. The history is asked all the while how far it
/// is behind; then, with nothing else to do, for locks and for pages by merchant and time. What it takes on the disk is counted once it is all
/// written and merged. Run it on an otherwise idle machine; it says so when it was not.
#[derive(Parser)]
struct Options {
    /// Print one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Little, and slowly: to see that everything runs. The figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Records of the index, about.
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Requests per second.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Questions of each kind.
    #[arg(long, default_value_t = 500)]
    questions: usize,
    /// Where the files go; must be on a real disk.
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
}

/// What the figures should be.
const TARGETS: [(&str, &str); 4] = [
    ("lag_max_ms", "<= 1000"),
    ("bytes_per_lock", "<= 256"),
    ("lock_p99_us", "<= 1000"),
    ("page_p99_us", "<= 10000"),
];
/// What a payment of the scenario `tap` asks for, each a request and a record: a lock, its capture, and that it is settled.
const REQUESTS_OF_PAYMENT: u64 = 3;
/// How long the history may take to come to the end.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is asked how far it is behind.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The load begins with partitions and a first burst: what the lag is then says nothing about a rate.
const WARM_UP: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.records, options.rate, options.questions) = (10_000, 2_000, 20);
    }
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("cannot create {}", options.directory.display()))?;
    let surety = surety()?;
    eprintln!("{}, {} records at {}/s", loadtest::machine::describe(), options.records, options.rate);
    let busy_before = loadtest::machine::busy_by_others();
    let directory = tempfile::tempdir_in(&options.directory)?;
    let mut report = Report::default();
    measure(&mut report, &options, &surety, &directory.path().join("data"))?;
    report.close(busy_before.max(loadtest::machine::busy_by_others()), &TARGETS);
    if options.json {
        println!("{}", report.into_json());
    }
    Ok(())
}

fn measure(report: &mut Report, options: &Options, surety: &Path, data: &Path) -> anyhow::Result<()> {
    let init = Command::new(surety).args(["init", "--shards", "1", "--data"]).arg(data).output()?;
    ensure!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let mut serve = Command::new(surety);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--durability", "os", "--history", "--data"]).arg(data);
    let engine = Program::start(&mut serve)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asker = Asker::new(data);
        follow(report, options, &mut load(options, surety, data)?, &asker).await?;
        questions(report, options, &asker).await
    })?;
    drop(engine);
    on_disk(report, data)
}

fn load(options: &Options, surety: &Path, data: &Path) -> anyhow::Result<Child> {
    // The generator's rate is one of payments.
    let payments = (options.rate / REQUESTS_OF_PAYMENT).max(1).to_string();
    let seconds = (options.records / options.rate).max(3);
    let mut load = Command::new(surety);
    load.args([
        "load",
        "--scenario",
        "tap",
        "--rate",
        &payments,
        "--duration",
        &format!("{seconds}s"),
        "--json",
        "--data",
    ]);
    // A long run prints more than a pipe holds, and nobody reads it.
    Ok(load.arg(data).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// Looks how far the history is behind, until the load has ended and it has caught up.
async fn follow(
    report: &mut Report,
    options: &Options,
    load: &mut Child,
    asker: &Asker,
) -> anyhow::Result<()> {
    let (begun, mut lags, mut records_max) = (Instant::now(), Vec::new(), 0);
    while load.try_wait()?.is_none() {
        if let Ok(status) = status(asker).await
            && begun.elapsed() > WARM_UP
        {
            lags.extend(status.lag_ms);
            records_max = records_max.max(status.lag_records.unwrap_or_default());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    ensure!(load.wait()?.success(), "the load has failed");
    let ended = Instant::now();
    loop {
        let status = status(asker).await?;
        ensure!(status.state == State::Following, "the history does not follow: {status:?}");
        if status.lag_records == Some(0) && ended.elapsed() > Duration::from_secs(1) {
            let records: u64 = status.shards.iter().map(|shard| shard.indexed).sum();
            report.put("records", json!(records));
            report.put_figure("records_per_s", records as f64 / ended.duration_since(begun).as_secs_f64());
            break;
        }
        ensure!(ended.elapsed() < PATIENCE, "the history does not come to the end: {status:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    lags.sort_unstable();
    let at = |share: f64| lags.get(((lags.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(0);
    report.put("rate", json!(options.rate));
    report.put_figure("lag_p50_ms", at(0.5) as f64);
    report.put_figure("lag_p99_ms", at(0.99) as f64);
    report.put_figure("lag_max_ms", at(1.0) as f64);
    report.put_figure("lag_records_max", records_max as f64);
    Ok(())
}

async fn status(asker: &Asker) -> anyhow::Result<Status> {
    Ok(serde_json::from_value(asker.ask(&Question { of: None, ask: Ask::Status(Nothing {}) }).await?)?)
}

/// How long it takes until an answer is there: for one lock with all its records, and for a page of 100 by merchant and time.
async fn questions(report: &mut Report, options: &Options, asker: &Asker) -> anyhow::Result<()> {
    let sample = sample(options, asker).await?;
    let (mut locks, mut pages) = (Recorder::default(), Recorder::default());
    for row in sample.iter().cycle().take(options.questions) {
        let id = row["lock"].as_str().context("a lock without an id")?.to_owned();
        let ask = Ask::Lock(OfLock { id, ..OfLock::default() });
        let found = timed(&mut locks, asker, ask).await?;
        ensure!(!found["rows"].as_array().is_none_or(Vec::is_empty), "a lock without records");
        let merchant = row["merchant"].as_str().context("a lock without a merchant")?.parse()?;
        let until = row["created"].as_str().map(str::to_owned);
        let from = Some("2000-01-01T00:00:00Z".to_owned());
        let conditions = Conditions { merchant: vec![merchant], from, until, ..Conditions::default() };
        timed(&mut pages, asker, Ask::Records(conditions)).await?;
    }
    for (name, recorder) in [("lock", locks), ("page", pages)] {
        let latency = recorder.latency();
        report.put_figure(&format!("{name}_p50_us"), latency.p50_us);
        report.put_figure(&format!("{name}_p99_us"), latency.p99_us);
    }
    Ok(())
}

async fn timed(recorder: &mut Recorder, asker: &Asker, ask: Ask) -> anyhow::Result<Value> {
    let begun = Instant::now();
    let answer = asker.ask(&Question { of: None, ask }).await?;
    recorder.add(begun.elapsed());
    Ok(answer)
}

/// Locks from all over the run: of each of as many moments as there are questions, evenly in it, the last one before.
async fn sample(options: &Options, asker: &Asker) -> anyhow::Result<Vec<Value>> {
    let first =
        lock(asker, Conditions { order: Some(OrderName::OldestFirst), ..Conditions::default() }).await?;
    let last = lock(asker, Conditions::default()).await?;
    let (first, last) = (created(&first)?, created(&last)?);
    let step = (last.0 - first.0) / options.questions.max(1) as u64;
    let mut sample = Vec::new();
    for number in 1..=options.questions as u64 {
        // The first lock of all lies before each of them.
        let until = Some(texts::values::moment_text(Time(first.0 + step * number + 1)));
        sample.push(lock(asker, Conditions { until, ..Conditions::default() }).await?);
    }
    Ok(sample)
}

/// The first lock in the order that is asked for.
async fn lock(asker: &Asker, conditions: Conditions) -> anyhow::Result<Value> {
    let ask = Ask::Locks(Conditions { limit: Some(1), ..conditions });
    let page = asker.ask(&Question { of: None, ask }).await?;
    page["rows"].get(0).cloned().context("the load has made no locks")
}

fn created(lock: &Value) -> anyhow::Result<Time> {
    texts::values::moment(lock["created"].as_str().context("a lock without its moment")?)
        .map_err(anyhow::Error::msg)
}

/// What the index takes for each lock, beside the log, when everything is in its tables.
fn on_disk(report: &mut Report, data: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    // The history ends with its engine, a little later.
    let directory = loop {
        match DataDirectory::open(data) {
            Ok(directory) => break directory,
            Err(error) => ensure!(begun.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let engine = directory.metadata().engine;
    let store = loop {
        match history::Store::open(&history::place(data), engine) {
            Ok(store) => break store,
            Err(error) => ensure!(begun.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(LOOK_EVERY);
    };
    store.compact()?;
    store.persist()?;
    let reader = store.reader();
    let bytes: u64 = reader.table_bytes()?.iter().map(|(_, bytes)| bytes).sum();
    let locks = count_locks(&reader)?;
    ensure!(locks > 0, "an index without locks");
    report.put("locks", json!(locks));
    report.put_figure("bytes_per_lock", bytes as f64 / locks as f64);
    for (table, bytes) in reader.table_bytes()? {
        report.put(&format!("bytes_{table}"), json!(bytes));
    }
    Ok(())
}

fn count_locks(reader: &Reader) -> anyhow::Result<u64> {
    let mut query = Query { limit: history::PAGE_ROWS_MAX, order: Order::Ascending, ..Query::default() };
    let mut locks = 0;
    loop {
        let page = reader.locks(&query)?;
        locks += page.rows.len() as u64;
        if !page.has_more {
            return Ok(locks);
        }
        query.cursor = page.cursor;
    }
}
