//! What a page may have done: requests of the person who is signed in, under an id that the page has drawn before, so that sending twice is doing
//! once. The engine says yes or no, and its log says who it was.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use surety_client::{LockRef, NotExecuted, SubmitError, request};
use surety_protocol::{ChangeBody, Code, Id, Kind, Record, Reply, TenantId};

use crate::guard::{acting, cookies, set_cookie};
use crate::listener::Shown;
use crate::reads::{lock_id, session_json};
use crate::refusal::Refusal;
use crate::rows::partition;
use crate::sessions::{Member, Proof, Session};
use crate::start::{Desk, json_answer};

type Answer = Result<Response, Refusal>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    /// A sign-in link; without one the certificate that the browser has shown counts.
    link: Option<String>,
    /// The certificate that was looked at, by its hash: a browser may show another one by the time that somebody says yes.
    certificate: Option<String>,
    /// True where somebody else's session in this browser is to end by it.
    #[serde(default)]
    over: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    id: String,
    /// A number for the log, of the operator's own list.
    #[serde(default)]
    reason: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    id: String,
    #[serde(default)]
    tenant: u32,
    #[serde(default)]
    reason: u64,
}

/// Says whom a link or the shown certificate would sign in, so that nobody is signed in as somebody else without having been asked. Nothing is changed.
pub(crate) async fn look(
    State(desk): State<Arc<Desk>>,
    Extension(shown): Extension<Shown>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let SignIn { link, .. } = read(&body)?;
    let proof = Proof::of(link.as_deref(), &shown);
    let member = desk.sessions.look(proof).inspect_err(|refusal| desk.refused.note(refusal.name()))?;
    let is_over =
        desk.sessions.of(cookies(&desk, &headers)).iter().any(|(_, there)| is_other(&member, there));
    let caller = member.caller;
    Ok(json_answer(&json!({
        "tenant": caller.tenant.0,
        "operator": caller.tenant == TenantId(0),
        "roles": server::identity::role_names(caller.roles),
        "actor": caller.actor.to_string(),
        "name": member.person.name(),
        "certificate": member.certificate(),
        "over": is_over,
    })))
}

/// Signs in by a link, or by the shown certificate. What sessions this browser has had end by it: its page could not reach them any more.
pub(crate) async fn sign_in(
    State(desk): State<Arc<Desk>>,
    Extension(shown): Extension<Shown>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let SignIn { link, certificate, over } = read(&body)?;
    let before = desk.sessions.of(cookies(&desk, &headers));
    let may = |member: &Member| {
        if link.is_none() && certificate.as_deref() != Some(member.certificate().as_str()) {
            return Err(Refusal::OtherCertificate);
        }
        let is_over = before.iter().any(|(_, there)| is_other(member, there));
        if over || !is_over { Ok(()) } else { Err(Refusal::SignedIn) }
    };
    let signed_in = desk.sessions.sign_in(Proof::of(link.as_deref(), &shown), may).await;
    let (cookie, session) = signed_in.inspect_err(|refusal| desk.refused.note(refusal.name()))?;
    for (_, before) in &before {
        desk.sessions.end(before);
    }
    let set = [(header::SET_COOKIE, set_cookie(&desk, Some(&cookie)))];
    let mut told = session_json(&desk, &session);
    // Here and never again.
    told["token"] = json!(session.token);
    Ok((set, json_answer(&told)).into_response())
}

fn is_other(member: &Member, there: &Session) -> bool {
    member.caller.actor != there.caller.actor
}

/// Signs out.
pub(crate) async fn sign_out(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Answer {
    let session = acting(&desk, &headers)?;
    desk.sessions.end(&session);
    let set = [(header::SET_COOKIE, set_cookie(&desk, None))];
    Ok((set, json_answer(&json!({ "signed_out": true }))).into_response())
}

/// Stops new locks of a partition.
pub(crate) async fn freeze(
    State(desk): State<Arc<Desk>>,
    Path(handle): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let session = acting(&desk, &headers)?;
    let Control { id, reason } = read(&body)?;
    let draft = request::freeze(partition(&handle)?, reason).id(request_id(&id)?);
    submit(session, draft.into_record(|| Id(0))).await
}

/// Allows them again.
pub(crate) async fn unfreeze(
    State(desk): State<Arc<Desk>>,
    Path(handle): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let session = acting(&desk, &headers)?;
    let Control { id, .. } = read(&body)?;
    let draft = request::unfreeze(partition(&handle)?).id(request_id(&id)?);
    submit(session, draft.into_record(|| Id(0))).await
}

/// Gives a lock's rest back. The reason goes into the log as the request's own number.
pub(crate) async fn release(
    State(desk): State<Arc<Desk>>,
    Path((handle, lock)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let session = acting(&desk, &headers)?;
    let Release { id, tenant, reason } = read(&body)?;
    let lock = LockRef::new(partition(&handle)?, lock_id(&lock)?);
    let draft = lock.release().id(request_id(&id)?).tenant(TenantId(tenant));
    let mut record = draft.into_record(|| Id(0));
    record.set_body(&ChangeBody { user: reason, ..record.body::<ChangeBody>() });
    submit(session, record).await
}

async fn submit(session: Arc<Session>, record: Record) -> Answer {
    on_its_own(async move {
        let outcome = session.client.submit(record).await;
        let kind = record.kind().map_or("?", Kind::name);
        note(&session, kind, record.id, &outcome);
        Ok(outcome_json(&outcome))
    })
    .await
}

/// A page that is closed, or an answer that takes too long, cuts nothing off in the middle.
pub(crate) async fn on_its_own(
    work: impl Future<Output = Result<Value, Refusal>> + Send + 'static,
) -> Answer {
    let done = tokio::spawn(work).await;
    let done = done.unwrap_or(Err(Refusal::Conflict("the console has ended; look what became of it")));
    done.map(|answer| json_answer(&answer))
}

/// Says in the process' own log what was asked for and answered; the engine's log has it for good.
pub(crate) fn note(session: &Session, kind: &str, id: Id, outcome: &Result<Reply, SubmitError>) {
    let caller = session.caller;
    let code =
        outcome.as_ref().map_or_else(|error| error.to_string(), |reply| reply.code().name().to_owned());
    tracing::info!(tenant = caller.tenant.0, actor = %caller.actor, kind, %id, code, "asked for at the console");
}

/// What became of a request, in words.
pub(crate) fn outcome_json(outcome: &Result<Reply, SubmitError>) -> Value {
    match outcome {
        Ok(reply) => json!({
            "known": true,
            "done": reply.code().is_success(),
            "code": reply.code().name(),
            "words": words(reply.code()),
            "replayed": reply.is_replayed(),
            "shard": reply.shard.0,
            "seq": reply.seq.0.to_string(),
        }),
        Err(SubmitError::NotExecuted { why: NotExecuted::Refused { code, .. }, .. }) => json!({
            "known": true,
            "done": false,
            "code": code.name(),
            "words": words(*code),
        }),
        // Not "not executed": an earlier sending under the same id may have been.
        Err(error) => json!({
            "known": false,
            "done": false,
            "code": null,
            "words": format!("{error}; send it again: under its id it is done once"),
        }),
    }
}

/// What a code means for the one who has asked at the console.
pub(crate) const fn words(code: Code) -> &'static str {
    match code {
        Code::Approved => "done",
        Code::Partial => "done for a part of the amount",
        Code::Queued => "accepted; it is done when it is due",
        Code::NoRight => {
            "your certificate's roles, or its tenant's rights on the partition, do not allow this"
        }
        Code::UnknownPartition => "no such partition, or none that you may see",
        Code::UnknownLock | Code::NotFound => "no such lock of this tenant in this partition",
        Code::Malformed => "a value is out of its range",
        Code::TooLarge => "the request has too many parts",
        Code::IdConflict => "the request's id was used for another request; open the form again",
        Code::StaleId => {
            "the form was open too long; if it was sent before, look whether it was done, else open it again"
        }
        Code::UnknownAfterRestore => {
            "the engine was restored: what it may have decided under this id before is lost, or the partition is not reconciled yet"
        }
        Code::IdFromFuture => "the request's id lies ahead of the engine's clock; open the form again",
        Code::Quota => "the tenant is at one of its quotas",
        Code::QuotaRate => "the tenant has used up its requests per second; send it again",
        Code::QuotaInFlight => "the tenant has as many unanswered requests as it may have; send it again",
        Code::QuotaOpenLocks => "the tenant has as many open locks as it may have",
        Code::QuotaLocks => "as many locks of the tenant are kept as may be, ended ones included",
        Code::QuotaIds => "as many ids of the tenant are remembered as may be",
        Code::QuotaTombstones => "the tenant has released as many unknown locks as may be remembered",
        Code::QuotaAdvices => "as many advices and reversals of the tenant are remembered as may be",
        Code::Overloaded => "the engine is busy; send it again",
        Code::StorageLow => "the disk is near its reserve",
        Code::ChainStale => "the chain is not followed, or the value at risk is at its cap",
        Code::LinkedFailed => "another request of its chain failed",
        Code::Burned => "the id was burned by a look-up; open the form again",
        Code::AlreadyReleased => "it was released before",
        Code::GuaranteeCalled => "the lock was called on chain, and waits for the chain's verdict",
        Code::AlreadySettled => "the payment was settled before",
        Code::NotOpen => "the lock has ended",
        Code::VersionConflict => "the lock has changed meanwhile",
        Code::UnknownCapture => "the lock has no such capture",
        Code::UseRefund => "the capture has moved on; it takes a refund",
        Code::Frozen => "the partition is frozen",
        Code::StalePrice => "there is no price that is young enough",
        Code::Ratio => "the collateral ratio is below the stop ratio",
        Code::OverLimit => "it is over a limit of the policy",
        Code::Velocity => "too much in too short a time",
        Code::Forbidden => "the merchant is not allowed, or the deadline is out of range",
        Code::Insufficient => "there is not enough collateral",
        Code::Exists => "it is so already",
        Code::None => "nothing was decided",
    }
}

/// Reads the id of a request.
fn request_id(text: &str) -> Result<Id, Refusal> {
    Id::parse(text).ok_or_else(|| Refusal::Wrong("the id of a request is a UUID".to_owned()))
}

/// Reads a body as JSON of one form; its size is bounded before.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::Wrong(format!("the request does not read: {error}")))
}
