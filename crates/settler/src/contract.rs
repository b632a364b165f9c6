//! The collateral manager, asked at one block.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolInterface};
use chain::bindings::Manager::{ManagerErrors, ManagerEvents};
use chain::bindings::{self, Manager};
use chain::{At, Backend, BackendError, Call, CallError, LogFilter};
use settlement::life::Refusal;
use settlement::{Batch, Hash};

/// Units of the contract's hourly limit, in base units.
const CREDIT_UNIT: u128 = 1_000_000_000;
/// Blocks of one question for events: what nodes allow.
const BLOCKS_AT_ONCE: u64 = 2_000;

/// Where the contract is, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The chain's number.
    pub chain_id: u64,
    /// The collateral manager.
    pub manager: Address,
    /// Keccak-256 of its code, immutables included.
    pub code_hash: B256,
    /// The block of its deployment: there is nothing to read before.
    pub since_block: u64,
}

/// The manager's answer to `headInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadInfo {
    pub(crate) seq: u64,
    pub(crate) lsn: u64,
    pub(crate) head: Hash,
    pub(crate) is_frozen: bool,
    pub(crate) deposit_nonce: u64,
    pub(crate) sum_credit: u128,
}

/// What the contract's books say of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    /// Balance, and all that was paid out of it: so much was supplied, ever.
    pub(crate) supplied: u128,
    /// Paid by guarantee, ever.
    pub(crate) guaranteed: u128,
    /// Owed for calls that wait.
    pub(crate) called: u128,
    /// Exits that were ever asked for.
    pub(crate) exits_asked: u64,
}

/// A called guarantee, as of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// It never was.
    No,
    /// It waits to be answered or paid.
    Waits,
    /// Nothing of it is owed.
    Dismissed,
    /// It was paid.
    Paid,
}

/// What the contract's code at a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The one that was deployed.
    Ours,
    /// None: the block is older than the contract.
    NotYet,
    /// Another one.
    Other,
}

/// The contract as somebody asks it.
pub(crate) struct Contract<'a> {
    pub(crate) chain: &'a dyn Backend,
    pub(crate) place: &'a Place,
}

impl Contract<'_> {
    pub(crate) fn code(&self, at: At) -> Result<Code, BackendError> {
        let code = self.chain.code(self.place.manager, at)?;
        Ok(match code.is_empty() {
            true => Code::NotYet,
            false if keccak256(&code) == self.place.code_hash => Code::Ours,
            false => Code::Other,
        })
    }

    pub(crate) fn head_info(&self, at: At) -> Result<HeadInfo, BackendError> {
        let info = self.ask(Manager::headInfoCall {}, at)?;
        Ok(HeadInfo {
            seq: narrow(info.seq)?,
            lsn: narrow(info.lsn)?,
            head: info.head.0,
            is_frozen: info.frozen,
            deposit_nonce: narrow(info.depositNonce)?,
            sum_credit: narrow(info.sumCredit)?,
        })
    }

    pub(crate) fn poster(&self, at: At) -> Result<Address, BackendError> {
        self.ask(Manager::posterCall {}, at)
    }

    pub(crate) fn separator(&self, at: At) -> Result<Hash, BackendError> {
        self.ask(Manager::domainSeparatorCall {}, at).map(|separator| separator.0)
    }

    pub(crate) fn holding(&self, partition: Hash, at: At) -> Result<Holding, BackendError> {
        let info = self.ask(Manager::partitionInfoCall { partition: B256::from(partition) }, at)?;
        let supplied = info.balance.saturating_add(info.claimed).saturating_add(info.guaranteed);
        Ok(Holding {
            supplied: narrow(supplied)?,
            guaranteed: narrow(info.guaranteed)?,
            called: narrow(info.called)?,
            exits_asked: narrow(info.exitsRequested)?,
        })
    }

    pub(crate) fn called(&self, lock: B256, at: At) -> Result<Called, BackendError> {
        let info = self.ask(Manager::calledInfoCall { lockId: lock }, at)?;
        match info.state {
            0 => Ok(Called::No),
            1 => Ok(Called::Waits),
            2 => Ok(Called::Dismissed),
            3 => Ok(Called::Paid),
            other => Err(BackendError::Nonsense(format!("state {other} of a called lock"))),
        }
    }

    /// What is owed for a lock that was called and waits; else 0.
    pub(crate) fn owed_for_call(&self, lock: B256, at: At) -> Result<u128, BackendError> {
        let info = self.ask(Manager::calledInfoCall { lockId: lock }, at)?;
        if info.state == 1 { narrow(info.owed) } else { Ok(0) }
    }

    /// Which rule refuses a batch, if one does.
    pub(crate) fn refusal(
        &self,
        batch: &Batch,
        poster: Address,
        at: At,
    ) -> Result<Option<Refusal>, BackendError> {
        let call = Manager::commitBatchCall { batch: batch_of(batch) };
        match self.run(poster, call.abi_encode().into(), at) {
            Ok(_) => Ok(None),
            Err(CallError::Backend(error)) => Err(error),
            Err(CallError::Reverted(data)) => Ok(Some(match ManagerErrors::abi_decode(&data) {
                Ok(ManagerErrors::PayoutLimit(_)) => Refusal::PayoutLimit,
                Ok(ManagerErrors::Insolvent(_)) => Refusal::Insolvent,
                _ => Refusal::Other,
            })),
        }
    }

    /// The most of new credit that the next batch may have. The contract keeps that to itself, so it is asked to take a batch
    /// that credits far too much, and says how much would have been right.
    pub(crate) fn credit_room(&self, head: &HeadInfo, poster: Address, at: At) -> Result<u128, BackendError> {
        let per_hour = u128::from(self.ask(Manager::creditPerHourCall {}, at)?);
        let too_much = Batch {
            seq: head.seq + 1,
            lsn_to: head.lsn.saturating_add(1),
            prev_head: head.head,
            state_root: [0; 32],
            sum_locked: 0,
            sum_credit: head.sum_credit.saturating_add((per_hour + 1).saturating_mul(CREDIT_UNIT)),
            guaranteed_ack: 0,
            count: 0,
            data_hash: [0; 32],
        };
        let call = Manager::commitBatchCall { batch: batch_of(&too_much) };
        match self.run(poster, call.abi_encode().into(), at) {
            Err(CallError::Reverted(data)) => Ok(match ManagerErrors::abi_decode(&data) {
                Ok(ManagerErrors::PayoutLimit(limit)) => {
                    narrow::<u128>(limit.room)?.saturating_mul(CREDIT_UNIT)
                }
                _ => 0,
            }),
            Err(CallError::Backend(error)) => Err(error),
            Ok(_) => Ok(0),
        }
    }

    /// The contract's events of some blocks, oldest first. What is not the contract's own is an answer to another question.
    pub(crate) fn events(&self, from: u64, to: u64) -> Result<Vec<ManagerEvents>, BackendError> {
        self.events_of(None, from, to)
    }

    /// The same of one kind of event.
    pub(crate) fn events_of(
        &self,
        topic: Option<B256>,
        from: u64,
        to: u64,
    ) -> Result<Vec<ManagerEvents>, BackendError> {
        let mut events = Vec::new();
        let mut first = from;
        while first <= to {
            let last = to.min(first.saturating_add(BLOCKS_AT_ONCE - 1));
            let filter = LogFilter { address: self.place.manager, topic, from: first, to: last };
            for event in self.chain.logs(&filter)? {
                if event.address != self.place.manager || !(first..=last).contains(&event.number) {
                    return Err(BackendError::Nonsense("events that were not asked for".to_owned()));
                }
                let decoded = alloy_sol_types::SolEventInterface::decode_raw_log(&event.topics, &event.data);
                let decoded = decoded.map_err(|error| BackendError::Nonsense(error.to_string()))?;
                events.push(decoded);
            }
            first = last + 1;
        }
        Ok(events)
    }

    fn ask<C: SolCall>(&self, call: C, at: At) -> Result<C::Return, BackendError> {
        let output = self.run(Address::ZERO, call.abi_encode().into(), at).map_err(|error| match error {
            CallError::Backend(error) => error,
            CallError::Reverted(data) => {
                BackendError::Nonsense(format!("the contract refuses a question: {data}"))
            }
        })?;
        C::abi_decode_returns(&output).map_err(|error| BackendError::Nonsense(error.to_string()))
    }

    fn run(&self, from: Address, input: Bytes, at: At) -> Result<Bytes, CallError> {
        self.chain.call(&Call { from, to: self.place.manager, input }, at)
    }
}

/// A batch as the contract takes it.
#[must_use]
pub fn batch_of(batch: &Batch) -> bindings::Batch {
    bindings::Batch {
        seq: batch.seq,
        lsnTo: batch.lsn_to,
        prevHead: batch.prev_head.into(),
        stateRoot: batch.state_root.into(),
        sumLocked: batch.sum_locked,
        sumCredit: batch.sum_credit,
        guaranteedAck: batch.guaranteed_ack,
        count: batch.count,
        dataHash: batch.data_hash.into(),
    }
}

/// A number that the contract keeps in fewer bits than it tells it in.
pub(crate) fn narrow<T: TryFrom<U256>>(number: U256) -> Result<T, BackendError> {
    T::try_from(number).map_err(|_| BackendError::Nonsense(format!("{number} where no such number can be")))
}
