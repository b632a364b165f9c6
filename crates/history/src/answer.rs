//! One question in, one answer out, both as documents: what every door carries.

use serde_json::{Value, json};
use surety_protocol::{Record, TenantId, Time};
use texts::values::moment_text;

use crate::ask::{self, Ask, AskError, Conditions, OfLock, Question};
use crate::error::{HistoryError, QueryError};
use crate::feed::now;
use crate::frames::ANSWER_BYTES_MAX;
use crate::query::{Order, Page, Predicate, Query};
use crate::reader::{Reader, Scope};
use crate::row::Row;
use crate::statement_text;
use crate::tell::{self, Status};

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The question cannot be understood, or contradicts itself.
    Malformed,
    /// It is for the operator.
    Forbidden,
    /// It is about a time that is not indexed in full yet.
    NotComplete,
    /// Question or answer do not fit.
    TooLong,
    /// There never was such a partition.
    UnknownPartition,
    /// There is no room for it now.
    Busy,
    /// The index is not as it was written.
    Damaged,
    /// Something else went wrong.
    Failed,
}

impl Fault {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::Forbidden,
        Self::NotComplete,
        Self::TooLong,
        Self::UnknownPartition,
        Self::Busy,
        Self::Damaged,
        Self::Failed,
    ];

    /// As documents have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forbidden => "forbidden",
            Self::NotComplete => "not_complete",
            Self::TooLong => "too_long",
            Self::UnknownPartition => "unknown_partition",
            Self::Busy => "busy",
            Self::Damaged => "damaged",
            Self::Failed => "failed",
        }
    }

    /// True if a question that met it may be answered in a moment as it is. What is not complete comes by itself only if it has been.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::Failed)
    }

    /// That of an error.
    #[must_use]
    pub fn of(error: &AskError) -> Self {
        match error {
            AskError::NotYours { .. } | AskError::Query(QueryError::OperatorOnly(_)) => Self::Forbidden,
            AskError::Query(QueryError::NotComplete { .. } | QueryError::NotYet { .. }) => Self::NotComplete,
            AskError::Query(QueryError::Uneven { .. } | QueryError::UnevenClosing { .. }) => Self::Damaged,
            AskError::Query(QueryError::UnknownPartition(_)) => Self::UnknownPartition,
            AskError::Query(QueryError::Unavailable) => Self::Failed,
            AskError::Query(QueryError::History(error)) => match error {
                HistoryError::Damaged { .. } => Self::Damaged,
                _ => Self::Failed,
            },
            _ => Self::Malformed,
        }
    }
}

/// The document of a refusal.
#[must_use]
pub fn refusal(fault: Fault, message: &str) -> Vec<u8> {
    refused(fault, message, fault.is_retryable())
}

fn refused(fault: Fault, message: &str, is_retryable: bool) -> Vec<u8> {
    let error = json!({ "code": fault.name(), "message": message, "retryable": is_retryable });
    json!({ "error": error }).to_string().into_bytes()
}

/// Whether the same question may be answered in a moment, by a clock: what lies ahead of it is asked too early, what lies behind it is on its
/// way into the index.
fn is_retryable(error: &AskError, now: Time) -> bool {
    match error {
        AskError::Query(QueryError::NotComplete { until, .. }) => *until <= now,
        AskError::Query(QueryError::NotYet { at, .. }) => *at <= now,
        error => Fault::of(error).is_retryable(),
    }
}

/// Answers a question out of an index, of which `status` tells how it is doing. Blocks for as long as the disk takes.
pub fn answer(
    reader: &Reader,
    status: impl FnOnce() -> Result<Status, QueryError>,
    question: &[u8],
) -> Vec<u8> {
    let answered = Question::read(question).and_then(|question| told(reader, status, &question));
    let body = match answered {
        Ok(value) => json!({ "ok": value }).to_string().into_bytes(),
        Err(error) => return refused(Fault::of(&error), &error.to_string(), is_retryable(&error, now())),
    };
    if body.len() > ANSWER_BYTES_MAX {
        let message =
            format!("an answer of {} bytes, {ANSWER_BYTES_MAX} fit: ask for fewer rows", body.len());
        return refusal(Fault::TooLong, &message);
    }
    body
}

/// The same, read and not yet written.
///
/// # Errors
/// [`AskError`].
pub fn told(
    reader: &Reader,
    status: impl FnOnce() -> Result<Status, QueryError>,
    question: &Question,
) -> Result<Value, AskError> {
    let scope = question.of.map_or(Scope::Operator, |tenant| Scope::Tenant(TenantId(tenant)));
    // All that an answer says is of one moment.
    let reader = reader.of(scope).pinned()?;
    match &question.ask {
        Ask::Records(conditions) => records(&reader, conditions),
        Ask::Locks(conditions) => {
            let found = reader.locks(&conditions.to_query("locks")?)?;
            Ok(page(&found, found.rows.iter().map(tell::lock).collect(), &found.cursor))
        }
        Ask::OpenLocks(conditions) => {
            let (by, query, cursor) = conditions.to_open_query()?;
            let found = reader.open_locks(by, &query.predicates, cursor, query.limit)?;
            Ok(page(&found, found.rows.iter().map(tell::lock).collect(), &found.cursor))
        }
        Ask::Lock(of) => lock(&reader, of),
        Ask::Balances(of) => statement_text::balances(&reader, of),
        Ask::Statement(of) => statement_text::statement(&reader, of),
        Ask::Status(_) => {
            reader.operator_only("the state of the index")?;
            Ok(serde_json::to_value(status()?)?)
        }
    }
}

fn records(reader: &Reader, conditions: &Conditions) -> Result<Value, AskError> {
    let found = reader.records(&conditions.to_query("records")?)?;
    let rows = rows(reader, &found.rows)?;
    Ok(page(&found, rows, &found.cursor))
}

/// Records with what continues them.
fn rows(reader: &Reader, rows: &[Row]) -> Result<Vec<Value>, AskError> {
    rows.iter().map(|row| Ok(tell::row(row, &parts(reader, row)?))).collect()
}

fn parts(reader: &Reader, row: &Row) -> Result<Vec<Record>, AskError> {
    if row.record.continuations() == 0 {
        return Ok(Vec::new());
    }
    let all = reader.record(row.shard, row.seq)?;
    Ok(all.iter().skip(1).map(|row| row.record).collect())
}

/// The locks of an id as they stand now, and every record that makes or names them.
fn lock(reader: &Reader, of: &OfLock) -> Result<Value, AskError> {
    let id = ask::id("id", &of.id)?;
    let partition = of.partition.as_deref().map(ask::partition).transpose()?;
    let mut predicates = vec![Predicate::Lock(id)];
    predicates.extend(partition.map(Predicate::Partition));
    let cursor = of.cursor.as_deref().map(str::parse).transpose()?;
    let limit = of.limit.unwrap_or(ask::ROWS_DEFAULT);
    // First: the records take the time that is left, and say where to go on.
    let (locks, are_cut) = reader.locks_of_id(id, partition)?;
    let found = reader.records(&Query { predicates, order: Order::Ascending, cursor, limit })?;
    let mut value = page(&found, rows(reader, &found.rows)?, &found.cursor);
    value["locks"] = locks.iter().map(tell::lock).collect();
    value["locks_cut"] = json!(are_cut);
    Ok(value)
}

/// A page of rows.
pub(crate) fn page<R, C: ToString>(page: &Page<R, C>, rows: Vec<Value>, cursor: &Option<C>) -> Value {
    json!({
        "rows": rows,
        "cursor": cursor.as_ref().map(ToString::to_string),
        "has_more": page.has_more,
        "complete_before": moment_text(page.complete_before),
    })
}
