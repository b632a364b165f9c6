//! The money check of a run at a REST front door. The door names no place in the log, so each answer is looked for by the id of
//! its request: its record must be there once, as it was told, and no record may be there that no answer explains.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use surety_client::Client;
use surety_client::transport::OpenError;
use surety_protocol::{Amount, ChangeBody, Code, CodeClass, Id, Kind, Origin, Record, Reply, Seq, ShardId};

use crate::money::{self, MoneyCheck};
use crate::recorder::Kept;

/// How long the log may take to show what was acknowledged.
const LOG_PATIENCE: Duration = Duration::from_secs(30);
/// Faults that are told; the others are counted.
const TOLD_MAX: u64 = 3;

/// Where the log of each shard ends.
pub(crate) struct Marks(Vec<Seq>);

impl Marks {
    /// By now.
    pub(crate) async fn of(client: &Client) -> Result<Self, OpenError> {
        let mut marks = Vec::new();
        for shard in (0..client.shards()).map(ShardId) {
            marks.push(client.packed(shard).await?.hello().acked);
        }
        Ok(Self(marks))
    }
}

/// Compares what the door has told with look-ups and with the durable change stream behind these marks. `step` is what the smallest
/// amount that is told holds of base units; so many outcomes are `unknown`.
pub(crate) async fn check(
    client: &Client,
    kept: Kept,
    begin: &Marks,
    step: u128,
    unknown: u64,
    contradictions: u64,
) -> MoneyCheck {
    let mut answers = Answers::new(&kept.asked, &kept.replies, step);
    let (looked_up, left_out, lookups) = money::look_up_all(client, kept.sightings, step).await;
    let log = match read(client, begin, &mut answers).await {
        Ok(()) => answers.judge(unknown),
        Err(reason) => reason,
    };
    let replies = money::say_contradictions(contradictions);
    MoneyCheck { replies, lookups, log, looked_up, left_out, recorded: answers.found }
}

async fn read(client: &Client, begin: &Marks, answers: &mut Answers) -> Result<(), String> {
    let end = Marks::of(client).await.map_err(|error| error.to_string())?;
    for ((shard, from), until) in (0..).map(ShardId).zip(&begin.0).zip(&end.0) {
        let mut tail = client.tail(shard, Seq(from.0 + 1));
        let mut through = *from;
        while through < *until {
            let batch = tokio::time::timeout(LOG_PATIENCE, tail.next_batch()).await;
            let batch = batch.map_err(|_| format!("shard {shard}: the log does not reach seq {until}"))?;
            let batch = batch.map_err(|error| error.to_string())?;
            batch.records.iter().for_each(|record| answers.on_record(record));
            through = batch.through;
        }
    }
    Ok(())
}

/// What was asked and answered, against the records as they come.
struct Answers {
    asked: HashSet<Id>,
    locks: HashSet<Id>,
    told: HashMap<Id, Reply>,
    seen: HashSet<Id>,
    step: u128,
    found: u64,
    /// Recorded without an answer.
    unanswered: u64,
    faults: u64,
    words: String,
}

impl Answers {
    fn new(asked: &[(Id, Id)], replies: &[Reply], step: u128) -> Self {
        Self {
            asked: asked.iter().map(|(id, _)| *id).collect(),
            locks: asked.iter().map(|(_, lock)| *lock).collect(),
            told: replies.iter().rev().map(|reply| (reply.id, *reply)).collect(),
            seen: HashSet::new(),
            step,
            found: 0,
            unanswered: 0,
            faults: 0,
            words: String::new(),
        }
    }

    fn fault(&mut self, id: Id, what: &str) {
        self.faults += 1;
        if self.faults <= TOLD_MAX {
            let _ = write!(self.words, "{}{id}: {what}", if self.words.is_empty() { "" } else { "; " });
        }
    }

    fn on_record(&mut self, record: &Record) {
        let Some(kind) = record.kind().filter(is_ours_to_ask) else { return };
        if !self.asked.contains(&record.id) {
            if self.locks.contains(&lock_of(kind, record)) {
                self.fault(
                    record.id,
                    &format!("a {kind} of one of our locks that nobody here has asked for"),
                );
            }
            return;
        }
        if !self.seen.insert(record.id) {
            return self.fault(record.id, "recorded twice");
        }
        match self.told.get(&record.id).map(|reply| difference(kind, record, reply, self.step)) {
            None => self.unanswered += 1,
            Some(None) => self.found += 1,
            Some(Some(field)) => self.fault(record.id, &format!("the record differs in {field}")),
        }
    }

    /// Once all records have come.
    fn judge(&mut self, unknown: u64) -> String {
        let is_recorded = |reply: &Reply| reply.code().class() != CodeClass::Admission;
        let mut missing: Vec<Id> = self
            .told
            .values()
            .filter(|reply| is_recorded(reply) && !self.seen.contains(&reply.id))
            .map(|reply| reply.id)
            .collect();
        missing.sort_unstable();
        missing.into_iter().for_each(|id| self.fault(id, "answered, and not in the log"));
        if self.unanswered > unknown {
            let more = self.unanswered - unknown;
            self.faults += more;
            let _ = write!(self.words, "; {more} in the log without an answer");
        }
        match (self.faults, self.told.is_empty()) {
            (0, false) => "ok".to_owned(),
            (0, true) => "no answer to look for".to_owned(),
            (faults, _) => format!("{faults} faults: {}", self.words.trim_start_matches("; ")),
        }
    }
}

/// True for what a payment asks for; the rest is of the engine, the operator or a look-up.
fn is_ours_to_ask(kind: &Kind) -> bool {
    matches!(kind.origin(), Origin::Authorizer | Origin::Settler)
}

/// The lock that a record is about.
fn lock_of(kind: Kind, record: &Record) -> Id {
    if kind == Kind::Lock { record.id } else { record.body::<ChangeBody>().lock }
}

/// The first thing in which an answer and its record differ. Amounts are told down to `step`.
fn difference(kind: Kind, record: &Record, reply: &Reply, step: u128) -> Option<&'static str> {
    if record.kind != reply.kind {
        return Some("kind");
    }
    if record.code != reply.code {
        return Some("code");
    }
    let told = |amount: Amount| amount.0 / step;
    let moved = match (kind, reply.code()) {
        // What was granted is what was asked for; its record holds headroom beside it.
        (Kind::Lock, Code::Approved) => told(record.amount),
        (Kind::Capture | Kind::Release | Kind::Settle | Kind::Refund, _) => told(record.result),
        _ => return None,
    };
    (moved != reply.approved.0).then_some("amount")
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{LockBody, PartitionHandle};

    const STEP: u128 = 100;

    fn lock(id: u128, amount: u128, code: Code) -> Record {
        let mut record =
            Record::new(Kind::Lock, Id(id), PartitionHandle(1), Amount(amount * STEP), &LockBody::default());
        record.code = code as u8;
        record
    }

    fn capture(id: u128, of: u128, amount: u128) -> Record {
        let body = ChangeBody { lock: Id(of), ..ChangeBody::default() };
        let mut record = Record::new(Kind::Capture, Id(id), PartitionHandle(1), Amount(amount * STEP), &body);
        (record.result, record.code) = (Amount(amount * STEP + 7), Code::Approved as u8);
        record
    }

    fn told(id: u128, kind: Kind, amount: u128, code: Code) -> Reply {
        let (kind, code) = (kind as u8, code as u8);
        Reply { id: Id(id), approved: Amount(amount), kind, code, ..Reply::default() }
    }

    /// Two payments: one locked and captured, one declined; what the log says of them.
    fn check(log: &[Record], unknown: u64) -> String {
        let asked = [(Id(1), Id(1)), (Id(2), Id(1)), (Id(3), Id(3)), (Id(4), Id(4))];
        let replies = [
            told(1, Kind::Lock, 10, Code::Approved),
            told(2, Kind::Capture, 4, Code::Approved),
            told(3, Kind::Lock, 0, Code::Insufficient),
        ];
        let mut answers = Answers::new(&asked, &replies, STEP);
        log.iter().for_each(|record| answers.on_record(record));
        answers.judge(unknown)
    }

    #[test]
    fn each_answer_has_its_record_once_and_each_record_an_answer() {
        let sound = [lock(1, 10, Code::Approved), capture(2, 1, 4), lock(3, 5, Code::Insufficient)];
        let with = |more: Record| [&sound[..], &[more]].concat();
        assert_eq!(check(&sound, 0), "ok");
        assert_eq!(check(&with(lock(9, 1, Code::Approved)), 0), "ok", "somebody else's");
        assert!(check(&sound[1..], 0).contains("not in the log"));
        assert!(check(&with(capture(2, 1, 4)), 0).contains("recorded twice"));
        assert!(check(&with(capture(8, 1, 4)), 0).contains("nobody here has asked"));
        assert!(check(&with(lock(4, 1, Code::Approved)), 0).contains("1 in the log without an answer"));
        assert_eq!(check(&with(lock(4, 1, Code::Approved)), 1), "ok", "its outcome is unknown");
        let differs = |at: usize, record: Record, expect: &str| {
            let mut log = sound;
            log[at] = record;
            assert!(check(&log, 0).contains(expect), "{expect}");
        };
        differs(0, lock(1, 11, Code::Approved), "differs in amount");
        differs(1, capture(2, 1, 5), "differs in amount");
        differs(2, lock(3, 5, Code::Approved), "differs in code");
        differs(2, capture(3, 1, 5), "differs in kind");
        assert_eq!(Answers::new(&[], &[], STEP).judge(0), "no answer to look for");
    }
}
