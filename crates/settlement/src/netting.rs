//! Netting: thousands of records become one change for each partition, payee and supplier that they touched.
//!
//! Shards are read in any interleaving; what a batch says depends only on how far each of them was read.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use surety_protocol::{
    Address, Code, ConsumeBody, Kind, MerchantBody, MerchantId, PartitionHandle, Record, Seq, ShardId,
    StakeBody, TenantId, Time,
};

use crate::batch::Positions;
use crate::book::Book;
use crate::bytes::{Reader, Truncated, Writer};
use crate::certificate::CertifiedLock;
use crate::data::BatchData;
use crate::hash::{Hash, keccak};
use crate::leaf::{ConsumedLeaf, LockId, PartitionLeaf, PayeeLeaf, SupplierLeaf};
use crate::money::Money;

/// What the netting of an engine is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NettingConfig {
    /// Shards of the engine.
    pub shards: u16,
    /// Whose hash with a partition's id is the salt of its leaf.
    pub salt_key: Hash,
    /// How long after its deadline a certificate may still be called or disputed: at least what policies allow captures to
    /// be settled by, their claim margin, and the contract's dispute window.
    pub claim_span: Time,
}

/// Why a stream cannot be netted. Nothing is settled on top of it: the settler halts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NettingError {
    /// A shard that the engine does not have.
    #[error("a record of shard {0}, which is not there")]
    UnknownShard(ShardId),
    /// Records are missing or come again.
    #[error("seq {found} of shard {shard}, expected {expected}")]
    OutOfTurn {
        /// The shard.
        shard: ShardId,
        /// What is next.
        expected: Seq,
        /// What came.
        found: Seq,
    },
    /// A record moves money of a partition that was never made, or is another shard's.
    #[error("seq {1} of partition {0}, which the stream has not made")]
    UnknownPartition(PartitionHandle, Seq),
    /// Two handles for one on-chain id: their balances on chain would be one.
    #[error("partition {0} has the on-chain id of another")]
    SharedPartition(PartitionHandle),
    /// The quantities would be negative, overflow, or break the identity.
    #[error("seq {1} of partition {0} does not add up")]
    Unbalanced(PartitionHandle, Seq),
}

/// A partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Partition {
    money: Money,
    /// Published credits of its payees, ever.
    credited: u128,
    /// Owed to payees, not published yet: beyond the payout limit, or their address is not known.
    unpublished: u128,
    /// Guarantees that the ledger has booked, ever.
    guaranteed: u128,
    exits: u128,
    exit_nonce: u64,
    units: u128,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Supplier {
    units: u128,
    paid_out: u128,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Payee {
    /// Published.
    credit: u128,
    /// Owed beyond it.
    owed: u128,
}

type PayeeKey = (PartitionHandle, Address);

/// The sums of everything that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netting {
    config: NettingConfig,
    positions: Positions,
    /// Records since the last batch.
    count: u32,
    book: Book,
    partitions: BTreeMap<PartitionHandle, Partition>,
    /// By on-chain id.
    handles: BTreeMap<Hash, PartitionHandle>,
    suppliers: BTreeMap<PayeeKey, Supplier>,
    payees: BTreeMap<PayeeKey, Payee>,
    /// Owed to merchants whose payee is not known.
    unnamed: BTreeMap<(PartitionHandle, TenantId, MerchantId), u128>,
    /// Payees that an earlier batch could not credit whole; they come first.
    carried: BTreeSet<PayeeKey>,
    /// Payees owed something since.
    fresh: BTreeSet<PayeeKey>,
    changed_partitions: BTreeSet<PartitionHandle>,
    changed_suppliers: BTreeSet<PayeeKey>,
}

/// What a batch changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    pub(crate) data: BatchData,
    pub(crate) count: u32,
    /// What the batch credits, for each partition: the ledger books it when the batch is final.
    pub(crate) finals: Vec<(PartitionHandle, u128)>,
    pub(crate) guaranteed: u128,
}

impl Netting {
    /// Nothing read yet.
    #[must_use]
    pub fn new(config: NettingConfig) -> Self {
        Self {
            config,
            positions: Positions(vec![Seq(0); usize::from(config.shards)]),
            count: 0,
            book: Book::default(),
            partitions: BTreeMap::new(),
            handles: BTreeMap::new(),
            suppliers: BTreeMap::new(),
            payees: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            carried: BTreeSet::new(),
            fresh: BTreeSet::new(),
            changed_partitions: BTreeSet::new(),
            changed_suppliers: BTreeSet::new(),
        }
    }

    /// How far each shard was read.
    #[must_use]
    pub const fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Records since the last batch.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Owed to payees and not published yet, in base units: what waits for the next batch.
    #[must_use]
    pub fn unpublished(&self) -> u128 {
        self.partitions.values().map(|partition| partition.unpublished).sum()
    }

    /// The quantities of a partition.
    #[must_use]
    pub fn money(&self, partition: PartitionHandle) -> Option<Money> {
        self.partitions.get(&partition).map(|partition| partition.money)
    }

    /// All partitions and their quantities, in order.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionHandle, Money)> + '_ {
        self.partitions.iter().map(|(handle, partition)| (*handle, partition.money))
    }

    /// Takes the next synced record of a shard. Returns what is to be certified, if the record made or changed a certified lock.
    ///
    /// # Errors
    /// The stream is not one that a ledger writes. What was netted is then worth nothing.
    pub fn read(
        &mut self,
        shard: ShardId,
        seq: Seq,
        record: &Record,
    ) -> Result<Option<CertifiedLock>, NettingError> {
        let position = self.positions.0.get_mut(usize::from(shard.0));
        let position = position.ok_or(NettingError::UnknownShard(shard))?;
        let expected = position.next();
        if seq != expected {
            return Err(NettingError::OutOfTurn { shard, expected, found: seq });
        }
        *position = seq;
        self.count = self.count.saturating_add(1);
        let statement = self.book.read(shard, seq, record);
        let Some(kind) = record.kind().filter(|kind| *kind != Kind::Continuation) else { return Ok(None) };
        let is_success = record.code().is_some_and(Code::is_success);
        if kind == Kind::Withdraw && record.code() != Some(Code::Frozen) {
            self.answer_exit(record);
        }
        match kind {
            _ if !is_success => {}
            Kind::PartitionCreate => self.make(record.partition)?,
            Kind::MerchantSet => self.name_payee(shard, record),
            Kind::Start | Kind::Checkpoint | Kind::Price | Kind::TenantSet => {}
            _ if record.partition.number() == 0 => {}
            _ => self.move_money(shard, seq, kind, record)?,
        }
        Ok(statement)
    }

    fn make(&mut self, partition: PartitionHandle) -> Result<(), NettingError> {
        let onchain = self.onchain(partition);
        if *self.handles.entry(onchain).or_insert(partition) != partition {
            return Err(NettingError::SharedPartition(partition));
        }
        self.partitions.entry(partition).or_default();
        self.changed_partitions.insert(partition);
        Ok(())
    }

    /// The highest number of an exit that was paid, queued or refused. A frozen partition answers nothing.
    fn answer_exit(&mut self, record: &Record) {
        let StakeBody { nonce, .. } = record.body();
        if let Some(partition) = self.partitions.get_mut(&record.partition)
            && nonce > partition.exit_nonce
        {
            partition.exit_nonce = nonce;
            self.changed_partitions.insert(record.partition);
        }
    }

    fn move_money(
        &mut self,
        shard: ShardId,
        seq: Seq,
        kind: Kind,
        record: &Record,
    ) -> Result<(), NettingError> {
        let handle = record.partition;
        let unknown = NettingError::UnknownPartition(handle, seq);
        let partition =
            self.partitions.get_mut(&handle).filter(|_| handle.shard() == shard).ok_or(unknown)?;
        let before = partition.money;
        partition.money = before.after(kind, record).ok_or(NettingError::Unbalanced(handle, seq))?;
        self.changed_partitions.insert(handle);
        match kind {
            Kind::Consume | Kind::AutoConsume => self.owe_merchant(shard, record),
            Kind::Deposit => self.mint(record, before.equity()),
            Kind::Withdraw | Kind::WithdrawPaid => {
                self.pay_out(record).ok_or(NettingError::Unbalanced(handle, seq))?;
            }
            Kind::GuaranteePaid => partition.guaranteed += record.amount.0,
            _ => {}
        }
        Ok(())
    }

    /// A certified lock pays whom its certificate names, any other whom the directory names now.
    fn owe_merchant(&mut self, shard: ShardId, record: &Record) {
        let ConsumeBody { lock, merchant, .. } = record.body();
        let amount = record.result.0;
        let lock = LockId { tenant: record.tenant, partition: record.partition, id: lock };
        let payee = if let Some(kept) = self.book.certified.get_mut(&lock) {
            kept.consumed += amount;
            Some(kept.newest.payee)
        } else {
            self.book.payee((shard, record.tenant, merchant))
        };
        match payee {
            Some(payee) => self.owe(record.partition, payee, amount),
            None => {
                *self.unnamed.entry((record.partition, record.tenant, merchant)).or_default() += amount;
                self.partition(record.partition).unpublished += amount;
            }
        }
    }

    fn owe(&mut self, partition: PartitionHandle, payee: Address, amount: u128) {
        if amount == 0 {
            return;
        }
        let key = (partition, payee);
        self.payees.entry(key).or_default().owed += amount;
        self.partition(partition).unpublished += amount;
        if !self.carried.contains(&key) {
            self.fresh.insert(key);
        }
    }

    /// What was owed to a merchant without an address goes to the one that it has now.
    fn name_payee(&mut self, shard: ShardId, record: &Record) {
        let MerchantBody { merchant, .. } = record.body();
        let Some(payee) = self.book.payee((shard, record.tenant, merchant)) else { return };
        let is_meant = |(partition, tenant, name): &(PartitionHandle, TenantId, MerchantId)| {
            partition.shard() == shard && *tenant == record.tenant && *name == merchant
        };
        let waiting: Vec<_> = self.unnamed.extract_if(.., |key, _| is_meant(key)).collect();
        for ((partition, ..), amount) in waiting {
            self.partition(partition).unpublished -= amount;
            self.owe(partition, payee, amount);
        }
    }

    fn mint(&mut self, record: &Record, equity_before: u128) {
        let StakeBody { units, supplier, .. } = record.body();
        let handle = record.partition;
        if equity_before == 0 && self.partition(handle).units > 0 {
            // The old units are worth nothing: a new generation begins.
            self.partition(handle).units = 0;
            let all = (handle, Address([0; 20]))..=(handle, Address([0xff; 20]));
            for (key, supplier) in self.suppliers.range_mut(all) {
                supplier.units = 0;
                self.changed_suppliers.insert(*key);
            }
        }
        self.partition(handle).units += units;
        self.suppliers.entry((handle, supplier)).or_default().units += units;
        self.changed_suppliers.insert((handle, supplier));
    }

    fn pay_out(&mut self, record: &Record) -> Option<()> {
        let StakeBody { units, supplier, .. } = record.body();
        let (handle, amount) = (record.partition, record.result.0);
        let partition = self.partition(handle);
        partition.units = partition.units.checked_sub(units)?;
        partition.exits += amount;
        if units == 0 && amount == 0 {
            // Queued: nothing has happened yet.
            return Some(());
        }
        let position = self.suppliers.get_mut(&(handle, supplier))?;
        position.units = position.units.checked_sub(units)?;
        position.paid_out += amount;
        self.changed_suppliers.insert((handle, supplier));
        self.owe(handle, supplier, amount);
        Some(())
    }

    /// Of a partition that was looked up before.
    fn partition(&mut self, handle: PartitionHandle) -> &mut Partition {
        self.partitions.entry(handle).or_default()
    }
}

/// Closing a batch.
impl Netting {
    /// Takes what has changed since the last batch, with at most `credit_max` of new credit; the rest is carried over, and
    /// what was carried over before comes first.
    pub(crate) fn close(&mut self, credit_max: u128) -> Net {
        let payees = self.publish(credit_max);
        let mut finals: BTreeMap<PartitionHandle, u128> = BTreeMap::new();
        for ((handle, _), amount) in &payees {
            *finals.entry(*handle).or_default() += amount;
            self.changed_partitions.insert(*handle);
        }
        self.book.forget(self.config.claim_span);
        let mut data = BatchData {
            positions: self.positions.clone(),
            partitions: core::mem::take(&mut self.changed_partitions)
                .iter()
                .map(|handle| self.partition_leaf(*handle))
                .collect(),
            payees: payees.keys().map(|key| self.payee_leaf(*key)).collect(),
            suppliers: core::mem::take(&mut self.changed_suppliers)
                .iter()
                .map(|key| self.supplier_leaf(*key))
                .collect(),
            consumed: self.consumed(),
        };
        data.partitions.sort_by_key(|leaf| leaf.partition);
        data.payees.sort_by_key(|leaf| (leaf.partition, leaf.payee));
        data.suppliers.sort_by_key(|leaf| (leaf.partition, leaf.supplier));
        data.consumed.sort_by_key(|leaf| leaf.lock);
        Net {
            data,
            count: core::mem::take(&mut self.count),
            finals: finals.into_iter().collect(),
            guaranteed: self.partitions.values().map(|partition| partition.guaranteed).sum(),
        }
    }

    /// Credits what is owed, as far as the limit reaches. Returns who got what.
    fn publish(&mut self, credit_max: u128) -> BTreeMap<PayeeKey, u128> {
        let mut left = credit_max;
        let mut credited = BTreeMap::new();
        if self.pay_carried(&mut left, &mut credited) {
            self.carried = core::mem::take(&mut self.fresh);
            self.pay_carried(&mut left, &mut credited);
        }
        credited
    }

    /// Credits those who were carried over, in order. True if all of them got everything.
    fn pay_carried(&mut self, left: &mut u128, credited: &mut BTreeMap<PayeeKey, u128>) -> bool {
        while let Some(key) = self.carried.first().copied() {
            let payee = self.payees.entry(key).or_default();
            let amount = payee.owed.min(*left);
            if amount > 0 {
                *left -= amount;
                payee.owed -= amount;
                payee.credit += amount;
                *credited.entry(key).or_default() += amount;
                let is_paid = payee.owed == 0;
                let partition = self.partition(key.0);
                partition.unpublished -= amount;
                partition.credited += amount;
                if !is_paid {
                    return false;
                }
            } else if payee.owed > 0 {
                return false;
            }
            self.carried.pop_first();
        }
        true
    }

    fn onchain(&self, handle: PartitionHandle) -> Hash {
        self.book.home(handle).map(|home| home.onchain).unwrap_or_default()
    }

    fn partition_leaf(&self, handle: PartitionHandle) -> PartitionLeaf {
        let id = self.onchain(handle);
        let partition = self.partitions.get(&handle).copied().unwrap_or_default();
        PartitionLeaf {
            partition: id,
            locked: partition.money.locked + partition.unpublished,
            debit: partition.credited + partition.guaranteed,
            exits: partition.exits,
            exit_nonce: partition.exit_nonce,
            units: partition.units,
            salt: keccak(&[&self.config.salt_key, &id]),
        }
    }

    fn payee_leaf(&self, key: PayeeKey) -> PayeeLeaf {
        let credit = self.payees.get(&key).map_or(0, |payee| payee.credit);
        PayeeLeaf { partition: self.onchain(key.0), payee: key.1, credit }
    }

    fn supplier_leaf(&self, key: PayeeKey) -> SupplierLeaf {
        let Supplier { units, paid_out } = self.suppliers.get(&key).copied().unwrap_or_default();
        SupplierLeaf { partition: self.onchain(key.0), supplier: key.1, units, paid_out }
    }

    /// What was consumed of a lock counts as paid once nothing is owed to its payee beyond what is published.
    fn consumed(&mut self) -> Vec<ConsumedLeaf> {
        let mut leaves = Vec::new();
        for (lock, kept) in self.book.certified.iter_mut().filter(|(_, kept)| kept.consumed > 0) {
            let payee = kept.newest.payee;
            if self.payees.get(&(lock.partition, payee)).is_none_or(|payee| payee.owed == 0) {
                kept.credited = kept.consumed;
            }
            if kept.credited > 0 {
                let (partition, amount) = (kept.newest.partition, kept.credited);
                leaves.push(ConsumedLeaf { lock: *lock, partition, payee, amount });
            }
        }
        leaves
    }
}

/// The netting's part of a snapshot. The configuration is not in it.
impl Netting {
    pub(crate) fn write(&self, to: &mut Writer) {
        self.positions.write(to);
        to.u32(self.count);
        self.book.write(to);
        to.map(&self.partitions, |to, handle, partition| {
            to.u64(handle.0);
            partition.write(to);
        });
        to.map(&self.suppliers, |to, key, supplier| {
            write_key(to, key);
            to.u128(supplier.units).u128(supplier.paid_out);
        });
        to.map(&self.payees, |to, key, payee| {
            write_key(to, key);
            to.u128(payee.credit).u128(payee.owed);
        });
        to.map(&self.unnamed, |to, (partition, tenant, merchant), amount| {
            to.u64(partition.0).u32(tenant.0).u64(merchant.0).u128(*amount);
        });
        for set in [&self.carried, &self.fresh, &self.changed_suppliers] {
            to.list(set.iter(), write_key);
        }
        to.list(self.changed_partitions.iter(), |to, handle| _ = to.u64(handle.0));
    }

    pub(crate) fn read_from(config: NettingConfig, from: &mut Reader<'_>) -> Result<Self, Truncated> {
        let positions = Positions::read(from)?;
        if positions.0.len() != usize::from(config.shards) {
            return Err(Truncated);
        }
        let count = from.u32()?;
        let book = Book::read_from(from)?;
        Ok(Self {
            config,
            positions,
            count,
            handles: book.homes().map(|(handle, home)| (home.onchain, *handle)).collect(),
            book,
            partitions: from.map(|from| Ok((PartitionHandle(from.u64()?), Partition::read(from)?)))?,
            suppliers: from.map(|from| {
                let key = read_key(from)?;
                Ok((key, Supplier { units: from.u128()?, paid_out: from.u128()? }))
            })?,
            payees: from.map(|from| {
                let key = read_key(from)?;
                Ok((key, Payee { credit: from.u128()?, owed: from.u128()? }))
            })?,
            unnamed: from.map(|from| {
                let name = (PartitionHandle(from.u64()?), TenantId(from.u32()?), MerchantId(from.u64()?));
                Ok((name, from.u128()?))
            })?,
            carried: read_keys(from)?,
            fresh: read_keys(from)?,
            changed_suppliers: read_keys(from)?,
            changed_partitions: from
                .list(|from| from.u64().map(PartitionHandle))?
                .into_iter()
                .collect::<BTreeSet<_>>(),
        })
    }
}

impl Partition {
    fn write(&self, to: &mut Writer) {
        let Money { on_chain, deficit, free, locked, owed, exposure } = self.money;
        for amount in [on_chain, deficit, free, locked, owed, exposure] {
            to.u128(amount);
        }
        for amount in [self.credited, self.unpublished, self.guaranteed, self.exits, self.units] {
            to.u128(amount);
        }
        to.u64(self.exit_nonce);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Truncated> {
        let money = Money {
            on_chain: from.u128()?,
            deficit: from.u128()?,
            free: from.u128()?,
            locked: from.u128()?,
            owed: from.u128()?,
            exposure: from.u128()?,
        };
        let (credited, unpublished, guaranteed) = (from.u128()?, from.u128()?, from.u128()?);
        let (exits, units, exit_nonce) = (from.u128()?, from.u128()?, from.u64()?);
        Ok(Self { money, credited, unpublished, guaranteed, exits, exit_nonce, units })
    }
}

fn write_key(to: &mut Writer, key: &PayeeKey) {
    to.u64(key.0.0).raw(&key.1.0);
}

fn read_key(from: &mut Reader<'_>) -> Result<PayeeKey, Truncated> {
    Ok((PartitionHandle(from.u64()?), Address(from.array()?)))
}

fn read_keys(from: &mut Reader<'_>) -> Result<BTreeSet<PayeeKey>, Truncated> {
    Ok(from.list(read_key)?.into_iter().collect())
}
