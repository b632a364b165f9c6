//! One tenant's side of the front door: its client, and what its change stream has told.
//!
//! The client's certificate says which tenant it is, so the engine itself keeps tenants apart: nothing of another one ever gets here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use parking_lot::{Mutex, RwLock};
use surety_client::protocol::{AssetId, Code, Id, PartitionHandle, Record, Reply, Seq, ShardId, Time};
use surety_client::transport::OpenError;
use surety_client::{Client, TailBatch};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::ask::{Failure, ask};
use crate::book::{Book, Listed};
use crate::config::RestLimits;
use crate::cursor::Cursor;
use crate::keys::{Claim, Keys};
use crate::money::Asset;
use crate::problem::Problem;
use crate::recent::Recent;

/// How long to wait for the change stream to tell what may have happened just now.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);
/// Readers of the engine's log at a time, for what is not at hand any more.
const LOG_READERS_MAX: usize = 4;

/// Keys come free as their windows end.
const KEYS_FULL_RETRY_S: u64 = 10;

/// What all requests of a tenant share.
pub(crate) struct Desk {
    client: Client,
    assets: Arc<[Asset]>,
    told: Mutex<Told>,
    /// Counts what the change stream has told.
    news: watch::Sender<u64>,
    /// When the engine was last asked how far it is, and its answer.
    asked: AsyncMutex<Option<(Instant, Vec<Seq>)>>,
    /// The asset of each partition that was asked for: it never changes.
    assets_of: RwLock<HashMap<PartitionHandle, AssetId>>,
    pub(crate) limits: Arc<RestLimits>,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) live: Arc<Semaphore>,
    pub(crate) log_readers: Semaphore,
}

/// What the change stream has told.
pub(crate) struct Told {
    pub(crate) book: Book,
    pub(crate) keys: Keys,
    pub(crate) recent: Vec<Recent>,
}

impl Told {
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor(self.recent.iter().map(Recent::through).collect())
    }
}

impl Desk {
    pub(crate) fn new(client: Client, assets: Arc<[Asset]>, limits: Arc<RestLimits>) -> Self {
        let recent = || Recent::new(limits.events_max);
        Self {
            told: Mutex::new(Told {
                book: Book::new(limits.locks_max),
                keys: Keys::new(limits.keys_max, limits.key_window),
                recent: (0..client.shards()).map(|_| recent()).collect(),
            }),
            client,
            assets,
            news: watch::Sender::new(0),
            asked: AsyncMutex::default(),
            assets_of: RwLock::default(),
            in_flight: Arc::new(Semaphore::new(limits.in_flight_max)),
            live: Arc::new(Semaphore::new(limits.live_max)),
            log_readers: Semaphore::new(LOG_READERS_MAX),
            limits,
        }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Looks at what the change stream has told.
    pub(crate) fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.told.lock())
    }

    /// Rises when the change stream has told something.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Takes what a shard's change stream tells next.
    pub(crate) fn observe(&self, shard: ShardId, batch: &TailBatch<'_>) {
        let TailBatch { first, records, through, epoch } = *batch;
        let now = now();
        let mut told = self.told.lock();
        for record in records {
            told.book.observe(record);
            told.keys.observe(record, now);
        }
        if let Some(recent) = told.recent.get_mut(usize::from(shard.0)) {
            recent.push(first, records, through, epoch);
        }
        drop(told);
        self.news.send_modify(|count| *count += 1);
    }

    /// A shard's stream goes on behind this; what was before is not known.
    pub(crate) fn skip(&self, shard: ShardId, behind: Seq) {
        let mut told = self.told.lock();
        told.book.forget();
        if let Some(recent) = told.recent.get_mut(usize::from(shard.0)) {
            recent.restart(behind);
        }
    }

    /// The engine came back with another history: what was told of a shard is worth nothing.
    pub(crate) fn start_over(&self, shard: ShardId) {
        let mut told = self.told.lock();
        told.book.drop_shard(shard);
        if let Some(recent) = told.recent.get_mut(usize::from(shard.0)) {
            recent.restart(Seq(0));
        }
    }

    /// Waits until everything has been read that any reply may have spoken of before this was called.
    pub(crate) async fn catch_up(&self) -> Result<(), Box<Problem>> {
        let behind = || Problem::unavailable("The change stream cannot be read up to now; nothing was done.");
        let read = async {
            let acked = self.acked(Instant::now()).await.map_err(|_| behind())?;
            let mut news = self.news();
            let is_read = || self.told(|told| told.cursor().has_reached(acked.iter().copied()));
            while !is_read() {
                // The sender lives as long as this does.
                let _ = news.changed().await;
            }
            Ok(())
        };
        timeout(CATCH_UP_WITHIN, read).await.unwrap_or_else(|_| Err(behind()))
    }

    /// How far the engine was at some moment since: one question serves all that wait meanwhile.
    async fn acked(&self, since: Instant) -> Result<Vec<Seq>, OpenError> {
        let mut asked = self.asked.lock().await;
        if let Some((at, acked)) = &*asked
            && *at >= since
        {
            return Ok(acked.clone());
        }
        let at = Instant::now();
        let mut acked = Vec::new();
        for shard in (0..self.client.shards()).map(ShardId) {
            acked.push(self.client.packed(shard).await?.hello().acked);
        }
        *asked = Some((at, acked.clone()));
        Ok(acked)
    }

    /// Where a lock is, and what is known of it. A partition that the application names is believed.
    pub(crate) async fn find(
        &self,
        lock: Id,
        named: Option<PartitionHandle>,
    ) -> Result<(PartitionHandle, Option<Listed>), Box<Problem>> {
        let known = || self.told(|told| told.book.find(lock).cloned());
        if let Some(partition) = named {
            return Ok((partition, known().filter(|lock| lock.partition == partition)));
        }
        if let Some(lock) = known() {
            return Ok((lock.partition, Some(lock)));
        }
        self.catch_up().await?;
        let lock = known().ok_or_else(|| {
            let detail = "There is no such lock, or none of this tenant, among those that are listed here. Name its partition to \
                          ask the engine for an older one.";
            Problem::not_found("UNKNOWN_LOCK", detail)
        })?;
        Ok((lock.partition, Some(lock)))
    }

    /// The asset of a partition, at its declared scale.
    pub(crate) async fn asset_of(&self, partition: PartitionHandle) -> Result<&Asset, Box<Problem>> {
        let unknown = || Problem::of_code(Code::UnknownPartition).about("partition");
        if partition.shard().0 >= self.client.shards() {
            return Err(unknown());
        }
        let known = self.assets_of.read().get(&partition).copied();
        let id = match known {
            Some(id) => id,
            None => {
                let row = self.client.partition(partition).await.map_err(|error| {
                    tracing::debug!(%error, "a partition cannot be read");
                    Problem::unavailable("The engine cannot be reached; nothing was sent.")
                })?;
                let row = row.ok_or_else(unknown)?;
                self.learn(partition, row.asset);
                row.asset
            }
        };
        self.assets.iter().find(|asset| asset.id == id).ok_or_else(|| {
            let detail = "The partition's asset is not served here.";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "ASSET", detail).about("partition")
        })
    }

    /// The asset with this number, if it is served.
    pub(crate) fn asset(&self, id: AssetId) -> Option<&Asset> {
        self.assets.iter().find(|asset| asset.id == id)
    }

    /// The asset of a partition, if it was asked for before.
    pub(crate) fn known_asset(&self, partition: PartitionHandle) -> Option<&Asset> {
        let id = self.assets_of.read().get(&partition).copied()?;
        self.asset(id)
    }

    /// Notes the asset of a partition.
    pub(crate) fn learn(&self, partition: PartitionHandle, asset: AssetId) {
        self.assets_of.write().insert(partition, asset);
    }

    /// Sends a request that carries an application's key, until its outcome is definite.
    pub(crate) async fn submit(&self, request: Record, deadline: Instant) -> Result<Reply, Box<Problem>> {
        let mut held = Held::take(self, request)?;
        let answer = ask(&self.client, request, deadline).await;
        // Nothing was done under it, by this call: it may be used with what was meant.
        held.is_spent = !matches!(answer, Err(Failure::Refused(_) | Failure::Unreachable));
        Ok(answer?)
    }

    /// Notes a lock that was decided just now, before the change stream tells of it.
    pub(crate) fn note(&self, request: &Record, reply: &Reply) {
        if reply.is_replayed() {
            return;
        }
        let mut record = *request;
        let mut body: surety_client::protocol::LockBody = record.body();
        body.deadline = reply.deadline;
        record.set_body(&body);
        (record.code, record.time) = (reply.code, reply.time);
        record.result.0 = reply.approved.0 + reply.extra.0;
        self.told.lock().book.observe(&record);
    }
}

/// A key that a call has, until the call ends, whichever way it ends.
struct Held<'a> {
    desk: &'a Desk,
    request: Record,
    is_spent: bool,
}

impl<'a> Held<'a> {
    fn take(desk: &'a Desk, request: Record) -> Result<Self, Box<Problem>> {
        let claim = desk.told.lock().keys.claim(&request, now());
        match claim {
            // One that is given up on has left.
            Claim::Held => Ok(Self { desk, request, is_spent: true }),
            Claim::Other => Err(Problem::of_code(Code::IdConflict).about("Idempotency-Key")),
            Claim::Full => {
                let detail =
                    "Too many keys of this tenant may still be repeated; nothing was done for this sending.";
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "KEYS_FULL", detail);
                Err(problem.about("Idempotency-Key").retryable(KEYS_FULL_RETRY_S))
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.desk.told.lock().keys.put_down(&self.request, self.is_spent);
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
