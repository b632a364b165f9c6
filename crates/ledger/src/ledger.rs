//! The ledger and what the engine calls of it.

use alloc::vec::Vec;
use surety_protocol::*;

use crate::state::*;

/// The most internal records that [`Ledger::decide`] appends to `follow`.
pub const FOLLOW_MAX: usize = 64;

/// What a ledger is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which shard it is.
    pub shard: ShardId,
    /// How long ids are accepted and remembered. It may not change while a log lives.
    pub id_window: Time,
    /// Ids remembered; past it requests are answered `OVERLOADED`.
    pub ids_max: usize,
    /// Locks kept; past it locks are answered `OVERLOADED`.
    pub locks_max: usize,
}

/// What is to become of the records that were decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They go into the log, then `follow`; the replies wait for them.
    Logged,
    /// They are dropped; nothing has changed. Replies that show state (look-ups, repeats) wait for what is logged before.
    NotLogged,
}

/// A log that does not say what the ledger says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// The records cannot be an operation.
    #[error("record {seq}: not an operation of a log")]
    Shape {
        /// Where.
        seq: Seq,
    },
    /// The ledger would have decided otherwise.
    #[error("record {seq}: the log has {logged:?}, the ledger decides {decided:?}")]
    Outcome {
        /// Where.
        seq: Seq,
        /// As logged.
        logged: alloc::boxed::Box<Record>,
        /// As decided.
        decided: alloc::boxed::Box<Record>,
    },
    /// The ledger would not have logged it.
    #[error("record {seq}: the ledger answers {code} and logs nothing")]
    NotLogged {
        /// Where.
        seq: Seq,
        /// Its answer.
        code: Code,
    },
    /// An internal record that is not due, or a lock before what was due.
    #[error("record {seq}: {kind} is not what is due")]
    NotDue {
        /// Where.
        seq: Seq,
        /// What it is.
        kind: Kind,
    },
    /// A checkpoint of another state.
    #[error("record {seq}: the checkpoint has state hash {logged:032x}, the ledger {found:032x}")]
    Checkpoint {
        /// Where.
        seq: Seq,
        /// As logged.
        logged: u128,
        /// As found.
        found: u128,
    },
    /// Time runs backwards.
    #[error("record {seq}: its time lies before the record before it")]
    Time {
        /// Where.
        seq: Seq,
    },
}

/// How many records the operation at the front of a log takes: one, a linked chain, or a head with its continuations.
/// `None` if the slice ends within it.
#[must_use]
pub fn operation_len(_records: &[Record]) -> Option<usize> {
    unimplemented!()
}

/// The state of one shard.
pub struct Ledger {}

#[allow(unused_variables, clippy::unimplemented)]
impl Ledger {
    /// An empty shard.
    #[must_use]
    pub fn new(config: Config) -> Self {
        unimplemented!()
    }
    /// Time moves on. Forgets what is past its window; appends the records that are now due, already applied, in order of
    /// deadline, then id, at most [`limits::DUE_RECORDS_PER_TURN_MAX`]. True if more are due: then locks are answered
    /// `OVERLOADED` until a later call returns false.
    pub fn advance(&mut self, now: Time, next_seq: Seq, out: &mut Vec<Record>) -> bool {
        unimplemented!()
    }
    /// Decides one operation (as [`Operations`] groups them, passed by [`admit`]), completes its records, appends one reply
    /// per request and, if it is to be logged, at most [`FOLLOW_MAX`] internal records that follow it, already applied.
    pub fn decide(
        &mut self,
        now: Time,
        caller: &Caller,
        first_seq: Seq,
        records: &mut [Record],
        replies: &mut Vec<Reply>,
        follow: &mut Vec<Record>,
    ) -> Decision {
        unimplemented!()
    }
    /// When [`Ledger::advance`] will have something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        unimplemented!()
    }
    /// Makes the record that states the state hash; it changes nothing.
    pub fn checkpoint(&mut self, now: Time) -> Record {
        unimplemented!()
    }
    /// A hint: these requests or records come next. Brings what they touch near; changes nothing.
    pub fn warm(&self, records: &[Record]) {
        unimplemented!()
    }
    /// Replays one logged operation, or one internal record.
    ///
    /// # Errors
    /// What differs from what the ledger decides. The ledger is then of no use any more.
    pub fn replay(&mut self, first_seq: Seq, records: &[Record]) -> Result<(), Divergence> {
        unimplemented!()
    }
    /// Hash of the whole state: equal for equal states, whatever their history.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        unimplemented!()
    }
    /// Checks every invariant from scratch.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn verify(&self) -> Result<(), Violation> {
        unimplemented!()
    }
    /// The time of the last decision or advance.
    #[must_use]
    pub fn time(&self) -> Time {
        unimplemented!()
    }
    /// Every partition's money, by handle.
    #[must_use]
    pub fn partitions(&self) -> Vec<Totals> {
        unimplemented!()
    }
    /// One partition's money.
    #[must_use]
    pub fn partition(&self, handle: PartitionHandle) -> Option<Totals> {
        unimplemented!()
    }
    /// One lock.
    #[must_use]
    pub fn lock(&self, tenant: TenantId, partition: PartitionHandle, id: Id) -> Option<LockState> {
        unimplemented!()
    }
    /// A partition's suppliers, by address.
    #[must_use]
    pub fn suppliers(&self, partition: PartitionHandle) -> Vec<SupplierState> {
        unimplemented!()
    }
    /// A partition's queued withdrawals, oldest first.
    #[must_use]
    pub fn queued(&self, partition: PartitionHandle) -> Vec<QueuedState> {
        unimplemented!()
    }
    /// The tenants, by number.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantState> {
        unimplemented!()
    }
    /// A tenant's rights on a partition.
    #[must_use]
    pub fn rights(&self, partition: PartitionHandle, tenant: TenantId) -> Rights {
        unimplemented!()
    }
    /// A merchant as set.
    #[must_use]
    pub fn merchant(&self, key: MerchantKey) -> Option<MerchantBody> {
        unimplemented!()
    }
    /// Locks kept.
    #[must_use]
    pub fn locks_len(&self) -> usize {
        unimplemented!()
    }
    /// Ids remembered.
    #[must_use]
    pub fn ids_len(&self) -> usize {
        unimplemented!()
    }
    /// Bytes that the ledger's tables take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
    /// The whole state, in order of bytes.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        core::iter::empty()
    }
    /// A ledger as of `time` from its entries, or from a part of them: all that have no [`Entry::key`], and those locks and
    /// ids that the records to be replayed touch.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_entries(
        config: Config,
        time: Time,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Self, EntryError> {
        unimplemented!()
    }
}

#[allow(unused_variables, clippy::unimplemented)]
impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// If the bytes are none.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, EntryError> {
        unimplemented!()
    }
    /// Its bytes; entries are ordered by them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        unimplemented!()
    }
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        unimplemented!()
    }
    /// The lock or id that it is; `None` for the small tables.
    #[must_use]
    pub fn key(&self) -> Option<EntryKey> {
        unimplemented!()
    }
    /// Its part of the state hash, which is the wrapping sum over all entries.
    #[must_use]
    pub fn hash(&self) -> u128 {
        unimplemented!()
    }
    /// True if a ledger at `now` has forgotten it.
    #[must_use]
    pub fn is_forgotten(&self, config: &Config, now: Time) -> bool {
        unimplemented!()
    }
    /// The locks and ids that records of a log touch.
    #[must_use]
    pub fn touched(records: &[Record]) -> Vec<EntryKey> {
        unimplemented!()
    }
}
