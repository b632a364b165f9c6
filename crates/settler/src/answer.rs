//! Answers to certificates that were called although less than they state is owed, or nothing: a batch has credited the lock, or
//! the merchant has let go of it by its own signature.
//!
//! Whoever has the proof may answer. The poster's nonces are those of batches alone, so this is done with a key of its own. Nothing
//! of it is in the settler's log: the contract takes an answer once, and shows what it has taken.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use alloy_primitives::{B256, Bytes, TxKind, U256};
use alloy_sol_types::SolCall;
use chain::bindings::Manager;
use chain::{
    At, Backend, Block, Call, CallError, DigestSigner, SendError, SignedTransaction, Tag, Transaction,
};
use settlement::life::{FeePolicy, Fees};
use settlement::{Hash, LockId, Released};
use surety_client::TailError;
use surety_protocol::{Cursor, Kind, Record, ReleaseGroup, Time, long, sabotage};

use crate::chain_facts::PutOff;
use crate::contract::{HeadInfo, batch_of};
use crate::error::{NotAnswered, Notice, SettlerError};
use crate::points::Point;
use crate::proofs::Published;
use crate::scan::OpenCall;
use crate::settler::Settler;

/// More than any answer uses; what is not used is not paid.
const ANSWER_GAS: u64 = 500_000;
/// Answers that wait to be mined: what nodes take of one account without asking.
const UNDER_WAY_MAX: usize = 16;
/// How long the engine may take to tell a release group again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answers.
pub(crate) struct Answerer {
    key: Box<dyn DigestSigner + Send>,
    /// Answers that were handed to a node, by nonce.
    under_way: BTreeMap<u64, UnderWay>,
    /// The node has a transaction with this nonce that pays at least this: of an earlier process.
    floor: Option<(u64, Fees)>,
    /// What proves credits: of the newest batch on chain.
    published: Option<Published>,
}

/// An answer that was handed to a node.
struct UnderWay {
    lock: Hash,
    signed: SignedTransaction,
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
        self.answerer = Some(Answerer { key, under_way: BTreeMap::new(), floor: None, published: None });
        Ok(())
    }

    /// Answers the calls that can be, those about most first, or tells why they are not answered. What goes wrong here holds
    /// nothing else up.
    pub(crate) async fn answer_calls(
        &mut self,
        chain: &mut dyn Backend,
        block: Block,
        head: &HeadInfo,
    ) -> Result<(), SettlerError> {
        if self.scan.calls.is_empty() || sabotage!("paid-calls-unanswered") {
            return Ok(());
        }
        match self.answer_all(chain, block, head).await {
            Err(error) if error.may_pass() => {
                self.notices.push(Notice::AnswersHeldUp(error.to_string()));
                Ok(())
            }
            other => other,
        }
    }

    async fn answer_all(
        &mut self,
        chain: &mut dyn Backend,
        block: Block,
        head: &HeadInfo,
    ) -> Result<(), SettlerError> {
        self.push_answers(chain, block)?;
        let mut calls: Vec<(Hash, OpenCall)> =
            self.scan.calls.iter().map(|(name, call)| (*name, *call)).collect();
        calls.sort_by_key(|(_, call)| Reverse(call.owed));
        for (name, call) in calls {
            let lock = LockId::from_word(&name);
            let Some((lock, least)) = lock.and_then(|lock| Some((lock, self.least(&lock, &call)?))) else {
                continue;
            };
            let is_put_off = self.put_off.contains(&(name, PutOff::Answer));
            if is_put_off || self.is_under_way(&name) || self.is_full() {
                continue;
            }
            let owed = self.contract(chain).owed_for_call(B256::from(name), At::Hash(block.hash))?;
            if least >= owed {
                continue;
            }
            let lock_name = B256::from(name);
            match self.answer(chain, &lock, &call, owed, block, head).await? {
                Ok(owed) => self.notices.push(Notice::AnswerSent { lock: lock_name, owed }),
                Err(why) => {
                    self.put_off.insert((name, PutOff::Answer));
                    let is_over = why == NotAnswered::EngineSilent;
                    self.notices.push(Notice::CallNotAnswered { lock: lock_name, why });
                    if is_over {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// What is owed for a call by the answer that leaves the least, if there is one.
    pub(crate) fn least(&self, lock: &LockId, call: &OpenCall) -> Option<u128> {
        let answers = self.sealer.netting().answers(lock)?;
        let paid = (answers.credited > 0).then(|| call.amount.saturating_sub(answers.credited));
        let released = answers.released.map(|released| released.still_owed);
        paid.into_iter().chain(released).min()
    }

    fn is_under_way(&self, lock: &Hash) -> bool {
        let under_way = self.answerer.iter().flat_map(|answerer| answerer.under_way.values());
        under_way.into_iter().any(|answer| answer.lock == *lock)
    }

    fn is_full(&self) -> bool {
        self.answerer.as_ref().is_some_and(|answerer| answerer.under_way.len() >= UNDER_WAY_MAX)
    }

    /// Sees after what was sent: what is mined is done with, what has vanished is sent again byte for byte, and what nobody mines
    /// for long is replaced by the same call for a higher price, as far as the policy ever goes.
    fn push_answers(&mut self, chain: &mut dyn Backend, block: Block) -> Result<(), SettlerError> {
        let (now, policy) = (self.client.now(), self.config.policy.fees);
        let Some(answerer) = &mut self.answerer else { return Ok(()) };
        let next = chain.nonce(answerer.key.address(), At::Hash(block.hash))?;
        answerer.under_way = answerer.under_way.split_off(&next);
        answerer.floor.take_if(|(nonce, _)| *nonce < next);
        for answer in answerer.under_way.values_mut() {
            if now.minus(answer.since) >= policy.replace_after
                && let Some(fees) = fees(&policy, block.base_fee, Some(fees_of(&answer.signed)))
            {
                let transaction =
                    Transaction { tip: fees.tip, cap: fees.cap, ..answer.signed.transaction.clone() };
                answer.signed = transaction.sign(answerer.key.as_ref())?;
                answer.since = now;
            } else if chain.is_pending(answer.signed.hash)? {
                continue;
            }
            // Whatever else the node has against it, the next look tells whether it was mined.
            if let Err(SendError::Backend(error)) = chain.send(&answer.signed.raw) {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Sends the answer that leaves the least owed and that the contract takes. Says what is owed then.
    async fn answer(
        &mut self,
        chain: &mut dyn Backend,
        lock: &LockId,
        call: &OpenCall,
        owed: u128,
        block: Block,
        head: &HeadInfo,
    ) -> Result<Result<u128, NotAnswered>, SettlerError> {
        let Some(from) = self.answerer.as_ref().map(|answerer| answerer.key.address()) else {
            return Ok(Err(NotAnswered::NoKey));
        };
        let mut why = NotAnswered::NotProvable;
        let mut answers: Vec<Answer> = self.by_credit(lock, call, head)?.into_iter().collect();
        let by_credit = answers.first().map_or(owed, |answer| answer.rest);
        if let Some(released) = self.released(lock).filter(|released| released.still_owed < by_credit) {
            match self.by_release(lock, released).await {
                Ok(answer) => answers.push(answer),
                Err(lost) => why = lost,
            }
        }
        answers.retain(|answer| answer.rest < owed);
        while let Some(Answer { rest, input }) = answers.pop() {
            let call = Call { from, to: self.config.place.manager, input };
            match chain.call(&call, At::Tag(Tag::Latest)) {
                Ok(_) => return Ok(self.send_answer(chain, lock, call.input, block)?.map(|()| rest)),
                Err(CallError::Reverted(data)) => why = NotAnswered::Refused(data),
                Err(CallError::Backend(error)) => return Err(error.into()),
            }
        }
        Ok(Err(why))
    }

    /// The proof that a batch which the contract has taken credits the lock.
    fn by_credit(
        &mut self,
        lock: &LockId,
        call: &OpenCall,
        head: &HeadInfo,
    ) -> Result<Option<Answer>, SettlerError> {
        let is_credited = self.sealer.netting().answers(lock).is_some_and(|answers| answers.credited > 0);
        let Some(answerer) = self.answerer.as_mut().filter(|_| is_credited) else { return Ok(None) };
        // All of the log is read for it: once for each batch, however many are called.
        if answerer.published.as_ref().is_none_or(|published| published.batch.seq != head.seq) {
            answerer.published = match Published::read(&self.config.directory, Some(head.seq)) {
                Ok(published) => published,
                // The node is far behind, and the older log is not there or damaged: a later batch proves it, and nothing else waits.
                Err(error) => {
                    tracing::warn!(%error, batch = head.seq, "a batch's leaves are not read for an answer");
                    None
                }
            };
        }
        let Some(published) = &answerer.published else { return Ok(None) };
        let Some(leaf) = published.consumed(*lock) else { return Ok(None) };
        let rest = call.amount.saturating_sub(leaf.amount);
        let call =
            Manager::dismissPaidCall { batch: batch_of(&published.batch), parts: published.join(), leaf };
        Ok(Some(Answer { rest, input: call.abi_encode().into() }))
    }

    fn released(&self, lock: &LockId) -> Option<Released> {
        self.sealer.netting().answers(lock)?.released
    }

    /// The merchant's signature, as the engine's log has it.
    async fn by_release(&self, lock: &LockId, released: Released) -> Result<Answer, NotAnswered> {
        let read = tokio::time::timeout(PATIENCE, self.release_group(lock, released)).await;
        let group = read.map_err(|_| NotAnswered::EngineSilent)??;
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
        Ok(Answer { rest: released.still_owed, input: call.abi_encode().into() })
    }

    /// Reads it from the engine once more: what nobody disputes need not be kept here.
    async fn release_group(&self, lock: &LockId, released: Released) -> Result<ReleaseGroup, NotAnswered> {
        let mut tail = self.client.tail(lock.partition.shard(), Cursor::anew(released.seq));
        let mut records: Vec<Record> = Vec::new();
        while records.first().is_none_or(|head| records.len() <= head.continuations()) {
            let (seq, record) = match tail.next().await {
                Ok(next) => next,
                Err(TailError::Lost { .. }) => return Err(NotAnswered::ReleaseGone),
                Err(_) => return Err(NotAnswered::EngineSilent),
            };
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
        lock: &LockId,
        input: Bytes,
        block: Block,
    ) -> Result<Result<(), NotAnswered>, SettlerError> {
        let (now, policy) = (self.client.now(), self.config.policy.fees);
        let Some(answerer) = &mut self.answerer else { return Ok(Err(NotAnswered::NoKey)) };
        let first = chain.nonce(answerer.key.address(), At::Hash(block.hash))?;
        let nonce = answerer.under_way.last_key_value().map_or(first, |(last, _)| first.max(last + 1));
        let floor = answerer.floor.filter(|(of, _)| *of == nonce).map(|(_, fees)| fees);
        let Some(fees) = fees(&policy, block.base_fee, floor) else { return Ok(Err(NotAnswered::TooDear)) };
        let transaction = Transaction {
            chain_id: self.config.place.chain_id,
            nonce,
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
                let lock = settlement::Word::word(lock);
                answerer.under_way.insert(nonce, UnderWay { lock, signed, since: now });
                Ok(())
            }
            Err(SendError::Backend(error)) => return Err(error.into()),
            Err(SendError::Underpriced) => {
                answerer.floor = Some((nonce, fees));
                Err(NotAnswered::NotTaken(SendError::Underpriced))
            }
            Err(error) => Err(NotAnswered::NotTaken(error)),
        };
        self.pass(Point::Sent)?;
        Ok(sent)
    }
}

fn fees_of(signed: &SignedTransaction) -> Fees {
    Fees { cap: signed.transaction.cap, tip: signed.transaction.tip }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_pays_an_eighth_more_and_never_more_than_the_policy_does() {
        const GWEI: u128 = 1_000_000_000;
        let policy = crate::Config::new(
            "",
            crate::Place {
                chain_id: 1,
                manager: alloy_primitives::Address::ZERO,
                code_hash: B256::ZERO,
                since_block: 0,
            },
        )
        .policy
        .fees;
        let first = fees(&policy, 10 * GWEI, None).unwrap();
        assert_eq!(first, Fees { cap: 21 * GWEI, tip: GWEI });
        let second = fees(&policy, 10 * GWEI, Some(first)).unwrap();
        assert!(second.cap * 8 > first.cap * 9 && second.tip * 8 > first.tip * 9, "{second:?}");
        // A base fee beyond all measure is offered the most; there is no replacing that.
        let most = fees(&policy, 900 * GWEI, None).unwrap();
        assert_eq!(most.cap, policy.cap_max);
        assert_eq!(fees(&policy, 900 * GWEI, Some(most)), None);
        assert_eq!(fees(&policy, GWEI, None).unwrap().cap, 3 * GWEI);
    }
}
