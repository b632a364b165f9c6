//! What an engine elsewhere tells over its wire to an operator's reader: its change stream from now on, which is counted here, and its partitions' money.
//! What the wire does not carry stays untold: what was not admitted, times, the disk, open locks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use console::reading::{MoneyReading, Reading, ShardReading};
use parking_lot::Mutex;
use serde_json::{Value, json};
use surety_client::{Client, TailBatch};
use surety_protocol::{
    Code, Cursor, Kind, Origin, PartitionRow, Seq, ShardId, StateKind, StateQuery, TenantId,
};
use tokio::task::JoinSet;

use crate::ctl::Target;
use crate::exit::{Exit, Failure};
use crate::remote::{Role, Session};

/// Between two looks at the partitions: a shard puts their rows together for whoever asks.
const MONEY_BEAT: Duration = Duration::from_secs(5);
/// A shard speaks every second, if only to say that nothing happened. One that is silent for so long is not there.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What nobody tells, of a second, of how things stand, and of a shard.
const UNTOLD_OF_SECOND: [&str; 4] = ["refused", "p50_us", "p99_us", "write_p99_us"];
const UNTOLD: [&str; 5] = ["version", "in_flight", "open_locks", "connections", "violations"];
const UNTOLD_OF_SHARD: [&str; 15] = [
    "p99_us",
    "write_p99_us",
    "appended",
    "acked",
    "waiting",
    "snapshot",
    "archived",
    "archive_failures",
    "storage_low",
    "in_flight",
    "open_locks",
    "kept_locks",
    "connections",
    "subscribers",
    "violations",
];

/// An engine that is listened to.
pub(super) struct Wire {
    session: Session,
    heard: Arc<Mutex<Heard>>,
    money: Option<(Instant, BTreeMap<u32, MoneyReading>)>,
    /// They end when this is dropped.
    following: JoinSet<()>,
}

/// What the change streams have said.
struct Heard {
    shards: Vec<HeardShard>,
    /// Why one of them goes no further.
    end: Option<String>,
}

struct HeardShard {
    /// What clients have asked for, by what became of it.
    answers: BTreeMap<(Kind, Code), u64>,
    expired: u64,
    /// The last record that is on the disk.
    synced: u64,
    at: Instant,
}

impl Wire {
    /// Begins to listen.
    ///
    /// # Errors
    /// Nobody answers there, or not to this identity; one that sees a tenant alone.
    pub(super) async fn open(target: &Target) -> Result<Self, Failure> {
        let session = Session::open_by_itself(target, Role::Reader).await?;
        let heard = Arc::new(Mutex::new(Heard { shards: Vec::new(), end: None }));
        // It says good-bye from here on, however far it comes.
        let mut wire = Self { session, heard, money: None, following: JoinSet::new() };
        wire.listen().await?;
        Ok(wire)
    }

    async fn listen(&mut self) -> Result<(), Failure> {
        let client = self.session.client();
        let tenant = client.tenant();
        if tenant != TenantId(0) {
            let message = format!(
                "an engine is of all tenants together: watching it takes an identity of the operator (tenant 0), and this one is of tenant {tenant}"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        let mut shards = Vec::new();
        for shard in 0..self.session.shards() {
            shards.push(HeardShard::new(self.session.hello(ShardId(shard)).await?.synced.0));
        }
        let begins: Vec<u64> = shards.iter().map(|shard| shard.synced + 1).collect();
        self.heard.lock().shards = shards;
        for (shard, from) in (0..self.session.shards()).zip(begins) {
            let heard = Arc::clone(&self.heard);
            self.following.spawn(follow(client.clone(), ShardId(shard), from, heard));
        }
        Ok(())
    }

    /// How things are now.
    ///
    /// # Errors
    /// It is not heard any more.
    pub(super) async fn read(&mut self) -> Result<Reading, Failure> {
        if self.money.as_ref().is_none_or(|(at, _)| at.elapsed() >= MONEY_BEAT) {
            self.money = Some((Instant::now(), money(&self.session).await?));
        }
        let heard = self.heard.lock();
        if let Some(end) = &heard.end {
            return Err(Failure::new(Exit::Unreachable, end));
        }
        if let Some(silent) = heard.shards.iter().position(|shard| shard.at.elapsed() >= SILENCE_MAX) {
            let message = format!("shard {silent} has said nothing for {} s", SILENCE_MAX.as_secs());
            return Err(Failure::new(Exit::Unreachable, message));
        }
        let money = self.money.as_ref().map(|(_, money)| money.clone()).unwrap_or_default();
        let shards = heard.shards.iter().map(HeardShard::reading).collect();
        Ok(Reading { is_ready: true, version: String::new(), shards, money })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.session.client().close();
    }
}

/// Counts what a shard's change stream says, until it ends.
async fn follow(client: Client, shard: ShardId, from: u64, heard: Arc<Mutex<Heard>>) {
    let mut tail = client.tail(shard, Cursor::anew(Seq(from)));
    loop {
        match tail.next_batch().await {
            Ok(batch) => heard.lock().shards[usize::from(shard.0)].count(&batch),
            Err(error) => {
                heard.lock().end = Some(error.to_string());
                return;
            }
        }
    }
}

/// The sums of all partitions, by asset.
async fn money(session: &Session) -> Result<BTreeMap<u32, MoneyReading>, Failure> {
    let mut sums = BTreeMap::<u32, MoneyReading>::new();
    for shard in 0..session.shards() {
        let rows: Vec<PartitionRow> =
            session.rows(StateQuery::new(ShardId(shard), StateKind::Partitions)).await?;
        rows.iter().for_each(|row| add(sums.entry(row.asset.0).or_default(), row));
    }
    Ok(sums)
}

fn add(sums: &mut MoneyReading, row: &PartitionRow) {
    for (state, amount) in [
        ("free", row.free),
        ("held", row.held),
        ("captured", row.captured),
        ("pending", row.pending),
        ("owed", row.owed),
        ("deficit", row.deficit),
        ("exposure", row.exposure),
    ] {
        let sum = sums.states.entry(state.to_owned()).or_default();
        *sum = sum.saturating_add(amount.0);
    }
    *(if row.frozen == 1 { &mut sums.frozen } else { &mut sums.open }) += 1;
    sums.unreconciled += u64::from(row.unreconciled == 1);
}

impl HeardShard {
    fn new(synced: u64) -> Self {
        Self { answers: BTreeMap::new(), expired: 0, synced, at: Instant::now() }
    }

    fn count(&mut self, batch: &TailBatch<'_>) {
        for record in batch.records {
            let (Some(kind), Some(code)) = (record.kind(), record.code()) else { continue };
            self.expired += u64::from(kind == Kind::Expire);
            // What the engine logs by itself nobody has asked for, and a long request is one.
            if !matches!(kind.origin(), Origin::Engine | Origin::Part) {
                *self.answers.entry((kind, code)).or_default() += 1;
            }
        }
        (self.synced, self.at) = (self.synced.max(batch.through.0), Instant::now());
    }

    fn reading(&self) -> ShardReading {
        let answers = self.answers.iter();
        let numbers = [("synced_seq", self.synced), ("expired_locks_total", self.expired)];
        ShardReading {
            numbers: numbers.map(|(name, number)| (name.to_owned(), number)).into(),
            answers: answers
                .map(|((kind, code), count)| ((kind.name().to_owned(), code.name().to_owned()), *count))
                .collect(),
            ..ShardReading::default()
        }
    }
}

/// Takes out of a second and of how things stand what nobody has told: a zero would say that there is none.
pub(super) fn untell(second: &mut Value, standing: &mut Value) {
    let clear = |value: &mut Value, names: &[&str]| {
        if let Value::Object(fields) = value {
            names.iter().for_each(|name| _ = fields.insert((*name).to_owned(), json!(null)));
        }
    };
    clear(second, &UNTOLD_OF_SECOND);
    clear(standing, &UNTOLD);
    if let Some(shards) = standing["shards"].as_array_mut() {
        shards.iter_mut().for_each(|shard| clear(shard, &UNTOLD_OF_SHARD));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use console::overview::Overview;
    use surety_protocol::{Amount, ControlBody, Epoch, Id, PartitionHandle, Record};

    #[test]
    fn what_clients_asked_for_is_counted_by_what_became_of_it() {
        let record = |kind, code: Code| {
            let body = ControlBody::default();
            let record = Record::new(kind, Id(1), PartitionHandle(1), Amount(1), &body);
            Record { code: code as u8, ..record }
        };
        let records = [
            record(Kind::Lock, Code::Approved),
            record(Kind::Lock, Code::Insufficient),
            record(Kind::Expire, Code::Approved),
            record(Kind::Checkpoint, Code::Approved),
        ];
        let mut shard = HeardShard::new(4);
        let batch = TailBatch { first: Seq(5), records: &records, through: Seq(8), epoch: Epoch(1) };
        shard.count(&batch);
        let reading = shard.reading();
        assert_eq!(reading.answers.values().sum::<u64>(), 2, "{reading:?}");
        assert_eq!((reading.number("expired_locks_total"), reading.number("synced_seq")), (1, 8));
    }

    #[test]
    fn what_nobody_told_is_null_and_the_rest_stays() {
        let shard = HeardShard::new(7).reading();
        let reading = Reading { is_ready: true, shards: vec![shard], ..Reading::default() };
        let mut overview = Overview::default();
        overview.take(1000, reading.clone());
        overview.take(2000, reading);
        let (mut second, mut standing) = (json!(overview.newest()), json!(overview.standing()));
        let before = (second.clone(), standing.clone());
        untell(&mut second, &mut standing);
        for (names, value, before) in [
            (&UNTOLD_OF_SECOND[..], &second, &before.0),
            (&UNTOLD[..], &standing, &before.1),
            (&UNTOLD_OF_SHARD[..], &standing["shards"][0], &before.1["shards"][0]),
        ] {
            for name in names {
                assert!(before.get(name).is_some() && value[name].is_null(), "{name}");
            }
        }
        assert_eq!((&second["done"], &standing["shards"][0]["synced"]), (&json!(0), &json!(7)));
    }
}
