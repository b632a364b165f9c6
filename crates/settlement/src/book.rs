//! What a reader of the change stream has to remember to name payees and to state certificates: directories of merchants,
//! prices, and the certified locks whose certificates can still be called.

mod lost;
mod snapshot;
mod stated;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ruint::aliases::U256;
use surety_protocol::{
    Address, AssetId, ChangeBody, Flags, Kind, LockBody, MerchantBody, MerchantId, PartitionBody,
    PartitionHandle, PriceBody, QuoteId, Record, ReleaseGroup, Seq, ShardId, TenantId, Time, long, sabotage,
};

use crate::certificate::CertifiedLock;
use crate::hash::Hash;
use crate::kept::KeptLock;
use crate::leaf::LockId;
use lost::Lost;

pub use stated::Unstated;

/// One whole of a collateral in base units: prices are for this much.
const WHOLE: u128 = 1_000_000_000_000_000_000;

/// A merchant, as the directory of its shard has it.
pub(crate) type MerchantName = (ShardId, TenantId, MerchantId);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Merchant {
    payee: Address,
    release_key: Address,
}

/// What a partition was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// The on-chain id.
    pub(crate) onchain: Hash,
    asset: AssetId,
}

/// Where the stream has the signature by which a merchant has let go of a certified lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The head record of the release group.
    pub seq: Seq,
    /// Of this version of the lock and all before it.
    pub version: u32,
    /// What the merchant says is still owed, in base units.
    pub still_owed: u128,
}

/// A release group whose continuations are still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Begun {
    seq: Seq,
    records: Vec<Record>,
}

/// Directories, prices and certified locks. Enough by itself to make certificates from the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    merchants: BTreeMap<MerchantName, Merchant>,
    prices: BTreeMap<(ShardId, AssetId, QuoteId), u128>,
    homes: BTreeMap<PartitionHandle, Home>,
    pub(crate) certified: BTreeMap<LockId, KeptLock>,
    /// Up to when everything that falls due in a shard was read: the time of its last approved lock. The engine decides none while
    /// something that is due waits to be written down; after a downtime other records come before that, with times of their own.
    times: BTreeMap<ShardId, Time>,
    /// A reader may stop anywhere, also within a long record.
    begun: BTreeMap<ShardId, Begun>,
    /// What was not read, by shard and the first record behind it.
    lost: BTreeMap<(ShardId, Seq), Lost>,
}

impl Book {
    /// Takes the next record of a shard. Returns what is to be certified: a new certified lock, or a new version of one.
    ///
    /// Only locks of merchants whose payee the directory knows are certified: nobody else could be paid. A record that is not later
    /// than what is already known of its lock is passed over.
    pub fn read(&mut self, shard: ShardId, seq: Seq, record: &Record) -> Option<CertifiedLock> {
        let kind = record.kind()?;
        if kind == Kind::Continuation {
            self.go_on(shard, record);
            return None;
        }
        if let Some(lost) = self.lost_before(shard, seq) {
            lost.until.get_or_insert(record.time);
        }
        if !record.code().is_some_and(surety_protocol::Code::is_success) {
            return None;
        }
        if kind == Kind::Lock || sabotage!("forgotten-before-it-is-consumed") {
            let time = self.times.entry(shard).or_default();
            *time = record.time.max(*time);
        }
        if self.is_told(seq, record) {
            return None;
        }
        match kind {
            Kind::MerchantSet => {
                let MerchantBody { merchant, payee, release_key, .. } = record.body();
                self.merchants.insert((shard, record.tenant, merchant), Merchant { payee, release_key });
            }
            Kind::Price => {
                let body: PriceBody = record.body();
                self.prices.insert((shard, body.asset, body.quote), record.amount.0);
            }
            Kind::PartitionCreate => {
                let PartitionBody { onchain, asset, .. } = record.body();
                self.homes.insert(record.partition, Home { onchain, asset });
            }
            Kind::Lock if record.flags().has(Flags::CERTIFIED) => return self.certify(shard, seq, record),
            Kind::Increase => return self.certify_again(shard, seq, record),
            Kind::Decrease => {
                if let Some(kept) = self.kept_mut(record) {
                    kept.value = if kept.quote == QuoteId(0) { 0 } else { record.amount.0 };
                }
            }
            Kind::ReleaseGroup => {
                self.begun.insert(shard, Begun { seq, records: alloc::vec![*record] });
            }
            Kind::GuaranteeCalled => self.kept_mut(record)?.is_called = true,
            Kind::GuaranteeDismissed | Kind::GuaranteePaid => self.kept_mut(record)?.is_called = false,
            _ => {}
        }
        None
    }

    /// The newest statement of every certified lock that can still be called.
    pub fn certified(&self) -> impl Iterator<Item = CertifiedLock> + '_ {
        self.certified.values().map(|kept| kept.newest)
    }

    /// True for a certified lock that can still be called.
    #[must_use]
    pub fn is_certified(&self, lock: &LockId) -> bool {
        self.certified.contains_key(lock)
    }

    /// How many certified locks it has.
    #[must_use]
    pub fn certified_len(&self) -> usize {
        self.certified.len()
    }

    /// A certified lock, to be kept elsewhere.
    #[must_use]
    pub fn kept(&self, lock: &LockId) -> Option<&KeptLock> {
        self.certified.get(lock)
    }

    /// Takes a lock up that was kept elsewhere: before the record that changes it is read.
    pub fn take_up(&mut self, kept: KeptLock) {
        self.certified.insert(kept.newest.lock, kept);
    }

    /// Forgets all certified locks, and knows none of them but those that are taken up again.
    pub fn lay_aside(&mut self) {
        self.certified.clear();
    }

    /// Forgets one certified lock.
    pub fn drop_lock(&mut self, lock: &LockId) {
        self.certified.remove(lock);
    }

    /// Up to when everything that falls due in a shard was read; zero before its first lock.
    #[must_use]
    pub fn read_until(&self, shard: ShardId) -> Time {
        self.times.get(&shard).copied().unwrap_or_default()
    }

    /// Part of a shard's stream was not read, up to a record from which it goes on: what may have changed there is forgotten. Merchants
    /// and prices are known again once they are set again; what a partition was made with never changes. What records up to
    /// `stated` state may be kept elsewhere already.
    pub fn lose(&mut self, shard: ShardId, end: Seq, stated: Seq) {
        let mut lost = Lost { since: self.read_until(shard), until: None, stated };
        let before = self.lost.range(stated::whole(shard)).next_back().map(|(place, lost)| (*place, *lost));
        // Nothing was read since: it is the same part, which no record would ever end by itself.
        if let Some((place, before)) = before.filter(|(_, before)| before.until.is_none()) {
            self.lost.remove(&place);
            lost = Lost { since: before.since, stated: stated.max(before.stated), ..lost };
        }
        self.lost.insert((shard, end), lost);
        self.merchants.retain(|(of, ..), _| *of != shard);
        self.prices.retain(|(of, ..), _| *of != shard);
        self.begun.remove(&shard);
    }

    /// Learns of a partition otherwise than by its record.
    pub fn learn(&mut self, partition: PartitionHandle, onchain: Hash, asset: AssetId) {
        self.homes.entry(partition).or_insert(Home { onchain, asset });
    }

    /// Where a merchant is paid, if that is known.
    pub(crate) fn payee(&self, name: MerchantName) -> Option<Address> {
        let merchant = self.merchants.get(&name)?;
        (merchant.payee != Address::default()).then_some(merchant.payee)
    }

    /// What a partition was made with.
    pub(crate) fn home(&self, partition: PartitionHandle) -> Option<&Home> {
        self.homes.get(&partition)
    }

    /// All partitions.
    pub(crate) fn homes(&self) -> impl Iterator<Item = (&PartitionHandle, &Home)> {
        self.homes.iter()
    }

    /// Forgets the locks whose certificates can no longer be called, and of which nothing more is to come: `claim_span` after their
    /// deadline, once everything of their own shard that fell due until then was read.
    pub fn forget(&mut self, claim_span: Time) {
        let times = &self.times;
        self.certified.retain(|lock, kept| {
            let until = times.get(&lock.partition.shard()).copied().unwrap_or_default();
            kept.is_called || kept.deadline.plus(claim_span) >= until
        });
    }

    fn certify(&mut self, shard: ShardId, seq: Seq, record: &Record) -> Option<CertifiedLock> {
        let body: LockBody = record.body();
        let home = self.homes.get(&record.partition)?;
        let merchant = self.merchants.get(&(shard, record.tenant, body.merchant)).copied()?;
        if merchant.payee == Address::default() {
            return None;
        }
        let is_quoted = body.quote != QuoteId(0);
        let value = if is_quoted { record.amount.0 } else { 0 };
        let approved =
            if is_quoted { self.worth(shard, home.asset, body.quote, value) } else { record.amount.0 };
        let lock = LockId { tenant: record.tenant, partition: record.partition, id: record.id };
        let newest = CertifiedLock {
            lock,
            version: 1,
            shard,
            seq,
            partition: home.onchain,
            payee: merchant.payee,
            // Never more than what was taken, also where only a part was approved.
            amount: approved.min(record.result.0),
            deadline_secs: seconds(body.deadline),
            release_key: merchant.release_key,
        };
        let kept = KeptLock {
            newest,
            deadline: body.deadline,
            value,
            quote: body.quote,
            is_called: false,
            consumed: 0,
            credited: 0,
            released: None,
        };
        self.certified.insert(lock, kept);
        Some(newest)
    }

    fn certify_again(&mut self, shard: ShardId, seq: Seq, record: &Record) -> Option<CertifiedLock> {
        if self.unstated_increase(shard, &lock_of(record), record).is_some() {
            return None;
        }
        let body: ChangeBody = record.body();
        let asset = self.homes.get(&record.partition)?.asset;
        let old = *self.kept_mut(record)?;
        let rise = record.amount.0.saturating_sub(old.value);
        let amount = if old.quote == QuoteId(0) {
            record.amount.0
        } else {
            old.newest.amount + self.worth(shard, asset, old.quote, rise).min(record.result.0)
        };
        let kept = self.kept_mut(record)?;
        kept.value = if old.quote == QuoteId(0) { 0 } else { record.amount.0 };
        kept.deadline = body.deadline;
        kept.newest.version = body.version.saturating_add(1);
        kept.newest.shard = shard;
        kept.newest.seq = seq;
        kept.newest.amount = amount;
        kept.newest.deadline_secs = seconds(body.deadline);
        Some(kept.newest)
    }

    /// Takes the next part of a release group; the last one tells which locks it is about. The engine has checked that the key of
    /// the group has signed it, but a group may name locks of others, which the engine passes over.
    fn go_on(&mut self, shard: ShardId, part: &Record) {
        let Some(begun) = self.begun.get_mut(&shard) else { return };
        begun.records.push(*part);
        let Some(head) = begun.records.first().copied() else { return };
        if begun.records.len() <= head.continuations() {
            return;
        }
        let Some(Begun { seq, records }) = self.begun.remove(&shard) else { return };
        let payload = long::join(&records).unwrap_or_default();
        let Ok(group) = ReleaseGroup::from_bytes(&payload) else { return };
        for entry in group.entries {
            let lock = LockId { tenant: head.tenant, partition: head.partition, id: entry.lock };
            let Some(kept) = self.certified.get_mut(&lock) else { continue };
            if group.key != kept.newest.release_key {
                continue;
            }
            let version = u32::from(kept.newest.version);
            let released = Released { seq, version: entry.version, still_owed: entry.still_owed.0 };
            if kept.released.is_none_or(|known| known.serves(version) < released.serves(version)) {
                kept.released = Some(released);
            }
        }
    }

    fn kept_mut(&mut self, record: &Record) -> Option<&mut KeptLock> {
        self.certified.get_mut(&lock_of(record))
    }

    /// `floor(value / price)` in collateral, without any margin; 0 without a price.
    fn worth(&self, shard: ShardId, asset: AssetId, quote: QuoteId, value: u128) -> u128 {
        let price = self.prices.get(&(shard, asset, quote)).copied().unwrap_or(0);
        if price == 0 {
            return 0;
        }
        u128::try_from(U256::from(value) * U256::from(WHOLE) / U256::from(price)).unwrap_or(u128::MAX)
    }
}

impl Released {
    /// How well it answers a call of the newest certificate, which has this version: it must be of that version or a later one, and
    /// leave as little owed as can be.
    fn serves(&self, version: u32) -> (bool, core::cmp::Reverse<u128>) {
        (self.version >= version, core::cmp::Reverse(self.still_owed))
    }
}

fn lock_of(record: &Record) -> LockId {
    let ChangeBody { lock, .. } = record.body();
    LockId { tenant: record.tenant, partition: record.partition, id: lock }
}

fn seconds(time: Time) -> u64 {
    time.0 / Time::from_secs(1).0
}
