//! Statements of partitions, suppliers and merchants between any two moments, in pages of any size: they open and close with what the
//! ledger had then, and every line leads on by what its record says. One record less, and there is no statement.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

#[path = "../../ledger/tests/world/events.rs"]
mod events;
mod scan;
#[path = "../../ledger/tests/world/mod.rs"]
mod world;

use std::collections::BTreeSet;

use events::{events, policies};
use history::{
    Account, Line, MerchantTotals, PAGE_ROWS_MAX, QueryError, Reader, Scope, StatementCursor, StatementQuery,
    Store,
};
use proptest::prelude::*;
use scan::*;
use surety_protocol::*;

/// What a statement comes to.
struct Whole {
    opening: Vec<u128>,
    lines: Vec<Line>,
    closing: Vec<u128>,
}

/// Every page of a statement.
fn whole(reader: &Reader, query: &StatementQuery) -> Result<Whole, QueryError> {
    let mut query = query.clone();
    let mut whole = Whole { opening: Vec::new(), lines: Vec::new(), closing: Vec::new() };
    let mut is_first = true;
    loop {
        let page = reader.statement(&query)?;
        assert_eq!(page.opening.is_some(), is_first, "the opening stands on the first page");
        assert_eq!(page.closing.is_some(), page.cursor.is_none(), "the closing stands on the last page");
        whole.opening.extend(page.opening.unwrap_or_default());
        whole.closing.extend(page.closing.unwrap_or_default());
        whole.lines.extend(page.lines);
        assert_eq!(page.lines_so_far, whole.lines.len() as u64);
        let Some(cursor) = page.cursor else { return Ok(whole) };
        query.cursor = Some(cursor.to_string().parse::<StatementCursor>().unwrap());
        is_first = false;
    }
}

/// The account as the ledger had it before a moment, in one shard.
fn amounts(seen: &[Seen], account: &Account, shard: ShardId, before: Time) -> Vec<u128> {
    let mut past = seen.iter().filter(|seen| seen.place.shard == shard && seen.place.time < before);
    match account {
        Account::Partition(partition) => {
            let last = past.rfind(|seen| seen.record.partition == *partition && seen.balances.is_some());
            last.and_then(|seen| seen.balances).unwrap_or_default().to_array().to_vec()
        }
        Account::Supplier { partition, supplier } => {
            let last = past.rfind(|seen| seen.record.partition == *partition);
            let found =
                last.and_then(|last| last.suppliers.iter().find(|(_, state)| state.supplier == *supplier));
            found.map_or(vec![0; 3], |(_, state)| vec![state.units, state.queued, state.value])
        }
        Account::Merchant { tenant, merchant } => {
            let totals = past.next_back().and_then(|last| last.merchants.get(&(*tenant, *merchant)).copied());
            totals.unwrap_or_default().to_vec()
        }
    }
}

fn check(reader: &Reader, seen: &[Seen], shards: u16, query: &StatementQuery) -> Result<(), TestCaseError> {
    let statement = whole(reader, query).unwrap();
    let columns = query.account.columns().len();
    let known = if matches!(query.account, Account::Supplier { .. }) { 3 } else { columns };
    let of = |moment| {
        let of_shard = |shard| amounts(seen, &query.account, ShardId(shard), moment);
        let all = (0..shards)
            .map(of_shard)
            .reduce(|one, two| one.into_iter().zip(two).map(|(one, two)| one + two).collect());
        all.unwrap()
    };
    prop_assert_eq!(&statement.opening[..known], &of(query.from)[..], "{:?}", query);
    prop_assert_eq!(&statement.closing[..known], &of(query.until)[..], "{:?}", query);
    let mut sums = statement.opening.clone();
    for line in &statement.lines {
        prop_assert!(query.from <= line.row.time && line.row.time < query.until);
        for (sum, change) in sums.iter_mut().zip(&line.changes) {
            *sum = sum.checked_add_signed(*change).unwrap();
        }
        prop_assert_eq!(&sums, &line.after);
        if let Account::Partition(_) = query.account {
            let [k, d, f, h, u, p, w, ..] = line.after[..] else { unreachable!() };
            prop_assert_eq!(k + d, f + h + u + p + w);
        }
    }
    prop_assert_eq!(&sums, &statement.closing);
    if let Account::Supplier { .. } = query.account {
        let [_, _, before, ..] = statement.opening[..] else { unreachable!() };
        let [_, _, value, came, went, won, lost] = statement.closing[..] else { unreachable!() };
        prop_assert_eq!(before + came + won, value + went + lost, "{:?}", query);
    }
    Ok(())
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_statement_between_any_two_moments_adds_up_to_the_ledger(
        policy in policies(),
        streams in prop::collection::vec(prop::collection::vec(events(), 1..250), 2),
        block_rows in prop::sample::select(vec![1_u16, 4, 7, 128]),
        work in prop::sample::select(vec![0_u32, 50, 40_000]),
        periods in prop::collection::vec((0..2000_usize, 0..2000_usize, prop::sample::select(vec![1_usize, 2, 7, PAGE_ROWS_MAX])), 6),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("history"), ENGINE, small(block_rows)).unwrap();
        let mut seen = Vec::new();
        for (shard, stream) in (0..).map(ShardId).zip(&streams) {
            let log = moved(&log_of(&policy, &movable(stream)), shard);
            feed(&store, shard, &log, log.len());
            seen.extend(Scan::of(shard, &log).seen);
        }
        let reader = store.reader().bounded(work);
        let merchants: BTreeSet<(TenantId, MerchantId)> =
            seen.iter().flat_map(|seen| seen.merchants.keys().copied()).filter(|(_, merchant)| merchant.0 != 0).collect();
        let suppliers = [1_u8, 2, 3, 9].map(|byte| Address([byte; 20]));
        for (one, two, limit) in periods {
            let (one, two) = (seen[one % seen.len()].place.time, seen[two % seen.len()].place.time);
            let (from, until) = (one.min(two), Time(one.max(two).0 + 1));
            let mut accounts: Vec<Account> = merchants.iter().map(|(tenant, merchant)| Account::Merchant { tenant: *tenant, merchant: *merchant }).collect();
            for partition in (0..2).flat_map(|shard| [1, 2].map(|number| PartitionHandle::new(ShardId(shard), number))) {
                accounts.push(Account::Partition(partition));
                accounts.extend(suppliers.map(|supplier| Account::Supplier { partition, supplier }));
            }
            for account in accounts {
                let end = reader.complete_for(&account).unwrap();
                let of_ever = StatementQuery { limit, ..StatementQuery::new(account, Time(0), end) };
                check(&reader, &seen, 2, &of_ever)?;
                if from < until.min(end) {
                    let of_some = StatementQuery { limit, ..StatementQuery::new(account, from, until.min(end)) };
                    check(&reader, &seen, 2, &of_some)?;
                }
            }
        }
        for one in seen.iter().step_by(9) {
            let at = one.place.time;
            for (partition, _) in &one.suppliers {
                for supplier in suppliers {
                    let account = Account::Supplier { partition: *partition, supplier };
                    let expected = amounts(&seen, &account, partition.shard(), Time(at.0 + 1));
                    let found = reader.supplier(*partition, supplier, at).unwrap().unwrap_or_default();
                    prop_assert_eq!(vec![found.units, found.queued, found.value], expected);
                }
            }
        }
    }
}

/// Takes the postings of attributes to one block after the other away: every statement that had a line there is refused, also where
/// nothing of the account comes behind the period. The period is so many quarters of all moments; of the blocks that had lines the first
/// ones are passed over.
fn refused_without(
    account: Account,
    attributes: &[u8],
    quarters: usize,
    passed_over: impl Fn(usize) -> usize,
) -> usize {
    let log = busy_log(400);
    let seen = Scan::of(ShardId(0), &log).seen;
    let moments: BTreeSet<Time> = seen.iter().map(|seen| seen.place.time).collect();
    let (from, until) =
        (*moments.first().unwrap(), *moments.iter().nth((moments.len() - 1) * quarters / 4).unwrap());
    let query = StatementQuery { limit: 5, ..StatementQuery::new(account, from, until) };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    feed(&Store::open_with(&path, ENGINE, small(4)).unwrap(), ShardId(0), &log, log.len());
    let open = || Store::open_with(&path, ENGINE, small(4)).unwrap();
    let blocks_of = |whole: &Whole| -> BTreeSet<u64> {
        whole.lines.iter().map(|line| (line.row.seq.0 - 1) / 4).collect()
    };
    let lined = blocks_of(&whole(&open().reader(), &query).unwrap());
    let mut refused = 0;
    for block in lined.iter().skip(passed_over(lined.len())) {
        let database = fjall::Database::builder(&path).open().unwrap();
        let postings = database.keyspace("postings", fjall::KeyspaceCreateOptions::default).unwrap();
        let is_it = |key: &[u8]| key.ends_with(&block.to_be_bytes());
        let of_attribute = |attribute: &u8| postings.prefix([*attribute]).map(|item| item.key().unwrap());
        let keys: Vec<_> = attributes.iter().flat_map(of_attribute).filter(|key| is_it(key)).collect();
        keys.iter().for_each(|key| postings.remove(key.clone()).unwrap());
        drop(postings);
        drop(database);
        let found = whole(&open().reader(), &query);
        assert!(
            matches!(found, Err(QueryError::Uneven { .. } | QueryError::UnevenClosing { .. })),
            "{account} without attributes {attributes:?} of block {block} of {lined:?}: {:?}",
            found.map(|whole| whole.closing)
        );
        refused += 1;
        let database = fjall::Database::builder(&path).open().unwrap();
        let postings = database.keyspace("postings", fjall::KeyspaceCreateOptions::default).unwrap();
        keys.into_iter().for_each(|key| postings.insert(key, []).unwrap());
    }
    refused
}

#[test]
fn a_statement_that_misses_a_record_is_refused() {
    let (partition, tenant, merchant) = (world::P1, world::T1, world::MERCHANT);
    let supplier = world::SUPPLIER;
    for quarters in [3, 4] {
        let refused = |account, attributes| refused_without(account, attributes, quarters, |_| 0);
        assert!(refused(Account::Partition(partition), &[4]) > 10);
        for attributes in [&[2], &[5], &[11]] {
            assert!(refused(Account::Merchant { tenant, merchant }, attributes) > 3);
        }
        assert!(refused(Account::Supplier { partition, supplier }, &[4]) > 2);
    }
    // Of the last block everything may be gone that leads there.
    let account = Account::Merchant { tenant, merchant };
    assert_eq!(refused_without(account, &[2, 11], 4, |blocks| blocks - 1), 1);
}

/// A row of a chain tells how things stood after all of it. Payments that are captured and at once consumed, by another record of the same
/// chain, have statements of partition, supplier and merchant, whichever way they are paged.
#[test]
fn chains_that_consume_have_statements() {
    use world::{capture, consume, lock};
    let mut world = world::World::new();
    world.deposit_by(world::SUPPLIER, 1_000);
    for (name, parts) in [("a", 1), ("b", 2)] {
        world.send(&lock(name, 100));
        world.wait(5);
        let mut chain = vec![capture(name, 40).linked(), consume(name, 0, 40)];
        if parts == 2 {
            chain.insert(2, capture(name, 30).linked());
            chain.insert(3, consume(name, 1, 30));
            chain[1] = chain[1].clone().linked();
        }
        let (_, replies) = world.chain(&chain);
        assert!(replies.iter().all(|reply| reply.code == Code::Approved as u8), "{replies:?}");
        world.wait(5);
    }
    world.price(world::PAR, 0);
    let log = world.log;
    let seen = Scan::of(ShardId(0), &log).seen;
    let (partition, tenant, merchant) = (world::P1, world::T1, world::MERCHANT);
    let supplier = world::SUPPLIER;
    let accounts = [
        Account::Partition(partition),
        Account::Supplier { partition, supplier },
        Account::Merchant { tenant, merchant },
    ];
    for block_rows in [1, 3, 128] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("history"), ENGINE, small(block_rows)).unwrap();
        feed(&store, ShardId(0), &log, log.len());
        let reader = store.reader();
        for account in accounts {
            let end = reader.complete_for(&account).unwrap();
            for limit in [1, 2, 1000] {
                let query = StatementQuery { limit, ..StatementQuery::new(account, Time(0), end) };
                check(&reader, &seen, 1, &query).unwrap();
                assert!(whole(&reader, &query).unwrap().lines.len() >= 3, "{account}");
            }
        }
    }
}

/// What a line is held against is work as well: a page ends where that is done, and the next one goes on.
#[test]
fn a_statement_pages_by_work_too() {
    let mut world = world::World::new();
    world.deposit(world::P1, 1_000_000);
    for number in 0..100 {
        world.send(&world::lock(format!("lock {number}").leak(), 100));
        world.wait(1);
    }
    world.price(world::PAR, 0);
    let log = world.log;
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_with(&directory.path().join("history"), ENGINE, small(128)).unwrap();
    feed(&store, ShardId(0), &log, log.len());
    let account = Account::Merchant { tenant: world::T1, merchant: world::MERCHANT };
    let reader = store.reader();
    let end = reader.complete_for(&account).unwrap();
    let query = StatementQuery::new(account, Time(0), end);
    let all = whole(&reader, &query).unwrap();
    assert!(all.lines.len() == 100, "{}", all.lines.len());
    assert!(reader.statement(&query).unwrap().closing.is_some(), "there is work enough for one page");
    for work in [0, 100, 300, 600] {
        let some = reader.bounded(work);
        let first = some.statement(&query).unwrap();
        // For each line one look and a block, out of one half of the work.
        let lines_max = usize::try_from(work / 2).unwrap() / 17 + 2;
        assert!(first.lines.len() <= lines_max, "{work}: {} of {}", first.lines.len(), all.lines.len());
        let by_work = whole(&some, &query).unwrap();
        assert_eq!((by_work.opening, by_work.closing), (all.opening.clone(), all.closing.clone()));
        assert_eq!(by_work.lines, all.lines, "every line, once");
    }
}

#[test]
fn a_statement_is_refused_by_name() {
    let log = some_log(100);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("history"), ENGINE).unwrap();
    feed(&store, ShardId(0), &log, log.len());
    let reader = store.reader();
    let last = reader.records(&history::Query::default()).unwrap().complete_before;
    let ours = Account::Merchant { tenant: world::T1, merchant: world::MERCHANT };
    let theirs = Account::Merchant { tenant: world::T2, merchant: world::MERCHANT };
    let partition = Account::Partition(world::P1);
    let supplier = Account::Supplier { partition: world::P1, supplier: world::SUPPLIER };
    let ask = |account| StatementQuery::new(account, Time(0), last);
    let late = reader.statement(&StatementQuery { until: Time(last.0 + 1), ..ask(partition) });
    assert!(matches!(late, Err(QueryError::NotComplete { .. })), "{late:?}");
    let empty = reader.statement(&StatementQuery { from: last, ..ask(partition) });
    assert!(matches!(empty, Err(QueryError::EmptyRange(_))), "{empty:?}");
    for limit in [0, PAGE_ROWS_MAX + 1] {
        let page = reader.statement(&StatementQuery { limit, ..ask(partition) });
        assert!(matches!(page, Err(QueryError::Limit { .. })), "{page:?}");
    }
    let tenant = reader.of(Scope::Tenant(world::T1));
    let own = tenant.statement(&ask(ours)).unwrap();
    assert!(!own.lines.is_empty() && own.lines.iter().all(|line| line.row.balances.is_none()));
    for account in [theirs, partition, supplier] {
        let refused = tenant.statement(&ask(account));
        assert!(matches!(refused, Err(QueryError::OperatorOnly(_))), "{refused:?}");
    }
    let first = reader.statement(&StatementQuery { limit: 1, ..ask(partition) }).unwrap();
    for other in [ask(supplier), StatementQuery { from: Time(1), ..ask(partition) }] {
        let refused = reader.statement(&StatementQuery { cursor: first.cursor.clone(), ..other });
        assert!(matches!(refused, Err(QueryError::Cursor(_))), "a cursor of another statement: {refused:?}");
    }
    assert_eq!(ours.columns(), MerchantTotals::NAMES);
}
