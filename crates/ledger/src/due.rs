//! What time alone does: forgetting, which is a function of time and not logged, and the records that are due.

use alloc::vec::Vec;
use core::cmp::Reverse;

use surety_protocol::limits::DUE_RECORDS_PER_TURN_MAX;
use surety_protocol::{
    ALL_CAPTURES, ActorId, Amount, ChangeBody, Code, ConsumeBody, End, Id, Kind, Record, Seq, SettleByAction,
    StakeBody, Time, sabotage,
};

use crate::ledger::{FOLLOW_MAX, Ledger};
use crate::lock::{Armed, Lock, flag};
use crate::slab::NONE;

/// Something that time does to a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The deadline has passed (row 18).
    Expire,
    /// The settle-by time of a capture has passed (row 24).
    SettleBy(u8),
    /// No certificate can be claimed any more.
    Mature,
}

impl Ledger {
    /// Time moves on: forgets, and finds out what is due.
    pub(crate) fn tick(&mut self, now: Time) {
        if now <= self.time {
            return;
        }
        let last_ms = self.time.0 / 1_000_000;
        self.time = now;
        let ms = self.time.0 / 1_000_000;
        // Everything waits for a whole millisecond.
        if ms <= last_ms {
            return;
        }
        while let Some((node, at)) = self.lock_ring.pop(&mut self.nodes, ms) {
            let slot = self.nodes.get(node).slot;
            self.nodes.remove(node);
            self.look_at(slot, at);
        }
        while let Some((slot, _)) = self.op_ring.pop(&mut self.ops, ms) {
            let op = *self.ops.get(slot);
            let forgotten_at = op.forgotten_at_ms(self.config.id_window);
            if forgotten_at <= ms {
                self.remove_op(slot);
            } else {
                self.op_ring.push(&mut self.ops, slot, forgotten_at);
            }
        }
        while let Some(Reverse((due, slot))) = self.unbonding.peek().copied() {
            if due > self.time {
                break;
            }
            self.unbonding.pop();
            self.make_ready(slot);
        }
    }

    /// The ring has come to a lock.
    fn look_at(&mut self, slot: u32, at: u64) {
        let lock = *self.locks.get(slot);
        if lock.end == End::None || lock.armed.is_past(at) {
            return;
        }
        if self.is_forgettable(&lock) {
            self.remove_lock(slot);
        } else {
            self.arm_next(slot);
        }
    }

    /// Puts a lock among what is due, or into the ring at its next moment.
    pub(crate) fn arm_next(&mut self, slot: u32) {
        let lock = *self.locks.get(slot);
        self.locks.get_mut(slot).armed = Armed::NO;
        match self.next_action(&lock) {
            Some((when, _)) if when <= self.time => self.make_due(slot, &lock, when),
            Some((when, _)) => self.arm(slot, when),
            // Not forgettable although its time is past: what keeps it will arm it again.
            None if !lock.is_live() && lock.since > self.time => self.arm(slot, lock.since),
            None => {}
        }
    }

    /// Puts a lock among what is due, or aside if time does nothing to its partition.
    fn make_due(&mut self, slot: u32, lock: &Lock, when: Time) {
        let partition = self.account(lock.account).partition;
        if !self.is_suspended(partition) {
            self.locks.get_mut(slot).armed = Armed::DUE;
            self.due.push(Reverse((when, lock.id, slot)));
            return;
        }
        self.locks.get_mut(slot).armed = Armed::SUSPENDED;
        if lock.armed != Armed::SUSPENDED {
            self.partition_mut(partition).suspended.push((slot, lock.id));
        }
    }

    /// An operator's change of a lock that is due, or put aside, may have made it neither: its arming is a function of its state, in
    /// replay and out of a snapshot as well.
    #[cold]
    pub(crate) fn arm_suspended(&mut self, slot: u32) {
        let armed = self.locks.get(slot).armed;
        if matches!(armed, Armed::DUE | Armed::SUSPENDED) && !sabotage!("suspended-lock-not-armed-again") {
            self.arm_next(slot);
        }
    }

    /// What time does next to a lock, and when.
    fn next_action(&self, lock: &Lock) -> Option<(Time, Action)> {
        if lock.has(flag::CALLED) {
            return None;
        }
        let early = Time::from_millis(u64::from(sabotage!("expires-a-millisecond-early")));
        let expire = lock.is_live().then_some((lock.deadline.minus(early), Action::Expire));
        let settle_by = self
            .capture_slots(lock)
            .map(|slot| self.captures.get(slot))
            .filter(|capture| capture.open > 0 && capture.settle_by > Time::ZERO)
            .map(|capture| (capture.settle_by, Action::SettleBy(capture.index)))
            .min_by_key(|(when, action)| match action {
                Action::SettleBy(index) => (*when, *index),
                _ => (*when, 0),
            });
        let mature = (lock.ext != NONE)
            .then(|| self.exts.get(lock.ext))
            .filter(|ext| ext.pending > 0)
            .map(|ext| (ext.claim_until, Action::Mature));
        [expire, settle_by, mature].into_iter().flatten().min_by_key(|(when, _)| *when)
    }

    /// True if time should already have changed the lock: only while the engine is behind.
    pub(crate) fn is_overdue(&self, lock: &Lock) -> bool {
        lock.armed == Armed::DUE
            && !self.is_suspended(self.account(lock.account).partition)
            && self.next_action(lock).is_some_and(|(when, _)| when <= self.time)
    }

    /// Applies and writes down what is due. True if there is more.
    pub(crate) fn log_what_is_due(&mut self, next_seq: Seq, out: &mut Vec<Record>) -> bool {
        debug_assert!(next_seq.0 > 0, "logs count from 1");
        let limit = out.len() + DUE_RECORDS_PER_TURN_MAX;
        if sabotage!("nothing-expires") {
            return false;
        }
        let mut room = limit - out.len();
        while out.len() < limit {
            let Some((slot, action)) = self.pop_due(&mut room) else { break };
            let record = self.fire(slot, action);
            out.push(record);
            self.arm_next(slot);
            let partition = self.account(self.locks.get(slot).account).partition;
            self.pay(partition, out, limit);
            if self.is_payable(partition) {
                self.make_ready(partition);
            }
        }
        let mut waiting = core::mem::take(&mut self.ready);
        waiting.retain(|slot| {
            self.pay(*slot, out, limit);
            self.partitions[*slot as usize].is_ready = self.is_payable(*slot);
            if !self.is_payable(*slot) {
                self.watch_queue(*slot);
            }
            self.partitions[*slot as usize].is_ready
        });
        // Paying makes nothing else ready.
        self.ready.append(&mut waiting);
        !self.due.is_empty() || !self.ready.is_empty()
    }

    /// Takes the first thing that is due, if it still is. What is put aside takes `room`, so that a turn does not do it all at once.
    fn pop_due(&mut self, room: &mut usize) -> Option<(u32, Action)> {
        while *room > 0 {
            let Reverse((when, id, slot)) = self.due.pop()?;
            let lock = self.locks.get(slot);
            if lock.end == End::None || lock.id != id || lock.armed != Armed::DUE {
                continue;
            }
            let partition = self.account(lock.account).partition;
            if self.is_suspended(partition) {
                self.arm_next(slot);
                *room -= 1;
                continue;
            }
            match self.next_action(lock) {
                Some((at, action)) if at <= when => return Some((slot, action)),
                // A change has put it off.
                _ => self.arm_next(slot),
            }
        }
        None
    }

    /// Drops what is no longer due from the front; true if something is left. For replay, where the log says what happens.
    pub(crate) fn has_due(&mut self) -> bool {
        let mut room = usize::MAX;
        match self.pop_due(&mut room) {
            None => false,
            Some((slot, _)) => {
                self.arm_next(slot);
                true
            }
        }
    }

    /// Whether the log may say now that time did this to a lock.
    pub(crate) fn may_fire(&self, slot: u32, action: Action) -> bool {
        let lock = self.locks.get(slot);
        let is_past = |when: Time| when <= self.time;
        if lock.has(flag::CALLED) || self.is_suspended(self.account(lock.account).partition) {
            return false;
        }
        match action {
            Action::Expire => lock.is_live() && is_past(lock.deadline),
            Action::Mature => {
                lock.ext != NONE && {
                    let ext = self.exts.get(lock.ext);
                    ext.pending > 0 && is_past(ext.claim_until)
                }
            }
            Action::SettleBy(index) => self
                .capture_slot(lock, u16::from(index))
                .map(|slot| self.captures.get(slot))
                .is_some_and(|capture| {
                    capture.open > 0 && capture.settle_by > Time::ZERO && is_past(capture.settle_by)
                }),
        }
    }

    /// Does to a lock what is due, and writes it down.
    pub(crate) fn fire(&mut self, slot: u32, action: Action) -> Record {
        match action {
            Action::Expire => self.expire(slot),
            Action::Mature => self.mature(slot),
            Action::SettleBy(index) => self.settle_by(slot, index),
        }
    }

    fn expire(&mut self, slot: u32) -> Record {
        let edit = &mut self.edit(slot);
        let rest = self.rest(edit);
        self.expired += 1;
        self.lock_mut(edit).end = End::Expired;
        self.lock_mut(edit).flags |= flag::EXPIRED;
        self.money(edit).held -= rest;
        let freed = self.give_back(edit, rest);
        let deadline = self.edited(edit).deadline;
        self.commit(edit);
        self.written(slot, Kind::Expire, rest, freed, ALL_CAPTURES, deadline)
    }

    fn mature(&mut self, slot: u32) -> Record {
        let edit = &mut self.edit(slot);
        let ext = self.ext_of(edit);
        let pending = core::mem::take(&mut ext.pending);
        let until = ext.claim_until;
        self.money(edit).pending -= pending;
        self.money(edit).credit(pending);
        self.commit(edit);
        self.written(slot, Kind::Mature, pending, pending, ALL_CAPTURES, until)
    }

    fn settle_by(&mut self, slot: u32, index: u8) -> Record {
        let lock = self.locks.get(slot);
        let partition = self.account(lock.account).partition;
        // Nobody can be paid for a lock that names nobody: then the payer's asset counts as final.
        let action = self.partitions[partition as usize].policy.settle_by_action();
        if action == SettleByAction::Consume && lock.merchant.0 != 0 {
            return self.auto_consume(slot, index);
        }
        let deadline = self.settle_by_of(slot, index);
        let edit = &mut self.edit(slot);
        let (settled, freed) = self.settle_capture(edit, u16::from(index));
        self.commit(edit);
        self.written(slot, Kind::AutoSettle, settled, freed, u16::from(index), deadline)
    }

    fn settle_by_of(&self, slot: u32, index: u8) -> Time {
        self.capture_slot(self.locks.get(slot), u16::from(index))
            .map_or(Time::ZERO, |capture| self.captures.get(capture).settle_by)
    }

    fn auto_consume(&mut self, slot: u32, index: u8) -> Record {
        let edit = &mut self.edit(slot);
        let consumed = self.consume_capture(edit, u16::from(index));
        let (merchant, account, lock) =
            (self.edited(edit).merchant, self.edited(edit).account, self.edited(edit).id);
        self.commit(edit);
        let body = ConsumeBody {
            lock: Id(lock),
            freed: consumed.freed,
            merchant,
            user: 0,
            actor: ActorId(0),
            capture: u16::from(index),
            reserved: 0,
        };
        let handle = self.account(account).handle;
        let mut record = Record::new(Kind::AutoConsume, Id(lock), handle, Amount(consumed.paid), &body);
        record.flags = consumed.flags.0;
        self.stamp(record, account, consumed.paid)
    }

    /// The record of something that time did to a lock.
    fn written(
        &self,
        slot: u32,
        kind: Kind,
        result: u128,
        freed: u128,
        capture: u16,
        deadline: Time,
    ) -> Record {
        let lock = self.locks.get(slot);
        let body = ChangeBody {
            lock: Id(lock.id),
            freed: signed(freed),
            deadline,
            user: 0,
            life_ms_or_actor: 0,
            capture,
            version: self.version(lock),
        };
        let handle = self.account(lock.account).handle;
        let record = Record::new(kind, Id(lock.id), handle, Amount(result), &body);
        self.stamp(record, lock.account, result)
    }

    fn stamp(&self, mut record: Record, account: u32, result: u128) -> Record {
        record.result = Amount(result);
        record.time = self.time;
        record.tenant = self.account(account).tenant;
        record.code = Code::Approved as u8;
        record
    }
}

// Queued withdrawals.
impl Ledger {
    /// Whether the oldest queued withdrawal can be paid now.
    pub(crate) fn is_payable(&self, slot: u32) -> bool {
        let partition = &self.partitions[slot as usize];
        partition.queue.front().is_some_and(|queued| {
            queued.due <= self.time
                && !partition.stops_locks()
                && !self.is_suspended(slot)
                && partition.money.free >= partition.value_of(queued.units)
        })
    }

    /// Pays queued withdrawals, oldest first, until `out` is full.
    fn pay(&mut self, slot: u32, out: &mut Vec<Record>, limit: usize) {
        while out.len() < limit && self.is_payable(slot) {
            if let Some(record) = self.pay_front(slot) {
                out.push(record);
            }
        }
    }

    /// Pays the oldest queued withdrawal, which is payable.
    pub(crate) fn pay_front(&mut self, slot: u32) -> Option<Record> {
        let partition = self.partition_mut(slot);
        let queued = partition.queue.pop_front()?;
        let front = partition.queue_front;
        partition.queue_front += 1;
        let value = partition.value_of(queued.units);
        partition.queue_paid = partition.queue_paid.wrapping_add(queued.units);
        partition.units -= queued.units;
        partition.money.free -= value;
        partition.money.owed += value;
        let handle = partition.handle;
        self.queued -= 1;
        self.hash_out(self.queued_hash(slot, front, &queued));
        self.edit_position(slot, &queued.supplier, |position| {
            position.units -= queued.units;
            position.queued -= queued.units;
        });
        self.touched(slot);
        self.watch_queue(slot);
        let body = StakeBody {
            units: queued.units,
            supplier: queued.supplier,
            actor: ActorId(0),
            nonce: 0,
            due: queued.due,
        };
        let mut record = Record::new(Kind::WithdrawPaid, queued.id, handle, Amount(queued.units), &body);
        record.result = Amount(value);
        record.time = self.time;
        record.tenant = queued.tenant;
        record.code = Code::Approved as u8;
        Some(record)
    }

    /// After an operation: pays what its credits have made payable.
    pub(crate) fn pay_what_became_due(&mut self, records: &[Record], follow: &mut Vec<Record>) {
        let limit = follow.len() + FOLLOW_MAX;
        for record in records {
            let Some(slot) = self.partition_slot(record.partition) else { continue };
            if self.partitions[slot as usize].queue.is_empty() {
                continue;
            }
            self.pay(slot, follow, limit);
            if self.is_payable(slot) {
                self.make_ready(slot);
                self.is_behind = true;
            }
        }
    }

    pub(crate) fn make_ready(&mut self, slot: u32) {
        let partition = self.partition_mut(slot);
        if !partition.is_ready {
            partition.is_ready = true;
            self.ready.push(slot);
        }
    }

    /// Waits for the oldest queued withdrawal if it is not yet due.
    pub(crate) fn watch_queue(&mut self, slot: u32) {
        let front = self.partitions[slot as usize].queue.front().map(|queued| queued.due);
        if let Some(due) = front.filter(|due| *due > self.time) {
            self.unbonding.push(Reverse((due, slot)));
        }
    }
}

/// An amount as a signed one; amounts stay far below the limit.
pub(crate) fn signed(amount: u128) -> i128 {
    i128::try_from(amount).unwrap_or(i128::MAX)
}
