//! Certificates that were called on chain: the lock waits, goes on, or is paid; and what was paid for no lock of ours.

use alloy_primitives::B256;
use chain::{At, Backend};
use settlement::{LockId, loss_reference};
use surety_client::{Outcome, request::Draft};
use surety_protocol::{Amount, ChangeBody, Code, ControlBody, Kind, PartitionHandle};

use crate::chain_facts::PutOff;
use crate::contract::Called;
use crate::error::{Notice, SettlerError};
use crate::note::Note;
use crate::scan::PaidOnChain;
use crate::settler::Settler;

impl Settler {
    /// Tells the engine which locks wait for the chain, and which no longer do. What a call has come to counts, not the steps
    /// on the way.
    pub(crate) async fn tell_calls(&mut self, chain: &dyn Backend, at: At) -> Result<(), SettlerError> {
        for name in self.scan.touched.clone() {
            let lock = LockId::from_word(&name);
            if lock.is_some_and(|lock| !self.is_abreast(lock.partition.shard())) {
                continue;
            }
            let state = self.contract(chain).called(B256::from(name), at)?;
            let code = match (lock, state) {
                (None, Called::Waits) => Code::UnknownLock,
                (Some(lock), Called::Waits) if !self.facts.is_called(&lock) => {
                    self.tell_guarantee(Kind::GuaranteeCalled, &lock, 0).await?
                }
                (Some(lock), Called::Dismissed) if self.facts.is_called(&lock) => {
                    self.tell_guarantee(Kind::GuaranteeDismissed, &lock, 0).await?
                }
                _ => Code::Approved,
            };
            // What ended otherwise than by the chain is answered there.
            let call = self.scan.calls.get(&name);
            let can_be_answered = lock
                .zip(call)
                .is_some_and(|(lock, call)| self.least(&lock, call).is_some_and(|least| least < call.owed));
            if !matches!(code, Code::Approved | Code::GuaranteeCalled) && !can_be_answered {
                self.notices.push(Notice::UnknownGuarantee { lock: B256::from(name).to_string(), code });
            }
            self.scan.touched.remove(&name);
        }
        Ok(())
    }

    /// Books what the contract has paid, whatever for: the next batches have to acknowledge all of it.
    pub(crate) async fn book_guarantees(&mut self) -> Result<(), SettlerError> {
        for paid in self.scan.paid.clone() {
            let name = (paid.partition, PutOff::Paid(paid.lock));
            if self.put_off.contains(&name) {
                continue;
            }
            let code = match self.sealer.netting().handle(&paid.partition) {
                Some(partition) => self.book_guarantee(partition, &paid).await?,
                None => Code::UnknownPartition,
            };
            if code == Code::Approved {
                self.scan.paid.retain(|waiting| *waiting != paid);
                continue;
            }
            self.put_off.insert(name);
            self.notices.push(Notice::GuaranteeNotBooked { paid, code });
        }
        Ok(())
    }

    /// On the lock, if it is one that can be paid; else the partition has lost it.
    async fn book_guarantee(
        &mut self,
        partition: PartitionHandle,
        paid: &PaidOnChain,
    ) -> Result<Code, SettlerError> {
        let lock = LockId::from_word(&paid.lock).filter(|lock| lock.partition == partition);
        let reference = loss_reference(&paid.lock);
        let is_booked = |settler: &Self| {
            lock.is_some_and(|lock| settler.facts.is_paid(&lock)) || settler.facts.is_loss(reference)
        };
        // Asked before a restart, and perhaps answered.
        self.resolve_open_request().await?;
        if is_booked(self) {
            return Ok(Code::Approved);
        }
        if let Some(lock) = lock {
            let code = self.tell_guarantee(Kind::GuaranteePaid, &lock, paid.amount).await?;
            if is_booked(self) || code == Code::Insufficient {
                return Ok(if is_booked(self) { Code::Approved } else { code });
            }
        }
        // Before it is booked: afterwards nobody could tell it from one that was told.
        if self.untold.insert(paid.lock, *paid).is_none() {
            self.journal.append(&Note::Loss(*paid))?;
        }
        let body = ControlBody { reference, ..ControlBody::default() };
        self.ask_once(Draft::new(Kind::Deficit, partition, Amount(paid.amount), &body)).await?;
        Ok(if is_booked(self) { Code::Approved } else { Code::Insufficient })
    }

    /// Losses that are booked go into the report that is about to be given.
    pub(crate) fn tell_losses(&mut self) {
        let booked = self.untold.values().filter(|paid| self.facts.is_loss(loss_reference(&paid.lock)));
        let booked: Vec<PaidOnChain> = booked.copied().collect();
        self.told = booked.iter().map(|paid| paid.lock).collect();
        self.notices.extend(booked.into_iter().map(Notice::PaidForNoLock));
    }

    /// Whoever asks for another turn has had the report of the last one. After a crash in between it is told again.
    pub(crate) fn note_what_was_told(&mut self) -> Result<(), SettlerError> {
        for lock in std::mem::take(&mut self.told) {
            self.journal.append(&Note::LossTold { lock })?;
            self.untold.remove(&lock);
        }
        Ok(())
    }

    /// Tells it, and reads the stream up to the answer, so that the next question knows of it.
    async fn tell_guarantee(
        &mut self,
        kind: Kind,
        lock: &LockId,
        amount: u128,
    ) -> Result<Code, SettlerError> {
        let body = ChangeBody { lock: lock.id, ..ChangeBody::default() };
        let draft = Draft::new(kind, lock.partition, Amount(amount), &body).tenant(lock.tenant);
        let known = self.sealer.netting().onchain_of(lock.partition).is_some();
        if !known || !(lock.id.is_uuid_v7() || lock.id.is_lasting()) {
            return Ok(Code::UnknownLock);
        }
        // A certificate may name whatever it likes: what the engine does not even admit is answered as well.
        let request = draft.into_record(|| self.client.new_id());
        match self.client.submit_definite(request).await? {
            Outcome::Executed(reply) | Outcome::Declined(reply) => {
                self.catch_up(lock.partition.shard(), reply.seq).await?;
                Ok(reply.code())
            }
            Outcome::Refused(reply) if !may_pass(reply.code()) => Ok(reply.code()),
            Outcome::Refused(reply) => Err(SettlerError::Engine(format!("it answers {}", reply.code()))),
            Outcome::Burned(reply) => {
                Err(SettlerError::Engine(format!("request {} was not admitted in time", reply.id)))
            }
        }
    }
}

/// True for refusals that have nothing to do with the request.
const fn may_pass(code: Code) -> bool {
    code.may_pass() || matches!(code, Code::StaleId | Code::IdFromFuture)
}
