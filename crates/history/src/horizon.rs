//! Up to when an index is complete.

use std::sync::Arc;

use parking_lot::Mutex;
use surety_protocol::{Epoch, ShardId, Time};

/// For each shard a moment before which everything that was decided so far is in the index, as the engine says itself, and the epoch in
/// which it says so. Whoever feeds the index moves it on, whoever asks reads it; all clones are one.
///
/// What a shard has logged needs no telling: a log never goes back in time. This is for shards that have nothing to log. It holds for the
/// epoch alone: an engine that starts again begins at the later of its log's end and the wall clock, and where that was set back meanwhile,
/// it decides at moments that had passed. So nothing that has to stay true is said by it, and statements go without.
#[derive(Clone, Debug)]
pub struct Horizon {
    shards: Arc<[Mutex<Told>]>,
}

/// What an engine said last of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) epoch: Epoch,
    pub(crate) before: Time,
}

impl Horizon {
    /// That of an index of so many shards, of which nothing is known yet.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self { shards: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// Everything that a shard has decided before this moment, by the clock of this epoch, is in the store. Told after the commit, never
    /// before it. Within an epoch it never goes back; what an earlier epoch says changes nothing.
    pub fn advance(&self, shard: ShardId, epoch: Epoch, before: Time) {
        let Some(told) = self.shards.get(usize::from(shard.0)) else { return };
        let mut told = told.lock();
        if epoch > told.epoch {
            *told = Told { epoch, before };
        } else if epoch == told.epoch {
            told.before = told.before.max(before);
        }
    }

    /// What is known of each shard, by number. Read it before the index that it is said of.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.shards.iter().map(|told| *told.lock()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_horizon_goes_back_with_a_new_epoch_alone() {
        let horizon = Horizon::new(1);
        let tell = |epoch, before| {
            horizon.advance(ShardId(0), Epoch(epoch), Time(before));
            let [told] = horizon.told()[..] else { unreachable!() };
            (told.epoch.0, told.before.0)
        };
        assert_eq!(tell(1, 50), (1, 50));
        assert_eq!(tell(1, 40), (1, 50), "within an epoch never");
        assert_eq!(tell(2, 45), (2, 45), "an engine that started by a clock that was set back");
        assert_eq!(tell(1, 99), (2, 45), "what an earlier epoch says is over");
        horizon.advance(ShardId(7), Epoch(9), Time(1));
    }
}
