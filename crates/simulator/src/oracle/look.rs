//! Row 32: what became of an id.

use surety_protocol::{ChangeBody, Code, End, Flags, Id, Kind, Record};

use super::admission::named;
use super::{Ask, Oracle, Outcome};

impl Oracle {
    pub(super) fn look_up(&mut self, ask: &Ask, record: &Record) -> Result<Outcome, Code> {
        let id = named(record).ok_or(Code::Malformed)?;
        let key = (ask.home, id);
        if let Some(lock) = self.locks.get(&key) {
            let mut outcome = Outcome::of(lock.first.0, id);
            outcome.is_logged = false;
            outcome.seq = lock.first.4;
            outcome.approved = if lock.is_live() { lock.total() } else { lock.c };
            outcome.extra =
                if lock.is_live() { lock.g } else { lock.open_of(record.body::<ChangeBody>().capture) };
            outcome.deadline = lock.deadline;
            outcome.capture = u16::try_from(lock.captures.len()).unwrap_or(0);
            return Ok(outcome);
        }
        if let Some(spent) = self.spent.get(&key) {
            let mut outcome = Outcome::new(spent.answer.code);
            outcome.is_logged = false;
            outcome.seq = spent.answer.seq;
            outcome.end = self.end_of_spent(ask.home, id).unwrap_or(End::None);
            outcome.approved = spent.answer.approved;
            outcome.extra = spent.answer.extra;
            outcome.deadline = spent.answer.deadline;
            outcome.capture = spent.answer.capture;
            outcome.about = spent.lasting;
            return Ok(outcome);
        }
        if self.may_be_lost(id) {
            return Err(Code::UnknownAfterRestore);
        }
        let mut outcome = Outcome::new(Code::NotFound);
        outcome.is_logged = false;
        if !record.flags().has(Flags::BURN) || self.is_stale(id, Kind::Lookup, ask.is_lasting) {
            return Ok(outcome);
        }
        if !ask.is_operator && self.is_suspended(ask.partition) {
            return Err(Code::UnknownAfterRestore);
        }
        self.check_not_ahead(id)?;
        if let Some(code) = self.ids_used_up(ask, ask.is_lasting).filter(|_| !ask.is_operator) {
            return Err(code);
        }
        self.check_room_for(1)?;
        let lasting = ask.is_lasting.then_some(Id(0));
        self.spend(ask.home, id, Kind::Lookup, lasting, Code::Burned, ask.seq);
        outcome.is_logged = true;
        outcome.end = End::Declined;
        Ok(outcome)
    }
}
