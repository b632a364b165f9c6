//! A history of many concurrent clients against the real process, through kills and a bad network, and its check.
//!
//! Replies carry shard and seq, so the order that the engine claims is known, and checking it is linear: see [`order`].
//! Unknown outcomes are resolved by look-up with burn, so that at the end nothing is unknown. Small windows go to an
//! independent checker as well: see [`windows`].

mod driver;
mod model;
mod order;
mod proxy;
mod windows;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use surety_client::{Client, Draft, Options, request};
use surety_protocol::{
    Address, Amount, AssetId, Code, Kind, PartitionHandle, Policy, Rights, ShardId, StakeBody, TenantBody,
    TenantId, Time,
};

use self::driver::Shared;
use self::model::{EDGE_UNIT, LOCK_MAX, Model};
use self::order::{Answer, Operation};
use self::proxy::{PROXY, Weather};
use crate::engine::{Engine, POLL, Serve};
use crate::log_end;
use crate::report::Report;
use crate::surety::Surety;
use crate::witness;

/// The tenant of the development identity `authorizer`.
const TENANT: TenantId = TenantId(1);
const SHARDS: u16 = 2;
/// Partitions of each shard that everybody shares.
const PARTITIONS: u64 = 3;
/// Collateral of each of them at the beginning: scarce, so that locks are declined and approved in part.
const COLLATERAL: u128 = 60_000;
/// Numbers of the windows' partitions begin here.
const WINDOW_PARTITION: u64 = 100;
/// The chain's number of the deposits that the set-up makes.
const SETUP_NONCE: u64 = 1;
/// Operations that each client has under way.
const WORKERS_PER_CLIENT: usize = 24;
/// A run without any answer for so long has hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Operations of all clients
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    operations: u64,
    /// Clients, each with connections of its own
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients: usize,
    /// Kills of the engine, evenly spread
    #[arg(long, value_name = "N", default_value_t = 5)]
    kills: u64,
    /// Small windows for the independent checker
    #[arg(long, value_name = "N", default_value_t = 60)]
    windows: u64,
}

/// Runs and checks one history.
pub(crate) fn run(surety: &Surety, settings: &Settings, report: &mut Report) -> Result<()> {
    let home = tempfile::tempdir()?;
    let data = home.path().join("data");
    surety.init(&data, SHARDS, 4 << 20)?;
    let first_port = proxy::free_ports(SHARDS)?;
    let mut serve = Serve::new(&data, &home.path().join("engine.log"));
    serve.listen = SocketAddr::from(([127, 0, 0, 1], first_port));
    serve.segment_bytes = 4 << 20;
    serve.environment.push(("SURETY__LOG__SNAPSHOT_RECORDS", "20000".to_owned()));
    let engine = serve.start_well(surety)?;
    let weather = Arc::new(Weather::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seed = report.random.next();
    let begun = Instant::now();
    let (shared, operations, windows, engine) = runtime.block_on(async {
        for shard in 0..SHARDS {
            proxy::serve(first_port + shard, seed ^ u64::from(shard), weather.clone()).await?;
        }
        prepare(serve.listen, &data, settings.windows).await?;
        drive(surety, &serve, engine, settings, seed).await
    })?;
    eprintln!("history: {} operations in {:.0} s", operations.len(), begun.elapsed().as_secs_f64());
    runtime.shutdown_timeout(Duration::from_secs(5));
    let exit = engine.terminate()?;
    report.expect(exit == 0, || format!("SIGTERM: exit {exit}: {}", serve.last_words()));
    tell(&shared, &weather, settings, report);
    windows_hold(&windows, report);
    check(surety, &data, home.path(), &operations, report)
}

/// Makes tenant and partitions. It goes past the proxy: what is lost there has its own test.
async fn prepare(address: SocketAddr, data: &Path, windows: u64) -> Result<()> {
    let admin = witness::connect(address, data, "admin").await?;
    let settler = witness::connect(address, data, "settler").await?;
    let tenant = TenantBody {
        tenant: TENANT,
        locks_max: 100_000_000,
        ids_max: 60_000_000,
        tombstones_max: 10_000_000,
        advices_max: 10_000_000,
        enabled: 1,
        ..TenantBody::default()
    };
    // Nothing ends by time: the model knows no time.
    let day = Time::from_secs(24 * 3600);
    let policy = Policy {
        life_default: day,
        settle_by: Time::ZERO,
        refund_window: day,
        settlement_window: day,
        lock_max: Amount(LOCK_MAX),
        edge_unit: Amount(EDGE_UNIT),
        ..Policy::default()
    };
    for shard in (0..SHARDS).map(ShardId) {
        approve(&admin, request::set_tenant(PartitionHandle::new(shard, 0), &tenant)).await?;
    }
    let own = all_partitions().into_iter().map(|partition| (partition, COLLATERAL));
    let of_windows = (0..windows).map(|window| (window_partition(window), windows::COLLATERAL));
    for (partition, collateral) in own.chain(of_windows) {
        let mut onchain = [0; 32];
        onchain[..8].copy_from_slice(&partition.0.to_be_bytes());
        onchain[8] = 1;
        approve(&admin, request::create_partition(partition, onchain, AssetId(1), false)).await?;
        let reply = admin.submit_long(&request::set_policy(admin.new_id(), partition, &policy)).await?;
        ensure!(reply.code() == Code::Approved, "the policy is answered {}", reply.code());
        approve(&admin, request::grant(partition, TENANT, Rights::KNOWN)).await?;
        let deposit = request::deposit(partition, Address([9; 20]), Amount(collateral), SETUP_NONCE);
        approve(&settler, deposit).await?;
    }
    admin.close();
    settler.close();
    Ok(())
}

async fn approve(client: &Client, draft: Draft) -> Result<()> {
    let reply = client.send(draft).await?;
    ensure!(reply.code() == Code::Approved, "a step of the set-up is answered {}", reply.code());
    Ok(())
}

fn all_partitions() -> Vec<PartitionHandle> {
    let of = |shard| (1..=PARTITIONS).map(move |number| PartitionHandle::new(ShardId(shard), number));
    (0..SHARDS).flat_map(of).collect()
}

fn window_partition(window: u64) -> PartitionHandle {
    let shard = if window.is_multiple_of(2) { 0 } else { 1 };
    PartitionHandle::new(ShardId(shard), WINDOW_PARTITION + window)
}

type Driven = (Arc<Shared>, Vec<Operation>, Vec<Option<bool>>, Engine);

/// Lets all clients run while the engine is killed again and again.
async fn drive(
    surety: &Surety,
    serve: &Serve,
    engine: Engine,
    settings: &Settings,
    seed: u64,
) -> Result<Driven> {
    let (address, data) = (SocketAddr::from((PROXY, serve.listen.port())), &serve.data);
    let mut clients = Vec::new();
    for number in 0..settings.clients.max(1) {
        // Every second client repeats nothing by itself: with its link, what was under way becomes unknown, and is
        // resolved by look-up.
        let links_lost_max = if number % 2 == 0 { Options::default().links_lost_max } else { 0 };
        let deadline = Duration::from_secs(30);
        let options = Options { deadline, links_lost_max, ..Options::default() };
        clients.push(witness::connect_with(address, data, "authorizer", options).await?);
    }
    let shared = Arc::new(Shared {
        partitions: all_partitions(),
        settler: witness::connect(address, data, "settler").await?,
        left: AtomicI64::new(i64::try_from(settings.operations)?),
        done: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        resolved: AtomicU64::new(0),
        burned: AtomicU64::new(0),
        repeats: AtomicU64::new(0),
        begun: Instant::now(),
        nonces: AtomicU64::new(SETUP_NONCE + 1),
        targets: Mutex::default(),
        faults: Mutex::default(),
    });
    let is_over = Arc::new(AtomicBool::new(false));
    let killer = tokio::task::spawn_blocking({
        let (surety, serve, shared, is_over) =
            (surety.clone(), serve.clone(), shared.clone(), is_over.clone());
        let (operations, kills) = (settings.operations, settings.kills);
        move || kill_again_and_again(&surety, &serve, engine, operations, kills, &shared, &is_over)
    });
    let judged = tokio::spawn(judge_windows(clients.clone(), settings.windows, seed));
    let mut workers = Vec::new();
    for (number, client) in clients.iter().cycle().take(clients.len() * WORKERS_PER_CLIENT).enumerate() {
        let seed = seed.wrapping_add(number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d);
        workers.push(tokio::spawn(driver::work(client.clone(), shared.clone(), seed)));
    }
    let mut operations = Vec::new();
    for worker in workers {
        operations.extend(worker.await??);
    }
    let windows = judged.await??;
    is_over.store(true, Ordering::Relaxed);
    let engine = killer.await??;
    clients.iter().for_each(Client::close);
    Ok((shared, operations, windows, engine))
}

async fn judge_windows(clients: Vec<Client>, windows: u64, seed: u64) -> Result<Vec<Option<bool>>> {
    let mut judged = Vec::new();
    for window in 0..windows {
        judged.push(windows::run(&clients, window_partition(window), seed ^ window).await?);
    }
    Ok(judged)
}

/// Kills the engine each time that so many operations more are done. The engine that runs at the end.
fn kill_again_and_again(
    surety: &Surety,
    serve: &Serve,
    mut engine: Engine,
    operations: u64,
    kills: u64,
    shared: &Shared,
    is_over: &AtomicBool,
) -> Result<Engine> {
    let mut killed = 0;
    let (mut seen, mut seen_at) = (0, Instant::now());
    while !is_over.load(Ordering::Relaxed) {
        let done = shared.done.load(Ordering::Relaxed);
        if done > seen {
            (seen, seen_at) = (done, Instant::now());
        } else if seen_at.elapsed() > PATIENCE {
            bail!("no operation is answered any more, after {done}");
        }
        if killed < kills && done >= (killed + 1) * operations / (kills + 1) {
            engine.kill()?;
            engine = serve.start_well(surety)?;
            killed += 1;
            eprintln!("history: {done} of {operations}, killed {killed} times");
        }
        std::thread::sleep(POLL);
    }
    ensure!(killed == kills, "only {killed} kills of {kills}");
    Ok(engine)
}

fn tell(shared: &Shared, weather: &Weather, settings: &Settings, report: &mut Report) {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    report.set("clients", settings.clients);
    report.set("kills", settings.kills);
    for (name, count) in [
        ("refused", &shared.refused),
        ("resolved_by_lookup", &shared.resolved),
        ("burned", &shared.burned),
        ("repeats", &shared.repeats),
        ("datagrams_lost", &weather.lost),
        ("datagrams_doubled", &weather.doubled),
        ("datagrams_delayed", &weather.delayed),
    ] {
        report.set(name, load(count));
    }
    for fault in shared.faults.lock().unwrap_or_else(PoisonError::into_inner).iter().take(10) {
        report.fault(fault.clone());
    }
}

fn windows_hold(windows: &[Option<bool>], report: &mut Report) {
    let count = |verdict| windows.iter().filter(|judged| **judged == verdict).count() as u64;
    report.set("windows_linearizable", count(Some(true)));
    report.set("windows_cut_by_a_fault", count(None));
    report.expect(count(Some(false)) == 0, || format!("{} windows are not linearizable", count(Some(false))));
    report.expect(windows.is_empty() || count(Some(true)) > 0, || "no window was judged".to_owned());
}

/// Everything that can be checked once all is over.
fn check(
    surety: &Surety,
    data: &Path,
    beside: &Path,
    operations: &[Operation],
    report: &mut Report,
) -> Result<()> {
    for shard in (0..SHARDS).map(ShardId) {
        let own: Vec<Operation> = operations
            .iter()
            .filter(|operation| operation.request.partition.shard() == shard)
            .copied()
            .collect();
        let of_shard = all_partitions().into_iter().filter(|partition| partition.shard() == shard);
        let mut models: HashMap<_, _> =
            of_shard.map(|partition| (partition, Model::with(COLLATERAL))).collect();
        let verdict = order::check(&own, &mut models);
        report.add("events", verdict.events);
        report.add("reads", verdict.reads);
        report.add("operations", verdict.events + verdict.reads);
        report.expect(verdict.faults_found == 0, || {
            format!("shard {shard}: {} faults of the history", verdict.faults_found)
        });
        verdict.faults.iter().for_each(|fault| report.fault(format!("shard {shard}: {fault}")));
        nothing_else_is_logged(data, shard, &own, report)?;
    }
    replies_are_in_the_log(surety, data, beside, operations, report)
}

/// The log holds nothing that nobody was told of.
fn nothing_else_is_logged(
    data: &Path,
    shard: ShardId,
    operations: &[Operation],
    report: &mut Report,
) -> Result<()> {
    let seq_of = |operation: &Operation| match operation.answer {
        Answer::Reply(reply) => reply.seq,
        Answer::Resolved { seq, .. } | Answer::Burned { seq } => seq,
    };
    let told: std::collections::HashSet<_> = operations.iter().map(seq_of).collect();
    let partitions = all_partitions();
    for (seq, record) in log_end::records(data, shard)? {
        let is_setup = match record.kind() {
            Some(Kind::Deposit) => record.body::<StakeBody>().nonce == SETUP_NONCE,
            Some(kind) => {
                !kind.changes_a_lock() && !matches!(kind, Kind::Lock | Kind::Consume | Kind::Lookup)
            }
            None => false,
        };
        // A request that comes after its id was spent is declined, and nobody waits for it any more.
        let is_late = matches!(record.code(), Some(Code::Burned | Code::AlreadyReleased));
        let concerns_us = partitions.contains(&record.partition) && !is_setup && !is_late;
        if concerns_us && !told.contains(&seq) {
            report.fault(format!("shard {shard}: the log holds at {seq} what nobody was told: {record:?}"));
            return Ok(());
        }
    }
    Ok(())
}

/// The same check as after every other fault: each reply has its record.
fn replies_are_in_the_log(
    surety: &Surety,
    data: &Path,
    beside: &Path,
    operations: &[Operation],
    report: &mut Report,
) -> Result<()> {
    let acks = beside.join("acks.bin");
    let mut bytes = Vec::with_capacity(operations.len() * 128);
    for operation in operations {
        if let Answer::Reply(reply) = operation.answer {
            bytes.extend_from_slice(&reply.to_bytes());
        }
    }
    std::fs::write(&acks, bytes)?;
    let path = data.to_str().context("a path in UTF-8")?;
    let verify = surety.run(&["verify", "--data", path, "--json"])?;
    report.expect(verify.exit == 0, || format!("verify ends with {}: {}", verify.exit, verify.stdout));
    let found = loadtest::check(&acks, data)?;
    report.expect(found.ok, || format!("replies are not in the log as they were: {found:?}"));
    report.set("acks_verified", found.verified);
    Ok(())
}
