//! One life of a shard on a [`Disk`]: serving, rolling, snapshots, retention, stopping and starting again, as the server
//! does it, and what was promised to whom at every moment.

use std::collections::BTreeMap;

use engine::{Begin, Config, Durability, Engine};
use surety_protocol::{Caller, EngineId, Record, Reply, Seq, ShardId, Time};
use wal::{Storage, Write};

use super::disk::{Disk, DiskError};
use super::workload::{Asked, Workload};
use crate::random::Random;

/// The smallest segment that there can be.
const SEGMENT_BYTES: u64 = 256 * 1024;
const START: Time = Time::from_secs(1_700_000_000);

/// How a life is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// What stands behind an ack.
    pub(super) durability: Durability,
    /// With the guard ring.
    pub(super) guard: bool,
    /// Blocks from first to last.
    pub(super) blocks: u64,
    /// The most requests in a block.
    pub(super) requests_max: u64,
    /// Every how many blocks a snapshot is made and what is old goes; 0 is never.
    pub(super) snapshot_every: u64,
    /// Every how many blocks the shard is stopped, sealed and started again; 0 is never.
    pub(super) restart_every: u64,
    /// The power goes from this block on; those before are only there to be long.
    pub(super) cut_from: u64,
}

/// What may be found after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Promise {
    /// Everything up to here must survive a power cut.
    pub(super) least: Seq,
    /// Everything up to here must survive the death of the process.
    pub(super) acked: Seq,
    /// Nothing beyond it can be there.
    pub(super) most: Seq,
}

/// A reply that left, and what it answered.
#[derive(Clone, Debug)]
pub(super) struct Acked {
    pub(super) caller: Caller,
    pub(super) operation: Vec<Record>,
    pub(super) reply: Reply,
}

/// What is true of a life, whatever the disk says.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    /// The state hash after each seq at which an operation ended.
    pub(super) states: BTreeMap<Seq, u128>,
    /// Every reply that left, in order.
    pub(super) acked: Vec<Acked>,
    /// The last seqs of blocks.
    pub(super) block_ends: Vec<Seq>,
}

/// A moment at which the power may go.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) disk: Disk,
    pub(super) promise: Promise,
    /// Replies that had left.
    pub(super) replies: usize,
}

/// What happened in a life.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// Housekeeping that was given up for want of space or a failed look.
    pub(super) survived: u64,
    pub(super) rolls: u64,
    pub(super) snapshots: u64,
    pub(super) segments_removed: u64,
}

/// Why a life ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Halt {
    /// A write or sync failed: the process aborts.
    #[error("halted: {0}")]
    Disk(#[from] DiskError),
    /// The shard did not start, and said so.
    #[error("did not start: {0}")]
    Start(String),
    /// Something that must not happen.
    #[error("{0}")]
    Wrong(String),
}

/// A running shard.
pub(super) struct Life {
    pub(super) config: Config,
    pub(super) disk: Disk,
    pub(super) truth: Truth,
    pub(super) moments: Vec<Moment>,
    pub(super) figures: Figures,
    engine: Option<Engine>,
    workload: Workload,
    random: Random,
    asked: Vec<Asked>,
    now: Time,
    in_flight: Option<Seq>,
}

/// The configuration of a life, which recovery needs too.
pub(super) fn config(shape: &Shape, seed: u64) -> Config {
    Config {
        durability: shape.durability,
        guard: shape.guard,
        segment_bytes: SEGMENT_BYTES,
        checkpoint_records: 12,
        id_window: Time::from_secs(8),
        ..Config::new(EngineId(u128::from(seed) << 64 | 0xabc), ShardId(0))
    }
}

impl Life {
    /// A shard that was created, and not started yet.
    pub(super) fn new(shape: &Shape, seed: u64, disk: Disk) -> Self {
        let mut random = Random::new(seed);
        Self {
            config: config(shape, seed),
            disk,
            truth: Truth::default(),
            moments: Vec::new(),
            figures: Figures::default(),
            engine: None,
            workload: Workload::new(random.next_u64()),
            random,
            asked: Vec::new(),
            now: START,
            in_flight: None,
        }
    }

    /// The whole life.
    pub(super) fn run(&mut self, shape: &Shape) -> Result<(), Halt> {
        self.truth.states.insert(Seq(0), ledger::Ledger::new(self.config.ledger()).state_hash());
        self.create()?;
        self.start()?;
        for asked in self.workload.furnish(self.now) {
            self.ask(asked);
        }
        self.settle()?;
        for block in 1..=shape.blocks {
            if block == shape.cut_from {
                self.disk.watch();
            }
            self.turn(shape, block)?;
        }
        self.stop()
    }

    fn turn(&mut self, shape: &Shape, block: u64) -> Result<(), Halt> {
        for _ in 0..=self.random.below(shape.requests_max) {
            let asked = self.workload.next(self.now);
            self.ask(asked);
        }
        let span = if self.random.chance(1, 6) { 6000 } else { self.random.below(300) };
        self.now = self.now.plus(Time::from_millis(span));
        self.settle()?;
        let is_due = |every: u64| every > 0 && block.is_multiple_of(every);
        if self.config.durability == Durability::Os && self.random.chance(1, 3) {
            self.sync()?;
        }
        if is_due(shape.snapshot_every) {
            self.keep_house()?;
        }
        if is_due(shape.restart_every) {
            self.stop()?;
            self.start()?;
        }
        Ok(())
    }

    fn create(&mut self) -> Result<(), Halt> {
        match engine::create(self.config, &mut self.disk, self.now) {
            Ok(()) => Ok(()),
            Err(wal::CreateError::Io(error)) => Err(error.into()),
            Err(error @ wal::CreateError::Exists(_)) => Err(Halt::Wrong(error.to_string())),
        }
    }

    /// Recovers and opens, as a new process does.
    pub(super) fn start(&mut self) -> Result<(), Halt> {
        let recovered = engine::recover(self.config, &mut self.disk, Begin::Snapshot, |_| {})
            .map_err(|error| Halt::Start(format!("{error}: {error:?}")))?;
        let found = recovered.report().last_seq;
        let expected = self.truth.states.get(&found);
        if expected != Some(&recovered.ledger().state_hash()) {
            return Err(Halt::Wrong(format!("started with another state at seq {}", found.0)));
        }
        let engine = match recovered.open(&mut self.disk, self.now) {
            Ok(engine) => engine,
            Err(wal::OpenError::Io(error)) => return Err(error.into()),
            Err(error @ wal::OpenError::Epoch { .. }) => return Err(Halt::Wrong(error.to_string())),
        };
        self.engine = Some(engine);
        self.note_state();
        self.watch_moments();
        Ok(())
    }

    pub(super) fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("the shard was started")
    }

    fn ask(&mut self, asked: Asked) {
        let bytes: Vec<_> = asked.1.iter().map(Record::to_bytes).collect();
        let (now, route) = (self.now, self.asked.len() as u64);
        self.engine().handle(now, &asked.0, route, &bytes);
        self.asked.push(asked);
        self.note_state();
    }

    /// Remembers what the state is now.
    fn note_state(&mut self) {
        let Some(engine) = &self.engine else { return };
        // Time that passes forgets what is old, and replay lets it pass at the next record only: the first look counts.
        self.truth.states.entry(engine.marks().appended).or_insert_with(|| engine.ledger().state_hash());
    }

    /// Writes all that waits.
    fn settle(&mut self) -> Result<(), Halt> {
        let now = self.now;
        self.engine().handle_timeout(now);
        self.note_state();
        loop {
            self.make_reserves()?;
            let Some(write) = self.engine().poll_write(now) else { return Ok(()) };
            self.note_state();
            self.write(write)?;
        }
    }

    fn write(&mut self, write: Write) -> Result<(), Halt> {
        self.in_flight = Some(write.last_seq());
        self.figures.rolls += u64::from(write.roll().is_some());
        let performed = write.perform(&mut self.disk);
        self.watch_moments();
        if let Err(error) = performed {
            // Nothing may leave any more that was not free to go before.
            return match self.engine().poll_reply() {
                Some((_, reply)) => Err(Halt::Wrong(format!("replied after a failed write: {reply:?}"))),
                None => Err(error.into()),
            };
        }
        self.truth.block_ends.push(write.last_seq());
        self.engine().on_written(write);
        self.in_flight = None;
        self.take_replies();
        self.add_moment(self.disk.clone());
        Ok(())
    }

    fn take_replies(&mut self) {
        while let Some((route, reply)) = self.engine.as_mut().and_then(Engine::poll_reply) {
            let at = usize::try_from(route).expect("routes are indices");
            let (caller, operation) = self.asked[at].clone();
            if reply.code().is_recorded() {
                self.truth.acked.push(Acked { caller, operation, reply });
            }
        }
    }

    /// As the server's thread for it: a want of space declines new locks and is tried again later.
    fn make_reserves(&mut self) -> Result<(), Halt> {
        while let Some((name, bytes)) = self.engine().wants_reserve() {
            let made = wal::create_reserve(&mut self.disk, name, bytes);
            self.watch_moments();
            match made {
                Ok(()) => {
                    self.engine().reserve_created(name);
                    self.engine().set_storage_low(false);
                }
                Err(DiskError::NoSpace(_)) => {
                    self.figures.survived += 1;
                    self.engine().set_storage_low(true);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The sync of `os` mode, which runs beside the writes.
    fn sync(&mut self) -> Result<(), Halt> {
        let mark = self.engine().acked();
        for span in self.engine().segments() {
            let synced = self.disk.sync(span.file());
            self.watch_moments();
            synced?;
        }
        self.engine().on_synced(mark);
        self.add_moment(self.disk.clone());
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Halt> {
        let now = self.now;
        self.engine().stop(now);
        self.note_state();
        self.settle()?;
        if self.config.durability == Durability::Os {
            // The seal waits for what it seals.
            self.sync()?;
            self.settle()?;
            self.sync()?;
        }
        if !self.engine().is_stopped() {
            return Err(Halt::Wrong("the shard did not come to its end".into()));
        }
        self.now = self.now.plus(Time::from_millis(10));
        Ok(())
    }

    /// True once it was open for requests.
    pub(super) const fn was_started(&self) -> bool {
        self.engine.is_some()
    }

    /// What is promised now.
    pub(super) fn promise(&self) -> Promise {
        let Some(engine) = &self.engine else {
            return Promise { least: Seq(0), acked: Seq(0), most: Seq(0) };
        };
        let marks = engine.marks();
        let most = self.in_flight.unwrap_or(marks.acked).max(marks.acked);
        Promise { least: marks.synced, acked: marks.acked, most }
    }

    pub(super) fn watch_moments(&mut self) {
        for disk in self.disk.take_watched() {
            self.add_moment(disk);
        }
    }

    fn add_moment(&mut self, disk: Disk) {
        if self.disk.is_watched() {
            let promise = self.promise();
            self.moments.push(Moment { disk, promise, replies: self.truth.acked.len() });
        }
    }
}
