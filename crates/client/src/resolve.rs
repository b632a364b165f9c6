//! From "unknown" to a definite outcome: looking an id up, and burning it if it is not there.

use std::time::Duration;

use surety_protocol::{Code, CodeClass, Id, PartitionHandle, Record, Reply, Seq};

use crate::client::Client;
use crate::error::{NotExecuted, ResolveError, SubmitError};

/// What became of a request, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was executed. The reply is its own or that of a look-up, which tells the present state.
    Executed(Reply),
    /// It was recorded as declined; the id is spent.
    Declined(Reply),
    /// It was not executed and never will be: its id has been burned.
    Burned(Reply),
    /// It was not admitted. Nothing is recorded and the id is not spent: a later repeat may be executed.
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

    /// Reads a recorded answer, or that of a look-up with burn.
    pub(crate) fn of(reply: Reply) -> Self {
        match reply.code().class() {
            CodeClass::Success => Self::Executed(reply),
            CodeClass::Decline if reply.code() == Code::Burned => Self::Burned(reply),
            CodeClass::Decline => Self::Declined(reply),
            CodeClass::Admission | CodeClass::Undecided => Self::Burned(reply),
        }
    }
}

impl Client {
    /// Makes the outcome of an id definite: looks it up with burn until that is answered, for at most the deadline of
    /// [`crate::Options`]. An id that the engine does not know is spent by this.
    ///
    /// # Errors
    /// [`ResolveError::NoAnswer`] if no look-up was answered, [`ResolveError::Forgotten`] if the id is older than engines
    /// remember.
    pub async fn resolve(&self, partition: PartitionHandle, id: Id) -> Result<Outcome, ResolveError> {
        let started = tokio::time::Instant::now();
        for failures in 1_u32.. {
            match self.lookup(partition, id, true).await {
                Ok(reply) => return read_lookup(id, reply),
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

    /// Submits a request and makes its outcome definite if it is not.
    ///
    /// # Errors
    /// The error of the submission if the request was definitely not executed, though not for an answer of the engine (that
    /// is [`Outcome::Refused`]); else why the id could not be resolved.
    pub async fn submit_definite(&self, request: Record) -> Result<Outcome, DefiniteError> {
        match self.submit(request).await {
            Ok(reply) => Ok(Outcome::of(reply)),
            Err(SubmitError::NotExecuted { id, why: NotExecuted::Refused { code, time } }) => {
                Ok(Outcome::Refused(Reply {
                    id,
                    time,
                    code: code as u8,
                    kind: request.kind,
                    ..Reply::default()
                }))
            }
            Err(error @ SubmitError::NotExecuted { .. }) => Err(DefiniteError::NotExecuted(error)),
            Err(SubmitError::Unknown { .. }) => {
                self.resolve(request.partition, request.id).await.map_err(DefiniteError::Unresolved)
            }
        }
    }
}

/// Why [`Client::submit_definite`] has no recorded outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefiniteError {
    /// It never left this client.
    #[error("{0}")]
    NotExecuted(SubmitError),
    /// It may have been executed, and could not be looked up.
    #[error("{0}")]
    Unresolved(ResolveError),
}

/// Reads the answer to a look-up with burn.
fn read_lookup(id: Id, reply: Reply) -> Result<Outcome, ResolveError> {
    // A burn is recorded. The engine records none for an id that can no longer be accepted; but then it may also have
    // forgotten what it once did under it.
    if reply.code() == Code::NotFound && reply.seq == Seq(0) {
        return Err(ResolveError::Forgotten { id });
    }
    Ok(Outcome::of(reply))
}

/// True if another look-up may be answered where this one was not.
fn may_pass(error: SubmitError) -> bool {
    match error {
        SubmitError::Unknown { .. } => true,
        SubmitError::NotExecuted { why, .. } => match why {
            NotExecuted::Refused { code, .. } => {
                matches!(code, Code::Overloaded | Code::Quota | Code::StorageLow | Code::ChainStale)
            }
            NotExecuted::Busy | NotExecuted::Deadline | NotExecuted::IdInUse => true,
            NotExecuted::Invalid(_)
            | NotExecuted::NotOneOperation
            | NotExecuted::NoSuchShard(_)
            | NotExecuted::NoLink(_)
            | NotExecuted::ClientClosed => false,
        },
    }
}
