//! Snapshot entries: everything that is state, as canonical bytes. The same bytes are what the state hash covers.

use alloc::vec::Vec;

use surety_protocol::{
    Address, AssetId, Body, Id, Kind, MerchantBody, MerchantId, PartitionHandle, QuoteId, Record,
    ReleaseGroup, TenantBody, TenantId, Time, long,
};

use crate::canon::{Field, KeyPart, Reader, Sink, WordHash, canonical, put_key, take_key};
use crate::decide::{is_for_shard, lock_named};
use crate::ledger::{CAPTURE_PIECE, Config, EXT_PIECE, Ledger, Price, Tenant, partition_hash};
use crate::lock::{Capture, Ext, Lock};
use crate::loss::Loss;
use crate::op::{Op, Side};
use crate::partition::{Partition, Position, Queued};
use crate::state::{Entry, EntryError, EntryKey, EntryKind};

canonical!(Price { price, ratio_bps, observed, seq });

/// An entry, read.
pub(crate) enum Parsed {
    Tenant(TenantBody),
    Partition(alloc::boxed::Box<Partition>),
    Grant {
        partition: PartitionHandle,
        tenant: TenantId,
        rights: u32,
    },
    Merchant {
        tenant: TenantId,
        body: MerchantBody,
    },
    Price {
        asset: AssetId,
        quote: QuoteId,
        price: Price,
    },
    Position {
        partition: PartitionHandle,
        supplier: Address,
        position: Position,
    },
    Queued {
        partition: PartitionHandle,
        at: u64,
        queued: Queued,
    },
    Nonce {
        partition: PartitionHandle,
        nonce: u64,
    },
    Open {
        partition: PartitionHandle,
        tenant: TenantId,
        merchant: MerchantId,
        value: u128,
    },
    Lock {
        key: EntryKey,
        lock: alloc::boxed::Box<Lock>,
        ext: Option<alloc::boxed::Box<Ext>>,
        captures: Vec<Capture>,
    },
    Op {
        key: EntryKey,
        op: Op,
        side: Option<Side>,
    },
    Loss(Loss),
    Unreconciled {
        partition: PartitionHandle,
    },
}

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// If the bytes are none.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, EntryError> {
        let entry = Self { bytes };
        entry.parse()?;
        Ok(entry)
    }

    /// Its bytes; entries are ordered by them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        // Bytes that are not a kind never become an entry.
        self.bytes.first().and_then(|byte| EntryKind::from_byte(*byte)).unwrap_or(EntryKind::Op)
    }

    /// The lock or id that it is; `None` for the small tables.
    #[must_use]
    pub fn key(&self) -> Option<EntryKey> {
        match self.kind() {
            EntryKind::Lock | EntryKind::Op => {
                let (tenant, partition, id) = take_key(&mut Reader(self.bytes.get(1..)?))?;
                Some(EntryKey { tenant, partition, id })
            }
            _ => None,
        }
    }

    /// Its part of the state hash, which is the wrapping sum over all entries.
    #[must_use]
    pub fn hash(&self) -> u128 {
        // Bytes that cannot be read never become an entry.
        self.parse().map_or(0, |parsed| parsed.hash())
    }

    /// True if a ledger at `now` has forgotten it.
    #[must_use]
    pub fn is_forgotten(&self, config: &Config, now: Time) -> bool {
        match self.parse() {
            Ok(Parsed::Lock { lock, ext, captures, .. }) => {
                !lock.is_live()
                    && !lock.has(crate::lock::flag::CALLED)
                    && lock.since <= now
                    && captures.iter().all(|capture| capture.open == 0)
                    && ext.is_none_or(|ext| ext.pending == 0)
            }
            Ok(Parsed::Op { op, .. }) => op.forgotten_at_ms(config.id_window) <= now.0 / 1_000_000,
            _ => false,
        }
    }

    /// The locks and ids that consecutive records of a log touch.
    #[must_use]
    pub fn touched(records: &[Record]) -> Vec<EntryKey> {
        let mut keys = Vec::new();
        for (position, record) in records.iter().enumerate() {
            let Some(kind) = record.kind().filter(|kind| *kind != Kind::Continuation) else { continue };
            let home = home_of(kind, record.partition);
            let mut add = |id| keys.push(EntryKey { tenant: record.tenant, partition: home, id });
            add(record.id);
            if let Some(lock) = lock_named(kind, record) {
                add(lock);
            }
            if kind == Kind::ReleaseGroup {
                touched_by_group(&records[position..], &mut keys);
            }
        }
        keys
    }

    pub(crate) fn parse(&self) -> Result<Parsed, EntryError> {
        let mut from = Reader(&self.bytes);
        let byte = from.read::<u8>().ok_or(EntryError::Kind(0))?;
        let kind = EntryKind::from_byte(byte).ok_or(EntryError::Kind(byte))?;
        parse(kind, &mut from).filter(|_| from.0.is_empty()).ok_or(EntryError::Damaged(kind))
    }

    fn new(kind: EntryKind) -> Self {
        Self { bytes: alloc::vec![kind as u8] }
    }
}

impl Parsed {
    /// The part of the state hash.
    fn hash(&self) -> u128 {
        match self {
            Self::Tenant(quotas) => hash_of(EntryKind::Tenant, |out| put_tenant(out, quotas)),
            Self::Partition(partition) => partition_hash(partition),
            Self::Grant { partition, tenant, rights } => {
                hash_of(EntryKind::Grant, |out| put_grant(out, *partition, *tenant, *rights))
            }
            Self::Merchant { tenant, body } => {
                hash_of(EntryKind::Merchant, |out| put_merchant(out, *tenant, body))
            }
            Self::Price { asset, quote, price } => {
                hash_of(EntryKind::Price, |out| put_price(out, (*asset, *quote), price))
            }
            Self::Position { partition, supplier, position } => {
                hash_of(EntryKind::Position, |out| put_position(out, *partition, supplier, position))
            }
            Self::Queued { partition, at, queued } => {
                hash_of(EntryKind::Queued, |out| put_queued(out, *partition, *at, queued))
            }
            Self::Nonce { partition, nonce } => {
                hash_of(EntryKind::Nonce, |out| put_nonce(out, *partition, *nonce))
            }
            Self::Open { partition, tenant, merchant, value } => {
                hash_of(EntryKind::Open, |out| put_open(out, (*partition, *tenant), *merchant, *value))
            }
            Self::Lock { key, lock, ext, captures } => {
                let ext = ext.as_ref().map_or(0, |ext| ext_hash(key, ext));
                let sum = core_hash(key, lock).wrapping_add(ext);
                captures.iter().fold(sum, |sum, capture| sum.wrapping_add(capture_hash(key, capture)))
            }
            Self::Loss(loss) => hash_of(EntryKind::Loss, |out| loss.put(out)),
            Self::Unreconciled { partition } => unreconciled_hash(*partition),
            Self::Op { key, op, side } => hash_of(EntryKind::Op, |out| {
                put_key(out, key.tenant, key.partition, key.id);
                op.put(out);
                if let Some(side) = side {
                    side.put_for(op.memo, out);
                }
            }),
        }
    }
}

fn parse(kind: EntryKind, from: &mut Reader) -> Option<Parsed> {
    Some(match kind {
        EntryKind::Tenant => {
            let tenant = u32::from_be_bytes(from.array()?);
            let body = TenantBody::from_bytes(&from.array()?);
            return (body.tenant.0 == tenant).then_some(Parsed::Tenant(body));
        }
        EntryKind::Partition => {
            let (tenant, handle, id) = take_key(from)?;
            let is_sound = tenant == TenantId(0) && id == Id(0) && handle.number() != 0;
            let partition = Partition::take(handle, from).filter(|_| is_sound)?;
            Parsed::Partition(alloc::boxed::Box::new(partition))
        }
        EntryKind::Grant => {
            let (partition, tenant, rights) = (handle(from)?, tenant(from)?, from.read()?);
            // No right is no grant: a ledger keeps none such.
            return (rights != 0).then_some(Parsed::Grant { partition, tenant, rights });
        }
        EntryKind::Merchant => {
            let tenant = tenant(from)?;
            let merchant = u64::from_be_bytes(from.array()?);
            let body = MerchantBody::from_bytes(&from.array()?);
            return (body.merchant.0 == merchant).then_some(Parsed::Merchant { tenant, body });
        }
        EntryKind::Price => {
            let asset = AssetId(u32::from_be_bytes(from.array()?));
            let quote = QuoteId(u16::from_be_bytes(from.array()?));
            let mut price = Price::default();
            price.take(from)?;
            Parsed::Price { asset, quote, price }
        }
        EntryKind::Position => {
            let (partition, supplier) = (handle(from)?, from.read()?);
            let mut position = Position::default();
            position.take(from)?;
            Parsed::Position { partition, supplier, position }
        }
        EntryKind::Queued => {
            let (partition, at) = (handle(from)?, u64::from_be_bytes(from.array()?));
            Parsed::Queued { partition, at, queued: Queued::take(from)? }
        }
        EntryKind::Nonce => {
            Parsed::Nonce { partition: handle(from)?, nonce: u64::from_be_bytes(from.array()?) }
        }
        EntryKind::Open => {
            let (partition, tenant) = (handle(from)?, tenant(from)?);
            let merchant = MerchantId(u64::from_be_bytes(from.array()?));
            Parsed::Open { partition, tenant, merchant, value: from.read()? }
        }
        EntryKind::Lock => return parse_lock(from),
        EntryKind::Op => {
            let key = key(from)?;
            let mut op =
                Op::new(key.id.0, 0, Kind::Lock, surety_protocol::Code::None, surety_protocol::Seq(0));
            op.take(from)?;
            let side = Side::take_for(op.memo, from)?;
            Parsed::Op { key, op, side }
        }
        EntryKind::Loss => Parsed::Loss(Loss::take(from)?),
        EntryKind::Unreconciled => Parsed::Unreconciled { partition: handle(from)? },
    })
}

fn parse_lock(from: &mut Reader) -> Option<Parsed> {
    let key = key(from)?;
    let mut lock = alloc::boxed::Box::new(Lock::new(key.id.0, 0));
    lock.take(from)?;
    let mut ext = None;
    if from.read::<bool>()? {
        ext.insert(alloc::boxed::Box::new(Ext::default())).take(from)?;
    }
    let mut captures = Vec::with_capacity(usize::from(lock.count));
    // In the order in which they were made; losses leave gaps.
    let mut next = 0;
    for _ in 0..lock.count {
        let mut capture = Capture::default();
        capture.take(from)?;
        if capture.index < next {
            return None;
        }
        next = capture.index.checked_add(1)?;
        captures.push(capture);
    }
    let is_lock = !matches!(lock.end, surety_protocol::End::None | surety_protocol::End::Declined);
    let is_sound = is_lock && !(lock.is_live() && lock.has(crate::lock::flag::EXPIRED));
    is_sound.then_some(Parsed::Lock { key, lock, ext, captures })
}

fn handle(from: &mut Reader) -> Option<PartitionHandle> {
    Some(PartitionHandle(u64::from_be_bytes(from.array()?)))
}

fn tenant(from: &mut Reader) -> Option<TenantId> {
    Some(TenantId(u32::from_be_bytes(from.array()?)))
}

fn key(from: &mut Reader) -> Option<EntryKey> {
    let (tenant, partition, id) = take_key(from)?;
    Some(EntryKey { tenant, partition, id })
}

fn touched_by_group(records: &[Record], keys: &mut Vec<EntryKey>) {
    let head = &records[0];
    let parts = head.continuations().min(records.len() - 1);
    let group =
        long::join(&records[..1 + parts]).ok().and_then(|payload| ReleaseGroup::from_bytes(&payload).ok());
    let key = |id| EntryKey { tenant: head.tenant, partition: head.partition, id };
    keys.extend(group.iter().flat_map(|group| &group.entries).map(|entry| key(entry.lock)));
}

/// Where an id is remembered: with its partition, or with the shard if it concerns none that exists.
fn home_of(kind: Kind, partition: PartitionHandle) -> PartitionHandle {
    if is_for_shard(kind) || kind == Kind::PartitionCreate {
        PartitionHandle::new(partition.shard(), 0)
    } else {
        partition
    }
}

fn core_hash(key: &EntryKey, lock: &Lock) -> u128 {
    let mut canon = WordHash::new();
    canon.number(EntryKind::Lock as u64, 1);
    put_key(&mut canon, key.tenant, key.partition, key.id);
    lock.put(&mut canon);
    canon.finish()
}

fn ext_hash(key: &EntryKey, ext: &Ext) -> u128 {
    let mut canon = WordHash::new();
    canon.number(u64::from(EXT_PIECE), 1);
    put_key(&mut canon, key.tenant, key.partition, key.id);
    ext.put(&mut canon);
    canon.finish()
}

fn capture_hash(key: &EntryKey, capture: &Capture) -> u128 {
    let mut canon = WordHash::new();
    canon.number(u64::from(CAPTURE_PIECE), 1);
    put_key(&mut canon, key.tenant, key.partition, key.id);
    capture.put(&mut canon);
    canon.finish()
}

// Writing and hashing: each kind of entry is written by one function, for both.
impl Ledger {
    /// The whole state, in order of bytes.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut locks: Vec<(EntryKey, u32)> = self
            .lock_slots()
            .map(|slot| {
                let lock = self.locks.get(slot);
                (self.entry_key(lock.account, lock.id), slot)
            })
            .collect();
        locks.sort_unstable();
        let mut ops: Vec<(EntryKey, u32)> = self
            .op_slots()
            .map(|slot| {
                let op = self.ops.get(slot);
                (self.entry_key(op.account, op.id()), slot)
            })
            .collect();
        ops.sort_unstable();
        let mut small = self.small_entries();
        small.sort_unstable();
        small
            .into_iter()
            .chain(locks.into_iter().map(|(_, slot)| self.lock_entry(slot)))
            .chain(ops.into_iter().map(|(_, slot)| self.op_entry(slot)))
            .chain(self.entries_of_losses())
    }

    /// Losses, and what was not reconciled since.
    fn entries_of_losses(&self) -> Vec<Entry> {
        let losses = self.losses.iter().map(|loss| {
            let mut entry = Entry::new(EntryKind::Loss);
            loss.put(&mut entry.bytes);
            entry
        });
        let unreconciled = self.partitions.iter().filter(|partition| partition.is_unreconciled);
        let unreconciled = unreconciled.map(|partition| {
            let mut entry = Entry::new(EntryKind::Unreconciled);
            partition.handle.0.put_in_key(&mut entry.bytes);
            entry
        });
        let mut entries: Vec<Entry> = losses.chain(unreconciled).collect();
        entries.sort_unstable();
        entries
    }

    /// Everything but locks and ids.
    fn small_entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut add = |kind, write: &dyn Fn(&mut Vec<u8>)| {
            let mut entry = Entry::new(kind);
            write(&mut entry.bytes);
            entries.push(entry);
        };
        for tenant in self.tenants.iter().filter(|tenant| tenant.is_set) {
            add(EntryKind::Tenant, &|out| put_tenant(out, &tenant.quotas));
        }
        for partition in self.partitions.iter().skip(1) {
            let handle = partition.handle;
            add(EntryKind::Partition, &|out| {
                put_key(out, TenantId(0), partition.handle, Id(0));
                partition.put(out);
            });
            for (supplier, position) in &partition.positions {
                add(EntryKind::Position, &|out| put_position(out, handle, supplier, position));
            }
            for (at, queued) in (partition.queue_front..).zip(&partition.queue) {
                add(EntryKind::Queued, &|out| put_queued(out, handle, at, queued));
            }
            for nonce in &partition.nonces {
                add(EntryKind::Nonce, &|out| put_nonce(out, handle, *nonce));
            }
        }
        for account in &self.accounts {
            if account.rights.0 != 0 {
                add(EntryKind::Grant, &|out| {
                    put_grant(out, account.handle, account.tenant, account.rights.0)
                });
            }
        }
        // ORDER: whoever asks sorts the entries, or adds them up.
        for ((tenant, _), merchant) in &self.merchants {
            add(EntryKind::Merchant, &|out| put_merchant(out, TenantId(*tenant), merchant));
        }
        for (key, price) in &self.prices {
            add(EntryKind::Price, &|out| put_price(out, *key, price));
        }
        // ORDER: whoever asks sorts the entries, or adds them up.
        for ((account, merchant), value) in &self.open {
            let account = self.account(*account);
            let owner = (account.handle, account.tenant);
            add(EntryKind::Open, &|out| put_open(out, owner, MerchantId(*merchant), *value));
        }
        entries
    }

    fn lock_entry(&self, slot: u32) -> Entry {
        let lock = self.locks.get(slot);
        let mut entry = Entry::new(EntryKind::Lock);
        let out = &mut entry.bytes;
        let key = self.entry_key(lock.account, lock.id);
        put_key(out, key.tenant, key.partition, key.id);
        lock.put(out);
        let has_ext = lock.ext != crate::slab::NONE;
        has_ext.put(out);
        if has_ext {
            self.exts.get(lock.ext).put(out);
        }
        let captures: Vec<u32> = self.capture_slots(lock).collect();
        captures.iter().rev().for_each(|slot| self.captures.get(*slot).put(out));
        entry
    }

    fn op_entry(&self, slot: u32) -> Entry {
        let op = self.ops.get(slot);
        let mut entry = Entry::new(EntryKind::Op);
        let out = &mut entry.bytes;
        let key = self.entry_key(op.account, op.id());
        put_key(out, key.tenant, key.partition, key.id);
        op.put(out);
        if op.memo.has_side() {
            self.sides.get(op.side).put_for(op.memo, out);
        }
        entry
    }

    pub(crate) fn entry_key(&self, account: u32, id: u128) -> EntryKey {
        let account = self.account(account);
        EntryKey { tenant: account.tenant, partition: account.handle, id: Id(id) }
    }

    pub(crate) fn tenant_hash(&self, tenant: &Tenant) -> u128 {
        hash_of(EntryKind::Tenant, |out| put_tenant(out, &tenant.quotas))
    }

    pub(crate) fn grant_hash(&self, account: u32) -> u128 {
        let account = self.account(account);
        hash_of(EntryKind::Grant, |out| put_grant(out, account.handle, account.tenant, account.rights.0))
    }

    pub(crate) fn merchant_hash(&self, tenant: TenantId, body: &MerchantBody) -> u128 {
        hash_of(EntryKind::Merchant, |out| put_merchant(out, tenant, body))
    }

    pub(crate) fn price_hash(&self, key: (AssetId, QuoteId), price: &Price) -> u128 {
        hash_of(EntryKind::Price, |out| put_price(out, key, price))
    }

    pub(crate) fn position_hash(&self, slot: u32, supplier: &Address, position: &Position) -> u128 {
        hash_of(EntryKind::Position, |out| put_position(out, self.handle_of(slot), supplier, position))
    }

    pub(crate) fn queued_hash(&self, slot: u32, at: u64, queued: &Queued) -> u128 {
        hash_of(EntryKind::Queued, |out| put_queued(out, self.handle_of(slot), at, queued))
    }

    pub(crate) fn nonce_hash(&self, slot: u32, nonce: u64) -> u128 {
        hash_of(EntryKind::Nonce, |out| put_nonce(out, self.handle_of(slot), nonce))
    }

    pub(crate) fn open_hash(&self, account: u32, merchant: MerchantId, value: u128) -> u128 {
        let account = self.account(account);
        hash_of(EntryKind::Open, |out| put_open(out, (account.handle, account.tenant), merchant, value))
    }

    pub(crate) fn loss_hash(&self, loss: &Loss) -> u128 {
        hash_of(EntryKind::Loss, |out| loss.put(out))
    }

    pub(crate) fn unreconciled_hash(&self, slot: u32) -> u128 {
        unreconciled_hash(self.handle_of(slot))
    }

    fn handle_of(&self, slot: u32) -> PartitionHandle {
        self.partitions[slot as usize].handle
    }
}

fn put_tenant(out: &mut impl Sink, quotas: &TenantBody) {
    quotas.tenant.0.put_in_key(out);
    out.bytes(&quotas.to_bytes());
}

fn put_grant(out: &mut impl Sink, partition: PartitionHandle, tenant: TenantId, rights: u32) {
    partition.0.put_in_key(out);
    tenant.0.put_in_key(out);
    rights.put(out);
}

fn put_merchant(out: &mut impl Sink, tenant: TenantId, body: &MerchantBody) {
    tenant.0.put_in_key(out);
    body.merchant.0.put_in_key(out);
    out.bytes(&body.to_bytes());
}

fn put_price(out: &mut impl Sink, key: (AssetId, QuoteId), price: &Price) {
    key.0.0.put_in_key(out);
    key.1.0.put_in_key(out);
    price.put(out);
}

fn put_position(out: &mut impl Sink, partition: PartitionHandle, supplier: &Address, position: &Position) {
    partition.0.put_in_key(out);
    supplier.put(out);
    position.put(out);
}

fn put_queued(out: &mut impl Sink, partition: PartitionHandle, at: u64, queued: &Queued) {
    partition.0.put_in_key(out);
    at.put_in_key(out);
    queued.put(out);
}

fn put_nonce(out: &mut impl Sink, partition: PartitionHandle, nonce: u64) {
    partition.0.put_in_key(out);
    nonce.put_in_key(out);
}

fn put_open(out: &mut impl Sink, owner: (PartitionHandle, TenantId), merchant: MerchantId, value: u128) {
    owner.0.0.put_in_key(out);
    owner.1.0.put_in_key(out);
    merchant.0.put_in_key(out);
    value.put(out);
}

fn unreconciled_hash(partition: PartitionHandle) -> u128 {
    hash_of(EntryKind::Unreconciled, |out| partition.0.put_in_key(out))
}

fn hash_of(kind: EntryKind, write: impl FnOnce(&mut WordHash)) -> u128 {
    let mut canon = WordHash::new();
    canon.number(kind as u64, 1);
    write(&mut canon);
    canon.finish()
}

/// The hash of everything but locks and ids, from scratch.
pub(crate) fn small_hash(ledger: &Ledger) -> u128 {
    let partitions = ledger.partitions.iter().skip(1).map(partition_hash);
    let others = ledger
        .small_entries()
        .into_iter()
        .chain(ledger.entries_of_losses())
        .filter(|entry| entry.kind() != EntryKind::Partition)
        .map(|entry| entry.hash());
    partitions.chain(others).fold(0, u128::wrapping_add)
}

impl EntryKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Tenant,
        Self::Partition,
        Self::Grant,
        Self::Merchant,
        Self::Price,
        Self::Position,
        Self::Queued,
        Self::Nonce,
        Self::Open,
        Self::Lock,
        Self::Op,
        Self::Loss,
        Self::Unreconciled,
    ];

    /// Reads a kind byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}
