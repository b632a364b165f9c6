//! Changing a lock: it is taken out of the hash, changed in place, and committed with its hash, its timers and its
//! merchant's open value. Every edit is committed.

use surety_protocol::limits::ID_FUTURE_MAX;
use surety_protocol::{End, Kind, Time, sabotage};

use crate::ledger::{Ledger, stale_at};
use crate::lock::{Ext, Lock, flag};
use crate::partition::{Money, Partition};
use crate::slab::NONE;

/// A lock that is being changed. It is not copied: what has just been written in small parts is slow to read in large ones.
pub(crate) struct Edit {
    pub(crate) slot: u32,
    /// A copy, for the few locks that have one.
    pub(crate) ext: Option<Ext>,
    pub(crate) partition: u32,
    was_live: bool,
    /// H + U of the partition before: the difference belongs to the lock's merchant.
    open_before: u128,
}

impl Ledger {
    /// Begins to change a lock. Whoever does commits.
    pub(crate) fn edit(&mut self, slot: u32) -> Edit {
        let lock = self.locks.get(slot);
        let ext = (lock.ext != NONE).then(|| *self.exts.get(lock.ext));
        let partition = self.account(lock.account).partition;
        let money = &self.partitions[partition as usize].money;
        let open_before = money.held + money.captured;
        let was_live = lock.is_live();
        self.hash_out(self.lock_hash(lock));
        Edit { slot, ext, partition, was_live, open_before }
    }

    pub(crate) fn edited(&self, edit: &Edit) -> &Lock {
        self.locks.get(edit.slot)
    }

    pub(crate) fn lock_mut(&mut self, edit: &Edit) -> &mut Lock {
        self.locks.get_mut(edit.slot)
    }

    /// The extension, made from the lock as it is if it has none. Get it before changing what was first answered.
    pub(crate) fn ext_of<'a>(&self, edit: &'a mut Edit) -> &'a mut Ext {
        let lock = self.locks.get(edit.slot);
        edit.ext.get_or_insert_with(|| Ext {
            first_approved: lock.approved,
            first_deadline: lock.deadline,
            link: NONE,
            ..Ext::default()
        })
    }

    /// R.
    pub(crate) fn rest(&self, edit: &Edit) -> u128 {
        self.edited(edit).remaining(edit.ext.as_ref().map_or(0, |ext| ext.headroom))
    }

    /// True if a certificate of the lock can still be claimed.
    fn is_claimable(&self, edit: &Edit) -> bool {
        let lock = self.edited(edit);
        let until = edit.ext.as_ref().map_or(Time::ZERO, |ext| ext.claim_until);
        lock.has(flag::CERTIFIED) && (self.time < until || lock.has(flag::CALLED))
    }

    pub(crate) fn money(&mut self, edit: &Edit) -> &mut Money {
        &mut self.partitions[edit.partition as usize].money
    }

    pub(crate) fn partition_of(&self, edit: &Edit) -> &Partition {
        &self.partitions[edit.partition as usize]
    }

    /// Sends what has left H or U where it belongs: to P while a certificate can be claimed, else to F. Says what went to F.
    pub(crate) fn give_back(&mut self, edit: &mut Edit, amount: u128) -> u128 {
        if amount == 0 {
            return 0;
        }
        if self.is_claimable(edit) && !sabotage!("certified-collateral-freed-at-once") {
            self.ext_of(edit).pending += amount;
            self.money(edit).pending += amount;
            0
        } else {
            self.money(edit).credit(amount);
            amount
        }
    }

    /// Gives back what a live lock still holds. Says what it was and what of it went to F.
    pub(crate) fn give_back_rest(&mut self, edit: &mut Edit) -> (u128, u128) {
        let leaked =
            if sabotage!("headroom-leaks") { edit.ext.as_ref().map_or(0, |ext| ext.headroom) } else { 0 };
        let rest = self.rest(edit) - leaked;
        self.lock_mut(edit).released += rest;
        self.money(edit).held -= rest;
        (rest, self.give_back(edit, rest))
    }

    /// Ends an edit.
    pub(crate) fn commit(&mut self, edit: &mut Edit) {
        self.lock_mut(edit).touch();
        if !self.edited(edit).is_live() {
            if edit.was_live {
                self.uncount_live(self.edited(edit).account);
            }
            let lock = self.edited(edit);
            let kept = if edit.was_live { self.kept_after_end(lock, edit.partition) } else { lock.since };
            let since = kept.max(self.kept_after_change()).max(self.kept_for_the_chain(edit));
            self.lock_mut(edit).since = since;
            self.arm(edit.slot, since);
        }
        if edit.ext.is_some() {
            self.put_ext(edit);
        }
        self.hash_in(self.lock_hash(self.edited(edit)));
        self.settle_open(edit.partition, edit.slot, edit.open_before);
        self.touched(edit.partition);
        if self.is_suspended(edit.partition) {
            self.arm_suspended(edit.slot);
        }
    }

    /// Books what an operation on a lock has changed of its merchant's open value.
    pub(crate) fn settle_open(&mut self, partition: u32, slot: u32, before: u128) {
        let partition = &self.partitions[partition as usize];
        if partition.tracks_merchants {
            let after = partition.money.held + partition.money.captured;
            let (account, merchant) = (self.locks.get(slot).account, self.locks.get(slot).merchant);
            self.move_open(account, merchant, before, after);
        }
    }

    #[cold]
    fn put_ext(&mut self, edit: &mut Edit) {
        let lock = *self.edited(edit);
        let Some(ext) = &mut edit.ext else { return };
        if lock.is_live() && lock.has(flag::QUOTE) {
            ext.base = lock.total();
        }
        let (ext, slot) = (*ext, edit.slot);
        if ext.pending > 0 && !lock.has(flag::CALLED) {
            self.arm(slot, ext.claim_until);
        }
        if lock.ext == NONE {
            self.locks.get_mut(slot).ext = self.exts.insert(ext);
        } else {
            self.hash_out(self.ext_hash(lock.account, lock.id, self.exts.get(lock.ext)));
            *self.exts.get_mut(lock.ext) = ext;
        }
        self.hash_in(self.ext_hash(lock.account, lock.id, &ext));
    }

    /// Until when the chain may still call a lock's guarantee, whatever has become of its collateral.
    fn kept_for_the_chain(&self, edit: &Edit) -> Time {
        match &edit.ext {
            Some(ext) if self.edited(edit).has(flag::CERTIFIED) => ext.claim_until,
            _ => Time::ZERO,
        }
    }

    /// Until when a lock that ends now stays: its partition's windows, and until its id is stale.
    pub(crate) fn kept_after_end(&self, lock: &Lock, partition: u32) -> Time {
        let retention = self.partitions[partition as usize].policy.retention();
        let stale = stale_at(lock.id, Kind::Lock, false, self.config.id_window);
        on_grid(self.time.plus(retention)).max(stale).max(self.kept_after_change())
    }

    /// Until when a lock that changes now stays, so that a repeat of the change finds it.
    fn kept_after_change(&self) -> Time {
        on_grid(self.time.plus(self.config.id_window).plus(ID_FUTURE_MAX)).plus(Time::from_millis(1))
    }

    /// True if nothing of a lock is needed any more.
    pub(crate) fn is_forgettable(&self, lock: &Lock) -> bool {
        !lock.is_live()
            && lock.since <= self.time
            && self.open_of(lock) == 0
            && (lock.ext == NONE || self.exts.get(lock.ext).pending == 0)
            && !lock.has(flag::CALLED)
            && lock.end != End::None
    }
}

/// The next whole millisecond: every moment that is waited for is one.
pub(crate) const fn on_grid(time: Time) -> Time {
    let ms = time.0.div_ceil(1_000_000);
    Time(ms.saturating_mul(1_000_000))
}
