//! The index beside a real engine that is killed again and again: it misses nothing, and is the one that is made anew from the log.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

#[path = "../../client/examples/stage/mod.rs"]
mod stage;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Begin, Config};
use history::{
    Dial, History, HistoryError, NoRoom, Predicate, Query, Reader, Settings, State, Store, StoreOptions,
};
use server::{Running, Server};
use storage::{DataDirectory, FileStorage};
use surety_client::transport::Connector;
use surety_client::{Client, LockRef, LockRequest, Options};
use surety_protocol::{
    ActorId, Amount, Caller, Kind, MerchantId, PartitionHandle, Roles, Seq, ShardId, TenantId, Time,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(100);

fn serve(directory: &Path) -> Running {
    Server::start(server::Config { listen: None, ..stage::config(directory) }).unwrap()
}

fn connector(running: &Running, tenant: TenantId, roles: Roles) -> Arc<dyn Connector> {
    Arc::new(running.connector(Caller { tenant, roles, actor: ActorId(1) }))
}

fn follow(running: &Running, data: &Path) -> Result<History, HistoryError> {
    let metadata = DataDirectory::inspect(data).unwrap();
    let settings = Settings {
        data: data.to_owned(),
        engine: metadata.engine,
        shards: metadata.shards,
        id_window: metadata.id_window,
    };
    let reader = connector(running, TenantId(0), Roles::READER);
    let dial: Dial = Arc::new(move || {
        let reader = Arc::clone(&reader);
        Box::pin(async move {
            Client::over(reader, Options::default(), &[]).await.map_err(|error| error.to_string())
        })
    });
    let store = Store::open(&history::place(data), settings.engine)?;
    History::start(&settings, store, &dial)
}

/// Whether a shard's index has come to the end of what the engine has on its disk.
async fn is_caught_up(history: &History, running: &Running) -> bool {
    let reader = client(running, TenantId(0), Roles::READER).await;
    let status = history.status();
    for shard in &status.shards {
        let synced = reader.packed(ShardId(shard.shard)).await.unwrap().hello().synced;
        if shard.indexed < synced.0 || shard.state != State::Following {
            return false;
        }
    }
    true
}

async fn client(running: &Running, tenant: TenantId, roles: Roles) -> Client {
    Client::over(connector(running, tenant, roles), Options::default(), &[]).await.unwrap()
}

/// Payments of every partition: locked, captured in part, and the rest let go.
async fn pay(client: &Client, partitions: &[PartitionHandle], payments: u64) {
    for payment in 0..payments {
        for partition in partitions {
            let lock = LockRequest::new(*partition, Amount(100), MerchantId(payment % 7));
            let lock = LockRef::new(*partition, client.send(lock).await.unwrap().id);
            stage::approved(client.send(lock.capture(Amount(30))).await.unwrap()).unwrap();
            if payment % 3 == 0 {
                stage::approved(client.send(lock.release()).await.unwrap()).unwrap();
            }
        }
    }
}

async fn catch_up(history: &History, running: &Running) {
    let begun = Instant::now();
    while !is_caught_up(history, running).await {
        let status = history.status();
        assert!(status.state.goes_on(), "{status:?}");
        assert!(begun.elapsed() < PATIENCE, "the index does not come to the end: {status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_beside_a_killed_engine_misses_nothing() {
    let directory = stage::directory().unwrap();
    let data = directory.path();
    let mut partitions = Vec::new();
    for round in 0..4 {
        let running = serve(data);
        let history = follow(&running, data).unwrap();
        if round == 0 {
            let operator = client(&running, TenantId(0), Roles::ADMIN).await;
            partitions = stage::stake(&operator, &[1_000_000, 1_000_000, 1_000_000]).await.unwrap();
        }
        pay(&client(&running, stage::TENANT, Roles::AUTHORIZER).await, &partitions, 60).await;
        if round == 3 {
            catch_up(&history, &running).await;
            history.stop(PATIENCE).unwrap();
            drop(history);
            // A drain would write a checkpoint, which nobody indexes any more.
            running.kill();
        } else {
            running.kill();
            drop(history);
        }
    }
    let directory = DataDirectory::open(data).unwrap();
    let reader = Reader::open(&history::place(data), directory.metadata().engine).unwrap();
    let positions: Vec<(ShardId, Seq)> = reader
        .positions()
        .unwrap()
        .iter()
        .map(|(shard, position)| (*shard, Seq(position.next.0 - 1)))
        .collect();
    agrees(&directory, &reader, &positions, &partitions);
    let digest = reader.digest().unwrap();
    drop(reader);
    let full = StoreOptions { free_bytes_min: u64::MAX, ..plain() };
    let refused = history::rebuild(&directory, &full, &positions, None, |_, _| {});
    assert!(matches!(refused, Err(HistoryError::NoRoom(NoRoom::Disk { .. }))), "{refused:?}");
    assert!(!data.join("history.new").exists(), "nothing of it stays on a full disk");
    let reader = Reader::open(&history::place(data), directory.metadata().engine).unwrap();
    assert_eq!(reader.digest().unwrap(), digest, "the index is as it was");
    drop(reader);
    let mut told = 0;
    let progress = |_, _| {
        told += 1;
        let meanwhile = Reader::open(&history::place(data), directory.metadata().engine);
        assert!(
            matches!(meanwhile, Err(HistoryError::InUse(_))),
            "nobody opens what is replaced: {meanwhile:?}"
        );
    };
    let rebuilt = history::rebuild(&directory, &plain(), &positions, None, progress).unwrap();
    assert!(told >= positions.len(), "each shard's end is told");
    assert_eq!(rebuilt.digest, digest, "fed beside an engine that was killed, or made anew: the same");
    let reader = Reader::open(&history::place(data), directory.metadata().engine).unwrap();
    assert_eq!(reader.digest().unwrap(), digest, "what was made anew stands in its place");
    agrees(&directory, &reader, &positions, &partitions);
}

/// Whatever the disk has free.
fn plain() -> StoreOptions {
    StoreOptions { free_bytes_min: 0, ..StoreOptions::beside(0) }
}

/// The index has come to the log's end, and says what the ledger there says.
fn agrees(
    directory: &DataDirectory,
    reader: &Reader,
    positions: &[(ShardId, Seq)],
    partitions: &[PartitionHandle],
) {
    let metadata = directory.metadata();
    let mut captures = 0;
    for (shard, seq) in positions {
        let config = Config { id_window: metadata.id_window, ..Config::new(metadata.engine, *shard) };
        let mut storage = FileStorage::open_read_only(&directory.shard_path(*shard)).unwrap();
        let recovered = engine::recover(config, &mut storage, Begin::Oldest, |_| {}).unwrap();
        assert_eq!(recovered.report().last_seq, *seq, "everything is indexed");
        for partition in partitions.iter().filter(|partition| partition.shard() == *shard) {
            let totals = recovered.ledger().partition(*partition).unwrap();
            let balances = reader.balances(*partition, Time(u64::MAX)).unwrap().unwrap();
            assert_eq!(
                (balances.free, balances.held, balances.captured, balances.on_chain),
                (totals.free, totals.held, totals.captured, totals.on_chain)
            );
            captures += 240;
        }
    }
    let mut query = Query { limit: 100, ..Query::new(vec![Predicate::Kind(Kind::Capture)]) };
    let mut found = 0;
    loop {
        let page = reader.records(&query).unwrap();
        found += page.rows.len();
        if !page.has_more {
            break;
        }
        query.cursor = page.cursor;
    }
    assert_eq!(found, captures, "every capture, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_another_engine_in_use_or_ahead_is_refused_by_name() {
    let (one, two) = (stage::directory().unwrap(), stage::directory().unwrap());
    let engine = |data: &Path| DataDirectory::inspect(data).unwrap().engine;
    let missing = Reader::open(&history::place(one.path()), engine(one.path()));
    assert!(matches!(missing, Err(HistoryError::Missing(_))));
    let names = std::fs::read_dir(one.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(
        !names.into_iter().any(|name| name.to_string_lossy().starts_with("history")),
        "who asks leaves nothing"
    );
    let running = serve(one.path());
    let history = follow(&running, one.path()).unwrap();
    catch_up(&history, &running).await;
    let in_use = Reader::open(&history::place(one.path()), engine(one.path()));
    assert!(matches!(in_use, Err(HistoryError::InUse(_))), "{in_use:?}");
    history.stop(PATIENCE).unwrap();
    drop(history);
    running.shutdown();
    std::fs::rename(history::place(one.path()), history::place(two.path())).unwrap();
    let foreign = Reader::open(&history::place(two.path()), engine(two.path()));
    assert!(matches!(foreign, Err(HistoryError::Foreign { .. })), "{foreign:?}");
    // What is opened is written to: its keeper's files stay the keeper's.
    if std::os::unix::fs::chown(two.path(), Some(65_534), None).is_ok() {
        let strange = Reader::open(&history::place(two.path()), engine(two.path()));
        assert!(matches!(strange, Err(HistoryError::Owner { owner: 65_534, .. })), "{strange:?}");
        std::os::unix::fs::chown(two.path(), Some(rustix::process::geteuid().as_raw()), None).unwrap();
    } else {
        eprintln!("SKIPPED: only root can give a directory to somebody else");
    }
    // Its engine's data begins anew, and the index knows more than there is.
    std::fs::rename(history::place(two.path()), history::place(one.path())).unwrap();
    let directory = DataDirectory::open(one.path()).unwrap();
    let wanted: Vec<(ShardId, Seq)> = directory.shards().map(|shard| (shard, Seq(1_000_000))).collect();
    let ahead = history::rebuild(&directory, &plain(), &wanted, None, |_, _| {});
    assert!(ahead.is_err(), "{ahead:?}");
    let reader = Reader::open(&history::place(one.path()), engine(one.path()));
    assert!(reader.is_ok(), "the index that was there stays");
}
