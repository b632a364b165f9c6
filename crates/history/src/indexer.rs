//! One shard's records into the index: each is replayed by the ledger itself, and what the ledger then says is what is kept.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use ledger::{Entry, EntryKey, Ledger, LockState};
use surety_protocol::{
    Address, Code, End, Epoch, Id, Kind, MerchantId, MerchantKey, Record, Seq, ShardId, TenantId, Time,
};

use crate::codec::{Position, Zone, encode_block, encode_lock, encode_merchant, encode_money, encode_stake};
use crate::error::HistoryError;
use crate::keys::{self, BlockNumber, OpenBy, Term};
use crate::row::{Balances, Lock, LockKey, MerchantTotals, Named, Row, supplier_of};
use crate::store::{Change, Store, Table};

/// Rows that wait for their commit, at most: what one change of the store carries.
const ROWS_PER_COMMIT_MAX: usize = 4096;

/// Feeds one shard.
pub struct Indexer {
    shard: ShardId,
    store: Store,
    /// What the engine's ledger was like after the record before `next`.
    replica: Ledger,
    /// The next record that is to be replayed.
    next: Seq,
    time: Time,
    epoch: Epoch,
    /// The beginning of an operation whose rest has not come yet.
    begun: Vec<Record>,
    /// Rows of the open block that are in the store, then those that are not.
    rows: Vec<Row>,
    /// How many of them are in the store.
    stored: usize,
    /// Locks that have changed since the last commit.
    locks: BTreeMap<LockKey, Lock>,
    /// Locks that had ended and that the ledger had forgotten when others were made under their ids since the last commit.
    replaced: Vec<Lock>,
    /// Those of `locks` that are in the store in an older state, or may be.
    older: BTreeSet<LockKey>,
    /// What there is of merchants' locks, where that has changed or was asked since the last commit.
    merchants: BTreeMap<(TenantId, MerchantId), MerchantTotals>,
    /// Suppliers whose units have changed since the last commit.
    stakes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Indexer {
    /// Goes on at the store's position, with a replica of the ledger as it was there.
    ///
    /// # Errors
    /// If the replica is that of another log, or the store is damaged.
    pub fn new(store: Store, shard: ShardId, replica: Ledger) -> Result<Self, HistoryError> {
        let view = store.view();
        let position = view.position(shard)?.unwrap_or(Position::START);
        let found = replica.state_hash();
        let seq = Seq(position.next.0 - 1);
        if seq > Seq(0) && found != position.state_hash {
            return Err(HistoryError::OtherLog { shard, seq, indexed: position.state_hash, found });
        }
        let damaged = |at: BlockNumber| HistoryError::Damaged { what: "the last block", shard, at: at.0 };
        let rows = match store.blocks().open(position.next) {
            None => Vec::new(),
            Some(number) => {
                let rows = view.block(shard, number)?.ok_or_else(|| damaged(number))?;
                if rows.last().is_none_or(|row| row.seq != seq) {
                    return Err(damaged(number));
                }
                rows
            }
        };
        drop(view);
        Ok(Self {
            shard,
            store,
            replica,
            next: position.next,
            time: position.time,
            epoch: position.epoch,
            begun: Vec::new(),
            stored: rows.len(),
            rows,
            locks: BTreeMap::new(),
            replaced: Vec::new(),
            older: BTreeSet::new(),
            merchants: BTreeMap::new(),
            stakes: Vec::new(),
        })
    }

    /// The next record that is wanted.
    #[must_use]
    pub fn wanted(&self) -> Seq {
        Seq(self.next.0 + self.begun.len() as u64)
    }

    /// The next record that is wanted, as the stream is to be asked for it: with the epoch of the one before.
    #[must_use]
    pub fn cursor(&self) -> surety_protocol::Cursor {
        surety_protocol::Cursor { next: self.wanted(), epoch: self.epoch }
    }

    /// The next record that is not in the store.
    #[must_use]
    pub fn stored(&self) -> Seq {
        Seq(self.next.0 - self.waiting() as u64)
    }

    /// The time of the last record.
    #[must_use]
    pub const fn time(&self) -> Time {
        self.time
    }

    /// Rows that wait for a commit.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.rows.len() - self.stored
    }

    /// True if a commit is due, however short the time since the last one.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.waiting() >= ROWS_PER_COMMIT_MAX
    }

    /// Takes consecutive records. Those of an operation whose end has not come are kept until it has.
    ///
    /// # Errors
    /// If they do not follow, or do to the replica something else than to the engine. The indexer is of no use then.
    pub fn take(&mut self, first: Seq, epoch: Epoch, records: &[Record]) -> Result<(), HistoryError> {
        if first != self.wanted() {
            return Err(HistoryError::OutOfTurn { shard: self.shard, wanted: self.wanted(), found: first });
        }
        // An engine that does not tell the epochs of its records says 0.
        if epoch != Epoch(0) && epoch < self.epoch {
            return Err(HistoryError::Epoch { shard: self.shard, seen: self.epoch, found: epoch });
        }
        self.epoch = epoch;
        let mut records_left = core::mem::take(&mut self.begun);
        records_left.extend_from_slice(records);
        let mut rest = records_left.as_slice();
        while let Some(len) = ledger::operation_len(rest) {
            let (operation, tail) = rest.split_at(len);
            self.apply(operation)?;
            rest = tail;
        }
        self.begun = rest.to_vec();
        Ok(())
    }

    fn apply(&mut self, operation: &[Record]) -> Result<(), HistoryError> {
        let first = self.next;
        let wiped = self.wiped_by(&operation[0]);
        let replayed = self.replica.replay(first, operation);
        replayed.map_err(|source| HistoryError::Diverged { shard: self.shard, source })?;
        let named = self.update_locks(first, operation)?;
        for (index, record) in operation.iter().enumerate() {
            self.note_paid(record)?;
            self.note_stake(Seq(first.0 + index as u64), record, &wiped);
        }
        let mut time = operation[0].time;
        for (index, record) in operation.iter().enumerate() {
            let seq = Seq(first.0 + index as u64);
            if record.kind() != Some(Kind::Continuation) {
                time = record.time;
            }
            let row = self.row(seq, time, record, if index == 0 { &named } else { &[] })?;
            self.rows.push(row);
        }
        self.time = time;
        self.next.0 += operation.len() as u64;
        Ok(())
    }

    /// Suppliers whose units a deposit makes worthless for good: it begins anew where all had been lost.
    fn wiped_by(&self, record: &Record) -> Vec<Address> {
        let partition = || self.replica.partition(record.partition).as_ref().map(Balances::from);
        let is_deposit = record.kind() == Some(Kind::Deposit);
        match is_deposit.then(partition).flatten() {
            Some(before) if before.units > 0 && before.equity() == 0 => {
                self.replica.suppliers(record.partition).iter().map(|supplier| supplier.supplier).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What suppliers have after a record that names one.
    fn note_stake(&mut self, seq: Seq, record: &Record, wiped: &[Address]) {
        if !record.code().is_some_and(Code::is_success) {
            return;
        }
        let named = supplier_of(record);
        for supplier in wiped.iter().chain(named.iter().filter(|named| !wiped.contains(named))) {
            let state = self.replica.supplier(record.partition, supplier);
            let (units, queued) = state.map_or((0, 0), |state| (state.units, state.queued));
            let key = keys::stake(supplier, record.partition, record.time, seq);
            self.stakes.push((key, encode_stake(units, queued)));
        }
    }

    /// What a record has its merchant paid out of the collateral.
    fn note_paid(&mut self, record: &Record) -> Result<(), HistoryError> {
        if !record.code().is_some_and(Code::is_success) {
            return Ok(());
        }
        let (consumed, guarantees) = match record.kind() {
            Some(Kind::Consume | Kind::AutoConsume) => (record.result.0, 0),
            Some(Kind::GuaranteePaid) => (0, record.amount.0),
            _ => return Ok(()),
        };
        let key = LockKey { id: record.lock(), partition: record.partition, tenant: record.tenant };
        if let Some(lock) = self.known(&key)? {
            let totals = self.totals(key.tenant, lock.merchant)?;
            totals.consumed = totals.consumed.wrapping_add(consumed);
            totals.guarantees = totals.guarantees.wrapping_add(guarantees);
        }
        Ok(())
    }

    /// What there is of a merchant's locks.
    fn totals(
        &mut self,
        tenant: TenantId,
        merchant: MerchantId,
    ) -> Result<&mut MerchantTotals, HistoryError> {
        Ok(match self.merchants.entry((tenant, merchant)) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(self.store.merchant(self.shard, tenant, merchant)?)
            }
        })
    }

    /// Reads from the replica what became of every lock that an operation touched. Returns those that a group release names.
    fn update_locks(&mut self, first: Seq, operation: &[Record]) -> Result<Vec<Id>, HistoryError> {
        let mut named = Vec::new();
        let is_group = operation[0].kind() == Some(Kind::ReleaseGroup);
        for entry in Entry::touched(operation) {
            if is_group && entry.id != operation[0].id {
                named.push(entry.id);
            }
            self.update_lock(&entry, first, operation)?;
        }
        Ok(named)
    }

    fn update_lock(
        &mut self,
        entry: &EntryKey,
        first: Seq,
        operation: &[Record],
    ) -> Result<(), HistoryError> {
        let key = LockKey { id: entry.id, partition: entry.partition, tenant: entry.tenant };
        match self.replica.lock(key.tenant, key.partition, key.id) {
            Some(state) => self.update_kept(key, state, first, operation),
            None => self.update_refused(key, first, operation),
        }
    }

    /// A lock that the ledger has.
    fn update_kept(
        &mut self,
        key: LockKey,
        state: LockState,
        first: Seq,
        operation: &[Record],
    ) -> Result<(), HistoryError> {
        let last = operation.iter().rposition(|record| concerns(record, &key)).unwrap_or(0);
        let (seq, record) = (Seq(first.0 + last as u64), &operation[last]);
        // Its own request may stand before others of the same chain.
        let made = state.seq.0.checked_sub(first.0).and_then(|index| usize::try_from(index).ok());
        let made = made.and_then(|index| operation.get(index));
        if made.is_none() && record.kind() == Some(Kind::Lookup) {
            // A question changes nothing.
            return Ok(());
        }
        let payee = self.payee(key.tenant, state.merchant);
        let old = match made {
            // One that an earlier record of the same chain has made is looked at again.
            Some(_) => self.locks.get(&key).filter(|lock| lock.seq == state.seq).cloned(),
            None => self.known(&key)?,
        };
        let before = old.as_ref().map(|lock| lock.after(false));
        let mut lock = match (made, old) {
            (Some(request), _) => Lock::refused(key, state.end, state.seq, request, payee),
            (None, Some(lock)) => lock,
            (None, None) => Lock::refused(key, state.end, seq, record, payee),
        };
        (lock.changed, lock.changed_seq, lock.payee) = (record.time, seq, payee);
        lock.update(state);
        if lock.merchant != MerchantId(0) {
            self.totals(key.tenant, lock.merchant)?.replace(before.as_ref(), &lock.after(false));
        }
        // An id that is asked for with a lock is never asked for again; an advice may come at any time.
        if made.is_some_and(|request| request.kind() != Some(Kind::Lock)) {
            let forgotten = self.known(&key)?.filter(|old| old.seq != lock.seq);
            self.replaced.extend(forgotten);
        }
        self.keep(lock, made.is_some());
        Ok(())
    }

    /// A lock that the ledger does not have: it was declined, or is never to be. Or there is nothing of it.
    fn update_refused(&mut self, key: LockKey, first: Seq, operation: &[Record]) -> Result<(), HistoryError> {
        let end = self.replica.end(key.tenant, key.partition, key.id);
        let is_request = |record: &Record| record.kind() == Some(Kind::Lock) && is_of(record, &key);
        let request = operation.iter().position(is_request);
        let found = request.or_else(|| operation.iter().position(|record| concerns(record, &key)));
        let Some(index) = found.filter(|_| matches!(end, End::Declined | End::Tombstone)) else {
            return Ok(());
        };
        let record = &operation[index];
        // A question leaves a refusal only by spending the id.
        let leaves_one = record.kind() != Some(Kind::Lookup) || end == End::Declined;
        if request.is_some() || leaves_one && self.known(&key)?.is_none() {
            let seq = Seq(first.0 + index as u64);
            let merchant = Lock::refused(key, end, seq, record, Address([0; 20])).merchant;
            let payee = self.payee(key.tenant, merchant);
            self.keep(Lock::refused(key, end, seq, record, payee), false);
        }
        Ok(())
    }

    /// A lock as it was before this record.
    fn known(&self, key: &LockKey) -> Result<Option<Lock>, HistoryError> {
        match self.locks.get(key) {
            Some(lock) => Ok(Some(lock.clone())),
            None => self.store.lock(key),
        }
    }

    fn keep(&mut self, lock: Lock, is_new: bool) {
        if !is_new && !self.locks.contains_key(&lock.key) {
            self.older.insert(lock.key);
        }
        self.locks.insert(lock.key, lock);
    }

    fn payee(&self, tenant: TenantId, merchant: MerchantId) -> Address {
        let body = self.replica.merchant(MerchantKey { tenant, merchant });
        body.map_or(Address([0; 20]), |body| body.payee)
    }

    fn row(&mut self, seq: Seq, time: Time, record: &Record, ids: &[Id]) -> Result<Row, HistoryError> {
        let is_part = record.kind() == Some(Kind::Continuation);
        let partition = self.replica.partition(record.partition).filter(|_| !is_part);
        let id = if is_part { Id(0) } else { record.lock() };
        let key = LockKey { id, partition: record.partition, tenant: record.tenant };
        let lock = if id == Id(0) { None } else { self.known(&key)? };
        let named = |id: &Id| {
            let after = self.known(&LockKey { id: *id, ..key })?.map(|lock| lock.after(false));
            Ok::<_, HistoryError>(Named { id: *id, after })
        };
        let mut row = Row {
            shard: self.shard,
            seq,
            record: *record,
            time,
            lock: lock.map(|lock| lock.after(lock.seq == seq)),
            balances: partition.as_ref().map(Balances::from),
            merchant: None,
            named: ids.iter().map(named).collect::<Result<_, _>>()?,
        };
        if let Some(merchant) = row.merchant_of() {
            row.merchant = Some(*self.totals(record.tenant, merchant)?);
        }
        Ok(row)
    }

    /// Puts everything that was taken into the store, with the position that it leads to.
    ///
    /// # Errors
    /// The store's own; the indexer is of no use then.
    pub fn commit(&mut self) -> Result<(), HistoryError> {
        if self.waiting() == 0 {
            return Ok(());
        }
        let store = self.store.clone();
        let mut change = store.change();
        let blocks = self.store.blocks();
        let mut terms = BTreeSet::new();
        for row in &self.rows[self.stored..] {
            let number = blocks.of(row.seq);
            Term::all_of(row, |term| _ = terms.insert(term.posting(self.shard, number)));
        }
        terms.iter().for_each(|key| change.put(Table::Postings, key, &[]));
        self.put_blocks(&mut change);
        self.put_locks(&mut change)?;
        for ((tenant, merchant), totals) in &self.merchants {
            let key = keys::merchant(self.shard, *tenant, *merchant);
            change.put(Table::Merchants, &key, &encode_merchant(totals));
        }
        self.stakes.iter().for_each(|(key, stake)| change.put(Table::Stakes, key, stake));
        self.put_partitions(&mut change);
        let state_hash = self.replica.state_hash();
        let position = Position { next: self.next, time: self.time, epoch: self.epoch, state_hash };
        change.commit(self.shard, &position)?;
        self.settle(&position);
        Ok(())
    }

    fn put_blocks(&self, change: &mut Change<'_>) {
        let blocks = self.store.blocks();
        let number = |row: &Row| blocks.of(row.seq);
        let touched = self.rows.get(self.stored).map(number);
        for rows in self.rows.chunk_by(|left, right| number(left) == number(right)) {
            if touched.is_some_and(|first| number(&rows[0]) >= first) {
                let key = keys::block(self.shard, number(&rows[0]));
                change.put(Table::Blocks, &key, &encode_block(rows));
                change.put(Table::Zones, &key, &Zone::of(rows).encode());
            }
        }
    }

    /// What every partition has that something was recorded of.
    fn put_partitions(&self, change: &mut Change<'_>) {
        let mut touched = BTreeMap::new();
        for row in &self.rows[self.stored..] {
            touched.extend(row.balances.map(|money| (row.record.partition, money)));
        }
        for (partition, money) in touched {
            change.put(Table::Partitions, &keys::partition(partition), &encode_money(&money));
        }
    }

    fn put_locks(&self, change: &mut Change<'_>) -> Result<(), HistoryError> {
        let view = self.store.view();
        for lock in self.locks.values() {
            let old = if self.older.contains(&lock.key) { view.lock(&lock.key)? } else { None };
            let key = keys::lock(&lock.key);
            if let Some(old) = old.filter(|old| old.end == End::Live) {
                for place in places(&old) {
                    change.remove(Table::Open, &place);
                }
            }
            if lock.end == End::Live {
                for place in places(lock) {
                    change.put(Table::Open, &place, &key);
                }
            }
            change.put(Table::Locks, &key, &encode_lock(lock));
        }
        for lock in &self.replaced {
            change.put(Table::Locks, &keys::replaced_lock(&lock.key, lock.seq), &encode_lock(lock));
        }
        Ok(())
    }

    /// Forgets what the store has now, but for the rows of the open block.
    fn settle(&mut self, position: &Position) {
        self.locks.clear();
        self.replaced.clear();
        self.older.clear();
        self.merchants.clear();
        self.stakes.clear();
        let blocks = self.store.blocks();
        let kept = match blocks.open(position.next) {
            None => 0,
            Some(number) => usize::try_from(position.next.0 - blocks.first_seq(number).0).unwrap_or(0),
        };
        debug_assert!(kept < usize::from(blocks.rows()), "an open block has room");
        self.rows.drain(..self.rows.len() - kept.min(self.rows.len()));
        self.stored = self.rows.len();
    }
}

/// True if a record makes, changes or names a lock: ids are a tenant's own within a partition, so the same one may be two locks of a chain.
fn concerns(record: &Record, key: &LockKey) -> bool {
    is_of(record, key)
        || record.kind() != Some(Kind::Continuation) && is_in(record, key) && record.lock() == key.id
}

/// True if a record's own id is the lock's.
fn is_of(record: &Record, key: &LockKey) -> bool {
    record.kind() != Some(Kind::Continuation) && is_in(record, key) && record.id == key.id
}

fn is_in(record: &Record, key: &LockKey) -> bool {
    record.partition == key.partition && record.tenant == key.tenant
}

/// Where a live lock stands in the orders.
fn places(lock: &Lock) -> [[u8; 19]; 2] {
    let place = |by, time| keys::open(by, time, lock.shard(), lock.seq);
    [place(OpenBy::Age, lock.created), place(OpenBy::Deadline, lock.deadline)]
}
