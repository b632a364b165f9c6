//! The reply to a message that is served beside others, and how replies are put into bytes.

use std::net::SocketAddr;

use iso8583::payment::{Ask, Intent, Statement, answer, reconciled, refuse};
use iso8583::{Draft, EncodeError, FrameError, Message};
use tokio::time::Instant;

use crate::config::LinkConfig;
use crate::desk::Desk;
use crate::in_flight::Turn;
use crate::mac::{MAC_BYTES, MacKey};

/// Serves a payment and writes its reply. None if its outcome is not known in time.
pub(crate) async fn reply_to(
    bytes: &[u8],
    intent: &Intent,
    turn: Turn,
    desk: &Desk,
    config: &LinkConfig,
    peer: SocketAddr,
    signer: Option<&MacKey>,
) -> Option<Vec<u8>> {
    let deadline = Instant::now() + config.limits.answer_within;
    let message = Message::parse(config.codec(), bytes).ok()?;
    if intent.ask == Ask::Totals {
        return write(config, totals_of(&message, desk, deadline).await?, signer);
    }
    let Some(outcome) = desk.serve(intent, turn, deadline).await else {
        let (mti, id) = (intent.mti, intent.id);
        tracing::warn!(link = config.name, %peer, %mti, %id, "not answered: its outcome is unknown");
        return None;
    };
    if outcome.is_unmatched {
        tracing::warn!(link = config.name, %peer, mti = %intent.mti, id = %intent.id, "a notice that moved nothing");
    }
    let mut draft = Draft::new(config.rules.dialect);
    if !answer(&message, intent, &outcome, &mut draft) {
        return None;
    }
    write(config, draft, signer)
}

/// Our totals of a business day. They change nothing, so that their repeats are no matter.
async fn totals_of(message: &Message<'_>, desk: &Desk, deadline: Instant) -> Option<Draft> {
    let mut draft = Draft::new(message.codec().dialect);
    let statement = Statement::read(message, desk.now());
    let figures = match &statement {
        Ok(statement) => desk.figures(statement, deadline).await,
        Err(refusal) => Err(*refusal),
    };
    let is_answered = match (&statement, figures) {
        (Ok(statement), Ok((of, ours))) => reconciled(message, statement, of, &ours, &mut draft),
        (Err(refusal), _) => refuse(message, *refusal, &mut draft),
        (_, Err(refusal)) => refuse(message, refusal, &mut draft),
    };
    is_answered.then_some(draft)
}

fn write(config: &LinkConfig, mut draft: Draft, signer: Option<&MacKey>) -> Option<Vec<u8>> {
    match frame(config, &mut draft, signer) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            tracing::error!(link = config.name, %error, "a reply that cannot be written");
            None
        }
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

/// A message behind its length, with a code of this key.
pub(crate) fn frame(
    config: &LinkConfig,
    draft: &mut Draft,
    signer: Option<&MacKey>,
) -> Result<Vec<u8>, SendError> {
    let (header, codec) = (config.header, config.codec());
    let mut bytes = Vec::with_capacity(256);
    if let Some(key) = signer {
        MacKey::make_room(draft);
        draft.encode(codec, &mut bytes)?;
        key.sign(draft, &bytes, codec.profile.binary_bytes(MAC_BYTES));
        bytes.clear();
    }
    header.write(&mut bytes, |out| draft.encode(codec, out).map_err(SendError::from))?;
    Ok(bytes)
}
