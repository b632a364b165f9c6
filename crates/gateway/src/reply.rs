//! Messages that are served beside each other, what came of them, and how replies are put into bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iso8583::payment::{Day, Figures, Intent, Outcome, Refusal, Statement, answer, reconciled, refuse};
use iso8583::{Dialect, Draft, EncodeError, FrameError, Message};
use telemetry::Sparing;
use tokio::time::Instant;

use crate::config::LinkConfig;
use crate::desk::Desk;
use crate::in_flight::Turn;
use crate::mac::{MAC_BYTES, MacKey};

/// A message that was taken, to be served beside others.
pub(crate) struct Job {
    pub(crate) bytes: Vec<u8>,
    pub(crate) intent: Intent,
    pub(crate) task: Task,
    pub(crate) turn: Turn,
    /// The key that its reply is signed with, if it is.
    pub(crate) signer: Option<Arc<MacKey>>,
}

/// What is to be done for a message.
pub(crate) enum Task {
    /// Whatever a payment's message asks.
    Payment,
    /// The business day ends; the next is this one, if it has a name.
    Cutover(Option<Day>),
    /// Our figures beside theirs. They change nothing, so that repeats are no matter.
    Totals(Statement),
}

/// A message that was served, and what came of it.
pub(crate) struct Served {
    /// When its serving began.
    pub(crate) begun: Instant,
    pub(crate) bytes: Vec<u8>,
    pub(crate) intent: Intent,
    pub(crate) signer: Option<Arc<MacKey>>,
    pub(crate) result: Came,
}

/// What came of a message.
pub(crate) enum Came {
    /// Of a payment's. None if it is not known in time.
    Payment(Option<Outcome>),
    /// The business day that has begun.
    Cutover(Result<Day, Refusal>),
    /// The day and currency of a statement, and our figures.
    Totals(Statement, Result<((Day, u16), Figures), Refusal>),
}

impl Job {
    /// Serves the message, for at most so long.
    pub(crate) async fn serve(self, desk: Arc<Desk>, within: Duration) -> Served {
        let begun = Instant::now();
        let deadline = begun + within;
        let Self { bytes, intent, task, turn, signer } = self;
        let result = match task {
            Task::Payment => Came::Payment(desk.serve(&intent, turn, deadline).await),
            Task::Cutover(day) => Came::Cutover(desk.cut_over(intent.id, day, deadline).await),
            Task::Totals(statement) => {
                let figures = desk.figures(&statement, deadline).await;
                Came::Totals(statement, figures)
            }
        };
        Served { begun, bytes, intent, signer, result }
    }
}

/// While an engine is away every message is one of these.
static UNANSWERED: Sparing = Sparing::new(20);

impl Served {
    /// Drafts its reply. False if there is none.
    pub(crate) fn reply(&self, config: &LinkConfig, peer: SocketAddr, draft: &mut Draft) -> bool {
        let Ok(message) = Message::parse(config.codec(), &self.bytes) else { return false };
        let (mti, id) = (self.intent.mti, self.intent.id);
        let refusal = match &self.result {
            Came::Payment(None) => {
                if let Some(withheld) = UNANSWERED.turn() {
                    let what = "not answered: its outcome is unknown";
                    tracing::warn!(link = config.name, %peer, %mti, request = %id, withheld, "{what}");
                }
                return false;
            }
            Came::Payment(Some(outcome)) => {
                if outcome.is_unmatched {
                    tracing::warn!(link = config.name, %peer, %mti, request = %id, "a notice that moved nothing");
                }
                return answer(&message, &self.intent, outcome, draft);
            }
            Came::Cutover(Ok(day)) => {
                tracing::info!(link = config.name, %peer, %day, "cutover");
                let is_answered = answer(&message, &self.intent, &Outcome::approved(), draft);
                set_day(draft, config.rules.dialect, *day);
                return is_answered;
            }
            Came::Totals(statement, Ok((of, ours))) => {
                return reconciled(&message, statement, *of, ours, draft);
            }
            Came::Cutover(Err(refusal)) | Came::Totals(_, Err(refusal)) => *refusal,
        };
        tracing::debug!(link = config.name, %peer, %mti, request = %id, %refusal, "refused");
        refuse(&message, refusal, draft)
    }
}

/// The business day: field 15, field 28 of the 1993 edition.
fn set_day(draft: &mut Draft, dialect: Dialect, day: Day) {
    match dialect {
        Dialect::V1987 => draft.set(15, &day.digits()[2..]),
        Dialect::V1993 => draft.set(28, &day.digits()),
    }
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Writes a message behind its length, with a code of this key. On an error `out` is as it was.
pub(crate) fn frame(
    config: &LinkConfig,
    draft: &mut Draft,
    signer: Option<&MacKey>,
    out: &mut Vec<u8>,
) -> Result<(), SendError> {
    let codec = config.codec();
    if let Some(key) = signer {
        let mut bytes = Vec::with_capacity(256);
        MacKey::make_room(draft);
        draft.encode(codec, &mut bytes)?;
        key.sign(draft, &bytes, codec.profile.binary_bytes(MAC_BYTES));
    }
    config.header.write(out, |out| draft.encode(codec, out).map_err(SendError::from))
}
