//! The requests of a life: a small partition, and locks that are captured, raised, released, refunded or left to expire.

use surety_protocol::{
    ActorId, Address, Amount, AssetId, Caller, ChangeBody, Flags, GrantBody, Id, Kind, LockBody, MerchantId,
    PartitionBody, PartitionHandle, Policy, Record, Rights, Roles, StakeBody, TenantBody, TenantId, Time,
    long,
};

use crate::random::Random;

const PARTITION: PartitionHandle = PartitionHandle(1);
const TENANT: TenantId = TenantId(7);
const OPERATOR: Caller = Caller { tenant: TenantId(0), roles: Roles::KNOWN, actor: ActorId(1) };
const AUTHORIZER: Caller = Caller { tenant: TENANT, roles: Roles::AUTHORIZER, actor: ActorId(2) };

/// An operation and who sends it.
pub(super) type Asked = (Caller, Vec<Record>);

/// Draws requests, and remembers the locks that it may come back to.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    random: Random,
    locks: Vec<Id>,
}

impl Workload {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), locks: Vec::new() }
    }

    /// What a shard is told before its first lock.
    pub(super) fn furnish(&mut self, now: Time) -> Vec<Asked> {
        let tenant = TenantBody {
            tenant: TENANT,
            locks_max: 1 << 20,
            ids_max: 1 << 20,
            tombstones_max: 1000,
            advices_max: 1000,
            enabled: 1,
            ..TenantBody::default()
        };
        let partition = PartitionBody { onchain: [0xcc; 32], asset: AssetId(1), ..PartitionBody::default() };
        let grant = GrantBody { tenant: TENANT, rights: Rights::KNOWN.0, ..GrantBody::default() };
        let deposit = StakeBody { supplier: Address([9; 20]), nonce: 1, ..StakeBody::default() };
        // Short lives and windows, so that expiry and forgetting happen within a history.
        let policy = Policy {
            life_default: Time::from_secs(5),
            tolerance_bps: 500,
            headroom_bps: 500,
            settle_by: Time::from_secs(20),
            late_capture: 1,
            late_window: Time::from_secs(30),
            ..Policy::default()
        };
        let shard = PartitionHandle(0);
        let mut id = || self.id(now);
        let operations = vec![
            vec![Record::new(Kind::TenantSet, id(), shard, Amount(0), &tenant)],
            vec![Record::new(Kind::PartitionCreate, id(), PARTITION, Amount(0), &partition)],
            long::split(Kind::Policy, id(), PARTITION, 0, &policy.to_bytes()),
            vec![Record::new(Kind::Grant, id(), PARTITION, Amount(0), &grant)],
            vec![Record::new(Kind::Deposit, id(), PARTITION, Amount(100_000), &deposit)],
        ];
        operations.into_iter().map(|operation| (OPERATOR, operation)).collect()
    }

    /// The next request.
    pub(super) fn next(&mut self, now: Time) -> Asked {
        let known = self.random.index(self.locks.len());
        let record = match (self.random.below(10), self.locks.get(known).copied()) {
            (0, Some(lock)) => self.change(now, Kind::Release, lock, 0),
            (1 | 2, Some(lock)) => {
                let amount = u128::from(self.random.below(60)) + 1;
                let flags = if self.random.chance(1, 2) { Flags::FINAL } else { Flags::default() };
                self.change(now, Kind::Capture, lock, amount).with_flags(flags)
            }
            (3, Some(lock)) => {
                let amount = u128::from(self.random.below(20)) + 1;
                self.change(now, Kind::Refund, lock, amount)
            }
            (4, Some(lock)) => {
                let total = u128::from(self.random.below(90)) + 1;
                self.change(now, Kind::Decrease, lock, total)
            }
            (5, Some(lock)) => {
                let amount = u128::from(self.random.below(9)) + 1;
                self.change(now, Kind::Advice, lock, amount)
            }
            _ => self.lock(now),
        };
        (AUTHORIZER, vec![record])
    }

    fn lock(&mut self, now: Time) -> Record {
        let id = self.id(now);
        self.locks.push(id);
        let body = LockBody { merchant: MerchantId(5), ..LockBody::default() };
        // Now and then more than there is.
        let amount = if self.random.chance(1, 12) { 1 << 40 } else { u128::from(self.random.below(900)) + 1 };
        Record::new(Kind::Lock, id, PARTITION, Amount(amount), &body)
    }

    fn change(&mut self, now: Time, kind: Kind, lock: Id, amount: u128) -> Record {
        let body = ChangeBody { lock, ..ChangeBody::default() };
        Record::new(kind, self.id(now), PARTITION, Amount(amount), &body)
    }

    fn id(&mut self, now: Time) -> Id {
        let entropy = u128::from(self.random.next_u64()) << 10 | u128::from(self.random.below(1 << 10));
        Id::from_parts(now, entropy)
    }
}
