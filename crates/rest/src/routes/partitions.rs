//! `/v1/partitions`: the collateral that a tenant may use.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query};
use surety_client::StateError;
use surety_client::protocol::{Code, PartitionHandle, PartitionRow, ShardId, StateKind, StateQuery};
use tokio::time::timeout_at;

use super::locks::limit;
use super::{Answer, json, partition, query};
use crate::desk::Desk;
use crate::guard::Visit;
use crate::money::Asset;
use crate::problem::Problem;
use crate::shapes::{Partition, PartitionQuery, Partitions};

const PAGE: u64 = 50;
const PAGE_MAX: u64 = 100;

/// Lists the partitions that the tenant may read, of the assets that are served.
#[utoipa::path(
    get, path = "/v1/partitions", tag = "partitions", operation_id = "listPartitions", params(PartitionQuery),
    responses(
        (status = 200, description = "A page of partitions.", body = Partitions),
        (status = "4XX", description = "The request makes no sense.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    Extension(visit): Extension<Visit>,
    parameters: Result<Query<PartitionQuery>, QueryRejection>,
) -> Answer {
    let wanted = query(parameters)?;
    let limit = limit(wanted.limit, PAGE, PAGE_MAX)?;
    let after = wanted.after.as_deref().map(|text| partition(text, "after")).transpose()?;
    let read = timeout_at(visit.deadline, rows(&visit.desk, after, limit + 1)).await;
    let rows = read.map_err(|_| unavailable())?.map_err(|error| unread(&error))?;
    let page = rows.iter().take(limit);
    let partitions: Vec<Partition> =
        page.filter_map(|row| Some(partition_of(row, visit.desk.asset(row.asset)?))).collect();
    let next = rows.get(limit).and_then(|_| rows.get(limit - 1)).map(|last| last.partition.to_string());
    json(&Partitions { partitions, next })
}

/// Rows behind one, over all shards.
async fn rows(
    desk: &Desk,
    after: Option<PartitionHandle>,
    limit: usize,
) -> Result<Vec<PartitionRow>, StateError> {
    let mut found: Vec<PartitionRow> = Vec::new();
    let first = after.map_or(0, |after| after.shard().0);
    for shard in (first..desk.client().shards()).map(ShardId) {
        let from = match after.filter(|after| after.shard() == shard) {
            Some(after) => PartitionHandle(after.0 + 1),
            None => PartitionHandle::new(shard, 0),
        };
        let wanted = u32::try_from(limit - found.len()).unwrap_or(u32::MAX);
        let question =
            StateQuery { partition: from, limit: wanted, ..StateQuery::new(shard, StateKind::Partitions) };
        found.extend(desk.client().state::<PartitionRow>(question).await?.all().await?);
        if found.len() >= limit {
            break;
        }
    }
    for row in &found {
        desk.learn(row.partition, row.asset);
    }
    Ok(found)
}

/// Shows a partition.
#[utoipa::path(
    get, path = "/v1/partitions/{id}", tag = "partitions", operation_id = "showPartition",
    params(("id" = String, Path, description = "Shard and number.", example = "0:1")),
    responses(
        (status = 200, description = "The partition.", body = Partition),
        (status = "4XX", description = "There is none, or the request makes no sense.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(Extension(visit): Extension<Visit>, Path(id): Path<String>) -> Answer {
    let handle = partition(&id, "id")?;
    if handle.shard().0 >= visit.desk.client().shards() {
        return Err(Problem::of_code(Code::UnknownPartition));
    }
    let read = timeout_at(visit.deadline, visit.desk.client().partition(handle)).await;
    let row = read.map_err(|_| unavailable())?.map_err(|error| unread(&error))?;
    let row = row.ok_or_else(|| Problem::of_code(Code::UnknownPartition))?;
    visit.desk.learn(row.partition, row.asset);
    let asset = visit.desk.asset_of(handle).await?;
    json(&partition_of(&row, asset))
}

fn unavailable() -> Box<Problem> {
    Problem::unavailable("The engine cannot be asked now.")
}

fn unread(error: &StateError) -> Box<Problem> {
    tracing::debug!(%error, "partitions cannot be read");
    unavailable()
}

fn partition_of(row: &PartitionRow, asset: &Asset) -> Partition {
    let onchain = row.onchain.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Partition {
        id: row.partition.to_string(),
        onchain: format!("0x{onchain}"),
        asset: asset.name.clone(),
        frozen: row.frozen == 1,
        collateral: asset.tell(row.collateral),
        free: asset.tell(row.free),
        held: asset.tell(row.held),
        captured: asset.tell(row.captured),
        pending: asset.tell(row.pending),
        owed: asset.tell(row.owed),
        deficit: asset.tell(row.deficit),
        exposure: asset.tell(row.exposure),
    }
}
