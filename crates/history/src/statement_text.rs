//! Statements and the money of suppliers as documents.

use serde_json::{Value, json};
use surety_protocol::{Kind, MerchantId, TenantId, Time};
use texts::values::{exact_moment_text, moment_text};

use crate::ask::{self, AskError, OfMoment, OfPeriod};
use crate::error::QueryError;
use crate::reader::{AsOf, Reader, Scope};
use crate::row::Stake;
use crate::statement::{Account, Line, StatementPage, StatementQuery};
use crate::tell;

/// A page of a statement.
pub(crate) fn statement(reader: &Reader, of: &OfPeriod) -> Result<Value, AskError> {
    let account = account(reader.scope(), of)?;
    if of.cursor.is_none() {
        reader.check_known(&account)?;
    }
    let from = ask::moment("from", of.from.as_deref(), Time::ZERO)?;
    let until = match of.until.as_deref() {
        None => end_of(reader, &account, from)?,
        Some(text) => ask::moment("until", Some(text), Time::ZERO)?,
    };
    let query = StatementQuery {
        account,
        from,
        until,
        cursor: of.cursor.as_deref().map(str::parse).transpose()?,
        limit: of.limit.unwrap_or(ask::ROWS_DEFAULT),
    };
    let page = reader.statement(&query)?;
    Ok(told(&query, &page))
}

/// The latest end that a period from a moment on may have.
fn end_of(reader: &Reader, account: &Account, from: Time) -> Result<Time, QueryError> {
    let complete_before = reader.complete_for(account)?;
    if from >= complete_before {
        return Err(QueryError::NotComplete { until: Time(from.0.saturating_add(1)), complete_before });
    }
    Ok(complete_before)
}

fn account(scope: Scope, of: &OfPeriod) -> Result<Account, AskError> {
    const WHOSE: AskError = AskError::Whose(
        "partition, partition and supplier, merchant, whose tenant the operator names (on a command line: --merchant N --tenant N)",
    );
    let partition = of.partition.as_deref().map(ask::partition).transpose()?;
    let supplier = of.supplier.as_deref().map(|text| ask::address("supplier", text)).transpose()?;
    match (partition, supplier, of.merchant) {
        (Some(partition), None, None) => Ok(Account::Partition(partition)),
        (Some(partition), Some(supplier), None) => Ok(Account::Supplier { partition, supplier }),
        (None, None, Some(merchant)) => {
            let own = match scope {
                Scope::Tenant(tenant) => Some(tenant),
                Scope::Operator => None,
            };
            let tenant = of.tenant.map(TenantId).or(own).ok_or(WHOSE)?;
            Ok(Account::Merchant { tenant, merchant: MerchantId(merchant) })
        }
        _ => Err(WHOSE),
    }
}

fn told(query: &StatementQuery, page: &StatementPage) -> Value {
    let names = query.account.columns();
    let amounts = |amounts: &Vec<u128>| tell::amounts(names, amounts);
    json!({
        "account": query.account.to_string(),
        "names": names,
        "from": moment_text(query.from),
        "until": end_text(query.until),
        "opening": page.opening.as_ref().map(amounts),
        "lines": page.lines.iter().map(|one| line(names, one)).collect::<Vec<_>>(),
        "lines_so_far": page.lines_so_far,
        "closing": page.closing.as_ref().map(amounts),
        "cursor": page.cursor.as_ref().map(ToString::to_string),
        "has_more": page.cursor.is_some(),
        "complete_before": moment_text(page.complete_before),
    })
}

/// The end of a period; none of one without an end, as that of a log is to which nothing is added.
fn end_text(until: Time) -> Option<String> {
    (until < Time(u64::MAX)).then(|| moment_text(until))
}

fn line(names: &[&str], line: &Line) -> Value {
    let Line { row, changes, after } = line;
    json!({
        "time": moment_text(row.time),
        "shard": row.shard.0,
        "seq": row.seq.0,
        "kind": row.record.kind().map(Kind::name),
        "lock": row.record.lock().to_string(),
        "changes": tell::amounts(names, changes),
        "after": tell::amounts(names, after),
    })
}

/// The money of a partition, or of a supplier in it.
pub(crate) fn balances(reader: &Reader, of: &OfMoment) -> Result<Value, AskError> {
    let at = of.at.as_deref().map(|text| ask::moment("at", Some(text), Time::ZERO)).transpose()?;
    let partition = ask::partition(&of.partition)?;
    let (balances, complete_before) = match of.supplier.as_deref() {
        None => {
            let AsOf { value, complete_before } = reader.balances_as_of(partition, at)?;
            (value.as_ref().map(tell::balances), complete_before)
        }
        Some(supplier) => {
            let supplier = ask::address("supplier", supplier)?;
            let AsOf { value, complete_before } = reader.supplier_as_of(partition, supplier, at)?;
            let names = ["units", "queued", "value"];
            let told =
                value.map(|Stake { units, queued, value }| tell::amounts(&names, &[units, queued, value]));
            (told, complete_before)
        }
    };
    Ok(json!({
        "partition": partition.to_string(),
        "supplier": of.supplier,
        "at": at.map(exact_moment_text),
        "balances": balances,
        "complete_before": moment_text(complete_before),
    }))
}
