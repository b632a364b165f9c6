//! One world: a seed, the real engine on a disk in memory, clients, a network, clocks, and what goes wrong.
//!
//! Every step draws from a generator of its own, seeded by the world's seed and the step's number: a step that is left out
//! does not change what the others draw, so a failing history can be made shorter.

pub mod coverage;
mod damage;
mod faults;
mod house;
mod loss;
mod pump;
mod recover;
mod serve;
mod settling;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::clock::{Clock, Readings};
use engine::{Config, Durability, Engine, Epochs};
use surety_protocol::{EngineId, Epoch, Id, PartitionHandle, Record, Reply, Seq, Time};
use wal::Write;
use wal::memory::MemoryStorage;

use crate::invariants::{Invariants, Violation};
use crate::oracle::{Oracle, Rules};
use crate::random::Random;
use coverage::Coverage;
use loss::Backup;
use settling::Settling;
use traffic::{Client, SHARD};

/// When worlds begin.
const START: Time = Time::from_secs(1_700_000_000);
/// When those begin that lose engines: epochs leap by time from 2026 on.
const LOSING_START: Time = Time::from_secs(1_790_000_000);
const ENGINE: EngineId = EngineId(0x5eed);
/// What must hold whatever goes wrong.
const RECOVERS: &str = "a crash is survived";
/// A call of the disk that never comes.
const NEVER: u64 = 1 << 40;

/// Which world, and how much of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its seed.
    pub seed: u64,
    /// How many steps.
    pub ops: u64,
    /// Parts of steps that are left out: 2n is the request of step n, 2n + 1 what goes wrong in it.
    pub skip: BTreeSet<u64>,
    /// Only these parts of steps happen; all if none are named.
    pub only: Option<BTreeSet<u64>>,
    /// Write down what happens.
    pub tells: bool,
    /// A deliberate error of the oracle, to see that it is noticed.
    pub sabotage: Option<Sabotage>,
}

/// Deliberate errors of the world, each of which must be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The oracle forgets the headroom of locks.
    OracleForgetsHeadroom,
    /// The disk says that a block is synced when it is not.
    DiskLies,
    /// The engine is told that a block is written before it is.
    EarlyAck,
    /// The clock jumps with the wall.
    ClockJumps,
}

impl Plan {
    /// A whole world.
    #[must_use]
    pub const fn new(seed: u64, ops: u64) -> Self {
        Self { seed, ops, skip: BTreeSet::new(), only: None, tells: false, sabotage: None }
    }

    fn happens(&self, part: u64) -> bool {
        !self.skip.contains(&part) && self.only.as_ref().is_none_or(|only| only.contains(&part))
    }
}

/// What a world came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Operations that the engine handled.
    pub operations: u64,
    /// Hash of all that happened.
    pub trace: u64,
    /// What was met.
    pub coverage: Coverage,
    /// What happened, if it was to be told.
    pub story: Vec<String>,
    /// What does not hold, and at which step.
    pub failure: Option<(u64, Violation)>,
}

/// Something logged since the last recovery, to do again where a crash takes the end of it back.
#[derive(Clone, Debug)]
struct Event {
    /// The last record of it.
    last: Seq,
    what: Happening,
}

#[derive(Clone, Debug)]
enum Happening {
    Turn { now: Time, first: Seq },
    Operation { now: Time, caller: surety_protocol::Caller, first: Seq, operation: Vec<Record> },
}

/// A request on its way.
#[derive(Clone, Debug)]
struct Packet {
    client: usize,
    operation: Vec<Record>,
}

/// What must be answered.
#[derive(Clone, Debug)]
struct Awaited {
    client: usize,
    replies: VecDeque<Reply>,
    is_loose: bool,
    appended: Seq,
}

/// An old copy of the directory.
#[derive(Clone, Debug)]
struct OldCopy {
    disk: MemoryStorage,
    epochs: Epochs,
}

/// The world.
pub(crate) struct World {
    plan: Plan,
    random: Random,
    step: u64,
    config: Config,
    disk: MemoryStorage,
    engine: Engine,
    oracle: Oracle,
    /// The oracle at the last recovery, and what happened since.
    base: Oracle,
    journal: Vec<Event>,
    /// Records of the log since the beginning.
    log: Vec<Record>,
    /// Records up to here were seen in blocks.
    seen: Seq,
    in_flight: Option<(Write, u64)>,
    written: Seq,
    awaited: BTreeMap<u64, Awaited>,
    route: u64,
    clock: Clock,
    /// When the world began, on the wall clock.
    start: Time,
    boot: Time,
    wall_ahead: i64,
    /// Parts in a million that the wall clock is too fast.
    drift_ppm: i64,
    now: Time,
    advanced: Time,
    clients: Vec<Client>,
    /// By the step at which they arrive.
    network: BTreeMap<(u64, u64), Packet>,
    packets: u64,
    epochs: Epochs,
    /// The newest token that clients have.
    token: Option<(Epoch, Seq)>,
    copy: Option<OldCopy>,
    /// In the worlds that lose an engine.
    backup: Option<Backup>,
    /// Locks under ids that are older than any request's may be; and those of them that a lost life has made.
    old_locks: Vec<(PartitionHandle, Id)>,
    lost_old_locks: BTreeSet<(PartitionHandle, Id)>,
    is_storage_low: bool,
    /// Chain and settler, in the worlds that have them.
    settling: Option<Settling>,
    invariants: Invariants,
    outcome: Outcome,
}

/// Runs a world.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let mut world = match World::new(plan.clone()) {
        Ok(world) => world,
        Err(violation) => return Outcome { failure: Some((0, violation)), ..Outcome::default() },
    };
    let result = world.live();
    let step = world.step;
    let mut outcome = world.outcome;
    outcome.failure = result.err().map(|violation| (step, violation));
    outcome
}

impl World {
    fn new(plan: Plan) -> Result<Self, Violation> {
        let mut random = Random::new(plan.seed);
        let config = config(&mut random);
        let start = if loss::loses(plan.seed) { LOSING_START } else { START };
        let mut disk = MemoryStorage::new();
        let broken = |error: &dyn std::fmt::Display| Violation::new("an engine begins", error.to_string());
        engine::create(config, &mut disk, start).map_err(|error| broken(&error))?;
        let recovered = engine::recover(config, &mut disk, engine::Begin::Snapshot, |_| {})
            .map_err(|error| broken(&error))?;
        let readings = Readings { wall: start, boot: Time::ZERO };
        let mut clock = Clock::start(recovered.report().last_time, readings, std::time::Duration::MAX)
            .map_err(|error| broken(&error))?;
        let (now, _) = clock.now(Time::ZERO);
        let engine = recovered.open(&mut disk, now).map_err(|error| broken(&error))?;
        let mut oracle = Oracle::new(Rules {
            shard: config.shard,
            id_window: config.id_window,
            ids_max: config.ids_max,
            locks_max: config.locks_max,
        });
        if plan.sabotage == Some(Sabotage::OracleForgetsHeadroom) {
            oracle.forget_headroom();
        }
        let clients = traffic::clients(&mut random);
        let settling = if settling::settles(plan.seed) { Some(Settling::new(&mut random)?) } else { None };
        let mut world = Self {
            random,
            step: 0,
            config,
            disk,
            base: oracle.clone(),
            oracle,
            journal: Vec::new(),
            log: Vec::new(),
            seen: Seq(0),
            in_flight: None,
            written: Seq(0),
            awaited: BTreeMap::new(),
            route: 0,
            clock,
            start,
            boot: Time::ZERO,
            wall_ahead: 0,
            drift_ppm: 0,
            now,
            advanced: Time::ZERO,
            clients,
            network: BTreeMap::new(),
            packets: 0,
            epochs: Epochs::default(),
            token: None,
            copy: None,
            backup: None,
            old_locks: Vec::new(),
            lost_old_locks: BTreeSet::new(),
            is_storage_low: false,
            settling,
            invariants: Invariants::default(),
            outcome: Outcome::default(),
            engine,
            plan,
        };
        world.note_start()?;
        world.furnish()?;
        Ok(world)
    }

    /// Everything that happens.
    fn live(&mut self) -> Result<(), Violation> {
        for step in 0..self.plan.ops {
            self.step = step;
            let seed = self.plan.seed.rotate_left(32) ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.random = Random::new(seed);
            let environment = self.random.fork();
            let asking = self.random.fork();
            self.pass_time()?;
            if self.plan.happens(2 * step + 1) {
                self.random = environment;
                self.go_wrong()?;
                self.lose_now_and_then(seed)?;
                self.chain_goes_wrong()?;
            }
            if self.plan.happens(2 * step) {
                self.random = asking;
                self.ask()?;
                self.ask_chain()?;
            }
            self.deliver()?;
            self.random = Random::new(seed ^ 1);
            self.pump()?;
            self.settle(seed)?;
        }
        self.end()
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.plan.tells {
            let step = self.step;
            self.outcome.story.push(format!("{step:>6}  {}", what()));
        }
    }

    /// Mixes something that happened into the trace.
    fn trace(&mut self, word: u64) {
        let mixed = (self.outcome.trace ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.outcome.trace = mixed ^ mixed >> 29;
    }

    fn trace_bytes(&mut self, bytes: &[u8]) {
        for word in bytes.as_chunks().0 {
            self.trace(u64::from_le_bytes(*word));
        }
    }

    /// True time passes, and the engine's clock makes of it what it may.
    fn pass_time(&mut self) -> Result<(), Violation> {
        let passed = match self.random.below(40) {
            0 => 1_000,
            1..6 => self.random.below(400),
            6..16 => 0,
            _ => self.random.below(60),
        };
        let passed = Time(passed * 1_000_000 + self.random.below(1_000_000));
        self.boot = self.boot.plus(passed);
        self.wall_ahead += i64::try_from(passed.0).unwrap_or(0) / 1_000_000 * self.drift_ppm;
        self.read_clock()
    }

    fn readings(&self) -> Readings {
        Readings {
            wall: Time(self.start.plus(self.boot).0.saturating_add_signed(self.wall_ahead)),
            boot: self.boot,
        }
    }

    pub(super) fn read_clock(&mut self) -> Result<(), Violation> {
        let readings = self.readings();
        let (now, is_due) = self.clock.now(self.boot);
        if is_due {
            self.clock.correct(readings);
        }
        let now = if self.plan.sabotage == Some(Sabotage::ClockJumps) { readings.wall.max(now) } else { now };
        self.now = now;
        self.invariants.on_clock(now, self.boot, false)
    }
}

/// A small engine: short segments, frequent state hashes, few ids.
fn config(random: &mut Random) -> Config {
    let durability = if random.chance(1, 4) { Durability::Os } else { Durability::Fsync };
    Config {
        durability,
        guard: durability == Durability::Fsync && random.chance(1, 3),
        segment_bytes: 256 * 1024,
        id_window: Time::from_secs(20),
        ids_max: if random.chance(1, 6) { 400 } else { 4_000 },
        locks_max: if random.chance(1, 6) { 300 } else { 4_000 },
        checkpoint_records: 60 + random.below(400),
        seal_idle: Time::from_millis(150),
        index_secret: 7,
        ..Config::new(ENGINE, SHARD)
    }
}
