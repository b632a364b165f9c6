//! Netting: thousands of records become one change for each partition, payee and supplier that they touched.
//!
//! Shards are read in any interleaving; what a batch says depends only on how far each of them was read.

mod close;
mod snapshot;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use ruint::aliases::U256;
use surety_protocol::{
    Address, Code, ConsumeBody, ControlBody, Kind, MerchantBody, MerchantId, PartitionHandle, Record, Seq,
    ShardId, StakeBody, TenantId, Time, sabotage,
};

use crate::batch::Positions;
use crate::book::{Book, Released};
use crate::certificate::CertifiedLock;
use crate::hash::Hash;
use crate::leaf::LockId;
use crate::money::Money;

/// Units that nobody owns, and the base unit that nobody put in, as the ledger has them.
const VIRTUAL_UNITS: u128 = 1_000_000;

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

/// Why less than a certificate states is owed for a lock, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// What batches have credited for the lock, in base units.
    pub credited: u128,
    /// What its merchant has let go of.
    pub released: Option<Released>,
}

/// How a supplier stands in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stake {
    /// Its units, those that wait to leave included.
    pub units: u128,
    /// The part of them that waits to leave.
    pub queued: u128,
    /// What the units are worth, rounded down, in base units.
    pub value: u128,
    /// All that was ever withdrawn, in base units.
    pub paid_out: u128,
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
    /// The part of them that waits to leave.
    queued: u128,
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
    /// What was paid on chain for no lock of ours and is booked, by reference.
    losses: BTreeSet<(PartitionHandle, u128)>,
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
            losses: BTreeSet::new(),
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

    /// The part of it whose payees are known: what a batch can credit, as far as the payout limit reaches.
    #[must_use]
    pub fn publishable(&self) -> u128 {
        self.unpublished().saturating_sub(self.unnamed.values().sum())
    }

    /// Leaves that the next batch has at least, but for those that were carried over.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.changed_partitions.len() + self.changed_suppliers.len() + self.fresh.len()
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

    /// The partition with this on-chain id.
    #[must_use]
    pub fn handle(&self, onchain: &Hash) -> Option<PartitionHandle> {
        self.handles.get(onchain).copied()
    }

    /// The on-chain id of a partition.
    #[must_use]
    pub fn onchain_of(&self, partition: PartitionHandle) -> Option<Hash> {
        self.book.home(partition).map(|home| home.onchain)
    }

    /// How a supplier stands; all 0 for whoever was never one.
    #[must_use]
    pub fn stake(&self, partition: PartitionHandle, supplier: Address) -> Stake {
        let Some(position) = self.suppliers.get(&(partition, supplier)) else { return Stake::default() };
        let all = self.partitions.get(&partition).copied().unwrap_or_default();
        let equity = all.money.equity();
        let worth = U256::from(position.units) * (U256::from(equity) + U256::from(1))
            / U256::from(all.units.saturating_add(VIRTUAL_UNITS));
        Stake {
            units: position.units,
            queued: position.queued,
            value: u128::try_from(worth).unwrap_or(u128::MAX).min(equity),
            paid_out: position.paid_out,
        }
    }

    /// Units of a supplier, those that wait to leave included.
    #[must_use]
    pub fn units(&self, partition: PartitionHandle, supplier: Address) -> u128 {
        self.suppliers.get(&(partition, supplier)).map_or(0, |supplier| supplier.units)
    }

    /// Units of a supplier that do not wait to leave already: what can still be asked to.
    #[must_use]
    pub fn units_to_ask(&self, partition: PartitionHandle, supplier: Address) -> u128 {
        let supplier = self.suppliers.get(&(partition, supplier)).copied().unwrap_or_default();
        supplier.units.saturating_sub(supplier.queued)
    }

    /// The highest number of a requested exit that the ledger has answered.
    #[must_use]
    pub fn exit_nonce(&self, partition: PartitionHandle) -> u64 {
        self.partitions.get(&partition).map_or(0, |partition| partition.exit_nonce)
    }

    /// The newest statement about a certified lock whose certificate can still be called.
    #[must_use]
    pub fn certified(&self, lock: &LockId) -> Option<CertifiedLock> {
        self.book.certified.get(lock).map(|kept| kept.newest)
    }

    /// What can be said to a call of a certified lock that can still be called.
    #[must_use]
    pub fn answers(&self, lock: &LockId) -> Option<Answers> {
        let kept = self.book.certified.get(lock)?;
        Some(Answers { credited: kept.credited, released: kept.released })
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
        if sabotage!("change-at-a-batchs-edge-dropped") && self.count == 1 {
            return Ok(None);
        }
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
            Kind::Start | Kind::Loss | Kind::Checkpoint | Kind::Price | Kind::TenantSet => {}
            _ if record.partition.number() == 0 => {}
            _ => self.move_money(shard, seq, kind, record)?,
        }
        Ok(statement)
    }

    /// Forgets certified locks whose certificates can no longer be called. Batches do so by themselves.
    pub(crate) fn forget_ended(&mut self) {
        self.book.forget(self.config.claim_span);
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
            // Paid on chain for no lock of ours, once, however often it is booked; see `loss_reference`.
            Kind::Deficit if record.body::<ControlBody>().reference != 0 => {
                let is_new = self.losses.insert((handle, record.body::<ControlBody>().reference));
                if is_new || sabotage!("loss-acknowledged-twice") {
                    partition.guaranteed += record.amount.0;
                }
            }
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
                (supplier.units, supplier.queued) = (0, 0);
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
            self.suppliers.get_mut(&(handle, supplier))?.queued += record.amount.0;
            return Some(());
        }
        let position = self.suppliers.get_mut(&(handle, supplier))?;
        position.units = position.units.checked_sub(units)?;
        if record.kind() == Some(Kind::WithdrawPaid) {
            position.queued = position.queued.checked_sub(units)?;
        }
        position.paid_out += amount;
        self.changed_suppliers.insert((handle, supplier));
        self.owe(handle, supplier, amount);
        Some(())
    }

    fn onchain(&self, handle: PartitionHandle) -> Hash {
        self.book.home(handle).map(|home| home.onchain).unwrap_or_default()
    }

    /// Of a partition that was looked up before.
    fn partition(&mut self, handle: PartitionHandle) -> &mut Partition {
        self.partitions.entry(handle).or_default()
    }
}
