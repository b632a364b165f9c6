//! Another wall clock, as when somebody sets it: hours ahead and hours back while the engine runs, and at its starts.
//! Whatever it reads, time goes on from where it was, and locks keep their deadlines.
//!
//! No namespace has a wall clock of its own, and setting the machine's is not for a test: libfaketime shifts it for one process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use surety_client::{Client, LockRequest};
use surety_protocol::{Amount, End, MerchantId, Reply, Time};

use crate::bench::Bench;
use crate::engine::{Engine, Serve, Started};
use crate::report::Report;
use crate::surety::Surety;
use crate::witness;

/// Where Debian's package `faketime` puts the library, below the directory of an architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// Far more than a lock lives, and less than a start takes without being told.
const SHIFT_S: i64 = 10 * HOUR_S;
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(1);
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How `serve` ends where the wall clock is too far from the log.
const CLOCK_GAP: i32 = 8;

/// Shifts the wall clock of an engine, first while it runs, then between its starts.
pub(super) fn run(surety: &Surety, report: &mut Report) -> Result<()> {
    let Some(library) = library() else {
        report.skip("a shifted wall clock", "no libfaketime here (Debian has it in the package faketime)");
        return Ok(());
    };
    let home = tempfile::tempdir()?;
    let data = home.path().join("data");
    surety.init(&data, 1, 1 << 20)?;
    let wall = Wall { library, offset: home.path().join("wall") };
    wall.shift(0)?;
    let mut bench = Bench::on(surety, &data, 1 << 20)?;
    wall.belong_to(&mut bench.serve);
    let engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    let address = engine.address()?;
    let long = witness::runtime()?.block_on(async { lock(&connect(address, &data).await?, LONG).await })?;
    for offset_s in [SHIFT_S, -SHIFT_S, 0] {
        wall.shift(offset_s)?;
        wall.wait_until_seen(&engine, &bench.serve.log, offset_s)?;
        witness::runtime()?.block_on(live(address, &data, &long, report))?;
        report.add("wall_clocks", 1);
    }
    bench.load()?.wait_for(200, || Ok(false))?;
    bench.finish(engine, report)?;
    starts(surety, &data, &wall, &long, report)
}

/// One lock lives on, another one ends when it should.
async fn live(address: SocketAddr, data: &Path, long: &Reply, report: &mut Report) -> Result<()> {
    let client = connect(address, data).await?;
    let short = lock(&client, SHORT).await?;
    report.expect(short.time >= long.time, || format!("time went back: {long:?}, then {short:?}"));
    let lives = look(&client, long).await?;
    report.expect(lives.end() == End::Live && lives.deadline == long.deadline, || {
        format!("with another wall clock a lock ended early: {long:?}, then {lives:?}")
    });
    end(&client, &short, report).await?;
    client.close();
    Ok(())
}

/// A start takes a wall clock that is ahead as it is and one that is behind as if it were not, up to a day of either.
fn starts(surety: &Surety, data: &Path, wall: &Wall, long: &Reply, report: &mut Report) -> Result<()> {
    let mut bench = Bench::on(surety, data, 1 << 20)?;
    wall.belong_to(&mut bench.serve);
    let mut last = long.time;
    for (offset_s, least) in [(SHIFT_S, Time::from_secs(SHIFT_S.unsigned_abs())), (0, Time::ZERO)] {
        wall.shift(offset_s)?;
        let engine = bench.serve.start_well(surety)?;
        let address = engine.address()?;
        witness::runtime()?.block_on(async {
            let client = connect(address, data).await?;
            let short = lock(&client, SHORT).await?;
            report.expect(short.time >= last.max(long.time.plus(least)), || {
                format!("started at {offset_s} s, time went from {last:?} to {:?}", short.time)
            });
            last = short.time;
            let gone = look(&client, long).await?;
            report.expect(gone.end() != End::Live, || format!("a lock outlives its deadline: {gone:?}"));
            end(&client, &short, report).await?;
            client.close();
            anyhow::Ok(())
        })?;
        let exit = engine.terminate()?;
        report.expect(exit == 0, || format!("SIGTERM: exit {exit}: {}", bench.serve.last_words()));
        report.add("wall_clocks", 1);
    }
    // The log is ahead by now.
    for offset_s in [SHIFT_S + 25 * HOUR_S, SHIFT_S - 25 * HOUR_S] {
        wall.shift(offset_s)?;
        match bench.serve.start(surety)? {
            Started::Ended(status) => report.expect(status.code() == Some(CLOCK_GAP), || {
                format!(
                    "a wall clock {offset_s} s off ends a start with {status}: {}",
                    bench.serve.last_words()
                )
            }),
            Started::Ready(_) => report.fault(format!("a wall clock {offset_s} s off was taken")),
        }
        report.add("wall_clocks", 1);
    }
    bench.check("after shifted starts", report)?;
    Ok(())
}

/// Waits until a short lock has expired, which must not be early.
async fn end(client: &Client, short: &Reply, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    loop {
        let ended = look(client, short).await?;
        if ended.end() == End::Expired {
            report.expect(ended.time >= short.deadline, || format!("expired early: {ended:?}"));
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            report.fault(format!("with another wall clock a lock lives on behind its deadline: {ended:?}"));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A wall clock that one process alone sees.
#[derive(Debug)]
struct Wall {
    library: PathBuf,
    /// Holds the seconds by which it is shifted; the library reads it again and again.
    offset: PathBuf,
}

impl Wall {
    fn shift(&self, seconds: i64) -> Result<()> {
        // Renamed into place, so that nobody reads half of it.
        let new = self.offset.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(new, &self.offset)?)
    }

    fn belong_to(&self, serve: &mut Serve) {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        serve.environment.extend([
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.offset)),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]);
    }

    /// Waits until the engine itself dates a line of its log by the shifted clock.
    fn wait_until_seen(&self, engine: &Engine, log: &Path, offset_s: i64) -> Result<()> {
        let begun = Instant::now();
        loop {
            engine.signal(Signal::HUP)?;
            std::thread::sleep(Duration::from_millis(100));
            // A little ago, since the line may be older than this is.
            let wall_s = i64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_secs())? - HOUR_S / 2;
            let text = std::fs::read_to_string(log)?;
            let dated_s = text.lines().last().and_then(second_of_day);
            if dated_s.is_some_and(|dated_s| (dated_s - wall_s - offset_s).rem_euclid(DAY_S) < HOUR_S) {
                return Ok(());
            }
            let is_late = begun.elapsed() > PATIENCE;
            anyhow::ensure!(!is_late, "the engine does not see a wall clock {offset_s} s off: {self:?}");
        }
    }
}

/// When a line of the log was written, within its day.
fn second_of_day(line: &str) -> Option<i64> {
    let line: Value = serde_json::from_str(line).ok()?;
    let (_, clock) = line["timestamp"].as_str()?.split_once('T')?;
    let mut parts = clock.get(..8)?.split(':').map(str::parse::<i64>);
    let mut next = || parts.next()?.ok();
    Some(next()? * HOUR_S + next()? * 60 + next()?)
}

fn library() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    directories.map(|directory| directory.join(LIBRARY)).find(|library| library.exists())
}

async fn connect(address: SocketAddr, data: &Path) -> Result<Client> {
    witness::connect(address, data, "authorizer").await
}

async fn lock(client: &Client, life: Duration) -> Result<Reply> {
    let request = LockRequest { life, ..LockRequest::new(witness::partition(0)?, Amount(7), MerchantId(3)) };
    client.send(request).await.context("a lock")
}

async fn look(client: &Client, lock: &Reply) -> Result<Reply> {
    client.lookup(witness::partition(0)?, lock.id, false).await.context("a look-up")
}
