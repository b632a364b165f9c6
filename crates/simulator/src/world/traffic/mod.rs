//! What clients ask: every kind of request, sound and unsound, of their own and of others.

mod furniture;
mod operators;
mod payments;

use std::collections::VecDeque;

use surety_protocol::limits::AMOUNT_MAX;
use surety_protocol::{
    ActorId, Address, Amount, Caller, ChangeBody, Flags, Id, Kind, LockBody, MerchantId, PartitionHandle,
    QuoteId, Record, ReleaseEntry, ReleaseGroup, Roles, ShardId, TenantId, Time, long,
};

pub(super) use furniture::{first_supplies, furniture, onchain, payees_of_all};

use furniture::release_key;

use crate::oracle::Oracle;
use crate::random::Random;

/// The shard that is simulated.
pub(super) const SHARD: ShardId = ShardId(3);
/// Partitions that the world begins with; one more never exists.
pub(super) const PARTITIONS: u64 = 4;
/// The client that is the operator.
pub(super) const OPERATOR: usize = 5;
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
    /// The chain speaks for itself: nobody makes up what it says.
    pub(super) has_chain: bool,
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

    pub(super) fn id(&mut self) -> Id {
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

    pub(super) fn partition(&mut self) -> PartitionHandle {
        let number = match self.random.below(64) {
            0 => PARTITIONS + 1,
            1 => 0,
            n => 1 + n % PARTITIONS,
        };
        let shard = if self.random.chance(1, 300) { ShardId(4) } else { SHARD };
        PartitionHandle::new(shard, number)
    }

    pub(super) fn amount(&mut self) -> Amount {
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
    pub(super) fn target(&mut self) -> (PartitionHandle, Id) {
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
        let burn = self.random.chance(1, 2);
        let id = self.id();
        let flags = if burn { Flags::BURN | may_last(id).1 } else { Flags(0) };
        Record::new(Kind::Lookup, id, partition, Amount(0), &body).with_flags(flags)
    }

    /// The same id with another body, or of another partition.
    fn conflict(&mut self) -> Vec<Record> {
        let mut record = if self.random.chance(1, 2) { self.lock() } else { self.change(Kind::Capture) };
        if let Some(head) = self.client.sent.back().and_then(|operation| operation.first()) {
            record.id = head.id;
            // Mostly the mark that goes with the id: what is malformed conflicts with nothing.
            if self.random.chance(9, 10) {
                record.flags &= !Flags::LASTING.0;
                record.flags |= if record.id.is_lasting() { Flags::LASTING.0 } else { 0 };
            }
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
}

/// Every fifth id lasts, without a draw of its own.
const fn may_last(id: Id) -> (Id, Flags) {
    if id.0.is_multiple_of(5) { (id.lasting(), Flags::LASTING) } else { (id, Flags(0)) }
}
