//! A shard on a disk in memory, with a tenant, a partition and collateral: what the tests of the engine drive.
#![allow(
    dead_code,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "each test uses its part of it, and may stop"
)]

use engine::{Begin, Config, Durability, Engine, Report};
use surety_protocol::{
    ActorId, Address, Amount, AssetId, Caller, ChangeBody, Code, EngineId, GrantBody, Id, Kind, LockBody,
    MerchantId, PartitionBody, PartitionHandle, Policy, Record, Reply, Rights, Roles, ShardId, StakeBody,
    TenantBody, TenantId, Time, long,
};
use wal::memory::MemoryStorage;
use wal::{Storage, Write};

pub const PARTITION: PartitionHandle = PartitionHandle(1);
pub const TENANT: TenantId = TenantId(7);
pub const OPERATOR: Caller = Caller { tenant: TenantId(0), roles: Roles::KNOWN, actor: ActorId(1) };
pub const AUTHORIZER: Caller = Caller { tenant: TENANT, roles: Roles::AUTHORIZER, actor: ActorId(2) };
/// A tenant without any right in the partition.
pub const STRANGER: Caller = Caller { tenant: TenantId(8), roles: Roles::AUTHORIZER, actor: ActorId(3) };
pub const START: Time = Time::from_secs(1_700_000_000);

pub struct World {
    pub storage: MemoryStorage,
    pub engine: Engine,
    pub now: Time,
    pub entropy: u128,
    pub replies: Vec<(u64, Reply)>,
}

pub fn config(durability: Durability) -> Config {
    Config {
        durability,
        segment_bytes: 256 * 1024,
        checkpoint_records: 50,
        ..Config::new(EngineId(0xabc), ShardId(0))
    }
}

pub fn open(config: Config, mut storage: MemoryStorage, now: Time) -> World {
    let recovered = engine::recover(config, &mut storage, Begin::Snapshot, |_| {}).unwrap();
    recovered.ledger().verify().unwrap();
    let engine = recovered.open(&mut storage, now).unwrap();
    World { storage, engine, now, entropy: now.0.into(), replies: Vec::new() }
}

impl World {
    pub fn new(durability: Durability) -> Self {
        Self::with(config(durability))
    }

    pub fn with(config: Config) -> Self {
        let mut storage = MemoryStorage::new();
        engine::create(config, &mut storage, START).unwrap();
        let mut world = open(config, storage, START);
        world.furnish();
        world
    }

    /// A tenant, a partition with collateral and rights in it.
    pub fn furnish(&mut self) {
        let shard = PartitionHandle(0);
        let partition = PartitionBody {
            onchain: [0xcc; 32],
            asset: AssetId(1),
            track_merchants: 1,
            ..PartitionBody::default()
        };
        let tenant = |tenant| TenantBody {
            tenant,
            locks_max: 1 << 20,
            ids_max: 1 << 20,
            tombstones_max: 1000,
            advices_max: 1000,
            enabled: 1,
            ..TenantBody::default()
        };
        let grant = GrantBody { tenant: TENANT, rights: Rights::KNOWN.0, ..GrantBody::default() };
        let deposit = StakeBody { supplier: Address([9; 20]), nonce: 1, ..StakeBody::default() };
        let policy = Policy { life_default: Time::from_secs(60), ..Policy::default() };
        for known in [TENANT, STRANGER.tenant] {
            let id = self.id();
            self.ask(&OPERATOR, &[Record::new(Kind::TenantSet, id, shard, Amount(0), &tenant(known))]);
        }
        let id = self.id();
        self.ask(&OPERATOR, &[Record::new(Kind::PartitionCreate, id, PARTITION, Amount(0), &partition)]);
        let id = self.id();
        self.ask(&OPERATOR, &long::split(Kind::Policy, id, PARTITION, 0, &policy.to_bytes()));
        let id = self.id();
        self.ask(&OPERATOR, &[Record::new(Kind::Grant, id, PARTITION, Amount(0), &grant)]);
        let id = self.id();
        self.ask(&OPERATOR, &[Record::new(Kind::Deposit, id, PARTITION, Amount(1_000_000), &deposit)]);
        self.settle();
        for (_, reply) in self.replies.drain(..) {
            assert_eq!(reply.code(), Code::Approved, "{reply:?}");
        }
    }

    /// Sets the tenant's quotas of rate and of unanswered requests.
    pub fn limit(&mut self, rate_per_s: u32, in_flight_max: u32) {
        let body = TenantBody {
            tenant: TENANT,
            locks_max: 1 << 20,
            ids_max: 1 << 20,
            tombstones_max: 1000,
            advices_max: 1000,
            rate_per_s,
            in_flight_max,
            enabled: 1,
            ..TenantBody::default()
        };
        let id = self.id();
        let order = Record::new(Kind::TenantSet, id, PartitionHandle(0), Amount(0), &body);
        assert_eq!(self.answer(&OPERATOR, &[order]).code(), Code::Approved);
    }

    pub fn id(&mut self) -> Id {
        self.entropy = self.entropy.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).wrapping_add(1);
        Id::from_parts(self.now, self.entropy >> 50)
    }

    pub fn lock(&mut self, amount: u128) -> Record {
        let body = LockBody { merchant: MerchantId(5), ..LockBody::default() };
        Record::new(Kind::Lock, self.id(), PARTITION, Amount(amount), &body)
    }

    pub fn change(&mut self, kind: Kind, lock: Id, amount: u128) -> Record {
        Record::new(kind, self.id(), PARTITION, Amount(amount), &ChangeBody { lock, ..ChangeBody::default() })
    }

    pub fn ask(&mut self, caller: &Caller, operation: &[Record]) {
        let bytes: Vec<_> = operation.iter().map(Record::to_bytes).collect();
        self.engine.handle(self.now, caller, 42, &bytes);
    }

    pub fn keep_reserves(&mut self) {
        while let Some((name, bytes)) = self.engine.wants_reserve() {
            self.storage.create(name, bytes).unwrap();
            self.storage.sync_directory().unwrap();
            self.engine.reserve_created(name);
        }
    }

    pub fn take_write(&mut self) -> Option<Write> {
        self.keep_reserves();
        self.engine.poll_write(self.now)
    }

    pub fn take_replies(&mut self) {
        while let Some(reply) = self.engine.poll_reply() {
            self.replies.push(reply);
        }
    }

    /// Writes and, in `os` mode, syncs everything.
    pub fn settle(&mut self) {
        while let Some(write) = self.take_write() {
            self.perform(write);
        }
        self.take_replies();
    }

    /// The same on a disk that has no room for another reserve.
    pub fn settle_without_reserve(&mut self) {
        while let Some(write) = self.engine.poll_write(self.now) {
            self.perform(write);
        }
        self.take_replies();
    }

    pub fn perform(&mut self, write: Write) {
        write.perform(&mut self.storage).unwrap();
        let (file, mark) = (write.file(), write.mark());
        self.engine.on_written(write);
        if self.engine.durability() == Durability::Os {
            self.storage.sync(file).unwrap();
            self.engine.on_synced(mark);
        }
    }

    /// The answer to a tenant's operation while the disk is full. There always is one.
    pub fn answer_without_reserve(&mut self, operation: &[Record]) -> Reply {
        self.engine.set_storage_low(self.engine.wants_reserve().is_some());
        self.ask(&AUTHORIZER, operation);
        self.settle_without_reserve();
        self.replies.pop().expect("nobody waits").1
    }

    pub fn answer(&mut self, caller: &Caller, operation: &[Record]) -> Reply {
        self.ask(caller, operation);
        self.settle();
        let (route, reply) = self.replies.pop().unwrap();
        assert_eq!(route, 42);
        reply
    }

    pub fn report(&mut self) -> Report {
        let durability = self.engine.durability();
        engine::recover(config(durability), &mut self.storage, Begin::Oldest, |_| {})
            .unwrap()
            .report()
            .clone()
    }
}
