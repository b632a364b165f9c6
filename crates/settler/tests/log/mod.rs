//! A settler's log with every entry that there is.

use settlement::life::{Attempt, Entry, Fees, Halt, Purpose, Refusal};
use settlement::{Domain, NettingConfig, Sealer};
use settler::{Head, Note, PaidOnChain};
use surety_protocol::{
    Address, Amount, AssetId, Code, EngineId, Id, Kind, PartitionBody, PartitionHandle, Record, Seq, ShardId,
    StakeBody, TenantId, Time,
};

pub(crate) const SHARD: ShardId = ShardId(0);
pub(crate) const DOMAIN: Domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };
pub(crate) const HEAD: Head = Head { shards: 1, claim_span: Time(77), separator: [3; 32], salt_key: [4; 32] };
const PARTITION: PartitionHandle = PartitionHandle(1);

/// Supplies to a partition, sealed into four batches of which two are booked; what else was noted meanwhile.
pub(crate) fn settled() -> Vec<Note> {
    let config = NettingConfig { shards: 1, salt_key: [4; 32], claim_span: Time(77) };
    let mut sealer = Sealer::new(config, &DOMAIN);
    let mut notes = Vec::new();
    for (seq, record) in (1..).zip(records()) {
        sealer.read(SHARD, Seq(seq), &record).unwrap();
        let sealed = Box::new(sealer.seal(u128::MAX).unwrap());
        notes.push(Entry::Sealed { sealed, at: Time(seq) }.into());
    }
    let fees = Fees { cap: 30, tip: 2 };
    for (seq, purpose) in [(1, Purpose::Commit), (2, Purpose::Commit), (3, Purpose::Cancel)] {
        let (at, hash, raw) = (Time(40 + seq), [9; 32], vec![7; 20]);
        notes
            .push(Entry::Attempt(Attempt { seq, purpose, nonce: seq, fees, at, block: 8, hash, raw }).into());
    }
    for seq in [1, 2] {
        notes.push(Entry::Final { seq, block: 9, nonce: seq + 1 }.into());
        notes.push(Entry::Booked { seq }.into());
    }
    notes.push(Entry::Held { seq: 3, refusal: Refusal::Paused }.into());
    notes.push(Entry::Dropped { from: 4 }.into());
    notes.push(Note::Asked(Box::new(records()[2])));
    notes.push(Note::ExitAnswered { partition: PARTITION, nonce: 3 });
    notes.push(Note::Loss(PaidOnChain { partition: [1; 32], lock: [2; 32], amount: 3 }));
    notes.push(Note::Asked(Box::new(records()[1])));
    notes.push(Note::LossBooked { reference: 8 });
    notes.push(Note::LossTold { lock: [2; 32] });
    notes.push(Note::Loss(PaidOnChain { partition: [1; 32], lock: [5; 32], amount: 4 }));
    notes.push(Note::Asked(Box::new(records()[3])));
    notes.push(Note::Spent { at: Time(5), transaction: [6; 32], wei: 7 });
    notes.push(Entry::Halted(Halt::WrongChain).into());
    notes.push(Note::Resumed);
    notes
}

fn records() -> Vec<Record> {
    let home = PartitionBody { onchain: [0xcc; 32], asset: AssetId(1), ..PartitionBody::default() };
    let mut records = vec![Record::new(Kind::PartitionCreate, Id(1), PARTITION, Amount(0), &home)];
    for nonce in 1..=3 {
        let body = StakeBody { supplier: Address([4; 20]), nonce, units: 100, ..StakeBody::default() };
        records.push(Record::new(Kind::Deposit, Id(9), PARTITION, Amount(100), &body));
    }
    let approved = |record: Record| Record {
        code: Code::Approved as u8,
        tenant: TenantId(1),
        time: Time(50),
        result: record.amount,
        ..record
    };
    records.into_iter().map(approved).collect()
}
