//! The data of a batch: what carries the trees from the batch before to this one. `FORMAT.md` has the bytes.

use alloc::vec::Vec;

use surety_protocol::{Address, Seq};

use crate::batch::Positions;
use crate::bytes::{Reader, Truncated, Writer};
use crate::hash::{Hash, Word};
use crate::leaf::{ConsumedLeaf, LockId, PartitionLeaf, PayeeLeaf, SupplierLeaf};

const VERSION: u8 = 1;

/// The leaves that are new or changed, by key, and all consumed certified locks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchData {
    /// What was read of the stream.
    pub positions: Positions,
    /// Partitions, new or changed.
    pub partitions: Vec<PartitionLeaf>,
    /// Payees, new or changed.
    pub payees: Vec<PayeeLeaf>,
    /// Suppliers, new or changed.
    pub suppliers: Vec<SupplierLeaf>,
    /// Consumed certified locks, all that can still be called.
    pub consumed: Vec<ConsumedLeaf>,
}

/// Why bytes are no data of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Another version than this one.
    #[error("data of version {0}")]
    Version(u8),
    /// They end early.
    #[error("data that ends early")]
    Truncated,
    /// They go on behind their end.
    #[error("{0} bytes behind the data")]
    Trailing(usize),
    /// A lock's name has a bit that no name has.
    #[error("a lock id that is none")]
    LockId,
    /// Leaves that do not rise by key: one could be there twice.
    #[error("leaves out of order")]
    Order,
}

impl From<Truncated> for DataError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

impl BatchData {
    /// The bytes that `dataHash` is over.
    ///
    /// # Panics
    /// If there are more shards or leaves than their counts can say.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u8(VERSION);
        self.positions.write(&mut to);
        to.list(self.partitions.iter(), |to, leaf| leaf.write(to));
        to.list(self.payees.iter(), |to, leaf| leaf.write(to));
        to.list(self.suppliers.iter(), |to, leaf| leaf.write(to));
        to.list(self.consumed.iter(), |to, leaf| leaf.write(to));
        to.0
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DataError> {
        let mut from = Reader(bytes);
        let version = from.u8()?;
        if version != VERSION {
            return Err(DataError::Version(version));
        }
        let data = Self {
            positions: Positions::read(&mut from)?,
            partitions: from.list(PartitionLeaf::read)?,
            payees: from.list(PayeeLeaf::read)?,
            suppliers: from.list(SupplierLeaf::read)?,
            consumed: from.list(ConsumedLeaf::read)?,
        };
        if !data.is_ordered() {
            return Err(DataError::Order);
        }
        if from.0.is_empty() { Ok(data) } else { Err(DataError::Trailing(from.0.len())) }
    }
}

impl BatchData {
    fn is_ordered(&self) -> bool {
        self.partitions.is_sorted_by(|a, b| a.partition < b.partition)
            && self.payees.is_sorted_by(|a, b| (a.partition, a.payee) < (b.partition, b.payee))
            && self.suppliers.is_sorted_by(|a, b| (a.partition, a.supplier) < (b.partition, b.supplier))
            && self.consumed.is_sorted_by(|a, b| a.lock < b.lock)
    }
}

impl Positions {
    pub(crate) fn write(&self, to: &mut Writer) {
        to.u16(u16::try_from(self.0.len()).expect("an engine has at most 256 shards"));
        self.0.iter().for_each(|seq| _ = to.u64(seq.0));
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Truncated> {
        let shards = from.u16()?;
        (0..shards).map(|_| from.u64().map(Seq)).collect::<Result<_, _>>().map(Self)
    }
}

impl PartitionLeaf {
    pub(crate) fn write(&self, to: &mut Writer) {
        to.raw(&self.partition).u128(self.locked).u128(self.debit).u128(self.exits);
        to.u64(self.exit_nonce).u128(self.units).raw(&self.salt);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Truncated> {
        Ok(Self {
            partition: from.array()?,
            locked: from.u128()?,
            debit: from.u128()?,
            exits: from.u128()?,
            exit_nonce: from.u64()?,
            units: from.u128()?,
            salt: from.array()?,
        })
    }
}

impl PayeeLeaf {
    pub(crate) fn write(&self, to: &mut Writer) {
        to.raw(&self.partition).raw(&self.payee.0).u128(self.credit);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Truncated> {
        Ok(Self { partition: from.array()?, payee: Address(from.array()?), credit: from.u128()? })
    }
}

impl SupplierLeaf {
    pub(crate) fn write(&self, to: &mut Writer) {
        to.raw(&self.partition).raw(&self.supplier.0).u128(self.units).u128(self.paid_out);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Truncated> {
        let (partition, supplier) = (from.array()?, Address(from.array()?));
        Ok(Self { partition, supplier, units: from.u128()?, paid_out: from.u128()? })
    }
}

impl ConsumedLeaf {
    pub(crate) fn write(&self, to: &mut Writer) {
        to.raw(&self.lock.word()).raw(&self.partition).raw(&self.payee.0).u128(self.amount);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DataError> {
        let name: Hash = from.array()?;
        let lock = LockId::from_word(&name).ok_or(DataError::LockId)?;
        Ok(Self { lock, partition: from.array()?, payee: Address(from.array()?), amount: from.u128()? })
    }
}
