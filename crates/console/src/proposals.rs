//! A policy is changed by two people: one proposes it, another one approves it. Proposals live in memory: whoever restarts the engine has to ask
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use surety_client::request;
use surety_protocol::{ActorId, AssetId, Id, Kind, PartitionHandle, PartitionRow, Policy, TenantId};

use crate::actions::{note, outcome_json, read};
use crate::guard::{acting, signed_in};
use crate::reads::{find, is_operator};
use crate::refusal::Refusal;
use crate::rows::partition;
use crate::sessions::Session;
use crate::start::{Desk, json_answer};

/// A proposal that nobody approves within this is forgotten.
const LIFE: Duration = Duration::from_secs(3600);
/// Proposals at a time.
const PROPOSALS_MAX: usize = 100;
/// Characters of a reason.
const REASON_MAX: usize = 200;

type Answer = Result<Response, Refusal>;

/// The proposals that there are.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    all: BTreeMap<u64, Proposal>,
    last: u64,
}

#[derive(Clone, Debug)]
struct Proposal {
    partition: PartitionHandle,
    /// What its amounts are of.
    asset: AssetId,
    /// What it was made against: approved is what was looked at, or nothing.
    base: [u8; 32],
    policy: Policy,
    /// Name, old and new value of each rule that changes.
    changes: Value,
    reason: String,
    by: ActorId,
    made: Instant,
    made_ms: u64,
    /// The request that an approval has sent: whatever is sent again is the same one.
    sent: Option<Id>,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Open,
    Withdrawn,
    Approved { by: ActorId, answer: Value },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Propose {
    /// The rules that are to change, by their names.
    rules: Map<String, Value>,
    reason: String,
}

impl Proposals {
    fn forget(&mut self, now: Instant) {
        self.all.retain(|_, proposal| now.duration_since(proposal.made) < LIFE);
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
}

impl Proposal {
    fn to_json(&self, number: u64, reader: ActorId) -> Value {
        let (state, approved_by) = match &self.outcome {
            Outcome::Open => ("open", None),
            Outcome::Withdrawn => ("withdrawn", None),
            Outcome::Approved { by, .. } => ("approved", Some(by.to_string())),
        };
        json!({
            "number": number,
            "partition": self.partition.to_string(),
            "asset": self.asset.0,
            "changes": self.changes,
            "reason": self.reason,
            "by": self.by.to_string(),
            "own": self.by == reader,
            "made": self.made_ms,
            "ends": self.made_ms + u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX),
            "state": state,
            "approved_by": approved_by,
        })
    }
}

/// What a policy is at a moment: its rules, and the record that has set them.
fn base_of(row: &PartitionRow) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(&row.policy_seq.0.to_le_bytes()).update(&row.policy.to_bytes());
    *hash.finalize().as_bytes()
}

fn may_set(session: &Session) -> Result<(), Refusal> {
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
    let all: Vec<_> = all.map(|(number, proposal)| proposal.to_json(*number, session.caller.actor)).collect();
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
    let reason = reason.trim().to_owned();
    if reason.is_empty() || reason.chars().count() > REASON_MAX || reason.chars().any(char::is_control) {
        return Err(Refusal::Wrong(format!("say why, in at most {REASON_MAX} characters")));
    }
    let row = find(&session, partition(&handle)?).await?;
    let (policy, changes) = changed(&desk, &row, &rules)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let proposal = Proposal {
        partition: row.partition,
        asset: row.asset,
        base: base_of(&row),
        policy,
        changes,
        reason,
        by: session.caller.actor,
        made: Instant::now(),
        made_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        sent: None,
        outcome: Outcome::Open,
    };
    let number = desk.proposals.lock().add(proposal)?;
    tracing::info!(actor = %session.caller.actor, partition = %row.partition, number, "a policy was proposed");
    Ok(json_answer(&json!({ "number": number })))
}

/// Takes a proposal back: its author, or whoever could have approved it.
pub(crate) async fn withdraw(
    State(desk): State<Arc<Desk>>,
    Path(number): Path<u64>,
    headers: HeaderMap,
) -> Answer {
    let session = acting(&desk, &headers)?;
    may_set(&session)?;
    let _turn = desk.approvals.lock().await;
    let mut proposals = desk.proposals.lock();
    let proposal = proposals.find(number, Instant::now())?;
    match proposal.outcome {
        Outcome::Approved { .. } => return Err(Refusal::Conflict("the proposal was approved before")),
        Outcome::Open if proposal.sent.is_some() => {
            return Err(Refusal::Conflict(
                "it was approved, and nobody knows yet whether the engine has done it",
            ));
        }
        Outcome::Open | Outcome::Withdrawn => proposal.outcome = Outcome::Withdrawn,
    }
    tracing::info!(actor = %session.caller.actor, number, "a proposed policy was withdrawn");
    Ok(json_answer(&json!({ "withdrawn": true })))
}

/// Approves a proposal, and has the engine set the policy, as the one who approves.
pub(crate) async fn approve(
    State(desk): State<Arc<Desk>>,
    Path(number): Path<u64>,
    headers: HeaderMap,
) -> Answer {
    let session = acting(&desk, &headers)?;
    may_set(&session)?;
    // One at a time: what is looked at before is what is changed.
    let _turn = desk.approvals.lock().await;
    let proposal = desk.proposals.lock().find(number, Instant::now())?.clone();
    if proposal.by == session.caller.actor {
        return Err(Refusal::Conflict("it takes a second person: you have proposed it yourself"));
    }
    match &proposal.outcome {
        // The same person's second click.
        Outcome::Approved { by, answer } if *by == session.caller.actor => return Ok(json_answer(answer)),
        Outcome::Approved { .. } => return Err(Refusal::Conflict("somebody else has approved it before")),
        Outcome::Withdrawn => return Err(Refusal::Conflict("the proposal was withdrawn")),
        Outcome::Open => {}
    }
    let row = find(&session, proposal.partition).await?;
    // Done by an earlier sending whose answer was lost: the engine gives that answer again.
    let may_be_done = proposal.sent.is_some() && row.policy == proposal.policy;
    if base_of(&row) != proposal.base && !may_be_done {
        return Err(Refusal::Conflict("the policy has changed since it was proposed; propose it anew"));
    }
    let id = proposal.sent.unwrap_or_else(|| session.client.new_id());
    desk.proposals.lock().find(number, Instant::now())?.sent = Some(id);
    let records = request::set_policy(id, proposal.partition, &proposal.policy);
    let outcome = session.client.submit_long(&records).await;
    note(&session, Kind::Policy.name(), id, &outcome);
    let answer = outcome_json(&outcome);
    let mut proposals = desk.proposals.lock();
    let proposal = proposals.find(number, Instant::now())?;
    match &outcome {
        Ok(reply) if reply.code().is_success() => {
            proposal.outcome = Outcome::Approved { by: session.caller.actor, answer: answer.clone() };
        }
        // It was not done under this id, and never will be.
        Ok(_) => proposal.sent = None,
        Err(error) if error.is_definite() && !may_be_done => proposal.sent = None,
        Err(_) => {}
    }
    Ok(json_answer(&answer))
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
mod tests {
    use super::*;

    fn proposal(made: Instant) -> Proposal {
        Proposal {
            partition: PartitionHandle(1),
            asset: AssetId(1),
            base: [0; 32],
            policy: Policy::default(),
            changes: Value::Null,
            reason: "x".to_owned(),
            by: ActorId(1),
            made,
            made_ms: 0,
            sent: None,
            outcome: Outcome::Open,
        }
    }

    #[test]
    fn proposals_are_few_and_end() {
        let begin = Instant::now();
        let mut proposals = Proposals::default();
        for _ in 0..PROPOSALS_MAX {
            proposals.add(proposal(begin)).unwrap();
        }
        assert!(matches!(proposals.add(proposal(begin)), Err(Refusal::Full(_))));
        assert!(proposals.find(1, begin).is_ok());
        assert!(matches!(proposals.find(1, begin + LIFE), Err(Refusal::NotFound(_))));
        assert_eq!(
            proposals.add(proposal(begin + LIFE)),
            Ok(PROPOSALS_MAX as u64 + 1),
            "no number comes twice"
        );
    }
}
