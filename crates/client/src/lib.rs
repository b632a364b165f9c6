//! Surety's client: locks collateral for payments, captures, releases, follows the change stream.
//!
//! [`Client`] is one API over two transports: QUIC ([`Client::connect`]) and memory (`Client::over` a connector of the
//! server's `Embedded`). It routes each request to the shard that owns its partition, packs what is waiting into frames by
//! itself, repeats a request under the same id after a lost link, and tells *not executed* from *unknown* by type.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod client;
mod clock;
mod error;
pub mod frames;
mod identity;
mod lane;
mod observer;
mod options;
mod packed;
mod query;
mod quic;
pub mod request;
mod resolve;
mod router;
mod state;
mod tail;
pub mod transport;
mod udp;

pub use client::Client;
pub use error::{ConnectError, NotExecuted, ResolveError, SubmitError, Unknown};
pub use identity::{Identity, IdentityError, IdentityFault, IdentitySignature};
pub use observer::Observer;
pub use options::Options;
pub use packed::{PackedLink, PackedReceiver, PackedSender};
pub use query::QueryError;
pub use quic::{QuicConnector, QuicOptions, client_config, transport_config};
pub use request::{Draft, LockRef, LockRequest};
pub use resolve::{DefiniteError, Outcome};
pub use router::{Attempt, RouteError, Router, Routing};
pub use state::{StateError, StatePages};
pub use surety_protocol as protocol;
pub use tail::{Tail, TailBatch, TailError};
pub use udp::UdpRuntime;
