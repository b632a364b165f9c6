//! Linked chains: all or none.
//!
//! What the members can touch is known beforehand: their partitions, the locks and ids that they name, their merchants'
//! open values, their tenants' counts. These are saved, the members executed, and if one fails everything is put back and
//! every member is recorded as declined. The hot path knows nothing of it.

use alloc::vec;
use alloc::vec::Vec;

use surety_protocol::{Code, Id, Kind, LockBody, Record, Reply, Seq};

use super::{Ask, Outcome, Refusal, Source, lock_named};
use crate::index::Found;
use crate::ledger::{Decision, Ledger, Tenant};
use crate::lock::{Capture, Ext, Lock};
use crate::op::Op;
use crate::partition::Money;
use crate::slab::NONE;

/// What a chain may have to put back.
#[derive(Default)]
struct Saved {
    sum: u128,
    locks: Vec<SavedLock>,
    ops: Vec<(u32, Op)>,
    /// Ids under which there was nothing.
    absent: Vec<(u32, u128)>,
    partitions: Vec<SavedPartition>,
    open: Vec<((u32, u64), Option<u128>)>,
    tenants: Vec<(u32, Tenant)>,
}

struct SavedLock {
    slot: u32,
    lock: Lock,
    ext: Option<Ext>,
    captures: Vec<(u32, Capture)>,
}

struct SavedPartition {
    slot: u32,
    money: Money,
    window: u64,
    window_count: u32,
    window_value: u128,
    fees: u128,
}

impl Ledger {
    pub(super) fn decide_chain(
        &mut self,
        source: Source,
        first_seq: Seq,
        records: &mut [Record],
        replies: &mut Vec<Reply>,
    ) -> Result<Decision, Refusal> {
        let (asks, repeated) = self.examine_members(source, first_seq, records)?;
        if repeated.iter().all(Option::is_some) {
            for (record, found) in records.iter().zip(repeated.iter().flatten()) {
                self.repeat(record, *found, replies);
            }
            return Ok(Decision::NotLogged);
        }
        if let Some(member) = repeated.iter().position(Option::is_some) {
            // A chain is repeated whole, or it is another chain.
            return Err(Refusal { member, code: Code::IdConflict });
        }
        for (member, (record, ask)) in records.iter_mut().zip(&asks).enumerate() {
            crate::wire::set_actor(record, ask.kind, source.actor(ask.kind, member));
        }
        self.execute_chain(&asks, records, replies)
    }

    fn examine_members(
        &mut self,
        source: Source,
        first_seq: Seq,
        records: &mut [Record],
    ) -> Result<(Vec<Ask>, Vec<Option<Found>>), Refusal> {
        // What is true of one of them is true of all, whatever else the others are refused for.
        if let Some(caller) = source.caller() {
            for (member, record) in records.iter().enumerate() {
                let kind = record.kind().unwrap_or(Kind::Continuation);
                self.check_not_lost(caller, kind, record).map_err(|code| Refusal { member, code })?;
            }
        }
        let mut asks = vec![Ask { is_in_turn: false, ..Ask::NONE }; records.len()];
        let mut repeated = vec![None; records.len()];
        for member in 0..records.len() {
            let refused = |code| Refusal { member, code };
            let (before, rest) = records.split_at_mut(member);
            let record = &mut rest[0];
            let is_double = before.iter().any(|other| other.id == record.id);
            if is_double || !record.kind().is_some_and(Kind::may_be_linked) {
                return Err(refused(Code::Malformed));
            }
            let seq = Seq(first_seq.0 + member as u64);
            repeated[member] = self.examine(source, seq, record, &[], &mut asks[member]).map_err(refused)?;
        }
        Ok((asks, repeated))
    }

    fn execute_chain(
        &mut self,
        asks: &[Ask],
        records: &mut [Record],
        replies: &mut Vec<Reply>,
    ) -> Result<Decision, Refusal> {
        let saved = self.save(asks, records);
        let sent: Vec<Record> = records.to_vec();
        let first_reply = replies.len();
        for (member, ask) in asks.iter().enumerate() {
            let ask = self.look_again(ask);
            let performed = ask.and_then(|ask| {
                let mut outcome = Outcome::new(Code::None);
                self.perform(&ask, &mut records[member], &[], &mut outcome)?;
                Ok((ask, outcome))
            });
            let culprit = match performed {
                Ok((ask, outcome)) if outcome.code.is_success() => {
                    self.finish(&ask, &mut records[member], &outcome, replies);
                    continue;
                }
                Ok((_, outcome)) => Ok(outcome.code),
                Err(code) => Err(code),
            };
            replies.truncate(first_reply);
            records.copy_from_slice(&sent);
            self.put_back(saved);
            return match culprit {
                Err(code) => Err(Refusal { member, code }),
                Ok(code) => {
                    self.decline_chain(asks, records, replies, member, code);
                    Ok(Decision::Logged)
                }
            };
        }
        Ok(Decision::Logged)
    }

    /// Members before it may have used up a quota, or spent its id.
    fn look_again(&self, ask: &Ask) -> Result<Ask, Code> {
        let ask = &Ask { is_in_turn: true, ..*ask };
        if ask.is_live {
            self.check_quotas(ask)?;
        }
        match self.find(ask.account, ask.id) {
            None => Ok(*ask),
            Some(Found::Op(slot)) if ask.kind == Kind::Lock && self.ops.get(slot).awaits_a_lock() => {
                Ok(Ask { spent: Some(slot), ..*ask })
            }
            Some(_) => Err(Code::IdConflict),
        }
    }

    fn decline_chain(
        &mut self,
        asks: &[Ask],
        records: &mut [Record],
        replies: &mut Vec<Reply>,
        culprit: usize,
        code: Code,
    ) {
        for (member, (ask, record)) in asks.iter().zip(records).enumerate() {
            let mut outcome = Outcome::new(if member == culprit { code } else { Code::LinkedFailed });
            match lock_named(ask.kind, record).and_then(|lock| self.find(ask.account, lock.0)) {
                Some(Found::Lock(slot)) => outcome.lock = Some(slot),
                Some(Found::Op(slot)) => outcome.end = self.end_of_op(self.ops.get(slot)),
                // Its id may have been spent before: the end is then that of the id, as it is for a lock by itself.
                None if ask.kind == Kind::Lock => {
                    let spent = ask.spent.map(|slot| self.end_of_op(self.ops.get(slot)));
                    outcome.end = spent.unwrap_or(surety_protocol::End::Declined);
                }
                None => {}
            }
            self.finish(ask, record, &outcome, replies);
        }
    }

    fn save(&self, asks: &[Ask], records: &[Record]) -> Saved {
        let mut saved = Saved { sum: self.sum, ..Saved::default() };
        for (ask, record) in asks.iter().zip(records) {
            self.save_id(&mut saved, ask.account, Id(ask.id));
            if let Some(lock) = lock_named(ask.kind, record) {
                self.save_id(&mut saved, ask.account, lock);
            }
            if ask.kind == Kind::Lock {
                self.save_open(&mut saved, ask.account, record.body::<LockBody>().merchant.0);
            }
            self.save_partition(&mut saved, ask.partition);
            let tenant = self.account(ask.account).tenant_slot;
            saved.tenants.push((tenant, self.tenants[tenant as usize]));
        }
        // The first copy of a tenant is the one to go back to.
        saved.tenants.reverse();
        saved
    }

    fn save_id(&self, saved: &mut Saved, account: u32, id: Id) {
        match self.find(account, id.0) {
            None => saved.absent.push((account, id.0)),
            Some(Found::Op(slot)) => saved.ops.push((slot, *self.ops.get(slot))),
            Some(Found::Lock(slot)) => {
                let lock = *self.locks.get(slot);
                let ext = (lock.ext != NONE).then(|| *self.exts.get(lock.ext));
                let captures =
                    self.capture_slots(&lock).map(|slot| (slot, *self.captures.get(slot))).collect();
                saved.locks.push(SavedLock { slot, lock, ext, captures });
                self.save_open(saved, account, lock.merchant.0);
            }
        }
    }

    fn save_open(&self, saved: &mut Saved, account: u32, merchant: u64) {
        let key = (account, merchant);
        saved.open.push((key, self.open.get(&key).copied()));
    }

    fn save_partition(&self, saved: &mut Saved, slot: u32) {
        let partition = &self.partitions[slot as usize];
        saved.partitions.push(SavedPartition {
            slot,
            money: partition.money,
            window: partition.window,
            window_count: partition.window_count,
            window_value: partition.window_value,
            fees: partition.fees,
        });
    }

    /// Everything as it was. Nothing has been executed while it was saved, so copies of one thing are equal.
    fn put_back(&mut self, saved: Saved) {
        // The latest first: it is the first in its list of the ring.
        for (account, id) in saved.absent.into_iter().rev() {
            match self.find(account, id) {
                Some(Found::Lock(slot)) => self.remove_lock(slot),
                Some(Found::Op(slot)) => self.take_back_op(slot),
                None => {}
            }
        }
        for lock in saved.locks {
            self.put_back_lock(&lock);
        }
        for (slot, op) in saved.ops {
            *self.ops.get_mut(slot) = op;
        }
        for old in saved.partitions {
            let partition = self.partition_mut(old.slot);
            partition.money = old.money;
            partition.window = old.window;
            partition.window_count = old.window_count;
            partition.window_value = old.window_value;
            partition.fees = old.fees;
        }
        for (key, value) in saved.open {
            match value {
                Some(value) => self.open.insert(key, value),
                None => self.open.remove(&key),
            };
        }
        for (slot, tenant) in saved.tenants {
            self.tenants[slot as usize] = tenant;
        }
        self.sum = saved.sum;
    }

    fn put_back_lock(&mut self, saved: &SavedLock) {
        let now = *self.locks.get(saved.slot);
        let mut next = now.captures;
        while next != saved.lock.captures {
            let newer = next;
            next = self.captures.get(newer).next;
            self.captures.remove(newer);
        }
        for (slot, capture) in &saved.captures {
            *self.captures.get_mut(*slot) = *capture;
        }
        match saved.ext {
            Some(ext) => *self.exts.get_mut(saved.lock.ext) = ext,
            None if now.ext != NONE => self.exts.remove(now.ext),
            None => {}
        }
        // Its tenant's own count is put back with the tenant.
        self.live = self.live + usize::from(saved.lock.is_live()) - usize::from(now.is_live());
        // Its entries in the ring are still there; those that were added are passed over.
        *self.locks.get_mut(saved.slot) = saved.lock;
    }
}
