//! Front doors: acquirers' hosts connect over ISO 8583 and are served by an engine.
//!
//! [`Gateway::start`] listens for one link's hosts. Each message becomes an intent, the intent requests of the engine under ids
//! made of the message, their replies the message's reply (`iso8583::payment`); many messages of a socket are served at
//! once and answered as they are done. What has no definite outcome in time is not answered: the acquirer repeats it or takes
//! it back, and both are safe.
#![forbid(unsafe_code)]

mod abreast;
mod ask;
mod book;
mod book_file;
mod books;
mod config;
mod connection;
mod desk;
mod follow;
mod gateway;
mod in_flight;
mod mac;
mod marks;
mod metrics;
mod outbox;
mod reply;
mod session;
mod settings;
mod shape;
pub mod simulate;
mod tls;

#[cfg(test)]
#[path = "../../client/examples/stage/mod.rs"]
mod stage;

pub use book_file::BookError;
pub use config::{Limits, LinkConfig};
pub use gateway::{Gateway, ReloadError, StartError};
pub use mac::{MacAlgorithm, MacConfig, MacError, MacSource, Macs};
pub use metrics::LinkNumbers;
pub use settings::SettingsError;
pub use tls::{HostTlsConfig, TlsConfig, TlsError};
