//! How long it takes to seal 10,000 net changes on top of many payees:
//! `cargo run --release -p settlement --example seal -- [PAYEES]` prints one line of JSON.
#![allow(clippy::unwrap_used, reason = "an example may stop")]

use std::time::Instant;

use settlement::{Domain, NettingConfig, Sealer};
use surety_protocol::{
    Address, Amount, AssetId, Body, Code, ConsumeBody, EngineId, Id, Kind, MerchantBody, MerchantId,
    PartitionBody, PartitionHandle, Record, Seq, ShardId, StakeBody, TenantId, Time,
};

const PARTITIONS: u64 = 100;
const SHARD: ShardId = ShardId(0);

struct Stream {
    sealer: Sealer,
    seq: Seq,
}

impl Stream {
    fn read<B: Body>(&mut self, kind: Kind, partition: u64, result: u128, body: &B) {
        self.seq = self.seq.next();
        let id = Id(self.seq.0.into());
        let mut record = Record::new(kind, id, PartitionHandle(partition), Amount(result), body);
        (record.result, record.code, record.tenant) = (Amount(result), Code::Approved as u8, TenantId(1));
        self.sealer.read(SHARD, self.seq, &record).unwrap();
    }

    /// Locks and consumes something for a merchant.
    fn pay(&mut self, merchant: u64) {
        let partition = 1 + merchant % PARTITIONS;
        self.read(Kind::Lock, partition, 10, &surety_protocol::LockBody::default());
        let body = ConsumeBody { merchant: MerchantId(merchant), ..ConsumeBody::default() };
        self.read(Kind::Consume, partition, 10, &body);
    }
}

fn main() {
    let payees = std::env::args().nth(1).map_or(100_000, |text| text.parse().unwrap());
    println!("{}", measure(payees, 10_000));
}

/// Seals so many payees, then so many changes on top of them.
fn measure(payees: u64, changes: u64) -> String {
    let domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };
    let config = NettingConfig { shards: 1, salt_key: [3; 32], claim_span: Time::ZERO };
    let mut stream = Stream { sealer: Sealer::new(config, &domain), seq: Seq(0) };
    for partition in 1..=PARTITIONS {
        let mut onchain = [0xcc; 32];
        onchain[24..].copy_from_slice(&partition.to_be_bytes());
        let body = PartitionBody { onchain, asset: AssetId(1), ..PartitionBody::default() };
        stream.read(Kind::PartitionCreate, partition, 0, &body);
        let body = StakeBody { supplier: Address([1; 20]), units: 1, ..StakeBody::default() };
        stream.read(Kind::Deposit, partition, 1 << 90, &body);
    }
    for merchant in 1..=payees {
        let mut payee = [0; 20];
        payee[..8].copy_from_slice(&merchant.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let body = MerchantBody {
            merchant: MerchantId(merchant),
            payee: Address(payee),
            enabled: 1,
            ..MerchantBody::default()
        };
        stream.read(Kind::MerchantSet, 0, 0, &body);
        stream.pay(merchant);
    }
    let begin = Instant::now();
    stream.sealer.seal(u128::MAX).unwrap();
    let first_ms = begin.elapsed().as_millis();
    let begin = Instant::now();
    let step = (payees / changes).max(1);
    (1..=changes).for_each(|change| stream.pay(1 + (change * step) % payees));
    let read_us = begin.elapsed().as_micros();
    let begin = Instant::now();
    let sealed = stream.sealer.seal(u128::MAX).unwrap();
    let seal_us = begin.elapsed().as_micros();
    let records = sealed.batch.count;
    format!(
        "{{\"payees\":{payees},\"first_seal_ms\":{first_ms},\"changes\":{changes},\"records\":{records},\"read_us\":{read_us},\"seal_us\":{seal_us}}}"
    )
}

#[test]
fn it_seals_what_it_says() {
    assert!(measure(200, 100).contains("\"changes\":100,\"records\":200,"));
}
