//! The end of a world that settles: nothing goes wrong any more, and everything has to be settled, booked and paid.

use surety_protocol::{Address, Amount, ControlBody, Id, Kind, PartitionHandle, Record, Time};

use super::{SETTLER, Settling, onchain_of, violation};
use crate::chain::{CallState, Request};
use crate::invariants::Violation;
use crate::random::Random;
use crate::settler::{Node, Power};
use crate::world::World;
use crate::world::traffic::{self, OPERATOR, SHARD};

/// Blocks that everything may take.
const BLOCKS_MAX: u64 = 400;
/// Steps that a block counts for.
const STEPS: u64 = 50;
const NAME: &str = "in the end everything is settled";

impl World {
    /// Lets everything come to its end.
    pub(in crate::world) fn settle_all(&mut self) -> Result<(), Violation> {
        self.with_settling(|world, it| {
            world.network.clear();
            world.calm(it)?;
            for _ in 0..BLOCKS_MAX {
                world.quiet_block(it)?;
                if world.unsettled(it).is_empty() {
                    break;
                }
            }
            let left = world.unsettled(it);
            if !left.is_empty() {
                return Err(Violation::new(NAME, left.join("; ")));
            }
            let payees: Vec<_> = it.chain.newest().state.credits.keys().copied().collect();
            for (partition, payee) in payees {
                it.chain.ask(Request::Claim { partition, payee });
            }
            it.chain.mine(world.chain_time(), &mut || true);
            world.note_block(it)?;
            world.look_at_synced(it)?;
            it.invariants.check_end(&it.chain, world.engine.ledger())
        })
    }

    /// Faults end, everybody has a payee, suppliers make good what is missing, and all that waits for time has had it.
    fn calm(&mut self, it: &mut Settling) -> Result<(), Violation> {
        let mut random = Random::new(self.plan.seed ^ 0xca11);
        it.chain.set_base_fee(20);
        it.chain.pause(self.chain_time(), false);
        it.chain.limit_credit(self.chain_time(), 1 << 100);
        it.settler
            .restart(Power::Stays, None, self.synced(), &mut random)
            .map_err(|stop| violation(&stop))?;
        self.pass_quietly(Time::from_secs(400))?;
        for operation in traffic::payees_of_all(&mut random, self.now) {
            self.handle(OPERATOR, &operation)?;
        }
        for number in 1..=traffic::PARTITIONS {
            let (partition, supplier) = (onchain_of(PartitionHandle::new(SHARD, number)), Address([1; 20]));
            it.chain.ask(Request::Supply { partition, supplier, amount: 10_000_000 });
        }
        self.note_block(it)
    }

    /// One block, and a few turns of the settler.
    fn quiet_block(&mut self, it: &mut Settling) -> Result<(), Violation> {
        self.step += STEPS;
        let mut random = Random::new(self.plan.seed ^ self.step);
        self.pass_quietly(Time::from_secs(1))?;
        it.collect(&mut random);
        it.chain.mine(self.chain_time(), &mut || true);
        self.note_block(it)?;
        it.settler.retry_now();
        for _ in 0..4 {
            for request in self.turn_settler(it, Node::default(), &mut random)? {
                self.handle(SETTLER, &[request])?;
            }
            self.flush_synced()?;
            self.look_at_synced(it)?;
        }
        self.unfreeze(&mut random)
    }

    /// A withdrawal that waits is paid by nobody while its partition is frozen.
    fn unfreeze(&mut self, random: &mut Random) -> Result<(), Violation> {
        for number in 1..=traffic::PARTITIONS {
            let partition = PartitionHandle::new(SHARD, number);
            let is_frozen = self.oracle.partitions().get(&partition).is_some_and(|it| it.is_frozen);
            if is_frozen {
                let id = Id::from_parts(self.now, random.next_u64().into());
                let record = Record::new(Kind::Unfreeze, id, partition, Amount(0), &ControlBody::default());
                self.handle(OPERATOR, &[record])?;
            }
        }
        Ok(())
    }

    fn pass_quietly(&mut self, span: Time) -> Result<(), Violation> {
        self.boot = self.boot.plus(span);
        self.read_clock()?;
        self.turn()?;
        while self.oracle.is_behind() {
            self.flush_synced()?;
            self.turn()?;
        }
        self.flush_synced()
    }

    /// Everything is written, answered and synced.
    fn flush_synced(&mut self) -> Result<(), Violation> {
        self.flush()?;
        self.sync()
    }

    /// What is left to be done.
    fn unsettled(&self, it: &Settling) -> Vec<String> {
        let mut left = it.settler.unfinished();
        for totals in self.engine.ledger().partitions() {
            if totals.owed > 0 {
                left.push(format!("{} owes {}", totals.handle, totals.owed));
            }
        }
        let waits = it.chain.newest().state.calls.values().filter(|call| call.state == CallState::Waits);
        left.extend(waits.map(|call| format!("{call:?}")));
        if it.chain.events(it.chain.newest()).len() > it.chain.events(it.chain.finalized(0)).len() {
            left.push("events that are not final".to_owned());
        }
        left
    }
}
