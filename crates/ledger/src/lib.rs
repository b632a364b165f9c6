//! Money rules of one shard: partitions, locks, policy, price, stake, idempotency, expiry.
//!
//! [`Ledger`] is a plain function of its arguments: no clock, no file, no randomness. The engine tells it the time
//! ([`Ledger::advance`]), asks it to decide ([`Ledger::decide`]), and after a restart shows it the log again
//! ([`Ledger::replay`]). Live decisions and replay run through the same code.
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
mod mix;
mod op;
mod partition;
mod read;
mod replay;
mod ring;
mod slab;
mod state;
mod units;
mod verify;

pub use ledger::{Config, Decision, Divergence, FOLLOW_MAX, Ledger};
pub use replay::operation_len;
pub use state::{
    CaptureState, Entry, EntryError, EntryKey, EntryKind, LockState, QueuedState, SupplierState, TenantState,
    Totals, Violation,
};
