//! What a request costs as an engine grows: in requests a frame, connections, partitions, open locks, log and shards.
//!
//! The cost is the time that the shard's thread has had on its core, from the scheduler's own count. It does not depend on how fast the
//! client is, so that two cores are enough to measure it.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use server::Durability;
use surety_protocol::ShardId;

use crate::figures::median;
use crate::locks::{Bench, CLIENT_CORE, EngineTime, Packed, Setting, Throughput, Until};
use crate::machine::{resident_bytes, written_bytes};

/// Requests in flight, however they are packed.
const WINDOW: usize = 1024;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Repetitions of each point; the median counts.
    pub repeat: usize,
    /// How long each takes.
    pub lasting: Duration,
    /// A moment only.
    pub is_quick: bool,
}

/// One measured point.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Where on the axis.
    pub at: f64,
    /// Requests a second.
    pub per_s: f64,
    /// Time of the shard's threads for each request, in nanoseconds.
    pub shard_ns: f64,
    /// Time of the engine's other threads for each request, in nanoseconds.
    pub beside_ns: f64,
}

/// What grows, and what that costs.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// What grows.
    pub axis: &'static str,
    /// The points, from the least.
    pub points: Vec<Point>,
}

/// Requests in each frame, with as many in flight. [`Point::at`] 1 and 64 are among them.
///
/// # Errors
/// If a request is not approved.
pub fn frames(parent: &Path, effort: Effort) -> anyhow::Result<Sweep> {
    let bench = Bench::start(parent, Setting::new(Durability::Os))?;
    let sizes = if effort.is_quick { &[1, 64][..] } else { &[1, 4, 16, 64, 256] };
    let points = sizes.iter().map(|&requests| {
        let until = Until::Elapsed(effort.lasting);
        let packed = Packed::new(CLIENT_CORE, (WINDOW / requests).min(FRAMES_MAX), requests, until);
        point(effort, requests as f64, || Ok(vec![bench.packed(packed)?]))
    });
    sweep("requests in each frame", points)
}

/// Frames that the client of a sweep has in flight at most: what the engine takes of one connection has a limit.
const FRAMES_MAX: usize = 128;

/// Connections with one request in flight each. [`Point::at`] 64 is among them.
///
/// # Errors
/// If a request is not approved.
pub fn connections(parent: &Path, effort: Effort) -> anyhow::Result<Sweep> {
    let bench = Bench::start(parent, Setting::new(Durability::Os))?;
    let counts = if effort.is_quick { &[1, 64][..] } else { &[1, 4, 16, 64, 256, 1024] };
    let points = counts.iter().map(|&count| {
        point(effort, count as f64, || {
            Ok(vec![bench.many_connections(CLIENT_CORE, count, effort.lasting)?])
        })
    });
    sweep("connections, one request in flight on each", points)
}

/// Partitions that take turns by chance.
///
/// # Errors
/// If a request is not approved.
pub fn partitions(parent: &Path, effort: Effort) -> anyhow::Result<Sweep> {
    let most = if effort.is_quick { 1_000 } else { 1_000_000 };
    let setting = Setting { partitions: most, ..Setting::new(Durability::Os) };
    let bench = Bench::start(parent, setting)?;
    let counts = [1, 1_000, 100_000, 1_000_000].into_iter().filter(|count| *count <= most);
    let points = counts.map(|partitions| {
        let packed = Packed { partitions, ..packed(effort) };
        point(effort, partitions as f64, || Ok(vec![bench.packed(packed)?]))
    });
    sweep("partitions", points)
}

/// Locks that are open: the requests are pairs of a lock and its release, and go anywhere.
///
/// # Errors
/// If a request is not approved.
pub fn open_locks(parent: &Path, effort: Effort) -> anyhow::Result<Sweep> {
    let counts =
        if effort.is_quick { &[1_000, 10_000][..] } else { &[10_000, 100_000, 1_000_000, 10_000_000] };
    let most = counts.iter().copied().max().unwrap_or(0);
    let setting = Setting { reserve_locks: most + (2 << 20), ..Setting::new(Durability::Os) };
    let bench = Bench::start(parent, setting)?;
    let mut open = 0;
    let points = counts.iter().map(|&count| {
        bench.packed(Packed::new(CLIENT_CORE, 16, 64, Until::Sent(count - open)))?;
        open = count;
        point(effort, count as f64, || Ok(vec![bench.packed(Packed { releases: true, ..packed(effort) })?]))
    });
    sweep("open locks", points)
}

/// Records that the log holds: pairs of a lock and its release, so that nothing else grows but the ids that are remembered.
///
/// # Errors
/// If a request is not approved.
pub fn log(parent: &Path, effort: Effort) -> anyhow::Result<Sweep> {
    let counts = if effort.is_quick { &[0, 10_000][..] } else { &[0, 1_000_000, 4_000_000, 16_000_000] };
    let bench = Bench::start(parent, Setting { reserve_locks: 1 << 25, ..Setting::new(Durability::Os) })?;
    let pairs = Packed { releases: true, ..packed(effort) };
    let mut written = 0;
    let points = counts.iter().map(|&count| {
        bench.packed(Packed { until: Until::Sent(count - written), ..pairs })?;
        written = count;
        point(effort, count as f64, || Ok(vec![bench.packed(pairs)?]))
    });
    sweep("records in the log", points)
}

/// Shards that one client keeps full, by a link to each. More shards than cores take turns.
///
/// # Errors
/// If a request is not approved.
pub fn shards(parent: &Path, effort: Effort) -> anyhow::Result<Sweep> {
    let counts = if effort.is_quick { &[1, 2][..] } else { &[1, 2, 4] };
    let points = counts.iter().map(|&shards| {
        let setting = Setting { shards, reserve_locks: 1 << 21, ..Setting::new(Durability::Os) };
        let bench = Bench::start(parent, setting)?;
        point(effort, f64::from(shards), || {
            std::thread::scope(|scope| {
                let bench = &bench;
                let links: Vec<_> = (0..shards)
                    .map(|shard| Packed { shard: ShardId(shard), ..packed(effort) })
                    .map(|packed| scope.spawn(move || bench.packed(packed)))
                    .collect();
                links.into_iter().map(|link| link.join().expect("a client does not panic")).collect()
            })
        })
    });
    sweep("shards", points)
}

/// Resident bytes of an open lock, and the log's bytes for each request, of a run of locks.
///
/// # Errors
/// If a request is not approved.
pub fn bytes(parent: &Path, effort: Effort) -> anyhow::Result<(f64, f64)> {
    let locks = if effort.is_quick { 50_000 } else { 2_000_000 };
    let bench = Bench::start(parent, Setting { reserve_locks: 0, ..Setting::new(Durability::Fsync) })?;
    // What does not grow with the locks is there.
    bench.packed(Packed::new(CLIENT_CORE, 16, 64, Until::Sent(10_000)))?;
    let (resident, written) = (resident_bytes(), written_bytes());
    bench.packed(Packed::new(CLIENT_CORE, 16, 64, Until::Sent(locks)))?;
    let each = |bytes: u64| bytes as f64 / locks as f64;
    Ok((each(resident_bytes().saturating_sub(resident)), each(written_bytes() - written)))
}

const fn packed(effort: Effort) -> Packed {
    Packed::new(CLIENT_CORE, 16, 64, Until::Elapsed(effort.lasting))
}

fn sweep(axis: &'static str, points: impl Iterator<Item = anyhow::Result<Point>>) -> anyhow::Result<Sweep> {
    eprintln!("{axis}");
    Ok(Sweep { axis, points: points.collect::<anyhow::Result<_>>()? })
}

/// Measures a point as often as wanted.
fn point(
    effort: Effort,
    at: f64,
    mut run: impl FnMut() -> anyhow::Result<Vec<Throughput>>,
) -> anyhow::Result<Point> {
    let (mut rates, mut shard, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.repeat {
        let links = run()?;
        let requests: usize = links.iter().map(|link| link.requests).sum();
        ensure!(requests > 0, "nothing was answered");
        // The links of several shards have run at the same time, and each has seen all of the engine's threads.
        let spent = links.iter().map(|link| link.spent);
        let most = |of: fn(EngineTime) -> Duration| spent.clone().map(of).max().unwrap_or_default();
        rates.push(links.iter().map(|link| link.per_s).sum());
        shard.push(most(|spent| spent.shards).as_nanos() as f64 / requests as f64);
        beside.push(most(|spent| spent.beside).as_nanos() as f64 / requests as f64);
    }
    let point = Point { at, per_s: median(rates), shard_ns: median(shard), beside_ns: median(beside) };
    let Point { per_s, shard_ns, beside_ns, .. } = point;
    eprintln!("  {at:>10}: {per_s:>10.0}/s, {shard_ns:>7.0} ns of the shard, {beside_ns:>6.0} ns beside");
    Ok(point)
}
