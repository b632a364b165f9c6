//! How far the contract's events were read, and which of them still wait for the engine.

use std::collections::{BTreeMap, BTreeSet};

use chain::BackendError;
use chain::bindings::Manager::{GuaranteeCalled, GuaranteePaid, ManagerEvents, Supplied};
use settlement::Hash;
use surety_protocol::Address;

use crate::codec::{Damaged, Put, Take};
use crate::contract::{Holding, narrow};

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

/// A guarantee that the contract has paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaidOnChain {
    /// The on-chain id of the partition that has paid.
    pub partition: Hash,
    /// The lock's name on chain, whoever made it up.
    pub lock: Hash,
    /// In base units.
    pub amount: u128,
}

/// A call that waits to be answered or paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenCall {
    pub(crate) partition: Hash,
    /// What the certificate that was called states.
    pub(crate) amount: u128,
    /// What of it is owed after answers.
    pub(crate) owed: u128,
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
    /// Number of the last exit that was asked for, for each partition.
    pub(crate) exits_asked: BTreeMap<Hash, u64>,
    /// All that was ever paid by guarantee, for each partition.
    pub(crate) guaranteed: BTreeMap<Hash, u128>,
    /// Calls that wait on chain, by the lock's name.
    pub(crate) calls: BTreeMap<Hash, OpenCall>,
    /// Locks that were called, or whose call was answered, and of which the engine has not been told.
    pub(crate) touched: BTreeSet<Hash>,
    /// Guarantees that were paid and are not booked yet.
    pub(crate) paid: Vec<PaidOnChain>,
}

/// No number of a supply or an exit: what has a gap in it never adds up again.
const GAP: u64 = u64::MAX - 1;

impl Scan {
    /// Takes the contract's next event.
    pub(crate) fn read(&mut self, event: ManagerEvents) -> Result<(), BackendError> {
        match event {
            ManagerEvents::Supplied(event) => self.supply(&event)?,
            ManagerEvents::ExitRequested(event) => {
                let (partition, nonce) = (event.partition.0, narrow(event.nonce)?);
                follow(self.exits_asked.entry(partition).or_default(), nonce);
                let supplier = Address(event.supplier.into_array());
                self.exits.push(ExitAsked { partition, supplier, nonce });
            }
            ManagerEvents::GuaranteeCalled(event) => self.call(&event)?,
            ManagerEvents::GuaranteeReduced(event) => {
                let (lock, owed) = (event.lockId.0, narrow(event.owed)?);
                match self.calls.get_mut(&lock) {
                    Some(call) if owed > 0 => call.owed = owed,
                    // Of a call that was not told: whatever is missing shows in the sums.
                    _ => drop(self.calls.remove(&lock)),
                }
                self.touched.insert(lock);
            }
            ManagerEvents::GuaranteePaid(event) => self.pay(&event)?,
            _ => {}
        }
        Ok(())
    }

    /// True if a partition's events come to what the contract says of it.
    pub(crate) fn adds_up(&self, partition: &Hash, holding: &Holding) -> bool {
        let of = |sums: &BTreeMap<Hash, u128>| sums.get(partition).copied().unwrap_or(0);
        let calls = self.calls.values().filter(|call| call.partition == *partition);
        let called = calls.fold(0_u128, |sum, call| sum.saturating_add(call.owed));
        of(&self.supplied) == holding.supplied
            && of(&self.guaranteed) == holding.guaranteed
            && called == holding.called
            && self.exits_asked.get(partition).copied().unwrap_or(0) == holding.exits_asked
    }

    /// Every partition that an event was about.
    pub(crate) fn partitions(&self) -> BTreeSet<Hash> {
        let called = self.calls.values().map(|call| call.partition);
        let others = self.supplied.keys().chain(self.guaranteed.keys()).chain(self.exits_asked.keys());
        others.copied().chain(called).collect()
    }

    fn supply(&mut self, event: &Supplied) -> Result<(), BackendError> {
        let supply = Supply {
            partition: event.partition.0,
            supplier: Address(event.supplier.into_array()),
            amount: narrow(event.amount)?,
            nonce: narrow(event.nonce)?,
        };
        let sum = self.supplied.entry(supply.partition).or_default();
        *sum = sum.saturating_add(supply.amount);
        follow(&mut self.nonce, supply.nonce);
        self.supplies.push(supply);
        Ok(())
    }

    /// A later version takes the place of an earlier one.
    fn call(&mut self, event: &GuaranteeCalled) -> Result<(), BackendError> {
        let amount = narrow(event.amount)?;
        let call = OpenCall { partition: event.partition.0, amount, owed: amount };
        self.calls.insert(event.lockId.0, call);
        self.touched.insert(event.lockId.0);
        Ok(())
    }

    fn pay(&mut self, event: &GuaranteePaid) -> Result<(), BackendError> {
        let (partition, lock) = (event.partition.0, event.lockId.0);
        let amount: u128 = narrow(event.amount)?;
        let sum = self.guaranteed.entry(partition).or_default();
        *sum = sum.saturating_add(amount);
        self.calls.remove(&lock);
        self.paid.push(PaidOnChain { partition, lock, amount });
        Ok(())
    }

    pub(crate) fn write(&self, to: &mut Put) {
        to.u64(self.block).u64(self.nonce);
        to.list(self.supplied.iter(), |to, (partition, amount)| _ = to.raw(partition).u128(*amount));
        to.list(self.supplies.iter(), |to, supply| {
            to.raw(&supply.partition).raw(&supply.supplier.0).u128(supply.amount).u64(supply.nonce);
        });
        to.list(self.exits.iter(), |to, exit| {
            to.raw(&exit.partition).raw(&exit.supplier.0).u64(exit.nonce);
        });
        to.list(self.exits_asked.iter(), |to, (partition, nonce)| _ = to.raw(partition).u64(*nonce));
        to.list(self.guaranteed.iter(), |to, (partition, amount)| _ = to.raw(partition).u128(*amount));
        to.list(self.calls.iter(), |to, (lock, call)| {
            to.raw(lock).raw(&call.partition).u128(call.amount).u128(call.owed);
        });
        to.list(self.touched.iter(), |to, lock| _ = to.raw(lock));
        to.list(self.paid.iter(), |to, paid| paid.write(to));
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
            exits_asked: from.list(|from| Ok((from.array()?, from.u64()?)))?,
            guaranteed: from.list(|from| Ok((from.array()?, from.u128()?)))?,
            calls: from.list(|from| {
                let lock = from.array()?;
                Ok((lock, OpenCall { partition: from.array()?, amount: from.u128()?, owed: from.u128()? }))
            })?,
            touched: from.list(Take::array)?,
            paid: from.list(PaidOnChain::take)?,
        })
    }
}

impl PaidOnChain {
    pub(crate) fn write(&self, to: &mut Put) {
        to.raw(&self.partition).raw(&self.lock).u128(self.amount);
    }

    pub(crate) fn take(from: &mut Take<'_>) -> Result<Self, Damaged> {
        Ok(Self { partition: from.array()?, lock: from.array()?, amount: from.u128()? })
    }
}

/// Numbers come one after the other; a gap in them stays one.
const fn follow(last: &mut u64, next: u64) {
    *last = if next == last.wrapping_add(1) { next } else { GAP };
}
