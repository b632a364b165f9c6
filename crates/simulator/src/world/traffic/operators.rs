//! What the operator and the chain say.

use surety_protocol::{
    Address, Amount, AssetId, Body, ChangeBody, ControlBody, GrantBody, Id, Kind, MerchantBody,
    PartitionHandle, PriceBody, Record, Rights, StakeBody, TenantId, Time, long,
};

use super::furniture::{merchant_set, partition_create, policy, tenant_body};
use super::{PARTITIONS, QUOTES, SHARD, Traffic};

impl Traffic<'_> {
    fn control<B: Body>(&mut self, kind: Kind, amount: u128, body: &B) -> Record {
        let id = self.id();
        let partition = self.partition();
        Record::new(kind, id, partition, Amount(amount), body)
    }

    /// What the operator and the chain say.
    pub(super) fn operators(&mut self) -> Vec<Record> {
        match self.random.below(40) {
            0 => {
                let partition = PartitionHandle::new(SHARD, 1 + self.random.below(PARTITIONS));
                let policy = policy(partition.number(), self.random, self.has_chain);
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

    pub(super) fn operators_small(&mut self) -> Record {
        let amount = u128::from(self.random.below(3_000));
        let number = self.random.below(1 << 20);
        let stake = StakeBody {
            supplier: Address([1 + u8::try_from(self.random.below(3)).unwrap_or(0); 20]),
            nonce: number,
            ..StakeBody::default()
        };
        match self.random.below(60) {
            0..9 | 16..28 if self.has_chain => self.lookup(),
            0..6 => self.control(Kind::Deposit, amount * 20, &StakeBody { nonce: number % 4_000, ..stake }),
            6..9 => self.control(Kind::Reward, amount, &StakeBody { supplier: Address([0; 20]), ..stake }),
            9..16 => self.withdraw(stake.supplier),
            16..20 => self.batch_final(),
            20..28 => self.guarantee(),
            28 if !self.has_chain && self.random.chance(1, 3) => {
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
        body.open_locks_max = u32::try_from(self.random.below(120)).unwrap_or(0);
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
        if self.random.chance(1, 3) {
            // It moves, or nobody knows where it is paid.
            body.payee = if self.random.chance(1, 2) { Address([0; 20]) } else { Address([60; 20]) };
        }
        record.set_body(&body);
        record
    }
}
