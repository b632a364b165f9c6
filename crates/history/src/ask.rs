//! Questions as JSON documents, the same at every door. The contract is ASK.md, beside the sources.

use serde::{Deserialize, Serialize};
use surety_protocol::{Code, End, Id, Kind, MerchantId, PartitionHandle, Sight, TenantId, Time};
use texts::values;

use crate::cursor::{Cursor, OpenCursor};
use crate::error::QueryError;
use crate::keys::OpenBy;
use crate::query::{Order, Predicate, Query};

/// Rows of a page where a question does not say.
pub(crate) const ROWS_DEFAULT: usize = 100;

/// A question, and on whose behalf it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The tenant for whom it is asked; without one the operator.
    pub of: Option<u32>,
    /// What.
    pub ask: Ask,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Records that every condition holds of.
    Records(Conditions),
    /// Locks that every condition holds of, as they stand now, in the order in which they were made.
    Locks(Conditions),
    /// Locks that are live, by age or deadline.
    OpenLocks(Conditions),
    /// The locks of one id, and every record that names them.
    Lock(OfLock),
    /// The money of a partition or a supplier as of a moment.
    Balances(OfMoment),
    /// What changed the money of a partition, a supplier or a merchant in a period.
    Statement(OfPeriod),
    /// How far the index has come, and how it is doing.
    Status(Nothing),
}

/// A question without words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// What records or locks are held against: all of them have to hold, and of the values of one name any. Written as everywhere: ids as UUIDs,
/// partitions as `shard:number`, amounts as decimal strings in base units, moments as RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// About one of these locks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lock: Vec<String>,
    /// The lock guarantees one of these merchants.
    #[serde(skip_serializing_if = "Vec::is_empty", with = "merchants")]
    pub merchant: Vec<u64>,
    /// The lock's merchant is paid at one of these addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub payee: Vec<String>,
    /// In one of these partitions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partition: Vec<String>,
    /// One of these tenants'.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenant: Vec<u32>,
    /// Naming one of these suppliers; records only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supplier: Vec<String>,
    /// Answered by one of these codes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub code: Vec<String>,
    /// Of one of these kinds; records only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kind: Vec<String>,
    /// With the lock in one of these states.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<String>,
    /// Of at least this amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_min: Option<String>,
    /// Of at most this amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_max: Option<String>,
    /// From this moment on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Until before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// In which order; of `records` and `locks`. The newest first without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderName>,
    /// In which order; of `open_locks`. The oldest first without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByName>,
    /// Rows of the page; 100 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The cursor of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The order of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderName {
    /// The newest first.
    NewestFirst,
    /// The oldest first.
    OldestFirst,
}

/// The order of live locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByName {
    /// The oldest first.
    Age,
    /// The one that ends soonest first.
    Deadline,
}

/// One lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfLock {
    /// Its id.
    pub id: String,
    /// Where it is, if several partitions have one of this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Records of the page; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The cursor of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Whose money, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfMoment {
    /// A partition's.
    pub partition: String,
    /// That of a supplier in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplier: Option<String>,
    /// After the last record that was decided then or before; without it after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// Whose money, and of which period: a partition's, a supplier's in a partition, or a merchant's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfPeriod {
    /// A partition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// That of a supplier in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplier: Option<String>,
    /// A merchant's.
    #[serde(skip_serializing_if = "Option::is_none", with = "merchants")]
    pub merchant: Option<u64>,
    /// Whose merchant, where the operator asks; a tenant's own otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<u32>,
    /// From this moment on; without it from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Until before this moment, which must lie in what is complete; without it until there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Records looked at for the page; 100 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The cursor of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Merchants are written as decimal strings: not every number of theirs is one in JavaScript. They are read as numbers too.
mod merchants {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a merchant is a number or a decimal string")]
    enum Written {
        Number(u64),
        Text(String),
    }

    impl Written {
        fn read(self) -> Result<u64, String> {
            match self {
                Self::Number(number) => Ok(number),
                Self::Text(text) => {
                    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
                    let number = text.parse().ok().filter(|_| is_plain);
                    number.ok_or_else(|| format!("`{text}` is no merchant: a number of at most 64 bits"))
                }
            }
        }
    }

    pub(super) fn serialize<S: Serializer, M: Many>(merchants: &M, serializer: S) -> Result<S::Ok, S::Error> {
        merchants.texts().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, M: Many>(deserializer: D) -> Result<M, D::Error> {
        M::read(deserializer)
    }

    /// One that may be there, or any number of them.
    pub(super) trait Many: Sized {
        fn texts(&self) -> impl Serialize;
        fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    }

    impl Many for Vec<u64> {
        fn texts(&self) -> impl Serialize {
            self.iter().map(u64::to_string).collect::<Vec<_>>()
        }

        fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let written = Vec::<Written>::deserialize(deserializer)?;
            written.into_iter().map(|one| one.read().map_err(D::Error::custom)).collect()
        }
    }

    impl Many for Option<u64> {
        fn texts(&self) -> impl Serialize {
            self.map(|merchant| merchant.to_string())
        }

        fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let written = Option::<Written>::deserialize(deserializer)?;
            written.map(|one| one.read().map_err(D::Error::custom)).transpose()
        }
    }
}

/// Why a question cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not JSON, a field that is not known, or one of another type.
    #[error("the question cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that is none.
    #[error("{field}: {message}")]
    Value {
        /// Of which field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A field of other questions.
    #[error("`{field}` is not a field of `{ask}`")]
    Misplaced {
        /// Which.
        field: &'static str,
        /// In which question.
        ask: &'static str,
    },
    /// A tenant asks on behalf of another one.
    #[error("the question is on behalf of tenant {named}, and whoever asks is of tenant {own}")]
    NotYours {
        /// In the question.
        named: u32,
        /// Whose certificate or session it is.
        own: u32,
    },
    /// Nobody, or several, whose money it could be.
    #[error("whose money? give one of {0}")]
    Whose(&'static str),
    /// What the index says to it.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Question {
    /// Reads one.
    ///
    /// # Errors
    /// [`AskError::Json`].
    pub fn read(bytes: &[u8]) -> Result<Self, AskError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// A question of somebody who sees so much, whatever it says itself: a tenant asks for itself, and who sees all for whom it names.
    ///
    /// # Errors
    /// [`AskError::NotYours`].
    pub fn by(sight: Sight, of: Option<u32>, ask: Ask) -> Result<Self, AskError> {
        match (sight.tenant().map(|tenant| tenant.0), of) {
            (Some(own), Some(named)) if own != named => Err(AskError::NotYours { named, own }),
            (Some(own), _) => Ok(Self { of: Some(own), ask }),
            (None, of) => Ok(Self { of, ask }),
        }
    }

    /// Reads one of somebody who sees so much.
    ///
    /// # Errors
    /// [`AskError::Json`] and [`AskError::NotYours`].
    pub fn read_by(sight: Sight, bytes: &[u8]) -> Result<Self, AskError> {
        let Self { of, ask } = Self::read(bytes)?;
        Self::by(sight, of, ask)
    }
}

impl Conditions {
    /// As a question to the index about records or locks.
    pub(crate) fn to_query(&self, ask: &'static str) -> Result<Query, AskError> {
        if self.by.is_some() {
            return Err(AskError::Misplaced { field: "by", ask });
        }
        let cursor = self.cursor.as_deref().map(str::parse::<Cursor>).transpose()?;
        Ok(Query { cursor, ..self.plain()? })
    }

    /// As a question about live locks.
    pub(crate) fn to_open_query(&self) -> Result<(OpenBy, Query, Option<OpenCursor>), AskError> {
        if self.order.is_some() {
            return Err(AskError::Misplaced { field: "order", ask: "open_locks" });
        }
        let by = match self.by {
            Some(ByName::Deadline) => OpenBy::Deadline,
            _ => OpenBy::Age,
        };
        let cursor = self.cursor.as_deref().map(str::parse::<OpenCursor>).transpose()?;
        Ok((by, self.plain()?, cursor))
    }

    fn plain(&self) -> Result<Query, AskError> {
        let order = match self.order {
            Some(OrderName::OldestFirst) => Order::Ascending,
            _ => Order::Descending,
        };
        let limit = self.limit.unwrap_or(ROWS_DEFAULT);
        Ok(Query { predicates: self.predicates()?, order, cursor: None, limit })
    }

    fn predicates(&self) -> Result<Vec<Predicate>, AskError> {
        let mut all = Vec::new();
        any(&mut all, &self.lock, |text| Ok(Predicate::Lock(id("lock", text)?)))?;
        any(&mut all, &self.merchant, |merchant| Ok(Predicate::Merchant(MerchantId(*merchant))))?;
        any(&mut all, &self.payee, |text| Ok(Predicate::Payee(address("payee", text)?)))?;
        any(&mut all, &self.partition, |text| {
            Ok(Predicate::Partition(read("partition", text, values::place)?))
        })?;
        any(&mut all, &self.tenant, |tenant| Ok(Predicate::Tenant(TenantId(*tenant))))?;
        any(&mut all, &self.supplier, |text| Ok(Predicate::Supplier(address("supplier", text)?)))?;
        any(&mut all, &self.code, |text| Ok(Predicate::Code(read("code", text, code)?)))?;
        any(&mut all, &self.kind, |text| Ok(Predicate::Kind(read("kind", text, kind)?)))?;
        any(&mut all, &self.state, |text| Ok(Predicate::State(read("state", text, state)?)))?;
        if self.amount_min.is_some() || self.amount_max.is_some() {
            let amount = |field, text: &Option<String>, without| {
                text.as_deref().map_or(Ok(without), |text| read(field, text, values::amount).map(|it| it.0))
            };
            let min = amount("amount_min", &self.amount_min, 0)?;
            all.push(Predicate::Amount { min, max: amount("amount_max", &self.amount_max, u128::MAX)? });
        }
        if self.from.is_some() || self.until.is_some() {
            let from = moment("from", self.from.as_deref(), Time::ZERO)?;
            let until = moment("until", self.until.as_deref(), Time(u64::MAX))?;
            all.push(Predicate::Time { from, until });
        }
        Ok(all)
    }
}

fn any<T>(
    all: &mut Vec<Predicate>,
    values: &[T],
    predicate: impl Fn(&T) -> Result<Predicate, AskError>,
) -> Result<(), AskError> {
    let mut read: Vec<Predicate> = values.iter().map(predicate).collect::<Result<_, _>>()?;
    match read.len() {
        0 => {}
        1 => all.append(&mut read),
        _ => all.push(Predicate::AnyOf(read)),
    }
    Ok(())
}

pub(crate) fn read<T>(
    field: &'static str,
    text: &str,
    reads: impl Fn(&str) -> Result<T, String>,
) -> Result<T, AskError> {
    reads(text).map_err(|message| AskError::Value { field, message })
}

pub(crate) fn id(field: &'static str, text: &str) -> Result<Id, AskError> {
    read(field, text, values::id)
}

pub(crate) fn partition(text: &str) -> Result<PartitionHandle, AskError> {
    read("partition", text, values::partition)
}

pub(crate) fn address(field: &'static str, text: &str) -> Result<surety_protocol::Address, AskError> {
    read(field, text, values::address)
}

pub(crate) fn moment(field: &'static str, text: Option<&str>, without: Time) -> Result<Time, AskError> {
    text.map_or(Ok(without), |text| read(field, text, values::moment))
}

/// Reads a kind of record, for example `capture`.
///
/// # Errors
/// Which there are.
pub fn kind(text: &str) -> Result<Kind, String> {
    named(text, "kind", Kind::ALL.iter().map(|kind| (kind.name(), *kind)))
}

/// Reads a code, for example `INSUFFICIENT`.
///
/// # Errors
/// Which there are.
pub fn code(text: &str) -> Result<Code, String> {
    named(text, "code", Code::ALL.iter().map(|code| (code.name(), *code)))
}

/// Reads the state of a lock, for example `live`.
///
/// # Errors
/// Which there are.
pub fn state(text: &str) -> Result<End, String> {
    named(text, "state", (1..=8).filter_map(End::from_byte).map(|end| (end.name(), end)))
}

fn named<T: Copy>(text: &str, what: &str, all: impl Iterator<Item = (&'static str, T)>) -> Result<T, String> {
    let all: std::collections::BTreeMap<&str, T> = all.collect();
    let names = || all.keys().copied().collect::<Vec<_>>().join(", ");
    all.get(text).copied().ok_or_else(|| format!("`{text}` is no {what}; there are {}", names()))
}
