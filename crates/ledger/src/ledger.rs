//! The ledger: its tables, the few primitives through which they change, and what the engine calls of it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;

use surety_protocol::limits::CAPTURES_PER_LOCK_MAX;
use surety_protocol::{
    Amount, AssetId, Caller, Code, End, Epoch, Id, Kind, MerchantBody, MerchantId, MerchantKey,
    PartitionHandle, QuoteId, Record, Reply, Rights, Seq, ShardId, TenantBody, TenantId, Time, UNRECONCILED,
    sabotage,
};

use crate::canon::{Sink, WordHash, put_key};
use crate::decide::{Outcome, Source};
use crate::index::{Found, Index};
use crate::lock::{Armed, Capture, Ext, Lock};
use crate::loss::Loss;
use crate::mix::Map;
use crate::op::{self, Op, Quota, Side};
use crate::partition::Partition;
use crate::ring::{Node, Ring};
use crate::slab::{NONE, Slab};
use crate::state::EntryKind;

/// The most internal records that [`Ledger::decide`] appends to `follow`.
pub const FOLLOW_MAX: usize = 64;

/// What a ledger is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which shard it is.
    pub shard: ShardId,
    /// How long ids are accepted and remembered. It may not change while a log lives: what is forgotten depends on it.
    pub id_window: Time,
    /// Ids remembered; past it requests are answered `OVERLOADED`.
    pub ids_max: usize,
    /// Locks kept; past it locks are answered `OVERLOADED`.
    pub locks_max: usize,
    /// Keys the hash under which ids are found, so that nobody can choose ids that are slow to find. It changes no outcome
    /// and no state hash; a random one for each start is best.
    pub index_secret: u64,
}

/// What new requests are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Intake {
    /// Everything.
    #[default]
    All,
    /// No locks and no increases: they are answered `STORAGE_LOW`.
    NoLocks,
    /// Nothing: everything new is answered `OVERLOADED`.
    Nothing,
    /// Nothing, since the caller's tenant has used up its requests per second: everything new is answered `QUOTA_RATE`.
    TooFast,
    /// Nothing, since too many requests of the caller's tenant are unanswered: everything new is answered `QUOTA_IN_FLIGHT`.
    TooManyInFlight,
}

/// What is to become of the records that were decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They go into the log, then `follow`; the replies wait for them.
    Logged,
    /// They are dropped; nothing has changed. Replies that show state (look-ups, repeats) wait for what is logged before.
    NotLogged,
}

/// A log that does not say what the ledger says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// The records cannot be an operation.
    #[error("record {seq}: not an operation of a log")]
    Shape {
        /// Where.
        seq: Seq,
    },
    /// The ledger would have decided otherwise.
    #[error("record {seq}: the log has {logged:?}, the ledger decides {decided:?}")]
    Outcome {
        /// Where.
        seq: Seq,
        /// As logged.
        logged: Box<Record>,
        /// As decided.
        decided: Box<Record>,
    },
    /// The ledger would not have logged it.
    #[error("record {seq}: the ledger answers {code} and logs nothing")]
    NotLogged {
        /// Where.
        seq: Seq,
        /// Its answer.
        code: Code,
    },
    /// An internal record that is not due, or a lock before what was due.
    #[error("record {seq}: {kind} is not what is due")]
    NotDue {
        /// Where.
        seq: Seq,
        /// What it is.
        kind: Kind,
    },
    /// A checkpoint of another state.
    #[error("record {seq}: the checkpoint has state hash {logged:032x}, the ledger {found:032x}")]
    Checkpoint {
        /// Where.
        seq: Seq,
        /// As logged.
        logged: u128,
        /// As found.
        found: u128,
    },
    /// The log was written with another window of ids.
    #[error("record {seq}: the log remembers ids for {} s, this ledger for {} s", logged.0 / 1_000_000_000, ours.0 / 1_000_000_000)]
    Window {
        /// Where.
        seq: Seq,
        /// As logged.
        logged: Time,
        /// As configured.
        ours: Time,
    },
    /// Time runs backwards.
    #[error("record {seq}: its time lies before the record before it")]
    Time {
        /// Where.
        seq: Seq,
    },
}

/// A tenant in a partition: what keys of locks and ids begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) tenant: TenantId,
    pub(crate) handle: PartitionHandle,
    pub(crate) partition: u32,
    pub(crate) tenant_slot: u32,
    pub(crate) rights: Rights,
}

/// A tenant: its quotas and what it uses of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenant {
    /// Set by a request; otherwise nobody has heard of it.
    pub(crate) is_set: bool,
    pub(crate) quotas: TenantBody,
    pub(crate) locks: u64,
    /// Of these the live ones.
    pub(crate) open_locks: u64,
    pub(crate) ids: u64,
    pub(crate) tombstones: u64,
    pub(crate) advices: u64,
}

impl Tenant {
    /// True if it may send requests. The operator needs no permission.
    #[inline]
    pub(crate) fn is_enabled(&self) -> bool {
        self.quotas.tenant == TenantId(0) || self.is_set && self.quotas.enabled == 1
    }

    /// Whether one more lock may be open.
    pub(crate) fn check_open_locks(&self) -> Result<(), Code> {
        let max = u64::from(self.quotas.open_locks_max);
        if max > 0 && self.open_locks >= max { Err(Code::QuotaOpenLocks) } else { Ok(()) }
    }

    /// Whether one more lock may be kept.
    pub(crate) fn check_locks(&self) -> Result<(), Code> {
        if self.locks >= self.quotas.locks_max { Err(Code::QuotaLocks) } else { Ok(()) }
    }

    /// Whether one more id may be remembered.
    pub(crate) fn check_ids(&self, quota: Quota) -> Result<(), Code> {
        let (used, max, code) = match quota {
            Quota::Ids => (self.ids, self.quotas.ids_max, Code::QuotaIds),
            Quota::Tombstones => (self.tombstones, self.quotas.tombstones_max, Code::QuotaTombstones),
            Quota::Advices => (self.advices, self.quotas.advices_max, Code::QuotaAdvices),
        };
        if used >= max { Err(code) } else { Ok(()) }
    }
}

/// The price of an asset in a quote currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Price {
    /// Quote base units for 10^18 collateral base units.
    pub(crate) price: u128,
    pub(crate) ratio_bps: u32,
    pub(crate) observed: Time,
    pub(crate) seq: Seq,
}

/// The state of one shard.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) config: Config,
    pub(crate) time: Time,
    pub(crate) index: Index,
    pub(crate) locks: Slab<Lock>,
    /// How many of them are live.
    pub(crate) live: usize,
    /// How many have ended by their deadline since this ledger was made; no state, it is only told.
    pub(crate) expired: u64,
    pub(crate) exts: Slab<Ext>,
    pub(crate) captures: Slab<Capture>,
    pub(crate) ops: Slab<Op>,
    pub(crate) sides: Slab<Side>,
    pub(crate) lock_ring: Ring,
    pub(crate) nodes: Slab<Node>,
    pub(crate) op_ring: Ring,
    /// Locks with something due: when, which id, which slot.
    pub(crate) due: BinaryHeap<Reverse<(Time, u128, u32)>>,
    /// Partitions whose oldest queued withdrawal is not yet due.
    pub(crate) unbonding: BinaryHeap<Reverse<(Time, u32)>>,
    /// Partitions whose oldest queued withdrawal is due.
    pub(crate) ready: Vec<u32>,
    /// Withdrawals that wait.
    pub(crate) queued: usize,
    /// The last `advance` could not do everything.
    pub(crate) is_behind: bool,
    pub(crate) intake: Intake,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) partition_slots: Map<u64, u32>,
    /// The same in order, and for each tenant the partitions that it may read: for pages of the state.
    pub(crate) partition_order: BTreeMap<PartitionHandle, u32>,
    pub(crate) readable: BTreeSet<(TenantId, PartitionHandle)>,
    /// By on-chain id.
    pub(crate) partition_names: Map<[u8; 32], u32>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) account_slots: Map<(u64, u32), u32>,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) tenant_slots: Map<u32, u32>,
    pub(crate) merchants: Map<(u32, u64), MerchantBody>,
    /// Open value of merchants, by account and number.
    pub(crate) open: Map<(u32, u64), u128>,
    pub(crate) prices: BTreeMap<(AssetId, QuoteId), Price>,
    /// What was lost and accepted, oldest first.
    pub(crate) losses: Vec<Loss>,
    /// The state hash, but for the partitions in `dirty`.
    pub(crate) sum: u128,
    pub(crate) dirty: Vec<u32>,
    /// A copy of the operation that is being replayed.
    pub(crate) scratch: Vec<Record>,
    pub(crate) scratch_replies: Vec<Reply>,
}

/// Records that [`Ledger::warm`] looks at together.
const WARM_MAX: usize = 64;

/// Slot of the shard itself, where requests that concern no partition are remembered.
pub(crate) const SHARD_SLOT: u32 = 0;

/// Milliseconds of the largest rings: the longest time until a lock or an id is looked at.
const LOCK_RING_MAX: usize = 1 << 16;
const OP_RING_MAX: usize = 1 << 17;

/// Milliseconds of a ring: more than the window of ids, so that most of them are looked at once, or the most.
fn ring_len(id_window: Time, most: usize) -> usize {
    let window_ms = usize::try_from(id_window.0 / 1_000_000).unwrap_or(most);
    (window_ms.min(most - 1) + 1).next_power_of_two().clamp(4096, most)
}

impl Ledger {
    /// An empty shard.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let shard = PartitionHandle::new(config.shard, 0);
        let mut ledger = Self {
            config,
            time: Time::ZERO,
            index: Index::new(config.index_secret),
            locks: Slab::new(),
            live: 0,
            expired: 0,
            exts: Slab::new(),
            captures: Slab::new(),
            ops: Slab::new(),
            sides: Slab::new(),
            lock_ring: Ring::new(ring_len(config.id_window, LOCK_RING_MAX)),
            nodes: Slab::new(),
            op_ring: Ring::new(ring_len(config.id_window, OP_RING_MAX)),
            due: BinaryHeap::new(),
            unbonding: BinaryHeap::new(),
            ready: Vec::new(),
            queued: 0,
            is_behind: false,
            intake: Intake::default(),
            partitions: Vec::new(),
            partition_slots: Map::default(),
            partition_order: BTreeMap::new(),
            readable: BTreeSet::new(),
            partition_names: Map::default(),
            accounts: Vec::new(),
            account_slots: Map::default(),
            tenants: Vec::new(),
            tenant_slots: Map::default(),
            merchants: Map::default(),
            open: Map::default(),
            prices: BTreeMap::new(),
            losses: Vec::new(),
            sum: 0,
            dirty: Vec::new(),
            scratch: Vec::new(),
            scratch_replies: Vec::new(),
        };
        ledger.add_partition(Partition::new(shard));
        ledger
    }

    /// Takes the memory of so many locks and remembered ids now, so that deciding waits for none until there are more of them.
    pub fn reserve(&mut self, locks: usize, ids: usize) {
        self.locks.reserve(locks, Lock::EMPTY);
        self.nodes.reserve(locks, Node::new(NONE));
        self.captures.reserve(locks, Capture::default());
        self.ops.reserve(ids, Op::new(0, 0, Kind::Lookup, Code::None, Seq(0)));
        self.index.reserve(locks + ids);
    }

    /// What new requests are let in from now on. Repeats and look-ups are answered in any case: a refusal says "not executed",
    /// and of a repeat that would be untrue.
    pub const fn set_intake(&mut self, intake: Intake) {
        self.intake = intake;
    }

    /// Time moves on. Forgets what is past its window; appends the records that are now due, already applied, in order of
    /// deadline, then id, at most [`surety_protocol::limits::DUE_RECORDS_PER_TURN_MAX`]. True if more are due: then locks
    /// are answered `OVERLOADED` until a later call returns false.
    pub fn advance(&mut self, now: Time, next_seq: Seq, out: &mut Vec<Record>) -> bool {
        self.tick(now);
        self.is_behind = self.log_what_is_due(next_seq, out);
        self.is_behind
    }

    /// Decides one operation (as [`surety_protocol::Operations`] groups them, passed by [`surety_protocol::admit`]), completes
    /// its records, appends one reply per request and, if it is to be logged, at most [`FOLLOW_MAX`] internal records that
    /// follow it, already applied.
    pub fn decide(
        &mut self,
        now: Time,
        caller: &Caller,
        first_seq: Seq,
        records: &mut [Record],
        replies: &mut Vec<Reply>,
        follow: &mut Vec<Record>,
    ) -> Decision {
        self.tick(now);
        let from = replies.len();
        let decision = self.decide_operation(Source::Live(caller), first_seq, records, replies);
        if decision == Decision::Logged && self.queued > 0 {
            self.pay_what_became_due(records, follow);
        }
        debug_assert!(replies.len() > from, "every request is answered");
        decision
    }

    /// When [`Ledger::advance`] will have something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        if !self.due.is_empty() || !self.ready.is_empty() && self.is_behind {
            return Some(self.time);
        }
        let lock = self.lock_ring.next().map(Time::from_millis);
        let withdrawal = self.unbonding.peek().map(|Reverse((due, _))| *due);
        // Ids are forgotten on the way of any request; when there is none, once a second is enough.
        let id = self.op_ring.next().map(|ms| Time::from_millis(ms).plus(Time::from_secs(1)));
        [lock, withdrawal, id].into_iter().flatten().min()
    }

    /// Makes the record that states the state hash; it changes nothing.
    pub fn checkpoint(&mut self, now: Time) -> Record {
        self.tick(now);
        self.clean();
        let body =
            surety_protocol::ControlBody { reference: self.sum, ..surety_protocol::ControlBody::default() };
        let shard = PartitionHandle::new(self.config.shard, 0);
        let mut record = Record::new(Kind::Checkpoint, Id(0), shard, Amount::ZERO, &body);
        record.time = self.time;
        record.code = Code::Approved as u8;
        record
    }

    /// A hint: these requests or records come next. Brings what they touch into the processor's cache; changes nothing.
    /// Sixteen to sixty-four at a time are worth it once the ledger is larger than the cache: what one request waits for in
    /// turn is fetched for all of them at once.
    pub fn warm(&self, records: &[Record]) {
        for records in records.chunks(WARM_MAX) {
            let mut keys = [[None; 2]; WARM_MAX];
            for (record, keys) in records.iter().zip(&mut keys) {
                *keys = self.index_keys(record);
                keys.iter().flatten().for_each(|hash| self.index.prefetch(*hash));
            }
            // Their own ids are mostly new, and lead nowhere.
            for hash in keys.iter().take(records.len()).filter_map(|keys| keys[1]) {
                self.prefetch_entry(hash);
            }
        }
    }

    /// Hash of the whole state: equal for equal states, whatever their history.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        self.dirty.iter().fold(self.sum, |sum, slot| {
            let partition = &self.partitions[*slot as usize];
            sum.wrapping_sub(partition.hash).wrapping_add(partition_hash(partition))
        })
    }

    /// The time of the last decision or advance.
    #[must_use]
    pub const fn time(&self) -> Time {
        self.time
    }
}

// Primitives: every change of a table that is state goes through one of these, which keep the hash in step.
impl Ledger {
    /// Adds a partition, or the shard itself as the first.
    pub(crate) fn add_partition(&mut self, partition: Partition) -> u32 {
        let slot = slot_of(self.partitions.len());
        self.partition_slots.insert(partition.handle.0, slot);
        if slot != SHARD_SLOT {
            self.partition_order.insert(partition.handle, slot);
            self.partition_names.insert(partition.onchain, slot);
        }
        self.partitions.push(partition);
        slot
    }

    pub(crate) fn partition_slot(&self, handle: PartitionHandle) -> Option<u32> {
        self.partition_slots.get(&handle.0).copied()
    }

    pub(crate) fn account_slot(&self, tenant: TenantId, handle: PartitionHandle) -> Option<u32> {
        self.account_slots.get(&(handle.0, tenant.0)).copied()
    }

    /// The account of a tenant in a partition that exists, made if need be: having one is no right and no state.
    pub(crate) fn make_account(&mut self, tenant: TenantId, handle: PartitionHandle) -> Option<u32> {
        if let Some(slot) = self.account_slot(tenant, handle) {
            return Some(slot);
        }
        let partition = self.partition_slot(handle)?;
        let tenant_slot = self.make_tenant(tenant);
        let slot = slot_of(self.accounts.len());
        let rights = Rights::default();
        self.accounts.push(Account { tenant, handle, partition, tenant_slot, rights });
        self.account_slots.insert((handle.0, tenant.0), slot);
        Some(slot)
    }

    /// Sets what a tenant may do in a partition; says what it could do before.
    pub(crate) fn set_rights(&mut self, account: u32, rights: Rights) -> Rights {
        let account = &mut self.accounts[account as usize];
        let key = (account.tenant, account.handle);
        if rights.0 & Rights::READ.0 != 0 {
            self.readable.insert(key);
        } else {
            self.readable.remove(&key);
        }
        core::mem::replace(&mut account.rights, rights)
    }

    pub(crate) fn make_tenant(&mut self, id: TenantId) -> u32 {
        if let Some(slot) = self.tenant_slots.get(&id.0) {
            return *slot;
        }
        let slot = slot_of(self.tenants.len());
        let quotas = TenantBody { tenant: id, ..TenantBody::default() };
        let tenant =
            Tenant { is_set: false, quotas, locks: 0, open_locks: 0, ids: 0, tombstones: 0, advices: 0 };
        self.tenants.push(tenant);
        self.tenant_slots.insert(id.0, slot);
        slot
    }

    pub(crate) fn account(&self, slot: u32) -> &Account {
        &self.accounts[slot as usize]
    }

    pub(crate) fn partition_mut(&mut self, slot: u32) -> &mut Partition {
        &mut self.partitions[slot as usize]
    }

    pub(crate) fn tenant_of_mut(&mut self, account: u32) -> &mut Tenant {
        let slot = self.accounts[account as usize].tenant_slot;
        &mut self.tenants[slot as usize]
    }

    /// Notes that a partition has changed, and stops everything if its money does not add up.
    pub(crate) fn touched(&mut self, slot: u32) {
        let partition = &mut self.partitions[slot as usize];
        partition.money.assert_identity();
        if !partition.is_dirty && slot != SHARD_SLOT {
            partition.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Brings the hash of changed partitions up to date.
    pub(crate) fn clean(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            let partition = &mut self.partitions[slot as usize];
            let hash = partition_hash(partition);
            self.sum = self.sum.wrapping_sub(partition.hash).wrapping_add(hash);
            partition.hash = hash;
            partition.is_dirty = false;
        }
    }

    pub(crate) fn hash_in(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_add(hash);
    }

    pub(crate) fn hash_out(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_sub(hash);
    }

    #[inline]
    pub(crate) fn find(&self, account: u32, id: u128) -> Option<Found> {
        self.index.find(self.index.hash(account, id), |found| match found {
            Found::Lock(slot) => {
                let lock = self.locks.get(slot);
                lock.id == id && lock.account == account
            }
            Found::Op(slot) => {
                let op = self.ops.get(slot);
                op.id() == id && op.account == account
            }
        })
    }

    pub(crate) fn lock_hash(&self, lock: &Lock) -> u128 {
        let mut canon = WordHash::new();
        self.put_key(&mut canon, EntryKind::Lock as u8, lock.account, lock.id);
        lock.put(&mut canon);
        canon.finish()
    }

    pub(crate) fn ext_hash(&self, account: u32, id: u128, ext: &Ext) -> u128 {
        let mut canon = WordHash::new();
        self.put_key(&mut canon, EXT_PIECE, account, id);
        ext.put(&mut canon);
        canon.finish()
    }

    pub(crate) fn capture_hash(&self, account: u32, id: u128, capture: &Capture) -> u128 {
        let mut canon = WordHash::new();
        self.put_key(&mut canon, CAPTURE_PIECE, account, id);
        capture.put(&mut canon);
        canon.finish()
    }

    pub(crate) fn op_hash(&self, op: &Op) -> u128 {
        let mut canon = WordHash::new();
        self.put_key(&mut canon, EntryKind::Op as u8, op.account, op.id());
        op.put(&mut canon);
        if op.memo.has_side() {
            self.sides.get(op.side).put_for(op.memo, &mut canon);
        }
        canon.finish()
    }

    #[inline(always)]
    fn put_key(&self, out: &mut impl Sink, kind: u8, account: u32, id: u128) {
        let account = self.account(account);
        out.number(u64::from(kind), 1);
        put_key(out, account.tenant, account.handle, Id(id));
    }

    /// Adds a lock under an id that is not there, and counts it. The caller completes it, and then adds its hash.
    #[inline]
    pub(crate) fn insert_lock(&mut self, id: u128, account: u32) -> u32 {
        let slot = self.locks.insert(Lock::EMPTY);
        let lock = self.locks.get_mut(slot);
        lock.id = id;
        lock.account = account;
        self.index.insert(self.index.hash(account, id), Found::Lock(slot));
        self.tenant_of_mut(account).locks += 1;
        slot
    }

    /// Adds the hash of a new lock that is complete, and that of its extension.
    pub(crate) fn hash_in_lock(&mut self, slot: u32) {
        let lock = self.locks.get(slot);
        let mut hash = self.lock_hash(lock);
        if lock.ext != NONE {
            hash = hash.wrapping_add(self.ext_hash(lock.account, lock.id, self.exts.get(lock.ext)));
        }
        let (is_live, account) = (lock.is_live(), lock.account);
        self.hash_in(hash);
        if is_live {
            self.live += 1;
            self.tenant_of_mut(account).open_locks += 1;
        }
    }

    /// A live lock is none any more.
    pub(crate) fn uncount_live(&mut self, account: u32) {
        self.live -= 1;
        if !sabotage!("ended-locks-count-as-open") {
            self.tenant_of_mut(account).open_locks -= 1;
        }
    }

    /// Forgets a lock with all it has.
    pub(crate) fn remove_lock(&mut self, slot: u32) {
        let lock = *self.locks.get(slot);
        if lock.is_live() {
            self.uncount_live(lock.account);
        }
        self.hash_out(self.lock_hash(&lock));
        if lock.ext != NONE {
            self.hash_out(self.ext_hash(lock.account, lock.id, self.exts.get(lock.ext)));
            self.exts.remove(lock.ext);
        }
        let mut next = lock.captures;
        while next != NONE {
            let capture = *self.captures.get(next);
            self.hash_out(self.capture_hash(lock.account, lock.id, &capture));
            self.captures.remove(next);
            next = capture.next;
        }
        self.index.remove(self.index.hash(lock.account, lock.id), Found::Lock(slot));
        self.tenant_of_mut(lock.account).locks -= 1;
        let gone = self.locks.get_mut(slot);
        gone.end = End::None;
        gone.armed = Armed::NO;
        self.locks.remove(slot);
    }

    /// Adds a capture to a lock that is being changed, and has room for it.
    pub(crate) fn insert_capture(&mut self, lock: u32, mut capture: Capture) -> u8 {
        let index = self.next_capture(self.locks.get(lock));
        let Some(index) = index else { unreachable!("whoever captures has looked for room") };
        capture.index = index;
        self.attach_capture(lock, capture);
        index
    }

    /// Adds a capture that has its index.
    pub(crate) fn attach_capture(&mut self, lock: u32, mut capture: Capture) {
        let owner = self.locks.get(lock);
        capture.next = owner.captures;
        self.hash_in(self.capture_hash(owner.account, owner.id, &capture));
        let slot = self.captures.insert(capture);
        let owner = self.locks.get_mut(lock);
        owner.captures = slot;
        owner.count += 1;
    }

    /// Indices of a lock's captures, the earliest first.
    pub(crate) fn capture_indices(&self, lock: &Lock) -> ([u8; CAPTURES_PER_LOCK_MAX], usize) {
        let (mut indices, mut count) = ([0; CAPTURES_PER_LOCK_MAX], 0);
        for slot in self.capture_slots(lock) {
            indices[count] = self.captures.get(slot).index;
            count += 1;
        }
        indices[..count].reverse();
        (indices, count)
    }

    pub(crate) fn capture_slot(&self, lock: &Lock, index: u16) -> Option<u32> {
        let mut next = lock.captures;
        while next != NONE {
            let capture = self.captures.get(next);
            if u16::from(capture.index) == index {
                return Some(next);
            }
            next = capture.next;
        }
        None
    }

    /// Slots of a lock's captures, the latest first.
    pub(crate) fn capture_slots(&self, lock: &Lock) -> impl Iterator<Item = u32> + use<'_> {
        let first = (lock.captures != NONE).then_some(lock.captures);
        core::iter::successors(first, |slot| {
            let next = self.captures.get(*slot).next;
            (next != NONE).then_some(next)
        })
    }

    pub(crate) fn edit_capture(&mut self, lock: u32, slot: u32, edit: impl FnOnce(&mut Capture)) {
        let (account, id) = (self.locks.get(lock).account, self.locks.get(lock).id);
        self.hash_out(self.capture_hash(account, id, self.captures.get(slot)));
        edit(self.captures.get_mut(slot));
        self.hash_in(self.capture_hash(account, id, self.captures.get(slot)));
    }

    /// Sum of u over a lock's captures.
    pub(crate) fn open_of(&self, lock: &Lock) -> u128 {
        self.capture_slots(lock).map(|slot| self.captures.get(slot).open).sum()
    }

    /// Remembers an id that is not there, and counts it.
    pub(crate) fn insert_op(&mut self, mut op: Op, side: Option<Side>) -> u32 {
        if let Some(side) = side {
            op.side = self.sides.insert(side);
        }
        let slot = self.ops.insert(op);
        self.index.insert(self.index.hash(op.account, op.id()), Found::Op(slot));
        let at = op.forgotten_at_ms(self.config.id_window);
        self.op_ring.push(&mut self.ops, slot, at);
        *self.used_quota(&op) += 1;
        self.hash_in(self.op_hash(&op));
        slot
    }

    /// Changes what is remembered under an id.
    pub(crate) fn edit_op(&mut self, slot: u32, edit: impl FnOnce(&mut Op)) {
        let old = *self.ops.get(slot);
        edit(self.ops.get_mut(slot));
        let new = *self.ops.get(slot);
        self.hash_out(self.op_hash(&old));
        self.hash_in(self.op_hash(&new));
        *self.used_quota(&old) -= 1;
        *self.used_quota(&new) += 1;
    }

    /// Forgets an id that is out of the ring.
    pub(crate) fn remove_op(&mut self, slot: u32) {
        let op = *self.ops.get(slot);
        self.hash_out(self.op_hash(&op));
        if op.memo.has_side() {
            self.sides.remove(op.side);
        }
        self.index.remove(self.index.hash(op.account, op.id()), Found::Op(slot));
        *self.used_quota(&op) -= 1;
        self.ops.remove(slot);
    }

    /// Takes back an id that was remembered in this moment.
    pub(crate) fn take_back_op(&mut self, slot: u32) {
        let at = self.ops.get(slot).forgotten_at_ms(self.config.id_window);
        self.op_ring.remove(&mut self.ops, slot, at);
        self.remove_op(slot);
    }

    fn used_quota(&mut self, op: &Op) -> &mut u64 {
        let tenant = self.tenant_of_mut(op.account);
        match op.quota() {
            Quota::Ids => &mut tenant.ids,
            Quota::Tombstones => &mut tenant.tombstones,
            Quota::Advices => &mut tenant.advices,
        }
    }

    /// Sees to it that a lock is looked at by a moment.
    #[inline]
    pub(crate) fn arm(&mut self, slot: u32, at: Time) {
        let ms = at.0.div_ceil(1_000_000) - u64::from(sabotage!("expires-a-millisecond-early"));
        if self.locks.get(slot).armed.is_after(ms) {
            let node = self.nodes.insert(Node::new(slot));
            let at = self.lock_ring.push(&mut self.nodes, node, ms);
            self.locks.get_mut(slot).armed = Armed::at(at);
        }
    }

    /// Adds to or takes from a merchant's open value.
    pub(crate) fn move_open(&mut self, account: u32, merchant: MerchantId, before: u128, after: u128) {
        if before == after {
            return;
        }
        let key = (account, merchant.0);
        let old = self.open.get(&key).copied().unwrap_or(0);
        assert!(old + after >= before, "a merchant's open value is the sum over its locks");
        let new = old + after - before;
        if old > 0 {
            self.hash_out(self.open_hash(account, merchant, old));
        }
        if new > 0 {
            self.hash_in(self.open_hash(account, merchant, new));
            self.open.insert(key, new);
        } else {
            self.open.remove(&key);
        }
    }

    /// Answers a request, with the state of its lock as it is now. The reply is written where it stays.
    #[inline]
    pub(crate) fn reply(
        &self,
        record: &Record,
        partition: u32,
        seq: Seq,
        outcome: &Outcome,
        replies: &mut Vec<Reply>,
    ) {
        let (remaining, version, end) = match outcome.lock {
            Some(slot) => {
                let lock = self.locks.get(slot);
                (self.remaining(lock), self.version(lock), lock.end)
            }
            None => (outcome.about, 0, outcome.end),
        };
        replies.push(Reply {
            id: record.id,
            approved: Amount(outcome.approved),
            remaining: Amount(remaining),
            free: Amount(self.partitions[partition as usize].money.free),
            extra: Amount(outcome.extra),
            seq,
            deadline: outcome.deadline,
            time: self.time,
            epoch: Epoch(0),
            shard: self.config.shard,
            version,
            capture: outcome.capture,
            code: outcome.code as u8,
            end: end as u8,
            flags: if self.partitions[partition as usize].is_unreconciled { UNRECONCILED } else { 0 },
            kind: record.kind,
            reserved: [0; 10],
        });
    }

    /// R of a lock.
    pub(crate) fn remaining(&self, lock: &Lock) -> u128 {
        let headroom = if lock.ext == NONE { 0 } else { self.exts.get(lock.ext).headroom };
        lock.remaining(headroom)
    }

    /// Whether a merchant may be guaranteed where only listed ones are.
    pub(crate) fn is_listed(&self, key: MerchantKey) -> bool {
        self.merchants.get(&(key.tenant.0, key.merchant.0)).is_some_and(|merchant| merchant.enabled == 1)
    }
}

/// Pieces of a lock's entry that are hashed by themselves, so that a change rehashes little.
pub(crate) const EXT_PIECE: u8 = 110;
pub(crate) const CAPTURE_PIECE: u8 = 111;

pub(crate) fn partition_hash(partition: &Partition) -> u128 {
    let mut canon = WordHash::new();
    canon.number(EntryKind::Partition as u64, 1);
    put_key(&mut canon, TenantId(0), partition.handle, Id(0));
    partition.put(&mut canon);
    canon.finish()
}

fn slot_of(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(NONE)
}

/// When an id can no longer be accepted.
pub(crate) fn stale_at(id: u128, kind: Kind, is_lasting: bool, id_window: Time) -> Time {
    Time::from_millis(op::forgotten_at_ms(id, kind, is_lasting, id_window).min(u64::MAX / 1_000_000))
}
