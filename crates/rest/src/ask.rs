//! One request to the engine, until its outcome is definite or the time is over.

use std::time::Duration;

use surety_client::protocol::{Code, Record, Reply};
use surety_client::{Client, NotExecuted, SubmitError, Unknown};
use tokio::time::{Instant, sleep, timeout_at};

use crate::problem::Problem;

/// The first pause before a request is sent again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No sending of this call was executed, and none will be. An earlier call under the same key may have been.
    Refused(Code),
    /// The engine could not be reached, and nothing has left.
    Unreachable,
    /// It may have been executed, or still be.
    Unknown,
    /// It may have been executed before the engine was restored from a backup. Asking again helps at most once its partition is reconciled.
    Lost,
}

impl From<Failure> for Box<Problem> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(code) => Problem::of_code(code),
            Failure::Unreachable => Problem::unavailable("The engine cannot be reached; nothing was sent."),
            Failure::Unknown => Problem::unknown_outcome(),
            Failure::Lost => Problem::of_code(Code::UnknownAfterRestore),
        }
    }
}

/// Sends a request under its id until there is a reply or a refusal that is one of every sending, or until the deadline.
///
/// Nothing is given up on by burning it: the application has the key, and its repeat goes on where this has stopped.
pub(crate) async fn ask(client: &Client, request: Record, deadline: Instant) -> Result<Reply, Failure> {
    let mut pause = PAUSE_MIN;
    // One sending may have been executed.
    let mut is_open = false;
    loop {
        // What is given up on has left.
        let answer = match timeout_at(deadline, client.submit(request)).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => read(error),
            Err(_) => return Err(Failure::Unknown),
        };
        match answer {
            Failure::Unknown => is_open = true,
            // True of every sending of these bytes, a lost one for as long as this call may take.
            Failure::Lost | Failure::Refused(Code::Malformed | Code::TooLarge | Code::IdConflict) => {
                return Err(answer);
            }
            _ if !is_open => return Err(answer),
            // It says nothing of the sending before it.
            _ => {}
        }
        if Instant::now() + pause >= deadline {
            return Err(if is_open { Failure::Unknown } else { answer });
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

const fn read(error: SubmitError) -> Failure {
    match error {
        SubmitError::Unknown { cause: Unknown::AfterRestore, .. } => Failure::Lost,
        SubmitError::Unknown { .. } => Failure::Unknown,
        SubmitError::NotExecuted { why, .. } => match why {
            NotExecuted::Refused { code, .. } => Failure::Refused(code),
            NotExecuted::NoSuchShard(_) => Failure::Refused(Code::UnknownPartition),
            NotExecuted::Invalid(_) | NotExecuted::NotOneOperation => Failure::Refused(Code::Malformed),
            NotExecuted::IdInUse => Failure::Refused(Code::IdConflict),
            NotExecuted::Busy => Failure::Refused(Code::Overloaded),
            NotExecuted::NoLink(_) | NotExecuted::Deadline | NotExecuted::ClientClosed => {
                Failure::Unreachable
            }
        },
    }
}
