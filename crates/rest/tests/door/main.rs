//! The front door over real sockets, before an engine in this process. Every answer is held against the description.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod bounds;
mod house;
mod payments;
mod schema;
mod stream;
mod tls;
mod webhooks;

#[path = "../../../client/examples/stage/mod.rs"]
mod stage;
