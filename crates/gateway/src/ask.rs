//! One request, until its outcome is definite.

use std::time::Duration;

use surety_client::protocol::{Code, Kind, Record, Reply};
use surety_client::{Client, NotExecuted, Outcome, SubmitError};
use tokio::time::{Instant, sleep};

/// The first pause before a request is sent again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Sends a request under its id until there is a reply. None if there is none at the deadline: then it may have been executed.
///
/// `was_sent` tells that an earlier message may have sent it too: a refusal then says nothing about that sending.
pub(crate) async fn ask(
    client: &Client,
    request: Record,
    was_sent: bool,
    deadline: Instant,
) -> Option<Reply> {
    let mut may_have_been_executed = was_sent;
    let mut pause = PAUSE_MIN;
    loop {
        let refusal = match client.submit(request).await {
            Ok(reply) => return Some(reply),
            Err(SubmitError::NotExecuted { why, .. }) => refused(&request, why),
            Err(SubmitError::Unknown { .. }) => {
                may_have_been_executed = true;
                None
            }
        };
        if let Some(refusal) = refusal.filter(|refusal| !may_be_different_later(refusal.code())) {
            return Some(refusal);
        }
        if Instant::now() + pause >= deadline {
            return match refusal.filter(|_| !may_have_been_executed) {
                Some(refusal) => Some(refusal),
                None => settle(client, &request).await,
            };
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// Makes sure of a lock, which is burned if it has not been made: then "not now" is the truth. Whatever else may have been
/// done is left to the message's repeat.
async fn settle(client: &Client, request: &Record) -> Option<Reply> {
    if request.kind() != Some(Kind::Lock) {
        return None;
    }
    match client.resolve(request.partition, request.id).await.ok()? {
        Outcome::Executed(reply) | Outcome::Declined(reply) => Some(reply),
        Outcome::Burned(_) | Outcome::Refused(_) => Some(reply_of(request, Code::Overloaded)),
    }
}

/// Why a request was not executed, as a reply.
fn refused(request: &Record, why: NotExecuted) -> Option<Reply> {
    let code = match why {
        NotExecuted::Refused { code, time } => return Some(Reply { time, ..reply_of(request, code) }),
        NotExecuted::NoSuchShard(_) => Code::UnknownPartition,
        NotExecuted::Invalid(_) | NotExecuted::NotOneOperation => Code::Malformed,
        NotExecuted::IdInUse
        | NotExecuted::Busy
        | NotExecuted::NoLink(_)
        | NotExecuted::Deadline
        | NotExecuted::ClientClosed => Code::Overloaded,
    };
    Some(reply_of(request, code))
}

fn reply_of(request: &Record, code: Code) -> Reply {
    Reply { id: request.id, code: code as u8, kind: request.kind, ..Reply::default() }
}

/// True for what a later sending may be answered otherwise.
const fn may_be_different_later(code: Code) -> bool {
    matches!(code, Code::Overloaded | Code::Quota | Code::StorageLow | Code::ChainStale)
}
