//! What the index is held against: a plain scan of the records, with a ledger of its own, that shares no code with planner, predicates
//! and rows.
// Each test is a crate of its own and uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::BTreeMap;

use history::{Balances, Indexer, LockKey, Predicate, Store, StoreOptions};
use ledger::{Config, Ledger, LockState, SupplierState, operation_len};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use surety_protocol::*;

use crate::events::{Event, Sent, events, happen, policies};
use crate::world::{self, World, config};

pub const ENGINE: EngineId = EngineId(7);

/// A row's place in the order of all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub time: Time,
    pub shard: ShardId,
    pub seq: Seq,
}

/// A record as the scan sees it, with what the ledger says after its operation.
#[derive(Clone, Debug)]
pub struct Seen {
    pub place: Place,
    pub record: Record,
    pub lock: Option<Told>,
    pub balances: Option<Balances>,
    /// The locks that a group release names.
    pub named: Vec<(Id, Option<Told>)>,
    /// By tenant and merchant: all of their locks.
    pub merchants: BTreeMap<(TenantId, MerchantId), [u128; 9]>,
    pub suppliers: Vec<(PartitionHandle, SupplierState)>,
}

/// What is known of a lock: of one that is there, or of a refusal that stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub end: End,
    pub merchant: MerchantId,
    pub payee: Address,
    pub state: Option<LockState>,
    /// The record that made it, and what that asked for.
    pub made: (Seq, u128),
}

/// Everything that one shard's log tells, read from beginning to end with a ledger of its own.
#[derive(Default)]
pub struct Scan {
    pub seen: Vec<Seen>,
    pub locks: BTreeMap<LockKey, Told>,
    /// Consumed and paid by guarantees.
    paid: BTreeMap<(TenantId, MerchantId), [u128; 2]>,
    /// Locks in whose place there are others: what became of them stays so.
    past: Vec<(LockKey, Told)>,
    /// Those of them whose place an advice has taken; of a request that comes after its tombstone, the request is the lock.
    pub replaced: Vec<(LockKey, Told)>,
}

impl Scan {
    pub fn of(shard: ShardId, log: &[Record]) -> Self {
        let mut scan = Self::default();
        let mut ledger = Ledger::new(Config { shard, ..config() });
        let mut at = 0;
        while at < log.len() {
            let len = operation_len(&log[at..]).unwrap();
            let operation = &log[at..at + len];
            ledger.replay(Seq(at as u64 + 1), operation).unwrap();
            scan.note_locks(&ledger, log, at, operation);
            scan.note_paid(operation);
            let merchants = scan.merchants();
            for (index, record) in operation.iter().enumerate() {
                if record.kind() != Some(Kind::Continuation) {
                    let seq = Seq((at + index) as u64 + 1);
                    let place = Place { time: record.time, shard, seq };
                    scan.note(&ledger, place, record, operation, &merchants);
                }
            }
            at += len;
        }
        scan
    }

    /// Reads every lock that the operation could have to do with, and the refusals of its own requests.
    fn note_locks(&mut self, ledger: &Ledger, log: &[Record], at: usize, operation: &[Record]) {
        let asked = |record: &Record| record.amount.0;
        let known: Vec<LockKey> = self.locks.keys().copied().collect();
        let own = operation
            .iter()
            .filter(|record| record.kind() != Some(Kind::Continuation))
            .map(|record| LockKey { id: record.lock(), partition: record.partition, tenant: record.tenant });
        let mut named: Vec<LockKey> = own.filter(|key| key.id != Id(0)).collect();
        let (partition, tenant) = (operation[0].partition, operation[0].tenant);
        named.extend(group(operation).into_iter().map(|id| LockKey { id, partition, tenant }));
        for key in known.into_iter().chain(named.iter().copied()) {
            if let Some(state) = ledger.lock(key.tenant, key.partition, key.id) {
                let payee = payee(ledger, key.tenant, state.merchant);
                let touched = named.contains(&key);
                let old = self.locks.get(&key).map(|told| told.payee);
                // The directory of merchants is looked at when something happens to the lock.
                let payee = if touched { payee } else { old.unwrap_or(payee) };
                let made = (state.seq, asked(&log[usize::try_from(state.seq.0).unwrap() - 1]));
                let told = Told { end: state.end, merchant: state.merchant, payee, state: Some(state), made };
                self.put(key, told, log);
            }
        }
        for (index, record) in operation.iter().enumerate() {
            let key = LockKey { id: record.lock(), partition: record.partition, tenant: record.tenant };
            let end = ledger.end(key.tenant, key.partition, key.id);
            let is_refusal = matches!(end, End::Declined | End::Tombstone);
            let is_request = record.kind() == Some(Kind::Lock);
            let spends = record.kind() != Some(Kind::Lookup) || end == End::Declined;
            if key.id == Id(0) || !is_refusal || !(is_request || spends && !self.locks.contains_key(&key)) {
                continue;
            }
            let merchant = if is_request { record.body::<LockBody>().merchant } else { MerchantId(0) };
            let payee = payee(ledger, key.tenant, merchant);
            let made = (Seq((at + index) as u64 + 1), asked(record));
            self.put(key, Told { end, merchant, payee, state: None, made }, log);
        }
    }

    /// Every lock that was ever made, as it stands, or stood last.
    pub fn all_locks(&self) -> impl Iterator<Item = (&LockKey, &Told)> {
        self.locks.iter().chain(self.replaced.iter().map(|(key, told)| (key, told)))
    }

    fn put(&mut self, key: LockKey, told: Told, log: &[Record]) {
        let made = told.made.0;
        if let Some(old) = self.locks.insert(key, told).filter(|old| old.made.0 != made) {
            if log[usize::try_from(made.0).unwrap() - 1].kind() != Some(Kind::Lock) {
                self.replaced.push((key, old.clone()));
            }
            self.past.push((key, old));
        }
    }

    /// What the records say that merchants are paid.
    fn note_paid(&mut self, operation: &[Record]) {
        for record in operation.iter().filter(|record| record.code().is_some_and(Code::is_success)) {
            let (consumed, guarantee) = match record.kind() {
                Some(Kind::Consume | Kind::AutoConsume) => (record.result.0, 0),
                Some(Kind::GuaranteePaid) => (0, record.amount.0),
                _ => continue,
            };
            let key = LockKey { id: record.lock(), partition: record.partition, tenant: record.tenant };
            let paid = self.paid.entry((record.tenant, self.locks[&key].merchant)).or_default();
            *paid = [paid[0] + consumed, paid[1] + guarantee];
        }
    }

    /// Every merchant's locks, added up anew.
    fn merchants(&self) -> BTreeMap<(TenantId, MerchantId), [u128; 9]> {
        let mut all: BTreeMap<(TenantId, MerchantId), [u128; 9]> = BTreeMap::new();
        for (key, told) in self.locks.iter().chain(self.past.iter().map(|(key, told)| (key, told))) {
            let Some(state) = &told.state else { continue };
            let sums = all.entry((key.tenant, told.merchant)).or_default();
            sums[0] += state.remaining;
            sums[2] += state.pending;
            for capture in &state.captures {
                sums[1] += capture.open;
                sums[3] += capture.settled;
                sums[4] += capture.refunded;
            }
            sums[6] += state.released;
            sums[7] += state.expired;
        }
        for (key, [consumed, guarantees]) in &self.paid {
            let sums = all.entry(*key).or_default();
            (sums[5], sums[8]) = (*consumed, *guarantees);
        }
        all
    }

    fn note(
        &mut self,
        ledger: &Ledger,
        place: Place,
        record: &Record,
        operation: &[Record],
        merchants: &BTreeMap<(TenantId, MerchantId), [u128; 9]>,
    ) {
        let key = LockKey { id: record.lock(), partition: record.partition, tenant: record.tenant };
        let lock = if key.id == Id(0) { None } else { self.locks.get(&key).cloned() };
        let balances = ledger.partition(record.partition).map(|totals| Balances {
            on_chain: totals.on_chain,
            deficit: totals.deficit,
            free: totals.free,
            held: totals.held,
            captured: totals.captured,
            pending: totals.pending,
            owed: totals.owed,
            exposure: totals.exposure,
            units: totals.units,
        });
        let named = if record.kind() == Some(Kind::ReleaseGroup) { group(operation) } else { Vec::new() };
        let named = named.into_iter().map(|id| (id, self.locks.get(&LockKey { id, ..key }).cloned()));
        let suppliers = [record.partition].into_iter().flat_map(|partition| {
            ledger.suppliers(partition).into_iter().map(move |supplier| (partition, supplier))
        });
        self.seen.push(Seen {
            place,
            record: *record,
            lock,
            balances,
            named: named.collect(),
            merchants: merchants.clone(),
            suppliers: suppliers.collect(),
        });
    }
}

/// The locks that a group release names.
fn group(operation: &[Record]) -> Vec<Id> {
    if operation[0].kind() != Some(Kind::ReleaseGroup) {
        return Vec::new();
    }
    let group = ReleaseGroup::from_bytes(&long::join(operation).unwrap());
    group.map_or_else(|_| Vec::new(), |group| group.entries.iter().map(|entry| entry.lock).collect())
}

fn payee(ledger: &Ledger, tenant: TenantId, merchant: MerchantId) -> Address {
    ledger.merchant(MerchantKey { tenant, merchant }).map_or(Address([0; 20]), |body| body.payee)
}

/// The rules of the predicates once more, on what the scan has seen.
pub fn is_meant(seen: &Seen, predicate: &Predicate) -> bool {
    let record = &seen.record;
    let kind = record.kind().unwrap();
    let mut locks = seen.lock.iter().chain(seen.named.iter().filter_map(|(_, told)| told.as_ref()));
    match predicate {
        Predicate::Lock(id) => {
            record.lock() == *id && *id != Id(0) || seen.named.iter().any(|(named, _)| named == id)
        }
        Predicate::Merchant(merchant) => locks.any(|lock| lock.merchant == *merchant),
        Predicate::Payee(payee) => locks.any(|lock| lock.payee == *payee),
        Predicate::Partition(partition) => record.partition == *partition,
        Predicate::Tenant(tenant) => record.tenant == *tenant,
        Predicate::Supplier(supplier) => {
            let names = matches!(kind, Kind::Deposit | Kind::Withdraw | Kind::WithdrawPaid);
            names && record.body::<StakeBody>().supplier == *supplier
        }
        Predicate::Code(code) => Code::from_byte(record.code) == Some(*code),
        Predicate::Kind(wanted) => kind == *wanted,
        Predicate::State(end) => locks.any(|lock| lock.end == *end),
        Predicate::Amount { min, max } => *min <= record.amount.0 && record.amount.0 <= *max,
        Predicate::Time { from, until } => *from <= seen.place.time && seen.place.time < *until,
        Predicate::AnyOf(any) => any.iter().any(|predicate| is_meant(seen, predicate)),
    }
}

/// The same log in another shard: what happens does not depend on where.
pub fn moved(log: &[Record], shard: ShardId) -> Vec<Record> {
    let to = |record: &Record| match record.kind() {
        Some(Kind::Continuation) => *record,
        _ => Record { partition: PartitionHandle::new(shard, record.partition.number()), ..*record },
    };
    log.iter().map(to).collect()
}

pub fn log_of(policy: &Policy, events: &[Event]) -> Vec<Record> {
    let mut world = World::with_policy(policy);
    world.is_strict = false;
    world.price(world::PAR, 0);
    let mut sent = Sent::default();
    for event in events {
        happen(&mut world, &mut sent, event);
    }
    // Statements end before the last moment that is logged: this one, at which nothing of anybody's happens.
    world.wait(1000);
    world.price(world::PAR, 0);
    world.log
}

/// Feeds the index in pieces of a length, with a commit after each; the indexer begins anew after every third piece.
pub fn feed(store: &Store, shard: ShardId, log: &[Record], piece: usize) {
    store.note_shards(shard.0 + 1).unwrap();
    let config = Config { shard, ..config() };
    let mut indexer = Indexer::new(store.clone(), shard, Ledger::new(config)).unwrap();
    for (number, records) in log.chunks(piece).enumerate() {
        indexer.take(indexer.wanted(), Epoch(1), records).unwrap();
        indexer.commit().unwrap();
        if number % 3 == 2 {
            // What was begun and not ended comes again.
            let next = indexer.stored();
            let replica = replica(shard, log, next);
            let until = (number + 1) * piece;
            indexer = Indexer::new(store.clone(), shard, replica).unwrap();
            indexer
                .take(next, Epoch(1), &log[usize::try_from(next.0 - 1).unwrap()..until.min(log.len())])
                .unwrap();
        }
    }
    indexer.commit().unwrap();
    assert_eq!(indexer.stored(), Seq(log.len() as u64 + 1));
}

/// The ledger as it was before a record.
pub fn replica(shard: ShardId, log: &[Record], next: Seq) -> Ledger {
    let mut ledger = Ledger::new(Config { shard, ..config() });
    let mut at = 0;
    while Seq(at as u64 + 1) < next {
        let len = operation_len(&log[at..]).unwrap();
        ledger.replay(Seq(at as u64 + 1), &log[at..at + len]).unwrap();
        at += len;
    }
    ledger
}

/// The same events each time.
pub fn some_log(events_of: usize) -> Vec<Record> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let sequence = (policies(), prop::collection::vec(events(), events_of));
    let (policy, events) = sequence.new_tree(&mut runner).unwrap().current();
    log_of(&policy, &events)
}

/// The same events each time, under plain rules, with nothing that stops a partition, and movable.
pub fn busy_log(events_of: usize) -> Vec<Record> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let events = prop::collection::vec(events(), events_of).new_tree(&mut runner).unwrap().current();
    let stops = |event: &Event| match event {
        Event::Ask(ask) => matches!(ask.kind, Kind::Freeze | Kind::Deficit | Kind::GuaranteePaid),
        Event::Policy(_) => true,
        _ => false,
    };
    let events: Vec<Event> = events.into_iter().filter(|event| !stops(event)).collect();
    log_of(&Policy::default(), &movable(&events))
}

/// A store of small blocks, whose tables go to files soon.
pub fn small(block_rows: u16) -> StoreOptions {
    StoreOptions { block_rows, memtable_bytes: 16 << 10, free_bytes_min: 0, ..StoreOptions::beside(0) }
}

/// Checkpoints name the state of the shard that they were made in: without them a log may be moved to another.
pub fn movable(events: &[Event]) -> Vec<Event> {
    events.iter().filter(|event| !matches!(event, Event::Checkpoint)).cloned().collect()
}
