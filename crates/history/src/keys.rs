//! Keys of the store. Numbers stand with their highest byte first, so that keys are in the order of what they name.

use surety_protocol::{
    Address, Code, End, Id, Kind, MerchantId, PartitionHandle, Seq, ShardId, TenantId, Time,
};

use crate::row::{LockKey, Row};

/// Records of a block, at most, and unless a store was begun with fewer.
pub(crate) const BLOCK_ROWS_MAX: u16 = 128;

/// A block's number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockNumber(pub(crate) u64);

/// How many records a block of a store has. Which block a record is in follows from its seq alone, so that an index is the same however
/// it was fed: block *n* of 128 has the seqs `n * 128 + 1` to `n * 128 + 128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    rows: u16,
}

impl Blocks {
    /// Blocks of so many records; none if that is none, or more than there may be.
    pub(crate) const fn new(rows: u16) -> Option<Self> {
        if rows == 0 || rows > BLOCK_ROWS_MAX { None } else { Some(Self { rows }) }
    }

    pub(crate) const fn rows(self) -> u16 {
        self.rows
    }

    pub(crate) const fn of(self, seq: Seq) -> BlockNumber {
        BlockNumber(seq.0.saturating_sub(1) / self.rows as u64)
    }

    pub(crate) const fn first_seq(self, number: BlockNumber) -> Seq {
        Seq(number.0 * self.rows as u64 + 1)
    }

    pub(crate) const fn last_seq(self, number: BlockNumber) -> Seq {
        Seq((number.0 + 1) * self.rows as u64)
    }

    /// The block that the last record before `next` is in, if it has room left.
    pub(crate) fn open(self, next: Seq) -> Option<BlockNumber> {
        let number = self.of(next);
        (next > self.first_seq(number)).then_some(number)
    }
}

/// Key of a block and of its zone.
pub(crate) fn block(shard: ShardId, number: BlockNumber) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&shard.0.to_be_bytes());
    key[2..].copy_from_slice(&number.0.to_be_bytes());
    key
}

/// An attribute of a record with a value: what postings lead from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Term {
    Lock(Id),
    Merchant(MerchantId),
    Payee(Address),
    Partition(PartitionHandle),
    Tenant(TenantId),
    Supplier(Address),
    Code(Code),
    Kind(Kind),
    State(End),
    /// The record made a lock, or the refusal that stands for one.
    New,
    /// The record concerns this merchant of this tenant, and tells its totals.
    Account(TenantId, MerchantId),
}

impl Term {
    /// What a posting's key begins with.
    pub(crate) fn prefix(self, shard: ShardId) -> Vec<u8> {
        let mut key = Vec::with_capacity(32);
        match self {
            Self::Lock(id) => put(&mut key, 1, &id.0.to_be_bytes()),
            Self::Merchant(merchant) => put(&mut key, 2, &merchant.0.to_be_bytes()),
            Self::Payee(payee) => put(&mut key, 3, &payee.0),
            Self::Partition(partition) => put(&mut key, 4, &partition.0.to_be_bytes()),
            Self::Tenant(tenant) => put(&mut key, 5, &tenant.0.to_be_bytes()),
            Self::Supplier(supplier) => put(&mut key, 6, &supplier.0),
            Self::Code(code) => put(&mut key, 7, &[code as u8]),
            Self::Kind(kind) => put(&mut key, 8, &[kind as u8]),
            Self::State(end) => put(&mut key, 9, &[end as u8]),
            Self::New => put(&mut key, 10, &[]),
            Self::Account(tenant, merchant) => {
                put(&mut key, 11, &tenant.0.to_be_bytes());
                key.extend_from_slice(&merchant.0.to_be_bytes());
            }
        }
        key.extend_from_slice(&shard.0.to_be_bytes());
        key
    }

    /// The key of a posting: the value occurs in the block.
    pub(crate) fn posting(self, shard: ShardId, number: BlockNumber) -> Vec<u8> {
        let mut key = self.prefix(shard);
        key.extend_from_slice(&number.0.to_be_bytes());
        key
    }

    /// Every term that leads to a row. A term that is left out here makes rows that no question finds.
    pub(crate) fn all_of(row: &Row, mut take: impl FnMut(Self)) {
        if row.is_part() {
            return;
        }
        row.locks().for_each(|id| take(Self::Lock(id)));
        take(Self::Partition(row.record.partition));
        take(Self::Tenant(row.record.tenant));
        row.supplier().into_iter().for_each(|supplier| take(Self::Supplier(supplier)));
        row.merchant_of().into_iter().for_each(|merchant| take(Self::Account(row.record.tenant, merchant)));
        row.record.code().into_iter().for_each(|code| take(Self::Code(code)));
        row.record.kind().into_iter().for_each(|kind| take(Self::Kind(kind)));
        for lock in row.afters() {
            take(Self::Merchant(lock.merchant));
            take(Self::Payee(lock.payee));
            take(Self::State(lock.end));
            if lock.is_new {
                take(Self::New);
            }
        }
    }
}

fn put(key: &mut Vec<u8>, attribute: u8, value: &[u8]) {
    key.push(attribute);
    key.extend_from_slice(value);
}

/// Key of a lock: by id first, since that is what one has.
pub(crate) fn lock(key: &LockKey) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..16].copy_from_slice(&key.id.0.to_be_bytes());
    bytes[16..24].copy_from_slice(&key.partition.0.to_be_bytes());
    bytes[24..].copy_from_slice(&key.tenant.0.to_be_bytes());
    bytes
}

/// Key of a lock that another one has taken the place of: the ledger had forgotten it. Behind the newer one's.
pub(crate) fn replaced_lock(key: &LockKey, seq: Seq) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[..28].copy_from_slice(&lock(key));
    bytes[28..].copy_from_slice(&seq.0.to_be_bytes());
    bytes
}

/// The first and the last key that locks of an id may have, in one partition or anywhere.
pub(crate) fn locks_of(id: Id, partition: Option<PartitionHandle>) -> (Vec<u8>, Vec<u8>) {
    let mut prefix = id.0.to_be_bytes().to_vec();
    prefix.extend(partition.iter().flat_map(|partition| partition.0.to_be_bytes()));
    let last = [&prefix[..], &[0xff; 36]].concat();
    (prefix, last)
}

/// Which lock a key is of, and the record that made it where another has taken its place.
pub(crate) fn any_lock_key(bytes: &[u8]) -> Option<(LockKey, Option<Seq>)> {
    let (key, made) = bytes.split_at_checked(28)?;
    let made = if made.is_empty() { None } else { Some(Seq(u64::from_be_bytes(made.try_into().ok()?))) };
    Some((lock_key(key)?, made))
}

pub(crate) fn lock_key(bytes: &[u8]) -> Option<LockKey> {
    let mut reader = crate::bytes::Reader(bytes);
    let key = LockKey {
        id: Id(u128::from_be_bytes(reader.take()?)),
        partition: PartitionHandle(u64::from_be_bytes(reader.take()?)),
        tenant: TenantId(u32::from_be_bytes(reader.take()?)),
    };
    reader.0.is_empty().then_some(key)
}

/// In which order live locks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenBy {
    /// The oldest first.
    Age,
    /// The one that ends soonest by itself first.
    Deadline,
}

/// Key of a live lock in an order: the time that orders it, then the record that made it.
pub(crate) fn open(by: OpenBy, time: Time, shard: ShardId, seq: Seq) -> [u8; 19] {
    let mut key = [0; 19];
    key[0] = match by {
        OpenBy::Age => 1,
        OpenBy::Deadline => 2,
    };
    key[1..9].copy_from_slice(&time.0.to_be_bytes());
    key[9..11].copy_from_slice(&shard.0.to_be_bytes());
    key[11..].copy_from_slice(&seq.0.to_be_bytes());
    key
}

/// Time, shard and seq out of such a key.
pub(crate) fn open_place(key: &[u8]) -> Option<(Time, ShardId, Seq)> {
    let mut reader = crate::bytes::Reader(key.get(1..)?);
    let time = Time(u64::from_be_bytes(reader.take()?));
    let shard = ShardId(u16::from_be_bytes(reader.take()?));
    let seq = Seq(u64::from_be_bytes(reader.take()?));
    Some((time, shard, seq))
}

/// Key of what a supplier has in a partition from a record on.
pub(crate) fn stake(supplier: &Address, partition: PartitionHandle, time: Time, seq: Seq) -> Vec<u8> {
    let mut key = supplier.0.to_vec();
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.extend_from_slice(&time.0.to_be_bytes());
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}

/// Key of what there is of all locks of a merchant in a shard.
pub(crate) fn merchant(shard: ShardId, tenant: TenantId, merchant: MerchantId) -> [u8; 14] {
    let mut key = [0; 14];
    key[..2].copy_from_slice(&shard.0.to_be_bytes());
    key[2..6].copy_from_slice(&tenant.0.to_be_bytes());
    key[6..].copy_from_slice(&merchant.0.to_be_bytes());
    key
}

/// Key of a partition's money.
pub(crate) fn partition(partition: PartitionHandle) -> [u8; 8] {
    partition.0.to_be_bytes()
}

/// Key of a shard's position.
pub(crate) fn position(shard: ShardId) -> [u8; 3] {
    let [high, low] = shard.0.to_be_bytes();
    [b'p', high, low]
}
