//! The engine's rows as pages read them: amounts as decimal strings, moments as milliseconds.

use serde_json::{Value, json};
use surety_protocol::{
    PartitionHandle, PartitionRow, Reply, ShardId, SupplierRow, TenantRow, Time, WithdrawalRow,
};

use crate::refusal::Refusal;

/// Reads `shard:number`.
pub(crate) fn partition(text: &str) -> Result<PartitionHandle, Refusal> {
    let wrong = || Refusal::Wrong("a partition is written shard:number, for example 0:1".to_owned());
    let (shard, number) = text.split_once(':').ok_or_else(wrong)?;
    let (shard, number): (u16, u64) =
        (shard.parse().map_err(|_| wrong())?, number.parse().map_err(|_| wrong())?);
    // 48 bits, counted from 1: 0 is the shard itself.
    if number == 0 || number >= 1 << 48 {
        return Err(wrong());
    }
    Ok(PartitionHandle::new(ShardId(shard), number))
}

/// Milliseconds since the Unix epoch; null for no moment at all.
pub(crate) fn moment(at: Time) -> Value {
    if at == Time::ZERO { Value::Null } else { json!(at.0 / 1_000_000) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// A partition's money.
pub(crate) fn partition_json(row: &PartitionRow) -> Value {
    json!({
        "partition": row.partition.to_string(),
        "onchain": hex(&row.onchain),
        "asset": row.asset.0,
        "frozen": row.frozen == 1,
        "unreconciled": row.unreconciled == 1,
        "collateral": row.collateral.to_string(),
        "deficit": row.deficit.to_string(),
        "free": row.free.to_string(),
        "held": row.held.to_string(),
        "captured": row.captured.to_string(),
        "pending": row.pending.to_string(),
        "owed": row.owed.to_string(),
        "exposure": row.exposure.to_string(),
        "units": row.units.to_string(),
        "units_queued": row.units_queued.to_string(),
        "fees": row.fees.to_string(),
        "generation": row.generation,
        "cap": (row.cap_until != Time::ZERO).then(|| row.cap.to_string()),
        "cap_until": moment(row.cap_until),
        "batch": row.batch.to_string(),
        "policy_seq": row.policy_seq.0.to_string(),
    })
}

/// A supplier's position.
pub(crate) fn supplier_json(row: &SupplierRow) -> Value {
    json!({
        "supplier": row.supplier.to_string(),
        "units": row.units.to_string(),
        "queued": row.queued.to_string(),
        "value": row.value.to_string(),
    })
}

/// A withdrawal that waits.
pub(crate) fn withdrawal_json(row: &WithdrawalRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "supplier": row.supplier.to_string(),
        "units": row.units.to_string(),
        "due": moment(row.due),
        "position": row.position.to_string(),
    })
}

/// A tenant's quotas on a shard, and what is used of them.
pub(crate) fn tenant_json(shard: ShardId, row: &TenantRow) -> Value {
    let quotas = &row.quotas;
    let use_of = |used: u64, max: Option<u64>| json!({ "used": used.to_string(), "max": max.map(|max| max.to_string()) });
    json!({
        "shard": shard.0,
        "tenant": quotas.tenant.0,
        "enabled": quotas.enabled == 1,
        "locks": use_of(row.locks, Some(quotas.locks_max)),
        "ids": use_of(row.ids, Some(quotas.ids_max)),
        "tombstones": use_of(row.tombstones, Some(quotas.tombstones_max)),
        "advices": use_of(row.advices, Some(quotas.advices_max)),
        "rate_per_s": quotas.rate_per_s,
        "in_flight_max": quotas.in_flight_max,
        "open_locks": use_of(row.open_locks, Some(u64::from(quotas.open_locks_max)).filter(|max| *max > 0)),
    })
}

/// What a look-up has found.
pub(crate) fn lock_json(reply: &Reply) -> Value {
    json!({
        "end": reply.end().name(),
        "code": reply.code().name(),
        "total": reply.approved.to_string(),
        "remaining": reply.remaining.to_string(),
        "deadline": moment(reply.deadline),
        "version": reply.version,
        "as_of": moment(reply.time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_strictly() {
        assert_eq!(partition("3:7"), Ok(PartitionHandle::new(ShardId(3), 7)));
        for wrong in ["", "1", "0:0", "x:1", "0:281474976710656", "65536:1", "0:-1"] {
            assert!(partition(wrong).is_err(), "{wrong}");
        }
    }
}
