//! One request, until its outcome is definite.

use std::time::Duration;

use surety_client::protocol::{Amount, ChangeBody, Code, Flags, Kind, Record, Reply};
use surety_client::{Client, NotExecuted, SubmitError};
use tokio::time::{Instant, sleep, timeout_at};

/// The first pause before a request is sent again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Sends a request under its id until there is a reply, or until the deadline. None if there is none: then it may have been
/// executed.
///
/// The last quarter of the time is for making sure. A refusal alone says nothing of a message that came before, through this
/// process or another, and sent the same request.
pub(crate) async fn ask(client: &Client, request: Record, deadline: Instant) -> Option<Reply> {
    let now = Instant::now();
    let sending_until = now + deadline.saturating_duration_since(now) * 3 / 4;
    let mut pause = PAUSE_MIN;
    let mut not_now = None;
    while let Ok(answer) = timeout_at(sending_until, client.submit(request)).await {
        not_now = match answer {
            Ok(reply) => return Some(reply),
            Err(SubmitError::NotExecuted { why, .. }) => {
                let refusal = refused(&request, why);
                if !may_be_different_later(refusal.code()) {
                    return Some(refusal);
                }
                Some(refusal)
            }
            Err(SubmitError::Unknown { .. }) => None,
        };
        if Instant::now() + pause >= sending_until {
            break;
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
    if matches!(request.kind(), Some(Kind::Lock | Kind::Increase)) {
        return timeout_at(deadline, make_sure(client, request)).await.ok().flatten();
    }
    // All else comes again, and then gets the answer that it has now or would have had.
    not_now
}

/// Makes sure of a request that takes collateral: it is burned if it was not executed, and then "not now" is the truth. If
/// something is recorded under its id, the request itself is answered, since that may have been another one.
async fn make_sure(client: &Client, request: Record) -> Option<Reply> {
    let body = ChangeBody { lock: request.id, ..ChangeBody::default() };
    let flags = Flags::BURN | Flags(request.flags & Flags::LASTING.0);
    let mut pause = PAUSE_MIN;
    let found = loop {
        let id = client.new_id();
        let look_up = Record::new(Kind::Lookup, id, request.partition, Amount::ZERO, &body);
        match client.submit(look_up.with_flags(flags)).await {
            Ok(found) => break found,
            Err(_) => sleep(pause).await,
        }
        pause = (2 * pause).min(PAUSE_MAX);
    };
    match found.code() {
        Code::NotFound if found.seq.0 > 0 => Some(reply_of(&request, Code::Overloaded)),
        // Too old to be burned: what was executed may have been forgotten.
        Code::NotFound => None,
        _ => match client.submit(request).await {
            Ok(reply) => Some(reply),
            Err(SubmitError::NotExecuted {
                why: NotExecuted::Refused { code: Code::IdConflict, .. },
                ..
            }) => Some(reply_of(&request, Code::IdConflict)),
            Err(_) => None,
        },
    }
}

/// Why a request was not executed, as a reply.
fn refused(request: &Record, why: NotExecuted) -> Reply {
    let code = match why {
        NotExecuted::Refused { code, time } => return Reply { time, ..reply_of(request, code) },
        NotExecuted::NoSuchShard(_) => Code::UnknownPartition,
        NotExecuted::Invalid(_) | NotExecuted::NotOneOperation => Code::Malformed,
        NotExecuted::IdInUse
        | NotExecuted::Busy
        | NotExecuted::NoLink(_)
        | NotExecuted::Deadline
        | NotExecuted::ClientClosed => Code::Overloaded,
    };
    reply_of(request, code)
}

fn reply_of(request: &Record, code: Code) -> Reply {
    Reply { id: request.id, code: code as u8, kind: request.kind, ..Reply::default() }
}

/// True for what a later sending may be answered otherwise.
const fn may_be_different_later(code: Code) -> bool {
    matches!(code, Code::Overloaded | Code::Quota | Code::StorageLow | Code::ChainStale)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use std::sync::Arc;

    use server::Embedded;
    use surety_client::Options;
    use surety_client::protocol::{ActorId, Caller, LockBody, Roles, TenantId};

    use super::*;
    use crate::stage;

    #[tokio::test]
    async fn what_stands_under_an_id_is_not_taken_for_the_request() {
        let directory = stage::directory().unwrap();
        let engine = Embedded::start(stage::config(directory.path())).unwrap();
        let connect = |tenant, roles| {
            let caller = Caller { tenant, roles, actor: ActorId(1) };
            let connector = Arc::new(engine.connector(caller));
            async { Client::over(connector, Options::default(), &[]).await.unwrap() }
        };
        let operator = connect(TenantId(0), Roles::ADMIN).await;
        let partition = stage::stake(&operator, &[1000]).await.unwrap()[0];
        let client = connect(stage::TENANT, Roles::AUTHORIZER).await;
        let lock = |id, amount| Record::new(Kind::Lock, id, partition, Amount(amount), &LockBody::default());
        let id = client.new_id();
        assert_eq!(client.submit(lock(id, 100)).await.unwrap().code(), Code::Approved);
        let sure = make_sure(&client, lock(id, 100)).await.unwrap();
        assert_eq!((sure.code(), sure.is_replayed()), (Code::Approved, true));
        // Another payment under the same numbers: a look-up alone would say that it is approved.
        assert_eq!(make_sure(&client, lock(id, 200)).await.unwrap().code(), Code::IdConflict);
        // Nothing stands there: it never will.
        let id = client.new_id();
        assert_eq!(make_sure(&client, lock(id, 100)).await.unwrap().code(), Code::Overloaded);
        assert_eq!(client.submit(lock(id, 100)).await.unwrap().code(), Code::Burned);
        engine.shutdown();
    }
}
