//! How many locks a core certifies in a second of its time, from records of the stream to signed groups on the shelf:
//! `cargo run --release -p settler --example certify -- [LOCKS]` prints one line of JSON.
#![allow(clippy::unwrap_used, reason = "an example may stop")]

use std::sync::Arc;
use std::time::Instant;

use chain::LocalKey;
use settlement::{Book, Domain, LOCK_GROUP_MAX};
use settler::{Desk, Shelf};
use surety_protocol::{
    Address, Amount, AssetId, Code, EngineId, Flags, Id, Kind, LockBody, MerchantBody, MerchantId,
    PartitionBody, PartitionHandle, Record, Seq, ShardId, TenantId, Time,
};

const SHARD: ShardId = ShardId(0);
const PARTITION: PartitionHandle = PartitionHandle(1);
/// As the service is started without a word about it.
const LOCKS_IN_MEMORY: usize = 1 << 18;
/// Records between two checkpoints, less than there are in ten seconds.
const SAVE_EVERY: u64 = 1 << 20;

fn main() {
    let locks = std::env::args().nth(1).map_or(500_000, |text| text.parse().unwrap());
    println!("{}", measure(locks));
}

fn measure(locks: u64) -> serde_json::Value {
    let domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };
    let key = LocalKey::from_bytes(&[5; 32]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf::open(directory.path(), domain, LOCKS_IN_MEMORY, None).unwrap());
    let mut desk = Desk::new(Box::new(key), domain, Book::default(), shelf.clone(), LOCKS_IN_MEMORY);
    let mut seq = Seq(0);
    let body = PartitionBody { onchain: [0xcc; 32], asset: AssetId(1), ..PartitionBody::default() };
    let create = Record::new(Kind::PartitionCreate, Id(1), PARTITION, Amount(0), &body);
    let address = Address([4; 20]);
    let merchant =
        MerchantBody { merchant: MerchantId(1), payee: address, release_key: address, ..Default::default() };
    let merchant = Record::new(Kind::MerchantSet, Id(2), PARTITION, Amount(0), &merchant);
    for record in [create, merchant] {
        seq = seq.next();
        desk.read(SHARD, seq, &approved(record)).unwrap();
    }
    let deadline = Time::from_secs(2_000_000_000);
    let body = LockBody { merchant: MerchantId(1), deadline, ..LockBody::default() };
    let lock = |number: u64| {
        let record = Record::new(Kind::Lock, Id(number.into()), PARTITION, Amount(1_000), &body);
        approved(Record { result: Amount(1_000), ..record.with_flags(Flags::CERTIFIED) })
    };
    let records: Vec<Record> = (1..=locks).map(lock).collect();

    let (begun, busy) = (Instant::now(), core_ns());
    for (number, record) in (1..).zip(&records) {
        seq = seq.next();
        desk.read(SHARD, seq, record).unwrap();
        if number % LOCK_GROUP_MAX as u64 == 0 || number == locks {
            desk.sign().unwrap();
        }
        if number % SAVE_EVERY == 0 || number == locks {
            desk.save().unwrap();
        }
    }
    let groups = locks.div_ceil(LOCK_GROUP_MAX as u64);
    let (seconds, busy) = (begun.elapsed().as_secs_f64(), core_ns() - busy);
    assert_eq!(shelf.len() as u64, locks);
    let rate = u128::from(locks) * 1_000_000_000 / u128::from(busy.max(1));
    let rate = u64::try_from(rate).unwrap();
    serde_json::json!({
        "locks": locks, "groups": groups, "seconds": seconds, "locks_per_core_s": rate,
        "keeps_up": rate >= 100_000,
    })
}

/// Nanoseconds that this thread has had a core: others on the machine do not count.
fn core_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn approved(record: Record) -> Record {
    Record { code: Code::Approved as u8, tenant: TenantId(1), ..record }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs_small() {
        assert_eq!(super::measure(1_000)["groups"], 4);
    }
}
