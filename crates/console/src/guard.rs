//! What every request has to pass: the right address, the right site, and beside the cookie the page's own token. A cookie alone is nothing:
//! browsers send one to every port of a host, whoever listens there.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::listener::Shown;
use crate::refusal::Refusal;
use crate::sessions::Session;
use crate::start::Desk;

/// The header of a page's own token.
const TOKEN: &str = "x-surety-token";
/// The header of a page that keeps itself up to date.
const POLL: &str = "x-surety-poll";

/// Nothing is loaded from elsewhere, run from within a page, or shown within another's.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Checks where a request comes from, and marks the answer for browsers.
pub(crate) async fn watch(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/console/api");
    let mut response = match check_origin(&desk, request.method(), is_api, request.headers()) {
        Ok(()) => in_words(next.run(request).await),
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What the router and the bounds on bodies and time refuse, in the form of every other refusal.
fn in_words(response: Response) -> Response {
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    match response.status() {
        status if is_json || !(status.is_client_error() || status.is_server_error()) => response,
        StatusCode::NOT_FOUND => Refusal::NotFound("the page").into_response(),
        status => Refusal::Http(status).into_response(),
    }
}

fn check_origin(desk: &Desk, method: &Method, is_api: bool, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = text(headers, header::HOST.as_str()).ok_or(Refusal::Host)?;
    // A name of a stranger's that leads to the loopback would be another site in the browser's eyes, and this one in ours.
    if !desk.site.is_own_host(host) {
        return Err(Refusal::Host);
    }
    let is_own_site = text(headers, "sec-fetch-site").is_none_or(|site| site == "same-origin");
    if method == Method::GET || method == Method::HEAD {
        // A page at another port is of the same site, and its requests come with the cookie.
        return if is_own_site || !is_api { Ok(()) } else { Err(Refusal::Foreign) };
    }
    let here = format!("{}://{host}", desk.site.scheme());
    let from_here = text(headers, header::ORIGIN.as_str()) == Some(here.as_str());
    if from_here && is_own_site { Ok(()) } else { Err(Refusal::Foreign) }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Refuses a session that a certificate has opened over a connection that has not shown that one.
pub(crate) async fn bound(
    State(desk): State<Arc<Desk>>,
    Extension(shown): Extension<Shown>,
    request: Request,
    next: Next,
) -> Response {
    match find(&desk, request.headers(), false) {
        Ok(session) if !session.is_over(&shown) => {
            let caller = session.caller;
            tracing::warn!(tenant = caller.tenant.0, actor = %caller.actor, "cookie and token of a console's session came without its certificate");
            Refusal::SignedOut.into_response()
        }
        // Where there is none, whoever needs one says so.
        _ => next.run(request).await,
    }
}

/// The session of whoever asks.
pub(crate) fn signed_in(desk: &Desk, headers: &HeaderMap) -> Result<Arc<Session>, Refusal> {
    find(desk, headers, !headers.contains_key(POLL))
}

/// The session of a page that follows by itself: that is no sign of anybody being there.
pub(crate) fn following(desk: &Desk, headers: &HeaderMap) -> Result<Arc<Session>, Refusal> {
    find(desk, headers, false)
}

/// The session of whoever has something done.
pub(crate) fn acting(desk: &Desk, headers: &HeaderMap) -> Result<Arc<Session>, Refusal> {
    find(desk, headers, true)
}

fn find(desk: &Desk, headers: &HeaderMap, is_use: bool) -> Result<Arc<Session>, Refusal> {
    let token = text(headers, TOKEN).unwrap_or_default();
    desk.sessions.find(cookies(desk, headers), token, is_use)
}

/// What the cookies of our name hold: a browser may have several, for several paths.
pub(crate) fn cookies<'a>(desk: &Desk, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let name = desk.site.cookie_name();
    pairs.filter(move |(found, _)| *found == name).map(|(_, value)| value)
}

/// The header that sets the cookie, until the browser ends; without a value it takes it away.
pub(crate) fn set_cookie(desk: &Desk, value: Option<&str>) -> String {
    let age = if value.is_some() { "" } else { " Max-Age=0;" };
    let (name, value) = (desk.site.cookie_name(), value.unwrap_or_default());
    format!("{name}={value};{age} {}", desk.site.cookie_terms())
}
