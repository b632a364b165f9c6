//! Changing a lock: a copy is edited, then committed at once with its hash, its timers and its merchant's open value.

use surety_protocol::limits::ID_FUTURE_MAX;
use surety_protocol::{End, Kind, Time};

use crate::ledger::{Ledger, stale_at};
use crate::lock::{Ext, Lock, flag};
use crate::partition::{Money, Partition};
use crate::slab::NONE;

/// A lock that is being changed. Dropping it changes nothing.
pub(crate) struct Edit {
    pub(crate) slot: u32,
    pub(crate) lock: Lock,
    pub(crate) ext: Option<Ext>,
    pub(crate) partition: u32,
    was_live: bool,
    /// H + U of the partition before: the difference belongs to the lock's merchant.
    open_before: u128,
}

impl Edit {
    /// G.
    pub(crate) fn headroom(&self) -> u128 {
        self.ext.map_or(0, |ext| ext.headroom)
    }

    /// R.
    pub(crate) fn remaining(&self) -> u128 {
        self.lock.remaining(self.headroom())
    }

    /// The extension, made from the lock as it is if it has none. Get it before changing what was first answered.
    pub(crate) fn ext_mut(&mut self) -> &mut Ext {
        let lock = &self.lock;
        self.ext.get_or_insert_with(|| Ext {
            first_approved: lock.approved,
            first_deadline: lock.deadline,
            link: NONE,
            ..Ext::default()
        })
    }

    /// True if a certificate of the lock can still be claimed at `now`.
    pub(crate) fn is_claimable(&self, now: Time) -> bool {
        self.lock.has(flag::CERTIFIED)
            && self.ext.is_some_and(|ext| now < ext.claim_until || self.lock.has(flag::CALLED))
    }
}

impl Ledger {
    pub(crate) fn edit(&self, slot: u32) -> Edit {
        let lock = *self.locks.get(slot);
        let ext = (lock.ext != NONE).then(|| *self.exts.get(lock.ext));
        let partition = self.account(lock.account).partition;
        let money = &self.partitions[partition as usize].money;
        let open_before = money.held + money.captured;
        Edit { slot, lock, ext, partition, was_live: lock.is_live(), open_before }
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
        if edit.is_claimable(self.time) {
            edit.ext_mut().pending += amount;
            self.money(edit).pending += amount;
            0
        } else {
            self.money(edit).credit(amount);
            amount
        }
    }

    /// Gives back what a live lock still holds. Says what it was and what of it went to F.
    pub(crate) fn give_back_rest(&mut self, edit: &mut Edit) -> (u128, u128) {
        let rest = edit.remaining();
        edit.lock.released += rest;
        self.money(edit).held -= rest;
        (rest, self.give_back(edit, rest))
    }

    /// Puts the changed lock in its place.
    pub(crate) fn commit(&mut self, edit: &mut Edit) {
        edit.lock.touch();
        if !edit.lock.is_live() {
            let kept =
                if edit.was_live { self.kept_after_end(&edit.lock, edit.partition) } else { edit.lock.since };
            edit.lock.since = kept.max(self.kept_after_change()).max(kept_for_the_chain(edit));
            let since = edit.lock.since;
            self.arm(edit.slot, &mut edit.lock, since);
        }
        if let Some(ext) = &mut edit.ext {
            if edit.lock.is_live() && edit.lock.has(flag::QUOTE) {
                ext.base = edit.lock.total();
            }
            if ext.pending > 0 && !edit.lock.has(flag::CALLED) {
                self.arm(edit.slot, &mut edit.lock, ext.claim_until);
            }
            self.put_ext(&mut edit.lock, ext);
        }
        self.hash_out(self.lock_hash(self.locks.get(edit.slot)));
        self.hash_in(self.lock_hash(&edit.lock));
        *self.locks.get_mut(edit.slot) = edit.lock;
        self.settle_open(edit.partition, &edit.lock, edit.open_before);
        self.touched(edit.partition);
    }

    /// Books what an operation on a lock has changed of its merchant's open value.
    pub(crate) fn settle_open(&mut self, partition: u32, lock: &Lock, before: u128) {
        let partition = &self.partitions[partition as usize];
        if partition.tracks_merchants {
            let after = partition.money.held + partition.money.captured;
            self.move_open(lock.account, lock.merchant, before, after);
        }
    }

    fn put_ext(&mut self, lock: &mut Lock, ext: &Ext) {
        if lock.ext == NONE {
            lock.ext = self.exts.insert(*ext);
        } else {
            self.hash_out(self.ext_hash(lock.account, lock.id, self.exts.get(lock.ext)));
            *self.exts.get_mut(lock.ext) = *ext;
        }
        self.hash_in(self.ext_hash(lock.account, lock.id, ext));
    }

    /// Until when a lock that ends now stays: its partition's windows, and until its id is stale.
    pub(crate) fn kept_after_end(&self, lock: &Lock, partition: u32) -> Time {
        let retention = self.partitions[partition as usize].policy.retention();
        let stale = stale_at(lock.id, Kind::Lock, self.config.id_window);
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

/// Until when the chain may still call a lock's guarantee, whatever has become of its collateral.
fn kept_for_the_chain(edit: &Edit) -> Time {
    match edit.ext {
        Some(ext) if edit.lock.has(flag::CERTIFIED) => ext.claim_until,
        _ => Time::ZERO,
    }
}

/// The next whole millisecond: every moment that is waited for is one.
pub(crate) const fn on_grid(time: Time) -> Time {
    let ms = time.0.div_ceil(1_000_000);
    Time(ms.saturating_mul(1_000_000))
}
