//! What a message leaves in the log: the requests of the work for it, under the ids that it makes of them.
//!
//! The work is the link's own (`iso8583::payment::Work`), done once more here against what the payment has come to by its answers. So the
//! money check looks for what the message has to have done, under ids that nobody has told.

use iso8583::payment::{Intent, Place, Rules, Step, Work};
use surety_protocol::{ChangeBody, Code, End, Id, Kind, PartitionHandle, Record, Reply};

use surety_protocol::Amount;

/// Requests that one message can take here: a reversal looks for its original in a dozen places.
const STEPS_MAX: usize = 64;

/// What a payment has come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) partition: PartitionHandle,
    pub(super) lock: Id,
    pub(super) end: End,
    /// What was locked, in base units.
    pub(super) total: Amount,
    /// The advice that has captured, of what was completed.
    pub(super) completion: Option<Id>,
}

/// What is to be found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    /// What only prepares the change: it moves nothing.
    pub(super) before: Vec<Record>,
    /// What the message is answered with.
    pub(super) change: Option<Record>,
}

/// What the work for a message leaves, if all of it goes well. `facts` are none for what makes the lock.
pub(super) fn trail(intent: &Intent, rules: &Rules, facts: Option<&Facts>) -> Trail {
    let known = facts.map(|facts| Place { partition: facts.partition, lock: facts.lock });
    let (mut work, mut step) = Work::begin(intent, rules, known);
    let mut records = Vec::new();
    for _ in 0..STEPS_MAX {
        let Step::Send(record) = step else { break };
        if record.kind() != Some(Kind::Lookup) {
            records.push(record);
        }
        step = work.on_reply(&answer(&record, facts));
    }
    let change = records.pop();
    Trail { before: records, change }
}

/// What the engine says, as far as the next request depends on it.
fn answer(record: &Record, facts: Option<&Facts>) -> Reply {
    let done = Reply { code: Code::Approved as u8, approved: record.amount, ..Reply::default() };
    let Some(facts) = facts else { return done };
    let told = Reply { end: facts.end as u8, ..done };
    let capture_count = u16::from(facts.end != End::Live);
    match record.kind() {
        Some(Kind::Lookup) => match record.body::<ChangeBody>().lock {
            id if id == facts.lock => Reply { approved: facts.total, capture: capture_count, ..told },
            id if Some(id) == facts.completion => {
                Reply { approved: facts.total, remaining: Amount(facts.lock.0), capture: 0, ..told }
            }
            _ => Reply { code: Code::NotFound as u8, ..Reply::default() },
        },
        Some(Kind::Release) if facts.end == End::Live => {
            Reply { approved: facts.total, end: End::Released as u8, ..done }
        }
        Some(Kind::Release) => Reply { approved: Amount::ZERO, ..told },
        _ => told,
    }
}
