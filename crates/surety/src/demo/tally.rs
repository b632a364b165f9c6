//! The first party of the money check: a plain tally, kept from replies as they were received.
//!
//! It knows no rule by which an engine decides. It adds and subtracts what replies say was moved, and lets time do what the
//! replies announced: a lock ends at its deadline, a capture is settled or consumed at its settle-by time.

use std::collections::{BTreeMap, HashMap};

use surety_protocol::{
    ALL_CAPTURES, ChangeBody, Code, ConsumeBody, End, Flags, Id, Kind, PartitionHandle, Record, Reply,
    SettleByAction, Time,
};

use super::account::{Account, LockView, Sums};

/// What the replies say, so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    locks: HashMap<Id, Lock>,
    partitions: BTreeMap<PartitionHandle, Partition>,
    codes: BTreeMap<(Kind, Code), u64>,
    repeats: u64,
    late_captures: u64,
    /// A reply that fits nothing that was received before.
    odd: Option<String>,
}

#[derive(Debug)]
struct Lock {
    partition: PartitionHandle,
    held: i128,
    deadline: Time,
    end: End,
    is_certified: bool,
    captures: Vec<Capture>,
}

#[derive(Debug)]
struct Capture {
    index: u16,
    /// What counts as captured.
    amount: i128,
    /// What of it is not settled, consumed or given back.
    unsettled: i128,
    settle_by: Time,
}

#[derive(Clone, Copy, Debug)]
struct Partition {
    free: i128,
    owed: i128,
    collateral: i128,
    settle_by_action: SettleByAction,
}

/// What time has done since the last reply about a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elapsed {
    /// Locks that ended at their deadline.
    pub(crate) expired: u64,
    /// Captures whose payer's asset did not come in time.
    pub(crate) overdue: u64,
}

impl Tally {
    /// Names a partition, and what its policy does with captures that are overdue.
    pub(crate) fn add_partition(&mut self, handle: PartitionHandle, settle_by_action: SettleByAction) {
        let empty = Partition { free: 0, owed: 0, collateral: 0, settle_by_action };
        self.partitions.insert(handle, empty);
    }

    /// Notes what the supplier has put into a partition's pool on chain.
    pub(crate) fn supply(&mut self, handle: PartitionHandle, amount: u128) {
        let Ok(amount) = i128::try_from(amount) else {
            return self.contradict(format!("a supply of {amount}"));
        };
        if let Some(partition) = self.partitions.get_mut(&handle) {
            partition.free += amount;
            partition.collateral += amount;
            *self.codes.entry((Kind::Deposit, Code::Approved)).or_default() += 1;
        }
    }

    /// Notes a reply to a request.
    pub(crate) fn note(&mut self, request: &Record, reply: &Reply) {
        let Some(kind) = request.kind() else { return };
        if reply.is_replayed() {
            // The first answer has been counted; this one moved nothing.
            self.repeats += 1;
            return;
        }
        *self.codes.entry((kind, reply.code())).or_default() += 1;
        if !reply.code().is_success() {
            return;
        }
        match self.apply(kind, request, reply) {
            None => self.contradict(format!(
                "the reply to {kind} {} speaks of something that no reply has made",
                request.id
            )),
            Some(Some(held)) if positive(held) != Some(reply.remaining.0) => self.contradict(format!(
                "the reply to {kind} {} says that {} remain, but {held} should",
                request.id, reply.remaining
            )),
            Some(_) => {}
        }
    }

    /// Notes that replies contradict each other.
    pub(crate) fn contradict(&mut self, what: String) {
        self.odd.get_or_insert(what);
    }

    /// Replies that were counted, by kind and code.
    pub(crate) const fn codes(&self) -> &BTreeMap<(Kind, Code), u64> {
        &self.codes
    }

    /// Answers that came a second time.
    pub(crate) const fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Captures of expired locks.
    pub(crate) const fn late_captures(&self) -> u64 {
        self.late_captures
    }

    /// Ids of all locks that were approved, with their partitions.
    pub(crate) fn locks(&self) -> impl Iterator<Item = (Id, PartitionHandle)> {
        self.locks.iter().map(|(id, lock)| (*id, lock.partition))
    }

    /// The latest deadline or settle-by time in partitions where the demo waits for it.
    pub(crate) fn last_deadline(&self, partition: PartitionHandle) -> Time {
        let locks = self.locks.values().filter(|lock| lock.partition == partition);
        let times = locks.flat_map(|lock| {
            let deadline = (lock.end == End::Live).then_some(lock.deadline);
            let open = lock.captures.iter().filter(|capture| capture.unsettled > 0);
            deadline.into_iter().chain(open.map(|capture| capture.settle_by))
        });
        times.max().unwrap_or_default()
    }

    /// Takes over what another tally has noted about other locks.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.locks.extend(other.locks);
        for (handle, partition) in other.partitions {
            let own = self.partitions.entry(handle).or_insert(Partition {
                free: 0,
                owed: 0,
                collateral: 0,
                settle_by_action: partition.settle_by_action,
            });
            own.free += partition.free;
            own.owed += partition.owed;
            own.collateral += partition.collateral;
        }
        for (key, count) in other.codes {
            *self.codes.entry(key).or_default() += count;
        }
        self.repeats += other.repeats;
        self.late_captures += other.late_captures;
        self.odd = self.odd.take().or(other.odd);
    }

    /// Lets time pass up to `now`: deadlines and settle-by times have their effect.
    pub(crate) fn elapse(&mut self, now: Time) -> Elapsed {
        let mut elapsed = Elapsed::default();
        for lock in self.locks.values_mut() {
            let Some(partition) = self.partitions.get_mut(&lock.partition) else { continue };
            if lock.end == End::Live && lock.deadline <= now {
                lock.expire(partition);
                elapsed.expired += 1;
            }
            let is_due = |capture: &&mut Capture| {
                capture.unsettled > 0 && capture.settle_by != Time::ZERO && capture.settle_by <= now
            };
            for capture in lock.captures.iter_mut().filter(is_due) {
                match partition.settle_by_action {
                    SettleByAction::Settle => partition.free += capture.unsettled,
                    SettleByAction::Consume => partition.owed += capture.unsettled,
                }
                capture.unsettled = 0;
                elapsed.overdue += 1;
            }
        }
        elapsed
    }

    /// What the replies add up to.
    ///
    /// # Errors
    /// A sum that is negative or does not add up: then the replies contradict each other.
    pub(crate) fn account(&self) -> Result<Account, String> {
        if let Some(odd) = &self.odd {
            return Err(odd.clone());
        }
        let mut account = Account::default();
        let mut sums: BTreeMap<PartitionHandle, (i128, i128, i128, i128)> = BTreeMap::new();
        for (id, lock) in &self.locks {
            let captured: i128 = lock.captures.iter().map(|capture| capture.amount).sum();
            let unsettled: i128 = lock.captures.iter().map(|capture| capture.unsettled).sum();
            let total = captured + lock.held;
            let view = LockView {
                end: lock.end,
                total: positive(total).ok_or_else(|| format!("lock {id}: total {total}"))?,
                remaining: positive(lock.held)
                    .ok_or_else(|| format!("lock {id}: remaining {}", lock.held))?,
            };
            account.locks.insert(*id, view);
            let sum = sums.entry(lock.partition).or_default();
            let certified = if lock.is_certified { lock.held } else { 0 };
            *sum = (sum.0 + lock.held, sum.1 + captured, sum.2 + unsettled, sum.3 + certified);
        }
        for (handle, partition) in &self.partitions {
            let (held, captured, unsettled, certified) = sums.get(handle).copied().unwrap_or_default();
            let Partition { free, owed, collateral, .. } = *partition;
            if free + held + unsettled + owed != collateral {
                return Err(format!(
                    "partition {handle}: free {free} + held {held} + unsettled {unsettled} + owed {owed} is not the \
                     collateral {collateral}"
                ));
            }
            let sums = Sums {
                free: positive(free),
                held: positive(held),
                captured: positive(captured),
                unsettled: positive(unsettled),
                consumed: positive(owed),
                supplied: positive(collateral),
                left: positive(collateral - owed),
                enforced: positive(certified),
            };
            if sums.named().iter().any(|(_, sum)| sum.is_none()) || sums.supplied.is_none() {
                return Err(format!("partition {handle}: a negative sum: {sums:?}"));
            }
            account.partitions.insert(*handle, sums);
        }
        Ok(account)
    }

    /// What the lock holds afterwards, if it is about one. None if the reply speaks of something unknown.
    fn apply(&mut self, kind: Kind, request: &Record, reply: &Reply) -> Option<Option<i128>> {
        let moved = i128::try_from(reply.approved.0).ok()?;
        let partition = match kind {
            Kind::Lock => self.partitions.get_mut(&request.partition)?,
            Kind::Capture
            | Kind::Release
            | Kind::Increase
            | Kind::Decrease
            | Kind::Settle
            | Kind::Consume
            | Kind::Refund
            | Kind::Reverse => return self.change(kind, request, reply, moved),
            // Directories, policies, prices and look-ups move nothing.
            _ => return Some(None),
        };
        let taken = moved + i128::try_from(reply.extra.0).ok()?;
        partition.free -= taken;
        let mut lock = Lock {
            partition: request.partition,
            held: taken,
            deadline: reply.deadline,
            end: End::Live,
            is_certified: request.flags().has(Flags::CERTIFIED),
            captures: Vec::new(),
        };
        if request.flags().has(Flags::SALE) {
            lock.capture(reply, moved);
            lock.finish(End::Final, partition);
        }
        let held = lock.held;
        self.locks.insert(request.id, lock);
        Some(Some(held))
    }

    fn change(&mut self, kind: Kind, request: &Record, reply: &Reply, moved: i128) -> Option<Option<i128>> {
        let (id, index) = match kind {
            Kind::Consume => {
                let body: ConsumeBody = request.body();
                (body.lock, body.capture)
            }
            _ => {
                let body: ChangeBody = request.body();
                (body.lock, body.capture)
            }
        };
        let lock = self.locks.get_mut(&id)?;
        let partition = self.partitions.get_mut(&lock.partition)?;
        if reply.end() == End::Expired && lock.end == End::Live {
            lock.expire(partition);
        }
        match kind {
            Kind::Capture => {
                if reply.end() == End::Expired {
                    // A late capture is drawn from what is free.
                    partition.free -= moved;
                    lock.held += moved;
                    self.late_captures += 1;
                }
                lock.capture(reply, moved);
                if request.flags().has(Flags::FINAL) && lock.end == End::Live {
                    lock.finish(End::Final, partition);
                }
            }
            Kind::Release => {
                let is_captured = lock.captures.iter().any(|capture| capture.amount > 0);
                let end = if is_captured { End::Final } else { End::Released };
                if matches!(lock.end, End::Live | End::Expired) {
                    lock.finish(end, partition);
                }
            }
            Kind::Increase => {
                lock.held += moved;
                partition.free -= moved;
                lock.deadline = reply.deadline;
            }
            Kind::Decrease => {
                lock.held -= moved;
                partition.free += moved;
            }
            Kind::Settle if index == ALL_CAPTURES => {
                for capture in &mut lock.captures {
                    partition.free += std::mem::take(&mut capture.unsettled);
                }
                lock.finish(End::Settled, partition);
            }
            Kind::Settle => partition.free += std::mem::take(&mut lock.capture_mut(index)?.unsettled),
            Kind::Consume => {
                let unsettled = std::mem::take(&mut lock.capture_mut(index)?.unsettled);
                partition.owed += moved;
                partition.free += unsettled - moved;
            }
            Kind::Refund => {
                lock.capture_mut(index)?.unsettled -= moved;
                partition.free += moved;
            }
            Kind::Reverse => {
                let capture = lock.capture_mut(index)?;
                let (amount, unsettled) = (capture.amount, capture.unsettled);
                capture.amount = 0;
                capture.unsettled = 0;
                lock.held += unsettled;
                if lock.end != End::Live {
                    partition.free += std::mem::take(&mut lock.held);
                }
                debug_assert_eq!(amount, unsettled, "only whole captures are reversed");
            }
            _ => {}
        }
        Some(Some(lock.held))
    }
}

impl Lock {
    fn capture(&mut self, reply: &Reply, moved: i128) {
        self.held -= moved;
        self.captures.push(Capture {
            index: reply.capture,
            amount: moved,
            unsettled: moved,
            settle_by: if self.end == End::Live && reply.kind == Kind::Lock as u8 {
                Time::ZERO
            } else {
                reply.deadline
            },
        });
    }

    fn finish(&mut self, end: End, partition: &mut Partition) {
        partition.free += std::mem::take(&mut self.held);
        self.end = end;
    }

    fn expire(&mut self, partition: &mut Partition) {
        self.finish(End::Expired, partition);
    }

    fn capture_mut(&mut self, index: u16) -> Option<&mut Capture> {
        self.captures.iter_mut().find(|capture| capture.index == index)
    }
}

fn positive(value: i128) -> Option<u128> {
    u128::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{Amount, LockBody};

    const PLACE: PartitionHandle = PartitionHandle(1);

    fn tally() -> Tally {
        let mut tally = Tally::default();
        tally.add_partition(PLACE, SettleByAction::Consume);
        tally.supply(PLACE, 100);
        tally
    }

    fn approved(request: &Record, amount: u128) -> Reply {
        let (id, kind) = (request.id, request.kind);
        Reply { id, kind, approved: Amount(amount), code: Code::Approved as u8, ..Reply::default() }
    }

    fn lock(tally: &mut Tally, id: u128, amount: u128) {
        let request = Record::new(Kind::Lock, Id(id), PLACE, Amount(amount), &LockBody::default());
        let remaining = Amount(amount);
        tally.note(&request, &Reply { deadline: Time(50), remaining, ..approved(&request, amount) });
    }

    /// `remaining` is 18 after the first capture of the tests, and nothing afterwards.
    fn change(tally: &mut Tally, kind: Kind, lock: u128, capture: u16, flags: Flags, amount: u128, end: End) {
        let remaining = Amount(if end == End::Live { 18 } else { 0 });
        let body = ChangeBody { lock: Id(lock), capture, ..ChangeBody::default() };
        let request = Record::new(kind, Id(99), PLACE, Amount(amount), &body).with_flags(flags);
        let reply =
            Reply { end: end as u8, capture, remaining, deadline: Time(70), ..approved(&request, amount) };
        tally.note(&request, &reply);
    }

    fn sums(tally: &Tally) -> (u128, u128, u128, u128) {
        let account = tally.account().unwrap();
        let sums = account.partitions[&PLACE];
        (sums.free.unwrap(), sums.held.unwrap(), sums.unsettled.unwrap(), sums.consumed.unwrap())
    }

    #[test]
    fn money_moves_as_the_replies_say() {
        let mut tally = tally();
        lock(&mut tally, 10, 30);
        assert_eq!(sums(&tally), (70, 30, 0, 0));
        change(&mut tally, Kind::Capture, 10, 0, Flags::default(), 12, End::Live);
        assert_eq!(sums(&tally), (70, 18, 12, 0));
        change(&mut tally, Kind::Capture, 10, 1, Flags::FINAL, 8, End::Final);
        assert_eq!(sums(&tally), (80, 0, 20, 0));
        change(&mut tally, Kind::Refund, 10, 0, Flags::default(), 2, End::Final);
        assert_eq!(sums(&tally), (82, 0, 18, 0));
        change(&mut tally, Kind::Settle, 10, 0, Flags::default(), 10, End::Final);
        assert_eq!(sums(&tally), (92, 0, 8, 0));
        assert_eq!(tally.elapse(Time(70)), Elapsed { expired: 0, overdue: 1 });
        assert_eq!(sums(&tally), (92, 0, 0, 8));
    }

    #[test]
    fn time_ends_locks_and_a_late_capture_comes_from_what_is_free() {
        let mut tally = tally();
        lock(&mut tally, 10, 30);
        lock(&mut tally, 11, 20);
        assert_eq!(tally.last_deadline(PLACE), Time(50));
        assert_eq!(tally.elapse(Time(49)), Elapsed::default());
        change(&mut tally, Kind::Capture, 10, 0, Flags::FINAL, 25, End::Expired);
        assert_eq!(sums(&tally), (55, 20, 25, 0));
        assert_eq!(tally.elapse(Time(50)).expired, 1);
        assert_eq!(sums(&tally), (75, 0, 25, 0));
        assert_eq!(tally.late_captures(), 1);
    }

    #[test]
    fn a_repeated_answer_moves_nothing() {
        let mut tally = tally();
        let request = Record::new(Kind::Lock, Id(10), PLACE, Amount(5), &LockBody::default());
        let reply = Reply { remaining: Amount(5), ..approved(&request, 5) };
        tally.note(&request, &reply);
        tally.note(&request, &Reply { flags: surety_protocol::REPLAYED, ..reply });
        assert_eq!((sums(&tally), tally.repeats()), ((95, 5, 0, 0), 1));
    }

    #[test]
    fn replies_that_contradict_each_other_are_found() {
        let mut tally = tally();
        change(&mut tally, Kind::Capture, 77, 0, Flags::default(), 1, End::Live);
        assert!(tally.account().unwrap_err().contains("no reply has made"));
        let mut tally = self::tally();
        lock(&mut tally, 10, 101);
        assert!(tally.account().is_err(), "more than there was");
        let mut tally = self::tally();
        let request = Record::new(Kind::Lock, Id(10), PLACE, Amount(5), &LockBody::default());
        tally.note(&request, &Reply { remaining: Amount(4), ..approved(&request, 5) });
        assert!(tally.account().unwrap_err().contains("4 remain, but 5 should"));
    }
}
