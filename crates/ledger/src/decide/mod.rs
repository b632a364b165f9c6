//! Deciding one operation: may it be executed at all, was it before, what does it do, what is answered.
//!
//! The order is the order of [`Code`]: what is malformed or not allowed, repeats and conflicts, windows, quotas; then the
//! request's own rules. Nothing changes before every reason to refuse has been looked at.

mod chain;
mod chain_facts;
mod change;
mod control;
mod lock;
mod long;
mod lookup;
mod settle;
mod stake;

use alloc::vec::Vec;

use surety_protocol::limits::{AMOUNT_MAX, ID_FUTURE_MAX, PARTITIONS_PER_SHARD_MAX, UNITS_MAX};
use surety_protocol::{
    ALL_CAPTURES, ActorId, Amount, Caller, ChangeBody, Code, CodeClass, ConsumeBody, ControlBody, End, Flags,
    GrantBody, Id, Kind, MerchantBody, Origin, PartitionBody, PartitionHandle, PriceBody, Record, Reply,
    Rights, Roles, Seq, StakeBody, TenantBody, TenantId, Time, sabotage,
};

use crate::canon::{Sink, WordHash};
use crate::index::Found;
use crate::ledger::{Decision, Intake, Ledger, Tenant};
use crate::op::{self, Memo, NO_CAPTURE, Op, Quota, Side};
use crate::wire;

/// A request that is new and may be executed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) seq: Seq,
    pub(crate) kind: Kind,
    pub(crate) id: u128,
    pub(crate) account: u32,
    pub(crate) tenant: TenantId,
    pub(crate) partition: u32,
    pub(crate) fingerprint: u64,
    /// The slot of the id, if it was spent before the lock came: by a release that overtook it or by a look-up.
    pub(crate) spent: Option<u32>,
    /// The id is good, and remembered, for as long as that of an advice.
    pub(crate) is_lasting: bool,
    /// False in replay: what is in the log was admitted.
    pub(crate) is_live: bool,
    /// The operator's own requests are not held to the quotas of the tenant that they name.
    pub(crate) is_operator: bool,
    /// It makes a lock that is open.
    pub(crate) opens_lock: bool,
    /// What stands before it in its chain has been done: locks may have ended there, and made room for others.
    pub(crate) is_in_turn: bool,
}

/// What a request came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Code,
    pub(crate) approved: u128,
    pub(crate) extra: u128,
    pub(crate) deadline: Time,
    pub(crate) capture: u16,
    /// The lock whose state is shown.
    pub(crate) lock: Option<u32>,
    /// The state, where there is no lock.
    pub(crate) end: End,
    pub(crate) memo: Memo,
    /// False if the request made a lock, which remembers its id.
    pub(crate) needs_op: bool,
    /// False if nothing is to be logged.
    pub(crate) is_logged: bool,
    /// Of a look-up: the record that is shown.
    pub(crate) seq: Seq,
    /// Of a look-up of a lasting id: the lock that it was about.
    pub(crate) about: u128,
}

impl Ask {
    /// No request yet.
    const NONE: Self = Self {
        seq: Seq(0),
        kind: Kind::Continuation,
        id: 0,
        account: 0,
        tenant: TenantId(0),
        partition: 0,
        fingerprint: 0,
        spent: None,
        is_lasting: false,
        is_live: false,
        is_operator: false,
        opens_lock: false,
        is_in_turn: true,
    };
}

impl Outcome {
    pub(crate) const fn new(code: Code) -> Self {
        Self {
            code,
            approved: 0,
            extra: 0,
            deadline: Time::ZERO,
            capture: ALL_CAPTURES,
            lock: None,
            end: End::None,
            memo: Memo::Zero,
            needs_op: true,
            is_logged: true,
            seq: Seq(0),
            about: 0,
        }
    }

    /// With the state of a lock.
    pub(crate) const fn of(mut self, lock: u32) -> Self {
        self.lock = Some(lock);
        self
    }

    /// With what was moved, remembered beside the id.
    pub(crate) const fn moving(mut self, approved: u128) -> Self {
        self.approved = approved;
        self.memo = Memo::Side;
        self
    }
}

/// Where an operation comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// From somebody whose rights are to be checked.
    Live(&'a Caller),
    /// From the log, which tells who it was: what it holds was admitted.
    Log(&'a [Record]),
}

impl Source<'_> {
    fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Live(caller) => Some(caller),
            Self::Log(_) => None,
        }
    }

    /// The principal behind a member of the operation.
    fn actor(&self, kind: Kind, member: usize) -> ActorId {
        match self {
            Self::Live(caller) => caller.actor,
            Self::Log(records) => records.get(member).map_or(ActorId(0), |record| actor_of(kind, record)),
        }
    }
}

/// Why a member of an operation was not executed.
struct Refusal {
    member: usize,
    code: Code,
}

impl Ledger {
    pub(crate) fn decide_operation(
        &mut self,
        source: Source,
        first_seq: Seq,
        records: &mut [Record],
        replies: &mut Vec<Reply>,
    ) -> Decision {
        let is_chain =
            records.first().is_some_and(|record| record.is_linked() && record.continuations() == 0);
        let decided = if is_chain && records.len() > 1 {
            self.decide_chain(source, first_seq, records, replies)
        } else {
            self.decide_single(source, first_seq, records, replies)
        };
        match decided {
            Ok(decision) => decision,
            Err(refusal) => {
                self.refuse(&refusal, records, replies);
                Decision::NotLogged
            }
        }
    }

    fn decide_single(
        &mut self,
        source: Source,
        seq: Seq,
        records: &mut [Record],
        replies: &mut Vec<Reply>,
    ) -> Result<Decision, Refusal> {
        let refused = |code| Refusal { member: 0, code };
        let Some((record, parts)) = records.split_first_mut() else { return Err(refused(Code::Malformed)) };
        // Both are filled in where they stay: copies of what has just been written are slow.
        let (mut ask, mut outcome) = (Ask::NONE, Outcome::new(Code::None));
        match self.examine(source, seq, record, parts, &mut ask) {
            Ok(None) => {}
            Ok(Some(found)) => {
                self.repeat(record, found, replies);
                return Ok(Decision::NotLogged);
            }
            Err(code) => return Err(refused(code)),
        }
        wire::set_actor(record, ask.kind, source.actor(ask.kind, 0));
        self.perform(&ask, record, parts, &mut outcome).map_err(refused)?;
        if !outcome.is_logged {
            self.reply(record, ask.partition, outcome.seq, &outcome, replies);
            return Ok(Decision::NotLogged);
        }
        self.finish(&ask, record, &outcome, replies);
        Ok(Decision::Logged)
    }

    fn refuse(&self, refusal: &Refusal, records: &[Record], replies: &mut Vec<Reply>) {
        let requests = records.iter().filter(|record| record.kind() != Some(Kind::Continuation));
        for (member, record) in requests.enumerate() {
            // Of the others nobody knows more than of the one: a chain is one thing.
            let is_one = member == refusal.member || refusal.code == Code::UnknownAfterRestore;
            let code = if is_one { refusal.code } else { Code::LinkedFailed };
            replies.push(Reply {
                id: record.id,
                time: self.time,
                shard: self.config.shard,
                capture: ALL_CAPTURES,
                code: code as u8,
                kind: record.kind,
                ..Reply::default()
            });
        }
    }

    /// Looks at everything that does not change the state: sense, rights, repeats, windows, quotas. Says what the request
    /// repeats, if it does; otherwise `ask` is complete.
    fn examine(
        &mut self,
        source: Source,
        seq: Seq,
        record: &mut Record,
        parts: &[Record],
        ask: &mut Ask,
    ) -> Result<Option<Found>, Code> {
        let caller = source.caller();
        let kind = record.kind().ok_or(Code::Malformed)?;
        if !is_sound(kind, record) {
            return Err(Code::Malformed);
        }
        let known = match caller {
            Some(caller) => {
                self.check_not_lost(caller, kind, record)?;
                let (tenant, account) = self.admit_to_partition(caller, kind, record)?;
                record.tenant = tenant;
                account
            }
            None => None,
        };
        let account = match known {
            Some(account) => account,
            None => {
                let home = home(self, kind, record.partition);
                self.make_account(record.tenant, home).ok_or(Code::UnknownPartition)?
            }
        };
        ask.seq = seq;
        ask.kind = kind;
        ask.id = record.id.0;
        ask.account = account;
        ask.tenant = record.tenant;
        ask.partition = self.account(account).partition;
        ask.is_lasting = record.flags().are_lasting(kind);
        ask.is_live = caller.is_some();
        ask.is_operator = caller.is_some_and(is_operator);
        // A sale is over when it is made.
        ask.opens_lock = kind == Kind::Lock && !record.flags().has(Flags::SALE);
        // A look-up's own id is only for matching the reply.
        if kind == Kind::Lookup {
            return Ok(None);
        }
        ask.fingerprint = fingerprint(kind, record, parts);
        match self.find(account, ask.id) {
            None => {}
            Some(Found::Op(slot)) if kind == Kind::Lock && self.ops.get(slot).awaits_a_lock() => {
                ask.spent = Some(slot);
            }
            Some(_) if sabotage!("retried-refund-applied-again") && kind == Kind::Refund => {}
            Some(found) => return self.repeat_or_conflict(ask, found).map(Some),
        }
        if let Some(caller) = caller {
            self.check_reconciled(caller, kind, ask.partition)?;
            self.check_window(ask)?;
            self.check_quotas(ask)?;
        }
        Ok(None)
    }

    fn repeat_or_conflict(&self, ask: &Ask, found: Found) -> Result<Found, Code> {
        let is_same = match found {
            Found::Lock(slot) => {
                let lock = self.locks.get(slot);
                ask.kind == Kind::Lock && lock.fingerprint == ask.fingerprint
            }
            Found::Op(slot) => {
                let op = self.ops.get(slot);
                op.kind == ask.kind && !op.awaits_a_lock() && op.fingerprint == ask.fingerprint
            }
        };
        if (is_same || sabotage!("conflict-answered-as-a-repeat")) && ask.is_live {
            Ok(found)
        } else {
            Err(Code::IdConflict)
        }
    }

    /// Who may do this here, and in whose name. The account, if it had to be looked up for that.
    fn admit_to_partition(
        &self,
        caller: &Caller,
        kind: Kind,
        record: &Record,
    ) -> Result<(TenantId, Option<u32>), Code> {
        let tenant = if record.tenant == TenantId(0) { caller.tenant } else { record.tenant };
        let operator = is_operator(caller);
        let is_foreign = tenant != caller.tenant && !sabotage!("another-tenants-name-taken");
        if is_foreign && !operator || !caller.roles.allow(kind) {
            return Err(Code::NoRight);
        }
        let is_for_operator = matches!(kind.origin(), Origin::Admin | Origin::Chain);
        if !operator && !is_for_operator {
            return self.admit_tenant(caller, tenant, kind, record);
        }
        if !operator && !self.is_enabled(caller.tenant) {
            return Err(Code::NoRight);
        }
        if record.partition.shard() != self.config.shard {
            return Err(Code::UnknownPartition);
        }
        let concerns_shard = record.partition.number() == 0;
        let own_merchant = kind == Kind::MerchantSet && caller.roles.has(Roles::ADMIN);
        if !operator && !own_merchant {
            return Err(Code::NoRight);
        }
        let concerns_no_partition = is_for_operator && (is_for_shard(kind) || kind == Kind::PartitionCreate);
        let is_known =
            concerns_no_partition || !concerns_shard && self.partition_slot(record.partition).is_some();
        if is_known { Ok((tenant, None)) } else { Err(Code::UnknownPartition) }
    }

    /// What a tenant that is not the operator may do on a partition.
    #[inline]
    fn admit_tenant(
        &self,
        caller: &Caller,
        tenant: TenantId,
        kind: Kind,
        record: &Record,
    ) -> Result<(TenantId, Option<u32>), Code> {
        let account = self.account_slot(tenant, record.partition);
        let is_enabled = match account {
            Some(account) => self.tenants[self.account(account).tenant_slot as usize].is_enabled(),
            None => self.is_enabled(tenant),
        };
        if !is_enabled {
            return Err(Code::NoRight);
        }
        if record.partition.shard() != self.config.shard {
            return Err(Code::UnknownPartition);
        }
        let account = account.ok_or(Code::UnknownPartition)?;
        let rights = self.account(account).rights;
        if rights == Rights::default() && !sabotage!("another-tenants-partition-shown") {
            return Err(Code::UnknownPartition);
        }
        // A burn declines a payment: not for those who only read.
        let is_burn = kind == Kind::Lookup && record.flags().has(Flags::BURN);
        if is_burn && !caller.roles.has(Roles::AUTHORIZER) {
            return Err(Code::NoRight);
        }
        if may(rights, kind, record.flags()) { Ok((tenant, Some(account))) } else { Err(Code::NoRight) }
    }

    fn is_enabled(&self, tenant: TenantId) -> bool {
        let slot = self.tenant_slots.get(&tenant.0);
        tenant == TenantId(0) || slot.is_some_and(|slot| self.tenants[*slot as usize].is_enabled())
    }

    fn check_window(&self, ask: &Ask) -> Result<(), Code> {
        let at = Id(ask.id).time();
        let oldest = self.time.minus(op::window(ask.kind, ask.is_lasting, self.config.id_window));
        if at < oldest && !sabotage!("stale-id-accepted") {
            return Err(Code::StaleId);
        }
        if at > self.time.plus(ID_FUTURE_MAX) {
            return Err(Code::IdFromFuture);
        }
        Ok(())
    }

    /// Whether the caller's tenant may have something new at this moment.
    pub(crate) const fn check_pace(&self) -> Result<(), Code> {
        match self.intake {
            Intake::TooFast => Err(Code::QuotaRate),
            Intake::TooManyInFlight => Err(Code::QuotaInFlight),
            Intake::All | Intake::NoLocks | Intake::Nothing => Ok(()),
        }
    }

    /// Whether `more` ids, and what is to be said of them, may be logged at all.
    pub(crate) fn check_room_for_ids(&self, more: usize) -> Result<(), Code> {
        let is_full = self.ops.len() + more > self.config.ids_max;
        if is_full || self.intake == Intake::Nothing { Err(Code::Overloaded) } else { Ok(()) }
    }

    /// The quotas that a request is held to: the operator's have none, and what is in the log was admitted.
    pub(crate) fn quotas_of(&self, ask: &Ask) -> Option<&Tenant> {
        let tenant = &self.tenants[self.account(ask.account).tenant_slot as usize];
        (ask.is_live && !ask.is_operator && tenant.is_set).then_some(tenant)
    }

    /// Whether there is room for what a request leaves behind.
    fn check_quotas(&self, ask: &Ask) -> Result<(), Code> {
        let makes_lock = matches!(ask.kind, Kind::Lock | Kind::Advice);
        self.check_pace()?;
        if let Some(tenant) = self.quotas_of(ask) {
            if ask.opens_lock && ask.is_in_turn {
                tenant.check_open_locks()?;
            }
            if makes_lock {
                tenant.check_locks()?;
            }
            let is_lasting = ask.is_lasting || matches!(ask.kind, Kind::Advice | Kind::Reverse);
            tenant.check_ids(if is_lasting { Quota::Advices } else { Quota::Ids })?;
        }
        self.check_room_for_ids(1)?;
        let is_full = makes_lock && self.locks.len() >= self.config.locks_max
            || ask.kind == Kind::PartitionCreate && self.partitions.len() >= PARTITIONS_PER_SHARD_MAX;
        let takes_collateral = matches!(ask.kind, Kind::Lock | Kind::Increase);
        let draws = takes_collateral || matches!(ask.kind, Kind::Advice | Kind::Withdraw);
        if is_full || draws && self.is_time_behind() {
            return Err(Code::Overloaded);
        }
        if takes_collateral && self.intake == Intake::NoLocks { Err(Code::StorageLow) } else { Ok(()) }
    }

    /// While expiries wait to be logged, collateral may be free that is not yet free: nothing that draws on it is decided.
    pub(crate) fn is_time_behind(&self) -> bool {
        (self.is_behind || !self.due.is_empty()) && !sabotage!("locks-while-expiries-are-behind")
    }

    /// Executes. An error is an admission code and has changed nothing.
    #[inline]
    fn perform(
        &mut self,
        ask: &Ask,
        record: &mut Record,
        parts: &[Record],
        outcome: &mut Outcome,
    ) -> Result<(), Code> {
        match ask.kind {
            Kind::Lock => self.lock_request(ask, record, outcome),
            Kind::Capture => self.capture(ask, record, outcome),
            Kind::Release => self.release(ask, record, outcome),
            _ => {
                *outcome = self.perform_other(ask, record, parts)?;
                Ok(())
            }
        }
    }

    fn perform_other(&mut self, ask: &Ask, record: &mut Record, parts: &[Record]) -> Result<Outcome, Code> {
        match ask.kind {
            Kind::Increase => self.increase(ask, record),
            Kind::Decrease => self.decrease(ask, record),
            Kind::Reverse => self.reverse(ask, record),
            Kind::Refund => self.refund(ask, record),
            Kind::Advice => self.advice(ask, record),
            Kind::Lookup => self.lookup(ask, record),
            Kind::Settle => self.settle(ask, record),
            Kind::Consume => self.consume(ask, record),
            Kind::ReleaseGroup => self.release_group(ask, record, parts),
            Kind::Deposit => self.deposit(ask, record),
            Kind::Reward => self.reward(ask, record),
            Kind::Withdraw => self.withdraw(ask, record),
            Kind::BatchFinal => self.batch_final(ask, record),
            Kind::GuaranteeCalled => self.guarantee_called(ask, record),
            Kind::GuaranteePaid => self.guarantee_paid(ask, record),
            Kind::GuaranteeDismissed => self.guarantee_dismissed(ask, record),
            Kind::Deficit => self.deficit(ask, record),
            Kind::RiskCap => self.risk_cap(ask, record),
            Kind::Price => self.price(ask, record),
            Kind::Freeze => self.freeze(ask, record),
            Kind::Unfreeze => self.unfreeze(ask, record),
            Kind::Reconcile => self.reconcile(ask, record),
            Kind::Policy => self.policy(ask, record, parts),
            Kind::Cover | Kind::WriteOff => self.lower_exposure(ask, record),
            Kind::PartitionCreate => self.partition_create(ask, record),
            Kind::TenantSet => self.tenant_set(ask, record),
            Kind::Grant => self.grant(ask, record),
            Kind::MerchantSet => self.merchant_set(ask, record),
            Kind::Lock
            | Kind::Capture
            | Kind::Release
            | Kind::Expire
            | Kind::AutoSettle
            | Kind::AutoConsume
            | Kind::WithdrawPaid
            | Kind::Mature
            | Kind::Start
            | Kind::Checkpoint
            | Kind::Loss
            | Kind::Continuation => Err(Code::Malformed),
        }
    }

    /// Completes the record, remembers its id, and answers.
    fn finish(&mut self, ask: &Ask, record: &mut Record, outcome: &Outcome, replies: &mut Vec<Reply>) {
        record.time = self.time;
        record.code = outcome.code as u8;
        let is_forgotten = if ask.is_live {
            sabotage!("decline-not-remembered") && outcome.code.class() == CodeClass::Decline
        } else {
            sabotage!("ids-lost-in-replay")
        };
        if outcome.needs_op && !is_forgotten {
            self.remember(ask, record, outcome);
        }
        // A replay answers nobody.
        if ask.is_live {
            self.reply(record, ask.partition, ask.seq, outcome, replies);
        }
    }

    fn remember(&mut self, ask: &Ask, record: &Record, outcome: &Outcome) {
        if let Some(slot) = ask.spent {
            // The id was spent before its lock came: now it remembers the lock's own decline.
            self.edit_op(slot, |op| {
                op.kind = Kind::Lock;
                op.code = outcome.code;
                op.fingerprint = ask.fingerprint;
                op.seq = ask.seq;
            });
            return;
        }
        let mut op = Op::new(ask.id, ask.account, ask.kind, outcome.code, ask.seq);
        op.fingerprint = ask.fingerprint;
        op.capture = u8::try_from(outcome.capture).unwrap_or(NO_CAPTURE);
        let mut side = Side {
            approved: outcome.approved,
            extra: outcome.extra,
            deadline: outcome.deadline,
            ..Side::default()
        };
        op.memo = match outcome.memo {
            _ if ask.is_lasting => {
                side.lock = wire::lock_of(record).0;
                Memo::Lasting
            }
            Memo::Side if side.approved == 0 && side.extra == 0 && side.deadline == Time::ZERO => Memo::Zero,
            Memo::Amount if record.amount.0 != outcome.approved => Memo::Side,
            memo => memo,
        };
        self.insert_op(op, op.memo.has_side().then_some(side));
    }

    /// The first answer again, with the lock's state as it is now.
    fn repeat(&self, record: &Record, found: Found, replies: &mut Vec<Reply>) {
        let (account, seq, outcome) = match found {
            Found::Lock(slot) => {
                let lock = self.locks.get(slot);
                let mut outcome = Outcome::new(lock.code);
                self.show_first(slot, &mut outcome);
                (lock.account, lock.seq, outcome)
            }
            Found::Op(slot) => {
                let op = self.ops.get(slot);
                (op.account, op.seq, self.remembered_outcome(record, slot))
            }
        };
        self.reply(record, self.account(account).partition, seq, &outcome, replies);
        if let Some(reply) = replies.last_mut() {
            reply.flags |= surety_protocol::REPLAYED;
        }
    }

    fn remembered_outcome(&self, record: &Record, slot: u32) -> Outcome {
        let op = self.ops.get(slot);
        let mut outcome = Outcome::new(op.code);
        if op.capture != NO_CAPTURE {
            outcome.capture = u16::from(op.capture);
        }
        match lock_named(op.kind, record).and_then(|lock| self.find(op.account, lock.0)) {
            Some(Found::Lock(lock)) => outcome.lock = Some(lock),
            Some(Found::Op(other)) => outcome.end = self.end_of_op(self.ops.get(other)),
            None if op.kind == Kind::Lock => outcome.end = self.end_of_op(op),
            None => {}
        }
        let lock = outcome.lock.map(|lock| *self.locks.get(lock));
        let capture = lock
            .and_then(|lock| self.capture_slot(&lock, outcome.capture))
            .map(|capture| *self.captures.get(capture));
        match op.memo {
            Memo::Zero | Memo::Tombstone => {}
            Memo::Amount => {
                outcome.approved = record.amount.0;
                outcome.deadline = capture.map_or(Time::ZERO, |capture| capture.settle_by);
            }
            Memo::Settled => {
                outcome.approved = capture.map_or(0, |capture| capture.settled);
                outcome.deadline = lock.map_or(Time::ZERO, |lock| lock.deadline);
            }
            Memo::Released => {
                outcome.approved = lock.map_or(0, |lock| lock.released - self.reversed(&lock));
                outcome.deadline = lock.map_or(Time::ZERO, |lock| lock.deadline);
            }
            Memo::Side | Memo::Lasting => {
                let side = self.sides.get(op.side);
                (outcome.approved, outcome.extra, outcome.deadline) =
                    (side.approved, side.extra, side.deadline);
            }
        }
        outcome
    }

    /// How the id of a lock that is none has ended.
    pub(crate) fn end_of_op(&self, op: &Op) -> End {
        match (op.kind, op.memo) {
            (_, Memo::Tombstone) => End::Tombstone,
            (Kind::Lock | Kind::Lookup, _) => End::Declined,
            _ => End::None,
        }
    }
}

/// The principal that a logged request names.
fn actor_of(kind: Kind, record: &Record) -> ActorId {
    match kind {
        Kind::Lock | Kind::Increase | Kind::Lookup => ActorId(0),
        Kind::Consume => record.body::<ConsumeBody>().actor,
        Kind::Deposit | Kind::Reward | Kind::Withdraw => record.body::<StakeBody>().actor,
        Kind::Price => record.body::<PriceBody>().actor,
        Kind::PartitionCreate => record.body::<PartitionBody>().actor,
        Kind::TenantSet => record.body::<TenantBody>().actor,
        Kind::Grant => record.body::<GrantBody>().actor,
        Kind::MerchantSet => record.body::<MerchantBody>().actor,
        _ if kind.changes_a_lock() => ActorId(record.body::<ChangeBody>().life_ms_or_actor),
        _ => record.body::<ControlBody>().actor,
    }
}

/// The lock that a request names.
pub(crate) fn lock_named(kind: Kind, record: &Record) -> Option<Id> {
    let names_one = kind.changes_a_lock() || matches!(kind, Kind::Consume | Kind::AutoConsume);
    names_one.then(|| wire::lock_of(record))
}

/// Where an id is remembered: with its partition, or with the shard if it concerns none that exists.
pub(crate) fn home(ledger: &Ledger, kind: Kind, partition: PartitionHandle) -> PartitionHandle {
    if is_for_shard(kind) || kind == Kind::PartitionCreate {
        PartitionHandle::new(ledger.config.shard, 0)
    } else {
        partition
    }
}

pub(crate) const fn is_for_shard(kind: Kind) -> bool {
    matches!(kind, Kind::TenantSet | Kind::MerchantSet | Kind::Price)
}

fn is_operator(caller: &Caller) -> bool {
    caller.tenant == TenantId(0) && (caller.roles.has(Roles::SETTLER) || caller.roles.has(Roles::ADMIN))
}

/// What a tenant's rights on a partition allow.
fn may(rights: Rights, kind: Kind, flags: Flags) -> bool {
    match kind {
        Kind::Lookup if flags.has(Flags::BURN) => rights.has(Rights::AUTHORIZE),
        Kind::Lookup => true,
        Kind::Advice => rights.has(Rights::ADVISE),
        Kind::Settle => rights.has(Rights::SETTLE),
        Kind::Consume => rights.has(Rights::CONSUME),
        _ => rights.has(Rights::AUTHORIZE),
    }
}

/// Whether the fields make sense by themselves.
fn is_sound(kind: Kind, record: &Record) -> bool {
    let needs_amount = matches!(
        kind,
        Kind::Lock
            | Kind::Increase
            | Kind::Decrease
            | Kind::Capture
            | Kind::Refund
            | Kind::Advice
            | Kind::Deposit
            | Kind::Reward
            | Kind::Withdraw
            | Kind::BatchFinal
            | Kind::GuaranteePaid
            | Kind::Deficit
            | Kind::Price
            | Kind::Cover
            | Kind::WriteOff
    );
    let amount_max = if kind == Kind::Withdraw { UNITS_MAX } else { AMOUNT_MAX };
    if record.amount.0 > amount_max || kind == Kind::Lock && !wire::floor_of(record).is_in_range() {
        return false;
    }
    let takes_none = matches!(kind, Kind::Release | Kind::Reverse | Kind::Settle | Kind::Lookup);
    if needs_amount && record.amount == Amount::ZERO || takes_none && record.amount != Amount::ZERO {
        return false;
    }
    if let Some(lock) = lock_named(kind, record)
        && (!(lock.is_uuid_v7() || lock.is_lasting()) || lock == record.id && kind != Kind::Lookup)
    {
        return false;
    }
    let id = record.id;
    let is_own = if record.flags().are_lasting(kind) { id.is_lasting() } else { id.is_uuid_v7() };
    (kind == Kind::Lookup || is_own || sabotage!("lasting-under-an-ordinary-id"))
        && (!is_for_shard(kind) || record.partition.number() == 0)
}

/// Hash of a request as it was sent, with its tenant named; of a long one with its payload.
fn fingerprint(kind: Kind, record: &Record, parts: &[Record]) -> u64 {
    parts.iter().fold(wire::fingerprint(record, kind), |sum, part| {
        let mut hash = WordHash::new();
        hash.number(sum, 8);
        hash.bytes(&part.to_bytes());
        u64::try_from(hash.finish() >> 64).unwrap_or(0)
    })
}
