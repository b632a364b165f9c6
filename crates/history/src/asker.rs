//! Asks the process that keeps an index.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::ask::Question;
use crate::frames::{self, ANSWER_BYTES_MAX, QUESTION_BYTES_MAX};
use crate::held::Held;
use crate::place;

/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Asks over the socket in a data directory. Cheap to clone; each question has a connection of its own.
#[derive(Clone, Debug)]
pub struct Asker {
    data: PathBuf,
    is_expected: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskerError {
    /// Nobody keeps the index.
    #[error("nobody keeps the history of {}: serve with --history, or start `surety history run --data {}`", .0.display(), .0.display())]
    Nobody(PathBuf),
    /// Somebody keeps the index, or has until it was killed, and does not answer at this moment.
    #[error("whoever keeps the history of {} is not there now: ask again in a moment", .0.display())]
    Away(PathBuf),
    /// As many are asking as may.
    #[error("the history has no room for another question: ask again in a moment")]
    Busy,
    /// The question does not fit.
    #[error("a question of {found} bytes; {QUESTION_BYTES_MAX} may be asked: ask for fewer values")]
    QuestionTooLong {
        /// Bytes of it.
        found: usize,
    },
    /// The answer does not fit.
    #[error(
        "an answer of {found} bytes, at most {ANSWER_BYTES_MAX} are taken: whoever answers is no history"
    )]
    AnswerTooLong {
        /// Bytes of it.
        found: usize,
    },
    /// The answer takes too long.
    #[error("the history does not answer within {} s", PATIENCE.as_secs())]
    Slow,
    /// It answers that it does not.
    #[error("{message}")]
    Refused {
        /// One of the codes of ASK.md.
        code: String,
        /// What was wrong.
        message: String,
        /// The same question may be answered in a moment.
        is_retryable: bool,
    },
    /// What came is no answer.
    #[error("the history's answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
    /// The socket.
    #[error("asking the history failed: {0}")]
    Io(#[from] io::Error),
}

/// An answer, or why there is none.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Ok(T),
    Error {
        code: String,
        message: String,
        #[serde(default)]
        retryable: bool,
    },
}

impl Asker {
    /// Whoever keeps the index of this data directory, when it is asked.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), is_expected: false }
    }

    /// Of a data directory whose index somebody is known to keep, though it may not have begun yet.
    #[must_use]
    pub fn expecting(data: &Path) -> Self {
        Self { data: data.to_owned(), is_expected: true }
    }

    /// True if somebody keeps an index, or has: there is one to ask for, though maybe nobody to answer.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_expected || place(&self.data).is_dir()
    }

    /// Why nobody answers. Who has ended in order has taken the socket away and let go of the index: it does not come back by itself. Who was
    /// killed has left its socket, and whoever watches it starts it again.
    fn silence(&self) -> AskerError {
        let is_left = || Held::is_taken(&place(&self.data)) || frames::socket(&self.data).exists();
        let silence = if self.is_expected || is_left() { AskerError::Away } else { AskerError::Nobody };
        silence(self.data.clone())
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// [`AskerError`]
    pub async fn ask(&self, question: &Question) -> Result<Value, AskerError> {
        read_answer(&self.ask_bytes(&serde_json::to_vec(question)?).await?)
    }

    /// Asks, and returns the answer's value as it was written: for who carries it on and does not look into it.
    ///
    /// # Errors
    /// [`AskerError`]
    pub async fn ask_text(&self, question: &Question) -> Result<Box<RawValue>, AskerError> {
        read_as(&self.ask_bytes(&serde_json::to_vec(question)?).await?)
    }

    /// Asks by a document as it is, and returns the answer as it came: whether it is one stands in it. It is JSON, and bounded.
    ///
    /// # Errors
    /// [`AskerError`], but not what the answer itself says.
    pub async fn ask_bytes(&self, question: &[u8]) -> Result<Vec<u8>, AskerError> {
        if question.len() > QUESTION_BYTES_MAX {
            return Err(AskerError::QuestionTooLong { found: question.len() });
        }
        let answer = timeout(PATIENCE, self.exchange(question)).await.map_err(|_| AskerError::Slow)??;
        serde_json::from_slice::<&RawValue>(&answer)?;
        Ok(answer)
    }

    async fn exchange(&self, question: &[u8]) -> Result<Vec<u8>, AskerError> {
        let mut stream = frames::dial(&self.data).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => self.silence(),
            // Its queue is full.
            io::ErrorKind::WouldBlock => AskerError::Busy,
            _ => error.into(),
        })?;
        // Who has no room says so and closes, whatever is sent.
        let sent = frames::write(&mut stream, question).await;
        let length = frames::read_length(&mut stream).await?;
        let Some(length) = length else {
            sent?;
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        };
        if length > ANSWER_BYTES_MAX {
            return Err(AskerError::AnswerTooLong { found: length });
        }
        Ok(frames::read_body(&mut stream, length).await?)
    }
}

/// Reads an answer.
///
/// # Errors
/// [`AskerError::Busy`] and [`AskerError::Refused`], if that is what it says.
pub fn read_answer(bytes: &[u8]) -> Result<Value, AskerError> {
    read_as(bytes)
}

fn read_as<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AskerError> {
    match serde_json::from_slice(bytes)? {
        Answer::Ok(value) => Ok(value),
        Answer::Error { code, .. } if code == crate::answer::Fault::Busy.name() => Err(AskerError::Busy),
        Answer::Error { code, message, retryable } => {
            Err(AskerError::Refused { code, message, is_retryable: retryable })
        }
    }
}
