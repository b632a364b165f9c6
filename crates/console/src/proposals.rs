//! A policy is changed by two people: one proposes it, another one approves it. Proposals live in memory: whoever restarts the engine has to ask
//! again. How an approval is sent and what becomes of it is in `approvals`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use server::identity::Person;
use surety_protocol::{ActorId, AssetId, Id, Kind, PartitionHandle, PartitionRow, Policy, Seq, TenantId};
use tokio::sync::OwnedMutexGuard;

use crate::actions::read;
use crate::guard::{acting, signed_in};
use crate::live::now_ms;
use crate::reads::{find, is_operator};
use crate::refusal::Refusal;
use crate::rows::partition;
use crate::sessions::{Member, Session};
use crate::start::{Desk, json_answer};

/// A proposal that nobody approves within this is forgotten.
const LIFE: Duration = Duration::from_secs(3600);
/// Proposals at a time.
const PROPOSALS_MAX: usize = 100;
/// Characters of a reason.
const REASON_MAX: usize = 200;

type Answer = Result<Response, Refusal>;

/// The proposals that there are.
#[derive(Default)]
pub(crate) struct Proposals {
    all: BTreeMap<u64, Proposal>,
    last: u64,
    /// Whose turn it is to have a partition's policy changed.
    turns: BTreeMap<PartitionHandle, Arc<tokio::sync::Mutex<()>>>,
}

#[derive(Clone)]
pub(crate) struct Proposal {
    pub(crate) partition: PartitionHandle,
    /// What its amounts are of.
    asset: AssetId,
    /// What it was made against: approved is what was looked at, or nothing.
    pub(crate) base: Base,
    pub(crate) policy: Policy,
    /// Name, old and new value of each rule that changes.
    changes: Value,
    pub(crate) reason: String,
    /// Who has proposed it, and is to be vouched for still when it is approved.
    pub(crate) by: Arc<Member>,
    made: Instant,
    made_ms: u64,
    /// What whoever approves has looked at: numbers begin anew with the process.
    pub(crate) digest: String,
    pub(crate) stage: Stage,
}

/// A policy at a moment: the record that has set it, and its rules.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Base {
    pub(crate) seq: Seq,
    pub(crate) policy: Policy,
}

/// How far a proposal is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    Open,
    Withdrawn,
    /// Approved and sent under this id; what the engine has made of it is not known.
    Sent {
        id: Id,
        by: ActorId,
    },
    Approved {
        by: ActorId,
        answer: Value,
    },
    /// Approved and sent, and too long ago for anybody to tell whether it was ever in force.
    Unclear {
        by: ActorId,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Propose {
    /// The rules that are to change, by their names.
    rules: Map<String, Value>,
    reason: String,
}

impl Proposals {
    /// What was sent is kept until it is known what became of it.
    fn forget(&mut self, now: Instant) {
        self.all.retain(|_, proposal| {
            now.duration_since(proposal.made) < LIFE || matches!(proposal.stage, Stage::Sent { .. })
        });
        let is_there = |of| self.all.values().any(|proposal| proposal.partition == of);
        self.turns.retain(|of, turn| is_there(*of) || Arc::strong_count(turn) > 1);
    }

    fn add(&mut self, proposal: Proposal) -> Result<u64, Refusal> {
        self.forget(proposal.made);
        if self.all.len() >= PROPOSALS_MAX {
            return Err(Refusal::Full("there are too many proposals; withdraw some"));
        }
        self.last += 1;
        self.all.insert(self.last, proposal);
        Ok(self.last)
    }

    fn find(&mut self, number: u64, now: Instant) -> Result<&mut Proposal, Refusal> {
        self.forget(now);
        self.all.get_mut(&number).ok_or(Refusal::NotFound("the proposal"))
    }

    /// A proposal as it is, for as long as nobody else decides about its partition.
    pub(crate) fn take(
        &mut self,
        number: u64,
        now: Instant,
    ) -> Result<(Proposal, OwnedMutexGuard<()>), Refusal> {
        let of = self.find(number, now)?.partition;
        let turn = Arc::clone(self.turns.entry(of).or_default()).try_lock_owned();
        let turn = turn.map_err(|_| {
            Refusal::Conflict(
                "somebody else's approval for this partition is on its way; look again in a moment",
            )
        })?;
        Ok((self.find(number, now)?.clone(), turn))
    }

    /// Says how far a proposal is now.
    pub(crate) fn set(&mut self, number: u64, stage: Stage) -> Result<(), Refusal> {
        self.find(number, Instant::now())?.stage = stage;
        Ok(())
    }
}

impl Proposal {
    fn to_json(&self, number: u64, reader: &Person) -> Value {
        let (state, approved_by) = match &self.stage {
            Stage::Open => ("open", None),
            Stage::Withdrawn => ("withdrawn", None),
            Stage::Sent { by, .. } => ("sent", Some(by.to_string())),
            Stage::Approved { by, .. } => ("approved", Some(by.to_string())),
            Stage::Unclear { by } => ("unclear", Some(by.to_string())),
        };
        json!({
            "number": number,
            "partition": self.partition.to_string(),
            "asset": self.asset.0,
            "changes": self.changes,
            "reason": self.reason,
            "by": self.by.caller.actor.to_string(),
            "by_name": self.by.person.name(),
            "own": self.by.person.may_be(reader),
            "made": self.made_ms,
            "ends": self.made_ms + u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX),
            "digest": self.digest,
            "state": state,
            "approved_by": approved_by,
        })
    }
}

impl Base {
    pub(crate) fn of(row: &PartitionRow) -> Self {
        Self { seq: row.policy_seq, policy: row.policy }
    }
}

/// Refuses whoever may set no policy.
pub(crate) fn may_set(session: &Session) -> Result<(), Refusal> {
    // The engine would say so too, but only to the second of the two.
    if session.caller.may_send(Kind::Policy, TenantId(0)) {
        Ok(())
    } else {
        Err(Refusal::NoRole("policies are the operator's: sign in with its role `admin`"))
    }
}

/// The proposals that there are.
pub(crate) async fn list(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Answer {
    let session = signed_in(&desk, &headers)?;
    if !is_operator(&session) {
        return Err(Refusal::NoRole("proposals are the operator's"));
    }
    let mut proposals = desk.proposals.lock();
    proposals.forget(Instant::now());
    let all = proposals.all.iter().rev();
    let all: Vec<_> =
        all.map(|(number, proposal)| proposal.to_json(*number, &session.member.person)).collect();
    Ok(json_answer(&json!({ "proposals": all })))
}

/// What a change would come to: nothing is kept.
pub(crate) async fn preview(
    State(desk): State<Arc<Desk>>,
    Path(handle): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let session = acting(&desk, &headers)?;
    let Propose { rules, .. } = read(&body)?;
    let row = find(&session, partition(&handle)?).await?;
    let (_, changes) = changed(&desk, &row, &rules)?;
    Ok(json_answer(&json!({ "changes": changes })))
}

/// Proposes other rules for a partition.
pub(crate) async fn propose(
    State(desk): State<Arc<Desk>>,
    Path(handle): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let session = acting(&desk, &headers)?;
    may_set(&session)?;
    let Propose { rules, reason } = read(&body)?;
    let reason = reason_of(&reason)?;
    let row = find(&session, partition(&handle)?).await?;
    let (policy, changes) = changed(&desk, &row, &rules)?;
    let by = Arc::clone(&session.member);
    let (base, made_ms) = (Base::of(&row), now_ms());
    let digest = digest_of(row.partition, &base, &policy, &reason, by.caller.actor, made_ms);
    tracing::info!(
        actor = %by.caller.actor, name = by.person.name(), partition = %row.partition, reason, digest, "a policy is proposed"
    );
    let proposal = Proposal {
        partition: row.partition,
        asset: row.asset,
        base,
        policy,
        changes,
        reason,
        by,
        made: Instant::now(),
        made_ms,
        digest,
        stage: Stage::Open,
    };
    let number = desk.proposals.lock().add(proposal)?;
    Ok(json_answer(&json!({ "number": number })))
}

/// A reason that reads as it is written: nothing in it turns its direction or cannot be seen.
fn reason_of(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let is_unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    if text.is_empty() || text.chars().count() > REASON_MAX || text.chars().any(is_unseen) {
        let words = format!("say why, in at most {REASON_MAX} characters that can all be seen");
        return Err(Refusal::Wrong(words));
    }
    Ok(text.to_owned())
}

fn digest_of(
    partition: PartitionHandle,
    base: &Base,
    policy: &Policy,
    reason: &str,
    by: ActorId,
    made_ms: u64,
) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(partition.to_string().as_bytes()).update(&[0]);
    hash.update(&base.seq.0.to_le_bytes()).update(&base.policy.to_bytes()).update(&policy.to_bytes());
    hash.update(&by.0.to_le_bytes()).update(&made_ms.to_le_bytes()).update(reason.as_bytes());
    hash.finalize().to_hex().to_string()
}

/// The policy with some rules changed, and which.
fn changed(desk: &Desk, row: &PartitionRow, rules: &Map<String, Value>) -> Result<(Policy, Value), Refusal> {
    let old = (desk.policy.write)(&row.policy);
    let mut wanted = old.clone();
    for (name, value) in rules {
        // Lists that are empty are left out where policies are written.
        if wanted.get(name).is_none() && name != "categories" {
            return Err(Refusal::Wrong(format!("a policy has no rule `{name}`")));
        }
        wanted[name.as_str()] = value.clone();
    }
    let policy = (desk.policy.read)(&wanted).map_err(Refusal::Wrong)?;
    let new = (desk.policy.write)(&policy);
    let names = new.as_object().into_iter().flatten().chain(old.as_object().into_iter().flatten());
    let names: std::collections::BTreeSet<&String> = names.map(|(name, _)| name).collect();
    let differs = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let changes: Vec<Value> =
        differs.map(|name| json!({ "rule": name, "old": old.get(name), "new": new.get(name) })).collect();
    if changes.is_empty() {
        return Err(Refusal::Wrong("nothing would change".to_owned()));
    }
    Ok((policy, Value::Array(changes)))
}

#[cfg(test)]
pub(crate) mod tests {
    use server::pki::DevelopmentPki;
    use surety_protocol::Roles;

    use super::*;

    pub(crate) fn member() -> Arc<Member> {
        let pem = DevelopmentPki::generate().unwrap().client(TenantId(0), Roles::ADMIN, "x").unwrap();
        Arc::new(Member::unjudged(&pem))
    }

    pub(crate) fn proposal(by: &Arc<Member>, made: Instant) -> Proposal {
        Proposal {
            partition: PartitionHandle(1),
            asset: AssetId(1),
            base: Base { seq: Seq(5), policy: Policy::default() },
            policy: Policy { late_capture: 1, ..Policy::default() },
            changes: Value::Null,
            reason: "x".to_owned(),
            by: Arc::clone(by),
            made,
            made_ms: 0,
            digest: String::new(),
            stage: Stage::Open,
        }
    }

    #[test]
    fn proposals_are_few_and_end_but_not_while_one_is_sent() {
        let (begin, by) = (Instant::now(), member());
        let mut proposals = Proposals::default();
        for _ in 0..PROPOSALS_MAX {
            proposals.add(proposal(&by, begin)).unwrap();
        }
        assert!(matches!(proposals.add(proposal(&by, begin)), Err(Refusal::Full(_))));
        assert!(proposals.find(1, begin).is_ok());
        proposals.set(2, Stage::Sent { id: Id(1), by: ActorId(1) }).unwrap();
        assert!(matches!(proposals.find(1, begin + LIFE), Err(Refusal::NotFound(_))));
        assert!(proposals.find(2, begin + LIFE).is_ok(), "nobody knows yet what became of it");
        let next = proposals.add(proposal(&by, begin + LIFE));
        assert_eq!(next, Ok(PROPOSALS_MAX as u64 + 1), "no number comes twice");
    }

    #[test]
    fn one_at_a_time_decides_about_a_partition() {
        let (begin, by) = (Instant::now(), member());
        let mut proposals = Proposals::default();
        let one = proposals.add(proposal(&by, begin)).unwrap();
        let same = proposals.add(proposal(&by, begin)).unwrap();
        let other = Proposal { partition: PartitionHandle(2), ..proposal(&by, begin) };
        let other = proposals.add(other).unwrap();
        let turn = proposals.take(one, begin).unwrap().1;
        assert!(matches!(proposals.take(same, begin), Err(Refusal::Conflict(_))));
        assert!(proposals.take(other, begin).is_ok(), "another partition is nobody's business");
        drop(turn);
        assert!(proposals.take(same, begin).is_ok());
        proposals.forget(begin + LIFE);
        assert!(proposals.turns.is_empty());
    }

    #[test]
    fn a_reason_reads_as_it_is_written() {
        assert_eq!(reason_of(" Späte Einzüge "), Ok("Späte Einzüge".to_owned()));
        let long = "x".repeat(REASON_MAX + 1);
        for wrong in ["", " ", "a\nb", "a\u{202e}b", "a\u{200b}b", "a\u{2066}b", "a\u{feff}b", &long] {
            assert!(matches!(reason_of(wrong), Err(Refusal::Wrong(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_digest_tells_proposals_apart() {
        let base = Base { seq: Seq(1), policy: Policy::default() };
        let policy = Policy { late_capture: 1, ..Policy::default() };
        let digest = |base: &Base, policy: &Policy, reason: &str, by, made_ms| {
            digest_of(PartitionHandle(1), base, policy, reason, ActorId(by), made_ms)
        };
        let one = digest(&base, &policy, "x", 1, 1);
        assert_eq!(one, digest(&base, &policy, "x", 1, 1));
        for other in [
            digest(&Base { seq: Seq(2), ..base.clone() }, &policy, "x", 1, 1),
            digest(&base, &Policy::default(), "x", 1, 1),
            digest(&base, &policy, "y", 1, 1),
            digest(&base, &policy, "x", 2, 1),
            digest(&base, &policy, "x", 1, 2),
        ] {
            assert_ne!(one, other);
        }
    }
}
