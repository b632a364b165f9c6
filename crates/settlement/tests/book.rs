//! What a reader of the stream remembers of certified locks, and for how long.

use settlement::{Book, LockId};
use surety_protocol::{
    Address, Amount, AssetId, Code, Flags, Id, Kind, LockBody, MerchantBody, MerchantId, PartitionBody,
    PartitionHandle, Record, Seq, ShardId, TenantId, Time,
};

const SHARD: ShardId = ShardId(0);
const PARTITION: PartitionHandle = PartitionHandle(1);
const DAY: u64 = 24 * 3600;

fn approved(record: Record, time: Time) -> Record {
    Record { code: Code::Approved as u8, tenant: TenantId(1), time, result: record.amount, ..record }
}

fn lock(id: u128, time: Time, deadline: Time) -> Record {
    let body = LockBody { merchant: MerchantId(1), deadline, ..LockBody::default() };
    let record = Record::new(Kind::Lock, Id(id), PARTITION, Amount(100), &body);
    approved(record.with_flags(Flags::CERTIFIED), time)
}

#[test]
fn a_lock_is_known_until_everything_that_fell_due_was_read() {
    let (begin, deadline) = (Time::from_secs(100 * DAY), Time::from_secs(101 * DAY));
    let home = PartitionBody { onchain: [0xcc; 32], asset: AssetId(1), ..PartitionBody::default() };
    let payee = Address([4; 20]);
    let merchant = MerchantBody { merchant: MerchantId(1), payee, ..MerchantBody::default() };
    // The engine was down for ten days. What fell due then follows on the record of its start, with its time.
    let back = Time::from_secs(110 * DAY);
    let start = Record::new(Kind::Start, Id(0), PartitionHandle(0), Amount(0), &PartitionBody::default());
    let start = approved(start, back);
    let records = [
        approved(Record::new(Kind::PartitionCreate, Id(1), PARTITION, Amount(0), &home), begin),
        approved(Record::new(Kind::MerchantSet, Id(2), PARTITION, Amount(0), &merchant), begin),
        lock(3, begin, deadline),
        start,
    ];
    let mut book = Book::default();
    for (seq, record) in (1..).zip(&records) {
        book.read(SHARD, Seq(seq), record);
    }
    let name = LockId { tenant: TenantId(1), partition: PARTITION, id: Id(3) };
    let claim_span = Time::from_secs(DAY);
    book.forget(claim_span);
    assert!(book.is_certified(&name), "its consumption may be the next record");
    // No lock is decided while something that is due waits.
    book.read(SHARD, Seq(5), &lock(4, back, back.plus(claim_span)));
    book.forget(Time::from_secs(9 * DAY));
    assert!(book.is_certified(&name), "it can still be called");
    book.forget(claim_span);
    assert!(!book.is_certified(&name));
    assert_eq!(book.certified_len(), 1);
}
