//! An engine's books as far as a batch tells of them, and the batches that it seals.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolValue;
use chain::DigestSigner;
use chain::bindings::{Batch, ConsumedLeaf, Credit, Join, Lock, PartitionLeaf, SupplierLeaf};

use super::trees::{Plain, Sums, digest, domain, lock_hash, release_leaf, twice};
use super::{ENGINE, World};

#[derive(Clone, Debug, Default)]
pub struct Books {
    pub partitions: Vec<PartitionLeaf>,
    pub payees: BTreeMap<(B256, Address), u128>,
    pub suppliers: BTreeMap<(B256, Address), (u128, u128)>,
    pub consumed: BTreeMap<B256, (B256, Address, u128)>,
    pub acknowledged: u128,
    pub lsn: u64,
    pub seq: u64,
    pub head: B256,
}

/// A batch and all that can be proven under it.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub books: Books,
    pub batch: Batch,
    pub join: Join,
    pub rest: B256,
}

impl Books {
    pub fn new(world: &World) -> Self {
        let head = domain(31337, world.at.manager, ENGINE);
        Self { head, ..Self::default() }
    }

    pub fn partition(&mut self, partition: B256) -> &mut PartitionLeaf {
        let place = self.partitions.iter().position(|leaf| leaf.partition == partition);
        let place = place.unwrap_or_else(|| {
            let salt = keccak256(partition);
            let index = u32::try_from(self.partitions.len()).unwrap();
            self.partitions.push(PartitionLeaf { partition, salt, index, ..PartitionLeaf::default() });
            self.partitions.len() - 1
        });
        &mut self.partitions[place]
    }

    /// Locked collateral becomes a payee's.
    pub fn consume(&mut self, partition: B256, payee: Address, amount: u128) {
        let leaf = self.partition(partition);
        leaf.locked -= amount;
        leaf.debit += amount;
        *self.payees.entry((partition, payee)).or_default() += amount;
    }

    /// A guarantee that was paid on chain is booked.
    pub fn acknowledge(&mut self, partition: B256, amount: u128) {
        let leaf = self.partition(partition);
        leaf.locked -= amount;
        leaf.debit += amount;
        self.acknowledged += amount;
    }

    /// The next batch; the books go on from it.
    pub fn seal(&mut self) -> Sealed {
        self.lsn += 10;
        self.seq += 1;
        let mut sealed =
            Sealed { books: self.clone(), batch: Batch::default(), join: Join::default(), rest: B256::ZERO };
        sealed.finish(self.head);
        self.head = sealed.head();
        sealed
    }
}

impl Sealed {
    fn finish(&mut self, previous: B256) {
        let books = &self.books;
        let (top, top_sums) = Sums::new(&books.partitions).top();
        let sum_credit: u128 = books.payees.values().sum();
        self.join = Join {
            payeesRoot: self.payees().root(),
            top,
            suppliersRoot: self.suppliers().root(),
            consumedRoot: self.consumed().root(),
            positionsHash: keccak256(U256::from(books.lsn).abi_encode()),
        };
        let join = &self.join;
        self.rest = keccak256(
            (join.top, top_sums, join.suppliersRoot, join.consumedRoot, join.positionsHash).abi_encode(),
        );
        self.batch = Batch {
            seq: books.seq,
            lsnTo: books.lsn,
            prevHead: previous,
            stateRoot: keccak256((join.payeesRoot, self.rest).abi_encode()),
            sumLocked: books.partitions.iter().map(|leaf| leaf.locked).sum(),
            sumCredit: sum_credit,
            guaranteedAck: books.acknowledged,
            count: 1,
            dataHash: keccak256("data"),
        };
    }

    pub fn head(&self) -> B256 {
        keccak256(self.batch.abi_encode())
    }

    fn payees(&self) -> Plain {
        let leaf = |((partition, payee), credit): (&(B256, Address), &u128)| {
            twice(&[U256::from(2), (*partition).into(), payee.into_word().into(), U256::from(*credit)])
        };
        Plain::new(self.books.payees.iter().map(leaf).collect())
    }

    fn suppliers(&self) -> Plain {
        let leaf = |((partition, supplier), (units, paid)): (&(B256, Address), &(u128, u128))| {
            let words =
                [(*partition).into(), supplier.into_word().into(), U256::from(*units), U256::from(*paid)];
            twice(&[&[U256::from(3)], &words[..]].concat())
        };
        Plain::new(self.books.suppliers.iter().map(leaf).collect())
    }

    fn consumed(&self) -> Plain {
        let leaf = |(lock, (partition, payee, amount)): (&B256, &(B256, Address, u128))| {
            let words = [(*lock).into(), (*partition).into(), payee.into_word().into(), U256::from(*amount)];
            twice(&[&[U256::from(4)], &words[..]].concat())
        };
        Plain::new(self.books.consumed.iter().map(leaf).collect())
    }

    pub fn credit(&self, partition: B256, payee: Address) -> Credit {
        let place = self.books.payees.keys().position(|key| *key == (partition, payee)).unwrap();
        let credit = self.books.payees[&(partition, payee)];
        Credit { partition, payee, credit, path: self.payees().path(place) }
    }

    pub fn partition(&self, partition: B256) -> PartitionLeaf {
        let place = self.books.partitions.iter().position(|leaf| leaf.partition == partition).unwrap();
        let path = Sums::new(&self.books.partitions).path(place);
        PartitionLeaf { path, ..self.books.partitions[place].clone() }
    }

    pub fn supplier(&self, partition: B256, supplier: Address) -> SupplierLeaf {
        let place = self.books.suppliers.keys().position(|key| *key == (partition, supplier)).unwrap();
        let (units, paid_out) = self.books.suppliers[&(partition, supplier)];
        SupplierLeaf { partition, supplier, units, paidOut: paid_out, path: self.suppliers().path(place) }
    }

    pub fn consumed_lock(&self, lock: B256) -> ConsumedLeaf {
        let place = self.books.consumed.keys().position(|key| *key == lock).unwrap();
        let (partition, payee, amount) = self.books.consumed[&lock];
        ConsumedLeaf { lockId: lock, partition, payee, amount, path: self.consumed().path(place) }
    }
}

/// A group of certificates: the path of each, and the signature over their root.
pub fn certify(world: &World, signer: &dyn DigestSigner, locks: &[Lock]) -> (Vec<Vec<B256>>, Vec<u8>) {
    let tree = Plain::new(locks.iter().map(lock_hash).collect());
    let digest = digest(domain(31337, world.at.manager, ENGINE), "LockGroup", tree.root());
    let paths = (0..locks.len()).map(|place| tree.path(place)).collect();
    (paths, signer.sign(&digest).unwrap().to_vec())
}

/// A release of a single lock by its key.
pub fn release(world: &World, key: &dyn DigestSigner, lock: B256, version: u32, still_owed: u128) -> Vec<u8> {
    let root = release_leaf(lock, version, still_owed);
    key.sign(&digest(domain(31337, world.at.manager, ENGINE), "ReleaseGroup", root)).unwrap().to_vec()
}
