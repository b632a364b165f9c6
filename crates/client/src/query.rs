//! Questions to an engine's history: JSON documents that the client carries and does not read.

use std::time::Duration;

use surety_protocol::limits::{ANSWER_BYTES_MAX, QUERY_BYTES_MAX};
use surety_protocol::{FrameError, FrameKind, QUERY_VERSION, QueryRefusal, read_answer};
use tokio::time::timeout;

use crate::client::Client;
use crate::transport::{Closed, OpenError};

/// How long a question may take, from its way to the engine to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(40);

/// Why a question to the history has no answer. Asking changes nothing, so it may always be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The engine could not be reached.
    #[error("the engine cannot be asked: {0}")]
    Open(OpenError),
    /// The link ended before the answer had.
    #[error("the engine did not answer: {0}")]
    Closed(#[from] Closed),
    /// It is of a release that has no such questions.
    #[error(
        "the engine speaks version {0} of the wire, and questions to the history come with version {QUERY_VERSION}: it is of an older release"
    )]
    OldEngine(u16),
    /// It takes too long.
    #[error("no whole answer within {} s", PATIENCE.as_secs())]
    Slow,
    /// The question does not fit.
    #[error("a question of {found} bytes; {QUERY_BYTES_MAX} may be asked: ask for fewer values")]
    TooLong {
        /// Bytes of it.
        found: usize,
    },
    /// The engine says why the history was not asked, or has not answered.
    #[error("{message}")]
    Refused {
        /// What kind of refusal it is.
        why: QueryRefusal,
        /// The engine's sentence.
        message: String,
    },
}

impl Client {
    /// Asks the engine's history: a document as `ASK.md` of the history has it, and the answer as it came, which says itself whether the
    /// history has one. It is asked on behalf of the client's tenant, or of the operator.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query(&self, question: &[u8]) -> Result<Vec<u8>, QueryError> {
        if question.len() > QUERY_BYTES_MAX {
            return Err(QueryError::TooLong { found: question.len() });
        }
        let tokens = self.tokens();
        let answer = self.connector().query(question, &tokens);
        timeout(PATIENCE, answer).await.unwrap_or(Err(QueryError::Slow))
    }
}

/// Puts an answer together out of its frames.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    document: Vec<u8>,
    /// Total and status, as the first part had them.
    said: Option<(u32, u8)>,
}

impl Parts {
    /// Takes the body of the next answer frame; yields the answer with the last one.
    pub(crate) fn take(&mut self, body: &[u8]) -> Result<Option<Vec<u8>>, QueryError> {
        let wrong = FrameError::Body(FrameKind::Answer);
        let (head, refusal, part) = read_answer(body).map_err(Closed::BadFrame)?;
        let said = (head.total, head.status);
        let is_same = *self.said.get_or_insert(said) == said;
        self.document.extend_from_slice(part);
        let total = usize::try_from(head.total).unwrap_or(usize::MAX);
        // What a part announces was bounded when it was read.
        let is_right = match head.has_more {
            0 => self.document.len() == total,
            _ => self.document.len() < total && total <= ANSWER_BYTES_MAX,
        };
        if !is_same || !is_right {
            return Err(Closed::BadFrame(wrong).into());
        }
        if head.has_more == 1 {
            return Ok(None);
        }
        let document = std::mem::take(&mut self.document);
        match refusal {
            None => Ok(Some(document)),
            Some(why) => {
                let message = String::from_utf8_lossy(&document).into_owned();
                Err(QueryError::Refused { why, message })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::write_answer;

    fn taken(bodies: &[Vec<u8>]) -> Result<Option<Vec<u8>>, QueryError> {
        let mut parts = Parts::default();
        let mut last = Ok(None);
        for body in bodies {
            assert_eq!(last, Ok(None), "no answer before its last part");
            last = parts.take(body);
        }
        last
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let part = |total, text: &[u8], has_more| write_answer(None, total, text, has_more);
        assert_eq!(taken(&[part(3, b"abc", false)]), Ok(Some(b"abc".to_vec())));
        assert_eq!(taken(&[part(5, b"abc", true), part(5, b"de", false)]), Ok(Some(b"abcde".to_vec())));
        let wrong = Err(Closed::BadFrame(FrameError::Body(FrameKind::Answer)).into());
        for bodies in [
            vec![part(5, b"abc", false)],
            vec![part(5, b"abc", true), part(5, b"d", false)],
            vec![part(5, b"abc", true), part(6, b"def", false)],
            vec![part(5, b"abc", true), part(5, b"def", false)],
            vec![part(5, b"abcde", true)],
            vec![part(5, b"abc", true), write_answer(Some(QueryRefusal::Away), 5, b"de", false)],
        ] {
            assert_eq!(taken(&bodies), wrong);
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let refused = taken(&[write_answer(Some(QueryRefusal::Busy), 5, b"later", false)]);
        assert_eq!(
            refused,
            Err(QueryError::Refused { why: QueryRefusal::Busy, message: "later".to_owned() })
        );
    }
}
