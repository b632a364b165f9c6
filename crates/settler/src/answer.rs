//! Answers to certificates that were called although less than they state is owed, or nothing: a batch has credited the lock, or
//! the merchant has let go of it by its own signature.
//!
//! Whoever has the proof may answer. The poster's nonces are those of batches alone, so this is done with a key of its own, one
//! transaction at a time. Nothing of it is in the settler's log: the contract takes an answer once, and shows what it has taken.

use std::cmp::Reverse;
use std::time::Duration;

use alloy_primitives::{B256, Bytes, TxKind, U256};
use alloy_sol_types::SolCall;
use chain::bindings::Manager;
use chain::{At, Backend, Block, Call, CallError, DigestSigner, SendError, Tag, Transaction};
use settlement::life::{FeePolicy, Fees};
use settlement::{Hash, LockId, Released};
use surety_protocol::{Kind, Record, ReleaseGroup, Time, long, sabotage};

use crate::chain_facts::PutOff;
use crate::contract::{HeadInfo, batch_of};
use crate::error::{NotAnswered, Notice, SettlerError};
use crate::points::Point;
use crate::proofs::Published;
use crate::settler::Settler;

/// More than any answer uses; what is not used is not paid.
const ANSWER_GAS: u64 = 500_000;
/// How long the engine may take to tell a release group again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who answers.
pub(crate) struct Answerer {
    key: Box<dyn DigestSigner + Send>,
    under_way: Option<UnderWay>,
    /// A transaction with the next nonce was refused, or not mined, for less than this.
    floor: Option<Fees>,
}

/// An answer that was handed to a node.
struct UnderWay {
    hash: B256,
    fees: Fees,
    since: Time,
}

/// What the contract is told, and what is owed then.
struct Answer {
    rest: u128,
    input: Bytes,
}

impl Settler {
    /// Lets it answer called guarantees, with a key that is used for nothing else and has ether for gas.
    ///
    /// # Errors
    /// [`SettlerError::PosterAnswers`]: each would take the other's nonces.
    pub fn answer_with(&mut self, key: Box<dyn DigestSigner + Send>) -> Result<(), SettlerError> {
        if key.address() == self.poster.address() {
            return Err(SettlerError::PosterAnswers);
        }
        self.answerer = Some(Answerer { key, under_way: None, floor: None });
        Ok(())
    }

    /// Answers the first call that can be, or tells why it is not answered.
    pub(crate) async fn answer_calls(
        &mut self,
        chain: &mut dyn Backend,
        block: Block,
        head: &HeadInfo,
    ) -> Result<(), SettlerError> {
        let calls: Vec<Hash> = self.scan.calls.keys().copied().collect();
        if calls.is_empty() || sabotage!("paid-calls-unanswered") || self.is_answering(chain)? {
            return Ok(());
        }
        for name in calls {
            let Some(lock) = LockId::from_word(&name).filter(|lock| self.least(lock).is_some()) else {
                continue;
            };
            let owed = self.contract(chain).owed_for_call(B256::from(name), At::Hash(block.hash))?;
            if self.least(&lock).is_none_or(|least| least >= owed)
                || self.put_off.contains(&(name, PutOff::Answer))
            {
                continue;
            }
            match self.answer(chain, &lock, owed, block, head).await? {
                Ok(owed) => {
                    self.notices.push(Notice::CallAnswered { lock: B256::from(name), owed });
                    return Ok(());
                }
                Err(why) => {
                    self.put_off.insert((name, PutOff::Answer));
                    self.notices.push(Notice::CallNotAnswered { lock: B256::from(name), why });
                }
            }
        }
        Ok(())
    }

    /// What is owed for a lock by the answer that leaves the least, if there is one.
    pub(crate) fn least(&self, lock: &LockId) -> Option<u128> {
        let answers = self.sealer.netting().answers(lock)?;
        let paid = (answers.credited > 0).then(|| answers.stated.saturating_sub(answers.credited));
        let released = answers.released.map(|released| released.still_owed);
        paid.into_iter().chain(released).min()
    }

    /// True while an answer is in the pool and not too old. One that is not is sent again, and pays more.
    fn is_answering(&mut self, chain: &dyn Backend) -> Result<bool, SettlerError> {
        let (now, policy) = (self.client.now(), self.config.policy.fees);
        let Some(answerer) = &mut self.answerer else { return Ok(false) };
        let Some(sent) = &answerer.under_way else { return Ok(false) };
        let is_mined = chain.receipt(sent.hash)?.is_some();
        if !is_mined && now.minus(sent.since) < policy.replace_after && chain.is_pending(sent.hash)? {
            return Ok(true);
        }
        answerer.floor = (!is_mined).then_some(sent.fees);
        answerer.under_way = None;
        Ok(false)
    }

    /// Sends the answer that leaves the least owed and that the contract takes. Says what is owed then.
    async fn answer(
        &mut self,
        chain: &mut dyn Backend,
        lock: &LockId,
        owed: u128,
        block: Block,
        head: &HeadInfo,
    ) -> Result<Result<u128, NotAnswered>, SettlerError> {
        let Some(from) = self.answerer.as_ref().map(|answerer| answerer.key.address()) else {
            return Ok(Err(NotAnswered::NoKey));
        };
        let (mut answers, mut why) = (Vec::new(), NotAnswered::NotProvable);
        answers.extend(self.by_credit(lock, head)?);
        match self.by_release(lock).await {
            Ok(answer) => answers.extend(answer),
            Err(lost) => why = lost,
        }
        answers.retain(|answer| answer.rest < owed);
        answers.sort_by_key(|answer| Reverse(answer.rest));
        while let Some(Answer { rest, input }) = answers.pop() {
            let call = Call { from, to: self.config.place.manager, input };
            match chain.call(&call, At::Tag(Tag::Latest)) {
                Ok(_) => return Ok(self.send_answer(chain, call.input, block)?.map(|()| rest)),
                Err(CallError::Reverted(data)) => why = NotAnswered::Refused(data),
                Err(CallError::Backend(error)) => return Err(error.into()),
            }
        }
        Ok(Err(why))
    }

    /// The proof that a batch which the contract has taken credits the lock.
    fn by_credit(&self, lock: &LockId, head: &HeadInfo) -> Result<Option<Answer>, SettlerError> {
        let Some(answers) = self.sealer.netting().answers(lock).filter(|answers| answers.credited > 0) else {
            return Ok(None);
        };
        let Some(published) = Published::read(&self.config.directory, Some(head.seq))? else {
            return Ok(None);
        };
        let Some(leaf) = published.consumed(*lock) else { return Ok(None) };
        let rest = answers.stated.saturating_sub(leaf.amount);
        let call =
            Manager::dismissPaidCall { batch: batch_of(&published.batch), parts: published.join(), leaf };
        Ok(Some(Answer { rest, input: call.abi_encode().into() }))
    }

    /// The merchant's signature, as the engine's log has it.
    async fn by_release(&self, lock: &LockId) -> Result<Option<Answer>, NotAnswered> {
        let answers = self.sealer.netting().answers(lock);
        let Some(released) = answers.and_then(|answers| answers.released) else { return Ok(None) };
        let group = self.release_group(lock, released).await?;
        let is_meant = |entry: &&surety_protocol::ReleaseEntry| {
            entry.lock == lock.id
                && (entry.version, entry.still_owed.0) == (released.version, released.still_owed)
        };
        let entry = group.entries.iter().find(is_meant).ok_or(NotAnswered::ReleaseGone)?;
        let call = Manager::dismissGuaranteeCall {
            lockId: B256::from(settlement::Word::word(lock)),
            version: entry.version,
            stillOwed: entry.still_owed.0,
            index: U256::from(entry.index),
            path: entry.path.iter().map(|hash| B256::from(*hash)).collect(),
            signature: group.signature.to_vec().into(),
        };
        Ok(Some(Answer { rest: released.still_owed, input: call.abi_encode().into() }))
    }

    /// Reads it from the engine once more: what nobody disputes need not be kept here.
    async fn release_group(&self, lock: &LockId, released: Released) -> Result<ReleaseGroup, NotAnswered> {
        let mut tail = self.client.tail(lock.partition.shard(), released.seq);
        let mut records: Vec<Record> = Vec::new();
        while records.first().is_none_or(|head| records.len() <= head.continuations()) {
            let next = tokio::time::timeout(PATIENCE, tail.next()).await;
            let Ok(Ok((seq, record))) = next else { return Err(NotAnswered::ReleaseGone) };
            let is_head = seq == released.seq && record.kind() == Some(Kind::ReleaseGroup);
            if records.is_empty() && !is_head {
                return Err(NotAnswered::ReleaseGone);
            }
            records.push(record);
        }
        let payload = long::join(&records).map_err(|_| NotAnswered::ReleaseGone)?;
        ReleaseGroup::from_bytes(&payload).map_err(|_| NotAnswered::ReleaseGone)
    }

    fn send_answer(
        &mut self,
        chain: &mut dyn Backend,
        input: Bytes,
        block: Block,
    ) -> Result<Result<(), NotAnswered>, SettlerError> {
        let (now, policy) = (self.client.now(), self.config.policy.fees);
        let Some(answerer) = &mut self.answerer else { return Ok(Err(NotAnswered::NoKey)) };
        let Some(fees) = fees(&policy, block.base_fee, answerer.floor) else {
            return Ok(Err(NotAnswered::TooDear));
        };
        let transaction = Transaction {
            chain_id: self.config.place.chain_id,
            nonce: chain.nonce(answerer.key.address(), At::Tag(Tag::Latest))?,
            tip: fees.tip,
            cap: fees.cap,
            gas_limit: ANSWER_GAS,
            to: TxKind::Call(self.config.place.manager),
            value: U256::ZERO,
            input,
        };
        let signed = transaction.sign(answerer.key.as_ref())?;
        let sent = match chain.send(&signed.raw) {
            Ok(_) | Err(SendError::AlreadyKnown) => {
                answerer.under_way = Some(UnderWay { hash: signed.hash, fees, since: now });
                Ok(())
            }
            Err(SendError::Backend(error)) => return Err(error.into()),
            Err(SendError::Underpriced) => {
                answerer.floor = Some(fees);
                Err(NotAnswered::NotTaken(SendError::Underpriced))
            }
            Err(error) => Err(NotAnswered::NotTaken(error)),
        };
        self.pass(Point::Sent)?;
        Ok(sent)
    }
}

/// Enough for the present base fee, and to replace what was refused or not mined. `None` beyond what the policy ever pays: what
/// an answer saves is worth more than any budget, so there is no other limit.
fn fees(policy: &FeePolicy, base_fee: u128, floor: Option<Fees>) -> Option<Fees> {
    let fresh = Fees { cap: base_fee.saturating_mul(2).saturating_add(policy.tip), tip: policy.tip };
    let least = floor.map_or(Fees::default(), Fees::bumped);
    let tip = fresh.tip.max(least.tip);
    let fees = Fees { cap: fresh.cap.min(policy.cap_max).max(least.cap).max(tip), tip };
    (fees.tip <= policy.tip_max && fees.cap <= policy.cap_max).then_some(fees)
}
