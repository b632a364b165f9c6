//! What time does: deadlines, settle-by times, certificates and withdrawals that become due; what is forgotten.

use surety_protocol::limits::{ADVICE_WINDOW, DUE_RECORDS_PER_TURN_MAX, ID_FUTURE_MAX};
use surety_protocol::{
    ALL_CAPTURES, ActorId, Amount, ChangeBody, Code, ConsumeBody, End, Flags, Id, Kind, MerchantId,
    PartitionHandle, Record, SettleByAction, StakeBody, Time,
};

use super::money::{on_grid, signed};
use super::state::Lock;
use super::{Account, Oracle};

/// Withdrawals that may follow one operation.
const FOLLOW_MAX: usize = 64;

/// What happens next to a lock by itself.
#[derive(Clone, Copy, Debug)]
enum Next {
    Expire,
    SettleBy(usize),
    Mature,
}

impl Lock {
    /// The next thing that time does to it. Nothing while the chain decides about it.
    fn next(&self) -> Option<(Time, Next)> {
        if self.is_called {
            return None;
        }
        let mut all = Vec::new();
        if self.is_live() {
            all.push((self.deadline, Next::Expire));
        }
        for (index, capture) in self.captures.iter().enumerate() {
            if capture.u > 0 && capture.settle_by > Time::ZERO {
                all.push((capture.settle_by, Next::SettleBy(index)));
            }
        }
        if self.p > 0 {
            all.push((self.claim_until, Next::Mature));
        }
        all.into_iter().min_by_key(|(when, _)| *when)
    }
}

impl Lock {
    /// When time next does something to it.
    pub(super) fn next_moment(&self) -> Option<Time> {
        self.next().map(|(when, _)| when)
    }
}

impl Oracle {
    /// The first millisecond at which an id can no longer be accepted.
    pub(super) fn stale_ms(&self, id: Id, kind: Kind, is_lasting: bool) -> u64 {
        let window = match kind {
            Kind::Advice | Kind::Reverse => ADVICE_WINDOW,
            _ if is_lasting => ADVICE_WINDOW,
            _ => self.rules.id_window,
        };
        id.time().0 / 1_000_000 + window.0.div_ceil(1_000_000) + 1
    }

    /// True if an id is too old to come as a request of a kind.
    pub(super) fn is_stale(&self, id: Id, kind: Kind, is_lasting: bool) -> bool {
        self.time.0 / 1_000_000 >= self.stale_ms(id, kind, is_lasting)
    }

    /// Time moves on and things are forgotten.
    pub fn pass_time(&mut self, now: Time) {
        self.time = self.time.max(now);
        let ms = self.time.0 / 1_000_000;
        while let Some((at, account, id)) = self.forgettable.first().copied().filter(|(at, ..)| *at <= ms) {
            self.forgettable.remove(&(at, account, id));
            if let Some(spent) = self.spent.get(&(account, id)) {
                let until = self.stale_ms(id, spent.kind, spent.lasting.is_some());
                if until <= ms {
                    self.spent.remove(&(account, id));
                } else {
                    self.forgettable.insert((until, account, id));
                }
            }
            if let Some(lock) = self.locks.get(&(account, id)) {
                let is_over =
                    !lock.is_live() && lock.kept_until <= self.time && lock.open() == 0 && lock.p == 0;
                if is_over && !lock.is_called {
                    self.locks.remove(&(account, id));
                }
            }
        }
    }

    /// True if the lock waits for something that is due: only while the engine is behind.
    pub(super) fn is_overdue(&self, account: Account, id: Id) -> bool {
        !self.is_suspended(account.1)
            && self
                .locks
                .get(&(account, id))
                .and_then(Lock::next_moment)
                .is_some_and(|when| when <= self.time)
    }

    /// True while something is due that was not logged.
    pub(super) fn is_time_behind(&self) -> bool {
        self.is_behind || self.next_timer().is_some_and(|when| when <= self.time)
    }

    /// Everything that is due now, in order of time, then id, as far as a turn goes; and the withdrawals that it makes payable.
    pub fn turn(&mut self, now: Time) -> Vec<Record> {
        self.turn_up_to(now, DUE_RECORDS_PER_TURN_MAX)
    }

    /// The same, as far as a number of records.
    pub fn turn_up_to(&mut self, now: Time, limit: usize) -> Vec<Record> {
        self.pass_time(now);
        let mut out = Vec::new();
        while out.len() < limit {
            let mut timers = self.timers.iter().filter(|(.., account)| !self.is_suspended(account.1));
            let first = timers.next().copied().filter(|(when, ..)| *when <= self.time);
            let Some((_, id, account)) = first else { break };
            out.push(self.fire(account, id));
            self.pay_partition(account.1, &mut out, limit);
        }
        let mut waiting: Vec<_> = self
            .partitions
            .iter()
            .filter(|(handle, partition)| self.is_payable(**handle, partition))
            .map(|(handle, partition)| (partition.queue[0].due, partition.order, *handle))
            .collect();
        waiting.sort_unstable();
        for (.., handle) in waiting {
            self.pay_partition(handle, &mut out, limit);
        }
        let is_owing = self.partitions.iter().any(|(handle, partition)| self.is_payable(*handle, partition));
        self.is_behind = is_owing || self.next_timer().is_some_and(|when| when <= self.time);
        out
    }

    fn fire(&mut self, account: Account, id: Id) -> Record {
        let next = self.locks[&(account, id)].next().map(|(_, next)| next);
        match next {
            Some(Next::Expire) => self.expire(account, id),
            Some(Next::SettleBy(index)) => self.settle_by_passed(account, id, index),
            Some(Next::Mature) => self.mature(account, id),
            None => unreachable!("a timer without a reason"),
        }
    }

    /// Row 18.
    fn expire(&mut self, account: Account, id: Id) -> Record {
        let mut edit = self.begin(account, id);
        let rest = edit.lock.remaining();
        edit.lock.e += rest;
        edit.lock.end = End::Expired;
        edit.partition.h -= rest;
        let freed = edit.give_back(rest);
        let deadline = edit.lock.deadline;
        let version = edit.done();
        let body =
            ChangeBody { deadline, freed: signed(freed), capture: ALL_CAPTURES, ..changed(id, version) };
        self.stamp(Record::new(Kind::Expire, id, account.1, Amount(rest), &body), account, rest)
    }

    fn mature(&mut self, account: Account, id: Id) -> Record {
        let mut edit = self.begin(account, id);
        let pending = std::mem::take(&mut edit.lock.p);
        edit.partition.p -= pending;
        edit.partition.credit(pending);
        let until = edit.lock.claim_until;
        let version = edit.done();
        let body = ChangeBody {
            deadline: until,
            freed: signed(pending),
            capture: ALL_CAPTURES,
            ..changed(id, version)
        };
        self.stamp(Record::new(Kind::Mature, id, account.1, Amount(pending), &body), account, pending)
    }

    /// Row 24: consumed, or settled where the policy says so or nobody could be paid.
    fn settle_by_passed(&mut self, account: Account, id: Id, index: usize) -> Record {
        let policy = &self.partitions[&account.1].policy;
        let lock = &self.locks[&(account, id)];
        let capture = lock.captures[index].index;
        let deadline = lock.captures[index].settle_by;
        if policy.settle_by_action() == SettleByAction::Settle || lock.merchant == MerchantId(0) {
            let mut edit = self.begin(account, id);
            let (settled, freed) = edit.settle_capture(index);
            let version = edit.done();
            let body = ChangeBody { deadline, freed: signed(freed), capture, ..changed(id, version) };
            return self.stamp(
                Record::new(Kind::AutoSettle, id, account.1, Amount(settled), &body),
                account,
                settled,
            );
        }
        let price = self.price_now(account, id);
        let mut edit = self.begin(account, id);
        let (paid, freed, exposure) = edit.consume_capture(index, price);
        let merchant = edit.lock.merchant;
        edit.done();
        let freed = if exposure > 0 { -signed(exposure) } else { signed(freed) };
        let body =
            ConsumeBody { lock: id, freed, merchant, user: 0, actor: ActorId(0), capture, reserved: 0 };
        let mut record = Record::new(Kind::AutoConsume, id, account.1, Amount(paid), &body);
        if exposure > 0 {
            record.flags = Flags::EXPOSED.0;
        }
        self.stamp(record, account, paid)
    }

    fn stamp(&self, mut record: Record, account: Account, result: u128) -> Record {
        record.result = Amount(result);
        record.time = self.time;
        record.tenant = account.0;
        record.code = Code::Approved as u8;
        record
    }

    /// The oldest withdrawal is due, F covers it, and nothing stops it.
    fn is_payable(&self, handle: PartitionHandle, partition: &super::Partition) -> bool {
        !self.is_suspended(handle)
            && partition.queue.front().is_some_and(|queued| {
                queued.due <= self.time
                    && !partition.is_stopped()
                    && partition.f >= partition.value_of(queued.units)
            })
    }

    fn pay_partition(&mut self, handle: PartitionHandle, out: &mut Vec<Record>, limit: usize) {
        while out.len() < limit && self.partitions.get(&handle).is_some_and(|it| self.is_payable(handle, it))
        {
            let time = self.time;
            let Some(partition) = self.partitions.get_mut(&handle) else { return };
            let value = partition.value_of(partition.queue[0].units);
            let Some(queued) = partition.queue.pop_front() else { return };
            partition.units -= queued.units;
            partition.f -= value;
            partition.w += value;
            partition.take_units(&queued.supplier, queued.units);
            let body = StakeBody {
                units: queued.units,
                supplier: queued.supplier,
                actor: ActorId(0),
                nonce: 0,
                due: queued.due,
            };
            let mut record = Record::new(Kind::WithdrawPaid, queued.id, handle, Amount(queued.units), &body);
            record.result = Amount(value);
            record.time = time;
            record.tenant = queued.tenant;
            record.code = Code::Approved as u8;
            out.push(record);
        }
    }

    /// What an operation's credits have made payable follows it.
    pub(super) fn pay_after(&mut self, logged: &[Record]) -> Vec<Record> {
        let mut out = Vec::new();
        for record in logged {
            self.pay_partition(record.partition, &mut out, FOLLOW_MAX);
            let handle = record.partition;
            let is_owing = self.partitions.get(&handle).is_some_and(|it| self.is_payable(handle, it));
            self.is_behind |= is_owing;
        }
        out
    }

    /// Until when an ended lock stays at least, so that a repeat of a change now finds it.
    pub(super) fn kept_after_change(&self) -> Time {
        on_grid(self.time.plus(self.rules.id_window).plus(ID_FUTURE_MAX)).plus(Time::from_millis(1))
    }

    /// Until when a lock that ends now stays: the policy's windows, and until its id is stale.
    pub(super) fn kept_after_end(&self, handle: PartitionHandle, id: Id) -> Time {
        let retention = self.partitions[&handle].policy.retention();
        on_grid(self.time.plus(retention))
            .max(Time::from_millis(self.stale_ms(id, Kind::Lock, false)))
            .max(self.kept_after_change())
    }

    /// Sees to it that time comes back to a lock.
    pub(super) fn arm(&mut self, account: Account, id: Id) {
        let Some(lock) = self.locks.get(&(account, id)) else { return };
        if let Some((when, _)) = lock.next() {
            self.timers.insert((when, id, account));
        }
        if !lock.is_live() {
            let at = lock.kept_until.0.div_ceil(1_000_000);
            self.forgettable.insert((at, account, id));
        }
    }

    /// Before a lock changes.
    pub(super) fn disarm(&mut self, account: Account, id: Id) {
        let Some(lock) = self.locks.get(&(account, id)) else { return };
        if let Some((when, _)) = lock.next() {
            self.timers.remove(&(when, id, account));
        }
    }
}

fn changed(id: Id, version: u16) -> ChangeBody {
    ChangeBody { lock: id, version, ..ChangeBody::default() }
}
