//! Row 32: what became of an id.

use surety_protocol::{ChangeBody, Code, End, Flags, Kind, Record};

use super::{Ask, Outcome};
use crate::index::Found;
use crate::ledger::{Ledger, stale_at};
use crate::op::{Memo, NO_CAPTURE, Op, Quota, Side};
use crate::slab::NONE;

impl Ledger {
    /// The code is that of the id's own request, so that a lost reply is made good. With `BURN` an unknown id is spent,
    /// which alone makes "not executed" definite. The look-up's own id is only for matching.
    pub(super) fn lookup(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: ChangeBody = record.body();
        match self.find(ask.account, body.lock.0) {
            Some(Found::Lock(slot)) => Ok(self.show_lock(slot, body.capture)),
            Some(Found::Op(slot)) => Ok(self.show_op(slot)),
            // Neither "not found" nor a burn would be true: somebody may have been told that it was executed.
            None if self.may_be_lost(body.lock.0) => Err(Code::UnknownAfterRestore),
            None => {
                let unknown = Outcome { needs_op: false, is_logged: false, ..Outcome::new(Code::NotFound) };
                // An id that is too old may have been executed and forgotten since: nobody can tell any more, and without a
                // record the answer is not definite.
                let is_stale =
                    self.time >= stale_at(body.lock.0, Kind::Lookup, ask.is_lasting, self.config.id_window);
                if !record.flags().has(Flags::BURN) || is_stale {
                    return Ok(unknown);
                }
                if ask.is_live && !ask.is_operator && self.partitions[ask.partition as usize].is_unreconciled
                {
                    return Err(Code::UnknownAfterRestore);
                }
                if ask.is_live {
                    self.check_not_of_the_future(body.lock.0)?;
                    self.check_pace()?;
                    if let Some(tenant) = self.quotas_of(ask) {
                        tenant.check_ids(if ask.is_lasting { Quota::Advices } else { Quota::Ids })?;
                    }
                    self.check_room_for_ids(1)?;
                }
                let mut burned = Op::new(body.lock.0, ask.account, Kind::Lookup, Code::Burned, ask.seq);
                if ask.is_lasting {
                    burned.memo = Memo::Lasting;
                }
                self.insert_op(burned, ask.is_lasting.then(Side::default));
                Ok(Outcome { end: End::Declined, is_logged: true, ..unknown })
            }
        }
    }

    /// Of a lock that has ended also what is open of one of its captures.
    fn show_lock(&self, slot: u32, capture: u16) -> Outcome {
        let lock = self.locks.get(slot);
        let mut outcome = Outcome::new(lock.code).of(slot);
        outcome.approved = if lock.is_live() { lock.total() } else { lock.captured };
        outcome.extra = if !lock.is_live() {
            self.capture_slot(lock, capture).map_or(0, |slot| self.captures.get(slot).open)
        } else if lock.ext == NONE {
            0
        } else {
            self.exts.get(lock.ext).headroom
        };
        outcome.deadline = lock.deadline;
        outcome.capture = u16::from(lock.count);
        outcome.seq = lock.seq;
        Outcome { needs_op: false, is_logged: false, ..outcome }
    }

    fn show_op(&self, slot: u32) -> Outcome {
        let op = self.ops.get(slot);
        let mut outcome = Outcome::new(op.code);
        outcome.end = self.end_of_op(op);
        outcome.seq = op.seq;
        if op.capture != NO_CAPTURE {
            outcome.capture = u16::from(op.capture);
        }
        if op.memo.has_side() {
            let side = self.sides.get(op.side);
            outcome.about = side.lock;
            (outcome.approved, outcome.extra, outcome.deadline) = (side.approved, side.extra, side.deadline);
        }
        Outcome { needs_op: false, is_logged: false, ..outcome }
    }
}
