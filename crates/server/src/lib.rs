//! The network side of Surety: shard threads, QUIC listeners, tenants, the admin listener, and the embedded engine.
//!
//! A shard is one thread that owns its engine, its log and its QUIC endpoint; no lock is taken on the way of a request.
//! [`Server::start`] recovers and serves a data directory that [`init`] has made; [`Embedded`] is the same without a
//! network.
#![forbid(unsafe_code)]

mod admin;
mod authority;
mod clock;
mod config;
mod data;
mod embedded;
mod frames;
mod history;
pub mod identity;
mod limiter;
mod metrics;
pub mod pki;
mod release;
mod server;
mod shard;
mod shared;
mod threads;
mod tls;
mod traces;

pub use authority::{Authority, NotVouched, Vouched};
pub use clock::readings;
pub use config::{Config, Limits, Stop, TraceConfig};
pub use data::{
    FilesError, InitError, InitOptions, RestoredEpochs, RestoredError, accept_clock, backup_files,
    epochs_file, furnish_restored, init, init_with, last_noted_epoch, pki_path,
};
pub use embedded::{Embedded, EmbeddedConnector};
pub use engine::Durability;
pub use engine::clock::{Clock, ClockGap, Readings, SLEW_PPM};
pub use frames::{Frame, FrameBuffer};
pub use history::{Asked, HISTORY_AWAY, Historian, NO_HISTORY, Unanswered};
pub use release::{address_of, is_genuine_release};
pub use server::{Inside, Running, Server, ShardEnd, ShardStart, StartError, StartFailure};
pub use shard::{KeeperError, ShardError, StartJournalError};
pub use storage::IoMode;
pub use tls::{TlsError, server_config, transport_config};
