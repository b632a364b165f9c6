//! What goes wrong with the chain, with the node that shows it, and with the settler's process.

use wal::memory::Fault as DiskFault;

use super::{Settling, violation};
use crate::invariants::{Violation, check_sent};
use crate::random::Random;
use crate::settler::{Node, Power, Stop};
use crate::world::World;
use crate::world::coverage::{Branch, Fault};

/// What blocks cost, wei per gas.
const BASE_FEES: [u128; 5] = [5, 20, 80, 300, 2_000];

impl World {
    /// Now and then something goes wrong on the chain or with the settler.
    pub(in crate::world) fn chain_goes_wrong(&mut self) -> Result<(), Violation> {
        self.with_settling(|world, it| {
            let mut random = world.random.fork();
            if !random.chance(1, 60) {
                return Ok(());
            }
            world.one_thing(it, &mut random)
        })
    }

    fn one_thing(&mut self, it: &mut Settling, random: &mut Random) -> Result<(), Violation> {
        let (time, step) = (self.chain_time(), self.step);
        match random.below(24) {
            0..5 => return self.reorg(it, random),
            5..7 if it.chain.drop_one(random.index(it.chain.waiting().len())) => {
                self.go_wrong_with(Fault::TransactionDropped);
            }
            7..9 => {
                self.go_wrong_with(Fault::FeeChange);
                it.chain.set_base_fee(*random.pick(&BASE_FEES));
            }
            9 => {
                self.go_wrong_with(Fault::ForeignTransaction);
                it.chain.foreign(time);
                return self.note_block(it);
            }
            10 => {
                self.go_wrong_with(Fault::ContractPaused);
                it.chain.pause(time, true);
                return self.note_block(it);
            }
            11 | 12 => {
                it.chain.pause(time, false);
                return self.note_block(it);
            }
            13..16 => {
                it.dying_of = Fault::SettlerKilled;
                it.settler.kill_in(random.below(12));
            }
            16 | 17 => {
                it.dying_of = Fault::SettlerPowerCut;
                it.settler.fail_disk(1 + random.below(6), DiskFault::PowerOff);
            }
            18 => {
                it.dying_of = Fault::SettlerDiskError;
                it.settler.fail_disk(1 + random.below(6), DiskFault::Io);
            }
            19 if it.settler.damage_snapshot(random) => {
                self.go_wrong_with(Fault::SettlerSnapshotRot);
                it.dying_of = Fault::SettlerKilled;
                it.settler.kill_in(0);
            }
            20 => {
                self.go_wrong_with(Fault::SettlerAway);
                it.away_until = step + random.below(300);
            }
            21 => {
                self.go_wrong_with(Fault::NodeSilent);
                it.silent_until = step + random.below(150);
            }
            _ => {}
        }
        Ok(())
    }

    fn go_wrong_with(&mut self, fault: Fault) {
        self.outcome.coverage.fault(fault);
        self.tell(|| fault.name().to_owned());
    }

    fn reorg(&mut self, it: &mut Settling, random: &mut Random) -> Result<(), Violation> {
        self.go_wrong_with(Fault::Reorg);
        let lost = it.chain.reorg(1 + random.below(6), !random.chance(1, 3));
        for _ in 0..lost {
            self.go_wrong_with(Fault::BatchReorgedOut);
        }
        self.note_block(it)
    }

    /// How well the node serves for a turn.
    pub(super) fn draw_node(&mut self, random: &mut Random) -> Node {
        let mut node = Node::default();
        if !self.plan.happens(2 * self.step + 1) {
            return node;
        }
        match random.below(60) {
            0..4 => {
                self.outcome.coverage.fault(Fault::NodeBehind);
                node.lag = 1 + random.below(crate::chain::LAG_MAX);
            }
            4..7 => {
                self.outcome.coverage.fault(Fault::NodeBlind);
                node.is_blind = true;
            }
            7..12 => node.loses = true,
            _ => {}
        }
        node
    }

    /// The settler is dead, and begins again with what is on its disk.
    pub(super) fn settler_dies(&mut self, it: &mut Settling, random: &mut Random) -> Result<(), Violation> {
        self.go_wrong_with(it.dying_of);
        let mut power = if it.dying_of == Fault::SettlerKilled { Power::Stays } else { Power::Goes };
        for tries in 0.. {
            let cut = (tries < 3 && random.chance(1, 4)).then(|| 1 + random.below(3));
            match it.settler.restart(power, cut, self.synced(), random) {
                Ok(()) => break,
                Err(Stop::Died) => {
                    self.go_wrong_with(Fault::SettlerCutInStart);
                    power = Power::Goes;
                }
                Err(stop) => return Err(violation(&stop)),
            }
        }
        self.outcome.coverage.branch(Branch::SettlerWentOn);
        check_sent(&it.chain, it.settler.log())
    }
}
