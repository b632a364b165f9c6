//! Merkle trees that keep their nodes, so that a batch costs what it changes and not what there is.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::hash::{Hash, NO_HASH, keccak, keccak_enc};
use crate::leaf::Sums;

/// The three plain trees: pairs are sorted, an odd node goes up as it is.
pub type PlainTree = Tree<Hash>;
/// The tree of partitions: directed by index, completed with the empty node, every node carries its sums.
pub type SumTree = Tree<SumNode>;

/// What a tree is made of.
pub trait Node: Copy + PartialEq + Debug {
    /// The root of no leaves.
    const EMPTY: Self;
    /// What stands on the right where a level is odd; none: the left node goes up as it is.
    const FILL: Option<Self>;

    /// The node above two others.
    fn join(left: &Self, right: &Self) -> Self;
}

impl Node for Hash {
    const EMPTY: Self = NO_HASH;
    const FILL: Option<Self> = None;

    fn join(left: &Self, right: &Self) -> Self {
        if left <= right { keccak(&[left, right]) } else { keccak(&[right, left]) }
    }
}

/// A node of the tree of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumNode {
    /// Its hash, which for an inner node binds the sums of both children.
    pub hash: Hash,
    /// Sums over the leaves below it.
    pub sums: Sums,
}

impl SumNode {
    const NOTHING: Self = Self { hash: NO_HASH, sums: Sums { locked: 0, debit: 0 } };

    fn over(left: &Self, right: &Self, sums: Sums) -> Self {
        Self { hash: keccak_enc!(left.hash, left.sums, right.hash, right.sums), sums }
    }
}

impl Node for SumNode {
    const EMPTY: Self = Self::NOTHING;
    const FILL: Option<Self> = Some(Self::NOTHING);

    fn join(left: &Self, right: &Self) -> Self {
        Self::over(left, right, left.sums + right.sums)
    }
}

/// A Merkle tree with all its nodes. A leaf never moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree<N> {
    /// Leaves first; the last level has at most one node.
    levels: Vec<Vec<N>>,
}

impl<N: Node> Default for Tree<N> {
    fn default() -> Self {
        Self { levels: vec![Vec::new()] }
    }
}

impl<N: Node> Tree<N> {
    /// The tree over these leaves.
    #[must_use]
    pub fn new(leaves: impl IntoIterator<Item = N>) -> Self {
        let mut tree = Self::default();
        let leaves: Vec<(usize, N)> = leaves.into_iter().enumerate().collect();
        tree.update(&leaves);
        tree
    }

    /// Leaves.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels[0].len()
    }

    /// True without leaves.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node over all leaves.
    #[must_use]
    pub fn root(&self) -> N {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or(N::EMPTY)
    }

    /// Replaces leaves and appends new ones, and hashes what stands above them once.
    ///
    /// # Panics
    /// Unless the indexes rise and new leaves follow the present ones without a gap.
    pub fn update(&mut self, leaves: &[(usize, N)]) {
        assert!(leaves.is_sorted_by(|a, b| a.0 < b.0), "leaves in order, each once");
        leaves.iter().for_each(|(index, leaf)| put(&mut self.levels[0], *index, *leaf));
        let mut changed: Vec<usize> = leaves.iter().map(|(index, _)| *index).collect();
        let mut level = 0;
        while self.levels[level].len() > 1 {
            changed.iter_mut().for_each(|index| *index /= 2);
            changed.dedup();
            if self.levels.len() == level + 1 {
                self.levels.push(Vec::new());
            }
            let (below, above) = self.levels.split_at_mut(level + 1);
            for index in &changed {
                put(&mut above[0], *index, parent(&below[level], *index));
            }
            level += 1;
        }
    }

    /// The siblings of a leaf, its own first.
    ///
    /// # Panics
    /// If there is no such leaf.
    #[must_use]
    pub fn path(&self, index: usize) -> Vec<N> {
        assert!(index < self.len(), "no leaf {index}");
        let below_root = self.levels.iter().take_while(|level| level.len() > 1);
        let sibling = |(depth, level): (usize, &Vec<N>)| level.get((index >> depth) ^ 1).copied().or(N::FILL);
        below_root.enumerate().filter_map(sibling).collect()
    }
}

/// The root to which a leaf of a plain tree leads, as the contract climbs.
#[must_use]
pub fn plain_root(leaf: &Hash, path: &[Hash]) -> Hash {
    path.iter().fold(*leaf, |here, sibling| Node::join(&here, sibling))
}

/// The node to which a leaf of the sum tree leads, as the contract climbs. `None` if a sum overflows or the index has more
/// bits than the path has steps: no tree leads there.
#[must_use]
pub fn sum_root(leaf: SumNode, index: u64, path: &[SumNode]) -> Option<SumNode> {
    let depth = u32::try_from(path.len()).ok()?;
    if index.checked_shr(depth).unwrap_or(0) != 0 {
        return None;
    }
    path.iter().enumerate().try_fold(leaf, |here, (level, sibling)| {
        let is_right = index.checked_shr(u32::try_from(level).ok()?).unwrap_or(0) & 1 == 1;
        let (left, right) = if is_right { (sibling, &here) } else { (&here, sibling) };
        Some(SumNode::over(left, right, left.sums.checked_add(right.sums)?))
    })
}

fn put<N>(level: &mut Vec<N>, index: usize, node: N) {
    if index < level.len() {
        level[index] = node;
    } else {
        assert!(index == level.len(), "leaves without a gap");
        level.push(node);
    }
}

fn parent<N: Node>(below: &[N], index: usize) -> N {
    let left = &below[2 * index];
    match below.get(2 * index + 1).copied().or(N::FILL) {
        Some(right) => N::join(left, &right),
        None => *left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf(n: usize) -> Hash {
        keccak(&[&n.to_be_bytes()])
    }

    fn sum_leaf(n: usize) -> SumNode {
        SumNode { hash: leaf(n), sums: Sums { locked: n as u128, debit: 1 } }
    }

    #[test]
    fn every_leaf_of_every_small_tree_has_its_path() {
        for count in 0..40 {
            let plain = PlainTree::new((0..count).map(leaf));
            let sums = SumTree::new((0..count).map(sum_leaf));
            assert_eq!(sums.root().sums.debit, count as u128);
            for index in 0..count {
                assert_eq!(plain_root(&leaf(index), &plain.path(index)), plain.root(), "{index} of {count}");
                let path = sums.path(index);
                assert_eq!(sum_root(sum_leaf(index), index as u64, &path), Some(sums.root()));
                for wrong in (0..2 * count).filter(|wrong| *wrong != index) {
                    assert_ne!(sum_root(sum_leaf(index), wrong as u64, &path), Some(sums.root()));
                }
            }
        }
        assert_eq!((PlainTree::default().root(), SumTree::default().root()), (NO_HASH, SumNode::NOTHING));
    }

    #[test]
    fn a_sum_that_overflows_leads_nowhere() {
        let sibling = SumNode { hash: leaf(1), sums: Sums { locked: u128::MAX, debit: 0 } };
        let none = SumNode { sums: Sums::default(), ..sum_leaf(0) };
        assert!(sum_root(none, 0, &[sibling]).is_some());
        assert_eq!(sum_root(SumNode { sums: Sums { locked: 1, debit: 0 }, ..none }, 0, &[sibling]), None);
    }

    #[test]
    fn lowering_a_sum_changes_the_root() {
        let tree = SumTree::new((0..5).map(sum_leaf));
        let mut path = tree.path(2);
        path[0].sums.locked -= 1;
        let found = sum_root(sum_leaf(2), 2, &path).unwrap();
        assert_ne!(found.hash, tree.root().hash);
    }

    proptest! {
        #[test]
        fn what_is_updated_is_what_is_built(start in 0_usize..70, steps in prop::collection::vec(
            (prop::collection::btree_set(0_usize..200, 0..20), 0_usize..9), 0..8))
        {
            let mut leaves: Vec<usize> = (0..start).collect();
            let mut plain = PlainTree::new(leaves.iter().map(|n| leaf(*n)));
            let mut sums = SumTree::new(leaves.iter().map(|n| sum_leaf(*n)));
            for (step, (changed, added)) in steps.iter().enumerate() {
                let mut indexes: Vec<usize> = changed.iter().copied().filter(|i| *i < leaves.len()).collect();
                indexes.extend(leaves.len()..leaves.len() + added);
                leaves.resize(leaves.len() + added, 0);
                indexes.iter().for_each(|index| leaves[*index] = 1000 * (step + 1) + index);
                let of = |index: &usize| (*index, leaf(leaves[*index]));
                plain.update(&indexes.iter().map(of).collect::<Vec<_>>());
                sums.update(&indexes.iter().map(|index| (*index, sum_leaf(leaves[*index]))).collect::<Vec<_>>());
            }
            prop_assert_eq!(plain, PlainTree::new(leaves.iter().map(|n| leaf(*n))));
            prop_assert_eq!(sums, SumTree::new(leaves.iter().map(|n| sum_leaf(*n))));
        }
    }
}
