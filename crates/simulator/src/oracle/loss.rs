//! After a loss: ids of which nobody can tell, what waits for the operator's word, and what leaps over the life that is lost.

use surety_protocol::limits::{ADVICE_WINDOW, CAPTURES_PER_LOCK_MAX, ID_FUTURE_MAX, VERSION_LEAP};
use surety_protocol::{
    Caller, Code, Id, Kind, Origin, PartitionHandle, Record, Roles, TenantId, Time, UNRECONCILED,
};

use super::admission::{home_of, named};
use super::state::Lock;
use super::{Ask, Oracle, Outcome};

/// When a life that is lost may have decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    from: Time,
    until: Time,
}

impl Oracle {
    /// Whatever came after this state is lost, and may have been decided until `until`; the engine lives on at `now`.
    pub fn lose(&mut self, now: Time, until: Time) {
        let from = self.time;
        self.pass_time(now);
        self.losses.push(Lost { from, until: until.max(now).plus(ID_FUTURE_MAX) });
        self.unreconciled.extend(self.partitions.keys());
        for lock in self.locks.values_mut() {
            lock.version = lock.version.saturating_add(VERSION_LEAP);
            lock.first_index += CAPTURES_PER_LOCK_MAX;
        }
    }

    /// Losses that were accepted.
    #[must_use]
    pub const fn losses(&self) -> usize {
        self.losses.len()
    }

    /// A partition that waits for the operator's word.
    #[must_use]
    pub fn unreconciled(&self) -> Option<PartitionHandle> {
        self.unreconciled.first().copied()
    }

    pub(super) fn suspend(&mut self, partition: PartitionHandle) {
        self.unreconciled.insert(partition);
    }

    pub(crate) fn is_suspended(&self, partition: PartitionHandle) -> bool {
        self.unreconciled.contains(&partition)
    }

    /// What replies about a partition are marked with.
    pub(super) fn mark_of(&self, partition: PartitionHandle) -> u8 {
        if self.is_suspended(partition) { UNRECONCILED } else { 0 }
    }

    /// Of what is asked about: a lost life may have made it, whatever the age of its id.
    pub(super) fn may_be_lost(&self, named: Id) -> bool {
        self.losses.iter().any(|lost| named.time() <= lost.until)
    }

    /// Of a request's own id, which was in its window then.
    fn request_may_be_lost(&self, id: Id) -> bool {
        let at = id.time();
        self.losses.iter().any(|lost| lost.from.minus(ADVICE_WINDOW) <= at && at <= lost.until)
    }

    /// Nothing definite is said of an id that is not known and that a lost life may have decided.
    pub(super) fn check_not_lost(&self, caller: &Caller, record: &Record) -> Result<(), Code> {
        let kind = record.kind().ok_or(Code::Malformed)?;
        let asked = named(record).filter(|_| kind == Kind::Lookup);
        let id = asked.unwrap_or(record.id);
        let may_be_lost = asked.map_or_else(|| self.request_may_be_lost(id), |asked| self.may_be_lost(asked));
        if !may_be_lost {
            return Ok(());
        }
        let tenant = if record.tenant == TenantId(0) { caller.tenant } else { record.tenant };
        let key = (home_of(tenant, kind, record.partition), id);
        let is_known = self.locks.contains_key(&key) || self.spent.contains_key(&key);
        if is_known { Ok(()) } else { Err(Code::UnknownAfterRestore) }
    }

    /// The same of a lock that a request names. What the chain says is true of whatever it names.
    pub(super) fn check_lock_not_lost(&self, ask: &Ask, lock: Id) -> Result<(), Code> {
        let is_known =
            self.spent.contains_key(&(ask.home, lock)) || self.locks.contains_key(&(ask.home, lock));
        let is_fact = ask.kind.origin() == Origin::Chain;
        if !is_known && !is_fact && self.may_be_lost(lock) { Err(Code::UnknownAfterRestore) } else { Ok(()) }
    }

    /// Only the operator's admin works where nothing is reconciled, and it locks nothing.
    pub(super) fn check_reconciled(&self, caller: &Caller, ask: &Ask) -> Result<(), Code> {
        let is_admin = caller.tenant == TenantId(0) && caller.roles.has(Roles::ADMIN);
        let may_work = is_admin && !matches!(ask.kind, Kind::Lock | Kind::Increase);
        if may_work || !self.is_suspended(ask.home.1) { Ok(()) } else { Err(Code::UnknownAfterRestore) }
    }

    /// The operator's word.
    pub(super) fn reconcile(&mut self, ask: &Ask) -> Result<Outcome, Code> {
        if self.losses.is_empty() {
            return Err(Code::Malformed);
        }
        self.unreconciled.remove(&ask.partition);
        Ok(Outcome::new(Code::Approved))
    }
}

impl Lock {
    /// Where the capture stands that was told under an index.
    pub(super) fn place_of(&self, index: u16) -> Option<usize> {
        self.captures.iter().position(|capture| capture.index == index)
    }

    /// The index under which the next capture is told: none of a life that is lost.
    pub(super) fn next_index(&self) -> u16 {
        let next = self.captures.last().map_or(0, |last| usize::from(last.index) + 1);
        u16::try_from(next.max(self.first_index)).unwrap_or(u16::MAX)
    }
}
