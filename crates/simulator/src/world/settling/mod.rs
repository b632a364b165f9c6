//! Every third world has a chain and a settler beside its engine: collateral comes in by supplies, and what is owed goes out by batches.

mod faults;
mod quiet;

use std::collections::BTreeMap;

use settlement::{CertifiedLock, Hash, LockId};
use surety_protocol::{Address, Code, Kind, PartitionHandle, Record, Seq, Time};

use super::coverage::{Branch, Fault};
use super::traffic::{self, SHARD};
use super::{START, World};
use crate::chain::{Chain, Request, State};
use crate::invariants::{Settlement, Violation};
use crate::random::Random;
use crate::settler::{DOMAIN, Did, Node, SETTLES, Settler, Stop, Surroundings};

/// One of so many worlds settles.
const EVERY: u64 = 3;
/// The client whose name the settler bears.
const SETTLER: usize = 6;
/// A block is made in one of so many steps, a second or so.
const BLOCK_STEPS: u64 = 14;
/// The settler takes a turn in one of so many steps.
const TURN_STEPS: u64 = 3;

/// Chain and settler, and what they are held against.
pub(super) struct Settling {
    chain: Chain,
    settler: Settler,
    invariants: Settlement,
    /// The newest certificate of each lock: what merchants hold.
    certificates: BTreeMap<LockId, CertifiedLock>,
    /// Records of the synced log that were looked at.
    seen: Seq,
    /// Chain and ledger are to be compared as soon as everything is synced.
    is_check_due: bool,
    /// What will have killed the settler when it dies.
    dying_of: Fault,
    /// Until then the settler is down, and its node does not answer.
    away_until: u64,
    silent_until: u64,
}

/// True for the worlds that settle.
pub(super) const fn settles(seed: u64) -> bool {
    seed.is_multiple_of(EVERY)
}

impl Settling {
    /// A chain that has the supplies with which the world begins, and a settler that has done nothing.
    pub(super) fn new(random: &mut Random) -> Result<Self, Violation> {
        let credit_max = if random.chance(1, 2) { 1 << 100 } else { 500 + u128::from(random.below(8_000)) };
        let supplies: Vec<Request> = traffic::first_supplies()
            .map(|(partition, supplier, amount)| Request::Supply {
                partition: traffic::onchain(partition.number()),
                supplier,
                amount,
            })
            .collect();
        let chain = Chain::new(DOMAIN.separator(), credit_max, START, &supplies);
        let settler = Settler::new(SHARD).map_err(|stop| violation(&stop))?;
        let mut invariants = Settlement::default();
        invariants.on_block(&chain)?;
        Ok(Self {
            chain,
            settler,
            invariants,
            certificates: BTreeMap::new(),
            seen: Seq(0),
            is_check_due: false,
            dying_of: Fault::SettlerKilled,
            away_until: 0,
            silent_until: 0,
        })
    }
}

fn violation(stop: &Stop) -> Violation {
    match stop {
        Stop::Broken(violation) => violation.clone(),
        Stop::Died => Violation::new(SETTLES, "it died of nothing".to_owned()),
    }
}

impl World {
    /// Runs a part of the world that chain and settler belong to; nothing in worlds that have none.
    fn with_settling(
        &mut self,
        part: impl FnOnce(&mut Self, &mut Settling) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let Some(mut settling) = self.settling.take() else { return Ok(()) };
        let result = part(self, &mut settling);
        self.settling = Some(settling);
        result
    }

    /// Merchants and suppliers turn to the chain.
    pub(super) fn ask_chain(&mut self) -> Result<(), Violation> {
        self.with_settling(|world, it| {
            let mut random = world.random.fork();
            match random.below(300) {
                0..6 => it.chain.ask(supply(&mut random)),
                6..10 => it.call(&mut random),
                10..16 => it.claim(&mut random),
                _ => {}
            }
            Ok(())
        })
    }

    /// Chain and settler go on for a step.
    pub(super) fn settle(&mut self, seed: u64) -> Result<(), Violation> {
        self.with_settling(|world, it| {
            let mut random = Random::new(seed ^ 2);
            if random.chance(1, BLOCK_STEPS) {
                let mut passes_over = random.fork();
                it.chain.mine(world.chain_time(), &mut || !passes_over.chance(1, 5));
                it.collect(&mut random);
                world.note_block(it)?;
            }
            world.look_at_synced(it)?;
            let is_up = world.step >= it.away_until && world.step >= it.silent_until;
            if is_up && random.chance(1, TURN_STEPS) {
                let node = world.draw_node(&mut random);
                world.take_turn(it, node, &mut random)?;
            }
            Ok(())
        })
    }

    /// Blocks bear the true time.
    fn chain_time(&self) -> Time {
        START.plus(self.boot)
    }

    fn note_block(&mut self, it: &mut Settling) -> Result<(), Violation> {
        it.is_check_due = true;
        it.invariants.on_block(&it.chain)?;
        let newest = it.chain.newest();
        let word = newest.state.head.seq << 32 | newest.state.nonce;
        self.trace(newest.number.rotate_left(17) ^ word);
        Ok(())
    }

    /// What has been synced since the last look is told to the invariants; when nothing else is under way, chain and ledger agree.
    fn look_at_synced(&mut self, it: &mut Settling) -> Result<(), Violation> {
        let marks = self.engine.marks();
        let from = usize::try_from(it.seen.0).unwrap_or(usize::MAX);
        let mut told = Vec::new();
        for record in self.synced().get(from..).unwrap_or_default() {
            it.invariants.on_synced(record)?;
            it.seen = it.seen.next();
            told.extend(branch_of(record));
        }
        told.into_iter().for_each(|branch| self.outcome.coverage.branch(branch));
        if it.seen == marks.appended && it.is_check_due {
            it.is_check_due = false;
            it.invariants.check(&it.chain, self.engine.ledger())?;
        }
        Ok(())
    }

    /// The engine's change stream: what no crash takes back.
    fn synced(&self) -> &[Record] {
        let end = usize::try_from(self.engine.marks().synced.0).unwrap_or(usize::MAX);
        &self.log[..end.min(self.log.len())]
    }

    /// One turn of the settler, which may die in it; what it asks for goes the way of all requests.
    fn take_turn(&mut self, it: &mut Settling, node: Node, random: &mut Random) -> Result<(), Violation> {
        let requests = self.turn_settler(it, node, random)?;
        for request in requests {
            let operation = vec![request];
            self.clients[SETTLER].note_sent(&operation);
            self.send(SETTLER, operation, random);
        }
        Ok(())
    }

    fn turn_settler(
        &mut self,
        it: &mut Settling,
        node: Node,
        random: &mut Random,
    ) -> Result<Vec<Record>, Violation> {
        let (mut did, mut requests) = (Vec::new(), Vec::new());
        let mut around = Surroundings {
            stream: self.synced(),
            chain: &mut it.chain,
            node,
            step: self.step,
            now: self.now,
            random,
        };
        let result = it.settler.turn(&mut around, &mut did, &mut requests);
        for did in did {
            self.note_done(did);
        }
        for certificate in it.settler.take_statements() {
            it.certificates.insert(certificate.lock, certificate);
        }
        match result {
            Ok(()) => {}
            Err(Stop::Died) => self.settler_dies(it, random)?,
            Err(stop) => return Err(violation(&stop)),
        }
        let progress = it.settler.log();
        self.trace(progress.sealed_head().0 << 40 ^ progress.booked_seq() << 20 ^ requests.len() as u64);
        Ok(requests)
    }

    fn note_done(&mut self, did: Did) {
        let coverage = &mut self.outcome.coverage;
        match did {
            Did::Replaced => coverage.branch(Branch::AttemptReplaced),
            Did::Cancelled => coverage.branch(Branch::NonceCancelled),
            Did::Resealed => coverage.branch(Branch::BatchResealed),
            Did::Held => coverage.branch(Branch::BatchHeld),
            Did::Carried => coverage.branch(Branch::CreditCarried),
            Did::Booked => coverage.branch(Branch::BatchBooked),
            Did::Snapshot => coverage.branch(Branch::SettlerSnapshot),
            Did::Answered => coverage.branch(Branch::CallAnswered),
            Did::SendLost => coverage.fault(Fault::SendLost),
        }
        self.tell(|| format!("settler: {did:?}"));
    }
}

impl Settling {
    /// A merchant enforces one of the certificates, whatever has become of its lock.
    fn call(&mut self, random: &mut Random) {
        let nth = random.index(self.certificates.len());
        if let Some(certificate) = self.certificates.values().nth(nth) {
            self.chain.ask(Request::Call(*certificate));
        }
    }

    /// A payee takes what it has.
    fn claim(&mut self, random: &mut Random) {
        let credits = &self.chain.newest().state.credits;
        let nth = random.index(credits.len());
        if let Some((partition, payee)) = credits.keys().nth(nth).copied() {
            self.chain.ask(Request::Claim { partition, payee });
        }
    }

    /// Merchants see to it that calls which nobody has answered in time are paid, sooner or later.
    fn collect(&mut self, random: &mut Random) {
        let newest = self.chain.newest();
        let due = newest.state.calls.iter().filter(|(_, call)| State::is_collectable(call, newest.time));
        let due: Vec<LockId> = due.map(|(lock, _)| *lock).filter(|_| random.chance(1, 2)).collect();
        due.into_iter().for_each(|lock| self.chain.ask(Request::Collect(lock)));
    }
}

/// What the chain has said, and the engine has booked.
fn branch_of(record: &Record) -> Option<Branch> {
    match record.kind().filter(|_| record.code().is_some_and(Code::is_success))? {
        Kind::Deposit => Some(Branch::SupplyCredited),
        Kind::GuaranteeCalled => Some(Branch::CallTold),
        Kind::GuaranteeDismissed => Some(Branch::DismissalTold),
        Kind::GuaranteePaid => Some(Branch::GuaranteeBooked),
        Kind::Deficit => Some(Branch::LossBooked),
        _ => None,
    }
}

/// Somebody supplies collateral. A partition that is staked in place has one supplier.
fn supply(random: &mut Random) -> Request {
    let number = 1 + random.below(traffic::PARTITIONS);
    let supplier = if number == traffic::PARTITIONS { 1 } else { 1 + random.below(3) };
    Request::Supply {
        partition: onchain_of(PartitionHandle::new(SHARD, number)),
        supplier: Address([u8::try_from(supplier).unwrap_or(1); 20]),
        amount: u128::from(random.below(8_000)),
    }
}

fn onchain_of(partition: PartitionHandle) -> Hash {
    traffic::onchain(partition.number())
}
