//! Follows payers' payments on their own chains, and tells the engine what became of them; feeds prices.
//!
//! A guarantee stands until the payer's own asset is final. Under the release rule `confirmations` somebody has to watch for
//! that: a [`Watcher`] reads one asset's chain through a [`source::Source`], and for every [`Watch`] sends one `settle` or, when
//! the deadline has passed, what consumes the lock's captures. Under the rules `manual` and `timeout` there is nothing to
//! watch, and [`Watch::by_rule`] says so. The price feeder in [`price`] sends logged prices.
//!
//! # What it promises
//!
//! - **Only what is confirmed counts**, in the order of the chain, with the chain's own clock. [`track`] states the rule.
//! - **A node that is silent decides nothing.** Neither does one that disagrees with a second one
//!   ([`source::SecondOpinion`]). What is not decided is left to the engine, which consumes at the settle-by time; so a watch's
//!   deadline and its confirmations belong before that.
//! - **A decision is written down before it is sent**, with the id that it is sent under, so a watcher that was killed anywhere
//!   goes on where it was, and the engine acts once.
//! - **What decides nothing is told**: a late or second payment, a decision whose block the chain has taken back. Somebody has to
//!   act on these; the watcher moves no payer's money.
//!
//! # What it does not see
//!
//! What one node alone says is believed if there is no second. Transfers of the native coin inside a contract's call, and what
//! a token takes away from a transfer without an event.

#![forbid(unsafe_code)]

mod decimal;
mod delivery;
mod follower;
pub mod journal;
mod json;
mod payment;
pub mod price;
pub mod source;
pub mod spool;
mod start;
pub mod track;
mod watcher;

pub use follower::Base;
pub use payment::{Account, BlockRef, CONFIRMATIONS_MAX, Payment, SeenBlock, Watch, WatchError, WatchKey};
pub use watcher::{Config, Turn, Watcher, WatcherError};
