//! What can go wrong with a request, split by the one question that matters: may it have been executed?

use surety_protocol::{Code, Id, PartitionHandle, RecordError, ShardId, Time};

use crate::transport::OpenError;

/// Why a request has no recorded answer.
///
/// A decline is not an error: it is a reply with a code. [`SubmitError::NotExecuted`] is final and safe to act on for whoever
/// knows that no other call has sent the id; [`SubmitError::Unknown`] is not: repeat the request under the same id, or look
/// it up with [`crate::Client::resolve`].
///
/// Both speak of one call: its sending, and the repeats of it that the client made by itself. A call knows nothing of an
/// earlier one under the same id, by another client, an earlier process or a front door that got the same message twice:
/// that one may have been executed even if this one was not admitted. Whoever may have sent the id before uses
/// [`crate::Client::submit_definite`], or [`crate::Client::resolve`] after a `NotExecuted` as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Not executed by this call, and no copy of it that this call has sent is on its way.
    #[error("request {id} was not executed: {why}")]
    NotExecuted {
        /// The request.
        id: Id,
        /// Why not.
        why: NotExecuted,
    },
    /// It may have been executed, or still be.
    #[error(
        "the outcome of request {id} is unknown ({cause}): repeat it under the same id or resolve the id"
    )]
    Unknown {
        /// The request.
        id: Id,
        /// How its trace was lost.
        cause: Unknown,
    },
}

/// Why a call definitely did not execute its request. It says nothing of earlier calls under the same id: see
/// [`SubmitError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotExecuted {
    /// The engine answered this sending with an admission code, and recorded nothing for it. An engine that is short of
    /// something may answer so before it has looked whether it knows the id, and one that has forgotten an id calls it
    /// stale: the code does not tell what an earlier call under the same id has come to.
    #[error("the engine answered {code}")]
    Refused {
        /// The admission code; [`Code::LinkedFailed`] where another member of its chain got one.
        code: Code,
        /// The engine's time, for ids that are refused for theirs.
        time: Time,
    },
    /// The bytes are no request; the engine would have closed the connection.
    #[error("{0}")]
    Invalid(#[from] RecordError),
    /// The records are not one operation: none at all, more than fit into a frame, or several where one was asked for.
    #[error("the records are not one operation")]
    NotOneOperation,
    /// The same id with another body is unanswered on this client.
    #[error("its id is in use by another request of this client")]
    IdInUse,
    /// The bound on unanswered requests was reached.
    #[error("too many requests of this client are unanswered")]
    Busy,
    /// The engine has no such shard.
    #[error("shard {0} does not exist")]
    NoSuchShard(ShardId),
    /// No link could be opened, and the reason will not go away by itself.
    #[error("no link to its shard: {0}")]
    NoLink(OpenError),
    /// The deadline passed before it left.
    #[error("the deadline passed before it could be sent")]
    Deadline,
    /// The client was closed before it left.
    #[error("the client is closed")]
    ClientClosed,
}

/// How the trace of a request that had left was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No answer before the deadline.
    #[error("no answer before the deadline")]
    Deadline,
    /// Link after link broke while it was unanswered.
    #[error("{0} links broke while it was unanswered")]
    LinksLost(u32),
    /// A link broke while it was unanswered, and no other could be opened.
    #[error("the link broke and could not be opened again: {0}")]
    NoLink(OpenError),
    /// It was repeated after a link had broken, and the repeat was answered with an admission code, which says nothing
    /// about the first sending.
    #[error("its repeat was answered {0}")]
    RepeatRefused(Code),
    /// The same operation, already sent by another call of this client, is unanswered; that call gets the answer.
    #[error("another call of this client waits for the same operation")]
    InFlight,
    /// The engine was restored from a backup. Either what it may have decided under this id before is lost, and no repeat and no
    /// look-up will ever tell; or the id is of a later time, and the partition is not reconciled yet: then a repeat executes it
    /// afterwards, and a look-up that burns it is definite. Never retry it under another id before its outcome is settled with the
    /// merchant.
    #[error(
        "the engine was restored from a backup and cannot tell what became of it, or its partition is not reconciled yet"
    )]
    AfterRestore,
    /// The engine sent a reply that decides nothing.
    #[error("its reply decides nothing")]
    Undecided,
    /// The client was closed while it was unanswered.
    #[error("the client was closed")]
    ClientClosed,
    /// Its caller no longer waits for it. No call returns this; observers are told.
    #[error("its caller gave up waiting")]
    GivenUp,
}

impl SubmitError {
    /// The id of the request.
    #[must_use]
    pub const fn id(&self) -> Id {
        match self {
            Self::NotExecuted { id, .. } | Self::Unknown { id, .. } => *id,
        }
    }

    /// True if this call certainly did not execute its request.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        matches!(self, Self::NotExecuted { .. })
    }

    /// The admission code, where the engine answered with one and that is the whole story.
    #[must_use]
    pub const fn refusal(&self) -> Option<Code> {
        match self {
            Self::NotExecuted { why: NotExecuted::Refused { code, .. }, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Why a client could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The first link could not be opened.
    #[error("cannot reach shard {shard}: {error}")]
    Open {
        /// Which shard.
        shard: ShardId,
        /// Why.
        error: OpenError,
    },
    /// The identity cannot be used for TLS.
    #[error("the identity cannot be used: {0}")]
    Identity(crate::IdentityFault),
    /// No address was given.
    #[error("no address to connect to")]
    NoAddress,
}

/// Why an id could not be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No look-up was answered in time, or the engine did not admit it; then nothing is known of the id itself. Try again:
    /// burning is repeatable.
    #[error("id {id} in {partition} could not be looked up: {error}")]
    NoAnswer {
        /// The id.
        id: Id,
        /// Where.
        partition: PartitionHandle,
        /// What became of the last look-up.
        error: SubmitError,
    },
    /// The engine was restored from a backup and cannot tell: the id may be of what is lost, which nobody learns any more, or its
    /// partition is not yet reconciled. Then asking again once it is does help; the engine does not say which.
    #[error(
        "id {id}: the engine was restored from a backup and cannot tell what became of it; it may be able to once its partition is reconciled"
    )]
    Lost {
        /// The id.
        id: Id,
    },
    /// The id is older than engines remember: "not found" no longer means "not executed".
    #[error("id {id} is too old: the engine no longer remembers every id of its time")]
    Forgotten {
        /// The id.
        id: Id,
    },
}
