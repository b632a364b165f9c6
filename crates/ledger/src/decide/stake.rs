//! Rows 26 to 28: collateral comes and goes, in units.

use core::cmp::Reverse;

use surety_protocol::limits::{AMOUNT_MAX, UNITS_MAX, WITHDRAWALS_QUEUED_MAX};
use surety_protocol::{Address, Amount, Code, Id, Record, StakeBody, Time};

use super::{Ask, Outcome};
use crate::edit::on_grid;
use crate::ledger::Ledger;
use crate::op::Memo;
use crate::partition::{Position, Queued};

/// Deposits and rewards of one partition whose numbers are kept.
const NONCES_MAX: usize = 1 << 22;

impl Ledger {
    /// Row 26.
    pub(super) fn deposit(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: StakeBody = record.body();
        let amount = record.amount.0;
        if ask.is_live && self.partitions[ask.partition as usize].nonces.len() >= NONCES_MAX {
            return Err(Code::Overloaded);
        }
        let opens = self.opens_generation(ask.partition);
        let units = match self.judge_deposit(ask.partition, &body, amount, opens) {
            Ok(units) => units,
            Err(code) => return Ok(Outcome::new(code)),
        };
        if opens {
            self.open_generation(ask.partition);
        }
        self.note_nonce(ask.partition, body.nonce);
        let partition = self.partition_mut(ask.partition);
        partition.money.on_chain += amount;
        partition.money.credit(amount);
        partition.units += units;
        self.edit_position(ask.partition, &body.supplier, |position| position.units += units);
        self.touched(ask.partition);
        body.units = units;
        record.set_body(&body);
        record.result = Amount(amount);
        Ok(Outcome { memo: Memo::Side, extra: units, ..Outcome::new(Code::Approved).moving(amount) })
    }

    fn judge_deposit(&self, slot: u32, body: &StakeBody, amount: u128, opens: bool) -> Result<u128, Code> {
        let partition = &self.partitions[slot as usize];
        let others = partition.positions.keys().any(|supplier| *supplier != body.supplier);
        let has_others = !opens && others;
        if partition.money.on_chain + amount > AMOUNT_MAX {
            return Err(Code::OverLimit);
        }
        let units = if opens {
            // As if nobody had any: the old units are worth nothing.
            amount.checked_mul(crate::partition::VIRTUAL_UNITS)
        } else {
            partition.units_for(amount)
        };
        let in_range = |units: &u128| {
            let before = if opens { 0 } else { partition.units };
            before.checked_add(*units).is_some_and(|sum| sum <= UNITS_MAX)
        };
        let units = units.filter(in_range).ok_or(Code::OverLimit)?;
        if body.supplier == Address::default() || partition.is_stake_in_place() && has_others {
            return Err(Code::Forbidden);
        }
        if partition.nonces.contains(&body.nonce) { Err(Code::Exists) } else { Ok(units) }
    }

    /// True if the units have lost everything: the next deposit starts anew.
    fn opens_generation(&self, slot: u32) -> bool {
        let partition = &self.partitions[slot as usize];
        partition.units > 0 && partition.money.equity() == 0
    }

    /// The old units are worth nothing and are forgotten, with whatever of them waits in the queue.
    fn open_generation(&mut self, slot: u32) {
        let partition = self.partition_mut(slot);
        let positions = core::mem::take(&mut partition.positions);
        let queue = core::mem::take(&mut partition.queue);
        let front = partition.queue_front;
        partition.queue_front += queue.len() as u64;
        partition.queue_paid = partition.queue_entered;
        partition.units = 0;
        partition.generation = partition.generation.saturating_add(1);
        for (supplier, position) in &positions {
            self.hash_out(self.position_hash(slot, supplier, position));
        }
        self.queued -= queue.len();
        for (at, queued) in (front..).zip(&queue) {
            self.hash_out(self.queued_hash(slot, at, queued));
        }
    }

    fn note_nonce(&mut self, slot: u32, nonce: u64) {
        self.partition_mut(slot).nonces.insert(nonce);
        self.hash_in(self.nonce_hash(slot, nonce));
    }

    /// Changes what a supplier has.
    pub(crate) fn edit_position(&mut self, slot: u32, supplier: &Address, edit: impl FnOnce(&mut Position)) {
        let old = self.partitions[slot as usize].position(supplier);
        let mut new = old;
        edit(&mut new);
        if old != Position::default() {
            self.hash_out(self.position_hash(slot, supplier, &old));
        }
        if new == Position::default() {
            self.partition_mut(slot).positions.remove(supplier);
        } else {
            self.hash_in(self.position_hash(slot, supplier, &new));
            self.partition_mut(slot).positions.insert(*supplier, new);
        }
    }

    /// Row 27.
    pub(super) fn reward(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: StakeBody = record.body();
        let amount = record.amount.0;
        let partition = &self.partitions[ask.partition as usize];
        if ask.is_live && partition.nonces.len() >= NONCES_MAX {
            return Err(Code::Overloaded);
        }
        if partition.money.on_chain + amount > AMOUNT_MAX {
            return Ok(Outcome::new(Code::OverLimit));
        }
        if partition.nonces.contains(&body.nonce) {
            return Ok(Outcome::new(Code::Exists));
        }
        self.note_nonce(ask.partition, body.nonce);
        let partition = self.partition_mut(ask.partition);
        partition.money.on_chain += amount;
        partition.money.credit(amount);
        self.touched(ask.partition);
        record.result = Amount(amount);
        Ok(Outcome::new(Code::Approved).moving(amount))
    }

    /// Row 28. The amount is in units.
    pub(super) fn withdraw(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let mut body: StakeBody = record.body();
        let units = record.amount.0;
        let now = self.time;
        let partition = &self.partitions[ask.partition as usize];
        if ask.is_live && partition.queue.len() >= WITHDRAWALS_QUEUED_MAX {
            return Err(Code::Overloaded);
        }
        if partition.stops_locks() {
            return Ok(Outcome::new(Code::Frozen));
        }
        let position = partition.position(&body.supplier);
        if position.units - position.queued < units {
            return Ok(Outcome::new(Code::Insufficient));
        }
        let value = partition.value_of(units);
        let is_due = partition.policy.unbonding == Time::ZERO && partition.queue.is_empty();
        let own = on_grid(now.plus(partition.policy.unbonding));
        // The queue is paid in order, so nothing in it is due before what stands ahead.
        let due = partition.queue.back().map_or(own, |last| last.due.max(own));
        body.units = units;
        if is_due && value <= partition.money.free {
            let partition = self.partition_mut(ask.partition);
            partition.units -= units;
            partition.money.free -= value;
            partition.money.owed += value;
            self.edit_position(ask.partition, &body.supplier, |position| position.units -= units);
            self.touched(ask.partition);
            body.due = now;
            record.set_body(&body);
            record.result = Amount(value);
            return Ok(Outcome { extra: units, deadline: now, ..Outcome::new(Code::Approved).moving(value) });
        }
        body.units = 0;
        body.due = due;
        record.set_body(&body);
        self.enqueue(ask, record.id, body.supplier, units, due);
        Ok(Outcome { deadline: due, ..Outcome::new(Code::Queued).moving(0) })
    }

    fn enqueue(&mut self, ask: &Ask, id: Id, supplier: Address, units: u128, due: Time) {
        let partition = self.partition_mut(ask.partition);
        partition.queue_entered = partition.queue_entered.wrapping_add(units);
        let entered = partition.queue_entered;
        let queued = Queued { id, tenant: ask.tenant, supplier, units, due, entered };
        let at = partition.queue_front + partition.queue.len() as u64;
        let is_front = partition.queue.is_empty();
        partition.queue.push_back(queued);
        self.queued += 1;
        self.hash_in(self.queued_hash(ask.partition, at, &queued));
        self.edit_position(ask.partition, &supplier, |position| position.queued += units);
        self.touched(ask.partition);
        if is_front {
            self.unbonding.push(Reverse((due, ask.partition)));
        }
    }
}
