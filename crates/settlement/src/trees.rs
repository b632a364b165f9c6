//! The four trees as batches leave them. Whoever has the data of all batches has the trees, and so every proof.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use surety_protocol::Address;

use crate::batch::{Positions, Roots};
use crate::bytes::{Reader, Writer};
use crate::data::{BatchData, DataError};
use crate::hash::Hash;
use crate::leaf::{ConsumedLeaf, LockId, PartitionLeaf, PayeeLeaf, SupplierLeaf};
use crate::tree::{Node, SumNode, Tree};

/// Leaves in the order of their first batch, and the tree over them.
#[derive(Clone, Debug)]
struct Grown<K, L, N> {
    places: BTreeMap<K, usize>,
    leaves: Vec<L>,
    tree: Tree<N>,
}

impl<K, L, N: Node> Default for Grown<K, L, N> {
    fn default() -> Self {
        Self { places: BTreeMap::new(), leaves: Vec::new(), tree: Tree::default() }
    }
}

impl<K: Ord, L: Copy, N: Node> Grown<K, L, N> {
    fn update(&mut self, changed: &[L], key: impl Fn(&L) -> K, node: impl Fn(&L) -> N) {
        let mut nodes: Vec<(usize, N)> = Vec::with_capacity(changed.len());
        for leaf in changed {
            let place = *self.places.entry(key(leaf)).or_insert(self.leaves.len());
            if place == self.leaves.len() {
                self.leaves.push(*leaf);
            } else {
                self.leaves[place] = *leaf;
            }
            nodes.push((place, node(leaf)));
        }
        nodes.sort_by_key(|(place, _)| *place);
        self.tree.update(&nodes);
    }

    /// Of all leaves and their number: each is as long as the first.
    fn bytes_len(&self, write: impl Fn(&L, &mut Writer)) -> usize {
        let mut first = Writer::default();
        if let Some(leaf) = self.leaves.first() {
            write(leaf, &mut first);
        }
        size_of::<u32>() + self.leaves.len() * first.0.len()
    }

    fn proof(&self, key: &K) -> Option<(usize, L, Vec<N>)> {
        let place = *self.places.get(key)?;
        Some((place, self.leaves[place], self.tree.path(place)))
    }
}

/// The trees.
#[derive(Clone, Debug, Default)]
pub struct Trees {
    partitions: Grown<Hash, PartitionLeaf, SumNode>,
    payees: Grown<(Hash, Address), PayeeLeaf, Hash>,
    suppliers: Grown<(Hash, Address), SupplierLeaf, Hash>,
    consumed: Grown<LockId, ConsumedLeaf, Hash>,
}

/// A leaf of one of the plain trees, with the siblings that lead to its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof<L> {
    /// What is proven.
    pub leaf: L,
    /// Siblings, the leaf's own first.
    pub path: Vec<Hash>,
}

/// A partition, with the siblings and their sums that lead to the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumProof {
    /// What is proven.
    pub leaf: PartitionLeaf,
    /// Its place from the left.
    pub index: u64,
    /// Siblings, the leaf's own first.
    pub path: Vec<SumNode>,
}

impl Trees {
    /// Carries the trees from the batch before to this one.
    ///
    /// # Panics
    /// If a leaf is there twice, which [`BatchData::from_bytes`] refuses.
    pub fn update(&mut self, data: &BatchData) {
        let sum_node = |leaf: &PartitionLeaf| SumNode { hash: leaf.hash(), sums: leaf.sums() };
        self.partitions.update(&data.partitions, |leaf| leaf.partition, sum_node);
        self.payees.update(&data.payees, |leaf| (leaf.partition, leaf.payee), PayeeLeaf::hash);
        self.suppliers.update(&data.suppliers, |leaf| (leaf.partition, leaf.supplier), SupplierLeaf::hash);
        self.consumed = Grown::default();
        self.consumed.update(&data.consumed, |leaf| leaf.lock, ConsumedLeaf::hash);
    }

    /// The roots, as of these positions.
    #[must_use]
    pub fn roots(&self, positions: &Positions) -> Roots {
        Roots {
            partitions: self.partitions.tree.root(),
            payees: self.payees.tree.root(),
            suppliers: self.suppliers.tree.root(),
            consumed: self.consumed.tree.root(),
            positions: positions.hash(),
        }
    }

    /// Proves a partition, by its on-chain id.
    #[must_use]
    pub fn prove_partition(&self, partition: Hash) -> Option<SumProof> {
        let (index, leaf, path) = self.partitions.proof(&partition)?;
        Some(SumProof { leaf, index: index as u64, path })
    }

    /// Proves what a payee has been credited out of a partition.
    #[must_use]
    pub fn prove_payee(&self, partition: Hash, payee: Address) -> Option<Proof<PayeeLeaf>> {
        self.payees.proof(&(partition, payee)).map(|(_, leaf, path)| Proof { leaf, path })
    }

    /// Proves what a supplier has in a partition.
    #[must_use]
    pub fn prove_supplier(&self, partition: Hash, supplier: Address) -> Option<Proof<SupplierLeaf>> {
        self.suppliers.proof(&(partition, supplier)).map(|(_, leaf, path)| Proof { leaf, path })
    }

    /// Proves what a certified lock has paid.
    #[must_use]
    pub fn prove_consumed(&self, lock: LockId) -> Option<Proof<ConsumedLeaf>> {
        self.consumed.proof(&lock).map(|(_, leaf, path)| Proof { leaf, path })
    }

    /// All partitions, in the order of the tree.
    #[must_use]
    pub fn partitions(&self) -> &[PartitionLeaf] {
        &self.partitions.leaves
    }

    /// All payees, in the order of the tree.
    #[must_use]
    pub fn payees(&self) -> &[PayeeLeaf] {
        &self.payees.leaves
    }

    /// All suppliers, in the order of the tree.
    #[must_use]
    pub fn suppliers(&self) -> &[SupplierLeaf] {
        &self.suppliers.leaves
    }

    /// All consumed certified locks, in the order of the tree.
    #[must_use]
    pub fn consumed(&self) -> &[ConsumedLeaf] {
        &self.consumed.leaves
    }

    /// How long [`Trees::to_bytes`] would be.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.partitions.bytes_len(PartitionLeaf::write)
            + self.payees.bytes_len(PayeeLeaf::write)
            + self.suppliers.bytes_len(SupplierLeaf::write)
            + self.consumed.bytes_len(ConsumedLeaf::write)
    }

    /// All leaves, in the order of the trees.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut to = Writer::default();
        self.write(&mut to);
        to.0
    }

    /// Makes the trees again.
    ///
    /// # Errors
    /// The bytes are not those of trees.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DataError> {
        let mut from = Reader(bytes);
        let trees = Self::read(&mut from)?;
        if from.0.is_empty() { Ok(trees) } else { Err(DataError::Trailing(from.0.len())) }
    }

    pub(crate) fn write(&self, to: &mut Writer) {
        to.list(self.partitions.leaves.iter(), |to, leaf| leaf.write(to));
        to.list(self.payees.leaves.iter(), |to, leaf| leaf.write(to));
        to.list(self.suppliers.leaves.iter(), |to, leaf| leaf.write(to));
        to.list(self.consumed.leaves.iter(), |to, leaf| leaf.write(to));
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DataError> {
        let data = BatchData {
            positions: Positions::default(),
            partitions: from.list(PartitionLeaf::read)?,
            payees: from.list(PayeeLeaf::read)?,
            suppliers: from.list(SupplierLeaf::read)?,
            consumed: from.list(ConsumedLeaf::read)?,
        };
        let is_unique = are_unique(data.partitions.iter().map(|leaf| leaf.partition))
            && are_unique(data.payees.iter().map(|leaf| (leaf.partition, leaf.payee)))
            && are_unique(data.suppliers.iter().map(|leaf| (leaf.partition, leaf.supplier)))
            && are_unique(data.consumed.iter().map(|leaf| leaf.lock));
        if !is_unique {
            return Err(DataError::Order);
        }
        let mut trees = Self::default();
        trees.update(&data);
        Ok(trees)
    }
}

fn are_unique<K: Ord>(keys: impl Iterator<Item = K>) -> bool {
    let mut seen = BTreeSet::new();
    keys.into_iter().all(|key| seen.insert(key))
}
