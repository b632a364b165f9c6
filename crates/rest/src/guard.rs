//! What every request passes: who asks, how often, and how what comes back is told.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::{Mutex, RwLock};
use surety_client::protocol::{ActorId, Caller, Code, Id, Kind, TenantId, Time};
use telemetry::Sparing;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{RestLimits, TenantConfig};
use crate::desk::Desk;
use crate::metrics::Numbers;
use crate::problem::Problem;
use crate::rate::{Bucket, Room};
use crate::tls::Certified;
use crate::token::{self, TokenHash};
use crate::webhook::Hook;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Who may come in, and as whom.
#[derive(Debug)]
pub(crate) struct Access {
    /// For logs.
    name: String,
    tenant: TenantId,
    bucket: Mutex<Bucket>,
    /// Told when it may not come in any more.
    withdrawn: watch::Sender<bool>,
}

impl Access {
    fn new(name: String, tenant: TenantId, limits: &RestLimits) -> Arc<Self> {
        let bucket = Mutex::new(Bucket::new(limits.rate_per_s, limits.burst, Instant::now()));
        Arc::new(Self { name, tenant, bucket, withdrawn: watch::Sender::new(false) })
    }

    pub(crate) fn withdrawn(&self) -> watch::Receiver<bool> {
        self.withdrawn.subscribe()
    }

    fn is_withdrawn(&self) -> bool {
        *self.withdrawn.borrow()
    }
}

/// Who may come in.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    tokens: Vec<(TokenHash, Arc<Access>)>,
    /// By the tenant that a client's certificate names.
    certificates: Vec<(TenantId, Arc<Access>)>,
}

/// One token is there twice, so that nothing says whose requests are its.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hash of token `{0}` is there twice")]
pub struct TokenTwice(String);

impl Doors {
    pub(crate) fn new(
        tenants: Vec<(TenantId, TenantConfig)>,
        limits: &RestLimits,
    ) -> Result<Self, TokenTwice> {
        let mut doors = Self::default();
        for (tenant, TenantConfig { tokens, .. }) in tenants {
            doors.certificates.push((tenant, Access::new("a certificate".to_owned(), tenant, limits)));
            for (name, hash) in tokens {
                if doors.tokens.iter().any(|(other, _)| *other == hash) {
                    return Err(TokenTwice(name));
                }
                doors.tokens.push((hash, Access::new(name, tenant, limits)));
            }
        }
        Ok(doors)
    }

    /// Keeps, with its rate, who could come in before; who cannot any more is told.
    pub(crate) fn take_over(&mut self, old: &Self) {
        let is_same = |one: &Access, other: &Access| one.tenant == other.tenant && one.name == other.name;
        for (hash, access) in &self.tokens {
            if !old.tokens.iter().any(|(other, known)| other == hash && is_same(known, access)) {
                tracing::info!(tenant = access.tenant.0, token = access.name, "a token counts from now on");
            }
        }
        for (hash, access) in &old.tokens {
            match self.tokens.iter_mut().find(|(other, new)| other == hash && is_same(new, access)) {
                Some((_, new)) => *new = access.clone(),
                None => {
                    tracing::info!(tenant = access.tenant.0, token = access.name, "a token counts no more");
                    access.withdrawn.send_replace(true);
                }
            }
        }
        for (tenant, access) in &old.certificates {
            match self.certificates.iter_mut().find(|(other, _)| other == tenant) {
                Some((_, new)) => *new = access.clone(),
                None => {
                    access.withdrawn.send_replace(true);
                }
            }
        }
    }
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) desks: Vec<Arc<Desk>>,
    pub(crate) doors: RwLock<Arc<Doors>>,
    pub(crate) limits: Arc<RestLimits>,
    pub(crate) certificates: Option<std::net::SocketAddr>,
    pub(crate) hooks: Vec<Arc<Hook>>,
    pub(crate) numbers: Arc<Numbers>,
    /// Told when the settings were read again.
    pub(crate) reloads: watch::Sender<()>,
    /// Told when the front door closes.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Whom its certificate speaks for, checked by TLS.
    pub(crate) certified: Option<Certified>,
    /// Who has shown who it is on this connection: there may be many behind a proxy.
    pub(crate) known: watch::Sender<Vec<Arc<Access>>>,
}

impl Peer {
    /// Notes who has come in.
    fn note(&self, access: &Arc<Access>) {
        self.known.send_if_modified(|known| {
            let is_new = !known.iter().any(|other| Arc::ptr_eq(other, access));
            if is_new {
                known.retain(|other| !other.is_withdrawn());
                known.push(access.clone());
            }
            is_new
        });
    }

    /// True if nobody who has come in on this connection could do so again. Its certificate, if it has one, is looked at elsewhere.
    pub(crate) fn is_nobody_left(&self) -> bool {
        let known = self.known.borrow();
        self.certified.is_none() && !known.is_empty() && known.iter().all(|access| access.is_withdrawn())
    }
}

/// What a handler knows of its request.
#[derive(Clone)]
pub(crate) struct Visit {
    pub(crate) desk: Arc<Desk>,
    pub(crate) access: Arc<Access>,
    /// When its time in the engine is over.
    pub(crate) deadline: Instant,
    pub(crate) shared: Arc<Shared>,
}

/// A problem on its way to be told.
#[derive(Clone)]
struct Untold(Box<Problem>);

impl IntoResponse for Box<Problem> {
    fn into_response(self) -> Response {
        let mut reply =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        reply.extensions_mut().insert(Untold(self));
        reply
    }
}

/// Serves a request and sees to the form of its reply.
pub(crate) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let request_id = request_id();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let mut room = None;
    let reply = admitted(&shared, request, next, &mut room).await;
    let mut reply = told(reply.unwrap_or_else(IntoResponse::into_response), &request_id);
    let headers = reply.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(Room { limit, remaining, reset_s, .. }) = room {
        headers.insert(RATE_LIMIT, limit.into());
        headers.insert(RATE_REMAINING, remaining.into());
        headers.insert(RATE_RESET, reset_s.into());
    }
    shared.numbers.answered(path.as_ref(), &method, reply.status(), begun);
    reply
}

async fn admitted(
    shared: &Arc<Shared>,
    mut request: Request,
    next: Next,
    room: &mut Option<Room>,
) -> Result<Response, Box<Problem>> {
    // The description and its page are everybody's.
    if !request.uri().path().starts_with("/v1/") {
        return Ok(next.run(request).await);
    }
    let access = who(shared, &request)?;
    let found = access.bucket.lock().take(Instant::now());
    *room = Some(found);
    if !found.is_there {
        tracing::debug!(who = access.name, "too many requests");
        let detail = "More requests than this token may send; nothing was done for this one.";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", detail);
        return Err(problem.retryable(found.reset_s));
    }
    let desk = shared.desks.iter().find(|desk| desk.client().tenant() == access.tenant);
    let desk = desk.cloned().ok_or_else(unauthenticated)?;
    let _place = desk.in_flight.clone().try_acquire_owned().map_err(|_| {
        let detail = "Too many requests of this tenant are being served; nothing was done for this one.";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "BUSY", detail).retryable(1)
    })?;
    let deadline = Instant::now() + shared.limits.answer_within;
    request.extensions_mut().insert(Visit { desk, access, deadline, shared: shared.clone() });
    Ok(next.run(request).await)
}

/// By token or by certificate; where there are both, they have to be of one tenant. A certificate's roles bound what it may ask, as an
/// engine's would: the front door's own certificate has more of them.
fn who(shared: &Shared, request: &Request) -> Result<Arc<Access>, Box<Problem>> {
    let doors = shared.doors.read().clone();
    let peer = request.extensions().get::<Peer>();
    let certified = peer.and_then(|peer| peer.certified);
    let shown = match request.headers().get(header::AUTHORIZATION) {
        None => None,
        Some(value) => {
            let token = value.to_str().ok().and_then(token::bearer).ok_or_else(unauthenticated)?;
            let known = doors.tokens.iter().map(|(hash, access)| (hash, access));
            Some(token::find(known, &TokenHash::of(token)).cloned().ok_or_else(unauthenticated)?)
        }
    };
    let tenant = certified.map(|certified| certified.tenant);
    let access = match (shown, tenant) {
        (Some(access), Some(tenant)) if access.tenant != tenant => return Err(unauthenticated()),
        (Some(access), _) => access,
        (None, Some(tenant)) => {
            let found = doors.certificates.iter().find(|(of, _)| *of == tenant);
            found.map(|(_, access)| access.clone()).ok_or_else(unauthenticated)?
        }
        (None, None) => return Err(unauthenticated()),
    };
    if let Some(peer) = peer {
        peer.note(&access);
    }
    if certified.is_some_and(|certified| !allows(certified, request.method(), request.uri().path())) {
        return Err(Problem::of_code(Code::NoRight));
    }
    Ok(access)
}

/// Whether a certificate's roles are enough, as for the engine they would have to be.
fn allows(certified: Certified, method: &Method, path: &str) -> bool {
    let Certified { tenant, roles } = certified;
    if !matches!(*method, Method::GET | Method::HEAD) {
        return roles.allow(Kind::Lock);
    }
    // What tells everything that a tenant has done, or everybody.
    let tells_all = path == "/v1/events" || path.starts_with("/v1/history/");
    !tells_all || Caller { tenant, roles, actor: ActorId(0) }.sight().is_some()
}

fn unauthenticated() -> Box<Problem> {
    let detail = "Show a token of a tenant: Authorization: Bearer srty_...";
    Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", detail)
}

/// While an engine is away every request is one of these.
static UNANSWERED: Sparing = Sparing::new(20);

/// The reply as it is sent: every error is a problem.
fn told(mut reply: Response, request_id: &str) -> Response {
    if let Some(Untold(problem)) = reply.extensions_mut().remove::<Untold>() {
        if problem.status >= 500
            && let Some(withheld) = UNANSWERED.turn()
        {
            tracing::warn!(request_id, code = problem.code, withheld, "not answered");
        }
        return problem.into_reply(request_id);
    }
    let status = reply.status();
    if !status.is_client_error() && !status.is_server_error() {
        return reply;
    }
    // What the router itself has refused.
    let mut problem = match status {
        StatusCode::NOT_FOUND => Problem::not_found("PATH", "There is no such path."),
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(status, "METHOD", "The path has no such method."),
        _ => Problem::new(status, "REQUEST", "The request does not read."),
    };
    problem.allow = reply.headers().get(header::ALLOW).cloned();
    problem.into_reply(request_id)
}

/// A new name for a request.
fn request_id() -> String {
    let mut random = [0; 16];
    // Without randomness the name is of its time alone: it is for people who look into logs.
    let _ = getrandom::fill(&mut random);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let at = Time(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    Id::from_parts(at, u128::from_be_bytes(random)).to_string()
}

#[cfg(test)]
mod tests {
    use surety_client::protocol::Roles;

    use super::*;

    #[test]
    fn a_certificate_allows_what_an_engine_would() {
        let of = |tenant, roles| Certified { tenant: TenantId(tenant), roles };
        let (events, history, lock) = ("/v1/events", "/v1/history/records", "/v1/locks/1");
        for (certified, method, path, expected) in [
            (of(0, Roles::AUTHORIZER), Method::GET, events, false),
            (of(0, Roles::AUTHORIZER), Method::GET, history, false),
            (of(0, Roles::AUTHORIZER), Method::HEAD, history, false),
            (of(0, Roles::AUTHORIZER), Method::GET, lock, true),
            (of(0, Roles::READER), Method::GET, history, true),
            (of(0, Roles::SETTLER), Method::GET, events, true),
            (of(7, Roles::AUTHORIZER), Method::GET, history, true),
            (of(7, Roles::AUTHORIZER), Method::POST, lock, true),
            (of(7, Roles::READER), Method::POST, lock, false),
        ] {
            assert_eq!(allows(certified, &method, path), expected, "{certified:?} {method} {path}");
        }
    }
}
