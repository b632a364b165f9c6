//! Webhooks: the change stream, carried to endpoints that tenants name.
//!
//! At least once, and in order for each lock: one page of events at a time, the next once the one before was taken. How far an endpoint is
//! stands in a file that survives a crash; it is written behind each page, so a page whose answer was lost comes again.

mod address;
mod post;
mod progress;
mod run;
mod sign;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use address::Endpoint;
pub use address::EndpointError;
pub use progress::OpenError;
pub(crate) use run::Hook;
pub use sign::Secret;

/// How all webhooks are carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookRules {
    /// Where it is kept how far each endpoint is.
    pub state: PathBuf,
    /// Takes endpoints on private networks and without TLS: for development.
    pub allow_private: bool,
    /// How long an endpoint may take to answer.
    pub answer_within: Duration,
    /// The first pause after a failure; it doubles.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// An endpoint that has failed for so long is paused.
    pub give_up_after: Duration,
}

impl WebhookRules {
    /// What is usual, with a directory of its own.
    #[must_use]
    pub const fn new(state: PathBuf) -> Self {
        Self {
            state,
            allow_private: false,
            answer_within: Duration::from_secs(10),
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(3600),
            give_up_after: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// One endpoint of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// What the tenant calls it: small letters, digits and hyphens.
    pub name: String,
    /// Where events go.
    pub url: String,
    /// What deliveries are signed with: each of them signs, so that a receiver may know either while they change.
    pub secrets: Vec<Secret>,
}

/// True for what can be a name, and a part of a file's name.
pub(crate) fn is_name(name: &str) -> bool {
    let is_unit = |unit: u8| unit.is_ascii_lowercase() || unit.is_ascii_digit() || unit == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(is_unit)
}
