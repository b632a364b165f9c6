//! Answers, out of the index as it is at one moment.

use std::path::Path;

use surety_protocol::{EngineId, Id, PartitionHandle, Seq, ShardId, TenantId, Time};

use crate::codec::Position;
use crate::cursor::{Cursor, OpenCursor, OpenPlace, Progress};
use crate::error::{HistoryError, QueryError};
use crate::horizon::Horizon;
use crate::keys::{self, OpenBy, Term};
use crate::plan::{Budget, Plan, Prune, Step, WORK_MAX, Work};
use crate::query::{Order, Page, Predicate, Query};
use crate::row::{Balances, Lock, LockKey, Row};
use crate::seal::Key;
use crate::store::{Store, Table, View};
use crate::tell::{ShardStatus, State, Status};
use crate::walk::{Bounds, Walk, walk};

/// Locks of one id that are told: ids are a tenant's own, and random.
const LOCKS_OF_ID_MAX: usize = 64;
/// Blocks that are read to find the nearest row.
const NEAREST_BLOCKS_MAX: u32 = 2;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The operator: everything.
    Operator,
    /// A tenant: its own records and locks, and statements of its merchants. All else is as if it were not there, or refused by kind. How many
    /// pages live locks take without showing one tells roughly how many of them all others have.
    Tenant(TenantId),
}

/// Asks the index. Cheap to clone; every call answers out of the index as it is when the call begins. But for [`Reader::digest`] every
/// call does a bounded amount of work, in looks into the store and blocks that it reads; beside it stands what a walk takes to begin in each
/// shard, and a statement to open and to close there: a few looks and blocks a shard. Calls block for as long as the disk takes.
#[derive(Clone)]
pub struct Reader {
    store: Store,
    horizon: Option<Horizon>,
    scope: Scope,
    work: u32,
    /// The moment of the index that it answers out of, and what is left for that; none for that of each call.
    pinned: Option<(View, Bounds, Work)>,
}

/// What there was as of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf<T> {
    /// None if there was none.
    pub value: Option<T>,
    /// Everything that the partition's shard decided before this moment is in it, and nothing else is known to be.
    pub complete_before: Time,
}

impl core::fmt::Debug for Reader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reader").field("path", &self.store.path()).field("scope", &self.scope).finish()
    }
}

impl Reader {
    pub(crate) const fn new(store: Store, horizon: Option<Horizon>) -> Self {
        Self { store, horizon, scope: Scope::Operator, work: WORK_MAX, pinned: None }
    }

    /// Opens an index that nobody feeds. It is complete up to the time of each shard's last record, and no further, even beside an
    /// engine that is stopped for good as far as anybody knows.
    ///
    /// # Errors
    /// If there is none, it is another engine's, or it is being fed.
    pub fn open(path: &Path, engine: EngineId) -> Result<Self, HistoryError> {
        Ok(Self::new(Store::open_existing(path, engine)?, None))
    }

    /// The same index as somebody may see it.
    #[must_use]
    pub fn of(&self, scope: Scope) -> Self {
        Self { scope, ..self.clone() }
    }

    /// The same index by calls that do so much work at most, in looks into the store; reading a block counts 16. What is begun is
    /// finished, so that even calls of no work come on.
    #[must_use]
    pub fn bounded(&self, work: u32) -> Self {
        Self { work, ..self.clone() }
    }

    /// The same index as it is now, however many calls it is asked by: together they do the work of one.
    pub(crate) fn pinned(&self) -> Result<Self, QueryError> {
        let (view, bounds) = self.told(self.view().map_err(QueryError::from))?;
        Ok(Self { pinned: Some((view, bounds, self.work())), ..self.clone() })
    }

    pub(crate) const fn scope(&self) -> Scope {
        self.scope
    }

    /// What the call that begins now may do.
    pub(crate) fn work(&self) -> Work {
        self.pinned.as_ref().map_or_else(|| Work::begin(self.work), |(_, _, work)| *work)
    }

    pub(crate) fn key(&self) -> &Key {
        self.store.cursors()
    }

    /// An answer as it may be told: what is wrong with the index, and where that is, is the operator's to know.
    pub(crate) fn told<T>(&self, answer: Result<T, QueryError>) -> Result<T, QueryError> {
        match (self.scope, answer) {
            (Scope::Tenant(tenant), Err(QueryError::History(error))) => {
                tracing::error!(tenant = tenant.0, %error, "the history cannot answer");
                Err(QueryError::Unavailable)
            }
            (_, answer) => answer,
        }
    }

    /// The index as it is now, and the moment before which it is complete.
    pub(crate) fn view(&self) -> Result<(View, Bounds), HistoryError> {
        if let Some((view, bounds, _)) = &self.pinned {
            return Ok((view.clone(), bounds.clone()));
        }
        // First the horizon, then the view that it is said of.
        let told = self.horizon.as_ref().map(Horizon::told).unwrap_or_default();
        let view = self.store.view();
        let bounds = Bounds::of(&view, &told)?;
        Ok((view, bounds))
    }

    /// # Errors
    /// [`QueryError::OperatorOnly`] if a tenant asks.
    pub(crate) fn operator_only(&self, what: &'static str) -> Result<(), QueryError> {
        match self.scope {
            Scope::Operator => Ok(()),
            Scope::Tenant(_) => Err(QueryError::OperatorOnly(what)),
        }
    }

    /// What is asked, of what may be seen.
    fn predicates(&self, query: &Query) -> Result<Vec<Predicate>, QueryError> {
        query.check()?;
        let mut predicates = query.predicates.clone();
        if let Scope::Tenant(tenant) = self.scope {
            predicates.push(Predicate::Tenant(tenant));
        }
        Ok(predicates)
    }

    /// A row as it may be seen: a partition's money is that of all its tenants, and the operator's to know.
    pub(crate) fn shown(&self, row: Row) -> Row {
        match self.scope {
            Scope::Operator => row,
            Scope::Tenant(_) => Row { balances: None, ..row },
        }
    }

    fn may_see(&self, tenant: TenantId) -> bool {
        match self.scope {
            Scope::Operator => true,
            Scope::Tenant(own) => own == tenant,
        }
    }

    /// How far each shard is indexed.
    ///
    /// # Errors
    /// [`QueryError::OperatorOnly`]; the store's own.
    pub fn positions(&self) -> Result<Vec<(ShardId, Position)>, QueryError> {
        self.operator_only("the positions of shards")?;
        let view = self.store.view();
        let mut positions = Vec::new();
        for shard in view.shards()? {
            positions.extend(view.position(shard)?.map(|position| (shard, position)));
        }
        Ok(positions)
    }

    /// The moment before which everything is indexed, in every shard.
    ///
    /// # Errors
    /// The store's own.
    pub fn complete_before(&self) -> Result<Time, QueryError> {
        Ok(self.told(self.view().map_err(QueryError::from))?.1.complete_before())
    }

    /// How an index is doing that nobody feeds.
    ///
    /// # Errors
    /// [`QueryError::OperatorOnly`]; the store's own.
    pub fn status(&self, engine: EngineId) -> Result<Status, QueryError> {
        let idle = |(shard, position): (ShardId, Position)| ShardStatus {
            shard: shard.0,
            state: State::Waiting,
            message: Some("nobody keeps it".to_owned()),
            indexed: position.next.0 - 1,
            lag_records: None,
            lag_ms: None,
            complete_before: position.time,
        };
        Ok(Status::of(engine, self.positions()?.into_iter().map(idle).collect(), self.bytes()?))
    }

    /// Bytes that the index takes on the disk.
    ///
    /// # Errors
    /// [`QueryError::OperatorOnly`]; the store's own.
    pub fn bytes(&self) -> Result<u64, QueryError> {
        self.operator_only("the bytes of the index")?;
        Ok(self.store.bytes()?)
    }

    /// Bytes of each of its tables.
    ///
    /// # Errors
    /// [`QueryError::OperatorOnly`].
    pub fn table_bytes(&self) -> Result<Vec<(&'static str, u64)>, QueryError> {
        self.operator_only("the bytes of the index")?;
        Ok(self.store.table_bytes())
    }

    /// Records that all predicates hold of.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn records(&self, query: &Query) -> Result<Page<Row>, QueryError> {
        self.told(self.records_of(query))
    }

    fn records_of(&self, query: &Query) -> Result<Page<Row>, QueryError> {
        let predicates = self.predicates(query)?;
        let prunes = predicates.iter().filter_map(Prune::of).collect();
        let holds = |row: &Row| predicates.iter().all(|predicate| predicate.holds(row));
        let (view, bounds) = self.view()?;
        let asked = self.walk_of(query, prunes, &predicates)?;
        let keep = |row: &Row, _: &mut Budget| Ok(holds(row).then(|| self.shown(row.clone())));
        self.sealed(walk(&view, &bounds, &asked, keep)?)
    }

    /// Locks that all predicates hold of, in the order in which they were made: of what was asked for them, of when they were made, and
    /// of the state that they are in now. Declined requests and releases that came before their locks stand among them.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn locks(&self, query: &Query) -> Result<Page<Lock>, QueryError> {
        self.told(self.locks_of(query))
    }

    fn locks_of(&self, query: &Query) -> Result<Page<Lock>, QueryError> {
        let predicates = self.predicates(query)?;
        predicates.iter().try_for_each(Predicate::check_of_locks)?;
        let mut prunes: Vec<Prune> =
            predicates.iter().filter(|p| is_lasting(p)).filter_map(Prune::of).collect();
        prunes.push(Prune::Terms(vec![Term::New]));
        let (view, bounds) = self.view()?;
        let asked = self.walk_of(query, prunes, &predicates)?;
        let keep = |row: &Row, budget: &mut Budget| {
            let lock = made_by(&view, row, budget)?;
            Ok(lock.filter(|lock| predicates.iter().all(|predicate| predicate.holds_of_lock(lock))))
        };
        self.sealed(walk(&view, &bounds, &asked, keep)?)
    }

    fn walk_of(
        &self,
        query: &Query,
        prunes: Vec<Prune>,
        predicates: &[Predicate],
    ) -> Result<Walk, QueryError> {
        let open = |cursor: &Cursor| cursor.open(self.key(), self.scope, Progress::take);
        let from = query.cursor.as_ref().map(open).transpose()?;
        let (order, limit) = (query.order, query.limit);
        Ok(Walk { order, from, limit, prunes, span: span(predicates), work: self.work() })
    }

    /// A page as it goes out.
    fn sealed<R>(&self, page: Page<R, Progress>) -> Result<Page<R>, QueryError> {
        let Page { rows, cursor, has_more, complete_before } = page;
        let seal = |progress: Progress| Cursor::seal(self.key(), self.scope, &progress.to_bytes());
        Ok(Page { rows, cursor: cursor.map(seal).transpose()?, has_more, complete_before })
    }

    /// The locks under an id: more than one only if several tenants or partitions use it, or the ledger had forgotten one that had ended when
    /// an advice made it again. At most 64 of those that may be seen.
    ///
    /// # Errors
    /// [`QueryError::TooManyLocks`] if others have more of that id than a call looks at; the store's own.
    pub fn lock(&self, id: Id) -> Result<Vec<Lock>, QueryError> {
        Ok(self.locks_of_id(id, None)?.0)
    }

    /// The same, of one partition if one is named; and whether there are more than are told.
    ///
    /// # Errors
    /// As [`Reader::lock`].
    pub fn locks_of_id(
        &self,
        id: Id,
        partition: Option<PartitionHandle>,
    ) -> Result<(Vec<Lock>, bool), QueryError> {
        self.told(self.found_of_id(id, partition))
    }

    fn found_of_id(
        &self,
        id: Id,
        partition: Option<PartitionHandle>,
    ) -> Result<(Vec<Lock>, bool), QueryError> {
        let view = self.view()?.0;
        let mut budget = Budget::share(self.work(), 1);
        let mut locks = Vec::new();
        let (first, last) = keys::locks_of(id, partition);
        let damaged = || HistoryError::Damaged { what: "a lock", shard: ShardId(0), at: 0 };
        // Ids are a tenant's own: others may have as many locks of this one as they like, and hide nobody's.
        for (looked_at, item) in view.range(Table::Locks, first..=last).enumerate() {
            // So few take no time, whatever the rest of the call has taken.
            if looked_at > LOCKS_OF_ID_MAX && budget.is_spent() {
                return Err(QueryError::TooManyLocks(id));
            }
            budget.seek();
            let (key, bytes) = item?;
            let (key, _) = keys::any_lock_key(&key).ok_or_else(damaged)?;
            if !self.may_see(key.tenant) {
                continue;
            }
            if locks.len() == LOCKS_OF_ID_MAX {
                return Ok((locks, true));
            }
            locks.push(crate::codec::decode_lock(key, &bytes).ok_or_else(damaged)?);
        }
        Ok((locks, false))
    }

    /// One lock; none too if it may not be seen.
    ///
    /// # Errors
    /// The store's own.
    pub fn lock_of(&self, key: &LockKey) -> Result<Option<Lock>, QueryError> {
        if !self.may_see(key.tenant) {
            return Ok(None);
        }
        self.told(self.view().and_then(|(view, _)| view.lock(key)).map_err(QueryError::from))
    }

    /// Live locks of which all predicates hold, the oldest or the one that ends soonest first, behind the cursor.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn open_locks(
        &self,
        by: OpenBy,
        predicates: &[Predicate],
        cursor: Option<OpenCursor>,
        limit: usize,
    ) -> Result<Page<Lock, OpenCursor>, QueryError> {
        self.told(self.open_locks_of(by, predicates, cursor.as_ref(), limit))
    }

    fn open_locks_of(
        &self,
        by: OpenBy,
        predicates: &[Predicate],
        cursor: Option<&OpenCursor>,
        limit: usize,
    ) -> Result<Page<Lock, OpenCursor>, QueryError> {
        let query = Query { predicates: predicates.to_vec(), limit, ..Query::default() };
        let predicates = self.predicates(&query)?;
        predicates.iter().try_for_each(Predicate::check_of_locks)?;
        let begin = self.open_place(by, cursor)?;
        let (view, bounds) = self.view()?;
        let mut budget = Budget::share(self.work(), 1);
        let first = begin.map_or_else(
            || keys::open(by, Time(0), ShardId(0), Seq(0)).to_vec(),
            |place| place.to_bytes().to_vec(),
        );
        let last = keys::open(by, Time(u64::MAX), ShardId(u16::MAX), Seq(u64::MAX)).to_vec();
        let complete_before = bounds.complete_before();
        let mut page = Page { rows: Vec::new(), cursor: cursor.cloned(), has_more: false, complete_before };
        if first >= last {
            return Ok(page);
        }
        let range = (core::ops::Bound::Excluded(first), core::ops::Bound::Included(last));
        // Where it goes on if it has to, and behind which lock that may be seen.
        let (mut looked_at, mut seen) = (begin, begin);
        for (count, item) in view.range(Table::Open, range).enumerate() {
            if page.rows.len() == limit || budget.is_spent() && count > 0 {
                page.has_more = true;
                break;
            }
            let (place, key) = item?;
            let damaged = || HistoryError::Damaged { what: "a live lock", shard: ShardId(0), at: 0 };
            let (time, shard, seq) = keys::open_place(&place).ok_or_else(damaged)?;
            let key = keys::lock_key(&key).ok_or_else(damaged)?;
            looked_at = Some(OpenPlace { by, time, shard, seq });
            budget.seek();
            if !self.may_see(key.tenant) {
                continue;
            }
            seen = looked_at;
            budget.seek();
            let lock = view.lock(&key)?.ok_or_else(damaged)?;
            if predicates.iter().all(|predicate| predicate.holds_of_lock(&lock)) {
                page.rows.push(lock);
            }
        }
        // That others have locks behind the last one is not for a tenant to know.
        let end = if page.has_more { looked_at } else { seen };
        let seal = |place: OpenPlace| OpenCursor::seal(self.key(), self.scope, &place.to_bytes());
        page.cursor = end.map(seal).transpose()?;
        Ok(page)
    }

    /// Where a walk over live locks goes on.
    fn open_place(&self, by: OpenBy, cursor: Option<&OpenCursor>) -> Result<Option<OpenPlace>, QueryError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let place = cursor.open(self.key(), self.scope, OpenPlace::take)?;
        if place.by == by { Ok(Some(place)) } else { Err(cursor.refused()) }
    }

    /// One record, and those that continue it. None if it may not be seen; to a tenant what continues a record is nothing by itself.
    ///
    /// # Errors
    /// The store's own.
    pub fn record(&self, shard: ShardId, seq: Seq) -> Result<Vec<Row>, QueryError> {
        self.told(self.record_of(shard, seq).map_err(QueryError::from))
    }

    fn record_of(&self, shard: ShardId, seq: Seq) -> Result<Vec<Row>, HistoryError> {
        let view = self.store.view();
        let mut found: Vec<Row> = Vec::new();
        let mut wanted = 1;
        for number in view.blocks().of(seq).0.. {
            let Some(rows) = view.block(shard, keys::BlockNumber(number))? else { break };
            for row in rows.into_iter().filter(|row| row.seq >= seq) {
                if found.is_empty() {
                    wanted += row.record.continuations();
                }
                if found.len() < wanted {
                    found.push(row);
                }
            }
            if found.len() >= wanted {
                break;
            }
        }
        // The bytes of a continuation are not a tenant's number.
        let is_seen =
            |row: &Row| self.scope == Scope::Operator || !row.is_part() && self.may_see(row.record.tenant);
        if !found.first().is_some_and(is_seen) {
            return Ok(Vec::new());
        }
        Ok(found.into_iter().map(|row| self.shown(row)).collect())
    }

    /// A partition's money as of a moment: after the last record decided then or before. None before the partition was made.
    ///
    /// # Errors
    /// [`QueryError::OperatorOnly`]; the store's own.
    pub fn balances(&self, partition: PartitionHandle, at: Time) -> Result<Option<Balances>, QueryError> {
        self.operator_only("balances")?;
        let mut budget = Budget::share(self.work(), 1);
        Ok(balances(&self.view()?.0, partition, at, &mut budget)?)
    }

    /// The same with how far that is known; without a moment after the last record that is indexed.
    ///
    /// # Errors
    /// [`QueryError::OperatorOnly`]; [`QueryError::NotYet`] of a moment that is not indexed in full; the store's own.
    pub fn balances_as_of(
        &self,
        partition: PartitionHandle,
        at: Option<Time>,
    ) -> Result<AsOf<Balances>, QueryError> {
        self.operator_only("balances")?;
        let (view, bounds) = self.view()?;
        let (at, complete_before) = moment_of(&bounds, partition, at)?;
        let value = balances(&view, partition, at, &mut Budget::share(self.work(), 1))?;
        Ok(AsOf { value, complete_before })
    }

    /// A number over everything in the index but the epochs that it was fed in and the key of its cursors: the same for two indexes of
    /// the same records, however they were fed. It reads everything.
    ///
    /// # Errors
    /// [`QueryError::OperatorOnly`]; the store's own.
    pub fn digest(&self) -> Result<String, QueryError> {
        self.operator_only("the digest of the index")?;
        Ok(digest(&self.store.view())?)
    }
}

/// A number over everything in the index.
pub(crate) fn digest(view: &View) -> Result<String, HistoryError> {
    let mut hasher = blake3::Hasher::new();
    for shard in view.shards()? {
        let position = view.position(shard)?.unwrap_or(Position::START);
        hasher.update(&shard.0.to_le_bytes());
        hasher.update(&position.next.0.to_le_bytes());
        hasher.update(&position.time.0.to_le_bytes());
        hasher.update(&position.state_hash.to_le_bytes());
    }
    for (name, table) in Table::ALL {
        hasher.update(name.as_bytes());
        for item in view.range(table, ..) {
            let (key, value) = item?;
            for part in [&key, &value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The moment that is meant, and how far the index of a partition's shard is complete.
///
/// # Errors
/// [`QueryError::NotYet`] if what may still be indexed could be of that moment.
pub(crate) fn moment_of(
    bounds: &Bounds,
    partition: PartitionHandle,
    at: Option<Time>,
) -> Result<(Time, Time), QueryError> {
    let complete_before = bounds.complete_before_in(partition.shard());
    match at {
        Some(at) if at >= complete_before => Err(QueryError::NotYet { at, complete_before }),
        at => Ok((at.unwrap_or(Time(u64::MAX)), complete_before)),
    }
}

/// A partition's money as of a moment.
pub(crate) fn balances(
    view: &View,
    partition: PartitionHandle,
    at: Time,
    budget: &mut Budget,
) -> Result<Option<Balances>, HistoryError> {
    let shard = partition.shard();
    let Some(position) = view.position(shard)? else { return Ok(None) };
    let before = (Seq(position.next.0 - 1), at);
    let is_it = |row: &Row| row.record.partition == partition;
    let found = last_row(view, Term::Partition(partition), shard, before, is_it, budget)?;
    // A record that found no partition: there was none then, so there was none before.
    Ok(found.and_then(|row| row.balances))
}

/// The last row of a shard up to a seq and a moment that a term leads to.
pub(crate) fn last_row(
    view: &View,
    term: Term,
    shard: ShardId,
    (seq, at): (Seq, Time),
    is_it: impl Fn(&Row) -> bool,
    budget: &mut Budget,
) -> Result<Option<Row>, HistoryError> {
    let place = (shard, Order::Descending, (Seq(1), seq), (Time::ZERO, at));
    nearest_row(view, term, place, |row| row.seq <= seq && row.time <= at && is_it(row), budget)
}

/// The nearest row of a shard that a term leads to, within seqs and times, both included. It lies in the first block that the term leads
/// to there, or, if that one has such rows outside of them alone, in the next one: a few looks, whatever the index holds.
pub(crate) fn nearest_row(
    view: &View,
    term: Term,
    (shard, order, seqs, span): (ShardId, Order, (Seq, Seq), (Time, Time)),
    is_it: impl Fn(&Row) -> bool,
    budget: &mut Budget,
) -> Result<Option<Row>, HistoryError> {
    let mut plan = Plan::new(view, shard, order, vec![Prune::Terms(vec![term])], seqs, span, budget)?;
    let mut blocks = 0;
    loop {
        match plan.step(view, budget)? {
            Step::End => return Ok(None),
            Step::Skipped(_) => {}
            Step::Block(number) if blocks == NEAREST_BLOCKS_MAX => {
                let what = "a posting that leads to nothing before block";
                return Err(HistoryError::Damaged { what, shard, at: number.0 });
            }
            Step::Block(number) => {
                blocks += 1;
                budget.block();
                let is_meant = |row: &&Row| !row.is_part() && is_it(row);
                let rows = block(view, shard, number)?;
                let found = match order {
                    Order::Ascending => rows.iter().find(is_meant),
                    Order::Descending => rows.iter().rfind(is_meant),
                };
                if let Some(row) = found {
                    return Ok(Some(row.clone()));
                }
            }
        }
    }
}

/// A block that has to be there.
pub(crate) fn block(
    view: &View,
    shard: ShardId,
    number: keys::BlockNumber,
) -> Result<Vec<Row>, HistoryError> {
    let damaged = HistoryError::Damaged { what: "a block that should be there", shard, at: number.0 };
    view.block(shard, number)?.ok_or(damaged)
}

/// True of what holds of a lock for as long as it is there, so that the record that made it tells.
fn is_lasting(predicate: &Predicate) -> bool {
    match predicate {
        Predicate::AnyOf(any) => any.iter().all(is_lasting),
        Predicate::State(_) | Predicate::Payee(_) | Predicate::Code(_) => false,
        _ => true,
    }
}

/// The lock that a record made, as it stands now, or stood when the ledger had forgotten it and another was made in its place; none if it
/// made none, or if a request that came after its tombstone stands for the lock since.
fn made_by(view: &View, row: &Row, budget: &mut Budget) -> Result<Option<Lock>, HistoryError> {
    if !row.lock.is_some_and(|lock| lock.is_new) {
        return Ok(None);
    }
    budget.seek();
    let key = LockKey { id: row.record.lock(), partition: row.record.partition, tenant: row.record.tenant };
    match view.lock(&key)?.filter(|lock| lock.seq == row.seq) {
        Some(lock) => Ok(Some(lock)),
        None => {
            budget.seek();
            view.replaced_lock(&key, row.seq)
        }
    }
}

/// The times that predicates leave, both included.
fn span(predicates: &[Predicate]) -> (Time, Time) {
    let (mut low, mut high) = (Time::ZERO, Time(u64::MAX));
    for predicate in predicates {
        if let Predicate::Time { from, until } = predicate {
            low = low.max(*from);
            high = high.min(Time(until.0.saturating_sub(1)));
        }
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use surety_protocol::{Amount, Epoch, Kind, MerchantId, Record, StakeBody};

    use super::*;
    use crate::codec::{Zone, encode_block, encode_money};
    use crate::cursor::StatementCursor;
    use crate::keys::BlockNumber;
    use crate::statement::{Account, Begun, StatementQuery};

    const NUMBERS: [u64; 6] = [0, 1, 2, 3, u64::MAX - 1, u64::MAX];
    const PARTITION: PartitionHandle = PartitionHandle(5);

    /// Two shards, the first with one deposit.
    fn store(path: &Path) -> Store {
        let store = Store::open(path, EngineId(1)).unwrap();
        store.note_shards(2).unwrap();
        let body = StakeBody { units: 10, ..StakeBody::default() };
        let record = Record {
            time: Time(50),
            code: surety_protocol::Code::Approved as u8,
            ..Record::new(Kind::Deposit, Id(1), PARTITION, Amount(10), &body)
        };
        let money = Balances { on_chain: 10, free: 10, units: 10, ..Balances::default() };
        let row = Row {
            shard: ShardId(0),
            seq: Seq(1),
            record,
            time: Time(50),
            lock: None,
            balances: Some(money),
            merchant: None,
            named: Vec::new(),
        };
        let mut change = store.change();
        let key = keys::block(ShardId(0), BlockNumber(0));
        Term::all_of(&row, |term| {
            change.put(Table::Postings, &term.posting(ShardId(0), BlockNumber(0)), &[]);
        });
        let rows = [row];
        change.put(Table::Zones, &key, &Zone::of(&rows).encode());
        change.put(Table::Blocks, &key, &encode_block(&rows));
        change.put(Table::Partitions, &keys::partition(PARTITION), &encode_money(&money));
        let position = |next| Position { next, time: Time(100), epoch: Epoch(1), state_hash: 0 };
        change.commit(ShardId(0), &position(Seq(2))).unwrap();
        store.change().commit(ShardId(1), &position(Seq(1))).unwrap();
        store
    }

    /// Every number that could stand in a cursor, through every call that takes one: an answer, or a refusal by name. A seal keeps strangers
    /// from trying it; this is what they would find behind it.
    #[test]
    fn no_number_in_a_cursor_stops_a_call() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory.path().join("history"));
        let reader = store.reader();
        let mut ahead = 0;
        for order in [Order::Ascending, Order::Descending] {
            for (one, two) in NUMBERS.into_iter().flat_map(|one| NUMBERS.map(|two| (one, two))) {
                let progress = Progress::new(order, vec![Seq(one), Seq(two)]);
                let cursor = Cursor::seal(reader.key(), Scope::Operator, &progress.to_bytes()).unwrap();
                let query = Query { order, cursor: Some(cursor), ..Query::default() };
                let (next, first) = if order == Order::Ascending { (2, 0) } else { (3, 1) };
                let is_ahead = one >= next || two > first;
                for found in [reader.records(&query).map(drop), reader.locks(&query).map(drop)] {
                    let is_refused = matches!(found, Err(QueryError::CursorAhead { .. }));
                    assert_eq!(is_refused, is_ahead, "{order} {one} {two}: {found:?}");
                    assert!(is_refused || found.is_ok(), "{order} {one} {two}: {found:?}");
                    ahead += u32::from(is_refused);
                }
            }
        }
        assert!(ahead > 40, "{ahead}");
        for by in [OpenBy::Age, OpenBy::Deadline] {
            for number in NUMBERS {
                let (time, shard) = (Time(number), ShardId(u16::try_from(number).unwrap_or(u16::MAX)));
                let place = OpenPlace { by, time, shard, seq: Seq(number) };
                let cursor = OpenCursor::seal(reader.key(), Scope::Operator, &place.to_bytes()).unwrap();
                assert!(reader.open_locks(by, &[], Some(cursor), 10).is_ok());
            }
        }
    }

    #[test]
    fn no_number_in_a_statement_s_cursor_stops_a_call() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory.path().join("history"));
        let reader = store.reader();
        let supplier = surety_protocol::Address([0; 20]);
        let accounts = [
            Account::Partition(PARTITION),
            Account::Supplier { partition: PARTITION, supplier },
            Account::Merchant { tenant: TenantId(0), merchant: MerchantId(3) },
        ];
        for account in accounts {
            let asked = StatementQuery::new(account, Time(0), Time(100));
            let columns = account.columns().len();
            for ((one, two), lines) in
                NUMBERS.into_iter().flat_map(|one| NUMBERS.map(|two| (one, two))).zip(NUMBERS.iter().cycle())
            {
                for running in [0, 10, u128::MAX] {
                    let progress = Progress::new(Order::Ascending, vec![Seq(one), Seq(two)]);
                    let running = vec![running; columns];
                    let begun = Begun { of: asked.sum(), progress, lines: *lines, running };
                    let sealed = StatementCursor::seal(reader.key(), Scope::Operator, &begun.to_bytes());
                    let page =
                        reader.statement(&StatementQuery { cursor: Some(sealed.unwrap()), ..asked.clone() });
                    let is_ahead = one >= 2 || two >= 1;
                    let is_refused = matches!(page, Err(QueryError::CursorAhead { .. }));
                    assert_eq!(is_refused, is_ahead, "{account} {one} {two}: {page:?}");
                    let is_known = matches!(
                        page,
                        Ok(_)
                            | Err(QueryError::CursorAhead { .. }
                                | QueryError::Uneven { .. }
                                | QueryError::UnevenClosing { .. }
                                | QueryError::Cursor(_))
                    );
                    assert!(is_known, "{account}: {page:?}");
                }
            }
        }
        let asked = StatementQuery::new(accounts[0], Time(0), Time(100));
        let with = |lines| {
            let progress = Progress::new(Order::Ascending, vec![Seq(0), Seq(0)]);
            let begun = Begun { of: asked.sum(), progress, lines, running: vec![0; 9] };
            let sealed = StatementCursor::seal(reader.key(), Scope::Operator, &begun.to_bytes()).unwrap();
            reader.statement(&StatementQuery { cursor: Some(sealed), ..asked.clone() })
        };
        assert_eq!(with(7).unwrap().lines_so_far, 8);
        assert!(matches!(with(u64::MAX), Err(QueryError::Cursor(_))), "one line more than can be counted");
        assert_eq!(reader.statement(&asked).unwrap().lines.len(), 1);
    }

    /// What was there at a moment is told once nothing more can be decided at it.
    #[test]
    fn money_at_a_moment_is_told_once_that_is_indexed() {
        let directory = tempfile::tempdir().unwrap();
        let reader = store(&directory.path().join("history")).reader();
        let units = |found: AsOf<Balances>| (found.value.map(|money| money.units), found.complete_before);
        let latest = reader.balances_as_of(PARTITION, None).unwrap();
        assert_eq!(units(latest), (Some(10), Time(100)));
        for (at, expected) in [(49, None), (50, Some(10)), (99, Some(10))] {
            let found = reader.balances_as_of(PARTITION, Some(Time(at))).unwrap();
            assert_eq!(units(found), (expected, Time(100)), "{at}");
        }
        let supplier = surety_protocol::Address([0; 20]);
        for at in [Time(100), Time(u64::MAX)] {
            let not_yet = |found: QueryError| matches!(found, QueryError::NotYet { at: asked, complete_before: Time(100) } if asked == at);
            assert!(reader.balances_as_of(PARTITION, Some(at)).is_err_and(not_yet));
            assert!(reader.supplier_as_of(PARTITION, supplier, Some(at)).is_err_and(not_yet));
        }
        let tenant = reader.of(Scope::Tenant(TenantId(7)));
        assert!(matches!(tenant.balances_as_of(PARTITION, None), Err(QueryError::OperatorOnly(_))));
    }

    /// While a shard has logged nothing there is no period that a merchant's statement could be of: not yet, and not by a wrong question.
    #[test]
    fn a_statement_before_anything_is_logged_is_not_complete() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory.path().join("history"));
        store.note_shards(3).unwrap();
        // What has been comes by itself, what lies ahead is asked too early.
        for (ask, is_retryable) in [
            (r#"{"merchant": "3", "tenant": 1}"#, true),
            (r#"{"merchant": 3, "tenant": 1, "until": "2026-01-01T00:00:00Z"}"#, true),
            (r#"{"merchant": 3, "tenant": 1, "until": "2500-01-01T00:00:00Z"}"#, false),
        ] {
            let question = format!(r#"{{"of": null, "ask": {{"statement": {ask}}}}}"#);
            let status = || Err(QueryError::Unavailable);
            let answer = crate::answer::answer(&store.reader(), status, question.as_bytes());
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["error"]["code"], "not_complete", "{answer}");
            assert_eq!(answer["error"]["retryable"], is_retryable, "{answer}");
        }
    }

    /// Postings that lead to nothing do not have a call read on and on, and a tenant is not told what is wrong with which file.
    #[test]
    fn a_damaged_index_is_told_to_the_operator() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory.path().join("history"));
        let mut change = store.change();
        let whose = Term::Account(TenantId(7), MerchantId(3));
        change.put(Table::Postings, &whose.posting(ShardId(0), BlockNumber(0)), &[]);
        change.remove(Table::Blocks, &keys::block(ShardId(0), BlockNumber(0)));
        let position = Position { next: Seq(2), time: Time(100), epoch: Epoch(1), state_hash: 0 };
        change.commit(ShardId(0), &position).unwrap();
        let account = Account::Merchant { tenant: TenantId(7), merchant: MerchantId(3) };
        let asked = StatementQuery::new(account, Time(60), Time(100));
        let found = store.reader().statement(&asked);
        assert!(matches!(found, Err(QueryError::History(HistoryError::Damaged { .. }))), "{found:?}");
        let tenant = store.reader().of(Scope::Tenant(TenantId(7)));
        let found = tenant.statement(&asked);
        assert!(matches!(found, Err(QueryError::Unavailable)), "{found:?}");
        let found = tenant.record(ShardId(0), Seq(1));
        assert!(found.is_ok_and(|rows| rows.is_empty()), "a block that is not there is the end");
    }
}
