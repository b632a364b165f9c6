//! What an engine might write of certified locks.

use std::collections::BTreeMap;

use settlement::LockId;
use surety_protocol::{
    Address, Amount, AssetId, ChangeBody, Code, Flags, Id, Kind, LockBody, MerchantBody, MerchantId,
    PartitionBody, PartitionHandle, PriceBody, QuoteId, Record, TenantId, Time,
};

pub(crate) const PARTITION: PartitionHandle = PartitionHandle(1);
pub(crate) const WHOLE: u128 = 1_000_000_000_000_000_000;

/// The engine's records of a partition, in which locks are made, raised and lowered.
pub(crate) struct Stream {
    pub(crate) records: Vec<Record>,
    pub(crate) versions: BTreeMap<u64, (u16, u128)>,
    pub(crate) random: u64,
}

impl Stream {
    pub(crate) fn new() -> Self {
        let mut stream = Self { records: Vec::new(), versions: BTreeMap::new(), random: 1 };
        let partition = PartitionBody { onchain: [0xcc; 32], asset: AssetId(1), ..PartitionBody::default() };
        stream.push(Record::new(Kind::PartitionCreate, Id(1), PARTITION, Amount(0), &partition));
        stream.set_merchant();
        stream.set_price(WHOLE / 2);
        stream
    }

    /// What one whole of collateral costs.
    pub(crate) fn set_price(&mut self, price: u128) {
        let body = PriceBody { asset: AssetId(1), quote: QuoteId(840), ..PriceBody::default() };
        self.push(Record::new(Kind::Price, Id(3), PARTITION, Amount(price), &body));
    }

    pub(crate) fn set_merchant(&mut self) {
        let payee = Address([4; 20]);
        let merchant =
            MerchantBody { merchant: MerchantId(1), payee, release_key: payee, ..Default::default() };
        self.push(Record::new(Kind::MerchantSet, Id(2), PARTITION, Amount(0), &merchant));
    }

    pub(crate) fn push(&mut self, record: Record) {
        let time = Time::from_secs(1_700_000_000 + self.records.len() as u64);
        self.records.push(Record { code: Code::Approved as u8, tenant: TenantId(1), time, ..record });
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    pub(crate) fn lock(&mut self) -> LockId {
        let number = self.versions.len() as u64 + 1;
        let quote = QuoteId(if self.below(2) == 0 { 840 } else { 0 });
        let deadline = Time::from_secs(1_800_000_000);
        let body = LockBody { merchant: MerchantId(1), deadline, quote, ..LockBody::default() };
        let amount = 1000 + u128::from(self.below(1000));
        let record = Record::new(Kind::Lock, id(number), PARTITION, Amount(amount), &body);
        // Up to four of collateral for one of value.
        let taken = if quote == QuoteId(0) { amount } else { 4 * amount };
        self.push(Record { result: Amount(taken), ..record.with_flags(Flags::CERTIFIED) });
        self.versions.insert(number, (1, amount));
        name(number)
    }

    pub(crate) fn change(&mut self) {
        let count = self.versions.len() as u64;
        let number = self.below(count) + 1;
        let is_rise = self.below(2) == 0;
        let by = u128::from(self.below(200)) + 1;
        let (version, total) = self.versions[&number];
        let total = if is_rise { total + by } else { total - by.min(total - 1) };
        let deadline = Time::from_secs(1_800_000_000 + u64::from(version));
        let body = ChangeBody { lock: id(number), version, deadline, ..ChangeBody::default() };
        let kind = if is_rise { Kind::Increase } else { Kind::Decrease };
        let record =
            Record::new(kind, Id(1 << 90 | self.records.len() as u128), PARTITION, Amount(total), &body);
        self.push(Record { result: Amount(4 * by), ..record });
        self.versions.insert(number, (version + 1, total));
    }
}

pub(crate) fn id(number: u64) -> Id {
    Id::from_parts(Time::from_secs(1_700_000_000 + number / 3), number.into())
}

pub(crate) fn name(number: u64) -> LockId {
    LockId { tenant: TenantId(1), partition: PARTITION, id: id(number) }
}
