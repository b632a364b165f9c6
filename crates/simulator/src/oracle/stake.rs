//! Rows 26 to 28: collateral comes and goes, in units.

use surety_protocol::limits::{AMOUNT_MAX, UNITS_MAX};
use surety_protocol::{Address, Amount, Code, Record, StakeBody, Time};

use super::money::{VIRTUAL_UNITS, floor, on_grid};
use super::state::{Partition, Queued};
use super::{Ask, Oracle, Outcome};

impl Partition {
    /// Takes units from a supplier; nobody is remembered for nothing.
    pub(super) fn take_units(&mut self, supplier: &Address, units: u128) {
        if let Some(held) = self.positions.get_mut(supplier) {
            *held -= units;
            if *held == 0 {
                self.positions.remove(supplier);
            }
        }
    }
}

impl Oracle {
    /// Row 26.
    pub(super) fn deposit(&mut self, ask: &Ask, record: &mut Record) -> Outcome {
        let mut body: StakeBody = record.body();
        let amount = record.amount.0;
        let partition = self.partition_mut(ask.partition);
        // Units that have lost everything are worth nothing to the next: a new generation.
        let is_new = partition.units > 0 && partition.equity() == 0;
        let units = if is_new {
            amount.checked_mul(VIRTUAL_UNITS)
        } else {
            floor(amount, partition.units + VIRTUAL_UNITS, partition.equity() + 1)
        };
        let before = if is_new { 0 } else { partition.units };
        let units = units.filter(|it| before.checked_add(*it).is_some_and(|sum| sum <= UNITS_MAX));
        let is_alone = is_new || partition.positions.keys().all(|supplier| *supplier == body.supplier);
        let is_in_place = partition.onchain[..4] == [0xaa; 4];
        let code = match units {
            _ if partition.k + amount > AMOUNT_MAX => Some(Code::OverLimit),
            None => Some(Code::OverLimit),
            _ if body.supplier == Address::default() || is_in_place && !is_alone => Some(Code::Forbidden),
            _ if partition.nonces.contains(&body.nonce) => Some(Code::Exists),
            Some(_) => None,
        };
        let (None, Some(units)) = (code, units) else {
            return Outcome::new(code.unwrap_or(Code::OverLimit));
        };
        if is_new {
            partition.positions.clear();
            partition.queue.clear();
            partition.units = 0;
            partition.generation = partition.generation.saturating_add(1);
        }
        partition.nonces.insert(body.nonce);
        partition.k += amount;
        partition.credit(amount);
        partition.units += units;
        if units > 0 {
            *partition.positions.entry(body.supplier).or_default() += units;
        }
        body.units = units;
        record.set_body(&body);
        record.result = Amount(amount);
        Outcome { approved: amount, extra: units, ..Outcome::new(Code::Approved) }
    }

    /// Row 27.
    pub(super) fn reward(&mut self, ask: &Ask, record: &mut Record) -> Outcome {
        let nonce = record.body::<StakeBody>().nonce;
        let amount = record.amount.0;
        let partition = self.partition_mut(ask.partition);
        if partition.k + amount > AMOUNT_MAX {
            return Outcome::new(Code::OverLimit);
        }
        if !partition.nonces.insert(nonce) {
            return Outcome::new(Code::Exists);
        }
        partition.k += amount;
        partition.credit(amount);
        record.result = Amount(amount);
        Outcome { approved: amount, ..Outcome::new(Code::Approved) }
    }

    /// Row 28.
    pub(super) fn withdraw(&mut self, ask: &Ask, record: &mut Record) -> Outcome {
        let mut body: StakeBody = record.body();
        let (now, id, tenant) = (self.time, record.id, ask.tenant);
        let units = record.amount.0;
        let partition = self.partition_mut(ask.partition);
        if partition.is_stopped() {
            return Outcome::new(Code::Frozen);
        }
        if partition.units_free(&body.supplier) < units {
            return Outcome::new(Code::Insufficient);
        }
        let value = partition.value_of(units);
        let unbonding = partition.policy.unbonding;
        if unbonding == Time::ZERO && partition.queue.is_empty() && value <= partition.f {
            partition.units -= units;
            partition.f -= value;
            partition.w += value;
            partition.take_units(&body.supplier, units);
            (body.units, body.due) = (units, now);
            record.set_body(&body);
            record.result = Amount(value);
            return Outcome { approved: value, extra: units, deadline: now, ..Outcome::new(Code::Approved) };
        }
        // Paid in order: nothing is due before what stands ahead of it.
        let own = on_grid(now.plus(unbonding));
        let due = partition.queue.back().map_or(own, |last| last.due.max(own));
        partition.queue.push_back(Queued { id, tenant, supplier: body.supplier, units, due });
        (body.units, body.due) = (0, due);
        record.set_body(&body);
        Outcome { deadline: due, ..Outcome::new(Code::Queued) }
    }
}
