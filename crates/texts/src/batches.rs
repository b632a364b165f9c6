//! How batches stand: the document that a settler tells at its metrics listener, and that a console reads there. Both know it by these types alone, so
//! that no name of it is spelt twice.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A settler whose last turn is older than its interval and this much has failed since, in milliseconds.
const TURN_LATE_MS: u64 = 30_000;

/// What the document is called at the listener.
pub const DOCUMENT: &str = "batches";

/// What a settler tells of its batches. Whatever else answers at its address does not read as this; what a later settler tells beside it is passed by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// How long ago the settler's last turn was when it answered: all ages are of then.
    pub turn_age_ms: u64,
    /// How long it waits between two turns where there is nothing to do.
    pub interval_ms: u64,
    /// The last batch that was sealed.
    pub sealed: u64,
    /// The last that a final block has.
    #[serde(rename = "final")]
    pub last_final: u64,
    /// The last of which the engine has its part.
    pub booked: u64,
    /// Records that wait for a batch.
    pub waiting_records: u64,
    /// How long the oldest of them has waited; zero if nothing waits.
    pub waiting_age_ms: u64,
    /// How long ago the oldest batch was sealed that is not final; zero if all batches are.
    pub unsettled_age_ms: u64,
    /// Signed transactions that a block may still take.
    pub pending_transactions: u64,
    /// None before the settler's first look at it.
    #[serde(deserialize_with = "said")]
    pub chain: Option<Chain>,
    /// The newest first.
    pub batches: Vec<Batch>,
}

impl Told {
    /// The most that the last turn's age can be while all is well. Behind it nobody knows how old things are.
    #[must_use]
    pub const fn turn_age_max_ms(&self) -> u64 {
        self.interval_ms.saturating_add(TURN_LATE_MS)
    }
}

/// The chain, as of the settler's last look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Number of the newest block.
    pub block: u64,
    /// Number of the newest that is final.
    pub final_block: u64,
    /// When the newest was made, by its own word: seconds since 1970.
    #[serde(deserialize_with = "said")]
    pub block_time_s: Option<u64>,
}

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The settler has it in its log.
    Sealed,
    /// A transaction for it is signed.
    Posted,
    /// A block has it.
    Mined,
    /// A final block has it.
    Final,
    /// The engine has its part for each partition.
    Booked,
}

/// Why the contract refuses a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// More new credit than the contract lets through in an hour.
    PayoutLimit,
    /// The contract's own balance does not cover the sums.
    Insolvent,
    /// The guardian has paused the contract.
    Paused,
    /// Any other.
    Other,
}

/// A batch. Moments are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number: 1, 2, 3, ...
    pub batch: u64,
    /// How far it has come.
    pub stage: Stage,
    /// Why the contract refuses it, if it does.
    #[serde(deserialize_with = "said")]
    pub held: Option<Held>,
    /// Records that were netted.
    pub records: u64,
    /// Partitions that it takes something out of.
    pub partitions: u64,
    /// What it takes out of all of them, in base units.
    pub credited: Decimal<u128>,
    /// Collateral that guaranteed something when it was sealed, in base units.
    pub locked: Decimal<u128>,
    /// How far each shard was read for it.
    pub read: Vec<Decimal<u64>>,
    /// The transaction that commits it: the one that a block has, or else the last that was signed; none if nobody knows.
    #[serde(deserialize_with = "said")]
    pub transaction: Option<String>,
    /// The block that has it.
    #[serde(deserialize_with = "said")]
    pub block: Option<u64>,
    /// When it was sealed.
    pub sealed_ms: u64,
    /// When its first transaction was signed.
    #[serde(deserialize_with = "said")]
    pub posted_ms: Option<u64>,
    /// When a block was seen to have it.
    #[serde(deserialize_with = "said")]
    pub mined_ms: Option<u64>,
    /// When a final one was.
    #[serde(deserialize_with = "said")]
    pub final_ms: Option<u64>,
    /// When the engine had all of it.
    #[serde(deserialize_with = "said")]
    pub booked_ms: Option<u64>,
}

/// A whole number as a string of decimal digits, as it is written and no other way: JSON's numbers end at 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal<T>(pub T);

impl<T: fmt::Display> Serialize for Decimal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: fmt::Display + FromStr> Deserialize<'de> for Decimal<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DecimalVisitor(PhantomData)).map(Self)
    }
}

struct DecimalVisitor<T>(PhantomData<T>);

impl<T: fmt::Display + FromStr> Visitor<'_> for DecimalVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number as a string of decimal digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let number = text.parse().ok().filter(|number: &T| number.to_string() == text);
        number.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// Reads what may be null and must not be missing: a name that one side alone has changed would else read as nothing known.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told() -> Told {
        let booked = Batch {
            batch: 3,
            stage: Stage::Booked,
            held: None,
            records: 4,
            partitions: 1,
            credited: Decimal(u128::MAX),
            locked: Decimal(0),
            read: vec![Decimal(0), Decimal(u64::MAX)],
            transaction: Some("0x01".to_owned()),
            block: Some(9),
            sealed_ms: 1,
            posted_ms: Some(2),
            mined_ms: Some(3),
            final_ms: Some(4),
            booked_ms: Some(5),
        };
        let held = Batch {
            batch: 4,
            stage: Stage::Sealed,
            held: Some(Held::PayoutLimit),
            transaction: None,
            block: None,
            posted_ms: None,
            mined_ms: None,
            final_ms: None,
            booked_ms: None,
            ..booked.clone()
        };
        Told {
            turn_age_ms: 40,
            interval_ms: 2000,
            sealed: 4,
            last_final: 3,
            booked: 3,
            waiting_records: 5,
            waiting_age_ms: 1000,
            unsettled_age_ms: 70,
            pending_transactions: 0,
            chain: Some(Chain { block: 9, final_block: 7, block_time_s: Some(100) }),
            batches: vec![held, booked],
        }
    }

    fn read(document: &Value) -> Result<Told, String> {
        serde_json::from_str(&document.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_told_is_read_back_under_the_names_that_pages_know() {
        for told in [told(), Told { chain: None, batches: Vec::new(), ..told() }] {
            assert_eq!(read(&serde_json::to_value(&told).unwrap()), Ok(told));
        }
        let mut document = serde_json::to_value(told()).unwrap();
        let batch = &document["batches"][0];
        assert_eq!((&batch["stage"], &batch["held"]), (&json!("sealed"), &json!("payout_limit")));
        assert_eq!(batch["credited"], json!(u128::MAX.to_string()));
        assert_eq!(batch["read"], json!(["0", u64::MAX.to_string()]));
        assert_eq!(document["final"], 3);
        document["later"] = json!(1);
        assert_eq!(read(&document), Ok(told()), "what is told beside it is passed by");
    }

    #[test]
    fn one_renamed_field_is_noticed_also_where_it_may_be_null() {
        let sound = serde_json::to_value(told()).unwrap();
        for place in ["", "/chain", "/batches/0", "/batches/1"] {
            for name in sound.pointer(place).unwrap().as_object().unwrap().keys() {
                let mut document = sound.clone();
                let fields = document.pointer_mut(place).unwrap().as_object_mut().unwrap();
                let value = fields.remove(name).unwrap();
                fields.insert(format!("{name}_x"), value);
                let error = read(&document).unwrap_err();
                assert!(error.contains(&format!("missing field `{name}`")), "{place}/{name}: {error}");
            }
        }
    }

    #[test]
    fn only_whole_numbers_and_known_words_are_read() {
        let sound = serde_json::to_value(told()).unwrap();
        let u64_and_one = (u128::from(u64::MAX) + 1).to_string();
        for (place, wrong) in [
            ("/batches/0/credited", json!("")),
            ("/batches/0/credited", json!("-1")),
            ("/batches/0/credited", json!("+1")),
            ("/batches/0/credited", json!("01")),
            ("/batches/0/credited", json!("1.5")),
            ("/batches/0/credited", json!(1)),
            ("/batches/0/locked", json!("340282366920938463463374607431768211456")),
            ("/batches/0/read/0", json!("x")),
            ("/batches/0/read/0", json!(u64_and_one)),
            ("/batches/0/batch", json!(-1)),
            ("/batches/0/stage", json!("sent")),
            ("/batches/0/held", json!("")),
        ] {
            let mut document = sound.clone();
            *document.pointer_mut(place).unwrap() = wrong.clone();
            assert!(read(&document).is_err(), "{place}: {wrong}");
        }
    }
}
