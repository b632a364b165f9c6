//! What is final on the chain is carried to the engine, each once; and calls of what was credited are answered.

use settlement::LockId;
use surety_protocol::{Body, ChangeBody, Code, ControlBody, Kind, StakeBody, TenantId, sabotage};

use super::disk::Note;
use super::restart::reference_of;
use super::telling::Draft;
use super::turn::{Did, Turn};
use super::{Purpose, Settler, Stop, Supply};
use crate::chain::{Block, CallState, Event, Request};

/// Blocks after which an answer that was not mined is sent again.
const ANSWER_BLOCKS: u64 = 4;

impl Settler {
    /// Reads the final events, and tells the engine of them: only what is final, and each once.
    pub(super) fn carry_facts(&mut self, turn: &mut Turn<'_, '_>) -> Result<(), Stop> {
        let chain = &*turn.around.chain;
        let newest = chain.behind(turn.around.node.lag);
        let finalized = chain.finalized(turn.around.node.lag);
        let until: &Block = if sabotage!("supply-credited-before-final") { newest } else { finalized };
        let events = chain.events(until);
        for event in events.get(self.scan.events..).unwrap_or_default() {
            match event {
                Event::Supplied { partition, supplier, amount, nonce } => self.scan.supplies.push(Supply {
                    partition: *partition,
                    supplier: *supplier,
                    amount: *amount,
                    nonce: *nonce,
                }),
                Event::Committed(_) => {}
                Event::Touched(lock) => _ = self.scan.touched.insert(*lock),
                Event::Paid { lock, amount, .. } => {
                    self.scan.touched.remove(lock);
                    self.scan.paid.push((*lock, *amount));
                }
            }
        }
        self.scan.events = self.scan.events.max(events.len());
        let calls: Vec<_> = self
            .scan
            .touched
            .iter()
            .map(|lock| (*lock, until.state.calls.get(lock).map(|call| call.state)))
            .collect();
        for (lock, state) in calls {
            self.tell_call(lock, state, turn)?;
        }
        self.book_guarantees(turn)?;
        self.credit_supplies(turn)
    }

    fn credit_supplies(&mut self, turn: &mut Turn<'_, '_>) -> Result<(), Stop> {
        for supply in self.scan.supplies.clone() {
            let Supply { partition, supplier, amount, nonce } = supply;
            let Some(handle) = self.sealer.netting().handle(&partition) else { continue };
            if self.facts.is_credited(handle, nonce) {
                self.scan.supplies.retain(|waiting| *waiting != supply);
                continue;
            }
            let body = StakeBody { supplier, nonce, ..StakeBody::default() };
            let draft = Draft { kind: Kind::Deposit, tenant: TenantId(0), partition: handle, amount, body };
            self.tell(Purpose::Credit(nonce), draft, turn)?;
        }
        Ok(())
    }

    /// What a call has come to counts, not the steps on the way.
    fn tell_call(
        &mut self,
        lock: LockId,
        state: Option<CallState>,
        turn: &mut Turn<'_, '_>,
    ) -> Result<(), Stop> {
        let is_called = self.facts.is_called(&lock);
        let (kind, purpose) = match state {
            Some(CallState::Waits) if !is_called => (Kind::GuaranteeCalled, Purpose::Called(lock)),
            Some(CallState::Dismissed) if is_called => (Kind::GuaranteeDismissed, Purpose::Dismissed(lock)),
            _ => {
                self.scan.touched.remove(&lock);
                return Ok(());
            }
        };
        if self.telling.declined(&purpose).is_some() {
            // A lock that has ended otherwise: nothing of it waits for the chain.
            self.scan.touched.remove(&lock);
            return Ok(());
        }
        self.tell(purpose, about(kind, &lock, 0), turn)
    }

    /// Books what the contract has paid: on the lock, if it is one that can be paid; else the partition has lost it.
    fn book_guarantees(&mut self, turn: &mut Turn<'_, '_>) -> Result<(), Stop> {
        for (lock, amount) in self.scan.paid.clone() {
            let reference = reference_of(&lock);
            if self.facts.is_paid(&lock) || self.facts.is_loss(reference) {
                self.scan.paid.retain(|(waiting, _)| *waiting != lock);
                continue;
            }
            let is_no_lock =
                self.telling.declined(&Purpose::Paid(lock)).is_some_and(|code| code != Code::Insufficient);
            if is_no_lock {
                let body = ControlBody { reference, ..ControlBody::default() };
                let partition = lock.partition;
                let draft = Draft { kind: Kind::Deficit, tenant: TenantId(0), partition, amount, body };
                self.tell(Purpose::Lost(reference), draft, turn)?;
            } else {
                self.tell(Purpose::Paid(lock), about(Kind::GuaranteePaid, &lock, amount), turn)?;
            }
        }
        Ok(())
    }

    /// Asks for something, unless that is under way. What the ledger would take twice is noted before it is sent.
    pub(super) fn tell<B: Body>(
        &mut self,
        purpose: Purpose,
        draft: Draft<B>,
        turn: &mut Turn<'_, '_>,
    ) -> Result<(), Stop> {
        if !self.telling.may_ask(&purpose, turn.around.step) {
            return Ok(());
        }
        let request = draft.into_record(turn.around.now, turn.around.random);
        if matches!(purpose, Purpose::Lost(_)) {
            self.files.append(&Note::Asked(Box::new(request)))?;
            self.pass()?;
        }
        self.telling.note(purpose, request, turn.around.step);
        turn.requests.push(request);
        self.pass()
    }

    /// What batches have credited of a called lock is not paid again.
    pub(super) fn answer_calls(&mut self, turn: &mut Turn<'_, '_>) {
        let newest = turn.around.chain.behind(turn.around.node.lag);
        let block = newest.number;
        let mut answers = Vec::new();
        for (lock, call) in &newest.state.calls {
            let credited = newest.state.consumed(lock);
            let rest = call.certificate.amount.saturating_sub(credited);
            if call.state == CallState::Waits && rest < call.owed {
                answers.push(*lock);
            }
        }
        for lock in answers {
            let is_under_way = self.answers.get(&lock).is_some_and(|at| block < at + ANSWER_BLOCKS);
            if !is_under_way {
                self.answers.insert(lock, block);
                turn.around.chain.ask(Request::Answer(lock));
                turn.did.push(Did::Answered);
            }
        }
    }
}

fn about(kind: Kind, lock: &LockId, amount: u128) -> Draft<ChangeBody> {
    let body = ChangeBody { lock: lock.id, ..ChangeBody::default() };
    Draft { kind, tenant: lock.tenant, partition: lock.partition, amount, body }
}
