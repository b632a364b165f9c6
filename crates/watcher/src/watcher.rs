//! The watcher of one asset: reads its chain, keeps its journal, tells the engine. Everything that decides is in [`Track`]; here
//! is the order in which things become durable.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use surety_client::{Client, NotExecuted, SubmitError};
use surety_protocol::{AssetId, Record, Reply};

use crate::delivery::{Act, Delivery, Heard};
use crate::journal::{Attempt, Decided, Entry, Journal, JournalError};
use crate::payment::{SeenBlock, Watch, WatchKey};
use crate::source::{Source, SourceError};
use crate::spool;
use crate::start::{self, Start};
use crate::track::{AddError, Event, Halt, Progress, Track};

/// Blocks read in one turn.
const BLOCKS_PER_TURN_MAX: usize = 64;
/// Blocks between two notes of how far the chain is read, while nothing happens.
const BLOCKS_PER_NOTE: u64 = 64;
/// The pause after an answer that does not finish a delivery.
const PAUSE: Duration = Duration::from_secs(5);
/// What one delivery does in one turn at most.
const ACTS_PER_TURN_MAX: usize = 64;
/// Delivered watches whose address is still looked at, so that a second payment does not go unnoticed.
const DELIVERED_KEPT_MAX: usize = 100_000;
/// Lines of the journal after which it is rewritten; twice what is needed, if that is more.
const LINES_MAX: usize = 65_536;

/// What a watcher watches, and where it keeps what it must not forget.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its own directory.
    pub directory: PathBuf,
    /// The asset.
    pub asset: AssetId,
    /// Begins with this block, whatever the journal says: for a chain that has taken back what was long confirmed.
    pub from_block: Option<u64>,
}

/// A watcher of one asset.
pub struct Watcher<S> {
    config: Config,
    source: Arc<S>,
    client: Client,
    journal: Journal,
    lines: usize,
    lines_max: usize,
    track: Track,
    /// Decisions that the engine has not taken yet, and when to try again.
    deliveries: BTreeMap<WatchKey, (Delivery, Instant)>,
    delivered: VecDeque<WatchKey>,
    /// The block that was wanted when progress was last noted.
    noted_block: Option<u64>,
    is_checked: bool,
    heard_of_chain: Instant,
}

/// What a turn has done.
#[derive(Debug, Default)]
pub struct Turn {
    /// Blocks read.
    pub blocks: usize,
    /// What they told.
    pub events: Vec<Event>,
    /// Decisions that the engine has taken.
    pub delivered: Vec<WatchKey>,
    /// Decisions that wait.
    pub waiting: usize,
    /// Why the chain could not be read.
    pub trouble: Option<SourceError>,
    /// How long there has been no new block.
    pub silence: Duration,
}

/// A watcher that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WatcherError {
    /// What it must not forget cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The spool cannot be read.
    #[error("the spool: {0}")]
    Spool(#[source] std::io::Error),
    /// The chain took back what was long confirmed.
    #[error(
        "{0}; nothing more is decided from it: look at what was decided, then say from which block to read on"
    )]
    Halt(#[from] Halt),
    /// The thread that reads the chain has panicked.
    #[error("the source failed")]
    Source,
}

/// What a journal amounts to.
#[derive(Default)]
struct State {
    watches: BTreeMap<WatchKey, Watch>,
    progress: Option<Progress>,
    decided: BTreeMap<WatchKey, Decided>,
    attempts: HashMap<WatchKey, Attempt>,
}

impl State {
    fn of(entries: Vec<Entry>) -> Self {
        let mut state = Self::default();
        for entry in entries {
            match entry {
                Entry::Watch(watch) => drop(state.watches.insert(watch.key, watch)),
                Entry::Progress(progress) => state.progress = Some(progress),
                Entry::Decided(decided) => drop(state.decided.insert(decided.key, decided)),
                Entry::Attempt(attempt) => drop(state.attempts.insert(attempt.key, attempt)),
                Entry::Delivered(key) => {
                    state.watches.remove(&key);
                    state.decided.remove(&key);
                    state.attempts.remove(&key);
                }
            }
        }
        state
    }

    fn entries(&self) -> Vec<Entry> {
        let watches = self.watches.values().cloned().map(Entry::Watch);
        let progress = self.progress.iter().cloned().map(Entry::Progress);
        let decided = self.decided.values().copied().map(Entry::Decided);
        let attempts = self.decided.keys().filter_map(|key| self.attempts.get(key));
        watches.chain(progress).chain(decided).chain(attempts.copied().map(Entry::Attempt)).collect()
    }
}

impl<S: Source> Watcher<S> {
    /// Opens the journal, or begins one, and goes on where it stops. The client is a settler's: the operator's own, or that of
    /// the tenant whose locks are watched.
    ///
    /// # Errors
    ///
    /// [`WatcherError::Journal`].
    pub fn open(config: Config, source: S, client: Client) -> Result<Self, WatcherError> {
        let (mut journal, entries) = Journal::open(&config.directory)?;
        let mut state = State::of(entries);
        if config.from_block.is_some() {
            state.progress = None;
        }
        let compact = state.entries();
        journal.rewrite(&compact)?;
        let mut track = Track::new();
        let mut deliveries = BTreeMap::new();
        for watch in state.watches.values() {
            // It was taken before, and nothing has been read yet, so there is nothing to tell.
            if let Err(error) = track.add(watch.clone()) {
                tracing::error!(key = %watch.key, %error, "a watch of the journal is not taken");
            }
        }
        for decided in state.decided.values() {
            track.mark_decided(decided.key, decided.verdict);
            let mut delivery = delivery_of(*decided, &track);
            if let Some(attempt) = state.attempts.get(&decided.key) {
                delivery.resume(*attempt);
            }
            deliveries.insert(decided.key, (delivery, Instant::now()));
        }
        if let Some(progress) = &state.progress {
            track.resume(progress);
        }
        Ok(Self {
            config,
            source: Arc::new(source),
            client,
            journal,
            lines: compact.len(),
            lines_max: LINES_MAX.max(2 * compact.len()),
            track,
            deliveries,
            delivered: VecDeque::new(),
            noted_block: state.progress.map(|progress| progress.read),
            is_checked: false,
            heard_of_chain: Instant::now(),
        })
    }

    /// Takes a watch, whose address is as the source writes it ([`Source::account`]); it is on the disk when this returns. The same
    /// watch again changes nothing.
    ///
    /// # Errors
    ///
    /// [`WatcherError`]; a watch that cannot be taken is the inner error.
    pub fn watch(&mut self, watch: Watch) -> Result<Result<Vec<Event>, AddError>, WatcherError> {
        let is_known = self.track.watch(watch.key).is_some();
        let events = match self.track.add(watch.clone()) {
            Ok(events) => events,
            Err(error) => return Ok(Err(error)),
        };
        // In one write, with the place from which a restart has to read for it.
        let mut entries = Vec::new();
        if !is_known {
            entries.push(Entry::Watch(watch));
            entries.extend(self.progress_to_note());
        }
        self.absorb(&events, entries)?;
        Ok(Ok(events))
    }

    /// Takes what was left in the spool, reads new blocks, and tells the engine what is decided. Trouble with the node or the
    /// engine is no error: the next turn tries again.
    ///
    /// # Errors
    ///
    /// [`WatcherError`], after which the watcher must not be used.
    pub async fn turn(&mut self) -> Result<Turn, WatcherError> {
        let mut turn = Turn::default();
        // What is decided is told first, whatever the chain or the spool is like now.
        self.deliver(&mut turn).await?;
        // Where to begin is known, and remembered, before anything is taken that has waited for it.
        match self.prepare().await? {
            Ok(()) => {
                self.take_spool(&mut turn).await?;
                self.read(&mut turn).await?;
            }
            Err(trouble) => turn.trouble = Some(trouble),
        }
        self.note_progress(&turn)?;
        self.deliver(&mut turn).await?;
        self.shorten()?;
        turn.waiting = self.deliveries.len();
        turn.silence = self.heard_of_chain.elapsed();
        Ok(turn)
    }

    /// Watches that are not decided.
    #[must_use]
    pub fn open_watches(&self) -> usize {
        self.track.open()
    }

    async fn take_spool(&mut self, turn: &mut Turn) -> Result<(), WatcherError> {
        for (file, watch) in spool::left(&self.config.directory).map_err(WatcherError::Spool)? {
            let taken = match watch.filter(|watch| watch.asset == self.config.asset) {
                Some(watch) => match self.with_account(watch).await? {
                    Ok(Some(watch)) => self.watch(watch)?.map_err(|error| error.to_string()),
                    Ok(None) => Err("no address of this chain".to_owned()),
                    // It stays where it is until both nodes agree, and holds up nobody else.
                    Err(trouble @ SourceError::AccountDisagreement(_)) => {
                        turn.trouble = Some(trouble);
                        continue;
                    }
                    // Or until the node can be asked.
                    Err(trouble) => {
                        turn.trouble = Some(trouble);
                        return Ok(());
                    }
                },
                None => Err("no watch of this asset".to_owned()),
            };
            let done = match taken {
                Ok(events) => {
                    turn.events.extend(events);
                    std::fs::remove_file(&file)
                }
                Err(error) => {
                    tracing::error!(file = %file.display(), error, "a watch is refused");
                    spool::refuse(&self.config.directory, &file)
                }
            };
            done.map_err(WatcherError::Spool)?;
        }
        Ok(())
    }

    /// The watch with its address as the chain's blocks name it; none if it is no address of the chain.
    async fn with_account(&self, watch: Watch) -> Result<Result<Option<Watch>, SourceError>, WatcherError> {
        let asked = watch.to.clone();
        let account = self.ask(move |source| source.account(&asked)).await?;
        Ok(account.map(|account| account.map(|to| Watch { to, ..watch })))
    }

    async fn read(&mut self, turn: &mut Turn) -> Result<(), WatcherError> {
        while let Some(wanted) = self.track.wanted().filter(|_| turn.blocks < BLOCKS_PER_TURN_MAX) {
            let block = match self.ask(move |source| source.block(wanted)).await? {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(trouble) => {
                    turn.trouble = Some(trouble);
                    break;
                }
            };
            turn.events.extend(self.take(block)?);
            turn.blocks += 1;
        }
        if turn.blocks > 0 {
            self.heard_of_chain = Instant::now();
        }
        Ok(())
    }

    /// The node is of the right chain, and there is a block to begin with.
    async fn prepare(&mut self) -> Result<Result<(), SourceError>, WatcherError> {
        if !self.is_checked {
            match self.ask(|source| source.check()).await? {
                Ok(()) => self.is_checked = true,
                Err(trouble) => return Ok(Err(trouble)),
            }
        }
        self.begin().await
    }

    /// Finds the block to begin with, on the first turn of the first start: of a node that was checked, since it is remembered.
    async fn begin(&mut self) -> Result<Result<(), SourceError>, WatcherError> {
        if self.track.wanted().is_some() {
            return Ok(Ok(()));
        }
        if let Some(block) = self.config.from_block {
            self.track.begin(block);
            return Ok(Ok(()));
        }
        let left_s = spool::oldest_left_s(&self.config.directory).map_err(WatcherError::Spool)?;
        match self.ask(move |source| start::first(source, left_s)).await? {
            Ok(Start::With(block)) => self.track.begin(block),
            Ok(Start::After(base)) => {
                let progress = Progress { base, read: base.at.number, paid: Vec::new() };
                self.append(&[Entry::Progress(progress.clone())])?;
                self.track.resume(&progress);
                self.noted_block = self.track.wanted();
            }
            Err(trouble) => return Ok(Err(trouble)),
        }
        Ok(Ok(()))
    }

    fn take(&mut self, block: SeenBlock) -> Result<Vec<Event>, WatcherError> {
        let events = self.track.offer(block)?;
        self.absorb(&events, Vec::new())?;
        Ok(events)
    }

    /// Makes decisions durable before anybody hears of them.
    fn absorb(&mut self, events: &[Event], mut entries: Vec<Entry>) -> Result<(), WatcherError> {
        for event in events {
            tell(event);
            if let Event::Decided { key, verdict, paid } = *event {
                let decided = Decided { key, verdict, paid };
                entries.push(Entry::Decided(decided));
                self.deliveries.insert(key, (delivery_of(decided, &self.track), Instant::now()));
            }
        }
        self.append(&entries)
    }

    fn note_progress(&mut self, turn: &Turn) -> Result<(), WatcherError> {
        let Some(newest) = self.track.wanted().filter(|_| turn.blocks > 0) else { return Ok(()) };
        if self.noted_block.is_none_or(|noted| newest >= noted + BLOCKS_PER_NOTE) || !turn.events.is_empty() {
            let progress = self.progress_to_note();
            self.append(progress.as_slice())?;
        }
        Ok(())
    }

    fn progress_to_note(&mut self) -> Option<Entry> {
        let progress = self.track.progress()?;
        self.noted_block = self.track.wanted();
        Some(Entry::Progress(progress))
    }

    async fn deliver(&mut self, turn: &mut Turn) -> Result<(), WatcherError> {
        let now = Instant::now();
        let due: Vec<WatchKey> =
            self.deliveries.iter().filter(|(_, (_, at))| *at <= now).map(|(key, _)| *key).collect();
        for key in due {
            let Some((mut delivery, _)) = self.deliveries.remove(&key) else { continue };
            match self.advance(&mut delivery).await? {
                Advanced::Done => {
                    self.append(&[Entry::Delivered(key)])?;
                    self.delivered.push_back(key);
                    turn.delivered.push(key);
                }
                Advanced::Waits => drop(self.deliveries.insert(key, (delivery, Instant::now() + PAUSE))),
                Advanced::NoEngine => {
                    self.deliveries.insert(key, (delivery, Instant::now() + PAUSE));
                    break;
                }
            }
        }
        while self.delivered.len() > DELIVERED_KEPT_MAX {
            let oldest = self.delivered.pop_front();
            oldest.into_iter().for_each(|key| self.track.forget(key));
        }
        Ok(())
    }

    async fn advance(&mut self, delivery: &mut Delivery) -> Result<Advanced, WatcherError> {
        for _ in 0..ACTS_PER_TURN_MAX {
            let heard = match delivery.next(self.client.now()) {
                Act::Done => return Ok(Advanced::Done),
                Act::Note(attempt) => {
                    self.append(&[Entry::Attempt(attempt)])?;
                    delivery.noted(attempt);
                    Heard::GoOn
                }
                Act::Look(record) => match self.submit(record).await {
                    Some(reply) => delivery.found(&reply),
                    None => return Ok(Advanced::NoEngine),
                },
                Act::Send(record) => match self.submit(record).await {
                    Some(reply) => delivery.answered(reply.code()),
                    None => return Ok(Advanced::NoEngine),
                },
            };
            let key = delivery.decided.key;
            match heard {
                Heard::GoOn => {}
                Heard::Later(code) => {
                    tracing::warn!(%key, %code, "the engine does not take a decision yet");
                    return Ok(Advanced::Waits);
                }
                Heard::Stuck(code) => {
                    tracing::error!(%key, %code, "the engine does not take a decision");
                    return Ok(Advanced::Waits);
                }
            }
        }
        Ok(Advanced::Waits)
    }

    /// The answer, also where it is a refusal; none if the engine was not reached or its answer was lost.
    async fn submit(&self, record: Record) -> Option<Reply> {
        match self.client.submit(record).await {
            Ok(reply) => Some(reply),
            Err(SubmitError::NotExecuted { id, why: NotExecuted::Refused { code, time } }) => {
                Some(Reply { id, time, code: code as u8, kind: record.kind, ..Reply::default() })
            }
            Err(error) => {
                tracing::warn!(%error, "the engine does not answer");
                None
            }
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&S) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<Result<T, SourceError>, WatcherError> {
        let source = self.source.clone();
        tokio::task::spawn_blocking(move || question(&source)).await.map_err(|_| WatcherError::Source)
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), WatcherError> {
        self.journal.append(entries)?;
        self.lines += entries.len();
        Ok(())
    }

    /// Keeps the journal from growing without bound.
    fn shorten(&mut self) -> Result<(), WatcherError> {
        if self.lines < self.lines_max {
            return Ok(());
        }
        let entries = self.journal.read()?;
        let compact = State::of(entries).entries();
        self.journal.rewrite(&compact)?;
        self.lines = compact.len();
        self.lines_max = LINES_MAX.max(2 * compact.len());
        Ok(())
    }
}

enum Advanced {
    Done,
    Waits,
    NoEngine,
}

fn delivery_of(decided: Decided, track: &Track) -> Delivery {
    let owes_held = track.watch(decided.key).is_some_and(|watch| watch.owes_held);
    Delivery::new(decided, owes_held)
}

fn tell(event: &Event) {
    match event {
        Event::Decided { key, verdict, paid } => tracing::info!(%key, ?verdict, paid, "decided"),
        Event::Stray { key, amount, block } => {
            tracing::warn!(%key, amount, block = block.number, "a payment that decides nothing: give it back");
        }
        Event::Undone { key, verdict } => {
            tracing::error!(%key, ?verdict, "the block that decided this is no longer in the chain");
        }
        Event::TookBack { block } => tracing::info!(block = block.number, "the chain took a block back"),
    }
}
