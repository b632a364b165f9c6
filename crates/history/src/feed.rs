//! Follows a running engine as one of its clients: a thread for each shard takes the shard's change stream, and asks now and then how far the
//! shard has come, so that it is known up to when the index is complete.
//!
//! Nothing here can hold the engine up: a reader of the change stream that is slow or gone costs it nothing but the part of the log that its
//! own settings keep for readers.

use std::future::{Future, pending};
use std::iter::repeat;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::Config;
use parking_lot::Mutex;
use storage::FileStorage;
use surety_client::{Client, Tail, TailError};
use surety_protocol::{Cursor, EngineId, Epoch, Seq, ShardId, StateKind, StateQuery, TenantRow, Time};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::error::HistoryError;
use crate::horizon::Horizon;
use crate::indexer::Indexer;
use crate::reader::{Reader, Scope};
use crate::replica;
use crate::store::Store;
use crate::tell::{ShardStatus, State, Status};
use crate::walk::Bounds;

/// Rows wait no longer than this for others to be written with.
const COMMIT_AFTER: Duration = Duration::from_millis(50);
/// How often a shard is asked how far it has come.
const HEAD_INTERVAL: Duration = Duration::from_millis(250);
/// A stream says something each second. After this long without a word the engine is looked for again: it may be somewhere else.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The pauses between tries of what may pass: twice as long each time.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long rows wait before it is looked again whether there is room for them.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);
/// How often the way back is tried: a snapshot or a segment may be replaced while it is read.
const READ_BACK_TRIES: u32 = 3;
/// How long threads may take to end of which nobody has said how long.
const DROP_MAX: Duration = Duration::from_secs(10);
/// How long the engine is waited for when it is told good-bye.
const FAREWELL_MAX: Duration = Duration::from_millis(300);

/// What is indexed, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine's data directory; the index is in it, see [`crate::place`].
    pub data: PathBuf,
    /// Whose it is.
    pub engine: EngineId,
    /// How many shards it has.
    pub shards: u16,
    /// How old an id may be, as the data directory says.
    pub id_window: Time,
}

/// Finds the engine, wherever it is now, and connects to it as one who may read everything; or says why not.
pub type Dial = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Client, String>> + Send>> + Send + Sync>;

/// An index that follows an engine. Dropping it ends that; what was taken and written stays.
#[derive(Debug)]
pub struct History {
    store: Store,
    told: Arc<Told>,
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How the threads are doing.
struct Told {
    engine: EngineId,
    started: Time,
    store: Store,
    horizon: Horizon,
    shards: Vec<ShardTold>,
    /// Why the store is of no use to this process any more.
    broken: watch::Sender<Option<String>>,
}

impl core::fmt::Debug for Told {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

struct ShardTold {
    indexed: AtomicU64,
    /// The last record that the shard has told of, and in which epoch: a crash may take what was not durable.
    decided: Mutex<(Epoch, Seq)>,
    state: Mutex<(State, Option<String>)>,
}

impl History {
    /// Opens the index of an engine, or begins one, and follows the engine from there, whenever it is there.
    ///
    /// # Errors
    /// If the store cannot be opened or is another engine's, or there is no thread. What a shard's thread meets later is told by [`History::status`].
    pub fn start(settings: &Settings, store: Store, dial: &Dial) -> Result<Self, HistoryError> {
        let told = Arc::new(Told::new(settings, store.clone())?);
        let (stop, stopped) = watch::channel(false);
        let history = Self { store, told, stop, threads: Mutex::default() };
        for shard in (0..settings.shards).map(ShardId) {
            let follower = Follower {
                settings: settings.clone(),
                shard,
                store: history.store.clone(),
                dial: Arc::clone(dial),
                told: Arc::clone(&history.told),
                stopped: stopped.clone(),
                pause: PAUSE_MIN,
            };
            let doing = || format!("starting the history's thread of shard {shard}");
            let thread = thread::Builder::new().name(format!("history-{shard}"));
            let spawned = thread.spawn(move || follower.run());
            history
                .threads
                .lock()
                .push(spawned.map_err(|source| HistoryError::Io { doing: doing(), source })?);
        }
        Ok(history)
    }

    /// Asks the index on somebody's behalf.
    #[must_use]
    pub fn reader(&self, scope: Scope) -> Reader {
        self.store.reader_with(self.told.horizon.clone()).of(scope)
    }

    /// How far each shard has come, and how it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.told.status()
    }

    /// Waits until the store is of no use to this process any more, and tells why: whoever opens it again may find it sound.
    pub async fn broken(&self) -> String {
        let mut broken = self.told.broken.subscribe();
        match broken.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => pending().await,
        }
    }

    /// Ends following, and waits so long for the threads to write what they have taken. What they have not is read again at the next start.
    ///
    /// # Errors
    /// The store's own.
    pub fn stop(&self, patience: Duration) -> Result<(), HistoryError> {
        self.end(patience);
        self.store.persist()
    }

    fn end(&self, patience: Duration) {
        self.stop.send_replace(true);
        let begun = std::time::Instant::now();
        for thread in self.threads.lock().drain(..) {
            while !thread.is_finished() && begun.elapsed() < patience {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.end(DROP_MAX);
    }
}

impl Told {
    fn new(settings: &Settings, store: Store) -> Result<Self, HistoryError> {
        // Before anything is told: a shard that is not begun is missed by nobody who does not know of it.
        store.note_shards(settings.shards)?;
        let horizon = Horizon::new(settings.shards);
        let mut shards = Vec::new();
        for shard in (0..settings.shards).map(ShardId) {
            let position = store.view().position(shard)?.unwrap_or(crate::Position::START);
            shards.push(ShardTold {
                indexed: AtomicU64::new(position.next.0 - 1),
                decided: Mutex::new((position.epoch, Seq(position.next.0 - 1))),
                state: Mutex::new((State::Waiting, None)),
            });
        }
        Ok(Self {
            engine: settings.engine,
            started: now(),
            store,
            horizon,
            shards,
            broken: watch::Sender::new(None),
        })
    }

    fn status(&self) -> Status {
        let now = now();
        let complete = self.complete();
        let complete = complete.into_iter().chain(repeat(Time::ZERO));
        let shards = self.shards.iter().zip(0_u16..).zip(complete);
        let shards = shards.map(|((told, shard), complete)| told.status(shard, complete, now, self.started));
        // A store that cannot tell its size has told a thread worse.
        Status::of(self.engine, shards.collect(), self.store.bytes().unwrap_or_default())
    }

    /// By shard: everything that it decided before this moment is in the store. A store that cannot say so has told a thread worse.
    fn complete(&self) -> Vec<Time> {
        // First what is told, then the view that it is said of.
        let told = self.horizon.told();
        let bounds = Bounds::of(&self.store.view(), &told);
        bounds.map(|bounds| bounds.complete().collect()).unwrap_or_default()
    }

    fn of(&self, shard: ShardId) -> &ShardTold {
        &self.shards[usize::from(shard.0)]
    }
}

impl ShardTold {
    fn status(&self, shard: u16, complete_before: Time, now: Time, started: Time) -> ShardStatus {
        let indexed = self.indexed.load(Ordering::Acquire);
        // Of an index that has just begun it is known since when nothing is known.
        let since = if complete_before == Time::ZERO { started } else { complete_before };
        let (state, message) = self.state.lock().clone();
        ShardStatus {
            shard,
            state,
            message,
            indexed,
            lag_records: Some(self.decided.lock().1.0.saturating_sub(indexed)),
            lag_ms: Some(now.0.saturating_sub(since.0) / 1_000_000),
            complete_before,
        }
    }
}

/// One shard's thread.
struct Follower {
    settings: Settings,
    shard: ShardId,
    store: Store,
    dial: Dial,
    told: Arc<Told>,
    stopped: watch::Receiver<bool>,
    pause: Duration,
}

/// Why a connection is followed no longer.
enum Ended {
    Stopped,
    /// The engine says nothing, or nothing to us.
    Lost(String),
}

impl Follower {
    fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return self.say(State::Failed, Some(format!("no runtime: {error}"))),
        };
        runtime.block_on(async {
            while let Err(error) = self.follow().await {
                if !self.meet(error).await {
                    break;
                }
            }
        });
        // What is being read back is of no use to anybody.
        runtime.shutdown_background();
    }

    /// From wherever the index is until it is to end.
    async fn follow(&mut self) -> Result<(), HistoryError> {
        let Some(mut client) = self.connect().await else { return Ok(()) };
        let Some((mut indexer, hold)) = self.read_back(&client).await? else { return Ok(()) };
        let mut hold = Some(hold);
        loop {
            match self.follow_over(&client, &mut indexer, &mut hold).await? {
                Ended::Stopped => {
                    let _ = timeout(FAREWELL_MAX, client.shutdown()).await;
                    return indexer.commit();
                }
                Ended::Lost(why) => {
                    self.say(State::Waiting, Some(why));
                    client.close();
                }
            }
            // Who was refused is refused again at once.
            if !self.rest().await {
                return indexer.commit();
            }
            let Some(next) = self.connect().await else { return indexer.commit() };
            client = next;
        }
    }

    /// Says what went wrong, and waits for as long as it takes until it is worth another try. False if there will be none.
    async fn meet(&mut self, error: HistoryError) -> bool {
        let (shard, message) = (self.shard.0, error.to_string());
        match Trouble::of(&error) {
            Trouble::MayPass => {
                tracing::warn!(shard, error = message, "the history is tried again");
                self.say(State::Waiting, Some(message));
                return self.rest().await;
            }
            Trouble::Store => {
                tracing::error!(shard, error = message, "the history's store does not go on");
                self.say(State::Failed, Some(message.clone()));
                self.told.broken.send_replace(Some(message));
            }
            Trouble::Final(state) => {
                tracing::error!(shard, error = message, "the history of this shard does not go on");
                self.say(state, Some(message));
            }
        }
        false
    }

    /// Waits a little longer than the last time; false if it is to end.
    async fn rest(&mut self) -> bool {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        tokio::select! {
            () = sleep(pause) => true,
            _ = self.stopped.wait_for(|stopped| *stopped) => false,
        }
    }

    /// Tries until the engine is there; none if it is to end.
    async fn connect(&mut self) -> Option<Client> {
        loop {
            let dialled = tokio::select! {
                dialled = timeout(SILENCE_MAX, (self.dial)()) => dialled,
                _ = self.stopped.wait_for(|stopped| *stopped) => return None,
            };
            let why = match dialled {
                Ok(Ok(client)) if client.hello().engine == self.settings.engine => return Some(client),
                Ok(Ok(client)) => {
                    client.close();
                    format!("engine {} answers, and not {}", client.hello().engine, self.settings.engine)
                }
                Ok(Err(error)) => error,
                Err(_) => "the engine does not answer".to_owned(),
            };
            if self.told.of(self.shard).state.lock().1.as_ref() != Some(&why) {
                tracing::info!(shard = self.shard.0, "waiting for the engine: {why}");
            }
            self.say(State::Waiting, Some(why));
            if !self.rest().await {
                return None;
            }
        }
    }

    /// The replica as it was at the index's position, and what holds the log behind it until it is followed; none if it is to end meanwhile.
    async fn read_back(&mut self, client: &Client) -> Result<Option<(Indexer, Tail)>, HistoryError> {
        self.say(State::ReadingBack, None);
        let mut tries = 0;
        loop {
            tries += 1;
            let end = self.synced(client).await?;
            // For as long as this reader is behind, retention leaves it what it has not read, as far as the engine's settings go.
            let mut hold = client.tail(self.shard, Cursor::anew(self.oldest()?));
            let _ = timeout(SILENCE_MAX, hold.next_batch()).await;
            let (settings, shard, store) = (self.settings.clone(), self.shard, self.store.clone());
            // Beside this thread, so that the connection is kept alive.
            let reading = tokio::task::spawn_blocking(move || replay(&settings, shard, store, end));
            let read = tokio::select! {
                read = reading => read,
                _ = self.stopped.wait_for(|stopped| *stopped) => return Ok(None),
            };
            match read {
                Ok(Err(HistoryError::Gone { .. })) if tries < READ_BACK_TRIES => {}
                Ok(read) => return read.map(|indexer| Some((indexer, hold))),
                Err(error) => {
                    let doing = format!("reading shard {shard} back");
                    return Err(HistoryError::Io { doing, source: std::io::Error::other(error) });
                }
            }
        }
    }

    /// The last record of the shard that is on the engine's disk.
    async fn synced(&self, client: &Client) -> Result<Seq, HistoryError> {
        let link = client.packed(self.shard).await.map_err(|error| HistoryError::Io {
            doing: format!("asking shard {} how far it has come", self.shard),
            source: std::io::Error::other(error),
        })?;
        Ok(link.hello().synced)
    }

    /// The first record that the log still has.
    fn oldest(&self) -> Result<Seq, HistoryError> {
        let storage = FileStorage::open_read_only(&shard_path(&self.settings, self.shard))?;
        Ok(wal::list_segments(&storage)?.first().map_or(Seq(1), |segment| segment.first_seq))
    }

    /// Takes what comes over a connection.
    async fn follow_over(
        &mut self,
        client: &Client,
        indexer: &mut Indexer,
        hold: &mut Option<Tail>,
    ) -> Result<Ended, HistoryError> {
        let mut tail = client.tail(self.shard, indexer.cursor());
        let asking = ask_heads(client.clone(), self.shard, Arc::clone(&self.told));
        tokio::pin!(asking);
        let mut stopped = self.stopped.clone();
        let mut heard = Instant::now();
        let mut due: Option<Instant> = None;
        loop {
            tokio::select! {
                batch = next_batch(&mut tail, indexer) => {
                    if let Some(lost) = self.take(batch, indexer)? {
                        return Ok(lost);
                    }
                    *hold = None;
                    heard = Instant::now();
                }
                () = wait_until(due) => {}
                () = &mut asking => {}
                () = sleep_until(heard + SILENCE_MAX) => {
                    if !indexer.is_full() {
                        return Ok(Ended::Lost("the engine has fallen silent".to_owned()));
                    }
                    heard = Instant::now();
                }
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(Ended::Stopped),
            }
            if indexer.waiting() > 0 && due.is_none() {
                due = Some(Instant::now() + COMMIT_AFTER);
            }
            if indexer.is_full() || due.is_some_and(|due| due <= Instant::now()) {
                due = self.commit(indexer)?;
            }
            self.tell(indexer);
        }
    }

    /// Takes a batch. Says how the connection has ended if it has.
    fn take(
        &mut self,
        batch: Result<surety_client::TailBatch<'_>, TailError>,
        indexer: &mut Indexer,
    ) -> Result<Option<Ended>, HistoryError> {
        let batch = match batch {
            Ok(batch) => batch,
            // Another identity, or room for another reader, may be there the next time.
            Err(error @ TailError::Refused { .. }) => return Ok(Some(Ended::Lost(error.to_string()))),
            Err(error) => return Err(stream_error(self.shard, error)),
        };
        if !batch.records.is_empty() {
            indexer.take(batch.first, batch.epoch, batch.records)?;
        }
        if self.told.of(self.shard).state.lock().0 != State::NoRoom {
            self.pause = PAUSE_MIN;
            self.say(State::Following, None);
        }
        Ok(None)
    }

    /// Writes what was taken, if there is room. Tells when it is to be tried again, if not.
    fn commit(&self, indexer: &mut Indexer) -> Result<Option<Instant>, HistoryError> {
        if let Err(no_room) = self.store.room() {
            self.say(State::NoRoom, Some(no_room.to_string()));
            return Ok(Some(Instant::now() + ROOM_INTERVAL));
        }
        indexer.commit()?;
        self.say(State::Following, None);
        Ok(None)
    }

    /// Tells how far the index is.
    fn tell(&self, indexer: &Indexer) {
        let indexed = Seq(indexer.stored().0 - 1);
        self.told.of(self.shard).indexed.store(indexed.0, Ordering::Release);
    }

    fn say(&self, state: State, message: Option<String>) {
        let mut told = self.told.of(self.shard).state.lock();
        if told.0 != state || told.1 != message {
            if told.0 != state && matches!(state, State::Following | State::NoRoom) {
                tracing::info!(shard = self.shard.0, state = state.name(), "the history");
            }
            *told = (state, message);
        }
    }
}

/// The next batch, as long as there is room to take one.
async fn next_batch<'a>(
    tail: &'a mut Tail,
    indexer: &Indexer,
) -> Result<surety_client::TailBatch<'a>, TailError> {
    if indexer.is_full() {
        return pending().await;
    }
    tail.next_batch().await
}

/// Asks a shard again and again how far it has come: for as little as there is, but of a moment that it names.
async fn ask_heads(client: Client, shard: ShardId, told: Arc<Told>) {
    loop {
        let query = StateQuery { limit: 1, ..StateQuery::new(shard, StateKind::Tenants) };
        if let Ok(mut pages) = client.state::<TenantRow>(query).await {
            // A shard that does not answer is told by the silence of its stream.
            let _ = pages.next_page().await;
            if let Some(head) = pages.head() {
                let mut decided = told.of(shard).decided.lock();
                *decided = (*decided).max((head.epoch, head.seq));
                drop(decided);
                // What is decided behind that record is not older than the moment.
                if head.seq.0 <= told.of(shard).indexed.load(Ordering::Acquire) {
                    told.horizon.advance(shard, head.epoch, head.now);
                }
            }
        }
        sleep(HEAD_INTERVAL).await;
    }
}

/// Replays the log up to the index's position.
fn replay(settings: &Settings, shard: ShardId, store: Store, end: Seq) -> Result<Indexer, HistoryError> {
    let config = Config { id_window: settings.id_window, ..Config::new(settings.engine, shard) };
    let position = store.view().position(shard)?.unwrap_or(crate::Position::START);
    let mut storage = FileStorage::open_read_only(&shard_path(settings, shard))?;
    let replica = replica::after(&config, &mut storage, Seq(position.next.0 - 1), end)?;
    Indexer::new(store, shard, replica)
}

fn shard_path(settings: &Settings, shard: ShardId) -> PathBuf {
    settings.data.join(format!("shard-{shard}"))
}

/// What comes of an error.
enum Trouble {
    /// It is tried again.
    MayPass,
    /// The store takes nothing more from this process.
    Store,
    /// Somebody has to do something.
    Final(State),
}

impl Trouble {
    fn of(error: &HistoryError) -> Self {
        match error {
            HistoryError::Store { .. } => Self::Store,
            HistoryError::Gone { .. } => Self::Final(State::Gone),
            HistoryError::Ahead { .. }
            | HistoryError::Epoch { .. }
            | HistoryError::Parted { .. }
            | HistoryError::OtherLog { .. }
            | HistoryError::Diverged { .. }
            | HistoryError::Damaged { .. }
            | HistoryError::Newer { .. }
            | HistoryError::Older { .. }
            | HistoryError::Foreign { .. }
            | HistoryError::Log { .. }
            | HistoryError::Stream(TailError::OtherHistory { .. }) => Self::Final(State::Failed),
            _ => Self::MayPass,
        }
    }
}

/// What the stream says, in the words of the index.
fn stream_error(shard: ShardId, error: TailError) -> HistoryError {
    match error {
        TailError::Lost { wanted, oldest, .. } => HistoryError::Gone { shard, wanted, oldest },
        TailError::Ahead { wanted, synced, .. } => {
            HistoryError::Ahead { shard, indexed: Seq(wanted.0 - 1), end: synced }
        }
        TailError::Parted { from, .. } => HistoryError::Parted { shard, from },
        error => error.into(),
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
