//! Money rules of one shard: partitions, locks, policy, price, stake, idempotency, expiry.
//!
//! [`Ledger`] is a plain function of its arguments: no clock, no file, no randomness. The engine tells it the time
//! ([`Ledger::advance`]), asks it to decide ([`Ledger::decide`]), and after a restart shows it the log again
//! ([`Ledger::replay`]). Live decisions and replay run through the same code.
//!
//! Invariants of the code:
//! - Nothing changes before every reason to refuse a request has been looked at; what is not logged leaves no trace.
//! - The state is a function of the log and of time. Forgetting is a function of time alone and is not logged; everything else
//!   that time does is a record.
//! - Every change of what is state goes through the primitives in `ledger.rs` and `edit.rs`, which keep the state hash.
//! - No decision depends on the order of a hash table, on a slot number, or on what tenants use of their quotas in replay.
#![doc = include_str!("../RECORDS.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod canon;
mod decide;
mod due;
mod edit;
mod entry;
mod index;
mod ledger;
mod load;
mod lock;
mod loss;
mod mix;
mod op;
mod partition;
mod read;
mod replay;
mod ring;
mod rows;
mod slab;
mod state;
mod units;
mod verify;
mod wire;

pub use ledger::{Config, Decision, Divergence, FOLLOW_MAX, Intake, Ledger};
pub use loss::{AcceptedLoss, LossError};
pub use partition::unit_value;
pub use replay::operation_len;
pub use rows::Page;
pub use state::{
    CaptureState, Entry, EntryError, EntryKey, EntryKind, LockState, QueuedState, SupplierState, TenantState,
    Totals, Violation,
};
