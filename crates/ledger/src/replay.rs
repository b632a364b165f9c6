//! Replay: the log is executed again by the same code, and every byte that the engine wrote is compared.

use alloc::boxed::Box;

use surety_protocol::{
    ChangeBody, Code, ConsumeBody, ControlBody, Kind, Origin, Record, Seq, Time, sabotage,
};

use crate::decide::Source;
use crate::due::Action;
use crate::index::Found;
use crate::ledger::{Decision, Divergence, Ledger};

/// How many records the operation at the front of a log takes: one, a linked chain, or a head with its continuations.
/// `None` if the slice ends within it.
#[must_use]
pub fn operation_len(records: &[Record]) -> Option<usize> {
    let mut len = 0;
    loop {
        let record = records.get(len)?;
        let parts = record.continuations();
        len += 1 + parts;
        if len > records.len() {
            return None;
        }
        let is_request = record.kind().is_some_and(|kind| kind.origin() != Origin::Engine);
        if !is_request || !record.is_linked() || parts > 0 {
            return Some(len);
        }
    }
}

impl Ledger {
    /// Replays one logged operation, as [`operation_len`] groups them, or one internal record.
    ///
    /// # Errors
    /// What differs from what the ledger decides. The ledger is then of no use any more.
    pub fn replay(&mut self, first_seq: Seq, records: &[Record]) -> Result<(), Divergence> {
        let shape = Divergence::Shape { seq: first_seq };
        let Some(head) = records.first() else { return Err(shape) };
        let kind = head.kind().ok_or(shape)?;
        if head.time < self.time {
            return Err(Divergence::Time { seq: first_seq });
        }
        self.tick(head.time);
        match kind.origin() {
            Origin::Part => Err(Divergence::Shape { seq: first_seq }),
            Origin::Engine if records.len() == 1 => self.replay_internal(first_seq, kind, head),
            Origin::Engine => Err(Divergence::Shape { seq: first_seq }),
            _ => self.replay_operation(first_seq, records),
        }
    }

    fn replay_operation(&mut self, first_seq: Seq, records: &[Record]) -> Result<(), Divergence> {
        let mut decided = core::mem::take(&mut self.scratch);
        let mut replies = core::mem::take(&mut self.scratch_replies);
        decided.clear();
        replies.clear();
        for record in records {
            let Some(kind) = record.kind() else { return Err(Divergence::Shape { seq: first_seq }) };
            // What follows a long request is payload, not a request.
            let sent = if kind == Kind::Continuation { *record } else { record.as_sent() };
            let takes_collateral = matches!(kind, Kind::Lock | Kind::Increase);
            if takes_collateral && !self.due.is_empty() && self.has_due() {
                return Err(Divergence::NotDue { seq: first_seq, kind });
            }
            decided.push(sent);
        }
        let decision = self.decide_operation(Source::Log(records), first_seq, &mut decided, &mut replies);
        let compared = match decision {
            Decision::Logged => compare(first_seq, records, &decided),
            Decision::NotLogged => {
                let code = replies.iter().map(surety_protocol::Reply::code).min();
                Err(Divergence::NotLogged { seq: first_seq, code: code.unwrap_or(Code::Malformed) })
            }
        };
        for record in records {
            self.note_payable(record);
        }
        self.scratch = decided;
        self.scratch_replies = replies;
        compared
    }

    /// What a live ledger would have paid, the log pays; what is left is paid when the ledger goes live.
    fn note_payable(&mut self, record: &Record) {
        if let Some(slot) = self.partition_slot(record.partition)
            && !self.partitions[slot as usize].queue.is_empty()
            && self.is_payable(slot)
        {
            self.make_ready(slot);
        }
    }

    fn replay_internal(&mut self, seq: Seq, kind: Kind, logged: &Record) -> Result<(), Divergence> {
        let not_due = Divergence::NotDue { seq, kind };
        let decided = match kind {
            Kind::Start => return self.replay_start(seq, logged),
            Kind::Loss => self.replay_loss(seq, logged),
            Kind::Checkpoint => {
                self.clean();
                let reference = logged.body::<ControlBody>().reference;
                let found = self.sum;
                let same = Divergence::Checkpoint { seq, logged: reference, found };
                return if reference == found || sabotage!("state-hash-not-compared") {
                    Ok(())
                } else {
                    Err(same)
                };
            }
            Kind::WithdrawPaid => {
                let slot = self.partition_slot(logged.partition).filter(|slot| self.is_payable(*slot));
                slot.and_then(|slot| self.pay_front(slot))
            }
            _ => self.fire_logged(kind, logged),
        };
        let decided = decided.ok_or(not_due)?;
        self.note_payable(logged);
        compare(seq, core::slice::from_ref(logged), core::slice::from_ref(&decided))
    }

    /// The ledger must forget ids when the one that wrote the log did. A start that tells no window says nothing of it.
    fn replay_start(&self, seq: Seq, logged: &Record) -> Result<(), Divergence> {
        let (logged, ours) = (logged.body::<ControlBody>().until, self.config.id_window);
        if logged == Time::ZERO || logged == ours {
            Ok(())
        } else {
            Err(Divergence::Window { seq, logged, ours })
        }
    }

    /// Does what the log says that time did, if it may.
    fn fire_logged(&mut self, kind: Kind, logged: &Record) -> Option<Record> {
        let (lock, action) = match kind {
            Kind::Expire => (logged.body::<ChangeBody>().lock, Action::Expire),
            Kind::Mature => (logged.body::<ChangeBody>().lock, Action::Mature),
            Kind::AutoSettle => {
                let body: ChangeBody = logged.body();
                (body.lock, Action::SettleBy(u8::try_from(body.capture).ok()?))
            }
            Kind::AutoConsume => {
                let body: ConsumeBody = logged.body();
                (body.lock, Action::SettleBy(u8::try_from(body.capture).ok()?))
            }
            _ => return None,
        };
        let account = self.account_slot(logged.tenant, logged.partition)?;
        let Found::Lock(slot) = self.find(account, lock.0)? else { return None };
        if !self.may_fire(slot, action) {
            return None;
        }
        let record = self.fire(slot, action);
        self.arm_next(slot);
        Some(record)
    }
}

fn compare(first_seq: Seq, logged: &[Record], decided: &[Record]) -> Result<(), Divergence> {
    for (position, (logged, decided)) in logged.iter().zip(decided).enumerate() {
        if logged != decided && !sabotage!("outcome-not-compared-in-replay") {
            return Err(Divergence::Outcome {
                seq: Seq(first_seq.0 + position as u64),
                logged: Box::new(*logged),
                decided: Box::new(*decided),
            });
        }
    }
    Ok(())
}
