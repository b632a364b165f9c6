//! What a REST front door is, and its limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use surety_client::protocol::{Time, limits};

use crate::money::Asset;
use crate::token::TokenHash;
use crate::webhook::{WebhookConfig, WebhookRules};

/// A REST front door.
#[derive(Clone, Debug)]
pub struct RestConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How connections are protected; none for plain HTTP, which is for a loopback or behind a proxy.
    pub tls: Option<TlsFiles>,
    /// The assets whose partitions are served.
    pub assets: Vec<Asset>,
    /// Where certificates of locks are handed out (`surety settle certify`); none where they are not.
    pub certificates: Option<SocketAddr>,
    /// How webhooks are carried; none where there are none.
    pub webhooks: Option<WebhookRules>,
    /// Bounds.
    pub limits: RestLimits,
}

/// Who protects connections, and whose certificates are believed. All are PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The front door's own certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of clients' certificates, which name their tenant as those of an engine do; none if tokens alone count.
    pub client_authority: Option<PathBuf>,
    /// Lists of clients' certificates that are refused before they end. Whose authority has no list in it is refused too; none if
    /// nothing is looked up.
    pub client_revoked: Option<PathBuf>,
    /// A client without such a certificate is not served.
    pub needs_client_certificate: bool,
}

/// One tenant at the front door: what its applications show, and where its events go.
#[derive(Clone, Debug, Default)]
pub struct TenantConfig {
    /// The hash of each token, with the token's name for logs.
    pub tokens: Vec<(String, TokenHash)>,
    /// Where events of the tenant are carried.
    pub webhooks: Vec<WebhookConfig>,
}

/// The bounds of a REST front door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestLimits {
    /// Connections at a time; more are closed at once.
    pub connections_max: usize,
    /// Connections at a time of one address, or of one network of IPv6 (64 bits); behind a proxy all are of its address.
    pub connections_per_address_max: usize,
    /// Requests of one connection that are served at a time (HTTP/2).
    pub streams_max: u32,
    /// Requests of one tenant that are served at a time; past it they are answered 429.
    pub in_flight_max: usize,
    /// Live streams of events of one tenant.
    pub live_max: usize,
    /// Requests per second of one token, and how many may come at once; past it they are answered 429.
    pub rate_per_s: u32,
    /// The most that may come at once.
    pub burst: u32,
    /// The longest head of a request.
    pub head_bytes_max: usize,
    /// The longest body.
    pub body_bytes_max: usize,
    /// How deep JSON may be nested.
    pub depth_max: usize,
    /// How long a head may take, from the end of the request before; a connection that is silent for so long is closed, and
    /// so is one on which nobody has shown a token or certificate by then.
    pub head_within: Duration,
    /// How long a body may take.
    pub body_within: Duration,
    /// How long a request may take in the engine. After that its outcome is told as unknown.
    pub answer_within: Duration,
    /// How long a client may take to read.
    pub write_within: Duration,
    /// Locks of a tenant that can be listed, and found by their id alone.
    pub locks_max: usize,
    /// Keys of a tenant that may still be repeated; past it requests under new ones are answered 429.
    pub keys_max: usize,
    /// How long the engine takes an id (its `id_window`). A shorter one here forgets keys too early.
    pub key_window: Time,
    /// Events of a tenant and shard that are kept at hand; older ones are read from the engine's log.
    pub events_max: usize,
}

impl Default for RestLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_address_max: 512,
            streams_max: 128,
            in_flight_max: 1024,
            live_max: 64,
            rate_per_s: 10_000,
            burst: 2_000,
            head_bytes_max: 16 * 1024,
            body_bytes_max: 16 * 1024,
            depth_max: 8,
            head_within: Duration::from_secs(30),
            body_within: Duration::from_secs(5),
            answer_within: Duration::from_secs(20),
            write_within: Duration::from_secs(10),
            locks_max: 200_000,
            keys_max: 2_000_000,
            key_window: limits::ID_WINDOW_DEFAULT,
            events_max: 50_000,
        }
    }
}
