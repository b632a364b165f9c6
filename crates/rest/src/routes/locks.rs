//! `/v1/locks`: making, showing and listing locks.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, Request};
use axum::http::StatusCode;
use iso8583::payment::{Rounding, edge_code};
use surety_client::LockRequest;
use surety_client::protocol::{
    ALL_CAPTURES, Amount, ChangeBody, Code, End, Id, Kind, MerchantId, PartitionHandle, Record, Reply, Time,
};

use super::{Answer, amount_problem, expect_asset, json, keyed, lock_id, named, partition, query};
use crate::ask::ask;
use crate::book::Listed;
use crate::desk::Desk;
use crate::guard::Visit;
use crate::ids::{Key, read_id};
use crate::json as body;
use crate::money::Asset;
use crate::problem::Problem;
use crate::shapes::{
    InPartition, ListedLock, Lock, LockQuery, Locks, NewLock, Status, decline_code, if_any, millis, state,
};

/// Numbers of merchants up to here survive any reader of JSON.
const MERCHANT_MAX: u64 = (1 << 53) - 1;
const PAGE: u64 = 50;
const PAGE_MAX: u64 = 100;

/// Locks collateral for a payment.
///
/// The key of the request becomes the lock's id. A decline is an answer: 200, with `status` `declined`.
#[utoipa::path(
    post, path = "/v1/locks", tag = "locks", operation_id = "createLock", request_body = NewLock,
    params(("Idempotency-Key" = String, Header, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", description = "A UUIDv7, made once for this payment and kept through every repeat.")),
    responses(
        (status = 200, description = "Approved, approved for a part, or declined.", body = Lock,
            headers(("Idempotent-Replayed" = String, description = "`true` if this is the answer of an earlier request with the same key."))),
        (status = "4XX", description = "Nothing was done for this sending.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "503: not available; 504: the outcome is not known.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(Extension(visit): Extension<Visit>, request: Request) -> Answer {
    let key = Key::of(request.headers())?;
    let wanted: NewLock = body::read(request, &visit.desk.limits).await?;
    let partition = partition(&wanted.partition, "partition")?;
    let asset = visit.desk.asset_of(partition).await?;
    expect_asset(asset, &wanted.asset)?;
    let request = lock_request(key, partition, asset, &wanted)?;
    let reply = visit.desk.submit(request, visit.deadline).await?;
    let code = reply.code();
    refuse_others(code)?;
    visit.desk.note(&request, &reply);
    let lock = Lock {
        merchant: Some(wanted.merchant),
        created_ms: millis(reply.time).filter(|_| !reply.is_replayed()),
        captures: None,
        headroom: if_any(asset, reply.extra),
        ..lock(key.id(), partition, asset, &reply)
    };
    keyed(&lock, &reply, StatusCode::OK)
}

fn lock_request(
    key: Key,
    partition: PartitionHandle,
    asset: &Asset,
    wanted: &NewLock,
) -> Result<Record, Box<Problem>> {
    let read =
        |text: &str, param| asset.read(text, Rounding::Up).map_err(|error| amount_problem(param, error));
    let merchant = merchant(wanted.merchant)?;
    let amount = read(&wanted.amount, "amount")?;
    let floor = wanted.at_least.as_deref().map(|text| read(text, "at_least")).transpose()?;
    if floor.is_some_and(|floor| floor > amount) {
        let detail = "The least that is worth locking is more than the amount.";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "AMOUNT", detail).about("at_least"));
    }
    let request = LockRequest {
        floor: floor.unwrap_or(Amount::ZERO),
        category: wanted.category.unwrap_or(0),
        life: std::time::Duration::from_millis(wanted.life_ms.unwrap_or(0).into()),
        is_certified: wanted.certified,
        is_sale: wanted.sale,
        id: Some(key.id()),
        ..LockRequest::new(partition, amount, merchant)
    };
    Ok(surety_client::Draft::from(request).into_record(|| key.id()))
}

/// What stands in an answer goes on; every other code is a problem, in the one table of codes.
pub(super) fn refuse_others(code: Code) -> Result<(), Box<Problem>> {
    if matches!(edge_code(code).http, 200 | 202) { Ok(()) } else { Err(Problem::of_code(code)) }
}

/// A lock, as the reply to its request or to a look-up tells it.
fn lock(id: Id, partition: PartitionHandle, asset: &Asset, reply: &Reply) -> Lock {
    Lock {
        id: id.to_string(),
        partition: partition.to_string(),
        status: Status::of(reply.code()),
        decline_code: decline_code(reply.code()),
        state: state(reply.end()),
        asset: asset.name.clone(),
        amount: asset.tell(reply.approved),
        remaining: asset.tell(reply.remaining),
        headroom: None,
        captures: Some(reply.capture).filter(|count| *count != ALL_CAPTURES),
        merchant: None,
        created_ms: None,
        deadline_ms: millis(reply.deadline),
        version: reply.version,
    }
}

/// Shows a lock, as the engine has it now.
///
/// This is how to look a key up whose request was not answered. A lock that is not found may still be on its way: repeat its request
/// under the same key to be sure.
#[utoipa::path(
    get, path = "/v1/locks/{id}", tag = "locks", operation_id = "showLock",
    params(("id" = String, Path, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", description = "The lock."), InPartition),
    responses(
        (status = 200, description = "The lock.", body = Lock),
        (status = "4XX", description = "There is none, or the request makes no sense.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    Extension(visit): Extension<Visit>,
    Path(id): Path<String>,
    parameters: Result<Query<InPartition>, QueryRejection>,
) -> Answer {
    let id = lock_id(&id)?;
    let named = named(query(parameters)?.partition.as_deref())?;
    let (partition, known) = visit.desk.find(id, named).await?;
    let asset = visit.desk.asset_of(partition).await?;
    let reply = look_up(&visit, id, partition).await?;
    if reply.code() == Code::NotFound {
        return Err(Problem::of_code(Code::UnknownLock));
    }
    let known = known.as_ref();
    let merchant = known.map(|known| known.merchant.0).filter(|merchant| *merchant > 0);
    let headroom = if reply.end() == End::Live { if_any(asset, reply.extra) } else { None };
    let created_ms = known.and_then(|known| millis(known.created));
    json(&Lock { merchant, created_ms, headroom, ..lock(id, partition, asset, &reply) })
}

/// Asks for the present state of an id.
pub(super) async fn look_up(
    visit: &Visit,
    id: Id,
    partition: PartitionHandle,
) -> Result<Reply, Box<Problem>> {
    let client = visit.desk.client();
    let body = ChangeBody { lock: id, capture: ALL_CAPTURES, ..ChangeBody::default() };
    let request = Record::new(Kind::Lookup, client.new_id(), partition, Amount::ZERO, &body);
    match ask(client, request, visit.deadline).await {
        Ok(reply) => Ok(reply),
        // It has moved nothing, whatever became of it.
        Err(crate::ask::Failure::Unknown) => {
            Err(Problem::unavailable("The engine did not answer; nothing was changed."))
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Lists locks, the oldest first, as the change stream has told of them.
///
/// The list is bounded: `complete` tells whether older locks are missing.
#[utoipa::path(
    get, path = "/v1/locks", tag = "locks", operation_id = "listLocks", params(LockQuery),
    responses(
        (status = 200, description = "A page of locks.", body = Locks),
        (status = "4XX", description = "The request makes no sense.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    Extension(visit): Extension<Visit>,
    parameters: Result<Query<LockQuery>, QueryRejection>,
) -> Answer {
    let wanted = query(parameters)?;
    let filter = Filter::of(&wanted)?;
    let desk = &visit.desk;
    let (found, complete, cursor) = desk.told(|told| {
        let matching = told.book.after(filter.after).filter(|(_, lock)| filter.takes(lock));
        let found: Vec<(Id, Listed)> =
            matching.take(filter.limit + 1).map(|(id, lock)| (id, lock.clone())).collect();
        (found, !told.book.has_forgotten(), told.cursor().to_string())
    });
    let mut locks = Vec::new();
    for (id, lock) in found.iter().take(filter.limit) {
        if desk.known_asset(lock.partition).is_none() {
            // Without it the lock is listed without amounts.
            let _ = desk.asset_of(lock.partition).await;
        }
        locks.push(listed(desk, *id, lock));
    }
    let next = found.get(filter.limit).and_then(|_| locks.last()).map(|last| last.id.clone());
    json(&Locks { locks, next, complete, cursor })
}

/// Which locks are wanted, read.
struct Filter {
    merchant: Option<MerchantId>,
    end: Option<End>,
    after: Option<Id>,
    limit: usize,
}

impl Filter {
    fn of(wanted: &LockQuery) -> Result<Self, Box<Problem>> {
        let end = match wanted.state.as_deref() {
            None => None,
            Some(word) => {
                let known = (0..=u8::MAX).map_while(End::from_byte).find(|end| end.name() == word);
                let known = known.filter(|end| !matches!(end, End::None | End::Tombstone));
                Some(known.ok_or_else(|| Problem::parameter("state", "There is no such state of a lock."))?)
            }
        };
        let after = match wanted.after.as_deref() {
            None => None,
            Some(text) => Some(
                read_id(text)
                    .ok_or_else(|| Problem::parameter("after", "Give what the page before has as `next`."))?,
            ),
        };
        let from = match wanted.from {
            None => None,
            Some(millis) => {
                let too_late = || Problem::parameter("from", "There is no such moment.");
                let at = millis.checked_mul(1_000_000).filter(|_| millis < 1 << 48).ok_or_else(too_late)?;
                // The least id of this moment, less one: what lies behind it is wanted.
                Some(Id(Id::from_parts(Time(at), 0).0 - 1))
            }
        };
        Ok(Self {
            merchant: wanted.merchant.map(merchant).transpose()?,
            end,
            after: after.max(from),
            limit: limit(wanted.limit, PAGE, PAGE_MAX)?,
        })
    }

    fn takes(&self, lock: &Listed) -> bool {
        self.merchant.is_none_or(|merchant| lock.merchant == merchant)
            && self.end.is_none_or(|end| lock.end == end)
            && lock.end != End::Tombstone
    }
}

/// A merchant by its number.
fn merchant(number: u64) -> Result<MerchantId, Box<Problem>> {
    if number > MERCHANT_MAX {
        return Err(Problem::parameter("merchant", "A merchant's number is at most 9007199254740991."));
    }
    Ok(MerchantId(number))
}

/// How many of a list are wanted.
pub(super) fn limit(wanted: Option<u64>, standard: u64, max: u64) -> Result<usize, Box<Problem>> {
    let limit = wanted.unwrap_or(standard);
    usize::try_from(limit)
        .ok()
        .filter(|_| (1..=max).contains(&limit))
        .ok_or_else(|| Problem::parameter("limit", format!("Ask for 1 to {max}.")))
}

fn listed(desk: &Desk, id: Id, lock: &Listed) -> ListedLock {
    let asset = desk.known_asset(lock.partition);
    ListedLock {
        id: id.to_string(),
        partition: lock.partition.to_string(),
        state: state(lock.end),
        asset: asset.map(|asset| asset.name.clone()),
        amount: asset.map(|asset| asset.tell(lock.total)),
        captured: asset.map(|asset| asset.tell(lock.captured)),
        merchant: lock.merchant.0,
        created_ms: millis(lock.created).unwrap_or(0),
        deadline_ms: millis(lock.deadline).unwrap_or(0),
    }
}
