//! `/v1/history`: what has happened, from an engine that keeps it. The documents are those of the history's ASK.md, as at every other door.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query};
use axum::http::{HeaderMap, Uri, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Answer, lock_id, query};
use crate::guard::Visit;
use crate::past::{Form, Forms, Told, Words, ask, fields};
use crate::problem::Problem;
use crate::shapes::{
    BalancesQuery, HistoryBalances, HistoryLock, HistoryPage, HistoryStatement, LocksQuery, OneLockQuery,
    OpenLocksQuery, RecordsQuery, StatementQuery,
};

/// Conditions that locks are held against.
const OF_LOCKS: Forms = &[
    ("lock", Form::Texts),
    ("merchant", Form::Numbers),
    ("payee", Form::Texts),
    ("partition", Form::Texts),
    ("tenant", Form::Numbers),
    ("code", Form::Texts),
    ("state", Form::Texts),
    ("amount_min", Form::Text),
    ("amount_max", Form::Text),
    ("from", Form::Text),
    ("until", Form::Text),
    ("order", Form::Text),
    ("limit", Form::Number),
    ("cursor", Form::Text),
];
const OF_OPEN_LOCKS: Forms = &[
    ("lock", Form::Texts),
    ("merchant", Form::Numbers),
    ("payee", Form::Texts),
    ("partition", Form::Texts),
    ("tenant", Form::Numbers),
    ("code", Form::Texts),
    ("state", Form::Texts),
    ("amount_min", Form::Text),
    ("amount_max", Form::Text),
    ("from", Form::Text),
    ("until", Form::Text),
    ("by", Form::Text),
    ("limit", Form::Number),
    ("cursor", Form::Text),
];
const OF_RECORDS: Forms = &[
    ("lock", Form::Texts),
    ("merchant", Form::Numbers),
    ("payee", Form::Texts),
    ("partition", Form::Texts),
    ("tenant", Form::Numbers),
    ("supplier", Form::Texts),
    ("code", Form::Texts),
    ("kind", Form::Texts),
    ("state", Form::Texts),
    ("amount_min", Form::Text),
    ("amount_max", Form::Text),
    ("from", Form::Text),
    ("until", Form::Text),
    ("order", Form::Text),
    ("limit", Form::Number),
    ("cursor", Form::Text),
];
const OF_A_LOCK: Forms = &[("partition", Form::Text), ("limit", Form::Number), ("cursor", Form::Text)];
const OF_BALANCES: Forms = &[("supplier", Form::Text), ("at", Form::Text)];
const OF_A_STATEMENT: Forms = &[
    ("supplier", Form::Text),
    ("tenant", Form::Number),
    ("from", Form::Text),
    ("until", Form::Text),
    ("limit", Form::Number),
    ("cursor", Form::Text),
    ("format", Form::Text),
];

type Parameters = Result<Query<Words>, QueryRejection>;

/// Finds records by any combination of conditions.
///
/// All conditions have to hold; of the values of one that is given more than once, any. Amounts are in base units. With an engine that keeps
/// no history it is 404, `NO_HISTORY`.
#[utoipa::path(
    get, path = "/v1/history/records", tag = "history", operation_id = "findRecords", params(RecordsQuery),
    responses(
        (status = 200, description = "A page of records. `Link` leads to the next one.", body = HistoryPage),
        (status = "4XX", description = "The request makes no sense, or the engine keeps no history.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn records(Extension(visit): Extension<Visit>, uri: Uri, parameters: Parameters) -> Answer {
    found(&visit, uri.path(), "records", &query(parameters)?, OF_RECORDS).await
}

/// Finds locks by any combination of conditions, as they stand now, however old they are.
#[utoipa::path(
    get, path = "/v1/history/locks", tag = "history", operation_id = "findLocks", params(LocksQuery),
    responses(
        (status = 200, description = "A page of locks, in the order in which they were made. `Link` leads to the next one.", body = HistoryPage),
        (status = "4XX", description = "The request makes no sense, or the engine keeps no history.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn locks(Extension(visit): Extension<Visit>, uri: Uri, parameters: Parameters) -> Answer {
    found(&visit, uri.path(), "locks", &query(parameters)?, OF_LOCKS).await
}

/// Lists locks that are live: the oldest first, or the one that ends soonest.
#[utoipa::path(
    get, path = "/v1/history/open", tag = "history", operation_id = "listOpenLocks", params(OpenLocksQuery),
    responses(
        (status = 200, description = "A page of locks. `Link` leads to the next one.", body = HistoryPage),
        (status = "4XX", description = "The request makes no sense, or the engine keeps no history.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn open(Extension(visit): Extension<Visit>, uri: Uri, parameters: Parameters) -> Answer {
    found(&visit, uri.path(), "open_locks", &query(parameters)?, OF_OPEN_LOCKS).await
}

/// Tells a lock as it stands now, and every record that made or changed it, the oldest first.
#[utoipa::path(
    get, path = "/v1/history/locks/{id}", tag = "history", operation_id = "showLockHistory",
    params(("id" = String, Path, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", description = "The lock."), OneLockQuery),
    responses(
        (status = 200, description = "The lock, and a page of its records. `Link` leads to the next one.", body = HistoryLock),
        (status = "4XX", description = "There is no such lock, or none of this tenant; or the engine keeps no history.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn lock(
    Extension(visit): Extension<Visit>,
    uri: Uri,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Answer {
    let words = query(parameters)?;
    let mut of = fields(&words, OF_A_LOCK)?;
    of.insert("id".to_owned(), lock_id(&id)?.to_string().into());
    let told = ask(&visit, json!({ "lock": of })).await?;
    let Found { locks, rows, has_more } = told.read()?;
    if locks.is_empty() && rows.is_empty() && !has_more && !of.contains_key("cursor") {
        return Err(Problem::not_found("UNKNOWN_LOCK", "There is no such lock, or none of this tenant."));
    }
    let link = told.next(uri.path(), &words)?;
    Ok(told.into_reply(link))
}

/// What there is of a lock, unread.
#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow)]
    locks: Vec<&'a RawValue>,
    #[serde(borrow)]
    rows: Vec<&'a RawValue>,
    /// A page may have nothing, and yet there may be more behind it.
    has_more: bool,
}

/// Tells the money of a partition, or of a supplier in it, as of a moment. For the operator.
#[utoipa::path(
    get, path = "/v1/history/balances/{partition}", tag = "history", operation_id = "showBalances",
    params(("partition" = String, Path, pattern = "^(0|[1-9][0-9]{0,4}):[1-9][0-9]{0,14}$", description = "Shard and number."), BalancesQuery),
    responses(
        (status = 200, description = "The money after the last record of that moment or before.", body = HistoryBalances),
        (status = "4XX", description = "It was not there then, is not for this tenant, or the engine keeps no history.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn balances(
    Extension(visit): Extension<Visit>,
    Path(partition): Path<String>,
    parameters: Parameters,
) -> Answer {
    let mut of = fields(&query(parameters)?, OF_BALANCES)?;
    of.insert("partition".to_owned(), super::partition(&partition, "partition")?.to_string().into());
    let told = ask(&visit, json!({ "balances": of })).await?;
    if told.read::<Map<String, Value>>()?.get("balances").is_none_or(Value::is_null) {
        return Err(Problem::not_found("UNKNOWN_PARTITION", "It was not there at that moment."));
    }
    Ok(told.into_reply(None))
}

/// Tells what changed the money of a merchant in a period, between what there was and what there is.
///
/// The first page has what there was, the last one what there is, which is there only if every line adds up. Without `until` the period ends
/// where the history is complete; `Link` names that end for the pages that follow. As JSON, or with `format=csv` or `Accept: text/csv` as lines:
/// the pages one behind the other are one file.
#[utoipa::path(
    get, path = "/v1/history/statements/merchants/{merchant}", tag = "history", operation_id = "showMerchantStatement",
    params(("merchant" = u64, Path, maximum = 18_446_744_073_709_551_615_u64, description = "The merchant."), StatementQuery),
    responses(
        (status = 200, description = "A page of the statement. `Link` leads to the next one.", content((HistoryStatement = "application/json"), (String = "text/csv"))),
        (status = "4XX", description = "The request makes no sense, the period is not complete yet (409), or the engine keeps no history.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn merchant_statement(
    Extension(visit): Extension<Visit>,
    uri: Uri,
    Path(merchant): Path<String>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Answer {
    let number = merchant.parse::<u64>().ok().filter(|_| merchant.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.ok_or_else(|| Problem::parameter("merchant", "A merchant is a whole number."))?;
    statement(&visit, uri.path(), &headers, &query(parameters)?, ("merchant", number.into())).await
}

/// Tells what changed the money of a partition, or of a supplier in it, in a period. For the operator.
///
/// As that of a merchant.
#[utoipa::path(
    get, path = "/v1/history/statements/partitions/{partition}", tag = "history", operation_id = "showPartitionStatement",
    params(("partition" = String, Path, pattern = "^(0|[1-9][0-9]{0,4}):[1-9][0-9]{0,14}$", description = "Shard and number."), StatementQuery),
    responses(
        (status = 200, description = "A page of the statement. `Link` leads to the next one.", content((HistoryStatement = "application/json"), (String = "text/csv"))),
        (status = "4XX", description = "The request makes no sense, there is no such partition (404), it is not for this tenant, the period is not complete yet (409), or the engine keeps no history.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn partition_statement(
    Extension(visit): Extension<Visit>,
    uri: Uri,
    Path(partition): Path<String>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Answer {
    let handle = super::partition(&partition, "partition")?.to_string();
    statement(&visit, uri.path(), &headers, &query(parameters)?, ("partition", handle.into())).await
}

/// Tells how far the history has come. For the operator.
#[utoipa::path(
    get, path = "/v1/history/status", tag = "history", operation_id = "showHistoryStatus",
    responses(
        (status = 200, description = "How it is doing, the whole and each shard.", body = Object),
        (status = "4XX", description = "It is not for this tenant, or the engine keeps no history.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn status(Extension(visit): Extension<Visit>, parameters: Parameters) -> Answer {
    fields(&query(parameters)?, &[])?;
    Ok(ask(&visit, json!({ "status": {} })).await?.into_reply(None))
}

/// Asks for a page by conditions.
async fn found(visit: &Visit, path: &str, what: &str, words: &Words, forms: Forms) -> Answer {
    let told = ask(visit, json!({ what: fields(words, forms)? })).await?;
    let link = told.next(path, words)?;
    Ok(told.into_reply(link))
}

async fn statement(
    visit: &Visit,
    path: &str,
    headers: &HeaderMap,
    words: &Words,
    (name, account): (&str, Value),
) -> Answer {
    let mut of = fields(words, OF_A_STATEMENT)?;
    let is_csv = is_csv(of.remove("format"), headers)?;
    of.insert(name.to_owned(), account);
    let told: Told = ask(visit, json!({ "statement": of })).await?;
    let link = told.next(path, words)?;
    if is_csv { told.into_csv(link) } else { Ok(told.into_reply(link)) }
}

/// Which form of a statement is wanted: the parameter says it, or the header.
fn is_csv(format: Option<Value>, headers: &HeaderMap) -> Result<bool, Box<Problem>> {
    match format.as_ref().map(|format| format.as_str()) {
        Some(Some("csv")) => Ok(true),
        Some(Some("json")) => Ok(false),
        Some(_) => Err(Problem::parameter("format", "There are `json` and `csv`.")),
        None => {
            let accept =
                headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            Ok(accept.split(',').any(|kind| kind.trim().starts_with("text/csv")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use utoipa::IntoParams;
    use utoipa::openapi::path::ParameterIn;

    #[test]
    fn what_is_described_is_what_is_read() {
        fn check<P: IntoParams>(forms: Forms) {
            let described = P::into_params(|| Some(ParameterIn::Query));
            let mut described: Vec<String> = described.into_iter().map(|parameter| parameter.name).collect();
            let mut read: Vec<String> = forms.iter().map(|(name, _)| (*name).to_owned()).collect();
            described.sort();
            read.sort();
            assert_eq!(described, read);
        }
        check::<RecordsQuery>(OF_RECORDS);
        check::<LocksQuery>(OF_LOCKS);
        check::<OpenLocksQuery>(OF_OPEN_LOCKS);
        check::<OneLockQuery>(OF_A_LOCK);
        check::<BalancesQuery>(OF_BALANCES);
        check::<StatementQuery>(OF_A_STATEMENT);
    }
}
