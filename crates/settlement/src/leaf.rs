//! What the leaves of the four trees say, and their hashes.

use core::ops::Add;

use surety_protocol::{Address, Id, PartitionHandle, TenantId};

use crate::hash::{Hash, Word, keccak, keccak_enc};

/// A lock's name on chain: tenant, partition handle and id in 224 bits. Unique within the engine, and it reads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId {
    /// Whose lock.
    pub tenant: TenantId,
    /// Where it is held.
    pub partition: PartitionHandle,
    /// Its id there.
    pub id: Id,
}

impl LockId {
    /// Reads the name; `None` if the upper 32 bits are not zero.
    #[must_use]
    pub fn from_word(word: &Hash) -> Option<Self> {
        let (zeros, rest) = word.split_first_chunk::<4>()?;
        let (tenant, rest) = rest.split_first_chunk::<4>()?;
        let (partition, id) = rest.split_first_chunk::<8>()?;
        let name = Self {
            tenant: TenantId(u32::from_be_bytes(*tenant)),
            partition: PartitionHandle(u64::from_be_bytes(*partition)),
            id: Id(u128::from_be_bytes(*id.first_chunk()?)),
        };
        (*zeros == [0; 4]).then_some(name)
    }
}

impl Word for LockId {
    fn word(&self) -> Hash {
        let mut word = [0; 32];
        word[4..8].copy_from_slice(&self.tenant.0.to_be_bytes());
        word[8..16].copy_from_slice(&self.partition.0.to_be_bytes());
        word[16..].copy_from_slice(&self.id.0.to_be_bytes());
        word
    }
}

/// What a `deficit` bears as its reference if it books a guarantee that the contract has paid for no lock of the engine's: the
/// first half of the hash of the lock's name on chain, which may be any 32 bytes. Never 0, which is the reference of all others.
#[must_use]
pub fn loss_reference(name: &Hash) -> u128 {
    let hash = keccak(&[name]);
    hash.first_chunk().map_or(1, |half| u128::from_be_bytes(*half).max(1))
}

/// The two totals that every node of the tree of partitions carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Collateral that guarantees something.
    pub locked: u128,
    /// Collateral that was ever owed out of the partition.
    pub debit: u128,
}

impl Sums {
    /// Each half by itself; `None` if either needs more than 128 bits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let locked = self.locked.checked_add(other.locked)?;
        Some(Self { locked, debit: self.debit.checked_add(other.debit)? })
    }
}

impl Add for Sums {
    type Output = Self;

    /// Of what this engine has netted itself: it cannot overflow, since amounts have 104 bits.
    fn add(self, other: Self) -> Self {
        Self { locked: self.locked + other.locked, debit: self.debit + other.debit }
    }
}

impl Word for Sums {
    fn word(&self) -> Hash {
        let mut word = [0; 32];
        word[..16].copy_from_slice(&self.locked.to_be_bytes());
        word[16..].copy_from_slice(&self.debit.to_be_bytes());
        word
    }
}

/// A partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionLeaf {
    /// The on-chain id.
    pub partition: Hash,
    /// H + U + P, and what is owed but not credited yet.
    pub locked: u128,
    /// All that was ever owed out of the partition: credits and booked guarantees.
    pub debit: u128,
    /// All withdrawals of suppliers, ever.
    pub exits: u128,
    /// The highest number of a requested exit that the ledger has answered.
    pub exit_nonce: u64,
    /// Units of all suppliers.
    pub units: u128,
    /// Hides round numbers from neighbours.
    pub salt: Hash,
}

impl PartitionLeaf {
    /// Hashed once: its preimage is longer than a node's.
    #[must_use]
    pub fn hash(&self) -> Hash {
        keccak_enc!(
            1_u8,
            self.partition,
            self.locked,
            self.debit,
            self.exits,
            self.exit_nonce,
            self.units,
            self.salt,
        )
    }

    /// What it adds to the tree.
    #[must_use]
    pub const fn sums(&self) -> Sums {
        Sums { locked: self.locked, debit: self.debit }
    }
}

/// A payee: a merchant, or a supplier that has withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayeeLeaf {
    /// The on-chain id of the partition that pays.
    pub partition: Hash,
    /// Who is paid.
    pub payee: Address,
    /// All that was ever owed to it out of this partition.
    pub credit: u128,
}

impl PayeeLeaf {
    /// Hashed twice: no node can pass for it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        twice(keccak_enc!(2_u8, self.partition, self.payee, self.credit))
    }
}

/// What a supplier has in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupplierLeaf {
    /// The on-chain id of the partition.
    pub partition: Hash,
    /// Who supplied.
    pub supplier: Address,
    /// Present units.
    pub units: u128,
    /// All that it has ever withdrawn.
    pub paid_out: u128,
}

impl SupplierLeaf {
    /// Hashed twice: no node can pass for it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        twice(keccak_enc!(3_u8, self.partition, self.supplier, self.units, self.paid_out))
    }
}

/// A certified lock from which something was consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumedLeaf {
    /// Which lock.
    pub lock: LockId,
    /// The on-chain id of its partition.
    pub partition: Hash,
    /// Who was credited: the payee of the certificate.
    pub payee: Address,
    /// What was credited for the lock over its whole life.
    pub amount: u128,
}

impl ConsumedLeaf {
    /// Hashed twice: no node can pass for it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        twice(keccak_enc!(4_u8, self.lock, self.partition, self.payee, self.amount))
    }
}

fn twice(hash: Hash) -> Hash {
    keccak(&[&hash])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_id_reads_back() {
        let lock =
            LockId { tenant: TenantId(7), partition: PartitionHandle(3 << 48 | 9), id: Id(1 << 127 | 5) };
        let mut word = lock.word();
        assert_eq!(LockId::from_word(&word), Some(lock));
        word[3] = 1;
        assert_eq!(LockId::from_word(&word), None);
    }

    #[test]
    fn sums_do_not_spill() {
        let full = Sums { locked: 1, debit: u128::MAX };
        assert_eq!(full.checked_add(Sums { locked: 0, debit: 1 }), None);
        assert_eq!(full.checked_add(Sums { locked: u128::MAX, debit: 0 }), None);
        assert_eq!(
            full.checked_add(Sums { locked: 1, debit: 0 }),
            Some(Sums { locked: 2, debit: u128::MAX })
        );
        assert_eq!(full.word()[15..17], [1, 0xff]);
    }
}
