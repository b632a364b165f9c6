//! What the door says, as the reply of the engine that it tells of.

use serde::Deserialize;
use surety_protocol::{ALL_CAPTURES, Amount, Code, CodeClass, End, REPLAYED, Reply};

use super::asset::Asset;
use crate::door_check::Asked;
use crate::door_request::Meaning;

/// A request, as far as its answer is held against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) asked: Asked,
    /// What it moves once approved, in the smallest that the door tells; none where that is for the lock's course to say.
    pub(super) moves: Option<Amount>,
}

/// What came over HTTP.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) is_replayed: bool,
    pub(super) body: Vec<u8>,
}

/// A lock or a change of one: the fields that are looked at.
#[derive(Deserialize)]
struct Document {
    /// Of a lock.
    id: Option<Id36>,
    /// Of a change.
    lock: Option<Id36>,
    partition: String,
    status: String,
    decline_code: Option<String>,
    state: String,
    amount: String,
    remaining: String,
    version: u16,
    capture: Option<u16>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

/// An id in its form with hyphens.
type Id36 = String;

/// Reads an answer.
pub(super) fn read(heard: &Heard, question: &Question, asset: &Asset) -> Meaning {
    match heard.status {
        200 | 202 => decided(heard, question, asset).unwrap_or(Meaning::Nonsense),
        504 => Meaning::Unknown,
        _ => match serde_json::from_slice::<Problem>(&heard.body) {
            Ok(problem) => of_problem(&problem, heard.is_replayed, question),
            Err(_) => Meaning::Nonsense,
        },
    }
}

fn decided(heard: &Heard, question: &Question, asset: &Asset) -> Option<Meaning> {
    let Question { asked, moves } = question;
    let document: Document = serde_json::from_slice(&heard.body).ok()?;
    let code = match (document.status.as_str(), &document.decline_code) {
        ("approved", None) => Code::Approved,
        ("partial", None) => Code::Partial,
        ("queued", None) => Code::Queued,
        ("declined", Some(name)) => named(name)?,
        _ => return None,
    };
    let approved = asset.read(&document.amount)?;
    let reply = Reply {
        id: asked.id,
        kind: asked.kind as u8,
        code: code as u8,
        approved,
        remaining: asset.read(&document.remaining)?,
        version: document.version,
        end: end_named(&document.state)? as u8,
        capture: document.capture.unwrap_or(ALL_CAPTURES),
        shard: asked.partition.shard(),
        flags: if heard.is_replayed { REPLAYED } else { 0 },
        ..Reply::default()
    };
    let lock = document.id.or(document.lock)?;
    let amount_fits = match code {
        Code::Approved => moves.is_none_or(|amount| approved == amount),
        // No request here says that a part of it would do.
        Code::Partial => false,
        code => code.is_success() || approved == Amount::ZERO,
    };
    let is_sound =
        lock == asked.lock.to_string() && document.partition == asked.partition.to_string() && amount_fits;
    Some(Meaning::Decided(Box::new(reply), is_sound))
}

fn of_problem(problem: &Problem, is_replayed: bool, question: &Question) -> Meaning {
    match named(&problem.code).filter(|code| code.class() == CodeClass::Decline) {
        // A decline that is no answer of its own at the door is recorded all the same.
        Some(code) => {
            let flags = if is_replayed { REPLAYED } else { 0 };
            let Asked { id, kind, partition, .. } = question.asked;
            let reply = Reply {
                id,
                kind: kind as u8,
                shard: partition.shard(),
                code: code as u8,
                flags,
                ..Reply::default()
            };
            Meaning::Decided(Box::new(reply), true)
        }
        None => Meaning::Refused(problem.code.clone()),
    }
}

fn named(name: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.name() == name)
}

fn end_named(name: &str) -> Option<End> {
    (0..=u8::MAX).filter_map(End::from_byte).find(|end| end.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use surety_protocol::{Id, Kind, PartitionHandle, ShardId, Time};

    fn asked() -> Asked {
        let id = Id::from_parts(Time::from_secs(1_700_000_000), 42);
        let partition = PartitionHandle::new(ShardId(1), 7);
        Asked { id, kind: Kind::Lock, lock: id, partition, amount: Amount(2500), is_answered: true }
    }

    fn check(status: u16, body: &serde_json::Value) -> Meaning {
        let heard = Heard { status, is_replayed: false, body: body.to_string().into_bytes() };
        let question = Question { asked: asked(), moves: Some(Amount(2500)) };
        read(&heard, &question, &"AMP:18:2".parse().unwrap())
    }

    fn lock() -> serde_json::Value {
        json!({
            "id": asked().id.to_string(), "partition": "1:7", "status": "approved", "state": "live", "asset": "AMP",
            "amount": "25.00", "remaining": "25.00", "version": 1, "merchant": 501,
        })
    }

    #[test]
    fn answers_are_read_and_held_against_their_request() {
        let Meaning::Decided(reply, true) = check(200, &lock()) else { panic!() };
        assert_eq!((reply.code(), reply.approved, reply.version), (Code::Approved, Amount(2500), 1));
        assert_eq!((reply.end(), reply.shard, reply.id), (End::Live, ShardId(1), asked().id));
        let differs = |field: &str, value: serde_json::Value| {
            let mut lock = lock();
            lock[field] = value;
            check(200, &lock)
        };
        for (field, value) in [
            ("amount", json!("24.99")),
            ("partition", json!("0:7")),
            ("id", json!(asked().id.lasting().to_string())),
            ("status", json!("partial")),
        ] {
            assert!(matches!(differs(field, value), Meaning::Decided(_, false)), "{field}");
        }
        let mut part = lock();
        (part["status"], part["amount"]) = (json!("partial"), json!("24.99"));
        assert!(matches!(check(200, &part), Meaning::Decided(_, false)), "nobody has asked for a part");
        for (field, value) in [
            ("amount", json!("24.999")),
            ("state", json!("odd")),
            ("status", json!("odd")),
            ("version", json!("1")),
            ("decline_code", json!("INSUFFICIENT")),
        ] {
            assert_eq!(differs(field, value), Meaning::Nonsense, "{field}");
        }
    }

    #[test]
    fn declines_are_answers_and_problems_are_not() {
        let mut declined = lock();
        declined["status"] = json!("declined");
        declined["decline_code"] = json!("INSUFFICIENT");
        declined["amount"] = json!("0.00");
        let Meaning::Decided(reply, true) = check(200, &declined) else { panic!() };
        assert_eq!(reply.code(), Code::Insufficient);
        let Meaning::Decided(reply, true) = check(422, &json!({"code": "NOT_OPEN"})) else { panic!() };
        assert_eq!(reply.code(), Code::NotOpen);
        assert_eq!(check(429, &json!({"code": "OVERLOADED"})), Meaning::Refused("OVERLOADED".into()));
        assert_eq!(check(429, &json!({"code": "RATE"})), Meaning::Refused("RATE".into()));
        assert_eq!(check(504, &json!({"code": "UNKNOWN_OUTCOME"})), Meaning::Unknown);
        assert_eq!(check(500, &json!("odd")), Meaning::Nonsense);
    }
}
