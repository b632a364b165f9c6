//! From "unknown" to a definite outcome: looking an id up, and burning it if it is not there.

use std::time::Duration;

use surety_protocol::{Code, CodeClass, Flags, Id, Kind, PartitionHandle, Record, Reply, Seq, sabotage};

use crate::client::Client;
use crate::error::{NotExecuted, ResolveError, SubmitError, Unknown};

/// What became of a request, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was executed. The reply is its own or that of a look-up, which tells the present state.
    Executed(Reply),
    /// It was recorded as declined; the id is spent.
    Declined(Reply),
    /// It was not executed and never will be: its id has been burned.
    Burned(Reply),
    /// No engine can have executed this request: it is malformed, too large, or its id belongs to another one. Nothing is
    /// recorded for it. Other admission codes are no outcome: they speak of one sending only.
    Refused(Reply),
}

impl Outcome {
    /// The reply or look-up that says so.
    #[must_use]
    pub const fn reply(&self) -> &Reply {
        match self {
            Self::Executed(reply) | Self::Declined(reply) | Self::Burned(reply) | Self::Refused(reply) => {
                reply
            }
        }
    }

    /// Reads a recorded answer. None if the reply is not one.
    fn recorded(reply: Reply) -> Option<Self> {
        match reply.code().class() {
            CodeClass::Success => Some(Self::Executed(reply)),
            CodeClass::Decline if reply.code() == Code::Burned => Some(Self::Burned(reply)),
            CodeClass::Decline => Some(Self::Declined(reply)),
            CodeClass::Admission | CodeClass::Undecided | CodeClass::Unknown => None,
        }
    }
}

impl Client {
    /// Makes the outcome of an id definite: looks it up with burn until that is answered, for at most the deadline of
    /// [`crate::Options`]. An id that the engine does not know is spent by this. It decides whatever may have sent the id, but for
    /// an advice or a reversal under an id of version 7, which may still come when an ordinary burn is forgotten: for these use
    /// [`Client::submit_definite`].
    ///
    /// # Errors
    /// [`ResolveError::NoAnswer`] if no look-up was answered or admitted (an admission code speaks of the look-up, not of the
    /// id), [`ResolveError::Forgotten`] if the id is older than engines remember.
    pub async fn resolve(&self, partition: PartitionHandle, id: Id) -> Result<Outcome, ResolveError> {
        self.resolve_as(partition, id, id.is_lasting()).await
    }

    async fn resolve_as(
        &self,
        partition: PartitionHandle,
        id: Id,
        is_lasting: bool,
    ) -> Result<Outcome, ResolveError> {
        let flags = if is_lasting { Flags::BURN.with(Flags::LASTING) } else { Flags::BURN };
        let started = tokio::time::Instant::now();
        for failures in 1_u32.. {
            match self.lookup_with(partition, id, flags).await {
                Ok(reply) => return read_lookup(partition, id, reply),
                Err(SubmitError::Unknown { cause: Unknown::AfterRestore, .. }) => {
                    return Err(ResolveError::Lost { id });
                }
                Err(error) => {
                    let pause =
                        self.options().backoff(failures, failures.into()).max(Duration::from_millis(1));
                    let is_late = started.elapsed() + pause > self.options().deadline;
                    if is_late || !may_pass(error) {
                        return Err(ResolveError::NoAnswer { id, partition, error });
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
        unreachable!("the loop above ends by returning")
    }

    /// Submits a request and makes its outcome definite if it is not, whoever may have sent it before.
    ///
    /// An admission code settles only that this sending was not executed, so the id is then resolved, which burns it if
    /// nothing is recorded under it: after [`Outcome::Burned`] a new attempt needs a new id. To repeat a request that was
    /// not admitted under its own id, use [`Client::submit`].
    ///
    /// # Errors
    /// [`DefiniteError::NotExecuted`] if the request never left; else why the id could not be resolved.
    pub async fn submit_definite(&self, request: Record) -> Result<Outcome, DefiniteError> {
        match self.submit(request).await {
            Ok(reply) => {
                if let Some(outcome) = Outcome::recorded(reply) {
                    return Ok(outcome);
                }
            }
            Err(SubmitError::NotExecuted { id, why: NotExecuted::Refused { code, time } }) => {
                if is_of_the_body(code) {
                    let (code, kind) = (code as u8, request.kind);
                    return Ok(Outcome::Refused(Reply { id, time, code, kind, ..Reply::default() }));
                }
            }
            Err(error @ SubmitError::NotExecuted { .. }) => return Err(DefiniteError::NotExecuted(error)),
            Err(SubmitError::Unknown { .. }) => {}
        }
        // What may come for days is burned for days.
        let kind = request.kind();
        let is_lasting = request.id.is_lasting() || matches!(kind, Some(Kind::Advice | Kind::Reverse));
        let outcome = self.resolve_as(request.partition, request.id, is_lasting).await;
        outcome.map_err(DefiniteError::Unresolved)
    }
}

/// Why [`Client::submit_definite`] has no recorded outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefiniteError {
    /// It never left this client. Like [`SubmitError::NotExecuted`] this speaks of this call only.
    #[error("{0}")]
    NotExecuted(SubmitError),
    /// It may have been executed, and could not be looked up.
    #[error("{0}")]
    Unresolved(ResolveError),
}

/// Reads the answer to a look-up with burn.
fn read_lookup(partition: PartitionHandle, id: Id, reply: Reply) -> Result<Outcome, ResolveError> {
    match reply.code() {
        // A burn is recorded. The engine records none for an id that can no longer be accepted; but then it may also have
        // forgotten what it once did under it.
        Code::NotFound if reply.seq == Seq(0) && !sabotage!("absence-told-before-it-is-recorded") => {
            Err(ResolveError::Forgotten { id })
        }
        Code::NotFound => Ok(Outcome::Burned(reply)),
        code => Outcome::recorded(reply).ok_or(ResolveError::NoAnswer {
            id,
            partition,
            error: SubmitError::Unknown { id: reply.id, cause: Unknown::RepeatRefused(code) },
        }),
    }
}

/// True for admission codes that every sending of the same bytes gets, so that none of them can have been executed.
const fn is_of_the_body(code: Code) -> bool {
    matches!(code, Code::Malformed | Code::TooLarge | Code::IdConflict)
}

/// True if another look-up may be answered where this one was not.
fn may_pass(error: SubmitError) -> bool {
    match error {
        SubmitError::Unknown { .. } => true,
        SubmitError::NotExecuted { why, .. } => match why {
            NotExecuted::Refused { code, .. } => code.may_pass(),
            NotExecuted::Busy | NotExecuted::Deadline | NotExecuted::IdInUse => true,
            NotExecuted::Invalid(_)
            | NotExecuted::NotOneOperation
            | NotExecuted::NoSuchShard(_)
            | NotExecuted::NoLink(_)
            | NotExecuted::ClientClosed => false,
        },
    }
}
