//! The real engine in a world that is made to break it, and an oracle that knows what it must answer.
//!
//! A world is one thread and one seed: disk, network, clock and clients are data, and nothing in it asks the system for
//! anything, so that a seed is a history. Only the commands, at the edge, use threads, the clock and the terminal.
#![forbid(unsafe_code)]

pub mod chain;
pub mod crash;
pub mod invariants;
pub mod oracle;
pub mod random;
pub mod report;
pub mod run;
pub mod sabotage;
mod settler;
pub mod world;
