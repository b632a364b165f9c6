//! Histories of requests that make sense, to begin with.

use surety_protocol::{
    Address, Amount, ChangeBody, ConsumeBody, ControlBody, Flags, Id, Kind, LockBody, MerchantId, Origin,
    PartitionHandle, QuoteId, Record, StakeBody,
};

use crate::money::PARTITION;
use crate::seeds::Random;

/// What the requests of a history ask for; the more often a kind stands here, the more of it.
const KINDS: [Kind; 40] = [
    Kind::Lock,
    Kind::Lock,
    Kind::Lock,
    Kind::Lock,
    Kind::Increase,
    Kind::Increase,
    Kind::Decrease,
    Kind::Decrease,
    Kind::Capture,
    Kind::Capture,
    Kind::Capture,
    Kind::Capture,
    Kind::Capture,
    Kind::Capture,
    Kind::Release,
    Kind::Reverse,
    Kind::Reverse,
    Kind::Refund,
    Kind::Refund,
    Kind::Refund,
    Kind::Advice,
    Kind::Lookup,
    Kind::Settle,
    Kind::Settle,
    Kind::Settle,
    Kind::Consume,
    Kind::Consume,
    Kind::Consume,
    Kind::Deposit,
    Kind::Deposit,
    Kind::Reward,
    Kind::Withdraw,
    Kind::Withdraw,
    Kind::BatchFinal,
    Kind::BatchFinal,
    Kind::GuaranteeCalled,
    Kind::GuaranteePaid,
    Kind::Deficit,
    Kind::Unfreeze,
    Kind::Cover,
];

/// Locks of a history.
const LOCKS: u8 = 8;

/// Marks, of which half are none.
const FLAGS: [Flags; 8] = [
    Flags(0),
    Flags(0),
    Flags(0),
    Flags(0),
    Flags::FINAL,
    Flags::ALL_OR_NOTHING,
    Flags::CERTIFIED,
    Flags::BURN,
];

/// A history as the probe `operations` reads it.
pub(crate) fn requests(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = vec![1, LOCKS - 1];
    for lock in 1..=u128::from(LOCKS) {
        bytes.extend_from_slice(&made(Kind::Lock, lock, 0, &mut random).to_bytes());
    }
    for step in 0..12 {
        let wait = if step % 6 == 5 { random.below(5) } else { random.below(3) };
        // The operator may send everything; a tenant is the one whose locks these are.
        let who = [1, 0, 1, 3, 1][random.below(5)];
        let count = 1 + random.below(5);
        bytes.push(who | u8::try_from(wait << 2).unwrap_or(0));
        bytes.push(u8::try_from(count - 1).unwrap_or(0));
        let chained = random.below(6) == 0;
        for at in 0..count {
            let mut record = request(&mut random, who);
            if chained && at + 1 < count && record.kind().is_some_and(Kind::may_be_linked) {
                record = record.with_flags(Flags::LINKED);
            }
            bytes.extend_from_slice(&record.to_bytes());
        }
    }
    bytes
}

fn request(random: &mut Random, who: u8) -> Record {
    let of_tenant =
        |kind: Kind| matches!(kind.origin(), Origin::Authorizer | Origin::Reader | Origin::Settler);
    let kind = loop {
        let kind = KINDS[random.below(KINDS.len())];
        if (who == 0) != of_tenant(kind) || kind == Kind::Settle {
            break kind;
        }
    };
    // Few locks, so that much happens to each of them.
    let lock = 1 + random.below(LOCKS.into()) as u128;
    let id = if kind == Kind::Lock { lock } else { 10 + random.below(180) as u128 };
    let mut record = made(kind, id, lock, random);
    if who == 0 && of_tenant(kind) {
        record.tenant = surety_protocol::TenantId(1);
    }
    record
}

fn made(kind: Kind, id: u128, lock: u128, random: &mut Random) -> Record {
    let takes_none = matches!(
        kind,
        Kind::Release
            | Kind::Reverse
            | Kind::Settle
            | Kind::Consume
            | Kind::Lookup
            | Kind::Freeze
            | Kind::Unfreeze
            | Kind::Reconcile
    );
    let most = if kind == Kind::Lock { 900 } else { 90 };
    let amount = Amount(if takes_none { 0 } else { 1 + random.below(most) as u128 });
    let (id, lock) = (Id(id), Id(lock));
    let user = random.below(3) as u64;
    let capture = u16::from(random.below(4) == 0);
    let record = match kind {
        Kind::Lock => {
            let quote = if random.below(4) == 0 { QuoteId(978) } else { QuoteId(0) };
            let merchant = MerchantId(7);
            let body = LockBody { merchant, category: 5411, quote, user, ..LockBody::default() };
            Record::new(kind, id, PARTITION, amount, &body)
        }
        Kind::Consume => {
            let body = ConsumeBody { lock, capture, user, ..ConsumeBody::default() };
            Record::new(kind, id, PARTITION, amount, &body)
        }
        Kind::Deposit | Kind::Reward | Kind::Withdraw => {
            let supplier = if kind == Kind::Reward { Address::default() } else { Address([9; 20]) };
            let nonce = if kind == Kind::Withdraw { 0 } else { 100 + random.below(1000) as u64 };
            let body = StakeBody { supplier, nonce, ..StakeBody::default() };
            Record::new(kind, id, PARTITION, amount, &body)
        }
        Kind::BatchFinal | Kind::Deficit | Kind::Freeze | Kind::Unfreeze | Kind::Cover => {
            let number = random.below(9) as u64;
            Record::new(kind, id, PARTITION, amount, &ControlBody { number, ..ControlBody::default() })
        }
        _ => {
            let version = if kind == Kind::Increase { 1 } else { 0 };
            let body = ChangeBody { lock, capture, version, user, ..ChangeBody::default() };
            Record::new(kind, id, PARTITION, amount, &body)
        }
    };
    record.with_flags(FLAGS[random.below(FLAGS.len())])
}

/// One request of every kind that may arrive and stands alone.
pub(crate) fn one_of_each() -> Vec<u8> {
    let mut random = Random(1);
    let arrives = |kind: &&Kind| !matches!(kind.origin(), Origin::Engine | Origin::Part) && !kind.is_long();
    let kinds = Kind::ALL.iter().filter(arrives);
    let records = kinds.zip(1_u128..).map(|(kind, id)| {
        let mut record = made(*kind, id, 1, &mut random);
        record.partition = PartitionHandle(1);
        record
    });
    records.flat_map(|record| record.to_bytes()).collect()
}
