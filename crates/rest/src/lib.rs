//! The REST front door: applications lock, capture and follow over HTTP, in front of an engine.
//!
//! [`Rest::start`] listens. Each tenant has a client of its own, whose certificate says whose requests these are; a token leads to
//! its tenant's client and to nothing else. The key of a request is its id in the engine, so that a repeat, also one after a
//! restart, asks for the same and is answered the same. What has no definite outcome in time is answered 504, and never as a guess.
//!
//! A key that was used for another request is refused, by each front door for what it knows: what it has sent itself, and what the change
//! stream has told it since the oldest record that the engine still keeps. Two front doors that get one key in the same moment for two
//! partitions make two locks.
#![forbid(unsafe_code)]

mod ask;
mod book;
mod config;
mod cursor;
mod desk;
mod events;
mod follow;
mod guard;
mod ids;
mod json;
mod keys;
mod live;
mod metrics;
mod money;
mod past;
mod patient;
mod problem;
mod rate;
mod recent;
mod rest;
mod routes;
mod server;
mod settings;
mod shapes;
mod tls;
mod token;
mod webhook;

pub use config::{RestConfig, RestLimits, TenantConfig, TlsFiles};
pub use guard::TokenTwice;
pub use metrics::Metrics;
pub use money::Asset;
pub use rest::{Prepared, ReloadError, Rest, Tenant};
pub use server::StartError;
pub use settings::{RestSettings, SettingsError, TenantSettings};
pub use token::{TokenHash, new_token};
pub use trust::TlsError;
pub use webhook::{EndpointError, OpenError, Secret, WebhookConfig, WebhookRules};
