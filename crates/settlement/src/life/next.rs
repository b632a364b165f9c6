//! What to do next: one pure function of the log and a view of the chain.

use surety_protocol::{Time, sabotage};

use super::entry::{Attempt, Halt, Purpose, Refusal};
use super::fees::{DataPolicy, FeePolicy, Fees, Quote, Urgency};
use super::flush::FlushPolicy;
use super::log::Log;
use super::view::{ContractHead, TxState, View};
use crate::hash::Hash;

/// Batches that may be under way and not in a block yet. Past it the pile grows, and nets better.
const IN_FLIGHT_MAX: u64 = 3;
/// Attempts for a nonce while no block is made: the first, and the one that outbids what it met in the pool.
const SIGNED_PER_BLOCK_MAX: usize = 2;

/// What is decided by configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What is paid.
    pub fees: FeePolicy,
    /// When to seal.
    pub flush: FlushPolicy,
    /// What is published with a commit.
    pub data: DataPolicy,
}

/// What the settler does next. It does that alone, and asks again with a fresh view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing now.
    Wait,
    /// Seal what was netted, with at most so much new credit, and append it.
    Seal {
        /// In base units.
        credit_max: u128,
    },
    /// Sign a transaction, append it, and sync: only then may it be sent.
    Sign {
        /// The batch; for a cancellation the held one.
        seq: u64,
        /// What for.
        purpose: Purpose,
        /// With this nonce and no other.
        nonce: u64,
        /// Paying this.
        fees: Fees,
    },
    /// Send the bytes of this logged attempt. `already known` is success; so is being refused for a nonce that is spent.
    Broadcast {
        /// Of the attempt.
        hash: Hash,
    },
    /// Append that the batch is final.
    Finalise {
        /// Which.
        seq: u64,
        /// The finalized block's number.
        block: u64,
        /// The account's next nonce there.
        nonce: u64,
    },
    /// Tell the ledger what the final batch has credited, then append that it is booked. The ledger books a number once.
    Book {
        /// Which.
        seq: u64,
    },
    /// Append that the contract refuses the batch.
    Hold {
        /// Which.
        seq: u64,
        /// The rule.
        refusal: Refusal,
    },
    /// No attempt of the held batch can land any more: append that it and those after it are dropped, and take the sealer
    /// back to the batch before.
    Reseal {
        /// The first of them.
        from: u64,
    },
    /// Append the reason, and stop.
    Halt(Halt),
}

/// What somebody should know. The settler goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The poster cannot pay for the next transaction.
    InsufficientFunds,
    /// The next transaction costs more than the batch is worth yet.
    TooDear,
    /// The ceiling was passed because the deadline has come.
    CeilingPassed,
    /// The contract refuses a batch.
    Held(Refusal),
    /// The node shows an older finalized block than it once did.
    StaleView,
    /// The settler has stopped.
    Halted(Halt),
}

/// An action, and what somebody should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// To be done.
    pub action: Action,
    /// To be told.
    pub alarm: Option<Alarm>,
}

/// What to do next, from nothing but the log and what the chain shows now.
#[must_use]
pub fn next_action(log: &Log, view: &View, policy: &Policy) -> Decision {
    if let Some(halt) = log.halt() {
        return Decision { action: Action::Wait, alarm: Some(Alarm::Halted(halt)) };
    }
    if view.finalized_block < log.final_block() {
        return Decision { action: Action::Wait, alarm: Some(Alarm::StaleView) };
    }
    if let Some(halt) = why_halt(log, view) {
        return Decision { action: Action::Halt(halt), alarm: Some(Alarm::Halted(halt)) };
    }
    if let Some(action) = book_keeping(log, view) {
        return action.into();
    }
    let next = view.latest.seq + 1;
    if let Some(refusal) = log.open(next).and_then(|open| open.held) {
        let decision = clear_the_way(log, view, policy, next);
        return Decision { alarm: decision.alarm.or(Some(Alarm::Held(refusal))), ..decision };
    }
    if let Some((seq, refusal)) = view.refusal
        && seq == next
        && log.open(seq).is_some()
    {
        return Decision { action: Action::Hold { seq, refusal }, alarm: Some(Alarm::Held(refusal)) };
    }
    let mut alarm = None;
    for seq in next..next + IN_FLIGHT_MAX {
        if log.open(seq).is_none_or(|open| open.held.is_some()) {
            break;
        }
        let decision = send(log, view, policy, seq, Purpose::Commit, view.nonce + (seq - next));
        if decision.action != Action::Wait {
            return decision;
        }
        alarm = alarm.or(decision.alarm);
    }
    let action = seal(log, view, policy);
    Decision { action, alarm }
}

impl From<Action> for Decision {
    fn from(action: Action) -> Self {
        Self { action, alarm: None }
    }
}

/// The chain is not what this log was written against.
fn why_halt(log: &Log, view: &View) -> Option<Halt> {
    if !view.is_right_chain {
        return Some(Halt::WrongChain);
    }
    if view.finalized.seq < log.final_seq() || view.latest.seq < log.final_seq() {
        return Some(Halt::FinalityBroken);
    }
    let is_ours = |head: &ContractHead| log.head_of(head.seq) == Some(head.head);
    if !is_ours(&view.finalized) || !is_ours(&view.latest) {
        return Some(Halt::UnknownHead);
    }
    view.is_frozen.then_some(Halt::Frozen)
}

/// What is final is noted, then booked: in that order, and only at `finalized`.
fn book_keeping(log: &Log, view: &View) -> Option<Action> {
    let next_final = log.final_seq() + 1;
    if next_final <= view.finalized.seq {
        let (block, nonce) = (view.finalized_block, view.finalized_nonce);
        return Some(Action::Finalise { seq: next_final, block, nonce });
    }
    let next_booked = log.booked_seq() + 1;
    let settled = if sabotage!("booked-before-final") { view.latest.seq } else { log.final_seq() };
    (next_booked <= settled).then_some(Action::Book { seq: next_booked })
}

/// A held batch is sealed anew only when nothing that was signed for it, or for what follows it, can land: every such nonce is
/// spent in a finalized block. Nonces that are not spent are spent by transactions that do nothing.
fn clear_the_way(log: &Log, view: &View, policy: &Policy, held: u64) -> Decision {
    let unspent = |nonce: u64| log.attempts().iter().any(|attempt| attempt.nonce >= nonce);
    if !unspent(view.finalized_nonce) {
        return Action::Reseal { from: held }.into();
    }
    if !unspent(view.nonce) {
        // All are spent; wait for finality.
        return Action::Wait.into();
    }
    send(log, view, policy, held, Purpose::Cancel, view.nonce)
}

/// Gets one nonce used: signs for it, sends what is signed, or pays more.
fn send(log: &Log, view: &View, policy: &Policy, seq: u64, purpose: Purpose, nonce: u64) -> Decision {
    let is_meant =
        |attempt: &&Attempt| attempt.nonce == nonce && attempt.seq == seq && attempt.purpose == purpose;
    let Some(newest) = log.attempts().iter().rfind(is_meant) else {
        return sign(log, view, policy, seq, purpose, nonce);
    };
    match view.state_of(&newest.hash) {
        None if sabotage!("fresh-nonce-after-a-crash") => {
            let fresh = log.attempts().iter().map(|attempt| attempt.nonce + 1).max();
            sign(log, view, policy, seq, purpose, fresh.unwrap_or(nonce))
        }
        None => Action::Broadcast { hash: newest.hash }.into(),
        Some(TxState::Underpriced) if signed_at(log, nonce, view.block) < SIGNED_PER_BLOCK_MAX => {
            sign(log, view, policy, seq, purpose, nonce)
        }
        Some(TxState::Pending) if is_stuck(newest, view, &policy.fees) => {
            sign(log, view, policy, seq, purpose, nonce)
        }
        Some(TxState::Underpriced | TxState::Pending | TxState::Mined) => Action::Wait.into(),
    }
}

/// Attempts for a nonce that were signed while a block was the newest: a node that calls each of them underpriced must not
/// drive the fees up faster than blocks are made.
fn signed_at(log: &Log, nonce: u64, block: u64) -> usize {
    log.attempts().iter().filter(|attempt| attempt.nonce == nonce && attempt.block >= block).count()
}

/// A block was made without it. While none is made, paying more gets nothing in, however long it takes.
fn was_passed_over(attempt: &Attempt, view: &View) -> bool {
    view.block > attempt.block
}

fn is_stuck(attempt: &Attempt, view: &View, fees: &FeePolicy) -> bool {
    if !was_passed_over(attempt, view) {
        return false;
    }
    view.now.minus(attempt.at) >= fees.replace_after
        || view.block.saturating_sub(attempt.block) >= fees.replace_after_blocks
}

fn sign(log: &Log, view: &View, policy: &Policy, seq: u64, purpose: Purpose, nonce: u64) -> Decision {
    let published = log.sealed(seq).filter(|_| purpose == Purpose::Commit);
    let data_gas = published.and_then(|sealed| policy.data.gas(sealed.data.len())).unwrap_or(0);
    let gas = policy.fees.gas.saturating_add(u128::from(data_gas));
    let urgency = Urgency {
        gas,
        value: log.sealed(seq).map_or(0, |sealed| sealed.batch.sum_locked),
        age: log.open(seq).map_or(Time::ZERO, |open| view.now.minus(open.at)),
        spent_today: view.spent_today,
    };
    let (fees, alarm) = match policy.fees.quote(view.base_fee, log.floor(nonce), &urgency) {
        Quote::Pay(fees) => (fees, None),
        Quote::PayAnyway(fees) => (fees, Some(Alarm::CeilingPassed)),
        Quote::TooDear => return Decision { action: Action::Wait, alarm: Some(Alarm::TooDear) },
    };
    if fees.cap.saturating_mul(gas) > view.balance {
        return Decision { action: Action::Wait, alarm: Some(Alarm::InsufficientFunds) };
    }
    Decision { action: Action::Sign { seq, purpose, nonce, fees }, alarm }
}

fn seal(log: &Log, view: &View, policy: &Policy) -> Action {
    let in_flight = log.sealed_head().0 - view.latest.seq;
    let is_due = policy.flush.is_due(&view.pile, view.base_fee, view.base_fee_mean);
    let is_early = view.now < log.retry_at(policy.flush.retry_after);
    if in_flight < IN_FLIGHT_MAX && is_due && !is_early {
        Action::Seal { credit_max: view.credit_max }
    } else {
        Action::Wait
    }
}
