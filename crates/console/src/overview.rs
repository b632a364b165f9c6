//! What an engine does, second by second: two readings make a second, and the last fifteen minutes of them are kept, so that whoever looks later has
//! a past. The console's overview and `surety top` show the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use serde_json::{Value, json};
use surety_protocol::{Code, CodeClass};

use crate::reading::{Durations, Reading, ShardReading};

/// Seconds that are kept.
pub const SECONDS_MAX: usize = 15 * 60;

/// What happened between two readings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Second {
    /// When it ended: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Requests answered with success, a second.
    pub done: u64,
    /// Requests declined and recorded so, a second.
    pub declined: u64,
    /// Requests that were not admitted, a second.
    pub refused: u64,
    /// Locks that have expired, a second.
    pub expired: u64,
    /// From decision to reply, in microseconds; none if nothing was answered.
    pub p50_us: Option<u64>,
    /// The same.
    pub p99_us: Option<u64>,
    /// A block's way to the disk, in microseconds; none if none was written.
    pub write_p99_us: Option<u64>,
    /// What of all collateral is not free, in basis points; none if there is none, or several assets.
    pub used_bps: Option<u64>,
    /// Exposure, in basis points of all collateral.
    pub exposure_bps: Option<u64>,
    /// How old what is settled was; none where no settler tells.
    #[serde(flatten)]
    pub settlement: Option<SettlementAges>,
    /// Why requests were not done in it: codes and how often.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, u64>,
}

/// How old what is settled is, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SettlementAges {
    /// How long the oldest change waits for a batch; zero if none does.
    pub waiting_age_ms: u64,
    /// How long ago the oldest batch was sealed that is not final; zero if all are.
    pub batch_age_ms: u64,
    /// How long ago the newest block was made that the settler has seen; none if it has seen none.
    pub chain_age_ms: Option<u64>,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Standing {
    /// Requests are executed.
    pub ready: bool,
    /// The program's version.
    pub version: String,
    /// Requests taken and not answered.
    pub in_flight: u64,
    /// Locks that are live.
    pub open_locks: u64,
    /// Connections over QUIC.
    pub connections: u64,
    /// Times that a partition's money was found not to add up: never anything but 0.
    pub violations: u64,
    /// Every asset's money.
    pub money: Vec<Money>,
    /// Every shard.
    pub shards: Vec<Shard>,
}

/// An asset's money, in base units as decimal strings: JSON's numbers end before them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Money {
    /// Which asset.
    pub asset: u32,
    /// Free, held, captured, pending, owed, deficit and exposure.
    pub states: BTreeMap<String, String>,
    /// Partitions that take locks.
    pub open: u64,
    /// Partitions that do not.
    pub frozen: u64,
    /// Partitions of either kind that were not reconciled since a loss: nothing moves there.
    pub unreconciled: u64,
}

/// A shard's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shard {
    /// Which.
    pub shard: usize,
    /// Requests answered, a second.
    pub rate: u64,
    /// From decision to reply, in microseconds.
    pub p99_us: Option<u64>,
    /// A block's way to the disk, in microseconds.
    pub write_p99_us: Option<u64>,
    /// The last record decided.
    pub appended: u64,
    /// The last that replies may speak of.
    pub acked: u64,
    /// The last on the disk.
    pub synced: u64,
    /// Records waiting for the log.
    pub waiting: u64,
    /// The last record of the newest snapshot.
    pub snapshot: u64,
    /// The last record that the archive has.
    pub archived: u64,
    /// Times that a segment could not be archived.
    pub archive_failures: u64,
    /// New locks are declined for want of space.
    pub storage_low: bool,
    /// Requests taken and not answered.
    pub in_flight: u64,
    /// Locks that are live.
    pub open_locks: u64,
    /// Locks in memory.
    pub kept_locks: u64,
    /// Connections over QUIC.
    pub connections: u64,
    /// Readers of the change stream.
    pub subscribers: u64,
    /// Times that money was found not to add up.
    pub violations: u64,
}

/// The past, and how things stand now.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    seconds: VecDeque<Second>,
    /// Answers that are no success, over the seconds that are kept.
    reasons: BTreeMap<String, u64>,
    last: Option<(u64, Reading)>,
    standing: Standing,
}

impl Overview {
    /// Takes the next reading, made at a moment in milliseconds since the Unix epoch.
    pub fn take(&mut self, at_ms: u64, reading: Reading) {
        let before = self.last.take();
        let span_ms = before.as_ref().map_or(0, |(before_ms, _)| at_ms.saturating_sub(*before_ms));
        let earlier = before.map(|(_, reading)| reading).unwrap_or_default();
        self.standing = Standing::of(&reading, &earlier, span_ms);
        // A first reading counts since the start, and a clock that was set back says nothing.
        if span_ms > 0 {
            let answers = answers_since(&reading, &earlier);
            self.keep(Second::of(at_ms, span_ms, &reading, &earlier, &answers));
        }
        self.last = Some((at_ms, reading));
    }

    fn keep(&mut self, second: Second) {
        for (code, count) in &second.reasons {
            *self.reasons.entry(code.clone()).or_default() += count;
        }
        self.seconds.push_back(second);
        if self.seconds.len() > SECONDS_MAX
            && let Some(gone) = self.seconds.pop_front()
        {
            for (code, count) in gone.reasons {
                if let Some(sum) = self.reasons.get_mut(&code) {
                    *sum = sum.saturating_sub(count);
                }
            }
            self.reasons.retain(|_, sum| *sum > 0);
        }
    }

    /// Notes how old what is settled was in the newest second.
    pub fn settles(&mut self, ages: Option<SettlementAges>) {
        if let Some(second) = self.seconds.back_mut() {
            second.settlement = ages;
        }
    }

    /// The seconds that are kept, the oldest first.
    pub fn seconds(&self) -> impl ExactSizeIterator<Item = &Second> {
        self.seconds.iter()
    }

    /// The same, each field as a list: a page that opens gets fifteen minutes of them, and the names once.
    #[must_use]
    pub fn columns(&self) -> Value {
        let seconds: Vec<Value> = self.seconds.iter().map(|second| json!(second)).collect();
        let all = seconds.iter().filter_map(Value::as_object);
        let names: BTreeSet<&str> = all
            .flat_map(|second| second.keys())
            .map(String::as_str)
            .filter(|name| *name != "reasons")
            .collect();
        let column = |name: &str| seconds.iter().map(|second| second[name].clone()).collect();
        let mut columns: serde_json::Map<String, Value> =
            names.into_iter().map(|name| (name.to_owned(), Value::Array(column(name)))).collect();
        let times = |code: &str| -> Vec<u64> {
            self.seconds.iter().map(|second| second.reasons.get(code).copied().unwrap_or(0)).collect()
        };
        let reasons: BTreeMap<&str, Vec<u64>> =
            self.reasons.keys().map(|code| (code.as_str(), times(code))).collect();
        columns.insert("reasons".to_owned(), json!(reasons));
        Value::Object(columns)
    }

    /// The newest second.
    #[must_use]
    pub fn newest(&self) -> Option<&Second> {
        self.seconds.back()
    }

    /// Why requests were not done, over the seconds that are kept: codes and how often, the most frequent first.
    #[must_use]
    pub fn reasons(&self) -> Vec<(String, u64)> {
        let mut reasons: Vec<_> = self.reasons.iter().map(|(code, count)| (code.clone(), *count)).collect();
        reasons.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        reasons
    }

    /// How things stand.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }
}

type Answers<'a> = BTreeMap<&'a str, u64>;

/// By code, over all shards.
fn answers_since<'a>(now: &'a Reading, earlier: &Reading) -> Answers<'a> {
    let mut answers = Answers::new();
    for (at, shard) in now.shards.iter().enumerate() {
        let before = earlier.shards.get(at);
        for (key, count) in &shard.answers {
            let before = before.and_then(|shard| shard.answers.get(key)).copied().unwrap_or(0);
            *answers.entry(key.1.as_str()).or_default() += count.saturating_sub(before);
        }
    }
    answers.retain(|_, count| *count > 0);
    answers
}

fn class(code: &str) -> CodeClass {
    let known = Code::ALL.iter().find(|known| known.name() == code);
    known.map_or(CodeClass::Decline, |code| code.class())
}

fn not_done(answers: &Answers<'_>) -> BTreeMap<String, u64> {
    let is_reason = |code: &str| !matches!(class(code), CodeClass::Success | CodeClass::Undecided);
    answers
        .iter()
        .filter(|(code, _)| is_reason(code))
        .map(|(code, count)| ((*code).to_owned(), *count))
        .collect()
}

fn per_second(count: u64, span_ms: u64) -> u64 {
    count.saturating_mul(1000).checked_div(span_ms).unwrap_or(0)
}

impl Second {
    fn of(at_ms: u64, span_ms: u64, now: &Reading, earlier: &Reading, answers: &Answers<'_>) -> Self {
        let count = |wanted: CodeClass| -> u64 {
            let of_class = answers.iter().filter(|(code, _)| class(code) == wanted);
            per_second(of_class.map(|(_, count)| count).sum(), span_ms)
        };
        let since = |of: fn(&ShardReading) -> &Durations| durations_since(now, earlier, of);
        let (latency, write) = (since(|shard| &shard.latency), since(|shard| &shard.write));
        let (used_bps, exposure_bps) = shares(now);
        let expired = now.sum("expired_locks_total").saturating_sub(earlier.sum("expired_locks_total"));
        Self {
            at_ms,
            done: count(CodeClass::Success),
            declined: count(CodeClass::Decline),
            refused: count(CodeClass::Admission),
            expired: per_second(expired, span_ms),
            p50_us: micros(&latency, 0.5),
            p99_us: micros(&latency, 0.99),
            write_p99_us: micros(&write, 0.99),
            used_bps,
            exposure_bps,
            settlement: None,
            reasons: not_done(answers),
        }
    }
}

fn durations_since(now: &Reading, earlier: &Reading, of: fn(&ShardReading) -> &Durations) -> Durations {
    let none = ShardReading::default();
    now.shards.iter().enumerate().fold(Durations::default(), |sum, (at, shard)| {
        sum.plus(&of(shard).since(of(earlier.shards.get(at).unwrap_or(&none))))
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds at most, never negative"
)]
fn micros(durations: &Durations, share: f64) -> Option<u64> {
    durations.percentile_us(share).map(|micros| micros.ceil() as u64)
}

/// What is not free, and what is exposed, of one asset's collateral.
fn shares(now: &Reading) -> (Option<u64>, Option<u64>) {
    let mut assets = now.money.values();
    let (Some(money), None) = (assets.next(), assets.next()) else { return (None, None) };
    let state = |name: &str| money.states.get(name).copied().unwrap_or(0);
    let used = ["held", "captured", "pending", "owed"]
        .iter()
        .fold(0_u128, |sum, name| sum.saturating_add(state(name)));
    let all = used.saturating_add(state("free"));
    (bps(used, all), bps(state("exposure"), all))
}

fn bps(part: u128, all: u128) -> Option<u64> {
    // Rather coarser than an overflow: amounts end far below the quotient.
    let scaled =
        part.checked_mul(10_000).map_or_else(|| part.checked_div(all / 10_000), |part| part.checked_div(all));
    scaled.map(|bps| u64::try_from(bps).unwrap_or(u64::MAX))
}

impl Standing {
    fn of(now: &Reading, earlier: &Reading, span_ms: u64) -> Self {
        let money = now.money.iter().map(|(asset, money)| Money {
            asset: *asset,
            states: money.states.iter().map(|(state, amount)| (state.clone(), amount.to_string())).collect(),
            open: money.open,
            frozen: money.frozen,
            unreconciled: money.unreconciled,
        });
        let none = ShardReading::default();
        let shards = now.shards.iter().enumerate();
        Self {
            ready: now.is_ready,
            version: now.version.clone(),
            in_flight: now.sum("in_flight"),
            open_locks: now.sum("open_locks"),
            connections: now.sum("connections_open"),
            violations: now.sum("invariant_violations_total"),
            money: money.collect(),
            shards: shards
                .map(|(at, shard)| Shard::of(at, shard, earlier.shards.get(at).unwrap_or(&none), span_ms))
                .collect(),
        }
    }
}

impl Shard {
    fn of(shard: usize, now: &ShardReading, earlier: &ShardReading, span_ms: u64) -> Self {
        let total = |of: &ShardReading| of.answers.values().sum::<u64>();
        Self {
            shard,
            rate: per_second(total(now).saturating_sub(total(earlier)), span_ms),
            p99_us: micros(&now.latency.since(&earlier.latency), 0.99),
            write_p99_us: micros(&now.write.since(&earlier.write), 0.99),
            appended: now.number("appended_seq"),
            acked: now.number("acked_seq"),
            synced: now.number("synced_seq"),
            waiting: now.number("waiting_records"),
            snapshot: now.number("snapshot_seq"),
            archived: now.number("archived_seq"),
            archive_failures: now.number("archive_failures_total"),
            storage_low: now.number("storage_low") == 1,
            in_flight: now.number("in_flight"),
            open_locks: now.number("open_locks"),
            kept_locks: now.number("kept_locks"),
            connections: now.number("connections_open"),
            subscribers: now.number("subscribers"),
            violations: now.number("invariant_violations_total"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(approved: u64, declined: u64, refused: u64, latency: u64) -> Reading {
        let answer = |code: &str, count: u64| {
            format!("surety_requests_total{{shard=\"0\",op=\"lock\",code=\"{code}\"}} {count}\n")
        };
        let bucket = |le: &str| {
            format!("surety_request_duration_seconds_bucket{{shard=\"0\",le=\"{le}\"}} {latency}\n")
        };
        let money = |state: &str, amount: u128| {
            format!("surety_collateral_base_units{{shard=\"0\",asset=\"1\",state=\"{state}\"}} {amount}\n")
        };
        Reading::parse(
            &[
                answer("APPROVED", approved),
                answer("INSUFFICIENT", declined),
                answer("OVERLOADED", refused),
                bucket("0.000002"),
                bucket("+Inf"),
                money("free", 3 << 100),
                money("held", 1 << 100),
                money("exposure", 1 << 99),
            ]
            .concat(),
        )
    }

    #[test]
    fn a_second_is_what_was_added_since_the_last() {
        let mut overview = Overview::default();
        overview.take(1_000, reading(100, 10, 1, 111));
        assert_eq!(overview.newest(), None, "what was before is no second");
        assert_eq!(overview.standing().money[0].states["held"], (1_u128 << 100).to_string());
        overview.take(3_000, reading(300, 14, 3, 317));
        let second = overview.newest().unwrap();
        assert_eq!((second.done, second.declined, second.refused), (100, 2, 1));
        assert_eq!((second.p50_us, second.p99_us, second.write_p99_us), (Some(1), Some(2), None));
        assert_eq!((second.used_bps, second.exposure_bps), (Some(2500), Some(1250)));
        assert_eq!(overview.reasons(), [("INSUFFICIENT".to_owned(), 4), ("OVERLOADED".to_owned(), 2)]);
        assert_eq!(overview.standing().shards[0].rate, 103);
        overview.take(4_000, reading(300, 14, 3, 317));
        assert_eq!((overview.newest().unwrap().done, overview.newest().unwrap().p50_us), (0, None));
    }

    #[test]
    fn an_engine_that_began_anew_and_a_clock_set_back_are_no_wonders() {
        let mut overview = Overview::default();
        overview.take(1_000, reading(100, 10, 1, 111));
        overview.take(2_000, reading(1, 0, 0, 1));
        assert_eq!(overview.newest().unwrap().done, 0);
        overview.take(1_500, reading(5, 0, 0, 5));
        assert_eq!(overview.seconds().len(), 1);
        overview.take(2_500, reading(7, 0, 0, 7));
        assert_eq!(overview.newest().unwrap().done, 2);
    }

    #[test]
    fn seconds_are_told_field_by_field() {
        let mut overview = Overview::default();
        for (at_ms, count) in [(1000, 0), (2000, 4), (3000, 4), (4000, 5)] {
            overview.take(at_ms, reading(count, count, 0, count));
            let ages = SettlementAges { waiting_age_ms: count, batch_age_ms: 0, chain_age_ms: None };
            overview.settles((at_ms == 3000).then_some(ages));
        }
        let columns = overview.columns();
        assert_eq!(columns["at_ms"], json!([2000, 3000, 4000]));
        assert_eq!(columns["done"], json!([4, 0, 1]));
        assert_eq!(columns["waiting_age_ms"], json!([null, 4, null]));
        assert_eq!(columns["reasons"], json!({ "INSUFFICIENT": [4, 0, 1] }));
        for (name, column) in columns.as_object().unwrap() {
            assert!(name == "reasons" || column.as_array().is_some_and(|column| column.len() == 3), "{name}");
        }
        assert_eq!(Overview::default().columns(), json!({ "reasons": {} }));
    }

    #[test]
    fn the_past_has_an_end() {
        let mut overview = Overview::default();
        for second in 0..2 * SECONDS_MAX as u64 {
            overview.take(second * 1000, reading(second, second, 0, second));
        }
        assert_eq!(overview.seconds().len(), SECONDS_MAX);
        assert_eq!(overview.reasons(), [("INSUFFICIENT".to_owned(), SECONDS_MAX as u64)]);
    }
}
