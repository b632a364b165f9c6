//! What an account had, line by line what changed it, and what it has. It adds up, or there is none.
//!
//! A line is not believed because it leads to the next one: what it changed is held against what its record says, by the plain rules
//! of [`crate::effect`]; what there was and what there is come from rows of their own; and the first row behind the period has to go on
//! from the closing, or, where there is none, the closing has to be what the account has now, which no row tells. A row that is missing
//! anywhere in a period, or stands there with other amounts, is found by one of these.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};

use surety_protocol::limits::CHAIN_MAX;
use surety_protocol::{
    Address, Code, Kind, MerchantId, PartitionHandle, Record, Seq, ShardId, StakeBody, TenantId, Time,
};

use crate::bytes::Reader as Bytes;
use crate::cursor::{Progress, StatementCursor};
use crate::effect::{self, Effect, MerchantEffect};
use crate::error::{HistoryError, QueryError};
use crate::keys::{self, BlockNumber, Term};
use crate::plan::{Budget, Prune, Work};
use crate::query::{Order, PAGE_ROWS_MAX, Page, Predicate};
use crate::reader::{AsOf, Reader, Scope, balances, block, last_row, moment_of, nearest_row};
use crate::row::{Balances, MerchantTotals, Row, Stake, supplier_of};
use crate::store::{Table, View};
use crate::walk::{Bounds, Walk, walk};

/// Whose statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// A partition's money.
    Partition(PartitionHandle),
    /// A supplier's stake in a partition.
    Supplier {
        /// Where.
        partition: PartitionHandle,
        /// Who.
        supplier: Address,
    },
    /// All locks of a tenant's merchant.
    Merchant {
        /// Whose.
        tenant: TenantId,
        /// Who.
        merchant: MerchantId,
    },
}

/// What is told of a supplier, in order: units, those of them that wait, what they are worth; then, from the opening on, what came by
/// deposits, went by withdrawals, was won by rewards and by rounding, and was lost: `value = its opening + deposited - withdrawn +
/// rewarded - lost`.
const SUPPLIER_COLUMNS: [&str; 7] =
    ["units", "queued", "value", "deposited", "withdrawn", "rewarded", "lost"];

/// The records that change what a supplier has: its own, and those that change what a unit is worth.
const SUPPLIER_KINDS: [Kind; 8] = [
    Kind::Deposit,
    Kind::Reward,
    Kind::Withdraw,
    Kind::WithdrawPaid,
    Kind::Consume,
    Kind::AutoConsume,
    Kind::GuaranteePaid,
    Kind::Deficit,
];

impl Account {
    /// What its amounts are called, in order.
    #[must_use]
    pub const fn columns(&self) -> &'static [&'static str] {
        match self {
            Self::Partition(_) => &Balances::NAMES,
            Self::Supplier { .. } => &SUPPLIER_COLUMNS,
            Self::Merchant { .. } => &MerchantTotals::NAMES,
        }
    }

    fn predicates(&self) -> Vec<Predicate> {
        match self {
            Self::Partition(partition) => vec![Predicate::Partition(*partition)],
            Self::Supplier { partition, .. } => {
                let kinds = SUPPLIER_KINDS.map(Predicate::Kind).to_vec();
                vec![Predicate::Partition(*partition), Predicate::AnyOf(kinds)]
            }
            Self::Merchant { tenant, merchant } => {
                vec![Predicate::Tenant(*tenant), Predicate::Merchant(*merchant)]
            }
        }
    }

    /// True of the rows that tell all of its amounts; of a supplier those of its partition do, in part.
    fn is_told_by(&self, row: &Row) -> bool {
        match *self {
            Self::Partition(partition) | Self::Supplier { partition, .. } => {
                row.record.partition == partition
            }
            Self::Merchant { tenant, merchant } => {
                row.record.tenant == tenant && row.merchant_of() == Some(merchant)
            }
        }
    }

    /// Everything that ever changes it before this moment is indexed. A partition's shard tells it of partition and suppliers; a
    /// merchant's locks may be in any shard.
    fn complete_before(&self, bounds: &Bounds) -> Time {
        match self {
            Self::Partition(partition) | Self::Supplier { partition, .. } => {
                bounds.logged_before_in(partition.shard())
            }
            Self::Merchant { .. } => bounds.logged_before(),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Partition(partition) => {
                out.push(1);
                out.extend_from_slice(&partition.0.to_le_bytes());
            }
            Self::Supplier { partition, supplier } => {
                out.push(2);
                out.extend_from_slice(&partition.0.to_le_bytes());
                out.extend_from_slice(&supplier.0);
            }
            Self::Merchant { tenant, merchant } => {
                out.push(3);
                out.extend_from_slice(&tenant.0.to_le_bytes());
                out.extend_from_slice(&merchant.0.to_le_bytes());
            }
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(partition) => write!(f, "partition {partition}"),
            Self::Supplier { partition, supplier } => write!(f, "supplier {supplier} in {partition}"),
            Self::Merchant { tenant, merchant } => write!(f, "merchant {merchant} of tenant {tenant}"),
        }
    }
}

/// A statement that is asked for, or the next page of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementQuery {
    /// Whose.
    pub account: Account,
    /// From this moment on.
    pub from: Time,
    /// Until before this one; it may not lie past what is logged, see [`Reader::complete_for`].
    pub until: Time,
    /// Where the page before ended.
    pub cursor: Option<StatementCursor>,
    /// Records looked at for the page, at most [`PAGE_ROWS_MAX`]; fewer where the call's work is done before.
    pub limit: usize,
}

/// Where a statement has come to: what is in a [`StatementCursor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// A sum of account and period.
    pub(crate) of: [u8; 8],
    pub(crate) progress: Progress,
    pub(crate) lines: u64,
    pub(crate) running: Vec<u128>,
}

/// A line: a record that moved something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The record, and what it left.
    pub row: Row,
    /// What it changed of each amount. Of a linked chain, the first record of the account has it all.
    pub changes: Vec<i128>,
    /// The amounts after it.
    pub after: Vec<u128>,
}

/// A page of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementPage {
    /// The amounts before the period, in the order of [`Account::columns`]; on the first page.
    pub opening: Option<Vec<u128>>,
    /// In the order of time, shard and seq.
    pub lines: Vec<Line>,
    /// How many lines there were up to here, on the pages before too.
    pub lines_so_far: u64,
    /// The amounts at the end of the period; on the last page. It is there only if everything adds up.
    pub closing: Option<Vec<u128>>,
    /// Where to go on; none on the last page.
    pub cursor: Option<StatementCursor>,
    /// See [`Reader::complete_for`].
    pub complete_before: Time,
}

impl StatementQuery {
    /// The first page of a statement from `from` until before `until`.
    #[must_use]
    pub const fn new(account: Account, from: Time, until: Time) -> Self {
        Self { account, from, until, cursor: None, limit: PAGE_ROWS_MAX }
    }

    pub(crate) fn sum(&self) -> [u8; 8] {
        let mut bytes = Vec::with_capacity(48);
        self.account.put(&mut bytes);
        bytes.extend_from_slice(&self.from.0.to_le_bytes());
        bytes.extend_from_slice(&self.until.0.to_le_bytes());
        let mut sum = [0; 8];
        sum.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..8]);
        sum
    }

    fn check(&self, complete_before: Time) -> Result<(), QueryError> {
        if self.limit == 0 || self.limit > PAGE_ROWS_MAX {
            return Err(QueryError::Limit { found: self.limit, max: PAGE_ROWS_MAX });
        }
        if self.until > complete_before {
            return Err(QueryError::NotComplete { until: self.until, complete_before });
        }
        if self.from >= self.until {
            return Err(QueryError::EmptyRange("time"));
        }
        Ok(())
    }
}

impl Begun {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.of.to_vec();
        bytes.extend(self.progress.to_bytes());
        bytes.extend_from_slice(&self.lines.to_be_bytes());
        self.running.iter().for_each(|amount| bytes.extend_from_slice(&amount.to_be_bytes()));
        bytes
    }

    fn take(from: &mut Bytes<'_>, columns: usize) -> Option<Self> {
        let of = from.take()?;
        let progress = Progress::take(from)?;
        let lines = u64::from_be_bytes(from.take()?);
        let amount = |_| from.take().map(u128::from_be_bytes);
        let running = (0..columns).map(amount).collect::<Option<Vec<u128>>>()?;
        Some(Self { of, progress, lines, running })
    }
}

impl Reader {
    /// A page of a statement: the opening on the first, the closing on the last, after the check that everything adds up.
    ///
    /// # Errors
    /// [`QueryError::Uneven`] or [`QueryError::UnevenClosing`] if it does not; [`QueryError::NotComplete`] if the period has not been
    /// logged and indexed whole; [`QueryError::OperatorOnly`] if a tenant asks for anything but a merchant of its own.
    pub fn statement(&self, query: &StatementQuery) -> Result<StatementPage, QueryError> {
        self.told(self.statement_of(query))
    }

    /// The latest end of a statement: the time of the last record of the account's shard, and of a merchant the least of all shards'. All
    /// that was logged before is indexed, and nothing that comes is older. A shard to which nothing comes holds it back by five minutes.
    ///
    /// # Errors
    /// The store's own.
    pub fn complete_for(&self, account: &Account) -> Result<Time, QueryError> {
        let bounds = self.told(self.view().map_err(QueryError::from))?.1;
        Ok(account.complete_before(&bounds))
    }

    /// Refuses an account in a partition that never was, of which a statement would be one of zeros; a merchant needs no record to be one.
    ///
    /// # Errors
    /// [`QueryError::UnknownPartition`]; [`QueryError::OperatorOnly`] if a tenant asks for anything but a merchant of its own; the store's own.
    pub(crate) fn check_known(&self, account: &Account) -> Result<(), QueryError> {
        self.may_ask_for(account)?;
        let (Account::Partition(partition) | Account::Supplier { partition, .. }) = *account else {
            return Ok(());
        };
        let view = self.view()?.0;
        match balances(&view, partition, Time(u64::MAX), &mut Budget::share(self.work(), 1))? {
            Some(_) => Ok(()),
            None => Err(QueryError::UnknownPartition(partition)),
        }
    }

    fn statement_of(&self, query: &StatementQuery) -> Result<StatementPage, QueryError> {
        self.may_ask_for(&query.account)?;
        let (view, bounds) = self.view()?;
        let account = &query.account;
        let complete_before = account.complete_before(&bounds);
        query.check(complete_before)?;
        let begun = self.begun(query)?;
        // One half of the work is the walk's, the other that of what the lines are held against.
        let work = self.work().half();
        let mut book = Book::new(&view, account, Budget::share(work, 1));
        book.running = match &begun {
            Some(begun) => begun.running.clone(),
            None => amounts_before(&view, &bounds, account, query.from, &mut book.budget)?,
        };
        let opening = begun.is_none().then(|| book.running.clone());
        let lines_before = begun.as_ref().map_or(0, |begun| begun.lines);
        let page = self.rows(query, (&view, &bounds), begun.map(|begun| begun.progress), work)?;
        let mut progress = page.cursor.unwrap_or_else(|| bounds.begin(Order::Ascending));
        let mut has_come_on = opening.is_some();
        let mut lines = Vec::new();
        let mut rows = page.rows.into_iter();
        for row in rows.by_ref() {
            has_come_on = true;
            let line = book.line(row)?;
            lines.extend(line.map(|line| Line { row: self.shown(line.row), ..line }));
            if book.budget.is_spent() {
                break;
            }
        }
        // What there is no work left for is looked at again by the next call, and so is the end.
        let mut has_more = page.has_more || has_come_on && book.budget.is_spent();
        for row in rows {
            has_more = true;
            progress.take_back(row.shard, row.seq);
        }
        let too_many = || query.cursor.as_ref().map_or(QueryError::Unavailable, StatementCursor::refused);
        let lines_so_far = lines_before.checked_add(lines.len() as u64).ok_or_else(too_many)?;
        let mut page =
            StatementPage { opening, lines, lines_so_far, closing: None, cursor: None, complete_before };
        if has_more {
            let begun = Begun { of: query.sum(), progress, lines: lines_so_far, running: book.running };
            page.cursor = Some(StatementCursor::seal(self.key(), self.scope(), &begun.to_bytes())?);
        } else {
            book.close(&bounds, query.until)?;
            page.closing = Some(book.running);
        }
        Ok(page)
    }

    /// # Errors
    /// [`QueryError::OperatorOnly`].
    fn may_ask_for(&self, account: &Account) -> Result<(), QueryError> {
        match (self.scope(), account) {
            (Scope::Tenant(own), Account::Merchant { tenant, .. }) if own == *tenant => Ok(()),
            _ => self.operator_only("statements of partitions, suppliers and others' merchants"),
        }
    }

    /// Where the page before ended.
    fn begun(&self, query: &StatementQuery) -> Result<Option<Begun>, QueryError> {
        let Some(cursor) = &query.cursor else { return Ok(None) };
        let columns = query.account.columns().len();
        let begun = cursor.open(self.key(), self.scope(), |reader| Begun::take(reader, columns))?;
        if begun.of == query.sum() { Ok(Some(begun)) } else { Err(cursor.refused()) }
    }

    /// The next rows of the period that may be lines.
    fn rows(
        &self,
        query: &StatementQuery,
        (view, bounds): (&View, &Bounds),
        from: Option<Progress>,
        work: Work,
    ) -> Result<Page<Row, Progress>, QueryError> {
        let mut predicates = query.account.predicates();
        predicates.push(Predicate::Time { from: query.from, until: query.until });
        let asked = Walk {
            order: Order::Ascending,
            from,
            limit: query.limit,
            prunes: predicates.iter().filter_map(Prune::of).collect(),
            span: (query.from, Time(query.until.0 - 1)),
            work,
        };
        walk(view, bounds, &asked, |row, _| {
            Ok(predicates.iter().all(|predicate| predicate.holds(row)).then(|| row.clone()))
        })
    }

    /// What a supplier had in a partition as of a moment; none if it had nothing.
    ///
    /// # Errors
    /// [`QueryError::OperatorOnly`]; the store's own.
    pub fn supplier(
        &self,
        partition: PartitionHandle,
        supplier: Address,
        at: Time,
    ) -> Result<Option<Stake>, QueryError> {
        self.operator_only("suppliers")?;
        Ok(self.stake_in(&self.view()?.0, partition, supplier, at)?)
    }

    /// The same with how far that is known; without a moment after the last record that is indexed.
    ///
    /// # Errors
    /// [`QueryError::OperatorOnly`]; [`QueryError::NotYet`] of a moment that is not indexed in full; the store's own.
    pub fn supplier_as_of(
        &self,
        partition: PartitionHandle,
        supplier: Address,
        at: Option<Time>,
    ) -> Result<AsOf<Stake>, QueryError> {
        self.operator_only("suppliers")?;
        let (view, bounds) = self.view()?;
        let (at, complete_before) = moment_of(&bounds, partition, at)?;
        Ok(AsOf { value: self.stake_in(&view, partition, supplier, at)?, complete_before })
    }

    fn stake_in(
        &self,
        view: &View,
        partition: PartitionHandle,
        supplier: Address,
        at: Time,
    ) -> Result<Option<Stake>, HistoryError> {
        let stake = stake(view, partition, supplier, at, &mut Budget::share(self.work(), 1))?;
        Ok(Some(stake).filter(|stake| stake.units > 0))
    }
}

/// What a supplier had as of a moment.
fn stake(
    view: &View,
    partition: PartitionHandle,
    supplier: Address,
    at: Time,
    budget: &mut Budget,
) -> Result<Stake, HistoryError> {
    budget.seek();
    let first = keys::stake(&supplier, partition, Time(0), Seq(0));
    let last = keys::stake(&supplier, partition, at, Seq(u64::MAX));
    let Some(item) = view.range(Table::Stakes, first..=last).next_back() else { return Ok(Stake::default()) };
    let (_, bytes) = item?;
    let damaged = HistoryError::Damaged { what: "a stake", shard: partition.shard(), at: partition.0 };
    let (units, queued) = crate::codec::decode_stake(&bytes).ok_or(damaged)?;
    let money = balances(view, partition, at, budget)?.unwrap_or_default();
    Ok(Stake { units, queued, value: ledger::unit_value(units, money.equity(), money.units) })
}

/// The account before a moment.
fn amounts_before(
    view: &View,
    bounds: &Bounds,
    account: &Account,
    moment: Time,
    budget: &mut Budget,
) -> Result<Vec<u128>, HistoryError> {
    let Some(at) = moment.0.checked_sub(1).map(Time) else { return Ok(vec![0; account.columns().len()]) };
    match account {
        Account::Partition(partition) => {
            Ok(balances(view, *partition, at, budget)?.unwrap_or_default().to_array().to_vec())
        }
        Account::Supplier { partition, supplier } => {
            let stake = stake(view, *partition, *supplier, at, budget)?;
            Ok(vec![stake.units, stake.queued, stake.value, 0, 0, 0, 0])
        }
        Account::Merchant { tenant, merchant } => {
            let mut sums = [0_u128; MerchantTotals::LEN];
            for shard in bounds.shards() {
                let before = (Seq(bounds.next(shard).0 - 1), at);
                let totals = merchant_at(view, (*tenant, *merchant), shard, before, budget)?;
                add(&mut sums, totals.to_array());
            }
            Ok(sums.to_vec())
        }
    }
}

/// The totals of a merchant in a shard, as the last row up to a seq and a moment tells them.
fn merchant_at(
    view: &View,
    (tenant, merchant): (TenantId, MerchantId),
    shard: ShardId,
    before: (Seq, Time),
    budget: &mut Budget,
) -> Result<MerchantTotals, HistoryError> {
    let is_it = |row: &Row| row.record.tenant == tenant && row.merchant_of() == Some(merchant);
    let found = last_row(view, Term::Account(tenant, merchant), shard, before, is_it, budget)?;
    Ok(found.and_then(|row| row.merchant).unwrap_or_default())
}

fn add<const N: usize>(sums: &mut [u128; N], amounts: [u128; N]) {
    for (sum, amount) in sums.iter_mut().zip(amounts) {
        *sum = sum.wrapping_add(amount);
    }
}

/// The account as the lines leave it.
struct Book<'a> {
    view: &'a View,
    account: &'a Account,
    /// What all of this may cost.
    budget: Budget,
    running: Vec<u128>,
    /// Of a merchant: its totals in each shard that a line has come from.
    shards: BTreeMap<ShardId, MerchantTotals>,
    /// The blocks that were read last.
    near: Vec<(ShardId, BlockNumber, Vec<Row>)>,
}

impl<'a> Book<'a> {
    const fn new(view: &'a View, account: &'a Account, budget: Budget) -> Self {
        Self { view, account, budget, running: Vec::new(), shards: BTreeMap::new(), near: Vec::new() }
    }

    /// The line of a row, if it changed anything; an error if it is not what its record says.
    fn line(&mut self, row: Row) -> Result<Option<Line>, QueryError> {
        let Some(after) = self.after(&row)? else { return Ok(None) };
        let place = (row.shard, row.seq);
        let bounded = || uneven(self.account, place, "an amount grew beyond all bounds".into());
        let changes = changes(&self.running, &after).ok_or_else(bounded)?;
        let checked = match self.account {
            Account::Partition(_) => self.check_money(&row, &after)?,
            Account::Supplier { partition, .. } => self.check_worth(&row, *partition)?,
            Account::Merchant { .. } => self.check_merchant(&row, &changes)?,
        };
        checked.map_err(|what| uneven(self.account, place, what))?;
        let has_moved = changes.iter().any(|change| *change != 0);
        self.running.clone_from(&after);
        Ok(has_moved.then_some(Line { row, changes, after }))
    }

    /// The account after a row; none if the row says nothing of it.
    fn after(&mut self, row: &Row) -> Result<Option<Vec<u128>>, QueryError> {
        Ok(match *self.account {
            Account::Partition(_) => row.balances.map(|money| money.to_array().to_vec()),
            Account::Supplier { supplier, .. } => {
                row.balances.map(|money| stake_after(&self.running, row, &supplier, &money))
            }
            Account::Merchant { tenant, merchant } => match row.merchant {
                Some(totals) if row.merchant_of() == Some(merchant) => {
                    // Found on another way than the lines are: what is missing on the one is not on the other.
                    let end = (Seq(row.seq.0 - 1), Time(u64::MAX));
                    let whose = (tenant, merchant);
                    let before = merchant_at(self.view, whose, row.shard, end, &mut self.budget)?;
                    if self.shards.get(&row.shard).is_some_and(|last| *last != before) {
                        let what = "a record before it is missing".into();
                        return Err(uneven(self.account, (row.shard, row.seq), what));
                    }
                    self.shards.insert(row.shard, totals);
                    let parts = self.running.iter().zip(before.to_array()).zip(totals.to_array());
                    Some(parts.map(|((sum, old), new)| sum.wrapping_sub(old).wrapping_add(new)).collect())
                }
                _ => None,
            },
        })
    }

    /// Holds what a row changed of a partition's money against its record, or against those of the chain that it is the first of.
    fn check_money(&mut self, row: &Row, after: &[u128]) -> Result<Result<(), String>, QueryError> {
        let operation = self.operation(row)?;
        let is_ours = |other: &Row| other.record.partition == row.record.partition;
        let effect = if is_first(&operation, row, is_ours) {
            Effect::of_all(records(&operation, is_ours))
        } else {
            Effect::NONE
        };
        Ok(match (money(&self.running), money(after)) {
            (Some(before), Some(after)) => effect.check(&before, &after),
            _ => Err("it has other amounts than a partition".into()),
        })
    }

    /// Of a supplier: that its units were worth the same before this row as after the last line, and that the partition's money went on
    /// from there by what the record says. Its units are told by its own records, and the closing by the ledger.
    fn check_worth(
        &mut self,
        row: &Row,
        partition: PartitionHandle,
    ) -> Result<Result<(), String>, QueryError> {
        let is_it = |other: &Row| other.record.partition == partition;
        let is_line = |other: &Row| {
            is_it(other) && other.record.kind().is_some_and(|kind| SUPPLIER_KINDS.contains(&kind))
        };
        let operation = self.operation(row)?;
        let after = row.balances.unwrap_or_default();
        // The first line of a chain has all that the chain did, and a row of a chain tells how things stood after all of it: what there was
        // before is told by the last row before the whole chain, which need not be the one before this row.
        let (before, effect) = if is_first(&operation, row, is_line) {
            let first = operation.front().map_or(row.seq, |first| first.seq);
            let end = (Seq(first.0 - 1), Time(u64::MAX));
            let term = Term::Partition(partition);
            let last = last_row(self.view, term, row.shard, end, is_it, &mut self.budget)?;
            let before = last.and_then(|row| row.balances).unwrap_or_default();
            (before, Effect::of_all(records(&operation, is_it)))
        } else {
            (after, Effect::NONE)
        };
        if ledger::unit_value(self.running[0], before.equity(), before.units) != self.running[2] {
            return Ok(Err("a record before it is missing".into()));
        }
        Ok(effect.check(&before, &after))
    }

    /// The same of a merchant's totals.
    fn check_merchant(&mut self, row: &Row, changes: &[i128]) -> Result<Result<(), String>, QueryError> {
        let key = |row: &Row| (row.record.tenant, row.merchant_of());
        let is_ours = |other: &Row| key(other) == key(row);
        let operation = self.operation(row)?;
        let effect = if is_first(&operation, row, is_ours) {
            MerchantEffect::of_all(records(&operation, is_ours))
        } else {
            MerchantEffect::NONE
        };
        Ok(match <&[i128; MerchantTotals::LEN]>::try_from(changes) {
            Ok(changes) => effect.check(changes),
            Err(_) => Err("it has other amounts than a merchant".into()),
        })
    }

    /// The rows of a row's operation: of the linked chain that it is part of, or it alone.
    fn operation(&mut self, row: &Row) -> Result<VecDeque<Row>, QueryError> {
        let mut rows = VecDeque::from([row.clone()]);
        while let Some(first) = rows.front().filter(|first| first.seq > Seq(1) && rows.len() <= CHAIN_MAX) {
            let before = self.row_at(row.shard, Seq(first.seq.0 - 1))?;
            if !effect::is_continued(&before.record) || before.is_part() {
                break;
            }
            rows.push_front(before);
        }
        while let Some(last) =
            rows.back().filter(|last| effect::is_continued(&last.record) && rows.len() <= CHAIN_MAX)
        {
            let next = self.row_at(row.shard, last.seq.next())?;
            rows.push_back(next);
        }
        Ok(rows)
    }

    fn row_at(&mut self, shard: ShardId, seq: Seq) -> Result<Row, HistoryError> {
        let number = self.view.blocks().of(seq);
        let known = self.near.iter().position(|(of, at, _)| (*of, *at) == (shard, number));
        let at = match known {
            Some(at) => at,
            None => {
                // A chain may lie in two blocks.
                self.near.truncate(1);
                self.budget.block();
                self.near.insert(0, (shard, number, block(self.view, shard, number)?));
                0
            }
        };
        let found = self.near[at].2.iter().find(|row| row.seq == seq);
        found.cloned().ok_or(HistoryError::Damaged {
            what: "a record that should be there",
            shard,
            at: seq.0,
        })
    }

    /// The end of the period: what there is then, told by itself, is what the lines have come to, and what comes next goes on from there.
    fn close(&mut self, bounds: &Bounds, until: Time) -> Result<(), QueryError> {
        let mut closing = amounts_before(self.view, bounds, self.account, until, &mut self.budget)?;
        if let Account::Supplier { .. } = self.account {
            // What came and went is told by the lines alone; the opening has none of it.
            closing[3..].copy_from_slice(&self.running[3..]);
        }
        if closing != self.running {
            let what = format!("the lines come to {:?}, there is {closing:?}", self.running);
            return Err(self.uneven_closing(what));
        }
        if let Account::Supplier { partition, .. } = *self.account {
            // What its units are worth comes from the partition's money, which has to go on as well.
            let account = Account::Partition(partition);
            let mut money = Book::new(self.view, &account, Budget::share(Work::begin(0), 1));
            money.running = amounts_before(self.view, bounds, &account, until, &mut self.budget)?;
            return money.go_on(bounds, until);
        }
        self.go_on(bounds, until)
    }

    /// Holds the first row behind the period in each shard against what there is before it; where there is none, that has to be all that
    /// there is.
    fn go_on(&mut self, bounds: &Bounds, until: Time) -> Result<(), QueryError> {
        let closing = self.running.clone();
        for shard in bounds.shards() {
            match self.next_row(bounds, shard, until)? {
                Some(row) => {
                    self.line(row)?;
                    self.running.clone_from(&closing);
                }
                None => self.check_end(bounds, shard, until)?,
            }
        }
        Ok(())
    }

    /// The first row behind the period in a shard that tells of the account.
    fn next_row(
        &mut self,
        bounds: &Bounds,
        shard: ShardId,
        until: Time,
    ) -> Result<Option<Row>, HistoryError> {
        let term = match *self.account {
            Account::Partition(partition) => Term::Partition(partition),
            Account::Merchant { tenant, merchant } => Term::Account(tenant, merchant),
            Account::Supplier { .. } => return Ok(None),
        };
        let seqs = (Seq(1), Seq(bounds.next(shard).0 - 1));
        let place = (shard, Order::Ascending, seqs, (until, Time(u64::MAX)));
        let is_it = |row: &Row| row.time >= until && self.account.is_told_by(row);
        nearest_row(self.view, term, place, is_it, &mut self.budget)
    }

    /// Where nothing of the account comes behind the period, what it had then is what it has now. That is told by a table of its own,
    /// which no posting leads to: rows that are missing up to the end are found.
    fn check_end(&mut self, bounds: &Bounds, shard: ShardId, until: Time) -> Result<(), QueryError> {
        self.budget.seek();
        let (told, now) = match *self.account {
            Account::Partition(partition) if partition.shard() == shard => {
                let now = self.view.partition(partition)?.unwrap_or_default();
                (self.running.clone(), now.to_array().to_vec())
            }
            Account::Merchant { tenant, merchant } => {
                let before = (Seq(bounds.next(shard).0 - 1), Time(until.0.saturating_sub(1)));
                let told = merchant_at(self.view, (tenant, merchant), shard, before, &mut self.budget)?;
                let now = self.view.merchant(shard, tenant, merchant)?;
                (told.to_array().to_vec(), now.to_array().to_vec())
            }
            _ => return Ok(()),
        };
        if told == now {
            return Ok(());
        }
        let what = format!(
            "in shard {shard} its last record leaves {told:?}, it has {now:?} now: a record is missing"
        );
        Err(self.uneven_closing(what))
    }

    fn uneven_closing(&self, what: String) -> QueryError {
        QueryError::UnevenClosing { account: self.account.to_string(), what }
    }
}

/// The records of those rows of an operation that are meant.
fn records(operation: &VecDeque<Row>, is_meant: impl Fn(&Row) -> bool) -> impl Iterator<Item = &Record> {
    operation.iter().filter(move |row| is_meant(row)).map(|row| &row.record)
}

/// True if no row of the operation that is meant stands before this one.
fn is_first(operation: &VecDeque<Row>, row: &Row, is_meant: impl Fn(&Row) -> bool) -> bool {
    !operation.iter().any(|other| other.seq < row.seq && is_meant(other))
}

/// What a supplier has after a row, told by the row's record and the partition's money.
fn stake_after(before: &[u128], row: &Row, supplier: &Address, money: &Balances) -> Vec<u128> {
    let mut after = before.to_vec();
    let record = &row.record;
    let is_done = record.code().is_some_and(Code::is_success);
    let is_own = is_done && supplier_of(record).as_ref() == Some(supplier);
    let units = || record.body::<StakeBody>().units;
    let (mut came, mut went) = (0, 0);
    match record.kind() {
        // All units there are: those from before were worth nothing and are gone.
        Some(Kind::Deposit) if is_done && money.units == units() => {
            after[0] = if is_own { units() } else { 0 };
            after[1] = 0;
            came = if is_own { record.amount.0 } else { 0 };
        }
        Some(Kind::Deposit) if is_own => {
            after[0] = after[0].wrapping_add(units());
            came = record.amount.0;
        }
        Some(Kind::Withdraw) if is_own && record.code() == Some(Code::Queued) => {
            after[1] = after[1].wrapping_add(record.amount.0);
        }
        Some(Kind::Withdraw) if is_own => {
            after[0] = after[0].wrapping_sub(units());
            went = record.result.0;
        }
        Some(Kind::WithdrawPaid) if is_own => {
            after[0] = after[0].wrapping_sub(record.amount.0);
            after[1] = after[1].wrapping_sub(record.amount.0);
            went = record.result.0;
        }
        _ => {}
    }
    after[2] = ledger::unit_value(after[0], money.equity(), money.units);
    after[3] = after[3].wrapping_add(came);
    after[4] = after[4].wrapping_add(went);
    let (more, less) = (after[2].wrapping_add(went), before[2].wrapping_add(came));
    after[5] = after[5].wrapping_add(more.saturating_sub(less));
    after[6] = after[6].wrapping_add(less.saturating_sub(more));
    after
}

fn money(amounts: &[u128]) -> Option<Balances> {
    amounts.try_into().ok().map(Balances::from_array)
}

fn changes(before: &[u128], after: &[u128]) -> Option<Vec<i128>> {
    let change = |(before, after): (&u128, &u128)| {
        let size = i128::try_from(after.abs_diff(*before)).ok()?;
        Some(if after >= before { size } else { -size })
    };
    before.iter().zip(after).map(change).collect()
}

fn uneven(account: &Account, (shard, seq): (ShardId, Seq), what: String) -> QueryError {
    QueryError::Uneven { account: account.to_string(), shard, seq, what }
}
