//! Why a settler cannot go on, and what somebody should know while it does.

use alloy_primitives::{Address, B256, Bytes};
use chain::{BackendError, KeyError, SendError};
use settlement::life::{Alarm, Halt, LogError};
use settlement::{DataError, NettingError, SnapshotError};
use surety_client::{DefiniteError, ResolveError, SubmitError};
use surety_protocol::{Code, PartitionHandle, Seq, ShardId};

use crate::certifier::{Gap, ShelfError};
use crate::journal::JournalError;
use crate::points::Point;
use crate::scan::{ExitAsked, PaidOnChain, Supply};
use crate::stream::StreamError;

/// Why it cannot go on. `RUNBOOK.md` says what to do about each.
#[derive(Debug, thiserror::Error)]
pub enum SettlerError {
    /// Its log cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another process settles from this directory, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] storage::LockError),
    /// A file of its directory cannot be read or written.
    #[error("the settler's directory: {0}")]
    Files(#[from] std::io::Error),
    /// The log is of another engine, contract or chain.
    #[error("the settler's directory is of another engine, contract or chain")]
    Foreign,
    /// The entries do not follow from each other.
    #[error("the settler's log does not add up: {0}")]
    Log(#[from] LogError),
    /// The newest snapshot is newer than the log: one of them was put back.
    #[error("snapshot {snapshot} is newer than the log, which has booked batch {booked}")]
    OldLog {
        /// Batch of the snapshot.
        snapshot: u64,
        /// Last booked batch of the log.
        booked: u64,
    },
    /// There is no sound snapshot, and without one batches have to be sealed again whose data nobody has kept.
    #[error(
        "there is no sound snapshot of batch {batch} or a later one, and no log has batch {missing}: put back a \
         snapshot, or the logs that were folded"
    )]
    NoSnapshot {
        /// What was settled up to here is folded.
        batch: u64,
        /// The first that is not there.
        missing: u64,
    },
    /// The log that has a batch was folded, and is not in the directory any more.
    #[error(
        "batch {batch} is in a log that was folded: settlement-{until}.log, or one before it, is not here"
    )]
    LogGone {
        /// Which batch.
        batch: u64,
        /// The next log, or what was kept of it, begins behind this one.
        until: u64,
    },
    /// A snapshot that is sound and does not read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The data of a sealed batch do not read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The same stream did not give the same batch again: what was sealed does not follow from the engine's log.
    #[error("batch {0} is not what the engine's log gives: the log or this program is another one")]
    Diverged(u64),
    /// The engine's change stream cannot be followed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The stream does not add up.
    #[error(transparent)]
    Netting(#[from] NettingError),
    /// The engine refuses to book what the chain has credited.
    #[error("the engine does not book batch {batch} in partition {partition:?}: {code:?}")]
    NotBooked {
        /// Which batch.
        batch: u64,
        /// Where.
        partition: PartitionHandle,
        /// What it answers.
        code: Code,
    },
    /// The key is not the contract's poster.
    #[error("the key's address is not the contract's poster")]
    NotPoster,
    /// The contract is not where it should be.
    #[error("chain, contract or its code are not those that were given")]
    WrongChain,
    /// There is no contract where it should be.
    #[error("there is no contract at that address of this chain yet")]
    NoContract,
    /// What the key signs is worth nothing to the contract.
    #[error(
        "the contract does not take certificates of {signer} for seq {seq} of shard {shard}: {}",
        if *is_known { "its range is over or void" } else { "it is no signer" }
    )]
    NotSigner {
        /// The key's address.
        signer: Address,
        /// Which shard.
        shard: ShardId,
        /// The next record there.
        seq: Seq,
        /// The contract has heard of it.
        is_known: bool,
    },
    /// Certificates cannot be read or written.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The engine has dropped records that the certificate service has not read.
    #[error(
        "the engine no longer has seq {} of shard {}, only from {} on: locks in between get no certificate. Start it with \
         the engine's archive, or accept the gap", .0.from, .0.shard, .0.oldest
    )]
    Gap(Gap),
    /// Calls were to be answered with the poster's key.
    #[error("the key that answers calls is the poster's: each would take the other's nonces")]
    PosterAnswers,
    /// The settler has stopped, and somebody has to look.
    #[error("halted: {0}")]
    Halted(Halt),
    /// The poster's key does not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The chain could not be asked. It may be asked again.
    #[error(transparent)]
    Chain(#[from] BackendError),
    /// The engine could not be asked. It may be asked again.
    #[error("the engine: {0}")]
    Engine(String),
    /// A test stopped it here.
    #[error("stopped at {0:?}")]
    Stopped(Point),
}

impl SettlerError {
    /// True if trying again may help without anybody doing something.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Chain(_) | Self::Engine(_))
    }
}

impl From<SubmitError> for SettlerError {
    fn from(error: SubmitError) -> Self {
        Self::Engine(error.to_string())
    }
}

impl From<DefiniteError> for SettlerError {
    fn from(error: DefiniteError) -> Self {
        Self::Engine(error.to_string())
    }
}

impl From<ResolveError> for SettlerError {
    fn from(error: ResolveError) -> Self {
        Self::Engine(error.to_string())
    }
}

/// What somebody should know. The settler goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// Of a batch.
    #[error("{0:?}")]
    Batch(Alarm),
    /// The node did not take a transaction.
    #[error("the node does not take a transaction: {0}")]
    NotTaken(SendError),
    /// The contract is not on the chain yet.
    #[error("the contract is not on the chain yet")]
    NoContract,
    /// More has changed than one batch can hold, and none could be sealed: nothing more is read.
    #[error("{changes} leaves have changed and no batch can be sealed: the stream is not read on")]
    ReaderWaits {
        /// How many.
        changes: usize,
    },
    /// The log has grown and could not be put into one entry. It goes on as it is, and that is tried again when it has doubled.
    #[error("the settler's log stays as long as it is: {0}")]
    NotFolded(String),
    /// The chain's events and its balances tell different amounts, or events are missing: nothing is credited.
    #[error("the node's events up to block {block} do not add up with the contract's own numbers")]
    ChainDisagrees {
        /// The finalized block.
        block: u64,
    },
    /// A supply that the engine does not take: its partition is unknown, or the engine has a reason.
    #[error("supply {} of {} is not credited: {why}", supply.nonce, supply.amount)]
    NotCredited {
        /// Which.
        supply: Supply,
        /// Why not.
        why: NotCredited,
    },
    /// An exit that the engine does not answer: the partition is frozen or unknown.
    #[error("exit {} is not answered", .0.nonce)]
    ExitNotAnswered(ExitAsked),
    /// A certificate was called on chain, and the engine does not know such a lock: the signer's key is abused, or the
    /// engine was put back.
    #[error("a guarantee was called that the engine does not know: lock {lock}, {code:?}")]
    UnknownGuarantee {
        /// The lock's name on chain, in hexadecimal.
        lock: String,
        /// What the engine answers.
        code: Code,
    },
    /// The contract has paid a certificate that no lock of the engine stands for, and its partition has borne the loss. It is
    /// frozen until somebody has looked.
    #[error("{} was paid for a guarantee that the engine does not know: the partition is frozen", .0.amount)]
    PaidForNoLock(PaidOnChain),
    /// An answer to a call was handed to a node.
    #[error("an answer to the call of lock {lock} was sent, after which {owed} is owed for it")]
    AnswerSent {
        /// The lock's name on chain.
        lock: B256,
        /// In base units.
        owed: u128,
    },
    /// Calls could not be looked at.
    #[error("calls are not answered: {0}")]
    AnswersHeldUp(String),
    /// Less is owed for a called lock than it was called for, and the contract has not been told.
    #[error("the call of lock {lock} can be answered and is not: {why}")]
    CallNotAnswered {
        /// The lock's name on chain.
        lock: B256,
        /// Why not.
        why: NotAnswered,
    },
    /// A guarantee that was paid is not booked yet. Batches that do not acknowledge it are soon refused.
    #[error("a guarantee of {} that was paid is not booked: {code:?}", paid.amount)]
    GuaranteeNotBooked {
        /// Which.
        paid: PaidOnChain,
        /// What the engine answers.
        code: Code,
    },
}

/// Why a call is not answered. It is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnswered {
    /// The settler was given none.
    #[error("there is no key to answer with")]
    NoKey,
    /// No batch that is on chain lists what was credited.
    #[error("the batch that proves it is not on chain yet")]
    NotProvable,
    /// The engine does not tell the merchant's signature again.
    #[error("the engine does not answer")]
    EngineSilent,
    /// The engine has dropped the log that has the merchant's signature.
    #[error("the engine no longer has the merchant's release")]
    ReleaseGone,
    /// The contract does not take the answer.
    #[error("the contract refuses the answer with {0}")]
    Refused(Bytes),
    /// Blocks are dearer than anything is ever paid.
    #[error("gas is too dear")]
    TooDear,
    /// The node does not take the transaction.
    #[error("{0}")]
    NotTaken(SendError),
}

/// Why a supply waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCredited {
    /// The engine has no partition with this on-chain id.
    #[error("the engine has no such partition")]
    UnknownPartition,
    /// The engine has another deposit under the same number.
    #[error("the engine has another deposit under its number")]
    OtherDeposit,
    /// The engine declines it.
    #[error("the engine answers {0}")]
    Declined(Code),
}
