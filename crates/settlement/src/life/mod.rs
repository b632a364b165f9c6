//! The life of a batch: sealed, signed, sent, included, final, booked; or held, and sealed again.
//!
//! The settler is a loop around one pure function. It reads a [`View`] of the chain at one block, asks [`next_action`] what to do with
//! its [`Log`], does that, and appends what came of it. After a crash it reads its log and goes on: nothing else is remembered.
//!
//! ```text
//! view = look at the chain            action = next_action(log, view, policy)
//! Seal     -> read the stream, seal, append Sealed           Hold     -> append Held
//! Sign     -> sign, append Attempt, sync                     Reseal   -> append Dropped, take the sealer back
//! Broadcast-> send these bytes, again if need be             Halt     -> append Halted, page somebody
//! Finalise -> append Final        Book -> tell the ledger, append Booked
//! ```

mod entry;
mod fees;
mod flush;
mod log;
mod next;
mod risk;
mod view;

pub use entry::{Attempt, Entry, EntryError, Halt, Purpose, Refusal};
pub use fees::{DataPolicy, FeePolicy, Fees, Urgency};
pub use flush::{FlushPolicy, Pile};
pub use log::{Base, Fold, Log, LogError, TooLong, Unbooked};
pub use next::{Action, Alarm, Decision, Policy, next_action};
pub use risk::Coverage;
pub use view::{ContractHead, TxState, View};
