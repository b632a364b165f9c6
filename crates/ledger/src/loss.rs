//! What a loss leaves behind: ids of which nobody can tell, partitions whose books may be wrong, leaps over the life that is lost.
//!
//! A loss changes no lock: that would be a change of all of them at once, which no merge of a snapshot with its log could follow.
//! What leaps is derived instead, from the losses and from when a lock was made.

use surety_protocol::limits::{
    ADVICE_WINDOW, CAPTURES_PER_LOCK_MAX, ID_FUTURE_MAX, LOSSES_MAX, VERSION_LEAP,
};
use surety_protocol::{
    Amount, Caller, Code, End, Id, Kind, LossBody, PartitionHandle, Record, Roles, Seq, TenantId, Time,
    sabotage,
};

use crate::canon::{Field, KeyPart, Reader, Sink};
use crate::decide::home;
use crate::ledger::{Ledger, SHARD_SLOT};
use crate::lock::{Armed, Lock};
use crate::wire;

/// What an operator has accepted to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// Names the life that begins: drawn at random, so that two restores of one backup differ.
    pub life: u128,
    /// Until when the life that is lost may have decided. Ids reach [`ID_FUTURE_MAX`] beyond.
    pub until: Time,
}

/// Why a ledger cannot live on after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossError {
    /// Leaps have no more room.
    #[error(
        "this shard has lived on after {LOSSES_MAX} losses and cannot after another: move its partitions to a new engine"
    )]
    TooMany,
    /// The clock says that the records which are kept are not yet written.
    #[error(
        "the clock says {} ms, the last record that is kept is of {} ms: set the clock right, then try again",
        now.0 / 1_000_000, kept.0 / 1_000_000
    )]
    ClockBehind {
        /// What it says.
        now: Time,
        /// The last record's time.
        kept: Time,
    },
    /// The life that is lost cannot have ended before what is kept.
    #[error(
        "the last record that is kept is of {} ms: what is lost cannot have ended at {} ms",
        kept.0 / 1_000_000, until.0 / 1_000_000
    )]
    Until {
        /// The end that was stated.
        until: Time,
        /// The last record's time.
        kept: Time,
    },
}

/// A loss, as the ledger keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) life: u128,
    /// The last record that was kept.
    pub(crate) after: Seq,
    pub(crate) from: Time,
    pub(crate) until: Time,
    pub(crate) version_leap: u16,
    pub(crate) capture_leap: u16,
}

impl Loss {
    /// True if the life that is lost may have decided under an id. It took ids that were as old as any may be.
    fn covers(&self, id: u128) -> bool {
        self.from.minus(ADVICE_WINDOW) <= Id(id).time() && self.covers_name(id)
    }

    /// True if it may have a lock under an id, or somebody was told what became of one: an advice makes its lock under an id of
    /// any age.
    fn covers_name(&self, id: u128) -> bool {
        Id(id).time() <= self.until
    }

    pub(crate) fn put(&self, out: &mut impl Sink) {
        self.after.0.put_in_key(out);
        self.life.put(out);
        self.from.put(out);
        self.until.put(out);
        self.version_leap.put(out);
        self.capture_leap.put(out);
    }

    pub(crate) fn take(from: &mut Reader) -> Option<Self> {
        let after = Seq(u64::from_be_bytes(from.array()?));
        let loss = Self {
            after,
            life: from.read()?,
            from: from.read()?,
            until: from.read()?,
            version_leap: from.read()?,
            capture_leap: from.read()?,
        };
        loss.is_sound().then_some(loss)
    }

    fn is_sound(&self) -> bool {
        self.from <= self.until && usize::from(self.capture_leap) == CAPTURES_PER_LOCK_MAX
    }

    fn of(body: &LossBody) -> Self {
        let LossBody { life, after, from, until, version_leap, capture_leap, reserved: _ } = *body;
        Self { life, after, from, until, version_leap, capture_leap }
    }

    const fn body(&self) -> LossBody {
        let Self { life, after, from, until, version_leap, capture_leap } = *self;
        LossBody { life, after, from, until, version_leap, capture_leap, reserved: [0; 12] }
    }
}

impl Ledger {
    /// What was decided after this state is lost, and the engine lives on: makes the record that says so, already applied, with `seq`.
    /// It follows right behind the start of the life that begins, `after` being the last record before that.
    ///
    /// From now on every partition is unreconciled, ids that the lost life may have decided are answered
    /// [`Code::UnknownAfterRestore`], and versions and indices of captures leap.
    ///
    /// # Errors
    /// A [`LossError`]; nothing has changed.
    pub fn accept_loss(
        &mut self,
        now: Time,
        after: Seq,
        accepted: AcceptedLoss,
    ) -> Result<Record, LossError> {
        let (from, AcceptedLoss { life, until }) = (self.time, accepted);
        self.check_another_loss()?;
        if now < from {
            return Err(LossError::ClockBehind { now, kept: from });
        }
        if until < from {
            return Err(LossError::Until { until, kept: from });
        }
        self.tick(now);
        let until = until.max(now).plus(ID_FUTURE_MAX);
        #[allow(clippy::cast_possible_truncation, reason = "a small constant")]
        let capture_leap = CAPTURES_PER_LOCK_MAX as u16;
        let loss = Loss { life, after, from, until, version_leap: VERSION_LEAP, capture_leap };
        self.note_loss(loss);
        Ok(self.loss_record(&loss))
    }

    /// The same out of the log; `None` if the record cannot be there.
    pub(crate) fn replay_loss(&mut self, seq: Seq, logged: &Record) -> Option<Record> {
        let loss = Loss::of(&logged.body());
        let follows = loss.after.0.checked_add(2) == Some(seq.0)
            && self.losses.last().is_none_or(|last| last.after < loss.after)
            && self.losses.len() < LOSSES_MAX;
        let is_sound = follows && loss.is_sound() && loss.from <= self.time && self.time < loss.until;
        is_sound.then(|| {
            self.note_loss(loss);
            self.loss_record(&loss)
        })
    }

    /// Whether this shard can live on after one more loss.
    ///
    /// # Errors
    /// [`LossError::TooMany`].
    pub const fn check_another_loss(&self) -> Result<(), LossError> {
        if self.losses.len() < LOSSES_MAX { Ok(()) } else { Err(LossError::TooMany) }
    }

    fn loss_record(&self, loss: &Loss) -> Record {
        let shard = PartitionHandle::new(self.config.shard, 0);
        let mut record = Record::new(Kind::Loss, Id(0), shard, Amount::ZERO, &loss.body());
        record.time = self.time;
        record.code = Code::Approved as u8;
        record
    }

    fn note_loss(&mut self, loss: Loss) {
        self.losses.push(loss);
        self.hash_in(self.loss_hash(&loss));
        for slot in SHARD_SLOT + 1..self.partition_count() {
            self.unsettle(slot);
        }
    }

    /// Marks a partition unreconciled.
    pub(crate) fn unsettle(&mut self, slot: u32) {
        let is_known = core::mem::replace(&mut self.partition_mut(slot).is_unreconciled, true);
        if !is_known {
            self.hash_in(self.unreconciled_hash(slot));
        }
    }

    /// Ends that: time does again what it does. What has become due meanwhile is due now.
    pub(crate) fn resume(&mut self, slot: u32) {
        self.hash_out(self.unreconciled_hash(slot));
        let partition = self.partition_mut(slot);
        partition.is_unreconciled = false;
        for (slot, id) in core::mem::take(&mut partition.suspended) {
            let lock = self.locks.get(slot);
            // A change since may have armed it otherwise, and its slot may be another lock's.
            if lock.id == id && lock.end != End::None && lock.armed == Armed::SUSPENDED {
                self.arm_next(slot);
            }
        }
        if self.is_payable(slot) {
            self.make_ready(slot);
        }
    }

    /// True if time does nothing to a partition, since nobody knows what the life that is lost has done to it.
    pub(crate) fn is_suspended(&self, slot: u32) -> bool {
        self.partitions[slot as usize].is_unreconciled && !sabotage!("time-goes-on-unreconciled")
    }

    /// True if a request whose id is not known may have been decided by a life that is lost.
    fn request_may_be_lost(&self, id: u128) -> bool {
        self.losses.iter().any(|loss| loss.covers(id)) && !sabotage!("lost-id-is-definite")
    }

    /// True if what is asked about under an id, and is not known, may be of a life that is lost.
    pub(crate) fn may_be_lost(&self, named: u128) -> bool {
        self.losses.iter().any(|loss| loss.covers_name(named)) && !sabotage!("lost-id-is-definite")
    }

    /// Whether a request, or what it looks up, may have been decided by a life that is lost. It is asked before everything that would
    /// say "definitely not": rights, partitions and quotas may be those of a backup, too.
    pub(crate) fn check_not_lost(&self, caller: &Caller, kind: Kind, record: &Record) -> Result<(), Code> {
        if self.losses.is_empty() || !caller.may_send(kind, record.tenant) {
            return Ok(());
        }
        let (id, may_be_lost) = if kind == Kind::Lookup {
            let named = wire::lock_of(record).0;
            (named, self.may_be_lost(named))
        } else {
            (record.id.0, self.request_may_be_lost(record.id.0))
        };
        if !may_be_lost {
            return Ok(());
        }
        let tenant = if record.tenant == TenantId(0) { caller.tenant } else { record.tenant };
        let account = self.account_slot(tenant, home(self, kind, record.partition));
        let is_known = account.is_some_and(|account| self.find(account, id).is_some());
        if is_known { Ok(()) } else { Err(Code::UnknownAfterRestore) }
    }

    /// The same of a lock that a request names and that is not known. Facts of the chain are true of whatever they name.
    pub(crate) fn check_lock_not_lost(&self, ask: &crate::decide::Ask, lock: u128) -> Result<(), Code> {
        let is_fact = ask.kind.origin() == surety_protocol::Origin::Chain;
        if ask.is_live && !is_fact && self.may_be_lost(lock) {
            Err(Code::UnknownAfterRestore)
        } else {
            Ok(())
        }
    }

    /// Whether a request may be executed in its partition. In one that is unreconciled only the operator's admin works, and it
    /// locks nothing: what is free in the books may not be.
    pub(crate) fn check_reconciled(&self, caller: &Caller, kind: Kind, slot: u32) -> Result<(), Code> {
        let is_operator = caller.tenant == TenantId(0) && caller.roles.has(Roles::ADMIN);
        let may_work = is_operator && !matches!(kind, Kind::Lock | Kind::Increase);
        if !self.partitions[slot as usize].is_unreconciled
            || may_work
            || sabotage!("unreconciled-takes-requests")
        {
            Ok(())
        } else {
            Err(Code::UnknownAfterRestore)
        }
    }

    /// The losses that this shard lives on after, oldest first: the last seq that was kept, and the name of the life that began.
    pub fn losses_accepted(&self) -> impl ExactSizeIterator<Item = (Seq, u128)> {
        self.losses.iter().map(|loss| (loss.after, loss.life))
    }

    /// How many losses this shard lives on after.
    #[must_use]
    pub const fn losses(&self) -> usize {
        self.losses.len()
    }

    /// The losses that a lock has lived through.
    fn losses_of(&self, lock: &Lock) -> impl Iterator<Item = &Loss> {
        let before = self.losses.partition_point(|loss| loss.after < lock.seq);
        self.losses[before..].iter()
    }

    /// A lock's version: what was told of it in a life that is lost is never told again.
    #[inline]
    pub(crate) fn version(&self, lock: &Lock) -> u16 {
        if self.losses.is_empty() || sabotage!("versions-repeat") {
            return lock.version;
        }
        self.losses_of(lock).fold(lock.version, |version, loss| version.saturating_add(loss.version_leap))
    }

    /// The index of a lock's next capture; `None` if there can be none.
    #[inline]
    pub(crate) fn next_capture(&self, lock: &Lock) -> Option<u8> {
        if usize::from(lock.count) >= CAPTURES_PER_LOCK_MAX {
            return None;
        }
        if self.losses.is_empty() || sabotage!("captures-repeat") {
            return Some(lock.count);
        }
        let base = self.losses_of(lock).map(|loss| u32::from(loss.capture_leap)).sum::<u32>();
        let last = self.capture_slots(lock).next().map(|slot| self.captures.get(slot).index);
        let next = last.map_or(0, |last| u32::from(last) + 1).max(base);
        u8::try_from(next).ok().filter(|index| *index < u8::MAX)
    }

    fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }
}
