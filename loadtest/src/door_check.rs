//! The money check of a run at a front door. The door names no place in the log, so each answer is looked for by the id of its request: its
//! record must be there once, in kind, lock, partition and amount as it was asked for, in code and amount as it was told. No record may be
//! there that nobody has asked for, nor more of them without an answer than outcomes are unknown; merchant, flags and capture are not
//! compared.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use iso8583::Dialect;
use iso8583::payment::edge_code;
use surety_client::Client;
use surety_client::transport::OpenError;
use surety_protocol::{
    Amount, ChangeBody, Code, CodeClass, Cursor, Flags, Id, Kind, Origin, PartitionHandle, Record, Reply,
    Seq, ShardId,
};

use crate::money::{self, MoneyCheck};
use crate::recorder::Kept;
use crate::step::WHOLE_BPS;

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

/// A request to a front door, as far as its record is held against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Its id in the engine.
    pub(crate) id: Id,
    pub(crate) kind: Kind,
    pub(crate) lock: Id,
    pub(crate) partition: PartitionHandle,
    /// What it names, in steps of [`Measure`]; 0 where its kind names none, as in its record.
    pub(crate) amount: Amount,
    /// False for one that only prepares another, which alone is answered: it moves nothing.
    pub(crate) is_answered: bool,
}

/// How what is asked and told at the door is held against the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// What 1 of an amount that was asked for or told holds of base units.
    pub(crate) step: u128,
    /// What a lock may take beside its amount, in basis points of it.
    pub(crate) headroom_bps: u32,
    /// The edition of ISO 8583 whose codes are told; none if the engine's own are.
    pub(crate) edition: Option<Dialect>,
}

/// Compares what the door has told with look-ups and with the durable change stream behind these marks; so many outcomes are
/// `unknown`.
pub(crate) async fn check(
    client: &Client,
    kept: Kept,
    begin: &Marks,
    measure: Measure,
    unknown: u64,
    contradictions: u64,
) -> MoneyCheck {
    let mut answers = Answers::new(&kept.asked, &kept.replies, measure);
    let (looked_up, left_out, lookups) = money::look_up_all(client, kept.sightings, measure.step).await;
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
        let mut tail = client.tail(shard, Cursor::anew(Seq(from.0 + 1)));
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
    asked: HashMap<Id, Asked>,
    locks: HashSet<Id>,
    told: HashMap<Id, Reply>,
    seen: HashSet<Id>,
    measure: Measure,
    /// What of each lock's last advice nothing has covered, in base units.
    exposed: HashMap<Id, u128>,
    found: u64,
    /// Recorded without an answer.
    unanswered: u64,
    faults: u64,
    words: String,
}

impl Answers {
    fn new(asked: &[Asked], replies: &[Reply], measure: Measure) -> Self {
        let mut answers = Self {
            asked: asked.iter().map(|asked| (asked.id, *asked)).collect(),
            locks: asked.iter().map(|asked| asked.lock).collect(),
            told: HashMap::new(),
            seen: HashSet::new(),
            measure,
            exposed: HashMap::new(),
            found: 0,
            unanswered: 0,
            faults: 0,
            words: String::new(),
        };
        for reply in replies {
            let first = *answers.told.entry(reply.id).or_insert(*reply);
            if (first.code, first.approved) != (reply.code, reply.approved) {
                answers.fault(reply.id, "answered twice, and not the same");
            }
        }
        answers
    }

    fn fault(&mut self, id: Id, what: &str) {
        self.faults += 1;
        if self.faults <= TOLD_MAX {
            let _ = write!(self.words, "{}{id}: {what}", if self.words.is_empty() { "" } else { "; " });
        }
    }

    fn on_record(&mut self, record: &Record) {
        let Some(kind) = record.kind().filter(is_ours_to_ask) else { return };
        let Some(asked) = self.asked.get(&record.id).copied() else {
            if self.locks.contains(&lock_of(kind, record)) {
                self.fault(
                    record.id,
                    &format!("a {kind} of one of our locks that nobody here has asked for"),
                );
            }
            return;
        };
        if !self.seen.insert(record.id) {
            return self.fault(record.id, "recorded twice");
        }
        if let Some(field) = self.measure.unlike(kind, record, &asked) {
            return self.fault(record.id, &format!("the record differs from the request in {field}"));
        }
        if !asked.is_answered {
            if record.result != Amount::ZERO {
                self.fault(record.id, "moved something, and is only there to prepare");
            }
            return;
        }
        let exposed = self.expose(kind, record, asked.lock);
        let told = self.told.get(&record.id);
        match told.map(|reply| self.measure.difference(kind, record, reply, exposed)) {
            None => self.unanswered += 1,
            Some(None) => self.found += 1,
            Some(Some(field)) => self.fault(record.id, &format!("the record differs in {field}")),
        }
    }

    /// What of a lock's last advice nothing has covered: it is exposure, and neither captured nor given back.
    fn expose(&mut self, kind: Kind, record: &Record, lock: Id) -> u128 {
        if kind == Kind::Advice && record.flags().has(Flags::EXPOSED) {
            self.exposed.insert(lock, record.amount.0.saturating_sub(record.result.0));
        }
        self.exposed.get(&lock).copied().unwrap_or(0)
    }

    /// Once all records have come.
    fn judge(&mut self, unknown: u64) -> String {
        // An edition tells a decline and a refusal by the same code: neither has moved anything.
        let is_recorded = |reply: &Reply| match self.measure.edition {
            None => reply.code().class() != CodeClass::Admission,
            Some(_) => reply.code().is_success(),
        };
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

impl Measure {
    /// The first thing in which a record is not that of its request.
    fn unlike(self, kind: Kind, record: &Record, asked: &Asked) -> Option<&'static str> {
        let is_same = [
            ("kind", kind == asked.kind),
            ("lock", lock_of(kind, record) == asked.lock),
            ("partition", record.partition == asked.partition),
            ("amount", record.amount.0 == asked.amount.0 * self.step),
        ];
        is_same.into_iter().find(|(_, is_same)| !is_same).map(|(field, _)| field)
    }

    /// The first thing in which an answer and its record differ. So much of what was captured last is `exposed`.
    fn difference(self, kind: Kind, record: &Record, reply: &Reply, exposed: u128) -> Option<&'static str> {
        if record.kind != reply.kind {
            return Some("kind");
        }
        if !self.is_told_so(record, reply) {
            return Some("code");
        }
        let told = reply.approved.0 * self.step;
        let headroom = told * u128::from(self.headroom_bps) / u128::from(WHOLE_BPS);
        let (least, beyond) = match kind {
            // What was granted is told, and what was taken holds headroom beside it: all of it, or as much as there was.
            Kind::Lock => (told, headroom),
            // A link repeats what was locked, and the headroom goes with it.
            Kind::Release if self.edition.is_some() => (told, headroom),
            // The headroom goes with the rest of the lock, and may end below the smallest amount that is told.
            Kind::Release if self.headroom_bps > 0 => (told, self.step - 1),
            Kind::Advice | Kind::Reverse if self.edition.is_some() => (told.saturating_sub(exposed), 0),
            _ => (told, 0),
        };
        let is_told = (least..=least + beyond).contains(&record.result.0);
        (!is_told).then_some("amount")
    }

    /// Whether a record's code is told by that of its answer.
    fn is_told_so(self, record: &Record, reply: &Reply) -> bool {
        let Some(edition) = self.edition else { return record.code == reply.code };
        let told = edge_code(reply.code());
        let recorded = Code::from_byte(record.code).map(edge_code);
        recorded.is_some_and(|recorded| recorded.field_39(edition) == told.field_39(edition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::LockBody;

    const STEP: u128 = 100;
    const HEADROOM_BPS: u32 = 1500;

    fn lock(id: u128, amount: u128, code: Code) -> Record {
        let mut record =
            Record::new(Kind::Lock, Id(id), PartitionHandle(1), Amount(amount * STEP), &LockBody::default());
        let taken = if code.is_success() { amount * STEP } else { 0 };
        (record.result, record.code) = (Amount(taken), code as u8);
        record
    }

    fn change(kind: Kind, id: u128, of: u128, amount: u128, moved: u128) -> Record {
        let body = ChangeBody { lock: Id(of), ..ChangeBody::default() };
        let mut record = Record::new(kind, Id(id), PartitionHandle(1), Amount(amount * STEP), &body);
        (record.result, record.code) = (Amount(moved * STEP), Code::Approved as u8);
        record
    }

    fn capture(id: u128, of: u128, amount: u128) -> Record {
        change(Kind::Capture, id, of, amount, amount)
    }

    fn told(id: u128, kind: Kind, amount: u128, code: Code) -> Reply {
        let (kind, code) = (kind as u8, code as u8);
        Reply { id: Id(id), approved: Amount(amount), kind, code, ..Reply::default() }
    }

    fn asked(id: u128, kind: Kind, lock: u128, amount: u128) -> Asked {
        let (id, lock, amount) = (Id(id), Id(lock), Amount(amount));
        Asked { id, kind, lock, partition: PartitionHandle(1), amount, is_answered: true }
    }

    fn measure(headroom_bps: u32, edition: Option<Dialect>) -> Measure {
        Measure { step: STEP, headroom_bps, edition }
    }

    /// Payments: one locked, raised, captured and released, one declined, one without an answer; what the log says of them.
    fn check_with(log: &[Record], doubles: &[Reply], unknown: u64, measure: Measure) -> String {
        let asked = [
            asked(1, Kind::Lock, 1, 10),
            asked(2, Kind::Capture, 1, 4),
            asked(3, Kind::Lock, 3, 5),
            asked(4, Kind::Lock, 4, 1),
            asked(5, Kind::Increase, 1, 12),
            asked(6, Kind::Release, 1, 0),
            Asked { is_answered: false, ..asked(7, Kind::Release, 1, 0) },
        ];
        let replies = [
            told(1, Kind::Lock, 10, Code::Approved),
            told(2, Kind::Capture, 4, Code::Approved),
            told(3, Kind::Lock, 0, Code::Insufficient),
            told(5, Kind::Increase, 2, Code::Approved),
            told(6, Kind::Release, 8, Code::Approved),
        ];
        let mut answers = Answers::new(&asked, &[&replies[..], doubles].concat(), measure);
        log.iter().for_each(|record| answers.on_record(record));
        answers.judge(unknown)
    }

    fn check(log: &[Record], unknown: u64) -> String {
        check_with(log, &[], unknown, measure(0, None))
    }

    fn sound() -> [Record; 5] {
        [
            lock(1, 10, Code::Approved),
            capture(2, 1, 4),
            lock(3, 5, Code::Insufficient),
            change(Kind::Increase, 5, 1, 12, 2),
            change(Kind::Release, 6, 1, 0, 8),
        ]
    }

    #[test]
    fn each_answer_has_its_record_once_and_each_record_an_answer() {
        let sound = sound();
        let with = |more: Record| [&sound[..], &[more]].concat();
        assert_eq!(check(&sound, 0), "ok");
        assert_eq!(check(&with(lock(9, 1, Code::Approved)), 0), "ok", "somebody else's");
        assert!(check(&sound[1..], 0).contains("not in the log"));
        assert!(check(&with(capture(2, 1, 4)), 0).contains("recorded twice"));
        assert!(check(&with(capture(8, 1, 4)), 0).contains("nobody here has asked"));
        assert!(check(&with(lock(4, 1, Code::Approved)), 0).contains("1 in the log without an answer"));
        assert_eq!(check(&with(lock(4, 1, Code::Approved)), 1), "ok", "its outcome is unknown");
        assert!(check(&with(lock(4, 2, Code::Approved)), 1).contains("from the request in amount"));
        let prepares = |moved: u128| change(Kind::Release, 7, 1, 0, moved);
        assert_eq!(check(&with(prepares(0)), 0), "ok", "it needs no answer");
        assert!(check(&with(prepares(1)), 0).contains("only there to prepare"));
        assert_eq!(Answers::new(&[], &[], measure(0, None)).judge(0), "no answer to look for");
    }

    #[test]
    fn a_record_is_that_of_its_request_and_of_its_answer() {
        let differs = |at: usize, record: Record, expect: &str| {
            let mut log = sound();
            log[at] = record;
            let found = check(&log, 0);
            assert!(found.contains(expect), "{expect}: {found}");
        };
        let [lock_1, captured, _, raised, released] = sound();
        differs(0, lock(1, 11, Code::Approved), "request in amount");
        differs(0, Record { amount: Amount(10 * STEP + 1), ..lock_1 }, "request in amount");
        differs(0, Record { partition: PartitionHandle(2), ..lock_1 }, "request in partition");
        differs(1, capture(2, 3, 4), "request in lock");
        differs(1, change(Kind::Refund, 2, 1, 4, 4), "request in kind");
        differs(3, change(Kind::Increase, 5, 1, 13, 2), "request in amount");
        // What was taken, to the last base unit.
        for taken in [10 * STEP - 1, 10 * STEP + 1, 11 * STEP, 0] {
            differs(0, Record { result: Amount(taken), ..lock_1 }, "differs in amount");
        }
        differs(1, Record { result: Amount(4 * STEP + 7), ..captured }, "differs in amount");
        differs(2, Record { result: Amount(1), ..lock(3, 5, Code::Insufficient) }, "differs in amount");
        differs(2, lock(3, 5, Code::Approved), "differs in code");
        differs(3, Record { result: Amount(3 * STEP), ..raised }, "differs in amount");
        differs(4, Record { result: Amount(8 * STEP + 1), ..released }, "differs in amount");
    }

    #[test]
    fn a_lock_takes_no_more_headroom_than_it_may() {
        let check = |taken: u128| {
            let mut log = sound();
            log[0].result = Amount(taken);
            check_with(&log, &[], 0, measure(HEADROOM_BPS, None))
        };
        for taken in [10 * STEP, 10 * STEP + 149, 10 * STEP + 150] {
            assert_eq!(check(taken), "ok");
        }
        for taken in [10 * STEP - 1, 10 * STEP + 151] {
            assert!(check(taken).contains("differs in amount"));
        }
    }

    #[test]
    fn what_is_sent_twice_is_answered_once() {
        let check = |doubles: &[Reply]| check_with(&sound(), doubles, 0, measure(0, None));
        assert_eq!(check(&[told(1, Kind::Lock, 10, Code::Approved)]), "ok");
        for other in [told(1, Kind::Lock, 9, Code::Approved), told(1, Kind::Lock, 0, Code::Insufficient)] {
            assert!(check(&[other]).contains("not the same"));
        }
    }

    #[test]
    fn codes_of_an_edition_are_told_for_several_of_the_engines() {
        let check_of = |log: &[Record]| check_with(log, &[], 0, measure(0, Some(Dialect::V1987)));
        let with_third = |record: Record| {
            let mut log = sound();
            log[2] = record;
            log
        };
        let ratio = with_third(lock(3, 5, Code::Ratio));
        assert!(check(&ratio, 0).contains("differs in code"));
        assert_eq!(check_of(&ratio), "ok", "both are told as 51");
        assert!(check_of(&with_third(lock(3, 5, Code::Approved))).contains("differs in code"));
        let [first, second, _, fourth, fifth] = sound();
        assert_eq!(check_of(&[first, second, fourth, fifth]), "ok", "what was not done need not be there");
        assert!(check_of(&[second, ratio[2], fourth, fifth]).contains("not in the log"));
    }

    #[test]
    fn over_a_link_what_nothing_covers_is_exposed_and_headroom_goes_with_the_lock() {
        let of_link = measure(HEADROOM_BPS, Some(Dialect::V1993));
        let asked =
            [asked(1, Kind::Lock, 1, 10), asked(2, Kind::Advice, 1, 12), asked(3, Kind::Reverse, 1, 0)];
        let replies = [
            told(1, Kind::Lock, 10, Code::Approved),
            told(2, Kind::Advice, 12, Code::Approved),
            told(3, Kind::Reverse, 12, Code::Approved),
        ];
        let check = |captured: u128, flags: Flags, taken_back: u128| {
            let base = |mut record: Record, result: u128| {
                record.result = Amount(result);
                record
            };
            let advice = base(change(Kind::Advice, 2, 1, 12, 0).with_flags(flags), captured);
            let reverse = base(change(Kind::Reverse, 3, 1, 0, 0), taken_back);
            let mut answers = Answers::new(&asked, &replies, of_link);
            let log = [base(lock(1, 10, Code::Approved), 1150), advice, reverse];
            log.iter().for_each(|record| answers.on_record(record));
            answers.judge(0)
        };
        assert_eq!(check(1200, Flags(0), 1200), "ok");
        assert_eq!(check(1150, Flags::EXPOSED, 1150), "ok");
        for (captured, flags, taken_back) in [
            (1150, Flags(0), 1150),
            (1201, Flags(0), 1200),
            (1200, Flags(0), 1150),
            (1150, Flags::EXPOSED, 1200),
        ] {
            assert!(
                check(captured, flags, taken_back).contains("differs in amount"),
                "{captured} {taken_back}"
            );
        }
        let released = |moved: u128| {
            let record = Record { result: Amount(moved), ..change(Kind::Release, 6, 1, 0, 0) };
            of_link.difference(Kind::Release, &record, &told(6, Kind::Release, 10, Code::Approved), 0)
        };
        assert_eq!((released(1000), released(1150)), (None, None));
        assert_eq!((released(999), released(1151)), (Some("amount"), Some("amount")));
    }
}
