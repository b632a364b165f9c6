//! Questions that come to an engine over the wire: asked of the process that keeps its history, over the socket in the data directory.

use history::{Asker, AskerError, Fault, Question};
use server::{Asked, HISTORY_AWAY, Historian, NO_HISTORY, Unanswered};
use surety_protocol::{QueryRefusal, Sight};
use tokio::runtime::Handle;

/// Asks whoever keeps the index, on the runtime of the process: the engine's threads wait for nothing.
#[derive(Debug)]
pub(crate) struct Answerer {
    asker: Asker,
    runtime: Handle,
}

impl Answerer {
    /// For the engine of the asker's data directory.
    pub(crate) const fn new(asker: Asker, runtime: Handle) -> Self {
        Self { asker, runtime }
    }
}

impl Historian for Answerer {
    // Also where nobody waits for the answer any more: until it has come, the history works on it, and its place is taken.
    fn ask(&self, asked: Asked) {
        let asker = self.asker.clone();
        self.runtime.spawn(async move {
            let question = Question::read_by(asked.sight(), asked.document()).map_err(|error| {
                let why = match Fault::of(&error) {
                    Fault::Forbidden => QueryRefusal::Forbidden,
                    _ => QueryRefusal::Malformed,
                };
                Unanswered::new(why, error.to_string())
            });
            let sight = asked.sight();
            let answer = match question {
                Err(unanswered) => Err(unanswered),
                Ok(question) => answer(&asker, &question, sight).await,
            };
            asked.answer(answer);
        });
    }
}

async fn answer(asker: &Asker, question: &Question, sight: Sight) -> Result<Vec<u8>, Unanswered> {
    let document =
        serde_json::to_vec(question).map_err(|error| unanswered(&AskerError::Answer(error), sight))?;
    asker.ask_bytes(&document).await.map_err(|error| unanswered(&error, sight))
}

/// Where the engine's files are is the operator's to know.
fn unanswered(error: &AskerError, sight: Sight) -> Unanswered {
    let why = match error {
        AskerError::Busy => QueryRefusal::Busy,
        AskerError::QuestionTooLong { .. } => QueryRefusal::TooLong,
        AskerError::Nobody(_) => QueryRefusal::NoHistory,
        _ => QueryRefusal::Away,
    };
    match (why, sight) {
        (QueryRefusal::NoHistory, Sight::Tenant(_)) => Unanswered::new(why, NO_HISTORY),
        (QueryRefusal::Away, Sight::Tenant(_)) => Unanswered::new(why, HISTORY_AWAY),
        _ => Unanswered::new(why, error.to_string()),
    }
}
