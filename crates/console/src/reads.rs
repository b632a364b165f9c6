//! What pages ask: each question is asked as the person who is signed in, so the engine's own rights decide what is seen.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use surety_client::StateError;
use surety_protocol::limits::AMOUNT_MAX;
use surety_protocol::{
    Address, Amount, ChangeBody, Code, Id, Kind, PartitionHandle, PartitionRow, Record, ShardId, StateKind,
    StateQuery, StateRow, SupplierRow, TenantId, TenantRow, WithdrawalRow,
};

use crate::actions::outcome_json;
use crate::guard::signed_in;
use crate::past;
use crate::refusal::Refusal;
use crate::rows::{lock_json, partition, partition_json, supplier_json, tenant_json, withdrawal_json};
use crate::sessions::Session;
use crate::start::{Desk, json_answer};

/// Rows of a page.
const PAGE: u32 = 100;

type Answer = Result<Response, Refusal>;

/// Where the next page begins.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct From {
    from: Option<String>,
}

/// Which tenant's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whose {
    tenant: Option<u32>,
}

/// Who is signed in, and what there is.
pub(crate) async fn session(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Answer {
    Ok(json_answer(&session_json(&desk, &*signed_in(&desk, &headers)?)))
}

pub(crate) fn session_json(desk: &Desk, session: &Session) -> Value {
    let caller = session.caller;
    let assets = desk
        .assets
        .iter()
        .map(|asset| json!({ "id": asset.id.0, "name": asset.name, "decimals": asset.decimals }));
    json!({
        "engine": desk.inside.engine().to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "tenant": caller.tenant.0,
        "actor": caller.actor.to_string(),
        "name": session.member.person.name(),
        "roles": server::identity::role_names(caller.roles),
        "operator": is_operator(session),
        "history": desk.has_history() && past::may_ask(session),
        "shards": session.client.hello().shards,
        "assets": assets.collect::<Vec<_>>(),
    })
}

/// True for the operator, who alone sees what is of all tenants together.
pub(crate) fn is_operator(session: &Session) -> bool {
    session.caller.tenant == TenantId(0)
}

/// The overview's past.
pub(crate) async fn overview(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Answer {
    let session = signed_in(&desk, &headers)?;
    if !is_operator(&session) {
        return Err(Refusal::NoRole("the overview is of all tenants together: it is the operator's"));
    }
    let overview = desk.overview.lock();
    let answer = json!({ "seconds": overview.columns(), "standing": overview.standing(), "reasons": overview.reasons() });
    Ok(json_answer(&answer))
}

/// A page of partitions.
pub(crate) async fn partitions(
    State(desk): State<Arc<Desk>>,
    Query(query): Query<From>,
    headers: HeaderMap,
) -> Answer {
    let session = signed_in(&desk, &headers)?;
    let first = match query.from.as_deref() {
        Some(text) => partition(text)?,
        None => PartitionHandle(0),
    };
    let mut rows: Vec<PartitionRow> = Vec::new();
    for shard in (first.shard().0..session.client.hello().shards).map(ShardId) {
        let begin = if shard == first.shard() { first } else { PartitionHandle::new(shard, 0) };
        // One more than a page says whether there is another.
        let limit = PAGE + 1 - u32::try_from(rows.len()).unwrap_or(PAGE);
        let query = StateQuery { partition: begin, limit, ..StateQuery::new(shard, StateKind::Partitions) };
        rows.extend(page::<PartitionRow>(&session, query).await?);
        if rows.len() > PAGE as usize {
            break;
        }
    }
    let next = rows.get(PAGE as usize).map(|row| row.partition.to_string());
    rows.truncate(PAGE as usize);
    let rows: Vec<_> = rows.iter().map(partition_json).collect();
    Ok(json_answer(&json!({ "partitions": rows, "next": next })))
}

/// One partition with its policy and the first of its suppliers and waiting withdrawals.
pub(crate) async fn partition_whole(
    State(desk): State<Arc<Desk>>,
    Path(handle): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let session = signed_in(&desk, &headers)?;
    let handle = partition(&handle)?;
    let row = find(&session, handle).await?;
    let (suppliers, more_suppliers) = suppliers_from(&session, handle, Address::default()).await?;
    let query = StateQuery {
        partition: handle,
        limit: PAGE,
        ..StateQuery::new(handle.shard(), StateKind::Withdrawals)
    };
    let withdrawals = page::<WithdrawalRow>(&session, query).await?;
    let mut answer = partition_json(&row);
    answer["policy"] = (desk.policy.write)(&row.policy);
    answer["suppliers"] = suppliers.iter().map(supplier_json).collect();
    answer["suppliers_next"] = json!(more_suppliers);
    answer["withdrawals"] = withdrawals.iter().map(withdrawal_json).collect();
    answer["withdrawals_cut"] = json!(withdrawals.len() == PAGE as usize);
    Ok(json_answer(&answer))
}

/// A page of suppliers.
pub(crate) async fn suppliers(
    State(desk): State<Arc<Desk>>,
    Path(handle): Path<String>,
    Query(query): Query<From>,
    headers: HeaderMap,
) -> Answer {
    let session = signed_in(&desk, &headers)?;
    let handle = partition(&handle)?;
    find(&session, handle).await?;
    let first = query.from.as_deref().map_or(Ok(Address::default()), address)?;
    let (rows, next) = suppliers_from(&session, handle, first).await?;
    let rows: Vec<_> = rows.iter().map(supplier_json).collect();
    Ok(json_answer(&json!({ "suppliers": rows, "next": next })))
}

/// The tenants of every shard, as many as fit into a page each.
pub(crate) async fn tenants(
    State(desk): State<Arc<Desk>>,
    Query(query): Query<From>,
    headers: HeaderMap,
) -> Answer {
    let session = signed_in(&desk, &headers)?;
    let wrong = |_| Refusal::Wrong("a tenant is a number".to_owned());
    let first = query.from.as_deref().map(str::parse).transpose().map_err(wrong)?.unwrap_or(0);
    let (mut values, mut next) = (Vec::new(), None::<u32>);
    for shard in (0..session.client.hello().shards).map(ShardId) {
        let tenant = TenantId(first);
        let query = StateQuery { tenant, limit: PAGE + 1, ..StateQuery::new(shard, StateKind::Tenants) };
        let rows = page::<TenantRow>(&session, query).await?;
        if let Some(row) = rows.get(PAGE as usize) {
            let cut = row.quotas.tenant.0;
            next = Some(next.map_or(cut, |next| next.min(cut)));
        }
        let rows = rows.iter().take(PAGE as usize).filter(|row| row.quotas.tenant != TenantId(0));
        values.extend(rows.map(|row| (row.quotas.tenant.0, tenant_json(shard, row))));
    }
    // What lies behind the first cut of any shard comes with the next page, from every shard.
    let values = values.into_iter().filter(|(tenant, _)| next.is_none_or(|next| *tenant < next));
    let values: Vec<_> = values.map(|(_, value)| value).collect();
    Ok(json_answer(&json!({ "tenants": values, "next": next.map(|next| next.to_string()) })))
}

/// What a lock is like now.
pub(crate) async fn lock(
    State(desk): State<Arc<Desk>>,
    Path((handle, id)): Path<(String, String)>,
    Query(whose): Query<Whose>,
    headers: HeaderMap,
) -> Answer {
    let session = signed_in(&desk, &headers)?;
    let (handle, id) = (partition(&handle)?, lock_id(&id)?);
    let body = ChangeBody { lock: id, ..ChangeBody::default() };
    let request = Record::new(Kind::Lookup, session.client.new_id(), handle, Amount::ZERO, &body);
    let request = Record { tenant: TenantId(whose.tenant.unwrap_or(0)), ..request };
    let outcome = session.client.submit(request).await;
    let mut answer = outcome_json(&outcome);
    if let Ok(reply) = &outcome
        && reply.code().is_recorded()
        && reply.code() != Code::NotFound
    {
        // The id of a change leads to its lock, whose id stands where a lock has what remains: no amount is as large.
        if reply.remaining.0 > AMOUNT_MAX {
            answer["lock_of_change"] = json!(Id(reply.remaining.0).to_string());
        } else {
            answer["lock"] = lock_json(reply);
        }
    }
    Ok(json_answer(&answer))
}

/// A new id for a request, on the engine's clock. A page draws it when its form opens, so that sending the form twice is one request.
pub(crate) async fn new_id(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Answer {
    let session = signed_in(&desk, &headers)?;
    Ok(json_answer(&json!({ "id": session.client.new_id().to_string() })))
}

/// One partition's row.
pub(crate) async fn find(session: &Session, handle: PartitionHandle) -> Result<PartitionRow, Refusal> {
    if handle.shard().0 >= session.client.hello().shards {
        return Err(Refusal::NotFound("the partition"));
    }
    session.client.partition(handle).await?.ok_or(Refusal::NotFound("the partition"))
}

/// Reads the id of a lock.
pub(crate) fn lock_id(text: &str) -> Result<Id, Refusal> {
    Id::parse(text).ok_or_else(|| Refusal::Wrong("the id of a lock is a UUID".to_owned()))
}

async fn suppliers_from(
    session: &Session,
    partition: PartitionHandle,
    supplier: Address,
) -> Result<(Vec<SupplierRow>, Option<String>), Refusal> {
    let query = StateQuery {
        partition,
        supplier,
        limit: PAGE + 1,
        ..StateQuery::new(partition.shard(), StateKind::Suppliers)
    };
    let mut rows = page::<SupplierRow>(session, query).await?;
    let next = rows.get(PAGE as usize).map(|row| row.supplier.to_string());
    rows.truncate(PAGE as usize);
    Ok((rows, next))
}

async fn page<R: StateRow>(session: &Session, query: StateQuery) -> Result<Vec<R>, StateError> {
    session.client.state::<R>(query).await?.all().await
}

fn address(text: &str) -> Result<Address, Refusal> {
    let wrong = || Refusal::Wrong("a supplier is written 0x and 40 digits".to_owned());
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 40).ok_or_else(wrong)?;
    let mut address = Address::default();
    for (byte, pair) in address.0.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'));
        *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        let text = format!("0x{}", "0a".repeat(20));
        assert_eq!(address(&text), Ok(Address([10; 20])));
        for wrong in ["", "0x", &text[2..], &text[..40], &text.replace("0a", "zz"), &text.replace("0a", "+1")]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
