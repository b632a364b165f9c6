//! A ledger with its log, its clock and a reader of its stream; every step is verified.
// Each test file is a crate of its own and uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;

use ledger::{AcceptedLoss, Config, Decision, Divergence, Entry, Ledger, LossError, Totals, operation_len};
use surety_protocol::*;

pub const SHARD: ShardId = ShardId(0);
pub const P1: PartitionHandle = PartitionHandle(1);
pub const P2: PartitionHandle = PartitionHandle(2);
pub const T1: TenantId = TenantId(1);
pub const T2: TenantId = TenantId(2);
pub const MERCHANT: MerchantId = MerchantId(7);
pub const AMP: AssetId = AssetId(1);
pub const EUR: QuoteId = QuoteId(978);
pub const SUPPLIER: Address = Address([9; 20]);
pub const RELEASE_KEY: Address = Address([8; 20]);
/// 1:1 in base units: one whole for 10^18 of the quote.
pub const PAR: u128 = 1_000_000_000_000_000_000;
/// When every world begins.
pub const START: Time = Time::from_millis(1_700_000_000_000);

pub fn config() -> Config {
    Config {
        shard: SHARD,
        id_window: limits::ID_WINDOW_DEFAULT,
        ids_max: 1 << 20,
        locks_max: 1 << 20,
        index_secret: 7,
    }
}

pub fn operator() -> Caller {
    Caller { tenant: TenantId(0), roles: Roles::SETTLER | Roles::ADMIN, actor: ActorId(0xad) }
}

pub fn codes(replies: &[Reply]) -> Vec<Code> {
    replies.iter().map(Reply::code).collect()
}

pub fn caller(tenant: TenantId) -> Caller {
    Caller { tenant, roles: Roles::AUTHORIZER, actor: ActorId(0x77) }
}

/// A request before it has ids: locks and ids go by names.
#[derive(Clone, Debug)]
pub struct Ask {
    pub kind: Kind,
    /// The request's own name; empty for one that nobody refers to.
    pub name: &'static str,
    /// The lock's name.
    pub lock: &'static str,
    pub amount: u128,
    pub flags: Flags,
    pub capture: u16,
    pub version: u16,
    pub floor: u128,
    pub merchant: MerchantId,
    pub life_ms: u32,
    pub category: u16,
    pub quote: QuoteId,
    pub partition: PartitionHandle,
    pub tenant: TenantId,
    pub by: Option<Caller>,
}

pub fn ask(kind: Kind, name: &'static str, amount: u128) -> Ask {
    Ask {
        kind,
        name,
        lock: "",
        amount,
        flags: Flags(0),
        capture: 0,
        version: 0,
        floor: 0,
        merchant: MERCHANT,
        life_ms: 0,
        category: 5411,
        quote: QuoteId(0),
        partition: P1,
        tenant: T1,
        by: None,
    }
}

pub fn lock(name: &'static str, amount: u128) -> Ask {
    ask(Kind::Lock, name, amount)
}

pub fn on(kind: Kind, lock: &'static str, amount: u128) -> Ask {
    Ask { lock, ..ask(kind, "", amount) }
}

pub fn capture(lock: &'static str, amount: u128) -> Ask {
    on(Kind::Capture, lock, amount)
}

pub fn release(lock: &'static str) -> Ask {
    on(Kind::Release, lock, 0)
}

pub fn settle(lock: &'static str, capture: u16) -> Ask {
    Ask { capture, ..on(Kind::Settle, lock, 0) }
}

pub fn reverse(lock: &'static str, capture: u16) -> Ask {
    Ask { capture, ..on(Kind::Reverse, lock, 0) }
}

pub fn refund(lock: &'static str, capture: u16, amount: u128) -> Ask {
    Ask { capture, ..on(Kind::Refund, lock, amount) }
}

pub fn consume(lock: &'static str, capture: u16, amount: u128) -> Ask {
    Ask { capture, ..on(Kind::Consume, lock, amount) }
}

pub fn advice(lock: &'static str, amount: u128) -> Ask {
    on(Kind::Advice, lock, amount)
}

pub fn lookup(lock: &'static str) -> Ask {
    on(Kind::Lookup, lock, 0)
}

/// Requests of the operator on the whole partition.
pub fn operate(kind: Kind, amount: u128) -> Ask {
    Ask { by: Some(operator()), tenant: TenantId(0), ..ask(kind, "", amount) }
}

/// Facts of the chain about a lock.
pub fn guarantee(kind: Kind, lock: &'static str, amount: u128) -> Ask {
    Ask { by: Some(operator()), ..on(kind, lock, amount) }
}

impl Ask {
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
    pub fn flag(self, flags: Flags) -> Self {
        Self { flags: self.flags | flags, ..self }
    }
    pub fn finally(self) -> Self {
        self.flag(Flags::FINAL)
    }
    pub fn linked(self) -> Self {
        self.flag(Flags::LINKED)
    }
    pub fn version(self, version: u16) -> Self {
        Self { version, ..self }
    }
    pub fn floor(self, floor: u128) -> Self {
        Self { floor, ..self }
    }
    pub fn life(self, life_ms: u32) -> Self {
        Self { life_ms, ..self }
    }
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant, ..self }
    }
    pub fn partition(self, partition: PartitionHandle) -> Self {
        Self { partition, ..self }
    }
    pub fn by(self, by: Caller) -> Self {
        Self { by: Some(by), ..self }
    }
    pub fn quote(self) -> Self {
        Self { quote: EUR, ..self }
    }
}

/// A reader of the change stream that knows no ledger: it adds up what `RECORDS.md` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub on_chain: u128,
    pub deficit: u128,
    pub free: u128,
    pub locked: u128,
    pub owed: u128,
    pub exposure: u128,
}

impl Sums {
    fn credit(&mut self, amount: u128) {
        let repaid = amount.min(self.deficit);
        self.deficit -= repaid;
        self.free += amount - repaid;
    }

    /// `freed` of a body: from locked to free, or the other way.
    fn free_up(&mut self, freed: i128) {
        if freed < 0 {
            self.free -= freed.unsigned_abs();
            self.locked += freed.unsigned_abs();
        } else {
            self.locked -= freed.unsigned_abs();
            self.credit(freed.unsigned_abs());
        }
    }

    pub fn apply(&mut self, record: &Record) {
        if !record.code().is_some_and(Code::is_success) {
            return;
        }
        let kind = record.kind().unwrap();
        let (amount, result) = (record.amount.0, record.result.0);
        let is_exposed = record.flags().has(Flags::EXPOSED);
        match kind {
            Kind::Lock => {
                self.free -= result;
                self.locked += result;
            }
            Kind::Increase
            | Kind::Decrease
            | Kind::Capture
            | Kind::Release
            | Kind::Reverse
            | Kind::Refund
            | Kind::Settle
            | Kind::Expire
            | Kind::AutoSettle
            | Kind::Mature => self.free_up(record.body::<ChangeBody>().freed),
            Kind::Advice => {
                self.free_up(record.body::<ChangeBody>().freed);
                if is_exposed {
                    self.exposure += amount - result;
                }
            }
            Kind::Consume | Kind::AutoConsume => {
                let freed = record.body::<ConsumeBody>().freed;
                self.locked -= result;
                self.owed += result;
                if is_exposed {
                    self.exposure += freed.unsigned_abs();
                } else {
                    self.free_up(freed);
                }
            }
            Kind::ReleaseGroup => self.free_up(i128::try_from(result).unwrap()),
            Kind::Deposit | Kind::Reward => {
                self.on_chain += result;
                self.credit(result);
            }
            Kind::Withdraw | Kind::WithdrawPaid => {
                self.free -= result;
                self.owed += result;
            }
            Kind::BatchFinal => {
                self.owed -= result;
                self.on_chain -= result;
            }
            Kind::GuaranteePaid => {
                let freed = record.body::<ChangeBody>().freed;
                self.on_chain -= amount;
                self.deficit += amount - result;
                // Negative: what F bore in place of the lock.
                self.locked -= result.checked_add_signed(freed.min(0)).unwrap();
                if freed < 0 {
                    self.free -= freed.unsigned_abs();
                } else {
                    self.free_up(freed);
                }
            }
            Kind::Deficit => {
                self.on_chain -= amount;
                self.free -= result;
                self.deficit += amount - result;
            }
            Kind::Cover | Kind::WriteOff => self.exposure -= result,
            _ => {}
        }
    }
}

impl From<&Totals> for Sums {
    fn from(totals: &Totals) -> Self {
        Self {
            on_chain: totals.on_chain,
            deficit: totals.deficit,
            free: totals.free,
            locked: totals.held + totals.captured + totals.pending,
            owed: totals.owed,
            exposure: totals.exposure,
        }
    }
}

pub struct World {
    pub ledger: Ledger,
    pub now: Time,
    pub log: Vec<Record>,
    pub sums: BTreeMap<PartitionHandle, Sums>,
    pub names: BTreeMap<&'static str, Id>,
    pub next: u128,
    /// Nonces of deposits.
    pub nonce: u64,
    /// Check every invariant after every step.
    pub is_strict: bool,
}

impl World {
    /// Nothing at all.
    pub fn empty() -> Self {
        let mut ledger = Ledger::new(config());
        ledger.advance(START, Seq(1), &mut Vec::new());
        Self {
            ledger,
            now: START,
            log: Vec::new(),
            sums: BTreeMap::new(),
            names: BTreeMap::new(),
            next: 0,
            nonce: 0,
            is_strict: true,
        }
    }

    /// Two tenants with every right on two partitions, a merchant, and 1,000 free in the first partition.
    pub fn new() -> Self {
        Self::with_policy(&Policy { edge_unit: Amount(10), ..Policy::default() })
    }

    pub fn with_policy(policy: &Policy) -> Self {
        let mut world = Self::empty();
        for tenant in [T1, T2] {
            world.set_tenant(tenant, 1 << 16);
            world.set_merchant(tenant, MERCHANT);
        }
        for partition in [P1, P2] {
            world.create(partition, 1);
            for tenant in [T1, T2] {
                world.grant(partition, tenant, Rights::KNOWN);
            }
            world.policy(partition, policy);
        }
        world.deposit(P1, 1000);
        world
    }

    pub fn fresh_id(&mut self) -> Id {
        self.next += 1;
        Id::from_parts(self.now, self.next << 62 | self.next)
    }

    /// The id behind a name, made at its first use.
    pub fn id(&mut self, name: &'static str) -> Id {
        if name.is_empty() {
            return self.fresh_id();
        }
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = self.fresh_id();
        self.names.insert(name, id);
        id
    }

    pub fn record(&mut self, ask: &Ask) -> Record {
        let mut id = self.id(ask.name);
        if ask.flags.are_lasting(ask.kind) && ask.kind != Kind::Lookup {
            id = id.lasting();
            if !ask.name.is_empty() {
                self.names.insert(ask.name, id);
            }
        }
        let amount = Amount(ask.amount);
        let mut record = match ask.kind {
            Kind::Lock => {
                let body = LockBody {
                    floor: Amount(ask.floor),
                    merchant: ask.merchant,
                    life_ms: ask.life_ms,
                    category: ask.category,
                    quote: ask.quote,
                    user: 1,
                    ..LockBody::default()
                };
                Record::new(ask.kind, id, ask.partition, amount, &body)
            }
            Kind::Consume => {
                let lock = self.id(ask.lock);
                let body = ConsumeBody { lock, capture: ask.capture, ..ConsumeBody::default() };
                Record::new(ask.kind, id, ask.partition, amount, &body)
            }
            Kind::Deposit | Kind::Reward | Kind::Withdraw => {
                self.nonce += 1;
                let supplier = if ask.kind == Kind::Reward { Address::default() } else { SUPPLIER };
                let body = StakeBody { supplier, nonce: self.nonce, ..StakeBody::default() };
                Record::new(ask.kind, id, ask.partition, amount, &body)
            }
            kind if kind.changes_a_lock() => {
                let body = ChangeBody {
                    lock: self.id(ask.lock),
                    life_ms_or_actor: if kind == Kind::Increase { ask.life_ms } else { 0 },
                    capture: ask.capture,
                    version: ask.version,
                    ..ChangeBody::default()
                };
                Record::new(kind, id, ask.partition, amount, &body)
            }
            kind => {
                self.nonce += 1;
                let body = ControlBody { number: self.nonce, ..ControlBody::default() };
                Record::new(kind, id, ask.partition, amount, &body)
            }
        };
        record.tenant =
            if ask.by.is_some_and(|by| by.tenant == TenantId(0)) { ask.tenant } else { TenantId(0) };
        record.with_flags(ask.flags)
    }

    /// Decides one request.
    pub fn send(&mut self, ask: &Ask) -> Reply {
        let record = self.record(ask);
        let by = ask.by.unwrap_or_else(|| caller(ask.tenant));
        self.execute(&by, vec![record]).1.remove(0)
    }

    /// Decides a linked chain; the last member is not linked, the others are.
    pub fn chain(&mut self, asks: &[Ask]) -> (Decision, Vec<Reply>) {
        let mut records: Vec<Record> = asks.iter().map(|ask| self.record(ask)).collect();
        let last = records.len() - 1;
        records[..last].iter_mut().for_each(|record| record.flags |= Flags::LINKED.0);
        let by = asks[0].by.unwrap_or_else(|| caller(asks[0].tenant));
        self.execute(&by, records)
    }

    /// Decides an operation as the engine does: what is due first, then the operation, then what follows it.
    pub fn execute(&mut self, by: &Caller, mut records: Vec<Record>) -> (Decision, Vec<Reply>) {
        self.advance();
        // Groups of releases are let in only by who verifies their signatures; the ledger gets verified ones.
        let is_group = records[0].kind() == Some(Kind::ReleaseGroup);
        if let Err(code) = if is_group { Ok(()) } else { admit(&records, by) } {
            let refused = |record: &Record| Reply { id: record.id, code: code as u8, ..Reply::default() };
            return (Decision::NotLogged, records.iter().map(refused).collect());
        }
        let before = self.ledger.state_hash();
        let (mut replies, mut follow) = (Vec::new(), Vec::new());
        let seq = self.next_seq();
        let decision = self.ledger.decide(self.now, by, seq, &mut records, &mut replies, &mut follow);
        match decision {
            Decision::Logged => {
                self.append(&records);
                self.append(&follow);
            }
            Decision::NotLogged => {
                assert_eq!(
                    self.ledger.state_hash(),
                    before,
                    "what is not logged leaves no trace: {records:?}"
                );
                assert!(follow.is_empty());
            }
        }
        self.check();
        (decision, replies)
    }

    pub fn next_seq(&self) -> Seq {
        Seq(self.log.len() as u64 + 1)
    }

    fn append(&mut self, records: &[Record]) {
        let mut rest = records;
        while let Some(length) = operation_len(rest).filter(|length| *length > 0) {
            for record in &rest[..length] {
                if record.kind() != Some(Kind::Continuation) {
                    self.sums.entry(record.partition).or_default().apply(record);
                }
            }
            rest = &rest[length..];
            if rest.is_empty() {
                break;
            }
        }
        self.log.extend_from_slice(records);
    }

    /// Logs what is due now.
    pub fn advance(&mut self) {
        loop {
            let mut out = Vec::new();
            let seq = self.next_seq();
            let is_behind = self.ledger.advance(self.now, seq, &mut out);
            assert!(out.len() <= limits::DUE_RECORDS_PER_TURN_MAX);
            self.append(&out);
            if !is_behind {
                return;
            }
        }
    }

    /// Lets time pass.
    pub fn wait(&mut self, ms: u64) {
        self.now = self.now.plus(Time::from_millis(ms));
        self.advance();
        self.check();
    }

    pub fn check(&self) {
        if !self.is_strict {
            return;
        }
        if let Err(violation) = self.ledger.verify() {
            panic!("{violation}; log: {:#?}", self.log);
        }
        for totals in self.ledger.partitions() {
            let sums = self.sums.get(&totals.handle).copied().unwrap_or_default();
            assert_eq!(sums, Sums::from(&totals), "what the stream adds up to; last: {:?}", self.log.last());
        }
    }

    /// Logs the state hash.
    pub fn checkpoint(&mut self) {
        self.advance();
        let record = self.ledger.checkpoint(self.now);
        self.append(&[record]);
    }

    /// F, H, U, P, W, X of the first partition.
    pub fn money(&self) -> [u128; 6] {
        self.money_of(P1)
    }

    pub fn money_of(&self, handle: PartitionHandle) -> [u128; 6] {
        let totals = self.ledger.partition(handle).unwrap();
        [totals.free, totals.held, totals.captured, totals.pending, totals.owed, totals.exposure]
    }

    pub fn lock_state(&self, name: &'static str) -> Option<ledger::LockState> {
        self.ledger.lock(T1, P1, *self.names.get(name)?)
    }

    pub fn end(&self, name: &'static str) -> End {
        self.names.get(name).map_or(End::None, |id| self.ledger.end(T1, P1, *id))
    }

    /// Replays the log into a new ledger.
    pub fn replayed(&self) -> Result<Ledger, Divergence> {
        replay(Ledger::new(config()), Seq(1), &self.log)
    }

    /// What came behind the first `kept` records is lost, and that is accepted: goes on from a copy of what came before.
    pub fn lose(&mut self, kept: usize, until: Time) {
        self.try_to_lose(kept, until).unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn try_to_lose(&mut self, kept: usize, until: Time) -> Result<(), LossError> {
        let kept_log = self.log[..kept].to_vec();
        let mut ledger = replay(Ledger::new(config()), Seq(1), &kept_log).unwrap();
        let accepted = AcceptedLoss { life: self.next, until };
        let loss = ledger.accept_loss(self.now, Seq(kept as u64), accepted)?;
        self.ledger = ledger;
        self.log.clear();
        self.sums.clear();
        self.append(&kept_log);
        let mut start =
            Record::new(Kind::Start, Id(0), PartitionHandle(0), Amount::ZERO, &ControlBody::default());
        (start.time, start.code) = (self.now, Code::Approved as u8);
        self.append(&[start, loss]);
        self.check();
        Ok(())
    }

    /// The last word of the operator after a loss.
    pub fn reconcile(&mut self, partition: PartitionHandle) {
        assert_eq!(self.send(&operate(Kind::Reconcile, 0).partition(partition)).code(), Code::Approved);
    }

    /// Checks that log and snapshots lead to the same state.
    pub fn finish(&mut self) {
        self.advance();
        let mut replayed = self.replayed().unwrap_or_else(|divergence| panic!("{divergence}"));
        replayed.advance(self.now, self.next_seq(), &mut Vec::new());
        assert_eq!(replayed.state_hash(), self.ledger.state_hash(), "replay leads to the same state");
        assert_eq!(replayed.verify(), Ok(()));
        let entries: Vec<Entry> = self.ledger.entries().collect();
        assert!(entries.windows(2).all(|pair| pair[0] < pair[1]), "entries are in order, each once");
        let sum = entries.iter().fold(0, |sum: u128, entry| sum.wrapping_add(entry.hash()));
        assert_eq!(sum, self.ledger.state_hash(), "the hash is the sum over the entries");
        let bytes = entries.iter().map(|entry| Entry::from_bytes(entry.as_bytes().to_vec()).unwrap());
        let loaded = Ledger::from_entries(config(), self.now, bytes).unwrap();
        assert_eq!(loaded.state_hash(), self.ledger.state_hash(), "a snapshot leads to the same state");
        assert_eq!(loaded.verify(), Ok(()));
        assert_eq!(loaded.entries().collect::<Vec<_>>(), entries);
    }

    // What the operator does.

    pub fn set_tenant(&mut self, tenant: TenantId, quota: u64) {
        let body = TenantBody {
            tenant,
            locks_max: quota,
            ids_max: quota,
            tombstones_max: quota,
            advices_max: quota,
            enabled: 1,
            ..TenantBody::default()
        };
        self.operate_with(Kind::TenantSet, PartitionHandle(0), &body);
    }

    pub fn set_merchant(&mut self, tenant: TenantId, merchant: MerchantId) {
        let body = MerchantBody {
            merchant,
            payee: Address([5; 20]),
            release_key: RELEASE_KEY,
            enabled: 1,
            ..MerchantBody::default()
        };
        let id = self.fresh_id();
        let mut record = Record::new(Kind::MerchantSet, id, PartitionHandle(0), Amount::ZERO, &body);
        record.tenant = tenant;
        self.execute_approved(record);
    }

    pub fn create(&mut self, partition: PartitionHandle, track_merchants: u8) {
        let mut onchain = [0xcc; 32];
        onchain[31] = u8::try_from(partition.number()).unwrap();
        self.create_as(partition, onchain, track_merchants);
    }

    pub fn create_as(&mut self, partition: PartitionHandle, onchain: [u8; 32], track_merchants: u8) {
        let body = PartitionBody { onchain, asset: AMP, track_merchants, ..PartitionBody::default() };
        self.operate_with(Kind::PartitionCreate, partition, &body);
    }

    pub fn grant(&mut self, partition: PartitionHandle, tenant: TenantId, rights: Rights) {
        let body = GrantBody { tenant, rights: rights.0, ..GrantBody::default() };
        self.operate_with(Kind::Grant, partition, &body);
    }

    pub fn price(&mut self, price: u128, ratio_bps: u32) {
        let body =
            PriceBody { asset: AMP, quote: EUR, ratio_bps, observed: self.now, ..PriceBody::default() };
        let id = self.fresh_id();
        let record = Record::new(Kind::Price, id, PartitionHandle(0), Amount(price), &body);
        self.execute_approved(record);
    }

    pub fn policy(&mut self, partition: PartitionHandle, policy: &Policy) {
        assert_eq!(self.policy_code(partition, policy), Code::Approved);
    }

    pub fn policy_code(&mut self, partition: PartitionHandle, policy: &Policy) -> Code {
        let id = self.fresh_id();
        let records = long::split(Kind::Policy, id, partition, 0, &policy.to_bytes());
        self.execute(&operator(), records).1[0].code()
    }

    pub fn release_group(&mut self, key: Address, entries: &[(&'static str, u128, u32)]) -> Reply {
        let entry = |(name, owed, version): &(&'static str, u128, u32)| ReleaseEntry {
            lock: self.id(name),
            still_owed: Amount(*owed),
            version: *version,
            index: 0,
            path: Vec::new(),
        };
        let group = ReleaseGroup {
            key,
            root: [1; 32],
            signature: [2; 65],
            entries: entries.iter().map(entry).collect(),
        };
        let id = self.fresh_id();
        let records = long::split(Kind::ReleaseGroup, id, P1, MERCHANT.0, &group.to_bytes());
        self.execute(&caller(T1), records).1.remove(0)
    }

    pub fn deposit(&mut self, partition: PartitionHandle, amount: u128) -> Reply {
        self.send(&operate(Kind::Deposit, amount).partition(partition))
    }

    pub fn deposit_by(&mut self, supplier: Address, amount: u128) -> Reply {
        self.nonce += 1;
        let body = StakeBody { supplier, nonce: self.nonce, ..StakeBody::default() };
        self.stake(Kind::Deposit, amount, &body)
    }

    pub fn withdraw_by(&mut self, supplier: Address, units: u128) -> Reply {
        self.stake(Kind::Withdraw, units, &StakeBody { supplier, ..StakeBody::default() })
    }

    pub fn stake(&mut self, kind: Kind, amount: u128, body: &StakeBody) -> Reply {
        let id = self.fresh_id();
        self.execute(&operator(), vec![Record::new(kind, id, P1, Amount(amount), body)]).1.remove(0)
    }

    pub fn operate_with<B: Body>(&mut self, kind: Kind, partition: PartitionHandle, body: &B) {
        let id = self.fresh_id();
        self.execute_approved(Record::new(kind, id, partition, Amount::ZERO, body));
    }

    fn execute_approved(&mut self, record: Record) {
        let (_, replies) = self.execute(&operator(), vec![record]);
        assert_eq!(replies[0].code(), Code::Approved, "{record:?}");
    }
}

/// Replays records into a ledger.
pub fn replay(mut ledger: Ledger, first: Seq, records: &[Record]) -> Result<Ledger, Divergence> {
    let (mut rest, mut seq) = (records, first);
    while !rest.is_empty() {
        let length = operation_len(rest).unwrap_or(rest.len());
        ledger.replay(seq, &rest[..length])?;
        seq.0 += length as u64;
        rest = &rest[length..];
    }
    Ok(ledger)
}

/// One step of a table: a request, its code, and F, H, U, P, W, X after it.
pub type Step = (Ask, Code, [u128; 6]);

/// Runs a table from its beginning; the rows are checked one after the other, then replay and snapshots.
pub fn run(name: &str, mut world: World, steps: &[Step]) -> World {
    for (number, (ask, code, money)) in steps.iter().enumerate() {
        let reply = world.send(ask);
        assert_eq!(reply.code(), *code, "{name}, step {number}: {ask:?}");
        assert_eq!(world.money(), *money, "{name}, step {number}: F, H, U, P, W, X after {ask:?}");
    }
    world.finish();
    world
}
