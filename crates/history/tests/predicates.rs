//! Whatever is asked, the index answers what a plain scan of the records answers: random streams of the ledger, random combinations of
//! all predicates, both orders, pages of every size, calls of hardly any work, blocks of few records, and shards of which some are
//! indexed further than others.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

#[path = "../../ledger/tests/world/events.rs"]
mod events;
mod scan;
#[path = "../../ledger/tests/world/mod.rs"]
mod world;

use std::cell::Cell;
use std::collections::BTreeMap;

use events::{events, losing_sequence, policies};
use history::{
    Account, Cursor, Horizon, Indexer, LockKey, OpenBy, OpenCursor, Order, Page, Predicate, Query,
    QueryError, Reader, Scope, StatementQuery, Store,
};
use ledger::{Config, Ledger};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use scan::*;
use surety_protocol::*;
use world::config;

thread_local! {
    /// How many pages ended because a call had done its work, in this test.
    static PAUSES: Cell<u32> = const { Cell::new(0) };
}

/// Every page of an answer. A walk ends after so many pages, or it goes round: that it does is not to be seen by its cursors.
fn walk<R>(
    query: &Query,
    ask: impl Fn(&Query) -> Result<Page<R>, QueryError>,
) -> Result<Vec<R>, TestCaseError> {
    let mut query = query.clone();
    let mut rows = Vec::new();
    for _ in 0..100_000 {
        let page = ask(&query).unwrap();
        prop_assert!(page.rows.len() <= query.limit);
        let (is_full, has_more) = (page.rows.len() == query.limit, page.has_more);
        rows.extend(page.rows);
        if !has_more {
            return Ok(rows);
        }
        PAUSES.set(PAUSES.get() + u32::from(!is_full));
        // As a client carries it.
        query.cursor = page.cursor.map(|cursor| cursor.to_string().parse().unwrap());
    }
    Err(TestCaseError::fail("a walk without end"))
}

/// Every page of live locks.
fn walk_open(reader: &Reader, by: OpenBy, query: &Query) -> Result<Vec<history::Lock>, TestCaseError> {
    let (mut cursor, mut locks) = (None, Vec::new());
    for _ in 0..100_000 {
        let page = reader.open_locks(by, &query.predicates, cursor.clone(), query.limit).unwrap();
        locks.extend(page.rows);
        if !page.has_more {
            return Ok(locks);
        }
        cursor = page.cursor.map(|cursor| cursor.to_string().parse::<OpenCursor>().unwrap());
    }
    Err(TestCaseError::fail("a walk without end"))
}

fn compare(reader: &Reader, scan: &[Seen], query: &Query) -> Result<(), TestCaseError> {
    let mut expected: Vec<&Seen> = scan
        .iter()
        .filter(|seen| query.predicates.iter().all(|predicate| is_meant(seen, predicate)))
        .collect();
    expected.sort_unstable_by_key(|seen| seen.place);
    if query.order == Order::Descending {
        expected.reverse();
    }
    let found = walk(query, |query| reader.records(query))?;
    let places: Vec<_> = found.iter().map(|row| (row.time, row.shard, row.seq)).collect();
    let wanted: Vec<_> =
        expected.iter().map(|seen| (seen.place.time, seen.place.shard, seen.place.seq)).collect();
    prop_assert_eq!(places, wanted, "{:?}", query);
    for (row, seen) in found.iter().zip(expected) {
        prop_assert_eq!(row.record.to_bytes(), seen.record.to_bytes(), "byte by byte");
        prop_assert_eq!(row.balances, seen.balances);
        let told = row.lock.map(|lock| (lock.end, lock.merchant, lock.payee));
        prop_assert_eq!(told, seen.lock.as_ref().map(|lock| (lock.end, lock.merchant, lock.payee)));
        let state = seen.lock.as_ref().and_then(|lock| lock.state.as_ref());
        if let (Some(lock), Some(state)) = (&row.lock, state) {
            prop_assert_eq!(parts(lock), parts_of(state));
        }
        for (named, (id, told)) in row.named.iter().zip(&seen.named) {
            prop_assert_eq!(named.id, *id);
            let after = named.after.map(|lock| (lock.end, lock.merchant, lock.payee));
            prop_assert_eq!(after, told.as_ref().map(|lock| (lock.end, lock.merchant, lock.payee)));
            if let (Some(lock), Some(state)) =
                (&named.after, told.as_ref().and_then(|told| told.state.as_ref()))
            {
                prop_assert_eq!(parts(lock), parts_of(state));
            }
        }
        prop_assert_eq!(row.named.len(), seen.named.len());
        let totals = row
            .merchant_of()
            .map(|merchant| seen.merchants.get(&(row.record.tenant, merchant)).copied().unwrap_or_default());
        prop_assert_eq!(row.merchant.map(history::MerchantTotals::to_array), totals, "{:?}", row);
    }
    Ok(())
}

/// R, V, E, P, and of all captures u, s and b.
fn parts(lock: &history::LockAfter) -> [u128; 7] {
    [lock.remaining, lock.released, lock.expired, lock.pending, lock.open, lock.settled, lock.refunded]
}

fn parts_of(state: &ledger::LockState) -> [u128; 7] {
    let sum = |part: fn(&ledger::CaptureState) -> u128| state.captures.iter().map(part).sum();
    let of_captures =
        [sum(|capture| capture.open), sum(|capture| capture.settled), sum(|capture| capture.refunded)];
    let [open, settled, refunded] = of_captures;
    [state.remaining, state.released, state.expired, state.pending, open, settled, refunded]
}

/// The locks as they stand at the end: each once, with every amount of the ledger's.
fn compare_locks<'a>(
    reader: &Reader,
    known: impl Iterator<Item = (&'a LockKey, &'a Told)>,
    query: &Query,
) -> Result<(), TestCaseError> {
    let all = Query { predicates: Vec::new(), ..query.clone() };
    let found = walk(&all, |query| reader.locks(query))?;
    let mut keys: Vec<(LockKey, Seq)> = found.iter().map(|lock| (lock.key, lock.seq)).collect();
    keys.sort_unstable();
    let known: BTreeMap<(LockKey, Seq), &Told> =
        known.map(|(key, told)| ((*key, told.made.0), told)).collect();
    prop_assert_eq!(&keys, &known.keys().copied().collect::<Vec<_>>(), "every lock, once");
    for lock in &found {
        let told = known[&(lock.key, lock.seq)];
        prop_assert_eq!((lock.end, lock.merchant, lock.payee), (told.end, told.merchant, told.payee));
        prop_assert_eq!((lock.seq, lock.asked), told.made, "{:?}", lock.key);
        if let Some(state) = &told.state {
            let amounts = |lock: &history::Lock| {
                (
                    lock.approved,
                    lock.headroom,
                    lock.captured,
                    lock.released,
                    lock.expired,
                    lock.remaining,
                    lock.pending,
                )
            };
            let of_state = (
                state.approved,
                state.headroom,
                state.captured,
                state.released,
                state.expired,
                state.remaining,
                state.pending,
            );
            prop_assert_eq!(amounts(lock), of_state);
            prop_assert_eq!(
                (lock.version, lock.deadline, &lock.captures),
                (state.version, state.deadline, &state.captures)
            );
        }
        // A call of no work may look at one alone.
        let of_id = reader.bounded(400).lock(lock.key.id).unwrap();
        prop_assert!(of_id.contains(lock), "found by its id");
    }
    // With predicates it is the same as without, but for those that are not meant.
    let of_locks = |predicate: &&Predicate| match predicate {
        Predicate::AnyOf(any) => any.iter().all(is_of_locks),
        predicate => is_of_locks(predicate),
    };
    let predicates: Vec<Predicate> = query.predicates.iter().filter(of_locks).cloned().collect();
    let some = Query { predicates: predicates.clone(), ..query.clone() };
    let meant = walk(&some, |query| reader.locks(query))?;
    let expected: Vec<_> = found
        .iter()
        .filter(|lock| predicates.iter().all(|predicate| is_meant_of_lock(lock, predicate)))
        .collect();
    prop_assert_eq!(meant.iter().collect::<Vec<_>>(), expected, "{:?}", some);
    for by in [OpenBy::Age, OpenBy::Deadline] {
        let open = walk_open(reader, by, &some)?;
        let key = |lock: &history::Lock| match by {
            OpenBy::Age => (lock.created, lock.key.partition.shard(), lock.seq),
            OpenBy::Deadline => (lock.deadline, lock.key.partition.shard(), lock.seq),
        };
        let is_open = |lock: &&history::Lock| {
            lock.end == End::Live && predicates.iter().all(|predicate| is_meant_of_lock(lock, predicate))
        };
        let mut expected: Vec<_> = found.iter().filter(is_open).collect();
        expected.sort_unstable_by_key(|lock| key(lock));
        prop_assert_eq!(open.iter().collect::<Vec<_>>(), expected, "{:?}", by);
    }
    Ok(())
}

fn is_of_locks(predicate: &Predicate) -> bool {
    !matches!(predicate, Predicate::Kind(_) | Predicate::Supplier(_) | Predicate::AnyOf(_))
}

fn is_meant_of_lock(lock: &history::Lock, predicate: &Predicate) -> bool {
    match predicate {
        Predicate::Lock(id) => lock.key.id == *id,
        Predicate::Merchant(merchant) => lock.merchant == *merchant,
        Predicate::Payee(payee) => lock.payee == *payee,
        Predicate::Partition(partition) => lock.key.partition == *partition,
        Predicate::Tenant(tenant) => lock.key.tenant == *tenant,
        Predicate::Code(code) => lock.code == *code,
        Predicate::State(end) => lock.end == *end,
        Predicate::Amount { min, max } => *min <= lock.asked && lock.asked <= *max,
        Predicate::Time { from, until } => *from <= lock.created && lock.created < *until,
        Predicate::AnyOf(any) => any.iter().any(|predicate| is_meant_of_lock(lock, predicate)),
        Predicate::Kind(_) | Predicate::Supplier(_) => false,
    }
}

/// A predicate, by numbers that choose out of what the records have, so that most of them mean something.
fn predicate(seen: &[Seen], attribute: u8, at: usize, other: usize) -> Predicate {
    let one = &seen[at % seen.len()];
    let two = &seen[other % seen.len()];
    let lock = one.lock.as_ref().or_else(|| one.named.first()?.1.as_ref());
    match attribute % 13 {
        0 => Predicate::Lock(one.record.lock()),
        1 => Predicate::Merchant(lock.map_or(MerchantId(7), |lock| lock.merchant)),
        2 => Predicate::Payee(lock.map_or(Address([0; 20]), |lock| lock.payee)),
        3 => Predicate::Partition(one.record.partition),
        4 => Predicate::Tenant(one.record.tenant),
        5 => Predicate::Supplier(Address([[1_u8, 2, 3, 4][other % 4]; 20])),
        6 => Predicate::Code(one.record.code().unwrap_or(Code::Approved)),
        7 => Predicate::Kind(one.record.kind().unwrap()),
        8 => Predicate::State(lock.map_or(End::Live, |lock| lock.end)),
        9 => {
            let (a, b) = (one.record.amount.0, two.record.amount.0);
            Predicate::Amount { min: a.min(b), max: a.max(b) }
        }
        10 => Predicate::Lock(one.named.first().map_or(Id(at as u128), |(id, _)| *id)),
        _ => {
            let (a, b) = (one.place.time, two.place.time);
            Predicate::Time { from: a.min(b), until: Time(a.max(b).0 + other as u64 % 2 + 1) }
        }
    }
}

fn combination(seen: &[Seen], choice: &[(u8, usize, usize)]) -> Vec<Predicate> {
    let one = |(attribute, at, other): &(u8, usize, usize)| match attribute {
        // Some are alternatives.
        200.. => Predicate::AnyOf(vec![
            predicate(seen, attribute % 13, *at, *other),
            predicate(seen, (attribute / 13) % 13, *other, *at),
        ]),
        attribute => predicate(seen, *attribute, *at, *other),
    };
    choice.iter().map(one).collect()
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12)
}

type Choice = (Vec<(u8, usize, usize)>, bool, usize, Option<usize>);

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    let predicates = prop::collection::vec((any::<u8>(), 0..2000_usize, 0..2000_usize), 0..4);
    let limit = prop_oneof![Just(1_usize), 2..20_usize, Just(1000)];
    prop::collection::vec((predicates, any::<bool>(), limit, prop::option::of(0..2000_usize)), 40)
}

/// One of the two tenants, the operator's, or none that there is.
fn tenant_of(number: usize) -> TenantId {
    TenantId(u32::try_from(number % 4).unwrap())
}

fn order(ascending: bool) -> Order {
    if ascending { Order::Ascending } else { Order::Descending }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_the_answer_is_that_of_a_plain_scan(
        policy in policies(),
        streams in prop::collection::vec(prop::collection::vec(events(), 1..250), 2),
        pieces in (1..300_usize, 1..300_usize),
        (shards, block_rows) in (prop::sample::select(vec![2_u16, 3, 5]), prop::sample::select(vec![1_u16, 4, 7, 128])),
        work in prop::sample::select(vec![0_u32, 3, 50, 400, 40_000]),
        choices in choices(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("history"), ENGINE, small(block_rows)).unwrap();
        let own = [log_of(&policy, &movable(&streams[0])), log_of(&policy, &movable(&streams[1]))];
        let mut scans = Vec::new();
        for shard in (0..shards).map(ShardId) {
            let log = moved(&own[usize::from(shard.0 % 2)], shard);
            feed(&store, shard, &log, if shard.0 % 2 == 0 { pieces.0 } else { pieces.1 });
            scans.push(Scan::of(shard, &log));
        }
        let reader = store.reader().bounded(work);
        let seen: Vec<Seen> = scans.iter().flat_map(|scan| scan.seen.iter().cloned()).collect();
        for (choice, ascending, limit, tenant) in &choices {
            let predicates = combination(&seen, choice);
            let query = Query { predicates, order: order(*ascending), cursor: None, limit: *limit };
            compare(&reader, &seen, &query)?;
            if let Some(tenant) = tenant.map(tenant_of) {
                let own: Vec<Seen> = seen.iter().filter(|seen| seen.record.tenant == tenant).map(|seen| Seen { balances: None, ..seen.clone() }).collect();
                compare(&reader.of(Scope::Tenant(tenant)), &own, &query)?;
            }
        }
        for (choice, ascending, limit, tenant) in choices.iter().take(6) {
            let predicates = combination(&seen, choice);
            let query = Query { predicates, order: order(*ascending), cursor: None, limit: *limit };
            compare_locks(&reader, scans.iter().flat_map(Scan::all_locks), &query)?;
            if let Some(tenant) = tenant.map(tenant_of) {
                let own = scans.iter().flat_map(Scan::all_locks).filter(|(key, _)| key.tenant == tenant);
                compare_locks(&reader.of(Scope::Tenant(tenant)), own, &query)?;
            }
        }
        compare_balances(&reader, &seen)?;
    }

    /// Shards are indexed as unevenly as can be while somebody walks: an ascending walk shows everything once it has come in, each record
    /// once, and in order what was complete when it began; a descending one shows what there was when it began, in order.
    #[test]
    fn a_walk_beside_uneven_indexing_shows_everything_once(
        policy in policies(),
        stream in prop::collection::vec(events(), 1..80),
        (shards, block_rows) in (prop::sample::select(vec![1_u16, 2, 4]), prop::sample::select(vec![1_u16, 4, 128])),
        work in prop::sample::select(vec![0_u32, 20, 40_000]),
        limit in prop::sample::select(vec![1_usize, 7, 1000]),
        choice in prop::collection::vec((any::<u8>(), 0..2000_usize, 0..2000_usize), 0..2),
        steps in prop::collection::vec((any::<u16>(), 0..40_usize, any::<bool>()), 60),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("history"), ENGINE, small(block_rows)).unwrap();
        let log = log_of(&policy, &movable(&stream));
        let logs: Vec<Vec<Record>> = (0..shards).map(|shard| moved(&log, ShardId(shard))).collect();
        let all: Vec<Seen> = (0..shards).flat_map(|shard| Scan::of(ShardId(shard), &logs[usize::from(shard)]).seen).collect();
        let predicates = combination(&all, &choice);
        let meant = |seen: &&Seen| predicates.iter().all(|predicate| is_meant(seen, predicate));
        let mut indexers: Vec<Indexer> = (0..shards).map(|shard| {
            let ledger = Ledger::new(Config { shard: ShardId(shard), ..config() });
            Indexer::new(store.clone(), ShardId(shard), ledger).unwrap()
        }).collect();
        let horizon = Horizon::new(shards);
        let reader = store.reader_with(horizon.clone()).bounded(work);
        let mut up = Query { predicates: predicates.clone(), order: Order::Ascending, cursor: None, limit };
        let mut down: Option<(Query, Vec<Place>)> = None;
        let (mut risen, mut fallen) = (Vec::new(), Vec::new());
        let mut complete = None;
        let place = |row: &history::Row| Place { time: row.time, shard: row.shard, seq: row.seq };
        for (shard, records, asks) in steps {
            let shard = usize::from(shard % shards);
            let indexer = &mut indexers[shard];
            let from = usize::try_from(indexer.wanted().0 - 1).unwrap();
            let until = (from + records).min(logs[shard].len());
            indexer.take(indexer.wanted(), Epoch(1), &logs[shard][from..until]).unwrap();
            indexer.commit().unwrap();
            if !asks {
                continue;
            }
            let page = reader.records(&up).unwrap();
            prop_assert!(page.rows.is_sorted_by_key(place), "in order within a page");
            for (shard, log) in logs.iter().enumerate() {
                let missing = log.get(usize::try_from(indexers[shard].stored().0 - 1).unwrap());
                prop_assert!(missing.is_none_or(|record| record.kind() == Some(Kind::Continuation) || record.time >= page.complete_before));
            }
            complete.get_or_insert(page.complete_before);
            risen.extend(page.rows.iter().map(place));
            up.cursor = page.cursor;
            let (query, _) = down.get_or_insert_with(|| {
                let stored: Vec<Seq> = indexers.iter().map(Indexer::stored).collect();
                let is_there = |seen: &&Seen| seen.place.seq < stored[usize::from(seen.place.shard.0)];
                let mut expected: Vec<Place> = all.iter().filter(meant).filter(is_there).map(|seen| seen.place).collect();
                expected.sort_unstable_by(|one, two| two.cmp(one));
                (Query { order: Order::Descending, cursor: None, ..up.clone() }, expected)
            });
            let page = reader.records(query).unwrap();
            fallen.extend(page.rows.iter().map(place));
            query.cursor = page.cursor;
        }
        for (indexer, log) in indexers.iter_mut().zip(&logs) {
            let from = usize::try_from(indexer.wanted().0 - 1).unwrap();
            indexer.take(indexer.wanted(), Epoch(1), &log[from..]).unwrap();
            indexer.commit().unwrap();
        }
        risen.extend(walk(&up, |query| reader.records(query))?.iter().map(place));
        if let Some((query, expected)) = down {
            fallen.extend(walk(&query, |query| reader.records(query))?.iter().map(place));
            prop_assert_eq!(fallen, expected);
        }
        let early: Vec<&Place> = risen.iter().filter(|place| complete.is_some_and(|complete| place.time < complete)).collect();
        prop_assert!(early.is_sorted(), "what was complete comes in order over all pages");
        risen.sort_unstable();
        let mut expected: Vec<Place> = all.iter().filter(meant).map(|seen| seen.place).collect();
        expected.sort_unstable();
        prop_assert_eq!(risen, expected);
    }
}

/// What was decided before a loss, the loss, and what comes behind it are rows of one log, and an index that begins anew anywhere goes on.
#[test]
fn a_log_with_a_loss_is_indexed_to_its_end() {
    let mut runner = TestRunner::deterministic();
    let sequence = (policies(), losing_sequence());
    let mut losses = 0;
    for piece in [1, 7, 40, 1000] {
        let (policy, events) = sequence.new_tree(&mut runner).unwrap().current();
        let log = log_of(&policy, &events);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("history"), ENGINE, small(4)).unwrap();
        feed(&store, ShardId(0), &log, piece);
        let query = Query { predicates: vec![], order: Order::Ascending, cursor: None, limit: 7 };
        let reader = store.reader();
        let rows = walk(&query, |query| reader.records(query)).unwrap();
        let seqs: Vec<Seq> = rows.iter().map(|row| row.seq).collect();
        let told = (1..).map(Seq).zip(&log).filter(|(_, record)| record.kind() != Some(Kind::Continuation));
        assert_eq!(seqs, told.map(|(seq, _)| seq).collect::<Vec<_>>());
        losses += rows.iter().filter(|row| row.record.kind() == Some(Kind::Loss)).count();
    }
    assert!(losses >= 4, "{losses}");
}

/// Of many shards, with nearly everything at the same moment, and calls that do next to nothing: walks end, and leave nothing out.
#[test]
fn a_walk_by_calls_of_hardly_any_work_comes_to_its_end() {
    let log = busy_log(60);
    for shards in [1_u16, 2, 7, 70] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("history"), ENGINE, small(4)).unwrap();
        let mut seen = Vec::new();
        for shard in (0..shards).map(ShardId) {
            let log = moved(&log, shard);
            feed(&store, shard, &log, log.len());
            seen.extend(Scan::of(shard, &log).seen);
        }
        let kind =
            Predicate::AnyOf(vec![Predicate::Kind(Kind::Capture), Predicate::Amount { min: 100, max: 200 }]);
        // Some leave no block out, some leave out many.
        let few = Predicate::AnyOf(vec![Predicate::Kind(Kind::Release), Predicate::Kind(Kind::Deposit)]);
        for predicates in [vec![], vec![kind], vec![few], vec![Predicate::Code(Code::Frozen)]] {
            for (work, limit) in [(0, 1), (0, 1000), (1, 3), (300, 10)] {
                for order in [Order::Ascending, Order::Descending] {
                    let query = Query { predicates: predicates.clone(), order, cursor: None, limit };
                    let before = PAUSES.get();
                    compare(&store.reader().bounded(work), &seen, &query).unwrap();
                    // One step may tell that there is nothing; that every block is looked into takes many calls.
                    let paused = PAUSES.get() > before || !predicates.is_empty();
                    assert!(
                        paused || work > 0 || limit < 1000,
                        "{shards} shards: no call ended early: {query:?}"
                    );
                }
            }
        }
    }
}

/// A cursor goes with its order, and with an index that has its shards.
#[test]
fn a_cursor_of_another_walk_is_refused_by_name() {
    let log = some_log(30);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("history"), ENGINE).unwrap();
    feed(&store, ShardId(0), &log, log.len());
    let reader = store.reader();
    let up = Query { order: Order::Ascending, limit: 3, ..Query::default() };
    let cursor = reader.records(&up).unwrap().cursor;
    let turned = reader.records(&Query { order: Order::Descending, cursor: cursor.clone(), ..up.clone() });
    assert!(matches!(turned, Err(QueryError::CursorOrder { .. })), "{turned:?}");
    let wide = store.reader_with(Horizon::new(3));
    let three = wide.records(&up).unwrap().cursor;
    let fewer = reader.records(&Query { cursor: three, ..up.clone() });
    assert!(matches!(fewer, Err(QueryError::CursorShards { found: 3, shards: 1 })), "{fewer:?}");
    let later = wide.records(&Query { cursor, ..up.clone() });
    assert!(later.is_ok(), "shards that came later are new to it");
    let open = reader.open_locks(OpenBy::Age, &[], None, 1).unwrap().cursor;
    if open.is_some() {
        let other = reader.open_locks(OpenBy::Deadline, &[], open, 1);
        assert!(matches!(other, Err(QueryError::Cursor(_))), "{other:?}");
    }
    assert!("AAAA".parse::<Cursor>().is_err());
    // The same records in another store, whose key is another.
    let other = Store::open(&directory.path().join("other"), ENGINE).unwrap();
    feed(&other, ShardId(0), &log, log.len());
    let cursor = reader.records(&up).unwrap().cursor;
    let foreign = other.reader().records(&Query { cursor: cursor.clone(), ..up.clone() });
    assert!(matches!(foreign, Err(QueryError::Cursor(_))), "{foreign:?}");
    let tenants = reader.of(Scope::Tenant(world::T1));
    let lent = tenants.records(&Query { cursor: cursor.clone(), ..up.clone() });
    assert!(matches!(lent, Err(QueryError::Cursor(_))), "the operator's, in a tenant's hands: {lent:?}");
    drop((reader, tenants, store, wide));
    let again = Store::open(&directory.path().join("history"), ENGINE).unwrap();
    assert!(again.reader().records(&Query { cursor, ..up }).is_ok(), "cursors live as long as the store");
}

/// Nothing that a tenant is given changes with what others do: the length of a cursor does not, and neither is there one more of it.
#[test]
fn a_tenant_learns_nothing_of_others_by_its_cursors() {
    let mut world = world::World::new();
    world.deposit(world::P1, 1_000_000);
    let before = world.log.len();
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.send(&world::lock(name, 100));
        world.wait(1);
    }
    let log = world.log;
    let given = |records: usize, live: usize| {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("history"), ENGINE).unwrap();
        feed(&store, ShardId(0), &log[..records], records);
        let all = store.reader().open_locks(OpenBy::Age, &[], None, 10).unwrap();
        assert_eq!(all.rows.len(), live, "the operator sees them");
        // A tenant that has nothing.
        let reader = store.reader().of(Scope::Tenant(TenantId(99)));
        let of = |query: &Query| {
            let (rows, locks) = (reader.records(query).unwrap(), reader.locks(query).unwrap());
            assert!(rows.rows.is_empty() && locks.rows.is_empty());
            [rows.cursor.unwrap().to_string().len(), locks.cursor.unwrap().to_string().len()]
        };
        for by in [OpenBy::Age, OpenBy::Deadline] {
            let page = reader.open_locks(by, &[], None, 10).unwrap();
            assert!(page.cursor.is_none() && !page.has_more, "others' live locks");
        }
        (of(&Query { order: Order::Ascending, ..Query::default() }), of(&Query::default()))
    };
    assert_eq!(given(before, 0), given(log.len(), 6));
}

/// Everything is complete before the least moment that is known of a shard.
#[test]
fn an_index_is_complete_up_to_its_slowest_shard() {
    let log = some_log(30);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let store = Store::open(&path, ENGINE).unwrap();
    let complete = |reader: &Reader| reader.records(&Query::default()).unwrap().complete_before;
    let mut indexer = Indexer::new(store.clone(), ShardId(0), Ledger::new(config())).unwrap();
    indexer.take(Seq(1), Epoch(4), &log).unwrap();
    indexer.commit().unwrap();
    assert_eq!(complete(&store.reader()), Time::ZERO, "nobody has said how many shards there are");
    store.note_shards(1).unwrap();
    let last = log.iter().rfind(|record| record.kind() != Some(Kind::Continuation)).unwrap().time;
    assert_eq!(complete(&store.reader()), last);
    let horizon = Horizon::new(2);
    let reader = store.reader_with(horizon.clone());
    assert_eq!(complete(&reader), Time::ZERO, "nothing is known of the second shard");
    horizon.advance(ShardId(1), Epoch(4), Time(last.0 + 9));
    assert_eq!(complete(&reader), last);
    horizon.advance(ShardId(0), Epoch(3), Time(last.0 + 7));
    assert_eq!(complete(&reader), last, "an epoch before that of the records says nothing");
    horizon.advance(ShardId(0), Epoch(4), Time(last.0 + 5));
    horizon.advance(ShardId(0), Epoch(4), Time(1));
    assert_eq!(complete(&reader), Time(last.0 + 5));
    // A statement goes by what is logged: the engine may start again, by a clock that was set back.
    let account = Account::Partition(world::P1);
    assert_eq!(reader.complete_for(&account).unwrap(), last);
    let late = reader.statement(&StatementQuery::new(account, Time(0), Time(last.0 + 1)));
    assert!(matches!(late, Err(QueryError::NotComplete { complete_before, .. }) if complete_before == last));
    let merchant = Account::Merchant { tenant: world::T1, merchant: world::MERCHANT };
    assert_eq!(reader.complete_for(&merchant).unwrap(), Time::ZERO, "it may have locks in the second shard");
    store.note_shards(3).unwrap();
    store.note_shards(2).unwrap();
    drop((store, reader, indexer));
    let reader = Reader::open(&path, ENGINE).unwrap();
    assert_eq!(
        complete(&reader),
        Time::ZERO,
        "shards that are not begun count, without anybody who feeds it"
    );
    assert_eq!(reader.complete_for(&account).unwrap(), last, "and to a partition its own alone");
}

/// Another tenant's locks, records, balances and suppliers are as if they were not there, or refused.
#[test]
fn a_tenant_sees_its_own() {
    let log = some_log(200);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("history"), ENGINE).unwrap();
    feed(&store, ShardId(0), &log, log.len());
    let scan = Scan::of(ShardId(0), &log);
    for tenant in [world::T1, world::T2, TenantId(99)] {
        let reader = store.reader().of(Scope::Tenant(tenant));
        for key in scan.locks.keys() {
            let found = reader.lock(key.id).unwrap();
            assert!(found.iter().all(|lock| lock.key.tenant == tenant));
            assert_eq!(found.iter().any(|lock| lock.key == *key), key.tenant == tenant);
            assert_eq!(reader.lock_of(key).unwrap().is_some(), key.tenant == tenant);
        }
        for seen in &scan.seen {
            let found = reader.record(ShardId(0), seen.place.seq).unwrap();
            assert_eq!(!found.is_empty(), seen.record.tenant == tenant, "{seen:?}");
            assert!(found.iter().all(|row| row.balances.is_none()), "the money of all tenants");
        }
        for (seq, record) in
            (1..).map(Seq).zip(&log).filter(|(_, record)| record.kind() == Some(Kind::Continuation))
        {
            assert_eq!(reader.record(ShardId(0), seq).unwrap(), [], "the payload of {record:?}");
        }
        let own = Query { limit: 1000, ..Query::default() };
        assert!(reader.records(&own).unwrap().rows.iter().all(|row| row.balances.is_none()));
        let whole = |result: Result<(), QueryError>| matches!(result, Err(QueryError::OperatorOnly(_)));
        assert!(whole(reader.positions().map(drop)) && whole(reader.digest().map(drop)));
        assert!(whole(reader.bytes().map(drop)) && whole(reader.table_bytes().map(drop)));
        let refused = reader.balances(world::P1, Time(u64::MAX));
        assert!(matches!(refused, Err(QueryError::OperatorOnly(_))), "{refused:?}");
        let refused = reader.supplier(world::P1, world::SUPPLIER, Time(u64::MAX));
        assert!(matches!(refused, Err(QueryError::OperatorOnly(_))), "{refused:?}");
    }
}

/// Ids are a tenant's own within a partition: a chain may change two locks of one id, and each is told as its own.
#[test]
fn one_id_in_two_partitions_of_a_chain_is_two_locks() {
    let mut world = world::World::new();
    world.deposit(world::P1, 1000);
    world.deposit(world::P2, 1000);
    world.send(&world::lock("twin", 70).partition(world::P2));
    world.wait(5);
    let asked = [world::lock("twin", 100).linked(), world::capture("twin", 30).partition(world::P2)];
    let (_, replies) = world.chain(&asked);
    assert!(replies.iter().all(|reply| reply.code == Code::Approved as u8), "{replies:?}");
    let log = world.log;
    let scan = Scan::of(ShardId(0), &log);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("history"), ENGINE).unwrap();
    feed(&store, ShardId(0), &log, log.len());
    let reader = store.reader();
    compare(&reader, &scan.seen, &Query { order: Order::Ascending, ..Query::default() }).unwrap();
    compare_locks(&reader, scan.all_locks(), &Query::default()).unwrap();
    let id = log.iter().rfind(|record| record.kind() == Some(Kind::Lock)).unwrap().id;
    let mut amounts: Vec<_> =
        reader.lock(id).unwrap().iter().map(|lock| (lock.approved, lock.captured)).collect();
    amounts.sort_unstable();
    assert_eq!(amounts, [(70, 30), (100, 0)]);
}

/// The ledger forgets a lock that has ended; an advice under its id makes another one. The index tells both.
#[test]
fn a_lock_that_was_forgotten_stays_beside_the_one_that_an_advice_made() {
    let mut world = world::World::new();
    world.is_strict = false;
    let made = world.send(&world::lock("old", 100));
    assert_eq!(made.code, Code::Approved as u8);
    world.send(&world::release("old"));
    world.wait(400 * 24 * 3600 * 1000);
    assert_eq!(world.end("old"), End::None, "forgotten");
    let advised = world.send(&world::advice("old", 30));
    assert_eq!(advised.code, Code::Approved as u8);
    let id = world.id("old");
    let log = world.log;
    let scan = Scan::of(ShardId(0), &log);
    assert_eq!(scan.replaced.len(), 1);
    for piece in [1, log.len()] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("history"), ENGINE).unwrap();
        feed(&store, ShardId(0), &log, piece);
        let reader = store.reader();
        compare_locks(&reader, scan.all_locks(), &Query::default()).unwrap();
        let found = reader.lock(id).unwrap();
        let told: Vec<_> = found.iter().map(|lock| (lock.end, lock.approved, lock.released)).collect();
        assert_eq!(told, [(End::Exposed, 30, 0), (End::Released, 100, 100)], "in pieces of {piece}");
    }
}

/// Others may have as many locks under an id as they like: a call looks at so many of them and says so.
#[test]
fn a_call_for_an_id_is_bounded() {
    let log = some_log(60);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("history"), ENGINE).unwrap();
    feed(&store, ShardId(0), &log, log.len());
    let key = *Scan::of(ShardId(0), &log).locks.keys().next().unwrap();
    drop(store);
    let database = fjall::Database::builder(directory.path().join("history")).open().unwrap();
    let locks = database.keyspace("locks", fjall::KeyspaceCreateOptions::default).unwrap();
    let own = locks.prefix(key.id.0.to_be_bytes()).next().unwrap().into_inner().unwrap();
    for tenant in 1000..1100_u32 {
        let mut place = own.0.to_vec();
        place.truncate(24);
        place.extend_from_slice(&tenant.to_be_bytes());
        locks.insert(place, own.1.clone()).unwrap();
    }
    // As many in a partition before it.
    for tenant in 1000..1100_u32 {
        let place = [&own.0[..16], &[0; 8], &tenant.to_be_bytes()[..]].concat();
        locks.insert(place, own.1.clone()).unwrap();
    }
    drop((locks, database));
    let store = Store::open(&directory.path().join("history"), ENGINE).unwrap();
    let reader = store.reader().of(Scope::Tenant(key.tenant));
    assert_eq!(reader.lock(key.id).unwrap().iter().filter(|lock| lock.key == key).count(), 1);
    let (some, are_cut) = store.reader().locks_of_id(key.id, None).unwrap();
    assert!(are_cut && some.len() == 64 && some.iter().all(|lock| lock.key != key), "others come first");
    let (own, _) = store.reader().locks_of_id(key.id, Some(key.partition)).unwrap();
    assert!(own.iter().any(|lock| lock.key == key), "it is found by its partition");
    let other = store.reader().of(Scope::Tenant(TenantId(99))).bounded(50);
    let found = other.lock(key.id);
    assert!(matches!(found, Err(QueryError::TooManyLocks(id)) if id == key.id), "{found:?}");
    assert!(other.lock_of(&key).unwrap().is_none());
}

/// The money of every partition as of every moment that something happened, and of one just before.
fn compare_balances(reader: &Reader, seen: &[Seen]) -> Result<(), TestCaseError> {
    for at in seen.iter().step_by(7).flat_map(|seen| [seen.place.time, Time(seen.place.time.0 - 1)]) {
        for partition in [world::P1, PartitionHandle::new(ShardId(1), 2), PartitionHandle(99)] {
            let is_it = |seen: &&Seen| {
                seen.record.partition == partition && seen.place.time <= at && seen.balances.is_some()
            };
            let expected =
                seen.iter().filter(is_it).max_by_key(|seen| seen.place).and_then(|seen| seen.balances);
            prop_assert_eq!(reader.balances(partition, at).unwrap(), expected, "{:?} at {:?}", partition, at);
        }
    }
    Ok(())
}

#[test]
fn an_index_is_the_same_however_it_was_fed() {
    let log = some_log(400);
    let digest = |piece: usize| {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("history"), ENGINE, small(128)).unwrap();
        feed(&store, ShardId(0), &log, piece);
        store.reader().digest().unwrap()
    };
    let whole = digest(log.len());
    for piece in [1, 7, 128, 129] {
        assert_eq!(digest(piece), whole, "fed {piece} at a time");
    }
}

/// The comparison sees what it is there for: an index without the postings of one attribute answers too little.
#[test]
fn a_posting_that_is_left_out_is_found() {
    let log = some_log(300);
    let seen = Scan::of(ShardId(0), &log).seen;
    let locked =
        seen.iter().find(|seen| seen.lock.as_ref().is_some_and(|lock| lock.end == End::Live)).unwrap();
    let lock = locked.lock.as_ref().unwrap();
    let supplier = seen.iter().find(|seen| seen.record.kind() == Some(Kind::Deposit)).unwrap();
    let attributes = [
        Predicate::Lock(locked.record.lock()),
        Predicate::Merchant(lock.merchant),
        Predicate::Payee(lock.payee),
        Predicate::Partition(locked.record.partition),
        Predicate::Tenant(locked.record.tenant),
        Predicate::Supplier(supplier.record.body::<StakeBody>().supplier),
        Predicate::Code(locked.record.code().unwrap()),
        Predicate::Kind(locked.record.kind().unwrap()),
        Predicate::State(End::Live),
    ];
    for (attribute, predicate) in (1_u8..).zip(attributes) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        feed(&Store::open(&path, ENGINE).unwrap(), ShardId(0), &log, 100);
        let query = Query::new(vec![predicate]);
        compare(&Store::open(&path, ENGINE).unwrap().reader(), &seen, &query).unwrap();
        let database = fjall::Database::builder(&path).open().unwrap();
        let postings = database.keyspace("postings", fjall::KeyspaceCreateOptions::default).unwrap();
        let keys: Vec<_> = postings.prefix([attribute]).map(|item| item.key().unwrap()).collect();
        assert!(!keys.is_empty(), "{query:?}");
        keys.into_iter().for_each(|key| postings.remove(key).unwrap());
        drop((postings, database));
        let missed = compare(&Store::open(&path, ENGINE).unwrap().reader(), &seen, &query);
        assert!(missed.is_err(), "without the postings of attribute {attribute}: {query:?}");
    }
}
