//! One request, until its outcome is definite.

use std::time::Duration;

use surety_client::protocol::{Amount, ChangeBody, Code, Flags, Kind, Record, Reply};
use surety_client::{Client, NotExecuted, SubmitError, Unknown};
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
    let mut sendings = Sendings { request, not_now: None, is_open: false };
    loop {
        // What is given up on has left.
        let answer = timeout_at(sending_until, client.submit(request)).await;
        if let Ok(Err(SubmitError::Unknown { cause: Unknown::AfterRestore, .. })) = answer {
            // Neither a repeat nor a look-up will tell before the operator has reconciled, and maybe never.
            return None;
        }
        if let Some(reply) = sendings.note(answer.ok()) {
            return Some(reply);
        }
        if Instant::now() + pause >= sending_until {
            break;
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
    if matches!(request.kind(), Some(Kind::Lock | Kind::Increase)) {
        return timeout_at(deadline, make_sure(client, request)).await.ok().flatten();
    }
    sendings.result()
}

/// What the sendings of a request have come to.
struct Sendings {
    request: Record,
    /// The last refusal.
    not_now: Option<Reply>,
    /// One of them may have been executed, or still be.
    is_open: bool,
}

impl Sendings {
    /// Takes the answer to a sending, or that there was none. Its reply, if it is definite.
    fn note(&mut self, answer: Option<Result<Reply, SubmitError>>) -> Option<Reply> {
        match answer {
            Some(Ok(reply)) => return Some(reply),
            Some(Err(SubmitError::NotExecuted { why, .. })) => {
                let refusal = refused(&self.request, why);
                // Any refusal but one of the request's own bytes speaks of its sending alone.
                let is_definite = if self.is_open {
                    matches!(refusal.code(), Code::Malformed | Code::TooLarge | Code::IdConflict)
                } else {
                    !refusal.code().may_pass()
                };
                if is_definite {
                    return Some(refusal);
                }
                self.not_now = Some(refusal);
            }
            Some(Err(SubmitError::Unknown { .. })) | None => self.is_open = true,
        }
        None
    }

    /// "Not now" if that is true of every sending: it comes again, and then gets the answer that it has now or would have had. A
    /// look-up has moved nothing whatever became of it.
    fn result(self) -> Option<Reply> {
        let is_look_up = self.request.kind() == Some(Kind::Lookup);
        self.not_now.filter(|_| is_look_up || !self.is_open)
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
pub(crate) mod tests {
    use std::sync::Arc;

    use server::Embedded;
    use surety_client::Options;
    use surety_client::protocol::{ActorId, Caller, Id, LockBody, PartitionHandle, Roles, TenantId, Time};

    use super::*;
    use crate::stage;

    #[test]
    fn not_now_is_said_only_of_what_was_never_open() {
        const LOST: Option<Result<Reply, SubmitError>> = None;
        let refused = |code| {
            let why = NotExecuted::Refused { code, time: Time(0) };
            Some(Err(SubmitError::NotExecuted { id: Id(1), why }))
        };
        let (busy, no_right, conflict) =
            (refused(Code::Overloaded), refused(Code::NoRight), refused(Code::IdConflict));
        let check = |kind: Kind, answers: &[Option<Result<Reply, SubmitError>>], expect: Option<Code>| {
            let body = ChangeBody::default();
            let request = Record::new(kind, Id(1), PartitionHandle(1), Amount(1), &body);
            let mut sendings = Sendings { request, not_now: None, is_open: false };
            let definite = answers.iter().find_map(|answer| sendings.note(*answer));
            let reply = definite.or_else(|| sendings.result());
            assert_eq!(reply.map(|reply| reply.code()), expect, "{kind:?} {answers:?}");
        };
        check(Kind::Release, &[busy, busy], Some(Code::Overloaded));
        check(Kind::Release, &[busy, LOST], None);
        check(Kind::Advice, &[LOST, busy], None);
        check(Kind::Advice, &[LOST, busy, no_right], None);
        check(Kind::Advice, &[busy, no_right, LOST], Some(Code::NoRight));
        check(Kind::Advice, &[LOST, conflict], Some(Code::IdConflict));
        check(Kind::Lookup, &[LOST, busy], Some(Code::Overloaded));
        check(Kind::Lookup, &[LOST], None);
    }

    /// A client of an engine in this process.
    pub(crate) async fn connect(engine: &Embedded, tenant: TenantId, roles: Roles) -> Client {
        let caller = Caller { tenant, roles, actor: ActorId(1) };
        Client::over(Arc::new(engine.connector(caller)), Options::default(), &[]).await.unwrap()
    }

    #[tokio::test]
    async fn what_stands_under_an_id_is_not_taken_for_the_request() {
        let directory = stage::directory().unwrap();
        let engine = Embedded::start(stage::config(directory.path())).unwrap();
        let operator = connect(&engine, TenantId(0), Roles::ADMIN).await;
        let partition = stage::stake(&operator, &[1000]).await.unwrap()[0];
        let client = connect(&engine, stage::TENANT, Roles::AUTHORIZER).await;
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
