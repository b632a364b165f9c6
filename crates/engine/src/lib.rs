//! One shard of the engine: ledger and log behind one seam.
//!
//! Time, requests and disk completions come in as arguments; writes and replies go out as returned values. The server's
//! shard thread and the simulator's world are two short loops over the same calls; see [`Engine`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod clock;
mod config;
mod engine;
mod epochs;
mod gate;
mod quotas;
mod recover;
mod snapshot;

pub use config::{Config, Durability};
pub use engine::{Engine, Marks, Route};
pub use epochs::{Epochs, NotNoted};
pub use ledger::{AcceptedLoss, LossError};
pub use recover::{AfterLossError, Begin, RecoverError, Recovered, Report, create, recover};
pub use snapshot::{BuildError, build as build_snapshot, load as load_snapshot};
