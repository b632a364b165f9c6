//! A settler's process: the real `settlement` between an engine's change stream and a chain, with a durable log of what it has promised
//! itself. It asks for everything that it wants; the world carries it, or does not.

mod carry;
mod disk;
mod facts;
mod restart;
mod telling;
mod turn;

use std::collections::{BTreeMap, BTreeSet};

use settlement::life::{DataPolicy, FeePolicy, FlushPolicy, Log, Policy};
use settlement::{CertifiedLock, Domain, Hash, LockId, NettingConfig, Sealer};
use surety_protocol::{Address, EngineId, Seq, ShardId, Time};

use crate::invariants::Violation;

use self::disk::Files;
pub(crate) use self::disk::Power;
use self::facts::{Facts, Waiting};
pub(crate) use self::telling::Purpose;
use self::telling::Telling;
pub(crate) use self::turn::{Did, Node, Surroundings};

/// What settling must not come to.
pub(crate) const SETTLES: &str = "settlement goes on from its log";

/// For whom signatures count.
pub(crate) const DOMAIN: Domain =
    Domain { chain_id: 31_337, contract: Address([0xc0; 20]), engine: EngineId(0x5eed) };

/// Wei per gas at which nothing is too dear; the world's fees stay far below.
const DEAR: u128 = 1 << 100;

/// A settler in a hurry: batches every few seconds, on a chain that makes a block in one.
const POLICY: Policy = Policy {
    fees: FeePolicy {
        tip: 2,
        tip_max: DEAR,
        cap_max: DEAR,
        gas: 66_000,
        replace_after: Time::from_secs(4),
        replace_after_blocks: 3,
        wei_per_whole: 1 << 60,
        target_age: Time::from_secs(2),
        deadline_age: Time::from_secs(30),
        daily_budget: u128::MAX,
    },
    flush: FlushPolicy {
        age_max: Time::from_secs(4),
        value_max: 3_000,
        records_max: 80,
        cheap_age: Time::from_secs(2),
        retry_after: Time::from_secs(1),
    },
    data: DataPolicy::ON_CHAIN,
};

/// Why a turn ended early.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    /// The process is dead: killed, or by a failing disk.
    Died,
    /// Something that must hold does not.
    Broken(Violation),
}

impl Stop {
    fn broken(what: impl std::fmt::Display) -> Self {
        Self::Broken(Violation::new(SETTLES, what.to_string()))
    }
}

/// The process, and the files that outlive it.
#[derive(Clone, Debug)]
pub(crate) struct Settler {
    shard: ShardId,
    netting: NettingConfig,
    files: Files,
    /// Durable points until it is killed.
    points_left: Option<u64>,
    log: Log,
    sealer: Sealer,
    facts: Facts,
    waiting: Waiting,
    telling: Telling,
    scan: Scan,
    /// The next snapshot: the sealer right after a batch that is not booked yet.
    unbooked: Option<(u64, Vec<u8>)>,
    /// Attempts that the node refused for what they pay, until the next look.
    underpriced: Vec<Hash>,
    /// Answers that were sent, and in view of which block.
    answers: BTreeMap<LockId, u64>,
    /// Certificates that the stream has told.
    statements: Vec<CertifiedLock>,
}

/// What was read of the chain's final events, and what of it the engine does not know yet.
#[derive(Clone, Debug, Default)]
struct Scan {
    events: usize,
    supplies: Vec<Supply>,
    /// Locks that were called, or whose call was answered.
    touched: BTreeSet<LockId>,
    paid: Vec<(LockId, u128)>,
}

/// A supply that is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Supply {
    partition: Hash,
    supplier: Address,
    amount: u128,
    nonce: u64,
}

impl Settler {
    /// A settler with an empty directory.
    pub(crate) fn new(shard: ShardId) -> Result<Self, Stop> {
        let netting = NettingConfig {
            shards: shard.0 + 1,
            salt_key: [3; 32],
            // Longer than any world: a certificate is known as long as somebody may call it.
            claim_span: Time::from_secs(365 * 24 * 3600),
        };
        Ok(Self {
            shard,
            netting,
            files: Files::create()?,
            points_left: None,
            log: Log::new(DOMAIN.separator()),
            sealer: Sealer::new(netting, &DOMAIN),
            facts: Facts::default(),
            waiting: Waiting::default(),
            telling: Telling::default(),
            scan: Scan::default(),
            unbooked: None,
            underpriced: Vec::new(),
            answers: BTreeMap::new(),
            statements: Vec::new(),
        })
    }

    /// How far it has read the stream.
    pub(crate) fn position(&self) -> Seq {
        let positions = self.sealer.netting().positions();
        positions.0.get(usize::from(self.shard.0)).copied().unwrap_or_default()
    }

    /// The life of its batches.
    pub(crate) const fn log(&self) -> &Log {
        &self.log
    }

    /// Certificates that the stream has told since the last call.
    pub(crate) fn take_statements(&mut self) -> Vec<CertifiedLock> {
        std::mem::take(&mut self.statements)
    }

    /// It is killed after so many durable points.
    pub(crate) const fn kill_in(&mut self, points: u64) {
        self.points_left = Some(points);
    }

    /// The `nth` call of its disk from now on fails.
    pub(crate) fn fail_disk(&mut self, nth: u64, fault: wal::memory::Fault) {
        self.files.fail_nth(nth, fault);
    }

    /// What is left to be done; empty if everything is settled and told.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut note = |is_left: bool, what: String| {
            if is_left {
                left.push(what);
            }
        };
        let (sealed, booked) = (self.log.sealed_head().0, self.log.booked_seq());
        note(sealed != booked, format!("batch {sealed} is sealed, {booked} booked"));
        note(self.log.halt().is_some(), format!("{:?}", self.log.halt()));
        let netting = self.sealer.netting();
        let owed = format!("{} of {} could be published", netting.publishable(), netting.unpublished());
        note(netting.unpublished() > 0, owed);
        note(self.waiting.records > 0, format!("{:?}", self.waiting));
        note(!self.scan.supplies.is_empty(), format!("not credited: {:?}", self.scan.supplies));
        note(!self.scan.touched.is_empty(), format!("not told of calls: {:?}", self.scan.touched));
        note(!self.scan.paid.is_empty(), format!("not booked: {:?}", self.scan.paid));
        left
    }

    /// Passes a durable point, unless it is killed here.
    fn pass(&mut self) -> Result<(), Stop> {
        match &mut self.points_left {
            Some(0) => Err(Stop::Died),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
