//! What a process tells of itself: numbers that Prometheus reads, and whether it serves.
//!
//! A process has a [`Listener`] for its [`Source`]. Numbers are kept in [`Counter`], [`Gauge`], [`Histogram`] and [`Tally`], and written on a
//! [`Page`]. No label may name what there may be many of: a partition, a lock, a merchant, a token.
#![forbid(unsafe_code)]

mod bounded;
mod listener;
mod numbers;
pub mod otlp;
mod page;
mod process;
mod sparing;

pub use listener::{Listener, Source};
pub use numbers::{Counter, Gauge, Held, Histogram, Tally};
pub use page::{Page, Sort};
pub use sparing::Sparing;
