//! What clients ask: every kind of request, sound and unsound, of their own and of others.

use std::collections::VecDeque;

use surety_protocol::limits::AMOUNT_MAX;
use surety_protocol::{
    ALL_CAPTURES, ActorId, Address, Amount, AssetId, Body, Caller, CategoryRule, ChangeBody, ConsumeBody,
    ControlBody, Flags, GrantBody, Id, Kind, LockBody, MerchantBody, MerchantId, PartitionBody,
    PartitionHandle, Policy, PriceBody, QuoteId, Record, ReleaseEntry, ReleaseGroup, Rights, Roles, ShardId,
    StakeBody, TenantBody, TenantId, Time, long,
};

use crate::oracle::Oracle;
use crate::random::Random;

/// The shard that is simulated.
pub(super) const SHARD: ShardId = ShardId(3);
/// Partitions that the world begins with; one more never exists.
const PARTITIONS: u64 = 4;
/// Locks that a client remembers.
const KNOWN_MAX: usize = 48;
/// Operations that a client may send again.
const SENT_MAX: usize = 32;

const QUOTES: [QuoteId; 2] = [QuoteId(978), QuoteId(840)];

/// A client: who it is, and what it remembers.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) caller: Caller,
    pub(super) known: VecDeque<(PartitionHandle, Id)>,
    pub(super) sent: VecDeque<Vec<Record>>,
    /// How wrong its clock is, in milliseconds.
    pub(super) skew_ms: i64,
}

impl Client {
    fn new(tenant: u32, roles: Roles, actor: u32, skew_ms: i64) -> Self {
        let caller = Caller { tenant: TenantId(tenant), roles, actor: ActorId(actor) };
        Self { caller, known: VecDeque::new(), sent: VecDeque::new(), skew_ms }
    }

    /// Forgets everything, as a process that died.
    pub(super) fn die(&mut self) {
        self.sent.clear();
    }

    pub(super) fn note_sent(&mut self, operation: &[Record]) {
        self.sent.push_back(operation.to_vec());
        if self.sent.len() > SENT_MAX {
            self.sent.pop_front();
        }
        for record in operation.iter().filter(|record| record.kind() == Some(Kind::Lock)) {
            self.note_lock(record.partition, record.id);
        }
    }

    fn note_lock(&mut self, partition: PartitionHandle, id: Id) {
        self.known.push_back((partition, id));
        if self.known.len() > KNOWN_MAX {
            self.known.pop_front();
        }
    }
}

/// The clients of a world: two of one tenant, one of another, one without rights, a reader, the operator and its settler.
pub(super) fn clients(random: &mut Random) -> Vec<Client> {
    let mut skew = || i64::try_from(random.below(4000)).unwrap_or(0) - 2000;
    vec![
        Client::new(7, Roles(Roles::AUTHORIZER.0 | Roles::SETTLER.0), 21, skew()),
        Client::new(7, Roles::AUTHORIZER, 22, skew()),
        Client::new(8, Roles(Roles::AUTHORIZER.0 | Roles::ADMIN.0), 31, skew()),
        Client::new(9, Roles(Roles::AUTHORIZER.0 | Roles::ADMIN.0), 41, skew()),
        Client::new(7, Roles::READER, 23, skew()),
        Client::new(0, Roles::KNOWN, 1, skew()),
        Client::new(0, Roles::SETTLER, 2, skew()),
    ]
}

/// How often each client speaks.
pub(super) const VOICES: [usize; 24] =
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5, 5, 5, 6, 6];

/// Draws requests for one client at one moment.
pub(super) struct Traffic<'a> {
    pub(super) random: &'a mut Random,
    pub(super) oracle: &'a Oracle,
    pub(super) client: &'a Client,
    pub(super) others: &'a [Client],
    pub(super) now: Time,
}

impl Traffic<'_> {
    /// One operation.
    pub(super) fn draw(&mut self) -> Vec<Record> {
        let is_operator = self.client.caller.tenant == TenantId(0);
        match self.random.below(100) {
            0..10 if !self.client.sent.is_empty() => {
                let at = self.random.index(self.client.sent.len());
                self.client.sent[at].clone()
            }
            10..12 => self.conflict(),
            12..15 => self.chain(),
            15 => self.nonsense(),
            _ if is_operator => self.operators(),
            16..20 => vec![self.lookup()],
            20..22 => self.release_group(),
            22 => vec![self.operators_small()],
            _ => vec![self.payment()],
        }
    }

    fn id(&mut self) -> Id {
        let ms = (self.now.0 / 1_000_000).saturating_add_signed(self.client.skew_ms);
        let off = match self.random.below(200) {
            0 => -30_000,
            1 => 8_000,
            2 => -700_000_000,
            _ => 0,
        };
        let at = Time::from_millis(ms.saturating_add_signed(off));
        let entropy = u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64());
        Id::from_parts(at, entropy)
    }

    fn partition(&mut self) -> PartitionHandle {
        let number = match self.random.below(64) {
            0 => PARTITIONS + 1,
            1 => 0,
            n => 1 + n % PARTITIONS,
        };
        let shard = if self.random.chance(1, 300) { ShardId(4) } else { SHARD };
        PartitionHandle::new(shard, number)
    }

    fn amount(&mut self) -> Amount {
        Amount(match self.random.below(60) {
            0 => 0,
            1 => AMOUNT_MAX,
            2 => AMOUNT_MAX + 1,
            3 => u128::from(self.random.below(200_000)),
            4..20 => u128::from(1 + self.random.below(2_000)),
            _ => u128::from(1 + self.random.below(200)),
        })
    }

    /// An id that a change may be about: mostly a lock that the client knows.
    fn target(&mut self) -> (PartitionHandle, Id) {
        let stranger = self.random.chance(1, 40);
        let client = if stranger { self.random.pick(self.others) } else { self.client };
        if client.known.is_empty() || self.random.chance(1, 30) {
            return (self.partition(), self.id());
        }
        // The younger ones more often.
        let len = client.known.len();
        let at = self.random.index(len).max(self.random.index(len));
        let (partition, id) = client.known[at];
        if self.random.chance(1, 80) { (self.partition(), id) } else { (partition, id) }
    }

    fn payment(&mut self) -> Record {
        match self.random.below(100) {
            0..34 => self.lock(),
            34..38 => self.change(Kind::Increase),
            38..41 => self.change(Kind::Decrease),
            41..60 => self.change(Kind::Capture),
            60..70 => self.change(Kind::Release),
            70..74 => self.change(Kind::Reverse),
            74..79 => self.change(Kind::Refund),
            79..82 => self.change(Kind::Advice),
            82..91 => self.change(Kind::Settle),
            _ => self.consume(),
        }
    }

    pub(super) fn lock(&mut self) -> Record {
        let quote = match self.random.below(8) {
            0 | 1 => *self.random.pick(&QUOTES),
            2 if self.random.chance(1, 10) => QuoteId(1),
            _ => QuoteId(0),
        };
        let amount = self.amount();
        let body = LockBody {
            floor: if self.random.chance(1, 3) {
                Amount(u128::from(self.random.below(100)))
            } else {
                Amount(0)
            },
            merchant: MerchantId(self.random.below(6)),
            life_ms: match self.random.below(20) {
                0 => 0,
                1 => 4_000_000_000,
                _ => u32::try_from(1 + self.random.below(15_000)).unwrap_or(1),
            },
            category: u16::try_from(5_400 + self.random.below(3)).unwrap_or(0),
            quote,
            user: self.random.below(9),
            ..LockBody::default()
        };
        let mut flags = Flags(0);
        if self.random.chance(1, 5) {
            flags.0 |= Flags::CERTIFIED.0;
        }
        if self.random.chance(1, 8) {
            flags.0 |= Flags::SALE.0;
        }
        // Some locks come late: after their release, their look-up or their advice.
        let (partition, id) =
            if self.random.chance(1, 25) { self.target() } else { (self.partition(), self.id()) };
        Record::new(Kind::Lock, id, partition, amount, &body).with_flags(flags)
    }

    fn change(&mut self, kind: Kind) -> Record {
        let (partition, lock) = self.target();
        let seen = self.oracle.lock((self.client.caller.tenant, partition), lock);
        let version = match (self.random.below(8), seen) {
            (0, _) => 1,
            (1..3, _) if kind != Kind::Increase => 0,
            (_, Some(seen)) => seen.version,
            _ => 0,
        };
        let total = seen.map_or(100, |seen| seen.total_asked());
        let held = seen.map_or(100, |seen| seen.remaining());
        let near = |random: &mut Random, amount: u128| match random.below(6) {
            0 => amount,
            1 => amount + 1 + u128::from(random.below(20)),
            2 => amount.saturating_sub(1),
            _ => u128::from(1 + random.below(u64::try_from(amount.min(1 << 40)).unwrap_or(1).max(1))),
        };
        let mut flags = Flags(0);
        let mut life_ms = 0;
        let amount = match kind {
            Kind::Increase => {
                life_ms = if self.random.chance(1, 2) { 0 } else { 1 + self.random.below(30_000) };
                total + u128::from(self.random.below(200))
            }
            Kind::Decrease => near(self.random, total),
            Kind::Capture | Kind::Advice => {
                let third = self.random.chance(1, 3);
                flags.0 |= if third { Flags::FINAL.0 } else { 0 };
                flags.0 |= if self.random.chance(1, 5) { Flags::ALL_OR_NOTHING.0 } else { 0 };
                near(self.random, held.max(1))
            }
            Kind::Refund => near(self.random, 60),
            _ => u128::from(self.random.chance(1, 100)),
        };
        let takes_index = matches!(kind, Kind::Reverse | Kind::Refund | Kind::Settle);
        let body = ChangeBody {
            lock,
            life_ms_or_actor: u32::try_from(life_ms).unwrap_or(0),
            capture: if takes_index { self.capture_index(kind) } else { 0 },
            version,
            ..ChangeBody::default()
        };
        let id = self.id();
        Record::new(kind, id, partition, Amount(amount), &body).with_flags(flags)
    }

    fn capture_index(&mut self, kind: Kind) -> u16 {
        match self.random.below(12) {
            0..4 if kind == Kind::Settle => ALL_CAPTURES,
            0 => ALL_CAPTURES,
            1 => 17,
            2 | 3 => 1,
            4 => 2,
            _ => 0,
        }
    }

    fn consume(&mut self) -> Record {
        let (partition, lock) = self.target();
        let capture = self.capture_index(Kind::Settle);
        let seen = self.oracle.lock((self.client.caller.tenant, partition), lock);
        let amount = match (capture, seen) {
            (ALL_CAPTURES, Some(seen)) => {
                1 + self.random.below(u64::try_from(seen.remaining().min(1 << 40)).unwrap_or(0) + 3)
            }
            (ALL_CAPTURES, None) => 1,
            _ if self.random.chance(1, 10) => 5,
            _ => 0,
        };
        let body = ConsumeBody { lock, capture, ..ConsumeBody::default() };
        let id = self.id();
        Record::new(Kind::Consume, id, partition, Amount(amount.into()), &body)
    }

    pub(super) fn lookup(&mut self) -> Record {
        let (partition, lock) = match self.client.sent.len() {
            0 => self.target(),
            len if self.random.chance(1, 2) => {
                let head = &self.client.sent[self.random.index(len)][0];
                (head.partition, head.id)
            }
            _ => self.target(),
        };
        self.look_up_of(partition, lock)
    }

    /// A small lock that is made wherever there is anything free.
    pub(super) fn small_lock(&mut self, partition: PartitionHandle, life_ms: u32) -> Record {
        let body = LockBody { merchant: MerchantId(1), life_ms, ..LockBody::default() };
        let id = self.id();
        Record::new(Kind::Lock, id, partition, Amount(1), &body)
    }

    /// A look-up that makes sure: burned if it is not known.
    pub(super) fn look_up_of(&mut self, partition: PartitionHandle, lock: Id) -> Record {
        let body = ChangeBody { lock, ..ChangeBody::default() };
        let flags = if self.random.chance(1, 2) { Flags::BURN } else { Flags(0) };
        let id = self.id();
        Record::new(Kind::Lookup, id, partition, Amount(0), &body).with_flags(flags)
    }

    /// The same id with another body, or of another partition.
    fn conflict(&mut self) -> Vec<Record> {
        let mut record = if self.random.chance(1, 2) { self.lock() } else { self.change(Kind::Capture) };
        if let Some(head) = self.client.sent.back().and_then(|operation| operation.first()) {
            record.id = head.id;
        }
        vec![record]
    }

    fn chain(&mut self) -> Vec<Record> {
        let len = 2 + self.random.index(4);
        let mut members: Vec<Record> = (0..len)
            .map(|_| match self.random.below(4) {
                0 => self.consume(),
                1 | 2 => self.lock(),
                _ => self.payment(),
            })
            .collect();
        // Members that are about each other: a lock and what becomes of it, or a release that comes before its lock.
        let (first, second) = (members[0], members[1]);
        if first.kind() == Some(Kind::Lock) && self.random.chance(1, 2) {
            let mut about = self.change(Kind::Capture);
            let body = ChangeBody { lock: first.id, ..ChangeBody::default() };
            (about.partition, about.amount) = (first.partition, Amount(1));
            about.set_body(&body);
            members[1] = about;
        } else if second.kind() == Some(Kind::Lock) && self.random.chance(1, 2) {
            let mut about = self.change(Kind::Release);
            (about.partition, about.amount) = (second.partition, Amount(0));
            about.set_body(&ChangeBody { lock: second.id, ..ChangeBody::default() });
            members[0] = about;
        }
        for member in &mut members[..len - 1] {
            member.flags |= Flags::LINKED.0;
        }
        members
    }

    /// Requests that the wire lets through and the engine does not.
    fn nonsense(&mut self) -> Vec<Record> {
        let mut record = self.payment();
        match self.random.below(6) {
            0 => record.result = Amount(1),
            1 => record.code = 64,
            2 => record.tenant = TenantId(8),
            3 => record.id = Id(self.random.next_u64().into()),
            4 => record.flags |= Flags::LATE.0,
            _ if self.random.chance(1, 8) => return self.too_large(),
            _ => record.tenant = TenantId(77),
        }
        vec![record]
    }

    fn too_large(&mut self) -> Vec<Record> {
        let mut chain: Vec<Record> = (0..65).map(|_| self.lock().with_flags(Flags::LINKED)).collect();
        if let Some(last) = chain.last_mut() {
            last.flags &= !Flags::LINKED.0;
        }
        chain
    }

    fn release_group(&mut self) -> Vec<Record> {
        let merchant = 1 + self.random.below(5);
        let partition = PartitionHandle::new(SHARD, 1 + self.random.below(PARTITIONS));
        let tenant = self.client.caller.tenant;
        let own = self.client.known.iter().filter(|(handle, id)| {
            *handle == partition
                && self
                    .oracle
                    .lock((tenant, partition), *id)
                    .is_some_and(|lock| lock.merchant == MerchantId(merchant) && lock.is_certified)
        });
        let mut locks: Vec<Id> = own.map(|(_, id)| *id).take(6).collect();
        if locks.is_empty() || self.random.chance(1, 6) {
            locks.push(self.target().1);
        }
        let entries = locks
            .into_iter()
            .map(|lock| ReleaseEntry {
                lock,
                still_owed: Amount(if self.random.chance(1, 2) {
                    0
                } else {
                    u128::from(self.random.below(100))
                }),
                version: if self.random.chance(1, 5) { 1 } else { 90 },
                index: 0,
                path: Vec::new(),
            })
            .collect();
        let key = if self.random.chance(1, 8) { Address([7; 20]) } else { release_key(merchant) };
        let group = ReleaseGroup { key, root: [1; 32], signature: [2; 65], entries };
        let id = self.id();
        long::split(Kind::ReleaseGroup, id, partition, merchant, &group.to_bytes())
    }

    fn control<B: Body>(&mut self, kind: Kind, amount: u128, body: &B) -> Record {
        let id = self.id();
        let partition = self.partition();
        Record::new(kind, id, partition, Amount(amount), body)
    }

    /// What the operator and the chain say.
    fn operators(&mut self) -> Vec<Record> {
        match self.random.below(40) {
            0 => {
                let partition = PartitionHandle::new(SHARD, 1 + self.random.below(PARTITIONS));
                let policy = policy(partition.number(), self.random);
                let id = self.id();
                long::split(Kind::Policy, id, partition, 0, &policy.to_bytes())
            }
            1..4 => vec![self.on_behalf()],
            _ => vec![self.operators_small()],
        }
    }

    /// The operator settles or consumes what is a tenant's, or calls its certificate.
    fn on_behalf(&mut self) -> Record {
        let mut record = if self.random.chance(1, 2) { self.change(Kind::Settle) } else { self.consume() };
        let owner = &self.others[self.random.index(3)];
        if let Some((partition, id)) = owner.known.get(self.random.index(owner.known.len())).copied() {
            let mut body: ChangeBody = record.body();
            (body.lock, body.version) = (id, 0);
            record.set_body(&body);
            record.partition = partition;
        }
        record.tenant = owner.caller.tenant;
        record
    }

    fn operators_small(&mut self) -> Record {
        let amount = u128::from(self.random.below(3_000));
        let number = self.random.below(1 << 20);
        let stake = StakeBody {
            supplier: Address([1 + u8::try_from(self.random.below(3)).unwrap_or(0); 20]),
            nonce: number,
            ..StakeBody::default()
        };
        match self.random.below(60) {
            0..6 => self.control(Kind::Deposit, amount * 20, &StakeBody { nonce: number % 4_000, ..stake }),
            6..9 => self.control(Kind::Reward, amount, &StakeBody { supplier: Address([0; 20]), ..stake }),
            9..16 => self.withdraw(stake.supplier),
            16..20 => self.batch_final(),
            20..28 => self.guarantee(),
            28 if self.random.chance(1, 3) => {
                let huge = self.random.chance(1, 5);
                self.control(Kind::Deficit, if huge { 400_000 } else { amount }, &ControlBody::default())
            }
            28..31 => {
                let until = self.now.plus(Time::from_secs(60 + self.random.below(600)));
                let until = if self.random.chance(1, 9) { Time::ZERO } else { until };
                let cap = if self.random.chance(1, 12) { amount } else { 1 << 60 };
                self.control(Kind::RiskCap, cap, &ControlBody { until, ..ControlBody::default() })
            }
            31..40 => self.price(),
            40 if self.random.chance(1, 2) => {
                self.control(Kind::Freeze, 0, &ControlBody { user: 3, ..ControlBody::default() })
            }
            40..45 => self.control(Kind::Unfreeze, 0, &ControlBody::default()),
            45..48 => self.control(Kind::Cover, amount / 20, &ControlBody::default()),
            48..50 => self.control(Kind::WriteOff, amount / 20, &ControlBody::default()),
            50 => self.partition_create(),
            51..53 => self.tenant_set(),
            53..56 => self.grant(),
            56..59 => self.merchant_set(),
            _ => self.lookup(),
        }
    }

    fn withdraw(&mut self, supplier: Address) -> Record {
        let partition = self.partition();
        let held = self.oracle.partitions().get(&partition).map_or(0, |it| it.units_free(&supplier));
        let is_full = self.oracle.partitions().get(&partition).is_some_and(|it| it.queue.len() > 30);
        let part = if is_full { 0 } else { held / u128::from(1 + self.random.below(12)) };
        let units = part + u128::from(self.random.chance(1, 10));
        let body = StakeBody { supplier, ..StakeBody::default() };
        let id = self.id();
        Record::new(Kind::Withdraw, id, partition, Amount(units), &body)
    }

    fn batch_final(&mut self) -> Record {
        let partition = self.partition();
        let (owed, batch) = self.oracle.partitions().get(&partition).map_or((1, 0), |it| (it.w, it.batch));
        let amount = if self.random.chance(1, 3) { owed } else { owed / 2 + 1 };
        let number = if self.random.chance(1, 6) { batch } else { batch + 1 };
        let body = ControlBody { number, ..ControlBody::default() };
        let id = self.id();
        Record::new(Kind::BatchFinal, id, partition, Amount(amount), &body)
    }

    fn guarantee(&mut self) -> Record {
        let owner = &self.others[self.random.index(3)];
        let tenant = owner.caller.tenant;
        let is_certified = |(handle, id): &&(PartitionHandle, Id)| {
            self.oracle.lock((tenant, *handle), *id).is_some_and(|lock| lock.is_certified)
        };
        let certified: Vec<_> = owner.known.iter().filter(is_certified).copied().collect();
        let (partition, lock) = match certified.len() {
            0 => self.target(),
            len => certified[self.random.index(len)],
        };
        let (kind, amount) = match self.random.below(6) {
            0..3 => (Kind::GuaranteeCalled, 0),
            3 => (Kind::GuaranteeDismissed, 0),
            _ => (Kind::GuaranteePaid, u128::from(1 + self.random.below(400))),
        };
        let id = self.id();
        let mut record =
            Record::new(kind, id, partition, Amount(amount), &ChangeBody { lock, ..ChangeBody::default() });
        record.tenant = tenant;
        record
    }

    pub(super) fn price(&mut self) -> Record {
        let age = if self.random.chance(1, 6) { self.random.below(20_000) } else { 0 };
        let body = PriceBody {
            asset: AssetId(1),
            quote: *self.random.pick(&QUOTES),
            ratio_bps: match self.random.below(8) {
                0 => 9_000,
                1..3 => 0,
                _ => 15_000,
            },
            observed: self.now.minus(Time::from_millis(age)),
            ..PriceBody::default()
        };
        let price = 1_000_000_000_000_000_000 + u128::from(self.random.below(1 << 62));
        let id = self.id();
        Record::new(Kind::Price, id, PartitionHandle::new(SHARD, 0), Amount(price), &body)
    }

    fn partition_create(&mut self) -> Record {
        let number = 1 + self.random.below(PARTITIONS);
        partition_create(self.id(), number)
    }

    fn tenant_set(&mut self) -> Record {
        let tenant = 7 + u32::try_from(self.random.below(3)).unwrap_or(0);
        let mut body = tenant_body(tenant);
        body.locks_max = 60 + self.random.below(1_400);
        body.ids_max = 100 + self.random.below(2_000);
        body.tombstones_max = 5 + self.random.below(40);
        body.advices_max = 10 + self.random.below(400);
        body.enabled = u8::from(!self.random.chance(1, 40));
        let id = self.id();
        Record::new(Kind::TenantSet, id, PartitionHandle::new(SHARD, 0), Amount(0), &body)
    }

    fn grant(&mut self) -> Record {
        let tenant = TenantId(7 + u32::try_from(self.random.below(2)).unwrap_or(0));
        let rights = match self.random.below(10) {
            0 if self.random.chance(1, 4) => Rights(0),
            1 if self.random.chance(1, 3) => Rights::READ,
            2 => Rights(1 << 20),
            _ => Rights::KNOWN,
        };
        let body = GrantBody { tenant, rights: rights.0, ..GrantBody::default() };
        self.control(Kind::Grant, 0, &body)
    }

    fn merchant_set(&mut self) -> Record {
        let merchant = self.random.below(6);
        let tenant = 7 + u32::try_from(self.random.below(2)).unwrap_or(0);
        let mut record = merchant_set(self.id(), tenant, merchant);
        let mut body: MerchantBody = record.body();
        body.enabled = u32::from(!self.random.chance(1, 6));
        record.set_body(&body);
        record
    }
}

fn release_key(merchant: u64) -> Address {
    Address([u8::try_from(merchant).unwrap_or(0) + 100; 20])
}

fn merchant_set(id: Id, tenant: u32, merchant: u64) -> Record {
    let body = MerchantBody {
        merchant: MerchantId(merchant),
        payee: Address([5; 20]),
        release_key: release_key(merchant),
        enabled: 1,
        ..MerchantBody::default()
    };
    let shard = PartitionHandle::new(SHARD, 0);
    let mut record = Record::new(Kind::MerchantSet, id, shard, Amount(0), &body);
    record.tenant = TenantId(tenant);
    record
}

fn partition_create(id: Id, number: u64) -> Record {
    let body = PartitionBody {
        onchain: [if number == 4 { 0xaa } else { u8::try_from(number).unwrap_or(0) }; 32],
        asset: AssetId(1),
        track_merchants: u8::from(number < 3),
        ..PartitionBody::default()
    };
    let handle = PartitionHandle::new(SHARD, number);
    Record::new(Kind::PartitionCreate, id, handle, Amount(0), &body)
}

fn tenant_body(tenant: u32) -> TenantBody {
    TenantBody {
        tenant: TenantId(tenant),
        locks_max: 900,
        ids_max: 2_000,
        tombstones_max: 100,
        advices_max: 2_000,
        enabled: 1,
        ..TenantBody::default()
    }
}

/// A policy in the character of its partition, with something changed.
fn policy(number: u64, random: &mut Random) -> Policy {
    let mut policy = Policy {
        life_default: Time::from_secs(8),
        life_max: Time::from_secs(40),
        settle_by: Time::from_millis(6_000 + random.below(3_000)),
        claim_margin: Time::from_secs(5),
        unbonding: Time::from_secs(10),
        price_age_max: Time::from_secs(15),
        velocity_window: Time::from_secs(10),
        headroom_bps: 1_500,
        tolerance_bps: 2_000,
        fee_bps: 25,
        ratio_bps: 15_000,
        stop_ratio_bps: 12_000,
        edge_unit: Amount(10),
        late_window: Time::from_secs(10),
        refund_window: Time::from_secs(12),
        late_capture: u8::from(number != 2),
        settle_by_action: u8::from(number == 4),
        ..Policy::default()
    };
    policy.categories[0] =
        CategoryRule { category: 5_401, tolerance_bps: 5_000, headroom_bps: 0, reserved: 0 };
    match number {
        1 => policy.lock_max = Amount(30_000),
        2 => {
            policy.merchant_open_max = Amount(9_000);
            policy.merchants_listed = 1;
            policy.settle_by = Time::ZERO;
        }
        3 => (policy.velocity_count, policy.velocity_value) = (60, Amount(20_000)),
        _ => policy.unbonding = Time::ZERO,
    }
    match random.below(6) {
        0 => policy.life_default = Time::from_secs(50),
        1 => policy.late_capture = 0,
        2 => policy.settle_by_action = 1 - policy.settle_by_action,
        3 => policy.headroom_bps = 0,
        4 => policy.unbonding = Time::from_secs(1),
        _ => {}
    }
    policy
}

/// What the operator sends before anything else can happen.
pub(super) fn furniture(random: &mut Random, now: Time) -> Vec<Vec<Record>> {
    let mut operations = Vec::new();
    let mut id = {
        let mut ids = random.fork();
        move || Id::from_parts(now, u128::from(ids.next_u64()) << 64 | u128::from(ids.next_u64()))
    };
    let shard = PartitionHandle::new(SHARD, 0);
    for tenant in 7..10 {
        operations.push(vec![Record::new(Kind::TenantSet, id(), shard, Amount(0), &tenant_body(tenant))]);
        for merchant in 1..6 {
            operations.push(vec![merchant_set(id(), tenant, merchant)]);
        }
    }
    for number in 1..=PARTITIONS {
        let handle = PartitionHandle::new(SHARD, number);
        operations.push(vec![partition_create(id(), number)]);
        operations.push(long::split(Kind::Policy, id(), handle, 0, &policy(number, random).to_bytes()));
        for tenant in 7..9 {
            let body =
                GrantBody { tenant: TenantId(tenant), rights: Rights::KNOWN.0, ..GrantBody::default() };
            operations.push(vec![Record::new(Kind::Grant, id(), handle, Amount(0), &body)]);
        }
        let body = StakeBody { supplier: Address([1; 20]), nonce: 1 << 40, ..StakeBody::default() };
        let amount = Amount(if number == 4 { 4_000 } else { 60_000 });
        operations.push(vec![Record::new(Kind::Deposit, id(), handle, amount, &body)]);
    }
    for quote in QUOTES {
        let body =
            PriceBody { asset: AssetId(1), quote, observed: now, ratio_bps: 15_000, ..PriceBody::default() };
        let price = Amount(2_000_000_000_000_000_000);
        operations.push(vec![Record::new(Kind::Price, id(), shard, price, &body)]);
    }
    operations
}
