//! Approving and withdrawing. Whatever is sent is sent once under an id of its own, by work that does not end with the request that began it. Where
//! its answer is lost, nothing else is done about the proposal before a look-up has decided: it finds what was done, or spends the id, so that it
//! never will be.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use surety_client::{Outcome, ResolveError, SubmitError, request};
use surety_protocol::{ActorId, Id, Kind, Reply, TenantId};

use crate::actions::{note, on_its_own, outcome_json, read};
use crate::guard::acting;
use crate::proposals::{Base, Proposal, Stage, may_set};
use crate::reads::find;
use crate::refusal::Refusal;
use crate::sessions::Session;
use crate::start::Desk;

type Answer = Result<Response, Refusal>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    /// Of the proposal that was looked at.
    digest: String,
}

/// Somebody's decision about a proposal.
struct Decision {
    desk: Arc<Desk>,
    session: Arc<Session>,
    number: u64,
}

/// Approves a proposal, and has the engine set the policy, as the one who approves.
pub(crate) async fn approve(
    State(desk): State<Arc<Desk>>,
    Path(number): Path<u64>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let session = acting(&desk, &headers)?;
    may_set(&session)?;
    let Approve { digest } = read(&body)?;
    let decision = Decision { desk, session, number };
    on_its_own(async move { decision.approve(&digest).await }).await
}

/// Takes a proposal back: its author, or whoever could have approved it.
pub(crate) async fn withdraw(
    State(desk): State<Arc<Desk>>,
    Path(number): Path<u64>,
    headers: HeaderMap,
) -> Answer {
    let session = acting(&desk, &headers)?;
    may_set(&session)?;
    let decision = Decision { desk, session, number };
    on_its_own(async move { decision.withdraw().await }).await
}

impl Decision {
    async fn approve(&self, digest: &str) -> Result<Value, Refusal> {
        let (proposal, _turn) = self.desk.proposals.lock().take(self.number, Instant::now())?;
        let actor = self.session.caller.actor;
        if proposal.digest != digest {
            return Err(Refusal::Conflict(
                "this is not the proposal that you have looked at; load the page again",
            ));
        }
        if proposal.by.person.may_be(&self.session.member.person) {
            return Err(Refusal::Conflict(
                "it takes a second person, with another name and another key than whoever has proposed it",
            ));
        }
        match self.settled(&proposal).await? {
            Stage::Open => self.send(&proposal).await,
            // The same person's second click.
            Stage::Approved { by, answer } if by == actor => Ok(answer),
            Stage::Approved { .. } => Err(Refusal::Conflict("somebody else has approved it before")),
            stage => Err(Refusal::Conflict(against(&stage))),
        }
    }

    async fn withdraw(&self) -> Result<Value, Refusal> {
        let (proposal, _turn) = self.desk.proposals.lock().take(self.number, Instant::now())?;
        match self.settled(&proposal).await? {
            Stage::Open | Stage::Withdrawn => self.set(Stage::Withdrawn)?,
            Stage::Approved { .. } => return Err(Refusal::Conflict("the proposal was approved before")),
            stage => return Err(Refusal::Conflict(against(&stage))),
        }
        let actor = self.session.caller.actor;
        tracing::info!(%actor, number = self.number, digest = proposal.digest, "a proposed policy was withdrawn");
        Ok(json!({ "withdrawn": true }))
    }

    /// How far the proposal is, after the engine was asked about what was sent before.
    async fn settled(&self, proposal: &Proposal) -> Result<Stage, Refusal> {
        let Stage::Sent { id, by } = proposal.stage else { return Ok(proposal.stage.clone()) };
        self.settle(proposal, id, by).await
    }

    async fn settle(&self, proposal: &Proposal, id: Id, by: ActorId) -> Result<Stage, Refusal> {
        let resolved = self.session.client.resolve(proposal.partition, id).await;
        // Read after the look-up: from then on nothing can be done under the id any more.
        let row = match resolved {
            Err(ResolveError::Forgotten { .. }) => find(&self.session, proposal.partition).await.ok(),
            _ => None,
        };
        let row = row.as_ref().map(Base::of);
        let stage = decided(proposal, id, by, resolved, row.as_ref());
        tracing::info!(number = self.number, %id, approved_by = %by, ?stage, "what became of an approval whose answer was lost");
        self.set(stage.clone())?;
        Ok(stage)
    }

    async fn send(&self, proposal: &Proposal) -> Result<Value, Refusal> {
        self.check_proposer(proposal)?;
        let row = find(&self.session, proposal.partition).await?;
        if Base::of(&row) != proposal.base {
            return Err(Refusal::Conflict("the policy has changed since it was proposed; propose it anew"));
        }
        let (id, by) = (self.session.client.new_id(), self.session.caller.actor);
        self.set(Stage::Sent { id, by })?;
        self.tell(proposal, id);
        let records = request::set_policy(id, proposal.partition, &proposal.policy);
        let outcome = self.session.client.submit_long(&records).await;
        note(&self.session, Kind::Policy.name(), id, &outcome);
        match answered(by, &outcome) {
            Some(stage) => {
                self.set(stage)?;
                Ok(outcome_json(&outcome))
            }
            None => Ok(match self.settle(proposal, id, by).await? {
                Stage::Approved { answer, .. } => answer,
                Stage::Open => json!({
                    "known": false, "done": false, "code": null,
                    "words": "the answer was lost, and the engine has not done it; approve it again",
                }),
                stage => json!({ "known": false, "done": false, "code": null, "words": against(&stage) }),
            }),
        }
    }

    /// A certificate that was revoked since, or has expired, proposes nothing any more.
    fn check_proposer(&self, proposal: &Proposal) -> Result<(), Refusal> {
        let may = proposal.by.caller.may_send(Kind::Policy, TenantId(0));
        if may && self.desk.sessions.is_vouched_for(&proposal.by) {
            return Ok(());
        }
        self.set(Stage::Withdrawn)?;
        tracing::warn!(number = self.number, proposed_by = %proposal.by.caller.actor, "a proposal of somebody who is let in no more was dropped");
        Err(Refusal::Conflict(
            "the certificate of whoever has proposed it is not accepted any more: it is dropped",
        ))
    }

    /// The engine's log names who has approved; that somebody else has proposed it, and why, stands here.
    fn tell(&self, proposal: &Proposal, id: Id) {
        let (one, two) = (&proposal.by, &self.session.member);
        tracing::info!(
            number = self.number,
            partition = %proposal.partition,
            %id,
            proposed_by = %one.caller.actor,
            proposed_by_name = one.person.name(),
            approved_by = %two.caller.actor,
            approved_by_name = two.person.name(),
            reason = proposal.reason,
            digest = proposal.digest,
            "a proposed policy is approved"
        );
    }

    fn set(&self, stage: Stage) -> Result<(), Refusal> {
        self.desk.proposals.lock().set(self.number, stage)
    }
}

const fn against(stage: &Stage) -> &'static str {
    match stage {
        Stage::Withdrawn => "the proposal was withdrawn",
        Stage::Unclear { .. } => {
            "it was approved, and nobody can tell any more whether it was ever in force; look into the log, and propose it anew"
        }
        Stage::Open | Stage::Sent { .. } | Stage::Approved { .. } => {
            "it was approved, and nobody knows yet whether the engine has done it; try again in a moment"
        }
    }
}

/// What the answer to the only sending under an id makes of a proposal. None where only a look-up can tell.
fn answered(by: ActorId, outcome: &Result<Reply, SubmitError>) -> Option<Stage> {
    match outcome {
        Ok(reply) if reply.code().is_success() => Some(Stage::Approved { by, answer: outcome_json(outcome) }),
        // Recorded as declined: the id is spent.
        Ok(_) => Some(Stage::Open),
        // Nobody has sent it before or will again.
        Err(error) if error.is_definite() => Some(Stage::Open),
        Err(_) => None,
    }
}

/// What a look-up that spends the id makes of a proposal; `now` is the policy that there is where the engine has forgotten such ids.
fn decided(
    proposal: &Proposal,
    id: Id,
    by: ActorId,
    resolved: Result<Outcome, ResolveError>,
    now: Option<&Base>,
) -> Stage {
    match resolved {
        Ok(Outcome::Executed(reply)) => Stage::Approved { by, answer: outcome_json(&Ok(reply)) },
        Ok(Outcome::Declined(_) | Outcome::Burned(_) | Outcome::Refused(_)) => Stage::Open,
        Err(ResolveError::NoAnswer { .. }) => Stage::Sent { id, by },
        // A restored engine knows as little of it as one that has forgotten; the policy that is in force tells.
        Err(ResolveError::Forgotten { .. } | ResolveError::Lost { .. }) => match now {
            None => Stage::Sent { id, by },
            Some(now) if now.seq == proposal.base.seq => Stage::Open,
            Some(now) if now.policy == proposal.policy => {
                let seq = now.seq.0.to_string();
                let words = "done: the policy is in force";
                let shard = proposal.partition.shard().0;
                let answer = json!({
                    "known": true, "done": true, "code": "APPROVED", "words": words, "shard": shard, "seq": seq,
                });
                Stage::Approved { by, answer }
            }
            Some(_) => Stage::Unclear { by },
        },
    }
}

#[cfg(test)]
mod tests {
    use surety_client::{NotExecuted, Unknown};
    use surety_protocol::{Code, PartitionHandle, Policy, Seq, Time};

    use super::*;
    use crate::proposals::tests::{member, proposal};

    const ID: Id = Id(7);
    const BY: ActorId = ActorId(3);

    fn reply(code: Code) -> Reply {
        Reply { id: ID, code: code as u8, seq: Seq(9), ..Reply::default() }
    }

    #[test]
    fn an_answer_decides_unless_it_was_lost() {
        let check = |outcome, expect: Option<&str>| {
            let stage = answered(BY, &outcome);
            let name = stage.map(|stage| match stage {
                Stage::Open => "open",
                Stage::Approved { by: BY, .. } => "approved",
                _ => "?",
            });
            assert_eq!(name, expect, "{outcome:?}");
        };
        check(Ok(reply(Code::Approved)), Some("approved"));
        check(Ok(reply(Code::Burned)), Some("open"));
        let why = NotExecuted::Refused { code: Code::Overloaded, time: Time::ZERO };
        check(Err(SubmitError::NotExecuted { id: ID, why }), Some("open"));
        check(Err(SubmitError::Unknown { id: ID, cause: Unknown::Deadline }), None);
        let cause = Unknown::RepeatRefused(Code::StaleId);
        check(Err(SubmitError::Unknown { id: ID, cause }), None);
    }

    #[test]
    fn a_lost_answer_is_decided_by_the_look_up_and_then_by_the_row() {
        let proposal = proposal(&member(), Instant::now());
        let row = |seq, policy: Policy| Base { seq: Seq(seq), policy };
        let sent = Stage::Sent { id: ID, by: BY };
        let check = |resolved, row: Option<Base>| decided(&proposal, ID, BY, resolved, row.as_ref());
        let approved = |stage: &Stage| matches!(stage, Stage::Approved { by: BY, answer } if answer["done"] == json!(true));
        assert!(approved(&check(Ok(Outcome::Executed(reply(Code::Approved))), None)));
        assert_eq!(check(Ok(Outcome::Burned(reply(Code::Burned))), None), Stage::Open);
        assert_eq!(check(Ok(Outcome::Declined(reply(Code::NotFound))), None), Stage::Open);
        let error = SubmitError::Unknown { id: ID, cause: Unknown::Deadline };
        let silent = ResolveError::NoAnswer { id: ID, partition: PartitionHandle(1), error };
        assert_eq!(check(Err(silent), None), sent);

        let forgotten = || Err(ResolveError::Forgotten { id: ID });
        assert_eq!(check(forgotten(), None), sent, "the row could not be read");
        assert_eq!(check(forgotten(), Some(row(5, Policy::default()))), Stage::Open, "nothing has changed");
        assert!(approved(&check(forgotten(), Some(row(6, proposal.policy)))));
        assert_eq!(check(forgotten(), Some(row(7, Policy::default()))), Stage::Unclear { by: BY });
    }
}
