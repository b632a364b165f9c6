//! Following a chain block by block, through its reorganizations. Pure: blocks come in as arguments.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::payment::{BlockRef, SeenBlock};

/// The newest blocks of one branch, each the child of the one before.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    /// What stands below the kept blocks and is never taken back; none where reading begins without one.
    base: Option<Base>,
    blocks: VecDeque<Kept>,
    /// The first block ever wanted.
    first: u64,
    kept_max: usize,
}

/// A block and the chain's clock in it: the latest time of any block up to it, which never goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) block: SeenBlock,
    pub(crate) clock_s: u64,
}

/// The same of a block whose payments are no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Which.
    pub at: BlockRef,
    /// The clock in it.
    pub clock_s: u64,
}

/// What became of an offered block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is the newest now.
    Added,
    /// It is no child of the newest, which has been taken back. The same number is to be asked for again.
    TookBack(BlockRef),
    /// It is no child of the base.
    BelowBase(BlockRef),
    /// It is not the one that was wanted.
    Unasked,
}

impl Follower {
    /// Begins with a block, whatever its parent.
    pub(crate) const fn from_number(first: u64) -> Self {
        Self { base: None, blocks: VecDeque::new(), first, kept_max: 1 }
    }

    /// Goes on after a block that was read before.
    pub(crate) const fn after(base: Base) -> Self {
        Self { base: Some(base), blocks: VecDeque::new(), first: base.at.number + 1, kept_max: 1 }
    }

    /// Keeps at least so many blocks from now on.
    pub(crate) fn keep(&mut self, blocks: usize) {
        self.kept_max = self.kept_max.max(blocks);
    }

    /// The number of the block to offer next.
    pub(crate) fn wanted(&self) -> u64 {
        self.blocks.back().map_or(self.first, |newest| newest.block.at.number + 1)
    }

    /// The kept blocks, oldest first.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Kept> {
        self.blocks.iter()
    }

    /// A kept block by its number.
    pub(crate) fn block(&self, number: u64) -> Option<&Kept> {
        let oldest = self.blocks.front()?.block.at.number;
        self.blocks.get(usize::try_from(number.checked_sub(oldest)?).ok()?)
    }

    /// What reading can go on after: the kept block with this number, or else the one before all that are kept, which the first
    /// of them names. Never a kept block with a higher number: somebody may still have to read it.
    pub(crate) fn base_at(&self, number: u64) -> Option<Base> {
        let kept = self.block(number).map(|kept| Base { at: kept.block.at, clock_s: kept.clock_s });
        let before_all = || {
            let first = &self.blocks.front()?.block;
            let at = BlockRef { number: first.at.number.checked_sub(1)?, hash: first.parent };
            Some(Base { at, clock_s: 0 })
        };
        kept.or(self.base).or_else(before_all)
    }

    /// The newest block, which may be the base.
    pub(crate) fn newest(&self) -> Option<Base> {
        let base = |kept: &Kept| Base { at: kept.block.at, clock_s: kept.clock_s };
        self.blocks.back().map(base).or(self.base)
    }

    pub(crate) fn offer(&mut self, block: SeenBlock) -> Offered {
        if block.at.number != self.wanted() {
            return Offered::Unasked;
        }
        let before = self.newest();
        match before {
            Some(before) if before.at.hash != block.parent => match self.blocks.pop_back() {
                Some(newest) => Offered::TookBack(newest.block.at),
                None => Offered::BelowBase(before.at),
            },
            _ => {
                let clock_s = before.map_or(0, |before| before.clock_s).max(block.time_s);
                self.blocks.push_back(Kept { block, clock_s });
                if self.blocks.len() > self.kept_max
                    && let Some(oldest) = self.blocks.pop_front()
                {
                    self.base = Some(Base { at: oldest.block.at, clock_s: oldest.clock_s });
                    self.first = oldest.block.at.number + 1;
                }
                Offered::Added
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::B256;

    fn block(number: u64, own: u8, parent: u8) -> SeenBlock {
        let at = BlockRef { number, hash: B256::repeat_byte(own) };
        SeenBlock { at, parent: B256::repeat_byte(parent), time_s: number, payments: Vec::new() }
    }

    fn base() -> Base {
        Base { at: block(9, 9, 8).at, clock_s: 11 }
    }

    #[test]
    fn the_clock_never_goes_back() {
        let mut follower = Follower::after(base());
        follower.keep(9);
        for (number, own) in [(10, 10), (11, 11), (12, 12)] {
            assert_eq!(follower.offer(block(number, own, own - 1)), Offered::Added);
        }
        let clocks: Vec<u64> = follower.blocks().map(|kept| kept.clock_s).collect();
        assert_eq!(clocks, [11, 11, 12]);
        assert!(matches!(follower.offer(block(13, 33, 32)), Offered::TookBack(_)));
        assert_eq!(
            follower.newest().map(|newest| newest.clock_s),
            Some(11),
            "nor does it keep a lost block's time"
        );
    }

    #[test]
    fn a_branch_is_followed_back_to_where_it_left() {
        let mut follower = Follower::from_number(10);
        follower.keep(4);
        for (number, own) in [(10, 10), (11, 11), (12, 12), (13, 13)] {
            assert_eq!(follower.wanted(), number);
            assert_eq!(follower.offer(block(number, own, own - 1)), Offered::Added);
        }
        // Another branch has left after block 11.
        assert_eq!(follower.offer(block(14, 24, 23)), Offered::TookBack(block(13, 13, 0).at));
        assert_eq!(follower.offer(block(13, 23, 22)), Offered::TookBack(block(12, 12, 0).at));
        assert_eq!(follower.offer(block(14, 24, 23)), Offered::Unasked);
        assert_eq!(follower.offer(block(12, 22, 11)), Offered::Added);
        assert_eq!(follower.offer(block(13, 23, 22)), Offered::Added);
        assert_eq!(follower.block(12).map(|kept| kept.block.at.hash), Some(B256::repeat_byte(22)));
        assert_eq!((follower.block(9), follower.block(14)), (None, None));
    }

    #[test]
    fn what_is_no_longer_kept_cannot_be_taken_back() {
        let mut follower = Follower::after(base());
        follower.keep(2);
        for (number, own) in [(10, 10), (11, 11), (12, 12)] {
            assert_eq!(follower.offer(block(number, own, own - 1)), Offered::Added);
        }
        assert_eq!(follower.blocks().count(), 2);
        assert!(matches!(follower.offer(block(13, 33, 32)), Offered::TookBack(_)));
        assert!(matches!(follower.offer(block(12, 32, 31)), Offered::TookBack(_)));
        assert_eq!(follower.offer(block(11, 31, 30)), Offered::BelowBase(block(10, 10, 9).at));
        assert_eq!(follower.offer(block(11, 11, 10)), Offered::Added, "the old branch is back");
        let mut resumed = Follower::after(base());
        assert_eq!(resumed.offer(block(10, 10, 7)), Offered::BelowBase(block(9, 9, 8).at));
    }
}
