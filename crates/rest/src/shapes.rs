//! The documents that applications send and get.

use serde::{Deserialize, Serialize};
use surety_client::protocol::{Amount, Code, End, Reply, Time};
use utoipa::{IntoParams, ToSchema};

use crate::money::Asset;

/// Asks for a lock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLock {
    /// Which collateral: shard and number.
    #[schema(example = "0:1", pattern = "^(0|[1-9][0-9]{0,4}):[1-9][0-9]{0,14}$")]
    pub(crate) partition: String,
    /// How much. What is finer than the asset's scale is rounded up.
    #[schema(example = "25.00", pattern = "^(0|[1-9][0-9]*)([.][0-9]+)?$", max_length = 80)]
    pub(crate) amount: String,
    /// The asset of the partition.
    #[schema(example = "AMP", max_length = 32)]
    pub(crate) asset: String,
    /// Who is guaranteed: the tenant's own number of a merchant.
    #[schema(example = 501, maximum = 9_007_199_254_740_991_u64)]
    pub(crate) merchant: u64,
    /// Merchant category code (ISO 18245).
    #[schema(example = 5411)]
    #[serde(default)]
    pub(crate) category: Option<u16>,
    /// The least that is worth locking; without it all or nothing.
    #[schema(example = "10.00", pattern = "^(0|[1-9][0-9]*)([.][0-9]+)?$", max_length = 80)]
    #[serde(default)]
    pub(crate) at_least: Option<String>,
    /// How long the lock lives by itself; without it as long as the partition's policy says.
    #[schema(example = 600_000, minimum = 1)]
    #[serde(default)]
    pub(crate) life_ms: Option<u32>,
    /// Asks for a certificate that can be enforced on chain.
    #[serde(default)]
    pub(crate) certified: bool,
    /// Captures it whole, at once and for the last time.
    #[serde(default)]
    pub(crate) sale: bool,
}

/// Asks for a higher total of a lock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Increase {
    /// The new total, above the present one. What is finer than the asset's scale is rounded up.
    #[schema(example = "40.00", pattern = "^(0|[1-9][0-9]*)([.][0-9]+)?$", max_length = 80)]
    pub(crate) total: String,
    /// The asset of the lock's partition.
    #[schema(example = "AMP", max_length = 32)]
    pub(crate) asset: String,
    /// The lock's version that was seen.
    #[schema(example = 1, minimum = 1)]
    pub(crate) version: u16,
    /// How long the lock lives from now on; without it the deadline stays.
    #[schema(minimum = 1)]
    #[serde(default)]
    pub(crate) life_ms: Option<u32>,
}

/// Claims a part of a lock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capture {
    /// How much. What is finer than the asset's scale is rounded down.
    #[schema(example = "20.00", pattern = "^(0|[1-9][0-9]*)([.][0-9]+)?$", max_length = 80)]
    pub(crate) amount: String,
    /// The asset of the lock's partition.
    #[schema(example = "AMP", max_length = 32)]
    pub(crate) asset: String,
    /// The last capture: the rest is given back.
    #[serde(default)]
    pub(crate) last: bool,
    /// Rather none than a part.
    #[serde(default)]
    pub(crate) all_or_nothing: bool,
}

/// Gives a part of a capture back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refund {
    /// Which capture of the lock, from 0.
    #[schema(example = 0, maximum = 15)]
    pub(crate) capture: u16,
    /// How much. What is finer than the asset's scale is rounded down.
    #[schema(example = "5.00", pattern = "^(0|[1-9][0-9]*)([.][0-9]+)?$", max_length = 80)]
    pub(crate) amount: String,
    /// The asset of the lock's partition.
    #[schema(example = "AMP", max_length = 32)]
    pub(crate) asset: String,
}

/// Says that the payer's asset is final.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settle {
    /// Of which capture of the lock, from 0; without it of all, and what is held is given back.
    #[schema(maximum = 15)]
    #[serde(default)]
    pub(crate) capture: Option<u16>,
}

/// Says that the payer's asset has failed: collateral is owed to the lock's merchant. Names a capture, or an amount of what is held.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Consume {
    /// Which capture of the lock, from 0, whole.
    #[schema(maximum = 15)]
    #[serde(default)]
    pub(crate) capture: Option<u16>,
    /// How much of what is held. What is finer than the asset's scale is rounded down.
    #[schema(example = "20.00", pattern = "^(0|[1-9][0-9]*)([.][0-9]+)?$", max_length = 80)]
    #[serde(default)]
    pub(crate) amount: Option<String>,
    /// The asset of the lock's partition, with an amount.
    #[schema(example = "AMP", max_length = 32)]
    #[serde(default)]
    pub(crate) asset: Option<String>,
}

/// Nothing more to say.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// How a request was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Done as asked.
    Approved,
    /// Done for a part of the amount.
    Partial,
    /// Accepted; done when it is due.
    Queued,
    /// Not done, and never will be under this key.
    Declined,
}

impl Status {
    pub(crate) const fn of(code: Code) -> Self {
        match code {
            Code::Approved => Self::Approved,
            Code::Partial => Self::Partial,
            Code::Queued => Self::Queued,
            _ => Self::Declined,
        }
    }
}

/// A lock, as it stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Lock {
    /// Its id: the key of the request that made it.
    #[schema(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    pub(crate) id: String,
    /// Where it is held.
    #[schema(example = "0:1")]
    pub(crate) partition: String,
    /// How the request for it was decided.
    pub(crate) status: Status,
    /// Why it was declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "INSUFFICIENT")]
    pub(crate) decline_code: Option<String>,
    /// What has become of it.
    #[schema(example = "live")]
    pub(crate) state: String,
    /// The asset of its amounts.
    #[schema(example = "AMP")]
    pub(crate) asset: String,
    /// In the answer to the request that made it, what was guaranteed; else its total while it is live, and what was captured once it has
    /// ended.
    #[schema(example = "25.00")]
    pub(crate) amount: String,
    /// What it still holds, headroom included.
    #[schema(example = "25.00")]
    pub(crate) remaining: String,
    /// What it holds beyond its amount, for tips and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) headroom: Option<String>,
    /// How often it was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) captures: Option<u16>,
    /// Who is guaranteed, where this front door knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) merchant: Option<u64>,
    /// When it was decided, in milliseconds since 1970, where this front door knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) created_ms: Option<u64>,
    /// When it ends by itself, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) deadline_ms: Option<u64>,
    /// Rises with each change; an increase has to name it.
    pub(crate) version: u16,
}

/// A lock in a list: as the change stream has told of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ListedLock {
    /// Its id.
    #[schema(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    pub(crate) id: String,
    /// Where it is held.
    pub(crate) partition: String,
    /// What has become of it.
    pub(crate) state: String,
    /// The asset of its amounts; none where this front door does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) asset: Option<String>,
    /// Its total while it is live, and what was captured once it has ended; none without its asset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) amount: Option<String>,
    /// What was captured; none without its asset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) captured: Option<String>,
    /// Who is guaranteed.
    pub(crate) merchant: u64,
    /// When it was decided, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// When it ends by itself, in milliseconds since 1970.
    pub(crate) deadline_ms: u64,
}

/// A page of locks, the oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Locks {
    /// The locks.
    pub(crate) locks: Vec<ListedLock>,
    /// Give it as `after` for the next page; none behind the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) next: Option<String>,
    /// False if older locks are not listed any more. They are found by their id and partition.
    pub(crate) complete: bool,
    /// How far the change stream had been read: a cursor of events.
    #[schema(example = "1205.733")]
    pub(crate) cursor: String,
}

/// What was done with a lock.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Change {
    /// The lock.
    #[schema(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    pub(crate) lock: String,
    /// Where it is held.
    #[schema(example = "0:1")]
    pub(crate) partition: String,
    /// How the request was decided.
    pub(crate) status: Status,
    /// Why it was declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "INSUFFICIENT")]
    pub(crate) decline_code: Option<String>,
    /// The asset of the amounts.
    #[schema(example = "AMP")]
    pub(crate) asset: String,
    /// What was moved.
    #[schema(example = "20.00")]
    pub(crate) amount: String,
    /// What the lock still holds.
    #[schema(example = "5.00")]
    pub(crate) remaining: String,
    /// What has become of the lock.
    #[schema(example = "live")]
    pub(crate) state: String,
    /// The lock's version now.
    pub(crate) version: u16,
    /// Which capture was made or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) capture: Option<u16>,
    /// What could not be covered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) exposure: Option<String>,
    /// The lock's deadline; of a capture the moment by which it has to be settled. In milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) deadline_ms: Option<u64>,
}

/// A partition's money. The sums are those of all tenants.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Partition {
    /// Shard and number.
    #[schema(example = "0:1")]
    pub(crate) id: String,
    /// Its id on chain.
    pub(crate) onchain: String,
    /// Its asset.
    pub(crate) asset: String,
    /// True if new locks are declined.
    pub(crate) frozen: bool,
    /// Final on chain.
    pub(crate) collateral: String,
    /// What can be locked.
    pub(crate) free: String,
    /// Held by live locks.
    pub(crate) held: String,
    /// Captured, the payers' assets not yet final.
    pub(crate) captured: String,
    /// Ended, but still claimable by a certificate.
    pub(crate) pending: String,
    /// Owed to the chain.
    pub(crate) owed: String,
    /// What collateral on chain lacks.
    pub(crate) deficit: String,
    /// Losses that could not be covered.
    pub(crate) exposure: String,
}

/// The partitions that a tenant may read.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Partitions {
    /// The partitions, in the order of their ids.
    pub(crate) partitions: Vec<Partition>,
    /// Give it as `after` for the next page; none behind the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) next: Option<String>,
}

/// Something that the engine has recorded.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    /// The same whenever this event is told: shard and position there.
    #[schema(example = "0-1205")]
    pub(crate) id: String,
    /// What was asked or has happened.
    #[schema(example = "capture")]
    pub(crate) kind: String,
    /// The engine's code for it.
    #[schema(example = "APPROVED")]
    pub(crate) code: String,
    /// When it was decided, in milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// Where.
    #[schema(example = "0:1")]
    pub(crate) partition: String,
    /// The id of the request; of what the engine did by itself, of the lock.
    pub(crate) request: String,
    /// The lock that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) lock: Option<String>,
    /// Which capture of the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) capture: Option<u16>,
    /// Who is guaranteed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) merchant: Option<u64>,
    /// The asset of the partition; none where this front door does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) asset: Option<String>,
    /// What was asked for, to the last base unit; none without the asset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) amount: Option<String>,
    /// What was moved, to the last base unit; none without the asset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) result: Option<String>,
    /// What was moved, in base units.
    pub(crate) result_units: String,
}

/// Events, in order for each lock.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Events {
    /// The events.
    pub(crate) events: Vec<Event>,
    /// Give it as `after` for what comes next.
    #[schema(example = "1205.733")]
    pub(crate) cursor: String,
    /// True if there is more already.
    pub(crate) more: bool,
}

/// An endpoint that events are carried to.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Webhook {
    /// What the tenant calls it.
    #[schema(example = "shop")]
    pub(crate) name: String,
    /// Where events go.
    pub(crate) url: String,
    /// How it fares.
    pub(crate) state: WebhookState,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) reason: Option<String>,
    /// Everything before was taken by the endpoint: a cursor of events.
    pub(crate) cursor: String,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// Since when it fails, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) failing_since_ms: Option<u64>,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) last_error: Option<String>,
}

/// How an endpoint fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WebhookState {
    /// Events go out.
    Active,
    /// The last one was not taken; it comes again.
    Failing,
    /// Nothing is sent, until it is resumed.
    Paused,
}

/// The endpoints of a tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Webhooks {
    /// The endpoints.
    pub(crate) webhooks: Vec<Webhook>,
}

/// From where events are sent again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replay {
    /// A cursor of events: those behind it are sent.
    #[schema(example = "0", pattern = "^[0-9]{1,19}([.][0-9]{1,19})*$")]
    pub(crate) after: String,
}

/// Which partition a lock is in: needed for locks that this front door does not list any more.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct InPartition {
    /// Shard and number.
    #[param(example = "0:1", pattern = "^(0|[1-9][0-9]{0,4}):[1-9][0-9]{0,14}$", nullable = false)]
    pub(crate) partition: Option<String>,
}

/// Which locks are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LockQuery {
    /// Those of this merchant.
    #[param(nullable = false, maximum = 9_007_199_254_740_991_u64)]
    pub(crate) merchant: Option<u64>,
    /// Those that are in this state.
    #[param(nullable = false, pattern = "^(live|final|released|expired|settled|declined|exposed)$")]
    pub(crate) state: Option<String>,
    /// Those made from this moment on, in milliseconds since 1970, by the time in their ids.
    #[param(nullable = false, maximum = 281_474_976_710_655_u64)]
    pub(crate) from: Option<u64>,
    /// Those behind this page.
    #[param(
        nullable = false,
        pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
    )]
    pub(crate) after: Option<String>,
    /// At most so many.
    #[param(nullable = false, minimum = 1, maximum = 100)]
    pub(crate) limit: Option<u64>,
}

/// Which events are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventQuery {
    /// Those behind this cursor; without it from the beginning, as far as that is kept.
    #[param(nullable = false, pattern = "^[0-9]{1,19}([.][0-9]{1,19})*$", example = "0")]
    pub(crate) after: Option<String>,
    /// At most so many.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<u64>,
}

/// Which partitions are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PartitionQuery {
    /// Those behind this one.
    #[param(nullable = false, pattern = "^(0|[1-9][0-9]{0,4}):[1-9][0-9]{0,14}$")]
    pub(crate) after: Option<String>,
    /// At most so many.
    #[param(nullable = false, minimum = 1, maximum = 100)]
    pub(crate) limit: Option<u64>,
}

/// Which locks are wanted of the history.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "a description: the parameters are read by name")]
pub(crate) struct LocksQuery {
    /// About one of these locks.
    lock: Vec<String>,
    /// The lock guarantees one of these merchants.
    merchant: Vec<u64>,
    /// Its merchant is paid at one of these addresses: `0x` and 40 digits.
    payee: Vec<String>,
    /// In one of these partitions: shard and number.
    partition: Vec<String>,
    /// One of these tenants'. Of anybody but the operator it can be the own one only.
    tenant: Vec<u64>,
    /// Answered by one of these codes, such as `INSUFFICIENT`.
    code: Vec<String>,
    /// With the lock in one of these states, such as `live`.
    state: Vec<String>,
    /// Of at least this amount, in base units.
    #[param(nullable = false)]
    amount_min: Option<String>,
    /// Of at most this amount, in base units.
    #[param(nullable = false)]
    amount_max: Option<String>,
    /// From this moment on: RFC 3339, in UTC.
    #[param(nullable = false)]
    from: Option<String>,
    /// Until before this moment.
    #[param(nullable = false)]
    until: Option<String>,
    /// Which come first; the newest without it.
    #[param(nullable = false, pattern = "^(newest_first|oldest_first)$")]
    order: Option<String>,
    /// At most so many; 100 without it. There may be fewer, even none, and yet more behind them.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u64>,
    /// What comes behind a page: its cursor.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// Which live locks are wanted of the history.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "a description: the parameters are read by name")]
pub(crate) struct OpenLocksQuery {
    /// About one of these locks.
    lock: Vec<String>,
    /// The lock guarantees one of these merchants.
    merchant: Vec<u64>,
    /// Its merchant is paid at one of these addresses: `0x` and 40 digits.
    payee: Vec<String>,
    /// In one of these partitions: shard and number.
    partition: Vec<String>,
    /// One of these tenants'. Of anybody but the operator it can be the own one only.
    tenant: Vec<u64>,
    /// Answered by one of these codes, such as `INSUFFICIENT`.
    code: Vec<String>,
    /// With the lock in one of these states, such as `live`.
    state: Vec<String>,
    /// Of at least this amount, in base units.
    #[param(nullable = false)]
    amount_min: Option<String>,
    /// Of at most this amount, in base units.
    #[param(nullable = false)]
    amount_max: Option<String>,
    /// From this moment on: RFC 3339, in UTC.
    #[param(nullable = false)]
    from: Option<String>,
    /// Until before this moment.
    #[param(nullable = false)]
    until: Option<String>,
    /// Which come first; the oldest without it.
    #[param(nullable = false, pattern = "^(age|deadline)$")]
    by: Option<String>,
    /// At most so many; 100 without it. There may be fewer, even none, and yet more behind them.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u64>,
    /// What comes behind a page: its cursor.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// Which records are wanted of the history.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "a description: the parameters are read by name")]
pub(crate) struct RecordsQuery {
    /// About one of these locks.
    lock: Vec<String>,
    /// The lock guarantees one of these merchants.
    merchant: Vec<u64>,
    /// Its merchant is paid at one of these addresses: `0x` and 40 digits.
    payee: Vec<String>,
    /// In one of these partitions: shard and number.
    partition: Vec<String>,
    /// One of these tenants'. Of anybody but the operator it can be the own one only.
    tenant: Vec<u64>,
    /// Naming one of these suppliers: `0x` and 40 digits.
    supplier: Vec<String>,
    /// Answered by one of these codes, such as `INSUFFICIENT`.
    code: Vec<String>,
    /// Of one of these kinds, such as `capture`.
    kind: Vec<String>,
    /// With the lock in one of these states, such as `live`.
    state: Vec<String>,
    /// Of at least this amount, in base units.
    #[param(nullable = false)]
    amount_min: Option<String>,
    /// Of at most this amount, in base units.
    #[param(nullable = false)]
    amount_max: Option<String>,
    /// From this moment on: RFC 3339, in UTC.
    #[param(nullable = false)]
    from: Option<String>,
    /// Until before this moment.
    #[param(nullable = false)]
    until: Option<String>,
    /// Which come first; the newest without it.
    #[param(nullable = false, pattern = "^(newest_first|oldest_first)$")]
    order: Option<String>,
    /// At most so many; 100 without it. There may be fewer, even none, and yet more behind them.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u64>,
    /// What comes behind a page: its cursor.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// What is wanted of a lock.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "a description: the parameters are read by name")]
pub(crate) struct OneLockQuery {
    /// Where it is, if several partitions have one of this id: shard and number.
    #[param(nullable = false)]
    partition: Option<String>,
    /// At most so many; 100 without it. There may be fewer, even none, and yet more behind them.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u64>,
    /// What comes behind a page: its cursor.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// Whose money is wanted, and of when.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "a description: the parameters are read by name")]
pub(crate) struct BalancesQuery {
    /// Only what this supplier has in it: `0x` and 40 digits.
    #[param(nullable = false)]
    supplier: Option<String>,
    /// As of when: RFC 3339, in UTC; without it after the last record.
    #[param(nullable = false)]
    at: Option<String>,
}

/// Which part of a statement is wanted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "a description: the parameters are read by name")]
pub(crate) struct StatementQuery {
    /// Of a partition: only what this supplier has in it.
    #[param(nullable = false)]
    supplier: Option<String>,
    /// Of a merchant: whose it is. A tenant's own without it; the operator names it.
    #[param(nullable = false)]
    tenant: Option<u64>,
    /// From this moment on: RFC 3339, in UTC; without it from the beginning.
    #[param(nullable = false)]
    from: Option<String>,
    /// Until before this moment; without it to where the history is complete.
    #[param(nullable = false)]
    until: Option<String>,
    /// Records that are looked at for the page; 100 without it.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u64>,
    /// What comes behind a page: its cursor.
    #[param(nullable = false)]
    cursor: Option<String>,
    /// In which form: JSON without it.
    #[param(nullable = false, pattern = "^(json|csv)$")]
    format: Option<String>,
}

/// A page of records or locks. What stands in them is described in the history's ASK.md.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "a description: the documents are the history's")]
pub(crate) struct HistoryPage {
    /// The records or locks.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<String>,
    /// Give it back for what comes behind this page.
    #[schema(required = true)]
    cursor: Option<String>,
    /// True if it is worth to ask again.
    has_more: bool,
    /// Everything that was decided before this moment is in the history: RFC 3339, or `-`.
    complete_before: String,
}

/// A lock as it stands now, and a page of its records.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "a description: the documents are the history's")]
pub(crate) struct HistoryLock {
    /// The lock; more than one only if several partitions use the id, or if it was forgotten and made again: the newer one comes first.
    #[schema(value_type = Vec<Object>)]
    locks: Vec<String>,
    /// True if there are more than 64.
    locks_cut: bool,
    /// The records.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<String>,
    /// Give it back for what comes behind this page.
    #[schema(required = true)]
    cursor: Option<String>,
    /// True if it is worth to ask again.
    has_more: bool,
    /// Everything that was decided before this moment is in the history: RFC 3339, or `-`.
    complete_before: String,
}

/// The money of a partition or a supplier, in base units.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "a description: the documents are the history's")]
pub(crate) struct HistoryBalances {
    /// Shard and number.
    partition: String,
    /// The supplier, if one was named.
    #[schema(required = true)]
    supplier: Option<String>,
    /// As of when, if a moment was named.
    #[schema(required = true)]
    at: Option<String>,
    /// The amounts by their names.
    #[schema(value_type = Object)]
    balances: String,
    /// Everything that was decided before this moment is in the history: RFC 3339, or `-`.
    complete_before: String,
}

/// A page of a statement. Amounts are in base units, each under its name.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "a description: the documents are the history's")]
pub(crate) struct HistoryStatement {
    /// Whose money it is.
    account: String,
    /// What the amounts are called, in order.
    names: Vec<String>,
    /// From this moment on: RFC 3339, or `-`.
    from: String,
    /// Until before this moment; null for a log that nothing is added to any more.
    #[schema(required = true)]
    until: Option<String>,
    /// What there was; on the first page.
    #[schema(value_type = Option<Object>, required = true)]
    opening: Option<String>,
    /// What changed it.
    #[schema(value_type = Vec<Object>)]
    lines: Vec<String>,
    /// Lines up to the end of this page.
    lines_so_far: u64,
    /// What there is; on the last page, and only if every line adds up.
    #[schema(value_type = Option<Object>, required = true)]
    closing: Option<String>,
    /// Give it back for what comes behind this page.
    #[schema(required = true)]
    cursor: Option<String>,
    /// True if it is worth to ask again.
    has_more: bool,
    /// Everything that was decided before this moment is in the history: RFC 3339, or `-`.
    complete_before: String,
}

/// Milliseconds since 1970; none for a moment that is not known.
pub(crate) const fn millis(time: Time) -> Option<u64> {
    if time.0 == 0 { None } else { Some(time.0 / 1_000_000) }
}

/// Why it was declined, if it was.
pub(crate) fn decline_code(code: Code) -> Option<String> {
    (!code.is_success()).then(|| code.name().to_owned())
}

/// The state of a lock in a word.
pub(crate) fn state(end: End) -> String {
    end.name().to_owned()
}

/// An amount, unless it is nothing.
pub(crate) fn if_any(asset: &Asset, amount: Amount) -> Option<String> {
    (amount != Amount::ZERO).then(|| asset.tell(amount))
}

/// The capture that a reply is about.
pub(crate) fn capture_of(reply: &Reply) -> Option<u16> {
    (reply.capture != surety_client::protocol::ALL_CAPTURES).then_some(reply.capture)
}
