//! How far the contract's events were read, and which of them still wait for the engine.

use std::collections::BTreeMap;

use settlement::Hash;
use surety_protocol::Address;

use crate::codec::{Damaged, Put, Take};

/// A supply that is final on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// The on-chain id of the partition.
    pub partition: Hash,
    /// Whose it is.
    pub supplier: Address,
    /// In base units.
    pub amount: u128,
    /// The contract's number: 1, 2, 3, ... over all partitions.
    pub nonce: u64,
}

/// A supplier's request on chain to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitAsked {
    /// The on-chain id of the partition.
    pub partition: Hash,
    /// Who.
    pub supplier: Address,
    /// The partition's number of it: 1, 2, 3, ...
    pub nonce: u64,
}

/// A position in the chain's finalized blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Everything up to this block was read.
    pub(crate) block: u64,
    /// The last supply's number.
    pub(crate) nonce: u64,
    /// All that was ever supplied, for each partition.
    pub(crate) supplied: BTreeMap<Hash, u128>,
    /// Read, and not credited yet.
    pub(crate) supplies: Vec<Supply>,
    /// Read, and not answered yet, in order.
    pub(crate) exits: Vec<ExitAsked>,
}

impl Scan {
    pub(crate) fn write(&self, to: &mut Put) {
        to.u64(self.block).u64(self.nonce);
        to.list(self.supplied.iter(), |to, (partition, amount)| _ = to.raw(partition).u128(*amount));
        to.list(self.supplies.iter(), |to, supply| {
            to.raw(&supply.partition).raw(&supply.supplier.0).u128(supply.amount).u64(supply.nonce);
        });
        to.list(self.exits.iter(), |to, exit| {
            to.raw(&exit.partition).raw(&exit.supplier.0).u64(exit.nonce);
        });
    }

    pub(crate) fn take(from: &mut Take<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            block: from.u64()?,
            nonce: from.u64()?,
            supplied: from.list(|from| Ok((from.array()?, from.u128()?)))?,
            supplies: from.list(|from| {
                let (partition, supplier) = (from.array()?, Address(from.array()?));
                Ok(Supply { partition, supplier, amount: from.u128()?, nonce: from.u64()? })
            })?,
            exits: from.list(|from| {
                let (partition, supplier) = (from.array()?, Address(from.array()?));
                Ok(ExitAsked { partition, supplier, nonce: from.u64()? })
            })?,
        })
    }
}
