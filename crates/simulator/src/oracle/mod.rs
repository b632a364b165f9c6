//! What the engine must answer, written a second time: straight from the transition table, with plain maps and no haste.
//!
//! It shares nothing with `ledger` but the protocol's vocabulary. It predicts every record of the log to the byte, every
//! reply, and every total of every partition. Where it and the engine differ, one of them is wrong, and the table decides.

mod admission;
mod advice;
mod change;
mod control;
mod facts;
mod lock;
mod look;
mod loss;
mod money;
mod settle;
mod stake;
mod state;
mod time;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use surety_protocol::{
    ALL_CAPTURES, AssetId, Caller, Code, End, Id, Kind, MerchantBody, PartitionHandle, QuoteId, Record,
    Reply, Rights, Seq, TenantBody, TenantId, Time,
};

pub use state::{Capture, Lock, Partition, Queued};
pub(crate) use words::{Answer, Ask, Outcome, Price, Spent};
pub use words::{Intake, Rules, Verdict};

/// Whose what: tenant and partition; ids live in it.
pub type Account = (TenantId, PartitionHandle);

/// The whole state of a shard, and its rules.
#[derive(Clone, Debug)]
pub struct Oracle {
    rules: Rules,
    time: Time,
    intake: Intake,
    is_behind: bool,
    forgets_headroom: bool,
    partitions: BTreeMap<PartitionHandle, Partition>,
    tenants: BTreeMap<TenantId, TenantBody>,
    rights: BTreeMap<Account, Rights>,
    merchants: BTreeMap<(TenantId, u64), MerchantBody>,
    prices: BTreeMap<(AssetId, QuoteId), Price>,
    locks: BTreeMap<(Account, Id), Lock>,
    spent: BTreeMap<(Account, Id), Spent>,
    /// When something happens to a lock by itself: the moment, then the id.
    timers: BTreeSet<(Time, Id, Account)>,
    /// When something may be forgotten, in milliseconds.
    forgettable: BTreeSet<(u64, Account, Id)>,
    losses: Vec<loss::Lost>,
    /// Partitions whose books may be wrong since a loss.
    unreconciled: BTreeSet<PartitionHandle>,
}

impl Oracle {
    /// An empty shard.
    #[must_use]
    pub const fn new(rules: Rules) -> Self {
        Self {
            rules,
            time: Time::ZERO,
            intake: Intake::All,
            is_behind: false,
            forgets_headroom: false,
            partitions: BTreeMap::new(),
            tenants: BTreeMap::new(),
            rights: BTreeMap::new(),
            merchants: BTreeMap::new(),
            prices: BTreeMap::new(),
            locks: BTreeMap::new(),
            spent: BTreeMap::new(),
            timers: BTreeSet::new(),
            forgettable: BTreeSet::new(),
            losses: Vec::new(),
            unreconciled: BTreeSet::new(),
        }
    }

    /// What is let in from now on.
    pub const fn set_intake(&mut self, intake: Intake) {
        self.intake = intake;
    }

    /// Makes a deliberate error from now on: headroom is never granted.
    pub const fn forget_headroom(&mut self) {
        self.forgets_headroom = true;
    }

    /// The latest moment that it was told.
    #[must_use]
    pub const fn time(&self) -> Time {
        self.time
    }

    /// True if more is due than a turn may log.
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Every partition.
    #[must_use]
    pub const fn partitions(&self) -> &BTreeMap<PartitionHandle, Partition> {
        &self.partitions
    }

    /// Every lock that is kept.
    #[must_use]
    pub const fn locks(&self) -> &BTreeMap<(Account, Id), Lock> {
        &self.locks
    }

    /// Ids remembered beside the locks.
    #[must_use]
    pub fn ids_len(&self) -> usize {
        self.spent.len()
    }

    /// A lock of an account.
    #[must_use]
    pub fn lock(&self, account: Account, id: Id) -> Option<&Lock> {
        self.locks.get(&(account, id))
    }

    /// The moment at which the next thing happens by itself.
    #[must_use]
    pub fn next_timer(&self) -> Option<Time> {
        let mut timers = self.timers.iter().filter(|(.., account)| !self.is_suspended(account.1));
        timers.next().map(|(when, ..)| *when)
    }

    /// False for what is refused before time or ledger are asked.
    #[must_use]
    pub fn is_in_shape(&self, caller: &Caller, operation: &[Record]) -> bool {
        admission::shape(operation, caller, self.rules.shard).is_ok()
    }

    /// Decides one operation: a request, a chain, or a head with its parts.
    pub fn decide(&mut self, now: Time, caller: &Caller, first_seq: Seq, operation: &[Record]) -> Verdict {
        if let Err(code) = admission::shape(operation, caller, self.rules.shard) {
            let replies = requests(operation).map(|record| self.refusal(record, code)).collect();
            return Verdict { replies, ..Verdict::default() };
        }
        self.pass_time(now);
        let is_chain = operation.len() > 1 && operation[0].is_linked();
        let mut verdict = if is_chain {
            self.decide_chain(caller, first_seq, operation)
        } else {
            self.decide_single(caller, first_seq, operation)
        };
        verdict.follow = self.pay_after(&verdict.logged);
        verdict
    }

    fn decide_single(&mut self, caller: &Caller, seq: Seq, operation: &[Record]) -> Verdict {
        let mut records = operation.to_vec();
        let ask = match self.examine(caller, seq, &mut records, true) {
            Err(code) => return self.refused(&records, 0, code),
            Ok(admission::Examined::Repeat(home)) => {
                let replies = vec![self.repeat(home, &records[0])];
                return Verdict { replies, ..Verdict::default() };
            }
            Ok(admission::Examined::New(ask)) => ask,
        };
        records[0].set_actor(ask.kind, caller.actor);
        let sent = records.clone();
        let outcome = match self.perform(&ask, &mut records) {
            Err(code) => return self.refused(&records, 0, code),
            Ok(outcome) => outcome,
        };
        let reply = self.finish(&ask, &sent, &mut records, outcome);
        let logged = if outcome.is_logged { records } else { Vec::new() };
        let is_loose = ask.kind == Kind::Lookup && outcome.lock.is_none();
        Verdict { logged, replies: vec![reply], is_loose, ..Verdict::default() }
    }

    /// All or none: whatever a member did is undone by going back to the copy.
    fn decide_chain(&mut self, caller: &Caller, first_seq: Seq, operation: &[Record]) -> Verdict {
        let mut records = operation.to_vec();
        for (member, record) in records.iter().enumerate() {
            if let Err(code) = self.check_not_lost(caller, record) {
                return self.refused(&records, member, code);
            }
        }
        let mut asks = Vec::new();
        let mut repeats = Vec::new();
        for member in 0..records.len() {
            let is_double = records[..member].iter().any(|other| other.id == records[member].id);
            if is_double {
                return self.refused(&records, member, Code::Malformed);
            }
            let seq = Seq(first_seq.0 + member as u64);
            match self.examine(caller, seq, &mut records[member..=member], false) {
                Err(code) => return self.refused(&records, member, code),
                Ok(admission::Examined::Repeat(home)) => repeats.push((member, home)),
                Ok(admission::Examined::New(ask)) => asks.push(ask),
            }
        }
        if repeats.len() == records.len() {
            let replies = repeats.iter().map(|(member, home)| self.repeat(*home, &records[*member]));
            return Verdict { replies: replies.collect(), ..Verdict::default() };
        }
        if let Some((member, _)) = repeats.first() {
            return self.refused(&records, *member, Code::IdConflict);
        }
        for (record, ask) in records.iter_mut().zip(&asks) {
            record.set_actor(ask.kind, caller.actor);
        }
        self.execute_chain(&asks, records)
    }

    fn execute_chain(&mut self, asks: &[Ask], mut records: Vec<Record>) -> Verdict {
        let before = self.clone();
        let sent = records.clone();
        let mut replies = Vec::new();
        for (member, ask) in asks.iter().enumerate() {
            let this = &mut records[member..=member];
            let failure = match self.examine_again(ask).and_then(|()| self.perform(ask, this)) {
                Ok(outcome) if outcome.code.is_success() => {
                    replies.push(self.finish(ask, &sent[member..=member], this, outcome));
                    continue;
                }
                Ok(outcome) => Ok(outcome.code),
                Err(code) => Err(code),
            };
            *self = before;
            return match failure {
                Err(code) => self.refused(&sent, member, code),
                Ok(code) => self.decline_chain(asks, &sent, member, code),
            };
        }
        Verdict { logged: records, replies, ..Verdict::default() }
    }

    fn decline_chain(&mut self, asks: &[Ask], sent: &[Record], culprit: usize, code: Code) -> Verdict {
        let mut logged = sent.to_vec();
        let mut replies = Vec::new();
        for (member, ask) in asks.iter().enumerate() {
            let code = if member == culprit { code } else { Code::LinkedFailed };
            let this = &mut logged[member..=member];
            let mut outcome = self.declined_about(ask, &this[0], code);
            if ask.kind == Kind::Lock {
                outcome.end = self.end_of_spent(ask.home, ask.id).unwrap_or(End::Declined);
            }
            replies.push(self.finish(ask, &sent[member..=member], this, outcome));
        }
        Verdict { logged, replies, ..Verdict::default() }
    }

    /// Completes the record, remembers the id, and answers.
    fn finish(&mut self, ask: &Ask, sent: &[Record], records: &mut [Record], outcome: Outcome) -> Reply {
        if outcome.is_logged {
            records[0].time = self.time;
            records[0].code = outcome.code as u8;
        }
        let seq = if outcome.is_logged { ask.seq } else { outcome.seq };
        let answer = Answer {
            code: outcome.code,
            approved: outcome.approved,
            extra: outcome.extra,
            deadline: outcome.deadline,
            capture: outcome.capture,
            seq,
        };
        if outcome.is_logged && ask.kind != Kind::Lookup && !outcome.made_lock {
            self.remember(ask, sent, answer);
        }
        let mut reply = self.show(ask.home, &records[0], &answer, outcome.lock, outcome.end);
        if let Some(lock) = outcome.about {
            reply.remaining = surety_protocol::Amount(lock.0);
        }
        reply
    }

    fn remember(&mut self, ask: &Ask, sent: &[Record], answer: Answer) {
        let key = (ask.home, ask.id);
        // An id that was spent before its lock came stays what it was, with the lock's own decline.
        let before = self.spent.get(&key);
        let is_tombstone = before.is_some_and(|spent| spent.is_tombstone);
        let lasting = match before {
            Some(spent) => spent.lasting,
            None => admission::named(&sent[0]).filter(|_| ask.is_lasting),
        };
        let request = Some(as_sent(sent));
        self.spent.insert(key, Spent { request, kind: ask.kind, is_tombstone, lasting, answer });
        let forgotten = self.stale_ms(ask.id, ask.kind, lasting.is_some());
        self.forgettable.insert((forgotten, ask.home, ask.id));
    }

    /// A reply with the present state of its lock.
    fn show(&self, home: Account, record: &Record, answer: &Answer, lock: Option<Id>, end: End) -> Reply {
        let mut reply = Reply {
            id: record.id,
            approved: surety_protocol::Amount(answer.approved),
            extra: surety_protocol::Amount(answer.extra),
            free: surety_protocol::Amount(self.partitions.get(&home.1).map_or(0, |partition| partition.f)),
            seq: answer.seq,
            deadline: answer.deadline,
            time: self.time,
            shard: self.rules.shard,
            capture: answer.capture,
            code: answer.code as u8,
            end: end as u8,
            flags: self.mark_of(home.1),
            kind: record.kind,
            ..Reply::default()
        };
        if let Some(lock) = lock.and_then(|id| self.locks.get(&(home, id))) {
            reply.remaining = surety_protocol::Amount(lock.remaining());
            reply.version = lock.version;
            reply.end = lock.end as u8;
        }
        reply
    }

    fn refusal(&self, record: &Record, code: Code) -> Reply {
        Reply {
            id: record.id,
            time: self.time,
            shard: self.rules.shard,
            capture: ALL_CAPTURES,
            code: code as u8,
            kind: record.kind,
            ..Reply::default()
        }
    }

    /// Nothing is logged: the culprit keeps its code, the others of its chain failed with it. What nobody can tell of one of them
    /// nobody can tell of any.
    fn refused(&self, records: &[Record], culprit: usize, code: Code) -> Verdict {
        let answer = |(member, record): (usize, &Record)| {
            let is_all = member == culprit || code == Code::UnknownAfterRestore;
            self.refusal(record, if is_all { code } else { Code::LinkedFailed })
        };
        let replies = requests(records).enumerate().map(answer).collect();
        Verdict { replies, ..Verdict::default() }
    }

    fn perform(&mut self, ask: &Ask, records: &mut [Record]) -> Result<Outcome, Code> {
        let (record, parts) = records.split_first_mut().ok_or(Code::Malformed)?;
        match ask.kind {
            Kind::Lock => self.lock_request(ask, record),
            Kind::Increase => self.increase(ask, record),
            Kind::Decrease => self.decrease(ask, record),
            Kind::Capture => self.capture(ask, record),
            Kind::Release => self.release(ask, record),
            Kind::Reverse => self.reverse(ask, record),
            Kind::Refund => self.refund(ask, record),
            Kind::Advice => self.advice(ask, record),
            Kind::Lookup => self.look_up(ask, record),
            Kind::Settle => self.settle(ask, record),
            Kind::Consume => self.consume(ask, record),
            Kind::ReleaseGroup => self.release_group(ask, record, parts),
            Kind::Deposit => Ok(self.deposit(ask, record)),
            Kind::Reward => Ok(self.reward(ask, record)),
            Kind::Withdraw => Ok(self.withdraw(ask, record)),
            Kind::BatchFinal => Ok(self.batch_final(ask, record)),
            Kind::GuaranteeCalled => self.guarantee_called(ask, record),
            Kind::GuaranteePaid => self.guarantee_paid(ask, record),
            Kind::GuaranteeDismissed => self.guarantee_dismissed(ask, record),
            Kind::Deficit => Ok(self.deficit(ask, record)),
            Kind::RiskCap => self.risk_cap(ask, record),
            Kind::Price => self.price(ask, record),
            Kind::Freeze => Ok(self.freeze(ask)),
            Kind::Unfreeze => Ok(self.unfreeze(ask)),
            Kind::Reconcile => self.reconcile(ask),
            Kind::Policy => self.policy(ask, record, parts),
            Kind::Cover | Kind::WriteOff => Ok(self.lower_exposure(ask, record)),
            Kind::PartitionCreate => self.partition_create(record),
            Kind::TenantSet => self.tenant_set(record),
            Kind::Grant => self.grant(record),
            Kind::MerchantSet => self.merchant_set(ask, record),
            _ => Err(Code::Malformed),
        }
    }
}

/// The requests of an operation, without continuations.
fn requests(operation: &[Record]) -> impl Iterator<Item = &Record> {
    operation.iter().filter(|record| record.kind() != Some(Kind::Continuation))
}

/// What makes two requests the same request.
fn as_sent(records: &[Record]) -> Vec<Record> {
    records.iter().map(Record::as_sent).collect()
}
