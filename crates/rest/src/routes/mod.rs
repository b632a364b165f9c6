//! The paths of the front door, and their description.

mod certificates;
mod changes;
mod docs;
mod events;
mod history;
mod locks;
mod partitions;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;
use surety_client::protocol::{Id, PartitionHandle, Reply, ShardId};

use crate::guard::{Shared, guard};
use crate::ids::read_id;
use crate::money::{AmountError, Asset};
use crate::problem::Problem;

/// Says that an answer is that of an earlier request with the same key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What a handler comes to.
type Answer = Result<Response, Box<Problem>>;

/// Every path, its methods, and who serves it. The description has the same: a test holds one against the other.
fn paths() -> Vec<(&'static str, &'static [&'static str], MethodRouter)> {
    vec![
        ("/v1/locks", &["get", "post"], get(locks::list).post(locks::create)),
        ("/v1/locks/{id}", &["get"], get(locks::show)),
        ("/v1/locks/{id}/increase", &["post"], post(changes::increase)),
        ("/v1/locks/{id}/capture", &["post"], post(changes::capture)),
        ("/v1/locks/{id}/release", &["post"], post(changes::release)),
        ("/v1/locks/{id}/refund", &["post"], post(changes::refund)),
        ("/v1/locks/{id}/settle", &["post"], post(changes::settle)),
        ("/v1/locks/{id}/consume", &["post"], post(changes::consume)),
        ("/v1/locks/{id}/certificate", &["get"], get(certificates::show)),
        ("/v1/partitions", &["get"], get(partitions::list)),
        ("/v1/partitions/{id}", &["get"], get(partitions::show)),
        ("/v1/events", &["get"], get(events::list)),
        ("/v1/history/records", &["get"], get(history::records)),
        ("/v1/history/locks", &["get"], get(history::locks)),
        ("/v1/history/locks/{id}", &["get"], get(history::lock)),
        ("/v1/history/open", &["get"], get(history::open)),
        ("/v1/history/balances/{partition}", &["get"], get(history::balances)),
        ("/v1/history/statements/merchants/{merchant}", &["get"], get(history::merchant_statement)),
        ("/v1/history/statements/partitions/{partition}", &["get"], get(history::partition_statement)),
        ("/v1/history/status", &["get"], get(history::status)),
        ("/v1/webhooks", &["get"], get(webhooks::list)),
        ("/v1/webhooks/{name}/pause", &["post"], post(webhooks::pause)),
        ("/v1/webhooks/{name}/resume", &["post"], post(webhooks::resume)),
        ("/v1/webhooks/{name}/replay", &["post"], post(webhooks::replay)),
    ]
}

/// The templates of all paths, for those who count.
pub(crate) fn templates() -> Vec<&'static str> {
    paths().into_iter().map(|(path, ..)| path).chain(docs::PATHS).collect()
}

/// The whole front door.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for (path, _, methods) in paths() {
        router = router.route(path, methods);
    }
    router.merge(docs::router()).layer(from_fn_with_state(shared, guard))
}

/// An answer as JSON.
fn json(body: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(body).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "FAULT", "The answer cannot be written.")
    })?;
    Ok(([(axum::http::header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// The answer to a request with a key.
fn keyed(body: &impl Serialize, reply: &Reply, status: StatusCode) -> Answer {
    let mut answer = json(body)?;
    *answer.status_mut() = status;
    if reply.is_replayed() {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// The parameters behind the path.
fn query<T>(read: Result<Query<T>, QueryRejection>) -> Result<T, Box<Problem>> {
    let problem = |error: QueryRejection| Problem::parameter("query", error.body_text());
    read.map(|Query(query)| query).map_err(problem)
}

/// The lock in the path.
fn lock_id(text: &str) -> Result<Id, Box<Problem>> {
    read_id(text)
        .ok_or_else(|| Problem::parameter("id", "A lock's id is a UUIDv7, in its form with four hyphens."))
}

/// A partition by its text.
fn partition(text: &str, param: &'static str) -> Result<PartitionHandle, Box<Problem>> {
    let parsed = text.split_once(':').and_then(|(shard, number)| {
        let is_number = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
        let number =
            number.parse::<u64>().ok().filter(|value| is_number(number) && (1..1 << 48).contains(value))?;
        let shard = shard.parse().ok().filter(|_| is_number(shard))?;
        Some(PartitionHandle::new(ShardId(shard), number))
    });
    parsed.ok_or_else(|| Problem::parameter(param, "Write a partition as shard:number."))
}

/// The partition that a request names beside its path.
fn named(text: Option<&str>) -> Result<Option<PartitionHandle>, Box<Problem>> {
    text.map(|text| partition(text, "partition")).transpose()
}

/// An amount that cannot be read, or that nobody can ask for.
fn amount_problem(param: &'static str, error: AmountError) -> Box<Problem> {
    let status = match error {
        AmountError::Format => StatusCode::BAD_REQUEST,
        AmountError::Range => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Problem::new(status, "AMOUNT", error.to_string()).about(param)
}

/// The asset that a request names has to be its partition's: a number means something else in another one.
fn expect_asset(asset: &Asset, named: &str) -> Result<(), Box<Problem>> {
    if asset.name == named {
        return Ok(());
    }
    let detail = format!("The partition's asset is {}.", asset.name);
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "ASSET", detail).about("asset"))
}

#[cfg(test)]
pub(crate) fn documented() -> Vec<(&'static str, &'static [&'static str])> {
    paths().into_iter().map(|(path, methods, _)| (path, methods)).collect()
}
