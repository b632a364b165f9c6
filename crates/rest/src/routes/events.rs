//! `/v1/events`: the change stream, a page at a time or as it comes.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query};
use axum::http::{HeaderMap, header};
use tokio::time::timeout_at;

use super::locks::limit;
use super::{Answer, json, query};
use crate::cursor::Cursor;
use crate::events::{page, tell};
use crate::guard::Visit;
use crate::live;
use crate::problem::Problem;
use crate::shapes::{EventQuery, Events};

const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1000;
/// What a client of server-sent events comes back with.
const LAST_EVENT_ID: &str = "last-event-id";

/// Reads what the engine has recorded, in order for each lock.
///
/// With `Accept: text/event-stream` the events come as they happen, each with its cursor as `id`, so that a client that comes back with
/// `Last-Event-ID` misses nothing. An event is told once its record is on the disk.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "listEvents", params(EventQuery),
    responses(
        (status = 200, description = "A page of events.", body = Events),
        (status = "4XX", description = "The request makes no sense, or what it asks for is not kept any more (410).", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    Extension(visit): Extension<Visit>,
    headers: HeaderMap,
    parameters: Result<Query<EventQuery>, QueryRejection>,
) -> Answer {
    let wanted = query(parameters)?;
    let limit = limit(wanted.limit, PAGE, PAGE_MAX)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_live = accept.split(',').any(|kind| kind.trim().starts_with("text/event-stream"));
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).filter(|_| is_live);
    let shards = usize::from(visit.desk.client().shards());
    let after = match last.or(wanted.after.as_deref()) {
        None => Cursor::start(shards),
        Some(text) => Cursor::parse(text, shards)
            .ok_or_else(|| Problem::parameter("after", "Give a cursor that came with events before."))?,
    };
    if is_live {
        return live::stream(&visit, after).await;
    }
    let read = timeout_at(visit.deadline, page(&visit.desk, &after, limit)).await;
    let page = read.map_err(|_| Problem::unavailable("The engine's log cannot be read now."))??;
    json(&tell(&visit.desk, &page).await)
}
