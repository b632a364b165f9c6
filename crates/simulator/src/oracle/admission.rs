//! Who may ask what, what was asked before, which ids are young enough, and what there is room for.

use surety_protocol::limits::{CHAIN_MAX, ID_FUTURE_MAX, LONG_RECORDS_MAX, PARTITIONS_PER_SHARD_MAX};
use surety_protocol::{
    Amount, Caller, Code, End, Flags, Id, Kind, Origin, PartitionHandle, Record, Reply, Rights, Roles, Seq,
    ShardId, TenantId, Time,
};

use super::{Account, Answer, Ask, Intake, Lock, Oracle, Outcome, as_sent};

/// What became of looking at a request.
pub(super) enum Examined {
    New(Ask),
    Repeat(Account),
}

/// What needs no ledger: size, shape, role, shard. One bad member refuses all, with one code.
pub(super) fn shape(operation: &[Record], caller: &Caller, shard: ShardId) -> Result<(), Code> {
    let is_long = operation[0].continuations() > 0;
    if operation.len() > if is_long { LONG_RECORDS_MAX } else { CHAIN_MAX } {
        return Err(Code::TooLarge);
    }
    for record in operation {
        let kind = record.kind().ok_or(Code::Malformed)?;
        if kind == Kind::Continuation {
            continue;
        }
        let is_chained = record.is_linked() || !is_long && operation.len() > 1;
        let is_elsewhere = record.partition.shard() != operation[0].partition.shard();
        if !record.is_well_formed(kind) || is_elsewhere || is_chained && !kind.may_be_linked() {
            return Err(Code::Malformed);
        }
        if !caller.may_send(kind, record.tenant) {
            return Err(Code::NoRight);
        }
    }
    let is_ours =
        |record: &Record| record.kind() == Some(Kind::Continuation) || record.partition.shard() == shard;
    if operation.iter().all(is_ours) { Ok(()) } else { Err(Code::UnknownPartition) }
}

/// True for requests about the shard and not about a partition.
fn is_for_shard(kind: Kind) -> bool {
    matches!(kind, Kind::TenantSet | Kind::MerchantSet | Kind::Price)
}

/// Whose id it is: the shard's own requests and those that make a partition have theirs with the shard.
pub(super) fn home_of(tenant: TenantId, kind: Kind, partition: PartitionHandle) -> Account {
    let is_homeless = is_for_shard(kind) || kind == Kind::PartitionCreate;
    (tenant, if is_homeless { PartitionHandle::new(partition.shard(), 0) } else { partition })
}

/// The lock that a request names.
pub(super) fn named(record: &Record) -> Option<Id> {
    let kind = record.kind()?;
    let names_one = kind.changes_a_lock() || kind == Kind::Consume;
    names_one.then(|| record.body::<surety_protocol::ChangeBody>().lock)
}

/// Whether a request makes sense by itself. Amount 0 where one is needed does not, nor one where none is taken.
fn makes_sense(kind: Kind, record: &Record) -> bool {
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
    let takes_none = matches!(kind, Kind::Release | Kind::Reverse | Kind::Settle | Kind::Lookup);
    let is_zero = record.amount == Amount::ZERO;
    if needs_amount && is_zero || takes_none && !is_zero {
        return false;
    }
    if let Some(lock) = named(record)
        && (!(lock.is_uuid_v7() || lock.is_lasting()) || lock == record.id && kind != Kind::Lookup)
    {
        return false;
    }
    // What is good for seven days has ids that no ordinary request may have.
    let fits = match record.flags().are_lasting(kind) {
        true => record.id.is_lasting(),
        false => record.id.is_uuid_v7(),
    };
    (kind == Kind::Lookup || fits) && (!is_for_shard(kind) || record.partition.number() == 0)
}

impl Oracle {
    pub(super) fn examine(
        &self,
        caller: &Caller,
        seq: Seq,
        records: &mut [Record],
        is_alone: bool,
    ) -> Result<Examined, Code> {
        let kind = records[0].kind().ok_or(Code::Malformed)?;
        if !makes_sense(kind, &records[0]) {
            return Err(Code::Malformed);
        }
        self.check_not_lost(caller, &records[0])?;
        let is_operator = caller.tenant == TenantId(0)
            && (caller.roles.has(Roles::SETTLER) || caller.roles.has(Roles::ADMIN));
        let tenant = self.admit(caller, is_operator, kind, &records[0])?;
        records[0].tenant = tenant;
        let partition = records[0].partition;
        let home = home_of(tenant, kind, partition);
        let is_lasting = records[0].flags().are_lasting(kind);
        let opens_lock = kind == Kind::Lock && !records[0].flags().has(Flags::SALE);
        let id = records[0].id;
        let ask = Ask { kind, id, tenant, home, partition, seq, is_operator, is_lasting, opens_lock };
        if kind == Kind::Lookup {
            return Ok(Examined::New(ask));
        }
        if let Some(is_same) = self.is_repeat(&ask, records) {
            return if is_same { Ok(Examined::Repeat(home)) } else { Err(Code::IdConflict) };
        }
        self.check_reconciled(caller, &ask)?;
        let at = ask.id.time();
        let window = match kind {
            Kind::Advice | Kind::Reverse => surety_protocol::limits::ADVICE_WINDOW,
            _ if is_lasting => surety_protocol::limits::ADVICE_WINDOW,
            _ => self.rules.id_window,
        };
        if at < self.time.minus(window) {
            return Err(Code::StaleId);
        }
        if at > self.time.plus(ID_FUTURE_MAX) {
            return Err(Code::IdFromFuture);
        }
        self.check_room(&ask, is_alone)?;
        Ok(Examined::New(ask))
    }

    /// Inside a chain: what the members before have used up or spent.
    pub(super) fn examine_again(&self, ask: &Ask) -> Result<(), Code> {
        self.check_room(ask, true)?;
        let key = (ask.home, ask.id);
        let is_taken = match self.spent.get(&key) {
            Some(spent) => !(ask.kind == Kind::Lock && spent.request.is_none()),
            None => self.locks.contains_key(&key),
        };
        if is_taken { Err(Code::IdConflict) } else { Ok(()) }
    }

    /// Whether the id was used: by the same request, or by another.
    fn is_repeat(&self, ask: &Ask, records: &[Record]) -> Option<bool> {
        let key = (ask.home, ask.id);
        if let Some(lock) = self.locks.get(&key) {
            return Some(lock.request.is_some_and(|request| request == records[0].as_sent()));
        }
        let spent = self.spent.get(&key)?;
        match &spent.request {
            // It waits for its lock, to decline it.
            None if ask.kind == Kind::Lock => None,
            None => Some(false),
            Some(request) => Some(*request == as_sent(records)),
        }
    }

    fn admit(
        &self,
        caller: &Caller,
        is_operator: bool,
        kind: Kind,
        record: &Record,
    ) -> Result<TenantId, Code> {
        let tenant = if record.tenant == TenantId(0) { caller.tenant } else { record.tenant };
        let is_shut_out = caller.tenant != TenantId(0)
            && self.tenants.get(&caller.tenant).is_none_or(|tenant| tenant.enabled != 1);
        if is_shut_out {
            return Err(Code::NoRight);
        }
        let exists = record.partition.number() != 0 && self.partitions.contains_key(&record.partition);
        if is_operator || matches!(kind.origin(), Origin::Admin | Origin::Chain) {
            let needs_none = is_for_shard(kind) || kind == Kind::PartitionCreate;
            return if exists || needs_none { Ok(tenant) } else { Err(Code::UnknownPartition) };
        }
        let rights = self.rights.get(&(tenant, record.partition)).copied().unwrap_or_default();
        if rights == Rights::default() {
            return Err(Code::UnknownPartition);
        }
        let is_burn = kind == Kind::Lookup && record.flags().has(Flags::BURN);
        let needed = match kind {
            Kind::Lookup if !is_burn => return Ok(tenant),
            Kind::Advice => Rights::ADVISE,
            Kind::Settle => Rights::SETTLE,
            Kind::Consume => Rights::CONSUME,
            _ => Rights::AUTHORIZE,
        };
        let has_role = !is_burn || caller.roles.has(Roles::AUTHORIZER);
        if rights.has(needed) && has_role { Ok(tenant) } else { Err(Code::NoRight) }
    }

    /// Before what stands before it in its chain was done, nothing is known of open locks: some may have ended by then.
    fn check_room(&self, ask: &Ask, knows_open: bool) -> Result<(), Code> {
        if let Some(code) = self.used_up_by(ask, knows_open).filter(|_| !ask.is_operator) {
            return Err(code);
        }
        let makes_lock = matches!(ask.kind, Kind::Lock | Kind::Advice);
        self.check_room_for(1)?;
        let is_full = makes_lock && self.locks.len() >= self.rules.locks_max
            || ask.kind == Kind::PartitionCreate && self.partitions.len() + 1 >= PARTITIONS_PER_SHARD_MAX;
        let takes = matches!(ask.kind, Kind::Lock | Kind::Increase);
        let draws = takes || matches!(ask.kind, Kind::Advice | Kind::Withdraw);
        if is_full || draws && self.is_time_behind() {
            return Err(Code::Overloaded);
        }
        if takes && self.intake == Intake::NoLocks { Err(Code::StorageLow) } else { Ok(()) }
    }

    /// The code of the first quota of its tenant that has no room for what a request would leave behind.
    fn used_up_by(&self, ask: &Ask, knows_open: bool) -> Option<Code> {
        let quotas = self.tenants.get(&ask.tenant)?;
        let max = u64::from(quotas.open_locks_max);
        let is_held = ask.opens_lock && knows_open && max > 0;
        if is_held && self.locks_of(ask.tenant, max, Lock::is_live) >= max {
            return Some(Code::QuotaOpenLocks);
        }
        let makes_lock = matches!(ask.kind, Kind::Lock | Kind::Advice);
        if makes_lock && self.locks_of(ask.tenant, quotas.locks_max, |_| true) >= quotas.locks_max {
            return Some(Code::QuotaLocks);
        }
        self.ids_used_up(ask, ask.is_lasting || matches!(ask.kind, Kind::Advice | Kind::Reverse))
    }

    /// The same of ids alone: those of the window, or those that last.
    pub(super) fn ids_used_up(&self, ask: &Ask, are_lasting: bool) -> Option<Code> {
        let quotas = self.tenants.get(&ask.tenant)?;
        let (used, max, code) = if are_lasting {
            (self.advices_of(ask.tenant, quotas.advices_max), quotas.advices_max, Code::QuotaAdvices)
        } else {
            (self.ids_of(ask.tenant, quotas.ids_max), quotas.ids_max, Code::QuotaIds)
        };
        (used >= max).then_some(code)
    }

    /// Counting is left out where all that there are are fewer than the quota.
    fn locks_of(&self, tenant: TenantId, quota: u64, counts: impl Fn(&Lock) -> bool) -> u64 {
        if (self.locks.len() as u64) < quota {
            return 0;
        }
        let owned = self.locks.iter().filter(|(((owner, _), _), lock)| *owner == tenant && counts(lock));
        owned.count() as u64
    }

    /// Counting is left out where all that is remembered is below the quota.
    fn count_spent(&self, tenant: TenantId, quota: u64, counts: impl Fn(&super::Spent) -> bool) -> u64 {
        if (self.spent.len() as u64) < quota {
            return 0;
        }
        let owned = self.spent.iter().filter(|(((owner, _), _), spent)| *owner == tenant && counts(spent));
        owned.count() as u64
    }

    pub(super) fn ids_of(&self, tenant: TenantId, quota: u64) -> u64 {
        self.count_spent(tenant, quota, |spent| !spent.is_tombstone && !spent.is_advice())
    }

    pub(super) fn tombstones_of(&self, tenant: TenantId, quota: u64) -> u64 {
        self.count_spent(tenant, quota, |spent| spent.is_tombstone)
    }

    pub(super) fn advices_of(&self, tenant: TenantId, quota: u64) -> u64 {
        self.count_spent(tenant, quota, |spent| !spent.is_tombstone && spent.is_advice())
    }

    /// An id that nobody has used may be spent by another's request, if it is not ahead of time.
    pub(super) fn check_not_ahead(&self, id: Id) -> Result<(), Code> {
        if id.time() > self.time.plus(ID_FUTURE_MAX) { Err(Code::IdFromFuture) } else { Ok(()) }
    }

    /// Whether so many ids more can be remembered, and said to be in the log.
    pub(super) fn check_room_for(&self, more: usize) -> Result<(), Code> {
        let is_full = self.spent.len() + more > self.rules.ids_max;
        if is_full || self.intake == Intake::Nothing { Err(Code::Overloaded) } else { Ok(()) }
    }

    /// How an id that is no lock's has ended, if it is one that a lock could have had.
    pub(super) fn end_of_spent(&self, home: Account, id: Id) -> Option<End> {
        let spent = self.spent.get(&(home, id))?;
        Some(match spent.kind {
            _ if spent.is_tombstone => End::Tombstone,
            Kind::Lock | Kind::Lookup => End::Declined,
            _ => End::None,
        })
    }

    /// A decline that shows the lock it is about.
    pub(super) fn declined_about(&self, ask: &Ask, record: &Record, code: Code) -> Outcome {
        let mut outcome = Outcome::new(code);
        if let Some(id) = named(record) {
            outcome.lock = Some(id);
            outcome.end = self.end_of_spent(ask.home, id).unwrap_or(End::None);
        }
        outcome
    }

    /// The first answer again, with the present state of the lock.
    pub(super) fn repeat(&self, home: Account, record: &Record) -> Reply {
        let key = (home, record.id);
        let (answer, lock, end) = match self.locks.get(&key) {
            Some(lock) => {
                let (code, approved, extra, deadline, seq) = lock.first;
                let capture = if lock.is_sale { 0 } else { surety_protocol::ALL_CAPTURES };
                (Answer { code, approved, extra, deadline, capture, seq }, Some(record.id), End::None)
            }
            None => {
                let spent = &self.spent[&key];
                let lock = named(record);
                let shown = if spent.kind == Kind::Lock { Some(record.id) } else { lock };
                let end = shown.and_then(|id| self.end_of_spent(home, id)).unwrap_or(End::None);
                (spent.answer, lock, end)
            }
        };
        let mut reply = self.show(home, record, &answer, lock, end);
        reply.flags |= surety_protocol::REPLAYED;
        reply
    }

    /// Spends an id for nobody: a tombstone, or a burned id.
    pub(super) fn spend(
        &mut self,
        home: Account,
        id: Id,
        kind: Kind,
        lasting: Option<Id>,
        code: Code,
        seq: Seq,
    ) {
        let answer = Answer {
            code,
            approved: 0,
            extra: 0,
            deadline: Time::ZERO,
            capture: surety_protocol::ALL_CAPTURES,
            seq,
        };
        let is_tombstone = kind == Kind::Release;
        self.spent.insert((home, id), super::Spent { request: None, kind, is_tombstone, lasting, answer });
        let at = self.stale_ms(id, kind, lasting.is_some());
        self.forgettable.insert((at, home, id));
    }
}
