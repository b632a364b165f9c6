//! Hand-offs between threads: how one leaves something for another and makes sure that it is seen.
//!
//! No runtime and no clock is known here, so that `loom` can try every order of the threads: `tests/loom.rs`, compiled with
//! `--cfg loom`, and `shuttle` many orders of more threads: `tests/shuttle.rs`. What is shared beyond that are queues of crossbeam and channels of the standard library.
//!
//! The rule for users is one: leave first, ring then.
#![forbid(unsafe_code)]

mod bell;
mod mailbox;
mod pending;
mod sync;

pub use bell::Bell;
pub use mailbox::Mailbox;
pub use pending::Pending;
