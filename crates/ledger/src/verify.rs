//! Every invariant, from scratch: nothing is believed that can be added up.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use surety_protocol::{Id, PartitionHandle};

use crate::entry::small_hash;
use crate::index::Found;
use crate::ledger::Ledger;
use crate::lock::{Capture, Ext, Lock, flag};
use crate::op::Quota;
use crate::partition::Partition;
use crate::slab::NONE;
use crate::state::Violation;

/// What the locks of a partition add up to.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    held: u128,
    captured: u128,
    pending: u128,
}

/// Where something is checked.
#[derive(Clone, Copy)]
struct Place {
    partition: PartitionHandle,
    lock: Option<Id>,
}

impl Place {
    fn check(self, invariant: &'static str, expected: u128, found: u128) -> Result<(), Violation> {
        if expected == found {
            return Ok(());
        }
        Err(Violation { invariant, partition: self.partition, lock: self.lock, expected, found })
    }

    fn check_at_most(self, invariant: &'static str, limit: u128, found: u128) -> Result<(), Violation> {
        self.check(invariant, found.min(limit), found)
    }

    /// A sum over entries, which a snapshot may have made as large as it likes.
    fn sum(self, invariant: &'static str, parts: impl IntoIterator<Item = u128>) -> Result<u128, Violation> {
        let add = |sum: u128, part: u128| sum.checked_add(part).ok_or((sum, part));
        parts.into_iter().try_fold(0, add).map_err(|(expected, found)| Violation {
            invariant,
            partition: self.partition,
            lock: self.lock,
            expected,
            found,
        })
    }
}

/// Nothing overflows.
const FITS: &str = "amounts and their sums fit";

impl Ledger {
    /// Checks every invariant from scratch.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn verify(&self) -> Result<(), Violation> {
        let mut sums = vec![Sums::default(); self.partitions.len()];
        let mut open: BTreeMap<(u32, u64), u128> = BTreeMap::new();
        let mut counts = vec![[0_u64; 5]; self.tenants.len()];
        let mut hash = small_hash(self);
        let mut live = 0;
        for slot in self.lock_slots() {
            let lock = self.locks.get(slot);
            hash = hash.wrapping_add(self.verify_lock(slot, lock, &mut sums, &mut open)?);
            let counts = &mut counts[self.account(lock.account).tenant_slot as usize];
            counts[0] += 1;
            counts[4] += u64::from(lock.is_live());
            live += usize::from(lock.is_live());
        }
        for slot in self.op_slots() {
            let op = self.ops.get(slot);
            hash = hash.wrapping_add(self.op_hash(op));
            let column = match op.quota() {
                Quota::Ids => 1,
                Quota::Tombstones => 2,
                Quota::Advices => 3,
            };
            counts[self.account(op.account).tenant_slot as usize][column] += 1;
        }
        for (partition, sums) in self.partitions.iter().zip(&sums).skip(1) {
            verify_partition(partition, sums)?;
        }
        self.verify_counts(&counts)?;
        self.verify_open(&open)?;
        let everywhere = Place { partition: PartitionHandle::new(self.config.shard, 0), lock: None };
        everywhere.check("live locks counted", live as u128, self.live as u128)?;
        everywhere.check("the state hash is the sum over all entries", hash, self.state_hash())
    }

    fn verify_lock(
        &self,
        slot: u32,
        lock: &Lock,
        sums: &mut [Sums],
        open: &mut BTreeMap<(u32, u64), u128>,
    ) -> Result<u128, Violation> {
        let account = self.account(lock.account);
        let place = Place { partition: account.handle, lock: Some(Id(lock.id)) };
        let is_found = self.find(lock.account, lock.id) == Some(Found::Lock(slot));
        place.check("one effect per key", 1, u128::from(is_found))?;
        let ext = if lock.ext == NONE { Ext::default() } else { *self.exts.get(lock.ext) };
        let gone = place.sum(FITS, [lock.captured, lock.released])?;
        let given = place.sum(FITS, [lock.approved, ext.headroom])?;
        place.check_at_most("C + V + E <= A + G", given, gone)?;
        let remaining = lock.remaining(ext.headroom);
        if lock.is_live() {
            place.check("a live lock has not expired", 0, u128::from(lock.has(flag::EXPIRED)))?;
        } else {
            place.check("an ended lock holds nothing", 0, remaining)?;
        }
        let captures: Vec<_> = self.capture_slots(lock).map(|slot| *self.captures.get(slot)).collect();
        place.check("captures counted", u128::from(lock.count), captures.len() as u128)?;
        let total = place.sum(FITS, captures.iter().flat_map(Capture::parts).chain([ext.paid]))?;
        place.check("C = sum of captures + paid without one", lock.captured, total)?;
        let captured = place.sum(FITS, captures.iter().map(|capture| capture.open))?;
        let sums = &mut sums[account.partition as usize];
        sums.held = place.sum(FITS, [sums.held, remaining])?;
        sums.captured = place.sum(FITS, [sums.captured, captured])?;
        sums.pending = place.sum(FITS, [sums.pending, ext.pending])?;
        let at_stake = place.sum(FITS, [remaining, captured])?;
        if self.partitions[account.partition as usize].tracks_merchants && at_stake > 0 {
            let open = open.entry((lock.account, lock.merchant.0)).or_default();
            *open = place.sum(FITS, [*open, at_stake])?;
        }
        let mut hash = self.lock_hash(lock);
        if lock.ext != NONE {
            hash = hash.wrapping_add(self.ext_hash(lock.account, lock.id, &ext));
        }
        let capture_hash = |capture| self.capture_hash(lock.account, lock.id, capture);
        Ok(captures.iter().fold(hash, |hash, capture| hash.wrapping_add(capture_hash(capture))))
    }

    fn verify_counts(&self, counts: &[[u64; 5]]) -> Result<(), Violation> {
        let place = Place { partition: PartitionHandle::new(self.config.shard, 0), lock: None };
        for (tenant, counts) in self.tenants.iter().zip(counts) {
            let kept = [tenant.locks, tenant.ids, tenant.tombstones, tenant.advices, tenant.open_locks];
            for (expected, found) in counts.iter().zip(kept) {
                place.check("a tenant's use of its quotas", u128::from(*expected), u128::from(found))?;
            }
        }
        let ids: u64 = counts.iter().map(|counts| counts[1] + counts[2] + counts[3]).sum();
        place.check("ids counted", u128::from(ids), self.ops.len() as u128)?;
        place.check("index", (self.locks.len() + self.ops.len()) as u128, self.index.len() as u128)
    }

    fn verify_open(&self, open: &BTreeMap<(u32, u64), u128>) -> Result<(), Violation> {
        let place = Place { partition: PartitionHandle::new(self.config.shard, 0), lock: None };
        place.check("merchants with open value", open.len() as u128, self.open.len() as u128)?;
        for (key, expected) in open {
            let place = Place { partition: self.account(key.0).handle, lock: None };
            let found = self.open.get(key).copied().unwrap_or(0);
            place.check("a merchant's open value", *expected, found)?;
        }
        Ok(())
    }
}

fn verify_partition(partition: &Partition, sums: &Sums) -> Result<(), Violation> {
    let place = Place { partition: partition.handle, lock: None };
    let money = &partition.money;
    place.check("sum of R over locks = H", sums.held, money.held)?;
    place.check("sum of u over captures = U", sums.captured, money.captured)?;
    place.check("sum over certified locks = P", sums.pending, money.pending)?;
    let left = money.on_chain + money.deficit;
    place.check("K + D = F + H + U + P + W", left, money.free + money.at_risk())?;
    place.check_at_most("H + U + P + W <= K + D", left, money.at_risk())?;
    if money.deficit > 0 {
        place.check("a deficit leaves nothing free", 0, money.free)?;
    }
    let units = place.sum(FITS, partition.positions.values().map(|position| position.units))?;
    place.check("units are their positions' sum", units, partition.units)?;
    let queued = place.sum(FITS, partition.queue.iter().map(|queued| queued.units))?;
    place.check("queued units are the queue's sum", queued, partition.units_queued())?;
    let waiting = place.sum(FITS, partition.positions.values().map(|position| position.queued))?;
    place.check("queued units are their positions' sum", queued, waiting)?;
    let is_over = |position: &&crate::partition::Position| position.queued > position.units;
    let over = partition.positions.values().filter(is_over).count();
    place.check("nobody queues more than there is", 0, over as u128)?;
    let worth = partition.value_of(partition.units);
    let locked = money.free + money.locked();
    place.check_at_most("units x unit value <= F + H + U + P", locked, worth)
}
