//! Requests that the ledger would take twice, since they have no number of the chain's: noted before they are sent, so that a
//! restart finds out what became of them.

use surety_client::request::Draft;
use surety_client::{DefiniteError, Outcome, ResolveError};
use surety_protocol::{ControlBody, Kind, StakeBody};

use crate::error::SettlerError;
use crate::note::Note;
use crate::points::Point;
use crate::settler::Settler;

impl Settler {
    /// Notes a request, sends it, and makes its outcome definite. What it came to the stream has told then.
    pub(crate) async fn ask_once(&mut self, draft: Draft) -> Result<(), SettlerError> {
        self.resolve_open_request().await?;
        let request = draft.into_record(|| self.client.new_id());
        self.journal.append(&Note::Asked(Box::new(request)))?;
        self.open_request = Some(request);
        self.pass(Point::Noted)?;
        self.resolve_open_request().await
    }

    /// Makes the outcome of a noted request definite, and notes that it was answered. One that came to nothing may be asked
    /// again.
    pub(crate) async fn resolve_open_request(&mut self) -> Result<(), SettlerError> {
        let Some(request) = self.open_request else { return Ok(()) };
        let partition = request.partition;
        match self.client.submit_definite(request).await {
            Ok(Outcome::Executed(reply) | Outcome::Declined(reply)) => {
                self.pass(Point::Asked)?;
                self.catch_up(partition.shard(), reply.seq).await?;
            }
            // Burned: it never will be executed. Forgotten: if it ever was, the stream says so. Lost: nobody can tell; the stream has the
            // loss then, and catching up ends with it.
            Ok(Outcome::Burned(_) | Outcome::Refused(_))
            | Err(DefiniteError::Unresolved(ResolveError::Forgotten { .. } | ResolveError::Lost { .. })) => {
                self.catch_up_with(partition).await?;
            }
            Err(error) => return Err(error.into()),
        }
        self.open_request = None;
        let answer = if request.kind() == Some(Kind::Deficit) {
            let ControlBody { reference, .. } = request.body();
            self.facts.is_loss(reference).then_some(Note::LossBooked { reference })
        } else {
            let StakeBody { nonce, .. } = request.body();
            let is_answered = self.sealer.netting().exit_nonce(partition) >= nonce;
            is_answered.then_some(Note::ExitAnswered { partition, nonce })
        };
        let Some(answer) = answer else { return Ok(()) };
        self.journal.append(&answer)?;
        if let Note::ExitAnswered { partition, nonce } = answer {
            self.answered.insert(partition, nonce);
        }
        self.pass(Point::Answered)
    }
}
