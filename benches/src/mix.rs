//! The standard mix of requests: 45 % locks, 35 % captures, 15 % releases, 5 % repeats and declines, with random ids over
//! many partitions, and with policy, velocity, expiry and idempotency on.

use surety_protocol::{
    ActorId, Address, Amount, AssetId, Caller, ChangeBody, Flags, GrantBody, Id, Kind, LockBody, MerchantId,
    PartitionBody, PartitionHandle, Policy, Record, Rights, Roles, ShardId, StakeBody, TenantBody, TenantId,
    Time, long,
};

/// The tenant that pays.
pub const TENANT: TenantId = TenantId(1);
/// Who sets things up.
pub const OPERATOR: Caller = Caller { tenant: TenantId(0), roles: Roles::KNOWN, actor: ActorId(1) };
/// Who sends payments.
pub const AUTHORIZER: Caller = Caller { tenant: TENANT, roles: Roles::AUTHORIZER, actor: ActorId(2) };

/// A small fast source of numbers (splitmix64), seeded, so that every run asks the same.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Starts at a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// A UUIDv7 of a moment.
    pub fn id(&mut self, at: Time) -> Id {
        Id::from_parts(at, u128::from(self.next()) << 64 | u128::from(self.next()))
    }
}

/// The partition with a number on shard 0.
#[must_use]
pub const fn partition(number: u64) -> PartitionHandle {
    partition_of(ShardId(0), number)
}

/// The partition with a number on a shard.
#[must_use]
pub const fn partition_of(shard: ShardId, number: u64) -> PartitionHandle {
    PartitionHandle::new(shard, number + 1)
}

/// The operations that furnish shard 0: a tenant, partitions with collateral, a policy with limits.
#[must_use]
pub fn furnish(partitions: u64, now: Time) -> Vec<Vec<Record>> {
    let mut operations = vec![tenant(ShardId(0), now)];
    operations.extend((0..partitions).flat_map(|number| furnish_one(ShardId(0), number, now)));
    operations
}

/// The operation that makes the tenant on a shard.
#[must_use]
pub fn tenant(shard: ShardId, now: Time) -> Vec<Record> {
    let tenant = TenantBody {
        tenant: TENANT,
        locks_max: 1 << 40,
        ids_max: 1 << 40,
        tombstones_max: 1 << 40,
        advices_max: 1 << 40,
        enabled: 1,
        ..TenantBody::default()
    };
    let id = Numbers::new(now.0 ^ u64::from(shard.0)).id(now);
    vec![Record::new(Kind::TenantSet, id, PartitionHandle::new(shard, 0), Amount(0), &tenant)]
}

/// The operations that make one partition with its grant, its collateral and its policy, in their order.
#[must_use]
pub fn furnish_one(shard: ShardId, number: u64, now: Time) -> [Vec<Record>; 4] {
    let mut numbers =
        Numbers::new(now.0 ^ u64::from(shard.0) << 56 ^ (number + 1).wrapping_mul(0xa24b_aed4_963e_e407));
    let policy = Policy {
        lock_max: Amount(1 << 60),
        velocity_count: u32::MAX,
        velocity_value: Amount(1 << 100),
        life_default: Time::from_secs(600),
        ..Policy::default()
    };
    let handle = partition_of(shard, number);
    let mut onchain = [0xcc; 32];
    onchain[2..4].copy_from_slice(&shard.0.to_be_bytes());
    onchain[4..12].copy_from_slice(&number.to_be_bytes());
    let create = PartitionBody { onchain, asset: AssetId(1), ..PartitionBody::default() };
    let grant = GrantBody { tenant: TENANT, rights: Rights::KNOWN.0, ..GrantBody::default() };
    let deposit = StakeBody { supplier: Address([7; 20]), nonce: 1, ..StakeBody::default() };
    [
        vec![Record::new(Kind::PartitionCreate, numbers.id(now), handle, Amount(0), &create)],
        vec![Record::new(Kind::Grant, numbers.id(now), handle, Amount(0), &grant)],
        vec![Record::new(Kind::Deposit, numbers.id(now), handle, Amount(1 << 90), &deposit)],
        long::split(Kind::Policy, numbers.id(now), handle, 0, &policy.to_bytes()),
    ]
}

/// Makes requests, and knows which locks are open.
#[derive(Debug)]
pub struct Mix {
    numbers: Numbers,
    partitions: u64,
    open: Vec<(Id, PartitionHandle)>,
    last: Option<Record>,
}

impl Mix {
    /// Over that many partitions of shard 0.
    #[must_use]
    pub fn new(seed: u64, partitions: u64) -> Self {
        Self { numbers: Numbers::new(seed), partitions, open: Vec::new(), last: None }
    }

    /// A lock that the mix captures or releases later.
    pub fn open_lock(&mut self, now: Time) -> Record {
        let lock = self.lock(now);
        self.open.push((lock.id, lock.partition));
        lock
    }

    /// A lock of which the mix keeps nothing: memory that is measured holds the ledger's part alone.
    pub fn lock(&mut self, now: Time) -> Record {
        let place = partition(self.numbers.below(self.partitions));
        let id = self.numbers.id(now);
        // Every hundredth lock is left to its deadline.
        let life_ms =
            if self.numbers.below(100) == 0 { 200 } else { 60_000 + (self.numbers.next() % 540_000) as u32 };
        let body =
            LockBody { merchant: MerchantId(self.numbers.below(10_000)), life_ms, ..LockBody::default() };
        Record::new(Kind::Lock, id, place, Amount(1_000 + u128::from(self.numbers.below(100_000))), &body)
    }

    /// The next request of the mix.
    pub fn next(&mut self, now: Time) -> Record {
        let request = match self.numbers.below(100) {
            0..45 => self.open_lock(now),
            45..80 => self.end(Kind::Capture, Amount(900), Flags::FINAL, now),
            80..95 => self.end(Kind::Release, Amount(0), Flags(0), now),
            95..98 => self.last.unwrap_or_else(|| self.open_lock(now)),
            // Over the policy's limit: declined and recorded.
            _ => {
                let mut lock = self.lock(now);
                lock.amount = Amount(1 << 61);
                lock
            }
        };
        self.last = Some(request);
        request
    }

    fn end(&mut self, kind: Kind, amount: Amount, flags: Flags, now: Time) -> Record {
        if self.open.is_empty() {
            return self.open_lock(now);
        }
        let chosen = self.numbers.below(self.open.len() as u64) as usize;
        let (lock, place) = self.open.swap_remove(chosen);
        let body = ChangeBody { lock, ..ChangeBody::default() };
        Record::new(kind, self.numbers.id(now), place, amount, &body).with_flags(flags)
    }
}
