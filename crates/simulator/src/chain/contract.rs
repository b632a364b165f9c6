//! The contract: what it holds of each partition, which batches it has taken, what it owes, and what was called.

use std::collections::BTreeMap;

use settlement::life::{ContractHead, Refusal};
use settlement::{BatchData, CertifiedLock, Hash, LockId, keccak};
use surety_protocol::{Address, Time, sabotage};

use super::transaction::{Commit, Request};

/// For how long a call can be answered before it is paid.
const DISPUTE: Time = Time::from_secs(6);
/// By how many batches the engine may be late with a guarantee.
const ACK_BATCHES: usize = 4;

/// What the contract has of a partition, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// It holds so much now.
    pub balance: u128,
    /// Batches have credited so much to its payees, ever.
    pub credited: u128,
    /// Its payees have taken so much, ever.
    pub claimed: u128,
    /// As the newest batch has it: it guarantees something.
    pub locked: u128,
}

/// What a payee has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Ever.
    pub credited: u128,
    /// Taken of it.
    pub claimed: u128,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// It can be answered, or waits to be paid.
    Waits,
    /// Nothing of it is owed.
    Dismissed,
    /// So much was paid.
    Paid(u128),
}

/// A certificate that was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it states.
    pub certificate: CertifiedLock,
    /// When it was called.
    pub since: Time,
    /// What of it is owed.
    pub owed: u128,
    /// What became of it.
    pub state: CallState,
}

/// A batch that the contract has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number and head.
    pub head: ContractHead,
    /// What it has credited, for each partition that it credits.
    pub credits: BTreeMap<Hash, u128>,
}

/// What the contract tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Collateral has come in.
    Supplied {
        /// Where to.
        partition: Hash,
        /// Whose it is.
        supplier: Address,
        /// In base units.
        amount: u128,
        /// 1, 2, 3, ...
        nonce: u64,
    },
    /// A batch was taken.
    Committed(Applied),
    /// A certificate was called, or its call answered.
    Touched(LockId),
    /// A guarantee was paid.
    Paid {
        /// Of which lock.
        lock: LockId,
        /// Out of which partition.
        partition: Hash,
        /// In base units.
        amount: u128,
    },
}

/// All of it, behind some block.
#[derive(Clone, Debug)]
pub struct State {
    /// Next nonce of the poster's account.
    pub nonce: u64,
    /// The newest batch.
    pub head: ContractHead,
    /// Nothing is committed now.
    pub is_paused: bool,
    /// Batches that were ever taken.
    pub applied: u64,
    /// By on-chain id.
    pub partitions: BTreeMap<Hash, Holding>,
    /// By partition and payee.
    pub credits: BTreeMap<(Hash, Address), Credit>,
    /// By lock.
    pub calls: BTreeMap<LockId, Call>,
    /// What the newest batch proves to be credited of locks.
    consumed: BTreeMap<LockId, u128>,
    /// The most of new credit that one batch may have.
    pub credit_max: u128,
    supplies: u64,
    lsn: u64,
    /// Guarantees that were paid, ever, and those that the engine has booked.
    paid: u128,
    acknowledged: u128,
    paid_at_commit: [u128; ACK_BATCHES],
}

impl State {
    /// Nothing yet.
    #[must_use]
    pub fn new(genesis: Hash, credit_max: u128) -> Self {
        Self {
            nonce: 0,
            head: ContractHead { seq: 0, head: genesis },
            is_paused: false,
            applied: 0,
            partitions: BTreeMap::new(),
            credits: BTreeMap::new(),
            calls: BTreeMap::new(),
            consumed: BTreeMap::new(),
            credit_max,
            supplies: 0,
            lsn: 0,
            paid: 0,
            acknowledged: 0,
            paid_at_commit: [0; ACK_BATCHES],
        }
    }

    /// What the newest batch proves to be credited of a lock.
    #[must_use]
    pub fn consumed(&self, lock: &LockId) -> u128 {
        self.consumed.get(lock).copied().unwrap_or(0)
    }

    /// True if a called lock can be paid now.
    #[must_use]
    pub fn is_collectable(call: &Call, time: Time) -> bool {
        call.state == CallState::Waits && time >= call.since.plus(DISPUTE)
    }

    /// Which rule refuses a commit, if one does.
    #[must_use]
    pub fn refusal(&self, commit: &Commit) -> Option<Refusal> {
        self.clone().take(commit).err()
    }

    /// Takes a batch, or does nothing.
    pub(super) fn commit(&mut self, commit: &Commit) -> Option<Event> {
        let mut after = self.clone();
        match after.take(commit) {
            Ok(applied) => {
                *self = after;
                Some(Event::Committed(applied))
            }
            Err(_) => None,
        }
    }

    /// Does what somebody asks, or nothing.
    pub(super) fn request(&mut self, request: &Request, time: Time) -> Option<Event> {
        match *request {
            Request::Supply { partition, supplier, amount } => self.supply(partition, supplier, amount),
            Request::Claim { partition, payee } => {
                self.claim(partition, payee);
                None
            }
            Request::Call(certificate) => self.call(certificate, time),
            Request::Answer(lock) => self.answer(lock),
            Request::Collect(lock) => self.collect(lock, time),
        }
    }

    fn take(&mut self, Commit { batch, data }: &Commit) -> Result<Applied, Refusal> {
        if self.is_paused {
            return Err(Refusal::Paused);
        }
        let is_next = batch.seq == self.head.seq + 1 && batch.prev_head == self.head.head;
        let is_further = batch.lsn_to > self.lsn && batch.sum_credit >= self.sum_credit();
        if !(is_next && is_further || sabotage!("chain-takes-any-batch")) {
            return Err(Refusal::Other);
        }
        self.acknowledge(batch.seq, batch.guaranteed_ack)?;
        let data = BatchData::from_bytes(data)
            .ok()
            .filter(|_| keccak(&[data]) == batch.data_hash)
            .ok_or(Refusal::Other)?;
        let mut credits: BTreeMap<Hash, u128> = BTreeMap::new();
        for leaf in &data.payees {
            let credit = self.credits.entry((leaf.partition, leaf.payee)).or_default();
            let more = leaf.credit.checked_sub(credit.credited).ok_or(Refusal::Other)?;
            credit.credited = leaf.credit;
            self.partitions.entry(leaf.partition).or_default().credited += more;
            *credits.entry(leaf.partition).or_default() += more;
        }
        if credits.values().sum::<u128>() > self.credit_max {
            return Err(Refusal::PayoutLimit);
        }
        for leaf in &data.partitions {
            self.partitions.entry(leaf.partition).or_default().locked = leaf.locked;
        }
        let locked: u128 = self.partitions.values().map(|holding| holding.locked).sum();
        // The data are those of these sums.
        if (locked, self.sum_credit()) != (batch.sum_locked, batch.sum_credit) {
            return Err(Refusal::Other);
        }
        let balance: u128 = self.partitions.values().map(|holding| holding.balance).sum();
        let claimed: u128 = self.partitions.values().map(|holding| holding.claimed).sum();
        if locked + batch.sum_credit - claimed > balance + (self.paid - self.acknowledged) {
            return Err(Refusal::Insolvent);
        }
        self.consumed = data.consumed.iter().map(|leaf| (leaf.lock, leaf.amount)).collect();
        self.head = ContractHead { seq: batch.seq, head: batch.head() };
        self.lsn = batch.lsn_to;
        self.applied += 1;
        Ok(Applied { head: self.head, credits })
    }

    /// Never less than before, never more than was paid, and all that was paid four batches ago.
    fn acknowledge(&mut self, seq: u64, acknowledged: u128) -> Result<(), Refusal> {
        let place = usize::try_from(seq).unwrap_or(0) % ACK_BATCHES;
        let least = self.paid_at_commit[place].max(self.acknowledged);
        if acknowledged < least || acknowledged > self.paid {
            return Err(Refusal::Other);
        }
        self.paid_at_commit[place] = self.paid;
        self.acknowledged = acknowledged;
        Ok(())
    }

    fn sum_credit(&self) -> u128 {
        self.partitions.values().map(|holding| holding.credited).sum()
    }

    fn supply(&mut self, partition: Hash, supplier: Address, amount: u128) -> Option<Event> {
        if amount == 0 {
            return None;
        }
        self.supplies += 1;
        self.partitions.entry(partition).or_default().balance += amount;
        Some(Event::Supplied { partition, supplier, amount, nonce: self.supplies })
    }

    fn claim(&mut self, partition: Hash, payee: Address) {
        let credit = self.credits.entry((partition, payee)).or_default();
        let due = credit.credited - credit.claimed;
        let holding = self.partitions.entry(partition).or_default();
        if due > holding.balance {
            return;
        }
        holding.balance -= due;
        holding.claimed += due;
        credit.claimed += due;
    }

    /// A certificate of a higher version may be called in place of one of a lower, and after one that was dismissed.
    fn call(&mut self, certificate: CertifiedLock, time: Time) -> Option<Event> {
        let before = self.calls.get(&certificate.lock);
        let is_later = before.is_none_or(|before| {
            before.certificate.version < certificate.version && !matches!(before.state, CallState::Paid(_))
        });
        let is_in_time = time.0 / Time::from_secs(1).0 <= certificate.deadline_secs;
        if !is_later || !is_in_time || certificate.amount == 0 {
            return None;
        }
        let call = Call { certificate, since: time, owed: certificate.amount, state: CallState::Waits };
        self.calls.insert(certificate.lock, call);
        Some(Event::Touched(certificate.lock))
    }

    fn answer(&mut self, lock: LockId) -> Option<Event> {
        let credited = self.consumed(&lock);
        let call = self.calls.get_mut(&lock).filter(|call| call.state == CallState::Waits)?;
        let rest = call.certificate.amount.saturating_sub(credited);
        if rest >= call.owed {
            return None;
        }
        call.owed = rest;
        if rest == 0 {
            call.state = CallState::Dismissed;
        }
        Some(Event::Touched(lock))
    }

    fn collect(&mut self, lock: LockId, time: Time) -> Option<Event> {
        let call = self.calls.get_mut(&lock).filter(|call| Self::is_collectable(call, time))?;
        let (partition, amount) = (call.certificate.partition, call.owed);
        let holding = self.partitions.entry(partition).or_default();
        if holding.balance < amount {
            return None;
        }
        holding.balance -= amount;
        (call.owed, call.state) = (0, CallState::Paid(amount));
        self.paid += amount;
        Some(Event::Paid { lock, partition, amount })
    }
}
