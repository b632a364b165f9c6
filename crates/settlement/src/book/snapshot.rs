//! The bytes of a book: as part of a netting's snapshot, and as a snapshot of its own.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use surety_protocol::{
    Address, AssetId, MerchantId, PartitionHandle, QuoteId, Record, Seq, ShardId, TenantId, Time,
};

use super::lost::Lost;
use super::{Begun, Book, Home, Merchant};
use crate::bytes::{Reader, Truncated, Writer};
use crate::kept::KeptLock;

const SNAPSHOT_VERSION: u8 = 3;
/// Of books that could not lose any of their stream.
const SNAPSHOT_VERSION_WITHOUT_LOSSES: u8 = 2;

impl Book {
    /// The whole book.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u8(SNAPSHOT_VERSION);
        self.write(&mut to);
        to.map(&self.lost, |to, (shard, end), lost| {
            to.u16(shard.0).u64(end.0);
            lost.write(to);
        });
        to.0
    }

    /// The book of a snapshot, whose integrity the caller has checked. `None` for one of another version.
    #[must_use]
    pub fn restore(snapshot: &[u8]) -> Option<Self> {
        let mut from = Reader(snapshot);
        let version = from.u8().ok()?;
        let mut book = Self::read_from(&mut from).ok()?;
        match version {
            SNAPSHOT_VERSION_WITHOUT_LOSSES => {}
            SNAPSHOT_VERSION => {
                let lost =
                    |from: &mut Reader<'_>| Ok(((ShardId(from.u16()?), Seq(from.u64()?)), Lost::read(from)?));
                book.lost = from.map(lost).ok()?;
            }
            _ => return None,
        }
        from.end().ok()?;
        Some(book)
    }

    /// The book's part of a netting's snapshot: a netting loses nothing of its stream.
    pub(crate) fn write(&self, to: &mut Writer) {
        to.map(&self.merchants, |to, (shard, tenant, merchant), entry| {
            to.u16(shard.0).u32(tenant.0).u64(merchant.0).raw(&entry.payee.0).raw(&entry.release_key.0);
        });
        to.map(&self.prices, |to, (shard, asset, quote), price| {
            to.u16(shard.0).u32(asset.0).u16(quote.0).u128(*price);
        });
        to.map(&self.homes, |to, partition, home| {
            to.u64(partition.0).raw(&home.onchain).u32(home.asset.0);
        });
        to.map(&self.certified, |to, _, kept| kept.write(to));
        to.map(&self.times, |to, shard, time| {
            to.u16(shard.0).u64(time.0);
        });
        to.map(&self.begun, |to, shard, begun| {
            to.u16(shard.0).u64(begun.seq.0);
            to.list(begun.records.iter(), |to, record| _ = to.raw(&record.to_bytes()));
        });
    }

    pub(crate) fn read_from(from: &mut Reader<'_>) -> Result<Self, Truncated> {
        Ok(Self {
            merchants: from.map(|from| {
                let name = (ShardId(from.u16()?), TenantId(from.u32()?), MerchantId(from.u64()?));
                Ok((name, Merchant { payee: Address(from.array()?), release_key: Address(from.array()?) }))
            })?,
            prices: from.map(|from| {
                let name = (ShardId(from.u16()?), AssetId(from.u32()?), QuoteId(from.u16()?));
                Ok((name, from.u128()?))
            })?,
            homes: from.map(|from| {
                let partition = PartitionHandle(from.u64()?);
                Ok((partition, Home { onchain: from.array()?, asset: AssetId(from.u32()?) }))
            })?,
            certified: from.map(|from| KeptLock::read(from).map(|kept| (kept.newest.lock, kept)))?,
            times: from.map(|from| Ok((ShardId(from.u16()?), Time(from.u64()?))))?,
            begun: from.map(|from| {
                let (shard, seq) = (ShardId(from.u16()?), Seq(from.u64()?));
                let records = from.list(|from| from.array().map(|bytes| Record::from_bytes(&bytes)))?;
                Ok((shard, Begun { seq, records }))
            })?,
            lost: BTreeMap::new(),
        })
    }
}
