//! What has happened: a page's questions go to the process that keeps the history, on behalf of the person who is signed in.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use history::{Ask, AskerError, Fault, Question};
use serde::Deserialize;
use server::{HISTORY_AWAY, NO_HISTORY};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::actions::read;
use crate::guard::signed_in;
use crate::reads::is_operator;
use crate::refusal::Refusal;
use crate::sessions::Session;
use crate::start::{Desk, json_text};

/// How long a question waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// On whose behalf it is asked, the session says, and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    ask: Ask,
}

/// Asks the history.
pub(crate) async fn ask(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let session = signed_in(&desk, &headers)?;
    let asker = desk.history.as_ref().ok_or_else(|| Refusal::NoHistory(NO_HISTORY.to_owned()))?;
    let sight = session.caller.sight().ok_or(Refusal::NoRole(
        "the history is of all tenants together: it takes reader, settler or admin",
    ))?;
    let Asked { ask } = read(&body)?;
    let of = sight.tenant().map(|tenant| tenant.0);
    let own = place(&session.questions).await?;
    let of_tenants = match of {
        Some(_) => Some(place(&desk.tenants_questions).await?),
        None => None,
    };
    let asker = asker.clone();
    // Whoever goes away keeps the places: the history works on.
    let asked = tokio::spawn(async move {
        let _places = (own, of_tenants);
        // Carried on as it is: a page of large rows takes long to be read, and there is one thread for every page.
        asker.ask_text(&Question { of, ask }).await
    });
    let answer = asked.await.map_err(|error| Refusal::PastAway(error.to_string()))?;
    let answer = answer.map_err(|error| refusal(error, is_operator(&session)))?;
    Ok(json_text(Box::<str>::from(answer).into_string()))
}

/// A place among the questions that are asked, as soon as there is one.
async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    let place = timeout(PATIENCE, Arc::clone(places).acquire_owned()).await;
    place
        .ok()
        .and_then(Result::ok)
        .ok_or(Refusal::PastBusy("too many questions to the history: ask again in a moment".to_owned()))
}

/// True for whom a question is carried on.
pub(crate) fn may_ask(session: &Session) -> bool {
    session.caller.sight().is_some()
}

/// Where the engine's files are is the operator's to know.
fn refusal(error: AskerError, is_operator: bool) -> Refusal {
    match error {
        AskerError::Refused { code, message, .. } if code == Fault::NotComplete.name() => {
            Refusal::NotComplete(message)
        }
        AskerError::Refused { code, message, .. } => Refusal::Past { code, message },
        AskerError::Busy => Refusal::PastBusy(error.to_string()),
        AskerError::QuestionTooLong { .. } => Refusal::Wrong(error.to_string()),
        AskerError::Nobody(_) if is_operator => Refusal::NoHistory(error.to_string()),
        AskerError::Nobody(_) => Refusal::NoHistory(NO_HISTORY.to_owned()),
        error if is_operator => Refusal::PastAway(error.to_string()),
        _ => Refusal::PastAway(HISTORY_AWAY.to_owned()),
    }
}
