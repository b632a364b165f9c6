//! Answers as JSON documents: how records, locks, money and the index itself are written at every door.

use ledger::CaptureState;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use surety_protocol::{EngineId, Record, Time};
use texts::record_text;
use texts::values::moment_text;

use crate::row::{Balances, Lock, LockAfter, Row};

/// What the index of a shard is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It takes what comes.
    Following,
    /// The ledger is replayed up to where the index is.
    ReadingBack,
    /// It looks for the engine.
    Waiting,
    /// What it has taken waits for room on the disk.
    NoRoom,
    /// What it needs next is not kept any more: it has to be made anew, with an archive.
    Gone,
    /// It does not go on, for a reason that somebody has to look at.
    Failed,
}

impl State {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Following, Self::ReadingBack, Self::Waiting, Self::NoRoom, Self::Gone, Self::Failed];

    /// As documents have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::ReadingBack => "reading_back",
            Self::Waiting => "waiting",
            Self::NoRoom => "no_room",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }

    /// True of an index that goes on by itself, sooner or later.
    #[must_use]
    pub const fn goes_on(self) -> bool {
        !matches!(self, Self::Gone | Self::Failed)
    }
}

/// How an index is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Whose it is.
    pub engine: String,
    /// The worst of its shards.
    pub state: State,
    /// Everything that was decided before is indexed, in every shard.
    #[serde(with = "moment")]
    pub complete_before: Time,
    /// Records that were decided and are not indexed; `None` where nobody keeps the index: it does not know what the log has by now.
    pub lag_records: Option<u64>,
    /// For how long the index has not been complete, in milliseconds: of the shard that is most behind; `None` like `lag_records`.
    pub lag_ms: Option<u64>,
    /// Bytes that it takes on the disk.
    pub bytes: u64,
    /// By number.
    pub shards: Vec<ShardStatus>,
}

/// How the index of a shard is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardStatus {
    /// Which.
    pub shard: u16,
    /// What it does.
    pub state: State,
    /// Why, if it does not follow.
    pub message: Option<String>,
    /// The last record that is indexed.
    pub indexed: u64,
    /// Records that were decided and are not indexed; `None` where nobody keeps the index.
    pub lag_records: Option<u64>,
    /// For how long it has not been complete, in milliseconds; `None` like `lag_records`.
    pub lag_ms: Option<u64>,
    /// Everything that it decided before is indexed.
    #[serde(with = "moment")]
    pub complete_before: Time,
}

impl Status {
    pub(crate) fn of(engine: EngineId, shards: Vec<ShardStatus>, bytes: u64) -> Self {
        Self {
            engine: engine.to_string(),
            state: shards.iter().map(|shard| shard.state).max().unwrap_or(State::Waiting),
            complete_before: shards.iter().map(|shard| shard.complete_before).min().unwrap_or_default(),
            // Of no shard nothing is known.
            lag_records: shards
                .iter()
                .map(|shard| shard.lag_records)
                .sum::<Option<u64>>()
                .filter(|_| !shards.is_empty()),
            lag_ms: shards.iter().map(|shard| shard.lag_ms).max().flatten(),
            bytes,
            shards,
        }
    }
}

/// Moments as they are written everywhere.
mod moment {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};
    use surety_protocol::Time;
    use texts::values::{moment, moment_text};

    pub(super) fn serialize<S: Serializer>(at: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&moment_text(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "-" { Ok(Time::ZERO) } else { moment(&text).map_err(D::Error::custom) }
    }
}

/// Numbers of records that may be longer than what JavaScript reads in full: written as decimal strings here.
const LONG: [&str; 3] = ["merchant", "user", "reason"];

/// A record: its fields as `surety dump --json` has them, but for merchants, `user` and reasons as decimal strings, the lock that it made or named and its partition's money after it. `parts` are the
/// records that continue it.
pub(crate) fn row(row: &Row, parts: &[Record]) -> Value {
    let fields = record_text::describe(row.shard, row.seq, &row.record, parts);
    let mut value = serde_json::to_value(&fields).unwrap_or_default();
    for name in LONG {
        if let Some(Value::Number(number)) = value.get(name) {
            value[name] = Value::String(number.to_string());
        }
    }
    if let Some(lock) = &row.lock {
        value["lock_after"] = lock_after(lock);
    }
    if let Some(money) = &row.balances {
        value["partition_after"] = balances(money);
    }
    value
}

fn lock_after(lock: &LockAfter) -> Value {
    json!({
        "state": lock.end.name(),
        "version": lock.version,
        "merchant": lock.merchant.0.to_string(),
        "payee": lock.payee.to_string(),
        "approved": lock.approved.to_string(),
        "captured": lock.captured.to_string(),
        "remaining": lock.remaining.to_string(),
    })
}

/// A partition's money.
pub(crate) fn balances(balances: &Balances) -> Value {
    amounts(&Balances::NAMES, &balances.to_array())
}

/// Amounts under their names, as decimal strings.
pub(crate) fn amounts<T: ToString>(names: &[&str], amounts: &[T]) -> Value {
    let named = names.iter().zip(amounts);
    Value::Object(
        named.map(|(name, amount)| ((*name).to_owned(), json!(amount.to_string()))).collect::<Map<_, _>>(),
    )
}

/// A lock as it stands now.
pub(crate) fn lock(lock: &Lock) -> Value {
    json!({
        "lock": lock.key.id.to_string(),
        "tenant": lock.key.tenant.0,
        "partition": lock.key.partition.to_string(),
        "merchant": lock.merchant.0.to_string(),
        "payee": lock.payee.to_string(),
        "state": lock.end.name(),
        "code": lock.code.name(),
        "version": lock.version,
        "created": moment_text(lock.created),
        "seq": lock.seq.0,
        "changed": moment_text(lock.changed),
        "changed_seq": lock.changed_seq.0,
        "deadline": moment_text(lock.deadline),
        "asked": lock.asked.to_string(),
        "quote": lock.quote,
        "category": lock.category,
        "user": lock.user.to_string(),
        "approved": lock.approved.to_string(),
        "headroom": lock.headroom.to_string(),
        "captured": lock.captured.to_string(),
        "released": lock.released.to_string(),
        "expired": lock.expired.to_string(),
        "remaining": lock.remaining.to_string(),
        "pending": lock.pending.to_string(),
        "certified": lock.is_certified,
        "called": lock.is_called,
        "captures": lock.captures.iter().map(capture).collect::<Vec<_>>(),
    })
}

fn capture(capture: &CaptureState) -> Value {
    json!({
        "capture": capture.index,
        "open": capture.open.to_string(),
        "settled": capture.settled.to_string(),
        "refunded": capture.refunded.to_string(),
        "consumed": capture.consumed.to_string(),
        "settle_by": moment_text(capture.settle_by),
    })
}
