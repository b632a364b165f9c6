//! The network side of Surety: shard threads, QUIC listeners, tenants, the admin listener, and the embedded engine.
#![forbid(unsafe_code)]

mod clock;
mod config;
mod frames;
pub mod identity;
mod limiter;
pub mod pki;
mod tls;

pub use clock::{Clock, ClockGap, Readings, SLEW_PPM};
pub use config::{Config, Io, Limits};
pub use frames::{Frame, FrameBuffer};
pub use tls::{TlsError, server_config, transport_config};
