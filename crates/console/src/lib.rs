//! The console: what happens to the collateral, for people with a browser, and the few things that they may do about it.
//!
//! It runs on a thread of its own beside the engine, behind a listener of its own. What it shows comes from the counters of `/metrics` and from
//! questions about the state that are asked as the person who is signed in; what it does are requests of that person. So the engine's own
//! rights hold, and its log names who it was. GUIDE.md says how to use it, and what keeps strangers out.
#![forbid(unsafe_code)]

mod actions;
mod approvals;
mod assets;
mod config;
mod guard;
pub mod link;
mod listener;
mod live;
pub mod overview;
mod past;
mod proposals;
pub mod reading;
mod reads;
mod refusal;
mod refused;
mod rows;
mod sessions;
mod settlement;
mod site;
mod start;

pub use config::{Asset, ConsoleConfig, PolicyWords};
pub use site::TlsFiles;
pub use start::{Console, StartError};
